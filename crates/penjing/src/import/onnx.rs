//! Image classifiers in ONNX files, node by node put into penjing's operations.
//!
//! An exporter's file holds what its framework computed, in the file's axes `[N,C,H,W]`, with shapes computed on the way and
//! activations taken apart. Each value is followed from the image to the result: as a layer's result under some order of
//! axes, or as a constant. Only what the result needs is looked at; what no operation here does is refused by name.

mod arithmetic;
mod array;
mod contract;
mod draft;
mod external;
mod fold;
mod layers;
mod node;
mod reader;
mod shapes;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    path::Path,
};

use penjing_runtime::{file::Model, graph::Graph, op::Shape, tensor::Weights};

use self::{
    array::Array,
    contract::{Metadata, Normalized},
    draft::Draft,
    external::Folder,
    node::Node,
    reader::{Edge, Form, Reader, Value},
};
use super::{
    Details, MAX_BYTES, MAX_LISTED, MAX_TENSOR_BYTES, What, assemble, closing, shown, strided::Budget,
};
use crate::{
    Error, Result,
    onnx::{self, element},
    zoo::{Arch, Config},
};

/// What an ONNX file does not say, or says otherwise. Where a field is `None`, the file's word counts, or else a default.
#[derive(Clone, Debug, Default)]
pub struct OnnxDetails {
    /// Height and width of the input in pixels; needed where the file leaves them open.
    pub size: Option<usize>,
    /// Class names; otherwise those of the file, or else the numbers from 0.
    pub labels: Option<Vec<String>>,
    /// Subtracted from each channel before the file's network, in units of 0..=255; otherwise ImageNet's mean.
    pub mean: Option<[f32; 3]>,
    /// Divides each channel afterwards, in units of 0..=255; otherwise ImageNet's deviation.
    pub std: Option<[f32; 3]>,
    /// Where the network comes from, in words; otherwise what the file says, or its name.
    pub source: Option<String>,
    /// Its licence (SPDX); otherwise that of the file, or "unknown".
    pub license: Option<String>,
}

/// What was read from an ONNX file.
#[derive(Clone, Debug, PartialEq)]
pub struct Onnx {
    /// The classifier.
    pub model: Model,
    /// Names of the file's constants that its result does not need, sorted.
    pub skipped: Vec<String>,
    /// Whether the file itself says how photos become its input.
    pub has_contract: bool,
}

/// Whether `bytes` begin as ONNX files do, with the field that every writer puts first: the version of the format, a small
/// number; and not as a state dict does.
pub fn is_onnx(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=0x7f, ..]) && !super::safetensors::is_one(bytes)
}

/// Reads the classifier in the ONNX file at `path`, and the files beside it that hold its weights; see [`parse_onnx`].
///
/// # Errors
/// [`Error::Io`] where the file cannot be read, [`Error::Model`] for everything [`parse_onnx`] refuses.
pub fn read_onnx(path: &Path, details: OnnxDetails) -> Result<Onnx> {
    parse(path, &super::read_bytes(path)?, Folder::of(path), details)
}

/// Reads the classifier in `bytes`, the content of the ONNX file called `name` in messages. The batch becomes 1.
///
/// # Errors
/// [`Error::Model`] for a file that is none or damaged, one beyond 2 GiB or whose weights are beyond 4 GiB, one with
/// operations that are not known here (all of them are named), with several inputs or results, with an input of open size
/// where `details` has none, or with weights in another file.
pub fn parse_onnx(name: &Path, bytes: &[u8], details: OnnxDetails) -> Result<Onnx> {
    parse(name, bytes, Folder::none(), details)
}

