//! Values of tensors that lie in files beside the model.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Component, Path, PathBuf},
};

use super::super::{MAX_TENSOR_BYTES, What, shown};
use crate::onnx::Entry;

/// The folder of a model, out of which nothing is read.
pub(super) struct Folder {
    /// `None` for a model that is no file.
    path: Option<PathBuf>,
    /// Bytes that may still be read.
    left: usize,
}

impl Folder {
    /// The folder that the file at `path` lies in.
    pub(super) fn of(path: &Path) -> Self {
        let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        Folder { path: Some(parent.to_owned()), left: MAX_TENSOR_BYTES }
    }

    /// No folder at all.
    pub(super) fn none() -> Self {
        Folder { path: None, left: 0 }
    }

    /// The `length` bytes that `entries` say where to find.
    pub(super) fn read(&mut self, entries: &[Entry], length: usize) -> What<Vec<u8>> {
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value[..]);
        let number = |key: &str| {
            let text = entry(key).unwrap_or("0");
            text.parse::<u64>()
                .map_err(|_| format!("lies in another file at {key} `{}`, which is no number", shown(text)))
        };
        let location = entry("location").ok_or("lies in another file, which is not named")?;
        let (offset, stated) = (number("offset")?, number("length")?);
        if entry("length").is_some() && stated != length as u64 {
            return Err(format!("lies in `{}` with {stated} bytes, expected {length}", shown(location)));
        }
        let path = self.file(location)?;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            format!(
                "lies in another file, and all of these together are longer than {MAX_TENSOR_BYTES} bytes"
            )
        })?;
        let failed = |error: std::io::Error| {
            format!("lies in `{}`, which cannot be read: {}", shown(location), error.kind())
        };
        let mut file = File::open(path).map_err(failed)?;
        let there = file.metadata().map_err(failed)?.len();
        if offset.checked_add(length as u64).is_none_or(|end| end > there) {
            return Err(format!(
                "lies in `{}` at {offset}, {length} bytes long, but that file has {there} bytes; fetch it again",
                shown(location)
            ));
        }
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(failed)?;
        Ok(bytes)
    }

    /// The regular file of this name inside the folder, links followed.
    fn file(&self, location: &str) -> What<PathBuf> {
        let outside = || {
            format!(
                "lies in `{}`, and only files in the model's own folder are read; put it there and save the model again",
                shown(location)
            )
        };
        let missing = |error: std::io::Error| {
            format!(
                "lies in `{}`, which cannot be read: {}; it belongs beside the model",
                shown(location),
                error.kind()
            )
        };
        let Some(folder) = &self.path else {
            return Err(format!("lies in another file, `{}`; give the model's path", shown(location)));
        };
        let relative = Path::new(location);
        let plain =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        // A backslash separates folders elsewhere.
        if !plain || location.is_empty() || location.contains('\\') {
            return Err(outside());
        }
        let folder = folder.canonicalize().map_err(missing)?;
        let path = folder.join(relative).canonicalize().map_err(missing)?;
        if !path.starts_with(&folder) {
            return Err(outside());
        }
        if !path.is_file() {
            return Err(format!("lies in `{}`, which is no regular file", shown(location)));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(location: &str, offset: &str, length: &str) -> Vec<Entry> {
        let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
        vec![entry("location", location), entry("offset", offset), entry("length", length)]
    }

    #[test]
    fn only_what_lies_in_the_models_folder_is_read() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("model");
        std::fs::create_dir_all(inner.join("parts")).unwrap();
        std::fs::write(inner.join("w.bin"), [1, 2, 3, 4, 5, 6]).unwrap();
        std::fs::write(inner.join("parts/v.bin"), [7, 8]).unwrap();
        std::fs::write(place.path().join("secret"), [9; 8]).unwrap();
        let mut folder = Folder::of(&inner.join("m.onnx"));
        assert_eq!(folder.read(&entries("w.bin", "2", "3"), 3).unwrap(), [3, 4, 5]);
        assert_eq!(folder.read(&entries("parts/v.bin", "0", "2"), 2).unwrap(), [7, 8]);
        let absolute = place.path().join("secret");
        for (location, offset, length, says) in [
            ("../secret", "0", "4", "own folder"),
            ("parts/../../secret", "0", "4", "own folder"),
            (absolute.to_str().unwrap(), "0", "4", "own folder"),
            ("..\\secret", "0", "4", "own folder"),
            ("", "0", "4", "own folder"),
            ("gone.bin", "0", "4", "belongs beside the model"),
            ("parts", "0", "4", "no regular file"),
            ("w.bin", "4", "4", "that file has 6 bytes"),
            ("w.bin", "18446744073709551615", "4", "that file has 6 bytes"),
            ("w.bin", "x", "4", "`x`, which is no number"),
            ("w.bin", "0", "5", "with 5 bytes, expected 4"),
        ] {
            let error = folder.read(&entries(location, offset, length), 4).unwrap_err();
            assert!(error.contains(says), "{location}: {error}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
            assert!(folder.read(&entries("link", "0", "4"), 4).unwrap_err().contains("own folder"));
            std::os::unix::fs::symlink("w.bin", inner.join("inner_link")).unwrap();
            assert_eq!(folder.read(&entries("inner_link", "0", "1"), 1).unwrap(), [1]);
        }
        let huge = entries("w.bin", "0", &usize::MAX.to_string());
        assert!(folder.read(&huge, usize::MAX).unwrap_err().contains("longer than"));
        assert!(Folder::none().read(&entries("w.bin", "0", "4"), 4).unwrap_err().contains("model's path"));
    }
}
