//! Softmax.

use crate::{
    act::{exp, max},
    fma, volume,
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

/// dx = y·(dy − Σ dy·y) over each row, from y, the softmax `[rows][c]`. The sum runs in ascending order.
pub fn gradient(rows: usize, c: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(y.len(), volume(&[rows, c]), "y is [rows][c]");
    assert!(dy.len() == y.len() && dx.len() == y.len());
    if c == 0 {
        return;
    }
    for ((y, dy), dx) in y.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
        let sum = y.iter().zip(dy).fold(0.0, |sum, (&y, &dy)| fma(dy, y, sum));
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = y * (dy - sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn gradient_equals_finite_differences() {
        let (x, dy) = (noise(6, 1), noise(6, 2));
        let (mut y, mut dx) = ([0.0; 6], [0.0; 6]);
        run(2, 3, &x, &mut y);
        gradient(2, 3, &y, &dy, &mut dx);
        let loss = |x: &[f64]| -> f64 {
            let rows = x.chunks(3).zip(dy.chunks(3));
            rows.map(|(x, dy)| {
                let sum: f64 = x.iter().map(|x| x.exp()).sum();
                x.iter().zip(dy).map(|(x, &dy)| f64::from(dy) * x.exp() / sum).sum::<f64>()
            })
            .sum()
        };
        for i in 0..6 {
            let [high, low] = [1e-6, -1e-6].map(|h| {
                let mut x: [f64; 6] = core::array::from_fn(|i| f64::from(x[i]));
                x[i] += h;
                loss(&x)
            });
            assert!((f64::from(dx[i]) - (high - low) / 2e-6).abs() < 1e-6, "{i}");
        }
    }

    #[test]
    fn rows_sum_to_one_and_large_logits_do_not_overflow() {
        let mut y = [0.0; 6];
        run(2, 3, &[1000.0, 1000.0, -1000.0, 0.0, core::f32::consts::LN_2, 0.0], &mut y);
        for (y, expected) in y.iter().zip([0.5, 0.5, 0.0, 0.25, 0.5, 0.25]) {
            assert!((y - expected).abs() < 1e-6, "{y} {expected}");
        }
    }
}
