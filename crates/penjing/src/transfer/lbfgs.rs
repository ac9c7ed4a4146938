//! Limited-memory BFGS for convex losses of a linear model.
//!
//! Liu & Nocedal, "On the limited memory BFGS method for large scale optimization" (1989). A linear model's outputs
//! change linearly along a search direction, so the caller computes them once per direction and every trial step of
//! the line search costs only the outputs, not the data.

use std::collections::VecDeque;

use rayon::prelude::*;

/// Pairs of (step, change of gradient) kept.
const MEMORY: usize = 10;
/// Trial steps of one line search.
const TRIALS: usize = 20;
/// Elements in one piece of a sum; fixed, so that sums do not depend on the number of threads.
const PIECE: usize = 1 << 14;

/// A convex function of the parameters, looked at along one direction at a time.
pub(super) trait Objective {
    /// Chooses the line `at + step · direction` that [`Objective::probe`] and [`Objective::advance`] speak of.
    fn aim(&mut self, at: &[f32], direction: &[f32]);
    /// Value and slope at `step` on the line.
    fn probe(&self, step: f64) -> (f64, f64);
    /// Moves to `step` on the line.
    fn advance(&mut self, step: f64);
    /// Writes the gradient where the objective stands, which is at `at`.
    fn gradient(&mut self, at: &[f32], gradient: &mut [f32]);
}

/// How a minimization ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// No further decrease worth a step.
    Converged,
    /// The iterations were used up.
    Exhausted,
    /// `go_on` said no.
    Stopped,
}

/// The optimizer's memory of curvature; it outlives one minimization, so that a neighbouring problem starts informed.
#[derive(Default)]
pub(super) struct Lbfgs {
    pairs: VecDeque<Pair>,
}

struct Pair {
    step: Vec<f32>,
    change: Vec<f32>,
    step_change: f64,
}

impl Lbfgs {
    /// Follows a change of the ridge penalty by `delta` on the first `ridged` parameters: each remembered change of
    /// gradient moves by `delta · step`, exactly.
    pub(super) fn shift_ridge(&mut self, delta: f64, ridged: usize) {
        for pair in &mut self.pairs {
            for (change, step) in pair.change[..ridged].iter_mut().zip(&pair.step) {
                *change = (f64::from(*change) + delta * f64::from(*step)) as f32;
            }
            pair.step_change = dot(&pair.step, &pair.change);
        }
        self.pairs.retain(|pair| pair.step_change > 0.0);
    }

    /// Minimizes from `at`, where `objective` already stands, until a step promises and brings less than `tolerance`
    /// of the value, for at most `iterations` steps. `go_on` is asked before each.
    pub(super) fn minimize(
        &mut self,
        objective: &mut impl Objective,
        at: &mut [f32],
        tolerance: f64,
        iterations: usize,
        mut go_on: impl FnMut() -> bool,
    ) -> Ended {
        let mut gradient = vec![0.0; at.len()];
        let mut next = vec![0.0; at.len()];
        objective.gradient(at, &mut gradient);
        for _ in 0..iterations {
            if !go_on() {
                return Ended::Stopped;
            }
            let mut direction = self.direction(&gradient);
            let mut slope = dot(&direction, &gradient);
            if slope >= 0.0 && !self.pairs.is_empty() {
                self.pairs.clear();
                direction = self.direction(&gradient);
                slope = dot(&direction, &gradient);
            }
            if slope >= 0.0 || !slope.is_finite() {
                return Ended::Converged;
            }
            objective.aim(at, &direction);
            let Some((step, decrease, value)) = line_search(objective) else {
                return Ended::Converged;
            };
            objective.advance(step);
            for (at, direction) in at.iter_mut().zip(&mut direction) {
                let moved = (f64::from(*at) + step * f64::from(*direction)) as f32;
                // The step as rounding left it, so that the remembered pair is what really happened.
                *direction = moved - *at;
                *at = moved;
            }
            objective.gradient(at, &mut next);
            let change: Vec<f32> = next.iter().zip(&gradient).map(|(next, last)| next - last).collect();
            std::mem::swap(&mut gradient, &mut next);
            let step_change = dot(&direction, &change);
            if step_change > 1e-10 * dot(&change, &change) {
                if self.pairs.len() == MEMORY {
                    self.pairs.pop_front();
                }
                self.pairs.push_back(Pair { step: direction, change, step_change });
            }
            // `-slope / 2` is what a quadratic model promised for this step.
            if decrease.max(-slope / 2.0) <= tolerance * value.abs() {
                return Ended::Converged;
            }
        }
        Ended::Exhausted
    }

