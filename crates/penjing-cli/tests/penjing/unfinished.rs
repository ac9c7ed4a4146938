//! Training that is killed or interrupted, and goes on.
#![cfg(unix)]

use std::{
    process::{Child, Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{CLASSES, Place, Ran, tiny, whole};

const MODEL: &str = "m.penjing";
const PART: &str = "m.penjing.part";
/// Long enough to be caught in the middle.
const EPOCHS: &str = "40";

/// Arguments of a run that is to be ended early.
fn args(recipe: &str, more: &[&str]) -> Vec<String> {
    whole("photos", MODEL, &[&["--recipe", recipe, "--epochs", EPOCHS, "--threads", "1"], more].concat())
}

fn command(place: &Place, args: &[String]) -> Command {
    let mut command = place.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    // A state after every step.
    command.env("PENJING_KEEP_SECONDS", "0");
    command
}

fn run(place: &Place, args: &[String]) -> Ran {
    place.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What is kept.
fn state(place: &Place) -> Option<Value> {
    let bytes = std::fs::read(place.at(PART)).ok()?;
    let head = b"penjing.part\n".len() + 4;
    let length = u64::from_le_bytes(*bytes.get(head..)?.first_chunk()?) as usize;
    let header: Value = serde_json::from_slice(bytes.get(head + 8..head + 8 + length)?).ok()?;
    Some(header["state"].clone())
}

/// How far it is: rounds that are over (none where there are no rounds), or while mirrored photos are tried the runs of that, and steps of the run under
/// way.
fn standing(place: &Place) -> Option<(usize, u64)> {
    let state = state(place)?;
    let over = state["probed"].as_array().or(state["judged"].as_array());
    Some((over.map_or(0, Vec::len), state["standing"]["step"].as_u64()?))
}

/// Starts the program and waits until it has kept a state that is that far.
#[track_caller]
fn started(place: &Place, args: &[String], reached: (usize, u64)) -> Child {
    // What an earlier run has left may be as far already, and says nothing of this one.
    let before = std::fs::read(place.at(PART)).ok();
    let kept = || std::fs::read(place.at(PART)).ok() != before;
    let mut child = command(place, args).spawn().unwrap();
    let start = Instant::now();
    while !kept() || standing(place).is_none_or(|standing| standing < reached) {
        let over = child.try_wait().unwrap();
        assert!(
            over.is_none() && start.elapsed() < Duration::from_secs(120),
            "not caught at {reached:?}: {over:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[track_caller]
fn killed(place: &Place, args: &[String], reached: (usize, u64)) {
    let mut child = started(place, args, reached);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "over before it was killed at {reached:?}");
}

#[track_caller]
fn interrupted(place: &Place, args: &[String], reached: (usize, u64)) -> Output {
    let child = started(place, args, reached);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    output
}

/// What the run gives when nothing happens to it.
fn undisturbed(place: &Place, args: &[String]) -> Vec<u8> {
    run(place, args).json();
    assert!(!place.at(PART).exists());
    let bytes = place.read(MODEL);
    std::fs::remove_file(place.at(MODEL)).unwrap();
    bytes
}

#[test]
fn a_killed_run_goes_on_and_ends_as_if_nothing_had_happened() {
    let place = Place::new();
    place.photos("photos", &["a", "b", "c"], 16);
    for (recipe, moments) in [
        ("finetune", [(0, 1), (1, 25), (3, 4)]),
        ("full", [(0, 13), (2, 1), (3, 6)]),
        ("scratch", [(0, 1), (0, 17), (0, 33)]),
    ] {
        let args = args(recipe, &[]);
        let expected = undisturbed(&place, &args);
        for moment in moments {
            killed(&place, &args, moment);
            assert!(!place.at(MODEL).exists(), "{recipe}: a model before its time");
        }
        let ran = run(&place, &args);
        ran.says(&["going on after"]);
        ran.json();
        assert!(place.read(MODEL) == expected, "{recipe}: the model differs");
        std::fs::remove_file(place.at(MODEL)).unwrap();
        // What was being written when the process was killed may lie there still.
        let names = place.names(".").into_iter().filter(|name| !name.starts_with(".penjing-"));
        assert_eq!(names.collect::<Vec<_>>(), ["cache", "photos"], "{recipe}");
    }
}

#[test]
fn ctrl_c_leaves_the_best_so_far_and_the_same_command_goes_on() {
    let place = Place::new();
    place.photos("photos", &["a", "b", "c"], 16);
    for (recipe, moments) in
        [("finetune", [(0, 5), (2, 5)]), ("full", [(0, 20), (3, 5)]), ("scratch", [(0, 5), (0, 20)])]
    {
        let args = args(recipe, &[]);
        let expected = undisturbed(&place, &args);
        for moment in moments {
            let output = interrupted(&place, &args, moment);
            let err = String::from_utf8(output.stderr).unwrap();
            let line = err.lines().find(|line| line.contains("best so far")).unwrap_or_default();
            assert!(line.contains(MODEL) && line.contains(PART) && line.contains(" %"), "{err}");
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["interrupted"], true);
            let last = report["recipe"].as_array().unwrap().last().unwrap().as_str().unwrap().to_string();
            assert!(last.starts_with("unfinished: "), "{last}");
            if moment.0 > 0 {
                // What was judged is what is written, and it is the one that is said to be chosen.
                assert!(last.contains("; this is the best so far"), "{last}");
                let candidates = report["candidates"].as_array().unwrap();
                let chosen = candidates.iter().find(|candidate| candidate["chosen"] == true).unwrap();
                assert!(chosen["name"].as_str().unwrap().starts_with("whole network"), "{chosen}");
                assert_eq!(chosen["val_top1"], report["val_top1"]);
            }
            // What is there can be used.
            assert_eq!(place.run(&["eval", MODEL, "photos", "--json"]).json()["n"], 48);
            assert!(place.run(&["inspect", MODEL]).out.contains("unfinished: "));
        }
        run(&place, &args).json();
        assert!(place.read(MODEL) == expected, "{recipe}: the model differs");
        assert!(!place.at(PART).exists());

        // Finished, it is like any model: not overwritten.
        run(&place, &args).refused(1, &[MODEL, "there already", "--force"]);
        std::fs::remove_file(place.at(MODEL)).unwrap();
    }
}

#[test]
fn what_was_found_out_about_mirrored_photos_is_kept() {
    let place = Place::new();
    // Two classes that look alike, with enough photos to judge.
    for (part, numbers) in [("train", 0..250), ("val", 250..350)] {
        for number in numbers {
            place.write(&format!("photos/{part}/a/{number}.png"), crate::support::photo(0, number));
            place.write(&format!("photos/{part}/b/{number}.png"), crate::support::photo(4, number));
        }
    }
    let args = whole("photos", MODEL, &["--recipe", "auto", "--epochs", "2", "--threads", "1"]);
    let expected = undisturbed(&place, &args);
    killed(&place, &args, (0, 1));
    let output = interrupted(&place, &args, (0, 30));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("best so far"), "{err}");
    let inspected = place.run(&["inspect", MODEL]).out;
    assert!(inspected.contains("unfinished: stopped after the head"), "{err}");
    killed(&place, &args, (1, 15));
    assert_eq!(state(&place).unwrap()["probed"][0].as_array().unwrap().len(), 200);
    let ran = run(&place, &args);
    ran.says(&["going on after"]);
    ran.says(&["mirrored photos"]);
    ran.json();
    assert!(place.read(MODEL) == expected, "the model differs");
    assert!(!place.at(PART).exists());
    // A limit that leaves time for it does not change that, one that the training fills does.
    let said = |time: &str| {
        let epochs = if time == "1h" { "2" } else { "10000" };
        let args = ["--recipe", "auto", "--epochs", epochs, "--threads", "1", "--time", time, "--force"];
        let ran = run(&place, &whole("photos", MODEL, &args));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.err.contains("on held-out photos with them")
    };
    assert!(said("1h") && !said("4s"));
}

#[test]
fn a_state_of_other_work_is_refused_by_what_differs() {
    let place = Place::new();
    place.photos("photos", &["a", "b", "c"], 16);
    let usual = args("finetune", &[]);
    let expected = undisturbed(&place, &usual);
    interrupted(&place, &usual, (0, 5));
    let (part, model) = (place.read(PART), place.read(MODEL));
    let again = |more: &[&str]| run(&place, &args("finetune", more));

    again(&["--seed", "1"]).refused(1, &[PART, "--seed (then 0, now 1)", "--force"]);
    again(&["--balance", "1"]).refused(1, &[PART, "--balance", "--force"]);
    again(&["--backbone", "efficientnet_lite0"]).refused(1, &[PART, "the backbone", "--force"]);
    run(&place, &args("full", &[])).refused(1, &[PART, "--recipe (then finetune, now full)"]);
    let head = ["train", "photos", "-o", MODEL, "--recipe", "head"];
    place.run(&head).refused(1, &[PART, "unfinished training", "--force"]);
    place.train("photos", MODEL, &["--recipe", "auto"]).refused(1, &[PART, "unfinished training", "--force"]);

    place.write("photos/a/more.png", crate::support::photo(0, 99));
    again(&[]).refused(1, &[PART, "the photos"]);
    std::fs::rename(place.at("photos/a/more.png"), place.at("photos/b/more.png")).unwrap();
    again(&[]).refused(1, &[PART, "the photos"]);
    std::fs::remove_file(place.at("photos/b/more.png")).unwrap();
    std::fs::rename(place.at("photos/b"), place.at("photos/beta")).unwrap();
    again(&[]).refused(1, &[PART, "the classes"]);
    std::fs::rename(place.at("photos/beta"), place.at("photos/b")).unwrap();

    assert!(place.read(PART) == part && place.read(MODEL) == model, "a refusal has changed something");
    place.write(PART, &part[..part.len() / 2]);
    again(&[]).refused(1, &[PART, "damaged", "--force"]);
    place.write(PART, "words");
    again(&[]).refused(1, &[PART, "damaged", "--force"]);

    // A model without its state is one like any other.
    std::fs::remove_file(place.at(PART)).unwrap();
    again(&[]).refused(1, &[MODEL, "there already"]);

    // With --force all begins anew.
    for state in [&part[..part.len() / 2], &b"words"[..]] {
        place.write(PART, state);
        again(&["--force"]).json();
        assert!(place.read(MODEL) == expected && !place.at(PART).exists());
    }
    place.write(PART, &part);
    let ran = again(&["--force", "--seed", "1"]);
    assert!(!ran.err.contains("going on"), "{ran:?}");
    ran.json();
    assert!(place.read(MODEL) != expected && !place.at(PART).exists());

    // The same work goes on under --force too.
    place.write(PART, &part);
    let ran = again(&["--force"]);
    ran.says(&["going on after"]);
    ran.json();
    assert!(place.read(MODEL) == expected);

    // A state beside a model that it has nothing to do with replaces nothing.
    place.write(PART, &part);
    again(&[]).refused(1, &[MODEL, "there already"]);
}

#[test]
fn learning_to_compute_with_integers_goes_on_too() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 8);
    place.write("floats.penjing", std::fs::read(tiny()).unwrap());
    let with = |more: &[&str]| -> Vec<String> {
        let words = [
            "compress",
            "floats.penjing",
            "photos",
            "-o",
            MODEL,
            "--max-drop",
            "100",
            "--max-latency",
            "100",
        ];
        words.iter().chain(&["--threads", "1", "--json"]).chain(more).map(|word| word.to_string()).collect()
    };
    let args = with(&["--qat", "always", "--epochs", EPOCHS]);
    let expected = undisturbed(&place, &args);
    killed(&place, &args, (0, 5));
    let output = interrupted(&place, &args, (0, 20));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("m.penjing.part: the training so far; the same command goes on from there"),
        "{said}"
    );
    assert!(!place.at(MODEL).exists());
    // The state of other work is left alone.
    let kept = place.read(PART);
    let other = with(&["--qat", "always", "--epochs", "3"]);
    run(&place, &other).refused(1, &[PART, "differs in --epochs (then 40, now 3)"]);
    let other = with(&["--qat", "never"]);
    run(&place, &other).refused(1, &[PART, "is the state of unfinished training"]);
    assert!(place.read(PART) == kept);
    let ran = run(&place, &args);
    ran.says(&["going on after"]);
    ran.json();
    assert!(place.read(MODEL) == expected, "the model differs");
    assert!(!place.at(PART).exists());
}
