//! Convolution with any kernel and any number of groups: patches of a few pixels are gathered in the worker's scratch and
//! multiplied by the same kernels as a pointwise convolution.

use core::ops::Range;

use super::{
    Channel, Limits, PANEL,
    pointwise::{self, Block, MACS},
};
use crate::{
    Isa, Window, Workers, volume,
    workers::{Shared, split_rows},
};

/// Length of packed weights in words, of `groups` groups, `out_channels` outputs in all, each of `k` = kernel_h · kernel_w ·
/// (in_channels / groups) weights.
pub fn packed_len(groups: usize, out_channels: usize, k: usize) -> usize {
    assert!(groups > 0 && out_channels.is_multiple_of(groups), "groups divide the channels");
    volume(&[groups, pointwise::packed_len(out_channels / groups, k)])
}

/// Packs `weights` `[out_channels][kernel_h][kernel_w][in_channels / groups]` and `channels` `[out_channels]` for [`run`].
pub fn pack(
    groups: usize,
    out_channels: usize,
    k: usize,
    weights: &[i8],
    channels: &[Channel],
    packed: &mut [i32],
) {
    assert_eq!(weights.len(), volume(&[out_channels, k]), "weights are [out_channels][k]");
    assert_eq!(channels.len(), out_channels, "channels are [out_channels]");
    assert_eq!(packed.len(), packed_len(groups, out_channels, k), "packed_len(groups, out_channels, k)");
    let n = out_channels / groups;
    let len = pointwise::packed_len(n, k);
    for group in 0..groups {
        let outputs = group * n..(group + 1) * n;
        let weights = &weights[outputs.start * k..outputs.end * k];
        pointwise::pack(n, k, weights, &channels[outputs], &mut packed[group * len..(group + 1) * len]);
    }
}

/// Length of the scratch [`run`] needs with a team of `threads`, in bytes.
pub fn scratch_len(window: &Window, in_channels: usize, groups: usize, threads: usize) -> usize {
    let k = patch_len(window, in_channels, groups);
    volume(&[threads, tile_rows(k), patch_stride(k)])
}

/// y = the bytes of Σ x·w over the window, grouped, x being `zero_point` outside the input: x `[n,in_h,in_w,in_channels]`,
/// y `[n,out_h,out_w,out_channels]`, `packed` from [`pack`], `scratch` of at least [`scratch_len`], its content without
/// meaning.
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    zero_point: u8,
    limits: Limits,
    x: &[u8],
    packed: &[i32],
    scratch: &mut [u8],
    y: &mut [u8],
) {
    window.check(in_channels, x, out_channels, y);
    let k = patch_len(window, in_channels, groups);
    assert_eq!(packed.len(), packed_len(groups, out_channels, k), "packed_len(groups, out_channels, k)");
    assert!(
        scratch.len() >= scratch_len(window, in_channels, groups, workers.threads()),
        "scratch_len(window, in_channels, groups, threads)"
    );
    if y.is_empty() {
        return;
    }
    let (tile, stride, n) = (tile_rows(k), patch_stride(k), out_channels / groups);
    let group_len = pointwise::packed_len(n, k);
    let macs = y.len().saturating_mul(k) / MACS;
    let scratch = Shared::new(scratch);
    split_rows(workers, y, out_channels, tile, macs, &|rows, y, worker| {
        // SAFETY: each worker id has its own part, and `split_rows` lets one thread at a time use an id.
        let scratch = unsafe { scratch.slice(worker * tile * stride, tile * stride) };
        let y = Shared::new(y);
        for first in rows.clone().step_by(tile) {
            let count = tile.min(rows.end - first);
            for group in 0..groups {
                gather(window, in_channels, groups, group, zero_point, x, first..first + count, scratch);
                let block = Block {
                    // The weights behind the last are zeros.
                    k: stride,
                    x: &scratch[..count * stride],
                    x_stride: stride,
                    packed: &packed[group * group_len..(group + 1) * group_len],
                    limits,
                };
                // SAFETY: this piece owns its rows, and one view is in use at a time.
                let y = unsafe {
                    y.view((first - rows.start) * out_channels + group * n, count, n, out_channels)
                };
                pointwise::block(isa, &block, y);
            }
        }
    });
}

