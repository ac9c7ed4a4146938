//! Constants as 32-bit floats, and what quantization says about edges.

use half::f16;
use penjing_runtime::{op::Act, tensor};

use super::{
    super::{What, strided::Budget},
    schema::{Tensor, Type},
};

impl Tensor<'_> {
    /// Number of elements. `None` where it cannot be represented.
    fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent))
    }

    /// A constant's values, what is quantized multiplied out: `scale · (q − zero_point)`.
    pub(super) fn values(&self, budget: &mut Budget) -> What<tensor::Tensor> {
        let count = self.count().ok_or("has a shape that overflows")?;
        let width = match self.kind {
            Type::U8 | Type::I8 => 1,
            Type::F16 | Type::I16 => 2,
            Type::F32 | Type::I32 => 4,
            Type::I64 => 8,
        };
        if count.checked_mul(width) != Some(self.data.len()) {
            return Err(format!("of shape {:?} has {} bytes of data", self.shape, self.data.len()));
        }
        budget.spend(count.checked_mul(size_of::<f32>()).ok_or("has a shape that overflows")?)?;
        let values = match self.kind {
            Type::F32 => self.each(f32::from_le_bytes),
            Type::F16 => self.each(|bytes| f16::from_le_bytes(bytes).to_f32()),
            Type::U8 => self.unscaled(|[byte]: [u8; 1]| i64::from(byte))?,
            Type::I8 => self.unscaled(|bytes| i64::from(i8::from_le_bytes(bytes)))?,
            Type::I16 => self.unscaled(|bytes| i64::from(i16::from_le_bytes(bytes)))?,
            Type::I32 => self.unscaled(|bytes| i64::from(i32::from_le_bytes(bytes)))?,
            Type::I64 => self.unscaled(i64::from_le_bytes)?,
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err("holds a value that is not finite".into());
        }
        Ok(tensor::Tensor::f32(&self.shape, values))
    }

    fn each<const N: usize>(&self, value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        self.data.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
    }

    fn unscaled<const N: usize>(&self, value: impl Fn([u8; N]) -> i64) -> What<Vec<f32>> {
        let quantization =
            self.quantization.as_ref().ok_or("holds integers and does not say what they stand for")?;
        // In f64, where the difference and the product are exact for weights and biases.
        let real = |[scale, zero_point]: [f64; 2], bytes: &[u8; N]| {
            (scale * (value(*bytes) as f64 - zero_point)) as f32
        };
        let step = |index| {
            let (scale, zero_point) = quantization.at(index);
            [f64::from(scale), zero_point as f64]
        };
        let stored = self.data.as_chunks().0;
        if quantization.len() == 1 {
            let step = step(0);
            return Ok(stored.iter().map(|bytes| real(step, bytes)).collect());
        }
        let axis = quantization.axis;
        if self.shape.get(axis) != Some(&quantization.len()) {
            return Err(format!(
                "of shape {:?} has {} scales along axis {axis}",
                self.shape,
                quantization.len()
            ));
        }
        let inner: usize = self.shape[axis + 1..].iter().product();
        let steps: Vec<[f64; 2]> = (0..quantization.len()).map(step).collect();
        let along = |at: usize| steps[at / inner.max(1) % steps.len()];
        Ok(stored.iter().enumerate().map(|(at, bytes)| real(along(at), bytes)).collect())
    }

    /// Whole numbers that are no weights: axes, shapes, paddings.
    pub(super) fn whole_numbers(&self) -> What<Vec<i64>> {
        const MAX_NUMBERS: usize = 64;
        let numbers: Vec<i64> = match self.kind {
            Type::I32 => self
                .data
                .as_chunks()
                .0
                .iter()
                .map(|b| i64::from(i32::from_le_bytes(*b)))
                .take(MAX_NUMBERS + 1)
                .collect(),
            Type::I64 => {
                self.data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).take(MAX_NUMBERS + 1).collect()
            }
            _ => return Err("does not hold whole numbers".into()),
        };
        if numbers.is_empty() || numbers.len() > MAX_NUMBERS {
            return Err(format!("holds no number known beforehand, or more than {MAX_NUMBERS}"));
        }
        Ok(numbers)
    }

    /// The least and the greatest integer of a quantized edge, and its only scale and zero point.
    fn steps(&self) -> Option<([f64; 2], f64, f64)> {
        let range = match self.kind {
            Type::U8 => [0.0, 255.0],
            Type::I8 => [-128.0, 127.0],
            _ => return None,
        };
        let quantization = self.quantization.as_ref().filter(|quantization| quantization.len() == 1)?;
        let (scale, zero_point) = quantization.at(0);
        Some((range, f64::from(scale), zero_point as f64))
    }

    /// The activation that lies in an edge's range alone: integers saturate, so converters leave out a ReLU or ReLU6
    /// that ends where they do. `None` for edges that reach below 0, and for those of floats.
    pub(super) fn saturation(&self) -> Option<Act> {
        let ([least, greatest], scale, zero_point) = self.steps()?;
        if zero_point != least {
            return None;
        }
        // Rounded to f32, a scale of 6 / 255 may come out a little above it.
        Some(if scale * (greatest - zero_point) <= 6.0 * 1.001 { Act::Relu6 } else { Act::Relu })
    }

    /// Mean and deviation that make a byte 0..=255 what a quantized input stands for. `None` for one of floats.
    pub(super) fn normalization(&self) -> Option<[f32; 2]> {
        let ([least, _], scale, zero_point) = self.steps()?;
        // scale · (byte + least − zero_point)
        Some([(zero_point - least) as f32, (1.0 / scale) as f32])
    }
}
