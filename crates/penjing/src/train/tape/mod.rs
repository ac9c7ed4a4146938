//! A tape over a [`Graph`]: the network forward as training sees it, and the gradients of its weights.
//!
//! Convolution, BatchNorm and activation are one unit. Under frozen statistics the normalization is folded into the
//! weights, so that the forward half computes what the lowered plan computes. Under the batch's own statistics only the
//! convolution's raw result is stored; whoever reads it normalizes and activates on the way, block by block, so that
//! the normalized values never stand in memory. What takes much memory and little time is not kept for the backward half
//! but computed again.
//!
//! A result that the graph keeps in 8 bits is rounded to its grid (`round`) before anybody reads it, as the runtime
//! does; nothing that follows is drawn into its unit.
//!
//! The work is cut into pieces by shapes alone and their sums are merged in piece order: the result is the same, bit
//! for bit, for any number of threads. All buffers stand in one arena whose size is known before anything runs.

mod bands;
mod layer;
mod norm;
mod plan;
mod round;
mod simple;

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use penjing_kernels::{Isa, batch_norm::Lazy};
use penjing_runtime::{Act, aligned::Aligned, graph::Graph};
use rayon::prelude::*;

use self::{
    layer::LayerState,
    norm::NormState,
    plan::{Layer, TapePlan, Value, Work},
};
use super::parameters::{Gradients, Parameters};
use crate::{Error, Result};

/// Which statistics normalize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// The running ones, which stay as they are; γ and β are learnt.
    Frozen,
    /// The batch's own (Ioffe and Szegedy, arXiv 1502.03167); the running ones follow.
    Batch,
}

/// What is learnt, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which statistics normalize in the layers that are learnt.
    pub statistics: Statistics,
    /// Place of the first node that is learnt; those before it keep weights and statistics.
    pub first: usize,
    /// Whether memory counts more than time: what can be computed again for the backward half is not kept for it, however
    /// long it takes. The result is the same, bit for bit.
    pub frugal: bool,
}

impl Policy {
    /// Everything is learnt.
    pub fn whole(statistics: Statistics) -> Self {
        Policy { statistics, first: 0, frugal: false }
    }
}

/// Forward and backward through a graph, for batches of one size.
#[derive(Debug)]
pub struct Tape {
    plan: TapePlan,
    states: Vec<State>,
    arena: Aligned,
    scratch: Scratch,
    isa: Isa,
    batch: usize,
}

/// What changes from step to step.
#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Layer(Box<LayerState>),
    Norm(Box<NormState>),
}

impl Tape {
    /// A tape for a graph whose input shape holds the batch size. Its work runs on rayon's current pool.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the graph is empty or a layer does not fit.
    pub fn new(graph: &Graph, policy: &Policy) -> Result<Self> {
        let plan = Self::planned(graph, policy)?;
        let states = plan
            .units
            .iter()
            .map(|unit| match &unit.work {
                Work::Layer(layer) => State::Layer(Box::new(LayerState::new(layer))),
                Work::Norm { .. } => State::Norm(Box::default()),
                _ => State::Nothing,
            })
            .collect();
        Ok(Tape {
            arena: Aligned::zeros(plan.arena_len),
            states,
            scratch: Scratch::default(),
            isa: Isa::detect(),
            batch: plan.values[0].shape[0],
            plan,
        })
    }

    fn planned(graph: &Graph, policy: &Policy) -> Result<TapePlan> {
        if graph.nodes().is_empty() {
            return Err(Error::Unsupported("the graph is empty; there is nothing to train".into()));
        }
        plan::plan(graph, policy)
            .map_err(|error| Error::Unsupported(format!("the network cannot be trained: {error}")))
    }

