//! Loops over vectors without reuse: element by element, and pooling.

use core::ops::Range;

use super::simd::{Simd, activate};
use crate::{
    Act,
    pool::{self, Job, Kind},
};

/// [`crate::elementwise::activated`].
///
/// # Safety
/// As [`Simd`]; all slices are of one length.
#[inline(always)]
pub(crate) unsafe fn activated<S: Simd>(act: Act, x: &[f32], y: &mut [f32]) {
    let mut i = 0;
    // SAFETY: i + n never passes the end.
    unsafe {
        while i < y.len() {
            let n = S::LANES.min(y.len() - i);
            let (x, y) = (x.as_ptr().add(i), y.as_mut_ptr().add(i));
            put::<S>(y, activate::<S>(act, get::<S>(x, n)), n);
            i += n;
        }
    }
}

/// [`activated`] where x is y.
///
/// # Safety
/// As [`Simd`]; `y` is valid for `len` values.
#[inline(always)]
pub(crate) unsafe fn activate_in_place<S: Simd>(act: Act, y: *mut f32, len: usize) {
    let mut i = 0;
    // SAFETY: i + n never passes the end.
    unsafe {
        while i < len {
            let n = S::LANES.min(len - i);
            let y = y.add(i);
            put::<S>(y, activate::<S>(act, get::<S>(y, n)), n);
            i += n;
        }
    }
}

/// [`crate::elementwise::sum`].
///
/// # Safety
/// As [`Simd`]; all slices are of one length.
#[inline(always)]
pub(crate) unsafe fn sum<S: Simd>(act: Act, a: &[f32], b: &[f32], y: &mut [f32]) {
    let mut i = 0;
    // SAFETY: i + n never passes the end.
    unsafe {
        while i < y.len() {
            let n = S::LANES.min(y.len() - i);
            let v = S::add(get::<S>(a.as_ptr().add(i), n), get::<S>(b.as_ptr().add(i), n));
            put::<S>(y.as_mut_ptr().add(i), activate::<S>(act, v), n);
            i += n;
        }
    }
}

/// [`crate::elementwise::times`].
///
/// # Safety
/// As [`Simd`]; all slices are of one length.
#[inline(always)]
pub(crate) unsafe fn times<S: Simd>(a: &[f32], b: &[f32], y: &mut [f32]) {
    let mut i = 0;
    // SAFETY: i + n never passes the end.
    unsafe {
        while i < y.len() {
            let n = S::LANES.min(y.len() - i);
            let v = S::mul(get::<S>(a.as_ptr().add(i), n), get::<S>(b.as_ptr().add(i), n));
            put::<S>(y.as_mut_ptr().add(i), v, n);
            i += n;
        }
    }
}

/// [`crate::elementwise::accumulated`].
///
/// # Safety
/// As [`Simd`]; both slices are of one length.
#[inline(always)]
pub(crate) unsafe fn accumulated<S: Simd>(x: &[f32], y: &mut [f32]) {
    let mut i = 0;
    // SAFETY: i + n never passes the end.
    unsafe {
        while i < y.len() {
            let n = S::LANES.min(y.len() - i);
            let y = y.as_mut_ptr().add(i);
            put::<S>(y, S::add(get::<S>(y, n), get::<S>(x.as_ptr().add(i), n)), n);
            i += n;
        }
    }
}

/// [`crate::elementwise::scaled`].
///
/// # Safety
/// As [`Simd`]; x and y are whole pixels of `scale.len()` > 0 channels.
#[inline(always)]
pub(crate) unsafe fn scaled<S: Simd>(x: &[f32], scale: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(scale.len()).zip(y.chunks_exact_mut(scale.len())) {
        // SAFETY: all three are one pixel long.
        unsafe { times::<S>(x, scale, y) };
    }
}

/// [`crate::pool::mean`].
///
/// # Safety
/// As [`Simd`]; x is whole pixels, at least one, of `y.len()` > 0 channels.
#[inline(always)]
pub(crate) unsafe fn mean<S: Simd>(x: &[f32], y: &mut [f32]) {
    const VECTORS: usize = 8;
    let c = y.len();
    let pixels = x.len() / c;
    let mut channel = 0;
    // SAFETY: channels up to c, pixels up to the last.
    unsafe {
        let share = S::splat(1.0 / pixels as f32);
        while channel + VECTORS * S::LANES <= c {
            let mut sums = [S::splat(0.0); VECTORS];
            for pixel in 0..pixels {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = S::add(*sum, S::load(x.as_ptr().add(pixel * c + channel + j * S::LANES)));
                }
            }
            for (j, &sum) in sums.iter().enumerate() {
                S::store(y.as_mut_ptr().add(channel + j * S::LANES), S::mul(sum, share));
            }
            channel += VECTORS * S::LANES;
        }
        while channel < c {
            let n = S::LANES.min(c - channel);
            let mut sum = S::splat(0.0);
            for pixel in 0..pixels {
                sum = S::add(sum, get::<S>(x.as_ptr().add(pixel * c + channel), n));
            }
            put::<S>(y.as_mut_ptr().add(channel), S::mul(sum, share), n);
            channel += n;
        }
    }
}

/// [`crate::pool::pool`].
///
/// # Safety
/// As [`Simd`]; the slices have the lengths of the checked job.
#[inline(always)]
pub(crate) unsafe fn pool<S: Simd>(job: &Job, rows: Range<usize>, y: &mut [f32]) {
    let &Job { window: w, c, kind, x } = job;
    if c < S::LANES / 2 {
        return pool::pool(job, rows, y);
    }
    for (row, y) in rows.zip(y.chunks_exact_mut(w.out_w * c)) {
        let (image, oy) = (row / w.out_h, row % w.out_h);
        let taps = w.rows(oy);
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            let columns = w.columns(ox);
            let positions = kind.positions(w, oy, ox);
            let mut channel = 0;
            while channel < c {
                let n = S::LANES.min(c - channel);
                // SAFETY: the taps exist, and channel + n ≤ c.
                unsafe {
                    let mut v = S::splat(kind.start());
                    for ky in taps.clone() {
                        for kx in columns.clone() {
                            let pixel = (image * w.in_h + w.row(oy, ky)) * w.in_w + w.column(ox, kx);
                            let value = get::<S>(x.as_ptr().add(pixel * c + channel), n);
                            v = if kind == Kind::Max { S::max(v, value) } else { S::add(v, value) };
                        }
                    }
                    if kind != Kind::Max {
                        v = S::div(v, S::splat(positions));
                    }
                    put::<S>(y.as_mut_ptr().add(channel), v, n);
                }
                channel += n;
            }
        }
    }
}

#[inline(always)]
pub(super) unsafe fn get<S: Simd>(from: *const f32, n: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { if n == S::LANES { S::load(from) } else { S::load_n(from, n) } }
}

#[inline(always)]
pub(super) unsafe fn put<S: Simd>(to: *mut f32, v: S::V, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { if n == S::LANES { S::store(to, v) } else { S::store_n(to, v, n) } }
}
