//! Times every layer of MobileNetV2 and EfficientNet-Lite0 (224 px, batch 1, one thread) in network order and relates each
//! to the machine's own multiply-add peak; then convolutions and depthwise layers forward and backward, and weight
//! gradients.
//!
//! `cargo run --release -p penjing-kernels --example kernel_bench [-- scalar|avx2|avx512]`

use std::{hint::black_box, time::Instant};

use penjing_kernels::{Act, Isa, Serial, Window, conv, depthwise, pointwise, pool};

/// Expansion, channels, repeats, stride and kernel of a stage of inverted residual blocks.
type Stage = (usize, usize, usize, usize, usize);

const MOBILENET_V2: &[Stage] = &[
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
];
const EFFICIENTNET_LITE0: &[Stage] = &[
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
];

/// Outputs and inputs of pointwise layers of both networks.
const GRADIENTS: &[(usize, usize)] = &[
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

/// Input extent, kernel, stride and channels of depthwise layers of both networks.
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

const RUNS: usize = 200;

fn main() {
    let name = std::env::args().nth(1);
    let isa = match &name {
        Some(name) => Isa::named(name).unwrap_or_else(|| panic!("this machine has no {name}")),
        None => Isa::detect(),
    };
    let peak = peak(isa);
    println!("{}: {:.1} GFLOP/s", isa.name(), peak / 1e9);
    for (name, stages) in [("MobileNetV2", MOBILENET_V2), ("EfficientNet-Lite0", EFFICIENTNET_LITE0)] {
        network(isa, peak, name, stages);
    }
    convolutions(isa);
    depthwise_gradients(isa);
    println!("\nweight gradient of pointwise layers and of a linear head");
    let layers = GRADIENTS.iter().flat_map(|&(n, k)| [(64, n, k), (512, n, k)]);
    for (m, n, k) in layers.chain([(256, 5, 1280), (1024, 10, 1280), (1024, 100, 1280), (4096, 2, 1280)]) {
        let (dy, x, mut dw) = (Buffer::noise(m * n), Buffer::noise(m * k), Buffer::noise(n * k));
        let mut best = f64::INFINITY;
        for _ in 0..RUNS / 10 {
            let start = Instant::now();
            pointwise::weight_gradient(isa, &Serial, m, n, k, dy.get(), x.get(), dw.get_mut());
            best = best.min(start.elapsed().as_secs_f64());
        }
        let speed = 2.0 * (m * n * k) as f64 / best;
        let name = format!("{m:5} x {n:4} x {k:4}");
        println!("{name:34} {:8.1} {:18.1} {:5.0}%", best * 1e6, speed / 1e9, speed / peak * 100.0);
    }
}

/// Forward, input gradient and weight gradient of convolutions with reuse between neighbours.
fn convolutions(isa: Isa) {
    println!("\n{:34} {:>8} {:>8} {:>8}  GFLOP/s", "convolution", "forward", "dx", "dw");
    for (size, in_c, out_c, stride) in [
        (224, 3, 32, 2),
        (56, 64, 64, 1),
        (56, 64, 128, 2),
        (28, 128, 128, 1),
        (14, 256, 256, 1),
        (7, 512, 512, 1),
        (54, 16, 64, 1),
        (13, 64, 256, 1),
    ] {
        let w = window(size, 3, stride);
        let k = w.taps() * in_c;
        let (x, dy) = (Buffer::noise(size * size * in_c), Buffer::noise(w.out_pixels() * out_c));
        let (mut dx, mut y) = (Buffer::noise(x.len), Buffer::noise(dy.len));
        let (weights, mut dw) = (Buffer::noise(out_c * k), Buffer::noise(out_c * k));
        let packed = Buffer::noise(conv::packed_len(1, out_c, k));
        let scratch = conv::scratch_len(&w, in_c, 1, 1)
            .max(conv::weight_gradient_scratch_len(&w, in_c, out_c, 1, 1))
            .max(conv::input_gradient_scratch_len(&w, in_c, out_c, 1, 1));
        let mut scratch = Buffer::noise(scratch);
        let mut best = [f64::INFINITY; 3];
        for run in 0..RUNS / 10 * 3 {
            let (x, dy, scratch) = (x.get(), dy.get(), scratch.get_mut());
            let start = Instant::now();
            match run % 3 {
                0 => {
                    let (packed, y) = (packed.get(), y.get_mut());
                    conv::run(isa, &Serial, &w, in_c, out_c, 1, Act::None, x, packed, None, scratch, y);
                }
                1 => {
                    let (weights, dx) = (weights.get(), dx.get_mut());
                    conv::input_gradient(isa, &Serial, &w, in_c, out_c, 1, dy, weights, scratch, dx);
                }
                _ => conv::weight_gradient(isa, &Serial, &w, in_c, out_c, 1, dy, x, scratch, dw.get_mut()),
            }
            best[run % 3] = best[run % 3].min(start.elapsed().as_secs_f64());
        }
        let [forward, dx, dw] = best.map(|seconds| 2.0 * (dy.len * k) as f64 / seconds / 1e9);
        let name = format!("{size:3}x{size:<3} 3x3/{stride} {in_c:3} -> {out_c:3}");
        println!("{name:34} {forward:8.1} {dx:8.1} {dw:8.1}");
    }
}

/// Forward, input gradient and weight gradient of depthwise layers of both networks.
fn depthwise_gradients(isa: Isa) {
    println!("\n{:34} {:>8} {:>8} {:>8}  us, then GFLOP/s", "depthwise", "forward", "dx", "dw");
    for &(size, kernel, stride, c) in DEPTHWISE {
        let w = window(size, kernel, stride);
        let (x, dy) = (Buffer::noise(size * size * c), Buffer::noise(w.out_pixels() * c));
        let (mut dx, mut y) = (Buffer::noise(x.len), Buffer::noise(dy.len));
        let packed = Buffer::noise(depthwise::packed_len(c, w.taps()));
        let mut dw = Buffer::noise(w.taps() * c);
        let mut best = [f64::INFINITY; 3];
        for run in 0..RUNS / 2 * 3 {
            let (x, dy, packed) = (x.get(), dy.get(), packed.get());
            let start = Instant::now();
            match run % 3 {
                0 => depthwise::run(isa, &Serial, &w, c, Act::None, x, packed, y.get_mut()),
                1 => depthwise::input_gradient(isa, &Serial, &w, c, dy, packed, dx.get_mut()),
                _ => depthwise::weight_gradient(isa, &Serial, &w, c, dy, x, dw.get_mut()),
            }
            best[run % 3] = best[run % 3].min(start.elapsed().as_secs_f64());
        }
        let [forward, dx, dw] = best.map(|seconds| seconds * 1e6);
        let speed = best.map(|seconds| 2.0 * (dy.len * w.taps()) as f64 / seconds / 1e9);
        let name = format!("{size:3}x{size:<3} {kernel}x{kernel}/{stride} {c:4}");
        println!(
            "{name:34} {forward:8.1} {dx:8.1} {dw:8.1} {:8.1} {:8.1} {:8.1}",
            speed[0], speed[1], speed[2]
        );
    }
}

/// Multiply-adds in registers only, two operations each, the best of many runs.
fn peak(isa: Isa) -> f64 {
    // 14x2 accumulators over a K that stays in the first-level cache.
    let (m, k, n) = (14, 256, 32);
    let (x, mut y) = (Buffer::noise(m * k), Buffer::noise(m * n));
    let packed = Buffer::noise(pointwise::packed_len(n, k));
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        for _ in 0..50 {
            pointwise::run(
                isa,
                &Serial,
                m,
                k,
                n,
                Act::None,
                x.get(),
                black_box(packed.get()),
                None,
                y.get_mut(),
            );
        }
        best = best.min(start.elapsed().as_secs_f64() / 50.0);
    }
    registers(isa).max(2.0 * (m * k * n) as f64 / best)
}

