//! Whether a mirrored photo still shows the same thing, seen from the network's own training.

use penjing_runtime::graph::Graph;

use super::{
    paired::Gain,
    work::{Judged, Kept, Work},
};
use crate::{
    Error, Result,
    classifier::ranked,
    train::{
        augment::Augment,
        checkpoint::Tensors,
        parameters::Parameters,
        trainer::{Recipe, Standing},
    },
};

/// Whether mirrored photos do no harm: the network trained briefly without them and with, judged on held-out photos.
/// The backbone's own features cannot tell, since it was taught to take a mirrored thing for the same thing. `probed`
/// holds what earlier calls have found out, and `resume` is the state of the run that was under way then.
pub(super) fn do_no_harm(
    work: &Work,
    recipe: &Recipe,
    rounds: usize,
    (graph, start): &(Graph, Parameters),
    [held, others]: &[Vec<usize>; 2],
    mut probed: Vec<Vec<bool>>,
    mut resume: Option<(Standing, Tensors<'static>)>,
) -> Result<bool> {
    let survey = work.survey;
    for (name, flip) in [("plain", false), ("mirrored", true)].into_iter().skip(probed.len()) {
        let epochs = looks(others.len()) / (2.0 * others.len() as f64);
        let brief = Recipe { epochs, augment: Augment { flip, ..recipe.augment }, ..recipe.clone() };
        let photos = [survey.photos(others), Vec::new()];
        let kept = Kept { recipe, rounds, judged: &Judged::default(), probed: Some(&probed) };
        let run = work.run(name, &brief, 0, photos, graph, start.clone(), kept, resume.take(), None)?;
        if run.interrupted {
            return Err(Error::Interrupted);
        }
        let logits = work.logits(graph, &[&run.average], held)?.concat();
        let guesses = logits.chunks_exact(survey.data.classes.len()).map(|logits| ranked(logits)[0]);
        let right = guesses.zip(held).map(|(guess, &photo)| guess == survey.labels[photo] as usize);
        probed.push(right.collect());
    }
    let [plain, mirrored] = &probed[..] else { return Err(work.unfit()) };
    let groups = held.iter().map(|&photo| survey.groups[photo]).collect::<Vec<_>>();
    let keep = !leads_astray(plain, mirrored, &groups);
    let share = |right: &[bool]| {
        100.0 * right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64
    };
    work.progress.notice(&format!(
        "mirrored photos {} ({:.1} % right on held-out photos with them, {:.1} % without)",
        if keep { "do no harm" } else { "lead astray, so none are shown" },
        share(mirrored),
        share(plain)
    ));
    Ok(keep)
}

/// How many looks at photos it takes, given how many are learnt from.
pub(super) fn looks(photos: usize) -> f64 {
    2.0 * (PROBED * photos as f64).min(PROBED_PHOTOS)
}

/// Epochs that show whether mirrored photos do harm.
const PROBED: f64 = 2.0;
/// Of so many photos less is enough.
const PROBED_PHOTOS: f64 = 10_000.0;
/// From so many held-out photos on harm can be told from chance.
pub(super) const FEWEST_TO_PROBE: usize = 200;

/// Whether more photos are lost with mirrored photos than two points and two standard errors of the paired differences;
/// photos of one of the `groups` count together.
fn leads_astray(plain: &[bool], mirrored: &[bool], groups: &[usize]) -> bool {
    let one = |right: &bool| f64::from(u8::from(*right));
    let lost = plain.iter().zip(mirrored).map(|(plain, mirrored)| one(plain) - one(mirrored));
    let lost = Gain::new(lost.zip(groups.iter().copied()));
    lost.mean > MIRRORS_LOSE && lost.beyond(2.0)
}

/// Loss of accuracy from which on mirrored photos are left out.
const MIRRORS_LOSE: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::leads_astray;

    #[test]
    fn a_mirror_is_blamed_only_for_what_chance_does_not_explain() {
        let right = |photos: usize, wrong: usize| -> Vec<bool> { (0..photos).map(|i| i >= wrong).collect() };
        let alone: Vec<usize> = (0..1000).collect();
        let blamed = |photos, plain, mirrored, groups: &[usize]| {
            leads_astray(&right(photos, plain), &right(photos, mirrored), &groups[..photos])
        };
        assert!(!blamed(49, 0, 1, &alone));
        assert!(!blamed(1000, 50, 60, &alone));
        assert!(blamed(600, 60, 180, &alone));
        assert!(!blamed(600, 180, 60, &alone));
        assert!(!blamed(0, 0, 0, &alone));
        // Four things of a hundred photos each, and all photos of one of the others go wrong.
        let hundreds: Vec<usize> = (0..600).map(|photo| photo / 100).collect();
        assert!(!blamed(600, 100, 200, &hundreds));
    }
}
