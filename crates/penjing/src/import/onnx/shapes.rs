//! What only arranges values: other shapes, other axes, runs of channels one after another.

use std::rc::Rc;

use penjing_runtime::op::Op;

use super::{
    super::What,
    array::{Array, Values},
    fold,
    layers::axis_of,
    node::Node,
    reader::{Edge, Form, Reader, Value},
};
use crate::onnx::element;

const FLAT: Form = Form::Vector { of: None };

pub(super) fn identity(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    Ok(vec![match r.input_value(node, 0)? {
        Value::Edge(x) => Value::Edge(x.seen_as(x.form.clone())),
        constant => constant,
    }])
}

/// Between floats nothing changes: all is computed in 32 bits.
pub(super) fn cast(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let to = i32::try_from(node.int("to", 0)?).map_err(|_| "has no element type")?;
    let is_float = matches!(to, element::FLOAT | element::FLOAT16 | element::DOUBLE | element::BFLOAT16);
    match r.input_value(node, 0)? {
        Value::Edge(_) if is_float => identity(r, node),
        Value::Edge(_) => Err("makes integers of what is computed from the image".into()),
        Value::Constant(array) if is_float => Ok(Array::floats(&array.shape, array.to_f32()).into()),
        Value::Constant(array) => {
            let values = match array.as_ints() {
                Some(ints) => ints.to_vec(),
                None => array.to_f32().into_iter().map(|value| value as i64).collect(),
            };
            Ok(Array { shape: array.shape.clone(), values: Values::Int(values) }.into())
        }
    }
}

pub(super) fn flatten(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = match r.input_value(node, 0)? {
        Value::Edge(x) => x,
        Value::Constant(_) => return Err("is of a constant".into()),
    };
    let dims = r.dims(&x);
    let axis = node.int("axis", 1)?;
    if axis_of(axis, dims.len()) != Ok(1) {
        return Err(format!("lays {dims:?} flat at axis {axis}; only 1 is known"));
    }
    let rest = dims[1..].iter().product();
    shaped(r, node, x, &[dims[0], rest])
}

pub(super) fn reshape(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let wanted = r.ints(node, "shape", 1)?.ok_or("has no shape")?;
    let keeps_zero = node.int("allowzero", 0)? != 0;
    let value = r.input_value(node, 0)?;
    let dims = match &value {
        Value::Edge(x) => r.dims(x),
        Value::Constant(array) => array.shape.clone(),
    };
    let dims = resolved(&dims, &wanted, keeps_zero)?;
    match value {
        Value::Edge(x) => shaped(r, node, x, &dims),
        Value::Constant(array) => Ok(Array { shape: dims, ..(*array).clone() }.into()),
    }
}

/// The shape that is `wanted` of something of the shape `dims`: 0 stays as it is, −1 is what is left.
fn resolved(dims: &[usize], wanted: &[i64], keeps_zero: bool) -> What<Vec<usize>> {
    let bad = || format!("makes {wanted:?} of {dims:?}");
    let total =
        dims.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent)).ok_or_else(bad)?;
    if wanted.len() > super::super::strided::MAX_RANK {
        return Err(bad());
    }
    let mut made = Vec::with_capacity(wanted.len());
    for (at, &extent) in wanted.iter().enumerate() {
        made.push(match extent {
            0 if !keeps_zero => *dims.get(at).ok_or_else(bad)?,
            -1 => 1,
            extent => usize::try_from(extent).map_err(|_| bad())?,
        });
    }
    let known =
        made.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent)).ok_or_else(bad)?;
    let mut open = wanted.iter().enumerate().filter(|(_, extent)| **extent == -1);
    if let Some((at, _)) = open.next() {
        if open.next().is_some() || known == 0 || !total.is_multiple_of(known) {
            return Err(bad());
        }
        made[at] = total / known;
    } else if known != total {
        return Err(bad());
    }
    Ok(made)
}

/// The edge in another shape of as many values.
fn shaped(r: &mut Reader, node: &Node, x: Edge, to: &[usize]) -> What<Vec<Value>> {
    let from = r.dims(&x);
    if from == to {
        return Ok(x.seen_as(x.form.clone()).into());
    }
    let [n, h, w, c] = r.draft.layer(x.at).shape;
    let seen = |form: Form| Ok(x.seen_as(form).into());
    let all = h * w * c;
    match (&x.form, to) {
        // The file's order of a map laid flat is that of its axes.
        (Form::Map | Form::Line, &[a, b]) if [a, b] == [n, all] => laid_flat(r, node, x, Some([c, h, w])),
        (Form::Last, &[a, b]) if [a, b] == [n, all] => laid_flat(r, node, x, None),
        (Form::Groups { swapped: false, .. }, &[a, b]) if [a, b] == [n, all] => {
            laid_flat(r, node, x, Some([c, h, w]))
        }
        (Form::Map, &[a, b, l]) if [a, b, l] == [n, c, h * w] => seen(Form::Line),
        (Form::Line | Form::Groups { swapped: false, .. }, _) if *to == [n, c, h, w] => seen(Form::Map),
        (Form::Vector { of: None }, _) if *to == [n, c, 1, 1] => seen(Form::Map),
        (Form::Vector { of: None }, _) if *to == [n, 1, 1, c] => seen(Form::Last),
        (Form::Vector { of: None }, _) if *to == [n, c, 1] => seen(Form::Line),
        (Form::Map, &[a, groups, _, rows, columns]) if [a, rows, columns] == [n, h, w] => {
            seen(Form::Groups { groups, swapped: false })
        }
        (&Form::Groups { groups, swapped: true }, _) if *to == [n, c, h, w] => {
            let name = node.input(0).unwrap_or_default();
            let x = r.settle(name, x)?;
            Ok(r.push(node, Op::ChannelShuffle { groups }, &[&x], Vec::new(), Form::Map)?.into())
        }
        _ => Err(format!("makes {to:?} of {from:?}, which no layer known here does")),
    }
}

