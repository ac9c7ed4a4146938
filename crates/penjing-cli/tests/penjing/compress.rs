//! Smaller and faster, or a refusal with the figures.

use crate::support::{CLASSES, Place, tiny};

/// A place with photos and a model of them.
fn place() -> Place {
    let place = Place::new();
    place.photos("photos", &CLASSES, 6);
    place.train("photos", "m.penjing", &[]).json();
    place
}

#[test]
fn a_model_in_8_bits_is_smaller_and_answers_the_same() {
    let place = place();
    let before = place.read("m.penjing");
    let words =
        ["compress", "m.penjing", "photos", "-o", "s.penjing", "--max-latency", "100", "--layers", "--json"];
    let report = place.run(&words).json();
    assert_eq!((&report["written"], &report["watched"]), (&true.into(), &24.into()));
    let verdict = &report["verdict"];
    assert_eq!(
        (&verdict["part"], &verdict["photos"], &verdict["missed"]),
        (&"training".into(), &24.into(), &serde_json::json!([]))
    );
    assert_eq!((&verdict["before"]["top1"], &verdict["after"]["top1"]), (&1.0.into(), &1.0.into()));
    assert_eq!(verdict["distance"]["agreement"], 1.0);
    let bytes = |when: &str| verdict[when]["file_bytes"].as_f64().unwrap();
    assert_eq!(bytes("after"), std::fs::metadata(place.at("s.penjing")).unwrap().len() as f64);
    assert!(bytes("after") < 0.4 * bytes("before"), "{verdict}");
    assert_eq!(report["tried"].as_array().unwrap().len(), 4);
    // Every layer is in 8 bits, and none of them drowns in noise.
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.len() > 10);
    for layer in layers {
        assert!(layer["int8"] == true && layer["sqnr_db"].as_f64().is_none_or(|db| db > 10.0), "{layer}");
        assert!(layer["alone"].as_f64().unwrap() >= 0.0, "{layer}");
    }
    // The same work gives the same file; the model before is as it was.
    let again = [
        "compress",
        "m.penjing",
        "photos",
        "-o",
        "t.penjing",
        "--max-latency",
        "100",
        "--threads",
        "3",
        "--json",
    ];
    place.run(&again).json();
    let [one, two] = ["s.penjing", "t.penjing"].map(|name| place.read(name));
    assert!(one == two, "threads change nothing");
    assert!(place.read("m.penjing") == before);
    // What reads models reads this one.
    place.photos("new", &CLASSES, 8);
    let report = place.run(&["eval", "s.penjing", "new", "--json"]).json();
    assert_eq!(report["top1"], 1.0);
    let report = place.run(&["inspect", "s.penjing", "--json"]).json();
    let recipe = report["provenance"]["recipe"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(recipe.starts_with("int8: 24 photos watched, ranges by "), "{recipe}");
}

#[test]
fn weights_alone_make_a_small_file() {
    let place = place();
    let size = |bits: &str, output: &str| {
        let words = ["compress", "m.penjing", "photos", "-o", output, "--weights-only", bits, "--json"];
        let report = place.run(&words).json();
        assert_eq!((&report["written"], &report["verdict"]["after"]["top1"]), (&true.into(), &1.0.into()));
        let after = report["verdict"]["after"]["file_bytes"].as_f64().unwrap();
        assert_eq!(after, std::fs::metadata(place.at(output)).unwrap().len() as f64);
        after / report["verdict"]["before"]["file_bytes"].as_f64().unwrap()
    };
    let [eight, four] = [size("8", "w8.penjing"), size("4", "w4.penjing")];
    assert!(eight < 0.4 && four < 0.8 * eight, "{eight} {four}");
    assert_eq!(place.run(&["eval", "w4.penjing", "photos", "--json"]).json()["top1"], 1.0);
    let report = place.run(&["inspect", "w4.penjing", "--json"]).json();
    let recipe = report["provenance"]["recipe"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(recipe.starts_with("weights in 4 bits, 24 photos watched; top-1 100.00 % before, "), "{recipe}");
    // A gate is a gate.
    let small = ["--weights-only", "8", "--max-size", "0.1"];
    let ran = place.run(&[&["compress", "m.penjing", "photos", "-o", "s.penjing"], &small[..]].concat());
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("s.penjing: not written: its file is 0."), "{}", ran.err);
    assert!(!place.at("s.penjing").exists());
    // What only its file has in few bits is learnt from, and compressed, like any other.
    place
        .run(&[
            "train",
            "photos",
            "--backbone",
            "w4.penjing",
            "--recipe",
            "head",
            "-o",
            "h.penjing",
            "--json",
        ])
        .json();
    let words = ["compress", "w8.penjing", "photos", "-o", "s.penjing", "--max-latency", "100", "--json"];
    assert_eq!(place.run(&words).json()["written"], true);
    for words in [["--weights-only", "3"], ["--weights-only=8", "--per-tensor"]] {
        let ran = place.run(&[&["compress", "m.penjing", "photos", "-o", "s.penjing"], &words[..]].concat());
        assert_eq!(ran.code, Some(2), "{words:?}");
    }
}

