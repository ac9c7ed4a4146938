//! State beside the model while it is trained: a run that was killed goes on from here.
//!
//! The file: `"penjing.part\n"`, version u32, length of the JSON u64, the JSON (identity, state, names and lengths of the
//! tensors), each tensor's `f32` in that order, and the BLAKE3 of all that; little-endian, nothing between.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::parameters::{Parameter, Parameters};
use crate::{Error, Result, model::Output, progress::Progress};

const MAGIC: &[u8; 13] = b"penjing.part\n";
const VERSION: u32 = 1;
/// Magic, version and length of the JSON.
const START_LEN: usize = MAGIC.len() + 4 + 8;
const HASH_LEN: usize = 32;
/// Longest JSON that is read or written; a long run's history needs a few hundred kilobytes.
const MAX_JSON_BYTES: u64 = 32 << 20;
/// Longest file that is read: four times the longest model.
const MAX_FILE_BYTES: u64 = 8 << 30;
/// Values that are turned into bytes at once.
const PIECE: usize = 1 << 14;

/// What a run is: two runs with equal identities would write the same model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity {
    /// What the user calls a part ("photos", "backbone", "--seed"), and its value or the hash of it.
    pub parts: BTreeMap<String, String>,
}

/// Arrays by name, kept or just lent.
pub type Tensors<'a> = BTreeMap<String, Cow<'a, [f32]>>;

/// A run in the middle of its work.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint<'a> {
    /// Which run it is.
    pub identity: Identity,
    /// Where it stands: everything that is not an array.
    pub state: Value,
    /// Weights, averages and the optimizer's memory, bit for bit.
    pub tensors: Tensors<'a>,
}

/// Where the checkpoint of a model lies: `flowers.penjing.part` for `flowers.penjing`.
pub fn path_for(output: &Path) -> PathBuf {
    let mut path = output.as_os_str().to_owned();
    path.push(".part");
    path.into()
}

/// Writes a checkpoint; at every moment either the one before or the new one is there, whole.
///
/// # Errors
/// [`Error::Io`] or [`Error::Data`] when it cannot be written there, [`Error::Unsupported`] when its state is too long.
pub fn save(path: &Path, checkpoint: &Checkpoint<'_>) -> Result<()> {
    let tensors =
        checkpoint.tensors.iter().map(|(name, values)| (Cow::Borrowed(&**name), values.len() as u64));
    let header = Header {
        identity: Cow::Borrowed(&checkpoint.identity),
        state: Cow::Borrowed(&checkpoint.state),
        tensors: tensors.collect(),
    };
    let json = serde_json::to_vec(&header)
        .map_err(|error| Error::Unsupported(format!("the checkpoint's state: {error}")))?;
    if json.len() as u64 > MAX_JSON_BYTES {
        let what = format!("a checkpoint's state of {} bytes; at most {MAX_JSON_BYTES}", json.len());
        return Err(Error::Unsupported(what));
    }
    Output::new(path, true)?.write_with(|file| {
        let mut to = Hashed { inner: file, hasher: blake3::Hasher::new() };
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        to.write_all(&(json.len() as u64).to_le_bytes())?;
        to.write_all(&json)?;
        let mut bytes = Vec::with_capacity(4 * PIECE);
        for values in checkpoint.tensors.values() {
            for piece in values.chunks(PIECE) {
                bytes.clear();
                bytes.extend(piece.iter().flat_map(|value| value.to_le_bytes()));
                to.write_all(&bytes)?;
            }
        }
        let hash = to.hasher.finalize();
        to.inner.write_all(hash.as_bytes())
    })
}

