//! State dicts in torch's old format and in safetensors, from raw bytes.
#![no_main]
#![forbid(unsafe_code)]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use penjing::import::parse_state_dict;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = parse_state_dict(Path::new("fuzzed"), bytes) {
        for tensor in read.tensors.values() {
            assert_eq!(tensor.shape.iter().product::<usize>(), tensor.len());
        }
    }
});
