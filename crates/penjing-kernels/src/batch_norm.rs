//! Batch normalization (arXiv 1502.03167) and the activation after it, folded into reading: only the raw output y of a
//! convolution is stored, and whoever reads it computes
//!
//! e = act(u), u = scale·y + shift, scale = γ/σ, shift = β − μ·scale
//!
//! per channel, where over the M rows of a batch μ = Σy/M and σ² = Σ(y−μ)²/M + ε. Backward, with g = de·act'(u),
//! ŷ = (y−μ)/σ, S1 = Σg and S2 = Σg·(y−μ):
//!
//! dβ = S1, dγ = Σg·ŷ = S2/σ, dy = γ/σ · (g − S1/M − ŷ·dγ/M) = a·g + b·y + k
//!
//! with a = γ/σ, b = −a·dγ/(Mσ), k = −a·S1/M − b·μ. With frozen statistics dy = a·g.
//!
//! All maps are `[m][c]`, all vectors `[c]`. Sums over rows are chains of f32 over at most 256 rows, in ascending order,
//! that are added in f64: a caller that cuts the rows at multiples of 256 and adds its parts in order changes no bit.

use crate::{Act, Isa, arch, fma};

/// How stored values are read: act(scale\[c\]·x + shift\[c\]), rounded once before the activation.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Lazy<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub act: Act,
}

/// y = act(scale·x + shift).
pub fn apply(isa: Isa, c: usize, lazy: &Lazy, x: &[f32], y: &mut [f32]) {
    check(c, Some(lazy), &[x.len(), y.len()]);
    if c > 0 {
        arch::select!(isa, read(lazy, x, y));
    }
}

/// y = a(x) + b(x2): a residual sum, both sides read lazily. `None` reads a side as it is.
pub fn apply_sum(
    isa: Isa,
    c: usize,
    a: Option<&Lazy>,
    x: &[f32],
    b: Option<&Lazy>,
    x2: &[f32],
    y: &mut [f32],
) {
    check(c, a, &[x.len(), x2.len(), y.len()]);
    check(c, b, &[]);
    if c > 0 {
        arch::select!(isa, read_sum(c, a, x, b, x2, y));
    }
}

/// sum\[c\] += Σ (x − about\[c\]), square\[c\] += Σ (x − about\[c\])². The closer `about` is to the mean, the better the variance
/// Σ(x−about)²/M − (Σ(x−about)/M)².
pub fn moments(isa: Isa, c: usize, about: &[f32], x: &[f32], sum: &mut [f64], square: &mut [f64]) {
    check(c, None, &[x.len()]);
    assert!(about.len() == c && sum.len() == c && square.len() == c, "vectors are [c]");
    if c > 0 {
        arch::select!(isa, sum_moments(about, x, sum, square));
    }
}

/// s1\[c\] += Σ g, s2\[c\] += Σ g·(y − mean\[c\]), where g = de·act'(scale·y + shift), or de without `lazy`.
pub fn gradient_sums(
    isa: Isa,
    c: usize,
    lazy: Option<&Lazy>,
    mean: &[f32],
    de: &[f32],
    y: &[f32],
    s1: &mut [f64],
    s2: &mut [f64],
) {
    check(c, lazy, &[de.len(), y.len()]);
    assert!(mean.len() == c && s1.len() == c && s2.len() == c, "vectors are [c]");
    if c > 0 {
        arch::select!(isa, sum_gradients(lazy, mean, de, y, s1, s2));
    }
}

/// dy = a\[c\]·g + b\[c\]·y + k\[c\] with g as in [`gradient_sums`] and the `coefficients` (a, b, k) of the module's formula: the
/// gradient through activation and batch normalization.
pub fn gradient(
    isa: Isa,
    c: usize,
    lazy: Option<&Lazy>,
    coefficients: (&[f32], &[f32], &[f32]),
    de: &[f32],
    y: &[f32],
    dy: &mut [f32],
) {
    check(c, lazy, &[de.len(), y.len(), dy.len()]);
    let (a, b, k) = coefficients;
    assert!(a.len() == c && b.len() == c && k.len() == c, "vectors are [c]");
    if c > 0 {
        arch::select!(isa, pull_back(lazy, [a, b, k], de, y, dy));
    }
}

/// dy = de·act'(y), bias\[c\] += Σ dy: the same without normalization. y is the pre-activation; for an activation that only
/// clamps, the activated value does as well.
pub fn activation_gradient(
    isa: Isa,
    c: usize,
    act: Act,
    de: &[f32],
    y: &[f32],
    dy: &mut [f32],
    bias: &mut [f64],
) {
    check(c, None, &[de.len(), y.len(), dy.len()]);
    assert_eq!(bias.len(), c, "bias is [c]");
    if c > 0 {
        arch::select!(isa, pull_back_act(act, de, y, dy, bias));
    }
}

