//! What is known while reading: constants, and the shapes that exporters compute step by step.

use std::rc::Rc;

use penjing_runtime::tensor::Data;

use super::{
    super::{MAX_TENSOR_BYTES, What},
    array::{Array, Values},
    external::Folder,
    layers::axis_of,
    node::Node,
    reader::{Reader, Value},
};

/// Most values of a constant that is made rather than stored.
const MAX_MADE: usize = 1 << 16;

pub(super) fn constant(_: &mut Reader, node: &Node) -> What<Vec<Value>> {
    if let Some(tensor) = node.tensor("value")? {
        let mut left = MAX_TENSOR_BYTES;
        return Ok(Array::read(tensor.clone(), &mut Folder::none(), &mut left)?.into());
    }
    let array = if node.has("value_int") {
        Array { shape: Vec::new(), values: Values::Int(vec![node.int("value_int", 0)?]) }
    } else if node.has("value_float") {
        Array::floats(&[], vec![node.float("value_float", 0.0)?])
    } else if let Some(ints) = node.ints("value_ints")? {
        Array::ints(ints.to_vec())
    } else if let Some(floats) = node.floats("value_floats")? {
        Array::floats(&[floats.len()], floats.to_vec())
    } else {
        return Err("holds neither numbers nor a tensor".into());
    };
    Ok(array.into())
}

pub(super) fn constant_of_shape(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let shape = r.constant(node, 0)?;
    let shape = super::array::extents(shape.as_ints().ok_or("its shape holds no integers")?)?;
    let count = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    let count = count.filter(|&count| count <= MAX_MADE).ok_or("makes more values than a shape needs")?;
    let values = match node.tensor("value")? {
        None => Values::Float(Data::F32(vec![0.0; count])),
        Some(tensor) => {
            let one = Array::read(tensor.clone(), &mut Folder::none(), &mut 64)?;
            match (one.as_ints(), one.scalar()) {
                (Some(&[value]), _) => Values::Int(vec![value; count]),
                (None, Some(value)) => Values::Float(Data::F32(vec![value; count])),
                _ => return Err("its value is no single number".into()),
            }
        }
    };
    Ok(Array { shape, values }.into())
}

pub(super) fn ceil(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    rounded(r, node, f32::ceil)
}

pub(super) fn floor(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    rounded(r, node, f32::floor)
}

fn rounded(r: &mut Reader, node: &Node, by: fn(f32) -> f32) -> What<Vec<Value>> {
    match r.input_value(node, 0)? {
        Value::Constant(array) => {
            Ok(Array::floats(&array.shape, array.to_f32().into_iter().map(by).collect()).into())
        }
        Value::Edge(_) => Err("rounds what is computed from the image".into()),
    }
}

pub(super) fn shape(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let dims = match r.value(node.input(0).ok_or("has no input 0")?)? {
        Value::Edge(x) => r.dims(x),
        Value::Constant(array) => array.shape.clone(),
    };
    let place = |place: i64| {
        let place = if place < 0 { place.saturating_add(dims.len() as i64) } else { place };
        place.clamp(0, dims.len() as i64) as usize
    };
    let (start, end) = (place(node.int("start", 0)?), place(node.int("end", i64::MAX)?));
    let dims = dims.get(start..end).unwrap_or_default();
    Ok(Array::ints(dims.iter().map(|&extent| extent as i64).collect()).into())
}

pub(super) fn gather(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let Value::Constant(data) = r.input_value(node, 0)? else {
        return Err("picks from what is computed from the image".into());
    };
    let indices = r.constant(node, 1)?;
    let places = indices.as_ints().ok_or("its indices are no integers")?;
    if data.shape.len() != 1 || axis_of(node.int("axis", 0)?, 1)? != 0 {
        return Err(format!("picks from a constant of shape {:?}; one axis is known", data.shape));
    }
    let count = data.len();
    let place = |&place: &i64| {
        let place = if place < 0 { place.saturating_add(count as i64) } else { place };
        usize::try_from(place).ok().filter(|&place| place < count)
    };
    let places: Option<Vec<usize>> = places.iter().map(place).collect();
    let places = places.ok_or_else(|| format!("picks beyond {count} values"))?;
    let values = match &data.values {
        Values::Float(values) => Values::Float(values.gather(places.iter().copied())),
        Values::Int(ints) => Values::Int(places.iter().map(|&place| ints[place]).collect()),
    };
    Ok(Array { shape: indices.shape.clone(), values }.into())
}

/// Numbers of shapes one after another.
pub(super) fn concat(constants: &[Rc<Array>], axis: i64) -> What<Vec<Value>> {
    if !matches!(axis, 0 | -1) || constants.iter().any(|array| array.shape.len() != 1) {
        return Err("joins constants that are no shapes".into());
    }
    let count = constants.iter().fold(0usize, |sum, array| sum.saturating_add(array.len()));
    if count > MAX_MADE {
        return Err("joins more values than a shape needs".into());
    }
    let ints: Option<Vec<&[i64]>> = constants.iter().map(|array| array.as_ints()).collect();
    Ok(match ints {
        Some(ints) => Array::ints(ints.concat()).into(),
        None => {
            let floats: Vec<f32> = constants.iter().flat_map(|array| array.to_f32()).collect();
            Array::floats(&[count], floats).into()
        }
    })
}

/// A run of `len` places from `start` along an axis, in steps that may go backward.
pub(super) fn run(array: &Array, axis: usize, [start, len]: [usize; 2], step: i64) -> Array {
    let inner: usize = array.shape[axis + 1..].iter().product();
    let extent = array.shape[axis];
    let mut shape = array.shape.clone();
    shape[axis] = len;
    let count = shape.iter().product::<usize>();
    let from = |at: usize| {
        let (outer, place, rest) = (at / (len * inner), at / inner % len, at % inner);
        let place = (start as i64 + place as i64 * step) as usize;
        (outer * extent + place) * inner + rest
    };
    let values = match &array.values {
        Values::Int(values) => Values::Int((0..count).map(|at| values[from(at)]).collect()),
        Values::Float(values) => Values::Float(values.gather((0..count).map(from))),
    };
    Array { shape, values }
}

/// Weights that are stored as integers: `(x − zero point) · scale`, for all or along one axis.
pub(super) fn dequantize(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let Value::Constant(x) = r.input_value(node, 0)? else {
        return Err("is of something computed from the image; only weights may be integers".into());
    };
    let scale = r.constant(node, 1)?.to_f32();
    let zero = match r.optional_constant(node, 2)? {
        Some(zero) => zero.to_f32(),
        None => vec![0.0; scale.len()],
    };
    let ints = x.as_ints().ok_or("is of floats")?;
    // The extent of the axis, and how many values lie between two of its places.
    let (extent, inner) = match scale.len() {
        1 => (1, x.len().max(1)),
        count => {
            let axis = axis_of(node.int("axis", 1)?, x.shape.len())?;
            if x.shape[axis] != count {
                return Err(format!("has {count} scales for {} places of axis {axis}", x.shape[axis]));
            }
            (count, x.shape[axis + 1..].iter().product::<usize>().max(1))
        }
    };
    if zero.len() != scale.len() || node.int("block_size", 0)? != 0 {
        return Err("has scales and zero points that do not fit".into());
    }
    let value = |(at, &value): (usize, &i64)| {
        let channel = at / inner % extent;
        (value as f32 - zero[channel]) * scale[channel]
    };
    Ok(Array::floats(&x.shape, ints.iter().enumerate().map(value).collect()).into())
}
