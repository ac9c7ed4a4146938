//! `cargo xtask evidence distil`: small networks from random weights, alone and under a teacher, on test photos.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Run, Which};
use crate::{demo, process};

const MATRIX: &str = "distil";

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// So many epochs, of the teacher too, and nothing is kept: a trial
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
}

/// Photos, and how they are learnt from.
struct Set {
    name: &'static str,
    /// Whether they are in the repository.
    embedded: bool,
    /// Input size of teacher and students.
    size: u32,
    /// Epochs of the students.
    epochs: u32,
    /// What penjing is told about the photos.
    flags: &'static [&'static str],
}

const SETS: &[Set] = &[
    Set { name: "example", embedded: true, size: 64, epochs: 40, flags: &[] },
    Set { name: "flowers12", embedded: false, size: 96, epochs: 60, flags: &[] },
    // Five frames of each sign.
    Set { name: "gtsrb43", embedded: false, size: 64, epochs: 20, flags: &["--group-by", r"^[^/]+/\d+_\d+"] },
];

const STUDENTS: [&str; 2] = ["mobilenet_v2_x0.35", "mobilenet_v2_x0.5"];

/// The first is what the others are compared with.
const WAYS: [&str; 5] = ["plain", "kd", "dkd", "hints", "auto"];

const SEEDS: u64 = 3;

/// One run.
struct Cell {
    set: &'static Set,
    student: &'static str,
    way: &'static str,
    seed: u64,
}

impl Cell {
    /// The whole matrix, set after set.
    fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for set in SETS {
            for student in STUDENTS {
                for way in WAYS {
                    cells.extend((0..SEEDS).map(|seed| Cell { set, student, way, seed }));
                }
            }
        }
        cells
    }
}

impl Run for Cell {
    /// `SET/STUDENT-WAY-seedN`.
    fn name(&self) -> String {
        format!("{}/{}-{}-seed{}", self.set.name, self.student, self.way, self.seed)
    }
}

/// What all runs use.
struct Bench {
    penjing: PathBuf,
    /// Where photos and models are written.
    scratch: PathBuf,
    shared: PathBuf,
    machine: Value,
    /// Of a trial.
    epochs: Option<u32>,
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
    let cells = args.which.left(MATRIX, Cell::all(), args.epochs.is_some())?;
    let bench = Bench {
        penjing: demo::build_penjing()?,
        scratch: process::root().join("target/evidence"),
        shared: super::shared(),
        machine: super::machine()?,
        epochs: args.epochs,
    };
    std::fs::create_dir_all(&bench.scratch)?;
    super::each(&cells, |cell| {
        let measured = bench.cell(cell)?;
        if args.epochs.is_none() {
            super::write(&super::path(MATRIX, cell), &measured)?;
        }
        let figure = |key: &str| measured[key].as_f64().unwrap_or_default();
        Ok(format!("test top-1 {:.2} %, {:.1} s", 100.0 * figure("test_top1"), figure("seconds")))
    })
}

impl Bench {
    fn cell(&self, cell: &Cell) -> Result<Value> {
        let data = self.data(cell.set)?;
        let (teacher, taught_by) = self.teacher(cell.set, &data)?;
        let epochs = self.epochs.unwrap_or(cell.set.epochs).to_string();
        let size = cell.set.size.to_string();
        let mut flags = vec!["--recipe", "scratch", "--backbone", cell.student, "--epochs", &epochs];
        flags.extend(["--size", &size]);
        let teacher = teacher.to_string_lossy();
        if cell.way != WAYS[0] {
            flags.extend(["--teacher", &teacher, "--distill", cell.way]);
        }
        let model = self.scratch.join(format!("distil-{}.penjing", cell.name().replace('/', "-")));
        let train = self.train(cell.set, &data, &model, cell.seed, &flags)?;
        let right = self.right(&model, &data)?;
        std::fs::remove_file(&model).with_context(|| format!("cannot remove {}", model.display()))?;
        let root = process::root();
        Ok(json!({
            "set": cell.set.name,
            "student": cell.student,
            "way": cell.way,
            "seed": cell.seed,
            "teacher": taught_by,
            "val_top1": train["val_top1"],
            "test_top1": share(&right),
            "n": right.len(),
            "right": right,
            "seconds": train["seconds"],
            "train": super::without_paths(train, &[&self.shared, &root]),
            "machine": self.machine,
        }))
    }

    /// Where a set's photos are.
    fn data(&self, set: &Set) -> Result<PathBuf> {
        if set.embedded {
            let data = self.scratch.join("distil-example");
            if !data.is_dir() {
                demo::unpack(&data, usize::MAX)?;
            }
            return Ok(data);
        }
        super::data(set.name)
    }

