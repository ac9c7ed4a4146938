//! Arrays for the kernels to work on.

/// Values that start at a multiple of 64 bytes.
pub struct Buffer {
    values: Vec<f32>,
    from: usize,
    len: usize,
}

impl Buffer {
    /// Values of ±0.5.
    pub fn noise(len: usize) -> Buffer {
        let values: Vec<f32> = (0..len + 16).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect();
        let from = values.as_ptr().align_offset(64);
        Buffer { values, from, len }
    }

    pub fn get(&self) -> &[f32] {
        &self.values[self.from..self.from + self.len]
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.from..self.from + self.len]
    }
}
