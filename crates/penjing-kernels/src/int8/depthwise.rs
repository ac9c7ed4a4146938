//! Depthwise convolution: every channel has its own kernel.

use core::ops::Range;

use super::{
    Channel, HEAD, Limits, MAX_K, PANEL, check_weights, pointwise::MACS, quad, read_head, unquad, write_head,
};
use crate::{Isa, Window, Workers, volume, workers::split_rows};

/// Channels of a block of packed weights.
pub(crate) const BLOCK: usize = 64;

/// Length of packed weights in words: per block of 64 channels what belongs to each of them, then `[taps][64]` weights, four
/// in a word.
pub fn packed_len(c: usize, taps: usize) -> usize {
    volume(&[c.div_ceil(BLOCK), block_len(taps)])
}

pub(crate) const fn block_len(taps: usize) -> usize {
    // `taps` that wrap here have failed in `packed_len`'s caller: no slice is that long.
    (BLOCK / PANEL * HEAD).wrapping_add(taps.wrapping_mul(BLOCK / 4))
}

/// Which panel of a block's head has channel `channel` of the block, and at which lane: vectors of any width that interleave
/// the bytes of several rows twice, within 16 bytes, find their channels side by side.
pub(crate) const fn place(channel: usize) -> (usize, usize) {
    (channel % 16 / 4, channel / 16 * 4 + channel % 4)
}

/// Packs `weights` `[c][taps]` and `channels` `[c]` for [`run`]. The layout is the same for every instruction set.
pub fn pack(c: usize, taps: usize, weights: &[i8], channels: &[Channel], packed: &mut [i32]) {
    assert!(taps <= MAX_K, "sums of {taps} products may leave 32 bits");
    assert_eq!(weights.len(), volume(&[c, taps]), "weights are [c][taps]");
    assert_eq!(channels.len(), c, "channels are [c]");
    assert_eq!(packed.len(), packed_len(c, taps), "packed_len(c, taps)");
    check_weights(weights);
    packed.fill(0);
    for (block, packed) in packed.chunks_exact_mut(block_len(taps)).enumerate() {
        let (heads, words) = packed.split_at_mut(BLOCK / PANEL * HEAD);
        for (channel, at) in (block * BLOCK..c.min((block + 1) * BLOCK)).enumerate() {
            let weights = &weights[at * taps..(at + 1) * taps];
            let (panel, lane) = place(channel);
            let sum = weights.iter().map(|&w| i32::from(w)).sum();
            write_head(&mut heads[panel * HEAD..], lane, channels[at], sum);
            for (words, &w) in words.chunks_exact_mut(BLOCK / 4).zip(weights) {
                let mut four = unquad(words[channel / 4]);
                four[channel % 4] = w;
                words[channel / 4] = quad(four);
            }
        }
    }
}

/// y\[n,oy,ox,c\] = the byte of Σ x\[n,iy,ix,c\]·w\[c\]\[ky,kx\], x being `zero_point` outside the input, with `packed` from
/// [`pack`].
pub fn run(
    _: Isa,
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
        convolve_int8(&job, rows, y);
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
pub(crate) fn convolve_int8(job: &Job, rows: Range<usize>, y: &mut [u8]) {
    let &Job { window, c, zero_point, limits, x, packed } = job;
    let len = block_len(window.taps());
    for (row, y) in rows.zip(y.chunks_exact_mut(window.out_w * c)) {
        let (image, oy) = (row / window.out_h, row % window.out_h);
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            let (rows, columns) = (window.rows(oy), window.columns(ox));
            for (block, (y, packed)) in y.chunks_mut(BLOCK).zip(packed.chunks_exact(len)).enumerate() {
                let (heads, words) = packed.split_at(BLOCK / PANEL * HEAD);
                let mut sums = [0i32; BLOCK];
                for (tap, words) in words.chunks_exact(BLOCK / 4).enumerate() {
                    let (ky, kx) = (tap / window.kernel_w, tap % window.kernel_w);
                    let mut values = [zero_point; BLOCK];
                    if rows.contains(&ky) && columns.contains(&kx) {
                        let line = (image * window.in_h + window.row(oy, ky)) * window.in_w;
                        let from = (line + window.column(ox, kx)) * c + block * BLOCK;
                        values[..y.len()].copy_from_slice(&x[from..from + y.len()]);
                    }
                    let weights = words.iter().flat_map(|&word| unquad(word));
                    for ((sum, &x), w) in sums.iter_mut().zip(&values).zip(weights) {
                        *sum += i32::from(x) * i32::from(w);
                    }
                }
                for (channel, (y, &sum)) in y.iter_mut().zip(&sums).enumerate() {
                    let (panel, lane) = place(channel);
                    *y = read_head(&heads[panel * HEAD..], lane).apply(sum, limits);
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