/// Reads the checkpoint of the run that `expected` names; `None` when there is no file.
///
/// # Errors
/// [`Error::Model`] when the file is damaged or foreign, or of another run: it names the parts that differ. [`Error::Io`]
/// when it cannot be read.
pub fn load(path: &Path, expected: &Identity) -> Result<Option<Checkpoint<'static>>> {
    let failed = |error| Error::io(path, "read", error);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let there = file.metadata().map_err(failed)?;
    let refused = |what: String| Error::model(path, what);
    if !there.is_file() {
        return Err(refused("is no file; a checkpoint would be written there, so move it away".into()));
    }
    let checkpoint = read(file, there.len()).map_err(|fault| match fault {
        Fault::Io(error) => failed(error),
        Fault::Damaged(what) => {
            refused(format!("the checkpoint is damaged: {what}; delete it, or give --force, to begin anew"))
        }
        Fault::Version(version) => refused(format!(
            "the checkpoint has format {version}, this penjing reads {VERSION}; finish the run with the penjing that \
             began it, or give --force to begin anew"
        )),
    })?;
    let other = checkpoint.identity.differences(expected);
    if !other.is_empty() {
        return Err(refused(format!(
            "the checkpoint is of another run; it differs in {}; repeat that run's command to go on with it, or give \
             --force to begin anew",
            other.join(", ")
        )));
    }
    Ok(Some(checkpoint))
}

/// Removes a checkpoint, if there is one.
///
/// # Errors
/// [`Error::Io`] when it is there and stays there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|error| Error::io(path, "remove", error)),
    }
}

/// Where the state of some work lies.
#[derive(Debug)]
pub struct Keeper<'a> {
    path: Option<&'a Path>,
    identity: Identity,
    /// Whether it has been said that it cannot be kept.
    lamented: AtomicBool,
}

impl<'a> Keeper<'a> {
    /// Of the work that `identity` names; without a path nothing is kept.
    pub fn new(path: Option<&'a Path>, identity: Identity) -> Self {
        Keeper { path, identity, lamented: AtomicBool::new(false) }
    }

    /// The state that was kept, if it is of this work. With `force` one of other work is thrown away.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load<S: DeserializeOwned>(&self, force: bool) -> Result<Option<(S, Tensors<'static>)>> {
        let Some(path) = self.path else { return Ok(None) };
        let loaded = match load(path, &self.identity) {
            Err(Error::Model { .. }) if force => None,
            loaded => loaded?,
        };
        let Some(Checkpoint { state, tensors, .. }) = loaded else { return Ok(None) };
        match serde_json::from_value(state) {
            Ok(state) => Ok(Some((state, tensors))),
            Err(_) if force => Ok(None),
            Err(error) => {
                let what = format!("the kept state cannot be read ({error}); give --force to begin anew");
                Err(Error::model(path, what))
            }
        }
    }

    /// Keeps a state. Where it cannot be kept that is said once: a full disk ends no training, since there may be room when
    /// the model is written.
    pub fn keep(&self, state: &impl Serialize, tensors: Tensors<'_>, progress: &dyn Progress) {
        if let Err(error) = self.save(state, tensors)
            && !self.lamented.swap(true, Ordering::Relaxed)
        {
            progress.notice(&format!("the state of the training cannot be kept: {error}"));
        }
    }

    fn save(&self, state: &impl Serialize, tensors: Tensors<'_>) -> Result<()> {
        let Some(path) = self.path else { return Ok(()) };
        let state = serde_json::to_value(state).map_err(|error| Error::Unsupported(error.to_string()))?;
        save(path, &Checkpoint { identity: self.identity.clone(), state, tensors })
    }
}

/// Lends the values of `parameters` to `tensors`, as `group/name`.
pub fn keep<'a>(tensors: &mut Tensors<'a>, group: &str, parameters: &'a Parameters) {
    let named = |p: &'a Parameter| (format!("{group}/{}", p.name), Cow::Borrowed(&*p.values));
    tensors.extend(parameters.list.iter().map(named));
}

/// Moves the values that [`keep`] put there into `parameters`.
///
/// # Errors
/// [`Error::Unsupported`] naming what is missing or has another length.
pub fn restore(tensors: &mut Tensors<'_>, group: &str, parameters: &mut Parameters) -> Result<()> {
    for parameter in &mut parameters.list {
        parameter.values = take(tensors, &format!("{group}/{}", parameter.name), parameter.values.len())?;
    }
    Ok(())
}

/// Takes one array of `len` values out of `tensors`.
///
/// # Errors
/// [`Error::Unsupported`] when it is missing or has another length.
pub fn take(tensors: &mut Tensors<'_>, name: &str, len: usize) -> Result<Vec<f32>> {
    match tensors.remove(name) {
        Some(values) if values.len() == len => Ok(values.into_owned()),
        found => {
            let there = found.map_or("none".into(), |values| values.len().to_string());
            Err(Error::Unsupported(format!(
                "the checkpoint has {there} of the {len} values of `{name}`; give --force to begin anew"
            )))
        }
    }
}

