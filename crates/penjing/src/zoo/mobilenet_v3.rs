//! MobileNetV3 (arXiv 1905.02244), and its minimalistic form, which has neither squeeze-and-excitation nor hard-swish.

use penjing_runtime::{
    Act::{self, HSwish, Relu},
    Error,
    graph::Graph,
    pixels::Filter,
};

use super::{
    Arch, Config, Form,
    blocks::{Bottleneck, Padding, scaled},
    forms::{self, Key},
    keys,
};

/// Kernel, channels of the depthwise convolution, output channels, squeeze-and-excitation, activation, stride.
struct Row(usize, usize, usize, bool, Act, usize);

/// Tables 1 and 2 of the paper.
const LARGE: [Row; 15] = [
    Row(3, 16, 16, false, Relu, 1),
    Row(3, 64, 24, false, Relu, 2),
    Row(3, 72, 24, false, Relu, 1),
    Row(5, 72, 40, true, Relu, 2),
    Row(5, 120, 40, true, Relu, 1),
    Row(5, 120, 40, true, Relu, 1),
    Row(3, 240, 80, false, HSwish, 2),
    Row(3, 200, 80, false, HSwish, 1),
    Row(3, 184, 80, false, HSwish, 1),
    Row(3, 184, 80, false, HSwish, 1),
    Row(3, 480, 112, true, HSwish, 1),
    Row(3, 672, 112, true, HSwish, 1),
    Row(5, 672, 160, true, HSwish, 2),
    Row(5, 960, 160, true, HSwish, 1),
    Row(5, 960, 160, true, HSwish, 1),
];
const SMALL: [Row; 11] = [
    Row(3, 16, 16, true, Relu, 2),
    Row(3, 72, 24, false, Relu, 2),
    Row(3, 88, 24, false, Relu, 1),
    Row(5, 96, 40, true, HSwish, 2),
    Row(5, 240, 40, true, HSwish, 1),
    Row(5, 240, 40, true, HSwish, 1),
    Row(5, 120, 48, true, HSwish, 1),
    Row(5, 144, 48, true, HSwish, 1),
    Row(5, 288, 96, true, HSwish, 2),
    Row(5, 576, 96, true, HSwish, 1),
    Row(5, 576, 96, true, HSwish, 1),
];

/// How many rows are of one width and stride: timm's stages.
const LARGE_STAGES: [usize; 6] = [1, 2, 3, 4, 2, 3];
const SMALL_STAGES: [usize; 5] = [1, 2, 3, 2, 3];

pub(super) const LARGE_ARCH: Arch = Arch {
    name: "mobilenet_v3_large",
    about: "MobileNetV3-Large",
    size: 224,
    top1: 75.2,
    widths: &[],
    forms: &forms(|parameter| torch_key(parameter, &LARGE), |parameter| timm_key(parameter, &LARGE_STAGES)),
    graph: |config| graph(config, &LARGE, [960, 1280], false),
};

pub(super) const SMALL_ARCH: Arch = Arch {
    name: "mobilenet_v3_small",
    about: "MobileNetV3-Small",
    size: 224,
    top1: 67.5,
    widths: &[],
    forms: &forms(|parameter| torch_key(parameter, &SMALL), |parameter| timm_key(parameter, &SMALL_STAGES)),
    graph: |config| graph(config, &SMALL, [576, 1024], false),
};

/// Accuracies of the minimalistic forms are the authors', from the repository of TensorFlow's models.
pub(super) const LARGE_MINIMAL: Arch = Arch {
    name: "mobilenet_v3_large_minimal",
    about: "MobileNetV3-Large with ReLU and 3×3 kernels only, for int8",
    size: 224,
    top1: 72.3,
    widths: &[],
    forms: &[tf(|parameter| timm_key(parameter, &LARGE_STAGES))],
    graph: |config| graph(config, &LARGE, [960, 1280], true),
};

pub(super) const SMALL_MINIMAL: Arch = Arch {
    name: "mobilenet_v3_small_minimal",
    about: "MobileNetV3-Small with ReLU and 3×3 kernels only, for int8",
    size: 224,
    top1: 61.9,
    widths: &[],
    forms: &[tf(|parameter| timm_key(parameter, &SMALL_STAGES))],
    graph: |config| graph(config, &SMALL, [576, 1024], true),
};

