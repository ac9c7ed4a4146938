//! Register tiles of the matrix product and of the weight gradient.

use core::ptr;

use super::{
    simd::Simd,
    vectors::{activate_in_place, get, put},
};
use crate::{
    pointwise::{Block, Gradient, PANEL, RESIDENT, panel_len},
    workers::View,
};

/// Register tiles of one size, one below the other. For the weight gradient `w` is dy and `k` counts pixels.
pub(crate) struct Tile {
    pub count: usize,
    pub x: *const f32,
    pub x_stride: usize,
    /// Length of a run.
    pub k: usize,
    pub runs: usize,
    pub run_stride: usize,
    pub w: *const f32,
    /// From panel to panel of w, or from row to row of dy.
    pub w_stride: usize,
    /// Weights that come next, to be fetched while these tiles are computed, and how many values at each step of k.
    pub next: *const f32,
    pub pace: usize,
    pub low: f32,
    pub high: f32,
    /// Null, or laid out as y.
    pub residual: *const f32,
    pub y: *mut f32,
    pub y_stride: usize,
    /// Columns to store.
    pub columns: usize,
}

/// [`crate::pointwise::product`] in register tiles.
///
/// # Safety
/// As [`Simd`]; the lengths of `block` fit `y`, and neither has extent 0.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd>(block: &Block, mut y: View) {
    let (rows, columns, stride, k) = (y.rows(), y.columns(), y.stride(), block.k);
    let vectors = columns.div_ceil(S::LANES);
    let per_panel = PANEL / S::LANES;
    let (low, high) = block.act.clamp().unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    let y = y.as_mut_ptr();
    // Small weights stay in cache while rows pass once; large ones are read once while the rows stay.
    let resident = block.packed.len() <= RESIDENT;
    let step = if resident { S::ROW_STEP } else { rows };
    let mut first = 0;
    while first < rows {
        let height = step.min(rows - first);
        let mut vector = 0;
        while vector < vectors {
            let group = group::<S>(vectors, vector, resident);
            let column = vector * S::LANES;
            let width = (group * S::LANES).min(columns - column);
            // Heights as equal as can be.
            let tiles = height.div_ceil(S::TILE_ROWS[group - 1]);
            let (short, longer) = (height / tiles, height % tiles);
            // The panels of the next group, evenly over the tiles of this one.
            let mut next = block.packed.as_ptr().wrapping_add((vector + group) / per_panel * panel_len(k));
            let pace = (group * S::LANES / tiles).min(PANEL);
            let mut row = first;
            for (tall, count) in [(short + 1, longer), (short, tiles - longer)] {
                let at = row * stride + column;
                // SAFETY: rows, panels and columns lie inside the slices whose lengths `block` has checked.
                unsafe {
                    let tile = Tile {
                        count,
                        x: block.x.as_ptr().wrapping_add(row * block.x_stride),
                        x_stride: block.x_stride,
                        k: k / block.runs,
                        runs: block.runs,
                        run_stride: block.run_stride,
                        w: block.packed.as_ptr().add(vector / per_panel * panel_len(k)),
                        w_stride: panel_len(k),
                        next,
                        pace,
                        low,
                        high,
                        residual: block.residual.map_or(ptr::null(), |r| r.as_ptr().wrapping_add(at)),
                        y: y.wrapping_add(at),
                        y_stride: stride,
                        columns: width,
                    };
                    if count > 0 {
                        S::product_tile(tall, group, &tile);
                    }
                    if block.act.clamp().is_none() {
                        for row in 0..tall * count {
                            activate_in_place::<S>(block.act, tile.y.add(row * stride), width);
                        }
                    }
                }
                row += tall * count;
                next = next.wrapping_add(count * k * pace);
            }
            vector += group;
        }
        first += height;
    }
}

/// How many vectors the tiles from `vector` on take: as many as the widest tile, which is made of whole panels, or those that
/// are left. Three panels at a time are as fast as two where they divide the row, and with registers enough they leave loads
/// free to prefetch weights that are not `resident`.
#[inline(always)]
fn group<S: Simd>(vectors: usize, vector: usize, resident: bool) -> usize {
    let (left, widest) = (vectors - vector, S::TILE_ROWS.len());
    let three = if resident { vectors.is_multiple_of(3) || left % 2 == 1 } else { left != 4 };
    left.min(if widest == 3 && !three { 2 } else { widest })
}

