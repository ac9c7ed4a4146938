//! `cargo xtask evidence budget`: networks found within a budget, beside a smaller network of the zoo that learns as long.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Run, Which, models::json_of};
use crate::{demo, process};

const MATRIX: &str = "budget";

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// A folder of NAME.penjing from `penjing weights import`, ImageNet weights of the networks that are trained directly;
    /// those that are not in it are left out
    #[arg(long, value_name = "FOLDER", default_value = "target/evidence/zoo")]
    zoo: PathBuf,
    /// What a run may take; another than this is a trial, and nothing is kept
    #[arg(long, value_name = "TIME", default_value = TIME)]
    time: String,
}

const TIME: &str = "15m";

/// Photos, of which a part judges.
struct Set {
    name: &'static str,
    /// Which photos show the same: what comes before this in a file's name does.
    group: Option<char>,
    /// The input with which MobileNetV2 takes about half of what EfficientNet-Lite0 does with its own.
    half: &'static str,
}

const SETS: &[Set] = &[
    Set { name: "flowers12", group: None, half: "160" },
    // Frames of the same sign, small ones.
    Set { name: "gtsrb43", group: Some('_'), half: "96" },
];

/// Of so many groups of a class one judges.
const JUDGES: usize = 5;

/// What is asked for, and the network of the zoo that is trained for it.
struct Budget {
    name: &'static str,
    limits: &'static str,
    zoo: &'static str,
    /// Whether it is to be in 8 bits; of those that are not the input is small.
    bytes: bool,
}

const BUDGETS: &[Budget] = &[
    Budget { name: "1MB", limits: "size=1MB", zoo: "squeezenet1_1", bytes: true },
    Budget { name: "300KB", limits: "size=300KB", zoo: "mobilenet_v1_x0.25", bytes: true },
    Budget { name: "half", limits: "latency=0.5x", zoo: "mobilenet_v2", bytes: false },
];

/// One run.
struct Cell {
    set: &'static Set,
    budget: &'static Budget,
    /// Searched for, or trained directly.
    search: bool,
}

impl Cell {
    fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for set in SETS {
            for budget in BUDGETS {
                cells.extend([true, false].map(|search| Cell { set, budget, search }));
            }
        }
        cells
    }
}

impl Run for Cell {
    /// `SET/BUDGET-WAY`.
    fn name(&self) -> String {
        let way = if self.search { "search" } else { self.budget.zoo };
        format!("{}/{}-{way}", self.set.name, self.budget.name)
    }
}

/// What all runs use.
struct Bench<'a> {
    args: &'a Args,
    penjing: PathBuf,
    /// Where photos and models are written.
    scratch: PathBuf,
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
    let trial = args.time != TIME;
    let mut cells = args.which.left(MATRIX, Cell::all(), trial)?;
    cells.retain(|cell| {
        let here = cell.search || model_in(&args.zoo, cell.budget).is_file();
        if !here {
            println!("{} is left out: it needs {}", cell.name(), model_in(&args.zoo, cell.budget).display());
        }
        here
    });
    let bench = Bench {
        args,
        penjing: demo::build_penjing()?,
        scratch: process::root().join("target/evidence"),
        machine: super::machine()?,
    };
    std::fs::create_dir_all(&bench.scratch)?;
    super::each(&cells, |cell| {
        let measured = bench.cell(cell)?;
        if !trial {
            super::write(&super::path(MATRIX, cell), &measured)?;
        }
        let figure = |key: &str| measured[key].as_f64().unwrap_or_default();
        Ok(format!(
            "test top-1 {:.2} % before, {:.2} % after, {:.0} s",
            100.0 * figure("before"),
            100.0 * figure("after"),
            figure("seconds")
        ))
    })
}

fn model_in(zoo: &Path, budget: &Budget) -> PathBuf {
    zoo.join(format!("{}.penjing", budget.zoo))
}

