//! What a network can be made into, and what each takes: exact before anything is learnt.

use std::{collections::BTreeMap, time::Instant};

use penjing_runtime::{PlanBuf, file::Model, graph::NodeId, quant::Quant};
use serde::{Deserialize, Serialize};

use super::super::{
    fold,
    gate::{NOISE, latencies},
    grid::{self, Ranging},
    observe::{self, Observations},
    prune::{Saving, Stock},
    ptq::{self, Rounding},
    storage, unsupported,
};
use crate::{
    Error, Result,
    progress::{Hushed, Progress},
    random::SplitMix64,
    runner::Runner,
    threads::Threads,
    zoo::resize::resize,
};

/// What a network may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Bytes of the file.
    pub size: Option<u64>,
    /// Of one photo, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Bytes of working memory for one thread, beside the weights.
    pub ram: Option<u64>,
}

/// What a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Needs {
    /// Bytes of the file.
    pub size: u64,
    /// Of one photo, in milliseconds.
    pub latency_ms: f64,
    /// Bytes of working memory for one thread, beside the weights.
    pub ram: u64,
}

impl Needs {
    /// What of the budget is missed, in words.
    pub fn missed(&self, budget: &Budget) -> Vec<String> {
        let mut missed = Vec::new();
        let mut over = |what: &str, needs: f64, allowed: Option<f64>, unit: &str| {
            if let Some(allowed) = allowed.filter(|allowed| needs > *allowed) {
                missed.push(format!("{what} {needs:.2} {unit}, {allowed:.2} {unit} are allowed"));
            }
        };
        over("its file takes", self.size as f64 / 1e3, budget.size.map(|bytes| bytes as f64 / 1e3), "kB");
        over("a photo takes", self.latency_ms, budget.latency_ms, "ms");
        over("it works in", self.ram as f64 / 1e3, budget.ram.map(|bytes| bytes as f64 / 1e3), "kB");
        missed
    }

    /// How far it is over the budget at worst: 1 keeps to it.
    pub fn over(&self, budget: &Budget) -> f64 {
        let ratios = [
            budget.size.map(|most| self.size as f64 / most as f64),
            budget.latency_ms.map(|most| self.latency_ms / most),
            budget.ram.map(|most| self.ram as f64 / most as f64),
        ];
        ratios.into_iter().flatten().fold(0.0, f64::max)
    }
}

/// Says how long networks take.
pub trait Clock: Sync {
    /// Milliseconds of one photo.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a network that cannot be run or told.
    fn ms(&self, model: &Model) -> Result<f64>;

    /// How many times as long one network takes as another, both measured at the same time where that tells more.
    ///
    /// # Errors
    /// As [`Clock::ms`].
    fn ratio(&self, one: &Model, other: &Model) -> Result<f64> {
        Ok(self.ms(one)? / self.ms(other)?)
    }

    /// Whose time it is, in words.
    fn name(&self) -> String;

    /// What tells another clock apart.
    fn identity(&self) -> String {
        self.name()
    }

    /// Whether a network takes the same whenever it is asked for.
    fn repeats(&self) -> bool {
        false
    }
}

/// This machine, one thread.
#[derive(Clone, Copy, Debug)]
pub struct Here;

impl Clock for Here {
    fn ms(&self, model: &Model) -> Result<f64> {
        const FEWEST: usize = 5;
        const MOST: usize = 15;
        const SECONDS: f64 = 0.1;
        let runner = Runner::new(&model.graph, &model.weights, &model.pixels, 1)?;
        let input = vec![0.5; model.pixels.len()];
        let run = || {
            let began = Instant::now();
            runner.run_tensor(&input, &penjing_kernels::Serial);
            1e3 * began.elapsed().as_secs_f64()
        };
        // The first run touches all memory.
        run();
        let (mut times, began) = (Vec::new(), Instant::now());
        while times.len() < FEWEST || times.len() < MOST && began.elapsed().as_secs_f64() < SECONDS {
            times.push(run().min(run()));
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn ratio(&self, one: &Model, other: &Model) -> Result<f64> {
        const ROUNDS: usize = 7;
        const SECONDS: f64 = 0.2;
        let (_, ratio) = latencies([other, one], ROUNDS, SECONDS)?;
        Ok(ratio)
    }

    fn name(&self) -> String {
        "this machine, one thread".into()
    }
}

/// How the numbers of a network are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// 32-bit floats.
    Floats,
    /// 8-bit integers, and it computes with them.
    Integers,
    /// Weights in 4 bits; it computes in floats.
    FourBits,
}

impl Numbers {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Numbers::Floats => "floats",
            Numbers::Integers => "8 bits",
            Numbers::FourBits => "weights in 4 bits",
        }
    }
}

