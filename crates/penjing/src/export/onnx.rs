//! ONNX: the network in the file's axes `[N,C,H,W]`, in 32-bit floats, with what the model file says in its metadata.

use std::collections::BTreeSet;

use penjing_runtime::{
    Act,
    file::Model,
    graph::{Graph, Node, NodeId},
    op::{AvgPool, Conv, Op, Pool, Shape},
    pixels::Pixels,
    tensor::Weights,
};

use crate::{
    Error, Result,
    onnx::{self, element, kind},
};

/// The version of ONNX's operations that is written. HardSwish came with 14.
const OPSET: i64 = 17;
/// The version of the file format that is written: that of the first releases that know [`OPSET`].
const IR_VERSION: i64 = 8;
/// Most bytes of an ONNX file: protocol buffers end there.
const MAX_BYTES: usize = (2 << 30) - 1;

/// How a model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Keep BatchNorm and Dropout as nodes, for training elsewhere; otherwise the one is folded into the convolution before
    /// it and the other left out.
    pub keep_batch_norm: bool,
    /// Take bytes `[N,H,W,3]` (gray: `[N,H,W,1]`), already cropped and resized, and normalize them inside; otherwise the
    /// input is `[N,3,H,W]`, normalized, in 32-bit floats.
    pub with_preprocessing: bool,
    /// Leave the number of photos open; otherwise it is 1.
    pub dynamic_batch: bool,
}

/// The ONNX file of a model: input `image`, result `logits` `[N, classes]`, which still are to be divided by the
/// temperature before the softmax.
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
    let mut writer = Writer::new(&model.graph, &model.weights, options);
    writer.input(&model.pixels);
    for (id, node) in model.graph.iter().skip(1) {
        if writer.results[id.index()].is_none() {
            writer.node(id, node).map_err(unsupported)?;
        }
    }
    let classes = model.labels.len();
    let file = writer.finish(model.graph.output(), classes, metadata(model)?).map_err(unsupported)?;
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

/// What stands for a node's result in the file.
#[derive(Clone, Debug)]
struct Value {
    name: String,
    /// Whether it is `[N,C]`, not `[N,C,H,W]`.
    flat: bool,
    /// Where it is a map `[H,W,C]` laid flat in the file's order, which has the channels first.
    channels_first: Option<[usize; 3]>,
}

/// A BatchNorm that goes into the layer before it: factor and shift of each channel.
struct Folding {
    norm: NodeId,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// What a layer is written with, and the last of the nodes that it stands for.
struct Parameters {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    last: NodeId,
}

struct Writer<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    options: OnnxOptions,
    users: Vec<Vec<NodeId>>,
    results: Vec<Option<Value>>,
    names: BTreeSet<String>,
    nodes: Vec<onnx::Node>,
    constants: Vec<onnx::Tensor>,
    inputs: Vec<onnx::ValueInfo>,
}

