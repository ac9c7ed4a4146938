//! Convolution with any kernel and any number of groups: patches of a few pixels are gathered in the worker's scratch and
//! multiplied by the same kernels as a pointwise convolution.

use core::ops::Range;

use crate::{
    Act, Isa, Window, Workers,
    pointwise::{self, Block, Gradient, PANEL},
    volume,
    workers::{Shared, dispatch, part, pieces, split_rows},
};

/// Length of packed weights of `groups` groups, `out_c` outputs in all, each of `k` = kernel_h · kernel_w · (in_c / groups)
/// weights.
pub fn packed_len(groups: usize, out_c: usize, k: usize) -> usize {
    assert!(groups > 0 && out_c.is_multiple_of(groups), "groups divide the channels");
    volume(&[groups, pointwise::packed_len(out_c / groups, k)])
}

/// Packs `weights` `[out_c][kernel_h][kernel_w][in_c / groups]` and `bias` `[out_c]` (none: zeros) for [`run`].
pub fn pack(
    groups: usize,
    out_c: usize,
    k: usize,
    weights: &[f32],
    bias: Option<&[f32]>,
    packed: &mut [f32],
) {
    assert_eq!(weights.len(), volume(&[out_c, k]), "weights are [out_c][k]");
    assert!(bias.is_none_or(|b| b.len() == out_c), "bias is [out_c]");
    assert_eq!(packed.len(), packed_len(groups, out_c, k), "packed_len(groups, out_c, k)");
    let n = out_c / groups;
    let len = pointwise::packed_len(n, k);
    for group in 0..groups {
        let bias = bias.map(|b| &b[group * n..(group + 1) * n]);
        let weights = &weights[group * n * k..(group + 1) * n * k];
        pointwise::pack(n, k, weights, bias, &mut packed[group * len..(group + 1) * len]);
    }
}

/// Length of the scratch [`run`] needs with a team of `threads`.
pub fn scratch_len(window: &Window, in_c: usize, groups: usize, threads: usize) -> usize {
    let k = patch_len(window, in_c, groups);
    volume(&[threads, tile_rows(k), k])
}

/// y = act(bias + Σ x·w + residual) over the window, grouped: x `[n,in_h,in_w,in_c]`, y and residual
/// `[n,out_h,out_w,out_c]`, `packed` from [`pack`], `scratch` of at least [`scratch_len`], its content without meaning.
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    in_c: usize,
    out_c: usize,
    groups: usize,
    act: Act,
    x: &[f32],
    packed: &[f32],
    residual: Option<&[f32]>,
    scratch: &mut [f32],
    y: &mut [f32],
) {
    window.check(in_c, x, out_c, y);
    let k = patch_len(window, in_c, groups);
    assert_eq!(packed.len(), packed_len(groups, out_c, k), "packed_len(groups, out_c, k)");
    assert!(residual.is_none_or(|r| r.len() == y.len()), "residual is as long as y");
    let threads = workers.threads();
    assert!(
        scratch.len() >= scratch_len(window, in_c, groups, threads),
        "scratch_len(window, in_c, groups, threads)"
    );
    if y.is_empty() {
        return;
    }
    let (tile, n) = (tile_rows(k), out_c / groups);
    let group_len = pointwise::packed_len(n, k);
    let macs = y.len().saturating_mul(k);
    let inner = inner(window, groups, packed.len());
    let scratch = Shared::new(scratch);
    split_rows(workers, y, out_c, tile, macs, &|rows, y, worker| {
        // SAFETY: each worker id has its own part, and `split_rows` lets one thread at a time use an id.
        let scratch = unsafe { scratch.slice(worker * tile * k, tile * k) };
        let y = Shared::new(y);
        let mut first = rows.start;
        while first < rows.end {
            let (direct, count) = stretch(&inner, window, first, rows.end, tile);
            let pixels = first..first + count;
            for group in 0..groups {
                let (x, x_stride, runs, run_stride) = if direct {
                    let (row, ox) = (first / window.out_w, first % window.out_w);
                    let (image, oy) = (row / window.out_h, row % window.out_h);
                    let line = image * window.in_h + window.row(oy, 0);
                    let from = (line * window.in_w + window.column(ox, 0)) * in_c;
                    (
                        &x[from..],
                        window.stride_w * in_c,
                        window.kernel_h,
                        window.dilation_h * window.in_w * in_c,
                    )
                } else {
                    gather(window, in_c, groups, group, x, pixels.clone(), scratch);
                    (&scratch[..count * k], k, 1, 0)
                };
                let residual = residual.map(|r| &r[first * out_c + group * n..]);
                let packed = &packed[group * group_len..(group + 1) * group_len];
                // SAFETY: this piece owns its rows, and one view is in use at a time.
                let y = unsafe { y.view((first - rows.start) * out_c + group * n, count, n, out_c) };
                pointwise::block(isa, &Block { k, x, x_stride, runs, run_stride, packed, act, residual }, y);
            }
            first += count;
        }
    });
}

