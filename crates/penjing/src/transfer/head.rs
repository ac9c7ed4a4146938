//! A linear head on the cached features of a frozen backbone, its strength chosen by grouped cross-validation.
//!
//! Multinomial logistic regression: the weighted mean of the cross-entropy of softmax(W f + b), plus λ/2 ‖W‖²; the
//! bias is free. While W is sought, features are centred and divided by one common deviation s, the root mean square
//! of all their deviations: dividing each by its own lets features that hardly ever fire speak as loudly as the rest,
//! which costs accuracy. The returned [`Head`] takes raw features: W/s, b − Wμ/s. Mean and deviation come from all
//! rows handed in, those of held-out photos included; no label enters them.
//!
//! Every sum has a fixed order, so the head is the same, bit for bit, for any number of threads; the work runs on
//! rayon's current pool.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use penjing_kernels::Isa;
use rayon::prelude::*;

use super::calibration::{surprise, temperature};
use super::lbfgs::{Ended, Lbfgs};
use super::paired::Gain;
use super::softmax_loss::{Packed, SoftmaxLoss};
use crate::{Error, Result, classifier::ranked};

/// The strengths on offer, strong to weak. Photos in plenty never want the first ones, a few per class do.
const LAMBDAS: [f64; 13] =
    [100.0, 31.6, 10.0, 3.16, 1.0, 0.316, 0.1, 0.0316, 0.01, 0.00316, 0.001, 0.000316, 0.0001];
/// Share of the loss below which a step no longer pays while strengths are compared, and for the head returned.
const ROUGH: f64 = 1e-3;
const EXACT: f64 = 1e-6;
/// The same on the way to the strength chosen.
const WARM: f64 = 1e-2;
/// Steps of the optimizer for one strength.
const ITERATIONS: usize = 200;
/// Rows that one thread takes at a time, at least.
pub(super) const SLAB_ROWS: usize = 256;

/// Rows of features; several views of one photo are several rows with the same photo.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    /// Features in a row.
    pub width: usize,
    /// `[rows][width]`.
    pub rows: &'a [f32],
    /// The photo each row shows, `[rows]`. The first row of a photo is its plain view, the one that validates.
    pub photo: &'a [u32],
    /// What each row counts in training, `[rows]`: 1 for a plain view, at most that for an augmented one
    /// (a mirrored view may count in full).
    pub weight: &'a [f32],
}

/// A linear classifier of raw features.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Classes, the rows of `weights`.
    pub classes: usize,
    /// Features, the columns of `weights`.
    pub width: usize,
    /// `[classes][width]`.
    pub weights: Vec<f32>,
    /// `[classes]`.
    pub bias: Vec<f32>,
}

/// One strength of regularization, and what its heads made of photos they had not seen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Tried {
    /// λ of the ridge penalty.
    pub lambda: f64,
    /// Mean negative log-likelihood of the plain views of held-out photos.
    pub nll: f64,
    /// Share of held-out photos whose plain view is classified rightly, 0..1.
    pub top1: f64,
}

/// A head, and how it was chosen.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Fitted to all rows with `lambda`.
    pub head: Head,
    /// The strength with the lowest `nll`.
    pub lambda: f64,
    /// Every strength tried, strong to weak.
    pub tried: Vec<Tried>,
    /// The photos of the held-out folds, ascending.
    pub validated: Vec<u32>,
    /// Logits of those photos' plain views, `[validated][classes]`, each from a head that had not seen the photo.
    pub out_of_fold: Vec<f32>,
    /// Share of `validated` classified rightly, 0..1.
    pub val_top1: f64,
    /// The temperature that makes `out_of_fold` most likely: probabilities are softmax(logits / temperature).
    pub temperature: f64,
}

impl Fit {
    /// The classes of the validated photos, given those of all.
    pub fn validated_labels(&self, labels: &[u32]) -> Vec<u32> {
        self.validated.iter().map(|&photo| labels[photo as usize]).collect()
    }

