//! Training that moves every weight, and the choice between it and the head.

use serde_json::{Value, json};

use crate::support::{Place, photo, tiny, weights};

/// What was tried and what was chosen.
fn tried(report: &Value) -> Vec<(String, bool)> {
    let candidates = report["candidates"].as_array().unwrap().iter();
    candidates.map(|c| (c["name"].as_str().unwrap().into(), c["chosen"].as_bool().unwrap())).collect()
}

fn labels(place: &Place, model: &str) -> Value {
    place.run(&["inspect", model, "--json"]).json()["labels"].clone()
}

#[test]
fn every_recipe_gives_the_same_file_on_any_number_of_threads() {
    let place = Place::new();
    place.photos("photos", &["a", "b", "c"], 16);
    for recipe in ["finetune", "full", "scratch"] {
        let learn = |model: &str, threads: &str| {
            place
                .learn(
                    "photos",
                    model,
                    &["--recipe", recipe, "--epochs", "3", "--threads", threads, "--force"],
                )
                .json()
        };
        let report = learn("1.penjing", "1");
        assert_eq!(report["epochs"].as_array().unwrap().len(), 3, "{report}");
        assert_eq!(report["interrupted"], false);
        learn("2.penjing", "2");
        assert!(place.read("1.penjing") == place.read("2.penjing"), "{recipe}: threads change the model");
        learn("3.penjing", "2");
        assert!(place.read("2.penjing") == place.read("3.penjing"), "{recipe}: the second run differs");
        let other = ["--recipe", recipe, "--epochs", "3", "--seed", "1", "--force"];
        place.learn("photos", "3.penjing", &other).json();
        assert!(
            weights(&place, "2.penjing") != weights(&place, "3.penjing"),
            "{recipe}: the seed changes nothing"
        );
    }
    assert_eq!(place.names("."), ["1.penjing", "2.penjing", "3.penjing", "cache", "photos"]);
}

#[test]
fn a_recipe_does_what_its_name_says() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 16);
    let (head, frozen, batch) = (
        "head on frozen features",
        "whole network, statistics frozen",
        "whole network, statistics of the batch",
    );
    for (recipe, expected) in [("finetune", frozen), ("full", batch)] {
        let ran = place.learn("photos", "m.penjing", &["--recipe", recipe, "--epochs", "2", "--force"]);
        let report = ran.json();
        assert_eq!(tried(&report), [(head.to_string(), false), (expected.to_string(), true)]);
        ran.says(&["training 1 of 3: epoch 1/2", "loss", "validation"]);
        ran.says(&["all photos: epoch 1/1"]);
        let mut steps = report["recipe"].as_array().unwrap().iter();
        assert!(steps.any(|step| step.as_str().unwrap().starts_with(expected)), "{report}");
        assert_eq!(place.run(&["eval", "m.penjing", "photos", "--json"]).json()["n"], 32);
    }
    let report =
        place.learn("photos", "m.penjing", &["--recipe", "scratch", "--epochs", "2", "--force"]).json();
    assert_eq!(tried(&report), [("whole network from random weights".to_string(), true)]);
    assert!(report["lambda"].is_null());
}

#[test]
fn people_see_what_was_tried() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 16);
    let backbone = crate::support::tiny().to_str().unwrap();
    let args = ["train", "photos", "-o", "m.penjing", "--size", "32", "--backbone", backbone];
    let ran = place.run(&[&args[..], &["--recipe", "finetune", "--epochs", "2"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("tried") && lines[0].ends_with("seconds"), "{}", ran.out);
    assert!(lines[1].starts_with("head on frozen features") && !lines[1].contains("chosen"), "{}", ran.out);
    assert!(lines[2].starts_with("whole network") && lines[2].ends_with("chosen"), "{}", ran.out);
    let ran = place.run(&["inspect", "m.penjing"]);
    for step in [
        "recipe      1. whole network from random weights",
        "2. head: ",
        "3. whole network, statistics frozen",
    ] {
        assert!(ran.out.contains(step), "{}", ran.out);
    }
    assert!(ran.out.contains("backbone    none"), "{}", ran.out);
}

#[test]
fn where_nothing_is_left_to_gain_the_network_is_not_trained() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 50);
    let ran = place.train("photos", "m.penjing", &["--recipe", "auto"]);
    ran.says(&["the head is wrong on 0 of 100 held-out photos", "nothing is left to gain"]);
    let report = ran.json();
    assert_eq!((&report["epochs"], &report["val_top1"]), (&json!([]), &1.0.into()));
    let ran = place.train("photos", "head.penjing", &["--recipe", "head"]);
    assert_eq!(ran.err, "");
    assert_eq!(ran.json()["epochs"], json!([]));
    assert!(place.read("m.penjing") == place.read("head.penjing"));
    assert_eq!(place.names("."), ["cache", "head.penjing", "m.penjing", "photos"]);

    place.photos("few", &["a", "b"], 8);
    // What `auto` does is what happens when nothing is said.
    let ran = place.run(&["train", "few", "-o", "few.penjing", "--size", "32"]);
    ran.says(&["16 photos are too few to train the whole network"]);
    assert_eq!(ran.code, Some(0));
}

