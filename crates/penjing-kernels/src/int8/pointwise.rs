//! Pointwise (1×1) convolution and fully connected layers.

use super::{
    Channel, HEAD, Limits, MAX_K, PANEL, WEIGHT_SUMS, check_weights, quad, read_head, unquad, write_head,
};
use crate::{
    Isa, Workers, arch, volume,
    workers::{MAX_PIECES, Shared, View, dispatch, part, pieces, split_rows},
};

/// Length of packed weights in words: per panel of 16 outputs what belongs to each of them, then `[k / 4][16]` quads of
/// weights.
pub fn packed_len(n: usize, k: usize) -> usize {
    volume(&[n.div_ceil(PANEL), panel_len(k)])
}

/// Packs `weights` `[n][k]` and `channels` `[n]` for [`run`]. The layout is the same for every instruction set.
/// The kernels are fastest if the packed slice starts at a multiple of 64 bytes.
pub fn pack(n: usize, k: usize, weights: &[i8], channels: &[Channel], packed: &mut [i32]) {
    assert_eq!(channels.len(), n, "channels are [n]");
    pack_with(n, k, weights, packed, |head, output, lane, sum| write_head(head, lane, channels[output], sum));
}

/// Packs `weights` `[n][k]`, `offsets` `[n]` and `scales` `[n]` for [`run_floats`].
pub fn pack_floats(n: usize, k: usize, weights: &[i8], offsets: &[i32], scales: &[f32], packed: &mut [i32]) {
    assert!(offsets.len() == n && scales.len() == n, "offsets and scales are [n]");
    pack_with(n, k, weights, packed, |head, output, lane, sum| {
        head[lane] = offsets[output];
        head[PANEL + lane] = scales[output].to_bits() as i32;
        head[WEIGHT_SUMS + lane] = sum;
    });
}

/// `write(head, output, lane, Σ weights)` writes what belongs to an output.
fn pack_with(
    n: usize,
    k: usize,
    weights: &[i8],
    packed: &mut [i32],
    write: impl Fn(&mut [i32], usize, usize, i32),
) {
    assert!(k <= MAX_K, "sums of {k} products may leave 32 bits");
    assert_eq!(weights.len(), volume(&[n, k]), "weights are [n][k]");
    assert_eq!(packed.len(), packed_len(n, k), "packed_len(n, k)");
    check_weights(weights);
    packed.fill(0);
    for (panel, packed) in packed.chunks_exact_mut(panel_len(k)).enumerate() {
        let (head, quads) = packed.split_at_mut(HEAD);
        for (lane, output) in (panel * PANEL..n.min((panel + 1) * PANEL)).enumerate() {
            let weights = &weights[output * k..(output + 1) * k];
            write(head, output, lane, weights.iter().map(|&w| i32::from(w)).sum());
            for (quads, four) in quads.chunks_exact_mut(PANEL).zip(weights.chunks(4)) {
                let mut whole = [0; 4];
                whole[..four.len()].copy_from_slice(four);
                quads[lane] = quad(whole);
            }
        }
    }
}

/// y\[m\]\[n\] = the byte of Σₖ x\[m\]\[k\]·w\[n\]\[k\], with `packed` from [`pack`].
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    m: usize,
    k: usize,
    n: usize,
    limits: Limits,
    x: &[u8],
    packed: &[i32],
    y: &mut [u8],
) {
    split(workers, m, k, n, x, packed, y, &|x, packed, y| {
        block(isa, &Block { k, x, x_stride: k, packed, limits }, y);
    });
}

/// y\[m\]\[n\] = (Σₖ x\[m\]\[k\]·w\[n\]\[k\] + offset\[n\]) · scale\[n\], with `packed` from [`pack_floats`]: logits, or a
/// layer whose result stays in f32.
pub fn run_floats(
    isa: Isa,
    workers: &dyn Workers,
    m: usize,
    k: usize,
    n: usize,
    x: &[u8],
    packed: &[i32],
    y: &mut [f32],
) {
    split(workers, m, k, n, x, packed, y, &|x, packed, y| {
        let block = Block { k, x, x_stride: k, packed, limits: Limits::NONE };
        float_block(isa, &block, y);
    });
}

/// Gets rows of x, panels, and their rectangle of y.
type Task<'a, T> = dyn Fn(&[u8], &[i32], View<T>) + Sync + 'a;