    /// EfficientNet-Lite0, fine-tuned on the same photos, and what it reaches; made once for all runs of a set.
    fn teacher(&self, set: &Set, data: &Path) -> Result<(PathBuf, Value)> {
        let trial = self.epochs.map_or(String::new(), |epochs| format!("-trial{epochs}"));
        let model = self.scratch.join(format!("distil-{}-teacher{trial}.penjing", set.name));
        let known = model.with_extension("json");
        if !(model.is_file() && known.is_file()) {
            println!("   the teacher first");
            let (size, epochs) = (set.size.to_string(), self.epochs.map(|epochs| epochs.to_string()));
            let mut flags = vec!["--recipe", "finetune", "--size", &size];
            flags.extend(epochs.iter().flat_map(|epochs| ["--epochs", epochs]));
            let train = self.train(set, data, &model, 0, &flags)?;
            let reached = json!({
                "backbone": "efficientnet_lite0",
                "recipe": "finetune",
                "size": set.size,
                "val_top1": train["val_top1"],
                "test_top1": share(&self.right(&model, data)?),
                "seconds": train["seconds"],
            });
            super::write(&known, &reached)?;
        }
        let text = std::fs::read(&known).with_context(|| format!("cannot read {}", known.display()))?;
        let reached = serde_json::from_slice(&text).with_context(|| format!("{}", known.display()))?;
        Ok((model, reached))
    }

    /// What `penjing train` reports.
    fn train(&self, set: &Set, data: &Path, model: &Path, seed: u64, flags: &[&str]) -> Result<Value> {
        let mut train = Command::new(&self.penjing);
        train.arg("train").arg(data.join("train")).arg("-o").arg(model).args(flags).args(set.flags);
        train.args(["--seed", &seed.to_string(), "--no-cache", "--force", "--json", "--quiet"]);
        Ok(serde_json::from_str(&process::output(&mut train)?)?)
    }

    /// Which test photos the model classifies rightly, in the order of their paths: `1` or `0` for each.
    fn right(&self, model: &Path, data: &Path) -> Result<String> {
        let mut classify = Command::new(&self.penjing);
        classify.arg("classify").arg(model).arg(data.join("test")).args(["--top", "1", "--json", "--quiet"]);
        let answers: Value = serde_json::from_str(&process::output(&mut classify)?)?;
        let answers = answers.as_array().context("classify gave no list")?;
        let right = answers.iter().map(|answer| {
            let path = answer["path"].as_str().map(Path::new).context("an answer without a path")?;
            let class = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let guess = answer["top"][0]["label"].as_str().context("an answer without a label")?;
            Ok(if class == Some(guess) { '1' } else { '0' })
        });
        right.collect()
    }
}

/// Share of the photos that are right.
fn share(right: &str) -> f64 {
    right.matches('1').count() as f64 / right.len().max(1) as f64
}

/// What a way gains over none, photo by photo: the mean over seeds and photos, and its standard errors over photos (other photos,
/// the same networks) and over seeds (other networks).
fn gain(plain: &[&str], taught: &[&str]) -> Option<(f64, [f64; 2])> {
    let photos = plain.first()?.len();
    let same = |runs: &[&str]| runs.iter().all(|run| run.len() == photos);
    if photos < 2 || plain.len() != taught.len() || !same(plain) || !same(taught) {
        return None;
    }
    let (mut differences, seeds) = (vec![0.0; photos], plain.len() as f64);
    for (plain, taught) in plain.iter().zip(taught) {
        for ((difference, without), with) in differences.iter_mut().zip(plain.bytes()).zip(taught.bytes()) {
            *difference += (f64::from(with) - f64::from(without)) / seeds;
        }
    }
    let by_seed: Vec<f64> =
        plain.iter().zip(taught).map(|(plain, taught)| share(taught) - share(plain)).collect();
    let mean = differences.iter().sum::<f64>() / photos as f64;
    let error = |values: &[f64]| {
        let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (square / (values.len() - 1) as f64 / values.len() as f64).sqrt()
    };
    Some((mean, [error(&differences), error(&by_seed)]))
}

/// A row for each set, student and way that has been run, in Markdown.
fn table(cells: &[Value]) -> Result<String> {
    let mut text = "| photos | student | way | teacher, test | val top-1 | test top-1 | by seed | gain over plain | 95 %, photos | ±, seeds | kept |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_string();
    for set in SETS {
        for student in STUDENTS {
            let of = |way: &str| -> Vec<&Value> {
                let all = cells.iter().filter(|cell| cell["set"] == set.name && cell["student"] == student);
                all.filter(|cell| cell["way"] == way).collect()
            };
            let plain = of(WAYS[0]);
            for way in WAYS {
                let runs = of(way);
                if !runs.is_empty() {
                    text += &row(&runs, &plain)?;
                }
            }
        }
    }
    Ok(text)
}

