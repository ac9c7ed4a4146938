//! What a device needs to run a penjing classifier: [`Graph`](graph::Graph), [`Plan`](plan::Plan), the image-to-tensor
//! contract and the executor.
//!
//! `no_std`. Without features it executes a borrowed plan and allocates nothing; `alloc` adds graphs, lowering and
//! image-to-tensor; `file` adds the model file; `std` adds run-time detection of the instruction set.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
pub mod pixels;
#[cfg(feature = "alloc")]
pub mod tensor;
