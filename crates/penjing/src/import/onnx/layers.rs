//! Layers with weights or windows: convolutions, linear layers, normalizations, pools.

use penjing_runtime::{
    op::{AvgPool, Conv, Op, Pool},
    tensor::Tensor,
};

use super::{
    super::{What, assemble::channels_last},
    array::Array,
    node::Node,
    reader::{Edge, Form, Reader, Value},
};

pub(super) fn conv(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let weight = r.constant(node, 1)?;
    let bias = r.optional_constant(node, 2)?;
    let [out_channels, per_group, kh, kw] = weight.shape[..] else {
        return Err(format!(
            "its weight has shape {:?}; only maps with two sides are convolved",
            weight.shape
        ));
    };
    let x = map(x)?;
    let groups = usize::try_from(node.int("group", 1)?).map_err(|_| "has a negative group")?;
    let [_, _, _, channels] = r.draft.layer(x.at).shape;
    if per_group.checked_mul(groups) != Some(channels) {
        return Err(format!(
            "its weight is for {per_group} channels in each of {groups} groups, and the map has {channels}"
        ));
    }
    if node.ints("kernel_shape")?.is_some_and(|kernel| *kernel != [kh as i64, kw as i64]) {
        return Err(format!("its kernel_shape is not that of its weight {:?}", weight.shape));
    }
    let [stride, dilation] = [pair(node, "strides")?, pair(node, "dilations")?];
    let mut at = x.at;
    let mut padding = padding(r, node, at, [kh, kw], stride, dilation)?;
    // Zeros put around the map beforehand are this layer's padding.
    if let Op::Pad { padding: before } = r.draft.layer(at).op {
        at = r.draft.layer(at).inputs[0];
        for (side, before) in padding.iter_mut().zip(before) {
            *side = side.saturating_add(before);
        }
    }
    let x = Edge { at, ..x };
    let op = Conv { out_channels, kernel: [kh, kw], stride, padding, dilation, groups, bias: bias.is_some() };
    let weight = channels_last((*weight).clone().into_tensor()).ok_or("its weight has not four axes")?;
    let mut parameters = vec![("weight", weight)];
    if let Some(bias) = bias {
        parameters.push(("bias", vector(&bias, out_channels, "bias")?));
    }
    Ok(r.push(node, Op::Conv(op), &[&x], parameters, Form::Map)?.into())
}

pub(super) fn batch_norm(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    if node.int("training_mode", 0)? != 0 || node.int("spatial", 1)? != 1 {
        return Err("is in training mode or not spatial; export the network in eval mode".into());
    }
    let x = r.edge(node, 0)?;
    let channels = r.draft.layer(x.at).shape[3];
    let mut parameters = Vec::new();
    for (at, suffix) in ["gamma", "beta", "mean", "var"].into_iter().enumerate() {
        let values = r.constant(node, at + 1)?;
        let tensor = vector(&values, channels, suffix)?;
        let values = in_our_order(&x.form, tensor.to_f32())?;
        parameters.push((suffix, Tensor::f32(&[channels], values)));
    }
    match x.form {
        Form::Map | Form::Line | Form::Vector { .. } => {}
        Form::Last | Form::Groups { .. } => return Err("is of something that has no channels second".into()),
    }
    let op = Op::BatchNorm { eps: node.float("epsilon", 1e-5)? };
    let form = x.form.clone();
    Ok(r.push(node, op, &[&x], parameters, form)?.into())
}

pub(super) fn gemm(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let weight = r.constant(node, 1)?;
    let bias = r.optional_constant(node, 2)?;
    if node.int("transA", 0)? != 0 {
        return Err("transposes its first input".into());
    }
    let [a, b] = weight.shape[..] else {
        return Err(format!("its weight has shape {:?}, expected two axes", weight.shape));
    };
    let transposed = node.int("transB", 0)? != 0;
    let weight = if transposed { (*weight).clone() } else { weight.transposed(&[1, 0]) };
    let out = if transposed { a } else { b };
    let [alpha, beta] = [node.float("alpha", 1.0)?, node.float("beta", 1.0)?];
    let bias = match bias {
        None => None,
        Some(bias) if bias.len() == 1 || bias.len() == out => {
            let values = bias.to_f32();
            let value = |i: usize| values[i.min(values.len() - 1)] * beta;
            Some(Tensor::f32(&[out], (0..out).map(value).collect()))
        }
        Some(bias) => return Err(format!("its bias has shape {:?} for {out} outputs", bias.shape)),
    };
    let weight = if alpha == 1.0 { weight } else { scaled(&weight, alpha) };
    linear(r, node, &x, weight, bias)
}

