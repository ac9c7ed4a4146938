//! Networks of one's own, declared in a TOML file by rows like those of the typed tables. The only file that knows the
//! `toml` crate.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use penjing_runtime::{
    Act,
    graph::{Graph, NodeId},
    pixels::{Color, DecodeRule, Filter, Fit, Pixels},
};
use serde::Deserialize;

use super::{
    blocks::{Bottleneck, Builder, Padding, scaled},
    forms::imagenet,
};
use crate::{Error, Result};

/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 10;
/// Most rows of a file.
const MAX_ROWS: usize = 256;
/// Most weights of a network: 1 GiB.
const MAX_WEIGHTS: u64 = 1 << 28;

/// A network that a file declares.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The file, for messages.
    path: PathBuf,
    written: Written,
}

/// The file as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default = "imagenet_size")]
    size: usize,
    #[serde(default)]
    padding: Around,
    #[serde(default = "usual_eps")]
    bn_eps: f32,
    #[serde(default)]
    act: Activation,
    #[serde(default)]
    pixels: Seen,
    /// Rows are read one by one, so that an error can name its row.
    #[serde(rename = "row")]
    tables: Vec<::toml::Table>,
    #[serde(skip)]
    rows: Vec<Row>,
    #[serde(default)]
    head: Head,
}

fn imagenet_size() -> usize {
    224
}

fn usual_eps() -> f32 {
    1e-5
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Around {
    #[default]
    Symmetric,
    Same,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Activation {
    Relu,
    #[default]
    Relu6,
    HSwish,
    Silu,
}

impl From<Activation> for Act {
    fn from(act: Activation) -> Act {
        match act {
            Activation::Relu => Act::Relu,
            Activation::Relu6 => Act::Relu6,
            Activation::HSwish => Act::HSwish,
            Activation::Silu => Act::Silu,
        }
    }
}

/// What the network is shown; by default what most networks of ImageNet are.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    filter: Option<Filter>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

/// What comes after the rows: the mean over the map, perhaps a hidden layer, dropout, the classifier.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Features of a linear layer with activation.
    hidden: Option<usize>,
    act: Option<Activation>,
    #[serde(default)]
    dropout: f32,
}

/// How a row's channels go with the width multiplier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Width {
    #[default]
    Follow,
    /// With one above 1 only.
    Grow,
    Keep,
}

