//! The search within a budget: what it finds keeps to it, and an interruption loses nothing.

mod split_mix;
mod tinted;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use penjing::{
    Error, Result,
    compress::budget::{self, Budget, Clock, Numbers, Options, Report, search},
    data::Dataset,
    progress::{Progress, Quiet},
    threads::Threads,
};
use penjing_runtime::{
    PlanBuf, cost,
    file::Model,
    graph::Graph,
    op::{Act, Op},
};
use tinted::{Enough, conv, learnt, oblong, photos};

/// Wide enough for channels to go.
fn network() -> Graph {
    let mut graph = Graph::default();
    let mut x = graph.push("x", Op::Input { shape: [1, 16, 16, 3] }, &[]).unwrap();
    for (name, out, kernel, stride, groups) in
        [("stem", 32, 3, 2, 1), ("deep", 32, 3, 1, 32), ("last", 128, 1, 1, 1)]
    {
        x = graph.push(name, conv(out, kernel, stride, groups), &[x]).unwrap();
        x = graph.push(&format!("{name}.act"), Op::Act(Act::Relu), &[x]).unwrap();
    }
    x = graph.push("pool", Op::GlobalAvgPool, &[x]).unwrap();
    graph.push("head", Op::Linear { out_features: 4, bias: true }, &[x]).unwrap();
    graph
}

/// A machine on which a million multiply-accumulates take a millisecond, in bytes a quarter of it.
struct Told;

impl Clock for Told {
    fn ms(&self, model: &Model) -> Result<f64> {
        let macs: u64 = cost::layers(&model.graph).iter().map(|layer| layer.macs).sum();
        Ok(1e-6 * macs as f64 * if model.graph.is_quantized() { 0.25 } else { 1.0 })
    }

    fn name(&self) -> String {
        "told".into()
    }
}

/// The same machine, measured again.
struct Anew;

impl Clock for Anew {
    fn ms(&self, model: &Model) -> Result<f64> {
        Told.ms(model)
    }

    fn name(&self) -> String {
        Told.name()
    }

    fn identity(&self) -> String {
        "told anew".into()
    }
}

/// A machine that is four times as slow once something else has begun there, for all networks alike.
#[derive(Default)]
struct Busy(AtomicUsize);

impl Clock for Busy {
    fn ms(&self, model: &Model) -> Result<f64> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Told.ms(model)? * if asked > 0 { 4.0 } else { 1.0 })
    }

    fn ratio(&self, one: &Model, other: &Model) -> Result<f64> {
        Told.ratio(one, other)
    }

    fn name(&self) -> String {
        "busy".into()
    }
}

/// A machine on which a network takes so many times as long when it is asked for the nth time, once; or each time from then on.
struct Shaky {
    times: f64,
    nth: usize,
    once: bool,
    /// The networks that were asked for, and how often.
    asked: Mutex<HashMap<Vec<u8>, usize>>,
}

impl Shaky {
    fn new(times: f64, nth: usize, once: bool) -> Shaky {
        Shaky { times, nth, once, asked: Mutex::default() }
    }
}

impl Clock for Shaky {
    fn ms(&self, model: &Model) -> Result<f64> {
        Told.ms(model)
    }

    fn ratio(&self, one: &Model, other: &Model) -> Result<f64> {
        let own = Model { provenance: other.provenance.clone(), ..one.clone() };
        let mut asked = self.asked.lock().unwrap();
        let asked = asked.entry(own.to_bytes().unwrap()).or_default();
        *asked += 1;
        let slow = *asked == self.nth || *asked > self.nth && !self.once;
        Ok(Told.ratio(one, other)? * if slow { self.times } else { 1.0 })
    }

    fn name(&self) -> String {
        "shaky".into()
    }
}

/// The same machine on a quick day.
struct Quick;

impl Clock for Quick {
    fn ms(&self, model: &Model) -> Result<f64> {
        Ok(0.9 * Told.ms(model)?)
    }

