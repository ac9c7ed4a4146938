//! The pixels contract: how a decoded photo becomes the network's input tensor.
//!
//! The same integer code makes the input in training, calibration, evaluation, serving and on the device, so that a
//! model sees the same bytes everywhere. Resizing equals Pillow's 8-bit `Image.resize` bit for bit
//! (`tests/goldens/resize.csv` names the version compared with; Pillow before 13 differs by rounding where the height
//! shrinks by more than twice as many pixels as the width, because it resizes along the other axis first).

mod resize;

use alloc::{format, string::String, vec::Vec};

use resize::{Source, Window};

/// A model's preprocessing, from the photo's file to the network's input `[height, width, channels]`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "file", serde(deny_unknown_fields, rename_all = "snake_case"))]
pub struct Pixels {
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// What a pixel is made of.
    pub color: Color,
    /// How the photo's shape becomes the input's.
    pub fit: Fit,
    /// The resampling filter.
    pub filter: Filter,
    /// Subtracted from each channel, in units of 0..=255; gray uses the first.
    pub mean: [f32; 3],
    /// Divides each channel afterwards, in units of 0..=255; gray uses the first.
    pub std: [f32; 3],
    /// How the file is decoded.
    pub decode: DecodeRule,
}

/// What a pixel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "file", serde(rename_all = "snake_case"))]
pub enum Color {
    /// Red, green, blue.
    Rgb,
    /// One channel of luma, as Pillow's `convert("L")`, taken before resizing.
    Gray,
}

/// How the photo's shape becomes the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "file", serde(deny_unknown_fields, rename_all = "snake_case"))]
pub enum Fit {
    /// The short side is resized to `short` pixels, then the centre is cut out, as torchvision's `Resize(short)` and
    /// `CenterCrop`; where the crop is larger it is filled with 0.
    Crop {
        /// Pixels of the short side after resizing.
        short: usize,
    },
    /// The whole photo, as large as fits, in the middle of a filled frame, as Pillow's `ImageOps.pad`.
    Pad {
        /// The frame's colour; gray takes its luma.
        fill: [u8; 3],
    },
    /// Stretched to the input, whatever the photo's shape.
    Squash,
}

/// The resampling filter; all widen with the reduction, as Pillow's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "file", serde(rename_all = "snake_case"))]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic convolution with a = -1/2.
    Bicubic,
    /// Mean over the pixel's area.
    Box,
}

/// How the photo's file is decoded; always upright by its orientation tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "file", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "file", serde(deny_unknown_fields, rename_all = "snake_case"))]
pub enum DecodeRule {
    /// At full scale.
    Full,
    /// A JPEG at the least of 1/8, 1/4, 1/2 and the whole of its scale at which each side still is `margin` times what
    /// it is resized to, see [`Pixels::reduction`]: the decoder computes fewer samples of each 8 × 8 block. Other files
    /// at full scale.
    Dct {
        /// 1 to 16. From 2 on resizing still sees more pixels than it makes, and crops of a quarter of the photo lose
        /// nothing.
        margin: u8,
    },
}

impl DecodeRule {
    /// What new classifiers are made with.
    pub const REDUCED: DecodeRule = DecodeRule::Dct { margin: 2 };
}

/// A decoded photo: row-major, three bytes a pixel, upright.
#[derive(Clone, Copy, Debug)]
pub struct Rgb<'a> {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub data: &'a [u8],
}

/// Which part of a photo to look at, and whether in the mirror: what augmentation varies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Stretched to the whole input, as torchvision's `RandomResizedCrop`; `None` is the contract's own [`Fit`].
    pub region: Option<Region>,
    /// Mirror the input left to right.
    pub flip: bool,
}

/// A rectangle of the photo, in pixels; what reaches outside the photo is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Left column.
    pub x: usize,
    /// Top row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl View {
    /// The photo as the contract says.
    pub const PLAIN: View = View { region: None, flip: false };
}

impl Pixels {
    /// The longest side of an input, and of the short side before a crop.
    pub const MAX_SIDE: usize = 4096;

    /// Channels of the input: 3, or 1 for gray.
    pub fn channels(&self) -> usize {
        match self.color {
            Color::Rgb => 3,
            Color::Gray => 1,
        }
    }

