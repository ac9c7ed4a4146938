//! Moving values without computing: concatenation, slicing, channel shuffle, padding.

use crate::volume;

/// Copies `count` channels of every pixel, from channel `x_from` of x `[pixels,x_channels]` to channel `y_from` of y
/// `[pixels,y_channels]`; the other channels of y stay. Concatenation and slicing are made of it.
pub fn copy_channels(
    pixels: usize,
    count: usize,
    x: &[f32],
    x_channels: usize,
    x_from: usize,
    y: &mut [f32],
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
pub fn shuffle(pixels: usize, channels: usize, groups: usize, x: &[f32], y: &mut [f32]) {
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
pub fn pad(n: usize, h: usize, w: usize, c: usize, border: [usize; 4], value: f32, x: &[f32], y: &mut [f32]) {
    let [top, bottom, left, right] = border;
    let sum = |parts: [usize; 3]| {
        parts.iter().try_fold(0usize, |s, &p| s.checked_add(p)).expect("border overflows")
    };
    let (out_h, out_w) = (sum([top, h, bottom]), sum([left, w, right]));
    assert_eq!(x.len(), volume(&[n, h, w, c]), "x is [n,h,w,c]");
    assert_eq!(y.len(), volume(&[n, out_h, out_w, c]), "y is the padded [n,h,w,c]");
    y.fill(value);
    if x.is_empty() {
        return;
    }
    for (row, x) in x.chunks_exact(w * c).enumerate() {
        let from = ((row / h * out_h + top + row % h) * out_w + left) * c;
        y[from..from + w * c].copy_from_slice(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
