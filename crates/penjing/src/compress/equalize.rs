//! Cross-layer equalization (Nagel et al., arXiv 1906.04721): between two layers a channel may be scaled down in the first and
//! up in the second, so that its weights use as much of the range as those of the others.

use penjing_runtime::{
    Error as RuntimeError,
    graph::{Graph, NodeId},
    op::{Act, Op},
    tensor::{Tensor, Weights},
};

use super::fold::{layer, users};

/// A layer, and the next one that alone reads its result, through nothing or an activation.
struct Pair {
    first: NodeId,
    act: Option<NodeId>,
    second: NodeId,
}

/// The same function with equalized weights, of a network with folded BatchNorm. A ReLU6 between two layers becomes a ReLU,
/// since it would cut each channel off elsewhere: where it did cut off, the function changes.
///
/// # Errors
/// [`RuntimeError::Layer`] when the weights are not the graph's.
pub fn equalize(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights), RuntimeError> {
    graph.check(weights)?;
    let pairs = pairs(graph);
    let mut weights = weights.clone();
    // One pair changes what its neighbours find.
    for _ in 0..SWEEPS {
        for pair in &pairs {
            balance(graph, &mut weights, pair);
        }
    }
    let opened: Vec<NodeId> = pairs.iter().filter_map(|pair| pair.act).collect();
    let mut changed = Graph::default();
    for (id, node) in graph.iter() {
        let op = if opened.contains(&id) { Op::Act(Act::Relu) } else { node.op.clone() };
        changed.push(&node.name, op, &node.inputs)?;
    }
    Ok((changed, weights))
}

/// Enough for the ranges of MobileNets to settle.
const SWEEPS: usize = 20;

fn pairs(graph: &Graph) -> Vec<Pair> {
    let users = users(graph);
    let only = |id: NodeId| if let [user] = users[id.index()][..] { Some(user) } else { None };
    let pair = |(first, node): (NodeId, &penjing_runtime::graph::Node)| {
        if !layer(node) {
            return None;
        }
        let mut next = only(first)?;
        let act = match graph.node(next).op {
            Op::Act(Act::Relu | Act::Relu6) => Some(next),
            _ => None,
        };
        if act.is_some() {
            next = only(next)?;
        }
        let second = graph.node(next);
        let fits = match &second.op {
            Op::Linear { .. } => true,
            Op::Conv(conv) => {
                conv.groups == 1 || conv.groups == conv.out_channels && conv.groups == node.shape[3]
            }
            _ => false,
        };
        fits.then_some(Pair { first, act, second: next })
    };
    graph.iter().filter_map(pair).collect()
}

fn balance(graph: &Graph, weights: &mut Weights, pair: &Pair) {
    let name = |id: NodeId, part: &str| format!("{}.{part}", graph.node(id).name);
    let (first, second) = (&weights[&name(pair.first, "weight")], &weights[&name(pair.second, "weight")]);
    let (shapes, mut a, mut b) =
        ([first.shape.clone(), second.shape.clone()], first.to_f32(), second.to_f32());
    let channels = graph.shape(pair.first)[3];
    let each = a.len() / channels;
    // Of a depthwise convolution the channel is the row, of others it runs fastest.
    let depthwise =
        matches!(&graph.node(pair.second).op, Op::Conv(conv) if conv.groups == channels && channels > 1);
    let taps = b.len() / channels;
    let channel_of = |at: usize| if depthwise { at / taps } else { at % channels };
    let mut reach = vec![0f32; channels];
    b.iter().enumerate().for_each(|(at, w)| reach[channel_of(at)] = reach[channel_of(at)].max(w.abs()));
    let factor = |c: usize| {
        let own = a[c * each..(c + 1) * each].iter().fold(0f32, |peak, w| peak.max(w.abs()));
        let factor = (own / reach[c]).sqrt();
        if factor.is_normal() { factor.clamp(1e-4, 1e4) } else { 1.0 }
    };
    let factors: Vec<f32> = (0..channels).map(factor).collect();
    a.iter_mut().enumerate().for_each(|(at, w)| *w /= factors[at / each]);
    b.iter_mut().enumerate().for_each(|(at, w)| *w *= factors[channel_of(at)]);
    if let Some(bias) = weights.get_mut(&name(pair.first, "bias")) {
        let scaled = bias.to_f32().iter().zip(&factors).map(|(v, f)| v / f).collect();
        *bias = Tensor::f32(&[channels], scaled);
    }
    let [shape_a, shape_b] = shapes;
    weights.insert(name(pair.first, "weight"), Tensor::f32(&shape_a, a));
    weights.insert(name(pair.second, "weight"), Tensor::f32(&shape_b, b));
}

