//! How sure a classifier may be: one temperature for all logits.

/// The temperature T, e⁻⁴ to e⁴, that makes `labels` most likely under softmax(logits / T), by golden section in
/// log T (Guo et al., "On calibration of modern neural networks", 2017). `logits` is `[labels][classes]`.
///
/// As in Platt's scaling ("Probabilistic outputs for support vector machines", 1999) a share of 1 / (labels + 1) of each
/// target goes to all classes alike: n photos without an error do not prove that there will never be one.
pub fn temperature(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let doubt = 1.0 / (labels.len() + 1) as f64;
    let nll = |log_t: f64| -> f64 {
        let sharpness = (-log_t).exp();
        let photos = logits.chunks_exact(classes).zip(labels);
        photos
            .map(|(logits, label)| {
                // The mean surprise over all classes lies this much above that of the label.
                let mean = logits.iter().map(|z| f64::from(*z)).sum::<f64>() / classes as f64;
                let above = (f64::from(logits[*label as usize]) - mean) * sharpness;
                surprise(logits, *label, sharpness) + doubt * above
            })
            .sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_photos_without_an_error_prove_little() {
        let sure = |photos: usize| {
            let logits: Vec<f32> = (0..photos).flat_map(|_| [3.0, 0.0]).collect();
            let t = temperature(&logits, &vec![0; photos], 2);
            1.0 - (-surprise(&logits[..2], 0, 1.0 / t)).exp()
        };
        // The likeliest sharpness gives an error just the share that was doubted.
        for photos in [9, 49, 999] {
            let expected = 0.5 / (photos + 1) as f64;
            assert!((sure(photos) / expected - 1.0).abs() < 0.02, "{photos}: {}", sure(photos));
        }
    }

    #[test]
    fn finds_the_temperature_that_logits_were_scaled_by() {
        // Nine of ten are right at every margin: the true logit difference is ln 9.
        let logits: Vec<f32> = (0..1000).flat_map(|_| [5.0 * 9f32.ln(), 0.0]).collect();
        let labels: Vec<u32> = (0..1000).map(|i| u32::from(i % 10 == 0)).collect();
        let t = temperature(&logits, &labels, 2);
        assert!((t - 5.0).abs() < 0.05, "{t}");
    }
}
