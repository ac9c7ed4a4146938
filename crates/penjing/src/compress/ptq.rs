//! Post-training quantization: integers for weights, grids for results, and biases that make up for what rounding moved.

use std::collections::{BTreeMap, BTreeSet};

use penjing_runtime::{
    Error as RuntimeError,
    graph::{Graph, NodeId},
    op::Op,
    quant::Quant,
    tensor::{Tensor, Weights},
};

use super::{
    fold::{layer, source, with_biases},
    observe::Observations,
};

/// How weights become integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounding {
    /// A scale for each output of a layer; otherwise one for all of them.
    pub per_channel: bool,
    /// Whether biases make up for the mean of what rounding the weights adds to a result: `Σ (w − ŵ)·E[x]` (the empirical
    /// form of Nagel et al., arXiv 1906.04721).
    pub correct_biases: bool,
    /// Layers whose weights stay floats.
    pub floats: BTreeSet<String>,
}

impl Rounding {
    /// What is done unless something else is asked for.
    pub fn recommended() -> Self {
        Rounding { per_channel: true, correct_biases: true, floats: BTreeSet::new() }
    }
}

/// A network with folded BatchNorm in 8 bits: results on these grids, and layers that read such results with integers.
///
/// # Errors
/// [`RuntimeError::Layer`] when graph, weights and grids do not fit.
pub fn quantize(
    graph: &Graph,
    weights: &Weights,
    grids: &BTreeMap<NodeId, Quant>,
    seen: &Observations,
    rounding: &Rounding,
) -> Result<(Graph, Weights), RuntimeError> {
    let (mut graph, mut weights) = with_biases(graph, weights)?;
    for (&id, &quant) in grids {
        graph.set_quant(id, Some(quant))?;
    }
    let layers: Vec<NodeId> = graph.iter().filter(|(_, node)| layer(node)).map(|(id, _)| id).collect();
    for id in layers {
        let node = graph.node(id).clone();
        let Some(x) = graph.quant(node.inputs[0]).filter(|_| !rounding.floats.contains(&node.name)) else {
            continue;
        };
        let name = format!("{}.weight", node.name);
        let Some(tensor) = weights.get(&name).cloned() else { continue };
        let bias_name = format!("{}.bias", node.name);
        let mut bias = weights[&bias_name].to_f32();
        let integers = tensor.to_i8_with(scales(&tensor, &bias, x, result(&graph, id), rounding.per_channel));
        let means = seen.get(&source(&graph, node.inputs[0])).map(|seen| &seen.means[..]);
        if let Some(means) = means.filter(|_| rounding.correct_biases) {
            let moved = moved(&graph, id, &tensor.to_f32(), &integers.to_f32(), means);
            bias.iter_mut().zip(moved).for_each(|(bias, moved)| *bias += moved);
            weights.insert(bias_name, Tensor::f32(&[bias.len()], bias));
        }
        weights.insert(name, integers);
    }
    graph.check(&weights)?;
    Ok((graph, weights))
}

/// The grid of what a layer's sums become, if that is kept in 8 bits at once.
fn result(graph: &Graph, id: NodeId) -> Option<Quant> {
    let behind = || {
        let (user, _) = graph.iter().find(|(_, node)| node.inputs.contains(&id))?;
        matches!(graph.node(user).op, Op::Act(act) if act.clamp().is_some()).then(|| graph.quant(user))?
    };
    graph.quant(id).or_else(behind)
}

/// The scales that make the greatest weights ±127, none so small that a bias or a factor to the result would leave the
/// integers that it is computed in.
fn scales(tensor: &Tensor, bias: &[f32], x: Quant, y: Option<Quant>, per_channel: bool) -> Vec<f32> {
    const LARGEST_BIAS: f32 = (1u32 << 28) as f32;
    const LEAST_FACTOR: f32 = 1.0 / (1u32 << 24) as f32;
    let values = tensor.to_f32();
    let each = values.len() / bias.len();
    let peak = |row: &[f32]| row.iter().fold(0f32, |peak, w| peak.max(w.abs())) / 127.0;
    let rows = values.chunks_exact(each).zip(bias);
    let scales = rows.map(|(row, bias)| {
        let least = y.map_or(0.0, |y| y.scale * LEAST_FACTOR / x.scale);
        peak(row).max(bias.abs() / (x.scale * LARGEST_BIAS)).max(least).max(f32::MIN_POSITIVE)
    });
    if per_channel { scales.collect() } else { vec![scales.fold(f32::MIN_POSITIVE, f32::max)] }
}

/// How far rounding moves each output in the mean. Borders are taken for the inside.
fn moved(graph: &Graph, id: NodeId, exact: &[f32], rounded: &[f32], means: &[f32]) -> Vec<f32> {
    let node = graph.node(id);
    let (outputs, groups) = (node.shape[3], if let Op::Conv(conv) = &node.op { conv.groups } else { 1 });
    let each = exact.len() / outputs;
    // Channels run fastest; what was flattened repeats them.
    let inputs = graph.shape(node.inputs[0])[3] / groups;
    let output = |output: usize| {
        let first = output / (outputs / groups) * inputs;
        let range = output * each..(output + 1) * each;
        let row = exact[range.clone()].iter().zip(&rounded[range]).enumerate();
        row.map(|(at, (w, r))| f64::from(w - r) * f64::from(means[(first + at % inputs) % means.len()]))
            .sum::<f64>() as f32
    };
    (0..outputs).map(output).collect()
}
