//! Quantization-aware training, from photos to a network in 8 bits.

mod split_mix;
mod tinted;

use std::path::Path;

use penjing::{
    Error,
    compress::{
        self, Gate, Ranging, grid,
        observe::observe,
        ptq::{self, Rounding},
        qat::{self, When},
    },
    data::Dataset,
    progress::{Progress, Quiet},
    threads::Threads,
    train::{
        parameters::Parameters,
        tape::{Policy, Statistics, Tape},
    },
    zoo,
};
use penjing_runtime::{
    Isa, PlanBuf, Serial, Session,
    file::Model,
    graph::Graph,
    op::{Act, Op},
    tensor::{Tensor, Weights},
};
use tinted::{Enough, conv, learnt, oblong, photos, uniform};

/// All that a MobileNetV3 has: depthwise layers, hard swish, squeeze and excitation, a residual sum.
fn mobile() -> (Graph, Weights) {
    let mut graph = Graph::default();
    let mut push = |name: &str, op, inputs: &[_]| graph.push(name, op, inputs).unwrap();
    let x = push("x", Op::Input { shape: [1, 16, 16, 3] }, &[]);
    let stem = push("stem", conv(8, 3, 2, 1), &[x]);
    let stem = push("stem.act", Op::Act(Act::HSwish), &[stem]);
    let wide = push("wide", conv(16, 1, 1, 1), &[stem]);
    let wide = push("wide.act", Op::Act(Act::Relu6), &[wide]);
    let deep = push("deep", conv(16, 3, 1, 16), &[wide]);
    let deep = push("deep.act", Op::Act(Act::HSwish), &[deep]);
    let squeeze = push("squeeze", Op::GlobalAvgPool, &[deep]);
    let reduce = push("reduce", conv(4, 1, 1, 1), &[squeeze]);
    let reduce = push("reduce.act", Op::Act(Act::Relu), &[reduce]);
    let expand = push("expand", conv(16, 1, 1, 1), &[reduce]);
    let gate = push("gate", Op::Act(Act::HSigmoid), &[expand]);
    let excite = push("excite", Op::Mul, &[deep, gate]);
    let narrow = push("narrow", conv(8, 1, 1, 1), &[excite]);
    let sum = push("sum", Op::Add, &[narrow, stem]);
    let pool = push("pool", Op::GlobalAvgPool, &[sum]);
    let flat = push("flat", Op::Flatten, &[pool]);
    push("head", Op::Linear { out_features: 5, bias: true }, &[flat]);
    let weights = zoo::random_weights(&graph, 11);
    (graph, weights)
}

fn run(graph: &Graph, weights: &Weights, input: &[f32]) -> Vec<f32> {
    let mut session = Session::new(PlanBuf::lower(graph, weights, 1).unwrap().into(), Isa::detect());
    session.input().copy_from_slice(input);
    session.run(&Serial).to_vec()
}

#[test]
fn the_tape_computes_what_the_integers_compute() {
    let (graph, weights) = mobile();
    let mut random = uniform(2);
    let inputs: Vec<Vec<f32>> =
        (0..24).map(|_| (0..16 * 16 * 3).map(|_| random() * 4.0 - 2.0).collect()).collect();
    let threads = Threads::new(Some(1)).unwrap();
    let seen = observe(&graph, &weights, &inputs, &threads, &Quiet).unwrap();
    let grids = grid::grids(&graph, &seen, Ranging::Percentile);
    let rounding = Rounding::recommended();
    let (int8, integers) = ptq::quantize(&graph, &weights, &grids, &seen, &rounding).unwrap();
    let parameters = Parameters::new(&int8, &integers).unwrap();
    let mut tape = Tape::new(&int8, &Policy::whole(Statistics::Frozen)).unwrap();
    tape.prepare(&parameters);
    let (mut off, mut lost) = (0.0, 0.0);
    let squares = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    for input in &inputs {
        tape.input().copy_from_slice(input);
        let [bytes, floats] = [(&int8, &integers), (&graph, &weights)].map(|(g, w)| run(g, w, input));
        off += squares(tape.forward(None), &bytes);
        lost += squares(&bytes, &floats);
    }
    // What ties that fall the other way leave is small beside what 8 bits cost.
    println!("{off} {lost}");
    assert!(off > 0.0 && off < 0.1 * lost, "{off} of {lost}");
}

