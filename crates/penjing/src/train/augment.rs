//! What a photo may look like while training: the randomness depends on (seed, epoch, photo) and nothing else.

use penjing_runtime::pixels::{Pixels, Region, Rgb, View};
use serde::{Deserialize, Serialize};

use super::{color::Image, randaugment};
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
    /// Hue by up to this share of the colour circle, at most 0.5.
    pub hue: f32,
    /// How many of [RandAugment's operations](super::randaugment::Operation) are drawn; 0 for none.
    pub operations: u8,
    /// Their magnitude, 0 to 10.
    pub magnitude: u8,
    /// Probability that a rectangle is erased (arXiv 1708.04896): 2 to 33 % of the area, with an aspect of 0.3 to 3.3.
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

    /// One look at a photo: `out` is the network's input `[height, width, channels]`; `scratch` is overwritten.
    ///
    /// In this order: the cut and the mirror, the colours, RandAugment on the bytes, then the contract's normalization,
    /// then erasing, which leaves 0.
    ///
    /// # Panics
    /// As [`Pixels::tensor`].
    pub fn look(
        &self,
        pixels: &Pixels,
        photo: Rgb,
        random: &mut SplitMix64,
        scratch: &mut Vec<u8>,
        out: &mut [f32],
    ) {
        let region = (self.scale < 1.0).then(|| self.region(photo.width, photo.height, random));
        let flip = self.flip && random.uniform() < 0.5;
        pixels.bytes(photo, View { region, flip }, scratch);
        let mut image = Image { bytes: scratch, width: pixels.width, channels: pixels.channels() };
        self.colors(&mut image, random);
        let fill = pixels.mean.map(|mean| mean.round() as u8);
        for _ in 0..self.operations {
            randaugment::vary(&mut image, self.magnitude, fill, random);
        }
        pixels.normalize(scratch, out);
        if self.erase > 0.0 && random.uniform() < f64::from(self.erase) {
            erase(out, pixels.width, pixels.channels(), random);
        }
    }

    /// A part of the photo: torchvision's `RandomResizedCrop.get_params`.
    fn region(&self, width: usize, height: usize, random: &mut SplitMix64) -> Region {
        let area = (width * height) as f64;
        for _ in 0..ATTEMPTS {
            let area = area * between(self.scale, 1.0, random);
            let aspect = between(ASPECT.0.ln(), ASPECT.1.ln(), random).exp();
            let w = (area * aspect).sqrt().round_ties_even() as usize;
            let h = (area / aspect).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (y, x) = (random.below(height - h + 1), random.below(width - w + 1));
                return Region { x, y, width: w, height: h };
            }
        }
        // A long photo: as much of its middle as the aspect allows.
        let (w, h) = (width as f64, height as f64);
        let w = w.min((h * ASPECT.1).round_ties_even()) as usize;
        let h = h.min((width as f64 / ASPECT.0).round_ties_even()) as usize;
        Region { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
    }

    /// Brightness, contrast, saturation and hue in random order: torchvision's `ColorJitter`.
    fn colors(&self, image: &mut Image, random: &mut SplitMix64) {
        if self.jitter <= 0.0 && self.hue <= 0.0 {
            return;
        }
        let least = f64::from((1.0 - self.jitter).max(0.0));
        let factors: [f32; 3] =
            std::array::from_fn(|_| between(least, f64::from(1.0 + self.jitter), random) as f32);
        let turn = f64::from(self.hue.min(0.5));
        let turn = between(-turn, turn, random) as f32;
        let mut order = [0, 1, 2, 3];
        random.shuffle(&mut order);
        for change in order {
            match change {
                0 if self.jitter > 0.0 => image.brightness(factors[0]),
                1 if self.jitter > 0.0 => image.contrast(factors[1]),
                2 if self.jitter > 0.0 => image.saturation(factors[2]),
                3 if self.hue > 0.0 => image.hue(turn),
                _ => {}
            }
        }
    }
}

/// Tries at a rectangle that fits.
const ATTEMPTS: usize = 10;
/// Width by height of what is shown of a photo.
const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Share of the input, and height by width, of what is erased.
const ERASED: (f64, f64) = (0.02, 0.33);
const ERASED_ASPECT: (f64, f64) = (0.3, 3.3);

/// Sets a random rectangle of the input to 0; none where ten tries do not fit.
fn erase(input: &mut [f32], width: usize, channels: usize, random: &mut SplitMix64) {
    let row = width * channels;
    let height = input.len() / row;
    let area = (width * height) as f64;
    for _ in 0..ATTEMPTS {
        let area = area * between(ERASED.0, ERASED.1, random);
        let aspect = between(ERASED_ASPECT.0.ln(), ERASED_ASPECT.1.ln(), random).exp();
        let (h, w) = ((area * aspect).sqrt().round() as usize, (area / aspect).sqrt().round() as usize);
        if h < height && w < width {
            let (y, x) = (random.below(height - h + 1), random.below(width - w + 1));
            for row in input.chunks_exact_mut(row).skip(y).take(h) {
                row[x * channels..(x + w) * channels].fill(0.0);
            }
            return;
        }
    }
}