    /// The logits of some of the validated photos.
    ///
    /// # Panics
    /// If one of them has not been held out.
    pub fn logits_of(&self, photos: &[usize]) -> Vec<f32> {
        let place = |photo: &usize| {
            self.validated.binary_search(&(*photo as u32)).expect("the photo has been held out")
        };
        let classes = self.head.classes;
        photos
            .iter()
            .map(place)
            .flat_map(|at| &self.out_of_fold[at * classes..(at + 1) * classes])
            .copied()
            .collect()
    }

    /// Whether held-out photos are likelier here than there by more than two standard errors of the paired differences.
    /// Both must have been fitted with the same folds; `labels` and `groups` are those of all photos, and photos of one
    /// group count together.
    pub fn beats(&self, other: &Fit, labels: &[u32], groups: &[usize]) -> bool {
        let surprises = |fit: &Fit| -> Vec<f64> {
            let logits = fit.out_of_fold.chunks_exact(fit.head.classes).zip(&fit.validated);
            logits.map(|(logits, &photo)| surprise(logits, labels[photo as usize], 1.0)).collect()
        };
        let (theirs, ours) = (surprises(other), surprises(self));
        let gains = theirs.iter().zip(&ours).map(|(theirs, ours)| theirs - ours);
        Gain::new(gains.zip(self.validated.iter().map(|&photo| groups[photo as usize]))).beyond(2.0)
    }
}

impl Head {
    /// Logits `[rows][classes]` of raw features `[rows][width]`.
    pub fn logits(&self, rows: &[f32]) -> Vec<f32> {
        let mut logits = vec![0.0; rows.len() / self.width * self.classes];
        Packed::new(Isa::detect(), &self.weights, &self.bias).logits(rows, &mut logits);
        logits
    }
}