impl Identity {
    /// The parts that are not `now`'s, in the user's words; short values are quoted.
    fn differences(&self, now: &Identity) -> Vec<String> {
        const SHORT: usize = 24;
        let mut names: Vec<&String> = self.parts.keys().chain(now.parts.keys()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| self.parts.get(*name) != now.parts.get(*name));
        let told = |name: &String| {
            let [then, now] = [self, now].map(|identity| identity.parts.get(name).map_or("none", |v| v));
            let short = then.len() <= SHORT && now.len() <= SHORT;
            if short { format!("{name} (then {then}, now {now})") } else { name.clone() }
        };
        names.into_iter().map(told).collect()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    identity: Cow<'a, Identity>,
    state: Cow<'a, Value>,
    /// Name and number of values, in the file's order.
    tensors: Vec<(Cow<'a, str>, u64)>,
}

/// Why a file is no checkpoint.
#[derive(Debug)]
pub enum Fault {
    /// It could not be read.
    Io(io::Error),
    /// Some of it is missing, changed or foreign.
    Damaged(String),
    /// Another penjing wrote it, in this format.
    Version(u32),
}

/// Reads a checkpoint of `length` bytes. Nothing larger than `length` is allocated.
///
/// # Errors
/// [`Fault`] for anything but a whole, unchanged checkpoint.
pub fn read(from: impl Read, length: u64) -> Result<Checkpoint<'static>, Fault> {
    let damaged = |what: &dyn std::fmt::Display| Fault::Damaged(what.to_string());
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Damaged("it is cut short".into()),
        _ => Fault::Io(error),
    };
    if length > MAX_FILE_BYTES {
        return Err(damaged(&format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    let mut from = Hashed { inner: from, hasher: blake3::Hasher::new() };
    let mut magic = [0; MAGIC.len()];
    from.fill(&mut magic).map_err(cut)?;
    if magic != *MAGIC {
        return Err(damaged(&"it does not begin as one"));
    }
    let (mut version, mut json_len) = ([0; 4], [0; 8]);
    from.fill(&mut version).and_then(|()| from.fill(&mut json_len)).map_err(cut)?;
    let (version, json_len) = (u32::from_le_bytes(version), u64::from_le_bytes(json_len));
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let rest = length.saturating_sub((START_LEN + HASH_LEN) as u64);
    if json_len > rest.min(MAX_JSON_BYTES) {
        return Err(damaged(&"it is cut short, or its head was changed"));
    }
    let mut json = vec![0; json_len as usize];
    from.fill(&mut json).map_err(cut)?;
    let header: Header<'_> = serde_json::from_slice(&json).map_err(|error| damaged(&error))?;
    let values = header.tensors.iter().try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
    if values.and_then(|values| values.checked_mul(4)) != Some(rest - json_len) {
        return Err(damaged(&"it is cut short, or longer than it should be"));
    }
    let mut tensors = Tensors::new();
    let mut bytes = vec![0; 4 * PIECE];
    for (name, len) in header.tensors {
        let len = usize::try_from(len).map_err(|_| damaged(&"it is too large for this machine"))?;
        let mut values = Vec::with_capacity(len);
        while values.len() < len {
            let piece = &mut bytes[..4 * PIECE.min(len - values.len())];
            from.fill(piece).map_err(cut)?;
            values.extend(piece.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)));
        }
        if tensors.insert(name.into_owned(), Cow::Owned(values)).is_some() {
            return Err(damaged(&"two of its arrays have one name"));
        }
    }
    let hash = from.hasher.finalize();
    let mut stated = [0; HASH_LEN];
    from.inner.read_exact(&mut stated).map_err(cut)?;
    if hash != blake3::Hash::from_bytes(stated) {
        return Err(damaged(&"its hash does not match its contents"));
    }
    Ok(Checkpoint { identity: header.identity.into_owned(), state: header.state.into_owned(), tensors })
}

/// Hashes all that passes.
struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<W: Write> Hashed<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<R: Read> Hashed<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::train::parameters::Kind;

