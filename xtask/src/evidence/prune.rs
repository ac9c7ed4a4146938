//! `cargo xtask evidence prune`: accuracy on test photos and time before and after half of the arithmetic went.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Run,
    models::{Args, Bench, Cell},
};

const MATRIX: &str = "prune";

/// The default first; what is drawn is the yardstick.
const CRITERIA: [&str; 7] = ["surgeon", "l1", "l2", "scale", "taylor", "distance", "random"];

/// One run.
struct Pruned {
    cell: Cell,
    how: How,
}

/// What goes.
enum How {
    /// Half of the arithmetic, by default.
    Half,
    /// Half of the arithmetic, nothing learnt: what a criterion is worth, what stays fitted or as it was.
    By { criterion: &'static str, seed: &'static str, fitted: bool },
    /// Four of five weights of the 1×1 convolutions.
    Sparse,
}

impl Pruned {
    /// Every network by default, one network by every criterion, and every network with zeros.
    fn all() -> Vec<Pruned> {
        let mut runs: Vec<Pruned> =
            Cell::all().into_iter().map(|cell| Pruned { cell, how: How::Half }).collect();
        let first = Cell::all().into_iter().filter(|cell| cell.set.name == "flowers12" && cell.seed == 0);
        for cell in first {
            for fitted in [true, false] {
                let by = |criterion, seed| Pruned { cell, how: How::By { criterion, seed, fitted } };
                runs.extend(CRITERIA.map(|criterion| by(criterion, "0")));
                // Dice are thrown three times.
                runs.extend(["1", "2"].map(|seed| by("random", seed)));
            }
        }
        runs.extend(Cell::all().into_iter().map(|cell| Pruned { cell, how: How::Sparse }));
        runs
    }

    fn flags(&self) -> Vec<&'static str> {
        match self.how {
            How::Half => vec!["--prune", "0.5", "--floats"],
            How::By { criterion, seed, fitted } => {
                let mut flags = vec!["--prune", "0.5", "--floats", "--prune-epochs", "0"];
                flags.extend(["--criterion", criterion, "--seed", seed]);
                flags.extend((!fitted).then_some("--no-fit"));
                flags
            }
            How::Sparse => vec!["--sparsify", "0.8"],
        }
    }
}

impl Run for Pruned {
    /// `SET/BACKBONE-seedN`, and what is not by default.
    fn name(&self) -> String {
        let how = match self.how {
            How::Half => String::new(),
            How::By { criterion, seed, fitted } => {
                format!("-{criterion}-{seed}{}", if fitted { "" } else { "-cut" })
            }
            How::Sparse => "-sparse".into(),
        };
        self.cell.name() + &how
    }
}

pub fn run(args: &Args) -> Result<()> {
    if !args.which.table {
        let said = |measured: &Value| {
            let figure = |key: &str| 100.0 * measured[key].as_f64().unwrap_or_default();
            format!("test top-1 {:.2} % -> {:.2} %", figure("before"), figure("after"))
        };
        Bench::measure(MATRIX, Pruned::all(), args, |run| run.cell, one, said)?;
        println!();
    }
    let runs = super::read_all(&super::folder(MATRIX))?;
    let half = table(&runs, "prune", |run| run["epochs"].is_null())?;
    let sparse = table(&runs, "sparsify", |_| true)?;
    print!("{half}\n{}\n{sparse}", criteria(&runs)?);
    Ok(())
}

fn one(bench: &Bench, run: &Pruned) -> Result<Value> {
    let cell = &run.cell;
    let (whole, recipe) = bench.model(cell)?;
    let small = bench.scratch.join(format!("prune-{}.penjing", run.name().replace('/', "-")));
    let compress = bench.compress(cell, &whole, &small, &run.flags())?;
    let (before, after) = (bench.eval(cell, &whole)?, bench.eval(cell, &small)?);
    let (criterion, epochs) = match run.how {
        How::Half => (Some(CRITERIA[0]), None),
        How::By { criterion, .. } => (Some(criterion), Some(0)),
        How::Sparse => (None, None),
    };
    Ok(json!({
        "set": cell.set.name,
        "backbone": cell.backbone,
        "seed": cell.seed,
        "criterion": criterion,
        "epochs": epochs,
        "n": before["n"],
        "before": before["top1"],
        "after": after["top1"],
        "recipe": recipe,
        "compress": compress,
    }))
}

fn number(run: &Value, value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("a figure is missing: {run}"))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A row for each of some networks, and what the drop is over all of them; `stage` has done it.
fn table(runs: &[Value], stage: &str, some: impl Fn(&Value) -> bool) -> Result<String> {
    let mut text = "| photos | backbone | seed | whole | less | drop, points | of | latency | file | epochs | seconds | commit |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_string();
    let (mut lost, mut photos) = (0.0, 0.0);
    for run in runs.iter().filter(|run| some(run) && !run["compress"][stage].is_null()) {
        let of = |value: &Value| number(run, value);
        let (before, after, n) = (of(&run["before"])?, of(&run["after"])?, of(&run["n"])?);
        lost += (before - after) * n;
        photos += n;
        let (verdict, stage) = (&run["compress"]["verdict"], &run["compress"][stage]);
        let file = of(&verdict["after"]["file_bytes"])? / of(&verdict["before"]["file_bytes"])?;
        text += &format!(
            "| {} | {} | {} | {:.2} % | {:.2} % | {:.2} | {n} | × {:.2} | × {file:.2} | {} | {:.0} | {} |\n",
            word(&run["set"]),
            word(&run["backbone"]),
            run["seed"],
            100.0 * before,
            100.0 * after,
            100.0 * (before - after),
            of(&verdict["latency_ratio"])?,
            of(&stage["epochs"])?,
            of(&stage["seconds"])?,
            word(&run["machine"]["commit"]),
        );
    }
    if photos > 0.0 {
        text += &format!("\nOver all {photos} photos: a drop of {:.2} points.\n", 100.0 * lost / photos);
    }
    Ok(text)
}

