//! State dicts of `torch.save`, in its zip format and in the one before release 1.6.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::globals::{Dtype, Global};
use super::pickle::{Pickle, Value};
use super::strided::{Budget, MAX_RANK, View};
use super::zip::Archive;
use super::{MAX_LISTED, Parts, What, shown};

/// The number that opens a file of the old format.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;

/// Storages by key.
type Storages<'a> = BTreeMap<&'a str, Cow<'a, [u8]>>;

/// The folder of a zip archive that `torch.save` wrote, with its slash; `None` for any other archive.
pub(super) fn zip_root(archive: &Archive<'_>) -> Option<String> {
    let mut roots = archive.names().iter().filter_map(|name| name.strip_suffix("data.pkl"));
    roots.find(|root| root.is_empty() || root.find('/') == Some(root.len() - 1)).map(str::to_owned)
}

/// Reads a zip archive whose folder is `root`: the pickle `data.pkl` and one entry `data/KEY` a storage.
pub(super) fn read_zip(archive: &mut Archive<'_>, root: &str) -> What<Parts> {
    if archive.names().iter().any(|name| name.strip_prefix(root) == Some("constants.pkl")) {
        return Err("is a TorchScript program, and a state dict was expected; \
                    save one with torch.save(torch.jit.load(PATH).state_dict(), NEW_PATH)"
            .into());
    }
    if let Some(order) = archive.read(&format!("{root}byteorder"))?
        && order.trim_ascii() != b"little"
    {
        return Err("was saved on a big-endian machine; save it again on a little-endian one".into());
    }
    let bytes = archive.read(&format!("{root}data.pkl"))?.ok_or("has no data.pkl")?;
    let pickle = Pickle::read(&mut &bytes[..])?;
    let dict = StateDict::find(&pickle)?;
    let mut storages = Storages::new();
    for reference in dict.weights.values() {
        let key = reference.key;
        if !storages.contains_key(key) {
            let storage = archive.read(&format!("{root}data/{key}"))?;
            let storage =
                storage.ok_or_else(|| format!("has no storage `{}`; fetch it again", shown(key)))?;
            storages.insert(key, storage.into());
        }
    }
    dict.unfold(&storages)
}

/// Reads the old format: the pickles of a magic number, a protocol number, facts about the system, the state
/// dict and the list of storage keys; then each storage as its number of elements (i64) and its raw bytes.
pub(super) fn read_legacy(bytes: &[u8]) -> What<Parts> {
    let mut input = bytes;
    let magic = Pickle::read(&mut input)?;
    if magic.root != Value::Int(MAGIC) {
        return Err("is a Python pickle that torch.save did not write; \
                    save the weights with torch.save(model.state_dict(), PATH)"
            .into());
    }
    let protocol = Pickle::read(&mut input)?;
    if protocol.root != Value::Int(PROTOCOL) {
        return Err(format!("is in a version of torch's old format other than {PROTOCOL}; save it again"));
    }
    let system = Pickle::read(&mut input)?;
    let Value::Dict(facts) = system.root else {
        return Err("has no facts about the system that wrote it; the file is damaged".into());
    };
    if by_name(&system, facts)?.get("little_endian") != Some(&Value::Bool(true)) {
        return Err("was not saved on a little-endian machine; save it again on one".into());
    }
    let pickle = Pickle::read(&mut input)?;
    let keys = Pickle::read(&mut input)?;
    let mut element_bytes = BTreeMap::new();
    for &id in &pickle.persistent {
        let (key, dtype) = storage(pickle.items(id))?;
        if element_bytes.insert(key, dtype.size()).is_some_and(|before| before != dtype.size()) {
            return Err(format!("the storage `{}` has two element types; the file is damaged", shown(key)));
        }
    }
    let Value::List(list) = keys.root else {
        return Err("has no list of storages; the file is damaged".into());
    };
    let mut storages = Storages::new();
    for key in keys.items(list) {
        let Value::Str(key) = *key else {
            return Err("names a storage by something that is no text; the file is damaged".into());
        };
        let element = *element_bytes
            .get(key)
            .ok_or_else(|| format!("no tensor uses the storage `{}`; the file is damaged", shown(key)))?;
        let raw = raw_storage(&mut input, element)
            .ok_or_else(|| format!("is cut off in the storage `{}`; fetch it again", shown(key)))?;
        storages.insert(key, raw.into());
    }
    StateDict::find(&pickle)?.unfold(&storages)
}

