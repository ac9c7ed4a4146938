//! Each layer's time beside what the processor's arithmetic and memory allow (the roofline model, doi
//! 10.1145/1498765.1498785).

use std::time::Instant;

use penjing_kernels::Isa;

use crate::{
    buffer::Buffer,
    layer::{Kind, Layer, NETWORKS, layers},
    machine::Machine,
};

const RUNS: usize = 200;

pub fn print(isa: Isa) {
    let machine = Machine::measure(isa);
    println!("{}, one core: {:.1} GFLOP/s in f32", isa.name(), machine.peak / 1e9);
    for level in &machine.levels {
        let size =
            if level.bytes == usize::MAX { String::new() } else { format!(" ({} KiB)", level.bytes >> 10) };
        println!("{}{size}: {:.1} GB/s read", level.name, level.read / 1e9);
    }
    println!(
        "
Times are medians of {RUNS} runs, in microseconds. Peak: the achieved share of it. Arithmetic: the time at the peak.
Memory: the time of what goes in and out at the bandwidth of the nearest level that holds it, and of the weights at that
of the level that holds all of the network's. The longer of both binds; reached: its share of the measured time."
    );
    for &(name, stages) in NETWORKS {
        println!("\n{name}");
        let layers = layers(stages, 224);
        let seconds = time(isa, &layers);
        report(&machine, &layers, &seconds);
    }
}

/// Median seconds of each layer, run in order.
fn time(isa: Isa, layers: &[Layer]) -> Vec<f64> {
    let longest = |len: fn(&Layer) -> usize| layers.iter().map(len).max().unwrap_or(0);
    let mut scratch = Buffer::noise(longest(Layer::scratch_len));
    // As in an arena, a layer writes over what its predecessor read.
    let longest = longest(|layer| layer.in_len.max(layer.out_len));
    let (mut x, mut y) = (Buffer::noise(longest), Buffer::noise(longest));
    let mut seconds = vec![Vec::with_capacity(RUNS); layers.len()];
    for _ in 0..RUNS {
        x.get_mut()[..layers[0].in_len].fill(0.5);
        for (layer, seconds) in layers.iter().zip(&mut seconds) {
            let start = Instant::now();
            layer.run(isa, scratch.get_mut(), &x, &mut y);
            seconds.push(start.elapsed().as_secs_f64());
            std::mem::swap(&mut x, &mut y);
        }
    }
    let medians = seconds.into_iter().map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[RUNS / 2]
    });
    medians.collect()
}

/// What a layer, or several, took and could take.
#[derive(Clone, Copy, Default)]
struct Figures {
    macs: usize,
    bytes: usize,
    /// As measured.
    seconds: f64,
    /// At the peak.
    arithmetic: f64,
    /// At the bandwidth.
    memory: f64,
    /// The longer of the two, layer by layer.
    floor: f64,
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.macs += other.macs;
        self.bytes += other.bytes;
        self.seconds += other.seconds;
        self.arithmetic += other.arithmetic;
        self.memory += other.memory;
        self.floor += other.floor;
    }

    fn print(&self, name: &str, binds: &str) {
        println!(
            "{name:34} {:8.1} {:5.0}% {:7.1} {:11.1} {:7.1} {binds:>6} {:7.0}%",
            self.seconds * 1e6,
            self.arithmetic / self.seconds * 100.0,
            self.bytes as f64 / self.seconds / 1e9,
            self.arithmetic * 1e6,
            self.memory * 1e6,
            self.floor / self.seconds * 100.0
        );
    }
}

fn report(machine: &Machine, layers: &[Layer], seconds: &[f64]) {
    println!(
        "{:34} {:>8} {:>6} {:>7} {:>11} {:>7} {:>6} {:>8}",
        "layer", "time", "peak", "GB/s", "arithmetic", "memory", "binds", "reached"
    );
    // Weights are read once an inference: between two readings all others are.
    let weights = machine.level(layers.iter().map(Layer::weight_bytes).sum());
    let mut kinds = [Figures::default(); Kind::ALL.len()];
    let mut shares = 0.0;
    for (layer, &seconds) in layers.iter().zip(seconds) {
        let maps = machine.level(layer.map_bytes());
        let map_seconds = layer.map_bytes() as f64 / maps.read;
        let weight_seconds = layer.weight_bytes() as f64 / weights.read;
        let (arithmetic, memory) = (2.0 * layer.macs as f64 / machine.peak, map_seconds + weight_seconds);
        let bytes = layer.map_bytes() + layer.weight_bytes();
        let floor = arithmetic.max(memory);
        let figures = Figures { macs: layer.macs, bytes, seconds, arithmetic, memory, floor };
        let farther = if map_seconds > weight_seconds { maps } else { weights };
        figures.print(&layer.name, if arithmetic > memory { "peak" } else { farther.name });
        kinds[layer.kind as usize].add(&figures);
        if layer.kind == Kind::Pointwise {
            shares += layer.macs as f64 * arithmetic / seconds;
        }
    }
    println!();
    let mut all = Figures::default();
    for (kind, figures) in Kind::ALL.iter().zip(&kinds) {
        figures.print(kind.name(), "");
        all.add(figures);
    }
    all.print("all", "");
    println!(
        "pointwise layers, weighted by their multiply-adds: {:.1} % of the peak",
        shares / kinds[Kind::Pointwise as usize].macs as f64 * 100.0
    );
}