fn patch_len(window: &Window, in_channels: usize, groups: usize) -> usize {
    assert!(groups > 0 && in_channels.is_multiple_of(groups), "groups divide the channels");
    volume(&[window.taps(), in_channels / groups])
}

/// From patch to patch: whole words, so that the product reads no part of one.
fn patch_stride(k: usize) -> usize {
    k.next_multiple_of(4)
}

/// Pixels gathered at once: as many as keep the patches in the first-level cache, in whole register tiles.
fn tile_rows(k: usize) -> usize {
    if k <= 32 * PANEL { 56 } else { 28 }
}

/// Copies the inputs of output `pixels` (counted through the batch) into `patches`,
/// `[pixels][kernel_h][kernel_w][in_channels / groups]`, pixels [`patch_stride`] apart, with the zero point for padding.
fn gather(
    window: &Window,
    in_channels: usize,
    groups: usize,
    group: usize,
    zero_point: u8,
    x: &[u8],
    pixels: Range<usize>,
    patches: &mut [u8],
) {
    let c = in_channels / groups;
    let run = window.kernel_w * c;
    if window.taps() * c == 0 {
        return;
    }
    let stride = patch_stride(window.taps() * c);
    let inner = inner_columns(window);
    let mut first = pixels.start;
    while first < pixels.end {
        // Pixels of one output row.
        let (row, from) = (first / window.out_w, first % window.out_w);
        let (image, oy) = (row / window.out_h, row % window.out_h);
        let end = pixels.end.min((row + 1) * window.out_w);
        let rows = window.rows(oy);
        let patches = &mut patches[(first - pixels.start) * stride..(end - pixels.start) * stride];
        for ky in 0..window.kernel_h {
            let patches = patches.chunks_exact_mut(stride).map(|patch| &mut patch[ky * run..(ky + 1) * run]);
            if !rows.contains(&ky) {
                patches.for_each(|patch| patch.fill(zero_point));
                continue;
            }
            let line = (image * window.in_h + window.row(oy, ky)) * window.in_w;
            for (ox, patch) in (from..).zip(patches) {
                if inner.contains(&ox) && groups == 1 && window.dilation_w == 1 {
                    copy(x, (line + window.column(ox, 0)) * c, patch);
                    continue;
                }
                patch.fill(zero_point);
                for kx in window.columns(ox) {
                    let from = (line + window.column(ox, kx)) * in_channels + group * c;
                    copy(x, from, &mut patch[kx * c..(kx + 1) * c]);
                }
            }
        }
        first = end;
    }
}

/// Output columns whose window lies inside the input.
fn inner_columns(w: &Window) -> Range<usize> {
    let first = w.pad_left.div_ceil(w.stride_w).min(w.out_w);
    let reach = (w.kernel_w - 1) * w.dilation_w + 1;
    let end = (w.in_w + w.pad_left).checked_sub(reach).map_or(0, |last| last / w.stride_w + 1);
    first..end.clamp(first, w.out_w)
}