/// A product without a bias; what is added next becomes the bias.
pub(super) fn mat_mul(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let weight = r.constant(node, 1)?;
    let [k, out] = weight.shape[..] else {
        return Err(format!("its weight has shape {:?}, expected two axes", weight.shape));
    };
    let weight = weight.transposed(&[1, 0]);
    if x.form != Form::Last {
        return linear(r, node, &x, weight, None);
    }
    // Of channels that come last it is a convolution of one tap.
    if r.draft.layer(x.at).shape[3] != k {
        return Err(format!(
            "its weight is for {k} channels, and the map has {}",
            r.draft.layer(x.at).shape[3]
        ));
    }
    let weight = Tensor { shape: vec![out, 1, 1, k], ..weight.into_tensor() };
    Ok(r.push(node, Op::Conv(Conv::new(out, 1, 1)), &[&x], vec![("weight", weight)], Form::Last)?.into())
}

/// A linear layer of weight `[out, in]`.
fn linear(r: &mut Reader, node: &Node, x: &Edge, weight: Array, bias: Option<Tensor>) -> What<Vec<Value>> {
    let Form::Vector { of } = &x.form else {
        return Err(format!("takes a vector, and its input has the shape {:?}", r.dims(x)));
    };
    let [out, columns] = weight.shape[..] else { return Err("its weight has not two axes".into()) };
    let features = r.draft.layer(x.at).shape[3];
    if columns != features {
        return Err(format!("its weight is for {columns} features, and its input has {features}"));
    }
    // The file lays a map flat channels first, this one channels last.
    let weight = match *of {
        Some([c, h, w]) => weight.reordered(&[out, columns], |at| {
            let (row, column) = (at / columns, at % columns);
            row * columns + column % c * (h * w) + column / c
        }),
        None => weight,
    };
    let op = Op::Linear { out_features: out, bias: bias.is_some() };
    let mut parameters = vec![("weight", weight.into_tensor())];
    parameters.extend(bias.map(|bias| ("bias", bias)));
    Ok(r.push(node, op, &[x], parameters, Form::Vector { of: None })?.into())
}

fn scaled(weight: &Array, by: f32) -> Array {
    Array::floats(&weight.shape, weight.to_f32().into_iter().map(|value| value * by).collect())
}

/// Values for each channel in the order in which the layer has its channels.
pub(super) fn in_our_order<T: Copy>(form: &Form, values: Vec<T>) -> What<Vec<T>> {
    match *form {
        Form::Vector { of: Some([c, h, w]) } if values.len() == c * h * w => {
            Ok((0..values.len()).map(|at| values[at % c * (h * w) + at / c]).collect())
        }
        Form::Vector { of: Some(_) } => Err("has another number of values than its input".into()),
        _ => Ok(values),
    }
}

fn vector(values: &Array, count: usize, what: &str) -> What<Tensor> {
    if values.shape != [count] {
        return Err(format!("its {what} has shape {:?}, expected [{count}]", values.shape));
    }
    Ok(Tensor::f32(&[count], values.to_f32()))
}

/// The edge, which must be a map as the file's convolutions and pools take it.
fn map(x: Edge) -> What<Edge> {
    match x.form {
        Form::Map => Ok(x),
        Form::Last | Form::Line | Form::Vector { .. } | Form::Groups { .. } => {
            Err("takes a map [N,C,H,W], and its input is none".into())
        }
    }
}

pub(super) fn max_pool(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = map(r.edge(node, 0)?)?;
    let pool = window(r, node, &x)?;
    let result = r.push(node, Op::MaxPool(pool), &[&x], Vec::new(), Form::Map)?;
    Ok(result.into())
}

