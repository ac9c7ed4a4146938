//! Model files that are none, or not whole.

use crate::support::{Place, trained};

#[test]
fn what_is_not_a_whole_model_is_refused_by_name() {
    let place = Place::new();
    let whole = std::fs::read(trained()).unwrap();
    let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let format = whole.windows(11).position(|window| window == br#"\"format\":"#).unwrap() + 11;
    let foreign = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let safetensors = [&(foreign.len() as u64).to_le_bytes()[..], foreign, &[0; 4]].concat();

    let mut files = vec![
        ("empty".to_string(), Vec::new(), "shorter than any model"),
        ("half".into(), whole[..whole.len() / 2].to_vec(), "cut short"),
        ("header_only".into(), whole[..8 + header].to_vec(), "cut short"),
        ("half_a_header".into(), whole[..8 + header / 2].to_vec(), "cut short"),
        ("longer".into(), [&whole[..], b"more"].concat(), "copy it again"),
        ("future".into(), with(format, b"9"), "newer penjing: format 9"),
        ("foreign".into(), safetensors, "not a penjing model"),
        ("zip".into(), [b"PK\x03\x04", &[0; 400][..]].concat(), "not a penjing model"),
        ("text".into(), b"a letter to a friend".repeat(20), "not a penjing model"),
        ("endless".into(), with(0, &(1u64 << 62).to_le_bytes()), "header length"),
    ];
    for at in [0, 8, 20, header / 2, header, 8 + header, whole.len() / 2, whole.len() - 1] {
        files.push((format!("changed_at_{at}"), with(at, &[whole[at] ^ 0x10]), ""));
    }
    for (name, bytes, why) in &files {
        place.write(name, bytes);
        place.run(&["inspect", name, "--json"]).refused(1, &[name, why]);
    }

    place.photos("photos", &["日本語"], 1);
    for args in [&["classify", "half", "photos"][..], &["eval", "half", "photos"], &["bench", "half"]] {
        place.run(args).refused(1, &["half", "cut short"]);
    }
    place.train("photos", "m.penjing", &["--backbone", "text"]).refused(1, &[]);
    place.run(&["inspect", "gone"]).refused(1, &["gone", "No such file"]);
    place.run(&["inspect", "photos"]).refused(1, &["photos", "folder"]);
}

#[test]
fn a_trained_model_is_itself_a_backbone() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 3);
    let report = place.train("photos", "m.penjing", &["--backbone", trained().to_str().unwrap()]).json();
    assert_eq!(report["val_top1"], 1.0);
    assert_eq!(
        place.run(&["inspect", "m.penjing", "--json"]).json()["labels"],
        serde_json::json!(["a", "b"])
    );
}