#[test]
fn a_network_of_a_name_learns_from_random_weights() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 16);
    let scratch = |name: &str, more: &[&str]| {
        let args = [&["--recipe", "scratch", "--backbone", name, "--epochs", "2", "--force"], more].concat();
        place.learn("photos", "m.penjing", &args).json();
        place.run(&["inspect", "m.penjing", "--json"]).json()
    };
    for name in ["mobilenet_v1_x0.25", "mobilenet_v2_x0.5", "efficientnet_lite0"] {
        let model = scratch(name, &[]);
        assert_eq!((&model["arch"], &model["labels"]), (&name.into(), &json!(["a", "b"])));
        let provenance = &model["provenance"];
        assert_eq!((&provenance["backbone"], &provenance["backbone_hash"]), (&"none".into(), &"".into()));
        assert_eq!(provenance["recipe"].as_array().unwrap().len(), 1, "{provenance}");
    }
    let model = scratch("mobilenet_v1_x0.25", &["--gray", "--fit", "squash"]);
    assert_eq!((&model["input"]["height"], &model["input"]["color"]), (&32.into(), &"gray".into()));
}

#[test]
fn classes_may_be_small_unequal_or_fewer_than_a_batch() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 5);
    place.write("photos/lone/1.png", photo(2, 0));
    for recipe in ["finetune", "full", "scratch"] {
        let report =
            place.learn("photos", "m.penjing", &["--recipe", recipe, "--epochs", "2", "--force"]).json();
        assert_eq!((&report["classes"], &report["interrupted"]), (&3.into(), &false.into()), "{recipe}");
    }

    // One photo of each: whichever judged, none of its class would be left to learn from.
    place.photos("single", &["a", "b", "c"], 1);
    let learn =
        |recipe| place.learn("single", "m.penjing", &["--recipe", recipe, "--epochs", "2", "--force"]);
    for recipe in ["finetune", "full"] {
        let ran = learn(recipe);
        ran.says(&["no photo can judge the whole network", "the head is kept"]);
        assert_eq!(ran.json()["candidates"].as_array().unwrap().len(), 1, "{recipe}");
    }
    learn("scratch").refused(1, &["single", "no photo can judge the network", "add photos"]);

    place.photos("unequal", &["a"], 40);
    place.photos("unequal", &["a", "b"], 6);
    let learn = |balance: &str| {
        let args = ["--recipe", "finetune", "--epochs", "2", "--balance", balance, "--force"];
        place.learn("unequal", "m.penjing", &args).json();
        weights(&place, "m.penjing")
    };
    assert!(learn("0") != learn("1"), "balance changes nothing");
}

#[test]
fn a_time_limit_shortens_the_training() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 16);
    let ran =
        place.learn("photos", "m.penjing", &["--recipe", "finetune", "--epochs", "10000", "--time", "2s"]);
    ran.says(&["epochs instead of 10000 fit into the time limit"]);
    // One round judges where three would leave less time to each.
    ran.says(&["training: epoch 1/"]);
    // How many depends on the machine and on what else it does.
    assert!((1..10_000).contains(&ran.json()["epochs"].as_array().unwrap().len()));

    // An epoch of the large network takes longer than a second.
    let large =
        ["train", "photos", "--backbone", "efficientnet_lite0", "--size", "384", "--time", "1s", "--json"];
    let ran = place.run(&[&large[..], &["--recipe", "finetune", "-o", "head.penjing"]].concat());
    ran.says(&["the time limit leaves", "too little to train the whole network"]);
    assert_eq!(tried(&ran.json()), [("head on frozen features".to_string(), true)]);
    let ran = place.run(&[&large[..], &["--recipe", "scratch", "-o", "none.penjing"]].concat());
    ran.refused(1, &["time limit is too short", "--time"]);
    assert_eq!(place.names("."), ["cache", "head.penjing", "m.penjing", "photos"]);
}

