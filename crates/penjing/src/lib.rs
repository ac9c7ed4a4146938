//! penjing turns a folder of labelled photos into a small, fast, trustworthy image classifier.
//!
//! The way through the library is the way of the work: [`data`] finds and splits photos, [`zoo`] and [`import`] give
//! networks, [`transfer`] fits one to the photos (by a head on its features, and with [`train`], which teaches whole
//! networks, by all its weights), [`eval`] says how good it is, [`classifier`] puts it to work,
//! [`model`] keeps it and [`export`] hands it to other programs.
#![forbid(unsafe_code)]

pub mod classifier;
pub mod compress;
pub mod costs;
pub mod data;
mod error;
pub mod eval;
pub mod export;
mod folders;
#[cfg(feature = "pull")]
pub mod hub;
pub mod import;
pub mod model;
mod onnx;
pub mod progress;
mod random;
pub mod runner;
pub mod threads;
pub mod train;
pub mod transfer;
pub mod zoo;

pub use error::{Error, Result};
