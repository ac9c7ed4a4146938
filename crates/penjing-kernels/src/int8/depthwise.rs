//! Depthwise convolution: every channel has its own kernel.

use core::ops::Range;

use super::{Channel, Limits, MAX_K, check_weights, long, pointwise::MACS, quad, unquad, words};
use crate::{Isa, Window, Workers, arch, volume, workers::split_rows};

/// Length of packed weights in words: `[c]` multipliers, `[c]` offsets of two words, then `[taps][c]` weights, four in a word.
pub fn packed_len(c: usize, taps: usize) -> usize {
    let channels = volume(&[3, c]);
    channels.checked_add(volume(&[c, taps]).div_ceil(4)).expect("packed weights overflow usize")
}

/// Packs `weights` `[c][taps]` and `channels` `[c]` for [`run`]. The layout is the same for every instruction set.
pub fn pack(c: usize, taps: usize, weights: &[i8], channels: &[Channel], packed: &mut [i32]) {
    assert!(taps <= MAX_K, "sums of {taps} products may leave 32 bits");
    assert_eq!(weights.len(), volume(&[c, taps]), "weights are [c][taps]");
    assert_eq!(channels.len(), c, "channels are [c]");
    assert_eq!(packed.len(), packed_len(c, taps), "packed_len(c, taps)");
    check_weights(weights);
    let (multipliers, rest) = packed.split_at_mut(c);
    let (offsets, quads) = rest.split_at_mut(2 * c);
    for ((channel, multiplier), offset) in
        channels.iter().zip(multipliers).zip(offsets.as_chunks_mut::<2>().0)
    {
        (*multiplier, *offset) = (channel.multiplier, words(channel.offset));
    }
    for (word, to) in quads.iter_mut().enumerate() {
        let weight = |at: usize| if at < c * taps { weights[at % c * taps + at / c] } else { 0 };
        *to = quad([0, 1, 2, 3].map(|i| weight(4 * word + i)));
    }
}

/// y\[n,oy,ox,c\] = the byte of Σ x\[n,iy,ix,c\]·w\[c\]\[ky,kx\], x being `zero_point` outside the input, with `packed` from
/// [`pack`].
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    c: usize,
    zero_point: u8,
    limits: Limits,
    x: &[u8],
    packed: &[i32],
    y: &mut [u8],
) {
    window.check(c, x, c, y);
    assert_eq!(packed.len(), packed_len(c, window.taps()), "packed_len(c, taps)");
    if y.is_empty() {
        return;
    }
    let macs = y.len().saturating_mul(window.taps()) / MACS;
    let job = Job { window, c, zero_point, limits, x, packed };
    // Pairs of rows share their input.
    split_rows(workers, y, window.out_w * c, 2, macs, &|rows, y, _| {
        arch::select_int8!(isa, convolve(&job, rows, y));
    });
}

/// The arguments of [`run`], checked: all extents of y and the number of taps are at least 1.
pub(crate) struct Job<'a> {
    pub window: &'a Window,
    pub c: usize,
    pub zero_point: u8,
    pub limits: Limits,
    pub x: &'a [u8],
    pub packed: &'a [i32],
}

