//! `cargo xtask bench peers`: batch-1 latency of penjing and of other inference engines on the same networks.
//!
//! Every figure comes from a process of its own, one alive at a time, so that nobody's idle threads spin while another is
//! timed. An engine's process is told `STEM THREADS SECONDS OUTPUT`: it runs the network `STEM.*` on `STEM.input.f32`,
//! writes what comes out to OUTPUT, and prints `{"version", "ms"}`. One that fails takes only its own figures along.
//!
//! With `--int8` it is the same networks as `penjing compress` makes them of noise, and what `penjing export` writes of them;
//! `NETWORK_int8.*` then stand beside `NETWORK.*`, of which penjing's own floats are timed too.

mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::PythonArg;
use crate::{machine, process};
use table::{Cell, Columns, Row};

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
    /// The networks in 8 bits, and penjing's floats beside
    #[arg(long)]
    int8: bool,
    /// A network that another program brought to 8 bits, for LiteRT: its time counts, its results are not looked at
    #[arg(long, value_name = "NETWORK=FILE", requires = "int8", value_parser = tflite_parser)]
    tflite: Vec<(String, PathBuf)>,
}

fn tflite_parser(text: &str) -> Result<(String, PathBuf), String> {
    let (network, file) = text.split_once('=').ok_or("expected NETWORK=FILE")?;
    Ok((network.to_string(), file.into()))
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
/// The same in 8 bits. The last is ours in floats, and nobody's peer.
const INT8_ENGINES: [Engine; 5] = [
    Engine { name: "penjing", kind: Kind::Penjing },
    Engine { name: "onnxruntime", kind: Kind::Python },
    Engine { name: "openvino", kind: Kind::Python },
    Engine { name: "litert", kind: Kind::OtherWeights },
    Engine { name: "penjing f32", kind: Kind::Floats },
];
const REFERENCE: usize = 1;

/// The largest difference of outputs, as a share of the largest output, at which two networks count as the same.
const TOLERANCE: f32 = 1e-3;
/// The same for networks in 8 bits: with random weights no class stands out, and each engine rounds in its own way.
const INT8_TOLERANCE: f32 = 0.5;
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
    /// The same of a network of other weights.
    OtherWeights,
    /// A program of benches/peers.
    Rust,
    /// `penjing bench` of the network in floats, beside others in 8 bits.
    Floats,
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
    let (all, tolerance) = match args.int8 {
        true => (&INT8_ENGINES[..], INT8_TOLERANCE),
        false => (&ENGINES[..], TOLERANCE),
    };
    if let Some(unknown) = args.engines.iter().flatten().find(|name| !all.iter().any(|e| e.name == *name)) {
        let names: Vec<&str> = all.iter().map(|engine| engine.name).collect();
        bail!("no engine is called {unknown}; there are {}", names.join(", "));
    }
    let wanted = |(at, engine): &(usize, &Engine)| {
        *at <= REFERENCE
            || matches!(engine.kind, Kind::Floats)
            || args.engines.as_ref().is_none_or(|names| names.iter().any(|name| name == engine.name))
    };
    let engines: Vec<Engine> = all.iter().enumerate().filter(wanted).map(|(_, engine)| *engine).collect();
    let places = Places {
        python: args.python.path()?,
        penjing: process::release_dir().join("penjing"),
        rust: super::build_rust_peers(
            engines.iter().filter(|engine| matches!(engine.kind, Kind::Rust)).map(|engine| engine.name),
        ),
        models: super::folder().join("models"),
    };
    prepare(&places, &args.networks)?;
    if args.int8 {
        prepare_int8(&places, &args.networks, &args.tflite)?;
    }
    let columns = Columns {
        engines: engines.iter().map(|engine| engine.name).collect(),
        reference: REFERENCE,
        floats: engines.iter().position(|engine| matches!(engine.kind, Kind::Floats)),
    };
    let mut rows = Vec::new();
    let mut versions = vec![String::new(); engines.len()];
    for name in &args.networks {
        let stem = if args.int8 { int8_stem(&places.models, name) } else { stem(&places.models, name) };
        let checks = check(&places, &stem, &engines, tolerance)?;
        for (version, check) in versions.iter_mut().zip(&checks) {
            if let Ok((_, found)) = check {
                version.clone_from(found);
            }
        }
        let checks = checks.into_iter().map(|check| check.map(|(difference, _)| difference));
        let checks: Vec<Result<Option<f32>>> = checks.collect();
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
            eprintln!("{}", row.line(&columns));
            rows.push(row);
        }
    }
    let versions = columns.engines.iter().zip(&versions).filter(|(_, version)| !version.is_empty());
    let versions: Vec<String> = versions.map(|(name, version)| format!("{name} {version}")).collect();
    println!("{}.\n{}.\n", machine::described(), versions.join(", "));
    let bits = if args.int8 { "8 bits" } else { "f32" };
    println!("{bits}, batch 1, {} interleaved rounds of {} s.", args.rounds, args.seconds);
    println!("{}", table::markdown(&columns, &rows));
    Ok(())
}

/// Where a network's files are, without their endings.
fn stem(models: &Path, network: &str) -> PathBuf {
    models.join(network.replace('.', "_"))
}

