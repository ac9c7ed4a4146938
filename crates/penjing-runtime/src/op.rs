//! The closed set of operations, each with its shape rule, its parameters and its arithmetic cost.

use alloc::{format, string::String, vec, vec::Vec};

pub use penjing_kernels::Act;
use penjing_kernels::Window;

/// Most values an edge of a graph may hold (1 GiB of `f32`).
pub const MAX_VALUES: usize = 1 << 28;

/// Shape of an edge, `[N, H, W, C]`; vectors are `[N, 1, 1, C]`.
pub type Shape = [usize; 4];

/// One operation of a graph.
///
/// Adding a variant makes the compiler list what must learn about it: shapes, parameters and cost here, lowering in
/// `lower.rs`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "file", serde(rename_all = "snake_case", deny_unknown_fields))]
pub enum Op {
    /// The network's input.
    Input {
        /// Shape of one batch.
        shape: Shape,
    },
    /// Convolution with any number of groups; depthwise when `groups` equals the input's channels.
    Conv(Conv),
    /// Batch normalization with running statistics: `γ·(x − mean)/√(var + eps) + β`.
    BatchNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// Activation.
    Act(#[cfg_attr(feature = "file", serde(with = "ActDef"))] Act),
    /// Sum of two edges of one shape.
    Add,
    /// Product of two edges of one shape, or of `[N,H,W,C]` with `[N,1,1,C]`.
    Mul,
    /// Edges one after another along the channels.
    Concat,
    /// A run of channels.
    Slice {
        /// First channel.
        start: usize,
        /// Number of channels.
        len: usize,
    },
    /// Channels dealt out among groups, as in ShuffleNet: seen as `[groups, C/groups]` and transposed.
    ChannelShuffle {
        /// Number of groups.
        groups: usize,
    },
    /// Zeros around the map.
    Pad {
        /// Rows and columns added: top, bottom, left, right.
        padding: [usize; 4],
    },
    /// Greatest value in a window; padding counts as −∞.
    MaxPool(Pool),
    /// Mean of a window.
    AvgPool(AvgPool),
    /// Mean over the map: `[N,H,W,C]` → `[N,1,1,C]`.
    GlobalAvgPool,
    /// `[N,H,W,C]` → `[N,1,1,H·W·C]`, channels fastest.
    Flatten,
    /// Matrix product with a weight `[out, in]`, plus bias.
    Linear {
        /// Number of outputs.
        out_features: usize,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Softmax over the channels.
    Softmax,
    /// Random zeroing while training; nothing otherwise.
    Dropout {
        /// Share of values set to zero.
        rate: f32,
    },
}

/// A convolution's numbers. Weights are `[out, kh, kw, in / groups]`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Conv {
    /// Number of output channels.
    pub out_channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Zeros around the map: top, bottom, left, right.
    pub padding: [usize; 4],
    /// Vertical and horizontal distance of taps.
    pub dilation: [usize; 2],
    /// Number of groups.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

/// A pooling window.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Pool {
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Padding: top, bottom, left, right.
    pub padding: [usize; 4],
    /// Whether the last window may hang over the edge.
    pub ceil_mode: bool,
}

/// Average pooling: a window, and what counts.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct AvgPool {
    /// The window.
    pub window: Pool,
    /// Whether padding counts in the mean.
    pub count_include_pad: bool,
}

#[cfg(feature = "file")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(remote = "Act", rename_all = "snake_case")]
enum ActDef {
    None,
    Relu,
    Relu6,
    LeakyRelu(f32),
    HSwish,
    HSigmoid,
    Sigmoid,
    Silu,
}

