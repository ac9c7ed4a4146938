//! What the tests of all operations share: repeatable numbers and a real thread team.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    vec::Vec,
};

use crate::{Window, Workers};

/// `len` repeatable values in (-2, 2).
pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}

/// Numbers of which arithmetic has its own opinion.
pub const SPECIAL: [f32; 12] = [
    f32::NAN,
    0.0,
    -0.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    // Too small for a normal number.
    1e-40,
    -1e-40,
    6.0,
    -3.0,
];

/// Equal to the sign of zero, and NaN where the other is NaN.
pub fn alike(a: &[f32], b: &[f32]) -> bool {
    let bits = |v: f32| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() };
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| bits(a) == bits(b))
}

/// Runs pieces on this many scoped threads.
pub struct Team(pub usize);

impl Workers for Team {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..self.0 {
                let next = &next;
                scope.spawn(move || {
                    loop {
                        let piece = next.fetch_add(1, Ordering::Relaxed);
                        if piece >= pieces {
                            break;
                        }
                        task(piece, worker);
                    }
                });
            }
        });
    }
}

/// A square window with the usual (floor) output extents.
pub fn window(
    n: usize,
    in_h: usize,
    in_w: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
) -> Window {
    let out = |size: usize| (size + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
    Window {
        n,
        in_h,
        in_w,
        out_h: out(in_h),
        out_w: out(in_w),
        kernel_h: kernel,
        kernel_w: kernel,
        stride_h: stride,
        stride_w: stride,
        dilation_h: dilation,
        dilation_w: dilation,
        pad_top: pad,
        pad_bottom: pad,
        pad_left: pad,
        pad_right: pad,
    }
}
