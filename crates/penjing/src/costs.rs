//! What networks take on a machine, told from what steps took there: so that a laptop can choose for a board.
//!
//! [`Costs::measure`] times every step of some networks of the zoo, in floats, in 8 bits and with zeros, and fits a law to each
//! kind of steps: so long for a call, and so long for each multiplication and each byte. [`Costs::predict`] adds up what the
//! steps of a network take by it. How far it is from measurements is known: each of those networks is predicted by what all
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
pub const FORMAT: u32 = 1;

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
}

impl Costs {
    /// Times networks for about so many seconds on these threads.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn measure(isa: Isa, threads: &Threads, seconds: f64, progress: &dyn Progress) -> Result<Costs> {
        let mut timed = Vec::new();
        let forms = [Form::Floats, Form::Bytes, Form::Zeros];
        let each = seconds / (NETWORKS.len() * forms.len()) as f64;
        progress.begin("measuring networks", NETWORKS.len() * forms.len());
        for (network, size) in NETWORKS {
            for form in forms {
                let (graph, weights) = made(network, size, form, threads, &Hushed(progress))?;
                let name = format!("{network} at {size} px, {}", form.name());
                let (steps, whole) = time(&graph, &weights, isa, threads, each, progress)?;
                timed.push(Timed { network: network.into(), name, steps, whole });
                progress.advance(1);
            }
        }
        progress.end();
        Ok(Costs::of(&timed, isa, threads.count()))
    }

    fn of(timed: &[Timed], isa: Isa, threads: usize) -> Costs {
        let all = laws(timed.iter());
        let check = |own: &Timed| {
            // In another form, or at another size, it has many of the same steps.
            let others = laws(timed.iter().filter(|other| other.network != own.network));
            let law = |kind: &str| others.get(kind).or_else(|| all.get(kind)).copied().unwrap_or_default();
            let predicted: f64 = own.steps.iter().map(|(load, _)| law(load.kind).time(load)).sum();
            Checked { name: own.name.clone(), measured_ms: own.whole / 1e6, predicted_ms: predicted / 1e6 }
        };
        let networks: Vec<Checked> = timed.iter().map(check).collect();
        let square = |checked: &Checked| (checked.predicted_ms / checked.measured_ms - 1.0).powi(2);
        let error = (networks.iter().map(square).sum::<f64>() / networks.len().max(1) as f64).sqrt();
        Costs {
            format: FORMAT,
            penjing: env!("CARGO_PKG_VERSION").into(),
            machine: std::env::consts::ARCH.into(),
            isa: isa.name().into(),
            threads,
            error,
            laws: all.into_iter().map(|(kind, law)| (kind.to_string(), law)).collect(),
            networks,
        }
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
        if !(1..=MAX_THREADS).contains(&costs.threads)
            || laws.chain([costs.error]).any(|value| !value.is_finite() || value < 0.0)
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
        let threads = if *threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
        format!("{machine} with {isa}, {threads}, told to ± {:.0} %", 100.0 * error)
    }

    fn identity(&self) -> String {
        format!("{} (BLAKE3 {})", self.name(), &blake3::hash(&self.to_bytes()).to_hex()[..16])
    }

    fn repeats(&self) -> bool {
        true
    }
}

const AGAIN: &str = "measure with `penjing bench --costs FILE` on that machine";

/// Files of costs have some ten thousand bytes.
const MAX_BYTES: u64 = 1 << 20;

impl Law {
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

/// Times every step of a network, and all at once: medians.
fn time(
    graph: &Graph,
    weights: &Weights,
    isa: Isa,
    threads: &Threads,
    seconds: f64,
    progress: &dyn Progress,
) -> Result<(Vec<(Load, f64)>, f64)> {
    const FEWEST: usize = 5;
    let buf = Arc::new(lowered(graph, weights, threads.count())?);
    let (plan, workers) = (buf.plan(), threads.workers());
    let mut arena = Aligned::zeros(plan.arena_len);
    let mut runs: Vec<Vec<f64>> = vec![Vec::new(); plan.steps.len()];
    let mut wholes = Vec::new();
    let nanoseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e9;
    // On a thread of the pool, so that a step does not pay for waking it.
    threads.install(|| {
        let begun = Instant::now();
        while (wholes.len() < FEWEST || begun.elapsed().as_secs_f64() < seconds) && !progress.cancelled() {
            let arena = arena.get_mut();
            arena[plan.input.start..][..plan.input.len].fill(0.5);
            let start = Instant::now();
            plan.run(isa, workers, arena);
            wholes.push(nanoseconds(start));
            arena[plan.input.start..][..plan.input.len].fill(0.5);
            for (step, times) in plan.steps.iter().zip(&mut runs) {
                let start = Instant::now();
                plan.step(step, isa, workers, arena);
                times.push(nanoseconds(start));
            }
        }
    });
    if progress.cancelled() {
        return Err(Error::Interrupted);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let steps = plan.steps.iter().zip(&mut runs).map(|(step, times)| (step.load(), median(times))).collect();
    Ok((steps, median(&mut wholes)))
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
            Timed { network: at.to_string(), name: at.to_string(), steps, whole }
        };
        (0..6).map(network).collect()
    }

