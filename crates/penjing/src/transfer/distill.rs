//! A teacher beside the training of a whole network: what is asked of it, and whether it was worth it.

use std::{collections::HashSet, path::PathBuf};

use penjing_runtime::{file::Model, pixels::Pixels};
use rayon::prelude::*;

use super::{
    calibration::{self, surprise},
    finetune::cost,
    paired::Gain,
    survey::Survey,
};
use crate::{
    Error, Result,
    classifier::ranked,
    data::{Skipped, photos_below},
    progress::Progress,
    threads::Threads,
    train::{
        augment::Augment,
        distill::{Distill, Soft},
        feed::{Draw, Feed, Photo, key, read},
        teacher::Teacher,
        trainer::{Recipe, Score},
    },
};

/// A teacher, and how it is listened to.
#[derive(Clone, Debug)]
pub struct Distillation {
    /// A classifier that knows all classes of the photos.
    pub teacher: Model,
    /// How it is listened to.
    pub by: By,
    /// Folder of photos without labels, which the teacher alone explains.
    pub unlabelled: Option<PathBuf>,
}

/// Ways to listen to a teacher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// [`By::Kd`], kept where held-out photos say that training of as many steps without the teacher is worse.
    Auto,
    /// Its softened probabilities.
    Kd,
    /// The same, those of the photo's class apart from those among the other classes.
    Dkd,
    /// Its softened probabilities, and at first its features too.
    Hints,
}

impl Distillation {
    /// # Errors
    /// [`Error::Unsupported`] for a teacher that does not know all of the classes, [`Error::Data`] where there is no folder of
    /// photos.
    pub(super) fn check(&self, classes: &[String]) -> Result<()> {
        Teacher::new(&self.teacher, classes, self.by.distill().hints > 0.0)?;
        match &self.unlabelled {
            Some(folder) if !folder.is_dir() => {
                Err(Error::data(folder, "is no folder; expected one of photos without labels"))
            }
            _ => Ok(()),
        }
    }
}

impl By {
    /// Temperature and weights are their papers'.
    fn distill(self) -> Distill {
        let kd = Soft::Kd { temperature: 4.0, share: 0.9 };
        match self {
            By::Auto | By::Kd => Distill { soft: kd, hints: 0.0 },
            By::Dkd => Distill { soft: Soft::Dkd { temperature: 4.0, beta: 8.0, warmup: 0.1 }, hints: 0.0 },
            By::Hints => Distill { soft: kd, hints: 0.2 },
        }
    }
}

/// A teacher at work.
#[derive(Debug)]
pub(super) struct Lessons<'a> {
    ask: &'a Distillation,
    pub teacher: Teacher,
    /// BLAKE3 of its file.
    hash: String,
    pub unlabelled: Vec<Photo>,
    /// Hash of those photos.
    unlabelled_hash: String,
    pub skipped: Vec<Skipped>,
}

impl<'a> Lessons<'a> {
    /// Reads the photos without labels; those that lie among the labelled ones, for the test too, are left out.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a teacher that does not know all classes, [`Error::Data`] for a folder without photos.
    pub fn new(
        ask: &'a Distillation,
        survey: &Survey,
        pixels: &Pixels,
        threads: &Threads,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let teacher = Teacher::new(&ask.teacher, &survey.data.classes, ask.by.distill().hints > 0.0)?;
        let bytes = ask.teacher.to_bytes().map_err(super::unsupported)?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let (mut unlabelled, mut skipped, mut hasher) = (Vec::new(), Vec::new(), blake3::Hasher::new());
        if let Some(folder) = &ask.unlabelled {
            let (paths, unreadable) = photos_below(folder);
            unreadable.iter().for_each(|notice| progress.notice(&notice.to_string()));
            let mut seen: HashSet<[u8; 32]> = survey.hashes.iter().chain(&survey.tested).copied().collect();
            let found = paths.len();
            for (path, hash) in paths.iter().zip(read(&paths, pixels, threads, progress)?) {
                match hash {
                    Ok(hash) if seen.insert(hash) => {
                        hasher.update(&hash);
                        unlabelled.push(Photo { path: path.clone(), class: None, key: key(&hash) });
                    }
                    Ok(_) => {}
                    Err(error) => skipped.push(Skipped::new(path, &error)),
                }
            }
            if unlabelled.is_empty() {
                let what = "has no photo that can be read and is no copy of the labelled ones; expected a folder of photos";
                return Err(Error::data(folder, what));
            }
            match found - unlabelled.len() - skipped.len() {
                0 => {}
                copies => progress
                    .notice(&format!("{copies} photos without a label are copies of others and left out")),
            }
        }
        let unlabelled_hash = hasher.finalize().to_hex().to_string();
        Ok(Lessons { ask, teacher, hash, unlabelled, unlabelled_hash, skipped })
    }

