//! How long a file may be: past the first limit it may hold two subjects, past the second it does.

use super::source::Source;

/// Files over `long` lines, and files over `too_long` lines.
pub fn check(sources: &[Source], long: usize, too_long: usize) -> (Vec<String>, Vec<String>) {
    let (mut warnings, mut violations) = (Vec::new(), Vec::new());
    for source in sources {
        let lines = source.text.lines().count();
        if lines > too_long {
            violations
                .push(format!("{}: {lines} lines, at most {too_long} are allowed: split it", source.path));
        } else if lines > long {
            warnings.push(format!("{}: {lines} lines; does it hold two subjects?", source.path));
        }
    }
    (warnings, violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        let source = |lines: usize| Source { path: "a.rs".into(), text: "\n".repeat(lines) };
        let counts = |lines| {
            let (warnings, violations) = check(&[source(lines)], 6, 9);
            (warnings.len(), violations.len())
        };
        assert_eq!([6, 7, 9, 10].map(counts), [(0, 0), (1, 0), (1, 0), (0, 1)]);
    }
}
