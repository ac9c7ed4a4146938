//! Whole blocks that can be left out: residual ones, around which what they read goes on as it is.

use std::collections::BTreeSet;

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::Op,
};

use crate::compress::fold::{in_groups, layer, users};

/// A residual block: what lies between a result and its sum with what has been made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What goes around it.
    start: NodeId,
    /// What is made of that, and ends with what is added to it.
    inside: BTreeSet<NodeId>,
    end: NodeId,
    sum: NodeId,
}

impl Block {
    /// The blocks of a graph, in the order of their sums. Nothing of one is read elsewhere, none ends the network, and of those in one
    /// another the innermost are meant.
    pub fn all(graph: &Graph) -> Vec<Block> {
        let users = users(graph);
        let ends = |id: &NodeId| users[id.index()].is_empty();
        let sums = graph.iter().filter(|(id, node)| matches!(node.op, Op::Add) && !ends(id));
        let mut blocks: Vec<Block> = Vec::new();
        for (sum, node) in sums {
            let [a, b] = node.inputs[..] else { continue };
            let between = |ends| Block::between(graph, &users, ends, sum);
            let found = between([a, b]).or_else(|| between([b, a]));
            let is_innermost = |block: &Block| !blocks.iter().any(|before| block.holds(before.sum));
            blocks.extend(found.filter(is_innermost));
        }
        blocks
    }

    fn between(
        graph: &Graph,
        users: &[Vec<NodeId>],
        [start, end]: [NodeId; 2],
        sum: NodeId,
    ) -> Option<Block> {
        let mut inside = BTreeSet::new();
        let mut next = vec![end];
        while let Some(id) = next.pop() {
            if id < start || graph.node(id).inputs.is_empty() {
                return None;
            }
            if id != start && inside.insert(id) {
                next.extend(&graph.node(id).inputs);
            }
        }
        let stays_inside =
            |id: &NodeId| users[id.index()].iter().all(|user| *user == sum || inside.contains(user));
        let works = inside.iter().any(|id| layer(graph.node(*id)));
        let fits = graph.shape(start) == graph.shape(sum);
        (works && fits && inside.iter().all(stays_inside)).then_some(Block { start, inside, end, sum })
    }

