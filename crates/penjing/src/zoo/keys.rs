//! Names of parameters in PyTorch's state dicts.

/// Splits `layer.parameter` and gives the parameter PyTorch's name.
pub(super) fn split(parameter: &str) -> Option<(&str, &'static str)> {
    let (layer, ours) = parameter.rsplit_once('.')?;
    let theirs = match ours {
        "weight" | "gamma" => "weight",
        "bias" | "beta" => "bias",
        "mean" => "running_mean",
        "var" => "running_var",
        _ => return None,
    };
    Some((layer, theirs))
}

/// Splits `blocks.3.part` into the block's number and the part.
pub(super) fn block(layer: &str) -> Option<(usize, &str)> {
    let (block, part) = layer.strip_prefix("blocks.")?.split_once('.')?;
    Some((block.parse().ok()?, part))
}

/// Stage of a block and its place in there, for stages of so many blocks each.
pub(super) fn nested(mut block: usize, stages: &[usize]) -> Option<(usize, usize)> {
    for (stage, &count) in stages.iter().enumerate() {
        if block < count {
            return Some((stage, block));
        }
        block -= count;
    }
    None
}

/// timm's keys of networks made of inverted residuals. The first `plain` blocks have no expansion; timm numbers the
/// normalizations of a block one by one.
pub(super) fn timm(parameter: &str, stages: &[usize], plain: usize) -> Option<String> {
    let (layer, suffix) = split(parameter)?;
    let layer = match layer {
        "stem" => "conv_stem".to_string(),
        "stem.bn" => "bn1".to_string(),
        "head" => "conv_head".to_string(),
        "head.bn" => "bn2".to_string(),
        "classifier" => "classifier".to_string(),
        _ => {
            let (block, part) = block(layer)?;
            let part = match (block < plain, part) {
                (true, "depthwise") => "conv_dw",
                (true, "depthwise.bn") => "bn1",
                (true, "project" | "pointwise") => "conv_pw",
                (true, "project.bn" | "pointwise.bn") => "bn2",
                (false, "expand") => "conv_pw",
                (false, "expand.bn") => "bn1",
                (false, "depthwise") => "conv_dw",
                (false, "depthwise.bn") => "bn2",
                (false, "project") => "conv_pwl",
                (false, "project.bn") => "bn3",
                (_, "squeeze.reduce") => "se.conv_reduce",
                (_, "squeeze.expand") => "se.conv_expand",
                _ => return None,
            };
            let (stage, place) = nested(block, stages)?;
            format!("blocks.{stage}.{place}.{part}")
        }
    };
    Some(format!("{layer}.{suffix}"))
}
