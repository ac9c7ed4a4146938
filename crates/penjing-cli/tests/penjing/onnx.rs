//! Networks of other tools in, models out to other tools.

use std::path::{Path, PathBuf};

use crate::support::{CLASSES, Place, trained};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../penjing/tests/goldens").join(name)
}

#[test]
fn an_onnx_file_becomes_a_model_whatever_its_name() {
    let place = Place::new();
    place.write("network.pth", std::fs::read(golden("onnx/names.onnx")).unwrap());
    let ran = place.run(&["weights", "import", "network.pth", "-o", "m.penjing", "--json"]);
    ran.says(&["how it wants its pixels", "--mean and --std"]);
    let report = ran.json();
    assert_eq!((&report["arch"], &report["classes"]), (&"onnx".into(), &5.into()));
    let report = place.run(&["inspect", "m.penjing", "--json"]).json();
    assert_eq!(report["labels"][2], "crane (2)");
    assert_eq!((&report["input"]["height"], &report["input"]["mean"][0]), (&32.into(), &123.675.into()));
    assert_eq!(report["provenance"]["backbone"], "network.pth");

    let own =
        ["weights", "import", "network.pth", "-o", "own.penjing", "--mean", "127.5", "--std", "120,130,140"];
    let ran = place.run(&[&own[..], &["--license", "MIT", "--source", "a friend", "--json"]].concat());
    assert_eq!(ran.err, "");
    assert_eq!(ran.json()["input"]["std"], serde_json::json!([120.0, 130.0, 140.0]));
    place.photos("photos", &["a"], 1);
    let report = place.run(&["classify", "own.penjing", "photos", "--json"]).json();
    assert_eq!(report[0]["top"].as_array().unwrap().len(), 3);
}

#[test]
fn an_onnx_network_is_a_backbone_at_another_size_too() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 6);
    let onnx = golden("onnx/mobilenet_v2_script.onnx");
    place.run(&["weights", "import", onnx.to_str().unwrap(), "-o", "b.penjing", "--json"]).json();
    let report = place.train("photos", "m.penjing", &["--backbone", "b.penjing"]).json();
    assert_eq!(report["val_top1"], 1.0);
    assert_eq!(place.run(&["inspect", "m.penjing", "--json"]).json()["input"]["height"], 64);
    // What reads a map laid flat fits one size only.
    let onnx = golden("onnx/resnet_script.onnx");
    place.run(&["weights", "import", onnx.to_str().unwrap(), "-o", "r.penjing", "--json"]).json();
    place
        .train("photos", "n.penjing", &["--backbone", "r.penjing"])
        .refused(1, &["onnx", "64 pixels", "37 × 37"]);
}

#[test]
fn a_model_goes_out_and_comes_back() {
    let place = Place::new();
    let model = trained().to_str().unwrap();
    let export = ["export", model, "--to", "onnx", "-o", "m.onnx"];
    let report = place.run(&[&export[..], &["--json"]].concat()).json();
    assert_eq!((&report["classes"], &report["format"]), (&4.into(), &"onnx".into()));
    assert_eq!(report["file_bytes"], place.read("m.onnx").len());
    place.run(&export).refused(1, &["m.onnx", "is there already", "--force"]);
    let more = ["--force", "--keep-batch-norm", "--dynamic-batch", "--with-preprocessing"];
    let ran = place.run(&[&export[..], &more].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.out.contains("m.onnx: efficientnet_lite0 with 4 classes"), "{ran:?}");

    place.run(&[&export[..], &["--force"]].concat());
    let ran = place.run(&["weights", "import", "m.onnx", "-o", "back.penjing", "--json"]);
    assert_eq!(ran.err, "");
    ran.json();
    place.photos("photos", &CLASSES, 2);
    let of = |model: &str| place.run(&["classify", model, "photos", "--json"]).json();
    assert_eq!(of("back.penjing"), of(model));
    let [ours, back] = [model, "back.penjing"].map(|model| place.run(&["inspect", model, "--json"]).json());
    for key in ["input", "labels", "temperature"] {
        assert_eq!(ours[key], back[key], "{key}");
    }
}

#[test]
fn what_does_not_go_together_is_refused_before_any_work() {
    let place = Place::new();
    let plain = golden("onnx/plain.onnx");
    let dict = golden("state_dicts/plain_zip.pth");
    let import = |file: &Path, more: &[&str]| {
        let args = ["weights", "import", file.to_str().unwrap(), "-o", "m.penjing"];
        place.run(&[&args[..], more].concat())
    };
    for (ran, words) in [
        (import(&dict, &[]), ["holds weights only", "--arch NAME"]),
        (import(&plain, &["--arch", "mobilenet_v2"]), ["--arch", "leave them out"]),
        (import(&plain, &["--std", "0.229,0.224,0.225"]), ["--std", "255 times as much"]),
        (import(&plain, &["--mean", "1,2"]), ["--mean", "three numbers"]),
        (import(&plain, &["--mean", "a"]), ["--mean", "three numbers"]),
        (import(&plain, &["--mean", "256"]), ["--mean", "0 to 255"]),
        (place.run(&["export", "m.penjing", "-o", "x"]), ["--to", "required"]),
        (place.run(&["export", "m.penjing", "--to", "coreml", "-o", "x"]), ["'coreml'", "onnx"]),
    ] {
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
        assert!(words.iter().all(|word| ran.err.contains(word)), "{words:?}: {}", ran.err);
    }
    let open = golden("onnx/open_size.onnx");
    import(&open, &[]).refused(1, &["open_size.onnx", "--size PX"]);
    import(&golden("onnx/unknown_ops.onnx"), &[]).refused(1, &["Erf in", "GridSample in"]);
    place
        .run(&["export", open.to_str().unwrap(), "--to", "onnx", "-o", "x"])
        .refused(1, &["not a penjing model"]);
    assert_eq!(place.names("."), [""; 0]);
    assert_eq!(import(&open, &["--size", "48"]).code, Some(0));
}