impl Bench<'_> {
    fn cell(&self, cell: &Cell) -> Result<Value> {
        let data = self.data(cell.set)?;
        let start = self.start(cell.set, &data)?;
        let small = self.scratch.join(format!("budget-{}.penjing", cell.name().replace('/', "-")));
        let (seconds, report) = match cell.search {
            true => self.search(cell, &data, &start, &small)?,
            false => self.direct(cell, &data, &small)?,
        };
        let (before, after) = (self.eval(&start, &data)?, self.eval(&small, &data)?);
        let inspect = json_of(Command::new(&self.penjing).arg("inspect").arg(&small))?;
        Ok(json!({
            "set": cell.set.name,
            "budget": cell.budget.limits,
            "way": if cell.search { "search" } else { cell.budget.zoo },
            "n": before["n"],
            "before": before["top1"],
            "after": after["top1"],
            "bytes": std::fs::metadata(&small)?.len(),
            "latency_ms": self.latency(&small)?,
            "latency_before_ms": self.latency(&start)?,
            "arch": inspect["arch"],
            "seconds": seconds,
            "report": super::without_paths(report, &[&super::shared(), &process::root()]),
            "machine": self.machine,
        }))
    }

    /// A set's photos as train, val and test.
    fn data(&self, set: &Set) -> Result<PathBuf> {
        let from = super::data(set.name)?;
        let data = self.scratch.join(format!("budget-{}", set.name));
        if data.is_dir() {
            return Ok(data);
        }
        let part = self.scratch.join(format!("budget-{}-part", set.name));
        for class in super::entries(&from.join("train"))? {
            let photos = super::entries(&class)?;
            let judges = judges(&photos, set.group);
            for (photo, judges) in photos.iter().zip(judges) {
                copy(photo, &part.join(if judges { "val" } else { "train" }), &class)?;
            }
        }
        for class in super::entries(&from.join("test"))? {
            for photo in super::entries(&class)? {
                copy(&photo, &part.join("test"), &class)?;
            }
        }
        std::fs::rename(&part, &data).with_context(|| format!("cannot make {}", data.display()))?;
        Ok(data)
    }

    /// EfficientNet-Lite0, fine-tuned on the photos by default; made once for all runs of a set.
    fn start(&self, set: &Set, data: &Path) -> Result<PathBuf> {
        let model = self.scratch.join(format!("budget-{}-start.penjing", set.name));
        if !model.is_file() {
            println!("   the network to begin with first");
            json_of(Command::new(&self.penjing).arg("train").arg(data).arg("-o").arg(&model))?;
        }
        Ok(model)
    }

    fn search(&self, cell: &Cell, data: &Path, start: &Path, small: &Path) -> Result<(f64, Value)> {
        let picture = super::path(MATRIX, cell).with_extension("svg");
        std::fs::create_dir_all(picture.parent().unwrap_or(Path::new("")))?;
        let mut search = Command::new(&self.penjing);
        search.arg("compress").arg(start).arg(data).arg("-o").arg(small).arg("--force");
        search.args(["--budget", cell.budget.limits, "--time", &self.args.time, "--max-drop", "100"]);
        if self.args.time == TIME {
            search.arg("--picture").arg(picture);
        }
        let report = json_of(&mut search)?;
        Ok((report["seconds"].as_f64().context("a search without its time")?, report))
    }

    fn direct(&self, cell: &Cell, data: &Path, small: &Path) -> Result<(f64, Value)> {
        let Budget { bytes, .. } = cell.budget;
        let whole = if *bytes { small.with_extension("whole") } else { small.to_path_buf() };
        let mut command = Command::new(&self.penjing);
        command.arg("train").arg(data).arg("-o").arg(&whole).arg("--force");
        if !bytes {
            command.args(["--size", cell.set.half]);
        }
        command
            .arg("--backbone")
            .arg(model_in(&self.args.zoo, cell.budget))
            .args(["--time", &self.args.time]);
        let began = std::time::Instant::now();
        let mut report = json!({ "train": json_of(&mut command)? });
        if *bytes {
            let mut command = Command::new(&self.penjing);
            command.arg("compress").arg(&whole).arg(data).arg("-o").arg(small).arg("--force");
            report["compress"] = json_of(command.args(["--max-drop", "100", "--max-latency", "100"]))?;
        }
        Ok((began.elapsed().as_secs_f64(), report))
    }

    fn eval(&self, model: &Path, data: &Path) -> Result<Value> {
        json_of(Command::new(&self.penjing).arg("eval").arg(model).arg(data.join("test")))
    }

    /// The median of a photo on one thread, in milliseconds.
    fn latency(&self, model: &Path) -> Result<Value> {
        let mut bench = Command::new(&self.penjing);
        let report = json_of(bench.arg("bench").arg(model).args(["--threads", "1"]))?;
        Ok(report["latency_ms"]["p50"].clone())
    }
}