    fn name(&self) -> String {
        Told.name()
    }
}

/// Counts the networks that begin to learn.
#[derive(Default)]
struct Trainings(AtomicUsize);

impl Progress for Trainings {
    fn begin(&self, phase: &str, _items: usize) {
        self.0.fetch_add(usize::from(phase.starts_with(TRAINING)), Ordering::Relaxed);
    }
}

/// Puts folders where networks are to be kept, and counts what is said of it.
struct Blocked<'a> {
    folder: &'a Path,
    said: AtomicUsize,
}

impl Progress for Blocked<'_> {
    fn begin(&self, phase: &str, _items: usize) {
        if phase.starts_with(TRAINING) {
            let turns = (0..10).flat_map(|form| (0..3).map(move |round| format!("{form}-{round}.penjing")));
            turns.for_each(|turn| drop(std::fs::create_dir(self.folder.join(turn))));
        }
    }

    fn notice(&self, line: &str) {
        self.said.fetch_add(usize::from(line.contains("cannot be gone on with")), Ordering::Relaxed);
    }
}

const TRAINING: &str = "training within a budget";

struct Place {
    folder: tempfile::TempDir,
    data: Dataset,
    start: Model,
    threads: Threads,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let data = photos(&folder.path().join("photos"));
        let start = learnt(network(), &data);
        Place { folder, data, start, threads: Threads::new(Some(2)).unwrap() }
    }

    fn options(&self, budget: Budget, kept: Option<&str>) -> Options {
        let folder = kept.map(|name| self.folder.path().join(name));
        let time = Duration::from_secs(6);
        Options {
            budget,
            latency_share: None,
            max_drop: 0.05,
            time,
            photos: 64,
            seed: 0,
            folder,
            force: false,
        }
    }

    fn search(&self, options: &Options, progress: &dyn Progress) -> Result<(Option<Model>, Report)> {
        search(std::slice::from_ref(&self.start), &self.data, options, &Told, &self.threads, progress)
    }
}

fn size(model: &Model) -> u64 {
    model.to_bytes().unwrap().len() as u64
}

#[test]
fn what_is_found_keeps_to_the_budget() {
    let place = Place::new();
    let before = Told.ms(&place.start).unwrap();
    let ram = |model: &Model| {
        PlanBuf::lower(&model.graph, &model.weights, 1).unwrap().plan().peak_ram_bytes() as u64
    };
    let budget = Budget {
        size: Some(size(&place.start) * 3 / 4),
        latency_ms: Some(0.6 * before),
        ram: Some(ram(&place.start) - 1),
    };
    let (small, report) = place.search(&place.options(budget, None), &Quiet).unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    let small = small.unwrap_or_else(|| panic!("{:?}", report.missed));
    assert!(size(&small) <= budget.size.unwrap() && Told.ms(&small).unwrap() <= budget.latency_ms.unwrap());
    assert!(ram(&small) <= budget.ram.unwrap(), "{} {:?}", ram(&small), budget.ram);
    let taken = &report.tried[report.taken.unwrap()];
    assert_eq!((taken.shown.needs.size, taken.shown.needs.ram), (size(&small), ram(&small)));
    assert!(report.before.top1 - taken.shown.top1 <= 0.05, "{report:?}");
    assert!(taken.rounds > 1 && (report.photos, report.part) == (96, "validation"));
    let best = report.tried.iter().filter(|tried| tried.rounds > 1).map(|tried| tried.shown.top1);
    assert_eq!(taken.shown.top1, best.fold(0.0, f64::max));
    assert!(report.tried.iter().any(|tried| tried.front), "{report:?}");
    let told = small.provenance.recipe.last().unwrap();
    assert!(told.starts_with("found within a budget among "), "{told}");
    // Whatever was tried keeps to the budget, in floats too.
    assert!(report.tried.iter().any(|tried| tried.form.numbers == Numbers::Floats), "{report:?}");
    for tried in &report.tried {
        assert!(tried.shown.needs.over(&budget) <= 1.0, "{tried:?}");
    }
    let picture = report.picture();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    assert_eq!(picture.matches("r=\"9\"").count(), 2, "the one that was taken, in both panels");
}

