//! How much a network would miss its channels.

use std::collections::{BTreeMap, BTreeSet};

use penjing_runtime::{
    graph::{Graph, Node, NodeId},
    op::Op,
    tensor::{Tensor, Weights},
};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    ledger::{Ledger, Unit, depthwise},
    mend::WIDEST,
};
use crate::{
    Result,
    compress::{
        fold::{in_groups, layer, users},
        reads::{self, Reads},
    },
    random::SplitMix64,
    train::{
        loss,
        parameters::Parameters,
        tape::{Policy, Statistics, Tape},
    },
};

/// What tells channels that are missed from those that are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// What the layers that read a channel lose of their results' variance without it, once their other weights have made up
    /// for it as well as they can: w² / (G⁻¹) with the covariance G of what they read (the optimal brain surgeon; Hassibi and
    /// Stork, 1993).
    #[default]
    Surgeon,
    /// The sum of the magnitudes of the weights that make a channel, and of those that read it, in each layer as a share of its mean.
    L1,
    /// Their Euclidean norm, in each layer as a share of its mean.
    L2,
    /// The magnitude of BatchNorm's scale (Liu et al., arXiv 1708.06519), in each layer as a share of its mean.
    Scale,
    /// (Σ gradient · weight)², summed over batches (Molchanov et al., arXiv 1906.10771).
    Taylor,
    /// How far the weights that make a channel, and those that read it, are from those of all others (FPGM; He et al., arXiv
    /// 1811.00250), in each layer as a share of its mean.
    Distance,
    /// Drawn; the yardstick.
    Random,
}

impl Criterion {
    /// Its name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Surgeon => "surgeon",
            Criterion::L1 => "l1",
            Criterion::L2 => "l2",
            Criterion::Scale => "scale",
            Criterion::Taylor => "taylor",
            Criterion::Distance => "distance",
            Criterion::Random => "random",
        }
    }
}

/// What criteria look at.
pub(super) struct Sight<'a> {
    /// The network with its BatchNorms, if it has any.
    pub before: (&'a Graph, &'a Weights),
    /// And with these drawn in.
    pub graph: &'a Graph,
    pub weights: &'a Weights,
    pub ledger: &'a Ledger,
    /// What its layers of one group read.
    pub reads: &'a BTreeMap<String, Reads>,
    /// Photos, and their classes.
    pub photos: (&'a [Vec<f32>], &'a [usize]),
    pub seed: u64,
}

/// The score of each unit: the least are missed least.
///
/// # Errors
/// [`crate::Error::Unsupported`] for [`Criterion::Scale`] of a network without BatchNorm, and for [`Criterion::Taylor`] of one that
/// cannot be trained.
pub(super) fn scores(criterion: Criterion, sight: &Sight) -> Result<Vec<f64>> {
    let mut scores = Scores { ledger: sight.ledger, of: vec![0.0; sight.ledger.len()] };
    let magnitude = |power: i32| {
        move |values: &mut dyn Iterator<Item = f32>| -> f64 {
            let sum: f64 = values.map(|w| f64::from(w.abs()).powi(power)).sum();
            sum.powf(1.0 / f64::from(power))
        }
    };
    match criterion {
        Criterion::Surgeon => surgeon(sight, &mut scores),
        Criterion::L1 => norms(sight, &magnitude(1), &mut scores),
        Criterion::L2 => norms(sight, &magnitude(2), &mut scores),
        Criterion::Scale => scales(sight, &mut scores)?,
        Criterion::Taylor => taylor(sight, &mut scores)?,
        Criterion::Distance => distances(sight, &mut scores),
        Criterion::Random => {
            let mut random = SplitMix64::new(sight.seed);
            scores.of.iter_mut().for_each(|score| *score = random.uniform());
        }
    }
    Ok(scores.of)
}

struct Scores<'a> {
    ledger: &'a Ledger,
    of: Vec<f64>,
}

