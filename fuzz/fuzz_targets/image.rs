//! Photos of any format, decoded under a small limit.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use penjing::data::decode::{Limits, decode};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_pixels: 1 << 16, ..Limits::default() };
    let _ = decode(bytes, &limits);
});
