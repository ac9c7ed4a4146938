//! The model file: a valid safetensors file whose metadata holds one JSON document.
//!
//! Key `penjing` of `__metadata__` is a JSON document with the graph, the pixels contract, the labels, the calibration
//! and the provenance. Its first field is the BLAKE3 hash of the whole file with the hash's own digits read as zeros,
//! so that any changed byte is found.

use alloc::{
    borrow::Cow,
    format,
    string::{String, ToString},
    vec::Vec,
};

use safetensors::{Dtype, SafeTensors, View, tensor::Metadata};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    graph::{Graph, Node},
    nibbles::Nibbles,
    op::Op,
    pixels::Pixels,
    sparse::Sparse,
    tensor::{Data, Quantized, Tensor, Weights},
};

/// The newest version of the format, and the newest that is read: models whose zeros are left out. Others are written as version
/// 3, where they have 4-bit integers, 2, where they have 8-bit ones, or 1, so that an older penjing reads them.
pub const FORMAT: u32 = 4;
/// What is appended to a weight's name for the scales of its integers.
const SCALES: &str = ".scale";
/// And for the values of one whose zeros are left out.
const VALUES: &str = ".values";
/// Longest header that is read; the largest networks need a few hundred kilobytes.
const MAX_HEADER_BYTES: u64 = 32 << 20;
const METADATA_KEY: &str = "penjing";
const HASH_DIGITS: usize = 64;

/// A classifier, whole: what is computed, on which pixels, and what the results are called.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Name of the architecture, as in the zoo.
    pub arch: String,
    /// From image to logits.
    pub graph: Graph,
    /// The graph's weights.
    pub weights: Weights,
    /// From photo to input tensor.
    pub pixels: Pixels,
    /// Class names, one for each logit.
    pub labels: Vec<String>,
    /// From logits to probabilities.
    pub calibration: Calibration,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// How logits become probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Logits are divided by it before the softmax (Guo et al., arXiv 1706.04599).
    pub temperature: f32,
}

/// Where a model comes from. No time, no path, no thread count: the same work gives the same file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of penjing that wrote it.
    pub penjing: String,
    /// Where the pretrained weights came from, in words.
    pub backbone: String,
    /// Licence of the pretrained weights (SPDX), or "unknown".
    pub license: String,
    /// Hash of the pretrained weights' file.
    pub backbone_hash: String,
    /// What was done, step by step.
    pub recipe: Vec<String>,
    /// Hash over contents and labels of the photos that it learnt from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_hash: Option<String>,
    /// Seed of everything random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Accuracy on held-out photos, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_top1: Option<f64>,
}

/// The document in the metadata, in the order in which it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    hash: String,
    format: u32,
    arch: Cow<'a, str>,
    graph: Cow<'a, [Node]>,
    pixels: Cow<'a, Pixels>,
    labels: Cow<'a, [String]>,
    calibration: Cow<'a, Calibration>,
    provenance: Cow<'a, Provenance>,
}

impl Model {
    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// [`Error`] naming what does not fit.
    pub fn check(&self) -> Result<(), Error> {
        self.graph.check(&self.weights)?;
        let bad = |what: String| Err(Error::File(what));
        for (name, tensor) in &self.weights {
            let misfit = match &tensor.data {
                Data::I4(four) if !four.is_of(&tensor.shape) => "4-bit integers",
                // The kernels' products are of −127 at least.
                Data::I8(integers) if integers.values.contains(&i8::MIN) => "8-bit integers of -127 to 127",
                Data::Sparse(sparse) if !sparse.is_of(&tensor.shape) => "values that are not zero",
                _ => continue,
            };
            return bad(format!("weight `{name}` of shape {:?} does not fit its {misfit}", tensor.shape));
        }
        if let Err(what) = self.pixels.validate() {
            return bad(format!("pixels contract: {what}"));
        }
        let input = [1, self.pixels.height, self.pixels.width, self.pixels.channels()];
        if self.graph.input_shape() != Some(input) {
            return bad(format!(
                "the graph takes {:?} but the pixels contract makes {input:?}",
                self.graph.input_shape().unwrap_or_default()
            ));
        }
        let output = self.graph.output().map(|id| self.graph.shape(id)).unwrap_or_default();
        if output != [1, 1, 1, self.labels.len()] {
            return bad(format!("the graph gives {output:?} for {} labels", self.labels.len()));
        }
        let temperature = self.calibration.temperature;
        if !(temperature.is_finite() && temperature > 0.0) {
            return bad(format!("the temperature is {temperature}, expected a positive number"));
        }
        if let Some(share) = self.provenance.val_top1
            && !(0.0..=1.0).contains(&share)
        {
            return bad(format!("the accuracy val_top1 is {share}, expected 0 to 1"));
        }
        Ok(())
    }

