//! Random numbers that are the same everywhere: SplitMix64 (Steele, Lea and Flood, 2014).

/// A stream of random numbers, fixed by its seed.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next value in 0..1.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next value of the standard normal distribution (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        // In 0..1 without 0, which has no logarithm.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// The next whole number in `0..below`; 0 for an empty range. Its bias is less than `below`/2⁶⁴.
    pub fn below(&mut self, below: usize) -> usize {
        ((u128::from(self.next_u64()) * below as u128) >> 64) as usize
    }

    /// Puts the items in an order of which every one is equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;

    #[test]
    fn gives_the_published_stream() {
        // First outputs for seed 1234567 in the reference C code.
        let mut random = SplitMix64::new(1234567);
        assert_eq!(random.next_u64(), 6457827717110365317);
        assert_eq!(random.next_u64(), 3203168211198807973);
    }

    #[test]
    fn normal_values_have_the_moments_of_the_normal_distribution() {
        let mut random = SplitMix64::new(5);
        let count = 200_000;
        let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        // Mean, variance, skewness, kurtosis, and half of the values within 0.6745: all to about four standard errors.
        for (power, expected, tolerance) in [(1, 0.0, 0.01), (2, 1.0, 0.015), (3, 0.0, 0.04), (4, 3.0, 0.1)] {
            let moment = values.iter().map(|x| x.powi(power)).sum::<f64>() / f64::from(count);
            assert!((moment - expected).abs() < tolerance, "moment {power}: {moment}");
        }
        let inside = values.iter().filter(|x| x.abs() < 0.674_49).count() as f64 / f64::from(count);
        assert!((inside - 0.5).abs() < 0.005, "{inside}");
    }
}
