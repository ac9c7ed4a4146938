//! What is lowered computes what the graph means: random graphs against a plain interpreter, for every instruction set,
//! batch and number of threads.
#![cfg(feature = "file")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use penjing_runtime::{
    Isa, PlanBuf, Serial, Session, Workers,
    graph::{Graph, NodeId},
    op::{Act, AvgPool, Conv, Op, Pool, Shape},
    plan::Step,
    tensor::{Tensor, Weights},
};

struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// −1..1.
    fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }
}

/// Pieces run on two threads at once.
struct Pair;

impl Workers for Pair {
    fn threads(&self) -> usize {
        2
    }

    fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = |worker| {
            while let piece = next.fetch_add(1, Ordering::Relaxed)
                && piece < pieces
            {
                task(piece, worker);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| work(1));
            work(0);
        });
    }
}

fn size(shape: Shape) -> usize {
    shape.iter().product()
}

/// A graph that grows at random: mostly from its newest node, so that there is something to fuse, now and then from an
/// older one, so that there is something that must not be fused.
fn random_graph(random: &mut SplitMix) -> Graph {
    let mut graph = Graph::default();
    let side = 3 + random.below(7);
    let channels = random.pick(&[1, 3, 4, 8, 17]);
    let shape = [1, side, side + random.below(3), channels];
    let mut last = graph.push("input", Op::Input { shape }, &[]).unwrap();
    let length = 3 + random.below(14);
    while graph.nodes().len() < length {
        let from = if random.below(5) == 0 { random_node(random, &graph) } else { last };
        if let Some(next) = grow(random, &mut graph, from) {
            last = next;
        }
    }
    graph
}

fn random_node(random: &mut SplitMix, graph: &Graph) -> NodeId {
    let index = random.below(graph.nodes().len());
    graph.iter().nth(index).unwrap().0
}

/// Another node with a result of this kind, the newest first half of the time.
fn like(random: &mut SplitMix, graph: &Graph, fits: impl Fn(Shape) -> bool) -> Option<NodeId> {
    let all: Vec<NodeId> = graph.iter().filter(|(_, node)| fits(node.shape)).map(|(id, _)| id).collect();
    if all.is_empty() { None } else { Some(random.pick(&all)) }
}

fn random_pool(random: &mut SplitMix) -> Pool {
    let kernel = [1 + random.below(3), 1 + random.below(3)];
    let [v, h] = kernel.map(|extent| extent / 2 + 1);
    let padding = [random.below(v), random.below(v), random.below(h), random.below(h)];
    Pool { kernel, stride: [1 + random.below(3), 1 + random.below(3)], padding, ceil_mode: random.coin() }
}

fn random_conv(random: &mut SplitMix, channels: usize) -> Conv {
    let groups = match random.below(4) {
        0 | 1 => 1,
        2 => channels,
        _ => (1..=channels).rev().find(|g| channels.is_multiple_of(*g) && *g <= channels / 2).unwrap_or(1),
    };
    let out_channels = match random.below(3) {
        0 => channels,
        _ => groups * (1 + random.below(3)),
    };
    let square = random.coin();
    let kernel =
        if square { [random.pick(&[1, 1, 3]); 2] } else { [1 + random.below(4), 1 + random.below(4)] };
    Conv {
        out_channels,
        kernel,
        stride: if random.below(3) == 0 { [1 + random.below(2), 1 + random.below(3)] } else { [1; 2] },
        padding: if kernel == [1, 1] && random.below(4) > 0 {
            [0; 4]
        } else {
            // Now and then wider than the kernel, so that some windows see nothing but padding.
            let most = if random.below(6) == 0 { 6 } else { 3 };
            [0; 4].map(|_| random.below(most))
        },
        dilation: if random.below(4) == 0 { [1 + random.below(2), 1 + random.below(2)] } else { [1; 2] },
        groups,
        bias: random.coin(),
    }
}

/// Appends one random operation, if it fits.
fn grow(random: &mut SplitMix, graph: &mut Graph, from: NodeId) -> Option<NodeId> {
    let [n, h, w, c] = graph.shape(from);
    let acts = [
        Act::None,
        Act::Relu,
        Act::Relu6,
        Act::LeakyRelu(0.25),
        Act::HSwish,
        Act::HSigmoid,
        Act::Sigmoid,
        Act::Silu,
    ];
    let mut inputs = vec![from];
    let op = match random.below(24) {
        0..=6 => Op::Conv(random_conv(random, c)),
        7..=9 => Op::BatchNorm { eps: 1e-3 },
        10..=12 => Op::Act(random.pick(&acts)),
        13..=15 => {
            inputs.push(like(random, graph, |shape| shape == [n, h, w, c])?);
            if random.coin() {
                inputs.reverse();
            }
            Op::Add
        }
        16 => {
            inputs.push(like(random, graph, |shape| shape == [n, h, w, c] || shape == [n, 1, 1, c])?);
            Op::Mul
        }
        17 => {
            for _ in 0..random.below(3) {
                inputs.push(like(random, graph, |shape| shape[..3] == [n, h, w])?);
            }
            Op::Concat
        }
        18 => {
            let start = random.below(c);
            Op::Slice { start, len: 1 + random.below(c - start) }
        }
        19 => Op::ChannelShuffle { groups: 1 + random.below(c.min(4)) },
        20 => Op::Pad { padding: [0; 4].map(|_| random.below(3)) },
        21 => match random.below(3) {
            0 => Op::MaxPool(random_pool(random)),
            1 => Op::AvgPool(AvgPool { window: random_pool(random), count_include_pad: random.coin() }),
            _ => Op::GlobalAvgPool,
        },
        22 => random.pick(&[Op::Softmax, Op::Dropout { rate: 0.5 }]),
        _ if [h, w] == [1, 1] => Op::Linear { out_features: 1 + random.below(9), bias: random.coin() },
        _ => Op::Flatten,
    };
    let name = format!("n{}", graph.nodes().len());
    let id = graph.push(&name, op, &inputs).ok()?;
    assert!(size(graph.shape(id)) < 1 << 20);
    Some(id)
}

