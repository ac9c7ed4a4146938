//! Loops over bytes. The compiler turns them into vectors by itself where an instruction set is enabled, except those over
//! pixels of three.

use super::simd::Simd;
use crate::resample::{self, Taps};

/// [`resample::across`] of three channels.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn across_rgb<S: Simd>(line: &[u8], taps: Taps, out: &mut [u8]) {
    let each =
        out.as_chunks_mut::<3>().0.iter_mut().zip(taps.spans).zip(taps.weights.chunks_exact(taps.reach));
    for ((out, &(first, len)), weights) in each {
        let whole = len.next_multiple_of(resample::STEP);
        let (pixels, weights) = (&line[first * 3..][..whole * 3 + resample::STEP], &weights[..whole]);
        // SAFETY: the slices hold `len` pixels up to a whole step and as many weights, and a step of bytes more.
        let [r, g, b, _] = unsafe { S::pixel(pixels.as_ptr(), weights.as_ptr(), len) };
        *out = [r, g, b];
    }
}

/// [`resample::across`] of one channel.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn across_gray<S: Simd>(line: &[u8], taps: Taps, out: &mut [u8]) {
    resample::across_gray(line, taps, out);
}

/// [`resample::down`].
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn blend<S: Simd>(ring: &[u8], slot: usize, weights: &[i32], out: &mut [u8]) {
    resample::blend(ring, slot, weights, out);
}