    fn identity(parts: &[(&str, &str)]) -> Identity {
        Identity { parts: parts.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect() }
    }

    fn sample() -> Checkpoint<'static> {
        let tensors = [
            ("ema/conv.weight", vec![1.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY]),
            ("none", vec![]),
            ("weights/conv.weight", vec![0.1, 0.2, -3e38]),
        ];
        Checkpoint {
            identity: identity(&[("--seed", "0"), ("photos", &"ab".repeat(32))]),
            state: json!({"step": u64::MAX, "best": 0.1, "history": [1, null, "é\n"]}),
            tensors: tensors.into_iter().map(|(name, values)| (name.into(), Cow::Owned(values))).collect(),
        }
    }

    fn saved(checkpoint: &Checkpoint<'_>) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.part");
        save(&path, checkpoint).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_for(&folder.path().join("flowers.penjing"));
        assert!(path.ends_with("flowers.penjing.part"));
        let checkpoint = sample();
        assert_eq!(load(&path, &checkpoint.identity).unwrap(), None);
        remove(&path).unwrap();
        // A second one replaces the first.
        save(&path, &Checkpoint { state: Value::Null, ..sample() }).unwrap();
        save(&path, &checkpoint).unwrap();
        let read = load(&path, &checkpoint.identity).unwrap().unwrap();
        assert_eq!(read, checkpoint);
        let bits = |c: &Checkpoint<'_>| -> Vec<u32> {
            c.tensors
                .values()
                .flat_map(|values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(bits(&read), bits(&checkpoint));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        remove(&path).unwrap();
        assert_eq!(load(&path, &checkpoint.identity).unwrap(), None);
    }

    #[test]
    fn long_arrays_and_nan_come_back() {
        let mut values: Vec<f32> = (0..3 * PIECE + 5).map(|i| i as f32 * 0.37).collect();
        values[PIECE] = f32::from_bits(0x7fc1_2345);
        let tensors: Tensors<'_> =
            [("a".into(), Cow::Borrowed(&values[..])), ("b".into(), Cow::Borrowed(&values[..PIECE]))].into();
        let bytes = saved(&Checkpoint { identity: Identity::default(), state: Value::Null, tensors });
        let mut read = read(&bytes[..], bytes.len() as u64).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&take(&mut read.tensors, "a", values.len()).unwrap()), bits(&values));
        assert_eq!(bits(&take(&mut read.tensors, "b", PIECE).unwrap()), bits(&values[..PIECE]));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let bytes = saved(&sample());
        assert!(read(&bytes[..], bytes.len() as u64).is_ok());
        for len in 0..bytes.len() {
            // Cut before it was opened, and while it was read.
            assert!(read(&bytes[..len], len as u64).is_err(), "cut to {len}");
            assert!(read(&bytes[..len], bytes.len() as u64).is_err(), "cut to {len}");
        }
        let longer = [&bytes[..], b"\0"].concat();
        assert!(read(&longer[..], longer.len() as u64).is_err());
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                assert!(read(&changed[..], changed.len() as u64).is_err(), "bit {bit} of byte {place}");
            }
        }
    }

    /// A whole file around a JSON of any content, with a right hash.
    fn forged(json: &str, body: usize) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &(json.len() as u64).to_le_bytes()].concat();
        bytes.extend(json.as_bytes());
        bytes.extend(vec![0; body]);
        bytes.extend(blake3::hash(&bytes).as_bytes());
        bytes
    }

    #[test]
    fn forged_lengths_are_refused_before_memory_is_asked_for() {
        let whole = |tensors: &str, body: usize| {
            let bytes = forged(&format!(r#"{{"identity":{{}},"state":null,"tensors":{tensors}}}"#), body);
            read(&bytes[..], bytes.len() as u64)
        };
        assert!(whole("[]", 0).is_ok());
        assert!(whole(r#"[["a",1],["b",2]]"#, 12).is_ok());
        for (tensors, body) in [
            (r#"[["a",4611686018427387904]]"#, 0),
            (r#"[["a",4611686018427387905]]"#, 4),
            (r#"[["a",18446744073709551615],["b",2]]"#, 4),
            (r#"[["a",1000000000000]]"#, 4),
            (r#"[["a",1],["a",1]]"#, 8),
            (r#"[["a",-1]]"#, 0),
            ("[]", 4),
        ] {
            assert!(matches!(whole(tensors, body), Err(Fault::Damaged(_))), "{tensors}");
        }
        let mut long = forged("{}", 0);
        long[MAGIC.len() + 4..START_LEN].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(read(&long[..], MAX_FILE_BYTES), Err(Fault::Damaged(_))));
        assert!(matches!(read(&long[..], MAX_FILE_BYTES + 1), Err(Fault::Damaged(_))));
    }

    #[test]
    fn refusals_name_the_file_the_reason_and_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.penjing.part");
        let checkpoint = sample();
        let message = |expected: &Identity| {
            let text = load(&path, expected).unwrap_err().to_string();
            assert!(text.contains("m.penjing.part: ") && text.contains("--force"), "{text}");
            text
        };
        save(&path, &checkpoint).unwrap();
        let photos = "ab".repeat(32);
        for (now, expected) in [
            (identity(&[("--seed", "1"), ("photos", &photos)]), "differs in --seed (then 0, now 1); repeat"),
            (identity(&[("--seed", "0"), ("photos", &"ac".repeat(32))]), "differs in photos; repeat"),
            (identity(&[("photos", "none")]), "differs in --seed (then 0, now none), photos; repeat"),
            (
                identity(&[("--seed", "0"), ("--size", "96"), ("photos", &photos)]),
                "differs in --size (then none, now 96); repeat",
            ),
        ] {
            let text = message(&now);
            assert!(text.contains(expected), "{text}");
        }
        let bytes = std::fs::read(&path).unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = bytes.clone();
            change(&mut changed);
            std::fs::write(&path, changed).unwrap();
            message(&checkpoint.identity)
        };
        assert!(with(&|b| b.clear()).contains("damaged: it is cut short; delete it"));
        assert!(with(&|b| b.truncate(b.len() - 20)).contains("damaged: it is cut short, or longer"));
        assert!(with(&|b| b[0] = b'P').contains("damaged: it does not begin as one"));
        assert!(with(&|b| b[MAGIC.len()] = 9).contains("has format 9, this penjing reads 1"));
        let last_value = bytes.len() - HASH_LEN - 1;
        assert!(with(&|b| b[last_value] ^= 1).contains("damaged: its hash does not match"));
        let text = load(folder.path(), &checkpoint.identity).unwrap_err().to_string();
        assert!(text.contains("is no file"), "{text}");
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.part");
        save(&path, &sample()).unwrap();
        let long = Value::String("x".repeat(MAX_JSON_BYTES as usize));
        assert!(save(&path, &Checkpoint { state: long, ..sample() }).is_err());
        assert_eq!(load(&path, &sample().identity).unwrap(), Some(sample()));
        assert!(save(&folder.path().join("none/a.part"), &sample()).is_err());
    }

    #[test]
    fn parameters_are_lent_and_come_back() {
        let parameter = |name: &str, values: Vec<f32>| Parameter {
            name: name.into(),
            shape: vec![values.len()],
            kind: Kind::Weight,
            values,
        };
        let whole =
            Parameters { list: vec![parameter("a.weight", vec![1.0, 2.0]), parameter("b.var", vec![3.0])] };
        let mut tensors = Tensors::new();
        keep(&mut tensors, "weights", &whole);
        keep(&mut tensors, "ema", &whole);
        assert!(tensors.values().all(|values| matches!(values, Cow::Borrowed(_))));
        let mut other = whole.clone();
        other.list.iter_mut().for_each(|p| p.values.fill(0.0));
        restore(&mut tensors, "weights", &mut other).unwrap();
        assert_eq!(other, whole);
        assert!(tensors.keys().eq(["ema/a.weight", "ema/b.var"]));
        let error = restore(&mut tensors, "weights", &mut other).unwrap_err();
        assert!(error.to_string().contains("has none of the 2 values of `weights/a.weight`"), "{error}");
        assert!(take(&mut tensors, "ema/b.var", 2).is_err());
    }
}
