//! Quantization-aware training (Jacob et al., arXiv 1712.05877): the network learns while it computes as 8 bits will.
//!
//! It begins where [`ptq`] ends, with the same grids and corrected biases. Before every step the weights are
//! rounded by the rule that makes integers of them, and in the step every result that is kept in 8 bits is rounded to its
//! grid (`train::tape`). Gradients go straight through both (Bengio et al., arXiv 1308.3432). BatchNorm has been folded into
//! the layers, so that statistics stay as they are; grids stay too. The network in floats is the teacher (Mishra and
//! Marr, arXiv 1711.05852), beside the labels.

use std::{path::PathBuf, sync::Arc, time::Instant};

use penjing_runtime::{
    file::Model,
    graph::Graph,
    tensor::{Data, Weights},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{gate, ptq, ptq::Rounding, unsupported};
use crate::{
    Error, Result,
    data::{Dataset, Part, Sample, Skipped},
    progress::Progress,
    threads::Threads,
    train::{
        augment::Augment,
        checkpoint::{Identity, Keeper, Tensors},
        distill::{Distill, Soft},
        feed::{self, Photo},
        learner::Quantizer,
        memory,
        mix::Mix,
        optimizer::{Rates, Rule},
        parameters::Parameters,
        tape::Statistics,
        teacher::Teacher,
        trainer::{self, Job, Recipe, Standing, Watch},
    },
};

/// Whether, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// When a network is trained.
    pub when: When,
    /// How often every photo is seen; `None`: the fewer photos there are, the more often.
    pub epochs: Option<u32>,
    /// AdamW's rate at its highest.
    pub rate: f32,
    /// Where a state is kept from which the training goes on.
    pub part: Option<PathBuf>,
    /// Whether a state of other training is thrown away.
    pub force: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { when: When::default(), epochs: None, rate: 1e-4, part: None, force: false }
    }
}

/// When a network is trained as 8 bits will compute it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// When its accuracy falls by more than is allowed.
    #[default]
    Auto,
    /// Not at all.
    Never,
    /// In any case.
    Always,
}

/// What the training did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Taught {
    /// How often every photo was seen.
    pub epochs: f64,
    /// Steps that were taken.
    pub steps: u64,
    /// Photos of a step.
    pub batch: usize,
    /// AdamW's rate at its highest.
    pub rate: f32,
    /// Photos that it learnt from.
    pub photos: usize,
    /// How long it took.
    pub seconds: f64,
    /// Accuracy on the photos that judge before it, 0..1.
    pub top1_before: f64,
    /// And after it; `None` if it came to no end.
    pub top1_after: Option<f64>,
    /// Whether the network that has learnt is the better one.
    pub kept: bool,
    /// Why it came to no end.
    pub stopped: Option<String>,
}

impl Taught {
    /// In words, for the model's provenance.
    pub(super) fn describe(&self) -> String {
        let percent = |top1: f64| format!("{:.2} %", 100.0 * top1);
        let after = match (self.top1_after, &self.stopped) {
            (Some(after), _) => format!("{} after", percent(after)),
            (None, why) => why.clone().unwrap_or_default(),
        };
        format!(
            "{}quantization-aware training of {} epochs ({} steps of {} photos, AdamW at {:e}, BatchNorm folded, under the \
             floats as teacher), top-1 {} before it, {after}",
            if self.kept { "" } else { "not kept: " },
            self.epochs,
            self.steps,
            self.batch,
            self.rate,
            percent(self.top1_before),
        )
    }
}

/// Integers for the weights of some layers, as [`ptq`] makes them.
#[derive(Clone, Debug)]
pub struct Integers {
    /// The network, with its grids and a bias in every layer.
    pub graph: Graph,
    /// How weights become integers; biases are left alone.
    pub rounding: Rounding,
}

impl Quantizer for Integers {
    fn quantize(&self, learnt: &Parameters) -> Weights {
        let mut weights = learnt.to_weights();
        let layers: Vec<_> = self.graph.iter().collect();
        let rounded = layers.par_iter().filter_map(|(id, node)| {
            let integers = ptq::integers(&self.graph, &weights, *id, &self.rounding)?;
            Some((format!("{}.weight", node.name), integers))
        });
        let rounded: Vec<_> = rounded.collect();
        weights.extend(rounded);
        weights
    }
}

