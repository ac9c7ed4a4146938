//! Pooling.

use core::ops::Range;

use crate::{Isa, Window, Workers, act::max as larger, arch, volume, workers::split_rows};

/// Maximum over the window; padding counts as −∞.
pub fn max(isa: Isa, workers: &dyn Workers, window: &Window, c: usize, x: &[f32], y: &mut [f32]) {
    run(isa, workers, window, c, Kind::Max, x, y);
}

/// Mean over the window, as PyTorch defines it: padding adds 0, and counts as a position only if `include_pad`. What lies
/// beyond the padding (under ceil rounding) never counts. A window without any counted position gives 0.
pub fn average(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    c: usize,
    include_pad: bool,
    x: &[f32],
    y: &mut [f32],
) {
    run(isa, workers, window, c, Kind::Average { include_pad }, x, y);
}

/// Mean over all pixels: x `[n,pixels,c]`, y `[n,c]`. Adds the pixels in ascending order, then multiplies by 1/pixels.
pub fn global_average(isa: Isa, n: usize, pixels: usize, c: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), volume(&[n, pixels, c]), "x is [n,pixels,c]");
    assert_eq!(y.len(), volume(&[n, c]), "y is [n,c]");
    if y.is_empty() {
        return;
    }
    if pixels == 0 {
        y.fill(0.0);
        return;
    }
    for (x, y) in x.chunks_exact(pixels * c).zip(y.chunks_exact_mut(c)) {
        arch::select!(isa, mean(x, y));
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Max,
    Average { include_pad: bool },
}

/// The arguments of a pooling, checked: all extents of y are at least 1.
pub(crate) struct Job<'a> {
    pub window: &'a Window,
    pub c: usize,
    pub kind: Kind,
    pub x: &'a [f32],
}

impl Job<'_> {
    /// By how many positions the sum at (oy, ox) is divided.
    pub(crate) fn positions(&self, oy: usize, ox: usize) -> f32 {
        let w = self.window;
        let Kind::Average { include_pad } = self.kind else { return 1.0 };
        let count = if include_pad {
            let along = |start: usize, kernel: usize, dilation: usize, end: usize| {
                (0..kernel).filter(|t| start + t * dilation < end).count()
            };
            along(oy * w.stride_h, w.kernel_h, w.dilation_h, w.pad_top + w.in_h + w.pad_bottom)
                * along(ox * w.stride_w, w.kernel_w, w.dilation_w, w.pad_left + w.in_w + w.pad_right)
        } else {
            w.rows(oy).len() * w.columns(ox).len()
        };
        count.max(1) as f32
    }

    /// What the reduction starts from.
    pub(crate) fn start(&self) -> f32 {
        if self.kind == Kind::Max { f32::NEG_INFINITY } else { 0.0 }
    }
}

fn run(isa: Isa, workers: &dyn Workers, window: &Window, c: usize, kind: Kind, x: &[f32], y: &mut [f32]) {
    window.check(c, x, c, y);
    if y.is_empty() {
        return;
    }
    let macs = y.len().saturating_mul(window.taps());
    let job = Job { window, c, kind, x };
    split_rows(workers, y, window.out_w * c, 1, macs, &|rows, y, _| {
        arch::select!(isa, pool(&job, rows, y));
    });
}

/// The reference: output rows `rows`, counted through the batch, into `y`.
pub(crate) fn pool(job: &Job, rows: Range<usize>, y: &mut [f32]) {
    let &Job { window, c, kind, x } = job;
    for (row, y) in rows.zip(y.chunks_exact_mut(window.out_w * c)) {
        let (image, oy) = (row / window.out_h, row % window.out_h);
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            y.fill(job.start());
            for ky in window.rows(oy) {
                for kx in window.columns(ox) {
                    let pixel =
                        (image * window.in_h + window.row(oy, ky)) * window.in_w + window.column(ox, kx);
                    for (y, &x) in y.iter_mut().zip(&x[pixel * c..]) {
                        *y = if kind == Kind::Max { larger(*y, x) } else { *y + x };
                    }
                }
            }
            if kind != Kind::Max {
                let positions = job.positions(oy, ox);
                y.iter_mut().for_each(|y| *y /= positions);
            }
        }
    }
}

/// The reference of the mean: x `[pixels][c]`, at least one pixel, y `[c]`.
pub(crate) fn mean(x: &[f32], y: &mut [f32]) {
    let c = y.len();
    y.fill(0.0);
    for x in x.chunks_exact(c) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
    let share = 1.0 / (x.len() / c) as f32;
    y.iter_mut().for_each(|y| *y *= share);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial,
        testing::{Team, noise, window},
    };
    use std::vec;

    #[test]
    fn by_hand() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        // 3x3 input, 2x2 window, stride 2, ceil rounding: the second row and column of windows run past the edge.
        let ceil = Window { out_h: 2, out_w: 2, ..window(1, 3, 3, 2, 2, 1, 0) };
        let padded = Window { out_h: 2, out_w: 2, ..window(1, 3, 3, 3, 2, 1, 1) };
        for isa in Isa::available() {
            let mut y = [0.0; 4];
            max(isa, &Serial, &ceil, 1, &x, &mut y);
            assert_eq!(y, [5.0, 6.0, 8.0, 9.0]);
            average(isa, &Serial, &ceil, 1, true, &x, &mut y);
            assert_eq!(y, [3.0, 4.5, 7.5, 9.0]);
            average(isa, &Serial, &padded, 1, true, &x, &mut y);
            assert_eq!(y, [12.0 / 9.0, 16.0 / 9.0, 24.0 / 9.0, 28.0 / 9.0]);
            average(isa, &Serial, &padded, 1, false, &x, &mut y);
            assert_eq!(y, [3.0, 4.0, 6.0, 7.0]);
            let mut mean = [0.0];
            global_average(isa, 1, 9, 1, &x, &mut mean);
            assert_eq!(mean, [5.0]);
        }
    }

    #[test]
    fn fast_equals_scalar() {
        for window in [
            window(2, 7, 9, 3, 2, 1, 1),
            window(1, 8, 8, 2, 2, 1, 0),
            window(1, 9, 9, 3, 1, 2, 2),
            window(1, 30, 30, 3, 2, 1, 1),
            Window { out_h: 4, out_w: 4, ..window(1, 6, 6, 3, 2, 1, 0) },
        ] {
            for c in [1, 7, 16, 37, 130] {
                let x = noise(window.n * window.in_h * window.in_w * c, 5);
                for kind in
                    [Kind::Max, Kind::Average { include_pad: true }, Kind::Average { include_pad: false }]
                {
                    let mut expected = vec![0.0; window.out_pixels() * c];
                    run(Isa::scalar(), &Serial, &window, c, kind, &x, &mut expected);
                    for isa in Isa::available() {
                        for workers in [&Serial as &dyn Workers, &Team(3)] {
                            let mut y = vec![f32::NAN; expected.len()];
                            run(isa, workers, &window, c, kind, &x, &mut y);
                            assert!(y == expected, "{isa:?} {c} {window:?}");
                        }
                    }
                }
                let pixels = window.in_h * window.in_w;
                let mut expected = vec![0.0; window.n * c];
                global_average(Isa::scalar(), window.n, pixels, c, &x, &mut expected);
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; expected.len()];
                    global_average(isa, window.n, pixels, c, &x, &mut y);
                    assert!(y == expected, "{isa:?} {c}");
                }
            }
        }
    }
}
