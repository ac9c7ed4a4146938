//! Depthwise convolution: every channel has its own kernel.

use core::ops::Range;

use crate::{
    Act, Isa, Window, Workers, arch, fma, volume,
    workers::{Shared, View, dispatch, part, pieces, split_rows},
};

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

/// Transposes `packed_taps` `[taps][c]`, as [`weight_gradient`] leaves them, into `weights` `[c][taps]`.
pub fn unpack(c: usize, taps: usize, packed_taps: &[f32], weights: &mut [f32]) {
    assert_eq!(packed_taps.len(), volume(&[taps, c]), "packed taps are [taps][c]");
    assert_eq!(weights.len(), volume(&[c, taps]), "weights are [c][taps]");
    for channel in 0..c {
        for tap in 0..taps {
            weights[channel * taps + tap] = packed_taps[tap * c + channel];
        }
    }
}

/// dx\[n,iy,ix,c\] = Σ dy\[n,oy,ox,c\]·w\[c\]\[ky,kx\] over the outputs that saw the input, one chain per value that starts
/// at 0 and takes (ky, kx) ascending. `packed` is from [`pack`]; its bias is not read.
pub fn input_gradient(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    c: usize,
    dy: &[f32],
    packed: &[f32],
    dx: &mut [f32],
) {
    window.check(c, dx, c, dy);
    assert_eq!(packed.len(), packed_len(c, window.taps()), "packed_len(c, taps)");
    if dx.is_empty() {
        return;
    }
    let macs = dy.len().saturating_mul(window.taps());
    // Pairs of rows share their outputs.
    split_rows(workers, dx, window.in_w * c, 2, macs, &|rows, dx, _| {
        arch::select!(isa, depthwise_input_gradient(window, c, dy, packed, rows, dx));
    });
}

/// dw\[ky,kx\]\[c\] += Σ dy\[n,oy,ox,c\]·x\[n,iy,ix,c\] over the outputs whose tap lies inside the input, one chain per
/// value that starts at the given dw and takes (n, oy, ox) ascending. `dw` is `[taps][c]`, see [`unpack`].
pub fn weight_gradient(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    c: usize,
    dy: &[f32],
    x: &[f32],
    dw: &mut [f32],
) {
    window.check(c, x, c, dy);
    assert_eq!(dw.len(), volume(&[window.taps(), c]), "dw is [taps][c]");
    if dw.is_empty() {
        return;
    }
    let macs = dy.len().saturating_mul(window.taps());
    let pieces = pieces(c.div_ceil(CHANNELS), macs);
    let dw = Shared::new(dw);
    dispatch(workers, pieces, &|piece, _| {
        let channels = part(piece, pieces, c, CHANNELS);
        // SAFETY: `part` gives disjoint channels to different pieces, and `dispatch` runs a piece once.
        let dw = unsafe { dw.view(channels.start, window.taps(), channels.len(), c) };
        arch::select!(isa, depthwise_weight_gradient(window, c, dy, x, channels.start, dw));
    });
}

/// Pieces of a weight gradient begin at multiples of so many channels.
const CHANNELS: usize = 32;

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

/// Input rows `rows`, counted through the batch, into `dx`. Inlined where an instruction set is enabled, so that the loop
/// over channels becomes its vectors.
#[inline(always)]
pub(crate) fn depthwise_input_gradient(
    w: &Window,
    c: usize,
    dy: &[f32],
    packed: &[f32],
    rows: Range<usize>,
    dx: &mut [f32],
) {
    let weights = &packed[c..];
    dx.fill(0.0);
    for (row, dx) in rows.zip(dx.chunks_exact_mut(w.in_w * c)) {
        let (image, iy) = (row / w.in_h, row % w.in_h);
        for ky in 0..w.kernel_h {
            let Some(from) = (iy + w.pad_top).checked_sub(ky * w.dilation_h) else { break };
            let oy = from / w.stride_h;
            if from % w.stride_h != 0 || oy >= w.out_h {
                continue;
            }
            let dy = &dy[(image * w.out_h + oy) * w.out_w * c..][..w.out_w * c];
            for kx in 0..w.kernel_w {
                let weights = &weights[(ky * w.kernel_w + kx) * c..][..c];
                for (ox, dy) in dy.chunks_exact(c).enumerate() {
                    if !w.columns(ox).contains(&kx) {
                        continue;
                    }
                    let dx = &mut dx[w.column(ox, kx) * c..][..c];
                    for ((dx, &dy), &weight) in dx.iter_mut().zip(dy).zip(weights) {
                        *dx = fma(dy, weight, *dx);
                    }
                }
            }
        }
    }
}

