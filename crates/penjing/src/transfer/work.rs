//! Training of the whole network as one piece of work: its runs, and the state from which it goes on.

use std::time::Instant;

use penjing_runtime::{file::Model, graph::Graph};
use serde::{Deserialize, Serialize};

use super::{
    Options,
    distill::{self, Lessons},
    plan::RecipeKind,
    survey::Survey,
};
use crate::{
    Error, Result,
    progress::Progress,
    runner::Runner,
    threads::Threads,
    train::{
        checkpoint::{self, Identity, Keeper, Tensors},
        feed::Photo,
        log::Log,
        memory,
        parameters::Parameters,
        speed,
        trainer::{self, EpochRecord, Job, Recipe, Standing, Watch},
    },
    zoo::fresh_weights,
};

/// What is kept of the work, beside tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// How the runs that judge learn; those that try mirrored photos, and the one on all photos, take most of it.
    pub recipe: Recipe,
    /// Rounds that judge, of each arm: without and with a teacher, where both are compared.
    pub rounds: usize,
    /// Those that are over, of the first arm before those of the second.
    pub judged: Vec<Round>,
    /// While mirrored photos are tried: which held-out photos each of those runs that are over classified rightly.
    pub probed: Option<Vec<Vec<bool>>>,
    /// The run under way: the next of those, else the next round, or after the last one the run on all photos.
    pub standing: Standing,
    /// Seconds that the work has taken before.
    pub seconds: f64,
}

/// A round that is over: what it has shown of the photos that were held out of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Round {
    /// Logits `[photos][classes]` some of the way from start to end, one for each of the shares that were tried.
    #[serde(skip)]
    pub logits: Vec<Vec<f32>>,
    /// Number of those shares.
    pub shares: usize,
    /// Whether training went to its end.
    pub whole: bool,
    /// Its epochs.
    pub history: Vec<EpochRecord>,
    /// How long it took.
    pub seconds: f64,
}

/// The rounds that are over, and of each arm the mean of the networks at their ends: they come from one backbone, and together
/// they have learnt from more photos than each of them (model soups, Wortsman et al., arXiv 2203.05482).
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub rounds: Vec<Round>,
    pub means: Vec<Parameters>,
}

impl Judged {
    /// A round of an arm is over, after so many others; `network` is what it came to. Of one that did not reach its end nothing is
    /// taken where there is another.
    pub fn push(&mut self, arm: usize, others: usize, round: Round, network: Parameters) {
        match self.means.get_mut(arm) {
            None => self.means.push(network),
            Some(mean) if round.whole => *mean = network.between(mean, 1.0 / (others + 1) as f32),
            Some(_) => {}
        }
        self.rounds.push(round);
    }

    fn keep<'a>(&'a self, tensors: &mut Tensors<'a>) {
        for (at, round) in self.rounds.iter().enumerate() {
            for (share, logits) in round.logits.iter().enumerate() {
                tensors.insert(logits_name(at, share), logits.into());
            }
        }
        for (arm, mean) in self.means.iter().enumerate() {
            checkpoint::keep(tensors, &judged_name(arm), mean);
        }
    }

    /// What was kept; `blank` is any network of this kind, an arm has so many rounds, and `values` says how many logits a
    /// round of one has for a share.
    /// `None` where logits are missing or of another length.
    pub fn restore(
        mut rounds: Vec<Round>,
        tensors: &mut Tensors<'_>,
        blank: &Parameters,
        rounds_of_arm: usize,
        values: impl Fn(usize) -> usize,
    ) -> Result<Option<Self>> {
        if rounds.is_empty() {
            return Ok(Some(Judged::default()));
        }
        for (at, round) in rounds.iter_mut().enumerate() {
            for share in 0..round.shares {
                match tensors.remove(&logits_name(at, share)) {
                    Some(logits) if logits.len() == values(at % rounds_of_arm) => {
                        round.logits.push(logits.into_owned())
                    }
                    _ => return Ok(None),
                }
            }
        }
        let mut means = vec![blank.clone(); rounds.len().div_ceil(rounds_of_arm)];
        for (arm, mean) in means.iter_mut().enumerate() {
            checkpoint::restore(tensors, &judged_name(arm), mean)?;
        }
        Ok(Some(Judged { rounds, means }))
    }
}

