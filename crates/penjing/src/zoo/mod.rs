//! The networks: each one typed table and one screen of builder.

pub mod blocks;
mod efficientnet_lite;
pub mod forms;
mod initial;
mod keys;
mod mnasnet;
mod mobilenet_v1;
mod mobilenet_v2;
mod mobilenet_v3;
mod mobilenet_v4;
mod network;
pub mod resize;
mod resnet;
mod shufflenet_v2;
mod squeezenet;
mod toml;

use penjing_runtime::{
    Act,
    graph::{Graph, NodeId},
    pixels::{Color, DecodeRule, Fit, Pixels},
};

use self::blocks::Builder;
pub use self::{
    forms::Form,
    initial::{fresh_weights, random_weights},
    network::Network,
    toml::Declared,
};
use crate::{Error, Result};

/// Every network that can be asked for by name.
pub const ARCHS: &[Arch] = &[
    efficientnet_lite::LITE0,
    efficientnet_lite::LITE1,
    efficientnet_lite::LITE2,
    efficientnet_lite::LITE3,
    efficientnet_lite::LITE4,
    mnasnet::ARCH,
    mobilenet_v1::ARCH,
    mobilenet_v2::ARCH,
    mobilenet_v3::LARGE_ARCH,
    mobilenet_v3::LARGE_MINIMAL,
    mobilenet_v3::SMALL_ARCH,
    mobilenet_v3::SMALL_MINIMAL,
    mobilenet_v4::MEDIUM_ARCH,
    mobilenet_v4::SMALL_ARCH,
    resnet::RESNET8,
    resnet::RESNET18,
    resnet::RESNET34,
    resnet::RESNET50,
    shufflenet_v2::ARCH,
    squeezenet::V1_0,
    squeezenet::V1_1,
];

/// A network's declaration.
#[derive(Clone, Copy, Debug)]
pub struct Arch {
    /// What the user calls it.
    pub name: &'static str,
    /// Its name in words.
    pub about: &'static str,
    /// Published input size in pixels.
    pub size: usize,
    /// Published top-1 accuracy on ImageNet in %, of the paper's or the authors' weights; on CIFAR-10 where [`size`](Self::size)
    /// is 32.
    pub top1: f64,
    /// The widths that exist, where only some do.
    pub widths: &'static [f64],
    /// The forms in which weights are published; the first is built where no weights say otherwise.
    pub forms: &'static [Form],
    graph: fn(&Config) -> Result<Graph, penjing_runtime::Error>,
}

/// What varies within an architecture.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Multiplier of the channels.
    pub width: f64,
    /// Input height and width in pixels.
    pub size: usize,
    /// Whether the input is gray.
    pub gray: bool,
    /// Number of classes.
    pub classes: usize,
    /// Padding, epsilon and pixels.
    pub form: &'static Form,
}

impl Config {
    /// A network's beginning: its input, under the form's padding and epsilon, with this activation.
    fn begin(&self, act: Act) -> Result<(Builder, NodeId), penjing_runtime::Error> {
        let channels = if self.gray { 1 } else { 3 };
        Builder::new([self.size, self.size, channels], self.form.padding, self.form.bn_eps, act)
    }
}

impl Arch {
    /// The architecture of this name, and the width that a suffix such as `_x0.5` asks for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] listing the names there are.
    pub fn named(name: &str) -> Result<(&'static Arch, f64)> {
        let (base, width) = with_width(name);
        let arch = ARCHS.iter().find(|arch| arch.name == base).ok_or_else(|| {
            let names: Vec<&str> = ARCHS.iter().map(|arch| arch.name).collect();
            Error::Unsupported(format!("no network is called `{name}`; there are: {}", names.join(", ")))
        })?;
        Ok((arch, width))
    }

    /// The name that [`named`](Self::named) understands, for a width.
    pub fn name_at(&self, width: f64) -> String {
        name_at(self.name, width)
    }

    /// The published form with this many classes.
    pub fn config(&self, classes: usize) -> Config {
        Config { width: 1.0, size: self.size, gray: false, classes, form: &self.forms[0] }
    }

