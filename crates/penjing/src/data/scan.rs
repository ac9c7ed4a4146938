//! Finding the photos of a folder by their names alone.

use super::decode::is_photo_name;
use super::{EXPECTED, Found, Notice, Notices, Part, Row, with_slashes};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Finds the photos under `root`: class folders, or parts of class folders.
///
/// Costs one directory listing per folder; a file is looked at only if it is a link.
pub(super) fn scan(root: &Path) -> Result<Found> {
    let class_depth = if has_parts(root)? { 2 } else { 1 };
    let mut rows = Vec::new();
    let mut notices = Notices::default();
    // Folders of parts and classes in which no photo was found yet.
    let mut empty: BTreeSet<PathBuf> = BTreeSet::new();
    let mut loose_photos = 0usize;

    let mut walk = WalkDir::new(root).min_depth(1).follow_links(true).into_iter();
    while let Some(entry) = walk.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                empty.remove(&path);
                notices.add(&path, walk_problem(&error));
                continue;
            }
        };
        let path = entry.path();
        if is_hidden(entry.file_name()) {
            notices.add(path, "hidden, skipped");
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        let Some(relative) = path.strip_prefix(root).ok().and_then(with_slashes) else {
            notices.add(path, "its name is not Unicode, skipped; rename it");
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
            continue;
        };
        if entry.file_type().is_dir() {
            if entry.depth() <= class_depth {
                empty.insert(path.to_owned());
            }
            continue;
        }
        if !entry.file_type().is_file() || !is_photo_name(path) {
            notices.add(path, "not a photo (jpg, jpeg, png, webp, bmp, gif, tif, tiff), skipped");
            continue;
        }
        if entry.depth() <= class_depth {
            loose_photos += 1;
            notices.add(
                path,
                "a photo outside of every class folder, skipped; move it into the folder of its class",
            );
            continue;
        }
        let mut folders = relative.split('/');
        let part = if class_depth == 2 { folders.next().and_then(Part::from_name) } else { None };
        let label = folders.next().unwrap_or_default().to_owned();
        rows.push(Row {
            path: path.to_owned(),
            label,
            part: part.unwrap_or(Part::Train),
            group: None,
            relative,
        });
    }

    if rows.is_empty() {
        let found = match loose_photos {
            0 => "holds no photos (jpg, jpeg, png, webp, bmp, gif, tif, tiff)".to_owned(),
            n => format!("holds {n} photos, but none in a class folder"),
        };
        return Err(Error::data(root, format!("{found}; {EXPECTED}")));
    }
    for row in &rows {
        for folder in row.path.ancestors().skip(1).take_while(|f| *f != root) {
            empty.remove(folder);
        }
    }
    for folder in empty {
        notices.add(&folder, "holds no photos, left out");
    }
    Ok(Found { rows, notices })
}

/// Every photo below a folder, by the endings of their names, in the order of their paths, and the folders that could
/// not be read. Links are followed; hidden files and folders are left out.
pub fn photos_below(folder: &Path) -> (Vec<PathBuf>, Vec<Notice>) {
    let (mut photos, mut unreadable) = (Vec::new(), Vec::new());
    let walk = WalkDir::new(folder).follow_links(true).into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name())) {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_photo_name(entry.path()) => {
                photos.push(entry.into_path());
            }
            Ok(_) => {}
            Err(error) => unreadable
                .push(Notice { path: error.path().unwrap_or(folder).to_owned(), what: walk_problem(&error) }),
        }
    }
    photos.sort();
    (photos, unreadable)
}

/// Whether the folders right under `root` are train, val and test.
fn has_parts(root: &Path) -> Result<bool> {
    let (mut train, mut val, mut test, mut other) = (false, false, false, None);
    for entry in std::fs::read_dir(root).map_err(|e| Error::io(root, "read the folder", e))? {
        let entry = entry.map_err(|e| Error::io(root, "read the folder", e))?;
        let name = entry.file_name();
        // `Path::is_dir` follows links, which `DirEntry::file_type` does not.
        if is_hidden(&name) || !entry.path().is_dir() {
            continue;
        }
        match name.to_str().and_then(Part::from_name) {
            Some(Part::Train) => train = true,
            Some(Part::Val) => val = true,
            Some(Part::Test) => test = true,
            None => other = Some(name),
        }
    }
    match other {
        // One such name can be a class (a train among cars and buses); two together hardly are.
        Some(other) if train && (val || test) => Err(Error::data(
            root,
            format!(
                "holds “{}” beside the folders train/ and val/ or test/, so it is not clear what is a class; \
                 move it elsewhere",
                other.display()
            ),
        )),
        Some(_) => Ok(false),
        None => Ok(train || test),
    }
}

