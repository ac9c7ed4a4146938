//! Smaller and faster networks: what `penjing compress` does.
//!
//! A network in 8 bits is made step by step: BatchNorm is [folded](fold), results are [watched](observe) on photos, each gets
//! a [grid], weights become [integers](ptq). Where that costs too much, the network [learns](qat) to compute with integers, or the
//! layers that cost most keep floats. The [gate](Gate) compares accuracy, time and size with those of the network
//! before, and says whether it was worth it.

pub mod budget;
pub mod equalize;
pub mod fold;
mod gate;
mod gptq;
pub mod grid;
pub mod judge;
pub mod observe;
pub mod prune;
pub mod ptq;
pub mod qat;
mod reads;
pub mod sparsify;
pub mod storage;
pub mod table;
mod tune;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use penjing_runtime::{
    Error as RuntimeError,
    file::Model,
    graph::{Graph, NodeId},
    pixels::View,
    quant::Quant,
    tensor::Weights,
};
use rayon::prelude::*;
use serde::Serialize;

pub use self::{
    gate::{Gate, Measured, Verdict},
    grid::Ranging,
    tune::Learning,
};
use self::{
    judge::{Distance, Logits},
    observe::Observations,
    ptq::Rounding,
    qat::{Learnt, Taught, When},
    table::LayerError,
};
use crate::{
    Error, Result,
    data::{
        Dataset, Part, Sample, Skipped,
        decode::{self, Limits},
    },
    model,
    progress::Progress,
    random::SplitMix64,
    threads::Threads,
};

/// Shares of the arithmetic, or of the weights, that can be asked to go.
pub const SHARES: RangeInclusive<f64> = 0.05..=0.95;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model that the gate compares with and that teaches; `None`: the one that is compressed.
    pub before: Option<Model>,
    /// How ranges are made; `None` tries all ways and takes what is nearest to the network before, on the photos that
    /// were watched.
    pub ranging: Option<Ranging>,
    /// How weights become integers.
    pub rounding: Rounding,
    /// Whether weights are equalized between layers first.
    pub equalize: bool,
    /// Most photos that are watched.
    pub photos: usize,
    /// Whether the network is trained as 8 bits will compute it.
    pub qat: qat::Options,
    /// What the result must keep to.
    pub gate: Gate,
    /// Whether each layer is measured alone even if nothing asks for it.
    pub layers: bool,
    /// Draws the photos that are watched, and the order and looks of those that are learnt from.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            before: None,
            ranging: None,
            rounding: Rounding::recommended(),
            equalize: false,
            photos: 256,
            qat: qat::Options::default(),
            gate: Gate::default(),
            layers: false,
            seed: 0,
        }
    }
}

/// What was done, and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The gate's verdict.
    pub verdict: Verdict,
    /// How ranges were made.
    pub ranging: Ranging,
    /// How far each way of making ranges is from the network before, on the photos that were watched.
    pub tried: Vec<(Ranging, Distance)>,
    /// What training did, if there was any.
    pub qat: Option<qat::Taught>,
    /// Layers that kept floats.
    pub floats: Vec<String>,
    /// Every layer.
    pub layers: Vec<LayerError>,
    /// Photos that were watched.
    pub watched: usize,
    /// Photos that could not be read, and why.
    pub skipped: Vec<Skipped>,
}

/// Fewest photos that show what goes through a network.
const FEWEST: usize = 10;

/// Makes an 8-bit model of one in floats.
///
/// The photos that are watched are of the training part; those of the validation part judge, or, where there are none, those
/// of the training part. Test photos are left alone.
///
/// # Errors
/// [`Error::Unsupported`] for a model that computes in integers already; [`Error::Data`] for photos that are too few, of one class, or
/// of classes that the model does not know; [`Error::Interrupted`].
pub fn int8(
    model: &Model,
    data: &Dataset,
    options: &Options,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Model, Report)> {
    let model = &*model::in_floats(model)?;
    let before = model::in_floats(options.before.as_ref().unwrap_or(model))?;
    let watched = tensors(model, data, options, threads, progress)?;
    let judges = gate::Judges::new(&before, data, threads, progress)?;
    int8_before(&judges, model, data, options, watched)
}

