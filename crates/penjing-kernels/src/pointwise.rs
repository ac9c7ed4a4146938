//! Pointwise (1×1) convolution and fully connected layers: a matrix product whose weights are packed once.

use crate::{
    Act, Isa, Workers, arch, fma, volume,
    workers::{MAX_PIECES, Shared, View, dispatch, part, pieces, split_rows},
};

/// Outputs per panel of packed weights.
pub const PANEL: usize = 16;

/// Length of packed weights: per panel of 16 outputs 16 biases, then `[k][16]` weights.
pub fn packed_len(n: usize, k: usize) -> usize {
    volume(&[n.div_ceil(PANEL), panel_len(k)])
}

/// Packs `weights` `[n][k]` and `bias` `[n]` (none: zeros) for [`run`]. The layout is the same for every instruction set.
/// The kernels are fastest if the packed slice starts at a multiple of 64 bytes.
pub fn pack(n: usize, k: usize, weights: &[f32], bias: Option<&[f32]>, packed: &mut [f32]) {
    assert_eq!(weights.len(), volume(&[n, k]), "weights are [n][k]");
    assert!(bias.is_none_or(|b| b.len() == n), "bias is [n]");
    assert_eq!(packed.len(), packed_len(n, k), "packed_len(n, k)");
    packed.fill(0.0);
    for (panel, packed) in packed.chunks_exact_mut(panel_len(k)).enumerate() {
        let outputs = panel * PANEL..n.min((panel + 1) * PANEL);
        let (first, packed) = packed.split_at_mut(PANEL);
        if let Some(bias) = bias {
            first[..outputs.len()].copy_from_slice(&bias[outputs.clone()]);
        }
        // In squares, so that the strided side stays in the first-level cache.
        for (square, packed) in packed.chunks_mut(PANEL * PANEL).enumerate() {
            for (j, output) in outputs.clone().enumerate() {
                let weights = &weights[output * k + square * PANEL..];
                for (packed, &w) in packed.chunks_exact_mut(PANEL).zip(weights) {
                    packed[j] = w;
                }
            }
        }
    }
}

/// Packs the transpose of `weights` `[n][k]`, without bias, into `packed_len(k, n)`: [`run`] with n and k exchanged then
/// gives the input gradient dx\[m\]\[k\] = Σₙ dy\[m\]\[n\]·w\[n\]\[k\].
pub fn pack_transposed(n: usize, k: usize, weights: &[f32], packed: &mut [f32]) {
    assert_eq!(weights.len(), volume(&[n, k]), "weights are [n][k]");
    assert_eq!(packed.len(), packed_len(k, n), "packed_len(k, n)");
    packed.fill(0.0);
    for (panel, packed) in packed.chunks_exact_mut(panel_len(n)).enumerate() {
        let first = panel * PANEL;
        let count = PANEL.min(k - first);
        for (row, packed) in packed[PANEL..].chunks_exact_mut(PANEL).enumerate() {
            let weights = &weights[row * k + first..][..count];
            if let Ok(whole) = <&[f32; PANEL]>::try_from(weights) {
                packed.copy_from_slice(whole);
            } else {
                packed[..count].copy_from_slice(weights);
            }
        }
    }
}

