//! Finds the configuration file. It is the first of: the flag, `$MOORING_CONFIG`, `./mooring.toml`,
//! `/etc/mooring/mooring.toml`.

use std::path::{Path, PathBuf};

/// Searched in this order if no file is named.
const PLACES: &[&str] = &["mooring.toml", "/etc/mooring/mooring.toml"];

/// The file to read, or `None` if none is named and none is found.
///
/// A named file is returned whether it exists or not: running without it would be a surprise.
#[must_use]
pub fn find(flag: Option<PathBuf>, variable: Option<PathBuf>) -> Option<PathBuf> {
    let named = variable.filter(|path| !path.as_os_str().is_empty());
    // A place that cannot be examined is returned too, so that reading it reports why.
    let is_there = |path: &&str| Path::new(path).try_exists().unwrap_or(true);
    flag.or(named).or_else(|| PLACES.iter().copied().find(is_there).map(PathBuf::from))
}
