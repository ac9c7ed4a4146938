//! How sure a classifier may be: one temperature for all logits.

/// The temperature T, e⁻⁴ to e⁴, that makes `labels` most likely under softmax(logits / T), by golden section in
/// log T (Guo et al., "On calibration of modern neural networks", 2017). `logits` is `[labels][classes]`.
pub fn temperature(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let nll = |log_t: f64| -> f64 {
        let sharpness = (-log_t).exp();
        let photos = logits.chunks_exact(classes).zip(labels);
        photos.map(|(logits, label)| surprise(logits, *label, sharpness)).sum()
    };
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (-4.0, 4.0);
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut nll_a, mut nll_b) = (nll(a), nll(b));
    while high - low > 1e-4 {
        if nll_a < nll_b {
            (high, b, nll_b) = (b, a, nll_a);
            a = high - ratio * (high - low);
            nll_a = nll(a);
        } else {
            (low, a, nll_a) = (a, b, nll_b);
            b = low + ratio * (high - low);
            nll_b = nll(b);
        }
    }
    ((low + high) / 2.0).exp()
}

/// Mean of −log softmax(logits / temperature) at the labels; `logits` is `[labels][classes]`.
pub fn mean_surprise(logits: &[f32], labels: &[u32], classes: usize, temperature: f64) -> f64 {
    let photos = logits.chunks_exact(classes).zip(labels);
    photos.map(|(logits, label)| surprise(logits, *label, temperature.recip())).sum::<f64>()
        / labels.len() as f64
}

/// −log of the probability of `label` under softmax(sharpness · logits).
pub(super) fn surprise(logits: &[f32], label: u32, sharpness: f64) -> f64 {
    let own = f64::from(logits[label as usize]);
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|z| ((f64::from(*z) - most) * sharpness).exp()).sum();
    sum.ln() + (most - own) * sharpness
}
