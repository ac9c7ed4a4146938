//! From TensorFlow Lite's operators to penjing's.

use std::collections::{BTreeMap, BTreeSet};

use penjing_runtime::{
    graph::{Graph, NodeId},
    op::{Act, AvgPool, Conv, Op, Pool, Shape},
    tensor::{self, Weights},
};

use super::{
    super::{What, shown, strided::Budget},
    schema::{File, Fused, Operator, Options, Tensor, Type},
};
use crate::zoo::blocks::Padding;

/// What an operator is to penjing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Conv,
    Depthwise,
    Linear,
    AvgPool,
    MaxPool,
    Mean,
    Add,
    Sub,
    Mul,
    Concat,
    Pad,
    /// Another shape of the same values.
    Reshape,
    Softmax,
    Act(Act),
    LeakyRelu,
    /// Other integers, or floats, for the same values.
    Requantize,
}

impl Kind {
    /// By the schema's number. `None` for an operator that penjing does not have.
    fn of(number: i32) -> Option<Kind> {
        Some(match number {
            0 => Kind::Add,
            1 => Kind::AvgPool,
            2 => Kind::Concat,
            3 => Kind::Conv,
            4 => Kind::Depthwise,
            6 | 114 => Kind::Requantize,
            9 => Kind::Linear,
            14 => Kind::Act(Act::Sigmoid),
            17 => Kind::MaxPool,
            18 => Kind::Mul,
            19 => Kind::Act(Act::Relu),
            21 => Kind::Act(Act::Relu6),
            22 | 43 => Kind::Reshape,
            25 => Kind::Softmax,
            34 | 60 => Kind::Pad,
            40 => Kind::Mean,
            41 => Kind::Sub,
            98 => Kind::LeakyRelu,
            117 => Kind::Act(Act::HSwish),
            _ => return None,
        })
    }

    /// What its layer is called, before the operator's number.
    fn word(self) -> &'static str {
        match self {
            Kind::Conv => "conv",
            Kind::Depthwise => "depthwise",
            Kind::Linear => "linear",
            Kind::AvgPool | Kind::MaxPool | Kind::Mean => "pool",
            Kind::Add => "add",
            Kind::Sub => "sub",
            Kind::Mul => "mul",
            Kind::Concat => "concat",
            Kind::Pad => "pad",
            Kind::Reshape => "flatten",
            Kind::Softmax => "softmax",
            Kind::Act(_) | Kind::LeakyRelu => "act",
            Kind::Requantize => "quantize",
        }
    }
}

/// The graph of a file's classifier and its weights. Layers are called by what they are and by the operator's number.
pub(super) fn read(file: &File<'_>, budget: Budget) -> What<(Graph, Weights)> {
    let ([input], [output]) = (&file.inputs[..], &file.outputs[..]) else {
        return Err(format!(
            "has {} inputs and {} outputs; expected a classifier with one of each",
            file.inputs.len(),
            file.outputs.len()
        ));
    };
    let mut network = Network {
        file,
        budget,
        graph: Graph::default(),
        weights: Weights::new(),
        edges: BTreeMap::new(),
        constants: BTreeMap::new(),
    };
    network.image(*input)?;
    for (index, kind) in needed(file, *output)? {
        let operator = file.operator(index)?;
        network.operator(index, kind, &operator).map_err(|what| {
            let result = operator.outputs.first().map(|&output| file.tensor(output));
            let result = result
                .and_then(Result::ok)
                .map_or(String::new(), |tensor| format!(" (`{}`)", shown(&tensor.name)));
            format!("operator {index}, {}{result}: {what}", operator.code.name())
        })?;
    }
    let Edge { node, padding } = network.edge(*output)?;
    if (network.graph.output(), padding) != (Some(node), [0; 4]) {
        return Err("has a result that no operator makes of its input".into());
    }
    Ok((network.graph, network.weights))
}

