//! ONNX files, from raw bytes. What is read is written as ONNX and read again: the same network.
#![no_main]
#![forbid(unsafe_code)]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use penjing::{
    export::{OnnxOptions, to_onnx},
    import::{OnnxDetails, parse_onnx},
};

/// Larger weights are read, but not written.
const MOST_VALUES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let name = Path::new("fuzzed");
    let Ok(read) = parse_onnx(name, bytes, OnnxDetails::default()) else { return };
    let model = read.model;
    model.check().expect("what was read is whole");
    if model.weights.values().map(|tensor| tensor.len()).sum::<usize>() > MOST_VALUES {
        return;
    }
    let options = OnnxOptions { keep_batch_norm: true, ..OnnxOptions::default() };
    let written = to_onnx(&model, options).expect("what was read can be written");
    let again = parse_onnx(name, &written, OnnxDetails::default()).expect("what was written can be read").model;
    assert!(again.pixels == model.pixels && again.labels == model.labels, "the same contract and labels");
    assert!(again.graph.input_shape() == model.graph.input_shape(), "the same input");
});
