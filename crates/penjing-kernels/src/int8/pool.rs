//! Pooling. Input and result of [`max`] and [`average`] have one scale and zero point.

use core::ops::Range;

use super::{Channel, Limits};
use crate::{Isa, Window, Workers, arch, pool::with_padding, volume, workers::split_rows};

/// Maximum over the window; padding never wins. A window without any position in the input gives 0.
pub fn max(isa: Isa, workers: &dyn Workers, window: &Window, c: usize, x: &[u8], y: &mut [u8]) {
    run(isa, workers, window, c, Kind::Max, x, y);
}

/// Mean over the window, rounded once, halves up. Padding counts as `zero_point` if `include_pad`, else not at all. What lies
/// beyond the padding (under ceil rounding) never counts. A window without any counted position gives the zero point.
pub fn average(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    c: usize,
    zero_point: u8,
    include_pad: bool,
    x: &[u8],
    y: &mut [u8],
) {
    run(isa, workers, window, c, Kind::Average { zero_point, include_pad }, x, y);
}

/// The byte of the sum over all pixels, at most 2²³: x `[n,pixels,c]`, y `[n,c]`. The channel's ratio is sx / sy / pixels,
/// its constant −pixels · zx.
pub fn global_average(
    isa: Isa,
    n: usize,
    pixels: usize,
    c: usize,
    channel: Channel,
    limits: Limits,
    x: &[u8],
    y: &mut [u8],
) {
    assert!(pixels <= 1 << 23, "sums of {pixels} pixels may leave 32 bits");
    assert_eq!(x.len(), volume(&[n, pixels, c]), "x is [n,pixels,c]");
    assert_eq!(y.len(), volume(&[n, c]), "y is [n,c]");
    if y.is_empty() {
        return;
    }
    for (image, y) in y.chunks_exact_mut(c).enumerate() {
        let x = &x[image * pixels * c..(image + 1) * pixels * c];
        arch::select_int8!(isa, mean(channel, limits, x, y));
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Max,
    Average { zero_point: u8, include_pad: bool },
}

/// The arguments of a pooling, checked: all extents of y are at least 1.
pub(crate) struct Job<'a> {
    pub window: &'a Window,
    pub c: usize,
    pub kind: Kind,
    pub x: &'a [u8],
}

fn run(isa: Isa, workers: &dyn Workers, window: &Window, c: usize, kind: Kind, x: &[u8], y: &mut [u8]) {
    window.check(c, x, c, y);
    assert!(window.taps() <= 1 << 20, "too large a window");
    if y.is_empty() {
        return;
    }
    let macs = y.len().saturating_mul(window.taps()) / 4;
    let job = Job { window, c, kind, x };
    split_rows(workers, y, window.out_w * c, 1, macs, &|rows, y, _| {
        arch::select_int8!(isa, pool(&job, rows, y));
    });
}

/// Channels at a time.
const BLOCK: usize = 64;

/// The reference: output rows `rows`, counted through the batch, into `y`.
#[inline(always)]
pub(crate) fn pool(job: &Job, rows: Range<usize>, y: &mut [u8]) {
    let &Job { window, c, kind, x } = job;
    for (row, y) in rows.zip(y.chunks_exact_mut(window.out_w * c)) {
        let (image, oy) = (row / window.out_h, row % window.out_h);
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            let taps = window.rows(oy).flat_map(|ky| {
                let line = (image * window.in_h + window.row(oy, ky)) * window.in_w;
                window.columns(ox).map(move |kx| &x[(line + window.column(ox, kx)) * c..][..c])
            });
            match kind {
                Kind::Max => {
                    y.fill(0);
                    for x in taps {
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y = x.max(*y);
                        }
                    }
                }
                Kind::Average { zero_point, include_pad } => {
                    let inside = (window.rows(oy).len() * window.columns(ox).len()) as u32;
                    let count = if include_pad { with_padding(window, oy, ox) as u32 } else { inside };
                    if count == 0 {
                        y.fill(zero_point);
                        continue;
                    }
                    for (block, y) in y.chunks_mut(BLOCK).enumerate() {
                        let mut sums = [(count - inside) * u32::from(zero_point); BLOCK];
                        for x in taps.clone() {
                            for (sum, &x) in sums.iter_mut().zip(&x[block * BLOCK..][..y.len()]) {
                                *sum += u32::from(x);
                            }
                        }
                        for (y, sum) in y.iter_mut().zip(sums) {
                            *y = ((2 * sum + count) / (2 * count)) as u8;
                        }
                    }
                }
            }
        }
    }
}

