//! `cargo xtask bench peers`: batch-1 latency of penjing and of other inference engines on the same networks.
//!
//! Every figure comes from a process of its own, one alive at a time, so that nobody's idle threads spin while another is
//! timed. An engine's process is told `STEM THREADS SECONDS OUTPUT`: it runs the network `STEM.*` on `STEM.input.f32`,
//! writes what comes out to OUTPUT, and prints `{"version", "ms"}`. One that fails takes only its own figures along.

mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::PythonArg;
use crate::{machine, process};
use table::{Cell, Row};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    python: PythonArg,
    /// Interleaved rounds
    #[arg(long, default_value_t = 7)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each figure of a round is measured, in seconds
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    seconds: f64,
    /// Networks of the zoo, at their published size
    #[arg(long, value_delimiter = ',', default_values_t = ["mobilenet_v2", "efficientnet_lite0"].map(String::from))]
    networks: Vec<String>,
    /// The peers, onnxruntime always among them [default: all]
    #[arg(long, value_delimiter = ',')]
    engines: Option<Vec<String>>,
}

const THREADS: &[usize] = &[1, 2];

/// The first is ours. The second is what the outputs of all are compared with.
const ENGINES: [Engine; 7] = [
    Engine { name: "penjing", kind: Kind::Penjing },
    Engine { name: "onnxruntime", kind: Kind::Python },
    Engine { name: "openvino", kind: Kind::Python },
    Engine { name: "ncnn", kind: Kind::Python },
    Engine { name: "MNN", kind: Kind::Python },
    Engine { name: "tract", kind: Kind::Rust },
    Engine { name: "rten", kind: Kind::Rust },
];
const REFERENCE: usize = 1;

/// The largest difference of outputs, as a share of the largest output, at which two networks count as the same.
const TOLERANCE: f32 = 1e-3;
/// A process that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
struct Engine {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// `penjing bench`.
    Penjing,
    /// An engine of scripts/peers/measure.py.
    Python,
    /// A program of benches/peers.
    Rust,
}

/// Where things stand.
struct Places {
    python: PathBuf,
    penjing: PathBuf,
    rust: PathBuf,
    models: PathBuf,
}

/// What a process measured.
struct Measured {
    version: String,
    ms: f64,
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(unknown) = args.engines.iter().flatten().find(|name| !ENGINES.iter().any(|e| e.name == *name))
    {
        bail!("no engine is called {unknown}; there are {}", ENGINES.map(|engine| engine.name).join(", "));
    }
    let wanted = |(at, engine): &(usize, &Engine)| {
        *at <= REFERENCE
            || args.engines.as_ref().is_none_or(|names| names.iter().any(|name| name == engine.name))
    };
    let engines: Vec<Engine> = ENGINES.iter().enumerate().filter(wanted).map(|(_, engine)| *engine).collect();
    let places = Places {
        python: args.python.path()?,
        penjing: process::release_dir().join("penjing"),
        rust: super::build_rust_peers(
            engines.iter().filter(|engine| matches!(engine.kind, Kind::Rust)).map(|engine| engine.name),
        ),
        models: super::folder().join("models"),
    };
    prepare(&places, &args.networks)?;
    let names: Vec<&str> = engines.iter().map(|engine| engine.name).collect();
    let mut rows = Vec::new();
    let mut versions = vec![String::new(); engines.len()];
    for name in &args.networks {
        let stem = stem(&places.models, name);
        let checks = check(&places, &stem, &engines)?;
        for (version, check) in versions.iter_mut().zip(&checks) {
            if let Ok((_, found)) = check {
                version.clone_from(found);
            }
        }
        let checks = checks.into_iter().map(|check| check.map(|(difference, _)| difference));
        let checks: Vec<Result<f32>> = checks.collect();
        for &threads in THREADS {
            let mut row = Row::new(name, threads, &checks);
            for round in 0..args.rounds as usize {
                // Each round begins with another one, so that nobody always follows the same.
                for at in (0..engines.len()).map(|at| (at + round) % engines.len()) {
                    if let Cell::Times(times) = &mut row.cells[at] {
                        match engines[at].measure(&places, &stem, threads, args.seconds) {
                            Ok(measured) => times.push(measured.ms),
                            Err(error) => row.cells[at] = Cell::Failed(format!("{error:#}")),
                        }
                    }
                }
            }
            eprintln!("{}", row.line(&names));
            rows.push(row);
        }
    }
    let versions = names.iter().zip(&versions).filter(|(_, version)| !version.is_empty());
    let versions: Vec<String> = versions.map(|(name, version)| format!("{name} {version}")).collect();
    println!("{}.\n{}.\n", machine::described(), versions.join(", "));
    println!("f32, batch 1, {} interleaved rounds of {} s.", args.rounds, args.seconds);
    println!("{}", table::markdown(&names, REFERENCE, &rows));
    Ok(())
}

/// Where a network's files are, without their endings.
fn stem(models: &Path, network: &str) -> PathBuf {
    models.join(network.replace('.', "_"))
}

/// Builds penjing, makes the models, and lets penjing make the input from a photo.
fn prepare(places: &Places, networks: &[String]) -> Result<()> {
    super::build_penjing()?;
    let models = &places.models;
    if models.exists() {
        std::fs::remove_dir_all(models).with_context(|| format!("cannot remove {}", models.display()))?;
    }
    std::fs::create_dir_all(models).with_context(|| format!("cannot make {}", models.display()))?;
    process::run(super::script(&places.python, "peers/models").arg(models).args(networks))?;
    for name in networks {
        let stem = stem(models, name);
        let model = stem.with_extension("penjing");
        let mut import = Command::new(&places.penjing);
        import.args(["--quiet", "weights", "import"]).arg(stem.with_extension("pth")).args(["--arch", name]);
        process::run(import.arg("-o").arg(&model).stdout(Stdio::null()))?;
        let example = ["run", "--release", "--quiet", "--package", "penjing", "--example", "logits", "--"];
        process::run(process::cargo(example).arg(&model).arg(&stem).arg(models.join("photo.png")))?;
        write(&stem.with_extension("input.f32"), &channels_first(&read(&stem.join("inputs.f32"))?))?;
    }
    Ok(())
}

