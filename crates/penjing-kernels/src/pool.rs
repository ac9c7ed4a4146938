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

/// dx = the gradient of [`max`]: each dy goes to the largest value of its window, of equals to the first in the order of the
/// window's rows. Overwrites dx; adds in the order of dy.
pub fn max_gradient(window: &Window, c: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    /// Channels at a time.
    const BLOCK: usize = 16;
    window.check(c, x, c, dy);
    assert_eq!(dx.len(), x.len());
    dx.fill(0.0);
    if c == 0 {
        return;
    }
    for (output, dy) in dy.chunks_exact(c).enumerate() {
        for (block, dy) in dy.chunks(BLOCK).enumerate() {
            let places = taps(window, output).map(|pixel| {
                let from = pixel * c + block * BLOCK;
                from..from + dy.len()
            });
            let mut largest = [f32::NEG_INFINITY; BLOCK];
            for place in places.clone() {
                for (largest, &x) in largest.iter_mut().zip(&x[place]) {
                    *largest = larger(*largest, x);
                }
            }
            let mut left = [0.0; BLOCK];
            left[..dy.len()].copy_from_slice(dy);
            for place in places {
                let values = x[place.clone()].iter().zip(&largest);
                for ((dx, left), (&x, &largest)) in dx[place].iter_mut().zip(&mut left).zip(values) {
                    let share = if x == largest { *left } else { 0.0 };
                    *dx += share;
                    *left -= share;
                }
            }
        }
    }
}

/// dx = the gradient of [`average`]: each dy, divided as there, goes to all values of its window. Overwrites dx; adds in the
/// order of dy.
pub fn average_gradient(window: &Window, c: usize, include_pad: bool, dy: &[f32], dx: &mut [f32]) {
    window.check(c, dx, c, dy);
    dx.fill(0.0);
    if c == 0 {
        return;
    }
    for (output, dy) in dy.chunks_exact(c).enumerate() {
        let (oy, ox) = (output / window.out_w % window.out_h, output % window.out_w);
        let positions = Kind::Average { include_pad }.positions(window, oy, ox);
        for pixel in taps(window, output) {
            for (dx, &dy) in dx[pixel * c..].iter_mut().zip(dy) {
                *dx += dy / positions;
            }
        }
    }
}

/// dx\[n,pixel,c\] = dy\[n,c\] / pixels: the gradient of [`global_average`], with its factor. Overwrites dx.
pub fn global_average_gradient(n: usize, pixels: usize, c: usize, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dx.len(), volume(&[n, pixels, c]), "dx is [n,pixels,c]");
    assert_eq!(dy.len(), volume(&[n, c]), "dy is [n,c]");
    if dx.is_empty() {
        return;
    }
    let share = 1.0 / pixels as f32;
    for (dy, dx) in dy.chunks_exact(c).zip(dx.chunks_exact_mut(pixels * c)) {
        for dx in dx.chunks_exact_mut(c) {
            for (dx, &dy) in dx.iter_mut().zip(dy) {
                *dx = dy * share;
            }
        }
    }
}

/// The input pixels that output pixel `output` sees, both counted through the batch, row by row of the window.
fn taps(w: &Window, output: usize) -> impl Iterator<Item = usize> + Clone {
    let (row, ox) = (output / w.out_w, output % w.out_w);
    let (image, oy) = (row / w.out_h, row % w.out_h);
    w.rows(oy).flat_map(move |ky| {
        let row = (image * w.in_h + w.row(oy, ky)) * w.in_w;
        w.columns(ox).map(move |kx| row + w.column(ox, kx))
    })
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Max,
    Average { include_pad: bool },
}

impl Kind {
    /// By how many positions the sum at (oy, ox) is divided.
    pub(crate) fn positions(self, w: &Window, oy: usize, ox: usize) -> f32 {
        let Kind::Average { include_pad } = self else { return 1.0 };
        let count =
            if include_pad { with_padding(w, oy, ox) } else { w.rows(oy).len() * w.columns(ox).len() };
        count.max(1) as f32
    }

    /// What the reduction starts from.
    pub(crate) fn start(self) -> f32 {
        if self == Kind::Max { f32::NEG_INFINITY } else { 0.0 }
    }
}

/// How many positions of the window at (oy, ox) lie in the input or in its padding.
pub(crate) fn with_padding(w: &Window, oy: usize, ox: usize) -> usize {
    let along = |start: usize, kernel: usize, dilation: usize, end: usize| {
        (0..kernel).filter(|t| start + t * dilation < end).count()
    };
    along(oy * w.stride_h, w.kernel_h, w.dilation_h, w.pad_top + w.in_h + w.pad_bottom)
        * along(ox * w.stride_w, w.kernel_w, w.dilation_w, w.pad_left + w.in_w + w.pad_right)
}

