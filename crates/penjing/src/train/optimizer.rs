//! From gradients to the next weights.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use penjing_kernels::update;
use penjing_runtime::{
    graph::{Graph, NodeId},
    op::Op,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{Tensors, take},
    parameters::{Gradients, Kind, Parameter, Parameters},
};
use crate::Result;

/// How a gradient becomes a change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Stochastic gradient descent; the decay is part of the gradient (`torch.optim.SGD`).
    Sgd {
        /// What is left of the velocity after each step.
        momentum: f32,
        /// Whether the step looks ahead (Nesterov).
        nesterov: bool,
    },
    /// Adam with decoupled decay (arXiv 1711.05101, `torch.optim.AdamW`).
    AdamW {
        /// What is left of the mean gradient after each step.
        beta1: f32,
        /// What is left of the mean squared gradient after each step.
        beta2: f32,
        /// Added to the root of the latter.
        eps: f32,
    },
}

impl Rule {
    /// How many arrays are remembered for each parameter.
    fn memories(self) -> usize {
        match self {
            Rule::Sgd { .. } => 1,
            Rule::AdamW { .. } => 2,
        }
    }
}

/// Updates [`Parameters`] step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    rule: Rule,
    decay: f32,
    clip: Option<f32>,
    rates: Vec<f32>,
    step: u64,
    /// For each parameter, velocity or mean gradient, then mean squared gradient; empty where nothing is remembered.
    memory: Vec<[Vec<f32>; 2]>,
}

impl Optimizer {
    /// Begins at step 0.
    ///
    /// `decay` is for convolution and linear weights only ([`Kind::Weight`]). `clip` is the longest gradient over all
    /// parameters together. `rates` has for each parameter what the learning rate is multiplied by; 0 freezes it.
    ///
    /// # Panics
    /// If there are not as many rates as parameters.
    pub fn new(
        rule: Rule,
        decay: f32,
        clip: Option<f32>,
        rates: Vec<f32>,
        parameters: &Parameters,
    ) -> Optimizer {
        assert_eq!(rates.len(), parameters.list.len(), "one rate for each parameter");
        let remembered = |(parameter, rate): (&Parameter, &f32)| {
            let learns = *rate != 0.0 && parameter.kind.is_learnt();
            let len = |memory: usize| {
                if learns && memory < rule.memories() { parameter.values.len() } else { 0 }
            };
            [vec![0.0; len(0)], vec![0.0; len(1)]]
        };
        let memory = parameters.list.iter().zip(&rates).map(remembered).collect();
        Optimizer { rule, decay, clip, rates, step: 0, memory }
    }

    /// Takes one step at learning rate `lr`, on rayon's current threads, and gives the gradient's Euclidean norm before
    /// clipping.
    ///
    /// Clipping multiplies `gradients` by `min(1, clip / (norm + 10⁻⁶))`, as `torch.nn.utils.clip_grad_norm_` does.
    /// Running statistics and parameters with rate 0 or an empty gradient keep every bit, and do not count in the norm.
    /// If the norm is not finite, nothing is changed at all.
    ///
    /// # Panics
    /// If `parameters` or `gradients` are of another network.
    pub fn update(&mut self, parameters: &mut Parameters, gradients: &mut Gradients, lr: f32) -> f64 {
        assert_eq!(parameters.list.len(), self.rates.len(), "parameters of another network");
        assert_eq!(gradients.len(), self.rates.len(), "gradients of another network");
        let moves = |gradient: &[f32], memory: &[Vec<f32>; 2]| !gradient.is_empty() && !memory[0].is_empty();
        let squares: Vec<f64> = gradients
            .par_iter()
            .zip(&self.memory)
            .map(
                |(gradient, memory)| if moves(gradient, memory) { update::square_sum(gradient) } else { 0.0 },
            )
            .collect();
        // One after another, so that the sum does not depend on the threads.
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return norm;
        }
        self.step += 1;
        let factor = self.clip.map_or(1.0, |clip| (f64::from(clip) / (norm + 1e-6)).min(1.0) as f32);
        let (rule, step) = (self.rule, u32::try_from(self.step).unwrap_or(u32::MAX));
        let parameters = parameters.list.par_iter_mut().zip(gradients.par_iter_mut());
        parameters.zip(self.memory.par_iter_mut()).zip(&self.rates).for_each(
            |(((parameter, gradient), memory), rate)| {
                if !moves(gradient, memory) {
                    return;
                }
                if factor < 1.0 {
                    update::scale(gradient, factor);
                }
                let decay = if parameter.kind == Kind::Weight { self.decay } else { 0.0 };
                let (values, [first, second]) = (&mut parameter.values, memory);
                let lr = lr * rate;
                match rule {
                    Rule::Sgd { momentum, nesterov } => {
                        update::sgd(values, gradient, first, lr, momentum, nesterov, decay);
                    }
                    Rule::AdamW { beta1, beta2, eps } => {
                        update::adamw(values, gradient, first, second, lr, beta1, beta2, eps, decay, step);
                    }
                }
            },
        );
        norm
    }

    /// How many steps were taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Puts what is remembered of each parameter among `tensors`.
    pub fn keep<'a>(&'a self, parameters: &Parameters, tensors: &mut Tensors<'a>) {
        for (parameter, memory) in parameters.list.iter().zip(&self.memory) {
            for (index, values) in memory.iter().enumerate().filter(|(_, values)| !values.is_empty()) {
                tensors.insert(memory_name(index, &parameter.name), Cow::Borrowed(values));
            }
        }
    }

    /// Takes it out of `tensors` again, to go on after `step` steps.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] naming what is missing or has another length.
    pub fn restore(&mut self, step: u64, parameters: &Parameters, tensors: &mut Tensors<'_>) -> Result<()> {
        for (parameter, memory) in parameters.list.iter().zip(&mut self.memory) {
            for (index, values) in memory.iter_mut().enumerate().filter(|(_, values)| !values.is_empty()) {
                *values = take(tensors, &memory_name(index, &parameter.name), values.len())?;
            }
        }
        self.step = step;
        Ok(())
    }
}