/// The same of the network in 8 bits.
fn int8_stem(models: &Path, network: &str) -> PathBuf {
    models.join(format!("{}_int8", network.replace('.', "_")))
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

/// Makes of each network one in 8 bits and its ONNX file.
fn prepare_int8(places: &Places, networks: &[String], tflite: &[(String, PathBuf)]) -> Result<()> {
    for name in networks {
        let (floats, stem) = (stem(&places.models, name), int8_stem(&places.models, name));
        let model = stem.with_extension("penjing");
        let penjing = |verb: &str, from: &Path| {
            let mut command = Command::new(&places.penjing);
            command.args(["--quiet", verb]).arg(from).stdout(Stdio::null());
            command
        };
        // It may become as bad and as slow as it likes: that is what is to be seen.
        let gate = ["--ranges", "min-max", "--max-drop", "100", "--max-latency", "100"];
        let mut compress = penjing("compress", &floats.with_extension("penjing"));
        process::run(compress.arg(places.models.join("photos")).arg("-o").arg(&model).args(gate))?;
        let mut export = penjing("export", &model);
        process::run(export.args(["--to", "onnx", "-o"]).arg(stem.with_extension("onnx")))?;
        let example = ["run", "--release", "--quiet", "--package", "penjing", "--example", "logits", "--"];
        let photo = places.models.join("photo.png");
        process::run(process::cargo(example).arg(&model).arg(&stem).arg(photo))?;
        std::fs::copy(floats.with_extension("input.f32"), stem.with_extension("input.f32"))?;
        if let Some((_, file)) = tflite.iter().find(|(network, _)| network == name) {
            std::fs::copy(file, stem.with_extension("tflite"))
                .with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    Ok(())
}

/// How far an engine's outputs are from the reference's, where they can be compared, and its version.
type Checked = (Option<f32>, String);

/// Runs every engine on the network once: how far its outputs are from the reference's, where they can be compared, and its
/// version.
fn check(places: &Places, stem: &Path, engines: &[Engine], tolerance: f32) -> Result<Vec<Result<Checked>>> {
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
    let compared = outputs.into_iter().zip(engines).map(|(result, engine)| {
        let (output, version) = result?;
        let difference = match engine.kind {
            Kind::OtherWeights => None,
            _ => Some(difference(&output, &reference, tolerance)?),
        };
        Ok((difference, version))
    });
    Ok(compared.collect())
}

impl Engine {
    /// Measures in a process of its own.
    fn measure(&self, places: &Places, stem: &Path, threads: usize, seconds: f64) -> Result<Measured> {
        let mut command = match self.kind {
            Kind::Penjing | Kind::Floats => {
                let mut command = Command::new(&places.penjing);
                command.args(["--json", "bench"]).arg(self.stem(stem).with_extension("penjing"));
                // It measures 0.01 s at least.
                command.arg("--threads").arg(threads.to_string());
                command.arg("--seconds").arg(seconds.max(0.01).to_string());
                command
            }
            Kind::Python | Kind::OtherWeights => {
                let mut command = super::script(&places.python, "peers/measure");
                command.arg(self.name);
                command
            }
            Kind::Rust => Command::new(places.rust.join(self.name)),
        };
        let is_ours = matches!(self.kind, Kind::Penjing | Kind::Floats);
        if !is_ours {
            command.arg(stem).arg(threads.to_string()).arg(seconds.to_string()).arg(self.output_path(stem));
        }
        let text = last_line(command, &stem.with_extension(self.name.replace(' ', "_")))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("it printed {text:?}"))?;
        let (version, ms) = match is_ours {
            true => (&value["isa"], &value["latency_ms"]["p50"]),
            false => (&value["version"], &value["ms"]),
        };
        let (version, ms) = version.as_str().zip(ms.as_f64()).context("it printed no figure")?;
        Ok(Measured { version: version.to_string(), ms })
    }

    /// Where the files of its network are.
    fn stem(&self, stem: &Path) -> PathBuf {
        match self.kind {
            Kind::Floats => PathBuf::from(stem.to_string_lossy().trim_end_matches("_int8")),
            _ => stem.to_owned(),
        }
    }

    fn output_path(&self, stem: &Path) -> PathBuf {
        match self.kind {
            Kind::Penjing | Kind::Floats => self.stem(stem).join("logits.f32"),
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
fn difference(output: &[f32], reference: &[f32], tolerance: f32) -> Result<f32> {
    ensure!(output.len() == reference.len(), "{} outputs instead of {}", output.len(), reference.len());
    let largest = reference.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    // NaN is no agreement.
    let worst =
        output.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, |worst: f32, difference| {
            if difference.is_nan() { f32::INFINITY } else { worst.max(difference) }
        });
    let share = worst / largest;
    ensure!(share <= tolerance, "its outputs are {share:.1e} away: another network");
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
        assert_eq!(difference(&[1.0, -4.002, 0.5], &reference, TOLERANCE).unwrap(), (4.002f32 - 4.0) / 4.0);
        for other in [&[1.0, -4.0, 0.6][..], &[1.0, f32::NAN, 0.5], &[f32::NAN, -4.0, 0.5], &[1.0, -4.0]] {
            difference(other, &reference, TOLERANCE).unwrap_err();
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
