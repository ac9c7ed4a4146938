//! The whole network trained from a head, judged beside it, and made again from all photos.

use std::time::Instant;

use penjing_runtime::{
    file::Model,
    graph::Graph,
    tensor::Weights,
};
use serde::{Deserialize, Serialize};

use super::{
    Candidate, Options, Trained, assemble, calibration,
    features::Extracted,
    fit_some, graft,
    head::Fit,
    plan::{Facts, RecipeKind},
    survey::Survey,
    with_classes,
};
use crate::{
    Error, Result,
    data::Dataset,
    progress::Progress,
    threads::Threads,
    train::{
        checkpoint::{self, Checkpoint, Identity, Tensors},
        feed::Photo,
        log::{Event, Log},
        parameters::Parameters,
        trainer::{self, EpochRecord, Job, Recipe, Score, Standing, Watch},
    },
    zoo::fresh_weights,
};

/// What whole-network training starts from.
pub(super) struct Start<'a> {
    pub backbone: &'a Model,
    pub survey: &'a Survey<'a>,
    pub extracted: &'a Extracted,
    pub fit: &'a Fit,
    pub views: usize,
}

/// What is kept of the work, beside tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    recipe: Recipe,
    /// The run that judges, once it is over.
    judged: Option<Judged>,
    /// The run under way.
    standing: Standing,
    /// Seconds that the work has taken before.
    seconds: f64,
}

/// What the run that judges has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Judged {
    score: Score,
    temperature: f64,
    /// Mean negative log-likelihood under the temperature.
    calibrated: f64,
    /// Whether the moving average was the best.
    average: bool,
    history: Vec<EpochRecord>,
    chosen: bool,
    seconds: f64,
}
