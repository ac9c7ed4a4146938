//! A network within a budget: a search over backbones, input sizes, channels and bits.
//!
//! For each way of making a network smaller the [`Form`] with most channels is found that keeps to the budget: file and memory
//! are exact before anything is learnt, and the latency is measured or told. These forms learn under the model
//! before, in rounds: all of them shortly, then the better third of them for longer, and so on (successive halving, Jamieson and
//! Talwalkar, arXiv 1502.07943). What is left at the end are models like any other, and the best of them is taken.

mod form;
mod picture;
mod report;
mod state;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use penjing_runtime::file::Model;

pub use self::{
    form::{Budget, Clock, Form, Here, Needs, Numbers},
    report::{Found, Report, Shown, Tried},
    state::{remove, state_path},
};
use self::{
    form::{Ground, thinned, ways},
    report::mark_front,
    state::{Round, State, Turn, identity},
};
use super::{
    Gate, Learning, add_unread,
    gate::Judges,
    int8_before,
    prune::{self, Stock},
    qat,
    storage::{Bits, weights_only_before},
    tensors, tune,
};
use crate::{
    Error, Result,
    data::{Dataset, Part, Skipped, split},
    model::{self, Output},
    progress::Progress,
    threads::Threads,
    train::{
        checkpoint::{self, Identity, Keeper, Tensors},
        parameters::Parameters,
    },
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the network may take.
    pub budget: Budget,
    /// What a photo may take, as a share of the time before; counts where the budget says nothing of the latency.
    pub latency_share: Option<f64>,
    /// Most that the accuracy may fall, as a fraction.
    pub max_drop: f64,
    /// How long the search may take.
    pub time: Duration,
    /// Most photos that are watched.
    pub photos: usize,
    /// Draws the photos that are watched, and the order and looks of those that are learnt from.
    pub seed: u64,
    /// A folder for what the search has come to, from which it goes on.
    pub folder: Option<PathBuf>,
    /// Whether the state of another search there is thrown away.
    pub force: bool,
}

/// Rounds, and the share of the time that each may take.
const ROUNDS: [f64; 3] = [0.25, 0.3, 0.45];
/// Of so many networks one goes on.
const FEWER: usize = 3;
/// To round a network and judge it takes about so many times as long as to judge it, until it has been measured.
const ROUNDED: f64 = 5.0;
/// Who is to learn for less than so many seconds learns nothing.
const TOO_SHORT: f64 = 0.5;
/// A network learns for so many seconds in the first round, and so many are tried even so.
const LEAST_SECONDS: f64 = 5.0;
const FEWEST_FORMS: usize = 4;
/// AdamW's rate at its highest.
const RATE: f32 = 5e-4;

