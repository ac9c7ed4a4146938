//! Optimizer steps: plain loops without fused multiply-adds, the same bits on every machine.
//!
//! A caller may cut the parameters into slices as it likes. Moments of the optimizers start at zero.

use crate::sqrt;

/// A step of stochastic gradient descent as `torch.optim.SGD` takes it: d = gradient + decay·value,
/// velocity = momentum·velocity + d, and value −= lr·velocity, or with Nesterov's momentum value −= lr·(d + momentum·velocity).
pub fn sgd(
    values: &mut [f32],
    gradient: &[f32],
    velocity: &mut [f32],
    lr: f32,
    momentum: f32,
    nesterov: bool,
    decay: f32,
) {
    assert!(gradient.len() == values.len() && velocity.len() == values.len());
    for ((value, &gradient), velocity) in values.iter_mut().zip(gradient).zip(velocity) {
        let d = gradient + decay * *value;
        *velocity = momentum * *velocity + d;
        let step = if nesterov { d + momentum * *velocity } else { *velocity };
        *value -= lr * step;
    }
}

/// A step of AdamW (arXiv 1711.05101) as `torch.optim.AdamW` takes it, `step` counted from 1: value ·= 1 − lr·decay, then
/// value −= lr·m̂ / (√v̂ + eps), where m and v are the running means of the gradient and of its square and
/// m̂ = m / (1 − beta1^step), v̂ = v / (1 − beta2^step).
pub fn adamw(
    values: &mut [f32],
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    decay: f32,
    step: u32,
) {
    assert!(gradient.len() == values.len() && m.len() == values.len() && v.len() == values.len());
    assert!(step > 0, "steps count from 1");
    let (lr, decay) = (f64::from(lr), f64::from(decay));
    let gained = |beta: f32| 1.0 - libm::pow(f64::from(beta), f64::from(step));
    let kept = (1.0 - lr * decay) as f32;
    let size = (lr / gained(beta1)) as f32;
    let root = libm::sqrt(gained(beta2)) as f32;
    for (((value, &gradient), m), v) in values.iter_mut().zip(gradient).zip(m).zip(v) {
        *m = *m * beta1 + gradient * (1.0 - beta1);
        *v = *v * beta2 + gradient * gradient * (1.0 - beta2);
        *value = *value * kept - size * (*m / (sqrt(*v) / root + eps));
    }
}

/// average += share·(value − average): an exponential moving average.
pub fn toward(average: &mut [f32], values: &[f32], share: f32) {
    assert_eq!(average.len(), values.len());
    for (average, &value) in average.iter_mut().zip(values) {
        *average += share * (value - *average);
    }
}

/// Σ x², in f64: eight sums over every eighth value, then those in ascending order.
pub fn square_sum(x: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    for x in x.chunks(sums.len()) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum()
}

/// x ·= factor.
pub fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    // From scripts/goldens/updates.py.
    const VALUES: [f32; 4] = [1.0, -2.0, 0.5, 3.0];
    const CURVATURE: [f32; 4] = [1.0, 0.1, 2.0, -0.5];
    const SGD: [[f32; 4]; 5] = [
        [0.9, -1.98, 0.4, 3.15],
        [0.81, -1.9602, 0.32, 3.3075],
        [0.729, -1.940598, 0.256, 3.472875],
        [0.6561, -1.921192, 0.2048, 3.646519],
        [0.59049, -1.90198, 0.16384, 3.828845],
    ];
    const MOMENTUM: [[f32; 4]; 5] = [
        [0.899, -1.978, 0.3995, 3.147],
        [0.717301, -1.936442, 0.2287505, 3.433503],
        [0.4813245, -1.877739, 0.0290971, 3.859597],
        [0.2203319, -1.804251, -0.1564395, 4.432203],
        [-0.03681501, -1.718265, -0.2919781, 5.164725],
    ];
    const NESTEROV: [[f32; 4]; 5] = [
        [0.8081, -1.9582, 0.30905, 3.2793],
        [0.5712156, -1.899454, 0.1096188, 3.703673],
        [0.3218597, -1.826269, -0.05582555, 4.285803],
        [0.08759796, -1.741039, -0.1635756, 5.045397],
        [-0.1107906, -1.646025, -0.20818, 6.009754],
    ];
    const ADAMW: [[f32; 4]; 5] = [
        [0.8950999, -1.890498, 0.3975999, 3.084933],
        [0.7911702, -1.781742, 0.2969566, 3.169506],
        [0.6885804, -1.673867, 0.1994229, 3.253759],
        [0.5877703, -1.567019, 0.1069158, 3.337732],
        [0.4892584, -1.461354, 0.02197729, 3.421462],
    ];

    /// Compares the values after every step with the table.
    fn follow(table: &[[f32; 4]; 5], mut step: impl FnMut(u32, &mut [f32], &[f32])) {
        let mut values = VALUES;
        for (number, expected) in (1..).zip(table) {
            let mut gradient = CURVATURE;
            gradient.iter_mut().zip(values).for_each(|(g, value)| *g *= value);
            step(number, &mut values, &gradient);
            for (value, expected) in values.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-6, "step {number}: {value} {expected}");
            }
        }
    }

    #[test]
    fn sgd_as_pytorch() {
        for (table, momentum, nesterov, decay) in
            [(&SGD, 0.0, false, 0.0), (&MOMENTUM, 0.9, false, 0.01), (&NESTEROV, 0.9, true, 0.01)]
        {
            let mut velocity = [0.0; 4];
            follow(table, |_, values, gradient| {
                sgd(values, gradient, &mut velocity, 0.1, momentum, nesterov, decay);
            });
        }
    }

    #[test]
    fn adamw_as_pytorch() {
        let (mut m, mut v) = ([0.0; 4], [0.0; 4]);
        follow(&ADAMW, |step, values, gradient| {
            adamw(values, gradient, &mut m, &mut v, 0.1, 0.9, 0.999, 1e-3, 0.05, step);
        });
    }

    #[test]
    fn by_hand() {
        let mut average = [1.0, -2.0];
        toward(&mut average, &[3.0, -2.0], 0.25);
        assert_eq!(average, [1.5, -2.0]);
        scale(&mut average, -2.0);
        assert_eq!(average, [-3.0, 4.0]);
        assert_eq!(square_sum(&average), 25.0);
        let x = noise(1003, 1);
        let exact: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((square_sum(&x) - exact).abs() < 1e-9 && exact > 1000.0);
    }
}
