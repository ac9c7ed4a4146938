//! Photo files to upright RGB8, under limits. The only file that knows the crate `image`.

use std::{
    cell::Cell,
    io::{Cursor, Read},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Once,
};

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, metadata::Orientation};
use penjing_runtime::pixels::{Pixels, Rgb};

use super::jpeg::{self, Jpeg};
use crate::Error;

/// A decoded photo: upright, row-major, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes of red, green, blue.
    pub data: Vec<u8>,
}

impl Photo {
    /// The photo as the pixels contract takes it.
    pub fn view(&self) -> Rgb<'_> {
        Rgb { width: self.width, height: self.height, data: &self.data }
    }
}

/// What a photo may cost, checked before a pixel is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Columns times rows.
    pub max_pixels: u64,
    /// Columns, and rows.
    pub max_side: u32,
    /// Length of the file.
    pub max_file_bytes: u64,
}

impl Default for Limits {
    /// 178,956,970 pixels, where Pillow too takes a photo for a decompression bomb; sides of 65,535, which is all that
    /// a JPEG can say; files of 256 MiB.
    fn default() -> Self {
        Limits { max_pixels: 178_956_970, max_side: 65_535, max_file_bytes: 256 << 20 }
    }
}

/// Why a file gives no photo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing in it.
    #[error("the file is empty (0 bytes); copy it again from its source or delete it")]
    Empty,
    /// Not a photo, or of a format unknown here.
    #[error("not a photo: expected JPEG, PNG, WebP, BMP, GIF or TIFF, judged by content, not by name")]
    NotAPhoto,
    /// A photo of a kind that cannot be read.
    #[error("{0}; save it again as an 8-bit RGB JPEG or PNG")]
    Unsupported(String),
    /// Larger than the [`Limits`] allow.
    #[error("{0}; save a smaller copy")]
    TooLarge(String),
    /// Cut short or changed.
    #[error("damaged {format}: {what}; copy it again from its source or delete it")]
    Damaged {
        /// The format's name.
        format: &'static str,
        /// What the decoder met.
        what: String,
    },
}

/// Decodes a JPEG, PNG, WebP, BMP, GIF or TIFF, told apart by content, into upright RGB8.
///
/// What comes out is what Pillow's `ImageOps.exif_transpose` and `convert("RGB")` make of the file: alpha is dropped,
/// not blended; of an animation or a multi-page file the first picture is taken; 16-bit channels keep their high byte
/// (so does Pillow for colour; its 16-bit gray is clipped at 255 instead). JPEGs equal Pillow's bytes, as does every other
/// test photo.
///
/// A JPEG that does not reach its end marker is an error, as is any photo that breaks `limits`. A panic in a decoder
/// is caught, unless the program is built with `panic = "abort"`, and reported as damage.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Photo, DecodeError> {
    decode_scaled(bytes, limits, None)
}

/// [`decode`]s a photo at the scale that a pixels contract takes it at: [`Pixels::reduction`].
///
/// JPEGs of gray or RGB are decoded at a reduced scale, as Pillow's `draft` does it; all others at full scale.
pub fn decode_for(bytes: &[u8], limits: &Limits, pixels: &Pixels) -> Result<Photo, DecodeError> {
    decode_scaled(bytes, limits, Some(pixels))
}

fn decode_scaled(bytes: &[u8], limits: &Limits, pixels: Option<&Pixels>) -> Result<Photo, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    check_file_size(bytes.len() as u64, limits)?;
    let format = image::guess_format(bytes).map_err(|_| DecodeError::NotAPhoto)?;
    let name = format_name(format).ok_or(DecodeError::NotAPhoto)?;
    let decoded = quietly(|| match format {
        ImageFormat::Jpeg => decode_jpeg(bytes, limits, pixels),
        format => decode_as(bytes, format, name, limits),
    });
    decoded.unwrap_or_else(|| {
        Err(DecodeError::Damaged { format: name, what: "its decoder gave up unexpectedly".to_owned() })
    })
}

/// Reads and [`decode`]s the photo at `path`. Not more than `limits.max_file_bytes` are read.
pub fn read(path: &Path, limits: &Limits) -> crate::Result<Photo> {
    decode(&read_bytes(path, limits)?, limits).map_err(|e| Error::data(path, e.to_string()))
}

