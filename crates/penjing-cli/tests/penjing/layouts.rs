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
    ran.says(&["8 of 8 test photos are copies of photos to learn from"]);
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

/// An arrow to the left or to the right, of another size, height and brightness each time.
fn arrow(right: bool, number: u32) -> Vec<u8> {
    let (reach, top, level) = (14 + number % 7, 6 + number * 5 % 9, 120 + (number * 37 % 130) as u8);
    let image = image::RgbImage::from_fn(40, 32, |x, y| {
        let x = if right { 39 - x } else { x };
        let off = y.abs_diff(top + 8);
        let head = x >= 4 && off <= 7 && x - 4 >= off && x < 12;
        let shaft = (8..8 + reach).contains(&x) && off <= 2;
        image::Rgb([if head || shaft { level } else { 20 + (x * 31 + y * 17 + number * 7) as u8 % 16 }; 3])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn a_mirrored_arrow_is_another_arrow() {
    let place = Place::new();
    for number in 0..24 {
        place.write(&format!("photos/left/{number}.png"), arrow(false, number));
        place.write(&format!("photos/right/{number}.png"), arrow(true, number));
    }
    let ran = place.train("photos", "m.penjing", &[]);
    ran.says(&["mirrored photos led astray"]);
    let report = ran.json();
    assert_eq!(report["views"], 1);
    let forced = place.train("photos", "two.penjing", &["--views", "2"]).json();
    assert_eq!(forced["views"], 2);
    assert!(report["val_top1"].as_f64() > forced["val_top1"].as_f64());
}

#[test]
fn what_was_held_back_most_is_judged() {
    let place = Place::new();
    for (part, count) in [("train", 2), ("val", 3), ("test", 4)] {
        place.photos(&format!("photos/{part}"), &["a", "b"], count);
    }
    place.train("photos", "m.penjing", &[]).json();
    let judged = |data: &str| {
        let report = place.run(&["eval", "m.penjing", data, "--json"]).json();
        (report["part"].as_str().unwrap().to_string(), report["n"].as_u64())
    };
    assert_eq!(judged("photos"), ("test".to_string(), Some(8)));
    std::fs::remove_dir_all(place.at("photos/test")).unwrap();
    assert_eq!(judged("photos"), ("val".to_string(), Some(6)));
    assert_eq!(judged("photos/val"), ("train".to_string(), Some(6)));

    place.write("only_val.csv", "path,label,split\nphotos/val/a/0.png,a,val\nphotos/val/b/0.png,b,val\n");
    assert_eq!(judged("only_val.csv"), ("val".to_string(), Some(2)));
    place.train("only_val.csv", "none.penjing", &[]).refused(1, &["none to learn from", "train"]);
}

#[test]
fn equal_scores_are_no_knowledge() {
    let place = Place::new();
    // The same picture under two labels; the bytes differ, so that they are no copies.
    for class in ["a", "b"] {
        for number in 0..6 {
            let mut bytes = crate::support::encoded(0, 0, image::ImageFormat::Bmp);
            bytes.extend([class.as_bytes()[0], number]);
            place.write(&format!("photos/{class}/{number}.bmp"), bytes);
        }
    }
    // Crops are drawn by the file's bytes, so they would differ.
    let report = place.train("photos", "m.penjing", &["--views", "2"]).json();
    assert!(report["val_top1"].as_f64().unwrap() <= 0.5);
}
