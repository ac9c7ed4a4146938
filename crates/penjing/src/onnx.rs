//! ONNX files as messages: the part of `onnx.proto` that image classifiers use, read and written as protocol buffers. The
//! only file that knows the `prost` crate.
//!
//! Fields that are not declared here are passed over when reading: documentation, inferred shapes, subgraphs.

use prost::Message;

/// Element types of [`Tensor`]s and [`TensorType`]s.
pub(crate) mod element {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const UINT16: i32 = 4;
    pub(crate) const INT16: i32 = 5;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const BFLOAT16: i32 = 16;
}

/// What an [`Attribute`] holds.
pub(crate) mod kind {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const INT: i32 = 2;
    pub(crate) const STRING: i32 = 3;
    pub(crate) const INTS: i32 = 7;
}

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<Entry>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) functions: Vec<Function>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// `FunctionProto`: its name, by which it is refused.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "10")]
    pub(crate) domain: String,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfo>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

/// `AttributeProto`. Which field counts is told by `kind`; files before IR version 2 do not tell.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(float, optional, tag = "2")]
    pub(crate) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(crate) i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(crate) s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub(crate) t: Option<Tensor>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub(crate) floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub(crate) kind: i32,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    pub(crate) double_data: Vec<f64>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<Entry>,
    /// 1 where the values lie in another file.
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<Type>,
}

/// `TypeProto` of a tensor.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: a number, a name, or neither where nothing is known.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(crate) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) dim_param: Option<String>,
}

/// Most records that a file may hold: nodes, their inputs and attributes, tensors, dimensions. A record of two bytes becomes
/// a structure of hundreds, so that the file's length alone bounds nothing.
const MAX_RECORDS: usize = 1 << 20;
/// Most bytes of a tensor's values as integers of variable length, of which each byte may become eight.
const MAX_VARINT_BYTES: usize = 256 << 20;

/// Reads a file. The error says what is wrong with the bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<Model, String> {
    let damaged = |what: &dyn std::fmt::Display| format!("is no ONNX file, or a damaged one: {what}");
    let mut left = MAX_RECORDS;
    count(bytes, Level::Model, &mut left)?;
    Model::decode(bytes).map_err(|error| damaged(&error))
}

/// The file's bytes.
pub(crate) fn encode(model: &Model) -> Vec<u8> {
    model.encode_to_vec()
}

/// A kind of message that holds others.
#[derive(Clone, Copy)]
enum Level {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    Type,
    TensorType,
    Shape,
}

impl Level {
    /// What stands in the field of this number, where that holds records of its own.
    fn inside(self, field: u64) -> Option<Level> {
        Some(match (self, field) {
            (Level::Model, 7) => Level::Graph,
            (Level::Graph, 1) => Level::Node,
            (Level::Graph, 5) | (Level::Attribute, 5) => Level::Tensor,
            (Level::Graph, 11 | 12) => Level::Value,
            (Level::Node, 5) => Level::Attribute,
            (Level::Value, 2) => Level::Type,
            (Level::Type, 1) => Level::TensorType,
            (Level::TensorType, 2) => Level::Shape,
            _ => return None,
        })
    }
}

/// Takes the records of a message, and of those in it, from what is `left`.
fn count(mut bytes: &[u8], level: Level, left: &mut usize) -> Result<(), String> {
    const CUT: &str = "is no ONNX file, or a damaged one: it ends inside a field; fetch it again";
    while !bytes.is_empty() {
        let tag = varint(&mut bytes).ok_or(CUT)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut bytes).ok_or(CUT)?;
                0
            }
            1 => 8,
            2 => varint(&mut bytes).ok_or(CUT)?,
            5 => 4,
            _ => return Err("is no ONNX file: it is not made of protocol buffers' fields".into()),
        };
        let length = usize::try_from(length).map_err(|_| CUT)?;
        let (field, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
        bytes = rest;
        *left = left.checked_sub(1).ok_or_else(|| {
            format!("holds more than {MAX_RECORDS} nodes, attributes and tensors, which no classifier needs")
        })?;
        if tag & 7 == 2 {
            if matches!((level, tag >> 3), (Level::Tensor, 5 | 7)) && length > MAX_VARINT_BYTES {
                return Err(format!(
                    "holds a tensor of more than {MAX_VARINT_BYTES} bytes that is not raw; save it with raw data"
                ));
            }
            if let Some(inside) = level.inside(tag >> 3) {
                count(field, inside, left)?;
            }
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_without_end_are_refused_before_they_are_made() {
        // A graph of 2 MiB that is a million nodes of nothing.
        let nodes = [0x0a, 0x00].repeat(MAX_RECORDS);
        let mut file = vec![0x3a];
        prost::encoding::encode_varint(nodes.len() as u64, &mut file);
        file.extend(nodes);
        assert!(decode(&file).unwrap_err().contains("more than 1048576"));
    }

    #[test]
    fn what_is_written_is_read() {
        let attribute =
            Attribute { name: "zero".into(), i: Some(0), kind: kind::INT, ..Attribute::default() };
        let node = Node { op_type: "Relu".into(), attribute: vec![attribute], ..Node::default() };
        let tensor = Tensor { dims: vec![2, 0], int64_data: vec![-1, 5], ..Tensor::default() };
        let graph = Graph { node: vec![node], initializer: vec![tensor], ..Graph::default() };
        let model = Model { ir_version: 8, graph: Some(graph), ..Model::default() };
        let bytes = encode(&model);
        assert_eq!(decode(&bytes).unwrap(), model);
        for end in 1..bytes.len() {
            // Between two fields a shorter file is whole.
            if let Ok(shorter) = decode(&bytes[..end]) {
                assert!(shorter != model);
            }
        }
    }
}
