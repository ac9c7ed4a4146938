//! Checkpoints: from raw bytes; with the hash put right, which no mutation would find; and from the JSON alone, with a
//! body of the length that it asks for.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use penjing::train::checkpoint::{Checkpoint, read};

/// Longer bodies are not made up.
const MOST_VALUES: u64 = 1 << 12;

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"{") {
        if let Some(body) = body(bytes) {
            let start = [&b"penjing.part\n"[..], &1u32.to_le_bytes(), &(bytes.len() as u64).to_le_bytes()].concat();
            check(&hashed([&start, bytes, &body].concat()));
        }
        return;
    }
    check(bytes);
    if let Some(rest) = bytes.len().checked_sub(32) {
        check(&hashed(bytes[..rest].to_vec()));
    }
});

fn check(bytes: &[u8]) {
    let Ok(Checkpoint { tensors, .. }) = read(bytes, bytes.len() as u64) else { return };
    let values: usize = tensors.values().map(|values| values.len()).sum();
    assert!(4 * values < bytes.len(), "more values than the file holds");
}

/// As many values as the JSON lists.
fn body(json: &[u8]) -> Option<Vec<u8>> {
    let parsed: serde_json::Value = serde_json::from_slice(json).ok()?;
    let mut lengths = parsed.get("tensors")?.as_array()?.iter().map(|tensor| tensor.get(1)?.as_u64());
    let values = lengths.try_fold(0u64, |sum, len| sum.checked_add(len?)).filter(|values| *values <= MOST_VALUES)?;
    Some(vec![0x3f; 4 * values as usize])
}

fn hashed(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&bytes);
    bytes.extend(hash.as_bytes());
    bytes
}
