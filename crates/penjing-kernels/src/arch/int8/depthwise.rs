//! Depthwise convolution. Bytes of up to four rows are interleaved, so that a dot product adds four vertical taps of a
//! channel; one interleaved column serves all outputs that see it, of two rows where the stride is 1.

use core::{mem::MaybeUninit, ops::Range};

use super::Bytes;
use crate::{
    Window,
    arch::depthwise::square,
    int8::{
        HEAD, Limits, OFFSETS, PANEL, WEIGHT_SUMS,
        depthwise::{self, Job},
    },
};

/// Output rows of a channel for each lane of four vectors.
pub(crate) struct Block<'a> {
    pub job: &'a Job<'a>,
    pub channel: usize,
    pub rows: Range<usize>,
    pub y: *mut u8,
}

/// [`crate::int8::depthwise::convolve`].
///
/// # Safety
/// As [`Bytes`]; the slices have the lengths of the checked job.
#[inline(always)]
pub(crate) unsafe fn convolve<S: Bytes>(job: &Job, rows: Range<usize>, y: &mut [u8]) {
    if job.c < 4 * smallest::<S>() {
        return depthwise::convolve(job, rows, y);
    }
    // SAFETY: the caller's promise.
    unsafe {
        let channel = blocks::<S>(job, 0, &rows, y);
        let channel = blocks::<S::Half>(job, channel, &rows, y);
        let channel = blocks::<<S::Half as Bytes>::Half>(job, channel, &rows, y);
        if channel < job.c {
            // The last block overlaps the one before: the same values are written again.
            blocks::<<S::Half as Bytes>::Half>(job, job.c - 4 * smallest::<S>(), &rows, y);
        }
    }
}

const fn smallest<S: Bytes>() -> usize {
    <<S::Half as Bytes>::Half as Bytes>::LANES
}

/// As many blocks as fit behind `channel`; returns the channel behind the last.
#[inline(always)]
unsafe fn blocks<S: Bytes>(job: &Job, mut channel: usize, rows: &Range<usize>, y: &mut [u8]) -> usize {
    while channel + 4 * S::LANES <= job.c {
        let block = Block { job, channel, rows: rows.clone(), y: y.as_mut_ptr() };
        // SAFETY: the channels exist, and y has all of the rows.
        unsafe {
            match square(job.window) {
                (3, 1) => S::depthwise_block::<3, 1>(&block),
                (3, 2) => S::depthwise_block::<3, 2>(&block),
                (5, 1) => S::depthwise_block::<5, 1>(&block),
                (5, 2) => S::depthwise_block::<5, 2>(&block),
                _ => S::depthwise_block::<0, 0>(&block),
            }
        }
        channel += 4 * S::LANES;
    }
    channel
}

/// What a block's channels need, in the order of interleaved vectors.
#[repr(align(64))]
#[allow(dead_code)]
struct Heads([[i32; HEAD]; 4]);

/// Vectors of interleaved weights: 5 columns of 6 rows, in quads, for each of two rows.
const WEIGHTS: usize = 5 * 2 * 4 * 2;

/// A square kernel `K` with stride `STRIDE`, or any (`K` = 0).
///
/// # Safety
/// As [`Bytes`]; the block is inside its job.
#[inline(always)]
pub(crate) unsafe fn block<S: Bytes, const K: usize, const STRIDE: usize>(b: &Block) {
    let (job, w) = (b.job, b.job.window);
    let mut heads = MaybeUninit::<Heads>::uninit();
    let padding = [job.zero_point; 64];
    // SAFETY: `prepare` writes all that is read of the heads; rows and columns outside the input are never read.
    unsafe {
        let heads = heads.as_mut_ptr().cast::<i32>();
        prepare_heads::<S>(job, b.channel, heads);
        if const { K == 0 } {
            return any::<S>(b, heads);
        }
        let mut weights = MaybeUninit::<[S::W; WEIGHTS]>::uninit();
        let weights = weights.as_mut_ptr().cast::<S::W>();
        prepare_weights::<S, K>(job, b.channel, weights);
        let mut row = b.rows.start;
        while row < b.rows.end {
            let (image, oy) = (row / w.out_h, row % w.out_h);
            let pair = STRIDE == 1 && oy + 1 < w.out_h && row + 1 < b.rows.end;
            let line = Line {
                window: w,
                c: job.c,
                image: job.x.as_ptr().add(image * w.in_h * w.in_w * job.c + b.channel),
                top: (oy * w.stride_h).wrapping_sub(w.pad_top),
                padding: padding.as_ptr(),
                limits: job.limits,
                heads,
                weights,
                y: b.y.add((row - b.rows.start) * w.out_w * job.c + b.channel),
            };
            if const { STRIDE == 1 } && pair {
                self::line::<S, K, STRIDE, 2>(&line);
            } else {
                self::line::<S, K, STRIDE, 1>(&line);
            }
            row += if pair { 2 } else { 1 };
        }
    }
}

