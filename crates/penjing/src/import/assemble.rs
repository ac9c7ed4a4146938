//! From a state dict to a model: keys mapped, axes put in order, nothing left over.

use std::{collections::BTreeSet, path::Path};

use penjing_runtime::{
    file::{Calibration, Model, Provenance},
    graph::Graph,
    pixels::Pixels,
    tensor::{Data, Tensor, Weights},
};

use super::StateDict;
use crate::{
    Error, Result,
    zoo::{Arch, Config},
};

/// What is not in the weights' file.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Multiplier of the channels.
    pub width: f64,
    /// Input size in pixels; the published one when `None`.
    pub size: Option<usize>,
    /// Class names; the numbers from 0 when `None`.
    pub labels: Option<Vec<String>>,
    /// Where the weights come from, in words.
    pub source: String,
    /// Their licence (SPDX), or "unknown".
    pub license: String,
}

/// Builds the model of an architecture from PyTorch's weights for it. `path` is named in errors.
///
/// # Errors
/// [`Error::Model`] listing the keys that are missing, of another shape, or not used: nothing is skipped silently.
pub fn assemble(path: &Path, dict: StateDict, arch: &Arch, details: Details) -> Result<Model> {
    let StateDict { mut tensors, hash, .. } = dict;
    let fault = |what: String| Error::model(path, what);
    let key = |parameter: &str| {
        arch.torch_key(parameter).ok_or_else(|| fault(format!("{} has no key for `{parameter}`", arch.name)))
    };
    let head = key("classifier.weight")?;
    let classes = match tensors.get(&head).map(|tensor| tensor.shape.as_slice()) {
        Some([classes, _]) => *classes,
        Some(other) => {
            return Err(fault(format!("`{head}` has shape {other:?}, expected [classes, features]")));
        }
        None => {
            let some: Vec<&str> = tensors.keys().take(3).map(String::as_str).collect();
            return Err(fault(format!(
                "these are no weights of {}: there is no `{head}`; the file has {} tensors, such as {}",
                arch.name,
                tensors.len(),
                some.join(", ")
            )));
        }
    };
    let config =
        Config { width: details.width, size: details.size.unwrap_or(arch.size), ..arch.config(classes) };
    let graph = arch.graph(&config)?;

    let mut weights = Weights::new();
    let mut faults = Vec::new();
    for (name, shape) in graph.parameters() {
        let key = key(&name)?;
        match tensors.remove(&key) {
            None => faults.push(format!("`{key}` is missing")),
            Some(tensor) => {
                let theirs = tensor.shape.clone();
                let tensor = if shape.len() == 4 { channels_last(tensor) } else { Some(tensor) };
                match tensor {
                    Some(tensor) if tensor.shape == shape => {
                        weights.insert(name, tensor);
                    }
                    _ => faults.push(format!(
                        "`{key}` has shape {theirs:?}, which does not fit {shape:?} of `{name}`"
                    )),
                }
            }
        }
    }
    faults.extend(tensors.keys().map(|key| format!("`{key}` is not part of {}", arch.name)));
    if !faults.is_empty() {
        let count = faults.len();
        let more = if count > 8 { format!("; and {} more", count - 8) } else { String::new() };
        faults.truncate(8);
        return Err(fault(format!(
            "{count} keys do not fit {} at width {}: {}{more}",
            arch.name,
            details.width,
            faults.join("; ")
        )));
    }

    model(path, arch.name_at(details.width), graph, weights, arch.pixels(&config), hash, details)
}

/// The model of a graph and its weights. `path` is named in errors, `hash` is that of the file they come from.
///
/// # Errors
/// [`Error::Model`] where labels, pixels, graph and weights do not fit each other.
pub(super) fn model(
    path: &Path,
    arch: String,
    graph: Graph,
    weights: Weights,
    pixels: Pixels,
    hash: String,
    details: Details,
) -> Result<Model> {
    let fault = |what: String| Error::model(path, what);
    let classes = graph.output().map_or(0, |last| graph.shape(last)[3]);
    let labels = details.labels.unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect());
    if labels.len() != classes {
        return Err(fault(format!("{} labels were given for {classes} classes", labels.len())));
    }
    if labels.iter().collect::<BTreeSet<_>>().len() != classes {
        return Err(fault("two classes have the same label".to_string()));
    }
    let model = Model {
        arch,
        pixels,
        graph,
        weights,
        labels,
        calibration: Calibration { temperature: 1.0 },
        provenance: Provenance {
            penjing: env!("CARGO_PKG_VERSION").to_string(),
            backbone: details.source,
            license: details.license,
            backbone_hash: hash,
            recipe: vec!["import".to_string()],
            ..Provenance::default()
        },
    };
    model.check().map_err(|error| fault(error.to_string()))?;
    Ok(model)
}

/// `[O, I, kh, kw]` → `[O, kh, kw, I]`. `None` if it has not four axes.
pub(super) fn channels_last(tensor: Tensor) -> Option<Tensor> {
    let [out, channels, kh, kw] = tensor.shape[..] else { return None };
    fn reorder<T: Copy>(values: &[T], [out, channels, taps]: [usize; 3]) -> Vec<T> {
        let mut reordered = Vec::with_capacity(values.len());
        for o in 0..out {
            for tap in 0..taps {
                reordered.extend((0..channels).map(|c| values[(o * channels + c) * taps + tap]));
            }
        }
        reordered
    }
    let extents = [out, channels, kh * kw];
    let data = match &tensor.data {
        Data::F32(values) => Data::F32(reorder(values, extents)),
        Data::F16(values) => Data::F16(reorder(values, extents)),
    };
    Some(Tensor { shape: vec![out, kh, kw, channels], data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo;

    /// `[O, kh, kw, I]` → `[O, I, kh, kw]`, index by index.
    fn channels_first(tensor: &Tensor) -> Tensor {
        let [out, kh, kw, channels] = tensor.shape[..] else { return tensor.clone() };
        let ours = tensor.to_f32();
        let mut theirs = vec![0.0; ours.len()];
        for (at, value) in ours.into_iter().enumerate() {
            let (c, x) = (at % channels, at / channels % kw);
            let (y, o) = (at / channels / kw % kh, at / channels / kw / kh);
            theirs[((o * channels + c) * kh + y) * kw + x] = value;
        }
        Tensor::f32(&[out, channels, kh, kw], theirs)
    }

    #[test]
    fn every_weight_finds_its_layer_and_its_axes() {
        for arch in zoo::ARCHS {
            let config = Config { width: 0.35, size: 64, ..arch.config(5) };
            let weights = zoo::random_weights(&arch.graph(&config).unwrap(), 1);
            let tensors = weights.iter().map(|(name, w)| (arch.torch_key(name).unwrap(), channels_first(w)));
            let dict = StateDict { tensors: tensors.collect(), skipped: Vec::new(), hash: String::new() };
            let details = Details { width: 0.35, size: Some(64), ..Details::default() };
            let model = assemble(Path::new("weights.pth"), dict, arch, details).unwrap();
            for (name, tensor) in &weights {
                assert!(model.weights[name] == *tensor, "{}: {name}", arch.name);
            }
        }
    }
}
