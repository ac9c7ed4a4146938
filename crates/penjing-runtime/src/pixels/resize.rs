//! Pillow's 8-bit `Image.resize`, bit for bit, computing only what a window of the result needs.
//!
//! A separable filter widened by the reduction (so that shrinking does not alias), normalised in f64, rounded to
//! 22 fractional bits; first along rows, rounded to 8 bits, then along columns.

use alloc::{vec, vec::Vec};

use penjing_kernels::{
    Isa,
    resample::{self, ONE, SPARE, STEP},
};

use super::Filter;

/// A rectangle of a row-major RGB8 image; `rgb` starts at its top left pixel.
pub(super) struct Source<'a> {
    pub rgb: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    pub width: usize,
    pub height: usize,
}

/// What to make of a [`Source`]: the `width` × `height` window at (`left`, `top`) of its resized whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub scaled_width: usize,
    pub scaled_height: usize,
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

impl Window {
    /// All of a photo resized to `width` × `height`.
    pub fn whole(width: usize, height: usize) -> Self {
        Window { scaled_width: width, scaled_height: height, left: 0, top: 0, width, height }
    }
}

/// Resizes `source` and writes the window's rows, each `width * C` bytes, into the slices of `rows`, top to bottom.
/// `C` is 3 for RGB and 1 for luma, which is taken before resizing.
pub(super) fn resize<'o, const C: usize>(
    source: &Source,
    filter: Filter,
    window: Window,
    rows: impl Iterator<Item = &'o mut [u8]>,
) {
    let mut across = Taps::new(filter, source.width, window.scaled_width, window.left, window.width);
    let down = Taps::new(filter, source.height, window.scaled_height, window.top, window.height);
    let (left, right) = across.extent();
    // The line begins at the first column that is needed.
    across.spans.iter_mut().for_each(|(first, _)| *first -= left);
    let len = (right - left) * C;
    let mut line = vec![0u8; len + SPARE];
    let isa = Isa::detect();

    // Pillow 13 (no earlier one) goes down first where that axis shrinks by more than twice as many pixels; since the pass between
    // is rounded, the order shows in the result.
    let fewer_columns = source.width.saturating_sub(window.scaled_width);
    let down_first = source.height.saturating_sub(window.scaled_height) > fewer_columns.saturating_mul(2);

    // Rows are kept only while the filter still reaches them: row y stands in slot y % down.reach.
    let row_len = if down_first { len } else { window.width * C };
    let mut ring = vec![0u8; down.reach * row_len];
    let mut next = 0;
    for (y, out) in rows.take(window.height).enumerate() {
        let (first, weights) = down.of(y);
        let end = first + weights.len();
        for row in next.max(first)..end {
            let start = row * source.stride;
            let rgb = &source.rgb[start + left * 3..start + right * 3];
            let slot = &mut ring[row % down.reach * row_len..][..row_len];
            if down_first {
                load::<C>(rgb, slot);
            } else {
                load::<C>(rgb, &mut line[..len]);
                resample::across::<C>(isa, &line, across.view(), slot);
            }
        }
        next = end;
        if down_first {
            resample::down(isa, &ring, row_len, first % down.reach, weights, &mut line[..len]);
            resample::across::<C>(isa, &line, across.view(), out);
        } else {
            resample::down(isa, &ring, row_len, first % down.reach, weights, out);
        }
    }
}

/// RGB as it is, or its luma.
fn load<const C: usize>(rgb: &[u8], line: &mut [u8]) {
    if C == 1 {
        for (to, from) in line.iter_mut().zip(rgb.as_chunks().0) {
            *to = luma(*from);
        }
    } else {
        line.copy_from_slice(rgb);
    }
}

/// Pillow's `convert("L")` of one pixel.
pub(super) fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// The filter of one axis: for each output, where its inputs begin and their weights.
struct Taps {
    /// First input and number of inputs of each output.
    spans: Vec<(usize, usize)>,
    /// `reach` weights for each output.
    weights: Vec<i32>,
    /// The most inputs that an output has, up to whole steps.
    reach: usize,
}

