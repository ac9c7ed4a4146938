//! What the bytes of a quantized edge mean.

/// An affine grid of 256 values: a real value is `(byte − zero_point) · scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Quant {
    /// What one step is worth.
    pub scale: f32,
    /// The byte that means zero.
    pub zero_point: u8,
}

impl Quant {
    /// The finest grid that holds zero and everything from `low` to `high`. Zero alone: a scale of 1.
    pub fn over(low: f32, high: f32) -> Quant {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = (high - low) / 255.0;
        if !scale.is_normal() {
            return Quant { scale: 1.0, zero_point: 0 };
        }
        Quant { scale, zero_point: libm::rintf(-low / scale).clamp(0.0, 255.0) as u8 }
    }

    /// The byte nearest to a value (ties to even), as ONNX's QuantizeLinear has it; for what is no number that of zero.
    pub fn byte(self, value: f32) -> u8 {
        if value.is_nan() {
            return self.zero_point;
        }
        (libm::rintf(value / self.scale) + f32::from(self.zero_point)).clamp(0.0, 255.0) as u8
    }

    /// What a byte means.
    pub fn value(self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero_point)) * self.scale
    }

    /// Whether grids of this scale can be computed with.
    pub fn is_sound(self) -> bool {
        self.scale.is_normal() && self.scale > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::Quant;

    #[test]
    fn grids_hold_zero_and_their_ends() {
        for (low, high, zero_point) in [(0.0, 6.0, 0), (-3.0, 1.0, 191), (2.0, 5.0, 0), (-4.0, -1.0, 255)] {
            let quant = Quant::over(low, high);
            assert_eq!(quant.zero_point, zero_point, "{low} {high}");
            assert_eq!(quant.value(quant.byte(0.0)), 0.0);
            for value in [low, high, (low + high) / 2.0] {
                assert!((quant.value(quant.byte(value)) - value).abs() <= quant.scale * 0.5001, "{value}");
            }
        }
        assert_eq!(Quant::over(0.0, 0.0), Quant { scale: 1.0, zero_point: 0 });
        assert_eq!(Quant::over(f32::NEG_INFINITY, 1.0), Quant { scale: 1.0, zero_point: 0 });
    }

    #[test]
    fn bytes_are_rounded_to_even_and_cut_off() {
        let quant = Quant { scale: 0.5, zero_point: 10 };
        for (value, byte) in [(0.25, 10), (0.75, 12), (-0.25, 10), (-9.0, 0), (1e9, 255), (1.0, 12)] {
            assert_eq!(quant.byte(value), byte, "{value}");
        }
        assert_eq!(quant.byte(f32::NAN), 10);
        assert_eq!((quant.value(12), quant.value(8)), (1.0, -1.0));
    }
}
