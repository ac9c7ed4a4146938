//! NEON, with dot products of bytes and without.

use core::arch::{aarch64::*, asm};

use super::{
    Bytes,
    compile::{compile, tiles},
};
use crate::{
    arch::compile::operations,
    int8::{Limits, OFFSETS, PANEL},
};

compile!(neon, Neon, "neon");
compile!(neondot, NeonDot, "neon,dotprod");

/// Where the offsets of odd channels lie in a head.
const ODD_OFFSETS: usize = OFFSETS + PANEL;

/// What both have.
macro_rules! operations_128 {
    () => {
        operations! {
            splat(four: u32) -> int8x16_t { Self::inputs(vreinterpretq_u8_u32(vdupq_n_u32(four))) }
            load(from: *const u8) -> uint8x16_t { vld1q_u8(from) }
            store(to: *mut u8, bytes: uint8x16_t) { vst1q_u8(to, bytes) }
            // Products are of signed numbers.
            inputs(bytes: uint8x16_t) -> int8x16_t { vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128))) }
            weights(bytes: uint8x16_t) -> int8x16_t { vreinterpretq_s8_u8(bytes) }
            // The high halves of 64-bit sums of even and of odd lanes.
            requantize(v: int32x4_t, head: *const i32) -> int32x4_t {{
                let m = vld1q_s32(head);
                let even = vmlal_s32(
                    vld1q_s64(head.add(OFFSETS).cast()),
                    vget_low_s32(vuzp1q_s32(v, v)),
                    vget_low_s32(vuzp1q_s32(m, m)),
                );
                let odd = vmlal_s32(
                    vld1q_s64(head.add(ODD_OFFSETS).cast()),
                    vget_low_s32(vuzp2q_s32(v, v)),
                    vget_low_s32(vuzp2q_s32(m, m)),
                );
                vtrn2q_s32(vreinterpretq_s32_s64(even), vreinterpretq_s32_s64(odd))
            }}
            narrow(v: [int32x4_t; 4], limits: Limits) -> uint8x16_t {{
                let low = vcombine_s16(vqmovn_s32(v[0]), vqmovn_s32(v[1]));
                let high = vcombine_s16(vqmovn_s32(v[2]), vqmovn_s32(v[3]));
                let bytes = vcombine_u8(vqmovun_s16(low), vqmovun_s16(high));
                vminq_u8(vmaxq_u8(bytes, vdupq_n_u8(limits.low)), vdupq_n_u8(limits.high))
            }}
            in_order(bytes: uint8x16_t) -> uint8x16_t { bytes }
            interleave(rows: [uint8x16_t; 4]) -> [uint8x16_t; 4] {{
                let rows = [
                    vreinterpretq_u16_u8(vzip1q_u8(rows[0], rows[1])),
                    vreinterpretq_u16_u8(vzip1q_u8(rows[2], rows[3])),
                    vreinterpretq_u16_u8(vzip2q_u8(rows[0], rows[1])),
                    vreinterpretq_u16_u8(vzip2q_u8(rows[2], rows[3])),
                ];
                [
                    vreinterpretq_u8_u16(vzip1q_u16(rows[0], rows[1])),
                    vreinterpretq_u8_u16(vzip2q_u16(rows[0], rows[1])),
                    vreinterpretq_u8_u16(vzip1q_u16(rows[2], rows[3])),
                    vreinterpretq_u8_u16(vzip2q_u16(rows[2], rows[3])),
                ]
            }}
        }
    };
}

#[derive(Clone, Copy)]
pub(crate) struct NeonDot;

impl Bytes for NeonDot {
    type V = int32x4_t;
    type B = uint8x16_t;
    type Sums = int32x4_t;
    type X = int8x16_t;
    type W = int8x16_t;
    type Half = NeonDot;

    const LANES: usize = 4;
    const FLIPS: bool = true;
    const TILE_ROWS: &'static [usize] = &[16, 11, 7, 5];
    const COLUMNS: usize = 2;

    operations_128!();

    operations! {
        start(weight_sums: *const i32) -> int32x4_t { vshlq_n_s32::<7>(vld1q_s32(weight_sums)) }
        dot(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t { sdot(sums, x, w) }
        total(sums: int32x4_t) -> int32x4_t { sums }
    }

    tiles! {
        NeonDot, "neon,dotprod",
        1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16;
        2: 1 2 3 4 5 6 7 8 9 10 11;
        3: 1 2 3 4 5 6 7;
        4: 1 2 3 4 5;
    }
}

/// The instruction, whose intrinsic is unstable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: it touches registers only.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums,
            in(vreg) x,
            in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Each sum in two parts: two neighbouring lanes of the first vector or of the second.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

impl Bytes for Neon {
    type V = int32x4_t;
    type B = uint8x16_t;
    type Sums = [int32x4_t; 2];
    type X = int8x16_t;
    type W = int8x16_t;
    type Half = Neon;

    const LANES: usize = 4;
    const FLIPS: bool = true;
    const TILE_ROWS: &'static [usize] = &[8, 5, 3, 2];
    const COLUMNS: usize = 1;

    operations_128!();

    operations! {
        start(weight_sums: *const i32) -> [int32x4_t; 2] {{
            let (start, zero) = (vshlq_n_s32::<7>(vld1q_s32(weight_sums)), vdupq_n_s32(0));
            [vzip1q_s32(start, zero), vzip2q_s32(start, zero)]
        }}
        dot(sums: [int32x4_t; 2], x: int8x16_t, w: int8x16_t) -> [int32x4_t; 2] {
            [
                vpadalq_s16(sums[0], vmull_s8(vget_low_s8(x), vget_low_s8(w))),
                vpadalq_s16(sums[1], vmull_high_s8(x, w)),
            ]
        }
        total(sums: [int32x4_t; 2]) -> int32x4_t { vpaddq_s32(sums[0], sums[1]) }
    }

    tiles! {
        Neon, "neon",
        1: 1 2 3 4 5 6 7 8;
        2: 1 2 3 4 5;
        3: 1 2 3;
        4: 1 2;
    }
}
