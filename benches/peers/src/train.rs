//! What the programs that train share. Each is one framework: `FRAMEWORK ARCH THREADS STEPS [BATCH]` takes steps of training
//! (forward, backward, update) on the CPU, one to warm up and STEPS that are timed, and prints one line
//! `{"version": "1.2.3", "images_per_s": 4.56}` of the median.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

/// Side of a photo.
pub const SIZE: usize = 224;
/// What the networks tell apart.
pub const CLASSES: usize = 10;
/// Channels that the classifier gets.
pub const FEATURES: usize = 1280;
/// Learning rate of the step.
pub const RATE: f64 = 0.01;
/// Share of the last step that the next one keeps.
pub const MOMENTUM: f64 = 0.9;

const STEM: usize = 32;

/// A network of inverted residual blocks. After its blocks come the mean over the map and a linear layer.
struct Arch {
    name: &'static str,
    /// What is trained with [`CLASSES`] classes.
    parameters: usize,
    /// Kernel, stride, expansion, channels and number of blocks; the stride is the first block's.
    stages: [[usize; 5]; 7],
}

const ARCHS: [Arch; 2] = [
    Arch {
        name: "mobilenet_v2",
        parameters: 2_236_682,
        stages: [
            [3, 1, 1, 16, 1],
            [3, 2, 6, 24, 2],
            [3, 2, 6, 32, 3],
            [3, 2, 6, 64, 4],
            [3, 1, 6, 96, 3],
            [3, 2, 6, 160, 3],
            [3, 1, 6, 320, 1],
        ],
    },
    Arch {
        name: "efficientnet_lite0",
        parameters: 3_383_818,
        stages: [
            [3, 1, 1, 16, 1],
            [3, 2, 6, 24, 2],
            [5, 2, 6, 40, 2],
            [3, 2, 6, 80, 3],
            [5, 1, 6, 112, 3],
            [5, 2, 6, 192, 4],
            [3, 1, 6, 320, 1],
        ],
    },
];

/// A convolution without bias, padded by half its kernel, and the batch normalization after it.
pub struct Conv {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
    /// Whether ReLU6 ends it.
    pub active: bool,
}

/// Convolutions in a row. With a shortcut, their input is added to what comes out.
pub struct Block {
    pub convs: Vec<Conv>,
    pub shortcut: bool,
}

/// What to measure.
pub struct Job {
    arch: &'static Arch,
    steps: usize,
    /// Photos a step.
    pub batch: usize,
}

impl Job {
    /// The job of the command line. From here on rayon's global pool, in which the frameworks compute, has its threads.
    pub fn from_args() -> Result<Job> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let (arch, threads, steps, batch) = match &args[..] {
            [arch, threads, steps] => (arch, threads, steps, "32"),
            [arch, threads, steps, batch] => (arch, threads, steps, batch.as_str()),
            _ => bail!("usage: FRAMEWORK ARCH THREADS STEPS [BATCH]"),
        };
        let threads = threads.parse().context("THREADS is no number")?;
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        Ok(Job {
            arch: ARCHS.iter().find(|known| known.name == arch).context("ARCH is unknown")?,
            steps: steps.parse().context("STEPS is no number")?,
            batch: batch.parse().context("BATCH is no number")?,
        })
    }

    /// The network up to the mean over the map.
    pub fn blocks(&self) -> Vec<Block> {
        let conv = |input, output, kernel, stride, groups, active| Conv {
            input,
            output,
            kernel,
            stride,
            groups,
            active,
        };
        let mut blocks = vec![Block { convs: vec![conv(3, STEM, 3, 2, 1, true)], shortcut: false }];
        let mut input = STEM;
        for [kernel, stride, expansion, output, repeat] in self.arch.stages {
            for at in 0..repeat {
                let stride = if at == 0 { stride } else { 1 };
                let inner = input * expansion;
                let mut convs = Vec::new();
                if expansion > 1 {
                    convs.push(conv(input, inner, 1, 1, 1, true));
                }
                convs.push(conv(inner, inner, kernel, stride, inner, true));
                convs.push(conv(inner, output, 1, 1, 1, false));
                blocks.push(Block { convs, shortcut: stride == 1 && input == output });
                input = output;
            }
        }
        blocks.push(Block { convs: vec![conv(input, FEATURES, 1, 1, 1, true)], shortcut: false });
        blocks
    }

    /// Times `step` and prints the line. `framework` is the name of its crate, and `parameters` are those that it trains.
    pub fn run(
        &self,
        framework: &str,
        parameters: usize,
        mut step: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        ensure!(parameters == self.arch.parameters, "{parameters} parameters: another network");
        ensure!(self.steps > 0, "STEPS is 0; one is needed at least");
        step()?;
        let mut times = Vec::new();
        for _ in 0..self.steps {
            let start = Instant::now();
            step()?;
            times.push(start.elapsed());
        }
        let images = self.batch as f64 / crate::median(times).as_secs_f64();
        println!(r#"{{"version": "{}", "images_per_s": {images:.3}}}"#, crate::version(framework));
        Ok(())
    }
}
