//! Times tract on a network: `tract STEM THREADS SECONDS OUTPUT`, see the library.

use anyhow::Result;
use penjing_peers::{Job, SHAPE};
use tract_onnx::prelude::{
    multithread::{Executor, set_default_executor},
    *,
};

fn main() -> Result<()> {
    let job = Job::from_args()?;
    if job.threads > 1 {
        set_default_executor(Executor::multithread(job.threads));
    }
    let model = tract_onnx::onnx()
        .model_for_path(&job.onnx)?
        .with_input_fact(0, f32::fact(SHAPE).into())?
        .into_optimized()?
        .into_runnable()?;
    let input: TValue = Tensor::from_shape(&SHAPE, &job.input)?.into();
    let ms = job.time(|| model.run(tvec!(input.clone())).map(drop))?;
    let output = model.run(tvec!(input))?.remove(0);
    job.report("tract-onnx", ms, output.view().as_slice()?)
}
