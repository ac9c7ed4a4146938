//! What is kept in 8 bits: random graphs, node by node against plain loops, for every instruction set, batch and number of
//! threads.
#![cfg(feature = "file")]

mod plain;
mod random_graphs;
mod team;

use std::{collections::BTreeMap, sync::Arc};

use penjing_runtime::{
    Isa, Lower, PlanBuf, Serial, Session, Workers,
    graph::{Graph, NodeId},
    int8::Int8,
    op::{Act, Conv, Op},
    plan::{Made, Step},
    quant::Quant,
    tensor::{Data, Tensor, Weights},
};
use plain::interpret;
use random_graphs::{SplitMix, random_graph, random_weights, size};
use team::Team;

/// The results that stood whole, as they mean.
fn watched(
    plan: &Arc<PlanBuf>,
    graph: &Graph,
    isa: Isa,
    workers: &dyn Workers,
    input: &[f32],
) -> (BTreeMap<NodeId, Vec<f32>>, Vec<f32>) {
    let mut session = Session::new(plan.clone(), isa);
    session.input().copy_from_slice(input);
    let mut results = BTreeMap::new();
    let output = session.run_watched(workers, &mut |id, made| {
        let values = match made {
            Made::Floats(values) => values.to_vec(),
            Made::Bytes(bytes) => {
                let quant = graph.quant(id).expect("bytes have a grid");
                bytes.iter().map(|&byte| quant.value(byte)).collect()
            }
        };
        results.insert(id, values);
    });
    let output = output.to_vec();
    (results, output)
}

/// Most results kept in 8 bits, on grids made for these images, and most weights too; some convolutions leave that to the
/// activation behind them.
fn quantized(random: &mut SplitMix, graph: &mut Graph, weights: &mut Weights, images: &[f32]) {
    let plan = Arc::new(PlanBuf::lower_with(graph, weights, Lower::plain(1)).unwrap());
    let mut ranges: BTreeMap<NodeId, [f32; 2]> = BTreeMap::new();
    for image in images.chunks(plan.plan().input.len) {
        for (id, values) in watched(&plan, graph, Isa::detect(), &Serial, image).0 {
            let [low, high] = ranges.entry(id).or_insert([f32::INFINITY, f32::NEG_INFINITY]);
            values.iter().for_each(|&v| (*low, *high) = (low.min(v), high.max(v)));
        }
    }
    for (id, [low, high]) in ranges {
        let node = graph.node(id);
        let before_act = matches!(node.op, Op::Conv(_) | Op::Linear { .. } | Op::Add)
            && graph.nodes().iter().any(|user| user.inputs == [id] && matches!(user.op, Op::Act(_)));
        let passes_on = matches!(node.op, Op::Flatten | Op::Dropout { .. });
        let chance = random.values(1)[0];
        if chance
            > if passes_on {
                -0.5
            } else if before_act {
                -0.3
            } else {
                0.7
            }
        {
            continue;
        }
        // Now and then too narrow, so that something is cut off, or so wide that an activation's limits lie within.
        let stretch = match random.values(1)[0] {
            ..-0.8 => 1.7,
            0.8.. => 0.6,
            _ => 1.0,
        };
        graph.set_quant(id, Some(Quant::over(low * stretch, high * stretch))).unwrap();
    }
    for (name, tensor) in weights.iter_mut().filter(|(name, _)| name.ends_with(".weight")) {
        if random.values(1)[0] < 0.7 {
            let each = tensor.to_i8();
            let one = tensor.to_f32().iter().fold(1e-6f32, |peak, v| peak.max(v.abs())) / 127.0;
            *tensor = if random.values(1)[0] < 0.0 { tensor.to_i8_with(vec![one]) } else { each };
            assert!(matches!(tensor.data, Data::I8(_)), "{name}");
        }
    }
}

/// The name of the variant.
fn kind(step: &Int8) -> String {
    let text = format!("{step:?}");
    text.split(' ').next().unwrap_or_default().to_string()
}

