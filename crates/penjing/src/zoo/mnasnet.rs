//! MNASNet-B1 (arXiv 1807.11626), which has no squeeze-and-excitation.

use penjing_runtime::{Act, Error, graph::Graph};

use super::{
    Arch, Config,
    blocks::{Stage, scaled, stage},
    forms, keys,
};

const STAGES: [Stage; 7] = [
    stage(1, 16, 1, 1, 3),
    stage(3, 24, 3, 2, 3),
    stage(3, 40, 3, 2, 5),
    stage(6, 80, 3, 2, 5),
    stage(6, 96, 2, 1, 3),
    stage(6, 192, 4, 2, 5),
    stage(6, 320, 1, 1, 3),
];

pub(super) const ARCH: Arch = Arch {
    name: "mnasnet",
    about: "MNASNet-B1",
    size: 224,
    top1: 74.5,
    widths: &[],
    forms: &[
        forms::torchvision(torch_key),
        forms::timm(|parameter| keys::timm(parameter, &STAGES.map(|stage| stage.repeats), 1)),
    ],
    graph,
};

/// The head keeps its width, as in torchvision and timm.
fn graph(config: &Config) -> Result<Graph, Error> {
    let (mut net, image) = config.begin(Act::Relu)?;
    let mut x = net.conv_bn_act("stem", image, scaled(32, config.width), 3, 2, 1)?;
    x = net.stages(x, &STAGES, config.width)?;
    x = net.conv_bn_act("head", x, 1280, 1, 1, 1)?;
    net.classifier(x, 0.2, config.classes)
}

/// torchvision's keys: one list, in which the first block's layers stand by themselves and each further stage is one item.
fn torch_key(parameter: &str) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let layer = match layer {
        "stem" => "layers.0".to_string(),
        "stem.bn" => "layers.1".to_string(),
        "head" => "layers.14".to_string(),
        "head.bn" => "layers.15".to_string(),
        "classifier" => "classifier.1".to_string(),
        _ => {
            let (block, part) = keys::block(layer)?;
            let place = match part {
                "expand" => 0,
                "expand.bn" => 1,
                "depthwise" => 3,
                "depthwise.bn" => 4,
                "project" => 6,
                "project.bn" => 7,
                _ => return None,
            };
            match keys::nested(block, &STAGES.map(|stage| stage.repeats))? {
                (0, _) => format!("layers.{place}"),
                (stage, at) => format!("layers.{}.{at}.layers.{place}", stage + 7),
            }
        }
    };
    Some(format!("{layer}.{suffix}"))
}
