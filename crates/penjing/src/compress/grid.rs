//! Which results are kept in 8 bits, which of them on one grid, and which grid suits what was seen of them.

use std::collections::BTreeMap;

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::{Act, Conv, Op},
    quant::Quant,
};
use serde::Serialize;

use super::{
    fold::{layer, source, users},
    observe::{Observations, Seen},
};

/// How a range is made of what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranging {
    /// From the least to the greatest value.
    MinMax,
    /// Without 5 of 100,000 values at either end.
    Percentile,
    /// With the least mean squared error.
    Mse,
    /// With the least Kullback–Leibler divergence between what was seen and what is left of it (Migacz, "8-bit inference
    /// with TensorRT", 2017).
    Entropy,
}

impl Ranging {
    /// All of them.
    pub const ALL: [Ranging; 4] = [Ranging::MinMax, Ranging::Percentile, Ranging::Mse, Ranging::Entropy];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Ranging::MinMax => "min_max",
            Ranging::Percentile => "percentile",
            Ranging::Mse => "mse",
            Ranging::Entropy => "entropy",
        }
    }

    /// The grid for a group of results.
    fn grid(self, group: &[&Seen]) -> Quant {
        let low = group.iter().fold(0f32, |low, seen| low.min(seen.low));
        let high = group.iter().fold(0f32, |high, seen| high.max(seen.high));
        match self {
            Ranging::MinMax => Quant::over(low, high),
            Ranging::Percentile => percentile(group),
            Ranging::Mse => best(low, high, |quant| squared_error(group, quant)),
            Ranging::Entropy => best(low, high, |quant| divergence(group, quant)),
        }
    }
}

/// The results that are kept in 8 bits, in groups that share a grid.
///
/// That is every result that was seen, but for three kinds: what a clamping activation alone reads, since both are one
/// step; what follows the closing layer, and that layer's, since nothing rounds them; and what only passes on
/// another's result. Concatenations, maximum pools, slices, shuffles and borders move bytes, and so share the grid of
/// what they read.
pub fn groups(graph: &Graph, seen: &Observations) -> Vec<Vec<NodeId>> {
    let users = users(graph);
    let last = graph.classifier().map(|(head, _)| head).or_else(|| class_map(graph)).or(graph.output());
    let kept = |id: NodeId| {
        let node = graph.node(id);
        let passes_on = matches!(node.op, Op::Flatten | Op::Dropout { .. });
        let clamped = match users[id.index()][..] {
            [user] => matches!(graph.node(user).op, Op::Act(act) if act.clamp().is_some()),
            _ => false,
        };
        let drawn_in = clamped && (layer(node) || matches!(node.op, Op::Add | Op::BatchNorm { .. }));
        let closing = last.is_some_and(|last| id >= last);
        seen.contains_key(&id) && !passes_on && !drawn_in && !closing
    };
    // The first node of a group stands for it.
    let mut first: Vec<NodeId> = graph.iter().map(|(id, _)| id).collect();
    let find = |first: &[NodeId], mut id: NodeId| {
        while first[id.index()] != id {
            id = first[id.index()];
        }
        id
    };
    for (id, node) in graph.iter().filter(|(id, _)| kept(*id)) {
        let moves = match node.op {
            Op::Concat | Op::MaxPool(_) | Op::Slice { .. } | Op::ChannelShuffle { .. } | Op::Pad { .. } => {
                true
            }
            Op::AvgPool(_) | Op::Flatten | Op::Dropout { .. } => true,
            Op::Input { .. }
            | Op::Conv(_)
            | Op::BatchNorm { .. }
            | Op::Act(_)
            | Op::Add
            | Op::Mul
            | Op::GlobalAvgPool
            | Op::Linear { .. }
            | Op::Softmax => false,
        };
        for &input in node.inputs.iter().filter(|_| moves) {
            let (a, b) = (find(&first, id), find(&first, source(graph, input)));
            first[a.max(b).index()] = a.min(b);
        }
    }
    let mut groups: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for (id, _) in graph.iter().filter(|(id, _)| kept(*id)) {
        groups.entry(find(&first, id)).or_default().push(id);
    }
    groups.into_values().collect()
}

/// The pointwise convolution that tells classes for each place (SqueezeNet), where nothing but the mean over places and its like
/// comes after it.
fn class_map(graph: &Graph) -> Option<NodeId> {
    let mut at = graph.output()?;
    loop {
        let node = graph.node(at);
        match &node.op {
            Op::Conv(conv) => {
                let Conv { kernel, stride, padding, groups, .. } = *conv;
                let pointwise = (kernel, stride, padding, groups) == ([1; 2], [1; 2], [0; 4], 1);
                return pointwise.then_some(at);
            }
            Op::Act(_) | Op::GlobalAvgPool | Op::Flatten | Op::Dropout { .. } | Op::Softmax => {
                let before = node.inputs[0];
                // Nobody else reads it.
                (before.index() + 1 == at.index()).then_some(())?;
                at = before;
            }
            _ => return None,
        }
    }
}