impl Scores<'_> {
    /// Adds what a node's channels come to.
    fn add(&mut self, id: NodeId, values: &[f64]) {
        for (unit, value) in self.ledger.channels(id).iter().zip(values) {
            self.of[unit.index()] += value;
        }
    }

    /// As [`add`](Self::add), as shares of their mean: of layers small and large.
    fn add_shares(&mut self, id: NodeId, values: &[f64]) {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        if mean > 0.0 {
            let shares: Vec<f64> = values.iter().map(|value| value / mean).collect();
            self.add(id, &shares);
        }
    }
}

/// A layer of the network, and its weights `[out][rest]`.
fn weights_of<'a>(sight: &'a Sight) -> impl Iterator<Item = (NodeId, &'a Node, Vec<f32>)> + 'a {
    let layers = sight.graph.iter().filter(|(_, node)| layer(node));
    layers.map(|(id, node)| (id, node, sight.weights[&format!("{}.weight", node.name)].to_f32()))
}

/// As [`weights_of`], but as they were before BatchNorm was drawn in: as those take them who judge filters by their weights alone. What
/// a channel is scaled to, BatchNorm undoes again, and drawn in it makes those large that hardly vary.
fn filters_of<'a>(sight: &'a Sight) -> impl Iterator<Item = (NodeId, &'a Node, Vec<f32>)> + 'a {
    weights_of(sight).map(|(id, node, weights)| {
        let before = sight.before.1.get(&format!("{}.weight", node.name)).map(Tensor::to_f32);
        (id, node, before.filter(|before| before.len() == weights.len()).unwrap_or(weights))
    })
}

fn norms(sight: &Sight, norm: &dyn Fn(&mut dyn Iterator<Item = f32>) -> f64, scores: &mut Scores) {
    for (id, node, weights) in filters_of(sight) {
        let outputs = node.shape[3];
        let made: Vec<f64> =
            weights.chunks_exact(weights.len() / outputs).map(|row| norm(&mut row.iter().copied())).collect();
        scores.add_shares(id, &made);
        if !in_groups(node) {
            let read = sight.graph.shape(node.inputs[0])[3];
            let column = |channel: usize| norm(&mut weights.iter().skip(channel).step_by(read).copied());
            scores.add_shares(node.inputs[0], &(0..read).map(column).collect::<Vec<f64>>());
        }
    }
}

fn distances(sight: &Sight, scores: &mut Scores) {
    // Of each, from all the others.
    let far = |filters: Vec<Vec<f32>>| -> Vec<f64> {
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            let square: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
            f64::from(square).sqrt()
        };
        let sum = |filter: &Vec<f32>| filters.iter().map(|other| distance(filter, other)).sum();
        filters.par_iter().map(sum).collect()
    };
    for (id, node, weights) in filters_of(sight) {
        let each = weights.len() / node.shape[3];
        scores.add_shares(id, &far(weights.chunks_exact(each).map(<[f32]>::to_vec).collect()));
        if !in_groups(node) {
            let read = sight.graph.shape(node.inputs[0])[3];
            let column = |channel| weights.iter().skip(channel).step_by(read).copied().collect();
            scores.add_shares(node.inputs[0], &far((0..read).map(column).collect()));
        }
    }
}

fn scales(sight: &Sight, scores: &mut Scores) -> Result<()> {
    let (before, weights) = sight.before;
    let users = users(before);
    let mut found = false;
    for (id, node) in sight.graph.iter().filter(|(_, node)| layer(node)) {
        let Some((of, _)) = before.iter().find(|(_, other)| other.name == node.name) else { continue };
        let norm = users[of.index()].iter().map(|user| before.node(*user));
        for norm in norm.filter(|node| matches!(node.op, Op::BatchNorm { .. })) {
            let gamma = weights[&format!("{}.gamma", norm.name)].to_f32();
            scores.add_shares(id, &gamma.iter().map(|g| f64::from(g.abs())).collect::<Vec<f64>>());
            found = true;
        }
    }
    let why = "the network has no BatchNorm whose scales could tell channels apart; take another --criterion";
    if found { Ok(()) } else { Err(crate::Error::Unsupported(why.into())) }
}

/// Photos of a batch whose gradients are taken, and most batches.
const BATCH: usize = 8;
const BATCHES: usize = 20;

