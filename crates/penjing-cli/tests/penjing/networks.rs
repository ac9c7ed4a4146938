//! Networks from elsewhere: classifiers of TensorFlow Lite, and networks that the user declares.

use std::path::{Path, PathBuf};

use crate::support::{CLASSES, Place};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../penjing/tests/goldens/tflite").join(name)
}

/// A network of 60 thousand parameters.
const NET: &str = r#"
name = "mine"
size = 32
act = "relu"

[[row]]
kind = "conv"
name = "stem"
channels = 16
stride = 2

[[row]]
kind = "inverted_residual"
expand = 4
channels = 24
stride = 2
repeats = 2

[head]
dropout = 0.1
"#;

#[test]
fn a_classifier_of_tensorflow_lite_becomes_a_model() {
    let place = Place::new();
    place.write("labels.txt", "a\nb\nc\nd\ne\n");
    let quantized = golden("saturated_relu6.tflite");
    let file = quantized.to_str().unwrap();
    let report =
        place.run(&["weights", "import", file, "-o", "m.penjing", "--labels", "labels.txt", "--json"]);
    assert_eq!(report.err, "", "a quantized file says which pixels it wants");
    assert_eq!((&report.json()["arch"], &report.json()["classes"]), (&"tflite".into(), &5.into()));
    let input = &place.run(&["inspect", "m.penjing", "--json"]).json()["input"];
    assert_eq!((&input["mean"][0], &input["std"][0]), (&128.0.into(), &64.0.into()), "{input}");
    place.photos("photos", &["x"], 2);
    let answers = place.run(&["classify", "m.penjing", "photos", "--json"]).json();
    assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");

    // A file of floats does not say so.
    let floats = golden("every_op.tflite");
    let floats = floats.to_str().unwrap();
    let ran = place.run(&["weights", "import", floats, "-o", "f.penjing"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.says(&["does not say how it wants its pixels", "--mean", "--std"]);
    let told = ["--mean", "1,2,3", "--std", "4", "--force", "--json"];
    let ran = place.run(&[&["weights", "import", floats, "-o", "f.penjing"][..], &told].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let input = &place.run(&["inspect", "f.penjing", "--json"]).json()["input"];
    assert_eq!((&input["mean"][2], &input["std"][2]), (&3.0.into(), &4.0.into()), "{input}");
}

#[test]
fn a_backbone_of_tensorflow_lite_learns_new_classes() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 6);
    let file = golden("saturated_relu6.tflite");
    place.run(&["weights", "import", file.to_str().unwrap(), "-o", "b.penjing", "--json"]).json();
    let args =
        ["train", "photos", "-o", "m.penjing", "--backbone", "b.penjing", "--recipe", "head", "--json"];
    assert_eq!(place.run(&args).json()["classes"], 4);
    assert_eq!(place.run(&["eval", "m.penjing", "photos", "--json"]).json()["n"], 24);
}

#[test]
fn what_cannot_be_imported_is_refused_with_the_way_out() {
    let place = Place::new();
    let file = |name: &str| golden(name).to_str().unwrap().to_string();
    let import = |args: &[&str]| place.run(&[&["weights", "import"], args, &["-o", "m.penjing"]].concat());
    let (whole, unknown) = (file("every_op.tflite"), file("unknown_ops.tflite"));
    import(&[&unknown]).refused(1, &["unknown_ops.tflite: ", "TANH (2 times)", "GELU", "`Sharpen`"]);
    import(&[&whole, "--arch", "mobilenet_v2"]).refused(2, &["is a network itself", "--arch"]);
    import(&[&whole, "--size", "96"]).refused(1, &["leave --size out"]);
    place.write("weights.pth", b"\x80\x02}.");
    import(&["weights.pth"]).refused(2, &["weights only", "--arch", "weights list"]);
    for (flags, word) in [
        (["--mean", "1,2"], "three numbers"),
        (["--mean", "1,x,3"], "three numbers"),
        (["--mean", "nan"], "0 to 255"),
        (["--std", "1,0,1"], "1 to 1024"),
    ] {
        import(&[&[whole.as_str()][..], &flags].concat()).refused(2, &[flags[0], word]);
    }
    place.write("labels.txt", "a\nb\nc\nd\ne\nf\ng\n");
    import(&[&whole, "--labels", "labels.txt"])
        .refused(1, &["7 labels were given for 6 classes", "background"]);
    assert_eq!(place.names("."), ["labels.txt", "weights.pth"]);
}

#[test]
fn a_network_of_one_s_own_is_measured_and_learns() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 6);
    place.write("my_net.toml", NET);
    let bench =
        ["bench", "--arch", "my_net.toml_x0.5", "--classes", "3", "--seconds", "0.05", "--train", "--json"];
    assert!(place.run(&bench).json()["train_images_per_s"].as_f64().unwrap() > 0.0);
    let learn = |network: &str, model: &str, more: &[&str]| {
        let args = ["--recipe", "scratch", "--epochs", "2", "--backbone", network];
        place.run(&[&["train", "photos", "-o", model, "--json"][..], &args, more].concat()).json();
        place.run(&["inspect", model, "--json"]).json()
    };
    let plain = learn("my_net.toml", "m.penjing", &[]);
    assert_eq!((&plain["arch"], &plain["input"]["height"]), (&"mine".into(), &32.into()), "{plain}");
    let other = learn("my_net.toml_x0.5", "n.penjing", &["--size", "48", "--gray"]);
    assert_eq!((&other["arch"], &other["input"]["height"]), (&"mine_x0.5".into(), &48.into()), "{other}");
    assert_eq!(place.run(&["eval", "n.penjing", "photos", "--json"]).json()["n"], 24);
    // What it has learnt is a backbone like any other, without the file.
    std::fs::remove_file(place.at("my_net.toml")).unwrap();
    place.train("photos", "o.penjing", &["--backbone", "m.penjing"]).json();
}