/// Length of the scratch [`weight_gradient`] needs with a team of `threads`.
pub fn weight_gradient_scratch_len(
    window: &Window,
    in_c: usize,
    out_c: usize,
    groups: usize,
    threads: usize,
) -> usize {
    assert!(groups > 0 && out_c.is_multiple_of(groups), "groups divide the channels");
    volume(&[threads, GRADIENT_PIXELS, patch_len(window, in_c, groups)])
}

/// dw `[out_c][kernel_h][kernel_w][in_c / groups]` += the gradient of the weights, from x `[n,in_h,in_w,in_c]` and dy
/// `[n,out_h,out_w,out_c]`: one chain per element that starts at the given dw and takes the output pixels in ascending
/// order. `scratch` has at least [`weight_gradient_scratch_len`], its content without meaning.
pub fn weight_gradient(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    in_c: usize,
    out_c: usize,
    groups: usize,
    dy: &[f32],
    x: &[f32],
    scratch: &mut [f32],
    dw: &mut [f32],
) {
    window.check(in_c, x, out_c, dy);
    let k = patch_len(window, in_c, groups);
    assert_eq!(dw.len(), volume(&[out_c, k]), "dw is [out_c][kernel_h][kernel_w][in_c / groups]");
    assert!(
        scratch.len() >= weight_gradient_scratch_len(window, in_c, out_c, groups, workers.threads()),
        "weight_gradient_scratch_len(window, in_c, out_c, groups, threads)"
    );
    let (pixels, n) = (window.out_pixels(), out_c / groups);
    // Each part gathers all patches of its group: it needs rows enough to be worth it.
    let parts = n.div_ceil(GRADIENT_GRAIN);
    let units = groups * parts;
    let pieces = pieces(units, dy.len().saturating_mul(k));
    let (scratch, dw) = (Shared::new(scratch), Shared::new(dw));
    dispatch(workers, pieces, &|piece, worker| {
        let len = GRADIENT_PIXELS * k;
        // SAFETY: each worker id has its own part, and `dispatch` lets one thread at a time use an id.
        let scratch = unsafe { scratch.slice(worker * len, len) };
        let mut units = part(piece, pieces, units, 1);
        while !units.is_empty() {
            // Neighbouring parts of one group share their patches.
            let group = units.start / parts;
            let end = units.end.min((group + 1) * parts);
            let rows = units.start % parts * GRADIENT_GRAIN..((end - group * parts) * GRADIENT_GRAIN).min(n);
            units.start = end;
            let output = group * n + rows.start;
            for first in (0..pixels).step_by(GRADIENT_PIXELS) {
                let m = GRADIENT_PIXELS.min(pixels - first);
                gather(window, in_c, groups, group, x, first..first + m, scratch);
                let job =
                    Gradient { m, n: out_c, k, dy: &dy[first * out_c + output..], x: &scratch[..m * k] };
                // SAFETY: different units have different rows of dw, `dispatch` runs a piece once, and one view is in use
                // at a time.
                let dw = unsafe { dw.view(output * k, rows.len(), k, k) };
                pointwise::gradient_block(isa, &job, dw);
            }
        }
    });
}

/// Length of the scratch [`input_gradient`] needs with a team of `threads`.
pub fn input_gradient_scratch_len(
    window: &Window,
    in_c: usize,
    out_c: usize,
    groups: usize,
    threads: usize,
) -> usize {
    let k = patch_len(window, in_c, groups);
    assert!(out_c.is_multiple_of(groups), "groups divide the channels");
    let packed = volume(&[groups, pointwise::packed_len(k, out_c / groups)]);
    packed.checked_add(volume(&[threads, tile_rows(k), k])).expect("tensor size overflows usize")
}