/// The operators that the result depends on, in the file's order.
fn needed(file: &File<'_>, output: i32) -> What<Vec<(usize, Kind)>> {
    let mut makers = BTreeMap::new();
    for index in 0..file.operator_count() {
        for output in file.operator(index)?.outputs {
            makers.insert(output, index);
        }
    }
    let mut kinds = BTreeMap::new();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    let (mut seen, mut wanted) = (BTreeSet::new(), vec![output]);
    while let Some(tensor) = wanted.pop() {
        let Some(&index) = makers.get(&tensor) else { continue };
        if !seen.insert(index) {
            continue;
        }
        let operator = file.operator(index)?;
        match Kind::of(operator.code.number) {
            Some(kind) => drop(kinds.insert(index, kind)),
            None => *unknown.entry(operator.code.name()).or_default() += 1,
        }
        // A new shape is seen from the result, however it was computed.
        let edges = match Kind::of(operator.code.number) {
            Some(Kind::Reshape) => &operator.inputs[..operator.inputs.len().min(1)],
            _ => &operator.inputs[..],
        };
        wanted.extend(edges);
    }
    if unknown.is_empty() {
        return Ok(kinds.into_iter().collect());
    }
    let times =
        |(name, count): (String, usize)| if count == 1 { name } else { format!("{name} ({count} times)") };
    let names: Vec<String> = unknown.into_iter().map(times).collect();
    Err(format!("needs operators that penjing does not have: {}", names.join(", ")))
}

/// What stands for a tensor of the file: a layer's result, with zeros around that nobody has added yet.
#[derive(Clone, Copy)]
struct Edge {
    node: NodeId,
    /// Top, bottom, left, right.
    padding: [usize; 4],
}

impl From<NodeId> for Edge {
    fn from(node: NodeId) -> Self {
        Edge { node, padding: [0; 4] }
    }
}

/// A graph under construction.
struct Network<'a> {
    file: &'a File<'a>,
    budget: Budget,
    graph: Graph,
    weights: Weights,
    edges: BTreeMap<i32, Edge>,
    /// Constants that are others in another type.
    constants: BTreeMap<i32, i32>,
}

impl<'a> Network<'a> {
    fn image(&mut self, input: i32) -> What<()> {
        let tensor = self.file.tensor(input)?;
        match (&tensor.shape[..], tensor.kind) {
            (&[1, height, width, channels @ (1 | 3)], Type::F32 | Type::U8 | Type::I8) => {
                let node = self.push("image", Op::Input { shape: [1, height, width, channels] }, &[])?;
                self.edges.insert(input, node.into());
                Ok(())
            }
            (shape, kind) => Err(format!(
                "takes {shape:?} of type {kind:?}; expected one image [1, height, width, 3 or 1] of F32, U8 or I8"
            )),
        }
    }

    fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> What<NodeId> {
        self.graph.push(name, op, inputs).map_err(|error| error.to_string())
    }

    /// What stands for this tensor.
    fn edge(&self, tensor: i32) -> What<Edge> {
        self.edges.get(&tensor).copied().ok_or_else(|| {
            let name = self.file.tensor(tensor).map_or(String::new(), |t| format!(" `{}`", shown(&t.name)));
            format!("takes tensor {tensor}{name}, which nothing before it makes of the image")
        })
    }

    /// The layer whose result is this tensor, for a layer `name`. Zeros around it become a layer `name.pad`.
    fn input(&mut self, tensor: i32, name: &str) -> What<NodeId> {
        let Edge { node, padding } = self.edge(tensor)?;
        if padding == [0; 4] {
            return Ok(node);
        }
        self.push(&format!("{name}.pad"), Op::Pad { padding }, &[node])
    }

