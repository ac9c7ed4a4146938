//! Dense 3×3 convolution of stride 1 by Winograd's minimal filtering F(4×4, 3×3): 36 multiplications for 16 outputs of a
//! channel instead of 144 (Lavin & Gray, arXiv 1509.09308).
//!
//! Y = Aᵀ·\[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)\]·A, where d is a patch of 6×6 inputs, g a kernel, Y a tile of 4×4 outputs. The matrices
//! interpolate at 0, ±11/16, ±11/8 and ∞. The result is defined as this sequence, not as the sum that it stands for:
//!
//! 1. `G·g·Gᵀ` in `f64`, rounded once, by [`pack`].
//! 2. `Bᵀ·d·B`: the rows of the patch, zeros where it leaves the input, then its columns.
//! 3. Of each of the 36 products one chain of fused multiply-adds from 0 on, input channels in ascending order.
//! 4. `Aᵀ·m·A`: rows, then columns.
//! 5. The bias is added, then the residual; the activation comes last.
//!
//! Tiles start at the first output of each image, whatever the batch. With inputs and weights of one size the result is
//! within some 2e-6 of the largest output of the direct sum (a direct sum in `f32` itself within 3e-7): the points are those
//! of small error with coefficients that `f32` holds exactly, a quarter of that of the usual 0, ±1, ±2.

use core::ops::Range;

use crate::{
    Act, Isa, Window, Workers, arch, fma,
    pointwise::{self, Block, PANEL},
    volume,
    workers::{MAX_PIECES, Shared, dispatch, part},
};

/// Outputs of a tile, down and across.
pub(crate) const TILE: usize = 4;
/// Inputs of its patch, down and across.
pub(crate) const PATCH: usize = TILE + 2;
const PRODUCTS: usize = PATCH * PATCH;

/// The points of interpolation beside 0 and ∞ are ±`P` and ±`Q`.
pub(crate) const P: f32 = 11.0 / 16.0;
/// See `P`.
pub(crate) const Q: f32 = 2.0 * P;

/// Outputs whose products are computed before they are gathered; whole panels.
const COLUMNS: usize = 64;
/// Two adjacent panels: divides [`COLUMNS`].
const GRAIN: usize = 2 * PANEL;
/// Fewest tiles of a strip, where there are so many: each reads all weights.
const LEAST_TILES: usize = 14;
/// Most tiles of a strip.
const MOST_TILES: usize = 28;
/// Values of the transformed input that stay in a second-level cache.
const RESIDENT: usize = 160 * 1024;
/// Keeps what belongs to one tile from falling into the same lines of the first-level cache.
const STAGGER: usize = 16;

/// Whether [`run`] computes this window.
pub fn computes(window: &Window) -> bool {
    let w = window;
    [w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w] == [3, 3, 1, 1, 1, 1]
}

/// Whether this is the faster way to compute a dense convolution: a matter of the map and its channels, whatever the batch,
/// the processor and the threads. Of smaller maps the weights, four times as many as they were, are read for too few tiles.
pub fn pays(window: &Window, in_c: usize, out_c: usize) -> bool {
    computes(window) && in_c.min(out_c) >= 8 && window.out_h.min(window.out_w) >= 8
}

/// Length of packed weights.
pub fn packed_len(in_c: usize, out_c: usize) -> usize {
    let biases = out_c.next_multiple_of(PANEL);
    biases
        .checked_add(volume(&[PRODUCTS, pointwise::packed_len(out_c, in_c)]))
        .expect("tensor size overflows usize")
}