/// Fits a head to `features`, with the λ that makes held-out photos most likely.
///
/// `labels` and `folds` name the class (below `classes`, 2 or more) and the fold of every photo; photos that belong
/// together must share a fold. Each of the folds in `held_out` is predicted by a head fitted to all other photos.
/// The work grows with rows × width × classes × `held_out`: above about 5·10⁹ for the first three, hold out one fold.
///
/// A class without a photo among those fitted counts as half a photo of the average look, so that its logit stays
/// finite and low.
///
/// `watch` hears the share of work done, 0..1, at every step of the optimizer and says whether to go on.
///
/// # Errors
/// [`Error::Unsupported`] for features that are not finite or inputs whose lengths disagree, [`Error::Interrupted`]
/// if `watch` says no.
pub fn fit(
    features: &Features,
    labels: &[u32],
    classes: usize,
    folds: &[u32],
    held_out: &[u32],
    watch: &(dyn Fn(f32) -> bool + Sync),
) -> Result<Fit> {
    let table = Table::new(features, labels, classes, folds)?;
    let all = table.label.len();
    let mut folds = Vec::with_capacity(held_out.len());
    for fold in held_out {
        let held = table.rows_of(*fold);
        if held.is_empty() || held.len() == all {
            let which = if held.is_empty() { "none" } else { "all" };
            return Err(Error::Unsupported(format!(
                "fold {fold} holds {which} of the photos; a held-out fold needs some, and so do the others"
            )));
        }
        folds.push(Fitting::new(&table, &[0..held.start, held.end..all], held));
    }
    if folds.is_empty() {
        return Err(Error::Unsupported(
            "a head needs at least one held-out fold to choose its strength by".into(),
        ));
    }
    let done = AtomicUsize::new(0);
    let parts = ((folds.len() + 1) * LAMBDAS.len()) as f32;
    let go_on = || watch(done.load(Ordering::Relaxed) as f32 / parts);

    let mut tried: Vec<Tried> = Vec::new();
    let mut best = (0, Judged::default());
    for lambda in LAMBDAS {
        folds.par_iter_mut().try_for_each(|fold| {
            fold.solve(lambda, ROUGH, &go_on)?;
            done.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(())
        })?;
        let judged = Judged::new(&table, &folds, labels);
        let (this, last) = (tried.len(), tried.last().map(|last| last.nll));
        tried.push(Tried { lambda, nll: judged.nll, top1: judged.top1 });
        if this == 0 || judged.nll < tried[best.0].nll {
            best = (this, judged);
        } else if this - best.0 >= 2 && last.is_some_and(|last| judged.nll > last) {
            break;
        }
    }
    let (best, judged) = best;
    done.store(folds.len() * LAMBDAS.len(), Ordering::Relaxed);
    drop(folds);

    let mut whole = Fitting::new(&table, &[0..all, 0..0], 0..0);
    for &lambda in &LAMBDAS[..best] {
        whole.solve(lambda, WARM, &go_on)?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    whole.solve(LAMBDAS[best], EXACT, &go_on)?;
    let truth: Vec<u32> = judged.photos.iter().map(|photo| labels[*photo as usize]).collect();
    Ok(Fit {
        head: table.raw(&whole.parameters),
        lambda: LAMBDAS[best],
        val_top1: judged.top1,
        temperature: temperature(&judged.logits, &truth, classes),
        tried,
        validated: judged.photos,
        out_of_fold: judged.logits,
    })
}

/// Fits a head of a known strength to all rows, nothing held out; otherwise as [`fit`].
///
/// # Errors
/// As [`fit`].
pub fn fit_at(
    features: &Features,
    labels: &[u32],
    classes: usize,
    lambda: f64,
    watch: &(dyn Fn(f32) -> bool + Sync),
) -> Result<Head> {
    let table = Table::new(features, labels, classes, &vec![0; labels.len()])?;
    let mut whole = Fitting::new(&table, &[0..table.label.len(), 0..0], 0..0);
    let stronger: Vec<f64> = LAMBDAS.iter().copied().filter(|other| *other > lambda).collect();
    for (done, &stronger_one) in stronger.iter().enumerate() {
        whole.solve(stronger_one, WARM, &|| watch(done as f32 / (stronger.len() + 1) as f32))?;
    }
    whole.solve(lambda, EXACT, &|| watch(1.0))?;
    Ok(table.raw(&whole.parameters))
}

/// Centred and scaled rows in the order of their folds, so that a fold is a range.
pub(super) struct Table {
    pub(super) width: usize,
    pub(super) classes: usize,
    /// `[rows][width]`.
    pub(super) rows: Vec<f32>,
    pub(super) label: Vec<u32>,
    pub(super) weight: Vec<f32>,
    photo: Vec<u32>,
    fold: Vec<u32>,
    /// Whether a row is its photo's plain view.
    plain: Vec<bool>,
    mean: Vec<f64>,
    /// One over the common deviation; 0 if no feature ever changes.
    scale: f64,
    /// Rows of zeros, as many as there are classes: photos of the average look.
    pub(super) average: Vec<f32>,
    pub(super) average_weight: Vec<f32>,
}

impl Table {
    fn new(features: &Features, labels: &[u32], classes: usize, folds: &[u32]) -> Result<Table> {
        check(features, labels, classes, folds)?;
        let &Features { width, rows, photo, weight } = features;
        let mut seen = vec![false; labels.len()];
        let plain: Vec<bool> =
            photo.iter().map(|p| !std::mem::replace(&mut seen[*p as usize], true)).collect();
        let mut order: Vec<usize> = (0..photo.len()).collect();
        order.sort_by_key(|row| folds[photo[*row] as usize]);

        let total: f64 = weight.iter().map(|w| f64::from(*w)).sum();
        let moment = |of: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
            let mut sum = vec![0.0; width];
            for (row, weight) in rows.chunks_exact(width).zip(weight) {
                for (i, (sum, f)) in sum.iter_mut().zip(row).enumerate() {
                    *sum += f64::from(*weight) * of(i, f64::from(*f));
                }
            }
            sum.iter().map(|sum| sum / total).collect()
        };
        let mean = moment(&|_, f| f);
        let variance = moment(&|i, f| (f - mean[i]) * (f - mean[i]));
        let deviation = (variance.iter().sum::<f64>() / width as f64).sqrt();
        let largest = mean.iter().fold(0.0f64, |most, mean| most.max(mean.abs()));
        // Below the resolution of f32 a deviation is rounding.
        let scale = if deviation > 1e-7 * largest { deviation.recip() } else { 0.0 };
        let mut scaled = vec![0.0f32; rows.len()];
        scaled.par_chunks_exact_mut(width).zip(&order).for_each(|(to, &from)| {
            for ((to, f), mean) in to.iter_mut().zip(&rows[from * width..]).zip(&mean) {
                *to = ((f64::from(*f) - mean) * scale) as f32;
            }
        });
        let photo: Vec<u32> = order.iter().map(|row| photo[*row]).collect();
        Ok(Table {
            width,
            classes,
            rows: scaled,
            label: photo.iter().map(|photo| labels[*photo as usize]).collect(),
            fold: photo.iter().map(|photo| folds[*photo as usize]).collect(),
            weight: order.iter().map(|row| weight[*row]).collect(),
            plain: order.iter().map(|row| plain[*row]).collect(),
            photo,
            mean,
            scale,
            average: vec![0.0; classes * width],
            average_weight: vec![0.5; classes],
        })
    }

    fn rows_of(&self, fold: u32) -> Range<usize> {
        self.fold.partition_point(|f| *f < fold)..self.fold.partition_point(|f| *f <= fold)
    }

    /// The head of raw features that answers as `parameters` do for scaled ones.
    fn raw(&self, parameters: &[f32]) -> Head {
        let (weights, bias) = parameters.split_at(self.classes * self.width);
        let mut head = Head { classes: self.classes, width: self.width, weights: vec![], bias: vec![] };
        for (row, bias) in weights.chunks_exact(self.width).zip(bias) {
            let shift: f64 =
                row.iter().zip(&self.mean).map(|(w, mean)| f64::from(*w) * self.scale * mean).sum();
            head.bias.push((f64::from(*bias) - shift) as f32);
            head.weights.extend(row.iter().map(|w| (f64::from(*w) * self.scale) as f32));
        }
        head
    }
}