/// Looks for the best network within a budget, made of any of these models in floats; the first one judges and teaches. The network
/// that is given is `None` where the budget or [`Options::max_drop`] is missed. Where no part of the photos is for validation, a share
/// of the training part judges, and is not learnt from.
///
/// # Errors
/// [`Error::Unsupported`] for a model that computes in integers or cannot be trained, or models of other classes than the first
/// one's; [`Error::Data`] as [`int8`](super::int8); [`Error::Model`] for the state of another search; [`Error::Interrupted`].
pub fn search(
    starts: &[Model],
    data: &Dataset,
    options: &Options,
    clock: &dyn Clock,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Option<Model>, Report)> {
    let began = Instant::now();
    let starts: Vec<Model> =
        starts.iter().map(|start| Ok(model::in_floats(start)?.into_owned())).collect::<Result<_>>()?;
    let Some(before) = starts.first() else {
        return Err(Error::Unsupported("no model to begin with".into()));
    };
    if let Some(start) = starts.iter().find(|start| start.pixels.height != start.pixels.width) {
        let what = format!(
            "{} has an input of {} × {} pixels; within a budget only networks are looked for whose input is as wide as it is high",
            start.arch, start.pixels.height, start.pixels.width
        );
        return Err(Error::Unsupported(what));
    }
    if let Some(other) = starts.iter().find(|start| start.labels != before.labels) {
        let what = format!(
            "the models know other classes: {} has {}, {} has {}; train both on the same photos",
            before.arch,
            before.labels.len(),
            other.arch,
            other.labels.len()
        );
        return Err(Error::Unsupported(what));
    }
    let aside = split::with_judges(data, options.seed, threads, progress)?;
    if let Some(split) = &aside {
        progress.notice(&format!(
            "no part is for validation: {} of {} training photos are set aside to judge",
            split.part(Part::Val).count(),
            data.part(Part::Train).count()
        ));
    }
    if aside.is_none() && data.part(Part::Val).next().is_none() {
        progress.notice(
            "no photo can be set aside to judge without leaving a class none to learn from, or parting a group: the networks learn \
             from the photos that judge them, so that --max-drop tells little; add photos in val/",
        );
    }
    let mut judges = Judges::new(before, aside.as_ref().unwrap_or(data), threads, progress)?;
    if aside.is_some() {
        judges.part = SET_ASIDE;
    }
    let data = aside.as_ref().unwrap_or(data);
    let ground =
        Ground { starts: &starts, budget: options.budget, clock, before_ms: None, threads, progress };
    let judging = Instant::now();
    let (nll, top1) = judges.score(before)?;
    let judging = judging.elapsed().as_secs_f64();
    let mut before_shown = Shown { top1, nll, needs: ground.needs(before)? };
    if options.budget.latency_ms.is_some() {
        // All milliseconds are measured by it.
        before_shown.needs.latency_ms = ground.median_ms(before, before_shown.needs.latency_ms)?;
    }
    let keeper_path = options.folder.as_deref().map(state_path);
    let identity = match keeper_path {
        Some(_) => identity(&ground, data, options)?,
        None => Identity::default(),
    };
    let keeper = Keeper::new(keeper_path.as_deref(), identity);
    let kept: Option<(State, _)> = keeper.load(options.force)?;
    if let Some(folder) = &options.folder {
        if kept.is_none() {
            // Networks of another search.
            remove(folder)?;
        }
        if kept.is_none() && folder.exists() {
            let what = "is there already and holds other things; move it away, or name another output";
            return Err(Error::data(folder, what));
        }
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "create the folder", error))?;
    }
    let mut search = Search {
        ground,
        data,
        options,
        judges: &judges,
        stocks: starts.iter().map(|_| None).collect(),
        networks: BTreeMap::new(),
        keeper,
        before: 0.0,
        began,
        judging,
        // Photos are read, and judge twice, once they have been learnt from; until that has been measured.
        extra: judging * (2.0 + data.part(Part::Train).count() as f64 / judges.photos().0 as f64),
        making: None,
        lamented: false,
        state: State::default(),
        skipped: judges.skipped.clone(),
    };
    if let Some((state, _)) = kept {
        progress.notice(&format!("going on with a search of {:.0} s", state.seconds));
        search.before = state.seconds;
        search.state = state;
        if options.budget.latency_ms.is_some() {
            // Milliseconds are those of the machine as it is now; a share is one at any time.
            search.state.before_ms = before_shown.needs.latency_ms;
        }
    } else {
        let share = options.latency_share.map(|share| share * before_shown.needs.latency_ms);
        search.state.budget = Budget { latency_ms: options.budget.latency_ms.or(share), ..options.budget };
        search.state.before_ms = before_shown.needs.latency_ms;
    }
    search.ground.budget = search.state.budget;
    if !clock.repeats() {
        search.ground.before_ms = Some(search.state.before_ms);
        before_shown.needs.latency_ms = search.state.before_ms;
    }
    if let Err(error) = search.look() {
        // With nothing in it there is nothing to go on from.
        options.folder.as_deref().map(std::fs::remove_dir);
        return Err(error);
    }
    let learnt = (0..ROUNDS.len()).try_for_each(|round| search.round(round));
    if learnt.is_err() {
        // What a turn has taken counts, though it is not over.
        search.keep();
    }
    learnt?;
    search.finish(before_shown)
}

/// A gate that lets everything through.
const ANY: Gate = Gate { max_drop: f64::INFINITY, max_latency: f64::INFINITY, max_size: f64::INFINITY };

/// The part that judges where none is for validation: see [`split::with_judges`].
const SET_ASIDE: &str = "set-aside";