#[cfg(test)]
mod tests {
    use penjing_runtime::{Isa, PlanBuf, Serial, Session, op::Conv};

    use super::*;
    use crate::zoo;

    #[test]
    fn equalized_weights_compute_the_same_from_narrower_ranges() {
        let mut graph = Graph::default();
        let conv = |out, kernel, groups| {
            Op::Conv(Conv { groups, bias: true, padding: [kernel / 2; 4], ..Conv::new(out, kernel, 1) })
        };
        let x = graph.push("x", Op::Input { shape: [1, 6, 6, 3] }, &[]).unwrap();
        let a = graph.push("a", conv(8, 1, 1), &[x]).unwrap();
        let b = graph.push("b", Op::Act(Act::Relu), &[a]).unwrap();
        let c = graph.push("c", conv(8, 3, 8), &[b]).unwrap();
        let d = graph.push("d", Op::Act(Act::Relu6), &[c]).unwrap();
        let e = graph.push("e", conv(4, 1, 1), &[d]).unwrap();
        let f = graph.push("f", conv(4, 3, 1), &[e]).unwrap();
        graph.push("sum", Op::Add, &[e, f]).unwrap();
        let mut weights = zoo::random_weights(&graph, 1);
        // One channel of the first layer is a hundred times as strong, and one of the second.
        for (name, row) in [("a.weight", 2), ("c.weight", 5)] {
            let tensor = weights.get_mut(name).unwrap();
            let mut values = tensor.to_f32();
            let each = values.len() / 8;
            values[row * each..(row + 1) * each].iter_mut().for_each(|w| *w *= 100.0);
            *tensor = Tensor::f32(&tensor.shape.clone(), values);
        }
        let (equal, balanced) = equalize(&graph, &weights).unwrap();
        let run = |graph: &Graph, weights: &Weights| {
            let mut session = Session::new(PlanBuf::lower(graph, weights, 1).unwrap().into(), Isa::detect());
            session.input().iter_mut().enumerate().for_each(|(i, v)| *v = (i % 7) as f32 * 1e-3 - 3e-3);
            session.run(&Serial).to_vec()
        };
        let (before, after) = (run(&graph, &weights), run(&equal, &balanced));
        let worst = before.iter().zip(&after).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 1e-5, "{worst}");
        let spread = |weights: &Weights, name: &str| {
            let values = weights[name].to_f32();
            let peaks =
                values.chunks(values.len() / 8).map(|row| row.iter().fold(0f32, |p, w| p.max(w.abs())));
            let peaks: Vec<f32> = peaks.collect();
            peaks.iter().fold(0f32, |a, b| a.max(*b)) / peaks.iter().fold(f32::MAX, |a, b| a.min(*b))
        };
        for name in ["a.weight", "c.weight"] {
            assert!(spread(&balanced, name) < spread(&weights, name) / 5.0, "{name}");
        }
        // What two read is left alone, the ReLU6 between two layers is not.
        assert_eq!(balanced["f.weight"], weights["f.weight"]);
        assert_eq!(equal.node(d).op, Op::Act(Act::Relu));
    }
}
