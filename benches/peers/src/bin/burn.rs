//! Times a training step of Burn: `burn ARCH THREADS STEPS [BATCH]`, see `train` in the library.
//!
//! The backend is Flex, Burn's own for CPUs. NdArray is deprecated in its favor, and the CPU backend of CubeCL downloads LLVM
//! when it is built.

use anyhow::Result;
use burn::{
    module::{Module, ModuleVisitor, Param},
    nn::{
        BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
        loss::CrossEntropyLossConfig,
    },
    optim::{GradientsParams, SgdConfig, momentum::MomentumConfig},
    tensor::{Device, Distribution, Int, Tensor, activation::relu6},
};
use penjing_peers::train::{self, CLASSES, FEATURES, Job, MOMENTUM, RATE, SIZE};

#[derive(Module, Debug)]
struct Network {
    blocks: Vec<Block>,
    classifier: Linear,
}

#[derive(Module, Debug)]
struct Block {
    convs: Vec<Conv>,
    shortcut: bool,
}

#[derive(Module, Debug)]
struct Conv {
    conv: Conv2d,
    norm: BatchNorm,
    active: bool,
}

impl Network {
    fn new(job: &Job, device: &Device) -> Network {
        Network {
            blocks: job.blocks().iter().map(|block| Block::new(block, device)).collect(),
            classifier: LinearConfig::new(FEATURES, CLASSES).init(device),
        }
    }

    fn forward(&self, photos: Tensor<4>) -> Tensor<2> {
        let map = self.blocks.iter().fold(photos, |x, block| block.forward(x));
        self.classifier.forward(map.flatten::<3>(2, 3).mean_dim(2).flatten(1, 2))
    }
}

impl Block {
    fn new(block: &train::Block, device: &Device) -> Block {
        Block {
            convs: block.convs.iter().map(|conv| Conv::new(conv, device)).collect(),
            shortcut: block.shortcut,
        }
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let output = self.convs.iter().fold(input.clone(), |x, conv| conv.forward(x));
        if self.shortcut { output + input } else { output }
    }
}

impl Conv {
    fn new(conv: &train::Conv, device: &Device) -> Conv {
        let pad = conv.kernel / 2;
        Conv {
            conv: Conv2dConfig::new([conv.input, conv.output], [conv.kernel; 2])
                .with_stride([conv.stride; 2])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                .with_groups(conv.groups)
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(conv.output).init(device),
            active: conv.active,
        }
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let output = self.norm.forward(self.conv.forward(input));
        if self.active { relu6(output) } else { output }
    }
}

/// Counts the values that are trained; `Module::num_params` counts the running statistics too.
struct Trained(usize);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if parameter.is_require_grad() {
            self.0 += parameter.shape().num_elements();
        }
    }
}

fn main() -> Result<()> {
    let job = Job::from_args()?;
    let device = Device::flex().autodiff();
    let mut network = Network::new(&job, &device);
    let momentum = MomentumConfig::new().with_momentum(MOMENTUM).with_dampening(0.0);
    let mut tuner = SgdConfig::new().with_momentum(Some(momentum)).init();
    let loss = CrossEntropyLossConfig::new().init(&device);
    let photos = Tensor::random([job.batch, 3, SIZE, SIZE], Distribution::Default, &device);
    let labels = Tensor::<1, Int>::arange(0..job.batch as i64, &device).remainder_scalar(CLASSES as i64);
    let mut trained = Trained(0);
    network.visit(&mut trained);
    job.run("burn", trained.0, || {
        let loss = loss.forward(network.forward(photos.clone()), labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = tuner.step(RATE, network.clone(), gradients);
        Ok(())
    })
}
