//! Which layers 8 bits cost most.

use std::{collections::BTreeMap, sync::Arc};

use penjing_runtime::{
    Isa, Lower, PlanBuf, Serial, Session,
    graph::{Graph, NodeId},
    pixels::Pixels,
    plan::Made,
    quant::Quant,
    tensor::{Data, Weights},
};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    fold::{layer, source},
    judge::{self, Distance, Logits},
    observe::Observations,
    ptq::{Rounding, quantize},
};
use crate::{Error, Result, progress::Progress, threads::Threads};

/// What 8 bits do to one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerError {
    /// The layer's name.
    pub name: String,
    /// Whether its weights are integers.
    pub int8: bool,
    /// Power of its result over that of what 8 bits in it and in all before it add, in decibels. `None` where the result
    /// does not stand by itself, or nothing was added.
    pub sqnr_db: Option<f64>,
    /// Divergence of the network's results when this layer alone is in 8 bits. `None` if it was not measured.
    pub alone: Option<f64>,
}

/// Signal over noise of every layer of `int8`, beside the network that it was made of.
///
/// # Errors
/// [`Error::Unsupported`] when a network cannot be run.
pub fn noise(
    [graph, int8]: [&Graph; 2],
    [weights, integers]: [&Weights; 2],
    inputs: &[Vec<f32>],
    threads: &Threads,
) -> Result<Vec<LayerError>> {
    let lower = |graph: &Graph, weights: &Weights| {
        let plan = PlanBuf::lower_with(graph, weights, Lower::plain(1));
        plan.map(Arc::new).map_err(|error| Error::Unsupported(format!("the network cannot be run: {error}")))
    };
    let (exact, rounded) = (lower(graph, weights)?, lower(int8, integers)?);
    let powers = |input: &Vec<f32>| {
        let watch = |plan: &Arc<PlanBuf>, grids: &Graph| {
            let mut results: BTreeMap<NodeId, Vec<f32>> = BTreeMap::new();
            let mut session = Session::new(plan.clone(), Isa::detect());
            session.input().copy_from_slice(input);
            session.run_watched(&Serial, &mut |id, made| {
                let values = match (made, grids.quant(id)) {
                    (Made::Bytes(bytes), Some(quant)) => bytes.iter().map(|&b| quant.value(b)).collect(),
                    (Made::Floats(values), _) => values.to_vec(),
                    (Made::Bytes(_), None) => return,
                };
                results.insert(id, values);
            });
            results
        };
        let exact = watch(&exact, graph);
        let power = |(id, rounded): (NodeId, Vec<f32>)| {
            let pairs = || exact[&id].iter().zip(&rounded);
            let signal: f64 = pairs().map(|(e, _)| f64::from(*e).powi(2)).sum();
            let noise: f64 = pairs().map(|(e, r)| f64::from(e - r).powi(2)).sum();
            (id, [signal, noise])
        };
        watch(&rounded, int8).into_iter().filter(|(id, _)| exact.contains_key(id)).map(power).collect()
    };
    let each: Vec<BTreeMap<NodeId, [f64; 2]>> = threads.install(|| inputs.par_iter().map(powers).collect());
    let mut sums: BTreeMap<NodeId, [f64; 2]> = BTreeMap::new();
    for (id, [signal, noise]) in each.into_iter().flatten() {
        let sum = sums.entry(id).or_default();
        *sum = [sum[0] + signal, sum[1] + noise];
    }
    let error = |(id, node): (NodeId, &penjing_runtime::graph::Node)| {
        let [signal, noise] = *sums.get(&end(int8, id))?;
        let sqnr = 10.0 * (signal / noise).log10();
        let is_int8 = |tensor: &penjing_runtime::tensor::Tensor| matches!(tensor.data, Data::I8(_));
        Some(LayerError {
            name: node.name.clone(),
            int8: integers.get(&format!("{}.weight", node.name)).is_some_and(is_int8),
            sqnr_db: sqnr.is_finite().then_some(sqnr),
            alone: None,
        })
    };
    Ok(int8.iter().filter(|(_, node)| layer(node)).filter_map(error).collect())
}

/// The node that stands for a layer's result: the activation that is drawn into it, where that alone is kept in 8 bits.
fn end(graph: &Graph, id: NodeId) -> NodeId {
    let behind = graph.iter().find(|(_, node)| node.inputs == [id]);
    match behind {
        Some((user, node)) if graph.node(id).quant.is_none() && node.quant.is_some() => user,
        _ => id,
    }
}

/// Fills in for each layer what it costs when it alone is in 8 bits.
///
/// # Errors
/// As [`quantize`] and [`judge::logits`]; [`Error::Interrupted`].
pub fn measure_alone(
    errors: &mut [LayerError],
    graph: &Graph,
    weights: &Weights,
    pixels: &Pixels,
    grids: &BTreeMap<NodeId, Quant>,
    seen: &Observations,
    rounding: &Rounding,
    (inputs, exact): (&[Vec<f32>], &Logits),
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<()> {
    let names: Vec<String> = errors.iter().map(|error| error.name.clone()).collect();
    progress.begin("each layer alone in 8 bits", errors.len());
    for error in errors.iter_mut().filter(|error| error.int8) {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        let Some((id, node)) = graph.iter().find(|(_, node)| node.name == error.name) else { continue };
        let mut around = grids.clone();
        let behind = graph.iter().find(|(_, node)| node.inputs == [id]).map(|(user, _)| user);
        let near = [Some(source(graph, node.inputs[0])), Some(id), behind];
        around.retain(|id, _| near.contains(&Some(*id)));
        let floats = names.iter().filter(|name| **name != error.name).cloned().collect();
        let alone = Rounding { floats, ..rounding.clone() };
        let (graph, weights) = quantize(graph, weights, &around, seen, &alone)
            .map_err(|error| Error::Unsupported(error.to_string()))?;
        let logits = judge::logits(&graph, &weights, pixels, inputs, threads)?;
        error.alone = Some(Distance::between(exact, &logits).divergence);
        progress.advance(1);
    }
    progress.end();
    Ok(())
}
