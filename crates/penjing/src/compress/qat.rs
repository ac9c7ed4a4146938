//! Quantization-aware training (Jacob et al., arXiv 1712.05877): the network learns while it computes as 8 bits will.
//!
//! It begins where [`ptq`] ends, with the same grids and corrected biases. Before every step the weights are
//! rounded by the rule that makes integers of them, and in the step every result that is kept in 8 bits is rounded to its
//! grid (`train::tape`). Gradients go straight through both (Bengio et al., arXiv 1308.3432). BatchNorm has been folded into
//! the layers, so that statistics stay as they are; grids stay too. The network in floats is the teacher (Mishra and
//! Marr, arXiv 1711.05852), beside the labels.

use std::sync::Arc;

use penjing_runtime::{
    file::Model,
    graph::Graph,
    pixels::Pixels,
    tensor::{Data, Weights},
};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    ptq,
    ptq::Rounding,
    tune::{self, Learning},
};
use crate::{
    Result,
    data::{Dataset, Skipped},
    progress::Progress,
    threads::Threads,
    train::{learner::Projection, parameters::Parameters},
};

/// Photos that are seen in all: so many looks bring a network back, whether at few photos or at many.
const LOOKS: f64 = 5_000.0;

/// Whether, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// When a network is trained.
    pub when: When,
    /// How.
    pub learning: Learning,
}

impl Default for Options {
    fn default() -> Self {
        Options { when: When::default(), learning: Learning::at(1e-4) }
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

impl Projection for Integers {
    fn project(&self, learnt: &Parameters, _: f64) -> Weights {
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
    /// The model in floats that teaches.
    pub teacher: &'a Model,
    /// How the network sees photos.
    pub pixels: &'a Pixels,
    /// The network in floats with folded BatchNorm: the weights.
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

/// Trains; `asked` tells other work apart.
///
/// # Errors
/// As [`tune::train`].
pub(super) fn train(
    start: &Start,
    data: &Dataset,
    options: &Options,
    asked: Vec<(&'static str, String)>,
    seed: u64,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Learnt> {
    let rounding = Rounding { correct_biases: false, ..start.rounding.clone() };
    let projection = Arc::new(Integers { graph: start.graph.clone(), rounding });
    let work = tune::Work {
        name: "quantization-aware training",
        teacher: start.teacher,
        pixels: start.pixels,
        graph: start.graph,
        start: parameters(start)?,
        projection: Some(projection.clone()),
        how: &options.learning,
        looks: LOOKS,
        epochs: "--epochs",
        without: "--qat never",
        asked,
        seed,
    };
    let tuned = tune::train(work, data, threads, progress)?;
    let taught = Taught {
        epochs: tuned.recipe.epochs,
        steps: tuned.steps,
        batch: tuned.recipe.batch,
        rate: options.learning.rate,
        photos: tuned.photos,
        seconds: tuned.seconds,
        top1_before: start.top1,
        top1_after: None,
        kept: false,
        stopped: tuned.trained.stopped.clone(),
    };
    let weights = tuned.weights().map(|learnt| projection.project(learnt, 1.0));
    Ok(Learnt { weights, taught, skipped: tuned.skipped })
}

/// Weights in floats, and the biases that make up for their rounding.
fn parameters(start: &Start) -> Result<Parameters> {
    let float = |(name, tensor): (&String, &penjing_runtime::tensor::Tensor)| {
        let floats = start.floats.get(name).filter(|_| matches!(tensor.data, Data::I8(_)));
        (name.clone(), floats.unwrap_or(tensor).clone())
    };
    Parameters::new(start.graph, &start.integers.iter().map(float).collect())
}
