//! ResNet (arXiv 1512.03385): teachers and yardsticks. ResNet-50 has its stride in the 3×3 convolution, as torchvision has it
//! ("v1.5"); ResNet-8 is MLPerf Tiny's for CIFAR-10 (arXiv 2106.07597).

use penjing_runtime::{Act, Error, graph::Graph, pixels::Filter};

use super::{
    Arch, Config, Form,
    blocks::{Builder, Padding},
    forms::{self, Look},
    keys,
};

const STAGES18: [usize; 4] = [2, 2, 2, 2];
const STAGES34: [usize; 4] = [3, 4, 6, 3];

pub(super) const RESNET18: Arch = Arch {
    name: "resnet18",
    about: "ResNet-18",
    size: 224,
    top1: 69.8,
    widths: &[1.0],
    forms: &forms18(),
    graph: |config| graph(config, &STAGES18, false),
};
pub(super) const RESNET34: Arch = Arch {
    name: "resnet34",
    about: "ResNet-34",
    size: 224,
    top1: 73.3,
    widths: &[1.0],
    forms: &forms34(),
    graph: |config| graph(config, &STAGES34, false),
};
pub(super) const RESNET50: Arch = Arch {
    name: "resnet50",
    about: "ResNet-50",
    size: 224,
    top1: 76.1,
    widths: &[1.0],
    forms: &forms34(),
    graph: |config| graph(config, &STAGES34, true),
};
/// Its weights are published as TFLite only; others may be written down under the names of its own parameters.
pub(super) const RESNET8: Arch = Arch {
    name: "resnet8",
    about: "ResNet-8 of MLPerf Tiny, for 32 px",
    size: 32,
    top1: 87.0,
    widths: &[1.0],
    forms: &[Form {
        of: "penjing",
        padding: Padding::Same,
        bn_eps: 1e-3,
        look: Look { filter: Filter::Bilinear, mean: [0.0; 3], std: [1.0; 3] },
        key: |parameter| Some(parameter.to_string()),
    }],
    graph: resnet8,
};

const fn forms18() -> [Form; 2] {
    let key = |parameter: &str| key(parameter, &STAGES18);
    [forms::torchvision(key), forms::timm(key)]
}

const fn forms34() -> [Form; 2] {
    let key = |parameter: &str| key(parameter, &STAGES34);
    [forms::torchvision(key), forms::timm(key)]
}

/// `deep` blocks go through a quarter of the channels and back by 1×1.
fn graph(config: &Config, stages: &[usize], deep: bool) -> Result<Graph, Error> {
    let (mut net, image) = config.begin(Act::Relu)?;
    let mut x = net.conv_bn_act("stem", image, 64, 7, 2, 1)?;
    x = net.max_pool("stem.pool", x, 3, 2, false)?;
    let mut block = 0;
    for (stage, &repeats) in stages.iter().enumerate() {
        for repeat in 0..repeats {
            let (channels, stride) = (64 << stage, if stage > 0 && repeat == 0 { 2 } else { 1 });
            let name = format!("blocks.{block}");
            x = if deep {
                net.residual(&name, x, &[[channels, 1, 1], [channels, 3, stride], [4 * channels, 1, 1]])?
            } else {
                net.residual(&name, x, &[[channels, 3, stride], [channels, 3, 1]])?
            };
            block += 1;
        }
    }
    net.classifier(x, 0.0, config.classes)
}

/// Its convolutions have biases, also before BatchNorm, and the way around a block has no BatchNorm.
fn resnet8(config: &Config) -> Result<Graph, Error> {
    let (mut net, image) = config.begin(Act::Relu)?;
    let conv_bn = |net: &mut Builder, name: &str, x, channels, stride| {
        let x = net.conv(name, x, channels, 3, stride, 1, true)?;
        net.batch_norm(name, x)
    };
    let mut x = conv_bn(&mut net, "stem", image, 16, 1)?;
    x = net.act("stem", x)?;
    for (block, (channels, stride)) in [(16, 1), (32, 2), (64, 2)].into_iter().enumerate() {
        let name = format!("blocks.{block}");
        let mut y = conv_bn(&mut net, &format!("{name}.conv1"), x, channels, stride)?;
        y = net.act(&format!("{name}.conv1"), y)?;
        y = conv_bn(&mut net, &format!("{name}.conv2"), y, channels, 1)?;
        if stride != 1 {
            x = net.conv(&format!("{name}.downsample"), x, channels, 1, stride, 1, true)?;
        }
        x = net.add(&name, x, y)?;
        x = net.act(&name, x)?;
    }
    net.classifier(x, 0.0, config.classes)
}

/// torchvision's and timm's keys.
fn key(parameter: &str, stages: &[usize]) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let (layer, bn) = layer.strip_suffix(".bn").map_or((layer, false), |layer| (layer, true));
    let kind = if bn { "bn" } else { "conv" };
    let layer = match layer {
        "stem" => format!("{kind}1"),
        "classifier" => "fc".to_string(),
        _ => {
            let (block, part) = keys::block(layer)?;
            let (stage, place) = keys::nested(block, stages)?;
            let part = match part.strip_prefix("conv") {
                Some(number) => format!("{kind}{number}"),
                None => format!("downsample.{}", usize::from(bn)),
            };
            format!("layer{}.{place}.{part}", stage + 1)
        }
    };
    Some(format!("{layer}.{suffix}"))
}