    /// Whether weights or results are kept in integers.
    fn has_integers(&self) -> bool {
        self.graph.is_quantized() || self.weights.values().any(|tensor| tensor.data.is_integers())
    }

    /// The oldest version of the format that can say it.
    fn format(&self) -> u32 {
        let any = |is: fn(&Data) -> bool| self.weights.values().any(|tensor| is(&tensor.data));
        match () {
            () if any(|data| matches!(data, Data::Sparse(_))) => FORMAT,
            () if any(|data| matches!(data, Data::I4(_))) => 3,
            () => 1 + u32::from(self.has_integers()),
        }
    }

    /// The file's bytes. The same model always gives the same bytes.
    ///
    /// # Errors
    /// What [`check`](Self::check) finds, or a document too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let document = Document {
            hash: "0".repeat(HASH_DIGITS),
            format: self.format(),
            arch: Cow::Borrowed(&self.arch),
            graph: Cow::Borrowed(self.graph.nodes()),
            pixels: Cow::Borrowed(&self.pixels),
            labels: Cow::Borrowed(&self.labels),
            calibration: Cow::Borrowed(&self.calibration),
            provenance: Cow::Borrowed(&self.provenance),
        };
        let fault =
            |error: &dyn core::fmt::Display| Error::File(format!("the model cannot be written: {error}"));
        let json = serde_json::to_string(&document).map_err(|error| fault(&error))?;
        let metadata = [(METADATA_KEY.to_string(), json)].into_iter().collect();
        let views = self.weights.iter().flat_map(|(name, tensor)| {
            let beside = match &tensor.data {
                Data::I8(q) => Some((SCALES, Data::F32(q.scales.clone()))),
                Data::I4(q) => Some((SCALES, Data::F16(q.scales.clone()))),
                Data::Sparse(s) => Some((VALUES, Data::F32(s.values.clone()))),
                Data::F32(_) | Data::F16(_) => None,
            };
            let beside = beside.map(|(suffix, data)| {
                let tensor = Tensor { shape: [data.len()].to_vec(), data };
                (format!("{name}{suffix}"), TensorView::of(Cow::Owned(tensor)))
            });
            [(name.clone(), TensorView::of(Cow::Borrowed(tensor)))].into_iter().chain(beside)
        });
        let mut bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| fault(&error))?;
        let place = hash_place(&bytes).ok_or_else(|| Error::File("the hash has no place".into()))?;
        let hash = blake3::hash(&bytes).to_hex();
        bytes[place..place + HASH_DIGITS].copy_from_slice(hash.as_bytes());
        Ok(bytes)
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::File`] for anything that is not a whole, unchanged model of a known format version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, Error> {
        const FOREIGN: &str = "not a penjing model; `penjing weights import` reads weights of other tools";
        let damaged = |what: &dyn core::fmt::Display| {
            Error::File(format!("the file is damaged: {what}; copy it again"))
        };
        let foreign = |what: &str| match hash_place(bytes) {
            Some(_) => damaged(&what),
            None => Error::File(format!("{FOREIGN} ({what})")),
        };
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(foreign("shorter than any model"));
        };
        let header_len = u64::from_le_bytes(*length);
        if header_len > MAX_HEADER_BYTES {
            return Err(foreign("its header length is out of range"));
        }
        if !rest.starts_with(b"{") {
            return Err(foreign("no safetensors header"));
        }
        if header_len > rest.len() as u64 {
            return Err(Error::File(format!(
                "the file is cut short: its header has {header_len} bytes, {} are there; copy it again",
                rest.len()
            )));
        }
        // Less than `rest` has, so that it fits `usize`.
        let (header, data) = rest.split_at(header_len as usize);
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|error| foreign(&format!("safetensors: {error}")))?;
        let json = metadata.metadata().as_ref().and_then(|map| map.get(METADATA_KEY));
        let json = json.ok_or_else(|| foreign("safetensors without a `penjing` entry"))?;

        #[derive(Deserialize)]
        struct Version {
            format: u32,
            hash: String,
        }
        let version: Version = serde_json::from_str(json).map_err(|error| damaged(&error))?;
        if version.format > FORMAT {
            return Err(Error::File(format!(
                "made by a newer penjing: format {}, this one reads up to {FORMAT}; update penjing",
                version.format
            )));
        }
        if data.len() != metadata.data_len() {
            return Err(Error::File(format!(
                "the file is cut short or padded: {} bytes of weights, {} expected; copy it again",
                data.len(),
                metadata.data_len()
            )));
        }
        check_hash(bytes, &version.hash)?;

        // What does not fit from here on was written so.
        let unsound =
            |what: &dyn core::fmt::Display| Error::File(format!("the file holds no sound model: {what}"));
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| unsound(&error))?;
        let document: Document<'_> = serde_json::from_str(json).map_err(|error| unsound(&error))?;
        let mut weights = Weights::new();
        let is_packed =
            |name: &str| tensors.tensor(name).is_ok_and(|view| matches!(view.dtype(), Dtype::I8 | Dtype::U8));
        for (name, view) in tensors.iter() {
            // Read with the weight that it stands beside.
            if [SCALES, VALUES].iter().any(|suffix| name.strip_suffix(suffix).is_some_and(is_packed)) {
                continue;
            }
            let mut shape = view.shape().to_vec();
            let data = match view.dtype() {
                Dtype::F32 => Data::F32(values(view.data(), f32::from_le_bytes)),
                Dtype::F16 => Data::F16(values(view.data(), half::f16::from_le_bytes)),
                Dtype::I8 => Data::I8(Quantized {
                    values: values(view.data(), i8::from_le_bytes),
                    scales: scales_of(&tensors, name, view.shape()).map_err(|what| unsound(&what))?,
                }),
                Dtype::U8 if tensors.tensor(&format!("{name}{VALUES}")).is_ok() => Data::Sparse(
                    sparse_of(&tensors, name, view.data(), &mut shape).map_err(|what| unsound(&what))?,
                ),
                Dtype::U8 => Data::I4(
                    nibbles_of(&tensors, name, view.data(), &mut shape).map_err(|what| unsound(&what))?,
                ),
                other => return Err(unsound(&format!("weight `{name}` has type {other:?}"))),
            };
            weights.insert(name.to_string(), Tensor { shape, data });
        }
        let mut graph = Graph::default();
        for node in document.graph.iter() {
            let id = graph.push(&node.name, node.op.clone(), &node.inputs)?;
            graph.set_quant(id, node.quant)?;
        }
        let model = Model {
            arch: document.arch.into_owned(),
            graph,
            weights,
            pixels: document.pixels.into_owned(),
            labels: document.labels.into_owned(),
            calibration: document.calibration.into_owned(),
            provenance: document.provenance.into_owned(),
        };
        model.check()?;
        Ok(model)
    }

    /// Every weight as 32-bit floats.
    pub fn to_floats(mut self) -> Model {
        for tensor in self.weights.values_mut().filter(|tensor| !matches!(tensor.data, Data::F32(_))) {
            *tensor = Tensor::f32(&tensor.shape, tensor.to_f32());
        }
        self
    }

    /// Every weight at half precision, except what BatchNorm folds with: its numbers span too many magnitudes.
    pub fn to_half(mut self) -> Model {
        for node in self.graph.nodes() {
            if let Op::Conv(_) | Op::Linear { .. } = node.op
                && let Some(tensor) = self.weights.get_mut(&format!("{}.weight", node.name))
            {
                *tensor = tensor.to_f16();
            }
        }
        self
    }
}

/// The scales of a weight of integers.
fn scales_of(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let scales = tensors.tensor(&format!("{name}{SCALES}"));
    let Some(view) = scales.ok().filter(|view| view.dtype() == Dtype::F32) else {
        return Err(format!("weight `{name}` has integers without scales"));
    };
    let scales = values(view.data(), f32::from_le_bytes);
    if scales.len() != 1 && Some(&scales.len()) != shape.first() {
        return Err(format!("weight `{name}` of shape {shape:?} has {} scales", scales.len()));
    }
    match scales.iter().find(|scale| !(scale.is_normal() && **scale > 0.0)) {
        Some(scale) => Err(format!("weight `{name}` has the scale {scale}, expected a positive number")),
        None => Ok(scales),
    }
}

/// A weight in 4 bits. Its innermost extent, which was of bytes, is doubled.
fn nibbles_of(
    tensors: &SafeTensors<'_>,
    name: &str,
    packed: &[u8],
    shape: &mut [usize],
) -> Result<Nibbles, String> {
    let scales = tensors.tensor(&format!("{name}{SCALES}"));
    let Some(view) = scales.ok().filter(|view| view.dtype() == Dtype::F16) else {
        return Err(format!("weight `{name}` has integers without scales"));
    };
    let scales = values(view.data(), half::f16::from_le_bytes);
    if let [_, .., inner] = shape {
        // Not more than twice the bytes that are there, where any are.
        *inner = inner.checked_mul(2).ok_or_else(|| format!("weight `{name}` is too large"))?;
    }
    if !Nibbles::fit(shape) {
        return Err(format!("weight `{name}` of shape {shape:?} cannot be in 4 bits"));
    }
    let each = shape.iter().skip(1).product();
    let nibbles = Nibbles { packed: packed.to_vec(), scales, each };
    if !nibbles.is_of(shape) {
        let scales = nibbles.scales.len();
        return Err(format!("weight `{name}` of shape {shape:?} in 4 bits has {scales} scales"));
    }
    match nibbles.scales.iter().find(|scale| !(scale.is_normal() && **scale > half::f16::ZERO)) {
        Some(scale) => Err(format!("weight `{name}` has the scale {scale}, expected a positive number")),
        None => Ok(nibbles),
    }
}

/// A weight whose zeros are left out. Its innermost extent, which was of bytes, is that of bits.
fn sparse_of(
    tensors: &SafeTensors<'_>,
    name: &str,
    kept: &[u8],
    shape: &mut [usize],
) -> Result<Sparse, String> {
    let beside = tensors.tensor(&format!("{name}{VALUES}"));
    let Some(view) = beside.ok().filter(|view| view.dtype() == Dtype::F32) else {
        return Err(format!("weight `{name}` has values of another type than F32"));
    };
    if let [_, .., inner] = shape {
        // Not more than eight times the bytes that are there, where any are.
        *inner = inner.checked_mul(8).ok_or_else(|| format!("weight `{name}` is too large"))?;
    }
    let sparse = Sparse { kept: kept.to_vec(), values: values(view.data(), f32::from_le_bytes) };
    if !sparse.is_of(shape) {
        let count = sparse.values.len();
        return Err(format!(
            "weight `{name}` of shape {shape:?} keeps {count} values, another number than it says"
        ));
    }
    Ok(sparse)
}

fn values<T, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect()
}

/// Where the hash's digits stand: they follow the first `"hash":"` of the document, whose quotes are escaped.
fn hash_place(bytes: &[u8]) -> Option<usize> {
    const MARK: &[u8] = br#""penjing":"{\"hash\":\""#;
    let header_len = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    let header = bytes.get(8..)?.get(..usize::try_from(header_len).ok()?)?;
    let at = header.windows(MARK.len()).position(|window| window == MARK)?;
    let place = 8 + at + MARK.len();
    (place + HASH_DIGITS <= 8 + header.len()).then_some(place)
}

