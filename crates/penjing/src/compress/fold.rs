//! BatchNorm drawn into the layer before it, for good.

use penjing_runtime::{
    Error as RuntimeError,
    graph::{Graph, Node, NodeId},
    op::Op,
    tensor::{Tensor, Weights},
};

/// The same network without the BatchNorms that follow a convolution or linear layer alone, and without dropout: weights are
/// multiplied by `γ/√(var + eps)`, and what is added becomes a bias. The layers keep their names; the last node keeps its.
///
/// # Errors
/// [`RuntimeError::Layer`] when the weights are not the graph's.
pub fn fold(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights), RuntimeError> {
    graph.check(weights)?;
    let users = users(graph);
    let mut folded = Graph::default();
    let mut kept = weights.clone();
    let mut place: Vec<Option<NodeId>> = vec![None; graph.nodes().len()];
    for (id, node) in graph.iter() {
        if place[id.index()].is_some() {
            continue;
        }
        let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|input| place[input.index()]).collect();
        let norm = match users[id.index()][..] {
            [user] if layer(node) => Some((user, graph.node(user))),
            _ => None,
        };
        let new = match (norm, &node.op) {
            (Some((user, Node { name: norm, op: Op::BatchNorm { eps }, .. })), op) => {
                draw_in(&mut kept, &node.name, norm, *eps);
                let new = folded.push(&node.name, with_bias(op), &inputs)?;
                place[user.index()] = Some(new);
                new
            }
            (_, Op::Dropout { .. }) if inputs.len() == 1 => inputs[0],
            (_, op) => folded.push(&node.name, op.clone(), &inputs)?,
        };
        place[id.index()] = Some(new);
    }
    folded.check(&kept)?;
    Ok((folded, kept))
}

/// For each node those that read its result.
pub(super) fn users(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut users = vec![Vec::new(); graph.nodes().len()];
    for (id, node) in graph.iter() {
        node.inputs.iter().for_each(|input| users[input.index()].push(id));
    }
    users
}

/// Whether a node is a convolution or a linear layer.
pub(super) fn layer(node: &Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Linear { .. })
}

/// Whether a node is a convolution of several groups, such as a depthwise one.
pub(super) fn in_groups(node: &Node) -> bool {
    matches!(&node.op, Op::Conv(conv) if conv.groups > 1)
}

/// The node whose result this one passes on: itself, if it makes one.
pub(super) fn source(graph: &Graph, id: NodeId) -> NodeId {
    match graph.node(id).op {
        Op::Flatten | Op::Dropout { .. } => source(graph, graph.node(id).inputs[0]),
        _ => id,
    }
}

/// The same network with a bias in every layer.
pub(super) fn with_biases(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights), RuntimeError> {
    let (mut biased, mut weights) = (Graph::default(), weights.clone());
    for (_, node) in graph.iter() {
        let id = biased.push(&node.name, with_bias(&node.op), &node.inputs)?;
        biased.set_quant(id, node.quant)?;
        if layer(node) {
            let zeros = || Tensor::f32(&[node.shape[3]], vec![0.0; node.shape[3]]);
            weights.entry(format!("{}.bias", node.name)).or_insert_with(zeros);
        }
    }
    Ok((biased, weights))
}

fn with_bias(op: &Op) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Conv(conv) => conv.bias = true,
        Op::Linear { bias, .. } => *bias = true,
        _ => {}
    }
    op
}

/// Moves the numbers of BatchNorm `norm` into those of `layer`, whose weights the graph has checked.
fn draw_in(weights: &mut Weights, layer: &str, norm: &str, eps: f32) {
    let mut take = |name: String| weights.remove(&name);
    let [gamma, beta, mean, var] = ["gamma", "beta", "mean", "var"]
        .map(|part| take(format!("{norm}.{part}")).map(|tensor| tensor.to_f32()).unwrap_or_default());
    let bias = take(format!("{layer}.bias")).map_or(vec![0.0; gamma.len()], |tensor| tensor.to_f32());
    let name = format!("{layer}.weight");
    let Some(weight) = take(name.clone()) else { return };
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(var[c]) + f64::from(eps)).sqrt();
    let shift =
        |c: usize| (f64::from(beta[c]) + (f64::from(bias[c]) - f64::from(mean[c])) * factor(c)) as f32;
    let mut values = weight.to_f32();
    let each = values.len() / gamma.len();
    for (c, row) in values.chunks_exact_mut(each).enumerate() {
        let factor = factor(c) as f32;
        row.iter_mut().for_each(|w| *w *= factor);
    }
    let shifts = (0..gamma.len()).map(shift).collect();
    weights.insert(name, Tensor::f32(&weight.shape, values));
    weights.insert(format!("{layer}.bias"), Tensor::f32(&[gamma.len()], shifts));
}

#[cfg(test)]
mod tests {
    use penjing_runtime::{Isa, PlanBuf, Serial, Session};

    use super::*;
    use crate::{
        random::SplitMix64,
        zoo::{self, ARCHS, Config},
    };

    /// With normalizations that change something, each channel otherwise.
    fn uneven(mut weights: Weights) -> Weights {
        let mut random = SplitMix64::new(5);
        for (name, tensor) in &mut weights {
            let least = match name.rsplit_once('.').map_or("", |(_, suffix)| suffix) {
                "gamma" | "var" => 0.5,
                "beta" | "mean" => -0.5,
                _ => continue,
            };
            let values = (0..tensor.len()).map(|_| least + random.uniform() as f32).collect();
            *tensor = Tensor::f32(&tensor.shape.clone(), values);
        }
        weights
    }

    #[test]
    fn folded_networks_compute_the_same() {
        for arch in ARCHS {
            let config = Config { size: 64, ..arch.config(7) };
            let graph = arch.graph(&config).unwrap();
            let weights = uneven(zoo::random_weights(&graph, 3));
            let (folded, kept) = fold(&graph, &weights).unwrap();
            assert!(!folded.nodes().iter().any(|node| matches!(node.op, Op::Dropout { .. })));
            let input: Vec<f32> =
                (0..64 * 64 * 3).map(|i| ((i * 7919 % 257) as f32 - 128.0) / 64.0).collect();
            let [before, after] = [(&graph, &weights), (&folded, &kept)].map(|(graph, weights)| {
                let plan = PlanBuf::lower(graph, weights, 1).unwrap();
                let mut session = Session::new(plan.into(), Isa::detect());
                session.input().copy_from_slice(&input);
                session.run(&Serial).to_vec()
            });
            // Lowering folds by the same arithmetic.
            assert_eq!(before, after, "{}", arch.name);
        }
    }

    #[test]
    fn a_norm_that_others_read_before_stays() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 2, 2, 3] }, &[]).unwrap();
        let a = graph.push("a", Op::BatchNorm { eps: 1e-3 }, &[x]).unwrap();
        let b = graph.push("b", Op::Conv(penjing_runtime::op::Conv::new(3, 1, 1)), &[a]).unwrap();
        let c = graph.push("c", Op::BatchNorm { eps: 1e-3 }, &[b]).unwrap();
        graph.push("d", Op::Add, &[b, c]).unwrap();
        let weights = zoo::random_weights(&graph, 3);
        let (folded, kept) = fold(&graph, &weights).unwrap();
        assert!(folded == graph && kept == weights);
    }
}
