//! `cargo xtask evidence int8`: accuracy on test photos before and after `penjing compress`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Run,
    models::{Args, Bench, Cell},
};

const MATRIX: &str = "int8";

pub fn run(args: &Args) -> Result<()> {
    if !args.which.table {
        let said = |measured: &Value| {
            let figure = |key: &str| 100.0 * measured[key].as_f64().unwrap_or_default();
            format!("test top-1 {:.2} % -> {:.2} %", figure("before"), figure("after"))
        };
        Bench::measure(MATRIX, Cell::all(), args, |cell| *cell, one, said)?;
        println!();
    }
    print!("{}", table(&super::read_all(&super::folder(MATRIX))?)?);
    Ok(())
}

/// Compresses, and judges both on the test photos.
fn one(bench: &Bench, cell: &Cell) -> Result<Value> {
    let (floats, recipe) = bench.model(cell)?;
    let small = bench.scratch.join(format!("int8-{}.penjing", cell.name().replace('/', "-")));
    let compress = bench.compress(cell, &floats, &small, &["--layers"])?;
    let (before, after) = (bench.eval(cell, &floats)?, bench.eval(cell, &small)?);
    Ok(json!({
        "set": cell.set.name,
        "backbone": cell.backbone,
        "seed": cell.seed,
        "n": before["n"],
        "before": before["top1"],
        "after": after["top1"],
        "recipe": recipe,
        "compress": compress,
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