fn check(c: usize, lazy: Option<&Lazy>, maps: &[usize]) {
    assert!(lazy.is_none_or(|l| l.scale.len() == c && l.shift.len() == c), "scale and shift are [c]");
    assert!(maps.iter().all(|&len| len == maps[0]), "maps of one length");
    assert!(maps.iter().all(|&len| if c == 0 { len == 0 } else { len % c == 0 }), "maps are [m][c]");
}

/// The longest chain of f32.
pub(crate) const ROWS: usize = 256;

impl Lazy<'_> {
    fn before_act(&self, channel: usize, x: f32) -> f32 {
        fma(self.scale[channel], x, self.shift[channel])
    }

    fn value(&self, channel: usize, x: f32) -> f32 {
        self.act.apply(self.before_act(channel, x))
    }
}

/// The reference of [`apply`].
pub(crate) fn read(lazy: &Lazy, x: &[f32], y: &mut [f32]) {
    let c = lazy.scale.len();
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        for channel in 0..c {
            y[channel] = lazy.value(channel, x[channel]);
        }
    }
}

/// The reference of [`apply_sum`].
pub(crate) fn read_sum(c: usize, a: Option<&Lazy>, x: &[f32], b: Option<&Lazy>, x2: &[f32], y: &mut [f32]) {
    for ((x, x2), y) in x.chunks_exact(c).zip(x2.chunks_exact(c)).zip(y.chunks_exact_mut(c)) {
        for channel in 0..c {
            let side = |lazy: Option<&Lazy>, x: f32| lazy.map_or(x, |lazy| lazy.value(channel, x));
            y[channel] = side(a, x[channel]) + side(b, x2[channel]);
        }
    }
}

/// The reference of [`moments`].
pub(crate) fn sum_moments(about: &[f32], x: &[f32], sum: &mut [f64], square: &mut [f64]) {
    sums(x.len(), [sum, square], |i, channel, [sum, square]| {
        let d = x[i] - about[channel];
        [sum + d, fma(d, d, square)]
    });
}

/// The reference of [`gradient_sums`].
pub(crate) fn sum_gradients(
    lazy: Option<&Lazy>,
    mean: &[f32],
    de: &[f32],
    y: &[f32],
    s1: &mut [f64],
    s2: &mut [f64],
) {
    sums(y.len(), [s1, s2], |i, channel, [s1, s2]| {
        let g = before_lazy(lazy, channel, de[i], y[i]);
        [s1 + g, fma(g, y[i] - mean[channel], s2)]
    });
}

/// The reference of [`gradient`].
pub(crate) fn pull_back(lazy: Option<&Lazy>, [a, b, k]: [&[f32]; 3], de: &[f32], y: &[f32], dy: &mut [f32]) {
    let c = a.len();
    for ((de, y), dy) in de.chunks_exact(c).zip(y.chunks_exact(c)).zip(dy.chunks_exact_mut(c)) {
        for channel in 0..c {
            let g = before_lazy(lazy, channel, de[channel], y[channel]);
            dy[channel] = fma(a[channel], g, fma(b[channel], y[channel], k[channel]));
        }
    }
}

/// The reference of [`activation_gradient`].
pub(crate) fn pull_back_act(act: Act, de: &[f32], y: &[f32], dy: &mut [f32], bias: &mut [f64]) {
    sums(y.len(), [bias], |i, _, [sum]| {
        dy[i] = de[i] * act.slope(y[i]);
        [sum + dy[i]]
    });
}

/// The gradient before a lazy reading's activation.
fn before_lazy(lazy: Option<&Lazy>, channel: usize, de: f32, y: f32) -> f32 {
    lazy.map_or(de, |lazy| de * lazy.act.slope(lazy.before_act(channel, y)))
}