/// What each criterion leaves before anything is learnt, the nearest first: one row for all throws of the dice.
fn criteria(runs: &[Value]) -> Result<String> {
    let mut rows: BTreeMap<[&str; 4], Vec<[f64; 2]>> = BTreeMap::new();
    for run in runs.iter().filter(|run| !run["epochs"].is_null()) {
        let pruned = &run["compress"]["prune"];
        // Until it could be left out, all were fitted.
        let layers = if pruned["fitted"] == false { "as they were" } else { "fitted" };
        let figures = [number(run, &pruned["start"]["error"])?, 100.0 * number(run, &run["after"])?];
        let key = [word(&run["set"]), word(&run["backbone"]), layers, word(&run["criterion"])];
        rows.entry(key).or_default().push(figures);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    let error =
        |figures: &[[f64; 2]]| figures.iter().map(|[error, _]| error).sum::<f64>() / figures.len() as f64;
    rows.sort_by(|(a, of_a), (b, of_b)| a[..3].cmp(&b[..3]).then(error(of_a).total_cmp(&error(of_b))));
    let mut text =
        "| photos | backbone | layers | criterion | error of the logits | test top-1, nothing learnt |\n\
                    |---|---|---|---|---|---|\n"
            .to_string();
    for ([set, backbone, layers, criterion], figures) in rows {
        let errors: Vec<String> = figures.iter().map(|[error, _]| format!("{error:.3}")).collect();
        let shares: Vec<String> = figures.iter().map(|[_, top1]| format!("{top1:.2} %")).collect();
        text += &format!(
            "| {set} | {backbone} | {layers} | {criterion} | {} | {} |\n",
            errors.join(" "),
            shares.join(" ")
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_by_default_are_rows_and_so_are_criteria() {
        let run = |epochs: Value, stage: &str, after: f64| {
            json!({
                "set": "flowers12", "backbone": "mobilenet_v2", "seed": 1, "criterion": "l2", "epochs": epochs, "n": 200,
                "before": 0.98, "after": after,
                "compress": {
                    stage: {"epochs": 7.0, "seconds": 90.2, "start": {"error": 0.25}},
                    "verdict": {"before": {"file_bytes": 1000}, "after": {"file_bytes": 400}, "latency_ratio": 0.5},
                },
                "machine": {"commit": "abc1234"},
            })
        };
        let none = Value::Null;
        let runs =
            [run(none.clone(), "prune", 0.97), run(json!(0), "prune", 0.5), run(none, "sparsify", 0.96)];
        let text = table(&runs, "prune", |run| run["epochs"].is_null()).unwrap();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows[0],
            "| flowers12 | mobilenet_v2 | 1 | 98.00 % | 97.00 % | 1.00 | 200 | × 0.50 | × 0.40 | 7 | 90 | abc1234 |"
        );
        assert_eq!(rows[2], "Over all 200 photos: a drop of 1.00 points.");
        let text = table(&runs, "sparsify", |_| true).unwrap();
        assert_eq!(text.lines().last(), Some("Over all 200 photos: a drop of 2.00 points."));
        let text = criteria(&runs).unwrap();
        assert_eq!(text.lines().last(), Some("| flowers12 | mobilenet_v2 | fitted | l2 | 0.250 | 50.00 % |"));
        // Dice that were thrown twice are one row, behind what is nearer, and what was not fitted stands apart.
        let by = |criterion: &str, fitted: bool, error: f64| {
            let mut run = run(json!(0), "prune", error);
            (run["criterion"], run["compress"]["prune"]["fitted"]) = (json!(criterion), json!(fitted));
            run["compress"]["prune"]["start"]["error"] = json!(error);
            run
        };
        let text = criteria(&[
            by("random", true, 0.5),
            by("random", true, 0.25),
            by("scale", true, 0.3),
            by("l1", false, 0.9),
        ]);
        let rows: Vec<String> = text.unwrap().lines().skip(2).map(str::to_string).collect();
        assert_eq!(
            rows,
            [
                "| flowers12 | mobilenet_v2 | as they were | l1 | 0.900 | 90.00 % |",
                "| flowers12 | mobilenet_v2 | fitted | scale | 0.300 | 30.00 % |",
                "| flowers12 | mobilenet_v2 | fitted | random | 0.500 0.250 | 50.00 % 25.00 % |",
            ]
        );
        let names: Vec<String> = Pruned::all().iter().map(Run::name).collect();
        assert_eq!(
            (names.len(), names[0].as_str()),
            (14 + 2 * 2 * 9 + 14, "flowers12/efficientnet_lite0-seed0")
        );
        assert!(names.contains(&"flowers12/mobilenet_v2-seed0-random-0".into()));
        assert!(names.contains(&"gtsrb43/mobilenet_v2-seed0-sparse".into()));
    }
}
