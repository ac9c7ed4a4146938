//! Arithmetic on slices for light convolutional networks.
#![no_std]