/// A named weight that an operation needs: suffix of its name, and shape.
pub type Parameter = (&'static str, Vec<usize>);

impl Op {
    /// The operation's name, as a reader of a table expects it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Conv(_) => "conv",
            Op::BatchNorm { .. } => "batch_norm",
            Op::Act(_) => "act",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Concat => "concat",
            Op::Slice { .. } => "slice",
            Op::ChannelShuffle { .. } => "channel_shuffle",
            Op::Pad { .. } => "pad",
            Op::MaxPool(_) => "max_pool",
            Op::AvgPool(_) => "avg_pool",
            Op::GlobalAvgPool => "global_avg_pool",
            Op::Flatten => "flatten",
            Op::Linear { .. } => "linear",
            Op::Softmax => "softmax",
            Op::Dropout { .. } => "dropout",
        }
    }

    /// Shape of the result for inputs of these shapes, or what does not fit.
    pub fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let count = match self {
            Op::Input { .. } => Some(0),
            Op::Add | Op::Mul => Some(2),
            Op::Concat => None,
            _ => Some(1),
        };
        match count {
            Some(count) if inputs.len() != count => {
                return Err(format!("takes {count} inputs, got {}", inputs.len()));
            }
            None if inputs.is_empty() => return Err("takes at least one input".into()),
            _ => {}
        }
        let shape = match self {
            Op::Input { shape } => *shape,
            Op::Conv(conv) => {
                let [n, _, _, c] = inputs[0];
                if conv.groups == 0 || c % conv.groups != 0 || conv.out_channels % conv.groups != 0 {
                    return Err(format!(
                        "{} groups must divide {c} input and {} output channels",
                        conv.groups, conv.out_channels
                    ));
                }
                let window = window(inputs[0], conv.kernel, conv.stride, conv.padding, conv.dilation, false)?;
                [n, window.out_h, window.out_w, conv.out_channels]
            }
            Op::BatchNorm { eps } => {
                if !(eps.is_finite() && *eps >= 0.0) {
                    return Err(format!("eps is {eps}, expected a small positive number"));
                }
                inputs[0]
            }
            Op::Act(Act::LeakyRelu(slope)) if !slope.is_finite() => {
                return Err(format!("the slope is {slope}, expected a finite number"));
            }
            Op::Dropout { rate } if !(0.0..=1.0).contains(rate) => {
                return Err(format!("the rate is {rate}, expected 0 to 1"));
            }
            Op::Act(_) | Op::Softmax | Op::Dropout { .. } => inputs[0],
            Op::Add => {
                if inputs[0] != inputs[1] {
                    return Err(format!("cannot add {:?} and {:?}", inputs[0], inputs[1]));
                }
                inputs[0]
            }
            Op::Mul => {
                let [a, b] = [inputs[0], inputs[1]];
                if a != b && b != [a[0], 1, 1, a[3]] {
                    return Err(format!("cannot multiply {a:?} by {b:?}"));
                }
                a
            }
            Op::Concat => {
                let [n, h, w, _] = inputs[0];
                let mut channels = 0usize;
                for &[n2, h2, w2, c] in inputs {
                    if [n2, h2, w2] != [n, h, w] {
                        return Err(format!("cannot join {:?} and {:?}", inputs[0], [n2, h2, w2, c]));
                    }
                    channels = channels.saturating_add(c);
                }
                [n, h, w, channels]
            }
            Op::Slice { start, len } => {
                let [n, h, w, c] = inputs[0];
                if start.checked_add(*len).is_none_or(|end| end > c) {
                    return Err(format!("channels {start}..{start}+{len} of {c}"));
                }
                [n, h, w, *len]
            }
            Op::ChannelShuffle { groups } => {
                if *groups == 0 || !inputs[0][3].is_multiple_of(*groups) {
                    return Err(format!("{groups} groups do not divide {} channels", inputs[0][3]));
                }
                inputs[0]
            }
            Op::Pad { padding } => {
                let [n, h, w, c] = inputs[0];
                let [h, w] = padded(h, w, *padding)?;
                [n, h, w, c]
            }
            Op::MaxPool(pool) | Op::AvgPool(AvgPool { window: pool, .. }) => {
                let window = pool.window(inputs[0])?;
                [window.n, window.out_h, window.out_w, inputs[0][3]]
            }
            Op::GlobalAvgPool => [inputs[0][0], 1, 1, inputs[0][3]],
            Op::Flatten => {
                let [n, h, w, c] = inputs[0];
                [n, 1, 1, h * w * c]
            }
            Op::Linear { out_features, .. } => {
                let [n, h, w, _] = inputs[0];
                if [h, w] != [1, 1] {
                    return Err(format!("takes a vector [N,1,1,C], got {:?}", inputs[0]));
                }
                [n, 1, 1, *out_features]
            }
        };
        let values = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        match values {
            Some(1..=MAX_VALUES) => Ok(shape),
            _ => Err(format!("its result would be {shape:?}, outside 1..={MAX_VALUES} values")),
        }
    }

    /// The weights that the operation needs for an input of this shape.
    pub fn parameters(&self, input: Shape) -> Vec<Parameter> {
        let channels = input[3];
        let with_bias = |weight: Vec<usize>, out: usize, bias: bool| {
            let mut all = vec![("weight", weight)];
            if bias {
                all.push(("bias", vec![out]));
            }
            all
        };
        match self {
            Op::Conv(conv) => {
                let [kh, kw] = conv.kernel;
                let shape = vec![conv.out_channels, kh, kw, channels / conv.groups.max(1)];
                with_bias(shape, conv.out_channels, conv.bias)
            }
            Op::Linear { out_features, bias } => {
                with_bias(vec![*out_features, channels], *out_features, *bias)
            }
            Op::BatchNorm { .. } => {
                ["gamma", "beta", "mean", "var"].map(|suffix| (suffix, vec![channels])).to_vec()
            }
            Op::Input { .. }
            | Op::Act(_)
            | Op::Add
            | Op::Mul
            | Op::Concat
            | Op::Slice { .. }
            | Op::ChannelShuffle { .. }
            | Op::Pad { .. }
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Flatten
            | Op::Softmax
            | Op::Dropout { .. } => Vec::new(),
        }
    }

    /// Multiply-accumulates of one run, counting convolutions and linear layers as papers do.
    pub fn macs(&self, input: Shape, output: Shape) -> u64 {
        let outputs = count(&output);
        match self {
            Op::Conv(conv) => {
                let taps = count(&[conv.kernel[0], conv.kernel[1], input[3] / conv.groups.max(1)]);
                outputs.saturating_mul(taps)
            }
            Op::Linear { .. } => outputs.saturating_mul(input[3] as u64),
            Op::Input { .. }
            | Op::BatchNorm { .. }
            | Op::Act(_)
            | Op::Add
            | Op::Mul
            | Op::Concat
            | Op::Slice { .. }
            | Op::ChannelShuffle { .. }
            | Op::Pad { .. }
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Flatten
            | Op::Softmax
            | Op::Dropout { .. } => 0,
        }
    }
}