fn parse(name: &Path, bytes: &[u8], folder: Folder, details: OnnxDetails) -> Result<Onnx> {
    let fault = |what: String| Error::model(name, what);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fault(format!("is larger than the {MAX_BYTES} bytes that are read")));
    }
    let proto = onnx::decode(bytes).map_err(fault)?;
    let metadata = Metadata::of(&proto.metadata_props).map_err(fault)?;
    let network = Network::read(proto, folder, details.size, bytes.len()).map_err(fault)?;
    let (graph, weights) = closing::with_logits(&network.graph, network.weights).map_err(fault)?;
    let [_, height, width, channels] = network.shape;
    let normalized = Normalized { by: network.image, bytes: network.is_bytes };
    let has_contract = metadata.pixels.is_some();
    let pixels =
        contract::pixels(&metadata, [height, width, channels], normalized, &details).map_err(fault)?;

    let file_name = name.file_name().unwrap_or_default().to_string_lossy();
    let from_file = |given: Option<String>, stated: Option<String>, otherwise: &str| {
        given.or(stated).unwrap_or_else(|| otherwise.to_string())
    };
    let details = Details {
        labels: details.labels.or(metadata.labels),
        source: from_file(details.source, metadata.source, &file_name),
        license: from_file(details.license, metadata.license, "unknown"),
        ..Details::default()
    };
    let hash = blake3::hash(bytes).to_hex().to_string();
    let arch = metadata.arch.filter(|name| is_the_zoos(name, &graph)).unwrap_or_else(|| ARCH.to_string());
    let mut model = assemble::model(name, arch, graph, weights, pixels, hash, details)?;
    if let Some(temperature) = metadata.temperature {
        model.calibration.temperature = temperature;
        model.check().map_err(|error| fault(error.to_string()))?;
    }
    Ok(Onnx { model, skipped: network.skipped, has_contract })
}

/// The name of an architecture that only its graph describes.
const ARCH: &str = "onnx";

/// Whether the zoo's network of this name is just this graph: then it can be made for other sizes too.
fn is_the_zoos(name: &str, graph: &Graph) -> bool {
    let (Ok((arch, width)), Some([_, size, _, channels])) = (Arch::named(name), graph.input_shape()) else {
        return false;
    };
    let classes = graph.output().map_or(0, |last| graph.shape(last)[3]);
    let config = Config { width, size, gray: channels == 1, ..arch.config(classes) };
    arch.graph(&config).is_ok_and(|zoos| zoos == *graph)
}

/// The network of a file.
struct Network {
    graph: Graph,
    weights: Weights,
    /// Of the image, `[1,H,W,C]`.
    shape: Shape,
    /// What the image goes through before any layer.
    image: Option<draft::Affine>,
    /// Whether the image is bytes.
    is_bytes: bool,
    skipped: Vec<String>,
}

