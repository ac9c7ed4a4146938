//! A linear head on the cached features of a frozen backbone, its strength chosen by grouped cross-validation.
//!
//! Multinomial logistic regression: the weighted mean of the cross-entropy of softmax(W f + b), plus λ/2 ‖W‖²; the
//! bias is free. Features are standardized while W is sought, and the returned [`Head`] takes them raw: W/σ, b − Wμ/σ.
//! Mean and deviation come from all rows handed in, those of held-out photos included; no label enters them.
//!
//! Every sum has a fixed order, so the head is the same, bit for bit, for any number of threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::lbfgs::{Ended, Lbfgs, Objective, dot};
use crate::{Error, Result};

/// What was tried first, in order: strong to weak.
pub const LAMBDAS: [f64; 9] = [1.0, 0.316, 0.1, 0.0316, 0.01, 0.00316, 0.001, 0.000316, 0.0001];

/// Rows of features; several views of one photo are several rows with the same photo.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    /// Features in a row.
    pub width: usize,
    /// `[rows][width]`.
    pub rows: &'a [f32],
    /// The photo each row shows, `[rows]`. The first row of a photo is its plain view, the one that validates.
    pub photo: &'a [u32],
    /// What each row counts in training, `[rows]`: 1 for the plain view, less for augmented ones.
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

/// One strength of regularization and what its heads did on photos they had not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// The strength chosen.
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

impl Head {
    /// Logits `[rows][classes]` of raw features `[rows][width]`.
    pub fn logits(&self, rows: &[f32]) -> Vec<f32> {
        let mut logits = vec![0.0; rows.len() / self.width * self.classes];
        forward(rows, &self.weights, &self.bias, &mut logits);
        logits
    }
}

/// Experimental.
#[derive(Clone, Debug)]
pub struct Settings {
    /// grid
    pub lambdas: Vec<f64>,
    /// smoothing
    pub smoothing: f32,
    /// 1 standardize, 0 none
    pub gamma: f64,
    /// floor of sigma relative to its rms over features
    pub floor: f64,
    /// stronger within se
    pub se: f64,
    /// tol
    pub tolerance: f64,
    /// stop
    pub stop: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { lambdas: LAMBDAS.to_vec(), smoothing: 0.0, gamma: 1.0, floor: 0.0, se: 0.0, tolerance: 1e-4, stop: true }
    }
}

/// Fits a head to `features`, with the λ that predicts held-out photos best.
pub fn fit(
    features: &Features,
    labels: &[u32],
    classes: usize,
    folds: &[u32],
    held_out: &[u32],
    set: &Settings,
    watch: &(dyn Fn(f32) -> bool + Sync),
) -> Result<Fit> {
    let table = Table::new(features, labels, classes, folds, set)?;
    let lambdas = &set.lambdas;
    let mut folds: Vec<Fold> = held_out
        .iter()
        .map(|fold| {
            let held = table.rows_of(*fold);
            Fold::new(&table, &[0..held.start, held.end..table.label.len()], held)
        })
        .collect();
    let finished = AtomicUsize::new(0);
    let all = (folds.len() * lambdas.len() + folds.len().max(1)) as f32;
    let watch = || watch(finished.load(Ordering::Relaxed) as f32 / all);

    let mut tried: Vec<Tried> = Vec::new();
    let mut judged: Vec<Judged> = Vec::new();
    let mut best = 0;
    for &lambda in lambdas {
        folds.par_iter_mut().try_for_each(|fold| {
            fold.solve(lambda, set.tolerance, &watch)?;
            finished.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(())
        })?;
        let this = Judged::new(&table, &folds);
        tried.push(Tried { lambda, nll: this.nll(), top1: this.top1() });
        judged.push(this);
        let last = tried.len() - 1;
        if tried[last].nll < tried[best].nll {
            best = last;
        } else if set.stop && last - best >= 2 && tried[last].nll > tried[last - 1].nll {
            break;
        }
    }
    let mut pick = best;
    for i in 0..best {
        let (mean, se) = judged[best].paired(&judged[i]);
        if mean <= set.se * se {
            pick = i;
            break;
        }
    }
    drop(folds);

    let mut whole = Fold::new(&table, &[0..table.label.len()], 0..0);
    for &lambda in &lambdas[..=pick] {
        whole.solve(lambda, if lambda == lambdas[pick] { 1e-6 } else { 1e-2 }, &watch)?;
    }
    let Judged { photos, logits, labels, .. } = judged.swap_remove(pick);
    let temperature = temperature(&logits, &labels, classes);
    Ok(Fit {
        head: table.unstandardize(&whole.parameters),
        lambda: lambdas[pick],
        val_top1: tried[pick].top1,
        tried,
        validated: photos,
        out_of_fold: logits,
        temperature,
    })
}

