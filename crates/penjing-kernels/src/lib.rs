//! Arithmetic on slices for light convolutional networks: f32, forward and backward, and bytes ([`int8`]), forward;
//! `[N,H,W,C]` layout, no allocation.
//!
//! In f32 every output value is one chain of fused multiply-adds that starts at the bias and takes the reduction index in
//! ascending order. Tiles, instruction sets and thread counts therefore change the speed and never a bit of the result;
//! the tests compare with `==`. An optional residual is added next, the activation comes last. [`winograd`] computes dense
//! convolutions by another sequence of operations, as fixed.
//!
//! The gradients of an operation stand beside it, under the same rule: that of an input is written, that of weights is
//! added to what is there. [`batch_norm`] has the sums over a batch and how its values are read and sent back, [`update`]
//! the steps of the optimizers.
//!
//! Operations take an [`Isa`] (which SIMD code to run) and a [`Workers`] (who runs the pieces of a large output).
//! They are fastest on slices that start at multiples of 64 bytes.
//! They panic if the slice lengths contradict the given geometry, and have no other errors.
#![no_std]

#[cfg(any(feature = "std", test))]
extern crate std;

mod act;
mod arch;
pub mod batch_norm;
pub mod conv;
pub mod depthwise;
pub mod elementwise;
pub mod int8;
mod isa;
pub mod layout;
pub mod pointwise;
pub mod pool;
pub mod resample;
pub mod separable;
pub mod softmax;
pub mod sparse;
pub mod update;
mod window;
pub mod winograd;
mod workers;

pub use act::Act;
pub use isa::Isa;
pub use window::Window;
pub use workers::{Serial, Workers};

/// `a * b + c` rounded once.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(feature = "std")]
    return a.mul_add(b, c);
    #[cfg(not(feature = "std"))]
    libm::fmaf(a, b, c)
}

/// The square root, correctly rounded.
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    libm::sqrtf(x)
}

/// The product of `extents`, so that a length check cannot be fooled by a product that wraps.
pub(crate) fn volume(extents: &[usize]) -> usize {
    extents.iter().fold(1, |v, &e| v.checked_mul(e).expect("tensor size overflows usize"))
}

#[cfg(test)]
pub(crate) mod testing;
