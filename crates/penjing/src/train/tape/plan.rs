//! From a graph to the units of a tape: what belongs together, what is stored, and where.

use std::{collections::BTreeMap, ops::Range};

use penjing_kernels::Window;
use penjing_runtime::{
    Act, Error as RuntimeError, arena,
    graph::{Graph, NodeId},
    op::{Conv, Op, Shape},
    quant::Quant,
};

use super::{Policy, Statistics};

/// The result of one unit.
#[derive(Debug)]
pub(super) struct Value {
    pub shape: Shape,
    /// What consumers read: the result itself, or with `lazy` what its unit computed before normalization and activation.
    pub stored: Range<usize>,
    /// Where the backward half finds that: elsewhere if it is computed again.
    pub kept: Range<usize>,
    /// The unit whose normalization and activation a reader has to apply.
    pub lazy: Option<usize>,
    /// The gradient of the loss with respect to the result; `None` where nobody asks for it.
    pub gradient: Option<Range<usize>>,
}

impl Value {
    pub(super) fn channels(&self) -> usize {
        self.shape[3]
    }

    /// Values of one image.
    pub(super) fn image(&self) -> usize {
        self.shape[1] * self.shape[2] * self.shape[3]
    }
}

/// What is computed in one go, forward and backward.
#[derive(Debug)]
pub(super) struct Unit {
    pub work: Work,
    /// The values that are read.
    pub inputs: Vec<usize>,
    /// For each of them: whether its gradient has been written by another unit before, and is added to.
    pub adds: Vec<bool>,
    /// Whether the gradient of its only input is whole after this unit, and the batch's statistics normalize that: what the
    /// input's own backward half needs to know of the whole gradient is summed up on the way.
    pub sums: bool,
    /// The value that is made.
    pub output: usize,
    /// Whether its backward half has anything to do.
    pub backward: bool,
    /// Units whose raw results are computed again before its backward half.
    pub again: Vec<usize>,
}

/// The kinds of units.
#[derive(Debug)]
pub(super) enum Work {
    /// The network's input.
    Input,
    /// Convolution or linear layer, with the normalization and activation that follow it.
    Layer(Layer),
    /// A normalization that follows no convolution, with the activation after it.
    Norm {
        norm: Norm,
        act: Act,
    },
    Act(Act),
    /// Sum, with the activation that follows it.
    Add,
    Mul,
    Concat,
    Slice {
        start: usize,
    },
    ChannelShuffle {
        groups: usize,
    },
    Pad {
        padding: [usize; 4],
    },
    MaxPool {
        window: Window,
    },
    AvgPool {
        window: Window,
        include_pad: bool,
    },
    GlobalAvgPool,
    /// The same values under another shape.
    Flatten,
    Softmax,
    Dropout {
        rate: f32,
    },
    /// The nearest values of a grid.
    Round(Quant),
}

/// Convolution or linear layer, with what follows it.
#[derive(Debug)]
pub(super) struct Layer {
    pub form: Form,
    /// Places of its weights among the parameters.
    pub weight: usize,
    pub bias: Option<usize>,
    pub norm: Option<Norm>,
    pub act: Act,
    /// What is stored before normalization and activation; where both can be read off the result, the result.
    pub raw: Range<usize>,
    /// Whether readers find the result in a buffer of its own beside `raw`.
    pub apart: bool,
    /// Whether the weights are learnt.
    pub learns: bool,
}

/// How a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A matrix product: `m` pixels of `k` channels to `n` channels.
    Rows { m: usize, k: usize, n: usize },
    /// A window over one image at a time, every channel by itself.
    Depthwise { window: Window, c: usize },
    /// A window over one image at a time.
    Dense { window: Window, in_c: usize, out_c: usize, groups: usize },
}

/// Batch normalization.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    /// Places among the parameters.
    pub gamma: usize,
    pub beta: usize,
    pub mean: usize,
    pub var: usize,
    pub eps: f32,
    /// Whether the batch's own statistics are used.
    pub batch: bool,
    /// Whether γ and β are learnt.
    pub learns: bool,
}

