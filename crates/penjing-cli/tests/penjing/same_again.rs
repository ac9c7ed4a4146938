//! The same photos, flags and seed give the same file.

use crate::support::Place;

#[test]
fn threads_and_cache_leave_no_trace_in_the_model() {
    let place = Place::new();
    place.photos("photos", &["a", "b", "c"], 8);
    let file = |name: &str| std::fs::read(place.at(name)).unwrap();
    let first = place.train("photos", "1.penjing", &["--threads", "1", "--no-cache"]).json();
    let second = place.train("photos", "2.penjing", &["--threads", "2"]).json();
    let cached = place.train("photos", "cached.penjing", &[]).json();
    assert_eq!((&first["views_computed"], &second["views_computed"]), (&384.into(), &384.into()));
    assert_eq!(cached["views_computed"], 0);
    assert!(file("1.penjing") == file("2.penjing"));
    assert!(file("1.penjing") == file("cached.penjing"));

    place.train("photos", "other.penjing", &["--seed", "1"]).json();
    let inspect = |name: &str| place.run(&["inspect", name, "--json"]).json();
    let (mut this, mut other) = (inspect("1.penjing"), inspect("other.penjing"));
    assert_eq!((&this["provenance"]["seed"], &other["provenance"]["seed"]), (&0.into(), &1.into()));
    for report in [&mut this, &mut other] {
        for chosen in ["provenance", "temperature", "file_bytes"] {
            report.as_object_mut().unwrap().remove(chosen);
        }
    }
    assert_eq!(this, other);
}

#[test]
fn a_spoilt_cache_is_noticed_and_not_believed() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 4);
    place.train("photos", "m.penjing", &[]).json();
    let name = format!("cache/features/{}", place.names("cache/features")[0]);
    let mut bytes = std::fs::read(place.at(&name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.truncate(bytes.len() - 10);
    place.write(&name, &bytes);
    let again = place.train("photos", "again.penjing", &[]).json();
    assert_eq!(again["views_computed"], 2);
    assert!(
        std::fs::read(place.at("m.penjing")).unwrap() == std::fs::read(place.at("again.penjing")).unwrap()
    );

    // A file where the cache's folder should be: no cache, but a model.
    place.write("file", "");
    let ran = place.train("photos", "without.penjing", &["--cache", "file"]);
    ran.says(&["feature cache", "is not used"]);
    assert_eq!(ran.json()["views_computed"], 128);
}