#[test]
fn a_machine_that_became_busy_finds_the_same() {
    let place = Place::new();
    let options = Options { latency_share: Some(0.5), ..place.options(Budget::default(), None) };
    let start = std::slice::from_ref(&place.start);
    let busy = Busy::default();
    let (small, report) = search(start, &place.data, &options, &busy, &place.threads, &Quiet).unwrap();
    let taken = &report.tried[report.taken.unwrap()];
    let expected = Told.ms(&small.unwrap()).unwrap();
    assert!((taken.shown.needs.latency_ms / expected - 1.0).abs() < 1e-9, "{taken:?} {expected}");
    assert!(expected <= 0.5 * report.before.needs.latency_ms, "{report:?}");
    // Where it is known what the first model takes, nobody asks for milliseconds alone.
    assert_eq!(busy.0.into_inner(), 1);
}

#[test]
fn a_slow_moment_at_the_end_passes_nobody_over() {
    let place = Place::new();
    // Its 8 bits take just a quarter.
    let options = Options { latency_share: Some(0.26), ..place.options(Budget::default(), None) };
    let start = std::slice::from_ref(&place.start);
    let search = |clock: &dyn Clock| search(start, &place.data, &options, clock, &place.threads, &Quiet);
    // Whether it learns in all rounds, and how often it has been asked for by then, depends on how fast this machine is.
    for nth in 2..=4 {
        let (small, report) = search(&Shaky::new(1.2, nth, true)).unwrap();
        let best = report.tried.iter().position(|tried| tried.rounds > 1);
        assert!(small.is_some() && report.taken.is_some() && report.taken == best, "{nth}: {report:?}");
        assert!(report.tried.iter().all(|tried| tried.over.is_empty()), "{nth}: {report:?}");
    }
    // One that is slow again and again is not taken, and it is said why.
    let (none, report) = search(&Shaky::new(1.2, 2, false)).unwrap();
    let (first, allowed) = (&report.tried[0], report.budget.latency_ms.unwrap());
    assert!(none.is_none() && report.taken.is_none(), "{report:?}");
    assert!(first.over.len() == 1 && first.over[0].starts_with("a photo takes "), "{first:?}");
    assert!(first.shown.needs.latency_ms > allowed && report.missed == first.over, "{report:?}");
}

#[test]
fn a_network_that_keeps_to_the_budget_stays_as_it_is() {
    let place = Place::new();
    let budget = Budget { size: Some(10 * size(&place.start)), ..Budget::default() };
    let trainings = Trainings::default();
    let (small, report) = place.search(&place.options(budget, None), &trainings).unwrap();
    let taken = &report.tried[report.taken.unwrap()];
    assert!(small.is_some() && taken.form.stay.is_none(), "{report:?}");
    assert!(taken.shown.top1 >= report.before.top1, "{report:?}");
    assert_eq!(trainings.0.into_inner(), 0, "nothing is to be learnt");
}

