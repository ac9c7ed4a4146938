//! Safetensors files.

use std::collections::BTreeMap;

use ::safetensors::{Dtype as Stored, SafeTensors};

use super::globals::Dtype;
use super::strided::{Budget, MAX_RANK, View};
use super::{Parts, What, shown};

/// Whether `bytes` begin like a safetensors file: the length of a header that is a JSON object.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

/// Most bytes of the header: about a hundred a tensor are usual.
const MAX_HEADER_BYTES: u64 = 8 << 20;

/// Reads all tensors of a safetensors file.
pub(super) fn read(bytes: &[u8]) -> What<Parts> {
    let header = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    if header > MAX_HEADER_BYTES {
        return Err(format!(
            "begins like a safetensors file whose header is {header} bytes long; at most {MAX_HEADER_BYTES} are read"
        ));
    }
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| format!("begins like a safetensors file and is none ({e}); fetch the file again"))?;
    let mut budget = Budget::new(bytes.len());
    let mut parts = Parts { tensors: BTreeMap::new(), skipped: Vec::new() };
    for (name, stored) in file.iter() {
        if stored.shape().len() > MAX_RANK {
            return Err(format!("the tensor `{}` has more than {MAX_RANK} dimensions", shown(name)));
        }
        let dtype = match stored.dtype() {
            Stored::F16 => Dtype::F16,
            Stored::BF16 => Dtype::Bf16,
            Stored::F32 => Dtype::F32,
            Stored::F64 => Dtype::F64,
            other => Dtype::Other(other.bitsize().div_ceil(8)),
        };
        let tensor = View::dense(dtype, stored.shape()).tensor(stored.data(), &mut budget);
        match tensor.map_err(|what| format!("the tensor `{}` {what}", shown(name)))? {
            Some(tensor) => drop(parts.tensors.insert(name.to_string(), tensor)),
            None => parts.skipped.push(name.to_string()),
        }
    }
    parts.skipped.sort();
    Ok(parts)
}
