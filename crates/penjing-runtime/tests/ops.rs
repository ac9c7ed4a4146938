//! Every operation, lowered and executed, against PyTorch (`scripts/goldens/ops.py`).
#![cfg(feature = "file")]

use penjing_runtime::{
    Isa, PlanBuf, Serial, Session,
    graph::{Graph, NodeId},
    op::{Act, AvgPool, Conv, Op, Pool},
    tensor::{Tensor, Weights},
};
use safetensors::SafeTensors;

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/ops.safetensors");
        Golden { bytes: std::fs::read(path).expect("the golden file is in the repository") }
    }

    fn get(&self, name: &str) -> Tensor {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no golden `{name}`"));
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        Tensor::f32(view.shape(), values)
    }

    fn weights(&self, case: &str) -> Weights {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let prefix = format!("{case}.");
        let of_case = file.names().into_iter().filter_map(|name| name.strip_prefix(&prefix));
        let names: Vec<String> =
            of_case.filter(|name| !matches!(*name, "x" | "y" | "other")).map(str::to_string).collect();
        names.into_iter().map(|name| (name.clone(), self.get(&format!("{case}.{name}")))).collect()
    }
}

/// Largest difference between the executed graph and the golden, relative to the golden's largest value.
fn difference(graph: &Graph, weights: &Weights, x: &[f32], y: &Tensor, isa: Isa) -> f32 {
    let plan = PlanBuf::lower(graph, weights, 1).unwrap_or_else(|error| panic!("{error}"));
    let mut session = Session::new(plan.into(), isa);
    session.input().copy_from_slice(x);
    // Twice: nothing may be left in the arena that changes the second answer.
    let first = session.run(&Serial).to_vec();
    session.input().copy_from_slice(x);
    assert_eq!(first, session.run(&Serial));
    let y = y.to_f32();
    assert_eq!(first.len(), y.len());
    let largest = y.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    first.iter().zip(&y).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn check(case: &str, build: impl Fn(&mut Graph, NodeId) -> NodeId) {
    let golden = Golden::open();
    let (x, y) = (golden.get(&format!("{case}.x")), golden.get(&format!("{case}.y")));
    let mut graph = Graph::default();
    let shape = x.shape.clone().try_into().unwrap();
    let input = graph.push("input", Op::Input { shape }, &[]).unwrap();
    let output = build(&mut graph, input);
    assert_eq!(graph.shape(output).to_vec(), y.shape, "{case}");
    let weights: Weights = golden
        .weights(case)
        .into_iter()
        .map(|(name, tensor)| (if name.contains('.') { name } else { format!("{case}.{name}") }, tensor))
        .collect();
    for isa in Isa::available() {
        let difference = difference(&graph, &weights, &x.to_f32(), &y, isa);
        assert!(difference < 2e-5, "{case} on {}: differs by {difference}", isa.name());
    }
}

fn one(case: &str, op: Op) {
    check(case, |graph, x| graph.push(case, op.clone(), &[x]).unwrap());
}

fn conv(case: &str, out: usize, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 4], groups: usize) {
    let conv = Conv { out_channels: out, kernel, stride, padding, dilation: [1; 2], groups, bias: true };
    one(case, Op::Conv(conv));
}

#[test]
fn convolutions() {
    conv("pointwise", 10, [1, 1], [1, 1], [0; 4], 1);
    conv("dense_same", 5, [3, 3], [2, 2], [0, 1, 1, 1], 1);
    conv("dense_uneven", 20, [2, 4], [1, 2], [1, 0, 0, 3], 1);
    conv("grouped", 9, [3, 3], [1, 1], [1; 4], 3);
    conv("depthwise3", 6, [3, 3], [1, 1], [1; 4], 6);
    conv("depthwise5_s2", 6, [5, 5], [2, 2], [1, 2, 2, 2], 6);
    conv("depthwise_multiplier", 12, [3, 3], [1, 1], [1; 4], 6);
    let dilated = Conv { padding: [2; 4], dilation: [2; 2], bias: true, ..Conv::new(4, 3, 1) };
    one("dilated", Op::Conv(dilated));
}

#[test]
fn normalization_and_activations() {
    one("batch_norm", Op::BatchNorm { eps: 1e-3 });
    one("relu", Op::Act(Act::Relu));
    one("relu6", Op::Act(Act::Relu6));
    one("leaky_relu", Op::Act(Act::LeakyRelu(0.1)));
    one("h_swish", Op::Act(Act::HSwish));
    one("h_sigmoid", Op::Act(Act::HSigmoid));
    one("sigmoid", Op::Act(Act::Sigmoid));
    one("silu", Op::Act(Act::Silu));
    one("softmax", Op::Softmax);
}

#[test]
fn pooling() {
    for (name, kernel, stride, padding, ceil_mode) in [
        ("pool3_s2", 3, 2, 0, false),
        ("pool3_s2_ceil", 3, 2, 0, true),
        ("pool3_s2_pad_ceil", 3, 2, 1, true),
        ("pool2_s3_ceil", 2, 3, 1, true),
    ] {
        let window = Pool { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 4], ceil_mode };
        one(&format!("max_{name}"), Op::MaxPool(window.clone()));
        let average = |count_include_pad| Op::AvgPool(AvgPool { window: window.clone(), count_include_pad });
        one(&format!("avg_{name}"), average(false));
        one(&format!("avg_{name}_counted"), average(true));
    }
    one("global_avg_pool", Op::GlobalAvgPool);
}

