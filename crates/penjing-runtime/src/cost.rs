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