    /// The constant of this number. `None` for what is computed, and where there is none.
    fn constant(&self, number: i32) -> What<Option<Tensor<'a>>> {
        let number = *self.constants.get(&number).unwrap_or(&number);
        if number < 0 || self.edges.contains_key(&number) {
            return Ok(None);
        }
        Ok(Some(self.file.tensor(number)?).filter(|tensor| !tensor.data.is_empty()))
    }

    /// The values of a constant; `what` it is says the error.
    fn values(&mut self, number: i32, what: &str) -> What<tensor::Tensor> {
        let constant = self.constant(number)?.ok_or_else(|| format!("has no {what} known beforehand"))?;
        constant
            .values(&mut self.budget)
            .map_err(|why| format!("its {what} `{}` {why}", shown(&constant.name)))
    }

    /// The numbers of a constant that is no weight.
    fn numbers(&self, number: Option<&i32>, what: &str) -> What<Vec<i64>> {
        let constant = number.map(|&number| self.constant(number)).transpose()?.flatten();
        let constant = constant.ok_or_else(|| format!("has no {what} known beforehand"))?;
        constant.whole_numbers().map_err(|why| format!("its {what} `{}` {why}", shown(&constant.name)))
    }

    fn operator(&mut self, index: usize, kind: Kind, operator: &Operator<'a>) -> What<()> {
        let name = format!("{}_{index}", kind.word());
        let (inputs, options) = (&operator.inputs[..], operator.options);
        let (&[first, ref rest @ ..], &[output]) = (inputs, &operator.outputs[..]) else {
            return Err(format!("has {} inputs and {} outputs", inputs.len(), operator.outputs.len()));
        };
        if self.edges.contains_key(&output) || self.constants.contains_key(&output) {
            return Err("makes what is there already; the file is damaged".into());
        }
        if kind == Kind::Requantize && self.constant(first)?.is_some() {
            let first = *self.constants.get(&first).unwrap_or(&first);
            self.constants.insert(output, first);
            return Ok(());
        }
        let result = self.file.tensor(output)?;
        let (edge, fused) = match kind {
            Kind::Conv => (self.conv(&name, first, rest, options)?, options.fused(3)?),
            Kind::Depthwise => (self.depthwise(&name, first, rest, options)?, options.fused(4)?),
            Kind::Linear => (self.linear(&name, first, rest, options)?, options.fused(0)?),
            Kind::AvgPool | Kind::MaxPool => (self.pool(&name, kind, first, options)?, options.fused(5)?),
            Kind::Mean => (self.mean(&name, first, rest)?, Fused::None),
            Kind::Add | Kind::Sub | Kind::Mul => (self.binary(&name, kind, inputs)?, options.fused(0)?),
            Kind::Concat => (self.concat(&name, inputs, &result, options)?, options.fused(1)?),
            Kind::Pad => (self.pad(first, rest)?, Fused::None),
            Kind::Reshape => (self.reshape(&name, first, &result)?, Fused::None),
            Kind::Softmax => (self.softmax(&name, first, options)?, Fused::None),
            Kind::Act(act) => (self.act(&name, first, act)?, Fused::None),
            Kind::LeakyRelu => (self.act(&name, first, Act::LeakyRelu(options.f32(0, 0.0)?))?, Fused::None),
            Kind::Requantize => (self.edge(first)?, Fused::None),
        };
        let edge = match activation(kind, fused, &result) {
            Some(act) => self.push(&format!("{name}.act"), Op::Act(act), &[edge.node])?.into(),
            None => edge,
        };
        if edge.padding == [0; 4] {
            agree(&result, self.graph.shape(edge.node))?;
        }
        self.edges.insert(output, edge);
        Ok(())
    }

    /// A convolution, weights `[O, kh, kw, I / groups]` as ours.
    fn conv(&mut self, name: &str, first: i32, rest: &[i32], options: Options<'_>) -> What<Edge> {
        let weight = self.weight(rest, 4)?;
        let channels = self.graph.shape(self.edge(first)?.node)[3];
        let groups = channels.checked_div(weight.shape[3]).unwrap_or(0);
        if groups * weight.shape[3] != channels {
            return Err(format!("has filters of {} channels for {channels}", weight.shape[3]));
        }
        let dilation = [options.count(5, 1)?, options.count(4, 1)?];
        self.window(name, first, rest, weight, groups, dilation, options)
    }

    /// A filter for each channel: weights `[1, kh, kw, channels · multiplier]` become `[O, kh, kw, 1]`.
    fn depthwise(&mut self, name: &str, first: i32, rest: &[i32], options: Options<'_>) -> What<Edge> {
        let weight = self.weight(rest, 4)?;
        let channels = self.graph.shape(self.edge(first)?.node)[3];
        let [1, kh, kw, out] = weight.shape[..] else {
            return Err(format!(
                "has filters of shape {:?}; expected [1, height, width, channels]",
                weight.shape
            ));
        };
        let (values, taps) = (weight.to_f32(), kh * kw);
        let turned =
            (0..out).flat_map(|o| (0..taps).map(move |tap| tap * out + o)).map(|at| values[at]).collect();
        let weight = tensor::Tensor::f32(&[out, kh, kw, 1], turned);
        let dilation = [options.count(6, 1)?, options.count(5, 1)?];
        self.window(name, first, rest, weight, channels, dilation, options)
    }

    /// The convolution of these weights, and with it the zeros around its input.
    fn window(
        &mut self,
        name: &str,
        first: i32,
        rest: &[i32],
        weight: tensor::Tensor,
        groups: usize,
        dilation: [usize; 2],
        options: Options<'_>,
    ) -> What<Edge> {
        let Edge { node, padding } = self.edge(first)?;
        let [_, height, width, _] = self.graph.shape(node);
        let (kernel, stride) =
            ([weight.shape[1], weight.shape[2]], [options.count(2, 0)?, options.count(1, 0)?]);
        let [top, bottom, left, right] = padding;
        let around = around(
            [height + top + bottom, width + left + right],
            kernel,
            stride,
            dilation,
            options.same(0)?,
        )?;
        let padding = std::array::from_fn(|side| padding[side] + around[side]);
        let out_channels = weight.shape[0];
        let bias = self.bias(rest, out_channels)?;
        let conv = Conv { out_channels, kernel, stride, padding, dilation, groups, bias: bias.is_some() };
        let made = self.push(name, Op::Conv(conv), &[node])?;
        self.keep(name, weight, bias);
        Ok(made.into())
    }

    fn linear(&mut self, name: &str, first: i32, rest: &[i32], options: Options<'_>) -> What<Edge> {
        let format = options.u8(1)?;
        if format != 0 {
            return Err(format!("stores its weights in format {format}; the plain one, 0, is read"));
        }
        let weight = self.weight(rest, 2)?;
        let mut x = self.input(first, name)?;
        if self.graph.shape(x)[1..3] != [1, 1] {
            x = self.push(&format!("{name}.flatten"), Op::Flatten, &[x])?;
        }
        let (out_features, features) = (weight.shape[0], self.graph.shape(x)[3]);
        if weight.shape[1] != features {
            return Err(format!("has weights for {} features, and takes {features}", weight.shape[1]));
        }
        let bias = self.bias(rest, out_features)?;
        let made = self.push(name, Op::Linear { out_features, bias: bias.is_some() }, &[x])?;
        self.keep(name, weight, bias);
        Ok(made.into())
    }

    fn weight(&mut self, rest: &[i32], rank: usize) -> What<tensor::Tensor> {
        let weight = self.values(rest.first().copied().unwrap_or(-1), "weights")?;
        match weight.shape.len() == rank {
            true => Ok(weight),
            false => Err(format!("has weights of shape {:?}; expected {rank} dimensions", weight.shape)),
        }
    }

    fn bias(&mut self, rest: &[i32], channels: usize) -> What<Option<tensor::Tensor>> {
        let Some(&number) = rest.get(1).filter(|&&number| number >= 0) else { return Ok(None) };
        let bias = self.values(number, "bias")?;
        match bias.len() == channels {
            true => Ok(Some(tensor::Tensor { shape: vec![channels], ..bias })),
            false => Err(format!("has a bias of {} values for {channels} channels", bias.len())),
        }
    }

    fn keep(&mut self, name: &str, weight: tensor::Tensor, bias: Option<tensor::Tensor>) {
        self.weights.insert(format!("{name}.weight"), weight);
        self.weights.extend(bias.map(|bias| (format!("{name}.bias"), bias)));
    }

    fn pool(&mut self, name: &str, kind: Kind, first: i32, options: Options<'_>) -> What<Edge> {
        let x = self.input(first, name)?;
        let [_, height, width, _] = self.graph.shape(x);
        let kernel = [options.count(4, 0)?, options.count(3, 0)?];
        let stride = [options.count(2, 0)?, options.count(1, 0)?];
        let padding = around([height, width], kernel, stride, [1, 1], options.same(0)?)?;
        let window = Pool { kernel, stride, padding, ceil_mode: false };
        let op = match kind {
            Kind::MaxPool => Op::MaxPool(window),
            // The whole map; said so, the network can take another size.
            _ if (kernel, padding) == ([height, width], [0; 4]) => Op::GlobalAvgPool,
            _ => Op::AvgPool(AvgPool { window, count_include_pad: false }),
        };
        Ok(self.push(name, op, &[x])?.into())
    }

    fn mean(&mut self, name: &str, first: i32, rest: &[i32]) -> What<Edge> {
        let mut axes = self.numbers(rest.first(), "axes")?;
        let rank = self.file.tensor(first)?.shape.len() as i64;
        axes.iter_mut().for_each(|axis| *axis = if *axis < 0 { axis.saturating_add(rank) } else { *axis });
        axes.sort_unstable();
        if (rank, &axes[..]) != (4, &[1, 2]) {
            return Err(format!(
                "is the mean over axes {axes:?} of {rank}; that over height and width is supported"
            ));
        }
        let x = self.input(first, name)?;
        Ok(self.push(name, Op::GlobalAvgPool, &[x])?.into())
    }

    fn binary(&mut self, name: &str, kind: Kind, inputs: &[i32]) -> What<Edge> {
        let &[a, b] = inputs else { return Err(format!("has {} inputs, expected 2", inputs.len())) };
        match (self.constant(a)?.is_some(), self.constant(b)?.is_some()) {
            (false, true) => self.affine(name, kind, a, b, false),
            (true, false) => self.affine(name, kind, b, a, true),
            _ if kind == Kind::Sub => Err("subtracts one map from another, which is not supported".into()),
            _ => {
                let (a, b) = (self.input(a, &format!("{name}.a"))?, self.input(b, &format!("{name}.b"))?);
                let vector_first = self.graph.shape(a)[1..3] == [1, 1] && self.graph.shape(b)[1..3] != [1, 1];
                let (op, edges) = match kind {
                    Kind::Mul if vector_first => (Op::Mul, [b, a]),
                    Kind::Mul => (Op::Mul, [a, b]),
                    _ => (Op::Add, [a, b]),
                };
                Ok(self.push(name, op, &edges)?.into())
            }
        }
    }

    /// A map with a constant for all, or for each channel: the normalization `γ·x + β`.
    fn affine(
        &mut self,
        name: &str,
        kind: Kind,
        edge: i32,
        constant: i32,
        constant_first: bool,
    ) -> What<Edge> {
        let x = self.input(edge, name)?;
        let channels = self.graph.shape(x)[3];
        let mut values = self.values(constant, "constant")?.to_f32();
        if values.len() == 1 {
            values = vec![values[0]; channels];
        }
        if values.len() != channels {
            return Err(format!("has a constant of {} values for {channels} channels", values.len()));
        }
        let same = |value: f32| vec![value; channels];
        let (gamma, beta) = match kind {
            Kind::Mul => (values, same(0.0)),
            Kind::Sub if constant_first => (same(-1.0), values),
            Kind::Sub => (same(1.0), values.iter().map(|value| -value).collect()),
            _ => (same(1.0), values),
        };
        let made = self.push(name, Op::BatchNorm { eps: 0.0 }, &[x])?;
        for (suffix, values) in [("gamma", gamma), ("beta", beta), ("mean", same(0.0)), ("var", same(1.0))] {
            self.weights.insert(format!("{name}.{suffix}"), tensor::Tensor::f32(&[channels], values));
        }
        Ok(made.into())
    }

    fn concat(
        &mut self,
        name: &str,
        inputs: &[i32],
        result: &Tensor<'_>,
        options: Options<'_>,
    ) -> What<Edge> {
        let (axis, rank) = (i64::from(options.i32(0, 0)?), result.shape.len() as i64);
        if axis != -1 && axis != rank - 1 {
            return Err(format!(
                "joins along axis {axis} of {rank}; the last one, the channels, is supported"
            ));
        }
        let edges = inputs.iter().enumerate().map(|(at, &input)| self.input(input, &format!("{name}.{at}")));
        let edges = edges.collect::<What<Vec<NodeId>>>()?;
        Ok(self.push(name, Op::Concat, &edges)?.into())
    }

    /// Zeros around, which a convolution after it takes for its own.
    fn pad(&mut self, first: i32, rest: &[i32]) -> What<Edge> {
        let numbers = self.numbers(rest.first(), "paddings")?;
        let &[0, 0, top, bottom, left, right, 0, 0] = &numbers[..] else {
            return Err(format!(
                "pads by {numbers:?}; zeros around height and width of an image are supported"
            ));
        };
        if let Some(&value) = rest.get(1)
            && self.values(value, "value")?.to_f32().iter().any(|&value| value != 0.0)
        {
            return Err("pads with something else than zeros".into());
        }
        const MAX_PADDING: usize = 4096;
        let mut edge = self.edge(first)?;
        for (side, more) in edge.padding.iter_mut().zip([top, bottom, left, right]) {
            let more = usize::try_from(more).ok().and_then(|more| side.checked_add(more));
            *side = more.filter(|&side| side <= MAX_PADDING).ok_or("pads by less than 0 or far too much")?;
        }
        Ok(edge)
    }

    fn reshape(&mut self, name: &str, first: i32, result: &Tensor<'_>) -> What<Edge> {
        let edge = self.edge(first)?;
        let shape = self.graph.shape(edge.node);
        if edge.padding == [0; 4] && image(&result.shape) == Some(shape) {
            return Ok(edge);
        }
        let x = self.input(first, name)?;
        let shape = self.graph.shape(x);
        let vector = [1, 1, 1, shape.iter().product()];
        if image(&result.shape) != Some(vector) {
            return Err(format!("makes {:?} of {shape:?}; only a vector can be made of a map", result.shape));
        }
        Ok(self.push(name, Op::Flatten, &[x])?.into())
    }

    fn softmax(&mut self, name: &str, first: i32, options: Options<'_>) -> What<Edge> {
        let beta = options.f32(0, 0.0)?;
        if beta != 1.0 {
            return Err(format!(
                "multiplies its input by {beta}; a softmax of the input itself is supported"
            ));
        }
        let x = self.input(first, name)?;
        Ok(self.push(name, Op::Softmax, &[x])?.into())
    }

    fn act(&mut self, name: &str, first: i32, act: Act) -> What<Edge> {
        let x = self.input(first, name)?;
        Ok(self.push(name, Op::Act(act), &[x])?.into())
    }
}