/// A network that has learnt the photos in floats. Then one channel is made two hundred times as strong, and weakened again by
/// the layer behind it: the same function, but one scale for all channels leaves the others hardly any.
fn model(data: &Dataset) -> Model {
    let mut graph = Graph::default();
    let mut push = |name: &str, op, inputs: &[_]| graph.push(name, op, inputs).unwrap();
    let x = push("x", Op::Input { shape: [1, 16, 16, 3] }, &[]);
    let stem = push("stem", conv(8, 3, 2, 1), &[x]);
    let stem = push("stem.act", Op::Act(Act::Relu), &[stem]);
    let deep = push("deep", conv(8, 3, 1, 8), &[stem]);
    let deep = push("deep.act", Op::Act(Act::Relu), &[deep]);
    let last = push("last", conv(16, 1, 1, 1), &[deep]);
    let last = push("last.act", Op::Act(Act::Relu), &[last]);
    let pool = push("pool", Op::GlobalAvgPool, &[last]);
    push("head", Op::Linear { out_features: 4, bias: true }, &[pool]);
    let mut model = learnt(graph, data);
    for (name, factor) in [("stem.weight", 200.0), ("stem.bias", 200.0), ("deep.weight", 1.0 / 200.0)] {
        let tensor = model.weights.get_mut(name).unwrap();
        let mut values = tensor.to_f32();
        let channel = values.len() / 8;
        values[..channel].iter_mut().for_each(|w| *w *= factor);
        *tensor = Tensor::f32(&tensor.shape.clone(), values);
    }
    model
}

fn options(when: When, part: Option<&Path>) -> compress::Options {
    compress::Options {
        ranging: Some(Ranging::MinMax),
        rounding: Rounding { per_channel: false, ..Rounding::recommended() },
        qat: qat::Options {
            when,
            learning: compress::Learning {
                epochs: Some(50.0),
                rate: 1e-3,
                part: part.map(Path::to_owned),
                force: false,
            },
        },
        gate: Gate { max_latency: f64::INFINITY, max_size: f64::INFINITY, max_drop: 0.02 },
        ..compress::Options::default()
    }
}

#[test]
fn training_brings_back_what_one_scale_for_all_channels_has_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = photos(&folder.path().join("photos"));
    let model = model(&data);
    let [one, two] = [1, 2].map(|threads| Threads::new(Some(threads)).unwrap());
    let int8 = |when, part, threads, progress: &dyn Progress| {
        compress::int8(&model, &data, &options(when, part), threads, progress)
    };
    let (_, plain) = int8(When::Never, None, &one, &Quiet).unwrap();
    let (learnt, report) = int8(When::Auto, None, &one, &Quiet).unwrap();
    let taught = report.qat.unwrap();
    println!("{:?} {:?} {taught:?}", plain.verdict, report.verdict);
    assert!(plain.qat.is_none() && plain.verdict.drop > 0.1);
    assert!(taught.kept && taught.top1_before < 0.65 && taught.top1_after.unwrap() > 0.85);
    assert!(report.verdict.passed() && report.floats.is_empty());
    assert_eq!((taught.steps, taught.photos), (200, 64));
    // Photos to come may be darker and brighter than all that were watched.
    let (input, _) = learnt.graph.iter().next().unwrap();
    let (quant, [low, high]) = (learnt.graph.quant(input).unwrap(), model.pixels.range());
    assert!((quant.value(0) - low).abs() < quant.scale && (quant.value(255) - high).abs() < quant.scale);
    let told = learnt.provenance.recipe.last().unwrap();
    assert!(told.contains(", quantization-aware training of 50 epochs (200 steps of 16 photos"), "{told}");

    // Threads change nothing, nor does an interruption.
    let bytes = |model: &Model| model.to_bytes().unwrap();
    let (again, _) = int8(When::Auto, None, &two, &Quiet).unwrap();
    assert!(bytes(&again) == bytes(&learnt), "threads");
    let part = folder.path().join("m.part");
    let enough = Enough::after(100 * 16, "quantization-aware training");
    let stopped = int8(When::Auto, Some(&part), &one, &enough);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert!(part.is_file());
    let (resumed, report) = int8(When::Auto, Some(&part), &one, &Quiet).unwrap();
    assert!(bytes(&resumed) == bytes(&learnt), "interrupted");
    assert!(report.qat.unwrap().kept);
    // Nothing is learnt, and no layer's part in the loss is asked for, where the file is too large anyway.
    let mut small = options(When::Auto, None);
    small.gate.max_size = 0.1;
    let (_, report) = compress::int8(&model, &data, &small, &one, &Quiet).unwrap();
    assert!(report.qat.is_none() && report.layers.iter().all(|layer| layer.alone.is_none()));
    assert_eq!(report.verdict.missed.len(), 2, "{:?}", report.verdict);
    // The state is of this training alone.
    let mut other = options(When::Auto, Some(&part));
    other.qat.learning.epochs = Some(9.0);
    let refused = compress::int8(&model, &data, &other, &one, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("differs in --epochs (then 50, now 9)"), "{refused}");
    let always = options(When::Always, None);
    let refused = compress::int8(&oblong(&model), &data, &always, &one, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("16 × 32 px cannot be trained on, only squares; give --qat never"), "{refused}");
}
