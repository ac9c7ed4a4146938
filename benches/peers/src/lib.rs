//! What the programs of this crate share; those that train share more in [`train`]. Each other one is one engine:
//! `ENGINE STEM THREADS SECONDS OUTPUT` runs `STEM.onnx` on `STEM.input.f32` (`[1,3,224,224]`, little-endian), writes the
//! result to `OUTPUT` in the same way, and prints one line `{"version": "1.2.3", "ms": 4.56}`: the median of what SECONDS
//! hold after a tenth of them to warm up.

pub mod train;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Shape of the input.
pub const SHAPE: [usize; 4] = [1, 3, 224, 224];

/// What to measure.
pub struct Job {
    /// The network.
    pub onnx: PathBuf,
    /// Its input, of [`SHAPE`].
    pub input: Vec<f32>,
    /// Threads to compute with.
    pub threads: usize,
    budget: Duration,
    output: PathBuf,
}

impl Job {
    /// The job of the command line.
    pub fn from_args() -> Result<Job> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [stem, threads, seconds, output] = &args[..] else {
            bail!("usage: ENGINE STEM THREADS SECONDS OUTPUT");
        };
        let path = format!("{stem}.input.f32");
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        let input: Vec<f32> = bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        if input.len() != SHAPE.iter().product() {
            bail!("{path} holds {} values", input.len());
        }
        Ok(Job {
            onnx: format!("{stem}.onnx").into(),
            input,
            threads: threads.parse().context("THREADS is no number")?,
            budget: Duration::from_secs_f64(seconds.parse().context("SECONDS is no number")?),
            output: output.into(),
        })
    }

    /// Times `infer` and returns the median in milliseconds.
    pub fn time(&self, mut infer: impl FnMut() -> Result<()>) -> Result<f64> {
        let start = Instant::now();
        while start.elapsed() < self.budget / 10 {
            infer()?;
        }
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < self.budget || times.len() < 5 {
            let run = Instant::now();
            infer()?;
            times.push(run.elapsed());
        }
        Ok(median(times).as_secs_f64() * 1e3)
    }

    /// Writes the engine's result and prints its line. `engine` is the name of its crate.
    pub fn report(&self, engine: &str, ms: f64, result: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = result.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(&self.output, bytes)
            .with_context(|| format!("cannot write {}", self.output.display()))?;
        println!(r#"{{"version": "{}", "ms": {ms:.4}}}"#, version(engine));
        Ok(())
    }
}

/// The middle one, of two the longer.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The version that the lock file names.
fn version(engine: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split_once(&format!("name = \"{engine}\"\nversion = \"")).map(|(_, after)| after);
    after.and_then(|after| after.split('"').next()).unwrap_or("unknown")
}
