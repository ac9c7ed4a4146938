//! Fewer channels: structured pruning.
//!
//! The [`ledger`] says which channels go together, [criteria](Criterion) which of them are missed least, a scan what the
//! network loses with a quarter, half and three quarters of each set. Then, step by step, those go whose loss costs
//! least for the time that it saves, until so much of the arithmetic is gone; what is left is [cut](mod@cut) out, fitted to what it
//! gave before, and learns from the photos under the network before. The result is a plain smaller graph.

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

pub use self::{choose::Saving, criteria::Criterion};
use self::{
    choose::{Scanned, TRIED, Takes},
    criteria::Sight,
    ledger::Ledger,
    mend::Change,
};
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
    /// Multiply-accumulates before and after.
    pub macs: [u64; 2],
    /// Parameters before and after.
    pub params: [u64; 2],
    /// Steps in which channels were taken away.
    pub cuts: u32,
    /// Every set of channels.
    pub sets: Vec<Kept>,
    /// How far the network was, after the last cut and before it learnt, from the one before that cut, on photos that were watched.
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
    /// And are.
    pub after: usize,
    /// [`Distance::error`] of the network without a quarter, half and three quarters of them.
    pub losses: [f64; 3],
}

/// Photos that the scan runs through.
const SCANNED: usize = 64;
/// Photos that are seen in all by the training.
const LOOKS: f64 = 5_000.0;

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
        let what = "after one step BatchNorm is part of the layers, and its scales tell nothing of the next; take another criterion, \
                    or one step";
        return Err(Error::Unsupported(what.into()));
    }
    let mut now = Cow::Borrowed(model);
    let mut report: Option<Report> = None;
    let mut skipped = Vec::new();
    for cut in 1..=cuts {
        let (stock, unread) = Stock::new(&now, data, photos, options, seed, threads, progress)?;
        add_unread(&mut skipped, unread);
        let takes = Takes::of(&stock.graph);
        let whole = report.as_ref().map_or(takes.macs, |report| report.macs[0]);
        let goal = gone_after(options.share, cut, cuts);
        let stay = choose::choose(&stock.graph, &stock.ledger, &stock.scanned, goal, whole)?;
        let small = stock.small(&stay)?;
        let (left, start) = (Takes::of(&small.graph), stock.distance(&small)?);
        let report = report.get_or_insert_with(|| Report {
            share: 0.0,
            criterion: options.criterion,
            macs: [takes.macs; 2],
            params: [takes.params; 2],
            cuts: 0,
            sets: stock.kept(),
            start,
            epochs: 0.0,
            steps: 0,
            seconds: 0.0,
            skipped: Vec::new(),
        });
        report.share = 1.0 - left.macs as f64 / whole as f64;
        (report.macs[1], report.params[1]) = (left.macs, left.params);
        report.cuts = cut;
        for (set, stay) in stock.scanned.iter().zip(&stay) {
            let same = report.sets.iter_mut().filter(|kept| kept.name == set.set.name);
            same.for_each(|kept| kept.after = *stay);
        }
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
                asked: Vec::new(),
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
        format!(
            "pruned: {:.1} % of the multiply-accumulates and {:.1} % of the parameters gone, channels by {}{}; training of {} \
             epochs ({} steps) under the model before",
            100.0 * self.share,
            100.0 * (1.0 - self.params[1] as f64 / self.params[0] as f64),
            self.criterion.name(),
            if self.cuts == 1 { String::new() } else { format!(", in {} cuts", self.cuts) },
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
    /// What its layers read, at so many places.
    reads: BTreeMap<String, Reads>,
    places: usize,
    /// What it says of the photos that the scan runs through.
    exact: judge::Logits,
    scanned: Vec<Scanned>,
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
        let inputs = &watched.inputs[..watched.inputs.len().min(FITTED)];
        let reads = watch(&graph, &weights, &readers, inputs, places, threads, progress)?;
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
            reads,
            places,
            exact: Vec::new(),
            scanned: Vec::new(),
            mend: options.mend,
            threads,
            progress,
        };
        stock.exact = stock.logits(&stock.graph, &stock.weights)?;
        stock.scanned = stock.scan(&scores)?;
        Ok((stock, skipped))
    }

    /// Smaller and smaller networks, by how many channels of each set stay.
    pub fn path(&self, saving: Saving) -> Vec<Vec<usize>> {
        choose::path(&self.graph, &self.ledger, &self.scanned, saving).map(|(stay, _)| stay).collect()
    }

    /// The network with all its channels.
    pub fn whole(&self) -> Small {
        Small { graph: self.graph.clone(), weights: self.weights.clone() }
    }

    /// The network in which so many channels of each set stay, as it is cut; `fitted`: its layers that miss some are fitted again,
    /// each by itself.
    pub fn cut(&self, stay: &[usize], fitted: bool) -> Result<Small> {
        let gone = choose::gone(&self.ledger, &self.scanned, stay);
        let stays = |unit: ledger::Unit| !gone[unit.index()];
        let mut small = self.cut_by(&stays)?;
        if fitted {
            self.threads.install(|| self.change(&stays).mend_readers(&mut small.weights));
        }
        Ok(small)
    }

    /// The same, all its layers fitted to what they gave before, one after the other.
    fn small(&self, stay: &[usize]) -> Result<Small> {
        let gone = choose::gone(&self.ledger, &self.scanned, stay);
        let stays = |unit: ledger::Unit| !gone[unit.index()];
        let mut small = self.cut_by(&stays)?;
        if self.mend {
            let inputs = &self.watched.inputs;
            let inputs = (&inputs[..inputs.len().min(FITTED)], self.places);
            let change = self.change(&stays);
            change.mend_all(&small.graph, &mut small.weights, inputs, self.threads, self.progress)?;
        }
        Ok(small)
    }

    /// How far it is from the network before, on the photos that the scan ran through.
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
        self.scanned.iter().map(kept).collect()
    }

    /// What the network loses with some of each set, those readers fitted again that miss them.
    fn scan(&self, scores: &[f64]) -> Result<Vec<Scanned>> {
        let sets = self.ledger.sets(&self.graph);
        self.progress.begin("looking for what is missed least", sets.len());
        let mut scanned = Vec::new();
        for set in sets {
            let order = criteria::order(&set.units, scores);
            let mut losses = [0.0; TRIED.len()];
            for (loss, share) in losses.iter_mut().zip(TRIED) {
                let mut gone = vec![false; self.ledger.len()];
                let count = ((order.len() as f64 * share) as usize).min(order.len() - 1);
                order[..count].iter().for_each(|unit| gone[unit.index()] = true);
                let stays = |unit: ledger::Unit| !gone[unit.index()];
                // Nothing would be left of a layer.
                let Ok(mut small) = self.cut_by(&stays) else {
                    *loss = choose::ALL;
                    continue;
                };
                if self.mend {
                    self.threads.install(|| self.change(&stays).mend_readers(&mut small.weights));
                }
                *loss = self.distance(&small)?.error;
            }
            scanned.push(Scanned { set, order, losses });
            self.progress.advance(1);
        }
        self.progress.end();
        Ok(scanned)
    }

    fn cut_by(&self, stays: &dyn Fn(ledger::Unit) -> bool) -> Result<Small> {
        let (graph, weights) =
            cut::cut(&self.graph, &self.weights, &self.ledger, stays).map_err(unsupported)?;
        Ok(Small { graph, weights })
    }

    fn change<'s>(&'s self, stays: &'s (dyn Fn(ledger::Unit) -> bool + Sync)) -> Change<'s> {
        let Stock { graph, weights, ledger, reads, .. } = self;
        Change { graph, weights, ledger, reads, stays }
    }

    fn logits(&self, graph: &Graph, weights: &Weights) -> Result<judge::Logits> {
        if self.progress.cancelled() {
            return Err(Error::Interrupted);
        }
        let inputs = &self.watched.inputs;
        let few = &inputs[..inputs.len().min(SCANNED)];
        judge::logits(graph, weights, &self.model.pixels, few, self.threads)
    }
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