/// Where the judged network of an arm stands among kept tensors.
fn judged_name(arm: usize) -> String {
    format!("judged/{arm}")
}

fn logits_name(round: usize, share: usize) -> String {
    format!("round/{round}/{share}")
}

/// What a run keeps of the work around it; see [`State`].
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub recipe: &'a Recipe,
    pub rounds: usize,
    pub judged: &'a Judged,
    pub probed: Option<&'a [Vec<bool>]>,
}

/// What all runs have in common.
pub(super) struct Work<'a> {
    pub backbone: &'a Model,
    pub survey: &'a Survey<'a>,
    pub options: &'a Options,
    pub lessons: Option<&'a Lessons<'a>>,
    pub threads: &'a Threads,
    pub progress: &'a dyn Progress,
    keeper: Keeper<'a>,
    began: Instant,
    /// Seconds that the work has taken in earlier calls.
    before: f64,
}

/// What there is time for.
pub(super) struct InTime {
    pub recipe: Recipe,
    /// Rounds that judge.
    pub rounds: usize,
    /// Looks at photos beside those of the training.
    pub spare: f64,
}

impl<'a> Work<'a> {
    pub fn new(
        backbone: &'a Model,
        survey: &'a Survey<'a>,
        options: &'a Options,
        lessons: Option<&'a Lessons<'a>>,
        began: Instant,
        threads: &'a Threads,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let bytes = backbone.to_bytes().map_err(super::unsupported)?;
        let parts = [
            ("the photos", survey.fingerprint()),
            ("the split of the photos", survey.split_hash()),
            ("the classes", survey.data.classes.join(", ")),
            ("the backbone", blake3::hash(&bytes).to_hex().to_string()),
            ("the version of penjing", env!("CARGO_PKG_VERSION").into()),
            ("--seed", options.seed.to_string()),
            ("--recipe", format!("{:?}", options.recipe).to_lowercase()),
            ("--epochs", options.epochs.map_or("by the data".into(), |epochs| epochs.to_string())),
            ("--memory", options.memory.map_or("what is there".into(), |bytes| bytes.to_string())),
            ("--time", options.time.map_or("unlimited".into(), |time| format!("{} s", time.as_secs()))),
            ("--views", options.views.map_or("by the data".into(), |views| views.to_string())),
            ("--balance", options.balance.map_or("by the data".into(), |balance| balance.to_string())),
        ];
        let taught = lessons.into_iter().flat_map(Lessons::identity);
        let parts = parts.into_iter().chain(taught).map(|(name, value)| (name.to_string(), value)).collect();
        let keeper = Keeper::new(options.part.as_deref(), Identity { parts });
        Ok(Work { backbone, survey, options, lessons, threads, progress, keeper, began, before: 0.0 })
    }

    pub fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// The state that was kept, and the tensors of it; from now on its seconds count.
    pub fn resume(&mut self) -> Result<Option<(State, Tensors<'static>)>> {
        let loaded: Option<(State, _)> = self.keeper.load(self.options.force)?;
        if let Some((state, _)) = &loaded {
            self.progress.notice(&format!("going on after {} steps", state.standing.step));
            self.before = state.seconds;
        }
        Ok(loaded)
    }

    /// What is said of a kept state whose parts do not fit together; it is whole, so no run can have written it.
    pub fn unfit(&self) -> Error {
        let path = self.options.part.as_deref().unwrap_or("the kept state".as_ref());
        Error::model(path, "the parts of this state do not fit together; delete it to begin anew")
    }

