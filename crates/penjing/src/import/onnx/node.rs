//! One node of a file: its name, and its attributes by name and type.

use super::super::{What, shown};
use crate::onnx;

/// A node, and what its layer is called.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) op_type: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    attributes: Vec<onnx::Attribute>,
}

impl Node {
    pub(super) fn new(proto: onnx::Node) -> Self {
        let onnx::Node { input, output, name, op_type, attribute, .. } = proto;
        let name = match (name.is_empty(), output.iter().find(|output| !output.is_empty())) {
            (true, Some(output)) => output.clone(),
            _ => name,
        };
        Node { name, op_type, inputs: input, outputs: output, attributes: attribute }
    }

    /// Name and operation, as messages show them.
    pub(super) fn shown(&self) -> String {
        format!("node `{}` ({})", shown(&self.name), shown(&self.op_type))
    }

    /// Name of the input at this place, where there is one.
    pub(super) fn input(&self, at: usize) -> Option<&str> {
        self.inputs.get(at).map(String::as_str).filter(|name| !name.is_empty())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.attribute(key).is_some()
    }

    pub(super) fn int(&self, key: &str, default: i64) -> What<i64> {
        self.get(key, |attribute| attribute.i, "integer").map(|found| found.unwrap_or(default))
    }

    pub(super) fn float(&self, key: &str, default: f32) -> What<f32> {
        self.get(key, |attribute| attribute.f, "number").map(|found| found.unwrap_or(default))
    }

    pub(super) fn ints(&self, key: &str) -> What<Option<&[i64]>> {
        // An empty list leaves no trace in the file.
        self.get(key, |attribute| Some(&attribute.ints[..]), "list of integers")
    }

    pub(super) fn floats(&self, key: &str) -> What<Option<&[f32]>> {
        self.get(key, |attribute| Some(&attribute.floats[..]), "list of numbers")
    }

    pub(super) fn text(&self, key: &str) -> What<Option<&str>> {
        let bytes = self.get(key, |attribute| attribute.s.as_deref(), "text")?;
        bytes.map(std::str::from_utf8).transpose().map_err(|_| format!("its attribute `{key}` is no text"))
    }

    pub(super) fn tensor(&self, key: &str) -> What<Option<&onnx::Tensor>> {
        self.get(key, |attribute| attribute.t.as_ref(), "tensor")
    }

    fn attribute(&self, key: &str) -> Option<&onnx::Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == key)
    }

    fn get<'a, T>(
        &'a self,
        key: &str,
        part: impl Fn(&'a onnx::Attribute) -> Option<T>,
        what: &str,
    ) -> What<Option<T>> {
        match self.attribute(key) {
            None => Ok(None),
            Some(attribute) => {
                part(attribute).map(Some).ok_or_else(|| format!("its attribute `{key}` is no {what}"))
            }
        }
    }
}
