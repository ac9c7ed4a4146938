//! Structured pruning: what is left of a network computes what the whole one computes without what went, and is a network like
//! any other.

#[path = "../../penjing-runtime/tests/random_graphs/mod.rs"]
mod random_graphs;
mod split_mix;

use std::{path::Path, sync::Arc};

use penjing::{
    compress::{
        Ranging,
        fold::fold,
        grid,
        observe::observe,
        prune::{
            cut,
            ledger::{Ledger, Unit},
        },
        ptq::{self, Rounding},
    },
    export::{OnnxOptions, to_onnx},
    import::{OnnxDetails, parse_onnx},
    progress::Quiet,
    threads::Threads,
    train::{
        learner::{Learner, Method},
        optimizer::{Rates, Rule},
        parameters::Parameters,
        tape::{Policy, Statistics},
    },
    zoo::{self, ARCHS, Arch, Config},
};
use penjing_runtime::{
    Isa, PlanBuf, Serial, Session,
    file::{Calibration, Model, Provenance},
    graph::Graph,
    op::Op,
    tensor::{Tensor, Weights},
};
use random_graphs::{SplitMix, random_graph, random_weights, size};
use split_mix::split_mix;

/// Values in 0..1.
fn uniform(seed: u64) -> impl FnMut() -> f32 {
    let mut next = split_mix(seed);
    move || (next() >> 40) as f32 / (1u64 << 24) as f32
}

fn run(graph: &Graph, weights: &Weights, input: &[f32]) -> Vec<f32> {
    let plan = PlanBuf::lower(graph, weights, 1).unwrap();
    let mut session = Session::new(Arc::new(plan), Isa::detect());
    session.input().copy_from_slice(input);
    session.run(&Serial).to_vec()
}

/// The weights with zeros wherever a layer multiplies a channel that went.
fn masked(graph: &Graph, weights: &Weights, ledger: &Ledger, stays: &dyn Fn(Unit) -> bool) -> Weights {
    let mut masked = weights.clone();
    for node in graph.nodes() {
        let groups = match &node.op {
            Op::Conv(conv) => conv.groups,
            Op::Linear { .. } => 1,
            _ => continue,
        };
        let tensor = masked.get_mut(&format!("{}.weight", node.name)).unwrap();
        let read = ledger.channels(node.inputs[0]);
        let (outputs, each) = (tensor.shape[0], read.len() / groups);
        let mut values = tensor.to_f32();
        let row = values.len() / outputs;
        for (at, value) in values.iter_mut().enumerate() {
            let group = at / row / (outputs / groups);
            if !stays(read[group * each + at % each]) {
                *value = 0.0;
            }
        }
        *tensor = Tensor::f32(&tensor.shape.clone(), values);
    }
    masked
}

/// Takes units away at random, and compares; whether anything went, or a layer would have lost all.
fn compare(name: &str, graph: &Graph, weights: &Weights, seed: u64) -> bool {
    let ledger = Ledger::new(graph);
    let mut random = uniform(seed);
    let mut gone = vec![false; ledger.len()];
    let free = ledger.sets(graph).into_iter().flat_map(|set| set.units);
    free.for_each(|unit| gone[unit.index()] = random() < 0.4);
    let stays = |unit: Unit| !gone[unit.index()];
    let (small, left) = match cut::cut(graph, weights, &ledger, &stays) {
        Ok(cut) => cut,
        Err(error) => {
            println!("{name}: {error}");
            return false;
        }
    };
    let [_, h, w, c] = graph.input_shape().unwrap();
    let input: Vec<f32> = (0..h * w * c).map(|_| 4.0 * random() - 2.0).collect();
    let expected = run(graph, &masked(graph, weights, &ledger, &stays), &input);
    let found = run(&small, &left, &input);
    let largest = expected.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-5 * largest, "{name}: {found}, masked {expected}");
    }
    small.parameters() != graph.parameters()
}

fn small_of(arch: &Arch) -> (Graph, Config) {
    let config = Config { size: 64, ..arch.config(7) };
    (arch.graph(&config).unwrap(), config)
}

#[test]
fn what_is_left_computes_what_the_whole_computes_without_what_went() {
    for arch in ARCHS {
        let (graph, _) = small_of(arch);
        let weights = zoo::random_weights(&graph, 3);
        // ShuffleNet's stages hang together so much that some choices leave nothing of a branch.
        let compared = (0..10).filter(|seed| compare(arch.name, &graph, &weights, *seed)).take(2);
        assert_eq!(compared.count(), 2, "{}", arch.name);
    }
}

