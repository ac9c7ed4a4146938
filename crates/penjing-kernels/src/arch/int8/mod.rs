//! SIMD code for bytes: loops generic over [`Bytes`], one small file per architecture implements it.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod compile;
mod depthwise;
mod product;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{neon, neondot};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{avx2, avx512, avx512vnni, avxvnni};

use crate::int8::Limits;

/// Sums of products of bytes in vectors.
///
/// # Safety
/// All functions: the CPU has the instruction set, and the caller is compiled for it (or else nothing is inlined). Pointers
/// are valid for the lanes that are read or written; they need no alignment.
pub(crate) trait Bytes: Copy {
    /// LANES 32-bit numbers.
    type V: Copy;
    /// 4 · LANES bytes.
    type B: Copy;
    /// Sums on their way, perhaps each in parts.
    type Sums: Copy;
    /// Four inputs for each sum.
    type X: Copy;
    /// Four weights for each sum.
    type W: Copy;
    /// One with half the lanes, or itself.
    type Half: Bytes;

    /// 32-bit numbers in a vector; divides a panel.
    const LANES: usize;
    /// Whether inputs are taken less 128, which [`Self::start`] makes up for.
    const FLIPS: bool;
    /// Rows of the largest register tile of a product over one, two and perhaps more vectors; the widest tile is made of
    /// whole panels.
    const TILE_ROWS: &'static [usize];
    /// Columns of a register tile of a depthwise convolution.
    const COLUMNS: usize;

    /// Where sums start whose weights have these sums.
    unsafe fn start(weight_sums: *const i32) -> Self::Sums;
    /// The same four inputs for each sum.
    unsafe fn splat(four: u32) -> Self::X;
    unsafe fn load(from: *const u8) -> Self::B;
    unsafe fn store(to: *mut u8, bytes: Self::B);
    /// Four inputs for each sum, side by side.
    unsafe fn inputs(bytes: Self::B) -> Self::X;
    /// Four weights for each sum, side by side.
    unsafe fn weights(bytes: Self::B) -> Self::W;
    /// Adds four products to each sum.
    unsafe fn dot(sums: Self::Sums, x: Self::X, w: Self::W) -> Self::Sums;
    unsafe fn total(sums: Self::Sums) -> Self::V;
    /// (v · multiplier + offset) >> 32, with the channels of part of a head, see [`crate::int8::HEAD`].
    unsafe fn requantize(v: Self::V, head: *const i32) -> Self::V;
    /// Numbers as bytes within the limits, in the order that [`Self::interleave`] took them from.
    unsafe fn narrow(vectors: [Self::V; 4], limits: Limits) -> Self::B;
    /// Puts the result of [`Self::narrow`] in the order of the vectors.
    unsafe fn in_order(bytes: Self::B) -> Self::B;
    /// Four neighbouring bytes of each lane are one of each vector.
    unsafe fn interleave(rows: [Self::B; 4]) -> [Self::B; 4];

    /// [`product::tile`]s of so many rows and vectors, compiled for the instruction set.
    unsafe fn product_tiles(rows: usize, vectors: usize, tile: &product::Tile);
    /// [`depthwise::block`] likewise.
    unsafe fn depthwise_block<const K: usize, const STRIDE: usize>(block: &depthwise::Block);
}
