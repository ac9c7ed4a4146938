//! `penjing export`.

use std::path::{Path, PathBuf};

use penjing::{
    data::displayed,
    export::{OnnxOptions, to_onnx},
    model::{self, Output},
};

use super::Outcome;
use crate::console::{Console, bytes};

/// Write a model as other programs read it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The format
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Keep BatchNorm and Dropout as nodes, for training elsewhere
    #[arg(long)]
    keep_batch_norm: bool,
    /// Take bytes [N,H,W,3], cropped and resized, and normalize them inside
    #[arg(long)]
    with_preprocessing: bool,
    /// Leave the number of photos open [default: 1]
    #[arg(long)]
    dynamic_batch: bool,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

/// What other programs read.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// ONNX; a network in 8 bits in the form called QDQ
    Onnx,
}

#[derive(serde::Serialize)]
struct Exported<'a> {
    #[serde(serialize_with = "displayed")]
    file: &'a Path,
    format: &'static str,
    file_bytes: usize,
    classes: usize,
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    let output = Output::new(&args.output, args.force)?;
    let model = model::load(&args.model)?;
    let (format, file) = match args.to {
        Format::Onnx => {
            let options = OnnxOptions {
                keep_batch_norm: args.keep_batch_norm,
                with_preprocessing: args.with_preprocessing,
                dynamic_batch: args.dynamic_batch,
            };
            ("onnx", to_onnx(&model, options)?)
        }
    };
    output.write(&file)?;
    let exported =
        Exported { file: &args.output, format, file_bytes: file.len(), classes: model.labels.len() };
    console.result(&exported, || {
        let size = bytes(file.len() as u64);
        format!("{}: {} with {} classes, {size}\n", args.output.display(), model.arch, exported.classes)
    })?;
    Ok(Outcome::Done)
}