    /// Bytes that a tape for this graph takes at most: activations, gradients, packed weights and working memory, as if
    /// there were a thread for every piece, so that the answer does not depend on the threads.
    ///
    /// # Errors
    /// As [`Tape::new`].
    pub fn bytes(graph: &Graph, policy: &Policy) -> Result<u64> {
        let plan = Self::planned(graph, policy)?;
        let layers = plan.units.iter().filter_map(|unit| match &unit.work {
            Work::Layer(layer) => Some((layer, &plan.values[unit.inputs[0]])),
            _ => None,
        });
        let (mut scratch, mut packed) = (0, 0);
        for (layer, _) in layers {
            scratch = scratch.max(layer::scratch_len(layer));
            packed += layer::packed_len(layer);
        }
        Ok(4 * (plan.arena_len + packed + scratch * layer::PIECES) as u64)
    }

    /// Images in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Takes over weights that have changed. To be called before a step's first forward run.
    pub fn prepare(&mut self, parameters: &Parameters) {
        let values = &self.plan.values;
        self.plan.units.par_iter().zip(&mut self.states).for_each(|(unit, state)| {
            match (&unit.work, state) {
                (Work::Layer(layer), State::Layer(state)) => {
                    let onward = unit.backward && values[unit.inputs[0]].gradient.is_some();
                    state.prepare(layer, parameters, onward);
                }
                (Work::Norm { norm, .. }, State::Norm(state)) => state.prepare(norm, parameters),
                _ => {}
            }
        });
    }

    /// Where the input `[N,H,W,C]` is to be written before [`forward`](Self::forward).
    pub fn input(&mut self) -> &mut [f32] {
        let range = self.plan.values[0].stored.clone();
        &mut self.arena.get_mut()[range]
    }

    /// Runs the network; the result is `[N][outputs]`. `dropout` is the seed of this run's dropout, `None` for none.
    pub fn forward(&mut self, dropout: Option<u64>) -> &[f32] {
        let Tape { plan, states, arena, scratch, isa, .. } = self;
        let arena = arena.get_mut();
        for (index, unit) in plan.units.iter().enumerate() {
            let mut state = std::mem::take(&mut states[index]);
            let run = Run { plan, states, scratch, isa: *isa, dropout, unit: index };
            match (&unit.work, &mut state) {
                (Work::Layer(layer), State::Layer(state)) => run.layer_forward(layer, state, arena),
                (Work::Norm { norm, act }, State::Norm(state)) => run.norm_forward(norm, *act, state, arena),
                _ => run.simple_forward(arena),
            }
            states[index] = state;
        }
        let output = plan.values[plan.units[plan.units.len() - 1].output].stored.clone();
        &arena[output]
    }

    /// Arrays for the gradients of what is learnt, all zeros.
    pub fn gradients(&self, parameters: &Parameters) -> Gradients {
        let mut wanted = vec![false; parameters.list.len()];
        for unit in &self.plan.units {
            match &unit.work {
                Work::Layer(layer) if layer.learns => {
                    wanted[layer.weight] = true;
                    layer.bias.iter().for_each(|&bias| wanted[bias] = true);
                    layer.norm.iter().for_each(|norm| (wanted[norm.gamma], wanted[norm.beta]) = (true, true));
                }
                Work::Norm { norm, .. } if norm.learns => {
                    (wanted[norm.gamma], wanted[norm.beta]) = (true, true);
                }
                _ => {}
            }
        }
        let array = |(wanted, parameter): (bool, &super::parameters::Parameter)| {
            if wanted { vec![0.0; parameter.values.len()] } else { Vec::new() }
        };
        wanted.into_iter().zip(&parameters.list).map(array).collect()
    }

    /// Sends the loss's gradient `[N][outputs]` back through the last forward run, which must have had the same
    /// `dropout`, and adds to the weights' gradients. What is added is complete only after [`finish`](Self::finish).
    pub fn backward(&mut self, output: &[f32], dropout: Option<u64>, gradients: &mut Gradients) {
        let Tape { plan, states, arena, scratch, isa, .. } = self;
        let arena = arena.get_mut();
        let last = &plan.values[plan.units[plan.units.len() - 1].output];
        let Some(range) = last.gradient.clone() else { return };
        arena[range].copy_from_slice(output);
        for (index, unit) in plan.units.iter().enumerate().rev().filter(|(_, unit)| unit.backward) {
            for &early in &unit.again {
                if let (Work::Layer(layer), State::Layer(state)) = (&plan.units[early].work, &states[early]) {
                    let run = Run { plan, states, scratch, isa: *isa, dropout, unit: early };
                    run.layer_again(layer, state, arena);
                }
            }
            let mut state = std::mem::take(&mut states[index]);
            let run = Run { plan, states, scratch, isa: *isa, dropout, unit: index };
            match (&unit.work, &mut state) {
                (Work::Layer(layer), State::Layer(state)) => {
                    run.layer_backward(layer, state, arena, gradients)
                }
                (Work::Norm { norm, act }, State::Norm(state)) => {
                    run.norm_backward(norm, *act, state, arena, gradients);
                }
                _ => run.simple_backward(arena),
            }
            states[index] = state;
        }
    }

