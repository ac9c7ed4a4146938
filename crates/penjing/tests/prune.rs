//! Structured pruning: what is left of a network computes what the whole one computes without what went, and is a network like
//! any other.

#[path = "../../penjing-runtime/tests/random_graphs/mod.rs"]
mod random_graphs;
mod split_mix;
mod tinted;

use std::{path::Path, sync::Arc};

use penjing::{
    Error,
    compress::{
        self, Gate, Learning, Ranging,
        fold::fold,
        grid,
        observe::observe,
        prune::{
            self, Criterion,
            blocks::Block,
            cut::{self, Less},
            ledger::{Ledger, Unit},
            prune,
        },
        ptq::{self, Rounding},
    },
    export::{OnnxOptions, to_onnx},
    import::{OnnxDetails, parse_onnx},
    progress::{Progress, Quiet},
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
    op::{Act, Op},
    tensor::{Tensor, Weights},
};
use random_graphs::{SplitMix, random_graph, random_weights, size};
use tinted::{Enough, conv, learnt, oblong, photos, uniform};

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

/// A block of which nothing comes: what its last node adds is 0, whether that is a layer or its BatchNorm.
fn mute(graph: &Graph, weights: &mut Weights, block: &Block) -> bool {
    let node = graph.node(block.end());
    let is_linear = matches!(node.op, Op::Conv(_) | Op::BatchNorm { .. });
    for suffix in ["weight", "bias", "gamma", "beta"] {
        if let Some(tensor) = weights.get_mut(&format!("{}.{suffix}", node.name)).filter(|_| is_linear) {
            *tensor = Tensor::f32(&tensor.shape.clone(), vec![0.0; tensor.shape.iter().product()]);
        }
    }
    is_linear
}

/// Takes units and blocks away at random, and compares; whether anything went, or a layer would have lost all, and how many
/// blocks did.
fn compare(name: &str, graph: &Graph, weights: &Weights, seed: u64) -> (bool, usize) {
    let ledger = Ledger::new(graph);
    let mut random = uniform(seed);
    let mut less = Less::nothing(&ledger);
    let free = ledger.sets(graph).into_iter().flat_map(|set| set.units);
    free.for_each(|unit| less.units[unit.index()] = random() < 0.4);
    let mut whole = weights.clone();
    let blocks = Block::all(graph);
    less.blocks = blocks.iter().filter(|block| random() < 0.4 && mute(graph, &mut whole, block)).collect();
    let stays = |unit: Unit| less.leaves(unit);
    let (small, left) = match cut::cut(graph, weights, &ledger, &less) {
        Ok(cut) => cut,
        Err(error) => {
            println!("{name}: {error}");
            return (false, 0);
        }
    };
    let [_, h, w, c] = graph.input_shape().unwrap();
    let input: Vec<f32> = (0..h * w * c).map(|_| 4.0 * random() - 2.0).collect();
    let expected = run(graph, &masked(graph, &whole, &ledger, &stays), &input);
    let found = run(&small, &left, &input);
    let largest = expected.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-5 * largest, "{name}: {found}, masked {expected}");
    }
    (small.parameters() != graph.parameters(), less.blocks.len())
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
        let compared = (0..10).filter(|seed| compare(arch.name, &graph, &weights, *seed).0).take(2);
        assert_eq!(compared.count(), 2, "{}", arch.name);
    }
    let blocks =
        |name: &str| Block::all(&small_of(ARCHS.iter().find(|arch| arch.name == name).unwrap()).0).len();
    let found = ["mobilenet_v2", "efficientnet_lite0", "mobilenet_v3_small", "squeezenet1_1"].map(blocks);
    // Of ten, nine and six stages' repetitions; SqueezeNet has no sums.
    assert_eq!(found, [10, 9, 6, 0]);
}

#[test]
fn random_graphs_are_cut_rightly() {
    let (mut cut, mut blocks) = (0, 0);
    for seed in 0..2_000 {
        let mut random = SplitMix(seed);
        let graph = random_graph(&mut random);
        let weights = random_weights(&mut random, &graph);
        assert!(size(graph.input_shape().unwrap()) > 0);
        let (is_cut, gone) = compare(&format!("graph {seed}"), &graph, &weights, seed);
        cut += usize::from(is_cut);
        blocks += gone;
    }
    println!("{cut} graphs lost channels, and {blocks} blocks went");
    assert!(cut > 300 && blocks > 3, "only {cut} graphs lost channels, and {blocks} blocks went");
}

