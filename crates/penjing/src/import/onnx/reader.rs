//! From node to node of a file: what each value is, in penjing's terms.

use std::{collections::BTreeMap, rc::Rc};

use penjing_runtime::op::Op;
use penjing_runtime::tensor::Tensor;

use super::{
    super::{What, shown},
    arithmetic,
    array::Array,
    draft::{Affine, Draft},
    fold, layers,
    node::Node,
    shapes,
};

/// What a value of the file is.
#[derive(Clone)]
pub(super) enum Value {
    /// Known while reading.
    Constant(Rc<Array>),
    /// Computed from the image.
    Edge(Edge),
}

/// The result of a layer, as the file sees it.
#[derive(Clone)]
pub(super) struct Edge {
    /// The layer.
    pub(super) at: usize,
    /// How the file's axes stand to `[N,H,W,C]`.
    pub(super) form: Form,
    /// What is still to be done to the layer's result.
    pub(super) affine: Option<Affine>,
    /// Whether no other value that anything reads stands for the same layer.
    pub(super) own: bool,
    /// Whether it is the image as the photos' preprocessing is to make it.
    pub(super) normalized: bool,
}

/// How the file's axes stand to `[N,H,W,C]`, in which every layer works.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// `[N,C,H,W]`.
    Map,
    /// `[N,H,W,C]`.
    Last,
    /// `[N,C,H·W]`.
    Line,
    /// `[N,K]`. Where it is a map `[C,H,W]` laid flat, the layer has it channels last.
    Vector { of: Option<[usize; 3]> },
    /// `[N,groups,C/groups,H,W]`; with `swapped`, the two exchanged.
    Groups { groups: usize, swapped: bool },
}

/// All values so far.
pub(super) struct Reader {
    pub(super) draft: Draft,
    values: BTreeMap<String, Value>,
    /// How many nodes read a value.
    uses: BTreeMap<String, usize>,
    pub(super) opset: i64,
}

/// What a node does: its results, in order.
type Operation = fn(&mut Reader, &Node) -> What<Vec<Value>>;

/// The operations there are.
pub(super) fn operation(op_type: &str) -> Option<Operation> {
    Some(match op_type {
        "Conv" => layers::conv,
        "BatchNormalization" => layers::batch_norm,
        "Gemm" => layers::gemm,
        "MatMul" => layers::mat_mul,
        "MaxPool" => layers::max_pool,
        "AveragePool" => layers::average_pool,
        "GlobalAveragePool" => layers::global_average_pool,
        "ReduceMean" => layers::reduce_mean,
        "Softmax" => layers::softmax,
        "Dropout" => layers::dropout,
        "Pad" => layers::pad,
        "Relu" => arithmetic::relu,
        "LeakyRelu" => arithmetic::leaky_relu,
        "Clip" => arithmetic::clip,
        "HardSwish" => arithmetic::hard_swish,
        "HardSigmoid" => arithmetic::hard_sigmoid,
        "Sigmoid" => arithmetic::sigmoid,
        "Swish" => arithmetic::swish,
        "Add" => arithmetic::add,
        "Sub" => arithmetic::sub,
        "Mul" => arithmetic::mul,
        "Div" => arithmetic::div,
        "Neg" => arithmetic::neg,
        "Ceil" => fold::ceil,
        "Floor" => fold::floor,
        "Max" => arithmetic::max,
        "Min" => arithmetic::min,
        "Identity" => shapes::identity,
        "Cast" => shapes::cast,
        "Flatten" => shapes::flatten,
        "Reshape" => shapes::reshape,
        "Squeeze" => shapes::squeeze,
        "Unsqueeze" => shapes::unsqueeze,
        "Transpose" => shapes::transpose,
        "Concat" => shapes::concat,
        "Split" => shapes::split,
        "Slice" => shapes::slice,
        "Constant" => fold::constant,
        "ConstantOfShape" => fold::constant_of_shape,
        "Shape" => fold::shape,
        "Gather" => fold::gather,
        "DequantizeLinear" => fold::dequantize,
        _ => return None,
    })
}

impl Reader {
    pub(super) fn new(draft: Draft, image: String, form: Form, opset: i64) -> Self {
        let edge = Edge { at: 0, form, affine: None, own: true, normalized: false };
        let values = BTreeMap::from([(image, Value::Edge(edge))]);
        Reader { draft, values, uses: BTreeMap::new(), opset }
    }

    /// Makes a constant known.
    pub(super) fn define(&mut self, name: String, array: Array) {
        self.values.insert(name, Value::Constant(Rc::new(array)));
    }