/// y\[m\]\[n\] = act(bias\[n\] + Σₖ x\[m\]\[k\]·w\[n\]\[k\] + residual\[m\]\[n\]), with `packed` from [`pack`].
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    m: usize,
    k: usize,
    n: usize,
    act: Act,
    x: &[f32],
    packed: &[f32],
    residual: Option<&[f32]>,
    y: &mut [f32],
) {
    assert_eq!(x.len(), volume(&[m, k]), "x is [m][k]");
    assert_eq!(packed.len(), packed_len(n, k), "packed_len(n, k)");
    assert_eq!(y.len(), volume(&[m, n]), "y is [m][n]");
    assert!(residual.is_none_or(|r| r.len() == y.len()), "residual is [m][n]");
    let macs = m.saturating_mul(k).saturating_mul(n);
    if packed.len() <= x.len() {
        split_rows(workers, y, n, ROW_GRAIN, macs, &|rows, y, _| {
            let x = &x[rows.start * k..rows.end * k];
            let residual = residual.map(|r| &r[rows.start * n..rows.end * n]);
            // SAFETY: the part belongs to this piece alone, and the view is all of it.
            let y = unsafe { Shared::new(y).view(0, rows.len(), n, n) };
            block(isa, &Block { k, x, x_stride: k, runs: 1, run_stride: 0, packed, act, residual }, y);
        });
    } else {
        // A core then reads its own weights only.
        let pieces = pieces(n.div_ceil(COLUMN_GRAIN), macs).min(MAX_PIECES);
        let y = Shared::new(y);
        dispatch(workers, pieces, &|piece, _| {
            let columns = part(piece, pieces, n, COLUMN_GRAIN);
            let first = columns.start / PANEL;
            let packed = &packed[first * panel_len(k)..columns.end.div_ceil(PANEL) * panel_len(k)];
            let residual = residual.map(|r| &r[columns.start..]);
            // SAFETY: pieces have disjoint columns, and `dispatch` runs a piece once.
            let y = unsafe { y.view(columns.start, m, columns.len(), n) };
            block(isa, &Block { k, x, x_stride: k, runs: 1, run_stride: 0, packed, act, residual }, y);
        });
    }
}

/// dw\[n\]\[k\] += Σₘ dy\[m\]\[n\]·x\[m\]\[k\], one chain per element that starts at the given dw and takes m ascending.
pub fn weight_gradient(
    isa: Isa,
    workers: &dyn Workers,
    m: usize,
    n: usize,
    k: usize,
    dy: &[f32],
    x: &[f32],
    dw: &mut [f32],
) {
    assert_eq!(dy.len(), volume(&[m, n]), "dy is [m][n]");
    assert_eq!(x.len(), volume(&[m, k]), "x is [m][k]");
    assert_eq!(dw.len(), volume(&[n, k]), "dw is [n][k]");
    let macs = m.saturating_mul(k).saturating_mul(n);
    let by_columns = k >= n;
    let (total, grain) = if by_columns { (k, 4 * PANEL) } else { (n, 6) };
    let pieces = pieces(total.div_ceil(grain), macs);
    let dw = Shared::new(dw);
    dispatch(workers, pieces, &|piece, _| {
        let range = part(piece, pieces, total, grain);
        let (rows, columns) = if by_columns { (0..n, range) } else { (range, 0..k) };
        if rows.is_empty() || columns.is_empty() || m == 0 {
            return;
        }
        // SAFETY: pieces have disjoint rows or columns, and `dispatch` runs a piece once.
        let dw = unsafe { dw.view(rows.start * k + columns.start, rows.len(), columns.len(), k) };
        gradient_block(isa, &Gradient { m, n, k, dy: &dy[rows.start..], x: &x[columns.start..] }, dw);
    });
}

/// Weights up to this length stay in half of a second-level cache of 1 MiB while rows pass by.
pub(crate) const RESIDENT: usize = 128 * 1024;
/// Whole tiles of AVX-512: of 14 rows, and of 7.
const ROW_GRAIN: usize = 56;
/// Two and three adjacent panels divide it.
const COLUMN_GRAIN: usize = 6 * PANEL;

pub(crate) const fn panel_len(k: usize) -> usize {
    // A `k` that wraps here has failed in `packed_len`'s caller: no slice is that long.
    PANEL.wrapping_add(PANEL.wrapping_mul(k))
}

/// What one piece of a product needs beside its rectangle of y, `rows` x `columns`.
pub(crate) struct Block<'a> {
    pub k: usize,
    /// A row of x is `runs` runs of k / `runs` neighbouring values.
    pub x: &'a [f32],
    /// From row to row.
    pub x_stride: usize,
    /// At least 1.
    pub runs: usize,
    /// From run to run of a row.
    pub run_stride: usize,
    /// The panels of the rectangle's columns.
    pub packed: &'a [f32],
    pub act: Act,
    /// From the rectangle's first value on, with the row stride of y.
    pub residual: Option<&'a [f32]>,
}