#[test]
fn a_declaration_that_does_not_fit_is_refused_by_its_row() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 6);
    place.write("my_net.toml", NET);
    place.write("bad.toml", NET.replace("expand = 4", "expand = 400"));
    let train = |more: &[&str]| place.run(&[&["train", "photos", "-o", "m.penjing"][..], more].concat());
    train(&["--recipe", "scratch", "--backbone", "bad.toml"])
        .refused(1, &["bad.toml: row 2: `expand` is 400; expected 0.1 to 32"]);
    train(&["--backbone", "my_net.toml"]).refused(2, &["my_net.toml declares a network", "--recipe scratch"]);
    train(&["--recipe", "scratch", "--backbone", "gone.toml"]).refused(2, &["no such file"]);
    place.run(&["bench", "--arch", "gone.toml"]).refused(2, &["there is no file gone.toml"]);
    place.run(&["bench", "--arch", "bad.toml"]).refused(1, &["bad.toml: row 2: "]);
}

#[test]
fn what_a_network_takes_elsewhere_is_told_from_what_was_measured_there() {
    let place = Place::new();
    let measure = ["bench", "--costs", "there.json", "--seconds", "0.1", "--threads", "1", "--json"];
    let costs = place.run(&measure).json();
    assert_eq!(costs["threads"], 1);
    let networks = costs["networks"].as_array().unwrap();
    assert!(
        networks.len() > 30 && networks.iter().all(|network| network["measured_ms"].as_f64() > Some(0.0))
    );
    let written: serde_json::Value = serde_json::from_slice(&place.read("there.json")).unwrap();
    assert_eq!(written, costs);
    // It is not measured again unasked.
    place.run(&["bench", "--costs", "there.json"]).refused(1, &["there.json", "--force"]);
    let bench = ["bench", "--arch", "mobilenet_v1_x0.25", "--size", "64", "--seconds", "0.05"];
    let elsewhere = |file: &str| place.run(&[&bench[..], &["--cost", file]].concat());
    let ran = elsewhere("there.json");
    assert!(ran.out.contains("there ") && ran.out.contains(" on 1 thread\n"), "{ran:?}");
    let told = place.run(&[&bench[..], &["--cost", "there.json", "--json"]].concat()).json();
    let there = &told["elsewhere"];
    assert_eq!(there["isa"], costs["isa"]);
    assert!(there["latency_ms"].as_f64() > Some(0.0) && there["error"] == costs["error"], "{told}");
    // By another way of running there, which was measured too, and by one that was not.
    let way = costs["ways"].as_array().unwrap().last();
    if let Some(way) = way {
        let (isa, threads) = (way["isa"].as_str().unwrap(), way["threads"].to_string());
        let asked = ["--cost", "there.json", "--cost-isa", isa, "--cost-threads", &threads, "--json"];
        let told = &place.run(&[&bench[..], &asked].concat()).json()["elsewhere"];
        assert_eq!(
            (&told["isa"], &told["threads"], &told["error"]),
            (&way["isa"], &way["threads"], &way["error"])
        );
        assert!(told["latency_ms"].as_f64() > Some(0.0), "{told}");
    }
    let other = place.run(&[&bench[..], &["--cost", "there.json", "--cost-isa", "abacus"]].concat());
    other.refused(
        1,
        &["there.json: does not tell of abacus on 1 thread, only of ", "penjing bench --costs FILE"],
    );
    place.run(&[&bench[..], &["--cost-threads", "2"]].concat()).refused(2, &["--cost <FILE>"]);
    // Of another version, or none.
    let text = written.to_string().replace(r#""penjing":""#, r#""penjing":"9"#);
    place.write("old.json", text.as_bytes());
    elsewhere("old.json").refused(1, &["old.json: measured by penjing 9", "penjing bench --costs FILE"]);
    place.write("none.json", b"{}");
    elsewhere("none.json").refused(1, &["none.json: not a file of costs"]);
    elsewhere("gone.json").refused(1, &["gone.json: cannot read"]);
    place.run(&[&bench[..], &["--isa", "abacus"]].concat()).refused(2, &["this machine has scalar"]);
}
