//! What is lowered computes what the graph means: random graphs against a plain interpreter, for every instruction set,
//! batch and number of threads.
#![cfg(feature = "file")]

mod plain;
mod random_graphs;
mod team;

use std::sync::Arc;

use penjing_runtime::{
    Isa, Lower, PlanBuf, Serial, Session, Workers,
    graph::{Graph, NodeId},
    op::{Act, Conv, Op, Pool},
    plan::Step,
    tensor::{Tensor, Weights},
};
use plain::interpret;
use random_graphs::{SplitMix, random_graph, random_weights, size};
use team::Team;

fn run(plan: &Arc<PlanBuf>, isa: Isa, workers: &dyn Workers, input: &[f32]) -> Vec<f32> {
    let mut session = Session::new(plan.clone(), isa);
    session.input().copy_from_slice(input);
    session.run(workers).to_vec()
}

#[test]
fn random_graphs_give_what_their_operations_give_one_by_one() {
    let (mut fused, mut steps, mut nodes, mut by_rows, mut winograd) = (0, 0, 0, 0, 0);
    let mut ops = std::collections::BTreeMap::new();
    for seed in 0..1500 {
        let mut random = SplitMix(seed);
        let graph = random_graph(&mut random);
        let weights = random_weights(&mut random, &graph);
        let shape = graph.input_shape().unwrap();
        let images = random.values(3 * size(shape));
        let expected: Vec<f64> = images
            .chunks(size(shape))
            .flat_map(|image| interpret(&graph, &weights, image, |_, _| {}))
            .collect();
        let largest = expected.iter().fold(1.0f64, |largest, v| largest.max(v.abs()));
        let mut bits: [Option<Vec<u32>>; 2] = [None, None];
        for (batch, bits) in [1, 3].into_iter().zip(&mut bits) {
            let graph = graph.with_input([batch, shape[1], shape[2], shape[3]]).unwrap();
            let input = &images[..batch * size(shape)];
            let plan = Arc::new(PlanBuf::lower(&graph, &weights, 5).unwrap());
            let rows = Arc::new(
                PlanBuf::lower_with(&graph, &weights, Lower { by_rows: 0, ..Lower::fastest(5) }).unwrap(),
            );
            by_rows += rows.plan().steps.iter().filter(|step| matches!(step, Step::Separable { .. })).count();
            winograd += plan.plan().steps.iter().filter(|step| matches!(step, Step::Winograd { .. })).count();
            for isa in Isa::available() {
                let teams = [&Serial as &dyn Workers, &Team(2), &Team(5)];
                for (plan, workers) in
                    [&plan, &rows].into_iter().flat_map(|plan| teams.map(|team| (plan, team)))
                {
                    let found = run(plan, isa, workers, input);
                    assert_eq!(found.len(), expected.len() / 3 * batch);
                    for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
                        let off = (f64::from(*a) - b).abs();
                        assert!(
                            off <= 1e-4 * largest,
                            "seed {seed}, {}, batch {batch}, value {index}: {a}, expected {b}\n{:#?}",
                            isa.name(),
                            graph.nodes()
                        );
                    }
                    let found = found.into_iter().map(f32::to_bits).collect();
                    // Neither threads nor instruction sets change a bit.
                    assert!(
                        *bits.get_or_insert_with(|| Vec::clone(&found)) == found,
                        "seed {seed}, {}",
                        isa.name()
                    );
                }
            }
            fused += usize::from(plan.plan().steps.len() + 1 < graph.nodes().len());
            steps += plan.plan().steps.len();
            nodes += graph.nodes().len();
        }
        let [one, three] = bits.map(Option::unwrap);
        assert!(three[..one.len()] == one, "seed {seed}: a photo's result depends on its batch");
        graph.nodes().iter().for_each(|node| *ops.entry(node.op.name()).or_insert(0) += 1);
    }
    println!("{fused} of 3000 plans have fewer steps than layers, {steps} for {nodes}; layers: {ops:?}");
    println!("{by_rows} steps by rows, {winograd} by Winograd");
    assert!(by_rows > 100, "{by_rows} steps by rows");
    assert!(winograd > 15, "{winograd} steps by Winograd");
    assert_eq!(ops.len(), 17, "every operation was there");
    assert!(ops.values().all(|&count| count > 50), "{ops:?}");
}

