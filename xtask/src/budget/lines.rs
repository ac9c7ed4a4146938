//! Counting lines: good to a percent, which is all that a budget needs.

use std::ops::AddAssign;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process;

/// Lines of Rust that are not blank.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lines {
    pub code: usize,
    /// Code from `#[cfg(test)] mod` on, and all code under `tests/` and `benches/`.
    pub tests: usize,
    /// Lines of nothing but a comment, wherever they stand.
    pub comments: usize,
    pub files: usize,
}

impl AddAssign for Lines {
    fn add_assign(&mut self, other: Self) {
        self.code += other.code;
        self.tests += other.tests;
        self.comments += other.comments;
        self.files += other.files;
    }
}

/// The crates under `crates/`, then `xtask` and `fuzz`, each with its lines.
pub fn per_crate() -> Result<Vec<(String, Lines)>> {
    let root = process::root();
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root.join("crates"))? {
        folders.push(entry?.path());
    }
    folders.sort();
    folders
        .extend(["xtask", "fuzz"].map(|name| root.join(name)).into_iter().filter(|folder| folder.is_dir()));
    let counted = |folder: &Path| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, in_folder(folder, false)?))
    };
    folders.iter().map(|folder| counted(folder)).collect()
}

fn in_folder(folder: &Path, all_tests: bool) -> Result<Lines> {
    let mut sum = Lines::default();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" {
            sum += in_folder(&path, all_tests || name == "tests" || name == "benches")?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sum += in_text(&text, all_tests || name == "tests.rs");
        }
    }
    Ok(sum)
}

fn in_text(text: &str, mut is_test: bool) -> Lines {
    let mut lines = Lines { files: 1, ..Lines::default() };
    let mut text = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = text.next() {
        is_test |= line == "#[cfg(test)]"
            && text.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if line.starts_with("//") {
            lines.comments += 1;
        } else if is_test {
            lines.tests += 1;
        } else {
            lines.code += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let text =
            "//! Doc.\n\nuse a;\n    // why\nfn f() {} // at the end\n#[cfg(test)]\nmod tests {\n // c\n}\n";
        assert_eq!(in_text(text, false), Lines { code: 2, tests: 3, comments: 3, files: 1 });
        assert_eq!(in_text(text, true), Lines { code: 0, tests: 5, comments: 3, files: 1 });
    }
}
