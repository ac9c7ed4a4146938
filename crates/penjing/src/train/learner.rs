//! One step after another: gradients of a batch, then the optimizer.

use std::{fmt::Debug, ops::Range, sync::Arc};

use penjing_runtime::{graph::Graph, tensor::Weights};
use rayon::prelude::*;

use super::{
    loss,
    optimizer::{Optimizer, Rates, Rule, layer_rates},
    parameters::{Gradients, Parameters},
    tape::{Policy, Statistics, Tape},
};
use crate::{Result, random::SplitMix64};

/// What a step depends on, beside weights and photos.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// The optimizer.
    pub rule: Rule,
    /// Weight decay, not on BatchNorm and biases.
    pub decay: f32,
    /// Greatest norm of all gradients together.
    pub clip: Option<f32>,
    /// Learning rates by group of layers.
    pub rates: Rates,
    /// What is learnt, and which statistics normalize.
    pub policy: Policy,
    /// How fast running statistics follow the batches'.
    pub momentum: f32,
}

/// The mean loss of some images from the network's results for them; writes its gradient.
pub type Loss<'a> = dyn Fn(Range<usize>, &[f32], &mut [f32]) -> f64 + 'a;

/// Makes the weights that a network computes with of those that are learnt: some of them integers, or zeros. Gradients go
/// straight through to the latter (Jacob et al., arXiv 1712.05877).
pub trait Projection: Debug + Send + Sync {
    /// The weights of the learnt network, or of one that begins with it, when a share `done` of all steps has been taken; 1:
    /// those that it will have.
    fn project(&self, learnt: &Parameters, done: f64) -> Weights;
}

/// A network that learns.
#[derive(Debug)]
pub struct Learner {
    tape: Tape,
    /// The weights as they are.
    pub parameters: Parameters,
    gradients: Gradients,
    /// The optimizer with what it remembers.
    pub optimizer: Optimizer,
    method: Method,
    /// What is made of the weights before they are computed with, if anything.
    pub projection: Option<Arc<dyn Projection>>,
    /// Which share of all steps has been taken.
    pub done: f64,
    /// Values of the network's result for an image.
    outputs: usize,
    slope: Vec<f32>,
}

impl Learner {
    /// `graph` has the number of images that go through it at once in its input shape and ends with what the loss is of,
    /// mostly the logits.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] when a layer cannot be trained.
    pub fn new(graph: &Graph, parameters: Parameters, method: &Method) -> Result<Self> {
        let tape = Tape::new(graph, &method.policy)?;
        let gradients = tape.gradients(&parameters);
        let mut rates = layer_rates(graph, &parameters, &method.rates);
        for (rate, gradient) in rates.iter_mut().zip(&gradients) {
            if gradient.is_empty() {
                *rate = 0.0;
            }
        }
        let optimizer = Optimizer::new(method.rule, method.decay, method.clip, rates, &parameters);
        let outputs = graph.output().map_or(0, |output| graph.shape(output)[3]);
        let slope = vec![0.0; tape.batch() * outputs];
        let (method, projection, done) = (*method, None, 0.0);
        Ok(Learner { tape, parameters, gradients, optimizer, method, projection, done, outputs, slope })
    }

    /// The same network for inputs of another size; it goes on where it was.
    ///
    /// # Errors
    /// As [`Learner::new`].
    pub fn resized(self, graph: &Graph) -> Result<Self> {
        let Learner { tape, method, .. } = self;
        // Two of them at once might not fit into memory.
        drop(tape);
        let tape = Tape::new(graph, &method.policy)?;
        Ok(Learner { tape, ..self })
    }

    /// One step of cross-entropy with `targets` `[images][classes]`; all else as [`step_by`](Self::step_by).
    ///
    /// # Panics
    /// If the lengths are of another network.
    pub fn step(&mut self, inputs: &[f32], targets: &[f32], seed: u64, rate: f32) -> f64 {
        let classes = self.outputs;
        assert!(targets.len().is_multiple_of(classes), "targets are [images][classes]");
        let loss = |images: Range<usize>, logits: &[f32], slope: &mut [f32]| {
            let targets = &targets[images.start * classes..images.end * classes];
            loss::cross_entropy(classes, logits, targets, slope)
        };
        self.step_by(inputs, targets.len() / classes, &loss, seed, rate)
    }