/// dx `[n,in_h,in_w,in_c]` = the gradient of the input, from dy `[n,out_h,out_w,out_c]` and `weights`
/// `[out_c][kernel_h][kernel_w][in_c / groups]`. Each value is the sum of its taps' chains over the group's outputs, added
/// in the order of output pixels. `scratch` has at least [`input_gradient_scratch_len`], its content without meaning.
pub fn input_gradient(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    in_c: usize,
    out_c: usize,
    groups: usize,
    dy: &[f32],
    weights: &[f32],
    scratch: &mut [f32],
    dx: &mut [f32],
) {
    window.check(in_c, dx, out_c, dy);
    let k = patch_len(window, in_c, groups);
    assert_eq!(weights.len(), volume(&[out_c, k]), "weights are [out_c][kernel_h][kernel_w][in_c / groups]");
    assert!(
        scratch.len() >= input_gradient_scratch_len(window, in_c, out_c, groups, workers.threads()),
        "input_gradient_scratch_len(window, in_c, out_c, groups, threads)"
    );
    let (n, tile) = (out_c / groups, tile_rows(k));
    let group_len = pointwise::packed_len(k, n);
    let (packed, scratch) = scratch.split_at_mut(groups * group_len);
    for group in 0..groups {
        let weights = &weights[group * n * k..(group + 1) * n * k];
        pointwise::pack_transposed(n, k, weights, &mut packed[group * group_len..(group + 1) * group_len]);
    }
    let packed = &*packed;
    let (image_len, image_pixels) = (window.in_h * window.in_w * in_c, window.out_h * window.out_w);
    let scratch = Shared::new(scratch);
    split_rows(workers, dx, image_len, 1, dy.len().saturating_mul(k), &|images, dx, worker| {
        // SAFETY: each worker id has its own part, and `split_rows` lets one thread at a time use an id.
        let scratch = unsafe { scratch.slice(worker * tile * k, tile * k) };
        dx.fill(0.0);
        let end = images.end * image_pixels;
        for first in (images.start * image_pixels..end).step_by(tile) {
            let count = tile.min(end - first);
            for group in 0..groups {
                let block = Block {
                    k: n,
                    x: &dy[first * out_c + group * n..],
                    x_stride: out_c,
                    runs: 1,
                    run_stride: 0,
                    packed: &packed[group * group_len..(group + 1) * group_len],
                    act: Act::None,
                    residual: None,
                };
                // SAFETY: the scratch is this worker's, and not read while the view is in use.
                let patches = unsafe { Shared::new(scratch).view(0, count, k, k) };
                pointwise::block(isa, &block, patches);
                let pixels = first..first + count;
                scatter(window, in_c, groups, group, images.start, pixels, &scratch[..count * k], dx);
            }
        }
    });
}

/// Output columns and rows whose window lies inside the input, if it pays to multiply them where they are.
fn inner(window: &Window, groups: usize, weights: usize) -> (Range<usize>, Range<usize>) {
    let whole = |size: usize, pad: usize, reach: usize, stride: usize, out: usize| {
        let first = pad.div_ceil(stride).min(out);
        let end = (size + pad).checked_sub(reach).map_or(0, |last| last / stride + 1);
        first..end.clamp(first, out)
    };
    let w = window;
    let (reach_h, reach_w) = ((w.kernel_h - 1) * w.dilation_h + 1, (w.kernel_w - 1) * w.dilation_w + 1);
    let columns = whole(w.in_w, w.pad_left, reach_w, w.stride_w, w.out_w);
    // Every stretch reads all weights: it must be a tile long, and they must be at hand.
    if groups > 1
        || (w.dilation_w > 1 && w.kernel_w > 1)
        || columns.len() < TILE
        || weights > pointwise::RESIDENT
    {
        return (0..0, 0..0);
    }
    (columns, whole(w.in_h, w.pad_top, reach_h, w.stride_h, w.out_h))
}