fn random_weights(random: &mut SplitMix, graph: &Graph) -> Weights {
    let mut tensor = |(name, shape): (String, Vec<usize>)| {
        let mut values = random.values(shape.iter().product());
        if name.ends_with(".var") {
            values.iter_mut().for_each(|v| *v = 1.0 + *v / 2.0);
        }
        if name.ends_with(".weight") {
            // Sums keep the magnitude of what they sum.
            let fan_in: usize = shape[1..].iter().product();
            values.iter_mut().for_each(|v| *v *= (3.0 / fan_in as f32).sqrt());
        }
        (name, Tensor::f32(&shape, values))
    };
    graph.parameters().into_iter().map(&mut tensor).collect()
}

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

/// Every operation by itself, in plain loops.
fn interpret(graph: &Graph, weights: &Weights, input: &[f32]) -> Vec<f64> {
    let mut results: Vec<Vec<f64>> = Vec::new();
    for node in graph.nodes() {
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
        let result = match &node.op {
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

fn run(plan: &Arc<PlanBuf>, isa: Isa, workers: &dyn Workers, input: &[f32]) -> Vec<f32> {
    let mut session = Session::new(plan.clone(), isa);
    session.input().copy_from_slice(input);
    session.run(workers).to_vec()
}

#[test]
fn random_graphs_give_what_their_operations_give_one_by_one() {
    let (mut fused, mut steps, mut nodes, mut ops) = (0, 0, 0, std::collections::BTreeMap::new());
    for seed in 0..1500 {
        let mut random = SplitMix(seed);
        let graph = random_graph(&mut random);
        let weights = random_weights(&mut random, &graph);
        let shape = graph.input_shape().unwrap();
        let images = random.values(3 * size(shape));
        let expected: Vec<f64> =
            images.chunks(size(shape)).flat_map(|image| interpret(&graph, &weights, image)).collect();
        let largest = expected.iter().fold(1.0f64, |largest, v| largest.max(v.abs()));
        let mut bits: [Option<Vec<u32>>; 2] = [None, None];
        for (batch, bits) in [1, 3].into_iter().zip(&mut bits) {
            let graph = graph.with_input([batch, shape[1], shape[2], shape[3]]).unwrap();
            let input = &images[..batch * size(shape)];
            let plan = Arc::new(PlanBuf::lower(&graph, &weights, 2).unwrap());
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Pair] {
                    let found = run(&plan, isa, workers, input);
                    assert_eq!(found.len(), expected.len() / 3 * batch);
                    for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
                        let off = (f64::from(*a) - b).abs();
                        assert!(
                            off <= 1e-4 * largest,
                            "seed {seed}, {}, batch {batch}, value {index}: {a}, expected {b}\n{:#?}",
                            isa.name(),
                            graph.nodes()
                        );
                    }
                    let found = found.into_iter().map(f32::to_bits).collect();
                    // Neither threads nor instruction sets change a bit.
                    assert!(
                        *bits.get_or_insert_with(|| Vec::clone(&found)) == found,
                        "seed {seed}, {}",
                        isa.name()
                    );
                }
            }
            fused += usize::from(plan.plan().steps.len() + 1 < graph.nodes().len());
            steps += plan.plan().steps.len();
            nodes += graph.nodes().len();
        }
        let [one, three] = bits.map(Option::unwrap);
        assert!(three[..one.len()] == one, "seed {seed}: a photo's result depends on its batch");
        graph.nodes().iter().for_each(|node| *ops.entry(node.op.name()).or_insert(0) += 1);
    }
    println!("{fused} of 3000 plans have fewer steps than layers, {steps} for {nodes}; layers: {ops:?}");
    assert_eq!(ops.len(), 17, "every operation was there");
    assert!(ops.values().all(|&count| count > 50), "{ops:?}");
}

