//! Graphs that grow at random, and random weights for them: for tests of whatever computes a graph.

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::{Act, AvgPool, Conv, Op, Pool, Shape},
    tensor::{Tensor, Weights},
};

/// The generator of Steele, Lea and Flood (2014).
pub struct SplitMix(pub u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// −1..1.
    fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }
}

/// Values of a tensor.
pub fn size(shape: Shape) -> usize {
    shape.iter().product()
}

/// A graph that grows at random: mostly from its newest node, so that there is something to fuse, now and then from an
/// older one, so that there is something that must not be fused.
pub fn random_graph(random: &mut SplitMix) -> Graph {
    let mut graph = Graph::default();
    let side = 3 + random.below(7);
    let channels = random.pick(&[1, 3, 4, 8, 17]);
    let shape = [1, side, side + random.below(3), channels];
    let mut last = graph.push("input", Op::Input { shape }, &[]).unwrap();
    let length = 3 + random.below(14);
    while graph.nodes().len() < length {
        let from = if random.below(5) == 0 { random_node(random, &graph) } else { last };
        if let Some(next) = grow(random, &mut graph, from) {
            last = next;
        }
    }
    graph
}

fn random_node(random: &mut SplitMix, graph: &Graph) -> NodeId {
    let index = random.below(graph.nodes().len());
    graph.iter().nth(index).unwrap().0
}

/// Another node with a result of this kind, the newest first half of the time.
fn like(random: &mut SplitMix, graph: &Graph, fits: impl Fn(Shape) -> bool) -> Option<NodeId> {
    let all: Vec<NodeId> = graph.iter().filter(|(_, node)| fits(node.shape)).map(|(id, _)| id).collect();
    if all.is_empty() { None } else { Some(random.pick(&all)) }
}

fn random_pool(random: &mut SplitMix) -> Pool {
    let kernel = [1 + random.below(3), 1 + random.below(3)];
    let [v, h] = kernel.map(|extent| extent / 2 + 1);
    let padding = [random.below(v), random.below(v), random.below(h), random.below(h)];
    Pool { kernel, stride: [1 + random.below(3), 1 + random.below(3)], padding, ceil_mode: random.coin() }
}

fn random_conv(random: &mut SplitMix, channels: usize) -> Conv {
    let groups = match random.below(4) {
        0 | 1 => 1,
        2 => channels,
        _ => (1..=channels).rev().find(|g| channels.is_multiple_of(*g) && *g <= channels / 2).unwrap_or(1),
    };
    let out_channels = match random.below(3) {
        0 => channels,
        _ => groups * (1 + random.below(3)),
    };
    let square = random.coin();
    let kernel =
        if square { [random.pick(&[1, 1, 3]); 2] } else { [1 + random.below(4), 1 + random.below(4)] };
    Conv {
        out_channels,
        kernel,
        stride: if random.below(3) == 0 { [1 + random.below(2), 1 + random.below(3)] } else { [1; 2] },
        padding: if kernel == [1, 1] && random.below(4) > 0 {
            [0; 4]
        } else {
            // Now and then wider than the kernel, so that some windows see nothing but padding.
            let most = if random.below(6) == 0 { 6 } else { 3 };
            [0; 4].map(|_| random.below(most))
        },
        dilation: if random.below(4) == 0 { [1 + random.below(2), 1 + random.below(2)] } else { [1; 2] },
        groups,
        bias: random.coin(),
    }
}

/// Appends one random operation, if it fits.
fn grow(random: &mut SplitMix, graph: &mut Graph, from: NodeId) -> Option<NodeId> {
    let [n, h, w, c] = graph.shape(from);
    let acts = [
        Act::None,
        Act::Relu,
        Act::Relu6,
        Act::LeakyRelu(0.25),
        Act::HSwish,
        Act::HSigmoid,
        Act::Sigmoid,
        Act::Silu,
    ];
    let mut inputs = vec![from];
    let op = match random.below(24) {
        0..=6 => Op::Conv(random_conv(random, c)),
        7..=9 => Op::BatchNorm { eps: 1e-3 },
        10..=12 => Op::Act(random.pick(&acts)),
        13..=15 => {
            inputs.push(like(random, graph, |shape| shape == [n, h, w, c])?);
            if random.coin() {
                inputs.reverse();
            }
            Op::Add
        }
        16 => {
            inputs.push(like(random, graph, |shape| shape == [n, h, w, c] || shape == [n, 1, 1, c])?);
            Op::Mul
        }
        17 => {
            for _ in 0..random.below(3) {
                inputs.push(like(random, graph, |shape| shape[..3] == [n, h, w])?);
            }
            Op::Concat
        }
        18 => {
            let start = random.below(c);
            Op::Slice { start, len: 1 + random.below(c - start) }
        }
        19 => Op::ChannelShuffle { groups: 1 + random.below(c.min(4)) },
        20 => Op::Pad { padding: [0; 4].map(|_| random.below(3)) },
        21 => match random.below(3) {
            0 => Op::MaxPool(random_pool(random)),
            1 => Op::AvgPool(AvgPool { window: random_pool(random), count_include_pad: random.coin() }),
            _ => Op::GlobalAvgPool,
        },
        22 => random.pick(&[Op::Softmax, Op::Dropout { rate: 0.5 }]),
        _ if [h, w] == [1, 1] => Op::Linear { out_features: 1 + random.below(9), bias: random.coin() },
        _ => Op::Flatten,
    };
    let name = format!("n{}", graph.nodes().len());
    let id = graph.push(&name, op, &inputs).ok()?;
    assert!(size(graph.shape(id)) < 1 << 20);
    Some(id)
}

/// Weights that keep the magnitude of what goes through.
pub fn random_weights(random: &mut SplitMix, graph: &Graph) -> Weights {
    let mut tensor = |(name, shape): (String, Vec<usize>)| {
        let mut values = random.values(shape.iter().product());
        if name.ends_with(".var") {
            values.iter_mut().for_each(|v| *v = 1.0 + *v / 2.0);
        }
        if name.ends_with(".weight") {
            let fan_in: usize = shape[1..].iter().product();
            values.iter_mut().for_each(|v| *v *= (3.0 / fan_in as f32).sqrt());
        }
        (name, Tensor::f32(&shape, values))
    };
    graph.parameters().into_iter().map(&mut tensor).collect()
}