/// Transforms and packs `weights` `[out_c][3][3][in_c]` and `bias` `[out_c]` (none: zeros) for [`run`].
pub fn pack(in_c: usize, out_c: usize, weights: &[f32], bias: Option<&[f32]>, packed: &mut [f32]) {
    assert_eq!(weights.len(), volume(&[out_c, 9, in_c]), "weights are [out_c][3][3][in_c]");
    assert!(bias.is_none_or(|b| b.len() == out_c), "bias is [out_c]");
    assert_eq!(packed.len(), packed_len(in_c, out_c), "packed_len(in_c, out_c)");
    packed.fill(0.0);
    let (biases, packed) = packed.split_at_mut(out_c.next_multiple_of(PANEL));
    if let Some(bias) = bias {
        biases[..out_c].copy_from_slice(bias);
    }
    if in_c == 0 {
        return;
    }
    let panel_len = pointwise::panel_len(in_c);
    for (output, weights) in weights.chunks_exact(9 * in_c).enumerate() {
        // Groups of columns, in each the products, in each its panels.
        let first = output / COLUMNS * COLUMNS;
        let panels = (out_c - first).min(COLUMNS).div_ceil(PANEL);
        let group = &mut packed[first / PANEL * PRODUCTS * panel_len..];
        let from = (output - first) / PANEL * panel_len + PANEL + output % PANEL;
        for channel in 0..in_c {
            let mut rows = [[0.0; 3]; PATCH];
            for kx in 0..3 {
                let g = [0, 1, 2].map(|ky| f64::from(weights[(ky * 3 + kx) * in_c + channel]));
                for (row, value) in rows.iter_mut().zip(kernel(g)) {
                    row[kx] = value;
                }
            }
            for (i, row) in rows.into_iter().enumerate() {
                for (j, value) in kernel(row).into_iter().enumerate() {
                    group[(i * PATCH + j) * panels * panel_len + from + channel * PANEL] = value as f32;
                }
            }
        }
    }
}

/// G·g.
fn kernel([g0, g1, g2]: [f64; 3]) -> [f64; PATCH] {
    let (p, q) = (f64::from(P), f64::from(Q));
    let (pp, qq) = (p * p, q * q);
    let (of_p, of_q) = (0.5 / (pp * (pp - qq)), 0.5 / (qq * (qq - pp)));
    let (even_p, odd_p) = ((g0 + g2 * pp) * of_p, g1 * p * of_p);
    let (even_q, odd_q) = ((g0 + g2 * qq) * of_q, g1 * q * of_q);
    [g0 / (pp * qq), even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, g2]
}

/// Bᵀ·d.
fn spread([d0, d1, d2, d3, d4, d5]: [f32; PATCH]) -> [f32; PATCH] {
    let (pp, qq) = (P * P, Q * Q);
    let (even_p, odd_p) = (fma(d2, -qq, d4), fma(d1, -qq, d3));
    let (even_q, odd_q) = (fma(d2, -pp, d4), fma(d1, -pp, d3));
    [
        fma(d0, pp * qq, fma(d2, -(pp + qq), d4)),
        fma(odd_p, P, even_p),
        fma(odd_p, -P, even_p),
        fma(odd_q, Q, even_q),
        fma(odd_q, -Q, even_q),
        fma(d1, pp * qq, fma(d3, -(pp + qq), d5)),
    ]
}

/// Aᵀ·m.
fn gather([m0, m1, m2, m3, m4, m5]: [f32; PATCH]) -> [f32; TILE] {
    let (even_p, odd_p) = (m1 + m2, m1 - m2);
    let (even_q, odd_q) = (m3 + m4, m3 - m4);
    [
        m0 + even_p + even_q,
        fma(odd_q, Q, odd_p * P),
        fma(even_q, Q * Q, even_p * (P * P)),
        fma(odd_q, Q * Q * Q, fma(odd_p, P * P * P, m5)),
    ]
}

/// How the work is cut into pieces: strips of tiles by parts of the columns. Every part transforms the strip's input anew.
struct Cut {
    tiles: usize,
    strips: usize,
    parts: usize,
}

impl Cut {
    fn new(window: &Window, in_c: usize, out_c: usize, threads: usize) -> Cut {
        let tiles = volume(&[window.n, window.out_h.div_ceil(TILE), window.out_w.div_ceil(TILE)]);
        let most = (RESIDENT / (PRODUCTS * in_c.max(1))).clamp(LEAST_TILES, MOST_TILES);
        let fewest = tiles.div_ceil(most).max(1);
        let even = fewest.next_multiple_of(threads);
        let strips = if even * LEAST_TILES <= tiles { even } else { fewest };
        let macs = volume(&[tiles, PRODUCTS, in_c]).saturating_mul(out_c);
        let wanted = if macs < 50_000 { 1 } else { threads.div_ceil(strips) };
        Cut { tiles, strips, parts: wanted.min(out_c.div_ceil(GRAIN)).clamp(1, MAX_PIECES) }
    }

    /// Tiles of the longest strip.
    fn height(&self) -> usize {
        self.tiles.div_ceil(self.strips)
    }
}