#[test]
fn the_arena_is_exactly_as_large_as_it_says() {
    const MARK: f32 = 123.0;
    for seed in 0..200 {
        let mut random = SplitMix(seed);
        let graph = random_graph(&mut random);
        let weights = random_weights(&mut random, &graph);
        let buf = PlanBuf::lower(&graph, &weights, 2).unwrap();
        let plan = buf.plan();
        let input = random.values(plan.input.len);
        let mut session = Session::new(Arc::new(buf.clone()), Isa::detect());
        session.input().copy_from_slice(&input);
        let expected = session.run(&Serial).to_vec();

        // What stood in the arena before, and what stands behind it, is neither read nor written.
        let mut arena = vec![f32::NAN; plan.arena_len];
        arena.extend([MARK; 64]);
        arena[plan.input.start..][..plan.input.len].copy_from_slice(&input);
        plan.run(Isa::detect(), &Team(2), &mut arena);
        assert!(arena[plan.output.start..][..plan.output.len] == expected, "seed {seed}");
        assert!(arena[plan.arena_len..].iter().all(|v| *v == MARK), "seed {seed}");
        assert_eq!(plan.peak_ram_bytes(), plan.arena_len * 4);

        // The last value is used; scratch memory is there for the worst case and alone may stay untouched.
        let scratch = plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Conv { .. } | Step::Winograd { .. } | Step::Separable { .. }));
        assert!(scratch || !arena[plan.arena_len - 1].is_nan(), "seed {seed}");
    }
}

#[test]
#[should_panic(expected = "the arena is shorter than the plan needs")]
fn a_short_arena_is_refused() {
    let mut random = SplitMix(1);
    let graph = random_graph(&mut random);
    let buf = PlanBuf::lower(&graph, &random_weights(&mut random, &graph), 1).unwrap();
    buf.plan().run(Isa::scalar(), &Serial, &mut vec![0.0; buf.plan().arena_len - 1]);
}

#[test]
#[should_panic(expected = "fewer threads")]
fn more_threads_than_planned_are_refused() {
    let mut random = SplitMix(1);
    let graph = random_graph(&mut random);
    let buf = PlanBuf::lower(&graph, &random_weights(&mut random, &graph), 1).unwrap();
    buf.plan().run(Isa::scalar(), &Team(2), &mut vec![0.0; buf.plan().arena_len]);
}

#[test]
fn zeros_that_are_left_out_change_no_bit() {
    let mut graph = Graph::default();
    let image = graph.push("image", Op::Input { shape: [1, 14, 14, 24] }, &[]).unwrap();
    let mut x = image;
    for (name, channels) in [("wide", 150), ("narrow", 24)] {
        x = graph.push(name, Op::Conv(Conv::new(channels, 1, 1)), &[x]).unwrap();
        let norm = graph.push(&format!("{name}.norm"), Op::BatchNorm { eps: 1e-3 }, &[x]).unwrap();
        x = norm;
    }
    let x = graph.push("add", Op::Add, &[image, x]).unwrap();
    let x = graph.push("act", Op::Act(Act::HSwish), &[x]).unwrap();
    let x = graph.push("again", Op::Conv(Conv { bias: true, ..Conv::new(48, 1, 1) }), &[x]).unwrap();
    let x = graph.push("relu6", Op::Act(Act::Relu6), &[x]).unwrap();
    let x = graph.push("mean", Op::GlobalAvgPool, &[x]).unwrap();
    graph.push("head", Op::Linear { out_features: 40, bias: true }, &[x]).unwrap();
    let mut random = SplitMix(3);
    let mut weights = random_weights(&mut random, &graph);
    for name in ["wide.weight", "narrow.weight", "again.weight"] {
        let tensor = weights.get_mut(name).unwrap();
        let values = tensor.to_f32().into_iter().enumerate();
        let values = values.map(|(at, value)| if at % 11 == 0 { value } else { 0.0 }).collect();
        *tensor = Tensor::f32(&tensor.shape, values);
    }
    let sparse = |plan: &PlanBuf| -> usize {
        plan.plan().steps.iter().filter(|step| matches!(step, Step::Sparse { .. })).count()
    };
    let image = random.values(14 * 14 * 24);
    let expected = interpret(&graph, &weights, &image, |_, _| {});
    let mut bits: Option<Vec<f32>> = None;
    for batch in [1, 2] {
        let graph = graph.with_input([batch, 14, 14, 24]).unwrap();
        let input = image.repeat(batch);
        for how in [Lower::fastest(5), Lower::plain(5), Lower { by_rows: 0, ..Lower::fastest(5) }] {
            let plan = Arc::new(PlanBuf::lower_with(&graph, &weights, how).unwrap());
            assert_eq!(sparse(&plan), if how.by_rows == 0 { 0 } else { 3 }, "{how:?}");
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Team(2), &Team(5)] {
                    let found = run(&plan, isa, workers, &input);
                    for found in found.chunks(expected.len()) {
                        let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 1e-4;
                        assert!(found.iter().zip(&expected).all(near), "{how:?} {}", isa.name());
                        assert!(
                            bits.get_or_insert_with(|| found.to_vec()) == found,
                            "{how:?} {}",
                            isa.name()
                        );
                    }
                }
            }
        }
    }
    // Their zeros left out of the file, they are the same weights; with others in their place they are run as before.
    let packed = weights.clone().into_iter().map(|(name, tensor)| {
        let sparse = tensor.to_sparse().filter(|_| name == "again.weight");
        (name, sparse.unwrap_or(tensor))
    });
    let plan = Arc::new(PlanBuf::lower(&graph, &packed.collect(), 1).unwrap());
    assert!(bits.unwrap() == run(&plan, Isa::detect(), &Serial, &image) && sparse(&plan) == 3);
    let dense = PlanBuf::lower(&graph, &random_weights(&mut random, &graph), 1).unwrap();
    assert_eq!(sparse(&dense), 0);
}