/// Which of the block's channels lane `lane` of vector `v` holds once rows are interleaved: in groups of 16 bytes, each
/// vector has four of each group.
const fn channel_of(v: usize, lane: usize) -> usize {
    lane / 4 * 16 + 4 * v + lane % 4
}

#[inline(always)]
unsafe fn prepare_heads<S: Bytes>(job: &Job, channel: usize, heads: *mut i32) {
    let (c, taps) = (job.c, job.window.taps());
    // SAFETY: the packed weights are those of c channels, and the heads have room for four vectors.
    unsafe {
        let multipliers = job.packed.as_ptr().add(channel);
        let offsets = job.packed.as_ptr().add(c + 2 * channel).cast::<[i32; 2]>();
        let bytes = job.packed.as_ptr().add(3 * c).cast::<i8>().add(channel);
        for v in 0..4 {
            let head = heads.add(v * HEAD);
            let long = |at: usize| head.add(OFFSETS + at % 2 * PANEL + at / 2 * 2).cast::<[i32; 2]>();
            for lane in 0..S::LANES {
                *head.add(lane) = *multipliers.add(channel_of(v, lane));
                *long(lane) = *offsets.add(channel_of(v, lane));
                if S::FLIPS {
                    let weights = (0..taps).map(|tap| i32::from(*bytes.add(tap * c + channel_of(v, lane))));
                    *head.add(WEIGHT_SUMS + lane) = weights.sum();
                }
            }
            // `Bytes::requantize` may read one more than there are.
            if S::LANES < PANEL {
                *head.add(S::LANES) = 0;
            }
        }
    }
}

/// Quads of rows that `ROWS` output rows see.
const fn quads(k: usize, rows: usize) -> usize {
    (k + rows - 1).div_ceil(4)
}

/// `[kx][quad][row 0 or 1][v]`: what row 1 sees begins one lower.
#[inline(always)]
const fn weight_at(k: usize, kx: usize, quad: usize, row: usize) -> usize {
    ((kx * quads(k, 2) + quad) * 2 + row) * 4
}

#[inline(always)]
unsafe fn prepare_weights<S: Bytes, const K: usize>(job: &Job, channel: usize, weights: *mut S::W) {
    // SAFETY: as in `prepare_heads`.
    unsafe {
        let zeros = [0u8; 64];
        let bytes = job.packed.as_ptr().add(3 * job.c).cast::<u8>().add(channel);
        for kx in 0..K {
            for quad in 0..quads(K, 2) {
                for row in 0..2 {
                    let mut four = [S::load(zeros.as_ptr()); 4];
                    for i in 0..4 {
                        let ky = (quad * 4 + i).wrapping_sub(row);
                        if ky < K {
                            four[i] = S::load(bytes.add((ky * K + kx) * job.c));
                        }
                    }
                    let four = S::interleave(four);
                    for v in 0..4 {
                        *weights.add(weight_at(K, kx, quad, row) + v) = S::weights(four[v]);
                    }
                }
            }
        }
    }
}

