//! Executable steps over one arena, and the executor.
//!
//! A plan is lowered from a [`Graph`](crate::graph::Graph) on the host: folded, fused, packed, with every buffer at an
//! offset. It borrows everything, so that it can be a constant in flash: running it allocates nothing.

use penjing_kernels::{
    Act, Isa, Window, Workers, conv, depthwise, elementwise, layout, pointwise, pool, separable, softmax,
    sparse, winograd,
};

use crate::int8::Int8;

/// A run of values in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// First value.
    pub start: usize,
    /// Number of values.
    pub len: usize,
}

/// A run of values among the packed weights.
pub type Span = Buffer;

/// A pointwise convolution that is computed together with a depthwise one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partner {
    /// Applied last.
    pub act: Act,
    /// Packed weights.
    pub weights: Span,
    /// As long as the result, added before the activation; only of the one behind.
    pub residual: Option<Buffer>,
}

/// One call of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// `y[m][n] = act(bias[n] + Σ x[m][k]·w[n][k] + residual[m][n])`.
    Pointwise {
        /// Rows: pixels of the whole batch.
        m: usize,
        /// Input channels.
        k: usize,
        /// Output channels.
        n: usize,
        /// Applied last.
        act: Act,
        /// `[m, k]`.
        x: Buffer,
        /// Packed weights.
        weights: Span,
        /// `[m, n]`, added before the activation.
        residual: Option<Buffer>,
        /// `[m, n]`.
        y: Buffer,
    },
    /// One filter per channel.
    Depthwise {
        /// How the kernel slides.
        window: Window,
        /// Channels.
        channels: usize,
        /// Applied last.
        act: Act,
        /// Input map.
        x: Buffer,
        /// Packed weights.
        weights: Span,
        /// Output map.
        y: Buffer,
    },
    /// A depthwise convolution with the pointwise one before it, the one behind it, or both, a few rows at a time.
    Separable {
        /// How the depthwise kernel slides.
        window: Window,
        /// Channels of the input, of the depthwise convolution, and of the output.
        channels: [usize; 3],
        /// The pointwise convolution before.
        before: Option<Partner>,
        /// Activation of the depthwise convolution.
        act: Act,
        /// Its packed weights.
        weights: Span,
        /// The pointwise convolution behind.
        after: Option<Partner>,
        /// Input map.
        x: Buffer,
        /// Working memory.
        scratch: Buffer,
        /// Output map.
        y: Buffer,
    },
    /// A pointwise convolution of whose weights most are zero.
    Sparse {
        /// Pixels.
        m: usize,
        /// Input channels.
        k: usize,
        /// Output channels.
        n: usize,
        /// Applied last.
        act: Act,
        /// Input map.
        x: Buffer,
        /// Packed weights.
        weights: Span,
        /// Added before the activation.
        residual: Option<Buffer>,
        /// Working memory.
        scratch: Buffer,
        /// Output map.
        y: Buffer,
    },
    /// A dense 3×3 convolution of stride 1, by Winograd.
    Winograd {
        /// How the kernel slides.
        window: Window,
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Applied last.
        act: Act,
        /// Input map.
        x: Buffer,
        /// Packed weights.
        weights: Span,
        /// Added before the activation.
        residual: Option<Buffer>,
        /// Working memory.
        scratch: Buffer,
        /// Output map.
        y: Buffer,
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
        /// Applied last.
        act: Act,
        /// Input map.
        x: Buffer,
        /// Packed weights.
        weights: Span,
        /// Added before the activation.
        residual: Option<Buffer>,
        /// Working memory.
        scratch: Buffer,
        /// Output map.
        y: Buffer,
    },
    /// Greatest value in a window.
    MaxPool {
        /// How it slides.
        window: Window,
        /// Channels.
        channels: usize,
        /// Input map.
        x: Buffer,
        /// Output map.
        y: Buffer,
    },
    /// Mean of a window.
    AvgPool {
        /// How it slides.
        window: Window,
        /// Channels.
        channels: usize,
        /// Whether padding counts.
        include_pad: bool,
        /// Input map.
        x: Buffer,
        /// Output map.
        y: Buffer,
    },
    /// Mean over a map.
    GlobalAvgPool {
        /// Images in the batch.
        n: usize,
        /// Pixels of a map.
        pixels: usize,
        /// Channels.
        channels: usize,
        /// `[n, pixels, channels]`.
        x: Buffer,
        /// `[n, channels]`.
        y: Buffer,
    },
    /// An activation that stands alone.
    Activate {
        /// Which.
        act: Act,
        /// Input.
        x: Buffer,
        /// Output, as long.
        y: Buffer,
    },
    /// `y = act(a + b)`.
    Add {
        /// Applied last.
        act: Act,
        /// First summand.
        a: Buffer,
        /// Second summand.
        b: Buffer,
        /// Sum.
        y: Buffer,
    },
    /// `y = a · b`, value by value.
    Multiply {
        /// First factor.
        a: Buffer,
        /// Second factor.
        b: Buffer,
        /// Product.
        y: Buffer,
    },
    /// Each channel of each image times its own factor.
    ScaleChannels {
        /// Images in the batch.
        n: usize,
        /// Pixels of a map.
        pixels: usize,
        /// Channels.
        channels: usize,
        /// `[n, pixels, channels]`.
        x: Buffer,
        /// `[n, channels]`.
        scale: Buffer,
        /// `[n, pixels, channels]`.
        y: Buffer,
    },
    /// Copies a run of channels: concatenation and slicing.
    CopyChannels {
        /// Pixels of the whole batch.
        pixels: usize,
        /// Channels copied.
        count: usize,
        /// Source.
        x: Buffer,
        /// Channels of the source, and the first one read.
        x_channels: [usize; 2],
        /// Destination.
        y: Buffer,
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
        x: Buffer,
        /// Output.
        y: Buffer,
    },
    /// Zeros around a map.
    Pad {
        /// `[N, H, W, C]` of the input.
        shape: [usize; 4],
        /// Top, bottom, left, right.
        padding: [usize; 4],
        /// Input map.
        x: Buffer,
        /// Output map.
        y: Buffer,
    },
    /// Softmax of each row.
    Softmax {
        /// Rows.
        rows: usize,
        /// Values in a row.
        channels: usize,
        /// Input.
        x: Buffer,
        /// Output.
        y: Buffer,
    },
    /// What reads bytes or writes them.
    Int8(Int8),
}

