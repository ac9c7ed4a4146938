//! Every layer in bytes beside the same layer in f32.

use std::time::Instant;

use penjing_kernels::{
    Isa, Serial, Window,
    int8::{
        Channel, Limits, conv, depthwise,
        elementwise::{self, Sum},
        pointwise, pool,
    },
};

use crate::{
    buffer::Buffer,
    layer::{Kind, Layer, NETWORKS, Work, layers},
};

/// A layer's weights in bytes.
struct Bytes {
    packed: Vec<i32>,
    /// Where the packed weights begin: at a multiple of 64 bytes.
    from: usize,
}

/// Memory that every layer works on.
struct Arena {
    f32_scratch: Buffer,
    f32_x: Buffer,
    f32_y: Buffer,
    scratch: Vec<u8>,
    x: Vec<u8>,
    y: Vec<u8>,
    sum: Vec<u8>,
}

pub fn print(isas: &[Isa]) {
    for (network, stages) in NETWORKS {
        let layers = layers(stages, 224);
        let most = |len: fn(&Layer) -> usize| layers.iter().map(len).max().unwrap_or(0);
        let (x, y) = (most(|l| l.in_len), most(|l| l.out_len));
        let stem = window_of(&layers[0].work);
        let mut arena = Arena {
            f32_scratch: Buffer::noise(most(Layer::scratch_len)),
            f32_x: Buffer::noise(x),
            f32_y: Buffer::noise(y),
            scratch: vec![0; conv::scratch_len(stem, 3, 1, 1)],
            x: (0..x).map(|i| (i * 7919 % 251) as u8).collect(),
            y: vec![0; y],
            sum: vec![0; y],
        };
        let packed: Vec<Bytes> = layers.iter().map(pack).collect();
        for &isa in isas {
            println!("{network}, {}: microseconds in f32, in bytes, and their ratio", isa.name());
            let mut all = [[0.0; 2]; Kind::ALL.len()];
            let mut before = String::new();
            for (layer, bytes) in layers.iter().zip(&packed) {
                let times = fastest(isa, layer, bytes, &mut arena);
                let kind = Kind::ALL.iter().position(|&kind| kind == layer.kind).unwrap_or(0);
                for (sum, time) in all[kind].iter_mut().zip(times) {
                    *sum += time;
                }
                if layer.name != before {
                    println!("  {:34} {}", layer.name, row(times));
                }
                before.clone_from(&layer.name);
            }
            for (kind, times) in Kind::ALL.iter().zip(all) {
                println!("  {:34} {}", format!("all {}", kind.name()), row(times));
            }
            let total = [0, 1].map(|i| all.iter().map(|times| times[i]).sum());
            println!("  {:34} {}", "all", row(total));
        }
    }
}

fn row([f32s, bytes]: [f64; 2]) -> String {
    format!("{:9.1} {:9.1} {:6.3}", f32s * 1e6, bytes * 1e6, bytes / f32s)
}

/// Seconds in f32 and in bytes, of the fastest of many turns: others on the machine only make a turn longer.
fn fastest(isa: Isa, layer: &Layer, bytes: &Bytes, a: &mut Arena) -> [f64; 2] {
    const ROUNDS: usize = 15;
    let mut times = [const { Vec::new() }; 2];
    let mut turns = 1;
    while times[0].len() < ROUNDS {
        let start = Instant::now();
        for _ in 0..turns {
            layer.run(isa, a.f32_scratch.get_mut(), &a.f32_x, &mut a.f32_y);
        }
        let f32s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for _ in 0..turns {
            run(isa, layer, bytes, a);
        }
        let bytes = start.elapsed().as_secs_f64();
        if f32s + bytes < 2e-3 {
            turns *= 2;
            continue;
        }
        times[0].push(f32s / turns as f64);
        times[1].push(bytes / turns as f64);
    }
    times.map(|times| times.into_iter().fold(f64::INFINITY, f64::min))
}

fn window_of(work: &Work) -> &Window {
    match work {
        Work::Stem(window) | Work::Depthwise(window, _) => window,
        _ => unreachable!("the first layer is a convolution"),
    }
}

fn pack(layer: &Layer) -> Bytes {
    let (c, k, len) = match &layer.work {
        Work::Stem(_) => (32, 27, conv::packed_len(1, 32, 27)),
        &Work::Product { k, n, .. } => (n, k, pointwise::packed_len(n, k)),
        Work::Depthwise(window, c) => (*c, window.taps(), depthwise::packed_len(*c, window.taps())),
        Work::Mean { .. } => (0, 0, 0),
    };
    let weights: Vec<i8> =
        (0..c * k).map(|i| (i * 7919 % 255) as i8 - if i % 2 == 0 { 1 } else { 0 }).collect();
    let weights: Vec<i8> = weights.iter().map(|w| (*w).max(-127)).collect();
    let channels = vec![Channel::new(0.001, 500, 3).expect("a ratio in range"); c];
    let mut bytes = Bytes { packed: vec![0; len + 16], from: 0 };
    bytes.from = bytes.packed.as_ptr().align_offset(64);
    let packed = &mut bytes.packed[bytes.from..][..len];
    match &layer.work {
        Work::Stem(_) => conv::pack(1, c, k, &weights, &channels, packed),
        Work::Product { .. } if layer.kind == Kind::Classifier => {
            pointwise::pack_floats(c, k, &weights, &vec![0; c], &vec![0.01; c], packed);
        }
        Work::Product { .. } => pointwise::pack(c, k, &weights, &channels, packed),
        Work::Depthwise(..) => depthwise::pack(c, k, &weights, &channels, packed),
        Work::Mean { .. } => {}
    }
    bytes
}

fn run(isa: Isa, layer: &Layer, bytes: &Bytes, a: &mut Arena) {
    const RELU6: Limits = Limits { low: 3, high: 250 };
    let packed = &bytes.packed[bytes.from..];
    let (x, y) = (&a.x[..layer.in_len], &mut a.y[..layer.out_len]);
    match &layer.work {
        Work::Stem(window) => {
            let packed = &packed[..conv::packed_len(1, 32, 27)];
            conv::run(isa, &Serial, window, 3, 32, 1, 7, RELU6, x, packed, &mut a.scratch, y);
        }
        &Work::Product { m, k, n, residual, .. } => {
            let packed = &packed[..pointwise::packed_len(n, k)];
            if layer.kind == Kind::Classifier {
                pointwise::run_floats(isa, &Serial, m, k, n, x, packed, &mut a.f32_y.get_mut()[..n]);
            } else {
                pointwise::run(isa, &Serial, m, k, n, RELU6, x, packed, y);
            }
            if residual {
                let sum = Sum::new((0.1, 3), (0.2, 4), (0.25, 5), Limits::NONE).expect("ratios in range");
                elementwise::add(isa, &sum, y, &x[..m * n], &mut a.sum[..m * n]);
            }
        }
        Work::Depthwise(window, c) => {
            let packed = &packed[..depthwise::packed_len(*c, window.taps())];
            depthwise::run(isa, &Serial, window, *c, 7, RELU6, x, packed, y);
        }
        &Work::Mean { pixels, c } => {
            let channel = Channel::new(0.01, 0, 3).expect("a ratio in range");
            pool::global_average(isa, 1, pixels, c, channel, RELU6, x, y);
        }
    }
}
