//! Which crate of ours may depend on which.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// What cargo says of one of our crates.
pub struct Package {
    /// As in Cargo.toml.
    pub name: String,
    /// Every dependency with a path, of whatever kind.
    pub ours: Vec<String>,
    /// The files where libraries and binaries begin.
    pub roots: Vec<PathBuf>,
    /// The folders those stand in.
    pub folders: Vec<PathBuf>,
}

/// The workspace's crates and the fuzz crate, which is a workspace of its own.
pub fn packages(root: &Path) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"].map(|manifest| root.join(manifest)) {
        if !manifest.exists() {
            continue;
        }
        let manifest = manifest.to_string_lossy();
        let arguments = ["metadata", "--format-version", "1", "--no-deps", "--manifest-path", &manifest];
        let metadata: Value = serde_json::from_str(&process::output(&mut process::cargo(arguments))?)?;
        let listed = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
        packages.extend(listed.iter().filter_map(package));
    }
    Ok(packages)
}

fn package(listed: &Value) -> Option<Package> {
    let is_ours = |dependency: &&Value| dependency["path"].is_string();
    let name = |value: &Value| value["name"].as_str().map(str::to_owned);
    let is_shipped = |target: &&Value| {
        let kinds = target["kind"].as_array().map(Vec::as_slice).unwrap_or_default();
        kinds.iter().any(|kind| kind == "lib" || kind == "bin")
    };
    let source_path = |target: &Value| target["src_path"].as_str().map(PathBuf::from);
    let roots: Vec<_> =
        listed["targets"].as_array()?.iter().filter(is_shipped).filter_map(source_path).collect();
    let mut folders: Vec<_> = roots.iter().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
    folders.dedup();
    Some(Package {
        name: name(listed)?,
        ours: listed["dependencies"].as_array()?.iter().filter(is_ours).filter_map(name).collect(),
        roots,
        folders,
    })
}

/// Each package has a row, and leans only on those of its row.
pub fn check(packages: &[Package], table: &[(&str, &[&str])]) -> Vec<String> {
    let mut violations = Vec::new();
    for package in packages {
        let Some((_, may)) = table.iter().find(|(name, _)| *name == package.name) else {
            violations.push(format!("crate {} has no row in the table of floors", package.name));
            continue;
        };
        for used in package.ours.iter().filter(|used| !may.contains(&used.as_str())) {
            violations.push(format!("crate {} may not depend on {used}", package.name));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upward_and_unknown_are_found() {
        let package = |name: &str, ours: &[&str]| Package {
            name: name.into(),
            ours: ours.iter().map(|&name| name.into()).collect(),
            roots: vec![],
            folders: vec![],
        };
        let table: &[(&str, &[&str])] = &[("low", &[]), ("high", &["low"])];
        assert!(check(&[package("low", &[]), package("high", &["low"])], table).is_empty());
        assert_eq!(check(&[package("low", &["high"])], table), ["crate low may not depend on high"]);
        assert_eq!(check(&[package("new", &[])], table), ["crate new has no row in the table of floors"]);
    }

    #[test]
    fn metadata_is_understood() {
        let listed = serde_json::json!({
            "name": "high",
            "dependencies": [{ "name": "low", "path": "/r/low" }, { "name": "serde" }],
            "targets": [
                { "kind": ["lib"], "src_path": "/r/high/src/lib.rs" },
                { "kind": ["test"], "src_path": "/r/high/tests/t.rs" },
            ],
        });
        let package = package(&listed).unwrap();
        assert_eq!((package.name.as_str(), package.ours), ("high", vec!["low".to_owned()]));
        assert_eq!(package.roots, [PathBuf::from("/r/high/src/lib.rs")]);
        assert_eq!(package.folders, [PathBuf::from("/r/high/src")]);
    }
}
