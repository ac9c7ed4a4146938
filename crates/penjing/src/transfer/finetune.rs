//! The whole network trained from a head: judged beside it on photos held out in turn; it then goes on with all of them.

use std::time::Instant;

use penjing_runtime::{file::Model, graph::Graph, tensor::Weights};

use super::{
    Candidate, Options, Trained, assemble, calibration,
    distill::{Comparison, Lessons, plain_feed},
    features::Extracted,
    fit_some, graft,
    head::{Fit, Head},
    mirrors::{self, FEWEST_TO_PROBE},
    plan::{Facts, RecipeKind},
    survey::Survey,
    with_classes,
    work::{InTime, Judged, Kept, Round, State, UNFINISHED, Work, describe, title},
};
use crate::{
    Error, Result,
    progress::{Progress, Quiet},
    threads::Threads,
    train::{
        augment::Augment,
        checkpoint::Tensors,
        log::{Event, Log},
        parameters::Parameters,
        trainer::{self, Recipe, Score, Standing},
    },
};

/// What whole-network training starts from.
pub(super) struct Start<'a> {
    pub backbone: &'a Model,
    pub survey: &'a Survey<'a>,
    pub extracted: &'a Extracted,
    pub fit: &'a Fit,
    pub views: usize,
    pub lessons: Option<&'a Lessons<'a>>,
}

/// How far from start to end networks are tried: some of the way may be better than all of it (Wortsman et al., "Robust
/// fine-tuning of zero-shot models", arXiv 2109.01903).
const SHARES: [f32; 4] = [1.0, 0.75, 0.5, 0.25];

/// Tries the whole network beside the head, where the recipe says so, and puts what is better into `trained`.
pub(super) fn refine(
    start: &Start,
    options: &Options,
    began: Instant,
    threads: &Threads,
    progress: &dyn Progress,
    mut log: Option<&mut Log>,
    trained: &mut Trained,
) -> Result<()> {
    let Start { backbone, survey, fit, views, .. } = *start;
    let facts = Facts {
        head_top1: fit.val_top1,
        validated: fit.validated.len(),
        mirrors: may_mirror(options.views, start.extracted.views, views),
        ..Facts::new(&survey.counts(), backbone)
    };
    let kind = match options.recipe {
        RecipeKind::Head => return Ok(()),
        RecipeKind::Auto => {
            if let Some(why) = facts.head_is_enough() {
                progress.notice(&why);
                return Ok(());
            }
            RecipeKind::Finetune
        }
        kind => kind,
    };
    let work = Work::new(backbone, survey, options, start.lessons, began, threads, progress)?;
    let Some(mut tuning) = Tuning::begin(start, work, &facts, kind)? else { return Ok(()) };
    trained.network = true;
    let mut unfinished = tuning.judge(log.as_deref_mut())?;
    let choice = tuning.choose_arm();
    let (mut made, mut on_all) = (None, false);
    if let Some(choice) = &choice {
        let head = &mut trained.candidates[0];
        (head.val_top1, head.val_nll, head.chosen) =
            (choice.head.top1, choice.head.nll, !choice.network_wins);
        for arm in 0..tuning.judged.means.len() {
            let Some(of_arm) = tuning.choose(arm) else { continue };
            let taught = tuning.arms[arm].distill.is_some();
            trained.candidates.push(Candidate {
                name: format!("{}{}", title(kind), if taught { ", under the teacher" } else { "" }),
                val_top1: of_arm.score.top1,
                val_nll: of_arm.score.nll,
                seconds: tuning.of_arm(arm).iter().map(|round| round.seconds).sum(),
                chosen: choice.network_wins && arm == choice.arm,
            });
        }
        trained.history.clone_from(&tuning.of_arm(choice.arm)[0].history);
        if choice.network_wins {
            let whole = tuning.of_arm(choice.arm).iter().all(|round| round.whole);
            if unfinished.is_none() && whole {
                match tuning.learn_all(choice, log.as_deref_mut())? {
                    Ended::Made(network) => (made, on_all) = (Some(network), true),
                    Ended::Stopped => {}
                    Ended::Interrupted => unfinished = Some("the run on all photos"),
                }
            }
            if made.is_none() {
                made = tuning.mean_judged(choice)?;
            }
        }
    }
    if let (Some(choice), Some(network)) = (&choice, made) {
        let mut steps = vec![trained.model.provenance.recipe.last().cloned().unwrap_or_default()];
        let recipe = &tuning.arms[choice.arm];
        steps.push(describe(kind, recipe));
        if let Some(lessons) = start.lessons {
            steps.push(lessons.outcome(
                recipe.distill.is_some(),
                tuning.compare(),
                tuning.refused.as_deref(),
            ));
        }
        if on_all {
            let epochs = onward_epochs(recipe.epochs);
            steps.push(format!(
                "{epochs:.2} epochs more with the photos that judged among them, at {SLOWER} of the rates"
            ));
        }
        if choice.share < 1.0 {
            let share = choice.share;
            steps.push(format!("weights {share} of the way from that head's network to the trained one"));
        }
        let (temperature, top1) = (choice.temperature, choice.score.top1);
        let (graph, _) = with_classes(backbone, facts.classes)?;
        let weights: Weights = network.to_weights();
        trained.model = assemble(backbone, survey, graph, weights, steps, temperature, top1, options)?;
        trained.val_top1 = top1;
    }
    if let Some(during) = unfinished {
        trained.interrupted = true;
        let recipe = &mut trained.model.provenance.recipe;
        recipe.push(format!("{UNFINISHED}stopped in {during}; this is the best so far"));
    } else if let Some(log) = log {
        let chosen = trained.candidates.iter().find(|candidate| candidate.chosen);
        log.write(&Event::Done {
            epochs: tuning.recipe.epochs.ceil() as u64,
            val_top1: chosen.map_or(trained.val_top1, |chosen| chosen.val_top1),
            val_nll: chosen.map_or(f64::NAN, |chosen| chosen.val_nll),
            seconds: tuning.work.seconds(),
        });
    }
    Ok(())
}