    /// Completes the gradients of one or several batches that were added up under the same weights.
    pub fn finish(&mut self, parameters: &Parameters, gradients: &mut Gradients) {
        for (unit, state) in self.plan.units.iter().zip(&mut self.states) {
            if let (Work::Layer(layer), State::Layer(state)) = (&unit.work, state)
                && layer.learns
            {
                state.finish(layer, parameters, gradients);
            }
        }
    }

    /// Moves the running statistics towards those of the last batch: PyTorch's rule, with the unbiased variance.
    /// With frozen statistics nothing happens.
    pub fn follow_statistics(&self, parameters: &mut Parameters, momentum: f32) {
        for (unit, state) in self.plan.units.iter().zip(&self.states) {
            let (norm, [mean, var]) = match (&unit.work, state) {
                (Work::Layer(layer), State::Layer(state)) => match &layer.norm {
                    Some(norm) => (norm, state.statistics()),
                    None => continue,
                },
                (Work::Norm { norm, .. }, State::Norm(state)) => (norm, state.statistics()),
                _ => continue,
            };
            if !norm.batch {
                continue;
            }
            let pixels: usize = self.plan.values[unit.output].shape[..3].iter().product();
            let unbiased = if pixels > 1 { pixels as f64 / (pixels - 1) as f64 } else { 1.0 };
            for (place, batch, factor) in [(norm.mean, mean, 1.0), (norm.var, var, unbiased)] {
                for (running, &value) in parameters.list[place].values.iter_mut().zip(batch) {
                    *running += momentum * ((value * factor) as f32 - *running);
                }
            }
        }
    }
}

/// One unit at work.
struct Run<'a> {
    plan: &'a TapePlan,
    states: &'a [State],
    scratch: &'a Scratch,
    isa: Isa,
    dropout: Option<u64>,
    unit: usize,
}

/// Normalization and activation that a reader applies; owned, since the arena is borrowed while it is used.
struct OwnedLazy {
    scale: Vec<f32>,
    shift: Vec<f32>,
    act: Act,
}

impl OwnedLazy {
    fn get(&self) -> Lazy<'_> {
        Lazy { scale: &self.scale, shift: &self.shift, act: self.act }
    }
}

impl Run<'_> {
    fn input(&self, position: usize) -> &Value {
        &self.plan.values[self.plan.units[self.unit].inputs[position]]
    }

    fn output(&self) -> &Value {
        &self.plan.values[self.plan.units[self.unit].output]
    }

    /// What a reader of an input has to apply.
    fn lazy(&self, position: usize) -> Option<OwnedLazy> {
        let unit = self.input(position).lazy?;
        match (&self.plan.units[unit].work, &self.states[unit]) {
            (Work::Layer(layer), State::Layer(state)) => Some(state.lazy(layer)),
            _ => None,
        }
    }

    /// The layer that wants the input's gradient summed up.
    fn maker_to_tell(&self) -> Option<(&Layer, &LayerState)> {
        let unit = &self.plan.units[self.unit];
        let maker = self.input(0).lazy.filter(|_| unit.sums)?;
        match (&self.plan.units[maker].work, &self.states[maker]) {
            (Work::Layer(layer), State::Layer(state)) => Some((layer, state)),
            _ => None,
        }
    }

    /// Where an input's gradient goes, and whether it is added to.
    fn onward(&self, position: usize) -> Option<(Range<usize>, bool)> {
        let unit = &self.plan.units[self.unit];
        let range = self.input(position).gradient.clone()?;
        Some((range, unit.adds[position]))
    }

    /// The gradient of the result; only units with a backward half ask.
    fn gradient(&self) -> Range<usize> {
        self.output().gradient.clone().unwrap_or(0..0)
    }
}