fn between(low: f64, high: f64, random: &mut SplitMix64) -> f64 {
    low + (high - low) * random.uniform()
}

/// Randomness of one look.
pub fn random(seed: u64, epoch: u64, photo: u64) -> SplitMix64 {
    let mix = |a: u64, b: u64| SplitMix64::new(a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next_u64();
    SplitMix64::new(mix(mix(seed, epoch), photo))
}

#[cfg(test)]
pub(super) use tests::goldens;

#[cfg(test)]
mod tests {
    use penjing_runtime::pixels::{Color, DecodeRule, Filter, Fit};

    use super::*;

    /// A line of `tests/goldens/augment.csv`.
    pub struct Golden {
        pub group: String,
        pub name: String,
        pub number: f64,
        pub width: usize,
        height: usize,
        pub channels: usize,
        seed: u32,
        hash: u64,
        first: String,
    }

    pub fn goldens() -> impl Iterator<Item = Golden> {
        let text = include_str!("../../tests/goldens/augment.csv");
        text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let [group, name, number, width, height, channels, seed, hash, first] = fields[..] else {
                panic!("{line}");
            };
            Golden {
                group: group.to_owned(),
                name: name.to_owned(),
                number: number.parse().unwrap(),
                width: width.parse().unwrap(),
                height: height.parse().unwrap(),
                channels: channels.parse().unwrap(),
                seed: seed.parse().unwrap(),
                hash: u64::from_str_radix(hash, 16).unwrap(),
                first: first.to_owned(),
            }
        })
    }

    impl Golden {
        /// The script's noise; of every second seed with little contrast.
        pub fn photo(&self) -> Vec<u8> {
            let mut state = self.seed;
            let values = (0..self.width * self.height * self.channels).map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                let value = (state >> 24) as u8;
                if self.seed.is_multiple_of(2) { 50 + value / 2 } else { value }
            });
            values.collect()
        }

        pub fn check(&self, bytes: &[u8]) {
            let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
            });
            let first: String = bytes.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
            let Golden { group, name, number, .. } = self;
            assert_eq!((first, hash), (self.first.clone(), self.hash), "{group} {name} {number}");
        }
    }

    fn pixels(color: Color) -> Pixels {
        Pixels {
            height: 40,
            width: 50,
            color,
            fit: Fit::Squash,
            filter: Filter::Bilinear,
            mean: [100.0, 110.0, 120.0],
            std: [60.0; 3],
            decode: DecodeRule::Full,
        }
    }

    fn photo(width: usize, height: usize) -> Vec<u8> {
        let mut random = SplitMix64::new(3);
        (0..width * height * 3).map(|_| random.next_u64() as u8).collect()
    }

    fn look(augment: Augment, color: Color, seed: u64) -> Vec<f32> {
        let (pixels, data) = (pixels(color), photo(60, 44));
        let mut out = vec![f32::NAN; pixels.len()];
        let photo = Rgb { width: 60, height: 44, data: &data };
        augment.look(&pixels, photo, &mut SplitMix64::new(seed), &mut Vec::new(), &mut out);
        out
    }

    #[test]
    fn without_augmentation_a_look_is_what_the_contract_says() {
        for color in [Color::Rgb, Color::Gray] {
            let (pixels, data) = (pixels(color), photo(60, 44));
            let mut plain = vec![0.0; pixels.len()];
            pixels.tensor(Rgb { width: 60, height: 44, data: &data }, View::PLAIN, &mut plain);
            assert_eq!(look(Augment::NONE, color, 1), plain);
        }
    }

    #[test]
    fn regions_have_the_area_and_aspect_they_may_have() {
        let augment = Augment { scale: 0.35, ..Augment::NONE };
        let mut random = SplitMix64::new(1);
        let (mut least, mut most, mut sum) = (f64::MAX, 0f64, 0.0);
        for _ in 0..4000 {
            let Region { x, y, width, height } = augment.region(500, 375, &mut random);
            assert!(width > 0 && height > 0 && x + width <= 500 && y + height <= 375);
            let aspect = width as f64 / height as f64;
            assert!((0.745..1.345).contains(&aspect), "{aspect}");
            let share = (width * height) as f64 / (500.0 * 375.0);
            (least, most, sum) = (least.min(share), most.max(share), sum + share);
        }
        assert!((0.348..0.36).contains(&least) && (0.98..=1.0).contains(&most), "{least} {most}");
        // torchvision's get_params gives 0.576 for this photo: large shares often do not fit and are drawn again.
        assert!((sum / 4000.0 - 0.576).abs() < 0.008, "{}", sum / 4000.0);
    }

    #[test]
    fn of_a_long_photo_the_middle_is_shown() {
        let augment = Augment { scale: 0.5, ..Augment::NONE };
        let middle = |width, height| {
            let region = augment.region(width, height, &mut SplitMix64::new(1));
            (region.x, region.y, region.width, region.height)
        };
        assert_eq!(middle(1000, 30), (480, 0, 40, 30));
        assert_eq!(middle(30, 1000), (0, 480, 30, 40));
        assert_eq!(middle(1, 1), (0, 0, 1, 1));
    }

    #[test]
    fn half_of_the_looks_are_mirrored_and_nothing_else() {
        let flip = Augment { flip: true, ..Augment::NONE };
        let plain = look(Augment::NONE, Color::Gray, 0);
        let mut mirrored = plain.clone();
        mirrored.chunks_exact_mut(50).for_each(<[f32]>::reverse);
        let looks: Vec<_> = (0..200).map(|seed| look(flip, Color::Gray, seed)).collect();
        let count = looks.iter().filter(|look| **look == mirrored).count();
        assert!((75..=125).contains(&count), "{count}");
        assert!(looks.iter().all(|look| *look == mirrored || *look == plain));
    }

    #[test]
    fn jitter_is_bounded_and_gray_has_no_color_to_change() {
        let mean = |look: &[f32]| look.iter().sum::<f32>() / look.len() as f32;
        let augment = Augment { jitter: 0.2, ..Augment::NONE };
        for color in [Color::Rgb, Color::Gray] {
            let plain = mean(&look(Augment::NONE, color, 0)) * 60.0 + 110.0;
            let means: Vec<f32> =
                (0..100).map(|seed| mean(&look(augment, color, seed)) * 60.0 + 110.0).collect();
            let (low, high) = means.iter().fold((f32::MAX, 0f32), |(l, h), &m| (l.min(m), h.max(m)));
            assert!(low > plain * 0.78 && low < plain * 0.85, "{low} of {plain}");
            assert!(high < plain * 1.22 && high > plain * 1.15, "{high} of {plain}");
        }
        let hue = Augment { hue: 0.4, ..Augment::NONE };
        assert_eq!(look(hue, Color::Gray, 1), look(Augment::NONE, Color::Gray, 1));
        assert_ne!(look(hue, Color::Rgb, 1), look(Augment::NONE, Color::Rgb, 1));
    }

    #[test]
    fn erasing_leaves_a_rectangle_of_zeros() {
        let augment = Augment { erase: 0.5, ..Augment::NONE };
        let plain = look(Augment::NONE, Color::Rgb, 0);
        let (mut erased, mut least, mut most) = (0, 1f64, 0f64);
        for seed in 0..400 {
            let look = look(augment, Color::Rgb, seed);
            let changed: Vec<usize> = (0..look.len()).filter(|&i| look[i] != plain[i]).collect();
            if changed.is_empty() {
                continue;
            }
            let (rows, columns) = (changed.iter().map(|i| i / 150), changed.iter().map(|i| i % 150 / 3));
            let (top, bottom) = (rows.clone().min().unwrap(), rows.max().unwrap());
            let (left, right) = (columns.clone().min().unwrap(), columns.max().unwrap());
            for (i, (&value, &before)) in look.iter().zip(&plain).enumerate() {
                let within = (top..=bottom).contains(&(i / 150)) && (left..=right).contains(&(i % 150 / 3));
                assert_eq!(value, if within { 0.0 } else { before });
            }
            let share = ((bottom - top + 1) * (right - left + 1)) as f64 / 2000.0;
            (erased, least, most) = (erased + 1, least.min(share), most.max(share));
        }
        assert!((160..=240).contains(&erased), "{erased}");
        assert!((0.015..0.05).contains(&least) && (0.28..0.34).contains(&most), "{least} {most}");
    }

    #[test]
    fn operations_change_every_second_look() {
        let augment = Augment { operations: 1, magnitude: 10, ..Augment::NONE };
        for color in [Color::Rgb, Color::Gray] {
            let plain = look(Augment::NONE, color, 0);
            let changed = (0..200).filter(|&seed| look(augment, color, seed) != plain).count();
            // The noise fills the whole range already, and gray has no saturation, so fewer than half are seen.
            assert!((60..=110).contains(&changed), "{changed}");
        }
    }

    #[test]
    fn looks_follow_seed_epoch_and_photo() {
        let first = |seed, epoch, photo| random(seed, epoch, photo).next_u64();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        let all = [first(1, 2, 3), first(2, 1, 3), first(1, 3, 2), first(3, 2, 1), first(0, 0, 0)];
        assert!((0..5).all(|i| (0..i).all(|j| all[i] != all[j])));
    }
}
