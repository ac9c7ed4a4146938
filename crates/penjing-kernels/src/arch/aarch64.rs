//! NEON, which every aarch64 CPU has.

use core::arch::{aarch64::*, asm};

use super::{
    compile::{compile, lines, operations, row, table},
    depthwise::{Line, SpreadLine},
    depthwise_weights::Strip,
    product::Tile,
    simd::Simd,
    sparse,
};
use crate::resample::{HALF, PRECISION_BITS};

compile!(neon, Neon, "neon");

#[derive(Clone, Copy)]
pub(crate) struct Neon;

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    const TILE_ROWS: &'static [usize] = &[16, 12, 8, 6];
    const ROW_STEP: usize = 48;
    const GRADIENT_ROWS: &'static [usize] = &[16, 10, 8, 6];
    const SPARSE_SUMS: usize = 26;

    operations! {
        splat(x: f32) -> float32x4_t { vdupq_n_f32(x) }
        load(from: *const f32) -> float32x4_t { vld1q_f32(from) }
        prefetch(at: *const f32) {
            asm!("prfm pldl2keep, [{}]", in(reg) at.addr(), options(nomem, nostack, preserves_flags))
        }
        load_n(from: *const f32, n: usize) -> float32x4_t { first_lanes(from, n) }
        store(to: *mut f32, v: float32x4_t) { vst1q_f32(to, v) }
        store_n(to: *mut f32, v: float32x4_t, n: usize) { store_first_lanes(to, v, n) }
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        // `vmaxq_f32` and `vminq_f32` differ: NaN wins whichever it is, and 0 is more than −0.
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        where_less(a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), yes, no)
        }
        add_exponent(p: float32x4_t, n: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_s32(vaddq_s32(
                vreinterpretq_s32_f32(p),
                vshlq_n_s32::<23>(vreinterpretq_s32_f32(n)),
            ))
        }
        turn_square(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            for half in 0..2 {
                let from = from.add(2 * half);
                // The first two values of neighbouring rows, even ones and odd ones.
                let [a, b, c, d] = [
                    vld1_f32(from),
                    vld1_f32(from.add(from_stride)),
                    vld1_f32(from.add(2 * from_stride)),
                    vld1_f32(from.add(3 * from_stride)),
                ];
                let (even, odd) = (vcombine_f32(a, c), vcombine_f32(b, d));
                let to = to.add(2 * half * to_stride);
                vst1q_f32(to, vtrn1q_f32(even, odd));
                vst1q_f32(to.add(to_stride), vtrn2q_f32(even, odd));
            }
        }
        sparse_tile(vectors: usize, tile: &sparse::Tile) {
            {
                use neon::sparse_tile;
                row!(vectors, sparse_tile(tile), 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
            }
        }
        product_tile(rows: usize, vectors: usize, tile: &Tile) {
            {
                use neon::product_tile;
                match vectors {
                    1 => table!(rows, product_tile::<_, 1>(tile), 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16),
                    2 => table!(rows, product_tile::<_, 2>(tile), 1 2 3 4 5 6 7 8 9 10 11 12),
                    3 => table!(rows, product_tile::<_, 3>(tile), 1 2 3 4 5 6 7 8),
                    _ => table!(rows, product_tile::<_, 4>(tile), 1 2 3 4 5 6),
                }
            }
        }
        gradient_tile(rows: usize, vectors: usize, tile: &Tile) {
            {
                use neon::gradient_tile;
                match vectors {
                    1 => table!(rows, gradient_tile::<_, 1>(tile), 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16),
                    2 => table!(rows, gradient_tile::<_, 2>(tile), 1 2 3 4 5 6 7 8 9 10),
                    3 => table!(rows, gradient_tile::<_, 3>(tile), 1 2 3 4 5 6 7 8),
                    _ => table!(rows, gradient_tile::<_, 4>(tile), 1 2 3 4 5 6),
                }
            }
        }
    }

    lines!(neon);

    #[inline(always)]
    unsafe fn pixel(pixels: *const u8, weights: *const i32, taps: usize) -> [u8; 4] {
        // SAFETY: the promise of the trait. The four bytes of a pixel end one behind it.
        unsafe {
            let mut sum = vdupq_n_s32(HALF);
            for tap in 0..taps {
                let pixel = pixels.add(tap * 3).cast::<u32>().read_unaligned();
                let pixel = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(u64::from(pixel)))));
                sum = vmlaq_n_s32(sum, vreinterpretq_s32_u32(pixel), *weights.add(tap));
            }
            let words = vqmovn_s32(vshrq_n_s32::<{ PRECISION_BITS as i32 }>(sum));
            let bytes = vqmovun_s16(vcombine_s16(words, words));
            vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)).to_le_bytes()
        }
    }

    #[inline(always)]
    unsafe fn depthwise_weight_strip<const K: usize, const STRIDE: usize>(strip: &Strip) {
        // SAFETY: the promise of the trait.
        unsafe { neon::depthwise_weight_strip::<K, STRIDE, 3>(strip) }
    }
}

/// Lane by lane: nothing behind the first `n` values is read.
#[inline(always)]
unsafe fn first_lanes(from: *const f32, n: usize) -> float32x4_t {
    // SAFETY: `n` values are readable.
    unsafe {
        let mut v = vdupq_n_f32(0.0);
        if n > 0 {
            v = vld1q_lane_f32::<0>(from, v);
        }
        if n > 1 {
            v = vld1q_lane_f32::<1>(from.add(1), v);
        }
        if n > 2 {
            v = vld1q_lane_f32::<2>(from.add(2), v);
        }
        if n > 3 {
            v = vld1q_lane_f32::<3>(from.add(3), v);
        }
        v
    }
}

/// Lane by lane: nothing behind the first `n` values is written.
#[inline(always)]
unsafe fn store_first_lanes(to: *mut f32, v: float32x4_t, n: usize) {
    // SAFETY: `n` values are writable.
    unsafe {
        if n > 0 {
            vst1q_lane_f32::<0>(to, v);
        }
        if n > 1 {
            vst1q_lane_f32::<1>(to.add(1), v);
        }
        if n > 2 {
            vst1q_lane_f32::<2>(to.add(2), v);
        }
        if n > 3 {
            vst1q_lane_f32::<3>(to.add(3), v);
        }
    }
}
