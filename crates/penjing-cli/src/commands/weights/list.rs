//! `penjing weights list`.

use std::fmt::Write as _;

use penjing::{
    progress::Progress as _,
    runner::Runner,
    zoo::{self, ARCHS},
};

use super::{
    super::{Outcome, ThreadsArg, bench, pulled},
    LATENCY_SECONDS, median_ms, totals,
};
use crate::console::Console;

/// List the networks: what they cost, how good their published weights are, and whether weights are at hand
#[derive(Debug, clap::Args)]
pub struct List {
    /// Measure the latency of each on this machine, which takes half a minute
    #[arg(long)]
    latency: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(serde::Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    /// Of the input, in pixels.
    size: usize,
    params: u64,
    macs: u64,
    /// On ImageNet, or CIFAR-10 at 32 px, of weights that were published; a fraction.
    published_top1: f64,
    /// The widths that exist, if not any.
    widths: &'static [f64],
    /// Whose forms of weights can be imported.
    forms: Vec<&'static str>,
    inside: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// Whether they were pulled.
    here: bool,
}

pub fn list(args: List, console: &Console) -> anyhow::Result<Outcome> {
    let inside = penjing::model::bundled();
    let threads = args.threads.start()?;
    console.begin("measuring", if args.latency { ARCHS.len() } else { 0 });
    let mut listed = Vec::new();
    for arch in ARCHS {
        let config = arch.config(if arch.size == 32 { 10 } else { 1000 });
        let graph = arch.graph(&config)?;
        let (params, macs) = totals(&graph);
        let here = inside.as_ref().filter(|model| model.arch == arch.name);
        let latency_ms = if args.latency {
            let weights = zoo::random_weights(&graph, 0);
            let runner = Runner::new(&graph, &weights, &arch.pixels(&config), threads.count())?;
            let times = bench::times(&runner, &threads, LATENCY_SECONDS, console)?;
            console.advance(1);
            Some(median_ms(&times))
        } else {
            None
        };
        listed.push(Listed {
            name: arch.name,
            about: arch.about,
            size: arch.size,
            params,
            macs,
            published_top1: (arch.top1 * 10.0).round() / 1000.0,
            widths: arch.widths,
            forms: arch.forms.iter().map(|form| form.of).collect(),
            inside: here.is_some(),
            license: here.map(|model| model.provenance.license.clone()),
            latency_ms,
            here: pulled(arch.name).is_some(),
        });
    }
    console.end();
    console.result(&listed, || table(&listed))?;
    Ok(Outcome::Done)
}

fn table(listed: &[Listed]) -> String {
    let mut text =
        format!("{:28}{:9}{:>8}{:>9}{:>7}{:>10}", "network", "weights", "params", "MACs", "px", "top-1");
    let measured = listed.iter().any(|arch| arch.latency_ms.is_some());
    text += if measured { "   latency\n" } else { "\n" };
    for arch in listed {
        let place = match (arch.inside, arch.here) {
            (true, _) => "inside",
            (false, true) => "here",
            (false, false) => "–",
        };
        let millions = |count: u64| count as f64 / 1e6;
        let _ = write!(
            text,
            "{:28}{place:9}{:>6.2} M{:>7.0} M{:>7}{:>8.1} %",
            arch.name,
            millions(arch.params),
            millions(arch.macs),
            arch.size,
            100.0 * arch.published_top1
        );
        if let Some(ms) = arch.latency_ms {
            let _ = write!(text, "{ms:>7.2} ms");
        }
        text.push('\n');
    }
    text += "top-1: of published weights on ImageNet (resnet8: on CIFAR-10). Another width: NAME_x0.5\n";
    text
}
