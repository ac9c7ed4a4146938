//! Unstructured pruning: zeros among the weights, a smaller file, and the same answers.

mod split_mix;
mod tinted;

use std::{path::Path, sync::Arc};

use penjing::{
    Error,
    compress::{
        self, Gate, Learning,
        sparsify::{Options, sparsify},
    },
    export::{OnnxOptions, to_onnx},
    import::{OnnxDetails, parse_onnx},
    progress::{Progress, Quiet},
    threads::Threads,
};
use penjing_runtime::{
    Isa, PlanBuf, Serial, Session,
    file::Model,
    graph::Graph,
    op::{Act, Op},
    plan::Step,
    tensor::Data,
};
use tinted::{Enough, conv, learnt, oblong, photos, uniform};

/// A network whose 1×1 convolutions hold most of the weights.
fn wide() -> Graph {
    let mut graph = Graph::default();
    let mut push = |name: &str, op, inputs: &[_]| graph.push(name, op, inputs).unwrap();
    let x = push("x", Op::Input { shape: [1, 16, 16, 3] }, &[]);
    let stem = push("stem", conv(24, 3, 2, 1), &[x]);
    let stem = push("stem.norm", Op::BatchNorm { eps: 1e-3 }, &[stem]);
    let stem = push("stem.act", Op::Act(Act::Relu), &[stem]);
    let expand = push("expand", conv(96, 1, 1, 1), &[stem]);
    let expand = push("expand.norm", Op::BatchNorm { eps: 1e-3 }, &[expand]);
    let expand = push("expand.act", Op::Act(Act::Relu), &[expand]);
    let deep = push("deep", conv(96, 3, 1, 96), &[expand]);
    let deep = push("deep.act", Op::Act(Act::Relu), &[deep]);
    let project = push("project", conv(24, 1, 1, 1), &[deep]);
    let sum = push("sum", Op::Add, &[project, stem]);
    let last = push("last", conv(96, 1, 1, 1), &[sum]);
    let last = push("last.act", Op::Act(Act::Relu), &[last]);
    let pool = push("pool", Op::GlobalAvgPool, &[last]);
    push("head", Op::Linear { out_features: 4, bias: true }, &[pool]);
    graph
}

const LAYERS: [&str; 3] = ["expand.weight", "project.weight", "last.weight"];

fn most(epochs: u32, part: Option<&Path>) -> Options {
    let part = part.map(Path::to_owned);
    let learning = Learning { epochs: Some(epochs.into()), rate: 3e-3, part, force: false };
    Options { share: 0.8, learning, ..Options::default() }
}

