//! EfficientNet-Lite: EfficientNet (arXiv 1905.11946) without squeeze-excite, with ReLU6.

use penjing_runtime::{
    Act, Error,
    graph::Graph,
    pixels::{Filter, Pixels},
};

use super::{
    Arch, Config,
    blocks::{Builder, Padding, Stage, stage},
    contract, keys,
};

const LITE0: [Stage; 7] = [
    stage(1, 16, 1, 1, 3),
    stage(6, 24, 2, 2, 3),
    stage(6, 40, 2, 2, 5),
    stage(6, 80, 3, 2, 3),
    stage(6, 112, 3, 1, 5),
    stage(6, 192, 4, 2, 5),
    stage(6, 320, 1, 1, 3),
];

pub(super) const ARCH: Arch = Arch {
    name: "efficientnet_lite0",
    about: "EfficientNet-Lite0: 4.7 M parameters, 385 M multiply-adds at 224 px, 75.1 % on ImageNet",
    size: 224,
    graph,
    pixels,
    torch_key,
};

/// Stem and head keep their width, as published; the stages follow `config.width`.
fn graph(config: &Config) -> Result<Graph, Error> {
    let (mut net, image) = Builder::new(config.input(), Padding::Same, 1e-3, Act::Relu6)?;
    let mut x = net.conv_bn_act("stem", image, 32, 3, 2, 1)?;
    x = net.stages(x, &LITE0, config.width)?;
    x = net.conv_bn_act("head", x, 1280, 1, 1, 1)?;
    net.classifier(x, 0.2, config.classes)
}

/// (x − 127) / 128, bicubic, the central 87.5 %.
fn pixels(config: &Config) -> Pixels {
    contract(config, Filter::Bicubic, [127.0; 3], [128.0; 3])
}

/// Keys of the PyPI package `efficientnet-lite-pytorch`.
fn torch_key(parameter: &str) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let layer = match layer {
        "stem" => "_conv_stem".to_string(),
        "stem.bn" => "_bn0".to_string(),
        "head" => "_conv_head".to_string(),
        "head.bn" => "_bn1".to_string(),
        "classifier" => "_fc".to_string(),
        _ => {
            let (block, part) = layer.strip_prefix("blocks.")?.split_once('.')?;
            let part = match part {
                "expand" => "_expand_conv",
                "expand.bn" => "_bn0",
                "depthwise" => "_depthwise_conv",
                "depthwise.bn" => "_bn1",
                "project" => "_project_conv",
                "project.bn" => "_bn2",
                _ => return None,
            };
            format!("_blocks.{block}.{part}")
        }
    };
    Some(format!("{layer}.{suffix}"))
}
