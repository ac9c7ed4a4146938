//! From f32 to bytes and back.

use crate::{Isa, arch};

/// y = saturate(round(x / scale) + zero_point), halves to even, as QuantizeLinear of ONNX defines it; NaN becomes the zero
/// point. The scale is positive.
pub fn quantize(isa: Isa, scale: f32, zero_point: u8, x: &[f32], y: &mut [u8]) {
    assert_eq!(x.len(), y.len());
    arch::select_int8!(isa, quantized(scale, zero_point, x, y));
}

/// y = (x − zero_point) · scale.
pub fn dequantize(isa: Isa, scale: f32, zero_point: u8, x: &[u8], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    arch::select_int8!(isa, dequantized(scale, zero_point, x, y));
}

/// The reference of [`quantize`].
#[inline(always)]
pub(crate) fn quantized(scale: f32, zero_point: u8, x: &[f32], y: &mut [u8]) {
    /// Numbers of this size have no fraction: adding it rounds, halves to even.
    const ROUND: f32 = 1.5 * (1 << 23) as f32;
    /// More than any distance from a zero point.
    const FAR: f32 = 512.0;
    for (y, &x) in y.iter_mut().zip(x) {
        let steps = x / scale;
        let steps = if steps.is_nan() { 0.0 } else { steps.clamp(-FAR, FAR) };
        let rounded = (steps + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        *y = (rounded + i32::from(zero_point)).clamp(0, 255) as u8;
    }
}

/// The reference of [`dequantize`].
#[inline(always)]
pub(crate) fn dequantized(scale: f32, zero_point: u8, x: &[u8], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = (i32::from(x) - i32::from(zero_point)) as f32 * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SPECIAL, noise};
    use std::{vec, vec::Vec};

    #[test]
    fn by_hand() {
        let x = [
            0.0,
            0.25,
            0.75,
            -0.25,
            -0.75,
            1.25,
            1e9,
            -1e9,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -0.0,
        ];
        for isa in Isa::available() {
            let mut y = [0; 12];
            quantize(isa, 0.5, 10, &x, &mut y);
            assert_eq!(y, [10, 10, 12, 10, 8, 12, 255, 0, 10, 255, 0, 10]);
            let mut back = [0.0; 3];
            dequantize(isa, 0.5, 10, &[0, 10, 255], &mut back);
            assert_eq!(back, [-5.0, 0.0, 122.5]);
        }
    }

    #[test]
    fn every_isa_equals_the_definition() {
        for len in [0, 1, 7, 16, 33, 100, 1000] {
            let mut x = noise(len, 1);
            for (x, special) in x.iter_mut().step_by(9).zip(SPECIAL.iter().cycle()) {
                *x = *special;
            }
            for (scale, zero_point) in [(0.011, 128), (1.0 / 64.0, 0), (0.5, 255)] {
                let expected: Vec<u8> = x
                    .iter()
                    .map(|&x| {
                        let steps = if x.is_nan() { 0.0 } else { (x / scale).round_ties_even() };
                        (steps + f32::from(zero_point)).clamp(0.0, 255.0) as u8
                    })
                    .collect();
                let floats: Vec<f32> =
                    expected.iter().map(|&q| (f32::from(q) - f32::from(zero_point)) * scale).collect();
                for isa in Isa::available() {
                    let (mut y, mut back) = (vec![99; len], vec![f32::NAN; len]);
                    quantize(isa, scale, zero_point, &x, &mut y);
                    assert!(y == expected, "{isa:?} {len} {scale}");
                    dequantize(isa, scale, zero_point, &y, &mut back);
                    assert!(back == floats, "{isa:?} {len} {scale}");
                }
            }
        }
    }
}
