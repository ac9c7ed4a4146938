//! Activation functions.

/// An activation, applied to a result before it is stored.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Act {
    /// x
    None,
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x where x ≥ 0, else slope · x
    LeakyRelu(f32),
    /// x · min(max(x + 3, 0), 6) · ⅙, multiplied in this order
    HSwish,
    /// min(max(x + 3, 0), 6) · ⅙
    HSigmoid,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// x / (1 + e⁻ˣ)
    Silu,
}

impl Act {
    /// The activation of one value: the same bits as every SIMD path. NaN stays NaN.
    #[inline]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Act::None => x,
            Act::Relu => max(0.0, x),
            Act::Relu6 => min(6.0, max(0.0, x)),
            Act::LeakyRelu(slope) => {
                if x < 0.0 {
                    x * slope
                } else {
                    x
                }
            }
            Act::HSwish => x * min(6.0, max(0.0, x + 3.0)) * SIXTH,
            Act::HSigmoid => min(6.0, max(0.0, x + 3.0)) * SIXTH,
            Act::Sigmoid => 1.0 / (1.0 + exp(-x)),
            Act::Silu => x / (1.0 + exp(-x)),
        }
    }

    /// The derivative at the pre-activation `u`: the same bits as every SIMD path. At a kink the side PyTorch takes: 0 for
    /// the clamps, the slope of the negative side for the leaky one, and as its hard swish and hard sigmoid do.
    #[inline]
    pub fn slope(self, u: f32) -> f32 {
        let within = |low: f32, high: f32, inside: f32| if low < u && u < high { inside } else { 0.0 };
        match self {
            Act::None => 1.0,
            Act::Relu => {
                if u > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
            Act::Relu6 => within(0.0, 6.0, 1.0),
            Act::LeakyRelu(slope) => {
                if u > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
            Act::HSwish => {
                if u >= 3.0 {
                    1.0
                } else {
                    within(-3.0, 3.0, u * THIRD + 0.5)
                }
            }
            Act::HSigmoid => within(-3.0, 3.0, SIXTH),
            Act::Sigmoid => {
                let s = Act::Sigmoid.apply(u);
                s * (1.0 - s)
            }
            Act::Silu => {
                let s = Act::Sigmoid.apply(u);
                s * (u * (1.0 - s) + 1.0)
            }
        }
    }

    /// The bounds of an activation that only clamps: what a kernel can do with two instructions in registers.
    pub fn clamp(self) -> Option<(f32, f32)> {
        match self {
            Act::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Act::Relu => Some((0.0, f32::INFINITY)),
            Act::Relu6 => Some((0.0, 6.0)),
            _ => None,
        }
    }
}

pub(crate) const SIXTH: f32 = 1.0 / 6.0;
pub(crate) const THIRD: f32 = 1.0 / 3.0;

/// The larger, and `b` if either is NaN: what `maxps` does.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller, and `b` if either is NaN: what `minps` does.
#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Constants of [`exp`], shared with the SIMD paths.
pub(crate) mod exp_constants {
    /// Inside these bounds the result is a normal number.
    pub const LOW: f32 = -86.5;
    pub const HIGH: f32 = 88.0;
    pub const LOG2_E: f32 = core::f32::consts::LOG2_E;
    /// Adding 1.5·2²³ rounds to an integer that then stands in the low bits.
    pub const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
    pub const LN2_HIGH: f32 = 0.693_359_4;
    pub const LN2_LOW: f32 = -2.121_944_4e-4;
    /// e^r = 1 + r + r²·(½ + r·(…)) on |r| ≤ ½ ln 2, highest power first: Taylor's coefficients 1/7! to 1/2!.
    pub const POLY: [f32; 6] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
}

/// e^x within 2 ulp. Plain multiplications and additions, so every machine gives the same bits and none needs a fused one.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    use exp_constants::*;
    let x = min(HIGH, max(LOW, x));
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = POLY[0];
    for &c in &POLY[1..] {
        p = p * r + c;
    }
    let p = p * (r * r) + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_exact_one() {
        let mut worst = 0.0f64;
        for i in -86_000..88_000 {
            let x = i as f32 / 1000.0;
            let exact = (x as f64).exp();
            worst = worst.max((exp(x) as f64 / exact - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn known_values() {
        for (act, x, y) in [
            (Act::None, -1.5, -1.5),
            (Act::Relu, -1.0, 0.0),
            (Act::Relu, 7.0, 7.0),
            (Act::Relu6, 7.0, 6.0),
            (Act::LeakyRelu(0.25), -4.0, -1.0),
            (Act::LeakyRelu(0.25), 4.0, 4.0),
            (Act::HSwish, -3.0, 0.0),
            (Act::HSwish, 3.0, 3.0),
            (Act::HSigmoid, 0.0, 0.5),
            (Act::Sigmoid, 0.0, 0.5),
            (Act::Silu, 0.0, 0.0),
        ] {
            assert_eq!(act.apply(x), y, "{act:?}({x})");
        }
        assert!((Act::Sigmoid.apply(2.0) - 0.880_797_1).abs() < 1e-6);
        assert!((Act::Silu.apply(-2.0) + 0.238_405_84).abs() < 1e-6);
        assert!(Act::Sigmoid.apply(-200.0) >= 0.0 && Act::Sigmoid.apply(200.0) == 1.0);
    }

    #[test]
    fn slopes_are_those_of_pytorch() {
        // From scripts/goldens/updates.py, kinks included.
        const AT: [f32; 9] = [-4.0, -3.0, -1.5, 0.0, 0.5, 2.0, 3.0, 6.0, 7.0];
        for (act, slopes) in [
            (Act::None, [1.0; 9]),
            (Act::Relu, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
            (Act::Relu6, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
            (Act::LeakyRelu(0.1), [0.1, 0.1, 0.1, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0]),
            (Act::HSwish, [0.0, 0.0, 0.0, 0.5, 0.6666667, 1.1666667, 1.0, 1.0, 1.0]),
            (Act::HSigmoid, [0.0, 0.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.0, 0.0, 0.0]),
            (
                Act::Sigmoid,
                [
                    0.0176627, 0.0451767, 0.1491465, 0.25, 0.2350037, 0.1049936, 0.0451767, 0.0024665,
                    0.0009102,
                ],
            ),
            (
                Act::Silu,
                [
                    -0.0526646, -0.0881041, -0.0412942, 0.5, 0.7399612, 1.0907843, 1.0881041, 1.0123262,
                    1.0054601,
                ],
            ),
        ] {
            for (u, slope) in AT.into_iter().zip(slopes) {
                assert!((act.slope(u) - slope).abs() < 2e-7, "{act:?}({u}) {}", act.slope(u));
            }
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        for act in
            [Act::None, Act::Relu, Act::Relu6, Act::LeakyRelu(0.1), Act::HSwish, Act::HSigmoid, Act::Sigmoid]
        {
            assert!(act.apply(f32::NAN).is_nan(), "{act:?}");
        }
    }
}