#[test]
fn random_graphs_are_cut_rightly() {
    let mut cut = 0;
    for seed in 0..2_000 {
        let mut random = SplitMix(seed);
        let graph = random_graph(&mut random);
        let weights = random_weights(&mut random, &graph);
        assert!(size(graph.input_shape().unwrap()) > 0);
        cut += usize::from(compare(&format!("graph {seed}"), &graph, &weights, seed));
    }
    assert!(cut > 300, "only {cut} graphs lost channels");
}

/// A third less of every set, whichever.
fn pruned(arch: &Arch) -> (Graph, Weights, Config) {
    let (graph, config) = small_of(arch);
    let weights = zoo::random_weights(&graph, 5);
    let (graph, weights) = fold(&graph, &weights).unwrap();
    let ledger = Ledger::new(&graph);
    let mut gone = vec![false; ledger.len()];
    let mut random = uniform(9);
    let sets = ledger.sets(&graph);
    assert!(!sets.is_empty(), "{}", arch.name);
    for mut set in sets {
        for _ in 0..set.units.len() / 3 {
            let any = (random() * set.units.len() as f32) as usize;
            gone[set.units.swap_remove(any).index()] = true;
        }
    }
    let (small, left) = cut::cut(&graph, &weights, &ledger, &|unit| !gone[unit.index()]).unwrap();
    let macs = |graph: &Graph| penjing_runtime::cost::layers(graph).iter().map(|l| l.macs).sum::<u64>();
    let share = macs(&small) as f64 / macs(&graph) as f64;
    assert!(share < 0.7, "{}: {share} of the arithmetic is left", arch.name);
    (small, left, config)
}

#[test]
fn every_network_prunes_and_then_trains_quantizes_and_exports() {
    let threads = Threads::new(Some(2)).unwrap();
    for arch in ARCHS {
        let (graph, weights, config) = pruned(arch);
        let [_, h, w, c] = graph.input_shape().unwrap();
        let mut random = uniform(1);
        let inputs: Vec<Vec<f32>> =
            (0..4).map(|_| (0..h * w * c).map(|_| 4.0 * random() - 2.0).collect()).collect();
        let exact = run(&graph, &weights, &inputs[0]);
        let peak = exact.iter().fold(0f32, |most, v| most.max(v.abs()));
        assert!(peak.is_finite() && peak > 0.0, "{}", arch.name);

        let rates = Rates { head: 1e-4, last: 1e-4, middle: 1e-4, first: 1e-4 };
        let policy = Policy::whole(Statistics::Frozen);
        let rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
        let method = Method { rule, decay: 0.0, clip: None, rates, policy, momentum: 0.0 };
        let batch = graph.with_input([2, h, w, c]).unwrap();
        let start = Parameters::new(&graph, &weights).unwrap();
        let mut learner = Learner::new(&batch, start.clone(), &method).unwrap();
        let mut targets = vec![0.0; 14];
        (targets[2], targets[7 + 4]) = (1.0, 1.0);
        let loss = learner.step(&inputs[..2].concat(), &targets, 0, 1.0);
        assert!(loss.is_finite() && learner.parameters.to_weights() != start.to_weights(), "{}", arch.name);

        let seen = observe(&graph, &weights, &inputs, &threads, &Quiet).unwrap();
        let grids = grid::grids(&graph, &seen, Ranging::MinMax);
        let (int8, integers) =
            ptq::quantize(&graph, &weights, &grids, &seen, &Rounding::recommended()).unwrap();
        let rounded = run(&int8, &integers, &inputs[0]);
        let off = rounded.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(off > 0.0 && off < 0.5 * peak, "{}: 8 bits are off by {off} of {peak}", arch.name);

        let model = Model {
            arch: arch.name.into(),
            graph,
            weights,
            pixels: arch.pixels(&config),
            labels: (0..7).map(|class| class.to_string()).collect(),
            calibration: Calibration { temperature: 1.0 },
            provenance: Provenance::default(),
        };
        assert!(Model::from_bytes(&model.to_bytes().unwrap()).unwrap() == model, "{}", arch.name);
        let onnx = to_onnx(&model, OnnxOptions::default()).unwrap();
        let back = parse_onnx(Path::new("pruned.onnx"), &onnx, OnnxDetails::default()).unwrap().model;
        for (a, b) in run(&back.graph, &back.weights, &inputs[0]).iter().zip(&exact) {
            assert!((a - b).abs() <= 1e-4 * peak, "{}: {a} {b}", arch.name);
        }
    }
}
