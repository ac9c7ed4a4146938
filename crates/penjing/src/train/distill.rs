//! What a student is told by its teacher: losses, and their gradients with respect to what it puts out.

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::Op,
};
use serde::{Deserialize, Serialize};

use super::loss;
use crate::{Error, Result};

/// How a student listens to its teacher.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distill {
    /// What it makes of the teacher's logits.
    pub soft: Soft,
    /// Share of the steps, the first ones, in which it also learns to tell the teacher's features from its own; 0 for none.
    pub hints: f64,
}

/// Losses on the teacher's logits. p is the student's and q the teacher's softmax at the temperature T.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Soft {
    /// (1 − a)·CE + a·T²·KL(q ‖ p) (Hinton et al., arXiv 1503.02531).
    Kd {
        /// T.
        temperature: f64,
        /// a.
        share: f64,
    },
    /// CE + w·T²·(TCKD + β·NCKD), decoupled (Zhao et al., arXiv 2203.08679): TCKD is the divergence of “the photo's class or
    /// another”, NCKD that among the others.
    Dkd {
        /// T.
        temperature: f64,
        /// β.
        beta: f64,
        /// Share of the steps in which w rises from 0 to 1.
        warmup: f64,
    },
}

/// What some photos are to be taken for.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// Number of classes.
    pub classes: usize,
    /// `[photos][classes]`, zeros for a photo without a label, which is taught by the teacher alone.
    pub targets: &'a [f32],
    /// The teacher's logits, and with hints its features: `[photos][classes + features]`.
    pub teacher: &'a [f32],
}

impl Distill {
    /// Mean loss over the photos when a share of `done` of the steps is done, and its gradient with respect to `outputs`,
    /// both `[photos][classes + features]`.
    ///
    /// The hint of a photo (Romero et al., "FitNets", arXiv 1412.6550) is the squared error of the features, relative to their
    /// own squares, so that it weighs the same whatever the teacher's scale.
    pub fn loss(&self, answers: &Answers, done: f64, outputs: &[f32], gradient: &mut [f32]) -> f64 {
        let classes = answers.classes;
        let photos = answers.targets.len() / classes;
        let width = outputs.len() / photos;
        let mut total = 0.0;
        let rows = outputs.chunks_exact(width).zip(answers.teacher.chunks_exact(width));
        let rows = rows.zip(answers.targets.chunks_exact(classes)).zip(gradient.chunks_exact_mut(width));
        for (((output, teacher), target), slope) in rows {
            let ((z, told), (teacher, features)) = (output.split_at(classes), teacher.split_at(classes));
            let (slope, told_slope) = slope.split_at_mut(classes);
            total += self.soft.loss(z, teacher, target, done, slope);
            if done < self.hints {
                total += relative_error(told, features, told_slope);
            } else {
                told_slope.fill(0.0);
            }
        }
        gradient.iter_mut().for_each(|g| *g /= photos as f32);
        total / photos as f64
    }
}

impl Soft {
    /// The loss of one photo, and its gradient with respect to the student's logits `z`.
    fn loss(&self, z: &[f32], teacher: &[f32], target: &[f32], done: f64, gradient: &mut [f32]) -> f64 {
        let hard = loss::cross_entropy(z.len(), z, target, gradient);
        match *self {
            Soft::Kd { temperature: t, share } => {
                let (ln_p, ln_q) = (log_softmax(z, t), log_softmax(teacher, t));
                for ((g, ln_p), ln_q) in gradient.iter_mut().zip(&ln_p).zip(&ln_q) {
                    *g = ((1.0 - share) * f64::from(*g) + share * t * (ln_p.exp() - ln_q.exp())) as f32;
                }
                (1.0 - share) * hard + share * t * t * divergence(&ln_q, &ln_p)
            }
            Soft::Dkd { temperature: t, beta, warmup } => {
                let weight = if done < warmup { done / warmup } else { 1.0 };
                let labelled = target.iter().any(|share| *share > 0.0);
                let class = likeliest(if labelled { target } else { teacher });
                let (p, q) = (Decoupled::new(z, t, class), Decoupled::new(teacher, t, class));
                // Of both divergences: the temperature's square by the 1/T of the softmax.
                let scale = weight * t;
                let own = p.binary[0].exp() - q.binary[0].exp();
                gradient[class] += (scale * own) as f32;
                let others = (0..z.len()).filter(|other| *other != class);
                for ((other, ln_p), ln_q) in others.zip(&p.others).zip(&q.others) {
                    let (p, q) = (ln_p.exp(), ln_q.exp());
                    gradient[other] += (scale * (beta * (p - q) - p * own)) as f32;
                }
                let soft = divergence(&q.binary, &p.binary) + beta * divergence(&q.others, &p.others);
                hard + weight * t * t * soft
            }
        }
    }
}

/// A distribution as DKD sees it; logarithms.
struct Decoupled {
    /// Of the class, and of all others together.
    binary: [f64; 2],
    /// Of each other class among the others.
    others: Vec<f64>,
}

