//! Fewer weights: unstructured pruning of the 1×1 convolutions.
//!
//! Layer after layer, those weights become zero without which the layer's result, fitted again, changes least (optimal brain
//! surgeon: Hassibi and Stork, 1993; for one layer at a time as SparseGPT, arXiv 2301.00774), from what it reads in the network that is
//! sparse so far. The others are fitted by least squares, each output on its own. Then the network learns from the photos under
//! the one before, and what is zero stays zero. The file keeps what is not zero, and where that is little enough so does what runs.

use std::{collections::BTreeMap, sync::Arc};

use penjing_runtime::{
    file::Model,
    graph::{Graph, Node},
    op::Op,
    sparse::Sparse,
    tensor::{Tensor, Weights},
};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    Watched, add_unread, fold,
    fold::in_groups,
    judge::{self, Distance},
    reads::{self, FITTED, Reads, results, watch},
    tensors,
    tune::{self, Learning},
    unsupported,
};
use crate::{
    Error, Result,
    data::{Dataset, Skipped},
    model,
    progress::{Hushed, Progress},
    threads::Threads,
    train::{
        learner::Projection,
        parameters::{Parameter, Parameters},
    },
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model that teaches; `None`: the one that is made sparse.
    pub before: Option<Model>,
    /// Share of the weights of every 1×1 convolution that become zero, 0..1.
    pub share: f64,
    /// How the network learns.
    pub learning: Learning,
}

impl Default for Options {
    fn default() -> Self {
        Options { before: None, share: 0.8, learning: Learning::at(3e-4) }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Share of the weights of 1×1 convolutions that are zero.
    pub share: f64,
    /// Weights of 1×1 convolutions, and how many of them are not zero.
    pub weights: [u64; 2],
    /// How far the network was from the one before when it began to learn, on photos that were watched.
    pub start: Distance,
    /// How often every photo was seen.
    pub epochs: f64,
    /// Steps that were taken.
    pub steps: u64,
    /// How long the training took, in seconds.
    pub seconds: f64,
    /// Photos that could not be read, and why.
    pub skipped: Vec<Skipped>,
}

/// Photos that are seen in all by the training: more than after a pruning, whose layers keep all that their channels can say.
const LOOKS: f64 = 12_000.0;
/// What leaves the training out.
const WITHOUT: &str = "--sparsify-epochs 0";

/// Makes a network of one in floats that has zeros among its weights. Photos of the training part are watched, `photos` of them,
/// and learnt from.
///
/// # Errors
/// [`Error::Unsupported`] for a model that computes in integers already, has no 1×1 convolution of which zeros can be left out, or
/// cannot be trained;
/// [`Error::Data`] for photos that are too few, of one class, or of classes that the model does not know; [`Error::Model`] for
/// the state of other work; [`Error::Interrupted`].
pub fn sparsify(
    model: &Model,
    data: &Dataset,
    photos: usize,
    options: &Options,
    seed: u64,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Model, Report)> {
    let model = &*model::in_floats(model)?;
    let teacher = &*model::in_floats(options.before.as_ref().unwrap_or(model))?;
    if options.learning.epochs != Some(0.0) {
        tune::require_square(&model.pixels, WITHOUT)?;
    }
    let (graph, weights) = fold::fold(&model.graph, &model.weights).map_err(unsupported)?;
    let (graph, weights) = fold::with_biases(&graph, &weights).map_err(unsupported)?;
    let layers = layers(&graph);
    let shapes: Vec<_> = layers.iter().map(|name| &weights[&format!("{name}.weight")].shape).collect();
    if shapes.is_empty() {
        return Err(Error::Unsupported("it has no 1×1 convolution whose weights could become zero".into()));
    }
    if !shapes.into_iter().any(|shape| Sparse::fit(shape)) {
        let what = "none of its 1×1 convolutions reads a multiple of 8 channels, so that no file could leave zeros out; --prune makes \
                    such a network smaller";
        return Err(Error::Unsupported(what.into()));
    }
    let watching = super::Options { photos, seed, ..Default::default() };
    let (Watched { inputs, .. }, mut skipped) = tensors(model, data, &watching, threads, progress)?;
    let work = Work {
        graph: &graph,
        weights: &weights,
        inputs: &inputs[..inputs.len().min(FITTED)],
        threads,
        progress,
    };
    let mut sparse = work.without(&layers, options.share)?;
    let logits = |weights: &Weights| judge::logits(&graph, weights, &model.pixels, work.inputs, threads);
    let start = Distance::between(&logits(&weights)?, &logits(&sparse)?);
    let (mut epochs, mut steps, mut seconds) = (0.0, 0, 0.0);
    if options.learning.epochs != Some(0.0) {
        let start = Parameters::new(&graph, &sparse)?;
        let zeros = Arc::new(Zeros::of(&start, &layers));
        let work = tune::Work {
            name: "training with zeros",
            teacher,
            pixels: &model.pixels,
            graph: &graph,
            start,
            projection: Some(zeros.clone()),
            how: &options.learning,
            looks: LOOKS,
            epochs: "--sparsify-epochs",
            without: WITHOUT,
            asked: vec![("--sparsify", options.share.to_string()), ("--photos", photos.to_string())],
            seed,
        };
        let tuned = tune::train(work, data, threads, progress)?;
        sparse = zeros.project(tuned.learnt()?, 1.0);
        (epochs, steps, seconds) = (tuned.recipe.epochs, tuned.steps, tuned.seconds);
        add_unread(&mut skipped, tuned.skipped);
    }
    let mut counts = [0; 2];
    for name in layers {
        let Some(tensor) = sparse.get_mut(&format!("{name}.weight")) else { continue };
        counts[0] += tensor.len() as u64;
        counts[1] += tensor.to_f32().iter().filter(|weight| **weight != 0.0).count() as u64;
        if let Some(packed) = tensor.to_sparse() {
            *tensor = packed;
        }
    }
    let share = 1.0 - counts[1] as f64 / counts[0] as f64;
    let report = Report { share, weights: counts, start, epochs, steps, seconds, skipped };
    let mut sparse = Model { graph, weights: sparse, ..model.clone() };
    sparse.provenance.recipe.push(report.describe());
    sparse.provenance.val_top1 = None;
    Ok((sparse, report))
}

impl Report {
    /// In words, for the model's provenance.
    fn describe(&self) -> String {
        format!(
            "sparse: {:.1} % of the weights of 1×1 convolutions zero, by what results lose; training of {} epochs ({} steps) under \
             the model before",
            100.0 * self.share,
            self.epochs,
            self.steps,
        )
    }
}

/// What zeros are chosen by.
struct Work<'a> {
    /// BatchNorm drawn in, a bias in every layer.
    graph: &'a Graph,
    weights: &'a Weights,
    inputs: &'a [Vec<f32>],
    threads: &'a Threads,
    progress: &'a dyn Progress,
}