/// A grid for every result that is kept in 8 bits.
pub fn grids(graph: &Graph, seen: &Observations, ranging: Ranging) -> BTreeMap<NodeId, Quant> {
    let mut grids = BTreeMap::new();
    for group in groups(graph, seen) {
        let observed: Vec<&Seen> = group.iter().filter_map(|id| seen.get(id)).collect();
        let exact = group.iter().any(|&id| is_bounded(&graph.node(id).op));
        let quant = if exact { Ranging::MinMax } else { ranging }.grid(&observed);
        grids.extend(group.into_iter().map(|id| (id, quant)));
    }
    grids
}

/// Whether values cannot be far out: what the pixels contract makes, and what a sigmoid leaves.
fn is_bounded(op: &Op) -> bool {
    matches!(op, Op::Input { .. } | Op::Act(Act::Sigmoid | Act::HSigmoid))
}

/// The range that leaves so few values out at either end.
fn percentile(group: &[&Seen]) -> Quant {
    const OUT: f64 = 5e-5;
    let mut values: Vec<(f32, u64)> = group.iter().flat_map(|seen| seen.values()).collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: u64 = values.iter().map(|(_, count)| count).sum();
    let low = end(values.iter(), OUT * all as f64);
    let high = end(values.iter().rev(), OUT * all as f64);
    Quant::over(low, high)
}

/// The first value that more than `out` others come before.
fn end<'a>(mut values: impl Iterator<Item = &'a (f32, u64)>, out: f64) -> f32 {
    let mut before = 0;
    let found = values.find(|(_, count)| {
        before += count;
        before as f64 > out
    });
    found.map_or(0.0, |(value, _)| *value)
}

/// The range within low..high with the least loss, of equal ones the widest: one end is moved after the other, twice.
fn best(low: f32, high: f32, loss: impl Fn(Quant) -> f64) -> Quant {
    let (mut ends, mut least) = ([low, high], loss(Quant::over(low, high)));
    for end in [1, 0, 1, 0] {
        for step in 0..60 {
            let mut tried = ends;
            tried[end] = [low, high][end] * 0.95f32.powi(step);
            let loss = loss(Quant::over(tried[0], tried[1]));
            if loss < least * (1.0 - 1e-6) {
                (ends, least) = (tried, loss);
            }
        }
    }
    Quant::over(ends[0], ends[1])
}

fn squared_error(group: &[&Seen], quant: Quant) -> f64 {
    let (low, high) = (quant.value(0), quant.value(255));
    // Within the range values lie anywhere between two steps.
    let inside = f64::from(quant.scale).powi(2) / 12.0;
    let error = |(value, count): (f32, u64)| {
        let off = f64::from(value - value.clamp(low, high));
        count as f64 * (off * off + inside)
    };
    group.iter().flat_map(|seen| seen.values()).map(error).sum()
}

