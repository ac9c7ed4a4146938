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
    for (id, node) in graph.iter() {
        let Some(integers) = integers(&graph, &weights, id, rounding) else { continue };
        let [name, bias_name] = ["weight", "bias"].map(|part| format!("{}.{part}", node.name));
        let means = seen.get(&source(&graph, node.inputs[0])).map(|seen| &seen.means[..]);
        if let Some(means) = means.filter(|_| rounding.correct_biases) {
            let mut bias = weights[&bias_name].to_f32();
            let moved = moved(&graph, id, &weights[&name].to_f32(), &integers.to_f32(), means);
            bias.iter_mut().zip(moved).for_each(|(bias, moved)| *bias += moved);
            weights.insert(bias_name, Tensor::f32(&[bias.len()], bias));
        }
        weights.insert(name, integers);
    }
    graph.check(&weights)?;
    Ok((graph, weights))
}

/// The integers of a layer that computes with them; every layer of the graph has a bias.
pub(super) fn integers(graph: &Graph, weights: &Weights, id: NodeId, rounding: &Rounding) -> Option<Tensor> {
    let node = graph.node(id);
    if !layer(node) || rounding.floats.contains(&node.name) {
        return None;
    }
    let x = graph.quant(node.inputs[0])?;
    let [weight, bias] = ["weight", "bias"].map(|part| weights.get(&format!("{}.{part}", node.name)));
    let (weight, bias) = (weight?, bias?.to_f32());
    Some(weight.to_i8_with(scales(weight, &bias, x, result(graph, id), rounding.per_channel)))
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

#[cfg(test)]
mod tests {
    use penjing_runtime::{
        Isa, PlanBuf, Serial, Session,
        int8::Int8,
        op::{Act, Conv},
        plan::Step,
        tensor::Data,
    };

    use super::*;
    use crate::{
        compress::{grid, observe::observe},
        progress::Quiet,
        threads::Threads,
        zoo,
    };

    fn network() -> (Graph, Weights) {
        let mut graph = Graph::default();
        let conv = |out, kernel: usize, groups| {
            Op::Conv(Conv { groups, bias: true, padding: [kernel / 2; 4], ..Conv::new(out, kernel, 1) })
        };
        let x = graph.push("x", Op::Input { shape: [1, 8, 8, 3] }, &[]).unwrap();
        let a = graph.push("a", conv(16, 1, 1), &[x]).unwrap();
        let b = graph.push("b", Op::Act(Act::Relu6), &[a]).unwrap();
        let c = graph.push("c", conv(16, 3, 16), &[b]).unwrap();
        let d = graph.push("d", Op::Act(Act::Relu6), &[c]).unwrap();
        let e = graph.push("e", conv(16, 1, 1), &[d]).unwrap();
        let pool = graph.push("pool", Op::GlobalAvgPool, &[e]).unwrap();
        graph.push("head", Op::Linear { out_features: 4, bias: true }, &[pool]).unwrap();
        let weights = zoo::random_weights(&graph, 5);
        (graph, weights)
    }

    fn inputs() -> Vec<Vec<f32>> {
        let mut random = crate::random::SplitMix64::new(1);
        (0..24).map(|_| (0..8 * 8 * 3).map(|_| random.uniform() as f32 * 2.0).collect()).collect()
    }

    fn run(graph: &Graph, weights: &Weights, inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut session = Session::new(PlanBuf::lower(graph, weights, 1).unwrap().into(), Isa::detect());
        let run = |input: &Vec<f32>| {
            session.input().copy_from_slice(input);
            session.run(&Serial).to_vec()
        };
        inputs.iter().map(run).collect()
    }

    /// The network in 8 bits, and how far its results are from those in floats: mean over photos of what is off, and of its
    /// magnitude.
    fn off(graph: &Graph, weights: &Weights, rounding: &Rounding) -> ((Graph, Weights), [f32; 2]) {
        let inputs = inputs();
        let threads = Threads::new(Some(1)).unwrap();
        let seen = observe(graph, weights, &inputs, &threads, &Quiet).unwrap();
        let grids = grid::grids(graph, &seen, grid::Ranging::MinMax);
        let (int8, integers) = quantize(graph, weights, &grids, &seen, rounding).unwrap();
        let (exact, rounded) = (run(graph, weights, &inputs), run(&int8, &integers, &inputs));
        let outputs = exact[0].len();
        let differences = |output: usize| exact.iter().zip(&rounded).map(move |(e, r)| r[output] - e[output]);
        let mean = |output| differences(output).sum::<f32>() / exact.len() as f32;
        let worst_mean = (0..outputs).map(|output| mean(output).abs()).fold(0.0, f32::max);
        let worst = (0..outputs).flat_map(differences).map(f32::abs).fold(0.0, f32::max);
        ((int8, integers), [worst_mean, worst])
    }

    #[test]
    fn a_scale_for_each_channel_and_corrected_biases_come_nearer() {
        let (graph, mut weights) = network();
        // Channels of a depthwise convolution differ much, as those of trained networks do.
        let tensor = weights.get_mut("c.weight").unwrap();
        let values =
            tensor.to_f32().iter().enumerate().map(|(at, w)| w * 1.6f32.powi((at / 9) as i32 - 8)).collect();
        *tensor = Tensor::f32(&tensor.shape.clone(), values);
        let rounding =
            |per_channel, correct_biases| Rounding { per_channel, correct_biases, floats: BTreeSet::new() };
        let ((_, integers), each) = off(&graph, &weights, &rounding(true, false));
        let (_, one) = off(&graph, &weights, &rounding(false, false));
        let (_, corrected) = off(&graph, &weights, &rounding(false, true));
        println!("{each:?} {one:?} {corrected:?}");
        assert!(each[1] < 0.5 * one[1], "{each:?} {one:?}");
        assert!(corrected[0] < 0.7 * one[0], "{corrected:?} {one:?}");
        assert!(integers.values().filter(|tensor| matches!(tensor.data, Data::I8(_))).count() == 4);
    }

    #[test]
    fn layers_may_keep_their_floats() {
        let (graph, weights) = network();
        let rounding =
            Rounding { floats: ["a".to_string(), "e".to_string()].into(), ..Rounding::recommended() };
        let ((_, mixed), [_, worst]) = off(&graph, &weights, &rounding);
        for (name, int8) in [("a", false), ("c", true), ("e", false), ("head", true)] {
            assert_eq!(matches!(mixed[&format!("{name}.weight")].data, Data::I8(_)), int8, "{name}");
        }
        let (_, [_, all]) = off(&graph, &weights, &Rounding::recommended());
        assert!(worst > 0.0 && worst < 3.0 * all);
    }

    #[test]
    fn a_channel_without_weights_keeps_its_bias() {
        let (graph, mut weights) = network();
        for (name, each) in [("a.weight", 3), ("c.weight", 9)] {
            let tensor = weights.get_mut(name).unwrap();
            let mut values = tensor.to_f32();
            values[..each].fill(0.0);
            values[each..2 * each].iter_mut().for_each(|w| *w *= 1e-20);
            *tensor = Tensor::f32(&tensor.shape.clone(), values);
        }
        let bias: Vec<f32> = (0..16).map(|c| if c < 2 { 3.0 } else { 0.1 }).collect();
        weights.insert("c.bias".into(), Tensor::f32(&[16], bias));
        let ((int8, integers), [_, worst]) = off(&graph, &weights, &Rounding::recommended());
        let exact = run(&graph, &weights, &inputs());
        let largest = exact.iter().flatten().fold(0f32, |peak, v| peak.max(v.abs()));
        assert!(worst < 0.05 * largest, "{worst} of {largest}");
        // And all layers still compute on bytes.
        let plan = PlanBuf::lower(&int8, &integers, 1).unwrap();
        let on_bytes = |step: &Step| match step {
            Step::Int8(step) => !matches!(step, Int8::Dequantize { .. }),
            _ => false,
        };
        assert!(plan.plan().steps.iter().all(on_bytes), "{:?}", plan.plan().steps);
    }
}
