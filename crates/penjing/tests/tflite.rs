//! Classifiers of TensorFlow Lite against LiteRT (`scripts/goldens/tflite.py`, `scripts/goldens/tflite_files.py`).

use std::path::{Path, PathBuf};

use penjing::{
    Error,
    import::{self, Details},
};
use penjing_runtime::{Isa, PlanBuf, Serial, Session, file::Model};
use safetensors::SafeTensors;
use serde_json::Value as Json;

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tflite").join(name)
}

fn import(path: &Path) -> penjing::Result<import::Classifier> {
    import::parse_tflite(path, &std::fs::read(path).unwrap(), Details::default())
}

/// Logits of a model for the bytes of its input.
fn logits(model: &Model, bytes: &[u8]) -> Vec<f32> {
    let plan = PlanBuf::lower(&model.graph, &model.weights, 1).unwrap();
    let mut session = Session::new(plan.into(), Isa::detect());
    model.pixels.normalize(bytes, session.input());
    session.run(&Serial).to_vec()
}

fn differ(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

fn best(values: &[f32]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap()
}

/// What `scripts/goldens/tflite_files.py` says of each of its files.
fn expected() -> serde_json::Map<String, Json> {
    let text = std::fs::read_to_string(goldens("expected.json")).unwrap();
    let Json::Object(files) = serde_json::from_str(&text).unwrap() else { panic!("expected.json") };
    files
}

#[test]
fn every_operator_gives_what_litert_gives() {
    for (name, json) in expected() {
        let Some(theirs) = json["logits"].as_array() else { continue };
        let theirs: Vec<f32> = theirs.iter().map(|value| value.as_f64().unwrap() as f32).collect();
        let model = import(&goldens(&format!("{name}.tflite"))).unwrap_or_else(|e| panic!("{e}")).model;
        let bytes: Vec<u8> = (0..model.pixels.len()).map(|i| (i * 7919 % 251) as u8).collect();
        let worst = differ(&logits(&model, &bytes), &theirs);
        println!("{name}: largest difference {worst:.2e}");
        // Integers round what floats do not: two of their steps.
        let tolerance = if name == "every_op" { 1e-5 } else { 2.0 * 0.15 };
        assert!(worst <= tolerance, "{name}: {worst}");
        assert!(model.graph.classifier().is_some(), "{name}: the softmax is left out");
    }
}

#[test]
fn damaged_foreign_and_hostile_files_are_refused_with_a_reason() {
    let mut count = 0;
    for (name, json) in expected() {
        let Some(words) = json["error"].as_array() else { continue };
        let path = goldens(&format!("{name}.tflite"));
        let error = import(&path).map(|_| ()).expect_err(&name);
        assert!(matches!(error, Error::Model { .. }), "{name}: {error}");
        for word in words.iter().map(|word| word.as_str().unwrap()).chain([&*format!("{name}.tflite")]) {
            assert!(error.to_string().contains(word), "{name}: `{word}` is missing: {error}");
        }
        count += 1;
    }
    assert!(count > 20, "{count}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = std::fs::read(goldens("saturated_relu6.tflite")).unwrap();
    let mut whole = 0;
    for end in 0..bytes.len() {
        let read = import::parse_tflite(Path::new("cut"), &bytes[..end], Details::default());
        // The last bytes may be padding.
        whole += usize::from(read.is_ok());
        assert!(read.is_err() || bytes.len() - end < 8, "cut at {end}");
    }
    assert!(whole < 8, "{whole}");
}

#[test]
fn a_changed_byte_never_panics() {
    for name in ["every_op", "saturated_relu"] {
        let mut bytes = std::fs::read(goldens(&format!("{name}.tflite"))).unwrap();
        for at in 0..bytes.len() {
            let before = bytes[at];
            for change in [0x01, 0x80, 0xff] {
                bytes[at] = before ^ change;
                if let Ok(read) = import::parse_tflite(Path::new("changed"), &bytes, Details::default()) {
                    read.model.check().unwrap();
                }
            }
            bytes[at] = before;
        }
    }
}

#[test]
fn quantized_inputs_say_which_pixels_they_want_and_floats_do_not() {
    let quantized = import(&goldens("saturated_relu.tflite")).unwrap();
    assert!(quantized.knows_pixels);
    assert_eq!((quantized.model.pixels.mean, quantized.model.pixels.std), ([128.0; 3], [64.0; 3]));
    let floats = import(&goldens("every_op.tflite")).unwrap();
    assert!(!floats.knows_pixels);
    assert_eq!((floats.model.pixels.mean, floats.model.pixels.std), ([127.5; 3], [127.5; 3]));
    let path = goldens("every_op.tflite");
    let bytes = std::fs::read(&path).unwrap();
    let details = Details { mean: Some([1.0, 2.0, 3.0]), std: Some([4.0; 3]), ..Details::default() };
    let told = import::parse_tflite(&path, &bytes, details).unwrap();
    assert!(told.knows_pixels);
    assert_eq!((told.model.pixels.mean, told.model.pixels.std), ([1.0, 2.0, 3.0], [4.0; 3]));
    for (count, hint) in [(7, true), (5, true), (4, false)] {
        let labels = Some((0..count).map(|label| label.to_string()).collect());
        let details = Details { labels, ..Details::default() };
        let error = import::parse_tflite(&path, &bytes, details).unwrap_err().to_string();
        assert!(error.contains(&format!("{count} labels were given for 6 classes")), "{error}");
        assert_eq!(error.contains("background"), hint, "{error}");
    }
    let sized = import::parse_tflite(&path, &bytes, Details { size: Some(96), ..Details::default() });
    assert!(matches!(sized, Err(Error::Unsupported(_))));
}

/// Values from SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A picture of 8 × 8 colours, as the script draws it.
fn picture(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let colours: Vec<u8> = (0..8 * 8 * 3).map(|_| (next(&mut state) >> 56) as u8).collect();
    let at = |i: usize| i * 8 / size;
    let pixel = |y: usize, x: usize| colours[(at(y) * 8 + at(x)) * 3..][..3].to_vec();
    (0..size * size).flat_map(|i| pixel(i / size, i % size)).collect()
}

#[test]
fn published_classifiers_give_litert_s_logits() {
    let root = std::env::var_os("PENJING_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let golden = std::fs::read(goldens("published.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let values = |name: &str| -> Vec<f32> {
        let data = golden.tensor(name).unwrap().data();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    // How far floats may be from integers, in steps of the logits: networks with a ReLU6 were trained to be quantized,
    // the others were not, and what their integers lose is lost by none of ours.
    for (folder, name, [mean, std], most_steps) in [
        ("mobilenetv1-0.25-float-tflite", "mobilenet_v1_0.25_224_1_default_1", [127.5, 127.5], 0.0),
        ("mobilenetv1-0.25-float-tflite", "mobilenet_v1_0.25_224_quant", [128.0, 128.0], 3.0),
        ("mlperf-tiny", "pretrainedResnet", [0.0, 1.0], 0.0),
        ("mlperf-tiny", "pretrainedResnet_quant", [0.0, 1.0], 5.0),
        ("mlperf-tiny", "vww_96_float", [0.0, 255.0], 0.0),
        ("mlperf-tiny", "vww_96_int8", [0.0, 255.0], 30.0),
        ("coral-tflite", "tf2_mobilenet_v2_1.0_224_ptq", [127.0, 127.5], 30.0),
    ] {
        let path = root.join("weights").join(folder).join(format!("{name}.tflite"));
        if !path.exists() {
            println!("skipped: {} is absent (set PENJING_SHARED)", path.display());
            continue;
        }
        let mut read = import(&path).unwrap_or_else(|e| panic!("{e}"));
        let step = values(&format!("{name}.step"))[0];
        let pixels = &mut read.model.pixels;
        if read.knows_pixels {
            assert!(
                (pixels.mean[0] - mean).abs() < 0.5 && (pixels.std[0] / std - 1.0).abs() < 0.01,
                "{name}: {pixels:?}"
            );
        } else {
            (pixels.mean, pixels.std) = ([mean; 3], [std; 3]);
        }
        let all = values(name);
        let theirs = all.chunks_exact(all.len() / 2);
        for (seed, theirs) in [1, 2].into_iter().zip(theirs) {
            let ours = logits(&read.model, &picture(seed, read.model.pixels.height));
            let largest = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
            let (worst, alike) = (differ(&ours, theirs), correlation(&ours, theirs));
            println!("{name}: largest difference {worst:.2e} of {largest:.1}, correlation {alike:.4}");
            assert_eq!(best(&ours), best(theirs), "{name}");
            if step == 0.0 {
                assert!(worst <= 1e-4 * largest, "{name}: {worst}");
            } else {
                assert!(
                    worst <= most_steps * step && alike > 0.97,
                    "{name}: {} steps, {alike}",
                    worst / step
                );
            }
        }
    }
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let moment = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f(f64::from(a) - ma, f64::from(b) - mb)).sum()
    };
    moment(&|a, b| a * b) / (moment(&|a, _| a * a) * moment(&|_, b| b * b)).sqrt()
}
