//! Layers forward and backward, on one thread: microseconds, and shares of what the processor's arithmetic allows.

use penjing_kernels::{Act, Isa, Serial, conv, pointwise};

use crate::{
    buffer::Buffer,
    layer::{Kind, Layer, NETWORKS, layers, window},
    machine::{best, peak},
};

const RUNS: usize = 20;

/// Size, input channels, output channels and stride of 3x3 convolutions.
const CONVOLUTIONS: &[(usize, usize, usize, usize)] = &[
    (56, 64, 64, 1),
    (56, 64, 128, 2),
    (28, 128, 128, 1),
    (14, 256, 256, 1),
    (7, 512, 512, 1),
    (54, 16, 64, 1),
    (13, 64, 256, 1),
];

/// Pixels, outputs and inputs of linear heads on the features of many photos.
const HEADS: &[(usize, usize, usize)] =
    &[(256, 5, 1280), (1024, 10, 1280), (1024, 100, 1280), (4096, 2, 1280)];

pub fn print(isa: Isa) {
    let peak = peak(isa);
    println!(
        "{}, one core: {:.1} GFLOP/s in f32
Microseconds of the fastest of {RUNS} runs, and what share of the peak they are: forward, input gradient, weight gradient.",
        isa.name(),
        peak / 1e9
    );
    for &(name, stages) in NETWORKS {
        println!("\n{name}");
        network(isa, peak, &layers(stages, 224));
    }
    println!("\nother convolutions");
    convolutions(isa, peak);
    println!("\nweight gradient of linear heads on the features of many photos");
    for &(m, n, k) in HEADS {
        let (dy, x, mut dw) = (Buffer::noise(m * n), Buffer::noise(m * k), Buffer::noise(n * k));
        let gradient = || pointwise::weight_gradient(isa, &Serial, m, n, k, dy.get(), x.get(), dw.get_mut());
        row(&format!("{m:5} x {n:4} x {k:4}"), peak, m * k * n, &[best(RUNS, gradient)]);
    }
}

/// A network's layers, then all of a kind together.
fn network(isa: Isa, peak: f64, layers: &[Layer]) {
    let longest = |len: fn(&Layer) -> usize| layers.iter().map(len).max().unwrap_or(0);
    let maps = longest(|layer| layer.in_len.max(layer.out_len));
    let mut scratch = Buffer::noise(longest(Layer::scratch_len));
    let weights = longest(Layer::weights_len);
    let (weights, mut dw) = (Buffer::noise(weights), Buffer::noise(weights));
    let (x, dy) = (Buffer::noise(maps), Buffer::noise(maps));
    let (mut y, mut dx) = (Buffer::noise(maps), Buffer::noise(maps));
    let mut kinds = [(0, [0.0; 3]); Kind::ALL.len()];
    for layer in layers.iter().filter(|layer| layer.macs > 0) {
        let scratch = scratch.get_mut();
        let seconds = [
            best(RUNS, || layer.run(isa, scratch, &x, &mut y)),
            best(RUNS, || layer.input_gradient(isa, scratch, &weights, &dy, &mut dx)),
            best(RUNS, || layer.weight_gradient(isa, scratch, &dy, &x, &mut dw)),
        ];
        row(&layer.name, peak, layer.macs, &seconds);
        let (macs, sums) = &mut kinds[layer.kind as usize];
        *macs += layer.macs;
        sums.iter_mut().zip(seconds).for_each(|(sum, seconds)| *sum += seconds);
    }
    println!();
    for (kind, (macs, seconds)) in Kind::ALL.iter().zip(&kinds).filter(|(_, (macs, _))| *macs > 0) {
        row(kind.name(), peak, *macs, seconds);
    }
}

/// Forward, input gradient and weight gradient of convolutions with reuse between neighbours.
fn convolutions(isa: Isa, peak: f64) {
    for &(size, in_c, out_c, stride) in CONVOLUTIONS {
        let w = window(size, 3, stride);
        let (k, in_len, out_len) = (w.taps() * in_c, size * size * in_c, w.out_pixels() * out_c);
        let (x, dy) = (Buffer::noise(in_len), Buffer::noise(out_len));
        let (mut dx, mut y) = (Buffer::noise(in_len), Buffer::noise(out_len));
        let (weights, mut dw) = (Buffer::noise(out_c * k), Buffer::noise(out_c * k));
        let packed = Buffer::noise(conv::packed_len(1, out_c, k));
        let scratch = conv::scratch_len(&w, in_c, 1, 1)
            .max(conv::weight_gradient_scratch_len(&w, in_c, out_c, 1, 1))
            .max(conv::input_gradient_scratch_len(&w, in_c, out_c, 1, 1));
        let mut scratch = Buffer::noise(scratch);
        let (x, dy, packed, weights, scratch) =
            (x.get(), dy.get(), packed.get(), weights.get(), scratch.get_mut());
        let (y, dx, dw) = (y.get_mut(), dx.get_mut(), dw.get_mut());
        let seconds = [
            best(RUNS, || {
                conv::run(isa, &Serial, &w, in_c, out_c, 1, Act::None, x, packed, None, scratch, y)
            }),
            best(RUNS, || conv::input_gradient(isa, &Serial, &w, in_c, out_c, 1, dy, weights, scratch, dx)),
            best(RUNS, || conv::weight_gradient(isa, &Serial, &w, in_c, out_c, 1, dy, x, scratch, dw)),
        ];
        row(&format!("{size:3}x{size:<3} 3x3/{stride} {in_c:3} -> {out_c:3}"), peak, out_len * k, &seconds);
    }
}

fn row(name: &str, peak: f64, macs: usize, seconds: &[f64]) {
    let times: String = seconds.iter().map(|seconds| format!(" {:8.1}", seconds * 1e6)).collect();
    let share = |seconds: &f64| format!(" {:4.0}%", 200.0 * macs as f64 / seconds / peak);
    println!("{name:34}{times}  {}", seconds.iter().map(share).collect::<String>());
}
