//! Depthwise convolution, vectors over channels.

use core::ops::Range;

use super::{simd::Simd, vectors::activate_in_place};
use crate::{
    Act, Window,
    depthwise::{self, Job},
};

/// Output columns in a register tile.
pub(super) const COLUMNS: usize = 4;

/// As many as any instruction set has lanes.
static ZEROS: [f32; 16] = [0.0; 16];

/// One or more adjacent output rows of one vector of channels.
pub(crate) struct Line {
    /// Columns of the window.
    pub window: Window,
    pub c: usize,
    /// Input row of the first row's ky = 0, column 0; only `taps` rows of it exist.
    pub x: *const f32,
    /// Input rows that exist, counted from the first row's ky = 0.
    pub taps: Range<usize>,
    pub bias: *const f32,
    pub weights: *const f32,
    pub low: f32,
    pub high: f32,
    pub y: *mut f32,
}

/// [`crate::depthwise::convolve`].
///
/// # Safety
/// As [`Simd`]; the slices have the lengths of the checked job.
#[inline(always)]
pub(crate) unsafe fn convolve<S: Simd>(job: &Job, rows: Range<usize>, y: &mut [f32]) {
    if job.c < S::LANES {
        return depthwise::convolve(job, rows, y);
    }
    // SAFETY: the caller's promise; vectors of the bias stay inside it as those of pixels.
    unsafe { lines::<S, false>(job, rows, y) }
}

/// The rows of a job at least a vector wide; with `FLIP`, of stride 1 and without a bias, see [`line`].
#[inline(always)]
unsafe fn lines<S: Simd, const FLIP: bool>(job: &Job, rows: Range<usize>, y: &mut [f32]) {
    let &Job { window: w, c, act, x, packed } = job;
    let shape = square(w);
    let (low, high) = act.clamp().unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    let width = w.out_w * c;
    let paired = matches!(shape, (3 | 5, 1 | 2));
    let block = channels_at_once(w);
    let mut channels = 0..0;
    while channels.end < c {
        channels = channels.end..(channels.end + block).min(c);
        let mut row = rows.start;
        while row < rows.end {
            let (image, oy) = (row / w.out_h, row % w.out_h);
            let pair = paired && oy + 1 < w.out_h && row + 1 < rows.end;
            let height = if pair { 2 } else { 1 };
            // Input rows of the first output row, and those that the second adds.
            let mut taps = w.rows(oy);
            if pair {
                let below = w.rows(oy + 1);
                if !below.is_empty() {
                    let below = below.start + w.stride_h..below.end + w.stride_h;
                    taps = if taps.is_empty() { below } else { taps.start..below.end };
                }
            }
            let top = (image * w.in_h + oy * w.stride_h).wrapping_sub(w.pad_top);
            let y = y[(row - rows.start) * width..][..height * width].as_mut_ptr();
            let mut channel = channels.start;
            while channel < channels.end {
                // The last vector may overlap the one before: the same values are written again.
                let at = channel.min(c - S::LANES);
                // SAFETY: `at` + LANES ≤ c, so vectors stay inside pixels; taps outside the input are skipped. The
                // pointer to a missing row is only an address.
                unsafe {
                    let line = Line {
                        window: *w,
                        c,
                        x: x.as_ptr().wrapping_add(top.wrapping_mul(w.in_w * c)).wrapping_add(at),
                        taps: taps.clone(),
                        bias: if FLIP { ZEROS.as_ptr() } else { packed.as_ptr().add(at) },
                        weights: packed.as_ptr().add(c + at),
                        low,
                        high,
                        y: y.add(at),
                    };
                    // Only stride 1 is turned around.
                    match (shape, pair) {
                        ((3, 1), true) => S::depthwise_line::<3, 1, 2, FLIP>(&line),
                        ((3, 1), false) => S::depthwise_line::<3, 1, 1, FLIP>(&line),
                        ((3, 2), true) => S::depthwise_line::<3, 2, 2, false>(&line),
                        ((3, 2), false) => S::depthwise_line::<3, 2, 1, false>(&line),
                        ((5, 1), true) => S::depthwise_line::<5, 1, 2, FLIP>(&line),
                        ((5, 1), false) => S::depthwise_line::<5, 1, 1, FLIP>(&line),
                        ((5, 2), true) => S::depthwise_line::<5, 2, 2, false>(&line),
                        ((5, 2), false) => S::depthwise_line::<5, 2, 1, false>(&line),
                        _ => S::depthwise_line::<0, 0, 1, false>(&line),
                    }
                }
                channel += S::LANES;
            }
            if channels.end == c && act.clamp().is_none() {
                // SAFETY: the rows just written, now in all their channels.
                unsafe { activate_in_place::<S>(act, y, height * width) };
            }
            row += height;
        }
    }
}

