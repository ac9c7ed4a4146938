//! The `penjing` command.
#![forbid(unsafe_code)]
fn main() {}
