//! How many channels of each set go, and which blocks: those whose loss costs least for the arithmetic that it saves.

use penjing_runtime::{cost, graph::Graph, op::Op};
use serde::{Deserialize, Serialize};

use super::{
    blocks::Block,
    cut::{self, Less},
    ledger::{Ledger, Set, Unit, depthwise},
};
use crate::{Error, Result, compress::SHARES};

/// Shares of a set's units without which the network is tried.
pub(super) const TRIED: [f64; 3] = [0.25, 0.5, 0.75];

/// A multiply-accumulate of a depthwise convolution takes as long as so many of a dense one.
const DEPTHWISE: u64 = 3;

/// Least share of a set that stays.
const LEAST: f64 = 0.125;

/// The loss where nothing would be left of a layer.
pub(super) const ALL: f64 = 1e6;

/// One set, and what the network loses with its units.
pub(super) struct Scanned {
    pub set: Set,
    /// Its units, those that are missed least first.
    pub order: Vec<Unit>,
    /// [Error](super::Distance::error) of the network without each of the [`TRIED`] shares.
    pub losses: [f64; 3],
}

/// A block, and what the network loses without it.
pub(super) struct Around {
    pub block: Block,
    /// [Error](super::Distance::error) of the network without it.
    pub loss: f64,
    /// The sets whose channels it alone has.
    pub own: Vec<usize>,
}

/// What may go.
#[derive(Default)]
pub(super) struct Choices {
    pub sets: Vec<Scanned>,
    pub blocks: Vec<Around>,
}

impl Choices {
    /// How many of each stay if all do: the units of each set, and then 1 for each block.
    pub fn all(&self) -> Vec<usize> {
        self.sets.iter().map(|set| set.order.len()).chain(self.blocks.iter().map(|_| 1)).collect()
    }

    /// What goes, where so many stay.
    pub fn less(&self, ledger: &Ledger, stay: &[usize]) -> Less<'_> {
        let (sets, blocks) = stay.split_at(self.sets.len());
        let mut less = Less::nothing(ledger);
        for (scanned, stay) in self.sets.iter().zip(sets) {
            let count = scanned.order.len() - stay;
            scanned.order[..count].iter().for_each(|unit| less.units[unit.index()] = true);
        }
        less.blocks =
            self.blocks.iter().zip(blocks).filter(|(_, stay)| **stay == 0).map(|(a, _)| &a.block).collect();
        less
    }

    /// What can go next where so many stay: which, how many of it stay then, and what that loses.
    fn next(&self, stay: &[usize]) -> Vec<(usize, usize, f64)> {
        let lost = |at: usize, stay: usize| self.sets[at].loss(self.sets[at].order.len() - stay);
        let mut next = Vec::new();
        for (at, scanned) in self.sets.iter().enumerate() {
            let multiple = scanned.multiple();
            let fewer = stay[at].saturating_sub(1) / multiple * multiple;
            if fewer >= scanned.least() && fewer < stay[at] {
                next.push((at, fewer, lost(at, fewer) - lost(at, stay[at])));
            }
        }
        for (at, around) in (self.sets.len()..).zip(&self.blocks).filter(|(at, _)| stay[*at] > 0) {
            // What its own channels have cost is won back.
            let before: f64 = around.own.iter().map(|&own| lost(own, stay[own])).sum();
            next.push((at, 0, (around.loss - before).max(0.0)));
        }
        next
    }
}

impl Scanned {
    /// The loss without so many units: through the shares that were tried, never falling.
    fn loss(&self, gone: usize) -> f64 {
        let share = gone as f64 / self.order.len() as f64;
        let (mut from, mut low) = (0.0, 0.0);
        for (to, loss) in TRIED.into_iter().zip(self.losses) {
            let high = loss.max(low);
            if share <= to {
                return low + (high - low) * (share - from) / (to - from);
            }
            (from, low) = (to, high);
        }
        // Beyond the last it grows as between the last two, and faster.
        let slope = (low - self.losses[1].min(low)).max(low / 3.0) / 0.25;
        low + 2.0 * slope * (share - from)
    }

