//! Batch normalization (Ioffe and Szegedy, arXiv 1502.03167).
//!
//! x̂ = (y − μ)/σ, z = act(γ·x̂ + β). With g the gradient before the activation, over M pixels: the gradient of β is
//! S1 = Σ g, that of γ is S2 = Σ g·x̂, and that of y is γ/σ·(g − S1/M − x̂·S2/M).

use std::sync::{Mutex, PoisonError};

use penjing_kernels::{Act, Isa, batch_norm};
use rayon::prelude::*;

use super::{OwnedLazy, Run, parts, plan::Norm};
use crate::train::parameters::{Gradients, Parameters};

/// What a normalization keeps from step to step.
#[derive(Debug, Default)]
pub(super) struct NormState {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    running_mean: Vec<f32>,
    /// How the raw result is read: scale·y + shift.
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Of the last batch, or with frozen statistics the running ones.
    mean: Vec<f64>,
    var: Vec<f64>,
    /// Σ g and Σ g·(y − mean) of the result's whole gradient, of each piece, where a reader has summed them up.
    sums: Mutex<Vec<Moments>>,
}

/// What is needed to sum up the gradient of a result that is read lazily.
pub(super) struct Summing {
    lazy: OwnedLazy,
    about: Vec<f32>,
}

impl Summing {
    /// Empty sums.
    pub(super) fn start(&self) -> Moments {
        [vec![0.0; self.about.len()], vec![0.0; self.about.len()]]
    }

    /// Adds whole pixels of the gradient and of the raw result.
    pub(super) fn add(&self, isa: Isa, de: &[f32], raw: &[f32], [s1, s2]: &mut Moments) {
        batch_norm::gradient_sums(
            isa,
            self.about.len(),
            Some(&self.lazy.get()),
            &self.about,
            de,
            raw,
            s1,
            s2,
        );
    }
}

/// Σ(y − running mean) and Σ(y − running mean)² of a piece, per channel.
pub(super) type Moments = [Vec<f64>; 2];

impl NormState {
    /// Nothing is changed on the way.
    pub(super) fn identity(channels: usize) -> Self {
        NormState { scale: vec![1.0; channels], shift: vec![0.0; channels], ..NormState::default() }
    }

    pub(super) fn prepare(&mut self, norm: &Norm, parameters: &Parameters) {
        let values = |place: usize| &parameters.list[place].values;
        self.gamma.clone_from(values(norm.gamma));
        self.beta.clone_from(values(norm.beta));
        self.running_mean.clone_from(values(norm.mean));
        self.shift.clear();
        self.shift.resize(self.gamma.len(), 0.0);
        if norm.batch {
            self.scale.clone_from(&self.shift);
        } else {
            self.scale = fold(norm, parameters, &mut self.shift);
            self.mean = values(norm.mean).iter().copied().map(f64::from).collect();
            self.var = values(norm.var).iter().copied().map(f64::from).collect();
        }
    }

    /// Mean and (biased) variance of the last batch.
    pub(super) fn statistics(&self) -> [&[f64]; 2] {
        [&self.mean, &self.var]
    }

    /// What a reader of the raw result applies.
    pub(super) fn lazy(&self, act: Act) -> OwnedLazy {
        OwnedLazy { scale: self.scale.clone(), shift: self.shift.clone(), act }
    }

    /// Empty sums for a piece.
    pub(super) fn moments(&self) -> Moments {
        [vec![0.0; self.gamma.len()], vec![0.0; self.gamma.len()]]
    }

    /// Adds a piece's values to its sums.
    pub(super) fn observe(&self, isa: Isa, y: &[f32], [sum, square]: &mut Moments) {
        batch_norm::moments(isa, self.gamma.len(), &self.running_mean, y, sum, square);
    }

    /// Statistics of a batch of so many pixels from the pieces' sums, and what a reader applies then.
    pub(super) fn normalize(&mut self, eps: f32, pixels: usize, pieces: &[Moments]) {
        let count = pixels as f64;
        self.mean.clear();
        self.var.clear();
        for c in 0..self.gamma.len() {
            let (sum, square) =
                pieces.iter().fold((0.0, 0.0), |(sum, square), [s, q]| (sum + s[c], square + q[c]));
            let off = sum / count;
            let var = (square / count - off * off).max(0.0);
            let mean = f64::from(self.running_mean[c]) + off;
            let scale = f64::from(self.gamma[c]) / (var + f64::from(eps)).sqrt();
            self.scale[c] = scale as f32;
            self.shift[c] = (f64::from(self.beta[c]) - mean * scale) as f32;
            self.mean.push(mean);
            self.var.push(var);
        }
    }

    /// The mean as the kernels take it.
    fn about(&self) -> Vec<f32> {
        self.mean.iter().map(|mean| *mean as f32).collect()
    }

    /// What a reader needs to sum up the result's gradient.
    pub(super) fn summing(&self, act: Act) -> Summing {
        Summing { lazy: self.lazy(act), about: self.about() }
    }

    /// Takes over what a reader has summed up, in the order of its pieces; nothing if it has not.
    pub(super) fn summed(&self, pieces: Vec<Moments>) {
        *self.sums.lock().unwrap_or_else(PoisonError::into_inner) = pieces;
    }

