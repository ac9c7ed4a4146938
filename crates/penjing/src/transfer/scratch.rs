//! The whole network from random weights.

use std::time::Instant;

use penjing_runtime::{file::Model, tensor::Weights};

use super::{
    Candidate, Options, Trained, assemble, calibration,
    distill::{Comparison, Lessons, plain_feed},
    plan::{Facts, RecipeKind},
    survey::Survey,
    with_classes,
    work::{Judged, Kept, Round, UNFINISHED, Work, describe, title},
};
use crate::{
    Error, Result,
    data::Dataset,
    progress::Progress,
    threads::Threads,
    train::{
        log::{Event, Log},
        parameters::Parameters,
        trainer::{self, Recipe},
    },
    zoo::fresh_weights,
};

/// The whole network from random weights, the best on held-out photos; with a teacher the better of two, if that is asked.
pub(super) fn scratch(
    data: &Dataset,
    shape: &Model,
    options: &Options,
    began: Instant,
    threads: &Threads,
    progress: &dyn Progress,
    mut log: Option<&mut Log>,
) -> Result<Trained> {
    let (mut survey, mut skipped) = Survey::read(data, &shape.pixels, options.seed, threads, progress)?;
    survey.look_at_the_test(threads, progress)?;
    let lessons = options.distill.as_ref();
    let lessons =
        lessons.map(|ask| Lessons::new(ask, &survey, &shape.pixels, threads, progress)).transpose()?;
    let lessons = lessons.as_ref();
    let unlabelled = lessons.map_or(0, |lessons| lessons.unlabelled.len());
    skipped.extend(lessons.iter().flat_map(|lessons| lessons.skipped.iter().cloned()));
    let mut facts = Facts::new(&survey.counts(), shape);
    facts.photos += unlabelled;
    let mut work = Work::new(shape, &survey, options, lessons, began, threads, progress)?;
    let (graph, _) = with_classes(shape, facts.classes)?;
    let weights: Weights = fresh_weights(&graph, options.seed);
    let [held, others] = survey.round(0);
    if held.is_empty() {
        let what = "no photo can judge the network without leaving a class none to learn from; add photos to the \
                    smallest classes";
        return Err(Error::data(&data.root, what));
    }
    let arms = |recipe: &Recipe| match lessons {
        Some(lessons) => lessons.arms(recipe, others.len()),
        None => vec![recipe.clone()],
    };
    let start = Parameters::new(&graph, &weights)?;
    let (recipe, mut judged, mut resume) = match work.resume()? {
        Some((state, mut tensors)) => {
            let judged = (state.judged.len() < arms(&state.recipe).len()
                && state.judged.iter().all(|r| r.shares == 1))
            .then(|| Judged::restore(state.judged, &mut tensors, &start, 1, |_| held.len() * facts.classes));
            let judged = judged.transpose()?.flatten().ok_or_else(|| work.unfit())?;
            (state.recipe, judged, Some((state.standing, tensors)))
        }
        None => {
            let recipe = facts.recipe(RecipeKind::Scratch, &graph, options.epochs, options.balance);
            let recipe = work.fitted(recipe, &graph, others.len() + unlabelled)?;
            let looks = |epochs| epochs * ((others.len() + unlabelled) * arms(&recipe).len()) as f64;
            let costliest = arms(&recipe).pop().unwrap_or_else(|| recipe.clone());
            let fitting =
                work.in_time(costliest, &graph, 1, |_, epochs| [looks(epochs), 0.0])?.ok_or_else(|| {
                    Error::Unsupported(
                        "the time limit is too short to train a network from random weights; raise --time"
                            .into(),
                    )
                })?;
            (Recipe { epochs: fitting.recipe.epochs, ..recipe }, Judged::default(), None)
        }
    };
    let labels: Vec<u32> = held.iter().map(|&photo| survey.labels[photo]).collect();
    let arms = arms(&recipe);
    let mut unfinished = false;
    let mut refused = None;
    for (arm, taught) in arms.iter().enumerate().skip(judged.rounds.len()) {
        if let (Some(lessons), Some(plain)) = (lessons, judged.rounds.first()) {
            let student = trainer::score(&plain.logits[0], &survey.photos(&held), facts.classes).top1;
            let feed = plain_feed(survey.photos(&held), facts.classes, &shape.pixels);
            refused = threads.install(|| lessons.is_no_better(student, &survey, &held, &feed))?;
            if let Some(why) = &refused {
                progress.notice(why);
                break;
            }
        }
        let before = work.seconds();
        let name = match (arms.len(), arm) {
            (1, _) => "training",
            (_, 0) => "training without the teacher",
            _ => "training under the teacher",
        };
        let photos = [survey.photos(&others), survey.photos(&held)];
        let kept = Kept { recipe: &recipe, rounds: 1, judged: &judged, probed: None };
        let log = log.as_deref_mut();
        let run = work.run(name, taught, 0, photos, &graph, start.clone(), kept, resume.take(), log)?;
        if let Some(why) = &run.stopped {
            if run.best.is_none() && arm == 0 {
                return Err(Error::Unsupported(format!(
                    "{why}, before an epoch was over; there is no network to keep"
                )));
            }
            let kept =
                if arm == 0 { "the best network before it" } else { "the network without the teacher" };
            progress.notice(&format!("{why}; training ended there, and {kept} is kept"));
        }
        unfinished = run.interrupted;
        // What was stopped before its end is no match for what was not.
        if arm == 0 || run.whole {
            let network = run.best.map_or(run.last, |(_, network)| network);
            let logits = work.logits(&graph, &[&network], &held)?;
            let seconds = work.seconds() - before;
            let over = Round { logits, shares: 1, whole: run.whole, history: run.history, seconds };
            judged.push(arm, 0, over, network);
        }
        if !run.whole {
            break;
        }
    }
    let groups: Vec<usize> = held.iter().map(|&photo| survey.groups[photo]).collect();
    let comparison = match &judged.rounds[..] {
        [plain, taught] => {
            Some(Comparison::new(&plain.logits[0], &taught.logits[0], &labels, &groups, facts.classes))
        }
        _ => None,
    };
    let chosen = usize::from(comparison.is_some_and(|comparison| comparison.taught_wins()));
    let logits = &judged.rounds[chosen].logits[0];
    let t = calibration::temperature(logits, &labels, facts.classes);
    let score = trainer::score(logits, &survey.photos(&held), facts.classes);
    let mut steps = vec![describe(RecipeKind::Scratch, &arms[chosen])];
    steps.extend(
        lessons
            .map(|lessons| lessons.outcome(arms[chosen].distill.is_some(), comparison, refused.as_deref())),
    );
    if unfinished {
        steps.push(format!("{UNFINISHED}stopped by the user; this is the best so far"));
    }
    let weights = judged.means[chosen].to_weights();
    let model = assemble(shape, &survey, graph, weights, steps, t, score.top1, options)?;
    let val_nll = calibration::mean_surprise(logits, &labels, facts.classes, t);
    if let Some(log) = log.filter(|_| !unfinished) {
        log.write(&Event::Done {
            epochs: recipe.epochs.ceil() as u64,
            val_top1: score.top1,
            val_nll,
            seconds: work.seconds(),
        });
    }
    let candidate = |(arm, round): (usize, &Round)| {
        let logits = &round.logits[0];
        let t = calibration::temperature(logits, &labels, facts.classes);
        Candidate {
            name: format!(
                "{}{}",
                title(RecipeKind::Scratch),
                if arms[arm].distill.is_some() { ", under the teacher" } else { "" }
            ),
            val_top1: trainer::score(logits, &survey.photos(&held), facts.classes).top1,
            val_nll: calibration::mean_surprise(logits, &labels, facts.classes, t),
            seconds: round.seconds,
            chosen: arm == chosen,
        }
    };
    Ok(Trained {
        model,
        photos: others.len(),
        val_top1: score.top1,
        tried: Vec::new(),
        lambda: None,
        views: 1,
        candidates: judged.rounds.iter().enumerate().map(candidate).collect(),
        history: judged.rounds[chosen].history.clone(),
        skipped,
        computed: [0, 0],
        interrupted: unfinished,
        network: true,
    })
}
