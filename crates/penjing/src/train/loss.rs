//! Cross-entropy with soft targets.

use penjing_kernels::softmax;

/// Mean over the rows of −Σ t·log softmax(z), and its gradient (softmax(z)·Σt − t) / rows in `gradient`.
///
/// `logits`, `targets` and `gradient` are `[rows][classes]`; a row of targets sums to 1, or to the row's weight.
pub fn cross_entropy(classes: usize, logits: &[f32], targets: &[f32], gradient: &mut [f32]) -> f64 {
    let rows = logits.len() / classes;
    softmax::run(rows, classes, logits, gradient);
    let mut loss = 0.0;
    for ((z, t), g) in logits
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes))
        .zip(gradient.chunks_exact_mut(classes))
    {
        let largest = z.iter().fold(f64::NEG_INFINITY, |most, z| most.max(f64::from(*z)));
        let total: f64 = z.iter().map(|z| (f64::from(*z) - largest).exp()).sum();
        let log_total = largest + total.ln();
        let weight: f32 = t.iter().sum();
        for ((z, t), g) in z.iter().zip(t).zip(g) {
            loss += f64::from(*t) * (log_total - f64::from(*z));
            *g = (*g * weight - t) / rows as f32;
        }
    }
    loss / rows as f64
}

/// A target row: 1 − smoothing on the class, and smoothing spread over all (Szegedy et al., arXiv 1512.00567).
pub fn smoothed(class: usize, smoothing: f32, row: &mut [f32]) {
    row.fill(smoothing / row.len() as f32);
    row[class] += 1.0 - smoothing;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_and_by_differences() {
        let logits = [1.0f32, 2.0, 0.5, -1.0, 0.0, 3.0];
        let mut targets = [0.0; 6];
        smoothed(1, 0.3, &mut targets[..3]);
        smoothed(2, 0.0, &mut targets[3..]);
        assert!((targets[1] - 0.8).abs() < 1e-6 && (targets[0] - 0.1).abs() < 1e-6);
        let mut gradient = [0.0; 6];
        let loss = cross_entropy(3, &logits, &targets, &mut gradient);
        // torch.nn.functional.cross_entropy in float64.
        assert!((loss - 0.390_126_2).abs() < 1e-6, "{loss}");
        let mut unused = [0.0; 6];
        for index in 0..6 {
            let mut moved = logits;
            moved[index] += 1e-2;
            let up = cross_entropy(3, &moved, &targets, &mut unused);
            moved[index] -= 2e-2;
            let down = cross_entropy(3, &moved, &targets, &mut unused);
            let slope = (up - down) / 2e-2;
            assert!(
                (slope - f64::from(gradient[index])).abs() < 1e-4,
                "{index}: {slope} {}",
                gradient[index]
            );
        }
    }
}