    /// The two-loop recursion: minus the gradient through the inverse curvature remembered.
    fn direction(&self, gradient: &[f32]) -> Vec<f32> {
        let mut direction: Vec<f32> = gradient.iter().map(|g| -g).collect();
        let Some(last) = self.pairs.back() else {
            // Without curvature a step of length one; the line search stretches it.
            let norm = dot(gradient, gradient).sqrt();
            if norm > 0.0 {
                scale(&mut direction, 1.0 / norm);
            }
            return direction;
        };
        let mut shares = vec![0.0; self.pairs.len()];
        for (pair, share) in self.pairs.iter().zip(&mut shares).rev() {
            *share = dot(&pair.step, &direction) / pair.step_change;
            add(&mut direction, -*share, &pair.change);
        }
        scale(&mut direction, last.step_change / dot(&last.change, &last.change));
        for (pair, share) in self.pairs.iter().zip(&shares) {
            let undone = dot(&pair.change, &direction) / pair.step_change;
            add(&mut direction, share - undone, &pair.step);
        }
        direction
    }
}

/// A step on the objective's line that satisfies the strong Wolfe conditions, the decrease it brings and the value
/// there; `None` where rounding leaves nothing to gain.
///
/// The function is convex, so its slope grows along the line: double until it is positive, then close in on its root.
fn line_search(objective: &impl Objective) -> Option<(f64, f64, f64)> {
    const SUFFICIENT: f64 = 1e-4;
    const FLAT: f64 = 0.5;
    let (start, start_slope) = objective.probe(0.0);
    if start_slope >= 0.0 {
        return None;
    }
    let (mut low, mut low_slope) = (0.0, start_slope);
    let mut high: Option<(f64, f64)> = None;
    let mut step = 1.0;
    let mut best: Option<(f64, f64, f64)> = None;
    for _ in 0..TRIALS {
        let (value, slope) = objective.probe(step);
        let decrease = start - value;
        let usable = value.is_finite() && slope.is_finite();
        if usable && decrease > 0.0 && best.is_none_or(|(_, most, _)| decrease > most) {
            best = Some((step, decrease, value));
        }
        if usable && decrease >= -SUFFICIENT * step * start_slope && slope.abs() <= -FLAT * start_slope {
            return Some((step, decrease, value));
        }
        if usable && slope < 0.0 {
            (low, low_slope) = (step, slope);
        } else {
            high = Some((step, if usable { slope } else { f64::INFINITY }));
        }
        step = match high {
            None => {
                // The secant's guess of the root, between doubling and tenfold.
                let guess = step * start_slope / (start_slope - slope);
                if guess > 0.0 { guess.clamp(2.0 * step, 10.0 * step) } else { 10.0 * step }
            }
            Some((high, high_slope)) => {
                let root = low - low_slope * (high - low) / (high_slope - low_slope);
                let inset = 0.1 * (high - low);
                if root.is_finite() { root.clamp(low + inset, high - inset) } else { (low + high) / 2.0 }
            }
        };
    }
    best
}

