//! Gradients and ten steps of training on given tensors, for comparison with another framework on the very same ones.
//!
//! `cargo run --release --example train_step -- FOLDER batch|frozen` reads `FOLDER/graph.json` (the nodes, with the batch
//! size in the input's shape) and, little-endian, `FOLDER/weights.f32` (in the graph's order), `FOLDER/inputs.f32`
//! (`[steps][N,H,W,C]`) and `FOLDER/targets.f32` (`[steps][N,classes]`). It writes `FOLDER/gradients.f32`, those of the
//! first batch in the order of the weights without running statistics, and prints the loss of each step of AdamW:
//! rates 1e-4 and, for the classifier, 1e-3, decay 0.02, norm clipped to 1.

use std::{error::Error, fs, path::Path};

use penjing::train::{
    learner::{Learner, Method},
    loss::cross_entropy,
    optimizer::{Rates, Rule},
    parameters::Parameters,
    tape::{Policy, Statistics, Tape},
};
use penjing_runtime::{
    graph::{Graph, Node},
    tensor::{Tensor, Weights},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: train_step FOLDER batch|frozen";
    let [folder, statistics] = &args[..] else { return Err(usage.into()) };
    let policy = Policy::whole(match statistics.as_str() {
        "batch" => Statistics::Batch,
        "frozen" => Statistics::Frozen,
        _ => return Err(usage.into()),
    });
    let folder = Path::new(folder);

    let nodes: Vec<Node> = serde_json::from_slice(&fs::read(folder.join("graph.json"))?)?;
    let mut graph = Graph::default();
    for node in nodes {
        graph.push(&node.name, node.op, &node.inputs)?;
    }
    let values = floats(&folder.join("weights.f32"))?;
    let (mut weights, mut rest) = (Weights::new(), &values[..]);
    for (name, shape) in graph.parameters() {
        let (own, others) =
            rest.split_at_checked(shape.iter().product()).ok_or("weights.f32 is too short")?;
        weights.insert(name, Tensor::f32(&shape, own.to_vec()));
        rest = others;
    }
    let parameters = Parameters::new(&graph, &weights)?;

    let input_len = graph.input_shape().ok_or("the graph is empty")?.iter().product();
    let output = graph.shape(graph.output().ok_or("the graph is empty")?);
    let (inputs, targets) = (floats(&folder.join("inputs.f32"))?, floats(&folder.join("targets.f32"))?);
    let batches = || inputs.chunks_exact(input_len).zip(targets.chunks_exact(output[0] * output[3]));

    let (input, target) = batches().next().ok_or("no batch")?;
    let mut tape = Tape::new(&graph, &policy)?;
    tape.prepare(&parameters);
    tape.input().copy_from_slice(input);
    let mut slope = vec![0.0; target.len()];
    cross_entropy(output[3], tape.forward(None), target, &mut slope);
    let mut gradients = tape.gradients(&parameters);
    tape.backward(&slope, None, &mut gradients);
    tape.finish(&parameters, &mut gradients);
    drop(tape);
    let bytes: Vec<u8> = gradients.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(folder.join("gradients.f32"), bytes)?;

    let method = Method {
        rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        decay: 0.02,
        clip: Some(1.0),
        rates: Rates { head: 1e-3, last: 1e-4, middle: 1e-4, first: 1e-4 },
        policy,
        momentum: 0.1,
    };
    let mut learner = Learner::new(&graph, parameters, &method)?;
    for (input, target) in batches() {
        println!("{}", learner.step(input, target, 0, 1.0));
    }
    Ok(())
}

fn floats(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}