/// Runs every engine on the network once: how far its outputs are from the reference's, and its version.
fn check(places: &Places, stem: &Path, engines: &[Engine]) -> Result<Vec<Result<(f32, String)>>> {
    let mut outputs = Vec::new();
    for engine in engines {
        let measured = engine.measure(places, stem, 1, 0.0);
        outputs.push(measured.and_then(|measured| Ok((engine.output(stem)?, measured.version))));
    }
    let reference = match &outputs[REFERENCE] {
        Ok((output, _)) => output.clone(),
        Err(error) => {
            bail!("{} has to run, the others are checked by it: {error:#}", engines[REFERENCE].name)
        }
    };
    let compared = outputs.into_iter().map(|result| {
        let (output, version) = result?;
        Ok((difference(&output, &reference)?, version))
    });
    Ok(compared.collect())
}

impl Engine {
    /// Measures in a process of its own.
    fn measure(&self, places: &Places, stem: &Path, threads: usize, seconds: f64) -> Result<Measured> {
        let mut command = match self.kind {
            Kind::Penjing => {
                let mut command = Command::new(&places.penjing);
                command.args(["--json", "bench"]).arg(stem.with_extension("penjing"));
                // It measures 0.01 s at least.
                command.arg("--threads").arg(threads.to_string());
                command.arg("--seconds").arg(seconds.max(0.01).to_string());
                command
            }
            Kind::Python => {
                let mut command = super::script(&places.python, "peers/measure");
                command.arg(self.name);
                command
            }
            Kind::Rust => Command::new(places.rust.join(self.name)),
        };
        if !matches!(self.kind, Kind::Penjing) {
            command.arg(stem).arg(threads.to_string()).arg(seconds.to_string()).arg(self.output_path(stem));
        }
        let text = last_line(command, &stem.with_extension(self.name))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("it printed {text:?}"))?;
        let (version, ms) = match self.kind {
            Kind::Penjing => (&value["isa"], &value["latency_ms"]["p50"]),
            _ => (&value["version"], &value["ms"]),
        };
        let (version, ms) = version.as_str().zip(ms.as_f64()).context("it printed no figure")?;
        Ok(Measured { version: version.to_string(), ms })
    }

    fn output_path(&self, stem: &Path) -> PathBuf {
        match self.kind {
            Kind::Penjing => stem.join("logits.f32"),
            _ => stem.with_extension(format!("{}.f32", self.name)),
        }
    }

    fn output(&self, stem: &Path) -> Result<Vec<f32>> {
        read(&self.output_path(stem))
    }
}

/// Runs the command and returns the last line that it prints. What it says goes to files that begin with `files`, so that
/// no engine waits for someone to read it; where it fails, the last line it said is the reason.
fn last_line(mut command: Command, files: &Path) -> Result<String> {
    let (out, err) = (files.with_extension("stdout"), files.with_extension("stderr"));
    let file =
        |path: &Path| std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()));
    command.stdin(Stdio::null()).stdout(file(&out)?).stderr(file(&err)?);
    let mut child = command.spawn().context("cannot be started")?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("no end after {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let last = |path| {
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_string()
    };
    match (status.success(), last(&err)) {
        (true, _) => Ok(last(&out)),
        (false, reason) if reason.is_empty() => bail!("{status}"),
        (false, reason) => bail!("{reason}"),
    }
}

/// The largest difference, as a share of the largest value of the reference.
fn difference(output: &[f32], reference: &[f32]) -> Result<f32> {
    ensure!(output.len() == reference.len(), "{} outputs instead of {}", output.len(), reference.len());
    let largest = reference.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    // NaN is no agreement.
    let worst =
        output.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, |worst: f32, difference| {
            if difference.is_nan() { f32::INFINITY } else { worst.max(difference) }
        });
    let share = worst / largest;
    ensure!(share <= TOLERANCE, "its outputs are {share:.1e} away: another network");
    Ok(share)
}

/// `[SIZE][SIZE][3]` as `[3][SIZE][SIZE]`.
fn channels_first(pixels: &[f32]) -> Vec<f32> {
    (0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied()).collect()
}

fn read(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect())
}

fn write(path: &Path, values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_another_network_are_no_agreement() {
        let reference = [1.0, -4.0, 0.5];
        assert_eq!(difference(&[1.0, -4.002, 0.5], &reference).unwrap(), (4.002f32 - 4.0) / 4.0);
        for other in [&[1.0, -4.0, 0.6][..], &[1.0, f32::NAN, 0.5], &[f32::NAN, -4.0, 0.5], &[1.0, -4.0]] {
            difference(other, &reference).unwrap_err();
        }
    }

    #[test]
    fn channels_come_first() {
        assert_eq!(channels_first(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[cfg(unix)]
    #[test]
    fn the_reason_of_a_failure_is_its_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let say = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            last_line(command, &folder.path().join("engine"))
        };
        assert_eq!(say("echo noise; echo figure; echo warning >&2").unwrap(), "figure");
        assert_eq!(
            say("echo trace >&2; echo reason >&2; echo >&2; exit 3").unwrap_err().to_string(),
            "reason"
        );
        assert!(say("kill -9 $$").unwrap_err().to_string().contains("signal"));
    }
}
