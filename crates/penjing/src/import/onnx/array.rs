//! Constants of a file: weights, and the small integers that shapes are computed from.

use half::{bf16, f16};
use penjing_runtime::tensor::{Data, Tensor};

use super::{
    super::{MAX_TENSOR_BYTES, What, strided::MAX_RANK},
    external::Folder,
};
use crate::onnx::{self, element};

/// A constant, dense and row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// Its values. Half precision stays; other floats become `f32`, other numbers `i64`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    Float(Data),
    Int(Vec<i64>),
}

impl Array {
    pub(super) fn ints(values: Vec<i64>) -> Self {
        Array { shape: vec![values.len()], values: Values::Int(values) }
    }

    pub(super) fn floats(shape: &[usize], values: Vec<f32>) -> Self {
        Array { shape: shape.to_vec(), values: Values::Float(Data::F32(values)) }
    }

    /// Reads a tensor of the file. `left` is how many bytes all constants may still take.
    pub(super) fn read(mut proto: onnx::Tensor, folder: &mut Folder, left: &mut usize) -> What<Self> {
        let shape = extents(&proto.dims)?;
        let count = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let spent = count.and_then(|count| count.checked_mul(8));
        let (Some(count), Some(_)) = (count, spent) else {
            return Err(format!("has the shape {shape:?}, which is beyond reason"));
        };
        let width = match proto.data_type {
            element::INT8 | element::UINT8 | element::BOOL => 1,
            element::FLOAT16 | element::BFLOAT16 | element::INT16 | element::UINT16 => 2,
            element::FLOAT | element::INT32 => 4,
            element::DOUBLE | element::INT64 => 8,
            other => return Err(format!("holds elements of type {other}, which are no numbers known here")),
        };
        *left = left.checked_sub(count * 8).ok_or_else(|| {
            format!("is one too many: all constants together take more than {MAX_TENSOR_BYTES} bytes")
        })?;
        if proto.data_location != 0 {
            proto.raw_data = folder.read(&proto.external_data, count * width)?;
        }
        let values = if proto.raw_data.is_empty() { unpacked(&proto)? } else { raw(&proto, width)? };
        let there = match &values {
            Values::Float(values) => values.len(),
            Values::Int(values) => values.len(),
        };
        if there != count {
            return Err(format!(
                "has {there} values, and {count} by its shape {shape:?}; the file is damaged"
            ));
        }
        Ok(Array { shape, values })
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values as integers, if they are.
    pub(super) fn as_ints(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Int(values) => Some(values),
            Values::Float(_) => None,
        }
    }

    /// The values as 32-bit floats, whatever they are.
    pub(super) fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            Values::Float(values) => values.to_f32(),
            Values::Int(values) => values.iter().map(|&value| value as f32).collect(),
        }
    }

    /// The one value, if there is just one.
    pub(super) fn scalar(&self) -> Option<f32> {
        if self.len() == 1 { self.to_f32().first().copied() } else { None }
    }

    /// The same values in another order: the one at `at` of the result comes from `from(at)`.
    pub(super) fn reordered(&self, shape: &[usize], from: impl Fn(usize) -> usize) -> Array {
        let count = self.len();
        let values = match &self.values {
            Values::Float(values) => Values::Float(values.gather((0..count).map(from))),
            Values::Int(v) => Values::Int((0..count).map(|i| v[from(i)]).collect()),
        };
        Array { shape: shape.to_vec(), values }
    }

    /// The axes in another order.
    pub(super) fn transposed(&self, perm: &[usize]) -> Array {
        let shape: Vec<usize> = perm.iter().map(|&axis| self.shape[axis]).collect();
        let stride = |axis: usize| self.shape[axis + 1..].iter().product::<usize>();
        let strides: Vec<usize> = perm.iter().map(|&axis| stride(axis)).collect();
        self.reordered(&shape, |mut at| {
            let mut from = 0;
            for (extent, stride) in shape.iter().zip(&strides).rev() {
                from += at % extent * stride;
                at /= extent;
            }
            from
        })
    }

    /// As a weight of a layer. Integers become floats.
    pub(super) fn into_tensor(self) -> Tensor {
        let data = match self.values {
            Values::Float(data) => data,
            Values::Int(values) => Data::F32(values.into_iter().map(|value| value as f32).collect()),
        };
        Tensor { shape: self.shape, data }
    }
}

/// Extents of a shape, as few and as great as there can be.
pub(super) fn extents(dims: &[i64]) -> What<Vec<usize>> {
    if dims.len() > MAX_RANK {
        return Err(format!("has {} dimensions; at most {MAX_RANK} are read", dims.len()));
    }
    let extent = |&dim: &i64| usize::try_from(dim).map_err(|_| format!("has {dim} for an extent"));
    dims.iter().map(extent).collect()
}