impl Decoupled {
    fn new(logits: &[f32], temperature: f64, class: usize) -> Self {
        let mut others = log_softmax(logits, temperature);
        let own = others.remove(class);
        let rest = log_sum(&others);
        others.iter_mut().for_each(|ln| *ln -= rest);
        Decoupled { binary: [own, rest], others }
    }
}

/// Logarithms of the softmax at a temperature.
pub(crate) fn log_softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let mut scaled: Vec<f64> = logits.iter().map(|z| f64::from(*z) / temperature).collect();
    let total = log_sum(&scaled);
    scaled.iter_mut().for_each(|z| *z -= total);
    scaled
}

fn log_sum(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + values.iter().map(|value| (value - most).exp()).sum::<f64>().ln()
}

/// KL(q ‖ p), both by their logarithms.
fn divergence(ln_q: &[f64], ln_p: &[f64]) -> f64 {
    ln_q.iter().zip(ln_p).map(|(ln_q, ln_p)| ln_q.exp() * (ln_q - ln_p)).sum()
}

/// Of equals the first.
fn likeliest(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, other| if values[other] > values[best] { other } else { best })
}

/// Σ(told − features)² / Σ features², and its gradient; 0 where there is nothing to be told.
fn relative_error(told: &[f32], features: &[f32], gradient: &mut [f32]) -> f64 {
    let whole: f64 = features.iter().map(|feature| f64::from(*feature).powi(2)).sum();
    if whole == 0.0 {
        gradient.fill(0.0);
        return 0.0;
    }
    let mut sum = 0.0;
    for ((told, feature), g) in told.iter().zip(features).zip(gradient) {
        let error = f64::from(*told) - f64::from(*feature);
        sum += error * error;
        *g = (2.0 * error / whole) as f32;
    }
    sum / whole
}

/// The features that a classifier's logits are made of: what its last linear layer reads, before dropout.
///
/// # Errors
/// [`Error::Unsupported`] for a network that does not end with a linear layer.
pub fn features(graph: &Graph) -> Result<NodeId> {
    let (_, mut features) = graph.classifier().ok_or_else(|| {
        Error::Unsupported(
            "the network does not end with a linear layer, so it has no features for hints".into(),
        )
    })?;
    while let Op::Dropout { .. } = graph.node(features).op {
        features = graph.node(features).inputs[0];
    }
    Ok(features)
}

/// The student's graph with an adapter: its result is the logits, and behind them what a linear layer on its features says
/// of so many features of the teacher. The layer's weights come after all others.
///
/// # Errors
/// As [`features`].
pub fn with_adapter(graph: &Graph, told: usize) -> Result<Graph> {
    let unsupported = |error: penjing_runtime::Error| Error::Unsupported(error.to_string());
    let own = features(graph)?;
    let mut graph = graph.clone();
    let logits = graph.output().ok_or_else(|| Error::Unsupported("the graph is empty".into()))?;
    let adapter = Op::Linear { out_features: told, bias: true };
    let adapter = graph.push(ADAPTER, adapter, &[own]).map_err(unsupported)?;
    graph.push(&format!("{ADAPTER}.joined"), Op::Concat, &[logits, adapter]).map_err(unsupported)?;
    Ok(graph)
}

/// What the adapter is called among the layers.
const ADAPTER: &str = "distill.adapter";

#[cfg(test)]
mod tests {
    use super::*;

    const KD: Soft = Soft::Kd { temperature: 4.0, share: 0.9 };
    const DKD: Soft = Soft::Dkd { temperature: 4.0, beta: 8.0, warmup: 0.0 };