/// Working memory that pieces borrow and give back.
#[derive(Debug, Default)]
struct Scratch {
    idle: Mutex<Vec<Vec<f32>>>,
}

impl Scratch {
    /// Calls `work` with so many values of any content.
    fn with<R>(&self, len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut values = idle.unwrap_or_default();
        if values.len() < len {
            values.resize(len, 0.0);
        }
        let result = work(&mut values[..len]);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(values);
        result
    }
}

/// Disjoint parts of the arena. The plan places what lives together apart, so a failure is a fault of the plan.
fn parts<const N: usize>(arena: &mut [f32], ranges: [Range<usize>; N]) -> [&mut [f32]; N] {
    arena.get_disjoint_mut(ranges).expect("the plan places what lives together apart")
}

#[cfg(test)]
mod tests {
    use penjing_kernels::Serial;
    use penjing_runtime::{
        PlanBuf, Session,
        op::{Conv, Op},
    };

    use super::*;
    use crate::{
        model,
        train::{loss, parameters::Kind},
        transfer::adapt::{self, Input},
        zoo::random_weights,
    };

    pub(super) fn noise(len: usize, seed: u64) -> Vec<f32> {
        let mut random = crate::random::SplitMix64::new(seed);
        (0..len).map(|_| random.uniform() as f32 * 2.0 - 1.0).collect()
    }

    #[test]
    fn frozen_statistics_compute_what_the_plan_computes() {
        let input = Input { size: Some(64), ..Input::default() };
        let model = adapt::adapt(&model::bundled().unwrap(), &input).unwrap();
        let graph = model.graph.with_input([2, 64, 64, 3]).unwrap();
        let parameters = Parameters::new(&graph, &model.weights).unwrap();
        let mut tape = Tape::new(&graph, &Policy::whole(Statistics::Frozen)).unwrap();
        let input = noise(2 * 64 * 64 * 3, 1);
        tape.prepare(&parameters);
        tape.input().copy_from_slice(&input);
        let logits = tape.forward(None).to_vec();
        let plan = PlanBuf::lower(&graph, &model.weights, 1).unwrap();
        let mut session = Session::new(plan.into(), Isa::detect());
        session.input().copy_from_slice(&input);
        let expected = session.run(&Serial);
        let worst = expected.iter().zip(&logits).fold(0f32, |w, (a, b)| w.max((a - b).abs()));
        assert!(worst < 1e-4, "{worst}");
    }

    fn small() -> Graph {
        let mut graph = Graph::default();
        let image = graph.push("image", Op::Input { shape: [3, 9, 9, 3] }, &[]).unwrap();
        let norm = |graph: &mut Graph, name: &str, from| {
            let id = graph.push(&format!("{name}.bn"), Op::BatchNorm { eps: 1e-3 }, &[from]).unwrap();
            graph.push(&format!("{name}.act"), Op::Act(Act::Relu6), &[id]).unwrap()
        };
        let conv = |conv: Conv| Op::Conv(conv);
        let stem = conv(Conv { padding: [0, 1, 0, 1], ..Conv::new(8, 3, 2) });
        let stem = graph.push("stem", stem, &[image]).unwrap();
        let stem = norm(&mut graph, "stem", stem);
        let wide = graph.push("wide", conv(Conv::new(24, 1, 1)), &[stem]).unwrap();
        let wide = norm(&mut graph, "wide", wide);
        let depth = conv(Conv { padding: [1; 4], groups: 24, ..Conv::new(24, 3, 1) });
        let depth = graph.push("depth", depth, &[wide]).unwrap();
        let depth = norm(&mut graph, "depth", depth);
        let narrow = graph.push("narrow", conv(Conv::new(8, 1, 1)), &[depth]).unwrap();
        let narrow = graph.push("narrow.bn", Op::BatchNorm { eps: 1e-3 }, &[narrow]).unwrap();
        let sum = graph.push("sum", Op::Add, &[narrow, stem]).unwrap();
        let silu = graph.push("silu", conv(Conv { bias: true, ..Conv::new(12, 1, 1) }), &[sum]).unwrap();
        let silu = graph.push("silu.act", Op::Act(Act::Silu), &[silu]).unwrap();
        let pool = graph.push("pool", Op::GlobalAvgPool, &[silu]).unwrap();
        graph.push("head", Op::Linear { out_features: 4, bias: true }, &[pool]).unwrap();
        graph
    }

