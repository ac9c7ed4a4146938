//! Model files, from raw bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penjing_runtime::file::ModelFile;

fuzz_target!(|bytes: &[u8]| {
    let _ = ModelFile::from_bytes(bytes);
});