#[test]
fn a_network_learns_to_compute_with_integers() {
    let place = Place::new();
    place.photos("photos/train", &CLASSES, 8);
    place.photos("photos/val", &CLASSES, 6);
    place.write("m.penjing", std::fs::read(tiny()).unwrap());
    let before = place.read("m.penjing");
    let compress = |output: &str, more: &[&str]| {
        let words =
            ["compress", "m.penjing", "photos", "-o", output, "--max-drop", "100", "--max-latency", "100"];
        place.run(&[&words, more].concat())
    };
    let report = compress("s.penjing", &["--qat", "always", "--epochs", "2", "--json"]).json();
    let (taught, verdict) = (&report["qat"], &report["verdict"]);
    assert_eq!([&taught["epochs"], &taught["steps"], &taught["photos"]], [2.0, 4.0, 32.0], "{taught}");
    assert!(taught["seconds"].as_f64().unwrap() > 0.0 && taught["stopped"].is_null(), "{taught}");
    let kept = taught["kept"] == true;
    assert_eq!(verdict["after"]["top1"], taught[if kept { "top1_after" } else { "top1_before" }]);
    let report = place.run(&["inspect", "s.penjing", "--json"]).json();
    let recipe = report["provenance"]["recipe"].as_array().unwrap().last().unwrap().as_str().unwrap();
    let told =
        "quantization-aware training of 2 epochs (4 steps of 16 photos, AdamW at 1e-4, BatchNorm folded";
    assert!(recipe.contains(told) && recipe.contains("not kept: ") != kept, "{recipe}");
    // In words too; what was asked for was not needed before.
    let ran = compress("t.penjing", &["--qat", "always", "--epochs", "2", "--threads", "3"]);
    assert!(ran.out.contains("learnt with integers: 2 epochs of 32 photos, 4 steps in "), "{ran:?}");
    assert!(place.read("s.penjing") == place.read("t.penjing"), "threads change nothing");
    assert!(compress("u.penjing", &["--json"]).json()["qat"].is_null());
    assert!(place.read("m.penjing") == before);
    assert_eq!(place.names("."), ["m.penjing", "photos", "s.penjing", "t.penjing", "u.penjing"]);
    compress("v.penjing", &["--qat", "never", "--epochs", "2"]).refused(2, &["--qat never trains nothing"]);
}

