//! A network that learns from another.

use serde_json::Value;

use crate::support::{Place, photo, weights, whole};

/// A small network under the teacher of [`teacher`].
const STUDENT: &[&str] =
    &["--backbone", "mobilenet_v1_x0.25", "--epochs", "2", "--teacher", "teacher.penjing"];

/// Photos of three classes, and `teacher.penjing`, which knows them and one more.
fn teacher() -> Place {
    let place = Place::new();
    place.photos("photos", &["a", "b", "c"], 16);
    place.photos("more", &["a", "b", "c", "d"], 12);
    place.train("more", "teacher.penjing", &[]).json();
    place
}

fn learn(place: &Place, model: &str, recipe: &str, more: &[&str]) -> Value {
    let student =
        if recipe == "scratch" { STUDENT } else { &["--epochs", "2", "--teacher", "teacher.penjing"] };
    place.learn("photos", model, &[&["--recipe", recipe], student, more].concat()).json()
}

/// The steps of a recipe that say this.
fn says<'a>(report: &'a Value, words: &str) -> Option<&'a str> {
    report["recipe"].as_array()?.iter().filter_map(Value::as_str).find(|step| step.contains(words))
}

#[test]
fn every_way_gives_the_same_file_on_any_number_of_threads() {
    let place = teacher();
    let mut models = Vec::new();
    for (by, words) in [
        ("kd", "under a teacher by KD at temperature 4, share 0.9"),
        ("dkd", "under a teacher by decoupled KD at temperature 4, beta 8"),
        ("hints", "hints in the first 0.2 of the steps"),
    ] {
        let report = learn(&place, "1.penjing", "scratch", &["--distill", by, "--threads", "1", "--force"]);
        learn(&place, "2.penjing", "scratch", &["--distill", by, "--threads", "2", "--force"]);
        assert!(place.read("1.penjing") == place.read("2.penjing"), "{by}: threads change the model");
        assert!(says(&report, words).is_some(), "{report}");
        assert!(says(&report, "taught by efficientnet_lite0 (BLAKE3 ").is_some(), "{report}");
        models.push(weights(&place, "1.penjing"));
        let eval = place.run(&["eval", "1.penjing", "photos", "--json"]).json();
        assert_eq!(eval["n"], 48);
    }
    assert!(models[0] != models[1] && models[0] != models[2], "one way is as the other");
    assert!(models.iter().all(|model| model.len() == models[0].len()), "something of the teacher stayed");
}

#[test]
fn what_is_no_better_for_the_teacher_is_trained_without_it() {
    let place = teacher();
    let plain = place
        .learn(
            "photos",
            "plain.penjing",
            &["--recipe", "scratch", "--epochs", "2", "--backbone", "mobilenet_v1_x0.25"],
        )
        .json();
    let report = learn(&place, "auto.penjing", "scratch", &[]);
    let candidates = report["candidates"].as_array().unwrap();
    let chosen = |place: usize| candidates[place]["chosen"].as_bool().unwrap();
    assert_eq!(candidates[0]["val_nll"], plain["candidates"][0]["val_nll"], "as many steps of the same");
    assert_eq!(candidates.len(), 2, "{report}");
    let same = weights(&place, "auto.penjing") == weights(&place, "plain.penjing");
    assert_eq!((chosen(0), chosen(1)), (same, !same));
    let gained = says(&report, "on held-out photos surprise").unwrap();
    assert_eq!(gained.starts_with("not taught by"), same, "{gained}");

    // A teacher that knows less is not asked.
    let other = ["x", "y", "z"];
    place.photos("wrong", &other, 12);
    for (index, class) in other.iter().enumerate() {
        let right = ["b", "c", "a"][index];
        std::fs::create_dir_all(place.at("misled")).unwrap();
        std::fs::rename(place.at(&format!("wrong/{class}")), place.at(&format!("misled/{right}"))).unwrap();
    }
    place.train("misled", "teacher.penjing", &["--force"]).json();
    let report = learn(&place, "misled.penjing", "scratch", &[]);
    assert_eq!(report["candidates"].as_array().unwrap().len(), 1, "{report}");
    assert!(says(&report, "not taught by efficientnet_lite0").unwrap().contains("nothing to learn from it"));
    assert!(
        weights(&place, "misled.penjing") == weights(&place, "plain.penjing"),
        "the teacher that was not asked changed something"
    );
}

