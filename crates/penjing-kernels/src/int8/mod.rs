//! Networks in bytes: activations u8, one scale and zero point per tensor; weights i8 in −127..=127, symmetric, one scale per
//! output channel; sums i32; layout `[N,H,W,C]` as in f32.
//!
//! A sum of products becomes a byte by [`Channel::apply`]: `clamp((sum·multiplier + offset) >> 32, low, high)` in 64 bits,
//! which rounds once, halves up. The bias and the zero points of input and result are all in the offset, so that sums start
//! at 0 and inputs are used as they are. Padding counts as the input's zero point.
//!
//! Other engines differ by one step of the result now and then: TFLite's reference rounds twice (the high half of a doubled
//! 32-bit product, then a shift) or multiplies in floating point, ONNX multiplies by a float scale and rounds halves to even.
//!
//! Integers are exact, so neither tiles nor instruction sets nor threads show in a result. That no sum leaves 32 bits is
//! the caller's promise; products of up to [`MAX_K`] terms cannot.

pub mod conv;
pub mod convert;
pub mod depthwise;
pub mod elementwise;
pub mod pointwise;
pub mod pool;

/// The most terms of a sum: MAX_K · 255 · 127 < 2³¹.
pub const MAX_K: usize = 66_000;

/// One output channel's way from a sum of products to a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// 2³² · scale of one unit of the sum / scale of the result, positive.
    pub multiplier: i32,
    /// What is added to the product.
    pub offset: i64,
}

impl Channel {
    /// `ratio` is the scale of one unit of the sum / the scale of the result, `constant` is added to the sum (the bias in
    /// units of the sum, less zero point of x · Σ weights), `zero_point` is the result's. None unless the ratio rounds to
    /// a multiplier of 1..2³¹, which means it is less than ½, and the constant lies within ±2³⁰.
    pub fn new(ratio: f64, constant: i64, zero_point: u8) -> Option<Channel> {
        const ONE: i64 = 1 << 32;
        let multiplier = i32::try_from((ratio * ONE as f64 + 0.5) as i64).ok().filter(|&m| m > 0)?;
        if constant.unsigned_abs() > 1 << 30 {
            return None;
        }
        let offset = constant * i64::from(multiplier) + ONE / 2 + i64::from(zero_point) * ONE;
        Some(Channel { multiplier, offset })
    }

    /// The byte of a sum.
    #[inline(always)]
    pub fn apply(self, sum: i32, limits: Limits) -> u8 {
        let value = (i64::from(sum) * i64::from(self.multiplier) + self.offset) >> 32;
        value.max(i64::from(limits.low)).min(i64::from(limits.high)) as u8
    }
}

/// Least and greatest byte of a result: what an activation leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    #[allow(missing_docs)]
    pub low: u8,
    #[allow(missing_docs)]
    pub high: u8,
}

impl Limits {
    /// All bytes.
    pub const NONE: Limits = Limits { low: 0, high: 255 };
}

/// Channels that lie side by side in packed weights.
pub(crate) const PANEL: usize = 16;

/// Where packed weights keep what belongs to a panel of channels, in words: multipliers, offsets of the even and of the odd
/// channels, each as it is in memory, and the sums of the weights.
pub(crate) const HEAD: usize = 4 * PANEL;
pub(crate) const OFFSETS: usize = PANEL;
pub(crate) const WEIGHT_SUMS: usize = 3 * PANEL;

/// Writes channel `lane` of a panel.
pub(crate) fn write_head(head: &mut [i32], lane: usize, channel: Channel, weight_sum: i32) {
    head[lane] = channel.multiplier;
    head[offset_at(lane)..][..2].copy_from_slice(&words(channel.offset));
    head[WEIGHT_SUMS + lane] = weight_sum;
}

/// Channel `lane` of a panel.
pub(crate) fn read_head(head: &[i32], lane: usize) -> Channel {
    let at = offset_at(lane);
    Channel { multiplier: head[lane], offset: long([head[at], head[at + 1]]) }
}

fn offset_at(lane: usize) -> usize {
    OFFSETS + lane % 2 * PANEL + lane / 2 * 2
}

/// The two words as which a long lies in memory.
fn words(long: i64) -> [i32; 2] {
    let bytes = long.to_ne_bytes();
    let (words, _) = bytes.as_chunks::<4>();
    [i32::from_ne_bytes(words[0]), i32::from_ne_bytes(words[1])]
}

fn long(words: [i32; 2]) -> i64 {
    let mut bytes = [0; 8];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = word.to_ne_bytes();
    }
    i64::from_ne_bytes(bytes)
}

