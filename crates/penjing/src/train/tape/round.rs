//! Fake quantization (Jacob et al., arXiv 1712.05877): a result that is kept in 8 bits is read as the grid leaves it.
//!
//! The rounding is that of the runtime where it makes bytes of floats. Where the runtime computes on bytes, it rounds exact
//! sums once, and biases to a unit of these; the tape rounds what floats have summed up, so that a result next to a tie may
//! come out one step off.
//!
//! The gradient goes straight through where nothing was cut off, and ends where something was (Krishnamoorthi, arXiv
//! 1806.08342, section 2.4).

use penjing_kernels::{Isa, int8::convert};
use penjing_runtime::quant::Quant;

/// Bytes of a piece: they stay next to the core.
const PIECE: usize = 1024;

/// What the grid leaves of `x`.
pub(super) fn round(isa: Isa, quant: Quant, x: &[f32], y: &mut [f32]) {
    let mut bytes = [0; PIECE];
    for (x, y) in x.chunks(PIECE).zip(y.chunks_mut(PIECE)) {
        let bytes = &mut bytes[..x.len()];
        convert::quantize(isa, quant.scale, quant.zero_point, x, bytes);
        convert::dequantize(isa, quant.scale, quant.zero_point, bytes, y);
    }
}

/// The gradient of `x`, that of its rounded values being `de`.
pub(super) fn gradient(quant: Quant, de: &[f32], x: &[f32], dx: &mut [f32]) {
    // What is rounded to an end is not cut off.
    let [low, high] = [quant.value(0) - 0.5 * quant.scale, quant.value(255) + 0.5 * quant.scale];
    for ((dx, de), x) in dx.iter_mut().zip(de).zip(x) {
        *dx = if (low..=high).contains(x) { *de } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_end_where_values_are_cut_off() {
        // −5 to 122.5.
        let quant = Quant { scale: 0.5, zero_point: 10 };
        let x = [0.3, -5.0, -5.2, -5.3, 122.7, 122.8, f32::NAN];
        let (mut y, mut dx) = ([f32::NAN; 7], [f32::NAN; 7]);
        round(Isa::detect(), quant, &x, &mut y);
        gradient(quant, &[2.0; 7], &x, &mut dx);
        assert_eq!(y, [0.5, -5.0, -5.0, -5.0, 122.5, 122.5, 0.0]);
        assert_eq!(dx, [2.0, 2.0, 2.0, 0.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn pieces_are_rounded_as_the_runtime_makes_bytes() {
        let quant = Quant { scale: 0.013, zero_point: 77 };
        let x: Vec<f32> = (0..3 * PIECE + 5).map(|i| (i * 7919 % 4001) as f32 * 1e-3 - 2.0).collect();
        let mut y = vec![f32::NAN; x.len()];
        round(Isa::detect(), quant, &x, &mut y);
        assert!(y.iter().zip(&x).all(|(y, x)| *y == quant.value(quant.byte(*x))));
    }
}
