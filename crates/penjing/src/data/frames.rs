//! Frames of a stream, as `ffmpeg` writes them into a pipe.

use std::{io::Read, str::FromStr};

use super::{
    decode::{DecodeError, Photo},
    jpeg::Markers,
};

/// How the frames of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEGs, one after the other: `ffmpeg … -f mjpeg -`.
    Mjpeg,
    /// Rows of red, green and blue bytes and nothing else: `ffmpeg … -f rawvideo -pix_fmt rgb24 -`.
    Rgb {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
}

impl FromStr for Format {
    type Err = String;

    /// `mjpeg`, or `WIDTHxHEIGHT` of raw frames.
    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: usize = 8192;
        let side = |text: &str| text.parse().ok().filter(|side| (1..=MOST).contains(side));
        match text.split_once('x').map(|(width, height)| (side(width), side(height))) {
            None if text == "mjpeg" => Ok(Format::Mjpeg),
            Some((Some(width), Some(height))) => Ok(Format::Rgb { width, height }),
            _ => Err(format!(
                "expected mjpeg, or the size of raw frames such as 640x480, sides of 1 to {MOST}"
            )),
        }
    }
}

/// Why a frame is missing.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It cannot be decoded; the next one may be.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The stream stops inside a frame.
    #[error("the stream ends inside a frame, after {0} bytes of it")]
    Cut(usize),
    /// No JPEG begins and ends in as many bytes as one may have; nothing more is read.
    #[error(
        "{0} bytes without a whole JPEG; write the stream with `-f mjpeg`, or give --frames the size of raw RGB ones"
    )]
    Endless(usize),
    /// The stream cannot be read on.
    #[error("cannot read the stream: {0}")]
    Io(#[from] std::io::Error),
}

/// Bytes of the longest JPEG of a stream.
const MOST: usize = 64 << 20;

/// Reads and decodes one frame after the other. Ends with the stream.
#[derive(Debug)]
pub struct Frames<R, D> {
    source: R,
    format: Format,
    decode: D,
    /// What has been read and not yet given.
    buffer: Vec<u8>,
    ended: bool,
    /// Whether a JPEG has been found.
    found: bool,
}

impl<R: Read, D: FnMut(&[u8]) -> Result<Photo, DecodeError>> Frames<R, D> {
    /// Frames of `source`; JPEGs, no longer than 64 MiB, are given to `decode`.
    pub fn new(source: R, format: Format, decode: D) -> Self {
        Frames { source, format, decode, buffer: Vec::new(), ended: false, found: false }
    }

    /// Reads on until `whole` finds a frame's length at the beginning of the buffer, and takes the frame out.
    fn take(&mut self, mut whole: impl FnMut(&[u8]) -> Option<usize>) -> Result<Option<Vec<u8>>, FrameError> {
        const CHUNK: usize = 1 << 16;
        loop {
            if let Some(len) = whole(&self.buffer) {
                let rest = self.buffer.split_off(len);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            let before = self.buffer.len();
            let endless = before > MOST.max(self.raw_len());
            if self.ended || endless {
                self.ended = true;
                self.buffer = Vec::new();
                return match before {
                    0 => Ok(None),
                    _ if endless => Err(FrameError::Endless(before)),
                    _ => Err(FrameError::Cut(before)),
                };
            }
            self.buffer.resize(before + CHUNK, 0);
            let read = match self.source.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(None),
                other => other.map(Some),
            };
            self.buffer.truncate(before + read.as_ref().map_or(0, |read| read.unwrap_or(0)));
            match read {
                Ok(Some(0)) => self.ended = true,
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    self.buffer.clear();
                    return Err(error.into());
                }
            }
        }
    }

    fn raw_len(&self) -> usize {
        match self.format {
            Format::Mjpeg => 0,
            Format::Rgb { width, height } => 3 * width * height,
        }
    }

    fn frame(&mut self) -> Result<Option<Photo>, FrameError> {
        if let Format::Rgb { width, height } = self.format {
            let len = self.raw_len();
            let data = self.take(|bytes| (bytes.len() >= len).then_some(len))?;
            return Ok(data.map(|data| Photo { width, height, data }));
        }
        let mut markers = Markers::default();
        let mut begun = false;
        let jpeg = self.take(|bytes| {
            loop {
                match markers.next(bytes)? {
                    Markers::END if begun => return Some(markers.at),
                    // Another frame begins: this one has lost its end.
                    Markers::START if begun => return Some(markers.at - 2),
                    Markers::START => begun = true,
                    _ => {}
                }
            }
        });
        let jpeg = match jpeg {
            // No frame has begun: what stands behind the last one is not of it either, but all of a stream is not nothing.
            Err(FrameError::Cut(_)) if !begun && self.found => None,
            Err(FrameError::Cut(bytes)) if !begun => return Err(FrameError::Endless(bytes)),
            other => other?,
        };
        let Some(jpeg) = jpeg else { return Ok(None) };
        self.found = true;
        // Whatever stands before the frame is not of it.
        let start = jpeg.windows(2).position(|w| w == [0xFF, Markers::START]).unwrap_or(0);
        Ok(Some((self.decode)(&jpeg[start..])?))
    }
}

