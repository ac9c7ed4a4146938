//! Fewer weights: unstructured pruning of the 1×1 convolutions.
//!
//! Of each such layer the weights of least magnitude become zero, ever more of them over the first steps (Zhu & Gupta, arXiv
//! 1710.01878), while the network learns from the photos under the one before. A weight that computes as zero goes on learning
//! and comes back when it has grown (dynamic pruning with feedback: Lin et al., arXiv 2006.07253). The file keeps what is not
//! zero, and where that is little enough so does what runs.

use std::{path::PathBuf, sync::Arc};

use penjing_runtime::{
    file::Model,
    graph::{Graph, Node},
    op::Op,
    tensor::{Tensor, Weights},
};
use rayon::prelude::*;
use serde::Serialize;

use super::{fold, fold::in_groups, tune, unsupported};
use crate::{
    Error, Result,
    data::{Dataset, Skipped},
    model,
    progress::Progress,
    threads::Threads,
    train::{learner::Projection, parameters::Parameters},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model that teaches; `None`: the one that is made sparse.
    pub before: Option<Model>,
    /// Share of the weights of every 1×1 convolution that become zero, 0..1.
    pub share: f64,
    /// How often every photo is seen; `None`: the fewer photos there are, the more often. 0: nothing is learnt.
    pub epochs: Option<u32>,
    /// AdamW's rate at its highest.
    pub rate: f32,
    /// Where a state is kept from which the training goes on.
    pub part: Option<PathBuf>,
    /// Whether a state of other training is thrown away.
    pub force: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { before: None, share: 0.8, epochs: None, rate: 3e-4, part: None, force: false }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Share of the weights of 1×1 convolutions that are zero.
    pub share: f64,
    /// Weights of 1×1 convolutions, and how many of them are not zero.
    pub weights: [u64; 2],
    /// How often every photo was seen.
    pub epochs: f64,
    /// Steps that were taken.
    pub steps: u64,
    /// How long the training took, in seconds.
    pub seconds: f64,
    /// Photos that could not be read, and why.
    pub skipped: Vec<Skipped>,
}

/// Photos that are seen in all by the training.
const LOOKS: f64 = 10_000.0;

/// When this share of the steps has been taken, no more weights become zero.
const GROWN: f64 = 0.7;

/// Makes a network of one in floats that has zeros among its weights.
///
/// # Errors
/// [`Error::Unsupported`] for a model that computes in integers already, has no 1×1 convolution, or cannot be trained;
/// [`Error::Data`] when there is nothing to learn from; [`Error::Model`] for the state of other work; [`Error::Interrupted`].
pub fn sparsify(
    model: &Model,
    data: &Dataset,
    options: &Options,
    seed: u64,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Model, Report)> {
    let model = &*model::in_floats(model)?;
    let teacher = &*model::in_floats(options.before.as_ref().unwrap_or(model))?;
    let (graph, weights) = fold::fold(&model.graph, &model.weights).map_err(unsupported)?;
    let (graph, weights) = fold::with_biases(&graph, &weights).map_err(unsupported)?;
    let zeros = Zeros::of(&graph, options.share);
    if zeros.layers.is_empty() {
        return Err(Error::Unsupported("it has no 1×1 convolution whose weights could become zero".into()));
    }
    let start = Parameters::new(&graph, &weights)?;
    let mut report =
        Report { share: 0.0, weights: [0; 2], epochs: 0.0, steps: 0, seconds: 0.0, skipped: Vec::new() };
    let mut weights = if options.epochs == Some(0) {
        zeros.project(&start, 1.0)
    } else {
        let zeros = Arc::new(zeros.clone());
        let work = tune::Work {
            name: "training with zeros",
            teacher,
            graph: &graph,
            start,
            projection: Some(zeros.clone()),
            epochs: options.epochs,
            looks: LOOKS,
            rate: options.rate,
            part: options.part.as_deref(),
            force: options.force,
            asked: vec![("--sparsify", options.share.to_string())],
            seed,
        };
        let tuned = tune::train(work, data, threads, progress)?;
        let Some(learnt) = tuned.weights() else {
            let why = tuned.trained.stopped.clone().unwrap_or_default();
            return Err(Error::Unsupported(format!("training with zeros came to no end: {why}")));
        };
        let weights = zeros.project(learnt, 1.0);
        (report.epochs, report.steps, report.seconds) = (tuned.recipe.epochs, tuned.steps, tuned.seconds);
        report.skipped = tuned.skipped;
        weights
    };
    for name in &zeros.layers {
        let Some(tensor) = weights.get_mut(name) else { continue };
        report.weights[0] += tensor.len() as u64;
        report.weights[1] += tensor.to_f32().iter().filter(|weight| **weight != 0.0).count() as u64;
        if let Some(sparse) = tensor.to_sparse() {
            *tensor = sparse;
        }
    }
    report.share = 1.0 - report.weights[1] as f64 / report.weights[0] as f64;
    let mut sparse = Model { graph, weights, ..model.clone() };
    sparse.provenance.recipe.push(report.describe());
    sparse.provenance.val_top1 = None;
    Ok((sparse, report))
}

