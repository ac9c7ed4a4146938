//! What every instruction set says alike, as macros: the generic loops compiled for it.

/// Trait functions that are one expression of intrinsics.
macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? { $body:expr })*) => {$(
        #[inline(always)]
        // An expression may pass on what it gets.
        #[allow(unused_unsafe)]
        unsafe fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the promise of the trait: the CPU has the instructions, the pointers are valid.
            unsafe { $body }
        }
    )*};
}

/// `match` from run-time extents to const generics.
macro_rules! table {
    ($rows:expr, $function:ident::<_, $vectors:literal>($tile:expr), $($n:literal)+) => {
        match $rows {
            $($n => $function::<$n, $vectors>($tile),)+
            _ => unreachable!("no tile of that many rows"),
        }
    };
}

/// [`table`] of one extent.
macro_rules! row {
    ($vectors:expr, $function:ident($tile:expr), $($n:literal)+) => {
        match $vectors {
            $($n => $function::<$n>($tile),)+
            _ => unreachable!("no tile of that many vectors"),
        }
    };
}

/// The functions `arch::select!` chooses from, and the tiles, compiled for one instruction set.
macro_rules! compile {
    ($module:ident, $simd:ident, $features:literal) => {
        pub(crate) mod $module {
            use core::ops::Range;

            use super::$simd;
            use crate::{
                Act, Window,
                arch::{
                    bytes, channels,
                    depthwise::{self, Line, SpreadLine},
                    depthwise_weights::{self, Strip},
                    product::{self, Tile},
                    sparse,
                    vectors,
                    winograd,
                },
                batch_norm::Lazy,
                depthwise::Job as Depthwise,
                pointwise::{Block, Gradient},
                pool::Job as Pool,
                resample::Taps,
                sparse::Job as Sparse,
                winograd::{Input as Patches, Output as Products},
                workers::{Shared, View},
            };

            $crate::arch::compile::compile! { @wrap $simd $features
                product(block: &Block, y: View) = product::product;
                gradient(job: &Gradient, dw: View) = product::gradient;
                sparse(job: &Sparse, scratch: &mut [f32], y: View) = sparse::sparse;
                convolve(job: &Depthwise, rows: Range<usize>, y: &mut [f32]) = depthwise::convolve;
                depthwise_input_gradient(
                    window: &Window, c: usize, dy: &[f32], packed: &[f32], rows: Range<usize>, dx: &mut [f32]
                ) = depthwise::input_gradient;
                depthwise_weight_gradient(
                    window: &Window, c: usize, dy: &[f32], x: &[f32], channel: usize, dw: View
                ) = depthwise_weights::gradient;
                across_rgb(line: &[u8], taps: Taps, out: &mut [u8]) = bytes::across_rgb;
                across_gray(line: &[u8], taps: Taps, out: &mut [u8]) = bytes::across_gray;
                blend(ring: &[u8], slot: usize, weights: &[i32], out: &mut [u8]) = bytes::blend;
                winograd_input(job: &Patches, tiles: Range<usize>, out: &mut [f32]) = winograd::input;
                winograd_output(job: &Products, tiles: Range<usize>, y: &Shared) = winograd::output;
                pool(job: &Pool, rows: Range<usize>, y: &mut [f32]) = vectors::pool;
                mean(x: &[f32], y: &mut [f32]) = vectors::mean;
                activated(act: Act, x: &[f32], y: &mut [f32]) = vectors::activated;
                sum(act: Act, a: &[f32], b: &[f32], y: &mut [f32]) = vectors::sum;
                times(a: &[f32], b: &[f32], y: &mut [f32]) = vectors::times;
                scaled(x: &[f32], scale: &[f32], y: &mut [f32]) = vectors::scaled;
                accumulated(x: &[f32], y: &mut [f32]) = vectors::accumulated;
                products(dy: &[f32], x: &[f32], dscale: &mut [f32]) = channels::products;
                read(lazy: &Lazy, x: &[f32], y: &mut [f32]) = channels::read;
                read_sum(
                    c: usize, a: Option<&Lazy>, x: &[f32], b: Option<&Lazy>, x2: &[f32], y: &mut [f32]
                ) = channels::read_sum;
                sum_moments(about: &[f32], x: &[f32], sum: &mut [f64], square: &mut [f64]) = channels::sum_moments;
                sum_gradients(
                    lazy: Option<&Lazy>, mean: &[f32], de: &[f32], y: &[f32], s1: &mut [f64], s2: &mut [f64]
                ) = channels::sum_gradients;
                pull_back(
                    lazy: Option<&Lazy>, coefficients: [&[f32]; 3], de: &[f32], y: &[f32], dy: &mut [f32]
                ) = channels::pull_back;
                pull_back_act(
                    act: Act, de: &[f32], y: &[f32], dy: &mut [f32], bias: &mut [f64]
                ) = channels::pull_back_act;
            }

            #[target_feature(enable = $features)]
            pub(super) fn product_tile<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
                for index in 0..tile.count {
                    one_product_tile::<ROWS, VECTORS>(tile, index);
                }
            }

            // On its own: among others its sums would not find registers enough.
            #[inline(never)]
            #[target_feature(enable = $features)]
            fn one_product_tile<const ROWS: usize, const VECTORS: usize>(tile: &Tile, index: usize) {
                // SAFETY: `product::product` made the tile.
                unsafe { product::tile::<$simd, ROWS, VECTORS>(tile, index) }
            }

            #[inline(never)]
            #[target_feature(enable = $features)]
            pub(super) fn gradient_tile<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
                // SAFETY: `product::gradient` made the tile.
                unsafe { product::gradient_tile::<$simd, ROWS, VECTORS>(tile) }
            }

            #[inline(never)]
            #[target_feature(enable = $features)]
            pub(super) fn sparse_tile<const VECTORS: usize>(tile: &sparse::Tile) {
                // SAFETY: `sparse::sparse` made the tile.
                unsafe { sparse::tile::<$simd, VECTORS>(tile) }
            }

            #[target_feature(enable = $features)]
            pub(super) fn depthwise_line<const K: usize, const STRIDE: usize, const ROWS: usize, const FLIP: bool>(line: &Line) {
                // SAFETY: `depthwise::convolve` made the line.
                unsafe { depthwise::line::<$simd, K, STRIDE, ROWS, FLIP>(line) }
            }

            #[target_feature(enable = $features)]
            pub(super) fn depthwise_spread_line<const K: usize>(line: &SpreadLine) {
                // SAFETY: `depthwise::input_gradient` made the line.
                unsafe { depthwise::spread_line::<$simd, K>(line) }
            }

            #[target_feature(enable = $features)]
            pub(super) fn depthwise_weight_strip<const K: usize, const STRIDE: usize, const ROWS: usize>(
                strip: &Strip,
            ) {
                // SAFETY: `depthwise_weights::gradient` made the strip.
                unsafe { depthwise_weights::strip::<$simd, K, STRIDE, ROWS>(strip) }
            }
        }
    };
    (@wrap $simd:ident $features:literal $($name:ident($($arg:ident: $type:ty),*) = $body:path;)+) => {$(
        #[target_feature(enable = $features)]
        pub(crate) fn $name($($arg: $type),*) {
            use $body as body;
            // SAFETY: the features are enabled, and the operation has checked the lengths.
            unsafe { body::<$simd>($($arg),*) }
        }
    )+};
}

/// The trait functions that call the lines of a module of [`compile!`].
macro_rules! lines {
    ($module:ident) => {
        #[inline(always)]
        unsafe fn depthwise_line<const K: usize, const STRIDE: usize, const ROWS: usize, const FLIP: bool>(
            line: &Line,
        ) {
            // SAFETY: the promise of the trait.
            unsafe { $module::depthwise_line::<K, STRIDE, ROWS, FLIP>(line) }
        }

        #[inline(always)]
        unsafe fn depthwise_spread_line<const K: usize>(line: &SpreadLine) {
            // SAFETY: the promise of the trait.
            unsafe { $module::depthwise_spread_line::<K>(line) }
        }
    };
}

pub(super) use {compile, lines, operations, row, table};
