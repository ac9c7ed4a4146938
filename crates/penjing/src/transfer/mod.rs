//! A pretrained network's knowledge carried over to new classes.

pub mod adapt;
pub mod advise;
pub mod cache;
pub mod calibration;
pub mod distill;
pub mod features;
mod finetune;
pub mod head;
mod lbfgs;
mod mirrors;
mod paired;
pub mod plan;
mod scratch;
mod softmax_loss;
pub mod survey;
mod work;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use penjing_runtime::{
    file::{Calibration, Model, Provenance},
    graph::Graph,
    op::Op,
    pixels::DecodeRule,
    tensor::{Tensor, Weights},
};
use serde::Serialize;

pub use self::work::UNFINISHED;
use self::{
    adapt::Input,
    distill::{Distillation, Lessons},
    features::{Extracted, Extractor},
    head::{Features, Fit, Head, Tried},
    plan::RecipeKind,
    survey::Survey,
};
use crate::{
    Error, Result,
    data::{Dataset, Skipped},
    model,
    progress::Progress,
    threads::Threads,
    train::{log::Log, trainer::EpochRecord},
};

/// How a classifier is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// How photos become the input. Where it does not say how files are decoded, [`DecodeRule::REDUCED`] counts, or with
    /// `extend` the classifier's own rule.
    pub input: Input,
    /// Views of each training photo that the head is fitted to: 1 plain, 2 also mirrored, more also cropped. When
    /// `None`, 16 below 500 photos (with `time` 4), 4 below 2,000 and 2 below 10,000, but only the plain ones if the others led astray on held-out
    /// photos: a mirrored arrow is another arrow.
    pub views: Option<usize>,
    /// Seed of everything random.
    pub seed: u64,
    /// Folder of the feature cache; `None` for no cache.
    pub cache: Option<PathBuf>,
    /// What is learnt.
    pub recipe: RecipeKind,
    /// How often whole-network training sees every photo; `None` for what fits the data.
    pub epochs: Option<u32>,
    /// How long the whole may take; whole-network training is shortened to fit.
    pub time: Option<Duration>,
    /// Bytes that training may take; `None` for what the machine has to spare.
    pub memory: Option<u64>,
    /// 0: every photo is seen as often as any other; 1: every class. `None` for what fits the data.
    pub balance: Option<f64>,
    /// Where the state of whole-network training is kept, so that the same work goes on from there.
    pub part: Option<PathBuf>,
    /// Whether a state of other work there is thrown away.
    pub force: bool,
    /// Whether the backbone is a classifier of one's own that goes on: each of its classes must still have photos.
    pub extend: bool,
    /// A teacher for training of the whole network; not with the recipes `auto` and `head`, which may train none.
    pub distill: Option<Distillation>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            input: Input::default(),
            views: None,
            seed: 0,
            cache: cache::default_dir(),
            recipe: RecipeKind::Auto,
            epochs: None,
            time: None,
            memory: None,
            balance: None,
            part: None,
            force: false,
            extend: false,
            distill: None,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Trained {
    /// The classifier.
    pub model: Model,
    /// Photos that it learnt from.
    pub photos: usize,
    /// Accuracy on photos that the judged networks had not seen, 0..1.
    pub val_top1: f64,
    /// Every strength of regularization of the head that was tried; empty without a head on features.
    pub tried: Vec<Tried>,
    /// The chosen one.
    pub lambda: Option<f64>,
    /// Views of each photo that the head was fitted to.
    pub views: usize,
    /// What was tried, in order, and what it reached.
    pub candidates: Vec<Candidate>,
    /// The epochs of whole-network training that was judged.
    pub history: Vec<EpochRecord>,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
    /// Feature rows computed now, and all of them.
    pub computed: [usize; 2],
    /// Whether the user ended it early: the model is the best so far, and the same work can go on.
    pub interrupted: bool,
    /// Whether the whole network was trained, or would have been: a kept state is of this work.
    pub network: bool,
}

/// One way of making the classifier, and what it reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// What was done.
    pub name: String,
    /// Share of held-out photos classified rightly, 0..1.
    pub val_top1: f64,
    /// Mean negative log-likelihood of held-out photos after calibration.
    pub val_nll: f64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it is what the model is made by.
    pub chosen: bool,
}

