//! Loops over bytes, which the compiler turns into vectors by itself where an instruction set is enabled.

use super::simd::Simd;
use crate::resample::{self, Taps};

/// [`resample::across`] of three channels.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn across_rgb<S: Simd>(line: &[u8], taps: Taps, out: &mut [u8]) {
    resample::across_rgb(line, taps, out);
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