/// [`read`]s a photo, and [decodes it for](decode_for) a contract.
pub fn read_for(path: &Path, limits: &Limits, pixels: &Pixels) -> crate::Result<Photo> {
    decode_for(&read_bytes(path, limits)?, limits, pixels).map_err(|e| Error::data(path, e.to_string()))
}

/// Columns and rows of the photo at `path` as it is stored, read from its beginning; `None` for what is no photo.
pub fn dimensions(path: &Path) -> Option<[u32; 2]> {
    /// Where a JPEG's sides stand, behind a preview and a colour profile.
    const BEGINNING: u64 = 1 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(BEGINNING).read_to_end(&mut bytes).ok()?;
    if image::guess_format(&bytes).ok() == Some(ImageFormat::Jpeg) {
        return jpeg::sides(&bytes);
    }
    let reader = ImageReader::open(path).ok()?.with_guessed_format().ok()?;
    let (width, height) = quietly(|| reader.into_dimensions().ok()).flatten()?;
    Some([width, height])
}

/// The bytes of the photo at `path`, not more than `limits.max_file_bytes`.
pub(crate) fn read_bytes(path: &Path, limits: &Limits) -> crate::Result<Vec<u8>> {
    let io = |e| Error::io(path, "read the photo", e);
    let file = std::fs::File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    check_file_size(size, limits).map_err(|e| Error::data(path, e.to_string()))?;
    let mut bytes = Vec::new();
    // One byte more than allowed: a file that grows meanwhile, or has no size, is still refused.
    file.take(limits.max_file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    check_file_size(bytes.len() as u64, limits).map_err(|e| Error::data(path, e.to_string()))?;
    Ok(bytes)
}

/// Whether a file's name says that it is a photo that [`decode`] may read: `jpg`, `jpeg`, `png`, `webp`, `bmp`, `gif`,
/// `tif` or `tiff`, in any case.
pub fn is_photo_name(path: &Path) -> bool {
    const KNOWN: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| KNOWN.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

fn check_file_size(size: u64, limits: &Limits) -> Result<(), DecodeError> {
    if size > limits.max_file_bytes {
        let limit = limits.max_file_bytes;
        return Err(DecodeError::TooLarge(format!("the file has {size} bytes, the limit is {limit}")));
    }
    Ok(())
}

fn check_sides([width, height]: [u32; 2], format: &'static str, limits: &Limits) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::Damaged { format, what: format!("it says {width} x {height} pixels") });
    }
    if width.max(height) > limits.max_side || u64::from(width) * u64::from(height) > limits.max_pixels {
        let (pixels, side) = (limits.max_pixels, limits.max_side);
        return Err(DecodeError::TooLarge(format!(
            "the {format} has {width} x {height} pixels, the limit is {pixels} pixels and {side} a side"
        )));
    }
    Ok(())
}

fn format_name(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Jpeg => Some("JPEG"),
        ImageFormat::Png => Some("PNG"),
        ImageFormat::WebP => Some("WebP"),
        ImageFormat::Bmp => Some("BMP"),
        ImageFormat::Gif => Some("GIF"),
        ImageFormat::Tiff => Some("TIFF"),
        _ => None,
    }
}

