//! The whole network trained from a head, judged beside it, and made again from all photos.

use std::time::Instant;

use penjing_runtime::{file::Model, graph::Graph, tensor::Weights};
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
    classifier::ranked,
    data::Dataset,
    progress::Progress,
    runner::Runner,
    threads::Threads,
    train::{
        augment::Augment,
        checkpoint::{self, Checkpoint, Identity, Tensors},
        feed::{Feed, Photo},
        log::{Event, Log},
        memory,
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

/// What the run that judges has shown; scores are of the photos that were held out of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Judged {
    score: Score,
    /// The head's, on the same photos: the mean negative log-likelihood is under its own temperature.
    head: Score,
    temperature: f64,
    /// Whether the moving average was the best.
    average: bool,
    /// How far from the start to the end of training the network is.
    share: f32,
    /// Whether training went to its end.
    whole: bool,
    history: Vec<EpochRecord>,
    chosen: bool,
    seconds: f64,
}

/// Where the state of the work lies.
struct Keeper<'a> {
    path: Option<&'a std::path::Path>,
    identity: Identity,
}

impl Keeper<'_> {
    /// The state that was kept, if it is of this work. With `force` one of other work is thrown away.
    fn load(&self, force: bool) -> Result<Option<(State, Tensors<'static>)>> {
        let Some(path) = self.path else { return Ok(None) };
        let loaded = match checkpoint::load(path, &self.identity) {
            Err(Error::Model { .. }) if force => None,
            loaded => loaded?,
        };
        let Some(Checkpoint { state, tensors, .. }) = loaded else { return Ok(None) };
        match serde_json::from_value(state) {
            Ok(state) => Ok(Some((state, tensors))),
            Err(_) if force => Ok(None),
            Err(error) => {
                let what = format!("the kept state cannot be read ({error}); give --force to begin anew");
                Err(Error::model(path, what))
            }
        }
    }

    fn save(&self, state: &State, tensors: Tensors<'_>) -> Result<()> {
        let Some(path) = self.path else { return Ok(()) };
        let state = serde_json::to_value(state).map_err(|error| Error::Unsupported(error.to_string()))?;
        checkpoint::save(path, &Checkpoint { identity: self.identity.clone(), state, tensors })
    }
}

/// What both runs have in common.
struct Work<'a> {
    backbone: &'a Model,
    survey: &'a Survey<'a>,
    options: &'a Options,
    threads: &'a Threads,
    progress: &'a dyn Progress,
    keeper: Keeper<'a>,
    began: Instant,
    /// Seconds that the work has taken in earlier calls.
    before: f64,
    /// Whether states are kept.
    keeping: bool,
}

impl<'a> Work<'a> {
    fn new(
        backbone: &'a Model,
        survey: &'a Survey<'a>,
        options: &'a Options,
        began: Instant,
        threads: &'a Threads,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let bytes = backbone.to_bytes().map_err(super::unsupported)?;
        let parts = [
            ("the photos", survey.fingerprint()),
            ("the split of the photos", survey.split_hash()),
            ("the classes", survey.data.classes.join(", ")),
            ("the backbone", blake3::hash(&bytes).to_hex().to_string()),
            ("the version of penjing", env!("CARGO_PKG_VERSION").into()),
            ("--seed", options.seed.to_string()),
            ("--recipe", format!("{:?}", options.recipe).to_lowercase()),
            ("--epochs", options.epochs.map_or("by the data".into(), |epochs| epochs.to_string())),
            ("--memory", options.memory.map_or("what is there".into(), |bytes| bytes.to_string())),
            ("--time", options.time.map_or("unlimited".into(), |time| format!("{} s", time.as_secs()))),
            ("--views", options.views.map_or("by the data".into(), |views| views.to_string())),
            ("--balance", options.balance.map_or("by the data".into(), |balance| balance.to_string())),
        ];
        let parts = parts.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        let keeper = Keeper { path: options.part.as_deref(), identity: Identity { parts } };
        Ok(Work { backbone, survey, options, threads, progress, keeper, began, before: 0.0, keeping: true })
    }

    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// Logits of photos as they are.
    fn logits(&self, graph: &Graph, parameters: &Parameters, places: &[usize]) -> Result<Vec<f32>> {
        let photos = self.survey.photos(places);
        let pixels = &self.backbone.pixels;
        let classes = self.survey.data.classes.len();
        let feed = Feed::new(photos.clone(), classes, pixels.clone(), Augment::NONE, 0.0, 0, 0);
        let runner = Runner::new(graph, &parameters.to_weights(), pixels, 1)?;
        let [logits] = self.threads.install(|| trainer::judge(&feed, &photos, &[runner]))?;
        Ok(logits)
    }

