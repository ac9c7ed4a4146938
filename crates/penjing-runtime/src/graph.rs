//! The portable meaning of a network: operations joined by typed edges.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    error::Error,
    op::{MAX_VALUES, Op, Shape, count},
    quant::Quant,
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
    /// How the result is kept in 8 bits; none: as 32-bit floats.
    #[cfg_attr(feature = "file", serde(default, skip_serializing_if = "Option::is_none"))]
    pub quant: Option<Quant>,
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
        self.nodes.push(Node { name: name.to_string(), op, inputs: inputs.to_vec(), quant: None, shape });
        Ok(id)
    }

    /// Says how a node's result is kept in 8 bits, or that it is not.
    ///
    /// # Errors
    /// [`Error::Layer`] for a scale that is not a normal positive number.
    pub fn set_quant(&mut self, id: NodeId, quant: Option<Quant>) -> Result<(), Error> {
        let node = &mut self.nodes[id.index()];
        if let Some(quant) = quant.filter(|quant| !quant.is_sound()) {
            let what = format!("the scale of its result is {}, expected a positive number", quant.scale);
            return Err(Error::layer(&node.name, what));
        }
        node.quant = quant;
        Ok(())
    }

    /// Whether any result is kept in 8 bits.
    pub fn is_quantized(&self) -> bool {
        self.nodes.iter().any(|node| node.quant.is_some())
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

    /// How a node's result is kept in 8 bits: what only passes on another's result keeps it as that does.
    pub fn quant(&self, id: NodeId) -> Option<Quant> {
        let node = self.node(id);
        match node.op {
            Op::Flatten | Op::Dropout { .. } => node.quant.or_else(|| self.quant(node.inputs[0])),
            _ => node.quant,
        }
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
            let id = graph.push(&node.name, op, &node.inputs)?;
            graph.set_quant(id, node.quant)?;
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
    /// [`Error::Layer`] naming the first weight that is missing, has another shape, or is not used, or that all of them
    /// are more than [`MAX_VALUES`]: a file of zeros holds 32 times its bytes.
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
        let values = wanted.iter().fold(0u64, |sum, (_, shape)| sum.saturating_add(count(shape)));
        if values > MAX_VALUES as u64 {
            let what = format!("all layers together have {values} weights, at most {MAX_VALUES} are allowed");
            return Err(Error::layer(&wanted[0].0, what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;
    use crate::{
        op::{Act, Conv},
        sparse::Sparse,
        tensor::{Data, Tensor},
    };

    fn small() -> (Graph, NodeId) {
        let mut graph = Graph::default();
        let image = graph.push("image", Op::Input { shape: [1, 4, 4, 3] }, &[]).unwrap();
        let conv = graph.push("conv", Op::Conv(Conv { bias: true, ..Conv::new(8, 3, 1) }), &[image]).unwrap();
        (graph, conv)
    }

    #[test]
    fn what_is_refused_leaves_the_graph_as_it_was() {
        let (mut graph, conv) = small();
        let before = graph.clone();
        let input = Op::Input { shape: [1, 4, 4, 3] };
        let relu = Op::Act(Act::Relu);
        for (name, op, inputs, message) in [
            ("second", input, vec![], "layer `second`: a graph has exactly one input, and it comes first"),
            ("conv", relu.clone(), vec![conv], "layer `conv`: there are two layers of this name"),
            (
                "self",
                relu,
                vec![NodeId(2)],
                "layer `self`: takes the result of layer 2, which is not before it",
            ),
            ("head", Op::Linear { out_features: 2, bias: false }, vec![conv], "layer `head`: takes a vector"),
        ] {
            let error = graph.push(name, op, &inputs).unwrap_err();
            assert!(alloc::string::ToString::to_string(&error).starts_with(message), "{error}");
            assert!(graph == before, "{name}");
        }
        let error = Graph::default().push("act", Op::Softmax, &[]).unwrap_err();
        assert!(matches!(error, Error::Layer { layer, .. } if layer == "act"));
    }

    #[test]
    fn graphs_have_a_largest_length() {
        let mut graph = Graph::default();
        let mut last = graph.push("0", Op::Input { shape: [1, 1, 1, 1] }, &[]).unwrap();
        for index in 1..MAX_NODES {
            last = graph.push(&index.to_string(), Op::Act(Act::Relu), &[last]).unwrap();
        }
        let error = graph.push("more", Op::Act(Act::Relu), &[last]).unwrap_err();
        assert_eq!(error, Error::layer("more", "a graph has at most 16384 layers"));
    }

    #[test]
    fn weights_are_just_those_that_are_needed() {
        let (graph, _) = small();
        let parameters = graph.parameters();
        assert_eq!(parameters, [("conv.weight".into(), vec![8, 3, 3, 3]), ("conv.bias".into(), vec![8])]);
        let whole: Weights = parameters
            .into_iter()
            .map(|(name, s)| (name, Tensor::f32(&s, vec![0.0; s.iter().product()])))
            .collect();
        assert_eq!(graph.check(&whole), Ok(()));
        let spoilt = |spoil: &dyn Fn(&mut Weights)| {
            let mut weights = whole.clone();
            spoil(&mut weights);
            graph.check(&weights).unwrap_err()
        };
        let flat = |w: &mut Weights| w.get_mut("conv.weight").unwrap().shape = vec![216];
        assert_eq!(
            spoilt(&flat),
            Error::layer("conv.weight", "the weight has shape [216], expected [8, 3, 3, 3]")
        );
        assert_eq!(
            spoilt(&|w| drop(w.remove("conv.bias"))),
            Error::layer("conv.bias", "this weight is missing")
        );
        let more = |w: &mut Weights| drop(w.insert("conv.mean".into(), Tensor::f32(&[1], vec![0.0])));
        assert_eq!(spoilt(&more), Error::layer("conv.mean", "no layer uses this weight"));

        // Zeros take a bit each.
        let side = 1 << 14;
        let mut huge = Graph::default();
        let mut last = huge.push("vector", Op::Input { shape: [1, 1, 1, side] }, &[]).unwrap();
        let mut weights = Weights::new();
        let most = "all layers together have 536870912 weights, at most 268435456 are allowed";
        for (name, expected) in [("a", Ok(())), ("b", Err(Error::layer("a.weight", most)))] {
            last = huge.push(name, Op::Linear { out_features: side, bias: false }, &[last]).unwrap();
            let data = Data::Sparse(Sparse { kept: vec![0; side * side / 8], values: vec![] });
            weights.insert(format!("{name}.weight"), Tensor { shape: vec![side, side], data });
            assert_eq!(huge.check(&weights), expected);
        }
    }

    #[test]
    fn graphs_are_cut_and_resized() {
        let (mut graph, conv) = small();
        let pool = graph.push("pool", Op::GlobalAvgPool, &[conv]).unwrap();
        let head = graph.push("head", Op::Linear { out_features: 2, bias: false }, &[pool]).unwrap();
        assert_eq!(graph.classifier(), Some((head, pool)));
        let body = graph.up_to(pool);
        assert_eq!((body.output(), body.classifier()), (Some(pool), None));
        // The name of a layer that was cut off is free again.
        assert!(body.clone().push("head", Op::Softmax, &[pool]).is_ok());
        assert!(body.clone().push("conv", Op::Softmax, &[pool]).is_err());
        let large = graph.with_input([2, 9, 7, 3]).unwrap();
        let shapes: Vec<Shape> = large.nodes().iter().map(|node| node.shape).collect();
        assert_eq!(shapes, [[2, 9, 7, 3], [2, 7, 5, 8], [2, 1, 1, 8], [2, 1, 1, 2]]);
        let error = graph.with_input([1, 2, 2, 3]).unwrap_err();
        assert!(matches!(error, Error::Layer { layer, .. } if layer == "conv"));
        assert_eq!(Graph::default().output(), None);
        assert_eq!(Graph::default().input_shape(), None);
    }
}
