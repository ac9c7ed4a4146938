//! What the layers of a network read, at some places of some photos, and how it goes along with itself.

use std::{collections::BTreeMap, sync::Arc};

use penjing_kernels::pointwise;
use penjing_runtime::{
    Act, Isa, Lower, PlanBuf, Serial, Session,
    aligned::Aligned,
    graph::{Graph, NodeId},
    op::{Conv, Op},
    plan::Made,
    tensor::Weights,
};
use rayon::prelude::*;

use super::{
    fold::{layer, source},
    unsupported,
};
use crate::{Error, Result, progress::Progress, threads::Threads};

/// What a layer's weights multiply: `[places][weights of an output]`.
pub(super) type Reads = Vec<f32>;

/// Photos that layers are fitted on.
pub(super) const FITTED: usize = 128;
/// About so many places of a layer's result are looked at, fewer where what all layers read there would take more bytes.
const PLACES: usize = 4096;
const READS_BYTES: usize = 256 << 20;

/// How many places of all these layers are looked at.
pub(super) fn places(weights: &Weights, names: &[String]) -> usize {
    let each = |name: &String| weights[&format!("{name}.weight")].shape[1..].iter().product::<usize>();
    let each: usize = names.iter().map(each).sum();
    (READS_BYTES / size_of::<f32>() / each.max(1)).clamp(PLACES / 8, PLACES)
}

