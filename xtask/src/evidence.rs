//! `cargo xtask evidence`: measured figures as small files, one a run, so that a long matrix can be stopped and resumed.

mod accuracy;
mod budget;
mod care;
mod distil;
mod int8;
mod models;
mod prune;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{machine, process};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Test accuracy on the shared data sets, penjing beside PyTorch
    Accuracy(accuracy::Args),
    /// Test accuracy before and after 8 bits
    Int8(models::Args),
    /// Test accuracy and time before and after pruning
    Prune(models::Args),
    /// Networks found within a budget, beside a smaller one of the zoo that learns as long
    Budget(budget::Args),
    /// What each care taken in making 8 bits is worth
    Care(care::Args),
    /// What a teacher gains: small networks from random weights, alone and under it
    Distil(distil::Args),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Accuracy(args) => accuracy::run(args),
        What::Int8(args) => int8::run(args),
        What::Prune(args) => prune::run(args),
        What::Budget(args) => budget::run(args),
        What::Care(args) => care::run(args),
        What::Distil(args) => distil::run(args),
    }
}

/// One run of a matrix.
trait Run {
    /// `SET/…-seedN`, which is also the file's name.
    fn name(&self) -> String;
}

/// Which runs of a matrix.
#[derive(clap::Args)]
struct Which {
    /// Only runs whose name begins so: SET, or SET/RUN
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Run again what has been measured
    #[arg(long)]
    again: bool,
    /// Run nothing, print the table
    #[arg(long, conflicts_with_all = ["only", "again"])]
    table: bool,
}

impl Which {
    /// Those that are asked for and, unless they are to be run again or only tried, are not kept yet.
    fn left<R: Run>(&self, matrix: &str, runs: Vec<R>, trial: bool) -> Result<Vec<R>> {
        let mut runs = selected(runs, &self.only)?;
        runs.retain(|run| self.again || trial || !path(matrix, run).exists());
        Ok(runs)
    }
}

/// Those whose names begin so; all if nothing is asked for.
fn selected<R: Run>(mut runs: Vec<R>, only: &[String]) -> Result<Vec<R>> {
    if let Some(unknown) = only.iter().find(|wanted| !runs.iter().any(|run| run.name().starts_with(*wanted)))
    {
        let names: Vec<String> = runs.iter().map(Run::name).collect();
        bail!("no run is called {unknown}; there are: {}", names.join(", "));
    }
    runs.retain(|run| only.is_empty() || only.iter().any(|wanted| run.name().starts_with(wanted)));
    Ok(runs)
}

/// Measures one after the other; `measure` keeps what it finds, and says it in a line.
fn each<R: Run>(runs: &[R], mut measure: impl FnMut(&R) -> Result<String>) -> Result<()> {
    let mut failed = Vec::new();
    if runs.is_empty() {
        println!("nothing left to measure; --again repeats");
    }
    for (index, run) in runs.iter().enumerate() {
        println!("== {} ({} of {})", run.name(), index + 1, runs.len());
        match measure(run) {
            Ok(said) => println!("   {said}"),
            // An overnight run is not to end with its first fault.
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(run.name());
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} runs failed: {}", failed.len(), runs.len(), failed.join(", "));
    }
    Ok(())
}

/// Where a run of a matrix is kept.
fn path(matrix: &str, run: &impl Run) -> PathBuf {
    folder(matrix).join(format!("{}.json", run.name()))
}

/// The folder of a matrix.
fn folder(matrix: &str) -> PathBuf {
    process::root().join("docs/evidence").join(matrix)
}

/// Folder of what is too large for the repository: the variable PENJING_SHARED, or `shared` beside the repository.
fn shared() -> PathBuf {
    std::env::var_os("PENJING_SHARED").map_or_else(|| process::root().join("../shared"), PathBuf::from)
}

/// Where the photos of a shared data set are.
fn data(set: &str) -> Result<PathBuf> {
    let data = shared().join("data").join(set);
    if !data.is_dir() {
        bail!("no {}: set PENJING_SHARED to the folder that holds data/", data.display());
    }
    Ok(data)
}

/// What was measured, and on what: no path, no host name.
fn machine() -> Result<Value> {
    // The evidence itself does not change the program.
    let git = |args: &[&str]| {
        process::output(std::process::Command::new("git").args(args).current_dir(process::root()))
    };
    let changes = git(&["status", "--porcelain", "--", ".", ":!docs/evidence"])?;
    Ok(json!({
        "commit": git(&["rev-parse", "--short", "HEAD"])?.trim(),
        "dirty": !changes.trim().is_empty(),
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "cpu": machine::cpu(),
    }))
}

