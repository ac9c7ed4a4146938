//! Features kept on disk, so that a second run on the same photos does not compute them again.

use half::f16;
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::folders;

/// How much the file in use may hold unless told otherwise, and how much all others together: 2 GiB each.
pub const DEFAULT_LIMIT_BYTES: u64 = 2 << 30;

const MAGIC: [u8; 8] = *b"pjfeatur";
/// Another one for other features of the same photo: 2 since JPEGs are decoded as libjpeg-turbo does.
const VERSION: u32 = 2;
const HEADER_LEN: usize = 16;
const CHECK_LEN: usize = 8;
const EXTENSION: &str = "features";

/// One row to store: what a backbone says of one view of one photo.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// [`content_hash`](crate::data::split::content_hash) of the photo.
    pub photo: [u8; 32],
    /// Which view of the photo: the meaning is the caller's, and part of the cache's key.
    pub view: u32,
    /// As many values as the cache is wide.
    pub values: &'a [f32],
}

/// An append-only file of feature rows, found by photo and view.
///
/// The file is `DIR/KEY.features`: `"pjfeatur"`, version u32, width u32, then records of
/// { photo 32 B, view u32, width × f16, first 8 bytes of the BLAKE3 of all that }, little-endian.
///
/// A cache never fails the work that it is meant to speed up: whatever goes wrong, rows are not found or not written, and
/// [`FeatureCache::take_notice`] says why. A process killed while writing loses at most its last batch. The first
/// process to open a file writes; others read what it held when they opened it (on Windows, where locks bind readers
/// too, they go without).
///
/// Memory: about 30 bytes per row; values stay on disk.
#[derive(Debug)]
pub struct FeatureCache {
    path: PathBuf,
    width: usize,
    limit: u64,
    file: Option<Mutex<File>>,
    /// Number of rows in the file, good and damaged.
    rows: u32,
    /// Where a row is. Half of a photo's hash will do to find it: the row itself holds the whole.
    index: HashMap<([u8; 16], u32), u32>,
    writes: bool,
    notice: Option<String>,
}

/// Rounds values to what a cache gives back: IEEE half precision, limited to ±65504.
///
/// Fresh features must pass through here too, or a result would depend on what was in the cache.
pub fn round_to_stored(values: &mut [f32]) {
    for value in values {
        *value = to_f16(*value).to_f32();
    }
}

/// Where features are kept: `$PENJING_CACHE/features` if that variable is set and not empty, else `penjing/features`
/// in the user's cache folder; `None` if there is neither.
pub fn default_dir() -> Option<PathBuf> {
    folders::cache("features")
}

impl FeatureCache {
    /// Opens the cache of features `width` values wide that belongs to `key`, and makes it if there is none.
    ///
    /// `key` is a hash of all that decides the values: backbone, pixels contract, feature layer, recipe of the views.
    /// Before, the least recently opened files in `dir` are removed until all together hold at most
    /// [`DEFAULT_LIMIT_BYTES`]; the file then grows to at most that size.
    ///
    /// # Panics
    /// If `width` is 0 or above 2²⁰.
    pub fn open(dir: &Path, key: [u8; 32], width: usize) -> Self {
        Self::open_within(dir, key, width, DEFAULT_LIMIT_BYTES)
    }

    /// [`FeatureCache::open`] with another limit in bytes.
    ///
    /// # Panics
    /// If `width` is 0 or above 2²⁰.
    pub fn open_within(dir: &Path, key: [u8; 32], width: usize, limit: u64) -> Self {
        assert!((1..=1 << 20).contains(&width), "a feature row of {width} values");
        let path = dir.join(blake3::Hash::from_bytes(key).to_hex().as_str()).with_extension(EXTENSION);
        let mut cache = Self {
            path,
            width,
            limit,
            file: None,
            rows: 0,
            index: HashMap::new(),
            writes: false,
            notice: None,
        };
        if let Err(error) = cache.load(dir) {
            cache.file = None;
            cache.writes = false;
            cache.index.clear();
            cache.say(format!("is not used: {error}"));
        }
        cache
    }