impl Taps {
    /// Outputs `from..from + count` of an axis of `inputs` pixels resized to `outputs`.
    fn new(filter: Filter, inputs: usize, outputs: usize, from: usize, count: usize) -> Self {
        let scale = inputs as f64 / outputs as f64;
        let widening = scale.max(1.0);
        let support = filter.support() * widening;
        let inverse = 1.0 / widening;
        let span = |i: usize| {
            let center = (i as f64 + 0.5) * scale;
            // Float-to-integer casts cut towards zero and saturate, as the reference's cast and clamp do together.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(inputs);
            (center, first, end.saturating_sub(first))
        };
        let spans: Vec<_> = (from..from + count).map(&span).map(|(_, first, len)| (first, len)).collect();
        let reach = spans.iter().map(|s| s.1).max().unwrap_or(0).max(1).next_multiple_of(STEP);
        let mut weights = vec![0i32; count * reach];
        let mut exact = vec![0f64; reach];
        for (i, weights) in (from..).zip(weights.chunks_exact_mut(reach)) {
            let (center, first, len) = span(i);
            let exact = &mut exact[..len];
            let mut total = 0.0;
            for (x, e) in (first..).zip(exact.iter_mut()) {
                *e = filter.at((x as f64 - center + 0.5) * inverse);
                total += *e;
            }
            for (w, e) in weights.iter_mut().zip(exact) {
                let scaled = if total != 0.0 { *e / total } else { *e } * f64::from(ONE);
                *w = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
        }
        Taps { spans, weights, reach }
    }

    /// First input and weights of output `i`.
    fn of(&self, i: usize) -> (usize, &[i32]) {
        let (first, len) = self.spans[i];
        (first, &self.weights[i * self.reach..][..len])
    }

    fn view(&self) -> resample::Taps<'_> {
        resample::Taps { spans: &self.spans, weights: &self.weights, reach: self.reach }
    }

    /// The inputs needed by all outputs together, as first and end.
    fn extent(&self) -> (usize, usize) {
        let first = self.spans.first().map_or(0, |s| s.0);
        (first, self.spans.last().map_or(first, |s| s.0 + s.1))
    }
}

impl Filter {
    /// Half the width of the filter on an axis that is not shrunk, in pixels.
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    /// The filter's value at distance `x` from its centre. Bicubic is Keys' kernel with a = -1/2.
    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let d = x.abs();
        match self {
            // Half-open, so that an input on the border of two outputs counts once.
            Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Filter::Bilinear => (1.0 - d).max(0.0),
            Filter::Bicubic if d < 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
            Filter::Bicubic if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * A,
            Filter::Bicubic => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the sizes and the pixels, a sum of weighted pixels stays inside 32 bits.
    #[test]
    fn sums_cannot_overflow() {
        let sizes = (1..=24).chain([255, 1000, 65_535]);
        for filter in [Filter::Box, Filter::Bilinear, Filter::Bicubic] {
            for inputs in sizes.clone() {
                for outputs in sizes.clone() {
                    let count = outputs.min(100);
                    let taps = Taps::new(filter, inputs, outputs, 0, count);
                    for i in 0..count {
                        let (first, weights) = taps.of(i);
                        assert!(
                            !weights.is_empty() && first + weights.len() <= inputs,
                            "{filter:?} {inputs}→{outputs}"
                        );
                        let positive: i64 = weights.iter().map(|&w| i64::from(w.max(0))).sum();
                        let negative: i64 = weights.iter().map(|&w| i64::from(w.min(0))).sum();
                        assert!(255 * positive + i64::from(ONE / 2) <= i64::from(i32::MAX));
                        assert!(255 * negative >= i64::from(i32::MIN));
                        // Rounding of many tiny weights may lose a little, as it does in the reference.
                        let one = i64::from(ONE);
                        assert!(
                            (positive + negative - one).abs() <= weights.len() as i64,
                            "{filter:?} {inputs}→{outputs}"
                        );
                    }
                }
            }
        }
    }
}
