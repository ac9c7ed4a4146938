//! Fewer channels and blocks: structured pruning.
//!
//! The [`ledger`] says which channels go together, [criteria](Criterion) which of them are missed least, a scan what the
//! network loses with a quarter, half and three quarters of each set, and without each [block](blocks). Then, step by step, those
//! go whose loss costs least for the time that it saves, until so much of the arithmetic is gone; what is left is [cut](mod@cut) out, fitted to what it
//! gave before, and learns from the photos under the network before. The result is a plain smaller graph.

pub mod blocks;
mod choose;
pub mod criteria;
pub mod cut;
pub mod ledger;
mod mend;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use penjing_runtime::{file::Model, graph::Graph, tensor::Weights};
use serde::Serialize;

use self::{
    blocks::Block,
    choose::{Around, Choices, Scanned, TRIED, Takes},
    criteria::Sight,
    cut::Less,
    ledger::Ledger,
    mend::Change,
};
pub use self::{choose::Saving, criteria::Criterion};
use super::{
    Watched, add_unread, fold,
    fold::{in_groups, layer},
    judge::{self, Distance},
    reads::{self, FITTED, Reads, watch},
    tensors,
    tune::{self, Learning},
    unsupported,
};
use crate::{
    Error, Result,
    data::{Dataset, Part, Skipped},
    model,
    progress::Progress,
    threads::Threads,
    train::parameters::Parameters,
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Share of the multiply-accumulates that goes, 0..1.
    pub share: f64,
    /// In so many steps, each of which takes as large a share of what the one before left, and learns; at least 1.
    pub steps: u32,
    /// What tells channels apart.
    pub criterion: Criterion,
    /// Whether blocks may go as a whole.
    pub blocks: bool,
    /// Whether what is left is fitted to what it gave before.
    pub mend: bool,
    /// How what is left learns.
    pub learning: Learning,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            share: 0.5,
            steps: 1,
            criterion: Criterion::default(),
            blocks: false,
            mend: true,
            learning: Learning::at(3e-4),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Share of the multiply-accumulates that went.
    pub share: f64,
    /// What told channels apart.
    pub criterion: Criterion,
    /// Whether what stayed was fitted to what it gave before.
    pub fitted: bool,
    /// Multiply-accumulates before and after.
    pub macs: [u64; 2],
    /// Parameters before and after.
    pub params: [u64; 2],
    /// Steps in which channels were taken away.
    pub cuts: u32,
    /// Every set of channels.
    pub sets: Vec<Kept>,
    /// Every block that could go, if they were asked for.
    pub blocks: Vec<Whole>,
    /// How far the network was, after the last cut and before it learnt, from the one before that cut, on photos of the training part
    /// that its layers were not fitted on.
    pub start: Distance,
    /// How often every photo was seen after a cut, of all of them together.
    pub epochs: f64,
    /// Steps that were taken.
    pub steps: u64,
    /// How long the training took, in seconds.
    pub seconds: f64,
    /// Photos that could not be read, and why.
    pub skipped: Vec<Skipped>,
}

/// One set of channels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// The first layer that makes them.
    pub name: String,
    /// How many there were.
    pub before: usize,
    /// And are; none where the block went that they are of.
    pub after: usize,
    /// [`Distance::error`] of the network without a quarter, half and three quarters of them.
    pub losses: [f64; 3],
}

/// One block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Whole {
    /// The sum that ends it.
    pub name: String,
    /// [`Distance::error`] of the network without it.
    pub loss: f64,
    /// Whether it went.
    pub gone: bool,
}

/// Photos that judge what the scan tries.
const SCANNED: usize = 64;
/// Photos that are seen in all by the training.
const LOOKS: f64 = 5_000.0;
/// What leaves the training out.
const WITHOUT: &str = "--prune-epochs 0";

