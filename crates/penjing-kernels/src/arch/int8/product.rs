//! Register tiles of the matrix product.

use core::{mem::MaybeUninit, ptr};

use super::Bytes;
use crate::{
    int8::{
        HEAD, Limits, PANEL, WEIGHT_SUMS,
        pointwise::{Block, panel_len},
    },
    workers::View,
};

/// Register tiles of one size, one below the other.
pub(crate) struct Tile {
    pub count: usize,
    pub x: *const u8,
    pub x_stride: usize,
    pub k: usize,
    /// Head and weights of the first panel.
    pub w: *const i32,
    /// From panel to panel.
    pub w_stride: usize,
    pub limits: Limits,
    /// Bytes of the result, or null.
    pub y: *mut u8,
    /// The result in floats, if not in bytes.
    pub floats: *mut f32,
    pub y_stride: usize,
    /// Columns to store.
    pub columns: usize,
}

/// Rows that pass the weights at a time: whole tiles of most heights.
const ROW_STEP: usize = 56;
/// Weights up to this length, in words, stay in half of a second-level cache of 1 MiB while rows pass by.
const RESIDENT: usize = 128 * 1024;

/// [`crate::int8::pointwise::product`] in register tiles.
///
/// # Safety
/// As [`Bytes`]; the lengths of `block` fit `y`, and neither has extent 0.
#[inline(always)]
pub(crate) unsafe fn product<S: Bytes>(block: &Block, mut y: View<u8>) {
    // SAFETY: the caller's promise.
    unsafe { walk::<S>(block, y.rows(), y.columns(), y.stride(), y.as_mut_ptr(), ptr::null_mut()) };
}

/// [`crate::int8::pointwise::product_floats`] in register tiles.
///
/// # Safety
/// As [`product`].
#[inline(always)]
pub(crate) unsafe fn product_floats<S: Bytes>(block: &Block, mut y: View<f32>) {
    // SAFETY: the caller's promise.
    unsafe { walk::<S>(block, y.rows(), y.columns(), y.stride(), ptr::null_mut(), y.as_mut_ptr()) };
}

#[inline(always)]
unsafe fn walk<S: Bytes>(
    block: &Block,
    rows: usize,
    columns: usize,
    stride: usize,
    y: *mut u8,
    floats: *mut f32,
) {
    let (vectors, per_panel) = (columns.div_ceil(S::LANES), PANEL / S::LANES);
    // Small weights stay in cache while rows pass once; large ones are read once while the rows stay.
    let step = if block.packed.len() <= RESIDENT { ROW_STEP } else { rows };
    let mut first = 0;
    while first < rows {
        let height = step.min(rows - first);
        let mut vector = 0;
        while vector < vectors {
            let group = group::<S>(vectors - vector);
            let column = vector * S::LANES;
            // Heights as equal as can be.
            let tiles = height.div_ceil(S::TILE_ROWS[group - 1]);
            let (short, longer) = (height / tiles, height % tiles);
            let mut row = first;
            for (tall, count) in [(short + 1, longer), (short, tiles - longer)] {
                if count == 0 {
                    continue;
                }
                let at = row * stride + column;
                // SAFETY: rows, panels and columns lie inside the slices whose lengths `block` has checked.
                unsafe {
                    let tile = Tile {
                        count,
                        x: block.x.as_ptr().add(row * block.x_stride),
                        x_stride: block.x_stride,
                        k: block.k,
                        w: block.packed.as_ptr().add(vector / per_panel * panel_len(block.k)),
                        w_stride: panel_len(block.k),
                        limits: block.limits,
                        y: if y.is_null() { y } else { y.add(at) },
                        floats: if floats.is_null() { floats } else { floats.add(at) },
                        y_stride: stride,
                        columns: (group * S::LANES).min(columns - column),
                    };
                    S::product_tiles(tall, group, &tile);
                }
                row += tall * count;
            }
            vector += group;
        }
        first += height;
    }
}

/// How many of the vectors that are left the next tiles take: as many as the widest, but no single one for the end.
#[inline(always)]
fn group<S: Bytes>(left: usize) -> usize {
    let widest = S::TILE_ROWS.len();
    if left == widest + 1 && S::LANES == PANEL { 2 } else { left.min(widest) }
}