/// The arguments of a pooling, checked: all extents of y are at least 1.
pub(crate) struct Job<'a> {
    pub window: &'a Window,
    pub c: usize,
    pub kind: Kind,
    pub x: &'a [f32],
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
            y.fill(kind.start());
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
                let positions = kind.positions(window, oy, ox);
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
        testing::{SPECIAL, Team, alike, noise, window},
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
    fn gradients_by_hand() {
        let ceil = Window { out_h: 2, out_w: 2, ..window(1, 3, 3, 2, 2, 1, 0) };
        let over = window(1, 3, 3, 2, 1, 1, 0);
        let dy = [1.0, 2.0, 4.0, 8.0];
        let mut dx = [f32::NAN; 9];
        let equal = [5.0; 9];
        max_gradient(&over, 1, &equal, &dy, &mut dx);
        assert_eq!(dx, [1.0, 2.0, 0.0, 4.0, 8.0, 0.0, 0.0, 0.0, 0.0]);
        let peak = [0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0];
        max_gradient(&over, 1, &peak, &dy, &mut dx);
        assert_eq!(dx, [0.0, 0.0, 0.0, 0.0, 15.0, 0.0, 0.0, 0.0, 0.0]);
        max_gradient(&ceil, 1, &peak, &dy, &mut dx);
        assert_eq!(dx, [0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 4.0, 0.0, 8.0]);
        average_gradient(&ceil, 1, true, &dy, &mut dx);
        assert_eq!(dx, [0.25, 0.25, 1.0, 0.25, 0.25, 1.0, 2.0, 2.0, 8.0]);
        let padded = window(1, 2, 2, 3, 2, 1, 1);
        average_gradient(&padded, 1, true, &[9.0], &mut dx[..4]);
        assert_eq!(dx[..4], [1.0; 4]);
        average_gradient(&padded, 1, false, &[9.0], &mut dx[..4]);
        assert_eq!(dx[..4], [2.25; 4]);
        let mut dx = [f32::NAN; 8];
        global_average_gradient(2, 2, 2, &dy, &mut dx);
        assert_eq!(dx, [0.5, 1.0, 0.5, 1.0, 2.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn gradients_equal_differences() {
        for window in [
            window(2, 7, 9, 3, 2, 1, 1),
            window(1, 9, 9, 3, 1, 2, 2),
            Window { out_h: 4, out_w: 4, ..window(1, 6, 6, 3, 2, 1, 0) },
        ] {
            for c in [1, 20] {
                let x = noise(window.n * window.in_h * window.in_w * c, 5);
                let dy = noise(window.out_pixels() * c, 6);
                for kind in
                    [Kind::Max, Kind::Average { include_pad: true }, Kind::Average { include_pad: false }]
                {
                    let mut dx = vec![f32::NAN; x.len()];
                    match kind {
                        Kind::Max => max_gradient(&window, c, &x, &dy, &mut dx),
                        Kind::Average { include_pad } => {
                            average_gradient(&window, c, include_pad, &dy, &mut dx)
                        }
                    }
                    let mut before = vec![0.0; dy.len()];
                    run(Isa::detect(), &Serial, &window, c, kind, &x, &mut before);
                    // Small enough that no maximum moves to another value.
                    const H: f32 = 1e-4;
                    for i in (0..x.len()).step_by(7) {
                        let (mut x, mut after) = (x.clone(), vec![0.0; dy.len()]);
                        x[i] += H;
                        run(Isa::detect(), &Serial, &window, c, kind, &x, &mut after);
                        // A window that sees nothing stays −∞.
                        let changes = after.iter().zip(&before).zip(&dy).filter(|((a, b), _)| a != b);
                        let change: f32 = changes.map(|((after, before), dy)| (after - before) * dy).sum();
                        assert!((change / H - dx[i]).abs() < 0.05, "{i}: {} {window:?}", dx[i]);
                    }
                }
            }
        }
    }

    #[test]
    fn fast_maximum_equals_scalar_for_special_numbers() {
        // Every pair of them, one above the other.
        const C: usize = SPECIAL.len() * SPECIAL.len();
        let window = Window { in_w: 1, kernel_w: 1, ..window(1, 2, 2, 2, 1, 1, 0) };
        let x: vec::Vec<f32> =
            (0..2 * C).map(|i| SPECIAL[if i < C { i / SPECIAL.len() } else { i % SPECIAL.len() }]).collect();
        let mut expected = [0.0; C];
        run(Isa::scalar(), &Serial, &window, C, Kind::Max, &x, &mut expected);
        for isa in Isa::available() {
            let mut y = [0.0; C];
            run(isa, &Serial, &window, C, Kind::Max, &x, &mut y);
            assert!(alike(&y, &expected), "{isa:?}");
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