/// Values that stand as little-endian bytes of `width` each.
fn raw(proto: &onnx::Tensor, width: usize) -> What<Values> {
    let bytes = &proto.raw_data[..];
    if !bytes.len().is_multiple_of(width) {
        return Err(format!("has {} bytes for elements of {width}; the file is damaged", bytes.len()));
    }
    fn each<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect()
    }
    Ok(match proto.data_type {
        element::FLOAT => Values::Float(Data::F32(each(bytes, f32::from_le_bytes))),
        element::DOUBLE => Values::Float(Data::F32(each(bytes, |b| f64::from_le_bytes(b) as f32))),
        element::FLOAT16 => Values::Float(Data::F16(each(bytes, f16::from_le_bytes))),
        element::BFLOAT16 => Values::Float(Data::F32(each(bytes, |b| bf16::from_le_bytes(b).to_f32()))),
        element::INT64 => Values::Int(each(bytes, i64::from_le_bytes)),
        element::INT32 => Values::Int(each(bytes, |b| i32::from_le_bytes(b).into())),
        element::INT16 => Values::Int(each(bytes, |b| i16::from_le_bytes(b).into())),
        element::UINT16 => Values::Int(each(bytes, |b| u16::from_le_bytes(b).into())),
        element::INT8 => Values::Int(each(bytes, |b| i8::from_le_bytes(b).into())),
        _ => Values::Int(bytes.iter().map(|&byte| byte.into()).collect()),
    })
}

/// Values that stand in fields of their type.
fn unpacked(proto: &onnx::Tensor) -> What<Values> {
    let bits = |value: &i32| *value as u16;
    Ok(match proto.data_type {
        element::FLOAT => Values::Float(Data::F32(proto.float_data.clone())),
        element::DOUBLE => Values::Float(Data::F32(proto.double_data.iter().map(|&v| v as f32).collect())),
        element::FLOAT16 => {
            Values::Float(Data::F16(proto.int32_data.iter().map(|v| f16::from_bits(bits(v))).collect()))
        }
        element::BFLOAT16 => Values::Float(Data::F32(
            proto.int32_data.iter().map(|v| bf16::from_bits(bits(v)).to_f32()).collect(),
        )),
        element::INT64 => Values::Int(proto.int64_data.clone()),
        _ => Values::Int(proto.int32_data.iter().map(|&value| value.into()).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(proto: onnx::Tensor) -> What<Array> {
        Array::read(proto, &mut Folder::none(), &mut (1 << 20))
    }

    #[test]
    fn every_element_type_and_both_ways_of_storing() {
        let half = |x: f32| i32::from(f16::from_f32(x).to_bits());
        let proto = |data_type, raw_data: &[u8]| onnx::Tensor {
            dims: vec![2],
            data_type,
            raw_data: raw_data.to_vec(),
            ..onnx::Tensor::default()
        };
        for (tensor, floats) in [
            (proto(element::FLOAT, &[0, 0, 128, 63, 0, 0, 0, 192]), [1.0, -2.0]),
            (proto(element::DOUBLE, &[0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 192]), [1.0, -2.0]),
            (proto(element::FLOAT16, &[0, 60, 0, 192]), [1.0, -2.0]),
            (proto(element::BFLOAT16, &[128, 63, 0, 192]), [1.0, -2.0]),
            (proto(element::INT8, &[3, 255]), [3.0, -1.0]),
            (proto(element::UINT8, &[3, 255]), [3.0, 255.0]),
            (proto(element::INT32, &[3, 0, 0, 0, 255, 255, 255, 255]), [3.0, -1.0]),
            (onnx::Tensor { float_data: vec![1.5, 2.5], ..proto(element::FLOAT, &[]) }, [1.5, 2.5]),
            (
                onnx::Tensor { int32_data: vec![half(1.5), half(-2.5)], ..proto(element::FLOAT16, &[]) },
                [1.5, -2.5],
            ),
            (onnx::Tensor { int64_data: vec![-7, 9], ..proto(element::INT64, &[]) }, [-7.0, 9.0]),
            (onnx::Tensor { double_data: vec![1.5, 2.5], ..proto(element::DOUBLE, &[]) }, [1.5, 2.5]),
        ] {
            let kind = tensor.data_type;
            let array = read(tensor).unwrap();
            assert_eq!((array.to_f32(), array.shape), (floats.to_vec(), vec![2]), "element type {kind}");
        }
    }

    #[test]
    fn shapes_that_do_not_fit_the_values_are_refused_before_anything_is_allocated() {
        let proto = |dims: &[i64]| onnx::Tensor {
            dims: dims.to_vec(),
            data_type: element::FLOAT,
            raw_data: vec![0; 8],
            ..onnx::Tensor::default()
        };
        for (dims, says) in [
            (&[3][..], "2 values, and 3"),
            (&[-1], "-1 for an extent"),
            (&[1 << 40], "one too many"),
            (&[1 << 40, 1 << 40], "beyond reason"),
            (&[1; 17], "17 dimensions"),
        ] {
            let error = read(proto(dims)).unwrap_err();
            assert!(error.contains(says), "{dims:?}: {error}");
        }
        let odd = onnx::Tensor { raw_data: vec![0; 7], ..proto(&[2]) };
        assert!(read(odd).unwrap_err().contains("7 bytes"));
        let text = onnx::Tensor { data_type: 8, ..proto(&[2]) };
        assert!(read(text).unwrap_err().contains("type 8"));
    }

    #[test]
    fn axes_are_exchanged() {
        let array = Array::floats(&[2, 3, 2], (0..12).map(|i| i as f32).collect());
        let turned = array.transposed(&[2, 0, 1]);
        assert_eq!(turned.shape, [2, 2, 3]);
        assert_eq!(turned.to_f32(), [0., 2., 4., 6., 8., 10., 1., 3., 5., 7., 9., 11.]);
    }
}