#[test]
fn work_large_enough_to_be_shared_gives_the_same_bits() {
    let mut graph = Graph::default();
    let image = graph.push("image", Op::Input { shape: [2, 32, 32, 3] }, &[]).unwrap();
    let stem = Op::Conv(Conv { padding: [1; 4], bias: true, ..Conv::new(24, 3, 1) });
    let stem = graph.push("stem", stem, &[image]).unwrap();
    let depthwise = Op::Conv(Conv { padding: [2; 4], groups: 24, ..Conv::new(24, 5, 1) });
    let x = graph.push("depthwise", depthwise, &[stem]).unwrap();
    let x = graph.push("pointwise", Op::Conv(Conv::new(24, 1, 1)), &[x]).unwrap();
    let x = graph.push("add", Op::Add, &[stem, x]).unwrap();
    let dense = Op::Conv(Conv { padding: [1; 4], ..Conv::new(24, 3, 1) });
    let dense = graph.push("dense", dense, &[x]).unwrap();
    let x = graph.push("dense.add", Op::Add, &[x, dense]).unwrap();
    let x = graph.push("dense.act", Op::Act(Act::Relu), &[x]).unwrap();
    let x = graph.push("grouped", Op::Conv(Conv { groups: 2, ..Conv::new(64, 3, 2) }), &[x]).unwrap();
    let window = Pool { kernel: [3; 2], stride: [1; 2], padding: [1; 4], ceil_mode: false };
    let x = graph.push("max", Op::MaxPool(window), &[x]).unwrap();
    let x = graph.push("flatten", Op::Flatten, &[x]).unwrap();
    graph.push("head", Op::Linear { out_features: 40, bias: true }, &[x]).unwrap();
    let mut random = SplitMix(9);
    let weights = random_weights(&mut random, &graph);
    let input = random.values(2 * 32 * 32 * 3);
    let plan = Arc::new(PlanBuf::lower(&graph, &weights, 5).unwrap());
    let serial_plan = Arc::new(PlanBuf::lower(&graph, &weights, 1).unwrap());
    assert!(serial_plan.plan().arena_len <= plan.plan().arena_len);
    let fused = |step: &Step| matches!(step, Step::Winograd { residual: Some(_), act: Act::Relu, .. });
    assert!(plan.plan().steps.iter().any(fused), "the dense convolution takes what follows it in");
    let expected = run(&serial_plan, Isa::scalar(), &Serial, &input);
    let plain = interpret(&graph, &weights, &input, |_, _| {});
    assert!(expected.iter().zip(&plain).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4));
    for isa in Isa::available() {
        for _ in 0..5 {
            for threads in [2, 5] {
                assert!(run(&plan, isa, &Team(threads), &input) == expected, "{} {threads}", isa.name());
            }
        }
    }
}

#[test]
fn networks_beyond_any_memory_are_refused() {
    let mut graph = Graph::default();
    let image = graph.push("image", Op::Input { shape: [1, 1 << 14, 1 << 14, 1] }, &[]).unwrap();
    let parts: Vec<NodeId> = (0..5)
        .map(|index| graph.push(&format!("act{index}"), Op::Act(Act::Relu), &[image]).unwrap())
        .collect();
    let mut sum = parts[0];
    for (index, part) in parts[1..].iter().enumerate() {
        sum = graph.push(&format!("add{index}"), Op::Add, &[sum, *part]).unwrap();
    }
    let error = PlanBuf::lower(&graph, &Weights::new(), 1).unwrap_err().to_string();
    assert!(error.contains("values of memory, at most"), "{error}");
    let error = PlanBuf::lower(&Graph::default(), &Weights::new(), 1).unwrap_err().to_string();
    assert_eq!(error, "layer `input`: the graph is empty");
}
