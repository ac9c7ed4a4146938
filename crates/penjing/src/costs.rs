//! What networks take on a machine, told from what steps took there: so that a laptop can choose for a board.
//!
//! [`Costs::measure`] times every step of some networks of the zoo, in floats, in 8 bits and with zeros, and fits a law to each
//! kind of steps: so long for a call, and so long for each multiplication and each byte. [`Costs::predict`] adds up what the
//! steps of a network take by it. By the other ways of running on that machine, on more or fewer threads or with another
//! instruction set, the same networks are timed as wholes, in turn with the steps, and tell how many times as long each kind of
//! steps takes so. How far all this is from measurements is known, of each way: each of those networks is predicted by what all
//! others told, not by itself at another size or in another form.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path, sync::Arc, time::Instant};

use penjing_runtime::{
    Isa, PlanBuf,
    aligned::Aligned,
    file::Model,
    graph::Graph,
    load::Load,
    op::Op,
    tensor::{Tensor, Weights},
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    compress::{
        Ranging,
        budget::Clock,
        fold::fold,
        grid::grids,
        observe::observe,
        ptq::{Rounding, quantize},
    },
    progress::{Hushed, Progress},
    random::SplitMix64,
    threads::{MAX_THREADS, Threads},
    zoo::{Network, random_weights},
};

/// The version of the file's format, and the only one that is read.
pub const FORMAT: u32 = 2;

/// What steps take on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    format: u32,
    /// Version of penjing that measured: another one's kernels may take another time.
    pub penjing: String,
    /// The machine's architecture, such as aarch64.
    pub machine: String,
    /// The instruction set that ran.
    pub isa: String,
    /// How many threads shared a photo.
    pub threads: usize,
    /// Root of the mean squared relative error of the networks below.
    pub error: f64,
    /// By the [kind](Load::kind) of steps.
    laws: BTreeMap<String, Law>,
    /// The networks that were measured.
    pub networks: Vec<Checked>,
    /// Other ways of running there.
    pub ways: Vec<Way>,
}

/// Another way of running on the machine, by which networks were timed as wholes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// The instruction set.
    pub isa: String,
    /// How many threads shared a photo.
    pub threads: usize,
    /// Root of the mean squared relative error of the networks, each told by the laws and factors of the others.
    pub error: f64,
    /// How many times as long a step takes as by the laws, by its kind.
    factors: BTreeMap<String, f64>,
}

/// What one kind of steps takes, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Law {
    /// Each.
    call: f64,
    /// A multiply-accumulate between channels.
    mac: f64,
    /// One of a channel by itself.
    filter: f64,
    /// A byte of a map.
    map: f64,
    /// A byte of weights.
    weight: f64,
}

/// A network that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// Its name, the size of its input and how it was run.
    pub name: String,
    /// Median of a photo, in milliseconds.
    pub measured_ms: f64,
    /// What all other networks tell of it.
    pub predicted_ms: f64,
}

/// Networks whose steps are timed, with the size of their input.
const NETWORKS: [(&str, usize); 12] = [
    ("mobilenet_v1_x0.5", 160),
    ("mobilenet_v2", 224),
    ("mobilenet_v2", 160),
    ("mobilenet_v2_x0.5", 128),
    ("mobilenet_v3_small", 224),
    ("mobilenet_v3_large", 160),
    ("efficientnet_lite0", 224),
    ("efficientnet_lite0", 128),
    ("shufflenet_v2", 224),
    ("shufflenet_v2_x0.5", 160),
    ("squeezenet1_1", 224),
    ("resnet8", 64),
];

/// How a network is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Floats,
    Bytes,
    Zeros,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Floats => "floats",
            Form::Bytes => "8 bits",
            Form::Zeros => "zeros",
        }
    }
}

/// A way of running a network.
type Ran<'t> = (Isa, &'t Threads);

/// What a network's steps took.
struct Timed {
    /// The network, of whatever size and form.
    network: String,
    /// With size and form.
    name: String,
    /// Each step, in nanoseconds.
    steps: Vec<(Load, f64)>,
    /// All of them at once.
    whole: f64,
    /// The same by each other way of running.
    otherwise: Vec<f64>,
}