/// `Σ a·b` in f64, in pieces of fixed length added in order.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let piece = |a: &[f32], b: &[f32]| {
        let mut lanes = [0.0f64; 8];
        let (a, a_rest) = a.as_chunks::<8>();
        let (b, b_rest) = b.as_chunks::<8>();
        for (a, b) in a.iter().zip(b) {
            for lane in 0..8 {
                lanes[lane] += f64::from(a[lane]) * f64::from(b[lane]);
            }
        }
        let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        lanes.iter().sum::<f64>() + rest
    };
    if a.len() <= 2 * PIECE {
        return a.chunks(PIECE).zip(b.chunks(PIECE)).map(|(a, b)| piece(a, b)).sum();
    }
    let pieces: Vec<f64> = a.par_chunks(PIECE).zip(b.par_chunks(PIECE)).map(|(a, b)| piece(a, b)).collect();
    pieces.iter().sum()
}

fn add(to: &mut [f32], factor: f64, what: &[f32]) {
    to.par_chunks_mut(PIECE).zip(what.par_chunks(PIECE)).for_each(|(to, what)| {
        for (to, what) in to.iter_mut().zip(what) {
            *to = (f64::from(*to) + factor * f64::from(*what)) as f32;
        }
    });
}

fn scale(what: &mut [f32], factor: f64) {
    for value in what {
        *value = (f64::from(*value) * factor) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `½ Σ curvature·(x − goal)²`, where `step` is walked along `direction` from `at`.
    struct Bowl {
        curvature: Vec<f64>,
        goal: Vec<f64>,
        at: Vec<f64>,
        direction: Vec<f64>,
    }

    impl Objective for Bowl {
        fn aim(&mut self, at: &[f32], direction: &[f32]) {
            self.at = at.iter().map(|x| f64::from(*x)).collect();
            self.direction = direction.iter().map(|x| f64::from(*x)).collect();
        }
        fn probe(&self, step: f64) -> (f64, f64) {
            let (mut value, mut slope) = (1.0, 0.0);
            for i in 0..self.at.len() {
                let off = self.at[i] + step * self.direction[i] - self.goal[i];
                value += 0.5 * self.curvature[i] * off * off;
                slope += self.curvature[i] * off * self.direction[i];
            }
            (value, slope)
        }
        fn advance(&mut self, _: f64) {}
        fn gradient(&mut self, at: &[f32], gradient: &mut [f32]) {
            for i in 0..at.len() {
                gradient[i] = (self.curvature[i] * (f64::from(at[i]) - self.goal[i])) as f32;
            }
        }
    }

    #[test]
    fn reaches_the_bottom_of_an_uneven_bowl() {
        let n = 30;
        let mut bowl = Bowl {
            curvature: (0..n).map(|i| 10f64.powf(f64::from(i) / 10.0)).collect(),
            goal: (0..n).map(|i| f64::from(i) - 7.5).collect(),
            at: vec![],
            direction: vec![],
        };
        let mut at = vec![0.0; n as usize];
        assert_eq!(Lbfgs::default().minimize(&mut bowl, &mut at, 1e-10, 200, || true), Ended::Converged);
        for (at, goal) in at.iter().zip(&bowl.goal) {
            assert!((f64::from(*at) - goal).abs() < 1e-3, "{at} {goal}");
        }
    }

    #[test]
    fn stops_when_told() {
        let mut bowl =
            Bowl { curvature: vec![1.0, 9.0], goal: vec![3.0, 4.0], at: vec![], direction: vec![] };
        let mut at = vec![0.0; 2];
        let mut left = 2;
        let ended = Lbfgs::default().minimize(&mut bowl, &mut at, 0.0, 200, || {
            left -= 1;
            left > 0
        });
        assert_eq!(ended, Ended::Stopped);
    }

    #[test]
    fn dot_does_not_depend_on_threads() {
        let a: Vec<f32> = (0..100_003u32).map(|i| (i % 977) as f32 * 0.37 - 91.0).collect();
        let b: Vec<f32> = (0..100_003u32).map(|i| (i % 613) as f32 * 0.11 - 5.0).collect();
        let with =
            |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(|| dot(&a, &b));
        assert_eq!(with(1).to_bits(), with(3).to_bits());
    }
}
