//! A network while its file is being understood: layers that may still change, and factors not yet put into any.

use std::collections::BTreeMap;

use penjing_runtime::{
    Act,
    graph::{Graph, MAX_NODES, NodeId},
    op::{Conv, Op, Shape},
    tensor::{Tensor, Weights},
};

use super::super::{What, strided::Budget};

/// Layers in an order in which they can be computed. The first one is the image.
pub(super) struct Draft {
    layers: Vec<Layer>,
    /// Names that are taken, and the number that a further layer of the name tries first.
    names: BTreeMap<String, usize>,
    image: Image,
    budget: Budget,
}

/// One layer, with weights of its own.
pub(super) struct Layer {
    name: String,
    pub(super) op: Op,
    pub(super) inputs: Vec<usize>,
    pub(super) shape: Shape,
    parameters: Vec<(&'static str, Tensor)>,
}

/// How the network reads the image.
#[derive(Clone, Debug, PartialEq)]
enum Image {
    NotYet,
    AsItIs,
    /// Always through these factors and shifts, so that they are part of how photos become the input.
    Normalized(Affine),
}

/// `scale · x + shift` of each channel; one number each where all channels have the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Affine {
    pub(super) fn identity() -> Self {
        Affine { scale: vec![1.0], shift: vec![0.0] }
    }

    /// Afterwards times `factor`, plus `shift`.
    pub(super) fn then(self, factor: &[f64], shift: &[f64]) -> Self {
        let scale = zip(&self.scale, factor, |a, b| a * b);
        let moved = zip(&self.shift, factor, |a, b| a * b);
        Affine { scale, shift: zip(&moved, shift, |a, b| a + b) }
    }

    /// The same numbers for all channels, if they are.
    pub(super) fn uniform(&self) -> Option<(f64, f64)> {
        let same = |values: &[f64]| values.iter().all(|value| *value == values[0]).then(|| values[0]);
        Some((same(&self.scale)?, same(&self.shift)?))
    }

    /// Whether it changes nothing but by a rounding of 32-bit constants.
    pub(super) fn is_identity(&self) -> bool {
        let near = |values: &[f64], to: f64| values.iter().all(|value| (value - to).abs() < 1e-6);
        near(&self.scale, 1.0) && near(&self.shift, 0.0)
    }

    /// `count` numbers each.
    pub(super) fn over(&self, count: usize) -> [Vec<f64>; 2] {
        [&self.scale, &self.shift].map(|values| match values[..] {
            [one] => vec![one; count],
            _ => values.clone(),
        })
    }
}

/// Pairwise, where one of them may be a single number for all.
fn zip(a: &[f64], b: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    (0..a.len().max(b.len())).map(|i| of(a[i.min(a.len() - 1)], b[i.min(b.len() - 1)])).collect()
}

impl Draft {
    /// Begins with an image of this shape. Weights and constants may take what `budget` allows: one that the file holds once
    /// may be read by many nodes.
    pub(super) fn new(name: &str, shape: Shape, budget: Budget) -> What<Self> {
        let mut draft = Draft { layers: Vec::new(), names: BTreeMap::new(), image: Image::NotYet, budget };
        draft.push(name, Op::Input { shape }, &[], Vec::new())?;
        Ok(draft)
    }

    /// Takes this many 32-bit numbers from what may still be made.
    pub(super) fn spend(&mut self, numbers: usize) -> What<()> {
        self.budget.spend(numbers.saturating_mul(4))
    }

    pub(super) fn layer(&self, at: usize) -> &Layer {
        &self.layers[at]
    }

