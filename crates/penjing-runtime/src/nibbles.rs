//! Weights in 4 bits, for files that are small; what runs is made of them when a model is read.

use alloc::vec::Vec;

use half::f16;

/// Weights in 4 bits, two a byte, in groups along each output: a real value is its integer times its group's scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Nibbles {
    /// Two integers in −7..=7 a byte, the first in the low half; an output takes whole bytes.
    pub packed: Vec<u8>,
    /// What one is worth: for each output those of its groups, one after another.
    pub scales: Vec<f16>,
    /// Values of an output.
    pub each: usize,
}

/// Values that share a scale; the last group of an output may have fewer.
pub const GROUP: usize = 32;
/// Greatest integer.
const GREATEST: f32 = 7.0;

impl Nibbles {
    /// Whether weights of this shape can be in 4 bits: there are outputs, and two neighbours of the innermost extent share
    /// each byte.
    pub fn fit(shape: &[usize]) -> bool {
        matches!(shape, [_, .., inner] if inner.is_multiple_of(2)) && !shape.contains(&0)
    }

    /// Whether this is a weight of that shape, with a scale for each group.
    pub fn is_of(&self, shape: &[usize]) -> bool {
        Self::fit(shape)
            && self.each == shape[1..].iter().product::<usize>()
            && self.packed.len() == shape[0] * Self::row_bytes(self.each)
            && self.scales.len() == shape[0] * Self::row_groups(self.each)
    }

    /// Bytes of an output with so many values.
    pub fn row_bytes(each: usize) -> usize {
        each.div_ceil(2)
    }

    /// Groups of an output with so many values.
    pub fn row_groups(each: usize) -> usize {
        each.div_ceil(GROUP)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.packed.len() / Self::row_bytes(self.each).max(1) * self.each
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Values of outputs with `each` values in 4 bits, each group with its [`best_scale`].
    ///
    /// # Panics
    /// If there are not whole outputs.
    pub fn of(values: &[f32], each: usize) -> Nibbles {
        assert!(each > 0, "outputs have values");
        let scales: Vec<f16> =
            values.chunks_exact(each).flat_map(|row| row.chunks(GROUP).map(best_scale)).collect();
        let scale = |at: usize| scales[at / each * Self::row_groups(each) + at % each / GROUP];
        let integers: Vec<i8> =
            values.iter().enumerate().map(|(at, &value)| rounded(value, scale(at).to_f32())).collect();
        Self::pack(&integers, scales, each)
    }

    /// Outputs of `each` integers in −7..=7, with the scales of their groups.
    ///
    /// # Panics
    /// If there are not whole outputs, or not as many scales as groups.
    pub fn pack(integers: &[i8], scales: Vec<f16>, each: usize) -> Nibbles {
        assert!(each > 0 && integers.len().is_multiple_of(each), "whole outputs");
        assert_eq!(scales.len(), integers.len() / each * Self::row_groups(each), "a scale for each group");
        let pair = |pair: &[i8]| {
            let half = |at: usize| pair.get(at).map_or(0, |&value| value as u8 & 0xF);
            half(0) | half(1) << 4
        };
        let packed = integers.chunks_exact(each).flat_map(|output| output.chunks(2).map(pair)).collect();
        Nibbles { packed, scales, each }
    }

    /// The values as 32-bit floats.
    pub fn to_f32(&self) -> Vec<f32> {
        let rows = self.packed.chunks_exact(Self::row_bytes(self.each));
        let scales = self.scales.chunks_exact(Self::row_groups(self.each));
        let value = |bytes: &[u8], scales: &[f16], at: usize| {
            let half = bytes[at / 2] >> (at % 2 * 4) << 4;
            f32::from(half as i8 >> 4) * scales[at / GROUP].to_f32()
        };
        rows.zip(scales)
            .flat_map(|(bytes, scales)| (0..self.each).map(move |at| value(bytes, scales, at)))
            .collect()
    }
}

/// The integer of a value (ties to even), cut off at ±7.
pub fn rounded(value: f32, scale: f32) -> i8 {
    libm::rintf((value / scale).clamp(-GREATEST, GREATEST)) as i8
}

/// Of some scales between half of what the greatest value of a group would need and all of it, the one with the least
/// squared error.
pub fn best_scale(group: &[f32]) -> f16 {
    let peak = group.iter().fold(0f32, |peak, value| peak.max(value.abs()));
    let square = |off: f32| off * off;
    let error = |scale: f32| -> f32 {
        group.iter().map(|&value| square(value - f32::from(rounded(value, scale)) * scale)).sum()
    };
    let candidates = (10..=20).map(|step| f16::from_f32(peak / GREATEST * step as f32 / 20.0));
    let usable = candidates.filter(|scale| scale.is_finite() && *scale >= f16::MIN_POSITIVE);
    let best = usable.map(|scale| (error(scale.to_f32()), scale)).min_by(|a, b| a.0.total_cmp(&b.0));
    // Where all values round to nothing any scale will do.
    best.map_or(f16::MIN_POSITIVE, |(_, scale)| scale)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn what_four_bits_hold_comes_back() {
        // Odd outputs, so that a byte is half empty, in two groups with scales that half precision has.
        let each = GROUP + 3;
        let value = |output: usize, at: usize| {
            let integer = (at * 5 + output) as f32 % 15.0 - 7.0;
            integer * if at < GROUP { 0.5 } else { 2.0 }
        };
        let values: Vec<f32> = (0..2).flat_map(|output| (0..each).map(move |at| value(output, at))).collect();
        let mut values = values;
        // The greatest integer stands in each group.
        for at in [0, GROUP, each, each + GROUP] {
            values[at] = if at % each < GROUP { 3.5 } else { -14.0 };
        }
        let nibbles = Nibbles::of(&values, each);
        assert_eq!((nibbles.packed.len(), nibbles.scales.len(), nibbles.len()), (2 * 18, 4, 2 * each));
        assert_eq!(nibbles.to_f32(), values);
    }

    #[test]
    fn nibbles_by_hand() {
        let nibbles = Nibbles::of(&[7.0, -7.0, 1.0, -1.0, 0.0], 5);
        assert_eq!(nibbles.packed, [0x97, 0xF1, 0x00]);
        assert_eq!(nibbles.scales, [f16::ONE]);
    }

    #[test]
    fn a_scale_leaves_out_what_stands_alone() {
        // Thirty values between the steps of the greatest one's scale, which a smaller scale meets.
        let mut group = vec![0.5f32; GROUP];
        group[0] = 7.0;
        let plain: f32 = group.iter().map(|&v| (v - f32::from(rounded(v, 1.0))).powi(2)).sum();
        let found: f32 =
            Nibbles::of(&group, GROUP).to_f32().iter().zip(&group).map(|(a, b)| (a - b).powi(2)).sum();
        assert!(found < 0.8 * plain, "{found} {plain}");
        for nothing in [0.0, 1e-30] {
            assert_eq!(Nibbles::of(&[nothing; 4], 4).to_f32(), [0.0; 4]);
        }
    }
}