/// One output row of a block, or two.
struct Line<'a, W> {
    window: &'a Window,
    c: usize,
    /// The block's first channel of the image.
    image: *const u8,
    /// The input row of ky = 0; what lies above the input has wrapped.
    top: usize,
    /// A pixel of zero points.
    padding: *const u8,
    limits: Limits,
    heads: *const i32,
    weights: *const W,
    y: *mut u8,
}

#[inline(always)]
unsafe fn line<S: Bytes, const K: usize, const STRIDE: usize, const ROWS: usize>(l: &Line<S::W>) {
    let w = l.window;
    // In quads; rows outside the input are the padding, wherever the column.
    let mut rows = [Row { from: l.padding, mask: 0 }; 8];
    for r in 0..K + ROWS - 1 {
        let row = l.top.wrapping_add(r);
        if row < w.in_h {
            // SAFETY: the row is inside the image.
            rows[r] = Row { from: unsafe { l.image.add(row * w.in_w * l.c) }, mask: usize::MAX };
        }
    }
    // SAFETY: the tiles cover the columns once.
    unsafe {
        let mut ox = 0;
        while ox < w.out_w {
            if const { S::COLUMNS == 3 } && ox + 3 <= w.out_w {
                tile::<S, K, STRIDE, ROWS, 3>(l, &rows, ox);
                ox += 3;
            } else if const { S::COLUMNS >= 2 } && ox + 2 <= w.out_w {
                tile::<S, K, STRIDE, ROWS, 2>(l, &rows, ox);
                ox += 2;
            } else {
                tile::<S, K, STRIDE, ROWS, 1>(l, &rows, ox);
                ox += 1;
            }
        }
    }
}

/// A row of the input from the block's first channel on; the mask keeps to the start of a row that is padding.
#[derive(Clone, Copy)]
struct Row {
    from: *const u8,
    mask: usize,
}

/// `ROWS` x `COLS` outputs.
#[inline(always)]
unsafe fn tile<S: Bytes, const K: usize, const STRIDE: usize, const ROWS: usize, const COLS: usize>(
    l: &Line<S::W>,
    rows: &[Row; 8],
    ox: usize,
) {
    const { assert!((COLS - 1) * STRIDE + K <= 9) };
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[[S::start(l.heads.add(WEIGHT_SUMS)); 4]; COLS]; ROWS];
        for v in 0..4 {
            let start = S::start(l.heads.add(v * HEAD + WEIGHT_SUMS));
            for i in 0..ROWS {
                for j in 0..COLS {
                    sums[i][j][v] = start;
                }
            }
        }
        let left = (ox * STRIDE).wrapping_sub(l.window.pad_left);
        for quad in 0..quads(K, ROWS) {
            let rows = &rows[4 * quad..4 * quad + 4];
            let weights = l.weights.add(weight_at(K, 0, quad, 0));
            // Not a loop: an index into `sums` that only the run knows would keep all of them in memory.
            column::<S, K, STRIDE, ROWS, COLS, 0>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 1>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 2>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 3>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 4>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 5>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 6>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 7>(l, rows, left, weights, &mut sums);
            column::<S, K, STRIDE, ROWS, COLS, 8>(l, rows, left, weights, &mut sums);
        }
        for i in 0..ROWS {
            for j in 0..COLS {
                let y = l.y.add((i * l.window.out_w + ox + j) * l.c);
                finish::<S>(l.heads, sums[i][j], l.limits, y);
            }
        }
    }
}

/// Adds what input column `STEP` of a tile has for each of the tile's outputs.
#[inline(always)]
unsafe fn column<
    S: Bytes,
    const K: usize,
    const STRIDE: usize,
    const ROWS: usize,
    const COLS: usize,
    const STEP: usize,