impl Conv {
    /// A convolution with a square kernel, one group, no padding, no dilation and no bias.
    pub fn new(out_channels: usize, kernel: usize, stride: usize) -> Self {
        Conv {
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [0; 4],
            dilation: [1; 2],
            groups: 1,
            bias: false,
        }
    }

    /// How the kernel slides over an input of this shape.
    pub fn window(&self, input: Shape) -> Result<Window, String> {
        window(input, self.kernel, self.stride, self.padding, self.dilation, false)
    }
}

impl Pool {
    /// How the window slides over an input of this shape.
    pub fn window(&self, input: Shape) -> Result<Window, String> {
        let [top, bottom, left, right] = self.padding;
        // PyTorch's rule; it also keeps every window over at least one value.
        if top.max(bottom) > self.kernel[0] / 2 || left.max(right) > self.kernel[1] / 2 {
            return Err(format!("padding {:?} is more than half the window {:?}", self.padding, self.kernel));
        }
        window(input, self.kernel, self.stride, self.padding, [1, 1], self.ceil_mode)
    }
}

/// The product of `extents`, or the greatest number where it is greater.
pub(crate) fn count(extents: &[usize]) -> u64 {
    extents.iter().fold(1, |product: u64, &extent| product.saturating_mul(extent as u64))
}

fn padded(h: usize, w: usize, [top, bottom, left, right]: [usize; 4]) -> Result<[usize; 2], String> {
    let rows = h.checked_add(top).and_then(|h| h.checked_add(bottom));
    let columns = w.checked_add(left).and_then(|w| w.checked_add(right));
    match (rows, columns) {
        (Some(h), Some(w)) if h <= MAX_VALUES && w <= MAX_VALUES => Ok([h, w]),
        _ => Err("padding is out of range".into()),
    }
}

