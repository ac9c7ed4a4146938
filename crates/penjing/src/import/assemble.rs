//! From a state dict to a model: keys mapped, axes put in order, nothing left over.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use penjing_runtime::{
    file::{Calibration, Model, Provenance},
    graph::Graph,
    pixels::Pixels,
    tensor::{Tensor, Weights},
};

use super::StateDict;
use crate::{
    Error, Result,
    zoo::{Arch, Config, Form},
};

/// What is not in the weights' file.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Multiplier of the channels.
    pub width: f64,
    /// Input size in pixels; the published one when `None`.
    pub size: Option<usize>,
    /// Whose form of the weights it is ([`Form::of`]); told by the keys when `None`.
    pub form: Option<String>,
    /// Class names; the numbers from 0 when `None`.
    pub labels: Option<Vec<String>>,
    /// Subtracted from each channel, in units of 0..=255; what the weights were trained on when `None`.
    pub mean: Option<[f32; 3]>,
    /// Divides each channel afterwards, in units of 0..=255; what the weights were trained on when `None`.
    pub std: Option<[f32; 3]>,
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
    let form = form_of(arch, &tensors, details.form.as_deref())?;
    let missing = |parameter: &str| {
        fault(format!("{} has no key for `{parameter}` in the form of {}", arch.name, form.of))
    };
    let key = |parameter: &str| form.key(parameter).ok_or_else(|| missing(parameter));
    let head = key("classifier.weight")?;
    let classes = match tensors.get(&head).map(|tensor| tensor.shape.as_slice()) {
        Some([classes, _] | [classes, _, 1, 1]) => *classes,
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
    let size = details.size.unwrap_or(arch.size);
    let config = Config { width: details.width, size, form, ..arch.config(classes) };
    let graph = arch.graph(&config)?;

    let mut weights = Weights::new();
    let mut faults = Vec::new();
    for (name, shape) in graph.parameters() {
        let key = key(&name)?;
        match tensors.remove(&key) {
            None => faults.push(format!("`{key}` is missing")),
            Some(tensor) => {
                let theirs = tensor.shape.clone();
                let tensor = laid_out(tensor, shape.len());
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
    mut pixels: Pixels,
    hash: String,
    details: Details,
) -> Result<Model> {
    let fault = |what: String| Error::model(path, what);
    pixels.mean = details.mean.unwrap_or(pixels.mean);
    pixels.std = details.std.unwrap_or(pixels.std);
    let classes = graph.output().map_or(0, |last| graph.shape(last)[3]);
    let labels = details.labels.unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect());
    if labels.len() != classes {
        let background = match labels.len().abs_diff(classes) {
            1 => {
                "; one of both may count a class `background` that the other does not, as the first of ImageNet's in \
                  TensorFlow: add that line to the labels, or take it out"
            }
            _ => "",
        };
        return Err(fault(format!("{} labels were given for {classes} classes{background}", labels.len())));
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

/// The form whose keys are most of the file's, the first of several; the one that was asked for where one was.
fn form_of(arch: &Arch, tensors: &BTreeMap<String, Tensor>, wanted: Option<&str>) -> Result<&'static Form> {
    if let Some(wanted) = wanted {
        return arch.forms.iter().find(|form| form.of == wanted).ok_or_else(|| {
            let names: Vec<&str> = arch.forms.iter().map(|form| form.of).collect();
            Error::Unsupported(format!("{} has no form `{wanted}`; it has {}", arch.name, names.join(", ")))
        });
    }
    let parameters = arch.graph(&arch.config(1))?.parameters();
    let fit = |form: &&Form| {
        parameters
            .iter()
            .filter(|(name, _)| form.key(name).is_some_and(|key| tensors.contains_key(&key)))
            .count()
    };
    // Of equals the last is the greatest to `max_by_key`.
    Ok(arch.forms.iter().rev().max_by_key(fit).expect("an architecture has a form"))
}

/// The tensor in the order of penjing's axes: a matrix, which a convolution of 1×1 may hold too, or
/// `[O, I, kh, kw]` → `[O, kh, kw, I]`. `None` if its axes are others.
fn laid_out(tensor: Tensor, axes: usize) -> Option<Tensor> {
    match (axes, &tensor.shape[..]) {
        (2, &[out, channels, 1, 1]) => Some(Tensor { shape: vec![out, channels], ..tensor }),
        (4, &[out, channels]) => Some(Tensor { shape: vec![out, 1, 1, channels], ..tensor }),
        (4, _) => channels_last(tensor),
        _ => Some(tensor),
    }
}

/// `[O, I, kh, kw]` → `[O, kh, kw, I]`. `None` if it has not four axes.
pub(super) fn channels_last(tensor: Tensor) -> Option<Tensor> {
    let [out, channels, kh, kw] = tensor.shape[..] else { return None };
    let taps = kh * kw;
    let from = |at: usize| {
        let (o, tap, c) = (at / (taps * channels), at / channels % taps, at % channels);
        (o * channels + c) * taps + tap
    };
    let data = tensor.data.gather((0..tensor.len()).map(from));
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
            let width = arch.widths.first().copied().unwrap_or(0.35);
            for form in arch.forms.iter().filter(|form| form.key("classifier.weight").is_some()) {
                let config = Config { width, size: 64, form, ..arch.config(5) };
                let weights = zoo::random_weights(&arch.graph(&config).unwrap(), 1);
                let tensors = weights.iter().map(|(name, w)| (form.key(name).unwrap(), channels_first(w)));
                let dict = StateDict { tensors: tensors.collect(), skipped: Vec::new(), hash: String::new() };
                assert_eq!(dict.tensors.len(), weights.len(), "{}: two layers have one key", arch.name);
                let form = Some(form.of.to_string());
                let mean = Some([1.0, 2.0, 3.0]);
                let details = Details { width, size: Some(64), form, mean, ..Details::default() };
                let model = assemble(Path::new("weights.pth"), dict, arch, details).unwrap();
                assert_eq!((model.pixels.mean, model.pixels.std), ([1.0, 2.0, 3.0], config.form.look.std));
                for (name, tensor) in &weights {
                    assert!(model.weights[name] == *tensor, "{}: {name}", arch.name);
                }
            }
        }
    }
}
