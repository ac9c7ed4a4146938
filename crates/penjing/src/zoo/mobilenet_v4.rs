//! MobileNetV4 (arXiv 2404.10518), the convolutional ones.

use penjing_runtime::{Act, Error, graph::Graph};

use super::{Arch, Config, Form, blocks::scaled, forms, keys};

/// A block of the paper's tables 11 to 13.
enum Row {
    /// Convolution: kernel, channels, stride.
    Conv(usize, usize, usize),
    /// Fused inverted bottleneck: expansion by a convolution of this kernel, then projection; kernel, expansion, channels, stride.
    Fused(usize, usize, usize, usize),
    /// Universal inverted bottleneck: kernels of the two depthwise convolutions (0: none), expansion, channels, stride.
    Universal([usize; 2], usize, usize, usize),
}

use Row::{Conv, Fused, Universal};

const SMALL: &[&[Row]] = &[
    &[Conv(3, 32, 2), Conv(1, 32, 1)],
    &[Conv(3, 96, 2), Conv(1, 64, 1)],
    &[
        Universal([5, 5], 3, 96, 2),
        Universal([0, 3], 2, 96, 1),
        Universal([0, 3], 2, 96, 1),
        Universal([0, 3], 2, 96, 1),
        Universal([0, 3], 2, 96, 1),
        Universal([3, 0], 4, 96, 1),
    ],
    &[
        Universal([3, 3], 6, 128, 2),
        Universal([5, 5], 4, 128, 1),
        Universal([0, 5], 4, 128, 1),
        Universal([0, 5], 3, 128, 1),
        Universal([0, 3], 4, 128, 1),
        Universal([0, 3], 4, 128, 1),
    ],
    &[Conv(1, 960, 1)],
];
const MEDIUM: &[&[Row]] = &[
    &[Fused(3, 4, 48, 2)],
    &[Universal([3, 5], 4, 80, 2), Universal([3, 3], 2, 80, 1)],
    &[
        Universal([3, 5], 6, 160, 2),
        Universal([3, 3], 4, 160, 1),
        Universal([3, 3], 4, 160, 1),
        Universal([3, 5], 4, 160, 1),
        Universal([3, 3], 4, 160, 1),
        Universal([3, 0], 4, 160, 1),
        Universal([0, 0], 2, 160, 1),
        Universal([3, 0], 4, 160, 1),
    ],
    &[
        Universal([5, 5], 6, 256, 2),
        Universal([5, 5], 4, 256, 1),
        Universal([3, 5], 4, 256, 1),
        Universal([3, 5], 4, 256, 1),
        Universal([0, 0], 4, 256, 1),
        Universal([3, 0], 4, 256, 1),
        Universal([3, 5], 2, 256, 1),
        Universal([5, 5], 4, 256, 1),
        Universal([0, 0], 4, 256, 1),
        Universal([0, 0], 4, 256, 1),
        Universal([5, 0], 2, 256, 1),
    ],
    &[Conv(1, 960, 1)],
];

pub(super) const SMALL_ARCH: Arch = Arch {
    name: "mobilenet_v4_conv_small",
    about: "MobileNetV4-Conv-Small",
    size: 224,
    top1: 73.8,
    widths: &[],
    forms: &forms_small(),
    graph: |config| graph(config, SMALL),
};
pub(super) const MEDIUM_ARCH: Arch = Arch {
    name: "mobilenet_v4_conv_medium",
    about: "MobileNetV4-Conv-Medium",
    size: 256,
    top1: 79.9,
    widths: &[],
    forms: &forms_medium(),
    graph: |config| graph(config, MEDIUM),
};

const fn forms_small() -> [Form; 1] {
    [forms::timm(|parameter| key(parameter, SMALL))]
}

const fn forms_medium() -> [Form; 1] {
    [forms::timm(|parameter| key(parameter, MEDIUM))]
}

/// The last layer keeps its width, and a narrow network its stem, as in timm.
fn graph(config: &Config, stages: &[&[Row]]) -> Result<Graph, Error> {
    let width = config.width;
    let (mut net, image) = config.begin(Act::Relu)?;
    let mut x = net.conv_bn_act("stem", image, scaled(32, width.max(1.0)), 3, 2, 1)?;
    for (block, row) in stages.iter().copied().flatten().enumerate() {
        let name = format!("blocks.{block}");
        x = match *row {
            Conv(kernel, channels, stride) => {
                net.conv_bn_act(&format!("{name}.conv"), x, scaled(channels, width), kernel, stride, 1)?
            }
            Fused(kernel, expand, channels, stride) => {
                net.fused(&name, x, scaled(channels, width), kernel, stride, expand)?
            }
            Universal(kernels, expand, channels, stride) => {
                net.universal(&name, x, scaled(channels, width), kernels, stride, expand)?
            }
        };
    }
    x = net.pool(x)?;
    x = net.conv_bn_act("head", x, 1280, 1, 1, 1)?;
    net.logits(x, 0.2, config.classes)
}

/// timm's keys.
fn key(parameter: &str, stages: &[&[Row]]) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let (layer, bn) = layer.strip_suffix(".bn").map_or((layer, false), |layer| (layer, true));
    let layer = match layer {
        "stem" => if bn { "bn1" } else { "conv_stem" }.to_string(),
        "head" => if bn { "norm_head" } else { "conv_head" }.to_string(),
        "classifier" => "classifier".to_string(),
        _ => {
            let (block, part) = keys::block(layer)?;
            let (conv, norm) = match (stages.iter().copied().flatten().nth(block)?, part) {
                (Conv(..), "conv") => ("conv", "bn1"),
                (Fused(..), "expand") => ("conv_exp", "bn1"),
                (Fused(..), "project") => ("conv_pwl", "bn2"),
                (Universal(..), "start") => ("dw_start.conv", "dw_start.bn"),
                (Universal(..), "expand") => ("pw_exp.conv", "pw_exp.bn"),
                (Universal(..), "depthwise") => ("dw_mid.conv", "dw_mid.bn"),
                (Universal(..), "project") => ("pw_proj.conv", "pw_proj.bn"),
                _ => return None,
            };
            let counts: Vec<usize> = stages.iter().map(|rows| rows.len()).collect();
            let (stage, place) = keys::nested(block, &counts)?;
            format!("blocks.{stage}.{place}.{}", if bn { norm } else { conv })
        }
    };
    Some(format!("{layer}.{suffix}"))
}