fn taylor(sight: &Sight, scores: &mut Scores) -> Result<()> {
    let unsupported = |error: penjing_runtime::Error| crate::Error::Unsupported(error.to_string());
    let batch = BATCH.min(sight.photos.0.len());
    let [_, h, w, c] = sight.graph.input_shape().unwrap_or_default();
    let graph = sight.graph.with_input([batch, h, w, c]).map_err(unsupported)?;
    let parameters = Parameters::new(&graph, sight.weights)?;
    let mut tape = Tape::new(&graph, &Policy::whole(Statistics::Frozen))?;
    tape.prepare(&parameters);
    let classes = sight.graph.nodes().last().map_or(0, |node| node.shape[3]);
    let (mut targets, mut slope) = (vec![0.0; batch * classes], vec![0.0; batch * classes]);
    let photos = sight.photos.0.chunks_exact(batch).zip(sight.photos.1.chunks_exact(batch));
    for (photos, labels) in photos.take(BATCHES) {
        tape.input().copy_from_slice(&photos.concat());
        for (label, row) in labels.iter().zip(targets.chunks_exact_mut(classes)) {
            loss::smoothed(*label, 0.0, row);
        }
        loss::cross_entropy(classes, tape.forward(None), &targets, &mut slope);
        let mut gradients = tape.gradients(&parameters);
        tape.backward(&slope, None, &mut gradients);
        tape.finish(&parameters, &mut gradients);
        for (id, node, weights) in weights_of(sight) {
            let Some(place) = parameters.position(&format!("{}.weight", node.name)) else { continue };
            let each = weights.len() / node.shape[3];
            let rows = weights.chunks_exact(each).zip(gradients[place].chunks_exact(each));
            let square = |(weights, gradient): (&[f32], &[f32])| {
                let sum: f64 = weights.iter().zip(gradient).map(|(w, g)| f64::from(w * g)).sum();
                sum * sum
            };
            scores.add(id, &rows.map(square).collect::<Vec<f64>>());
        }
    }
    Ok(())
}

fn surgeon(sight: &Sight, scores: &mut Scores) {
    let layers: Vec<_> = weights_of(sight).collect();
    let lost: Vec<_> = layers.par_iter().map(|(_, node, weights)| losses(sight, node, weights)).collect();
    for ((_, node, _), lost) in layers.iter().zip(lost) {
        scores.add(node.inputs[0], &lost);
    }
}

/// Sum of squares of each column of rows of `each` values.
fn variances(x: &[f32], each: usize) -> Vec<f64> {
    let mut sums = vec![0.0; each];
    for row in x.chunks_exact(each) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v).powi(2));
    }
    sums
}

/// For each channel that a convolution in groups reads the share of its weights' squares that read it; nothing for a depthwise one, whose
/// channels are those that it reads.
fn losses_in_groups(sight: &Sight, node: &Node, weights: &[f32]) -> Vec<f64> {
    let (Op::Conv(conv), read) = (&node.op, sight.graph.shape(node.inputs[0])[3]) else { return Vec::new() };
    if depthwise(conv, read) {
        return Vec::new();
    }
    let (each, outputs) = (weights.len() / node.shape[3], node.shape[3] / conv.groups);
    let (own, mut lost) = (read / conv.groups, vec![0.0; read]);
    for (output, row) in weights.chunks_exact(each).enumerate() {
        let from = output / outputs * own;
        row.iter().enumerate().for_each(|(i, w)| lost[from + i % own] += f64::from(*w).powi(2));
    }
    let total = lost.iter().sum();
    shares(lost, total)
}

/// Each as a share of `total`, if there is any.
fn shares(lost: Vec<f64>, total: f64) -> Vec<f64> {
    lost.into_iter().map(|lost| if total > 0.0 { lost / total } else { 0.0 }).collect()
}

