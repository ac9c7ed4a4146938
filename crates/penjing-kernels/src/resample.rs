//! Sums of weighted bytes: the two passes of resizing a photo.
//!
//! Weights are integers, [`ONE`] being one. Sums are exact, so their order does not show in the result.

use crate::{Isa, arch};

/// Fractional bits of a weight: 32 less 8 for the pixel, less 2 for sign and overshoot.
pub const PRECISION_BITS: u32 = 32 - 8 - 2;
/// The weight one.
pub const ONE: i32 = 1 << PRECISION_BITS;
/// Inputs that are weighted at once.
pub const STEP: usize = 4;
/// Bytes that a line holds behind its pixels, whatever they are: a step of inputs less one, and a step more.
pub const SPARE: usize = 4 * STEP - 3;
pub(crate) const HALF: i32 = ONE / 2;

/// Which inputs each output is made of.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    /// First input and number of inputs of each output.
    pub spans: &'a [(usize, usize)],
    /// `reach` weights for each output: as many as it has inputs, then zeros.
    pub weights: &'a [i32],
    /// The most inputs that an output has, up to a multiple of [`STEP`].
    pub reach: usize,
}

/// A row of pixels of `C` bytes, 1 or 3, through a filter: out\[x\]\[c\] = Σ line\[first + i\]\[c\]·w\[x\]\[i\], rounded and
/// clamped to a byte. `line` holds [`SPARE`] bytes more than its pixels. No sum may leave 32 bits.
pub fn across<const C: usize>(isa: Isa, line: &[u8], taps: Taps, out: &mut [u8]) {
    assert!(C == 1 || C == 3, "pixels of 1 or 3 bytes");
    assert!(out.len() == taps.spans.len() * C && taps.weights.len() == taps.spans.len() * taps.reach);
    assert!(taps.reach > 0 && taps.reach.is_multiple_of(STEP), "whole steps");
    if C == 3 {
        arch::select!(isa, across_rgb(line, taps, out));
    } else {
        arch::select!(isa, across_gray(line, taps, out));
    }
}

/// Rows of `row_len` bytes blended into one: out\[x\] = Σ row\[(slot + i) % rows\]\[x\]·w\[i\], rounded and clamped to a byte.
/// `ring` holds whole rows. No sum may leave 32 bits.
pub fn down(isa: Isa, ring: &[u8], row_len: usize, slot: usize, weights: &[i32], out: &mut [u8]) {
    assert!(out.len() == row_len && (row_len == 0 || ring.len().is_multiple_of(row_len)));
    if row_len == 0 {
        return;
    }
    assert!(slot < ring.len() / row_len, "a slot of the ring");
    arch::select!(isa, blend(ring, slot, weights, out));
}

pub(crate) fn across_rgb(line: &[u8], taps: Taps, out: &mut [u8]) {
    let each =
        out.as_chunks_mut::<3>().0.iter_mut().zip(taps.spans).zip(taps.weights.chunks_exact(taps.reach));
    for ((out, &(first, len)), weights) in each {
        let mut sum = [HALF; 3];
        for (pixel, &w) in line[first * 3..][..len * 3].as_chunks::<3>().0.iter().zip(weights) {
            for (sum, &p) in sum.iter_mut().zip(pixel) {
                *sum += i32::from(p) * w;
            }
        }
        *out = sum.map(to_u8);
    }
}

/// Inlined where an instruction set is enabled, as [`blend`] is.
#[inline(always)]
pub(crate) fn across_gray(line: &[u8], taps: Taps, out: &mut [u8]) {
    let each = out.iter_mut().zip(taps.spans).zip(taps.weights.chunks_exact(taps.reach));
    for ((out, &(first, len)), weights) in each {
        let products = line[first..][..len].iter().zip(weights).map(|(&p, &w)| i32::from(p) * w);
        *out = to_u8(HALF + products.sum::<i32>());
    }
}