/// The temperature T in e^±3 that minimizes the negative log-likelihood of softmax(logits / T), by golden section in
/// log T. `logits` is `[labels][classes]`.
pub fn temperature(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let nll = |log_t: f64| -> f64 {
        let scale = (-log_t).exp();
        let each = logits.chunks_exact(classes).zip(labels);
        each.map(|(z, label)| {
            let most = z.iter().fold(f64::NEG_INFINITY, |most, z| most.max(f64::from(*z) * scale));
            let sum: f64 = z.iter().map(|z| (f64::from(*z) * scale - most).exp()).sum();
            most + sum.ln() - f64::from(z[*label as usize]) * scale
        })
        .sum()
    };
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (-3.0, 3.0);
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut nll_a, mut nll_b) = (nll(a), nll(b));
    while high - low > 1e-4 {
        if nll_a < nll_b {
            (high, b, nll_b) = (b, a, nll_a);
            a = high - ratio * (high - low);
            nll_a = nll(a);
        } else {
            (low, a, nll_a) = (a, b, nll_b);
            b = low + ratio * (high - low);
            nll_b = nll(b);
        }
    }
    ((low + high) / 2.0).exp()
}

/// Standardized rows in the order of their folds, so that a fold is a range.
struct Table {
    width: usize,
    classes: usize,
    /// `[rows][width]`.
    rows: Vec<f32>,
    label: Vec<u32>,
    weight: Vec<f32>,
    photo: Vec<u32>,
    fold: Vec<u32>,
    /// Whether a row is its photo's plain view.
    plain: Vec<bool>,
    mean: Vec<f64>,
    /// 1/σ; 0 for a feature that never changes.
    scale: Vec<f64>,
    smoothing: f32,
}

impl Table {
    fn new(features: &Features, labels: &[u32], classes: usize, folds: &[u32], set: &Settings) -> Result<Table> {
        let &Features { width, rows, photo, weight } = features;
        let refuse = |what: String| Err(Error::Unsupported(what));
        if let Some(at) = rows.iter().position(|f| !f.is_finite()) {
            return refuse(format!(
                "feature {} of photo {} is {}: the backbone's weights or its input are damaged",
                at % width,
                photo[at / width],
                rows[at]
            ));
        }
        let n = photo.len();
        let mut seen = vec![false; labels.len()];
        let plain: Vec<bool> = photo.iter().map(|p| !std::mem::replace(&mut seen[*p as usize], true)).collect();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|row| folds[photo[*row] as usize]);

        let total: f64 = weight.iter().map(|w| f64::from(*w)).sum();
        let row = |at: usize| &rows[at * width..][..width];
        let moment = |of: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
            let mut sum = vec![0.0f64; width];
            for at in 0..n {
                for (i, f) in row(at).iter().enumerate() {
                    sum[i] += f64::from(weight[at]) * of(i, f64::from(*f));
                }
            }
            sum.iter_mut().for_each(|s| *s /= total);
            sum
        };
        let mean = moment(&|_, f| f);
        let variance = moment(&|i, f| (f - mean[i]) * (f - mean[i]));
        let rms = (variance.iter().sum::<f64>() / width as f64).sqrt();
        let scale: Vec<f64> = mean
            .iter()
            .zip(&variance)
            .map(|(mean, variance)| {
                // Below f32's resolution of the mean, "deviation" is rounding.
                let flat = *variance <= 1e-11 * mean * mean || *variance <= 0.0;
                if flat { 0.0 } else {
                    let s = (variance + (set.floor * rms).powi(2)).sqrt();
                    1.0 / (s.powf(set.gamma) * rms.powf(1.0 - set.gamma)) }
            })
            .collect();
        let mut standardized = vec![0.0f32; n * width];
        standardized.par_chunks_exact_mut(width).zip(&order).for_each(|(to, &from)| {
            for (i, (to, f)) in to.iter_mut().zip(row(from)).enumerate() {
                *to = ((f64::from(*f) - mean[i]) * scale[i]) as f32;
            }
        });
        Ok(Table {
            width,
            classes,
            rows: standardized,
            label: order.iter().map(|row| labels[photo[*row] as usize]).collect(),
            weight: order.iter().map(|row| weight[*row]).collect(),
            photo: order.iter().map(|row| photo[*row]).collect(),
            fold: order.iter().map(|row| folds[photo[*row] as usize]).collect(),
            plain: order.iter().map(|row| plain[*row]).collect(),
            mean,
            scale,
            smoothing: set.smoothing,
        })
    }

    fn rows_of(&self, fold: u32) -> Range<usize> {
        self.fold.partition_point(|f| *f < fold)..self.fold.partition_point(|f| *f <= fold)
    }

    /// The head of raw features that answers as `parameters` do for standardized ones.
    fn unstandardize(&self, parameters: &[f32]) -> Head {
        let (weights, bias) = parameters.split_at(self.classes * self.width);
        let mut head = Head { classes: self.classes, width: self.width, weights: vec![], bias: vec![] };
        for (row, bias) in weights.chunks_exact(self.width).zip(bias) {
            let mut shifted = f64::from(*bias);
            for (i, w) in row.iter().enumerate() {
                let raw = f64::from(*w) * self.scale[i];
                shifted -= raw * self.mean[i];
                head.weights.push(raw as f32);
            }
            head.bias.push(shifted as f32);
        }
        head
    }
}

