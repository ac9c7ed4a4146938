//! The steps of a plan that compute on bytes.
//!
//! Their buffers stand in the same arena as those of floats, and begin at its values; packed weights of integers stand among
//! the packed weights of floats.

use bytemuck::{cast_slice, cast_slice_mut};
use penjing_kernels::{
    Isa, Window, Workers,
    int8::{Channel, Limits, conv, convert, depthwise, elementwise, pointwise, pool},
    layout,
};

use crate::{
    plan::{Buffer, Made, Rest, Span, split},
    quant::Quant,
};

/// A run of bytes in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The values of the arena that hold them.
    pub place: Buffer,
    /// Number of bytes.
    pub len: usize,
}

impl Bytes {
    /// How many of the arena's values hold so many bytes.
    pub const fn values(len: usize) -> usize {
        len.div_ceil(size_of::<f32>())
    }
}

/// One call of a kernel that reads bytes or writes them.
#[derive(Clone, Debug, PartialEq)]
pub enum Int8 {
    /// Floats to the nearest bytes.
    Quantize {
        /// What the bytes mean.
        quant: Quant,
        /// Input.
        x: Buffer,
        /// Output, as many.
        y: Bytes,
    },
    /// Bytes to what they mean.
    Dequantize {
        /// What the bytes mean.
        quant: Quant,
        /// Input.
        x: Bytes,
        /// Output, as many.
        y: Buffer,
    },
    /// `[m, k]` through a `[n, k]` weight.
    Pointwise {
        /// Rows: pixels of the whole batch.
        m: usize,
        /// Input channels.
        k: usize,
        /// Output channels.
        n: usize,
        /// What the activation leaves.
        limits: Limits,
        /// `[m, k]`.
        x: Bytes,
        /// Packed weights.
        weights: Span,
        /// `[m, n]`.
        y: Bytes,
    },
    /// The same with a result of floats.
    PointwiseFloats {
        /// Rows: pixels of the whole batch.
        m: usize,
        /// Input channels.
        k: usize,
        /// Output channels.
        n: usize,
        /// `[m, k]`.
        x: Bytes,
        /// Packed weights.
        weights: Span,
        /// `[m, n]`.
        y: Buffer,
    },
    /// One filter per channel.
    Depthwise {
        /// How the kernel slides.
        window: Window,
        /// Channels.
        channels: usize,
        /// The input's byte for zero.
        zero_point: u8,
        /// What the activation leaves.
        limits: Limits,
        /// Input map.
        x: Bytes,
        /// Packed weights.
        weights: Span,
        /// Output map.
        y: Bytes,
    },
    /// Any other convolution.
    Conv {
        /// How the kernel slides.
        window: Window,
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Groups of channels.
        groups: usize,
        /// The input's byte for zero.
        zero_point: u8,
        /// What the activation leaves.
        limits: Limits,
        /// Input map.
        x: Bytes,
        /// Packed weights.
        weights: Span,
        /// Working memory.
        scratch: Bytes,
        /// Output map.
        y: Bytes,
    },
    /// Sum of two maps.
    Add {
        /// From their scales to that of the result.
        sum: elementwise::Sum,
        /// First summand.
        a: Bytes,
        /// Second summand.
        b: Bytes,
        /// Sum.
        y: Bytes,
    },
    /// Each channel of each image times its own factor.
    ScaleChannels {
        /// Images in the batch.
        n: usize,
        /// Pixels of a map.
        pixels: usize,
        /// Channels.
        channels: usize,
        /// The bytes for zero of the map and of the factors.
        zero_points: [u8; 2],
        /// From a product to the result.
        channel: Channel,
        /// `[n, pixels, channels]`.
        x: Bytes,
        /// `[n, channels]`.
        scale: Bytes,
        /// `[n, pixels, channels]`.
        y: Bytes,
    },
    /// Every byte by a table of 256 bytes.
    Lookup {
        /// The table, among the packed weights.
        table: Span,
        /// Input.
        x: Bytes,
        /// Output, as long.
        y: Bytes,
    },
    /// Greatest byte in a window.
    MaxPool {
        /// How it slides.
        window: Window,
        /// Channels.
        channels: usize,
        /// Input map.
        x: Bytes,
        /// Output map.
        y: Bytes,
    },
    /// Mean of a window, on the same grid.
    AvgPool {
        /// How it slides.
        window: Window,
        /// Channels.
        channels: usize,
        /// The byte for zero.
        zero_point: u8,
        /// Whether padding counts.
        include_pad: bool,
        /// Input map.
        x: Bytes,
        /// Output map.
        y: Bytes,
    },
    /// Mean over a map.
    GlobalAvgPool {
        /// Images in the batch.
        n: usize,
        /// Pixels of a map.
        pixels: usize,
        /// Channels.
        channels: usize,
        /// From a sum to the result.
        channel: Channel,
        /// `[n, pixels, channels]`.
        x: Bytes,
        /// `[n, channels]`.
        y: Bytes,
    },
    /// Copies a run of channels: concatenation and slicing.
    CopyChannels {
        /// Pixels of the whole batch.
        pixels: usize,
        /// Channels copied.
        count: usize,
        /// Source.
        x: Bytes,
        /// Channels of the source, and the first one read.
        x_channels: [usize; 2],
        /// Destination.
        y: Bytes,
        /// Channels of the destination, and the first one written.
        y_channels: [usize; 2],
    },
    /// Deals channels out among groups.
    Shuffle {
        /// Pixels of the whole batch.
        pixels: usize,
        /// Channels.
        channels: usize,
        /// Groups.
        groups: usize,
        /// Input.
        x: Bytes,
        /// Output.
        y: Bytes,
    },
    /// Zeros around a map.
    Pad {
        /// `[N, H, W, C]` of the input.
        shape: [usize; 4],
        /// Top, bottom, left, right.
        padding: [usize; 4],
        /// The byte for zero.
        zero_point: u8,
        /// Input map.
        x: Bytes,
        /// Output map.
        y: Bytes,
    },
}