/// A network that could be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Which of the models it is made of.
    pub start: usize,
    /// Height and width of its input in pixels.
    pub px: usize,
    /// How its numbers are kept.
    pub numbers: Numbers,
    /// How many channels of each set stay; `None`: all.
    pub stay: Option<Vec<usize>>,
    /// Multiply-accumulates of a photo.
    pub macs: u64,
}

/// Sizes of the input that are tried, as shares of the start's.
const SHARES: [f64; 4] = [1.0, 6.0 / 7.0, 5.0 / 7.0, 4.0 / 7.0];
/// What strides leave whole.
const MULTIPLE: f64 = 32.0;

/// Sizes of the input for a network of this size, where smaller ones help.
pub fn sizes(px: usize, budget: &Budget) -> Vec<usize> {
    if budget.latency_ms.is_none() && budget.ram.is_none() {
        return vec![px];
    }
    let mut sizes: Vec<usize> = SHARES
        .into_iter()
        .map(
            |share| {
                if share == 1.0 { px } else { ((share * px as f64 / MULTIPLE).round() * MULTIPLE) as usize }
            },
        )
        .filter(|size| (MULTIPLE as usize..=px).contains(size) || *size == px)
        .collect();
    sizes.dedup();
    sizes
}

/// What helps to keep to a budget.
pub fn ways(budget: &Budget) -> Vec<(Numbers, Saving)> {
    let numbers: &[Numbers] = match budget.size {
        Some(_) => &[Numbers::Floats, Numbers::Integers, Numbers::FourBits],
        None => &[Numbers::Floats, Numbers::Integers],
    };
    let mut ways = Vec::new();
    for &numbers in numbers {
        if budget.latency_ms.is_some() || budget.ram.is_some() {
            ways.push((numbers, Saving::Time));
        }
        if budget.size.is_some() {
            ways.push((numbers, Saving::Weights));
        }
    }
    ways
}

/// Where forms are made of.
pub(super) struct Ground<'a> {
    /// The models in floats.
    pub starts: &'a [Model],
    pub budget: Budget,
    pub clock: &'a dyn Clock,
    /// Milliseconds that the first model takes, once they are known: all others are measured beside it then, since a busy machine
    /// is slower for both. `None` by a clock that repeats itself.
    pub before_ms: Option<f64>,
    pub threads: &'a Threads,
    pub progress: &'a dyn Progress,
}

/// A latency that is measured again is never quite the same: so much of what is allowed is used while searching.
const LATENCY_USED: f64 = 0.97;
/// What the file tells of how it was made.
const TOLD_BYTES: u64 = 1024;
/// Most networks of a path among which the largest is looked for.
const MOST_STEPS: usize = 96;

/// Some of a path's networks, spread over it, and the last one.
pub(super) fn thinned(path: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let (all, every) = (path.len(), path.len().div_ceil(MOST_STEPS).max(1));
    path.into_iter().enumerate().filter(|(at, _)| (all - 1 - at) % every == 0).map(|(_, stay)| stay).collect()
}