/// `ROWS` rows by `VECTORS` vectors of outputs in registers.
///
/// # Safety
/// As [`Simd`]; the pointers are valid for the tile's extents.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(t: &Tile, index: usize) {
    // SAFETY: x has ROWS rows of k in each tile, w as many panels as VECTORS fill, y and residual
    // ROWS rows of `columns` in each tile.
    unsafe {
        let per_panel = PANEL / S::LANES;
        let top = t.x.add(index * ROWS * t.x_stride);
        let mut w = [t.w; VECTORS];
        for j in 0..VECTORS {
            w[j] = t.w.add(j / per_panel * t.w_stride + j % per_panel * S::LANES);
        }
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        for j in 0..VECTORS {
            let bias = S::load(w[j]);
            for i in 0..ROWS {
                sums[i][j] = bias;
            }
            w[j] = w[j].add(PANEL);
        }
        let mut ahead = t.next.wrapping_add(index * t.runs * t.k * t.pace);
        for run in 0..t.runs {
            let mut x = [top; ROWS];
            for i in 0..ROWS {
                x[i] = top.add(run * t.run_stride + i * t.x_stride);
            }
            for k in 0..t.k {
                // With one row the weights come as fast as they can already.
                if ROWS > 1 {
                    S::prefetch(ahead);
                    ahead = ahead.wrapping_add(t.pace);
                }
                step::<S, ROWS, VECTORS>(&mut sums, &x, &w, k);
            }
            for j in 0..VECTORS {
                w[j] = w[j].add(t.k * PANEL);
            }
        }
        finish::<S, ROWS, VECTORS>(t, index * ROWS * t.y_stride, sums);
    }
}

/// Adds the residual, clamps and stores. An index into `sums` that only the run knows would keep all of them in memory
/// through the whole product, so whole vectors are told from parts before they are touched.
#[inline(always)]
unsafe fn finish<S: Simd, const ROWS: usize, const VECTORS: usize>(
    t: &Tile,
    from: usize,
    mut sums: [[S::V; VECTORS]; ROWS],
) {
    // SAFETY: y and residual have ROWS rows of `columns` from `from` on.
    unsafe {
        let (y, from_residual) = (t.y.add(from), t.residual.wrapping_add(from));
        let (low, high) = (S::splat(t.low), S::splat(t.high));
        if t.columns == VECTORS * S::LANES {
            if !t.residual.is_null() {
                for i in 0..ROWS {
                    for j in 0..VECTORS {
                        let residual = S::load(from_residual.add(i * t.y_stride + j * S::LANES));
                        sums[i][j] = S::add(sums[i][j], residual);
                    }
                }
            }
            for i in 0..ROWS {
                for j in 0..VECTORS {
                    let sum = S::min(high, S::max(low, sums[i][j]));
                    S::store(y.add(i * t.y_stride + j * S::LANES), sum);
                }
            }
            return;
        }
        let mut rows = [[S::splat(0.0); VECTORS]; ROWS];
        let rows = rows.as_mut_ptr().cast::<f32>();
        for i in 0..ROWS {
            for j in 0..VECTORS {
                S::store(rows.add((i * VECTORS + j) * S::LANES), sums[i][j]);
            }
        }
        let mut column = 0;
        while column < t.columns {
            let n = S::LANES.min(t.columns - column);
            for i in 0..ROWS {
                let at = i * t.y_stride + column;
                let mut sum = S::load(rows.add(i * VECTORS * S::LANES + column));
                if !t.residual.is_null() {
                    sum = S::add(sum, get::<S>(from_residual.add(at), n));
                }
                put::<S>(y.add(at), S::min(high, S::max(low, sum)), n);
            }
            column += n;
        }
    }
}

