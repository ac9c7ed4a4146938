//! How fast training is here.

use std::time::Instant;

use penjing_runtime::graph::Graph;
use rayon::prelude::*;

use super::{
    learner::Learner,
    parameters::Parameters,
    teacher::Teacher,
    trainer::{Early, Recipe, sized},
};
use crate::{Result, threads::Threads};

/// Seconds that training takes for a photo, each time that it is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// At the recipe's size.
    pub full: f64,
    /// At the size of its first epochs.
    pub early: f64,
}

impl Pace {
    /// The mean over all epochs of a recipe.
    pub fn of(&self, recipe: &Recipe) -> f64 {
        let share = recipe.early_epochs() as f64 / recipe.epochs;
        share * self.early + (1.0 - share) * self.full
    }
}

/// Measured on this machine, photos at hand: the faster of two steps of each size, and what a teacher takes for its answers. The
/// recipe is [`fitted`](Recipe::fitted).
///
/// # Errors
/// [`crate::Error::Unsupported`] when the network cannot be trained.
pub fn pace(
    graph: &Graph,
    weights: &Parameters,
    recipe: &Recipe,
    teacher: Option<&Teacher>,
    threads: &Threads,
) -> Result<Pace> {
    let at = |size: usize| at_size(&sized(graph, recipe.at_once, size)?, weights, recipe, threads);
    let full = at(recipe.size)?;
    let early = recipe.early.map_or(Ok(full), |Early { size, .. }| at(size))?;
    let mut asked = 0.0;
    if let Some(teacher) = teacher {
        let inputs = vec![0.0; teacher.pixels().len()];
        let answer = |_| teacher.answer(&inputs, &mut vec![0.0; teacher.width()]);
        let round = || {
            let began = Instant::now();
            (0..threads.count()).into_par_iter().for_each(answer);
            began.elapsed().as_secs_f64() / threads.count() as f64
        };
        asked = threads.install(|| round().min(round()));
    }
    Ok(Pace { full: full + asked, early: early + asked })
}

fn at_size(graph: &Graph, weights: &Parameters, recipe: &Recipe, threads: &Threads) -> Result<f64> {
    let mut learner = Learner::new(graph, weights.clone(), &recipe.method())?;
    let classes = graph.output().map_or(0, |output| graph.shape(output)[3]);
    let inputs = vec![0.0; graph.input_shape().unwrap_or_default().iter().product()];
    let targets = vec![1.0 / classes as f32; recipe.at_once * classes];
    let seconds = threads.install(|| {
        let mut step = || {
            let began = Instant::now();
            learner.step(&inputs, &targets, 0, 0.0);
            began.elapsed().as_secs_f64()
        };
        step().min(step())
    });
    Ok(seconds / recipe.at_once as f64)
}
