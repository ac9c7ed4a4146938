//! The generic loops compiled for an instruction set, as macros.

/// The functions `arch::select_int8!` chooses from, compiled for one instruction set.
macro_rules! compile {
    ($module:ident, $simd:ident, $features:literal) => {
        pub(crate) mod $module {
            use core::ops::Range;

            use super::$simd;
            use crate::{
                arch::int8::{depthwise, product},
                int8::{
                    Channel, Limits, convert, depthwise::Job as Depthwise, elementwise::{self, Sum},
                    pointwise::Block, pool::{self, Job as Pool},
                },
                workers::View,
            };

            $crate::arch::int8::compile::compile! { @generic $simd $features
                product(block: &Block, y: View<u8>) = product::product;
                product_floats(block: &Block, y: View<f32>) = product::product_floats;
                convolve(job: &Depthwise, rows: Range<usize>, y: &mut [u8]) = depthwise::convolve;
            }

            // Loops that the compiler turns into vectors by itself.
            $crate::arch::int8::compile::compile! { @plain $features
                summed(sum: &Sum, a: &[u8], b: &[u8], y: &mut [u8]) = elementwise::summed;
                scaled(
                    zero_points: [u8; 2], channel: Channel, limits: Limits, x: &[u8], scale: &[u8], y: &mut [u8]
                ) = elementwise::scaled;
                pool(job: &Pool, rows: Range<usize>, y: &mut [u8]) = pool::pool;
                mean(channel: Channel, limits: Limits, x: &[u8], y: &mut [u8]) = pool::mean;
                quantized(scale: f32, zero_point: u8, x: &[f32], y: &mut [u8]) = convert::quantized;
                dequantized(scale: f32, zero_point: u8, x: &[u8], y: &mut [f32]) = convert::dequantized;
            }
        }
    };
    (@generic $simd:ident $features:literal $($name:ident($($arg:ident: $type:ty),*) = $body:path;)+) => {$(
        #[target_feature(enable = $features)]
        pub(crate) fn $name($($arg: $type),*) {
            use $body as body;
            // SAFETY: the features are enabled, and the operation has checked the lengths.
            unsafe { body::<$simd>($($arg),*) }
        }
    )+};
    (@plain $features:literal $($name:ident($($arg:ident: $type:ty),*) = $body:path;)+) => {$(
        #[target_feature(enable = $features)]
        pub(crate) fn $name($($arg: $type),*) {
            use $body as body;
            body($($arg),*);
        }
    )+};
}

/// The trait functions that are compiled apart from the loops that call them: among others their sums would not find
/// registers enough.
macro_rules! tiles {
    ($simd:ident, $features:literal, $($vectors:literal: $($rows:literal)+;)+) => {
        #[inline(always)]
        unsafe fn product_tiles(rows: usize, vectors: usize, tile: &$crate::arch::int8::product::Tile) {
            use $crate::arch::int8::product::{self, Tile};

            #[target_feature(enable = $features)]
            fn int8_product_tiles<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
                for index in 0..tile.count {
                    int8_product_tile::<ROWS, VECTORS>(tile, index);
                }
            }

            #[inline(never)]
            #[target_feature(enable = $features)]
            fn int8_product_tile<const ROWS: usize, const VECTORS: usize>(tile: &Tile, index: usize) {
                // SAFETY: `product::walk` made the tile.
                unsafe { product::tile::<$simd, ROWS, VECTORS>(tile, index) }
            }

            // SAFETY: the promise of the trait.
            unsafe {
                match (vectors, rows) {
                    $($(($vectors, $rows) => int8_product_tiles::<$rows, $vectors>(tile),)+)+
                    _ => unreachable!("no such tile"),
                }
            }
        }

        #[inline(always)]
        unsafe fn depthwise_block<const K: usize, const STRIDE: usize>(
            block: &$crate::arch::int8::depthwise::Block,
        ) {
            use $crate::arch::int8::depthwise::{self, Block};

            #[inline(never)]
            #[target_feature(enable = $features)]
            fn int8_depthwise_block<const K: usize, const STRIDE: usize>(block: &Block) {
                // SAFETY: `depthwise::blocks` made the block.
                unsafe { depthwise::block::<$simd, K, STRIDE>(block) }
            }

            // SAFETY: the promise of the trait.
            unsafe { int8_depthwise_block::<K, STRIDE>(block) }
        }
    };
}

pub(super) use {compile, tiles};
