//! The pixels contract against Pillow's `resize` and `ImageOps.pad` and torchvision's `Resize` + `CenterCrop`.
#![cfg(feature = "alloc")]

use penjing_runtime::pixels::{Color, DecodeRule, Filter, Fit, Pixels, Region, Rgb, View};

/// The photo generator of `scripts/goldens/resize.py`.
fn photo(width: usize, height: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        let value = (state >> 24) as u8;
        if seed.is_multiple_of(3) { u8::from(value >= 128) * 255 } else { value }
    };
    (0..width * height * 3).map(|_| next()).collect()
}

fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

fn contract(width: usize, height: usize, color: Color, fit: Fit, filter: Filter) -> Pixels {
    let (mean, std) = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);
    Pixels { height, width, color, fit, filter, mean, std, decode: DecodeRule::Full }
}

fn size(text: &str) -> (usize, usize) {
    let (width, height) = text.split_once('x').unwrap();
    (width.parse().unwrap(), height.parse().unwrap())
}

#[test]
fn equals_pillow_and_torchvision_bit_for_bit() {
    let (mut cases, mut wrong) = (0, Vec::new());
    for line in include_str!("goldens/resize.csv").lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').collect();
        let [color, filter, fit, source, input, detail, flip, seed, hash, first] = fields[..] else {
            panic!("ten fields: {line}")
        };
        let color = if color == "gray" { Color::Gray } else { Color::Rgb };
        let filter = match filter {
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            _ => Filter::Box,
        };
        let mut view = View { region: None, flip: flip == "1" };
        let fit = match fit {
            "crop" => Fit::Crop { short: detail.parse().unwrap() },
            "pad" => Fit::Pad { fill: [200, 30, 117] },
            "region" => {
                let n: Vec<usize> = detail.split(' ').map(|n| n.parse().unwrap()).collect();
                view.region = Some(Region { x: n[0], y: n[1], width: n[2], height: n[3] });
                Fit::Crop { short: 10 }
            }
            _ => Fit::Squash,
        };
        let ((w, h), (width, height)) = (size(source), size(input));
        let data = photo(w, h, seed.parse().unwrap());
        let mut out = Vec::new();
        let pixels = contract(width, height, color, fit, filter);
        pixels.bytes(Rgb { width: w, height: h, data: &data }, view, &mut out);
        let begins: String = out.iter().take(12).map(|b| format!("{b:02x}")).collect();
        if format!("{:016x}", fnv1a(&out)) != hash || begins != first {
            wrong.push(format!("{line}: {begins}"));
        }
        cases += 1;
    }
    assert!(cases >= 240, "{cases} cases");
    assert!(wrong.is_empty(), "{} of {cases} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn extreme_shapes_neither_panic_nor_overflow() {
    let fits = [Fit::Crop { short: 4096 }, Fit::Crop { short: 1 }, Fit::Pad { fill: [1, 2, 3] }, Fit::Squash];
    for (w, h) in [(1, 1), (1, 65_535), (65_535, 1), (3, 20_000), (20_000, 3)] {
        let data = photo(w, h, 7);
        for fit in fits {
            for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Box] {
                for (width, height) in [(1, 1), (40, 1), (1, 40), (33, 32)] {
                    let mut out = vec![9; 5];
                    let pixels = contract(width, height, Color::Rgb, fit, filter);
                    pixels.bytes(Rgb { width: w, height: h, data: &data }, View::PLAIN, &mut out);
                    assert_eq!(out.len(), width * height * 3);
                }
            }
        }
    }
}

#[test]
fn a_region_outside_the_photo_is_cut_off_and_an_empty_one_gives_zeros() {
    let data = photo(20, 10, 5);
    let rgb = Rgb { width: 20, height: 10, data: &data };
    let pixels = contract(8, 8, Color::Rgb, Fit::Squash, Filter::Bilinear);
    let bytes = |x, y, width, height| {
        let (region, mut out) = (Region { x, y, width, height }, Vec::new());
        pixels.bytes(rgb, View { region: Some(region), flip: false }, &mut out);
        out
    };
    assert_eq!(bytes(5, 2, usize::MAX, usize::MAX), bytes(5, 2, 15, 8));
    for empty in [bytes(20, 0, 5, 5), bytes(3, usize::MAX, 1, 1), bytes(0, 0, 0, 4)] {
        assert_eq!(empty, [0; 8 * 8 * 3]);
    }
}

