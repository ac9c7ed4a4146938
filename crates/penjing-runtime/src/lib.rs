//! What a device needs to run a penjing classifier.
//!
//! Two levels: a [`Graph`](graph::Graph) is portable meaning, what a model file stores; a [`Plan`](plan::Plan) is
//! executable steps over one arena, lowered from a graph on the host. The image-to-tensor contract is
//! [`Pixels`](pixels::Pixels), the model file [`Model`](file::Model).
//!
//! `no_std`. Without features it executes a borrowed plan and allocates nothing; `alloc` adds graphs, lowering and
//! image-to-tensor; `file` adds the model file; `std` adds run-time detection of the instruction set.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
pub mod aligned;
#[cfg(feature = "alloc")]
pub mod arena;
#[cfg(feature = "alloc")]
pub mod cost;
#[cfg(feature = "alloc")]
mod error;
#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "alloc")]
pub mod graph;
pub mod int8;
pub mod load;
#[cfg(feature = "alloc")]
mod lower;
#[cfg(feature = "alloc")]
pub mod nibbles;
#[cfg(feature = "alloc")]
pub mod op;
#[cfg(feature = "alloc")]
pub mod pixels;
pub mod plan;
pub mod quant;
#[cfg(feature = "alloc")]
mod session;
#[cfg(feature = "alloc")]
pub mod sparse;
#[cfg(feature = "alloc")]
pub mod tensor;

#[cfg(feature = "alloc")]
pub use error::Error;
#[cfg(feature = "alloc")]
pub use lower::{Lower, PlanBuf};
pub use penjing_kernels::{Act, Isa, Serial, Workers};
#[cfg(feature = "alloc")]
pub use session::Session;