const INPUT: &str = "image";
const OUTPUT: &str = "logits";

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph, weights: &'a Weights, options: OnnxOptions) -> Self {
        let count = graph.nodes().len();
        let mut users = vec![Vec::new(); count];
        for (id, node) in graph.iter() {
            node.inputs.iter().for_each(|input| users[input.index()].push(id));
        }
        Writer {
            graph,
            weights,
            options,
            users,
            results: vec![None; count],
            names: [INPUT, OUTPUT].map(String::from).into(),
            nodes: Vec::new(),
            constants: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// A name for a value that no other has.
    fn fresh(&mut self, name: &str) -> String {
        let numbered = (2..).map(|number| format!("{name}.{number}"));
        let free = std::iter::once(name.to_string()).chain(numbered).find(|name| !self.names.contains(name));
        let free = free.unwrap_or_else(|| name.to_string());
        self.names.insert(free.clone());
        free
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, element::FLOAT, raw)
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[values.len()], element::INT64, raw)
    }

    fn constant(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        let name = self.fresh(name);
        let dims = shape.iter().map(|&extent| extent as i64).collect();
        self.constants.push(onnx::Tensor {
            name: name.clone(),
            dims,
            data_type,
            raw_data,
            ..onnx::Tensor::default()
        });
        name
    }

    /// Appends an operation of this name and gives its result.
    fn push(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<onnx::Attribute>) -> String {
        let output = self.fresh(name);
        self.nodes.push(onnx::Node {
            op_type: op.to_string(),
            name: name.to_string(),
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![output.clone()],
            attribute: attributes,
            ..onnx::Node::default()
        });
        output
    }

    /// The input, and what it goes through before the first layer.
    fn input(&mut self, pixels: &Pixels) {
        let (c, h, w) = (pixels.channels(), pixels.height, pixels.width);
        let name = if !self.options.with_preprocessing {
            let shape = [c, h, w];
            self.inputs.push(value_info(INPUT, element::FLOAT, &shape, self.options.dynamic_batch));
            INPUT.to_string()
        } else {
            self.inputs.push(value_info(INPUT, element::UINT8, &[h, w, c], self.options.dynamic_batch));
            let cast = vec![int("to", element::FLOAT.into())];
            let x = self.push("Cast", "image.float", &[INPUT], cast);
            let x = self.push("Transpose", "image.planes", &[&x], vec![ints("perm", &[0, 3, 1, 2])]);
            let mean = self.floats("image.mean", &[1, c, 1, 1], &pixels.mean[..c]);
            let std = self.floats("image.std", &[1, c, 1, 1], &pixels.std[..c]);
            let x = self.push("Sub", "image.centred", &[&x, &mean], Vec::new());
            self.push("Div", "image.normalized", &[&x, &std], Vec::new())
        };
        if let Some(first) = self.results.first_mut() {
            *first = Some(Value { name, flat: false, channels_first: None });
        }
    }

    fn value(&self, id: NodeId) -> Result<Value, String> {
        self.results[id.index()].clone().ok_or_else(|| "its layers stand in no order".to_string())
    }

    /// The result of a node as `[N,C,H,W]`.
    fn map(&mut self, id: NodeId) -> Result<String, String> {
        let value = self.value(id)?;
        if !value.flat {
            return Ok(value.name);
        }
        let name = format!("{}.map", value.name);
        let axes = self.ints(&format!("{name}.axes"), &[2, 3]);
        Ok(self.push("Unsqueeze", &name, &[&value.name, &axes], Vec::new()))
    }

    /// The result of a node as `[N,C]`; of a map that is one pixel.
    fn vector(&mut self, id: NodeId) -> Result<Value, String> {
        let value = self.value(id)?;
        if value.flat {
            return Ok(value);
        }
        let name =
            self.push("Flatten", &format!("{}.flat", value.name), &[&value.name], vec![int("axis", 1)]);
        Ok(Value { name, flat: true, channels_first: None })
    }

    fn weight(&self, node: &Node, suffix: &str) -> Result<Vec<f32>, String> {
        let name = format!("{}.{suffix}", node.name);
        self.weights.get(&name).map(|tensor| tensor.to_f32()).ok_or_else(|| format!("`{name}` is missing"))
    }

    fn node(&mut self, id: NodeId, node: &Node) -> Result<(), String> {
        let map = |name: String| Value { name, flat: false, channels_first: None };
        let shape = node.inputs.first().map_or(node.shape, |&input| self.graph.shape(input));
        let result = match &node.op {
            Op::Input { .. } => return Err("it has a second input".into()),
            Op::Conv(conv) => return self.conv(id, node, conv, shape),
            Op::Linear { bias, .. } => return self.linear(id, node, *bias),
            Op::BatchNorm { eps } => self.batch_norm(node, *eps)?,
            Op::Act(act) => self.act(node, *act)?,
            Op::Dropout { rate } => self.dropout(node, *rate)?,
            Op::Add => self.joined("Add", node)?,
            Op::Mul => self.joined("Mul", node)?,
            Op::Concat => {
                let inputs =
                    node.inputs.iter().map(|&input| self.map(input)).collect::<Result<Vec<_>, _>>()?;
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                map(self.push("Concat", &node.name, &inputs, vec![int("axis", 1)]))
            }
            Op::Slice { start, len } => {
                let x = self.map(node.inputs[0])?;
                let [from, to, axes] = [("start", *start), ("end", start + len), ("axes", 1)]
                    .map(|(name, value)| self.ints(&format!("{}.{name}", node.name), &[value as i64]));
                map(self.push("Slice", &node.name, &[&x, &from, &to, &axes], Vec::new()))
            }
            Op::ChannelShuffle { groups } => map(self.channel_shuffle(node, shape, *groups)?),
            Op::Pad { padding: [top, bottom, left, right] } => {
                let x = self.map(node.inputs[0])?;
                let pads = [0, 0, *top, *left, 0, 0, *bottom, *right].map(|side| side as i64);
                let pads = self.ints(&format!("{}.pads", node.name), &pads);
                map(self.push("Pad", &node.name, &[&x, &pads], vec![text("mode", "constant")]))
            }
            Op::MaxPool(pool) => {
                let x = self.map(node.inputs[0])?;
                map(self.push("MaxPool", &node.name, &[&x], window(pool)))
            }
            Op::AvgPool(AvgPool { window: pool, count_include_pad }) => {
                let x = self.map(node.inputs[0])?;
                let mut attributes = window(pool);
                attributes.push(int("count_include_pad", (*count_include_pad).into()));
                map(self.push("AveragePool", &node.name, &[&x], attributes))
            }
            Op::GlobalAvgPool => {
                let x = self.map(node.inputs[0])?;
                map(self.push("GlobalAveragePool", &node.name, &[&x], Vec::new()))
            }
            Op::Flatten => self.flatten(id, node, shape)?,
            Op::Softmax => {
                let x = self.value(node.inputs[0])?;
                let name = self.push("Softmax", &node.name, &[&x.name], vec![int("axis", 1)]);
                Value { name, ..x }
            }
        };
        self.results[id.index()] = Some(result);
        Ok(())
    }

    /// The BatchNorm that goes into this layer, with its factor and shift of each channel. The arithmetic is that of
    /// lowering, so that folding twice changes nothing.
    fn folded(&self, id: NodeId, channels: usize, bias: Option<&[f32]>) -> Result<Option<Folding>, String> {
        let [user] = self.users[id.index()][..] else { return Ok(None) };
        let norm = self.graph.node(user);
        let Op::BatchNorm { eps } = norm.op else { return Ok(None) };
        if self.options.keep_batch_norm {
            return Ok(None);
        }
        let [gamma, beta, mean, var] =
            ["gamma", "beta", "mean", "var"].map(|suffix| self.weight(norm, suffix));
        let (gamma, beta, mean, var) = (gamma?, beta?, mean?, var?);
        let factor = |c: usize| f64::from(gamma[c]) / (f64::from(var[c]) + f64::from(eps)).sqrt();
        let shift = |c: usize| {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[c]));
            (f64::from(beta[c]) + (bias - f64::from(mean[c])) * factor(c)) as f32
        };
        let scale = (0..channels).map(|c| factor(c) as f32).collect();
        Ok(Some(Folding { norm: user, scale, shift: (0..channels).map(shift).collect() }))
    }

    /// Weight and bias of a layer, BatchNorm folded in where that is asked for, and the last node that they stand for.
    fn parameters(&self, id: NodeId, node: &Node, has_bias: bool) -> Result<Parameters, String> {
        let mut weight = self.weight(node, "weight")?;
        let bias = if has_bias { Some(self.weight(node, "bias")?) } else { None };
        let Some(folding) = self.folded(id, node.shape[3], bias.as_deref())? else {
            return Ok(Parameters { weight, bias, last: id });
        };
        let per_output = weight.len() / folding.scale.len();
        for (row, factor) in weight.chunks_exact_mut(per_output).zip(folding.scale) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
        Ok(Parameters { weight, bias: Some(folding.shift), last: folding.norm })
    }

    /// Appends a layer and its weights; its result is that of all nodes from it to `last`.
    fn weighted(
        &mut self,
        [id, last]: [NodeId; 2],
        op: &str,
        input: &str,
        weight: (&[usize], &[f32]),
        bias: Option<Vec<f32>>,
        attributes: Vec<onnx::Attribute>,
    ) {
        let name = &self.graph.node(id).name;
        let weight = self.floats(&format!("{name}.weight"), weight.0, weight.1);
        let bias = bias.map(|bias| self.floats(&format!("{name}.bias"), &[bias.len()], &bias));
        let inputs: Vec<&str> = [input, &weight].into_iter().chain(bias.as_deref()).collect();
        let output = self.push(op, name, &inputs, attributes);
        let value = Value { name: output, flat: op == "Gemm", channels_first: None };
        self.results[id.index()] = Some(value.clone());
        self.results[last.index()] = Some(value);
    }

    fn conv(&mut self, id: NodeId, node: &Node, conv: &Conv, shape: Shape) -> Result<(), String> {
        let Parameters { weight, bias, last } = self.parameters(id, node, conv.bias)?;
        let [kh, kw] = conv.kernel;
        let (out, taps, channels) = (conv.out_channels, kh * kw, shape[3] / conv.groups);
        // [O, kh, kw, I] → [O, I, kh, kw].
        let mut first = Vec::with_capacity(weight.len());
        for o in 0..out {
            for c in 0..channels {
                first.extend((0..taps).map(|tap| weight[(o * taps + tap) * channels + c]));
            }
        }
        let [top, bottom, left, right] = conv.padding;
        let attributes = vec![
            sides("kernel_shape", &conv.kernel),
            sides("strides", &conv.stride),
            sides("pads", &[top, left, bottom, right]),
            sides("dilations", &conv.dilation),
            int("group", conv.groups as i64),
        ];
        let x = self.map(node.inputs[0])?;
        self.weighted([id, last], "Conv", &x, (&[out, channels, kh, kw], &first), bias, attributes);
        Ok(())
    }

    fn linear(&mut self, id: NodeId, node: &Node, has_bias: bool) -> Result<(), String> {
        let Parameters { weight, bias, last } = self.parameters(id, node, has_bias)?;
        let x = self.vector(node.inputs[0])?;
        let out = node.shape[3];
        let columns = weight.len() / out;
        let weight = match x.channels_first {
            None => weight,
            Some(of) => weight.chunks_exact(columns).flat_map(|row| channels_first(of, row)).collect(),
        };
        let attributes = vec![int("transB", 1)];
        self.weighted([id, last], "Gemm", &x.name, (&[out, columns], &weight), bias, attributes);
        Ok(())
    }

    fn batch_norm(&mut self, node: &Node, eps: f32) -> Result<Value, String> {
        let x = self.value(node.inputs[0])?;
        let mut inputs = vec![x.name.clone()];
        for suffix in ["gamma", "beta", "mean", "var"] {
            let values = self.weight(node, suffix)?;
            let values = match x.channels_first {
                None => values,
                Some(of) => channels_first(of, &values),
            };
            inputs.push(self.floats(&format!("{}.{suffix}", node.name), &[values.len()], &values));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let name = self.push("BatchNormalization", &node.name, &inputs, vec![float("epsilon", eps)]);
        Ok(Value { name, ..x })
    }

    fn act(&mut self, node: &Node, act: Act) -> Result<Value, String> {
        let x = self.value(node.inputs[0])?;
        let (of, layer) = (&x.name[..], &node.name[..]);
        let name = match act {
            Act::None => self.push("Identity", layer, &[of], Vec::new()),
            Act::Relu => self.push("Relu", layer, &[of], Vec::new()),
            Act::Relu6 => {
                let min = self.floats(&format!("{layer}.min"), &[], &[0.0]);
                let max = self.floats(&format!("{layer}.max"), &[], &[6.0]);
                self.push("Clip", layer, &[of, &min, &max], Vec::new())
            }
            Act::LeakyRelu(slope) => self.push("LeakyRelu", layer, &[of], vec![float("alpha", slope)]),
            Act::HSwish => self.push("HardSwish", layer, &[of], Vec::new()),
            Act::HSigmoid => {
                let line = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
                self.push("HardSigmoid", layer, &[of], line)
            }
            Act::Sigmoid => self.push("Sigmoid", layer, &[of], Vec::new()),
            Act::Silu => {
                let gate = self.push("Sigmoid", &format!("{layer}.sigmoid"), &[of], Vec::new());
                self.push("Mul", layer, &[of, &gate], Vec::new())
            }
        };
        Ok(Value { name, ..x })
    }

    fn dropout(&mut self, node: &Node, rate: f32) -> Result<Value, String> {
        let x = self.value(node.inputs[0])?;
        if !self.options.keep_batch_norm {
            return Ok(x);
        }
        let ratio = self.floats(&format!("{}.ratio", node.name), &[], &[rate]);
        let name = self.push("Dropout", &node.name, &[&x.name, &ratio], Vec::new());
        Ok(Value { name, ..x })
    }

    /// A sum or product of two results, which must have one rank.
    fn joined(&mut self, op: &str, node: &Node) -> Result<Value, String> {
        let [a, b] = [self.value(node.inputs[0])?, self.value(node.inputs[1])?];
        if a.flat && b.flat && a.channels_first == b.channels_first {
            let name = self.push(op, &node.name, &[&a.name, &b.name], Vec::new());
            return Ok(Value { name, ..a });
        }
        let [a, b] = [self.map(node.inputs[0])?, self.map(node.inputs[1])?];
        let name = self.push(op, &node.name, &[&a, &b], Vec::new());
        Ok(Value { name, flat: false, channels_first: None })
    }

    fn channel_shuffle(&mut self, node: &Node, [_, h, w, c]: Shape, groups: usize) -> Result<String, String> {
        let x = self.map(node.inputs[0])?;
        let name = &node.name;
        // 0 is what it was: the number of photos.
        let apart = self.ints(&format!("{name}.apart"), &[0, groups, c / groups, h, w].map(|e| e as i64));
        let whole = self.ints(&format!("{name}.whole"), &[0, c, h, w].map(|e| e as i64));
        let x = self.push("Reshape", &format!("{name}.groups"), &[&x, &apart], Vec::new());
        let swap = vec![ints("perm", &[0, 2, 1, 3, 4])];
        let x = self.push("Transpose", &format!("{name}.swapped"), &[&x], swap);
        Ok(self.push("Reshape", name, &[&x, &whole], Vec::new()))
    }

    fn flatten(&mut self, id: NodeId, node: &Node, [_, h, w, c]: Shape) -> Result<Value, String> {
        let input = self.value(node.inputs[0])?;
        if input.flat {
            return Ok(input);
        }
        let one_pixel = [h, w] == [1, 1];
        let axis = vec![int("axis", 1)];
        if one_pixel || self.only_columns(id) {
            let name = self.push("Flatten", &node.name, &[&input.name], axis);
            let of = if one_pixel { None } else { Some([h, w, c]) };
            return Ok(Value { name, flat: true, channels_first: of });
        }
        let perm = vec![ints("perm", &[0, 2, 3, 1])];
        let x = self.push("Transpose", &format!("{}.channels_last", node.name), &[&input.name], perm);
        Ok(Value { name: self.push("Flatten", &node.name, &[&x], axis), flat: true, channels_first: None })
    }

    /// Whether the order of a result's values matters to nobody but linear layers, whose columns can follow it.
    fn only_columns(&self, id: NodeId) -> bool {
        let mut open = vec![id];
        while let Some(at) = open.pop() {
            let users = &self.users[at.index()];
            if users.is_empty() {
                return false;
            }
            for &user in users {
                match self.graph.node(user).op {
                    Op::Linear { .. } => {}
                    Op::Act(_) | Op::Dropout { .. } | Op::BatchNorm { .. } => open.push(user),
                    Op::Input { .. }
                    | Op::Conv(_)
                    | Op::Add
                    | Op::Mul
                    | Op::Concat
                    | Op::Slice { .. }
                    | Op::ChannelShuffle { .. }
                    | Op::Pad { .. }
                    | Op::MaxPool(_)
                    | Op::AvgPool(_)
                    | Op::GlobalAvgPool
                    | Op::Flatten
                    | Op::Softmax => return false,
                }
            }
        }
        true
    }

    fn finish(
        mut self,
        last: Option<NodeId>,
        classes: usize,
        metadata_props: Vec<onnx::Entry>,
    ) -> Result<onnx::Model, String> {
        let last = last.ok_or("it has no layers")?;
        let mut logits = self.vector(last)?.name;
        if self.nodes.is_empty() || !self.nodes.iter().any(|node| node.output[0] == logits) {
            logits = self.push("Identity", "result", &[&logits], Vec::new());
        }
        for name in self.nodes.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output)) {
            if *name == logits {
                *name = OUTPUT.to_string();
            }
        }
        let output = value_info(OUTPUT, element::FLOAT, &[classes], self.options.dynamic_batch);
        Ok(onnx::Model {
            ir_version: IR_VERSION,
            producer_name: "penjing".to_string(),
            producer_version: env!("CARGO_PKG_VERSION").to_string(),
            graph: Some(onnx::Graph {
                node: self.nodes,
                name: "classifier".to_string(),
                initializer: self.constants,
                input: self.inputs,
                output: vec![output],
            }),
            opset_import: vec![onnx::OperatorSet { domain: String::new(), version: OPSET }],
            metadata_props,
            functions: Vec::new(),
        })
    }
}

