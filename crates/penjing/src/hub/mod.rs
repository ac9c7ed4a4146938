//! Weights from a hub: fetched once, kept in the user's cache, and the same bytes ever after.
//!
//! [`Hub::pull`] is the only thing in this library that opens a connection. No hash is invented: [`SOURCES`] holds those that
//! somebody has verified; of all others the first pull records the hash (and the commit) in a file beside the weights, a
//! [`Record`], and later ones enforce it.

mod answer;
mod digest;
mod download;
mod http;
mod part;
mod record;
mod sources;

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

use penjing_runtime::file::Model;

pub use self::{
    answer::Answer,
    download::Patience,
    record::Record,
    sources::{SOURCES, Source},
};
use self::{
    download::{Download, Said},
    part::Part,
};
use crate::{
    Error, Result, folders,
    import::{self, Details},
    model::{self, Output},
    progress::Progress,
    zoo::Arch,
};

/// Where weights come from, and where they are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Its address, without a slash at the end.
    pub url: String,
    /// The folder of what was pulled, made when it is needed.
    pub folder: PathBuf,
    /// Opens no connection.
    pub offline: bool,
    /// Uses the proxies (`HTTPS_PROXY` and its like) and trusts the authorities (`SSL_CERT_FILE`) that the environment names.
    pub environment: bool,
    /// When to wait, and when no longer.
    pub patience: Patience,
}

/// The hub that is asked unless `PENJING_HUB` names another.
const HUGGING_FACE: &str = "https://huggingface.co";

/// What a pull ended with.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The model's file in the cache.
    pub path: PathBuf,
    /// The model.
    pub model: Model,
    /// Where its weights come from, and which bytes they are.
    pub record: Record,
    /// Bytes that were received; `None` where the weights were there already, and no connection was made.
    pub received: Option<u64>,
    /// Whether the hash was recorded now, nobody having verified it before.
    pub first: bool,
}

/// What was pulled under a name, and what is wrong with it, if anything.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// What is wrong, and the way out.
    pub fault: Option<String>,
}

/// The model that was pulled under this name, if there is one.
pub fn installed(name: &str) -> Option<PathBuf> {
    let place = Place::of(&folder().ok()?, Source::named(name).ok()?.name);
    place.model.is_file().then_some(place.model)
}

fn folder() -> Result<PathBuf> {
    folders::cache("hub").ok_or_else(|| {
        Error::Unsupported("this user has no cache folder; name one in the variable PENJING_CACHE".into())
    })
}

impl Hub {
    /// The hub at `$PENJING_HUB`, or else Hugging Face's, with the user's cache.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an address that is none, or a user without a cache folder.
    pub fn from_env(offline: bool) -> Result<Self> {
        let url = std::env::var_os("PENJING_HUB").filter(|url| !url.is_empty());
        let url = url.map_or(HUGGING_FACE.into(), |url| url.to_string_lossy().into_owned());
        let url = url.trim_end_matches('/').to_string();
        let plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains(['?', '#', '@']);
        if !plain || !answer::is_http(&url) {
            return Err(Error::Unsupported(format!(
                "PENJING_HUB is `{url}`; expected the address of a mirror, such as https://HOST/PATH"
            )));
        }
        Ok(Hub { url, folder: folder()?, offline, environment: true, patience: Patience::default() })
    }