/// Length of the scratch [`run`] needs with a team of up to `threads`.
pub fn scratch_len(window: &Window, in_c: usize, out_c: usize, threads: usize) -> usize {
    let most = (1..=threads).map(|threads| worker_len(&Cut::new(window, in_c, out_c, threads), in_c, out_c));
    volume(&[threads, most.max().unwrap_or(0)])
}

fn worker_len(cut: &Cut, in_c: usize, out_c: usize) -> usize {
    let columns = COLUMNS.min(out_c.next_multiple_of(PANEL));
    volume(&[PRODUCTS, volume(&[cut.height(), in_c + columns]) + 2 * STAGGER])
}

/// y = act(bias + Σ x·w + residual) over a window that this [`computes`], all channels with all: x `[n,in_h,in_w,in_c]`,
/// y and residual `[n,out_h,out_w,out_c]`, `packed` from [`pack`], `scratch` of at least [`scratch_len`], its content
/// without meaning.
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    in_c: usize,
    out_c: usize,
    act: Act,
    x: &[f32],
    packed: &[f32],
    residual: Option<&[f32]>,
    scratch: &mut [f32],
    y: &mut [f32],
) {
    window.check(in_c, x, out_c, y);
    assert!(computes(window), "3x3, stride 1, dilation 1");
    assert_eq!(packed.len(), packed_len(in_c, out_c), "packed_len(in_c, out_c)");
    assert!(residual.is_none_or(|r| r.len() == y.len()), "residual is as long as y");
    let threads = workers.threads();
    assert!(
        scratch.len() >= scratch_len(window, in_c, out_c, threads),
        "scratch_len(window, in_c, out_c, threads)"
    );
    if y.is_empty() {
        return;
    }
    let cut = Cut::new(window, in_c, out_c, threads);
    let worker_len = worker_len(&cut, in_c, out_c);
    let (biases, packed) = packed.split_at(out_c.next_multiple_of(PANEL));
    let panel_len = pointwise::panel_len(in_c);
    let patches = Patches::of(window);
    let (scratch, y) = (Shared::new(scratch), Shared::new(y));
    // The strips that a piece takes, if there are more than pieces may be.
    let pieces = cut.strips.min(MAX_PIECES / cut.parts);
    dispatch(workers, pieces * cut.parts, &|piece, worker| {
        // SAFETY: each worker id has its own part, and `dispatch` lets one thread at a time use an id.
        let scratch = unsafe { scratch.slice(worker * worker_len, worker_len) };
        let columns = part(piece % cut.parts, cut.parts, out_c, GRAIN);
        for strip in part(piece / cut.parts, pieces, cut.strips, 1) {
            let tiles = part(strip, cut.strips, cut.tiles, 1);
            let height = tiles.len();
            let spread_stride = height * in_c + STAGGER;
            let (spread, products) = scratch.split_at_mut(PRODUCTS * spread_stride);
            let input = Input { patches: &patches, c: in_c, x, stride: spread_stride };
            transform_input(isa, &input, tiles.clone(), spread);
            let mut column = columns.start;
            while column < columns.end {
                let group = column / COLUMNS * COLUMNS;
                let panels = (out_c - group).min(COLUMNS).div_ceil(PANEL);
                let width = (group + COLUMNS).min(columns.end) - column;
                let row = width.next_multiple_of(PANEL);
                let stride = height * row + STAGGER;
                for product in 0..PRODUCTS {
                    let from =
                        (group / PANEL * PRODUCTS + product * panels + (column - group) / PANEL) * panel_len;
                    let block = Block {
                        k: in_c,
                        x: &spread[product * spread_stride..],
                        x_stride: in_c,
                        runs: 1,
                        run_stride: 0,
                        packed: &packed[from..from + width.div_ceil(PANEL) * panel_len],
                        act: Act::None,
                        residual: None,
                    };
                    // SAFETY: the scratch is this worker's, and not read while the view is in use.
                    let m = unsafe { Shared::new(products).view(product * stride, height, width, row) };
                    pointwise::block(isa, &block, m);
                }
                let output = Output {
                    patches: &patches,
                    c: out_c,
                    products,
                    stride,
                    row,
                    columns: column..column + width,
                    bias: &biases[column..],
                    act,
                    residual,
                };
                transform_products(isa, &output, tiles.clone(), &y);
                column += width;
            }
        }
    });
}