/// Adds to `totals`, for every channel of `len` values `[m][c]`, what `add(index, channel, sums)` adds row by row.
fn sums<const K: usize>(
    len: usize,
    mut totals: [&mut [f64]; K],
    mut add: impl FnMut(usize, usize, [f32; K]) -> [f32; K],
) {
    // Neighbours share a row's cache line.
    const CHANNELS: usize = 16;
    let c = totals[0].len();
    for block in (0..len).step_by(ROWS * c) {
        for first in (0..c).step_by(CHANNELS) {
            let channels = first..c.min(first + CHANNELS);
            let mut sums = [[0.0; K]; CHANNELS];
            for row in (block..len.min(block + ROWS * c)).step_by(c) {
                for (sums, channel) in sums.iter_mut().zip(channels.clone()) {
                    *sums = add(row + channel, channel, *sums);
                }
            }
            for (sums, channel) in sums.iter().zip(channels) {
                for (total, &sum) in totals.iter_mut().zip(sums) {
                    total[channel] += f64::from(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use std::{vec, vec::Vec};

    const ACTS: [Act; 8] = [
        Act::None,
        Act::Relu,
        Act::Relu6,
        Act::LeakyRelu(0.2),
        Act::HSwish,
        Act::HSigmoid,
        Act::Sigmoid,
        Act::Silu,
    ];

    /// Everything the module computes from one input.
    #[derive(PartialEq, Debug)]
    struct Results {
        maps: Vec<Vec<f32>>,
        sums: Vec<Vec<f64>>,
    }

    fn all(isa: Isa, c: usize, lazy: Option<&Lazy>, other: Option<&Lazy>, x: &[f32], de: &[f32]) -> Results {
        let mut maps = vec![vec![f32::NAN; x.len()]; 4];
        let mut sums = vec![vec![0.5; c]; 5];
        let [a, b, k] = [4, 5, 6].map(|seed| noise(c, seed));
        let [value, sum, dy, plain] = &mut maps[..] else { unreachable!() };
        let [total, square, s1, s2, bias] = &mut sums[..] else { unreachable!() };
        if let Some(lazy) = lazy {
            apply(isa, c, lazy, x, value);
        } else {
            value.fill(0.0);
        }
        apply_sum(isa, c, lazy, x, other, de, sum);
        moments(isa, c, &a, x, total, square);
        gradient_sums(isa, c, lazy, &b, de, x, s1, s2);
        gradient(isa, c, lazy, (&a, &b, &k), de, x, dy);
        activation_gradient(isa, c, lazy.map_or(Act::None, |l| l.act), de, x, plain, bias);
        Results { maps, sums }
    }

    #[test]
    fn fast_equals_scalar() {
        for c in [0, 1, 3, 8, 15, 16, 19, 24, 40, 72, 144] {
            let (scale, shift) = (noise(c, 1), noise(c, 2));
            for m in [0, 1, 5, 300] {
                let (x, de) = (noise(m * c, 3), noise(m * c, 4));
                let x: Vec<f32> = x.iter().map(|x| x * 4.0).collect();
                let relu6 = Lazy { scale: &shift, shift: &scale, act: Act::Relu6 };
                let mut cases = vec![(None, None), (None, Some(relu6))];
                for act in ACTS {
                    let lazy = Lazy { scale: &scale, shift: &shift, act };
                    cases.extend([(Some(lazy), None), (Some(lazy), Some(relu6))]);
                }
                for (lazy, other) in cases {
                    let act = lazy.map(|l| l.act);
                    let expected = all(Isa::scalar(), c, lazy.as_ref(), other.as_ref(), &x, &de);
                    for isa in Isa::available() {
                        let fast = all(isa, c, lazy.as_ref(), other.as_ref(), &x, &de);
                        assert!(fast == expected, "{isa:?} [{m}][{c}] {act:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn by_hand() {
        let lazy = Lazy { scale: &[2.0, 1.0], shift: &[-1.0, 0.0], act: Act::Relu };
        let x = [1.0, -3.0, 0.0, 5.0];
        for isa in Isa::available() {
            let mut y = [0.0; 4];
            apply(isa, 2, &lazy, &x, &mut y);
            assert_eq!(y, [1.0, 0.0, 0.0, 5.0]);
            apply_sum(isa, 2, Some(&lazy), &x, None, &[10.0, 20.0, 30.0, 40.0], &mut y);
            assert_eq!(y, [11.0, 20.0, 30.0, 45.0]);
            let (mut sum, mut square) = ([100.0, 0.0], [0.0, 1.0]);
            moments(isa, 2, &[1.0, 1.0], &x, &mut sum, &mut square);
            assert_eq!((sum, square), ([99.0, 0.0], [1.0, 33.0]));
            // g = 7, 0, 0, 10.
            let de = [7.0, 8.0, 9.0, 10.0];
            let (mut s1, mut s2) = ([0.0, 1.0], [0.0, 2.0]);
            gradient_sums(isa, 2, Some(&lazy), &[0.5, 1.0], &de, &x, &mut s1, &mut s2);
            assert_eq!((s1, s2), ([7.0, 11.0], [3.5, 42.0]));
            let coefficients: (&[f32], &[f32], &[f32]) = (&[1.0, 2.0], &[-1.0, 1.0], &[0.5, 0.0]);
            gradient(isa, 2, Some(&lazy), coefficients, &de, &x, &mut y);
            assert_eq!(y, [6.5, -3.0, 0.5, 25.0]);
            let mut bias = [0.0, 1.0];
            activation_gradient(isa, 2, Act::Relu6, &de, &[6.0, 5.0, 1.0, 0.0], &mut y, &mut bias);
            assert_eq!((y, bias), ([0.0, 8.0, 9.0, 0.0], [9.0, 9.0]));
        }
    }

    #[test]
    fn sums_may_be_cut_at_256_rows() {
        let c = 5;
        let (x, de, zero) = (noise(700 * c, 1), noise(700 * c, 2), vec![0.0; c]);
        let lazy = Lazy { scale: &noise(c, 3), shift: &noise(c, 4), act: Act::HSwish };
        let sums = |cuts: &[usize]| {
            let mut sums = vec![vec![0.0; c]; 5];
            let [sum, square, s1, s2, bias] = &mut sums[..] else { unreachable!() };
            for ends in cuts.windows(2) {
                let rows = ends[0] * c..ends[1] * c;
                let (x, de) = (&x[rows.clone()], &de[rows]);
                moments(Isa::detect(), c, &zero, x, sum, square);
                gradient_sums(Isa::detect(), c, Some(&lazy), &zero, de, x, s1, s2);
                activation_gradient(Isa::detect(), c, Act::Relu, de, x, &mut vec![0.0; x.len()], bias);
            }
            sums
        };
        assert_eq!(sums(&[0, 700]), sums(&[0, 256, 512, 700]));
        let exact: f64 = x.iter().step_by(c).map(|&x| f64::from(x)).sum();
        assert!((sums(&[0, 700])[0][0] - exact).abs() < 1e-3);
    }

    /// Loss Σ weight·act(γ(y−μ)/σ + β) of one channel, in f64.
    fn loss(act: Act, gamma: f64, beta: f64, y: &[f64], weight: &[f32]) -> f64 {
        let (mean, sigma) = statistics(y);
        let value = |u: f64| match act {
            Act::None => u,
            Act::Relu => u.max(0.0),
            Act::Relu6 => u.clamp(0.0, 6.0),
            Act::LeakyRelu(slope) => u.max(0.0) + u.min(0.0) * f64::from(slope),
            Act::HSwish => u * (u + 3.0).clamp(0.0, 6.0) / 6.0,
            Act::HSigmoid => (u + 3.0).clamp(0.0, 6.0) / 6.0,
            Act::Sigmoid => 1.0 / (1.0 + (-u).exp()),
            Act::Silu => u / (1.0 + (-u).exp()),
        };
        let term = |(y, &w): (&f64, &f32)| f64::from(w) * value(gamma * (y - mean) / sigma + beta);
        y.iter().zip(weight).map(term).sum()
    }

    fn statistics(y: &[f64]) -> (f64, f64) {
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        let variance = y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / y.len() as f64;
        (mean, (variance + 1e-5).sqrt())
    }

    #[test]
    fn gradient_equals_finite_differences() {
        const M: usize = 40;
        let (y, de) = (noise(M, 7), noise(M, 8));
        let wide: Vec<f64> = y.iter().map(|&y| f64::from(y)).collect();
        for act in ACTS {
            let (gamma, beta) = (2.5f64, 1.25f64);
            let (mean, sigma) = statistics(&wide);
            let scale = [(gamma / sigma) as f32];
            let shift = [(beta - mean * gamma / sigma) as f32];
            let lazy = Lazy { scale: &scale, shift: &shift, act };
            let (mut s1, mut s2) = ([0.0], [0.0]);
            gradient_sums(Isa::detect(), 1, Some(&lazy), &[mean as f32], &de, &y, &mut s1, &mut s2);
            let (dbeta, dgamma) = (s1[0], s2[0] / sigma);
            let a = gamma / sigma;
            let b = -a * dgamma / (M as f64 * sigma);
            let k = -a * dbeta / M as f64 - b * mean;
            let mut dy = [0.0; M];
            let coefficients: (&[f32], &[f32], &[f32]) = (&[a as f32], &[b as f32], &[k as f32]);
            gradient(Isa::detect(), 1, Some(&lazy), coefficients, &de, &y, &mut dy);
            const H: f64 = 1e-6;
            for (i, &dy) in dy.iter().enumerate() {
                let [high, low] = [H, -H].map(|h| {
                    let mut y = wide.clone();
                    y[i] += h;
                    loss(act, gamma, beta, &y, &de)
                });
                let expected = (high - low) / (2.0 * H);
                assert!((f64::from(dy) - expected).abs() < 1e-4, "{act:?} {i}: {dy} {expected}");
            }
            let by_gamma = loss(act, gamma + H, beta, &wide, &de) - loss(act, gamma - H, beta, &wide, &de);
            let by_beta = loss(act, gamma, beta + H, &wide, &de) - loss(act, gamma, beta - H, &wide, &de);
            assert!((dgamma - by_gamma / (2.0 * H)).abs() < 1e-3, "{act:?}");
            assert!((dbeta - by_beta / (2.0 * H)).abs() < 1e-3, "{act:?}");
        }
    }
}