    /// Makes sure that these weights are in the cache, and makes a model of them. With `update` the commit and the hash of
    /// the first pull are forgotten, and the hub's present ones recorded.
    ///
    /// What arrived of an interrupted download is kept, and the next pull goes on from there.
    ///
    /// # Errors
    /// [`Error::Remote`] when the hub cannot be reached, refuses, or gives other bytes than expected; [`Error::Model`] when
    /// the weights do not fit the network; [`Error::Interrupted`] when the watcher says so.
    pub fn pull(&self, source: &Source, update: bool, progress: &dyn Progress) -> Result<Pulled> {
        // A network that is not known is no reason to ask anybody.
        Arch::named(source.name)?;
        let place = Place::of(&self.folder, source.name);
        let _alone = place.lock()?;
        let known = if update { None } else { Record::read(&place.record, source.name)? };
        // A row that points elsewhere now was changed with thought.
        let known = known.filter(|known| {
            (&*known.repository, &*known.revision, &*known.file)
                == (source.repository, source.revision, source.file)
                && source.sha256.is_none_or(|verified| verified == known.sha256)
        });
        if let Some(record) = &known
            && place.fault_of_file(record)?.is_none()
        {
            let bytes = read(&place.file)?;
            let model = place.keep(model_of(&bytes, source, record)?)?;
            return Ok(Pulled {
                path: place.model,
                model,
                record: record.clone(),
                received: None,
                first: false,
            });
        }

        let version = known.as_ref().map_or(source.revision, Record::version);
        let url = format!("{}/{}/resolve/{version}/{}", self.url, source.repository, source.file);
        if self.offline {
            let what = format!(
                "{} is not in the cache ({}), and --offline forbids to fetch it; leave --offline out once",
                source.name,
                place.folder.display()
            );
            return Err(Error::remote(&url, what));
        }
        let part = Part::of(&place.file);
        let bytes = known.as_ref().map(|known| known.bytes);
        let download = Download { url: &url, bytes, patience: self.patience, environment: self.environment };
        let said = download.run(&part, progress)?;

        let (sha256, length) = digest::of_file(part.path())?;
        let recorded = known.as_ref().map(|known| &*known.sha256);
        if let Err(what) = require(&sha256, source.sha256, recorded, &said, source.name, &place.record) {
            part.remove()?;
            return Err(Error::remote(&url, what));
        }
        let record = Record {
            repository: source.repository.into(),
            revision: source.revision.into(),
            commit: said.commit.clone().or(known.as_ref().and_then(|known| known.commit.clone())),
            file: source.file.into(),
            bytes: length,
            sha256,
            license: source.license.into(),
        };
        let model = read(part.path()).and_then(|bytes| model_of(&bytes, source, &record));
        if model.is_err() && source.sha256.or(recorded).or(said.sha256.as_deref()).is_none() {
            // Nobody vouches for these bytes: the page of a hotel's network, perhaps. The next pull should ask again.
            part.remove()?;
        }
        let model = model?;
        part.finish(&place.file)?;
        Output::new(&place.record, true)?.write(record.to_text()?.as_bytes())?;
        let model = place.keep(model)?;
        let first = source.sha256.or(recorded).is_none();
        Ok(Pulled { path: place.model, model, record, received: Some(said.received), first })
    }

    /// Checks what was pulled under these names, or all of it: the weights against their record, the models against the
    /// hash inside them and the weights. Opens no connection.
    ///
    /// # Errors
    /// [`Error::Io`] when the cache cannot be read, [`Error::Interrupted`] when the watcher says so.
    pub fn verify(&self, names: &[String], progress: &dyn Progress) -> Result<Vec<Checked>> {
        let names = if names.is_empty() { self.pulled()? } else { names.iter().cloned().collect() };
        progress.begin("verifying", names.len());
        let checked = names.into_iter().map(|name| {
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            let fault = Place::of(&self.folder, &name).fault(&name)?;
            progress.advance(1);
            Ok(Checked { name, fault })
        });
        let checked = checked.collect();
        progress.end();
        checked
    }

    /// Names of what is in the cache.
    fn pulled(&self) -> Result<BTreeSet<String>> {
        let failed = |error| Error::io(&self.folder, "list", error);
        let mut names = BTreeSet::new();
        if !self.folder.exists() {
            return Ok(names);
        }
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let place = Place::of(&self.folder, name);
            if [&place.file, &place.record, &place.model].iter().any(|path| path.exists()) {
                names.insert(name.to_string());
            }
        }
        Ok(names)
    }
}

