//! `penjing compress`.

mod budget;
mod states;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use penjing::{
    Error,
    compress::{
        self, Gate, Learning, Options, Ranging, Report, SHARES, Verdict,
        prune::{self, Criterion},
        ptq::Rounding,
        qat::{self, Taught, When},
        sparsify,
        storage::{Bits, weights_only},
    },
    data::{Dataset, Regex, Skipped, displayed, group_pattern},
    model::{self, Output},
    train::checkpoint,
};

use penjing_runtime::{file::Model, graph::Node, op::Op};

use self::states::{Stand, States};
use super::{ElsewhereArgs, Outcome, ThreadsArg, refuse, require_apart, say_resumable, say_skipped, units};
use crate::console::{Console, bytes};

/// What a search within a budget leaves no room for. What needs `--budget` names them too, as does what needs `--sparsify`
/// those after it: clap asks for nothing that could not be given.
const NOT_WITHIN_A_BUDGET: [&str; 20] = [
    "max_latency",
    "max_size",
    "prune",
    "prune_steps",
    "criterion",
    "blocks",
    "no_fit",
    "prune_epochs",
    "floats",
    "sparsify",
    "sparsify_epochs",
    "weights_only",
    "ranges",
    "per_tensor",
    "equalize",
    "keep_biases",
    "keep",
    "layers",
    "qat",
    "epochs",
];

/// What is about networks that compute in integers, and about weights that are rounded.
const OF_INTEGERS: [&str; 9] =
    ["weights_only", "ranges", "per_tensor", "equalize", "keep_biases", "keep", "layers", "qat", "epochs"];

/// Make a model smaller and faster, and prove it: or say why not, and write nothing
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model file in floats
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Photos: a folder with one sub-folder per class, train/val/test of those (val judges, test is left alone), or a CSV
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// The file to write
    #[arg(long, short, value_name = "MODEL")]
    output: PathBuf,
    /// Most percentage points that the accuracy may fall
    #[arg(long, value_name = "POINTS", default_value_t = 1.0, value_parser = points_parser)]
    max_drop: f64,
    /// Most that a photo may take, as a share of the time before [default: 1; with --weights-only anything]
    #[arg(long, value_name = "RATIO", value_parser = ratio_parser)]
    max_latency: Option<f64>,
    /// Most that the file may take, as a share of 32-bit floats
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio_parser)]
    max_size: f64,
    /// Look for the best network that takes no more than this, such as size=1MB,latency=10ms,ram=256KB or latency=0.5x (of the time
    /// before): over input sizes, channels and bits
    #[arg(long, value_name = "LIMITS", value_parser = budget::parse, conflicts_with_all = NOT_WITHIN_A_BUDGET)]
    budget: Option<budget::Limits>,
    /// How long the search within a budget may take
    #[arg(long, value_name = "TIME", default_value = "15m", requires = "budget", conflicts_with_all = NOT_WITHIN_A_BUDGET, value_parser = units::duration)]
    time: Duration,
    /// The latency of --budget is that on the machine of such a file; see `penjing bench --costs`
    #[arg(long, value_name = "FILE", requires = "budget", conflicts_with_all = NOT_WITHIN_A_BUDGET)]
    cost: Option<PathBuf>,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
    /// Another model in floats for the same classes, which the search may begin with too; may be given several times
    #[arg(long, value_name = "MODEL", requires = "budget", conflicts_with_all = NOT_WITHIN_A_BUDGET)]
    or: Vec<PathBuf>,
    /// Draw what the search found, as SVG
    #[arg(long, value_name = "FILE", requires = "budget", conflicts_with_all = NOT_WITHIN_A_BUDGET)]
    picture: Option<PathBuf>,
    /// Where no part of the photos is for validation, keep those together whose path below DATA matches alike (first group of the
    /// pattern, or all it matches), so that none judges what was learnt from another
    #[arg(long, value_name = "REGEX", requires = "budget", conflicts_with_all = NOT_WITHIN_A_BUDGET, value_parser = group_pattern)]
    group_by: Option<Regex>,
    /// Take channels away first: so much of the multiply-accumulates goes, a share from 0.05 to 0.95
    #[arg(long, value_name = "SHARE", value_parser = share_parser)]
    prune: Option<f64>,
    /// Prune in so many steps, each of which takes as large a share of what the one before left, and learns
    #[arg(long, value_name = "N", default_value_t = 1, requires = "prune", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_STEPS)))]
    prune_steps: u32,
    /// What tells channels that are missed from those that are not
    #[arg(long, value_name = "WAY", default_value = "surgeon", requires = "prune")]
    criterion: By,
    /// Whole residual blocks may go too
    #[arg(long, requires = "prune")]
    blocks: bool,
    /// Leave the weights that stay as they are, instead of fitting them to what their layers gave before: shows what a criterion is
    /// worth by itself
    #[arg(long, requires = "prune")]
    no_fit: bool,
    /// How often every photo is seen after pruning, 0 for not at all [default: by the number of photos]
    #[arg(long, value_name = "N", requires = "prune", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    prune_epochs: Option<u32>,
    /// Make weights of 1×1 convolutions zero, such a share of each layer's, from 0.05 to 0.95; the others stay floats
    #[arg(long, value_name = "SHARE", value_parser = share_parser, conflicts_with_all = OF_INTEGERS)]
    sparsify: Option<f64>,
    /// How often every photo is seen while they become so, 0 for not at all [default: by the number of photos]
    #[arg(long, value_name = "N", requires = "sparsify", conflicts_with_all = OF_INTEGERS, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    sparsify_epochs: Option<u32>,
    /// Prune and nothing else: numbers stay floats
    #[arg(long, requires = "prune", conflicts_with_all = OF_INTEGERS)]
    floats: bool,
    /// Round the weights alone, to 8 or 4 bits: a small file to send, which runs in floats as before
    #[arg(long, value_name = "BITS", conflicts_with_all = ["ranges", "per_tensor", "equalize", "keep_biases", "keep", "layers", "qat", "epochs"])]
    weights_only: Option<WeightBits>,
    /// How ranges are made of what is seen [default: all are tried]
    #[arg(long, value_name = "WAY")]
    ranges: Option<Ranges>,
    /// Most photos that are watched
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(10..=4096))]
    photos: u16,
    /// One scale for all weights of a layer, as some accelerators need it
    #[arg(long)]
    per_tensor: bool,
    /// Equalize weights between layers first; helps --per-tensor
    #[arg(long)]
    equalize: bool,
    /// Leave biases as they are
    #[arg(long)]
    keep_biases: bool,
    /// Whether the network learns to compute with integers, from the photos of the training part under the model in floats
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    qat: Qat,
    /// How often it sees every photo then [default: by the number of photos]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    epochs: Option<u32>,
    /// A layer that keeps its floats, by its name in `penjing inspect`; may be given several times
    #[arg(long, value_name = "LAYER")]
    keep: Vec<String>,
    /// Measure what each layer costs by itself
    #[arg(long)]
    layers: bool,
    /// Seed of the choice of photos, and of the training
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Overwrite the output, and throw away a state of other training beside it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum WeightBits {
    /// A scale for each output of a layer
    #[value(name = "8")]
    Eight,
    /// A scale for each 32 weights; 8 bits in layers whose outputs have fewer
    #[value(name = "4")]
    Four,
}

