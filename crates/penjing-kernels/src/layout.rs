//! Moving values without computing: concatenation, slicing, channel shuffle, padding.
//!
//! Their gradients move values too: of a concatenation, copy each part's channels back; of a slice, copy its channels into
//! zeros; of a shuffle with g groups of c channels, shuffle with c / g groups; of padding, crop.

use crate::volume;

/// Copies `count` channels of every pixel, from channel `x_from` of x `[pixels,x_channels]` to channel `y_from` of y
/// `[pixels,y_channels]`; the other channels of y stay. Concatenation and slicing are made of it.
pub fn copy_channels<T: Copy>(
    pixels: usize,
    count: usize,
    x: &[T],
    x_channels: usize,
    x_from: usize,
    y: &mut [T],
    y_channels: usize,
    y_from: usize,
) {
    assert_eq!(x.len(), volume(&[pixels, x_channels]), "x is [pixels,x_channels]");
    assert_eq!(y.len(), volume(&[pixels, y_channels]), "y is [pixels,y_channels]");
    assert!(x_from <= x_channels && count <= x_channels - x_from, "channels of x");
    assert!(y_from <= y_channels && count <= y_channels - y_from, "channels of y");
    if count == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(x_channels).zip(y.chunks_exact_mut(y_channels)) {
        y[y_from..y_from + count].copy_from_slice(&x[x_from..x_from + count]);
    }
}

/// Channel shuffle (arXiv 1707.01083): the channels of every pixel, read as `[groups][channels / groups]`, are transposed.
pub fn shuffle<T: Copy>(pixels: usize, channels: usize, groups: usize, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), volume(&[pixels, channels]), "x is [pixels,channels]");
    assert_eq!(y.len(), x.len());
    assert!(groups > 0 && channels.is_multiple_of(groups), "groups divide the channels");
    if channels == 0 {
        return;
    }
    let size = channels / groups;
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        for (i, y) in y.chunks_exact_mut(groups).enumerate() {
            for (group, y) in y.iter_mut().enumerate() {
                *y = x[group * size + i];
            }
        }
    }
}

/// Surrounds every image of x `[n,h,w,c]` with `value`: `border` is top, bottom, left, right, and y is
/// `[n, top + h + bottom, left + w + right, c]`.
pub fn pad<T: Copy>(
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    border: [usize; 4],
    value: T,
    x: &[T],
    y: &mut [T],
) {
    check_border(n, h, w, c, border, x, y);
    y.fill(value);
    for (inner, outer) in inner_rows(n, h, w, c, border) {
        y[outer..outer + w * c].copy_from_slice(&x[inner..inner + w * c]);
    }
}

/// Takes away what [`pad`] put around every image: y is `[n,h,w,c]`, x `[n, top + h + bottom, left + w + right, c]`.
pub fn crop<T: Copy>(n: usize, h: usize, w: usize, c: usize, border: [usize; 4], x: &[T], y: &mut [T]) {
    check_border(n, h, w, c, border, y, x);
    for (inner, outer) in inner_rows(n, h, w, c, border) {
        y[inner..inner + w * c].copy_from_slice(&x[outer..outer + w * c]);
    }
}

fn check_border<T>(
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    [top, bottom, left, right]: [usize; 4],
    inner: &[T],
    outer: &[T],
) {
    let sum = |parts: [usize; 3]| {
        parts.iter().try_fold(0usize, |s, &p| s.checked_add(p)).expect("border overflows")
    };
    let (out_h, out_w) = (sum([top, h, bottom]), sum([left, w, right]));
    assert_eq!(inner.len(), volume(&[n, h, w, c]), "the inner map is [n,h,w,c]");
    assert_eq!(outer.len(), volume(&[n, out_h, out_w, c]), "the outer map is the padded [n,h,w,c]");
}

/// Where each row of w pixels begins in the inner and in the outer map.
fn inner_rows(
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    [top, bottom, left, right]: [usize; 4],
) -> impl Iterator<Item = (usize, usize)> {
    let rows = if w * c == 0 { 0 } else { n * h };
    (0..rows).map(move |row| {
        let outer = row / h * (top + h + bottom) + top + row % h;
        (row * w * c, (outer * (left + w + right) + left) * c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use std::vec;

    #[test]
    fn channels_are_copied_in_place() {
        let mut y = [0.0; 6];
        copy_channels(2, 1, &[1.0, 2.0, 3.0, 4.0], 2, 1, &mut y, 3, 2);
        assert_eq!(y, [0.0, 0.0, 2.0, 0.0, 0.0, 4.0]);
    }

    #[test]
    fn shuffle_transposes_groups() {
        let mut y = [0.0; 6];
        shuffle(1, 6, 2, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &mut y);
        assert_eq!(y, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn pad_surrounds_each_image() {
        let mut y = [9.0; 12];
        pad(2, 1, 1, 1, [1, 0, 0, 2], 7.0, &[1.0, 2.0], &mut y);
        assert_eq!(y, [7.0, 7.0, 7.0, 1.0, 7.0, 7.0, 7.0, 7.0, 7.0, 2.0, 7.0, 7.0]);
    }

    #[test]
    fn crop_undoes_pad() {
        for border in [[0; 4], [1, 0, 2, 3], [0, 2, 1, 0]] {
            let [top, bottom, left, right] = border;
            let (n, h, w, c) = (2, 3, 4, 5);
            let x = noise(n * h * w * c, 1);
            let mut padded = vec![0.0; n * (h + top + bottom) * (w + left + right) * c];
            let mut back = vec![0.0; x.len()];
            pad(n, h, w, c, border, 7.0, &x, &mut padded);
            crop(n, h, w, c, border, &padded, &mut back);
            assert_eq!(back, x);
        }
        crop(1, 0, 1, 1, [1; 4], &[0u8; 6], &mut []);
    }

    #[test]
    fn shuffling_with_the_other_factor_undoes_a_shuffle() {
        let x = noise(2 * 12, 1);
        let (mut y, mut back) = ([0.0; 24], [0.0; 24]);
        shuffle(2, 12, 3, &x, &mut y);
        shuffle(2, 12, 4, &y, &mut back);
        assert!(x != y && x == back);
    }
}
