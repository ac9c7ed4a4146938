//! What a search tells.

use serde::{Deserialize, Serialize};

use super::form::{Budget, Form, Needs};
use crate::data::Skipped;

/// What came of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was allowed.
    pub budget: Budget,
    /// The model that the others are compared with.
    pub before: Shown,
    /// The networks that were tried, the best first.
    pub tried: Vec<Tried>,
    /// Ways of making a network smaller by which the budget cannot be kept, and the smallest network of each.
    pub beyond: Vec<Found>,
    /// Place of the network that was taken among those tried.
    pub taken: Option<usize>,
    /// What is missed by the best network; nothing if one was taken.
    pub missed: Vec<String>,
    /// Photos that judged.
    pub photos: usize,
    /// The part of the data that they are of.
    pub part: &'static str,
    /// How long the search took, in seconds.
    pub seconds: f64,
    /// Photos that could not be read, and why.
    pub skipped: Vec<Skipped>,
}

/// What a network shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Accuracy on the photos that judge, 0..1.
    pub top1: f64,
    /// Mean negative log likelihood of their classes.
    pub nll: f64,
    /// What it takes.
    pub needs: Needs,
}

/// A network that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// What it is.
    pub form: Form,
    /// The architecture that it was made of.
    pub arch: String,
    /// Rounds in which it learnt.
    pub rounds: usize,
    /// How often it saw every photo.
    pub epochs: f64,
    /// What it shows after the last of them.
    pub shown: Shown,
    /// Whether no other network is as good in all respects and better in one.
    pub front: bool,
    /// What it missed when it was to be taken and was measured once more, in words: then the next one was looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
}

impl Tried {
    /// Whether it became the file that it is to be: after the first round alone it answers as in floats.
    pub(super) fn is_made(&self) -> bool {
        self.rounds > 1
    }
}

/// A form, and what it takes before anything is learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// What it is.
    pub form: Form,
    /// What it takes.
    pub needs: Needs,
}

/// Marks those that nobody else equals in accuracy, file, latency and memory while being better in one. Those of the first round
/// alone were never made: they answer as in floats and take what they would in 8 or 4 bits.
pub(super) fn mark_front(tried: &mut [(usize, Tried)]) {
    let costs = |shown: &Shown| {
        [-shown.top1, shown.needs.size as f64, shown.needs.latency_ms, shown.needs.ram as f64]
    };
    let made = tried.iter().filter(|(_, tried)| tried.is_made());
    let all: Vec<[f64; 4]> = made.map(|(_, tried)| costs(&tried.shown)).collect();
    for (_, tried) in tried {
        let own = costs(&tried.shown);
        let beaten = |other: &[f64; 4]| {
            other.iter().zip(own).all(|(other, own)| *other <= own)
                && other.iter().zip(own).any(|(other, own)| *other < own)
        };
        tried.front = tried.is_made() && !all.iter().any(beaten);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Numbers;
    use super::*;

    #[test]
    fn what_was_never_made_is_not_in_front() {
        let tried = |rounds: usize, top1: f64, size: u64| {
            let needs = Needs { size, latency_ms: 1.0, ram: 1 };
            let form = Form { start: 0, px: 32, numbers: Numbers::FourBits, stay: None, macs: 1 };
            let shown = Shown { top1, nll: 0.1, needs };
            (0, Tried { form, arch: "a".into(), rounds, epochs: 1.0, shown, front: false, over: Vec::new() })
        };
        let mut all = [tried(3, 0.9, 100), tried(2, 0.8, 100), tried(2, 0.8, 50), tried(1, 0.95, 40)];
        mark_front(&mut all);
        assert_eq!(all.map(|(_, tried)| tried.front), [true, false, true, false]);
    }
}