/// Runs a network and keeps what these layers, convolutions of one group or linear ones, read at about `places` places over all
/// photos. The places are those of the layers' results: the same for every network whose maps are as large.
///
/// # Errors
/// [`Error::Unsupported`] when the network cannot be run; [`Error::Interrupted`].
pub(super) fn watch(
    graph: &Graph,
    weights: &Weights,
    names: &[String],
    inputs: &[Vec<f32>],
    places: usize,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Reads>> {
    // The layers that read a result, by that result.
    let mut readers: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for (id, node) in graph.iter().filter(|(_, node)| layer(node) && names.contains(&node.name)) {
        readers.entry(source(graph, node.inputs[0])).or_default().push(id);
    }
    // What nobody of them reads need not be computed.
    let Some((last, _)) = readers.last_key_value() else { return Ok(BTreeMap::new()) };
    let begin = graph.up_to(*last);
    let needed = begin.parameters().into_iter().filter_map(|(name, _)| weights.get_key_value(&name));
    let needed: Weights = needed.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let plan = Arc::new(PlanBuf::lower_with(&begin, &needed, Lower::plain(1)).map_err(unsupported)?);
    let per_photo = (places / inputs.len().max(1)).max(1);
    progress.begin("watching the network", inputs.len());
    let look = |(photo, input): (usize, &Vec<f32>)| {
        if progress.cancelled() {
            return None;
        }
        let mut session = Session::new(plan.clone(), Isa::detect());
        let mut reads: BTreeMap<NodeId, Reads> = BTreeMap::new();
        session.input().copy_from_slice(input);
        session.run_watched(&Serial, &mut |made, values| {
            let Made::Floats(values) = values else { return };
            for &id in readers.get(&made).into_iter().flatten() {
                let rows = reads.entry(id).or_default();
                spread(graph.shape(id), per_photo, photo)
                    .for_each(|place| read(graph, id, values, place, rows));
            }
        });
        progress.advance(1);
        Some(reads)
    };
    let each: Option<Vec<_>> = threads.install(|| inputs.par_iter().enumerate().map(look).collect());
    progress.end();
    let mut all: BTreeMap<String, Reads> = BTreeMap::new();
    for (id, mut rows) in each.ok_or(Error::Interrupted)?.into_iter().flatten() {
        all.entry(graph.node(id).name.clone()).or_default().append(&mut rows);
    }
    Ok(all)
}

/// Some places `[y, x]` of a map, spread over it, others for each photo.
fn spread([_, h, w, _]: [usize; 4], count: usize, photo: usize) -> impl Iterator<Item = [usize; 2]> {
    let (all, count) = (h * w, count.min(h * w));
    (0..count).map(move |at| (at * all / count + photo * 7919) % all).map(move |place| [place / w, place % w])
}

/// Appends what a layer's weights multiply at a place of its result.
fn read(graph: &Graph, id: NodeId, values: &[f32], [y, x]: [usize; 2], rows: &mut Reads) {
    let node = graph.node(id);
    match &node.op {
        Op::Conv(conv) => {
            let [_, h, w, c] = graph.shape(node.inputs[0]);
            window(conv, [h, w, c], values, [y, x], rows);
        }
        _ => rows.extend_from_slice(values),
    }
}

fn window(conv: &Conv, [h, w, c]: [usize; 3], values: &[f32], [y, x]: [usize; 2], rows: &mut Reads) {
    let along = |at: usize, tap: usize, axis: usize, before: usize, extent: usize| {
        (at * conv.stride[axis] + tap * conv.dilation[axis]).checked_sub(before).filter(|&at| at < extent)
    };
    for dy in 0..conv.kernel[0] {
        for dx in 0..conv.kernel[1] {
            let place = along(y, dy, 0, conv.padding[0], h).zip(along(x, dx, 1, conv.padding[2], w));
            match place {
                Some((y, x)) => rows.extend_from_slice(&values[(y * w + x) * c..][..c]),
                None => rows.extend(std::iter::repeat_n(0.0, c)),
            }
        }
    }
}

/// What a layer gives for what it reads: `[places][outputs]`.
pub(super) fn results(weights: &[f32], biases: &[f32], x: &[f32]) -> Vec<f32> {
    let (outputs, each) = (biases.len(), weights.len() / biases.len());
    let mut packed = Aligned::zeros(pointwise::packed_len(outputs, each));
    pointwise::pack(outputs, each, weights, Some(biases), packed.get_mut());
    let places = x.len() / each;
    let mut y = vec![0.0; places * outputs];
    let isa = Isa::detect();
    pointwise::run(isa, &Serial, places, each, outputs, Act::None, x, packed.get(), None, &mut y);
    y
}

/// `Xᵀ·X`: `X` are rows of `each` values.
pub(super) fn correlations(x: &[f32], each: usize) -> Vec<f64> {
    products(x, x, each, each).into_iter().map(f64::from).collect()
}

/// `Xᵀ·Y`, `[columns of x][columns of y]`.
pub(super) fn products(x: &[f32], y: &[f32], x_each: usize, y_each: usize) -> Vec<f32> {
    let mut sums = vec![0.0; x_each * y_each];
    let (rows, isa) = (x.len() / x_each, Isa::detect());
    pointwise::weight_gradient(isa, &Serial, rows, x_each, y_each, x, y, &mut sums);
    sums
}

/// Takes its mean from each column of rows of `each` values, and gives the means.
pub(super) fn centre(x: &mut [f32], each: usize) -> Vec<f32> {
    let places = (x.len() / each).max(1) as f64;
    let mut sums = vec![0.0; each];
    for row in x.chunks_exact(each) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    let means: Vec<f32> = sums.into_iter().map(|sum| (sum / places) as f32).collect();
    for row in x.chunks_exact_mut(each) {
        row.iter_mut().zip(&means).for_each(|(v, mean)| *v -= mean);
    }
    means
}

/// What is added to the diagonal of correlations, as a share of its mean: the photos are few.
pub(super) const DAMPING: f64 = 0.01;

/// [`inverse_factor`] of correlations that few photos tell.
pub(super) fn damped_inverse_factor(mut h: Vec<f64>, k: usize) -> Vec<f64> {
    damp(&mut h, k);
    inverse_factor(h, k)
}

/// Adds to the diagonal of correlations that few photos tell, and gives what was added.
pub(super) fn damp(h: &mut [f64], k: usize) -> f64 {
    let mean = (0..k).map(|i| h[i * k + i]).sum::<f64>() / k as f64;
    // Where nothing varies nothing is told.
    let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
    (0..k).for_each(|i| h[i * k + i] += damping);
    damping
}

/// The upper triangle `U` with `Uᵀ·U = H⁻¹`, of the upper triangle of a positive `H`, `k` by `k`.
pub(super) fn inverse_factor(mut h: Vec<f64>, k: usize) -> Vec<f64> {
    // H = R·Rᵀ with R an upper triangle, in its place and from its end.
    for j in (0..k).rev() {
        let (above, rest) = h.split_at_mut(j * k);
        let last = &mut rest[..k];
        last[j] = (last[j] - dot(&last[j + 1..], &last[j + 1..])).max(f64::MIN_POSITIVE).sqrt();
        for row in above.chunks_exact_mut(k) {
            row[j] = (row[j] - dot(&row[j + 1..], &last[j + 1..])) / last[j];
        }
    }
    // U = R⁻¹, row by row.
    let mut u = vec![0.0; k * k];
    for (j, row) in u.chunks_exact_mut(k).enumerate() {
        row[j] = 1.0;
        for m in j..k {
            let r = &h[m * k..][..k];
            row[m] /= r[m];
            let (done, left) = row.split_at_mut(m + 1);
            left.iter_mut().zip(&r[m + 1..]).for_each(|(v, r)| *v -= done[m] * r);
        }
    }
    u
}

/// Σ a·b in eight sums, so that the compiler may use vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|lane| sums[lane] += a[lane] * b[lane]);
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_what_a_convolution_multiplies() {
        let conv = Conv { stride: [2, 1], padding: [1, 0, 0, 1], ..Conv::new(1, 2, 1) };
        let values: Vec<f32> = (1..=12).map(|v| v as f32).collect();
        let mut rows = Vec::new();
        for place in [[0, 0], [1, 2]] {
            window(&conv, [4, 3, 1], &values, place, &mut rows);
        }
        // Above the map, its first row; then its last column and the padding beside it.
        assert_eq!(rows, [0.0, 0.0, 1.0, 2.0, 6.0, 0.0, 9.0, 0.0]);
    }
}