fn check(features: &Features, labels: &[u32], classes: usize, folds: &[u32]) -> Result<()> {
    let &Features { width, rows, photo, weight } = features;
    let refuse = |what: String| Err(Error::Unsupported(what));
    if classes < 2 {
        return refuse(format!("a classifier needs at least 2 classes, not {classes}"));
    }
    let whole = width > 0 && photo.len().checked_mul(width) == Some(rows.len()) && !rows.is_empty();
    if !whole || weight.len() != photo.len() || folds.len() != labels.len() {
        return refuse(format!(
            "the head got {} values of {width} features, {} photo indices, {} weights, {} labels and {} folds, which \
             do not fit together",
            rows.len(),
            photo.len(),
            weight.len(),
            labels.len(),
            folds.len()
        ));
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        return refuse(format!("label {label} is not below {classes}, the number of classes"));
    }
    if let Some(photo) = photo.iter().find(|photo| **photo as usize >= labels.len()) {
        return refuse(format!(
            "a row of features shows photo {photo}, but there are {} labels",
            labels.len()
        ));
    }
    if let Some(weight) = weight.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
        return refuse(format!(
            "a row of features weighs {weight}; a weight is above 0, and 1 for a plain view"
        ));
    }
    if let Some(at) = rows.iter().position(|f| !f.is_finite()) {
        return refuse(format!(
            "feature {} of photo {} is {}: the backbone's weights or the photo's pixels are damaged",
            at % width,
            photo[at / width],
            rows[at]
        ));
    }
    Ok(())
}

