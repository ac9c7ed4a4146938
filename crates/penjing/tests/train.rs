//! Training against PyTorch in float64 (`scripts/goldens/train.py`).

use penjing::train::{
    loss::cross_entropy,
    parameters::{Gradients, Parameters},
    tape::{Policy, Statistics, Tape},
};
use penjing_runtime::{
    graph::{Graph, Node},
    tensor::{Tensor, Weights},
};
use safetensors::SafeTensors;
use serde_json::Value;

/// The two ways to normalize, as keys of the goldens.
const MODES: [(&str, Statistics); 2] = [("batch", Statistics::Batch), ("frozen", Statistics::Frozen)];
/// Relative errors of gradients are taken against at least this norm, as in the script.
const FLOOR: f64 = 1e-4;

struct Golden {
    bytes: Vec<u8>,
    graph: Graph,
    info: Value,
}

impl Golden {
    fn read(name: &str) -> Golden {
        let path = format!("{}/tests/goldens/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).expect("the golden file is in the repository");
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let nodes: Vec<Node> = serde_json::from_str(&metadata["graph"]).unwrap();
        let mut graph = Graph::default();
        for node in nodes {
            graph.push(&node.name, node.op, &node.inputs).unwrap();
        }
        Golden { info: serde_json::from_str(&metadata["info"]).unwrap(), graph, bytes }
    }

    fn get(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = file.tensor(name).unwrap_or_else(|_| panic!("{name}")).data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

fn step(
    tape: &mut Tape,
    parameters: &Parameters,
    input: &[f32],
    targets: &[f32],
) -> (Vec<f32>, f64, Gradients) {
    tape.prepare(parameters);
    tape.input().copy_from_slice(input);
    let logits = tape.forward(None).to_vec();
    let mut output = vec![0.0; logits.len()];
    let loss = cross_entropy(logits.len() / tape.batch(), &logits, targets, &mut output);
    let mut gradients = tape.gradients(parameters);
    tape.backward(&output, None, &mut gradients);
    tape.finish(parameters, &mut gradients);
    (logits, loss, gradients)
}

#[test]
fn gradients_of_every_operation() {
    let golden = Golden::read("train_every_op");
    let shapes = golden.graph.parameters();
    let weights: Weights = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = golden.get(&format!("weight.{name}"));
            (name, Tensor::f32(&shape, values))
        })
        .collect();
    let (input, targets) = (golden.get("input"), golden.get("target"));
    for (mode, statistics) in MODES {
        let mut parameters = Parameters::new(&golden.graph, &weights).unwrap();
        let mut tape = Tape::new(&golden.graph, &Policy::whole(statistics)).unwrap();
        let (logits, loss, gradients) = step(&mut tape, &parameters, &input, &targets);
        for (ours, theirs) in logits.iter().zip(golden.get(&format!("{mode}.logits"))) {
            assert!((ours - theirs).abs() <= 1e-4, "{mode}: logit {ours}, expected {theirs}");
        }
        let expected = f64::from(golden.get(&format!("{mode}.loss"))[0]);
        assert!((loss - expected).abs() <= 1e-5 * expected, "{mode}: loss {loss}, expected {expected}");
        let mut wrong = Vec::new();
        for (parameter, ours) in parameters.list.iter().zip(&gradients).filter(|(p, _)| p.kind.is_learnt()) {
            let theirs = golden.get(&format!("{mode}.grad.{}", parameter.name));
            assert_eq!(ours.len(), theirs.len(), "{}", parameter.name);
            let difference = norm(ours.iter().zip(&theirs).map(|(&a, &b)| f64::from(a) - f64::from(b)));
            let error = difference / norm(theirs.iter().map(|&v| f64::from(v))).max(FLOOR);
            let theirs = golden.info[mode]["errors"][&parameter.name].as_f64().unwrap();
            println!("{mode} {}: {error:.1e}, PyTorch's float32 {theirs:.1e}", parameter.name);
            if error.is_nan() || error > (2.0 * theirs).max(1e-3) {
                wrong.push(format!("{}: {error:.1e}", parameter.name));
            }
        }
        assert!(wrong.is_empty(), "{mode}: {wrong:?}");
        tape.follow_statistics(&mut parameters, 0.1);
        for parameter in parameters.list.iter().filter(|p| !p.kind.is_learnt()) {
            let theirs = match statistics {
                Statistics::Batch => golden.get(&format!("batch.updated.{}", parameter.name)),
                Statistics::Frozen => golden.get(&format!("weight.{}", parameter.name)),
            };
            for (ours, theirs) in parameter.values.iter().zip(theirs) {
                let near = (ours - theirs).abs() <= 1e-5 * theirs.abs().max(1.0);
                assert!(near, "{mode} {}: {ours}, expected {theirs}", parameter.name);
            }
        }
    }
}
