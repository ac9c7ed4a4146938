//! The way through: train, eval, classify, inspect, bench.

use std::{io::Write as _, process::Stdio};

use crate::support::{CLASSES, Place, encoded, photo, trained, weights};

#[track_caller]
fn keys(value: &serde_json::Value, expected: &[&str]) {
    for key in expected {
        assert!(value.get(key).is_some(), "no `{key}` in {value}");
    }
}

#[test]
fn from_photos_to_a_model_that_knows_them() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 6);
    let ran = place.train("photos", "m.penjing", &[]);
    assert_eq!(ran.err, "");
    let report = ran.json();
    keys(&report, &["model", "seconds", "images_per_s", "peak_rss_bytes", "tried", "lambda", "skipped"]);
    assert_eq!(report["classes"], 4);
    assert_eq!(report["photos"], 24);
    assert_eq!(report["val_top1"], 1.0);
    assert!(report["test_top1"].is_null());
    assert!(report["tried"].as_array().unwrap().len() > 1);
    assert_eq!(place.names("."), ["cache", "m.penjing", "photos"]);

    place.photos("new", &CLASSES, 8);
    let report = place.run(&["eval", "m.penjing", "new", "--json"]).json();
    assert_eq!((&report["n"], &report["top1"], &report["top5"]), (&32.into(), &1.0.into(), &1.0.into()));
    assert_eq!(report["per_class"][3]["label"], "🌳");
    assert_eq!(report["confusion"][1], serde_json::json!([0, 8, 0, 0]));

    let report = place.run(&["classify", "m.penjing", "new/日本語/7.png", "--top", "2", "--json"]).json();
    assert_eq!(report[0]["path"], "new/日本語/7.png");
    assert_eq!(report[0]["top"].as_array().unwrap().len(), 2);
    assert_eq!(report[0]["top"][0]["label"], "日本語");
    assert!((0.5..=1.0).contains(&report[0]["top"][0]["p"].as_f64().unwrap()));
    let report = place.run(&["classify", "m.penjing", "new", "--json"]).json();
    assert_eq!(report.as_array().unwrap().len(), 32);

    let report = place.run(&["inspect", "m.penjing", "--json"]).json();
    keys(&report, &["arch", "params", "macs", "peak_ram_bytes", "input", "layers", "provenance"]);
    assert_eq!(report["labels"], serde_json::json!(CLASSES));
    assert_eq!(report["file_bytes"], std::fs::metadata(place.at("m.penjing")).unwrap().len());

    let report = place.run(&["bench", "m.penjing", "--seconds", "0.1", "--threads", "2", "--json"]).json();
    keys(&report, &["images_per_s", "peak_rss_bytes"]);
    assert_eq!(report["threads"], 2);
    let p = |name: &str| report["latency_ms"][name].as_f64().unwrap();
    assert!(0.0 < p("p50") && p("p50") <= p("p90") && p("p90") <= p("p99"));
}

#[test]
fn every_verb_decodes_as_the_model_says() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 6);
    let learn = |photos: &str, model: &str, decode: &str| {
        place.learn(photos, model, &["--recipe", "head", "--decode", decode]).json();
        weights(&place, model)
    };
    // Photos that no rule touches give the same weights.
    assert!(learn("photos", "full.penjing", "full") == learn("photos", "reduced.penjing", "reduced"));

    // The network sees 32 pixels.
    let mut state = 1u32;
    for (class, red) in [("a", 0), ("b", 60)] {
        for number in 0..3 {
            let large = image::RgbImage::from_fn(700, 600, |x, y| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                image::Rgb([red + (state >> 25) as u8, (x / 3) as u8, (y / 3) as u8])
            });
            place.write(&format!("large/{class}/{number}.jpg"), crate::support::jpeg(&large));
        }
    }
    let answers = |args: &[&str]| {
        let of = |model: &str| {
            let mut args = args.to_vec();
            args.insert(1, model);
            let json = place.run(&args).json();
            json[0]["top"].clone()
        };
        [of("full.penjing"), of("reduced.penjing")]
    };
    let [full, reduced] = answers(&["classify", "photos/a/0.png", "--json"]);
    assert_eq!(full, reduced);
    let [full, reduced] = answers(&["classify", "large/a/0.jpg", "--json"]);
    assert_ne!(full, reduced, "classify");
    assert!(learn("large", "x.penjing", "full") != learn("large", "y.penjing", "reduced"), "features");
}