    #[test]
    fn gradients_are_differences() {
        for statistics in [Statistics::Frozen, Statistics::Batch] {
            let graph = small();
            let mut parameters = Parameters::new(&graph, &random_weights(&graph, 3)).unwrap();
            let mut tape = Tape::new(&graph, &Policy::whole(statistics)).unwrap();
            let input = noise(3 * 9 * 9 * 3, 5);
            let targets = [1.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0];
            let mut slope = vec![0.0; 12];
            let mut loss_at = |tape: &mut Tape, parameters: &Parameters| {
                tape.prepare(parameters);
                tape.input().copy_from_slice(&input);
                let logits = tape.forward(None).to_vec();
                (loss::cross_entropy(4, &logits, &targets, &mut slope), slope.clone())
            };
            let (_, slope) = loss_at(&mut tape, &parameters);
            let mut gradients = tape.gradients(&parameters);
            tape.backward(&slope, None, &mut gradients);
            tape.finish(&parameters, &mut gradients);
            for (index, gradient) in gradients.iter().enumerate() {
                if !parameters.list[index].kind.is_learnt() {
                    continue;
                }
                let direction = noise(parameters.list[index].values.len(), 7);
                let before = parameters.list[index].values.clone();
                let mut at = |step: f32| {
                    let moved = before.iter().zip(&direction).map(|(w, d)| w + step * d);
                    parameters.list[index].values = moved.collect();
                    loss_at(&mut tape, &parameters).0
                };
                let step = 2e-3;
                let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
                parameters.list[index].values = before;
                let products = gradient.iter().zip(&direction);
                let along: f64 = products.map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
                let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                let name = &parameters.list[index].name;
                assert!(
                    (slope - along).abs() < 0.02 * norm + 2e-4,
                    "{statistics:?} {name}: {slope} {along} {norm}"
                );
                assert!(norm > 0.0 || parameters.list[index].kind == Kind::Bias, "{name}");
            }
        }
    }

    #[test]
    fn dropout_is_the_same_on_the_way_back_and_another_for_each_image() {
        let mut graph = Graph::default();
        let image = graph.push("image", Op::Input { shape: [2, 1, 1, 8] }, &[]).unwrap();
        let layer = graph.push("layer", Op::Linear { out_features: 64, bias: true }, &[image]).unwrap();
        graph.push("drop", Op::Dropout { rate: 0.5 }, &[layer]).unwrap();
        let parameters = Parameters::new(&graph, &random_weights(&graph, 1)).unwrap();
        let mut tape = Tape::new(&graph, &Policy::whole(Statistics::Frozen)).unwrap();
        tape.prepare(&parameters);
        tape.input().copy_from_slice(&noise(8, 1).repeat(2));
        let kept: Vec<bool> = tape.forward(Some(3)).iter().map(|y| *y != 0.0).collect();
        assert!(kept[..64] != kept[64..]);
        let (mut gradients, mut slope) = (tape.gradients(&parameters), vec![0.0; 128]);
        slope[..64].fill(1.0);
        tape.backward(&slope, Some(3), &mut gradients);
        tape.finish(&parameters, &mut gradients);
        let bias = parameters.position("layer.bias").unwrap();
        let expected: Vec<f32> = kept[..64].iter().map(|kept| if *kept { 2.0 } else { 0.0 }).collect();
        assert_eq!(gradients[bias], expected);
    }