impl Ground<'_> {
    /// What a model takes.
    pub fn needs(&self, model: &Model) -> Result<Needs> {
        Ok(Needs { latency_ms: self.latency_ms(model)?, ..self.but_time(model)? })
    }

    /// What a model takes, where that decides: a latency a little beyond what is allowed may be that of a machine that was busy for a
    /// moment.
    pub fn settled(&self, model: &Model) -> Result<Needs> {
        let mut needs = self.needs(model)?;
        let over = self.budget.latency_ms.map_or(0.0, |most| needs.latency_ms / most);
        if over > 1.0 && over <= NOISE {
            needs.latency_ms = self.median_ms(model, needs.latency_ms)?;
        }
        Ok(needs)
    }

    /// The median of a latency and two more of the same model.
    pub fn median_ms(&self, model: &Model, first: f64) -> Result<f64> {
        if self.clock.repeats() {
            return Ok(first);
        }
        let mut times = [first, self.latency_ms(model)?, self.latency_ms(model)?];
        times.sort_by(f64::total_cmp);
        Ok(times[1])
    }

    /// What a model takes, and no time.
    fn but_time(&self, model: &Model) -> Result<Needs> {
        let plan = PlanBuf::lower(&model.graph, &model.weights, 1).map_err(unsupported)?;
        Ok(Needs {
            size: model.to_bytes().map_err(unsupported)?.len() as u64,
            latency_ms: 0.0,
            ram: plan.plan().peak_ram_bytes() as u64,
        })
    }

    fn latency_ms(&self, model: &Model) -> Result<f64> {
        match self.before_ms {
            Some(before) => Ok(before * self.clock.ratio(model, &self.starts[0])?),
            None => self.clock.ms(model),
        }
    }

    /// Sizes of the input that are tried of a start; says which it cannot have.
    pub fn sizes(&self, start: usize) -> Vec<usize> {
        let model = &self.starts[start];
        let own = model.pixels.height;
        let mut refused = Vec::new();
        let mut sizes = sizes(own, &self.budget);
        sizes.retain(|&px| {
            let fits = px == own || resize(&mut model.clone(), px).is_ok();
            refused.extend((!fits).then(|| px.to_string()));
            fits
        });
        if !refused.is_empty() {
            let refused = refused.join(", ");
            self.progress.notice(&format!("{} stays at {own} px: it cannot have {refused}", model.arch));
        }
        sizes
    }

    /// The network in floats of a form, before it learns; `fitted`: the layers that miss channels are fitted again.
    pub fn network(&self, stock: &Stock, form: &Form, fitted: bool) -> Result<Model> {
        let start = &self.starts[form.start];
        let small = match &form.stay {
            None => stock.whole(),
            Some(stay) => stock.cut(stay, fitted)?,
        };
        let mut model = Model { graph: small.graph, weights: small.weights, ..start.clone() };
        if form.px != start.pixels.height {
            resize(&mut model, form.px)?;
        }
        Ok(model)
    }

    /// A model that takes what the form does, whatever it answers.
    fn sketch(&self, stock: &Stock, form: &Form) -> Result<Model> {
        let model = self.network(stock, form, false)?;
        Ok(match form.numbers {
            Numbers::Floats => model,
            Numbers::FourBits => storage::rounded_plainly(&model),
            Numbers::Integers => {
                let (graph, weights) = fold::fold(&model.graph, &model.weights).map_err(unsupported)?;
                let mut random = SplitMix64::new(1);
                let noise = vec![(0..model.pixels.len()).map(|_| random.normal() as f32).collect()];
                let hushed = Hushed(self.progress);
                let seen: Observations = observe::observe(&graph, &weights, &noise, self.threads, &hushed)?;
                let grids: BTreeMap<NodeId, Quant> = grid::grids(&graph, &seen, Ranging::MinMax);
                let (graph, weights) =
                    ptq::quantize(&graph, &weights, &grids, &seen, &Rounding::recommended())
                        .map_err(unsupported)?;
                Model { graph, weights, ..model }
            }
        })
    }

    /// The form with most channels along a path that keeps to the budget, or else what the smallest takes.
    pub fn edge(&self, stock: &Stock, path: &[Vec<usize>], form: &Form) -> Result<(Form, Needs, bool)> {
        let at = |step: usize| -> Result<Sketched> {
            if self.progress.cancelled() {
                return Err(Error::Interrupted);
            }
            let stay = step.checked_sub(1).map(|step| path[step].clone());
            let mut form = Form { stay, ..form.clone() };
            let model = self.sketch(stock, &form)?;
            form.macs = penjing_runtime::cost::layers(&model.graph).iter().map(|layer| layer.macs).sum();
            let mut needs = self.but_time(&model)?;
            let used = if self.clock.repeats() { 1.0 } else { LATENCY_USED };
            let told = |Needs { size, latency_ms, ram }: Needs| Needs {
                size: size + TOLD_BYTES,
                latency_ms: latency_ms / used,
                ram,
            };
            let mut keeps = told(needs).over(&self.budget) <= 1.0;
            // To measure the time takes longer than all else: only where it decides.
            let timed = keeps && self.budget.latency_ms.is_some();
            if timed {
                needs.latency_ms = self.latency_ms(&model)?;
                keeps = told(needs).over(&self.budget) <= 1.0;
            }
            Ok(Sketched { form, model, needs, timed, keeps })
        };
        let timed = |Sketched { form, model, mut needs, timed, keeps }| -> Result<(Form, Needs, bool)> {
            if !timed {
                needs.latency_ms = self.latency_ms(&model)?;
            }
            Ok((form, needs, keeps))
        };
        let whole = at(0)?;
        if whole.keeps {
            return timed(whole);
        }
        let smallest = at(path.len())?;
        if !smallest.keeps {
            // There is nothing smaller: just enough must do.
            let (form, needs, _) = timed(smallest)?;
            let just = needs.over(&self.budget) <= 1.0;
            return Ok((form, needs, just));
        }
        timed(earliest(path.len(), smallest, |step| Ok(Some(at(step)?).filter(|tried| tried.keeps)))?)
    }
}

