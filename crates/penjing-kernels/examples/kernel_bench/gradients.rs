//! Layers forward and backward: microseconds, then GFLOP/s.

use penjing_kernels::{Act, Isa, Serial, conv, depthwise, pointwise};

use crate::{buffer::Buffer, layer::window, machine::best};

const RUNS: usize = 20;

/// Size, input channels, output channels and stride of 3x3 convolutions.
const CONVOLUTIONS: &[(usize, usize, usize, usize)] = &[
    (224, 3, 32, 2),
    (56, 64, 64, 1),
    (56, 64, 128, 2),
    (28, 128, 128, 1),
    (14, 256, 256, 1),
    (7, 512, 512, 1),
    (54, 16, 64, 1),
    (13, 64, 256, 1),
];

/// Size, kernel, stride and channels of depthwise layers of both networks.
const DEPTHWISE: &[(usize, usize, usize, usize)] = &[
    (112, 3, 1, 32),
    (56, 3, 1, 144),
    (28, 3, 1, 192),
    (14, 3, 1, 384),
    (14, 3, 1, 576),
    (7, 3, 1, 960),
    (112, 3, 2, 96),
    (56, 3, 2, 144),
    (28, 3, 2, 192),
    (14, 3, 2, 576),
    (28, 5, 1, 240),
    (14, 5, 1, 480),
    (14, 5, 1, 672),
    (7, 5, 1, 1152),
    (56, 5, 2, 144),
    (14, 5, 2, 672),
];

/// Outputs and inputs of pointwise layers of both networks.
const POINTWISE: &[(usize, usize)] = &[
    (16, 32),
    (96, 16),
    (24, 96),
    (144, 24),
    (32, 144),
    (192, 32),
    (64, 192),
    (384, 64),
    (96, 384),
    (576, 96),
    (160, 576),
    (960, 160),
    (320, 960),
    (1280, 320),
    (40, 144),
    (240, 40),
    (80, 240),
    (480, 80),
    (112, 480),
    (672, 112),
    (192, 672),
    (1152, 192),
];

/// Pixels, outputs and inputs of linear heads on the features of many photos.
const HEADS: &[(usize, usize, usize)] =
    &[(256, 5, 1280), (1024, 10, 1280), (1024, 100, 1280), (4096, 2, 1280)];

pub fn print(isa: Isa) {
    println!("{}", isa.name());
    convolutions(isa);
    depthwise_layers(isa);
    println!("\nweight gradient of pointwise layers and of linear heads");
    let layers = POINTWISE.iter().flat_map(|&(n, k)| [(64, n, k), (512, n, k)]);
    for (m, n, k) in layers.chain(HEADS.iter().copied()) {
        let (dy, x, mut dw) = (Buffer::noise(m * n), Buffer::noise(m * k), Buffer::noise(n * k));
        let gradient = || pointwise::weight_gradient(isa, &Serial, m, n, k, dy.get(), x.get(), dw.get_mut());
        row(&format!("{m:5} x {n:4} x {k:4}"), m * k * n, &[best(RUNS, gradient)]);
    }
}

/// Forward, input gradient and weight gradient of convolutions with reuse between neighbours.
fn convolutions(isa: Isa) {
    println!("\nconvolution: forward, input gradient, weight gradient");
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
        row(&format!("{size:3}x{size:<3} 3x3/{stride} {in_c:3} -> {out_c:3}"), out_len * k, &seconds);
    }
}

/// Forward, input gradient and weight gradient of depthwise layers.
fn depthwise_layers(isa: Isa) {
    println!("\ndepthwise: forward, input gradient, weight gradient");
    for &(size, kernel, stride, c) in DEPTHWISE {
        let w = window(size, kernel, stride);
        let (in_len, out_len) = (size * size * c, w.out_pixels() * c);
        let (x, dy) = (Buffer::noise(in_len), Buffer::noise(out_len));
        let (mut dx, mut y) = (Buffer::noise(in_len), Buffer::noise(out_len));
        let packed = Buffer::noise(depthwise::packed_len(c, w.taps()));
        let mut dw = Buffer::noise(w.taps() * c);
        let (x, dy, packed) = (x.get(), dy.get(), packed.get());
        let (y, dx, dw) = (y.get_mut(), dx.get_mut(), dw.get_mut());
        let seconds = [
            best(RUNS, || depthwise::run(isa, &Serial, &w, c, Act::None, x, packed, y)),
            best(RUNS, || depthwise::input_gradient(isa, &Serial, &w, c, dy, packed, dx)),
            best(RUNS, || depthwise::weight_gradient(isa, &Serial, &w, c, dy, x, dw)),
        ];
        row(&format!("{size:3}x{size:<3} {kernel}x{kernel}/{stride} {c:4}"), out_len * w.taps(), &seconds);
    }
}

fn row(name: &str, macs: usize, seconds: &[f64]) {
    let times: String = seconds.iter().map(|seconds| format!(" {:8.1}", seconds * 1e6)).collect();
    let speeds: String =
        seconds.iter().map(|seconds| format!(" {:8.1}", 2.0 * macs as f64 / seconds / 1e9)).collect();
    println!("{name:34}{times}  {speeds}");
}
