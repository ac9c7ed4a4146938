//! One run of training: steps, validation, the best so far, and a state from which it goes on.

use std::{ops::Range, sync::Arc, time::Instant};

use penjing_kernels::Serial;
use penjing_runtime::{
    graph::Graph,
    pixels::{Fit, Pixels},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    augment::Augment,
    checkpoint::{self, Tensors},
    distill::{self, Answers, Distill},
    ema::Ema,
    feed::{Draw, Feed, Photo},
    learner::{Learner, Method, Projection},
    log::{Event, Log},
    loss,
    mix::Mix,
    optimizer::{Rates, Rule},
    parameters::Parameters,
    schedule::Schedule,
    tape::{Policy, Statistics, Tape},
    teacher::Teacher,
};
use crate::{Error, Result, progress::Progress, random::SplitMix64, runner::Runner, threads::Threads};

/// How a network is trained: everything that decides the result, beside data, start and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// How often every photo is seen.
    pub epochs: f64,
    /// Photos of a step.
    pub batch: usize,
    /// Photos that go through the network at once: all of the batch with its own statistics.
    pub at_once: usize,
    /// Height and width of the input while training, in pixels.
    pub size: usize,
    /// A smaller input to begin with; `None` for one size throughout.
    pub early: Option<Early>,
    /// The optimizer.
    pub rule: Rule,
    /// Weight decay, not on BatchNorm and biases.
    pub decay: f32,
    /// Greatest norm of all gradients together.
    pub clip: Option<f32>,
    /// Learning rates by group of layers.
    pub rates: Rates,
    /// Share of the steps in which the rate rises.
    pub warmup: f64,
    /// The last rate as a share of the first.
    pub floor: f64,
    /// Label smoothing.
    pub smoothing: f32,
    /// What photos may look like.
    pub augment: Augment,
    /// Photos blended into each other.
    pub mix: Mix,
    /// 0: every photo as often as any other; 1: every class.
    pub balance: f64,
    /// Which statistics normalize.
    pub statistics: Statistics,
    /// How fast running statistics follow.
    pub momentum: f32,
    /// Place of the first node that is learnt.
    pub first: usize,
    /// Half-life of the moving average, as a share of the steps.
    pub half_life: f64,
    /// Whether memory counts more than time.
    #[serde(default)]
    pub frugal: bool,
    /// How the network listens to the job's teacher; `None` for not at all.
    #[serde(default)]
    pub distill: Option<Distill>,
}

/// The first epochs of a training whose photos are seen small at first, which takes less time (Howard's progressive
/// resizing; Tan & Le, arXiv 2104.00298).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Early {
    /// Height and width of the input, in pixels.
    pub size: usize,
    /// Share of the epochs, rounded down to whole ones.
    pub share: f64,
}

/// What is trained on what.
#[derive(Debug)]
pub struct Job<'a> {
    /// What the log calls it.
    pub name: &'a str,
    /// The network for a batch of one, at the size it is used at.
    pub graph: &'a Graph,
    /// From photo to input, at that size.
    pub pixels: &'a Pixels,
    /// The photos to learn from; those without a label need a teacher.
    pub learn: Vec<Photo>,
    /// Those to choose by, all with a label; may be empty.
    pub judge: Vec<Photo>,
    /// Number of classes.
    pub classes: usize,
    /// How.
    pub recipe: &'a Recipe,
    /// Who is asked, where the recipe distils: it sees the same looks. With hints in the recipe it tells its features.
    pub teacher: Option<&'a Teacher>,
    /// Where the network shall compute with integers or zeros: how its weights become those. Its graph says which results
    /// are kept in 8 bits.
    pub projection: Option<Arc<dyn Projection>>,
    /// Seed of order, augmentation and dropout.
    pub seed: u64,
    /// Bytes that training may take.
    pub memory: u64,
}

/// What was seen after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: u64,
    /// Mean training loss.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// The moving average of the weights on the photos to choose by.
    pub average: Option<Score>,
    /// The weights themselves, at the schedule's end only: before it they are hardly ever the better ones.
    pub raw: Option<Score>,
}

/// How good a network is on photos it has not learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share classified rightly, 0..1.
    pub top1: f64,
    /// Mean negative log-likelihood.
    #[serde(deserialize_with = "number")]
    pub nll: f64,
}