/// The first step after 0 that keeps to something, as all behind it do, by halves: `last` is known to, and gave `found`.
fn earliest<T>(
    mut last: usize,
    mut found: T,
    mut keeps: impl FnMut(usize) -> Result<Option<T>>,
) -> Result<T> {
    let mut misses = 0;
    while last - misses > 1 {
        let middle = misses.midpoint(last);
        match keeps(middle)? {
            Some(tried) => (last, found) = (middle, tried),
            None => misses = middle,
        }
    }
    Ok(found)
}

/// A form as it could be made.
struct Sketched {
    form: Form,
    model: Model,
    needs: Needs,
    /// Whether its time is known.
    timed: bool,
    /// Whether it keeps to the budget.
    keeps: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_that_keeps_is_found_with_few_tries() {
        for last in 1..=40 {
            for first in 1..=last {
                let mut tried = Vec::new();
                let found = earliest(last, last, |step| {
                    tried.push(step);
                    Ok((step >= first).then_some(step))
                });
                assert_eq!(found.unwrap(), first, "of {last}");
                assert!(tried.len() <= 6 && tried.iter().all(|step| (1..last).contains(step)), "{tried:?}");
            }
        }
    }

    #[test]
    fn a_budget_is_missed_by_what_is_over_it() {
        let needs = Needs { size: 2_000, latency_ms: 3.0, ram: 500_000 };
        let budget = Budget { size: Some(1_000), latency_ms: Some(4.0), ram: None };
        assert_eq!(needs.missed(&budget), ["its file takes 2.00 kB, 1.00 kB are allowed"]);
        assert_eq!((needs.over(&budget), needs.over(&Budget::default())), (2.0, 0.0));
        // Whichever is worst tells.
        let slight = Budget { size: Some(1_500), ..Budget::default() };
        for half in [Budget { latency_ms: Some(1.5), ..slight }, Budget { ram: Some(250_000), ..slight }] {
            assert_eq!(needs.over(&half), 2.0);
        }
        let all = Budget { size: Some(1_999), latency_ms: Some(2.9), ram: Some(499_999) };
        assert_eq!(needs.missed(&all).len(), 3);
        let just = Budget { size: Some(2_000), latency_ms: Some(3.0), ram: Some(500_000) };
        assert!(needs.missed(&just).is_empty() && needs.over(&just) == 1.0);
    }

    #[test]
    fn smaller_inputs_are_tried_where_they_help() {
        let size = Budget { size: Some(1), ..Budget::default() };
        let ram = Budget { ram: Some(1), ..Budget::default() };
        assert_eq!(sizes(224, &size), [224]);
        assert_eq!(sizes(224, &ram), [224, 192, 160, 128]);
        assert_eq!(
            (sizes(64, &ram), sizes(33, &ram), sizes(20, &ram)),
            (vec![64, 32], vec![33, 32], vec![20])
        );
        assert_eq!(ways(&ram), [(Numbers::Floats, Saving::Time), (Numbers::Integers, Saving::Time)]);
        assert_eq!(ways(&size).len(), 3);
        assert_eq!(ways(&Budget { latency_ms: Some(1.0), ..size }).len(), 6);
    }

    #[test]
    fn sizes_that_a_network_cannot_have_are_left_out() {
        use penjing_runtime::{
            graph::Graph,
            op::{Conv, Op},
        };

        struct Said(std::sync::Mutex<Vec<String>>);

        impl Progress for Said {
            fn notice(&self, line: &str) {
                self.0.lock().unwrap().push(line.into());
            }
        }

        let bundled = crate::model::bundled().unwrap();
        let network = |flat: bool| {
            let mut graph = Graph::default();
            let x = graph.push("x", Op::Input { shape: [1, 224, 224, 3] }, &[]).unwrap();
            let x = graph.push("stem", Op::Conv(Conv::new(2, 1, 4)), &[x]).unwrap();
            let x = graph.push("all", if flat { Op::Flatten } else { Op::GlobalAvgPool }, &[x]).unwrap();
            graph.push("head", Op::Linear { out_features: 2, bias: true }, &[x]).unwrap();
            let weights = crate::zoo::random_weights(&graph, 1);
            Model { graph, weights, ..bundled.clone() }
        };
        let starts = [network(false), network(true)];
        let (said, threads) = (Said(Default::default()), Threads::new(Some(1)).unwrap());
        let budget = Budget { ram: Some(1), ..Budget::default() };
        let ground = Ground {
            starts: &starts,
            budget,
            clock: &Here,
            before_ms: None,
            threads: &threads,
            progress: &said,
        };
        assert_eq!([0, 1].map(|start| ground.sizes(start)), [vec![224, 192, 160, 128], vec![224]]);
        let said = said.0.into_inner().unwrap();
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("stays at 224 px: it cannot have 192, 160, 128"), "{said:?}");
    }
}