/// Makes a classifier of a backbone.
///
/// Photos of the test part are not touched. A regularized linear head on the frozen backbone's features comes first.
/// Where the data has a validation part, its strength is chosen on it (on those of its photos that are no copies of
/// training photos, nor of a group with them); else by grouped, stratified cross-validation. Unless the recipe is
/// `head`, the whole network is then trained from that head on part of the photos and judged on the others, beside the
/// head; what is better on them then learns from all photos. `val_top1` is what networks that had not seen the
/// judged photos reached.
///
/// # Errors
/// [`Error::Data`] with fewer than two classes or no readable photo, [`Error::Interrupted`] when the watcher says so
/// before there is a model, [`Error::Model`] when the kept state is of other work.
pub fn train(
    data: &Dataset,
    backbone: &Model,
    options: &Options,
    threads: &Threads,
    progress: &dyn Progress,
    log: Option<&mut Log>,
) -> Result<Trained> {
    let began = Instant::now();
    data.require_two_classes()?;
    let backbone = &*model::in_floats(backbone)?;
    if options.extend
        && let Some(lost) = backbone.labels.iter().find(|label| !data.classes.contains(label))
    {
        let what = format!(
            "has no photos of “{lost}”, which the model to go on from knows; add some (the old photos belong to the \
             data, or it forgets them), or give the model as --backbone to learn other classes"
        );
        return Err(Error::data(&data.root, what));
    }
    if let Some(ask) = &options.distill {
        ask.check(&data.classes)?;
    }
    let small = plan::size_for(data, options, backbone.pixels.height.min(backbone.pixels.width));
    if let Some(size) = small {
        progress.notice(&format!(
            "the photos are small, so the network sees them at {size} px; --size says otherwise"
        ));
    }
    // A classifier that goes on keeps seeing photos as it did.
    let reduced = (!options.extend).then_some(DecodeRule::REDUCED);
    let input = Input {
        size: options.input.size.or(small),
        decode: options.input.decode.or(reduced),
        ..options.input.clone()
    };
    let adapted = adapt::adapt(backbone, &input)?;
    if options.recipe == RecipeKind::Scratch {
        return scratch::scratch(data, &adapted, options, began, threads, progress, log);
    }
    let backbone = adapted;
    if work::has_learnt(&backbone) {
        progress.notice(
            "the network to begin with has learnt from photos; where they are among these, they flatter whatever they \
             judge, and only photos that it has not seen, such as those of a test part, tell how good the model is",
        );
    }
    let samples = survey::learnable(data);
    let extractor = Extractor::new(&backbone)?;
    let mut cache = options.cache.as_deref().map(|folder| extractor.cache(folder));
    let views = options.views.unwrap_or_else(|| views_of(samples.len(), options.time.is_some())).max(1);
    let extracted = extractor.extract(&samples, views, cache.as_mut(), threads, progress)?;
    if let Some(notice) = cache.as_mut().and_then(cache::FeatureCache::take_notice) {
        progress.notice(&notice);
    }
    let hashes = extracted.hashes.clone();
    let mut survey =
        Survey::new(data, &samples, &extracted.kept, hashes, &extracted.skipped, options.seed, progress)?;
    survey.look_at_the_test(threads, progress)?;
    let mut views = extracted.views;
    let mut fit = fit(&survey, &extracted, views, threads, progress)?;
    if options.views.is_none() && views > 1 {
        let plain = self::fit(&survey, &extracted, 1, threads, progress)?;
        if plain.beats(&fit, &survey.labels, &survey.groups) {
            progress.notice("mirrored photos led astray on held-out ones, so nothing is learnt from them");
            (views, fit) = (1, plain);
        }
    }
    let head = Candidate {
        name: "head on frozen features".into(),
        val_top1: fit.val_top1,
        val_nll: calibration::mean_surprise(
            &fit.out_of_fold,
            &fit.validated_labels(&survey.labels),
            data.classes.len(),
            fit.temperature,
        ),
        seconds: began.elapsed().as_secs_f64(),
        chosen: true,
    };
    let mut trained = Trained {
        model: head_model(&backbone, &survey, &fit, views, options)?,
        photos: survey.kept.len(),
        val_top1: fit.val_top1,
        tried: fit.tried.clone(),
        lambda: Some(fit.lambda),
        views,
        candidates: vec![head],
        history: Vec::new(),
        computed: [extracted.computed, extracted.rows.len() / extracted.width],
        skipped: extracted.skipped.clone(),
        interrupted: false,
        network: false,
    };
    let lessons = options.distill.as_ref();
    let lessons =
        lessons.map(|ask| Lessons::new(ask, &survey, &backbone.pixels, threads, progress)).transpose()?;
    let lessons = lessons.as_ref();
    trained.skipped.extend(lessons.iter().flat_map(|lessons| lessons.skipped.iter().cloned()));
    let start = finetune::Start {
        backbone: &backbone,
        survey: &survey,
        extracted: &extracted,
        fit: &fit,
        views,
        lessons,
    };
    match finetune::refine(&start, options, began, threads, progress, log, &mut trained) {
        // Beside a kept state the same command may replace what is written now. Without one it would be refused, so
        // nothing is written: the features are kept, and the head takes seconds.
        Err(Error::Interrupted) if options.part.as_deref().is_some_and(Path::is_file) => {
            trained.interrupted = true;
            trained.model.provenance.recipe.push(format!("{UNFINISHED}stopped after the head"));
        }
        refined => refined?,
    }
    Ok(trained)
}

