//! Rounding with feedback: what the rounding of one weight moves, the weights behind it take back, as far as what they
//! multiply goes along with what it multiplies (GPTQ, Frantar et al., arXiv 2210.17323).

use std::{collections::BTreeMap, ops::Range};

use half::f16;
use penjing_runtime::{
    graph::Graph,
    nibbles::{self, GROUP, Nibbles},
    tensor::{Data, Tensor, Weights},
};
use rayon::prelude::*;

use super::{
    fold,
    reads::{Reads, correlations, damped_inverse_factor, watch},
    unsupported,
};
use crate::{Error, Result, progress::Progress, threads::Threads};

/// Most places that are looked at, over all photos.
const PLACES: usize = 2048;
/// Weights of an output that feedback reaches, whole groups: what it takes grows with their square, and time with their cube.
const WIDEST: usize = 64 * GROUP;

/// The weights of these layers of a network in 4 bits, by name; convolutions among them are of one group.
///
/// # Errors
/// [`Error::Unsupported`] when the network cannot be run; [`Error::Interrupted`].
pub fn four_bits(
    graph: &Graph,
    weights: &Weights,
    names: &[String],
    inputs: &[Vec<f32>],
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Tensor>> {
    let (folded, drawn_in) = fold::fold(graph, weights).map_err(unsupported)?;
    let reads = watch(&folded, &drawn_in, names, inputs, PLACES, threads, progress)?;
    progress.begin("rounding", reads.len());
    let round = |(name, rows): (&String, &Reads)| -> Option<(String, Tensor)> {
        let tensor = (!progress.cancelled()).then(|| weights.get(&format!("{name}.weight")))??;
        let each = tensor.shape[1..].iter().product();
        let nibbles = rounded(&tensor.to_f32(), rows, each, WIDEST);
        progress.advance(1);
        Some((name.clone(), Tensor { shape: tensor.shape.clone(), data: Data::I4(nibbles) }))
    };
    let rounded: Vec<Option<_>> = threads.install(|| reads.par_iter().map(round).collect());
    progress.end();
    rounded.into_iter().collect::<Option<_>>().ok_or(Error::Interrupted)
}

/// The upper triangle `U` with `Uᵀ·U = (Xᵀ·X)⁻¹`, of damped correlations of what is read: `X` are these columns of rows of
/// `each` values.
fn factor(x: &[f32], each: usize, columns: Range<usize>) -> Vec<f64> {
    let k = columns.len();
    let x: Vec<f32> = x.chunks_exact(each).flat_map(|row| &row[columns.clone()]).copied().collect();
    damped_inverse_factor(correlations(&x, k), k)
}

/// Weights `[outputs][each]` in 4 bits, each rounded with what those before it left, along runs of at most `widest` of them.
fn rounded(weights: &[f32], reads: &[f32], each: usize, widest: usize) -> Nibbles {
    let groups = Nibbles::row_groups(each);
    let mut integers = vec![0; weights.len()];
    let mut scales = vec![f16::ZERO; weights.len() / each * groups];
    for start in (0..each).step_by(widest) {
        let run = start..each.min(start + widest);
        let u = factor(reads, each, run.clone());
        let u: Vec<f32> = u.into_iter().map(|v| v as f32).collect();
        let outputs = integers.chunks_exact_mut(each).zip(scales.chunks_exact_mut(groups));
        for (output, (integers, scales)) in weights.chunks_exact(each).zip(outputs) {
            feed_back(&output[run.clone()], &u, &mut integers[run.clone()], &mut scales[start / GROUP..]);
        }
    }
    Nibbles::pack(&integers, scales, each)
}

/// One run of an output.
fn feed_back(weights: &[f32], u: &[f32], integers: &mut [i8], scales: &mut [f16]) {
    let mut left = weights.to_vec();
    for (at, row) in u.chunks_exact(weights.len()).enumerate() {
        let scale = &mut scales[at / GROUP];
        if at % GROUP == 0 {
            *scale = nibbles::best_scale(&left[at..weights.len().min(at + GROUP)]);
        }
        let scale = scale.to_f32();
        integers[at] = nibbles::rounded(left[at], scale);
        let moved = (left[at] - f32::from(integers[at]) * scale) / row[at];
        left[at + 1..].iter_mut().zip(&row[at + 1..]).for_each(|(w, u)| *w -= moved * u);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compress::reads::DAMPING, random::SplitMix64};

    const K: usize = 40;

    /// Rows whose values go along with each other, as those of a network do.
    fn reads(rows: usize) -> Reads {
        let mut random = SplitMix64::new(3);
        let mut x = Vec::new();
        for _ in 0..rows {
            let common = random.uniform() as f32;
            x.extend((0..K).map(|_| (common + 0.3 * random.uniform() as f32 - 0.2).max(0.0)));
        }
        x
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let (x, u) = (reads(200), factor(&reads(200), K, 0..K));
        assert!((0..K).all(|i| u[i * K..][..i].iter().all(|&v| v == 0.0)), "an upper triangle");
        let mut h = vec![0.0; K * K];
        for x in x.chunks_exact(K) {
            (0..K * K).for_each(|at| h[at] += f64::from(x[at / K]) * f64::from(x[at % K]));
        }
        let mean = (0..K).map(|i| h[i * K + i]).sum::<f64>() / K as f64;
        (0..K).for_each(|i| h[i * K + i] += DAMPING * mean);
        // Uᵀ·U·H is the identity.
        let inverse = |i: usize, j: usize| (0..K).map(|m| u[m * K + i] * u[m * K + j]).sum::<f64>();
        for i in 0..K {
            for j in 0..K {
                let product: f64 = (0..K).map(|m| inverse(i, m) * h[m * K + j]).sum();
                assert!((product - f64::from(i == j)).abs() < 1e-4, "{i} {j}: {product}");
            }
        }
    }

    #[test]
    fn feedback_brings_results_nearer() {
        let x = reads(200);
        let mut random = SplitMix64::new(5);
        let weights: Vec<f32> = (0..4 * K).map(|_| random.uniform() as f32 - 0.5).collect();
        let off = |nibbles: &Nibbles| -> f32 {
            let moved: Vec<f32> = nibbles.to_f32().iter().zip(&weights).map(|(a, b)| a - b).collect();
            let square = |(w, x): (&[f32], &[f32])| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>().powi(2);
            moved.chunks_exact(K).flat_map(|w| x.chunks_exact(K).map(move |x| square((w, x)))).sum()
        };
        let [plain, fed] = [Nibbles::of(&weights, K), rounded(&weights, &x, K, WIDEST)];
        assert!(off(&fed) < 0.3 * off(&plain), "{} {}", off(&fed), off(&plain));
        // Where nothing is read nothing is fed back.
        assert!(rounded(&weights, &[0.0; 5 * K], K, WIDEST) == plain);
        // Runs of an output stand for themselves.
        let columns = |values: &[f32], columns: Range<usize>| -> Vec<f32> {
            values.chunks_exact(K).flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        let halves = [0..GROUP, GROUP..K].map(|run| {
            let (weights, x) = (columns(&weights, run.clone()), columns(&x, run.clone()));
            rounded(&weights, &x, run.len(), WIDEST).to_f32()
        });
        let both = rounded(&weights, &x, K, GROUP).to_f32();
        assert_eq!([0..GROUP, GROUP..K].map(|run| columns(&both, run)), halves);
    }
}