/// What is applied to an operator's result: what it says, or what the range of its integers does.
fn activation(kind: Kind, fused: Fused, result: &Tensor<'_>) -> Option<Act> {
    match (fused, kind) {
        (Fused::Relu, _) => Some(Act::Relu),
        (Fused::Relu6, _) => Some(Act::Relu6),
        (Fused::None, Kind::Conv | Kind::Depthwise | Kind::Linear | Kind::Add | Kind::Sub | Kind::Mul) => {
            result.saturation()
        }
        (Fused::None, _) => None,
    }
}

/// Zeros around a map of `size` for a kernel: top, bottom, left, right.
fn around(
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    same: bool,
) -> What<[usize; 4]> {
    const MAX: usize = 4096;
    if [kernel, stride, dilation].iter().flatten().any(|extent| !(1..=MAX).contains(extent)) {
        return Err(format!(
            "kernel {kernel:?}, stride {stride:?}, dilation {dilation:?}: each must be 1..={MAX}"
        ));
    }
    if !same {
        return Ok([0; 4]);
    }
    let reach = |axis: usize| (kernel[axis] - 1) * dilation[axis] + 1;
    let [top, bottom, ..] = Padding::Same.around(size, reach(0), stride[0]);
    let [.., left, right] = Padding::Same.around(size, reach(1), stride[1]);
    Ok([top, bottom, left, right])
}

/// A shape of the file as ours: maps as they are, vectors `[N, 1, 1, C]`. `None` for what is neither.
fn image(shape: &[usize]) -> Option<Shape> {
    match *shape {
        [n, h, w, c] => Some([n, h, w, c]),
        [n, c] => Some([n, 1, 1, c]),
        _ => None,
    }
}

/// Fails where the file says another shape than its operators give.
fn agree(result: &Tensor<'_>, shape: Shape) -> What<()> {
    match image(&result.shape) {
        Some(said) if said != shape => {
            Err(format!("gives {shape:?} where the file says {:?}; it is damaged", result.shape))
        }
        _ => Ok(()),
    }
}
