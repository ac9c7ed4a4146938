//! Every network of the zoo in every form of its weights, against torchvision, timm and others (`scripts/goldens/zoo.py`).
//!
//! A network that is registered has its rows in the goldens, or these tests fail.

use std::{collections::BTreeMap, path::Path};

use penjing::{
    import::{self, Details, StateDict},
    zoo::{ARCHS, Arch, Config, Form},
};
use penjing_runtime::{
    Isa, PlanBuf, Serial, Session, cost,
    graph::Graph,
    tensor::{Tensor, Weights},
};
use safetensors::SafeTensors;

const CLASSES: usize = 10;

/// Values −1..1 from SplitMix64, as the script draws them.
fn uniform(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
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
    for (case, golden) in file.tensors() {
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
        let golden = golden.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let golden: Vec<f32> = golden.collect();
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
