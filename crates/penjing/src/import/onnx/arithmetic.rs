//! Activations, sums and products; what exporters make of an activation is put together again.

use penjing_runtime::{Act, op::Op};

use super::{
    super::What,
    array::Array,
    draft::Affine,
    layers::in_our_order,
    node::Node,
    reader::{Edge, Form, Reader, Value},
};

fn act(r: &mut Reader, node: &Node, act: Act) -> What<Vec<Value>> {
    let x = r.edge(node, 0)?;
    let form = x.form.clone();
    Ok(r.push(node, Op::Act(act), &[&x], Vec::new(), form)?.into())
}

pub(super) fn relu(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    act(r, node, Act::Relu)
}

pub(super) fn leaky_relu(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let slope = node.float("alpha", 0.01)?;
    act(r, node, Act::LeakyRelu(slope))
}

pub(super) fn hard_swish(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    act(r, node, Act::HSwish)
}

pub(super) fn hard_sigmoid(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    let [alpha, beta] = [node.float("alpha", 0.2)?, node.float("beta", 0.5)?];
    if (alpha - 1.0 / 6.0).abs() > 1e-6 || beta != 0.5 {
        return Err(format!("is {alpha}·x + {beta}, and only x/6 + 1/2 is known"));
    }
    act(r, node, Act::HSigmoid)
}

pub(super) fn sigmoid(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    act(r, node, Act::Sigmoid)
}

pub(super) fn swish(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    if node.float("alpha", 1.0)? != 1.0 {
        return Err("has another alpha than 1".into());
    }
    act(r, node, Act::Silu)
}

/// Bounds are attributes in old files and inputs in newer ones.
pub(super) fn clip(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    if let Value::Constant(array) = r.input_value(node, 0)? {
        return clipped(r, node, &array);
    }
    let mut bounds = [f32::NEG_INFINITY, f32::INFINITY];
    for (at, key) in ["min", "max"].into_iter().enumerate() {
        let bound = match r.optional_constant(node, at + 1)? {
            Some(bound) => bound.scalar().ok_or_else(|| format!("its {key} is no single number"))?,
            None => node.float(key, bounds[at])?,
        };
        // Exporters write the greatest number of a type where there is no bound.
        bounds[at] = if bound.abs() >= 65504.0 { bound.signum() * f32::INFINITY } else { bound };
    }
    match bounds {
        [f32::NEG_INFINITY, f32::INFINITY] => r.input_value(node, 0).map(|value| vec![value]),
        [0.0, f32::INFINITY] => act(r, node, Act::Relu),
        [0.0, 6.0] => {
            // min(max(x + 3, 0), 6) is six times the hard sigmoid.
            if let Value::Edge(x) = r.input_value(node, 0)?
                && x.at != 0
                && x.affine.as_ref().and_then(Affine::uniform) == Some((1.0, 3.0))
            {
                let x = Edge { affine: None, ..x };
                let form = x.form.clone();
                let y = r.push(node, Op::Act(Act::HSigmoid), &[&x], Vec::new(), form)?;
                return Ok(Edge { affine: Some(Affine { scale: vec![6.0], shift: vec![0.0] }), ..y }.into());
            }
            act(r, node, Act::Relu6)
        }
        [min, max] => Err(format!("clips to {min}..{max}, and only 0..6 and 0.. are known")),
    }
}

/// A shape on its way, kept above or below a bound.
fn clipped(r: &Reader, node: &Node, array: &Array) -> What<Vec<Value>> {
    let mut values = array.clone();
    for (at, least) in [(1, true), (2, false)] {
        let Some(bound) = r.optional_constant(node, at)? else { continue };
        let wrong = || "its bounds are no single numbers".to_string();
        bound.scalar().ok_or_else(wrong)?;
        let made = match least {
            true => constants(&values, &bound, f32::max, |a, b| Some(a.max(b)))?,
            false => constants(&values, &bound, f32::min, |a, b| Some(a.min(b)))?,
        };
        let [Value::Constant(made)] = &made[..] else { return Err(wrong()) };
        values = (**made).clone();
    }
    Ok(Array { shape: array.shape.clone(), ..values }.into())
}

/// Two sides of a sum or product.
enum Sides {
    Edges(Edge, Edge),
    /// With a constant, which came first where `reversed`.
    Constant {
        x: Edge,
        by: Vec<f64>,
        reversed: bool,
    },
    Constants(Array, Array),
}

