//! penjing turns a folder of labelled photos into a small, fast, trustworthy image classifier.
#![forbid(unsafe_code)]

pub mod data;
mod error;
pub mod import;
pub mod transfer;

pub use error::{Error, Result};