    /// What makes two trainings differ.
    pub fn identity(&self) -> [(&'static str, String); 3] {
        [
            ("the teacher", self.hash.clone()),
            ("--distill", format!("{:?}", self.ask.by).to_lowercase()),
            ("the photos without labels", self.unlabelled_hash.clone()),
        ]
    }

    /// The trainings that are compared, made of a recipe without a teacher, for so many photos with a label: as many steps
    /// without and with the teacher, or only with it.
    pub fn arms(&self, recipe: &Recipe, photos: usize) -> Vec<Recipe> {
        let (distill, all) = (self.ask.by.distill(), photos + self.unlabelled.len());
        // Smoothed labels and softened answers say the same twice.
        let taught = Recipe { distill: Some(distill), smoothing: 0.0, ..recipe.clone() };
        let epochs = recipe.steps(all) as f64 / recipe.steps_per_epoch(photos) as f64;
        match self.ask.by {
            By::Auto => vec![Recipe { epochs, ..recipe.clone() }, taught],
            By::Kd | By::Dkd | By::Hints => vec![taught],
        }
    }

    /// Why the student, that has learnt alone, has nothing to learn from the teacher; `None` where it has. Of a teacher that
    /// was made from the same photos counts what it reached before it had learnt from those that judge.
    pub fn is_no_better(
        &self,
        student: f64,
        survey: &Survey,
        held: &[usize],
        feed: &Feed,
    ) -> Result<Option<String>> {
        let known = &self.ask.teacher.provenance;
        let own = known.val_top1.filter(|_| known.data_hash == Some(survey.fingerprint()));
        let teacher = match own {
            Some(top1) => top1,
            None => self.top1(survey, held, feed)?,
        };
        Ok((teacher <= student).then(|| {
            format!(
                "the teacher is right on {:.2} % of held-out photos, the network without it on {:.2} %, so there is nothing \
                 to learn from it",
                100.0 * teacher,
                100.0 * student
            )
        }))
    }

    /// Share of the photos at `held` that it classifies rightly; `feed` shows them in that order.
    fn top1(&self, survey: &Survey, held: &[usize], feed: &Feed) -> Result<f64> {
        let (pixels, width) = (feed.pixels(), self.teacher.width());
        let classes = survey.data.classes.len();
        let right = (0..held.len()).into_par_iter().map_init(
            || (vec![0.0; pixels.len()], vec![0.0; width]),
            |(input, answer), photo| {
                let draw = Draw { photo: photo as u32, time: 0 };
                feed.fill(pixels, 0, &[draw], input, Some((&self.teacher, answer)))?;
                Ok(ranked(&answer[..classes])[0] == survey.labels[held[photo]] as usize)
            },
        );
        let right: Vec<bool> = right.collect::<Result<_>>()?;
        Ok(right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64)
    }

    /// What came of it, for the model's provenance: whether the network was taught, by what comparison, or why none was made.
    pub fn outcome(&self, taught: bool, comparison: Option<Comparison>, refused: Option<&str>) -> String {
        let name = self.name();
        match (comparison, refused) {
            (Some(comparison), _) if taught => format!("taught by {name}: {}", comparison.describe()),
            (Some(comparison), _) => {
                format!(
                    "not taught by {name}, which gained no more than a standard error: {}",
                    comparison.describe()
                )
            }
            (None, Some(why)) => format!("not taught by {name}: {why}"),
            (None, None) if taught => format!("taught by {name}; what it gained was not measured"),
            (None, None) => format!("not taught by {name}: training under it did not reach its end"),
        }
    }

    /// The teacher in a few words.
    fn name(&self) -> String {
        let Model { arch, provenance, .. } = &self.ask.teacher;
        let reached =
            provenance.val_top1.map_or(String::new(), |top1| format!(", validation {:.2} %", 100.0 * top1));
        let photos = match self.unlabelled.len() {
            0 => String::new(),
            count => format!("; {count} photos without a label"),
        };
        format!("{arch} (BLAKE3 {}{reached}){photos}", &self.hash[..16])
    }
}

/// A distillation in words, for the model's provenance.
pub(super) fn describe(distill: &Distill) -> String {
    let soft = match distill.soft {
        Soft::Kd { temperature, share } => format!("KD at temperature {temperature}, share {share}"),
        Soft::Dkd { temperature, beta, warmup } => {
            format!("decoupled KD at temperature {temperature}, beta {beta}, warm-up {warmup} of the steps")
        }
    };
    match distill.hints {
        0.0 => soft,
        hints => format!("{soft}, hints in the first {hints} of the steps"),
    }
}

/// Two networks on the same held-out photos, each under a temperature of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Comparison {
    /// Without the teacher.
    pub plain: Score,
    /// With it.
    pub taught: Score,
    /// What the teacher gains of what they [`cost`].
    pub gain: Gain,
}