/// For each channel that a layer reads the share of its results' variance that is lost without it. In layers too wide for all
/// correlations channels count for themselves, and nothing makes up for them; in convolutions in groups their weights alone tell.
fn losses(sight: &Sight, node: &Node, weights: &[f32]) -> Vec<f64> {
    if in_groups(node) {
        return losses_in_groups(sight, node, weights);
    }
    let Some(x) = sight.reads.get(&node.name) else { return Vec::new() };
    let (each, read) = (weights.len() / node.shape[3], sight.graph.shape(node.inputs[0])[3]);
    let mut x = x.clone();
    reads::centre(&mut x, each);
    if each > WIDEST {
        let mut lost = vec![0.0; read];
        for (i, lost_by) in variances(&x, each).into_iter().enumerate() {
            let square: f64 = weights.chunks_exact(each).map(|row| f64::from(row[i]).powi(2)).sum();
            lost[i % read] += square * lost_by;
        }
        let total = lost.iter().sum();
        return shares(lost, total);
    }
    let along = reads::correlations(&x, each);
    // What the results vary in all: Σ wᵀ·G·w.
    let varies = |row: &[f32]| -> f64 {
        let rows = along.chunks_exact(each).zip(row).filter(|(_, w)| **w != 0.0);
        let times = |along: &[f64]| -> f64 { along.iter().zip(row).map(|(g, w)| g * f64::from(*w)).sum() };
        rows.map(|(along, w)| f64::from(*w) * times(along)).sum()
    };
    let total: f64 = weights.chunks_exact(each).map(varies).sum();
    let inverse = reads::damped_inverse_factor(along, each);
    let diagonal = |i: usize| (0..=i).map(|j| inverse[j * each + i].powi(2)).sum::<f64>();
    let mut lost = vec![0.0; read];
    for i in 0..each {
        let square: f64 = weights.chunks_exact(each).map(|row| f64::from(row[i]).powi(2)).sum();
        lost[i % read] += square / diagonal(i);
    }
    shares(lost, total)
}