#[test]
fn layout() {
    one("channel_shuffle", Op::ChannelShuffle { groups: 3 });
    one("pad", Op::Pad { padding: [1, 2, 3, 0] });
    check("flatten_linear", |graph, x| {
        let x = graph.push("flat", Op::Flatten, &[x]).unwrap();
        let x = graph.push("dropout", Op::Dropout { rate: 0.5 }, &[x]).unwrap();
        graph.push("flatten_linear", Op::Linear { out_features: 11, bias: true }, &[x]).unwrap()
    });
}

/// Operations of two inputs: `other` comes in as the bias of a convolution that is otherwise zero, so that a graph of
/// one input serves; maps therefore are joined along the channels first.
fn two_inputs(case: &str, build: impl Fn(&mut Graph, NodeId, NodeId) -> NodeId) {
    let golden = Golden::open();
    let (x, other) = (golden.get(&format!("{case}.x")), golden.get(&format!("{case}.other")));
    let y = golden.get(&format!("{case}.y"));
    let [n, h, w, c] = x.shape[..] else { panic!("four axes") };
    let c2 = other.shape[3];
    let (xs, others) = (x.to_f32(), other.to_f32());
    let whole = other.shape[1] == h;
    let mut joined = Vec::new();
    for pixel in 0..n * h * w {
        joined.extend_from_slice(&xs[pixel * c..][..c]);
        let at = if whole { pixel } else { pixel / (h * w) };
        joined.extend_from_slice(&others[at * c2..][..c2]);
    }
    let mut graph = Graph::default();
    let input = graph.push("input", Op::Input { shape: [n, h, w, c + c2] }, &[]).unwrap();
    let a = graph.push("a", Op::Slice { start: 0, len: c }, &[input]).unwrap();
    let mut b = graph.push("b", Op::Slice { start: c, len: c2 }, &[input]).unwrap();
    if !whole {
        b = graph.push("b_mean", Op::GlobalAvgPool, &[b]).unwrap();
    }
    let output = build(&mut graph, a, b);
    assert_eq!(graph.shape(output).to_vec(), y.shape, "{case}");
    for isa in Isa::available() {
        let difference = difference(&graph, &Weights::new(), &joined, &y, isa);
        assert!(difference < 2e-5, "{case} on {}: differs by {difference}", isa.name());
    }
}

#[test]
fn two_edges_meet() {
    two_inputs("add_relu", |graph, a, b| {
        let sum = graph.push("sum", Op::Add, &[a, b]).unwrap();
        graph.push("act", Op::Act(Act::Relu), &[sum]).unwrap()
    });
    two_inputs("mul", |graph, a, b| graph.push("mul", Op::Mul, &[a, b]).unwrap());
    two_inputs("scale_channels", |graph, a, b| graph.push("mul", Op::Mul, &[a, b]).unwrap());
    two_inputs("concat_slice", |graph, a, b| {
        let part = graph.push("part", Op::Slice { start: 1, len: 3 }, &[a]).unwrap();
        let joined = graph.push("joined", Op::Concat, &[a, b, part]).unwrap();
        graph.push("cut", Op::Slice { start: 4, len: 10 }, &[joined]).unwrap()
    });
}

#[test]
fn a_block_with_everything_fused() {
    check("block", |graph, x| {
        let conv_bn = |graph: &mut Graph, name: &str, x, out, kernel: usize, groups| {
            let padding = [kernel / 2; 4];
            let conv = Conv { padding, groups, ..Conv::new(out, kernel, 1) };
            let y = graph.push(name, Op::Conv(conv), &[x]).unwrap();
            graph.push(&format!("{name}.bn"), Op::BatchNorm { eps: 1e-5 }, &[y]).unwrap()
        };
        let y = conv_bn(graph, "expand", x, 24, 1, 1);
        let y = graph.push("act1", Op::Act(Act::Relu6), &[y]).unwrap();
        let y = conv_bn(graph, "depthwise", y, 24, 3, 24);
        let y = graph.push("act2", Op::Act(Act::Relu6), &[y]).unwrap();
        let y = conv_bn(graph, "project", y, 8, 1, 1);
        let y = graph.push("sum", Op::Add, &[y, x]).unwrap();
        let gate = graph.push("squeeze", Op::GlobalAvgPool, &[y]).unwrap();
        let gate_conv = Conv { bias: true, ..Conv::new(8, 1, 1) };
        let gate = graph.push("gate", Op::Conv(gate_conv), &[gate]).unwrap();
        let gate = graph.push("gate_act", Op::Act(Act::HSigmoid), &[gate]).unwrap();
        graph.push("scaled", Op::Mul, &[y, gate]).unwrap()
    });
}

#[test]
fn the_textbook_separable_layer() {
    check("separable", |graph, x| {
        let depthwise = Conv { padding: [1; 4], groups: 3, bias: true, ..Conv::new(3, 3, 1) };
        let x = graph.push("depthwise", Op::Conv(depthwise), &[x]).unwrap();
        graph.push("pointwise", Op::Conv(Conv { bias: true, ..Conv::new(16, 1, 1) }), &[x]).unwrap()
    });
}