impl Network {
    fn read(proto: onnx::Model, mut folder: Folder, size: Option<usize>, stored: usize) -> What<Self> {
        let onnx::Model { graph, opset_import, functions, .. } = proto;
        let graph = graph.filter(|graph| !graph.node.is_empty()).ok_or("is no ONNX file: it has no nodes")?;
        let opset = opset_import.iter().find(|set| is_standard(&set.domain)).map_or(1, |set| set.version);
        if opset < OLDEST_OPSET {
            return Err(format!(
                "uses version {opset} of ONNX's operations; export it with version {OLDEST_OPSET} or newer"
            ));
        }
        let stored_names: BTreeSet<&str> = graph.initializer.iter().map(|tensor| &tensor.name[..]).collect();
        // Old files list their weights among the inputs too.
        let inputs: Vec<&onnx::ValueInfo> =
            graph.input.iter().filter(|input| !stored_names.contains(&input.name[..])).collect();
        let one = |what: &str, names: Vec<&str>| -> What<String> {
            match names[..] {
                [one] => Ok(one.to_string()),
                [] => Err(format!("has no {what}")),
                _ => Err(format!(
                    "has {} {what}s, {}; a classifier takes one image and gives one vector: export it so",
                    names.len(),
                    listed(names.iter().copied())
                )),
            }
        };
        let image = one("input", inputs.iter().map(|input| &input.name[..]).collect())?;
        let result = one("result", graph.output.iter().map(|output| &output.name[..]).collect())?;
        let (shape, form, is_bytes) = input_shape(inputs[0], size)?;

        let nodes: Vec<(String, Node)> =
            graph.node.into_iter().map(|node| (node.domain.clone(), Node::new(node))).collect();
        let order = order(&nodes, &result)?;
        refuse_unknown(&nodes, &order, &functions)?;
        let needed: BTreeSet<&str> =
            order.iter().flat_map(|&at| nodes[at].1.inputs.iter().map(String::as_str)).collect();

        let mut constants = BTreeMap::new();
        let mut skipped = Vec::new();
        let mut left = MAX_TENSOR_BYTES;
        for tensor in graph.initializer {
            if !needed.contains(&tensor.name[..]) {
                skipped.push(tensor.name);
                continue;
            }
            let name = tensor.name.clone();
            let told = |what: String| format!("the constant `{}` {what}", shown(&name));
            let array = Array::read(tensor, &mut folder, &mut left).map_err(told)?;
            if constants.insert(name.clone(), array).is_some() {
                return Err(format!("has two constants called `{}`", shown(&name)));
            }
        }
        skipped.sort();
        let total = constants.values().map(Array::len).fold(stored, |sum, len| sum.saturating_add(4 * len));
        let draft = Draft::new(&image, shape, Budget::new(total))
            .map_err(|what| format!("its input `{}`: {what}", shown(&image)))?;
        let mut reader = Reader::new(draft, image, form, opset);
        for (name, array) in constants {
            reader.define(name, array);
        }
        let read = order.iter().flat_map(|&at| &nodes[at].1.inputs);
        reader.count_uses(read.chain(std::iter::once(&result)));
        for &at in &order {
            reader.run(&nodes[at].1)?;
        }
        let last = ending(&mut reader, &result)?;
        let (mut graph, weights, image) = reader.draft.finish(last)?;
        let shape = [1, shape[1], shape[2], shape[3]];
        graph = graph.with_input(shape).map_err(|error| error.to_string())?;
        Ok(Network { graph, weights, shape, image, is_bytes, skipped })
    }
}

/// The oldest version of ONNX's operations whose sums and products broadcast as all later ones do.
const OLDEST_OPSET: i64 = 7;

fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// Names for a message, the first ones of many.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let mut text: Vec<String> = names.take(MAX_LISTED).map(|name| format!("`{}`", shown(name))).collect();
    if count > MAX_LISTED {
        text.push(format!("and {} more", count - MAX_LISTED));
    }
    text.join(", ")
}

/// The shape `[N,H,W,C]` of the image, the order of its axes in the file, and whether it is bytes.
fn input_shape(input: &onnx::ValueInfo, size: Option<usize>) -> What<(Shape, Form, bool)> {
    let fault = |what: String| format!("its input `{}` {what}", shown(&input.name));
    let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| fault("is no tensor".into()))?;
    let is_bytes = match tensor.elem_type {
        element::UINT8 => true,
        element::FLOAT | element::FLOAT16 | element::DOUBLE | element::BFLOAT16 => false,
        other => return Err(fault(format!("has elements of type {other}; expected floats or bytes"))),
    };
    let dims = tensor.shape.as_ref().map(|shape| &shape.dim[..]).unwrap_or_default();
    let known = |at: usize| dims[at].dim_value.filter(|&extent| extent > 0);
    if dims.len() != 4 {
        return Err(fault(format!("has {} axes; expected an image [N,C,H,W] or [N,H,W,C]", dims.len())));
    }
    let color = |at: usize| matches!(known(at), Some(1 | 3));
    let (form, [h, w, c]) = if color(1) {
        (Form::Map, [2, 3, 1])
    } else if color(3) {
        (Form::Last, [1, 2, 3])
    } else {
        let shape: Vec<String> =
            (0..4).map(|at| known(at).map_or("?".to_string(), |extent| extent.to_string())).collect();
        return Err(fault(format!(
            "has the shape [{}]; expected an image of 1 or 3 channels, [N,C,H,W] or [N,H,W,C]",
            shape.join(",")
        )));
    };
    let side = |at: usize| match (size, known(at)) {
        (Some(size), _) => Ok(size),
        (None, Some(side)) => {
            usize::try_from(side).map_err(|_| fault(format!("has a side of {side} pixels")))
        }
        (None, None) => Err(fault("has no fixed height and width; give the network's with --size PX".into())),
    };
    let batch = match known(0) {
        None => 1,
        Some(batch) => usize::try_from(batch).map_err(|_| fault(format!("is {batch} photos")))?,
    };
    let channels = if known(c) == Some(1) { 1 } else { 3 };
    Ok(([batch, side(h)?, side(w)?, channels], form, is_bytes))
}

