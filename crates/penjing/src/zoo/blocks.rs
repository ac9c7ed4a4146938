//! Building blocks of light networks, on top of [`Graph`].

use penjing_runtime::{
    Act, Error,
    graph::{Graph, NodeId},
    op::{Conv, Op},
};

/// How maps are padded so that stride 1 keeps their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// TensorFlow's "SAME": just enough for ⌈size / stride⌉ outputs; the odd zero goes to the bottom right.
    Same,
    /// ⌊kernel / 2⌋ on every side, as in PyTorch's networks.
    Symmetric,
}

impl Padding {
    /// Top, bottom, left, right for a map of `[height, width]`.
    pub fn around(self, [height, width]: [usize; 2], kernel: usize, stride: usize) -> [usize; 4] {
        let axis = |extent: usize| match self {
            Padding::Symmetric => [kernel / 2; 2],
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
    repeats: usize,
    stride: usize,
    kernel: usize,
}

/// Expansion factor, output channels, repeats, stride of the first block, kernel size.
pub const fn stage(expand: usize, channels: usize, repeats: usize, stride: usize, kernel: usize) -> Stage {
    Stage { expand, channels, repeats, stride, kernel }
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

    fn channels(&self, x: NodeId) -> usize {
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

    fn batch_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId, Error> {
        self.graph.push(&format!("{name}.bn"), Op::BatchNorm { eps: self.bn_eps }, &[x])
    }

    fn act(&mut self, name: &str, x: NodeId) -> Result<NodeId, Error> {
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
    ) -> Result<NodeId, Error> {
        let x = self.conv(name, x, out_channels, kernel, 1, 1, false)?;
        self.batch_norm(name, x)
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
        let channels = self.channels(x);
        let hidden = channels * expand;
        let mut y = x;
        if expand != 1 {
            y = self.conv_bn_act(&format!("{name}.expand"), y, hidden, 1, 1, 1)?;
        }
        y = self.conv_bn_act(&format!("{name}.depthwise"), y, hidden, kernel, stride, hidden)?;
        y = self.conv_bn(&format!("{name}.project"), y, out_channels, 1)?;
        if stride == 1 && channels == out_channels {
            y = self.graph.push(&format!("{name}.add"), Op::Add, &[x, y])?;
        }
        Ok(y)
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

    /// Global mean, dropout, linear layer: from a map to logits.
    ///
    /// # Errors
    /// If there are no classes.
    pub fn classifier(mut self, x: NodeId, dropout: f32, classes: usize) -> Result<Graph, Error> {
        let x = self.graph.push("pool", Op::GlobalAvgPool, &[x])?;
        let x = self.graph.push("dropout", Op::Dropout { rate: dropout }, &[x])?;
        self.graph.push("classifier", Op::Linear { out_features: classes, bias: true }, &[x])?;
        Ok(self.graph)
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
