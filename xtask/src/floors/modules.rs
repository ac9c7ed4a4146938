//! Which top-level module of a crate may use which.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, is_name};

/// Each module has a row, and uses only those of its row. `lib.rs` is the roof and uses all.
pub fn check(sources: &[Source], table: &[(&str, &[&str])]) -> Vec<String> {
    let files: Vec<_> =
        sources.iter().filter_map(|source| Some((module_of(&source.path)?, source))).collect();
    let modules: BTreeSet<&str> = files.iter().map(|((module, _), _)| *module).collect();
    let homes =
        sources.iter().find(|source| source.path.ends_with("src/lib.rs")).map(reexports).unwrap_or_default();

    let mut violations = Vec::new();
    for &module in &modules {
        if !table.iter().any(|(name, _)| *name == module) {
            violations.push(format!("module {module} has no row in the table of floors"));
        }
    }
    for ((module, depth), source) in files {
        let Some((_, may)) = table.iter().find(|(name, _)| *name == module) else { continue };
        let used = root_names(&source.code(), depth);
        let used = used.iter().map(|name| homes.get(name).unwrap_or(name).as_str());
        let used: BTreeSet<&str> = used.filter(|name| modules.contains(name) && *name != module).collect();
        for name in used.into_iter().filter(|name| !may.contains(name)) {
            violations.push(format!("{}: module {module} may not use {name}", source.path));
        }
    }
    violations
}

/// The top-level module a file belongs to, and how deep it lies: 1 for that module itself.
fn module_of(path: &str) -> Option<(&str, usize)> {
    let inside = path.split_once("/src/")?.1.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    let module = inside.split('/').next()?;
    (module != "lib" && module != "main").then(|| (module, inside.split('/').count()))
}

/// What `lib.rs` lifts to the root: name → its module.
fn reexports(lib: &Source) -> BTreeMap<String, String> {
    let code = lib.code();
    let mut homes = BTreeMap::new();
    for statement in code.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else { continue };
        let mut names = path.split(|c| !is_name(c)).filter(|name| !name.is_empty());
        let module = names.next().filter(|first| !matches!(*first, "crate" | "self"));
        let Some(module) = module.or_else(|| names.next()) else { continue };
        homes.extend(names.map(|name| (name.to_owned(), module.to_owned())));
    }
    homes
}

/// The names that stand right under the crate's root in the code's paths: `crate::NAME`, `crate::{NAME, …}`, and
/// `super::…::NAME` with enough `super` to get there.
fn root_names(code: &str, depth: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(|c| is_name(c) || c == '$') {
            names.extend(heads(&code[at + "crate::".len()..]));
        }
    }
    let climb = "super::".repeat(depth);
    for (at, _) in code.match_indices(&climb) {
        if !code[..at].ends_with(is_name) {
            names.extend(heads(&code[at + climb.len()..]));
        }
    }
    names
}

/// The first name of a path, or of each path of a brace group.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![path.chars().take_while(|c| is_name(*c)).collect()];
    };
    let (mut depth, mut heads, mut head, mut open) = (0, Vec::new(), String::new(), true);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(std::mem::take(&mut head));
                open = true;
            }
            c if open && is_name(c) => head.push(c),
            c if c.is_whitespace() => open &= head.is_empty(),
            _ => open = false,
        }
    }
    heads.push(head);
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, &[&str])] = &[("error", &[]), ("data", &["error"]), ("train", &["error", "data"])];

    fn violations(file: &str, text: &str) -> Vec<String> {
        let source =
            |path: &str, text: &str| Source { path: format!("crates/p/src/{path}"), text: text.into() };
        let lib = "mod error; pub mod data; pub mod train; pub use train::{Trainer, Loss as L};";
        let others = [("lib.rs", lib), ("error.rs", ""), ("data/mod.rs", ""), ("train.rs", "")];
        let others = others.into_iter().filter(|(path, _)| *path != file);
        let sources: Vec<_> =
            others.map(|(path, text)| source(path, text)).chain([source(file, text)]).collect();
        check(&sources, TABLE)
    }

    #[test]
    fn downward_is_fine() {
        for (file, text) in [
            ("train.rs", "use crate::{data::Manifest, error::{Error, Result}};"),
            ("train/step.rs", "use crate::train::Loop; use super::Loop; use super::super::data::X;"),
            ("data/scan.rs", "//! See [`crate::train`].\nuse super::train;\n"),
            ("data/scan.rs", "#[cfg(test)]\nmod tests { use crate::train::Loop; }"),
            ("data/scan.rs", "fn f() { my_crate::train::x(); g(\"crate::train\") }"),
        ] {
            assert_eq!(violations(file, text), [""; 0], "{file}: {text}");
        }
    }

    #[test]
    fn upward_is_found() {
        for (file, text) in [
            ("data/scan.rs", "use crate::train::Loop;"),
            ("data/scan.rs", "use crate::{\n    error::{Error, Result},\n    train::Loop,\n};"),
            ("data/scan.rs", "use crate::{train};"),
            ("data/scan.rs", "fn f() { let x: crate::train::Loop; }"),
            ("data/scan.rs", "use super::super::train::Loop;"),
            ("data/mod.rs", "use super::train::Loop;"),
            ("data/scan.rs", "use crate::Trainer;"),
            ("data/scan.rs", "use crate::{L, Error};"),
        ] {
            let found = format!("crates/p/src/{file}: module data may not use train");
            assert_eq!(violations(file, text), [found], "{text}");
        }
    }

    #[test]
    fn a_new_module_needs_a_row() {
        assert_eq!(violations("attic.rs", ""), ["module attic has no row in the table of floors"]);
    }
}
