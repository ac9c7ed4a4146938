//! Depthwise convolution: every channel has its own kernel.

use core::ops::Range;

use crate::{Act, Isa, Window, Workers, arch, fma, volume, workers::split_rows};

/// Length of packed weights: `[c]` biases, then `[taps][c]` weights.
pub fn packed_len(c: usize, taps: usize) -> usize {
    volume(&[c, taps.checked_add(1).expect("taps overflow")])
}

/// Packs `weights` `[c][taps]` and `bias` `[c]` (none: zeros) for [`run`].
pub fn pack(c: usize, taps: usize, weights: &[f32], bias: Option<&[f32]>, packed: &mut [f32]) {
    assert_eq!(weights.len(), volume(&[c, taps]), "weights are [c][taps]");
    assert!(bias.is_none_or(|b| b.len() == c), "bias is [c]");
    assert_eq!(packed.len(), packed_len(c, taps), "packed_len(c, taps)");
    let (first, rest) = packed.split_at_mut(c);
    match bias {
        Some(bias) => first.copy_from_slice(bias),
        None => first.fill(0.0),
    }
    for channel in 0..c {
        for tap in 0..taps {
            rest[tap * c + channel] = weights[channel * taps + tap];
        }
    }
}

/// y\[n,oy,ox,c\] = act(bias\[c\] + Σ x\[n,iy,ix,c\]·w\[c\]\[ky,kx\]) over the taps inside the input, with `packed` from [`pack`].
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    c: usize,
    act: Act,
    x: &[f32],
    packed: &[f32],
    y: &mut [f32],
) {
    window.check(c, x, c, y);
    assert_eq!(packed.len(), packed_len(c, window.taps()), "packed_len(c, taps)");
    if y.is_empty() {
        return;
    }
    let macs = y.len().saturating_mul(window.taps());
    let job = Job { window, c, act, x, packed };
    // Pairs of rows share their input.
    split_rows(workers, y, window.out_w * c, 2, macs, &|rows, y, _| {
        arch::select!(isa, convolve(&job, rows, y));
    });
}

/// The arguments of [`run`], checked: all extents of y and the number of taps are at least 1.
pub(crate) struct Job<'a> {
    pub window: &'a Window,
    pub c: usize,
    pub act: Act,
    pub x: &'a [f32],
    pub packed: &'a [f32],
}

/// The reference: output rows `rows`, counted through the batch, into `y`.
pub(crate) fn convolve(job: &Job, rows: Range<usize>, y: &mut [f32]) {
    let &Job { window, c, act, x, packed } = job;
    let (bias, weights) = packed.split_at(c);
    for (row, y) in rows.zip(y.chunks_exact_mut(window.out_w * c)) {
        let (image, oy) = (row / window.out_h, row % window.out_h);
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            y.copy_from_slice(bias);
            for ky in window.rows(oy) {
                for kx in window.columns(ox) {
                    let pixel =
                        (image * window.in_h + window.row(oy, ky)) * window.in_w + window.column(ox, kx);
                    let w = &weights[(ky * window.kernel_w + kx) * c..][..c];
                    for ((y, &x), &w) in y.iter_mut().zip(&x[pixel * c..]).zip(w) {
                        *y = fma(x, w, *y);
                    }
                }
            }
            y.iter_mut().for_each(|y| *y = act.apply(*y));
        }
    }
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
        // 2x2 input, 3x3 kernel of ones with the corner tap 10: only the last output sees the first pixel through it.
        let mut kernel = [1.0; 9];
        kernel[0] = 10.0;
        let mut packed = [0.0; 10];
        pack(1, 9, &kernel, Some(&[0.5]), &mut packed);
        for isa in Isa::available() {
            let mut y = [0.0; 4];
            run(
                isa,
                &Serial,
                &window(1, 2, 2, 3, 1, 1, 1),
                1,
                Act::None,
                &[1.0, 2.0, 3.0, 4.0],
                &packed,
                &mut y,
            );
            assert_eq!(y, [10.5, 10.5, 10.5, 19.5]);
        }
    }

    #[test]
    fn fast_equals_scalar() {
        let mut windows = vec![];
        for kernel in [1, 2, 3, 5, 7] {
            for stride in [1, 2, 3] {
                for (h, w) in [(1, 1), (3, 4), (7, 7), (8, 13), (14, 9)] {
                    for pad in [0, kernel / 2] {
                        if h + 2 * pad >= kernel && w + 2 * pad >= kernel {
                            windows.push(window(2, h, w, kernel, stride, 1, pad));
                        }
                    }
                }
            }
        }
        windows.push(window(1, 12, 12, 3, 1, 2, 2));
        windows.push(window(1, 12, 12, 5, 2, 2, 4));
        windows.push(Window { pad_top: 0, pad_left: 0, out_h: 7, out_w: 7, ..window(1, 14, 14, 3, 2, 1, 1) });
        windows.push(Window { kernel_h: 1, out_h: 14, ..window(1, 12, 12, 3, 1, 1, 1) });
        windows.push(Window { stride_w: 2, out_w: 6, ..window(1, 12, 12, 3, 1, 1, 1) });
        windows.push(window(1, 2, 2, 5, 1, 1, 4));
        windows.push(window(1, 40, 40, 3, 1, 1, 1));
        for (i, window) in windows.iter().enumerate() {
            for c in [1, 8, 16, 19, 40, 72] {
                let act = [Act::Relu6, Act::HSwish, Act::None, Act::Sigmoid][i % 4];
                let x = noise(window.n * window.in_h * window.in_w * c, 1);
                let mut packed = vec![0.0; packed_len(c, window.taps())];
                pack(c, window.taps(), &noise(c * window.taps(), 2), Some(&noise(c, 3)), &mut packed);
                let len = window.out_pixels() * c;
                let mut expected = vec![0.0; len];
                run(Isa::scalar(), &Serial, window, c, act, &x, &packed, &mut expected);
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; len];
                    run(isa, &Serial, window, c, act, &x, &packed, &mut y);
                    assert!(y == expected, "{isa:?} {c} {act:?} {window:?}");
                    if len > 5000 {
                        y.fill(f32::NAN);
                        run(isa, &Team(3), window, c, act, &x, &packed, &mut y);
                        assert!(y == expected, "threads {isa:?} {c} {act:?} {window:?}");
                    }
                }
            }
        }
    }
}