    /// What the counts of units that stay are multiples of: what kernels like.
    fn multiple(&self) -> usize {
        match self.order.len() {
            0..16 => 1,
            16..64 => 8,
            _ => 16,
        }
    }

    /// Fewest units that stay.
    fn least(&self) -> usize {
        let least = (self.order.len() as f64 * LEAST).ceil() as usize;
        least.next_multiple_of(self.multiple()).min(self.order.len())
    }
}

/// What a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takes {
    pub macs: u64,
    /// Multiply-accumulates of dense layers that take as long.
    time: u64,
    pub params: u64,
}

impl Takes {
    pub fn of(graph: &Graph) -> Takes {
        let mut takes = Takes { macs: 0, time: 0, params: 0 };
        for (node, cost) in graph.nodes().iter().zip(cost::layers(graph)) {
            let channels = node.inputs.first().map_or(0, |input| graph.shape(*input)[3]);
            let slow = matches!(&node.op, Op::Conv(conv) if depthwise(conv, channels));
            takes.macs += cost.macs;
            takes.time += if slow { DEPTHWISE * cost.macs } else { cost.macs };
            takes.params += cost.params;
        }
        takes
    }
}

/// What is saved for a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saving {
    /// What the arithmetic takes.
    Time,
    /// Weights, and with them bytes of the file.
    Weights,
}

impl Saving {
    fn of(self, takes: Takes) -> u64 {
        match self {
            Saving::Time => takes.time,
            Saving::Weights => takes.params,
        }
    }
}

/// Smaller and smaller networks: [how many stay](Choices::all), and what the network takes then. Each has a few channels or a block
/// less than the one before, those whose loss costs least for what it saves; the last one has an eighth in every layer
/// of the blocks that stay.
pub(super) fn path<'a>(
    graph: &'a Graph,
    ledger: &'a Ledger,
    choices: &'a Choices,
    saving: Saving,
) -> impl Iterator<Item = (Vec<usize>, Takes)> + 'a {
    let mut stay = choices.all();
    let mut now = Takes::of(graph);
    std::iter::from_fn(move || {
        // (loss for what is saved, which, how many of it stay, what it takes)
        let mut best: Option<(f64, usize, usize, Takes)> = None;
        for (at, next, loss) in choices.next(&stay) {
            let mut trial = stay.clone();
            trial[at] = next;
            // Nothing where nothing would be left of a layer.
            let Ok(small) = cut::shape(graph, ledger, &choices.less(ledger, &trial)) else { continue };
            let after = Takes::of(&small);
            let saved = saving.of(now).saturating_sub(saving.of(after));
            let price = loss / saved.max(1) as f64;
            if after.macs < now.macs && best.is_none_or(|(least, ..)| price < least) {
                best = Some((price, at, next, after));
            }
        }
        let (_, at, next, after) = best?;
        (stay[at], now) = (next, after);
        Some((stay.clone(), now))
    })
}

