//! MobileNetV2 (arXiv 1801.04381).

use penjing_runtime::{Act, Error, graph::Graph};

use super::{
    Arch, Config,
    blocks::{Stage, scaled, stage},
    forms, keys,
};

/// Table 2 of the paper.
const STAGES: [Stage; 7] = [
    stage(1, 16, 1, 1, 3),
    stage(6, 24, 2, 2, 3),
    stage(6, 32, 3, 2, 3),
    stage(6, 64, 4, 2, 3),
    stage(6, 96, 3, 1, 3),
    stage(6, 160, 3, 2, 3),
    stage(6, 320, 1, 1, 3),
];

pub(super) const ARCH: Arch = Arch {
    name: "mobilenet_v2",
    about: "MobileNetV2",
    size: 224,
    top1: 71.9,
    widths: &[],
    forms: &[
        forms::torchvision(torch_key),
        forms::timm(|parameter| keys::timm(parameter, &STAGES.map(|stage| stage.repeats), 1)),
    ],
    graph,
};

/// The head grows with a width above 1 and never shrinks, as in the paper.
fn graph(config: &Config) -> Result<Graph, Error> {
    let (mut net, image) = config.begin(Act::Relu6)?;
    let mut x = net.conv_bn_act("stem", image, scaled(32, config.width), 3, 2, 1)?;
    x = net.stages(x, &STAGES, config.width)?;
    x = net.conv_bn_act("head", x, scaled(1280, config.width.max(1.0)), 1, 1, 1)?;
    net.classifier(x, 0.2, config.classes)
}

/// torchvision's keys: a flat list of features, the parts of a block numbered without their names.
fn torch_key(parameter: &str) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let layer = match layer {
        "stem" => "features.0.0".to_string(),
        "stem.bn" => "features.0.1".to_string(),
        "head" => "features.18.0".to_string(),
        "head.bn" => "features.18.1".to_string(),
        "classifier" => "classifier.1".to_string(),
        _ => {
            let (block, part) = keys::block(layer)?;
            // The first block has no expansion, so its parts move up by one.
            let part = match (block, part) {
                (0, "depthwise") | (1.., "expand") => "0.0",
                (0, "depthwise.bn") | (1.., "expand.bn") => "0.1",
                (0, "project") => "1",
                (0, "project.bn") => "2",
                (1.., "depthwise") => "1.0",
                (1.., "depthwise.bn") => "1.1",
                (1.., "project") => "2",
                (1.., "project.bn") => "3",
                _ => return None,
            };
            format!("features.{}.conv.{part}", block + 1)
        }
    };
    Some(format!("{layer}.{suffix}"))
}
