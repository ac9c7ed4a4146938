//! AVX2 and AVX-512, with dot products of bytes and without.

use core::arch::x86_64::*;

use super::{
    Bytes,
    compile::{compile, tiles},
};
use crate::{
    arch::compile::operations,
    int8::{Limits, OFFSETS, PANEL},
};

compile!(avx2, Avx2, "avx2,fma");
compile!(avxvnni, AvxVnni, "avx2,fma,avxvnni");
compile!(avx512, Avx512, "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw");
compile!(avx512vnni, Avx512Vnni, "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw,avx512vnni");

/// Where the offsets of odd channels lie in a head.
const ODD_OFFSETS: usize = OFFSETS + PANEL;

/// Vectors of 512 bits.
macro_rules! operations_512 {
    () => {
        operations! {
            start(_sums: *const i32) -> __m512i { _mm512_setzero_si512() }
            load(from: *const u8) -> __m512i { _mm512_loadu_si512(from.cast()) }
            store(to: *mut u8, bytes: __m512i) { _mm512_storeu_si512(to.cast(), bytes) }
            total(sums: __m512i) -> __m512i { sums }
            // The high halves of 64-bit sums of even and of odd lanes. The multipliers of odd lanes are the low halves from the
            // second one on.
            requantize(v: __m512i, head: *const i32) -> __m512i {{
                let even = _mm512_mul_epi32(v, _mm512_loadu_si512(head.cast()));
                let even = _mm512_add_epi64(even, _mm512_loadu_si512(head.add(OFFSETS).cast()));
                let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(v), _mm512_loadu_si512(head.add(1).cast()));
                let odd = _mm512_add_epi64(odd, _mm512_loadu_si512(head.add(ODD_OFFSETS).cast()));
                _mm512_mask_shuffle_epi32::<0b11_11_01_01>(odd, 0x5555, even)
            }}
            narrow(v: [__m512i; 4], limits: Limits) -> __m512i {{
                let words = [_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3])];
                let bytes = _mm512_packus_epi16(words[0], words[1]);
                let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(limits.low as i8));
                _mm512_min_epu8(bytes, _mm512_set1_epi8(limits.high as i8))
            }}
            in_order(bytes: __m512i) -> __m512i {{
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                _mm512_permutexvar_epi32(order, bytes)
            }}
            interleave(rows: [__m512i; 4]) -> [__m512i; 4] {{
                let low = [_mm512_unpacklo_epi8(rows[0], rows[1]), _mm512_unpacklo_epi8(rows[2], rows[3])];
                let high = [_mm512_unpackhi_epi8(rows[0], rows[1]), _mm512_unpackhi_epi8(rows[2], rows[3])];
                [
                    _mm512_unpacklo_epi16(low[0], low[1]),
                    _mm512_unpackhi_epi16(low[0], low[1]),
                    _mm512_unpacklo_epi16(high[0], high[1]),
                    _mm512_unpackhi_epi16(high[0], high[1]),
                ]
            }}
        }
    };
}

/// Vectors of 256 bits.
macro_rules! operations_256 {
    () => {
        operations! {
            load(from: *const u8) -> __m256i { _mm256_loadu_si256(from.cast()) }
            store(to: *mut u8, bytes: __m256i) { _mm256_storeu_si256(to.cast(), bytes) }
            start(_sums: *const i32) -> __m256i { _mm256_setzero_si256() }
            total(sums: __m256i) -> __m256i { sums }
            // As in 512 bits.
            requantize(v: __m256i, head: *const i32) -> __m256i {{
                let even = _mm256_mul_epi32(v, _mm256_loadu_si256(head.cast()));
                let even = _mm256_add_epi64(even, _mm256_loadu_si256(head.add(OFFSETS).cast()));
                let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(v), _mm256_loadu_si256(head.add(1).cast()));
                let odd = _mm256_add_epi64(odd, _mm256_loadu_si256(head.add(ODD_OFFSETS).cast()));
                _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd)
            }}
            narrow(v: [__m256i; 4], limits: Limits) -> __m256i {{
                let words = [_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3])];
                let bytes = _mm256_packus_epi16(words[0], words[1]);
                let bytes = _mm256_max_epu8(bytes, _mm256_set1_epi8(limits.low as i8));
                _mm256_min_epu8(bytes, _mm256_set1_epi8(limits.high as i8))
            }}
            in_order(bytes: __m256i) -> __m256i {{
                _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
            }}
            interleave(rows: [__m256i; 4]) -> [__m256i; 4] {{
                let low = [_mm256_unpacklo_epi8(rows[0], rows[1]), _mm256_unpacklo_epi8(rows[2], rows[3])];
                let high = [_mm256_unpackhi_epi8(rows[0], rows[1]), _mm256_unpackhi_epi8(rows[2], rows[3])];
                [
                    _mm256_unpacklo_epi16(low[0], low[1]),
                    _mm256_unpackhi_epi16(low[0], low[1]),
                    _mm256_unpacklo_epi16(high[0], high[1]),
                    _mm256_unpackhi_epi16(high[0], high[1]),
                ]
            }}
        }
    };
}

