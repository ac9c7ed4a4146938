//! Averaged weights: steadier than those of any single step.

use penjing_kernels::update;
use rayon::prelude::*;

use super::parameters::Parameters;

/// Exponential moving average of all parameters, running statistics too.
///
/// Update `t` (from 1) moves the average by `share = max(1 − 0.5^(1/half_life), 1/(t + 1))` of the way to the new
/// values. While the second bound rules, the average is the ordinary mean of the start and of all values since; so the
/// start never weighs more than one later step does, however short the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ema {
    average: Parameters,
    share: f64,
    updates: u64,
}

impl Ema {
    /// Starts at `parameters`. After `half_life` steps an old value weighs half; 0 follows the values at once.
    pub fn new(parameters: &Parameters, half_life: f64) -> Ema {
        Ema::resume(parameters.clone(), half_life, 0)
    }

    /// Goes on from an `average` that has seen so many updates.
    pub fn resume(average: Parameters, half_life: f64, updates: u64) -> Ema {
        Ema { average, share: 1.0 - 0.5f64.powf(1.0 / half_life.max(0.0)), updates }
    }

    /// Takes in the values after one more step.
    ///
    /// # Panics
    /// If `parameters` are of another network.
    pub fn update(&mut self, parameters: &Parameters) {
        assert_eq!(self.average.list.len(), parameters.list.len(), "parameters of another network");
        self.updates += 1;
        let share = self.share.max(1.0 / (self.updates as f64 + 1.0)) as f32;
        let pairs = self.average.list.par_iter_mut().zip(&parameters.list);
        pairs.for_each(|(average, now)| update::toward(&mut average.values, &now.values, share));
    }

    /// The average.
    pub fn parameters(&self) -> &Parameters {
        &self.average
    }

    /// How many updates it has seen.
    pub fn updates(&self) -> u64 {
        self.updates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::parameters::{Kind, Parameter};

    fn one(value: f32) -> Parameters {
        let parameter = |name: &str, kind| Parameter {
            name: name.into(),
            shape: vec![2],
            kind,
            values: vec![value, -2.0 * value],
        };
        Parameters { list: vec![parameter("conv.weight", Kind::Weight), parameter("bn.var", Kind::Variance)] }
    }

    /// A path that no average follows by chance.
    fn value(step: u64) -> f64 {
        ((step * step * 7 + step * 3) % 11) as f64
    }

    #[test]
    fn equals_its_closed_form() {
        // 1/(t + 1) falls below 1 − 0.5^(1/5) = 0.1294 with t = 7.
        let (half_life, share, ordinary) = (5.0, 1.0 - 0.5f64.powf(0.2), 6);
        let mut ema = Ema::new(&one(value(0) as f32), half_life);
        for steps in 1..=40u64 {
            ema.update(&one(value(steps) as f32));
            let mean = |last: u64| (0..=last).map(value).sum::<f64>() / (last + 1) as f64;
            let expected = if steps <= ordinary {
                mean(steps)
            } else {
                let later = (ordinary + 1)..=steps;
                let keep = |step: u64| (1.0 - share).powi((steps - step) as i32);
                mean(ordinary) * keep(ordinary) + later.map(|k| share * keep(k) * value(k)).sum::<f64>()
            };
            for parameter in &ema.parameters().list {
                let [a, b] = parameter.values[..] else { panic!("two values") };
                assert!((f64::from(a) - expected).abs() < 2e-5, "step {steps}: {a}, expected {expected}");
                assert!((f64::from(b) + 2.0 * expected).abs() < 4e-5, "step {steps}: {b}");
            }
        }
        assert_eq!(ema.updates(), 40);
    }

    #[test]
    fn half_is_forgotten_after_the_half_life() {
        // Long after the ordinary mean has ended.
        let mut ema = Ema::resume(one(1.0), 20.0, 1000);
        for _ in 0..20 {
            ema.update(&one(0.0));
        }
        let left = ema.parameters().list[0].values[0];
        assert!((left - 0.5).abs() < 1e-5, "{left}");
    }

    #[test]
    fn a_pause_changes_nothing() {
        let mut whole = Ema::new(&one(3.0), 4.0);
        (1..=10).for_each(|step| whole.update(&one(value(step) as f32)));
        let mut first = Ema::new(&one(3.0), 4.0);
        (1..=3).for_each(|step| first.update(&one(value(step) as f32)));
        let mut second = Ema::resume(first.parameters().clone(), 4.0, first.updates());
        (4..=10).for_each(|step| second.update(&one(value(step) as f32)));
        assert_eq!(second, whole);
    }

    #[test]
    fn no_half_life_follows_at_once() {
        let mut ema = Ema::new(&one(3.0), 0.0);
        for step in [1, 2, 9] {
            ema.update(&one(value(step) as f32));
            assert_eq!(*ema.parameters(), one(value(step) as f32));
        }
    }
}