impl Costs {
    /// Times networks for about so many seconds: their steps with this instruction set on these threads, and as wholes with every
    /// other instruction set but `scalar`, on one thread, two, four and so on, up to one for each core.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Unsupported`] when the system has no threads to give.
    pub fn measure(isa: Isa, threads: &Threads, seconds: f64, progress: &dyn Progress) -> Result<Costs> {
        let pools = pools()?;
        let isas = || Isa::available().filter(|isa| *isa != Isa::scalar() || *isa == Isa::detect());
        let all = pools.iter().flat_map(|threads| isas().map(move |isa| (isa, threads)));
        let is_own = |way: &Ran| way.0 == isa && way.1.count() == threads.count();
        let others: Vec<Ran> = all.filter(|way| !is_own(way)).collect();
        let mut timed = Vec::new();
        let forms = [Form::Floats, Form::Bytes, Form::Zeros];
        let each = seconds / (NETWORKS.len() * forms.len()) as f64;
        progress.begin("measuring networks", NETWORKS.len() * forms.len());
        for (network, size) in NETWORKS {
            for form in forms {
                let (graph, weights) = made(network, size, form, threads, &Hushed(progress))?;
                let name = format!("{network} at {size} px, {}", form.name());
                let ways = ((isa, threads), &others[..]);
                timed.push(time([network, &name], (&graph, &weights), ways, each, progress)?);
                progress.advance(1);
            }
        }
        progress.end();
        let named = |(isa, threads): &Ran| (isa.name(), threads.count());
        let others: Vec<(&str, usize)> = others.iter().map(named).collect();
        Ok(Costs::of(&timed, named(&(isa, threads)), &others))
    }

    /// From what networks took: `way` is that by which their steps were timed, `ways` are the others.
    fn of<'a>(timed: &'a [Timed], way: (&str, usize), ways: &[(&str, usize)]) -> Costs {
        let all = laws(timed.iter());
        // In another form, or at another size, a network has many of the same steps.
        let others = |own: &'a Timed| timed.iter().filter(|other| other.network != own.network);
        let told: Vec<BTreeMap<&str, f64>> = (timed.iter())
            .map(|own| {
                let others = laws(others(own));
                let law = |kind| others.get(kind).or_else(|| all.get(kind)).copied().unwrap_or_default();
                own.by_kind(|load, _| law(load.kind).time(load))
            })
            .collect();
        let networks: Vec<Checked> = (timed.iter().zip(&told))
            .map(|(own, told)| Checked {
                name: own.name.clone(),
                measured_ms: own.whole / 1e6,
                predicted_ms: told.values().sum::<f64>() / 1e6,
            })
            .collect();
        let way_of = |(at, (isa, threads)): (usize, &(&str, usize))| {
            let off = timed.iter().zip(&told).map(|(own, told)| {
                let factors = factors(others(own), at);
                let predicted: f64 = told.iter().map(|(kind, time)| time * factors.of(kind)).sum();
                predicted / own.otherwise[at] - 1.0
            });
            let factors = factors(timed.iter(), at);
            Way {
                isa: isa.to_string(),
                threads: *threads,
                error: root_mean_square(off),
                factors: all.keys().map(|kind| (kind.to_string(), factors.of(kind))).collect(),
            }
        };
        let ways = ways.iter().enumerate().map(way_of).collect();
        Costs {
            format: FORMAT,
            penjing: env!("CARGO_PKG_VERSION").into(),
            machine: std::env::consts::ARCH.into(),
            isa: way.0.into(),
            threads: way.1,
            error: root_mean_square(
                networks.iter().map(|network| network.predicted_ms / network.measured_ms - 1.0),
            ),
            laws: all.into_iter().map(|(kind, law)| (kind.to_string(), law)).collect(),
            networks,
            ways,
        }
    }

    /// What is told of running there in another way: with this instruction set, on so many threads; as the steps were timed where
    /// that is not said.
    ///
    /// # Errors
    /// In words, for a way that was not measured.
    pub fn run_by(self, isa: Option<&str>, threads: Option<usize>) -> std::result::Result<Costs, String> {
        let (isa, threads) = (isa.unwrap_or(&self.isa), threads.unwrap_or(self.threads));
        if (isa, threads) == (self.isa.as_str(), self.threads) {
            return Ok(self);
        }
        let Some(way) = self.ways.iter().find(|way| (way.isa.as_str(), way.threads) == (isa, threads)) else {
            let own = in_words(&self.isa, self.threads);
            let ways: Vec<String> = self.ways.iter().map(|way| in_words(&way.isa, way.threads)).collect();
            let told = [&[own], &ways[..]].concat().join("; ");
            return Err(format!("does not tell of {}, only of {told}; {AGAIN}", in_words(isa, threads)));
        };
        let Way { isa, threads, error, factors } = way.clone();
        let by_factor = |(kind, law): (&String, &Law)| {
            let factor = factors.get(kind)?;
            Some((kind.clone(), law.times(*factor)))
        };
        let laws = self.laws.iter().filter_map(by_factor).collect();
        // Networks of the list were not measured so.
        Ok(Costs { isa, threads, error, laws, networks: Vec::new(), ways: Vec::new(), ..self })
    }

    /// Reads a file of costs.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Model`] for what is none, or that of another version.
    pub fn load(path: &Path) -> Result<Costs> {
        let wrong = |what: String| Error::model(path, what);
        let failed = |error| Error::io(path, "read", error);
        let mut bytes = Vec::new();
        // A device or a pipe does not tell its length.
        File::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(wrong(format!(
                "more than {MAX_BYTES} bytes, and a file of costs has fewer; {AGAIN}"
            )));
        }
        Costs::parse(&bytes).map_err(wrong)
    }

    /// Costs of a file's bytes.
    ///
    /// # Errors
    /// In words, for what are none, or those of another version.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Costs, String> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
            penjing: String,
        }
        let none = |error: serde_json::Error| format!("not a file of costs ({error}); {AGAIN}");
        let version: Version = serde_json::from_slice(bytes).map_err(none)?;
        let own = env!("CARGO_PKG_VERSION");
        if version.format != FORMAT || version.penjing != own {
            return Err(format!(
                "measured by penjing {} (format {}), this one is {own} (format {FORMAT}) and its kernels may take another \
                 time; {AGAIN}",
                version.penjing, version.format
            ));
        }
        let costs: Costs = serde_json::from_slice(bytes).map_err(none)?;
        let laws = costs.laws.values().flat_map(|law| [law.call, law.mac, law.filter, law.map, law.weight]);
        let ways = costs.ways.iter().flat_map(|way| way.factors.values().chain([&way.error])).copied();
        let mut threads = costs.ways.iter().map(|way| way.threads).chain([costs.threads]);
        if threads.any(|threads| !(1..=MAX_THREADS).contains(&threads))
            || laws.chain(ways).chain([costs.error]).any(|value| !(0.0..=MOST).contains(&value))
        {
            return Err(format!("holds a time, or a number of threads, that is none; {AGAIN}"));
        }
        Ok(costs)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// What a photo would take there, in milliseconds.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a network that cannot be run, or has a step of a kind that was not measured.
    pub fn predict(&self, graph: &Graph, weights: &Weights) -> Result<f64> {
        let mut sum = 0.0;
        for step in lowered(graph, weights, self.threads)?.plan().steps {
            let load = step.load();
            let law = self.laws.get(load.kind).ok_or_else(|| {
                let what = format!("what a step of the kind “{}” takes there was not measured", load.kind);
                Error::Unsupported(what)
            })?;
            sum += law.time(&load);
        }
        Ok(sum / 1e6)
    }
}