    /// The features of a view of a photo, if they are stored and undamaged.
    pub fn get(&self, photo: &[u8; 32], view: u32) -> Option<Vec<f32>> {
        let row = *self.index.get(&index_key(photo, view))?;
        let mut bytes = vec![0; self.row_len()];
        read_at(self.file.as_ref()?, self.row_start(row), &mut bytes).ok()?;
        let body = checked_body(&bytes)?;
        let values = body.strip_prefix(&photo[..])?.strip_prefix(&view.to_le_bytes())?;
        Some(values.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
    }

    /// Stores the rows that are not there yet, with one write. Returns whether all are stored now; if not,
    /// [`FeatureCache::take_notice`] may say why.
    ///
    /// # Panics
    /// If a row is not as wide as the cache.
    pub fn append<'a>(&mut self, rows: impl IntoIterator<Item = Row<'a>>) -> bool {
        if !self.writes {
            return false;
        }
        let mut batch = Vec::new();
        let mut places = HashMap::new();
        for row in rows {
            assert_eq!(row.values.len(), self.width, "width of a feature row");
            let key = index_key(&row.photo, row.view);
            if places.contains_key(&key) || self.get(&row.photo, row.view).is_some() {
                continue;
            }
            let Some(place) = u32::try_from(places.len()).ok().and_then(|n| self.rows.checked_add(n)) else {
                break;
            };
            places.insert(key, place);
            let start = batch.len();
            batch.extend_from_slice(&row.photo);
            batch.extend_from_slice(&row.view.to_le_bytes());
            batch.extend(row.values.iter().flat_map(|&v| to_f16(v).to_le_bytes()));
            let check = check(&batch[start..]);
            batch.extend_from_slice(&check);
        }
        let start = self.row_start(self.rows);
        if start + batch.len() as u64 > self.limit {
            self.writes = false;
            self.say(format!("is full ({} MiB); further features are not kept", self.limit >> 20));
            return false;
        }
        let Some(file) = &self.file else { return false };
        if let Err(error) = write_at(file, start, &batch) {
            self.writes = false;
            self.say(format!("cannot be written, further features are not kept: {error}"));
            return false;
        }
        self.rows += places.len() as u32;
        self.index.extend(places);
        true
    }

    /// Number of rows that can be found.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Why the cache is not used or not written, once; `None` while all is well.
    pub fn take_notice(&mut self) -> Option<String> {
        self.notice.take()
    }

    fn say(&mut self, what: String) {
        self.notice.get_or_insert(format!("the feature cache {} {what}", self.path.display()));
    }

    fn row_len(&self) -> usize {
        32 + 4 + 2 * self.width + CHECK_LEN
    }

    fn row_start(&self, row: u32) -> u64 {
        HEADER_LEN as u64 + u64::from(row) * self.row_len() as u64
    }

