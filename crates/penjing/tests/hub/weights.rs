//! Weights as a hub would have them.

use std::collections::BTreeMap;

use penjing::zoo::{self, Arch, Config};
use penjing_runtime::tensor::Tensor;

/// A safetensors file with random weights of the network of this name, under timm's keys and in PyTorch's order of axes.
pub fn state_dict(name: &str, classes: usize, seed: u64) -> Vec<u8> {
    let (arch, width) = Arch::named(name).unwrap();
    let form = arch.forms.iter().find(|form| form.of == "timm").unwrap();
    let graph = arch.graph(&Config { width, form, ..arch.config(classes) }).unwrap();
    let weights = zoo::random_weights(&graph, seed);
    let tensors = weights.iter().map(|(name, tensor)| (form.key(name).unwrap(), channels_first(tensor)));
    safetensors(&tensors.collect())
}

/// `[O, kh, kw, I]` → `[O, I, kh, kw]`.
fn channels_first(tensor: &Tensor) -> (Vec<usize>, Vec<f32>) {
    let ours = tensor.to_f32();
    let [out, kh, kw, channels] = tensor.shape[..] else { return (tensor.shape.clone(), ours) };
    let mut theirs = Vec::with_capacity(ours.len());
    for o in 0..out {
        for c in 0..channels {
            theirs.extend((0..kh * kw).map(|tap| ours[(o * kh * kw + tap) * channels + c]));
        }
    }
    (vec![out, channels, kh, kw], theirs)
}

/// The format is a length, a header of JSON, and the values.
fn safetensors(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<u8> {
    let (mut header, mut values) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, theirs)) in tensors {
        let start = values.len();
        values.extend(theirs.iter().flat_map(|value| value.to_le_bytes()));
        let entry =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, values.len()] });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()
}