/// JSON has only `null` for what is no number, which a network can give that has gone astray.
fn number<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    Option::deserialize(from).map(|number: Option<f64>| number.unwrap_or(f64::NAN))
}

/// The best network so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After which epoch.
    pub epoch: u64,
    /// Whether it is the moving average.
    pub average: bool,
    /// What it reached.
    pub score: Score,
}

/// Where a run stands: enough to go on as if nothing had happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Steps done.
    pub step: u64,
    /// Steps of the moving average.
    pub averaged: u64,
    /// Loss summed over the epoch so far, and its steps.
    pub loss: (f64, u64),
    /// The epochs done.
    pub history: Vec<EpochRecord>,
    /// The best so far.
    pub best: Option<Best>,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The weights at its end.
    pub last: Parameters,
    /// Their moving average.
    pub average: Parameters,
    /// The better of the two on the photos to choose by; of a run that did not reach its end the best of all epochs.
    /// `None` without such photos, or before the first epoch is over.
    pub best: Option<(Best, Parameters)>,
    /// Epoch by epoch.
    pub history: Vec<EpochRecord>,
    /// Why it ended early.
    pub stopped: Option<String>,
    /// Whether the watcher ended it; a state has been kept then.
    pub interrupted: bool,
    /// Whether every step was taken.
    pub whole: bool,
}

/// Who watches a run.
pub struct Watch<'a> {
    /// The user.
    pub progress: &'a dyn Progress,
    /// A file of events.
    pub log: Option<&'a mut Log>,
    /// Keeps a state; called now and then.
    pub keep: &'a mut (dyn FnMut(&Standing, Tensors<'_>) -> Result<()> + Send),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("log", &self.log).finish_non_exhaustive()
    }
}

/// Most bytes of decoded photos that are kept at hand; others are decoded again in every epoch.
const PHOTOS_BYTES: u64 = 512 << 20;

/// Set apart what is drawn from one seed.
const DROPOUT: u64 = 0x6472_6f70;
const BLENDING: u64 = 0x626c_656e;