/// A head in the making on some rows, and the rows it must not see.
struct Fold<'a> {
    table: &'a Table,
    held: Range<usize>,
    loss: SoftmaxLoss<'a>,
    lbfgs: Lbfgs,
    /// `[classes][width]`, then the bias.
    parameters: Vec<f32>,
}

impl<'a> Fold<'a> {
    fn new(table: &'a Table, rows: &[Range<usize>], held: Range<usize>) -> Self {
        let parameters = vec![0.0; table.classes * (table.width + 1)];
        Fold { table, held, loss: SoftmaxLoss::new(table, rows), lbfgs: Lbfgs::default(), parameters }
    }

    /// Moves to the optimum for `lambda` from wherever it stands.
    fn solve(&mut self, lambda: f64, tolerance: f64, go_on: &(impl Fn() -> bool + Sync)) -> Result<()> {
        let weights = self.table.classes * self.table.width;
        self.lbfgs.shift_ridge(lambda - self.loss.lambda, weights);
        self.loss.lambda = lambda;
        self.loss.stand(&self.parameters);
        match self.lbfgs.minimize(&mut self.loss, &mut self.parameters, tolerance, ITERATIONS, go_on) {
            Ended::Stopped => Err(Error::Interrupted),
            Ended::Converged | Ended::Exhausted => Ok(()),
        }
    }
}

const ITERATIONS: usize = 200;

/// Held-out photos under the heads of one λ.
struct Judged {
    photos: Vec<u32>,
    labels: Vec<u32>,
    /// `[photos][classes]`.
    logits: Vec<f32>,
    nll: Vec<f64>,
    right: usize,
}

impl Judged {
    fn new(table: &Table, folds: &[Fold]) -> Judged {
        let classes = table.classes;
        let mut each: Vec<(u32, u32, Vec<f32>)> = folds
            .par_iter()
            .flat_map_iter(|fold| {
                let (weights, bias) = fold.parameters.split_at(classes * table.width);
                fold.held.clone().filter(|row| table.plain[*row]).map(move |row| {
                    let mut logits = vec![0.0; classes];
                    forward(&table.rows[row * table.width..][..table.width], weights, bias, &mut logits);
                    (table.photo[row], table.label[row], logits)
                })
            })
            .collect();
        each.sort_by_key(|(photo, ..)| *photo);
        let mut judged = Judged { photos: vec![], labels: vec![], logits: vec![], nll: vec![], right: 0 };
        for (photo, label, logits) in each {
            let (lse, right) = log_sum_exp(&logits, label);
            judged.right += usize::from(right);
            judged.nll.push(lse - f64::from(logits[label as usize]));
            judged.photos.push(photo);
            judged.labels.push(label);
            judged.logits.extend(logits);
        }
        judged
    }

    fn nll(&self) -> f64 {
        self.nll.iter().sum::<f64>() / self.nll.len() as f64
    }

    fn top1(&self) -> f64 {
        self.right as f64 / self.nll.len() as f64
    }

    /// Mean and standard error of how much worse `other` is.
    fn paired(&self, other: &Judged) -> (f64, f64) {
        let n = self.nll.len() as f64;
        let mean = other.nll() - self.nll();
        let spread: f64 = self.nll.iter().zip(&other.nll).map(|(a, b)| (b - a - mean).powi(2)).sum();
        (mean, (spread / (n - 1.0).max(1.0) / n).sqrt())
    }
}

