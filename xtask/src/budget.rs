//! `cargo xtask budget`: what the project costs to build, to ship and to read.

mod lines;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::process;
use lines::Lines;

/// The binary without the backbone may not grow past this.
const SLIM_LIMIT_BYTES: u64 = 15_000_000;
/// A cold release build should stay below this on two cores.
const BUILD_AIM_SECONDS: f64 = 240.0;

#[derive(clap::Args)]
pub struct Args {
    /// One JSON document on stdout, nothing else
    #[arg(long)]
    json: bool,
    /// Measure the binary of the last `cargo build --release`, without a cold build
    #[arg(long)]
    no_build: bool,
}

struct Budget {
    /// None when nothing was built.
    build_seconds: Option<f64>,
    binary_bytes: u64,
    slim: Slim,
    crates: Vec<(String, Lines)>,
    dependencies: usize,
}

/// The stripped binary without the backbone.
enum Slim {
    Built(u64),
    /// The full binary less the bytes of the weights.
    Estimated(u64),
}

impl Slim {
    fn bytes(&self) -> u64 {
        match *self {
            Self::Built(bytes) | Self::Estimated(bytes) => bytes,
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let budget = measure(args.no_build)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&as_json(&budget))?);
    } else {
        print(&budget);
    }
    let slim = budget.slim.bytes();
    if slim > SLIM_LIMIT_BYTES {
        bail!("the binary without the backbone has {slim} bytes, {} too many", slim - SLIM_LIMIT_BYTES);
    }
    Ok(())
}

fn measure(no_build: bool) -> Result<Budget> {
    let (build_seconds, binary_bytes, slim) = if no_build {
        let binary_bytes = size(&binary_in(&process::release_dir()))?;
        (None, binary_bytes, Slim::Estimated(binary_bytes.saturating_sub(weights_bytes()?)))
    } else {
        let (seconds, binary_bytes, slim_bytes) = cold_build()?;
        (Some(seconds), binary_bytes, Slim::Built(slim_bytes))
    };
    Ok(Budget {
        build_seconds,
        binary_bytes,
        slim,
        crates: lines::per_crate()?,
        dependencies: dependencies()?,
    })
}

/// Seconds of the cold build, bytes of the binary, and its bytes without the backbone.
fn cold_build() -> Result<(f64, u64, u64)> {
    process::run(&mut process::cargo(["fetch", "--locked", "--quiet"]))?;
    let target = process::root().join("target/budget");
    if target.exists() {
        std::fs::remove_dir_all(&target).with_context(|| format!("cannot empty {}", target.display()))?;
    }
    let binary = binary_in(&target.join("release"));
    let target = target.to_string_lossy();
    let build = ["build", "--release", "--locked", "--quiet", "-p", "penjing-cli", "--target-dir", &target];
    let began = Instant::now();
    process::run(&mut process::cargo(build))?;
    let seconds = began.elapsed().as_secs_f64();
    let full = size(&binary)?;
    process::run(&mut process::cargo(build.into_iter().chain(["--no-default-features"])))?;
    Ok((seconds, full, size(&binary)?))
}

fn binary_in(folder: &Path) -> PathBuf {
    folder.join(format!("penjing{}", std::env::consts::EXE_SUFFIX))
}

fn size(path: &Path) -> Result<u64> {
    let file = std::fs::metadata(path);
    Ok(file
        .with_context(|| format!("no {}: run `cargo build --release -p penjing-cli`", path.display()))?
        .len())
}

/// What the crate of weights holds beside its code.
fn weights_bytes() -> Result<u64> {
    let mut bytes = 0;
    for folder in ["crates/penjing-weights", "crates/penjing-weights/src"] {
        for entry in std::fs::read_dir(process::root().join(folder))? {
            let entry = entry?;
            let is_weights = entry.path().extension().is_some_and(|e| e != "rs" && e != "toml" && e != "md");
            if is_weights {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

/// Third-party packages that a build of the binary compiles on this machine.
fn dependencies() -> Result<usize> {
    let tree = [
        "tree",
        "--locked",
        "-p",
        "penjing-cli",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    Ok(third_party(&process::output(&mut process::cargo(tree))?))
}

/// The distinct packages of `cargo tree`'s lines, without those that lie in a folder here.
fn third_party(tree: &str) -> usize {
    let package = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let is_ours = |line: &&str| line.contains("(/") || line.contains(":\\");
    tree.lines().filter(|line| !line.is_empty() && !is_ours(line)).map(package).collect::<BTreeSet<_>>().len()
}

fn print(budget: &Budget) {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    if let Some(seconds) = budget.build_seconds {
        println!(
            "cold release build     {seconds:8.1} s   (aim: under {BUILD_AIM_SECONDS:.0} s on two cores)"
        );
    }
    println!("binary, stripped       {:8.2} MB", megabytes(budget.binary_bytes));
    let how = if matches!(budget.slim, Slim::Estimated(_)) { ", estimated" } else { "" };
    let limit = megabytes(SLIM_LIMIT_BYTES);
    println!("  without the backbone {:8.2} MB  (limit: {limit:.0} MB{how})", megabytes(budget.slim.bytes()));
    println!("dependencies           {:8}", budget.dependencies);
    println!("\n{:<18}{:>8}{:>8}{:>10}{:>8}", "lines", "code", "tests", "comments", "files");
    let mut sum = Lines::default();
    for (name, lines) in &budget.crates {
        print_lines(name, lines);
        sum += *lines;
    }
    print_lines("all", &sum);
}

fn print_lines(name: &str, lines: &Lines) {
    println!("{name:<18}{:>8}{:>8}{:>10}{:>8}", lines.code, lines.tests, lines.comments, lines.files);
}

fn as_json(budget: &Budget) -> serde_json::Value {
    let lines = budget.crates.iter().map(|(name, lines)| {
        let counts = json!({
            "code": lines.code, "tests": lines.tests, "comments": lines.comments, "files": lines.files,
        });
        (name.clone(), counts)
    });
    json!({
        "build_seconds": budget.build_seconds,
        "binary_bytes": budget.binary_bytes,
        "slim_binary_bytes": budget.slim.bytes(),
        "slim_binary_estimated": matches!(budget.slim, Slim::Estimated(_)),
        "slim_binary_limit_bytes": SLIM_LIMIT_BYTES,
        "dependencies": budget.dependencies,
        "lines": lines.collect::<serde_json::Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_once() {
        let tree = "penjing-cli v0.1.0 (/r/crates/penjing-cli)\nanyhow v1.0.1\nserde v1.0.2\n\nserde v1.0.2 (*)\n\
                    serde_derive v1.0.2 (proc-macro)\nserde v2.0.0\n";
        assert_eq!(third_party(tree), 4);
    }
}