    /// Of `scripts/goldens/distill.py`; the second photo has no label.
    const STUDENT: [f32; 12] = [1.0, -2.0, 0.5, 3.0, 0.0, 2.5, -1.0, 0.5, 4.0, 0.0, 0.0, -3.0];
    const TEACHER: [f32; 12] = [2.0, -1.0, 0.0, 5.0, -0.5, 6.0, 1.0, 0.0, -1.0, 3.0, 0.5, 0.0];
    const TARGETS: [f32; 12] = [0.025, 0.025, 0.025, 0.925, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
    const HINT: [f32; 6] = [0.5, -0.25, 1.0, 0.0, 0.0, 2.0];
    const FEATURES: [f32; 6] = [1.0, 0.5, 0.0, 0.0, -0.5, 1.5];

    fn answers<'a>(targets: &'a [f32], teacher: &'a [f32]) -> Answers<'a> {
        Answers { classes: 4, targets, teacher }
    }

    /// Rows of logits, and behind each of them features.
    fn joined(logits: &[f32], features: &[f32]) -> Vec<f32> {
        let rows = logits.chunks_exact(4).zip(features.chunks_exact(2));
        rows.flat_map(|(logits, features)| [logits, features].concat()).collect()
    }

    #[test]
    fn losses_and_gradients_are_those_of_pytorch() {
        #[rustfmt::skip]
        let goldens: [(Soft, f64, f64, [f64; 12]); 4] = [
            (KD, 1.0, 2.31891519, [
                0.01658952, 0.005839381, 0.09244991, -0.1148788,
                0.1125725, -0.2341779, -0.005955997, 0.1275614,
                0.4747169, -0.3067151, -0.03861669, -0.1293851,
            ]),
            (Soft::Kd { temperature: 1.0, share: 0.5 }, 0.0, 1.38870142, [
                0.02484906, -0.002722059, 0.01712432, -0.03925133,
                0.01071765, -0.03131099, 0.002922926, 0.01767042,
                0.3186178, -0.3056863, -0.006010137, -0.006921378,
            ]),
            (DKD, 0.0, 19.6136052, [
                -0.5202711, -0.2657282, 0.9456757, -0.1596763,
                0.779666, -0.2601977, -1.402946, 0.8834773,
                4.584908, -0.6318604, -1.526924, -2.426123,
            ]),
            (Soft::Dkd { temperature: 2.0, beta: 3.0, warmup: 0.4 }, 0.1, 3.26704866, [
                -0.0224917, -0.0178804, 0.1034303, -0.06305821,
                0.07708182, -0.05120506, -0.1248518, 0.09897501,
                0.717397, -0.4114289, -0.1484141, -0.157554,
            ]),
        ];
        for (soft, done, expected, gradient) in goldens {
            let distill = Distill { soft, hints: 0.0 };
            let mut ours = [f32::NAN; 12];
            let loss = distill.loss(&answers(&TARGETS, &TEACHER), done, &STUDENT, &mut ours);
            assert!((loss / expected - 1.0).abs() < 1e-6, "{soft:?}: {loss}, expected {expected}");
            for (ours, expected) in ours.iter().zip(gradient) {
                assert!((f64::from(*ours) - expected).abs() < 1e-6, "{soft:?}: {ours}, expected {expected}");
            }
        }
    }

    #[test]
    fn hints_are_those_of_pytorch_and_end_in_time() {
        let (outputs, teacher) = (joined(&STUDENT, &HINT), joined(&TEACHER, &FEATURES));
        let at = |hints: f64, done: f64| {
            let mut gradient = vec![f32::NAN; 18];
            let distill = Distill { soft: KD, hints };
            let loss = distill.loss(&answers(&TARGETS, &teacher), done, &outputs, &mut gradient);
            (loss, gradient)
        };
        let (without, with) = (at(0.2, 0.2), at(0.2, 0.1));
        assert_eq!(without, at(0.0, 0.0));
        assert!((with.0 - without.0 - 0.283_333_333).abs() < 1e-6, "{} {}", with.0, without.0);
        let told: [f32; 6] = [-0.2666667, -0.4, 0.0, 0.0, 0.1333333, 0.1333333];
        let rows = with.1.chunks_exact(6).zip(without.1.chunks_exact(6)).zip(told.chunks_exact(2));
        for ((with, without), told) in rows {
            assert_eq!((&with[..4], &without[4..]), (&without[..4], &[0.0; 2][..]));
            assert!(with[4..].iter().zip(told).all(|(a, b)| (a - b).abs() < 1e-6), "{with:?} {told:?}");
        }
    }

    #[test]
    fn gradients_are_differences() {
        let mut random = crate::random::SplitMix64::new(3);
        let mut noise =
            |len: usize| -> Vec<f32> { (0..len).map(|_| (random.uniform() * 8.0 - 4.0) as f32).collect() };
        let (logits, told, z, features) = (noise(12), noise(6), noise(12), noise(6));
        let (mut outputs, teacher) = (joined(&logits, &told), joined(&z, &features));
        for soft in [KD, DKD, Soft::Dkd { temperature: 1.0, beta: 2.0, warmup: 0.5 }] {
            let distill = Distill { soft, hints: 0.2 };
            let mut gradient = vec![0.0; 18];
            let at = |outputs: &[f32], gradient: &mut [f32]| {
                distill.loss(&answers(&TARGETS, &teacher), 0.1, outputs, gradient)
            };
            at(&outputs, &mut gradient);
            let mut unused = vec![0.0; 18];
            for place in 0..18 {
                let before = outputs[place];
                let mut moved = |step: f32| {
                    outputs[place] = before + step;
                    at(&outputs, &mut unused)
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                outputs[place] = before;
                let ours = f64::from(gradient[place]);
                assert!((slope - ours).abs() < 1e-3 * (1.0 + ours.abs()), "{soft:?} {place}: {slope} {ours}");
            }
        }
    }

    #[test]
    fn a_teacher_that_is_certain_leaves_finite_numbers() {
        let teacher = [200.0, -200.0, 0.0, 0.0];
        for soft in [KD, DKD] {
            let mut gradient = [f32::NAN; 4];
            let distill = Distill { soft, hints: 0.0 };
            let lesson = answers(&[1.0, 0.0, 0.0, 0.0], &teacher);
            let loss = distill.loss(&lesson, 1.0, &[90.0, -90.0, 40.0, -300.0], &mut gradient);
            assert!(
                loss.is_finite() && gradient.iter().all(|g| g.is_finite()),
                "{soft:?}: {loss} {gradient:?}"
            );
        }
    }
}