#[test]
fn tensor_is_the_normalised_bytes() {
    let data = photo(30, 20, 4);
    let rgb = Rgb { width: 30, height: 20, data: &data };
    for color in [Color::Rgb, Color::Gray] {
        let pixels = contract(16, 12, color, Fit::Squash, Filter::Bicubic);
        let (mut bytes, mut tensor) = (Vec::new(), vec![0.0; pixels.len()]);
        pixels.bytes(rgb, View::PLAIN, &mut bytes);
        pixels.tensor(rgb, View::PLAIN, &mut tensor);
        let channels = pixels.channels();
        assert_eq!(tensor.len(), 12 * 16 * channels);
        for (i, (&v, t)) in bytes.iter().zip(tensor).enumerate() {
            let c = i % channels;
            assert_eq!(t, (f32::from(v) - pixels.mean[c]) / pixels.std[c]);
        }
    }
}

#[test]
fn a_jpeg_is_reduced_as_far_as_each_side_stays_so_many_times_what_it_is_resized_to() {
    let by = |fit, decode, width, height| {
        let pixels = Pixels { decode, ..contract(224, 200, Color::Rgb, fit, Filter::Bicubic) };
        pixels.reduction(width, height)
    };
    let (crop, reduced) = (Fit::Crop { short: 256 }, DecodeRule::REDUCED);
    // Twice the short side of 256 px; an eighth of 4089 px is 512, as an eighth of 4096 is.
    let sides =
        [(511, 9000), (1022, 1022), (1023, 1023), (9000, 1024), (2048, 2045), (4088, 5000), (4089, 4089)];
    assert_eq!(sides.map(|(w, h)| by(crop, reduced, w, h)), [1, 1, 2, 2, 4, 4, 8]);
    assert_eq!(sides.map(|(w, h)| by(crop, DecodeRule::Full, w, h)), [1; 7]);
    assert_eq!(sides.map(|(w, h)| by(crop, DecodeRule::Dct { margin: 1 }, w, h)), [1, 4, 4, 4, 8, 8, 8]);
    // A photo that fits into the width is as high as that leaves it; stretched it is as high as the input.
    assert_eq!([by(Fit::Squash, reduced, 3584, 1600), by(Fit::Squash, reduced, 3584, 798)], [4, 1]);
    assert_eq!([by(Fit::Pad { fill: [0; 3] }, reduced, 3584, 799), by(crop, reduced, 0, 5)], [8, 1]);
}

#[test]
fn a_contract_from_outside_is_checked() {
    let good = contract(224, 224, Color::Rgb, Fit::Crop { short: 256 }, Filter::Bicubic);
    assert_eq!(good.validate(), Ok(()));
    let refuse = |pixels: Pixels, word: &str| {
        let error = pixels.validate().unwrap_err();
        assert!(error.contains(word), "{error}");
    };
    refuse(Pixels { width: 0, ..good.clone() }, "width is 0");
    refuse(Pixels { height: 4097, ..good.clone() }, "height is 4097");
    refuse(Pixels { fit: Fit::Crop { short: 0 }, ..good.clone() }, "fit.crop.short is 0");
    refuse(Pixels { mean: [0.0, f32::NAN, 0.0], ..good.clone() }, "mean");
    refuse(Pixels { std: [1.0, 1.0, 0.0], ..good.clone() }, "std");
    refuse(Pixels { std: [f32::INFINITY; 3], ..good.clone() }, "std");
    refuse(Pixels { decode: DecodeRule::Dct { margin: 0 }, ..good.clone() }, "margin is 0");
    assert_eq!(Pixels { decode: DecodeRule::Dct { margin: 16 }, ..good }.validate(), Ok(()));
}

#[cfg(feature = "file")]
#[test]
fn the_contract_reads_back_from_json_and_refuses_unknown_fields() {
    let pixels = contract(96, 128, Color::Gray, Fit::Pad { fill: [1, 2, 3] }, Filter::Box);
    let json = serde_json::to_string(&pixels).unwrap();
    assert_eq!(serde_json::from_str::<Pixels>(&json).unwrap(), pixels);
    let reduced = Pixels { decode: DecodeRule::REDUCED, ..pixels };
    let reduced_json = json.replace(r#""decode":"full""#, r#""decode":{"dct":{"margin":2}}"#);
    assert_eq!(serde_json::from_str::<Pixels>(&reduced_json).unwrap(), reduced);
    assert!(json.contains(r#""fit":{"pad":{"fill":[1,2,3]}},"filter":"box""#), "{json}");
    assert!(serde_json::from_str::<Pixels>(&json.replacen('{', r#"{"extra":1,"#, 1)).is_err());
    assert!(serde_json::from_str::<Pixels>(&json.replace(r#"{"fill""#, r#"{"extra":1,"fill""#)).is_err());
}