struct Search<'a> {
    ground: Ground<'a>,
    data: &'a Dataset,
    options: &'a Options,
    judges: &'a Judges<'a>,
    /// The models that have been looked at.
    stocks: Vec<Option<Stock<'a>>>,
    /// The networks in floats that have learnt in this run, by form.
    networks: BTreeMap<usize, Model>,
    keeper: Keeper<'a>,
    /// Seconds of the search before this run.
    before: f64,
    began: Instant,
    /// Seconds that it took to judge the last network in floats.
    judging: f64,
    /// What the last network that learnt took beside learning and being judged.
    extra: f64,
    /// The most that it took in this run to make a file and judge it.
    making: Option<f64>,
    /// Whether it was said that there is no time to learn.
    lamented: bool,
    state: State,
    skipped: Vec<Skipped>,
}

impl<'a> Search<'a> {
    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    fn keep(&mut self) {
        self.state.seconds = self.seconds();
        self.keeper.keep(&self.state, Tensors::default(), self.ground.progress);
    }

    /// A start whose channels have been looked at.
    fn stock(&mut self, start: usize) -> Result<&Stock<'a>> {
        if self.stocks[start].is_none() {
            let Ground { threads, progress, .. } = self.ground;
            let (model, how) = (&self.ground.starts[start], prune::Options::default());
            let Options { photos, seed, .. } = *self.options;
            let (stock, unread) = Stock::new(model, self.data, photos, &how, seed, threads, progress)?;
            add_unread(&mut self.skipped, unread);
            self.stocks[start] = Some(stock);
        }
        self.stocks[start].as_ref().ok_or(Error::Interrupted)
    }

    /// Finds the forms that keep to the budget.
    fn look(&mut self) -> Result<()> {
        let (budget, progress) = (self.state.budget, self.ground.progress);
        for start in self.state.looked..self.ground.starts.len() {
            self.stock(start)?;
            let Some(stock) = &self.stocks[start] else { continue };
            let sizes = self.ground.sizes(start);
            let ways = ways(&budget);
            let mut paths: Vec<(prune::Saving, Vec<Vec<usize>>)> = Vec::new();
            progress.begin("looking for networks within the budget", sizes.len() * ways.len());
            for &px in &sizes {
                for &(numbers, saving) in &ways {
                    if !paths.iter().any(|(other, _)| *other == saving) {
                        paths.push((saving, thinned(stock.path(saving))));
                    }
                    let path =
                        paths.iter().find(|(other, _)| *other == saving).map_or(&[][..], |(_, path)| path);
                    if progress.cancelled() {
                        return Err(Error::Interrupted);
                    }
                    let form = Form { start, px, numbers, stay: None, macs: 0 };
                    let (form, needs, within) = self.ground.edge(stock, path, &form)?;
                    progress.advance(1);
                    let State { forms, beyond, .. } = &mut self.state;
                    let found = if within { forms } else { beyond };
                    if !found.iter().any(|other| other.form == form) {
                        found.push(Found { form, needs });
                    }
                }
            }
            progress.end();
            self.state.looked = start + 1;
            self.keep();
        }
        Ok(())
    }

    /// What of a round's forms goes on.
    fn turns(&self, round: usize) -> Round {
        let mut forms: Vec<usize> = match round.checked_sub(1) {
            None => (0..self.state.forms.len()).collect(),
            Some(last) => {
                let mut last = self.state.rounds[last].turns.clone();
                last.sort_by(|a, b| better(b.shown.as_ref(), a.shown.as_ref()));
                let fewest = if round == 1 { 3 } else { 2 };
                let count = last.len().div_ceil(FEWER).max(fewest);
                last.into_iter().take(count).map(|turn| turn.form).collect()
            }
        };
        let now = self.seconds();
        // At the end the network that is taken is made once more.
        let end = self.options.time.as_secs_f64() - self.making();
        let own = (end - now).max(0.0) * ROUNDS[round] / ROUNDS[round..].iter().sum::<f64>();
        if round == 0 {
            // Of those that keep to the budget the ones that compute most, where there is not the time for all.
            let macs = |form: &usize| std::cmp::Reverse(self.state.forms[*form].form.macs);
            forms.sort_by_key(macs);
            let each = LEAST_SECONDS + self.judging + self.extra;
            forms.truncate(((own / each) as usize).max(FEWEST_FORMS));
            forms.sort_unstable();
        }
        self.ground.progress.notice(&format!(
            "round {} of {}: networks {}, {:.0} s each",
            round + 1,
            ROUNDS.len(),
            forms.len(),
            own / forms.len().max(1) as f64
        ));
        let turn = |form| Turn { form, epochs: None, shown: None };
        Round { until: now + own, turns: forms.into_iter().map(turn).collect() }
    }

    /// Seconds that it takes to make and judge the file that a network in floats comes to.
    fn making(&self) -> f64 {
        self.making.unwrap_or(ROUNDED * self.judging)
    }

    /// How often the form whose turn it is sees every photo, at so many of them a second: it has its share of what is left of
    /// the round.
    fn epochs(&mut self, round: usize, at: usize, model: &Model) -> Result<[f64; 2]> {
        let Round { until, turns } = &self.state.rounds[round];
        let (form, left) = (turns[at].form, turns.len() - at);
        if self.unchanged(form) {
            return Ok([0.0; 2]);
        }
        let photos = self.data.part(Part::Train).count().max(1) as f64;
        let how = Learning { epochs: Some(1.0), ..Learning::at(RATE) };
        let work = self.work(model, &how)?;
        let speed = tune::images_per_s(&work, photos as usize, self.ground.threads)?;
        let judging = if round == 0 { self.judging } else { self.making() };
        let seconds = (until - self.seconds()) / left as f64 - judging - self.extra;
        // A hundredth of a hundredth, so that they are the same when they are read again.
        let epochs = (1e4 * seconds * speed / photos).round() / 1e4;
        if seconds >= TOO_SHORT && epochs > 0.0 {
            return Ok([epochs.min(tune::MOST_EPOCHS), speed]);
        }
        if !std::mem::replace(&mut self.lamented, true) {
            self.ground.progress.notice(&format!(
                "networks are left that cannot learn: to look for them and to judge them took {:.0} of {:.0} s; a longer --time \
                 helps",
                self.seconds(),
                self.options.time.as_secs_f64()
            ));
        }
        Ok([0.0; 2])
    }

    /// Whether a form is its start, in floats or not, which has learnt all that it is to learn.
    fn unchanged(&self, form: usize) -> bool {
        let Form { start, px, stay, .. } = &self.state.forms[form].form;
        stay.is_none() && *px == self.ground.starts[*start].pixels.height
    }

    fn work<'w>(&'w self, model: &'w Model, how: &'w Learning) -> Result<tune::Work<'w>> {
        Ok(tune::Work {
            name: "training within a budget",
            teacher: &self.ground.starts[0],
            pixels: &model.pixels,
            graph: &model.graph,
            start: Parameters::new(&model.graph, &model.weights)?,
            projection: None,
            how,
            looks: 0.0,
            epochs: "the epochs of a turn",
            without: "no --budget",
            asked: Vec::new(),
            seed: self.options.seed,
        })
    }

    /// The network in floats of a form as it is now.
    fn network(&mut self, form: usize) -> Result<Model> {
        if let Some(model) = self.networks.get(&form) {
            return Ok(model.clone());
        }
        for (round, Round { turns, .. }) in self.state.rounds.iter().enumerate().rev() {
            let learnt = |turn: &&Turn| turn.form == form && turn.epochs > Some(0.0);
            let Some((turn, path)) = turns.iter().find(learnt).zip(self.file(form, round)) else { continue };
            if path.is_file() {
                return model::load(&path);
            }
            if turn.shown.is_some() {
                let what = "what a network has learnt is gone; remove its folder to search anew";
                return Err(Error::data(&path, what));
            }
        }
        let what = self.state.forms[form].form.clone();
        self.stock(what.start)?;
        let Some(stock) = &self.stocks[what.start] else { return Err(Error::Interrupted) };
        let model = self.ground.network(stock, &what, true)?;
        self.networks.insert(form, model.clone());
        Ok(model)
    }

    /// Where the network in floats is kept that a form comes to in a round.
    fn file(&self, form: usize, round: usize) -> Option<PathBuf> {
        self.options.folder.as_ref().map(|folder| folder.join(format!("{form}-{round}.penjing")))
    }

    /// Lets a form learn, and keeps what it comes to.
    fn learn(&mut self, round: usize, form: usize, mut model: Model, epochs: f64) -> Result<Model> {
        let file = self.file(form, round);
        let part = file.as_deref().map(checkpoint::path_for);
        let how = Learning { epochs: Some(epochs), rate: RATE, part: part.clone(), force: true };
        let Ground { threads, progress, .. } = self.ground;
        let tuned = tune::train(self.work(&model, &how)?, self.data, threads, progress)?;
        if let Some(learnt) = tuned.weights() {
            model.weights = learnt.to_weights();
        }
        add_unread(&mut self.skipped, tuned.skipped);
        if let Some(file) = file {
            match Output::new(&file, true).and_then(|output| output.save(&model)) {
                // What it was before is not needed any more.
                Ok(_) => (0..round).filter_map(|before| self.file(form, before)).try_for_each(|before| {
                    if before.is_file() { checkpoint::remove(&before) } else { Ok(()) }
                })?,
                // A full disk ends no search.
                Err(error) => progress.notice(&format!(
                    "a network cannot be kept, so the search cannot be gone on with: {error}"
                )),
            }
        }
        self.networks.insert(form, model.clone());
        if let Some(part) = part {
            checkpoint::remove(&part)?;
        }
        Ok(model)
    }

    /// Lets the forms of a round learn, and says what they show.
    fn round(&mut self, round: usize) -> Result<()> {
        if self.state.rounds.len() <= round {
            self.state.rounds.push(self.turns(round));
            self.keep();
        }
        for at in 0..self.state.rounds[round].turns.len() {
            let Turn { form, epochs, shown } = self.state.rounds[round].turns[at];
            if shown.is_some() {
                continue;
            }
            if self.ground.progress.cancelled() {
                return Err(Error::Interrupted);
            }
            let mut model = self.network(form)?;
            let [epochs, speed] = match epochs {
                Some(epochs) => [epochs, 0.0],
                None => {
                    let planned = self.epochs(round, at, &model)?;
                    self.state.rounds[round].turns[at].epochs = Some(planned[0]);
                    self.keep();
                    planned
                }
            };
            // What has learnt, and was interrupted before it was judged, does not learn again.
            if epochs > 0.0 && !self.file(form, round).is_some_and(|file| file.is_file()) {
                let began = Instant::now();
                model = self.learn(round, form, model, epochs)?;
                // Of one that goes on it is not known how much was left to learn.
                if speed > 0.0 {
                    let learning = epochs * self.data.part(Part::Train).count() as f64 / speed;
                    self.extra = (began.elapsed().as_secs_f64() - learning).max(0.0);
                }
            }
            // In the first round how numbers are kept does not matter yet.
            let began = Instant::now();
            let (needs, (nll, top1)) = if round == 0 {
                (self.state.forms[form].needs, self.judges.score(&model)?)
            } else {
                let (small, shown) = self.made(form, &model)?;
                (self.ground.needs(&small)?, shown)
            };
            let took = began.elapsed().as_secs_f64();
            if round == 0 {
                self.judging = took;
            } else {
                self.making = Some(self.making.unwrap_or_default().max(took));
            }
            self.state.rounds[round].turns[at].shown = Some(Shown { top1, nll, needs });
            self.keep();
        }
        Ok(())
    }

    /// The model that a form comes to, of its network in floats; and the likelihood and accuracy of the classes by it.
    fn made(&mut self, form: usize, model: &Model) -> Result<(Model, (f64, f64))> {
        let options = super::Options {
            photos: self.options.photos,
            qat: qat::Options { when: qat::When::Never, ..Default::default() },
            gate: ANY,
            seed: self.options.seed,
            ..Default::default()
        };
        let Ground { threads, progress, .. } = self.ground;
        let watch = || tensors(model, self.data, &options, threads, progress);
        let (small, shown, skipped) = match self.state.forms[form].form.numbers {
            Numbers::Floats => (model.clone(), self.judges.score(model)?, Vec::new()),
            Numbers::Integers => {
                let (small, report) = int8_before(self.judges, model, self.data, &options, watch()?)?;
                (small, (report.verdict.after.nll, report.verdict.after.top1), report.skipped)
            }
            Numbers::FourBits => {
                let (small, verdict, skipped) =
                    weights_only_before(self.judges, model, Bits::Four, &options, watch()?)?;
                (small, (verdict.after.nll, verdict.after.top1), skipped)
            }
        };
        add_unread(&mut self.skipped, skipped);
        Ok((small, shown))
    }

    /// The best network, if it keeps to what was asked, and what all showed.
    fn finish(mut self, before: Shown) -> Result<(Option<Model>, Report)> {
        let mut tried: Vec<(usize, Tried)> = Vec::new();
        for (at, Found { form, .. }) in self.state.forms.iter().enumerate() {
            let turns = self.state.rounds.iter().flat_map(|round| &round.turns);
            let turns: Vec<&Turn> = turns.filter(|turn| turn.form == at).collect();
            let Some(shown) = turns.last().and_then(|turn| turn.shown) else { continue };
            let arch = self.ground.starts[form.start].arch.clone();
            let epochs = turns.iter().filter_map(|turn| turn.epochs).sum();
            let rounds = turns.len();
            let (form, over) = (form.clone(), Vec::new());
            tried.push((at, Tried { form, arch, rounds, epochs, shown, front: false, over }));
        }
        tried.sort_by(|(_, a), (_, b)| {
            let by_top1 = b.shown.top1.total_cmp(&a.shown.top1).then(a.shown.nll.total_cmp(&b.shown.nll));
            b.is_made().cmp(&a.is_made()).then(by_top1)
        });
        let (mut taken, mut missed, mut model) = (None, Vec::new(), None);
        let gate = Gate { max_drop: self.options.max_drop, ..ANY };
        for (at, (form, one)) in tried.iter_mut().enumerate() {
            if !one.is_made() {
                break;
            }
            // What answered too badly then does so now.
            if let Some(why) = gate.falls_too_far(before.top1 - one.shown.top1) {
                if missed.is_empty() {
                    missed = one.shown.needs.missed(&self.state.budget);
                    missed.push(why);
                }
                continue;
            }
            let network = self.network(*form)?;
            let (mut small, (_, top1)) = self.made(*form, &network)?;
            small.provenance.recipe.push(self.describe(one, &before));
            small.provenance.val_top1 = None;
            let needs = self.ground.settled(&small)?;
            let mut over = needs.missed(&self.state.budget);
            over.extend(gate.falls_too_far(before.top1 - top1));
            one.shown.needs = needs;
            if over.is_empty() {
                (taken, model) = (Some(at), Some(small));
                missed.clear();
                break;
            }
            if missed.is_empty() {
                missed.clone_from(&over);
            }
            one.over = over;
        }
        mark_front(&mut tried);
        if tried.is_empty() {
            missed.push("nothing that could be made of it keeps to the budget".into());
        }
        let tried: Vec<Tried> = tried.into_iter().map(|(_, tried)| tried).collect();
        let (photos, part) = self.judges.photos();
        let report = Report {
            budget: self.state.budget,
            before,
            tried,
            beyond: std::mem::take(&mut self.state.beyond),
            taken,
            missed,
            photos,
            part,
            seconds: self.seconds(),
            skipped: std::mem::take(&mut self.skipped),
        };
        Ok((model, report))
    }

    /// In words, for the model's provenance.
    fn describe(&self, tried: &Tried, before: &Shown) -> String {
        let Tried { form, arch, epochs, shown, .. } = tried;
        format!(
            "found within a budget among {} networks: {arch} at {} px, {:.1} million multiply-accumulates, {}; training of \
             {epochs:.2} epochs in {} rounds under the model before; top-1 {:.2} % before, {:.2} % after on {} {} photos",
            self.state.forms.len(),
            form.px,
            form.macs as f64 / 1e6,
            form.numbers.name(),
            tried.rounds,
            100.0 * before.top1,
            100.0 * shown.top1,
            self.judges.photos().0,
            self.judges.photos().1,
        )
    }
}

/// Which of two is the better to go on with: by likelihood, which tells more than accuracy on few photos.
fn better(a: Option<&Shown>, b: Option<&Shown>) -> std::cmp::Ordering {
    let nll = |shown: Option<&Shown>| shown.map_or(f64::INFINITY, |shown| shown.nll);
    nll(b).total_cmp(&nll(a))
}
