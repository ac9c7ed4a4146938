//! The loss of multinomial logistic regression and its gradient, over rows shared out among threads.

use std::ops::Range;

use penjing_kernels::{Act, Isa, Serial, pointwise};
use rayon::prelude::*;

use super::{
    head::{SLAB_ROWS, Table},
    lbfgs::{Objective, dot},
};

/// The training loss, standing at some parameters.
pub(super) struct SoftmaxLoss<'a> {
    isa: Isa,
    pub(super) classes: usize,
    pub(super) width: usize,
    pub(super) lambda: f64,
    /// Σ of the rows' weights.
    total: f64,
    slabs: Vec<Slab<'a>>,
    /// ‖W‖², W·D, ‖D‖² of the weights W and the direction D.
    ridge: [f64; 3],
}

/// A run of rows worked by one thread.
struct Slab<'a> {
    /// `[rows][width]`.
    rows: &'a [f32],
    label: Vec<u32>,
    weight: &'a [f32],
    /// Logits here, `[rows][classes]`.
    logits: Vec<f32>,
    /// What a step of one along the direction adds to them; between line searches, the loss' gradient by the logits.
    change: Vec<f32>,
    /// The slab's share of the gradient.
    gradient: Vec<f32>,
}

impl<'a> SoftmaxLoss<'a> {
    pub(super) fn new(table: &'a Table, ranges: &[Range<usize>; 2]) -> Self {
        let (width, classes) = (table.width, table.classes);
        let slab = |rows: &'a [f32], label: Vec<u32>, weight: &'a [f32]| Slab {
            rows,
            weight,
            logits: vec![0.0; label.len() * classes],
            change: vec![0.0; label.len() * classes],
            gradient: vec![0.0; classes * (width + 1)],
            label,
        };
        let rows: usize = ranges.iter().map(Range::len).sum();
        // About sixteen at most, as each holds a gradient; a function of the shape alone.
        let slab_rows = rows.div_ceil(16).max(SLAB_ROWS);
        let mut slabs = Vec::new();
        let mut absent = vec![true; classes];
        for range in ranges {
            for start in range.clone().step_by(slab_rows) {
                let rows = start..range.end.min(start + slab_rows);
                let label = table.label[rows.clone()].to_vec();
                label.iter().for_each(|label| absent[*label as usize] = false);
                slabs.push(slab(
                    &table.rows[rows.start * width..rows.end * width],
                    label,
                    &table.weight[rows],
                ));
            }
        }
        let absent: Vec<u32> =
            (0..).zip(absent).filter(|(_, absent)| *absent).map(|(class, _)| class).collect();
        if !absent.is_empty() {
            let n = absent.len();
            slabs.push(slab(&table.average[..n * width], absent, &table.average_weight[..n]));
        }
        let total = slabs.iter().flat_map(|slab| slab.weight).map(|w| f64::from(*w)).sum();
        SoftmaxLoss { isa: Isa::detect(), classes, width, lambda: 0.0, total, slabs, ridge: [0.0; 3] }
    }

    pub(super) fn pack(&self, parameters: &[f32]) -> Packed {
        let (weights, bias) = parameters.split_at(self.classes * self.width);
        Packed::new(self.isa, weights, bias)
    }

    /// Takes its stand at `parameters`.
    pub(super) fn stand(&mut self, parameters: &[f32]) {
        let packed = self.pack(parameters);
        self.slabs.par_iter_mut().for_each(|slab| packed.logits(slab.rows, &mut slab.logits));
    }
}

impl Objective for SoftmaxLoss<'_> {
    fn aim(&mut self, at: &[f32], direction: &[f32]) {
        let (at, along) = (&at[..self.classes * self.width], &direction[..self.classes * self.width]);
        self.ridge = [dot(at, at), dot(at, along), dot(along, along)];
        let packed = self.pack(direction);
        self.slabs.par_iter_mut().for_each(|slab| packed.logits(slab.rows, &mut slab.change));
    }

    fn probe(&self, step: f64) -> (f64, f64) {
        let sums: Vec<(f64, f64)> =
            self.slabs.par_iter().map(|slab| slab.probe(self.classes, step as f32)).collect();
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
        let (isa, classes, width) = (self.isa, self.classes, self.width);
        self.slabs.par_iter_mut().for_each(|slab| slab.backward(isa, classes, width));
        let (slabs, total, lambda, weights) = (&self.slabs, self.total, self.lambda, classes * width);
        const PIECE: usize = 1 << 12;
        gradient.par_chunks_mut(PIECE).enumerate().for_each(|(piece, gradient)| {
            for (i, gradient) in (piece * PIECE..).zip(gradient) {
                let sum: f64 = slabs.iter().map(|slab| f64::from(slab.gradient[i])).sum();
                let ridge = if i < weights { lambda * f64::from(at[i]) } else { 0.0 };
                *gradient = (sum / total + ridge) as f32;
            }
        });
    }
}

impl Slab<'_> {
    /// Weighted cross-entropy and its slope at `step` along the direction, summed over the rows.
    fn probe(&self, classes: usize, step: f32) -> (f64, f64) {
        let mut z = vec![0.0f32; classes];
        let (mut value, mut slope) = (0.0, 0.0);
        let each = self.logits.chunks_exact(classes).zip(self.change.chunks_exact(classes));
        for ((logits, change), (label, weight)) in each.zip(self.label.iter().zip(self.weight)) {
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
            let (label, weight) = (*label as usize, f64::from(*weight));
            value += weight * (f64::from(sum).ln() - f64::from(z[label] - most));
            slope += weight * (f64::from(moved) / f64::from(sum) - f64::from(change[label]));
        }
        (value, slope)
    }

    /// The gradient of the summed loss by weights and bias.
    fn backward(&mut self, isa: Isa, classes: usize, width: usize) {
        self.gradient.fill(0.0);
        let (dw, db) = self.gradient.split_at_mut(classes * width);
        let each = self.logits.chunks_exact(classes).zip(self.change.chunks_exact_mut(classes));
        for ((logits, dz), (label, weight)) in each.zip(self.label.iter().zip(self.weight)) {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0f32;
            for (dz, logit) in dz.iter_mut().zip(logits) {
                *dz = (logit - most).exp();
                sum += *dz;
            }
            dz.iter_mut().for_each(|dz| *dz *= weight / sum);
            dz[*label as usize] -= weight;
            db.iter_mut().zip(&*dz).for_each(|(db, dz)| *db += dz);
        }
        let rows = self.label.len();
        pointwise::weight_gradient(isa, &Serial, rows, classes, width, &self.change, self.rows, dw);
    }
}

/// Weights and bias as the matrix product wants them.
pub(super) struct Packed {
    isa: Isa,
    classes: usize,
    width: usize,
    panels: Vec<f32>,
}

impl Packed {
    pub(super) fn new(isa: Isa, weights: &[f32], bias: &[f32]) -> Packed {
        let (classes, width) = (bias.len(), weights.len() / bias.len());
        let mut panels = vec![0.0; pointwise::packed_len(classes, width)];
        pointwise::pack(classes, width, weights, Some(bias), &mut panels);
        Packed { isa, classes, width, panels }
    }

    /// Writes the logits `[rows][classes]` of `rows` `[rows][width]`, on the calling thread.
    pub(super) fn logits(&self, rows: &[f32], logits: &mut [f32]) {
        let (k, n) = (self.width, self.classes);
        pointwise::run(self.isa, &Serial, rows.len() / k, k, n, Act::None, rows, &self.panels, None, logits);
    }
}