/// Where patches and tiles lie.
pub(crate) struct Patches {
    /// Of the patches, one an output position.
    window: Window,
    out_h: usize,
    out_w: usize,
}

/// A patch: which of its rows and columns exist, and the first existing pixel.
pub(crate) struct Patch {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub pixel: usize,
}

/// A tile: its first pixel, and how much of it exists.
pub(crate) struct Tile {
    pub pixel: usize,
    pub rows: usize,
    pub columns: usize,
}

impl Patches {
    fn of(window: &Window) -> Patches {
        let w = *window;
        let (out_h, out_w) = (w.out_h.div_ceil(TILE), w.out_w.div_ceil(TILE));
        let (kernel_h, kernel_w, stride_h, stride_w) = (PATCH, PATCH, TILE, TILE);
        let window = Window { out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, ..w };
        Patches { window, out_h: w.out_h, out_w: w.out_w }
    }

    fn place(&self, tile: usize) -> [usize; 3] {
        let (row, across) = (tile / self.window.out_w, tile % self.window.out_w);
        [row / self.window.out_h, row % self.window.out_h, across]
    }

    pub(crate) fn patch(&self, tile: usize) -> Patch {
        let (w, [image, down, across]) = (&self.window, self.place(tile));
        let (rows, columns) = (w.rows(down), w.columns(across));
        if rows.is_empty() || columns.is_empty() {
            return Patch { rows: 0..0, columns: 0..0, pixel: 0 };
        }
        let pixel = (image * w.in_h + w.row(down, rows.start)) * w.in_w + w.column(across, columns.start);
        Patch { rows, columns, pixel }
    }

    pub(crate) fn tile(&self, tile: usize) -> Tile {
        let [image, down, across] = self.place(tile);
        let (oy, ox) = (down * TILE, across * TILE);
        let pixel = (image * self.out_h + oy) * self.out_w + ox;
        Tile { pixel, rows: TILE.min(self.out_h - oy), columns: TILE.min(self.out_w - ox) }
    }

    /// Pixels from row to row, of the input and of the output.
    pub(crate) fn lines(&self) -> [usize; 2] {
        [self.window.in_w, self.out_w]
    }
}

/// What the transform of the input needs beside its tiles and their values, `[PRODUCTS][tiles][c]`.
pub(crate) struct Input<'a> {
    pub patches: &'a Patches,
    pub c: usize,
    pub x: &'a [f32],
    /// From product to product.
    pub stride: usize,
}

fn transform_input(isa: Isa, job: &Input, tiles: Range<usize>, spread: &mut [f32]) {
    assert!(job.stride >= tiles.len() * job.c && spread.len() >= PRODUCTS * job.stride);
    arch::select!(isa, winograd_input(job, tiles, spread));
}

/// The reference of the transform of the input.
pub(crate) fn winograd_input(job: &Input, tiles: Range<usize>, out: &mut [f32]) {
    let [line, _] = job.patches.lines();
    for (at, tile) in tiles.enumerate() {
        let patch = job.patches.patch(tile);
        for channel in 0..job.c {
            let mut d = [[0.0; PATCH]; PATCH];
            for (i, row) in patch.rows.clone().enumerate() {
                for (j, column) in patch.columns.clone().enumerate() {
                    d[row][column] = job.x[(patch.pixel + i * line + j) * job.c + channel];
                }
            }
            let rows = d.map(spread);
            for j in 0..PATCH {
                for (i, value) in spread(rows.map(|row| row[j])).into_iter().enumerate() {
                    out[(i * PATCH + j) * job.stride + at * job.c + channel] = value;
                }
            }
        }
    }
}

/// What the transform of the products needs beside its tiles and the output.
pub(crate) struct Output<'a> {
    pub patches: &'a Patches,
    /// Channels of the output.
    pub c: usize,
    /// `[PRODUCTS][tiles][row]`.
    pub products: &'a [f32],
    /// From product to product.
    pub stride: usize,
    /// From tile to tile.
    pub row: usize,
    /// Channels that are computed.
    pub columns: Range<usize>,
    /// Of the first of them on.
    pub bias: &'a [f32],
    pub act: Act,
    /// As long as the output.
    pub residual: Option<&'a [f32]>,
}

