//! From [`Graph`] to [`Plan`]: BatchNorm folded, activations and residual adds fused, weights packed, buffers placed.

mod int8;
mod rows;

use alloc::{format, string::String, vec, vec::Vec};

use penjing_kernels::{Act, conv, depthwise, pointwise, sparse, winograd};

use self::rows::Filter;

use crate::{
    aligned::Aligned,
    arena,
    error::Error,
    graph::{Graph, NodeId},
    op::{Op, Shape},
    plan::{Buffer, Partner, Plan, Span, Step},
    tensor::Weights,
};

/// Maps of at least so many values between a depthwise convolution and a pointwise one are computed a few rows at a time:
/// they would not stay in a second-level cache.
const BY_ROWS: usize = 144 * 1024;

/// Most values that an arena may hold (4 GiB of `f32`).
const MAX_ARENA: usize = 1 << 30;

/// How a graph becomes a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lower {
    /// Most threads that will run the plan.
    pub threads: usize,
    /// Maps of at least so many values between a depthwise convolution and a pointwise one are computed a few rows at a
    /// time and never stand in memory whole. That changes no bit of the result.
    pub by_rows: usize,
    /// Whether residual adds and activations are drawn into the convolution before them. Where not, every result that
    /// follows a convolution and its BatchNorm stands in memory once.
    pub fuse: bool,
}

impl Lower {
    /// The fastest plan.
    pub fn fastest(threads: usize) -> Self {
        Lower { threads, by_rows: BY_ROWS, fuse: true }
    }

    /// A plan in which every result stands in memory once.
    pub fn plain(threads: usize) -> Self {
        Lower { threads, by_rows: usize::MAX, fuse: false }
    }
}

/// A [`Plan`] that owns its parts.
#[derive(Clone, Debug)]
pub struct PlanBuf {
    steps: Vec<Step>,
    names: Vec<String>,
    results: Vec<Option<NodeId>>,
    weights: Aligned,
    input: Buffer,
    output: Buffer,
    arena_len: usize,
    threads: usize,
}

impl PlanBuf {
    /// Lowers a graph, to be run by at most `threads` threads.
    ///
    /// # Errors
    /// [`Error::Layer`] when the graph is empty, the weights are not the graph's, or running it would take more than
    /// 4 GiB of working memory.
    pub fn lower(graph: &Graph, weights: &Weights, threads: usize) -> Result<PlanBuf, Error> {
        PlanBuf::lower_with(graph, weights, Lower::fastest(threads))
    }

    /// Lowers a graph in another way; the result has the same bits.
    ///
    /// # Errors
    /// As [`lower`](Self::lower).
    pub fn lower_with(graph: &Graph, weights: &Weights, how: Lower) -> Result<PlanBuf, Error> {
        graph.check(weights)?;
        let Some(output) = graph.output() else {
            return Err(Error::layer("input", "the graph is empty"));
        };
        let mut lowering = Lowering::new(graph, weights, how);
        for (id, _) in graph.iter() {
            if !lowering.is_there(id) {
                lowering.emit(id);
            }
        }
        lowering.finish(output)
    }

    /// The plan.
    pub fn plan(&self) -> Plan<'_> {
        Plan {
            steps: &self.steps,
            weights: self.weights.get(),
            input: self.input,
            output: self.output,
            arena_len: self.arena_len,
            threads: self.threads,
        }
    }

    /// The first layers of the blocks that are computed a few rows at a time.
    pub fn by_rows(&self) -> impl Iterator<Item = &str> {
        let steps = self.steps.iter().zip(&self.names);
        steps.filter(|(step, _)| matches!(step, Step::Separable { .. })).map(|(_, name)| &name[..])
    }

    /// For each step, the node whose result stands whole when it is done; none for a step of a result in parts that is not
    /// the last one, and for a change of form.
    pub fn results(&self) -> &[Option<NodeId>] {
        &self.results
    }

    /// For each step, the name of the layer that it began with.
    pub fn step_names(&self) -> &[String] {
        &self.names
    }
}

/// A value while its place in the arena is not yet known.
type Value = usize;

