//! The gate: accuracy, time and size before and after, side by side.

use std::time::Instant;

use penjing_runtime::{file::Model, pixels::View};
use rayon::prelude::*;
use serde::Serialize;

use super::judge::{Distance, Logits, top1};
use crate::{
    Error, Result,
    data::{
        Dataset, Part, Sample, Skipped,
        decode::{self, Limits},
        shortened,
    },
    progress::Progress,
    runner::Runner,
    threads::Threads,
    train::distill::log_softmax,
};

/// What a compressed model must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// Most that the accuracy may fall, as a fraction.
    pub max_drop: f64,
    /// Most that the latency may be of that before.
    pub max_latency: f64,
    /// Most that the file may be of that before, were its weights 32-bit floats.
    pub max_size: f64,
}

impl Gate {
    /// What is said of an accuracy that fell by more than is allowed, or a hair more than rounding leaves.
    pub(super) fn falls_too_far(&self, drop: f64) -> Option<String> {
        (drop > self.max_drop + 1e-9).then(|| {
            let [drop, allowed] = [drop, self.max_drop].map(|share| 100.0 * share);
            format!("accuracy fell by {drop:.2} points, {allowed:.2} are allowed")
        })
    }
}

impl Default for Gate {
    fn default() -> Self {
        Gate { max_drop: 0.01, max_latency: 1.0, max_size: 1.0 }
    }
}

/// One model's figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Accuracy on the photos that judge, 0..1.
    pub top1: f64,
    /// Mean negative log likelihood of their classes.
    pub nll: f64,
    /// Median latency of one photo on one thread, in milliseconds.
    pub latency_ms: f64,
    /// Size of the file.
    pub file_bytes: usize,
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The model that it was made of, its weights 32-bit floats.
    pub before: Measured,
    /// The compressed model.
    pub after: Measured,
    /// How much the accuracy fell; negative if it rose.
    pub drop: f64,
    /// Latency after ÷ before: the median of interleaved rounds.
    pub latency_ratio: f64,
    /// How far the results are from those before.
    pub distance: Distance,
    /// Photos that judged.
    pub photos: usize,
    /// The part of the data that they are of.
    pub part: &'static str,
    /// What was missed; nothing if the gate is passed.
    pub missed: Vec<String>,
}

impl Verdict {
    /// Whether the model keeps to all that was asked.
    pub fn passed(&self) -> bool {
        self.missed.is_empty()
    }

    /// The same with a file of so many bytes, once it tells how it was made.
    pub(super) fn of_size(mut self, file_bytes: usize, gate: &Gate) -> Self {
        self.after.file_bytes = file_bytes;
        self.missed = self.misses(gate);
        self
    }

    /// Whether no accuracy would help: the file is too large, or the time beyond what measuring again could change.
    pub(super) fn is_hopeless(&self, gate: &Gate) -> bool {
        self.size() > gate.max_size || self.latency_ratio > NOISE * gate.max_latency
    }

    /// Of the file before, were its weights 32-bit floats.
    fn size(&self) -> f64 {
        self.after.file_bytes as f64 / self.before.file_bytes as f64
    }

    fn misses(&self, gate: &Gate) -> Vec<String> {
        let mut missed: Vec<String> = gate.falls_too_far(self.drop).into_iter().collect();
        let (time, size) = (self.latency_ratio, self.size());
        if time > gate.max_latency {
            missed.push(format!("it takes {time:.2} of the time before, {:.2} is allowed", gate.max_latency));
        }
        if size > gate.max_size {
            missed.push(format!("its file is {size:.2} of that before, {:.2} is allowed", gate.max_size));
        }
        missed
    }

    /// What became of the accuracy, for a model's provenance.
    pub(super) fn in_words(&self) -> String {
        let [before, after] = [&self.before, &self.after].map(|measured| 100.0 * measured.top1);
        format!("top-1 {before:.2} % before, {after:.2} % after on {} {} photos", self.photos, self.part)
    }
}

/// A ratio of times may be measured so many times too large on a busy machine.
pub(super) const NOISE: f64 = 1.25;

