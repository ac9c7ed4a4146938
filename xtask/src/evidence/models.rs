//! The networks that compression is measured on: fine-tuned by `penjing train`, each made once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Run, Which};
use crate::{demo, process};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) which: Which,
    /// MobileNetV2 with ImageNet weights, from `penjing weights import`; without it its runs are left out
    #[arg(long, value_name = "MODEL")]
    mobilenet_v2: Option<PathBuf>,
}

/// A data set, how often it is learnt from, and what penjing is told about it.
pub struct Set {
    pub name: &'static str,
    seeds: u64,
    flags: &'static [&'static str],
}

const SETS: &[Set] = &[
    Set { name: "flowers12", seeds: 3, flags: &[] },
    Set { name: "hymenoptera", seeds: 3, flags: &[] },
    // Five frames of each sign.
    Set { name: "gtsrb43", seeds: 1, flags: &["--group-by", r"^[^/]+/\d+_\d+"] },
];

const BACKBONES: [&str; 2] = ["efficientnet_lite0", "mobilenet_v2"];

/// One network.
#[derive(Clone, Copy)]
pub struct Cell {
    pub set: &'static Set,
    pub backbone: &'static str,
    pub seed: u64,
}

impl Cell {
    /// All of them, set after set.
    pub fn all() -> Vec<Cell> {
        let of = |set: &'static Set| {
            BACKBONES
                .into_iter()
                .flat_map(move |backbone| (0..set.seeds).map(move |seed| Cell { set, backbone, seed }))
        };
        SETS.iter().flat_map(of).collect()
    }
}

impl Run for Cell {
    /// `SET/BACKBONE-seedN`.
    fn name(&self) -> String {
        format!("{}/{}-seed{}", self.set.name, self.backbone, self.seed)
    }
}

/// What all runs use.
pub struct Bench {
    pub penjing: PathBuf,
    /// Where models are written.
    pub scratch: PathBuf,
    shared: PathBuf,
    mobilenet_v2: Option<PathBuf>,
}

impl Bench {
    /// Measures those runs of a matrix that are asked for and not kept yet; `cell` says of which network a run is, and
    /// `one` what it gives. Keeps that with the machine, and prints what `said` makes of it.
    pub fn measure<R: Run>(
        matrix: &str,
        runs: Vec<R>,
        args: &Args,
        cell: impl Fn(&R) -> Cell,
        one: impl Fn(&Bench, &R) -> Result<Value>,
        said: impl Fn(&Value) -> String,
    ) -> Result<()> {
        let mut runs = args.which.left(matrix, runs, false)?;
        let is_mobile = |run: &R| cell(run).backbone == "mobilenet_v2";
        if args.mobilenet_v2.is_none() && runs.iter().any(is_mobile) {
            println!("MobileNetV2's runs are left out: they need --mobilenet-v2");
            runs.retain(|run| !is_mobile(run));
        }
        let bench = Bench {
            penjing: demo::build_penjing()?,
            scratch: process::root().join("target/evidence"),
            shared: super::shared(),
            mobilenet_v2: args.mobilenet_v2.clone(),
        };
        std::fs::create_dir_all(&bench.scratch)?;
        let machine = super::machine()?;
        super::each(&runs, |run| {
            let mut measured = one(&bench, run)?;
            measured["machine"] = machine.clone();
            super::write(&super::path(matrix, run), &measured)?;
            Ok(said(&measured))
        })
    }

    /// Where a set's photos are.
    pub fn data(&self, set: &Set) -> Result<PathBuf> {
        super::data(set.name)
    }

    /// The network and the recipe that made it, trained if it has not been.
    pub fn model(&self, cell: &Cell) -> Result<(PathBuf, Value)> {
        let model = self.scratch.join(format!("tuned-{}.penjing", cell.name().replace('/', "-")));
        let known = model.with_extension("json");
        if !(model.is_file() && known.is_file()) {
            println!("   the network first");
            let mut train = Command::new(&self.penjing);
            train.arg("train").arg(self.data(cell.set)?.join("train")).arg("-o").arg(&model).arg("--force");
            train.args(cell.set.flags).args(["--seed", &cell.seed.to_string()]);
            if let Some(backbone) = self.mobilenet_v2.as_ref().filter(|_| cell.backbone == "mobilenet_v2") {
                train.arg("--backbone").arg(backbone);
            }
            let train = json_of(&mut train)?;
            super::write(&known, &json!({ "recipe": train["recipe"] }))?;
        }
        let text = std::fs::read(&known).with_context(|| format!("cannot read {}", known.display()))?;
        let known: Value = serde_json::from_slice(&text).with_context(|| format!("{}", known.display()))?;
        Ok((model, known["recipe"].clone()))
    }

    /// `penjing compress` of a network by its own set's training photos, whatever it costs.
    pub fn compress(&self, cell: &Cell, model: &Path, small: &Path, flags: &[&str]) -> Result<Value> {
        let mut compress = Command::new(&self.penjing);
        let photos = self.data(cell.set)?.join("train");
        compress.arg("compress").arg(model).arg(photos).arg("-o").arg(small).arg("--force").args(flags);
        // How fast 8 bits are is measured elsewhere, on a machine that does nothing else.
        let report = json_of(compress.args(["--max-latency", "100", "--max-drop", "100"]))?;
        Ok(super::without_paths(report, &[&self.shared, &process::root()]).unwrap_or_default())
    }

    /// `penjing eval` on a set's test photos.
    pub fn eval(&self, cell: &Cell, model: &Path) -> Result<Value> {
        json_of(Command::new(&self.penjing).arg("eval").arg(model).arg(self.data(cell.set)?.join("test")))
    }
}

/// What a command of penjing's reports.
pub fn json_of(command: &mut Command) -> Result<Value> {
    Ok(serde_json::from_str(&process::output(command.arg("--json"))?)?)
}