/// A result as it stands in the arena.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Made<'a> {
    /// As floats.
    Floats(&'a [f32]),
    /// In 8 bits.
    Bytes(&'a [u8]),
}

impl Step {
    /// What the step has made.
    pub fn made<'a>(&self, arena: &'a [f32]) -> Made<'a> {
        let y = match self {
            Step::Int8(step) => return step.made(arena),
            Step::Pointwise { y, .. }
            | Step::Depthwise { y, .. }
            | Step::Separable { y, .. }
            | Step::Conv { y, .. }
            | Step::Winograd { y, .. }
            | Step::Sparse { y, .. }
            | Step::MaxPool { y, .. }
            | Step::AvgPool { y, .. }
            | Step::GlobalAvgPool { y, .. }
            | Step::Activate { y, .. }
            | Step::Add { y, .. }
            | Step::Multiply { y, .. }
            | Step::ScaleChannels { y, .. }
            | Step::CopyChannels { y, .. }
            | Step::Shuffle { y, .. }
            | Step::Pad { y, .. }
            | Step::Softmax { y, .. } => y,
        };
        Made::Floats(&arena[y.start..y.start + y.len])
    }
}

/// A network ready to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// What to do, in order.
    pub steps: &'a [Step],
    /// Every step's packed weights, one after another.
    pub weights: &'a [f32],
    /// Where the input tensor goes.
    pub input: Buffer,
    /// Where the result stands afterwards.
    pub output: Buffer,
    /// Number of values the arena must hold.
    pub arena_len: usize,
    /// Most threads that the scratch memory was planned for.
    pub threads: usize,
}