/// The buffer that is written, as bytes, and what is left beside it.
fn split_bytes(arena: &mut [f32], y: Bytes) -> (&mut [u8], Rest<'_>) {
    let (place, rest) = split(arena, y.place);
    (&mut cast_slice_mut(place)[..y.len], rest)
}

impl Rest<'_> {
    fn bytes(&self, buffer: Bytes) -> &[u8] {
        &cast_slice(self.get(buffer.place))[..buffer.len]
    }
}

impl Int8 {
    /// Runs the step.
    pub(crate) fn run(&self, weights: &[f32], isa: Isa, workers: &dyn Workers, arena: &mut [f32]) {
        let packed = |span: Span| cast_slice::<f32, i32>(&weights[span.start..span.start + span.len]);
        match *self {
            Int8::Quantize { quant, x, y } => {
                let (y, rest) = split_bytes(arena, y);
                convert::quantize(isa, quant.scale, quant.zero_point, rest.get(x), y);
            }
            Int8::Dequantize { quant, x, y } => {
                let (y, rest) = split(arena, y);
                convert::dequantize(isa, quant.scale, quant.zero_point, rest.bytes(x), y);
            }
            Int8::Pointwise { m, k, n, limits, x, weights, y } => {
                let (y, rest) = split_bytes(arena, y);
                pointwise::run(isa, workers, m, k, n, limits, rest.bytes(x), packed(weights), y);
            }
            Int8::PointwiseFloats { m, k, n, x, weights, y } => {
                let (y, rest) = split(arena, y);
                pointwise::run_floats(isa, workers, m, k, n, rest.bytes(x), packed(weights), y);
            }
            Int8::Depthwise { ref window, channels, zero_point, limits, x, weights, y } => {
                let (y, rest) = split_bytes(arena, y);
                let (x, packed) = (rest.bytes(x), packed(weights));
                depthwise::run(isa, workers, window, channels, zero_point, limits, x, packed, y);
            }
            Int8::Conv {
                ref window,
                in_channels,
                out_channels,
                groups,
                zero_point,
                limits,
                x,
                weights,
                scratch,
                y,
            } => {
                let (y, mut rest) = split_bytes(arena, y);
                let (place, rest) = rest.split(scratch.place);
                let scratch = &mut cast_slice_mut(place)[..scratch.len];
                let (x, packed) = (rest.bytes(x), packed(weights));
                let channels = (in_channels, out_channels);
                conv::run(
                    isa, workers, window, channels.0, channels.1, groups, zero_point, limits, x, packed,
                    scratch, y,
                );
            }
            Int8::Add { ref sum, a, b, y } => {
                let (y, rest) = split_bytes(arena, y);
                elementwise::add(isa, sum, rest.bytes(a), rest.bytes(b), y);
            }
            Int8::ScaleChannels { n, pixels, channels, zero_points, channel, x, scale, y } => {
                let (y, rest) = split_bytes(arena, y);
                let (x, scale) = (rest.bytes(x), rest.bytes(scale));
                elementwise::scale_channels(
                    isa,
                    n,
                    pixels,
                    channels,
                    zero_points,
                    channel,
                    Limits::NONE,
                    x,
                    scale,
                    y,
                );
            }
            Int8::Lookup { table, x, y } => {
                let (y, rest) = split_bytes(arena, y);
                let table: &[u8] = cast_slice(&weights[table.start..table.start + table.len]);
                let table = table.first_chunk().expect("a table has 256 bytes");
                elementwise::lookup(isa, table, rest.bytes(x), y);
            }
            Int8::MaxPool { ref window, channels, x, y } => {
                let (y, rest) = split_bytes(arena, y);
                pool::max(isa, workers, window, channels, rest.bytes(x), y);
            }
            Int8::AvgPool { ref window, channels, zero_point, include_pad, x, y } => {
                let (y, rest) = split_bytes(arena, y);
                let x = rest.bytes(x);
                pool::average(isa, workers, window, channels, zero_point, include_pad, x, y);
            }
            Int8::GlobalAvgPool { n, pixels, channels, channel, x, y } => {
                let (y, rest) = split_bytes(arena, y);
                pool::global_average(isa, n, pixels, channels, channel, Limits::NONE, rest.bytes(x), y);
            }
            Int8::CopyChannels { pixels, count, x, x_channels, y, y_channels } => {
                let (y, rest) = split_bytes(arena, y);
                let [x_all, x_from] = x_channels;
                let [y_all, y_from] = y_channels;
                layout::copy_channels(pixels, count, rest.bytes(x), x_all, x_from, y, y_all, y_from);
            }
            Int8::Shuffle { pixels, channels, groups, x, y } => {
                let (y, rest) = split_bytes(arena, y);
                layout::shuffle(pixels, channels, groups, rest.bytes(x), y);
            }
            Int8::Pad { shape: [n, h, w, c], padding, zero_point, x, y } => {
                let (y, rest) = split_bytes(arena, y);
                layout::pad(n, h, w, c, padding, zero_point, rest.bytes(x), y);
            }
        }
    }

