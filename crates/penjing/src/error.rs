//! Errors, sorted by whose fault they are.

use std::path::{Path, PathBuf};

/// What can go wrong, and where.
///
/// Every message says what was expected and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused: a missing path, no permission, a full disk.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as a verb phrase ("read", "create the folder").
        doing: &'static str,
        /// The system's own words.
        source: std::io::Error,
    },
    /// A photo, a manifest or a data set is not what it should be.
    #[error("{}: {what}", path.display())]
    Data {
        /// The photo, manifest or folder.
        path: PathBuf,
        /// What is wrong, what was expected and what to do.
        what: String,
    },
    /// A model or weights file is damaged, foreign or does not fit.
    #[error("{}: {what}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected and what to do; names the layer where there is one.
        what: String,
    },
    /// A server cannot be reached, or does not give what it was asked for.
    #[error("{url}: {what}")]
    Remote {
        /// What was asked for.
        url: String,
        /// What came instead, what was expected and what to do.
        what: String,
    },
    /// Asked for something that penjing does not know or cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The user interrupted the work; what was done is kept.
    #[error("interrupted")]
    Interrupted,
}

/// A result with penjing's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] at `path`; `doing` completes "cannot …".
    pub fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), doing, source }
    }

    /// An [`Error::Data`] at `path`.
    pub fn data(path: &Path, what: impl Into<String>) -> Self {
        Error::Data { path: path.to_owned(), what: what.into() }
    }

    /// An [`Error::Remote`] about `url`.
    #[cfg(feature = "pull")]
    pub(crate) fn remote(url: &str, what: impl Into<String>) -> Self {
        Error::Remote { url: url.to_owned(), what: what.into() }
    }

    /// An [`Error::Model`] at `path`.
    pub fn model(path: &Path, what: impl Into<String>) -> Self {
        Error::Model { path: path.to_owned(), what: what.into() }
    }
}