#[test]
fn what_was_learnt_in_vain_is_not_learnt_again() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 8);
    place.write("m.penjing", std::fs::read(tiny()).unwrap());
    let words = [
        "compress",
        "m.penjing",
        "photos",
        "-o",
        "s.penjing",
        "--qat",
        "always",
        "--epochs",
        "2",
        "--max-drop",
    ];
    let ran = place.run(&[&words[..], &["100", "--max-latency", "100", "--max-size", "0.01"]].concat());
    assert_eq!(ran.code, Some(1));
    ran.says(&["s.penjing.part: what it has learnt; with another --max-drop"]);
    let ran = place.run(&[&words[..], &["100", "--max-latency", "100"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.says(&["going on after 4 steps"]);
    assert_eq!(place.names("."), ["m.penjing", "photos", "s.penjing"]);
    // Nor is it in the way where it turns out not to be needed.
    let learnt = [&["100", "--max-latency", "100", "--max-size", "0.01"][..], &["--force"]].concat();
    assert_eq!(place.run(&[&words[..], &learnt].concat()).code, Some(1));
    std::fs::remove_file(place.at("s.penjing")).unwrap();
    let plain =
        ["compress", "m.penjing", "photos", "-o", "s.penjing", "--max-drop", "100", "--max-latency", "100"];
    let ran = place.run(&plain);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.says(&["s.penjing.part: what was learnt before was not needed"]);
}

#[test]
fn a_network_loses_channels_and_then_its_floats() {
    let place = Place::new();
    place.photos("photos/train", &CLASSES, 8);
    place.photos("photos/val", &CLASSES, 6);
    place.write("m.penjing", std::fs::read(tiny()).unwrap());
    let before = place.read("m.penjing");
    let compress = |output: &str, more: &[&str]| {
        let words =
            ["compress", "m.penjing", "photos", "-o", output, "--max-drop", "100", "--max-latency", "100"];
        place.run(&[&words, more].concat())
    };
    let prune = ["--prune", "0.4", "--prune-epochs", "2"];
    let report = compress("s.penjing", &[&prune[..], &["--floats", "--json"]].concat()).json();
    let (pruned, verdict) = (&report["prune"], &report["verdict"]);
    let figure = |value: &serde_json::Value| value.as_f64().unwrap();
    assert!((0.4..0.6).contains(&figure(&pruned["share"])) && report["written"] == true, "{pruned}");
    assert!(figure(&pruned["macs"][1]) <= 0.6 * figure(&pruned["macs"][0]), "{pruned}");
    assert_eq!([&pruned["epochs"], &pruned["steps"]], [2.0, 4.0]);
    assert_eq!(pruned["criterion"], "surgeon");
    assert!(figure(&verdict["after"]["file_bytes"]) < figure(&verdict["before"]["file_bytes"]), "{verdict}");
    let shown = place.run(&["inspect", "s.penjing", "--json"]).json();
    let recipe = shown["provenance"]["recipe"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(
        recipe.starts_with("pruned: ") && recipe.contains("by surgeon; training of 2 epochs"),
        "{recipe}"
    );
    // In words; then in 8 bits, of which the gate compares with the model before.
    let ran = compress("t.penjing", &[&prune[..], &["--threads", "3"]].concat());
    assert!(ran.out.contains("pruned: ") && ran.out.contains("8 bits"), "{ran:?}");
    let report = compress("u.penjing", &[&prune[..], &["--json"]].concat()).json();
    assert!(place.read("t.penjing") == place.read("u.penjing"), "threads change nothing");
    for same in ["top1", "file_bytes"] {
        assert_eq!(report["verdict"]["before"][same], verdict["before"][same]);
    }
    assert!(
        figure(&report["verdict"]["after"]["file_bytes"]) < 0.5 * figure(&verdict["after"]["file_bytes"])
    );
    compress("b.penjing", &["--prune", "0.4", "--prune-epochs", "0", "--floats", "--blocks"])
        .says(&["has no residual block that can go"]);
    std::fs::remove_file(place.at("b.penjing")).unwrap();
    // What stays is left as it is where that is asked for, and the file says so.
    let cut =
        compress("c.penjing", &["--prune", "0.4", "--prune-epochs", "0", "--floats", "--no-fit", "--json"])
            .json();
    assert_eq!((&report["prune"]["fitted"], &cut["prune"]["fitted"]), (&true.into(), &false.into()));
    assert!(place.run(&["inspect", "c.penjing"]).out.contains("what stays not fitted"));
    std::fs::remove_file(place.at("c.penjing")).unwrap();
    // What was pruned is a model like any other, and in 8 bits it is none to prune.
    assert_eq!(
        compress("w.penjing", &["--weights-only", "8", "--prune", "0.2", "--prune-epochs", "0", "--json"])
            .json()["written"],
        true
    );
    place
        .run(&["compress", "u.penjing", "photos", "-o", "x.penjing", "--prune", "0.3"])
        .refused(1, &["computes in integers"]);
    assert!(place.read("m.penjing") == before);
    assert_eq!(place.names("."), ["m.penjing", "photos", "s.penjing", "t.penjing", "u.penjing", "w.penjing"]);
    for words in [
        &["--floats"][..],
        &["--prune", "1.0"],
        &["--criterion", "l1"],
        &["--no-fit"],
        &["--prune", "0.3", "--floats", "--epochs", "3"],
    ] {
        assert_eq!(compress("x.penjing", words).code, Some(2), "{words:?}");
    }
}

#[test]
fn what_was_learnt_after_pruning_is_not_lost() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 8);
    place.write("m.penjing", std::fs::read(tiny()).unwrap());
    let compress = |more: &[&str]| {
        let words = ["compress", "m.penjing", "photos", "-o", "s.penjing", "--max-drop", "100"];
        place.run(&[&words[..], &["--max-latency", "100", "--floats"], more].concat())
    };
    let prune = ["--prune", "0.4", "--prune-epochs", "2"];
    let ran = compress(&[&prune[..], &["--max-size", "0.01"]].concat());
    assert_eq!(ran.code, Some(1));
    ran.says(&["s.penjing.pruned.part: what it has learnt; with another --max-drop"]);
    // Nor does other work throw it away, or the network that it was made of.
    place
        .run(&["compress", "m.penjing", "photos", "-o", "s.penjing", "--budget", "ram=1MB"])
        .refused(1, &["s.penjing.pruned.part", "unfinished training after pruning"]);
    place
        .run(&["compress", "m.penjing", "photos", "-o", "m.penjing", "--force"])
        .refused(1, &["m.penjing: is the model to make smaller"]);
    let kept = place.read("s.penjing.pruned.part");
    compress(&["--prune", "0.4", "--prune-epochs", "0"])
        .refused(1, &["s.penjing.pruned.part", "unfinished training after pruning"]);
    place.run(&["compress", "m.penjing", "photos", "-o", "s.penjing"]).refused(1, &["s.penjing.pruned.part"]);
    let other = compress(&["--prune", "0.4", "--prune-epochs", "2", "--criterion", "l2"]);
    other.refused(1, &["it differs in", "--criterion (then surgeon, now l2)"]);
    assert!(place.read("s.penjing.pruned.part") == kept && !place.at("s.penjing").exists());
    let ran = compress(&prune);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.says(&["going on after 4 steps"]);
    assert_eq!(place.names("."), ["m.penjing", "photos", "s.penjing"]);
    // Each of several steps keeps its own.
    std::fs::remove_file(place.at("s.penjing")).unwrap();
    let steps = [&prune[..], &["--prune-steps", "2"]].concat();
    let ran = compress(&[&steps[..], &["--max-size", "0.01"]].concat());
    ran.says(&["s.penjing.pruned.1.part: what it has learnt"]);
    ran.says(&["s.penjing.pruned.part: what it has learnt"]);
    compress(&["--prune", "0.4"])
        .refused(1, &["s.penjing.pruned.1.part", "unfinished training after pruning"]);
    let ran = compress(&steps);
    ran.says(&["going on after 2 steps"]);
    assert_eq!(place.names("."), ["m.penjing", "photos", "s.penjing"]);
}

#[test]
fn a_missed_gate_says_by_how_much_and_writes_nothing() {
    let place = place();
    let ran = place.run(&[
        "compress",
        "m.penjing",
        "photos",
        "-o",
        "s.penjing",
        "--max-size",
        "0.01",
        "--max-latency",
        "100",
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("top-1") && ran.out.contains("SQNR"), "{}", ran.out);
    assert!(ran.out.contains(" points, so that --max-drop 1 allows none less to be right"), "{}", ran.out);
    assert!(ran.err.contains("s.penjing: not written: its file is 0."), "{}", ran.err);
    assert_eq!(place.names("."), ["cache", "m.penjing", "photos"]);
}

#[test]
fn what_cannot_be_compressed_is_refused() {
    let place = place();
    place.photos("one", &["a"], 12);
    place.photos("few", &CLASSES, 1);
    place.photos("others", &["x", "y"], 8);
    let refused = |words: &[&str], says: &str| {
        place.run(&[&["compress"], words, &["-o", "s.penjing"]].concat()).refused(1, &[says]);
        assert!(!place.at("s.penjing").exists());
    };
    refused(&["m.penjing", "one"], "all photos to watch are of one class, “a”");
    refused(&["m.penjing", "few"], "4 photos to watch are too few");
    refused(&["m.penjing", "others"], "the model does not know the class “x”; it knows: ");
    refused(
        &["m.penjing", "photos", "--keep", "nothing"],
        "it has no layer with weights `nothing`; `penjing inspect` names",
    );
    refused(&["m.penjing", "photos", "--keep", "stem.act"], "it has no layer with weights `stem.act`");
    refused(&["missing.penjing", "photos"], "missing.penjing: cannot read");
    place
        .run(&["compress", "m.penjing", "photos", "-o", "i.penjing", "--max-latency", "100", "--json"])
        .json();
    refused(&["i.penjing", "photos"], "i.penjing: the model computes in integers");
    place
        .run(&["train", "photos", "--backbone", "i.penjing", "-o", "t.penjing"])
        .refused(1, &["computes in integers"]);
    for words in [["--max-drop", "-1"], ["--max-latency", "0"], ["--ranges", "guess"], ["--photos", "9"]] {
        let ran = place.run(&[&["compress", "m.penjing", "photos", "-o", "s.penjing"], &words[..]].concat());
        assert_eq!(ran.code, Some(2), "{words:?}");
    }
}

#[test]
fn weights_become_zero_after_channels_went() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 8);
    place.write("m.penjing", std::fs::read(tiny()).unwrap());
    let compress = |name: &str, more: &[&str]| {
        let words =
            ["compress", "m.penjing", "photos", "-o", name, "--max-drop", "100", "--max-latency", "100"];
        place.run(&[&words[..], more].concat())
    };
    let sparse = ["--sparsify", "0.6", "--sparsify-epochs", "2"];
    let report = compress("s.penjing", &[&sparse[..], &["--json"]].concat()).json();
    assert!(report["written"] == true && report["prune"].is_null(), "{report}");
    let zeros = &report["sparsify"];
    assert!((zeros["share"].as_f64().unwrap() - 0.6).abs() < 0.01 && zeros["steps"] == 4, "{zeros}");
    let size =
        |report: &serde_json::Value, when: &str| report["verdict"][when]["file_bytes"].as_u64().unwrap();
    assert_eq!(size(&report, "after"), std::fs::metadata(place.at("s.penjing")).unwrap().len());
    assert!(size(&report, "after") < size(&report, "before"));
    let ran = compress("t.penjing", &[&sparse[..], &["--prune", "0.3", "--prune-epochs", "1"]].concat());
    assert!(ran.out.contains("pruned: ") && ran.out.contains("sparse: "), "{ran:?}");
    let report = place.run(&["inspect", "t.penjing", "--json"]).json();
    let recipe = report["provenance"]["recipe"].to_string();
    assert!(recipe.find("pruned: ") < recipe.find("sparse: ") && recipe.contains("sparse: "), "{recipe}");
    place.run(&["eval", "t.penjing", "photos", "--json"]).json();
    // What was learnt on the way to a missed gate is kept, and not thrown away by work that learns nothing.
    let ran = compress("u.penjing", &[&sparse[..], &["--max-size", "0.01"]].concat());
    assert_eq!(ran.code, Some(1));
    ran.says(&["u.penjing.sparse.part: what it has learnt; with another --max-drop"]);
    let kept = place.read("u.penjing.sparse.part");
    compress("u.penjing", &["--sparsify", "0.6", "--sparsify-epochs", "0"])
        .refused(1, &["u.penjing.sparse.part", "unfinished training with zeros"]);
    assert!(place.read("u.penjing.sparse.part") == kept);
    compress("u.penjing", &sparse).says(&["going on after 4 steps"]);
    assert!(!place.at("u.penjing.sparse.part").exists() && place.at("u.penjing").is_file());
    for (words, why) in [
        (&["--sparsify", "1.0"][..], "from 0.05 to 0.95"),
        (&["--sparsify", "0.5", "--weights-only", "8"], "cannot be used with"),
        (&["--sparsify-epochs", "3"], "--sparsify"),
    ] {
        compress("v.penjing", words).refused(2, &[why]);
    }
}