    fn load(&mut self, dir: &Path) -> io::Result<()> {
        let writable = std::fs::create_dir_all(dir).and_then(|()| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)
        });
        let file = match writable {
            Ok(file) => {
                match file.try_lock() {
                    Ok(()) => self.writes = true,
                    Err(TryLockError::WouldBlock) => {
                        self.say("is being written by another process; this one only reads it".into());
                    }
                    Err(TryLockError::Error(e)) => {
                        self.say(format!("is only read, since it cannot be locked: {e}"))
                    }
                }
                file
            }
            // A cache that somebody else filled, on a medium that may not be written, still serves.
            Err(error) => match File::open(&self.path) {
                Ok(file) => {
                    self.say(format!("is only read: {error}"));
                    file
                }
                Err(_) => return Err(error),
            },
        };
        if self.writes {
            evict(dir, &self.path, self.limit);
            // Marks the file as used now; where the system refuses, it is merely removed earlier.
            file.set_modified(SystemTime::now()).ok();
        }

        let length = file.metadata()?.len();
        let file = self.file.insert(Mutex::new(file));
        let mut header = [0; HEADER_LEN];
        let known = length >= HEADER_LEN as u64 && {
            read_at(file, 0, &mut header)?;
            header == expected_header(self.width)
        };
        if !known {
            if self.writes {
                locked(file).set_len(0)?;
                write_at(file, 0, &expected_header(self.width))?;
            }
            return Ok(());
        }
        let whole = (length - HEADER_LEN as u64) / self.row_len() as u64;
        self.rows = u32::try_from(whole).unwrap_or(u32::MAX);
        self.index_rows()?;
        let end = self.row_start(self.rows);
        if self.writes && end < length {
            self.file.as_ref().map_or(Ok(()), |file| locked(file).set_len(end))?;
        }
        Ok(())
    }

    /// Drops damaged rows from the end and indexes the others, reading their keys only: [`FeatureCache::get`] checks
    /// a row when it is asked for.
    fn index_rows(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut row = vec![0; self.row_len()];
        while self.rows > 0 {
            read_at(file, self.row_start(self.rows - 1), &mut row)?;
            if checked_body(&row).is_some() {
                break;
            }
            self.rows -= 1;
        }
        let mut index = HashMap::with_capacity(self.rows as usize);
        let mut key = [0; 36];
        for row in 0..self.rows {
            read_at(file, self.row_start(row), &mut key)?;
            let (photo, view) = key.split_at(32);
            if let (Some(photo), Ok(view)) = (photo.first_chunk(), view.try_into()) {
                index.insert(index_key(photo, u32::from_le_bytes(view)), row);
            }
        }
        self.index = index;
        Ok(())
    }
}

/// Removes the files of other keys, oldest first, until all hold at most `limit` bytes together. Files that another
/// process writes stay; so does what cannot be removed.
fn evict(dir: &Path, own: &Path, limit: u64) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut files: Vec<(SystemTime, PathBuf, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let ours = path.extension().is_some_and(|e| e == EXTENSION)
                && path.file_stem()?.to_str().is_some_and(|s| blake3::Hash::from_hex(s).is_ok());
            let meta = entry.metadata().ok().filter(|m| ours && m.is_file())?;
            Some((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), path, meta.len()))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|f| f.2).sum();
    for (_, path, bytes) in files {
        if total <= limit {
            return;
        }
        let idle = || OpenOptions::new().write(true).open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if path != own && idle() && std::fs::remove_file(&path).is_ok() {
            total -= bytes;
        }
    }
}

fn index_key(photo: &[u8; 32], view: u32) -> ([u8; 16], u32) {
    let mut half = [0; 16];
    half.copy_from_slice(&photo[..16]);
    (half, view)
}

fn expected_header(width: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&(width as u32).to_le_bytes());
    header
}

/// NaN stays NaN.
fn to_f16(value: f32) -> f16 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

fn check(body: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(body).as_bytes()[..CHECK_LEN]);
    check
}

/// A row without its check, if that is right.
fn checked_body(row: &[u8]) -> Option<&[u8]> {
    let (body, stored) = row.split_last_chunk::<CHECK_LEN>()?;
    (check(body) == *stored).then_some(body)
}

fn locked(file: &Mutex<File>) -> std::sync::MutexGuard<'_, File> {
    // A panic elsewhere leaves only the cursor astray, and every use sets it anew.
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_at(file: &Mutex<File>, start: u64, bytes: &mut [u8]) -> io::Result<()> {
    let mut file = locked(file);
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytes)
}

