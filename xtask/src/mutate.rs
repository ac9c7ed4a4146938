//! `cargo xtask mutate`: breaks the code in one place after the other and names the test that notices each.
//! Prints the table of docs/mutations.md. Works in a copy, target/mutate/tree.

mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use self::targets::{TARGETS, Target};
use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Only mutations whose name holds this text (all by default)
    only: Option<String>,
    /// Only mutations that have no row in docs/mutations.md
    #[arg(long)]
    missing: bool,
    /// Put every row into docs/mutations.md as soon as it is known
    #[arg(long)]
    write: bool,
}

/// The header of the table.
const HEADER: &str = "| mutation | caught by | seconds |\n|---|---|---:|\n";

pub fn run(args: &Args) -> Result<()> {
    let tree = process::root().join("target/mutate/tree");
    copy_tracked_files(&tree)?;
    let file = process::root().join("docs/mutations.md");
    let read = || fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()));
    let text = read()?;
    let known = rows(&text);
    let is_chosen = |name: &str| {
        args.only.as_ref().is_none_or(|only| name.contains(only))
            && !(args.missing && known.contains_key(name))
    };
    let mut chosen = Vec::new();
    for target in TARGETS {
        for mutation in target.mutations.iter().filter(|mutation| is_chosen(mutation[0])) {
            chosen.push((target, mutation[0], mutated(&tree, target.file, mutation)?));
        }
    }
    let mut useless = BTreeSet::new();
    for test in chosen.iter().map(|(target, ..)| target.arguments()).collect::<BTreeSet<_>>() {
        eprintln!("unbroken: cargo {test}");
        let failed = failing_tests(&tree, &test)?;
        if !failed.is_empty() {
            eprintln!("fails before anything is broken, and tells nothing: {}", failed.join(", "));
            useless.insert(test);
        }
    }
    chosen.retain(|(target, ..)| !useless.contains(&target.arguments()));

    print!("{HEADER}");
    let mut survivors = Vec::new();
    for (target, name, mutated) in chosen {
        let path = tree.join(target.file);
        let original = fs::read(&path)?;
        let start = Instant::now();
        fs::write(&path, mutated)?;
        let failed = failing_tests(&tree, &target.arguments());
        fs::write(&path, original)?;
        let failed = failed.with_context(|| format!("mutation “{name}” of {}", target.file))?;
        if failed.is_empty() {
            survivors.push(name);
        }
        let caught = if failed.is_empty() { "**nothing**" } else { &format!("`{}`", failed.join("`, `")) };
        let row = format!("| {name} | {caught} | {:.0} |", start.elapsed().as_secs_f64());
        println!("{row}");
        if args.write && !failed.is_empty() {
            fs::write(&file, with_row(&read()?, name, &row)?)?;
        }
    }
    if let Some(test) = useless.first() {
        bail!("{} runs of tests fail before anything is broken, the first is `cargo {test}`", useless.len());
    }
    if !survivors.is_empty() {
        bail!("{} mutations survive: {}", survivors.len(), survivors.join("; "));
    }
    Ok(())
}

/// The rows of the table that a text ends with, by the mutation's name.
fn rows(text: &str) -> BTreeMap<&str, &str> {
    let table = text.split_once(HEADER).map_or("", |(_, table)| table);
    let named =
        |row| -> Option<(&str, &str)> { Some((str::strip_prefix(row, "| ")?.split_once(" | ")?.0, row)) };
    table.lines().filter_map(named).collect()
}

/// The text with this row in its table, in the order of [`TARGETS`]; rows of what is there no more are left out.
fn with_row(text: &str, name: &str, row: &str) -> Result<String> {
    let (before, _) = text.split_once(HEADER).context("docs/mutations.md has no table")?;
    let mut rows = rows(text);
    rows.insert(name, row);
    let names = TARGETS.iter().flat_map(|target| target.mutations).map(|mutation| mutation[0]);
    let rows: String = names.filter_map(|name| Some(format!("{}\n", rows.get(name)?))).collect();
    Ok(format!("{before}{HEADER}{rows}"))
}

