//! The beginning of a file that has not arrived as a whole.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// `FILE.part`, and beside it `FILE.part.json` with what its continuation must agree with.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    note: PathBuf,
}

/// What is known of the whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The address that was asked.
    pub url: String,
    /// What named this state of the file to the server.
    pub tag: String,
    /// Length of the whole in bytes.
    pub bytes: u64,
    /// The commit that the hub said it is from.
    pub commit: Option<String>,
    /// The SHA-256 that the hub said it has.
    pub sha256: Option<String>,
}

impl Part {
    /// The part of the file at `path`.
    pub fn of(path: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Part { path: beside(".part"), note: beside(".part.json") }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there of the file at `url`, and how many bytes; `None` where nothing can be continued.
    pub fn held(&self, url: &str) -> Option<(Note, u64)> {
        let bytes = std::fs::read(&self.note).ok()?;
        let note: Note = serde_json::from_slice(&bytes).ok()?;
        let length = std::fs::metadata(&self.path).ok()?.len();
        (note.url == url && (1..=note.bytes).contains(&length)).then_some((note, length))
    }

    /// An empty file in its place. Without a note it cannot be continued.
    pub fn begin(&self, note: Option<&Note>) -> Result<File> {
        // At no moment may a note stand beside bytes that it does not speak of.
        remove(&self.note)?;
        let file = File::create(&self.path).map_err(|error| Error::io(&self.path, "write", error))?;
        if let Some(note) = note {
            let text = serde_json::to_vec(note).unwrap_or_default();
            std::fs::write(&self.note, text).map_err(|error| Error::io(&self.note, "write", error))?;
        }
        Ok(file)
    }

    /// The file, to be continued at its end.
    pub fn go_on(&self) -> Result<File> {
        let file = OpenOptions::new().append(true).open(&self.path);
        file.map_err(|error| Error::io(&self.path, "write", error))
    }

    /// The file is whole: it moves to `path`.
    pub fn finish(&self, path: &Path) -> Result<()> {
        std::fs::rename(&self.path, path).map_err(|error| Error::io(path, "write", error))?;
        remove(&self.note)
    }

    /// Nothing of it is of use.
    pub fn remove(&self) -> Result<()> {
        remove(&self.note)?;
        remove(&self.path)
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, "remove", error)),
        _ => Ok(()),
    }
}
