//! The layers that read what is left, fitted again to what they gave before: least squares (He, Zhang and Sun,
//! arXiv 1707.06168).

use std::collections::BTreeMap;

use penjing_runtime::{
    graph::{Graph, NodeId},
    tensor::{Tensor, Weights},
};
use rayon::prelude::*;

use super::{cut::Less, ledger::Ledger};
use crate::{
    Result,
    compress::{
        fold::layer,
        reads::{self, Reads, results, watch},
    },
    progress::{Hushed, Progress},
    threads::Threads,
};

/// Most weights of an output that are fitted: what it takes grows with their cube. Of wider layers biases alone are.
pub(super) const WIDEST: usize = 2304;

/// Fits `weights` `[outputs][each]` and biases so that rows `x` `[places][each]` come as near to `y` `[places][outputs]` as can
/// be. Where the rows tell little the weights stay as they are.
fn fit(weights: &mut [f32], biases: &mut [f32], mut x: Vec<f32>, mut y: Vec<f32>) {
    let outputs = biases.len();
    let each = weights.len() / outputs;
    // What is left to explain, and how it goes along with what is read.
    let given = results(weights, &vec![0.0; outputs], &x);
    y.iter_mut().zip(given).for_each(|(y, given)| *y -= given);
    let (mean_x, mean_y) = (reads::centre(&mut x, each), reads::centre(&mut y, outputs));
    let mut moved = vec![0.0; weights.len()];
    if each <= WIDEST {
        let along = reads::products(&y, &x, outputs, each);
        let inverse = reads::damped_inverse_factor(reads::correlations(&x, each), each);
        let rows = moved.par_chunks_exact_mut(each).zip(along.par_chunks_exact(each));
        rows.for_each(|(moved, along)| {
            // Uᵀ·(U·along)
            for (i, row) in inverse.chunks_exact(each).enumerate() {
                let v: f64 = row[i..].iter().zip(&along[i..]).map(|(u, a)| u * f64::from(*a)).sum();
                moved[i..].iter_mut().zip(&row[i..]).for_each(|(moved, u)| *moved += u * v);
            }
        });
    }
    for (((row, bias), moved), mean) in
        weights.chunks_exact_mut(each).zip(biases).zip(moved.chunks_exact(each)).zip(mean_y)
    {
        let mut shift = f64::from(mean);
        for ((w, moved), mean) in row.iter_mut().zip(moved).zip(&mean_x) {
            *w += *moved as f32;
            shift -= moved * f64::from(*mean);
        }
        *bias = shift as f32;
    }
}

/// A network before and after channels and blocks went.
pub(super) struct Change<'a> {
    /// Before: BatchNorm drawn in, a bias in every layer.
    pub graph: &'a Graph,
    pub weights: &'a Weights,
    pub ledger: &'a Ledger,
    /// What its layers of one group read.
    pub reads: &'a BTreeMap<String, Reads>,
    pub less: &'a Less<'a>,
}

