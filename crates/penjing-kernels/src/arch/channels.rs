//! Loops over the rows of `[m][c]`, a few vectors of channels at a time, so that what belongs to a channel stays in registers.

use super::{
    simd::{Simd, activate, slope},
    vectors::{get, put},
};
use crate::{
    Act,
    batch_norm::{Lazy, ROWS},
};

/// Neighbouring vectors of channels.
struct Strip {
    c: usize,
    /// The channel it begins with.
    first: usize,
    /// Values in every vector: all lanes, or c if there are fewer channels than lanes.
    lanes: usize,
}

impl Strip {
    /// Where vector `j` begins. The last one of all may begin early: then the same values are computed again.
    #[inline(always)]
    fn at<S: Simd>(&self, j: usize) -> usize {
        (self.first + j * S::LANES).min(self.c - self.lanes)
    }
}

/// A loop over rows.
trait Rows {
    /// The channels of `N` vectors.
    ///
    /// # Safety
    /// As [`Simd`]; slices are `[c]` or `[m][c]`, and the strip lies inside c.
    unsafe fn strip<S: Simd, const N: usize>(&mut self, act: Act, strip: Strip);
}

/// Runs the loop for all channels, compiled apart for the activations that need no computing.
///
/// # Safety
/// As [`Rows::strip`]; c > 0.
#[inline(always)]
unsafe fn over_channels<S: Simd>(c: usize, act: Act, rows: &mut impl Rows) {
    let vectors = c.div_ceil(S::LANES);
    let mut vector = 0;
    // SAFETY: the strips cover c and no more.
    unsafe {
        if c < S::LANES {
            return rows.strip::<S, 1>(act, Strip { c, first: 0, lanes: c });
        }
        while vector < vectors {
            let left = vectors - vector;
            let width = if act.clamp().is_some() { left.div_ceil(left.div_ceil(4)) } else { 1 };
            let strip = Strip { c, first: vector * S::LANES, lanes: S::LANES };
            match act {
                Act::None => wide::<S>(width, Act::None, strip, rows),
                Act::Relu => wide::<S>(width, Act::Relu, strip, rows),
                Act::Relu6 => wide::<S>(width, Act::Relu6, strip, rows),
                _ => rows.strip::<S, 1>(act, strip),
            }
            vector += width;
        }
    }
}

#[inline(always)]
unsafe fn wide<S: Simd>(width: usize, act: Act, strip: Strip, rows: &mut impl Rows) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            4 => rows.strip::<S, 4>(act, strip),
            3 => rows.strip::<S, 3>(act, strip),
            2 => rows.strip::<S, 2>(act, strip),
            _ => rows.strip::<S, 1>(act, strip),
        }
    }
}

/// The strip of a vector `[c]`.
#[inline(always)]
unsafe fn channels<S: Simd, const N: usize>(strip: &Strip, from: &[f32]) -> [S::V; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut v = [S::splat(0.0); N];
        for j in 0..N {
            v[j] = get::<S>(from.as_ptr().add(strip.at::<S>(j)), strip.lanes);
        }
        v
    }
}

/// Adds the strip's sums to `totals` `[c]`.
#[inline(always)]
unsafe fn add_sums<S: Simd, const N: usize>(strip: &Strip, sums: &[S::V; N], totals: &mut [f64]) {
    for j in 0..N {
        let mut values = [0.0; 16];
        // SAFETY: no vector is longer.
        unsafe { S::store(values.as_mut_ptr(), sums[j]) };
        let begin = strip.at::<S>(j);
        // What a vector that begins early repeats is counted already.
        let repeated = strip.first + j * S::LANES - begin;
        for lane in repeated..strip.lanes {
            totals[begin + lane] += f64::from(values[lane]);
        }
    }
}

/// Scale and shift of a strip; 1 and −0 change no value.
#[inline(always)]
unsafe fn lazy_channels<S: Simd, const N: usize>(
    strip: &Strip,
    lazy: Option<&Lazy>,
) -> ([S::V; N], [S::V; N]) {
    // SAFETY: the caller's promise.
    unsafe {
        match lazy {
            Some(lazy) => (channels::<S, N>(strip, lazy.scale), channels::<S, N>(strip, lazy.shift)),
            None => ([S::splat(1.0); N], [S::splat(-0.0); N]),
        }
    }
}

