//! Zip archives read entry by entry into memory, within limits. The only file that knows the `zip` crate.

use std::io::{Cursor, Read};

use ::zip::ZipArchive;

use super::{MAX_BYTES, What, shown};

const MAX_ENTRIES: usize = 1 << 16;
/// An entry may always grow to this size, whatever its compressed size.
const FREE_BYTES: u64 = 1 << 20;
/// Beyond [`FREE_BYTES`], how many times its compressed size an entry may grow. Weights compress by less than
/// ten.
const MAX_RATIO: u64 = 200;

/// An archive in memory.
pub(super) struct Archive<'a> {
    inner: ZipArchive<Cursor<&'a [u8]>>,
    names: Vec<String>,
    length: u64,
    /// Bytes that may still be unpacked.
    left: u64,
}

impl<'a> Archive<'a> {
    /// Whether `bytes` begin like a zip archive, an empty one included.
    pub(super) fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
    }

    /// Reads the directory of the archive.
    pub(super) fn open(bytes: &'a [u8]) -> What<Self> {
        let inner = ZipArchive::new(Cursor::new(bytes))
            .map_err(|e| format!("begins like a zip archive and is none ({e}); fetch the file again"))?;
        if inner.len() > MAX_ENTRIES {
            return Err(format!(
                "the zip archive has {} entries; at most {MAX_ENTRIES} are read",
                inner.len()
            ));
        }
        let name = |name: Result<std::borrow::Cow<'_, str>, _>| {
            name.map(|name| name.into_owned())
                .map_err(|e| format!("the zip archive has an entry whose name is no text ({e})"))
        };
        let names = inner.file_names().map(name).collect::<What<_>>()?;
        Ok(Archive { inner, names, length: bytes.len() as u64, left: MAX_BYTES })
    }

    /// The names of all entries.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The content of the entry called `name`, or `None` where there is no such entry.
    pub(super) fn read(&mut self, name: &str) -> What<Option<Vec<u8>>> {
        let Some(index) = self.inner.index_for_name(name) else { return Ok(None) };
        let damaged = |e: &dyn std::fmt::Display| {
            format!("cannot unpack `{}` from the zip archive ({e}); fetch the file again", shown(name))
        };
        let entry = self.inner.by_index(index).map_err(|e| damaged(&e))?;
        // The compressed size is the header's claim too, but no entry is longer than its archive.
        let compressed = entry.compressed_size().min(self.length);
        let limit = compressed.saturating_mul(MAX_RATIO).max(FREE_BYTES).min(self.left);
        let claimed = entry.size();
        let mut content = Vec::new();
        if claimed <= limit {
            content.reserve_exact(usize::try_from(claimed).map_err(|e| damaged(&e))?);
            entry.take(limit + 1).read_to_end(&mut content).map_err(|e| damaged(&e))?;
        }
        let unpacked = content.len() as u64;
        if claimed > limit || unpacked > limit {
            return Err(format!(
                "refused: `{}` in the zip archive unpacks to more than {limit} bytes from {compressed}; \
                 pack the weights without compression, as torch.save does",
                shown(name)
            ));
        }
        if unpacked != claimed {
            return Err(damaged(&format_args!("{unpacked} bytes where its header says {claimed}")));
        }
        self.left -= unpacked;
        Ok(Some(content))
    }
}
