//! Operations value by value.

use crate::{Act, Isa, arch, fma, volume};

/// y = act(x).
pub fn activate(isa: Isa, act: Act, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    arch::select!(isa, activated(act, x, y));
}

/// y = act(a + b).
pub fn add(isa: Isa, act: Act, a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == y.len() && b.len() == y.len());
    arch::select!(isa, sum(act, a, b, y));
}

/// y = a · b.
pub fn multiply(isa: Isa, a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == y.len() && b.len() == y.len());
    arch::select!(isa, times(a, b, y));
}

/// y\[n,pixel,c\] = x\[n,pixel,c\] · scale\[n,c\].
pub fn scale_channels(isa: Isa, n: usize, pixels: usize, c: usize, x: &[f32], scale: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), volume(&[n, pixels, c]), "x is [n,pixels,c]");
    assert_eq!(y.len(), x.len());
    assert_eq!(scale.len(), volume(&[n, c]), "scale is [n,c]");
    if y.is_empty() {
        return;
    }
    let images = x.chunks_exact(pixels * c).zip(y.chunks_exact_mut(pixels * c));
    for ((x, y), scale) in images.zip(scale.chunks_exact(c)) {
        arch::select!(isa, scaled(x, scale, y));
    }
}

/// y += x.
pub fn accumulate(isa: Isa, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    arch::select!(isa, accumulated(x, y));
}

/// dscale\[n,c\] = Σ over the pixels, in ascending order, of dy·x, both `[n,pixels,c]`: the gradient of [`scale_channels`] by
/// its scale. (The one by x is `scale_channels` of dy.)
pub fn channel_products(
    isa: Isa,
    n: usize,
    pixels: usize,
    c: usize,
    dy: &[f32],
    x: &[f32],
    dscale: &mut [f32],
) {
    assert_eq!(x.len(), volume(&[n, pixels, c]), "x is [n,pixels,c]");
    assert_eq!(dy.len(), x.len());
    assert_eq!(dscale.len(), volume(&[n, c]), "dscale is [n,c]");
    if x.is_empty() {
        dscale.fill(0.0);
        return;
    }
    let images = dy.chunks_exact(pixels * c).zip(x.chunks_exact(pixels * c));
    for ((dy, x), dscale) in images.zip(dscale.chunks_exact_mut(c)) {
        arch::select!(isa, products(dy, x, dscale));
    }
}

/// The reference of [`activate`].
pub(crate) fn activated(act: Act, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = act.apply(x);
    }
}

/// The reference of [`add`].
pub(crate) fn sum(act: Act, a: &[f32], b: &[f32], y: &mut [f32]) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        *y = act.apply(a + b);
    }
}

/// The reference of [`multiply`].
pub(crate) fn times(a: &[f32], b: &[f32], y: &mut [f32]) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        *y = a * b;
    }
}

/// The reference of [`scale_channels`] for one image.
pub(crate) fn scaled(x: &[f32], scale: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(scale.len()).zip(y.chunks_exact_mut(scale.len())) {
        times(x, scale, y);
    }
}

