//! The transforms of Winograd convolutions, a vector of channels at a time.

use core::{ops::Range, ptr};

use super::{
    simd::Simd,
    vectors::{activate_in_place, get, put},
};
use crate::{
    winograd::{Input, Output, P, PATCH, Patch, Q, TILE},
    workers::Shared,
};

/// [`crate::winograd::winograd_input`].
///
/// # Safety
/// As [`Simd`]; `out` has PATCH² times `job.stride` values.
#[inline(always)]
pub(crate) unsafe fn input<S: Simd>(job: &Input, tiles: Range<usize>, out: &mut [f32]) {
    for (at, tile) in tiles.enumerate() {
        let patch = job.patches.patch(tile);
        let mut channel = 0;
        // SAFETY: channel + n never passes the last channel.
        unsafe {
            let out = out.as_mut_ptr().add(at * job.c);
            while channel + S::LANES <= job.c {
                spread_patch::<S>(job, &patch, channel, S::LANES, out.add(channel));
                channel += S::LANES;
            }
            if channel < job.c {
                spread_patch::<S>(job, &patch, channel, job.c - channel, out.add(channel));
            }
        }
    }
}

/// `n` channels of a patch.
#[inline(always)]
unsafe fn spread_patch<S: Simd>(job: &Input, patch: &Patch, channel: usize, n: usize, out: *mut f32) {
    let [line, _] = job.patches.lines();
    // SAFETY: the rows and columns exist.
    unsafe {
        let from = job.x.as_ptr().wrapping_add(patch.pixel * job.c + channel);
        let mut rows = [[S::splat(0.0); PATCH]; PATCH];
        if patch.rows.len() == PATCH && patch.columns.len() == PATCH {
            for i in 0..PATCH {
                let mut d = [S::splat(0.0); PATCH];
                for j in 0..PATCH {
                    d[j] = get::<S>(from.add((i * line + j) * job.c), n);
                }
                rows[i] = spread::<S>(d);
            }
        } else {
            for (i, row) in patch.rows.clone().enumerate() {
                let mut d = [S::splat(0.0); PATCH];
                for (j, column) in patch.columns.clone().enumerate() {
                    d[column] = get::<S>(from.add((i * line + j) * job.c), n);
                }
                rows[row] = spread::<S>(d);
            }
        }
        for j in 0..PATCH {
            let mut column = [S::splat(0.0); PATCH];
            for i in 0..PATCH {
                column[i] = rows[i][j];
            }
            let column = spread::<S>(column);
            for i in 0..PATCH {
                put::<S>(out.add((i * PATCH + j) * job.stride), column[i], n);
            }
        }
    }
}

/// As [`crate::winograd::spread`].
#[inline(always)]
unsafe fn spread<S: Simd>([d0, d1, d2, d3, d4, d5]: [S::V; PATCH]) -> [S::V; PATCH] {
    // SAFETY: the caller's promise.
    unsafe {
        let (p, q) = (S::splat(P), S::splat(Q));
        let (minus_p, minus_q) = (S::splat(-P), S::splat(-Q));
        let (minus_pp, minus_qq) = (S::splat(-(P * P)), S::splat(-(Q * Q)));
        let (product, minus_sum) = (S::splat(P * P * (Q * Q)), S::splat(-(P * P + Q * Q)));
        let (even_p, odd_p) = (S::fma(d2, minus_qq, d4), S::fma(d1, minus_qq, d3));
        let (even_q, odd_q) = (S::fma(d2, minus_pp, d4), S::fma(d1, minus_pp, d3));
        [
            S::fma(d0, product, S::fma(d2, minus_sum, d4)),
            S::fma(odd_p, p, even_p),
            S::fma(odd_p, minus_p, even_p),
            S::fma(odd_q, q, even_q),
            S::fma(odd_q, minus_q, even_q),
            S::fma(d1, product, S::fma(d3, minus_sum, d5)),
        ]
    }
}

