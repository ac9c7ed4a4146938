//! `penjing bench`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use penjing::{
    Error,
    costs::{Costs, in_words},
    model::{self, Output},
    progress::Progress as _,
    runner::Runner,
    threads::Threads,
    train::{
        learner::{Learner, Method},
        optimizer::{Rates, Rule},
        parameters::Parameters,
        tape::{Policy, Statistics, Tape},
        trainer::AT_ONCE,
    },
    zoo::{self, Network},
};

use penjing_runtime::Isa;

use super::{ElsewhereArgs, Outcome, ThreadsArg, arch_parser, size_parser};
use crate::console::{Console, peak_rss_bytes};

/// Say how fast a model runs here, one photo at a time
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model file
    #[arg(value_name = "MODEL", required_unless_present_any = ["arch", "costs"], conflicts_with_all = ["arch", "costs"])]
    model: Option<PathBuf>,
    /// A network with random weights instead, such as mobilenet_v2 or mobilenet_v2_x0.5, or one of your own, such as my_net.toml
    #[arg(long, value_name = "NAME", value_parser = arch_parser, conflicts_with = "costs")]
    arch: Option<String>,
    /// Input size of --arch in pixels [default: the published one]
    #[arg(long, value_name = "PX", requires = "arch", conflicts_with_all = ["model", "costs"], value_parser = size_parser())]
    size: Option<usize>,
    /// Classes of --arch
    #[arg(long, value_name = "N", requires = "arch", conflicts_with_all = ["model", "costs"], default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    classes: u32,
    /// Measure training steps of the whole network too: forward, backward and update under the batch's own statistics
    // It learns on the best instruction set there is.
    #[arg(long, requires = "arch", conflicts_with_all = ["model", "costs", "isa"])]
    train: bool,
    /// Photos of a training step
    #[arg(long, value_name = "N", requires = "train", conflicts_with_all = ["model", "costs", "isa"], default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Measure training with frozen statistics, as in fine-tuning
    #[arg(long, requires = "train", conflicts_with_all = ["model", "costs", "isa"])]
    frozen: bool,
    /// How long to measure, in seconds [default: 3; for --costs 60]
    #[arg(long, value_name = "S", value_parser = seconds_parser)]
    seconds: Option<f64>,
    /// The instruction set to use, such as avx2 or neon [default: the best there is]
    #[arg(long, value_name = "ISA", value_parser = isa_parser)]
    isa: Option<Isa>,
    /// Measure what the steps of networks take here and write it to a file, from which other machines tell what any network
    /// takes here
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Overwrite the file of --costs
    #[arg(long, requires = "costs", conflicts_with_all = ["model", "arch", "cost"])]
    force: bool,
    /// Tell too what the network takes on the machine of such a file
    #[arg(long, value_name = "FILE", conflicts_with = "costs")]
    cost: Option<PathBuf>,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(serde::Serialize)]
struct Measured {
    threads: usize,
    isa: &'static str,
    runs: usize,
    latency_ms: Percentiles,
    images_per_s: f64,
    peak_rss_bytes: Option<u64>,
    /// What the network takes on the machine of a file of costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    elsewhere: Option<Elsewhere>,
    /// Images a second through training steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    train_images_per_s: Option<f64>,
    /// Bytes that the training step takes by plan: maps, gradients, packed weights, weights and the optimizer's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    train_planned_bytes: Option<u64>,
    /// The process's greatest resident memory after the training steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    train_peak_bytes: Option<u64>,
}

#[derive(serde::Serialize)]
struct Elsewhere {
    machine: String,
    isa: String,
    threads: usize,
    /// Of a photo.
    latency_ms: f64,
    /// Root of the mean squared relative error of the networks that were measured there.
    error: f64,
}

#[derive(serde::Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
}

fn isa_parser(name: &str) -> Result<Isa, String> {
    let known: Vec<&str> = Isa::available().map(Isa::name).collect();
    Isa::named(name).ok_or_else(|| format!("this machine has {}", known.join(", ")))
}

