//! Reading a data set from a CSV.

use super::{Found, Notices, Part, Row, with_slashes};
use crate::{Error, Result};
use csv::{ErrorKind, StringRecord};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// A CSV beyond this is not a list of photos: about two million rows.
const MAX_BYTES: u64 = 256 << 20;

/// Missing files that are named before the rest is only counted.
const MAX_NAMED: usize = 3;

/// Reads `path,label[,split][,group]`, comma-separated UTF-8 with a header; the columns may stand in any order.
///
/// Paths are relative to `root`, the folder of the CSV. Blanks around a field do not count. Rows that repeat a path
/// must agree with the first one.
pub(super) fn read(csv: &Path, root: &Path) -> Result<Found> {
    let size = std::fs::metadata(csv).map_err(|e| Error::io(csv, "open", e))?.len();
    if size > MAX_BYTES {
        let limit = MAX_BYTES >> 20;
        return Err(Error::data(csv, format!("is larger than {limit} MiB; expected a list of photos")));
    }
    let bytes = std::fs::read(csv).map_err(|e| Error::io(csv, "read", e))?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let mut lines = Lines { text, at: 0, line: 1 };
    let mut notices = Notices::default();
    let header = reader.headers().map_err(|e| problem(csv, e, &mut lines))?.clone();
    let columns = Columns::find(csv, &header, &mut notices)?;

    let mut rows: Vec<Row> = Vec::new();
    // Lexical path → (index of its row, line).
    let mut first: HashMap<PathBuf, (usize, usize)> = HashMap::new();
    let (mut missing, mut named) = (0, Vec::new());
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| problem(csv, e, &mut lines))? {
        if record.iter().all(str::is_empty) {
            continue;
        }
        let line = lines.of(record.position());
        let field = |column: usize, name: &str| match record.get(column) {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(Error::data(csv, format!("line {line}, column {name}: is empty"))),
        };
        // Rebuilt from its components, a path has no `./` and no doubled separators.
        let listed: PathBuf = Path::new(field(columns.path, "path")?)
            .components()
            .filter(|c| *c != Component::CurDir)
            .collect();
        let label = field(columns.label, "label")?;
        let part = match columns.split {
            None => Part::Train,
            Some(column) => {
                let text = field(column, "split")?;
                Part::from_name(text).ok_or_else(|| {
                    let text = shown(text);
                    Error::data(
                        csv,
                        format!("line {line}, column split: “{text}”; expected train, val or test"),
                    )
                })?
            }
        };
        let group = columns.group.and_then(|c| record.get(c)).filter(|g| !g.is_empty());

        if let Some(&(index, before)) = first.get(&listed) {
            let row = &rows[index];
            let differing = if row.label != label {
                "label"
            } else if row.part != part {
                "split"
            } else if row.group.as_deref() != group {
                "group"
            } else {
                notices.add(&row.path, "listed more than once, counted once");
                continue;
            };
            let name = shown(&row.relative);
            return Err(Error::data(
                csv,
                format!(
                    "line {line}, column {differing}: “{name}” has another {differing} in line {before}; keep one"
                ),
            ));
        }
        let path = root.join(&listed);
        let relative = with_slashes(&listed).unwrap_or_default();
        if !path.is_file() {
            missing += 1;
            if missing <= MAX_NAMED {
                named.push(format!("line {line}, column path: “{}”", shown(&relative)));
            }
        }
        first.insert(listed, (rows.len(), line));
        rows.push(Row { path, relative, label: label.to_owned(), part, group: group.map(Into::into) });
    }
    if missing > 0 {
        let more = match missing - named.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let what =
            format!("no such file: {}{more}; paths are relative to {}", named.join(", "), root.display());
        return Err(Error::data(csv, what));
    }
    if rows.is_empty() {
        return Err(Error::data(csv, "lists no photos; expected one row per photo under the header"));
    }
    Ok(Found { rows, notices })
}

/// Where the known columns stand.
struct Columns {
    path: usize,
    label: usize,
    split: Option<usize>,
    group: Option<usize>,
}

