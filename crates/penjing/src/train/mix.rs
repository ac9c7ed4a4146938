//! Photos of a batch blended into each other, and their targets with them.

use serde::{Deserialize, Serialize};

use crate::random::SplitMix64;

/// How photos are blended: the share λ of a photo in its blend follows Beta(α, α), drawn once a batch. With both kinds
/// on, each takes every second batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// The α of mixup (arXiv 1710.09412): λ of the photo plus 1 − λ of its partner; 0 for none.
    pub mixup: f64,
    /// The α of cutmix (arXiv 1905.04899): a rectangle of 1 − λ of the area comes from the partner; 0 for none.
    pub cutmix: f64,
}

impl Mix {
    /// Blends the inputs `[n, height, width, channels]` and the targets `[n, classes]` of a batch; the partner of the
    /// first photo is the last, that of the second the last but one, and so on.
    ///
    /// # Panics
    /// If `inputs` or `targets` is not as long as its shape says.
    pub fn apply(
        &self,
        random: &mut SplitMix64,
        shape: [usize; 4],
        inputs: &mut [f32],
        targets: &mut [f32],
        classes: usize,
    ) {
        let [n, height, width, channels] = shape;
        assert_eq!(inputs.len(), n * height * width * channels, "inputs of {shape:?}");
        assert_eq!(targets.len(), n * classes, "targets of {n} photos and {classes} classes");
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (false, false) => return,
            (true, true) => random.uniform() < 0.5,
            (_, cutmix) => cutmix,
        };
        if cut {
            let region = Region::draw(beta(self.cutmix, random), height, width, random);
            pairs(inputs, height * width * channels, |a, b| region.swap(a, b, width, channels));
            let share = (region.height * region.width) as f64 / (height * width) as f64;
            pairs(targets, classes, |a, b| blend(a, b, share as f32));
        } else {
            let share = (1.0 - beta(self.mixup, random)) as f32;
            pairs(inputs, height * width * channels, |a, b| blend(a, b, share));
            pairs(targets, classes, |a, b| blend(a, b, share));
        }
    }
}

/// A rectangle of the input.
struct Region {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Region {
    /// Of 1 − `kept` of the area and the input's aspect, around a random pixel; what reaches outside is cut off.
    fn draw(kept: f64, height: usize, width: usize, random: &mut SplitMix64) -> Region {
        let side = (1.0 - kept).max(0.0).sqrt();
        let mut along = |count: usize| {
            let (half, middle) = ((count as f64 * side) as usize / 2, random.below(count));
            let start = middle.saturating_sub(half);
            (start, (middle + half).min(count) - start)
        };
        let ((y, height), (x, width)) = (along(height), along(width));
        Region { x, y, width, height }
    }

    fn swap(&self, a: &mut [f32], b: &mut [f32], width: usize, channels: usize) {
        let columns = self.x * channels..(self.x + self.width) * channels;
        let rows = a.chunks_exact_mut(width * channels).zip(b.chunks_exact_mut(width * channels));
        for (a, b) in rows.skip(self.y).take(self.height) {
            a[columns.clone()].swap_with_slice(&mut b[columns.clone()]);
        }
    }
}

/// Each gets `share` of the other.
fn blend(a: &mut [f32], b: &mut [f32], share: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (*a + (*b - *a) * share, *b + (*a - *b) * share);
    }
}

/// Calls `both` on each row of `len` values and its partner; the middle row of an odd number is its own.
fn pairs(rows: &mut [f32], len: usize, both: impl Fn(&mut [f32], &mut [f32])) {
    let half = rows.len() / len.max(1) / 2 * len;
    let (front, back) = rows.split_at_mut(half);
    for (a, b) in front.chunks_exact_mut(len.max(1)).zip(back.rchunks_exact_mut(len.max(1))) {
        both(a, b);
    }
}

/// Beta(α, α), as the share of one of two gamma values.
fn beta(alpha: f64, random: &mut SplitMix64) -> f64 {
    let (one, other) = (ln_gamma_value(alpha, random), ln_gamma_value(alpha, random));
    1.0 / (1.0 + (other - one).exp())
}