/// The units of a set, those that are missed least first. At the end stands the most missed one of each of the `results`, the channels of
/// nodes, that has no other channels than some of the set: a branch or a slice of which nothing would be left.
pub(super) fn order<'a>(
    units: &[Unit],
    scores: &[f64],
    results: impl Iterator<Item = &'a [Unit]>,
) -> Vec<Unit> {
    let mut order = units.to_vec();
    let by_score = |a: &Unit, b: &Unit| scores[a.index()].total_cmp(&scores[b.index()]).then(a.cmp(b));
    order.sort_by(by_score);
    let own: BTreeSet<Unit> = units.iter().copied().collect();
    let mut last = BTreeSet::new();
    for result in results.filter(|result| result.iter().all(|unit| own.contains(unit))) {
        last.extend(result.iter().copied().max_by(by_score));
    }
    order.sort_by_key(|unit| last.contains(unit));
    order
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::Conv;

    use super::*;

    /// Three channels between two layers: the second does nearly as the first, the third is loud and hardly listened to.
    fn scored(criterion: Criterion) -> Vec<f64> {
        scored_before(criterion, [1.0; 3])
    }

    /// The same, BatchNorm having scaled the three by so much, which stands in the first layer's weights now.
    fn scored_before(criterion: Criterion, scales: [f32; 3]) -> Vec<f64> {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 1, 1, 2] }, &[]).unwrap();
        let a = graph.push("a", Op::Conv(Conv { bias: true, ..Conv::new(3, 1, 1) }), &[x]).unwrap();
        let b = Op::Linear { out_features: 2, bias: true };
        graph.push("b", b, &[a]).unwrap();
        let rows = [[1.0, 0.0], [1.0, 0.01], [-1.2, 1.6]];
        let reads = [[1.0, 1.0, 0.01], [1.0, -1.0, 0.02]];
        let tensors = [
            ("a.weight", Tensor::f32(&[3, 1, 1, 2], rows.concat())),
            ("a.bias", Tensor::f32(&[3], vec![0.0; 3])),
            ("b.weight", Tensor::f32(&[2, 3], reads.concat())),
            ("b.bias", Tensor::f32(&[2], vec![0.0; 2])),
        ];
        let weights: Weights = tensors.map(|(name, tensor)| (name.to_string(), tensor)).into();
        let mut before = weights.clone();
        let unscaled: Vec<f32> =
            rows.iter().zip(scales).flat_map(|(row, scale)| row.map(|w| w / scale)).collect();
        before.insert("a.weight".into(), Tensor::f32(&[3, 1, 1, 2], unscaled));
        let mut random = SplitMix64::new(1);
        let photos: Vec<Vec<f32>> =
            (0..64).map(|_| [0; 2].map(|_| random.normal() as f32).to_vec()).collect();
        let made = |photo: &Vec<f32>| rows.map(|row: [f32; 2]| row[0] * photo[0] + row[1] * photo[1]);
        let reads =
            [("a".to_string(), photos.concat()), ("b".to_string(), photos.iter().flat_map(made).collect())];
        let ledger = Ledger::new(&graph);
        let classes: Vec<usize> = photos.iter().map(|photo| usize::from(photo[0] > 0.0)).collect();
        let sight = Sight {
            before: (&graph, &before),
            graph: &graph,
            weights: &weights,
            ledger: &ledger,
            reads: &reads.into(),
            photos: (&photos, &classes),
            seed: 3,
        };
        let scores = scores(criterion, &sight).unwrap();
        ledger.channels(a).iter().map(|unit| scores[unit.index()]).collect()
    }

    #[test]
    fn channels_of_very_wide_layers_count_for_themselves() {
        let wide = WIDEST + 1;
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 1, 1, wide] }, &[]).unwrap();
        let b = graph.push("b", Op::Linear { out_features: 1, bias: false }, &[x]).unwrap();
        // The first weighs twice as much as the others, the second reads what never changes.
        let mut weights = vec![1.0; wide];
        weights[0] = 2.0;
        let row = |sign: f32| (0..wide).map(|i| if i == 1 { 5.0 } else { sign }).collect::<Vec<f32>>();
        let sight = Sight {
            before: (&graph, &Weights::default()),
            graph: &graph,
            weights: &Weights::default(),
            ledger: &Ledger::new(&graph),
            reads: &[("b".to_string(), [row(1.0), row(-1.0)].concat())].into(),
            photos: (&[], &[]),
            seed: 0,
        };
        let lost = losses(&sight, graph.node(b), &weights);
        let all = (wide - 2 + 4) as f64;
        assert_eq!((lost.len(), lost[0], lost[1], lost[2]), (wide, 4.0 / all, 0.0, 1.0 / all));
    }

    #[test]
    fn in_groups_the_weights_that_read_a_channel_tell() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 1, 1, 4] }, &[]).unwrap();
        let grouped = graph.push("g", Op::Conv(Conv { groups: 2, ..Conv::new(4, 1, 1) }), &[x]).unwrap();
        let deep = graph.push("d", Op::Conv(Conv { groups: 4, ..Conv::new(4, 1, 1) }), &[grouped]).unwrap();
        let sight = Sight {
            before: (&graph, &Weights::default()),
            graph: &graph,
            weights: &Weights::default(),
            ledger: &Ledger::new(&graph),
            reads: &BTreeMap::new(),
            photos: (&[], &[]),
            seed: 0,
        };
        // The first two outputs read the first two channels, the others the last two.
        let weights = [1.0, 2.0, 0.0, 1.0, -3.0, 0.0, 1.0, 2.0];
        assert_eq!(losses(&sight, graph.node(grouped), &weights), [0.05, 0.25, 0.5, 0.2]);
        assert!(losses(&sight, graph.node(deep), &[1.0; 4]).is_empty());
    }

    #[test]
    fn of_every_branch_something_is_left_to_the_end() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 1, 1, 2] }, &[]).unwrap();
        let a = graph.push("a", Op::Conv(Conv::new(6, 1, 1)), &[x]).unwrap();
        graph.push("b", Op::Linear { out_features: 2, bias: true }, &[a]).unwrap();
        let ledger = Ledger::new(&graph);
        let (all, scores) = (ledger.channels(a), [9.0, 0.3, 0.1, 0.2, 0.5, 0.6, 0.4, 0.7, 0.8]);
        let at = |unit: &Unit| all.iter().position(|other| other == unit).unwrap();
        let scores: Vec<f64> = (0..ledger.len())
            .map(|unit| all.iter().position(|own| own.index() == unit).map_or(9.0, |at| scores[at + 1]))
            .collect();
        let places = |order: Vec<Unit>| order.iter().map(at).collect::<Vec<usize>>();
        // Alone all go by what they score; of a slice of the first three one is left until nothing else is.
        assert_eq!(places(order(all, &scores, [all].into_iter())), [1, 2, 0, 5, 3, 4]);
        assert_eq!(places(order(all, &scores, [all, &all[..3]].into_iter())), [1, 2, 5, 3, 0, 4]);
        // One that has other channels too is no such slice.
        assert_eq!(places(order(&all[1..], &scores, [all, &all[..3]].into_iter())), [1, 2, 5, 3, 4]);
    }

    #[test]
    fn criteria_by_hand() {
        let close = |found: f64, exact: f64| assert!((found - exact).abs() < 1e-3 * exact, "{found} {exact}");
        // Rows of a: 1, 1.01, 2.8 of a mean of 4.81 / 3; columns of b: 2, 2, 0.03 of 4.03 / 3.
        let l1 = scored(Criterion::L1);
        close(l1[0], 3.0 / 4.81 + 6.0 / 4.03);
        close(l1[2], 8.4 / 4.81 + 0.09 / 4.03);
        // Rows: 1, 1.00005, 2 of 4.00005 / 3; columns: √2, √2, 0.01·√5.
        let l2 = scored(Criterion::L2);
        close(l2[2], 6.0 / 4.00005 + 3.0 * 0.0223607 / 2.850788);
        // From one another: 0.01, and (2.2, 1.6) and (2.2, 1.59) from the third.
        let distance = scored(Criterion::Distance);
        let far = [7.4f64.sqrt(), (4.84 + 1.59f64.powi(2)).sqrt()];
        let mean = (0.02 + 2.0 * far[0] + 2.0 * far[1]) / 3.0;
        // The columns of b: 2, √(0.99² + 0.98²) and √(0.99² + 1.02²).
        let columns =
            [2.0, (0.99f64.powi(2) + 0.98f64.powi(2)).sqrt(), (0.99f64.powi(2) + 1.02f64.powi(2)).sqrt()];
        let mean_of_columns = 2.0 * columns.iter().sum::<f64>() / 3.0;
        let columns = [columns[0] + columns[1], columns[1] + columns[2]].map(|sum| sum / mean_of_columns);
        close(distance[0], (0.01 + far[0]) / mean + columns[0]);
        close(distance[2], (far[0] + far[1]) / mean + columns[1]);
        // Filters are judged as they were before BatchNorm scaled them: the third ten times as much as the others.
        let l1 = scored_before(Criterion::L1, [1.0, 1.0, 10.0]);
        close(l1[0], 3.0 / 2.29 + 6.0 / 4.03);
        close(l1[2], 0.84 / 2.29 + 0.09 / 4.03);
        let distance = scored_before(Criterion::Distance, [1.0, 1.0, 10.0]);
        let far = [(1.12f64.powi(2) + 0.16f64.powi(2)).sqrt(), (1.12f64.powi(2) + 0.15f64.powi(2)).sqrt()];
        close(distance[2], 3.0 * (far[0] + far[1]) / (0.02 + 2.0 * far[0] + 2.0 * far[1]) + columns[1]);
        assert_eq!(scored_before(Criterion::Surgeon, [1.0, 1.0, 10.0]), scored(Criterion::Surgeon));
    }

    #[test]
    fn what_others_can_stand_for_is_not_missed() {
        // The loud one is mute to the layer behind it, and each of the like ones makes up for the other; sizes say otherwise.
        let surgeon = scored(Criterion::Surgeon);
        assert!(surgeon.iter().all(|score| (0.0..0.05).contains(score)), "{surgeon:?}");
        let l2 = scored(Criterion::L2);
        assert!(l2[2] > 0.5 * l2[0] && surgeon[2] < 0.05 * surgeon[0], "{l2:?} {surgeon:?}");
        // The first adds the same to both logits, so that the loss knows nothing of it.
        let taylor = scored(Criterion::Taylor);
        assert!(taylor[1] > taylor[2] && taylor[2] > taylor[0] && taylor[0] < 1e-9, "{taylor:?}");
        let drawn = scored(Criterion::Random);
        assert!(drawn[0] != drawn[1] && drawn == scored(Criterion::Random));
    }
}
