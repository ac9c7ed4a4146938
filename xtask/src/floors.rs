//! `cargo xtask floors`: the walls of the house, as tables.
//!
//! Each rule is a pure function from names or source text to the violations it finds, so that its tests can feed it a
//! fake crate. [`run`] and a test apply them all to the workspace.

mod confined;
mod crates;
mod length;
mod modules;
mod source;
mod unsafe_code;

use std::path::Path;

use anyhow::{Result, bail};

use crate::process;

/// Crates of ours, and those of ours each may depend on. The fuzz targets may reach anything.
const CRATES: &[(&str, &[&str])] = &[
    ("penjing-kernels", &[]),
    ("penjing-runtime", &["penjing-kernels"]),
    ("penjing-weights", &[]),
    ("penjing", &["penjing-runtime", "penjing-kernels", "penjing-weights"]),
    ("penjing-cli", &["penjing", "penjing-runtime"]),
    ("xtask", &[]),
    ("penjing-fuzz", &["penjing", "penjing-runtime", "penjing-kernels"]),
];

/// The only crates that may do without `#![forbid(unsafe_code)]`.
const UNSAFE_ALLOWED: &[&str] = &["penjing-kernels"];

/// Top-level modules of the crate `penjing`, and those each may use. Tests may use any.
const MODULES: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("folders", &[]),
    ("onnx", &[]),
    ("progress", &[]),
    ("random", &[]),
    ("threads", &["error"]),
    ("model", &["error"]),
    ("runner", &["error"]),
    ("data", &["error", "progress", "random", "threads"]),
    ("zoo", &["error", "random"]),
    ("import", &["error", "onnx", "zoo"]),
    ("export", &["error", "onnx"]),
    ("hub", &["error", "folders", "import", "model", "progress", "zoo"]),
    ("classifier", &["error", "runner"]),
    ("eval", &["error", "data", "classifier", "progress", "threads"]),
    ("train", &["error", "model", "data", "zoo", "progress", "random", "runner", "threads"]),
    (
        "transfer",
        &[
            "error",
            "model",
            "folders",
            "data",
            "zoo",
            "train",
            "eval",
            "classifier",
            "progress",
            "random",
            "runner",
            "threads",
        ],
    ),
    ("costs", &["error", "compress", "progress", "random", "threads", "zoo"]),
    (
        "compress",
        &[
            "error",
            "model",
            "data",
            "zoo",
            "train",
            "eval",
            "classifier",
            "progress",
            "random",
            "runner",
            "threads",
        ],
    ),
    ("report", &["error", "eval"]),
];

/// Third-party crates that stand in one file of each of our crates, so that replacing one is the work of one file.
const CONFINED: &[&str] = &[
    "image",
    "zip",
    "csv",
    "walkdir",
    "etcetera",
    "safetensors",
    "nalgebra",
    "toml",
    "prost",
    "ring",
    "ureq",
];
const CONFINED_IN: &[&str] = &["penjing", "penjing-runtime"];

/// Lines of a source file: past the first it is named, past the second it is refused.
const LONG_LINES: usize = 600;
const TOO_LONG_LINES: usize = 900;

/// What the rules say of the workspace.
#[derive(Default)]
pub struct Findings {
    /// Broken rules.
    pub violations: Vec<String>,
    /// What deserves a look, but breaks nothing.
    pub warnings: Vec<String>,
    /// Source files read.
    pub files: usize,
}

pub fn run() -> Result<()> {
    let findings = inspect(&process::root())?;
    for warning in &findings.warnings {
        println!("warning: {warning}");
    }
    for violation in &findings.violations {
        println!("error: {violation}");
    }
    if !findings.violations.is_empty() {
        bail!(
            "{} of the house's walls are broken (ARCHITECTURE.md, xtask/src/floors.rs)",
            findings.violations.len()
        );
    }
    println!("{} source files keep their floors", findings.files);
    Ok(())
}

/// Applies every rule to the workspace at `root`, and to `fuzz/` where it exists.
pub fn inspect(root: &Path) -> Result<Findings> {
    let packages = crates::packages(root)?;
    let mut findings = Findings { violations: crates::check(&packages, CRATES), ..Findings::default() };
    for package in &packages {
        let sources = source::read(root, &package.folders)?;
        findings.files += sources.len();
        let mut violations = Vec::new();
        if !UNSAFE_ALLOWED.contains(&package.name.as_str()) {
            violations.extend(unsafe_code::check(&sources, &package.roots));
        }
        if package.name == "penjing" {
            violations.extend(modules::check(&sources, MODULES));
        }
        if CONFINED_IN.contains(&package.name.as_str()) {
            violations.extend(confined::check(&sources, CONFINED));
        }
        let (long, too_long) = length::check(&sources, LONG_LINES, TOO_LONG_LINES);
        findings.warnings.extend(long);
        findings.violations.extend(violations.into_iter().chain(too_long));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_floors() {
        let findings = inspect(&process::root()).unwrap();
        assert!(findings.files > 5, "only {} files were found", findings.files);
        assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
    }

    #[test]
    fn the_tables_run_downward() {
        for table in [CRATES, MODULES] {
            for (name, below) in table {
                let rows = below
                    .iter()
                    .map(|b| table.iter().find(|(n, _)| n == b).unwrap_or_else(|| panic!("no row {b}")));
                for (lower, theirs) in rows {
                    assert!(!theirs.contains(name), "{name} and {lower} lean on each other");
                }
            }
        }
    }
}