#[test]
fn a_network_is_found_within_a_budget() {
    let place = place();
    let compress = |output: &str, more: &[&str]| {
        place.run(&[&["compress", "m.penjing", "photos", "-o", output, "--time", "3s"], more].concat())
    };
    let before = std::fs::metadata(place.at("m.penjing")).unwrap().len();
    let half = format!("size={}B", before / 2);
    let wide = ["--max-drop", "100"];
    let report =
        compress("s.penjing", &[&["--budget", &half, "--picture", "s.svg", "--json"], &wide[..]].concat())
            .json();
    assert_eq!((&report["written"], &report["part"]), (&true.into(), &"set-aside".into()), "{report}");
    let size = std::fs::metadata(place.at("s.penjing")).unwrap().len();
    let taken = &report["tried"][report["taken"].as_u64().unwrap() as usize];
    assert_eq!(taken["shown"]["needs"]["size"], size);
    assert!(size <= before / 2, "{size} of {before}");
    assert!(place.read("s.svg").starts_with(b"<svg"));
    assert!(!place.at("s.penjing.search").exists());
    let recipe = place.run(&["inspect", "s.penjing"]).out;
    assert!(recipe.contains("found within a budget among"), "{recipe}");
    // Beyond what can be: nothing is written, and the nearest are named.
    let ran = compress("t.penjing", &["--budget", "ram=1kB"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.says(&["t.penjing: not written: nothing that could be made of it keeps to the budget"]);
    assert!(ran.out.contains("cannot keep to the budget, the nearest of each kind:"), "{ran:?}");
    assert!(!place.at("t.penjing").exists());
    // Nothing is left of it that another budget would have to throw away.
    assert!(!place.at("t.penjing.search").exists());
    // Who judges, where no part of the photos is for that, and what --group-by keeps together.
    for part in ["train", "val"] {
        place.photos(&format!("parts/{part}"), &CLASSES, 2);
    }
    let aside = |photos: &str, more: &[&str]| {
        let words =
            ["compress", "m.penjing", photos, "-o", "g.penjing", "--budget", "ram=1kB", "--time", "3s"];
        place.run(&[&words, more].concat())
    };
    aside("photos", &[]).says(&["no part is for validation", "are set aside to judge"]);
    let ran = aside("photos", &["--group-by", "png$"]);
    ran.says(&["no photo can be set aside", "the networks learn from the photos that judge them"]);
    aside("parts", &["--group-by", "png$"]).says(&["--group-by changes nothing here"]);
    #[cfg(unix)]
    compress("t.penjing", &["--budget", "ram=1MB", "--cost", "/dev/zero"])
        .refused(1, &["/dev/zero", "a file of costs has fewer"]);
    compress("t.penjing", &["--budget", "ram=x"]).refused(2, &["expected an amount of memory"]);
    compress("t.penjing", &["--budget", "ram=1MB", "--prune", "0.5"]).refused(2, &["cannot be used with"]);
    compress("s.penjing", &["--budget", "ram=1MB"]).refused(1, &["is there already"]);
    compress("m.penjing", &["--budget", "ram=1MB", "--force"]).refused(1, &["is a model to begin with"]);
    for (picture, what) in [
        ("m.penjing", "is a model to begin with"),
        ("./t.penjing", "is the model that is to be written"),
        ("there.json", "is what the latency is told by"),
    ] {
        place.write("there.json", b"{}");
        compress(
            "t.penjing",
            &["--budget", "ram=1MB", "--cost", "there.json", "--picture", picture, "--force"],
        )
        .refused(1, &[what]);
    }
    // Whoever reads the table may go away: it was missed all the same.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let words = ["compress", "m.penjing", "photos", "-o", "t.penjing", "--budget", "ram=1kB", "--time", "3s"];
    assert_eq!(place.command(&words).stdout(writer).status().unwrap().code(), Some(1));
    let eight =
        ["compress", "m.penjing", "photos", "-o", "8.penjing", "--qat", "never", "--max-latency", "100"];
    assert_eq!(place.run(&[&eight, &wide[..]].concat()).code, Some(0));
    compress("t.penjing", &["--budget", "ram=1MB", "--or", "8.penjing"])
        .refused(1, &["8.penjing: the model computes in integers; take the one in floats"]);
}