>(
    l: &Line<S::W>,
    rows: &[Row],
    left: usize,
    weights: *const S::W,
    sums: &mut [[[S::Sums; 4]; COLS]; ROWS],
) {
    if const { STEP >= (COLS - 1) * STRIDE + K } {
        return;
    }
    let column = left.wrapping_add(STEP);
    // One comparison: what lies left of the input has wrapped.
    let inside = column < l.window.in_w;
    let offset = if inside { column * l.c } else { 0 };
    let row = |r: usize| {
        let row = rows[r];
        if inside { row.from.wrapping_add(offset & row.mask) } else { l.padding }
    };
    // SAFETY: rows and columns outside the input read the padding.
    unsafe {
        let four = S::interleave([S::load(row(0)), S::load(row(1)), S::load(row(2)), S::load(row(3))]);
        vector::<S, K, STRIDE, ROWS, COLS, STEP, 0>(S::inputs(four[0]), weights, sums);
        vector::<S, K, STRIDE, ROWS, COLS, STEP, 1>(S::inputs(four[1]), weights, sums);
        vector::<S, K, STRIDE, ROWS, COLS, STEP, 2>(S::inputs(four[2]), weights, sums);
        vector::<S, K, STRIDE, ROWS, COLS, STEP, 3>(S::inputs(four[3]), weights, sums);
    }
}

#[inline(always)]
unsafe fn vector<
    S: Bytes,
    const K: usize,
    const STRIDE: usize,
    const ROWS: usize,
    const COLS: usize,
    const STEP: usize,
    const V: usize,
>(
    x: S::X,
    weights: *const S::W,
    sums: &mut [[[S::Sums; 4]; COLS]; ROWS],
) {
    for j in 0..COLS {
        let kx = STEP.wrapping_sub(j * STRIDE);
        if kx < K {
            for i in 0..ROWS {
                // SAFETY: the weights are those of all columns.
                unsafe {
                    let weights = *weights.add(weight_at(K, kx, 0, i) + V);
                    sums[i][j][V] = S::dot(sums[i][j][V], x, weights);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn finish<S: Bytes>(heads: *const i32, sums: [S::Sums; 4], limits: Limits, y: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut vectors = [S::total(sums[0]); 4];
        for v in 0..4 {
            vectors[v] = S::requantize(S::total(sums[v]), heads.add(v * HEAD));
        }
        S::store(y, S::narrow(vectors, limits));
    }
}

/// Any window: four taps at a time, in their order.
#[inline(always)]
unsafe fn any<S: Bytes>(b: &Block, heads: *const i32) {
    let (job, w) = (b.job, b.job.window);
    let (padding, zeros) = ([job.zero_point; 64], [0u8; 64]);
    // SAFETY: taps outside the input read the padding, those behind the last read zeros.
    unsafe {
        let weights = job.packed.as_ptr().add(3 * job.c).cast::<u8>().add(b.channel);
        for row in b.rows.clone() {
            let (image, oy) = (row / w.out_h, row % w.out_h);
            let taps_y = w.rows(oy);
            for ox in 0..w.out_w {
                let taps_x = w.columns(ox);
                let mut sums = [S::start(heads.add(WEIGHT_SUMS)); 4];
                for v in 0..4 {
                    sums[v] = S::start(heads.add(v * HEAD + WEIGHT_SUMS));
                }
                for first in (0..w.taps()).step_by(4) {
                    let mut pointers = [(padding.as_ptr(), zeros.as_ptr()); 4];
                    for (i, (x, weight)) in pointers.iter_mut().enumerate().take(w.taps() - first) {
                        let (ky, kx) = ((first + i) / w.kernel_w, (first + i) % w.kernel_w);
                        *weight = weights.add((first + i) * job.c);
                        if taps_y.contains(&ky) && taps_x.contains(&kx) {
                            let line = (image * w.in_h + w.row(oy, ky)) * w.in_w;
                            *x = job.x.as_ptr().add((line + w.column(ox, kx)) * job.c + b.channel);
                        }
                    }
                    let x = S::interleave(pointers.map(|(x, _)| S::load(x)));
                    let weights = S::interleave(pointers.map(|(_, weight)| S::load(weight)));
                    for v in 0..4 {
                        sums[v] = S::dot(sums[v], S::inputs(x[v]), S::weights(weights[v]));
                    }
                }
                let y = b.y.add(((row - b.rows.start) * w.out_w + ox) * job.c + b.channel);
                finish::<S>(heads, sums, job.limits, y);
            }
        }
    }
}