/// As [`int8`], of a model in floats, before judges who know the model before.
fn int8_before(
    judges: &gate::Judges,
    model: &Model,
    data: &Dataset,
    options: &Options,
    (Watched { inputs, .. }, mut skipped): (Watched, Vec<Skipped>),
) -> Result<(Model, Report)> {
    let gate::Judges { model: before, threads, progress, .. } = *judges;
    let (mut graph, mut weights) = fold::fold(&model.graph, &model.weights).map_err(unsupported)?;
    if options.equalize {
        (graph, weights) = equalize::equalize(&graph, &weights).map_err(unsupported)?;
    }
    let work = Work { before, model, graph, weights, inputs, threads, progress };
    let mut seen = observe::observe(&work.graph, &work.weights, &work.inputs, threads, progress)?;
    if let Some(input) = work.graph.iter().next().and_then(|(input, _)| seen.get_mut(&input)) {
        // Photos to come may be darker and brighter.
        input.widen(model.pixels.range());
    }
    let exact = work.logits(&work.graph, &work.weights)?;

    // The nearest of all ways of making ranges.
    let ways = options.ranging.map_or(Ranging::ALL.to_vec(), |ranging| vec![ranging]);
    let mut tried: Vec<(Ranging, Distance)> = Vec::new();
    let mut best: Option<(Ranging, f64)> = None;
    for ranging in ways {
        let grids = grid::grids(&work.graph, &seen, ranging);
        let (graph, weights) = work.quantized(&grids, &seen, &options.rounding)?;
        let distance = Distance::between(&exact, &work.logits(&graph, &weights)?);
        tried.push((ranging, distance));
        if best.is_none_or(|(_, least)| distance.divergence < least) {
            best = Some((ranging, distance.divergence));
        }
    }
    let (ranging, _) = best.ok_or_else(|| Error::Unsupported("no way of making ranges was given".into()))?;
    let grids = grid::grids(&work.graph, &seen, ranging);

    let candidate = |rounding: &Rounding| {
        let (graph, weights) = work.quantized(&grids, &seen, rounding)?;
        let verdict = judges.judge(&work.model_of(&graph, &weights), &options.gate)?;
        Ok(Candidate { graph, weights, floats: rounding.floats.clone(), learnt: false, verdict })
    };
    let mut best: Candidate = candidate(&options.rounding)?;
    let mut layers = work.noise(&best)?;
    // Neither training nor floats make a network faster or its file smaller.
    let hopeless = best.verdict.is_hopeless(&options.gate);
    let falls = |candidate: &Candidate| options.gate.falls_too_far(candidate.verdict.drop).is_some();
    if hopeless && falls(&best) && options.qat.when == When::Auto {
        progress.notice("not trained: by its time or size it misses the gate anyway");
    }
    let missed = |candidate: &Candidate| !hopeless && falls(candidate);
    let mut taught = None;
    if options.qat.when == When::Always || options.qat.when == When::Auto && missed(&best) {
        taught = work.learn(&best, data, options)?;
    }
    if let Some(Learnt { weights: Some(weights), taught, .. }) = &mut taught {
        let (graph, weights, floats) = (best.graph.clone(), std::mem::take(weights), best.floats.clone());
        let verdict = judges.judge(&work.model_of(&graph, &weights), &options.gate)?;
        taught.top1_after = Some(verdict.after.top1);
        best = best.or(Candidate { graph, weights, floats, learnt: true, verdict });
    }
    if options.layers || missed(&best) {
        let few = exact[..work.few().len()].to_vec();
        table::measure_alone(
            &mut layers,
            &work.graph,
            &work.weights,
            &model.pixels,
            &grids,
            &seen,
            &options.rounding,
            (work.few(), &few),
            threads,
            progress,
        )?;
    }
    // The layers that cost most keep floats until the accuracy is kept, or too many would.
    let mut costly: Vec<(f64, String)> =
        layers.iter().filter_map(|layer| Some((layer.alone?, layer.name.clone()))).collect();
    costly.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    costly.truncate(layers.len() / MOST_FLOATS);
    let mut rounding = options.rounding.clone();
    for (_, name) in costly {
        if !missed(&best) {
            break;
        }
        rounding.floats.insert(name);
        best = best.or(candidate(&rounding)?);
    }
    if best.learnt || best.floats != options.rounding.floats {
        let alone: Vec<Option<f64>> = layers.iter().map(|layer| layer.alone).collect();
        layers = work.noise(&best)?;
        layers.iter_mut().zip(alone).for_each(|(layer, alone)| layer.alone = alone);
    }
    for layer in layers.iter_mut().filter(|layer| best.floats.contains(&layer.name)) {
        layer.int8 = false;
    }
    let (taught, unread) = taught.map_or((None, Vec::new()), |Learnt { taught, skipped, .. }| {
        (Some(Taught { kept: best.learnt, ..taught }), skipped)
    });
    add_unread(&mut skipped, unread.into_iter().chain(judges.skipped.iter().cloned()));
    let mut compressed = work.model_of(&best.graph, &best.weights);
    compressed.provenance.recipe.push(describe(&work, options, ranging, taught.as_ref(), &best));
    compressed.provenance.val_top1 = None;
    let bytes = compressed.to_bytes().map_err(unsupported)?.len();
    let verdict = best.verdict.of_size(bytes, &options.gate);
    let report = Report {
        verdict,
        ranging,
        tried,
        qat: taught,
        floats: best.floats.into_iter().collect(),
        layers,
        watched: work.inputs.len(),
        skipped,
    };
    Ok((compressed, report))
}