/// The reference of the mean: x `[pixels][c]`, y `[c]`.
#[inline(always)]
pub(crate) fn mean(channel: Channel, limits: Limits, x: &[u8], y: &mut [u8]) {
    let c = y.len();
    let (blocks, rest) = y.as_chunks_mut::<BLOCK>();
    let first = blocks.len() * BLOCK;
    for (block, y) in blocks.iter_mut().enumerate() {
        let mut sums = [0u32; BLOCK];
        for x in x.chunks_exact(c) {
            for (sum, &x) in sums.iter_mut().zip(&x[block * BLOCK..(block + 1) * BLOCK]) {
                *sum += u32::from(x);
            }
        }
        *y = sums.map(|sum| channel.apply(sum as i32, limits));
    }
    for (i, y) in rest.iter_mut().enumerate() {
        let sum: u32 = x.chunks_exact(c).map(|x| u32::from(x[first + i])).sum();
        *y = channel.apply(sum as i32, limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial,
        int8::testing::{LIMITS, bytes},
        testing::{Team, window},
    };
    use std::{vec, vec::Vec};

    #[test]
    fn by_hand() {
        let x = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        // 3x3 input, 2x2 window, stride 2, ceil rounding: the second row and column of windows run past the edge.
        let ceil = Window { out_h: 2, out_w: 2, ..window(1, 3, 3, 2, 2, 1, 0) };
        let padded = Window { out_h: 2, out_w: 2, ..window(1, 3, 3, 3, 2, 1, 1) };
        for isa in Isa::available() {
            let mut y = [0; 4];
            max(isa, &Serial, &ceil, 1, &x, &mut y);
            assert_eq!(y, [5, 6, 8, 9]);
            average(isa, &Serial, &ceil, 1, 0, true, &x, &mut y);
            assert_eq!(y, [3, 5, 8, 9]);
            // Five positions of padding, each 20, about 12, 16, 24, and 28.
            average(isa, &Serial, &padded, 1, 20, true, &x, &mut y);
            assert_eq!(y, [112.0f32, 116.0, 124.0, 128.0].map(|sum| (sum / 9.0).round() as u8));
            average(isa, &Serial, &padded, 1, 20, false, &x, &mut y);
            assert_eq!(y, [3, 4, 6, 7]);
            let mut mean = [0];
            // The mean, three times as fine, about 100.
            let channel = Channel::new(3.0 / 9.0, -9 * 4, 100).unwrap();
            global_average(isa, 1, 9, 1, channel, Limits::NONE, &x, &mut mean);
            assert_eq!(mean, [103]);
            // A window that sees nothing.
            let beyond = window(1, 1, 1, 1, 1, 1, 1);
            let mut y = [9; 9];
            average(isa, &Serial, &beyond, 1, 20, false, &[7], &mut y);
            assert_eq!(y, [20, 20, 20, 20, 7, 20, 20, 20, 20]);
        }
    }

    #[test]
    fn every_isa_equals_the_definition() {
        for (i, window) in [
            window(2, 7, 9, 3, 2, 1, 1),
            window(1, 8, 8, 2, 2, 1, 0),
            window(1, 9, 9, 3, 1, 2, 2),
            window(1, 30, 30, 3, 2, 1, 1),
            Window { out_h: 4, out_w: 4, ..window(1, 6, 6, 3, 2, 1, 0) },
        ]
        .into_iter()
        .enumerate()
        {
            for c in [1, 7, 16, 37, 130] {
                let x = bytes(window.n * window.in_h * window.in_w * c, 5);
                let zero_point = 40 * i as u8;
                for kind in [
                    Kind::Max,
                    Kind::Average { zero_point, include_pad: true },
                    Kind::Average { zero_point, include_pad: false },
                ] {
                    let value = |at: usize| {
                        let (pixel, channel) = (at / c, at % c);
                        let (row, ox) = (pixel / window.out_w, pixel % window.out_w);
                        let (image, oy) = (row / window.out_h, row % window.out_h);
                        let mut seen = vec![];
                        for (ky, kx) in
                            window.rows(oy).flat_map(|ky| window.columns(ox).map(move |kx| (ky, kx)))
                        {
                            let line = (image * window.in_h + window.row(oy, ky)) * window.in_w;
                            seen.push(x[(line + window.column(ox, kx)) * c + channel]);
                        }
                        match kind {
                            Kind::Max => seen.iter().copied().max().unwrap_or(0),
                            Kind::Average { include_pad, .. } => {
                                if include_pad {
                                    seen.resize(with_padding(&window, oy, ox), zero_point);
                                }
                                let sum: f64 = seen.iter().map(|&x| f64::from(x)).sum();
                                if seen.is_empty() {
                                    zero_point
                                } else {
                                    (sum / seen.len() as f64 + 0.5) as u8
                                }
                            }
                        }
                    };
                    let expected: Vec<u8> = (0..window.out_pixels() * c).map(value).collect();
                    for isa in Isa::available() {
                        for workers in [&Serial as &dyn Workers, &Team(3)] {
                            let mut y = vec![99; expected.len()];
                            run(isa, workers, &window, c, kind, &x, &mut y);
                            assert!(y == expected, "{isa:?} {c} {window:?}");
                        }
                    }
                }
                let (pixels, limits) = (window.in_h * window.in_w, LIMITS[i % LIMITS.len()]);
                let channel = Channel::new(0.4 / pixels as f64, 5, 10).unwrap();
                let value = |at: usize| {
                    let pixels = (0..pixels).map(|p| i32::from(x[(at / c * pixels + p) * c + at % c]));
                    channel.apply(pixels.sum(), limits)
                };
                let expected: Vec<u8> = (0..window.n * c).map(value).collect();
                for isa in Isa::available() {
                    let mut y = vec![99; expected.len()];
                    global_average(isa, window.n, pixels, c, channel, limits, &x, &mut y);
                    assert!(y == expected, "{isa:?} {c}");
                }
            }
        }
    }
}
