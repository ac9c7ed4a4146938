//! Which channels go together: DepGraph (Fang et al., arXiv 2301.12900) on a graph that stands still.
//!
//! Every result carries a list of channels. Convolutions and linear layers make new ones, sums and products tie those of
//! their inputs together pair by pair, concatenation joins lists and slices cut them. Shuffles, and convolutions in groups,
//! want as many channels in every group, so those of one place in each group are tied. What is tied is one [`Unit`]: it stays or
//! goes as a whole, and whatever goes, the network that is left fits.

use std::collections::BTreeMap;

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::{Conv, Op},
};

use crate::compress::fold::layer;

/// Channels that stay or go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(u32);

impl Unit {
    /// Its place among all units.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The units of a graph.
#[derive(Clone, Debug)]
pub struct Ledger {
    channels: Vec<Vec<Unit>>,
    fixed: Vec<bool>,
}

/// Units that have a layer in common: of them so many may go, whichever they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The first layer that makes channels of it.
    pub name: String,
    /// Those that may go, in the order in which they are made.
    pub units: Vec<Unit>,
}

impl Ledger {
    /// Follows the channels through a graph.
    pub fn new(graph: &Graph) -> Self {
        let mut ties = Ties::default();
        let mut fixed = Vec::new();
        let mut channels: Vec<Vec<u32>> = Vec::new();
        for node in graph.nodes() {
            let input = |at: usize| -> &[u32] { &channels[node.inputs[at].index()] };
            let made = match &node.op {
                Op::Input { .. } => {
                    let made = ties.fresh(node.shape[3]);
                    fixed.extend(&made);
                    made
                }
                Op::Conv(conv) if depthwise(conv, input(0).len()) => {
                    let each = conv.out_channels / conv.groups;
                    (0..conv.out_channels).map(|channel| input(0)[channel / each]).collect()
                }
                Op::Conv(conv) => {
                    ties.tie_groups(input(0), conv.groups);
                    let made = ties.fresh(conv.out_channels);
                    ties.tie_groups(&made, conv.groups);
                    made
                }
                Op::Linear { out_features, .. } => ties.fresh(*out_features),
                Op::Add | Op::Mul => {
                    input(0).iter().zip(input(1)).for_each(|(&a, &b)| ties.tie(a, b));
                    input(0).to_vec()
                }
                Op::Concat => (0..node.inputs.len()).flat_map(input).copied().collect(),
                Op::Slice { start, len } => input(0)[*start..start + len].to_vec(),
                Op::ChannelShuffle { groups } => {
                    ties.tie_groups(input(0), *groups);
                    let each = input(0).len() / groups;
                    let from = |place: usize| input(0)[place % groups * each + place / groups];
                    (0..input(0).len()).map(from).collect()
                }
                Op::Flatten => input(0).repeat(node.shape[3] / input(0).len()),
                Op::Softmax => {
                    fixed.extend(input(0));
                    input(0).to_vec()
                }
                Op::BatchNorm { .. }
                | Op::Act(_)
                | Op::Pad { .. }
                | Op::MaxPool(_)
                | Op::AvgPool(_)
                | Op::GlobalAvgPool
                | Op::Dropout { .. } => input(0).to_vec(),
            };
            channels.push(made);
        }
        fixed.extend(channels.last().into_iter().flatten());

        let mut units: BTreeMap<u32, Unit> = BTreeMap::new();
        let mut unit = |ties: &mut Ties, channel: u32| {
            let next = Unit(units.len() as u32);
            *units.entry(ties.root(channel)).or_insert(next)
        };
        let channels: Vec<Vec<Unit>> = channels
            .into_iter()
            .map(|made| made.into_iter().map(|channel| unit(&mut ties, channel)).collect())
            .collect();
        let fixed: Vec<Unit> = fixed.into_iter().map(|channel| unit(&mut ties, channel)).collect();
        let mut is_fixed = vec![false; units.len()];
        fixed.into_iter().for_each(|unit| is_fixed[unit.index()] = true);
        // Without one that is all of a result nothing would be left of it.
        for made in &channels {
            if let Some(first) = made.first().filter(|first| made.iter().all(|unit| unit == *first)) {
                is_fixed[first.index()] = true;
            }
        }
        Ledger { channels, fixed: is_fixed }
    }

    /// The unit of each channel of a node's result.
    pub fn channels(&self, id: NodeId) -> &[Unit] {
        &self.channels[id.index()]
    }

    /// Number of units, those that must stay included.
    pub fn len(&self) -> usize {
        self.fixed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty()
    }

    /// Whether a unit must stay, as the input's and the result's.
    pub fn is_fixed(&self, unit: Unit) -> bool {
        self.fixed[unit.index()]
    }

    /// The sets of units that may go.
    pub fn sets(&self, graph: &Graph) -> Vec<Set> {
        let mut ties = Ties::default();
        ties.fresh(self.len());
        let mut made_by: Vec<Option<NodeId>> = vec![None; self.len()];
        for (id, node) in graph.iter().filter(|(_, node)| layer(node)) {
            let free: Vec<Unit> =
                self.channels(id).iter().copied().filter(|unit| !self.is_fixed(*unit)).collect();
            for pair in free.windows(2) {
                ties.tie(pair[0].0, pair[1].0);
            }
            // A depthwise convolution makes no channels of its own.
            let read = || self.channels(node.inputs[0]).len();
            if !matches!(&node.op, Op::Conv(conv) if depthwise(conv, read())) {
                free.iter().for_each(|unit| {
                    made_by[unit.index()].get_or_insert(id);
                });
            }
        }
        let mut sets: BTreeMap<NodeId, Set> = BTreeMap::new();
        let mut first: BTreeMap<u32, NodeId> = BTreeMap::new();
        for (unit, id) in (0..).zip(made_by) {
            let Some(id) = id else { continue };
            let id = *first.entry(ties.root(unit)).or_insert(id);
            let fresh = || Set { name: graph.node(id).name.clone(), units: Vec::new() };
            sets.entry(id).or_insert_with(fresh).units.push(Unit(unit));
        }
        sets.into_values().collect()
    }
}