    fn memory(&self) -> u64 {
        self.options.memory.unwrap_or_else(memory::available)
    }

    /// The recipe for the memory at hand, and shortened to the time that is left: `looks` photos an epoch, of which
    /// `photos` make batches. `None` when that would be no training any more.
    fn fitted(&self, recipe: Recipe, graph: &Graph, photos: usize, looks: usize) -> Result<Option<Recipe>> {
        let wished = recipe.batch.min(photos);
        let recipe = recipe.fitted(graph, photos, self.memory())?;
        if recipe.batch < wished {
            self.progress.notice(&format!(
                "batches of {} photos instead of {wished}: more do not fit into {} MB",
                recipe.batch,
                self.memory() / 1_000_000
            ));
        }
        let Some(limit) = self.options.time else { return Ok(Some(recipe)) };
        let parameters = Parameters::new(graph, &fresh_weights(graph, 0))?;
        let speed = trainer::speed(graph, &parameters, &recipe, self.threads)?;
        let left = limit.as_secs_f64() - self.seconds();
        // Decoding, validation and writing take their part.
        let epochs = (left * 0.85 * speed / looks as f64).min(recipe.epochs);
        if epochs < SHORTEST {
            self.progress.notice(&format!(
                "the time limit leaves {:.0} s, too little to train the whole network (about {:.0} s for one epoch)",
                left.max(0.0),
                looks as f64 / speed / 0.85
            ));
            return Ok(None);
        }
        if epochs < recipe.epochs {
            self.progress.notice(&format!(
                "{epochs:.1} epochs instead of {} fit into the time limit ({speed:.0} images/s)",
                recipe.epochs
            ));
        }
        Ok(Some(Recipe { epochs, ..recipe }))
    }

    /// One run of training; a state is kept on the way.
    fn run(
        &self,
        name: &'static str,
        recipe: &Recipe,
        [learn, judge]: [Vec<Photo>; 2],
        graph: &Graph,
        start: Parameters,
        judged: Option<(&Judged, &Parameters)>,
        resume: Option<(Standing, Tensors<'static>)>,
        log: Option<&mut Log>,
    ) -> Result<trainer::Trained> {
        let job = Job {
            name,
            graph,
            pixels: &self.backbone.pixels,
            learn,
            judge,
            classes: self.survey.data.classes.len(),
            average: judged.is_some_and(|(judged, _)| judged.average),
            recipe,
            seed: self.options.seed,
            memory: self.memory(),
        };
        let mut keep = |standing: &Standing, tensors: Tensors<'_>| {
            let mut tensors: Tensors<'_> = tensors;
            if let Some((_, best)) = judged {
                checkpoint::keep(&mut tensors, JUDGED, best);
            }
            let state = State {
                recipe: recipe.clone(),
                judged: judged.map(|(judged, _)| judged.clone()),
                standing: standing.clone(),
                seconds: self.seconds(),
            };
            if self.keeping { self.keeper.save(&state, tensors) } else { Ok(()) }
        };
        let mut watch = Watch { progress: self.progress, log, keep: &mut keep };
        trainer::train(&job, start, resume, self.threads, &mut watch)
    }
}

/// Shorter than this many epochs a training teaches nothing that would last.
const SHORTEST: f64 = 0.25;

/// What a recipe is called in summaries.
fn title(kind: RecipeKind) -> &'static str {
    match kind {
        RecipeKind::Auto | RecipeKind::Head => "head on frozen features",
        RecipeKind::Finetune => "whole network, statistics frozen",
        RecipeKind::Full => "whole network, statistics of the batch",
        RecipeKind::Scratch => "whole network from random weights",
    }
}