impl Report {
    /// In words, for the model's provenance.
    fn describe(&self) -> String {
        format!(
            "sparse: {:.1} % of the weights of 1×1 convolutions zero, by magnitude; training of {} epochs ({} steps) under \
             the model before",
            100.0 * self.share,
            self.epochs,
            self.steps,
        )
    }
}

/// Zeros instead of the weights of least magnitude.
#[derive(Clone, Debug)]
struct Zeros {
    /// Names of the weights of which some become zero.
    layers: Vec<String>,
    /// How many of each, as a share, in the end.
    share: f64,
}

impl Zeros {
    fn of(graph: &Graph, share: f64) -> Self {
        let layers = graph.nodes().iter().filter(|node| pointwise(node));
        Zeros { layers: layers.map(|node| format!("{}.weight", node.name)).collect(), share }
    }

    /// The share when so much of the training is done: fast at first, when there is much that nobody misses.
    fn share_at(&self, done: f64) -> f64 {
        let left = (1.0 - done / GROWN).max(0.0);
        self.share * (1.0 - left.powi(3))
    }
}

fn pointwise(node: &Node) -> bool {
    matches!(&node.op, Op::Conv(conv) if conv.kernel == [1, 1]) && !in_groups(node)
}

impl Projection for Zeros {
    fn project(&self, learnt: &Parameters, done: f64) -> Weights {
        let share = self.share_at(done);
        let project = |parameter: &crate::train::parameters::Parameter| {
            let mut values = parameter.values.clone();
            if self.layers.contains(&parameter.name) {
                without_least(&mut values, share);
            }
            (parameter.name.clone(), Tensor::f32(&parameter.shape, values))
        };
        learnt.list.par_iter().map(project).collect::<Vec<_>>().into_iter().collect()
    }
}

/// Makes a share of the values zero, those of least magnitude; of equals the first.
fn without_least(values: &mut [f32], share: f64) {
    let count = (values.len() as f64 * share) as usize;
    if count == 0 {
        return;
    }
    let mut sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
    let (below, edge, _) = sizes.select_nth_unstable_by(count - 1, f32::total_cmp);
    let edge = *edge;
    let mut of_edge = 1 + below.iter().filter(|size| **size == edge).count();
    for value in values {
        let size = value.abs();
        if size == edge && of_edge > 0 {
            of_edge -= 1;
            *value = 0.0;
        } else if size < edge {
            *value = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::Conv;

    use super::*;
    use crate::zoo::{Arch, Config, fresh_weights};

    #[test]
    fn those_of_least_magnitude_go() {
        let mut values = [3.0, -1.0, 0.5, -4.0, 2.0, 1.0, 0.0, 1.0];
        without_least(&mut values, 0.25);
        assert_eq!(values, [3.0, -1.0, 0.0, -4.0, 2.0, 1.0, 0.0, 1.0]);
        // Three have magnitude 1: as many go as were asked for.
        without_least(&mut values, 0.5);
        assert_eq!(values, [3.0, 0.0, 0.0, -4.0, 2.0, 0.0, 0.0, 1.0]);
        without_least(&mut values, 0.0);
        assert_eq!(values.iter().filter(|value| **value == 0.0).count(), 4);
        without_least(&mut values, 1.0);
        assert_eq!(values, [0.0; 8]);
    }

    #[test]
    fn zeros_grow_to_their_share_and_spare_all_else() {
        let (arch, width) = Arch::named("shufflenet_v2_x0.5").unwrap();
        let graph = arch.graph(&Config { width, size: 32, ..arch.config(3) }).unwrap();
        let weights = fresh_weights(&graph, 1);
        let learnt = Parameters::new(&graph, &weights).unwrap();
        let zeros = Zeros::of(&graph, 0.8);
        assert!(zeros.layers.len() > 30);
        for (done, share) in [(0.0, 0.0), (0.35, 0.7), (GROWN, 0.8), (1.0, 0.8)] {
            assert!((zeros.share_at(done) - share).abs() < 1e-9, "{done}");
            for (name, tensor) in zeros.project(&learnt, done) {
                let (before, after) = (weights[&name].to_f32(), tensor.to_f32());
                if !zeros.layers.contains(&name) {
                    assert!(after == before, "{name}");
                    continue;
                }
                let gone = after.iter().filter(|value| **value == 0.0).count();
                assert_eq!(gone, (after.len() as f64 * zeros.share_at(done)) as usize, "{name}");
                assert!(after.iter().zip(&before).all(|(after, before)| *after == 0.0 || after == before));
            }
        }
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 4, 4, 8] }, &[]).unwrap();
        let x = graph.push("grouped", Op::Conv(Conv { groups: 2, ..Conv::new(8, 1, 1) }), &[x]).unwrap();
        graph.push("wide", Op::Conv(Conv::new(8, 3, 1)), &[x]).unwrap();
        assert!(Zeros::of(&graph, 0.8).layers.is_empty());
    }
}