/// Makes a smaller network of one in floats. Photos of the training part are watched, `photos` of them, and learnt from.
///
/// # Errors
/// [`Error::Unsupported`] for a model that computes in integers already, a share that cannot go, or a network that cannot be
/// trained; [`Error::Data`] for photos that are too few, of one class, or of classes that the model does not know;
/// [`Error::Model`] for the state of other work; [`Error::Interrupted`].
pub fn prune(
    model: &Model,
    data: &Dataset,
    photos: usize,
    options: &Options,
    seed: u64,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Model, Report)> {
    let model = &*model::in_floats(model)?;
    let cuts = options.steps.max(1);
    if cuts > 1 && options.criterion == Criterion::Scale {
        let what = "after one step BatchNorm is part of the layers, and its scales tell nothing of the next; take another --criterion, \
                    or --prune-steps 1";
        return Err(Error::Unsupported(what.into()));
    }
    if options.learning.epochs != Some(0.0) {
        tune::require_square(&model.pixels, WITHOUT)?;
    }
    let mut now = Cow::Borrowed(model);
    let mut report: Option<Report> = None;
    let mut skipped = Vec::new();
    for cut in 1..=cuts {
        let (stock, unread) = Stock::new(&now, data, photos, options, seed, threads, progress)?;
        add_unread(&mut skipped, unread);
        if options.blocks && cut == 1 && stock.choices.blocks.is_empty() {
            progress.notice("the network has no residual block that can go: channels alone do");
        }
        let takes = Takes::of(&stock.graph);
        let whole = report.as_ref().map_or(takes.macs, |report| report.macs[0]);
        let goal = gone_after(options.share, cut, cuts);
        let stay = choose::choose(&stock.graph, &stock.ledger, &stock.choices, goal, whole)?;
        let small = stock.small(&stay)?;
        let (left, start) = (Takes::of(&small.graph), stock.distance(&small)?);
        let report = report.get_or_insert_with(|| Report {
            share: 0.0,
            criterion: options.criterion,
            fitted: options.mend,
            macs: [takes.macs; 2],
            params: [takes.params; 2],
            cuts: 0,
            sets: stock.kept(),
            blocks: stock.whole_blocks(),
            start,
            epochs: 0.0,
            steps: 0,
            seconds: 0.0,
            skipped: Vec::new(),
        });
        report.share = 1.0 - left.macs as f64 / whole as f64;
        (report.macs[1], report.params[1]) = (left.macs, left.params);
        report.cuts = cut;
        stock.tell(&stay, report);
        report.start = start;
        let mut weights = small.weights;
        if options.learning.epochs != Some(0.0) {
            let part = options.learning.part.as_deref().map(|last| part(last, cut, cuts));
            // Every step has its share of what one would learn.
            let count = data.part(Part::Train).count();
            let all = options.learning.epochs.unwrap_or_else(|| tune::epochs(LOOKS, count));
            let epochs = Some(all / f64::from(cuts));
            let work = tune::Work {
                name: "training after pruning",
                teacher: model,
                pixels: &model.pixels,
                graph: &small.graph,
                start: Parameters::new(&small.graph, &weights)?,
                projection: None,
                how: &Learning { part, epochs, ..options.learning.clone() },
                looks: LOOKS,
                epochs: "--prune-epochs of a step",
                without: WITHOUT,
                asked: vec![
                    ("--prune", options.share.to_string()),
                    ("--prune-steps", options.steps.to_string()),
                    ("--criterion", options.criterion.name().into()),
                    ("--blocks", options.blocks.to_string()),
                    ("--no-fit", (!options.mend).to_string()),
                    ("--photos", photos.to_string()),
                ],
                seed,
            };
            let tuned = tune::train(work, data, threads, progress)?;
            weights = tuned.learnt()?.to_weights();
            report.epochs = all * f64::from(cut) / f64::from(cuts);
            report.steps += tuned.steps;
            report.seconds += tuned.seconds;
            add_unread(&mut skipped, tuned.skipped);
        }
        now = Cow::Owned(Model { graph: small.graph, weights, ..model.clone() });
    }
    let mut report = report.ok_or_else(|| Error::Unsupported("no step to prune in".into()))?;
    report.skipped = skipped;
    let mut pruned = now.into_owned();
    pruned.provenance.recipe.push(report.describe());
    pruned.provenance.val_top1 = None;
    Ok((pruned, report))
}

/// What of the whole is gone after a step, if a share is after all of them: each leaves as much of what it finds.
fn gone_after(share: f64, step: u32, steps: u32) -> f64 {
    if step == steps { share } else { 1.0 - (1.0 - share).powf(f64::from(step) / f64::from(steps)) }
}

/// Where the state of a step is kept, if that of the last one is kept at `last`.
fn part(last: &Path, step: u32, steps: u32) -> PathBuf {
    if step == steps { last.to_owned() } else { last.with_extension(format!("{step}.part")) }
}