/// Computes one rectangle of y.
pub(crate) fn block(isa: Isa, block: &Block, y: View) {
    if y.rows() == 0 || y.columns() == 0 {
        return;
    }
    let run = block.k / block.runs;
    assert!(run * block.runs == block.k);
    assert!(block.x.len() >= (y.rows() - 1) * block.x_stride + (block.runs - 1) * block.run_stride + run);
    assert!(block.packed.len() == y.columns().div_ceil(PANEL) * panel_len(block.k));
    assert!(block.residual.is_none_or(|r| r.len() >= (y.rows() - 1) * y.stride() + y.columns()));
    arch::select!(isa, product(block, y));
}

/// The reference of the product.
pub(crate) fn product(block: &Block, mut y: View) {
    let (k, stride) = (block.k, y.stride());
    for row in 0..y.rows() {
        let x = &block.x[row * block.x_stride..];
        let y = y.row(row);
        for (panel, packed) in block.packed.chunks_exact(panel_len(k)).enumerate() {
            let (bias, weights) = packed.split_at(PANEL);
            let mut sums = [0.0; PANEL];
            sums.copy_from_slice(bias);
            let run = k / block.runs;
            for (i, weights) in weights.chunks_exact((run * PANEL).max(1)).enumerate() {
                let x = &x[i * block.run_stride..][..run];
                for (&x, w) in x.iter().zip(weights.chunks_exact(PANEL)) {
                    for (sum, &w) in sums.iter_mut().zip(w) {
                        *sum = fma(x, w, *sum);
                    }
                }
            }
            let first = panel * PANEL;
            for (j, y) in y[first..].iter_mut().take(PANEL).enumerate() {
                let rest = block.residual.map_or(sums[j], |r| sums[j] + r[row * stride + first + j]);
                *y = block.act.apply(rest);
            }
        }
    }
}

/// What one piece of a weight gradient needs beside its rectangle of dw.
pub(crate) struct Gradient<'a> {
    pub m: usize,
    /// Row stride of dy.
    pub n: usize,
    /// Row stride of x.
    pub k: usize,
    /// From the rectangle's first row on.
    pub dy: &'a [f32],
    /// From the rectangle's first column on.
    pub x: &'a [f32],
}

/// Adds to one rectangle of dw.
pub(crate) fn gradient_block(isa: Isa, job: &Gradient, dw: View) {
    if job.m == 0 || dw.rows() == 0 || dw.columns() == 0 {
        return;
    }
    assert!(job.dy.len() >= (job.m - 1) * job.n + dw.rows());
    assert!(job.x.len() >= (job.m - 1) * job.k + dw.columns());
    arch::select!(isa, gradient(job, dw));
}