impl Target {
    fn arguments(&self) -> String {
        if self.test.starts_with("-p ") {
            return format!("test --all-features {}", self.test);
        }
        let package = self.file.split('/').nth(1).unwrap_or_default();
        format!("test -p {package} --all-features {}", self.test)
    }
}

/// The file's text with the mutation in it.
fn mutated(root: &Path, file: &str, [name, from, to]: &[&str; 3]) -> Result<String> {
    let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
    let count = text.matches(from).count();
    if count != 1 {
        bail!("mutation “{name}” is stale: {file} has this {count} times, not once: {from}");
    }
    Ok(text.replace(from, to))
}

/// Makes `tree` hold the tracked files as they stand, and no others. Files that are right already keep their times, so
/// that cargo builds again only what is different from the last build in the tree.
fn copy_tracked_files(tree: &Path) -> Result<()> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z"]).current_dir(process::root());
    let mut files = BTreeMap::new();
    for name in process::output(&mut list)?.split_terminator('\0') {
        // A tracked file may have been removed.
        if let Ok(bytes) = fs::read(process::root().join(name)) {
            files.insert(tree.join(name), bytes);
        }
    }
    fs::create_dir_all(tree)?;
    remove_others(tree, &files)?;
    for (path, bytes) in files {
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(path.parent().unwrap_or(tree))?;
            fs::write(path, bytes)?;
        }
    }
    Ok(())
}

fn remove_others(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, files)?;
        } else if !files.contains_key(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Names of the tests that fail; data outside the repository is hidden from them.
fn failing_tests(tree: &Path, test: &str) -> Result<Vec<String>> {
    let mut command = process::cargo(test.split(' ').chain(["--quiet"]));
    command.current_dir(tree).env("CARGO_TARGET_DIR", tree.with_file_name("target"));
    // Broken code may well leave something unused, which is no reason to refuse it.
    command.env_remove("RUSTFLAGS").env_remove("PENJING_SHARED");
    let output = command.output().with_context(|| format!("cannot start `{}`", process::shown(&command)))?;
    let failed = failed_names(&String::from_utf8_lossy(&output.stdout));
    if output.status.success() != failed.is_empty() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` does not compile, or ends before its tests do:\n{error}", process::shown(&command));
    }
    Ok(failed)
}

/// What the test harness lists under its last `failures:`.
fn failed_names(output: &str) -> Vec<String> {
    let list = output.rsplit_once("\nfailures:\n").map_or("", |(_, list)| list);
    list.lines().map_while(|line| line.strip_prefix("    ")).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mutation_is_stale() {
        for target in TARGETS {
            for mutation in target.mutations {
                assert_ne!(mutated(&process::root(), target.file, mutation).unwrap(), "");
            }
        }
    }

    #[test]
    fn a_row_takes_its_place_in_the_table() {
        let names: Vec<&str> = TARGETS.iter().flat_map(|target| target.mutations).map(|m| m[0]).collect();
        let row = |name: &str, by: &str| format!("| {name} | `{by}` | 7 |");
        let text = format!("# Rows\n\n{HEADER}{}\n{}\n", row(names[0], "a"), row("gone", "b"));
        assert_eq!(rows(&text).keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([names[0], "gone"]));
        let text = with_row(&text, names[2], &row(names[2], "c")).unwrap();
        let text = with_row(&text, names[1], &row(names[1], "d")).unwrap();
        let text = with_row(&text, names[0], &row(names[0], "e")).unwrap();
        let table = [row(names[0], "e"), row(names[1], "d"), row(names[2], "c")].join("\n");
        assert_eq!(text, format!("# Rows\n\n{HEADER}{table}\n"));
        assert!(with_row("no table", names[0], "").is_err() && rows("no table").is_empty());
    }

    #[test]
    fn failed_tests_are_read_from_the_harness() {
        let output = "\nfailures:\n\n---- a::b stdout ----\nfailures:\nx\n\n\nfailures:\n    a::b\n    c\n\n\
                      test result: FAILED. 1 passed; 2 failed";
        assert_eq!(failed_names(output), ["a::b", "c"]);
        assert!(failed_names("running 1 test\n.\ntest result: ok. 1 passed").is_empty());
    }
}
