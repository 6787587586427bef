//! Which file? The first of: the flag, `$MOORING_CONFIG`, `./mooring.toml`,
//! `/etc/mooring/mooring.toml`.

use std::path::{Path, PathBuf};

/// Looked for in this order where no file is named.
const PLACES: &[&str] = &["mooring.toml", "/etc/mooring/mooring.toml"];

/// The file to read, or `None` if none is named and none is found.
///
/// A file that is named is taken whether it exists or not: to run without it would be a surprise.
#[must_use]
pub fn find(flag: Option<PathBuf>, variable: Option<PathBuf>) -> Option<PathBuf> {
    let named = variable.filter(|path| !path.as_os_str().is_empty());
    // A place that cannot be looked into is taken too, so that its report says why.
    let is_there = |path: &&str| Path::new(path).try_exists().unwrap_or(true);
    flag.or(named).or_else(|| PLACES.iter().copied().find(is_there).map(PathBuf::from))
}
