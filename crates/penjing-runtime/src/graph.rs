//! The portable meaning of a network: operations joined by typed edges.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    error::Error,
    op::{Op, Shape, count},
    tensor::Weights,
};

/// Most nodes a graph may have.
pub const MAX_NODES: usize = 1 << 14;

/// Names the single result of a node, and so the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct NodeId(u32);

impl NodeId {
    /// The first node: the input.
    pub(crate) const FIRST: NodeId = NodeId(0);

    /// Position among the graph's nodes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation in its place.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Node {
    /// Unique in the graph; the weights are called `name.weight`, `name.bias` and so on.
    pub name: String,
    /// What is done.
    pub op: Op,
    /// What it is done to.
    pub inputs: Vec<NodeId>,
    /// Shape of the result; inferred, never stored.
    #[cfg_attr(feature = "file", serde(skip))]
    pub shape: Shape,
}

/// Nodes in an order in which they can be computed; the last one is the result.
///
/// A graph can only be built from parts that fit: [`push`](Graph::push) infers each shape and refuses what does not.
///
/// ```
/// use penjing_runtime::{graph::Graph, op::{Act, Conv, Op}};
/// let mut graph = Graph::default();
/// let image = graph.push("image", Op::Input { shape: [1, 32, 32, 3] }, &[])?;
/// let conv = graph.push("conv", Op::Conv(Conv::new(16, 3, 2)), &[image])?;
/// let act = graph.push("act", Op::Act(Act::Relu6), &[conv])?;
/// assert_eq!(graph.shape(act), [1, 15, 15, 16]);
/// # Ok::<(), penjing_runtime::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    names: BTreeSet<String>,
}

impl Graph {
    /// Appends a node.
    ///
    /// # Errors
    /// [`Error::Layer`] when the inputs do not fit the operation, the name is taken, or a limit is exceeded.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, Error> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Error::layer(name, format!("a graph has at most {MAX_NODES} layers")));
        }
        if matches!(op, Op::Input { .. }) != self.nodes.is_empty() {
            return Err(Error::layer(name, "a graph has exactly one input, and it comes first"));
        }
        if let Some(missing) = inputs.iter().find(|id| id.index() >= self.nodes.len()) {
            return Err(Error::layer(
                name,
                format!("takes the result of layer {}, which is not before it", missing.0),
            ));
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&id| self.shape(id)).collect();
        let shape = op.output(&shapes).map_err(|what| Error::layer(name, what))?;
        if !self.names.insert(name.to_string()) {
            return Err(Error::layer(name, "there are two layers of this name"));
        }
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { name: name.to_string(), op, inputs: inputs.to_vec(), shape });
        Ok(id)
    }

    /// The nodes, inputs before their users.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Each node with its id.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index as u32), node))
    }

    /// The node of this id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Shape of a node's result.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.node(id).shape
    }

    /// The last node, whose result is the graph's. `None` for an empty graph.
    pub fn output(&self) -> Option<NodeId> {
        self.nodes.len().checked_sub(1).map(|last| NodeId(last as u32))
    }

    /// Shape of the input. `None` for an empty graph.
    pub fn input_shape(&self) -> Option<Shape> {
        self.nodes.first().map(|node| node.shape)
    }

    /// The closing linear layer of a classifier and the features that it reads.
    pub fn classifier(&self) -> Option<(NodeId, NodeId)> {
        let last = self.output()?;
        let node = self.node(last);
        matches!(node.op, Op::Linear { .. }).then(|| (last, node.inputs[0]))
    }

    /// The graph that ends with `last`: everything after it is dropped.
    pub fn up_to(&self, last: NodeId) -> Graph {
        let nodes: Vec<Node> = self.nodes[..=last.index()].to_vec();
        let names = nodes.iter().map(|node| node.name.clone()).collect();
        Graph { nodes, names }
    }

    /// The same network for an input of another batch or size.
    ///
    /// # Errors
    /// [`Error::Layer`] when a layer does not fit the new size.
    pub fn with_input(&self, shape: Shape) -> Result<Graph, Error> {
        let mut graph = Graph::default();
        for node in &self.nodes {
            let op = match &node.op {
                Op::Input { .. } => Op::Input { shape },
                other => other.clone(),
            };
            graph.push(&node.name, op, &node.inputs)?;
        }
        Ok(graph)
    }

    /// Name and shape of every weight, in node order.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut all = Vec::new();
        for node in &self.nodes {
            let input = node.inputs.first().map_or(node.shape, |&id| self.shape(id));
            for (suffix, shape) in node.op.parameters(input) {
                all.push((format!("{}.{suffix}", node.name), shape));
            }
        }
        all
    }

    /// Checks that `weights` are just what the graph needs.
    ///
    /// # Errors
    /// [`Error::Layer`] naming the first weight that is missing, has another shape, or is not used.
    pub fn check(&self, weights: &Weights) -> Result<(), Error> {
        let wanted = self.parameters();
        for (name, shape) in &wanted {
            match weights.get(name) {
                None => return Err(Error::layer(name, "this weight is missing")),
                Some(tensor) if tensor.shape != *shape || tensor.len() as u64 != count(shape) => {
                    let what = format!("the weight has shape {:?}, expected {shape:?}", tensor.shape);
                    return Err(Error::layer(name, what));
                }
                Some(_) => {}
            }
        }
        if wanted.len() != weights.len() {
            let known: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
            let extra = weights.keys().find(|name| !known.contains(name.as_str()));
            return Err(Error::layer(extra.map_or("", |name| name), "no layer uses this weight"));
        }
        Ok(())
    }
}