/// Vectors of 128 bits.
macro_rules! operations_128 {
    () => {
        operations! {
            load(from: *const u8) -> __m128i { _mm_loadu_si128(from.cast()) }
            store(to: *mut u8, bytes: __m128i) { _mm_storeu_si128(to.cast(), bytes) }
            start(_sums: *const i32) -> __m128i { _mm_setzero_si128() }
            total(sums: __m128i) -> __m128i { sums }
            // As in 512 bits.
            requantize(v: __m128i, head: *const i32) -> __m128i {{
                let even = _mm_mul_epi32(v, _mm_loadu_si128(head.cast()));
                let even = _mm_add_epi64(even, _mm_loadu_si128(head.add(OFFSETS).cast()));
                let odd = _mm_mul_epi32(_mm_srli_epi64::<32>(v), _mm_loadu_si128(head.add(1).cast()));
                let odd = _mm_add_epi64(odd, _mm_loadu_si128(head.add(ODD_OFFSETS).cast()));
                _mm_blend_epi32::<0b1010>(_mm_srli_epi64::<32>(even), odd)
            }}
            narrow(v: [__m128i; 4], limits: Limits) -> __m128i {{
                let words = [_mm_packs_epi32(v[0], v[1]), _mm_packs_epi32(v[2], v[3])];
                let bytes = _mm_packus_epi16(words[0], words[1]);
                let bytes = _mm_max_epu8(bytes, _mm_set1_epi8(limits.low as i8));
                _mm_min_epu8(bytes, _mm_set1_epi8(limits.high as i8))
            }}
            in_order(bytes: __m128i) -> __m128i { bytes }
            interleave(rows: [__m128i; 4]) -> [__m128i; 4] {{
                let low = [_mm_unpacklo_epi8(rows[0], rows[1]), _mm_unpacklo_epi8(rows[2], rows[3])];
                let high = [_mm_unpackhi_epi8(rows[0], rows[1]), _mm_unpackhi_epi8(rows[2], rows[3])];
                [
                    _mm_unpacklo_epi16(low[0], low[1]),
                    _mm_unpackhi_epi16(low[0], low[1]),
                    _mm_unpacklo_epi16(high[0], high[1]),
                    _mm_unpackhi_epi16(high[0], high[1]),
                ]
            }}
        }
    };
}

/// A vector whose dot product is one instruction.
macro_rules! vnni {
    (
        $name:ident: $half:ident, $vector:ident, $lanes:literal, $set1:ident, $dot:ident, $operations:ident,
        $features:literal, $rows:expr, $columns:literal, $($tiles:tt)*
    ) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Bytes for $name {
            type V = $vector;
            type B = $vector;
            type Sums = $vector;
            type X = $vector;
            type W = $vector;
            type Half = $half;

            const LANES: usize = $lanes;
            const FLIPS: bool = false;
            const TILE_ROWS: &'static [usize] = $rows;
            const COLUMNS: usize = $columns;

            $operations!();

            operations! {
                splat(four: u32) -> $vector { $set1(four as i32) }
                inputs(bytes: $vector) -> $vector { bytes }
                weights(bytes: $vector) -> $vector { bytes }
                dot(sums: $vector, x: $vector, w: $vector) -> $vector { $dot(sums, x, w) }
            }

            tiles! { $name, $features, $($tiles)* }
        }
    };
}

