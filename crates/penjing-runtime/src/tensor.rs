//! Named arrays as they stand in a model file.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use half::slice::HalfFloatSliceExt;

use crate::{nibbles::Nibbles, sparse::Sparse};

/// A network's weights by name.
pub type Weights = BTreeMap<String, Tensor>;

/// A dense array: its shape, and its values in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extents, outermost first. Convolutions are `[out, kh, kw, in / groups]`, linear layers `[out, in]`.
    pub shape: Vec<usize>,
    /// The values; as many as the shape's product.
    pub data: Data,
}

/// The values of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// IEEE half-precision floats.
    F16(Vec<half::f16>),
    /// 8-bit integers.
    I8(Quantized),
    /// 4-bit integers, which stand for floats where they run.
    I4(Nibbles),
    /// 32-bit floats of which most are zero.
    Sparse(Sparse),
}

/// Weights in 8 bits, symmetric: a real value is its integer times a scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Integers in −127..=127.
    pub values: Vec<i8>,
    /// What one is worth: for each output, the outermost extent, its own, or one for all.
    pub scales: Vec<f32>,
}

impl Quantized {
    /// Each value with its scale.
    fn scaled(&self) -> impl Iterator<Item = (i8, f32)> + '_ {
        let each = self.values.len().div_ceil(self.scales.len().max(1)).max(1);
        self.values.iter().enumerate().map(move |(at, &value)| (value, self.scales[at / each]))
    }
}

impl Data {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::F16(v) => v.len(),
            Data::I8(q) => q.values.len(),
            Data::I4(q) => q.len(),
            Data::Sparse(s) => s.len(),
        }
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are integers.
    pub fn is_integers(&self) -> bool {
        match self {
            Data::F32(_) | Data::F16(_) | Data::Sparse(_) => false,
            Data::I8(_) | Data::I4(_) => true,
        }
    }

    /// The values as 32-bit floats.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Data::F32(v) => v.clone(),
            Data::F16(v) => {
                let mut out = alloc::vec![0.0; v.len()];
                v.convert_to_f32_slice(&mut out);
                out
            }
            Data::I8(q) => q.scaled().map(|(value, scale)| f32::from(value) * scale).collect(),
            Data::I4(q) => q.to_f32(),
            Data::Sparse(s) => s.to_f32(),
        }
    }

    /// The values at these places, one after another. Integers become floats, since their scales go by their places, and zeros
    /// are kept again.
    pub fn gather(&self, places: impl Iterator<Item = usize>) -> Data {
        match self {
            Data::F32(v) => Data::F32(places.map(|at| v[at]).collect()),
            Data::F16(v) => Data::F16(places.map(|at| v[at]).collect()),
            Data::I8(_) | Data::I4(_) | Data::Sparse(_) => {
                let v = self.to_f32();
                Data::F32(places.map(|at| v[at]).collect())
            }
        }
    }
}

impl Tensor {
    /// A 32-bit tensor. The number of values must be the shape's product.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { shape: shape.to_vec(), data: Data::F32(values) }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The values as 32-bit floats.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.to_f32()
    }

    /// The same tensor with its zeros left out, if its shape lets them.
    pub fn to_sparse(&self) -> Option<Tensor> {
        let data = Sparse::fit(&self.shape).then(|| Data::Sparse(Sparse::of(&self.to_f32())))?;
        Some(Tensor { shape: self.shape.clone(), data })
    }

    /// The values in 8 bits, each output with the scale that makes its greatest value ±127 (an output of zeros: the greatest
    /// scale of the others).
    pub fn to_i8(&self) -> Tensor {
        let values = self.to_f32();
        let outputs = self.shape.first().copied().unwrap_or(1).max(1);
        let each = values.len().div_ceil(outputs).max(1);
        let peak = |row: &[f32]| row.iter().fold(0f32, |peak, v| peak.max(v.abs())) / 127.0;
        let mut scales: Vec<f32> = values.chunks(each).map(peak).collect();
        let largest = scales.iter().copied().fold(0.0, f32::max);
        let instead = if largest.is_normal() { largest } else { 1.0 };
        scales.iter_mut().filter(|scale| !scale.is_normal()).for_each(|scale| *scale = instead);
        self.to_i8_with(scales)
    }

    /// The values in 8 bits with these scales, rounded (ties to even), cut off at ±127.
    ///
    /// # Panics
    /// If there is neither one scale nor one for each output.
    pub fn to_i8_with(&self, scales: Vec<f32>) -> Tensor {
        assert!(
            scales.len() == 1 || Some(&scales.len()) == self.shape.first(),
            "a scale for each output, or one"
        );
        let values = self.to_f32();
        let each = values.len().div_ceil(scales.len()).max(1);
        let rounded = |(at, v): (usize, f32)| libm::rintf((v / scales[at / each]).clamp(-127.0, 127.0)) as i8;
        let values = values.into_iter().enumerate().map(rounded).collect();
        Tensor { shape: self.shape.clone(), data: Data::I8(Quantized { values, scales }) }
    }

    /// The values as they stand in a file: little-endian bytes; where most are zero, which are not.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::I8(q) => q.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::I4(q) => q.packed.clone(),
            Data::Sparse(s) => s.kept.clone(),
        }
    }

    /// The same tensor rounded to half precision (ties to even); one of integers or with zeros left out stays as it is.
    pub fn to_f16(&self) -> Tensor {
        let data = match &self.data {
            Data::F32(v) => Data::F16(v.iter().map(|&x| half::f16::from_f32(x)).collect()),
            Data::F16(_) | Data::I8(_) | Data::I4(_) | Data::Sparse(_) => self.data.clone(),
        };
        Tensor { shape: self.shape.clone(), data }
    }
}