/// log Σ e^z, and whether `label` has the highest logit.
fn log_sum_exp(z: &[f32], label: u32) -> (f64, bool) {
    let most = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = z.iter().map(|z| f64::from(z - most).exp()).sum();
    (f64::from(most) + sum.ln(), z.iter().position(|z| *z == most) == Some(label as usize))
}

/// The training loss, standing at some parameters.
struct SoftmaxLoss<'a> {
    classes: usize,
    width: usize,
    lambda: f64,
    smoothing: f32,
    /// Σ of the rows' weights.
    total: f64,
    slabs: Vec<Slab<'a>>,
    /// ‖W‖², W·D, ‖D‖² of the weights W and the direction D.
    ridge: [f64; 3],
}

/// A run of rows worked by one thread.
struct Slab<'a> {
    rows: &'a [f32],
    label: &'a [u32],
    weight: &'a [f32],
    /// Logits here, `[rows][classes]`.
    logits: Vec<f32>,
    /// What a step of one along the direction adds to them; between line searches the loss' gradient by the logits.
    change: Vec<f32>,
    /// The slab's share of the gradient.
    gradient: Vec<f32>,
}

impl<'a> SoftmaxLoss<'a> {
    fn new(table: &'a Table, ranges: &[Range<usize>]) -> Self {
        let (width, classes) = (table.width, table.classes);
        let rows: usize = ranges.iter().map(Range::len).sum();
        // At most about sixteen, as each holds a gradient; a function of the shape alone.
        let slab_rows = rows.div_ceil(16).max(256);
        let slabs: Vec<Slab> = ranges
            .iter()
            .flat_map(|range| range.clone().step_by(slab_rows).map(|at| at..range.end.min(at + slab_rows)))
            .map(|range| Slab {
                rows: &table.rows[range.start * width..range.end * width],
                label: &table.label[range.clone()],
                weight: &table.weight[range.clone()],
                logits: vec![0.0; range.len() * classes],
                change: vec![0.0; range.len() * classes],
                gradient: vec![0.0; classes * (width + 1)],
            })
            .collect();
        let total = slabs.iter().flat_map(|slab| slab.weight).map(|w| f64::from(*w)).sum();
        SoftmaxLoss { classes, width, lambda: 0.0, smoothing: table.smoothing, total, slabs, ridge: [0.0; 3] }
    }

    /// Takes its stand at `parameters`.
    fn stand(&mut self, parameters: &[f32]) {
        let (weights, bias) = parameters.split_at(self.classes * self.width);
        self.ridge[0] = dot(weights, weights);
        self.slabs.par_iter_mut().for_each(|slab| forward(slab.rows, weights, bias, &mut slab.logits));
    }
}

impl Objective for SoftmaxLoss<'_> {
    fn aim(&mut self, at: &[f32], direction: &[f32]) {
        let n = self.classes * self.width;
        let (weights, bias) = direction.split_at(n);
        self.ridge = [dot(&at[..n], &at[..n]), dot(&at[..n], weights), dot(weights, weights)];
        self.slabs.par_iter_mut().for_each(|slab| forward(slab.rows, weights, bias, &mut slab.change));
    }

    fn probe(&self, step: f64) -> (f64, f64) {
        let sums: Vec<(f64, f64)> =
            self.slabs.par_iter().map(|slab| slab.probe(self.classes, self.smoothing, step as f32)).collect();
        let (value, slope) = sums.iter().fold((0.0, 0.0), |sum, slab| (sum.0 + slab.0, sum.1 + slab.1));
        let [ww, wd, dd] = self.ridge;
        let value = value / self.total + self.lambda / 2.0 * (ww + 2.0 * step * wd + step * step * dd);
        (value, slope / self.total + self.lambda * (wd + step * dd))
    }

    fn advance(&mut self, step: f64) {
        self.slabs.par_iter_mut().for_each(|slab| {
            for (logit, change) in slab.logits.iter_mut().zip(&slab.change) {
                *logit += step as f32 * change;
            }
        });
    }

    fn gradient(&mut self, at: &[f32], gradient: &mut [f32]) {
        let (classes, width, smoothing) = (self.classes, self.width, self.smoothing);
        self.slabs.par_iter_mut().for_each(|slab| slab.backward(classes, width, smoothing));
        let (slabs, total, lambda) = (&self.slabs, self.total, self.lambda);
        const PIECE: usize = 1 << 12;
        let weights = classes * width;
        gradient.par_chunks_mut(PIECE).enumerate().for_each(|(piece, gradient)| {
            let from = piece * PIECE;
            for (i, gradient) in (from..).zip(gradient) {
                let sum: f64 = slabs.iter().map(|slab| f64::from(slab.gradient[i])).sum();
                let ridge = if i < weights { lambda * f64::from(at[i]) } else { 0.0 };
                *gradient = (sum / total + ridge) as f32;
            }
        });
    }
}