impl From<WeightBits> for Bits {
    fn from(bits: WeightBits) -> Self {
        match bits {
            WeightBits::Eight => Bits::Eight,
            WeightBits::Four => Bits::Four,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum By {
    /// What the layers that read a channel lose without it, their other weights fitted again (optimal brain surgeon)
    Surgeon,
    /// The sum of the weights' magnitudes
    L1,
    /// The weights' norm
    L2,
    /// BatchNorm's scale
    Scale,
    /// Gradient times weight (Taylor)
    Taylor,
    /// How far a filter is from the others (FPGM)
    Distance,
    /// Drawn; to compare with
    Random,
}

impl From<By> for Criterion {
    fn from(by: By) -> Self {
        match by {
            By::Surgeon => Criterion::Surgeon,
            By::L1 => Criterion::L1,
            By::L2 => Criterion::L2,
            By::Scale => Criterion::Scale,
            By::Taylor => Criterion::Taylor,
            By::Distance => Criterion::Distance,
            By::Random => Criterion::Random,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Ranges {
    /// From the least to the greatest value
    MinMax,
    /// Without the outermost values
    Percentile,
    /// With the least squared error
    Mse,
    /// With the least divergence
    Entropy,
}

impl From<Ranges> for Ranging {
    fn from(ranges: Ranges) -> Self {
        match ranges {
            Ranges::MinMax => Ranging::MinMax,
            Ranges::Percentile => Ranging::Percentile,
            Ranges::Mse => Ranging::Mse,
            Ranges::Entropy => Ranging::Entropy,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Qat {
    /// Where --max-drop would be missed
    Auto,
    /// It does not
    Never,
    /// In any case
    Always,
}

impl From<Qat> for When {
    fn from(qat: Qat) -> Self {
        match qat {
            Qat::Auto => When::Auto,
            Qat::Never => When::Never,
            Qat::Always => When::Always,
        }
    }
}

/// Most steps to prune in.
const MOST_STEPS: u32 = 10;

fn points_parser(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(points) if (0.0..=100.0).contains(&points) => Ok(points),
        _ => Err("expected 0 to 100 percentage points".into()),
    }
}

fn share_parser(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if SHARES.contains(&share) => Ok(share),
        _ => Err(format!("expected a share from {} to {}", SHARES.start(), SHARES.end())),
    }
}

fn ratio_parser(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.01..=100.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a ratio from 0.01 to 100".into()),
    }
}

#[derive(serde::Serialize)]
struct Compressed<'a> {
    #[serde(serialize_with = "displayed")]
    file: &'a Path,
    /// Whether the gate was passed and the file written.
    written: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prune: Option<&'a prune::Report>,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(serde::Serialize)]
struct Rounded<'a> {
    #[serde(serialize_with = "displayed")]
    file: &'a Path,
    written: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prune: Option<&'a prune::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparsify: Option<&'a sparsify::Report>,
    verdict: &'a Verdict,
    skipped: &'a [Skipped],
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    if let Some(limits) = args.budget {
        return budget::run(&args, limits, console);
    }
    if args.qat == Qat::Never && args.epochs.is_some() {
        let why = "--epochs is about training, and --qat never trains nothing; leave one out";
        return Err(refuse("compress", why).into());
    }
    let integers = args.weights_only.is_none() && !args.floats && args.sparsify.is_none();
    let states = States::beside(&args.output);
    let mut own = match args.prune {
        Some(_) if args.prune_epochs != Some(0) => prune::parts(&states.pruned, args.prune_steps),
        _ => Vec::new(),
    };
    if args.sparsify.is_some() && args.sparsify_epochs != Some(0) {
        own.push(states.sparse.clone());
    }
    if integers && args.qat != Qat::Never {
        own.push(states.learning.clone());
    }
    states.spare_others(&own, args.force)?;
    let stand = Stand::of(own);
    let done = steps(&args, &states, &stand, integers, console);
    let interrupted = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Error::Interrupted));
    if let Some(part) = stand.last_kept().filter(|_| done.as_ref().is_err_and(interrupted)) {
        say_resumable(part, console);
    }
    done
}

/// The steps that are asked for, one after another.
fn steps(
    args: &Args,
    states: &States,
    stand: &Stand,
    integers: bool,
    console: &Console,
) -> anyhow::Result<Outcome> {
    let part = &states.learning;
    require_apart(&args.output, Some(&args.model), "the model to make smaller")?;
    let output = Output::new(&args.output, args.force)?;
    let threads = args.threads.start()?;
    let model = model::load(&args.model)?;
    // Which file it is.
    model::in_floats(&model).map_err(|error| Error::model(&args.model, error.to_string()))?;
    let is_layer = |node: &&Node| matches!(node.op, Op::Conv(_) | Op::Linear { .. });
    let layers: Vec<&str> = model.graph.nodes().iter().filter(is_layer).map(|node| &*node.name).collect();
    if let Some(unknown) = args.keep.iter().find(|name| !layers.contains(&name.as_str())) {
        let what = format!("it has no layer with weights `{unknown}`; `penjing inspect` names its layers");
        return Err(Error::model(&args.model, what).into());
    }
    let data = Dataset::open(&args.data, None)?;
    for notice in &data.notices {
        console.say(&notice.to_string());
    }
    let gate = Gate {
        max_drop: args.max_drop / 100.0,
        max_latency: args.max_latency.unwrap_or(if args.weights_only.is_some() {
            f64::INFINITY
        } else {
            1.0
        }),
        max_size: args.max_size,
    };
    let learning = |by_default: Learning, epochs: Option<u32>, part: &Path| Learning {
        epochs: epochs.map(f64::from),
        part: Some(part.to_owned()),
        force: args.force,
        ..by_default
    };
    let mut options = Options {
        before: None,
        ranging: args.ranges.map(Into::into),
        rounding: Rounding {
            per_channel: !args.per_tensor,
            correct_biases: !args.keep_biases,
            floats: args.keep.iter().cloned().collect::<BTreeSet<_>>(),
        },
        equalize: args.equalize,
        photos: args.photos.into(),
        qat: qat::Options {
            when: args.qat.into(),
            learning: learning(qat::Options::default().learning, args.epochs, part),
        },
        gate,
        layers: args.layers,
        seed: args.seed,
    };
    let (model, pruned) = match args.prune {
        None => (model, None),
        Some(share) => {
            let how = prune::Options {
                share,
                steps: args.prune_steps,
                criterion: args.criterion.into(),
                blocks: args.blocks,
                mend: !args.no_fit,
                learning: learning(prune::Options::default().learning, args.prune_epochs, &states.pruned),
            };
            let (small, report) =
                prune::prune(&model, &data, args.photos.into(), &how, args.seed, &threads, console)?;
            say_skipped(&report.skipped, console);
            options.before = Some(model);
            (small, Some(report))
        }
    };
    let (model, sparse) = match args.sparsify {
        None => (model, None),
        Some(share) => {
            let how = sparsify::Options {
                before: options.before.clone(),
                share,
                learning: learning(
                    sparsify::Options::default().learning,
                    args.sparsify_epochs,
                    &states.sparse,
                ),
            };
            let (small, report) =
                sparsify::sparsify(&model, &data, args.photos.into(), &how, args.seed, &threads, console)?;
            say_skipped(&report.skipped, console);
            options.before.get_or_insert(model);
            (small, Some(report))
        }
    };
    let file = &args.output;
    let save = |small: &Model, verdict: &Verdict| -> penjing::Result<bool> {
        let written = verdict.passed();
        if written {
            output.save(small)?;
            // Where states of other work lie, they were to be thrown away.
            states.remove_others()?;
            if !integers {
                checkpoint::remove(part)?;
            }
        } else {
            let kept = stand.kept().filter(|kept| *kept != part);
            kept.for_each(|part| say_learnt(part, "", console));
        }
        Ok(written)
    };
    let about =
        pruned.as_ref().map_or_else(String::new, channels) + &sparse.as_ref().map_or_else(String::new, zeros);
    let (prune, sparsify) = (pruned.as_ref(), sparse.as_ref());
    if !integers {
        let (small, verdict, skipped) = match args.weights_only {
            Some(bits) => weights_only(&model, &data, bits.into(), &options, &threads, console)?,
            None => {
                let before = options.before.as_ref().unwrap_or(&model);
                let (verdict, skipped) =
                    compress::verdict(before, &model, &data, &options.gate, &threads, console)?;
                (model, verdict, skipped)
            }
        };
        say_skipped(&skipped, console);
        let written = save(&small, &verdict)?;
        let rounded = Rounded { file, written, prune, sparsify, verdict: &verdict, skipped: &skipped };
        let name = match args.weights_only {
            Some(_) => "weights",
            None if sparsify.is_some() => "sparse",
            None => "pruned",
        };
        console.result(&rounded, || figures(name, &verdict, args.max_drop) + &about)?;
        return Ok(outcome(file, &verdict, console));
    }
    let (small, report) = compress::int8(&model, &data, &options, &threads, console)?;
    say_skipped(&report.skipped, console);
    let written = save(&small, &report.verdict)?;
    let unasked = report.qat.is_none() && part.is_file() && !args.force;
    if written && unasked {
        // It may be of other work, which nobody asked to throw away.
        console.say(&format!("{}: what was learnt before was not needed; remove it", part.display()));
    } else if written {
        checkpoint::remove(part)?;
    }
    console
        .result(&Compressed { file, written, prune, report: &report }, || describe(args, &report) + &about)?;
    if !written && report.qat.is_some() && part.is_file() {
        // Where less is asked, rounding alone may be enough, which need not be as good.
        say_learnt(part, " and --qat always", console);
    }
    Ok(outcome(file, &report.verdict, console))
}

/// Says that a missed gate has not cost what was learnt, and what `also` is to be given to have it.
fn say_learnt(part: &Path, also: &str, console: &Console) {
    console.say(&format!(
        "{}: what it has learnt; with another --max-drop, --max-latency or --max-size{} it need not be learnt again",
        part.display(),
        also
    ));
}

/// What went.
fn channels(report: &prune::Report) -> String {
    let prune::Report { share, macs, params, sets, blocks, epochs, steps, seconds, .. } = report;
    let mut text = format!(
        "\npruned: {:.1} % of the multiply-accumulates gone ({:.1} → {:.1} million), {:.1} % of the parameters; \
         {epochs} epochs ({steps} steps) in {seconds:.0} s\n",
        100.0 * share,
        macs[0] as f64 / 1e6,
        macs[1] as f64 / 1e6,
        100.0 * (1.0 - params[1] as f64 / params[0] as f64),
    );
    for set in sets.iter().filter(|set| set.after < set.before) {
        let _ = writeln!(text, "  {:28} {:>5} → {:>5}", set.name, set.before, set.after);
    }
    for block in blocks.iter().filter(|block| block.gone) {
        let _ = writeln!(text, "  {:28} the whole block", block.name);
    }
    text
}

/// What became zero.
fn zeros(report: &sparsify::Report) -> String {
    let sparsify::Report { share, weights, epochs, steps, seconds, .. } = report;
    format!(
        "\nsparse: {:.1} % of the weights of 1×1 convolutions zero ({} of {} left); {epochs} epochs ({steps} steps) in \
         {seconds:.0} s\n",
        100.0 * share,
        weights[1],
        weights[0],
    )
}

/// What a verdict comes to; a missed gate is said.
fn outcome(output: &Path, verdict: &Verdict, console: &Console) -> Outcome {
    if verdict.passed() {
        return Outcome::Done;
    }
    console.error(&format!("{}: not written: {}", output.display(), verdict.missed.join("; ")));
    Outcome::SomeFailed
}

/// Both models side by side.
fn figures(small: &str, verdict: &Verdict, max_drop: f64) -> String {
    let [before, after] = [&verdict.before, &verdict.after];
    let mut text = format!(
        "{:14} {:>10} {:>10}\n{:14} {:>8.2} % {:>8.2} %   on {} {} photos, the same answer on {:.2} %\n\
         {:14} {:>7.2} ms {:>7.2} ms   × {:.2}, one thread\n{:14} {:>10} {:>10}   × {:.2}\n",
        "",
        "floats",
        small,
        "top-1",
        100.0 * before.top1,
        100.0 * after.top1,
        verdict.photos,
        verdict.part,
        100.0 * verdict.distance.agreement,
        "latency",
        before.latency_ms,
        after.latency_ms,
        verdict.latency_ratio,
        "file",
        bytes(before.file_bytes as u64),
        bytes(after.file_bytes as u64),
        after.file_bytes as f64 / before.file_bytes as f64,
    );
    if verdict.part == "training" {
        text += "the photos that judged are those that the model learnt from, most likely; a val folder would tell more\n";
    }
    let each = 100.0 / verdict.photos as f64;
    // Who allows nothing to be lost knows that.
    if max_drop > 0.0 && each > max_drop {
        let _ = writeln!(
            text,
            "one of these photos is {each:.2} points, so that --max-drop {max_drop} allows none less to be right; more photos would \
             tell more"
        );
    }
    text
}

fn describe(args: &Args, report: &Report) -> String {
    let mut text = figures("8 bits", &report.verdict, args.max_drop);
    let _ = writeln!(text, "\nranges by {} over {} photos", report.ranging.name(), report.watched);
    if report.tried.len() > 1 {
        for (ranging, distance) in &report.tried {
            let _ = writeln!(text, "  {:10} divergence {:.5}", ranging.name(), distance.divergence);
        }
    }
    if let Some(taught) = &report.qat {
        let _ = writeln!(text, "{}", told(taught));
    }
    if !report.floats.is_empty() {
        let _ = writeln!(text, "floats kept in {}", report.floats.join(", "));
    }
    if args.layers || !report.verdict.passed() {
        let _ = writeln!(text, "\n{:28} {:>10} {:>18}", "layer", "SQNR", "divergence alone");
        for layer in &report.layers {
            let sqnr = layer.sqnr_db.map_or("–".into(), |db| format!("{db:.1} dB"));
            let alone = layer.alone.map_or("–".into(), |divergence| format!("{divergence:.6}"));
            let note = if layer.int8 { "" } else { "  floats" };
            let _ = writeln!(text, "{:28} {sqnr:>10} {alone:>18}{note}", layer.name);
        }
    }
    text
}

/// What training did.
fn told(taught: &Taught) -> String {
    let Taught { epochs, steps, photos, seconds, top1_before, top1_after, kept, stopped, .. } = taught;
    let outcome = match (top1_after, stopped) {
        (Some(after), _) if *kept => format!("{:.2} % after", 100.0 * after),
        (Some(after), _) => format!("{:.2} % after, not kept", 100.0 * after),
        (None, why) => why.clone().unwrap_or_default(),
    };
    format!(
        "learnt with integers: {epochs} epochs of {photos} photos, {steps} steps in {seconds:.0} s; top-1 {:.2} % before, \
         {outcome}",
        100.0 * top1_before,
    )
}