#[test]
fn each_result_in_8_bits_is_the_nearest_to_what_its_inputs_give() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..1500 {
        let mut random = SplitMix(seed);
        let mut graph = random_graph(&mut random);
        let mut weights = random_weights(&mut random, &graph);
        let shape = graph.input_shape().unwrap();
        let images = random.values(3 * size(shape));
        quantized(&mut random, &mut graph, &mut weights, &images);
        let one = Arc::new(PlanBuf::lower(&graph, &weights, 5).unwrap());
        for step in one.plan().steps {
            if let Step::Int8(step) = step {
                *kinds.entry(kind(step)).or_default() += 1;
            }
        }
        let mut outputs = Vec::new();
        for image in images.chunks(size(shape)) {
            let (results, output) = watched(&one, &graph, Isa::scalar(), &Serial, image);
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Team(3)] {
                    let other = watched(&one, &graph, isa, workers, image).0;
                    assert!(other == results, "seed {seed}, {}", isa.name());
                }
            }
            interpret(&graph, &weights, image, |id, expected| {
                let Some(found) = results.get(&id) else { return };
                let node = graph.node(id);
                let largest = expected.iter().fold(1.0f64, |peak, v| peak.max(v.abs()));
                let quant = graph.quant(id);
                let step = quant.map_or(0.0, |quant| f64::from(quant.scale));
                let of = |id: NodeId| graph.quant(id).map_or(0.0, |quant| f64::from(quant.scale));
                // A bias is rounded to the unit of its sums, the mean of a window on the grid of what it is the mean of.
                let mean = if matches!(node.op, Op::AvgPool(_)) { 0.51 * of(node.inputs[0]) } else { 0.0 };
                // The factors of a sum have 16 bits, so beside one that is much larger than the result's the other is coarse.
                let coarse = match node.op {
                    Op::Add if step > 0.0 => {
                        let factor = node.inputs.iter().map(|&input| of(input) / step).fold(1.0, f64::max);
                        255.0 * step / (32767.0 / factor).log2().floor().min(14.0).exp2()
                    }
                    _ => 0.0,
                };
                let unit = |id: NodeId| {
                    let node = graph.node(id);
                    let Some(Data::I8(w)) = weights.get(&format!("{}.weight", node.name)).map(|w| &w.data)
                    else {
                        return 0.0;
                    };
                    let scale = w.scales.iter().copied().fold(0.0, f32::max);
                    of(node.inputs[0]) * f64::from(scale)
                };
                let unit = unit(id).max(node.inputs.iter().map(|&input| unit(input)).fold(0.0, f64::max));
                for (at, (value, &found)) in expected.iter_mut().zip(found).enumerate() {
                    let nearest = match quant {
                        Some(quant) => value.clamp(quant.value(0).into(), quant.value(255).into()),
                        None => *value,
                    };
                    let off = (nearest - f64::from(found)).abs();
                    assert!(
                        off <= 0.58 * step + mean + coarse + 0.5 * unit + 2e-5 * largest,
                        "seed {seed}, {}, value {at}: {found}, expected {value}, a step is {step}\n{:#?}",
                        node.name,
                        graph.nodes()
                    );
                    *value = found.into();
                }
            });
            outputs.extend(output);
        }
        // A photo's result does not depend on its batch.
        let batch = graph.with_input([3, shape[1], shape[2], shape[3]]).unwrap();
        let three = Arc::new(PlanBuf::lower(&batch, &weights, 2).unwrap());
        let mut session = Session::new(three, Isa::detect());
        session.input().copy_from_slice(&images);
        assert!(session.run(&Team(2)) == outputs, "seed {seed}");
    }
    println!("{kinds:?}");
    assert_eq!(kinds.len(), 15, "every kind of step was there: {kinds:?}");
    assert!(kinds.values().all(|&count| count > 3), "{kinds:?}");
}

#[test]
fn an_activation_cuts_off_within_a_wider_grid() {
    for act in [Act::Relu6, Act::Relu] {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 4, 4, 8] }, &[]).unwrap();
        let a = graph.push("a", Op::Conv(Conv { bias: true, ..Conv::new(16, 1, 1) }), &[x]).unwrap();
        let b = graph.push("b", Op::Act(act), &[a]).unwrap();
        graph.push("pool", Op::GlobalAvgPool, &[b]).unwrap();
        // Of its 256 steps ReLU6 leaves half.
        let grid = Quant::over(0.0, 12.0);
        for (id, quant) in [(x, Quant::over(-1.0, 1.0)), (b, grid)] {
            graph.set_quant(id, Some(quant)).unwrap();
        }
        let mut random = SplitMix(7);
        let weight: Vec<f32> = random.values(16 * 8).iter().map(|w| 8.0 * w).collect();
        let weights: Weights = [
            ("a.weight".into(), Tensor::f32(&[16, 1, 1, 8], weight).to_i8()),
            ("a.bias".into(), Tensor::f32(&[16], random.values(16))),
        ]
        .into();
        let plan = Arc::new(PlanBuf::lower(&graph, &weights, 1).unwrap());
        assert!(plan.plan().steps.iter().any(|step| matches!(step, Step::Int8(_))));
        let image = random.values(4 * 4 * 8);
        let most = act.clamp().unwrap().1.min(12.0);
        for isa in Isa::available() {
            let found = &watched(&plan, &graph, isa, &Serial, &image).0[&b];
            let largest = found.iter().copied().fold(0.0, f32::max);
            assert!((largest - most).abs() <= 0.51 * grid.scale, "{act:?} gives {largest}, {}", isa.name());
            assert!(found.contains(&0.0), "nothing is cut off below");
        }
    }
}