#[inline(always)]
pub(crate) fn blend(ring: &[u8], slot: usize, weights: &[i32], out: &mut [u8]) {
    const LANES: usize = 32;
    let row_len = out.len();
    let slots = ring.len() / row_len;
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let rest_at = blocks.len() * LANES;
    for (block, out) in blocks.iter_mut().enumerate() {
        let mut sum = [HALF; LANES];
        let mut slot = slot;
        for &w in weights {
            let at = slot * row_len + block * LANES;
            let row = &ring[at..at + LANES];
            for (sum, &p) in sum.iter_mut().zip(row) {
                *sum += i32::from(p) * w;
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        *out = sum.map(to_u8);
    }
    for (x, out) in rest.iter_mut().enumerate() {
        let mut sum = HALF;
        let mut slot = slot;
        for &w in weights {
            sum += i32::from(ring[slot * row_len + rest_at + x]) * w;
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
        *out = to_u8(sum);
    }
}

#[inline(always)]
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| ((i + seed) * 7919 % 257) as u8).collect()
    }

    /// Weights of which `reach` stay inside 32 bits.
    fn weights(len: usize, reach: usize) -> Vec<i32> {
        (0..len).map(|i| (((i + 3) * 7919 % 2003) as i32 * 2000 - 1_000_000) / reach as i32).collect()
    }

    #[test]
    fn by_hand() {
        // 1/4·8 + 3/4·16 = 14; 3/2·200 − 1/2·16 = 292, clamped.
        let taps = Taps {
            spans: &[(0, 2), (1, 2)],
            weights: &[ONE / 4, ONE / 4 * 3, 0, 0, -ONE / 2, ONE / 2 * 3, 0, 0],
            reach: STEP,
        };
        for isa in Isa::available() {
            let mut gray = [0; 2];
            across::<1>(isa, &[8, 16, 200], taps, &mut gray);
            assert_eq!(gray, [14, 255]);
            let mut rgb = [0; 6];
            let mut line = [99; 9 + SPARE];
            line[..9].copy_from_slice(&[8, 0, 255, 16, 4, 255, 200, 4, 255]);
            across::<3>(isa, &line, taps, &mut rgb);
            assert_eq!(rgb, [14, 3, 255, 255, 4, 255]);
            let mut rows = [0; 3];
            down(isa, &[16, 4, 0, 8, 0, 1], 3, 1, &[ONE / 4, ONE / 4 * 3], &mut rows);
            assert_eq!(rows, [14, 3, 0]);
        }
    }

    #[test]
    fn fast_equals_scalar() {
        for (inputs, reach, outputs) in [(1, 1, 1), (5, 3, 4), (40, 4, 70), (300, 54, 9), (64, 1, 64)] {
            let spans: Vec<(usize, usize)> = (0..outputs)
                .map(|x| {
                    let first = x * inputs / outputs;
                    (first, (inputs - first).min(reach - x % 2 * usize::from(reach > 1)))
                })
                .collect();
            let whole = reach.next_multiple_of(STEP);
            let mut weights = weights(outputs * whole, reach);
            for (weights, (_, len)) in weights.chunks_mut(whole).zip(&spans) {
                weights[*len..].fill(0);
            }
            let taps = Taps { spans: &spans, weights: &weights, reach: whole };
            let line = bytes(inputs * 3 + SPARE, reach);
            let all = |isa: Isa| {
                let (mut rgb, mut gray) = (vec![0; outputs * 3], vec![0; outputs]);
                across::<3>(isa, &line, taps, &mut rgb);
                across::<1>(isa, &line, taps, &mut gray);
                let mut blended = vec![0; inputs];
                let ring = bytes(inputs * reach, 3);
                down(isa, &ring, inputs, reach / 2, &weights[..reach], &mut blended);
                [rgb, gray, blended]
            };
            let expected = all(Isa::scalar());
            for isa in Isa::available() {
                assert_eq!(all(isa), expected, "{isa:?} {inputs} {reach} {outputs}");
            }
        }
    }
}