/// Takes one storage of elements of `element` bytes off the front of `input`.
fn raw_storage<'a>(input: &mut &'a [u8], element: usize) -> Option<&'a [u8]> {
    let (count, rest) = input.split_first_chunk::<8>()?;
    let length = usize::try_from(i64::from_le_bytes(*count)).ok()?.checked_mul(element)?;
    let (raw, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(raw)
}

/// A tensor that has not been read yet.
struct Reference<'a> {
    key: &'a str,
    view: View,
}

/// The state dict of a checkpoint: where its weights stand, and what else it names.
struct StateDict<'a> {
    weights: BTreeMap<&'a str, Reference<'a>>,
    skipped: Vec<&'a str>,
}

impl<'a> StateDict<'a> {
    /// Finds the one dict of tensors: inside the root, where that is a checkpoint with an optimizer and the
    /// like beside the weights, or else the root itself.
    fn find(pickle: &Pickle<'a>) -> What<Self> {
        let Value::Dict(root) = pickle.root else {
            return Err("holds something other than a dict; \
                        save the weights with torch.save(model.state_dict(), PATH)"
                .into());
        };
        let root = by_name(pickle, root)?;
        let is_tensor = |value: &Value<'a>| call(pickle, *value).is_some_and(|(global, _)| is_weight(global));
        if root.values().all(is_tensor) {
            return Self::collect(pickle, &root);
        }
        // One dict under two names is one; looking at each only once also keeps the work linear.
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (&name, value) in &root {
            if let Value::Dict(id) = *value
                && seen.insert(id)
            {
                let dict = by_name(pickle, id)?;
                let fits =
                    |(name, value): (&&str, &Value<'a>)| is_tensor(value) || name.ends_with("_extra_state");
                if dict.values().any(is_tensor) && dict.iter().all(fits) {
                    found.push((name, dict));
                }
            }
        }
        match &found[..] {
            [(_, dict)] => Self::collect(pickle, dict),
            [] if root.values().any(is_tensor) => Self::collect(pickle, &root),
            [] => {
                Err("holds no dict of tensors; save the weights with torch.save(model.state_dict(), PATH)"
                    .into())
            }
            [(first, _), ..] => Err(format!(
                "holds several dicts of tensors: {}; save the one you want: \
                 torch.save(torch.load(PATH, weights_only=True)[\"{}\"], NEW_PATH)",
                found
                    .iter()
                    .take(MAX_LISTED)
                    .map(|(name, _)| format!("`{}`", shown(name)))
                    .collect::<Vec<_>>()
                    .join(", "),
                shown(first)
            )),
        }
    }

    fn collect(pickle: &Pickle<'a>, dict: &BTreeMap<&'a str, Value<'a>>) -> What<Self> {
        let mut weights = BTreeMap::new();
        let mut skipped = Vec::new();
        for (&name, &value) in dict {
            let reference =
                reference(pickle, value).map_err(|what| format!("the tensor `{}` {what}", shown(name)))?;
            match reference {
                Some(reference) if !matches!(reference.view.dtype, Dtype::Other(_)) => {
                    weights.insert(name, reference);
                }
                _ => skipped.push(name),
            }
        }
        Ok(StateDict { weights, skipped })
    }

    /// Reads the weights from their storages.
    fn unfold(&self, storages: &Storages<'_>) -> What<Parts> {
        let mut budget = Budget::new(storages.values().map(|storage| storage.len()).sum());
        let mut tensors = BTreeMap::new();
        for (&name, Reference { key, view }) in &self.weights {
            let tensor = storages
                .get(key)
                .ok_or_else(|| format!("has no storage `{}`; the file is damaged", shown(key)))
                .and_then(|storage| view.tensor(storage, &mut budget))
                .map_err(|what| format!("the tensor `{}` {what}", shown(name)))?;
            if let Some(tensor) = tensor {
                tensors.insert(name.to_owned(), tensor);
            }
        }
        Ok(Parts { tensors, skipped: self.skipped.iter().map(|&name| name.to_owned()).collect() })
    }
}

/// The entries of a dict whose key is text. The last of those with the same key counts, as in Python.
fn by_name<'a>(pickle: &Pickle<'a>, dict: usize) -> What<BTreeMap<&'a str, Value<'a>>> {
    let named = |&(key, value): &(Value<'a>, Value<'a>)| match key {
        Value::Str(key) => Some(bounded(key).map(|key| (key, value))),
        _ => None,
    };
    pickle.entries(dict).iter().filter_map(named).collect()
}

