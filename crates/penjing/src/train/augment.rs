//! What a photo may look like while training: the randomness depends on (seed, epoch, photo) and nothing else.

use penjing_runtime::pixels::{Pixels, Region, Rgb, View};
use serde::{Deserialize, Serialize};

use crate::random::SplitMix64;

/// How photos are varied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Least share of the photo's area that is shown, with an aspect of ¾ to 4/3 (RandomResizedCrop); 1: the
    /// contract's own fit.
    pub scale: f64,
    /// Whether every second look is mirrored.
    pub flip: bool,
    /// Brightness, contrast and saturation, each by a factor in 1 ± this, in random order.
    pub jitter: f32,
    /// Hue by up to this share of the colour circle.
    pub hue: f32,
    /// RandAugment's operations; 0 for none.
    pub operations: u8,
    /// Their magnitude, 0 to 10.
    pub magnitude: u8,
    /// Probability that a rectangle is erased (arXiv 1708.04896).
    pub erase: f32,
}

impl Augment {
    /// The photo as the contract says.
    pub const NONE: Augment =
        Augment { scale: 1.0, flip: false, jitter: 0.0, hue: 0.0, operations: 0, magnitude: 0, erase: 0.0 };

    /// What fits so many photos of a class.
    pub fn recommended(photos_per_class: f64) -> Augment {
        let scale = if photos_per_class < 20.0 { 0.5 } else { 0.35 };
        Augment { scale, flip: true, jitter: 0.2, ..Augment::NONE }
    }

    /// One look at a photo: `out` is the network's input.
    pub fn look(
        &self,
        pixels: &Pixels,
        photo: Rgb,
        random: &mut SplitMix64,
        scratch: &mut Vec<u8>,
        out: &mut [f32],
    ) {
        let flip = self.flip && random.uniform() < 0.5;
        let region = (self.scale < 1.0).then(|| self.region(photo.width, photo.height, random));
        pixels.bytes(photo, View { region, flip }, scratch);
        if self.jitter > 0.0 {
            let f: Vec<f32> =
                (0..3).map(|_| 1.0 + self.jitter * (random.uniform() as f32 * 2.0 - 1.0)).collect();
            let mean =
                scratch.iter().map(|&b| f64::from(b)).sum::<f64>() as f32 / scratch.len() as f32 * f[0];
            for p in scratch.chunks_exact_mut(3) {
                let v = [p[0], p[1], p[2]].map(|b| (f32::from(b) * f[0] - mean) * f[1] + mean);
                let luma = 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2];
                for (p, v) in p.iter_mut().zip(v) {
                    *p = ((v - luma) * f[2] + luma).round().clamp(0.0, 255.0) as u8;
                }
            }
        }
        pixels.normalize(scratch, out);
    }

    fn region(&self, width: usize, height: usize, random: &mut SplitMix64) -> Region {
        let area = (width * height) as f64 * (self.scale + (1.0 - self.scale) * random.uniform());
        let aspect = (0.75f64.ln() + random.uniform() * (16.0f64 / 9.0).ln()).exp();
        let side = |extent: f64, most: usize| (extent.round() as usize).clamp(1, most);
        let (w, h) = (side((area * aspect).sqrt(), width), side((area / aspect).sqrt(), height));
        let (x, y) = (random.below(width - w + 1), random.below(height - h + 1));
        Region { x, y, width: w, height: h }
    }
}

/// Randomness of one look.
pub fn random(seed: u64, epoch: u64, photo: u64) -> SplitMix64 {
    let mix = |a: u64, b: u64| SplitMix64::new(a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next_u64();
    SplitMix64::new(mix(mix(seed, epoch), photo))
}
