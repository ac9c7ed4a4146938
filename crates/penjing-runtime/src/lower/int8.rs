//! Lowering of what is kept in 8 bits.
//!
//! A layer computes on bytes when its input is kept in 8 bits, its weights are integers, and so is its result kept, or that
//! of the clamping activation that alone follows it; a linear layer or a pointwise convolution may also give floats. Other
//! operations compute on bytes when inputs and result are kept in 8 bits. Everything else reads bytes as floats, and makes
//! bytes of its result if that is to be kept in 8 bits.

use alloc::{format, vec::Vec};

use bytemuck::cast_slice_mut;
use penjing_kernels::int8::{self, Channel, Limits, elementwise::Sum};

use super::{Lowering, Value};
use crate::{
    graph::NodeId,
    int8::{Bytes, Int8},
    op::{Act, Op},
    plan::{Buffer, Step},
    quant::Quant,
    tensor::Data,
};

/// A layer of integers with what follows it drawn in.
struct Layer {
    weights: Vec<i8>,
    /// For each output, what one unit of its sums is worth, and what is added to the sum.
    units: Vec<(f64, i64)>,
    /// How the result is kept, unless as floats, and what the activation leaves of it.
    result: Option<(Quant, Limits)>,
    last: NodeId,
}

impl Layer {
    /// From sums to bytes.
    fn channels(&self, quant: Quant) -> Option<Vec<Channel>> {
        let channel = |&(unit, constant): &(f64, i64)| {
            Channel::new(unit / f64::from(quant.scale), constant, quant.zero_point)
        };
        self.units.iter().map(channel).collect()
    }

    /// From sums to floats.
    fn floats(&self) -> Option<(Vec<i32>, Vec<f32>)> {
        // A sum has as much room again.
        let fits = |constant: i64| i32::try_from(constant).ok().filter(|c| c.unsigned_abs() <= 1 << 30);
        self.units.iter().map(|&(unit, constant)| Some((fits(constant)?, unit as f32))).collect()
    }
}

/// Most pixels whose bytes are summed in 32 bits, and most places of a window; of more, floats are.
const MOST_PIXELS: usize = 1 << 23;
const MOST_TAPS: usize = 1 << 20;

/// What an activation leaves of a grid, if it only cuts off.
fn limits(act: Act, quant: Quant) -> Option<Limits> {
    let (low, high) = act.clamp()?;
    Some(Limits { low: quant.byte(low), high: quant.byte(high) })
}

