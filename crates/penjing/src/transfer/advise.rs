//! Which backbone suits some photos, told from frozen features alone, in the time that these take.

use std::path::Path;

use nalgebra::{DMatrix, SymmetricEigen};
use penjing_runtime::file::Model;
use serde::Serialize;

use super::{features::Extractor, survey};
use crate::{
    Error, Result,
    data::{Dataset, Sample, Skipped},
    progress::Progress,
    random::SplitMix64,
    threads::Threads,
};

/// Most photos that are looked at; the decomposition takes the cube of their number, and more change no ranking.
const PHOTOS: usize = 1_000;
/// Share of the greatest eigenvalue below which one counts as zero.
const RANK: f64 = 1e-9;
/// Steps of the fixed point, of which few are needed.
const STEPS: usize = 50;
/// Strengths of the ridge, as powers of ten of the mean eigenvalue.
const RIDGES: std::ops::RangeInclusive<i32> = -6..=2;

/// What a backbone's features say of the photos' classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// LogME (You et al., arXiv 2102.11005): the mean over photos and classes of the log evidence that the class follows
    /// linearly from the features. More is better; figures compare on the same photos only.
    pub logme: f64,
    /// Share of photos that a ridge classifier of all the others classifies rightly, 0..1. Too high where photos are
    /// nearly alike.
    pub left_out_top1: f64,
    /// Photos looked at.
    pub photos: usize,
}

/// Photos to look at: all that may be learnt from, or as many of each class as of the others.
pub fn sample(data: &Dataset, seed: u64) -> Vec<&Sample> {
    let all = survey::learnable(data);
    let mut classes = vec![Vec::new(); data.classes.len()];
    for sample in all {
        classes[sample.class].push(sample);
    }
    let mut random = SplitMix64::new(seed);
    classes.iter_mut().for_each(|class| random.shuffle(class));
    let most = classes.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..most).flat_map(|round| classes.iter().filter_map(move |class| class.get(round)));
    rounds.copied().take(PHOTOS).collect()
}

/// What the backbone's features say of the photos, which [`sample`] gives.
///
/// # Errors
/// [`Error::Data`] with fewer than two classes of readable photos, [`Error::Unsupported`] for a model without features.
pub fn advise(
    data: &Dataset,
    photos: &[&Sample],
    backbone: &Model,
    cache: Option<&Path>,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Advice, Vec<Skipped>)> {
    let extractor = Extractor::new(backbone)?;
    let mut cache = cache.map(|folder| extractor.cache(folder));
    let extracted = extractor.extract(photos, 1, cache.as_mut(), threads, progress)?;
    let labels: Vec<usize> = extracted.kept.iter().map(|&photo| photos[photo].class).collect();
    if labels.iter().all(|&label| Some(label) == labels.first().copied()) {
        return Err(Error::data(&data.root, "has readable photos of fewer than two classes"));
    }
    Ok((judged(&extracted.rows, extracted.width, &labels, data.classes.len()), extracted.skipped))
}

/// Judges features `[photos][width]`.
fn judged(rows: &[f32], width: usize, labels: &[usize], classes: usize) -> Advice {
    let photos = labels.len();
    let mut x = DMatrix::from_row_iterator(photos, width, rows.iter().map(|&value| f64::from(value)));
    for mut column in x.column_iter_mut() {
        let mean = column.mean();
        column.add_scalar_mut(-mean);
    }
    let mut y = DMatrix::zeros(photos, classes);
    for (photo, &label) in labels.iter().enumerate() {
        y[(photo, label)] = 1.0;
    }
    let shares: Vec<f64> = y.column_iter().map(|column| column.mean()).collect();
    for (mut column, share) in y.column_iter_mut().zip(&shares) {
        column.add_scalar_mut(-share);
    }
    // The photos' own products have the features' singular values, whichever there are more of.
    let SymmetricEigen { eigenvalues, eigenvectors } = SymmetricEigen::new(&x * x.transpose());
    let greatest = eigenvalues.max().max(f64::MIN_POSITIVE);
    let values: Vec<f64> =
        eigenvalues.iter().map(|&value| if value > RANK * greatest { value } else { 0.0 }).collect();
    let projected = eigenvectors.tr_mul(&y);
    let there = (0..classes).filter(|&class| shares[class] > 0.0);
    let evidence: Vec<f64> =
        there.map(|class| log_evidence(&values, projected.column(class).as_slice())).collect();
    Advice {
        logme: evidence.iter().sum::<f64>() / evidence.len() as f64,
        left_out_top1: left_out(&values, &eigenvectors, &projected, &shares, labels),
        photos,
    }
}