/// Views of each photo that are worth their time and memory: the fewer photos, the more, but no more than a few where
/// time is short. On held-out photos of nine sets of 160 to 600 photos two crops beside the plain and the mirrored view
/// made them likelier by 5 % in the mean. Of 4,838 photos of fifteen sets of clothes, groceries and flowers, after 210
/// to 240 to learn from, heads of four views were wrong on 116, of sixteen on 104.
fn views_of(photos: usize, hurried: bool) -> usize {
    match photos {
        0..plan::FEW if !hurried => 16,
        0..2_000 => 4,
        2_000..10_000 => 2,
        _ => 1,
    }
}

/// The rows of the first `views` views of each photo.
fn rows_of(extracted: &Extracted, views: usize) -> Cow<'_, [f32]> {
    if views == extracted.views {
        return Cow::Borrowed(&extracted.rows);
    }
    let photos = extracted.rows.chunks_exact(extracted.views * extracted.width);
    Cow::Owned(photos.flat_map(|photo| &photo[..views * extracted.width]).copied().collect())
}

/// The head for the first `views` views of each photo.
fn fit(
    survey: &Survey,
    extracted: &Extracted,
    views: usize,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Fit> {
    let rows = rows_of(extracted, views);
    let photo: Vec<u32> =
        (0..survey.labels.len() as u32).flat_map(|index| std::iter::repeat_n(index, views)).collect();
    let weight = vec![1.0; photo.len()];
    let features = Features { width: extracted.width, rows: &rows, photo: &photo, weight: &weight };
    let classes = survey.data.classes.len();
    watched(progress, |watch| {
        threads
            .install(|| head::fit(&features, &survey.labels, classes, &survey.folds, &survey.held_out, watch))
    })
}

/// The head of a known strength from some of the photos only.
fn fit_some(
    survey: &Survey,
    extracted: &Extracted,
    views: usize,
    photos: &[usize],
    lambda: f64,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Head> {
    let width = extracted.width;
    let all = rows_of(extracted, views);
    let rows: Vec<f32> = photos
        .iter()
        .flat_map(|photo| &all[photo * views * width..(photo + 1) * views * width])
        .copied()
        .collect();
    let labels: Vec<u32> = photos.iter().map(|&photo| survey.labels[photo]).collect();
    let photo: Vec<u32> =
        (0..labels.len() as u32).flat_map(|index| std::iter::repeat_n(index, views)).collect();
    let weight = vec![1.0; photo.len()];
    let features = Features { width, rows: &rows, photo: &photo, weight: &weight };
    let classes = survey.data.classes.len();
    watched(progress, |watch| threads.install(|| head::fit_at(&features, &labels, classes, lambda, watch)))
}

fn watched<R>(progress: &dyn Progress, work: impl FnOnce(&(dyn Fn(f32) -> bool + Sync)) -> R) -> R {
    progress.begin("head", 100);
    let done = AtomicUsize::new(0);
    let watch = |share: f32| {
        let percent = (share * 100.0) as usize;
        let before = done.fetch_max(percent, Ordering::Relaxed);
        progress.advance(percent.saturating_sub(before));
        !progress.cancelled()
    };
    let result = work(&watch);
    progress.end();
    result
}

fn unsupported(error: penjing_runtime::Error) -> Error {
    Error::Unsupported(error.to_string())
}

/// The backbone's graph with room for other classes, and the name of its classifier.
fn with_classes(backbone: &Model, classes: usize) -> Result<(Graph, String)> {
    let (old, features) = backbone
        .graph
        .classifier()
        .ok_or_else(|| Error::Unsupported("the backbone has no classifier".into()))?;
    let name = backbone.graph.node(old).name.clone();
    let mut graph = backbone.graph.up_to(features);
    graph.push(&name, Op::Linear { out_features: classes, bias: true }, &[features]).map_err(unsupported)?;
    Ok((graph, name))
}

/// The backbone with a head in the place of the old one.
fn graft(backbone: &Model, head: &Head) -> Result<(Graph, Weights)> {
    let (graph, name) = with_classes(backbone, head.classes)?;
    let mut weights = backbone.weights.clone();
    let stored = weights
        .insert(format!("{name}.weight"), Tensor::f32(&[head.classes, head.width], head.weights.clone()));
    weights.insert(format!("{name}.bias"), Tensor::f32(&[head.classes], head.bias.clone()));
    debug_assert!(stored.is_some(), "the old head had a weight");
    Ok((graph, weights))
}

fn head_model(
    backbone: &Model,
    survey: &Survey,
    fit: &Fit,
    views: usize,
    options: &Options,
) -> Result<Model> {
    let (graph, weights) = graft(backbone, &fit.head)?;
    let recipe = format!(
        "head: multinomial logistic regression on frozen features, {views} views a photo, lambda {}",
        fit.lambda
    );
    assemble(backbone, survey, graph, weights, vec![recipe], fit.temperature, fit.val_top1, options)
}

fn assemble(
    backbone: &Model,
    survey: &Survey,
    graph: Graph,
    weights: Weights,
    recipe: Vec<String>,
    temperature: f64,
    val_top1: f64,
    options: &Options,
) -> Result<Model> {
    let provenance = Provenance {
        penjing: env!("CARGO_PKG_VERSION").to_string(),
        recipe: backbone.provenance.recipe.iter().cloned().chain(recipe).collect(),
        data_hash: Some(survey.fingerprint()),
        seed: Some(options.seed),
        val_top1: Some(val_top1),
        ..backbone.provenance.clone()
    };
    let model = Model {
        arch: backbone.arch.clone(),
        graph,
        weights,
        pixels: backbone.pixels.clone(),
        labels: survey.data.classes.clone(),
        calibration: Calibration { temperature: temperature as f32 },
        provenance,
    };
    model.check().map_err(unsupported)?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{Part, Sample},
        model,
        progress::Quiet,
    };

    fn dataset(samples: Vec<Sample>) -> Dataset {
        let classes = ["a", "b"].map(String::from).to_vec();
        Dataset { root: PathBuf::from("photos"), classes, samples, notices: Vec::new() }
    }

    #[test]
    fn the_fewer_photos_the_more_views() {
        let views = [100, 499, 500, 1_999, 2_000, 9_999, 10_000].map(|photos| views_of(photos, false));
        assert_eq!(views, [16, 16, 4, 4, 2, 2, 1]);
        assert_eq!([100, 2_000, 10_000].map(|photos| views_of(photos, true)), [4, 2, 1]);
    }

    #[test]
    fn photos_of_the_test_part_teach_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let sample = |i: usize| {
            let path = folder.path().join(format!("{i}.png"));
            let shade = |x: u32, y: u32| image::Rgb([(x * 6) as u8, (i * 8) as u8, (y * i as u32) as u8]);
            image::RgbImage::from_fn(40, 40, shade).save(&path).unwrap();
            let part = if i.is_multiple_of(3) { Part::Test } else { Part::Train };
            Sample { path, class: i % 2, part, group: None }
        };
        let with_test = dataset((0..24).map(sample).collect());
        let mut without = with_test.clone();
        without.samples.retain(|sample| sample.part == Part::Train);

        let input = Input { size: Some(32), ..Input::default() };
        let options =
            Options { input, views: Some(1), cache: None, recipe: RecipeKind::Head, ..Options::default() };
        let (backbone, threads) = (model::bundled().unwrap(), Threads::new(Some(1)).unwrap());
        let fit = |data: &Dataset| train(data, &backbone, &options, &threads, &Quiet, None).unwrap();
        let (with_test, without) = (fit(&with_test), fit(&without));
        assert_eq!([with_test.photos, without.photos], [16; 2]);
        assert!(with_test.model == without.model, "the model depends on photos of the test part");
    }
}
