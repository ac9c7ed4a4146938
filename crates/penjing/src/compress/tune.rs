//! A changed network learns from the photos of the training part, under the model that it was made of as teacher.

use std::{path::PathBuf, sync::Arc, time::Instant};

use penjing_runtime::{file::Model, graph::Graph, pixels::Pixels};
use serde::{Deserialize, Serialize};

use super::{gate, unsupported};
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
        learner::Projection,
        memory,
        mix::Mix,
        optimizer::{Rates, Rule},
        parameters::Parameters,
        speed,
        tape::Statistics,
        teacher::Teacher,
        trainer::{self, Job, Recipe, Standing, Trained, Watch},
    },
};

/// How a changed network learns.
#[derive(Clone, Debug)]
pub struct Learning {
    /// How often every photo is seen; `None`: the fewer photos there are, the more often. 0: nothing is learnt, where that makes
    /// sense.
    pub epochs: Option<f64>,
    /// AdamW's rate at its highest.
    pub rate: f32,
    /// Where a state is kept from which the training goes on.
    pub part: Option<PathBuf>,
    /// Whether a state of other training is thrown away.
    pub force: bool,
}

impl Learning {
    /// By default, at up to this rate.
    pub(super) fn at(rate: f32) -> Self {
        Learning { epochs: None, rate, part: None, force: false }
    }
}

/// What learns.
pub(super) struct Work<'a> {
    /// What the log and the kept state call it.
    pub name: &'static str,
    /// Who teaches.
    pub teacher: &'a Model,
    /// How the network sees photos; the teacher sees the same look at them in its own way.
    pub pixels: &'a Pixels,
    /// The network, BatchNorm folded in.
    pub graph: &'a Graph,
    pub start: Parameters,
    pub projection: Option<Arc<dyn Projection>>,
    pub how: &'a Learning,
    /// About so many looks at photos are taken, unless it is said how often each is seen.
    pub looks: f64,
    /// The flag that says how often each photo is seen.
    pub epochs: &'static str,
    /// What is given to leave the training out.
    pub without: &'static str,
    /// What tells other work apart, beside the teacher, the photos, the seed, epochs and rate.
    pub asked: Vec<(&'static str, String)>,
    pub seed: u64,
}

/// What came of it.
pub(super) struct Tuned {
    /// What the log calls it.
    name: &'static str,
    without: &'static str,
    pub trained: Trained,
    /// How it learnt.
    pub recipe: Recipe,
    /// Steps that it was to take.
    pub steps: u64,
    /// Photos that it learnt from.
    pub photos: usize,
    /// How long it took.
    pub seconds: f64,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
}

impl Tuned {
    /// The weights to use: `None` if the training came to no end.
    pub fn weights(&self) -> Option<&Parameters> {
        let trained = &self.trained;
        trained.whole.then(|| trained.best.as_ref().map_or(&trained.average, |(_, best)| best))
    }

    /// The weights to use, where there is nothing else to go back to.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the training came to no end.
    pub fn learnt(&self) -> Result<&Parameters> {
        self.weights().ok_or_else(|| {
            let why = self.trained.stopped.as_deref().unwrap_or_default();
            Error::Unsupported(format!("{} came to no end: {why}; {}", self.name, leave_out(self.without)))
        })
    }
}

/// The state that is kept, beside tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    standing: Standing,
    /// Photos of a step, and how many of them go through the network at once: what there was memory for.
    batch: [usize; 2],
    /// Seconds that the training has taken before.
    seconds: f64,
}

/// Fails where an input is no square, which nothing can learn from here; `without` leaves learning out.
pub(super) fn require_square(pixels: &Pixels, without: &str) -> Result<()> {
    if pixels.height == pixels.width {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "inputs of {} × {} px cannot be trained on, only squares; {}",
        pixels.width,
        pixels.height,
        leave_out(without)
    )))
}

fn leave_out(without: &str) -> String {
    format!("give {without} to leave learning out")
}

/// Trains.
///
/// # Errors
/// [`Error::Unsupported`] when the network cannot be trained; [`Error::Data`] when there is nothing to learn from;
/// [`Error::Model`] for the state of other work; [`Error::Interrupted`], and a state has been kept then.
pub(super) fn train(work: Work, data: &Dataset, threads: &Threads, progress: &dyn Progress) -> Result<Tuned> {
    let (model, pixels, began) = (work.teacher, work.pixels, Instant::now());
    require_square(pixels, work.without)?;
    let mut skipped = Vec::new();
    let mut photos = |part| photos(&work, data, part, threads, progress, &mut skipped);
    let [learn, judge] = [photos(Part::Train)?, photos(Part::Val)?];
    let memory = memory::available();
    let mut recipe = fitted(&work, learn.len(), memory)?;
    let keeper = Keeper::new(work.how.part.as_deref(), identity(&work, [&learn, &judge])?);
    let resume: Option<(State, _)> = keeper.load(work.how.force)?;
    let (mut before, mut from) = (0.0, None);
    if let Some((state, tensors)) = resume {
        progress.notice(&format!("going on after {} steps", state.standing.step));
        [recipe.batch, recipe.at_once] = state.batch;
        (before, from) = (state.seconds, Some((state.standing, tensors)));
    }
    let seconds = || before + began.elapsed().as_secs_f64();

    let teacher = Teacher::new(model, &model.labels, false)?;
    let photos = learn.len();
    let job = Job {
        name: work.name,
        graph: work.graph,
        pixels,
        learn,
        judge,
        classes: model.labels.len(),
        recipe: &recipe,
        teacher: Some(&teacher),
        projection: work.projection,
        seed: work.seed,
        memory,
    };
    let mut keep = |standing: &Standing, tensors: Tensors<'_>| {
        let batch = [recipe.batch, recipe.at_once];
        keeper.keep(&State { standing: standing.clone(), batch, seconds: seconds() }, tensors, progress);
        Ok(())
    };
    let mut watch = Watch { progress, log: None, keep: &mut keep };
    let trained = trainer::train(&job, work.start, from, threads, &mut watch)?;
    if trained.interrupted {
        return Err(Error::Interrupted);
    }
    let steps = recipe.steps(photos);
    Ok(Tuned {
        name: work.name,
        without: work.without,
        trained,
        steps,
        photos,
        seconds: seconds(),
        skipped,
        recipe,
    })
}

