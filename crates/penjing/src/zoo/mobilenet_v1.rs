//! MobileNetV1 (arXiv 1704.04861): the textbook depthwise-separable network.

use penjing_runtime::{Act, Error, graph::Graph, pixels::Filter};

use super::{
    Arch, Config, Form,
    blocks::{Padding, scaled},
    forms, keys,
};

/// A depthwise-separable convolution: a 3×3 filter per channel, then 1×1, each with BatchNorm and activation.
struct Block {
    channels: usize,
    stride: usize,
}

const fn block(channels: usize, stride: usize) -> Block {
    Block { channels, stride }
}

/// Table 1 of the paper; its last stride is a misprint there, and 1 in the authors' code.
const BLOCKS: [Block; 13] = [
    block(64, 1),
    block(128, 2),
    block(128, 1),
    block(256, 2),
    block(256, 1),
    block(512, 2),
    block(512, 1),
    block(512, 1),
    block(512, 1),
    block(512, 1),
    block(512, 1),
    block(1024, 2),
    block(1024, 1),
];

/// Blocks between two strides: timm's stages.
const STAGES: [usize; 5] = [1, 2, 2, 6, 2];

pub(super) const ARCH: Arch = Arch {
    name: "mobilenet_v1",
    about: "MobileNetV1",
    size: 224,
    top1: 70.9,
    widths: &[],
    forms: &[
        Form {
            of: "transformers",
            padding: Padding::Same,
            bn_eps: 1e-3,
            look: forms::inception(Filter::Bilinear),
            key: torch_key,
        },
        forms::timm(|parameter| keys::timm(parameter, &STAGES, BLOCKS.len())),
    ],
    graph,
};

fn graph(config: &Config) -> Result<Graph, Error> {
    let (mut net, image) = config.begin(Act::Relu6)?;
    let mut channels = scaled(32, config.width);
    let mut x = net.conv_bn_act("stem", image, channels, 3, 2, 1)?;
    for (index, block) in BLOCKS.iter().enumerate() {
        x = net.conv_bn_act(&format!("blocks.{index}.depthwise"), x, channels, 3, block.stride, channels)?;
        channels = scaled(block.channels, config.width);
        x = net.conv_bn_act(&format!("blocks.{index}.pointwise"), x, channels, 1, 1, 1)?;
    }
    net.classifier(x, 0.001, config.classes)
}

/// Keys of the authors' weights as Hugging Face's `transformers` holds them: depthwise and pointwise layers take turns.
fn torch_key(parameter: &str) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let (layer, part) = layer.strip_suffix(".bn").map_or((layer, "convolution"), |l| (l, "normalization"));
    let layer = match layer {
        "classifier" => return Some(format!("classifier.{suffix}")),
        "stem" => "conv_stem".to_string(),
        _ => {
            let (block, part) = keys::block(layer)?;
            match part {
                "depthwise" => format!("layer.{}", 2 * block),
                "pointwise" => format!("layer.{}", 2 * block + 1),
                _ => return None,
            }
        }
    };
    Some(format!("mobilenet_v1.{layer}.{part}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::torch_key;

    #[test]
    fn keys_are_those_of_transformers() {
        // `_build_tf_to_pytorch_map` in `modeling_mobilenet_v1.py`.
        for (ours, theirs) in [
            ("stem.weight", "mobilenet_v1.conv_stem.convolution.weight"),
            ("stem.bn.gamma", "mobilenet_v1.conv_stem.normalization.weight"),
            ("blocks.0.depthwise.weight", "mobilenet_v1.layer.0.convolution.weight"),
            ("blocks.0.pointwise.bn.mean", "mobilenet_v1.layer.1.normalization.running_mean"),
            ("blocks.12.depthwise.bn.var", "mobilenet_v1.layer.24.normalization.running_var"),
            ("blocks.12.pointwise.weight", "mobilenet_v1.layer.25.convolution.weight"),
            ("classifier.bias", "classifier.bias"),
        ] {
            assert_eq!(torch_key(ours).as_deref(), Some(theirs));
        }
        assert_eq!(torch_key("head.weight"), None);
    }
}
