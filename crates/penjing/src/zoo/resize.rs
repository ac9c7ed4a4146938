//! A network for photos of another size.

use penjing_runtime::{
    file::Model,
    graph::{Graph, Node},
    op::{AvgPool, Op},
    pixels::{Fit, Pixels},
};

use super::blocks::Padding;
use crate::{Error, Result};

/// The same network for another size.
///
/// TensorFlow's "SAME" padding follows from a map's size: where a network has it, which an uneven padding shows, it is
/// worked out anew.
///
/// # Errors
/// [`Error::Unsupported`] for a size that the network cannot have.
pub fn resize(model: &mut Model, size: usize) -> Result<()> {
    let Pixels { height, width, .. } = model.pixels;
    let unsupported = |what: String| {
        Error::Unsupported(format!(
            "{}: the network cannot have inputs of {size} pixels ({what}); leave it at {height} × {width}",
            model.arch
        ))
    };
    if !(32..=2048).contains(&size) {
        return Err(unsupported("expected 32..=2048".into()));
    }
    let old = &model.graph;
    let same = |node: &Node, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 4]| {
        let [_, height, width, _] = old.shape(node.inputs[0]);
        let square = kernel[0] == kernel[1] && stride[0] == stride[1];
        square && padding == Padding::Same.around([height, width], kernel[0], stride[0])
    };
    let uneven = |[top, bottom, left, right]: [usize; 4]| top != bottom || left != right;
    let tensorflow = old.nodes().iter().any(|node| match &node.op {
        Op::Conv(conv) => uneven(conv.padding) && same(node, conv.kernel, conv.stride, conv.padding),
        _ => false,
    });
    let mut graph = Graph::default();
    for node in old.nodes() {
        let mut op = node.op.clone();
        let padded = match &mut op {
            Op::Input { shape } => {
                (shape[1], shape[2]) = (size, size);
                None
            }
            Op::Conv(conv) => Some((conv.kernel, conv.stride, &mut conv.padding)),
            Op::MaxPool(pool) | Op::AvgPool(AvgPool { window: pool, .. }) if !pool.ceil_mode => {
                Some((pool.kernel, pool.stride, &mut pool.padding))
            }
            _ => None,
        };
        if let Some((kernel, stride, padding)) = padded
            && tensorflow
            && same(node, kernel, stride, *padding)
        {
            let [_, height, width, _] = graph.shape(node.inputs[0]);
            *padding = Padding::Same.around([height, width], kernel[0], stride[0]);
        }
        graph.push(&node.name, op, &node.inputs).map_err(|error| unsupported(error.to_string()))?;
    }
    graph.check(&model.weights).map_err(|error| unsupported(error.to_string()))?;
    if let Fit::Crop { short } = &mut model.pixels.fit {
        // In the same proportion as before.
        *short = *short * size / height.min(width);
    }
    model.graph = graph;
    (model.pixels.height, model.pixels.width) = (size, size);
    Ok(())
}