/// As many channels as keep the rows that a pair sees in half a first-level cache, in whole cache lines.
fn channels_at_once(w: &Window) -> usize {
    const VALUES: usize = 4096;
    let seen = (w.kernel_h + w.stride_h) * w.in_w;
    (VALUES / seen.max(1)).max(1).next_multiple_of(LINE)
}

/// Values in a cache line.
const LINE: usize = 16;

/// `ROWS` output rows of a square kernel `K` with stride `STRIDE`, or one row of any window (`K` = 0). `FLIP` turns the
/// kernel around: its taps, still in their order, meet the input from the last to the first.
///
/// # Safety
/// As [`Simd`]; the line's pointers are valid for the taps that exist.
#[inline(always)]
pub(crate) unsafe fn line<
    S: Simd,
    const K: usize,
    const STRIDE: usize,
    const ROWS: usize,
    const FLIP: bool,
>(
    l: &Line,
) {
    let w = &l.window;
    // SAFETY: tiles cover the columns whose taps all exist, `edge` skips those that do not.
    unsafe {
        if K == 0 {
            for ox in 0..w.out_w {
                any::<S>(l, ox);
            }
            return;
        }
        let Range { start: first, end } = inner_columns(w, K, STRIDE);
        border::<S, K, STRIDE, ROWS, FLIP>(l, 0..first);
        let mut ox = first;
        while ox < end {
            // Widths as equal as can be: a narrow tile waits for its own sums.
            let left = end - ox;
            let width = left.div_ceil(left.div_ceil(COLUMNS));
            match width {
                COLUMNS => tile::<S, K, STRIDE, ROWS, COLUMNS, false, FLIP>(l, ox),
                3 => tile::<S, K, STRIDE, ROWS, 3, false, FLIP>(l, ox),
                2 => tile::<S, K, STRIDE, ROWS, 2, false, FLIP>(l, ox),
                _ => tile::<S, K, STRIDE, ROWS, 1, false, FLIP>(l, ox),
            }
            ox += width;
        }
        border::<S, K, STRIDE, ROWS, FLIP>(l, end..w.out_w);
    }
}

/// Columns some of whose taps do not exist.
#[inline(always)]
unsafe fn border<S: Simd, const K: usize, const STRIDE: usize, const ROWS: usize, const FLIP: bool>(
    l: &Line,
    columns: Range<usize>,
) {
    let mut ox = columns.start;
    // SAFETY: the tiles skip taps that do not exist.
    unsafe {
        while ox + 2 <= columns.end {
            tile::<S, K, STRIDE, ROWS, 2, true, FLIP>(l, ox);
            ox += 2;
        }
        if ox < columns.end {
            tile::<S, K, STRIDE, ROWS, 1, true, FLIP>(l, ox);
        }
    }
}

/// `ROWS` x `COLS` outputs; all their columns exist unless `BORDER`.
#[inline(always)]
unsafe fn tile<
    S: Simd,
    const K: usize,
    const STRIDE: usize,
    const ROWS: usize,
    const COLS: usize,
    const BORDER: bool,
    const FLIP: bool,
