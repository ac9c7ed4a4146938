//! What runs a graph, whole: the lowered plan beside the tape of training, and what a run costs beside arithmetic.

#[path = "../../penjing-runtime/tests/random_graphs/mod.rs"]
mod random_graphs;

use std::sync::Arc;

use penjing::{
    threads::Threads,
    train::{
        parameters::Parameters,
        tape::{Policy, Statistics, Tape},
    },
    zoo::{self, Config},
};
use penjing_runtime::{Isa, PlanBuf, Serial, Session};
use random_graphs::{SplitMix, random_graph, random_weights, size};

/// The plan folds normalization into the weights and fuses what it can; the tape under frozen statistics walks the graph.
#[test]
fn a_tape_under_frozen_statistics_computes_what_the_plan_computes() {
    for seed in 0..600 {
        let mut random = SplitMix(seed);
        let graph = random_graph(&mut random);
        let weights = random_weights(&mut random, &graph);
        let [_, h, w, c] = graph.input_shape().unwrap();
        let graph = graph.with_input([2, h, w, c]).unwrap();
        let input = random.values(size([2, h, w, c]));
        let parameters = Parameters::new(&graph, &weights).unwrap();
        let mut tape = Tape::new(&graph, &Policy::whole(Statistics::Frozen)).unwrap();
        tape.prepare(&parameters);
        tape.input().copy_from_slice(&input);
        let found = tape.forward(None).to_vec();
        let mut session = Session::new(Arc::new(PlanBuf::lower(&graph, &weights, 1).unwrap()), Isa::detect());
        session.input().copy_from_slice(&input);
        let expected = session.run(&Serial);
        assert_eq!(found.len(), expected.len(), "seed {seed}");
        let largest = expected.iter().fold(1f32, |largest, v| largest.max(v.abs()));
        for (index, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= 1e-5 * largest, "seed {seed}, value {index}: {a}, the plan says {b}");
        }
    }
}

#[test]
fn a_run_allocates_nothing() {
    let threads = Threads::new(Some(1)).unwrap();
    for arch in zoo::ARCHS {
        let config = Config { size: 64, ..arch.config(10) };
        let graph = arch.graph(&config).unwrap();
        let plan = PlanBuf::lower(&graph, &zoo::random_weights(&graph, 0), threads.count()).unwrap();
        let mut session = Session::new(Arc::new(plan), Isa::detect());
        let run = allocation_counter::measure(|| {
            session.input().fill(0.5);
            session.run(threads.workers());
        });
        assert_eq!((run.count_total, run.bytes_total), (0, 0), "{}", arch.name);
    }
    let some = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!(some.count_total, 1, "the counter counts");
}