impl Slab<'_> {
    /// Weighted cross-entropy and its slope at `step` along the direction, summed over the rows.
    fn probe(&self, classes: usize, smoothing: f32, step: f32) -> (f64, f64) {
        let mut z = vec![0.0f32; classes];
        let (mut value, mut slope) = (0.0, 0.0);
        for (row, (logits, change)) in
            self.logits.chunks_exact(classes).zip(self.change.chunks_exact(classes)).enumerate()
        {
            let mut most = f32::NEG_INFINITY;
            for ((z, logit), change) in z.iter_mut().zip(logits).zip(change) {
                *z = logit + step * change;
                most = most.max(*z);
            }
            let (mut sum, mut moved) = (0.0f32, 0.0f32);
            for (z, change) in z.iter().zip(change) {
                let e = (z - most).exp();
                sum += e;
                moved += e * change;
            }
            let label = self.label[row] as usize;
            let (mut target, mut target_change) = (f64::from(z[label] - most), f64::from(change[label]));
            if smoothing > 0.0 {
                let s = f64::from(smoothing);
                let mz = z.iter().map(|z| f64::from(z - most)).sum::<f64>() / classes as f64;
                let mc = change.iter().map(|z| f64::from(*z)).sum::<f64>() / classes as f64;
                target = target * (1.0 - s) + mz * s;
                target_change = target_change * (1.0 - s) + mc * s;
            }
            let weight = f64::from(self.weight[row]);
            value += weight * (f64::from(sum).ln() - target);
            slope += weight * (f64::from(moved) / f64::from(sum) - target_change);
        }
        (value, slope)
    }

    /// The gradient of the summed loss at the logits.
    fn backward(&mut self, classes: usize, width: usize, smoothing: f32) {
        self.gradient.fill(0.0);
        let (dw, db) = self.gradient.split_at_mut(classes * width);
        for (row, (logits, dz)) in
            self.logits.chunks_exact(classes).zip(self.change.chunks_exact_mut(classes)).enumerate()
        {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0f32;
            for (dz, logit) in dz.iter_mut().zip(logits) {
                *dz = (logit - most).exp();
                sum += *dz;
            }
            let factor = self.weight[row] / sum;
            dz.iter_mut().for_each(|dz| *dz *= factor);
            dz[self.label[row] as usize] -= self.weight[row] * (1.0 - smoothing);
            if smoothing > 0.0 {
                let s = self.weight[row] * smoothing / classes as f32;
                dz.iter_mut().for_each(|dz| *dz -= s);
            }
            for (db, dz) in db.iter_mut().zip(dz) {
                *db += *dz;
            }
        }
        weight_gradient(self.rows, &self.change, width, classes, dw);
    }
}

/// `logits[rows][classes] = rows · weightsᵀ + bias`.
fn forward(rows: &[f32], weights: &[f32], bias: &[f32], logits: &mut [f32]) {
    let width = weights.len() / bias.len();
    for (row, logits) in rows.chunks_exact(width).zip(logits.chunks_exact_mut(bias.len())) {
        for ((logit, weights), bias) in logits.iter_mut().zip(weights.chunks_exact(width)).zip(bias) {
            let (mut lanes, x, w) = ([0.0f32; 32], row.as_chunks::<32>(), weights.as_chunks::<32>());
            for (x, w) in x.0.iter().zip(w.0) {
                for lane in 0..32 {
                    lanes[lane] += x[lane] * w[lane];
                }
            }
            let rest: f32 = x.1.iter().zip(w.1).map(|(x, w)| x * w).sum();
            *logit = bias + lanes.iter().sum::<f32>() + rest;
        }
    }
}

/// `dw[classes][width] += dzᵀ · rows`.
fn weight_gradient(rows: &[f32], dz: &[f32], width: usize, classes: usize, dw: &mut [f32]) {
    for (row, dz) in rows.chunks_exact(width).zip(dz.chunks_exact(classes)) {
        for (dw, dz) in dw.chunks_exact_mut(width).zip(dz) {
            for (dw, x) in dw.iter_mut().zip(row) {
                *dw += dz * x;
            }
        }
    }
}