/// Everything that does not change while training.
#[derive(Debug)]
pub(super) struct TapePlan {
    pub units: Vec<Unit>,
    pub values: Vec<Value>,
    pub arena_len: usize,
}

/// A buffer while its place is not known: its length and the first and last moment of its life.
struct Buffer {
    len: usize,
    life: [usize; 2],
}

struct Builder<'a> {
    graph: &'a Graph,
    policy: &'a Policy,
    places: BTreeMap<String, usize>,
    users: Vec<Vec<NodeId>>,
    /// The value of each node that has one of its own.
    value: Vec<Option<usize>>,
    units: Vec<Unit>,
    shapes: Vec<Shape>,
    /// For each value, the unit that makes it.
    maker: Vec<usize>,
}

pub(super) fn plan(graph: &Graph, policy: &Policy) -> Result<TapePlan, RuntimeError> {
    let places = graph.parameters().into_iter().enumerate().map(|(place, (name, _))| (name, place)).collect();
    let mut users = vec![Vec::new(); graph.nodes().len()];
    for (id, node) in graph.iter() {
        for input in &node.inputs {
            users[input.index()].push(id);
        }
    }
    let count = graph.nodes().len();
    let mut builder = Builder {
        graph,
        policy,
        places,
        users,
        value: vec![None; count],
        units: Vec::new(),
        shapes: Vec::new(),
        maker: Vec::new(),
    };
    for (id, _) in graph.iter() {
        if builder.value[id.index()].is_none() {
            builder.emit(id)?;
        }
    }
    Ok(builder.finish())
}