fn row(runs: &[&Value], plain: &[&Value]) -> Result<String> {
    let first = runs[0];
    let word = |key: &str| first[key].as_str().with_context(|| format!("a run without {key}: {first}"));
    let percent = |value: f64| format!("{:.2} %", 100.0 * value);
    let figures =
        |key: &str| runs.iter().map(|run| run[key].as_f64().unwrap_or(f64::NAN)).collect::<Vec<_>>();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // Of each run the plain one of the same seed.
    let right = |run: &Value| run["right"].as_str().map(str::to_owned);
    let pairs = runs.iter().filter_map(|run| {
        let other = plain.iter().find(|other| other["seed"] == run["seed"])?;
        Some((right(other)?, right(run)?))
    });
    let pairs: Vec<(String, String)> = pairs.collect();
    let (without, with): (Vec<&str>, Vec<&str>) = pairs.iter().map(|(a, b)| (&**a, &**b)).unzip();
    let (gained, interval, seeds) = match gain(&without, &with) {
        Some((gained, [photos, seeds])) if word("way")? != WAYS[0] => (
            format!("{:+.2}", 100.0 * gained),
            format!("{:+.2} to {:+.2}", 100.0 * (gained - 1.96 * photos), 100.0 * (gained + 1.96 * photos)),
            if seeds.is_finite() { format!("{:.2}", 100.0 * seeds) } else { String::new() },
        ),
        _ => Default::default(),
    };
    let kept = runs.iter().filter_map(|run| {
        let candidates = run["train"]["candidates"].as_array()?;
        let chosen = candidates.iter().position(|candidate| candidate["chosen"] == true)?;
        (candidates.len() > 1).then_some(if chosen == 0 { "plain" } else { "taught" })
    });
    let (validation, test) = (figures("val_top1"), figures("test_top1"));
    let by_seed: Vec<String> = test.iter().map(|top1| format!("{:.2}", 100.0 * top1)).collect();
    let row = [
        word("set")?.to_string(),
        word("student")?.to_string(),
        word("way")?.to_string(),
        first["teacher"]["test_top1"].as_f64().map_or(String::new(), percent),
        percent(mean(&validation)),
        percent(mean(&test)),
        by_seed.join(" "),
        gained,
        interval,
        seeds,
        kept.collect::<Vec<_>>().join(" "),
    ];
    Ok(format!("| {} |\n", row.join(" | ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_student_learns_in_every_way_from_every_seed() {
        let names: Vec<String> = Cell::all().iter().map(Run::name).collect();
        assert_eq!(names.len(), 3 * 2 * 5 * 3);
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        assert!(names.contains(&"gtsrb43/mobilenet_v2_x0.5-auto-seed2".into()));
    }

    #[test]
    fn gains_are_paired() {
        // Two photos of four are won with either seed, none is lost.
        let (mean, [error, seeds]) = gain(&["1000", "1000"], &["1110", "1110"]).unwrap();
        assert_eq!((mean, seeds), (0.5, 0.0));
        assert!((error - (1.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12, "{error}");
        // Of one seed nothing is known of others.
        assert!(matches!(gain(&["1000"], &["1000"]), Some((0.0, [0.0, seeds])) if seeds.is_nan()));
        // A photo more with one seed alone.
        let (mean, [_, seeds]) = gain(&["10", "10"], &["11", "10"]).unwrap();
        assert_eq!((mean, seeds), (0.25, 0.25));
        // Won with one seed and lost with the other.
        assert_eq!(gain(&["10", "01"], &["01", "10"]), Some((0.0, [0.0, 0.0])));
        assert_eq!(gain(&["10"], &["100"]), None);
        assert_eq!(gain(&[], &[]), None);
    }

    #[test]
    fn a_way_is_a_row() {
        let run = |way: &str, seed: u64, right: &str| {
            json!({
                "set": "example", "student": STUDENTS[0], "way": way, "seed": seed, "val_top1": 0.5,
                "test_top1": share(right), "right": right, "teacher": {"test_top1": 0.9},
                "train": {"candidates": [{"chosen": false}, {"chosen": true}]},
            })
        };
        let runs = [run("plain", 0, "1000"), run("plain", 1, "1100"), run("auto", 0, "1110")];
        let table = table(&runs).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        let start = "| example | mobilenet_v2_x0.35 |";
        assert_eq!(
            rows,
            [
                format!(
                    "{start} plain | 90.00 % | 50.00 % | 37.50 % | 25.00 50.00 |  |  |  | taught taught |"
                ),
                format!(
                    "{start} auto | 90.00 % | 50.00 % | 75.00 % | 75.00 | +50.00 | -6.58 to +106.58 |  | taught |"
                ),
            ]
        );
    }
}