    #[test]
    fn a_law_is_found_again_and_how_far_it_is_off() {
        let law = Law { call: 900.0, mac: 0.02, filter: 0.0, map: 0.1, weight: 0.3 };
        let exact = Costs::of(&by_a_law(law, 0.0), Isa::detect(), 1);
        let found = exact.laws["pointwise"];
        for (found, law) in
            [(found.call, law.call), (found.mac, law.mac), (found.map, law.map), (found.weight, law.weight)]
        {
            assert!((found / law - 1.0).abs() < 0.02, "{found} {law}");
        }
        assert!(exact.error < 1e-3 && exact.networks.len() == 6, "{exact:?}");
        let rough = Costs::of(&by_a_law(law, 0.6), Isa::detect(), 1);
        assert!((0.005..0.2).contains(&rough.error), "{}", rough.error);
        // Two that take different times for the same are each told by the other, not by themselves in another form.
        let load = Load { kind: "copy", macs: 0, filters: 0, maps: 100, weights: 0 };
        let net = |network: &str, time: f64| Timed {
            network: network.into(),
            name: String::new(),
            steps: vec![(load, time)],
            whole: time,
        };
        let told = Costs::of(&[net("a", 100.0), net("a", 100.0), net("b", 200.0)], Isa::detect(), 1).networks;
        for (told, expected) in told.iter().zip([200.0, 200.0, 100.0]) {
            assert!((told.predicted_ms * 1e6 - expected).abs() < 1e-6, "{told:?}");
        }
        // Nothing takes less than no time.
        let odd = fitted(&[([1.0, 10.0, 0.0, 0.0, 0.0], 50.0), ([1.0, 100.0, 0.0, 0.0, 0.0], 5.0)]);
        assert!(odd.mac == 0.0 && odd.call > 0.0, "{odd:?}");
    }

    #[test]
    fn files_of_costs_are_read_again_and_others_are_refused() {
        let law = Law { call: 900.0, mac: 0.02, filter: 0.0, map: 0.1, weight: 0.3 };
        let costs = Costs::of(&by_a_law(law, 0.1), Isa::detect(), 2);
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
        assert!(refused("\"format\": 1", "\"format\": 7").contains("format 7"));
        assert!(refused("\"threads\": 2", "\"threads\": 0").contains("that is none"));
        // Scratch memory for so many would have no length.
        assert!(refused("\"threads\": 2", "\"threads\": 257").contains("that is none"));
        assert!(refused("\"error\": ", "\"error\": -").contains("that is none"));
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
        let (steps, whole) = time(graph, weights, Isa::detect(), &threads, 0.0, &Quiet).unwrap();
        assert_eq!(steps.len(), kinds(&floats).len());
        // All arithmetic is in some step, also where steps go through maps by rows.
        let (large, its_weights) = made("mobilenet_v2", 224, Form::Floats, &threads, &Quiet).unwrap();
        let buf = lowered(&large, &its_weights, 1).unwrap();
        let loads: Vec<Load> = buf.plan().steps.iter().map(|step| step.load()).collect();
        assert!(loads.iter().any(|load| load.kind == "by rows" && load.macs > 0));
        let macs: u64 = penjing_runtime::cost::layers(&large).iter().map(|layer| layer.macs).sum();
        assert_eq!(loads.iter().map(|load| load.macs + load.filters).sum::<u64>(), macs);
        let timed = Timed { network: "net".into(), name: "net".into(), steps, whole };
        let costs = Costs::of(&[timed], Isa::detect(), 1);
        assert!(costs.predict(graph, weights).unwrap() > 0.0);
        let unknown = costs.predict(&bytes.0, &bytes.1).unwrap_err().to_string();
        assert!(
            unknown.contains("of bytes” takes there was not measured") || unknown.contains("“bytes”"),
            "{unknown}"
        );
    }
}