    /// Appends a layer and gives its place. A name that is taken gets a number.
    pub(super) fn push(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[usize],
        parameters: Vec<(&'static str, Tensor)>,
    ) -> What<usize> {
        if self.layers.len() >= 2 * MAX_NODES {
            return Err(format!("is one too many: a network has at most {MAX_NODES} layers"));
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&at| self.layers[at].shape).collect();
        let shape = op.output(&shapes)?;
        self.spend(parameters.iter().map(|(_, tensor)| tensor.len()).sum())?;
        let name = self.free(name);
        self.layers.push(Layer { name, op, inputs: inputs.to_vec(), shape, parameters });
        Ok(self.layers.len() - 1)
    }

    fn free(&mut self, name: &str) -> String {
        const MAX_CHARS: usize = 200;
        let name: String = name.chars().take(MAX_CHARS).collect();
        let name = if name.is_empty() { "layer".to_string() } else { name };
        if !self.names.contains_key(&name) {
            self.names.insert(name.clone(), 2);
            return name;
        }
        loop {
            let number = self.names.entry(name.clone()).or_insert(2);
            let numbered = format!("{name}.{number}");
            *number += 1;
            if !self.names.contains_key(&numbered) {
                self.names.insert(numbered.clone(), 2);
                return numbered;
            }
        }
    }

    /// Puts `affine` of a convolution's or linear layer's result into its weights. `false` for any other layer.
    pub(super) fn absorb(&mut self, at: usize, affine: &Affine) -> What<bool> {
        let count = self.layers[at].shape[3];
        match &mut self.layers[at].op {
            Op::Conv(Conv { bias, .. }) | Op::Linear { bias, .. } => *bias = true,
            _ => return Ok(false),
        }
        self.spend(count.saturating_mul(4))?;
        let [scale, shift] = affine.over(count);
        let parameters = &mut self.layers[at].parameters;
        let mut old_bias = vec![0.0; count];
        for (suffix, tensor) in parameters.iter_mut() {
            match *suffix {
                "bias" => old_bias = tensor.to_f32(),
                // What is only moved keeps its weights, at half precision too.
                _ if scale.iter().all(|scale| *scale == 1.0) => {}
                _ => {
                    let each = (tensor.len() / count).max(1);
                    let values = tensor.to_f32().into_iter().enumerate();
                    let values =
                        values.map(|(i, value)| (f64::from(value) * scale[i / each]) as f32).collect();
                    *tensor = Tensor::f32(&tensor.shape, values);
                }
            }
        }
        let values = (0..count).map(|c| (f64::from(old_bias[c]) * scale[c] + shift[c]) as f32).collect();
        parameters.retain(|(suffix, _)| *suffix != "bias");
        parameters.push(("bias", Tensor::f32(&[count], values)));
        Ok(true)
    }

    /// Says that the image is read as it is.
    pub(super) fn read_image(&mut self) -> What<()> {
        match self.image {
            Image::NotYet | Image::AsItIs => {
                self.image = Image::AsItIs;
                Ok(())
            }
            Image::Normalized(_) => {
                Err("reads the image as it is, and other layers read it normalized; normalize it once".into())
            }
        }
    }

    /// The layer that computes `affine` of another one's result: for the image none, if it can belong to how photos become
    /// the input.
    pub(super) fn settle(&mut self, name: &str, at: usize, affine: &Affine) -> What<usize> {
        if at == 0 && affine.scale.iter().all(|scale| scale.is_finite() && *scale > 0.0) {
            match &self.image {
                Image::NotYet => {
                    self.image = Image::Normalized(affine.clone());
                    return Ok(0);
                }
                Image::Normalized(before) if before == affine => return Ok(0),
                Image::Normalized(_) => {
                    return Err("normalizes the image, and other layers do so in another way".into());
                }
                Image::AsItIs => {}
            }
        }
        let count = self.layers[at].shape[3];
        self.spend(count.saturating_mul(4))?;
        let tensor = |shape: &[usize], values: &[f64]| {
            Tensor::f32(shape, values.iter().map(|value| *value as f32).collect())
        };
        let [scale, shift] = affine.over(count);
        let parameters =
            vec![("weight", tensor(&[count, 1, 1, 1], &scale)), ("bias", tensor(&[count], &shift))];
        // Not a BatchNorm, which would learn from photos what it divides by.
        let op = Op::Conv(Conv { groups: count, bias: true, ..Conv::new(count, 1, 1) });
        self.push(&format!("{name}.scale"), op, &[at], parameters)
    }

    /// The activation that a layer is, and what it is of.
    pub(super) fn act(&self, at: usize) -> Option<(Act, usize)> {
        match &self.layers[at] {
            Layer { op: Op::Act(act), inputs, .. } => Some((*act, inputs[0])),
            _ => None,
        }
    }

    /// The network that ends with `last`, without what it does not need, and what its image goes through first.
    pub(super) fn finish(self, last: usize) -> What<(Graph, Weights, Option<Affine>)> {
        let mut needed = vec![false; self.layers.len()];
        needed[last] = true;
        for at in (0..=last).rev() {
            if needed[at] {
                self.layers[at].inputs.iter().for_each(|&input| needed[input] = true);
            }
        }
        if !needed[0] {
            return Err("its result does not depend on the image".into());
        }
        let mut graph = Graph::default();
        let mut weights = Weights::new();
        let mut ids: Vec<Option<NodeId>> = vec![None; self.layers.len()];
        for (at, layer) in self.layers.into_iter().enumerate().filter(|(at, _)| needed[*at]) {
            let inputs: Vec<NodeId> = layer.inputs.iter().filter_map(|&input| ids[input]).collect();
            let id = graph.push(&layer.name, layer.op, &inputs).map_err(|error| error.to_string())?;
            ids[at] = Some(id);
            for (suffix, tensor) in layer.parameters {
                weights.insert(format!("{}.{suffix}", layer.name), tensor);
            }
        }
        let image = match self.image {
            Image::Normalized(affine) => Some(affine),
            Image::NotYet | Image::AsItIs => None,
        };
        Ok((graph, weights, image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affine(scale: f64, shift: f64) -> Affine {
        Affine { scale: vec![scale], shift: vec![shift] }
    }

    #[test]
    fn factors_and_shifts_follow_one_another() {
        let both = affine(2.0, 1.0).then(&[3.0, 0.5], &[0.0]).then(&[1.0], &[10.0]);
        assert_eq!(both, Affine { scale: vec![6.0, 1.0], shift: vec![13.0, 10.5] });
        assert_eq!(both.uniform(), None);
        assert_eq!(affine(2.0, 1.0).uniform(), Some((2.0, 1.0)));
        assert!(affine(6.0, 0.0).then(&[f64::from(1f32 / 6.0)], &[0.0]).is_identity());
    }

    #[test]
    fn the_image_is_normalized_in_one_way_or_by_a_layer() {
        let new = || Draft::new("image", [1, 4, 4, 3], Budget::new(0)).unwrap();
        let mut draft = new();
        assert_eq!(draft.settle("a", 0, &affine(0.1, -2.0)), Ok(0));
        assert_eq!(draft.settle("b", 0, &affine(0.1, -2.0)), Ok(0));
        assert!(draft.settle("c", 0, &affine(0.2, 0.0)).unwrap_err().contains("another way"));
        assert!(draft.read_image().unwrap_err().contains("as it is"));
        assert_eq!(draft.finish(0).unwrap().2, Some(affine(0.1, -2.0)));

        let mut draft = new();
        draft.read_image().unwrap();
        let at = draft.settle("a", 0, &affine(0.1, -2.0)).unwrap();
        assert!(matches!(draft.layer(at).op, Op::Conv(Conv { groups: 3, .. })));
        // A deviation below zero is none that pixels can have.
        assert_eq!(new().settle("a", 0, &affine(-0.1, 0.0)), Ok(1));
    }

    #[test]
    fn factors_go_into_the_weights_of_a_layer() {
        let mut draft = Draft::new("image", [1, 4, 4, 1], Budget::new(0)).unwrap();
        let weight = Tensor::f32(&[2, 1, 2, 1], vec![1.0, 2.0, 3.0, 4.0]);
        let conv = Conv { kernel: [1, 2], ..Conv::new(2, 1, 1) };
        let at = draft.push("conv", Op::Conv(conv), &[0], vec![("weight", weight)]).unwrap();
        let both = Affine { scale: vec![2.0, -1.0], shift: vec![0.5, 3.0] };
        assert_eq!([draft.absorb(at, &both), draft.absorb(at, &affine(1.0, 1.0))], [Ok(true), Ok(true)]);
        assert_eq!(draft.absorb(0, &both), Ok(false));
        let (graph, weights, _) = draft.finish(at).unwrap();
        graph.check(&weights).unwrap();
        assert_eq!(weights["conv.weight"].to_f32(), [2.0, 4.0, -3.0, -4.0]);
        assert_eq!(weights["conv.bias"].to_f32(), [1.5, 4.0]);
    }

    #[test]
    fn what_the_result_does_not_need_is_left_out() {
        let mut draft = Draft::new("x", [1, 1, 1, 2], Budget::new(0)).unwrap();
        let act = draft.push("x", Op::Act(Act::Relu), &[0], Vec::new()).unwrap();
        draft.push("unused", Op::Softmax, &[act], Vec::new()).unwrap();
        let last = draft.push("x", Op::Act(Act::Silu), &[act], Vec::new()).unwrap();
        let (graph, _, _) = draft.finish(last).unwrap();
        let names: Vec<&str> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["x", "x.2", "x.3"]);
    }
}