#[cfg(target_arch = "x86_64")]
fn registers(isa: Isa) -> f64 {
    use std::arch::x86_64::*;
    const STEPS: usize = 20_000;
    #[target_feature(enable = "avx512f")]
    fn avx512() -> f32 {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [a; 16];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, *sum, b);
            }
        }
        sums.iter().map(|&s| _mm512_reduce_add_ps(s)).sum()
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2() -> f32 {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [a; 12];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, *sum, b);
            }
        }
        sums.iter().map(|&s| _mm256_cvtss_f32(s)).sum()
    }
    let mut best = f64::INFINITY;
    for _ in 0..100 {
        let start = Instant::now();
        match isa.name() {
            // SAFETY: the `Isa` exists, so the CPU has its features.
            "avx512" => black_box(unsafe { avx512() }),
            // SAFETY: as above.
            "avx2" => black_box(unsafe { avx2() }),
            _ => return 0.0,
        };
        best = best.min(start.elapsed().as_secs_f64());
    }
    let lanes = if isa.name() == "avx512" { 16 * 16 } else { 12 * 8 };
    (2 * STEPS * lanes) as f64 / best
}

#[cfg(not(target_arch = "x86_64"))]
fn registers(_: Isa) -> f64 {
    0.0
}

/// Values that start at a multiple of 64 bytes.
struct Buffer {
    values: Vec<f32>,
    from: usize,
    len: usize,
}

