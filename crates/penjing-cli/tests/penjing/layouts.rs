//! The ways to say which photo is what.

use std::fmt::Write as _;

use crate::support::{Place, photo};

#[test]
fn test_photos_judge_the_model_and_never_make_it() {
    let place = Place::new();
    for (part, count) in [("train", 6), ("val", 3), ("test", 4)] {
        place.photos(&format!("photos/{part}"), &["a", "b"], count);
    }
    let ran = place.train("photos", "m.penjing", &[]);
    ran.says(&["6 validation photos are copies of training photos"]);
    let report = ran.json();
    assert_eq!((&report["photos"], &report["test_top1"]), (&18.into(), &1.0.into()));

    for name in ["a/0", "a/1", "a/2", "a/3", "b/0", "b/1", "b/2"] {
        place.write(&format!("photos/test/{name}.png"), "no photo");
    }
    let ran = place.train("photos", "again.penjing", &[]);
    ran.says(&["photos/test/a/0.png", "not a photo"]);
    let report = ran.json();
    assert_eq!(report["test_top1"], 1.0);
    assert_eq!(report["skipped"].as_array().unwrap().len(), 7);
    let file = |name: &str| std::fs::read(place.at(name)).unwrap();
    assert!(file("m.penjing") == file("again.penjing"));

    place.write("photos/test/b/3.png", "");
    let ran = place.train("photos", "untested.penjing", &[]);
    ran.says(&["not tested", "photos/test/a/0.png"]);
    assert!(ran.json()["test_top1"].is_null());
    assert!(file("m.penjing") == file("untested.penjing"));

    assert_eq!(place.run(&["eval", "m.penjing", "photos/val", "--json"]).json()["n"], 6);
}

#[test]
fn a_class_that_is_only_tested_is_named_before_the_work() {
    let place = Place::new();
    place.photos("photos/train", &["a", "b"], 2);
    place.photos("photos/test", &["a", "b", "c"], 2);
    place.train("photos", "m.penjing", &[]).refused(1, &["photos: class “c”", "none to learn from"]);
}

#[test]
fn a_table_gives_labels_parts_and_groups() {
    let place = Place::new();
    let mut table = String::from("label,path,split,group\n");
    for class in 0..2 {
        for number in 0..9 {
            place.write(&format!("pictures/{class}-{number}.png"), photo(class, number));
            let split = if number < 6 { "train" } else { "test" };
            let _ = writeln!(table, "“{class}”,pictures/{class}-{number}.png,{split},{class}{}", number / 2);
        }
    }
    place.write("table.csv", table);
    let report = place.train("table.csv", "m.penjing", &[]).json();
    assert_eq!((&report["photos"], &report["test_top1"]), (&12.into(), &1.0.into()));
    assert_eq!(place.run(&["eval", "m.penjing", "table.csv", "--json"]).json()["n"], 6);
    assert_eq!(place.run(&["inspect", "m.penjing", "--json"]).json()["labels"][1], "“1”");

    place.write("bad.csv", "path,label\npictures/0-0.png,a\ngone.png,b\n");
    place.train("bad.csv", "x.penjing", &[]).refused(1, &["bad.csv", "line 3", "gone.png"]);
    place.write("bad.csv", "file;class\n");
    place.train("bad.csv", "x.penjing", &[]).refused(1, &["bad.csv", "line 1", "path,label"]);
}

#[test]
fn groups_come_from_names() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 12);
    let by = |pattern: &str| place.train("photos", "m.penjing", &["--force", "--group-by", pattern]);
    assert_eq!(by("^(./[0-9])").json()["photos"], 24);
    by("frame[0-9]+").refused(1, &["photos", "matches no photo", "a/0.png"]);
}