impl Plan<'_> {
    /// Peak working memory in bytes: activations and scratch, not the weights.
    pub fn peak_ram_bytes(&self) -> usize {
        self.arena_len * size_of::<f32>()
    }

    /// Runs the network on what stands in `arena[plan.input]`; the result is in `arena[plan.output]` afterwards.
    ///
    /// # Panics
    /// If the arena is shorter than [`arena_len`](Self::arena_len), or there are more workers than
    /// [`threads`](Self::threads).
    pub fn run(&self, isa: Isa, workers: &dyn Workers, arena: &mut [f32]) {
        assert!(arena.len() >= self.arena_len, "the arena is shorter than the plan needs");
        assert!(workers.threads() <= self.threads, "the plan's scratch memory is for fewer threads");
        for step in self.steps {
            self.step(step, isa, workers, arena);
        }
    }

    /// Runs one step.
    pub fn step(&self, step: &Step, isa: Isa, workers: &dyn Workers, arena: &mut [f32]) {
        let packed = |span: &Span| &self.weights[span.start..span.start + span.len];
        match *step {
            Step::Pointwise { m, k, n, act, x, ref weights, residual, y } => {
                let (y, rest) = split(arena, y);
                let residual = residual.map(|buffer| rest.get(buffer));
                pointwise::run(isa, workers, m, k, n, act, rest.get(x), packed(weights), residual, y);
            }
            Step::Depthwise { ref window, channels, act, x, ref weights, y } => {
                let (y, rest) = split(arena, y);
                depthwise::run(isa, workers, window, channels, act, rest.get(x), packed(weights), y);
            }
            Step::Separable {
                ref window,
                channels,
                ref before,
                act,
                ref weights,
                ref after,
                x,
                scratch,
                y,
            } => {
                let (y, mut rest) = split(arena, y);
                let (scratch, rest) = rest.split(scratch);
                let partner = |partner: &Partner| separable::Pointwise {
                    act: partner.act,
                    packed: packed(&partner.weights),
                    residual: partner.residual.map(|buffer| rest.get(buffer)),
                };
                let (before, after) = (before.as_ref().map(partner), after.as_ref().map(partner));
                let (x, packed) = (rest.get(x), packed(weights));
                separable::run(isa, workers, window, channels, before, act, packed, after, x, scratch, y);
            }
            Step::Conv {
                ref window,
                in_channels,
                out_channels,
                groups,
                act,
                x,
                ref weights,
                residual,
                scratch,
                y,
            } => {
                let (y, mut rest) = split(arena, y);
                let (scratch, rest) = rest.split(scratch);
                let residual = residual.map(|buffer| rest.get(buffer));
                let x = rest.get(x);
                let packed = packed(weights);
                let channels = (in_channels, out_channels);
                conv::run(
                    isa, workers, window, channels.0, channels.1, groups, act, x, packed, residual, scratch,
                    y,
                );
            }
            Step::Sparse { m, k, n, act, x, ref weights, residual, scratch, y } => {
                let (y, mut rest) = split(arena, y);
                let (scratch, rest) = rest.split(scratch);
                let residual = residual.map(|buffer| rest.get(buffer));
                let (x, packed) = (rest.get(x), packed(weights));
                sparse::run(isa, workers, [m, k, n], act, x, packed, residual, scratch, y);
            }
            Step::Winograd {
                ref window,
                in_channels,
                out_channels,
                act,
                x,
                ref weights,
                residual,
                scratch,
                y,
            } => {
                let (y, mut rest) = split(arena, y);
                let (scratch, rest) = rest.split(scratch);
                let residual = residual.map(|buffer| rest.get(buffer));
                let (x, packed) = (rest.get(x), packed(weights));
                let [from, to] = [in_channels, out_channels];
                winograd::run(isa, workers, window, from, to, act, x, packed, residual, scratch, y);
            }
            Step::MaxPool { ref window, channels, x, y } => {
                let (y, rest) = split(arena, y);
                pool::max(isa, workers, window, channels, rest.get(x), y);
            }
            Step::AvgPool { ref window, channels, include_pad, x, y } => {
                let (y, rest) = split(arena, y);
                pool::average(isa, workers, window, channels, include_pad, rest.get(x), y);
            }
            Step::GlobalAvgPool { n, pixels, channels, x, y } => {
                let (y, rest) = split(arena, y);
                pool::global_average(isa, n, pixels, channels, rest.get(x), y);
            }
            Step::Activate { act, x, y } => {
                let (y, rest) = split(arena, y);
                elementwise::activate(isa, act, rest.get(x), y);
            }
            Step::Add { act, a, b, y } => {
                let (y, rest) = split(arena, y);
                elementwise::add(isa, act, rest.get(a), rest.get(b), y);
            }
            Step::Multiply { a, b, y } => {
                let (y, rest) = split(arena, y);
                elementwise::multiply(isa, rest.get(a), rest.get(b), y);
            }
            Step::ScaleChannels { n, pixels, channels, x, scale, y } => {
                let (y, rest) = split(arena, y);
                elementwise::scale_channels(isa, n, pixels, channels, rest.get(x), rest.get(scale), y);
            }
            Step::CopyChannels { pixels, count, x, x_channels, y, y_channels } => {
                let (y, rest) = split(arena, y);
                let [x_all, x_from] = x_channels;
                let [y_all, y_from] = y_channels;
                layout::copy_channels(pixels, count, rest.get(x), x_all, x_from, y, y_all, y_from);
            }
            Step::Shuffle { pixels, channels, groups, x, y } => {
                let (y, rest) = split(arena, y);
                layout::shuffle(pixels, channels, groups, rest.get(x), y);
            }
            Step::Pad { shape: [n, h, w, c], padding, x, y } => {
                let (y, rest) = split(arena, y);
                layout::pad(n, h, w, c, padding, 0.0, rest.get(x), y);
            }
            Step::Softmax { rows, channels, x, y } => {
                let (y, rest) = split(arena, y);
                softmax::run(rows, channels, rest.get(x), y);
            }
            Step::Int8(ref step) => step.run(self.weights, isa, workers, arena),
        }
    }
}