    /// What the step has made.
    pub(crate) fn made<'a>(&self, arena: &'a [f32]) -> Made<'a> {
        let y = match self {
            Int8::Dequantize { y, .. } | Int8::PointwiseFloats { y, .. } => {
                return Made::Floats(&arena[y.start..y.start + y.len]);
            }
            Int8::Quantize { y, .. }
            | Int8::Pointwise { y, .. }
            | Int8::Depthwise { y, .. }
            | Int8::Conv { y, .. }
            | Int8::Add { y, .. }
            | Int8::ScaleChannels { y, .. }
            | Int8::Lookup { y, .. }
            | Int8::MaxPool { y, .. }
            | Int8::AvgPool { y, .. }
            | Int8::GlobalAvgPool { y, .. }
            | Int8::CopyChannels { y, .. }
            | Int8::Shuffle { y, .. }
            | Int8::Pad { y, .. } => y,
        };
        let place = &arena[y.place.start..y.place.start + y.place.len];
        Made::Bytes(&cast_slice(place)[..y.len])
    }

    /// Visits every arena buffer of the step, that of its result last.
    #[cfg(feature = "alloc")]
    pub(crate) fn buffers(&mut self, mut visit: impl FnMut(&mut Buffer)) {
        match self {
            Int8::Quantize { x, y, .. } => {
                visit(x);
                visit(&mut y.place);
            }
            Int8::Dequantize { x, y, .. } | Int8::PointwiseFloats { x, y, .. } => {
                visit(&mut x.place);
                visit(y);
            }
            Int8::Conv { x, scratch, y, .. } => [x, scratch, y].into_iter().for_each(|b| visit(&mut b.place)),
            Int8::Add { a, b, y, .. } => [a, b, y].into_iter().for_each(|b| visit(&mut b.place)),
            Int8::ScaleChannels { x, scale, y, .. } => {
                [x, scale, y].into_iter().for_each(|b| visit(&mut b.place));
            }
            Int8::Pointwise { x, y, .. }
            | Int8::Depthwise { x, y, .. }
            | Int8::Lookup { x, y, .. }
            | Int8::MaxPool { x, y, .. }
            | Int8::AvgPool { x, y, .. }
            | Int8::GlobalAvgPool { x, y, .. }
            | Int8::CopyChannels { x, y, .. }
            | Int8::Shuffle { x, y, .. }
            | Int8::Pad { x, y, .. } => [x, y].into_iter().for_each(|b| visit(&mut b.place)),
        }
    }
}