    /// Logits of photos as they are, under each of several networks.
    pub fn logits(&self, graph: &Graph, networks: &[&Parameters], places: &[usize]) -> Result<Vec<Vec<f32>>> {
        let photos = self.survey.photos(places);
        let pixels = &self.backbone.pixels;
        let classes = self.survey.data.classes.len();
        let feed = distill::plain_feed(photos.clone(), classes, pixels);
        let runner = |network: &&Parameters| Runner::new(graph, &network.to_weights(), pixels, 1);
        let runners: Vec<Runner> = networks.iter().map(runner).collect::<Result<_>>()?;
        self.threads.install(|| trainer::judge(&feed, &photos, &runners))
    }

    fn memory(&self) -> u64 {
        self.options.memory.unwrap_or_else(memory::available)
    }

    /// The recipe for so many photos and the memory at hand.
    pub fn fitted(&self, recipe: Recipe, graph: &Graph, photos: usize) -> Result<Recipe> {
        let wished = recipe.batch.min(photos);
        let recipe = recipe.fitted(graph, photos, self.memory()).map_err(|error| match error {
            Error::Unsupported(why) => {
                Error::Unsupported(format!("{why}; use a smaller --size, or more --memory"))
            }
            error => error,
        })?;
        if recipe.batch < wished {
            self.progress.notice(&format!(
                "batches of {} photos instead of {wished}: more do not fit into {} MB",
                recipe.batch,
                self.memory() / 1_000_000
            ));
        }
        Ok(recipe)
    }

    /// The recipe shortened to the time that is left, and the rounds that judge: `looks` says how many photos all runs
    /// together see that are judged, and how many the one on all photos, given the rounds and the epochs. One round does
    /// where more would shorten the training. `None` when that would be no training any more.
    pub fn in_time(
        &self,
        recipe: Recipe,
        graph: &Graph,
        mut rounds: usize,
        looks: impl Fn(usize, f64) -> [f64; 2],
    ) -> Result<Option<InTime>> {
        let Some(limit) = self.options.time else {
            return Ok(Some(InTime { recipe, rounds, spare: f64::INFINITY }));
        };
        let parameters = Parameters::new(graph, &fresh_weights(graph, 0))?;
        let teacher = self.lessons.filter(|_| recipe.distill.is_some()).map(|lessons| &lessons.teacher);
        let pace = speed::pace(graph, &parameters, &recipe, teacher, self.threads)?;
        let seconds = |rounds: usize, epochs: f64| {
            let [judged, onward] = looks(rounds, epochs);
            let shortened = Recipe { epochs, ..recipe.clone() };
            judged * pace.of(&shortened) + onward * pace.full
        };
        let left = limit.as_secs_f64() - self.seconds();
        // Decoding, validation and writing take their part.
        let training = (left * 0.85).max(0.0);
        let mut epochs = recipe.epochs;
        if training < seconds(rounds, epochs) {
            rounds = 1;
        }
        if training < seconds(rounds, epochs) {
            // More epochs are more looks: halve the doubt until it does not count.
            let mut longest = 0.0..epochs;
            for _ in 0..40 {
                let middle = (longest.start + longest.end) / 2.0;
                if seconds(rounds, middle) <= training {
                    longest.start = middle
                } else {
                    longest.end = middle
                }
            }
            epochs = longest.start;
        }
        if epochs < SHORTEST {
            self.progress.notice(&format!(
                "the time limit leaves {:.0} s, too little to train the whole network (about {:.0} s for one epoch)",
                left.max(0.0),
                seconds(rounds, 1.0) / 0.85
            ));
            return Ok(None);
        }
        if epochs < recipe.epochs {
            self.progress.notice(&format!(
                "{epochs:.1} epochs instead of {} fit into the time limit ({:.0} images/s)",
                recipe.epochs,
                1.0 / pace.of(&Recipe { epochs, ..recipe.clone() })
            ));
        }
        let spare = (training - seconds(rounds, epochs)).max(0.0) / pace.full;
        Ok(Some(InTime { recipe: Recipe { epochs, ..recipe }, rounds, spare }))
    }