/// Copies a photo into its class of a part.
fn copy(photo: &Path, part: &Path, class: &Path) -> Result<()> {
    let folder = part.join(class.file_name().unwrap_or_default());
    std::fs::create_dir_all(&folder)?;
    let to = folder.join(photo.file_name().unwrap_or_default());
    std::fs::copy(photo, &to).with_context(|| format!("cannot copy {}", photo.display()))?;
    Ok(())
}

/// Whether each of a class's photos judges: one group of [`JUDGES`] does. A photo without a group is one.
fn judges(photos: &[PathBuf], group: Option<char>) -> Vec<bool> {
    let mut groups = BTreeMap::new();
    let judge = |photo: &PathBuf| {
        let stem = photo.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let key = group.and_then(|mark| stem.rsplit_once(mark)).map_or(stem.clone(), |(key, _)| key.into());
        let next = groups.len();
        *groups.entry(key).or_insert(next) % JUDGES == JUDGES - 1
    };
    photos.iter().map(judge).collect()
}

/// A row for each run, in Markdown.
fn table(runs: &[Value]) -> Result<String> {
    let mut text =
        "| photos | budget | way | before, test | after | file | latency | px, numbers | seconds | commit |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n"
            .to_string();
    for run in runs {
        let of =
            |key: &str| run[key].as_f64().with_context(|| format!("a figure is missing: {key} of {run}"));
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let taken = run["report"]["taken"].as_u64().map(|at| &run["report"]["tried"][at as usize]["form"]);
        let what = taken.map_or_else(
            || word(&run["arch"]),
            |form| {
                let millions = form["macs"].as_f64().unwrap_or_default() / 1e6;
                format!(
                    "{} at {} px, {millions:.0} M, {}",
                    word(&run["arch"]),
                    form["px"],
                    word(&form["numbers"])
                )
            },
        );
        text += &format!(
            "| {} | {} | {} | {:.2} % | {:.2} % | {:.0} KB | × {:.2} | {what} | {:.0} | {} |\n",
            word(&run["set"]),
            word(&run["budget"]),
            word(&run["way"]),
            100.0 * of("before")?,
            100.0 * of("after")?,
            of("bytes")? / 1e3,
            of("latency_ms")? / of("latency_before_ms")?,
            of("seconds")?,
            word(&run["machine"]["commit"]),
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_sign_judge_together() {
        let photos = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let alone = judges(&photos(&["a", "b", "c", "d", "e", "f"]), None);
        assert_eq!(alone, [false, false, false, false, true, false]);
        let names = ["1_0", "1_1", "2_0", "3_0", "4_0", "5_0", "5_1", "6_0"];
        let together = judges(&photos(&names), Some('_'));
        assert_eq!(together, [false, false, false, false, false, true, true, false]);
    }

    #[test]
    fn a_run_is_a_row() {
        let run = json!({
            "set": "flowers12", "budget": "size=1MB", "way": "search", "before": 0.98, "after": 0.97, "bytes": 999_000,
            "latency_ms": 2.0, "latency_before_ms": 8.0, "arch": "efficientnet_lite0", "seconds": 903.2,
            "report": {"taken": 1, "tried": [{}, {"form": {"px": 160, "macs": 1e8, "numbers": "Integers"}}]},
            "machine": {"commit": "abc1234"},
        });
        assert_eq!(
            table(&[run]).unwrap().lines().last().unwrap(),
            "| flowers12 | size=1MB | search | 98.00 % | 97.00 % | 999 KB | × 0.25 | \
             efficientnet_lite0 at 160 px, 100 M, Integers | 903 | abc1234 |"
        );
        let names: Vec<String> = Cell::all().iter().map(Run::name).collect();
        assert_eq!(names.len(), 2 * 3 * 2);
        assert!(names.contains(&"gtsrb43/300KB-mobilenet_v1_x0.25".into()));
    }
}