fn decode_as(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    limits: &Limits,
) -> Result<Photo, DecodeError> {
    let fault = |error: ImageError| match error {
        ImageError::Unsupported(e) => {
            DecodeError::Unsupported(format!("a {name} of an unsupported kind ({e})"))
        }
        ImageError::Limits(e) => {
            DecodeError::TooLarge(format!("the {name} needs more memory than allowed ({e})"))
        }
        e => DecodeError::Damaged { format: name, what: e.to_string() },
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // Eight bytes a pixel hold the deepest kind, 16-bit RGBA; a decoder may need as much again for itself.
    let mut memory = image::Limits::no_limits();
    memory.max_alloc = Some(limits.max_pixels.saturating_mul(16).max(1 << 20));
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    check_sides([width, height], name, limits)?;
    // An unreadable tag is no reason to lose the photo.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(fault)?;
    Ok(upright(to_rgb8(decoded, name)?, orientation))
}

fn decode_jpeg(bytes: &[u8], limits: &Limits, pixels: Option<&Pixels>) -> Result<Photo, DecodeError> {
    let jpeg = Jpeg::new(bytes, limits)?;
    let [width, height] = jpeg.sides();
    check_sides([width, height], "JPEG", limits)?;
    let orientation = jpeg.exif().and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    let by = pixels.filter(|_| jpeg.may_shrink()).map_or(1, |pixels| {
        let (w, h) = (width as usize, height as usize);
        let turned = orientation.to_exif() >= 5;
        if turned { pixels.reduction(h, w) } else { pixels.reduction(w, h) }
    });
    let photo = jpeg.decode(by)?;
    if orientation == Orientation::NoTransforms {
        return Ok(photo);
    }
    let damaged =
        || DecodeError::Damaged { format: "JPEG", what: "its pixels do not fill its sides".to_owned() };
    let rgb = image::RgbImage::from_raw(photo.width as u32, photo.height as u32, photo.data);
    Ok(upright(rgb.ok_or_else(damaged)?, orientation))
}

fn upright(stored: image::RgbImage, orientation: Orientation) -> Photo {
    let mut upright = DynamicImage::ImageRgb8(stored);
    upright.apply_orientation(orientation);
    let upright = upright.into_rgb8();
    Photo { width: upright.width() as usize, height: upright.height() as usize, data: upright.into_raw() }
}

/// Alpha dropped, 16 bits cut to their high byte.
fn to_rgb8(decoded: DynamicImage, name: &str) -> Result<image::RgbImage, DecodeError> {
    fn high(size: (u32, u32), pixels: impl Iterator<Item = [u16; 3]>) -> Option<image::RgbImage> {
        let bytes = pixels.flatten().map(|v| (v >> 8) as u8).collect();
        image::RgbImage::from_raw(size.0, size.1, bytes)
    }
    let size = (decoded.width(), decoded.height());
    let rgb = match decoded {
        DynamicImage::ImageRgb16(p) => high(size, p.pixels().map(|p| p.0)),
        DynamicImage::ImageRgba16(p) => high(size, p.pixels().map(|p| [p[0], p[1], p[2]])),
        DynamicImage::ImageLuma16(p) => high(size, p.pixels().map(|p| [p[0]; 3])),
        DynamicImage::ImageLumaA16(p) => high(size, p.pixels().map(|p| [p[0]; 3])),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => None,
        eight_bits => Some(eight_bits.into_rgb8()),
    };
    rgb.ok_or_else(|| DecodeError::Unsupported(format!("a {name} of floating-point pixels")))
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; `None` if it panics. The panic hook stays silent on this thread meanwhile.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    // `work` shares nothing that outlives it, so nothing half changed can be seen afterwards.
    let result = panic::catch_unwind(AssertUnwindSafe(work)).ok();
    QUIET.set(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_by_extension_in_any_case() {
        for name in ["a.jpg", "a.JPEG", "b/c.Png", "x.webp", "x.bmp", "x.gif", "x.tif", "x.TIFF"] {
            assert!(is_photo_name(Path::new(name)), "{name}");
        }
        for name in ["a", "jpg", ".jpg", "a.txt", "a.jpg.part", "a.svg"] {
            assert!(!is_photo_name(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_panic_inside_a_decoder_costs_one_image_and_is_silent() {
        assert_eq!(quietly(|| -> u8 { panic!("must not be printed") }), None);
        assert_eq!(quietly(|| 3), Some(3));
        assert!(!QUIET.get());
    }

    #[test]
    fn no_prefix_and_no_changed_byte_of_a_photo_panics() {
        for name in
            ["progressive_420.jpg", "palette.png", "lossy.webp", "still.gif", "lzw.tif", "palette.bmp"]
        {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos");
            let mut bytes = std::fs::read(folder.join(name)).unwrap();
            let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
            for end in (0..bytes.len()).step_by(7) {
                let _ = decode(&bytes[..end], &limits);
            }
            for at in (0..bytes.len()).step_by(5) {
                bytes[at] ^= 0x5A;
                if let Ok(photo) = decode(&bytes, &limits) {
                    assert_eq!(photo.data.len(), photo.width * photo.height * 3);
                }
                bytes[at] ^= 0x5A;
            }
        }
    }
}
