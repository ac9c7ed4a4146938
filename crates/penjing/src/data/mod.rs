//! Photos and labels: finding them, splitting them, decoding them.

pub mod decode;
pub mod frames;
mod jpeg;
mod manifest;
mod scan;
pub mod split;

pub use scan::photos_below;

use crate::{Error, Result};
pub use regex::Regex;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The three forms of a data set, for error messages.
const EXPECTED: &str = "expected a folder with one sub-folder of photos per class, train/ val/ test/ of those, \
                        or a CSV file with the columns path,label[,split][,group]";

/// The labelled photos under a folder or in a CSV; only names have been read so far.
///
/// Three layouts are understood:
/// 1. one sub-folder per class; photos in nested folders belong to the class above them;
/// 2. `train/` and `test/` (at least one of them), `val/` (or `valid/`, `validation/`), each with class folders;
///    only these names may stand at the top, in upper or lower case;
/// 3. a CSV with the columns `path`, `label` and, if wanted, `split` and `group`, in any order.
///
/// Links are followed. Hidden files (`.DS_Store`, `Thumbs.db`, `__MACOSX`, …) are skipped.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The folder, or the folder in which the CSV lies.
    pub root: PathBuf,
    /// Names of the classes that have photos, sorted by code point; the spelling is the folder's.
    pub classes: Vec<String>,
    /// The photos, sorted by [`Dataset::relative`]: the order depends on names alone.
    pub samples: Vec<Sample>,
    /// What was skipped or looks doubtful; like cases are counted together.
    pub notices: Vec<Notice>,
}

/// One labelled photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where the file is.
    pub path: PathBuf,
    /// Index into [`Dataset::classes`].
    pub class: usize,
    /// The part that the data set assigns it to; [`Part::Train`] when it assigns none.
    pub part: Part,
    /// Photos with the same group show the same thing and must not be separated by a split.
    pub group: Option<String>,
}

/// What a photo is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// To learn from.
    Train,
    /// To choose between models.
    Val,
    /// To measure the chosen model, once.
    Test,
}

impl Part {
    /// Reads `train`, `val`, `valid`, `validation` or `test`, in upper or lower case.
    fn from_name(name: &str) -> Option<Part> {
        match name.to_ascii_lowercase().as_str() {
            "train" => Some(Part::Train),
            "val" | "valid" | "validation" => Some(Part::Val),
            "test" => Some(Part::Test),
            _ => None,
        }
    }
}

/// The pattern of `--group-by`.
///
/// # Errors
/// [`Error::Unsupported`] saying in one line what is wrong with it.
pub fn group_pattern(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| {
        // The whole text draws the pattern over several lines; the last one has the reason.
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Error::Unsupported(format!("not a regular expression: {reason}"))
    })
}

/// A photo that could not be used.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Skipped {
    /// The file.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl Skipped {
    /// The photo at `path`, which failed with `error`.
    pub fn new(path: &Path, error: &Error) -> Self {
        // The path stands beside it.
        let why = match error {
            Error::Data { what, .. } | Error::Model { what, .. } => what.clone(),
            Error::Io { doing, source, .. } => format!("cannot {doing}: {source}"),
            Error::Remote { .. } | Error::Unsupported(_) | Error::Interrupted => error.to_string(),
        };
        Skipped { path: path.to_owned(), why }
    }
}

/// The first names of a list that may be long, and how many more there are.
pub(crate) fn shortened(names: &[impl AsRef<str>]) -> String {
    const MOST: usize = 5;
    let shown = names.iter().take(MOST).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}

