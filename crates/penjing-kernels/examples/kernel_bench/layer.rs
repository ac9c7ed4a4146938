//! The layers of MobileNetV2 and EfficientNet-Lite0, batch 1.

use penjing_kernels::{Act, Isa, Serial, Window, conv, depthwise, pointwise, pool};

use crate::buffer::Buffer;

/// Expansion, channels, repeats, stride and kernel of a stage of inverted residual blocks.
pub type Stage = (usize, usize, usize, usize, usize);

pub const NETWORKS: &[(&str, &[Stage])] = &[
    (
        "MobileNetV2",
        &[
            (1, 16, 1, 1, 3),
            (6, 24, 2, 2, 3),
            (6, 32, 3, 2, 3),
            (6, 64, 4, 2, 3),
            (6, 96, 3, 1, 3),
            (6, 160, 3, 2, 3),
            (6, 320, 1, 1, 3),
        ],
    ),
    (
        "EfficientNet-Lite0",
        &[
            (1, 16, 1, 1, 3),
            (6, 24, 2, 2, 3),
            (6, 40, 2, 2, 5),
            (6, 80, 3, 2, 3),
            (6, 112, 3, 1, 5),
            (6, 192, 4, 2, 5),
            (6, 320, 1, 1, 3),
        ],
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stem,
    Pointwise,
    Depthwise,
    Mean,
    Classifier,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Stem, Kind::Pointwise, Kind::Depthwise, Kind::Mean, Kind::Classifier];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Stem => "stem",
            Kind::Pointwise => "pointwise",
            Kind::Depthwise => "depthwise",
            Kind::Mean => "mean",
            Kind::Classifier => "classifier",
        }
    }
}

/// What a layer computes.
pub enum Work {
    Stem(Window),
    Product { m: usize, k: usize, n: usize, act: Act, residual: bool },
    Depthwise(Window, usize),
    Mean { pixels: usize, c: usize },
}

pub struct Layer {
    pub kind: Kind,
    pub name: String,
    /// Multiply-adds.
    pub macs: usize,
    pub in_len: usize,
    pub out_len: usize,
    residual_len: usize,
    pub work: Work,
    packed: Buffer,
    packed_len: usize,
}

impl Layer {
    fn new(kind: Kind, work: Work) -> Layer {
        let (shape, macs, packed_len, in_len, out_len) = match &work {
            Work::Stem(w) => {
                let y = w.out_pixels() * 32;
                (
                    format!("{0}x{0}/2 3 -> 32", w.in_h),
                    y * 27,
                    conv::packed_len(1, 32, 27),
                    w.in_h * w.in_w * 3,
                    y,
                )
            }
            &Work::Product { m, k, n, residual, .. } => {
                let shape = format!("{m:5} x {k:4} x {n:4}{}", if residual { " +" } else { "" });
                (shape, m * k * n, pointwise::packed_len(n, k), m * k, m * n)
            }
            Work::Depthwise(w, c) => {
                let shape = format!("{0}x{0}/{1} {2:3}x{2:<3} {c}", w.kernel_h, w.stride_h, w.out_h);
                let y = w.out_pixels() * c;
                (shape, y * w.taps(), depthwise::packed_len(*c, w.taps()), w.in_h * w.in_w * c, y)
            }
            &Work::Mean { pixels, c } => (format!("{pixels} x {c}"), 0, 0, pixels * c, c),
        };
        let residual_len = if matches!(work, Work::Product { residual: true, .. }) { out_len } else { 0 };
        let name = format!("{:10} {shape}", kind.name());
        let packed = Buffer::noise(packed_len);
        Layer { kind, name, macs, in_len, out_len, residual_len, work, packed, packed_len }
    }

    /// Bytes that go in and out besides the weights.
    pub fn map_bytes(&self) -> usize {
        4 * (self.in_len + self.out_len + self.residual_len)
    }

    /// Bytes of weights and biases.
    pub fn weight_bytes(&self) -> usize {
        4 * self.packed_len
    }

    /// Length of the scratch memory that it needs, forward and backward.
    pub fn scratch_len(&self) -> usize {
        match &self.work {
            Work::Stem(window) => conv::scratch_len(window, 3, 1, 1)
                .max(conv::weight_gradient_scratch_len(window, 3, 32, 1, 1))
                .max(conv::input_gradient_scratch_len(window, 3, 32, 1, 1)),
            _ => 0,
        }
    }