/// The authors' weights as timm holds them (`tf_mobilenetv3_*`).
const fn tf(key: Key) -> Form {
    Form { of: "tf", padding: Padding::Same, bn_eps: 1e-3, look: forms::inception(Filter::Bilinear), key }
}

const fn forms(torch: Key, timm: Key) -> [Form; 3] {
    [
        Form {
            of: "torchvision",
            padding: Padding::Symmetric,
            bn_eps: 1e-3,
            look: forms::imagenet(Filter::Bilinear),
            key: torch,
        },
        forms::timm(timm),
        tf(timm),
    ]
}

/// The layer before the classifier keeps its width, and a narrow network its stem, as in the authors' code.
fn graph(config: &Config, rows: &[Row], [head, last]: [usize; 2], minimal: bool) -> Result<Graph, Error> {
    let width = config.width;
    let after = |act| if minimal { Relu } else { act };
    let (mut net, image) = config.begin(after(HSwish))?;
    let (mut narrow, mut published) = (if width < 0.75 { 16 } else { scaled(16, width) }, 16);
    let mut x = net.conv_bn_act("stem", image, narrow, 3, 2, 1)?;
    for (index, &Row(kernel, hidden, channels, squeeze, act, stride)) in rows.iter().enumerate() {
        net.act = after(act);
        // The expansion is a factor of the input's channels, which are rounded before.
        let block = Bottleneck {
            hidden: scaled(narrow, hidden as f64 / published as f64),
            channels: scaled(channels, width),
            kernel: if minimal { 3 } else { kernel },
            stride,
            squeeze: squeeze && !minimal,
        };
        x = net.bottleneck(&format!("blocks.{index}"), x, block)?;
        (narrow, published) = (block.channels, channels);
    }
    net.act = after(HSwish);
    x = net.conv_bn_act("head", x, scaled(head, width), 1, 1, 1)?;
    x = net.pool(x)?;
    x = net.linear_act("hidden", x, last)?;
    net.logits(x, 0.2, config.classes)
}

/// torchvision's keys: a list of features, the parts of a block numbered without their names.
fn torch_key(parameter: &str, rows: &[Row]) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let (layer, bn) = layer.strip_suffix(".bn").map_or((layer, 0), |layer| (layer, 1));
    let layer = match layer {
        "stem" => format!("features.0.{bn}"),
        "head" => format!("features.{}.{bn}", rows.len() + 1),
        "hidden" => "classifier.0".to_string(),
        "classifier" => "classifier.3".to_string(),
        _ => {
            let (block, part) = keys::block(layer)?;
            let before = if block == 0 { 16 } else { rows.get(block - 1)?.2 };
            let &Row(_, hidden, _, squeeze, ..) = rows.get(block)?;
            // Parts that a block does not have are not counted.
            let [expands, squeezes] = [hidden != before, squeeze].map(usize::from);
            let place = match part {
                "expand" => format!("0.{bn}"),
                "depthwise" => format!("{expands}.{bn}"),
                "squeeze.reduce" => format!("{}.fc1", expands + 1),
                "squeeze.expand" => format!("{}.fc2", expands + 1),
                "project" => format!("{}.{bn}", expands + squeezes + 1),
                _ => return None,
            };
            format!("features.{}.block.{place}", block + 1)
        }
    };
    Some(format!("{layer}.{suffix}"))
}

/// timm's keys: the convolution before the head is a stage of its own, and the hidden layer is called head.
fn timm_key(parameter: &str, stages: &[usize]) -> Option<String> {
    let (layer, suffix) = keys::split(parameter)?;
    let layer = match layer {
        "head" => format!("blocks.{}.0.conv", stages.len()),
        "head.bn" => format!("blocks.{}.0.bn1", stages.len()),
        "hidden" => "conv_head".to_string(),
        _ => return keys::timm(parameter, stages, 1),
    };
    Some(format!("{layer}.{suffix}"))
}
