//! Weight gradient of depthwise convolution, vectors over channels.

use core::ops::Range;

use super::{
    depthwise::{COLUMNS, inner_columns, square},
    simd::Simd,
};
use crate::{Window, depthwise, workers::View};

/// Most lanes of a vector of any instruction set.
const MOST_LANES: usize = 16;

/// Values of x and dy that stay in a quarter of a second-level cache of 512 KiB.
const CACHED: usize = 32 * 1024;

/// Some rows of one vector of channels of a weight gradient.
pub(crate) struct Strip<'a> {
    pub window: &'a Window,
    pub c: usize,
    pub dy: *const f32,
    pub x: *const f32,
    pub dw: *mut f32,
    /// Output rows, counted through the batch.
    pub rows: Range<usize>,
    /// Lanes at the front that belong to the strip before.
    pub skip: usize,
}

/// One output row of a strip, seen by some rows of the kernel.
struct Line<'a> {
    window: &'a Window,
    c: usize,
    dy: *const f32,
    /// Input row of the first of these kernel rows, column 0; only `taps` rows of it exist.
    x: *const f32,
    /// Input rows that exist, counted from the first of these kernel rows.
    taps: Range<usize>,
}

/// [`crate::depthwise::depthwise_weight_gradient`].
///
/// # Safety
/// As [`Simd`]; the slices have the lengths of the checked operation, `dw` is `[taps][c]` from `channel` on.
#[inline(always)]
pub(crate) unsafe fn gradient<S: Simd>(
    w: &Window,
    c: usize,
    dy: &[f32],
    x: &[f32],
    channel: usize,
    mut dw: View,
) {
    let shape = square(w);
    if c < S::LANES || !matches!(shape, (3 | 5, 1 | 2)) {
        return depthwise::depthwise_weight_gradient(w, c, dy, x, channel, dw);
    }
    // Strips take turns with the rows that are in the cache: one alone reads less of a line than the memory delivers.
    let (rows, row_len) = (w.n * w.out_h, (w.in_w * w.stride_h + w.out_w) * dw.columns());
    let step = (CACHED / row_len.max(1)).clamp(1, rows.max(1));
    for top in (0..rows).step_by(step) {
        for from in (0..dw.columns()).step_by(S::LANES) {
            let skip = (channel + from + S::LANES).saturating_sub(c);
            let first = channel + from - skip;
            // SAFETY: `first` + LANES ≤ c, so vectors of dy and x stay inside pixels; lanes of dw before `skip`, which may
            // be another's, are not touched.
            unsafe {
                let strip = Strip {
                    window: w,
                    c,
                    dy: dy.as_ptr().wrapping_add(first),
                    x: x.as_ptr().wrapping_add(first),
                    dw: dw.as_mut_ptr().wrapping_add(from).wrapping_sub(skip),
                    rows: top..rows.min(top + step),
                    skip,
                };
                match shape {
                    (3, 1) => S::depthwise_weight_strip::<3, 1>(&strip),
                    (3, _) => S::depthwise_weight_strip::<3, 2>(&strip),
                    (_, 1) => S::depthwise_weight_strip::<5, 1>(&strip),
                    _ => S::depthwise_weight_strip::<5, 2>(&strip),
                }
            }
        }
    }
}

