//! What a graph means, operation by operation, in plain loops over doubles.

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::{Act, AvgPool, Op, Pool, Shape},
    tensor::Weights,
};

use super::random_graphs::size;

/// A map in doubles, read with padding.
struct Map<'a> {
    shape: Shape,
    values: &'a [f64],
}

impl Map<'_> {
    /// `None` outside.
    fn get(&self, n: usize, y: isize, x: isize, c: usize) -> Option<f64> {
        let [_, h, w, channels] = self.shape;
        let (y, x) =
            (usize::try_from(y).ok().filter(|y| *y < h)?, usize::try_from(x).ok().filter(|x| *x < w)?);
        Some(self.values[((n * h + y) * w + x) * channels + c])
    }
}

fn activate(act: Act, x: f64) -> f64 {
    let hard = (x + 3.0).clamp(0.0, 6.0) / 6.0;
    match act {
        Act::None => x,
        Act::Relu => x.max(0.0),
        Act::Relu6 => x.clamp(0.0, 6.0),
        Act::LeakyRelu(slope) => {
            if x < 0.0 {
                x * f64::from(slope)
            } else {
                x
            }
        }
        Act::HSwish => x * hard,
        Act::HSigmoid => hard,
        Act::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Act::Silu => x / (1.0 + (-x).exp()),
    }
}

/// Each value of a result, from its place `[n, y, x, c]`.
fn each(shape: Shape, mut value: impl FnMut(usize, usize, usize, usize) -> f64) -> Vec<f64> {
    let [n, h, w, c] = shape;
    let mut out = Vec::with_capacity(size(shape));
    for n in 0..n {
        for y in 0..h {
            for x in 0..w {
                out.extend((0..c).map(|c| value(n, y, x, c)));
            }
        }
    }
    out
}

/// Where tap `k` of the window at `at` reads.
fn tap(at: usize, stride: usize, before: usize, k: usize, dilation: usize) -> isize {
    (at * stride + k * dilation) as isize - before as isize
}