/// de·act'(scale·y + shift)
#[inline(always)]
unsafe fn before_act<S: Simd>(act: Act, scale: S::V, shift: S::V, de: S::V, y: S::V) -> S::V {
    if act == Act::None {
        return de;
    }
    // SAFETY: the caller's promise.
    unsafe { S::mul(de, slope::<S>(act, S::fma(scale, y, shift))) }
}

/// [`crate::batch_norm::read`].
///
/// # Safety
/// As [`Rows::strip`].
#[inline(always)]
pub(crate) unsafe fn read<S: Simd>(lazy: &Lazy, x: &[f32], y: &mut [f32]) {
    struct Read<'a>(&'a Lazy<'a>, &'a [f32], &'a mut [f32]);
    impl Rows for Read<'_> {
        #[inline(always)]
        unsafe fn strip<S: Simd, const N: usize>(&mut self, act: Act, s: Strip) {
            let Read(lazy, x, y) = self;
            let rows = x.len() / s.c;
            // SAFETY: rows up to the last, channels of the strip.
            unsafe {
                let (scale, shift) = lazy_channels::<S, N>(&s, Some(lazy));
                for row in 0..rows {
                    for j in 0..N {
                        let i = row * s.c + s.at::<S>(j);
                        let u = S::fma(scale[j], get::<S>(x.as_ptr().add(i), s.lanes), shift[j]);
                        put::<S>(y.as_mut_ptr().add(i), activate::<S>(act, u), s.lanes);
                    }
                }
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { over_channels::<S>(lazy.scale.len(), lazy.act, &mut Read(lazy, x, y)) }
}

/// [`crate::batch_norm::read_sum`].
///
/// # Safety
/// As [`Rows::strip`].
#[inline(always)]
pub(crate) unsafe fn read_sum<S: Simd>(
    c: usize,
    a: Option<&Lazy>,
    x: &[f32],
    b: Option<&Lazy>,
    x2: &[f32],
    y: &mut [f32],
) {
    struct ReadSum<'a> {
        a: Option<&'a Lazy<'a>>,
        x: &'a [f32],
        b: Option<&'a Lazy<'a>>,
        x2: &'a [f32],
        y: &'a mut [f32],
    }
    impl Rows for ReadSum<'_> {
        #[inline(always)]
        unsafe fn strip<S: Simd, const N: usize>(&mut self, act: Act, s: Strip) {
            // Two activations only where neither is constant.
            let acts = match act {
                Act::None => [Act::None; 2],
                _ => [self.a, self.b].map(|lazy| lazy.map_or(Act::None, |lazy| lazy.act)),
            };
            let rows = self.x.len() / s.c;
            // SAFETY: rows up to the last, channels of the strip.
            unsafe {
                let (scale, shift) = lazy_channels::<S, N>(&s, self.a);
                let (scale2, shift2) = lazy_channels::<S, N>(&s, self.b);
                for row in 0..rows {
                    for j in 0..N {
                        let i = row * s.c + s.at::<S>(j);
                        let u = S::fma(scale[j], get::<S>(self.x.as_ptr().add(i), s.lanes), shift[j]);
                        let u2 = S::fma(scale2[j], get::<S>(self.x2.as_ptr().add(i), s.lanes), shift2[j]);
                        let v = S::add(activate::<S>(acts[0], u), activate::<S>(acts[1], u2));
                        put::<S>(self.y.as_mut_ptr().add(i), v, s.lanes);
                    }
                }
            }
        }
    }
    let acts = [a, b].map(|lazy| lazy.map_or(Act::None, |lazy| lazy.act));
    let act = if acts[0] == Act::None { acts[1] } else { acts[0] };
    // SAFETY: the caller's promise.
    unsafe { over_channels::<S>(c, act, &mut ReadSum { a, x, b, x2, y }) }
}