/// The photos that judge, and what the model before says of them.
pub(super) struct Judges<'a> {
    pub model: &'a Model,
    samples: Vec<&'a Sample>,
    labels: Vec<usize>,
    exact: Logits,
    pub part: &'static str,
    float_bytes: usize,
    pub threads: &'a Threads,
    pub progress: &'a dyn Progress,
    pub skipped: Vec<Skipped>,
}

impl<'a> Judges<'a> {
    pub fn new(
        model: &'a Model,
        data: &'a Dataset,
        threads: &'a Threads,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let has_val = data.part(Part::Val).next().is_some();
        let (part, name) = if has_val { (Part::Val, "validation") } else { (Part::Train, "training") };
        let all: Vec<&Sample> = data.part(part).map(|(_, sample)| sample).collect();
        let classes: Vec<usize> =
            all.iter().map(|sample| place(model, data, sample.class)).collect::<Result<_>>()?;
        let float_bytes = in_floats(model)?;
        let mut judges = Judges {
            model,
            samples: Vec::new(),
            labels: Vec::new(),
            exact: Vec::new(),
            part: name,
            float_bytes,
            threads,
            progress,
            skipped: Vec::new(),
        };
        for ((sample, class), logits) in all.iter().zip(classes).zip(judges.run(model, &all)?) {
            match logits {
                Ok(logits) => {
                    judges.samples.push(sample);
                    judges.labels.push(class);
                    judges.exact.push(logits);
                }
                Err(error) => judges.skipped.push(Skipped::new(&sample.path, &error)),
            }
        }
        if judges.samples.is_empty() {
            return Err(Error::data(&data.root, "not one photo that could judge can be read"));
        }
        Ok(judges)
    }

    /// The logits of a model for photos.
    fn run(&self, model: &Model, samples: &[&Sample]) -> Result<Vec<Result<Vec<f32>>>> {
        let runner = Runner::new(&model.graph, &model.weights, &model.pixels, 1)?;
        self.progress.begin("judging", samples.len());
        let run = |sample: &&Sample| {
            if self.progress.cancelled() {
                return None;
            }
            let photo = decode::read_for(&sample.path, &Limits::default(), &model.pixels);
            self.progress.advance(1);
            Some(photo.map(|photo| runner.run(photo.view(), View::PLAIN)))
        };
        let logits: Option<Vec<_>> = self.threads.install(|| samples.par_iter().map(run).collect());
        self.progress.end();
        logits.ok_or(Error::Interrupted)
    }

    /// Mean negative log likelihood of the photos' classes by a model, and its accuracy.
    pub fn score(&self, model: &Model) -> Result<(f64, f64)> {
        let logits: Logits = self.run(model, &self.samples)?.into_iter().collect::<Result<_>>()?;
        Ok((nll(&logits, &self.labels, model.calibration.temperature), top1(&logits, &self.labels)))
    }

    /// Number of photos, and the part of the data that they are of.
    pub fn photos(&self) -> (usize, &'static str) {
        (self.samples.len(), self.part)
    }

    /// Compares a compressed model with the one before.
    pub fn judge(&self, candidate: &Model, gate: &Gate) -> Result<Verdict> {
        let logits: Logits = self.run(candidate, &self.samples)?.into_iter().collect::<Result<_>>()?;
        let likelihoods = [(self.model, &self.exact), (candidate, &logits)]
            .map(|(model, logits)| nll(logits, &self.labels, model.calibration.temperature));
        let [before, after] = [&self.exact, &logits].map(|logits| top1(logits, &self.labels));
        let ([before_ms, after_ms], latency_ratio) =
            latencies([self.model, candidate], ROUNDS, f64::INFINITY)?;
        let size = |error: penjing_runtime::Error| Error::Unsupported(error.to_string());
        let after = Measured {
            top1: after,
            nll: likelihoods[1],
            latency_ms: after_ms,
            file_bytes: candidate.to_bytes().map_err(size)?.len(),
        };
        let before = Measured {
            top1: before,
            nll: likelihoods[0],
            latency_ms: before_ms,
            file_bytes: self.float_bytes,
        };
        let verdict = Verdict {
            before,
            after,
            drop: before.top1 - after.top1,
            latency_ratio,
            distance: Distance::between(&self.exact, &logits),
            photos: self.samples.len(),
            part: self.part,
            missed: Vec::new(),
        };
        Ok(verdict.of_size(after.file_bytes, gate))
    }
}