/// The channels from `channel` on into `dw`, a row of it per tap; inlined as [`depthwise_input_gradient`].
#[inline(always)]
pub(crate) fn depthwise_weight_gradient(
    w: &Window,
    c: usize,
    dy: &[f32],
    x: &[f32],
    channel: usize,
    mut dw: View,
) {
    for (pixel, dy) in dy.chunks_exact(c).enumerate() {
        let (row, ox) = (pixel / w.out_w, pixel % w.out_w);
        let (image, oy) = (row / w.out_h, row % w.out_h);
        for ky in w.rows(oy) {
            for kx in w.columns(ox) {
                let x = &x[((image * w.in_h + w.row(oy, ky)) * w.in_w + w.column(ox, kx)) * c..][..c];
                let dw = dw.row(ky * w.kernel_w + kx);
                for ((dw, &dy), &x) in dw.iter_mut().zip(&dy[channel..]).zip(&x[channel..]) {
                    *dw = fma(dy, x, *dw);
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
        testing::{Team, noise, window},
    };
    use std::{vec, vec::Vec};

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
        windows.push(window(1, 3, 1100, 3, 1, 1, 1));
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

    #[test]
    fn gradients_equal_scalar_and_definition() {
        let mut windows = vec![];
        for kernel in [1, 2, 3, 5, 7] {
            for stride in [1, 2, 3] {
                for (h, w) in [(2, 3), (7, 8), (14, 9)] {
                    let pad = kernel / 2;
                    if h + 2 * pad >= kernel {
                        windows.push(window(2, h, w, kernel, stride, 1, pad));
                    }
                }
            }
        }
        windows.push(window(1, 12, 12, 3, 1, 2, 2));
        windows.push(window(1, 12, 12, 5, 2, 2, 4));
        windows.push(Window { pad_top: 0, pad_left: 0, out_h: 7, out_w: 7, ..window(1, 14, 14, 3, 2, 1, 1) });
        windows.push(window(1, 2, 2, 5, 1, 1, 4));
        windows.push(window(1, 2, 2, 3, 1, 1, 3));
        windows.push(window(1, 3, 26, 3, 1, 1, 1));
        // More rows than a weight gradient takes at once.
        windows.push(window(1, 12, 40, 3, 1, 1, 1));
        windows.push(window(1, 3, 26, 5, 2, 1, 2));
        windows.push(window(1, 2, 3, 5, 2, 1, 6));
        windows.push(Window { pad_top: 1, pad_left: 1, out_h: 7, out_w: 8, ..window(1, 14, 16, 5, 2, 1, 2) });
        for w in &windows {
            for c in [1, 8, 16, 19, 40, 72] {
                let taps = w.taps();
                let x = noise(w.n * w.in_h * w.in_w * c, 1);
                let dy = noise(w.out_pixels() * c, 2);
                let (kernel, start) = (noise(c * taps, 3), noise(c * taps, 4));
                let mut packed = vec![0.0; packed_len(c, taps)];
                pack(c, taps, &kernel, None, &mut packed);
                let mut exact_dx = vec![0f64; x.len()];
                let mut exact_dw: Vec<f64> = start.iter().map(|&v| v.into()).collect();
                for (i, &dy) in dy.iter().enumerate() {
                    let (pixel, channel) = (i / c, i % c);
                    let (row, ox) = (pixel / w.out_w, pixel % w.out_w);
                    let (image, oy) = (row / w.out_h, row % w.out_h);
                    for tap in 0..taps {
                        let iy =
                            (oy * w.stride_h + tap / w.kernel_w * w.dilation_h) as isize - w.pad_top as isize;
                        let ix = (ox * w.stride_w + tap % w.kernel_w * w.dilation_w) as isize
                            - w.pad_left as isize;
                        if (0..w.in_h as isize).contains(&iy) && (0..w.in_w as isize).contains(&ix) {
                            let at = ((image * w.in_h + iy as usize) * w.in_w + ix as usize) * c + channel;
                            exact_dx[at] += f64::from(dy) * f64::from(kernel[channel * taps + tap]);
                            exact_dw[tap * c + channel] += f64::from(dy) * f64::from(x[at]);
                        }
                    }
                }
                let (mut dx, mut dw) = (vec![f32::NAN; x.len()], start.clone());
                input_gradient(Isa::scalar(), &Serial, w, c, &dy, &packed, &mut dx);
                weight_gradient(Isa::scalar(), &Serial, w, c, &dy, &x, &mut dw);
                let near =
                    |a: &[f32], b: &[f64]| a.iter().zip(b).all(|(&a, b)| (f64::from(a) - b).abs() < 2e-4);
                assert!(near(&dx, &exact_dx) && near(&dw, &exact_dw), "{c} {w:?}");
                for isa in Isa::available() {
                    for workers in [&Serial as &dyn Workers, &Team(3)] {
                        let (mut fast_dx, mut fast_dw) = (vec![f32::NAN; x.len()], start.clone());
                        input_gradient(isa, workers, w, c, &dy, &packed, &mut fast_dx);
                        weight_gradient(isa, workers, w, c, &dy, &x, &mut fast_dw);
                        assert!(fast_dx == dx && fast_dw == dw, "{isa:?} {c} {w:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_by_hand() {
        // One row 1 2 under a kernel 10 20 30, padded by one: y sees (0 1 2) and (1 2 0).
        let w = Window { kernel_h: 1, pad_top: 0, out_h: 1, ..window(1, 1, 2, 3, 1, 1, 1) };
        let mut packed = [0.0; 4];
        pack(1, 3, &[10.0, 20.0, 30.0], None, &mut packed);
        for isa in Isa::available() {
            let (mut dx, mut dw) = ([9.0; 2], [0.5; 3]);
            input_gradient(isa, &Serial, &w, 1, &[1.0, 100.0], &packed, &mut dx);
            weight_gradient(isa, &Serial, &w, 1, &[1.0, 100.0], &[1.0, 2.0], &mut dw);
            assert_eq!((dx, dw), ([1020.0, 2030.0], [100.5, 201.5, 2.5]));
        }
        let mut weights = [0.0; 6];
        unpack(2, 3, &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], &mut weights);
        assert_eq!(weights, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
