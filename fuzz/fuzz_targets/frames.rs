//! A stream of frames: the same ones however its bytes arrive, each within the limit.
#![no_main]
#![forbid(unsafe_code)]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use penjing::data::{
    decode::{Limits, decode},
    frames::{Format, Frames},
};

/// Gives so many bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(self.0.len()).min(into.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_pixels: 1 << 12, ..Limits::default() };
    for format in [Format::Mjpeg, Format::Rgb { width: 3, height: 2 }] {
        let sizes = |at_once| -> Vec<Option<[usize; 2]>> {
            let frames = Frames::new(Trickle(bytes, at_once), format, |jpeg: &[u8]| decode(jpeg, &limits));
            frames.map(|frame| frame.ok().map(|photo| [photo.width, photo.height])).collect()
        };
        let whole = sizes(usize::MAX);
        assert!(whole.iter().flatten().all(|[w, h]| w * h <= 1 << 12));
        assert_eq!(whole, sizes(5));
    }
});