/// The start of the training.
pub(super) struct Start<'a> {
    /// The model in floats.
    pub model: &'a Model,
    /// Its network with folded BatchNorm: the weights.
    pub floats: &'a Weights,
    /// The same in 8 bits.
    pub graph: &'a Graph,
    pub integers: &'a Weights,
    /// How its weights became integers.
    pub rounding: &'a Rounding,
    /// Accuracy on the photos that judge.
    pub top1: f64,
}

/// What came of it.
pub(super) struct Learnt {
    /// Integers, and floats of what has none; `None` if the training came to no end.
    pub weights: Option<Weights>,
    pub taught: Taught,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
}

/// The state that is kept, beside tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    standing: Standing,
    /// Seconds that the training has taken before.
    seconds: f64,
}

/// Trains; `asked` tells other work apart.
///
/// # Errors
/// [`Error::Unsupported`] when the network cannot be trained; [`Error::Data`] when there is nothing to learn from;
/// [`Error::Model`] for the state of other work; [`Error::Interrupted`], and a state has been kept then.
pub(super) fn train(
    start: &Start,
    data: &Dataset,
    options: &Options,
    asked: Vec<(&str, String)>,
    seed: u64,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Learnt> {
    let (model, began) = (start.model, Instant::now());
    let pixels = &model.pixels;
    if pixels.height != pixels.width {
        let what =
            format!("inputs of {} × {} px cannot be trained on, only squares", pixels.width, pixels.height);
        return Err(Error::Unsupported(what));
    }
    let mut skipped = Vec::new();
    let mut photos = |part| photos(model, data, part, threads, progress, &mut skipped);
    let [learn, judge] = [photos(Part::Train)?, photos(Part::Val)?];
    let memory = memory::available();
    let recipe = recipe(learn.len(), options, pixels.height).fitted(start.graph, learn.len(), memory)?;
    let keeper =
        Keeper::new(options.part.as_deref(), identity(start, [&learn, &judge], options, asked, seed)?);
    let resume: Option<(State, _)> = keeper.load(options.force)?;
    let (mut before, mut from) = (0.0, None);
    if let Some((state, tensors)) = resume {
        progress.notice(&format!("going on after {} steps", state.standing.step));
        (before, from) = (state.seconds, Some((state.standing, tensors)));
    }
    let seconds = || before + began.elapsed().as_secs_f64();

    let teacher = Teacher::new(model, &model.labels, false)?;
    let rounding = Rounding { correct_biases: false, ..start.rounding.clone() };
    let quantizer = Arc::new(Integers { graph: start.graph.clone(), rounding });
    let job = Job {
        name: "quantization-aware training",
        graph: start.graph,
        pixels,
        learn,
        judge,
        classes: model.labels.len(),
        recipe: &recipe,
        teacher: Some(&teacher),
        quantizer: Some(quantizer.clone()),
        seed,
        memory,
    };
    let mut keep = |standing: &Standing, tensors: Tensors<'_>| {
        keeper.keep(&State { standing: standing.clone(), seconds: seconds() }, tensors, progress);
        Ok(())
    };
    let mut watch = Watch { progress, log: None, keep: &mut keep };
    let trained = trainer::train(&job, parameters(start)?, from, threads, &mut watch)?;
    if trained.interrupted {
        return Err(Error::Interrupted);
    }
    let taught = Taught {
        epochs: recipe.epochs,
        steps: recipe.steps(job.learn.len()),
        batch: recipe.batch,
        rate: options.rate,
        photos: job.learn.len(),
        seconds: seconds(),
        top1_before: start.top1,
        top1_after: None,
        kept: false,
        stopped: trained.stopped,
    };
    let learnt = trained.best.map_or(trained.average, |(_, best)| best);
    let weights = trained.whole.then(|| quantizer.quantize(&learnt));
    Ok(Learnt { weights, taught, skipped })
}