struct Lowering<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    how: Lower,
    users: Vec<Vec<NodeId>>,
    /// Where each node's result is as floats, once a step has made it.
    value: Vec<Option<Value>>,
    /// Where it is as bytes. What is kept in 8 bits is read as floats by what computes with floats.
    bytes: Vec<Option<Value>>,
    /// Where the input tensor goes.
    input: Option<Value>,
    lengths: Vec<usize>,
    /// First and last step that touches each value.
    lives: Vec<[usize; 2]>,
    steps: Vec<Step>,
    names: Vec<String>,
    results: Vec<Option<NodeId>>,
    packed: Vec<f32>,
}

/// A convolution or linear layer with what follows it drawn in.
struct Fused {
    last: NodeId,
    /// Per output channel: factor on the weights, and bias.
    scale: Vec<f32>,
    bias: Vec<f32>,
    residual: Option<NodeId>,
    act: Act,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a Graph, weights: &'a Weights, how: Lower) -> Self {
        let count = graph.nodes().len();
        let mut users = vec![Vec::new(); count];
        for (id, node) in graph.iter() {
            for input in &node.inputs {
                users[input.index()].push(id);
            }
        }
        Lowering {
            graph,
            weights,
            how: Lower { threads: how.threads.max(1), ..how },
            users,
            value: vec![None; count],
            bytes: vec![None; count],
            input: None,
            lengths: Vec::new(),
            lives: Vec::new(),
            steps: Vec::new(),
            names: Vec::new(),
            results: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Whether a step has made a node's result, in whatever form.
    fn is_there(&self, id: NodeId) -> bool {
        self.value[id.index()].is_some() || self.bytes[id.index()].is_some()
    }

    /// The only user of a node, if there is just one.
    fn only_user(&self, id: NodeId) -> Option<NodeId> {
        match self.users[id.index()][..] {
            [user] => Some(user),
            _ => None,
        }
    }

    /// The only user of a node that may be drawn into its step: what is kept in 8 bits is rounded there.
    fn follower(&self, id: NodeId) -> Option<NodeId> {
        self.only_user(id).filter(|_| self.graph.node(id).quant.is_none())
    }

    fn weight(&self, id: NodeId, suffix: &str) -> Vec<f32> {
        self.weights[&format!("{}.{suffix}", self.graph.node(id).name)].to_f32()
    }

    fn fresh(&mut self, len: usize) -> Value {
        self.lengths.push(len);
        self.lives.push([self.steps.len(); 2]);
        self.lengths.len() - 1
    }

    /// Marks the value as used by the step that comes next, and gives a buffer that stands for it until placement.
    fn touch(&mut self, value: Value) -> Buffer {
        self.lives[value][1] = self.steps.len();
        Buffer { start: value, len: self.lengths[value] }
    }

    fn read(&mut self, id: NodeId) -> Buffer {
        let value = self.value[id.index()].expect("nodes stand in an order in which they can be computed");
        self.touch(value)
    }

    /// A fresh value for the result of the nodes from `first` to `last`, which one step computes together.
    fn write_chain(&mut self, first: NodeId, last: NodeId) -> Buffer {
        let len = self.graph.shape(last).iter().product();
        let value = self.fresh(len);
        let mut id = first;
        self.value[id.index()] = Some(value);
        while id != last {
            id = self.only_user(id).expect("only a node with one user is drawn in");
            self.value[id.index()] = Some(value);
        }
        self.touch(value)
    }

    fn write(&mut self, id: NodeId) -> Buffer {
        self.write_chain(id, id)
    }

    /// Appends a step of a result in parts that is not the last one.
    fn push_part(&mut self, id: NodeId, step: Step) {
        self.steps.push(step);
        self.results.push(None);
        self.names.push(self.graph.node(id).name.clone());
    }

    /// Appends the step that began with `id`. Floats that are to be kept in 8 bits are made bytes by the next.
    fn push(&mut self, id: NodeId, last: NodeId, step: Step) {
        self.names.push(self.graph.node(id).name.clone());
        self.push_named(last, step);
    }

    fn push_named(&mut self, last: NodeId, step: Step) {
        self.steps.push(step);
        self.results.push(Some(last));
        if let Some(quant) = self.graph.node(last).quant {
            self.keep_in_bytes(last, quant);
        }
    }

    fn pack(&mut self, len: usize, fill: impl FnOnce(&mut [f32])) -> Span {
        // Panels start on cache lines when the arena of weights does.
        let start = self.packed.len().next_multiple_of(16);
        self.packed.resize(start + len, 0.0);
        fill(&mut self.packed[start..]);
        Span { start, len }
    }

    /// Folds a BatchNorm into a per-channel factor and shift: `γ/√(var+eps)` and `β + (bias − mean)·factor`.
    fn fold_batch_norm(&self, id: NodeId, eps: f32, scale: &mut [f32], bias: &mut [f32]) {
        let [gamma, beta, mean, var] = ["gamma", "beta", "mean", "var"].map(|suffix| self.weight(id, suffix));
        for c in 0..scale.len() {
            let factor = f64::from(gamma[c]) / libm::sqrt(f64::from(var[c]) + f64::from(eps));
            let shift = f64::from(beta[c]) + (f64::from(bias[c]) - f64::from(mean[c])) * factor;
            scale[c] = (f64::from(scale[c]) * factor) as f32;
            bias[c] = shift as f32;
        }
    }

    /// Draws BatchNorm, residual add and activation into the layer that feeds nobody else.
    fn fuse(&self, id: NodeId, channels: usize, has_bias: bool, may_add: bool) -> Fused {
        let bias = if has_bias { self.weight(id, "bias") } else { vec![0.0; channels] };
        let mut fused = Fused { last: id, scale: vec![1.0; channels], bias, residual: None, act: Act::None };
        if let Some(user) = self.follower(fused.last)
            && let Op::BatchNorm { eps } = self.graph.node(user).op
        {
            self.fold_batch_norm(user, eps, &mut fused.scale, &mut fused.bias);
            fused.last = user;
        }
        if !self.how.fuse {
            return fused;
        }
        if may_add
            && let Some(user) = self.follower(fused.last)
            && let Op::Add = self.graph.node(user).op
        {
            let inputs = &self.graph.node(user).inputs;
            let other = if inputs[0] == fused.last { inputs[1] } else { inputs[0] };
            // What is added must be there before this step runs.
            if self.is_there(other) {
                fused.residual = Some(other);
                fused.last = user;
            }
        }
        if let Some(user) = self.follower(fused.last)
            && let Op::Act(act) = self.graph.node(user).op
        {
            fused.act = act;
            fused.last = user;
        }
        fused
    }

    fn scaled_weight(&self, id: NodeId, scale: &[f32]) -> Vec<f32> {
        let mut weight = self.weight(id, "weight");
        let per_output = weight.len() / scale.len();
        for (row, factor) in weight.chunks_exact_mut(per_output).zip(scale) {
            row.iter_mut().for_each(|w| *w *= factor);
        }
        weight
    }

    /// `m` rows of `k` channels through a `[n, k]` weight.
    fn emit_pointwise(&mut self, id: NodeId, [m, k, n]: [usize; 3], bias: bool) {
        let fused = self.fuse(id, n, bias, true);
        fused.residual.iter().for_each(|&other| self.need_floats(other));
        let weight = self.scaled_weight(id, &fused.scale);
        // What is computed by rows saves more.
        let small = m * k.max(n) < self.how.by_rows;
        if small && sparse::pays([m, k, n], sparse::count(&weight)) {
            let weights = self.pack(sparse::packed_len(n, k, &weight), |packed| {
                sparse::pack(n, k, &weight, Some(&fused.bias), packed);
            });
            let len = sparse::scratch_len(k, self.how.threads);
            let (x, residual, scratch, y) = self.conv_buffers(id, &fused, len);
            let act = fused.act;
            let step = Step::Sparse { m, k, n, act, x, weights, residual, scratch, y };
            return self.push(id, fused.last, step);
        }
        let weights = self.pack(pointwise::packed_len(n, k), |packed| {
            pointwise::pack(n, k, &weight, Some(&fused.bias), packed);
        });
        if let Some((name, filter)) = self.take_by_rows(id, Filter::of) {
            let residual = fused.residual.map(|other| self.read(other));
            let filter = Filter { after: Some((n, Partner { act: fused.act, weights, residual })), ..filter };
            return self.emit_by_rows(name, filter, [id, fused.last]);
        }
        let x = self.read(self.graph.node(id).inputs[0]);
        let residual = fused.residual.map(|other| self.read(other));
        let y = self.write_chain(id, fused.last);
        self.push(id, fused.last, Step::Pointwise { m, k, n, act: fused.act, x, weights, residual, y });
    }

    fn emit_conv(&mut self, id: NodeId, spec: &crate::op::Conv, input: Shape) {
        let [n, h, w, in_channels] = input;
        let out_channels = spec.out_channels;
        let window = spec.window(input).expect("the graph has checked its shapes");
        let dense = spec.groups == 1;
        if dense && spec.kernel == [1, 1] && spec.stride == [1, 1] && spec.padding == [0; 4] {
            return self.emit_pointwise(id, [n * h * w, in_channels, out_channels], spec.bias);
        }
        let is_depthwise = spec.groups == in_channels && out_channels == in_channels;
        let fused = self.fuse(id, out_channels, spec.bias, !is_depthwise);
        fused.residual.iter().for_each(|&other| self.need_floats(other));
        let weight = self.scaled_weight(id, &fused.scale);
        let taps = spec.kernel[0] * spec.kernel[1];
        let bias = Some(&fused.bias[..]);
        if is_depthwise {
            let weights = self.pack(depthwise::packed_len(in_channels, taps), |packed| {
                depthwise::pack(in_channels, taps, &weight, bias, packed);
            });
            let act = fused.act;
            let wide = |step: &Step| match *step {
                Step::Pointwise { k, act, x, ref weights, residual: None, .. } => {
                    Some((k, x, Partner { act, weights: *weights, residual: None }))
                }
                _ => None,
            };
            if let Some((name, (k, x, before))) = self.take_by_rows(id, wide) {
                let before = Some((k, before));
                let filter = Filter { window, channels: in_channels, before, act, weights, after: None, x };
                return self.emit_by_rows(name, filter, [id, fused.last]);
            }
            let x = self.read(self.graph.node(id).inputs[0]);
            let y = self.write_chain(id, fused.last);
            self.push(id, fused.last, Step::Depthwise { window, channels: in_channels, act, x, weights, y });
            return;
        }
        if dense && winograd::pays(&window, in_channels, out_channels) {
            let weights = self.pack(winograd::packed_len(in_channels, out_channels), |packed| {
                winograd::pack(in_channels, out_channels, &weight, bias, packed);
            });
            let len = winograd::scratch_len(&window, in_channels, out_channels, self.how.threads);
            let (x, residual, scratch, y) = self.conv_buffers(id, &fused, len);
            let act = fused.act;
            return self.push(
                id,
                fused.last,
                Step::Winograd { window, in_channels, out_channels, act, x, weights, residual, scratch, y },
            );
        }
        let k = taps * in_channels / spec.groups;
        let weights = self.pack(conv::packed_len(spec.groups, out_channels, k), |packed| {
            conv::pack(spec.groups, out_channels, k, &weight, bias, packed);
        });
        let (groups, act) = (spec.groups, fused.act);
        let len = conv::scratch_len(&window, in_channels, groups, self.how.threads);
        let (x, residual, scratch, y) = self.conv_buffers(id, &fused, len);
        self.push(
            id,
            fused.last,
            Step::Conv { window, in_channels, out_channels, groups, act, x, weights, residual, scratch, y },
        );
    }

    /// The input, the residual, fresh scratch and the result of a convolution.
    fn conv_buffers(
        &mut self,
        id: NodeId,
        fused: &Fused,
        scratch: usize,
    ) -> (Buffer, Option<Buffer>, Buffer, Buffer) {
        let scratch = self.fresh(scratch);
        let scratch = self.touch(scratch);
        let x = self.read(self.graph.node(id).inputs[0]);
        let residual = fused.residual.map(|other| self.read(other));
        (x, residual, scratch, self.write_chain(id, fused.last))
    }

    fn emit(&mut self, id: NodeId) {
        let graph = self.graph;
        let node = graph.node(id);
        if self.emit_int8(id).is_some() {
            return;
        }
        if let Op::Flatten | Op::Dropout { .. } = node.op {
            // The same values in the same order.
            return self.pass_on(id, node.inputs[0]);
        }
        node.inputs.iter().for_each(|&input| self.need_floats(input));
        let input = |index: usize| graph.shape(node.inputs[index]);
        match &node.op {
            Op::Input { .. } => {
                self.write(id);
                self.input = self.value[id.index()];
                if let Some(quant) = node.quant {
                    self.keep_in_bytes(id, quant);
                }
            }
            Op::Conv(spec) => self.emit_conv(id, spec, input(0)),
            Op::Linear { out_features, bias } => {
                self.emit_pointwise(id, [input(0)[0], input(0)[3], *out_features], *bias);
            }
            // Alone it is a depthwise convolution of one tap.
            Op::BatchNorm { eps } => {
                let channels = input(0)[3];
                let (mut scale, mut bias) = (vec![1.0; channels], vec![0.0; channels]);
                self.fold_batch_norm(id, *eps, &mut scale, &mut bias);
                let weights = self.pack(depthwise::packed_len(channels, 1), |packed| {
                    depthwise::pack(channels, 1, &scale, Some(&bias), packed);
                });
                let (act, last) = self.following_act(id);
                let one_tap = crate::op::Conv::new(channels, 1, 1);
                let window = one_tap.window(input(0)).expect("a kernel of one tap fits everywhere");
                let (x, y) = (self.read(node.inputs[0]), self.write_chain(id, last));
                self.push(id, last, Step::Depthwise { window, channels, act, x, weights, y });
            }
            Op::Act(act) => {
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                self.push(id, id, Step::Activate { act: *act, x, y });
            }
            Op::Add => {
                let (act, last) = self.following_act(id);
                let (a, b) = (self.read(node.inputs[0]), self.read(node.inputs[1]));
                let y = self.write_chain(id, last);
                self.push(id, last, Step::Add { act, a, b, y });
            }
            Op::Mul => {
                let (a, b) = (self.read(node.inputs[0]), self.read(node.inputs[1]));
                let y = self.write(id);
                let [n, h, w, channels] = node.shape;
                self.push(
                    id,
                    id,
                    if input(0) == input(1) {
                        Step::Multiply { a, b, y }
                    } else {
                        Step::ScaleChannels { n, pixels: h * w, channels, x: a, scale: b, y }
                    },
                );
            }
            Op::Concat => {
                let y = self.write(id);
                let (value, [n, h, w, all]) = (y.start, node.shape);
                let mut from = 0;
                for (place, &part) in node.inputs.iter().enumerate() {
                    let count = graph.shape(part)[3];
                    let (x, y) = (self.read(part), self.touch(value));
                    let (x_channels, y_channels) = ([count, 0], [all, from]);
                    let step = Step::CopyChannels { pixels: n * h * w, count, x, x_channels, y, y_channels };
                    if place + 1 < node.inputs.len() {
                        self.push_part(id, step);
                    } else {
                        self.push(id, id, step);
                    }
                    from += count;
                }
            }
            Op::Slice { start, len } => {
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                let [n, h, w, count] = node.shape;
                let (x_channels, y_channels) = ([input(0)[3], *start], [*len, 0]);
                self.push(
                    id,
                    id,
                    Step::CopyChannels { pixels: n * h * w, count, x, x_channels, y, y_channels },
                );
            }
            Op::ChannelShuffle { groups } => {
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                let [n, h, w, channels] = node.shape;
                self.push(id, id, Step::Shuffle { pixels: n * h * w, channels, groups: *groups, x, y });
            }
            Op::Pad { padding } => {
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                self.push(id, id, Step::Pad { shape: input(0), padding: *padding, x, y });
            }
            Op::MaxPool(pool) => {
                let window = pool.window(input(0)).expect("the graph has checked its shapes");
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                self.push(id, id, Step::MaxPool { window, channels: node.shape[3], x, y });
            }
            Op::AvgPool(pool) => {
                let window = pool.window.window(input(0)).expect("the graph has checked its shapes");
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                let include_pad = pool.count_include_pad;
                self.push(id, id, Step::AvgPool { window, channels: node.shape[3], include_pad, x, y });
            }
            Op::GlobalAvgPool => {
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                let [n, h, w, channels] = input(0);
                self.push(id, id, Step::GlobalAvgPool { n, pixels: h * w, channels, x, y });
            }
            Op::Softmax => {
                let (x, y) = (self.read(node.inputs[0]), self.write(id));
                let [n, h, w, channels] = node.shape;
                self.push(id, id, Step::Softmax { rows: n * h * w, channels, x, y });
            }
            Op::Flatten | Op::Dropout { .. } => {}
        }
    }

    /// The activation that alone follows a node, and the node whose result the pair makes.
    fn following_act(&self, id: NodeId) -> (Act, NodeId) {
        if self.how.fuse
            && let Some(user) = self.follower(id)
            && let Op::Act(act) = self.graph.node(user).op
        {
            (act, user)
        } else {
            (Act::None, id)
        }
    }

    fn finish(mut self, output: NodeId) -> Result<PlanBuf, Error> {
        self.need_floats(output);
        let end = self.steps.len();
        let (input, output) = (self.input, self.value[output.index()]);
        let (input, output) = input.zip(output).expect("every node has been emitted");
        self.lives[output][1] = end;
        let (starts, arena_len) = arena::place(&self.lengths, &self.lives);
        if arena_len > MAX_ARENA {
            let what = format!(
                "running the network takes {arena_len} values of memory, at most {MAX_ARENA} are allowed"
            );
            return Err(Error::layer(&self.graph.node(NodeId::FIRST).name, what));
        }
        let place = |buffer: &mut Buffer| buffer.start = starts[buffer.start];
        for step in &mut self.steps {
            step.buffers(place);
        }
        let buffer = |value: Value| Buffer { start: starts[value], len: self.lengths[value] };
        Ok(PlanBuf {
            input: buffer(input),
            output: buffer(output),
            steps: self.steps,
            names: self.names,
            results: self.results,
            weights: self.packed[..].into(),
            arena_len,
            threads: self.how.threads,
        })
    }
}

impl Step {
    /// The value that the step makes, before buffers have their places.
    fn result(&mut self) -> Value {
        let mut last = 0;
        // It is visited last.
        self.buffers(|buffer| last = buffer.start);
        last
    }