/// The greatest log evidence of a linear model with Gaussian weights and noise, by photo: a target with these products with the
/// singular vectors, whose squared singular values are `values`.
fn log_evidence(values: &[f64], products: &[f64]) -> f64 {
    let photos = values.len() as f64;
    // Precisions of the weights (α) and of the noise (β); only their ratio matters to what follows.
    let (mut alpha, mut beta) = (1.0f64, 1.0f64);
    let (mut weights, mut rest) = (0.0, 0.0);
    for _ in 0..STEPS {
        let ratio = alpha / beta;
        let known: f64 = values.iter().map(|value| value / (value + ratio)).sum();
        let each = || values.iter().zip(products);
        weights = each().map(|(value, product)| value * (product / (value + ratio)).powi(2)).sum();
        rest = each().map(|(value, product)| (product * ratio / (value + ratio)).powi(2)).sum();
        (alpha, beta) = (known / (weights + 1e-5), (photos - known) / (rest + 1e-5));
        if ((alpha / beta) / ratio - 1.0).abs() < 1e-3 {
            break;
        }
    }
    let spread: f64 = values.iter().map(|value| (beta * value / alpha).ln_1p()).sum();
    let log = photos * (beta / std::f64::consts::TAU).ln() - spread - beta * rest - alpha * weights;
    log / (2.0 * photos)
}

