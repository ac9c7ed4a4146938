//! Dumps input tensors and logits of photos, for comparison with another framework on the very same tensors.
//!
//! `cargo run --release --example logits -- MODEL OUT PHOTO...` writes `OUT/inputs.f32` (`[photos][H][W][C]`),
//! `OUT/logits.f32` (`[photos][classes]`) and `OUT/pixels.u8` (the same pixels before normalization), little-endian.

use std::{error::Error, fs, path::Path};

use penjing::{
    data::decode::{self, Limits},
    model,
    runner::Runner,
};
use penjing_runtime::{Serial, pixels::View};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, out, photos @ ..] = &args[..] else {
        return Err("usage: logits MODEL|bundled OUT PHOTO...".into());
    };
    let model = match path.as_str() {
        "bundled" => model::bundled().ok_or("built without the backbone")?,
        path => model::load(Path::new(path))?,
    };
    let runner = Runner::new(&model.graph, &model.weights, &model.pixels, 1)?;
    let (mut inputs, mut logits, mut pixels) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = Vec::new();
    let mut tensor = vec![0.0; model.pixels.len()];
    for photo in photos {
        let photo = decode::read_for(Path::new(photo), &Limits::default(), &model.pixels)?;
        model.pixels.bytes(photo.view(), View::PLAIN, &mut bytes);
        model.pixels.normalize(&bytes, &mut tensor);
        pixels.extend_from_slice(&bytes);
        logits.extend(runner.run_tensor(&tensor, &Serial).iter().flat_map(|v| v.to_le_bytes()));
        inputs.extend(tensor.iter().flat_map(|v| v.to_le_bytes()));
    }
    let out = Path::new(out);
    fs::create_dir_all(out)?;
    fs::write(out.join("inputs.f32"), inputs)?;
    fs::write(out.join("logits.f32"), logits)?;
    fs::write(out.join("pixels.u8"), pixels)?;
    Ok(())
}
