//! State dicts in zip archives: the bytes as an archive, and as the pickle in a sound archive.
#![no_main]
#![forbid(unsafe_code)]

use std::io::{Cursor, Write};
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use penjing::import::parse_state_dict;
use zip::{CompressionMethod, ZipWriter, result::ZipResult, write::SimpleFileOptions};

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"PK") {
        let _ = parse_state_dict(Path::new("fuzzed"), bytes);
        return;
    }
    let archive = archive(bytes).expect("writing to memory does not fail");
    if let Ok(read) = parse_state_dict(Path::new("fuzzed"), &archive) {
        for tensor in read.tensors.values() {
            assert_eq!(tensor.shape.iter().product::<usize>(), tensor.len());
        }
    }
});

/// What torch would write around `pickle`, with a few storages of fixed content.
fn archive(pickle: &[u8]) -> ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored)?;
    zip.write_all(pickle)?;
    for key in 0..8u8 {
        zip.start_file(format!("archive/data/{key}"), stored)?;
        zip.write_all(&[key; 96])?;
    }
    Ok(zip.finish()?.into_inner())
}