/// [How many stay](Choices::all), so that a share `goal` of `whole` multiply-accumulates is gone.
///
/// # Errors
/// [`Error::Unsupported`], with the nearest share, where not so many can go.
pub(super) fn choose(
    graph: &Graph,
    ledger: &Ledger,
    choices: &Choices,
    goal: f64,
    whole: u64,
) -> Result<Vec<usize>> {
    let mut least = Takes::of(graph).macs;
    if least as f64 <= (1.0 - goal) * whole as f64 {
        return Ok(choices.all());
    }
    for (stay, takes) in path(graph, ledger, choices, Saving::Time) {
        if takes.macs as f64 <= (1.0 - goal) * whole as f64 {
            return Ok(stay);
        }
        least = takes.macs;
    }
    let most = 1.0 - least as f64 / whole as f64;
    let nearest = (100.0 * most).floor() / 100.0;
    let way_out = match SHARES.contains(&nearest) {
        true => format!("the nearest is --prune {nearest:.2}"),
        false => "too little to be worth it: leave --prune out".into(),
    };
    Err(Error::Unsupported(format!(
        "at most {most:.3} of the multiply-accumulates can go in one step, which leaves an eighth of each set of channels, rounded up \
         to 8 or 16; {way_out}"
    )))
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::Conv;

    use super::*;

    /// Three convolutions of 64 channels, of which the last one is the result.
    fn chain() -> (Graph, Ledger, Choices) {
        let mut graph = Graph::default();
        let mut last = graph.push("x", Op::Input { shape: [1, 4, 4, 64] }, &[]).unwrap();
        for name in ["a", "b", "c"] {
            last = graph.push(name, Op::Conv(Conv::new(64, 1, 1)), &[last]).unwrap();
        }
        let ledger = Ledger::new(&graph);
        let scanned = ledger.sets(&graph).into_iter().zip([[0.1, 0.2, 0.4], [1.0, 2.0, 4.0]]);
        let sets = scanned.map(|(set, losses)| Scanned { order: set.units.clone(), set, losses }).collect();
        (graph, ledger, Choices { sets, blocks: Vec::new() })
    }

    #[test]
    fn the_cheapest_go_first_in_steps_that_kernels_like() {
        let (graph, ledger, choices) = chain();
        let whole = Takes::of(&graph).macs;
        // a and b are read and made: a quarter of a alone saves (2·16·64 of 3·64·64) a sixth.
        assert_eq!(choose(&graph, &ledger, &choices, 0.1, whole).unwrap(), [48, 64]);
        // Of what was twice as much, half is gone already.
        assert_eq!(choose(&graph, &ledger, &choices, 0.5, 2 * whole).unwrap(), [64, 64]);
        let stay = choose(&graph, &ledger, &choices, 0.5, whole).unwrap();
        assert!(stay[0] < stay[1] && stay.iter().all(|count| count % 16 == 0), "{stay:?}");
        let small = cut::shape(&graph, &ledger, &choices.less(&ledger, &stay)).unwrap();
        let share = Takes::of(&small).macs as f64 / Takes::of(&graph).macs as f64;
        assert!((0.35..=0.5).contains(&share), "{share}");
    }

    #[test]
    fn a_path_falls_to_an_eighth_and_saves_what_it_is_to_save() {
        // A large map before a small one: the first layer takes the time, the second has the weights.
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 16, 16, 8] }, &[]).unwrap();
        let x = graph.push("a", Op::Conv(Conv::new(64, 1, 1)), &[x]).unwrap();
        let x = graph.push("b", Op::Conv(Conv::new(64, 1, 4)), &[x]).unwrap();
        graph.push("c", Op::Conv(Conv::new(64, 1, 1)), &[x]).unwrap();
        let ledger = Ledger::new(&graph);
        let scanned = ledger.sets(&graph).into_iter();
        let sets =
            scanned.map(|set| Scanned { order: set.units.clone(), set, losses: [0.1, 0.2, 0.4] }).collect();
        let choices = Choices { sets, blocks: Vec::new() };
        for (saving, first) in [(Saving::Time, [48, 64]), (Saving::Weights, [64, 48])] {
            let path: Vec<_> = path(&graph, &ledger, &choices, saving).collect();
            assert_eq!(path[0].0, first, "{saving:?}");
            assert!(path.iter().map(|(_, takes)| takes.macs).rev().is_sorted());
            assert_eq!(path.last().unwrap().0, [16, 16]);
        }
    }

    #[test]
    fn what_cannot_go_is_said_with_what_can() {
        let (graph, ledger, choices) = chain();
        let whole = Takes::of(&graph).macs;
        let error = choose(&graph, &ledger, &choices, 0.9, whole).unwrap_err().to_string();
        // 16 of each stay: 64·16 + 16·16 + 16·64 of 3·64·64.
        assert!(error.contains("at most 0.812 of") && error.contains("nearest is --prune 0.81"), "{error}");
        assert!(choose(&graph, &ledger, &choices, 0.81, whole).is_ok());
    }

    #[test]
    fn a_block_goes_where_that_is_cheaper_than_its_channels() {
        // A stem, a residual block of 64 channels inside, and a head.
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 4, 4, 16] }, &[]).unwrap();
        let stem = graph.push("stem", Op::Conv(Conv::new(16, 1, 1)), &[x]).unwrap();
        let wide = graph.push("wide", Op::Conv(Conv::new(64, 1, 1)), &[stem]).unwrap();
        let narrow = graph.push("narrow", Op::Conv(Conv::new(16, 1, 1)), &[wide]).unwrap();
        let sum = graph.push("sum", Op::Add, &[stem, narrow]).unwrap();
        graph.push("head", Op::Conv(Conv::new(16, 1, 1)), &[sum]).unwrap();
        let ledger = Ledger::new(&graph);
        let sets: Vec<Scanned> = ledger
            .sets(&graph)
            .into_iter()
            .zip([[2.0, 4.0, 8.0], [0.5, 1.0, 2.0]])
            .map(|(set, losses)| Scanned { order: set.units.clone(), set, losses })
            .collect();
        assert_eq!(sets.iter().map(|set| set.set.name.as_str()).collect::<Vec<_>>(), ["stem", "wide"]);
        let with = |loss: f64, sets: Vec<Scanned>| {
            let block = Block::all(&graph).remove(0);
            Choices { sets, blocks: vec![Around { block, loss, own: vec![1] }] }
        };
        let cheap = with(1.0, sets);
        assert_eq!(cheap.all(), [16, 64, 1]);
        let first: Vec<_> =
            path(&graph, &ledger, &cheap, Saving::Time).map(|(stay, _)| stay).take(2).collect();
        // Then nothing is won by channels that went with it, and of the others eight go.
        assert_eq!(first, [[16, 64, 0], [8, 64, 0]]);
        let small = cut::shape(&graph, &ledger, &cheap.less(&ledger, &first[0])).unwrap();
        let names: Vec<&str> = small.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["x", "stem", "head"]);
        // A dear one loses its channels first; what they have cost is then no price of the block.
        let dear = with(4.0, cheap.sets);
        let path: Vec<_> = path(&graph, &ledger, &dear, Saving::Time).map(|(stay, _)| stay).collect();
        assert_eq!(path[0], [16, 48, 1]);
        assert!(dear.next(&[16, 16, 1]).contains(&(2, 0, 2.0)));
        assert_eq!(path.last().unwrap()[2], 0);
    }

    #[test]
    fn losses_never_fall() {
        let (_, _, mut choices) = chain();
        let set = &mut choices.sets[0];
        set.losses = [0.4, 0.1, 0.8];
        let losses: Vec<f64> = [0, 8, 16, 32, 40, 48, 56].map(|gone| set.loss(gone)).to_vec();
        assert_eq!(losses[..4], [0.0, 0.2, 0.4, 0.4]);
        assert!(losses.is_sorted() && losses[6] > 2.0 * losses[5] - losses[4], "{losses:?}");
        set.losses = [ALL; 3];
        assert!(set.loss(0) == 0.0 && set.loss(64).is_finite());
    }

    #[test]
    fn depthwise_arithmetic_counts_for_more_time() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 4, 4, 8] }, &[]).unwrap();
        let deep = Conv { groups: 8, padding: [1; 4], ..Conv::new(8, 3, 1) };
        let deep = graph.push("deep", Op::Conv(deep), &[x]).unwrap();
        graph.push("dense", Op::Conv(Conv::new(4, 1, 1)), &[deep]).unwrap();
        let (own, dense) = (16 * 8 * 9, 16 * 8 * 4);
        let takes = Takes { macs: own + dense, time: 3 * own + dense, params: 8 * 9 + 8 * 4 };
        assert_eq!(Takes::of(&graph), takes);
    }
}