/// Whether nothing speaks against mirrored photos, by the views that were asked for, made, and left to the head. Of very
/// many photos none but plain ones are made, to save time; whether mirrored ones do harm is not known then.
fn may_mirror(asked: Option<usize>, made: usize, left: usize) -> bool {
    left > 1 || (asked.is_none() && made == 1)
}

/// The recipes that are compared.
fn arms(start: &Start, recipe: &Recipe) -> Vec<Recipe> {
    let learners = start.survey.round(0)[1].len();
    start.lessons.map_or_else(|| vec![recipe.clone()], |lessons| lessons.arms(recipe, learners))
}

/// The network with this head, as training takes it.
fn network(backbone: &Model, head: &Head) -> Result<(Graph, Parameters)> {
    let (graph, weights) = graft(backbone, head)?;
    let parameters = Parameters::new(&graph, &weights)?;
    Ok((graph, parameters))
}

/// The runs of one training, and where it stands.
struct Tuning<'a> {
    start: &'a Start<'a>,
    work: Work<'a>,
    recipe: Recipe,
    /// What is compared: that recipe, with a teacher the same under it, or both.
    arms: Vec<Recipe>,
    /// Rounds that judge, of each arm.
    rounds: usize,
    judged: Judged,
    /// The run that goes on, when there is one.
    resume: Option<(Standing, Tensors<'static>)>,
    /// Why no training under the teacher was tried.
    refused: Option<String>,
}

/// What the rounds say.
struct Choice {
    /// Whose rounds.
    arm: usize,
    /// The network on the photos that judged, its likelihood after calibration.
    score: Score,
    /// The head on the same photos.
    head: Score,
    temperature: f64,
    /// How far from the start to the end of training the network is.
    share: f32,
    network_wins: bool,
}

/// What networks are compared by: the mean surprise and the share of errors, one as much as the other. Surprise alone
/// prefers a network that is never very wrong to one that is more often right; errors alone are few and owe much to chance.
pub(super) fn cost(score: &Score) -> f64 {
    score.nll + (1.0 - score.top1)
}