/// Splits a product between workers.
fn split<T: Send>(
    workers: &dyn Workers,
    m: usize,
    k: usize,
    n: usize,
    x: &[u8],
    packed: &[i32],
    y: &mut [T],
    task: &Task<T>,
) {
    assert_eq!(x.len(), volume(&[m, k]), "x is [m][k]");
    assert_eq!(packed.len(), packed_len(n, k), "packed_len(n, k)");
    assert_eq!(y.len(), volume(&[m, n]), "y is [m][n]");
    let macs = m.saturating_mul(k).saturating_mul(n) / MACS;
    if size_of_val(packed) <= x.len() {
        split_rows(workers, y, n, ROW_GRAIN, macs, &|rows, y, _| {
            // SAFETY: the part belongs to this piece alone, and the view is all of it.
            let y = unsafe { Shared::new(y).view(0, rows.len(), n, n) };
            task(&x[rows.start * k..rows.end * k], packed, y);
        });
    } else {
        // A core then reads its own weights only.
        let pieces = pieces(n.div_ceil(COLUMN_GRAIN), macs).min(MAX_PIECES);
        let y = Shared::new(y);
        dispatch(workers, pieces, &|piece, _| {
            let columns = part(piece, pieces, n, COLUMN_GRAIN);
            let panels = columns.start / PANEL..columns.end.div_ceil(PANEL);
            // SAFETY: pieces have disjoint columns, and `dispatch` runs a piece once.
            let y = unsafe { y.view(columns.start, m, columns.len(), n) };
            task(x, &packed[panels.start * panel_len(k)..panels.end * panel_len(k)], y);
        });
    }
}

/// So many products of bytes take the time of one in f32.
pub(super) const MACS: usize = 3;
/// Whole tiles of AVX-512: of 14 rows, and of 7.
const ROW_GRAIN: usize = 56;
/// Two and three adjacent panels divide it.
const COLUMN_GRAIN: usize = 6 * PANEL;

pub(crate) const fn panel_len(k: usize) -> usize {
    // A `k` that wraps here has failed in `packed_len`'s caller: no slice is that long.
    HEAD.wrapping_add(PANEL.wrapping_mul(k.div_ceil(4)))
}

/// What one piece of a product needs beside its rectangle of y, `rows` x `columns`.
pub(crate) struct Block<'a> {
    pub k: usize,
    pub x: &'a [u8],
    /// From row to row.
    pub x_stride: usize,
    /// The panels of the rectangle's columns.
    pub packed: &'a [i32],
    pub limits: Limits,
}

impl Block<'_> {
    fn check<T>(&self, y: &View<T>) {
        assert!(self.x.len() >= (y.rows() - 1) * self.x_stride + self.k);
        assert!(self.packed.len() == y.columns().div_ceil(PANEL) * panel_len(self.k));
    }
}

/// Computes one rectangle.
pub(crate) fn block(isa: Isa, block: &Block, y: View<u8>) {
    if y.rows() == 0 || y.columns() == 0 {
        return;
    }
    block.check(&y);
    arch::select_int8!(isa, product(block, y));
}

/// Computes one rectangle of floats.
fn float_block(isa: Isa, block: &Block, y: View<f32>) {
    if y.rows() == 0 || y.columns() == 0 {
        return;
    }
    block.check(&y);
    arch::select_int8!(isa, product_floats(block, y));
}

/// The reference of the product.
pub(crate) fn product(block: &Block, y: View<u8>) {
    product_with(block, y, |head, lane, sum| read_head(head, lane).apply(sum, block.limits));
}

/// The reference of the product in floats.
pub(crate) fn product_floats(block: &Block, y: View<f32>) {
    product_with(block, y, |head, lane, sum| {
        sum.wrapping_add(head[lane]) as f32 * f32::from_bits(head[PANEL + lane] as u32)
    });
}