/// Tries the whole network beside the head, where the recipe says so, and puts what is better into `trained`.
pub(super) fn refine(
    start: &Start,
    options: &Options,
    began: Instant,
    threads: &Threads,
    progress: &dyn Progress,
    mut log: Option<&mut Log>,
    trained: &mut Trained,
) -> Result<()> {
    let Start { backbone, survey, fit, views, extracted } = *start;
    let counts = survey.counts();
    let [held, others] = [true, false].map(|held| survey.held(held));
    let facts = Facts {
        head_top1: fit.val_top1,
        validated: fit.validated.len(),
        mirrors: views > 1,
        ..Facts::new(&counts, backbone)
    };
    let kind = match options.recipe {
        RecipeKind::Head => return Ok(()),
        RecipeKind::Auto => {
            if let Some(why) = facts.head_is_enough() {
                progress.notice(&why);
                return Ok(());
            }
            RecipeKind::Finetune
        }
        kind => kind,
    };
    let mut work = Work::new(backbone, survey, options, began, threads, progress)?;
    let (mut judged, mut resume) = (None, None);
    let recipe = match work.keeper.load(options.force)? {
        Some((state, tensors)) => {
            progress.notice(&format!("going on after {} steps", state.standing.step));
            work.before = state.seconds;
            (judged, resume) = (state.judged, Some((state.standing, tensors)));
            state.recipe
        }
        None => {
            let recipe = facts.recipe(kind, options.epochs, options.balance);
            let (graph, _) = with_classes(backbone, facts.classes)?;
            let fitted = work.fitted(recipe, &graph, others.len(), others.len() + survey.kept.len());
            let fitted = match fitted {
                // The head is there, and asks for less.
                Err(error @ Error::Unsupported(_)) if options.recipe == RecipeKind::Auto => {
                    progress.notice(&error.to_string());
                    None
                }
                fitted => fitted?,
            };
            let probing = held.len() >= FEWEST_TO_PROBE && options.recipe == RecipeKind::Auto;
            let fitted = match fitted {
                Some(recipe) if recipe.augment.flip && probing && options.time.is_none() => {
                    work.keeping = false;
                    let flip = mirrors(&work, start, &recipe, [&others, &held])?;
                    work.keeping = true;
                    Some(Recipe { augment: Augment { flip, ..recipe.augment }, ..recipe })
                }
                fitted => fitted,
            };
            match fitted {
                Some(recipe) => recipe,
                None => return Ok(()),
            }
        }
    };
    trained.network = true;
    // The network of the run that judges; on a second call it is among the kept tensors.
    let mut best = None;
    if let (Some(_), Some((_, tensors))) = (&judged, &mut resume) {
        let (graph, weights) = graft(backbone, &fit.head)?;
        let mut parameters = Parameters::new(&graph, &weights)?;
        checkpoint::restore(tensors, JUDGED, &mut parameters)?;
        best = Some(parameters);
    }
    let mut unfinished = None;
    if judged.is_none() {
        let before = work.seconds();
        let head = fit_some(survey, extracted, views, &others, fit.lambda, threads, progress)?;
        let (graph, weights) = graft(backbone, &head)?;
        let photos = [survey.photos(&others), survey.photos(&held)];
        let start = Parameters::new(&graph, &weights)?;
        let parameters = start.clone();
        let run = work.run(
            "training",
            &recipe,
            photos,
            &graph,
            parameters,
            None,
            resume.take(),
            log.as_deref_mut(),
        )?;
        if let Some(why) = &run.stopped {
            progress.notice(&format!("{why}; training ended there, and the best network before it is kept"));
        }
        if run.interrupted {
            unfinished = Some("the run that is judged");
        }
        let labels: Vec<u32> = held.iter().map(|&photo| survey.labels[photo]).collect();
        let calibrated = |logits: &[f32]| {
            let temperature = calibration::temperature(logits, &labels, facts.classes);
            (temperature, calibration::mean_surprise(logits, &labels, facts.classes, temperature))
        };
        // Some of the way from the start may be better than all of it.
        let (temperature, nll) = calibrated(&run.logits);
        let mut ended = Ended { network: run.parameters, logits: run.logits, share: 1.0, temperature, nll };
        if !run.interrupted && run.stopped.is_none() {
            let last = ended.network.clone();
            for share in SHARES {
                let network = last.between(&start, share);
                let logits = work.logits(&graph, &network, &held)?;
                let (temperature, nll) = calibrated(&logits);
                if nll < ended.nll {
                    ended = Ended { network, logits, share, temperature, nll };
                }
            }
        }
        let head_logits = fit.logits_of(&held);
        let score = |logits: &[f32], nll| Score {
            nll,
            ..trainer::score(logits, &survey.photos(&held), facts.classes)
        };
        let head = score(&head_logits, calibrated(&head_logits).1);
        let wins = ended.nll < head.nll || options.recipe != RecipeKind::Auto;
        judged = Some(Judged {
            score: score(&ended.logits, ended.nll),
            head,
            temperature: ended.temperature,
            share: ended.share,
            whole: run.whole,
            average: run.average,
            history: run.history,
            // What has not lasted an epoch has not been judged.
            chosen: wins && run.best.is_some(),
            seconds: work.seconds() - before,
        });
        best = Some(ended.network);
    }
    let (Some(judged), Some(best)) = (judged, best) else { return Ok(()) };
    let head = &mut trained.candidates[0];
    (head.val_top1, head.val_nll, head.chosen) = (judged.head.top1, judged.head.nll, !judged.chosen);
    trained.candidates.push(Candidate {
        name: title(kind).into(),
        val_top1: judged.score.top1,
        val_nll: judged.score.nll,
        seconds: judged.seconds,
        chosen: judged.chosen,
    });
    trained.history.clone_from(&judged.history);
    let (graph, weights) = graft(backbone, &fit.head)?;
    let mut weights: Weights = if judged.chosen { best.to_weights() } else { weights };
    if judged.chosen && unfinished.is_none() && judged.whole {
        let all: Vec<usize> = (0..survey.kept.len()).collect();
        let photos = [survey.photos(&all), Vec::new()];
        let start = Parameters::new(&graph, &graft(backbone, &fit.head)?.1)?;
        let keep = Some((&judged, &best));
        let from = start.clone();
        let run = work.run("all photos", &recipe, photos, &graph, from, keep, resume, log.as_deref_mut())?;
        match (&run.stopped, run.interrupted) {
            (None, false) if judged.share < 1.0 => {
                weights = run.parameters.between(&start, judged.share).to_weights();
            }
            (None, false) => weights = run.parameters.to_weights(),
            (Some(why), _) => {
                progress.notice(&format!(
                    "{why} when learning from all photos; the network that was judged is kept"
                ));
            }
            (None, true) => unfinished = Some("the run on all photos"),
        }
    }
    if judged.chosen {
        let mut steps = vec![trained.model.provenance.recipe.last().cloned().unwrap_or_default()];
        steps.push(describe(kind, &recipe));
        if judged.share < 1.0 {
            steps.push(format!(
                "weights {} of the way from that head's network to the trained one",
                judged.share
            ));
        }
        let top1 = judged.score.top1;
        trained.model = assemble(backbone, survey, graph, weights, steps, judged.temperature, top1, options)?;
        trained.val_top1 = top1;
    }
    if let Some(during) = unfinished {
        trained.interrupted = true;
        trained
            .model
            .provenance
            .recipe
            .push(format!("{UNFINISHED}stopped in {during}; this is the best so far"));
        return Ok(());
    }
    if let Some(log) = log {
        log.write(&Event::Done {
            epochs: recipe.epochs.ceil() as u64,
            val_top1: trained.val_top1,
            val_nll: trained.candidates.iter().find(|c| c.chosen).map_or(f64::NAN, |c| c.val_nll),
            seconds: work.seconds(),
        });
    }
    Ok(())
}