/// How many pixels from `first` on can be computed at once, and whether where they are.
fn stretch(
    inner: &(Range<usize>, Range<usize>),
    window: &Window,
    first: usize,
    end: usize,
    tile: usize,
) -> (bool, usize) {
    let (columns, rows) = inner;
    let (ox, oy) = (first % window.out_w, first / window.out_w % window.out_h);
    let left = end - first;
    if rows.is_empty() {
        return (false, left.min(tile));
    }
    if !rows.contains(&oy) {
        // To the end of the row at most: the next one may be an inner one.
        return (false, left.min(tile).min(window.out_w - ox));
    }
    if columns.contains(&ox) {
        (true, left.min(columns.end - ox))
    } else {
        let border = if ox < columns.start { columns.start } else { window.out_w };
        (false, left.min(tile).min(border - ox))
    }
}

fn patch_len(window: &Window, in_c: usize, groups: usize) -> usize {
    assert!(groups > 0 && in_c.is_multiple_of(groups), "groups divide the channels");
    volume(&[window.taps(), in_c / groups])
}

/// Pixels gathered at once for a weight gradient: enough to hide the reading and writing of dw.
const GRADIENT_PIXELS: usize = 64;
/// Outputs that share gathered patches.
const GRADIENT_GRAIN: usize = 64;

/// Rows of the largest register tile.
const TILE: usize = 14;

/// Pixels gathered at once: as many as keep the patches in the first-level cache, in whole register tiles.
fn tile_rows(k: usize) -> usize {
    if k <= 8 * PANEL { 56 } else { 28 }
}

/// Copies the inputs of output `pixels` (counted through the batch) into `patches`, `[pixels][kernel_h][kernel_w][in_c / groups]`,
/// with zeros for padding.
fn gather(
    window: &Window,
    in_c: usize,
    groups: usize,
    group: usize,
    x: &[f32],
    pixels: Range<usize>,
    patches: &mut [f32],
) {
    let c = in_c / groups;
    let k = window.taps() * c;
    if k == 0 {
        return;
    }
    let run = window.kernel_w * c;
    for (pixel, patch) in pixels.zip(patches.chunks_exact_mut(k)) {
        let (row, ox) = (pixel / window.out_w, pixel % window.out_w);
        let (image, oy) = (row / window.out_h, row % window.out_h);
        let (rows, columns) = (window.rows(oy), window.columns(ox));
        for (ky, patch) in patch.chunks_exact_mut(run).enumerate() {
            if !rows.contains(&ky) || columns.is_empty() {
                patch.fill(0.0);
                continue;
            }
            let line = (image * window.in_h + window.row(oy, ky)) * window.in_w;
            patch[..columns.start * c].fill(0.0);
            patch[columns.end * c..].fill(0.0);
            if groups == 1 && window.dilation_w == 1 {
                let from = (line + window.column(ox, columns.start)) * c;
                let patch = &mut patch[columns.start * c..columns.end * c];
                patch.copy_from_slice(&x[from..from + patch.len()]);
            } else {
                for kx in columns.clone() {
                    let from = (line + window.column(ox, kx)) * in_c + group * c;
                    patch[kx * c..(kx + 1) * c].copy_from_slice(&x[from..from + c]);
                }
            }
        }
    }
}

