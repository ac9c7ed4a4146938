//! Building blocks of light networks, on top of [`Graph`].

use penjing_runtime::{
    Act, Error,
    graph::{Graph, NodeId},
    op::{Conv, Op, Pool},
};

/// How maps are padded so that stride 1 keeps their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// TensorFlow's "SAME": just enough for ⌈size / stride⌉ outputs; the odd zero goes to the bottom right.
    Same,
    /// ⌊kernel / 2⌋ on every side, as in PyTorch's networks.
    Symmetric,
    /// None: the map shrinks.
    None,
}

impl Padding {
    /// Top, bottom, left, right for a map of `[height, width]`.
    pub fn around(self, [height, width]: [usize; 2], kernel: usize, stride: usize) -> [usize; 4] {
        let axis = |extent: usize| match self {
            Padding::Symmetric => [kernel / 2; 2],
            Padding::None => [0; 2],
            Padding::Same => {
                let covered = (extent.div_ceil(stride) - 1) * stride + kernel;
                let total = covered.saturating_sub(extent);
                [total / 2, total - total / 2]
            }
        };
        let ([top, bottom], [left, right]) = (axis(height), axis(width));
        [top, bottom, left, right]
    }
}

/// A row of a MobileNetV2-like table: blocks of one width.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    expand: usize,
    channels: usize,
    /// Number of blocks.
    pub repeats: usize,
    stride: usize,
    kernel: usize,
}

/// Expansion factor, output channels, repeats, stride of the first block, kernel size.
pub const fn stage(expand: usize, channels: usize, repeats: usize, stride: usize, kernel: usize) -> Stage {
    Stage { expand, channels, repeats, stride, kernel }
}

/// The inverted residual of MobileNetV3 (arXiv 1905.02244): a [`Stage`]'s block with each number of its own.
#[derive(Clone, Copy, Debug)]
pub struct Bottleneck {
    /// Channels of the depthwise convolution; there is no expansion where they are the input's.
    pub hidden: usize,
    /// Output channels.
    pub channels: usize,
    /// Kernel height and width.
    pub kernel: usize,
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// Whether squeeze-and-excitation follows the depthwise convolution.
    pub squeeze: bool,
}

/// A graph under construction, with what its family of layers shares.
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    /// Padding of every convolution.
    pub padding: Padding,
    /// Epsilon of every BatchNorm.
    pub bn_eps: f32,
    /// Activation of every layer but the linear ones.
    pub act: Act,
}

impl Builder {
    /// Begins with an input `[1, height, width, channels]`.
    ///
    /// # Errors
    /// If the input has no values or too many.
    pub fn new(
        [height, width, channels]: [usize; 3],
        padding: Padding,
        bn_eps: f32,
        act: Act,
    ) -> Result<(Self, NodeId), Error> {
        let mut graph = Graph::default();
        let image = graph.push("image", Op::Input { shape: [1, height, width, channels] }, &[])?;
        Ok((Builder { graph, padding, bn_eps, act }, image))
    }

    /// Channels of a node's result.
    pub fn channels(&self, x: NodeId) -> usize {
        self.graph.shape(x)[3]
    }

