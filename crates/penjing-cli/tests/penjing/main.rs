//! The program as its user meets it: arguments in, two streams and an exit code out.
#![forbid(unsafe_code)]

mod bad_data;
mod bad_models;
mod interrupted;
mod layouts;
mod onnx;
mod same_again;
mod support;
mod unfinished;
mod usage;
mod verbs;
mod whole_network;
