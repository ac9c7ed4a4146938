//! Changes to a photo's bytes, each equal to Pillow's of the same name byte for byte (`scripts/goldens/augment.py`).

/// A photo `[height, width, channels]` in 8 bits; three channels are red, green and blue, one is gray.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its bytes.
    pub bytes: &'a mut [u8],
    /// Columns.
    pub width: usize,
    /// 3, or 1 for gray.
    pub channels: usize,
}

impl Image<'_> {
    /// Rows.
    pub fn height(&self) -> usize {
        self.bytes.len() / (self.width * self.channels).max(1)
    }

    /// Away from black: `ImageEnhance.Brightness`.
    pub fn brightness(&mut self, factor: f32) {
        self.map(|value| blend(0, value, factor));
    }

    /// Away from the mean luma: `ImageEnhance.Contrast`.
    pub fn contrast(&mut self, factor: f32) {
        let pixels = self.bytes.len() / self.channels;
        let sum: u64 = match self.channels {
            3 => self.bytes.as_chunks().0.iter().map(|&pixel| u64::from(luma(pixel))).sum(),
            _ => self.bytes.iter().map(|&gray| u64::from(gray)).sum(),
        };
        let mean = (sum as f64 / pixels.max(1) as f64 + 0.5) as u8;
        self.map(|value| blend(mean, value, factor));
    }

    /// Away from each pixel's luma: `ImageEnhance.Color`. Gray stays as it is.
    pub fn saturation(&mut self, factor: f32) {
        if self.channels == 3 {
            // In runs, for the blend then goes over plain rows of bytes.
            let mut grays = [0; 96];
            for run in self.bytes.chunks_mut(grays.len()) {
                for (gray, pixel) in grays.as_chunks_mut().0.iter_mut().zip(run.as_chunks().0) {
                    *gray = [luma(*pixel); 3];
                }
                for (value, gray) in run.iter_mut().zip(grays) {
                    *value = blend(gray, *value, factor);
                }
            }
        }
    }

    /// Turned by `share` of the colour circle, -0.5 to 0.5: torchvision's `adjust_hue` of a Pillow photo, in steps of
    /// 1/255. Gray stays as it is.
    pub fn hue(&mut self, share: f32) {
        if self.channels == 3 {
            let turn = (f64::from(share) * 255.0) as i32 as u8;
            for pixel in self.bytes.as_chunks_mut::<3>().0 {
                let [hue, saturation, value] = to_hsv(*pixel);
                *pixel = from_hsv([hue.wrapping_add(turn), saturation, value]);
            }
        }
    }

    /// Away from a smoothed copy: `ImageEnhance.Sharpness`.
    pub fn sharpness(&mut self, factor: f32) {
        let (row, step, height) = (self.width * self.channels, self.channels, self.height());
        // Pillow leaves the border as it is.
        if self.width < 3 || height < 3 {
            return;
        }
        let from = self.bytes.to_vec();
        let mut sums = vec![0; row];
        for (y, out) in self.bytes.chunks_exact_mut(row).enumerate().take(height - 1).skip(1) {
            let [above, here, below] = [y - 1, y, y + 1].map(|y| &from[y * row..(y + 1) * row]);
            for (((sum, a), h), b) in sums.iter_mut().zip(above).zip(here).zip(below) {
                *sum = u32::from(*a) + u32::from(*h) + u32::from(*b);
            }
            let inner = step..row - step;
            let sums = sums[..row - 2 * step].iter().zip(&sums[inner.clone()]).zip(&sums[2 * step..]);
            let pixels = out[inner.clone()].iter_mut().zip(&here[inner]);
            for ((out, &value), ((left, middle), right)) in pixels.zip(sums) {
                let sum = left + middle + right + 4 * u32::from(value);
                // The weights sum to 13; a thirteenth never lies on a half.
                let smooth = ((2 * sum + 13) / 26) as u8;
                *out = blend(smooth, value, factor);
            }
        }
    }

    /// Each channel stretched to 0..=255: `ImageOps.autocontrast`.
    pub fn autocontrast(&mut self) {
        self.map_channels(|counts| {
            let used = |count: &usize| *count > 0;
            let low = counts.iter().position(used).unwrap_or(0);
            let high = counts.iter().rposition(used).unwrap_or(0);
            if high <= low {
                return IDENTITY;
            }
            let scale = 255.0 / (high - low) as f64;
            let offset = -(low as f64) * scale;
            std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
        });
    }

    /// Each channel's values used about equally often: `ImageOps.equalize`.
    pub fn equalize(&mut self) {
        self.map_channels(|counts| {
            let last = counts.iter().rfind(|count| **count > 0).unwrap_or(&0);
            let step = (counts.iter().sum::<usize>() - last) / 255;
            if step == 0 {
                return IDENTITY;
            }
            let mut below = step / 2;
            counts.map(|count| {
                let value = (below / step).min(255) as u8;
                below += count;
                value
            })
        });
    }

    /// Only the highest `bits` of each value, 1 to 8: `ImageOps.posterize`.
    pub fn posterize(&mut self, bits: u32) {
        let mask = 0xFFu8 << (8 - bits);
        self.map(|value| value & mask);
    }

    /// Values from `threshold` on inverted: `ImageOps.solarize`.
    pub fn solarize(&mut self, threshold: u32) {
        self.map(|value| if u32::from(value) < threshold { value } else { 255 - value });
    }

    /// The pixel at (x, y) becomes what was at (ax + by + c, dx + ey + f), bilinear, and `fill` where that lies outside:
    /// `Image.transform` with `AFFINE`.
    pub fn affine(&mut self, [a, b, c, d, e, f]: [f64; 6], fill: [u8; 3]) {
        let (width, height, channels) = (self.width, self.height(), self.channels);
        let from = self.bytes.to_vec();
        for (place, pixel) in self.bytes.chunks_exact_mut(channels).enumerate() {
            let (x, y) = ((place % width) as f64 + 0.5, (place / width) as f64 + 0.5);
            let (x, y) = (a * x + b * y + c, d * x + e * y + f);
            if !(x >= 0.0 && x < width as f64 && y >= 0.0 && y < height as f64) {
                pixel.copy_from_slice(&fill[..channels]);
                continue;
            }
            let ([left, right], across) = neighbours(x, width);
            let ([above, below], down) = neighbours(y, height);
            for (channel, out) in pixel.iter_mut().enumerate() {
                let row = |y: usize| {
                    let at = |x: usize| f64::from(from[(y * width + x) * channels + channel]);
                    at(left) + (at(right) - at(left)) * across
                };
                let (above, below) = (row(above), row(below));
                *out = (above + (below - above) * down) as u8;
            }
        }
    }

    fn map(&mut self, change: impl Fn(u8) -> u8) {
        let table: [u8; 256] = std::array::from_fn(|value| change(value as u8));
        for value in self.bytes.iter_mut() {
            *value = table[usize::from(*value)];
        }
    }

    /// Each channel by a table made of how often it takes which value.
    fn map_channels(&mut self, table: impl Fn([usize; 256]) -> [u8; 256]) {
        for channel in 0..self.channels {
            let mut counts = [0; 256];
            for value in self.bytes.iter().skip(channel).step_by(self.channels) {
                counts[usize::from(*value)] += 1;
            }
            let table = table(counts);
            for value in self.bytes.iter_mut().skip(channel).step_by(self.channels) {
                *value = table[usize::from(*value)];
            }
        }
    }
}

