//! Flags that cannot be meant.

use crate::support::{Place, trained};

#[test]
fn nonsense_is_refused_before_any_work_and_named() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 2);
    let train = |flag: &[&'static str]| [&["train", "photos", "-o", "m.penjing"], flag].concat();
    for (args, words) in [
        (train(&["--threads", "0"]), ["'0'", "--threads"]),
        (train(&["--threads", "99999"]), ["'99999'", "--threads"]),
        (train(&["--views", "0"]), ["'0'", "--views"]),
        (train(&["--size", "7"]), ["'7'", "--size"]),
        (train(&["--size", "1000000"]), ["'1000000'", "--size"]),
        (train(&["--size", "abc"]), ["'abc'", "--size"]),
        (train(&["--fit", "oval"]), ["'oval'", "--fit"]),
        (train(&["--seed", "-1"]), ["'-1'", "unexpected"]),
        (train(&["--backbone", "nonsense"]), ["'nonsense'", "--backbone"]),
        (
            train(&["--backbone", "mobilenet_v2"]),
            ["--backbone", "penjing weights import FILE --arch mobilenet_v2"],
        ),
        (train(&["--recipe", "magic"]), ["'magic'", "--recipe"]),
        (train(&["--epochs", "0"]), ["'0'", "--epochs"]),
        (train(&["--epochs", "2.5"]), ["'2.5'", "--epochs"]),
        (train(&["--time", "10"]), ["--time", "10 of what? write 10s, 10m or 10h"]),
        (train(&["--time", "soon"]), ["'soon'", "such as 90s"]),
        (train(&["--memory", "500"]), ["--memory", "write 500MB"]),
        (train(&["--memory", "lots"]), ["'lots'", "500MB"]),
        (train(&["--balance", "2"]), ["'2'", "expected 0 to 1"]),
        (train(&["--recipe", "head", "--epochs", "3"]), ["--epochs", "--recipe head trains no network"]),
        (train(&["--recipe", "head", "--time", "3m"]), ["--time", "--recipe head trains no network"]),
        (train(&["--recipe", "head", "--balance", "1"]), ["--balance", "--recipe head trains no network"]),
        (train(&["--recipe", "head", "--memory", "1GB"]), ["--memory", "--recipe head trains no network"]),
        (train(&["--recipe", "head", "--log", "l.jsonl"]), ["--log", "--recipe head trains no network"]),
        (train(&["--recipe", "scratch", "--from", "m"]), ["--from", "--recipe scratch forgets"]),
        (train(&["--recipe", "scratch", "--views", "2"]), ["--views", "--recipe scratch makes none"]),
        (train(&["--from", "m", "--backbone", "efficientnet_lite0"]), ["--from", "--backbone"]),
        (
            train(&["--recipe", "finetune", "--backbone", "mobilenet_v2_x0.5"]),
            ["weights import", "--recipe scratch"],
        ),
        (train(&["--teacher", "m"]), ["--teacher", "--recipe scratch, finetune or full"]),
        (train(&["--teacher", "m", "--recipe", "head"]), ["--teacher", "--recipe scratch, finetune or full"]),
        (train(&["--distill", "kd"]), ["--teacher", "not provided"]),
        (train(&["--unlabelled", "photos"]), ["--teacher", "not provided"]),
        (train(&["--teacher", "m", "--distill", "magic"]), ["'magic'", "--distill"]),
        (train(&["--group-by", "("]), ["--group-by", "unclosed group"]),
        (train(&["--cache", "c", "--no-cache"]), ["--cache", "--no-cache"]),
        (train(&["--nonsense"]), ["--nonsense", "unexpected"]),
        (vec!["train", "photos"], ["--output", ""]),
        (vec!["bench"], ["<MODEL>", "not provided"]),
        (vec!["bench", "--arch", "nonsense"], ["--arch", "mobilenet_v2"]),
        (vec!["bench", "--arch", "mobilenet_v2_x9999"], ["--arch", "width"]),
        (vec!["bench", "--arch", "mobilenet_v2", "--classes", "0"], ["'0'", "--classes"]),
        (vec!["bench", "--arch", "mobilenet_v2", "--seconds", "NaN"], ["'NaN'", "--seconds"]),
        (vec!["classify", trained().to_str().unwrap(), "photos", "--top", "0"], ["'0'", "--top"]),
        (
            vec!["classify", trained().to_str().unwrap(), "photos", "--frames", "mjpeg"],
            ["--frames", "give -"],
        ),
        (vec!["classify", trained().to_str().unwrap(), "-", "--frames", "640"], ["--frames", "640x480"]),
        (vec!["completions", "nosh"], ["'nosh'", ""]),
        (vec!["nonsense"], ["'nonsense'", "unrecognized"]),
    ] {
        let ran = place.run(&args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?}: {ran:?}");
        // The parser of arguments may use a line each for the flag and the hint.
        assert!(words.iter().all(|word| ran.err.contains(word)), "{args:?}: {}", ran.err);
    }
    assert_eq!(place.names("."), ["photos"]);
}

