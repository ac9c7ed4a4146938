//! `cargo xtask bench train`: a training step beside PyTorch's, Burn's and candle's.

use anyhow::Result;

use super::PythonArg;
use crate::process;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    python: PythonArg,
    /// Interleaved rounds
    #[arg(long, default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

pub fn run(args: &Args) -> Result<()> {
    super::build_penjing()?;
    let programs = super::build_rust_peers(["burn", "candle"]);
    let mut script = super::script(&args.python.path()?, "train_speed");
    process::run(script.args(["--rounds", &args.rounds.to_string(), "--programs"]).arg(programs))
}