/// The nodes that the result needs, each after those that it needs; in the file's order, if that is one.
fn order(nodes: &[(String, Node)], result: &str) -> What<Vec<usize>> {
    let mut made_by = BTreeMap::new();
    for (at, (_, node)) in nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            if made_by.insert(&name[..], at).is_some() {
                return Err(format!("makes `{}` in two nodes; the file is damaged", shown(name)));
            }
        }
    }
    let before = |at: usize| nodes[at].1.inputs.iter().filter_map(|name| made_by.get(&name[..]).copied());
    let last =
        *made_by.get(result).ok_or_else(|| format!("its result `{}` is made by no node", shown(result)))?;
    let mut needed = vec![false; nodes.len()];
    let mut open = vec![last];
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut needed[at], true) {
            open.extend(before(at));
        }
    }
    let mut waits = vec![0usize; nodes.len()];
    let mut readers = vec![Vec::new(); nodes.len()];
    for at in (0..nodes.len()).filter(|&at| needed[at]) {
        for earlier in before(at) {
            waits[at] += 1;
            readers[earlier].push(at);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|&at| needed[at] && waits[at] == 0).map(Reverse).collect();
    let mut order = Vec::new();
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for &reader in &readers[at] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    match (0..nodes.len()).find(|&at| needed[at] && waits[at] > 0) {
        Some(at) => Err(format!("goes in a circle: {} needs its own result", nodes[at].1.shown())),
        None => Ok(order),
    }
}

/// Names all operations that are not known, and the nodes that use them.
fn refuse_unknown(nodes: &[(String, Node)], order: &[usize], functions: &[onnx::Function]) -> What<()> {
    let mut unknown: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let own: BTreeSet<(&str, &str)> = functions.iter().map(|f| (&f.domain[..], &f.name[..])).collect();
    let mut uses_own = false;
    for &at in order {
        let (domain, node) = &nodes[at];
        if is_standard(domain) && reader::operation(&node.op_type).is_some() {
            continue;
        }
        let name =
            if is_standard(domain) { node.op_type.clone() } else { format!("{domain}.{}", node.op_type) };
        unknown.entry(name).or_default().push(&node.name);
        uses_own |= own.contains(&(&domain[..], &node.op_type[..]));
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = unknown
        .iter()
        .map(|(op, nodes)| format!("{} in {}", shown(op), listed(nodes.iter().copied())))
        .collect();
    let hint = match uses_own {
        true => "; some are functions of the file's own, which `onnx.inliner` puts into the graph",
        false => "",
    };
    let count = match unknown.len() {
        1 => "an operation that is".to_string(),
        count => format!("{count} operations that are"),
    };
    Err(format!("uses {count} not known here: {}{hint}", all.join("; ")))
}

/// The layer that gives one value for each class.
fn ending(reader: &mut Reader, result: &str) -> What<usize> {
    let edge = match reader.value(result)? {
        Value::Edge(edge) => edge.clone(),
        Value::Constant(_) => return Err("its result does not depend on the image".into()),
    };
    let dims = reader.dims(&edge);
    let Edge { at, form, .. } = reader.settle(result, edge)?;
    let [_, h, w, _] = reader.draft.layer(at).shape;
    match form {
        Form::Vector { of: None } => Ok(at),
        Form::Map | Form::Last | Form::Line if [h, w] == [1, 1] => Ok(at),
        Form::Map | Form::Last | Form::Line | Form::Vector { .. } | Form::Groups { .. } => {
            Err(format!("its result has the shape {dims:?}; expected one value for each class"))
        }
    }
}