/// Four weights as they lie in memory.
pub(crate) fn quad(weights: [i8; 4]) -> i32 {
    i32::from_ne_bytes(weights.map(|w| w as u8))
}

/// The weights of [`quad`].
#[inline(always)]
pub(crate) fn unquad(word: i32) -> [i8; 4] {
    word.to_ne_bytes().map(|w| w as i8)
}

pub(crate) fn check_weights(weights: &[i8]) {
    assert!(weights.iter().all(|&w| w != i8::MIN), "weights lie in -127..=127");
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Channel, Limits};
    use crate::testing::noise;
    use std::{vec, vec::Vec};

    /// Repeatable bytes, the extremes often among them.
    pub fn bytes(len: usize, seed: u32) -> Vec<u8> {
        noise(len, seed).iter().map(|v| (v * 100.0 + 128.0) as u8).collect()
    }

    /// Repeatable weights, the extremes often among them.
    pub fn weights(len: usize, seed: u32) -> Vec<i8> {
        noise(len, seed).iter().map(|v| (v * 90.0).clamp(-127.0, 127.0) as i8).collect()
    }

    /// Channels that spread sums of `k` products over all bytes and somewhat beyond.
    pub fn channels(len: usize, k: usize, seed: u32) -> Vec<Channel> {
        let each = noise(2 * len, seed);
        each.as_chunks::<2>()
            .0
            .iter()
            .enumerate()
            .map(|(i, [a, b])| {
                let unit = 1.0 / (2000.0 * (k.max(1) as f64).sqrt() * 4.0);
                let ratio = unit * (3.0 + f64::from(*a));
                let constant = (f64::from(*b) * 40.0 / ratio) as i64;
                Channel::new(ratio, constant, (i * 37 % 256) as u8).unwrap()
            })
            .collect()
    }

    /// Inputs and weights whose every pair of products is as large as can be, of one sign and of both.
    pub fn extremes(x_len: usize, w_len: usize) -> [(Vec<u8>, Vec<i8>); 3] {
        let x = vec![255; x_len];
        let alternating = (0..w_len).map(|i| if i / 3 % 2 == 0 { 127 } else { -127 }).collect();
        [(x.clone(), vec![127; w_len]), (x.clone(), vec![-127; w_len]), (x, alternating)]
    }

    pub const LIMITS: [Limits; 3] =
        [Limits::NONE, Limits { low: 3, high: 200 }, Limits { low: 128, high: 255 }];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_rounds_once_and_halves_up() {
        // A quarter: sums of 2 (mod 4) are halves.
        let channel = Channel::new(0.25, 10, 100).unwrap();
        let bytes = [-11, -10, -9, -8, -7, -4, 0, 4].map(|sum| channel.apply(sum, Limits::NONE));
        assert_eq!(bytes, [100, 100, 100, 101, 101, 102, 103, 104]);
        assert_eq!(channel.apply(i32::MAX, Limits { low: 3, high: 250 }), 250);
        assert_eq!(channel.apply(i32::MIN, Limits { low: 3, high: 250 }), 3);
    }

    #[test]
    fn a_channel_never_overflows() {
        let largest = Channel::new(0.499_999_999_9, 1 << 30, 255);
        let largest = largest.or(Channel::new(0.499_999_999, 1 << 30, 255)).unwrap();
        assert_eq!(largest.apply(i32::MAX, Limits::NONE), 255);
        let least = Channel::new(0.499_999_999, -(1 << 30), 0).unwrap();
        assert_eq!(least.apply(i32::MIN, Limits::NONE), 0);
    }

    #[test]
    fn ratios_and_constants_out_of_range_are_refused() {
        for ratio in [0.5, 1.0, 0.0, -0.1, 1e-10, f64::NAN, f64::INFINITY] {
            assert_eq!(Channel::new(ratio, 0, 0), None, "{ratio}");
        }
        assert_eq!(Channel::new(0.1, (1 << 30) + 1, 0), None);
        assert_eq!(Channel::new(0.1, i64::MIN, 0), None);
        assert_eq!(Channel::new(1.0 / (1u64 << 32) as f64, 0, 0).unwrap().multiplier, 1);
    }

    #[test]
    fn a_head_keeps_its_channels() {
        let mut head = [0; HEAD];
        let channel =
            |lane: usize| Channel { multiplier: lane as i32 + 5, offset: (lane as i64 - 7) << 33 | 3 };
        for lane in 0..PANEL {
            write_head(&mut head, lane, channel(lane), lane as i32);
        }
        for lane in 0..PANEL {
            assert_eq!(read_head(&head, lane), channel(lane));
            assert_eq!(head[WEIGHT_SUMS + lane], lane as i32);
        }
    }
}