/// The names of the 1×1 convolutions.
fn layers(graph: &Graph) -> Vec<String> {
    let is = |node: &&Node| matches!(&node.op, Op::Conv(conv) if conv.kernel == [1, 1]) && !in_groups(node);
    graph.nodes().iter().filter(is).map(|node| node.name.clone()).collect()
}

impl Work<'_> {
    /// The weights with a share of zeros in each of these layers, the others fitted.
    fn without(&self, layers: &[String], share: f64) -> Result<Weights> {
        let places = reads::places(self.weights, layers);
        let (threads, progress) = (self.threads, self.progress);
        let before = watch(self.graph, self.weights, layers, self.inputs, places, threads, progress)?;
        let mut sparse = self.weights.clone();
        progress.begin("choosing the weights that stay", layers.len());
        for name in layers {
            let own = std::slice::from_ref(name);
            let mut now = watch(self.graph, &sparse, own, self.inputs, places, threads, &Hushed(progress))?;
            let [weight, bias] = ["weight", "bias"].map(|suffix| format!("{name}.{suffix}"));
            let (Some(x), Some(read)) = (now.remove(name), before.get(name)) else { continue };
            let (mut own, mut shift) = (self.weights[&weight].to_f32(), self.weights[&bias].to_f32());
            let y = results(&own, &shift, read);
            threads.install(|| surgeon(&mut own, &mut shift, x, y, share, progress));
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            for (name, values) in [(weight, own), (bias, shift)] {
                let shape = sparse[&name].shape.clone();
                sparse.insert(name, Tensor::f32(&shape, values));
            }
            progress.advance(1);
        }
        progress.end();
        Ok(sparse)
    }
}

