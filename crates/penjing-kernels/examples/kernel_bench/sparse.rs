//! Pointwise layers with all their weights, and with fewer and fewer of them.

use std::time::Instant;

use penjing_kernels::{Isa, Serial, pointwise, sparse};

use crate::{
    buffer::Buffer,
    layer::{Kind, Layer, NETWORKS, Work, layers},
};

/// Inputs in pixels.
const SIDES: [usize; 2] = [224, 128];

/// Shares of the weights that are zero, in hundredths.
const ZEROS: [usize; 10] = [30, 40, 50, 55, 60, 65, 70, 75, 80, 90];

/// The matrix product with the zeros multiplied, and without each of the [`ZEROS`].
type Times = [f64; 1 + ZEROS.len()];

pub fn print(isas: &[Isa]) {
    for ((network, stages), side) in NETWORKS.iter().flat_map(|network| SIDES.map(|side| (network, side))) {
        let mut layers = layers(stages, side);
        layers.retain(|layer| layer.kind == Kind::Pointwise);
        for &isa in isas {
            println!(
                "{network} at {side} px, {}: microseconds, and the share of zeros from which less is faster",
                isa.name()
            );
            println!(
                "  {:34} {}",
                "zeros in %",
                row(|at| [&0].into_iter().chain(&ZEROS).nth(at).map(|zeros| *zeros as f64))
            );
            let (mut all, mut chosen) = ([0.0; 1 + ZEROS.len()], [0.0; 1 + ZEROS.len()]);
            let mut known: Vec<(String, Times)> = Vec::new();
            for layer in &layers {
                let times = match known.iter().find(|(name, _)| *name == layer.name) {
                    Some((_, times)) => *times,
                    None => {
                        let times = fastest(isa, layer);
                        println!("  {:34} {}  {}", layer.name, row(|at| Some(times[at] * 1e6)), even(&times));
                        known.push((layer.name.clone(), times));
                        times
                    }
                };
                for at in 0..times.len() {
                    all[at] += times[at];
                    chosen[at] += if at > 0 && pays(layer, ZEROS[at - 1]) { times[at] } else { times[0] };
                }
            }
            println!("  {:34} {}  {}", "all", row(|at| Some(all[at] * 1e6)), even(&all));
            println!(
                "  {:34} {}  {}",
                "where `pays` says so",
                row(|at| Some(chosen[at] * 1e6)),
                even(&chosen)
            );
        }
    }
}

fn shape(layer: &Layer) -> ([usize; 3], penjing_kernels::Act, bool) {
    match layer.work {
        Work::Product { m, k, n, act, residual } => ([m, k, n], act, residual),
        _ => unreachable!("only matrix products are left"),
    }
}

fn pays(layer: &Layer, zeros: usize) -> bool {
    let ([m, k, n], ..) = shape(layer);
    sparse::pays([m, k, n], k * n * (100 - zeros) / 100)
}

fn row(value: impl Fn(usize) -> Option<f64>) -> String {
    (0..=ZEROS.len()).filter_map(value).map(|value| format!("{value:8.1}")).collect()
}

/// Where the line from measurement to measurement falls below the product of all weights.
fn even(times: &Times) -> String {
    let ratio = |at: usize| times[at + 1] / times[0];
    if ratio(0) <= 1.0 {
        return format!("< {} %", ZEROS[0]);
    }
    match (1..ZEROS.len()).find(|&at| ratio(at) <= 1.0) {
        Some(at) => {
            let part = (ratio(at - 1) - 1.0) / (ratio(at - 1) - ratio(at));
            format!("{:.0} %", ZEROS[at - 1] as f64 + part * (ZEROS[at] - ZEROS[at - 1]) as f64)
        }
        None => format!("> {} %", ZEROS[ZEROS.len() - 1]),
    }
}

/// Seconds of the fastest of many turns, all ways in turn.
fn fastest(isa: Isa, layer: &Layer) -> Times {
    const ROUNDS: usize = 25;
    let ([m, k, n], act, residual) = shape(layer);
    let (x, mut y) = (Buffer::noise(m * k), Buffer::noise(m * n));
    let other = Buffer::noise(m * n);
    let residual = residual.then(|| other.get());
    let weights = Buffer::noise(n * k);
    let mut dense = Buffer::noise(pointwise::packed_len(n, k));
    pointwise::pack(n, k, weights.get(), None, dense.get_mut());
    let without = |zeros: usize| {
        let mut state = 1u64;
        let mut kept = weights.get().to_vec();
        for weight in &mut kept {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (state >> 33) % 100 < zeros as u64 {
                *weight = 0.0;
            }
        }
        let mut packed = Buffer::noise(sparse::packed_len(n, k, &kept));
        sparse::pack(n, k, &kept, None, packed.get_mut());
        packed
    };
    let packed = ZEROS.map(without);
    let mut scratch = Buffer::noise(sparse::scratch_len(k, 1));
    let mut best = [f64::INFINITY; 1 + ZEROS.len()];
    // About a millisecond in turns of one way.
    let turns = (20_000_000 / (m * k * n).max(1)).max(1);
    for _ in 0..ROUNDS {
        for (at, best) in best.iter_mut().enumerate() {
            let start = Instant::now();
            for _ in 0..turns {
                let (x, y) = (x.get(), y.get_mut());
                if at == 0 {
                    pointwise::run(isa, &Serial, m, k, n, act, x, dense.get(), residual, y);
                } else {
                    let packed = packed[at - 1].get();
                    sparse::run(isa, &Serial, [m, k, n], act, x, packed, residual, scratch.get_mut(), y);
                }
            }
            *best = best.min(start.elapsed().as_secs_f64() / turns as f64);
        }
    }
    best
}