impl<R: Read, D: FnMut(&[u8]) -> Result<Photo, DecodeError>> Iterator for Frames<R, D> {
    type Item = Result<Photo, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.frame().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode::{Limits, decode};

    fn whole(jpeg: &[u8]) -> Result<Photo, DecodeError> {
        decode(jpeg, &Limits::default())
    }

    /// Gives its bytes a few at a time, as a pipe may.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn photo(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos").join(name))
            .unwrap()
    }

    fn frames(bytes: &[u8], at_once: usize, format: Format) -> Vec<Result<Photo, FrameError>> {
        Frames::new(Trickle(bytes, at_once), format, whole).collect()
    }

    #[test]
    fn jpegs_one_after_the_other_are_told_apart() {
        let [a, b] = ["progressive_420.jpg", "baseline_444.jpg"].map(photo);
        let expected = [&a, &b, &a].map(|bytes| whole(bytes).unwrap());
        // Between frames may stand what is none.
        let stream = [&a[..], b"--boundary\r\n", &b, &a, b"--boundary--\r\n"].concat();
        for at_once in [1, 100, 1 << 20] {
            let found = frames(&stream, at_once, Format::Mjpeg);
            let found: Vec<Photo> = found.into_iter().map(Result::unwrap).collect();
            assert!(found == expected, "{at_once} bytes at once");
        }
    }

    #[test]
    fn a_damaged_frame_costs_itself_only() {
        let a = photo("progressive_420.jpg");
        let stream = [&a[..a.len() - 10], &a, &a[..40]].concat();
        let found = frames(&stream, 1000, Format::Mjpeg);
        assert!(
            matches!(&found[..], [Err(FrameError::Decode(_)), Ok(_), Err(FrameError::Cut(40))]),
            "{found:?}"
        );
    }

    #[test]
    fn a_stream_of_something_else_is_not_read_for_ever() {
        let found: Vec<_> = Frames::new(std::io::repeat(7), Format::Mjpeg, whole).collect();
        assert!(
            matches!(found[..], [Err(FrameError::Endless(bytes))] if bytes <= MOST + (1 << 16)),
            "{found:?}"
        );
        let found = frames(b"no JPEG", 3, Format::Mjpeg);
        assert!(matches!(found[..], [Err(FrameError::Endless(7))]), "{found:?}");
    }

    #[test]
    fn raw_frames_are_as_long_as_their_size_says() {
        let bytes: Vec<u8> = (0..2 * 18 + 5).collect();
        let found = frames(&bytes, 7, Format::Rgb { width: 3, height: 2 });
        let [Ok(first), Ok(second), Err(FrameError::Cut(5))] = &found[..] else { panic!("{found:?}") };
        assert_eq!((first.width, first.height, &first.data[..]), (3, 2, &bytes[..18]));
        assert_eq!(second.data, bytes[18..36]);
        assert!(frames(&[], 7, Format::Mjpeg).is_empty());
    }

    #[test]
    fn formats_by_name() {
        assert_eq!("mjpeg".parse(), Ok(Format::Mjpeg));
        assert_eq!("640x480".parse(), Ok(Format::Rgb { width: 640, height: 480 }));
        for wrong in ["", "jpeg", "0x4", "640x", "640x480x3", "9999x1"] {
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
    }
}