    /// The name of its sum.
    pub fn name<'g>(&self, graph: &'g Graph) -> &'g str {
        &graph.node(self.sum).name
    }

    /// What goes around it.
    pub fn start(&self) -> NodeId {
        self.start
    }

    /// What is added to that.
    pub fn end(&self) -> NodeId {
        self.end
    }

    /// Whether a node goes with it, as its sum does.
    pub fn holds(&self, id: NodeId) -> bool {
        id == self.sum || self.inside.contains(&id)
    }

    /// The layer that can give, beside its own, what the block gave, and the block's layer that gave it: both are added up without
    /// anything between, and nobody else reads the sum. `gone`: the blocks that are left out with this one.
    pub fn stand_in(&self, graph: &Graph, gone: &[&Block]) -> Option<[NodeId; 2]> {
        let users = users(graph);
        let alone = |id: NodeId| layer(graph.node(id)) && !in_groups(graph.node(id));
        let mut block = self;
        loop {
            let start = block.start;
            if !users[start.index()].iter().all(|user| block.holds(*user)) {
                return None;
            }
            match gone.iter().find(|before| before.sum == start) {
                Some(before) => block = before,
                None => break,
            }
        }
        let start = block.start;
        let only = |id: &&NodeId| alone(**id) && users[id.index()][..] == [start];
        let gives = match graph.node(start).op {
            Op::Add => graph.node(start).inputs.iter().rev().find(only).copied(),
            _ => alone(start).then_some(start),
        };
        gives.filter(|_| alone(self.end)).map(|gives| [gives, self.end])
    }
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::{Act, Conv};

    use super::*;

    fn push(graph: &mut Graph, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        graph.push(name, op, inputs).unwrap()
    }

    fn conv(out: usize) -> Op {
        Op::Conv(Conv::new(out, 1, 1))
    }

    /// A stem, a block of two layers, one of one layer, and a head.
    fn two() -> (Graph, [NodeId; 6]) {
        let mut graph = Graph::default();
        let x = push(&mut graph, "x", Op::Input { shape: [1, 4, 4, 3] }, &[]);
        let stem = push(&mut graph, "stem", conv(6), &[x]);
        let wide = push(&mut graph, "wide", conv(8), &[stem]);
        let act = push(&mut graph, "act", Op::Act(Act::Relu), &[wide]);
        let narrow = push(&mut graph, "narrow", conv(6), &[act]);
        let first = push(&mut graph, "first", Op::Add, &[stem, narrow]);
        let one = push(&mut graph, "one", conv(6), &[first]);
        let second = push(&mut graph, "second", Op::Add, &[one, first]);
        push(&mut graph, "head", conv(5), &[second]);
        (graph, [stem, wide, narrow, first, one, second])
    }

    #[test]
    fn blocks_are_found_whichever_way_they_are_added() {
        let (graph, [stem, wide, narrow, first, one, second]) = two();
        let blocks = Block::all(&graph);
        let found: Vec<_> =
            blocks.iter().map(|block| (block.name(&graph), block.start, block.end, block.sum)).collect();
        assert_eq!(found, [("first", stem, narrow, first), ("second", first, one, second)]);
        assert!(
            blocks[0].holds(wide)
                && blocks[0].holds(first)
                && !blocks[0].holds(stem)
                && !blocks[0].holds(one)
        );
    }

    #[test]
    fn what_is_read_elsewhere_or_not_made_of_its_start_alone_is_none() {
        let mut graph = Graph::default();
        let x = push(&mut graph, "x", Op::Input { shape: [1, 4, 4, 3] }, &[]);
        let [a, b] = ["a", "b"].map(|name| push(&mut graph, name, conv(6), &[x]));
        // Two branches of the input.
        let sum = push(&mut graph, "sum", Op::Add, &[a, b]);
        let c = push(&mut graph, "c", conv(6), &[sum]);
        let d = push(&mut graph, "d", conv(6), &[c]);
        let again = push(&mut graph, "again", Op::Add, &[sum, d]);
        // Of what is inside another reads.
        let join = push(&mut graph, "join", Op::Concat, &[again, c]);
        let e = push(&mut graph, "e", conv(12), &[join]);
        // The end of the network.
        push(&mut graph, "last", Op::Add, &[join, e]);
        assert!(Block::all(&graph).is_empty());
    }

    #[test]
    fn of_blocks_in_one_another_the_inner_one_is_meant() {
        let mut graph = Graph::default();
        let x = push(&mut graph, "x", Op::Input { shape: [1, 4, 4, 6] }, &[]);
        let stem = push(&mut graph, "stem", conv(6), &[x]);
        let a = push(&mut graph, "a", conv(6), &[stem]);
        let inner = push(&mut graph, "inner", Op::Add, &[stem, a]);
        let b = push(&mut graph, "b", conv(6), &[inner]);
        let outer = push(&mut graph, "outer", Op::Add, &[stem, b]);
        push(&mut graph, "head", conv(5), &[outer]);
        let names: Vec<_> = Block::all(&graph).iter().map(|block| block.name(&graph).to_string()).collect();
        assert_eq!(names, ["inner"]);
    }

    #[test]
    fn what_stands_in_is_the_layer_before() {
        let (graph, [stem, _, narrow, _, one, _]) = two();
        let [first, second] = &Block::all(&graph)[..] else { panic!() };
        assert_eq!(first.stand_in(&graph, &[first]), Some([stem, narrow]));
        assert_eq!(second.stand_in(&graph, &[second]), Some([narrow, one]));
        assert_eq!(second.stand_in(&graph, &[first, second]), Some([stem, one]));
        // Somebody else reads what the stem gives.
        let (mut graph, [stem, ..]) = two();
        push(&mut graph, "other", conv(5), &[stem]);
        let [first, second] = &Block::all(&graph)[..] else { panic!() };
        assert_eq!(first.stand_in(&graph, &[first]), None);
        assert_eq!(second.stand_in(&graph, &[first, second]), None);
        assert!(second.stand_in(&graph, &[second]).is_some());
    }
}
