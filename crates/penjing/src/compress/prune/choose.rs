//! How many channels of each set go: those whose loss costs least for the arithmetic that it saves.

use penjing_runtime::{cost, graph::Graph, op::Op};
use serde::{Deserialize, Serialize};

use super::{
    cut,
    ledger::{Ledger, Set, Unit, depthwise},
};
use crate::{Error, Result};

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

/// Smaller and smaller networks: how many units of each set stay, and what the network takes then. Each has a few channels fewer
/// than the one before, those whose loss costs least for what it saves; the last one has an eighth in every layer.
pub(super) fn path<'a>(
    graph: &'a Graph,
    ledger: &'a Ledger,
    scanned: &'a [Scanned],
    saving: Saving,
) -> impl Iterator<Item = (Vec<usize>, Takes)> + 'a {
    let mut stay: Vec<usize> = scanned.iter().map(|scanned| scanned.order.len()).collect();
    let mut now = Takes::of(graph);
    // Nothing where nothing would be left of a layer.
    let small = |stay: &[usize]| -> Option<Takes> {
        let gone = gone(ledger, scanned, stay);
        cut::shape(graph, ledger, &|unit| !gone[unit.index()]).ok().map(|small| Takes::of(&small))
    };
    std::iter::from_fn(move || {
        // (loss for what is saved, set, units that stay, what it takes)
        let mut best: Option<(f64, usize, usize, Takes)> = None;
        for (at, scanned) in scanned.iter().enumerate() {
            let multiple = scanned.multiple();
            let next = stay[at].saturating_sub(1) / multiple * multiple;
            if next < scanned.least() || next >= stay[at] {
                continue;
            }
            let mut trial = stay.clone();
            trial[at] = next;
            let Some(after) = small(&trial) else { continue };
            let size = scanned.order.len();
            let loss = scanned.loss(size - next) - scanned.loss(size - stay[at]);
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

/// How many units of each set stay, so that a share `goal` of `whole` multiply-accumulates is gone.
///
/// # Errors
/// [`Error::Unsupported`], with the nearest share, where not so many can go.
pub(super) fn choose(
    graph: &Graph,
    ledger: &Ledger,
    scanned: &[Scanned],
    goal: f64,
    whole: u64,
) -> Result<Vec<usize>> {
    let mut least = Takes::of(graph).macs;
    if least as f64 <= (1.0 - goal) * whole as f64 {
        return Ok(scanned.iter().map(|scanned| scanned.order.len()).collect());
    }
    for (stay, takes) in path(graph, ledger, scanned, Saving::Time) {
        if takes.macs as f64 <= (1.0 - goal) * whole as f64 {
            return Ok(stay);
        }
        least = takes.macs;
    }
    let most = 1.0 - least as f64 / whole as f64;
    Err(Error::Unsupported(format!(
        "at most {most:.3} of the multiply-accumulates can go in one step, which leaves an eighth of each set of channels, rounded up \
         to 8 or 16; the nearest is --prune {:.2}",
        (100.0 * most).floor() / 100.0
    )))
}

/// For each unit whether it goes, where so many of each set stay.
pub(super) fn gone(ledger: &Ledger, scanned: &[Scanned], stay: &[usize]) -> Vec<bool> {
    let mut gone = vec![false; ledger.len()];
    for (scanned, stay) in scanned.iter().zip(stay) {
        let count = scanned.order.len() - stay;
        scanned.order[..count].iter().for_each(|unit| gone[unit.index()] = true);
    }
    gone
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::Conv;

    use super::*;

    /// Three convolutions of 64 channels, of which the last one is the result.
    fn chain() -> (Graph, Ledger, Vec<Scanned>) {
        let mut graph = Graph::default();
        let mut last = graph.push("x", Op::Input { shape: [1, 4, 4, 64] }, &[]).unwrap();
        for name in ["a", "b", "c"] {
            last = graph.push(name, Op::Conv(Conv::new(64, 1, 1)), &[last]).unwrap();
        }
        let ledger = Ledger::new(&graph);
        let scanned = ledger.sets(&graph).into_iter().zip([[0.1, 0.2, 0.4], [1.0, 2.0, 4.0]]);
        let scanned =
            scanned.map(|(set, losses)| Scanned { order: set.units.clone(), set, losses }).collect();
        (graph, ledger, scanned)
    }

    #[test]
    fn the_cheapest_go_first_in_steps_that_kernels_like() {
        let (graph, ledger, scanned) = chain();
        let whole = Takes::of(&graph).macs;
        // a and b are read and made: a quarter of a alone saves (2·16·64 of 3·64·64) a sixth.
        assert_eq!(choose(&graph, &ledger, &scanned, 0.1, whole).unwrap(), [48, 64]);
        // Of what was twice as much, half is gone already.
        assert_eq!(choose(&graph, &ledger, &scanned, 0.5, 2 * whole).unwrap(), [64, 64]);
        let stay = choose(&graph, &ledger, &scanned, 0.5, whole).unwrap();
        assert!(stay[0] < stay[1] && stay.iter().all(|count| count % 16 == 0), "{stay:?}");
        let gone = gone(&ledger, &scanned, &stay);
        let small = cut::shape(&graph, &ledger, &|unit| !gone[unit.index()]).unwrap();
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
        let scanned: Vec<Scanned> =
            scanned.map(|set| Scanned { order: set.units.clone(), set, losses: [0.1, 0.2, 0.4] }).collect();
        for (saving, first) in [(Saving::Time, [48, 64]), (Saving::Weights, [64, 48])] {
            let path: Vec<_> = path(&graph, &ledger, &scanned, saving).collect();
            assert_eq!(path[0].0, first, "{saving:?}");
            assert!(path.iter().map(|(_, takes)| takes.macs).rev().is_sorted());
            assert_eq!(path.last().unwrap().0, [16, 16]);
        }
    }

    #[test]
    fn what_cannot_go_is_said_with_what_can() {
        let (graph, ledger, scanned) = chain();
        let whole = Takes::of(&graph).macs;
        let error = choose(&graph, &ledger, &scanned, 0.9, whole).unwrap_err().to_string();
        // 16 of each stay: 64·16 + 16·16 + 16·64 of 3·64·64.
        assert!(error.contains("at most 0.812 of") && error.contains("nearest is --prune 0.81"), "{error}");
        assert!(choose(&graph, &ledger, &scanned, 0.81, whole).is_ok());
    }

    #[test]
    fn losses_never_fall() {
        let (_, _, mut scanned) = chain();
        let set = &mut scanned[0];
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