impl Comparison {
    /// `plain` and `taught` are logits `[labels][classes]`; `groups` says which photos belong together.
    pub fn new(plain: &[f32], taught: &[f32], labels: &[u32], groups: &[usize], classes: usize) -> Self {
        // Each photo by itself: the surprise at it, and whether it is right.
        let photos = |logits: &[f32]| -> Vec<Score> {
            let t = calibration::temperature(logits, labels, classes);
            let score = |(logits, label): (&[f32], &u32)| Score {
                top1: f64::from(u8::from(ranked(logits)[0] == *label as usize)),
                nll: surprise(logits, *label, t.recip()),
            };
            logits.chunks_exact(classes).zip(labels).map(score).collect()
        };
        let count = labels.len() as f64;
        let mean = |scores: &[Score]| {
            let of = |part: fn(&Score) -> f64| scores.iter().map(part).sum::<f64>() / count;
            Score { top1: of(|score| score.top1), nll: of(|score| score.nll) }
        };
        let (without, with) = (photos(plain), photos(taught));
        let gains = without.iter().zip(&with).map(|(without, with)| cost(without) - cost(with));
        let gain = Gain::new(gains.zip(groups.iter().copied()));
        Comparison { plain: mean(&without), taught: mean(&with), gain }
    }

    /// Whether the teacher is kept: what is within one standard error may be chance, and the plain network asked nobody.
    pub fn taught_wins(&self) -> bool {
        self.gain.beyond(1.0)
    }

    /// What the teacher gained.
    pub fn describe(&self) -> String {
        format!(
            "on held-out photos surprise {:.4} and errors {:.2} % with it, {:.4} and {:.2} % without; gain of both {:.4}, standard \
             error {:.4}",
            self.taught.nll,
            100.0 * (1.0 - self.taught.top1),
            self.plain.nll,
            100.0 * (1.0 - self.plain.top1),
            self.gain.mean,
            self.gain.error,
        )
    }
}

/// Plain looks at photos.
pub(super) fn plain_feed(photos: Vec<Photo>, classes: usize, pixels: &Pixels) -> Feed {
    Feed::new(photos, classes, pixels.clone(), Augment::NONE, 0.0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No photo belongs to another.
    fn alone(photos: usize) -> Vec<usize> {
        (0..photos).collect()
    }

    /// Logits of two classes for so many photos of the first one, of which some are wrong.
    fn logits(photos: usize, wrong: usize, margin: f32) -> Vec<f32> {
        (0..photos).flat_map(|photo| if photo < wrong { [0.0, margin] } else { [margin, 0.0] }).collect()
    }

    #[test]
    fn a_teacher_is_kept_only_beyond_doubt() {
        let compare = |plain: usize, taught: usize| {
            Comparison::new(&logits(200, plain, 2.0), &logits(200, taught, 3.0), &[0; 200], &alone(200), 2)
        };
        let better = compare(40, 10);
        assert!(better.taught_wins() && better.plain.top1 == 0.8 && better.taught.top1 == 0.95, "{better:?}");
        // Each under its own temperature: how sure the logits look does not count.
        assert!(!compare(40, 40).taught_wins() && compare(40, 40).gain.error < 1e-3, "{:?}", compare(40, 40));
        assert!(!compare(10, 40).taught_wins());
        // Two photos won and one lost is chance.
        let mut taught = logits(200, 41, 3.0);
        taught[..4].copy_from_slice(&[3.0, 0.0, 3.0, 0.0]);
        let hardly = Comparison::new(&logits(200, 40, 2.0), &taught, &[0; 200], &alone(200), 2);
        assert!(cost(&hardly.plain) > cost(&hardly.taught) && !hardly.taught_wins(), "{hardly:?}");
        assert!(!Comparison::new(&[f32::NAN; 4], &[0.0; 4], &[0; 2], &alone(2), 2).taught_wins());
    }

    #[test]
    fn the_standard_error_is_of_pairs() {
        // Right and wrong at the temperature that fits both: what a photo costs differs by one error and the margin.
        let (plain, taught) = (logits(100, 20, 2.0), logits(100, 20, 2.0));
        assert_eq!(Comparison::new(&plain, &taught, &[0; 100], &alone(100), 2).gain.error, 0.0);
        let mut other = logits(100, 0, 2.0);
        // The same number of errors, but on other photos.
        (20..40).for_each(|photo| other[2 * photo..][..2].copy_from_slice(&[0.0, 2.0]));
        let comparison = Comparison::new(&plain, &other, &[0; 100], &alone(100), 2);
        let t = calibration::temperature(&plain, &[0; 100], 2);
        let each = 1.0 + 2.0 / t;
        let expected = (40.0 * each * each / 99.0 / 100.0_f64).sqrt();
        assert!((comparison.gain.error / expected - 1.0).abs() < 1e-6, "{comparison:?} {expected}");
        // Five photos of each thing tell as much as one of each.
        let fives: Vec<usize> = (0..100).map(|photo| photo / 5).collect();
        let grouped = Comparison::new(&plain, &other, &[0; 100], &fives, 2);
        let expected = (8.0 * each * each / 19.0 / 20.0_f64).sqrt();
        assert!((grouped.gain.error / expected - 1.0).abs() < 1e-6, "{grouped:?} {expected}");
    }
}
