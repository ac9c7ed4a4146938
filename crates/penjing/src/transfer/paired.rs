//! Two networks on the same photos: what one gains over the other, and how far chance could take that.

use std::collections::BTreeMap;

/// The mean of paired differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gain {
    /// What the second gains over the first, on average over photos; no number without photos.
    pub mean: f64,
    /// Its standard error. Photos of one group are alike, and count together: the cluster-robust error of a mean
    /// (Liang & Zeger 1986, "Longitudinal data analysis using generalized linear models", with G / (G - 1) for G groups).
    /// One group tells nothing: infinite.
    pub error: f64,
}

impl Gain {
    /// `gains` holds what is gained at each photo, and the group that the photo belongs to.
    pub fn new(gains: impl Iterator<Item = (f64, usize)> + Clone) -> Self {
        let count = gains.clone().count() as f64;
        let mean = gains.clone().map(|(gain, _)| gain).sum::<f64>() / count;
        let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
        gains.for_each(|(gain, group)| *sums.entry(group).or_default() += gain - mean);
        let (square, known): (f64, _) = (sums.values().map(|sum| sum * sum).sum(), sums.len() as f64);
        let error = if known < 2.0 { f64::INFINITY } else { (square * known / (known - 1.0)).sqrt() / count };
        Gain { mean, error }
    }

    /// Whether it is more than so many standard errors.
    pub fn beyond(&self, errors: f64) -> bool {
        self.mean > errors * self.error
    }
}

#[cfg(test)]
mod tests {
    use super::Gain;

    #[test]
    fn alike_photos_count_together() {
        // Twenty lost, twenty won, of a hundred.
        let gains = |photo: usize| f64::from(i8::from(photo < 20) - i8::from((20..40).contains(&photo)));
        let alone = Gain::new((0..100).map(|photo| (gains(photo), photo)));
        assert_eq!(alone.mean, 0.0);
        assert!((alone.error - (40.0 / 99.0 / 100.0_f64).sqrt()).abs() < 1e-12, "{alone:?}");
        // Five photos of each thing tell as much as one of each: 20 groups, of which four are lost and four are won.
        let grouped = Gain::new((0..100).map(|photo| (gains(photo), photo / 5)));
        assert!((grouped.error - (8.0 / 19.0 / 20.0_f64).sqrt()).abs() < 1e-12, "{grouped:?}");
        assert!(!Gain::new((0..100).map(|_| (1.0, 7))).beyond(1.0));
        assert!(!Gain::new(std::iter::empty()).beyond(0.0));
        assert!(!Gain::new([(f64::NAN, 0), (1.0, 1)].into_iter()).beyond(0.0));
    }
}