fn sides(r: &mut Reader, node: &Node) -> What<Sides> {
    Ok(match (r.input_value(node, 0)?, r.input_value(node, 1)?) {
        (Value::Edge(a), Value::Edge(b)) => Sides::Edges(a, b),
        (Value::Edge(x), Value::Constant(by)) => {
            Sides::Constant { by: per_channel(r, &x, &by)?, x, reversed: false }
        }
        (Value::Constant(by), Value::Edge(x)) => {
            Sides::Constant { by: per_channel(r, &x, &by)?, x, reversed: true }
        }
        (Value::Constant(a), Value::Constant(b)) => Sides::Constants((*a).clone(), (*b).clone()),
    })
}

/// A constant that has one value for each channel of the edge, or one for all.
fn per_channel(r: &Reader, x: &Edge, by: &Array) -> What<Vec<f64>> {
    let dims = r.dims(x);
    let values: Vec<f64> = by.to_f32().into_iter().map(f64::from).collect();
    if values.len() == 1 && by.shape.len() <= dims.len() {
        return Ok(values);
    }
    let axis = match x.form {
        Form::Map | Form::Line | Form::Vector { .. } => 1,
        Form::Last => 3,
        Form::Groups { .. } => return Err("is of something that has no channels".into()),
    };
    // Shapes are aligned at their last axes.
    let missing = dims.len().checked_sub(by.shape.len());
    let fits = missing.is_some_and(|missing| {
        let extent = |at: usize| if at < missing { 1 } else { by.shape[at - missing] };
        (0..dims.len()).all(|at| extent(at) == if at == axis { dims[axis] } else { 1 })
    });
    if !fits {
        return Err(format!(
            "has a constant of shape {:?} beside {dims:?}; only one value for each channel, or for all, is known",
            by.shape
        ));
    }
    in_our_order(&x.form, values)
}

/// The edge, afterwards times `factor` and plus `shift`.
fn changed(x: Edge, factor: &[f64], shift: &[f64]) -> Edge {
    let before = x.affine.clone().unwrap_or_else(Affine::identity);
    let affine = Some(before.then(factor, shift)).filter(|affine| !affine.is_identity());
    Edge { affine, ..x }
}

/// Joins two edges, of which nothing is left to be done.
fn joined(r: &mut Reader, node: &Node, op: Op) -> What<Vec<Value>> {
    let [a, b] = [r.edge(node, 0)?, r.edge(node, 1)?];
    let [a_dims, b_dims] = [r.dims(&a), r.dims(&b)];
    let vector = |dims: &[usize]| dims.len() == 4 && dims[2..] == [1, 1];
    let swap = matches!(op, Op::Mul) && a.form == Form::Map && vector(&a_dims) && !vector(&b_dims);
    // Of channels that come last, a vector is [N,1,1,C].
    let swap = swap || (matches!(op, Op::Mul) && a.form == Form::Last && a_dims[1..3] == [1, 1]);
    if a.form != b.form {
        return Err(format!("joins {a_dims:?} and {b_dims:?}, whose axes mean different things"));
    }
    let form = a.form.clone();
    let inputs = if swap { [&b, &a] } else { [&a, &b] };
    Ok(r.push(node, op, &inputs, Vec::new(), form)?.into())
}

pub(super) fn add(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    match sides(r, node)? {
        Sides::Edges(..) => joined(r, node, Op::Add),
        Sides::Constant { x, by, .. } => Ok(changed(x, &[1.0], &by).into()),
        Sides::Constants(a, b) => constants(&a, &b, |a, b| a + b, i64::checked_add),
    }
}

pub(super) fn sub(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    match sides(r, node)? {
        Sides::Edges(..) => Err("is the difference of two maps".into()),
        Sides::Constant { x, by, reversed: false } => {
            let by: Vec<f64> = by.into_iter().map(|value| -value).collect();
            Ok(changed(x, &[1.0], &by).into())
        }
        Sides::Constant { x, by, reversed: true } => Ok(changed(x, &[-1.0], &by).into()),
        Sides::Constants(a, b) => constants(&a, &b, |a, b| a - b, i64::checked_sub),
    }
}

pub(super) fn mul(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    match sides(r, node)? {
        Sides::Edges(a, b) => {
            for (x, gate) in [(&a, &b), (&b, &a)] {
                if let Some(gated) = gated(r, node, x, gate)? {
                    return Ok(gated.into());
                }
            }
            joined(r, node, Op::Mul)
        }
        Sides::Constant { x, by, .. } => Ok(changed(x, &by, &[0.0]).into()),
        Sides::Constants(a, b) => constants(&a, &b, |a, b| a * b, i64::checked_mul),
    }
}