/// The reference of [`accumulate`].
pub(crate) fn accumulated(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// The reference of [`channel_products`] for one image.
pub(crate) fn products(dy: &[f32], x: &[f32], dscale: &mut [f32]) {
    let c = dscale.len();
    dscale.fill(0.0);
    for (dy, x) in dy.chunks_exact(c).zip(x.chunks_exact(c)) {
        for ((sum, &dy), &x) in dscale.iter_mut().zip(dy).zip(x) {
            *sum = fma(dy, x, *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SPECIAL, alike, noise};
    use std::vec;

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

    #[test]
    fn fast_equals_scalar() {
        for len in [0, 1, 7, 16, 33, 100] {
            let (a, b) = (noise(len, 1), noise(len, 2));
            let a: vec::Vec<f32> = a.iter().map(|a| a * 4.0).collect();
            for act in ACTS {
                let (mut plain, mut fast) = (vec![0.0; len], vec![0.0; len]);
                for isa in Isa::available() {
                    activate(Isa::scalar(), act, &a, &mut plain);
                    activate(isa, act, &a, &mut fast);
                    assert!(plain == fast, "{isa:?} {act:?} {len}");
                    add(Isa::scalar(), act, &a, &b, &mut plain);
                    add(isa, act, &a, &b, &mut fast);
                    assert!(plain == fast, "{isa:?} {act:?} {len}");
                }
            }
            for isa in Isa::available() {
                let (mut plain, mut fast) = (vec![0.0; len], vec![0.0; len]);
                multiply(Isa::scalar(), &a, &b, &mut plain);
                multiply(isa, &a, &b, &mut fast);
                assert!(plain == fast, "{isa:?} {len}");
            }
            let x = noise(2 * 3 * len, 3);
            let scale = noise(2 * len, 4);
            for isa in Isa::available() {
                let (mut plain, mut fast) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                scale_channels(Isa::scalar(), 2, 3, len, &x, &scale, &mut plain);
                scale_channels(isa, 2, 3, len, &x, &scale, &mut fast);
                assert!(plain == fast, "{isa:?} {len}");
                accumulate(Isa::scalar(), &x, &mut plain);
                accumulate(isa, &x, &mut fast);
                assert!(plain == fast, "{isa:?} {len}");
                let (mut plain_sums, mut sums) = (vec![f32::NAN; 2 * len], vec![f32::NAN; 2 * len]);
                channel_products(Isa::scalar(), 2, 3, len, &plain, &x, &mut plain_sums);
                channel_products(isa, 2, 3, len, &plain, &x, &mut sums);
                assert!(plain_sums == sums, "{isa:?} {len}");
            }
        }
    }

    #[test]
    fn fast_equals_scalar_for_special_numbers() {
        let pairs = || SPECIAL.iter().flat_map(|&a| SPECIAL.map(|b| (a, b)));
        let (a, b): (vec::Vec<f32>, vec::Vec<f32>) = pairs().unzip();
        let (mut plain, mut fast) = (vec![0.0; a.len()], vec![0.0; a.len()]);
        for isa in Isa::available() {
            for act in ACTS {
                activate(Isa::scalar(), act, &a, &mut plain);
                activate(isa, act, &a, &mut fast);
                assert!(alike(&plain, &fast), "{isa:?} {act:?}");
                add(Isa::scalar(), act, &a, &b, &mut plain);
                add(isa, act, &a, &b, &mut fast);
                assert!(alike(&plain, &fast), "{isa:?} {act:?}");
            }
            multiply(Isa::scalar(), &a, &b, &mut plain);
            multiply(isa, &a, &b, &mut fast);
            assert!(alike(&plain, &fast), "{isa:?}");
        }
    }

    #[test]
    fn by_hand() {
        for isa in Isa::available() {
            let mut y = [0.0; 4];
            scale_channels(isa, 1, 2, 2, &[1.0, 2.0, 3.0, 4.0], &[10.0, -1.0], &mut y);
            assert_eq!(y, [10.0, -2.0, 30.0, -4.0]);
            add(isa, Act::Relu, &[1.0, -2.0, 3.0, 0.0], &[1.0, 1.0, -4.0, 0.5], &mut y);
            assert_eq!(y, [2.0, 0.0, 0.0, 0.5]);
            accumulate(isa, &[1.0, 2.0, 3.0, 4.0], &mut y);
            assert_eq!(y, [3.0, 2.0, 3.0, 4.5]);
            let mut dscale = [9.0; 2];
            channel_products(isa, 1, 2, 2, &[1.0, 2.0, 3.0, 4.0], &[10.0, -1.0, 0.5, 2.0], &mut dscale);
            assert_eq!(dscale, [11.5, 6.0]);
            channel_products(isa, 1, 0, 2, &[], &[], &mut dscale);
            assert_eq!(dscale, [0.0, 0.0]);
        }
    }
}
