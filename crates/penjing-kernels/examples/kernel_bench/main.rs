//! Times the kernels alone, on one thread.
//!
//! `cargo run --release -p penjing-kernels --example kernel_bench -- roofline [scalar|avx2|avx512|neon]`: every layer of
//! MobileNetV2 and EfficientNet-Lite0 beside what the processor's arithmetic and memory allow.
//!
//! `… -- gradients [scalar|avx2|avx512|neon]`: the same layers, and a few others, forward and backward.
//!
//! `… -- int8 [the name of any instruction set]`: the same layers in f32 and in bytes; without a name on every instruction
//! set with vectors that the processor has.
//!
//! `… -- winograd [scalar|avx2|avx512|neon]`: dense 3×3 convolutions directly and by Winograd.

mod buffer;
mod gradients;
mod int8;
mod layer;
mod machine;
mod roofline;
mod winograd;

use std::process::ExitCode;

use penjing_kernels::Isa;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let isa = match args.get(1) {
        None => Some(Isa::detect()),
        Some(name) => Isa::named(name),
    };
    match (args.first().map(String::as_str), isa) {
        (Some("roofline"), Some(isa)) => roofline::print(isa),
        (Some("gradients"), Some(isa)) => gradients::print(isa),
        (Some("int8"), Some(isa)) => match args.get(1) {
            Some(_) => int8::print(&[isa]),
            None => int8::print(&Isa::available().skip(1).collect::<Vec<_>>()),
        },
        (Some("winograd"), Some(isa)) => winograd::print(isa),
        (Some("roofline" | "gradients" | "int8" | "winograd"), None) => {
            eprintln!("this machine has no {}", args[1]);
            return ExitCode::FAILURE;
        }
        _ => {
            eprintln!("usage: kernel_bench roofline|gradients|int8|winograd [scalar|avx2|avx512|neon|…]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