/// Whether mirrored photos do no harm: the network trained briefly with them and without, judged on held-out photos.
/// The backbone's own features cannot tell, since it was taught to take a mirrored thing for the same thing.
fn mirrors(work: &Work, start: &Start, recipe: &Recipe, [others, held]: [&[usize]; 2]) -> Result<bool> {
    let Start { backbone, survey, extracted, fit, views } = *start;
    let head = fit_some(survey, extracted, views, others, fit.lambda, work.threads, work.progress)?;
    let (graph, weights) = graft(backbone, &head)?;
    let right = |name: &'static str, flip: bool| -> Result<Vec<bool>> {
        let augment = Augment { flip, ..recipe.augment };
        let recipe = Recipe { epochs: PROBED, augment, ..recipe.clone() };
        let photos = [survey.photos(others), survey.photos(held)];
        let parameters = Parameters::new(&graph, &weights)?;
        let run = work.run(name, &recipe, photos, &graph, parameters, None, None, None)?;
        if run.interrupted {
            return Err(Error::Interrupted);
        }
        let guesses = run.logits.chunks_exact(head.classes).map(|logits| ranked(logits)[0]);
        Ok(guesses.zip(held).map(|(guess, &photo)| guess == survey.labels[photo] as usize).collect())
    };
    let (plain, mirrored) = (right("plain", false)?, right("mirrored", true)?);
    let keep = !leads_astray(&plain, &mirrored);
    let share = |right: &[bool]| {
        100.0 * right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64
    };
    work.progress.notice(&format!(
        "mirrored photos {} ({:.1} % right on held-out photos with them, {:.1} % without)",
        if keep { "do no harm" } else { "lead astray, so none are shown" },
        share(&mirrored),
        share(&plain)
    ));
    Ok(keep)
}

/// Epochs that show whether mirrored photos do harm.
const PROBED: f64 = 2.0;
/// From so many held-out photos on harm can be told from chance.
const FEWEST_TO_PROBE: usize = 200;