/// All states that pruning in so many steps keeps, if that of the last one is kept at `last`.
pub fn parts(last: &Path, steps: u32) -> Vec<PathBuf> {
    (1..=steps).map(|step| part(last, step, steps)).collect()
}

impl Report {
    /// In words, for the model's provenance.
    fn describe(&self) -> String {
        let blocks = match self.blocks.iter().filter(|block| block.gone).count() {
            0 => String::new(),
            gone => format!(" and {gone} of {} blocks", self.blocks.len()),
        };
        format!(
            "pruned: {:.1} % of the multiply-accumulates and {:.1} % of the parameters gone, channels by {}{blocks}{}{}; training of {} \
             epochs ({} steps) under the model before",
            100.0 * self.share,
            100.0 * (1.0 - self.params[1] as f64 / self.params[0] as f64),
            self.criterion.name(),
            if self.cuts == 1 { String::new() } else { format!(", in {} cuts", self.cuts) },
            if self.fitted { "" } else { ", what stays not fitted" },
            self.epochs,
            self.steps,
        )
    }
}

/// A network without some channels.
pub(super) struct Small {
    pub graph: Graph,
    pub weights: Weights,
}

/// A network whose channels have been looked at: smaller ones are cut from it.
pub(super) struct Stock<'a> {
    model: &'a Model,
    /// BatchNorm drawn in, a bias in every layer.
    graph: Graph,
    weights: Weights,
    ledger: Ledger,
    watched: Watched,
    /// Photos that judge, on which nothing is fitted.
    judges: Vec<Vec<f32>>,
    /// What its layers read, at so many places.
    reads: BTreeMap<String, Reads>,
    places: usize,
    /// What it says of the photos that judge.
    exact: judge::Logits,
    choices: Choices,
    mend: bool,
    threads: &'a Threads,
    progress: &'a dyn Progress,
}

impl<'a> Stock<'a> {
    /// Looks at a network in floats: which channels are missed least, and what it loses without some of each set.
    ///
    /// # Errors
    /// As [`prune`].
    pub fn new(
        model: &'a Model,
        data: &Dataset,
        photos: usize,
        options: &Options,
        seed: u64,
        threads: &'a Threads,
        progress: &'a dyn Progress,
    ) -> Result<(Self, Vec<Skipped>)> {
        let watching = super::Options { photos, seed, ..Default::default() };
        let (watched, skipped) = tensors(model, data, &watching, threads, progress)?;
        let (watched, judges) = apart(watched);
        let (graph, weights) = fold::fold(&model.graph, &model.weights).map_err(unsupported)?;
        let (graph, weights) = fold::with_biases(&graph, &weights).map_err(unsupported)?;
        let ledger = Ledger::new(&graph);
        let readers: Vec<String> = graph
            .nodes()
            .iter()
            .filter(|node| layer(node) && !in_groups(node))
            .map(|node| node.name.clone())
            .collect();
        let places = reads::places(&weights, &readers);
        let reads = watch(&graph, &weights, &readers, fitted(&watched), places, threads, progress)?;
        let sight = Sight {
            before: (&model.graph, &model.weights),
            graph: &graph,
            weights: &weights,
            ledger: &ledger,
            reads: &reads,
            photos: (&watched.inputs, &watched.classes),
            seed,
        };
        let scores = threads.install(|| criteria::scores(options.criterion, &sight))?;
        let mut stock = Stock {
            model,
            graph,
            weights,
            ledger,
            watched,
            judges,
            reads,
            places,
            exact: Vec::new(),
            choices: Choices::default(),
            mend: options.mend,
            threads,
            progress,
        };
        stock.exact = stock.logits(&stock.graph, &stock.weights)?;
        let sets = stock.scan(&scores)?;
        let blocks = if options.blocks { stock.scan_blocks(&sets)? } else { Vec::new() };
        stock.choices = Choices { sets, blocks };
        Ok((stock, skipped))
    }

    /// Smaller and smaller networks, by how many channels of each set stay, and whether each block does.
    pub fn path(&self, saving: Saving) -> Vec<Vec<usize>> {
        choose::path(&self.graph, &self.ledger, &self.choices, saving).map(|(stay, _)| stay).collect()
    }

    /// The network with all its channels.
    pub fn whole(&self) -> Small {
        Small { graph: self.graph.clone(), weights: self.weights.clone() }
    }

