//! How a compressed network compares with the one that it was made of.

use penjing_runtime::{graph::Graph, pixels::Pixels, tensor::Weights};
use rayon::prelude::*;
use serde::Serialize;

use crate::{Result, classifier::ranked, runner::Runner, threads::Threads};

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
}

impl Distance {
    /// From `exact` to `other`, of the same photos.
    pub fn between(exact: &Logits, other: &Logits) -> Distance {
        let n = exact.len().max(1) as f64;
        let pairs = || exact.iter().zip(other);
        let same = pairs().filter(|(a, b)| ranked(a)[0] == ranked(b)[0]).count();
        let divergence: f64 = pairs().map(|(a, b)| divergence(a, b)).sum();
        Distance { divergence: divergence / n, agreement: same as f64 / n }
    }
}

/// Σ p·ln(p/q) of softmax(a) and softmax(b).
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let log_softmax = |z: &[f32]| -> Vec<f64> {
        let most = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = z.iter().map(|&v| f64::from(v - most).exp()).sum();
        z.iter().map(|&v| f64::from(v - most) - sum.ln()).collect()
    };
    let (p, q) = (log_softmax(a), log_softmax(b));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
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
        assert_eq!(Distance::between(&exact, &exact), Distance { divergence: 0.0, agreement: 1.0 });
        let other = vec![vec![0.0, 3f32.ln()], vec![2.0, -1.0]];
        // ½·ln(½ / ¼) + ½·ln(½ / ¾), over two photos.
        let expected = (0.5 * 2f64.ln() + 0.5 * (2f64 / 3.0).ln()) / 2.0;
        let distance = Distance::between(&exact, &other);
        assert!((distance.divergence - expected).abs() < 1e-6, "{distance:?}");
        assert_eq!((distance.agreement, top1(&other, &[1, 0]), top1(&other, &[1, 1])), (0.5, 1.0, 0.5));
    }
}