/// `ROWS` rows by `VECTORS` vectors of outputs in registers.
///
/// # Safety
/// As [`Bytes`]; the pointers are valid for the tile's extents.
#[inline(always)]
pub(crate) unsafe fn tile<S: Bytes, const ROWS: usize, const VECTORS: usize>(t: &Tile, index: usize) {
    // SAFETY: x has ROWS rows of k in each tile, w as many panels as VECTORS fill.
    unsafe {
        let top = t.x.add(index * ROWS * t.x_stride);
        let mut w = [t.w; VECTORS];
        let mut sums = [[S::start(t.w.add(WEIGHT_SUMS)); VECTORS]; ROWS];
        for j in 0..VECTORS {
            w[j] = head::<S>(t, j);
            let start = S::start(w[j].add(WEIGHT_SUMS));
            for i in 0..ROWS {
                sums[i][j] = start;
            }
            w[j] = w[j].add(HEAD);
        }
        let mut x = [top; ROWS];
        for i in 0..ROWS {
            x[i] = top.add(i * t.x_stride);
        }
        let whole = t.k / 4;
        for four in 0..whole {
            step::<S, ROWS, VECTORS>(&mut sums, &x, &w, four);
        }
        if t.k > 4 * whole {
            let mut last = [0u32; ROWS];
            for i in 0..ROWS {
                last[i] = rest(x[i].add(4 * whole), t.k - 4 * whole);
                x[i] = last.as_ptr().add(i).cast();
            }
            for j in 0..VECTORS {
                w[j] = w[j].add(whole * PANEL);
            }
            step::<S, ROWS, VECTORS>(&mut sums, &x, &w, 0);
        }
        let at = index * ROWS * t.y_stride;
        if t.floats.is_null() {
            finish::<S, ROWS, VECTORS, false>(t, at, sums);
        } else {
            finish::<S, ROWS, VECTORS, true>(t, at, sums);
        }
    }
}

/// Adds four products to each sum.
#[inline(always)]
unsafe fn step<S: Bytes, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[S::Sums; VECTORS]; ROWS],
    x: &[*const u8; ROWS],
    w: &[*const i32; VECTORS],
    four: usize,
) {
    // SAFETY: `four` is inside the rows of x and w.
    unsafe {
        let mut weights = [S::weights(S::load(w[0].cast())); VECTORS];
        for j in 0..VECTORS {
            weights[j] = S::weights(S::load(w[j].add(four * PANEL).cast()));
        }
        for i in 0..ROWS {
            let value = S::splat(x[i].add(4 * four).cast::<u32>().read_unaligned());
            for j in 0..VECTORS {
                sums[i][j] = S::dot(sums[i][j], value, weights[j]);
            }
        }
    }
}

/// The last one to three inputs, as a word of four.
#[inline(always)]
unsafe fn rest(x: *const u8, count: usize) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let byte = |i: usize| if i < count { *x.add(i) } else { 0 };
        u32::from_ne_bytes([byte(0), byte(1), byte(2), 0])
    }
}

/// Stores bytes or floats.
#[inline(always)]
unsafe fn finish<S: Bytes, const ROWS: usize, const VECTORS: usize, const FLOATS: bool>(
    t: &Tile,
    at: usize,
    sums: [[S::Sums; VECTORS]; ROWS],
) {
    const { assert!(ROWS * VECTORS <= 28) };
    // SAFETY: the result has ROWS rows of `columns` from `at` on.
    unsafe {
        // Not a loop: an index into `sums` that only the run knows would keep all of them in memory through the whole
        // product.
        finish_four::<S, ROWS, VECTORS, FLOATS, 0>(t, at, &sums);
        finish_four::<S, ROWS, VECTORS, FLOATS, 4>(t, at, &sums);
        finish_four::<S, ROWS, VECTORS, FLOATS, 8>(t, at, &sums);
        finish_four::<S, ROWS, VECTORS, FLOATS, 12>(t, at, &sums);
        finish_four::<S, ROWS, VECTORS, FLOATS, 16>(t, at, &sums);
        finish_four::<S, ROWS, VECTORS, FLOATS, 20>(t, at, &sums);
        finish_four::<S, ROWS, VECTORS, FLOATS, 24>(t, at, &sums);
    }
}