impl Buffer {
    fn noise(len: usize) -> Buffer {
        let values: Vec<f32> = (0..len + 16).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect();
        let from = values.as_ptr().align_offset(64);
        Buffer { values, from, len }
    }

    fn get(&self) -> &[f32] {
        &self.values[self.from..self.from + self.len]
    }

    fn get_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.from..self.from + self.len]
    }
}

enum Kind {
    Stem(Window),
    Pointwise { m: usize, k: usize, n: usize, act: Act, residual: bool },
    Depthwise(Window, usize),
    Mean { pixels: usize, c: usize },
}

struct Layer {
    kind: Kind,
    name: String,
    macs: usize,
    packed: Buffer,
    in_len: usize,
    out_len: usize,
    seconds: Vec<f64>,
}

impl Layer {
    fn new(kind: Kind) -> Layer {
        let (name, macs, packed, x, y) = match &kind {
            Kind::Stem(w) => {
                let y = w.out_pixels() * 32;
                let name = format!("stem       {0:3}x{0:<3} 3->32", w.out_h);
                (name, y * 27, conv::packed_len(1, 32, 27), w.in_h * w.in_w * 3, y)
            }
            &Kind::Pointwise { m, k, n, residual, .. } => {
                let name = format!("pointwise {m:5} x {k:4} x {n:4}{}", if residual { " +" } else { "" });
                (name, m * k * n, pointwise::packed_len(n, k), m * k, m * n)
            }
            Kind::Depthwise(w, c) => {
                let name = format!("depthwise {0}x{0}/{1} {2:3}x{2:<3} {c}", w.kernel_h, w.stride_h, w.out_h);
                let y = w.out_pixels() * c;
                (name, y * w.taps(), depthwise::packed_len(*c, w.taps()), w.in_h * w.in_w * c, y)
            }
            &Kind::Mean { pixels, c } => (format!("mean      {pixels} x {c}"), 0, 0, pixels * c, c),
        };
        Layer { kind, name, macs, packed: Buffer::noise(packed), in_len: x, out_len: y, seconds: vec![] }
    }

    fn run(&self, isa: Isa, scratch: &mut [f32], x: &Buffer, y: &mut Buffer) {
        let (x, packed, y) = (&x.get()[..self.in_len], self.packed.get(), &mut y.get_mut()[..self.out_len]);
        match &self.kind {
            Kind::Stem(window) => {
                conv::run(isa, &Serial, window, 3, 32, 1, Act::Relu6, x, packed, None, scratch, y);
            }
            &Kind::Pointwise { m, k, n, act, residual } => {
                // Any array of the right length will do as the residual.
                let residual = residual.then(|| &x[..m * n]);
                pointwise::run(isa, &Serial, m, k, n, act, x, packed, residual, y);
            }
            Kind::Depthwise(window, c) => {
                depthwise::run(isa, &Serial, window, *c, Act::Relu6, x, packed, y);
            }
            &Kind::Mean { pixels, c } => pool::global_average(isa, 1, pixels, c, x, y),
        }
    }
}