impl Clock for Costs {
    fn ms(&self, model: &Model) -> Result<f64> {
        self.predict(&model.graph, &model.weights)
    }

    fn name(&self) -> String {
        let Costs { machine, isa, threads, error, .. } = self;
        format!("{machine}, {}, told to ± {:.0} %", in_words(isa, *threads), 100.0 * error)
    }

    fn identity(&self) -> String {
        format!("{} (BLAKE3 {})", self.name(), &blake3::hash(&self.to_bytes()).to_hex()[..16])
    }

    fn repeats(&self) -> bool {
        true
    }
}

/// A way of running, in words.
pub fn in_words(isa: &str, threads: usize) -> String {
    format!("{isa} on {threads} {}", if threads == 1 { "thread" } else { "threads" })
}

const AGAIN: &str = "measure with `penjing bench --costs FILE` on that machine";

/// One thread, two, four and so on, and one for each core.
fn pools() -> Result<Vec<Threads>> {
    let all = Threads::new(None)?;
    let powers =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < all.count());
    let fewer: Result<Vec<Threads>> = powers.map(|count| Threads::new(Some(count))).collect();
    let mut pools = fewer?;
    pools.push(all);
    Ok(pools)
}

fn root_mean_square(off: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = off.len().max(1) as f64;
    (off.map(|off| off * off).sum::<f64>() / count).sqrt()
}

/// Nothing takes as many nanoseconds, or as many times as long: eleven days.
const MOST: f64 = 1e15;