/// Share of photos classified rightly by ridge regression on all the others (exact, from the hat matrix's diagonal), at the
/// strength whose left-out errors are least.
fn left_out(
    values: &[f64],
    vectors: &DMatrix<f64>,
    projected: &DMatrix<f64>,
    shares: &[f64],
    labels: &[usize],
) -> f64 {
    let (photos, classes) = (labels.len(), shares.len());
    let mean = values.iter().sum::<f64>() / photos as f64;
    let mut best = (f64::INFINITY, 0.0);
    for power in RIDGES {
        let ridge = mean * 10f64.powi(power);
        let shrunk: Vec<f64> = values.iter().map(|value| value / (value + ridge)).collect();
        let mut weighted = projected.clone();
        for (mut row, share) in weighted.row_iter_mut().zip(&shrunk) {
            row *= *share;
        }
        let fitted = vectors * weighted;
        let (mut error, mut right) = (0.0, 0usize);
        for (photo, &label) in labels.iter().enumerate() {
            let hat: f64 = vectors.row(photo).iter().zip(&shrunk).map(|(u, share)| u * u * share).sum();
            // The mean is fitted too, whose share in each photo is 1 / photos.
            let left = (1.0 - hat - 1.0 / photos as f64).max(1e-9);
            let scores: Vec<f64> = (0..classes)
                .map(|class| {
                    let target = f64::from(u8::from(class == label));
                    let residual = (target - shares[class] - fitted[(photo, class)]) / left;
                    error += residual * residual;
                    target - residual
                })
                .collect();
            let top = (0..classes).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            right += usize::from(top == Some(label));
        }
        if error < best.0 {
            best = (error, right as f64 / photos as f64);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Photos of three classes: `told` features tell them, the others are noise.
    fn photos(count: usize, width: usize, told: usize) -> (Vec<f32>, Vec<usize>) {
        let mut random = SplitMix64::new(5);
        let labels: Vec<usize> = (0..count).map(|photo| photo % 3).collect();
        let value = |label: usize, at: usize, random: &mut SplitMix64| {
            let shift = if at < told && at % 3 == label { 1.5 } else { 0.0 };
            (shift + random.normal()) as f32
        };
        let rows = labels.iter().flat_map(|&label| (0..width).map(move |at| (label, at)));
        (rows.map(|(label, at)| value(label, at, &mut random)).collect(), labels)
    }

    #[test]
    fn features_that_tell_more_are_better() {
        for (count, width) in [(90, 20), (60, 120)] {
            let advice = [0, 3, 12].map(|told| {
                let (rows, labels) = photos(count, width, told);
                judged(&rows, width, &labels, 4)
            });
            assert!(advice[0].logme < advice[1].logme && advice[1].logme < advice[2].logme, "{advice:?}");
            assert!(advice[0].left_out_top1 < 0.55 && advice[2].left_out_top1 > 0.75, "{advice:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_what_a_fit_without_it_says() {
        let (count, width) = (24, 5);
        let (rows, labels) = photos(count, width, 3);
        let x = DMatrix::from_row_iterator(count, width, rows.iter().map(|&value| f64::from(value)));
        let centred = |rows: &[usize]| {
            let part = x.select_rows(rows);
            let mean = part.row_mean();
            (DMatrix::from_fn(rows.len(), width, |r, c| part[(r, c)] - mean[c]), mean)
        };
        let all: Vec<usize> = (0..count).collect();
        let (whole, _) = centred(&all);
        let SymmetricEigen { eigenvalues, .. } = SymmetricEigen::new(&whole * whole.transpose());
        let mean = eigenvalues.sum() / count as f64;
        // For every strength, fits without each photo in turn.
        let (mut least, mut expected) = (f64::INFINITY, 0.0);
        for power in RIDGES {
            let ridge = DMatrix::identity(width, width) * (mean * 10f64.powi(power));
            let (mut error, mut right) = (0.0, 0);
            for photo in 0..count {
                let others: Vec<usize> = all.iter().copied().filter(|&other| other != photo).collect();
                let (x_others, mean) = centred(&others);
                let inverse = (x_others.tr_mul(&x_others) + &ridge).try_inverse().unwrap();
                let scores: Vec<f64> = (0..3)
                    .map(|class| {
                        let y: Vec<f64> =
                            others.iter().map(|&o| f64::from(u8::from(labels[o] == class))).collect();
                        let share = y.iter().sum::<f64>() / y.len() as f64;
                        let y = DMatrix::from_iterator(y.len(), 1, y.iter().map(|value| value - share));
                        let w = &inverse * x_others.tr_mul(&y);
                        let score = share + ((x.row(photo) - &mean) * w)[(0, 0)];
                        error += (f64::from(u8::from(labels[photo] == class)) - score).powi(2);
                        score
                    })
                    .collect();
                let top = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                right += usize::from(top == Some(labels[photo]));
            }
            if error < least {
                (least, expected) = (error, right as f64 / count as f64);
            }
        }
        assert_eq!(judged(&rows, width, &labels, 3).left_out_top1, expected);
    }

    #[test]
    fn the_evidence_is_that_of_the_joint_gaussian() {
        // One target under α = β = its own fixed point: ln N(y; 0, I/β + X Xᵀ/α), worked out directly.
        let (rows, labels) = photos(30, 6, 3);
        let mut x = DMatrix::from_row_iterator(30, 6, rows.iter().map(|&value| f64::from(value)));
        for mut column in x.column_iter_mut() {
            let mean = column.mean();
            column.add_scalar_mut(-mean);
        }
        let y = DMatrix::from_iterator(
            30,
            1,
            labels.iter().map(|&label| f64::from(u8::from(label == 1)) - 1.0 / 3.0),
        );
        let gram = &x * x.transpose();
        let SymmetricEigen { eigenvalues, eigenvectors } = SymmetricEigen::new(gram.clone());
        let values: Vec<f64> = eigenvalues.iter().map(|&v| if v > 1e-9 { v } else { 0.0 }).collect();
        let ours = log_evidence(&values, eigenvectors.tr_mul(&y).as_slice());
        // The greatest over a grid of both precisions.
        let direct = |alpha: f64, beta: f64| {
            let covariance = DMatrix::identity(30, 30) / beta + &gram / alpha;
            let square = (y.transpose() * covariance.clone().try_inverse().unwrap() * &y)[(0, 0)];
            -0.5 * (square + covariance.determinant().ln() + 30.0 * std::f64::consts::TAU.ln()) / 30.0
        };
        let grid = |from: i32, to: i32| (from..=to).map(|step| 10f64.powf(f64::from(step) / 20.0));
        let best = grid(0, 80).flat_map(|alpha| grid(0, 40).map(move |beta| (alpha, beta)));
        let best = best.map(|(alpha, beta)| direct(alpha, beta)).fold(f64::NEG_INFINITY, f64::max);
        assert!((ours - best).abs() < 2e-3, "{ours} {best}");
    }
}
