//! ONNX: the network in the file's axes `[N,C,H,W]`, with what the model file says in its metadata.
//!
//! What is kept in 8 bits stands in the form that ONNX calls QDQ: all nodes compute with floats, and behind each result that
//! is kept in 8 bits stand a QuantizeLinear and a DequantizeLinear, which round it to its grid. Weights in 8 bits are integers
//! behind a DequantizeLinear. A program that knows the form computes what stands between two pairs on bytes.

mod attributes;
mod layers;
#[cfg(test)]
mod tests;
mod writer;

use penjing_runtime::file::Model;

use self::writer::Writer;
use crate::{Error, Result, onnx};

/// The version of ONNX's operations that is written. DequantizeLinear by channels came with 13, HardSwish with 14.
const OPSET: i64 = 17;
/// The version of the file format that is written: that of the first releases that know [`OPSET`].
const IR_VERSION: i64 = 8;
/// Most bytes of an ONNX file: protocol buffers end there.
const MAX_BYTES: usize = (2 << 30) - 1;

/// How a model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Keep BatchNorm and Dropout as nodes, for training elsewhere; otherwise the one is folded into the convolution of floats
    /// before it and the other left out.
    pub keep_batch_norm: bool,
    /// Take bytes `[N,H,W,3]` (gray: `[N,H,W,1]`), already cropped and resized, and normalize them inside; otherwise the
    /// input is `[N,3,H,W]`, normalized, in 32-bit floats.
    pub with_preprocessing: bool,
    /// Leave the number of photos open; otherwise it is 1.
    pub dynamic_batch: bool,
}

/// The ONNX file of a model: input `image`, result `logits` `[N, classes]`, which still are to be divided by the
/// temperature before the softmax. Input and result are floats, also where the network computes on bytes.
///
/// The metadata holds `labels` (a JSON list), `pixels` (the contract, as in the model file), `temperature`, `license`,
/// `provenance`, `arch`, and as `penjing` the version that wrote it. The same model always gives the same bytes.
///
/// # Errors
/// [`Error::Unsupported`] for a model that no ONNX file can hold.
pub fn to_onnx(model: &Model, options: OnnxOptions) -> Result<Vec<u8>> {
    let unsupported =
        |what: String| Error::Unsupported(format!("the model cannot be written as ONNX: {what}"));
    model.check().map_err(|error| unsupported(error.to_string()))?;
    let writer = Writer::new(&model.graph, &model.weights, options);
    let graph = writer.write(&model.pixels, model.labels.len()).map_err(unsupported)?;
    let file = onnx::Model {
        ir_version: IR_VERSION,
        producer_name: "penjing".to_string(),
        producer_version: env!("CARGO_PKG_VERSION").to_string(),
        graph: Some(graph),
        opset_import: vec![onnx::OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props: metadata(model)?,
        functions: Vec::new(),
    };
    let bytes = onnx::encode(&file);
    if bytes.len() > MAX_BYTES {
        return Err(unsupported(format!(
            "it would have {} bytes, and {MAX_BYTES} are the limit",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn metadata(model: &Model) -> Result<Vec<onnx::Entry>> {
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| Error::Unsupported(format!("the model cannot be described: {error}")))
    };
    let entry = |key: &str, value: String| onnx::Entry { key: key.to_string(), value };
    Ok(vec![
        entry("penjing", env!("CARGO_PKG_VERSION").to_string()),
        entry("arch", model.arch.clone()),
        entry("labels", json(serde_json::to_string(&model.labels))?),
        entry("pixels", json(serde_json::to_string(&model.pixels))?),
        entry("temperature", model.calibration.temperature.to_string()),
        entry("license", model.provenance.license.clone()),
        entry("provenance", json(serde_json::to_string(&model.provenance))?),
    ])
}