#[test]
fn behind_a_block_its_input_is_read() {
    let mut graph = Graph::default();
    let mut push = |name: &str, op, inputs: &[_]| graph.push(name, op, inputs).unwrap();
    let x = push("x", Op::Input { shape: [1, 6, 6, 3] }, &[]);
    let stem = push("stem", conv(8, 3, 1, 1), &[x]);
    // Made before the block, and read after it.
    let other = push("other", conv(8, 1, 1, 1), &[stem]);
    let wide = push("wide", conv(16, 1, 1, 1), &[stem]);
    let wide = push("wide.act", Op::Act(Act::Relu), &[wide]);
    let narrow = push("narrow", conv(8, 1, 1, 1), &[wide]);
    let sum = push("sum", Op::Add, &[narrow, stem]);
    let both = push("both", Op::Concat, &[other, sum]);
    let last = push("last", conv(8, 1, 1, 1), &[both]);
    let pool = push("pool", Op::GlobalAvgPool, &[last]);
    push("head", Op::Linear { out_features: 4, bias: true }, &[pool]);
    let weights = zoo::random_weights(&graph, 3);
    // Of eight drawings some take the block away.
    let gone: usize = (0..8).map(|seed| compare("behind", &graph, &weights, seed).1).sum();
    assert!(gone > 0);
}