/// What is left of the arena beside the buffer being written: at most three runs.
pub(crate) struct Rest<'a> {
    parts: [(usize, &'a mut [f32]); 3],
}

pub(crate) fn split(arena: &mut [f32], y: Buffer) -> (&mut [f32], Rest<'_>) {
    let (before, rest) = arena.split_at_mut(y.start);
    let (y_values, after) = rest.split_at_mut(y.len);
    (y_values, Rest { parts: [(0, before), (y.start + y.len, after), (0, &mut [])] })
}

impl<'a> Rest<'a> {
    /// A buffer that is read. It cannot overlap what is written: a plan where it did would panic here.
    pub(crate) fn get(&self, buffer: Buffer) -> &[f32] {
        let holds = |(start, part): &&(usize, &mut [f32])| {
            buffer.start >= *start && buffer.start + buffer.len <= *start + part.len()
        };
        let (start, part) = self.parts.iter().find(holds).expect("a step reads what it writes");
        &part[buffer.start - start..][..buffer.len]
    }

    /// Takes a second buffer out for writing.
    pub(crate) fn split(&mut self, buffer: Buffer) -> (&'a mut [f32], Rest<'a>) {
        let [a, b, _] = core::mem::take(&mut self.parts);
        let (holder, other) = if buffer.start < b.0 { (a, b) } else { (b, a) };
        let (before, rest) = holder.1.split_at_mut(buffer.start - holder.0);
        let (taken, after) = rest.split_at_mut(buffer.len);
        (taken, Rest { parts: [(holder.0, before), (buffer.start + buffer.len, after), other] })
    }
}
