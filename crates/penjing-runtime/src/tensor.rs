//! Named arrays as they stand in a model file.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use half::slice::HalfFloatSliceExt;

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
}

impl Tensor {
    /// A 32-bit tensor. The number of values must be the shape's product.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { shape: shape.to_vec(), data: Data::F32(values) }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::F16(v) => v.len(),
        }
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as 32-bit floats.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            Data::F16(v) => {
                let mut out = alloc::vec![0.0; v.len()];
                v.convert_to_f32_slice(&mut out);
                out
            }
        }
    }

    /// The values as they stand in a file: little-endian bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// The same tensor rounded to half precision (ties to even).
    pub fn to_f16(&self) -> Tensor {
        let data = match &self.data {
            Data::F16(v) => v.clone(),
            Data::F32(v) => v.iter().map(|&x| half::f16::from_f32(x)).collect(),
        };
        Tensor { shape: self.shape.clone(), data: Data::F16(data) }
    }
}
