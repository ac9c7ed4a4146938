//! Rounding with feedback: what the rounding of one weight moves, the weights behind it take back, as far as what they
//! multiply goes along with what it multiplies (GPTQ, Frantar et al., arXiv 2210.17323).

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use half::f16;
use penjing_runtime::{
    Isa, Lower, PlanBuf, Serial, Session,
    graph::{Graph, NodeId},
    nibbles::{self, GROUP, Nibbles},
    op::{Conv, Op},
    plan::Made,
    tensor::{Data, Tensor, Weights},
};
use rayon::prelude::*;

use super::fold::{self, layer, source};
use crate::{Error, Result, progress::Progress, threads::Threads};

/// Most places that are looked at, over all photos.
const PLACES: usize = 2048;
/// What is added to each weight's own share of the error, as a share of their mean: the photos are few.
const DAMPING: f64 = 0.01;
/// Weights of an output that feedback reaches, whole groups: what it takes grows with their square, and time with their cube.
const WIDEST: usize = 64 * GROUP;

/// What a layer's weights multiply, at some places of some photos: `[places][weights of an output]`.
type Reads = Vec<f32>;

/// The weights of these layers of a network in 4 bits, by name; convolutions among them are of one group.
///
/// # Errors
/// [`Error::Unsupported`] when the network cannot be run; [`Error::Interrupted`].
pub fn four_bits(
    graph: &Graph,
    weights: &Weights,
    names: &[String],
    inputs: &[Vec<f32>],
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Tensor>> {
    let reads = watch(graph, weights, names, inputs, threads, progress)?;
    progress.begin("rounding", reads.len());
    let round = |(name, rows): (&String, &Reads)| -> Option<(String, Tensor)> {
        let tensor = (!progress.cancelled()).then(|| weights.get(&format!("{name}.weight")))??;
        let each = tensor.shape[1..].iter().product();
        let nibbles = rounded(&tensor.to_f32(), rows, each, WIDEST);
        progress.advance(1);
        Some((name.clone(), Tensor { shape: tensor.shape.clone(), data: Data::I4(nibbles) }))
    };
    let rounded: Vec<Option<_>> = threads.install(|| reads.par_iter().map(round).collect());
    progress.end();
    rounded.into_iter().collect::<Option<_>>().ok_or(Error::Interrupted)
}

/// Runs the network, BatchNorm folded in, and keeps what the layers read.
fn watch(
    graph: &Graph,
    weights: &Weights,
    names: &[String],
    inputs: &[Vec<f32>],
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Reads>> {
    let unsupported = |error| Error::Unsupported(format!("the network cannot be run: {error}"));
    let (graph, weights) = fold::fold(graph, weights).map_err(unsupported)?;
    let plan = Arc::new(PlanBuf::lower_with(&graph, &weights, Lower::plain(1)).map_err(unsupported)?);
    // The layers that read a result, by that result.
    let mut readers: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for (id, node) in graph.iter().filter(|(_, node)| layer(node) && names.contains(&node.name)) {
        readers.entry(source(&graph, node.inputs[0])).or_default().push(id);
    }
    let per_photo = (PLACES / inputs.len().max(1)).max(1);
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
                let places = places(graph.shape(id), per_photo, photo);
                places.for_each(|place| read(&graph, id, values, place, rows));
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
fn places([_, h, w, _]: [usize; 4], count: usize, photo: usize) -> impl Iterator<Item = [usize; 2]> {
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

/// The upper triangle `U` with `Uᵀ·U = (Xᵀ·X)⁻¹`, of damped correlations of what is read: `X` are these columns of rows of
/// `each` values.
fn factor(x: &[f32], each: usize, columns: Range<usize>) -> Vec<f64> {
    let k = columns.len();
    let rows = || x.chunks_exact(each).map(|row| &row[columns.clone()]);
    let mut h = vec![0.0; k * k];
    for (i, row) in h.chunks_exact_mut(k).enumerate() {
        let mut sums = vec![0f32; k - i];
        for x in rows().filter(|x| x[i] != 0.0) {
            sums.iter_mut().zip(&x[i..]).for_each(|(sum, v)| *sum += x[i] * v);
        }
        row[i..].iter_mut().zip(sums).for_each(|(h, sum)| *h = f64::from(sum));
    }
    let mean = (0..k).map(|i| h[i * k + i]).sum::<f64>() / k as f64;
    // Where nothing is ever read all roundings are alike.
    let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
    (0..k).for_each(|i| h[i * k + i] += damping);
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

/// Weights `[outputs][each]` in 4 bits, each rounded with what those before it left, along runs of at most `widest` of them.
fn rounded(weights: &[f32], reads: &[f32], each: usize, widest: usize) -> Nibbles {
    let groups = Nibbles::row_groups(each);
    let mut integers = vec![0; weights.len()];
    let mut scales = vec![f16::ZERO; weights.len() / each * groups];
    for start in (0..each).step_by(widest) {
        let run = start..each.min(start + widest);
        let u = factor(reads, each, run.clone());
        let u: Vec<f32> = u.into_iter().map(|v| v as f32).collect();
        let outputs = integers.chunks_exact_mut(each).zip(scales.chunks_exact_mut(groups));
        for (output, (integers, scales)) in weights.chunks_exact(each).zip(outputs) {
            feed_back(&output[run.clone()], &u, &mut integers[run.clone()], &mut scales[start / GROUP..]);
        }
    }
    Nibbles::pack(&integers, scales, each)
}

/// One run of an output.
fn feed_back(weights: &[f32], u: &[f32], integers: &mut [i8], scales: &mut [f16]) {
    let mut left = weights.to_vec();
    for (at, row) in u.chunks_exact(weights.len()).enumerate() {
        let scale = &mut scales[at / GROUP];
        if at % GROUP == 0 {
            *scale = nibbles::best_scale(&left[at..weights.len().min(at + GROUP)]);
        }
        let scale = scale.to_f32();
        integers[at] = nibbles::rounded(left[at], scale);
        let moved = (left[at] - f32::from(integers[at]) * scale) / row[at];
        left[at + 1..].iter_mut().zip(&row[at + 1..]).for_each(|(w, u)| *w -= moved * u);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    const K: usize = 40;

    /// Rows whose values go along with each other, as those of a network do.
    fn reads(rows: usize) -> Reads {
        let mut random = SplitMix64::new(3);
        let mut x = Vec::new();
        for _ in 0..rows {
            let common = random.uniform() as f32;
            x.extend((0..K).map(|_| (common + 0.3 * random.uniform() as f32 - 0.2).max(0.0)));
        }
        x
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let (x, u) = (reads(200), factor(&reads(200), K, 0..K));
        assert!((0..K).all(|i| u[i * K..][..i].iter().all(|&v| v == 0.0)), "an upper triangle");
        let mut h = vec![0.0; K * K];
        for x in x.chunks_exact(K) {
            (0..K * K).for_each(|at| h[at] += f64::from(x[at / K]) * f64::from(x[at % K]));
        }
        let mean = (0..K).map(|i| h[i * K + i]).sum::<f64>() / K as f64;
        (0..K).for_each(|i| h[i * K + i] += DAMPING * mean);
        // Uᵀ·U·H is the identity.
        let inverse = |i: usize, j: usize| (0..K).map(|m| u[m * K + i] * u[m * K + j]).sum::<f64>();
        for i in 0..K {
            for j in 0..K {
                let product: f64 = (0..K).map(|m| inverse(i, m) * h[m * K + j]).sum();
                assert!((product - f64::from(i == j)).abs() < 1e-4, "{i} {j}: {product}");
            }
        }
    }

    #[test]
    fn feedback_brings_results_nearer() {
        let x = reads(200);
        let mut random = SplitMix64::new(5);
        let weights: Vec<f32> = (0..4 * K).map(|_| random.uniform() as f32 - 0.5).collect();
        let off = |nibbles: &Nibbles| -> f32 {
            let moved: Vec<f32> = nibbles.to_f32().iter().zip(&weights).map(|(a, b)| a - b).collect();
            let square = |(w, x): (&[f32], &[f32])| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>().powi(2);
            moved.chunks_exact(K).flat_map(|w| x.chunks_exact(K).map(move |x| square((w, x)))).sum()
        };
        let [plain, fed] = [Nibbles::of(&weights, K), rounded(&weights, &x, K, WIDEST)];
        assert!(off(&fed) < 0.3 * off(&plain), "{} {}", off(&fed), off(&plain));
        // Where nothing is read nothing is fed back.
        assert!(rounded(&weights, &[0.0; 5 * K], K, WIDEST) == plain);
        // Runs of an output stand for themselves.
        let columns = |values: &[f32], columns: Range<usize>| -> Vec<f32> {
            values.chunks_exact(K).flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        let halves = [0..GROUP, GROUP..K].map(|run| {
            let (weights, x) = (columns(&weights, run.clone()), columns(&x, run.clone()));
            rounded(&weights, &x, run.len(), WIDEST).to_f32()
        });
        let both = rounded(&weights, &x, K, GROUP).to_f32();
        assert_eq!([0..GROUP, GROUP..K].map(|run| columns(&both, run)), halves);
    }

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