/// [`crate::batch_norm::sum_moments`].
///
/// # Safety
/// As [`Rows::strip`].
#[inline(always)]
pub(crate) unsafe fn sum_moments<S: Simd>(about: &[f32], x: &[f32], sum: &mut [f64], square: &mut [f64]) {
    struct Moments<'a> {
        about: &'a [f32],
        x: &'a [f32],
        sum: &'a mut [f64],
        square: &'a mut [f64],
    }
    impl Rows for Moments<'_> {
        #[inline(always)]
        unsafe fn strip<S: Simd, const N: usize>(&mut self, _: Act, s: Strip) {
            // SAFETY: rows up to the last, channels of the strip.
            unsafe {
                let about = channels::<S, N>(&s, self.about);
                let mut sums = [S::splat(0.0); N];
                let mut squares = sums;
                for row in 0..self.x.len() / s.c {
                    for j in 0..N {
                        let x = get::<S>(self.x.as_ptr().add(row * s.c + s.at::<S>(j)), s.lanes);
                        let d = S::sub(x, about[j]);
                        sums[j] = S::add(sums[j], d);
                        squares[j] = S::fma(d, d, squares[j]);
                    }
                }
                add_sums::<S, N>(&s, &sums, self.sum);
                add_sums::<S, N>(&s, &squares, self.square);
            }
        }
    }
    let c = about.len();
    for x in x.chunks(ROWS * c) {
        // SAFETY: the caller's promise.
        unsafe { over_channels::<S>(c, Act::None, &mut Moments { about, x, sum, square }) }
    }
}

/// [`crate::batch_norm::sum_gradients`].
///
/// # Safety
/// As [`Rows::strip`].
#[inline(always)]
pub(crate) unsafe fn sum_gradients<S: Simd>(
    lazy: Option<&Lazy>,
    mean: &[f32],
    de: &[f32],
    y: &[f32],
    s1: &mut [f64],
    s2: &mut [f64],
) {
    struct Sums<'a> {
        lazy: Option<&'a Lazy<'a>>,
        mean: &'a [f32],
        de: &'a [f32],
        y: &'a [f32],
        s1: &'a mut [f64],
        s2: &'a mut [f64],
    }
    impl Rows for Sums<'_> {
        #[inline(always)]
        unsafe fn strip<S: Simd, const N: usize>(&mut self, act: Act, s: Strip) {
            // SAFETY: rows up to the last, channels of the strip.
            unsafe {
                let (scale, shift) = lazy_channels::<S, N>(&s, self.lazy);
                let mean = channels::<S, N>(&s, self.mean);
                let mut s1 = [S::splat(0.0); N];
                let mut s2 = s1;
                for row in 0..self.y.len() / s.c {
                    for j in 0..N {
                        let i = row * s.c + s.at::<S>(j);
                        let y = get::<S>(self.y.as_ptr().add(i), s.lanes);
                        let de = get::<S>(self.de.as_ptr().add(i), s.lanes);
                        let g = before_act::<S>(act, scale[j], shift[j], de, y);
                        s1[j] = S::add(s1[j], g);
                        s2[j] = S::fma(g, S::sub(y, mean[j]), s2[j]);
                    }
                }
                add_sums::<S, N>(&s, &s1, self.s1);
                add_sums::<S, N>(&s, &s2, self.s2);
            }
        }
    }
    let c = mean.len();
    let act = lazy.map_or(Act::None, |lazy| lazy.act);
    for (de, y) in de.chunks(ROWS * c).zip(y.chunks(ROWS * c)) {
        // SAFETY: the caller's promise.
        unsafe { over_channels::<S>(c, act, &mut Sums { lazy, mean, de, y, s1, s2 }) }
    }
}