/// Four vectors, or as many as there are, from the `FIRST` one on.
#[inline(always)]
unsafe fn finish_four<
    S: Bytes,
    const ROWS: usize,
    const VECTORS: usize,
    const FLOATS: bool,
    const FIRST: usize,
>(
    t: &Tile,
    at: usize,
    sums: &[[S::Sums; VECTORS]; ROWS],
) {
    if const { FIRST >= ROWS * VECTORS } {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let four = [
            total::<S, ROWS, VECTORS>(sums, FIRST),
            total::<S, ROWS, VECTORS>(sums, FIRST + 1),
            total::<S, ROWS, VECTORS>(sums, FIRST + 2),
            total::<S, ROWS, VECTORS>(sums, FIRST + 3),
        ];
        if FLOATS {
            let memory = MaybeUninit::new(four);
            for i in 0..4.min(ROWS * VECTORS - FIRST) {
                let (row, j) = ((FIRST + i) / VECTORS, (FIRST + i) % VECTORS);
                let numbers = memory.as_ptr().cast::<i32>().add(i * S::LANES);
                let head = head::<S>(t, j);
                let to = t.floats.add(at + row * t.y_stride + j * S::LANES);
                for column in 0..S::LANES.min(t.columns - j * S::LANES) {
                    let sum = (*numbers.add(column)).wrapping_add(*head.add(column));
                    *to.add(column) = sum as f32 * f32::from_bits(*head.add(PANEL + column) as u32);
                }
            }
            return;
        }
        let four = [
            S::requantize(four[0], head::<S>(t, FIRST % VECTORS)),
            S::requantize(four[1], head::<S>(t, (FIRST + 1) % VECTORS)),
            S::requantize(four[2], head::<S>(t, (FIRST + 2) % VECTORS)),
            S::requantize(four[3], head::<S>(t, (FIRST + 3) % VECTORS)),
        ];
        let mut bytes = MaybeUninit::<S::B>::uninit();
        let bytes = bytes.as_mut_ptr().cast::<u8>();
        S::store(bytes, S::in_order(S::narrow(four, t.limits)));
        let last = t.columns - (VECTORS - 1) * S::LANES;
        for i in 0..4 {
            let which = FIRST + i;
            if which < ROWS * VECTORS {
                let (row, j) = (which / VECTORS, which % VECTORS);
                let to = t.y.add(at + row * t.y_stride + j * S::LANES);
                let from = bytes.add(i * S::LANES);
                if j + 1 < VECTORS || last == S::LANES {
                    ptr::copy_nonoverlapping(from, to, S::LANES);
                } else {
                    copy_part(from, to, last);
                }
            }
        }
    }
}

/// Vector `which` of a tile, or the first one where there is none.
#[inline(always)]
unsafe fn total<S: Bytes, const ROWS: usize, const VECTORS: usize>(
    sums: &[[S::Sums; VECTORS]; ROWS],
    which: usize,
) -> S::V {
    let which = if which < ROWS * VECTORS { which } else { 0 };
    // SAFETY: the caller's promise.
    unsafe { S::total(sums[which / VECTORS][which % VECTORS]) }
}

/// The part of a head that belongs to vector `j`.
#[inline(always)]
unsafe fn head<S: Bytes>(t: &Tile, j: usize) -> *const i32 {
    let per_panel = PANEL / S::LANES;
    // SAFETY: the caller's promise.
    unsafe { t.w.add(j / per_panel * t.w_stride + j % per_panel * S::LANES) }
}

/// Copies less than 16 bytes: a call would take longer.
#[inline(always)]
unsafe fn copy_part(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut done = 0;
        if len & 8 != 0 {
            ptr::copy_nonoverlapping(from, to, 8);
            done = 8;
        }
        if len & 4 != 0 {
            ptr::copy_nonoverlapping(from.add(done), to.add(done), 4);
            done += 4;
        }
        if len & 2 != 0 {
            ptr::copy_nonoverlapping(from.add(done), to.add(done), 2);
            done += 2;
        }
        if len & 1 != 0 {
            *to.add(done) = *from.add(done);
        }
    }
}
