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
//! `… -- sparse [ISA]`: pointwise layers, of inputs of 224 and 128 px, with ever more zeros among the weights, likewise.
//!
//! `… -- winograd [scalar|avx2|avx512|neon]`: dense 3×3 convolutions directly and by Winograd.

mod buffer;
mod gradients;
mod int8;
mod layer;
mod machine;
mod roofline;
mod sparse;
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
        (Some(what @ ("int8" | "sparse")), Some(isa)) => {
            let isas = match args.get(1) {
                Some(_) => vec![isa],
                None => Isa::available().skip(1).collect(),
            };
            if what == "int8" { int8::print(&isas) } else { sparse::print(&isas) }
        }
        (Some("winograd"), Some(isa)) => winograd::print(isa),
        (Some("roofline" | "gradients" | "int8" | "sparse" | "winograd"), None) => {
            eprintln!("this machine has no {}", args[1]);
            return ExitCode::FAILURE;
        }
        _ => {
            eprintln!(
                "usage: kernel_bench roofline|gradients|int8|sparse|winograd [scalar|avx2|avx512|neon|…]"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