impl Builder<'_> {
    fn only_user(&self, id: NodeId) -> Option<NodeId> {
        match self.users[id.index()][..] {
            [user] => Some(user),
            _ => None,
        }
    }

    /// The only user of a node that may be drawn into its unit: what is kept in 8 bits is rounded before it is read.
    fn follower(&self, id: NodeId) -> Option<NodeId> {
        self.only_user(id).filter(|_| self.graph.node(id).quant.is_none())
    }

    fn learns(&self, id: NodeId) -> bool {
        id.index() >= self.policy.first
    }

    fn place(&self, id: NodeId, suffix: &str) -> usize {
        self.places[&format!("{}.{suffix}", self.graph.node(id).name)]
    }

    fn norm(&self, id: NodeId, eps: f32) -> Norm {
        Norm {
            gamma: self.place(id, "gamma"),
            beta: self.place(id, "beta"),
            mean: self.place(id, "mean"),
            var: self.place(id, "var"),
            eps,
            batch: self.policy.statistics == Statistics::Batch && self.learns(id),
            learns: self.learns(id),
        }
    }

    /// The activation that alone follows a node, and the last node of the pair.
    fn following_act(&self, id: NodeId) -> (Act, NodeId) {
        if let Some(user) = self.follower(id)
            && let Op::Act(act) = self.graph.node(user).op
        {
            (act, user)
        } else {
            (Act::None, id)
        }
    }

    fn layer(&self, id: NodeId, form: Form, bias: bool) -> (Work, NodeId) {
        let mut last = id;
        let mut norm = None;
        if let Some(user) = self.follower(id)
            && let Op::BatchNorm { eps } = self.graph.node(user).op
            && self.learns(user) == self.learns(id)
        {
            norm = Some(self.norm(user, eps));
            last = user;
        }
        let (act, last) = self.following_act(last);
        let layer = Layer {
            form,
            weight: self.place(id, "weight"),
            bias: bias.then(|| self.place(id, "bias")),
            norm,
            act,
            raw: 0..0,
            apart: false,
            learns: self.learns(id),
        };
        (Work::Layer(layer), last)
    }

    fn emit(&mut self, id: NodeId) -> Result<(), RuntimeError> {
        let node = self.graph.node(id);
        let input = |index: usize| self.graph.shape(node.inputs[index]);
        let misfit = |what: String| RuntimeError::layer(&node.name, what);
        let (work, last) = match &node.op {
            Op::Input { .. } => (Work::Input, id),
            Op::Conv(conv) => {
                let form = form(conv, input(0)).map_err(misfit)?;
                self.layer(id, form, conv.bias)
            }
            Op::Linear { out_features, bias } => {
                let form = Form::Rows { m: input(0)[0], k: input(0)[3], n: *out_features };
                self.layer(id, form, *bias)
            }
            Op::BatchNorm { eps } => {
                let (act, last) = self.following_act(id);
                (Work::Norm { norm: self.norm(id, *eps), act }, last)
            }
            Op::Act(act) => (Work::Act(*act), id),
            Op::Add => (Work::Add, id),
            Op::Mul => (Work::Mul, id),
            Op::Concat => (Work::Concat, id),
            Op::Slice { start, .. } => (Work::Slice { start: *start }, id),
            Op::ChannelShuffle { groups } => (Work::ChannelShuffle { groups: *groups }, id),
            Op::Pad { padding } => (Work::Pad { padding: *padding }, id),
            Op::MaxPool(pool) => {
                (Work::MaxPool { window: one_image(pool.window(input(0)).map_err(misfit)?) }, id)
            }
            Op::AvgPool(pool) => {
                let window = one_image(pool.window.window(input(0)).map_err(misfit)?);
                (Work::AvgPool { window, include_pad: pool.count_include_pad }, id)
            }
            Op::GlobalAvgPool => (Work::GlobalAvgPool, id),
            Op::Softmax => (Work::Softmax, id),
            Op::Dropout { rate } if *rate > 0.0 => (Work::Dropout { rate: *rate }, id),
            Op::Flatten if input(0)[1..3] != [1, 1] => (Work::Flatten, id),
            // The same values under the same shape.
            Op::Flatten | Op::Dropout { .. } => {
                self.value[id.index()] = self.value[node.inputs[0].index()];
                self.round(id);
                return Ok(());
            }
        };
        let value = |id: &NodeId| {
            self.value[id.index()].expect("nodes stand in an order in which they can be computed")
        };
        let inputs: Vec<usize> = node.inputs.iter().map(value).collect();
        let output = self.push(work, inputs, self.graph.shape(last));
        let mut at = id;
        self.value[at.index()] = Some(output);
        while at != last {
            at = self.only_user(at).expect("only a node with one user is drawn in");
            self.value[at.index()] = Some(output);
        }
        self.round(last);
        Ok(())
    }

    /// Appends a unit and gives the value that it makes.
    fn push(&mut self, work: Work, inputs: Vec<usize>, shape: Shape) -> usize {
        let output = self.shapes.len();
        self.shapes.push(shape);
        self.maker.push(self.units.len());
        let adds = vec![false; inputs.len()];
        let (sums, backward, again) = (false, false, Vec::new());
        self.units.push(Unit { work, inputs, adds, sums, output, backward, again });
        output
    }

    /// Puts the rounded result in a node's place, if it is kept in 8 bits.
    fn round(&mut self, id: NodeId) {
        if let (Some(quant), Some(exact)) = (self.graph.node(id).quant, self.value[id.index()]) {
            let rounded = self.push(Work::Round(quant), vec![exact], self.graph.shape(id));
            self.value[id.index()] = Some(rounded);
        }
    }

    fn finish(self) -> TapePlan {
        let Builder { policy, mut units, shapes, maker, .. } = self;
        let count = units.len();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); shapes.len()];
        for (index, unit) in units.iter().enumerate() {
            unit.inputs.iter().for_each(|&value| readers[value].push(index));
        }
        // Which values lead back to something that is learnt.
        let mut wanted = vec![false; shapes.len()];
        for unit in &mut units {
            let own = match &unit.work {
                Work::Layer(layer) => layer.learns,
                Work::Norm { norm, .. } => norm.learns,
                _ => false,
            };
            unit.backward = own || unit.inputs.iter().any(|&input| wanted[input]);
            wanted[unit.output] = unit.backward;
        }

        // Moments: unit i forward at i, the loss at `count`, unit i backward at `2·count − i`.
        let backward_of = |unit: usize| 2 * count - unit;
        let mut buffers: Vec<Buffer> = Vec::new();
        let mut stored = Vec::with_capacity(shapes.len());
        let mut raws: Vec<Option<usize>> = vec![None; count];
        let mut lazy: Vec<Option<usize>> = vec![None; shapes.len()];
        let mut kept: Vec<Option<usize>> = vec![None; shapes.len()];
        for (value, shape) in shapes.iter().enumerate() {
            let made = maker[value];
            let len: usize = shape.iter().product();
            let mut fresh = |life: [usize; 2]| {
                buffers.push(Buffer { len, life });
                buffers.len() - 1
            };
            let mut last = if value + 1 == shapes.len() { count } else { made };
            let mut first_back = usize::MAX;
            let last_forward = readers[value].iter().copied().fold(last, usize::max);
            for &reader in &readers[value] {
                last = last.max(reader);
                if units[reader].backward && units[reader].needs_input(&wanted) {
                    last = last.max(backward_of(reader));
                    first_back = first_back.min(backward_of(reader));
                }
            }
            let own =
                if units[made].backward && units[made].needs_output() { backward_of(made) } else { made };
            let later = match &units[made].work {
                Work::Layer(layer) => layer.reads_later(),
                _ => false,
            };
            if !later {
                stored.push(fresh([made, last.max(own)]));
                raws[made] = Some(stored[value]);
                continue;
            }
            let all_can =
                value + 1 < shapes.len() && readers[value].iter().all(|&reader| units[reader].reads_lazily());
            if all_can {
                lazy[value] = Some(made);
                let again = units[made].cheap(policy.frugal) && kept[units[made].inputs[0]].is_none();
                stored.push(fresh([made, if again { last_forward } else { last.max(own) }]));
                raws[made] = Some(stored[value]);
                if again {
                    let first = first_back.min(own);
                    kept[value] = Some(fresh([first, own]));
                    units[2 * count - first].again.push(made);
                }
            } else {
                raws[made] = Some(fresh([made, own]));
                stored.push(fresh([made, last]));
            }
        }

        // Gradients. Of a sum, an input that nobody else reads shares the sum's own.
        let mut owner: Vec<usize> = (0..shapes.len()).collect();
        for unit in units.iter().rev() {
            if matches!(unit.work, Work::Add) {
                for &input in &unit.inputs {
                    if wanted[input] && readers[input].len() == 1 {
                        owner[input] = owner[unit.output];
                    }
                }
            }
        }
        let mut gradient_of: Vec<Option<usize>> = vec![None; shapes.len()];
        for value in (0..shapes.len()).rev().filter(|&value| wanted[value]) {
            let died = backward_of(maker[value]);
            if owner[value] != value {
                let shared = gradient_of[owner[value]].expect("a sum comes after what it adds");
                buffers[shared].life[1] = buffers[shared].life[1].max(died);
                gradient_of[value] = Some(shared);
                continue;
            }
            let first = readers[value].iter().copied().filter(|&reader| units[reader].backward).max();
            let born = first.map_or(count, backward_of);
            buffers.push(Buffer { len: shapes[value].iter().product(), life: [born, died] });
            gradient_of[value] = Some(buffers.len() - 1);
        }
        let mut written = vec![false; shapes.len()];
        for unit in units.iter_mut().rev().filter(|unit| unit.backward) {
            for (position, &input) in unit.inputs.iter().enumerate() {
                unit.adds[position] = std::mem::replace(&mut written[input], true);
            }
        }

        for (value, readers) in readers.iter().enumerate() {
            // The first forward is the last on the way back, which completes the gradient.
            let Some(&last) = readers.iter().find(|&&reader| units[reader].backward) else { continue };
            let batch = matches!(&units[maker[value]].work, Work::Layer(layer) if layer.is_batch());
            let reads = matches!(&units[last].work, Work::Layer(layer) if layer.learns);
            units[last].sums = batch && reads && lazy[value].is_some();
        }

        let lengths: Vec<usize> = buffers.iter().map(|buffer| buffer.len).collect();
        let lives: Vec<[usize; 2]> = buffers.iter().map(|buffer| buffer.life).collect();
        let (starts, arena_len) = arena::place(&lengths, &lives);
        let range = |buffer: usize| starts[buffer]..starts[buffer] + lengths[buffer];
        for (index, unit) in units.iter_mut().enumerate() {
            if let Work::Layer(layer) = &mut unit.work {
                layer.raw = raws[index].map_or(0..0, range);
                layer.apart = raws[index] != Some(stored[unit.output]);
            }
        }
        let values = shapes
            .into_iter()
            .enumerate()
            .map(|(value, shape)| Value {
                shape,
                stored: range(stored[value]),
                kept: range(kept[value].unwrap_or(stored[value])),
                lazy: lazy[value],
                gradient: gradient_of[value].map(range),
            })
            .collect();
        TapePlan { units, values, arena_len }
    }
}

