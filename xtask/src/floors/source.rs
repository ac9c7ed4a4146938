//! Source files, with what is not code blanked out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One `.rs` file.
pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// As it stands.
    pub text: String,
}

impl Source {
    /// The code without comments, literals and the test module at the bottom; a file of tests has none.
    pub fn code(&self) -> String {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return String::new();
        }
        let mut code = without_comments_and_literals(&self.text);
        if let Some(at) = test_module(&code) {
            code.truncate(at);
        }
        code
    }
}

/// Every `.rs` file under the folders, sorted by path.
pub fn read(root: &Path, folders: &[PathBuf]) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(folder, &mut paths)?;
    }
    paths.sort();
    let source = |path: PathBuf| {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        Ok(Source { path, text })
    };
    paths.into_iter().map(source).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// Where `#[cfg(test)] mod … {` begins; a module in a file of its own is no end of this one.
fn test_module(code: &str) -> Option<usize> {
    let attribute = "#[cfg(test)]";
    let opens_module = |at: &usize| {
        let next = code[at + attribute.len()..].trim_start();
        let opening = next.find(['{', ';']).map(|end| &next[end..=end]);
        next.starts_with("mod ") && opening == Some("{")
    };
    code.match_indices(attribute).map(|(at, _)| at).find(opens_module)
}

/// Whether the character can be part of a name.
pub fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The same text, each comment and the inside of each literal turned into spaces; lines stay where they are.
pub fn without_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_name = out.ends_with(is_name);
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' | 'b' | 'c' if !after_name => raw_string(rest).unwrap_or(0),
            '\'' => character(rest).unwrap_or(0),
            _ => 0,
        };
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += c.len_utf8();
        }
    }
    at
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`; other literals of bytes and C strings are caught at their quote.
fn raw_string(text: &str) -> Option<usize> {
    let opening = text.strip_prefix("br").or(text.strip_prefix("cr")).or(text.strip_prefix('r'))?;
    let body = opening.trim_start_matches('#');
    let hashes = &opening[..opening.len() - body.len()];
    let body = body.strip_prefix('"')?;
    let end = format!("\"{hashes}");
    let start = text.len() - body.len();
    Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// A character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    match chars.next()?.1 {
        '\\' => text[3..].find('\'').map(|at| 3 + at + 1),
        _ => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_vanish() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x // y", z)"#, "f(        , z)"),
            (r#"f("a\"b", z)"#, "f(      , z)"),
            ("r#\"a\"b\"# z", "         z"),
            ("f::<'a>('\"', '\\'', 'x')", "f::<'a>(   ,     ,    )"),
            ("for\"x\"", "for   "),
        ] {
            assert_eq!(without_comments_and_literals(text), code, "{text}");
        }
    }

    #[test]
    fn tests_are_cut_off() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let text = "#[cfg(test)]\nmod a;\nfn b() {}\n#[cfg(test)]\nmod tests { use c; }";
        assert_eq!(source("src/a.rs", text).code(), "#[cfg(test)]\nmod a;\nfn b() {}\n");
        assert_eq!(source("src/a/tests.rs", text).code(), "");
    }
}