/// The reference of the weight gradient.
pub(crate) fn gradient(g: &Gradient, mut dw: View) {
    for row in 0..dw.rows() {
        let dw = dw.row(row);
        for i in 0..g.m {
            let dy = g.dy[i * g.n + row];
            for (dw, &x) in dw.iter_mut().zip(&g.x[i * g.k..]) {
                *dw = fma(dy, x, *dw);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial,
        testing::{Team, noise},
    };
    use std::{vec, vec::Vec};

    fn packed(n: usize, k: usize, seed: u32) -> Vec<f32> {
        let mut packed = vec![f32::NAN; packed_len(n, k)];
        pack(n, k, &noise(n * k, seed), Some(&noise(n, seed + 1)), &mut packed);
        packed
    }

    #[test]
    fn by_hand() {
        let mut packed = vec![0.0; packed_len(2, 3)];
        pack(2, 3, &[1.0, 2.0, 3.0, -1.0, 0.5, 4.0], Some(&[10.0, -20.0]), &mut packed);
        for isa in Isa::available() {
            let mut y = [0.0; 4];
            let x = [1.0, 1.0, 1.0, 2.0, 0.0, -1.0];
            run(isa, &Serial, 2, 3, 2, Act::None, &x, &packed, Some(&[0.0, 1.0, 2.0, 3.0]), &mut y);
            assert_eq!(y, [16.0, -15.5, 11.0, -23.0]);
            run(isa, &Serial, 2, 3, 2, Act::Relu6, &x, &packed, None, &mut y);
            assert_eq!(y, [6.0, 0.0, 6.0, 0.0]);
        }
    }

    #[test]
    fn fast_equals_scalar() {
        // Every row count of a tile over every number of vectors.
        let tiles = (1..=16).flat_map(|m| [4, 8, 12, 16, 32, 48].map(|n| (m, 7, n)));
        let shapes = tiles.chain((1..=33).map(|m| (m, 5 + m % 4, 10 + 3 * m))).chain([
            (49, 64, 48),
            (113, 17, 96),
            (1, 300, 1000),
            (2, 1, 1),
            (57, 0, 40),
            (3, 40, 80),
            (0, 4, 4),
            (200, 33, 112),
            (60, 512, 300),
            // Weights beyond `RESIDENT`, and less than x.
            (300, 520, 256),
        ]);
        let acts =
            [Act::None, Act::Relu6, Act::HSwish, Act::Silu, Act::LeakyRelu(0.1), Act::Relu, Act::HSigmoid];
        for (i, (m, k, n)) in shapes.enumerate() {
            let act = acts[i % acts.len()];
            let (x, packed, r) = (noise(m * k, 1), packed(n, k, 2), noise(m * n, 3));
            let residual = (i % 3 == 0).then_some(&r[..]);
            let mut expected = vec![0.0; m * n];
            run(Isa::scalar(), &Serial, m, k, n, act, &x, &packed, residual, &mut expected);
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Team(3)] {
                    let mut y = vec![f32::NAN; m * n];
                    run(isa, workers, m, k, n, act, &x, &packed, residual, &mut y);
                    assert!(y == expected, "{isa:?} {m}x{k}x{n} {act:?}");
                }
            }
        }
    }

    #[test]
    fn input_gradient_by_definition() {
        for (m, n, k) in [(3, 2, 5), (5, 16, 16), (7, 33, 17), (2, 40, 96), (1, 0, 4), (4, 3, 0)] {
            let (dy, weights) = (noise(m * n, 1), noise(n * k, 2));
            let mut packed = vec![f32::NAN; packed_len(k, n)];
            pack_transposed(n, k, &weights, &mut packed);
            let mut expected = vec![0.0; m * k];
            for row in 0..m {
                for i in 0..n {
                    for j in 0..k {
                        let dx = &mut expected[row * k + j];
                        *dx = fma(dy[row * n + i], weights[i * k + j], *dx);
                    }
                }
            }
            for isa in Isa::available() {
                let mut dx = vec![f32::NAN; m * k];
                run(isa, &Serial, m, n, k, Act::None, &dy, &packed, None, &mut dx);
                assert!(dx == expected, "{isa:?} {m} {n} {k}");
            }
        }
    }

    #[test]
    fn gradient_by_hand() {
        for isa in Isa::available() {
            let mut dw = [100.0, 0.0, 0.0, 0.0];
            weight_gradient(isa, &Serial, 2, 2, 2, &[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0, 2.0, 20.0], &mut dw);
            assert_eq!(dw, [107.0, 70.0, 10.0, 100.0]);
        }
    }

    #[test]
    fn fast_gradient_equals_scalar() {
        // Every row count of a tile over every number of vectors, whole and cut short.
        let tiles = (1..=16).flat_map(|n| [1, 8, 12, 16, 27, 32, 40, 48, 64, 80].map(|k| (9, n, k)));
        for (m, n, k) in tiles.chain([
            (300, 2, 130),
            (5, 7, 16),
            (40, 100, 33),
            (257, 13, 200),
            (3, 1, 1),
            (0, 2, 2),
            (600, 9, 72),
        ]) {
            let (dy, x, dw) = (noise(m * n, 1), noise(m * k, 2), noise(n * k, 3));
            let mut expected = dw.clone();
            weight_gradient(Isa::scalar(), &Serial, m, n, k, &dy, &x, &mut expected);
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Team(3)] {
                    let mut fast = dw.clone();
                    weight_gradient(isa, workers, m, n, k, &dy, &x, &mut fast);
                    assert!(fast == expected, "{isa:?} {m} {n} {k}");
                }
            }
        }
    }
}
