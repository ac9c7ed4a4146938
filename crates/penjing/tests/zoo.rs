//! Every network of the zoo in every form of its weights, against torchvision, timm and others (`scripts/goldens/zoo.py`).
//!
//! A network that is registered has its rows in the goldens, or these tests fail.

mod split_mix;

use std::{collections::BTreeMap, path::Path};

use penjing::{
    import::{self, Details, StateDict},
    train::{
        loss::cross_entropy,
        parameters::Parameters,
        tape::{Policy, Statistics, Tape},
    },
    zoo::{ARCHS, Arch, Config, Form},
};
use penjing_runtime::{
    Isa, PlanBuf, Serial, Session, cost,
    graph::Graph,
    op::Op,
    tensor::{Tensor, Weights},
};
use safetensors::SafeTensors;
use split_mix::split_mix;

const CLASSES: usize = 10;

/// Values −1..1, as the script draws them.
fn uniform(seed: u64, count: usize) -> Vec<f32> {
    let mut next = split_mix(seed);
    (0..count).map(|_| (next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// The script's tensor of this key: `[O, I, kh, kw]`, `[O, I]` or a vector.
fn values(key: &str, shape: &[usize]) -> Tensor {
    let mut u = uniform(fnv1a(key), shape.iter().product());
    let bound = (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt();
    let name = key.rsplit('.').next().unwrap();
    for value in &mut u {
        *value = match name {
            _ if shape.len() > 1 => *value * bound,
            "running_var" | "var" | "weight" | "gamma" => 1.0 + 0.25 * *value,
            _ => 0.1 * *value,
        };
    }
    Tensor::f32(shape, u)
}

/// The weights as PyTorch would have written them down.
fn state_dict(graph: &Graph, form: &Form) -> StateDict {
    let mut tensors = BTreeMap::new();
    for (name, shape) in graph.parameters() {
        let theirs = match shape[..] {
            [out, kh, kw, channels] => vec![out, channels, kh, kw],
            _ => shape,
        };
        let key = form.key(&name).unwrap_or_else(|| panic!("{name} has no key"));
        tensors.insert(key.clone(), values(&key, &theirs));
    }
    StateDict { tensors, skipped: Vec::new(), hash: String::new() }
}

fn logits(graph: &Graph, weights: &Weights, x: &[f32]) -> Vec<f32> {
    let plan = PlanBuf::lower(graph, weights, 1).unwrap();
    let mut session = Session::new(plan.into(), Isa::detect());
    session.input().copy_from_slice(x);
    session.run(&Serial).to_vec()
}

#[test]
fn logits_are_those_of_the_reference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/zoo.safetensors");
    let bytes = std::fs::read(path).expect("the golden file is in the repository");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = Vec::new();
    for case in file.names() {
        let (name, of) = case.split_once('@').unwrap();
        let (name, size) = name.rsplit_once('_').unwrap();
        let (arch, width) = Arch::named(name).unwrap();
        let size = size.parse().unwrap();
        let form = arch.forms.iter().find(|form| form.of == of).unwrap_or_else(|| panic!("{case}"));
        let graph = arch.graph(&Config { width, size, form, ..arch.config(CLASSES) }).unwrap();
        let details = Details { width, size: Some(size), form: Some(of.to_string()), ..Details::default() };
        let model =
            import::assemble(Path::new("weights.pth"), state_dict(&graph, form), arch, details).unwrap();
        let ours = logits(&model.graph, &model.weights, &uniform(4, size * size * 3));
        let (golden, _) = golden(&file, case);
        let largest = golden.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let worst = ours.iter().zip(&golden).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("{case}: {:.1e} of the largest logit", worst / largest);
        assert!(worst <= 1e-4 * largest, "{case}: differs by {worst} of {largest}: {ours:?}");
        seen.push((arch.name, of.to_string()));
    }
    for arch in ARCHS {
        for form in arch.forms {
            assert!(
                seen.contains(&(arch.name, form.of.to_string())),
                "{} @ {}: no golden",
                arch.name,
                form.of
            );
        }
    }
}

/// Floats of a golden, and the length of its rows.
fn golden(file: &SafeTensors<'_>, name: &str) -> (Vec<f32>, usize) {
    let tensor = file.tensor(name).unwrap();
    let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    (values.collect(), *tensor.shape().last().unwrap())
}

/// `[O, kh, kw, I]` as `[O, I, kh, kw]`.
fn channels_first(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [out, kh, kw, channels] = *shape else { return values.to_vec() };
    let taps = kh * kw;
    let at = |o, c, tap| values[(o * taps + tap) * channels + c];
    let places = (0..out).flat_map(|o| (0..channels).map(move |c| (o, c)));
    places.flat_map(|(o, c)| (0..taps).map(move |tap| at(o, c, tap))).collect()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// Both sides are float32 against float64. A gate that rounding turns over changes all gradients before it; in which layer
/// that happens is chance, so PyTorch's float32 is given by its worst parameter.
#[test]
fn a_training_step_of_each_family_is_the_reference_s() {
    const BATCH: usize = 8;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/zoo_steps.safetensors");
    let bytes = std::fs::read(path).expect("the golden file is in the repository");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.len() >= 20);
    for case in file.names() {
        let (network, mode) = case.split_once(':').unwrap();
        let (name, of) = network.split_once('@').unwrap();
        let (name, size) = name.rsplit_once('_').unwrap();
        let ((arch, width), size) = (Arch::named(name).unwrap(), size.parse().unwrap());
        let form = arch.forms.iter().find(|form| form.of == of).unwrap();
        let built = arch.graph(&Config { width, size, form, ..arch.config(CLASSES) }).unwrap();
        let details = Details { width, size: Some(size), form: Some(of.to_string()), ..Details::default() };
        let model =
            import::assemble(Path::new("weights.pth"), state_dict(&built, form), arch, details).unwrap();
        // The golden is without dropout.
        let mut graph = Graph::default();
        for node in model.graph.nodes() {
            let op = match &node.op {
                Op::Input { .. } => Op::Input { shape: [BATCH, size, size, 3] },
                Op::Dropout { .. } => Op::Dropout { rate: 0.0 },
                op => op.clone(),
            };
            graph.push(&node.name, op, &node.inputs).unwrap();
        }
        let statistics = if mode == "batch" { Statistics::Batch } else { Statistics::Frozen };
        let parameters = Parameters::new(&graph, &model.weights).unwrap();
        let mut tape = Tape::new(&graph, &Policy::whole(statistics)).unwrap();
        tape.prepare(&parameters);
        tape.input().copy_from_slice(&uniform(4, BATCH * size * size * 3));
        let logits = tape.forward(None).to_vec();
        let mut targets = vec![0.0; BATCH * CLASSES];
        (0..BATCH).for_each(|image| targets[image * CLASSES + image] = 1.0);
        let mut output = vec![0.0; logits.len()];
        let loss = cross_entropy(CLASSES, &logits, &targets, &mut output);
        let mut gradients = tape.gradients(&parameters);
        tape.backward(&output, None, &mut gradients);
        tape.finish(&parameters, &mut gradients);

        let mut ours = BTreeMap::new();
        for (parameter, gradient) in parameters.list.iter().zip(&gradients) {
            if parameter.kind.is_learnt() {
                let shape = &model.weights[&parameter.name].shape;
                ours.insert(form.key(&parameter.name).unwrap(), channels_first(gradient, shape));
            }
        }
        let (rows, width) = golden(&file, case);
        let mut rows = rows.chunks_exact(width);
        let expected = f64::from(rows.next().unwrap()[0]);
        assert!((loss - expected).abs() <= 1e-4 * expected, "{case}: loss {loss}, expected {expected}");
        assert_eq!(rows.len(), ours.len(), "{case}");
        let float32 = rows.clone().map(|row| f64::from(row[1])).fold(0.0, f64::max);
        let mut worst = 0.0f64;
        for ((key, gradient), row) in ours.iter().zip(rows) {
            let sums = &row[2..];
            let differences = sums.iter().enumerate().map(|(r, &theirs)| {
                let mut next = split_mix(fnv1a(key).wrapping_add(r as u64));
                let signed =
                    gradient.iter().map(|&g| if next() >> 63 == 1 { -f64::from(g) } else { f64::from(g) });
                signed.sum::<f64>() - f64::from(theirs)
            });
            let error = norm(differences) / (sums.len() as f64).sqrt() / f64::from(row[0]);
            // Four sums tell the error's size up to chance; one gate may turn over where none did in PyTorch's.
            assert!(error <= (4.0 * float32).max(3e-3), "{case} {key}: {error:.1e}, float32 {float32:.1e}");
            worst = worst.max(error);
        }
        println!("{case}: up to {worst:.1e} away, PyTorch's float32 {float32:.1e}");
    }
}

#[test]
fn parameters_and_multiplications_are_the_reference_s() {
    let mut seen = Vec::new();
    for line in include_str!("goldens/costs.csv").lines().skip(1) {
        let [name, width, size, params, macs] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let arch = Arch::named(name).unwrap().0;
        let (width, size) = (width.parse().unwrap(), size.parse().unwrap());
        let classes = if name == "resnet8" { 10 } else { 1000 };
        let graph = arch.graph(&Config { width, size, ..arch.config(classes) }).unwrap();
        let layers = cost::layers(&graph);
        let found =
            (layers.iter().map(|l| l.params).sum::<u64>(), layers.iter().map(|l| l.macs).sum::<u64>());
        assert_eq!(found, (params.parse().unwrap(), macs.parse().unwrap()), "{line}");
        if size == arch.size && width == 1.0 {
            seen.push(arch.name);
        }
    }
    for arch in ARCHS {
        assert!(seen.contains(&arch.name), "{}: no costs", arch.name);
    }
}
