//! The user's folders.

use etcetera::BaseStrategy as _;
use std::path::{Path, PathBuf};

/// Where this kind of files that can be made or fetched again is kept: `$PENJING_CACHE/KIND` if that variable is set and not
/// empty, else `penjing/KIND` in the platform's cache folder; `None` if there is neither.
pub(crate) fn cache(kind: &str) -> Option<PathBuf> {
    match std::env::var_os("PENJING_CACHE").filter(|v| !v.is_empty()) {
        Some(dir) => Some(Path::new(&dir).join(kind)),
        None => Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("penjing").join(kind)),
    }
}