/// Writes at what is the end; on failure the end is where it was.
fn write_at(file: &Mutex<File>, end: u64, bytes: &[u8]) -> io::Result<()> {
    let mut file = locked(file);
    file.seek(SeekFrom::Start(end))?;
    file.write_all(bytes).inspect_err(|_| drop(file.set_len(end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const KEY: [u8; 32] = [7; 32];

    fn photo(i: usize) -> [u8; 32] {
        *blake3::hash(&i.to_le_bytes()).as_bytes()
    }

    /// Stores photos `range`, each with the values [i, −i, ½].
    fn fill(cache: &mut FeatureCache, range: std::ops::Range<usize>) -> bool {
        let values: Vec<[f32; 3]> = range.clone().map(|i| [i as f32, -(i as f32), 0.5]).collect();
        cache.append(range.zip(&values).map(|(i, values)| Row { photo: photo(i), view: 0, values }))
    }

    fn holds(cache: &FeatureCache, i: usize) -> bool {
        match cache.get(&photo(i), 0) {
            Some(values) => {
                assert_eq!(values, [i as f32, -(i as f32), 0.5]);
                true
            }
            None => false,
        }
    }

    fn file_of(dir: &Path) -> PathBuf {
        dir.join("07".repeat(32) + ".features")
    }

    #[test]
    fn rows_come_back_in_a_later_run() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("made/when/missing");
        let mut cache = FeatureCache::open(&place, KEY, 3);
        assert!(cache.is_empty());
        assert!(fill(&mut cache, 0..10) && fill(&mut cache, 5..20));
        let twice = Row { photo: photo(9), view: 1, values: &[0.0; 3] };
        assert!(cache.append([twice, twice]));
        assert!(cache.append([Row { photo: photo(3), view: 9, values: &[1e9, f32::NAN, 0.1] }]));
        assert_eq!(cache.len(), 22);
        let length = std::fs::metadata(file_of(&place)).unwrap().len();
        assert_eq!(length, 16 + 22 * (36 + 6 + 8), "a row was written twice");
        drop(cache);

        let mut cache = FeatureCache::open(&place, KEY, 3);
        assert_eq!(cache.len(), 22);
        assert!((0..20).all(|i| holds(&cache, i)) && !holds(&cache, 20));
        assert_eq!(cache.get(&photo(4), 9), None);
        let mut rounded = [1e9, f32::NAN, 0.1];
        round_to_stored(&mut rounded);
        let stored = cache.get(&photo(3), 9).unwrap();
        assert_eq!(stored.map_bits(), rounded.to_vec().map_bits());
        assert_eq!(rounded[0], 65504.0);
        assert_eq!(cache.take_notice(), None);
        assert!(FeatureCache::open(&place, [8; 32], 3).is_empty(), "another key is another cache");
    }

    trait Bits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        fill(&mut cache, 0..4);
        drop(cache);
        let whole = std::fs::read(file_of(dir.path())).unwrap();
        for length in 0..whole.len() {
            std::fs::write(file_of(dir.path()), &whole[..length]).unwrap();
            let mut cache = FeatureCache::open(dir.path(), KEY, 3);
            let kept = length.saturating_sub(16) / 50;
            assert_eq!((0..4).filter(|&i| holds(&cache, i)).count(), kept, "cut at {length}");
            assert!(fill(&mut cache, 0..4));
            drop(cache);
            assert_eq!(std::fs::read(file_of(dir.path())).unwrap(), whole, "cut at {length}");
        }
    }

    #[test]
    fn a_changed_byte_costs_no_more_than_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        fill(&mut cache, 0..4);
        drop(cache);
        let whole = std::fs::read(file_of(dir.path())).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            std::fs::write(file_of(dir.path()), &bytes).unwrap();
            let mut cache = FeatureCache::open(dir.path(), KEY, 3);
            for i in 0..4 {
                let spared = at >= 16 && (at - 16) / 50 != i;
                assert_eq!(holds(&cache, i), spared, "byte {at}, row {i}");
            }
            assert!(fill(&mut cache, 0..4));
            drop(cache);
            let cache = FeatureCache::open(dir.path(), KEY, 3);
            assert!((0..4).all(|i| holds(&cache, i)), "byte {at}: not mended");
        }
    }

    #[test]
    fn another_width_or_a_foreign_file_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        fill(&mut cache, 0..4);
        drop(cache);
        assert!(FeatureCache::open(dir.path(), KEY, 4).is_empty());
        std::fs::write(file_of(dir.path()), vec![b'x'; 1000]).unwrap();
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        assert!(cache.is_empty() && fill(&mut cache, 0..2) && holds(&cache, 1));
        assert_eq!(std::fs::metadata(file_of(dir.path())).unwrap().len(), 16 + 2 * 50);
    }

    #[cfg(unix)]
    #[test]
    fn the_second_reads_and_does_not_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = FeatureCache::open(dir.path(), KEY, 3);
        fill(&mut first, 0..4);
        let mut second = FeatureCache::open(dir.path(), KEY, 3);
        assert!(holds(&second, 3) && !fill(&mut second, 4..5));
        assert!(second.take_notice().unwrap().contains("another process"));
        assert_eq!(second.take_notice(), None);
        assert!(fill(&mut first, 4..6) && holds(&first, 5) && !holds(&second, 5));
        // With another width the second would start the file anew; it may not.
        assert!(FeatureCache::open(dir.path(), KEY, 2).is_empty());
        drop(first);
        let mut third = FeatureCache::open(dir.path(), KEY, 3);
        assert!(holds(&third, 5) && fill(&mut third, 6..7));
    }

    #[test]
    fn trouble_with_the_folder_costs_the_cache_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let mut cache = FeatureCache::open(&file, KEY, 3);
        assert!(!fill(&mut cache, 0..2) && !holds(&cache, 0));
        assert!(cache.take_notice().unwrap().contains("is not used"));
        // A folder where the file should be.
        std::fs::create_dir(file_of(dir.path())).unwrap();
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        assert!(!fill(&mut cache, 0..2) && cache.is_empty() && cache.take_notice().is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_costs_the_cache_only() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", file_of(dir.path())).unwrap();
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        assert!(!fill(&mut cache, 0..2) && cache.take_notice().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_cache_serves() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        fill(&mut cache, 0..4);
        drop(cache);
        let path = file_of(dir.path());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        if OpenOptions::new().write(true).open(&path).is_ok() {
            println!("skipped: this user may write every file");
            return;
        }
        let mut cache = FeatureCache::open(dir.path(), KEY, 3);
        assert!(holds(&cache, 3) && !fill(&mut cache, 4..5));
        assert!(cache.take_notice().unwrap().contains("only read"));
    }

    #[test]
    fn the_least_recently_used_files_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let key = |i: u8| [i; 32];
        let path = |i: u8| dir.path().join(format!("{i:02x}").repeat(32) + ".features");
        for i in 0..5 {
            fill(&mut FeatureCache::open(dir.path(), key(i), 3), 0..20);
            // 0 is the oldest, and so on.
            let time = SystemTime::now() - Duration::from_secs(1000 - 100 * u64::from(i));
            OpenOptions::new().write(true).open(path(i)).unwrap().set_modified(time).unwrap();
        }
        std::fs::write(dir.path().join("notes.features"), vec![0; 5000]).unwrap();
        let in_use = FeatureCache::open(dir.path(), key(1), 3);
        OpenOptions::new().write(true).open(path(1)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        // Each file has 1,016 bytes. The oldest, 1, is in use; 0, itself opened, is the next; then 2 and 3 go.
        let mut cache = FeatureCache::open_within(dir.path(), key(0), 3, 3200);
        assert_eq!([0, 1, 2, 3, 4].map(|i| path(i).exists()), [true, true, false, false, true]);
        assert!(dir.path().join("notes.features").exists());
        assert!(holds(&in_use, 19) && holds(&cache, 19));
        // 16 + 63 × 50 bytes fit.
        assert!(fill(&mut cache, 0..63) && !fill(&mut cache, 63..64) && holds(&cache, 62));
        assert!(cache.take_notice().unwrap().contains("is full"));
    }
}