fn memory_name(index: usize, parameter: &str) -> String {
    format!("optimizer{index}/{parameter}")
}

/// Learning rates by depth, or factors of one; 0 freezes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Of the classifier.
    pub head: f32,
    /// Of the third of the body that is nearest to it.
    pub last: f32,
    /// Of the middle third.
    pub middle: f32,
    /// Of the third that is nearest to the image.
    pub first: f32,
}

impl Rates {
    /// Each so many times as large.
    pub fn scaled(self, factor: f32) -> Rates {
        let [head, last, middle, first] =
            [self.head, self.last, self.middle, self.first].map(|rate| rate * factor);
        Rates { head, last, middle, first }
    }
}

/// The rate of each parameter. The body is cut into thirds of as many convolution and linear layers, in node order;
/// a BatchNorm goes with the layer before it. Running statistics have rate 0.
pub fn layer_rates(graph: &Graph, parameters: &Parameters, rates: &Rates) -> Vec<f32> {
    let weights = parameters.list.iter().filter(|parameter| parameter.kind == Kind::Weight);
    let weighted: BTreeSet<&str> = weights.map(|parameter| layer(&parameter.name)).collect();
    // A distilled network ends with its logits and what its adapter says, joined.
    let ends = match graph.output() {
        Some(last) if graph.node(last).op == Op::Concat => graph.node(last).inputs.clone(),
        last => last.into_iter().collect(),
    };
    let is_head = |id: &NodeId| ends.contains(id) && matches!(graph.node(*id).op, Op::Linear { .. });
    let body = weighted.len() - ends.iter().filter(|id| is_head(id)).count();
    let mut seen: usize = 0;
    let mut by_layer: BTreeMap<&str, f32> = BTreeMap::new();
    for (id, node) in graph.iter() {
        seen += usize::from(weighted.contains(node.name.as_str()));
        let rate = match seen.saturating_sub(1) * 3 / body.max(1) {
            _ if is_head(&id) => rates.head,
            0 => rates.first,
            1 => rates.middle,
            _ => rates.last,
        };
        by_layer.insert(&node.name, rate);
    }
    let rate = |parameter: &Parameter| match parameter.kind.is_learnt() {
        true => by_layer.get(layer(&parameter.name)).copied().unwrap_or(0.0),
        false => 0.0,
    };
    parameters.list.iter().map(rate).collect()
}

/// `layer` of `layer.suffix`.
fn layer(parameter: &str) -> &str {
    parameter.rsplit_once('.').map_or("", |(layer, _)| layer)
}

#[cfg(test)]
mod tests {
    use penjing_runtime::{
        op::{Act, Conv},
        tensor::{Tensor, Weights},
    };

    use super::*;

    const ADAMW: Rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    const NESTEROV: Rule = Rule::Sgd { momentum: 0.9, nesterov: true };