    pub fn run(&self, isa: Isa, scratch: &mut [f32], x: &Buffer, y: &mut Buffer) {
        let (x, packed, y) = (&x.get()[..self.in_len], self.packed.get(), &mut y.get_mut()[..self.out_len]);
        match &self.work {
            Work::Stem(window) => {
                conv::run(isa, &Serial, window, 3, 32, 1, Act::Relu6, x, packed, None, scratch, y);
            }
            &Work::Product { m, k, n, act, residual } => {
                // Any array of the right length will do as the residual.
                let residual = residual.then(|| &x[..m * n]);
                pointwise::run(isa, &Serial, m, k, n, act, x, packed, residual, y);
            }
            Work::Depthwise(window, c) => {
                depthwise::run(isa, &Serial, window, *c, Act::Relu6, x, packed, y);
            }
            &Work::Mean { pixels, c } => pool::global_average(isa, 1, pixels, c, x, y),
        }
    }

    /// The gradient of the input. Any weights of the right length will do.
    pub fn input_gradient(
        &self,
        isa: Isa,
        scratch: &mut [f32],
        weights: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) {
        let (dy, dx) = (&dy.get()[..self.out_len], &mut dx.get_mut()[..self.in_len]);
        match &self.work {
            Work::Stem(window) => {
                let weights = &weights.get()[..32 * 27];
                conv::input_gradient(isa, &Serial, window, 3, 32, 1, dy, weights, scratch, dx);
            }
            &Work::Product { m, k, n, .. } => {
                let packed = &weights.get()[..pointwise::packed_len(k, n)];
                pointwise::run(isa, &Serial, m, n, k, Act::None, dy, packed, None, dx);
            }
            Work::Depthwise(window, c) => {
                depthwise::input_gradient(isa, &Serial, window, *c, dy, self.packed.get(), dx);
            }
            Work::Mean { .. } => {}
        }
    }

    /// The gradient of the weights.
    pub fn weight_gradient(&self, isa: Isa, scratch: &mut [f32], dy: &Buffer, x: &Buffer, dw: &mut Buffer) {
        let (dy, x, dw) = (&dy.get()[..self.out_len], &x.get()[..self.in_len], dw.get_mut());
        match &self.work {
            Work::Stem(window) => {
                conv::weight_gradient(isa, &Serial, window, 3, 32, 1, dy, x, scratch, &mut dw[..32 * 27]);
            }
            &Work::Product { m, k, n, .. } => {
                pointwise::weight_gradient(isa, &Serial, m, n, k, dy, x, &mut dw[..n * k]);
            }
            Work::Depthwise(window, c) => {
                let dw = &mut dw[..window.taps() * c];
                depthwise::weight_gradient(isa, &Serial, window, *c, dy, x, dw);
            }
            Work::Mean { .. } => {}
        }
    }

    /// More values than the weights have in any layout.
    pub fn weights_len(&self) -> usize {
        match self.work {
            Work::Product { k, n, .. } => self.packed_len.max(pointwise::packed_len(k, n)),
            _ => self.packed_len,
        }
    }
}

/// The layers of a network in order, of square inputs of so many pixels.
pub fn layers(stages: &[Stage], side: usize) -> Vec<Layer> {
    let mut layers = vec![Layer::new(Kind::Stem, Work::Stem(window(side, 3, 2)))];
    let product = |kind, m, k, n, act, residual| Layer::new(kind, Work::Product { m, k, n, act, residual });
    let (mut size, mut c) = (side.div_ceil(2), 32);
    for &(expand, out, repeats, stride, kernel) in stages {
        for i in 0..repeats {
            let (stride, wide) = (if i == 0 { stride } else { 1 }, c * expand);
            if expand > 1 {
                layers.push(product(Kind::Pointwise, size * size, c, wide, Act::Relu6, false));
            }
            layers.push(Layer::new(Kind::Depthwise, Work::Depthwise(window(size, kernel, stride), wide)));
            size = size.div_ceil(stride);
            layers.push(product(Kind::Pointwise, size * size, wide, out, Act::None, i > 0));
            c = out;
        }
    }
    layers.push(product(Kind::Pointwise, size * size, c, 1280, Act::Relu6, false));
    layers.push(Layer::new(Kind::Mean, Work::Mean { pixels: size * size, c: 1280 }));
    layers.push(product(Kind::Classifier, 1, 1280, 1000, Act::None, false));
    layers
}

/// A square window over a square map, padded so that the output is ⌈size ÷ stride⌉ wide.
pub fn window(size: usize, kernel: usize, stride: usize) -> Window {
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