const IDENTITY: [u8; 256] = {
    let mut table = [0; 256];
    let mut value = 0;
    while value < 256 {
        table[value] = value as u8;
        value += 1;
    }
    table
};

/// `from + factor (to - from)`, cut to a byte: Pillow's `Image.blend`.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let value = f32::from(from) + factor * (f32::from(to) - f32::from(from));
    // By way of i32, which takes fewer instructions than a cast that saturates at a byte.
    value.clamp(0.0, 255.0) as i32 as u8
}

/// Pillow's `convert("L")`.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

/// The two pixels around a place and its distance from the first; the border's pixels reach outwards.
fn neighbours(place: f64, count: usize) -> ([usize; 2], f64) {
    let first = (place - 0.5).floor();
    let within = |place: f64| place.clamp(0.0, (count - 1) as f64) as usize;
    ([within(first), within(first + 1.0)], place - 0.5 - first)
}

/// Pillow's `convert("HSV")`, with its mixture of precisions.
fn to_hsv(pixel: [u8; 3]) -> [u8; 3] {
    let [red, green, blue] = pixel;
    let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let [r, g, b] = pixel.map(|value| f32::from(most - value) / range);
    let hue = if red == most {
        b - g
    } else if green == most {
        (2.0 + f64::from(r) - f64::from(b)) as f32
    } else {
        (4.0 + f64::from(g) - f64::from(r)) as f32
    };
    let hue = f64::from(hue) / 6.0 + 1.0;
    let hue = if hue >= 1.0 { hue - 1.0 } else { hue } as f32;
    let saturation = range / f32::from(most);
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

/// Pillow's way back from HSV, with its mixture of precisions.
fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sixths = f64::from(hue) * 6.0 / 255.0;
    let sector = sixths as u8;
    let rest = (sixths - f64::from(sector)) as f32;
    let saturation = (f64::from(saturation) / 255.0) as f32;
    let part = |less: f64| (f64::from(value) * (1.0 - less)).round() as u8;
    let low = part(f64::from(saturation));
    let falling = part(f64::from(saturation * rest));
    let rising = part(f64::from(saturation) * (1.0 - f64::from(rest)));
    match sector % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_equal_those_of_pillow() {
        for case in crate::train::augment::goldens().filter(|case| case.group == "change") {
            let mut bytes = case.photo();
            let mut image = Image { bytes: &mut bytes, width: case.width, channels: case.channels };
            let number = case.number;
            match case.name.as_str() {
                "brightness" => image.brightness(number as f32),
                "contrast" => image.contrast(number as f32),
                "saturation" => image.saturation(number as f32),
                "hue" => image.hue(number as f32),
                "sharpness" => image.sharpness(number as f32),
                "autocontrast" => image.autocontrast(),
                "equalize" => image.equalize(),
                "posterize" => image.posterize(number as u32),
                "solarize" => image.solarize(number as u32),
                other => panic!("{other}"),
            }
            case.check(&bytes);
        }
    }

    #[test]
    fn images_of_one_row_column_or_color_are_no_trouble() {
        for (width, height, channels) in [(1, 1, 3), (1, 1, 1), (1, 7, 3), (7, 1, 1), (2, 2, 3), (5, 4, 1)] {
            let mut bytes = vec![90; width * height * channels];
            let before = bytes.clone();
            let mut image = Image { bytes: &mut bytes, width, channels };
            assert_eq!(image.height(), height);
            image.contrast(1.7);
            image.saturation(0.2);
            image.hue(0.3);
            image.sharpness(1.9);
            image.autocontrast();
            image.equalize();
            image.affine([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [1, 2, 3]);
            assert_eq!(bytes, before);
        }
    }
}