    /// One run of training; a state is kept on the way. Runs whose `looks` differ draw other looks at their photos.
    pub fn run(
        &self,
        name: &str,
        recipe: &Recipe,
        looks: u64,
        [mut learn, judge]: [Vec<Photo>; 2],
        graph: &Graph,
        start: Parameters,
        kept: Kept,
        resume: Option<(Standing, Tensors<'static>)>,
        log: Option<&mut Log>,
    ) -> Result<trainer::Trained> {
        let lessons = self.lessons.filter(|_| recipe.distill.is_some());
        learn.extend(lessons.iter().flat_map(|lessons| lessons.unlabelled.iter().cloned()));
        let job = Job {
            name,
            graph,
            pixels: &self.backbone.pixels,
            learn,
            judge,
            classes: self.survey.data.classes.len(),
            recipe,
            teacher: lessons.map(|lessons| &lessons.teacher),
            projection: None,
            seed: self.options.seed ^ looks,
            memory: self.memory(),
        };
        let mut keep = |standing: &Standing, tensors: Tensors<'_>| {
            // Lent for as long as what is added.
            let mut tensors: Tensors<'_> = tensors;
            kept.judged.keep(&mut tensors);
            let state = State {
                recipe: kept.recipe.clone(),
                rounds: kept.rounds,
                judged: kept.judged.rounds.clone(),
                probed: kept.probed.map(<[_]>::to_vec),
                standing: standing.clone(),
                seconds: self.seconds(),
            };
            self.keeper.keep(&state, tensors, self.progress);
            Ok(())
        };
        let mut watch = Watch { progress: self.progress, log, keep: &mut keep };
        trainer::train(&job, start, resume, self.threads, &mut watch)
    }
}

/// Shorter than this many epochs a training teaches nothing that would last.
const SHORTEST: f64 = 0.25;

/// How the last step of a model begins that was written when its training was interrupted.
pub const UNFINISHED: &str = "unfinished: ";

/// What a recipe is called in summaries.
pub(super) fn title(kind: RecipeKind) -> &'static str {
    match kind {
        RecipeKind::Auto | RecipeKind::Head => "head on frozen features",
        RecipeKind::Finetune => "whole network, statistics frozen",
        RecipeKind::Full => "whole network, statistics of the batch",
        RecipeKind::Scratch => "whole network from random weights",
    }
}

/// Whether all of a network has learnt from photos that its user labelled, not just a head on it.
pub(super) fn has_learnt(model: &Model) -> bool {
    let provenance = &model.provenance;
    provenance.data_hash.is_some() && provenance.recipe.iter().any(|step| step.starts_with("whole network"))
}

/// A recipe in words, for the model's provenance.
pub(super) fn describe(kind: RecipeKind, recipe: &Recipe) -> String {
    format!(
        "{}{}: {} epochs of batches of {} at {} px{}, rates {:e} {:e} {:e} {:e} from head to image, decay {}, \
         smoothing {}, crops from {} of the area, flip {}{}",
        title(kind),
        if recipe.first > 0 { format!(", its first {} layers kept", recipe.first) } else { String::new() },
        recipe.epochs,
        recipe.batch,
        recipe.size,
        match recipe.early_epochs() {
            0 => String::new(),
            epochs => format!(" (the first {epochs} of them at {} px)", recipe.size_in(0)),
        },
        recipe.rates.head,
        recipe.rates.last,
        recipe.rates.middle,
        recipe.rates.first,
        recipe.decay,
        recipe.smoothing,
        recipe.augment.scale,
        if recipe.augment.flip { "on" } else { "off" },
        recipe
            .distill
            .map_or(String::new(), |distill| format!(", under a teacher by {}", distill::describe(&distill))),
    )
}

#[cfg(test)]
mod tests {
    use super::super::plan::Facts;
    use super::*;
    use crate::{
        train::parameters::{Kind, Parameter},
        zoo::{Arch, Config},
    };