/// Serializes a path as it is shown: one that is not Unicode is no reason to write nothing.
pub fn displayed<S: serde::Serializer>(path: &Path, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// Something in the data set that was skipped or should be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The file or folder; the first one when several are counted together.
    pub path: PathBuf,
    /// What it is and what was done; ends in "(and 37 more)" when it stands for 38.
    pub what: String,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

impl Dataset {
    /// Finds the photos of the data set at `path`, without reading them.
    ///
    /// `group_by` is matched against [`Dataset::relative`], that is with the folders of part and class
    /// (`train/stop/00012_3.jpg`). The group is the first capture group that took part in the match, else the whole
    /// match; a photo without a match, or with an empty one, has no group.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or the CSV cannot be read; [`Error::Data`] if there is no photo, if `path` has
    /// none of the three layouts, if a row of the CSV is wrong, or if `group_by` matches no photo.
    pub fn open(path: &Path, group_by: Option<&Regex>) -> Result<Dataset> {
        let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::data(path, format!("does not exist; {EXPECTED}")),
            _ => Error::io(path, "open", e),
        })?;
        let is_csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let (root, found) = if meta.is_dir() {
            (path.to_owned(), scan::scan(path)?)
        } else if meta.is_file() && is_csv {
            let root = match path.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            (root.to_owned(), manifest::read(path, root)?)
        } else {
            return Err(Error::data(path, format!("is neither a folder nor a .csv file; {EXPECTED}")));
        };
        let Found { mut rows, notices } = found;
        rows.sort_unstable_by(|a, b| a.relative.cmp(&b.relative));
        if let Some(pattern) = group_by {
            assign_groups(path, &mut rows, pattern)?;
        }

        let classes: Vec<String> = rows
            .iter()
            .map(|r| r.label.as_str())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(Into::into)
            .collect();
        let samples = rows
            .into_iter()
            .map(|row| Sample {
                // Every label is in the list that was made from the labels.
                class: classes.partition_point(|c| *c < row.label),
                path: row.path,
                part: row.part,
                group: row.group,
            })
            .collect();
        Ok(Dataset { root, classes, samples, notices: notices.finish() })
    }

    /// The photos of one part, each with its index into [`Dataset::samples`].
    pub fn part(&self, part: Part) -> impl Iterator<Item = (usize, &Sample)> {
        self.samples.iter().enumerate().filter(move |(_, s)| s.part == part)
    }

    /// How many photos of each class a part holds, in the order of [`Dataset::classes`].
    pub fn counts(&self, part: Part) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for (_, sample) in self.part(part) {
            counts[sample.class] += 1;
        }
        counts
    }

    /// A photo's path below [`Dataset::root`], with `/` between the folders on every system. A photo that a CSV
    /// names by an absolute path keeps it.
    pub fn relative(&self, sample: &Sample) -> String {
        with_slashes(sample.path.strip_prefix(&self.root).unwrap_or(&sample.path))
            .unwrap_or_else(|| sample.path.display().to_string())
    }

    /// Fails unless there are two classes or more, each with photos to learn from.
    ///
    /// # Errors
    /// [`Error::Data`], naming the class.
    pub fn require_two_classes(&self) -> Result<()> {
        let learnable = self.learnable();
        let photos: usize = learnable.iter().sum();
        if photos == 0 {
            return Err(Error::data(&self.root, "holds no photos to train on, only test photos"));
        }
        if let [class] = &self.classes[..] {
            return Err(Error::data(
                &self.root,
                format!(
                    "all {photos} training photos are of one class, “{class}”, and a classifier needs two or more \
                     (if the class folders lie a level deeper, name the folder that holds them)"
                ),
            ));
        }
        match learnable.iter().position(|&n| n == 0) {
            Some(class) => Err(Error::data(
                &self.root,
                format!(
                    "class “{}” has photos in test but none to learn from; add some to train or take it out of test",
                    self.classes[class]
                ),
            )),
            None => Ok(()),
        }
    }

    /// Tells which photos to learn from are the only ones of their class.
    pub fn lone_photos(&self) -> Vec<Notice> {
        let learnable = self.learnable();
        let mut notices = Notices::default();
        for sample in self.samples.iter().filter(|s| s.part != Part::Test && learnable[s.class] == 1) {
            notices.add(
                &sample.path,
                "the only photo of its class to learn from, so nothing can check what is learnt",
            );
        }
        notices.finish()
    }

    /// How many photos of each class are not for testing.
    fn learnable(&self) -> Vec<usize> {
        self.counts(Part::Train).iter().zip(self.counts(Part::Val)).map(|(train, val)| train + val).collect()
    }
}

/// What a scan or a CSV yields, before labels become indices.
struct Found {
    rows: Vec<Row>,
    notices: Notices,
}

struct Row {
    path: PathBuf,
    /// Below the root, with `/`.
    relative: String,
    label: String,
    part: Part,
    group: Option<String>,
}