    /// The numbers of `scripts/goldens/optimizer.py`.
    struct Numbers(u32);

    impl Numbers {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(1664525).wrapping_add(1013904223);
            ((self.0 >> 8) as f32 - (1 << 23) as f32) / (1 << 22) as f32
        }

        fn list(&mut self, len: usize, size: f32) -> Vec<f32> {
            (0..len).map(|_| self.next() * size).collect()
        }
    }

    /// A weight, a bias, a γ, and last two that never change.
    fn parameters(numbers: &mut Numbers) -> Parameters {
        let kinds = [Kind::Weight, Kind::Bias, Kind::Gamma, Kind::Weight, Kind::Mean];
        let named = ["a.weight", "a.bias", "b.gamma", "frozen.weight", "b.mean"];
        let list = named.into_iter().zip(kinds).zip([11, 3, 2, 4, 2]);
        let parameter = |((name, kind), len): ((&str, Kind), usize)| Parameter {
            name: name.into(),
            shape: vec![len],
            kind,
            values: if name.ends_with("mean") || name.starts_with("frozen") {
                vec![0.1; len]
            } else {
                numbers.list(len, 1.0)
            },
        };
        Parameters { list: list.map(parameter).collect() }
    }

    const RATES: [f32; 5] = [1.0, 0.5, 0.1, 0.0, 1.0];

    fn gradients(numbers: &mut Numbers, step: u64) -> Gradients {
        let size = if step % 2 == 1 { 0.05 } else { 1.0 };
        let mut all: Gradients = [11, 3, 2].map(|len| numbers.list(len, size)).into();
        // Of what is frozen there may be one; it neither moves nor counts.
        all.extend([vec![1e3; 4], vec![1e3; 2]]);
        all
    }

    #[test]
    fn steps_equal_pytorchs() {
        #[derive(Deserialize)]
        struct Golden {
            norms: Vec<f64>,
            values: Vec<Vec<f32>>,
        }
        let goldens: BTreeMap<String, Golden> =
            serde_json::from_str(include_str!("../../tests/goldens/optimizer.json")).unwrap();
        let sgd = Rule::Sgd { momentum: 0.9, nesterov: false };
        for (name, rule) in [("sgd", sgd), ("nesterov", NESTEROV), ("adamw", ADAMW)] {
            let golden = &goldens[name];
            let mut numbers = Numbers(1);
            let mut parameters = parameters(&mut numbers);
            let frozen = parameters.list[3..].to_vec();
            let mut optimizer = Optimizer::new(rule, 0.1, Some(2.0), RATES.to_vec(), &parameters);
            for step in 0..5 {
                let mut gradients = gradients(&mut numbers, step);
                let norm = optimizer.update(&mut parameters, &mut gradients, 0.05);
                let expected = golden.norms[step as usize];
                assert!(
                    (norm - expected).abs() < 1e-6 * expected,
                    "{name} {step}: norm {norm}, expected {expected}"
                );
                let now: Vec<f32> = parameters.list[..3].iter().flat_map(|p| p.values.clone()).collect();
                for (now, expected) in now.iter().zip(&golden.values[step as usize]) {
                    assert!((now - expected).abs() < 1e-6, "{name} {step}: {now}, expected {expected}");
                }
                assert_eq!(parameters.list[3..], frozen);
            }
            assert_eq!(optimizer.step(), 5);
        }
    }

    #[test]
    fn no_gradient_no_change() {
        for rule in [NESTEROV, ADAMW] {
            let mut numbers = Numbers(7);
            let mut parameters = parameters(&mut numbers);
            let mut optimizer = Optimizer::new(rule, 0.1, None, RATES.to_vec(), &parameters);
            optimizer.update(&mut parameters, &mut gradients(&mut numbers, 0), 0.1);
            let before = parameters.clone();
            let mut some = gradients(&mut numbers, 1);
            some[0].clear();
            optimizer.update(&mut parameters, &mut some, 0.1);
            assert_eq!(parameters.list[0], before.list[0]);
            assert_ne!(parameters.list[1], before.list[1]);
        }
    }

    #[test]
    fn a_broken_gradient_breaks_nothing() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut numbers = Numbers(3);
            let mut parameters = parameters(&mut numbers);
            let mut optimizer = Optimizer::new(ADAMW, 0.1, Some(1.0), RATES.to_vec(), &parameters);
            optimizer.update(&mut parameters, &mut gradients(&mut numbers, 0), 0.1);
            let before = (parameters.clone(), optimizer.clone());
            let mut broken = gradients(&mut numbers, 1);
            broken[1][2] = bad;
            assert!(!optimizer.update(&mut parameters, &mut broken, 0.1).is_finite());
            assert_eq!((parameters, optimizer), before);
        }
    }

    #[test]
    fn goes_on_from_what_was_kept() {
        for (rule, kept) in [(NESTEROV, 3), (ADAMW, 6)] {
            let mut numbers = Numbers(5);
            let mut whole = parameters(&mut numbers);
            let fresh = Optimizer::new(rule, 0.1, Some(1.0), RATES.to_vec(), &whole);
            let mut optimizer = fresh.clone();
            for step in 0..3 {
                optimizer.update(&mut whole, &mut gradients(&mut numbers, step), 0.1);
            }
            let mut tensors = Tensors::new();
            optimizer.keep(&whole, &mut tensors);
            assert_eq!(tensors.len(), kept);
            let mut resumed = fresh.clone();
            resumed.restore(3, &whole, &mut tensors.clone()).unwrap();
            assert_eq!(resumed, optimizer);
            let mut continued = whole.clone();
            let mut next = gradients(&mut numbers, 3);
            resumed.update(&mut continued, &mut next.clone(), 0.1);
            let mut tensors: Tensors<'static> =
                tensors.into_iter().map(|(name, values)| (name, Cow::Owned(values.into_owned()))).collect();
            optimizer.update(&mut whole, &mut next, 0.1);
            assert_eq!(continued, whole);

            tensors.remove("optimizer0/a.bias");
            let error = fresh.clone().restore(3, &whole, &mut tensors).unwrap_err();
            assert!(error.to_string().contains("`optimizer0/a.bias`"), "{error}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads: usize| {
            crate::threads::Threads::new(Some(threads)).unwrap().install(|| {
                let mut numbers = Numbers(11);
                let list = (0..40).map(|index| Parameter {
                    name: format!("{index}.weight"),
                    shape: vec![index * 17 + 1],
                    kind: Kind::Weight,
                    values: numbers.list(index * 17 + 1, 1.0),
                });
                let mut parameters = Parameters { list: list.collect() };
                let mut optimizer = Optimizer::new(ADAMW, 0.1, Some(1.0), vec![1.0; 40], &parameters);
                let norms = [0, 1].map(|_| {
                    let list = parameters.list.iter();
                    let mut gradients: Gradients = list.map(|p| numbers.list(p.values.len(), 1.0)).collect();
                    optimizer.update(&mut parameters, &mut gradients, 0.1)
                });
                (norms, parameters)
            })
        };
        assert_eq!(run(1), run(5));
    }

    #[test]
    fn rates_go_by_depth() {
        let mut graph = Graph::default();
        let mut last = graph.push("image", Op::Input { shape: [1, 8, 8, 3] }, &[]).unwrap();
        for index in 0..6 {
            let name = |what: &str| format!("block{index}.{what}");
            last = graph.push(&name("conv"), Op::Conv(Conv::new(4, 1, 1)), &[last]).unwrap();
            last = graph.push(&name("bn"), Op::BatchNorm { eps: 1e-3 }, &[last]).unwrap();
            last = graph.push(&name("act"), Op::Act(Act::Relu), &[last]).unwrap();
        }
        let pool = graph.push("pool", Op::GlobalAvgPool, &[last]).unwrap();
        let flat = graph.push("flat", Op::Flatten, &[pool]).unwrap();
        let headless = graph.clone();
        graph.push("head", Op::Linear { out_features: 2, bias: true }, &[flat]).unwrap();
        let rates = Rates { head: 4.0, last: 3.0, middle: 2.0, first: 1.0 };
        for (graph, with_head) in [(graph, true), (headless, false)] {
            let weights: Weights = graph
                .parameters()
                .into_iter()
                .map(|(name, s)| (name, Tensor::f32(&s, vec![1.0; s.iter().product()])))
                .collect();
            let parameters = Parameters::new(&graph, &weights).unwrap();
            let of_layers = layer_rates(&graph, &parameters, &rates);
            let mut expected = Vec::new();
            for rate in [1.0, 1.0, 2.0, 2.0, 3.0, 3.0] {
                // Weight, γ, β, and the two that are measured.
                expected.extend([rate, rate, rate, 0.0, 0.0]);
            }
            if with_head {
                expected.extend([4.0, 4.0]);
            }
            assert_eq!(of_layers, expected);
        }
    }
}
