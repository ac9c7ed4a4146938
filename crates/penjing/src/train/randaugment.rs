//! RandAugment (Cubuk et al., arXiv 1909.13719) on bytes, with timm's operations and ranges (`auto_augment.py`, the
//! increasing ones) but for inverting, which leaves nothing of a photo's colours, and with posterizing to 4 bits at most.

use super::color::Image;
use crate::random::SplitMix64;

/// What is done to a photo; `m` is the magnitude, 0 to 10, and the sign is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Each channel stretched to 0..=255.
    AutoContrast,
    /// Each channel's values used about equally often.
    Equalize,
    /// By a factor of 1 ± 0.09m.
    Brightness,
    /// By a factor of 1 ± 0.09m.
    Contrast,
    /// By a factor of 1 ± 0.09m.
    Saturation,
    /// By a factor of 1 ± 0.09m.
    Sharpness,
    /// The lowest 0.4m bits, rounded down, are cut.
    Posterize,
    /// Values from 256 − 25.6m on are inverted.
    Solarize,
    /// By ± 3m degrees around the middle.
    Rotate,
    /// Rows are shifted by ± 0.03m of their place.
    ShearX,
    /// Columns are shifted by ± 0.03m of their place.
    ShearY,
    /// By ± 0.045m of the width.
    TranslateX,
    /// By ± 0.045m of the height.
    TranslateY,
}

impl Operation {
    /// Those that are drawn from.
    pub const ALL: [Operation; 13] = [
        Operation::AutoContrast,
        Operation::Equalize,
        Operation::Brightness,
        Operation::Contrast,
        Operation::Saturation,
        Operation::Sharpness,
        Operation::Posterize,
        Operation::Solarize,
        Operation::Rotate,
        Operation::ShearX,
        Operation::ShearY,
        Operation::TranslateX,
        Operation::TranslateY,
    ];

    /// Changes a photo at a magnitude; `sign` is 1 or -1, and `fill` is seen where the photo has been moved away.
    pub fn apply(self, image: &mut Image, magnitude: u8, sign: f64, fill: [u8; 3]) {
        let level = f64::from(magnitude.min(10)) / 10.0;
        let factor = (1.0 + sign * (level * 0.9)).max(0.1) as f32;
        let shear = sign * (level * 0.3);
        let shift = sign * (level * 0.45);
        match self {
            Operation::AutoContrast => image.autocontrast(),
            Operation::Equalize => image.equalize(),
            Operation::Brightness => image.brightness(factor),
            Operation::Contrast => image.contrast(factor),
            Operation::Saturation => image.saturation(factor),
            Operation::Sharpness => image.sharpness(factor),
            Operation::Posterize => image.posterize(8 - (level * 4.0) as u32),
            Operation::Solarize => image.solarize(256 - (level * 256.0) as u32),
            Operation::Rotate => {
                let matrix = rotation(image, sign * (level * 30.0));
                image.affine(matrix, fill);
            }
            Operation::ShearX => image.affine([1.0, shear, 0.0, 0.0, 1.0, 0.0], fill),
            Operation::ShearY => image.affine([1.0, 0.0, 0.0, shear, 1.0, 0.0], fill),
            Operation::TranslateX => {
                image.affine([1.0, 0.0, shift * image.width as f64, 0.0, 1.0, 0.0], fill);
            }
            Operation::TranslateY => {
                image.affine([1.0, 0.0, 0.0, 0.0, 1.0, shift * image.height() as f64], fill);
            }
        }
    }
}

/// Draws an operation and applies it with a probability of one half, as timm does.
pub fn vary(image: &mut Image, magnitude: u8, fill: [u8; 3], random: &mut SplitMix64) {
    let operation = Operation::ALL[random.below(Operation::ALL.len())];
    let (applied, positive) = (random.uniform() < 0.5, random.uniform() < 0.5);
    if applied {
        operation.apply(image, magnitude, if positive { 1.0 } else { -1.0 }, fill);
    }
}

/// The matrix with which Pillow's `rotate` turns a photo counter-clockwise.
fn rotation(image: &Image, degrees: f64) -> [f64; 6] {
    // Pillow rounds so that right angles are exact.
    let rounded = |value: f64| (value * 1e15).round() / 1e15;
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let (cos, sin, minus) = (rounded(angle.cos()), rounded(angle.sin()), rounded(-angle.sin()));
    let (x, y) = (image.width as f64 / 2.0, image.height() as f64 / 2.0);
    [cos, sin, -x * cos + -y * sin + x, minus, cos, -x * minus + -y * cos + y]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_equal_those_of_timm() {
        let names = [
            "autocontrast",
            "equalize",
            "brightness",
            "contrast",
            "saturation",
            "sharpness",
            "posterize",
            "solarize",
            "rotate",
            "shear_x",
            "shear_y",
            "translate_x",
            "translate_y",
        ];
        for case in crate::train::augment::goldens().filter(|case| case.group == "operation") {
            let place = names.iter().position(|name| *name == case.name).unwrap();
            let mut bytes = case.photo();
            let mut image = Image { bytes: &mut bytes, width: case.width, channels: case.channels };
            let magnitude = case.number.abs() as u8;
            Operation::ALL[place].apply(&mut image, magnitude, case.number.signum(), [124, 116, 104]);
            case.check(&bytes);
        }
    }
}