/// Files of costs have some ten thousand bytes.
const MAX_BYTES: u64 = 1 << 20;

impl Timed {
    /// Sums of something of each step, by kind.
    fn by_kind(&self, of: impl Fn(&Load, f64) -> f64) -> BTreeMap<&'static str, f64> {
        let mut sums = BTreeMap::new();
        for (load, time) in &self.steps {
            *sums.entry(load.kind).or_default() += of(load, *time);
        }
        sums
    }
}

/// How many times as long steps take by another way.
struct Factors {
    /// Of all steps.
    mean: f64,
    /// Of the steps of one kind, in terms of the mean.
    kinds: BTreeMap<&'static str, f64>,
}

impl Factors {
    fn of(&self, kind: &str) -> f64 {
        self.mean * self.kinds.get(kind).unwrap_or(&1.0)
    }
}

/// The factors by which the steps of these networks add up to what the networks took by a way, as well as can be, by relative error.
/// Kinds in which networks spend little differ little from the mean (ridge regression).
fn factors<'a>(timed: impl Iterator<Item = &'a Timed>, way: usize) -> Factors {
    let networks: Vec<(BTreeMap<&str, f64>, f64)> =
        timed.map(|timed| (timed.by_kind(|_, time| time), timed.otherwise[way])).collect();
    let ratios = networks.iter().map(|(steps, whole)| whole / steps.values().sum::<f64>().max(1.0));
    let mean = ratios.sum::<f64>() / networks.len().max(1) as f64;
    let mut kinds: BTreeMap<&str, f64> =
        networks.iter().flat_map(|(steps, _)| steps.keys().map(|kind| (*kind, 1.0))).collect();
    // The share of a network's time that each kind would take if all took as many times as long, and what is left of the whole.
    let shares: Vec<Vec<f64>> = (networks.iter())
        .map(|(steps, whole)| {
            let share = |kind| mean * steps.get(kind).copied().unwrap_or(0.0) / whole.max(1.0);
            kinds.keys().map(|kind| share(*kind)).collect()
        })
        .collect();
    let mut left: Vec<f64> = shares.iter().map(|shares| 1.0 - shares.iter().sum::<f64>()).collect();
    for _ in 0..200 {
        for (at, kind) in kinds.values_mut().enumerate() {
            // As well as can be beside the others.
            let (mut along, mut square) = (STIFFNESS, STIFFNESS);
            for (shares, left) in shares.iter().zip(&left) {
                along += shares[at] * (left + *kind * shares[at]);
                square += shares[at] * shares[at];
            }
            let before = std::mem::replace(kind, (along / square).max(0.0));
            left.iter_mut().zip(&shares).for_each(|(left, shares)| *left += (before - *kind) * shares[at]);
        }
    }
    Factors { mean, kinds }
}

/// As much as a kind counts that takes nearly half of one network's time. Of 0.003 to 10 those from 0.1 to 0.3 told best what networks took
/// that were left out.
const STIFFNESS: f64 = 0.2;

impl Law {
    fn times(self, factor: f64) -> Law {
        let Law { call, mac, filter, map, weight } = self;
        Law {
            call: call * factor,
            mac: mac * factor,
            filter: filter * factor,
            map: map * factor,
            weight: weight * factor,
        }
    }

    fn time(&self, load: &Load) -> f64 {
        let terms = [self.call, self.mac, self.filter, self.map, self.weight];
        terms.iter().zip(features(load)).map(|(term, feature)| term * feature).sum()
    }
}

fn features(load: &Load) -> [f64; 5] {
    [1.0, load.macs as f64, load.filters as f64, load.maps as f64, load.weights as f64]
}

/// The laws by which all steps of these networks come nearest to what they took, by relative error.
fn laws<'a>(timed: impl Iterator<Item = &'a Timed>) -> BTreeMap<&'static str, Law> {
    let mut by_kind: BTreeMap<&'static str, Vec<([f64; 5], f64)>> = BTreeMap::new();
    for (load, time) in timed.flat_map(|timed| &timed.steps) {
        by_kind.entry(load.kind).or_default().push((features(load), *time));
    }
    by_kind.into_iter().map(|(kind, steps)| (kind, fitted(&steps))).collect()
}