>(
    l: &Line,
    ox: usize,
) {
    let (w, c) = (&l.window, l.c);
    // SAFETY: rows of `taps` exist, and columns that the padding does not hold.
    unsafe {
        let bias = S::load(l.bias);
        let mut sums = [[bias; COLS]; ROWS];
        let left = (ox * STRIDE).wrapping_sub(w.pad_left);
        for step in 0..K + (ROWS - 1) * STRIDE {
            let r = if FLIP { K + (ROWS - 1) * STRIDE - 1 - step } else { step };
            if r < l.taps.start || r >= l.taps.end {
                continue;
            }
            let x = l.x.wrapping_add(r * w.in_w * c);
            for kx in 0..K {
                let mut weights = [bias; ROWS];
                for i in 0..ROWS {
                    if r >= i * STRIDE && r < i * STRIDE + K {
                        let below = r - i * STRIDE;
                        let ky = if FLIP { K - 1 - below } else { below };
                        weights[i] = S::load(l.weights.add((ky * K + kx) * c));
                    }
                }
                for j in 0..COLS {
                    let column = left.wrapping_add(j * STRIDE + if FLIP { K - 1 - kx } else { kx });
                    // One comparison: what lies left of the input has wrapped.
                    if BORDER && column >= w.in_w {
                        continue;
                    }
                    let value = S::load(x.wrapping_add(column.wrapping_mul(c)));
                    for i in 0..ROWS {
                        if r >= i * STRIDE && r < i * STRIDE + K {
                            sums[i][j] = S::fma(value, weights[i], sums[i][j]);
                        }
                    }
                }
            }
        }
        let (low, high) = (S::splat(l.low), S::splat(l.high));
        for i in 0..ROWS {
            for j in 0..COLS {
                S::store(l.y.add((i * w.out_w + ox + j) * c), S::min(high, S::max(low, sums[i][j])));
            }
        }
    }
}

/// One output of any window.
#[inline(always)]
unsafe fn any<S: Simd>(l: &Line, ox: usize) {
    let (w, c) = (&l.window, l.c);
    // SAFETY: rows of `taps` and columns of `columns` exist.
    unsafe {
        let mut sum = S::load(l.bias);
        let columns = w.columns(ox);
        for ky in l.taps.clone() {
            for kx in columns.clone() {
                let value = S::load(l.x.wrapping_add((ky * w.dilation_h * w.in_w + w.column(ox, kx)) * c));
                sum = S::fma(value, S::load(l.weights.add((ky * w.kernel_w + kx) * c)), sum);
            }
        }
        S::store(l.y.add(ox * c), S::min(S::splat(l.high), S::max(S::splat(l.low), sum)));
    }
}

/// [`crate::depthwise::depthwise_input_gradient`].
///
/// # Safety
/// As [`Simd`]; the slices have the lengths of the checked operation.
#[inline(always)]
pub(crate) unsafe fn input_gradient<S: Simd>(
    w: &Window,
    c: usize,
    dy: &[f32],
    packed: &[f32],
    rows: Range<usize>,
    dx: &mut [f32],
) {
    let shape = square(w);
    let pads = (w.kernel_h.checked_sub(1 + w.pad_top), w.kernel_w.checked_sub(1 + w.pad_left));
    if let ((3 | 5, 1), (Some(pad_top), Some(pad_left))) = (shape, pads)
        && c >= S::LANES
    {
        // A convolution of dy, back to the extents of x.
        let back =
            Window { in_h: w.out_h, in_w: w.out_w, out_h: w.in_h, out_w: w.in_w, pad_top, pad_left, ..*w };
        let job = Job { window: &back, c, act: Act::None, x: dy, packed };
        // SAFETY: the caller's promise; dy and dx have the lengths that the window back asks for.
        return unsafe { lines::<S, true>(&job, rows, dx) };
    }
    if !matches!(shape, (3 | 5, 2)) || c < S::LANES {
        return depthwise::depthwise_input_gradient(w, c, dy, packed, rows, dx);
    }
    for (row, dx) in rows.zip(dx.chunks_exact_mut(w.in_w * c)) {
        let (image, padded) = (row / w.in_h, row % w.in_h + w.pad_top);
        let mut channel = 0;
        loop {
            // SAFETY: `channel` + LANES ≤ c, so vectors stay inside pixels; outputs that do not exist are skipped.
            unsafe {
                let line = SpreadLine {
                    window: w,
                    c,
                    dy: dy.as_ptr().wrapping_add(image * w.out_h * w.out_w * c + channel),
                    padded,
                    weights: packed.as_ptr().add(c + channel),
                    dx: dx.as_mut_ptr().add(channel),
                };
                match shape {
                    (3, _) => S::depthwise_spread_line::<3>(&line),
                    _ => S::depthwise_spread_line::<5>(&line),
                }
            }
            if channel + S::LANES >= c {
                break;
            }
            // As in `lines`, the same values may be written again.
            channel = (channel + S::LANES).min(c - S::LANES);
        }
    }
}