/// [`crate::batch_norm::pull_back`].
///
/// # Safety
/// As [`Rows::strip`].
#[inline(always)]
pub(crate) unsafe fn pull_back<S: Simd>(
    lazy: Option<&Lazy>,
    coefficients: [&[f32]; 3],
    de: &[f32],
    y: &[f32],
    dy: &mut [f32],
) {
    struct PullBack<'a> {
        lazy: Option<&'a Lazy<'a>>,
        coefficients: [&'a [f32]; 3],
        de: &'a [f32],
        y: &'a [f32],
        dy: &'a mut [f32],
    }
    impl Rows for PullBack<'_> {
        #[inline(always)]
        unsafe fn strip<S: Simd, const N: usize>(&mut self, act: Act, s: Strip) {
            // SAFETY: rows up to the last, channels of the strip.
            unsafe {
                let (scale, shift) = lazy_channels::<S, N>(&s, self.lazy);
                let a = channels::<S, N>(&s, self.coefficients[0]);
                let b = channels::<S, N>(&s, self.coefficients[1]);
                let k = channels::<S, N>(&s, self.coefficients[2]);
                for row in 0..self.y.len() / s.c {
                    for j in 0..N {
                        let i = row * s.c + s.at::<S>(j);
                        let y = get::<S>(self.y.as_ptr().add(i), s.lanes);
                        let de = get::<S>(self.de.as_ptr().add(i), s.lanes);
                        let g = before_act::<S>(act, scale[j], shift[j], de, y);
                        let dy = S::fma(a[j], g, S::fma(b[j], y, k[j]));
                        put::<S>(self.dy.as_mut_ptr().add(i), dy, s.lanes);
                    }
                }
            }
        }
    }
    let act = lazy.map_or(Act::None, |lazy| lazy.act);
    let c = coefficients[0].len();
    // SAFETY: the caller's promise.
    unsafe { over_channels::<S>(c, act, &mut PullBack { lazy, coefficients, de, y, dy }) }
}

/// [`crate::batch_norm::pull_back_act`].
///
/// # Safety
/// As [`Rows::strip`].
#[inline(always)]
pub(crate) unsafe fn pull_back_act<S: Simd>(
    act: Act,
    de: &[f32],
    y: &[f32],
    dy: &mut [f32],
    bias: &mut [f64],
) {
    struct PullBack<'a> {
        de: &'a [f32],
        y: &'a [f32],
        dy: &'a mut [f32],
        bias: &'a mut [f64],
    }
    impl Rows for PullBack<'_> {
        #[inline(always)]
        unsafe fn strip<S: Simd, const N: usize>(&mut self, act: Act, s: Strip) {
            // SAFETY: rows up to the last, channels of the strip.
            unsafe {
                let mut sums = [S::splat(0.0); N];
                for row in 0..self.y.len() / s.c {
                    for j in 0..N {
                        let i = row * s.c + s.at::<S>(j);
                        let y = get::<S>(self.y.as_ptr().add(i), s.lanes);
                        let de = get::<S>(self.de.as_ptr().add(i), s.lanes);
                        let dy = S::mul(de, slope::<S>(act, y));
                        put::<S>(self.dy.as_mut_ptr().add(i), dy, s.lanes);
                        sums[j] = S::add(sums[j], dy);
                    }
                }
                add_sums::<S, N>(&s, &sums, self.bias);
            }
        }
    }
    let c = bias.len();
    let rows = ROWS * c;
    for ((de, y), dy) in de.chunks(rows).zip(y.chunks(rows)).zip(dy.chunks_mut(rows)) {
        // SAFETY: the caller's promise.
        unsafe { over_channels::<S>(c, act, &mut PullBack { de, y, dy, bias }) }
    }
}

/// [`crate::elementwise::products`].
///
/// # Safety
/// As [`Rows::strip`].
#[inline(always)]
pub(crate) unsafe fn products<S: Simd>(dy: &[f32], x: &[f32], dscale: &mut [f32]) {
    struct Products<'a>(&'a [f32], &'a [f32], &'a mut [f32]);
    impl Rows for Products<'_> {
        #[inline(always)]
        unsafe fn strip<S: Simd, const N: usize>(&mut self, _: Act, s: Strip) {
            let Products(dy, x, dscale) = self;
            // SAFETY: rows up to the last, channels of the strip.
            unsafe {
                let mut sums = [S::splat(0.0); N];
                for row in 0..x.len() / s.c {
                    for j in 0..N {
                        let i = row * s.c + s.at::<S>(j);
                        let dy = get::<S>(dy.as_ptr().add(i), s.lanes);
                        sums[j] = S::fma(dy, get::<S>(x.as_ptr().add(i), s.lanes), sums[j]);
                    }
                }
                for j in 0..N {
                    put::<S>(dscale.as_mut_ptr().add(s.at::<S>(j)), sums[j], s.lanes);
                }
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { over_channels::<S>(dscale.len(), Act::None, &mut Products(dy, x, dscale)) }
}
