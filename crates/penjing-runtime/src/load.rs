//! What the time of a step depends on.

use penjing_kernels::Window;

use crate::{
    int8::{Bytes, Int8},
    plan::{Buffer, Partner, Span, Step},
};

/// How much a step has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Steps of one kind are computed in one way.
    pub kind: &'static str,
    /// Multiply-accumulates between all channels, those with weights that are zero left out.
    pub macs: u64,
    /// Multiply-accumulates, or comparisons, of channels each by itself.
    pub filters: u64,
    /// Bytes of the maps that are read and written.
    pub maps: u64,
    /// Bytes of the packed weights.
    pub weights: u64,
}

impl Step {
    /// How much it has to do.
    pub fn load(&self) -> Load {
        let load = |kind, macs, filters, maps: &[Buffer], weights: &[Span]| Load {
            kind,
            macs,
            filters,
            maps: floats(maps),
            weights: floats(weights),
        };
        match self {
            Step::Pointwise { m, k, n, x, weights, residual, y, .. } => {
                let maps = [*x, *y, residual.unwrap_or(NONE)];
                load(product(*m), macs(&[*m, *k, *n]), 0, &maps, &[*weights])
            }
            // A weight that is left out takes no place, one that is kept one and a quarter.
            Step::Sparse { m, x, weights, residual, y, .. } => {
                let maps = [*x, *y, residual.unwrap_or(NONE)];
                load("sparse", macs(&[*m, weights.len]) * 4 / 5, 0, &maps, &[*weights])
            }
            Step::Depthwise { window, channels, x, weights, y, .. } => {
                load(filter(window), 0, slid(window, *channels), &[*x, *y], &[*weights])
            }
            Step::Separable {
                window, channels: [from, channels, to], before, after, x, weights, y, ..
            } => {
                let wide = window.n * window.in_h * window.in_w;
                let partner = |partner: &Option<Partner>, product: [usize; 3]| {
                    partner.map_or((0, NONE, NONE), |partner| {
                        (macs(&product), partner.weights, partner.residual.unwrap_or(NONE))
                    })
                };
                let before = partner(before, [wide, *from, *channels]);
                let after = partner(after, [window.out_pixels(), *channels, *to]);
                let filters = slid(window, *channels);
                let maps = [*x, *y, after.2];
                load("by rows", before.0 + after.0, filters, &maps, &[*weights, before.1, after.1])
            }
            Step::Winograd { window, in_channels, out_channels, x, weights, residual, y, .. } => {
                let macs = slid(window, *in_channels).saturating_mul(*out_channels as u64);
                load("winograd", macs, 0, &[*x, *y, residual.unwrap_or(NONE)], &[*weights])
            }
            Step::Conv { window, in_channels, out_channels, groups, x, weights, residual, y, .. } => {
                let macs = slid(window, *in_channels / *groups).saturating_mul(*out_channels as u64);
                load(conv(*groups), macs, 0, &[*x, *y, residual.unwrap_or(NONE)], &[*weights])
            }
            Step::MaxPool { window, channels, x, y } | Step::AvgPool { window, channels, x, y, .. } => {
                load("pool", 0, slid(window, *channels), &[*x, *y], &[])
            }
            Step::GlobalAvgPool { x, y, .. } => load("mean", 0, 0, &[*x, *y], &[]),
            Step::Activate { x, y, .. }
            | Step::CopyChannels { x, y, .. }
            | Step::Shuffle { x, y, .. }
            | Step::Pad { x, y, .. }
            | Step::Softmax { x, y, .. }
            | Step::ScaleChannels { x, y, .. } => load("copy", 0, 0, &[*x, *y], &[]),
            Step::Add { a, b, y, .. } | Step::Multiply { a, b, y } => load("copy", 0, 0, &[*a, *b, *y], &[]),
            Step::Int8(step) => step.load(),
        }
    }
}

impl Int8 {
    fn load(&self) -> Load {
        let load = |kind, macs, filters, maps: usize, weights: &[Span]| Load {
            kind,
            macs,
            filters,
            maps: maps as u64,
            weights: floats(weights),
        };
        let both = |x: &Bytes, y: &Bytes| x.len + y.len;
        match self {
            Int8::Quantize { x, y, .. } => load("bytes", 0, 0, 4 * x.len + y.len, &[]),
            Int8::Dequantize { x, y, .. } => load("bytes", 0, 0, x.len + 4 * y.len, &[]),
            Int8::Pointwise { m, k, n, x, weights, y, .. } => {
                load(product_of_bytes(*m), macs(&[*m, *k, *n]), 0, both(x, y), &[*weights])
            }
            Int8::PointwiseFloats { m, k, n, x, weights, y } => {
                load(product_of_bytes(*m), macs(&[*m, *k, *n]), 0, x.len + 4 * y.len, &[*weights])
            }
            Int8::Depthwise { window, channels, x, weights, y, .. } => {
                load("depthwise of bytes", 0, slid(window, *channels), both(x, y), &[*weights])
            }
            Int8::Conv { window, in_channels, out_channels, groups, x, weights, y, .. } => {
                let macs = slid(window, *in_channels / *groups).saturating_mul(*out_channels as u64);
                load("convolution of bytes", macs, 0, both(x, y), &[*weights])
            }
            Int8::MaxPool { window, channels, x, y } | Int8::AvgPool { window, channels, x, y, .. } => {
                load("pool of bytes", 0, slid(window, *channels), both(x, y), &[])
            }
            Int8::Add { a, b, y, .. } => load("bytes", 0, 0, a.len + b.len + y.len, &[]),
            Int8::ScaleChannels { x, y, .. }
            | Int8::Lookup { x, y, .. }
            | Int8::GlobalAvgPool { x, y, .. }
            | Int8::CopyChannels { x, y, .. }
            | Int8::Shuffle { x, y, .. }
            | Int8::Pad { x, y, .. } => load("bytes", 0, 0, both(x, y), &[]),
        }
    }
}

const NONE: Buffer = Buffer { start: 0, len: 0 };

fn floats(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| (buffer.len * size_of::<f32>()) as u64).sum()
}

fn macs(extents: &[usize]) -> u64 {
    extents.iter().fold(1, |product: u64, &extent| product.saturating_mul(extent as u64))
}

/// A window over every channel.
fn slid(window: &Window, channels: usize) -> u64 {
    macs(&[window.out_pixels(), window.taps(), channels])
}

fn product(m: usize) -> &'static str {
    if m == 1 { "linear" } else { "pointwise" }
}

fn product_of_bytes(m: usize) -> &'static str {
    if m == 1 { "linear of bytes" } else { "pointwise of bytes" }
}

fn filter(window: &Window) -> &'static str {
    match (window.kernel_h, window.stride_h) {
        (3, 1) => "depthwise 3×3",
        (3, _) => "depthwise 3×3 of stride 2",
        (5, 1) => "depthwise 5×5",
        (5, _) => "depthwise 5×5 of stride 2",
        _ => "depthwise",
    }
}

fn conv(groups: usize) -> &'static str {
    if groups == 1 { "convolution" } else { "convolution in groups" }
}
