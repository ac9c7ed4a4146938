//! What can be wrong with a graph or a model file.

use alloc::string::String;
use core::fmt;

/// Why a graph was refused or a model file could not be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// A layer does not fit its inputs, its weights or the limits.
    Layer {
        /// The layer's name.
        layer: String,
        /// What is wrong and what was expected.
        what: String,
    },
    /// The bytes are no penjing model, or a damaged one.
    File(String),
}

impl Error {
    /// An [`Error::Layer`].
    pub fn layer(layer: &str, what: impl Into<String>) -> Self {
        Error::Layer { layer: layer.into(), what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Layer { layer, what } => write!(f, "layer `{layer}`: {what}"),
            Error::File(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for Error {}