/// Logarithm of a value of the gamma distribution of shape `alpha` (Marsaglia and Tsang, 2000); small shapes give values
/// too small for themselves.
fn ln_gamma_value(alpha: f64, random: &mut SplitMix64) -> f64 {
    // In 0..1 without 0, which has no logarithm.
    let ln_uniform = |random: &mut SplitMix64| (1.0 - random.uniform()).ln();
    if alpha < 1.0 {
        let ln_power = ln_uniform(random) / alpha;
        return ln_gamma_value(alpha + 1.0, random) + ln_power;
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = random.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && ln_uniform(random) < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [5, 12, 16, 3];
    const LEN: usize = 12 * 16 * 3;

    /// Photo i is i everywhere and of class i.
    fn batch(mix: Mix, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let mut inputs: Vec<f32> = (0..5 * LEN).map(|at| (at / LEN) as f32).collect();
        let mut targets: Vec<f32> = (0..25).map(|at| f32::from(u8::from(at / 5 == at % 5))).collect();
        mix.apply(&mut SplitMix64::new(seed), SHAPE, &mut inputs, &mut targets, 5);
        (inputs, targets)
    }

    #[test]
    fn beta_values_have_the_moments_of_the_beta_distribution() {
        let mut random = SplitMix64::new(5);
        // How many values lie below a quarter: a third of the arcsine distribution, a quarter of the uniform one.
        for (alpha, quarter) in
            [(0.01, None), (0.2, None), (0.5, Some(1.0 / 3.0)), (1.0, Some(0.25)), (4.0, None)]
        {
            let values: Vec<f64> = (0..50_000).map(|_| beta(alpha, &mut random)).collect();
            assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
            let mean = |f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(v)).sum::<f64>() / 50_000.0;
            assert!((mean(&|v| v) - 0.5).abs() < 0.01, "{alpha}");
            let variance = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean(&|v| (v - 0.5).powi(2)) / variance - 1.0).abs() < 0.03, "{alpha}");
            if let Some(quarter) = quarter {
                assert!((mean(&|v| f64::from(u8::from(v < 0.25))) - quarter).abs() < 0.01, "{alpha}");
            }
        }
    }

    #[test]
    fn off_means_untouched() {
        let (inputs, targets) = batch(Mix { mixup: 0.0, cutmix: 0.0 }, 1);
        assert!(inputs.iter().enumerate().all(|(at, &value)| value == (at / LEN) as f32));
        assert!(targets.iter().enumerate().all(|(at, &value)| (value == 1.0) == (at / 5 == at % 5)));
    }

    #[test]
    fn mixup_blends_photos_and_targets_alike() {
        let mut sum = 0.0;
        for seed in 0..500 {
            let (inputs, targets) = batch(Mix { mixup: 0.4, cutmix: 0.0 }, seed);
            let kept = targets[0];
            sum += kept;
            for i in 0..5 {
                let row = &targets[i * 5..][..5];
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                if i != 2 {
                    assert!((row[i] - kept).abs() < 1e-6 && (row[4 - i] + kept - 1.0).abs() < 1e-6);
                }
                let expected = kept * i as f32 + (1.0 - kept) * (4 - i) as f32;
                assert!(inputs[i * LEN..][..LEN].iter().all(|value| (value - expected).abs() < 1e-5));
            }
        }
        assert!((sum / 500.0 - 0.5).abs() < 0.05, "{sum}");
    }

    #[test]
    fn cutmix_swaps_a_rectangle_and_counts_its_pixels() {
        let (mut least, mut most) = (1f32, 0f32);
        for seed in 0..500 {
            let (inputs, targets) = batch(Mix { mixup: 0.0, cutmix: 1.0 }, seed);
            for i in [0, 1, 3, 4] {
                let (own, other) = (i as f32, (4 - i) as f32);
                let photo = &inputs[i * LEN..][..LEN];
                assert!(photo.iter().all(|&value| value == own || value == other));
                let count = photo.iter().filter(|&&value| value == other).count();
                let rows = photo.chunks(48).filter(|row| row.contains(&other)).count();
                let columns = (0..48).filter(|x| photo.chunks(48).any(|row| row[*x] == other)).count();
                assert_eq!(count, rows * columns, "not a rectangle");
                let row = &targets[i * 5..][..5];
                assert!((row[4 - i] - count as f32 / LEN as f32).abs() < 1e-6);
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                (least, most) = (least.min(row[i]), most.max(row[i]));
            }
            assert!(inputs[2 * LEN..][..LEN].iter().all(|&value| value == 2.0));
        }
        assert!(least < 0.35 && most > 0.95, "{least} {most}");
    }

    #[test]
    fn both_take_turns() {
        let whole = |inputs: &[f32]| inputs[..LEN].iter().all(|&value| value == inputs[0]);
        let mixed = (0..200).filter(|&seed| whole(&batch(Mix { mixup: 4.0, cutmix: 4.0 }, seed).0)).count();
        assert!((70..=130).contains(&mixed), "{mixed}");
    }
}