#[test]
fn photos_without_labels_are_explained_by_the_teacher() {
    let place = teacher();
    for number in 0..6 {
        place.write(&format!("found/there/{number}.png"), photo(number % 3, 100 + number));
    }
    place.write("found/copy.png", photo(0, 0));
    place.write("found/broken.png", "no photo");
    // What is for the test is not learnt from, whoever explains it.
    place.write("found/tested.png", photo(1, 500));
    place.photos("parted/train", &["a", "b", "c"], 16);
    place.write("parted/test/b/0.png", photo(1, 500));
    let args = [&["--recipe", "scratch", "--distill", "kd"], STUDENT].concat();
    place.learn("parted", "without.penjing", &args).json();
    let args = [&["--recipe", "scratch", "--distill", "kd", "--unlabelled", "found"], STUDENT].concat();
    let ran = place.learn("parted", "with.penjing", &args);
    ran.says(&["skipped", "broken.png"]);
    ran.says(&["2 photos without a label are copies of others"]);
    let report = ran.json();
    assert!(says(&report, "taught by").unwrap().contains("6 photos without a label"), "{report}");
    assert_eq!(report["skipped"].as_array().unwrap().len(), 1);
    assert!(weights(&place, "with.penjing") != weights(&place, "without.penjing"), "they taught nothing");
    // As many steps without the teacher, which has more photos to show.
    let args = [&["--recipe", "scratch", "--unlabelled", "found", "--force"], STUDENT].concat();
    let report = place.learn("parted", "with.penjing", &args).json();
    assert_eq!(report["candidates"].as_array().unwrap().len(), 2, "{report}");
}

#[test]
fn fine_tuning_may_have_a_teacher_too() {
    let place = teacher();
    for recipe in ["finetune", "full"] {
        let report = learn(&place, "m.penjing", recipe, &["--distill", "hints", "--force"]);
        assert!(says(&report, "under a teacher by KD").is_some(), "{report}");
        let report = learn(&place, "m.penjing", recipe, &["--force"]);
        let names = report["candidates"].as_array().unwrap().iter();
        let names: Vec<&str> = names.map(|candidate| candidate["name"].as_str().unwrap()).collect();
        assert!(names.len() >= 2 && names[1].starts_with("whole network"), "{names:?}");
        assert!(says(&report, "taught by efficientnet_lite0").is_some(), "{report}");
    }
}

#[test]
fn a_teacher_of_other_classes_is_refused_before_any_work() {
    let place = teacher();
    place.photos("others", &["a", "e"], 4);
    let args = ["--recipe", "scratch", "--backbone", "mobilenet_v1_x0.25", "--teacher", "teacher.penjing"];
    let ran = place.learn("others", "m.penjing", &args);
    ran.refused(1, &["the teacher knows 4 classes, but not “e”"]);
    let ran = place.learn("photos", "m.penjing", &[&args[..], &["--unlabelled", "nowhere"]].concat());
    ran.refused(1, &["nowhere", "expected one of photos without labels"]);
    std::fs::create_dir(place.at("empty")).unwrap();
    let ran = place.learn("photos", "m.penjing", &[&args[..], &["--unlabelled", "empty"]].concat());
    ran.refused(1, &["empty", "has no photo that can be read"]);
    let teacher = whole("photos", "teacher.penjing", &[&args[..], &["--force"]].concat());
    let ran = place.run(&teacher.iter().map(String::as_str).collect::<Vec<_>>());
    ran.refused(1, &["teacher.penjing", "is the teacher"]);
}