/// A head in the making on some rows, and the rows it must not see.
struct Fitting<'a> {
    held: Range<usize>,
    loss: SoftmaxLoss<'a>,
    lbfgs: Lbfgs,
    /// `[classes][width]`, then the bias.
    parameters: Vec<f32>,
}

impl<'a> Fitting<'a> {
    fn new(table: &'a Table, rows: &[Range<usize>; 2], held: Range<usize>) -> Self {
        let parameters = vec![0.0; table.classes * (table.width + 1)];
        Fitting { held, loss: SoftmaxLoss::new(table, rows), lbfgs: Lbfgs::default(), parameters }
    }

    /// Moves to the optimum for `lambda` from wherever it stands.
    fn solve(&mut self, lambda: f64, tolerance: f64, go_on: &(impl Fn() -> bool + Sync)) -> Result<()> {
        self.lbfgs.shift_ridge(lambda - self.loss.lambda, self.loss.classes * self.loss.width);
        self.loss.lambda = lambda;
        self.loss.stand(&self.parameters);
        match self.lbfgs.minimize(&mut self.loss, &mut self.parameters, tolerance, ITERATIONS, go_on) {
            Ended::Stopped => Err(Error::Interrupted),
            Ended::Converged | Ended::Exhausted => Ok(()),
        }
    }
}

/// Held-out photos under the heads of one strength.
#[derive(Default)]
struct Judged {
    /// Ascending.
    photos: Vec<u32>,
    /// `[photos][classes]`.
    logits: Vec<f32>,
    nll: f64,
    top1: f64,
}

