//! Photos and labels: finding them, splitting them, decoding them.

pub mod decode;
mod manifest;
mod scan;
pub mod split;
