//! `penjing train`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use penjing::{
    Error,
    classifier::Classifier,
    data::{Dataset, Part, Regex, Skipped, displayed, group_pattern},
    eval::evaluate,
    model::Output,
    train::{checkpoint, log::Log, trainer::EpochRecord},
    transfer::{
        self, Candidate, Options,
        adapt::{FitKind, Input},
        cache,
        head::Tried,
        plan::RecipeKind,
    },
};

use super::{Outcome, ThreadsArg, backbone, backbone_parser, say_skipped, size_parser};
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
    /// A model file to start from [default: the EfficientNet-Lite0 inside the program]
    #[arg(long, value_name = "MODEL", value_parser = backbone_parser())]
    backbone: Option<PathBuf>,
    /// What is learnt
    #[arg(long, value_name = "RECIPE", default_value = "auto")]
    recipe: Recipe,
    /// How often training of the whole network sees every photo [default: by the number of photos]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    epochs: Option<u32>,
    /// How the training goes, as a line of JSON for each step and epoch, appended to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Input size in pixels [default: the backbone's]
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
    /// Views of each photo: 1 plain, 2 also mirrored, more also cropped [default: 2, or 1 where mirrored
    /// photos led astray on held-out ones]
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
    /// Overwrite the output
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

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Recipe {
    /// The head first; the whole network where held-out photos gain by it
    Auto,
    /// A linear head on the frozen backbone's features: seconds
    Head,
    /// The whole network from that head, its running statistics frozen
    Finetune,
    /// The whole network from that head, its statistics learnt too: for photos unlike the backbone's
    Full,
    /// The whole network from random weights
    Scratch,
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
    /// What was tried, and what it reached.
    candidates: &'a [Candidate],
    /// The epochs of whole-network training that was judged.
    epochs: &'a [EpochRecord],
    /// Views of each photo that the head was fitted to.
    views: usize,
    /// Photo views whose features were computed now; the rest came from the cache.
    views_computed: usize,
    skipped: &'a [Skipped],
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let output = Output::new(&args.output, args.force)?;
    let threads = args.threads.start()?;
    let data = Dataset::open(&args.data, args.group_by.as_ref())?;
    for notice in data.notices.iter().chain(&data.lone_photos()) {
        console.say(&notice.to_string());
    }
    let backbone = backbone(args.backbone.as_deref())?;
    let options = Options {
        input: Input { size: args.size, gray: args.gray, fit: args.fit.map(FitKind::from) },
        views: args.views.map(usize::from),
        seed: args.seed,
        cache: if args.no_cache { None } else { args.cache.or_else(cache::default_dir) },
        recipe: args.recipe.into(),
        epochs: args.epochs,
        time: None,
        memory: None,
        balance: None,
        part: Some(checkpoint::path_for(&args.output)),
        force: args.force,
        extend: false,
    };
    let mut log = args.log.as_deref().map(Log::open).transpose()?;
    let trained = transfer::train(&data, &backbone, &options, &threads, console, log.as_mut());
    if options.cache.is_some() && matches!(trained, Err(Error::Interrupted)) {
        console.say("features so far are kept; the same command goes on from there");
    }
    let mut trained = trained?;
    drop(backbone);
    let size = output.save(&trained.model)?;
    if !trained.interrupted {
        checkpoint::remove(&checkpoint::path_for(&args.output))?;
    }
    let took = start.elapsed();

    let mut test_top1 = None;
    if data.part(Part::Test).next().is_some() {
        let samples = data.part(Part::Test).map(|(_, sample)| sample);
        let classifier = Classifier::new(&trained.model)?;
        match evaluate(&classifier, &data, samples, &threads, console) {
            Ok(evaluation) => {
                test_top1 = Some(evaluation.top1);
                trained.skipped.extend(evaluation.skipped);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted.into()),
            // The model is none the worse for test photos that cannot be used.
            Err(error) => console.say(&format!("not tested: {error}")),
        }
    }
    say_skipped(&trained.skipped, console);
    let [computed, _] = trained.computed;
    let report = Report {
        model: &args.output,
        classes: data.classes.len(),
        photos: trained.photos,
        val_top1: trained.val_top1,
        test_top1,
        seconds: round(took, 3),
        images_per_s: (trained.photos as f64 / took.as_secs_f64() * 10.0).round() / 10.0,
        peak_rss_bytes: peak_rss_bytes(),
        tried: &trained.tried,
        lambda: trained.lambda,
        candidates: &trained.candidates,
        epochs: &trained.history,
        views: trained.views,
        views_computed: computed,
        skipped: &trained.skipped,
    };
    console.result(&report, || describe(&report, size, took))?;
    Ok(Outcome::Done)
}

fn describe(report: &Report, size: usize, took: Duration) -> String {
    let skipped = match report.skipped.len() {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    let test = report.test_top1.map_or(String::new(), |top1| format!(", test {:.2} %", 100.0 * top1));
    format!(
        "{}: {} classes from {} photos{skipped}, {}\nvalidation {:.2} %{test}   {:.1} s   {:.0} images/s{}\n",
        report.model.display(),
        report.classes,
        report.photos,
        bytes(size as u64),
        100.0 * report.val_top1,
        took.as_secs_f64(),
        report.images_per_s,
        report.peak_rss_bytes.map_or(String::new(), |peak| format!("   peak memory {}", bytes(peak)))
    )
}