vnni! {
    Avx512Vnni: Avx512Vnni256, __m512i, 16, _mm512_set1_epi32, _mm512_dpbusd_epi32, operations_512,
    "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw,avx512vnni", &[14, 14, 8], 3,
    1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
    2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
    3: 1 2 3 4 5 6 7 8;
}
vnni! {
    Avx512Vnni256: Avx512Vnni128, __m256i, 8, _mm256_set1_epi32, _mm256_dpbusd_epi32, operations_256,
    "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw,avx512vnni", &[14], 3, 1: 1;
}
vnni! {
    Avx512Vnni128: Avx512Vnni128, __m128i, 4, _mm_set1_epi32, _mm_dpbusd_epi32, operations_128,
    "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw,avx512vnni", &[14], 3, 1: 1;
}
vnni! {
    AvxVnni: AvxVnni128, __m256i, 8, _mm256_set1_epi32, _mm256_dpbusd_avx_epi32, operations_256,
    "avx2,fma,avxvnni", &[12, 6], 1,
    1: 1 2 3 4 5 6 7 8 9 10 11 12;
    2: 1 2 3 4 5 6;
}
vnni! {
    AvxVnni128: AvxVnni128, __m128i, 4, _mm_set1_epi32, _mm_dpbusd_avx_epi32, operations_128,
    "avx2,fma,avxvnni", &[12], 1, 1: 1;
}

/// Bytes as 16-bit numbers: of each pair the even one, and the odd one. `pmaddubsw` would multiply bytes as they are, but
/// saturates.
macro_rules! halves {
    (
        $name:ident: $half:ident, $vector:ident, $lanes:literal, $operations:ident, $rows:expr, $columns:literal,
        $set1:ident, $set1_words:ident, $and:ident, $srli:ident, $slli:ident, $srai:ident, $madd:ident, $add:ident,
        $features:literal, $($tiles:tt)*
    ) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Bytes for $name {
            type V = $vector;
            type B = $vector;
            type Sums = $vector;
            type X = [$vector; 2];
            type W = [$vector; 2];
            type Half = $half;

            const LANES: usize = $lanes;
            const FLIPS: bool = false;
            const TILE_ROWS: &'static [usize] = $rows;
            const COLUMNS: usize = $columns;

            $operations!();

            operations! {
                splat(four: u32) -> [$vector; 2] { Self::inputs($set1(four as i32)) }
                inputs(bytes: $vector) -> [$vector; 2] { [$and(bytes, $set1_words(255)), $srli::<8>(bytes)] }
                weights(bytes: $vector) -> [$vector; 2] { [$srai::<8>($slli::<8>(bytes)), $srai::<8>(bytes)] }
                dot(sums: $vector, x: [$vector; 2], w: [$vector; 2]) -> $vector {
                    $add($add(sums, $madd(x[0], w[0])), $madd(x[1], w[1]))
                }
            }

            tiles! { $name, $features, $($tiles)* }
        }
    };
}

halves! {
    Avx512: Avx2, __m512i, 16, operations_512, &[14, 10], 2,
    _mm512_set1_epi32, _mm512_set1_epi16, _mm512_and_si512, _mm512_srli_epi16, _mm512_slli_epi16, _mm512_srai_epi16,
    _mm512_madd_epi16, _mm512_add_epi32, "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw",
    1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
    2: 1 2 3 4 5 6 7 8 9 10;
}
halves! {
    Avx2: Avx2With128, __m256i, 8, operations_256, &[6, 4], 1,
    _mm256_set1_epi32, _mm256_set1_epi16, _mm256_and_si256, _mm256_srli_epi16, _mm256_slli_epi16, _mm256_srai_epi16,
    _mm256_madd_epi16, _mm256_add_epi32, "avx2,fma",
    1: 1 2 3 4 5 6;
    2: 1 2 3 4;
}
halves! {
    Avx2With128: Avx2With128, __m128i, 4, operations_128, &[6], 1,
    _mm_set1_epi32, _mm_set1_epi16, _mm_and_si128, _mm_srli_epi16, _mm_slli_epi16, _mm_srai_epi16,
    _mm_madd_epi16, _mm_add_epi32, "avx2,fma",
    1: 1;
}