/// Blocks of one kind; with `repeats` the stride is the first one's.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Row {
    /// Convolution, BatchNorm, activation.
    Conv {
        name: Option<String>,
        channels: usize,
        #[serde(default = "three")]
        kernel: usize,
        #[serde(default = "one")]
        stride: usize,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// MobileNetV1's block: a filter for each channel, then 1×1, each with BatchNorm and activation.
    Separable {
        channels: usize,
        #[serde(default = "three")]
        kernel: usize,
        #[serde(default = "one")]
        stride: usize,
        #[serde(default = "one")]
        repeats: usize,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// MobileNetV2's and V3's: [`Builder::bottleneck`]. Expansion by a factor, or to a number of channels.
    InvertedResidual {
        expand: Option<f64>,
        hidden: Option<usize>,
        channels: usize,
        #[serde(default = "three")]
        kernel: usize,
        #[serde(default = "one")]
        stride: usize,
        #[serde(default = "one")]
        repeats: usize,
        #[serde(default)]
        squeeze: bool,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// MobileNetV4's: [`Builder::universal`].
    Universal {
        kernels: [usize; 2],
        expand: usize,
        channels: usize,
        #[serde(default = "one")]
        stride: usize,
        #[serde(default = "one")]
        repeats: usize,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// [`Builder::fused`].
    Fused {
        expand: usize,
        channels: usize,
        #[serde(default = "three")]
        kernel: usize,
        #[serde(default = "one")]
        stride: usize,
        #[serde(default = "one")]
        repeats: usize,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// ResNet's: two convolutions, or with `deep` three, through a quarter of the channels.
    Residual {
        channels: usize,
        #[serde(default = "three")]
        kernel: usize,
        #[serde(default = "one")]
        stride: usize,
        #[serde(default = "one")]
        repeats: usize,
        #[serde(default)]
        deep: bool,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// ShuffleNetV2's: [`Builder::shuffle_unit`].
    Shuffle {
        channels: usize,
        #[serde(default = "one")]
        stride: usize,
        #[serde(default = "one")]
        repeats: usize,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// SqueezeNet's: [`Builder::fire`].
    Fire {
        squeeze: usize,
        expand: usize,
        #[serde(default = "one")]
        repeats: usize,
        act: Option<Activation>,
        #[serde(default)]
        width: Width,
    },
    /// Greatest value of a window.
    MaxPool {
        name: Option<String>,
        #[serde(default = "three")]
        kernel: usize,
        stride: usize,
    },
}

/// A result whose error says what is wrong; the row and the file are put before it.
type What<T> = std::result::Result<T, String>;

impl Declared {
    /// Reads the network that the file at `path` declares.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read, [`Error::Model`] for everything [`parse`](Self::parse) refuses.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, "open", error))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, "read", error))?;
        Self::parse(path, &bytes)
    }

    /// Reads the network that `bytes` declare, the content of the file called `path` in messages.
    ///
    /// # Errors
    /// [`Error::Model`] naming the row and what is wrong with it, or what does not fit in the network at its own size.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let fault = |what: String| Error::model(path, what);
        let declared = Declared { path: path.to_owned(), written: Written::read(bytes).map_err(fault)? };
        declared.graph(1.0, declared.written.size, 2)?;
        declared.pixels(declared.written.size).validate().map_err(fault)?;
        Ok(declared)
    }

    /// What the network calls itself.
    pub fn name(&self) -> &str {
        &self.written.name
    }

    /// Input size in pixels where nothing else is asked for.
    pub fn size(&self) -> usize {
        self.written.size
    }

    /// The network at this multiplier of the channels and this input size.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a width, size or number of classes beyond reason, [`Error::Model`] naming the row that
    /// does not fit.
    pub fn graph(&self, width: f64, size: usize, classes: usize) -> Result<Graph> {
        super::in_range(width, size, classes)?;
        let graph = self.written.graph(width, size, classes);
        graph.map_err(|what| Error::model(&self.path, what))
    }

    /// How photos become its input: short side at size / 0.875, then the centre.
    pub fn pixels(&self, size: usize) -> Pixels {
        let usual = imagenet(Filter::Bilinear);
        let Seen { filter, mean, std } = self.written.pixels;
        Pixels {
            height: size,
            width: size,
            color: Color::Rgb,
            fit: Fit::Crop { short: size * 8 / 7 },
            filter: filter.unwrap_or(usual.filter),
            mean: mean.unwrap_or(usual.mean),
            std: std.unwrap_or(usual.std),
            decode: DecodeRule::Full,
        }
    }
}

impl Written {
    fn read(bytes: &[u8]) -> What<Self> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("is longer than the {MAX_BYTES} bytes that are read of a network's file"));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| format!("is no text: {error}"))?;
        let mut written: Written = ::toml::from_str(text).map_err(|error| said(&error))?;
        identifier("the network", &written.name)?;
        if written.tables.is_empty() || written.tables.len() > MAX_ROWS {
            return Err(format!("has {} rows; expected 1 to {MAX_ROWS} of [[row]]", written.tables.len()));
        }
        for (index, table) in std::mem::take(&mut written.tables).into_iter().enumerate() {
            let row = table.try_into().map_err(|error| said(&error));
            let row = row.and_then(|row: Row| row.check().map(|()| row));
            written.rows.push(row.map_err(|what| format!("row {}: {what}", index + 1))?);
        }
        within("hidden", written.head.hidden.unwrap_or(1), MAX_HIDDEN)
            .map_err(|what| format!("head: {what}"))?;
        Ok(written)
    }

    fn graph(&self, width: f64, size: usize, classes: usize) -> What<Graph> {
        let padding = match self.padding {
            Around::Symmetric => Padding::Symmetric,
            Around::Same => Padding::Same,
        };
        let fault = |error: penjing_runtime::Error| error.to_string();
        let (net, x) = Builder::new([size, size, 3], padding, self.bn_eps, self.act.into()).map_err(fault)?;
        let mut building = Building { net, x, width, narrow: 3, blocks: 0, pools: 0 };
        for (index, row) in self.rows.iter().enumerate() {
            building.net.act = row.act().unwrap_or(self.act).into();
            building.row(row).map_err(|what| format!("row {}: {what}", index + 1))?;
        }
        let Building { mut net, x, .. } = building;
        net.act = self.head.act.unwrap_or(self.act).into();
        let mut x = net.pool(x).map_err(fault)?;
        if let Some(hidden) = self.head.hidden {
            x = net.linear_act("hidden", x, hidden).map_err(fault)?;
        }
        let graph = net.logits(x, self.head.dropout, classes).map_err(fault)?;
        let weights = graph.parameters().iter().fold(0u64, |sum, (_, shape)| {
            sum.saturating_add(shape.iter().fold(1, |count, &extent| count.saturating_mul(extent as u64)))
        });
        match weights <= MAX_WEIGHTS {
            true => Ok(graph),
            false => Err(format!("has {weights} weights; at most {MAX_WEIGHTS} are allowed")),
        }
    }
}

const MAX_CHANNELS: usize = 8192;
const MAX_HIDDEN: usize = 65_536;
const MAX_KERNEL: usize = 31;
const MAX_STRIDE: usize = 8;
const MAX_REPEATS: usize = 64;
const MAX_EXPAND: usize = 32;

impl Row {
    fn act(&self) -> Option<Activation> {
        match self {
            Row::Conv { act, .. }
            | Row::Separable { act, .. }
            | Row::InvertedResidual { act, .. }
            | Row::Universal { act, .. }
            | Row::Fused { act, .. }
            | Row::Residual { act, .. }
            | Row::Shuffle { act, .. }
            | Row::Fire { act, .. } => *act,
            Row::MaxPool { .. } => None,
        }
    }

    /// Fails for numbers beyond reason, before anything is multiplied.
    fn check(&self) -> What<()> {
        let block = |channels, kernel, stride, repeats| {
            within("channels", channels, MAX_CHANNELS)?;
            within("kernel", kernel, MAX_KERNEL)?;
            within("stride", stride, MAX_STRIDE)?;
            within("repeats", repeats, MAX_REPEATS)
        };
        match self {
            Row::Conv { name, channels, kernel, stride, .. } => {
                name.iter().try_for_each(|name| identifier("a layer", name))?;
                block(*channels, *kernel, *stride, 1)
            }
            Row::Separable { channels, kernel, stride, repeats, .. }
            | Row::Residual { channels, kernel, stride, repeats, deep: false, .. } => {
                block(*channels, *kernel, *stride, *repeats)
            }
            Row::Residual { channels, kernel, stride, repeats, deep: true, .. } => {
                if channels % 4 != 0 {
                    return Err(format!("`channels` is {channels}; a deep block needs a multiple of 4"));
                }
                block(*channels, *kernel, *stride, *repeats)
            }
            Row::InvertedResidual { expand, hidden, channels, kernel, stride, repeats, .. } => {
                match (expand, hidden) {
                    (Some(expand), None) if (0.1..=MAX_EXPAND as f64).contains(expand) => {}
                    (Some(expand), None) => {
                        return Err(format!("`expand` is {expand}; expected 0.1 to {MAX_EXPAND}"));
                    }
                    (None, Some(hidden)) => within("hidden", *hidden, MAX_HIDDEN)?,
                    _ => {
                        return Err(
                            "expected either `expand`, a factor, or `hidden`, a number of channels".into()
                        );
                    }
                }
                block(*channels, *kernel, *stride, *repeats)
            }
            Row::Universal { kernels, expand, channels, stride, repeats, .. } => {
                within("expand", *expand, MAX_EXPAND)?;
                kernels
                    .iter()
                    .filter(|&&kernel| kernel != 0)
                    .try_for_each(|&kernel| within("kernels", kernel, MAX_KERNEL))?;
                block(*channels, 1, *stride, *repeats)
            }
            Row::Fused { expand, channels, kernel, stride, repeats, .. } => {
                within("expand", *expand, MAX_EXPAND)?;
                block(*channels, *kernel, *stride, *repeats)
            }
            Row::Shuffle { channels, stride, repeats, .. } => {
                if channels % 2 != 0 {
                    return Err(format!("`channels` is {channels}; a shuffled block needs an even number"));
                }
                block(*channels, 1, *stride, *repeats)
            }
            Row::Fire { squeeze, expand, repeats, .. } => {
                within("squeeze", *squeeze, MAX_CHANNELS)?;
                block(*expand, 1, 1, *repeats)
            }
            Row::MaxPool { name, kernel, stride } => {
                name.iter().try_for_each(|name| identifier("a layer", name))?;
                block(1, *kernel, *stride, 1)
            }
        }
    }
}

/// A graph that rows are put on.
struct Building {
    net: Builder,
    x: NodeId,
    width: f64,
    /// Channels that the last row declares, before the width multiplier.
    narrow: usize,
    blocks: usize,
    pools: usize,
}

impl Building {
    fn row(&mut self, row: &Row) -> What<()> {
        let said = |error: penjing_runtime::Error| error.to_string();
        match *row {
            Row::Conv { ref name, channels, kernel, stride, width, .. } => {
                let scaled = self.scaled(channels, width);
                let name = name.clone().unwrap_or_else(|| self.next());
                self.x = self.net.conv_bn_act(&name, self.x, scaled, kernel, stride, 1).map_err(said)?;
                self.narrow = channels;
                Ok(())
            }
            Row::Separable { channels, kernel, stride, repeats, width, .. } => {
                self.blocks([channels, stride, repeats], width, |net, name, x, channels, stride| {
                    let all = net.channels(x);
                    let x = net.conv_bn_act(&format!("{name}.depthwise"), x, all, kernel, stride, all)?;
                    net.conv_bn_act(&format!("{name}.pointwise"), x, channels, 1, 1, 1)
                })
            }
            Row::InvertedResidual {
                expand,
                hidden,
                channels,
                kernel,
                stride,
                repeats,
                squeeze,
                width,
                ..
            } => {
                let mut narrow = self.narrow;
                self.blocks([channels, stride, repeats], width, |net, name, x, out, stride| {
                    let input = net.channels(x);
                    let hidden = match (expand, hidden) {
                        (Some(factor), _) if factor.fract() == 0.0 => input * factor as usize,
                        (Some(factor), _) => scaled(input, factor),
                        // As published where the input is; else in proportion to it.
                        (None, hidden) => match hidden.unwrap_or(input) {
                            hidden if input == narrow => hidden,
                            hidden => scaled(input, hidden as f64 / narrow as f64),
                        },
                    };
                    narrow = channels;
                    net.bottleneck(name, x, Bottleneck { hidden, channels: out, kernel, stride, squeeze })
                })
            }
            Row::Universal { kernels, expand, channels, stride, repeats, width, .. } => {
                self.blocks([channels, stride, repeats], width, |net, name, x, channels, stride| {
                    net.universal(name, x, channels, kernels, stride, expand)
                })
            }
            Row::Fused { expand, channels, kernel, stride, repeats, width, .. } => {
                self.blocks([channels, stride, repeats], width, |net, name, x, channels, stride| {
                    net.fused(name, x, channels, kernel, stride, expand)
                })
            }
            Row::Residual { channels, kernel, stride, repeats, deep, width, .. } => {
                self.blocks([channels, stride, repeats], width, |net, name, x, channels, stride| {
                    if deep {
                        let inner = channels / 4;
                        net.residual(name, x, &[[inner, 1, 1], [inner, kernel, stride], [channels, 1, 1]])
                    } else {
                        net.residual(name, x, &[[channels, kernel, stride], [channels, kernel, 1]])
                    }
                })
            }
            Row::Shuffle { channels, stride, repeats, width, .. } => {
                let (taken, made) = (self.net.channels(self.x), self.scaled(channels, width));
                if stride == 1 && taken != made {
                    return Err(format!(
                        "a shuffled block of stride 1 gives the {taken} channels that it takes, not {made}"
                    ));
                }
                self.blocks([channels, stride, repeats], width, |net, name, x, channels, stride| {
                    net.shuffle_unit(name, x, channels, stride)
                })
            }
            Row::Fire { squeeze, expand, repeats, width, .. } => {
                let squeeze = self.scaled(squeeze, width);
                self.blocks([expand, 1, repeats], width, |net, name, x, expand, _| {
                    net.fire(name, x, squeeze, expand)
                })?;
                self.narrow = 2 * expand;
                Ok(())
            }
            Row::MaxPool { ref name, kernel, stride } => {
                let name = name.clone().unwrap_or_else(|| format!("pools.{}", self.pools));
                self.pools += 1;
                self.x = self.net.max_pool(&name, self.x, kernel, stride, false).map_err(said)?;
                Ok(())
            }
        }
    }

    /// A row's blocks of `[channels, stride, repeats]`; `block` gets each one's name, input, channels and stride.
    fn blocks(
        &mut self,
        [channels, stride, repeats]: [usize; 3],
        width: Width,
        mut block: impl FnMut(
            &mut Builder,
            &str,
            NodeId,
            usize,
            usize,
        ) -> std::result::Result<NodeId, penjing_runtime::Error>,
    ) -> What<()> {
        let scaled = self.scaled(channels, width);
        for repeat in 0..repeats {
            let name = self.next();
            let stride = if repeat == 0 { stride } else { 1 };
            self.x =
                block(&mut self.net, &name, self.x, scaled, stride).map_err(|error| error.to_string())?;
        }
        self.narrow = channels;
        Ok(())
    }

    /// The name of the next block.
    fn next(&mut self) -> String {
        self.blocks += 1;
        format!("blocks.{}", self.blocks - 1)
    }

    /// Channels at the width multiplier; as declared where it changes nothing.
    fn scaled(&self, channels: usize, width: Width) -> usize {
        let factor = match width {
            Width::Follow => self.width,
            Width::Grow => self.width.max(1.0),
            Width::Keep => 1.0,
        };
        if factor == 1.0 { channels } else { scaled(channels, factor) }
    }
}

fn within(field: &str, value: usize, most: usize) -> What<()> {
    match (1..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("`{field}` is {value}; expected 1 to {most}")),
    }
}

