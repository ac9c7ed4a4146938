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
