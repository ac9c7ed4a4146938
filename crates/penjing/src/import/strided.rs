//! From raw little-endian bytes, read through a size, a stride and an offset, to a dense [`Tensor`].

use half::{bf16, f16};
use penjing_runtime::tensor::{Data, Tensor};

use super::globals::Dtype;
use super::{MAX_TENSOR_BYTES, What};

/// Most dimensions of a tensor; images need four.
pub(super) const MAX_RANK: usize = 16;

/// A window on a storage: element `(i, j, …)` stands at `offset + i * stride[0] + j * stride[1] + …`, in
/// elements.
#[derive(Debug)]
pub(super) struct View {
    pub(super) dtype: Dtype,
    pub(super) offset: usize,
    pub(super) size: Vec<usize>,
    /// As many as `size`.
    pub(super) stride: Vec<usize>,
}

/// What all tensors of one file may still take up together, in bytes. Views may overlap (a tied or expanded
/// tensor stands in the file once), so the file's length alone is no bound.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    /// For a file whose storages hold `stored` bytes: room for sharing and for widening to 32 bits.
    pub(super) fn new(stored: usize) -> Self {
        Budget(stored.saturating_mul(4).saturating_add(16 << 20).min(MAX_TENSOR_BYTES))
    }

    pub(super) fn spend(&mut self, bytes: usize) -> What<()> {
        self.0 = self.0.checked_sub(bytes).ok_or("unfolds to far more numbers than the file holds")?;
        Ok(())
    }
}

impl View {
    /// A window that shows a whole storage in row-major order.
    pub(super) fn dense(dtype: Dtype, size: &[usize]) -> Self {
        let mut stride = vec![1usize; size.len()];
        for i in (1..size.len()).rev() {
            stride[i - 1] = stride[i].saturating_mul(size[i]);
        }
        View { dtype, offset: 0, size: size.to_vec(), stride }
    }

    /// The tensor, or `None` where the element type is none of a weight. `f16` stays, other floats become
    /// `f32`.
    pub(super) fn tensor(&self, storage: &[u8], budget: &mut Budget) -> What<Option<Tensor>> {
        let data = match self.dtype {
            Dtype::Other(_) => return Ok(None),
            Dtype::F16 => Data::F16(self.gather(storage, budget, f16::from_le_bytes)?),
            Dtype::Bf16 => Data::F32(self.gather(storage, budget, |b| bf16::from_le_bytes(b).to_f32())?),
            Dtype::F32 => Data::F32(self.gather(storage, budget, f32::from_le_bytes)?),
            Dtype::F64 => Data::F32(self.gather(storage, budget, |b| f64::from_le_bytes(b) as f32)?),
        };
        Ok(Some(Tensor { shape: self.size.clone(), data }))
    }

    fn gather<const N: usize, T>(
        &self,
        storage: &[u8],
        budget: &mut Budget,
        value: impl Fn([u8; N]) -> T,
    ) -> What<Vec<T>> {
        let (elements, _) = storage.as_chunks::<N>();
        let count = self.count().ok_or("has a shape that overflows")?;
        budget.spend(count.checked_mul(size_of::<T>()).ok_or("has a shape that overflows")?)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let last = self.last().filter(|&last| last < elements.len()).ok_or_else(|| {
            format!("reaches beyond its storage of {} numbers; the file is damaged", elements.len())
        })?;
        if self.is_dense() {
            return Ok(elements[self.offset..=last].iter().map(|&bytes| value(bytes)).collect());
        }
        let mut out = Vec::with_capacity(count);
        let mut index = vec![0; self.size.len()];
        let mut at = self.offset;
        loop {
            out.push(value(elements[at]));
            // Count up like an odometer, from the innermost dimension.
            let mut axis = self.size.len();
            loop {
                if axis == 0 {
                    return Ok(out);
                }
                axis -= 1;
                index[axis] += 1;
                if index[axis] < self.size[axis] {
                    at += self.stride[axis];
                    break;
                }
                at -= (self.size[axis] - 1) * self.stride[axis];
                index[axis] = 0;
            }
        }
    }

    /// Number of elements. The extents' product must be representable even where one of them is zero.
    fn count(&self) -> Option<usize> {
        let product = self.size.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent.max(1)))?;
        Some(if self.size.contains(&0) { 0 } else { product })
    }

    /// Index of the last element in the storage, for a view that is not empty.
    fn last(&self) -> Option<usize> {
        self.size.iter().zip(&self.stride).try_fold(self.offset, |at, (&extent, &stride)| {
            at.checked_add(extent.checked_sub(1)?.checked_mul(stride)?)
        })
    }

    /// Whether the elements follow one another in row-major order. The stride of an extent of one does not
    /// matter.
    fn is_dense(&self) -> bool {
        let mut step = 1usize;
        self.size.iter().zip(&self.stride).rev().all(|(&extent, &stride)| {
            let fits = extent == 1 || stride == step;
            step = step.saturating_mul(extent);
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A storage of the numbers 0, 1, 2, … seen through a window.
    fn seen(stored: u16, offset: usize, size: &[usize], stride: &[usize]) -> What<Vec<f32>> {
        let storage: Vec<u8> = (0..stored).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        let view = View { dtype: Dtype::F32, offset, size: size.to_vec(), stride: stride.to_vec() };
        let tensor = view.tensor(&storage, &mut Budget::new(storage.len()))?.ok_or("no float")?;
        assert_eq!(tensor.shape, size);
        Ok(tensor.to_f32())
    }

    #[test]
    fn windows_show_the_elements_they_should() {
        assert_eq!(seen(6, 0, &[2, 3], &[3, 1]).unwrap(), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(seen(6, 0, &[3, 2], &[1, 3]).unwrap(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(seen(6, 1, &[2, 2], &[3, 1]).unwrap(), [1., 2., 4., 5.]);
        assert_eq!(seen(6, 5, &[], &[]).unwrap(), [5.]);
        assert_eq!(seen(6, 5, &[1, 1], &[7, 9]).unwrap(), [5.]);
        assert_eq!(seen(6, 2, &[2, 2], &[0, 1]).unwrap(), [2., 3., 2., 3.]);
        assert_eq!(seen(0, 0, &[3, 0], &[1, 1]).unwrap(), [0.; 0]);
    }

    #[test]
    fn windows_beyond_the_storage_and_beyond_reason_are_refused() {
        for (offset, size, stride) in [
            (6, &[1][..], &[1][..]),
            (1, &[2, 3], &[3, 1]),
            (0, &[2], &[6]),
            (usize::MAX, &[2], &[1]),
            (0, &[2], &[usize::MAX]),
            (0, &[usize::MAX, 2], &[0, 0]),
            (0, &[usize::MAX, 2, 0], &[0, 0, 0]),
            (0, &[1 << 30], &[0]),
        ] {
            assert!(seen(6, offset, size, stride).is_err(), "{offset} {size:?} {stride:?}");
        }
    }
}
