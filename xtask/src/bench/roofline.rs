//! `cargo xtask bench roofline`: each layer's time beside what the processor's arithmetic and memory allow.

use anyhow::Result;

use crate::{machine, process};

#[derive(clap::Args)]
pub struct Args {
    /// The instruction set to use (scalar, avx2, avx512) [default: the best there is]
    #[arg(value_name = "ISA")]
    isa: Option<String>,
    /// The layers' gradients too, each beside the processor's arithmetic
    #[arg(long)]
    backward: bool,
}

pub fn run(args: &Args) -> Result<()> {
    println!("{}", machine::described());
    let example =
        ["run", "--release", "--quiet", "--package", "penjing-kernels", "--example", "kernel_bench"];
    let what = if args.backward { "gradients" } else { "roofline" };
    process::run(process::cargo(example).args(["--", what]).args(&args.isa))
}