/// Least squares without negative terms: long steps count for more, but not by their square.
fn fitted(steps: &[([f64; 5], f64)]) -> Law {
    const N: usize = 5;
    // In units in which all features are about as large.
    let unit: [f64; N] = std::array::from_fn(|i| {
        steps.iter().map(|(features, _)| features[i]).fold(0.0, f64::max).max(f64::MIN_POSITIVE)
    });
    let (mut h, mut along) = ([[0.0; N]; N], [0.0; N]);
    for (features, time) in steps {
        let weight = 1.0 / time.max(1.0);
        let own: [f64; N] = std::array::from_fn(|i| features[i] / unit[i]);
        for i in 0..N {
            along[i] += weight * own[i] * time;
            (0..N).for_each(|j| h[i][j] += weight * own[i] * own[j]);
        }
    }
    // One term after the other, as well as can be beside the others, again and again.
    let mut terms = [0.0; N];
    for _ in 0..20_000 {
        for i in (0..N).filter(|&i| h[i][i] > 0.0) {
            let others: f64 = (0..N).filter(|&j| j != i).map(|j| h[i][j] * terms[j]).sum();
            terms[i] = ((along[i] - others) / h[i][i]).max(0.0);
        }
    }
    let [call, mac, filter, map, weight] = std::array::from_fn(|i| terms[i] / unit[i]);
    Law { call, mac, filter, map, weight }
}

fn lowered(graph: &Graph, weights: &Weights, threads: usize) -> Result<PlanBuf> {
    PlanBuf::lower(graph, weights, threads).map_err(unsupported)
}

fn unsupported(error: penjing_runtime::Error) -> Error {
    Error::Unsupported(format!("the network cannot be run: {error}"))
}

/// A network of random weights in a form.
fn made(
    name: &str,
    size: usize,
    form: Form,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Graph, Weights)> {
    let graph = Network::named(name)?.graph(size, 100)?;
    let mut weights = random_weights(&graph, 0);
    match form {
        Form::Floats => Ok((graph, weights)),
        Form::Zeros => {
            let mut random = SplitMix64::new(1);
            for node in graph.nodes() {
                let pointwise =
                    matches!(&node.op, Op::Conv(conv) if conv.kernel == [1, 1] && conv.groups == 1);
                let Some(tensor) = weights.get_mut(&format!("{}.weight", node.name)).filter(|_| pointwise)
                else {
                    continue;
                };
                let kept = |value: f32| if random.uniform() < 0.2 { value } else { 0.0 };
                *tensor = Tensor::f32(&tensor.shape, tensor.to_f32().into_iter().map(kept).collect());
            }
            Ok((graph, weights))
        }
        Form::Bytes => {
            let (graph, weights) = fold(&graph, &weights).map_err(unsupported)?;
            let mut random = SplitMix64::new(2);
            let inputs: Vec<Vec<f32>> =
                (0..2).map(|_| (0..size * size * 3).map(|_| random.normal() as f32).collect()).collect();
            let seen = observe(&graph, &weights, &inputs, threads, progress)?;
            let grids = grids(&graph, &seen, Ranging::MinMax);
            quantize(&graph, &weights, &grids, &seen, &Rounding::recommended()).map_err(unsupported)
        }
    }
}

/// Runs something again and again for so many seconds, but once to warm up and twice afterwards at least; says whether it is warm, as it
/// is after a third of them.
fn for_so_long(seconds: f64, mut run: impl FnMut(bool)) {
    let begun = Instant::now();
    let reached = |share: f64| begun.elapsed().as_secs_f64() >= share * seconds;
    run(false);
    while !reached(1.0 / 3.0) {
        run(false);
    }
    run(true);
    run(true);
    while !reached(1.0) {
        run(true);
    }
}