/// Whether a convolution of so many channels has a filter for each of them, and so makes none of its own.
pub(super) fn depthwise(conv: &Conv, channels: usize) -> bool {
    conv.groups > 1 && conv.groups == channels
}

/// Numbers that are tied to each other: union-find.
#[derive(Default)]
struct Ties {
    above: Vec<u32>,
}

impl Ties {
    fn fresh(&mut self, count: usize) -> Vec<u32> {
        let first = self.above.len() as u32;
        self.above.extend(first..first + count as u32);
        (first..first + count as u32).collect()
    }

    /// The least number that this one is tied to.
    fn root(&mut self, mut number: u32) -> u32 {
        while self.above[number as usize] != number {
            let above = self.above[number as usize];
            self.above[number as usize] = self.above[above as usize];
            number = above;
        }
        number
    }

    fn tie(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.above[a.max(b) as usize] = a.min(b);
    }

    /// Ties those at the same place of every group.
    fn tie_groups(&mut self, numbers: &[u32], groups: usize) {
        let each = numbers.len() / groups.max(1);
        for (place, &number) in numbers.iter().enumerate().skip(each) {
            self.tie(numbers[place % each], number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(graph: &mut Graph, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        graph.push(name, op, inputs).unwrap()
    }

    fn conv(out: usize) -> Op {
        Op::Conv(Conv::new(out, 1, 1))
    }

    #[test]
    fn sums_tie_and_depthwise_convolutions_pass_on() {
        let mut graph = Graph::default();
        let x = push(&mut graph, "x", Op::Input { shape: [1, 4, 4, 3] }, &[]);
        let a = push(&mut graph, "a", conv(6), &[x]);
        let wide = push(&mut graph, "wide", conv(8), &[a]);
        let deep = push(&mut graph, "deep", Op::Conv(Conv { groups: 8, ..Conv::new(16, 1, 1) }), &[wide]);
        let b = push(&mut graph, "b", conv(6), &[deep]);
        let sum = push(&mut graph, "sum", Op::Add, &[a, b]);
        let pool = push(&mut graph, "pool", Op::GlobalAvgPool, &[sum]);
        let head = push(&mut graph, "head", Op::Linear { out_features: 4, bias: true }, &[pool]);
        let ledger = Ledger::new(&graph);
        assert!(ledger.channels(x).iter().chain(ledger.channels(head)).all(|unit| ledger.is_fixed(*unit)));
        assert_eq!(ledger.channels(a), ledger.channels(b));
        // Two filters for each channel.
        let twice: Vec<Unit> = ledger.channels(wide).iter().flat_map(|unit| [*unit; 2]).collect();
        assert_eq!(ledger.channels(deep), twice);
        let sets = ledger.sets(&graph);
        let sizes: Vec<_> = sets.iter().map(|set| (set.name.as_str(), set.units.len())).collect();
        assert_eq!(sizes, [("a", 6), ("wide", 8)]);
    }

    #[test]
    fn joined_channels_stay_apart_and_shuffled_ones_go_in_pairs() {
        let mut graph = Graph::default();
        let x = push(&mut graph, "x", Op::Input { shape: [1, 4, 4, 3] }, &[]);
        let a = push(&mut graph, "a", conv(4), &[x]);
        let b = push(&mut graph, "b", conv(4), &[x]);
        let join = push(&mut graph, "join", Op::Concat, &[a, b]);
        let reader = push(&mut graph, "reader", conv(5), &[join]);
        let apart = Ledger::new(&graph);
        assert_eq!(apart.channels(join), [apart.channels(a), apart.channels(b)].concat());
        assert_eq!(apart.sets(&graph).iter().map(|set| set.units.len()).collect::<Vec<_>>(), [4, 4]);
        assert!(apart.channels(reader).iter().all(|unit| apart.is_fixed(*unit)));

        let mut graph = graph.up_to(join);
        let shuffle = push(&mut graph, "shuffle", Op::ChannelShuffle { groups: 2 }, &[join]);
        let half = push(&mut graph, "half", Op::Slice { start: 0, len: 4 }, &[shuffle]);
        push(&mut graph, "reader", conv(5), &[half]);
        let pairs = Ledger::new(&graph);
        assert_eq!(pairs.channels(a), pairs.channels(b));
        let [first, second] = [pairs.channels(a)[0], pairs.channels(a)[1]];
        // a₀ b₀ a₁ b₁ is the first half.
        assert_eq!(pairs.channels(half), [first, first, second, second]);
        assert_eq!(pairs.sets(&graph).len(), 1);
    }

    #[test]
    fn what_is_all_of_a_result_stays() {
        let mut graph = Graph::default();
        let x = push(&mut graph, "x", Op::Input { shape: [1, 1, 1, 3] }, &[]);
        let one = push(&mut graph, "one", conv(1), &[x]);
        push(&mut graph, "y", conv(2), &[one]);
        assert!(Ledger::new(&graph).sets(&graph).is_empty());
    }
}
