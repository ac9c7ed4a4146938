//! Attributes of nodes.

use penjing_runtime::op::Pool;

use crate::onnx::{Attribute, kind};

/// A pooling window.
pub(super) fn window(pool: &Pool) -> Vec<Attribute> {
    let [top, bottom, left, right] = pool.padding;
    vec![
        sides("kernel_shape", &pool.kernel),
        sides("strides", &pool.stride),
        sides("pads", &[top, left, bottom, right]),
        int("ceil_mode", pool.ceil_mode.into()),
    ]
}

pub(super) fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.to_string(), i: Some(i), kind: kind::INT, ..Attribute::default() }
}

pub(super) fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.to_string(), f: Some(f), kind: kind::FLOAT, ..Attribute::default() }
}

pub(super) fn text(name: &str, s: &str) -> Attribute {
    let s = Some(s.as_bytes().to_vec());
    Attribute { name: name.to_string(), s, kind: kind::STRING, ..Attribute::default() }
}

pub(super) fn ints(name: &str, ints: &[i64]) -> Attribute {
    let ints = ints.to_vec();
    Attribute { name: name.to_string(), ints, kind: kind::INTS, ..Attribute::default() }
}

pub(super) fn sides(name: &str, sides: &[usize]) -> Attribute {
    ints(name, &sides.iter().map(|&side| side as i64).collect::<Vec<_>>())
}