    /// The network.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a width, size or number of classes that it cannot have.
    pub fn graph(&self, config: &Config) -> Result<Graph> {
        let Config { width, size, classes, .. } = *config;
        in_range(width, size, classes)?;
        if !self.widths.is_empty() && !self.widths.contains(&width) {
            let widths: Vec<String> = self.widths.iter().map(f64::to_string).collect();
            return Err(Error::Unsupported(format!(
                "{} has width {}, not {width}",
                self.name,
                widths.join(", ")
            )));
        }
        (self.graph)(config).map_err(|error| Error::Unsupported(format!("{}: {error}", self.name)))
    }

    /// The pixels that the weights of `config.form` were trained on: short side at size / 0.875, then the centre, the way
    /// ImageNet's classifiers are evaluated.
    pub fn pixels(&self, config: &Config) -> Pixels {
        let forms::Look { filter, mean, std } = config.form.look;
        Pixels {
            height: config.size,
            width: config.size,
            color: if config.gray { Color::Gray } else { Color::Rgb },
            fit: Fit::Crop { short: config.size * 8 / 7 },
            filter,
            mean,
            std,
            decode: DecodeRule::Full,
        }
    }
}

/// What is left of a name without a suffix such as `_x0.5`, and the width that it asks for.
fn with_width(name: &str) -> (&str, f64) {
    let with_width = name.rsplit_once("_x").and_then(|(base, width)| Some((base, width.parse().ok()?)));
    with_width.unwrap_or((name, 1.0))
}

/// The name with which [`with_width`] gives this width.
fn name_at(name: &str, width: f64) -> String {
    if width == 1.0 { name.to_string() } else { format!("{name}_x{width}") }
}

/// Fails for what no network can have.
fn in_range(width: f64, size: usize, classes: usize) -> Result<()> {
    if !(0.05..=16.0).contains(&width) {
        return Err(Error::Unsupported(format!("width {width} is outside 0.05..=16")));
    }
    if !(32..=2048).contains(&size) {
        return Err(Error::Unsupported(format!("input size {size} is outside 32..=2048 pixels")));
    }
    if !(1..=100_000).contains(&classes) {
        return Err(Error::Unsupported(format!("{classes} classes are outside 1..=100000")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use penjing_runtime::pixels::Filter;

    use super::*;

    #[test]
    fn contracts_are_those_the_weights_were_trained_on() {
        // torchvision's `MobileNet_V2_Weights.IMAGENET1K_V1` in units of 0..=255, and the authors' code of the others:
        // (x − 127) / 128 for Lite0, 2 (x / 255 − 0.5) for MobileNetV1.
        let mobilenet = [[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]];
        for (name, filter, [mean, std]) in [
            ("efficientnet_lite0", Filter::Bicubic, [[127.0; 3], [128.0; 3]]),
            ("mobilenet_v1", Filter::Bilinear, [[127.5; 3]; 2]),
            ("mobilenet_v2", Filter::Bilinear, mobilenet),
        ] {
            let arch = Arch::named(name).unwrap().0;
            let pixels = arch.pixels(&arch.config(2));
            for (ours, theirs) in pixels.mean.into_iter().chain(pixels.std).zip(mean.into_iter().chain(std)) {
                assert!((ours - theirs).abs() < 1e-4f32, "{name}: {ours}, expected {theirs}");
            }
            let (crop, rgb) = (Fit::Crop { short: 256 }, Color::Rgb);
            assert_eq!((pixels.filter, pixels.fit, pixels.color), (filter, crop, rgb), "{name}");
            assert_eq!([pixels.height, pixels.width], [224; 2], "{name}");
        }
    }

    #[test]
    fn the_table_gives_the_bundled_network() {
        // The file's logits are PyTorch's (`tests/networks.rs`), so a table that gives its graph is right too.
        let model = crate::model::bundled().unwrap();
        let arch = Arch::named("efficientnet_lite0").unwrap().0;
        let graph = arch.graph(&arch.config(1000)).unwrap();
        for (ours, file) in graph.nodes().iter().zip(model.graph.nodes()) {
            assert_eq!(ours, file);
        }
        assert_eq!(graph.nodes().len(), model.graph.nodes().len());
        assert_eq!(arch.pixels(&arch.config(1000)), model.pixels);
    }
}