/// Makes a share of the weights `[outputs][each]` zero, those without which `y` `[places][outputs]` changes least as what is made of
/// `x` `[places][each]`, and fits the others and the biases to it.
/// What it leaves when `progress` is cancelled is of no use.
fn surgeon(
    weights: &mut [f32],
    biases: &mut [f32],
    mut x: Reads,
    mut y: Vec<f32>,
    share: f64,
    progress: &dyn Progress,
) {
    let outputs = biases.len();
    let each = weights.len() / outputs;
    let (mean_x, mean_y) = (reads::centre(&mut x, each), reads::centre(&mut y, outputs));
    let along = reads::products(&y, &x, outputs, each);
    let mut h = reads::correlations(&x, each);
    // It holds weights to what they were, where x tells little.
    let held = reads::damp(&mut h, each);
    let target: Vec<f64> =
        along.iter().zip(weights.iter()).map(|(along, w)| f64::from(*along) + held * f64::from(*w)).collect();
    // All weights fitted: w = H⁻¹·Xᵀ·y, with H⁻¹ = Uᵀ·U.
    let u = reads::inverse_factor(h.clone(), each);
    let fitted = |target: &[f64]| {
        let mut w = vec![0.0; each];
        for (i, row) in u.chunks_exact(each).enumerate() {
            let v: f64 = row[i..].iter().zip(&target[i..]).map(|(u, t)| u * t).sum();
            w[i..].iter_mut().zip(&row[i..]).for_each(|(w, u)| *w += u * v);
        }
        w
    };
    let whole: Vec<f64> = target.par_chunks_exact(each).flat_map_iter(fitted).collect();
    // What the squared error grows by without a weight, the others of its output fitted again: w² ÷ [H⁻¹]ⱼⱼ.
    let inverse: Vec<f64> =
        (0..each).map(|j| u.chunks_exact(each).take(j + 1).map(|row| row[j] * row[j]).sum()).collect();
    let losses: Vec<f64> = whole.iter().enumerate().map(|(at, w)| w * w / inverse[at % each]).collect();
    let gone = least(&losses, (losses.len() as f64 * share) as usize);
    let rows = weights.par_chunks_exact_mut(each).zip(gone.par_chunks_exact(each));
    rows.zip(target.par_chunks_exact(each)).for_each(|((w, gone), target)| {
        if progress.cancelled() {
            return;
        }
        let stay: Vec<usize> = (0..each).filter(|&at| !gone[at]).collect();
        w.fill(0.0);
        for (&at, value) in stay.iter().zip(solved(&h, each, &stay, target)) {
            w[at] = value as f32;
        }
    });
    for ((row, bias), mean) in weights.chunks_exact(each).zip(biases).zip(mean_y) {
        let moved: f64 = row.iter().zip(&mean_x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        *bias = (f64::from(mean) - moved) as f32;
    }
}

/// The solution of the rows and columns `stay` of `h`, `each` by `each`.
fn solved(h: &[f64], each: usize, stay: &[usize], target: &[f64]) -> Vec<f64> {
    let k = stay.len();
    if k == 0 {
        return Vec::new();
    }
    let part: Vec<f64> = stay.iter().flat_map(|i| stay.iter().map(move |j| h[i * each + j])).collect();
    let u = reads::inverse_factor(part, k);
    let mut w = vec![0.0; k];
    for (i, row) in u.chunks_exact(k).enumerate() {
        let v: f64 = row[i..].iter().zip(&stay[i..]).map(|(u, at)| u * target[*at]).sum();
        w[i..].iter_mut().zip(&row[i..]).for_each(|(w, u)| *w += u * v);
    }
    w
}

/// The `count` places of the least values; of equals the first.
fn least(values: &[f64], count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    if count < order.len() {
        order.select_nth_unstable_by(count, |a, b| values[*a].total_cmp(&values[*b]).then(a.cmp(b)));
    }
    let mut gone = vec![false; values.len()];
    order[..count].iter().for_each(|at| gone[*at] = true);
    gone
}

/// Weights that are zero and stay so.
#[derive(Clone, Debug)]
struct Zeros {
    /// Of each weight of some layers, whether it stays.
    stay: BTreeMap<String, Vec<bool>>,
}

impl Zeros {
    fn of(start: &Parameters, layers: &[String]) -> Self {
        let names: Vec<String> = layers.iter().map(|name| format!("{name}.weight")).collect();
        let some = start.list.iter().filter(|parameter| names.contains(&parameter.name));
        let stay = |values: &[f32]| values.iter().map(|value| *value != 0.0).collect();
        Zeros { stay: some.map(|own| (own.name.clone(), stay(&own.values))).collect() }
    }
}

impl Projection for Zeros {
    fn project(&self, learnt: &Parameters, _: f64) -> Weights {
        let project = |parameter: &Parameter| {
            let mut values = parameter.values.clone();
            if let Some(stay) = self.stay.get(&parameter.name) {
                values.iter_mut().zip(stay).filter(|(_, stay)| !**stay).for_each(|(value, _)| *value = 0.0);
            }
            (parameter.name.clone(), Tensor::f32(&parameter.shape, values))
        };
        learnt.list.iter().map(project).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{progress::Quiet, random::SplitMix64};

    #[test]
    fn what_others_tell_goes_first_and_they_take_its_part() {
        let mut random = SplitMix64::new(4);
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            let [a, b, c] = [0; 3].map(|_| random.normal() as f32);
            // The third goes along with the first.
            let third = a + 0.05 * c;
            x.extend([a, b, third]);
            y.extend([0.6 * a + 0.5 * b + 0.7 * third + 2.0, 3.0 * b]);
        }
        let (mut weights, mut biases) = (vec![0.6, 0.5, 0.7, 0.0, 3.0, 0.0], vec![2.0, 0.0]);
        surgeon(&mut weights, &mut biases, x, y, 0.5, &Quiet);
        // The second weight is the least of the first output, and nobody can take its part.
        let exact = [0.0, 0.5, 1.3, 0.0, 3.0, 0.0];
        assert!(weights.iter().zip(exact).all(|(w, exact)| (w - exact).abs() < 0.02), "{weights:?}");
        assert!((weights[0], weights[3], weights[5]) == (0.0, 0.0, 0.0));
        assert!((biases[0] - 2.0).abs() < 0.02 && biases[1].abs() < 0.02, "{biases:?}");
    }

    #[test]
    fn what_is_left_of_an_output_that_reads_nothing_is_its_bias() {
        let (mut weights, mut biases) = (vec![1.0, 2.0, 1.0, 2.0], vec![0.0, 0.0]);
        surgeon(&mut weights, &mut biases, vec![1.0; 40], [5.0, 7.0].repeat(20), 0.5, &Quiet);
        assert_eq!((weights, biases), (vec![0.0, 2.0, 0.0, 2.0], vec![3.0, 5.0]));
    }

    #[test]
    fn an_output_may_lose_all_its_weights() {
        let mut random = SplitMix64::new(4);
        let x: Vec<f32> = (0..200).map(|_| random.normal() as f32).collect();
        let y = x.chunks_exact(2).flat_map(|x| [2.0 * x[0] - x[1], 0.1 * x[1] + 4.0]).collect();
        let (mut weights, mut biases) = (vec![2.0, -1.0, 0.0, 0.1], vec![0.0, 4.0]);
        surgeon(&mut weights, &mut biases, x, y, 0.5, &Quiet);
        assert!((weights[0] - 2.0).abs() < 0.05 && weights[2..] == [0.0; 2], "{weights:?}");
        assert!((biases[1] - 4.0).abs() < 0.05, "{biases:?}");
    }

    #[test]
    fn as_many_go_as_are_asked_for() {
        let values = [3.0, 1.0, 0.5, 4.0, 1.0, 1.0];
        let gone = |count| -> Vec<usize> {
            least(&values, count).iter().enumerate().filter(|(_, gone)| **gone).map(|(at, _)| at).collect()
        };
        assert_eq!([gone(0), gone(1), gone(3)], [vec![], vec![2], vec![1, 2, 4]]);
        assert_eq!(gone(6).len(), 6);
    }

    #[test]
    fn zeros_stay_and_all_else_is_free() {
        let parameter = |name: &str, values: &[f32]| Parameter {
            name: name.into(),
            shape: vec![values.len()],
            kind: crate::train::parameters::Kind::Weight,
            values: values.to_vec(),
        };
        let list = |a: &[f32], b: &[f32]| Parameters {
            list: vec![parameter("a.weight", a), parameter("b.weight", b)],
        };
        let zeros = Zeros::of(&list(&[0.0, 2.0, 0.0], &[0.0, 1.0]), &["a".into()]);
        let weights = zeros.project(&list(&[5.0, 6.0, 7.0], &[8.0, 9.0]), 0.3);
        assert_eq!(weights["a.weight"].to_f32(), [0.0, 6.0, 0.0]);
        assert_eq!(weights["b.weight"].to_f32(), [8.0, 9.0]);
    }
}
