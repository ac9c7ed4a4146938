//! What the ways of `penjing compress` keep beside the output.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use penjing::{
    compress::{budget, prune},
    train::checkpoint,
};

use super::MOST_STEPS;
use crate::commands::spare;

/// Where the ways of making a network smaller keep their states, beside the output.
pub struct States {
    /// Of learning to compute with integers.
    pub learning: PathBuf,
    /// Of learning after pruning; a step's name is made of it.
    pub pruned: PathBuf,
    /// Of learning with zeros.
    pub sparse: PathBuf,
    /// The folder of a search within a budget.
    pub search: PathBuf,
}

impl States {
    pub fn beside(output: &Path) -> States {
        let beside = |suffix| checkpoint::path_for(&with_suffix(output, suffix));
        States {
            learning: beside(""),
            pruned: beside(".pruned"),
            sparse: beside(".sparse"),
            search: with_suffix(output, ".search"),
        }
    }

    /// Those of pruning, however many steps it had.
    fn of_pruning(&self) -> Vec<PathBuf> {
        prune::parts(&self.pruned, MOST_STEPS)
    }

    /// Fails where one lies that the work does not go on from, unless that is to be thrown away.
    pub fn spare_others(&self, own: &[PathBuf], force: bool) -> penjing::Result<()> {
        let pruning = self.of_pruning().into_iter().map(|part| (part, "training after pruning"));
        let others = [
            (self.learning.clone(), "training"),
            (self.sparse.clone(), "training with zeros"),
            (budget::state_path(&self.search), "search within a budget"),
        ];
        let mut others = pruning.chain(others).filter(|(part, _)| !own.contains(part));
        others.try_for_each(|(part, work)| spare(&part, force, work))
    }

    /// Removes all but that of learning to compute with integers, which may be of other work.
    pub fn remove_others(&self) -> penjing::Result<()> {
        let parts = self.of_pruning();
        parts.iter().chain([&self.sparse]).try_for_each(|part| checkpoint::remove(part))?;
        match budget::state_path(&self.search).is_file() {
            true => budget::remove(&self.search),
            false => Ok(()),
        }
    }
}

/// The states that a command goes on from, and when they were written before it began.
pub struct Stand(Vec<(PathBuf, Option<SystemTime>)>);

impl Stand {
    pub fn of(states: Vec<PathBuf>) -> Stand {
        Stand(states.into_iter().map(|path| (path.clone(), written(&path))).collect())
    }

    /// Those that lie there.
    pub fn kept(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().map(|(path, _)| path).filter(|path| path.is_file())
    }

    /// The last one that has been written since; one that was there before may be of other work.
    pub fn last_kept(&self) -> Option<&Path> {
        let new = |(path, before): &&(PathBuf, _)| path.is_file() && written(path) != *before;
        self.0.iter().rfind(new).map(|(path, _)| path.as_path())
    }
}

fn written(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
