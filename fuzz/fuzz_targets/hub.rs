//! What comes from a hub beside the weights, and what is kept of it: headers of an answer, one a line, and the record.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use penjing::hub::{Answer, Record};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::parse(bytes) {
        assert!(is_hex(&record.sha256, 64) && record.commit.as_deref().is_none_or(|commit| is_hex(commit, 40)));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let headers = text.lines().filter_map(|line| line.split_once(':'));
    let answer = Answer::new(200, headers.map(|(name, value)| (name.to_string(), value.to_string())));
    // What is asked next is made of these.
    assert!(answer.commit().is_none_or(|commit| is_hex(commit, 40)));
    assert!(answer.sha256().is_none_or(|hash| is_hex(hash, 64)));
    assert!(answer.part().is_none_or(|(first, whole)| first < whole));
    assert!(answer.tag().is_none_or(|tag| tag.bytes().all(|byte| byte.is_ascii_graphic())));
    for url in ["https://hub.example/a/b?c", "http://hub.example"] {
        let Some(next) = answer.location(url) else { continue };
        assert!(next.bytes().all(|byte| byte.is_ascii_graphic()) && next.len() <= 8 << 10);
        let next = next.to_ascii_lowercase();
        assert!(next.starts_with("http://") || next.starts_with("https://"), "{next}");
    }
    let _ = (answer.length(), answer.linked_length(), answer.retry_after(), answer.is_plain());
});

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
