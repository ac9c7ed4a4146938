//! JPEGs to pixels, bit for bit as libjpeg-turbo, which Pillow and most devices use. The only file that knows the crate
//! `libjpeg-turbo-rs`.

use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat, ScalingFactor};

use super::decode::{DecodeError, Limits, Photo};

/// What a JPEG says of itself, read; its pixels are still to come.
pub(super) struct Jpeg<'a> {
    decoder: Decoder<'a>,
}

/// More scans than any encoder writes; each costs the time of a whole photo.
const MAX_SCANS: usize = 1_000;

impl<'a> Jpeg<'a> {
    /// # Errors
    /// [`DecodeError`] of what cannot be read, has other than 8 bits, or breaks `limits`.
    pub fn new(bytes: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        if !is_complete(bytes) {
            return Err(damaged("the file ends before the photo does"));
        }
        let limits = DecodeLimits {
            max_width: limits.max_side as usize,
            max_height: limits.max_side as usize,
            max_pixels: limits.max_pixels,
            max_scans: MAX_SCANS,
            // Coefficients, planes and the pixels themselves.
            max_memory: Some(limits.max_pixels.saturating_mul(16).max(1 << 20)),
        };
        let decoder = Decoder::new_with_limits(bytes, limits).map_err(fault)?;
        let header = decoder.header();
        if header.precision != 8 || header.is_lossless {
            let kind = if header.is_lossless {
                "lossless coding".into()
            } else {
                format!("{} bits", header.precision)
            };
            return Err(DecodeError::Unsupported(format!("a JPEG of an unsupported kind ({kind})")));
        }
        Ok(Jpeg { decoder })
    }

    /// Columns and rows.
    pub fn sides(&self) -> [u32; 2] {
        [self.decoder.header().width, self.decoder.header().height].map(u32::from)
    }

    /// The TIFF structure that may say how the photo was held.
    pub fn exif(&self) -> Option<&[u8]> {
        self.decoder.exif_data()
    }

    /// Whether it may be [decoded](Self::decode) at a reduced scale: gray and RGB may.
    pub fn may_shrink(&self) -> bool {
        self.decoder.header().components.len() != 4
    }

    /// RGB8 as stored, not turned, with its sides divided `by` 1, 2, 4 or 8 and rounded up.
    ///
    /// # Errors
    /// [`DecodeError`] of what is damaged or has two channels.
    pub fn decode(mut self, by: usize) -> Result<Photo, DecodeError> {
        let ink = self.decoder.header().components.len() == 4;
        self.decoder.set_output_format(if ink { PixelFormat::Cmyk } else { PixelFormat::Rgb });
        self.decoder.set_scale(ScalingFactor::try_new(1, by as u32).map_err(fault)?);
        let image = self.decoder.decode_image().map_err(fault)?;
        let data = match ink {
            true => image.data.as_chunks().0.iter().flat_map(|&pixel| of_ink(pixel)).collect(),
            false => image.data,
        };
        Ok(Photo { width: image.width, height: image.height, data })
    }
}

fn fault(error: JpegError) -> DecodeError {
    match error {
        JpegError::Unsupported(what) => {
            DecodeError::Unsupported(format!("a JPEG of an unsupported kind ({what})"))
        }
        JpegError::LimitExceeded { .. } | JpegError::AllocationFailed { .. } => {
            DecodeError::TooLarge(format!("the JPEG needs more than allowed ({error})"))
        }
        error => damaged(error),
    }
}

fn damaged(what: impl ToString) -> DecodeError {
    DecodeError::Damaged { format: "JPEG", what: what.to_string() }
}

/// Cyan, magenta, yellow and black, stored inverted as Adobe does, as Pillow's `convert("RGB")` shows them.
fn of_ink([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    // Inverted twice: what is stored is the light that is left.
    [cyan, magenta, yellow].map(|left| {
        let ink = u32::from(255 - left) * u32::from(black) + 128;
        black.saturating_sub(((ink + (ink >> 8)) >> 8) as u8)
    })
}

/// Columns and rows of a JPEG of which `bytes` are the beginning, if that reaches far enough.
pub(super) fn sides(bytes: &[u8]) -> Option<[u32; 2]> {
    let mut markers = Markers::default();
    loop {
        let marker = markers.next(bytes)?;
        // Start of a frame; three others of the range are tables and an extension.
        if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
            let segment = bytes.get(markers.segment..markers.at)?;
            let [_, _, _, high, low, left, right, ..] = *segment else { return None };
            let sides = [[left, right], [high, low]].map(|side| u32::from(u16::from_be_bytes(side)));
            return sides.iter().all(|&side| side > 0).then_some(sides);
        }
    }
}

/// Whether a JPEG's segments and scans run on to its end marker; the decoder would fill what is missing with gray.
fn is_complete(bytes: &[u8]) -> bool {
    let mut markers = Markers::default();
    loop {
        match markers.next(bytes) {
            Some(Markers::END) => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

/// A walk over the markers of a JPEG whose bytes may still be arriving.
#[derive(Debug, Default)]
pub(super) struct Markers {
    /// Position behind the last marker and its segment.
    pub at: usize,
    /// Position behind the last marker itself.
    segment: usize,
}

impl Markers {
    pub const START: u8 = 0xD8;
    pub const END: u8 = 0xD9;

    /// The next marker, if it and its segment stand in `bytes`; they may be longer the next time.
    pub fn next(&mut self, bytes: &[u8]) -> Option<u8> {
        // As libjpeg: whatever stands before the next marker is skipped, and so are fill bytes. Escaped bytes of a scan are
        // no marker.
        let (at, marker) = loop {
            let Some(found) = memchr::memchr(0xFF, bytes.get(self.at..)?) else {
                self.at = bytes.len();
                return None;
            };
            self.at += found;
            match bytes.get(self.at + 1)? {
                0 => self.at += 2,
                0xFF => self.at += 1,
                &marker => break (self.at + 2, marker),
            }
        };
        // Start and end of the image, restarts and TEM stand alone.
        let segment = match marker {
            0x01 | 0xD0..=0xD9 => 0,
            _ => usize::from(u16::from_be_bytes(*bytes[at..].first_chunk()?)),
        };
        if segment > bytes.len() - at {
            return None;
        }
        (self.segment, self.at) = (at, at + segment);
        Some(marker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_read_from_the_beginning() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos");
        for name in ["baseline_420.jpg", "progressive_422.jpg", "gray.jpg", "cmyk.jpg", "orientation_6.jpg"] {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            let first = (0..bytes.len()).find(|&end| sides(&bytes[..end]).is_some()).expect(name);
            assert!(first < bytes.len() - 1, "{name}");
            for end in [first, bytes.len()] {
                assert_eq!(sides(&bytes[..end]), Some([47, 37]), "{name}");
            }
        }
        assert_eq!(sides(b"\xFF\xD8\xFF\xC0\x00\x03\x08"), None);
    }

    #[test]
    fn only_an_end_marker_ends_a_scan() {
        let walk = |bytes: &[u8]| {
            let mut markers = Markers::default();
            std::iter::from_fn(|| markers.next(bytes)).collect::<Vec<_>>()
        };
        assert_eq!(
            walk(b"\xFF\xD8\xFF\xDA\x00\x02ab\xFF\x00\xD9\xFF\xFF\xD0c\xFF\xD9d"),
            [0xD8, 0xDA, 0xD0, 0xD9]
        );
        assert_eq!(walk(b"\xFF\xD8\xFF\xDA\x00\x09ab"), [0xD8]);
        assert_eq!(walk(b"\xFF\xD8 \xFF"), [0xD8]);
    }
}
