//! Chores of the penjing workspace: `cargo xtask VERB`, one file a verb.
#![forbid(unsafe_code)]

mod bench;
mod budget;
mod check;
mod demo;
mod docs;
mod evidence;
mod floors;
mod fuzz;
mod machine;
mod mutate;
mod process;
mod spills;
mod test_aarch64;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the penjing workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Everything a contribution must pass, step by step
    Check(check::Args),
    /// Who may import whom, where third-party crates and `unsafe` may stand, how long a file may be
    Floors,
    /// Speed beside the peers, and beside what the machine can do
    Bench(bench::Args),
    /// Build time, binary size, lines of code and number of dependencies
    Budget(budget::Args),
    /// The whole way on the embedded example: unpack, train, evaluate, classify
    Demo(demo::Args),
    /// Run the commands of README.md and docs/ that are marked `<!-- run -->`
    Docs,
    /// Measured figures, one small file a run, and their table
    Evidence(evidence::Args),
    /// Run every fuzz target for a while
    Fuzz(fuzz::Args),
    /// Break the code in one place after the other; name the test that notices each
    Mutate(mutate::Args),
    /// Whether the innermost loops of the kernels keep their sums in registers, by their assembly
    Spills,
    /// The tests of the kernels on emulated aarch64 CPUs, and whether their sums stay in registers there
    TestAarch64,
}

fn main() -> ExitCode {
    match run(Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Check(args) => check::run(&args),
        Verb::Floors => floors::run(),
        Verb::Bench(args) => bench::run(&args),
        Verb::Budget(args) => budget::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Docs => docs::run(),
        Verb::Evidence(args) => evidence::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Mutate(args) => mutate::run(&args),
        Verb::Spills => spills::run(),
        Verb::TestAarch64 => test_aarch64::run(),
    }
}
