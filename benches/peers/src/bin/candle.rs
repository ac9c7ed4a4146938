//! Times a training step of candle: `candle ARCH THREADS STEPS [BATCH]`, see `train` in the library.
//!
//! Its SGD has no momentum, which spares it a little work, and it computes with its own kernels, not with MKL. A depthwise
//! convolution is one convolution a channel there, each with a gradient of the whole map, and a photo of the batch takes about
//! 0.64 GB: a batch of 8 needs 5 GB, one of 32 about 21.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module, Optimizer, SGD, loss::cross_entropy};
use penjing_peers::train::{self, CLASSES, FEATURES, Job, RATE, SIZE};

struct Network {
    blocks: Vec<Block>,
    classifier: Linear,
}

struct Block {
    convs: Vec<Conv>,
    shortcut: bool,
}

struct Conv {
    conv: Conv2d,
    norm: BatchNorm,
    active: bool,
}

/// Makes parameters, and keeps them for the optimizer.
struct Parameters(Vec<Var>);

impl Parameters {
    fn keep(&mut self, var: Var) -> Tensor {
        let tensor = var.as_tensor().clone();
        self.0.push(var);
        tensor
    }

    fn weight(&mut self, shape: &[usize]) -> Result<Tensor> {
        Ok(self.keep(Var::randn(0f32, 0.1, shape, &Device::Cpu)?))
    }

    fn zeros(&mut self, len: usize) -> Result<Tensor> {
        Ok(self.keep(Var::zeros(len, DType::F32, &Device::Cpu)?))
    }

    fn ones(&mut self, len: usize) -> Result<Tensor> {
        Ok(self.keep(Var::ones(len, DType::F32, &Device::Cpu)?))
    }
}

impl Network {
    fn new(job: &Job, parameters: &mut Parameters) -> Result<Network> {
        let blocks: Result<_> = job.blocks().iter().map(|block| Block::new(block, parameters)).collect();
        let weight = parameters.weight(&[CLASSES, FEATURES])?;
        Ok(Network { blocks: blocks?, classifier: Linear::new(weight, Some(parameters.zeros(CLASSES)?)) })
    }

    fn forward(&self, photos: &Tensor) -> Result<Tensor> {
        let map = self.blocks.iter().try_fold(photos.clone(), |x, block| block.forward(&x))?;
        self.classifier.forward(&map.flatten_from(2)?.mean(2)?)
    }
}

impl Block {
    fn new(block: &train::Block, parameters: &mut Parameters) -> Result<Block> {
        let convs: Result<_> = block.convs.iter().map(|conv| Conv::new(conv, parameters)).collect();
        Ok(Block { convs: convs?, shortcut: block.shortcut })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let output = self.convs.iter().try_fold(input.clone(), |x, conv| conv.forward(&x))?;
        if self.shortcut { output + input } else { Ok(output) }
    }
}

impl Conv {
    fn new(conv: &train::Conv, parameters: &mut Parameters) -> Result<Conv> {
        let (len, kernel) = (conv.output, conv.kernel);
        let weight = parameters.weight(&[len, conv.input / conv.groups, kernel, kernel])?;
        let config = Conv2dConfig {
            padding: kernel / 2,
            stride: conv.stride,
            groups: conv.groups,
            ..Default::default()
        };
        let mean = Tensor::zeros(len, DType::F32, &Device::Cpu)?;
        let variance = Tensor::ones(len, DType::F32, &Device::Cpu)?;
        Ok(Conv {
            conv: Conv2d::new(weight, None, config),
            norm: BatchNorm::new(len, mean, variance, parameters.ones(len)?, parameters.zeros(len)?, 1e-5)?,
            active: conv.active,
        })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let output = self.norm.forward_train(&self.conv.forward(input)?)?;
        if self.active { output.clamp(0f32, 6f32) } else { Ok(output) }
    }
}

fn main() -> anyhow::Result<()> {
    let job = Job::from_args()?;
    let mut parameters = Parameters(Vec::new());
    let network = Network::new(&job, &mut parameters)?;
    let count = parameters.0.iter().map(|var| var.elem_count()).sum();
    let mut tuner = SGD::new(parameters.0, RATE)?;
    let photos = Tensor::rand(0f32, 1., (job.batch, 3, SIZE, SIZE), &Device::Cpu)?;
    let labels = (0..job.batch as u32).map(|photo| photo % CLASSES as u32);
    let labels = Tensor::from_iter(labels, &Device::Cpu)?;
    job.run("candle-core", count, || {
        let loss = cross_entropy(&network.forward(&photos)?, &labels)?;
        Ok(tuner.backward_step(&loss)?)
    })
}