pub(super) fn average_pool(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = map(r.edge(node, 0)?)?;
    let pool =
        AvgPool { window: window(r, node, &x)?, count_include_pad: node.int("count_include_pad", 0)? != 0 };
    Ok(r.push(node, Op::AvgPool(pool), &[&x], Vec::new(), Form::Map)?.into())
}

fn window(r: &Reader, node: &Node, x: &Edge) -> What<Pool> {
    let Some(&[kh, kw]) = node.ints("kernel_shape")? else {
        return Err("has no kernel_shape of two sides".into());
    };
    let side = |side: i64| usize::try_from(side).map_err(|_| "has a negative kernel_shape");
    let kernel = [side(kh)?, side(kw)?];
    let stride = pair(node, "strides")?;
    if pair(node, "dilations")? != [1, 1] {
        return Err("is a dilated pool".into());
    }
    let padding = padding(r, node, x.at, kernel, stride, [1, 1])?;
    Ok(Pool { kernel, stride, padding, ceil_mode: node.int("ceil_mode", 0)? != 0 })
}

pub(super) fn global_average_pool(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = map(r.edge(node, 0)?)?;
    Ok(r.push(node, Op::GlobalAvgPool, &[&x], Vec::new(), Form::Map)?.into())
}

/// The mean over both sides of a map, or over one after the other.
pub(super) fn reduce_mean(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let axes = r.ints(node, "axes", 1)?;
    let Some(axes) = axes.filter(|axes| !axes.is_empty()) else {
        return Err("is the mean over all axes".into());
    };
    let rank = r.dims(&x).len();
    let mut axes: Vec<usize> = axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<What<_>>()?;
    axes.sort_unstable();
    let keep = node.int("keepdims", 1)? != 0;
    let flat = Form::Vector { of: None };
    let [_, h, w, _] = r.draft.layer(x.at).shape;
    let line = |kernel: [usize; 2]| {
        let window = Pool { kernel, stride: [1, 1], padding: [0; 4], ceil_mode: false };
        Op::AvgPool(AvgPool { window, count_include_pad: false })
    };
    let (op, form) = match (&x.form, &axes[..], keep) {
        (Form::Map, [2, 3], true) => (Op::GlobalAvgPool, Form::Map),
        (Form::Last, [1, 2], true) => (Op::GlobalAvgPool, Form::Last),
        (Form::Map, [2, 3], false) | (Form::Last, [1, 2], false) | (Form::Line, [2], false) => {
            (Op::GlobalAvgPool, flat)
        }
        (Form::Line, [2], true) => (Op::GlobalAvgPool, Form::Line),
        (Form::Map, [3], keep) => (line([1, w]), if keep { Form::Map } else { Form::Line }),
        (Form::Map, [2], keep) => (line([h, 1]), if keep { Form::Map } else { Form::Line }),
        (_, axes, _) => return Err(format!("is the mean over axes {axes:?} of {:?}", r.dims(&x))),
    };
    Ok(r.push(node, op, &[&x], Vec::new(), form)?.into())
}

pub(super) fn softmax(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let dims = r.dims(&x);
    let new = r.opset >= 13;
    let axis = axis_of(node.int("axis", if new { -1 } else { 1 })?, dims.len())?;
    // Before version 13 all axes from this one on were one.
    let alone = if new { true } else { dims[axis + 1..].iter().all(|&extent| extent == 1) };
    let channels = match x.form {
        Form::Map | Form::Line | Form::Vector { of: None } => 1,
        Form::Last => 3,
        Form::Vector { of: Some(_) } | Form::Groups { .. } => return Err(format!("is over {dims:?}")),
    };
    if axis != channels || !alone {
        return Err(format!("is over axis {axis} of {dims:?}, and the classes are on axis {channels}"));
    }
    let form = x.form.clone();
    Ok(r.push(node, Op::Softmax, &[&x], Vec::new(), form)?.into())
}

pub(super) fn dropout(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let rate = match r.optional_constant(node, 1)? {
        Some(rate) => rate.scalar().ok_or("its ratio is no single number")?,
        None => node.float("ratio", 0.5)?,
    };
    let form = x.form.clone();
    Ok(r.push(node, Op::Dropout { rate }, &[&x], Vec::new(), form)?.into())
}