/// Images a second that it would learn from here, of so many photos.
///
/// # Errors
/// [`Error::Unsupported`] when the network cannot be trained.
pub(super) fn images_per_s(work: &Work, photos: usize, threads: &Threads) -> Result<f64> {
    let recipe = fitted(work, photos, memory::available())?;
    let teacher = Teacher::new(work.teacher, &work.teacher.labels, false)?;
    Ok(1.0 / speed::pace(work.graph, &work.start, &recipe, Some(&teacher), threads)?.of(&recipe))
}

/// The photos of a part that can be read, by the model's classes.
fn photos(
    work: &Work,
    data: &Dataset,
    part: Part,
    threads: &Threads,
    progress: &dyn Progress,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Photo>> {
    let samples: Vec<&Sample> = data.part(part).map(|(_, sample)| sample).collect();
    let paths: Vec<_> = samples.iter().map(|sample| &sample.path).collect();
    let mut photos = Vec::new();
    for (sample, read) in samples.iter().zip(feed::read(&paths, work.pixels, threads, progress)?) {
        match read {
            Ok(hash) => photos.push(Photo {
                path: sample.path.clone(),
                class: Some(gate::place(work.teacher, data, sample.class)? as u32),
                key: feed::key(&hash),
            }),
            Err(error) => skipped.push(Skipped::new(&sample.path, &error)),
        }
    }
    Ok(photos)
}

/// How often a photo is seen at most, unless it is said: more teaches few photos by heart.
pub(super) const MOST_EPOCHS: f64 = 60.0;
const BATCH: usize = 16;

/// How a network of so many photos learns.
fn recipe(work: &Work, photos: usize) -> Recipe {
    let rate = work.how.rate;
    Recipe {
        epochs: work.how.epochs.unwrap_or_else(|| epochs(work.looks, photos)),
        batch: BATCH,
        at_once: BATCH,
        // What was fitted to results at the size in use fits those of no other.
        size: work.pixels.height,
        early: None,
        rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        decay: 0.0,
        clip: Some(1.0),
        rates: Rates { head: rate, last: rate, middle: rate, first: rate },
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

/// The recipe for so many photos, and so many bytes of memory.
fn fitted(work: &Work, photos: usize, memory: u64) -> Result<Recipe> {
    recipe(work, photos).fitted(work.graph, photos, memory).map_err(|error| match error {
        Error::Unsupported(why) => Error::Unsupported(format!("{why}; {}", leave_out(work.without))),
        error => error,
    })
}

/// How often so many photos are seen for so many looks.
pub(super) fn epochs(looks: f64, photos: usize) -> f64 {
    (looks / photos.max(1) as f64).clamp(1.0, MOST_EPOCHS).round()
}

/// What makes two trainings differ.
fn identity(work: &Work, photos: [&[Photo]; 2]) -> Result<Identity> {
    let model = blake3::hash(&work.teacher.to_bytes().map_err(unsupported)?).to_hex().to_string();
    let mut hasher = blake3::Hasher::new();
    for photos in photos {
        hasher.update(&photos.len().to_le_bytes());
        for photo in photos {
            hasher.update(&photo.key.to_le_bytes());
            hasher.update(&photo.class.unwrap_or(u32::MAX).to_le_bytes());
        }
    }
    let mut learner = blake3::Hasher::new();
    work.start.to_weights().values().for_each(|tensor| {
        learner.update(&tensor.to_le_bytes());
    });
    let own = [
        ("the work", work.name.into()),
        ("the model", model),
        ("the network that learns", learner.finalize().to_hex().to_string()),
        ("the photos", hasher.finalize().to_hex().to_string()),
        ("the version of penjing", env!("CARGO_PKG_VERSION").into()),
        ("--seed", work.seed.to_string()),
        (work.epochs, recipe(work, photos[0].len()).epochs.to_string()),
        ("the rate", work.how.rate.to_string()),
        ("the size of the input", work.pixels.height.to_string()),
    ];
    let asked = work.asked.iter().map(|(name, value)| (*name, value.clone()));
    let parts = own.into_iter().chain(asked).map(|(name, value)| (name.to_string(), value));
    Ok(Identity { parts: parts.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_photos_are_seen_more_often() {
        assert_eq!(
            [10, 100, 250, 1_000, 5_000, 50_000].map(|photos| epochs(5_000.0, photos)),
            [60.0, 50.0, 20.0, 5.0, 1.0, 1.0]
        );
    }
}