fn product_with<T>(block: &Block, mut y: View<T>, result: impl Fn(&[i32], usize, i32) -> T) {
    for row in 0..y.rows() {
        let x = &block.x[row * block.x_stride..][..block.k];
        let y = y.row(row);
        for (packed, y) in block.packed.chunks_exact(panel_len(block.k)).zip(y.chunks_mut(PANEL)) {
            let (head, quads) = packed.split_at(HEAD);
            let mut sums = [0i32; PANEL];
            for (four, quads) in x.chunks(4).zip(quads.chunks_exact(PANEL)) {
                for (sum, &weights) in sums.iter_mut().zip(quads) {
                    for (&x, w) in four.iter().zip(unquad(weights)) {
                        *sum += i32::from(x) * i32::from(w);
                    }
                }
            }
            for (lane, (y, &sum)) in y.iter_mut().zip(&sums).enumerate() {
                *y = result(head, lane, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial,
        int8::testing::{LIMITS, bytes, channels, extremes, weights},
        testing::{Team, noise},
    };
    use std::{vec, vec::Vec};

    /// Sums by definition.
    fn sums(m: usize, k: usize, n: usize, x: &[u8], weights: &[i8]) -> Vec<i32> {
        let sum = |row: usize, output: usize| {
            let products = (0..k).map(|i| i32::from(x[row * k + i]) * i32::from(weights[output * k + i]));
            products.sum()
        };
        (0..m * n).map(|at| sum(at / n, at % n)).collect()
    }

    fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
        // Every row count of a tile over every number of vectors.
        let tiles = (1..=16).flat_map(|m| [4, 8, 12, 16, 32, 48, 64].map(|n| (m, 7, n)));
        tiles.chain((1..=33).map(|m| (m, 5 + m % 9, 10 + 3 * m))).chain([
            (49, 64, 48),
            (113, 17, 96),
            (1, 301, 1000),
            (2, 1, 1),
            (57, 0, 40),
            (3, 40, 80),
            (0, 4, 4),
            (2, 4, 0),
            (200, 33, 112),
            (60, 512, 300),
            (300, 520, 256),
        ])
    }

    #[test]
    fn by_hand() {
        let channels = [Channel::new(0.25, 2, 10), Channel::new(0.125, -8, 200)].map(Option::unwrap);
        let mut packed = vec![0; packed_len(2, 3)];
        pack(2, 3, &[1, 2, 3, -1, 0, 4], &channels, &mut packed);
        for isa in Isa::available() {
            let mut y = [0; 4];
            run(
                isa,
                &Serial,
                2,
                3,
                2,
                Limits { low: 12, high: 199 },
                &[1, 1, 1, 200, 0, 255],
                &packed,
                &mut y,
            );
            // (6 + 2)/4 + 10; (3 − 8)/8 + 200, rounded from 199.375; (965 + 2)/4 + 10, clamped; (820 − 8)/8 + 200, clamped.
            assert_eq!(y, [12, 199, 199, 199]);
        }
        pack_floats(2, 3, &[1, 2, 3, -1, 0, 4], &[4, -3], &[0.5, 2.0], &mut packed);
        for isa in Isa::available() {
            let mut y = [0.0; 2];
            run_floats(isa, &Serial, 1, 3, 2, &[1, 1, 2], &packed, &mut y);
            assert_eq!(y, [6.5, 8.0]);
        }
    }

    #[test]
    fn every_isa_equals_the_definition() {
        for (i, (m, k, n)) in shapes().enumerate() {
            let limits = LIMITS[i % LIMITS.len()];
            let (x, w, channels) = (bytes(m * k, 1), weights(n * k, 2), channels(n, k, 3));
            let mut packed = vec![-1; packed_len(n, k)];
            pack(n, k, &w, &channels, &mut packed);
            let sums = sums(m, k, n, &x, &w);
            let expected: Vec<u8> =
                sums.iter().enumerate().map(|(at, &sum)| channels[at % n].apply(sum, limits)).collect();
            let (offsets, scales): (Vec<i32>, Vec<f32>) =
                (noise(n, 4).iter().map(|v| (v * 1e6) as i32).collect(), noise(n, 5));
            let mut packed_floats = vec![-1; packed_len(n, k)];
            pack_floats(n, k, &w, &offsets, &scales, &mut packed_floats);
            let floats: Vec<f32> = sums
                .iter()
                .enumerate()
                .map(|(at, &sum)| (sum + offsets[at % n]) as f32 * scales[at % n])
                .collect();
            for isa in Isa::available() {
                for workers in [&Serial as &dyn Workers, &Team(3)] {
                    let (mut y, mut y_floats) = (vec![99; m * n], vec![f32::NAN; m * n]);
                    run(isa, workers, m, k, n, limits, &x, &packed, &mut y);
                    assert!(y == expected, "{isa:?} {m}x{k}x{n}");
                    run_floats(isa, workers, m, k, n, &x, &packed_floats, &mut y_floats);
                    assert!(y_floats == floats, "{isa:?} {m}x{k}x{n} floats");
                }
            }
        }
    }

    #[test]
    fn extremes_do_not_saturate() {
        let (m, k, n) = (17, 67, 53);
        for (x, w) in extremes(m * k, n * k) {
            let mut packed = vec![0; packed_len(n, k)];
            pack_floats(n, k, &w, &vec![0; n], &vec![1.0; n], &mut packed);
            let expected: Vec<f32> = sums(m, k, n, &x, &w).iter().map(|&sum| sum as f32).collect();
            for isa in Isa::available() {
                let mut y = vec![0.0; m * n];
                run_floats(isa, &Serial, m, k, n, &x, &packed, &mut y);
                assert!(y == expected, "{isa:?}");
            }
        }
    }

    #[test]
    fn the_longest_sum_fits() {
        let mut packed = vec![0; packed_len(1, MAX_K)];
        pack_floats(1, MAX_K, &vec![-127; MAX_K], &[0], &[1.0], &mut packed);
        for isa in Isa::available() {
            let mut y = [0.0];
            run_floats(isa, &Serial, 1, MAX_K, 1, &vec![255; MAX_K], &packed, &mut y);
            assert_eq!(y, [-(66_000i32 * 255 * 127) as f32]);
        }
    }

    #[test]
    #[should_panic(expected = "-127..=127")]
    fn weights_of_minus_128_are_refused() {
        let channel = Channel::new(0.1, 0, 0).unwrap();
        pack(1, 1, &[-128], &[channel], &mut vec![0; packed_len(1, 1)]);
    }
}
