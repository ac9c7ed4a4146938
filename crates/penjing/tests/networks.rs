//! Whole networks against PyTorch (`scripts/goldens/networks.py`).

use std::path::{Path, PathBuf};

use penjing::{
    import::{self, Details},
    zoo::{self, Arch},
};
use penjing_runtime::{Isa, PlanBuf, Serial, Session, graph::Graph, tensor::Weights};
use safetensors::SafeTensors;

fn golden(name: &str) -> Vec<f32> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/networks.safetensors");
    let bytes = std::fs::read(path).expect("the golden file is in the repository");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Values −1..1 from SplitMix64, as the script draws them.
fn image(seed: u64, values: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..values).map(|_| next()).collect()
}

fn logits(graph: &Graph, weights: &Weights, x: &[f32], isa: Isa) -> Vec<f32> {
    let plan = PlanBuf::lower(graph, weights, 1).unwrap();
    let mut session = Session::new(plan.into(), isa);
    session.input().copy_from_slice(x);
    session.run(&Serial).to_vec()
}

fn close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len());
    let worst = ours.iter().zip(theirs).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("{what}: largest difference {worst:.2e}");
    assert!(worst <= tolerance, "{what}: differs by {worst}");
}

/// Logits of `arch` at these widths and sizes with random weights.
fn with_random_weights(arch: &str, forms: &[(f64, usize)]) {
    let arch = Arch::named(arch).unwrap().0;
    for &(width, size) in forms {
        let name = format!("{}_x{width:?}_{size}", arch.name);
        let graph = arch.graph(&zoo::Config { width, size, ..arch.config(1000) }).unwrap();
        let weights = zoo::random_weights(&graph, 3);
        let ours = logits(&graph, &weights, &image(4, size * size * 3), Isa::detect());
        let golden = golden(&name);
        let largest = golden.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        close(&name, &ours, &golden, 1e-4 * largest);
    }
}

#[test]
fn mobilenet_v1_of_any_width_and_size() {
    with_random_weights("mobilenet_v1", &[(1.0, 224), (0.25, 96), (0.75, 75), (0.25, 32)]);
}

#[test]
fn mobilenet_v2_of_any_width_and_size() {
    with_random_weights("mobilenet_v2", &[(1.0, 224), (0.35, 96), (1.4, 75)]);
}

fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PENJING_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn efficientnet_lite0_from_its_published_weights() {
    let Some(path) = shared("weights/efficientnet-lite0/efficientnet-lite0-57934424.pth") else { return };
    let dict = import::read_state_dict(&path).unwrap();
    let arch = Arch::named("efficientnet_lite0").unwrap().0;
    let model = import::assemble(&path, dict, arch, Details { width: 1.0, ..Details::default() }).unwrap();
    let half = model.clone().to_half();
    for (model, name) in [(&model, "lite0_f32"), (&half, "lite0_f16")] {
        let golden = golden(name);
        for (seed, theirs) in [1, 2].into_iter().zip(golden.chunks(1000)) {
            let x = image(seed, 224 * 224 * 3);
            close(name, &logits(&model.graph, &model.weights, &x, Isa::detect()), theirs, 1e-3);
        }
    }
}

#[test]
fn the_bundled_backbone_is_efficientnet_lite0() {
    let model = penjing::model::bundled().expect("tests are built with the backbone");
    let golden = golden("lite0_f16");
    for isa in Isa::available().filter(|isa| isa.name() != "scalar") {
        let ours = logits(&model.graph, &model.weights, &image(1, 224 * 224 * 3), isa);
        close(isa.name(), &ours, &golden[..1000], 1e-3);
    }
}