/// The weights' hash is the one that was verified, recorded or named by the hub, in this order.
fn require(
    sha256: &str,
    verified: Option<&str>,
    recorded: Option<&str>,
    said: &Said,
    name: &str,
    record: &Path,
) -> Result<(), String> {
    let came = format!("what came has the SHA-256 {sha256} and was not kept; expected");
    match (verified, recorded, said.sha256.as_deref()) {
        (Some(verified), ..) if verified != sha256 => {
            Err(format!("{came} {verified}, which was verified when this penjing was made"))
        }
        (None, Some(recorded), _) if recorded != sha256 => Err(format!(
            "{came} {recorded}, recorded at the first pull ({}); if the new file is the one you want, `penjing weights pull \
             {name} --update` takes it",
            record.display()
        )),
        (None, None, Some(said)) if said != sha256 => {
            Err(format!("{came} {said}, as the hub says; it was damaged on its way, pull it again"))
        }
        _ => Ok(()),
    }
}

/// The model of these weights.
fn model_of(bytes: &[u8], source: &Source, record: &Record) -> Result<Model> {
    let (arch, width) = Arch::named(source.name)?;
    let origin = format!("{}@{}/{}", record.repository, record.version(), record.file);
    let name = PathBuf::from(&origin);
    let dict = import::parse_state_dict(&name, bytes)?;
    let details = Details {
        width,
        size: Some(source.size),
        form: Some(source.form.into()),
        source: origin,
        license: record.license.clone(),
        ..Details::default()
    };
    let mut model = import::assemble(&name, dict, arch, details)?;
    model.pixels = source.pixels(model.pixels);
    Ok(model)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(path, "read", error))
}

/// Where all of one name is kept.
struct Place {
    folder: PathBuf,
    /// The weights as the hub has them.
    file: PathBuf,
    record: PathBuf,
    /// The model made of them.
    model: PathBuf,
}

impl Place {
    fn of(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        Place {
            file: folder.join("model.safetensors"),
            record: folder.join("source.lock"),
            model: folder.join(format!("{name}.penjing")),
            folder,
        }
    }

    /// Keeps other processes from pulling the same, as long as the file lives.
    fn lock(&self) -> Result<File> {
        std::fs::create_dir_all(&self.folder)
            .map_err(|error| Error::io(&self.folder, "create the folder", error))?;
        let path = self.folder.join(".pulling");
        let file = File::create(&path).map_err(|error| Error::io(&path, "write", error))?;
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::data(&self.folder, "is being pulled by another process; wait for that"))
            }
            // Where files cannot be locked, two at once are the user's affair: hashes are checked all the same.
            _ => Ok(file),
        }
    }

    /// Writes the model, unless it is there already.
    fn keep(&self, model: Model) -> Result<Model> {
        let bytes = model.to_bytes().map_err(|error| Error::model(&self.model, error.to_string()))?;
        if std::fs::read(&self.model).is_ok_and(|there| there == bytes) {
            return Ok(model);
        }
        Output::new(&self.model, true)?.write(&bytes)?;
        Ok(model)
    }

    /// Why the weights are not those of the record.
    fn fault_of_file(&self, record: &Record) -> Result<Option<String>> {
        if !self.file.exists() {
            return Ok(Some("the weights are gone".into()));
        }
        let (sha256, bytes) = digest::of_file(&self.file)?;
        if (&sha256, bytes) == (&record.sha256, record.bytes) {
            return Ok(None);
        }
        Ok(Some(format!(
            "{}: {bytes} bytes with the SHA-256 {sha256}, recorded at the first pull: {} bytes with {}",
            self.file.display(),
            record.bytes,
            record.sha256
        )))
    }

    /// What is wrong, and the way out.
    fn fault(&self, name: &str) -> Result<Option<String>> {
        let record = match Record::read(&self.record, name) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Some(format!("was not pulled; `penjing weights pull {name}` fetches it"))),
            Err(Error::Data { path, what }) => return Ok(Some(format!("{}: {what}", path.display()))),
            Err(other) => return Err(other),
        };
        if let Some(what) = self.fault_of_file(&record)? {
            return Ok(Some(format!("{what}; `penjing weights pull {name}` fetches them again")));
        }
        let made = match model::load(&self.model) {
            Err(error) => Err(error.to_string()),
            Ok(model) if model.provenance.backbone_hash == blake3::hash(&read(&self.file)?).to_string() => {
                Ok(())
            }
            Ok(_) => Err(format!("{}: was not made of these weights", self.model.display())),
        };
        Ok(made.err().map(|what| format!("{what}; `penjing weights pull {name}` makes the model again")))
    }
}