/// How the judged network learns from all photos: it has seen most of them already.
fn onward(recipe: &Recipe) -> Recipe {
    let epochs = onward_epochs(recipe.epochs);
    Recipe { epochs, early: None, rates: recipe.rates.scaled(SLOWER), ..recipe.clone() }
}

/// Epochs with all photos after so many of the training that was judged: one at least, so that none is left out.
fn onward_epochs(epochs: f64) -> f64 {
    (epochs * ONWARD).max(epochs.min(1.0))
}

/// Epochs with all photos for each epoch of the training that was judged, and the share of its rates.
const ONWARD: f64 = 0.3;
const SLOWER: f32 = 0.5;
/// Sets the looks at its photos apart from those that it has seen.
const ONWARD_LOOKS: u64 = 0x6f6e_7761;

/// How the run on all photos ended.
enum Ended {
    Made(Parameters),
    Stopped,
    Interrupted,
}

impl<'a> Tuning<'a> {
    /// What was kept, or a beginning; `None` where the whole network cannot be trained.
    fn begin(start: &'a Start, mut work: Work<'a>, facts: &Facts, kind: RecipeKind) -> Result<Option<Self>> {
        let Start { backbone, survey, fit, .. } = *start;
        let (options, progress) = (work.options, work.progress);
        let (graph, blank) = network(backbone, &fit.head)?;
        if let Some((state, mut tensors)) = work.resume()? {
            let State { recipe, rounds, judged, probed, standing, .. } = state;
            let tried = judged.iter().all(|round| (1..=SHARES.len()).contains(&round.shares));
            let arms = arms(start, &recipe);
            if judged.len() > rounds * arms.len() || !(1..=survey.rounds()).contains(&rounds) || !tried {
                return Err(work.unfit());
            }
            let values = |round: usize| survey.round(round)[0].len() * facts.classes;
            let judged =
                Judged::restore(judged, &mut tensors, &blank, rounds, values)?.ok_or_else(|| work.unfit())?;
            let resume = Some((standing, tensors));
            let mut tuning = Tuning { start, work, recipe, arms, rounds, judged, resume, refused: None };
            if let Some(probed) = probed {
                tuning.probe(probed)?;
            }
            return Ok(Some(tuning));
        }
        let split = survey.round(0);
        if split[0].is_empty() {
            progress.notice(
                "no photo can judge the whole network without leaving a class none to learn from, so the head is kept; \
                 add photos to the smallest classes",
            );
            return Ok(None);
        }
        let unlabelled = start.lessons.map_or(0, |lessons| lessons.unlabelled.len());
        let learners = |round: usize| survey.round(round)[1].len() + unlabelled;
        let recipe = facts.recipe(kind, &graph, options.epochs, options.balance);
        let recipe = match work.fitted(recipe, &graph, learners(0)) {
            // The head is there, and asks for less.
            Err(error @ Error::Unsupported(_)) if options.recipe == RecipeKind::Auto => {
                progress.notice(&error.to_string());
                return Ok(None);
            }
            fitted => fitted?,
        };
        let compared = arms(start, &recipe);
        let looks = |rounds: usize, epochs: f64| {
            let judged = epochs * (compared.len() * (0..rounds).map(learners).sum::<usize>()) as f64;
            [judged, onward_epochs(epochs) * (survey.kept.len() + unlabelled) as f64]
        };
        let costliest = compared.last().unwrap_or(&recipe).clone();
        let Some(InTime { recipe: fitting, rounds, spare }) =
            work.in_time(costliest, &graph, survey.rounds(), looks)?
        else {
            return Ok(None);
        };
        let recipe = Recipe { epochs: fitting.epochs, ..recipe };
        let (arms, judged) = (arms(start, &recipe), Judged::default());
        let mut tuning = Tuning { start, work, recipe, arms, rounds, judged, resume: None, refused: None };
        let probing = options.recipe == RecipeKind::Auto && mirrors::looks(split[1].len()) <= spare;
        if tuning.recipe.augment.flip && probing && split[0].len() >= FEWEST_TO_PROBE {
            tuning.probe(Vec::new())?;
        }
        Ok(Some(tuning))
    }