#[inline(always)]
unsafe fn step<S: Simd, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[S::V; VECTORS]; ROWS],
    x: &[*const f32; ROWS],
    w: &[*const f32; VECTORS],
    k: usize,
) {
    // SAFETY: k is inside the rows of x and w.
    unsafe {
        let mut weights = [S::splat(0.0); VECTORS];
        for j in 0..VECTORS {
            weights[j] = S::load(w[j].add(k * PANEL));
        }
        for i in 0..ROWS {
            let value = S::splat(*x[i].add(k));
            for j in 0..VECTORS {
                sums[i][j] = S::fma(value, weights[j], sums[i][j]);
            }
        }
    }
}

/// Pixels whose rows of x and dy stay in the first-level cache, and their pages in the processor's first table of pages.
const PIXELS: usize = 48;

/// [`crate::pointwise::gradient`] in register tiles.
///
/// # Safety
/// As [`Simd`]; the lengths of `job` fit `dw`.
#[inline(always)]
pub(crate) unsafe fn gradient<S: Simd>(job: &Gradient, mut dw: View) {
    let (rows, columns, stride) = (dw.rows(), dw.columns(), dw.stride());
    let dw = dw.as_mut_ptr();
    let widest = S::GRADIENT_ROWS.len();
    let mut pixel = 0;
    while pixel < job.m {
        let pixels = PIXELS.min(job.m - pixel);
        let mut column = 0;
        while column < columns {
            let left = (columns - column).div_ceil(S::LANES);
            // Two tiles of similar width rather than one vector alone.
            let vectors =
                if left > widest && left < 2 * widest { left.div_ceil(2) } else { left.min(widest) };
            let width = (vectors * S::LANES).min(columns - column);
            let tiles = rows.div_ceil(S::GRADIENT_ROWS[vectors - 1]);
            for t in 0..tiles {
                let (from, to) = (rows * t / tiles, rows * (t + 1) / tiles);
                // SAFETY: pixels, rows and columns lie inside the slices.
                unsafe {
                    let tile = Tile {
                        count: 1,
                        x: job.x.as_ptr().add(pixel * job.k + column),
                        x_stride: job.k,
                        k: pixels,
                        runs: 1,
                        run_stride: 0,
                        w: job.dy.as_ptr().add(pixel * job.n + from),
                        w_stride: job.n,
                        next: ptr::null(),
                        pace: 0,
                        low: f32::NEG_INFINITY,
                        high: f32::INFINITY,
                        residual: ptr::null(),
                        y: dw.add(from * stride + column),
                        y_stride: stride,
                        columns: width,
                    };
                    S::gradient_tile(to - from, vectors, &tile);
                }
            }
            column += width;
        }
        pixel += pixels;
    }
}

/// `ROWS` rows by `VECTORS` vectors of dw in registers; the last vector may be cut short.
///
/// # Safety
/// As [`Simd`]; the tile's pointers are valid for its extents.
#[inline(always)]
pub(crate) unsafe fn gradient_tile<S: Simd, const ROWS: usize, const VECTORS: usize>(t: &Tile) {
    // SAFETY: x has k rows of `columns`, w k rows of ROWS, y ROWS rows of `columns`.
    unsafe {
        let full = t.columns == VECTORS * S::LANES;
        let rest = t.columns - (VECTORS - 1) * S::LANES;
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        for i in 0..ROWS {
            for j in 0..VECTORS {
                let from = t.y.add(i * t.y_stride + j * S::LANES);
                sums[i][j] = if full || j + 1 < VECTORS { S::load(from) } else { S::load_n(from, rest) };
            }
        }
        for k in 0..t.k {
            let (from, dy) = (t.x.add(k * t.x_stride), t.w.add(k * t.w_stride));
            let mut x = [S::splat(0.0); VECTORS];
            for j in 0..VECTORS {
                let from = from.add(j * S::LANES);
                x[j] = if full || j + 1 < VECTORS { S::load(from) } else { S::load_n(from, rest) };
            }
            for i in 0..ROWS {
                let dy = S::splat(*dy.add(i));
                for j in 0..VECTORS {
                    sums[i][j] = S::fma(dy, x[j], sums[i][j]);
                }
            }
        }
        for i in 0..ROWS {
            for j in 0..VECTORS {
                let to = t.y.add(i * t.y_stride + j * S::LANES);
                if full || j + 1 < VECTORS {
                    S::store(to, sums[i][j]);
                } else {
                    S::store_n(to, sums[i][j], rest);
                }
            }
        }
    }
}
