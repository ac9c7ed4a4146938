//! Decoding photos of every format, against what Pillow makes of them.

use std::path::{Path, PathBuf};

use penjing::data::decode::{DecodeError, Limits, Photo, decode, decode_for, read};
use penjing_runtime::pixels::{Color, DecodeRule, Filter, Fit, Pixels};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos")
}

fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
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
            if photo.data != pillow.data {
                let most = photo.data.iter().zip(&pillow.data).map(|(a, b)| a.abs_diff(*b)).max();
                wrong.push(format!("{name}: differs by {} at most", most.unwrap()));
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

#[test]
fn jpegs_at_reduced_scale_are_those_of_pillow() {
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
        if photo != pillow {
            wrong.push(format!("{name} at 1/{by}: {} x {}, other pixels", photo.width, photo.height));
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
    for name in ["rgb.bmp", "baseline_420.jpg", "progressive_444.jpg"] {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        let refused = |limits: Limits| matches!(decode(&bytes, &limits), Err(DecodeError::TooLarge(_)));
        let pixels = 47 * 37;
        assert!(!refused(Limits { max_pixels: pixels, max_side: 47, max_file_bytes: bytes.len() as u64 }));
        assert!(refused(Limits { max_pixels: pixels - 1, ..Limits::default() }), "{name}");
        assert!(refused(Limits { max_side: 46, ..Limits::default() }), "{name}");
        assert!(refused(Limits { max_file_bytes: bytes.len() as u64 - 1, ..Limits::default() }), "{name}");
    }
}