/// What means something beside another flag alone is not read over where that flag could not be given.
#[test]
fn a_flag_without_the_one_that_it_belongs_to_is_refused() {
    let place = Place::new();
    let compress = |more: &[&'static str]| [&["compress", "m", "photos", "-o", "s"], more].concat();
    let bench = |more: &[&'static str]| [&["bench"], more].concat();
    for (args, flag) in [
        (compress(&["--prune", "0.5", "--time", "5m"]), "--time"),
        (compress(&["--max-latency", "0.5", "--cost", "board.json"]), "--cost"),
        (compress(&["--qat", "never", "--or", "n"]), "--or"),
        (compress(&["--layers", "--picture", "p.svg"]), "--picture"),
        (compress(&["--weights-only", "8", "--group-by", "x"]), "--group-by"),
        (compress(&["--qat", "never", "--sparsify-epochs", "3"]), "--sparsify-epochs"),
        (compress(&["--budget", "size=1MB", "--criterion", "l1"]), "--criterion"),
        (compress(&["--budget", "size=1MB", "--blocks"]), "--blocks"),
        (compress(&["--budget", "size=1MB", "--sparsify-epochs", "3"]), "--sparsify-epochs"),
        (bench(&["m", "--size", "96"]), "--size"),
        (bench(&["m", "--classes", "5"]), "--classes"),
        (bench(&["m", "--train"]), "--train"),
        (bench(&["m", "--force"]), "--force"),
        (bench(&["--costs", "c.json", "--frozen"]), "--frozen"),
        (bench(&["--arch", "mobilenet_v2", "--isa", "scalar", "--batch", "8"]), "--batch"),
    ] {
        let ran = place.run(&args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?}: {ran:?}");
        assert!(ran.err.contains(flag) && ran.err.contains("cannot be used with"), "{args:?}: {}", ran.err);
    }
}

#[test]
fn an_output_that_cannot_be_is_refused_before_any_work() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 3);
    place.write("old.penjing", "precious");
    place.train("photos", "old.penjing", &[]).refused(1, &["old.penjing", "there already", "--force"]);
    assert_eq!(std::fs::read(place.at("old.penjing")).unwrap(), b"precious");
    place.train("photos", "photos", &["--force"]).refused(1, &["photos", "is a folder"]);
    place.train("photos", "new/", &[]).refused(1, &["new/", "is a folder"]);
    place.train("photos", "new/m.penjing", &[]).refused(1, &["new: no such folder"]);
    // A missing folder of photos must not destroy the old model either.
    place.train("nowhere", "old.penjing", &["--force"]).refused(1, &["nowhere", "does not exist"]);
    assert_eq!(std::fs::read(place.at("old.penjing")).unwrap(), b"precious");
    assert_eq!(place.names("."), ["old.penjing", "photos"]);

    place.train("photos", "old.penjing", &["--force"]).json();
    assert_eq!(place.run(&["inspect", "old.penjing"]).code, Some(0));
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.photos("photos", &["a", "b"], 2);
    std::fs::create_dir(place.at("shut")).unwrap();
    std::fs::set_permissions(place.at("shut"), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(place.at("shut/probe"), "").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    place.train("photos", "shut/m.penjing", &[]).refused(1, &["shut", "permission denied"]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_a_pipe_is_no_output() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 2);
    place.write("real.penjing", "old");
    std::os::unix::fs::symlink("real.penjing", place.at("link.penjing")).unwrap();
    place.train("photos", "link.penjing", &["--force"]).json();
    assert!(place.at("link.penjing").is_symlink());
    assert!(std::fs::metadata(place.at("real.penjing")).unwrap().len() > 1000);

    let pipe = std::process::Command::new("mkfifo").arg(place.at("pipe.jpg")).status();
    if !pipe.is_ok_and(|status| status.success()) {
        println!("skipped: no mkfifo to make a pipe with");
        return;
    }
    place.train("photos", "pipe.jpg", &["--force"]).refused(1, &["pipe.jpg", "no regular file"]);
    // In a folder of photos it is left out, not waited for.
    std::fs::rename(place.at("pipe.jpg"), place.at("photos/a/pipe.jpg")).unwrap();
    let report = place.run(&["classify", "link.penjing", "photos", "--json"]).json();
    assert_eq!(report.as_array().unwrap().len(), 4);
}

#[test]
fn names_cannot_steer_the_terminal() {
    let place = Place::new();
    place.photos("photos", &["a\u{1b}[31m", "b"], 2);
    let ran = place.run(&["train", "photos", "-o", "m.penjing", "--size", "64"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = place.run(&["inspect", "m.penjing"]);
    assert!(ran.out.contains(r"\u{1b}[31m") && !ran.out.contains('\u{1b}'), "{ran:?}");
}