/// Adds `patches` of output `pixels` to where [`gather`] would have copied them from; dx begins with image `first_image`.
fn scatter(
    window: &Window,
    in_c: usize,
    groups: usize,
    group: usize,
    first_image: usize,
    pixels: Range<usize>,
    patches: &[f32],
    dx: &mut [f32],
) {
    let c = in_c / groups;
    let k = window.taps() * c;
    if k == 0 {
        return;
    }
    for (pixel, patch) in pixels.zip(patches.chunks_exact(k)) {
        let (row, ox) = (pixel / window.out_w, pixel % window.out_w);
        let (image, oy) = (row / window.out_h - first_image, row % window.out_h);
        let columns = window.columns(ox);
        if columns.is_empty() {
            continue;
        }
        for ky in window.rows(oy) {
            let patch = &patch[ky * window.kernel_w * c..][columns.start * c..columns.end * c];
            let line = (image * window.in_h + window.row(oy, ky)) * window.in_w;
            // Neighbouring taps of all channels lie in one run.
            let run = if groups == 1 && window.dilation_w == 1 { patch.len() } else { c };
            for (kx, patch) in columns.clone().zip(patch.chunks_exact(run)) {
                let from = (line + window.column(ox, kx)) * in_c + group * c;
                for (dx, &d) in dx[from..from + run].iter_mut().zip(patch) {
                    *dx += d;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial, fma,
        testing::{Team, noise, window},
    };
    use std::{vec, vec::Vec};

    /// Convolution by definition.
    fn reference(
        window: &Window,
        in_c: usize,
        out_c: usize,
        groups: usize,
        act: Act,
        x: &[f32],
        weights: &[f32],
        bias: &[f32],
        residual: Option<&[f32]>,
    ) -> Vec<f32> {
        let (c, n) = (in_c / groups, out_c / groups);
        let mut y = vec![];
        for pixel in 0..window.out_pixels() {
            let (row, ox) = (pixel / window.out_w, pixel % window.out_w);
            let (image, oy) = (row / window.out_h, row % window.out_h);
            for o in 0..out_c {
                let mut sum = bias[o];
                for ky in window.rows(oy) {
                    for kx in window.columns(ox) {
                        for i in 0..c {
                            let at = (image * window.in_h + window.row(oy, ky)) * window.in_w
                                + window.column(ox, kx);
                            let w = weights[((o * window.kernel_h + ky) * window.kernel_w + kx) * c + i];
                            sum = fma(x[at * in_c + o / n * c + i], w, sum);
                        }
                    }
                }
                y.push(act.apply(residual.map_or(sum, |r| sum + r[pixel * out_c + o])));
            }
        }
        y
    }

    #[test]
    fn fast_equals_definition() {
        for (i, (window, in_c, out_c, groups)) in [
            (window(1, 33, 31, 3, 2, 1, 1), 3, 32, 1),
            (window(2, 9, 8, 3, 1, 1, 1), 5, 7, 1),
            (window(1, 12, 12, 5, 1, 2, 4), 4, 24, 2),
            (window(1, 7, 7, 1, 2, 1, 0), 12, 20, 4),
            (window(2, 6, 6, 3, 1, 1, 0), 6, 6, 6),
            (window(1, 2, 2, 5, 1, 1, 4), 2, 3, 1),
            (window(1, 20, 20, 3, 1, 1, 1), 24, 33, 1),
            (Window { pad_top: 0, pad_left: 0, ..window(1, 16, 16, 3, 2, 1, 1) }, 3, 16, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let k = window.taps() * in_c / groups;
            let x = noise(window.n * window.in_h * window.in_w * in_c, 1);
            let (weights, bias) = (noise(out_c * k, 2), noise(out_c, 3));
            let len = window.out_pixels() * out_c;
            let r = noise(len, 4);
            let residual = (i % 2 == 1).then_some(&r[..]);
            let act = [Act::Relu6, Act::None, Act::HSwish][i % 3];
            let expected = reference(&window, in_c, out_c, groups, act, &x, &weights, &bias, residual);
            let mut packed = vec![0.0; packed_len(groups, out_c, k)];
            pack(groups, out_c, k, &weights, Some(&bias), &mut packed);
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Team(3)] {
                    let mut scratch = vec![f32::NAN; scratch_len(&window, in_c, groups, workers.threads())];
                    let mut y = vec![f32::NAN; len];
                    run(
                        isa,
                        workers,
                        &window,
                        in_c,
                        out_c,
                        groups,
                        act,
                        &x,
                        &packed,
                        residual,
                        &mut scratch,
                        &mut y,
                    );
                    assert!(y == expected, "{isa:?} {in_c} {out_c} {groups} {window:?}");
                }
            }
        }
    }

    /// dw and dx by definition, in f64.
    fn gradients(
        window: &Window,
        in_c: usize,
        out_c: usize,
        groups: usize,
        dy: &[f32],
        x: &[f32],
        weights: &[f32],
    ) -> (Vec<f64>, Vec<f64>) {
        let (c, n) = (in_c / groups, out_c / groups);
        let (mut dw, mut dx) = (vec![0.0; weights.len()], vec![0.0; x.len()]);
        for (at, &dy) in dy.iter().enumerate() {
            let (pixel, o) = (at / out_c, at % out_c);
            let (row, ox) = (pixel / window.out_w, pixel % window.out_w);
            let (image, oy) = (row / window.out_h, row % window.out_h);
            for (tap, i) in (0..window.taps()).flat_map(|tap| (0..c).map(move |i| (tap, i))) {
                let (ky, kx) = (tap / window.kernel_w, tap % window.kernel_w);
                let iy = (oy * window.stride_h + ky * window.dilation_h).checked_sub(window.pad_top);
                let ix = (ox * window.stride_w + kx * window.dilation_w).checked_sub(window.pad_left);
                let (Some(iy), Some(ix)) = (iy, ix) else { continue };
                if iy < window.in_h && ix < window.in_w {
                    let from = ((image * window.in_h + iy) * window.in_w + ix) * in_c + o / n * c + i;
                    let weight = (o * window.taps() + tap) * c + i;
                    dw[weight] += f64::from(dy) * f64::from(x[from]);
                    dx[from] += f64::from(dy) * f64::from(weights[weight]);
                }
            }
        }
        (dw, dx)
    }

    fn assert_near(actual: &[f32], expected: &[f64], what: &str) {
        assert_eq!(actual.len(), expected.len());
        for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
            assert!((f64::from(a) - e).abs() < 2e-4 * (1.0 + e.abs()), "{what} at {i}: {a}, not {e}");
        }
    }

    #[test]
    fn gradients_by_definition() {
        for (window, in_c, out_c, groups) in [
            (window(2, 13, 11, 3, 2, 1, 1), 3, 32, 1),
            (Window { pad_top: 0, pad_left: 0, ..window(2, 16, 16, 3, 2, 1, 1) }, 3, 16, 1),
            (window(2, 9, 8, 3, 1, 1, 1), 5, 37, 1),
            (window(4, 12, 12, 3, 1, 2, 2), 4, 24, 2),
            (window(3, 9, 7, 5, 2, 2, 4), 6, 9, 3),
            (window(1, 7, 7, 1, 2, 1, 0), 12, 20, 4),
            (window(1, 12, 12, 3, 1, 1, 1), 24, 70, 1),
            (window(1, 2, 2, 5, 1, 1, 4), 2, 3, 1),
            (window(3, 6, 6, 3, 1, 1, 0), 64, 60, 2),
        ] {
            let k = window.taps() * in_c / groups;
            let dy = noise(window.out_pixels() * out_c, 1);
            let x = noise(window.n * window.in_h * window.in_w * in_c, 2);
            let weights = noise(out_c * k, 3);
            let (expected_dw, expected_dx) = gradients(&window, in_c, out_c, groups, &dy, &x, &weights);
            let run = |isa, workers: &dyn Workers| {
                let threads = workers.threads();
                let len = weight_gradient_scratch_len(&window, in_c, out_c, groups, threads);
                let (mut scratch, mut dw) = (vec![f32::NAN; len], vec![0.0; weights.len()]);
                weight_gradient(isa, workers, &window, in_c, out_c, groups, &dy, &x, &mut scratch, &mut dw);
                let len = input_gradient_scratch_len(&window, in_c, out_c, groups, threads);
                let (mut scratch, mut dx) = (vec![f32::NAN; len], vec![f32::NAN; x.len()]);
                input_gradient(
                    isa,
                    workers,
                    &window,
                    in_c,
                    out_c,
                    groups,
                    &dy,
                    &weights,
                    &mut scratch,
                    &mut dx,
                );
                (dw, dx)
            };
            let scalar = run(Isa::scalar(), &Serial);
            assert_near(&scalar.0, &expected_dw, "dw");
            assert_near(&scalar.1, &expected_dx, "dx");
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Team(3)] {
                    assert!(run(isa, workers) == scalar, "{isa:?} {in_c} {out_c} {groups} {window:?}");
                }
            }
        }
    }

    #[test]
    fn weight_gradient_adds() {
        let window = window(1, 1, 1, 1, 1, 1, 0);
        let (mut dw, mut scratch) = ([10.0], [0.0; GRADIENT_PIXELS]);
        weight_gradient(Isa::detect(), &Serial, &window, 1, 1, 1, &[2.0], &[3.0], &mut scratch, &mut dw);
        assert_eq!(dw, [16.0]);
    }
}
