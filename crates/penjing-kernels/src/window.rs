//! The geometry of a sliding window.

use core::ops::Range;

use crate::volume;

/// A window that slides over `[N,H,W,C]`: convolution, depthwise convolution and pooling alike.
///
/// Output position (oy, ox) sees input rows `oy·stride_h − pad_top + ky·dilation_h` for ky in `0..kernel_h`, and columns
/// likewise. Positions outside the input are padding. The output extents are the caller's choice (floor, ceil or "same"
/// rounding); the kernels skip whatever lies outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Window {
    /// Batch size.
    pub n: usize,
    pub in_h: usize,
    pub in_w: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub kernel_h: usize,
    pub kernel_w: usize,
    pub stride_h: usize,
    pub stride_w: usize,
    pub dilation_h: usize,
    pub dilation_w: usize,
    pub pad_top: usize,
    pub pad_bottom: usize,
    pub pad_left: usize,
    pub pad_right: usize,
}

impl Window {
    /// kernel_h · kernel_w.
    pub fn taps(&self) -> usize {
        volume(&[self.kernel_h, self.kernel_w])
    }

    /// n · out_h · out_w.
    pub fn out_pixels(&self) -> usize {
        volume(&[self.n, self.out_h, self.out_w])
    }

    /// Panics unless `x` is `[n,in_h,in_w,in_c]`, `y` is `[n,out_h,out_w,out_c]` and the window moves.
    pub(crate) fn check<T>(&self, in_c: usize, x: &[T], out_c: usize, y: &[T]) {
        assert!(self.stride_h > 0 && self.stride_w > 0 && self.dilation_h > 0 && self.dilation_w > 0);
        assert!(self.kernel_h > 0 && self.kernel_w > 0);
        assert_eq!(x.len(), volume(&[self.n, self.in_h, self.in_w, in_c]), "input length of {self:?}");
        assert_eq!(y.len(), volume(&[self.out_pixels(), out_c]), "output length of {self:?}");
        // No coordinate computed from the window may wrap.
        let reach = |extents: [usize; 4]| {
            let [out, stride, kernel, dilation] = extents;
            volume(&[out, stride]).checked_add(volume(&[kernel, dilation])).expect("window reaches too far")
        };
        reach([self.out_h, self.stride_h, self.kernel_h, self.dilation_h]);
        reach([self.out_w, self.stride_w, self.kernel_w, self.dilation_w]);
        assert!(
            self.pad_top.max(self.pad_bottom).max(self.pad_left).max(self.pad_right)
                <= isize::MAX as usize / 2
        );
    }

    /// The ky whose input row exists, for output row `oy`.
    #[inline]
    pub(crate) fn rows(&self, oy: usize) -> Range<usize> {
        inside(oy * self.stride_h, self.pad_top, self.in_h, self.kernel_h, self.dilation_h)
    }

    /// The kx whose input column exists, for output column `ox`.
    #[inline]
    pub(crate) fn columns(&self, ox: usize) -> Range<usize> {
        inside(ox * self.stride_w, self.pad_left, self.in_w, self.kernel_w, self.dilation_w)
    }

    /// The input row of an existing tap.
    #[inline]
    pub(crate) fn row(&self, oy: usize, ky: usize) -> usize {
        oy * self.stride_h + ky * self.dilation_h - self.pad_top
    }

    /// The input column of an existing tap.
    #[inline]
    pub(crate) fn column(&self, ox: usize, kx: usize) -> usize {
        ox * self.stride_w + kx * self.dilation_w - self.pad_left
    }
}

/// The taps t with `pad <= start + t·dilation < pad + size`.
#[inline]
fn inside(start: usize, pad: usize, size: usize, kernel: usize, dilation: usize) -> Range<usize> {
    let first = pad.saturating_sub(start).div_ceil(dilation).min(kernel);
    let end = (pad + size).saturating_sub(start).div_ceil(dilation).min(kernel);
    first..end.max(first)
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn taps_inside_by_definition() {
        for start in 0..12usize {
            for pad in 0..4 {
                for dilation in 1..4 {
                    let taps: std::vec::Vec<usize> =
                        (0..5).filter(|t| (pad..pad + 6).contains(&(start + t * dilation))).collect();
                    let range = inside(start, pad, 6, 5, dilation);
                    assert_eq!(range.clone().collect::<std::vec::Vec<_>>(), taps, "{start} {pad} {dilation}");
                    assert!(range.end <= 5);
                }
            }
        }
    }
}
