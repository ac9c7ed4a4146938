//! Photos named one by one, without labels.

use std::path::{Path, PathBuf};

use super::decode::is_photo_name;
use crate::{Error, Result};

/// Every photo below a folder, by its name's ending, in the order of their paths; hidden ones are left out. A path that
/// is no folder is itself the only photo.
///
/// # Errors
/// [`Error::Io`] when a folder cannot be listed.
pub fn photos_below(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| Error::io(path, "list the folder", error))?;
    let mut below = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(path, "list the folder", error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(|error| Error::io(&entry.path(), "look at", error))?;
        // A link to a folder is not followed: it may lead back here.
        if kind.is_dir() {
            below.extend(photos_below(&entry.path())?);
        } else if is_photo_name(&entry.path()) {
            below.push(entry.path());
        }
    }
    below.sort();
    Ok(below)
}