/// Σ p·ln(p/q) over the bins within the range: p counts what is cut off in the outermost bins, q leaves it out and spreads what
/// falls on a byte evenly over the bins that fell on it. Zeros, which every grid holds, do not count: there are so many behind a
/// ReLU that to tell them from their neighbours would be worth any cut.
fn divergence(group: &[&Seen], quant: Quant) -> f64 {
    let (low, high) = (quant.value(0), quant.value(255));
    let mut sum = 0.0;
    for seen in group {
        let width = (seen.high - seen.low) / super::observe::BINS as f32;
        let values = || seen.values().filter(|(value, _)| value.abs() > width);
        let within: Vec<(f32, u64)> = values().filter(|(v, _)| (low..=high).contains(v)).collect();
        if within.is_empty() {
            continue;
        }
        let (mut counts, mut bins) = ([0u64; 256], [0u64; 256]);
        for &(value, count) in &within {
            counts[usize::from(quant.byte(value))] += count;
            bins[usize::from(quant.byte(value))] += 1;
        }
        let all = values().map(|(_, count)| count).sum::<u64>() as f64;
        let kept = within.iter().map(|(_, count)| count).sum::<u64>() as f64;
        let cut = |below: bool| {
            let out = values().filter(|(v, _)| if below { *v < low } else { *v > high });
            out.map(|(_, count)| count).sum::<u64>()
        };
        let (below, above) = (cut(true), cut(false));
        for (at, &(value, count)) in within.iter().enumerate() {
            let ends = [(0, below), (within.len() - 1, above)];
            let out: u64 = ends.iter().filter(|(end, _)| *end == at).map(|(_, out)| out).sum();
            let byte = usize::from(quant.byte(value));
            let p = (count + out) as f64 / all;
            let q = counts[byte] as f64 / bins[byte] as f64 / kept;
            sum += p * (p / q).ln();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::{AvgPool, Pool};

    use super::*;

    /// Values of a normal distribution cut at four deviations, and now and then one far out.
    fn seen(outlier: f32) -> Seen {
        let (low, high) = (-4.0, outlier);
        let bins = super::super::observe::BINS;
        let width = (high - low) / bins as f32;
        let density = |value: f32| if value < 4.0 { (-value * value / 2.0).exp() } else { 0.0 };
        let mut counts: Vec<u64> =
            (0..bins).map(|bin| (1e6 * density(low + (bin as f32 + 0.5) * width)) as u64).collect();
        counts[bins - 1] += 3;
        Seen { low, high, bins: counts, means: vec![0.0] }
    }

    #[test]
    fn far_values_widen_only_the_plain_range() {
        let seen = seen(60.0);
        let high = |ranging: Ranging| ranging.grid(&[&seen]).value(255);
        assert!((high(Ranging::MinMax) - 60.0).abs() < 0.2);
        for ranging in [Ranging::Percentile, Ranging::Mse, Ranging::Entropy] {
            assert!((2.5..30.0).contains(&high(ranging)), "{ranging:?}: {}", high(ranging));
            assert!(ranging.grid(&[&seen]).value(0) < -2.0);
        }
        // No other way has a smaller error.
        let mse = squared_error(&[&seen], Ranging::Mse.grid(&[&seen]));
        for ranging in Ranging::ALL {
            assert!(mse <= squared_error(&[&seen], ranging.grid(&[&seen])) * 1.01, "{ranging:?}");
        }
    }

    #[test]
    fn what_moves_bytes_shares_a_grid() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 8, 8, 4] }, &[]).unwrap();
        let conv = graph.push("conv", Op::Conv(Conv::new(4, 1, 1)), &[x]).unwrap();
        let relu = graph.push("relu", Op::Act(Act::Relu), &[conv]).unwrap();
        let other = graph.push("other", Op::Conv(Conv::new(4, 1, 1)), &[x]).unwrap();
        let swish = graph.push("swish", Op::Act(Act::HSwish), &[other]).unwrap();
        let both = graph.push("both", Op::Concat, &[relu, swish]).unwrap();
        let pool = Pool { kernel: [2, 2], stride: [2, 2], padding: [0; 4], ceil_mode: false };
        let mean = AvgPool { window: pool, count_include_pad: false };
        let mean = graph.push("mean", Op::AvgPool(mean), &[both]).unwrap();
        let pooled = graph.push("pooled", Op::GlobalAvgPool, &[mean]).unwrap();
        let flat = graph.push("flat", Op::Flatten, &[pooled]).unwrap();
        let head = graph.push("head", Op::Linear { out_features: 3, bias: true }, &[flat]).unwrap();
        graph.push("softmax", Op::Softmax, &[head]).unwrap();
        let seen: Observations = graph.iter().map(|(id, _)| (id, seen(4.0))).collect();
        // Not the convolution before the ReLU, what passes on, nor what comes last.
        assert_eq!(
            groups(&graph, &seen),
            [vec![x], vec![relu, swish, both, mean], vec![other], vec![pooled], vec![head]]
        );
    }

    #[test]
    fn nothing_rounds_a_batchnorm_before_a_relu_or_the_map_of_classes() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 8, 8, 4] }, &[]).unwrap();
        let both = graph.push("both", Op::Concat, &[x, x]).unwrap();
        let norm = graph.push("norm", Op::BatchNorm { eps: 1e-3 }, &[both]).unwrap();
        let relu = graph.push("relu", Op::Act(Act::Relu), &[norm]).unwrap();
        let alone = graph.push("alone", Op::BatchNorm { eps: 1e-3 }, &[relu]).unwrap();
        let classes = graph.push("classes", Op::Conv(Conv::new(3, 1, 1)), &[alone]).unwrap();
        let cut = graph.push("cut", Op::Act(Act::Relu), &[classes]).unwrap();
        graph.push("mean", Op::GlobalAvgPool, &[cut]).unwrap();
        let seen = |graph: &Graph| graph.iter().map(|(id, _)| (id, seen(4.0))).collect::<Observations>();
        assert_eq!(groups(&graph, &seen(&graph)), [vec![x, both], vec![relu], vec![alone]]);
        // Only products give floats of bytes.
        let mut wide = graph.up_to(alone);
        let classes = wide.push("classes", Op::Conv(Conv::new(3, 3, 1)), &[alone]).unwrap();
        wide.push("mean", Op::GlobalAvgPool, &[classes]).unwrap();
        assert_eq!(groups(&wide, &seen(&wide))[3..], [vec![classes]]);
    }
}