/// Every operation by itself, in plain loops; `change` sees each result before others read it.
pub fn interpret(
    graph: &Graph,
    weights: &Weights,
    input: &[f32],
    mut change: impl FnMut(NodeId, &mut Vec<f64>),
) -> Vec<f64> {
    let mut results: Vec<Vec<f64>> = Vec::new();
    for (id, node) in graph.iter() {
        let maps: Vec<Map> = node
            .inputs
            .iter()
            .map(|id| Map { shape: graph.shape(*id), values: &results[id.index()] })
            .collect();
        let weight = |suffix: &str| -> Vec<f64> {
            let tensor = weights.get(&format!("{}.{suffix}", node.name));
            tensor.map_or(Vec::new(), |t| t.to_f32().into_iter().map(f64::from).collect())
        };
        let shape = node.shape;
        let first = maps.first();
        let at = |n, y, x, c| first.unwrap().get(n, y as isize, x as isize, c).unwrap();
        let mut result: Vec<f64> = match &node.op {
            Op::Input { .. } => input.iter().map(|v| f64::from(*v)).collect(),
            Op::Conv(conv) => {
                let (w, bias) = (weight("weight"), weight("bias"));
                let map = &maps[0];
                let [per_in, per_out] = [map.shape[3] / conv.groups, conv.out_channels / conv.groups];
                let [kh, kw] = conv.kernel;
                each(shape, |n, y, x, o| {
                    let mut sum = bias.get(o).copied().unwrap_or(0.0);
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let iy = tap(y, conv.stride[0], conv.padding[0], ky, conv.dilation[0]);
                            let ix = tap(x, conv.stride[1], conv.padding[2], kx, conv.dilation[1]);
                            for i in 0..per_in {
                                let value = map.get(n, iy, ix, o / per_out * per_in + i).unwrap_or(0.0);
                                sum += value * w[((o * kh + ky) * kw + kx) * per_in + i];
                            }
                        }
                    }
                    sum
                })
            }
            Op::BatchNorm { eps } => {
                let [gamma, beta, mean, var] = ["gamma", "beta", "mean", "var"].map(weight);
                each(shape, |n, y, x, c| {
                    gamma[c] * (at(n, y, x, c) - mean[c]) / (var[c] + f64::from(*eps)).sqrt() + beta[c]
                })
            }
            Op::Act(act) => each(shape, |n, y, x, c| activate(*act, at(n, y, x, c))),
            Op::Add => maps[0].values.iter().zip(maps[1].values).map(|(a, b)| a + b).collect(),
            Op::Mul => {
                let whole = maps[0].shape == maps[1].shape;
                each(shape, |n, y, x, c| {
                    let (fy, fx) = if whole { (y as isize, x as isize) } else { (0, 0) };
                    at(n, y, x, c) * maps[1].get(n, fy, fx, c).unwrap()
                })
            }
            Op::Concat => each(shape, |n, y, x, mut c| {
                let holder = maps.iter().find(|map| {
                    let inside = c < map.shape[3];
                    c -= if inside { 0 } else { map.shape[3] };
                    inside
                });
                holder.unwrap().get(n, y as isize, x as isize, c).unwrap()
            }),
            Op::Slice { start, .. } => each(shape, |n, y, x, c| at(n, y, x, start + c)),
            Op::ChannelShuffle { groups } => {
                let per_group = shape[3] / groups;
                each(shape, |n, y, x, c| at(n, y, x, c % groups * per_group + c / groups))
            }
            Op::Pad { padding } => each(shape, |n, y, x, c| {
                maps[0].get(n, tap(y, 1, padding[0], 0, 1), tap(x, 1, padding[2], 0, 1), c).unwrap_or(0.0)
            }),
            Op::MaxPool(p) => each(shape, |n, y, x, c| {
                window(&maps[0], p, n, y, x, c).0.into_iter().fold(f64::NEG_INFINITY, f64::max)
            }),
            Op::AvgPool(AvgPool { window: p, count_include_pad }) => each(shape, |n, y, x, c| {
                let (values, positions) = window(&maps[0], p, n, y, x, c);
                values.iter().sum::<f64>() / if *count_include_pad { positions } else { values.len() } as f64
            }),
            Op::GlobalAvgPool => {
                let [_, h, w, _] = maps[0].shape;
                each(shape, |n, _, _, c| {
                    (0..h * w).map(|pixel| at(n, pixel / w, pixel % w, c)).sum::<f64>() / (h * w) as f64
                })
            }
            Op::Flatten | Op::Dropout { .. } => maps[0].values.to_vec(),
            Op::Linear { .. } => {
                let (w, bias) = (weight("weight"), weight("bias"));
                let inputs = maps[0].shape[3];
                each(shape, |n, _, _, o| {
                    (0..inputs).fold(bias.get(o).copied().unwrap_or(0.0), |sum, i| {
                        sum + at(n, 0, 0, i) * w[o * inputs + i]
                    })
                })
            }
            Op::Softmax => each(shape, |n, y, x, c| {
                let sum: f64 = (0..shape[3]).map(|other| at(n, y, x, other).exp()).sum();
                at(n, y, x, c).exp() / sum
            }),
        };
        assert_eq!(result.len(), size(shape));
        change(id, &mut result);
        results.push(result);
    }
    results.pop().unwrap()
}

/// The values under a pooling window, and how many positions it has inside the padded map.
fn window(map: &Map, pool: &Pool, n: usize, y: usize, x: usize, c: usize) -> (Vec<f64>, usize) {
    let (mut values, mut positions) = (Vec::new(), 0);
    for ky in 0..pool.kernel[0] {
        for kx in 0..pool.kernel[1] {
            let iy = tap(y, pool.stride[0], pool.padding[0], ky, 1);
            let ix = tap(x, pool.stride[1], pool.padding[2], kx, 1);
            let inside = |at: isize, extent: usize, after: usize| at < (extent + after) as isize;
            positions += usize::from(
                inside(iy, map.shape[1], pool.padding[1]) && inside(ix, map.shape[2], pool.padding[3]),
            );
            values.extend(map.get(n, iy, ix, c));
        }
    }
    (values, positions)
}