    /// The network in which so many channels of each set and those blocks stay, as it is cut; `fitted`: its layers that miss some are
    /// fitted again, each by itself.
    pub fn cut(&self, stay: &[usize], fitted: bool) -> Result<Small> {
        self.cut_by(&self.choices.less(&self.ledger, stay), fitted)
    }

    /// The same, all its layers fitted to what they gave before, one after the other.
    fn small(&self, stay: &[usize]) -> Result<Small> {
        let less = self.choices.less(&self.ledger, stay);
        let mut small = self.cut_by(&less, false)?;
        if self.mend {
            let inputs = (fitted(&self.watched), self.places);
            let change = self.change(&less);
            change.mend_all(&small.graph, &mut small.weights, inputs, self.threads, self.progress)?;
        }
        Ok(small)
    }

    /// How far it is from the network before, on the photos that judge.
    fn distance(&self, small: &Small) -> Result<Distance> {
        Ok(Distance::between(&self.exact, &self.logits(&small.graph, &small.weights)?))
    }

    /// Its sets, whole.
    fn kept(&self) -> Vec<Kept> {
        let kept = |scanned: &Scanned| Kept {
            name: scanned.set.name.clone(),
            before: scanned.order.len(),
            after: scanned.order.len(),
            losses: scanned.losses,
        };
        self.choices.sets.iter().map(kept).collect()
    }

    /// Its blocks, all there.
    fn whole_blocks(&self) -> Vec<Whole> {
        let whole = |around: &Around| Whole {
            name: around.block.name(&self.graph).into(),
            loss: around.loss,
            gone: false,
        };
        self.choices.blocks.iter().map(whole).collect()
    }

    /// Puts into a report what stays.
    fn tell(&self, stay: &[usize], report: &mut Report) {
        let (sets, blocks) = stay.split_at(self.choices.sets.len());
        let mut sets = sets.to_vec();
        for around in
            self.choices.blocks.iter().zip(blocks).filter(|(_, stay)| **stay == 0).map(|(around, _)| around)
        {
            around.own.iter().for_each(|&own| sets[own] = 0);
            let name = around.block.name(&self.graph);
            match report.blocks.iter_mut().find(|whole| whole.name == name) {
                Some(whole) => whole.gone = true,
                // It held another one, which went before.
                None => report.blocks.push(Whole { name: name.into(), loss: around.loss, gone: true }),
            }
        }
        for (set, stay) in self.choices.sets.iter().zip(sets) {
            let same = report.sets.iter_mut().filter(|kept| kept.name == set.set.name);
            same.for_each(|kept| kept.after = stay);
        }
    }

    /// What the network loses with some of each set, those readers fitted again that miss them.
    fn scan(&self, scores: &[f64]) -> Result<Vec<Scanned>> {
        let sets = self.ledger.sets(&self.graph);
        self.progress.begin("looking for what is missed least", sets.len());
        let mut scanned = Vec::new();
        for set in sets {
            let results = self.graph.iter().map(|(id, _)| self.ledger.channels(id));
            let order = criteria::order(&set.units, scores, results);
            let mut losses = [0.0; TRIED.len()];
            for (loss, share) in losses.iter_mut().zip(TRIED) {
                let mut less = Less::nothing(&self.ledger);
                let count = ((order.len() as f64 * share) as usize).min(order.len() - 1);
                order[..count].iter().for_each(|unit| less.units[unit.index()] = true);
                // Nothing would be left of a layer.
                let Ok(small) = self.cut_by(&less, self.mend) else {
                    *loss = choose::ALL;
                    continue;
                };
                // What is no number is as bad as can be.
                *loss = self.distance(&small)?.error.min(choose::ALL);
            }
            scanned.push(Scanned { set, order, losses });
            self.progress.advance(1);
        }
        self.progress.end();
        Ok(scanned)
    }

    /// What the network loses without each block, the layer before it standing in for it.
    fn scan_blocks(&self, sets: &[Scanned]) -> Result<Vec<Around>> {
        let blocks = Block::all(&self.graph);
        self.progress.begin("looking for blocks that are missed least", blocks.len());
        let mut scanned = Vec::new();
        for block in blocks {
            let less = Less { blocks: vec![&block], ..Less::nothing(&self.ledger) };
            let loss = self.distance(&self.cut_by(&less, self.mend)?)?.error.min(choose::ALL);
            let mut elsewhere = vec![false; self.ledger.len()];
            for (id, _) in self.graph.iter().filter(|(id, _)| !block.holds(*id)) {
                self.ledger.channels(id).iter().for_each(|unit| elsewhere[unit.index()] = true);
            }
            let is_own = |set: &Scanned| set.order.iter().all(|unit| !elsewhere[unit.index()]);
            let own = sets.iter().enumerate().filter(|(_, set)| is_own(set)).map(|(at, _)| at).collect();
            scanned.push(Around { block, loss, own });
            self.progress.advance(1);
        }
        self.progress.end();
        Ok(scanned)
    }

