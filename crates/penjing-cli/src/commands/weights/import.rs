//! `penjing weights import`.

use std::path::{Path, PathBuf};

use penjing::{
    Error,
    data::displayed,
    import::{self, Details, OnnxDetails},
    model::{Model, Output},
    zoo::Arch,
};
use penjing_runtime::pixels::Pixels;

use super::super::{Decode, Outcome, published_parser, refuse, size_parser};
use crate::console::{Console, bytes};

/// Convert an ONNX or TensorFlow Lite file, or weights of PyTorch (.pth, .pt), safetensors, or a wheel that contains them;
/// nothing in them is executed
#[derive(Debug, clap::Args)]
pub struct Import {
    /// The file; what it holds tells its format
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The network that weights belong to, such as mobilenet_v2 or mobilenet_v2_x0.5; an ONNX or TensorFlow Lite file is a
    /// network itself
    #[arg(long, value_name = "NAME", value_parser = published_parser)]
    arch: Option<String>,
    /// The model file to write
    #[arg(long, short, value_name = "MODEL")]
    output: PathBuf,
    /// Input size in pixels [default: the published one, or the file's]
    #[arg(long, value_name = "PX", value_parser = size_parser())]
    size: Option<usize>,
    /// Whose form of the weights it is, such as timm or tf: it says how convolutions pad and what the network was shown
    /// [default: the first in `weights list --json` whose names they have]
    #[arg(long, value_name = "NAME")]
    form: Option<String>,
    /// Class names, one a line [default: the ONNX file's, or numbers from 0]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What is subtracted from red, green and blue, 0 to 255 [default: what the network was trained on, where that is known]
    #[arg(long, value_name = "R,G,B", value_parser = mean_parser)]
    mean: Option<[f32; 3]>,
    /// What they are divided by then, 0 to 255 [default: what the network was trained on, where that is known]
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
    /// Licence of the weights (SPDX), kept in the model [default: the ONNX file's, or unknown]
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
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

pub fn import(args: Import, console: &Console) -> anyhow::Result<Outcome> {
    let output = Output::new(&args.output, args.force)?;
    let (mut model, skipped) = read(&args, console)?;
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

/// The model in the file, and what of the file it does not need.
fn read(args: &Import, console: &Console) -> anyhow::Result<(Model, Vec<String>)> {
    let labels = match &args.labels {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, "read", error))?;
            Some(text.lines().map(str::to_string).collect())
        }
    };
    let refused = |why: &str| Err(refuse("weights", why).into());
    let content = import::read_bytes(&args.file)?;
    let is_onnx = import::is_onnx(&content);
    let is_network = is_onnx || import::is_tflite(&content);
    if is_network && (args.arch.is_some() || args.form.is_some()) {
        return refused(
            "--arch and --form say what network weights belong to, and this file is a network itself; leave them out",
        );
    }
    let told = args.mean.is_some() || args.std.is_some();
    let say_pixels = |Pixels { mean, std, .. }: &Pixels| {
        console.say(&format!(
            "the file does not say how it wants its pixels: taken are mean {mean:?} and deviation {std:?} of 0..=255; where \
             the network was trained otherwise, give --mean and --std"
        ));
    };
    if is_onnx {
        drop(content);
        let details = OnnxDetails {
            size: args.size,
            labels,
            mean: args.mean,
            std: args.std,
            source: args.source.clone(),
            license: args.license.clone(),
        };
        let onnx = import::read_onnx(&args.file, details)?;
        if !onnx.has_contract && !told {
            say_pixels(&onnx.model.pixels);
        }
        return Ok((onnx.model, onnx.skipped));
    }
    let file_name = || args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut details = Details {
        width: 1.0,
        size: args.size,
        form: args.form.clone(),
        labels,
        mean: args.mean,
        std: args.std,
        source: args.source.clone().unwrap_or_else(file_name),
        license: args.license.clone().unwrap_or_else(|| "unknown".into()),
    };
    if is_network {
        let tflite = import::parse_tflite(&args.file, &content, details)?;
        if !tflite.knows_pixels && !told {
            say_pixels(&tflite.model.pixels);
        }
        return Ok((tflite.model, Vec::new()));
    }
    let Some(name) = &args.arch else {
        return refused(
            "the file holds weights only: give the network that they belong to as --arch NAME (`penjing weights list`); only \
             an ONNX or a TensorFlow Lite file needs none",
        );
    };
    let (arch, width) = Arch::named(name)?;
    details.width = width;
    let dict = import::parse_state_dict(&args.file, &content)?;
    let skipped = dict.skipped.clone();
    Ok((import::assemble(&args.file, dict, arch, details)?, skipped))
}