impl Columns {
    fn find(csv: &Path, header: &StringRecord, notices: &mut Notices) -> Result<Columns> {
        const NAMES: [&str; 4] = ["path", "label", "split", "group"];
        let mut found = [None; 4];
        for (column, name) in header.iter().enumerate() {
            match NAMES.iter().position(|known| name.eq_ignore_ascii_case(known)) {
                Some(known) if found[known].is_some() => {
                    return Err(Error::data(csv, format!("line 1: has two columns named {}", NAMES[known])));
                }
                Some(known) => found[known] = Some(column),
                None if name.is_empty() => {}
                None => notices.add(csv, format!("column “{}” is not used", shown(name))),
            }
        }
        match found {
            [Some(path), Some(label), split, group] => Ok(Columns { path, label, split, group }),
            _ => {
                let names = header.iter().collect::<Vec<_>>().join(",");
                let what = format!(
                    "line 1: expected a header path,label[,split][,group] separated by commas, found “{}”",
                    shown(&names)
                );
                Err(Error::data(csv, what))
            }
        }
    }
}

/// `text`, shortened: an unclosed quote makes a field of the whole rest of the file.
fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Finds line numbers. The reader's own are those where it stopped before a row, which with CRLF or empty lines is
/// further up.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line, from 1, of the row that the reader found at `position`. Positions must not decrease.
    fn of(&mut self, position: Option<&csv::Position>) -> usize {
        let start =
            position.map_or(0, |p| usize::try_from(p.byte()).unwrap_or(usize::MAX)).min(self.text.len());
        let blank = self.text[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let start = start + blank;
        if start > self.at {
            self.line += self.text[self.at..start].iter().filter(|b| **b == b'\n').count();
            self.at = start;
        }
        self.line
    }
}

