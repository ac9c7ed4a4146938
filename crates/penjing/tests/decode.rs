//! Decoding photos of every format, against what Pillow makes of them.

use std::path::{Path, PathBuf};

use penjing::data::decode::{DecodeError, Limits, Photo, decode, decode_for, read};
use penjing_runtime::pixels::{Color, DecodeRule, Filter, Fit, Pixels};

/// Largest and mean difference allowed from the decoders that Pillow uses, in units of 0..=255: none from libwebp; from
/// libjpeg-turbo that of rounding and, where chroma is subsampled, of upsampling it before or after rounding.
fn allowed(name: &str) -> (u8, f64) {
    match name {
        n if n.ends_with(".webp") => (0, 0.0),
        n if n.contains("_42") || n.starts_with("restart") || n.starts_with("trailing") => (3, 0.45),
        _ => (2, 0.02),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos")
}

fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

fn differences(a: &Photo, b: &Photo) -> (u8, f64) {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let each = || a.data.iter().zip(&b.data).map(|(a, b)| a.abs_diff(*b));
    (each().max().unwrap_or(0), each().map(f64::from).sum::<f64>() / a.data.len() as f64)
}

#[test]
fn every_format_decodes_as_pillow_does() {
    let list = std::fs::read_to_string(folder().join("expected.csv")).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for line in list.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').collect();
        let [name, width, height, hash] = fields[..] else { panic!("four fields: {line}") };
        count += 1;
        let photo = match read(&folder().join(name), &Limits::default()) {
            Ok(photo) => photo,
            Err(e) => {
                wrong.push(e.to_string());
                continue;
            }
        };
        if format!("{}x{}", photo.width, photo.height) != format!("{width}x{height}") {
            wrong.push(format!("{name}: {}x{}, expected {width}x{height}", photo.width, photo.height));
        } else if hash.is_empty() {
            let pillow = read(&folder().join(format!("{name}.pillow.png")), &Limits::default()).unwrap();
            let (max, mean) = differences(&photo, &pillow);
            println!("{name}: max {max}, mean {mean:.4}");
            if max > allowed(name).0 || mean > allowed(name).1 {
                wrong.push(format!("{name}: max {max}, mean {mean:.3}"));
            }
        } else if format!("{:016x}", fnv1a(&photo.data)) != hash {
            wrong.push(format!("{name}: other pixels, beginning {:?}", &photo.data[..12]));
        }
    }
    assert!(count >= 50, "{count} photos");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Stretched to `width` × `height`; JPEGs at the least scale that is not below that.
fn stretched(width: usize, height: usize) -> Pixels {
    Pixels {
        height,
        width,
        color: Color::Rgb,
        fit: Fit::Squash,
        filter: Filter::Bilinear,
        mean: [0.0; 3],
        std: [1.0; 3],
        decode: DecodeRule::Dct { margin: 1 },
    }
}

/// Each pixel's luma in all three channels.
fn gray(photo: &Photo) -> Photo {
    let luma = |p: &[u8]| {
        (0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2])).round() as u8
    };
    Photo { data: photo.data.chunks(3).flat_map(|p| [luma(p); 3]).collect(), ..*photo }
}

fn average(photo: &Photo, channel: usize) -> f64 {
    let sum: f64 = photo.data.chunks(3).map(|p| f64::from(p[channel])).sum();
    sum / (photo.width * photo.height) as f64
}

#[test]
fn jpegs_at_reduced_scale_are_near_those_of_pillow() {
    let list =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/reduced.csv"));
    let (mut count, mut wrong) = (0, Vec::new());
    for line in list.unwrap().lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').collect();
        let [name, by, width, height, hex] = fields[..] else { panic!("five fields: {line}") };
        let [by, width, height] = [by, width, height].map(|number| number.parse::<usize>().unwrap());
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let data = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let pillow = Photo { width, height, data };
        let pixels = stretched(width, height);
        let bytes = std::fs::read(folder().join(name)).unwrap();
        let photo = decode_for(&bytes, &Limits::default(), &pixels).unwrap();
        // libjpeg averages what it leaves out where the decoder here drops it, and keeps the chroma's own resolution:
        // brightness must agree in each pixel, colours on the whole.
        let (max, mean) = differences(&gray(&photo), &gray(&pillow));
        let shift = (0..3).map(|c| (average(&photo, c) - average(&pillow, c)).abs()).fold(0.0, f64::max);
        println!("{name} at 1/{by}: brightness max {max}, mean {mean:.3}, colour {shift:.2}");
        if max > 24 || mean > 1.7 || shift > 1.6 {
            wrong.push(format!("{name} at 1/{by}: {max}, {mean:.3}, {shift:.2}"));
        }
        count += 1;
    }
    assert!(count >= 24, "{count} photos");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn only_jpegs_of_gray_and_rgb_are_reduced() {
    let sides = |name: &str| {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        let photo = decode_for(&bytes, &Limits::default(), &stretched(5, 4)).unwrap();
        (photo.width, photo.height)
    };
    assert_eq!([sides("baseline_444.jpg"), sides("gray.jpg")], [(6, 5); 2]);
    for name in ["cmyk.jpg", "ycck.jpg", "rgb.bmp", "lossy.webp"] {
        assert_eq!(sides(name), (47, 37), "{name}");
    }
}

#[test]
fn what_is_no_photo_is_refused_with_its_reason() {
    let limits = Limits::default();
    assert_eq!(decode(b"", &limits), Err(DecodeError::Empty));
    assert_eq!(decode(b"\xff", &limits), Err(DecodeError::NotAPhoto));
    assert_eq!(decode(b"path,label\na.jpg,cat\n", &limits), Err(DecodeError::NotAPhoto));
    assert!(
        read(&folder().join("absent.jpg"), &limits)
            .unwrap_err()
            .to_string()
            .contains("absent.jpg: cannot read")
    );
    for name in ["truncated.jpg", "truncated_progressive.jpg", "truncated.png"] {
        let error = decode(&std::fs::read(folder().join(name)).unwrap(), &limits);
        assert!(matches!(error, Err(DecodeError::Damaged { .. })), "{name}: {error:?}");
    }
}

#[test]
fn limits_hold_before_pixels_are_decoded() {
    let error = read(&folder().join("huge.png"), &Limits::default()).unwrap_err().to_string();
    assert!(
        error.contains("huge.png") && error.contains("40000 x 40000") && error.contains("178956970"),
        "{error}"
    );
    let bytes = std::fs::read(folder().join("rgb.bmp")).unwrap();
    let refused = |limits: Limits| matches!(decode(&bytes, &limits), Err(DecodeError::TooLarge(_)));
    let pixels = 47 * 37;
    assert!(!refused(Limits { max_pixels: pixels, max_side: 47, max_file_bytes: bytes.len() as u64 }));
    assert!(refused(Limits { max_pixels: pixels - 1, ..Limits::default() }));
    assert!(refused(Limits { max_side: 46, ..Limits::default() }));
    assert!(refused(Limits { max_file_bytes: bytes.len() as u64 - 1, ..Limits::default() }));
}