pub(super) fn pad(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let mode = node.text("mode")?.unwrap_or("constant");
    if mode != "constant" {
        return Err(format!("pads in mode `{mode}`, not with zeros"));
    }
    let value = match r.optional_constant(node, 2)? {
        Some(value) => value.scalar().ok_or("its value is no single number")?,
        None => node.float("value", 0.0)?,
    };
    if value != 0.0 {
        return Err(format!("pads with {value}, not with zeros"));
    }
    let rank = r.dims(&x).len();
    let pads = r.ints(node, "pads", 1)?.ok_or("has no pads")?;
    let axes = match r.ints(node, "axes", 3)? {
        Some(axes) => axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<What<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("has {} pads for {} axes", pads.len(), axes.len()));
    }
    let [rows, columns] = match x.form {
        Form::Map => [2, 3],
        Form::Last => [1, 2],
        Form::Line | Form::Vector { .. } | Form::Groups { .. } => {
            return Err("pads something that is no map".into());
        }
    };
    let mut padding = [0; 4];
    for (at, &axis) in axes.iter().enumerate() {
        let sides = [pads[at], pads[at + axes.len()]];
        let to = match axis {
            _ if sides == [0, 0] => continue,
            axis if axis == rows => 0,
            axis if axis == columns => 2,
            _ => return Err(format!("pads axis {axis}, which is none of a map's sides")),
        };
        for (side, pad) in sides.into_iter().enumerate() {
            padding[to + side] = usize::try_from(pad).map_err(|_| format!("pads by {pad}"))?;
        }
    }
    if padding == [0; 4] {
        return Ok(x.into());
    }
    let form = x.form.clone();
    Ok(r.push(node, Op::Pad { padding }, &[&x], Vec::new(), form)?.into())
}

/// Two sides of an attribute, 1 where it is left out.
fn pair(node: &Node, key: &str) -> What<[usize; 2]> {
    let side = |side: i64| usize::try_from(side).map_err(|_| format!("its {key} are negative"));
    match node.ints(key)? {
        None => Ok([1, 1]),
        Some(&[a, b]) => Ok([side(a)?, side(b)?]),
        Some(other) => Err(format!("has {} {key}, expected 2", other.len())),
    }
}

/// Zeros around the map: top, bottom, left, right.
fn padding(
    r: &Reader,
    node: &Node,
    at: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
) -> What<[usize; 4]> {
    let [_, h, w, _] = r.draft.layer(at).shape;
    let upper = match node.text("auto_pad")?.unwrap_or("NOTSET") {
        "NOTSET" | "" => {
            let side = |side: i64| usize::try_from(side).map_err(|_| format!("is padded by {side}"));
            return match node.ints("pads")? {
                None => Ok([0; 4]),
                Some(&[top, left, bottom, right]) => {
                    Ok([side(top)?, side(bottom)?, side(left)?, side(right)?])
                }
                Some(pads) => Err(format!("has {} pads, expected 4", pads.len())),
            };
        }
        "VALID" => return Ok([0; 4]),
        "SAME_UPPER" => true,
        "SAME_LOWER" => false,
        other => return Err(format!("has the padding `{other}`")),
    };
    let axis = |axis: usize, extent: usize| -> What<[usize; 2]> {
        let beyond = || "its kernel is beyond reason".to_string();
        if kernel[axis] == 0 || stride[axis] == 0 {
            return Err("has a kernel or a stride of 0".into());
        }
        let reach = (kernel[axis] - 1).checked_mul(dilation[axis]).ok_or_else(beyond)?;
        let steps = (extent.div_ceil(stride[axis]) - 1) * stride[axis];
        let covered = reach.checked_add(steps).and_then(|c| c.checked_add(1)).ok_or_else(beyond)?;
        let total = covered.saturating_sub(extent);
        let less = total / 2;
        Ok(if upper { [less, total - less] } else { [total - less, less] })
    };
    let ([top, bottom], [left, right]) = (axis(0, h)?, axis(1, w)?);
    Ok([top, bottom, left, right])
}

/// An axis counted from the front.
pub(super) fn axis_of(axis: i64, rank: usize) -> What<usize> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    from_front
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("names axis {axis} of {rank}"))
}
