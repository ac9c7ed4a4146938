//! Weights of which most are zero, for files that are small; what runs is made of them when a model is read.

use alloc::{vec, vec::Vec};

/// Floats of which only those are kept that are not zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// A bit for each value, the lowest of a byte first: whether it is kept.
    pub kept: Vec<u8>,
    /// Those that are.
    pub values: Vec<f32>,
}

impl Sparse {
    /// Whether weights of this shape can be kept so: eight neighbours of the innermost extent share a byte.
    pub fn fit(shape: &[usize]) -> bool {
        matches!(shape, [_, .., inner] if inner.is_multiple_of(8)) && !shape.contains(&0)
    }

    /// Whether this is a weight of that shape.
    pub fn is_of(&self, shape: &[usize]) -> bool {
        let count: usize = self.kept.iter().map(|byte| byte.count_ones() as usize).sum();
        Self::fit(shape) && self.len() == shape.iter().product::<usize>() && count == self.values.len()
    }

    /// Of the values those that are not zero.
    ///
    /// # Panics
    /// If they fill no whole bytes.
    pub fn of(values: &[f32]) -> Sparse {
        assert!(values.len().is_multiple_of(8), "a bit for each value in whole bytes");
        let byte = |eight: &[f32]| {
            eight.iter().enumerate().fold(0, |byte, (at, value)| byte | u8::from(*value != 0.0) << at)
        };
        Sparse {
            kept: values.chunks_exact(8).map(byte).collect(),
            values: values.iter().copied().filter(|value| *value != 0.0).collect(),
        }
    }

    /// Number of values, zeros among them.
    pub fn len(&self) -> usize {
        self.kept.len() * 8
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The values as 32-bit floats.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.len()];
        let kept = all.iter_mut().enumerate().filter(|(at, _)| self.kept[at / 8] >> (at % 8) & 1 == 1);
        for ((_, to), value) in kept.zip(&self.values) {
            *to = *value;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_zero_comes_back() {
        let values = [0.0, -1.5, 0.0, 0.0, 2.0, 0.0, 0.0, 1e-30, -0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0];
        let sparse = Sparse::of(&values);
        assert_eq!(sparse.kept, [0b1001_0010, 0b1000_0000]);
        assert_eq!(sparse.values, [-1.5, 2.0, 1e-30, 9.0]);
        assert_eq!(sparse.to_f32(), values);
        assert!(sparse.is_of(&[2, 8]) && !sparse.is_of(&[4, 4]) && !sparse.is_of(&[2, 16]));
        assert!(!Sparse { values: [1.0].to_vec(), ..sparse }.is_of(&[2, 8]));
    }
}
