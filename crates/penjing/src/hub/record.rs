//! What is kept beside the weights of a first pull, and enforced afterwards.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{answer, digest};
use crate::{Error, Result};

/// Where weights came from, and which bytes they were: `source.lock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The hub's repository, `owner/name`.
    pub repository: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that the hub said it was, if it did. Later pulls ask for that.
    pub commit: Option<String>,
    /// The file in the repository.
    pub file: String,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256 in hexadecimal.
    pub sha256: String,
    /// Licence (SPDX).
    pub license: String,
}

/// A record is a few hundred bytes long.
const MAX_BYTES: usize = 64 << 10;

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if !digest::is_one(&record.sha256) {
            return Err("`sha256` is no SHA-256 in lower-case hexadecimal".into());
        }
        if !record.commit.as_deref().is_none_or(answer::is_commit) {
            return Err("`commit` is no commit".into());
        }
        Ok(record)
    }

    /// The record's file, which [`parse`](Self::parse) reads.
    pub(super) fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        Ok(text.map_err(|error| Error::Unsupported(format!("the record: {error}")))? + "\n")
    }

    /// The record at `path` of the weights called `name`; `None` where there is none.
    pub(super) fn read(path: &Path, name: &str) -> Result<Option<Self>> {
        let failed = |error| Error::io(path, "read", error);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        Record::parse(&bytes).map(Some).map_err(|what| {
            Error::data(
                path,
                format!(
                    "is damaged: {what}; `penjing weights pull {name} --update` fetches and records anew"
                ),
            )
        })
    }

    /// The commit, or else the revision.
    pub fn version(&self) -> &str {
        self.commit.as_deref().unwrap_or(&self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            repository: "owner/name".into(),
            revision: "main".into(),
            commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
            file: "model.safetensors".into(),
            bytes: 7,
            sha256: "ab".repeat(32),
            license: "Apache-2.0".into(),
        }
    }

    #[test]
    fn a_record_is_read_as_written() {
        for commit in [record().commit, None] {
            let record = Record { commit, ..record() };
            assert_eq!(Record::parse(record.to_text().unwrap().as_bytes()).unwrap(), record);
        }
    }

    #[test]
    fn what_could_mislead_is_refused() {
        let text = record().to_text().unwrap();
        for (from, to, why) in [
            ("\"bytes\": 7", "\"bytes\": -7", "invalid value"),
            ("abab", "ABAB", "`sha256`"),
            ("0123456789abcdef0", "../../../other/x/", "`commit`"),
            ("\"bytes\"", "\"size\"", "unknown field"),
            ("{", "[", ""),
        ] {
            let error = Record::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.contains(why), "{from}: {error}");
        }
        let long = text.clone() + &" ".repeat(MAX_BYTES);
        assert!(Record::parse(long.as_bytes()).unwrap_err().contains("longer"));
        for end in 0..text.len() - 2 {
            assert!(Record::parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }
}
