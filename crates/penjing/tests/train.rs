//! Training against PyTorch in float64 (`scripts/goldens/train.py`, `scripts/goldens/qat.py`).

mod split_mix;

use penjing::{
    compress::{ptq::Rounding, qat::Integers},
    train::{
        learner::{Learner, Method, Projection},
        loss::{cross_entropy, smoothed},
        optimizer::{Rates, Rule},
        parameters::{Gradients, Parameters},
        tape::{Policy, Statistics, Tape},
    },
};
use penjing_runtime::{
    file::Model,
    graph::{Graph, Node},
    tensor::{Tensor, Weights},
};
use safetensors::SafeTensors;
use serde_json::Value;
use split_mix::split_mix;

/// The two ways to normalize, as keys of the goldens.
const MODES: [(&str, Statistics); 2] = [("batch", Statistics::Batch), ("frozen", Statistics::Frozen)];
/// Relative errors of gradients are taken against at least this norm, as in the script.
const FLOOR: f64 = 1e-4;
/// Projections of each of Lite0's gradients.
const PROJECTIONS: usize = 32;

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
            let id = graph.push(&node.name, node.op, &node.inputs).unwrap();
            graph.set_quant(id, node.quant).unwrap();
        }
        Golden { info: serde_json::from_str(&metadata["info"]).unwrap(), graph, bytes }
    }

    fn get(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = file.tensor(name).unwrap_or_else(|_| panic!("{name}")).data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// The tensors `weight.NAME`.
    fn parameters(&self) -> Parameters {
        let shapes = self.graph.parameters().into_iter();
        let weights: Weights = shapes
            .map(|(name, shape)| {
                let values = self.get(&format!("weight.{name}"));
                (name, Tensor::f32(&shape, values))
            })
            .collect();
        Parameters::new(&self.graph, &weights).unwrap()
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
    let (input, targets) = (golden.get("input"), golden.get("target"));
    for (mode, statistics) in MODES {
        let mut parameters = golden.parameters();
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

/// Weights and results that are rounded, and gradients that go straight through where nothing was cut off.
#[test]
fn a_step_of_fake_quantization() {
    let golden = Golden::read("qat");
    let parameters = golden.parameters();
    let projection = Integers { graph: golden.graph.clone(), rounding: Rounding::recommended() };
    let rounded = parameters.with(&projection.project(&parameters, 1.0));
    let moved = |name: &str| {
        let place = parameters.position(name).unwrap();
        rounded.list[place].values != parameters.list[place].values
    };
    assert!(moved("depth.weight") && !moved("depth.bias"));
    let policy = Policy::whole(Statistics::Frozen);
    let mut tape = Tape::new(&golden.graph, &policy).unwrap();
    let (input, targets) = (golden.get("input"), golden.get("target"));
    let (logits, loss, gradients) = step(&mut tape, &rounded, &input, &targets);
    for (ours, theirs) in logits.iter().zip(golden.get("logits")) {
        assert!((ours - theirs).abs() <= 1e-5, "logit {ours}, expected {theirs}");
    }
    let expected = golden.get("loss")[0];
    assert!((loss as f32 - expected).abs() <= 1e-5, "loss {loss}, expected {expected}");
    for (parameter, ours) in parameters.list.iter().zip(&gradients) {
        let theirs = golden.get(&format!("grad.{}", parameter.name));
        let norm = norm(theirs.iter().map(|&v| f64::from(v)));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let off = f64::from((ours - theirs).abs());
            assert!(off <= 1e-4 * norm, "{}: {ours}, expected {theirs}", parameter.name);
        }
        assert!(norm > 0.0, "{}", parameter.name);
    }
}

/// Lite0's batch of a step, as the script makes it.
fn lite0_batch(step: u64) -> (Vec<f32>, Vec<f32>) {
    let mut next = split_mix(100 + step);
    let grid: Vec<f32> =
        (0..8 * 12 * 12 * 3).map(|_| (next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
    let mut input = Vec::with_capacity(8 * 96 * 96 * 3);
    for image in 0..8 {
        for (y, x) in (0..96).flat_map(|y| (0..96).map(move |x| (y, x))) {
            let cell = ((image * 12 + y / 8) * 12 + x / 8) * 3;
            input.extend_from_slice(&grid[cell..cell + 3]);
        }
    }
    let mut targets = vec![0.0; 80];
    for (image, row) in targets.chunks_exact_mut(10).enumerate() {
        smoothed((3 * image + step as usize) % 10, 0.1, row);
    }
    (input, targets)
}

fn lite0_parameters(golden: &Golden) -> Parameters {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../penjing-weights/efficientnet_lite0.penjing");
    let model = Model::from_bytes(&std::fs::read(path).unwrap()).unwrap();
    let mut weights = model.weights;
    for (name, shape) in golden.graph.parameters().into_iter().filter(|(n, _)| n.starts_with("classifier.")) {
        let values = golden.get(&name);
        weights.insert(name, Tensor::f32(&shape, values));
    }
    Parameters::new(&golden.graph, &weights).unwrap()
}

/// Lite0 as it is, and with SiLU in the place of ReLU6.
const LITE0: [&str; 2] = ["train_lite0", "train_lite0_silu"];

/// A ReLU6 gate that rounding turns over changes all gradients before it by 1e-3 or so; in which layer that happens is
/// chance, so with ReLU6 PyTorch's float32 is given by its worst parameter. SiLU has no gates, and each stands for itself.
#[test]
fn gradients_of_lite0() {
    for name in LITE0 {
        let golden = Golden::read(name);
        let parameters = lite0_parameters(&golden);
        let (input, targets) = lite0_batch(0);
        for (mode, statistics) in MODES {
            let mut tape = Tape::new(&golden.graph, &Policy::whole(statistics)).unwrap();
            let (_, loss, gradients) = step(&mut tape, &parameters, &input, &targets);
            let expected = golden.info[mode]["loss"].as_f64().unwrap();
            assert!((loss - expected).abs() <= 1e-4 * expected, "{mode}: loss {loss}, expected {expected}");
            let float32 = golden.info[mode]["errors"].as_object().unwrap();
            let worst = float32.values().map(|v| v.as_f64().unwrap()).fold(0.0, f64::max);
            let mut wrong = Vec::new();
            for (index, (parameter, ours)) in parameters.list.iter().zip(&gradients).enumerate() {
                if !parameter.kind.is_learnt() {
                    continue;
                }
                let error = projected_error(&golden, mode, index, &parameter.name, ours);
                let theirs =
                    if name == LITE0[0] { worst } else { float32[&parameter.name].as_f64().unwrap() };
                println!("{name} {mode} {}: {error:.1e}, PyTorch's float32 {theirs:.1e}", parameter.name);
                if error.is_nan() || error > (2.0 * theirs).max(1e-3) {
                    wrong.push(format!("{}: {error:.1e}", parameter.name));
                }
            }
            assert!(wrong.is_empty(), "{name} {mode}: {wrong:?}");
        }
    }
}

/// ‖ours − float64's‖ / ‖float64's‖: the mean square of projections on random signs is the squared norm, up to chance.
fn projected_error(golden: &Golden, mode: &str, index: usize, name: &str, ours: &[f32]) -> f64 {
    let theirs = golden.get(&format!("{mode}.projections.{name}"));
    let differences = theirs.iter().enumerate().map(|(r, &theirs)| {
        let mut next = split_mix((index * PROJECTIONS + r) as u64);
        let signed = ours.iter().map(|&g| if next() >> 63 == 1 { -f64::from(g) } else { f64::from(g) });
        signed.sum::<f64>() - f64::from(theirs)
    });
    let difference = norm(differences) / (PROJECTIONS as f64).sqrt();
    difference / f64::from(golden.get(&format!("{mode}.norm.{name}"))[0]).max(FLOOR)
}

/// Rounding grows from step to step, so the bound at each is three times the most that it has made of PyTorch's float32
/// up to there; with ReLU6, where gates turn over in some step or other, in all ten steps.
#[test]
fn steps_of_lite0() {
    for golden in LITE0 {
        let file = Golden::read(golden);
        for (mode, statistics) in MODES {
            let adamw = Method {
                rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
                decay: 0.02,
                clip: Some(1.0),
                rates: Rates { head: 1e-3, last: 1e-4, middle: 1e-4, first: 1e-4 },
                policy: Policy::whole(statistics),
                momentum: 0.1,
            };
            let sgd = Method {
                rule: Rule::Sgd { momentum: 0.9, nesterov: true },
                decay: 5e-5,
                rates: Rates { head: 0.01, last: 0.01, middle: 0.01, first: 0.01 },
                ..adamw
            };
            for (name, method) in [("adamw", adamw), ("sgd", sgd)] {
                let mut learner = Learner::new(&file.graph, lite0_parameters(&file), &method).unwrap();
                let losses = |key: &str| -> Value { file.info[mode][format!("{name}{key}")].clone() };
                let exact: Vec<f64> = serde_json::from_value(losses("64")).unwrap();
                let float32: Vec<Vec<f64>> = serde_json::from_value(losses("32")).unwrap();
                let deviation = |step: usize| {
                    float32.iter().map(|run| (run[step] - exact[step]).abs()).fold(1e-5, f64::max)
                };
                for (step, &exact) in exact.iter().enumerate() {
                    let (input, targets) = lite0_batch(step as u64);
                    let loss = learner.step(&input, &targets, 0, 1.0);
                    let steps = if golden == LITE0[0] { 0..10 } else { 0..step + 1 };
                    let rounding = steps.map(deviation).fold(0.0, f64::max);
                    let error = (loss - exact).abs();
                    println!(
                        "{golden} {mode} {name} {step}: {loss:.6}, float64 {exact:.6}, off by {error:.1e}, \
                         PyTorch's float32 up to {rounding:.1e}"
                    );
                    assert!(
                        error <= 3.0 * rounding,
                        "{golden} {mode} {name}, step {step}: {loss}, expected {exact}"
                    );
                }
            }
        }
    }
}
