//! SIMD code.

/// Calls the scalar function of the scope, or the function of that name of the chosen instruction set.
macro_rules! select {
    ($isa:expr, $name:ident($($arg:expr),*)) => {
        match $isa.level() {
            _ => $name($($arg),*),
        }
    };
}
pub(crate) use select;