#[test]
fn the_arena_is_exactly_as_large_as_it_says() {
    const MARK: f32 = 123.0;
    for seed in 0..200 {
        let mut random = SplitMix(seed);
        let graph = random_graph(&mut random);
        let weights = random_weights(&mut random, &graph);
        let buf = PlanBuf::lower(&graph, &weights, 2).unwrap();
        let plan = buf.plan();
        let input = random.values(plan.input.len);
        let mut session = Session::new(Arc::new(buf.clone()), Isa::detect());
        session.input().copy_from_slice(&input);
        let expected = session.run(&Serial).to_vec();

        // What stood in the arena before, and what stands behind it, is neither read nor written.
        let mut arena = vec![f32::NAN; plan.arena_len];
        arena.extend([MARK; 64]);
        arena[plan.input.start..][..plan.input.len].copy_from_slice(&input);
        plan.run(Isa::detect(), &Pair, &mut arena);
        assert!(arena[plan.output.start..][..plan.output.len] == expected, "seed {seed}");
        assert!(arena[plan.arena_len..].iter().all(|v| *v == MARK), "seed {seed}");
        assert_eq!(plan.peak_ram_bytes(), plan.arena_len * 4);

        // The last value is used; scratch memory is there for the worst case and alone may stay untouched.
        let scratch = plan.steps.iter().any(|step| matches!(step, Step::Conv { .. }));
        assert!(scratch || !arena[plan.arena_len - 1].is_nan(), "seed {seed}");
    }
}

#[test]
#[should_panic(expected = "the arena is shorter than the plan needs")]
fn a_short_arena_is_refused() {
    let mut random = SplitMix(1);
    let graph = random_graph(&mut random);
    let buf = PlanBuf::lower(&graph, &random_weights(&mut random, &graph), 1).unwrap();
    buf.plan().run(Isa::scalar(), &Serial, &mut vec![0.0; buf.plan().arena_len - 1]);
}

#[test]
#[should_panic(expected = "fewer threads")]
fn more_threads_than_planned_are_refused() {
    let mut random = SplitMix(1);
    let graph = random_graph(&mut random);
    let buf = PlanBuf::lower(&graph, &random_weights(&mut random, &graph), 1).unwrap();
    buf.plan().run(Isa::scalar(), &Pair, &mut vec![0.0; buf.plan().arena_len]);
}

#[test]
fn work_large_enough_to_be_shared_gives_the_same_bits() {
    let mut graph = Graph::default();
    let image = graph.push("image", Op::Input { shape: [2, 32, 32, 3] }, &[]).unwrap();
    let stem = Op::Conv(Conv { padding: [1; 4], bias: true, ..Conv::new(24, 3, 1) });
    let stem = graph.push("stem", stem, &[image]).unwrap();
    let depthwise = Op::Conv(Conv { padding: [2; 4], groups: 24, ..Conv::new(24, 5, 1) });
    let x = graph.push("depthwise", depthwise, &[stem]).unwrap();
    let x = graph.push("pointwise", Op::Conv(Conv::new(24, 1, 1)), &[x]).unwrap();
    let x = graph.push("add", Op::Add, &[stem, x]).unwrap();
    let x = graph.push("grouped", Op::Conv(Conv { groups: 2, ..Conv::new(64, 3, 2) }), &[x]).unwrap();
    let window = Pool { kernel: [3; 2], stride: [1; 2], padding: [1; 4], ceil_mode: false };
    let x = graph.push("max", Op::MaxPool(window), &[x]).unwrap();
    let x = graph.push("flatten", Op::Flatten, &[x]).unwrap();
    graph.push("head", Op::Linear { out_features: 40, bias: true }, &[x]).unwrap();
    let mut random = SplitMix(9);
    let weights = random_weights(&mut random, &graph);
    let input = random.values(2 * 32 * 32 * 3);
    let plan = Arc::new(PlanBuf::lower(&graph, &weights, 2).unwrap());
    let serial_plan = Arc::new(PlanBuf::lower(&graph, &weights, 1).unwrap());
    assert!(serial_plan.plan().arena_len <= plan.plan().arena_len);
    let expected = run(&serial_plan, Isa::scalar(), &Serial, &input);
    let plain = interpret(&graph, &weights, &input);
    assert!(expected.iter().zip(&plain).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4));
    for isa in Isa::available() {
        for _ in 0..5 {
            assert!(run(&plan, isa, &Pair, &input) == expected, "{}", isa.name());
        }
    }
}

#[test]
fn networks_beyond_any_memory_are_refused() {
    let mut graph = Graph::default();
    let image = graph.push("image", Op::Input { shape: [1, 1 << 14, 1 << 14, 1] }, &[]).unwrap();
    let parts: Vec<NodeId> = (0..5)
        .map(|index| graph.push(&format!("act{index}"), Op::Act(Act::Relu), &[image]).unwrap())
        .collect();
    let mut sum = parts[0];
    for (index, part) in parts[1..].iter().enumerate() {
        sum = graph.push(&format!("add{index}"), Op::Add, &[sum, *part]).unwrap();
    }
    let error = PlanBuf::lower(&graph, &Weights::new(), 1).unwrap_err().to_string();
    assert!(error.contains("values of memory, at most"), "{error}");
    let error = PlanBuf::lower(&Graph::default(), &Weights::new(), 1).unwrap_err().to_string();
    assert_eq!(error, "layer `input`: the graph is empty");
}