/// Refuses a name so long that comparing many of them would take for ever.
fn bounded(name: &str) -> What<&str> {
    const MAX_NAME_BYTES: usize = 1024;
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("has a name of more than {MAX_NAME_BYTES} bytes: `{}`", shown(name)));
    }
    Ok(name)
}

fn call<'p, 'a>(pickle: &'p Pickle<'a>, value: Value<'a>) -> Option<(Global, &'p [Value<'a>])> {
    match value {
        Value::Call(id) => Some(pickle.call(id)),
        _ => None,
    }
}

fn is_weight(global: Global) -> bool {
    matches!(global, Global::Tensor | Global::Parameter)
}

/// Where a tensor or parameter stands; `None` for any other value.
fn reference<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> What<Option<Reference<'a>>> {
    const NO_TENSOR: &str =
        "is rebuilt from other things than a storage, a size and a stride; the file is damaged";
    let args = match call(pickle, value) {
        Some((Global::Tensor, args)) => args,
        Some((Global::Parameter, [tensor, ..])) => match call(pickle, *tensor) {
            Some((Global::Tensor, args)) => args,
            _ => return Err(NO_TENSOR.into()),
        },
        Some((global, _)) if is_weight(global) => return Err(NO_TENSOR.into()),
        _ => return Ok(None),
    };
    let [Value::Persistent(id), offset, size, stride, ..] = *args else { return Err(NO_TENSOR.into()) };
    let (key, dtype) = storage(pickle.items(id))?;
    let [offset] = extents(&[offset])?[..] else { return Err(NO_TENSOR.into()) };
    let (size, stride) = (extents(sequence(pickle, size)?)?, extents(sequence(pickle, stride)?)?);
    if size.len() != stride.len() {
        return Err(format!("has {} extents and {} strides; the file is damaged", size.len(), stride.len()));
    }
    Ok(Some(Reference { key, view: View { dtype, offset, size, stride } }))
}

/// The key and the element type of a storage reference: ("storage", class, key, device, length[, view]).
fn storage<'a>(reference: &[Value<'a>]) -> What<(&'a str, Dtype)> {
    match *reference {
        [Value::Str("storage"), Value::Global(Global::Storage(dtype)), Value::Str(key), _, _]
        | [
            Value::Str("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Str(key),
            _,
            _,
            Value::None,
        ] => Ok((bounded(key)?, dtype)),
        [Value::Str("storage"), _, _, _, _, _] => {
            Err("uses a view of a storage, as PyTorch before 0.4 did; save it again with a newer one".into())
        }
        _ => Err("refers to a storage in an unknown way; the file is damaged".into()),
    }
}

/// The items of a tuple or of a `torch.Size`.
fn sequence<'p, 'a>(pickle: &'p Pickle<'a>, value: Value<'a>) -> What<&'p [Value<'a>]> {
    match value {
        Value::Tuple(id) => Ok(pickle.items(id)),
        Value::Call(id) => match pickle.call(id) {
            (Global::Size, [Value::Tuple(id)]) => Ok(pickle.items(*id)),
            _ => Err("has a shape that is no tuple; the file is damaged".into()),
        },
        _ => Err("has a shape that is no tuple; the file is damaged".into()),
    }
}

fn extents(values: &[Value<'_>]) -> What<Vec<usize>> {
    if values.len() > MAX_RANK {
        return Err(format!("has {} dimensions; at most {MAX_RANK} are read", values.len()));
    }
    let extent = |value: &Value<'_>| match value {
        Value::Int(extent) => usize::try_from(*extent)
            .map_err(|_| format!("has {extent} for an extent, a stride or an offset; the file is damaged")),
        _ => Err("has a shape that is not made of integers; the file is damaged".to_string()),
    };
    values.iter().map(extent).collect()
}