/// Copies x from `from` on. Few bytes are copied as two parts that may overlap: a call would take longer.
#[inline(always)]
fn copy(x: &[u8], from: usize, to: &mut [u8]) {
    let (x, len) = (&x[from..from + to.len()], to.len());
    match len {
        8..=16 => {
            to[..8].copy_from_slice(&x[..8]);
            to[len - 8..].copy_from_slice(&x[len - 8..]);
        }
        17..=32 => {
            to[..16].copy_from_slice(&x[..16]);
            to[len - 16..].copy_from_slice(&x[len - 16..]);
        }
        _ => to.copy_from_slice(x),
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
        [in_c, out_c, groups]: [usize; 3],
        zero_point: u8,
        limits: Limits,
        x: &[u8],
        weights: &[i8],
        channels: &[Channel],
    ) -> Vec<u8> {
        let (c, n) = (in_c / groups, out_c / groups);
        let mut y = vec![];
        for (pixel, o) in (0..w.out_pixels()).flat_map(|pixel| (0..out_c).map(move |o| (pixel, o))) {
            let (row, ox) = (pixel / w.out_w, pixel % w.out_w);
            let (image, oy) = (row / w.out_h, row % w.out_h);
            let mut sum = 0;
            for (tap, i) in (0..w.taps()).flat_map(|tap| (0..c).map(move |i| (tap, i))) {
                let iy = (oy * w.stride_h + tap / w.kernel_w * w.dilation_h).wrapping_sub(w.pad_top);
                let ix = (ox * w.stride_w + tap % w.kernel_w * w.dilation_w).wrapping_sub(w.pad_left);
                let value = if iy < w.in_h && ix < w.in_w {
                    x[((image * w.in_h + iy) * w.in_w + ix) * in_c + o / n * c + i]
                } else {
                    zero_point
                };
                sum += i32::from(value) * i32::from(weights[(o * w.taps() + tap) * c + i]);
            }
            y.push(channels[o].apply(sum, limits));
        }
        y
    }

    fn cases() -> Vec<(Window, [usize; 3])> {
        vec![
            (window(1, 33, 31, 3, 2, 1, 1), [3, 32, 1]),
            (window(1, 70, 66, 3, 2, 1, 1), [3, 16, 1]),
            (window(2, 9, 8, 3, 1, 1, 1), [5, 7, 1]),
            (window(1, 12, 12, 5, 1, 2, 4), [4, 24, 2]),
            (window(1, 7, 7, 1, 2, 1, 0), [12, 20, 4]),
            (window(2, 6, 6, 3, 1, 1, 0), [6, 6, 6]),
            (window(1, 2, 2, 5, 1, 1, 4), [2, 3, 1]),
            (window(1, 20, 20, 3, 1, 1, 1), [24, 33, 1]),
            (window(1, 9, 40, 3, 1, 2, 2), [8, 16, 1]),
            (window(2, 20, 20, 7, 2, 1, 3), [3, 24, 1]),
            (window(1, 18, 40, 1, 2, 1, 0), [8, 12, 1]),
            (window(1, 30, 30, 3, 1, 1, 1), [16, 40, 1]),
            (Window { pad_top: 0, pad_left: 0, ..window(1, 16, 16, 3, 2, 1, 1) }, [3, 16, 1]),
        ]
    }

    fn check(
        window: &Window,
        extents: [usize; 3],
        zero_point: u8,
        limits: Limits,
        x: &[u8],
        w: &[i8],
        channels: &[Channel],
    ) {
        let [in_c, out_c, groups] = extents;
        let k = window.taps() * in_c / groups;
        let expected = by_definition(window, extents, zero_point, limits, x, w, channels);
        let mut packed = vec![-1; packed_len(groups, out_c, k)];
        pack(groups, out_c, k, w, channels, &mut packed);
        for isa in Isa::available() {
            for workers in [&Serial as &dyn Workers, &Team(3)] {
                let mut scratch = vec![99; scratch_len(window, in_c, groups, workers.threads())];
                let mut y = vec![99; expected.len()];
                run(
                    isa,
                    workers,
                    window,
                    in_c,
                    out_c,
                    groups,
                    zero_point,
                    limits,
                    x,
                    &packed,
                    &mut scratch,
                    &mut y,
                );
                assert!(y == expected, "{isa:?} {extents:?} {window:?}");
            }
        }
    }

    #[test]
    fn every_isa_equals_the_definition() {
        for (i, (window, extents)) in cases().into_iter().enumerate() {
            let [in_c, out_c, groups] = extents;
            let k = window.taps() * in_c / groups;
            let x = bytes(window.n * window.in_h * window.in_w * in_c, 1);
            let (zero_point, limits) = ((i * 50 + 3) as u8, LIMITS[i % LIMITS.len()]);
            check(&window, extents, zero_point, limits, &x, &weights(out_c * k, 2), &channels(out_c, k, 3));
        }
    }

    #[test]
    fn extremes_do_not_saturate() {
        for (window, extents) in
            [(window(1, 9, 9, 3, 1, 1, 1), [16, 20, 1]), (window(1, 9, 9, 3, 2, 1, 1), [3, 20, 1])]
        {
            let [in_c, out_c, _] = extents;
            let k = window.taps() * in_c;
            let channels = vec![Channel::new(1.0 / (k as f64 * 260.0), 0, 128).unwrap(); out_c];
            for (x, w) in extremes(window.in_h * window.in_w * in_c, out_c * k) {
                check(&window, extents, 255, Limits::NONE, &x, &w, &channels);
            }
        }
    }
}
