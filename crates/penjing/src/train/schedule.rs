//! The learning rate over the steps of a run.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Linear warm-up, then half a cosine down (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps of the whole run.
    pub steps: u64,
    /// Share of the steps that rise to the peak, 0..=1.
    pub warmup: f64,
    /// Factor of the last step, 0..=1.
    pub floor: f64,
}

impl Schedule {
    /// What the peak rate is multiplied by in step `step`, counted from 0.
    ///
    /// With `w` steps of warm-up, step `k < w` has `(k + 1) / (w + 1)`, step `w` has 1, and the last step and any
    /// after it have `floor`. The value is a whole `f32`: mathematical libraries differ in the last bit of a cosine, and
    /// rounding hides nearly all of that.
    pub fn factor(&self, step: u64) -> f64 {
        let warm = (self.warmup.clamp(0.0, 1.0) * self.steps as f64).round() as u64;
        let factor = if step < warm {
            (step + 1) as f64 / (warm + 1) as f64
        } else {
            let falling = self.steps.saturating_sub(warm + 1);
            let done = if step >= self.steps { 1.0 } else { (step - warm) as f64 / falling.max(1) as f64 };
            self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (PI * done).cos())
        };
        f64::from(factor.clamp(0.0, 1.0) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_one_and_falls_to_the_floor() {
        // 10 steps of warm-up, 90 of the cosine: its first is the peak, its 31st stands at a third of the way.
        let schedule = Schedule { steps: 101, warmup: 0.1, floor: 0.01 };
        for (step, expected) in [
            (0, 1.0 / 11.0),
            (4, 5.0 / 11.0),
            (9, 10.0 / 11.0),
            (10, 1.0),
            (40, 0.01 + 0.99 * 0.75),
            (55, 0.01 + 0.99 * 0.5),
            (70, 0.01 + 0.99 * 0.25),
            (100, 0.01),
            (101, 0.01),
            (u64::MAX, 0.01),
        ] {
            let factor = schedule.factor(step);
            assert!((factor - expected).abs() < 1e-7, "step {step}: {factor}, expected {expected}");
            assert_eq!(factor, f64::from(factor as f32));
        }
        for step in 1..=10 {
            assert!(schedule.factor(step) > schedule.factor(step - 1), "step {step}");
        }
        for step in 11..=100 {
            assert!(schedule.factor(step) < schedule.factor(step - 1), "step {step}");
        }
    }

    #[test]
    fn short_and_odd_runs_stay_within_bounds() {
        for steps in [0, 1, 2, 3, 7] {
            for warmup in [-1.0, 0.0, 0.1, 0.5, 1.0, 2.0, f64::NAN] {
                for floor in [0.0, 0.01, 1.0] {
                    let schedule = Schedule { steps, warmup, floor };
                    for step in 0..steps + 2 {
                        let factor = schedule.factor(step);
                        assert!((0.0..=1.0).contains(&factor), "{schedule:?} step {step}: {factor}");
                    }
                    assert_eq!(schedule.factor(steps), f64::from(floor as f32), "{schedule:?}");
                }
            }
        }
        // A single step learns at the full rate.
        assert_eq!(Schedule { steps: 1, warmup: 0.1, floor: 0.01 }.factor(0), 1.0);
        assert_eq!(Schedule { steps: 5, warmup: 0.0, floor: 0.5 }.factor(0), 1.0);
        assert_eq!(Schedule { steps: 5, warmup: 0.0, floor: 0.5 }.factor(4), 0.5);
    }
}
