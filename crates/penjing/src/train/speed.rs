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

/// Training images a second on this machine, photos at hand: the faster of two steps, of each size its share, and what a
/// teacher takes for its answers. The recipe is [`fitted`](Recipe::fitted).
///
/// # Errors
/// [`crate::Error::Unsupported`] when the network cannot be trained.
pub fn images_per_s(
    graph: &Graph,
    weights: &Parameters,
    recipe: &Recipe,
    teacher: Option<&Teacher>,
    threads: &Threads,
) -> Result<f64> {
    let at = |size: usize| at_size(&sized(graph, recipe.at_once, size)?, weights, recipe, threads);
    let share = recipe.early_epochs() as f64 / recipe.epochs;
    let mut seconds = 1.0 / at(recipe.size)?;
    if let Some(Early { size, .. }) = recipe.early.filter(|_| share > 0.0) {
        seconds = share / at(size)? + (1.0 - share) * seconds;
    }
    if let Some(teacher) = teacher {
        let inputs = vec![0.0; teacher.pixels().len()];
        let answer = |_| teacher.answer(&inputs, &mut vec![0.0; teacher.width()]);
        let round = || {
            let began = Instant::now();
            (0..threads.count()).into_par_iter().for_each(answer);
            began.elapsed().as_secs_f64() / threads.count() as f64
        };
        seconds += threads.install(|| round().min(round()));
    }
    Ok(1.0 / seconds)
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
    Ok(recipe.at_once as f64 / seconds)
}
