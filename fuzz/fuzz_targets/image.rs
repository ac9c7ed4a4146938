//! Photos of any format, decoded under a small limit, at full and at reduced scale.
//!
//! libFuzzer aborts in the panic hook. `decode` puts a hook of its own before that one, which keeps silent while a decoder
//! works, so a panic that `decode` catches is no finding here either; one outside of it is.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use penjing::data::decode::{Limits, decode, decode_for};
use penjing_runtime::pixels::{Color, DecodeRule, Filter, Fit, Pixels};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_pixels: 1 << 16, ..Limits::default() };
    if let Ok(photo) = decode(bytes, &limits) {
        assert!((photo.width * photo.height) as u64 <= limits.max_pixels);
        assert_eq!(photo.data.len(), photo.width * photo.height * 3);
        let pixels = Pixels {
            height: 2,
            width: 3,
            color: Color::Rgb,
            fit: Fit::Squash,
            filter: Filter::Bilinear,
            mean: [0.0; 3],
            std: [1.0; 3],
            decode: DecodeRule::REDUCED,
        };
        // What can be decoded can be decoded at a smaller scale, and its sides are those, rounded up.
        let reduced = decode_for(bytes, &limits, &pixels).unwrap();
        let sides = |by: usize| [photo.width.div_ceil(by), photo.height.div_ceil(by)];
        let by = pixels.reduction(photo.width, photo.height);
        assert!([sides(1), sides(by)].contains(&[reduced.width, reduced.height]));
        assert_eq!(reduced.data.len(), reduced.width * reduced.height * 3);
    }
});