fn walk_problem(error: &walkdir::Error) -> String {
    if error.loop_ancestor().is_some() {
        return "a link to a folder that contains it, skipped".to_owned();
    }
    match error.io_error() {
        Some(e) if e.kind() == std::io::ErrorKind::NotFound => "a link to nothing, skipped".to_owned(),
        Some(e) => format!("cannot be read, skipped: {e}"),
        None => "cannot be read, skipped".to_owned(),
    }
}

/// Files and folders that systems leave behind; some hold thumbnails that would pass for photos.
fn is_hidden(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.first() == Some(&b'.')
        || ["__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"]
            .iter()
            .any(|junk| name.eq_ignore_ascii_case(junk))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{message, tree};
    use super::super::{Dataset, Part};
    use super::*;

    fn open(dir: &tempfile::TempDir) -> Dataset {
        Dataset::open(dir.path(), None).unwrap()
    }

    /// Every notice as `relative path: words`.
    fn notices(data: &Dataset) -> Vec<String> {
        let show = |p: &Path| p.strip_prefix(&data.root).unwrap().display().to_string();
        data.notices.iter().map(|n| format!("{}: {}", show(&n.path), n.what)).collect()
    }

    #[test]
    fn class_folders_in_any_script_sort_by_code_point() {
        let files = [
            "10/a.jpg",
            "1/a.JPG",
            "0/a.png",
            "Zug/a.tiff",
            "été/a.webp",
            "盆景/a.bmp",
            "a b/x/y/a.jpeg",
            "🌳/a.gif",
        ];
        let dir = tree(
            &[&files[..], &files.map(|f| f.replace("a.", "b.")).each_ref().map(|s| s.as_str())[..]].concat(),
        );
        let data = open(&dir);
        assert_eq!(data.classes, ["0", "1", "10", "Zug", "a b", "été", "盆景", "🌳"]);
        assert_eq!(data.counts(Part::Train), [2; 8]);
        assert_eq!(data.counts(Part::Test), [0; 8]);
        assert!(data.notices.is_empty(), "{:?}", data.notices);
        assert_eq!(data.relative(&data.samples[8]), "a b/x/y/a.jpeg");
        assert!(data.samples.iter().all(|s| s.path.is_file()));
    }

    #[test]
    fn parts_have_the_union_of_the_classes() {
        let dir = tree(&[
            "Train/a/1.jpg",
            "Train/a/2.jpg",
            "Train/b/1.jpg",
            "valid/a/3.jpg",
            "test/c/1.jpg",
            "test/c/2.jpg",
            "SOURCE.txt",
        ]);
        let data = open(&dir);
        assert_eq!(data.classes, ["a", "b", "c"]);
        assert_eq!(data.counts(Part::Train), [2, 1, 0]);
        assert_eq!(data.counts(Part::Val), [1, 0, 0]);
        assert_eq!(data.counts(Part::Test), [0, 0, 2]);
        let notices = notices(&data);
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].starts_with("SOURCE.txt: not a photo"), "{notices:?}");
        assert_eq!(data.lone_photos().len(), 1);
        assert!(data.lone_photos()[0].path.ends_with("Train/b/1.jpg"));
        let error = data.require_two_classes().unwrap_err().to_string();
        assert!(error.contains("class “c” has photos in test but none to learn from"), "{error}");
    }

    #[test]
    fn a_part_name_among_other_folders_is_a_class() {
        let data = open(&tree(&["train/1.jpg", "bus/1.jpg", "car/1.jpg"]));
        assert_eq!(data.classes, ["bus", "car", "train"]);
        let error =
            message(Dataset::open(tree(&["train/a/1.jpg", "test/a/1.jpg", "extra/1.jpg"]).path(), None));
        assert!(error.contains("“extra”"), "{error}");
    }

    #[test]
    fn what_is_skipped_is_named_and_counted() {
        let dir = tree(&[
            "loose.jpg",
            "a/1.jpg",
            "a/2.jpg",
            "a/.DS_Store",
            "a/._1.jpg",
            "a/Thumbs.db",
            "a/notes.txt",
            "a/more/photos.zip",
            "b/1.jpg",
            "b/2.jpg",
            "b/@eaDir/1.jpg",
            "__MACOSX/a/1.jpg",
            ".git/1.jpg",
            "nothing/",
            "text/readme.md",
        ]);
        let data = open(&dir);
        assert_eq!(data.classes, ["a", "b"]);
        assert_eq!(data.samples.len(), 4);
        let notices = notices(&data);
        assert_eq!(
            notices,
            [
                ".git: hidden, skipped (and 5 more)",
                "a/more/photos.zip: not a photo (jpg, jpeg, png, webp, bmp, gif, tif, tiff), skipped (and 2 more)",
                "loose.jpg: a photo outside of every class folder, skipped; move it into the folder of its class",
                "nothing: holds no photos, left out (and 1 more)",
            ]
        );
    }

    #[test]
    fn a_folder_without_labelled_photos_is_refused() {
        for (files, words) in [
            (&[][..], "holds no photos"),
            (&["a/1.txt", "b/"][..], "holds no photos"),
            (&["1.jpg", "2.jpg"][..], "holds 2 photos, but none in a class folder"),
            (&["train/1.jpg", "test/2.jpg"][..], "holds 2 photos, but none in a class folder"),
        ] {
            let error = message(Dataset::open(tree(files).path(), None));
            assert!(error.contains(words) && error.contains("one sub-folder of photos per class"), "{error}");
        }
        let dir = tree(&["photos.zip"]);
        let error = message(Dataset::open(&dir.path().join("photos.zip"), None));
        assert!(error.contains("neither a folder nor a .csv"), "{error}");
        let error = message(Dataset::open(&dir.path().join("absent"), None));
        assert!(error.contains("does not exist; expected a folder"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_are_named() {
        use std::os::unix::fs::symlink;
        let dir = tree(&["a/1.jpg", "a/2.jpg"]);
        let elsewhere = tree(&["x.jpg", "y.jpg"]);
        symlink(elsewhere.path(), dir.path().join("b")).unwrap();
        symlink(dir.path(), dir.path().join("a/up")).unwrap();
        symlink(dir.path().join("gone.jpg"), dir.path().join("a/3.jpg")).unwrap();
        symlink(elsewhere.path().join("x.jpg"), dir.path().join("a/4.jpg")).unwrap();
        let data = open(&dir);
        assert_eq!(data.counts(Part::Train), [3, 2]);
        assert_eq!(
            notices(&data),
            ["a/3.jpg: a link to nothing, skipped", "a/up: a link to a folder that contains it, skipped"]
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_not_unicode_is_skipped() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tree(&["a/1.jpg", "a/2.jpg"]);
        std::fs::write(dir.path().join("a").join(OsStr::from_bytes(b"\xff.jpg")), b"").unwrap();
        let folder = dir.path().join(OsStr::from_bytes(b"\xe9t\xe9"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("1.jpg"), b"").unwrap();
        let data = open(&dir);
        assert_eq!(data.samples.len(), 2);
        assert_eq!(data.notices.len(), 1);
        assert!(data.notices[0].what.contains("not Unicode") && data.notices[0].what.contains("and 1 more"));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_without_permission_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tree(&["a/1.jpg", "a/2.jpg", "shut/1.jpg"]);
        let shut = dir.path().join("shut");
        let mode = |path: &Path, bits| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap()
        };
        mode(&shut, 0o000);
        if std::fs::read_dir(&shut).is_ok() {
            println!("skipped: this user may read every folder");
            return;
        }
        let data = open(&dir);
        mode(&shut, 0o755);
        assert_eq!(notices(&data).len(), 1);
        assert!(notices(&data)[0].starts_with("shut: cannot be read, skipped"), "{:?}", data.notices);
        mode(dir.path(), 0o000);
        let refused = Dataset::open(dir.path(), None);
        mode(dir.path(), 0o755);
        assert!(message(refused).contains("cannot read the folder"));
    }

    #[test]
    fn twenty_thousand_files_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for class in 0..40 {
            let folder = dir.path().join(format!("class {class}"));
            std::fs::create_dir(&folder).unwrap();
            for photo in 0..500 {
                std::fs::File::create(folder.join(format!("{photo}.jpg"))).unwrap();
            }
        }
        let start = std::time::Instant::now();
        let data = open(&dir);
        println!("20,000 files in {:?}", start.elapsed());
        assert_eq!(data.counts(Part::Train), [500; 40]);
        assert!(data.samples.is_sorted_by_key(|s| data.relative(s)));
        let again = open(&dir);
        assert_eq!(data.samples, again.samples);
    }
}
