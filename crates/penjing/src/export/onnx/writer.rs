//! From node to node: what each is in the file.

use std::collections::BTreeSet;

use penjing_runtime::{
    Act,
    graph::{Graph, Node, NodeId},
    op::{AvgPool, Op, Shape},
    pixels::Pixels,
    quant::Quant,
    tensor::Weights,
};

use super::{
    OnnxOptions,
    attributes::{float, int, ints, text, window},
};
use crate::onnx::{self, element};

/// What stands for a node's result in the file.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) name: String,
    /// Whether it is `[N,C]`, not `[N,C,H,W]`.
    pub(super) flat: bool,
    /// Where it is a map `[H,W,C]` laid flat in the file's order, which has the channels first.
    pub(super) channels_first: Option<[usize; 3]>,
}

pub(super) struct Writer<'a> {
    pub(super) graph: &'a Graph,
    pub(super) weights: &'a Weights,
    pub(super) options: OnnxOptions,
    pub(super) users: Vec<Vec<NodeId>>,
    pub(super) results: Vec<Option<Value>>,
    names: BTreeSet<String>,
    nodes: Vec<onnx::Node>,
    constants: Vec<onnx::Tensor>,
    inputs: Vec<onnx::ValueInfo>,
}

const INPUT: &str = "image";
const OUTPUT: &str = "logits";

impl<'a> Writer<'a> {
    pub(super) fn new(graph: &'a Graph, weights: &'a Weights, options: OnnxOptions) -> Self {
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

    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, element::FLOAT, raw)
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[values.len()], element::INT64, raw)
    }

    pub(super) fn constant(
        &mut self,
        name: &str,
        shape: &[usize],
        data_type: i32,
        raw_data: Vec<u8>,
    ) -> String {
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
    pub(super) fn push(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<onnx::Attribute>,
    ) -> String {
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

    /// The whole graph.
    pub(super) fn write(mut self, pixels: &Pixels, classes: usize) -> Result<onnx::Graph, String> {
        self.input(pixels);
        for (id, node) in self.graph.iter().skip(1) {
            if self.results[id.index()].is_none() {
                self.node(id, node)?;
            }
        }
        self.finish(classes)
    }

    /// A value rounded to the grid that it is kept on.
    pub(super) fn rounded(&mut self, value: Value, quant: Quant) -> Value {
        let of = &value.name;
        let scale = self.floats(&format!("{of}.scale"), &[], &[quant.scale]);
        let zero = self.constant(&format!("{of}.zero_point"), &[], element::UINT8, vec![quant.zero_point]);
        let bytes = self.push("QuantizeLinear", &format!("{of}.bytes"), &[of, &scale, &zero], Vec::new());
        let name = self.push("DequantizeLinear", &format!("{of}.kept"), &[&bytes, &scale, &zero], Vec::new());
        Value { name, ..value }
    }

    /// What was made of a node's result, on the grid of that.
    fn kept(&mut self, id: NodeId, value: Value) -> Value {
        match self.graph.quant(id) {
            Some(quant) => self.rounded(value, quant),
            None => value,
        }
    }

    /// Notes a node's result.
    pub(super) fn set_result(&mut self, id: NodeId, value: Value) {
        // What is only passed on may be on its grid already.
        let is_there = self.graph.node(id).inputs.iter().any(|&input| {
            let of = self.results[input.index()].as_ref();
            of.is_some_and(|of| of.name == value.name) && self.graph.quant(input) == self.graph.quant(id)
        });
        let value = if is_there { value } else { self.kept(id, value) };
        self.results[id.index()] = Some(value);
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
        if let Some((id, _)) = self.graph.iter().next() {
            self.set_result(id, Value { name, flat: false, channels_first: None });
        }
    }

    pub(super) fn value(&self, id: NodeId) -> Result<Value, String> {
        self.results[id.index()].clone().ok_or_else(|| "its layers stand in no order".to_string())
    }

    /// The result of a node as `[N,C,H,W]`.
    pub(super) fn map(&mut self, id: NodeId) -> Result<String, String> {
        let value = self.value(id)?;
        if !value.flat {
            return Ok(value.name);
        }
        let name = format!("{}.map", value.name);
        let axes = self.ints(&format!("{name}.axes"), &[2, 3]);
        let name = self.push("Unsqueeze", &name, &[&value.name, &axes], Vec::new());
        Ok(self.kept(id, Value { name, flat: false, channels_first: None }).name)
    }

    /// The result of a node as `[N,C]`; of a map that is one pixel.
    pub(super) fn vector(&mut self, id: NodeId) -> Result<Value, String> {
        let value = self.value(id)?;
        if value.flat {
            return Ok(value);
        }
        let name =
            self.push("Flatten", &format!("{}.flat", value.name), &[&value.name], vec![int("axis", 1)]);
        Ok(self.kept(id, Value { name, flat: true, channels_first: None }))
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
                let mean = map(self.push("AveragePool", &node.name, &[&x], attributes));
                // The mean is rounded on the grid of what it is the mean of, and then brought to its own.
                match (self.graph.quant(node.inputs[0]), node.quant) {
                    (Some(from), Some(quant)) if from != quant => self.rounded(mean, from),
                    _ => mean,
                }
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
        self.set_result(id, result);
        Ok(())
    }

    fn act(&mut self, node: &Node, act: Act) -> Result<Value, String> {
        let mut x = self.value(node.inputs[0])?;
        // The layer before computes on bytes only if a grid stands right behind it, or an activation that cuts off no more
        // than that does. To round first and to cut off then gives the same bytes.
        if let (Some((low, high)), Some(quant), None) =
            (act.clamp(), node.quant, self.graph.quant(node.inputs[0]))
            && [quant.byte(low), quant.byte(high)] != [0, 255]
        {
            x = self.rounded(x, quant);
        }
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

    fn finish(mut self, classes: usize) -> Result<onnx::Graph, String> {
        let last = self.graph.output().ok_or("it has no layers")?;
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
        Ok(onnx::Graph {
            node: self.nodes,
            name: "classifier".to_string(),
            initializer: self.constants,
            input: self.inputs,
            output: vec![output],
        })
    }
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