    /// Whichever way a batch's pixels are cut, frozen statistics give the sum of its images' gradients.
    #[test]
    fn a_batch_is_the_sum_of_its_images() {
        let model = model::bundled().unwrap();
        let gradients = |batch: usize, inputs: &[f32], slope: &[f32]| {
            let graph = model.graph.with_input([batch, 96, 96, 3]).unwrap();
            let parameters = Parameters::new(&graph, &model.weights).unwrap();
            let mut tape = Tape::new(&graph, &Policy::whole(Statistics::Frozen)).unwrap();
            let mut gradients = tape.gradients(&parameters);
            tape.prepare(&parameters);
            let images = inputs.chunks_exact(batch * 96 * 96 * 3).zip(slope.chunks_exact(batch * 1000));
            for (input, slope) in images {
                tape.input().copy_from_slice(input);
                tape.forward(None);
                tape.backward(slope, None, &mut gradients);
            }
            tape.finish(&parameters, &mut gradients);
            (parameters, gradients)
        };
        let (input, slope) = (noise(8 * 96 * 96 * 3, 1), noise(8 * 1000, 2));
        let (parameters, whole) = gradients(8, &input, &slope);
        let (_, single) = gradients(1, &input, &slope);
        for ((parameter, a), b) in parameters.list.iter().zip(&whole).zip(&single) {
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let off = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
            assert!(
                off <= 1e-4 * norm(&mut a.iter().copied()),
                "{}: {off} of {}",
                parameter.name,
                norm(&mut a.iter().copied())
            );
        }
    }

    /// Expansions and projections; all but the first are too costly to be computed again unless memory counts more.
    #[test]
    fn what_is_computed_again_is_what_was_there() {
        let mut graph = Graph::default();
        let mut at = graph.push("image", Op::Input { shape: [3, 12, 12, 3] }, &[]).unwrap();
        let mut conv = |name: &str, from, conv: Conv| {
            let id = graph.push(name, Op::Conv(conv), &[from]).unwrap();
            let id = graph.push(&format!("{name}.bn"), Op::BatchNorm { eps: 1e-3 }, &[id]).unwrap();
            graph.push(&format!("{name}.act"), Op::Act(Act::Relu6), &[id]).unwrap()
        };
        for (index, width) in [8, 40, 40].into_iter().enumerate() {
            at = conv(&format!("in{index}"), at, Conv { padding: [1; 4], ..Conv::new(width, 3, 1) });
            let wide = conv(&format!("wide{index}"), at, Conv::new(3 * width, 1, 1));
            let deep = conv(
                &format!("deep{index}"),
                wide,
                Conv { groups: 3 * width, padding: [1; 4], ..Conv::new(3 * width, 3, 1) },
            );
            at = conv(&format!("out{index}"), deep, Conv::new(width, 1, 1));
        }
        let pooled = graph.push("pool", Op::GlobalAvgPool, &[at]).unwrap();
        graph.push("head", Op::Linear { out_features: 5, bias: true }, &[pooled]).unwrap();
        let parameters = Parameters::new(&graph, &random_weights(&graph, 3)).unwrap();
        let policies = [false, true].map(|frugal| Policy { frugal, ..Policy::whole(Statistics::Batch) });
        let [plain, frugal] = policies.map(|policy| {
            let mut tape = Tape::new(&graph, &policy).unwrap();
            let again: usize = tape.plan.units.iter().map(|unit| unit.again.len()).sum();
            tape.prepare(&parameters);
            tape.input().copy_from_slice(&noise(3 * 12 * 12 * 3, 1));
            tape.forward(None);
            let mut gradients = tape.gradients(&parameters);
            tape.backward(&noise(15, 2), None, &mut gradients);
            tape.finish(&parameters, &mut gradients);
            (again, Tape::bytes(&graph, &policy).unwrap(), gradients)
        });
        assert_eq!((plain.0, frugal.0), (1, 3));
        assert!(frugal.1 < plain.1, "{} {}", frugal.1, plain.1);
        assert!(frugal.2 == plain.2 && frugal.2.iter().flatten().any(|&g| g != 0.0));
    }
}