impl Change<'_> {
    /// Fits one layer of the network after, of which `x` reads what is left: to what it gave, and what the blocks gave for which it
    /// stands in.
    fn fit(&self, name: &str, small: &mut Weights, x: Vec<f32>) {
        let Some((id, _)) = self.graph.iter().find(|(_, node)| node.name == name) else { return };
        let [weight, bias] = ["weight", "bias"].map(|suffix| format!("{name}.{suffix}"));
        let mut y = self.gave(id);
        for end in self.stands_in_for(id) {
            y.iter_mut().zip(self.gave(end)).for_each(|(y, more)| *y += more);
        }
        let (mut weights, mut biases) = (small[&weight].to_f32(), small[&bias].to_f32());
        fit(&mut weights, &mut biases, x, y);
        let shape = small[&weight].shape.clone();
        small.insert(weight, Tensor::f32(&shape, weights));
        small.insert(bias, Tensor::f32(&[biases.len()], biases));
    }

    /// What those channels of a layer that stay gave before.
    fn gave(&self, id: NodeId) -> Vec<f32> {
        let name = &self.graph.node(id).name;
        let channels = self.ledger.channels(id);
        let [weights, biases] =
            ["weight", "bias"].map(|suffix| self.weights[&format!("{name}.{suffix}")].to_f32());
        let each = weights.len() / channels.len();
        let (mut rows, mut shifts) = (Vec::new(), Vec::new());
        for (at, _) in channels.iter().enumerate().filter(|(_, unit)| self.less.leaves(**unit)) {
            rows.extend_from_slice(&weights[at * each..][..each]);
            shifts.push(biases[at]);
        }
        results(&rows, &shifts, &self.reads[name])
    }

    /// The last layers of the blocks for which a layer stands in.
    fn stands_in_for(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let blocks = &self.less.blocks;
        let pairs = blocks.iter().filter_map(|block| block.stand_in(self.graph, blocks));
        pairs.filter(move |[gives, _]| *gives == id).map(|[_, end]| end)
    }

    /// Fits the layers that read channels which went or stand in for blocks, as if all before them gave what they gave: right where
    /// channels of one set went, or one block.
    pub fn mend_readers(&self, small: &mut Weights) {
        for (id, node) in self.graph.iter().filter(|(_, node)| layer(node)) {
            let channels = self.ledger.channels(node.inputs[0]);
            let gone = channels.iter().any(|unit| !self.less.leaves(*unit));
            let touched = gone || self.stands_in_for(id).next().is_some();
            let stays = small.contains_key(&format!("{}.weight", node.name));
            let Some(x) = self.reads.get(&node.name).filter(|_| touched && stays) else { continue };
            let kept: Vec<bool> = channels.iter().map(|unit| self.less.leaves(*unit)).collect();
            let left: Vec<f32> =
                x.iter().enumerate().filter(|(at, _)| kept[at % kept.len()]).map(|(_, v)| *v).collect();
            self.fit(&node.name, small, left);
        }
    }

    /// Fits layer after layer to what it gave before, from what it reads now.
    ///
    /// # Errors
    /// As [`watch`].
    pub fn mend_all(
        &self,
        graph: &Graph,
        small: &mut Weights,
        (inputs, places): (&[Vec<f32>], usize),
        threads: &Threads,
        progress: &dyn Progress,
    ) -> Result<()> {
        let layers =
            || graph.nodes().iter().filter(|node| layer(node) && self.reads.contains_key(&node.name));
        progress.begin("fitting what is left", layers().count());
        for node in layers() {
            let name = [node.name.clone()];
            let mut reads = watch(graph, small, &name, inputs, places, threads, &Hushed(progress))?;
            if let Some(x) = reads.remove(&node.name) {
                threads.install(|| self.fit(&node.name, small, x));
            }
            progress.advance(1);
        }
        progress.end();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::{Conv, Op};

    use super::*;
    use crate::{
        compress::prune::{blocks::Block, cut::cut},
        progress::Quiet,
        random::SplitMix64,
    };

    #[test]
    fn what_went_is_told_by_what_goes_along_with_it() {
        let mut random = SplitMix64::new(2);
        // The third value is a mixture of the other two and a constant.
        let (mut whole, mut left) = (Vec::new(), Vec::new());
        for _ in 0..500 {
            let [a, b] = [0; 2].map(|_| random.normal() as f32);
            whole.extend([a, b, 0.5 * a - 2.0 * b + 3.0]);
            left.extend([a, b]);
        }
        let y = results(&[1.0, 1.0, 2.0, 0.0, 0.0, -1.0], &[0.5, 0.0], &whole);
        // Both outputs without what they read third.
        let (mut weights, mut biases) = (vec![1.0, 1.0, 0.0, 0.0], vec![0.5, 0.0]);
        fit(&mut weights, &mut biases, left, y);
        for (found, exact) in weights.iter().zip([2.0, -3.0, -0.5, 2.0]).chain(biases.iter().zip([6.5, -3.0]))
        {
            // Damping holds the weights back a little.
            assert!((found - exact).abs() < 0.06, "{found}, expected {exact}");
        }
    }

    #[test]
    fn the_layer_before_stands_in_for_a_block() {
        let conv = |out| Op::Conv(Conv { bias: true, ..Conv::new(out, 1, 1) });
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 4, 4, 6] }, &[]).unwrap();
        let stem = graph.push("stem", conv(3), &[x]).unwrap();
        // What a block of one layer gives is made of what the stem reads as well.
        let first = graph.push("first", conv(3), &[stem]).unwrap();
        let sum = graph.push("sum", Op::Add, &[stem, first]).unwrap();
        let second = graph.push("second", conv(3), &[sum]).unwrap();
        let end = graph.push("end", Op::Add, &[second, sum]).unwrap();
        graph.push("head", conv(2), &[end]).unwrap();
        let mut random = SplitMix64::new(5);
        let mut draw = |count: usize| (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let parameters = graph.parameters().into_iter();
        let weights: Weights = parameters
            .map(|(name, shape)| {
                let data = draw(shape.iter().product());
                (name, Tensor::f32(&shape, data))
            })
            .collect();
        let inputs: Vec<Vec<f32>> = (0..64).map(|_| draw(4 * 4 * 6)).collect();
        let threads = Threads::new(Some(1)).unwrap();
        let names = ["stem", "first", "second", "head"].map(String::from);
        let watched = |graph: &Graph, weights: &Weights| {
            watch(graph, weights, &names, &inputs, 1024, &threads, &Quiet).unwrap()
        };
        let reads = watched(&graph, &weights);
        let ledger = Ledger::new(&graph);
        let blocks = Block::all(&graph);
        let less = Less { blocks: blocks.iter().collect(), ..Less::nothing(&ledger) };
        assert_eq!(less.blocks.len(), 2);
        let (small, mut left) = cut(&graph, &weights, &ledger, &less).unwrap();
        let change = Change { graph: &graph, weights: &weights, ledger: &ledger, reads: &reads, less: &less };
        let far = |left: &Weights| {
            let found = &watched(&small, left)["head"];
            let off = found.iter().zip(&reads["head"]).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            off / reads["head"].iter().map(|v| v.powi(2)).sum::<f32>()
        };
        let before = far(&left);
        change.mend_readers(&mut left);
        let after = far(&left);
        assert!(before > 0.1 && after < 1e-3, "{before} → {after}");
        assert_eq!(left["head.weight"], weights["head.weight"]);
    }

    #[test]
    fn where_nothing_varies_only_biases_move() {
        let (mut weights, mut biases) = (vec![1.0, 2.0], vec![0.0]);
        fit(&mut weights, &mut biases, vec![1.0; 20], vec![5.0; 10]);
        assert_eq!((weights, biases), (vec![1.0, 2.0], vec![2.0]));
    }
}
