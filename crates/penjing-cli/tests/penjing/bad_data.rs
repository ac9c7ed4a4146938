//! Photos that are none, and folders without any.

use crate::support::{CLASSES, Place, encoded, photo, trained};

/// The beginning of an RGB PNG of 40,000 × 40,000 pixels.
const HUGE_PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x9c\x40\0\0\x9c\x40\x08\x02\0\0\0\xde\x6e\x99\x52\
                          \0\0\0\x02IDAT\x78\x9c\x62\xa4\x91\x2b";

/// What goes wrong with single photos: a name, what is in the file, and what the user should read.
fn spoilt() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let jpeg = encoded(0, 77, image::ImageFormat::Jpeg);
    let png = photo(0, 77);
    vec![
        ("empty.jpg", Vec::new(), "0 bytes"),
        ("text.jpg", b"these are words".to_vec(), "not a photo"),
        ("half.jpg", jpeg[..jpeg.len() / 2].to_vec(), "damaged JPEG"),
        ("half.png", png[..png.len() / 2].to_vec(), "damaged PNG"),
        ("huge.png", HUGE_PNG.to_vec(), "40000 x 40000 pixels, the limit is 178956970"),
    ]
}

#[test]
fn spoilt_photos_are_named_and_the_rest_is_learnt_from() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 4);
    for (name, bytes, _) in spoilt() {
        place.write(&format!("photos/a/{name}"), bytes);
    }
    let ran = place.train("photos", "m.penjing", &[]);
    for (name, _, why) in spoilt() {
        ran.says(&["skipped", &format!("photos/a/{name}"), why]);
    }
    let report = ran.json();
    assert_eq!((&report["photos"], report["skipped"].as_array().unwrap().len()), (&8.into(), 5));
    let report = place.run(&["eval", "m.penjing", "photos", "--json"]).json();
    assert_eq!((&report["n"], report["skipped"].as_array().unwrap().len()), (&8.into(), 5));
}

#[test]
fn classify_names_what_it_cannot_and_finishes_the_rest() {
    let place = Place::new();
    place.photos("photos", &CLASSES, 1);
    for (name, bytes, _) in spoilt() {
        place.write(&format!("photos/{name}"), bytes);
    }
    std::fs::create_dir(place.at("void")).unwrap();
    let model = trained().to_str().unwrap();
    let ran = place.run(&["classify", model, "photos", "void", "gone.jpg", "--json"]);
    assert_eq!(ran.code, Some(1));
    for (name, _, why) in spoilt() {
        ran.says(&[&format!("photos/{name}"), why]);
    }
    ran.says(&["void", "no photo"]);
    ran.says(&["gone.jpg", "No such file"]);
    let answers: Vec<serde_json::Value> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answers.iter().filter(|answer| answer.get("top").is_some()).count(), 4);
    assert_eq!(answers.iter().filter(|answer| answer.get("error").is_some()).count(), 7);
}

#[test]
fn many_spoilt_photos_do_not_flood_the_screen() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 3);
    for number in 0..40 {
        place.write(&format!("photos/a/x{number}.jpg"), "");
    }
    let ran = place.train("photos", "m.penjing", &[]);
    assert_eq!(ran.err.lines().count(), 11, "{}", ran.err);
    ran.says(&["30 more", "--json"]);
    assert_eq!(ran.json()["skipped"].as_array().unwrap().len(), 40);
    let ran = place.train("photos", "q.penjing", &["--quiet"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn folders_that_teach_nothing_are_refused() {
    let place = Place::new();
    let train = |folder: &str| place.train(folder, "m.penjing", &[]);
    train("nowhere").refused(1, &["nowhere", "does not exist"]);
    std::fs::create_dir_all(place.at("void/a")).unwrap();
    train("void").refused(1, &["void", "holds no photos"]);
    place.photos("one", &["only"], 3);
    train("one").refused(1, &["one", "“only”", "two or more"]);
    train("one/only").refused(1, &["one/only", "none in a class folder"]);
    place.write("text.txt", "words");
    train("text.txt").refused(1, &["text.txt", "neither a folder nor a .csv"]);
    place.photos("dead", &["a"], 3);
    place.write("dead/b/1.jpg", "");
    place.write("dead/b/2.jpg", "");
    train("dead").refused(1, &["dead", "class “b”", "dead/b/1.jpg", "0 bytes"]);
    for number in 0..3 {
        place.write(&format!("dead/a/{number}.png"), "x");
    }
    train("dead").refused(1, &["dead", "dead/a/0.png", "not a photo"]);
    assert!(!place.at("m.penjing").exists());
}

#[test]
fn a_class_of_one_photo_is_learnt_with_a_word_of_warning() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 5);
    place.write("photos/lone/1.png", photo(2, 0));
    let ran = place.train("photos", "m.penjing", &[]);
    ran.says(&["photos/lone/1.png", "only photo of its class"]);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert_eq!(ran.json()["classes"], 3);
    let ran = place.run(&["eval", "m.penjing", "photos", "--json"]);
    assert_eq!(ran.err.lines().count(), 1);
    ran.says(&["the photos that the model has learnt from"]);
    assert_eq!(ran.json()["n"], 11);
}

#[test]
fn classes_that_the_model_does_not_know_are_named() {
    let place = Place::new();
    place.photos("photos", &["日本語", "horse"], 2);
    let ran = place.run(&["eval", trained().to_str().unwrap(), "photos", "--json"]);
    ran.refused(1, &["photos", "horse", "it knows: two words"]);
}

#[test]
fn one_photo_under_two_labels_is_pointed_out() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 4);
    place.write("photos/a/twin.png", photo(1, 2));
    let ran = place.train("photos", "m.penjing", &[]);
    ran.says(&["two labels", "photos/a/twin.png", "photos/b/2.png"]);
    ran.json();
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_unicode_still_gets_its_answer() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    place.photos("photos", &["a"], 1);
    let odd = place.at("photos").join(std::ffi::OsStr::from_bytes(b"\xff.png"));
    std::fs::write(odd, photo(0, 5)).unwrap();
    let answers = place.run(&["classify", trained().to_str().unwrap(), "photos", "--json"]).json();
    assert_eq!(answers[1]["path"], "photos/\u{fffd}.png");
}
