//! Models on disk: read whole, written so that nothing is ever lost.

use std::{
    borrow::Cow,
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

pub use penjing_runtime::file::Model;

use crate::{Error, Result};

/// Longest model file that is read.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Reads a model.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Model`] when it is not a whole, unchanged model.
pub fn load(path: &Path) -> Result<Model> {
    let failed = |error| Error::io(path, "read", error);
    let file = File::open(path).map_err(failed)?;
    let there = file.metadata().map_err(failed)?;
    if there.is_dir() {
        return Err(Error::model(path, "is a folder; expected a model file"));
    }
    let mut bytes = Vec::with_capacity(there.len().min(MAX_FILE_BYTES) as usize);
    // A device or a pipe does not tell its length, so that alone bounds nothing.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::model(path, format!("longer than {MAX_FILE_BYTES} bytes; expected a model file")));
    }
    Model::from_bytes(&bytes).map_err(|error| Error::model(path, error.to_string()))
}

/// The model, its weights as floats where only they are integers.
///
/// # Errors
/// [`Error::Unsupported`] for a network that computes in integers.
pub fn in_floats(model: &Model) -> Result<Cow<'_, Model>> {
    if model.graph.is_quantized() {
        return Err(Error::Unsupported(
            "the model computes in integers; take the one in floats that it was made of".into(),
        ));
    }
    Ok(match model.weights.values().any(|tensor| tensor.data.is_integers()) {
        true => Cow::Owned(model.clone().to_floats()),
        false => Cow::Borrowed(model),
    })
}

/// The backbone inside the program: EfficientNet-Lite0 with its ImageNet head. `None` when built without it.
pub fn bundled() -> Option<Model> {
    #[cfg(feature = "bundled")]
    {
        Model::from_bytes(penjing_weights::EFFICIENTNET_LITE0).ok()
    }
    #[cfg(not(feature = "bundled"))]
    None
}

/// Where a result will be written. Checked before any work, so that an hour's work never meets a closed door.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
    replace: bool,
}

impl Output {
    /// A file to be created, or with `replace` overwritten.
    ///
    /// # Errors
    /// [`Error::Data`] when something is there already, [`Error::Io`] when the folder is missing or not writable.
    pub fn new(path: &Path, replace: bool) -> Result<Self> {
        // A link stays a link: what it points at is replaced.
        let linked = if replace && path.is_symlink() { path.canonicalize().ok() } else { None };
        let output = Output { path: linked.unwrap_or_else(|| path.to_owned()), replace };
        // "models/" means a folder even before there is one.
        if path.is_dir() || path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
        {
            return Err(Error::data(path, "is a folder; name a file to write"));
        }
        if path.exists() && !path.is_file() {
            return Err(Error::data(path, "is no regular file; name a file to write"));
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(Error::data(path, "is there already; give another name, or --force to overwrite it"));
        }
        output.temporary()?;
        Ok(output)
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes to a temporary name beside the target, syncs, renames: at every moment either the old file or the new
    /// one is there, whole.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full or the target may not be written; the old file is then as it was.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        self.write_with(|file| file.write_all(bytes))
    }

    /// As [`write`](Self::write), for what is too long to hold twice: `fill` writes to the file itself.
    ///
    /// # Errors
    /// As [`write`](Self::write), and what `fill` says.
    pub fn write_with(&self, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let failed = |error| Error::io(&self.path, "write", error);
        let mut file = self.temporary()?;
        fill(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        let kept = if self.replace { file.persist(&self.path) } else { file.persist_noclobber(&self.path) };
        kept.map(drop).map_err(|error| failed(error.error))
    }

    /// Writes a model; gives the file's size in bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`Error::Model`] for a model whose parts do not fit.
    pub fn save(&self, model: &Model) -> Result<usize> {
        let bytes = model.to_bytes().map_err(|error| Error::model(&self.path, error.to_string()))?;
        self.write(&bytes)?;
        Ok(bytes.len())
    }

    fn temporary(&self) -> Result<tempfile::NamedTempFile> {
        let folder = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(Error::data(folder, "no such folder; create it first, or name another place"));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".penjing-").suffix(".tmp");
        // A temporary file is private by default; the result should be as readable as any other file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // Of the error only the kind is kept: its text would name the temporary file, of which nobody knows.
        let failed = |error: std::io::Error| Error::io(folder, "write into the folder", error.kind().into());
        builder.tempfile_in(folder).map_err(failed)
    }
}