/// A third less of every set, whichever.
fn pruned(arch: &Arch) -> (Graph, Weights, Config) {
    let (graph, config) = small_of(arch);
    let weights = zoo::random_weights(&graph, 5);
    let (graph, weights) = fold(&graph, &weights).unwrap();
    let ledger = Ledger::new(&graph);
    let mut less = Less::nothing(&ledger);
    let mut random = uniform(9);
    let sets = ledger.sets(&graph);
    assert!(!sets.is_empty(), "{}", arch.name);
    for mut set in sets {
        for _ in 0..set.units.len() / 3 {
            let any = (random() * set.units.len() as f32) as usize;
            less.units[set.units.swap_remove(any).index()] = true;
        }
    }
    let (small, left) = cut::cut(&graph, &weights, &ledger, &less).unwrap();
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

/// A network with far more channels than the photos need.
fn wide() -> Graph {
    let mut graph = Graph::default();
    let mut push = |name: &str, op, inputs: &[_]| graph.push(name, op, inputs).unwrap();
    let x = push("x", Op::Input { shape: [1, 16, 16, 3] }, &[]);
    let stem = push("stem", conv(16, 3, 2, 1), &[x]);
    let stem = push("stem.norm", Op::BatchNorm { eps: 1e-3 }, &[stem]);
    let stem = push("stem.act", Op::Act(Act::Relu), &[stem]);
    let expand = push("expand", conv(64, 1, 1, 1), &[stem]);
    let expand = push("expand.norm", Op::BatchNorm { eps: 1e-3 }, &[expand]);
    let expand = push("expand.act", Op::Act(Act::Relu), &[expand]);
    let deep = push("deep", conv(64, 3, 1, 64), &[expand]);
    let deep = push("deep.act", Op::Act(Act::Relu), &[deep]);
    let project = push("project", conv(16, 1, 1, 1), &[deep]);
    let sum = push("sum", Op::Add, &[project, stem]);
    let last = push("last", conv(64, 1, 1, 1), &[sum]);
    let last = push("last.act", Op::Act(Act::Relu), &[last]);
    let pool = push("pool", Op::GlobalAvgPool, &[last]);
    push("head", Op::Linear { out_features: 4, bias: true }, &[pool]);
    graph
}

fn half(criterion: Criterion, epochs: u32, part: Option<&Path>) -> prune::Options {
    let part = part.map(Path::to_owned);
    let learning = Learning { epochs: Some(epochs.into()), part, rate: 1e-3, force: false };
    prune::Options { criterion, learning, ..prune::Options::default() }
}

#[test]
fn half_of_the_arithmetic_goes_and_the_answers_stay() {
    let folder = tempfile::tempdir().unwrap();
    let data = photos(&folder.path().join("photos"));
    let model = learnt(wide(), &data);
    let [one, two] = [1, 2].map(|threads| Threads::new(Some(threads)).unwrap());
    let prune = |options: &prune::Options, threads, progress: &dyn Progress| {
        prune(&model, &data, 64, options, 0, threads, progress)
    };
    let gate = Gate { max_drop: 1.0, max_latency: f64::INFINITY, max_size: f64::INFINITY };
    let drop = |small: &Model| compress::verdict(&model, small, &data, &gate, &one, &Quiet).unwrap().0.drop;
    let (small, report) = prune(&half(Criterion::Surgeon, 0, None), &one, &Quiet).unwrap();
    assert!((0.5..0.7).contains(&report.share), "{report:?}");
    assert!(report.macs[1] < report.macs[0] && report.params[1] < report.params[0], "{report:?}");
    assert!(drop(&small) < 0.05, "{}", drop(&small));
    // What is fitted is nearer than what is only cut.
    let plain = prune::Options { mend: false, ..half(Criterion::Surgeon, 0, None) };
    let (_, cut) = prune(&plain, &one, &Quiet).unwrap();
    println!("{:?} fitted, {:?} cut", report.start, cut.start);
    assert!(report.start.divergence < 0.5 * cut.start.divergence, "{:?} {:?}", report.start, cut.start);

    // Every criterion gives a network; what is drawn is worse.
    let start = |criterion| prune(&half(criterion, 0, None), &one, &Quiet).unwrap().1.start.divergence;
    let random = start(Criterion::Random);
    let all = [Criterion::L1, Criterion::L2, Criterion::Scale, Criterion::Taylor, Criterion::Distance];
    println!("random {random}, {:?}", all.map(start));
    assert!(report.start.divergence < random, "{:?}, drawn {random}", report.start);

    // It learns; threads change nothing, nor does an interruption.
    let learn = half(Criterion::Surgeon, 10, None);
    let (learnt, report) = prune(&learn, &one, &Quiet).unwrap();
    assert_eq!((report.epochs, report.steps), (10.0, 40));
    assert!(drop(&learnt) < 0.02, "{}", drop(&learnt));
    let told = learnt.provenance.recipe.last().unwrap();
    assert!(told.starts_with("pruned: ") && told.contains("training of 10 epochs (40 steps)"), "{told}");
    let bytes = |model: &Model| model.to_bytes().unwrap();
    assert!(bytes(&prune(&learn, &two, &Quiet).unwrap().0) == bytes(&learnt), "threads");
    let part = folder.path().join("m.part");
    let learn = half(Criterion::Surgeon, 10, Some(&part));
    let stopped = prune(&learn, &one, &Enough::after(20 * 16, "training after pruning"));
    assert!(matches!(stopped, Err(Error::Interrupted)) && part.is_file(), "{stopped:?}");
    assert!(bytes(&prune(&learn, &one, &Quiet).unwrap().0) == bytes(&learnt), "interrupted");
    // In steps it learns as often in all, keeps a state of each, and goes on from them.
    let steps =
        prune::Options { steps: 2, ..half(Criterion::Surgeon, 10, Some(&folder.path().join("s.part"))) };
    let stopped = prune(&steps, &one, &Enough::after(15 * 16, "training after pruning"));
    let [first, last] = prune::parts(&folder.path().join("s.part"), 2).try_into().unwrap();
    assert!(matches!(stopped, Err(Error::Interrupted)) && first.is_file() && !last.exists(), "{stopped:?}");
    let (stepped, report) = prune(&steps, &one, &Quiet).unwrap();
    assert_eq!((report.epochs, report.steps, report.cuts), (10.0, 40, 2));
    assert!((0.5..0.7).contains(&report.share) && first.is_file() && last.is_file(), "{report:?}");
    let macs = |model: &Model| -> u64 {
        penjing_runtime::cost::layers(&model.graph).iter().map(|layer| layer.macs).sum()
    };
    assert_eq!(report.macs, [macs(&model), macs(&stepped)]);
    for set in &report.sets {
        let channels = |model: &Model| {
            let (made, _) = model.graph.iter().find(|(_, node)| node.name == set.name).unwrap();
            model.graph.shape(made)[3]
        };
        assert_eq!([set.before, set.after], [channels(&model), channels(&stepped)], "{}", set.name);
    }
    assert!(drop(&stepped) < 0.02, "{}", drop(&stepped));
    let told = stepped.provenance.recipe.last().unwrap();
    assert!(told.contains("channels by surgeon, in 2 cuts; training of 10 epochs (40 steps)"), "{told}");
    let unkept = prune::Options { steps: 2, ..half(Criterion::Surgeon, 10, None) };
    assert!(bytes(&prune(&unkept, &two, &Quiet).unwrap().0) == bytes(&stepped), "kept or not");
    // The state is of this network alone.
    let refused = prune(&half(Criterion::Random, 10, Some(&part)), &one, &Quiet).unwrap_err().to_string();
    assert!(
        refused.contains("differs in --criterion (then surgeon, now random), the network that learns"),
        "{refused}"
    );
}

#[test]
fn a_block_that_gives_little_goes_where_blocks_may() {
    let folder = tempfile::tempdir().unwrap();
    let data = photos(&folder.path().join("photos"));
    let mut model = learnt(wide(), &data);
    for name in ["project.weight", "project.bias"] {
        let tensor = &model.weights[name];
        let little = tensor.to_f32().iter().map(|v| 1e-3 * v).collect();
        model.weights.insert(name.into(), Tensor::f32(&tensor.shape.clone(), little));
    }
    let threads = Threads::new(Some(1)).unwrap();
    let prune = |blocks, steps| {
        let options = prune::Options { share: 0.75, blocks, steps, ..half(Criterion::Surgeon, 0, None) };
        prune(&model, &data, 64, &options, 0, &threads, &Quiet).unwrap()
    };
    let holds = |model: &Model, name: &str| model.graph.nodes().iter().any(|node| node.name == name);
    for steps in [1, 2] {
        let (small, report) = prune(true, steps);
        let [block] = &report.blocks[..] else { panic!("{:?}", report.blocks) };
        assert!(block.name == "sum" && block.gone && block.loss < 1e-3, "{block:?}");
        assert!(!["expand", "deep", "project", "sum"].iter().any(|name| holds(&small, name)));
        let sets: Vec<_> = report.sets.iter().map(|set| (set.name.as_str(), set.after > 0)).collect();
        assert_eq!(sets, [("stem", true), ("expand", false), ("last", true)]);
        let told = small.provenance.recipe.last().unwrap();
        assert!(told.contains("channels by surgeon and 1 of 1 blocks"), "{told}");
    }
    let (small, report) = prune(false, 1);
    assert!(report.blocks.is_empty() && holds(&small, "expand"));
}

#[test]
fn what_cannot_be_pruned_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = photos(&folder.path().join("photos"));
    let model = learnt(wide(), &data);
    let threads = Threads::new(Some(1)).unwrap();
    let refused = |model: &Model, options: &prune::Options| {
        prune(model, &data, 64, options, 0, &threads, &Quiet).unwrap_err().to_string()
    };
    let most = prune::Options { share: 0.95, ..half(Criterion::L1, 0, None) };
    let why = refused(&model, &most);
    assert!(
        why.contains("can go in one step, which leaves an eighth")
            && why.contains("the nearest is --prune 0."),
        "{why}"
    );
    // Before a photo is watched.
    let why =
        prune(&oblong(&model), &data, 64, &half(Criterion::L1, 1, None), 0, &threads, &Enough::after(0, ""));
    let why = why.unwrap_err().to_string();
    assert!(why.contains("16 × 32 px cannot be trained on, only squares; give --prune-epochs 0"), "{why}");
    prune(&oblong(&model), &data, 64, &half(Criterion::L1, 0, None), 0, &threads, &Quiet).unwrap();
    let why = refused(&model, &prune::Options { steps: 2, ..half(Criterion::Scale, 0, None) });
    assert!(why.contains("take another --criterion, or --prune-steps 1"), "{why}");
    let options = compress::Options {
        gate: Gate { max_latency: f64::INFINITY, ..Gate::default() },
        ..Default::default()
    };
    let (int8, _) = compress::int8(&model, &data, &options, &threads, &Quiet).unwrap();
    let why = refused(&int8, &half(Criterion::L1, 0, None));
    assert!(why.contains("computes in integers; take the one in floats"), "{why}");
    let (small, _) = prune(&model, &data, 64, &half(Criterion::L1, 0, None), 0, &threads, &Quiet).unwrap();
    let why = refused(&small, &half(Criterion::Scale, 0, None));
    assert!(why.contains("has no BatchNorm whose scales"), "{why}");
}
