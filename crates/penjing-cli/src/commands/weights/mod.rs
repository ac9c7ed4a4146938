//! `penjing weights`.

mod advise;
mod import;
mod list;
#[cfg(feature = "pull")]
mod pull;

use std::time::Duration;

use penjing_runtime::{cost, graph::Graph};

use super::Outcome;
use crate::console::Console;

/// Bring pretrained weights, or list the networks there are
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(list::List),
    Import(import::Import),
    #[cfg(feature = "pull")]
    Pull(pull::Pull),
    #[cfg(feature = "pull")]
    Verify(pull::Verify),
    Advise(advise::Advise),
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    match args.verb {
        Verb::List(args) => list::list(args, console),
        Verb::Import(args) => import::import(args, console),
        #[cfg(feature = "pull")]
        Verb::Pull(args) => pull::pull(args, console),
        #[cfg(feature = "pull")]
        Verb::Verify(args) => pull::verify(&args, console),
        Verb::Advise(args) => advise::advise(args, console),
    }
}

/// How long each network is measured, in seconds.
const LATENCY_SECONDS: f64 = 0.5;

/// Parameters and multiply-accumulates of a network.
fn totals(graph: &Graph) -> (u64, u64) {
    cost::layers(graph).iter().fold((0, 0), |sum, layer| (sum.0 + layer.params, sum.1 + layer.macs))
}

/// In milliseconds, of times in order.
fn median_ms(times: &[Duration]) -> f64 {
    (times[times.len() / 2].as_secs_f64() * 1e5).round() / 1e2
}
