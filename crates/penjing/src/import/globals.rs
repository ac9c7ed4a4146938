//! The names a state dict may mention, and what each stands for here: data, never code.

/// Everything a pickle may name. A name outside this table ends the reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    /// `collections.OrderedDict`, `collections.Counter`: called with nothing, a dict or a list of pairs.
    Dict,
    /// `torch.Size`: called with a tuple.
    Size,
    /// `torch._utils._rebuild_tensor` and `_v2`: called with (storage, offset, size, stride, …).
    Tensor,
    /// `torch._utils._rebuild_parameter`: called with (tensor, …).
    Parameter,
    /// A storage class, which tells the element type.
    Storage(Dtype),
    /// Harmless company of a checkpoint that holds no weights: a device, an element type.
    Opaque,
}

/// Element type of stored numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Dtype {
    F16,
    Bf16,
    F32,
    F64,
    /// Not a weight: integers, booleans, complex numbers, raw bytes. Holds the element's size in bytes.
    Other(usize),
}

impl Dtype {
    /// Size of one element in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 => 8,
            Dtype::Other(bytes) => bytes,
        }
    }
}

impl Global {
    /// What `module.name` stands for, where a state dict may name it at all.
    pub(super) fn known(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("collections", "OrderedDict" | "Counter") => Global::Dict,
            ("torch", "Size") => Global::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
            // Weights saved from a GPU by old releases name `torch.cuda`.
            ("torch" | "torch.cuda", _) if name.ends_with("Storage") => Global::Storage(match name {
                "HalfStorage" => Dtype::F16,
                "BFloat16Storage" => Dtype::Bf16,
                "FloatStorage" => Dtype::F32,
                "DoubleStorage" => Dtype::F64,
                "BoolStorage" | "ByteStorage" | "CharStorage" => Dtype::Other(1),
                "ShortStorage" => Dtype::Other(2),
                "IntStorage" => Dtype::Other(4),
                "LongStorage" | "ComplexFloatStorage" => Dtype::Other(8),
                "ComplexDoubleStorage" => Dtype::Other(16),
                _ => return None,
            }),
            ("torch.storage", "UntypedStorage") => Global::Storage(Dtype::Other(1)),
            ("torch", "device") => Global::Opaque,
            ("torch", "float16" | "bfloat16" | "float32" | "float64") => Global::Opaque,
            ("torch", "bool" | "uint8" | "int8" | "int16" | "int32" | "int64") => Global::Opaque,
            _ => return None,
        })
    }
}
