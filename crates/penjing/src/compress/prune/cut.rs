//! A network without some of its channels and blocks.

use penjing_runtime::{
    Error as RuntimeError,
    graph::{Graph, NodeId},
    op::{Conv, Op},
    tensor::{Tensor, Weights},
};

use super::{
    blocks::Block,
    ledger::{Ledger, Unit, depthwise},
};

/// What goes of a network.
#[derive(Clone, Debug)]
pub struct Less<'a> {
    /// Whether a unit goes, for each of the ledger's.
    pub units: Vec<bool>,
    /// Blocks that go as a whole.
    pub blocks: Vec<&'a Block>,
}

impl Less<'_> {
    /// Nothing yet.
    pub fn nothing(ledger: &Ledger) -> Self {
        Less { units: vec![false; ledger.len()], blocks: Vec::new() }
    }

    /// Whether a unit stays.
    pub fn leaves(&self, unit: Unit) -> bool {
        !self.units[unit.index()]
    }

    /// The block with which a node goes.
    fn around(&self, id: NodeId) -> Option<&Block> {
        self.blocks.iter().find(|block| block.holds(id)).copied()
    }
}

/// The same layers with the channels of the units that stay, without the blocks that go.
///
/// # Errors
/// [`RuntimeError::Layer`] when nothing would be left of a layer.
pub fn shape(graph: &Graph, ledger: &Ledger, less: &Less) -> Result<Graph, RuntimeError> {
    let mut small = Graph::default();
    // Where in the small graph what each node gave is found.
    let mut places: Vec<NodeId> = Vec::new();
    for (id, node) in graph.iter() {
        if let Some(block) = less.around(id) {
            places.push(places[block.start().index()]);
            continue;
        }
        let count = |id: NodeId| ledger.channels(id).iter().filter(|unit| less.leaves(**unit)).count();
        let op = match &node.op {
            Op::Conv(conv) => {
                let groups = if depthwise(conv, ledger.channels(node.inputs[0]).len()) {
                    count(node.inputs[0])
                } else {
                    conv.groups
                };
                Op::Conv(Conv { out_channels: count(id), groups, ..conv.clone() })
            }
            Op::Linear { bias, .. } => Op::Linear { out_features: count(id), bias: *bias },
            Op::Slice { start, .. } => {
                let before = &ledger.channels(node.inputs[0])[..*start];
                Op::Slice { start: before.iter().filter(|unit| less.leaves(**unit)).count(), len: count(id) }
            }
            Op::Input { .. }
            | Op::BatchNorm { .. }
            | Op::Act(_)
            | Op::Add
            | Op::Mul
            | Op::Concat
            | Op::ChannelShuffle { .. }
            | Op::Pad { .. }
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Flatten
            | Op::Softmax
            | Op::Dropout { .. } => node.op.clone(),
        };
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| places[input.index()]).collect();
        places.push(small.push(&node.name, op, &inputs)?);
    }
    Ok(small)
}

/// The network with the channels of the units that stay, without the blocks that go: what the whole one computes if those channels
/// are taken for 0 wherever a convolution or linear layer reads them, and what those blocks add for 0.
///
/// # Errors
/// [`RuntimeError::Layer`] when nothing would be left of a layer, or the weights are not the graph's.
pub fn cut(
    graph: &Graph,
    weights: &Weights,
    ledger: &Ledger,
    less: &Less,
) -> Result<(Graph, Weights), RuntimeError> {
    graph.check(weights)?;
    let small = shape(graph, ledger, less)?;
    let places = |units: &[Unit]| -> Vec<usize> {
        units.iter().enumerate().filter(|(_, unit)| less.leaves(**unit)).map(|(place, _)| place).collect()
    };
    let mut kept = Weights::new();
    for (id, node) in graph.iter().filter(|(id, _)| less.around(*id).is_none()) {
        let outputs = places(ledger.channels(id));
        let whole = node.inputs.first().map_or(node.shape, |&input| graph.shape(input));
        for (suffix, shape) in node.op.parameters(whole) {
            let name = format!("{}.{suffix}", node.name);
            let tensor = &weights[&name];
            let tensor = match (&node.op, suffix) {
                (Op::Conv(conv), "weight") if !depthwise(conv, ledger.channels(node.inputs[0]).len()) => {
                    let read = ledger.channels(node.inputs[0]);
                    let [rows, each] = [conv.out_channels / conv.groups, read.len() / conv.groups];
                    let inputs = |output: usize| places(&read[output / rows * each..][..each]);
                    gather(tensor, &shape, &outputs, &inputs)
                }
                (Op::Linear { .. }, "weight") => {
                    let inputs = places(ledger.channels(node.inputs[0]));
                    gather(tensor, &shape, &outputs, &|_| inputs.clone())
                }
                (Op::Conv(_), "weight") => gather(tensor, &shape, &outputs, &|_| vec![0]),
                _ => Tensor { shape: vec![outputs.len()], data: tensor.data.gather(outputs.iter().copied()) },
            };
            kept.insert(name, tensor);
        }
    }
    small.check(&kept)?;
    Ok((small, kept))
}

/// These outputs, and of each these values along the last axis.
fn gather(
    tensor: &Tensor,
    shape: &[usize],
    outputs: &[usize],
    inputs: &dyn Fn(usize) -> Vec<usize>,
) -> Tensor {
    let (last, taps) = (shape[shape.len() - 1], shape[1..shape.len() - 1].iter().product::<usize>());
    let mut kept = 0;
    let mut places = Vec::new();
    for &output in outputs {
        let inputs = inputs(output);
        kept = inputs.len();
        for tap in 0..taps {
            places.extend(inputs.iter().map(|input| (output * taps + tap) * last + input));
        }
    }
    let mut shape = shape.to_vec();
    (shape[0], *shape.last_mut().expect("weights have axes")) = (outputs.len(), kept);
    Tensor { shape, data: tensor.data.gather(places.into_iter()) }
}
