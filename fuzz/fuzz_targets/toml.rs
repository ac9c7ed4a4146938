//! Networks declared in TOML, from raw bytes. What is read can be built at other widths and sizes, or is refused.
#![no_main]
#![forbid(unsafe_code)]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use penjing::zoo::Declared;

fuzz_target!(|bytes: &[u8]| {
    let Ok(declared) = Declared::parse(Path::new("fuzzed.toml"), bytes) else { return };
    let graph = declared.graph(1.0, declared.size(), 2).expect("it has been built once");
    assert_eq!(graph.output().map(|last| graph.shape(last)), Some([1, 1, 1, 2]));
    for (width, size) in [(0.05, 32), (1.3, 97), (16.0, 2048)] {
        let _ = declared.graph(width, size, 1000);
    }
});
