//! `cargo xtask evidence prune`: accuracy on test photos and time before and after half of the arithmetic went.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Run,
    models::{Bench, Cell, Which},
};

const MATRIX: &str = "prune";

/// The default first; what is drawn is the yardstick.
const CRITERIA: [&str; 7] = ["surgeon", "l1", "l2", "scale", "taylor", "distance", "random"];

/// One run.
struct Pruned {
    cell: Cell,
    criterion: &'static str,
    /// How often the photos are seen afterwards; `None`: as often as by default.
    epochs: Option<u32>,
}

impl Pruned {
    /// Every network by default, and one network by every criterion, fitted only.
    fn all() -> Vec<Pruned> {
        let by_default = |cell| Pruned { cell, criterion: CRITERIA[0], epochs: None };
        let mut runs: Vec<Pruned> = Cell::all().into_iter().map(by_default).collect();
        let first = Cell::all().into_iter().filter(|cell| cell.set.name == "flowers12" && cell.seed == 0);
        for cell in first {
            runs.extend(CRITERIA.map(|criterion| Pruned { cell, criterion, epochs: Some(0) }));
        }
        runs
    }
}

impl Run for Pruned {
    /// `SET/BACKBONE-seedN`, and `-CRITERION-N` where something is not by default.
    fn name(&self) -> String {
        let how = self.epochs.map_or(String::new(), |epochs| format!("-{}-{epochs}", self.criterion));
        self.cell.name() + &how
    }
}

pub fn run(which: &Which) -> Result<()> {
    if !which.table {
        let said = |measured: &Value| {
            let figure = |key: &str| 100.0 * measured[key].as_f64().unwrap_or_default();
            format!("test top-1 {:.2} % -> {:.2} %", figure("before"), figure("after"))
        };
        Bench::measure(MATRIX, Pruned::all(), which, |run| run.cell, one, said)?;
        println!();
    }
    let runs = super::read_all(&super::folder(MATRIX))?;
    print!("{}\n{}", table(&runs)?, criteria(&runs)?);
    Ok(())
}

fn one(bench: &Bench, run: &Pruned) -> Result<Value> {
    let cell = &run.cell;
    let (whole, recipe) = bench.model(cell)?;
    let small = bench.scratch.join(format!("prune-{}.penjing", run.name().replace('/', "-")));
    let epochs = run.epochs.map(|epochs| epochs.to_string());
    let mut flags = vec!["--prune", "0.5", "--floats", "--criterion", run.criterion];
    flags.extend(epochs.iter().flat_map(|epochs| ["--prune-epochs", epochs]));
    let compress = bench.compress(cell, &whole, &small, &flags)?;
    let (before, after) = (bench.eval(cell, &whole)?, bench.eval(cell, &small)?);
    Ok(json!({
        "set": cell.set.name,
        "backbone": cell.backbone,
        "seed": cell.seed,
        "criterion": run.criterion,
        "epochs": run.epochs,
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

/// A row for each network by default, and what the drop is over all of them.
fn table(runs: &[Value]) -> Result<String> {
    let mut text = "| photos | backbone | seed | whole | half | drop, points | of | latency | file | epochs | seconds | commit |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_string();
    let (mut lost, mut photos) = (0.0, 0.0);
    for run in runs.iter().filter(|run| run["epochs"].is_null()) {
        let of = |value: &Value| number(run, value);
        let (before, after, n) = (of(&run["before"])?, of(&run["after"])?, of(&run["n"])?);
        lost += (before - after) * n;
        photos += n;
        let (verdict, prune) = (&run["compress"]["verdict"], &run["compress"]["prune"]);
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
            of(&prune["epochs"])?,
            of(&prune["seconds"])?,
            word(&run["machine"]["commit"]),
        );
    }
    if photos > 0.0 {
        text += &format!("\nOver all {photos} photos: a drop of {:.2} points.\n", 100.0 * lost / photos);
    }
    Ok(text)
}

/// What each criterion leaves before anything is learnt.
fn criteria(runs: &[Value]) -> Result<String> {
    let mut text = "| photos | backbone | criterion | divergence | test top-1, nothing learnt |\n|---|---|---|---|---|\n".to_string();
    for run in runs.iter().filter(|run| !run["epochs"].is_null()) {
        text += &format!(
            "| {} | {} | {} | {:.1e} | {:.2} % |\n",
            word(&run["set"]),
            word(&run["backbone"]),
            word(&run["criterion"]),
            number(run, &run["compress"]["prune"]["start"]["divergence"])?,
            100.0 * number(run, &run["after"])?,
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_by_default_are_rows_and_so_are_criteria() {
        let run = |epochs: Value, after: f64| {
            json!({
                "set": "flowers12", "backbone": "mobilenet_v2", "seed": 1, "criterion": "l2", "epochs": epochs, "n": 200,
                "before": 0.98, "after": after,
                "compress": {
                    "prune": {"epochs": 7.0, "seconds": 90.2, "start": {"divergence": 0.25}},
                    "verdict": {"before": {"file_bytes": 1000}, "after": {"file_bytes": 400}, "latency_ratio": 0.5},
                },
                "machine": {"commit": "abc1234"},
            })
        };
        let runs = [run(Value::Null, 0.97), run(json!(0), 0.5)];
        let text = table(&runs).unwrap();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows[0],
            "| flowers12 | mobilenet_v2 | 1 | 98.00 % | 97.00 % | 1.00 | 200 | × 0.50 | × 0.40 | 7 | 90 | abc1234 |"
        );
        assert_eq!(rows[2], "Over all 200 photos: a drop of 1.00 points.");
        let text = criteria(&runs).unwrap();
        assert_eq!(text.lines().last(), Some("| flowers12 | mobilenet_v2 | l2 | 2.5e-1 | 50.00 % |"));
        let names: Vec<String> = Pruned::all().iter().map(Run::name).collect();
        assert_eq!((names.len(), names[0].as_str()), (14 + 14, "flowers12/efficientnet_lite0-seed0"));
        assert!(names.contains(&"flowers12/mobilenet_v2-seed0-random-0".into()));
    }
}
