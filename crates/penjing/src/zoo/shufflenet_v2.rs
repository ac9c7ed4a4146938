//! ShuffleNetV2 (arXiv 1807.11164).

use penjing_runtime::{Act, Error, graph::Graph};

use super::{Arch, Config, forms, keys};

/// Units of each stage, table 5 of the paper.
const REPEATS: [usize; 3] = [4, 8, 4];
/// Widths, and their channels of the three stages and the head.
const WIDTHS: [f64; 4] = [0.5, 1.0, 1.5, 2.0];
const CHANNELS: [[usize; 4]; 4] =
    [[48, 96, 192, 1024], [116, 232, 464, 1024], [176, 352, 704, 1024], [244, 488, 976, 2048]];

pub(super) const ARCH: Arch = Arch {
    name: "shufflenet_v2",
    about: "ShuffleNetV2",
    size: 224,
    top1: 69.4,
    widths: &WIDTHS,
    forms: &[forms::torchvision(torch_key)],
    graph,
};

fn graph(config: &Config) -> Result<Graph, Error> {
    let at = WIDTHS.iter().position(|&width| width == config.width).unwrap_or(1);
    let [stages @ .., head] = CHANNELS[at];
    let (mut net, image) = config.begin(Act::Relu)?;
    let mut x = net.conv_bn_act("stem", image, 24, 3, 2, 1)?;
    x = net.max_pool("stem.pool", x, 3, 2, false)?;
    let mut block = 0;
    for (channels, repeats) in stages.into_iter().zip(REPEATS) {
        for repeat in 0..repeats {
            x = net.shuffle_unit(&format!("blocks.{block}"), x, channels, if repeat == 0 { 2 } else { 1 })?;
            block += 1;
        }
    }
    x = net.conv_bn_act("head", x, head, 1, 1, 1)?;
    net.classifier(x, 0.0, config.classes)
}

/// torchvision's keys: stages 2 to 4, two branches of numbered parts.
fn torch_key(parameter: &str) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let layer = match layer {
        "stem" => "conv1.0".to_string(),
        "stem.bn" => "conv1.1".to_string(),
        "head" => "conv5.0".to_string(),
        "head.bn" => "conv5.1".to_string(),
        "classifier" => "fc".to_string(),
        _ => {
            let (block, part) = keys::block(layer)?;
            let part = match part {
                "kept.depthwise" => "branch1.0",
                "kept.depthwise.bn" => "branch1.1",
                "kept.pointwise" => "branch1.2",
                "kept.pointwise.bn" => "branch1.3",
                "first" => "branch2.0",
                "first.bn" => "branch2.1",
                "depthwise" => "branch2.3",
                "depthwise.bn" => "branch2.4",
                "last" => "branch2.5",
                "last.bn" => "branch2.6",
                _ => return None,
            };
            let (stage, place) = keys::nested(block, &REPEATS)?;
            format!("stage{}.{place}.{part}", stage + 2)
        }
    };
    Some(format!("{layer}.{suffix}"))
}