    /// Leaves mirrored photos out where they do harm; some of the runs that tell may be over.
    fn probe(&mut self, probed: Vec<Vec<bool>>) -> Result<()> {
        let (start, split) = (self.start_of(0, self.work.progress)?, self.start.survey.round(0));
        if probed.len() > 1 || probed.iter().any(|right| right.len() != split[0].len()) {
            return Err(self.work.unfit());
        }
        let flip = mirrors::do_no_harm(
            &self.work,
            &self.recipe,
            self.rounds,
            &start,
            &split,
            probed,
            self.resume.take(),
        )?;
        self.recipe.augment = Augment { flip, ..self.recipe.augment };
        self.arms = arms(self.start, &self.recipe);
        Ok(())
    }

    /// What a run keeps.
    fn kept(&self) -> Kept<'_> {
        Kept { recipe: &self.recipe, rounds: self.rounds, judged: &self.judged, probed: None }
    }

    /// The network that a round starts from: its head has seen only the photos that the round learns from. Once a network
    /// may have been judged nobody should stop this ([`Quiet`]): what follows hears it at its first step, and keeps what there is.
    fn start_of(&self, round: usize, progress: &dyn Progress) -> Result<(Graph, Parameters)> {
        let Start { backbone, survey, extracted, fit, views, .. } = *self.start;
        let [_, others] = survey.round(round);
        let head = fit_some(survey, extracted, views, &others, fit.lambda, self.work.threads, progress)?;
        network(backbone, &head)
    }

    /// The rounds that are not over yet; says where it was interrupted.
    fn judge(&mut self, mut log: Option<&mut Log>) -> Result<Option<&'static str>> {
        let survey = self.start.survey;
        // What did not reach its end was the last.
        if self.judged.rounds.last().is_some_and(|round| !round.whole) {
            return Ok(None);
        }
        for index in self.judged.rounds.len()..self.rounds * self.arms.len() {
            let (arm, round) = (index / self.rounds, index % self.rounds);
            if arm > 0 && round == 0 {
                self.refused = self.is_teacher_no_better()?;
                if let Some(why) = &self.refused {
                    self.work.progress.notice(why);
                    break;
                }
            }
            let before = self.work.seconds();
            let name = match (self.arms.len(), arm) {
                (1, _) => "training",
                (_, 0) => "training without the teacher",
                _ => "training under the teacher",
            };
            let name = match self.rounds {
                1 => name.into(),
                rounds => format!("{name} {} of {rounds}", round + 1),
            };
            let [held, others] = survey.round(round);
            let nothing_yet = index == 0 && self.resume.is_none();
            let watcher = if nothing_yet { self.work.progress } else { &Quiet };
            let (graph, start) = self.start_of(round, watcher)?;
            let photos = [survey.photos(&others), survey.photos(&held)];
            let (from, resume) = (start.clone(), self.resume.take());
            let (kept, log) = (self.kept(), log.as_deref_mut());
            let run = self.work.run(&name, &self.arms[arm], 0, photos, &graph, from, kept, resume, log)?;
            if let Some(why) = &run.stopped {
                let kept = if index == 0 && run.best.is_none() { "head" } else { "best network before it" };
                self.work.progress.notice(&format!("{why}; training ended there, and the {kept} is kept"));
            }
            // The average at the end of the schedule is steadier than any single step; of a run that did not get there
            // the best epoch counts, and what has not lasted an epoch has not been judged.
            let network = match run.best {
                _ if run.whole => Some(run.average),
                // Of a later round it is known that it has not: what is there is kept.
                None if index > 0 => Some(start.clone()),
                best => best.map(|(_, network)| network),
            };
            if let Some(network) = network.filter(|_| index == 0 || !run.interrupted) {
                let tried = if run.whole { &SHARES[..] } else { &SHARES[..1] };
                let networks: Vec<_> = tried.iter().map(|&share| network.between(&start, share)).collect();
                let logits = self.work.logits(&graph, &networks.iter().collect::<Vec<_>>(), &held)?;
                let seconds = self.work.seconds() - before;
                let shares = logits.len();
                let history = run.history;
                let over = Round { logits, shares, whole: run.whole, history, seconds };
                self.judged.push(arm, round, over, network);
            }
            if run.interrupted {
                return Ok(Some("the training that is judged"));
            }
            if !run.whole {
                break;
            }
        }
        Ok(None)
    }

    /// The rounds of an arm that are over.
    fn of_arm(&self, arm: usize) -> &[Round] {
        self.judged.rounds.chunks(self.rounds).nth(arm).unwrap_or_default()
    }

    /// Those of them that count: what did not reach its end does not, unless nothing else is there, as in [`Judged::push`].
    fn counted(&self, arm: usize) -> &[Round] {
        let rounds = self.of_arm(arm);
        let whole = rounds.iter().take_while(|round| round.whole).count();
        &rounds[..rounds.len().min(whole.max(1))]
    }

    /// The photos that judged the rounds of the first arm that count.
    fn held(&self) -> Vec<usize> {
        (0..self.counted(0).len()).flat_map(|round| self.start.survey.round(round)[0].clone()).collect()
    }

    /// What is said of a teacher that is no better than the network is without it.
    fn is_teacher_no_better(&self) -> Result<Option<String>> {
        let (Some(lessons), Some(alone)) = (self.start.lessons, self.choose(0)) else { return Ok(None) };
        let (survey, held) = (self.start.survey, self.held());
        let feed = plain_feed(survey.photos(&held), survey.data.classes.len(), &self.start.backbone.pixels);
        self.work.threads.install(|| lessons.is_no_better(alone.score.top1, survey, &held, &feed))
    }

    /// What both arms reached, where both went to their end.
    fn compare(&self) -> Option<Comparison> {
        let [plain, taught] = [0, 1].map(|arm| self.of_arm(arm));
        let ended = !taught.is_empty() && taught.iter().all(|round| round.whole);
        if plain.len() != taught.len() || !ended {
            return None;
        }
        let survey = self.start.survey;
        let held = self.held();
        let labels: Vec<u32> = held.iter().map(|&photo| survey.labels[photo]).collect();
        let groups: Vec<usize> = held.iter().map(|&photo| survey.groups[photo]).collect();
        let [plain, taught] = [(0, plain), (1, taught)].map(|(arm, rounds)| {
            let share = self.choose(arm).map_or(1.0, |choice| choice.share);
            let tried = SHARES.iter().position(|tried| *tried == share).unwrap_or(0);
            rounds.iter().flat_map(|round| round.logits[tried].clone()).collect::<Vec<f32>>()
        });
        Some(Comparison::new(&plain, &taught, &labels, &groups, survey.data.classes.len()))
    }

    /// The arm that is kept: the second only where it is better beyond doubt.
    fn choose_arm(&self) -> Option<Choice> {
        let taught = self.compare().is_some_and(|comparison| comparison.taught_wins());
        self.choose(usize::from(taught))
    }

    /// What the rounds of an arm that are over say together; `None` without any.
    fn choose(&self, arm: usize) -> Option<Choice> {
        let Start { survey, fit, .. } = *self.start;
        let rounds = self.counted(arm);
        let shares = rounds.iter().map(|round| round.shares).min()?;
        let held: Vec<usize> = (0..rounds.len()).flat_map(|round| survey.round(round)[0].clone()).collect();
        let labels: Vec<u32> = held.iter().map(|&photo| survey.labels[photo]).collect();
        let (photos, classes) = (survey.photos(&held), survey.data.classes.len());
        let calibrated = |logits: &[f32]| {
            let temperature = calibration::temperature(logits, &labels, classes);
            let nll = calibration::mean_surprise(logits, &labels, classes, temperature);
            (temperature, Score { nll, ..trainer::score(logits, &photos, classes) })
        };
        let (_, head) = calibrated(&fit.logits_of(&held));
        let of = |share: usize| {
            let logits: Vec<f32> = rounds.iter().flat_map(|round| &round.logits[share]).copied().collect();
            let (temperature, score) = calibrated(&logits);
            Choice {
                arm,
                score,
                head,
                temperature,
                share: SHARES[share],
                network_wins: cost(&score) < cost(&head) || self.work.options.recipe != RecipeKind::Auto,
            }
        };
        // Of equals the first; what is not a number never wins.
        (0..shares)
            .map(of)
            .reduce(|best, next| if cost(&next.score) < cost(&best.score) { next } else { best })
    }

    /// The mean of what was judged goes on with all photos, where there is none to judge by; the network so far from its start.
    fn learn_all(&mut self, choice: &Choice, log: Option<&mut Log>) -> Result<Ended> {
        let survey = self.start.survey;
        let (graph, _) = network(self.start.backbone, &self.start.fit.head)?;
        let all: Vec<usize> = (0..survey.kept.len()).collect();
        let photos = [survey.photos(&all), Vec::new()];
        let from = self.judged.means.get(choice.arm).cloned().ok_or_else(|| self.work.unfit())?;
        let resume = self.resume.take();
        let (recipe, kept) = (onward(&self.arms[choice.arm]), self.kept());
        let run =
            self.work.run("all photos", &recipe, ONWARD_LOOKS, photos, &graph, from, kept, resume, log)?;
        if let Some(why) = &run.stopped {
            let what = "when learning from all photos; the network that was judged is kept";
            self.work.progress.notice(&format!("{why} {what}"));
            return Ok(Ended::Stopped);
        }
        Ok(if run.interrupted {
            Ended::Interrupted
        } else {
            Ended::Made(self.some_way(choice, run.average)?)
        })
    }

    /// The mean of the networks that were judged, so far from their starts.
    fn mean_judged(&self, choice: &Choice) -> Result<Option<Parameters>> {
        let mean = self.judged.means.get(choice.arm).cloned();
        mean.map(|mean| self.some_way(choice, mean)).transpose()
    }

    /// A network at the end of the way from the mean of what an arm's rounds start from: that share of it.
    fn some_way(&self, choice: &Choice, end: Parameters) -> Result<Parameters> {
        if choice.share == 1.0 {
            return Ok(end);
        }
        let (_, mut mean) = self.start_of(0, &Quiet)?;
        for round in 1..self.counted(choice.arm).len() {
            mean = self.start_of(round, &Quiet)?.1.between(&mean, 1.0 / (round + 1) as f32);
        }
        Ok(end.between(&mean, choice.share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrored_photos_are_shown_unless_the_head_or_the_user_speaks_against_them() {
        assert!(may_mirror(None, 4, 4) && may_mirror(Some(2), 2, 2) && may_mirror(None, 1, 1));
        assert!(!may_mirror(None, 4, 1) && !may_mirror(Some(1), 1, 1));
    }

    #[test]
    fn what_was_judged_goes_on_slowly_and_sees_every_photo() {
        let graph = crate::model::bundled().unwrap().graph;
        let facts = Facts { mirrors: true, ..Facts::new(&[400, 400], &crate::model::bundled().unwrap()) };
        let recipe = facts.recipe(RecipeKind::Finetune, &graph, Some(10), None);
        assert!(recipe.early.is_some());
        let on = onward(&recipe);
        assert_eq!((on.epochs, on.early), (3.0, None));
        assert_eq!((on.rates.head, on.rates.first), (recipe.rates.head / 2.0, recipe.rates.first / 2.0));
        assert_eq!(
            Recipe { epochs: recipe.epochs, early: recipe.early, rates: recipe.rates, ..on },
            recipe,
            "all else stays"
        );
        assert_eq!([0.25, 1.0, 2.0, 5.0].map(onward_epochs), [0.25, 1.0, 1.0, 1.5]);
    }

    #[test]
    fn neither_surprise_nor_errors_alone_decide() {
        let score = |nll, top1| cost(&Score { nll, top1 });
        assert!(score(0.35, 0.86) < score(0.34, 0.83), "hardly surer, but often wrong");
        assert!(score(0.10, 0.96) < score(0.15, 0.97), "one photo more, but often surprised");
        assert!(score(f64::NAN, 1.0).is_nan(), "what is no number must not look like one");
    }
}