/// Seconds between states that are kept: 30, or what `PENJING_KEEP_SECONDS` says.
fn keep_every() -> f64 {
    std::env::var("PENJING_KEEP_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30.0)
}

impl Recipe {
    /// What a step depends on.
    pub fn method(&self) -> Method {
        let policy = Policy { statistics: self.statistics, first: self.first, frugal: self.frugal };
        let Recipe { rule, decay, clip, rates, momentum, .. } = *self;
        Method { rule, decay, clip, rates, policy, momentum }
    }

    /// Steps of an epoch: photos that do not fill a batch wait for another epoch.
    pub fn steps_per_epoch(&self, photos: usize) -> u64 {
        (photos / self.batch).max(1) as u64
    }

    /// Height and width of the input in an epoch, counted from 0.
    pub fn size_in(&self, epoch: u64) -> usize {
        match self.early {
            Some(early) if epoch < self.early_epochs() => early.size,
            _ => self.size,
        }
    }

    /// Epochs in which photos are seen small.
    pub fn early_epochs(&self) -> u64 {
        self.early.map_or(0, |early| (early.share * self.epochs) as u64)
    }

    /// All steps.
    pub fn steps(&self, photos: usize) -> u64 {
        ((self.steps_per_epoch(photos) as f64 * self.epochs).round() as u64).max(1)
    }
}

impl Recipe {
    /// The recipe for so many photos and `memory` bytes. With frozen statistics the batch's photos do not know each
    /// other, so few go through the network at once; with the batch's own statistics it is all of them. Where that does not
    /// fit, less is kept for the backward half; then the batch shrinks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when not even one photo at a time fits.
    pub fn fitted(mut self, graph: &Graph, photos: usize, memory: u64) -> Result<Recipe> {
        let batch = self.batch.min(photos).max(1);
        let mut at_once = match self.statistics {
            Statistics::Batch => batch,
            // Equal parts of the batch.
            Statistics::Frozen => batch.div_ceil(batch.div_ceil(AT_ONCE)),
        };
        loop {
            let bytes = Tape::bytes(&sized(graph, at_once, self.size)?, &self.method().policy)?;
            if bytes <= memory {
                break;
            }
            if !self.frugal && self.statistics == Statistics::Batch {
                self.frugal = true;
                continue;
            }
            if at_once == 1 {
                return Err(Error::Unsupported(format!(
                    "training at {} px takes {} MB even for one photo at a time, but {} MB may be used",
                    self.size,
                    bytes.div_ceil(1_000_000),
                    memory / 1_000_000
                )));
            }
            at_once = at_once.div_ceil(2);
        }
        let batch = match self.statistics {
            Statistics::Batch => at_once,
            Statistics::Frozen => batch.next_multiple_of(at_once),
        };
        Ok(Recipe { batch, at_once, ..self })
    }
}

/// Photos whose maps stay near the cores.
pub const AT_ONCE: usize = 8;

pub(super) fn sized(graph: &Graph, batch: usize, size: usize) -> Result<Graph> {
    let [_, _, _, channels] = graph.input_shape().unwrap_or_default();
    graph.with_input([batch, size, size, channels]).map_err(|error| Error::Unsupported(error.to_string()))
}

/// The contract for another size of the input.
fn contract(pixels: &Pixels, size: usize) -> Pixels {
    let fit = match pixels.fit {
        Fit::Crop { short } => Fit::Crop { short: (short * size).div_ceil(pixels.height.min(pixels.width)) },
        other => other,
    };
    Pixels { height: size, width: size, fit, ..pixels.clone() }
}

/// Trains from `start`, or goes on from a state that was kept.
///
/// # Errors
/// Whatever photos or `keep` fail with; [`Error::Unsupported`] for a recipe that distils without a teacher, or blends photos
/// of which the teacher sees each by itself. A run that the watcher ends gives the best so far.
pub fn train(
    job: &Job,
    start: Parameters,
    resume: Option<(Standing, Tensors<'_>)>,
    threads: &Threads,
    watch: &mut Watch,
) -> Result<Trained> {
    threads.install(|| Run::new(job, start, resume)?.run(watch))
}

/// The teacher and how it is listened to, if the recipe distils.
fn teacher<'a>(job: &Job<'a>) -> Result<Option<(&'a Teacher, Distill)>> {
    let unsupported = |what: &str| Err(Error::Unsupported(what.into()));
    match (job.recipe.distill, job.teacher) {
        (None, _) if job.learn.iter().any(|photo| photo.class.is_none()) => {
            unsupported("photos without a label teach nothing without a teacher")
        }
        (None, _) => Ok(None),
        (Some(_), None) => unsupported("the recipe distils, but there is no teacher"),
        (Some(_), _) if job.recipe.mix.mixup > 0.0 || job.recipe.mix.cutmix > 0.0 => {
            unsupported("a teacher sees each photo by itself, so photos are not blended")
        }
        (Some(distill), Some(teacher)) if (distill.hints > 0.0) != (teacher.features() > 0) => {
            unsupported("hints need a teacher that tells its features, and only they do")
        }
        (Some(distill), Some(teacher)) => Ok(Some((teacher, distill))),
    }
}

struct Run<'a> {
    job: &'a Job<'a>,
    /// What learns: the job's graph, with hints and the adapter behind it.
    graph: Graph,
    teacher: Option<(&'a Teacher, Distill)>,
    feed: Feed,
    judge: Feed,
    learner: Learner,
    ema: Ema,
    schedule: Schedule,
    standing: Standing,
    best: Option<Parameters>,
    batch: usize,
    per_epoch: u64,
}

impl<'a> Run<'a> {
    fn new(job: &'a Job<'a>, start: Parameters, resume: Option<(Standing, Tensors<'_>)>) -> Result<Self> {
        let recipe = job.recipe;
        let photos = job.learn.len();
        let memory = PHOTOS_BYTES.min(job.memory / 4);
        // Photos are decoded as in use, whatever size they are seen at while training.
        let feed = |photos: &[Photo], augment| {
            Feed::new(
                photos.to_vec(),
                job.classes,
                job.pixels.clone(),
                augment,
                recipe.balance,
                job.seed,
                memory as usize,
            )
        };
        let steps = recipe.steps(photos);
        let per_epoch = recipe.steps_per_epoch(photos);
        let epoch = resume.as_ref().map_or(0, |(standing, _)| standing.step / per_epoch);
        let teacher = teacher(job)?;
        let graph = match teacher {
            Some((teacher, _)) if teacher.features() > 0 => {
                distill::with_adapter(job.graph, teacher.features())?
            }
            _ => job.graph.clone(),
        };
        let sized = sized(&graph, recipe.at_once, recipe.size_in(epoch))?;
        let mut learner = Learner::new(&sized, start.extended(&graph), &recipe.method())?;
        learner.projection.clone_from(&job.projection);
        let half_life = recipe.half_life * steps as f64;
        let mut run = Run {
            feed: feed(&job.learn, recipe.augment),
            judge: feed(&job.judge, Augment::NONE),
            ema: Ema::new(&learner.parameters, half_life),
            learner,
            schedule: Schedule { steps, warmup: recipe.warmup, floor: recipe.floor },
            standing: Standing::default(),
            best: None,
            batch: recipe.batch,
            per_epoch,
            job,
            graph,
            teacher,
        };
        if let Some((standing, tensors)) = resume {
            run.restore(standing, tensors, half_life)?;
        }
        Ok(run)
    }

    fn run(mut self, watch: &mut Watch) -> Result<Trained> {
        let began = Instant::now();
        let (first, steps) = (self.standing.step, self.schedule.steps);
        watch.progress.begin(self.job.name, (steps as usize).saturating_mul(self.batch));
        watch.progress.advance(first as usize * self.batch);
        if let Some(log) = &mut watch.log {
            log.write(&Event::Phase { name: self.job.name });
        }
        let mut kept = Instant::now();
        let mut stopped = None;
        let recipe = self.job.recipe;
        let mut pixels = contract(self.job.pixels, recipe.size_in(first / self.per_epoch));
        let mut inputs = vec![0.0; self.batch * pixels.len()];
        let mut next = Vec::new();
        let told = self.batch * self.teacher.map_or(0, |(teacher, _)| teacher.width());
        let (mut answers, mut next_answers) = (vec![0.0; told], vec![0.0; told]);
        let mut order = (u64::MAX, Vec::new());
        if first < steps {
            let draws = self.draws(first, &mut order);
            let teacher = self.teacher.map(|(teacher, _)| (teacher, &mut answers[..]));
            self.feed.fill(&pixels, first / self.per_epoch, &draws, &mut inputs, teacher)?;
        }
        let (every, mut interrupted) = (keep_every(), false);
        while self.standing.step < steps && !interrupted {
            let step = self.standing.step;
            let draws = self.draws(step, &mut order);
            let ahead = (step + 1 < steps).then(|| self.draws(step + 1, &mut order));
            let epoch_ahead = (step + 1) / self.per_epoch;
            let mut targets = self.targets(&draws);
            self.blend(step, &pixels, &mut inputs, &mut targets);
            let pixels_ahead = contract(self.job.pixels, recipe.size_in(epoch_ahead));
            next.resize(self.batch * pixels_ahead.len(), 0.0);
            // Photos for the next step are made ready while this one is computed.
            let rate = self.schedule.factor(step) as f32;
            let seed = SplitMix64::new(self.job.seed ^ DROPOUT).next_u64() ^ step;
            let Run { feed, learner, teacher, batch, job, .. } = &mut self;
            let done = step as f64 / steps as f64;
            learner.done = done;
            let mut learn = || match *teacher {
                None => learner.step(&inputs, &targets, seed, rate),
                Some((teacher, distill)) => {
                    let (classes, width) = (job.classes, teacher.width());
                    let loss = |photos: Range<usize>, outputs: &[f32], slope: &mut [f32]| {
                        let targets = &targets[photos.start * classes..photos.end * classes];
                        let teacher = &answers[photos.start * width..photos.end * width];
                        distill.loss(&Answers { classes, targets, teacher }, done, outputs, slope)
                    };
                    learner.step_by(&inputs, *batch, &loss, seed, rate)
                }
            };
            let ((loss, learnt), filled) = rayon::join(
                || (learn(), Instant::now()),
                || match &ahead {
                    Some(draws) => {
                        let teacher = teacher.map(|(teacher, _)| (teacher, &mut next_answers[..]));
                        feed.fill(&pixels_ahead, epoch_ahead, draws, &mut next, teacher)
                    }
                    None => Ok(()),
                },
            );
            let waited_s = learnt.elapsed().as_secs_f64();
            if !loss.is_finite() {
                stopped = Some(format!("the loss became {loss} at step {}", step + 1));
                break;
            }
            filled?;
            std::mem::swap(&mut inputs, &mut next);
            std::mem::swap(&mut answers, &mut next_answers);
            self.ema.update(&self.learner.parameters);
            self.standing.step += 1;
            self.standing.averaged = self.ema.updates();
            self.standing.loss = (self.standing.loss.0 + loss, self.standing.loss.1 + 1);
            watch.progress.advance(self.batch);
            let done = self.standing.step;
            let speed = ((done - first) as usize * self.batch) as f64 / began.elapsed().as_secs_f64();
            if let Some(log) = &mut watch.log {
                log.write(&Event::Step {
                    epoch: step / self.per_epoch + 1,
                    step: done,
                    steps,
                    loss,
                    lr: rate * self.job.recipe.rates.head,
                    images_per_s: speed,
                    waited_s,
                });
            }
            if done.is_multiple_of(self.per_epoch) || done == steps {
                self.end_epoch(speed, watch)?;
            }
            let cancelled = watch.progress.cancelled();
            // At the end too: judging what has been learnt takes its time.
            if cancelled || done == steps || kept.elapsed().as_secs_f64() > every {
                (watch.keep)(&self.standing, self.tensors())?;
                kept = Instant::now();
            }
            interrupted = cancelled && self.standing.step < steps;
            if ahead.is_some() && pixels_ahead != pixels {
                let graph = sized(&self.graph, recipe.at_once, pixels_ahead.height)?;
                self.learner = self.learner.resized(&graph)?;
            }
            pixels = pixels_ahead;
        }
        watch.progress.end();
        Ok(self.finish(stopped, interrupted))
    }

    /// The photos of a step.
    fn draws(&self, step: u64, order: &mut (u64, Vec<Draw>)) -> Vec<Draw> {
        let (epoch, within) = (step / self.per_epoch, (step % self.per_epoch) as usize);
        if order.0 != epoch {
            *order = (epoch, self.feed.order(epoch));
        }
        // Where there are fewer photos than a batch takes, the first ones are seen again.
        (0..self.batch).map(|i| order.1[(within * self.batch + i) % order.1.len()]).collect()
    }

    fn targets(&self, draws: &[Draw]) -> Vec<f32> {
        let classes = self.job.classes;
        let mut targets = vec![0.0; draws.len() * classes];
        for (row, draw) in targets.chunks_exact_mut(classes).zip(draws) {
            if let Some(class) = self.job.learn[draw.photo as usize].class {
                loss::smoothed(class as usize, self.job.recipe.smoothing, row);
            }
        }
        targets
    }

    /// Blends the photos of a step into each other.
    fn blend(&self, step: u64, pixels: &Pixels, inputs: &mut [f32], targets: &mut [f32]) {
        let shape = [self.batch, pixels.height, pixels.width, pixels.channels()];
        let mut random = SplitMix64::new(SplitMix64::new(self.job.seed ^ BLENDING).next_u64() ^ step);
        self.job.recipe.mix.apply(&mut random, shape, inputs, targets, self.job.classes);
    }

    fn end_epoch(&mut self, images_per_s: f64, watch: &mut Watch) -> Result<()> {
        let recipe = self.job.recipe;
        let epoch = self.standing.step.div_ceil(self.per_epoch);
        let (sum, steps) = std::mem::take(&mut self.standing.loss);
        let mut record = EpochRecord { epoch, loss: sum / steps as f64, average: None, raw: None };
        if !self.job.judge.is_empty() {
            let end = self.standing.step == self.schedule.steps;
            let average = self.score(self.ema.parameters())?;
            let raw = if end { Some(self.score(&self.learner.parameters)?) } else { None };
            // What the schedule's end gives is what counts: before it the rate is still high, and the best of many
            // epochs would owe something to chance.
            if end && [Some(average), raw].into_iter().flatten().any(|score| score.nll.is_finite()) {
                self.standing.best = None;
            }
            for (score, of, parameters) in
                [(Some(average), true, self.ema.parameters()), (raw, false, &self.learner.parameters)]
            {
                if let Some(score) = score.filter(|score| score.nll.is_finite())
                    && self.standing.best.as_ref().is_none_or(|best| score.nll < best.score.nll)
                {
                    self.standing.best = Some(Best { epoch, average: of, score });
                    self.best = Some(parameters.clone());
                }
            }
            (record.average, record.raw) = (Some(average), raw);
        }
        let left = (self.schedule.steps - self.standing.step) as f64 * self.batch as f64 / images_per_s;
        let epochs = recipe.epochs.ceil() as u64;
        let lr = self.schedule.factor(self.standing.step - 1) as f32 * recipe.rates.head;
        watch.progress.notice(&describe(self.job.name, &record, epochs, images_per_s, left));
        if let Some(log) = &mut watch.log {
            log.write(&Event::Epoch {
                epoch,
                epochs,
                loss: record.loss,
                val_top1: record.average.map_or(f64::NAN, |score| score.top1),
                val_nll: record.average.map_or(f64::NAN, |score| score.nll),
                lr,
                images_per_s,
                seconds_left: left,
            });
        }
        self.standing.history.push(record);
        Ok(())
    }

    /// A network on the photos to choose by.
    fn score(&self, parameters: &Parameters) -> Result<Score> {
        let Job { graph, pixels, judge: photos, classes, projection, .. } = self.job;
        let own = parameters.clone().cut(graph.parameters().len());
        let weights =
            projection.as_ref().map_or_else(|| own.to_weights(), |projection| projection.project(&own, 1.0));
        let runner = Runner::new(graph, &weights, pixels, 1)?;
        let logits = judge(&self.judge, photos, &[runner])?.concat();
        Ok(score(&logits, photos, *classes))
    }

    fn tensors(&self) -> Tensors<'_> {
        let mut tensors = Tensors::new();
        checkpoint::keep(&mut tensors, "weights", &self.learner.parameters);
        checkpoint::keep(&mut tensors, "average", self.ema.parameters());
        if let Some(best) = &self.best {
            checkpoint::keep(&mut tensors, "best", best);
        }
        self.learner.optimizer.keep(&self.learner.parameters, &mut tensors);
        tensors
    }

    fn restore(&mut self, standing: Standing, mut tensors: Tensors<'_>, half_life: f64) -> Result<()> {
        let mut average = self.learner.parameters.clone();
        checkpoint::restore(&mut tensors, "average", &mut average)?;
        if standing.best.is_some() {
            let mut best = self.learner.parameters.clone();
            checkpoint::restore(&mut tensors, "best", &mut best)?;
            self.best = Some(best);
        }
        checkpoint::restore(&mut tensors, "weights", &mut self.learner.parameters)?;
        let Learner { optimizer, parameters, .. } = &mut self.learner;
        optimizer.restore(standing.step, parameters, &mut tensors)?;
        self.ema = Ema::resume(average, half_life, standing.averaged);
        self.standing = standing;
        Ok(())
    }

    fn finish(self, stopped: Option<String>, interrupted: bool) -> Trained {
        let whole = self.standing.step == self.schedule.steps;
        let Run { learner, ema, standing, best, job, .. } = self;
        let own = job.graph.parameters().len();
        Trained {
            last: learner.parameters.cut(own),
            average: ema.parameters().clone().cut(own),
            best: standing.best.zip(best.map(|best| best.cut(own))),
            history: standing.history,
            stopped,
            interrupted,
            whole,
        }
    }
}

/// Logits `[photos][classes]` of plain photos under each of several networks.
///
/// # Errors
/// [`Error::Data`] when a photo cannot be read.
pub fn judge(feed: &Feed, photos: &[Photo], runners: &[Runner]) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<Vec<Vec<f32>>> = (0..photos.len())
        .into_par_iter()
        .map_init(
            || vec![0.0; feed.pixels().len()],
            |input, photo| {
                feed.plain(photo, input)?;
                Ok(runners.iter().map(|runner| runner.run_tensor(input, &Serial)).collect())
            },
        )
        .collect::<Result<_>>()?;
    let mut all = vec![Vec::new(); runners.len()];
    for row in rows {
        all.iter_mut().zip(row).for_each(|(all, logits)| all.extend(logits));
    }
    Ok(all)
}

