//! Classifiers of TensorFlow Lite: a graph with its weights, of floats or quantized, read without executing anything.
//!
//! What is quantized becomes floats: weights and biases are multiplied out, and where an edge's integers saturate at 0,
//! or at 0 and 6, that is the ReLU or ReLU6 that the converter left out. The result is what the integers approximate.

mod graph;
mod names;
mod schema;
mod weights;

use std::path::Path;

use penjing_runtime::{
    file::Model,
    graph::Graph,
    op::{Act, Op},
    pixels::{Color, DecodeRule, Filter, Fit, Pixels},
    tensor::Weights,
};

use super::{Details, MAX_BYTES, What, assemble, closing, strided::Budget};
use crate::{Error, Result};

/// A classifier that came with its graph.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// All of it.
    pub model: Model,
    /// Whether mean and deviation of the pixels are the file's own or the caller's. Else they are a guess: −1..1.
    pub knows_pixels: bool,
}

/// Whether `bytes` begin like a file of TensorFlow Lite.
pub fn is_tflite(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"TFL3")
}

/// Reads the classifier in `bytes`, the content of the file called `path` in messages.
///
/// Its result are logits: a softmax at the end is left out. Of a quantized input the file says which pixels it wants;
/// of one of floats it does not, and −1..1 is taken unless `details` say otherwise. Photos are cropped as ImageNet's
/// are, to 87.5 %; `details.size` and `details.width` must be left out, for the graph has both.
///
/// # Errors
/// [`Error::Model`] for a damaged file, for one that is no classifier of images, and naming all operators that penjing
/// does not have; [`Error::Unsupported`] for an input size.
pub fn parse_tflite(path: &Path, bytes: &[u8], details: Details) -> Result<Classifier> {
    if let Some(size) = details.size {
        return Err(Error::Unsupported(format!(
            "{}: the network has an input size of its own, and {size} px cannot be asked for here; leave --size out, and give it to `penjing train`",
            path.display()
        )));
    }
    let fault = |what: String| Error::model(path, what);
    let Parts { graph, weights, pixels, normalization } = Parts::read(bytes).map_err(fault)?;
    let knows_pixels = normalization.is_some() || (details.mean.is_some() && details.std.is_some());
    let hash = blake3::hash(bytes).to_hex().to_string();
    let model = assemble::model(path, "tflite".into(), graph, weights, pixels, hash, details)?;
    Ok(Classifier { model, knows_pixels })
}

/// What a file yields.
struct Parts {
    graph: Graph,
    weights: Weights,
    pixels: Pixels,
    /// Mean and deviation, where the file knows them.
    normalization: Option<[f32; 2]>,
}

impl Parts {
    fn read(bytes: &[u8]) -> What<Self> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("is larger than the {MAX_BYTES} bytes that are read"));
        }
        let file = schema::File::open(bytes)?;
        let (graph, weights) = graph::read(&file, Budget::new(bytes.len()))?;
        let (graph, weights) = closing::with_logits(&graph, weights)?;
        let last = graph.output().map(|last| graph.node(last)).ok_or("holds an empty graph")?;
        if matches!(last.op, Op::Act(Act::Sigmoid | Act::HSigmoid)) {
            return Err("ends with a sigmoid, which judges each class by itself; expected a classifier that ends with \
                        logits or a softmax"
                .into());
        }
        if last.shape[..3] != [1, 1, 1] {
            return Err(format!(
                "ends with a map of {:?}; expected a classifier, which ends with a vector",
                last.shape
            ));
        }
        let input = file.tensor(file.inputs.first().copied().unwrap_or(-1))?;
        let normalization = input.normalization();
        let [_, height, width, channels] = graph.input_shape().unwrap_or_default();
        let [mean, std] = normalization.unwrap_or([127.5; 2]);
        let pixels = Pixels {
            height,
            width,
            color: if channels == 1 { Color::Gray } else { Color::Rgb },
            fit: if height == width {
                Fit::Crop { short: (height * 8 / 7).min(Pixels::MAX_SIDE) }
            } else {
                Fit::Squash
            },
            filter: Filter::Bilinear,
            mean: [mean; 3],
            std: [std; 3],
            decode: DecodeRule::Full,
        };
        Ok(Parts { graph, weights, pixels, normalization })
    }
}