fn window(
    [n, in_h, in_w, _]: Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
    dilation: [usize; 2],
    ceil_mode: bool,
) -> Result<Window, String> {
    if [kernel, stride, dilation].iter().flatten().any(|&extent| extent == 0 || extent > 4096) {
        return Err(format!(
            "kernel {kernel:?}, stride {stride:?}, dilation {dilation:?}: each must be 1..=4096"
        ));
    }
    let [padded_h, padded_w] = padded(in_h, in_w, padding)?;
    let out = |padded: usize, axis: usize, extent: usize, before: usize| -> Result<usize, String> {
        let reach = dilation[axis] * (kernel[axis] - 1) + 1;
        let Some(room) = padded.checked_sub(reach) else {
            return Err(format!(
                "a kernel reaching over {reach} does not fit into {padded} (padding included)"
            ));
        };
        let mut out = room / stride[axis] + 1;
        // A hanging last window must still start over the input or its leading padding (PyTorch's rule).
        if ceil_mode && !room.is_multiple_of(stride[axis]) && out * stride[axis] < extent + before {
            out += 1;
        }
        Ok(out)
    };
    Ok(Window {
        n,
        in_h,
        in_w,
        out_h: out(padded_h, 0, in_h, padding[0])?,
        out_w: out(padded_w, 1, in_w, padding[2])?,
        kernel_h: kernel[0],
        kernel_w: kernel[1],
        stride_h: stride[0],
        stride_w: stride[1],
        dilation_h: dilation[0],
        dilation_w: dilation[1],
        pad_top: padding[0],
        pad_bottom: padding[1],
        pad_left: padding[2],
        pad_right: padding[3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: Shape = [2, 8, 6, 12];
    const VECTOR: Shape = [2, 1, 1, 12];
    const HUGE: usize = usize::MAX;

    fn conv(change: impl FnOnce(&mut Conv)) -> Op {
        let mut conv = Conv::new(24, 3, 1);
        change(&mut conv);
        Op::Conv(conv)
    }

    fn pool(change: impl FnOnce(&mut Pool)) -> Op {
        let mut pool = Pool { kernel: [3, 2], stride: [2, 2], padding: [1, 1, 1, 1], ceil_mode: false };
        change(&mut pool);
        Op::MaxPool(pool)
    }

    #[test]
    fn shapes_follow_the_rules() {
        let dilated = |c: &mut Conv| (c.dilation, c.padding) = ([3, 2], [0, 1, 2, 3]);
        for (op, inputs, shape) in [
            (Op::Input { shape: MAP }, &[][..], MAP),
            (conv(|_| ()), &[MAP], [2, 6, 4, 24]),
            (conv(|c| c.stride = [2, 3]), &[MAP], [2, 3, 2, 24]),
            (conv(dilated), &[MAP], [2, 3, 7, 24]),
            (conv(|c| (c.groups, c.kernel) = (12, [8, 6])), &[MAP], [2, 1, 1, 24]),
            (pool(|_| ()), &[MAP], [2, 4, 4, 12]),
            (pool(|p| p.ceil_mode = true), &[MAP], [2, 5, 4, 12]),
            (Op::Add, &[MAP, MAP], MAP),
            (Op::Mul, &[MAP, VECTOR], MAP),
            (Op::Concat, &[MAP, MAP, [2, 8, 6, 1]], [2, 8, 6, 25]),
            (Op::Slice { start: 3, len: 9 }, &[MAP], [2, 8, 6, 9]),
            (Op::ChannelShuffle { groups: 4 }, &[MAP], MAP),
            (Op::Pad { padding: [1, 2, 3, 4] }, &[MAP], [2, 11, 13, 12]),
            (Op::GlobalAvgPool, &[MAP], VECTOR),
            (Op::Flatten, &[MAP], [2, 1, 1, 576]),
            (Op::Linear { out_features: 5, bias: true }, &[VECTOR], [2, 1, 1, 5]),
            (Op::Dropout { rate: 1.0 }, &[MAP], MAP),
        ] {
            assert_eq!(op.output(inputs), Ok(shape), "{op:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let one = |op: Op, part: &'static str| (op, vec![MAP], part);
        for (op, inputs, part) in [
            (Op::Add, vec![MAP], "takes 2 inputs, got 1"),
            (Op::Input { shape: MAP }, vec![MAP], "takes 0 inputs, got 1"),
            (Op::Softmax, vec![], "takes 1 inputs, got 0"),
            (Op::Concat, vec![], "takes at least one input"),
            (Op::Add, vec![MAP, VECTOR], "cannot add [2, 8, 6, 12] and [2, 1, 1, 12]"),
            (Op::Mul, vec![VECTOR, MAP], "cannot multiply [2, 1, 1, 12] by [2, 8, 6, 12]"),
            (Op::Mul, vec![MAP, [1, 1, 1, 12]], "cannot multiply"),
            (Op::Concat, vec![MAP, [2, 8, 5, 12]], "cannot join [2, 8, 6, 12] and [2, 8, 5, 12]"),
            (Op::Concat, vec![[1, 1, 1, MAX_VALUES]; 2], "outside 1..="),
            one(conv(|c| c.groups = 0), "0 groups must divide 12 input and 24 output channels"),
            one(conv(|c| c.groups = 5), "5 groups must divide 12 input"),
            one(conv(|c| c.groups = 8), "8 groups must divide 12 input"),
            one(
                conv(|c| (c.groups, c.out_channels) = (12, 30)),
                "12 groups must divide 12 input and 30 output",
            ),
            one(conv(|c| c.kernel = [0, 3]), "each must be 1..=4096"),
            one(conv(|c| c.stride = [1, 0]), "each must be 1..=4096"),
            one(conv(|c| c.dilation = [4097, 1]), "each must be 1..=4096"),
            one(conv(|c| c.kernel = [HUGE, HUGE]), "each must be 1..=4096"),
            one(conv(|c| c.kernel = [9, 3]), "a kernel reaching over 9 does not fit into 8"),
            one(conv(|c| c.dilation = [1, 3]), "a kernel reaching over 7 does not fit into 6"),
            one(conv(|c| c.padding = [HUGE, 1, 0, 0]), "padding is out of range"),
            one(conv(|c| c.padding = [MAX_VALUES; 4]), "padding is out of range"),
            one(conv(|c| c.padding = [100_000; 4]), "outside 1..="),
            one(conv(|c| c.out_channels = 0), "outside 1..="),
            one(conv(|c| c.out_channels = HUGE), "outside 1..="),
            one(
                pool(|p| p.padding = [2, 0, 0, 0]),
                "padding [2, 0, 0, 0] is more than half the window [3, 2]",
            ),
            one(pool(|p| p.padding = [0, 0, 0, 2]), "is more than half the window"),
            one(pool(|p| p.kernel = [12, 2]), "a kernel reaching over 12 does not fit into 10"),
            one(pool(|p| p.stride = [0, 1]), "each must be 1..=4096"),
            one(Op::BatchNorm { eps: f32::NAN }, "eps is NaN, expected a small positive number"),
            one(Op::BatchNorm { eps: -1e-3 }, "eps is -0.001"),
            one(Op::Act(Act::LeakyRelu(f32::INFINITY)), "the slope is inf, expected a finite number"),
            one(Op::Dropout { rate: f32::NAN }, "the rate is NaN, expected 0 to 1"),
            one(Op::Slice { start: 12, len: 1 }, "channels 12..12+1 of 12"),
            one(Op::Slice { start: HUGE, len: 2 }, "of 12"),
            one(Op::Slice { start: 3, len: 0 }, "outside 1..="),
            one(Op::ChannelShuffle { groups: 0 }, "0 groups do not divide 12 channels"),
            one(Op::ChannelShuffle { groups: 5 }, "5 groups do not divide 12 channels"),
            one(Op::Pad { padding: [0, HUGE, 0, 0] }, "padding is out of range"),
            one(Op::Pad { padding: [1 << 20; 4] }, "outside 1..="),
            one(Op::Linear { out_features: 3, bias: false }, "takes a vector [N,1,1,C], got [2, 8, 6, 12]"),
            (Op::Linear { out_features: 0, bias: false }, vec![VECTOR], "outside 1..="),
            (Op::Linear { out_features: HUGE, bias: false }, vec![VECTOR], "outside 1..="),
            (Op::Input { shape: [1, 0, 8, 3] }, vec![], "outside 1..="),
            (Op::Input { shape: [HUGE, 2, 1, 1] }, vec![], "outside 1..="),
            (Op::Input { shape: [1, 1, 2, 1 << 28] }, vec![], "outside 1..="),
        ] {
            let message = op.output(&inputs).expect_err(&format!("{op:?} fits {inputs:?}"));
            assert!(message.contains(part), "{op:?}: `{message}` does not say `{part}`");
        }
    }

    #[test]
    fn every_ceiling_window_holds_a_value() {
        // Each digit of the number, in a base of its own, is one of the settings.
        for number in 0..5 * 4 * 5 * 3 * 3 {
            let (extent, kernel, stride) = (1 + number % 5, 1 + number / 5 % 4, 1 + number / 20 % 5);
            let (before, after) = (number / 100 % 3, number / 300);
            let padding = [before, after, 0, 0];
            let pool = Pool { kernel: [kernel, 1], stride: [stride, 1], padding, ceil_mode: true };
            let Ok(window) = pool.window([1, extent, 1, 1]) else { continue };
            for row in 0..window.out_h {
                let from = (row * stride) as isize - before as isize;
                assert!(
                    from < extent as isize && from + kernel as isize > 0,
                    "{pool:?} over {extent}, row {row}"
                );
            }
        }
    }

    #[test]
    fn costs_stop_at_the_greatest_number() {
        let op = conv(|c| (c.kernel, c.groups) = ([HUGE, HUGE], 0));
        assert_eq!(op.macs(MAP, [HUGE; 4]), u64::MAX);
        assert_eq!(Op::Linear { out_features: HUGE, bias: true }.macs([HUGE; 4], [HUGE; 4]), u64::MAX);
        assert_eq!(conv(|c| c.groups = 4).macs(MAP, [2, 6, 4, 24]), 2 * 6 * 4 * 24 * 9 * 3);
        assert_eq!(count(&[HUGE, HUGE, 0]), 0);
        assert_eq!(count(&[]), 1);
    }
}