fn seconds_parser(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0.01 to 3600".into()),
    }
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    let isa = args.isa.unwrap_or_else(Isa::detect);
    if let Some(path) = &args.costs {
        return measure(path, &args, isa, console);
    }
    let threads = args.threads.start()?;
    let costs = args.elsewhere.costs(args.cost.as_deref())?;
    let (graph, weights, pixels) = match (&args.model, &args.arch) {
        (Some(path), _) => {
            let model = model::load(path)?;
            (model.graph, model.weights, model.pixels)
        }
        (None, name) => {
            let network = Network::named(name.as_deref().unwrap_or_default())?;
            let size = args.size.unwrap_or(network.size());
            let graph = network.graph(size, args.classes as usize)?;
            let weights = zoo::random_weights(&graph, 0);
            (graph, weights, network.pixels(size))
        }
    };
    let elsewhere = match costs {
        None => None,
        Some(costs) => {
            let latency_ms = (costs.predict(&graph, &weights)? * 1e3).round() / 1e3;
            let Costs { machine, isa, threads, error, .. } = costs;
            Some(Elsewhere { machine, isa, threads, latency_ms, error })
        }
    };
    let runner = Runner::new(&graph, &weights, &pixels, threads.count())?.on(isa);
    drop((graph, weights));
    let seconds = args.seconds.unwrap_or(SECONDS);
    let times = times(&runner, &threads, seconds, console)?;
    let total: Duration = times.iter().sum();
    let percentile = |share: f64| {
        let index = (share * (times.len() - 1) as f64).round() as usize;
        (times[index].as_secs_f64() * 1e6).round() / 1e3
    };
    let (latency_peak, isa) = (peak_rss_bytes(), runner.isa().name());
    drop(runner);
    let training = if args.train { Some(training(&args, &threads, console)?) } else { None };
    let measured = Measured {
        threads: threads.count(),
        isa,
        runs: times.len(),
        latency_ms: Percentiles { p50: percentile(0.5), p90: percentile(0.9), p99: percentile(0.99) },
        images_per_s: (times.len() as f64 / total.as_secs_f64() * 10.0).round() / 10.0,
        peak_rss_bytes: latency_peak,
        elsewhere,
        train_images_per_s: training.map(|training| training.images_per_s),
        train_planned_bytes: training.map(|training| training.planned_bytes),
        train_peak_bytes: training.and_then(|_| peak_rss_bytes()),
    };
    console.result(&measured, || {
        let Percentiles { p50, p90, p99 } = measured.latency_ms;
        let memory = measured.peak_rss_bytes.map_or(String::new(), |peak| format!("   peak memory {}", crate::console::bytes(peak)));
        format!(
            "p50 {p50:.2} ms   p90 {p90:.2} ms   p99 {p99:.2} ms   {:.1} images/s   {} threads, {}, {} runs{memory}\n",
            measured.images_per_s, measured.threads, measured.isa, measured.runs
        ) + &measured.elsewhere.as_ref().map_or(String::new(), |there| {
            format!(
                "there      {:.2} ms ± {:.0} %   {}, {}\n",
                there.latency_ms,
                100.0 * there.error,
                there.machine,
                in_words(&there.isa, there.threads)
            )
        }) + &training.map_or(String::new(), |training| {
            format!(
                "training {:.1} images/s   planned memory {}   peak memory {}\n",
                training.images_per_s,
                crate::console::bytes(training.planned_bytes),
                measured.train_peak_bytes.map_or("unknown".into(), crate::console::bytes)
            )
        })
    })?;
    Ok(Outcome::Done)
}

const SECONDS: f64 = 3.0;
/// For the costs of all kinds of steps.
const SECONDS_OF_COSTS: f64 = 60.0;

/// Measures what steps take here.
fn measure(path: &Path, args: &Args, isa: Isa, console: &Console) -> anyhow::Result<Outcome> {
    let output = Output::new(path, args.force)?;
    let threads = args.threads.start()?;
    let costs = Costs::measure(isa, &threads, args.seconds.unwrap_or(SECONDS_OF_COSTS), console)?;
    output.write(&costs.to_bytes())?;
    console.result(&costs, || {
        let mut text = format!("{:44} {:>10} {:>10}\n", "", "measured", "predicted");
        for network in &costs.networks {
            let (name, measured, predicted) = (&network.name, network.measured_ms, network.predicted_ms);
            let _ = writeln!(text, "{name:44} {measured:>7.2} ms {predicted:>7.2} ms");
        }
        let _ = writeln!(
            text,
            "{}: {}, {}; networks are predicted by the others to ± {:.0} %",
            path.display(),
            costs.machine,
            in_words(&costs.isa, costs.threads),
            100.0 * costs.error
        );
        let ways = costs.ways.iter().map(|way| (in_words(&way.isa, way.threads), 100.0 * way.error));
        for (way, error) in ways {
            let _ = writeln!(text, "  and with --cost-isa and --cost-threads {way}, to ± {error:.0} %");
        }
        text
    })?;
    Ok(Outcome::Done)
}