    /// Visits every arena buffer of the step, that of its result last.
    fn buffers(&mut self, mut visit: impl FnMut(&mut Buffer)) {
        match self {
            Step::Pointwise { x, residual, y, .. } => {
                visit(x);
                residual.iter_mut().for_each(&mut visit);
                visit(y);
            }
            Step::Conv { x, residual, scratch, y, .. }
            | Step::Sparse { x, residual, scratch, y, .. }
            | Step::Winograd { x, residual, scratch, y, .. } => {
                visit(x);
                residual.iter_mut().for_each(&mut visit);
                visit(scratch);
                visit(y);
            }
            Step::Separable { before, after, x, scratch, y, .. } => {
                visit(x);
                let partners = [before, after].into_iter().flatten();
                partners.for_each(|partner| partner.residual.iter_mut().for_each(&mut visit));
                visit(scratch);
                visit(y);
            }
            Step::Int8(step) => step.buffers(visit),
            Step::Add { a, b, y, .. } | Step::Multiply { a, b, y } => {
                visit(a);
                visit(b);
                visit(y);
            }
            Step::ScaleChannels { x, scale, y, .. } => {
                visit(x);
                visit(scale);
                visit(y);
            }
            Step::Depthwise { x, y, .. }
            | Step::MaxPool { x, y, .. }
            | Step::AvgPool { x, y, .. }
            | Step::GlobalAvgPool { x, y, .. }
            | Step::Activate { x, y, .. }
            | Step::CopyChannels { x, y, .. }
            | Step::Shuffle { x, y, .. }
            | Step::Pad { x, y, .. }
            | Step::Softmax { x, y, .. } => {
                visit(x);
                visit(y);
            }
        }
    }
}
