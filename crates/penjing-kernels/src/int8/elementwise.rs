//! Operations byte by byte.

use super::{Channel, Limits};
use crate::{Isa, arch, volume};

/// A weighted sum of two tensors: clamp((a·m_a + b·m_b + offset) >> shift).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The first tensor's factor, 2^shift · its scale / that of the result.
    pub a: i16,
    /// The second tensor's factor.
    pub b: i16,
    /// Zero points and half a step.
    pub offset: i32,
    /// At most 14.
    pub shift: u32,
    /// What remains of the result.
    pub limits: Limits,
}

impl Sum {
    /// The sum of tensors with these scales and zero points, rounded once, halves up. The shift is the largest for which
    /// both factors fit. None if a scale is no positive number, or more than 32767 times the result's.
    pub fn new(a: (f32, u8), b: (f32, u8), y: (f32, u8), limits: Limits) -> Option<Sum> {
        if ![a.0, b.0, y.0].iter().all(|scale| *scale > 0.0 && scale.is_finite()) {
            return None;
        }
        let factor = |scale: f32, shift: u32| {
            let factor = f64::from(scale) / f64::from(y.0) * f64::from(1u32 << shift) + 0.5;
            i16::try_from(factor as i64).ok()
        };
        (0..=14).rev().find_map(|shift| {
            let (m_a, m_b) = (factor(a.0, shift)?, factor(b.0, shift)?);
            let less = i32::from(a.1) * i32::from(m_a) + i32::from(b.1) * i32::from(m_b);
            let offset = (i32::from(y.1) << shift) + ((1 << shift) >> 1) - less;
            Some(Sum { a: m_a, b: m_b, offset, shift, limits })
        })
    }

    /// The result of two bytes.
    #[inline(always)]
    pub fn apply(&self, a: u8, b: u8) -> u8 {
        let sum = i32::from(a) * i32::from(self.a) + i32::from(b) * i32::from(self.b) + self.offset;
        (sum >> self.shift).max(i32::from(self.limits.low)).min(i32::from(self.limits.high)) as u8
    }
}

/// y = the sum of a and b.
pub fn add(isa: Isa, sum: &Sum, a: &[u8], b: &[u8], y: &mut [u8]) {
    assert!(a.len() == y.len() && b.len() == y.len());
    assert!(sum.shift <= 14);
    arch::select_int8!(isa, summed(sum, a, b, y));
}

/// y\[n,pixel,c\] = the byte of (x\[n,pixel,c\] − zx) · (scale\[n,c\] − zs), where `zero_points` are zx and zs: the product of
/// squeeze-and-excitation. Its `channel` is `Channel::new(sx·ss/sy, 0, zy)`.
pub fn scale_channels(
    isa: Isa,
    n: usize,
    pixels: usize,
    channels: usize,
    zero_points: [u8; 2],
    channel: Channel,
    limits: Limits,
    x: &[u8],
    scale: &[u8],
    y: &mut [u8],
) {
    assert_eq!(x.len(), volume(&[n, pixels, channels]), "x is [n,pixels,channels]");
    assert_eq!(y.len(), x.len());
    assert_eq!(scale.len(), volume(&[n, channels]), "scale is [n,channels]");
    if y.is_empty() {
        return;
    }
    let images = x.chunks_exact(pixels * channels).zip(y.chunks_exact_mut(pixels * channels));
    for ((x, y), scale) in images.zip(scale.chunks_exact(channels)) {
        arch::select_int8!(isa, scaled(zero_points, channel, limits, x, scale, y));
    }
}

/// y = table\[x\]: an activation that is no clamp, or a change of scale.
pub fn lookup(_: Isa, table: &[u8; 256], x: &[u8], y: &mut [u8]) {
    assert_eq!(x.len(), y.len());
    for (y, &x) in y.iter_mut().zip(x) {
        *y = table[usize::from(x)];
    }
}

/// The reference of [`add`].
#[inline(always)]
pub(crate) fn summed(sum: &Sum, a: &[u8], b: &[u8], y: &mut [u8]) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        *y = sum.apply(a, b);
    }
}