impl Judged {
    fn new(table: &Table, folds: &[Fitting], labels: &[u32]) -> Judged {
        let (classes, width) = (table.classes, table.width);
        let mut each: Vec<(u32, Vec<f32>)> = Vec::new();
        for fold in folds {
            let packed = fold.loss.pack(&fold.parameters);
            let held: Vec<usize> = fold.held.clone().step_by(SLAB_ROWS).collect();
            each.par_extend(held.par_iter().flat_map_iter(|&from| {
                let rows = from..fold.held.end.min(from + SLAB_ROWS);
                let mut logits = vec![0.0; rows.len() * classes];
                packed.logits(&table.rows[rows.start * width..rows.end * width], &mut logits);
                let plain = rows.clone().filter(|row| table.plain[*row]);
                plain
                    .map(|row| (table.photo[row], logits[(row - from) * classes..][..classes].to_vec()))
                    .collect::<Vec<_>>()
            }));
        }
        each.sort_by_key(|(photo, _)| *photo);
        let mut judged = Judged::default();
        for (photo, logits) in each {
            let label = labels[photo as usize];
            judged.nll += surprise(&logits, label, 1.0);
            judged.top1 += f64::from(u8::from(ranked(&logits)[0] == label as usize));
            judged.photos.push(photo);
            judged.logits.extend(logits);
        }
        judged.nll /= judged.photos.len() as f64;
        judged.top1 /= judged.photos.len() as f64;
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::lbfgs::Objective as _;
    use super::*;

    #[test]
    fn one_standard_error_is_chance() {
        let fit = |surprise: &dyn Fn(usize) -> f64| {
            let logits = |photo| [-(surprise(photo).exp() - 1.0).ln() as f32, 0.0];
            Fit {
                head: Head { classes: 2, width: 1, weights: vec![0.0; 2], bias: vec![0.0; 2] },
                lambda: 1.0,
                tried: Vec::new(),
                validated: (0..100).collect(),
                out_of_fold: (0..100).flat_map(logits).collect(),
                val_top1: 1.0,
                temperature: 1.0,
            }
        };
        // The mean of the gains has a standard error of 0.02.
        let usual = fit(&|_| 0.7);
        let better = |gain: f64| fit(&|photo| 0.7 - gain - if photo % 2 == 0 { 0.2 } else { -0.2 });
        let alone: Vec<usize> = (0..100).collect();
        let beats = |gain| better(gain).beats(&usual, &[0; 100], &alone);
        assert_eq!([0.0, 0.03, 0.05].map(beats), [false, false, true]);
        assert!(!usual.beats(&better(0.05), &[0; 100], &alone));
        // Fifty photos that gain and fifty that lose, all alike: 0.05 may be chance then.
        let halves: Vec<usize> = (0..100).map(|photo| photo % 2).collect();
        assert!(!better(0.05).beats(&usual, &[0; 100], &halves));
    }

    /// The data of `scripts/goldens/head.py`, for any size: two views of each photo, the second of weight ¼.
    struct Toy {
        rows: Vec<f32>,
        photo: Vec<u32>,
        weight: Vec<f32>,
        labels: Vec<u32>,
        classes: usize,
        width: usize,
    }

    impl Toy {
        fn new(photos: u32, classes: u32, width: u32) -> Toy {
            let mut state = 1u32;
            let labels: Vec<u32> = (0..photos).map(|photo| photo % classes).collect();
            let mut toy = Toy {
                rows: vec![],
                photo: vec![],
                weight: vec![],
                labels,
                classes: classes as usize,
                width: width as usize,
            };
            for photo in 0..photos {
                for weight in [1.0, 0.25] {
                    for i in 0..width {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let noise = (state >> 8) as f32 / (1 << 24) as f32;
                        let shift = if i % classes == photo % classes { 0.375 } else { 0.0 };
                        toy.rows.push(noise * (1 + i % 3) as f32 + shift);
                    }
                    toy.photo.push(photo);
                    toy.weight.push(weight);
                }
            }
            toy
        }

        fn features(&self) -> Features<'_> {
            Features { width: self.width, rows: &self.rows, photo: &self.photo, weight: &self.weight }
        }

        /// Folds of whole rounds through the classes.
        fn folds(&self, folds: u32) -> Vec<u32> {
            (0..self.labels.len() as u32).map(|photo| photo / self.classes as u32 % folds).collect()
        }

        fn table(&self) -> Table {
            Table::new(&self.features(), &self.labels, self.classes, &self.folds(1)).unwrap()
        }

        fn fit(&self, folds: u32) -> Fit {
            let held: Vec<u32> = (0..folds).collect();
            fit(&self.features(), &self.labels, self.classes, &self.folds(folds), &held, &|_| true).unwrap()
        }
    }

    fn refusal(result: Result<Fit>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_optimum_is_scikit_learns() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/goldens/head.json")).unwrap();
        let toy = Toy::new(90, 5, 24);
        let table = toy.table();
        let mut fitting = Fitting::new(&table, &[0..180, 0..0], 0..0);
        for golden in golden.as_array().unwrap() {
            fitting.solve(golden["lambda"].as_f64().unwrap(), EXACT, &|| true).unwrap();
            fitting.loss.aim(&fitting.parameters, &vec![0.0; fitting.parameters.len()]);
            let (loss, expected) = (fitting.loss.probe(0.0).0, golden["loss"].as_f64().unwrap());
            assert!((loss / expected - 1.0).abs() < 1e-4, "{loss} instead of {expected}");
            let logits = table.raw(&fitting.parameters).logits(&toy.rows);
            let classes =
                logits.chunks(5).map(|z| (0..5).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap() as u64);
            let expected = golden["classes"].as_array().unwrap().iter().map(|class| class.as_u64().unwrap());
            assert!(classes.eq(expected));
        }
    }

