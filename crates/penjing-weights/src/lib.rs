//! The pretrained EfficientNet-Lite0 that penjing carries, as bytes and nothing else.
#![no_std]
#![forbid(unsafe_code)]