/// How long each run took in about so many seconds, after a tenth of them to warm up: five at least, the shortest first.
pub fn times(
    runner: &Runner,
    threads: &Threads,
    seconds: f64,
    console: &Console,
) -> penjing::Result<Vec<Duration>> {
    let input: Vec<f32> =
        (0..runner.plan().plan().input.len).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
    let (mut times, budget, workers) = (Vec::new(), Duration::from_secs_f64(seconds), threads.workers());
    // The whole measurement runs on a thread of the pool, so that a run does not pay for waking it.
    let interrupted = threads.install(|| {
        let start = Instant::now();
        while start.elapsed() < budget / 10 && !console.cancelled() {
            runner.run_tensor(&input, workers);
        }
        let start = Instant::now();
        while start.elapsed() < budget || times.len() < 5 {
            if console.cancelled() {
                return true;
            }
            let run = Instant::now();
            runner.run_tensor(&input, workers);
            times.push(run.elapsed());
        }
        false
    });
    if interrupted {
        return Err(Error::Interrupted);
    }
    times.sort_unstable();
    Ok(times)
}

#[derive(Clone, Copy)]
struct Training {
    images_per_s: f64,
    planned_bytes: u64,
}

/// Times whole training steps: the median.
fn training(args: &Args, threads: &Threads, console: &Console) -> anyhow::Result<Training> {
    let network = Network::named(args.arch.as_deref().unwrap_or_default())?;
    let size = args.size.unwrap_or(network.size());
    let batch = usize::from(args.batch);
    let graph = network.graph(size, args.classes as usize)?;
    let parameters = Parameters::new(&graph, &zoo::random_weights(&graph, 0))?;
    let statistics = if args.frozen { Statistics::Frozen } else { Statistics::Batch };
    let at_once = if args.frozen { batch.min(AT_ONCE) } else { batch };
    let graph =
        graph.with_input([at_once, size, size, 3]).map_err(|error| Error::Unsupported(error.to_string()))?;
    let method = Method {
        rule: Rule::Sgd { momentum: 0.9, nesterov: false },
        decay: 0.0,
        clip: None,
        rates: Rates { head: 1e-3, last: 1e-3, middle: 1e-3, first: 1e-3 },
        policy: Policy::whole(statistics),
        momentum: 0.1,
    };
    let values = parameters.len() as u64;
    // Weights, gradients and the velocity.
    let planned_bytes = Tape::bytes(&graph, &method.policy)? + 3 * 4 * values;
    let mut learner = Learner::new(&graph, parameters, &method)?;
    let images = batch.div_ceil(at_once) * at_once;
    let inputs: Vec<f32> = (0..images * size * size * 3).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
    let mut targets = vec![0.0; images * args.classes as usize];
    for (image, row) in targets.chunks_exact_mut(args.classes as usize).enumerate() {
        row[image % args.classes as usize] = 1.0;
    }
    let mut times = Vec::new();
    let interrupted = threads.install(|| {
        let start = Instant::now();
        while times.len() < 6 || start.elapsed().as_secs_f64() < args.seconds.unwrap_or(SECONDS) {
            if console.cancelled() {
                return true;
            }
            let step = Instant::now();
            learner.step(&inputs, &targets, 0, 1.0);
            times.push(step.elapsed().as_secs_f64());
        }
        false
    });
    if interrupted {
        return Err(Error::Interrupted.into());
    }
    // The first one touches all memory.
    let mut times = times.split_off(1);
    times.sort_unstable_by(f64::total_cmp);
    let images_per_s = (images as f64 / times[times.len() / 2] * 10.0).round() / 10.0;
    Ok(Training { images_per_s, planned_bytes })
}
