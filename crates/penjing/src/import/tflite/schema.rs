//! The part of TensorFlow Lite's schema that a classifier needs: which field has which number.

use super::{
    super::{
        What,
        flatbuffer::{Table, Tables},
        shown,
    },
    names,
};

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;
/// Most inputs or outputs of one operator.
const MAX_EDGES: usize = 1 << 10;

/// A whole file.
pub(super) struct File<'a> {
    codes: Tables<'a>,
    buffers: Tables<'a>,
    tensors: Tables<'a>,
    operators: Tables<'a>,
    /// Numbers of the tensors that the main graph takes and gives.
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
}

/// The types of elements that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    F32,
    F16,
    I32,
    U8,
    I64,
    I8,
    I16,
}

/// An edge or a constant.
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Type,
    /// The constant's bytes; empty for an edge.
    pub(super) data: &'a [u8],
    pub(super) quantization: Option<Quantization<'a>>,
}

/// What a stored integer stands for: `scale · (q − zero_point)`.
pub(super) struct Quantization<'a> {
    scales: &'a [[u8; 4]],
    zero_points: &'a [[u8; 8]],
    /// The axis that the scales run along where there are several.
    pub(super) axis: usize,
}

/// One operator.
pub(super) struct Operator<'a> {
    pub(super) code: Code,
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
    /// Its options; a table without fields where there are none.
    pub(super) options: Options<'a>,
}

/// What an operator does, by the schema's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) number: i32,
    custom: Option<String>,
}

/// The options of an operator; all have their default where it has none.
#[derive(Clone, Copy)]
pub(super) struct Options<'a>(Option<Table<'a>>);

impl<'a> File<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> What<Self> {
        let model = Table::root(bytes)?;
        let version = model.u32(0, 0)?;
        if version != 3 {
            return Err(format!("is of TensorFlow Lite's schema {version}; version 3 is read"));
        }
        let graph = model.tables(2)?.get(0)?.ok_or("holds no graph")?;
        Ok(File {
            codes: model.tables(1)?,
            buffers: model.tables(4)?,
            tensors: graph.tables(0)?,
            operators: graph.tables(3)?,
            inputs: edges(graph, 1)?,
            outputs: edges(graph, 2)?,
        })
    }

    pub(super) fn operator_count(&self) -> usize {
        self.operators.len()
    }

    pub(super) fn operator(&self, index: usize) -> What<Operator<'a>> {
        let table = self.operators.get(index)?.ok_or("has fewer operators than it says")?;
        let code = table.u32(0, 0)? as usize;
        let code = self
            .codes
            .get(code)?
            .ok_or_else(|| format!("refers to kind {code} of operators, which is not there"))?;
        // The old field has one byte; what does not fit stands in the new one.
        let number = code.i32(3, 0)?.max(i32::from(code.i8(0, 0)?));
        let custom = (number == names::CUSTOM).then(|| text(code, 1)).transpose()?;
        Ok(Operator {
            code: Code { number, custom },
            inputs: edges(table, 1)?,
            outputs: edges(table, 2)?,
            options: Options(table.table(4)?),
        })
    }

    pub(super) fn tensor(&self, number: i32) -> What<Tensor<'a>> {
        let table = usize::try_from(number).ok().map(|index| self.tensors.get(index)).transpose()?.flatten();
        let table = table.ok_or_else(|| format!("refers to tensor {number}, which is not there"))?;
        let name = text(table, 3)?;
        let fault = |what: String| format!("the tensor `{}` {what}", shown(&name));
        let extents = table.numbers::<4>(0)?;
        if extents.len() > MAX_RANK {
            return Err(fault(format!("has {} dimensions; at most {MAX_RANK} are read", extents.len())));
        }
        let extent = |bytes: &[u8; 4]| {
            let extent = i32::from_le_bytes(*bytes);
            usize::try_from(extent)
                .map_err(|_| fault(format!("has an extent of {extent}; convert it with a fixed input size")))
        };
        let shape = extents.iter().map(extent).collect::<What<Vec<usize>>>()?;
        let kind = match table.i8(1, 0)? {
            0 => Type::F32,
            1 => Type::F16,
            2 => Type::I32,
            3 => Type::U8,
            4 => Type::I64,
            7 => Type::I16,
            9 => Type::I8,
            other => {
                return Err(fault(format!(
                    "holds elements of type {other}; float32, float16, int8, uint8, int16, int32 and int64 are read"
                )));
            }
        };
        if table.table(6)?.is_some() {
            return Err(fault("is stored sparsely; convert it without sparsity".into()));
        }
        let buffer = table.u32(2, 0)? as usize;
        let buffer = self
            .buffers
            .get(buffer)?
            .ok_or_else(|| fault(format!("refers to buffer {buffer}, which is not there")))?;
        // Models beyond 2 GiB keep their buffers behind the tables; 0 and 1 say that this is none.
        if buffer.u64(1, 0)? > 1 {
            return Err(fault("is stored outside of the tables, as in files of more than 2 GiB".into()));
        }
        let quantization =
            table.table(4)?.map(|table| Quantization::read(table).map_err(&fault)).transpose()?.flatten();
        Ok(Tensor { shape, kind, data: buffer.bytes(0)?, quantization, name })
    }
}