    /// The gradients of γ and β, and `a`, `b`, `k` of the raw result's gradient `a·g + b·y + k`.
    pub(super) fn coefficients(
        &self,
        isa: Isa,
        norm: &Norm,
        lazy: &OwnedLazy,
        de: &[f32],
        raw: &[f32],
        gradients: &mut Gradients,
    ) -> [Vec<f32>; 3] {
        let channels = self.gamma.len();
        let about = self.about();
        let pixels = raw.len() / channels;
        let rows = piece_rows(pixels) * channels;
        let mut sums = std::mem::take(&mut *self.sums.lock().unwrap_or_else(PoisonError::into_inner));
        if sums.is_empty() {
            let pieces = de.par_chunks(rows).zip(raw.par_chunks(rows)).map(|(de, raw)| {
                let [mut s1, mut s2] = self.moments();
                batch_norm::gradient_sums(
                    isa,
                    channels,
                    Some(&lazy.get()),
                    &about,
                    de,
                    raw,
                    &mut s1,
                    &mut s2,
                );
                [s1, s2]
            });
            sums = pieces.collect();
        }
        let mut coefficients = [const { Vec::new() }; 3];
        for c in 0..channels {
            let (s1, s2) = sums.iter().fold((0.0, 0.0), |(s1, s2), [a, b]| (s1 + a[c], s2 + b[c]));
            let inverse = 1.0 / (self.var[c] + f64::from(norm.eps)).sqrt();
            // The kernel has subtracted the mean as f32 holds it.
            let s2 = (s2 + (f64::from(about[c]) - self.mean[c]) * s1) * inverse;
            if norm.learns {
                gradients[norm.gamma][c] += s2 as f32;
                gradients[norm.beta][c] += s1 as f32;
            }
            let a = f64::from(self.gamma[c]) * inverse;
            let (b, k) = if norm.batch {
                let b = -a * s2 * inverse / pixels as f64;
                (b, -a * s1 / pixels as f64 - b * self.mean[c])
            } else {
                (0.0, 0.0)
            };
            for (coefficients, value) in coefficients.iter_mut().zip([a, b, k]) {
                coefficients.push(value as f32);
            }
        }
        coefficients
    }
}

/// Rows of a piece of a map that is passed over once.
pub(super) fn piece_rows(pixels: usize) -> usize {
    pixels.div_ceil(32).max(64)
}

/// The factor γ/√(var + eps) of each channel; the bias becomes β + (bias − mean)·factor. The arithmetic is that of
/// lowering, so that both compute the same bits.
pub(super) fn fold(norm: &Norm, parameters: &Parameters, bias: &mut [f32]) -> Vec<f32> {
    let [gamma, beta, mean, var] =
        [norm.gamma, norm.beta, norm.mean, norm.var].map(|place| &parameters.list[place].values);
    let mut factors = Vec::with_capacity(bias.len());
    for (c, bias) in bias.iter_mut().enumerate() {
        let factor = f64::from(gamma[c]) / (f64::from(var[c]) + f64::from(norm.eps)).sqrt();
        *bias = (f64::from(beta[c]) + (f64::from(*bias) - f64::from(mean[c])) * factor) as f32;
        factors.push(factor as f32);
    }
    factors
}

/// The values as a consumer sees them: themselves, or normalized and activated in `scratch`.
pub(super) fn read<'a>(
    isa: Isa,
    channels: usize,
    lazy: Option<&OwnedLazy>,
    x: &'a [f32],
    scratch: &'a mut [f32],
) -> &'a [f32] {
    let Some(lazy) = lazy else { return x };
    let to = &mut scratch[..x.len()];
    batch_norm::apply(isa, channels, &lazy.get(), x, to);
    to
}

impl Run<'_> {
    pub(super) fn norm_forward(&self, norm: &Norm, act: Act, state: &mut NormState, arena: &mut [f32]) {
        let c = self.output().channels();
        let [x, y] = parts(arena, [self.input(0).stored.clone(), self.output().stored.clone()]);
        let pixels = x.len() / c;
        let rows = piece_rows(pixels) * c;
        if norm.batch {
            let observed = x.par_chunks(rows).map(|x| {
                let mut moments = state.moments();
                state.observe(self.isa, x, &mut moments);
                moments
            });
            let pieces: Vec<Moments> = observed.collect();
            state.normalize(norm.eps, pixels, &pieces);
        }
        let lazy = state.lazy(act);
        y.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(y, x)| {
            batch_norm::apply(self.isa, c, &lazy.get(), x, y);
        });
    }

    pub(super) fn norm_backward(
        &self,
        norm: &Norm,
        act: Act,
        state: &NormState,
        arena: &mut [f32],
        gradients: &mut Gradients,
    ) {
        let c = self.output().channels();
        let onward = self.onward(0);
        let to = onward.clone().map_or(0..0, |(range, _)| range);
        let [x, de, dx] = parts(arena, [self.input(0).stored.clone(), self.gradient(), to]);
        let lazy = state.lazy(act);
        let [a, b, k] = state.coefficients(self.isa, norm, &lazy, de, x, gradients);
        let Some((_, adds)) = onward else { return };
        let rows = piece_rows(x.len() / c) * c;
        dx.par_chunks_mut(rows).zip(x.par_chunks(rows)).zip(de.par_chunks(rows)).for_each(|((dx, x), de)| {
            self.put(adds, dx, |dx| {
                batch_norm::gradient(self.isa, c, Some(&lazy.get()), (&a, &b, &k), de, x, dx);
            });
        });
    }
}