/// The reference of [`scale_channels`] for one image.
#[inline(always)]
pub(crate) fn scaled(
    [zx, zs]: [u8; 2],
    channel: Channel,
    limits: Limits,
    x: &[u8],
    scale: &[u8],
    y: &mut [u8],
) {
    for (x, y) in x.chunks_exact(scale.len()).zip(y.chunks_exact_mut(scale.len())) {
        for ((y, &x), &s) in y.iter_mut().zip(x).zip(scale) {
            let product = (i32::from(x) - i32::from(zx)) * (i32::from(s) - i32::from(zs));
            *y = channel.apply(product, limits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::testing::{LIMITS, bytes};
    use std::{vec, vec::Vec};

    #[test]
    fn a_sum_is_rounded_once() {
        let limits = Limits { low: 4, high: 250 };
        let (a, b, y) = ((0.5, 10), (0.25, 200), (0.75, 7));
        let sum = Sum::new(a, b, y, limits).unwrap();
        assert_eq!(sum.shift, 14);
        for (qa, qb) in (0..=255u8).flat_map(|qa| (0..=255u8).map(move |qb| (qa, qb))) {
            let real = |(scale, zero): (f32, u8), q: u8| f64::from(scale) * (f64::from(q) - f64::from(zero));
            let exact = (real(a, qa) + real(b, qb)) / 0.75 + 7.0;
            let near = f64::from(sum.apply(qa, qb)) - exact.clamp(4.0, 250.0);
            // Half a step, and what 14 bits of the factors leave.
            assert!(near.abs() <= 0.52, "{qa} {qb}: off by {near}");
        }
        // 1/2 + 1/2·(0 or 1): halves go up.
        let halves = Sum::new((0.5, 0), (0.5, 0), (1.0, 0), Limits::NONE).unwrap();
        assert_eq!(
            [halves.apply(0, 0), halves.apply(1, 0), halves.apply(1, 1), halves.apply(2, 1)],
            [0, 1, 1, 2]
        );
    }

    #[test]
    fn the_shift_makes_room_for_large_factors() {
        let shift = |a: f32| Sum::new((a, 0), (1.0, 0), (1.0, 0), Limits::NONE).map(|sum| sum.shift);
        assert_eq!(shift(1.0), Some(14));
        assert_eq!(shift(2.5), Some(13));
        assert_eq!(shift(32767.0), Some(0));
        assert_eq!(shift(32768.0), None);
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(shift(bad), None);
        }
    }

    #[test]
    fn by_hand() {
        let channel = Channel::new(0.25, 0, 100).unwrap();
        for isa in Isa::available() {
            let mut y = [0; 4];
            // (10 − 5)·(20 − 30)/4 + 100 = 87.5, up; (0 − 5)·(50 − 30)/4 + 100, …
            scale_channels(
                isa,
                1,
                2,
                2,
                [5, 30],
                channel,
                Limits { low: 0, high: 126 },
                &[10, 0, 9, 255],
                &[20, 50],
                &mut y,
            );
            assert_eq!(y, [88, 75, 90, 126]);
            let mut table = [0; 256];
            table[7] = 1;
            table[255] = 9;
            lookup(isa, &table, &[7, 255, 0, 7], &mut y);
            assert_eq!(y, [1, 9, 0, 1]);
        }
    }

    #[test]
    fn fast_equals_scalar() {
        for (i, len) in [0, 1, 7, 16, 33, 64, 100, 1000].into_iter().enumerate() {
            let (a, b, limits) = (bytes(len, 1), bytes(len, 2), LIMITS[i % LIMITS.len()]);
            let table: [u8; 256] = core::array::from_fn(|i| (i * 7 + 3) as u8);
            let sums = [
                Sum::new((0.02, 10), (0.03, 200), (0.04, 7), limits),
                Sum::new((60.0, 0), (0.5, 255), (0.01, 128), limits),
                Sum::new((1e-9, 0), (0.5, 255), (0.5, 128), limits),
            ];
            for sum in sums.into_iter().flatten() {
                let expected: Vec<u8> = a.iter().zip(&b).map(|(&a, &b)| sum.apply(a, b)).collect();
                for isa in Isa::available() {
                    let mut y = vec![9; len];
                    add(isa, &sum, &a, &b, &mut y);
                    assert!(y == expected, "{isa:?} {len} {sum:?}");
                }
            }
            let (x, scale) = (bytes(2 * 3 * len, 3), bytes(2 * len, 4));
            let channel = Channel::new(0.01, 0, 60).unwrap();
            let value = |at: usize| {
                let scale = scale[at / (3 * len) * len + at % len];
                channel.apply((i32::from(x[at]) - 12) * (i32::from(scale) - 250), limits)
            };
            let expected: Vec<u8> = (0..x.len()).map(value).collect();
            let looked_up: Vec<u8> = x.iter().map(|&x| table[usize::from(x)]).collect();
            for isa in Isa::available() {
                let mut y = vec![9; x.len()];
                scale_channels(isa, 2, 3, len, [12, 250], channel, limits, &x, &scale, &mut y);
                assert!(y == expected, "{isa:?} {len}");
                lookup(isa, &table, &x, &mut y);
                assert!(y == looked_up, "{isa:?} {len}");
            }
        }
    }
}
