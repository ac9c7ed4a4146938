//! Photos of any format, decoded under a small limit.
//!
//! libFuzzer aborts in the panic hook. `decode` puts a hook of its own before that one, which keeps silent while a decoder
//! works, so a panic that `decode` catches is no finding here either; one outside of it is.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use penjing::data::decode::{Limits, decode};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_pixels: 1 << 16, ..Limits::default() };
    if let Ok(photo) = decode(bytes, &limits) {
        assert!((photo.width * photo.height) as u64 <= limits.max_pixels);
        assert_eq!(photo.data.len(), photo.width * photo.height * 3);
    }
});