/// Collects notices; those with equal words become one.
#[derive(Default)]
struct Notices(Vec<(Cow<'static, str>, PathBuf)>);

impl Notices {
    fn add(&mut self, path: &Path, what: impl Into<Cow<'static, str>>) {
        self.0.push((what.into(), path.to_owned()));
    }

    fn finish(mut self) -> Vec<Notice> {
        self.0.sort_unstable();
        let mut notices: Vec<Notice> = self
            .0
            .chunk_by(|a, b| a.0 == b.0)
            .map(|like| {
                let (what, path) = &like[0];
                let what = match like.len() - 1 {
                    0 => what.to_string(),
                    more => format!("{what} (and {more} more)"),
                };
                Notice { path: path.clone(), what }
            })
            .collect();
        notices.sort_by(|a, b| a.path.cmp(&b.path));
        notices
    }
}

fn assign_groups(path: &Path, rows: &mut [Row], pattern: &Regex) -> Result<()> {
    if rows.iter().any(|r| r.group.is_some()) {
        return Err(Error::data(path, "has a group column already; leave out --group-by or the column"));
    }
    for row in rows.iter_mut() {
        row.group = pattern.captures(&row.relative).and_then(|found| {
            let part = found.iter().skip(1).flatten().next().or_else(|| found.get(0))?;
            (!part.is_empty()).then(|| part.as_str().to_owned())
        });
    }
    match rows.first() {
        Some(example) if rows.iter().all(|r| r.group.is_none()) => Err(Error::data(
            path,
            format!(
                "--group-by `{pattern}` matches no photo; it is matched against paths like “{}”",
                example.relative
            ),
        )),
        _ => Ok(()),
    }
}

/// `relative` with `/` between its parts; `None` if a name is not Unicode.
fn with_slashes(relative: &Path) -> Option<String> {
    let text = relative.to_str()?;
    Some(if std::path::MAIN_SEPARATOR == '/' {
        text.to_owned()
    } else {
        text.replace(std::path::MAIN_SEPARATOR, "/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes empty files, with the folders that they need; a name that ends in `/` is an empty folder.
    pub(super) fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            if file.ends_with('/') {
                std::fs::create_dir_all(path).unwrap();
            } else {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, b"").unwrap();
            }
        }
        dir
    }

    pub(super) fn message(result: Result<Dataset>) -> String {
        result.expect_err("should be refused").to_string()
    }

    #[test]
    fn one_class_is_enough_to_evaluate_but_not_to_train() {
        let dir = tree(&["photos/1.jpg", "photos/2.jpg"]);
        let data = Dataset::open(dir.path(), None).unwrap();
        let error = data.require_two_classes().unwrap_err().to_string();
        assert!(error.contains("“photos”") && error.contains("all 2"), "{error}");

        let dir = tree(&["test/a/1.jpg", "test/b/2.jpg"]);
        let error = Dataset::open(dir.path(), None).unwrap().require_two_classes().unwrap_err().to_string();
        assert!(error.contains("only test photos"), "{error}");

        let dir = tree(&["a/1.jpg", "b/2.jpg"]);
        Dataset::open(dir.path(), None).unwrap().require_two_classes().unwrap();
    }

    #[test]
    fn groups_come_from_the_path_below_the_root() {
        let files =
            ["train/a/7_1.jpg", "train/a/7_2.jpg", "train/b/7_1.jpg", "train/b/odd.jpg", "test/a/7_9.jpg"];
        let dir = tree(&files);
        let groups = |pattern: &str| {
            let data = Dataset::open(dir.path(), Some(&Regex::new(pattern).unwrap())).unwrap();
            data.samples.iter().map(|s| s.group.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        // Sorted: test/a/7_9, train/a/7_1, train/a/7_2, train/b/7_1, train/b/odd
        assert_eq!(groups(r"([^/]+/\d+)_\d+\.jpg$"), ["a/7", "a/7", "a/7", "b/7", ""]);
        assert_eq!(groups(r"\d+_"), ["7_", "7_", "7_", "7_", ""]);
        assert_eq!(groups(r"^train/(a)|^train/(b)"), ["", "a", "a", "b", "b"]);
        let error = message(Dataset::open(dir.path(), Some(&Regex::new("frame").unwrap())));
        assert!(error.contains("`frame`") && error.contains("“test/a/7_9.jpg”"), "{error}");
        message(Dataset::open(dir.path(), Some(&Regex::new("x*").unwrap())));
    }

    #[test]
    fn shared_data_sets_have_their_known_counts() {
        let shared = std::env::var_os("PENJING_SHARED")
            .map(PathBuf::from)
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"))
            .join("data");
        if !shared.is_dir() {
            println!("skipped: no shared data at {}", shared.display());
            return;
        }
        for (name, classes, train, test) in
            [("flowers12", 12, 719, 240), ("hymenoptera", 2, 244, 153), ("gtsrb43", 43, 4299, 2580)]
        {
            let data = Dataset::open(&shared.join(name), None).unwrap();
            assert_eq!(data.classes.len(), classes, "{name}");
            assert_eq!(data.part(Part::Train).count(), train, "{name}");
            assert_eq!(data.part(Part::Test).count(), test, "{name}");
            assert_eq!(data.counts(Part::Train).iter().sum::<usize>(), train, "{name}");
        }
        let pattern = Regex::new(r"^train/([^/]+/\d+_\d+)_\d+\.jpg$").unwrap();
        let data = Dataset::open(&shared.join("gtsrb43"), Some(&pattern)).unwrap();
        let tracks: BTreeSet<_> = data.part(Part::Train).map(|(_, s)| s.group.clone().unwrap()).collect();
        assert!((4299 / 5..=43 * 30).contains(&tracks.len()), "{} tracks", tracks.len());
    }
}