    /// Values of the input: `height * width * channels`.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels()
    }

    /// Whether the input has no value; never of a valid contract.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks a contract that came from outside: sides of 1 to [`MAX_SIDE`](Self::MAX_SIDE) pixels, finite means,
    /// finite and positive deviations. The error says which field is wrong and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let short = match self.fit {
            Fit::Crop { short } => Some(("fit.crop.short", short)),
            Fit::Pad { .. } | Fit::Squash => None,
        };
        for (name, side) in [("height", self.height), ("width", self.width)].into_iter().chain(short) {
            if !(1..=Self::MAX_SIDE).contains(&side) {
                return Err(format!("pixels.{name} is {side}; it must be 1 to {}", Self::MAX_SIDE));
            }
        }
        for (mean, std) in self.mean.into_iter().zip(self.std) {
            if !mean.is_finite() {
                return Err(format!("pixels.mean holds {mean}; it must be finite"));
            }
            if !(std.is_finite() && std > 0.0) {
                return Err(format!("pixels.std holds {std}; it must be finite and above 0"));
            }
        }
        match self.decode {
            DecodeRule::Dct { margin } if !(1..=16).contains(&margin) => {
                Err(format!("pixels.decode.dct.margin is {margin}; it must be 1 to 16"))
            }
            DecodeRule::Dct { .. } | DecodeRule::Full => Ok(()),
        }
    }

    /// What the sides of a JPEG of `width` × `height` pixels, upright, are divided by when it is decoded: 1, 2, 4 or 8.
    /// A side that is no multiple is rounded up.
    pub fn reduction(&self, width: usize, height: usize) -> usize {
        let DecodeRule::Dct { margin } = self.decode else { return 1 };
        if width == 0 || height == 0 {
            return 1;
        }
        let Window { scaled_width, scaled_height, .. } = self.place(width, height).window;
        let enough = |side: usize, scaled: usize, by: usize| {
            side.div_ceil(by) >= scaled.saturating_mul(usize::from(margin))
        };
        let holds = |by: &usize| enough(width, scaled_width, *by) && enough(height, scaled_height, *by);
        [8, 4, 2].into_iter().find(holds).unwrap_or(1)
    }

    /// The input's bytes `[height, width, channels]`, before normalisation; `out` is cleared first.
    ///
    /// A photo or region without pixels gives zeros.
    ///
    /// # Panics
    /// If `photo.data` is not as long as the photo's sides say.
    pub fn bytes(&self, photo: Rgb, view: View, out: &mut Vec<u8>) {
        match self.color {
            Color::Rgb => self.bytes_of::<3>(photo, view, out),
            Color::Gray => self.bytes_of::<1>(photo, view, out),
        }
    }

    fn bytes_of<const C: usize>(&self, photo: Rgb, view: View, out: &mut Vec<u8>) {
        let pixels = photo.width.checked_mul(photo.height).and_then(|n| n.checked_mul(3));
        assert_eq!(pixels, Some(photo.data.len()), "a photo of {} x {} pixels", photo.width, photo.height);
        out.clear();
        out.resize(self.len(), 0);

        let whole = Region { x: 0, y: 0, width: photo.width, height: photo.height };
        let region = view.region.map_or(whole, |r| r.within(whole));
        if region.width == 0 || region.height == 0 || out.is_empty() {
            return;
        }
        let stride = photo.width * 3;
        let source = Source {
            rgb: &photo.data[region.y * stride + region.x * 3..],
            stride,
            width: region.width,
            height: region.height,
        };
        let place = match view.region {
            Some(_) => self.squash(),
            None => self.place(photo.width, photo.height),
        };
        if let (Fit::Pad { fill }, None) = (self.fit, view.region) {
            for pixel in out.as_chunks_mut::<C>().0 {
                if C == 1 {
                    pixel[0] = resize::luma(fill);
                } else {
                    pixel.copy_from_slice(&fill);
                }
            }
        }
        let rows = out.chunks_exact_mut(self.width * C).skip(place.y);
        let rows = rows.map(|row| &mut row[place.x * C..(place.x + place.window.width) * C]);
        resize::resize::<C>(&source, self.filter, place.window, rows);
        if view.flip {
            for row in out.chunks_exact_mut(self.width * C) {
                row.as_chunks_mut::<C>().0.reverse();
            }
        }
    }

    /// The least and the greatest value that [`normalize`](Self::normalize) makes of any byte.
    pub fn range(&self) -> [f32; 2] {
        let ends = |v: f32| (0..self.channels()).map(move |c| (v - self.mean[c]) / self.std[c]);
        [ends(0.0).fold(f32::INFINITY, f32::min), ends(255.0).fold(f32::NEG_INFINITY, f32::max)]
    }

    /// `((v - mean) / std)` of each byte `[height, width, channels]`.
    ///
    /// # Panics
    /// If `out` is not as long as `bytes`.
    pub fn normalize(&self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len(), "one value for each byte");
        let table =
            |c: usize| core::array::from_fn::<f32, 256, _>(|v| (v as f32 - self.mean[c]) / self.std[c]);
        match self.color {
            Color::Gray => {
                let gray = table(0);
                for (out, &v) in out.iter_mut().zip(bytes) {
                    *out = gray[usize::from(v)];
                }
            }
            Color::Rgb => {
                let [red, green, blue] = [table(0), table(1), table(2)];
                for (out, v) in out.as_chunks_mut::<3>().0.iter_mut().zip(bytes.as_chunks::<3>().0) {
                    *out = [red[usize::from(v[0])], green[usize::from(v[1])], blue[usize::from(v[2])]];
                }
            }
        }
    }

    /// The network's input `[height, width, channels]`: [`bytes`](Self::bytes), normalised.
    ///
    /// # Panics
    /// If `out` does not hold [`len`](Self::len) values, or as [`bytes`](Self::bytes).
    pub fn tensor(&self, photo: Rgb, view: View, out: &mut [f32]) {
        let mut bytes = Vec::new();
        self.bytes(photo, view, &mut bytes);
        self.normalize(&bytes, out);
    }

    /// Where the resized photo of `width` × `height` pixels lies in the input.
    fn place(&self, width: usize, height: usize) -> Place {
        match self.fit {
            Fit::Squash => self.squash(),
            Fit::Crop { short } => {
                let long = |long: usize, side: usize| {
                    usize::try_from(short as u128 * long as u128 / side as u128).unwrap_or(usize::MAX)
                };
                let (scaled_width, scaled_height) = match width <= height {
                    true => (short, long(height, width)),
                    false => (long(width, height), short),
                };
                let (left, x, width) = center(scaled_width, self.width);
                let (top, y, height) = center(scaled_height, self.height);
                Place { x, y, window: Window { scaled_width, scaled_height, left, top, width, height } }
            }
            Fit::Pad { .. } => {
                // In f64, as the reference computes it: an exact ratio would round some ties the other way.
                let (photo, input) = (width as f64 / height as f64, self.width as f64 / self.height as f64);
                let (w, h) = if photo > input {
                    (self.width, libm::rint(height as f64 / width as f64 * self.width as f64) as usize)
                } else if photo < input {
                    (libm::rint(photo * self.height as f64) as usize, self.height)
                } else {
                    (self.width, self.height)
                };
                let (w, h) = (w.clamp(1, self.width), h.clamp(1, self.height));
                Place {
                    x: half_even(self.width - w),
                    y: half_even(self.height - h),
                    window: Window::whole(w, h),
                }
            }
        }
    }

    fn squash(&self) -> Place {
        Place { x: 0, y: 0, window: Window::whole(self.width, self.height) }
    }
}

/// A window of the resized photo, and its top left corner in the input.
struct Place {
    x: usize,
    y: usize,
    window: Window,
}

/// torchvision's `CenterCrop` along one axis: first pixel of the scaled photo, first pixel of the input, and how many.
fn center(scaled: usize, input: usize) -> (usize, usize, usize) {
    match scaled.checked_sub(input) {
        Some(surplus) => (half_even(surplus), 0, input),
        None => (0, (input - scaled) / 2, scaled),
    }
}

/// Half of `n`, ties to even, as Python's `round(n / 2)`.
fn half_even(n: usize) -> usize {
    let half = n / 2;
    half + (n & half & 1)
}

impl Region {
    fn within(self, whole: Region) -> Region {
        let (x, y) = (self.x.min(whole.width), self.y.min(whole.height));
        Region { x, y, width: self.width.min(whole.width - x), height: self.height.min(whole.height - y) }
    }
}