fn laid_flat(r: &mut Reader, node: &Node, x: Edge, of: Option<[usize; 3]>) -> What<Vec<Value>> {
    let [_, h, w, _] = r.draft.layer(x.at).shape;
    if [h, w] == [1, 1] {
        return Ok(x.seen_as(FLAT).into());
    }
    let name = node.input(0).unwrap_or_default();
    let x = r.settle(name, x)?;
    Ok(r.push(node, Op::Flatten, &[&x], Vec::new(), Form::Vector { of })?.into())
}

pub(super) fn squeeze(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let axes = r.ints(node, "axes", 1)?;
    let value = r.input_value(node, 0)?;
    let dims = match &value {
        Value::Edge(x) => r.dims(x),
        Value::Constant(array) => array.shape.clone(),
    };
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.into_iter().map(|axis| axis_of(axis, dims.len())).collect::<What<_>>()?,
        None if matches!(value, Value::Edge(_)) => {
            return Err("takes away every axis of extent 1, the photos' too; name the axes".into());
        }
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
        return Err(format!("takes axis {axis} away from {dims:?}"));
    }
    let kept = (0..dims.len()).filter(|axis| !axes.contains(axis));
    let to: Vec<usize> = kept.map(|axis| dims[axis]).collect();
    match value {
        Value::Constant(array) => Ok(Array { shape: to, ..(*array).clone() }.into()),
        Value::Edge(x) => {
            // A map of one row or column keeps its other side as a line.
            let line = x.form == Form::Map && to.len() == 3 && !axes.contains(&0) && !axes.contains(&1);
            if line { Ok(x.seen_as(Form::Line).into()) } else { shaped(r, node, x, &to) }
        }
    }
}

pub(super) fn unsqueeze(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let axes = r.ints(node, "axes", 1)?.ok_or("has no axes")?;
    let value = r.input_value(node, 0)?;
    let dims = match &value {
        Value::Edge(x) => r.dims(x),
        Value::Constant(array) => array.shape.clone(),
    };
    let rank = dims.len() + axes.len();
    if rank > super::super::strided::MAX_RANK {
        return Err(format!("makes {rank} axes"));
    }
    let axes: Vec<usize> = axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<What<_>>()?;
    let mut rest = dims.iter();
    let to: Option<Vec<usize>> =
        (0..rank).map(|axis| if axes.contains(&axis) { Some(1) } else { rest.next().copied() }).collect();
    let to = to.filter(|_| rest.next().is_none()).ok_or("names an axis twice")?;
    match value {
        Value::Constant(array) => Ok(Array { shape: to, ..(*array).clone() }.into()),
        Value::Edge(x) => shaped(r, node, x, &to),
    }
}

pub(super) fn transpose(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let value = r.input_value(node, 0)?;
    let rank = match &value {
        Value::Edge(x) => r.dims(x).len(),
        Value::Constant(array) => array.shape.len(),
    };
    let perm: Vec<usize> = match node.ints("perm")? {
        Some(perm) => perm.iter().map(|&axis| axis_of(axis, rank)).collect::<What<_>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(format!("exchanges axes as {perm:?}"));
    }
    let x = match value {
        Value::Constant(array) => return Ok(array.transposed(&perm).into()),
        Value::Edge(x) => x,
    };
    let form = match (&x.form, &perm[..]) {
        (form, perm) if *perm == sorted => form.clone(),
        (Form::Map, [0, 2, 3, 1]) => Form::Last,
        (Form::Last, [0, 3, 1, 2]) => Form::Map,
        (&Form::Groups { groups, swapped }, [0, 2, 1, 3, 4]) => Form::Groups { groups, swapped: !swapped },
        _ => return Err(format!("exchanges the axes of {:?} as {perm:?}", r.dims(&x))),
    };
    Ok(x.seen_as(form).into())
}

