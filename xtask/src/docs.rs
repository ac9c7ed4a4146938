//! `cargo xtask docs`: the commands of README.md and docs/ do what they say.
//!
//! A block of `console` after a line `<!-- run -->` is run: each line that begins with `$ ` in the shell, in a folder
//! of the page's own, with the example's photos under `photos/{train,test}/CLASS/` and `penjing` in PATH. A block after
//! a line `<!-- write NAME -->` is written there first, as the file of that name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{demo, process};

/// Enough to learn from, few enough that a page takes seconds.
const PHOTOS_PER_CLASS: usize = 20;
/// So many commands are named with the time that they took.
const LONGEST: usize = 8;

pub fn run() -> Result<()> {
    let pages = pages()?;
    let binary = demo::build_penjing()?;
    let folder = binary.parent().context("the binary has no folder")?;
    let before = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths([folder.to_path_buf()].into_iter().chain(std::env::split_paths(&before)))?;

    let mut took = Vec::new();
    for page in &pages {
        let text =
            std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
        let commands = commands(&text);
        if commands.is_empty() {
            continue;
        }
        let dir = fresh_folder(page)?;
        for (name, content) in files(&text) {
            std::fs::write(dir.join(&name), content).with_context(|| format!("cannot write {name}"))?;
        }
        for (line, typed) in commands {
            println!("{}:{line}: $ {typed}", page.file_name().unwrap_or_default().to_string_lossy());
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &typed])
                .current_dir(&dir)
                .env("PATH", &path)
                .env("PENJING_CACHE", dir.join("cache"))
                .stdin(Stdio::null());
            let began = Instant::now();
            let status = shell.status().context("cannot start sh")?;
            if !status.success() {
                bail!("{}:{line}: `{typed}` ended with {status} (in {})", page.display(), dir.display());
            }
            took.push((began.elapsed(), format!("{}:{line}", page.display())));
        }
    }
    println!("{} commands of the guides work; the longest:", took.len());
    took.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    for (time, at) in took.iter().take(LONGEST) {
        println!("{:7.1} s  {at}", time.as_secs_f64());
    }
    Ok(())
}

fn pages() -> Result<Vec<PathBuf>> {
    let root = process::root();
    let listed = std::fs::read_dir(root.join("docs")).context("cannot list docs/")?;
    let mut pages: Vec<_> = listed.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages.insert(0, root.join("README.md"));
    Ok(pages)
}

/// A folder for the page's commands, left in place afterwards so that a failure can be looked at.
fn fresh_folder(page: &Path) -> Result<PathBuf> {
    let dir = process::root().join("target/docs").join(page.file_stem().unwrap_or_default());
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    let photos = dir.join("photos");
    std::fs::create_dir_all(&photos).with_context(|| format!("cannot make {}", photos.display()))?;
    demo::unpack(&photos, PHOTOS_PER_CLASS)?;
    Ok(dir)
}

/// The commands of the marked blocks, each with its line's number.
fn commands(page: &str) -> Vec<(usize, String)> {
    let (mut marked, mut inside) = (false, false);
    let mut commands = Vec::new();
    for (number, line) in page.lines().enumerate() {
        match line {
            "<!-- run -->" => marked = true,
            "```console" if marked => inside = true,
            "```" => (marked, inside) = (false, false),
            _ if inside => {
                commands.extend(line.strip_prefix("$ ").map(|typed| (number + 1, typed.to_owned())))
            }
            "" => {}
            _ => marked = false,
        }
    }
    commands
}

/// The blocks that are files, with their names.
fn files(page: &str) -> Vec<(String, String)> {
    let mut lines = page.lines();
    let mut files = Vec::new();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("<!-- write ").and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(name) = name
            && lines.next().is_some_and(|line| line.starts_with("```"))
        {
            let content = lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]);
            files.push((name.to_owned(), content.collect()));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_files() {
        let page = "```toml\na = 1\n```\n<!-- write b.toml -->\n```toml\nb = 1\n\nc = 2\n```\n\n\
                    <!-- write d -->\ntext\n```\ne\n```\n<!-- run -->\n```console\n$ f\n```\n";
        assert_eq!(files(page), [("b.toml".to_owned(), "b = 1\n\nc = 2\n".to_owned())]);
    }

    #[test]
    fn only_marked_blocks_are_run() {
        let page = "```console\n$ a\n```\n<!-- run -->\n```console\n$ b\noutput\n$ c d\n```\n\n\
                    <!-- run -->\ntext\n```console\n$ e\n```\n<!-- run -->\n\n```console\n$ f\n```\n";
        let typed: Vec<_> =
            commands(page).into_iter().map(|(line, typed)| format!("{line}: {typed}")).collect();
        assert_eq!(typed, ["6: b", "8: c d", "19: f"]);
    }
}
