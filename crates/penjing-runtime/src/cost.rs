//! What a network costs: parameters and arithmetic per layer. Peak memory is the [plan](crate::plan)'s to say.

use alloc::{string::String, vec::Vec};

use crate::{
    graph::Graph,
    op::{Shape, count},
};

/// One layer's share.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize))]
pub struct LayerCost {
    /// The layer's name.
    pub name: String,
    /// Its operation's name.
    pub op: &'static str,
    /// Shape of its result, `[N, H, W, C]`.
    pub shape: Shape,
    /// Number of trained values (BatchNorm: scale and shift, not the statistics).
    pub params: u64,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

/// The cost of every layer, in graph order.
pub fn layers(graph: &Graph) -> Vec<LayerCost> {
    let cost = |node: &crate::graph::Node| {
        let input = node.inputs.first().map_or(node.shape, |&id| graph.shape(id));
        let trained =
            node.op.parameters(input).into_iter().filter(|(suffix, _)| !matches!(*suffix, "mean" | "var"));
        LayerCost {
            name: node.name.clone(),
            op: node.op.name(),
            shape: node.shape,
            params: trained.fold(0, |sum: u64, (_, shape)| sum.saturating_add(count(&shape))),
            macs: node.op.macs(input, node.shape),
        }
    };
    graph.nodes().iter().map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Conv, Op};

    #[test]
    fn statistics_are_no_parameters_and_activations_cost_nothing() {
        let mut graph = Graph::default();
        let x = graph.push("image", Op::Input { shape: [2, 8, 8, 4] }, &[]).unwrap();
        let conv = Conv { groups: 2, bias: true, ..Conv::new(6, 3, 1) };
        let x = graph.push("conv", Op::Conv(conv), &[x]).unwrap();
        let x = graph.push("bn", Op::BatchNorm { eps: 1e-3 }, &[x]).unwrap();
        let x = graph.push("pool", Op::GlobalAvgPool, &[x]).unwrap();
        graph.push("head", Op::Linear { out_features: 5, bias: true }, &[x]).unwrap();
        let costs: Vec<_> =
            layers(&graph).into_iter().map(|layer| (layer.op, layer.params, layer.macs)).collect();
        assert_eq!(
            costs,
            [
                ("input", 0, 0),
                ("conv", 6 * 9 * 2 + 6, 2 * 6 * 6 * 6 * 9 * 2),
                ("batch_norm", 12, 0),
                ("global_avg_pool", 0, 0),
                ("linear", 35, 2 * 30),
            ]
        );
    }

    #[test]
    fn a_filter_larger_than_any_number_counts_as_the_greatest() {
        let mut graph = Graph::default();
        let x = graph.push("image", Op::Input { shape: [1, 1, 1, 1 << 28] }, &[]).unwrap();
        let conv = Conv { padding: [4095, 0, 4095, 0], ..Conv::new(1 << 28, 4096, 1) };
        graph.push("conv", Op::Conv(conv), &[x]).unwrap();
        assert_eq!(layers(&graph)[1].params, u64::MAX);
        assert_eq!(layers(&graph)[1].macs, u64::MAX);
    }
}
