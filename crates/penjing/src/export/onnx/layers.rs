//! Layers with weights: convolution, linear, BatchNorm.

use penjing_runtime::{
    graph::{Node, NodeId},
    op::{Conv, Op, Shape},
    quant::Quant,
    tensor::{Data, Quantized},
};

use super::{
    attributes::{float, int, sides},
    writer::{Value, Writer},
};
use crate::onnx::{self, element};

/// A BatchNorm that goes into the layer before it: factor and shift of each channel.
struct Folding {
    norm: NodeId,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// What a layer is written with, and the last of the nodes that it stands for.
struct Parameters {
    weight: Data,
    bias: Option<Vec<f32>>,
    last: NodeId,
}

impl Writer<'_> {
    fn weight(&self, node: &Node, suffix: &str) -> Result<Vec<f32>, String> {
        let name = format!("{}.{suffix}", node.name);
        self.weights.get(&name).map(|tensor| tensor.to_f32()).ok_or_else(|| format!("`{name}` is missing"))
    }

    /// The BatchNorm that goes into this layer, with its factor and shift of each channel. The arithmetic is that of
    /// lowering, so that folding twice changes nothing.
    fn folded(&self, id: NodeId, channels: usize, bias: Option<&[f32]>) -> Result<Option<Folding>, String> {
        let [user] = self.users[id.index()][..] else { return Ok(None) };
        let norm = self.graph.node(user);
        let Op::BatchNorm { eps } = norm.op else { return Ok(None) };
        // What is rounded in between must stay in between, and integers stay what they are.
        let is_kept = self.graph.node(id).quant.is_some() || self.integers(id).is_some();
        if self.options.keep_batch_norm || is_kept {
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

    /// A layer's weights, if they are kept in 8 bits.
    fn integers(&self, id: NodeId) -> Option<&Quantized> {
        match &self.weights.get(&format!("{}.weight", self.graph.node(id).name))?.data {
            Data::I8(integers) => Some(integers),
            Data::F32(_) | Data::F16(_) | Data::I4(_) | Data::Sparse(_) => None,
        }
    }

    /// Weight and bias of a layer, BatchNorm folded in where that is asked for, and the last node that they stand for.
    fn parameters(&self, id: NodeId, node: &Node, has_bias: bool) -> Result<Parameters, String> {
        let bias = if has_bias { Some(self.weight(node, "bias")?) } else { None };
        let folding = self.folded(id, node.shape[3], bias.as_deref())?;
        if let Some(integers) = self.integers(id) {
            return Ok(Parameters { weight: Data::I8(integers.clone()), bias, last: id });
        }
        let mut weight = self.weight(node, "weight")?;
        let Some(folding) = folding else {
            return Ok(Parameters { weight: Data::F32(weight), bias, last: id });
        };
        let per_output = weight.len() / folding.scale.len();
        for (row, factor) in weight.chunks_exact_mut(per_output).zip(folding.scale) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
        Ok(Parameters { weight: Data::F32(weight), bias: Some(folding.shift), last: folding.norm })
    }

    /// A constant of integers multiplied out in the file, each of its outermost places with its scale or all with one.
    fn integers_times(
        &mut self,
        name: &str,
        shape: &[usize],
        (data_type, raw): (i32, Vec<u8>),
        scales: &[f32],
    ) -> String {
        let (of, attributes) = match scales {
            [_] => (&[][..], Vec::new()),
            _ => (&shape[..1], vec![int("axis", 0)]),
        };
        let values: usize = shape.iter().product();
        let zeros = vec![0; raw.len() / values * scales.len()];
        let integers = self.constant(&format!("{name}.integers"), shape, data_type, raw);
        let scale = self.floats(&format!("{name}.scale"), of, scales);
        let zero = self.constant(&format!("{name}.zero_point"), of, data_type, zeros);
        self.push("DequantizeLinear", name, &[&integers, &scale, &zero], attributes)
    }

    /// The bias of a layer: in units of its sums where those are of bytes times integers, and it fits into 32 bits.
    fn bias(&mut self, name: &str, x: Option<Quant>, weight: &Data, bias: &[f32]) -> String {
        let name = format!("{name}.bias");
        if let (Some(x), Data::I8(integers)) = (x, weight) {
            let units: Vec<f64> =
                integers.scales.iter().map(|&scale| f64::from(x.scale) * f64::from(scale)).collect();
            // As lowering rounds it.
            let rounded = |(at, &bias): (usize, &f32)| (f64::from(bias) / units[at % units.len()]).round();
            let rounded: Vec<f64> = bias.iter().enumerate().map(rounded).collect();
            if rounded.iter().all(|bias| bias.abs() < f64::from(i32::MAX)) {
                let raw = rounded.iter().flat_map(|&bias| (bias as i32).to_le_bytes()).collect();
                let scales: Vec<f32> = units.iter().map(|&unit| unit as f32).collect();
                return self.integers_times(&name, &[bias.len()], (element::INT32, raw), &scales);
            }
        }
        self.floats(&name, &[bias.len()], bias)
    }

    /// Appends a layer and its weights; its result is that of all nodes from it to the last that they stand for.
    fn weighted(
        &mut self,
        id: NodeId,
        op: &str,
        input: &str,
        shape: &[usize],
        Parameters { weight, bias, last }: Parameters,
        attributes: Vec<onnx::Attribute>,
    ) {
        let node = self.graph.node(id);
        let name = &node.name;
        let (x, weight_name) = (self.graph.quant(node.inputs[0]), format!("{name}.weight"));
        let weights = match &weight {
            Data::I8(Quantized { values, scales }) => {
                let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.integers_times(&weight_name, shape, (element::INT8, raw), scales)
            }
            floats => self.floats(&weight_name, shape, &floats.to_f32()),
        };
        let bias = bias.map(|bias| self.bias(name, x, &weight, &bias));
        let inputs: Vec<&str> = [input, &weights].into_iter().chain(bias.as_deref()).collect();
        let name = self.push(op, name, &inputs, attributes);
        let value = Value { name, flat: op == "Gemm", channels_first: None };
        self.results[id.index()] = Some(value.clone());
        self.set_result(last, value);
    }

    pub(super) fn conv(&mut self, id: NodeId, node: &Node, conv: &Conv, shape: Shape) -> Result<(), String> {
        let mut parameters = self.parameters(id, node, conv.bias)?;
        let [kh, kw] = conv.kernel;
        let channels = shape[3] / conv.groups;
        parameters.weight = channels_first([kh, kw, channels], parameters.weight);
        let [top, bottom, left, right] = conv.padding;
        let attributes = vec![
            sides("kernel_shape", &conv.kernel),
            sides("strides", &conv.stride),
            sides("pads", &[top, left, bottom, right]),
            sides("dilations", &conv.dilation),
            int("group", conv.groups as i64),
        ];
        let x = self.map(node.inputs[0])?;
        self.weighted(id, "Conv", &x, &[conv.out_channels, channels, kh, kw], parameters, attributes);
        Ok(())
    }

    pub(super) fn linear(&mut self, id: NodeId, node: &Node, has_bias: bool) -> Result<(), String> {
        let mut parameters = self.parameters(id, node, has_bias)?;
        let x = self.vector(node.inputs[0])?;
        let out = node.shape[3];
        let columns = parameters.weight.len() / out;
        if let Some(of) = x.channels_first {
            parameters.weight = channels_first(of, parameters.weight);
        }
        self.weighted(id, "Gemm", &x.name, &[out, columns], parameters, vec![int("transB", 1)]);
        Ok(())
    }

    pub(super) fn batch_norm(&mut self, node: &Node, eps: f32) -> Result<Value, String> {
        let x = self.value(node.inputs[0])?;
        let mut inputs = vec![x.name.clone()];
        for suffix in ["gamma", "beta", "mean", "var"] {
            let values = self.weight(node, suffix)?;
            let values = match x.channels_first {
                None => values,
                Some(of) => channels_first(of, Data::F32(values)).to_f32(),
            };
            inputs.push(self.floats(&format!("{}.{suffix}", node.name), &[values.len()], &values));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let name = self.push("BatchNormalization", &node.name, &inputs, vec![float("epsilon", eps)]);
        Ok(Value { name, ..x })
    }
}

/// Runs of values in the order of `[H,W,C]`, each put into that of `[C,H,W]`.
fn channels_first([h, w, c]: [usize; 3], values: Data) -> Data {
    fn ordered<T: Copy>(taps: usize, c: usize, values: &[T]) -> Vec<T> {
        let run = |run: &[T]| (0..run.len()).map(|at| run[at % taps * c + at / taps]).collect::<Vec<T>>();
        values.chunks_exact(taps * c).flat_map(run).collect()
    }
    match values {
        Data::I8(Quantized { values, scales }) => {
            Data::I8(Quantized { values: ordered(h * w, c, &values), scales })
        }
        floats => Data::F32(ordered(h * w, c, &floats.to_f32())),
    }
}