    #[test]
    fn a_recipe_tells_how_many_epochs_are_small() {
        let (arch, width) = Arch::named("mobilenet_v2_x0.5").unwrap();
        let graph = arch.graph(&Config { width, size: 224, ..arch.config(2) }).unwrap();
        let facts = Facts {
            photos: 800,
            validated: 800,
            smallest: 400,
            largest: 400,
            classes: 2,
            head_top1: 0.94,
            mirrors: true,
            size: 224,
        };
        let told = |epochs| {
            let kind = RecipeKind::Finetune;
            describe(kind, &facts.recipe(kind, &graph, Some(epochs), None))
        };
        assert!(told(5).contains("5 epochs of batches of 16 at 192 px (the first 2 of them at 128 px), "));
        assert!(told(1).contains("1 epochs of batches of 16 at 192 px, "));
    }

    #[test]
    fn epochs_at_a_smaller_size_take_their_share_of_the_time() {
        let backbone = crate::model::bundled().unwrap();
        let facts = Facts { head_top1: 0.8, ..Facts::new(&[400, 400], &backbone) };
        let pace = speed::Pace { full: 4.0, early: 2.0 };
        let of = |epochs: f64| {
            let recipe = facts.recipe(RecipeKind::Finetune, &backbone.graph, None, None);
            assert!(recipe.early.is_some());
            pace.of(&Recipe { epochs, ..recipe })
        };
        // Of fewer than two epochs none is seen small, of three the first.
        assert_eq!([0.5, 1.9, 2.0, 4.0].map(of), [4.0, 4.0, 3.0, 3.0]);
        assert!((of(3.0) - 10.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn rounds_are_kept_and_what_does_not_fit_is_refused() {
        let network = |value: f32| Parameters {
            list: vec![Parameter {
                name: "conv.weight".into(),
                shape: vec![2],
                kind: Kind::Weight,
                values: vec![value; 2],
            }],
        };
        let round = |logits: Vec<Vec<f32>>| Round {
            shares: logits.len(),
            logits,
            whole: true,
            history: Vec::new(),
            seconds: 1.0,
        };
        let rounds =
            vec![round(vec![vec![1.0, 2.0], vec![3.0, 4.0]]), round(vec![vec![5.0; 4], vec![6.0; 4]])];
        let mut judged = Judged::default();
        for (at, (round, value)) in rounds.iter().zip([4.0, 10.0]).enumerate() {
            judged.push(0, at, round.clone(), network(value));
        }
        let written = serde_json::to_value(&judged.rounds).unwrap();
        let restore = |change: &dyn Fn(&mut Tensors<'_>)| {
            let mut tensors = Tensors::new();
            judged.keep(&mut tensors);
            change(&mut tensors);
            let read: Vec<Round> = serde_json::from_value(written.clone()).unwrap();
            Judged::restore(read, &mut tensors, &network(0.0), 2, |round| [2, 4][round]).unwrap()
        };
        let again = restore(&|_| {}).unwrap();
        assert_eq!((again.rounds, again.means), (rounds, vec![network(7.0)]));
        // The third counts as much as the two before it; what did not reach its end does not count, unless nothing else is there.
        let more = |rounds: &[(usize, bool, f32)]| {
            let mut judged = Judged::default();
            for &(arm, whole, value) in rounds {
                let others = judged.rounds.len() - if arm > 0 { 2 } else { 0 };
                judged.push(arm, others, Round { whole, ..round(Vec::new()) }, network(value));
            }
            judged.means.iter().map(|mean| mean.list[0].values[0]).collect::<Vec<_>>()
        };
        assert_eq!(more(&[(0, true, 4.0), (0, true, 10.0), (0, true, 1.0)]), [5.0]);
        assert_eq!(more(&[(0, true, 4.0), (0, false, 10.0), (1, false, 2.0)]), [4.0, 2.0]);
        assert!(restore(&|tensors| _ = tensors.remove("round/1/0")).is_none());
        assert!(restore(&|tensors| _ = tensors.insert("round/0/1".into(), vec![0.0; 3].into())).is_none());
    }
}