/// `value` without the strings in it that hold one of these folders. `None` if it is such a string itself.
fn without_paths(value: Value, folders: &[&Path]) -> Option<Value> {
    match value {
        Value::String(text) => {
            let holds = |folder: &&Path| text.contains(&*folder.to_string_lossy());
            (!folders.iter().any(holds)).then_some(Value::String(text))
        }
        Value::Array(values) => {
            Some(values.into_iter().filter_map(|value| without_paths(value, folders)).collect())
        }
        Value::Object(fields) => Some(
            fields
                .into_iter()
                .filter_map(|(key, value)| Some((key, without_paths(value, folders)?)))
                .collect(),
        ),
        other => Some(other),
    }
}

/// Writes a file whole or not at all.
fn write(path: &Path, value: &Value) -> Result<()> {
    let part = path.with_extension("part");
    let whole = || -> std::io::Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        std::fs::write(&part, format!("{value:#}\n"))?;
        std::fs::rename(&part, path)
    };
    whole().with_context(|| format!("cannot write {}", path.display()))
}

/// Every JSON file under a folder, sorted by path; none if it is not there.
fn read_all(folder: &Path) -> Result<Vec<Value>> {
    let mut paths = Vec::new();
    for set in entries(folder)? {
        paths.extend(entries(&set)?);
    }
    let json = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    json.map(|path| {
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
    })
    .collect()
}

/// What a folder holds, sorted; nothing if it is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    impl Run for Named {
        fn name(&self) -> String {
            self.0.into()
        }
    }

    #[test]
    fn runs_are_selected_by_the_beginning_of_their_names() {
        let names = |only: &[&str]| {
            let all = ["a/x-seed0", "a/x-seed1", "b/x-seed0"].map(Named).into();
            let only: Vec<String> = only.iter().map(|name| name.to_string()).collect();
            selected(all, &only).map(|runs| runs.iter().map(Run::name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), 3);
        assert_eq!(names(&["a/x-seed1", "b"]).unwrap(), ["a/x-seed1", "b/x-seed0"]);
        assert!(
            names(&["a", "c"]).unwrap_err().to_string().contains("no run is called c; there are: a/x-seed0")
        );
    }

    #[test]
    fn what_is_kept_is_run_again_when_asked_for_or_tried() {
        let left = |again: bool, trial: bool| {
            let only = vec!["flowers12/penjing".to_string()];
            let runs = ["flowers12/penjing-seed0", "flowers12/penjing-none"].map(Named).into();
            Which { only, again, table: false }.left("accuracy", runs, trial).unwrap().len()
        };
        assert!(path("accuracy", &Named("flowers12/penjing-seed0")).is_file());
        assert_eq!([left(false, false), left(true, false), left(false, true)], [1, 2, 2]);
    }

    #[test]
    fn a_fault_does_not_end_the_others() {
        let mut measured = Vec::new();
        let error = each(&["a", "b", "c"].map(Named), |run| {
            measured.push(run.name());
            if run.0 == "b" { bail!("broken") } else { Ok(String::new()) }
        });
        assert_eq!(measured, ["a", "b", "c"]);
        assert_eq!(error.unwrap_err().to_string(), "1 of 3 runs failed: b");
    }

    #[test]
    fn paths_are_left_out() {
        let report = json!({
            "model": "/r/target/m.penjing", "recipe": "head", "rates": "1e-3/3e-4",
            "skipped": [{"path": "/data/train/a.jpg", "reason": "no photo"}, "/data/b.jpg"],
        });
        let kept = without_paths(report, &[Path::new("/r"), Path::new("/data")]).unwrap();
        assert_eq!(
            kept,
            json!({"recipe": "head", "rates": "1e-3/3e-4", "skipped": [{"reason": "no photo"}]})
        );
    }

    #[test]
    fn files_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/x-seed1", "b/x-seed0", "a/x-seed0"] {
            write(&folder.path().join(format!("{name}.json")), &json!(name)).unwrap();
        }
        assert_eq!(
            read_all(folder.path()).unwrap(),
            [json!("a/x-seed0"), json!("b/x-seed0"), json!("b/x-seed1")]
        );
        assert!(read_all(&folder.path().join("absent")).unwrap().is_empty());
    }
}
