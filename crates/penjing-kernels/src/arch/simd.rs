//! What the generic loops ask of an instruction set.

use super::{
    depthwise::{Line, SpreadLine},
    depthwise_weights::Strip,
    product::Tile,
    sparse,
};
use crate::{
    Act,
    act::{SIXTH, THIRD, exp_constants},
};

/// Vectors of f32.
///
/// # Safety
/// All functions: the CPU has the instruction set, and the caller is compiled for it (or else nothing is inlined). Pointers
/// are valid for the lanes that are read or written; they need no alignment.
pub(crate) trait Simd: Copy {
    type V: Copy;
    /// Values in a vector; divides a panel.
    const LANES: usize;
    /// Rows of the largest register tile over one, two and perhaps more vectors; the widest tile is made of whole panels. As
    /// many rows as the compiler keeps in registers: it loads more values of x at once than it must.
    const TILE_ROWS: &'static [usize];
    /// Rows that pass resident weights at a time: whole tiles of every width.
    const ROW_STEP: usize;
    /// Rows of the largest register tile of the weight gradient over one, two and more vectors of x.
    const GRADIENT_ROWS: &'static [usize];
    /// Most sums of a tile of the product without zeros: as many as the compiler keeps in registers.
    const SPARSE_SUMS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// Asks for the cache line in the second level; any address will do.
    unsafe fn prefetch(at: *const f32);
    /// The first `n` lanes, zero in the others.
    unsafe fn load_n(from: *const f32, n: usize) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// The first `n` lanes.
    unsafe fn store_n(to: *mut f32, v: Self::V, n: usize);
    /// a · b + c, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// As [`crate::act::max`].
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// As [`crate::act::min`].
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `yes` where a < b, else `no`.
    unsafe fn where_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// Adds the low bits of `n` to the exponent of `p`.
    unsafe fn add_exponent(p: Self::V, n: Self::V) -> Self::V;

    /// Turns LANES rows of LANES values into as many columns; `from` and `to` do not overlap.
    unsafe fn turn_square(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

    /// A pixel of [`crate::resample::across`] and a byte without meaning, of so many neighbouring pixels of three bytes;
    /// pixels and weights are read to the next whole [`crate::resample::STEP`], and as many bytes behind.
    unsafe fn pixel(pixels: *const u8, weights: *const i32, taps: usize) -> [u8; 4];

    /// [`super::product::tiles`] of so many rows and vectors, compiled for the instruction set.
    unsafe fn product_tile(rows: usize, vectors: usize, tile: &Tile);
    /// [`super::product::gradient_tile`] likewise.
    unsafe fn gradient_tile(rows: usize, vectors: usize, tile: &Tile);
    /// [`super::sparse::tile`] of so many vectors likewise.
    unsafe fn sparse_tile(vectors: usize, tile: &sparse::Tile);
    /// [`super::depthwise::line`] likewise.
    unsafe fn depthwise_line<const K: usize, const STRIDE: usize, const ROWS: usize, const FLIP: bool>(
        line: &Line,
    );
    /// [`super::depthwise::spread_line`] likewise.
    unsafe fn depthwise_spread_line<const K: usize>(line: &SpreadLine);
    /// [`super::depthwise_weights::strip`] likewise, of as many rows of the kernel as there are registers for.
    unsafe fn depthwise_weight_strip<const K: usize, const STRIDE: usize>(strip: &Strip);
}

/// [`Act::apply`] of a vector: the same operations in the same order.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn activate<S: Simd>(act: Act, x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = S::splat(0.0);
        match act {
            Act::None => x,
            Act::Relu => S::max(zero, x),
            Act::Relu6 => S::min(S::splat(6.0), S::max(zero, x)),
            Act::LeakyRelu(slope) => S::where_less(x, zero, S::mul(x, S::splat(slope)), x),
            Act::HSwish => S::mul(S::mul(x, gate::<S>(x)), S::splat(SIXTH)),
            Act::HSigmoid => S::mul(gate::<S>(x), S::splat(SIXTH)),
            Act::Sigmoid => S::div(S::splat(1.0), S::add(S::splat(1.0), exp::<S>(negative::<S>(x)))),
            Act::Silu => S::div(x, S::add(S::splat(1.0), exp::<S>(negative::<S>(x)))),
        }
    }
}

/// [`Act::slope`] of a vector: the same operations in the same order.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(crate) unsafe fn slope<S: Simd>(act: Act, u: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        match act {
            Act::None => one,
            Act::Relu => S::where_less(zero, u, one, zero),
            Act::Relu6 => within::<S>(0.0, 6.0, u, one),
            Act::LeakyRelu(slope) => S::where_less(zero, u, one, S::splat(slope)),
            Act::HSwish => {
                let between = S::add(S::mul(u, S::splat(THIRD)), S::splat(0.5));
                S::where_less(S::splat(-3.0), u, S::where_less(u, S::splat(3.0), between, one), zero)
            }
            Act::HSigmoid => within::<S>(-3.0, 3.0, u, S::splat(SIXTH)),
            Act::Sigmoid => {
                let s = activate::<S>(act, u);
                S::mul(s, S::sub(one, s))
            }
            Act::Silu => {
                let s = activate::<S>(Act::Sigmoid, u);
                S::mul(s, S::add(S::mul(u, S::sub(one, s)), one))
            }
        }
    }
}

/// `inside` where low < u < high, else 0.
#[inline(always)]
unsafe fn within<S: Simd>(low: f32, high: f32, u: S::V, inside: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = S::splat(0.0);
        S::where_less(S::splat(low), u, S::where_less(u, S::splat(high), inside, zero), zero)
    }
}

/// min(max(x + 3, 0), 6)
#[inline(always)]
unsafe fn gate<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { S::min(S::splat(6.0), S::max(S::splat(0.0), S::add(x, S::splat(3.0)))) }
}

#[inline(always)]
unsafe fn negative<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { S::mul(x, S::splat(-1.0)) }
}

/// As [`crate::act::exp`].
#[inline(always)]
unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    use exp_constants::*;
    // SAFETY: the caller's promise.
    unsafe {
        let x = S::min(S::splat(HIGH), S::max(S::splat(LOW), x));
        let shifted = S::add(S::mul(x, S::splat(LOG2_E)), S::splat(ROUND));
        let n = S::sub(shifted, S::splat(ROUND));
        let r = S::sub(S::sub(x, S::mul(n, S::splat(LN2_HIGH))), S::mul(n, S::splat(LN2_LOW)));
        let mut p = S::splat(POLY[0]);
        let mut i = 1;
        while i < POLY.len() {
            p = S::add(S::mul(p, r), S::splat(POLY[i]));
            i += 1;
        }
        let p = S::add(S::add(S::mul(p, S::mul(r, r)), r), S::splat(1.0));
        S::add_exponent(p, shifted)
    }
}