/// Values in the order of `[H,W,C]`, put into that of `[C,H,W]`.
fn channels_first([h, w, c]: [usize; 3], values: &[f32]) -> Vec<f32> {
    (0..values.len()).map(|at| values[at % (h * w) * c + at / (h * w)]).collect()
}

fn value_info(name: &str, elem_type: i32, shape: &[usize], dynamic_batch: bool) -> onnx::ValueInfo {
    let fixed = |extent: usize| onnx::Dimension { dim_value: Some(extent as i64), dim_param: None };
    let batch = match dynamic_batch {
        true => onnx::Dimension { dim_value: None, dim_param: Some("batch".to_string()) },
        false => fixed(1),
    };
    let dim = std::iter::once(batch).chain(shape.iter().map(|&extent| fixed(extent))).collect();
    let tensor = onnx::TensorType { elem_type, shape: Some(onnx::TensorShape { dim }) };
    onnx::ValueInfo { name: name.to_string(), r#type: Some(onnx::Type { tensor_type: Some(tensor) }) }
}

/// A pooling window.
fn window(pool: &Pool) -> Vec<onnx::Attribute> {
    let [top, bottom, left, right] = pool.padding;
    vec![
        sides("kernel_shape", &pool.kernel),
        sides("strides", &pool.stride),
        sides("pads", &[top, left, bottom, right]),
        int("ceil_mode", pool.ceil_mode.into()),
    ]
}

fn int(name: &str, i: i64) -> onnx::Attribute {
    onnx::Attribute { name: name.to_string(), i: Some(i), kind: kind::INT, ..onnx::Attribute::default() }
}

fn float(name: &str, f: f32) -> onnx::Attribute {
    onnx::Attribute { name: name.to_string(), f: Some(f), kind: kind::FLOAT, ..onnx::Attribute::default() }
}

fn text(name: &str, s: &str) -> onnx::Attribute {
    let s = Some(s.as_bytes().to_vec());
    onnx::Attribute { name: name.to_string(), s, kind: kind::STRING, ..onnx::Attribute::default() }
}

fn ints(name: &str, ints: &[i64]) -> onnx::Attribute {
    let ints = ints.to_vec();
    onnx::Attribute { name: name.to_string(), ints, kind: kind::INTS, ..onnx::Attribute::default() }
}

fn sides(name: &str, sides: &[usize]) -> onnx::Attribute {
    ints(name, &sides.iter().map(|&side| side as i64).collect::<Vec<_>>())
}