/// One row of one vector of channels of an input gradient of stride 2.
pub(crate) struct SpreadLine<'a> {
    pub window: &'a Window,
    pub c: usize,
    /// Output row 0 of the image.
    pub dy: *const f32,
    /// The input row, counted from the first row of padding.
    pub padded: usize,
    pub weights: *const f32,
    pub dx: *mut f32,
}

/// A row of a square kernel `K`, pairs of columns at a time: columns at an even distance from the padding's first see even
/// kx, the others odd kx.
///
/// # Safety
/// As [`Simd`]; the line's pointers are valid for its window.
#[inline(always)]
pub(crate) unsafe fn spread_line<S: Simd, const K: usize>(l: &SpreadLine) {
    let w = l.window;
    // Pairs that hold a column of x, and among them those that hold two and see only outputs that exist.
    let pairs = w.pad_left / 2..(w.pad_left + w.in_w).div_ceil(2);
    let first = w.pad_left.div_ceil(2).max(K / 2).min(pairs.end);
    let end = ((w.pad_left + w.in_w) / 2).min(w.out_w).max(first);
    // SAFETY: `spread_tile` skips what does not exist where something may not.
    unsafe {
        for pair in pairs.start..first {
            spread_tile::<S, K, 1, true>(l, pair);
        }
        let mut pair = first;
        while pair + COLUMNS <= end {
            spread_tile::<S, K, COLUMNS, false>(l, pair);
            pair += COLUMNS;
        }
        match end - pair {
            3 => spread_tile::<S, K, 3, false>(l, pair),
            2 => spread_tile::<S, K, 2, false>(l, pair),
            1 => spread_tile::<S, K, 1, false>(l, pair),
            _ => {}
        }
        for pair in end..pairs.end {
            spread_tile::<S, K, 1, true>(l, pair);
        }
    }
}

/// `PAIRS` pairs of columns; they and all outputs in their columns exist unless `BORDER`.
#[inline(always)]
unsafe fn spread_tile<S: Simd, const K: usize, const PAIRS: usize, const BORDER: bool>(
    l: &SpreadLine,
    pair: usize,
) {
    let (w, c) = (l.window, l.c);
    // SAFETY: loads and stores are of outputs and columns that exist.
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; PAIRS];
        for ky in (l.padded % 2..K).step_by(2) {
            // What lies above the first output row wraps.
            let oy = (l.padded / 2).wrapping_sub(ky / 2);
            if oy >= w.out_h {
                continue;
            }
            let dy = l.dy.add(oy * w.out_w * c);
            for kx in 0..K {
                let weights = S::load(l.weights.add((ky * K + kx) * c));
                for j in 0..PAIRS {
                    let ox = (pair + j).wrapping_sub(kx / 2);
                    if BORDER && ox >= w.out_w {
                        continue;
                    }
                    let value = S::load(dy.add(ox * c));
                    sums[j][kx % 2] = S::fma(value, weights, sums[j][kx % 2]);
                }
            }
        }
        for j in 0..PAIRS {
            for side in 0..2 {
                let column = (2 * (pair + j) + side).wrapping_sub(w.pad_left);
                if !BORDER || column < w.in_w {
                    S::store(l.dx.add(column * c), sums[j][side]);
                }
            }
        }
    }
}

/// Size and stride of a square kernel without dilation, or zeros.
pub(super) fn square(w: &Window) -> (usize, usize) {
    let plain =
        (w.dilation_h, w.dilation_w) == (1, 1) && w.kernel_h == w.kernel_w && w.stride_h == w.stride_w;
    if plain { (w.kernel_h, w.stride_h) } else { (0, 0) }
}

/// The output columns whose window lies inside the input.
#[inline(always)]
pub(super) fn inner_columns(w: &Window, kernel: usize, stride: usize) -> Range<usize> {
    let first = w.pad_left.div_ceil(stride).min(w.out_w);
    let end = (w.in_w + w.pad_left).checked_sub(kernel).map_or(0, |last| last / stride + 1);
    first..end.clamp(first, w.out_w)
}
