//! `cargo xtask bench WHAT`: figures for docs/benchmarks.md, of penjing beside its peers and of its kernels beside what the
//! machine can do.

mod heads;
mod labels;
mod peers;
mod roofline;
mod train;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// What the scripts import.
const PACKAGES: &[&str] =
    &["torch", "torchvision", "pillow", "numpy", "onnx", "onnxruntime", "efficientnet-lite-pytorch", "timm"];
/// What only some figures need: each of these is installed alone, and may fail.
const ENGINES: &[&[&str]] = &[&["openvino"], &["ncnn", "pnnx"], &["MNN"], &["ai-edge-litert"]];

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Latency of one image beside other inference engines, interleaved in one run
    Peers(peers::Args),
    /// A head on photos: time, memory and accuracy beside PyTorch
    Heads(heads::Args),
    /// From photo files to labels, beside torchvision and ONNX Runtime
    Labels(labels::Args),
    /// Each layer's time beside what the processor's arithmetic and memory allow
    Roofline(roofline::Args),
    /// A training step: speed and memory beside PyTorch, Burn and candle
    Train(train::Args),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Peers(args) => peers::run(args),
        What::Heads(args) => heads::run(args),
        What::Labels(args) => labels::run(args),
        What::Roofline(args) => roofline::run(args),
        What::Train(args) => train::run(args),
    }
}

#[derive(clap::Args)]
struct PythonArg {
    /// A Python that has the peers installed [default: a virtual environment made in target/peers]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

impl PythonArg {
    fn path(&self) -> Result<PathBuf> {
        match &self.python {
            Some(python) => Ok(std::path::absolute(python)?),
            None => virtual_environment(),
        }
    }
}

/// The peers in an environment of their own, made at the first call.
fn virtual_environment() -> Result<PathBuf> {
    let folder = folder().join("python");
    let python = folder.join("bin").join("python");
    let install = |packages: &[&str]| {
        process::run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))
    };
    // The folder is complete when its last package was tried.
    let complete = folder.join("complete");
    if !complete.exists() {
        process::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        install(PACKAGES)?;
        for packages in ENGINES {
            if let Err(error) = install(packages) {
                eprintln!("warning: {error:#}; to try again, delete {}", complete.display());
            }
        }
        std::fs::write(complete, "")?;
    }
    Ok(python)
}

/// Where peers and their models stand.
fn folder() -> PathBuf {
    process::root().join("target").join("peers")
}

/// Builds programs of `benches/peers`, and gives the folder that they stand in; one that cannot be built is told and missing.
fn build_rust_peers<'a>(names: impl IntoIterator<Item = &'a str>) -> PathBuf {
    let target = folder().join("rust");
    for name in names {
        let build =
            ["build", "--release", "--quiet", "--locked", "--manifest-path", "benches/peers/Cargo.toml"];
        let mut build = process::cargo(build);
        build.arg("--target-dir").arg(&target).args(["--features", name, "--bin", name]);
        if let Err(error) = process::run(&mut build) {
            eprintln!("warning: {error:#}");
            // Figures of an earlier build would pass for those of this one.
            let _ = std::fs::remove_file(target.join("release").join(name));
        }
    }
    target.join("release")
}

/// A script of the folder `scripts`, run from the repository's root.
fn script(python: &PathBuf, name: &str) -> Command {
    let mut command = Command::new(python);
    command.current_dir(process::root()).args(["-W", "ignore"]).arg(format!("scripts/{name}.py"));
    command
}

/// Builds the program `penjing`.
fn build_penjing() -> Result<()> {
    process::run(&mut process::cargo(["build", "--release", "--quiet", "--package", "penjing-cli"]))
}