    #[test]
    fn the_gradient_is_the_differences() {
        let toy = Toy::new(30, 3, 8);
        let table = toy.table();
        let mut loss = SoftmaxLoss::new(&table, &[0..40, 44..60]);
        loss.lambda = 0.3;
        let at: Vec<f32> = (0..27).map(|i| (i * 7 % 11) as f32 * 0.1 - 0.5).collect();
        loss.stand(&at);
        let mut gradient = vec![0.0; 27];
        loss.gradient(&at, &mut gradient);
        for i in 0..27 {
            let mut along = vec![0.0; 27];
            along[i] = 1.0;
            loss.aim(&at, &along);
            let (ahead, behind, slope) = (loss.probe(0.01).0, loss.probe(-0.01).0, loss.probe(0.0).1);
            let difference = (ahead - behind) / 0.02;
            assert!((difference - f64::from(gradient[i])).abs() < 1e-4, "{i}: {difference} {}", gradient[i]);
            assert!((slope - f64::from(gradient[i])).abs() < 1e-6, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn the_raw_head_answers_as_the_scaled_one() {
        let toy = Toy::new(40, 4, 10);
        let table = toy.table();
        let mut fitting = Fitting::new(&table, &[0..80, 0..0], 0..0);
        fitting.solve(0.01, EXACT, &|| true).unwrap();
        let raw = table.raw(&fitting.parameters).logits(&toy.rows);
        let mut scaled = vec![0.0; raw.len()];
        fitting.loss.pack(&fitting.parameters).logits(&table.rows, &mut scaled);
        for (raw, scaled) in raw.iter().zip(&scaled) {
            assert!((raw - scaled).abs() < 1e-4, "{raw} {scaled}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let toy = Toy::new(700, 7, 33);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let fit = pool.install(|| toy.fit(3));
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            (bits(&fit.head.weights), bits(&fit.head.bias), bits(&fit.out_of_fold), fit.temperature.to_bits())
        };
        assert!(with(1) == with(2));
    }

    #[test]
    fn learns_what_is_there_and_nothing_else() {
        let mut toy = Toy::new(300, 3, 20);
        let fit = toy.fit(5);
        assert!(fit.val_top1 > 0.85, "{}", fit.val_top1);
        assert_eq!(fit.validated, (0..300).collect::<Vec<u32>>());
        assert!((0.5..2.0).contains(&fit.temperature), "{}", fit.temperature);
        // Labels that have nothing to do with the photos: the strongest penalties win, and chance remains.
        toy.labels =
            (0..300u32).map(|photo| photo.wrapping_mul(2_654_435_761) >> 16).map(|h| h % 3).collect();
        let fit = toy.fit(5);
        assert!(fit.val_top1 < 0.45 && fit.lambda >= 1.0, "{} {}", fit.val_top1, fit.lambda);
    }

    #[test]
    fn the_order_of_photos_does_not_matter() {
        let toy = Toy::new(60, 3, 12);
        let mut turned =
            Toy { rows: vec![], photo: vec![], weight: vec![], labels: toy.labels.clone(), ..toy };
        for photo in (0..60u32).rev() {
            for row in [2 * photo as usize, 2 * photo as usize + 1] {
                turned.rows.extend(&toy.rows[row * 12..][..12]);
                turned.photo.push(photo);
                turned.weight.push(toy.weight[row]);
            }
        }
        let (a, b) = (toy.fit(4), turned.fit(4));
        assert_eq!((a.lambda, &a.validated), (b.lambda, &b.validated));
        for (a, b) in a.out_of_fold.iter().zip(&b.out_of_fold) {
            assert!((a - b).abs() < 0.05 * a.abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn separable_photos_end_well() {
        let mut toy = Toy::new(40, 4, 30);
        for (row, photo) in toy.rows.chunks_mut(30).zip(&toy.photo) {
            row[*photo as usize % 4] += 50.0;
        }
        let fit = toy.fit(5);
        assert_eq!(fit.val_top1, 1.0);
        assert!(fit.head.weights.iter().chain(&fit.head.bias).all(|w| w.is_finite()));
        assert!(fit.temperature.is_finite());
    }

    #[test]
    fn one_photo_of_a_class_is_enough_to_go_on() {
        // Whichever fold holds the photo, the others have never seen its class.
        let mut toy = Toy::new(60, 3, 12);
        toy.classes = 5;
        toy.labels[7] = 3;
        let fit = toy.fit(3);
        assert!(fit.out_of_fold.iter().chain(&fit.head.bias).all(|z| z.is_finite()));
        assert!(fit.tried.iter().all(|tried| tried.nll < 10.0), "{:?}", fit.tried);
        // Class 4 has no photo at all, and is never the answer.
        let logits = fit.head.logits(&toy.rows);
        assert!(logits.chunks(5).all(|z| z[4] < z[..3].iter().copied().fold(f32::MIN, f32::max)));
    }

    #[test]
    fn one_and_two_shots() {
        for shots in [1, 2] {
            let toy = Toy::new(shots * 6, 6, 40);
            let folds: Vec<u32> = (0..shots * 6).map(|photo| (photo / 6 + photo) % 2).collect();
            let fit = fit(&toy.features(), &toy.labels, 6, &folds, &[0, 1], &|_| true).unwrap();
            let logits = fit.head.logits(&toy.rows);
            let plain = logits.chunks(6).zip(&toy.photo).step_by(2);
            let right =
                plain.filter(|(z, photo)| z.iter().all(|other| *other <= z[**photo as usize % 6])).count();
            assert!(right * 10 >= toy.labels.len() * 8, "{shots}: {right} right, {:?}", fit.tried);
        }
    }

    #[test]
    fn features_that_never_change_leave_the_prior() {
        let mut toy = Toy::new(40, 2, 6);
        toy.rows.fill(0.1);
        let fit = toy.fit(4);
        assert!(fit.head.weights.iter().all(|w| *w == 0.0));
        assert!((fit.head.bias[0] - fit.head.bias[1]).abs() < 1e-3);
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let mut toy = Toy::new(20, 2, 6);
        let folds = toy.folds(2);
        let run = |toy: &Toy, labels: &[u32], held: &[u32]| {
            fit(&toy.features(), labels, toy.classes, &folds, held, &|_| true)
        };
        assert!(refusal(run(&toy, &toy.labels[1..], &[0])).contains("19 labels"));
        assert!(refusal(run(&toy, &[2; 20], &[0])).contains("label 2"));
        assert!(refusal(run(&toy, &toy.labels, &[])).contains("held-out fold"));
        assert!(refusal(run(&toy, &toy.labels, &[0, 9])).contains("fold 9 holds none"));
        toy.rows[6 * 5 + 4] = f32::NAN;
        assert!(refusal(run(&toy, &toy.labels, &[0])).contains("feature 4 of photo 2 is NaN"));
        toy.rows[6 * 5 + 4] = f32::INFINITY;
        assert!(refusal(run(&toy, &toy.labels, &[0])).contains("is inf"));
    }

    #[test]
    fn an_interrupt_stops_it() {
        let toy = Toy::new(60, 3, 12);
        let steps = AtomicUsize::new(0);
        let go_on = |share: f32| {
            assert!((0.0..=1.0).contains(&share));
            steps.fetch_add(1, Ordering::Relaxed) < 20
        };
        let result = fit(&toy.features(), &toy.labels, 3, &toy.folds(4), &[0, 1, 2, 3], &go_on);
        assert!(matches!(result, Err(Error::Interrupted)));
        assert!(steps.into_inner() < 30);
    }

    #[test]
    fn temperature_undoes_a_scale() {
        let toy = Toy::new(90, 3, 12);
        let fit = toy.fit(5);
        let hot: Vec<f32> = fit.out_of_fold.iter().map(|z| z * 3.0).collect();
        let again = temperature(&hot, &toy.labels, 3);
        assert!((again / fit.temperature - 3.0).abs() < 0.01, "{again} {}", fit.temperature);
    }
}
