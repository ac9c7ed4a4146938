//! Weights of a network that has not learnt anything.

use penjing_runtime::{
    graph::{Graph, Node},
    op::Op,
    tensor::{Tensor, Weights},
};

use crate::random::SplitMix64;

/// Standard deviation of a linear layer's first weights.
const LINEAR_DEVIATION: f64 = 0.01;

/// First weights for training from scratch: He normal (He et al., arXiv 1502.01852) by the fan-out of a group for
/// convolutions, N(0, 0.01²) for linear layers, biases 0, normalizations the identity.
///
/// All values come from one stream in the order of [`Graph::parameters`], so another number of classes changes the
/// classifier only. Right for a network with BatchNorm: without it, nothing keeps the scale of its maps.
pub fn fresh_weights(graph: &Graph, seed: u64) -> Weights {
    let mut random = SplitMix64::new(seed);
    let mut weights = Weights::new();
    for node in graph.nodes() {
        let input = node.inputs.first().map_or(node.shape, |&id| graph.shape(id));
        for (suffix, shape) in node.op.parameters(input) {
            let count = shape.iter().product();
            let values = match suffix {
                "weight" => {
                    let deviation = deviation(node, &shape);
                    (0..count).map(|_| (random.normal() * deviation) as f32).collect()
                }
                _ => at_rest(suffix, count),
            };
            weights.insert(format!("{}.{suffix}", node.name), Tensor::f32(&shape, values));
        }
    }
    weights
}

/// Of the weights `[O, kh, kw, I / groups]` of a convolution, or of those of a linear layer.
fn deviation(node: &Node, shape: &[usize]) -> f64 {
    match &node.op {
        Op::Conv(conv) => {
            let fan_out = shape[0] / conv.groups * shape[1] * shape[2];
            (2.0 / fan_out as f64).sqrt()
        }
        _ => LINEAR_DEVIATION,
    }
}

/// Random weights that keep the scale of maps from the image to the logits (He et al., uniform, by fan-in), for
/// measuring speed and for comparing implementations.
///
/// Normalizations are the identity. Nothing but exact arithmetic is used: the same seed gives the same weights
/// everywhere, in NumPy too.
pub fn random_weights(graph: &Graph, seed: u64) -> Weights {
    let mut random = SplitMix64::new(seed);
    // 24 bits each, −1..1.
    let mut uniform = move || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let mut tensor = |name: &str, shape: &[usize]| {
        let count = shape.iter().product();
        let values = match name.rsplit_once('.').map_or("", |(_, suffix)| suffix) {
            "weight" => {
                let fan_in: usize = shape[1..].iter().product();
                let bound = (6.0 / fan_in as f32).sqrt();
                (0..count).map(|_| uniform() * bound).collect()
            }
            suffix => at_rest(suffix, count),
        };
        Tensor::f32(shape, values)
    };
    graph.parameters().into_iter().map(|(name, shape)| (name.clone(), tensor(&name, &shape))).collect()
}

/// Biases of 0, and normalizations that change nothing.
fn at_rest(suffix: &str, count: usize) -> Vec<f32> {
    vec![if matches!(suffix, "gamma" | "var") { 1.0 } else { 0.0 }; count]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::Arch;

    fn graph(name: &str, classes: usize) -> Graph {
        let (arch, width) = Arch::named(name).unwrap();
        arch.graph(&crate::zoo::Config { width, size: 64, ..arch.config(classes) }).unwrap()
    }

    #[test]
    fn fresh_weights_have_the_mean_and_variance_of_he_et_al() {
        let graph = graph("mobilenet_v2", 1000);
        let weights = fresh_weights(&graph, 7);
        graph.check(&weights).unwrap();
        // The stem gives 32 maps by 3×3; a channel of a depthwise layer gives one.
        for (name, variance) in [
            ("stem.weight", 2.0 / (32.0 * 9.0)),
            ("blocks.16.depthwise.weight", 2.0 / 9.0),
            ("blocks.16.expand.weight", 2.0 / 960.0),
            ("blocks.16.project.weight", 2.0 / 320.0),
            ("head.weight", 2.0 / 1280.0),
            ("classifier.weight", 1e-4),
        ] {
            let values = weights[name].to_f32();
            let count = values.len() as f64;
            let moment = |power| values.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / count;
            // Five standard errors of the mean, and of the variance of normal values.
            assert!(moment(1).abs() < 5.0 * (variance / count).sqrt(), "{name}: mean {}", moment(1));
            let off = (moment(2) / variance - 1.0).abs();
            assert!(off < 5.0 * (2.0 / count).sqrt(), "{name}: {} of the variance {variance}", moment(2));
        }
    }

    #[test]
    fn fresh_biases_and_normalizations_are_at_rest() {
        for (name, tensor) in fresh_weights(&graph("mobilenet_v1_x0.25", 3), 1) {
            let expected = match name.rsplit('.').next() {
                Some("weight") => continue,
                Some("gamma" | "var") => 1.0,
                _ => 0.0,
            };
            assert!(tensor.to_f32().iter().all(|&value| value == expected), "{name}");
        }
    }

    #[test]
    fn fresh_weights_follow_from_the_seed() {
        let graph_of_3 = graph("mobilenet_v1_x0.25", 3);
        let weights = fresh_weights(&graph_of_3, 1);
        assert!(weights == fresh_weights(&graph_of_3, 1));
        let others = fresh_weights(&graph("mobilenet_v1_x0.25", 4), 1);
        let another_seed = fresh_weights(&graph_of_3, 2);
        for (name, tensor) in weights.iter().filter(|(name, _)| name.ends_with(".weight")) {
            assert_eq!(*tensor == others[name], name != "classifier.weight", "{name}");
            assert!(*tensor != another_seed[name], "{name}");
        }
    }
}
