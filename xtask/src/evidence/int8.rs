//! `cargo xtask evidence int8`: accuracy on test photos before and after `penjing compress`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Run;
use crate::{demo, process};

const MATRIX: &str = "int8";

#[derive(clap::Args)]
pub struct Args {
    /// Only runs whose name begins so, such as flowers12 or flowers12/mobilenet_v2-seed0
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Run again what has been measured
    #[arg(long)]
    again: bool,
    /// Run nothing, print the table
    #[arg(long, conflicts_with_all = ["only", "again", "mobilenet_v2"])]
    table: bool,
    /// MobileNetV2 with ImageNet weights, from `penjing weights import`; without it its runs are left out
    #[arg(long, value_name = "MODEL")]
    mobilenet_v2: Option<PathBuf>,
}

/// A data set, how often it is learnt from, and what penjing is told about it.
struct Set {
    name: &'static str,
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

struct Cell {
    set: &'static Set,
    backbone: &'static str,
    seed: u64,
}

impl Cell {
    fn all() -> Vec<Cell> {
        let of = |set: &'static Set| {
            BACKBONES
                .into_iter()
                .flat_map(move |backbone| (0..set.seeds).map(move |seed| Cell { set, backbone, seed }))
        };
        SETS.iter().flat_map(of).collect()
    }
}

impl Run for Cell {
    fn name(&self) -> String {
        format!("{}/{}-seed{}", self.set.name, self.backbone, self.seed)
    }
}

pub fn run(args: &Args) -> Result<()> {
    if !args.table {
        measure(args)?;
        println!();
    }
    print!("{}", table(&super::read_all(&super::folder(MATRIX))?)?);
    Ok(())
}

fn measure(args: &Args) -> Result<()> {
    let mut cells = super::selected(Cell::all(), &args.only)?;
    if args.mobilenet_v2.is_none() && cells.iter().any(|cell| cell.backbone == "mobilenet_v2") {
        println!("MobileNetV2's runs are left out: they need --mobilenet-v2");
        cells.retain(|cell| cell.backbone != "mobilenet_v2");
    }
    cells.retain(|cell| args.again || !super::path(MATRIX, cell).exists());
    let penjing = demo::build_penjing()?;
    let scratch = process::root().join("target/evidence");
    std::fs::create_dir_all(&scratch)?;
    let machine = super::machine()?;
    super::each(&cells, |cell| {
        let backbone = args.mobilenet_v2.as_deref().filter(|_| cell.backbone == "mobilenet_v2");
        let mut measured = one(cell, &penjing, backbone, &scratch)?;
        measured["machine"] = machine.clone();
        super::write(&super::path(MATRIX, cell), &measured)?;
        let figure = |key: &str| 100.0 * measured[key].as_f64().unwrap_or_default();
        Ok(format!("test top-1 {:.2} % -> {:.2} %", figure("before"), figure("after")))
    })
}

/// Trains, compresses, and judges both on the test photos. The floats' model stays for other measurements.
fn one(cell: &Cell, penjing: &Path, backbone: Option<&Path>, scratch: &Path) -> Result<Value> {
    let shared = super::shared();
    let data = shared.join("data").join(cell.set.name);
    if !data.is_dir() {
        bail!("no {}: set PENJING_SHARED to the folder that holds data/", data.display());
    }
    let stem = format!("int8-{}", cell.name().replace('/', "-"));
    let [floats, small] =
        [format!("{stem}.penjing"), format!("{stem}-8.penjing")].map(|name| scratch.join(name));
    let json_of = |command: &mut Command| -> Result<Value> {
        Ok(serde_json::from_str(&process::output(command.arg("--json"))?)?)
    };
    let mut train = Command::new(penjing);
    train.arg("train").arg(data.join("train")).arg("-o").arg(&floats).arg("--force").args(cell.set.flags);
    train.args(["--seed", &cell.seed.to_string()]);
    if let Some(backbone) = backbone {
        train.arg("--backbone").arg(backbone);
    }
    let train = json_of(&mut train)?;
    let mut compress = Command::new(penjing);
    compress
        .arg("compress")
        .arg(&floats)
        .arg(data.join("train"))
        .arg("-o")
        .arg(&small)
        .args(["--force", "--layers"]);
    // How fast it is is measured elsewhere, on a machine that does nothing else.
    compress.args(["--max-latency", "100", "--max-drop", "100"]);
    let compress = json_of(&mut compress)?;
    let eval = |model: &Path| json_of(Command::new(penjing).arg("eval").arg(model).arg(data.join("test")));
    let (before, after) = (eval(&floats)?, eval(&small)?);
    let root = process::root();
    Ok(json!({
        "set": cell.set.name,
        "backbone": cell.backbone,
        "seed": cell.seed,
        "n": before["n"],
        "before": before["top1"],
        "after": after["top1"],
        "recipe": train["recipe"],
        "compress": super::without_paths(compress, &[&shared, &root]),
    }))
}

/// A row a run, and what the drop is over all of them.
fn table(cells: &[Value]) -> Result<String> {
    let mut text = "| photos | backbone | seed | floats | 8 bits | drop, points | of | file | ranges | floats kept | commit |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_string();
    let (mut lost, mut photos) = (0.0, 0.0);
    for cell in cells {
        let number = |value: &Value| value.as_f64().with_context(|| format!("a figure is missing: {cell}"));
        let (before, after, n) = (number(&cell["before"])?, number(&cell["after"])?, number(&cell["n"])?);
        lost += (before - after) * n;
        photos += n;
        let verdict = &cell["compress"]["verdict"];
        let file = number(&verdict["after"]["file_bytes"])? / number(&verdict["before"]["file_bytes"])?;
        let kept = cell["compress"]["floats"].as_array().map_or(0, Vec::len);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
        text += &format!(
            "| {} | {} | {} | {:.2} % | {:.2} % | {:.2} | {n} | × {file:.3} | {} | {kept} | {} |\n",
            word(&cell["set"]),
            word(&cell["backbone"]),
            cell["seed"],
            100.0 * before,
            100.0 * after,
            100.0 * (before - after),
            word(&cell["compress"]["ranging"]),
            word(&cell["machine"]["commit"]),
        );
    }
    if photos > 0.0 {
        text += &format!("\nOver all {photos} photos: a drop of {:.2} points.\n", 100.0 * lost / photos);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_is_pooled_over_photos() {
        let cell = |before: f64, after: f64, n: u64| {
            json!({
                "set": "flowers12", "backbone": "mobilenet_v2", "seed": 1, "n": n, "before": before, "after": after,
                "compress": {
                    "ranging": "mse", "floats": ["stem"],
                    "verdict": {"before": {"file_bytes": 1000}, "after": {"file_bytes": 262}},
                },
                "machine": {"commit": "abc1234"},
            })
        };
        let text = table(&[cell(0.98, 0.97, 100), cell(0.9, 0.9, 300)]).unwrap();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows[0],
            "| flowers12 | mobilenet_v2 | 1 | 98.00 % | 97.00 % | 1.00 | 100 | × 0.262 | mse | 1 | abc1234 |"
        );
        assert_eq!(rows[3], "Over all 400 photos: a drop of 0.25 points.");
        assert!(table(&[json!({"set": "flowers12"})]).is_err());
        assert_eq!(Cell::all().len(), 14);
    }
}