/// Mean negative log likelihood of the classes under softmaxes at a temperature.
fn nll(logits: &Logits, labels: &[usize], temperature: f32) -> f64 {
    let temperature = f64::from(temperature);
    let each = logits.iter().zip(labels).map(|(logits, label)| -log_softmax(logits, temperature)[*label]);
    each.sum::<f64>() / labels.len().max(1) as f64
}

/// Place among the model's classes of one of the data.
pub(super) fn place(model: &Model, data: &Dataset, class: usize) -> Result<usize> {
    let class = &data.classes[class];
    model.labels.iter().position(|label| label == class).ok_or_else(|| {
        let known = shortened(&model.labels);
        let what = format!("the model does not know the class “{class}”; it knows: {known}");
        Error::data(&data.root, what)
    })
}

/// Size of the model's file with weights of 32-bit floats.
fn in_floats(model: &Model) -> Result<usize> {
    let model = model.clone().to_floats();
    model.to_bytes().map(|bytes| bytes.len()).map_err(|error| Error::Unsupported(error.to_string()))
}

/// So often both are measured in turn.
const ROUNDS: usize = 15;

/// Median milliseconds of both on one thread, and the median of how many times as long the second takes, in so many interleaved
/// rounds; in three where they take more than some seconds.
pub(super) fn latencies(models: [&Model; 2], rounds: usize, seconds: f64) -> Result<([f64; 2], f64)> {
    const FEWEST: usize = 3;
    let runner = |model: &Model| Runner::new(&model.graph, &model.weights, &model.pixels, 1);
    let runners = [runner(models[0])?, runner(models[1])?];
    let inputs = models.map(|model| vec![0.5; model.pixels.len()]);
    let mut times = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    let began = Instant::now();
    // The first round touches all memory.
    for round in 0..=rounds {
        if ratios.len() >= FEWEST && began.elapsed().as_secs_f64() > seconds {
            break;
        }
        let [before, after] = [0, 1].map(|which: usize| {
            let best = (0..3).map(|_| {
                let start = Instant::now();
                runners[which].run_tensor(&inputs[which], &penjing_kernels::Serial);
                1e3 * start.elapsed().as_secs_f64()
            });
            best.fold(f64::INFINITY, f64::min)
        });
        if round > 0 {
            times[0].push(before);
            times[1].push(after);
            ratios.push(after / before);
        }
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [before, after] = &mut times;
    Ok(([median(before), median(after)], median(&mut ratios)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_just_allowed_passes() {
        let gate = Gate { max_drop: 0.01, max_latency: 1.0, max_size: 0.26 };
        // As binary fractions this is a little more than a hundredth.
        assert_eq!(gate.falls_too_far(0.97 - 0.96), None);
        assert!(gate.falls_too_far(0.011).unwrap().contains("fell by 1.10 points, 1.00 are allowed"));
        let measured = Measured { top1: 0.9, nll: 0.1, latency_ms: 1.0, file_bytes: 10_000 };
        let verdict = Verdict {
            before: measured,
            after: measured,
            drop: 0.0,
            latency_ratio: 1.0,
            distance: Distance { divergence: 0.0, agreement: 1.0, error: 0.0 },
            photos: 1,
            part: "validation",
            missed: Vec::new(),
        };
        let of = |bytes: usize| verdict.clone().of_size(bytes, &gate);
        assert!(of(2_600).passed());
        let over = of(2_601);
        assert_eq!((over.after.file_bytes, over.missed.len()), (2_601, 1), "what is written counts");
        // A time may have been measured too long, a file is as large as it is.
        let slow = |latency_ratio| Verdict { latency_ratio, ..of(2_600) }.is_hopeless(&gate);
        assert_eq!([1.2, 1.3].map(slow), [false, true]);
        assert!(over.is_hopeless(&gate));
    }
}