fn check_hash(bytes: &[u8], stated: &str) -> Result<(), Error> {
    let damaged =
        Error::File("the file is damaged: its hash does not match its contents; copy it again".into());
    let Some(place) = hash_place(bytes) else { return Err(damaged) };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..place]);
    hasher.update(&[b'0'; HASH_DIGITS]);
    hasher.update(&bytes[place + HASH_DIGITS..]);
    let found = hasher.finalize().to_hex();
    let there = &bytes[place..place + HASH_DIGITS];
    if stated.as_bytes() == there && found.as_bytes() == there { Ok(()) } else { Err(damaged) }
}

/// A [`Tensor`] as safetensors writes it: little-endian bytes, their shape that of bytes where two values share one.
struct TensorView<'a> {
    tensor: Cow<'a, Tensor>,
    shape: Vec<usize>,
}

impl<'a> TensorView<'a> {
    fn of(tensor: Cow<'a, Tensor>) -> Self {
        let mut shape = tensor.shape.clone();
        if let Some(inner) = shape.last_mut() {
            *inner /= match tensor.data {
                Data::I4(_) => 2,
                Data::Sparse(_) => 8,
                _ => 1,
            };
        }
        TensorView { tensor, shape }
    }
}

impl View for TensorView<'_> {
    fn dtype(&self) -> Dtype {
        match self.tensor.data {
            Data::F32(_) => Dtype::F32,
            Data::F16(_) => Dtype::F16,
            Data::I8(_) => Dtype::I8,
            Data::I4(_) | Data::Sparse(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.tensor.to_le_bytes())
    }

    fn data_len(&self) -> usize {
        match &self.tensor.data {
            Data::F32(values) => values.len() * 4,
            Data::F16(values) => values.len() * 2,
            Data::I8(q) => q.values.len(),
            Data::I4(q) => q.packed.len(),
            Data::Sparse(s) => s.kept.len(),
        }
    }
}