    /// Says beforehand who reads what.
    pub(super) fn count_uses<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        for name in names {
            *self.uses.entry(name.clone()).or_default() += 1;
        }
    }

    pub(super) fn uses(&self, name: &str) -> usize {
        self.uses.get(name).copied().unwrap_or(0)
    }

    /// Does what the node says, and names its results.
    pub(super) fn run(&mut self, node: &Node) -> What<()> {
        let told = |what: String| format!("{}: {what}", node.shown());
        let operation = operation(&node.op_type).ok_or_else(|| told("is not known".into()))?;
        let results = operation(self, node).map_err(told)?;
        for (name, value) in node.outputs.iter().zip(results) {
            if let Value::Constant(array) = &value
                && Rc::strong_count(array) == 1
            {
                self.draft.spend(2 * array.len()).map_err(told)?;
            }
            if !name.is_empty() {
                self.values.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    pub(super) fn value(&self, name: &str) -> What<&Value> {
        self.values.get(name).ok_or_else(|| format!("takes `{}`, which nothing here gives", shown(name)))
    }

    fn input<'n>(&self, node: &'n Node, at: usize) -> What<&'n str> {
        node.input(at).ok_or_else(|| format!("has no input {at}"))
    }

    /// The input at this place, to be taken further without a layer. What is still to be done to it stays so only where this
    /// is the one node that reads it: otherwise two ways would lead to the same layer.
    pub(super) fn input_value(&mut self, node: &Node, at: usize) -> What<Value> {
        let name = self.input(node, at)?;
        let alone = self.uses(name) == 1;
        match self.value(name)?.clone() {
            Value::Edge(edge) if edge.affine.is_some() && !alone => {
                Ok(Value::Edge(Edge { own: false, ..self.settle(name, edge)? }))
            }
            Value::Edge(edge) => Ok(Value::Edge(Edge { own: edge.own && alone, ..edge })),
            constant => Ok(constant),
        }
    }

    /// The input at this place, which must be computed from the image, with nothing left to be done to it.
    pub(super) fn edge(&mut self, node: &Node, at: usize) -> What<Edge> {
        let name = self.input(node, at)?;
        match self.value(name)? {
            Value::Edge(edge) => {
                let edge = edge.clone();
                self.settle(name, edge)
            }
            Value::Constant(_) => Err(format!(
                "its input {at} is a constant, and something computed from the image was expected"
            )),
        }
    }

    /// The edge with nothing left to be done to its layer's result; `name` is the value that it belongs to.
    pub(super) fn settle(&mut self, name: &str, mut edge: Edge) -> What<Edge> {
        if let Some(affine) = edge.affine.take() {
            if edge.normalized {
                return Err(
                    "changes the image again that other layers read already; normalize it once".into()
                );
            }
            let absorbed = edge.own && self.draft.absorb(edge.at, &affine)?;
            if !absorbed {
                edge.at = self.draft.settle(name, edge.at, &affine)?;
            }
            edge.normalized = edge.at == 0;
            // Who reads it next finds the same layer.
            self.values.insert(name.to_string(), Value::Edge(edge.clone()));
        } else if edge.at == 0 && !edge.normalized {
            self.draft.read_image()?;
        }
        Ok(edge)
    }

    /// The constant at this place; `None` where the input is left out.
    pub(super) fn optional_constant(&self, node: &Node, at: usize) -> What<Option<Rc<Array>>> {
        let Some(name) = node.input(at) else { return Ok(None) };
        match self.value(name)? {
            Value::Constant(array) => Ok(Some(Rc::clone(array))),
            Value::Edge(_) => Err(format!(
                "its input {at}, `{}`, is computed from the image, and a constant was expected",
                shown(name)
            )),
        }
    }

    pub(super) fn constant(&self, node: &Node, at: usize) -> What<Rc<Array>> {
        self.optional_constant(node, at)?.ok_or_else(|| format!("has no input {at}"))
    }

    /// Integers that are an attribute in old files and an input in newer ones.
    pub(super) fn ints(&self, node: &Node, key: &str, at: usize) -> What<Option<Vec<i64>>> {
        if let Some(ints) = node.ints(key)? {
            return Ok(Some(ints.to_vec()));
        }
        let Some(array) = self.optional_constant(node, at)? else { return Ok(None) };
        let ints = array.as_ints().ok_or_else(|| format!("its input {at} holds no integers"))?;
        Ok(Some(ints.to_vec()))
    }

    /// The file's shape of an edge.
    pub(super) fn dims(&self, edge: &Edge) -> Vec<usize> {
        let [n, h, w, c] = self.draft.layer(edge.at).shape;
        match edge.form {
            Form::Map => vec![n, c, h, w],
            Form::Last => vec![n, h, w, c],
            Form::Line => vec![n, c, h * w],
            Form::Vector { .. } => vec![n, c],
            Form::Groups { groups, swapped: false } => vec![n, groups, c / groups, h, w],
            Form::Groups { groups, swapped: true } => vec![n, c / groups, groups, h, w],
        }
    }

    /// Appends the node's layer, whose result has this form.
    pub(super) fn push(
        &mut self,
        node: &Node,
        op: Op,
        inputs: &[&Edge],
        parameters: Vec<(&'static str, Tensor)>,
        form: Form,
    ) -> What<Edge> {
        let inputs: Vec<usize> = inputs.iter().map(|edge| edge.at).collect();
        let at = self.draft.push(&node.name, op, &inputs, parameters)?;
        Ok(Edge { at, form, affine: None, own: true, normalized: false })
    }
}

impl Edge {
    /// The same layer under another form.
    pub(super) fn seen_as(&self, form: Form) -> Edge {
        Edge { form, ..self.clone() }
    }
}

impl From<Edge> for Vec<Value> {
    fn from(edge: Edge) -> Self {
        vec![Value::Edge(edge)]
    }
}

impl From<Array> for Vec<Value> {
    fn from(array: Array) -> Self {
        vec![Value::Constant(Rc::new(array))]
    }
}