pub(super) fn div(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    match sides(r, node)? {
        Sides::Edges(..) => Err("is the quotient of two maps".into()),
        Sides::Constant { reversed: true, .. } => Err("divides a constant by a map".into()),
        Sides::Constant { x, by, .. } => {
            let by: Vec<f64> = by.into_iter().map(|value| 1.0 / value).collect();
            if by.iter().any(|factor| !factor.is_finite()) {
                return Err("divides by 0".into());
            }
            Ok(changed(x, &by, &[0.0]).into())
        }
        Sides::Constants(a, b) => constants(&a, &b, |a, b| a / b, i64::checked_div),
    }
}

pub(super) fn neg(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    match r.input_value(node, 0)? {
        Value::Edge(x) => Ok(changed(x, &[-1.0], &[0.0]).into()),
        Value::Constant(array) => {
            let zero = Array { shape: Vec::new(), ..Array::ints(vec![0]) };
            constants(&zero, &array, |a, b| a - b, i64::checked_sub)
        }
    }
}

pub(super) fn max(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    match two(r, node)? {
        [Value::Constant(a), Value::Constant(b)] => constants(&a, &b, f32::max, |a, b| Some(a.max(b))),
        [Value::Edge(_), Value::Constant(floor)] | [Value::Constant(floor), Value::Edge(_)]
            if floor.scalar() == Some(0.0) =>
        {
            let at = if matches!(r.input_value(node, 0)?, Value::Edge(_)) { 0 } else { 1 };
            let x = r.edge(node, at)?;
            let form = x.form.clone();
            Ok(r.push(node, Op::Act(Act::Relu), &[&x], Vec::new(), form)?.into())
        }
        _ => Err("is the greater of two maps, or of a map and another constant than 0".into()),
    }
}

pub(super) fn min(r: &mut Reader, node: &Node) -> What<Vec<Value>> {
    match two(r, node)? {
        [Value::Constant(a), Value::Constant(b)] => constants(&a, &b, f32::min, |a, b| Some(a.min(b))),
        _ => Err("is the lesser of a map and something else".into()),
    }
}

/// The two inputs of a node that may have more.
fn two(r: &mut Reader, node: &Node) -> What<[Value; 2]> {
    if node.inputs.len() != 2 {
        return Err(format!("has {} inputs; only 2 are known", node.inputs.len()));
    }
    Ok([r.input_value(node, 0)?, r.input_value(node, 1)?])
}

/// `x · sigmoid(x)` is SiLU, and `x · hard_sigmoid(x)` the hard swish, each times what the gate is times.
fn gated(r: &mut Reader, node: &Node, x: &Edge, gate: &Edge) -> What<Option<Edge>> {
    let Some((act, of)) = r.draft.act(gate.at) else { return Ok(None) };
    let factor = match gate.affine.as_ref().map(Affine::uniform) {
        None => 1.0,
        Some(Some((factor, 0.0))) => factor,
        Some(_) => return Ok(None),
    };
    let act = match act {
        Act::Sigmoid => Act::Silu,
        Act::HSigmoid => Act::HSwish,
        Act::None | Act::Relu | Act::Relu6 | Act::LeakyRelu(_) | Act::HSwish | Act::Silu => return Ok(None),
    };
    if of != x.at || x.at == 0 || x.affine.is_some() || x.form != gate.form {
        return Ok(None);
    }
    let y = r.push(node, Op::Act(act), &[x], Vec::new(), x.form.clone())?;
    Ok(Some(if factor == 1.0 { y } else { changed(y, &[factor], &[0.0]) }))
}

/// Of two constants of one shape, or of one and a single number.
fn constants(
    a: &Array,
    b: &Array,
    floats: impl Fn(f32, f32) -> f32,
    ints: impl Fn(i64, i64) -> Option<i64>,
) -> What<Vec<Value>> {
    let (longer, shorter) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    if a.shape != b.shape && shorter.len() != 1 {
        return Err(format!("is of constants of the shapes {:?} and {:?}", a.shape, b.shape));
    }
    let shape = if longer.shape.len() >= shorter.shape.len() { &longer.shape } else { &shorter.shape };
    let at = |i: usize, array: &Array| i.min(array.len() - 1);
    if let (Some(x), Some(y)) = (a.as_ints(), b.as_ints()) {
        let each = (0..longer.len()).map(|i| ints(x[at(i, a)], y[at(i, b)]));
        let values: Option<Vec<i64>> = each.collect();
        let values = values.ok_or("is of integers that overflow or are divided by 0")?;
        return Ok(Array { shape: shape.clone(), values: super::array::Values::Int(values) }.into());
    }
    let (x, y) = (a.to_f32(), b.to_f32());
    let values = (0..longer.len()).map(|i| floats(x[at(i, a)], y[at(i, b)])).collect();
    Ok(Array::floats(shape, values).into())
}