/// [`crate::winograd::winograd_output`].
///
/// # Safety
/// As [`Simd`]; the products are there, and nobody else uses the tiles' `job.columns` of y.
#[inline(always)]
pub(crate) unsafe fn output<S: Simd>(job: &Output, tiles: Range<usize>, y: &Shared) {
    let [_, line] = job.patches.lines();
    let width = job.columns.len();
    for (at, tile) in tiles.enumerate() {
        let place = job.patches.tile(tile);
        let mut pixels = [[Pixel { y: ptr::null_mut(), residual: ptr::null() }; TILE]; TILE];
        // SAFETY: the caller's promise; column + n never passes the last one.
        unsafe {
            for i in 0..place.rows {
                for j in 0..place.columns {
                    let first = (place.pixel + i * line + j) * job.c + job.columns.start;
                    pixels[i][j] = Pixel {
                        y: y.slice(first, width).as_mut_ptr(),
                        residual: job.residual.map_or(ptr::null(), |r| r[first..first + width].as_ptr()),
                    };
                }
            }
            let products = job.products.as_ptr().add(at * job.row);
            let mut column = 0;
            while column + S::LANES <= width {
                gather_tile::<S>(job, products, &pixels, column, S::LANES);
                column += S::LANES;
            }
            if column < width {
                gather_tile::<S>(job, products, &pixels, column, width - column);
            }
            if job.act.clamp().is_none() {
                for pixel in pixels.as_flattened().iter().filter(|pixel| !pixel.y.is_null()) {
                    activate_in_place::<S>(job.act, pixel.y, width);
                }
            }
        }
    }
}

/// An output's channels and what is added to them, or null.
#[derive(Clone, Copy)]
struct Pixel {
    y: *mut f32,
    residual: *const f32,
}

/// `n` columns of a tile.
#[inline(always)]
unsafe fn gather_tile<S: Simd>(
    job: &Output,
    products: *const f32,
    pixels: &[[Pixel; TILE]; TILE],
    column: usize,
    n: usize,
) {
    let (low, high) = job.act.clamp().unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (S::splat(low), S::splat(high));
        let bias = get::<S>(job.bias.as_ptr().add(column), n);
        let mut rows = [[S::splat(0.0); TILE]; PATCH];
        for i in 0..PATCH {
            let mut m = [S::splat(0.0); PATCH];
            for j in 0..PATCH {
                m[j] = get::<S>(products.add((i * PATCH + j) * job.stride + column), n);
            }
            rows[i] = gather::<S>(m);
        }
        for j in 0..TILE {
            let mut m = [S::splat(0.0); PATCH];
            for i in 0..PATCH {
                m[i] = rows[i][j];
            }
            let values = gather::<S>(m);
            for i in 0..TILE {
                let pixel = pixels[i][j];
                if pixel.y.is_null() {
                    continue;
                }
                let mut sum = S::add(values[i], bias);
                if !pixel.residual.is_null() {
                    sum = S::add(sum, get::<S>(pixel.residual.add(column), n));
                }
                put::<S>(pixel.y.add(column), S::min(high, S::max(low, sum)), n);
            }
        }
    }
}

/// As [`crate::winograd::gather`].
#[inline(always)]
unsafe fn gather<S: Simd>([m0, m1, m2, m3, m4, m5]: [S::V; PATCH]) -> [S::V; TILE] {
    // SAFETY: the caller's promise.
    unsafe {
        let (even_p, odd_p) = (S::add(m1, m2), S::sub(m1, m2));
        let (even_q, odd_q) = (S::add(m3, m4), S::sub(m3, m4));
        [
            S::add(S::add(m0, even_p), even_q),
            S::fma(odd_q, S::splat(Q), S::mul(odd_p, S::splat(P))),
            S::fma(even_q, S::splat(Q * Q), S::mul(even_p, S::splat(P * P))),
            S::fma(odd_q, S::splat(Q * Q * Q), S::fma(odd_p, S::splat(P * P * P), m5)),
        ]
    }
}