fn window(size: usize, kernel: usize, stride: usize) -> Window {
    let (pad, out) = (kernel / 2, size.div_ceil(stride));
    Window {
        n: 1,
        in_h: size,
        in_w: size,
        out_h: out,
        out_w: out,
        kernel_h: kernel,
        kernel_w: kernel,
        stride_h: stride,
        stride_w: stride,
        dilation_h: 1,
        dilation_w: 1,
        pad_top: pad,
        pad_bottom: pad,
        pad_left: pad,
        pad_right: pad,
    }
}

fn layers(stages: &[Stage]) -> Vec<Layer> {
    let mut layers = vec![Layer::new(Kind::Stem(window(224, 3, 2)))];
    let (mut size, mut c) = (112, 32);
    for &(expand, out, repeats, stride, kernel) in stages {
        for i in 0..repeats {
            let (stride, wide) = (if i == 0 { stride } else { 1 }, c * expand);
            if expand > 1 {
                let kind =
                    Kind::Pointwise { m: size * size, k: c, n: wide, act: Act::Relu6, residual: false };
                layers.push(Layer::new(kind));
            }
            layers.push(Layer::new(Kind::Depthwise(window(size, kernel, stride), wide)));
            size = size.div_ceil(stride);
            let kind = Kind::Pointwise { m: size * size, k: wide, n: out, act: Act::None, residual: i > 0 };
            layers.push(Layer::new(kind));
            c = out;
        }
    }
    for kind in [
        Kind::Pointwise { m: size * size, k: c, n: 1280, act: Act::Relu6, residual: false },
        Kind::Mean { pixels: size * size, c: 1280 },
        Kind::Pointwise { m: 1, k: 1280, n: 1000, act: Act::None, residual: false },
    ] {
        layers.push(Layer::new(kind));
    }
    layers
}

fn network(isa: Isa, peak: f64, name: &str, stages: &[Stage]) {
    let mut layers = layers(stages);
    let mut scratch = Buffer::noise(conv::scratch_len(&window(224, 3, 2), 3, 1, 1));
    let largest = layers.iter().map(|l| l.in_len.max(l.out_len)).max().unwrap_or(0);
    // As in an arena, a layer writes over what its predecessor read.
    let (mut x, mut y) = (Buffer::noise(largest), Buffer::noise(largest));
    for _ in 0..RUNS {
        x.get_mut()[..layers[0].in_len].fill(0.5);
        for layer in &mut layers {
            let start = Instant::now();
            layer.run(isa, scratch.get_mut(), &x, &mut y);
            layer.seconds.push(start.elapsed().as_secs_f64());
            std::mem::swap(&mut x, &mut y);
        }
    }
    println!("\n{name}\n{:34} {:>8} {:>8} {:>9} {:>6}", "layer", "min us", "median", "GFLOP/s", "peak");
    let mut sums = [(0.0, 0.0, 0usize); 3];
    for layer in &mut layers {
        layer.seconds.sort_by(f64::total_cmp);
        let (min, median) = (layer.seconds[0], layer.seconds[RUNS / 2]);
        let speed = 2.0 * layer.macs as f64 / min;
        println!(
            "{:34} {:8.1} {:8.1} {:9.1} {:5.0}%",
            layer.name,
            min * 1e6,
            median * 1e6,
            speed / 1e9,
            speed / peak * 100.0
        );
        let kind = match layer.kind {
            Kind::Pointwise { .. } => 0,
            Kind::Depthwise(..) => 1,
            _ => 2,
        };
        sums[kind].0 += min;
        sums[kind].1 += median;
        sums[kind].2 += layer.macs;
    }
    let mut all = (0.0, 0.0, 0);
    for (name, (min, median, macs)) in ["pointwise", "depthwise", "stem, mean"].iter().zip(sums) {
        all = (all.0 + min, all.1 + median, all.2 + macs);
        let speed = 2.0 * macs as f64 / min;
        println!(
            "{name:34} {:8.1} {:8.1} {:9.1} {:5.0}%",
            min * 1e6,
            median * 1e6,
            speed / 1e9,
            speed / peak * 100.0
        );
    }
    println!("{:34} {:8.1} {:8.1} {:9.1}", "all", all.0 * 1e6, all.1 * 1e6, 2.0 * all.2 as f64 / all.0 / 1e9);
}