    /// `fitted`: the layers that miss something are fitted again, each by itself.
    fn cut_by(&self, less: &Less, fitted: bool) -> Result<Small> {
        let (graph, mut weights) =
            cut::cut(&self.graph, &self.weights, &self.ledger, less).map_err(unsupported)?;
        if fitted {
            self.threads.install(|| self.change(less).mend_readers(&mut weights));
        }
        Ok(Small { graph, weights })
    }

    fn change<'s>(&'s self, less: &'s Less<'s>) -> Change<'s> {
        let Stock { graph, weights, ledger, reads, .. } = self;
        Change { graph, weights, ledger, reads, less }
    }

    fn logits(&self, graph: &Graph, weights: &Weights) -> Result<judge::Logits> {
        if self.progress.cancelled() {
            return Err(Error::Interrupted);
        }
        judge::logits(graph, weights, &self.model.pixels, &self.judges, self.threads)
    }
}

/// Sets apart a quarter of what is watched, of every class as far as it has enough, to judge: a layer with more weights than there are
/// places that it is fitted on gives there what it gave, whatever it reads.
fn apart(watched: Watched) -> (Watched, Vec<Vec<f32>>) {
    let (mut others, mut judges) = (Watched::default(), Vec::new());
    // Of each class its place among those seen, and how many there were.
    let mut seen: BTreeMap<usize, [usize; 2]> = BTreeMap::new();
    for (input, class) in watched.inputs.into_iter().zip(watched.classes) {
        let place = seen.len();
        let [place, count] = seen.entry(class).or_insert([place, 0]);
        if (*place + *count) % 4 == 3 {
            judges.push(input);
        } else {
            others.inputs.push(input);
            others.classes.push(class);
        }
        *count += 1;
    }
    judges.truncate(SCANNED);
    (others, judges)
}

/// What layers are fitted on.
fn fitted(watched: &Watched) -> &[Vec<f32>] {
    &watched.inputs[..watched.inputs.len().min(FITTED)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_takes_as_much_of_what_it_finds() {
        assert_eq!([1, 2].map(|step| gone_after(0.75, step, 2)), [0.5, 0.75]);
        assert_eq!(gone_after(0.3, 1, 1), 0.3);
    }

    #[test]
    fn other_photos_of_every_class_judge_than_layers_are_fitted_on() {
        // Two classes, of which one ends soon; many of one photo each; as few as may be.
        let unlike: Vec<usize> = (0..40).map(|at| if at < 16 { at % 2 } else { 0 }).collect();
        for (classes, judging) in
            [(unlike, 10), ((0..256).collect(), 64), ((0..400).collect(), 64), (vec![5; 10], 2)]
        {
            let inputs = (0..classes.len()).map(|photo| vec![photo as f32]).collect();
            let (others, judges) = apart(Watched { inputs, classes: classes.clone() });
            assert_eq!(judges.len(), judging, "{classes:?}");
            let class = |photo: &Vec<f32>| classes[photo[0] as usize];
            assert!(others.inputs.iter().map(class).eq(others.classes.iter().copied()));
            assert!(!judges.iter().any(|photo| others.inputs.contains(photo)));
            if judging == 10 {
                assert_eq!([0, 1].map(|is| judges.iter().filter(|photo| class(photo) == is).count()), [8, 2]);
            }
            assert!(fitted(&others).len() == others.inputs.len().min(128));
        }
    }

    #[test]
    fn every_step_keeps_its_own_state() {
        let last = Path::new("a.b/small.penjing.pruned.part");
        let names = [
            "a.b/small.penjing.pruned.1.part",
            "a.b/small.penjing.pruned.2.part",
            "a.b/small.penjing.pruned.part",
        ];
        assert_eq!(parts(last, 3), names.map(PathBuf::from));
        assert_eq!(parts(last, 1), [last]);
    }
}