#[test]
fn results_for_people_name_classes_and_figures() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 2);
    let model = trained().to_str().unwrap();
    for (args, words) in [
        (&["eval", model, "photos"][..], &["top-1 100.00 %", "Ελληνικά"][..]),
        (&["classify", model, "photos/🌳/1.png"], &["photos/🌳/1.png: 🌳"]),
        (&["inspect", model], &["efficientnet_lite0", "two words, Ελληνικά, 日本語, 🌳"]),
        (&["bench", model, "--seconds", "0.05"], &["p50", "images/s"]),
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(words.iter().all(|word| ran.out.contains(word)), "{args:?}: {}", ran.out);
    }
}

#[test]
fn a_network_without_weights_can_be_measured() {
    let args = ["bench", "--arch", "mobilenet_v2_x0.35", "--size", "96", "--classes", "7"];
    let report = Place::new().run(&[&args[..], &["--seconds", "0.1", "--json"]].concat()).json();
    assert!(report["runs"].as_u64().unwrap() >= 5);
}

#[test]
fn the_model_carries_how_it_wants_its_pixels() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 4);
    place.train("photos", "m.penjing", &["--gray", "--fit", "pad"]).json();
    let input = &place.run(&["inspect", "m.penjing", "--json"]).json()["input"];
    assert_eq!((&input["height"], &input["color"]), (&64.into(), &"gray".into()));
    assert!(input["fit"].to_string().contains("pad"), "{input}");
    assert_eq!(place.run(&["eval", "m.penjing", "photos", "--json"]).json()["n"], 8);
}

#[test]
fn a_photo_may_come_on_stdin() {
    let place = Place::new();
    let mut command = place.command(&["classify", trained().to_str().unwrap(), "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&photo(2, 99)).unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers[0]["top"][0]["label"], "日本語");
}

/// What the program says of a stream on stdin: the documents, and the exit code.
fn watched(bytes: &[u8], more: &[&str]) -> (Vec<serde_json::Value>, Option<i32>) {
    let place = Place::new();
    let args = [&["classify", trained().to_str().unwrap(), "-", "--json"], more].concat();
    let mut child = place.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}

#[test]
fn frames_of_a_camera_come_on_stdin() {
    let jpeg = |class| encoded(class, 50, image::ImageFormat::Jpeg);
    let top = |answer: &serde_json::Value| answer["top"][0]["label"].as_str().unwrap().to_string();
    let (first, second) = (jpeg(0), jpeg(2));
    // The second frame is torn.
    let stream = [&first[..], &second[..second.len() - 10], &second].concat();
    let (answers, code) = watched(&stream, &["--frames", "mjpeg"]);
    assert_eq!((answers.len(), code), (3, Some(1)), "{answers:?}");
    assert_eq!([top(&answers[0]), top(&answers[2])], [CLASSES[0], CLASSES[2]]);
    assert!(answers[1]["error"].as_str().unwrap().contains("JPEG"), "{answers:?}");
    assert_eq!(answers[2]["frame"], 3);

    let raw = |class| image::load_from_memory(&photo(class, 50)).unwrap().into_rgb8().into_raw();
    let stream: Vec<u8> = [0, 0, 0, 2, 0].into_iter().flat_map(raw).collect();
    let (answers, code) = watched(&stream, &["--frames", "40x32"]);
    assert_eq!(code, Some(0));
    let seen: Vec<String> = answers.iter().map(top).collect();
    assert_eq!(seen, [0, 0, 0, 2, 0].map(|class: usize| CLASSES[class]));
    assert_eq!(watched(b"", &["--frames", "mjpeg"]), (vec![], Some(1)), "silence is no answer");
    // Over many frames a single one counts little.
    let (smooth, _) = watched(&stream, &["--frames", "40x32", "--smooth", "9"]);
    assert!(smooth.iter().all(|answer| top(answer) == CLASSES[0]), "{smooth:?}");
}

#[test]
fn shells_and_man_know_the_verbs() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = place.run(&["completions", shell]);
        assert!(
            ran.code == Some(0) && ran.out.contains("classify") && ran.out.contains("group-by"),
            "{shell}"
        );
    }
    std::fs::create_dir(place.at("man")).unwrap();
    assert_eq!(place.run(&["man", "man"]).code, Some(0));
    let names = place.names("man");
    assert!(["penjing.1", "penjing-train.1"].iter().all(|page| names.iter().any(|name| name == page)));
    place.run(&["man", "nowhere"]).refused(1, &["nowhere"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_an_error_unless_the_reader_left() {
    let place = Place::new();
    let mut command = place.command(&["inspect", trained().to_str().unwrap()]);
    command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("penjing: stdout: "), "{output:?}");

    let mut child = place.command(&["inspect", trained().to_str().unwrap()]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}
