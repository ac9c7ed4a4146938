//! The program as its user meets it: arguments in, two streams and an exit code out.
#![forbid(unsafe_code)]

mod bad_data;
mod bad_models;
mod compress;
mod distill;
#[cfg(feature = "pull")]
#[path = "../../../penjing/tests/hub/server.rs"]
#[allow(dead_code, reason = "the library's tests let it behave worse")]
mod hub;
#[cfg(feature = "pull")]
#[path = "../../../penjing/tests/hub/weights.rs"]
mod hub_weights;
mod interrupted;
mod layouts;
mod networks;
mod onnx;
#[cfg(feature = "pull")]
mod pull;
mod same_again;
mod support;
mod unfinished;
mod usage;
mod verbs;
mod whole_network;