impl Unit {
    /// Whether it can read a value before normalization and activation.
    fn reads_lazily(&self) -> bool {
        matches!(self.work, Work::Layer(_) | Work::Add | Work::GlobalAvgPool)
    }

    /// Whether its backward half reads its inputs.
    fn needs_input(&self, wanted: &[bool]) -> bool {
        match &self.work {
            Work::Layer(layer) => layer.learns,
            Work::Norm { .. } | Work::Act(_) | Work::MaxPool { .. } | Work::Round(_) => true,
            Work::Mul => self.inputs.iter().any(|&input| wanted[input]),
            Work::Input
            | Work::Add
            | Work::Concat
            | Work::Slice { .. }
            | Work::ChannelShuffle { .. }
            | Work::Pad { .. }
            | Work::AvgPool { .. }
            | Work::GlobalAvgPool
            | Work::Flatten
            | Work::Softmax
            | Work::Dropout { .. } => false,
        }
    }

    /// Whether its raw result is rather computed again for the backward half than kept (Chen et al., arXiv 1604.06174): it
    /// takes much more memory than what it is made of and, unless `frugal`, few operations a value.
    fn cheap(&self, frugal: bool) -> bool {
        const OPERATIONS: usize = 32;
        match &self.work {
            // What is learnt keeps its input.
            Work::Layer(Layer { form: Form::Rows { k, n, .. }, learns: true, norm: Some(norm), .. }) => {
                norm.batch && *n >= 2 * k && (frugal || *k <= OPERATIONS)
            }
            _ => false,
        }
    }

