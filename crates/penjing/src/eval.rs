//! How good a model is, on photos that it has not seen.

use rayon::prelude::*;
use serde::Serialize;

use crate::{
    Error, Result,
    classifier::{Classifier, ranked},
    data::{
        Dataset, Sample, Skipped,
        decode::{self, Limits},
        shortened,
    },
    progress::Progress,
    threads::Threads,
};

/// The result of an evaluation. Accuracies are fractions 0..1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Photos that were classified.
    pub n: usize,
    /// Share whose likeliest class is right.
    pub top1: f64,
    /// Share whose right class is among the five likeliest.
    pub top5: f64,
    /// Standard error of `top1`.
    pub top1_se: f64,
    /// Each of the model's classes.
    pub per_class: Vec<ClassScore>,
    /// `confusion[right][guessed]`, photos, in the order of `per_class`.
    pub confusion: Vec<Vec<u32>>,
    /// Photos that could not be read, and why.
    pub skipped: Vec<Skipped>,
}

/// One class's share of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScore {
    /// Class name.
    pub label: String,
    /// Photos of this class.
    pub n: usize,
    /// Share of them that was recognized; `None` without photos.
    pub recall: Option<f64>,
    /// Share of the photos called this that are this; `None` if none was.
    pub precision: Option<f64>,
}

/// Classifies the samples and compares with their labels.
///
/// # Errors
/// [`Error::Data`] when a class of the data is unknown to the model or no photo can be read;
/// [`Error::Interrupted`] when the watcher says so.
pub fn evaluate<'a>(
    classifier: &Classifier,
    data: &Dataset,
    samples: impl Iterator<Item = &'a Sample>,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let samples: Vec<&Sample> = samples.collect();
    let labels = classifier.labels();
    let known = |class: usize| labels.iter().position(|label| *label == data.classes[class]);
    let classes: Vec<Option<usize>> = (0..data.classes.len()).map(known).collect();
    let unknown: Vec<&str> = samples
        .iter()
        .map(|sample| sample.class)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .filter(|&class| classes[class].is_none())
        .map(|class| data.classes[class].as_str())
        .collect();
    if !unknown.is_empty() {
        let what = format!(
            "the model does not know {} of its classes: {}; it knows: {}",
            unknown.len(),
            shortened(&unknown),
            shortened(labels)
        );
        return Err(Error::data(&data.root, what));
    }

    progress.begin("evaluating", samples.len());
    let judge = |sample: &&Sample| {
        if progress.cancelled() {
            return None;
        }
        let result = decode::read_for(&sample.path, &Limits::default(), classifier.pixels())
            .map(|photo| classifier.logits(photo.view()));
        progress.advance(1);
        Some(result)
    };
    let results: Option<Vec<_>> = threads.install(|| samples.par_iter().map(judge).collect());
    progress.end();
    let results = results.ok_or(Error::Interrupted)?;

    let count = labels.len();
    let mut confusion = vec![vec![0u32; count]; count];
    let (mut n, mut right, mut among_five) = (0, 0, 0);
    let mut skipped = Vec::new();
    for (sample, result) in samples.iter().zip(results) {
        let class = classes[sample.class].expect("unknown classes have been refused");
        match result {
            Ok(logits) => {
                let order = ranked(&logits);
                n += 1;
                right += usize::from(order[0] == class);
                among_five += usize::from(order.iter().take(5).any(|&guess| guess == class));
                confusion[class][order[0]] += 1;
            }
            Err(error) => skipped.push(Skipped::new(&sample.path, &error)),
        }
    }
    if n == 0 {
        let first = skipped.first().map_or(String::new(), |s| format!("; {}: {}", s.path.display(), s.why));
        return Err(Error::data(&data.root, format!("not one photo can be read{first}")));
    }
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    let score = |(class, label): (usize, &String)| {
        let of_class: u32 = confusion[class].iter().sum();
        let called: u32 = confusion.iter().map(|row| row[class]).sum();
        let hits = confusion[class][class] as usize;
        ClassScore {
            label: label.clone(),
            n: of_class as usize,
            recall: share(hits, of_class as usize),
            precision: share(hits, called as usize),
        }
    };
    let per_class = labels.iter().enumerate().map(score).collect();
    let top1 = right as f64 / n as f64;
    let top1_se = (top1 * (1.0 - top1) / n as f64).sqrt();
    Ok(Evaluation { n, top1, top5: among_five as f64 / n as f64, top1_se, per_class, confusion, skipped })
}
