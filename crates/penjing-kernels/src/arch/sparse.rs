//! [`crate::sparse`] in vectors of pixels.

use super::simd::{Simd, activate};
use crate::{
    Act,
    sparse::{BLOCK, GROUP, Job, Part, TILE},
    workers::View,
};

/// A block of outputs and a chunk of channels for a tile of pixels.
pub(crate) struct Tile<'a> {
    part: Part<'a>,
    /// Whether the sums begin with the biases.
    first: bool,
    /// Applied to the sums.
    act: Act,
    /// `[channels of a chunk][TILE]`
    x: *const f32,
    /// `[BLOCK][TILE]`
    sums: *mut f32,
}

/// [`crate::sparse::sparse`], tile by tile.
///
/// # Safety
/// As [`Simd`]; the job fits `y`, neither extent of which is 0, and the scratch has a tile's rows for all chunks and a block.
#[inline(always)]
pub(crate) unsafe fn sparse<S: Simd>(job: &Job, scratch: &mut [f32], mut y: View) {
    let (rows, columns, stride, k) = (y.rows(), y.columns(), y.stride(), job.k);
    let [chunks, channels] = job.weights.chunks();
    let (x, sums) = scratch.split_at_mut(chunks * channels * TILE);
    let (y, sums) = (y.as_mut_ptr(), &mut sums[..BLOCK * TILE]);
    let (x, sums) = (x.as_mut_ptr(), sums.as_mut_ptr());
    let all = rows.div_ceil(S::LANES);
    let tiles = all.div_ceil(S::SPARSE_SUMS.min(TILE / S::LANES));
    for tile in 0..tiles {
        // As equal as can be, in whole vectors but for the end.
        let [from, end] = [tile, tile + 1].map(|tile| rows.min(tile * all / tiles * S::LANES));
        let pixels = end - from;
        // SAFETY: rows, columns and outputs lie inside what the caller has checked.
        unsafe {
            turn::<S>(job.x.as_ptr().add(from * k), k, [pixels, k], x, TILE);
            let mut column = 0;
            while column < columns {
                let block = (job.outputs.start + column) / BLOCK;
                for chunk in 0..chunks {
                    // What is added comes before the activation.
                    let last = chunk + 1 == chunks && job.residual.is_none();
                    let act = if last { job.act } else { Act::None };
                    let part = job.weights.part(block, chunk);
                    let x = x.add(chunk * channels * TILE);
                    S::sparse_tile(
                        pixels.div_ceil(S::LANES),
                        &Tile { part, first: chunk == 0, act, x, sums },
                    );
                }
                let (count, at) = (BLOCK.min(columns - column), from * stride + column);
                turn::<S>(sums, TILE, [count, pixels], y.add(at), stride);
                if let Some(residual) = job.residual {
                    for pixel in 0..pixels {
                        let at = at + pixel * stride;
                        add_in_place::<S>(job.act, residual[at..at + count].as_ptr(), y.add(at), count);
                    }
                }
                column += count;
            }
        }
    }
}

/// y = act(y + residual)
#[inline(always)]
unsafe fn add_in_place<S: Simd>(act: Act, residual: *const f32, y: *mut f32, len: usize) {
    let mut i = 0;
    // SAFETY: i + n never passes the end.
    unsafe {
        while i < len {
            let n = S::LANES.min(len - i);
            let (y, residual) = (y.add(i), residual.add(i));
            if n == S::LANES {
                S::store(y, activate::<S>(act, S::add(S::load(y), S::load(residual))));
            } else {
                let sum = S::add(S::load_n(y, n), S::load_n(residual, n));
                S::store_n(y, activate::<S>(act, sum), n);
            }
            i += n;
        }
    }
}

/// to\[column\]\[row\] = from\[row\]\[column\]; squares at the edges lie over those before.
#[inline(always)]
unsafe fn turn<S: Simd>(
    from: *const f32,
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: *mut f32,
    to_stride: usize,
) {
    // SAFETY: both have all rows and columns.
    unsafe {
        if rows < S::LANES || columns < S::LANES {
            for row in 0..rows {
                for column in 0..columns {
                    *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
                }
            }
            return;
        }
        let mut row = 0;
        while row < rows {
            let top = row.min(rows - S::LANES);
            let mut column = 0;
            while column < columns {
                let left = column.min(columns - S::LANES);
                S::turn_square(
                    from.add(top * from_stride + left),
                    from_stride,
                    to.add(left * to_stride + top),
                    to_stride,
                );
                column += S::LANES;
            }
            row += S::LANES;
        }
    }
}

/// Adds a chunk to the sums of `VECTORS` vectors of pixels: of two outputs at a time where there are registers for
/// both: one alone would keep few units busy.
///
/// # Safety
/// As [`Simd`]; the pointers are valid for the tile's extents, and the part's numbers in their ranges.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const VECTORS: usize>(t: &Tile) {
    let (mut at, mut from) = (0, 0);
    let outputs = t.part.outputs.len();
    // SAFETY: at least as many outputs are left.
    unsafe {
        if 2 * VECTORS <= S::SPARSE_SUMS {
            while at + 2 <= outputs {
                chains::<S, VECTORS, 2>(t, at, &mut from);
                at += 2;
            }
        }
        while at < outputs {
            chains::<S, VECTORS, 1>(t, at, &mut from);
            at += 1;
        }
    }
}

/// `OUTPUTS` outputs from the place `at` on, whose groups begin at `from`; those of two are as many.
#[inline(always)]
unsafe fn chains<S: Simd, const VECTORS: usize, const OUTPUTS: usize>(t: &Tile, at: usize, from: &mut usize) {
    // SAFETY: channels are less than those of a chunk, whose rows x has, outputs less than BLOCK, and there are as many groups as they say.
    unsafe {
        let (_, groups) = Part::output(t.part.outputs[at]);
        let mut own = [t.sums; OUTPUTS];
        let mut sums = [[S::splat(0.0); VECTORS]; OUTPUTS];
        for i in 0..OUTPUTS {
            let (output, _) = Part::output(t.part.outputs[at + i]);
            own[i] = t.sums.add(output * TILE);
            if t.first {
                let bias = S::splat(t.part.bias.get(output).copied().unwrap_or_default());
                for j in 0..VECTORS {
                    sums[i][j] = bias;
                }
            } else {
                for j in 0..VECTORS {
                    sums[i][j] = S::load(own[i].add(j * S::LANES));
                }
            }
        }
        let channels = t.part.channels.as_ptr().add(*from);
        let values = t.part.values.as_ptr().add(*from * GROUP);
        for group in 0..groups {
            for i in 0..OUTPUTS {
                let group = i * groups + group;
                let four = (*channels.add(group)).to_bits();
                for place in 0..GROUP {
                    let x = t.x.add((four >> (8 * place) & 0xFF) as usize * TILE);
                    let value = S::splat(*values.add(group * GROUP + place));
                    for j in 0..VECTORS {
                        sums[i][j] = S::fma(S::load(x.add(j * S::LANES)), value, sums[i][j]);
                    }
                }
            }
        }
        *from += OUTPUTS * groups;
        for i in 0..OUTPUTS {
            for j in 0..VECTORS {
                S::store(own[i].add(j * S::LANES), sums[i][j]);
            }
        }
        // Of what was stored: a loop as long as this one, over `sums` itself, would keep them out of registers.
        if t.act != Act::None {
            for own in own {
                for j in 0..VECTORS {
                    let own = own.add(j * S::LANES);
                    S::store(own, activate::<S>(t.act, S::load(own)));
                }
            }
        }
    }
}
