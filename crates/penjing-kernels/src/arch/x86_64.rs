//! AVX2 with FMA, and AVX-512.

use core::arch::x86_64::*;

use super::{
    compile::{compile, lines, operations, row, table},
    depthwise::{Line, SpreadLine},
    depthwise_weights::Strip,
    product::Tile,
    simd::Simd,
    sparse,
};
use crate::resample::{HALF, PRECISION_BITS};

compile!(avx2, Avx2, "avx2,fma");
compile!(avx512, Avx512, "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw");

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: &'static [usize] = &[12, 6];
    const ROW_STEP: usize = 48;
    const GRADIENT_ROWS: &'static [usize] = &[6, 6];
    const SPARSE_SUMS: usize = 12;

    operations! {
        splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        load(from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
        prefetch(at: *const f32) { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        load_n(from: *const f32, n: usize) -> __m256 { _mm256_maskload_ps(from, first_lanes(n)) }
        store(to: *mut f32, v: __m256) { _mm256_storeu_ps(to, v) }
        store_n(to: *mut f32, v: __m256, n: usize) { _mm256_maskstore_ps(to, first_lanes(n), v) }
        fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        where_less(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        add_exponent(p: __m256, n: __m256) -> __m256 {
            _mm256_castsi256_ps(_mm256_add_epi32(
                _mm256_castps_si256(p),
                _mm256_slli_epi32::<23>(_mm256_castps_si256(n)),
            ))
        }
        turn_square(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            for quad in 0..2 {
                let mut rows = [_mm256_setzero_ps(); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    let from = from.add(i * from_stride + 4 * quad);
                    let lanes = _mm256_castps128_ps256(_mm_loadu_ps(from));
                    *row = _mm256_insertf128_ps::<1>(lanes, _mm_loadu_ps(from.add(4 * from_stride)));
                }
                let [a, b, c, d] = rows;
                let (low, lower) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (high, higher) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let to = to.add(4 * quad * to_stride);
                _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(low, lower));
                _mm256_storeu_ps(to.add(to_stride), _mm256_shuffle_ps::<0xEE>(low, lower));
                _mm256_storeu_ps(to.add(2 * to_stride), _mm256_shuffle_ps::<0x44>(high, higher));
                _mm256_storeu_ps(to.add(3 * to_stride), _mm256_shuffle_ps::<0xEE>(high, higher));
            }
        }
        sparse_tile(vectors: usize, tile: &sparse::Tile) {
            {
                use avx2::sparse_tile;
                row!(vectors, sparse_tile(tile), 1 2 3 4 5 6 7 8)
            }
        }
        product_tile(rows: usize, vectors: usize, tile: &Tile) {
            {
                use avx2::product_tile;
                match vectors {
                    1 => table!(rows, product_tile::<_, 1>(tile), 1 2 3 4 5 6 7 8 9 10 11 12),
                    _ => table!(rows, product_tile::<_, 2>(tile), 1 2 3 4 5 6),
                }
            }
        }
        gradient_tile(rows: usize, vectors: usize, tile: &Tile) {
            {
                use avx2::gradient_tile;
                match vectors {
                    2 => table!(rows, gradient_tile::<_, 2>(tile), 1 2 3 4 5 6),
                    _ => table!(rows, gradient_tile::<_, 1>(tile), 1 2 3 4 5 6),
                }
            }
        }
    }

    lines!(avx2);

    #[inline(always)]
    unsafe fn pixel(pixels: *const u8, weights: *const i32, taps: usize) -> [u8; 4] {
        // SAFETY: the promise of the trait. The sixteen bytes of four pixels end four behind them.
        unsafe {
            // Of two neighbouring pixels each channel's bytes as 16 bits, side by side; the other two in the upper half.
            let spread = _mm256_setr_epi8(
                0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
                6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
            );
            // A weight is 2^16·high + low, both with a sign, so that two of each are multiplied and added at once.
            let low = _mm256_setr_epi8(
                0, 1, 4, 5, 0, 1, 4, 5, 0, 1, 4, 5, 0, 1, 4, 5, //
                8, 9, 12, 13, 8, 9, 12, 13, 8, 9, 12, 13, 8, 9, 12, 13,
            );
            let high = _mm256_add_epi8(low, _mm256_set1_epi8(2));
            let carry = _mm256_set1_epi32(1 << 15);
            let (mut lows, mut highs) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for tap in (0..taps).step_by(4) {
                let four = _mm256_broadcastsi128_si256(_mm_loadu_si128(pixels.add(tap * 3).cast()));
                let four = _mm256_shuffle_epi8(four, spread);
                let w = _mm256_broadcastsi128_si256(_mm_loadu_si128(weights.add(tap).cast()));
                lows = _mm256_add_epi32(lows, _mm256_madd_epi16(four, _mm256_shuffle_epi8(w, low)));
                let w = _mm256_add_epi32(w, carry);
                highs = _mm256_add_epi32(highs, _mm256_madd_epi16(four, _mm256_shuffle_epi8(w, high)));
            }
            let sums = _mm256_add_epi32(lows, _mm256_slli_epi32::<16>(highs));
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let sum = _mm_add_epi32(sum, _mm_set1_epi32(HALF));
            let sum = _mm_srai_epi32::<{ PRECISION_BITS as i32 }>(sum);
            let words = _mm_packs_epi32(sum, sum);
            _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes()
        }
    }

    #[inline(always)]
    unsafe fn depthwise_weight_strip<const K: usize, const STRIDE: usize>(strip: &Strip) {
        // SAFETY: the promise of the trait.
        unsafe {
            match K {
                3 => avx2::depthwise_weight_strip::<K, STRIDE, 3>(strip),
                _ => avx2::depthwise_weight_strip::<K, STRIDE, 2>(strip),
            }
        }
    }
}

/// All bits of the first `n` lanes.
#[inline(always)]
unsafe fn first_lanes(n: usize) -> __m256i {
    // SAFETY: only called where AVX2 is.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const TILE_ROWS: &'static [usize] = &[14, 14, 7];
    const ROW_STEP: usize = 56;
    const GRADIENT_ROWS: &'static [usize] = &[14, 14, 8, 6];
    const SPARSE_SUMS: usize = 28;

    operations! {
        splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        load(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
        prefetch(at: *const f32) { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        load_n(from: *const f32, n: usize) -> __m512 { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as __mmask16, from) }
        store(to: *mut f32, v: __m512) { _mm512_storeu_ps(to, v) }
        store_n(to: *mut f32, v: __m512, n: usize) {
            _mm512_mask_storeu_ps(to, ((1u32 << n) - 1) as __mmask16, v)
        }
        fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        where_less(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        }
        add_exponent(p: __m512, n: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_add_epi32(
                _mm512_castps_si512(p),
                _mm512_slli_epi32::<23>(_mm512_castps_si512(n)),
            ))
        }
        turn_square(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            for quad in 0..4 {
                let mut rows = [_mm512_setzero_ps(); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    let from = from.add(i * from_stride + 4 * quad);
                    let lanes = _mm512_castps128_ps512(_mm_loadu_ps(from));
                    let lanes = _mm512_insertf32x4::<1>(lanes, _mm_loadu_ps(from.add(4 * from_stride)));
                    let lanes = _mm512_insertf32x4::<2>(lanes, _mm_loadu_ps(from.add(8 * from_stride)));
                    *row = _mm512_insertf32x4::<3>(lanes, _mm_loadu_ps(from.add(12 * from_stride)));
                }
                let [a, b, c, d] = rows;
                let (low, lower) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                let (high, higher) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                let to = to.add(4 * quad * to_stride);
                _mm512_storeu_ps(to, _mm512_shuffle_ps::<0x44>(low, lower));
                _mm512_storeu_ps(to.add(to_stride), _mm512_shuffle_ps::<0xEE>(low, lower));
                _mm512_storeu_ps(to.add(2 * to_stride), _mm512_shuffle_ps::<0x44>(high, higher));
                _mm512_storeu_ps(to.add(3 * to_stride), _mm512_shuffle_ps::<0xEE>(high, higher));
            }
        }
        sparse_tile(vectors: usize, tile: &sparse::Tile) {
            {
                use avx512::sparse_tile;
                row!(vectors, sparse_tile(tile), 1 2 3 4)
            }
        }
        product_tile(rows: usize, vectors: usize, tile: &Tile) {
            {
                use avx512::product_tile;
                match vectors {
                    1 => table!(rows, product_tile::<_, 1>(tile), 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                    2 => table!(rows, product_tile::<_, 2>(tile), 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                    _ => table!(rows, product_tile::<_, 3>(tile), 1 2 3 4 5 6 7),
                }
            }
        }
        gradient_tile(rows: usize, vectors: usize, tile: &Tile) {
            {
                use avx512::gradient_tile;
                match vectors {
                    1 => table!(rows, gradient_tile::<_, 1>(tile), 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                    2 => table!(rows, gradient_tile::<_, 2>(tile), 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
                    3 => table!(rows, gradient_tile::<_, 3>(tile), 1 2 3 4 5 6 7 8),
                    _ => table!(rows, gradient_tile::<_, 4>(tile), 1 2 3 4 5 6),
                }
            }
        }
    }

    lines!(avx512);

    #[inline(always)]
    unsafe fn pixel(pixels: *const u8, weights: *const i32, taps: usize) -> [u8; 4] {
        // SAFETY: the promise of the trait; whoever has AVX-512 has AVX2.
        unsafe { Avx2::pixel(pixels, weights, taps) }
    }

    #[inline(always)]
    unsafe fn depthwise_weight_strip<const K: usize, const STRIDE: usize>(strip: &Strip) {
        // SAFETY: the promise of the trait.
        unsafe { avx512::depthwise_weight_strip::<K, STRIDE, 3>(strip) }
    }
}