/// Names stand in model files and messages.
fn identifier(what: &str, name: &str) -> What<()> {
    const MAX_CHARS: usize = 64;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > MAX_CHARS || !name.chars().all(plain) {
        return Err(format!(
            "the name of {what} is {name:?}; expected 1 to {MAX_CHARS} letters, digits, `_`, `-` and `.`"
        ));
    }
    Ok(())
}

/// An error of the parser on one line.
fn said(error: &::toml::de::Error) -> String {
    error.message().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use penjing_runtime::op::Op;

    use super::*;
    use crate::zoo::{Arch, Config};

    fn parse(text: &str) -> Result<Declared> {
        Declared::parse(Path::new("net.toml"), text.as_bytes())
    }

    fn redeclared(name: &str) -> Declared {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/networks").join(format!("{name}.toml"));
        Declared::read(&path).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn networks_of_the_zoo_declared_anew_give_the_same_graph() {
        for (name, forms) in [
            ("mobilenet_v1", &[(1.0, 224), (0.25, 96), (0.75, 75)][..]),
            ("mobilenet_v2", &[(1.0, 224), (0.35, 96), (0.5, 160), (1.4, 75)]),
            ("mobilenet_v3_small", &[(1.0, 224)]),
            ("resnet50", &[(1.0, 224)]),
            ("shufflenet_v2", &[(1.0, 224), (1.0, 97)]),
        ] {
            let (ours, arch) = (redeclared(name), Arch::named(name).unwrap().0);
            for &(width, size) in forms {
                let config = Config { width, size, ..arch.config(7) };
                let (graph, theirs) = (ours.graph(width, size, 7).unwrap(), arch.graph(&config).unwrap());
                for (ours, theirs) in graph.nodes().iter().zip(theirs.nodes()) {
                    assert_eq!(ours, theirs, "{name} at {width}, {size} px");
                }
                assert_eq!(graph.nodes().len(), theirs.nodes().len(), "{name} at {width}, {size} px");
                if name.starts_with("mobilenet_v1") || name == "mobilenet_v2" {
                    let (pixels, theirs) = (ours.pixels(size), arch.pixels(&config));
                    assert_eq!((pixels.fit, pixels.filter), (theirs.fit, theirs.filter), "{name}");
                    for (a, b) in
                        pixels.mean.iter().chain(&pixels.std).zip(theirs.mean.iter().chain(&theirs.std))
                    {
                        assert!((a - b).abs() < 1e-4, "{name}: {a}, expected {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_say_what_is_built() {
        let net = redeclared("every_kind");
        assert_eq!((net.name(), net.size()), ("every-kind", 64));
        let graph = net.graph(1.0, 64, 5).unwrap();
        let shape = |name: &str| graph.nodes().iter().find(|node| node.name == name).map(|node| node.shape);
        for (name, expected) in [
            ("blocks.0", [1, 32, 32, 16]),
            ("blocks.1.expand", [1, 16, 16, 64]),
            ("blocks.1.project", [1, 16, 16, 24]),
            // The first depthwise convolution of a universal block with two is not the one with the stride.
            ("blocks.2.start", [1, 16, 16, 24]),
            ("blocks.2.depthwise", [1, 8, 8, 72]),
            ("blocks.3.add", [1, 8, 8, 32]),
            ("blocks.4.expand", [1, 8, 8, 80]),
            ("blocks.4.squeeze.reduce", [1, 1, 1, 24]),
            ("blocks.6.add", [1, 8, 8, 40]),
            ("pools.0", [1, 4, 4, 40]),
            ("blocks.7.squeeze", [1, 4, 4, 8]),
            ("blocks.7.join", [1, 4, 4, 48]),
            ("hidden", [1, 1, 1, 20]),
            ("classifier", [1, 1, 1, 5]),
        ] {
            assert_eq!(shape(name), Some(expected), "{name}");
        }
        let act = |name: &str| match graph.nodes().iter().find(|node| node.name == name).unwrap().op {
            Op::Act(act) => act,
            _ => Act::None,
        };
        assert_eq!(
            ["blocks.0.act", "blocks.1.expand.act", "hidden.act"].map(act),
            [Act::Relu, Act::Silu, Act::HSwish]
        );
        let narrow = net.graph(0.5, 64, 5).unwrap();
        assert!(narrow.nodes().iter().any(|node| node.name == "blocks.0" && node.shape[3] == 8));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_row() {
        const STEM: &str = "[[row]]\nkind = \"conv\"\nchannels = 8\n";
        let with = |row: &str| format!("name = \"n\"\nsize = 32\n{STEM}[[row]]\n{row}");
        let many = format!("name = \"n\"\n{}", STEM.repeat(257));
        for (text, words) in [
            ("name = ".to_string(), &["net.toml: "][..]),
            ("name = \"n\"".into(), &["missing field `row`"]),
            ("name = \"n\"\nrow = []".into(), &["has 0 rows; expected 1 to 256"]),
            (many, &["has 257 rows"]),
            (format!("name = \"a b\"\n{STEM}"), &["the name of the network is \"a b\""]),
            (format!("name = \"n\"\ncolour = 3\n{STEM}"), &["unknown field `colour`"]),
            (format!("name = \"n\"\npadding = \"none\"\n{STEM}"), &["unknown variant `none`", "symmetric"]),
            (format!("name = \"n\"\nsize = 7\n{STEM}"), &["input size 7 is outside 32..=2048"]),
            (format!("name = \"n\"\nbn_eps = -1\n{STEM}"), &["row 1: ", "eps is -1"]),
            (format!("name = \"n\"\n[pixels]\nstd = [1, 0, 1]\n{STEM}"), &["pixels.std holds 0"]),
            (format!("name = \"n\"\n{STEM}[head]\ndropout = 2.0"), &["the rate is 2"]),
            (format!("name = \"n\"\n{STEM}[head]\nhidden = 0"), &["head: `hidden` is 0"]),
            (with("kind = \"magic\""), &["row 2: ", "unknown variant `magic`", "inverted_residual"]),
            (with("channels = 8"), &["row 2: ", "kind"]),
            (with("kind = \"conv\""), &["row 2: missing field `channels`"]),
            (with("kind = \"conv\"\nchannels = 8\nrepeat = 2"), &["row 2: unknown field `repeat`"]),
            (with("kind = \"conv\"\nchannels = -8"), &["row 2: ", "-8"]),
            (with("kind = \"conv\"\nchannels = 9000"), &["row 2: `channels` is 9000; expected 1 to 8192"]),
            (with("kind = \"conv\"\nchannels = 8\nstride = 0"), &["row 2: `stride` is 0; expected 1 to 8"]),
            (with("kind = \"conv\"\nchannels = 8\nkernel = 33"), &["row 2: `kernel` is 33"]),
            (
                with("kind = \"conv\"\nchannels = 8\nname = \"blocks.0\""),
                &["row 2: ", "two layers of this name"],
            ),
            (
                with("kind = \"separable\"\nchannels = 8\nrepeats = 65"),
                &["row 2: `repeats` is 65; expected 1 to 64"],
            ),
            (with("kind = \"inverted_residual\"\nchannels = 8"), &["row 2: expected either `expand`"]),
            (
                with("kind = \"inverted_residual\"\nchannels = 8\nexpand = 1\nhidden = 8"),
                &["row 2: expected either"],
            ),
            (with("kind = \"inverted_residual\"\nchannels = 8\nexpand = nan"), &["row 2: `expand` is NaN"]),
            (with("kind = \"inverted_residual\"\nchannels = 8\nexpand = 1e300"), &["row 2: `expand` is 1"]),
            (
                with("kind = \"residual\"\nchannels = 6\ndeep = true"),
                &["row 2: `channels` is 6; a deep block"],
            ),
            (
                with("kind = \"shuffle\"\nchannels = 7\nstride = 2"),
                &["row 2: `channels` is 7; a shuffled block"],
            ),
            (with("kind = \"shuffle\"\nchannels = 16"), &["row 2: a shuffled block of stride 1 gives the 8"]),
            (
                with("kind = \"universal\"\nkernels = [0, 0]\nexpand = 2\nchannels = 8\nstride = 2"),
                &["row 2: ", "stride 1"],
            ),
            (with("kind = \"fused\"\nexpand = 0\nchannels = 8"), &["row 2: `expand` is 0; expected 1 to 32"]),
            (with("kind = \"fire\"\nsqueeze = 0\nexpand = 8"), &["row 2: `squeeze` is 0"]),
            (
                with(
                    "kind = \"conv\"\nchannels = 8192\nkernel = 31\n[[row]]\nkind = \"conv\"\nchannels = 8192\nkernel = 31",
                ),
                &["weights; at most 268435456"],
            ),
            (" ".repeat(65 << 10), &["is longer than the 65536 bytes"]),
        ] {
            let error = parse(&text).expect_err(&text).to_string();
            for word in words {
                assert!(error.contains(word), "`{word}` is missing: {error}\n{text}");
            }
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(
            Declared::parse(Path::new("net.toml"), &[0xff, 0xfe])
                .unwrap_err()
                .to_string()
                .contains("is no text")
        );
        let deep = format!("name = {}", "[".repeat(60_000));
        assert!(parse(&deep).is_err());
    }
}