fn transform_products(isa: Isa, job: &Output, tiles: Range<usize>, y: &Shared) {
    assert!(job.row >= job.columns.len() && job.bias.len() >= job.columns.len());
    assert!(
        job.stride >= tiles.len() * job.row
            && job.products.len() >= (PRODUCTS - 1) * job.stride + tiles.len() * job.row
    );
    arch::select!(isa, winograd_output(job, tiles, y));
}

/// The reference of the transform of the products.
pub(crate) fn winograd_output(job: &Output, tiles: Range<usize>, y: &Shared) {
    let [_, line] = job.patches.lines();
    for (at, tile) in tiles.enumerate() {
        let place = job.patches.tile(tile);
        for (column, channel) in job.columns.clone().enumerate() {
            let mut m = [[0.0; PATCH]; PATCH];
            for (product, m) in m.as_flattened_mut().iter_mut().enumerate() {
                *m = job.products[product * job.stride + at * job.row + column];
            }
            let rows = m.map(gather);
            for j in 0..place.columns {
                let values = gather(rows.map(|row| row[j]));
                for (i, value) in values.into_iter().enumerate().take(place.rows) {
                    let to = (place.pixel + i * line + j) * job.c + channel;
                    let sum = value + job.bias[column];
                    let sum = job.residual.map_or(sum, |r| sum + r[to]);
                    // SAFETY: the tile and these channels of it are the piece's alone.
                    let y = unsafe { y.slice(to, 1) };
                    y[0] = job.act.apply(sum);
                }
            }
        }
    }
}

#[cfg(test)]
// Formulas by their indices.
#[allow(clippy::needless_range_loop)]
mod tests {
    use super::*;
    use crate::{
        Serial,
        testing::{Team, noise, window},
    };
    use std::{vec, vec::Vec};

    /// The sequence of the module's documentation, one output channel of one tile after another.
    fn reference(
        window: &Window,
        in_c: usize,
        out_c: usize,
        act: Act,
        x: &[f32],
        weights: &[f32],
        bias: &[f32],
        residual: Option<&[f32]>,
    ) -> Vec<f32> {
        let w = window;
        let input = |image: usize, iy: usize, ix: usize, channel: usize| {
            let (iy, ix) = (iy.wrapping_sub(w.pad_top), ix.wrapping_sub(w.pad_left));
            let inside = iy < w.in_h && ix < w.in_w;
            if inside { x[((image * w.in_h + iy) * w.in_w + ix) * in_c + channel] } else { 0.0 }
        };
        let mut y = vec![f32::NAN; w.out_pixels() * out_c];
        for (image, o) in (0..w.n).flat_map(|image| (0..out_c).map(move |o| (image, o))) {
            for (oy, ox) in
                (0..w.out_h).step_by(TILE).flat_map(|oy| (0..w.out_w).step_by(TILE).map(move |ox| (oy, ox)))
            {
                let mut m = [[0.0; PATCH]; PATCH];
                for channel in 0..in_c {
                    let g = |ky: usize, kx: usize| f64::from(weights[(o * 9 + ky * 3 + kx) * in_c + channel]);
                    let mut down = [[0.0; 3]; PATCH];
                    for kx in 0..3 {
                        kernel([g(0, kx), g(1, kx), g(2, kx)])
                            .into_iter()
                            .enumerate()
                            .for_each(|(i, v)| down[i][kx] = v);
                    }
                    let mut d = [[0.0; PATCH]; PATCH];
                    for i in 0..PATCH {
                        for j in 0..PATCH {
                            d[i][j] = input(image, oy + i, ox + j, channel);
                        }
                    }
                    let d = d.map(spread);
                    for j in 0..PATCH {
                        let column = spread(d.map(|row| row[j]));
                        for i in 0..PATCH {
                            m[i][j] = fma(column[i], kernel(down[i])[j] as f32, m[i][j]);
                        }
                    }
                }
                let m = m.map(gather);
                for j in 0..TILE.min(w.out_w - ox) {
                    let column = gather(m.map(|row| row[j]));
                    for i in 0..TILE.min(w.out_h - oy) {
                        let at = ((image * w.out_h + oy + i) * w.out_w + ox + j) * out_c + o;
                        let sum = column[i] + bias[o];
                        y[at] = act.apply(residual.map_or(sum, |r| sum + r[at]));
                    }
                }
            }
        }
        y
    }