    /// A bare convolution with this family's padding.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn conv(
        &mut self,
        name: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
        bias: bool,
    ) -> Result<NodeId, Error> {
        let [_, height, width, _] = self.graph.shape(x);
        let padding = self.padding.around([height, width], kernel, stride);
        let conv = Conv { padding, groups, bias, ..Conv::new(out_channels, kernel, stride) };
        self.graph.push(name, Op::Conv(conv), &[x])
    }

    /// BatchNorm `name.bn`.
    ///
    /// # Errors
    /// If there is one of this name.
    pub fn batch_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId, Error> {
        self.graph.push(&format!("{name}.bn"), Op::BatchNorm { eps: self.bn_eps }, &[x])
    }

    /// Activation `name.act`.
    ///
    /// # Errors
    /// If there is one of this name.
    pub fn act(&mut self, name: &str, x: NodeId) -> Result<NodeId, Error> {
        self.graph.push(&format!("{name}.act"), Op::Act(self.act), &[x])
    }

    /// Convolution, BatchNorm, activation.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn conv_bn_act(
        &mut self,
        name: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Result<NodeId, Error> {
        let x = self.conv(name, x, out_channels, kernel, stride, groups, false)?;
        let x = self.batch_norm(name, x)?;
        self.act(name, x)
    }

    /// Convolution and BatchNorm without an activation: the linear bottleneck.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn conv_bn(
        &mut self,
        name: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Result<NodeId, Error> {
        let x = self.conv(name, x, out_channels, kernel, stride, groups, false)?;
        self.batch_norm(name, x)
    }

    /// Greatest value of a window of `kernel`², with zeros of this family's padding or, with `ceil_mode`, none and a last window
    /// that may hang over the edge.
    ///
    /// # Errors
    /// When the window does not fit the map.
    pub fn max_pool(
        &mut self,
        name: &str,
        x: NodeId,
        kernel: usize,
        stride: usize,
        ceil_mode: bool,
    ) -> Result<NodeId, Error> {
        let [_, height, width, _] = self.graph.shape(x);
        let padding = if ceil_mode { [0; 4] } else { self.padding.around([height, width], kernel, stride) };
        let pool = Pool { kernel: [kernel; 2], stride: [stride; 2], padding, ceil_mode };
        self.graph.push(name, Op::MaxPool(pool), &[x])
    }

    /// The textbook depthwise-separable convolution (MobileNet, arXiv 1704.04861, without BatchNorm): a filter per
    /// channel with bias, then a 1×1 convolution with bias. Layers `name.depthwise` and `name.pointwise`.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn separable(
        &mut self,
        name: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<NodeId, Error> {
        let channels = self.channels(x);
        let x = self.conv(&format!("{name}.depthwise"), x, channels, kernel, stride, channels, true)?;
        self.conv(&format!("{name}.pointwise"), x, out_channels, 1, 1, 1, true)
    }

    /// The inverted residual of MobileNetV2 (arXiv 1801.04381): expand, depthwise, project, and the input added where
    /// the shape stays.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn inverted_residual(
        &mut self,
        name: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        expand: usize,
    ) -> Result<NodeId, Error> {
        let hidden = self.channels(x) * expand;
        let block = Bottleneck { hidden, channels: out_channels, kernel, stride, squeeze: false };
        self.bottleneck(name, x, block)
    }

    /// The inverted residual with each number of its own, and perhaps squeeze-and-excitation.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn bottleneck(&mut self, name: &str, x: NodeId, block: Bottleneck) -> Result<NodeId, Error> {
        let Bottleneck { hidden, channels, kernel, stride, squeeze } = block;
        let mut y = x;
        if hidden != self.channels(x) {
            y = self.conv_bn_act(&format!("{name}.expand"), y, hidden, 1, 1, 1)?;
        }
        y = self.conv_bn_act(&format!("{name}.depthwise"), y, hidden, kernel, stride, hidden)?;
        if squeeze {
            y = self.squeeze_excite(&format!("{name}.squeeze"), y, scaled(hidden, 0.25))?;
        }
        y = self.conv_bn(&format!("{name}.project"), y, channels, 1, 1, 1)?;
        self.add_where_it_fits(name, x, y, stride)
    }

    /// `x` added to what a block made of it, where the shape stays.
    fn add_where_it_fits(
        &mut self,
        name: &str,
        x: NodeId,
        y: NodeId,
        stride: usize,
    ) -> Result<NodeId, Error> {
        if stride != 1 || self.channels(x) != self.channels(y) {
            return Ok(y);
        }
        self.add(name, x, y)
    }

    /// Sum `name.add`.
    ///
    /// # Errors
    /// If the two have not one shape.
    pub fn add(&mut self, name: &str, x: NodeId, y: NodeId) -> Result<NodeId, Error> {
        self.graph.push(&format!("{name}.add"), Op::Add, &[x, y])
    }

    /// Squeeze-and-excitation (arXiv 1709.01507) with MobileNetV3's gate: the map's mean through `reduced` channels and ReLU
    /// to a factor for each channel, hard-sigmoid.
    ///
    /// # Errors
    /// If `reduced` is 0.
    pub fn squeeze_excite(&mut self, name: &str, x: NodeId, reduced: usize) -> Result<NodeId, Error> {
        let channels = self.channels(x);
        let mut gate = self.graph.push(&format!("{name}.pool"), Op::GlobalAvgPool, &[x])?;
        gate = self.conv(&format!("{name}.reduce"), gate, reduced, 1, 1, 1, true)?;
        gate = self.graph.push(&format!("{name}.reduce.act"), Op::Act(Act::Relu), &[gate])?;
        gate = self.conv(&format!("{name}.expand"), gate, channels, 1, 1, 1, true)?;
        gate = self.graph.push(&format!("{name}.gate"), Op::Act(Act::HSigmoid), &[gate])?;
        self.graph.push(name, Op::Mul, &[x, gate])
    }

    /// The universal inverted bottleneck of MobileNetV4 (arXiv 2404.10518): perhaps a depthwise convolution at the `start`, an
    /// expansion, perhaps a depthwise convolution in the `middle`, a projection. A kernel of 0 leaves a convolution out; the
    /// last of the two has the stride.
    ///
    /// # Errors
    /// When a kernel does not fit the map, or no convolution can have the stride.
    pub fn universal(
        &mut self,
        name: &str,
        x: NodeId,
        channels: usize,
        [start, middle]: [usize; 2],
        stride: usize,
        expand: usize,
    ) -> Result<NodeId, Error> {
        if stride != 1 && start == 0 && middle == 0 {
            return Err(Error::layer(name, "a block without a depthwise convolution has stride 1"));
        }
        let (mut y, narrow) = (x, self.channels(x));
        let hidden = scaled(narrow * expand, 1.0);
        if start != 0 {
            let stride = if middle == 0 { stride } else { 1 };
            y = self.conv_bn(&format!("{name}.start"), y, narrow, start, stride, narrow)?;
        }
        y = self.conv_bn_act(&format!("{name}.expand"), y, hidden, 1, 1, 1)?;
        if middle != 0 {
            y = self.conv_bn_act(&format!("{name}.depthwise"), y, hidden, middle, stride, hidden)?;
        }
        y = self.conv_bn(&format!("{name}.project"), y, channels, 1, 1, 1)?;
        self.add_where_it_fits(name, x, y, stride)
    }

    /// The fused inverted bottleneck (MobileNetV4, EfficientNetV2): one convolution expands and filters, then a projection.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn fused(
        &mut self,
        name: &str,
        x: NodeId,
        channels: usize,
        kernel: usize,
        stride: usize,
        expand: usize,
    ) -> Result<NodeId, Error> {
        let hidden = scaled(self.channels(x) * expand, 1.0);
        let y = self.conv_bn_act(&format!("{name}.expand"), x, hidden, kernel, stride, 1)?;
        let y = self.conv_bn(&format!("{name}.project"), y, channels, 1, 1, 1)?;
        self.add_where_it_fits(name, x, y, stride)
    }

    /// The unit of ShuffleNetV2 (arXiv 1807.11164): half of the channels stay as they are, the others go through three
    /// convolutions; with stride 2 all channels go through both branches. The halves are joined and shuffled.
    ///
    /// # Errors
    /// When the kernel does not fit the map, or channels cannot be halved.
    pub fn shuffle_unit(
        &mut self,
        name: &str,
        x: NodeId,
        channels: usize,
        stride: usize,
    ) -> Result<NodeId, Error> {
        let (whole, half) = (self.channels(x), channels / 2);
        let (kept, taken) = if stride == 1 {
            let slice = |start| Op::Slice { start, len: half };
            let kept = self.graph.push(&format!("{name}.kept"), slice(0), &[x])?;
            (kept, self.graph.push(&format!("{name}.taken"), slice(half), &[x])?)
        } else {
            let kept = self.conv_bn(&format!("{name}.kept.depthwise"), x, whole, 3, stride, whole)?;
            (self.conv_bn_act(&format!("{name}.kept.pointwise"), kept, half, 1, 1, 1)?, x)
        };
        let mut y = self.conv_bn_act(&format!("{name}.first"), taken, half, 1, 1, 1)?;
        y = self.conv_bn(&format!("{name}.depthwise"), y, half, 3, stride, half)?;
        y = self.conv_bn_act(&format!("{name}.last"), y, half, 1, 1, 1)?;
        let joined = self.graph.push(&format!("{name}.join"), Op::Concat, &[kept, y])?;
        self.graph.push(&format!("{name}.shuffle"), Op::ChannelShuffle { groups: 2 }, &[joined])
    }

    /// The fire module of SqueezeNet (arXiv 1602.07360): `squeeze` channels by 1×1, then `expand` channels by 1×1 beside as
    /// many by 3×3. With biases, without BatchNorm.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn fire(&mut self, name: &str, x: NodeId, squeeze: usize, expand: usize) -> Result<NodeId, Error> {
        let x = self.conv_act(&format!("{name}.squeeze"), x, squeeze, 1, 1)?;
        let one = self.conv_act(&format!("{name}.expand1"), x, expand, 1, 1)?;
        let three = self.conv_act(&format!("{name}.expand3"), x, expand, 3, 1)?;
        self.graph.push(&format!("{name}.join"), Op::Concat, &[one, three])
    }

    /// Convolution with bias, activation.
    ///
    /// # Errors
    /// When the kernel does not fit the map.
    pub fn conv_act(
        &mut self,
        name: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<NodeId, Error> {
        let x = self.conv(name, x, out_channels, kernel, stride, 1, true)?;
        self.act(name, x)
    }

    /// The block of ResNet (arXiv 1512.03385): `convs` (channels, kernel, stride of each) with BatchNorm, the input added, which
    /// goes through a 1×1 convolution of the block's stride where the shape changes, then the activation.
    ///
    /// # Errors
    /// When a kernel does not fit the map.
    pub fn residual(&mut self, name: &str, x: NodeId, convs: &[[usize; 3]]) -> Result<NodeId, Error> {
        let mut y = x;
        for (index, &[channels, kernel, stride]) in convs.iter().enumerate() {
            let conv = format!("{name}.conv{}", index + 1);
            y = if index + 1 < convs.len() {
                self.conv_bn_act(&conv, y, channels, kernel, stride, 1)?
            } else {
                self.conv_bn(&conv, y, channels, kernel, stride, 1)?
            };
        }
        let stride = convs.iter().map(|[_, _, stride]| stride).product();
        let channels = self.channels(y);
        let mut around = x;
        if stride != 1 || self.channels(x) != channels {
            around = self.conv_bn(&format!("{name}.downsample"), x, channels, 1, stride, 1)?;
        }
        let sum = self.add(name, y, around)?;
        self.act(name, sum)
    }

    /// The inverted residuals of a table, its channels times `width`: blocks `blocks.0`, `blocks.1` and so on.
    ///
    /// # Errors
    /// When a kernel does not fit its map.
    pub fn stages(&mut self, mut x: NodeId, stages: &[Stage], width: f64) -> Result<NodeId, Error> {
        let mut block = 0;
        for stage in stages {
            for repeat in 0..stage.repeats {
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let (name, channels) = (format!("blocks.{block}"), scaled(stage.channels, width));
                x = self.inverted_residual(&name, x, channels, stage.kernel, stride, stage.expand)?;
                block += 1;
            }
        }
        Ok(x)
    }

    /// Mean over the map.
    ///
    /// # Errors
    /// Where the graph is full.
    pub fn pool(&mut self, x: NodeId) -> Result<NodeId, Error> {
        self.graph.push("pool", Op::GlobalAvgPool, &[x])
    }

    /// Linear layer with bias, activation.
    ///
    /// # Errors
    /// If `x` is no vector.
    pub fn linear_act(&mut self, name: &str, x: NodeId, out_features: usize) -> Result<NodeId, Error> {
        let x = self.graph.push(name, Op::Linear { out_features, bias: true }, &[x])?;
        self.act(name, x)
    }

    /// Global mean, dropout, linear layer: from a map to logits.
    ///
    /// # Errors
    /// If there are no classes.
    pub fn classifier(mut self, x: NodeId, dropout: f32, classes: usize) -> Result<Graph, Error> {
        let x = self.pool(x)?;
        self.logits(x, dropout, classes)
    }

    /// Dropout, where there is any, and linear layer: from a vector to logits.
    ///
    /// # Errors
    /// If there are no classes.
    pub fn logits(mut self, mut x: NodeId, dropout: f32, classes: usize) -> Result<Graph, Error> {
        if dropout > 0.0 {
            x = self.dropout(x, dropout)?;
        }
        self.graph.push("classifier", Op::Linear { out_features: classes, bias: true }, &[x])?;
        Ok(self.graph)
    }

    /// Random zeroing while training.
    ///
    /// # Errors
    /// For a rate outside 0..=1.
    pub fn dropout(&mut self, x: NodeId, rate: f32) -> Result<NodeId, Error> {
        self.graph.push("dropout", Op::Dropout { rate }, &[x])
    }

    /// The graph as it stands.
    pub fn finish(self) -> Graph {
        self.graph
    }
}

/// The nearest multiple of 8 to `channels · width`, never below 90 % of it: the rule of the MobileNets.
pub fn scaled(channels: usize, width: f64) -> usize {
    let wanted = channels as f64 * width;
    let rounded = (((wanted + 4.0) / 8.0) as usize * 8).max(8);
    if (rounded as f64) < 0.9 * wanted { rounded + 8 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_is_tensorflows() {
        // Checked against tf.nn.conv2d's documented rule for (size, kernel, stride).
        assert_eq!(Padding::Same.around([224, 224], 3, 2), [0, 1, 0, 1]);
        assert_eq!(Padding::Same.around([7, 7], 5, 1), [2, 2, 2, 2]);
        assert_eq!(Padding::Same.around([15, 14], 5, 2), [2, 2, 1, 2]);
        assert_eq!(Padding::Same.around([1, 1], 1, 1), [0; 4]);
    }

    #[test]
    fn channels_are_rounded_as_published() {
        assert_eq!(scaled(32, 0.35), 16);
        assert_eq!(scaled(24, 0.5), 16);
        assert_eq!(scaled(16, 0.35), 8);
        assert_eq!(scaled(320, 1.4), 448);
    }
}
