//! `penjing train`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use penjing::{
    Error,
    classifier::Classifier,
    data::{Dataset, Part, Regex, Skipped, displayed, group_pattern},
    eval::evaluate,
    model::{self, Output},
    train::{checkpoint, log::Log, trainer::EpochRecord},
    transfer::{
        self, Candidate, Options,
        adapt::{FitKind, Input},
        cache,
        distill::{By, Distillation},
        head::Tried,
        plan::RecipeKind,
    },
};

use penjing_runtime::pixels::DecodeRule;

use super::{
    Decode, Outcome, ThreadsArg, backbone, backbone_parser, refuse, require_apart, say_resumable,
    say_skipped, size_parser, spare, units, untrained, without_weights,
};
use crate::console::{Console, bytes, peak_rss_bytes, round};

/// Turn labelled photos into a classifier
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder with one sub-folder per class, train/val/test of those, or a CSV with the columns path and label, and if wanted split and group
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// The model file to write
    #[arg(long, short, value_name = "MODEL")]
    output: PathBuf,
    /// What to start from: a model file, the name of a network that was pulled, such as mobilenet_v2_x0.5, or with --recipe scratch of any, or a declaration of one's own, such as my_net.toml [default: the EfficientNet-Lite0 inside the program]
    #[arg(long, value_name = "MODEL", value_parser = backbone_parser())]
    backbone: Option<PathBuf>,
    /// Go on from a classifier of your own: its network goes on, new classes join its own; DATA must hold photos of all of them
    #[arg(long, value_name = "MODEL", conflicts_with = "backbone")]
    from: Option<PathBuf>,
    /// What is learnt
    #[arg(long, value_name = "RECIPE", default_value = "auto")]
    recipe: Recipe,
    /// A classifier that teaches the network, such as a larger one trained on the same photos; it must know all classes of DATA. With --recipe scratch, finetune or full
    #[arg(long, value_name = "MODEL")]
    teacher: Option<PathBuf>,
    /// How the network listens to the teacher [default: auto]
    #[arg(long, value_name = "HOW", requires = "teacher")]
    distill: Option<Distill>,
    /// Folder of photos without labels, which the teacher alone explains
    #[arg(long, value_name = "DIR", requires = "teacher")]
    unlabelled: Option<PathBuf>,
    /// How often training of the whole network sees every photo [default: by the number of photos and how well the head tells them apart]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    epochs: Option<u32>,
    /// How long all of it may take, such as 90s, 10m or 1h30m; training of the whole network is shortened to fit
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    time: Option<Duration>,
    /// Memory that training of the whole network may take, such as 500MB [default: most of what is free]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    memory: Option<u64>,
    /// Training of the whole network sees each photo as often as any other (0), each class as often as any other (1), or something between [default: 0.5 where one class has more than three times the photos of another, else 0]
    #[arg(long, value_name = "0..1", value_parser = units::share)]
    balance: Option<f64>,
    /// How the training goes, as a line of JSON for each step and epoch, appended to this file; a head alone writes none
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Input size in pixels [default: the backbone's; 128 for many small photos, where the whole network is trained]
    #[arg(long, value_name = "PX", value_parser = size_parser())]
    size: Option<usize>,
    /// Keep photos together whose path below DATA matches alike (first group of the pattern, or all it matches)
    #[arg(long, value_name = "REGEX", value_parser = group_pattern)]
    group_by: Option<Regex>,
    /// One gray channel instead of colours
    #[arg(long)]
    gray: bool,
    /// What happens to photos that are not square [default: the backbone's, crop]
    #[arg(long, value_name = "HOW")]
    fit: Option<Fit>,
    /// How JPEG files are decoded, in training and in use [default: reduced, with --from the model's own]
    #[arg(long, value_name = "HOW")]
    decode: Option<Decode>,
    /// Views of each photo that the head learns from: 1 plain, 2 also mirrored, more also cropped [default: 16
    /// below 500 photos, 4 below 2,000, 2 below 10,000, else 1; with --time 4 at most; 1 where the others led astray on
    /// held-out photos]. Given as 1, the whole network sees no mirrored photos either
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    views: Option<u8>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder where features are kept for the next run [default: the platform's cache folder]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no features
    #[arg(long)]
    no_cache: bool,
    /// Overwrite the output, and throw away the state of other training beside it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Fit {
    /// Cut out the centre
    Crop,
    /// Keep the whole photo and fill the rest
    Pad,
    /// Stretch the whole photo
    Squash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Recipe {
    /// The head first; the whole network where held-out photos gain by it
    Auto,
    /// A linear head on the frozen backbone's features: seconds
    Head,
    /// The whole network from that head, its running statistics frozen: minutes
    Finetune,
    /// The whole network from that head, its statistics learnt too: for photos unlike the backbone's
    Full,
    /// The whole network from random weights
    Scratch,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Distill {
    /// As kd, beside training of as many steps without the teacher; kept only where held-out photos gain by it
    Auto,
    /// Softened probabilities of the teacher
    Kd,
    /// The same, decoupled: those of the photo's class apart from those among the others
    Dkd,
    /// As kd, and the teacher's features in the first fifth of the steps
    Hints,
}

impl From<Distill> for By {
    fn from(distill: Distill) -> Self {
        match distill {
            Distill::Auto => By::Auto,
            Distill::Kd => By::Kd,
            Distill::Dkd => By::Dkd,
            Distill::Hints => By::Hints,
        }
    }
}

impl From<Recipe> for RecipeKind {
    fn from(recipe: Recipe) -> Self {
        match recipe {
            Recipe::Auto => RecipeKind::Auto,
            Recipe::Head => RecipeKind::Head,
            Recipe::Finetune => RecipeKind::Finetune,
            Recipe::Full => RecipeKind::Full,
            Recipe::Scratch => RecipeKind::Scratch,
        }
    }
}

impl From<Fit> for FitKind {
    fn from(fit: Fit) -> Self {
        match fit {
            Fit::Crop => FitKind::Crop,
            Fit::Pad => FitKind::Pad,
            Fit::Squash => FitKind::Squash,
        }
    }
}

impl Args {
    /// Why the flags do not go together, if they do not.
    fn conflict(&self) -> Option<String> {
        let whole = [
            ("--epochs", self.epochs.is_some()),
            ("--time", self.time.is_some()),
            ("--memory", self.memory.is_some()),
            ("--balance", self.balance.is_some()),
            ("--log", self.log.is_some()),
        ];
        let given = whole.into_iter().find_map(|(flag, given)| given.then_some(flag));
        if self.teacher.is_some() && matches!(self.recipe, Recipe::Auto | Recipe::Head) {
            return Some(
                "--teacher teaches a whole network, so say which way it is trained: --recipe scratch, finetune or full"
                    .into(),
            );
        }
        match (self.recipe, given) {
            (Recipe::Head, Some(flag)) => {
                return Some(format!(
                    "{flag} is about training of the whole network, and --recipe head trains no network; leave one out"
                ));
            }
            (Recipe::Scratch, _) if self.from.is_some() => {
                return Some("--recipe scratch forgets all that --from MODEL knows; leave one out".into());
            }
            (Recipe::Scratch, _) if self.views.is_some() => {
                return Some(
                    "--views is about the head, and --recipe scratch makes none; leave one out".into(),
                );
            }
            (Recipe::Scratch, _) => return None,
            _ => {}
        }
        self.backbone.as_deref().and_then(without_weights)
    }
}

/// What a state beside the model is of.
const WHOLE: &str = "training of the whole network";

/// Whether `output` is what interrupted training left there for the time being, and its state lies beside it.
fn is_unfinished(output: &Path, part: &Path) -> bool {
    let last = |path| model::load(path).ok().and_then(|mut model| model.provenance.recipe.pop());
    part.is_file() && last(output).is_some_and(|step| step.starts_with(transfer::UNFINISHED))
}

#[derive(serde::Serialize)]
struct Report<'a> {
    #[serde(serialize_with = "displayed")]
    model: &'a Path,
    classes: usize,
    photos: usize,
    val_top1: f64,
    test_top1: Option<f64>,
    seconds: f64,
    /// Photos through the whole of it, head included.
    images_per_s: f64,
    peak_rss_bytes: Option<u64>,
    tried: &'a [Tried],
    lambda: Option<f64>,
    /// What was done, step by step.
    recipe: &'a [String],
    /// What was tried, and what it reached.
    candidates: &'a [Candidate],
    /// The epochs of whole-network training that was judged.
    epochs: &'a [EpochRecord],
    /// Whether the model is only the best so far, and the same command goes on.
    interrupted: bool,
    /// Views of each photo that the head was fitted to.
    views: usize,
    /// Photo views whose features were computed now; the rest came from the cache.
    views_computed: usize,
    skipped: &'a [Skipped],
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    if let Some(why) = args.conflict() {
        return Err(refuse("train", &why).into());
    }
    let start = Instant::now();
    let part = checkpoint::path_for(&args.output);
    let origin = args.from.as_deref().or(args.backbone.as_deref());
    if args.recipe == Recipe::Head {
        spare(&part, args.force, WHOLE)?;
    } else {
        require_apart(&args.output, origin, "what the training starts from")?;
        require_apart(&args.output, args.teacher.as_deref(), "the teacher")?;
    }
    let output = Output::new(&args.output, args.force || is_unfinished(&args.output, &part))?;
    let threads = args.threads.start()?;
    let data = Dataset::open(&args.data, args.group_by.as_ref())?;
    for notice in data.notices.iter().chain(&data.lone_photos()) {
        console.say(&notice.to_string());
    }
    let backbone = if args.recipe == Recipe::Scratch { untrained(origin)? } else { backbone(origin)? };
    let teacher = args.teacher.as_deref().map(model::load).transpose()?;
    let options = Options {
        input: Input {
            size: args.size,
            gray: args.gray,
            fit: args.fit.map(FitKind::from),
            decode: args.decode.map(DecodeRule::from),
        },
        views: args.views.map(usize::from),
        seed: args.seed,
        cache: if args.no_cache { None } else { args.cache.or_else(cache::default_dir) },
        recipe: args.recipe.into(),
        epochs: args.epochs,
        time: args.time,
        memory: args.memory,
        balance: args.balance,
        part: Some(part.clone()),
        force: args.force,
        extend: args.from.is_some(),
        distill: teacher.map(|teacher| Distillation {
            teacher,
            by: args.distill.map_or(By::Auto, By::from),
            unlabelled: args.unlabelled.clone(),
        }),
    };
    let mut log = args.log.as_deref().map(Log::open).transpose()?;
    let trained = transfer::train(&data, &backbone, &options, &threads, console, log.as_mut());
    if let Some(notice) = log.as_mut().and_then(Log::take_notice) {
        console.say(&notice);
    }
    if matches!(trained, Err(Error::Interrupted)) {
        if options.cache.is_some() && args.recipe != Recipe::Scratch {
            console.say("features so far are kept; the same command goes on from there");
        }
        say_resumable(&part, console);
    }
    let mut trained = trained?;
    drop(backbone);
    if !(trained.network || trained.interrupted) {
        spare(&part, args.force, WHOLE)?;
    }
    let size = output.save(&trained.model)?;
    if !trained.interrupted {
        checkpoint::remove(&part)?;
    }
    let took = start.elapsed();

    let (mut test_top1, mut interrupted) = (None, trained.interrupted);
    // Whoever wants to stop does not want to wait for a test.
    if !trained.interrupted && data.part(Part::Test).next().is_some() {
        let samples = data.part(Part::Test).map(|(_, sample)| sample);
        let classifier = Classifier::new(&trained.model)?;
        match evaluate(&classifier, &data, samples, &threads, console) {
            Ok(evaluation) => {
                test_top1 = Some(evaluation.top1);
                trained.skipped.extend(evaluation.skipped);
            }
            Err(Error::Interrupted) => {
                console.say(&format!(
                    "not tested; the model is complete, and penjing eval {} {} tests it",
                    args.output.display(),
                    args.data.display()
                ));
                interrupted = true;
            }
            // The model is none the worse for test photos that cannot be used.
            Err(error) => console.say(&format!("not tested: {error}")),
        }
    }
    say_skipped(&trained.skipped, console);
    let [computed, _] = trained.computed;
    let report = Report {
        model: &args.output,
        classes: trained.model.labels.len(),
        photos: trained.photos,
        val_top1: trained.val_top1,
        test_top1,
        seconds: round(took, 3),
        images_per_s: (trained.photos as f64 / took.as_secs_f64() * 10.0).round() / 10.0,
        peak_rss_bytes: peak_rss_bytes(),
        tried: &trained.tried,
        lambda: trained.lambda,
        recipe: &trained.model.provenance.recipe,
        candidates: &trained.candidates,
        epochs: &trained.history,
        interrupted: trained.interrupted,
        views: trained.views,
        views_computed: computed,
        skipped: &trained.skipped,
    };
    console.result(&report, || describe(&report, size, took))?;
    if trained.interrupted {
        console.say(&format!(
            "{} is the best so far, validation {:.2} %; the same command goes on from {}",
            args.output.display(),
            100.0 * trained.val_top1,
            part.display()
        ));
    }
    if interrupted {
        return Err(Error::Interrupted.into());
    }
    Ok(Outcome::Done)
}

fn describe(report: &Report, size: usize, took: Duration) -> String {
    let skipped = match report.skipped.len() {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    let test = report.test_top1.map_or(String::new(), |top1| format!(", test {:.2} %", 100.0 * top1));
    let memory =
        report.peak_rss_bytes.map_or(String::new(), |peak| format!("   peak memory {}", bytes(peak)));
    format!(
        "{}{}: {} classes from {} photos{skipped}, {}\nvalidation {:.2} %{test}   {:.1} s   {:.0} images/s{memory}\n",
        table(report.candidates),
        report.model.display(),
        report.classes,
        report.photos,
        bytes(size as u64),
        100.0 * report.val_top1,
        took.as_secs_f64(),
        report.images_per_s,
    )
}

/// What was tried beside what was chosen; empty where there was no choice.
fn table(candidates: &[Candidate]) -> String {
    let mut text = String::new();
    if candidates.len() < 2 {
        return text;
    }
    let width = candidates.iter().map(|candidate| candidate.name.chars().count()).max().unwrap_or(0);
    let _ = writeln!(text, "{:width$}  {:>10}  {:>6}  {:>8}", "tried", "validation", "nll", "seconds");
    for Candidate { name, val_top1, val_nll, seconds, chosen } in candidates {
        let chosen = if *chosen { "   chosen" } else { "" };
        let _ = writeln!(
            text,
            "{name:width$}  {:>8.2} %  {val_nll:>6.3}  {seconds:>8.1}{chosen}",
            100.0 * val_top1
        );
    }
    text.push('\n');
    text
}
