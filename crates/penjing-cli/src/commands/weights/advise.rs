//! `penjing weights advise`.

use std::{fmt::Write as _, path::PathBuf};

use penjing::{
    data::Dataset,
    model::Model,
    runner::Runner,
    transfer::{
        adapt::{Input, adapt},
        advise as transfer, cache,
    },
};
use penjing_runtime::pixels::DecodeRule;

use super::{
    super::{Outcome, ThreadsArg, all_pulled, bench, pulled, say_skipped},
    LATENCY_SECONDS, median_ms, totals,
};
use crate::console::Console;

/// Rank backbones for some photos by what their features say of the classes, without training any
#[derive(Debug, clap::Args)]
pub struct Advise {
    /// A folder with one sub-folder per class, train/val/test of those (test is not used), or a CSV
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Backbones as model files, beside the one inside the program and those that were pulled
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Which photos are looked at, where there are more than a thousand
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where features are kept [default: the user's cache folder]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no features
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(serde::Serialize)]
struct Advised {
    name: String,
    #[serde(flatten)]
    advice: transfer::Advice,
    params: u64,
    macs: u64,
    latency_ms: f64,
}

pub fn advise(args: Advise, console: &Console) -> anyhow::Result<Outcome> {
    let threads = args.threads.start()?;
    let data = Dataset::open(&args.data, None)?;
    data.require_two_classes()?;
    let mut backbones: Vec<(String, Model)> =
        penjing::model::bundled().map(|model| (model.arch.clone(), model)).into_iter().collect();
    for path in all_pulled().into_iter().filter_map(pulled) {
        let model = penjing::model::load(&path)?;
        backbones.push((model.arch.clone(), model));
    }
    for path in &args.models {
        backbones.push((path.display().to_string(), penjing::model::load(path)?));
    }
    let photos = transfer::sample(&data, args.seed);
    let cache = if args.no_cache { None } else { args.cache.or_else(cache::default_dir) };
    let (mut advised, mut skipped) = (Vec::new(), Vec::new());
    for (name, model) in backbones {
        let model = adapt(&model, &Input { decode: Some(DecodeRule::REDUCED), ..Input::default() })?;
        console.say(&name);
        let (advice, left_out) =
            transfer::advise(&data, &photos, &model, cache.as_deref(), &threads, console)?;
        skipped = left_out;
        let runner = Runner::new(&model.graph, &model.weights, &model.pixels, threads.count())?;
        let times = bench::times(&runner, &threads, LATENCY_SECONDS, console)?;
        let (params, macs) = totals(&model.graph);
        advised.push(Advised { name, advice, params, macs, latency_ms: median_ms(&times) });
    }
    say_skipped(&skipped, console);
    advised.sort_by(|a, b| b.advice.logme.total_cmp(&a.advice.logme));
    console.result(&advised, || {
        let width = advised.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let mut text = format!(
            "{:width$}  {:>7}  {:>8}  {:>8}  {:>8}  {:>9}\n",
            "backbone", "LogME", "left out", "params", "MACs", "latency"
        );
        for Advised { name, advice, params, macs, latency_ms } in &advised {
            let _ = writeln!(
                text,
                "{name:width$}  {:>7.3}  {:>6.1} %  {:>6.2} M  {:>6.0} M  {latency_ms:>6.2} ms",
                advice.logme,
                100.0 * advice.left_out_top1,
                *params as f64 / 1e6,
                *macs as f64 / 1e6
            );
        }
        text
    })?;
    Ok(Outcome::Done)
}