/// Weights in floats, and the biases that make up for their rounding.
fn parameters(start: &Start) -> Result<Parameters> {
    let float = |(name, tensor): (&String, &penjing_runtime::tensor::Tensor)| {
        let floats = start.floats.get(name).filter(|_| matches!(tensor.data, Data::I8(_)));
        (name.clone(), floats.unwrap_or(tensor).clone())
    };
    Parameters::new(start.graph, &start.integers.iter().map(float).collect())
}

/// The photos of a part that can be read, by the model's classes.
fn photos(
    model: &Model,
    data: &Dataset,
    part: Part,
    threads: &Threads,
    progress: &dyn Progress,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Photo>> {
    let samples: Vec<&Sample> = data.part(part).map(|(_, sample)| sample).collect();
    let paths: Vec<_> = samples.iter().map(|sample| &sample.path).collect();
    let mut photos = Vec::new();
    for (sample, read) in samples.iter().zip(feed::read(&paths, &model.pixels, threads, progress)?) {
        match read {
            Ok(hash) => photos.push(Photo {
                path: sample.path.clone(),
                class: Some(gate::place(model, data, sample.class)? as u32),
                key: feed::key(&hash),
            }),
            Err(error) => skipped.push(Skipped::new(&sample.path, &error)),
        }
    }
    Ok(photos)
}

/// Photos that are seen in all: so many looks bring a network back, whether at few photos or at many.
const LOOKS: f64 = 5_000.0;
const MOST_EPOCHS: f64 = 20.0;
const BATCH: usize = 16;

/// How a network of so many photos learns.
fn recipe(photos: usize, options: &Options, size: usize) -> Recipe {
    let by_photos = || (LOOKS / photos.max(1) as f64).clamp(1.0, MOST_EPOCHS).round();
    Recipe {
        epochs: options.epochs.map_or_else(by_photos, f64::from),
        batch: BATCH,
        at_once: BATCH,
        // Grids were fitted to results at the size in use.
        size,
        early: None,
        rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        decay: 0.0,
        clip: Some(1.0),
        rates: Rates { head: options.rate, last: options.rate, middle: options.rate, first: options.rate },
        warmup: 0.1,
        floor: 0.01,
        smoothing: 0.0,
        // Nobody knows here whether mirrored photos do harm.
        augment: Augment { scale: 0.7, ..Augment::NONE },
        mix: Mix { mixup: 0.0, cutmix: 0.0 },
        balance: 0.0,
        statistics: Statistics::Frozen,
        momentum: 0.0,
        first: 0,
        half_life: 0.1,
        frugal: false,
        distill: Some(Distill { soft: Soft::Kd { temperature: 4.0, share: 0.9 }, hints: 0.0 }),
    }
}

/// What makes two trainings differ.
fn identity(
    start: &Start,
    photos: [&[Photo]; 2],
    options: &Options,
    asked: Vec<(&str, String)>,
    seed: u64,
) -> Result<Identity> {
    let model = blake3::hash(&start.model.to_bytes().map_err(unsupported)?);
    let mut hasher = blake3::Hasher::new();
    for photos in photos {
        hasher.update(&photos.len().to_le_bytes());
        for photo in photos {
            hasher.update(&photo.key.to_le_bytes());
            hasher.update(&photo.class.unwrap_or(u32::MAX).to_le_bytes());
        }
    }
    let own = [
        ("the work", "quantization-aware training".into()),
        ("the model", model.to_hex().to_string()),
        ("the photos", hasher.finalize().to_hex().to_string()),
        ("the version of penjing", env!("CARGO_PKG_VERSION").into()),
        ("--seed", seed.to_string()),
        ("--epochs", options.epochs.map_or("by the data".into(), |epochs| epochs.to_string())),
        ("the rate", options.rate.to_string()),
    ];
    let parts = own.into_iter().chain(asked).map(|(name, value)| (name.to_string(), value));
    Ok(Identity { parts: parts.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_photos_are_seen_more_often() {
        let epochs = |photos| recipe(photos, &Options::default(), 64).epochs;
        assert_eq!([10, 250, 1_000, 5_000, 50_000].map(epochs), [20.0, 20.0, 5.0, 1.0, 1.0]);
        let asked = Options { epochs: Some(3), ..Options::default() };
        assert_eq!(recipe(10, &asked, 64).epochs, 3.0);
    }
}
