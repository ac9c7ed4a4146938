//! SIMD code: the loops are generic over [`Simd`], one small file per instruction set implements it.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod bytes;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
// Plain indices into arrays of registers: iterators hide from the compiler that all of them are constant.
#[allow(clippy::needless_range_loop)]
mod channels;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod compile;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
// Plain indices into arrays of registers: iterators hide from the compiler that all of them are constant.
#[allow(clippy::needless_range_loop)]
mod depthwise;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
// Plain indices into arrays of registers: iterators hide from the compiler that all of them are constant.
#[allow(clippy::needless_range_loop)]
mod depthwise_weights;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
// As above.
#[allow(clippy::needless_range_loop)]
pub(crate) mod int8;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
// Plain indices into arrays of registers: iterators hide from the compiler that all of them are constant.
#[allow(clippy::needless_range_loop)]
mod product;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod simd;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
// Plain indices into arrays of registers: iterators hide from the compiler that all of them are constant.
#[allow(clippy::needless_range_loop)]
mod sparse;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod vectors;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
// Plain indices into arrays of registers: iterators hide from the compiler that all of them are constant.
#[allow(clippy::needless_range_loop)]
mod winograd;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{avx2, avx512};

/// Calls the scalar function in scope, or the function of the same name of the instruction set.
macro_rules! select {
    ($isa:expr, $name:ident($($arg:expr),*)) => {
        match $isa.level() {
            crate::isa::Level::Scalar => $name($($arg),*),
            // SAFETY: an `Isa` exists only for what this CPU can run.
            #[cfg(target_arch = "aarch64")]
            crate::isa::Level::Neon | crate::isa::Level::NeonDot => unsafe { crate::arch::neon::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::isa::Level::Avx2 | crate::isa::Level::AvxVnni => unsafe { crate::arch::avx2::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::isa::Level::Avx512 | crate::isa::Level::Avx512Vnni => unsafe {
                crate::arch::avx512::$name($($arg),*)
            },
        }
    };
}
pub(crate) use select;

/// As [`select`], the functions of [`int8`].
macro_rules! select_int8 {
    ($isa:expr, $name:ident($($arg:expr),*)) => {
        match $isa.level() {
            crate::isa::Level::Scalar => $name($($arg),*),
            // SAFETY: an `Isa` exists only for what this CPU can run.
            #[cfg(target_arch = "aarch64")]
            crate::isa::Level::Neon => unsafe { crate::arch::int8::neon::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            crate::isa::Level::NeonDot => unsafe { crate::arch::int8::neondot::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::isa::Level::Avx2 => unsafe { crate::arch::int8::avx2::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::isa::Level::AvxVnni => unsafe { crate::arch::int8::avxvnni::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::isa::Level::Avx512 => unsafe { crate::arch::int8::avx512::$name($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            crate::isa::Level::Avx512Vnni => unsafe { crate::arch::int8::avx512vnni::$name($($arg),*) },
        }
    };
}
pub(crate) use select_int8;