#[test]
fn a_budget_that_nothing_keeps_is_refused_with_the_nearest() {
    let place = Place::new();
    let budget = Budget { size: Some(1_000), ..Budget::default() };
    let (none, report) = place.search(&place.options(budget, None), &Quiet).unwrap();
    assert!(none.is_none() && report.tried.is_empty() && report.taken.is_none());
    assert_eq!(report.missed, ["nothing that could be made of it keeps to the budget"]);
    assert_eq!(report.beyond.len(), 3);
    for beyond in &report.beyond {
        assert!(beyond.needs.size > 1_000 && beyond.needs.size < size(&place.start), "{beyond:?}");
    }
    // The smallest of all, on a budget of just what it takes, is tried: only what is written tells whether it keeps to it.
    let just = report.beyond.iter().map(|beyond| beyond.needs.size).min();
    let (_, report) = place.search(&place.options(Budget { size: just, ..budget }, None), &Quiet).unwrap();
    assert_eq!((report.tried.len(), report.beyond.len()), (1, 2), "{report:?}");
    // One that keeps to it and answers too badly is refused as well.
    let mut options = place.options(Budget { size: Some(size(&place.start) / 2), ..budget }, None);
    options.max_drop = -1.0;
    let (none, report) = place.search(&options, &Quiet).unwrap();
    assert!(none.is_none() && report.missed[0].contains("accuracy fell by"), "{report:?}");
}

#[test]
fn an_interrupted_search_goes_on() {
    let place = Place::new();
    let budget = Budget { ram: Some(1 << 20), ..Budget::default() };
    let options = Options { latency_share: Some(0.2), ..place.options(budget, Some("kept")) };
    let kept = options.folder.clone().unwrap();
    // Before the first networks are known there is nothing to keep.
    let stopped = place.search(&options, &Enough::after(1, "looking for networks within the budget"));
    assert!(matches!(stopped, Err(Error::Interrupted)) && !kept.exists(), "{stopped:?}");
    let stopped = place.search(&options, &Enough::after(3 * 64, TRAINING));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert!(kept.join("search.part").is_file());
    // Another search is refused.
    let other = Options { seed: 1, ..options.clone() };
    let refused = place.search(&other, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("differs in --seed"), "{refused}");
    // So is one on photos of which a class has another name now, one on other photos of the same names, and one by a clock of the
    // same name.
    let mut renamed = place.data.clone();
    renamed.classes.swap(0, 1);
    let start = std::slice::from_ref(&place.start);
    let refused = search(start, &renamed, &options, &Told, &place.threads, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("differs in the photos"), "{refused}");
    let [first, second] = [0, 1].map(|at: usize| &place.data.samples[at].path);
    let bytes = std::fs::read(first).unwrap();
    std::fs::copy(second, first).unwrap();
    let refused = place.search(&options, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("differs in the photos"), "{refused}");
    std::fs::write(first, bytes).unwrap();
    let refused =
        search(start, &place.data, &options, &Anew, &place.threads, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("differs in --cost (then told, now told anew)"), "{refused}");
    let trainings = Trainings::default();
    let (small, report) = place.search(&options, &trainings).unwrap();
    assert!(small.is_some(), "{:?}", report.missed);
    let first = trainings.0.into_inner();
    assert!(first > 0);
    // A finished one has nothing left to learn, and gives the same.
    let again = Trainings::default();
    let (same, _) = place.search(&options, &again).unwrap();
    assert_eq!(again.0.into_inner(), 0);
    assert!(small.unwrap().to_bytes().unwrap() == same.unwrap().to_bytes().unwrap());
    // A network that is gone is not taken for one that has learnt.
    let network = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
    for path in network.filter(|path| path.extension().is_some_and(|end| end == "penjing")) {
        std::fs::remove_file(path).unwrap();
    }
    let refused = place.search(&options, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("has learnt is gone"), "{refused}");
    // Forced, another search begins anew, and from none of these networks.
    let first = |options: &Options| {
        assert!(matches!(place.search(options, &Enough::after(64, TRAINING)), Err(Error::Interrupted)));
        std::fs::read_dir(&kept).unwrap().count()
    };
    assert!(first(&Options { force: true, ..other }) <= 2, "the state, and that of the training");
    // What was being written when a process ended is not the user's; what is his own stays.
    std::fs::write(kept.join(".penjing-torn.tmp"), "half").unwrap();
    std::fs::write(kept.join("mine.txt"), "mine").unwrap();
    budget::remove(&kept).unwrap();
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);
    let refused = place.search(&options, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("holds other things"), "{refused}");
    std::fs::remove_file(kept.join("mine.txt")).unwrap();
    budget::remove(&kept).unwrap();
    assert!(!Path::exists(&kept));
    budget::remove(&kept).unwrap();
}