    /// The sum that it stands for, without activation.
    fn direct(
        w: &Window,
        in_c: usize,
        out_c: usize,
        x: &[f32],
        weights: &[f32],
        bias: &[f32],
        residual: Option<&[f32]>,
    ) -> Vec<f64> {
        let mut y = vec![];
        for pixel in 0..w.out_pixels() {
            let (row, ox) = (pixel / w.out_w, pixel % w.out_w);
            let (image, oy) = (row / w.out_h, row % w.out_h);
            for o in 0..out_c {
                let mut sum = f64::from(bias[o]) + residual.map_or(0.0, |r| f64::from(r[pixel * out_c + o]));
                for (ky, kx) in w.rows(oy).flat_map(|ky| w.columns(ox).map(move |kx| (ky, kx))) {
                    let at = ((image * w.in_h + w.row(oy, ky)) * w.in_w + w.column(ox, kx)) * in_c;
                    let weights = &weights[(o * 9 + ky * 3 + kx) * in_c..][..in_c];
                    let products = x[at..].iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w));
                    sum += products.sum::<f64>();
                }
                y.push(sum);
            }
        }
        y
    }

    #[test]
    fn fast_equals_definition_and_is_near_the_sum() {
        let uneven = Window {
            pad_top: 0,
            pad_left: 2,
            pad_right: 0,
            out_h: 8,
            out_w: 9,
            ..window(2, 9, 9, 3, 1, 1, 1)
        };
        for (i, (window, in_c, out_c)) in [
            (window(1, 16, 16, 3, 1, 1, 1), 16, 32),
            (window(2, 9, 8, 3, 1, 1, 1), 5, 7),
            (window(1, 7, 7, 3, 1, 1, 1), 40, 100),
            (window(3, 13, 13, 3, 1, 1, 1), 24, 70),
            (window(1, 12, 11, 3, 1, 1, 0), 33, 17),
            (window(1, 1, 1, 3, 1, 1, 1), 3, 1),
            (window(1, 4, 30, 3, 1, 1, 1), 8, 200),
            (window(2, 56, 40, 3, 1, 1, 1), 12, 20),
            (window(1, 5, 5, 3, 1, 1, 3), 4, 48),
            (window(1, 28, 28, 3, 1, 1, 1), 300, 4),
            (window(1, 6, 6, 3, 1, 1, 1), 0, 4),
            (uneven, 20, 36),
        ]
        .into_iter()
        .enumerate()
        {
            let x = noise(window.n * window.in_h * window.in_w * in_c, 1);
            let (weights, bias) = (noise(out_c * 9 * in_c, 2), noise(out_c, 3));
            let len = window.out_pixels() * out_c;
            let r = noise(len, 4);
            let residual = (i % 2 == 1).then_some(&r[..]);
            let mut packed = vec![f32::NAN; packed_len(in_c, out_c)];
            pack(in_c, out_c, &weights, Some(&bias), &mut packed);
            for act in [Act::None, [Act::Relu6, Act::HSwish, Act::Relu][i % 3]] {
                let expected = reference(&window, in_c, out_c, act, &x, &weights, &bias, residual);
                if act == Act::None {
                    let sums = direct(&window, in_c, out_c, &x, &weights, &bias, residual);
                    let largest = sums.iter().fold(0f64, |largest, v| largest.max(v.abs()));
                    for (&found, sum) in expected.iter().zip(&sums) {
                        let error = (f64::from(found) - sum).abs();
                        assert!(error <= 4e-6 * largest, "{in_c} {out_c} {window:?}: {error} of {largest}");
                    }
                }
                for isa in Isa::available() {
                    for workers in [&Serial as &dyn Workers, &Team(2), &Team(5)] {
                        // Scratch for more threads will do.
                        let mut scratch =
                            vec![f32::NAN; scratch_len(&window, in_c, out_c, workers.threads() + 1)];
                        let mut y = vec![f32::NAN; len];
                        run(
                            isa,
                            workers,
                            &window,
                            in_c,
                            out_c,
                            act,
                            &x,
                            &packed,
                            residual,
                            &mut scratch,
                            &mut y,
                        );
                        assert!(y == expected, "{isa:?} {in_c} {out_c} {window:?}");
                    }
                }
            }
        }
    }
}