/// The reference: output rows `rows`, counted through the batch, into `y`.
pub(crate) fn convolve(job: &Job, rows: Range<usize>, y: &mut [u8]) {
    /// Channels at a time.
    const BLOCK: usize = 64;
    let &Job { window, c, zero_point, limits, x, packed } = job;
    let (multipliers, rest) = packed.split_at(c);
    let (offsets, quads) = rest.split_at(2 * c);
    for (row, y) in rows.zip(y.chunks_exact_mut(window.out_w * c)) {
        let (image, oy) = (row / window.out_h, row % window.out_h);
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            let (rows, columns) = (window.rows(oy), window.columns(ox));
            for (block, y) in y.chunks_mut(BLOCK).enumerate() {
                let first = block * BLOCK;
                let mut sums = [0i32; BLOCK];
                for tap in 0..window.taps() {
                    let (ky, kx) = (tap / window.kernel_w, tap % window.kernel_w);
                    let inside = rows.contains(&ky) && columns.contains(&kx);
                    let pixel = if inside {
                        (image * window.in_h + window.row(oy, ky)) * window.in_w + window.column(ox, kx)
                    } else {
                        0
                    };
                    for (channel, sum) in (first..first + y.len()).zip(&mut sums) {
                        let at = tap * c + channel;
                        let x = if inside { x[pixel * c + channel] } else { zero_point };
                        *sum += i32::from(x) * i32::from(unquad(quads[at / 4])[at % 4]);
                    }
                }
                for (channel, (y, &sum)) in (first..first + y.len()).zip(y.iter_mut().zip(&sums)) {
                    let offset = long([offsets[2 * channel], offsets[2 * channel + 1]]);
                    *y = Channel { multiplier: multipliers[channel], offset }.apply(sum, limits);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial,
        int8::testing::{LIMITS, bytes, channels, extremes, weights},
        testing::{Team, window},
    };
    use std::{vec, vec::Vec};

    fn by_definition(
        w: &Window,
        c: usize,
        zero_point: u8,
        limits: Limits,
        x: &[u8],
        weights: &[i8],
        channels: &[Channel],
    ) -> Vec<u8> {
        let mut y = vec![];
        for pixel in 0..w.out_pixels() {
            let (row, ox) = (pixel / w.out_w, pixel % w.out_w);
            let (image, oy) = (row / w.out_h, row % w.out_h);
            for channel in 0..c {
                let mut sum = 0;
                for tap in 0..w.taps() {
                    let iy = (oy * w.stride_h + tap / w.kernel_w * w.dilation_h).wrapping_sub(w.pad_top);
                    let ix = (ox * w.stride_w + tap % w.kernel_w * w.dilation_w).wrapping_sub(w.pad_left);
                    let value = if iy < w.in_h && ix < w.in_w {
                        x[((image * w.in_h + iy) * w.in_w + ix) * c + channel]
                    } else {
                        zero_point
                    };
                    sum += i32::from(value) * i32::from(weights[channel * w.taps() + tap]);
                }
                y.push(channels[channel].apply(sum, limits));
            }
        }
        y
    }

    fn windows() -> Vec<Window> {
        let mut windows = vec![
            window(1, 1, 1, 3, 1, 1, 1),
            window(2, 2, 2, 5, 1, 1, 4),
            window(1, 3, 4, 3, 1, 1, 0),
            window(1, 9, 9, 3, 1, 2, 2),
            window(1, 20, 30, 1, 1, 1, 0),
            window(1, 9, 9, 7, 1, 1, 3),
            window(1, 8, 9, 7, 2, 1, 3),
            window(1, 9, 9, 4, 1, 1, 2),
            // A padding that only one side has.
            Window { pad_top: 0, pad_left: 0, ..window(1, 16, 16, 3, 2, 1, 1) },
            Window { kernel_h: 1, pad_top: 0, pad_bottom: 0, out_h: 6, ..window(1, 6, 9, 3, 1, 1, 1) },
            Window { stride_w: 1, out_w: 9, ..window(1, 9, 9, 3, 2, 1, 1) },
        ];
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            for size in [5, 6, 13] {
                windows.push(window(2, size, size + 1, kernel, stride, 1, kernel / 2));
            }
        }
        windows
    }

    #[test]
    fn every_isa_equals_the_definition() {
        for (i, window) in windows().into_iter().enumerate() {
            for c in [1, 7, 16, 24, 33, 64, 96, 144] {
                let taps = window.taps();
                let (zero_point, limits) = ((i * 50 + 3) as u8, LIMITS[i % LIMITS.len()]);
                let x = bytes(window.n * window.in_h * window.in_w * c, 1);
                let (w, channels) = (weights(c * taps, 2), channels(c, taps, 3));
                let expected = by_definition(&window, c, zero_point, limits, &x, &w, &channels);
                let mut packed = vec![-1; packed_len(c, taps)];
                pack(c, taps, &w, &channels, &mut packed);
                for isa in Isa::available() {
                    for workers in [&Serial as &dyn Workers, &Team(3)] {
                        let mut y = vec![99; expected.len()];
                        run(isa, workers, &window, c, zero_point, limits, &x, &packed, &mut y);
                        assert!(y == expected, "{isa:?} {c} {window:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn extremes_do_not_saturate() {
        let (window, c) = (window(1, 6, 6, 5, 1, 1, 2), 40);
        let taps = window.taps();
        for (x, w) in extremes(36 * c, c * taps) {
            // Steps of 3000 up to 25·255·127.
            let channels = vec![Channel::new(1.0 / 6500.0, 0, 128).unwrap(); c];
            let expected = by_definition(&window, c, 255, Limits::NONE, &x, &w, &channels);
            let mut packed = vec![0; packed_len(c, taps)];
            pack(c, taps, &w, &channels, &mut packed);
            for isa in Isa::available() {
                let mut y = vec![0; expected.len()];
                run(isa, &Serial, &window, c, 255, Limits::NONE, &x, &packed, &mut y);
                assert!(y == expected, "{isa:?}");
            }
        }
    }
}
