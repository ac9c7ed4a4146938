//! How a classifier from elsewhere ends, in penjing's terms: features, a linear layer, logits.

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::{Conv, Op},
    tensor::{Tensor, Weights},
};

use super::What;

/// The same classifier with logits as its result: a closing softmax is left out (probabilities are made from logits and a
/// temperature), and where a 1×1 convolution of a single pixel comes last, it is the linear layer that it is.
pub(super) fn with_logits(graph: &Graph, mut weights: Weights) -> What<(Graph, Weights)> {
    let nodes = graph.nodes();
    let by_itself = |op: &Op| matches!(op, Op::Softmax | Op::Flatten | Op::Dropout { .. });
    // Only what passes a vector on and is read by the next alone can be left out at the end.
    let mut end = nodes.len();
    while end > 1 && by_itself(&nodes[end - 1].op) && nodes[end - 1].shape == nodes[end - 2].shape {
        end -= 1;
    }
    let mut made = Graph::default();
    let mut ids: Vec<NodeId> = Vec::with_capacity(end);
    for (at, node) in nodes[..end].iter().enumerate() {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|id| ids[id.index()]).collect();
        let mut op = node.op.clone();
        if at + 1 == end
            && let Op::Conv(Conv { out_channels, kernel: [1, 1], stride, padding, groups: 1, bias, .. }) =
                &node.op
            && (*stride, *padding) == ([1, 1], [0; 4])
            && node.shape[1..3] == [1, 1]
        {
            let name = format!("{}.weight", node.name);
            let weight = weights.remove(&name).ok_or_else(|| format!("`{name}` is missing"))?;
            let shape = vec![*out_channels, weight.len() / out_channels];
            weights.insert(name, Tensor { shape, data: weight.data });
            op = Op::Linear { out_features: *out_channels, bias: *bias };
        }
        ids.push(made.push(&node.name, op, &inputs).map_err(|error| error.to_string())?);
    }
    Ok((made, weights))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_of_one_pixel_is_a_linear_layer_and_the_softmax_goes() {
        let mut graph = Graph::default();
        let mut x = graph.push("image", Op::Input { shape: [1, 4, 4, 3] }, &[]).unwrap();
        x = graph.push("pool", Op::GlobalAvgPool, &[x]).unwrap();
        x = graph.push("logits", Op::Conv(Conv { bias: true, ..Conv::new(5, 1, 1) }), &[x]).unwrap();
        x = graph.push("flat", Op::Flatten, &[x]).unwrap();
        graph.push("softmax", Op::Softmax, &[x]).unwrap();
        let values: Vec<f32> = (0..15).map(|i| i as f32).collect();
        let weights = Weights::from([
            ("logits.weight".to_string(), Tensor::f32(&[5, 1, 1, 3], values.clone())),
            ("logits.bias".to_string(), Tensor::f32(&[5], vec![0.0; 5])),
        ]);
        let (graph, weights) = with_logits(&graph, weights).unwrap();
        graph.check(&weights).unwrap();
        let (last, features) = graph.classifier().expect("the last layer is linear");
        assert_eq!((graph.node(last).name.as_str(), graph.node(features).name.as_str()), ("logits", "pool"));
        assert_eq!(weights["logits.weight"], Tensor::f32(&[5, 3], values));
    }
}
