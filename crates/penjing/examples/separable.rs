//! The textbook depthwise-separable layer (MobileNet, arXiv 1704.04861): a 3×3 filter per channel with bias, then a
//! 1×1 convolution with bias, no BatchNorm, from a 32×32 RGB image to 16 channels.
//!
//! A standard 3×3 convolution would take 3·3·3·16 = 432 weights; this takes 3·3·3 + 3·16 = 75. That it computes what
//! PyTorch computes with the same weights is tested in `crates/penjing-runtime/tests/ops.rs`.

use penjing::zoo::{
    blocks::{Builder, Padding},
    random_weights,
};
use penjing_runtime::{Act, Error, Isa, PlanBuf, Serial, Session, cost};

fn main() -> Result<(), Error> {
    let (mut net, image) = Builder::new([32, 32, 3], Padding::Symmetric, 1e-5, Act::None)?;
    net.separable("layer", image, 16, 3, 1)?;
    let graph = net.finish();
    for layer in cost::layers(&graph) {
        println!(
            "{:16} {:?} {} parameters, {} multiply-adds",
            layer.name, layer.shape, layer.params, layer.macs
        );
    }
    let plan = PlanBuf::lower(&graph, &random_weights(&graph, 0), 1)?;
    println!("working memory: {} bytes", plan.plan().peak_ram_bytes());
    let mut session = Session::new(plan.into(), Isa::detect());
    session.input().fill(1.0);
    println!("first pixel: {:?}", &session.run(&Serial)[..16]);
    Ok(())
}