#[test]
fn too_little_memory_is_named() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 8);
    let learn =
        |memory: &str| place.learn("photos", "m.penjing", &["--recipe", "finetune", "--memory", memory]);
    learn("20kB").refused(1, &["takes", "MB", "--size"]);
    learn("2GB").json();
}

#[test]
fn a_log_tells_every_step_and_epoch() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 20);
    let learn = || {
        let args = ["--recipe", "finetune", "--epochs", "3", "--log", "run.jsonl", "--force"];
        place.learn("photos", "m.penjing", &args).json();
        let text = String::from_utf8(place.read("run.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let lines = learn();
    let events = |kind: &str| lines.iter().filter(|line| line["event"] == kind).collect::<Vec<_>>();
    // 32 photos are learnt from while 8 judge, three times, one step an epoch; then 40 once.
    let (steps, epochs) = (events("step"), events("epoch"));
    assert_eq!((steps.len(), epochs.len(), events("done").len()), (10, 10, 1));
    assert_eq!(
        events("phase").iter().map(|phase| &phase["name"]).collect::<Vec<_>>(),
        ["training 1 of 3", "training 2 of 3", "training 3 of 3", "all photos"]
    );
    assert!(steps.iter().all(|step| step["loss"].as_f64().is_some() && step["lr"].as_f64().is_some()));
    assert!((0.0..=1.0).contains(&epochs[2]["val_top1"].as_f64().unwrap()));
    assert_eq!(learn().len(), 2 * lines.len(), "a second run appends");

    place.learn("photos", "x.penjing", &["--log", "nowhere/run.jsonl"]).refused(1, &["nowhere/run.jsonl"]);
}

#[test]
fn a_model_of_ones_own_goes_on_with_another_class() {
    let place = Place::new();
    place.photos("photos", &["b", "d"], 16);
    let first = ["--recipe", "finetune", "--epochs", "2", "--decode", "full"];
    place.learn("photos", "first.penjing", &first).json();

    place.photos("photos", &["b", "d", "a"], 16);
    let more = |recipe: &'static str, data: &str, output: &str| {
        let mut args = vec!["--from", "first.penjing", "--recipe", recipe, "--force"];
        args.extend(["--epochs", "2"].iter().filter(|_| recipe != "head"));
        place.learn(data, output, &args)
    };
    for recipe in ["head", "finetune"] {
        let ran = more(recipe, "photos", "second.penjing");
        ran.says(&["the network to begin with has learnt from photos"]);
        assert_eq!(ran.json()["classes"], 3);
        assert_eq!(labels(&place, "second.penjing"), json!(["a", "b", "d"]));
        assert_eq!(place.run(&["eval", "second.penjing", "photos", "--json"]).json()["n"], 48);
    }
    let second = place.run(&["inspect", "second.penjing", "--json"]).json();
    assert_eq!(second["input"]["decode"], "full", "it sees photos as it did");
    let fresh = place.run(&["inspect", tiny().to_str().unwrap(), "--json"]).json();
    assert_eq!(fresh["input"]["decode"], json!({ "dct": { "margin": 2 } }));
    let recipe = &second["provenance"]["recipe"];
    assert!(recipe.as_array().unwrap().len() >= 4, "{recipe}");

    place.photos("missing", &["b", "c"], 16);
    more("finetune", "missing", "third.penjing").refused(1, &["missing", "no photos of “d”"]);
    // Killed, a model that trains into itself would not know where it began.
    more("finetune", "photos", "first.penjing").refused(1, &["first.penjing", "name another file"]);
    assert_eq!(labels(&place, "first.penjing"), json!(["b", "d"]));
}
