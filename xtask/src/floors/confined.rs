//! Third-party crates that stand in one file only.

use super::source::{Source, is_name};

/// Each of the crates is named in at most one file of the sources. Tests may name any.
pub fn check(sources: &[Source], confined: &[&str]) -> Vec<String> {
    let codes: Vec<_> = sources.iter().map(|source| (source.path.as_str(), source.code())).collect();
    let mut violations = Vec::new();
    for name in confined {
        let users: Vec<_> =
            codes.iter().filter(|(_, code)| uses(code, name)).map(|(path, _)| *path).collect();
        if users.len() > 1 {
            violations.push(format!("{name} belongs in one file, but is used in {}", users.join(", ")));
        }
    }
    violations
}

/// Whether a path begins with the crate's name: `::name::…`, `use name`, or `name::…` where no module here has that name.
fn uses(code: &str, name: &str) -> bool {
    let is_module_here = code.contains(&format!("mod {name};"));
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], code[at + name.len()..].trim_start());
        let absolute = before.strip_suffix("::").filter(|rest| !rest.ends_with(is_name));
        let before = absolute.unwrap_or(before);
        let begins = !before.ends_with(|c| is_name(c) || c == ':' || c == '.');
        let is_path = after.starts_with("::") || (before.ends_with("use ") && after.starts_with([';', ' ']));
        begins && is_path && (absolute.is_some() || !is_module_here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_a_word() {
        for code in
            ["use image::Rgb;", "let x = image::open(y);", "::image::open()", "use image;", "f(image :: x)"]
        {
            assert!(uses(code, "image"), "{code}");
        }
        for code in [
            "let image = 1;",
            "self.image::<T>()",
            "crate::data::image::x()",
            "mod image; image::x()",
            "my_image::x()",
            "image::x".get(1..).unwrap(),
        ] {
            assert!(!uses(code, "image"), "{code}");
        }
    }

    #[test]
    fn a_second_file_is_found() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let tested = "fn f() {} // image::open\n#[cfg(test)]\nmod tests { use image::Rgb; }";
        let mut sources = vec![source("a.rs", "use image::Rgb;"), source("b.rs", tested)];
        assert!(check(&sources, &["image", "zip"]).is_empty());
        sources.push(source("c.rs", "image::open()"));
        assert_eq!(
            check(&sources, &["image", "zip"]),
            ["image belongs in one file, but is used in a.rs, c.rs"]
        );
    }
}