#[test]
fn milliseconds_are_those_of_the_machine_that_goes_on() {
    let place = Place::new();
    let before = Told.ms(&place.start).unwrap();
    let budget = Budget { latency_ms: Some(0.4 * before), ..Budget::default() };
    let options = place.options(budget, Some("kept"));
    let stopped = place.search(&options, &Enough::after(64, TRAINING));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let start = std::slice::from_ref(&place.start);
    let (small, report) = search(start, &place.data, &options, &Quick, &place.threads, &Quiet).unwrap();
    assert!((report.before.needs.latency_ms / before - 0.9).abs() < 1e-9, "{report:?}");
    let small = small.unwrap_or_else(|| panic!("{:?}", report.missed));
    let taken = &report.tried[report.taken.unwrap()];
    assert!((taken.shown.needs.latency_ms / Quick.ms(&small).unwrap() - 1.0).abs() < 1e-9, "{taken:?}");
}

#[test]
fn what_has_learnt_and_was_not_judged_does_not_learn_again() {
    let place = Place::new();
    let budget = Budget { ram: Some(1 << 20), ..Budget::default() };
    let options = Options { latency_share: Some(0.2), ..place.options(budget, Some("kept")) };
    let kept = options.folder.clone().unwrap();
    let networks = |end: &str| {
        let entries = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = entries.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
        paths.sort();
        paths
    };
    // 96 photos judge the start twice, and then the first network that has learnt.
    let stopped = place.search(&options, &Enough::after(2 * 96 + 10, "judging"));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let [first] = &networks(".penjing")[..] else { panic!("{:?}", networks("")) };
    let learnt = std::fs::read(first).unwrap();
    // The next training is another network's.
    let stopped = place.search(&options, &Enough::after(64, TRAINING));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert!(std::fs::read(first).unwrap() == learnt, "it has learnt again");
    let under_way = networks(".penjing.part");
    assert!(under_way.len() == 1 && !under_way[0].to_str().unwrap().starts_with(first.to_str().unwrap()));
}

#[test]
fn a_network_that_cannot_be_kept_ends_no_search() {
    let place = Place::new();
    let budget = Budget { ram: Some(1 << 20), ..Budget::default() };
    let kept = place.options(budget, Some("kept"));
    // Long enough for the one that is taken to have learnt, on a busy machine too.
    let options = Options { latency_share: Some(0.2), time: 2 * kept.time, ..kept };
    let folder = options.folder.clone().unwrap();
    let blocked = Blocked { folder: &folder, said: AtomicUsize::new(0) };
    let (small, report) = place.search(&options, &blocked).unwrap();
    assert!(small.is_some() && blocked.said.into_inner() > 0, "{:?}", report.missed);
    let refused = place.search(&options, &Quiet).unwrap_err().to_string();
    assert!(refused.contains("has learnt is gone"), "{refused}");
}

#[test]
fn models_that_cannot_be_searched_from_are_refused() {
    let place = Place::new();
    let mut other = place.start.clone();
    other.labels.swap(0, 1);
    let starts = [place.start.clone(), other];
    let options = place.options(Budget::default(), None);
    let error = search(&starts, &place.data, &options, &Told, &place.threads, &Quiet).unwrap_err();
    assert!(error.to_string().contains("know other classes"), "{error}");
    let none = search(&[], &place.data, &options, &Told, &place.threads, &Quiet).unwrap_err();
    assert!(none.to_string().contains("no model to begin with"), "{none}");
    let tall = [oblong(&place.start)];
    let tall = search(&tall, &place.data, &options, &Told, &place.threads, &Quiet).unwrap_err();
    assert!(tall.to_string().contains("has an input of 32 × 16 pixels"), "{tall}");
}
