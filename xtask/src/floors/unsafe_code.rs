//! Where `unsafe` may stand.

use std::path::PathBuf;

use super::source::{Source, without_comments_and_literals};

/// Each crate root says `#![forbid(unsafe_code)]`.
pub fn check(sources: &[Source], roots: &[PathBuf]) -> Vec<String> {
    let is_root = |source: &&Source| roots.iter().any(|root| root.ends_with(&source.path));
    let is_open =
        |source: &&Source| !without_comments_and_literals(&source.text).contains("#![forbid(unsafe_code)]");
    let violation = |source: &Source| format!("{}: `#![forbid(unsafe_code)]` is missing", source.path);
    sources.iter().filter(is_root).filter(is_open).map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_without_it_is_found() {
        let source = |text: &str| Source { path: "crates/a/src/lib.rs".into(), text: text.into() };
        let roots = [PathBuf::from("/r/crates/a/src/lib.rs")];
        assert!(check(&[source("//! Doc.\n#![forbid(unsafe_code)]\n")], &roots).is_empty());
        assert_eq!(check(&[source("// #![forbid(unsafe_code)]\n")], &roots).len(), 1);
        assert!(check(&[source("")], &[PathBuf::from("/r/crates/b/src/lib.rs")]).is_empty());
    }
}