/// Adds photos that could not be read, each of them once.
fn add_unread(known: &mut Vec<Skipped>, more: impl IntoIterator<Item = Skipped>) {
    for photo in more {
        if !known.iter().any(|known| known.path == photo.path) {
            known.push(photo);
        }
    }
}

/// What the gate says of a small model beside the one before, and photos that could not be read.
///
/// # Errors
/// [`Error::Data`] for photos of classes that the model does not know, or where none can be read; [`Error::Interrupted`].
pub fn verdict(
    before: &Model,
    small: &Model,
    data: &Dataset,
    gate: &Gate,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Verdict, Vec<Skipped>)> {
    let judges = gate::Judges::new(before, data, threads, progress)?;
    Ok((judges.judge(small, gate)?, judges.skipped))
}

/// A network in 8 bits, and what the gate says of it.
struct Candidate {
    graph: Graph,
    weights: Weights,
    /// Layers that kept floats.
    floats: BTreeSet<String>,
    /// Whether it has learnt to compute with integers.
    learnt: bool,
    verdict: Verdict,
}

impl Candidate {
    /// The one that classifies more photos rightly, of equals the one that is nearer to the network before, of those this.
    fn or(self, other: Candidate) -> Candidate {
        let [own, others] = [&self, &other].map(|candidate| &candidate.verdict);
        let by_top1 = others.after.top1.total_cmp(&own.after.top1);
        let better = by_top1.then(own.distance.divergence.total_cmp(&others.distance.divergence));
        if better.is_gt() { other } else { self }
    }
}

/// At most one in so many layers keeps floats.
const MOST_FLOATS: usize = 4;

fn unsupported(error: RuntimeError) -> Error {
    Error::Unsupported(error.to_string())
}

/// What the steps share.
struct Work<'a> {
    /// What the gate compares with.
    before: &'a Model,
    model: &'a Model,
    /// With folded BatchNorm.
    graph: Graph,
    weights: Weights,
    /// What is watched.
    inputs: Vec<Vec<f32>>,
    threads: &'a Threads,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    /// Enough photos for what is measured layer by layer.
    fn few(&self) -> &[Vec<f32>] {
        &self.inputs[..self.inputs.len().min(48)]
    }

    fn logits(&self, graph: &Graph, weights: &Weights) -> Result<Logits> {
        if self.progress.cancelled() {
            return Err(Error::Interrupted);
        }
        judge::logits(graph, weights, &self.model.pixels, &self.inputs, self.threads)
    }

    fn quantized(
        &self,
        grids: &BTreeMap<NodeId, Quant>,
        seen: &Observations,
        rounding: &Rounding,
    ) -> Result<(Graph, Weights)> {
        ptq::quantize(&self.graph, &self.weights, grids, seen, rounding).map_err(unsupported)
    }

    /// What rounding adds to each layer.
    fn noise(&self, candidate: &Candidate) -> Result<Vec<LayerError>> {
        let graphs = [&self.graph, &candidate.graph];
        table::noise(graphs, [&self.weights, &candidate.weights], self.few(), self.threads)
    }

    /// Trains from a network in 8 bits; `None` where it cannot be trained and need not be.
    fn learn(&self, rounded: &Candidate, data: &Dataset, options: &Options) -> Result<Option<Learnt>> {
        let start = qat::Start {
            teacher: self.before,
            pixels: &self.model.pixels,
            floats: &self.weights,
            graph: &rounded.graph,
            integers: &rounded.weights,
            rounding: &options.rounding,
            top1: rounded.verdict.after.top1,
        };
        match qat::train(
            &start,
            data,
            &options.qat,
            asked(options),
            options.seed,
            self.threads,
            self.progress,
        ) {
            Err(Error::Unsupported(why)) if options.qat.when == When::Auto => {
                self.progress.notice(&format!("not trained: {why}"));
                Ok(None)
            }
            learnt => learnt.map(Some),
        }
    }

    fn model_of(&self, graph: &Graph, weights: &Weights) -> Model {
        Model { graph: graph.clone(), weights: weights.clone(), ..self.model.clone() }
    }
}

