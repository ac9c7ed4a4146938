//! Models for other programs to run.

pub use onnx::{OnnxOptions, to_onnx};

mod onnx;
