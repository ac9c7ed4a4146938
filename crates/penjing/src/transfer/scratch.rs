//! The whole network from random weights.

use std::time::Instant;

use penjing_runtime::{file::Model, tensor::Weights};

use super::{
    Candidate, Options, Trained, assemble, calibration,
    plan::{Facts, RecipeKind},
    survey::Survey,
    with_classes,
    work::{Judged, Kept, UNFINISHED, Work, describe, title},
};
use crate::{
    Error, Result,
    data::Dataset,
    progress::Progress,
    threads::Threads,
    train::{
        log::{Event, Log},
        parameters::Parameters,
        trainer,
    },
    zoo::fresh_weights,
};

/// The whole network from random weights, the best on held-out photos.
pub(super) fn scratch(
    data: &Dataset,
    shape: &Model,
    options: &Options,
    began: Instant,
    threads: &Threads,
    progress: &dyn Progress,
    mut log: Option<&mut Log>,
) -> Result<Trained> {
    let (survey, skipped) = Survey::read(data, &shape.pixels, options.seed, threads, progress)?;
    let counts = survey.counts();
    let facts = Facts::new(&counts, shape);
    let mut work = Work::new(shape, &survey, options, began, threads, progress)?;
    let (graph, _) = with_classes(shape, facts.classes)?;
    let weights: Weights = fresh_weights(&graph, options.seed);
    let [held, others] = survey.round(0);
    if held.is_empty() {
        let what = "no photo can judge the network without leaving a class none to learn from; add photos to the \
                    smallest classes";
        return Err(Error::data(&data.root, what));
    }
    let (recipe, resume) = match work.resume()? {
        Some((state, tensors)) => (state.recipe, Some((state.standing, tensors))),
        None => {
            let recipe = facts.recipe(RecipeKind::Scratch, &graph, options.epochs, options.balance);
            let recipe = work.fitted(recipe, &graph, others.len())?;
            let (recipe, _) = work
                .in_time(recipe, &graph, 1, |_, epochs| epochs * others.len() as f64)?
                .ok_or_else(|| {
                    Error::Unsupported(
                        "the time limit is too short to train a network from random weights; raise --time"
                            .into(),
                    )
                })?;
            (recipe, None)
        }
    };
    let photos = [survey.photos(&others), survey.photos(&held)];
    let start = Parameters::new(&graph, &weights)?;
    let kept = Kept { recipe: &recipe, rounds: 1, judged: &Judged::default(), probed: None };
    let run = work.run("training", &recipe, 0, photos, &graph, start, kept, resume, log.as_deref_mut())?;
    if let Some(why) = &run.stopped {
        if run.best.is_none() {
            return Err(Error::Unsupported(format!(
                "{why}, before an epoch was over; there is no network to keep"
            )));
        }
        progress.notice(&format!("{why}; training ended there, and the best network before it is kept"));
    }
    let network = run.best.map_or(run.last, |(_, network)| network);
    let logits = work.logits(&graph, &[&network], &held)?.concat();
    let labels: Vec<u32> = held.iter().map(|&photo| survey.labels[photo]).collect();
    let t = calibration::temperature(&logits, &labels, facts.classes);
    let score = trainer::score(&logits, &survey.photos(&held), facts.classes);
    let mut steps = vec![describe(RecipeKind::Scratch, &recipe)];
    if run.interrupted {
        steps.push(format!("{UNFINISHED}stopped by the user; this is the best so far"));
    }
    let weights = network.to_weights();
    let model = assemble(shape, &survey, graph, weights, steps, t, score.top1, options)?;
    let val_nll = calibration::mean_surprise(&logits, &labels, facts.classes, t);
    if let Some(log) = log.filter(|_| !run.interrupted) {
        log.write(&Event::Done {
            epochs: recipe.epochs.ceil() as u64,
            val_top1: score.top1,
            val_nll,
            seconds: work.seconds(),
        });
    }
    Ok(Trained {
        model,
        photos: others.len(),
        val_top1: score.top1,
        tried: Vec::new(),
        lambda: None,
        views: 1,
        candidates: vec![Candidate {
            name: title(RecipeKind::Scratch).into(),
            val_top1: score.top1,
            val_nll,
            seconds: work.seconds(),
            chosen: true,
        }],
        history: run.history,
        skipped,
        computed: [0, 0],
        interrupted: run.interrupted,
        network: true,
    })
}