fn problem(csv: &Path, error: csv::Error, lines: &mut Lines) -> Error {
    let line = lines.of(error.position());
    match error.into_kind() {
        ErrorKind::Io(e) => Error::io(csv, "read", e),
        ErrorKind::Utf8 { err, .. } => {
            let column = err.field() + 1;
            Error::data(
                csv,
                format!("line {line}, column {column}: is not UTF-8; save the file as “CSV UTF-8”"),
            )
        }
        ErrorKind::UnequalLengths { expected_len, len, .. } => Error::data(
            csv,
            format!(
                "line {line}: has {len} columns where the header has {expected_len}; quote fields with commas"
            ),
        ),
        other => Error::data(csv, format!("line {line}: is not a CSV row: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{message, tree};
    use super::super::{Dataset, Part};
    use super::*;

    fn open(text: impl AsRef<[u8]>) -> Result<Dataset> {
        let dir = tree(&["a.jpg", "b.jpg", "sub/c, d.jpg", "盆景/ü.png"]);
        let csv = dir.path().join("photos.CSV");
        std::fs::write(&csv, text).unwrap();
        Dataset::open(&csv, None)
    }

    fn rows(data: &Dataset) -> Vec<String> {
        data.samples
            .iter()
            .map(|s| {
                let group = s.group.as_deref().unwrap_or("-");
                format!("{} {} {:?} {group}", data.relative(s), data.classes[s.class], s.part)
            })
            .collect()
    }

    #[test]
    fn plain_and_full_forms_are_read() {
        let data = open("path,label\na.jpg,cat\n./b.jpg,dog\n").unwrap();
        assert_eq!(rows(&data), ["a.jpg cat Train -", "b.jpg dog Train -"]);

        let text = "\u{feff}Group,split , label,path,remark\r\n\
                    7,train,cat,a.jpg,fine\r\n\
                    ,Test,\"big \"\"dog\"\"\",b.jpg,\r\n\
                    ,,,,\r\n\
                    \r\n\
                    8, validation,cat,\"sub/c, d.jpg\",\r\n\
                    8,valid,木,盆景/ü.png,";
        let data = open(text).unwrap();
        assert_eq!(
            rows(&data),
            [
                "a.jpg cat Train 7",
                "b.jpg big \"dog\" Test -",
                "sub/c, d.jpg cat Val 8",
                "盆景/ü.png 木 Val 8"
            ]
        );
        assert!(data.notices.iter().any(|n| n.what == "column “remark” is not used"), "{:?}", data.notices);
    }

    #[test]
    fn a_repeated_row_counts_once() {
        let data = open("path,label\na.jpg,cat\n./a.jpg,cat\nb.jpg,dog\nb.jpg,dog\n").unwrap();
        assert_eq!(data.samples.len(), 2);
        assert!(data.notices.iter().any(|n| n.what == "listed more than once, counted once (and 1 more)"));
    }

    #[test]
    fn wrong_rows_are_named_by_line_and_column() {
        for (text, words) in [
            ("", &["line 1", "path,label"][..]),
            ("path,label\n", &["lists no photos"]),
            ("file;label\na.jpg;cat\n", &["line 1", "separated by commas", "“file;label”"]),
            ("a.jpg,cat\nb.jpg,dog\n", &["line 1", "“a.jpg,cat”"]),
            ("path,label,path\na.jpg,cat,b.jpg\n", &["two columns named path"]),
            ("path,label\na.jpg,cat\nb.jpg\n", &["line 3", "has 1 columns", "header has 2"]),
            ("path,label\nsub/c, d.jpg,cat\n", &["line 2", "has 3 columns", "quote"]),
            ("path,label\r\na.jpg,cat\r\n\r\nb.jpg, \r\n", &["line 4", "column label", "is empty"]),
            ("path,label\n,cat\n", &["line 2", "column path", "is empty"]),
            ("path,label,split\na.jpg,cat,dev\n", &["line 2", "column split", "“dev”", "train, val or test"]),
            ("path,label,split\na.jpg,cat,\n", &["line 2", "column split", "is empty"]),
            ("path,label\na.jpg,cat\n./a.jpg,dog\n", &["line 3", "column label", "another label in line 2"]),
            ("path,label,split\na.jpg,cat,train\na.jpg,cat,test\n", &["line 3", "column split", "line 2"]),
            ("path,label,group\na.jpg,cat,1\na.jpg,cat,2\n", &["line 3", "column group", "line 2"]),
            (
                "path,label\na.jpg,cat\nx.jpg,dog\n",
                &["no such file: line 3, column path: “x.jpg”; paths are"],
            ),
            ("path,label\nsub,dog\n", &["no such file: line 2"]),
            ("path,label\n1,a\n2,a\n3,a\n4,a\n5,a\n", &["line 2", "line 4, column path: “3” and 2 more"]),
        ] {
            let error = message(open(text));
            for word in words {
                assert!(error.contains(word), "{text:?} gave {error:?}, without {word:?}");
            }
        }
        let error = message(open(b"path,label\na.jpg,cat\nb.jpg,\xe9\n"));
        assert!(error.contains("line 3, column 2: is not UTF-8"), "{error}");
        let endless = format!("path,label\n\"a.jpg,{}", "cat\n".repeat(1000));
        assert!(message(open(endless)).len() < 400);
    }

    #[test]
    fn groups_come_from_the_column_or_the_pattern_but_not_both() {
        let dir = tree(&["a_1.jpg", "a_2.jpg"]);
        let csv = dir.path().join("photos.csv");
        let pattern = regex::Regex::new("^(.)_").unwrap();
        std::fs::write(&csv, "path,label\na_1.jpg,cat\na_2.jpg,dog\n").unwrap();
        let data = Dataset::open(&csv, Some(&pattern)).unwrap();
        assert!(data.samples.iter().all(|s| s.group.as_deref() == Some("a") && s.part == Part::Train));
        std::fs::write(&csv, "path,label,group\na_1.jpg,cat,1\na_2.jpg,dog,\n").unwrap();
        assert!(message(Dataset::open(&csv, Some(&pattern))).contains("group column"));
    }
}
