//! Classifiers of TensorFlow Lite, from raw bytes. What is read can be written and read as a model.
#![no_main]
#![forbid(unsafe_code)]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use penjing::import::{Details, parse_tflite};
use penjing_runtime::file::Model;

/// Larger models are read, but not written.
const MOST_VALUES: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = parse_tflite(Path::new("fuzzed"), bytes, Details::default()) else { return };
    read.model.check().expect("what was read fits together");
    if read.model.weights.values().map(|tensor| tensor.len()).sum::<usize>() <= MOST_VALUES {
        let written = read.model.to_bytes().expect("what was read can be written");
        assert!(Model::from_bytes(&written).expect("what was written can be read") == read.model);
    }
});