/// Times every step of a network, and all at once, by the first of some ways, and all at once by each of the others: medians.
fn time(
    [network, name]: [&str; 2],
    (graph, weights): (&Graph, &Weights),
    (own, others): (Ran, &[Ran]),
    seconds: f64,
    progress: &dyn Progress,
) -> Result<Timed> {
    const ROUNDS: usize = 2;
    // Half of the time is that of the steps.
    let visit = seconds / (2 * ROUNDS) as f64;
    let most = others.iter().chain([&own]).map(|(_, threads)| threads.count()).max().unwrap_or(1);
    let buf = Arc::new(lowered(graph, weights, most)?);
    let plan = buf.plan();
    let mut arena = Aligned::zeros(plan.arena_len);
    let mut steps: Vec<Vec<f64>> = vec![Vec::new(); plan.steps.len()];
    let (mut wholes, mut otherwise) = (Vec::new(), vec![Vec::new(); others.len()]);
    let nanoseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e9;
    let begin = |arena: &mut [f32]| arena[plan.input.start..][..plan.input.len].fill(0.5);
    let run = |(isa, threads): Ran, arena: &mut [f32]| {
        begin(arena);
        let start = Instant::now();
        plan.run(isa, threads.workers(), arena);
        nanoseconds(start)
    };
    // In turn, so that a busy moment of the machine meets all ways.
    for _ in 0..ROUNDS {
        let arena = arena.get_mut();
        // On a thread of the pool, so that a run does not pay for waking it.
        own.1.install(|| {
            for_so_long(visit, |warm| {
                let whole = run(own, arena);
                begin(arena);
                wholes.extend(warm.then_some(whole));
                for (step, times) in plan.steps.iter().zip(&mut steps) {
                    let start = Instant::now();
                    plan.step(step, own.0, own.1.workers(), arena);
                    times.extend(warm.then(|| nanoseconds(start)));
                }
            });
        });
        let mut busy = own.1.count();
        for (way, times) in others.iter().zip(&mut otherwise) {
            let visit = visit / others.len() as f64;
            way.1.install(|| {
                // Cores that had nothing to do are slow for a while.
                if std::mem::replace(&mut busy, way.1.count()) != way.1.count() {
                    for_so_long(2.0 * visit, |_| {
                        run(*way, arena);
                    });
                }
                for_so_long(visit, |warm| {
                    let whole = run(*way, arena);
                    times.extend(warm.then_some(whole));
                });
            });
        }
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let steps = plan.steps.iter().zip(&mut steps).map(|(step, times)| (step.load(), median(times))).collect();
    Ok(Timed {
        network: network.into(),
        name: name.into(),
        steps,
        whole: median(&mut wholes),
        otherwise: otherwise.iter_mut().map(median).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Quiet;

    /// Networks whose steps take what a law says, and a little more or less.
    fn by_a_law(law: Law, off: f64) -> Vec<Timed> {
        let mut random = SplitMix64::new(3);
        let mut step = || {
            let mut some = |most: f64| (random.uniform() * most) as u64;
            let (macs, maps, weights) = (some(1e7), some(1e6), some(1e5));
            let load = Load { kind: "pointwise", macs, filters: 0, maps, weights };
            (load, law.time(&load) * (1.0 + off * (random.uniform() - 0.5)))
        };
        let network = |at: usize| {
            let steps: Vec<(Load, f64)> = (0..20).map(|_| step()).collect();
            let whole = steps.iter().map(|(_, time)| time).sum();
            Timed { network: at.to_string(), name: at.to_string(), steps, whole, otherwise: Vec::new() }
        };
        (0..6).map(network).collect()
    }

    #[test]
    fn a_law_is_found_again_and_how_far_it_is_off() {
        let law = Law { call: 900.0, mac: 0.02, filter: 0.0, map: 0.1, weight: 0.3 };
        let exact = Costs::of(&by_a_law(law, 0.0), ("neon", 1), &[]);
        let found = exact.laws["pointwise"];
        for (found, law) in
            [(found.call, law.call), (found.mac, law.mac), (found.map, law.map), (found.weight, law.weight)]
        {
            assert!((found / law - 1.0).abs() < 0.02, "{found} {law}");
        }
        assert!(exact.error < 1e-3 && exact.networks.len() == 6, "{exact:?}");
        let rough = Costs::of(&by_a_law(law, 0.6), ("neon", 1), &[]);
        assert!((0.005..0.2).contains(&rough.error), "{}", rough.error);
        // Two that take different times for the same are each told by the other, not by themselves in another form.
        let load = Load { kind: "copy", macs: 0, filters: 0, maps: 100, weights: 0 };
        let net = |network: &str, time: f64| Timed {
            network: network.into(),
            name: String::new(),
            steps: vec![(load, time)],
            whole: time,
            otherwise: Vec::new(),
        };
        let told = Costs::of(&[net("a", 100.0), net("a", 100.0), net("b", 200.0)], ("neon", 1), &[]).networks;
        for (told, expected) in told.iter().zip([200.0, 200.0, 100.0]) {
            assert!((told.predicted_ms * 1e6 - expected).abs() < 1e-6, "{told:?}");
        }
        // So are they by another way.
        let net = |network: &str, otherwise: f64| Timed { otherwise: vec![otherwise], ..net(network, 100.0) };
        let told = Costs::of(&[net("a", 100.0), net("b", 400.0)], ("neon", 1), &[("neon", 2)]);
        let off = ((4.0_f64 - 1.0).powi(2) + (0.25_f64 - 1.0).powi(2)) / 2.0;
        assert!(told.error < 1e-9 && (told.ways[0].error / off.sqrt() - 1.0).abs() < 1e-6, "{told:?}");
        // Nothing takes less than no time.
        let odd = fitted(&[([1.0, 10.0, 0.0, 0.0, 0.0], 50.0), ([1.0, 100.0, 0.0, 0.0, 0.0], 5.0)]);
        assert!(odd.mac == 0.0 && odd.call > 0.0, "{odd:?}");
    }

    /// Networks of two kinds of steps, which take 3 and 0.5 times as long by another way: a third has little of one kind.
    fn by_two_ways() -> Costs {
        let law = |kind| Law { call: 100.0, mac: if kind == "sparse" { 0.2 } else { 0.1 }, ..Law::default() };
        let net = |at: u64, sparse: u64, dense: u64| {
            let step = |(kind, macs): (&'static str, u64)| {
                let load = Load { kind, macs, filters: 0, maps: 0, weights: 0 };
                (load, law(kind).time(&load))
            };
            let steps: Vec<(Load, f64)> =
                [("sparse", sparse), ("pointwise", dense), ("pointwise", 10 * at)].map(step).into();
            let took = |by: &dyn Fn(&str) -> f64| steps.iter().map(|(load, time)| time * by(load.kind)).sum();
            let whole = took(&|_| 1.0);
            let other = took(&|kind| if kind == "sparse" { 3.0 } else { 0.5 });
            Timed {
                network: at.to_string(),
                name: String::new(),
                otherwise: vec![whole, other],
                steps,
                whole,
            }
        };
        let few = |at: u64| net(at, 1000 * at, 80_000);
        let much = |at: u64| net(at, 90_000, 2000 * at);
        let timed: Vec<Timed> = (1..=6).flat_map(|at| [few(2 * at), much(2 * at + 1)]).collect();
        Costs::of(&timed, ("neondot", 1), &[("neondot", 4), ("neon", 2)])
    }

    #[test]
    fn another_way_is_told_by_what_whole_networks_took() {
        let costs = by_two_ways();
        let [same, other] = &costs.ways[..] else { panic!("{costs:?}") };
        assert!(costs.error < 1e-6 && same.error < 0.01, "{costs:?}");
        assert!(same.factors.values().all(|factor| (factor - 1.0).abs() < 0.01), "{same:?}");
        // Far better than by one factor for all, by which they are some half off.
        assert!((0.0..0.1).contains(&other.error), "{other:?}");
        for (kind, factor) in [("sparse", 3.0), ("pointwise", 0.5)] {
            assert!((other.factors[kind] / factor - 1.0).abs() < 0.15, "{other:?}");
        }
        let graph = Network::named("mobilenet_v2").unwrap().graph(96, 10).unwrap();
        let weights = random_weights(&graph, 0);
        // A law for each of its steps.
        let buf = lowered(&graph, &weights, 1).unwrap();
        let by_kind = buf.plan().steps.iter().map(|step| step.load().kind);
        let laws: BTreeMap<String, Law> =
            by_kind.map(|kind| (kind.to_string(), Law { call: 1e6, ..Law::default() })).collect();
        let factors = laws.keys().map(|kind| (kind.clone(), 1.5)).collect();
        let way = Way { factors, ..other.clone() };
        let costs = Costs { laws, ways: vec![same.clone(), way], ..costs };
        let told = |costs: Costs| costs.predict(&graph, &weights).unwrap();
        let own = told(costs.clone());
        assert_eq!(told(costs.clone().run_by(None, None).unwrap()), own);
        assert_eq!(costs.clone().run_by(Some("neondot"), Some(1)).unwrap(), costs);
        let two = costs.clone().run_by(Some("neon"), Some(2)).unwrap();
        assert!((two.isa.as_str(), two.threads) == ("neon", 2) && two.error == costs.ways[1].error);
        assert!(two.name().contains("neon on 2 threads, told to ± ") && two.identity() != costs.identity());
        assert!((told(two) / own - 1.5).abs() < 1e-9);
        // Of four threads nothing is known of that kind.
        assert!(costs.clone().run_by(None, Some(4)).unwrap().predict(&graph, &weights).is_err());
        let why = costs.run_by(Some("neon"), Some(3)).unwrap_err();
        assert!(
            why.starts_with("does not tell of neon on 3 threads, only of neondot on 1 thread; neondot on 4 threads; neon on 2 threads"),
            "{why}"
        );
    }

    #[test]
    fn files_of_costs_are_read_again_and_others_are_refused() {
        let law = Law { call: 900.0, mac: 0.02, filter: 0.0, map: 0.1, weight: 0.3 };
        let costs = Costs { ways: by_two_ways().ways, ..Costs::of(&by_a_law(law, 0.1), ("neon", 2), &[]) };
        let bytes = costs.to_bytes();
        assert_eq!(Costs::parse(&bytes).unwrap(), costs);
        // Measured again, it is another clock, whatever it is called.
        let mut anew = costs.clone();
        anew.laws.values_mut().for_each(|law| law.call *= 1.5);
        assert!(anew.name() == costs.name() && anew.identity() != costs.identity());
        let text = String::from_utf8(bytes).unwrap();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Costs::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err()
        };
        let own = format!("\"penjing\": \"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(refused(&own, "\"penjing\": \"9.9.9\"").contains("measured by penjing 9.9.9"));
        assert!(refused("\"format\": 2", "\"format\": 7").contains("format 7"));
        assert!(refused("\"threads\": 2", "\"threads\": 0").contains("that is none"));
        // Scratch memory for so many would have no length.
        assert!(refused("\"threads\": 2", "\"threads\": 257").contains("that is none"));
        assert!(refused("\"error\": ", "\"error\": -").contains("that is none"));
        assert!(refused("\"threads\": 4", "\"threads\": 0").contains("that is none"));
        assert!(refused("\"sparse\": ", "\"sparse\": -").contains("that is none"));
        assert!(refused("\"sparse\": ", "\"sparse\": 1e300, \"linear\": ").contains("that is none"));
        assert!(refused("\"isa\"", "\"iza\"").contains("not a file of costs"));
        assert!(Costs::parse(b"").unwrap_err().contains("penjing bench --costs"));
    }

    #[test]
    fn every_form_is_measured_and_a_kind_that_was_not_is_named() {
        let threads = Threads::new(Some(1)).unwrap();
        let form = |form| made("mobilenet_v2_x0.35", 32, form, &threads, &Quiet).unwrap();
        let kinds = |(graph, weights): &(Graph, Weights)| -> Vec<&str> {
            lowered(graph, weights, 1).unwrap().plan().steps.iter().map(|step| step.load().kind).collect()
        };
        let bytes = form(Form::Bytes);
        assert!(
            kinds(&bytes).contains(&"pointwise of bytes") && kinds(&bytes).contains(&"depthwise of bytes")
        );
        let (graph, weights) = made("mobilenet_v2", 96, Form::Zeros, &threads, &Quiet).unwrap();
        assert!(kinds(&(graph, weights)).contains(&"sparse"));
        let floats = form(Form::Floats);
        let (graph, weights) = &floats;
        let (own, two) = ((Isa::detect(), &threads), Threads::new(Some(2)).unwrap());
        let others = [(Isa::scalar(), &threads), (Isa::detect(), &two)];
        let timed = time(["net"; 2], (graph, weights), (own, &others), 0.0, &Quiet).unwrap();
        let Timed { steps, whole, otherwise, .. } = &timed;
        assert_eq!(steps.len(), kinds(&floats).len());
        assert!(otherwise.len() == 2 && otherwise[0] > *whole, "{whole} {otherwise:?}");
        // All arithmetic is in some step, also where steps go through maps by rows.
        let (large, its_weights) = made("mobilenet_v2", 224, Form::Floats, &threads, &Quiet).unwrap();
        let buf = lowered(&large, &its_weights, 1).unwrap();
        let loads: Vec<Load> = buf.plan().steps.iter().map(|step| step.load()).collect();
        assert!(loads.iter().any(|load| load.kind == "by rows" && load.macs > 0));
        let macs: u64 = penjing_runtime::cost::layers(&large).iter().map(|layer| layer.macs).sum();
        assert_eq!(loads.iter().map(|load| load.macs + load.filters).sum::<u64>(), macs);
        let costs = Costs::of(&[timed], ("neon", 1), &[]);
        assert!(costs.predict(graph, weights).unwrap() > 0.0);
        let unknown = costs.predict(&bytes.0, &bytes.1).unwrap_err().to_string();
        assert!(
            unknown.contains("of bytes” takes there was not measured") || unknown.contains("“bytes”"),
            "{unknown}"
        );
    }
}
