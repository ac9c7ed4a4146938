//! What goes through a network: ranges, histograms and means of every result, over photos.

use std::collections::BTreeMap;

use penjing_runtime::{
    Isa, Lower, PlanBuf, Serial, Session,
    graph::{Graph, NodeId},
    plan::Made,
    tensor::Weights,
};
use rayon::prelude::*;

use crate::{Error, Result, progress::Progress, threads::Threads};

/// Bins of a histogram.
pub const BINS: usize = 2048;

/// Photos that one thread sums up before sums are merged: in the order of the photos, whatever the threads.
const CHUNK: usize = 8;

/// One result, over all photos.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Least value.
    pub low: f32,
    /// Greatest value.
    pub high: f32,
    /// How many values fell into each of so many equal bins from `low` to `high`.
    pub bins: Vec<u64>,
    /// Mean of each channel.
    pub means: Vec<f32>,
}

/// What was seen of each result that stands by itself when nothing is drawn together.
pub type Observations = BTreeMap<NodeId, Seen>;

/// Runs a network on `inputs`, tensors `[H,W,C]`, and watches.
///
/// # Errors
/// [`Error::Unsupported`] when it cannot be run; [`Error::Interrupted`].
pub fn observe(
    graph: &Graph,
    weights: &Weights,
    inputs: &[Vec<f32>],
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Observations> {
    let plan = PlanBuf::lower_with(graph, weights, Lower::plain(1))
        .map_err(|error| Error::Unsupported(format!("the network cannot be run: {error}")))?;
    let plan = std::sync::Arc::new(plan);
    let channels = |id: NodeId| graph.shape(id)[3];
    let watch = |chunk: &[Vec<f32>], see: &mut dyn FnMut(NodeId, &[f32])| {
        let mut session = Session::new(plan.clone(), Isa::detect());
        for input in chunk {
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            session.input().copy_from_slice(input);
            session.run_watched(&Serial, &mut |id, made| {
                if let Made::Floats(values) = made {
                    see(id, values);
                }
            });
            progress.advance(1);
        }
        Ok(())
    };

    progress.begin("watching the network", 2 * inputs.len());
    // Ranges and sums first, since bins want to know where they lie.
    let ranges = |chunk: &[Vec<f32>]| {
        let mut ranges: BTreeMap<NodeId, (f32, f32, Vec<f64>)> = BTreeMap::new();
        watch(chunk, &mut |id, values| {
            let fresh = || (f32::INFINITY, f32::NEG_INFINITY, vec![0.0; channels(id)]);
            let (low, high, sums) = ranges.entry(id).or_insert_with(fresh);
            for pixel in values.chunks_exact(sums.len()) {
                for (sum, &v) in sums.iter_mut().zip(pixel) {
                    *sum += f64::from(v);
                    *low = low.min(v);
                    *high = high.max(v);
                }
            }
        })?;
        Ok(ranges)
    };
    let parts: Result<Vec<_>> = threads.install(|| inputs.par_chunks(CHUNK).map(ranges).collect());
    let mut seen: Observations = BTreeMap::new();
    let mut sums: BTreeMap<NodeId, Vec<f64>> = BTreeMap::new();
    for (id, (low, high, part)) in parts?.into_iter().flatten() {
        let fresh = || Seen { low, high, bins: vec![0; BINS], means: Vec::new() };
        let node = seen.entry(id).or_insert_with(fresh);
        (node.low, node.high) = (node.low.min(low), node.high.max(high));
        let sums = sums.entry(id).or_insert_with(|| vec![0.0; part.len()]);
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    for (id, node) in &mut seen {
        let [_, h, w, _] = graph.shape(*id);
        let count = (inputs.len() * h * w) as f64;
        node.means = sums[id].iter().map(|sum| (sum / count) as f32).collect();
    }
    let bins = |chunk: &[Vec<f32>]| {
        let mut bins: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        watch(chunk, &mut |id, values| {
            let bins = bins.entry(id).or_insert_with(|| vec![0; BINS]);
            let (low, scale) = (seen[&id].low, bins_per_unit(&seen[&id]));
            values.iter().for_each(|v| bins[(((v - low) * scale) as usize).min(BINS - 1)] += 1);
        })?;
        Ok(bins)
    };
    // Counts come to the same in any order, so that nobody keeps them for each chunk.
    let sums = |mut all: BTreeMap<NodeId, Vec<u64>>, part: BTreeMap<NodeId, Vec<u64>>| {
        for (id, part) in part {
            let bins = all.entry(id).or_insert_with(|| vec![0; BINS]);
            bins.iter_mut().zip(part).for_each(|(bin, part)| *bin += part);
        }
        Ok(all)
    };
    let all: Result<_> =
        threads.install(|| inputs.par_chunks(CHUNK).map(bins).try_reduce(BTreeMap::new, sums));
    progress.end();
    for (id, bins) in all? {
        seen.get_mut(&id).expect("it was seen before").bins = bins;
    }
    Ok(seen)
}

fn bins_per_unit(seen: &Seen) -> f32 {
    let width = seen.high - seen.low;
    if width > 0.0 { BINS as f32 / width } else { 0.0 }
}

impl Seen {
    /// Takes in what else there can be.
    pub fn widen(&mut self, [low, high]: [f32; 2]) {
        let seen = self.clone();
        (self.low, self.high) = (seen.low.min(low), seen.high.max(high));
        if (self.low, self.high) != (seen.low, seen.high) {
            let per_unit = bins_per_unit(self);
            self.bins.fill(0);
            for (value, count) in seen.values() {
                self.bins[(((value - self.low) * per_unit) as usize).min(BINS - 1)] += count;
            }
        }
    }

    /// The middle of each bin and how many values it holds, of those that hold any.
    pub fn values(&self) -> impl Iterator<Item = (f32, u64)> + '_ {
        let width = (self.high - self.low) / BINS as f32;
        let low = self.low;
        self.bins
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(move |(bin, &count)| (low + (bin as f32 + 0.5) * width, count))
    }
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::{Act, Conv, Op};

    use super::*;
    use crate::{progress::Quiet, zoo};

    #[test]
    fn every_result_is_seen_before_and_behind_its_activation() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 2, 2, 2] }, &[]).unwrap();
        let conv = graph.push("conv", Op::Conv(Conv::new(2, 1, 1)), &[x]).unwrap();
        let act = graph.push("act", Op::Act(Act::Relu), &[conv]).unwrap();
        let sum = graph.push("sum", Op::Add, &[act, x]).unwrap();
        let mut weights = zoo::random_weights(&graph, 0);
        let w = weights.get_mut("conv.weight").unwrap();
        w.data = penjing_runtime::tensor::Data::F32(vec![1.0, 0.0, 0.0, -1.0]);
        let input = |v: f32| vec![v, 1.0, 0.0, 2.0, 3.0, 0.0, 1.0, 1.0];
        let inputs: Vec<_> = (0..20).map(|i| input(i as f32)).collect();
        let one = observe(&graph, &weights, &inputs, &Threads::new(Some(1)).unwrap(), &Quiet).unwrap();
        let three = observe(&graph, &weights, &inputs, &Threads::new(Some(3)).unwrap(), &Quiet).unwrap();
        assert!(one == three, "threads change nothing");
        let range = |id| (one[&id].low, one[&id].high);
        assert_eq!(range(x), (0.0, 19.0));
        assert_eq!(range(conv), (-2.0, 19.0));
        assert_eq!(range(act), (0.0, 19.0));
        assert_eq!(range(sum), (0.0, 38.0));
        // (9.5 + 0 + 3 + 1) / 4, and −(1 + 2 + 0 + 1) / 4.
        assert_eq!(one[&conv].means, [3.375, -1.0]);
        assert_eq!(one[&conv].bins.iter().sum::<u64>(), 20 * 8);
        let last = one[&conv].values().last().unwrap();
        assert!(last.0 > 18.9 && last.1 == 1, "{last:?}");
    }

    #[test]
    fn a_wider_range_holds_the_same_values() {
        let mut bins = vec![0; BINS];
        (bins[0], bins[BINS / 2], bins[BINS - 1]) = (5, 7, 3);
        let seen = Seen { low: 0.0, high: 1.0, bins, means: vec![0.4] };
        let mut wide = seen.clone();
        wide.widen([0.25, 0.75]);
        assert!(wide == seen, "it is wider already");
        wide.widen([-1.0, 3.0]);
        assert_eq!((wide.low, wide.high, &wide.means), (-1.0, 3.0, &seen.means));
        let values: Vec<(f32, u64)> = wide.values().collect();
        for ((value, count), (expected, known)) in values.iter().zip([(0.0, 5), (0.5, 7), (1.0, 3)]) {
            assert!((value - expected).abs() < 4.0 / BINS as f32 && *count == known, "{values:?}");
        }
        assert_eq!(values.len(), 3);
    }
}