#[test]
fn most_weights_become_zero_and_the_answers_stay() {
    let folder = tempfile::tempdir().unwrap();
    let data = photos(&folder.path().join("photos"));
    let model = learnt(wide(), &data);
    let [one, two] = [1, 2].map(|threads| Threads::new(Some(threads)).unwrap());
    let make = |options: &Options, threads, progress: &dyn Progress| {
        sparsify(&model, &data, 64, options, 0, threads, progress)
    };
    let gate = Gate { max_drop: 1.0, max_latency: f64::INFINITY, max_size: f64::INFINITY };
    let verdict = |small: &Model| compress::verdict(&model, small, &data, &gate, &one, &Quiet).unwrap().0;
    let (cut, report) = make(&most(0, None), &one, &Quiet).unwrap();
    assert_eq!((report.steps, report.weights[0]), (0, 3 * 24 * 96));
    let (sparse, report) = make(&most(20, None), &one, &Quiet).unwrap();
    assert!((0.79..0.81).contains(&report.share) && report.steps == 80, "{report:?}");
    let (without, with) = (verdict(&cut), verdict(&sparse));
    println!("{:?} learnt, {:?} only cut", with.after.top1, without.after.top1);
    assert!(with.drop < 0.03 && with.distance.error < 0.5 * without.distance.error, "{with:?} {without:?}");
    let told = sparse.provenance.recipe.last().unwrap();
    assert!(told.starts_with("sparse: 80.") && told.contains("training of 20 epochs (80 steps)"), "{told}");

    // Zeros are where they are said to be, and are neither kept nor multiplied.
    for (name, tensor) in &sparse.weights {
        assert_eq!(matches!(tensor.data, Data::Sparse(_)), LAYERS.contains(&&**name), "{name}");
    }
    let bytes = sparse.to_bytes().unwrap();
    assert!(Model::from_bytes(&bytes).unwrap() == sparse);
    assert!(bytes.len() < model.to_bytes().unwrap().len() * 6 / 10);
    let plan = Arc::new(PlanBuf::lower(&sparse.graph, &sparse.weights, 1).unwrap());
    let steps = plan.plan().steps.iter().filter(|step| matches!(step, Step::Sparse { .. })).count();
    assert_eq!(steps, LAYERS.len());
    // It is a model like any other.
    let onnx = to_onnx(&sparse, OnnxOptions::default()).unwrap();
    let back = parse_onnx(Path::new("sparse.onnx"), &onnx, OnnxDetails::default()).unwrap().model;
    let back = Arc::new(PlanBuf::lower(&back.graph, &back.weights, 1).unwrap());
    let mut random = uniform(7);
    let input: Vec<f32> = (0..16 * 16 * 3).map(|_| random() * 4.0 - 2.0).collect();
    let run = |plan: &Arc<PlanBuf>| {
        let mut session = Session::new(plan.clone(), Isa::detect());
        session.input().copy_from_slice(&input);
        session.run(&Serial).to_vec()
    };
    for (a, b) in run(&plan).iter().zip(run(&back)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }

    // Threads change nothing, nor does an interruption.
    let bytes = |model: &Model| model.to_bytes().unwrap();
    assert!(bytes(&make(&most(20, None), &two, &Quiet).unwrap().0) == bytes(&sparse), "threads");
    let part = folder.path().join("m.part");
    let learn = most(20, Some(&part));
    let stopped = make(&learn, &one, &Enough::after(30 * 16, "training with zeros"));
    assert!(matches!(stopped, Err(Error::Interrupted)) && part.is_file(), "{stopped:?}");
    let other = make(&Options { share: 0.7, ..learn.clone() }, &one, &Quiet).unwrap_err().to_string();
    assert!(other.contains("differs in --sparsify"), "{other}");
    assert!(bytes(&make(&learn, &one, &Quiet).unwrap().0) == bytes(&sparse), "interrupted");
}

#[test]
fn what_cannot_be_made_sparse_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = photos(&folder.path().join("photos"));
    let threads = Threads::new(Some(1)).unwrap();
    // Before a photo is watched.
    let nobody = Enough::after(0, "");
    // In groups there is too little to choose from, and no file leaves zeros of 12 channels out.
    for (channels, groups, why) in [(8, 2, "no 1×1 convolution"), (12, 1, "multiple of 8 channels")] {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 16, 16, 3] }, &[]).unwrap();
        let x = graph.push("stem", conv(channels, 3, 2, 1), &[x]).unwrap();
        let x = graph.push("each", conv(8, 1, 1, groups), &[x]).unwrap();
        let x = graph.push("pool", Op::GlobalAvgPool, &[x]).unwrap();
        graph.push("head", Op::Linear { out_features: 4, bias: true }, &[x]).unwrap();
        let model = learnt(graph, &data);
        let refused =
            sparsify(&model, &data, 64, &most(1, None), 0, &threads, &nobody).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let model = learnt(wide(), &data);
    let refused =
        sparsify(&oblong(&model), &data, 64, &most(1, None), 0, &threads, &nobody).unwrap_err().to_string();
    assert!(
        refused.contains("16 × 32 px cannot be trained on, only squares; give --sparsify-epochs 0"),
        "{refused}"
    );
    sparsify(&oblong(&model), &data, 64, &most(0, None), 0, &threads, &Quiet).unwrap();
    let options = compress::Options {
        gate: Gate { max_latency: f64::INFINITY, ..Gate::default() },
        ..Default::default()
    };
    let (bytes, _) = compress::int8(&model, &data, &options, &threads, &Quiet).unwrap();
    let refused = sparsify(&bytes, &data, 64, &most(1, None), 0, &threads, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("computes in integers"), "{refused}");
}