    /// One step: `inputs` `[images][H,W,C]` of a whole number of the tape's batches, `seed` of the dropout, `rate` times
    /// the method's rates. `loss` gives the mean loss of some of the images, and its gradient, from the network's results
    /// for them. Gives the loss, or the gradients' norm, when they are not finite; the weights are then as they were.
    ///
    /// # Panics
    /// If the lengths are of another network.
    pub fn step_by(&mut self, inputs: &[f32], images: usize, loss: &Loss, seed: u64, rate: f32) -> f64 {
        let micro = self.tape.batch();
        let micros = images / micro;
        assert_eq!(images, micros * micro, "whole batches of the tape");
        let projected = self
            .projection
            .as_ref()
            .map(|projection| self.parameters.with(&projection.project(&self.parameters, self.done)));
        let computed_with = projected.as_ref().unwrap_or(&self.parameters);
        self.tape.prepare(computed_with);
        self.gradients.par_iter_mut().for_each(|gradient| gradient.fill(0.0));
        let mut total = 0.0;
        let mut seeds = SplitMix64::new(seed);
        for (part, inputs) in inputs.chunks_exact(inputs.len() / micros).enumerate() {
            let seed = seeds.next_u64();
            self.tape.input().copy_from_slice(inputs);
            let results = self.tape.forward(Some(seed));
            total += loss(part * micro..(part + 1) * micro, results, &mut self.slope);
            self.slope.iter_mut().for_each(|slope| *slope /= micros as f32);
            self.tape.backward(&self.slope, Some(seed), &mut self.gradients);
        }
        let loss = total / micros as f64;
        if !loss.is_finite() {
            return loss;
        }
        self.tape.finish(computed_with, &mut self.gradients);
        let norm = self.optimizer.update(&mut self.parameters, &mut self.gradients, rate);
        if !norm.is_finite() {
            return norm;
        }
        if self.method.policy.statistics == Statistics::Batch {
            self.tape.follow_statistics(&mut self.parameters, self.method.momentum);
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::Op;

    use super::*;
    use crate::{
        threads::Threads,
        train::parameters::Kind,
        zoo::{Arch, Config, fresh_weights},
    };

    const SIZE: usize = 32;
    const CLASSES: usize = 3;

    fn graph(batch: usize) -> Graph {
        let (arch, width) = Arch::named("mobilenet_v2_x0.35").unwrap();
        let config = Config { width, size: SIZE, ..arch.config(CLASSES) };
        arch.graph(&config).unwrap().with_input([batch, SIZE, SIZE, 3]).unwrap()
    }

    fn method(policy: Policy) -> Method {
        Method {
            rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            decay: 0.02,
            clip: Some(1.0),
            rates: Rates { head: 1e-3, last: 1e-3, middle: 1e-3, first: 1e-3 },
            policy,
            momentum: 0.1,
        }
    }

    /// The weights before and after some steps on `batch` photos, `at_once` of them going through together.
    fn learnt(policy: Policy, batch: usize, at_once: usize, threads: usize) -> [Parameters; 2] {
        let graph = graph(at_once);
        let start = Parameters::new(&graph, &fresh_weights(&graph, 1)).unwrap();
        let mut learner = Learner::new(&graph, start.clone(), &method(policy)).unwrap();
        let mut random = SplitMix64::new(5);
        let inputs: Vec<f32> =
            (0..batch * SIZE * SIZE * 3).map(|_| random.uniform() as f32 * 2.0 - 1.0).collect();
        let mut targets = vec![0.0; batch * CLASSES];
        for (image, row) in targets.chunks_exact_mut(CLASSES).enumerate() {
            loss::smoothed(image % CLASSES, 0.0, row);
        }
        let threads = Threads::new(Some(threads)).unwrap();
        threads.install(|| {
            for step in 0..4 {
                assert!(learner.step(&inputs, &targets, step, 1.0).is_finite());
            }
        });
        [start, learner.parameters]
    }

    #[test]
    fn what_is_frozen_keeps_every_bit() {
        let whole = graph(1);
        let first = whole.nodes().iter().position(|node| node.name.starts_with("blocks.9")).unwrap();
        let learnt_layer = |name: &str| {
            let layer = name.rsplit_once('.').unwrap().0;
            whole.nodes().iter().position(|node| node.name == layer).unwrap() >= first
        };
        for statistics in [Statistics::Frozen, Statistics::Batch] {
            let [before, after] = learnt(Policy { first, ..Policy::whole(statistics) }, 4, 4, 1);
            for (before, after) in before.list.iter().zip(&after.list) {
                let moves = learnt_layer(&before.name)
                    && (before.kind.is_learnt() || statistics == Statistics::Batch);
                assert_eq!(before.values != after.values, moves, "{statistics:?} {}", before.name);
            }
        }
    }

    #[test]
    fn parts_of_a_batch_teach_what_it_teaches_at_once() {
        let rule = Rule::Sgd { momentum: 0.0, nesterov: false };
        let sgd = Method { rule, clip: None, ..method(Policy::whole(Statistics::Frozen)) };
        let weights = |at_once: usize| {
            let mut graph = Graph::default();
            let image = graph.push("image", Op::Input { shape: [at_once, 1, 1, 5] }, &[]).unwrap();
            graph.push("head", Op::Linear { out_features: CLASSES, bias: true }, &[image]).unwrap();
            let start = Parameters::new(&graph, &fresh_weights(&graph, 1)).unwrap();
            let mut learner = Learner::new(&graph, start, &sgd).unwrap();
            let inputs: Vec<f32> = (0..6 * 5).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut targets = vec![0.0; 6 * CLASSES];
            for (image, row) in targets.chunks_exact_mut(CLASSES).enumerate() {
                loss::smoothed(image % 2, 0.0, row);
            }
            learner.step(&inputs, &targets, 0, 1.0);
            learner.parameters
        };
        let [whole, parts] = [6, 2].map(weights);
        for (whole, parts) in whole.list.iter().zip(&parts.list) {
            for (a, b) in whole.values.iter().zip(&parts.values) {
                assert!((a - b).abs() < 1e-6, "{}: {a} {b}", whole.name);
            }
        }
    }

    #[test]
    fn a_photo_alone_teaches_something() {
        for statistics in [Statistics::Frozen, Statistics::Batch] {
            let [before, after] = learnt(Policy::whole(statistics), 1, 1, 2);
            let moved = before
                .list
                .iter()
                .zip(&after.list)
                .filter(|(a, b)| a.kind == Kind::Weight && a.values != b.values);
            assert!(moved.count() > 10, "{statistics:?}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        for (statistics, at_once) in [(Statistics::Frozen, 2), (Statistics::Batch, 6)] {
            let [one, two, five] =
                [1, 2, 5].map(|threads| learnt(Policy::whole(statistics), 6, at_once, threads));
            assert!(one == two && one == five, "{statistics:?}");
        }
    }
}
