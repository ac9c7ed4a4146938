//! How a compressed network compares with the one that it was made of.

use penjing_runtime::{graph::Graph, pixels::Pixels, tensor::Weights};
use rayon::prelude::*;
use serde::Serialize;

use crate::{Result, classifier::ranked, runner::Runner, threads::Threads, train::distill::log_softmax};

/// Results of one network on some photos: `[photos][classes]`.
pub type Logits = Vec<Vec<f32>>;

/// The logits for tensors `[H,W,C]`.
///
/// # Errors
/// As [`Runner::new`].
pub fn logits(
    graph: &Graph,
    weights: &Weights,
    pixels: &Pixels,
    inputs: &[Vec<f32>],
    threads: &Threads,
) -> Result<Logits> {
    let runner = Runner::new(graph, weights, pixels, 1)?;
    let run = |input: &Vec<f32>| runner.run_tensor(input, &penjing_kernels::Serial);
    Ok(threads.install(|| inputs.par_iter().map(run).collect()))
}

/// How far one network's results are from another's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// Mean Kullback–Leibler divergence of the softmaxes, in nats.
    pub divergence: f64,
    /// Share of photos on which both have the same greatest logit.
    pub agreement: f64,
    /// Squared error of the logits, over their variance within a photo. Unlike the divergence it tells networks apart where
    /// both are sure; a softmax at a high temperature sees the same (Hinton et al., arXiv 1503.02531, section 2.1).
    pub error: f64,
}

impl Distance {
    /// From `exact` to `other`, of the same photos.
    pub fn between(exact: &Logits, other: &Logits) -> Distance {
        let n = exact.len().max(1) as f64;
        let pairs = || exact.iter().zip(other);
        let same = pairs().filter(|(a, b)| ranked(a)[0] == ranked(b)[0]).count();
        let sum: f64 = pairs().map(|(a, b)| divergence(a, b)).sum();
        let apart = |a: &[f32], b: &[f32]| spread(a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
        let off: f64 = pairs().map(|(a, b)| apart(a, b)).sum();
        let whole: f64 = exact.iter().map(|z| spread(z.iter().copied().map(f64::from))).sum();
        let error = if off == 0.0 { 0.0 } else { off / whole };
        // What is no number is as far away as can be.
        let [divergence, error] = [sum / n, error].map(|far| if far.is_nan() { f64::INFINITY } else { far });
        Distance { divergence, agreement: same as f64 / n, error }
    }
}

/// Squared distances from the mean: what is added to all logits alike changes no softmax.
fn spread(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let mean = values.clone().sum::<f64>() / values.clone().count().max(1) as f64;
    values.map(|value| (value - mean).powi(2)).sum()
}

/// Σ p·ln(p/q) of softmax(a) and softmax(b).
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let (p, q) = (log_softmax(a, 1.0), log_softmax(b, 1.0));
    let sum: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
    if sum < 0.0 { 0.0 } else { sum }
}

/// Share of photos whose greatest logit is that of their class.
pub fn top1(logits: &Logits, labels: &[usize]) -> f64 {
    let right = logits.iter().zip(labels).filter(|(logits, label)| ranked(logits)[0] == **label).count();
    right as f64 / labels.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_hand() {
        let exact = vec![vec![0.0, 0.0], vec![2.0, -1.0]];
        assert_eq!(
            Distance::between(&exact, &exact),
            Distance { divergence: 0.0, agreement: 1.0, error: 0.0 }
        );
        let other = vec![vec![0.0, 3f32.ln()], vec![2.0, -1.0]];
        // ½·ln(½ / ¼) + ½·ln(½ / ¾), over two photos.
        let expected = (0.5 * 2f64.ln() + 0.5 * (2f64 / 3.0).ln()) / 2.0;
        let distance = Distance::between(&exact, &other);
        assert!((distance.divergence - expected).abs() < 1e-6, "{distance:?}");
        // ln 3 between two logits where there was nothing, nothing where there were 3.
        let error = 3f64.ln().powi(2) / 2.0 / (9.0 / 2.0);
        assert!((distance.error - error).abs() < 1e-6, "{distance:?}");
        let shifted = exact.iter().map(|z| z.iter().map(|z| z + 5.0).collect()).collect();
        assert_eq!(Distance::between(&exact, &shifted).error, 0.0);
        let none = vec![vec![f32::NAN; 2]; 2];
        let far = Distance::between(&exact, &none);
        assert_eq!((far.divergence, far.error), (f64::INFINITY, f64::INFINITY));
        assert_eq!((distance.agreement, top1(&other, &[1, 0]), top1(&other, &[1, 1])), (0.5, 1.0, 0.5));
    }
}