/// What decides from which network training begins, in the user's words.
fn asked(options: &Options) -> Vec<(&'static str, String)> {
    let Options { ranging, rounding, equalize, photos, .. } = options;
    let floats: Vec<&str> = rounding.floats.iter().map(String::as_str).collect();
    vec![
        ("--ranges", ranging.map_or("all", Ranging::name).into()),
        ("--per-tensor", (!rounding.per_channel).to_string()),
        ("--keep-biases", (!rounding.correct_biases).to_string()),
        ("--keep", floats.join(", ")),
        ("--equalize", equalize.to_string()),
        ("--photos", photos.to_string()),
    ]
}

fn describe(
    work: &Work,
    options: &Options,
    ranging: Ranging,
    taught: Option<&Taught>,
    Candidate { floats, verdict, .. }: &Candidate,
) -> String {
    let mut text = format!("int8: {} photos watched, ranges by {}", work.inputs.len(), ranging.name());
    if options.equalize {
        text += ", equalized";
    }
    text +=
        if options.rounding.per_channel { ", a scale for each channel" } else { ", a scale for each layer" };
    if options.rounding.correct_biases {
        text += ", biases corrected";
    }
    if let Some(taught) = taught {
        text += &format!(", {}", taught.describe());
    }
    if !floats.is_empty() {
        let names: Vec<&str> = floats.iter().map(String::as_str).collect();
        text += &format!(", floats kept in {}", names.join(", "));
    }
    text + "; " + &verdict.in_words()
}

/// Photos that are watched.
#[derive(Default)]
struct Watched {
    /// Input tensors `[H,W,C]`.
    inputs: Vec<Vec<f32>>,
    /// The class of each, by its place among the model's.
    classes: Vec<usize>,
}

/// The photos that are watched: as many of each class as can be, drawn by the seed.
fn tensors(
    model: &Model,
    data: &Dataset,
    options: &Options,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Watched, Vec<Skipped>)> {
    let mut classes: BTreeMap<usize, Vec<&Sample>> = BTreeMap::new();
    for (_, sample) in data.part(Part::Train) {
        classes.entry(sample.class).or_default().push(sample);
    }
    if classes.len() < 2 && model.labels.len() > 1 {
        let what = match classes.keys().next() {
            Some(&class) => format!("all photos to watch are of one class, “{}”", data.classes[class]),
            None => "holds no photos to learn from (of `train/`)".into(),
        };
        let out = "the small network is fitted to what goes through the large one: give photos of all classes to train on";
        return Err(Error::data(&data.root, format!("{what}; {out}")));
    }
    let mut random = SplitMix64::new(options.seed);
    classes.values_mut().for_each(|samples| random.shuffle(samples));
    let longest = classes.values().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|turn| classes.values().filter_map(move |samples| samples.get(turn)));
    let chosen: Vec<&Sample> = in_turn.take(options.photos).copied().collect();
    progress.begin("reading photos", chosen.len());
    let read = |sample: &&Sample| {
        if progress.cancelled() {
            return None;
        }
        let photo = decode::read_for(&sample.path, &Limits::default(), &model.pixels);
        progress.advance(1);
        Some(photo.map(|photo| {
            let mut tensor = vec![0.0; model.pixels.len()];
            model.pixels.tensor(photo.view(), View::PLAIN, &mut tensor);
            tensor
        }))
    };
    let photos: Option<Vec<_>> = threads.install(|| chosen.par_iter().map(read).collect());
    progress.end();
    let (mut watched, mut skipped) = (Watched::default(), Vec::new());
    for (sample, photo) in chosen.into_iter().zip(photos.ok_or(Error::Interrupted)?) {
        match photo {
            Ok(tensor) => {
                watched.inputs.push(tensor);
                watched.classes.push(gate::place(model, data, sample.class)?);
            }
            Err(error) => skipped.push(Skipped::new(&sample.path, &error)),
        }
    }
    if watched.inputs.len() < FEWEST {
        let what = format!(
            "{} photos to watch are too few for a network to be fitted to; give {FEWEST} or more",
            watched.inputs.len()
        );
        return Err(Error::data(&data.root, what));
    }
    Ok((watched, skipped))
}
