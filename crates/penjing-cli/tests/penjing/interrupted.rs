//! Work that ends before its time.
#![cfg(unix)]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Place, QUICK};

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ctrl_c_stops_soon_leaves_nothing_and_loses_nothing() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 30);
    std::fs::create_dir(place.at("models")).unwrap();
    let args = ["train", "photos", "-o", "models/m.penjing", "--threads", "1", "--json"];
    let child = place.command(&args).spawn().unwrap();
    wait_until("the cache", || place.at("cache/features").exists());
    std::thread::sleep(Duration::from_millis(800));
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("features so far are kept"), "{output:?}");
    assert!(place.names("models").is_empty());

    let report = place.run(&args).json();
    let computed = report["views_computed"].as_u64().unwrap();
    assert!((1..960).contains(&computed), "{computed} of 960 views");
}

#[test]
fn ctrl_c_during_the_test_leaves_a_finished_model() {
    let place = Place::new();
    place.photos("photos/train", &["a", "b"], 6);
    place.photos("photos/test", &["a", "b"], 1000);
    let args = [&["train", "photos", "-o", "m.penjing", "--threads", "1", "--json"], QUICK].concat();
    let child = place.command(&args).spawn().unwrap();
    wait_until("the model", || place.at("m.penjing").exists());
    std::thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("not tested; the model is complete, and penjing eval m.penjing photos"), "{err}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["interrupted"], report["test_top1"].is_null()), (&false.into(), true));
    assert!(!place.run(&["inspect", "m.penjing"]).out.contains("unfinished"));
    assert!(!place.at("m.penjing.part").exists());
}

#[test]
fn a_killed_run_leaves_the_old_model_or_the_new_one() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 6);
    place.train("photos", "m.penjing", &[]).json();
    let args = [&["train", "photos", "-o", "m.penjing", "--force", "--no-cache"], QUICK].concat();
    let start = Instant::now();
    assert_eq!(place.run(&args).code, Some(0));
    let whole = start.elapsed();
    // Moments spread over the run, the last ones about when the file is written.
    for share in [0.05, 0.4, 0.7, 0.85, 0.9, 0.95] {
        let mut child = place.command(&args).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(share));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(place.run(&["inspect", "m.penjing"]).code, Some(0), "killed after {share} of the run");
    }
    assert_eq!(place.run(&args).code, Some(0));
}

#[test]
fn a_cache_cut_off_by_a_kill_serves_on() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 40);
    let args = ["train", "photos", "-o", "m.penjing", "--threads", "1", "--json"];
    for _ in 0..2 {
        let mut child = place.command(&args).spawn().unwrap();
        wait_until("the cache", || place.at("cache/features").exists());
        std::thread::sleep(Duration::from_millis(300));
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = std::fs::remove_file(place.at("m.penjing"));
    }
    place.run(&args).json();
    assert_eq!(place.run(&["inspect", "m.penjing"]).code, Some(0));
}

/// A file system of two megabytes, as long as it lives.
struct TinyDisk(std::path::PathBuf);

impl TinyDisk {
    fn mount(at: std::path::PathBuf) -> Option<TinyDisk> {
        std::fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(&at).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(TinyDisk(at))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_half_written_stays() {
    let place = Place::new();
    let Some(_disk) = TinyDisk::mount(place.at("disk")) else {
        println!("skipped: a small disk to fill cannot be mounted here");
        return;
    };
    place.photos("photos", &["a", "b"], 3);
    let ran = place.train("photos", "disk/m.penjing", &[]);
    ran.refused(1, &["disk/m.penjing", "cannot write", "No space left"]);
    assert!(place.names("disk").is_empty());

    // With no room for features a model is made all the same.
    place.write("disk/filler", vec![0; (2 << 20) - (24 << 10)]);
    let ran = place.train("photos", "m.penjing", &["--cache", "disk/cache"]);
    ran.says(&["feature cache", "further features are not kept"]);
    ran.json();
}
