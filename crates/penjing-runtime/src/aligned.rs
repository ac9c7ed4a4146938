//! Values that start on a cache line, which vector loads like.

use alloc::{vec, vec::Vec};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// A run of values whose first one starts a cache line.
#[derive(Debug)]
pub struct Aligned {
    values: Vec<f32>,
    start: usize,
}

impl Aligned {
    /// So many zeros.
    pub fn zeros(len: usize) -> Self {
        let values = vec![0.0; len + LINE / size_of::<f32>()];
        let start = values.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Aligned { values, start }
    }

    /// Past the last value.
    fn end(&self) -> usize {
        self.start + self.values.len() - LINE / size_of::<f32>()
    }

    /// The values.
    pub fn get(&self) -> &[f32] {
        &self.values[self.start..self.end()]
    }

    /// The values, to be changed.
    pub fn get_mut(&mut self) -> &mut [f32] {
        let end = self.end();
        &mut self.values[self.start..end]
    }
}

impl From<&[f32]> for Aligned {
    fn from(values: &[f32]) -> Self {
        let mut aligned = Aligned::zeros(values.len());
        aligned.get_mut().copy_from_slice(values);
        aligned
    }
}

impl Clone for Aligned {
    /// The copy's memory lies elsewhere, so its start is found anew.
    fn clone(&self) -> Self {
        self.get().into()
    }
}

#[cfg(test)]
mod tests {
    use super::Aligned;

    #[test]
    fn copies_start_on_a_line_too() {
        for len in [0, 1, 15, 16, 1000] {
            let values: alloc::vec::Vec<f32> = (0..len).map(|i| i as f32).collect();
            let aligned = Aligned::from(&values[..]);
            for copy in [aligned.clone(), aligned] {
                assert_eq!(copy.get(), values);
                assert_eq!(copy.get().as_ptr() as usize % 64, 0);
            }
        }
    }
}