    /// Whether its backward half reads what it computed.
    fn needs_output(&self) -> bool {
        match &self.work {
            Work::Layer(layer) => layer.is_batch() || layer.act != Act::None,
            Work::Softmax => true,
            _ => false,
        }
    }
}

impl Layer {
    /// Whether the batch's own statistics normalize it.
    pub(super) fn is_batch(&self) -> bool {
        self.norm.as_ref().is_some_and(|norm| norm.batch)
    }

    /// Whether normalization or activation must wait until what was computed is read: statistics are known only at the
    /// end, and an activation that does more than clamp cannot be undone.
    pub(super) fn reads_later(&self) -> bool {
        self.is_batch() || !clamps(self.act)
    }

    /// Output channels.
    pub(super) fn channels(&self) -> usize {
        match self.form {
            Form::Rows { n, .. } => n,
            Form::Depthwise { c, .. } => c,
            Form::Dense { out_c, .. } => out_c,
        }
    }
}

/// Whether an activation's slope can be told from its result.
pub(super) fn clamps(act: Act) -> bool {
    match act {
        Act::None | Act::Relu | Act::Relu6 => true,
        Act::LeakyRelu(slope) => slope > 0.0,
        Act::HSwish | Act::HSigmoid | Act::Sigmoid | Act::Silu => false,
    }
}

fn form(conv: &Conv, input: Shape) -> Result<Form, String> {
    let [n, h, w, in_c] = input;
    let window = one_image(conv.window(input)?);
    if conv.groups == 1 && conv.kernel == [1, 1] && conv.stride == [1, 1] && conv.padding == [0; 4] {
        return Ok(Form::Rows { m: n * h * w, k: in_c, n: conv.out_channels });
    }
    if conv.groups == in_c && conv.out_channels == in_c {
        return Ok(Form::Depthwise { window, c: in_c });
    }
    Ok(Form::Dense { window, in_c, out_c: conv.out_channels, groups: conv.groups })
}

fn one_image(window: Window) -> Window {
    Window { n: 1, ..window }
}
