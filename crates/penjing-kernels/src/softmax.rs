//! Softmax.

use crate::{
    act::{exp, max},
    volume,
};

/// y = eˣ / Σ eˣ over each row of x `[rows][c]`, the largest value subtracted first. The sum runs in ascending order.
pub fn run(rows: usize, c: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), volume(&[rows, c]), "x is [rows][c]");
    assert_eq!(y.len(), x.len());
    if c == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        let largest = x.iter().fold(f32::NEG_INFINITY, |m, &x| max(m, x));
        for (y, &x) in y.iter_mut().zip(x) {
            *y = exp(x - largest);
        }
        let sum: f32 = y.iter().sum();
        y.iter_mut().for_each(|y| *y /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_to_one_and_large_logits_do_not_overflow() {
        let mut y = [0.0; 6];
        run(2, 3, &[1000.0, 1000.0, -1000.0, 0.0, core::f32::consts::LN_2, 0.0], &mut y);
        for (y, expected) in y.iter().zip([0.5, 0.5, 0.0, 0.25, 0.5, 0.25]) {
            assert!((y - expected).abs() < 1e-6, "{y} {expected}");
        }
    }
}
