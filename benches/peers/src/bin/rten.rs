//! Times rten on a network: `rten STEM THREADS SECONDS OUTPUT`, see the library.

use std::sync::Arc;

use anyhow::{Context, Result};
use penjing_peers::{Job, SHAPE};
use rten::{ModelOptions, RunOptions, ThreadPool, Value, ValueView};

fn main() -> Result<()> {
    let job = Job::from_args()?;
    let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(&job.onnx)?;
    let pool = Arc::new(ThreadPool::with_num_threads(job.threads));
    let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
    let infer = || -> Result<Value> {
        let input = ValueView::from_shape(SHAPE, &job.input)?;
        Ok(model.run_one(input.into(), Some(options.clone()))?)
    };
    // All of it runs on a thread of the pool, so that an inference does not pay for waking it.
    let (ms, output) = pool.run(|| Ok::<_, anyhow::Error>((job.time(|| infer().map(drop))?, infer()?)))?;
    let (_, output) = output.into_shape_vec::<f32, 2>().context("the output is no matrix of f32")?;
    job.report("rten", ms, &output)
}