/// All rows of a strip, with the sums of `ROWS` rows of the kernel in registers at a time.
///
/// # Safety
/// As [`Simd`]; the strip's pointers are valid for its window.
#[inline(always)]
pub(crate) unsafe fn strip<S: Simd, const K: usize, const STRIDE: usize, const ROWS: usize>(s: &Strip) {
    let (w, c) = (s.window, s.c);
    let inner = inner_columns(w, K, STRIDE);
    // SAFETY: tiles cover the columns whose taps all exist, or skip those that do not.
    unsafe {
        for first in (0..K).step_by(ROWS) {
            let mut sums = [[S::splat(0.0); K]; ROWS];
            for r in 0..ROWS {
                for kx in 0..K {
                    if first + r < K {
                        sums[r][kx] = load_from::<S>(s.dw.wrapping_add(((first + r) * K + kx) * c), s.skip);
                    }
                }
            }
            for row in s.rows.clone() {
                let (image, oy) = (row / w.out_h, row % w.out_h);
                let taps = w.rows(oy);
                let top = (image * w.in_h + oy * STRIDE + first).wrapping_sub(w.pad_top);
                let line = Line {
                    window: w,
                    c,
                    x: s.x.wrapping_add(top.wrapping_mul(w.in_w * c)),
                    taps: taps.start.saturating_sub(first)..taps.end.saturating_sub(first),
                    dy: s.dy.add(row * w.out_w * c),
                };
                border::<S, K, STRIDE, ROWS>(&line, 0..inner.start, &mut sums);
                let mut ox = inner.start;
                while ox + COLUMNS <= inner.end {
                    tile::<S, K, STRIDE, ROWS, COLUMNS, false>(&line, ox, &mut sums);
                    ox += COLUMNS;
                }
                match inner.end - ox {
                    3 => tile::<S, K, STRIDE, ROWS, 3, false>(&line, ox, &mut sums),
                    2 => tile::<S, K, STRIDE, ROWS, 2, false>(&line, ox, &mut sums),
                    1 => tile::<S, K, STRIDE, ROWS, 1, false>(&line, ox, &mut sums),
                    _ => {}
                }
                border::<S, K, STRIDE, ROWS>(&line, inner.end..w.out_w, &mut sums);
            }
            for r in 0..ROWS {
                for kx in 0..K {
                    if first + r < K {
                        store_from::<S>(s.dw.wrapping_add(((first + r) * K + kx) * c), s.skip, sums[r][kx]);
                    }
                }
            }
        }
    }
}

/// Columns some of whose taps do not exist.
#[inline(always)]
unsafe fn border<S: Simd, const K: usize, const STRIDE: usize, const ROWS: usize>(
    l: &Line,
    columns: Range<usize>,
    sums: &mut [[S::V; K]; ROWS],
) {
    let mut ox = columns.start;
    // SAFETY: the tiles skip taps that do not exist.
    unsafe {
        while ox + 2 <= columns.end {
            tile::<S, K, STRIDE, ROWS, 2, true>(l, ox, sums);
            ox += 2;
        }
        if ox < columns.end {
            tile::<S, K, STRIDE, ROWS, 1, true>(l, ox, sums);
        }
    }
}

/// What `COLS` adjacent outputs add to the sums; all their columns exist unless `BORDER`.
#[inline(always)]
unsafe fn tile<
    S: Simd,
    const K: usize,
    const STRIDE: usize,
    const ROWS: usize,
    const COLS: usize,
    const BORDER: bool,
>(
    l: &Line,
    ox: usize,
    sums: &mut [[S::V; K]; ROWS],
) {
    let (w, c) = (l.window, l.c);
    // SAFETY: rows of `taps` exist, and columns that the padding does not hold.
    unsafe {
        let mut dy = [S::splat(0.0); COLS];
        for j in 0..COLS {
            dy[j] = S::load(l.dy.add((ox + j) * c));
        }
        let left = (ox * STRIDE).wrapping_sub(w.pad_left);
        for r in 0..ROWS {
            if r < l.taps.start || r >= l.taps.end {
                continue;
            }
            let x = l.x.wrapping_add(r * w.in_w * c);
            // Every column is loaded once, and meets the outputs of a tap in their order.
            for i in 0..(COLS - 1) * STRIDE + K {
                let column = left.wrapping_add(i);
                if BORDER && column >= w.in_w {
                    continue;
                }
                let value = S::load(x.wrapping_add(column.wrapping_mul(c)));
                for j in 0..COLS {
                    if i >= j * STRIDE && i < j * STRIDE + K {
                        let kx = i - j * STRIDE;
                        sums[r][kx] = S::fma(dy[j], value, sums[r][kx]);
                    }
                }
            }
        }
    }
}

/// A vector whose first `skip` lanes, zero here, are not read.
#[inline(always)]
unsafe fn load_from<S: Simd>(from: *const f32, skip: usize) -> S::V {
    // SAFETY: the other lanes are readable.
    unsafe {
        if skip == 0 {
            return S::load(from);
        }
        let mut lanes = [0.0; MOST_LANES];
        for i in skip..S::LANES {
            lanes[i] = *from.wrapping_add(i);
        }
        S::load(lanes.as_ptr())
    }
}

/// Stores a vector but for its first `skip` lanes.
#[inline(always)]
unsafe fn store_from<S: Simd>(to: *mut f32, skip: usize, v: S::V) {
    // SAFETY: the other lanes are writable.
    unsafe {
        if skip == 0 {
            return S::store(to, v);
        }
        let mut lanes = [0.0; MOST_LANES];
        S::store(lanes.as_mut_ptr(), v);
        for i in skip..S::LANES {
            *to.wrapping_add(i) = lanes[i];
        }
    }
}
