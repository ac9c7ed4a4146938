//! What one core of this machine can do: multiply-adds a second, and bytes a second out of each level of memory.

use std::{hint::black_box, time::Instant};

use penjing_kernels::{Act, Isa, Serial, pointwise};

use crate::buffer::Buffer;

pub struct Machine {
    /// As [`peak`].
    pub peak: f64,
    /// The nearest first. The last one holds everything.
    pub levels: Vec<Level>,
}

/// A cache, or memory.
pub struct Level {
    pub name: &'static str,
    /// What fits.
    pub bytes: usize,
    /// Bytes read a second.
    pub read: f64,
}

impl Machine {
    pub fn measure(isa: Isa) -> Machine {
        let l2 = cache_bytes(2).unwrap_or(512 << 10);
        let l3 = cache_bytes(3).filter(|&l3| l3 > l2);
        let level = |name, bytes, set| Level { name, bytes, read: bandwidth(isa, set) };
        let mut levels = vec![level("L2", l2, l2 / 2)];
        // Far from both ends: neighbours in the machine may use the same L3.
        levels.extend(l3.map(|l3| level("L3", l3, (4 * l2).min(l3 / 2))));
        levels.push(level("DRAM", usize::MAX, (4 * l3.unwrap_or(l2)).clamp(64 << 20, 512 << 20)));
        Machine { peak: peak(isa), levels }
    }

    /// The nearest level that holds so much.
    pub fn level(&self, bytes: usize) -> &Level {
        let fits = self.levels.iter().find(|level| level.bytes >= bytes);
        fits.unwrap_or(&self.levels[self.levels.len() - 1])
    }
}

/// Operations a second, two a multiply-add.
pub fn peak(isa: Isa) -> f64 {
    registers(isa).max(product(isa))
}

/// Size of a cache of the first processor, where the system tells it.
fn cache_bytes(level: u32) -> Option<usize> {
    (0..8).find_map(|index| {
        let read = |what| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{what}");
            std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
        };
        let kib: usize = read("size")?.strip_suffix('K')?.parse().ok()?;
        (read("level")?.parse() == Ok(level) && read("type")? != "Instruction").then_some(kib << 10)
    })
}

/// Bytes a second of reading so many bytes again and again.
fn bandwidth(isa: Isa, bytes: usize) -> f64 {
    let values = Buffer::noise(bytes / 4);
    let passes = (64 << 20) / bytes + 1;
    let seconds = best(10, || {
        for _ in 0..passes {
            black_box(sum(isa, black_box(values.get())));
        }
    });
    (passes * bytes) as f64 / seconds
}

/// Seconds of the fastest run.
pub fn best(runs: usize, mut work: impl FnMut()) -> f64 {
    (0..runs).fold(f64::INFINITY, |best, _| {
        let start = Instant::now();
        work();
        best.min(start.elapsed().as_secs_f64())
    })
}

/// Operations a second of a small product, whose matrices stay in the first-level cache.
fn product(isa: Isa) -> f64 {
    let (m, k, n) = (14, 256, 32);
    let (x, mut y) = (Buffer::noise(m * k), Buffer::noise(m * n));
    let packed = Buffer::noise(pointwise::packed_len(n, k));
    let seconds = best(200, || {
        for _ in 0..50 {
            let (x, packed) = (x.get(), black_box(packed.get()));
            pointwise::run(isa, &Serial, m, k, n, Act::None, x, packed, None, y.get_mut());
        }
    });
    2.0 * (50 * m * k * n) as f64 / seconds
}

/// Steps of [`registers`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const STEPS: usize = 20_000;

/// Operations a second of multiply-adds that touch registers only; 0 where only compiled code can tell.
#[cfg(target_arch = "x86_64")]
fn registers(isa: Isa) -> f64 {
    let (work, values): (fn(), usize) = match isa.name() {
        // SAFETY: the `Isa` exists, so the CPU has its features.
        "avx512" | "avx512vnni" => (|| _ = black_box(unsafe { x86::multiply_add_512() }), 16 * 16),
        // SAFETY: as above.
        "avx2" | "avxvnni" => (|| _ = black_box(unsafe { x86::multiply_add_256() }), 12 * 8),
        _ => return 0.0,
    };
    2.0 * (STEPS * values) as f64 / best(200, work)
}

/// Likewise.
#[cfg(target_arch = "aarch64")]
fn registers(isa: Isa) -> f64 {
    if isa == Isa::scalar() {
        return 0.0;
    }
    // SAFETY: every aarch64 CPU has NEON.
    2.0 * (STEPS * 16 * 4) as f64 / best(200, || _ = black_box(unsafe { neon::multiply_add() }))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_: Isa) -> f64 {
    0.0
}

/// The sum in an order that reads as fast as the instruction set can.
fn sum(isa: Isa, values: &[f32]) -> f32 {
    match isa.name() {
        // SAFETY: the `Isa` exists, so the CPU has its features.
        #[cfg(target_arch = "x86_64")]
        "avx512" | "avx512vnni" => unsafe { x86::sum_512(values) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        "avx2" | "avxvnni" => unsafe { x86::sum_256(values) },
        // Whose vectors are those of NEON too.
        _ => {
            let mut sums = [[0.0f32; 4]; 8];
            for chunk in values.as_chunks::<32>().0 {
                for (sums, values) in sums.iter_mut().zip(chunk.as_chunks::<4>().0) {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum += value;
                    }
                }
            }
            sums.as_flattened().iter().sum()
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::STEPS;

    #[target_feature(enable = "avx512f")]
    pub fn multiply_add_512() -> f32 {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [a; 16];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, *sum, b);
            }
        }
        sums.iter().map(|&sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn multiply_add_256() -> f32 {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [a; 12];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, *sum, b);
            }
        }
        reduce_256(&sums)
    }

    #[target_feature(enable = "avx512f")]
    pub fn sum_512(values: &[f32]) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 8];
        for chunk in values.as_chunks::<128>().0 {
            for (sum, values) in sums.iter_mut().zip(chunk.as_chunks::<16>().0) {
                // SAFETY: it reads the 16 values.
                *sum = _mm512_add_ps(*sum, unsafe { _mm512_loadu_ps(values.as_ptr()) });
            }
        }
        sums.iter().map(|&sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2")]
    pub fn sum_256(values: &[f32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 8];
        for chunk in values.as_chunks::<64>().0 {
            for (sum, values) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
                // SAFETY: it reads the 8 values.
                *sum = _mm256_add_ps(*sum, unsafe { _mm256_loadu_ps(values.as_ptr()) });
            }
        }
        reduce_256(&sums)
    }

    /// The sum of all values. All of them count, or the compiler would leave some out above.
    #[target_feature(enable = "avx")]
    fn reduce_256(sums: &[__m256]) -> f32 {
        let all = sums.iter().fold(_mm256_setzero_ps(), |all, &sum| _mm256_add_ps(all, sum));
        let mut lanes = [0.0; 8];
        // SAFETY: it writes the 8 values.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), all) };
        lanes.iter().sum()
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::{arch::aarch64::*, hint::black_box};

    use super::STEPS;

    #[target_feature(enable = "neon")]
    pub fn multiply_add() -> f32 {
        let (a, b) = (vdupq_n_f32(black_box(0.5)), vdupq_n_f32(black_box(0.25)));
        let mut sums = [a; 16];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = vfmaq_f32(b, a, *sum);
            }
        }
        sums.iter().map(|&sum| vaddvq_f32(sum)).sum()
    }
}
