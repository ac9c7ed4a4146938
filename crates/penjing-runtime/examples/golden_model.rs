//! Writes the tiny model behind `tests/goldens/vN.penjing`, which holds every operation and every activation once:
//! run it when the format's version changes, and keep the files of earlier versions as they are.
//!
//!     cargo run -p penjing-runtime --example golden_model -- crates/penjing-runtime/tests/goldens/v1.penjing

use penjing_runtime::{
    Error,
    file::{Calibration, Model, Provenance},
    graph::{Graph, NodeId},
    op::{Act, AvgPool, Conv, Op, Pool},
    pixels::{Color, DecodeRule, Filter, Fit, Pixels},
    tensor::{Tensor, Weights},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: golden_model FILE")?;
    let graph = graph()?;
    let weights = weights(&graph);
    let model = Model {
        arch: "golden".into(),
        graph,
        weights,
        pixels: Pixels {
            height: 12,
            width: 10,
            color: Color::Rgb,
            fit: Fit::Crop { short: 11 },
            filter: Filter::Bicubic,
            mean: [123.5, 117.0, 104.25],
            std: [58.5, 57.0, 57.25],
            decode: DecodeRule::Full,
        },
        labels: ["ash", "birch \"white\"", "盆景"].map(String::from).to_vec(),
        calibration: Calibration { temperature: 1.25 },
        provenance: Provenance {
            penjing: "0.1.0".into(),
            backbone: "random numbers".into(),
            license: "MIT OR Apache-2.0".into(),
            backbone_hash: "0".repeat(64),
            recipe: vec!["made by examples/golden_model.rs".into()],
            data_hash: Some("1".repeat(64)),
            seed: Some(7),
            val_top1: Some(0.8125),
        },
    };
    std::fs::write(path, model.to_half().to_bytes()?)?;
    Ok(())
}

fn graph() -> Result<Graph, Error> {
    let mut graph = Graph::default();
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| graph.push(name, op, inputs);
    let image = push("image", Op::Input { shape: [1, 12, 10, 3] }, &[])?;
    let stem = Conv { padding: [0, 1, 1, 0], ..Conv::new(8, 3, 2) };
    let x = push("stem.conv", Op::Conv(stem), &[image])?;
    let x = push("stem.bn", Op::BatchNorm { eps: 1e-3 }, &[x])?;
    let stem = push("stem.act", Op::Act(Act::Relu6), &[x])?;
    let depthwise = Conv { padding: [2; 4], dilation: [2; 2], groups: 8, ..Conv::new(8, 3, 1) };
    let x = push("block.depthwise", Op::Conv(depthwise), &[stem])?;
    let x = push("block.bn", Op::BatchNorm { eps: 1e-5 }, &[x])?;
    let x = push("block.act", Op::Act(Act::HSwish), &[x])?;
    let x = push("block.pointwise", Op::Conv(Conv { bias: true, ..Conv::new(8, 1, 1) }), &[x])?;
    let block = push("block.add", Op::Add, &[x, stem])?;
    let x = push("gate.pool", Op::GlobalAvgPool, &[block])?;
    let x = push("gate.reduce", Op::Conv(Conv { bias: true, ..Conv::new(4, 1, 1) }), &[x])?;
    let x = push("gate.silu", Op::Act(Act::Silu), &[x])?;
    let x = push("gate.expand", Op::Conv(Conv { bias: true, ..Conv::new(8, 1, 1) }), &[x])?;
    let x = push("gate.h_sigmoid", Op::Act(Act::HSigmoid), &[x])?;
    let gated = push("gate.mul", Op::Mul, &[block, x])?;
    let left = push("split.left", Op::Slice { start: 0, len: 4 }, &[gated])?;
    let right = push("split.right", Op::Slice { start: 4, len: 4 }, &[gated])?;
    let left = push("left.leaky", Op::Act(Act::LeakyRelu(0.125)), &[left])?;
    let grouped = Conv { padding: [1; 4], groups: 2, bias: true, ..Conv::new(4, 3, 1) };
    let right = push("right.conv", Op::Conv(grouped), &[right])?;
    let right = push("right.sigmoid", Op::Act(Act::Sigmoid), &[right])?;
    let right = push("right.softmax", Op::Softmax, &[right])?;
    let x = push("join", Op::Concat, &[left, right, right])?;
    let x = push("shuffle", Op::ChannelShuffle { groups: 3 }, &[x])?;
    let x = push("pad", Op::Pad { padding: [0, 1, 0, 2] }, &[x])?;
    let window = Pool { kernel: [3, 2], stride: [2; 2], padding: [1; 4], ceil_mode: true };
    let x = push("max_pool", Op::MaxPool(window.clone()), &[x])?;
    let x = push("none", Op::Act(Act::None), &[x])?;
    let window = Pool { padding: [1, 0, 1, 0], ..window };
    let x = push("avg_pool", Op::AvgPool(AvgPool { window, count_include_pad: false }), &[x])?;
    let x = push("relu", Op::Act(Act::Relu), &[x])?;
    let x = push("flatten", Op::Flatten, &[x])?;
    let x = push("dropout", Op::Dropout { rate: 0.25 }, &[x])?;
    push("head", Op::Linear { out_features: 3, bias: true }, &[x])?;
    Ok(graph)
}

/// From SplitMix64: variances in 0.5..1.5, everything else in ±1.
fn weights(graph: &Graph) -> Weights {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let positive = name.ends_with(".var");
        let values = (0..shape.iter().product()).map(|_| if positive { 1.0 + next() / 2.0 } else { next() });
        let values = values.collect();
        (name, Tensor::f32(&shape, values))
    };
    graph.parameters().into_iter().map(tensor).collect()
}
