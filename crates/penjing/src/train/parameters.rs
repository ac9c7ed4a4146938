//! A network's weights while they are learnt.

use penjing_runtime::{
    graph::Graph,
    tensor::{Tensor, Weights},
};

use crate::{Error, Result};

/// All weights of a graph as `f32`, in the order of [`Graph::parameters`].
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// One for each name.
    pub list: Vec<Parameter>,
}

/// One array of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// `layer.suffix`, as in [`Weights`].
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// What it is in its layer.
    pub kind: Kind,
    /// As many as the shape's product.
    pub values: Vec<f32>,
}

/// What an array of weights is in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a convolution or linear layer.
    Weight,
    /// Of a convolution or linear layer.
    Bias,
    /// BatchNorm's γ.
    Gamma,
    /// BatchNorm's β.
    Beta,
    /// BatchNorm's running mean: measured, never learnt.
    Mean,
    /// BatchNorm's running variance: measured, never learnt.
    Variance,
}

impl Kind {
    /// Of the parameter of this name.
    fn of(name: &str) -> Kind {
        match name.rsplit('.').next() {
            Some("bias") => Kind::Bias,
            Some("gamma") => Kind::Gamma,
            Some("beta") => Kind::Beta,
            Some("mean") => Kind::Mean,
            Some("var") => Kind::Variance,
            _ => Kind::Weight,
        }
    }

    /// Whether gradients change it.
    pub fn is_learnt(self) -> bool {
        !matches!(self, Kind::Mean | Kind::Variance)
    }
}

impl Parameters {
    /// The weights of `graph`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when `weights` are not the graph's.
    pub fn new(graph: &Graph, weights: &Weights) -> Result<Self> {
        graph.check(weights).map_err(|error| Error::Unsupported(error.to_string()))?;
        let parameter = |(name, shape): (String, Vec<usize>)| {
            let kind = Kind::of(&name);
            let values = weights[&name].to_f32();
            Parameter { name, shape, kind, values }
        };
        Ok(Parameters { list: graph.parameters().into_iter().map(parameter).collect() })
    }

    /// The same parameters with the values of `weights`, or their own where those have none.
    pub fn with(&self, weights: &Weights) -> Parameters {
        let values = |p: &Parameter| weights.get(&p.name).map_or_else(|| p.values.clone(), Tensor::to_f32);
        let parameter = |p: &Parameter| Parameter {
            values: values(p),
            name: p.name.clone(),
            shape: p.shape.clone(),
            ..*p
        };
        Parameters { list: self.list.iter().map(parameter).collect() }
    }

    /// These, and zeros for what `graph` has beyond them; it begins with their own graph.
    pub fn extended(mut self, graph: &Graph) -> Self {
        let beyond = graph.parameters().into_iter().skip(self.list.len());
        self.list.extend(beyond.map(|(name, shape)| {
            let (kind, values) = (Kind::of(&name), vec![0.0; shape.iter().product()]);
            Parameter { name, shape, kind, values }
        }));
        self
    }

    /// The first so many of these, which undoes [`extended`](Self::extended).
    pub fn cut(mut self, count: usize) -> Self {
        self.list.truncate(count);
        self
    }

    /// The weights as a model keeps them.
    pub fn to_weights(&self) -> Weights {
        let tensor = |p: &Parameter| (p.name.clone(), Tensor::f32(&p.shape, p.values.clone()));
        self.list.iter().map(tensor).collect()
    }

    /// The values on the way from `start` to these: 0 gives the start, 1 these (WiSE-FT, arXiv 2109.01903).
    ///
    /// # Panics
    /// If `start` is of another network.
    pub fn between(&self, start: &Parameters, share: f32) -> Parameters {
        assert_eq!(self.list.len(), start.list.len(), "parameters of another network");
        let mut between = self.clone();
        for (parameter, start) in between.list.iter_mut().zip(&start.list) {
            for (value, start) in parameter.values.iter_mut().zip(&start.values) {
                *value = start + share * (*value - start);
            }
        }
        between
    }

    /// Place of the parameter of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|parameter| parameter.name == name)
    }

    /// Number of values in all.
    pub fn len(&self) -> usize {
        self.list.iter().map(|parameter| parameter.values.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Gradients of [`Parameters`], one array for each in the same order; empty where nothing is learnt.
pub type Gradients = Vec<Vec<f32>>;