impl Lowering<'_> {
    /// Makes bytes of a result of floats; it is read as those from now on.
    pub(super) fn keep_in_bytes(&mut self, id: NodeId, quant: Quant) {
        // The bytes are the result, not the floats before.
        if let Some(result) = self.results.last_mut().filter(|result| **result == Some(id)) {
            *result = None;
        }
        let x = self.read(id);
        self.value[id.index()] = None;
        let y = self.write_bytes(id, id);
        self.push_int8(id, Some(id), Int8::Quantize { quant, x, y });
    }

    /// Sees to it that a result can be read as floats.
    pub(super) fn need_floats(&mut self, id: NodeId) {
        if self.value[id.index()].is_none()
            && let Some(quant) = self.graph.quant(id)
        {
            let x = self.read_bytes(id);
            let value = self.fresh(x.len);
            self.value[id.index()] = Some(value);
            let y = self.touch(value);
            self.push_int8(id, None, Int8::Dequantize { quant, x, y });
        }
    }

    /// Passes another node's result on.
    pub(super) fn pass_on(&mut self, id: NodeId, input: NodeId) {
        self.value[id.index()] = self.value[input.index()];
        self.bytes[id.index()] = self.bytes[input.index()];
        let (from, to) = (self.graph.quant(input), self.graph.node(id).quant);
        let Some(quant) = to.filter(|_| from != to) else { return };
        if self.bytes[id.index()].is_some() {
            let bytes = self.bytes_on(input, quant);
            self.bytes[id.index()] = Some(bytes.place.start);
            self.value[id.index()] = None;
        } else {
            self.keep_in_bytes(id, quant);
        }
    }

    fn push_int8(&mut self, id: NodeId, result: Option<NodeId>, step: Int8) {
        self.steps.push(Step::Int8(step));
        self.results.push(result);
        self.names.push(self.graph.node(id).name.clone());
    }

    fn touch_bytes(&mut self, value: Value, len: usize) -> Bytes {
        Bytes { place: self.touch(value), len }
    }

    fn len(&self, id: NodeId) -> usize {
        self.graph.shape(id).iter().product()
    }

    fn read_bytes(&mut self, id: NodeId) -> Bytes {
        let value = self.bytes[id.index()].expect("nodes stand in an order in which they can be computed");
        self.touch_bytes(value, self.len(id))
    }

    /// A result as bytes on another grid: by a table if it is kept on one of its own.
    fn bytes_on(&mut self, id: NodeId, quant: Quant) -> Bytes {
        let from = self.graph.quant(id).expect("it is kept in 8 bits");
        if from == quant {
            return self.read_bytes(id);
        }
        let x = self.read_bytes(id);
        let value = self.fresh(Bytes::values(x.len));
        let y = self.touch_bytes(value, x.len);
        let table = self.table(|byte| quant.byte(from.value(byte)));
        self.push_int8(id, None, Int8::Lookup { table, x, y });
        self.touch_bytes(value, x.len)
    }

    fn table(&mut self, byte: impl Fn(u8) -> u8) -> Buffer {
        self.pack(Bytes::values(256), |packed| {
            let table: &mut [u8] = cast_slice_mut(packed);
            table.iter_mut().zip(0..=255).for_each(|(y, x)| *y = byte(x));
        })
    }

    /// A fresh place for the result of a node and of what is drawn into its step.
    fn write_bytes(&mut self, id: NodeId, last: NodeId) -> Bytes {
        let len = self.len(last);
        let value = self.fresh(Bytes::values(len));
        self.bytes[id.index()] = Some(value);
        self.bytes[last.index()] = Some(value);
        self.touch_bytes(value, len)
    }

    /// The clamping activation that alone follows a node, and the node whose kept result the two make.
    fn kept(&self, id: NodeId) -> Option<(Quant, Limits, NodeId)> {
        if let Some(quant) = self.graph.node(id).quant {
            return Some((quant, Limits::NONE, id));
        }
        let user = self.only_user(id)?;
        let (Op::Act(act), Some(quant)) = (&self.graph.node(user).op, self.graph.node(user).quant) else {
            return None;
        };
        Some((quant, limits(*act, quant)?, user))
    }

    /// A convolution or linear layer of integers, if it is one.
    fn layer(&self, id: NodeId, has_bias: bool) -> Option<Layer> {
        let node = self.graph.node(id);
        let x = self.graph.quant(node.inputs[0])?;
        let Data::I8(integers) = &self.weights[&format!("{}.weight", node.name)].data else { return None };
        let outputs = node.shape[3];
        let k = integers.values.len() / outputs;
        if k > int8::MAX_K {
            return None;
        }
        let bias = has_bias.then(|| self.weight(id, "bias"));
        let unit = |(output, row): (usize, &[i8])| {
            let scale = integers.scales[if integers.scales.len() == 1 { 0 } else { output }];
            let unit = f64::from(x.scale) * f64::from(scale);
            let bias = bias.as_ref().map_or(0.0, |bias| libm::round(f64::from(bias[output]) / unit));
            let sum: i64 = row.iter().map(|&w| i64::from(w)).sum();
            // What does not fit saturates, and is refused by whoever needs it to fit.
            (unit, (bias as i64).saturating_sub(i64::from(x.zero_point) * sum))
        };
        let units = integers.values.chunks_exact(k).enumerate().map(unit).collect();
        let (result, last) = match self.kept(id) {
            Some((quant, limits, last)) => (Some((quant, limits)), last),
            None => (None, id),
        };
        Some(Layer { weights: integers.values.clone(), units, result, last })
    }

    /// `m` rows of `k` channels through a `[n, k]` weight of integers.
    fn int8_pointwise(&mut self, id: NodeId, layer: &Layer, [m, k, n]: [usize; 3]) -> Option<()> {
        let len = int8::pointwise::packed_len(n, k);
        let input = self.graph.node(id).inputs[0];
        let Some((quant, limits)) = layer.result else {
            // Nobody else rounds it.
            let (offsets, scales) = layer.floats()?;
            let weights = self.pack(len, |packed| {
                int8::pointwise::pack_floats(n, k, &layer.weights, &offsets, &scales, cast_slice_mut(packed));
            });
            let (x, y) = (self.read_bytes(input), self.write(id));
            self.push_int8(id, Some(id), Int8::PointwiseFloats { m, k, n, x, weights, y });
            return Some(());
        };
        let channels = layer.channels(quant)?;
        let weights = self.pack(len, |packed| {
            int8::pointwise::pack(n, k, &layer.weights, &channels, cast_slice_mut(packed));
        });
        let (x, y) = (self.read_bytes(input), self.write_bytes(id, layer.last));
        self.push_int8(id, Some(layer.last), Int8::Pointwise { m, k, n, limits, x, weights, y });
        Some(())
    }

    fn int8_conv(&mut self, id: NodeId, spec: &crate::op::Conv) -> Option<()> {
        let input = self.graph.node(id).inputs[0];
        let zero_point = self.graph.quant(input)?.zero_point;
        let layer = self.layer(id, spec.bias)?;
        let shape @ [n, h, w, in_channels] = self.graph.shape(input);
        let (out_channels, groups) = (spec.out_channels, spec.groups);
        if groups == 1 && spec.kernel == [1, 1] && spec.stride == [1, 1] && spec.padding == [0; 4] {
            return self.int8_pointwise(id, &layer, [n * h * w, in_channels, out_channels]);
        }
        let (quant, limits) = layer.result?;
        let channels = layer.channels(quant)?;
        let window = spec.window(shape).ok()?;
        let taps = window.taps();
        if groups == in_channels && out_channels == in_channels {
            let weights = self.pack(int8::depthwise::packed_len(in_channels, taps), |packed| {
                let packed = cast_slice_mut(packed);
                int8::depthwise::pack(in_channels, taps, &layer.weights, &channels, packed);
            });
            let (x, y) = (self.read_bytes(input), self.write_bytes(id, layer.last));
            let step = Int8::Depthwise { window, channels: in_channels, zero_point, limits, x, weights, y };
            self.push_int8(id, Some(layer.last), step);
            return Some(());
        }
        let k = taps * in_channels / groups;
        let weights = self.pack(int8::conv::packed_len(groups, out_channels, k), |packed| {
            let packed = cast_slice_mut(packed);
            int8::conv::pack(groups, out_channels, k, &layer.weights, &channels, packed);
        });
        let scratch_len = int8::conv::scratch_len(&window, in_channels, groups, self.how.threads);
        let scratch = self.fresh(Bytes::values(scratch_len));
        let scratch = self.touch_bytes(scratch, scratch_len);
        let (x, y) = (self.read_bytes(input), self.write_bytes(id, layer.last));
        let step = Int8::Conv {
            window,
            in_channels,
            out_channels,
            groups,
            zero_point,
            limits,
            x,
            weights,
            scratch,
            y,
        };
        self.push_int8(id, Some(layer.last), step);
        Some(())
    }

    /// Lowers a node to a step on bytes; `None` if it does not compute on bytes.
    pub(super) fn emit_int8(&mut self, id: NodeId) -> Option<()> {
        let graph = self.graph;
        let node = graph.node(id);
        if node.inputs.is_empty() || node.inputs.iter().any(|&input| self.bytes[input.index()].is_none()) {
            return None;
        }
        let grids: Vec<Quant> = node.inputs.iter().map(|&input| graph.quant(input)).collect::<Option<_>>()?;
        let pair = |quant: Quant| (quant.scale, quant.zero_point);
        let shape @ [n, h, w, c] = graph.shape(node.inputs[0]);
        let pixels = n * h * w;
        match &node.op {
            Op::Conv(spec) => return self.int8_conv(id, spec),
            Op::Linear { out_features, bias } => {
                let layer = self.layer(id, *bias)?;
                return self.int8_pointwise(id, &layer, [n, c, *out_features]);
            }
            Op::Add => {
                let (quant, limits, last) = self.kept(id)?;
                let sum = Sum::new(pair(grids[0]), pair(grids[1]), pair(quant), limits)?;
                let (a, b) = (self.read_bytes(node.inputs[0]), self.read_bytes(node.inputs[1]));
                let y = self.write_bytes(id, last);
                self.push_int8(id, Some(last), Int8::Add { sum, a, b, y });
                return Some(());
            }
            _ => {}
        }
        let quant = node.quant?;
        match &node.op {
            Op::Act(act) => {
                let table = self.table(|byte| quant.byte(act.apply(grids[0].value(byte))));
                let (x, y) = (self.read_bytes(node.inputs[0]), self.write_bytes(id, id));
                self.push_int8(id, Some(id), Int8::Lookup { table, x, y });
            }
            Op::Mul => {
                if graph.shape(node.inputs[1]) == shape {
                    return None;
                }
                let ratio = f64::from(grids[0].scale) * f64::from(grids[1].scale) / f64::from(quant.scale);
                let channel = Channel::new(ratio, 0, quant.zero_point)?;
                let zero_points = [grids[0].zero_point, grids[1].zero_point];
                let (x, scale) = (self.read_bytes(node.inputs[0]), self.read_bytes(node.inputs[1]));
                let y = self.write_bytes(id, id);
                let (channels, pixels) = (c, h * w);
                let step = Int8::ScaleChannels { n, pixels, channels, zero_points, channel, x, scale, y };
                self.push_int8(id, Some(id), step);
            }
            Op::GlobalAvgPool => {
                (h * w <= MOST_PIXELS).then_some(())?;
                let share = f64::from(grids[0].scale) / (f64::from(quant.scale) * (h * w) as f64);
                let constant = -i64::from(grids[0].zero_point) * (h * w) as i64;
                let channel = Channel::new(share, constant, quant.zero_point)?;
                let (x, y) = (self.read_bytes(node.inputs[0]), self.write_bytes(id, id));
                let step = Int8::GlobalAvgPool { n, pixels: h * w, channels: c, channel, x, y };
                self.push_int8(id, Some(id), step);
            }
            Op::Concat => {
                let y = self.write_bytes(id, id);
                let (value, all) = (y.place.start, node.shape[3]);
                let mut from = 0;
                for (part, &input) in node.inputs.iter().enumerate() {
                    let count = graph.shape(input)[3];
                    let x = self.bytes_on(input, quant);
                    let y = self.touch_bytes(value, y.len);
                    let (x_channels, y_channels) = ([count, 0], [all, from]);
                    let whole = (part + 1 == node.inputs.len()).then_some(id);
                    let step = Int8::CopyChannels { pixels, count, x, x_channels, y, y_channels };
                    self.push_int8(id, whole, step);
                    from += count;
                }
            }
            Op::Slice { start, len } => {
                let x = self.bytes_on(node.inputs[0], quant);
                let y = self.write_bytes(id, id);
                let (x_channels, y_channels) = ([c, *start], [*len, 0]);
                let step = Int8::CopyChannels { pixels, count: *len, x, x_channels, y, y_channels };
                self.push_int8(id, Some(id), step);
            }
            Op::ChannelShuffle { groups } => {
                let x = self.bytes_on(node.inputs[0], quant);
                let y = self.write_bytes(id, id);
                let step = Int8::Shuffle { pixels, channels: c, groups: *groups, x, y };
                self.push_int8(id, Some(id), step);
            }
            Op::Pad { padding } => {
                let x = self.bytes_on(node.inputs[0], quant);
                let y = self.write_bytes(id, id);
                let step = Int8::Pad { shape, padding: *padding, zero_point: quant.zero_point, x, y };
                self.push_int8(id, Some(id), step);
            }
            Op::MaxPool(pool) => {
                let window = pool.window(shape).ok().filter(|window| window.taps() <= MOST_TAPS)?;
                let x = self.bytes_on(node.inputs[0], quant);
                let y = self.write_bytes(id, id);
                self.push_int8(id, Some(id), Int8::MaxPool { window, channels: c, x, y });
            }
            Op::AvgPool(pool) => {
                let window = pool.window.window(shape).ok().filter(|window| window.taps() <= MOST_TAPS)?;
                let grid = grids[0];
                let (x, y) = (self.read_bytes(node.inputs[0]), self.write_bytes(id, id));
                let (include_pad, zero_point) = (pool.count_include_pad, grid.zero_point);
                let step = Int8::AvgPool { window, channels: c, zero_point, include_pad, x, y };
                self.push_int8(id, (grid == quant).then_some(id), step);
                if grid != quant {
                    let x = self.read_bytes(id);
                    let y = self.write_bytes(id, id);
                    let table = self.table(|byte| quant.byte(grid.value(byte)));
                    self.push_int8(id, Some(id), Int8::Lookup { table, x, y });
                }
            }
            Op::Input { .. }
            | Op::Conv(_)
            | Op::BatchNorm { .. }
            | Op::Add
            | Op::Flatten
            | Op::Linear { .. }
            | Op::Softmax
            | Op::Dropout { .. } => return None,
        }
        Some(())
    }
}