/// How good logits `[photos][classes]` are, of photos with a label.
pub fn score(logits: &[f32], photos: &[Photo], classes: usize) -> Score {
    let mut targets = vec![0.0; logits.len()];
    let mut right = 0;
    for ((row, target), photo) in
        logits.chunks_exact(classes).zip(targets.chunks_exact_mut(classes)).zip(photos)
    {
        let Some(class) = photo.class else { continue };
        target[class as usize] = 1.0;
        // Of equals the first is the answer, as everywhere.
        let best = (0..classes).fold(0, |best, other| if row[other] > row[best] { other } else { best });
        right += usize::from(best == class as usize);
    }
    let nll = loss::cross_entropy(classes, logits, &targets, &mut vec![0.0; logits.len()]);
    Score { top1: right as f64 / photos.len() as f64, nll }
}

fn describe(name: &str, record: &EpochRecord, epochs: u64, images_per_s: f64, left: f64) -> String {
    let score =
        record.average.map_or(String::new(), |score| format!("  validation {:.2} %", 100.0 * score.top1));
    format!(
        "{name}: epoch {}/{epochs}  loss {:.3}{score}  {images_per_s:.0} images/s  {left:.0} s left",
        record.epoch, record.loss,
    )
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{
        progress::Quiet,
        zoo::{Arch, Config, fresh_weights},
    };

    /// Photos of an epoch, two of which make a step.
    const PHOTOS: [&str; 4] = ["lossy.webp", "palette.png", "still.gif", "palette.bmp"];

    fn recipe() -> Recipe {
        let rate = 1e-3;
        Recipe {
            epochs: 3.0,
            batch: 2,
            at_once: 2,
            size: 32,
            early: None,
            rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            decay: 0.0,
            clip: None,
            rates: Rates { head: rate, last: rate, middle: rate, first: rate },
            warmup: 0.0,
            floor: 0.01,
            smoothing: 0.0,
            augment: Augment::NONE,
            mix: Mix { mixup: 0.0, cutmix: 0.0 },
            balance: 0.0,
            statistics: Statistics::Frozen,
            momentum: 0.1,
            first: 0,
            half_life: 0.1,
            frugal: false,
            distill: None,
        }
    }

    type State = (Standing, Tensors<'static>);

    /// The run, and the states of it that were kept.
    fn run(recipe: &Recipe, progress: &dyn Progress) -> (Trained, Vec<State>) {
        go_on(recipe, progress, None)
    }

    fn go_on(recipe: &Recipe, progress: &dyn Progress, from: Option<State>) -> (Trained, Vec<State>) {
        let (arch, width) = Arch::named("mobilenet_v1_x0.25").unwrap();
        let config = Config { width, size: 32, ..arch.config(2) };
        let (graph, pixels) = (arch.graph(&config).unwrap(), arch.pixels(&config));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos");
        let photos = (0..).zip(PHOTOS).map(|(i, name)| Photo {
            path: folder.join(name),
            class: Some(i % 2),
            key: i.into(),
        });
        let photos: Vec<Photo> = photos.collect();
        let job = Job {
            name: "training",
            graph: &graph,
            pixels: &pixels,
            learn: photos.clone(),
            judge: photos,
            classes: 2,
            recipe,
            teacher: None,
            projection: None,
            seed: 0,
            memory: 1 << 30,
        };
        let start = Parameters::new(&graph, &fresh_weights(&graph, 0)).unwrap();
        let mut kept = Vec::new();
        let mut keep = |standing: &Standing, tensors: Tensors<'_>| {
            let tensors = tensors.into_iter().map(|(name, values)| (name, values.into_owned().into()));
            kept.push((standing.clone(), tensors.collect()));
            Ok(())
        };
        let mut watch = Watch { progress, log: None, keep: &mut keep };
        let trained = train(&job, start, from, &Threads::new(Some(2)).unwrap(), &mut watch).unwrap();
        (trained, kept)
    }

    #[test]
    fn what_is_no_number_is_kept_and_comes_back() {
        let score = Score { top1: 0.5, nll: f64::NAN };
        let record = EpochRecord { epoch: 1, loss: f64::INFINITY, average: Some(score), raw: None };
        let text = serde_json::to_string(&record).unwrap();
        let again: EpochRecord = serde_json::from_str(&text).unwrap();
        assert!(again.loss.is_nan() && again.average.unwrap().nll.is_nan(), "{text}");
        assert!(serde_json::from_str::<Score>(r#"{"top1":1.0}"#).is_err(), "a number is missing");
    }

    #[test]
    fn what_the_end_of_the_schedule_gives_counts() {
        let (trained, kept) = run(&recipe(), &Quiet);
        assert!(trained.whole && !trained.interrupted && trained.stopped.is_none());
        assert_eq!((kept.len(), kept[0].0.step), (1, 6));
        let judged: Vec<_> =
            trained.history.iter().map(|epoch| (epoch.average.is_some(), epoch.raw.is_some())).collect();
        assert_eq!(judged, [(true, false), (true, false), (true, true)]);
        let end = trained.history.last().unwrap();
        let (average, raw) = (end.average.unwrap(), end.raw.unwrap());
        assert!(average != raw && trained.average != trained.last, "nothing has been learnt");
        let (best, network) = trained.best.unwrap();
        let average_wins = average.nll <= raw.nll;
        assert_eq!((best.epoch, best.average), (3, average_wins));
        assert_eq!(best.score, if average_wins { average } else { raw });
        assert!(network == if average_wins { trained.average } else { trained.last });
    }

    /// A user who has enough after so many photos.
    struct Enough(AtomicUsize);

    impl Progress for Enough {
        fn advance(&self, photos: usize) {
            let less = |left: usize| Some(left.saturating_sub(photos));
            _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }

        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed) == 0
        }
    }

    #[test]
    fn an_interrupted_run_gives_the_best_of_its_epochs() {
        let (trained, kept) = run(&recipe(), &Enough(AtomicUsize::new(10)));
        assert!(trained.interrupted && !trained.whole);
        assert_eq!((kept.len(), kept[0].0.step, trained.history.len()), (1, 5, 2));
        let (best, _) = trained.best.unwrap();
        let least =
            trained.history.iter().map(|epoch| epoch.average.unwrap().nll).fold(f64::INFINITY, f64::min);
        assert!(best.average && best.score.nll == least);
        // Before an epoch is over there is nothing to judge.
        assert!(run(&recipe(), &Enough(AtomicUsize::new(2))).0.best.is_none());
    }

    #[test]
    fn photos_are_small_at_first_and_an_interrupt_changes_nothing() {
        let early = Some(Early { size: 32, share: 0.5 });
        let recipe = Recipe { size: 48, early, epochs: 4.0, ..recipe() };
        assert_eq!([0, 1, 2, 3].map(|epoch| recipe.size_in(epoch)), [32, 32, 48, 48]);
        assert_eq!(Recipe { epochs: 1.9, ..recipe.clone() }.size_in(0), 48);
        let (whole, _) = run(&recipe, &Quiet);
        let (large, _) = run(&Recipe { early: None, ..recipe.clone() }, &Quiet);
        assert!(whole.last != large.last, "all of it at one size");
        // While photos are small, when they grow, and after.
        for steps in [3, 4, 5] {
            let (cut, mut kept) = run(&recipe, &Enough(AtomicUsize::new(2 * steps)));
            assert!(cut.interrupted);
            let (again, _) = go_on(&recipe, &Quiet, kept.pop());
            assert!(again.last == whole.last && again.average == whole.average, "after {steps} steps");
        }
    }

    #[test]
    fn a_loss_that_is_no_number_ends_the_run_and_what_was_judged_stays() {
        // A velocity that grows a thousandfold with every step.
        let rule = Rule::Sgd { momentum: 1e3, nesterov: false };
        let (trained, _) = run(&Recipe { epochs: 50.0, rule, ..recipe() }, &Quiet);
        let why = trained.stopped.unwrap();
        assert!(why.starts_with("the loss became ") && why.contains(" at step "), "{why}");
        assert!(!trained.whole && !trained.interrupted);
        assert!(trained.best.unwrap().0.score.nll.is_finite());
    }
}