pub(super) fn concat(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let axis = node.int("axis", 1)?;
    let values: Vec<Value> = (0..node.inputs.len()).map(|at| r.input_value(node, at)).collect::<What<_>>()?;
    let constants: Vec<_> = values
        .iter()
        .filter_map(|value| match value {
            Value::Constant(array) => Some(Rc::clone(array)),
            Value::Edge(_) => None,
        })
        .collect();
    if !constants.is_empty() {
        if constants.len() != values.len() {
            return Err("joins constants with what is computed from the image".into());
        }
        return fold::concat(&constants, axis);
    }
    let edges: Vec<Edge> = (0..node.inputs.len()).map(|at| r.edge(node, at)).collect::<What<_>>()?;
    let Some(first) = edges.first() else { return Err("joins nothing".into()) };
    let form = first.form.clone();
    if edges.iter().any(|edge| edge.form != form) {
        return Err("joins maps whose axes mean different things".into());
    }
    on_channels(r, first, axis)?;
    let edges: Vec<&Edge> = edges.iter().collect();
    Ok(r.push(node, Op::Concat, &edges, Vec::new(), form)?.into())
}

/// Refuses an axis that is not the channels'.
fn on_channels(r: &Reader, x: &Edge, axis: i64) -> What<()> {
    let dims = r.dims(x);
    let channels = match x.form {
        Form::Map | Form::Line | Form::Vector { of: None } => 1,
        Form::Last => 3,
        Form::Vector { of: Some(_) } | Form::Groups { .. } => {
            return Err(format!("takes {dims:?} apart or joins it, whose channels are mixed with its sides"));
        }
    };
    if axis_of(axis, dims.len())? != channels {
        return Err(format!("is along axis {axis} of {dims:?}, and the channels are axis {channels}"));
    }
    Ok(())
}

pub(super) fn split(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    on_channels(r, &x, node.int("axis", 0)?)?;
    let channels = r.draft.layer(x.at).shape[3];
    let parts: Vec<usize> = match r.ints(node, "split", 1)? {
        Some(parts) => super::array::extents(&parts)?,
        None => {
            let count = node.outputs.len().max(1);
            let each = channels.div_ceil(count);
            (0..count).map(|at| each.min(channels.saturating_sub(at * each))).collect()
        }
    };
    let mut start = 0usize;
    let mut results = Vec::with_capacity(parts.len());
    for (at, &len) in parts.iter().enumerate() {
        // What nobody reads is not made.
        match node.outputs.get(at).filter(|name| r.uses(name) > 0) {
            Some(_) => {
                let form = x.form.clone();
                let part = r.push(node, Op::Slice { start, len }, &[&x], Vec::new(), form)?;
                results.push(Value::Edge(part));
            }
            None => results.push(Value::Edge(x.seen_as(x.form.clone()))),
        }
        start = start.saturating_add(len);
    }
    if start != channels {
        return Err(format!("deals {channels} channels out as {parts:?}"));
    }
    Ok(results)
}

pub(super) fn slice(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let starts = r.ints(node, "starts", 1)?.ok_or("has no starts")?;
    let ends = r.ints(node, "ends", 2)?.ok_or("has no ends")?;
    let axes = r.ints(node, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = r.ints(node, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("has starts, ends, axes and steps of different numbers".into());
    }
    let mut value = r.input_value(node, 0)?;
    for (at, &axis) in axes.iter().enumerate() {
        let dims = match &value {
            Value::Edge(x) => r.dims(x),
            Value::Constant(array) => array.shape.clone(),
        };
        let on = axis_of(axis, dims.len())?;
        let step = steps[at];
        let [start, len] = run(starts[at], ends[at], step, dims[on])?;
        if len == dims[on] && step == 1 {
            continue;
        }
        value = match value {
            Value::Constant(array) => Value::Constant(Rc::new(fold::run(&array, on, [start, len], step))),
            Value::Edge(_) if step != 1 => return Err(format!("goes in steps of {step}")),
            Value::Edge(x) => {
                let name = node.input(0).unwrap_or_default();
                let x = r.settle(name, x)?;
                on_channels(r, &x, axis)?;
                let form = x.form.clone();
                Value::Edge(r.push(node, Op::Slice { start, len }, &[&x], Vec::new(), form)?)
            }
        };
    }
    Ok(vec![match value {
        Value::Edge(x) => Value::Edge(Edge { own: false, ..x }),
        constant => constant,
    }])
}

/// First place and number of places of a run along an axis, whose ends count from the axis's end where negative.
fn run(start: i64, end: i64, step: i64, extent: usize) -> What<[usize; 2]> {
    let [start, end, step, extent] = [i128::from(start), i128::from(end), i128::from(step), extent as i128];
    let from_front = |place: i128| if place < 0 { place + extent } else { place };
    // Going backward, the run may end before the first place.
    let (least, most) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
    let [start, end] = [start, end].map(|place| from_front(place).clamp(least, most));
    let len = match step {
        0 => return Err("goes in steps of 0".into()),
        1.. => (end - start + step - 1) / step,
        _ => (start - end - step - 1) / -step,
    };
    let start = if len > 0 { start } else { 0 };
    Ok([start, len.max(0)].map(|place| usize::try_from(place).unwrap_or(0)))
}