impl<'a> Quantization<'a> {
    fn read(table: Table<'a>) -> What<Option<Self>> {
        let (scales, zero_points) = (table.numbers::<4>(2)?, table.numbers::<8>(3)?);
        if scales.is_empty() {
            return Ok(None);
        }
        if !(zero_points.is_empty() || zero_points.len() == scales.len()) {
            return Err(format!("has {} scales and {} zero points", scales.len(), zero_points.len()));
        }
        let axis = table.i32(6, 0)?;
        let axis = usize::try_from(axis).map_err(|_| format!("is quantized along axis {axis}"))?;
        Ok(Some(Quantization { scales, zero_points, axis }))
    }

    /// How many scales there are, one at least.
    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    /// The scale and the zero point at `index`.
    pub(super) fn at(&self, index: usize) -> (f32, i64) {
        let zero_point = self.zero_points.get(index).map_or(0, |bytes| i64::from_le_bytes(*bytes));
        (f32::from_le_bytes(self.scales[index]), zero_point)
    }
}

impl Code {
    /// What the schema calls it, or the name of the custom operator.
    pub(super) fn name(&self) -> String {
        match &self.custom {
            Some(custom) => format!("the custom operator `{}`", shown(custom)),
            None => names::of(self.number),
        }
    }
}

/// What an operator does with its result by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fused {
    None,
    Relu,
    Relu6,
}

impl<'a> Options<'a> {
    pub(super) fn i32(self, id: usize, default: i32) -> What<i32> {
        self.0.map_or(Ok(default), |table| table.i32(id, default))
    }

    /// A number of things, such as a stride.
    pub(super) fn count(self, id: usize, default: i32) -> What<usize> {
        let count = self.i32(id, default)?;
        usize::try_from(count).map_err(|_| format!("has {count} for a size or a stride"))
    }

    pub(super) fn u8(self, id: usize) -> What<u8> {
        self.0.map_or(Ok(0), |table| table.u8(id, 0))
    }

    pub(super) fn f32(self, id: usize, default: f32) -> What<f32> {
        self.0.map_or(Ok(default), |table| table.f32(id, default))
    }

    /// The activation that is part of the operator.
    pub(super) fn fused(self, id: usize) -> What<Fused> {
        match self.u8(id)? {
            0 => Ok(Fused::None),
            1 => Ok(Fused::Relu),
            3 => Ok(Fused::Relu6),
            2 => Err("has the activation RELU_N1_TO_1, which is not supported".into()),
            4 => Err("has the activation TANH, which is not supported".into()),
            other => Err(format!("has the activation {other}, which is not supported")),
        }
    }

    /// Whether the padding is "SAME"; else it is "VALID", none.
    pub(super) fn same(self, id: usize) -> What<bool> {
        match self.u8(id)? {
            0 => Ok(true),
            1 => Ok(false),
            other => Err(format!("has padding {other}, which is neither SAME nor VALID")),
        }
    }
}

fn edges(table: Table<'_>, id: usize) -> What<Vec<i32>> {
    let numbers = table.numbers::<4>(id)?;
    if numbers.len() > MAX_EDGES {
        return Err(format!(
            "has an operator with {} inputs or outputs; at most {MAX_EDGES} are read",
            numbers.len()
        ));
    }
    Ok(numbers.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect())
}

/// A name, short enough to be kept.
fn text(table: Table<'_>, id: usize) -> What<String> {
    const MAX_NAME_BYTES: usize = 256;
    let bytes = table.bytes(id)?;
    Ok(String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME_BYTES)]).into_owned())
}
