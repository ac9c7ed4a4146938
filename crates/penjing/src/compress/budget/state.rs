//! What is kept of a search, and the folder that holds it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Budget, Found, Options, Shown, form::Ground};
use crate::{
    Error, Result,
    compress::unsupported,
    data::{Dataset, Part, Sample, split},
    train::checkpoint::{self, Identity},
};

/// What is kept of a search, beside the networks.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Seconds that it has taken.
    pub seconds: f64,
    /// What is allowed.
    pub budget: Budget,
    /// Milliseconds that the first model took when the search began.
    pub before_ms: f64,
    /// Of so many models it is known what can be made.
    pub looked: usize,
    /// What is tried.
    pub forms: Vec<Found>,
    pub beyond: Vec<Found>,
    /// What each form learns in each round, as far as rounds have begun.
    pub rounds: Vec<Round>,
}

/// One round.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// When it is to be over, in seconds of the search.
    pub until: f64,
    pub turns: Vec<Turn>,
}

/// A form's turn in a round.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Place of the form.
    pub form: usize,
    /// How often it sees every photo, once it has begun.
    pub epochs: Option<f64>,
    /// What it shows afterwards.
    pub shown: Option<Shown>,
}

/// The name of its state.
const STATE: &str = "search.part";

/// Where a search keeps its state.
pub fn state_path(folder: &Path) -> PathBuf {
    folder.join(STATE)
}

/// Removes what a search has kept, and the folder where it holds nothing else.
///
/// # Errors
/// [`Error::Io`] when something is there and stays there.
pub fn remove(folder: &Path) -> Result<()> {
    let listed = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(|error| Error::io(folder, "read the folder", error))?,
    };
    let mut others = false;
    for entry in listed {
        let entry = entry.map_err(|error| Error::io(folder, "read the folder", error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let network = name.strip_suffix(".part").unwrap_or(&name).strip_suffix(".penjing");
        let turn = network.and_then(|network| network.split_once('-'));
        let is_turn = turn.is_some_and(|turn| [turn.0, turn.1].iter().all(|at| at.parse::<usize>().is_ok()));
        // What was being written when the process ended.
        let torn = name.starts_with(".penjing-") && name.ends_with(".tmp");
        let own = name == STATE || is_turn || torn;
        if own {
            checkpoint::remove(&entry.path())?;
        }
        others |= !own;
    }
    if others {
        return Ok(());
    }
    std::fs::remove_dir(folder).map_err(|error| Error::io(folder, "remove", error))
}

/// What makes two searches differ.
///
/// # Errors
/// [`Error::Interrupted`]; [`Error::Unsupported`] for a model that cannot be written.
pub(super) fn identity(ground: &Ground, data: &Dataset, options: &Options) -> Result<Identity> {
    let mut models = blake3::Hasher::new();
    for start in ground.starts {
        models.update(&start.to_bytes().map_err(unsupported)?);
    }
    let parts = [Part::Train, Part::Val].map(|part| data.part(part).map(|(_, sample)| sample));
    let samples: Vec<&Sample> = parts.into_iter().flatten().collect();
    let mut photos = blake3::Hasher::new();
    for (hash, sample) in
        split::content_hashes(&samples, ground.threads, ground.progress)?.iter().zip(&samples)
    {
        let class = &data.classes[sample.class];
        photos.update(format!("{:?} {class:?} ", sample.part).as_bytes()).update(hash);
    }
    let parts = [
        ("the models", models.finalize().to_hex().to_string()),
        ("the photos", photos.finalize().to_hex().to_string()),
        ("--budget", serde_json::to_string(&(&options.budget, options.latency_share)).unwrap_or_default()),
        ("--time", options.time.as_secs().to_string()),
        ("--photos", options.photos.to_string()),
        ("--seed", options.seed.to_string()),
        ("--cost", ground.clock.identity()),
        ("the version of penjing", env!("CARGO_PKG_VERSION").into()),
    ];
    Ok(Identity { parts: parts.into_iter().map(|(name, value)| (name.to_string(), value)).collect() })
}