/// Whether more photos are lost with mirrored photos than two points and two standard errors of the paired differences.
fn leads_astray(plain: &[bool], mirrored: &[bool]) -> bool {
    let pairs = || plain.iter().zip(mirrored);
    let lost = pairs().filter(|(plain, mirrored)| **plain && !**mirrored).count() as f64;
    let won = pairs().filter(|(plain, mirrored)| !**plain && **mirrored).count() as f64;
    lost - won > MIRRORS_LOSE * plain.len() as f64 && lost - won > 2.0 * (lost + won).sqrt()
}

/// Loss of accuracy from which on mirrored photos are left out.
const MIRRORS_LOSE: f64 = 0.02;

/// A trained network on photos it has not learnt from.
struct Ended {
    network: Parameters,
    logits: Vec<f32>,
    share: f32,
    temperature: f64,
    nll: f64,
}

/// How far from start to end networks are tried, beside the end itself.
const SHARES: [f32; 3] = [0.75, 0.5, 0.25];

/// Where the judged network stands among kept tensors.
const JUDGED: &str = "judged";

/// How the last step of a model begins that was written when its training was interrupted.
pub const UNFINISHED: &str = "unfinished: ";

/// A recipe in words, for the model's provenance.
fn describe(kind: RecipeKind, recipe: &Recipe) -> String {
    format!(
        "{}: {} epochs of batches of {} at {} px, rates {:e} {:e} {:e} {:e} from head to image, decay {}, smoothing {}, \
         crops from {} of the area, flip {}",
        title(kind),
        recipe.epochs,
        recipe.batch,
        recipe.size,
        recipe.rates.head,
        recipe.rates.last,
        recipe.rates.middle,
        recipe.rates.first,
        recipe.decay,
        recipe.smoothing,
        recipe.augment.scale,
        if recipe.augment.flip { "on" } else { "off" },
    )
}

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
    let (survey, skipped) = Survey::read(data, options.seed, threads, progress)?;
    let counts = survey.counts();
    let facts = Facts::new(&counts, shape);
    let mut work = Work::new(shape, &survey, options, began, threads, progress)?;
    let (graph, _) = with_classes(shape, facts.classes)?;
    let weights: Weights = fresh_weights(&graph, options.seed);
    let [held, others] = [true, false].map(|held| survey.held(held));
    let (recipe, resume) = match work.keeper.load(options.force)? {
        Some((state, tensors)) => {
            progress.notice(&format!("going on after {} steps", state.standing.step));
            work.before = state.seconds;
            (state.recipe, Some((state.standing, tensors)))
        }
        None => {
            let recipe = facts.recipe(RecipeKind::Scratch, options.epochs, options.balance);
            let recipe = work.fitted(recipe, &graph, others.len(), others.len())?.ok_or_else(|| {
                Error::Unsupported(
                    "the time limit is too short to train a network from random weights; raise --time".into(),
                )
            })?;
            (recipe, None)
        }
    };
    let photos = [survey.photos(&others), survey.photos(&held)];
    let start = Parameters::new(&graph, &weights)?;
    let run = work.run("training", &recipe, photos, &graph, start, None, resume, log.as_deref_mut())?;
    if let Some(why) = &run.stopped {
        if run.best.is_none() {
            return Err(Error::Unsupported(format!(
                "{why}, before an epoch was over; there is no network to keep"
            )));
        }
        progress.notice(&format!("{why}; training ended there, and the best network before it is kept"));
    }
    let labels: Vec<u32> = held.iter().map(|&photo| survey.labels[photo]).collect();
    let t = calibration::temperature(&run.logits, &labels, facts.classes);
    let score = trainer::score(&run.logits, &survey.photos(&held), facts.classes);
    let mut steps = vec![describe(RecipeKind::Scratch, &recipe)];
    if run.interrupted {
        steps.push(format!("{UNFINISHED}stopped by the user; this is the best so far"));
    }
    let weights = run.parameters.to_weights();
    let model = assemble(shape, &survey, graph, weights, steps, t, score.top1, options)?;
    let val_nll = calibration::mean_surprise(&run.logits, &labels, facts.classes, t);
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

#[cfg(test)]
mod tests {
    use super::leads_astray;

    #[test]
    fn a_mirror_is_blamed_only_for_what_chance_does_not_explain() {
        let right = |photos: usize, wrong: usize| -> Vec<bool> { (0..photos).map(|i| i >= wrong).collect() };
        assert!(!leads_astray(&right(49, 0), &right(49, 1)));
        assert!(!leads_astray(&right(1000, 50), &right(1000, 60)));
        assert!(leads_astray(&right(600, 60), &right(600, 180)));
        assert!(!leads_astray(&right(600, 180), &right(600, 60)));
        assert!(!leads_astray(&[], &[]));
    }
}
