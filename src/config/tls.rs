//! Certificates and keys, which stand in files: those of the listeners, and those with which
//! backends are reached.

mod backend;
mod listener;

pub use backend::BackendTls;
pub(super) use backend::{RawTls, ServerName, check as check_backend};
pub(super) use listener::check as check_listener;
pub use listener::{ListenerTls, PemFile};

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::file;
use super::kinds::{Kind, Shape};
use super::raw::Written;
use super::secret::SecretFile;

/// More than any chain of certificates has, and little enough to read at once.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What tells one content from another, without keeping it: it may be a key.
type Print = [u8; 32];

fn print_of(text: &str) -> Print {
    Sha256::digest(text.as_bytes()).into()
}

/// A file of certificates or of a key (PEM), or nothing.
#[derive(Debug)]
pub(super) struct PemPath;

impl Kind for PemPath {
    type Value = Option<PathBuf>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        SecretFile.parse(text)
    }

    fn takes(&self) -> String {
        "a path of a PEM file".to_owned()
    }

    fn schema(&self) -> Value {
        SecretFile.schema()
    }

    fn files(&self, written: &Written) -> Vec<PathBuf> {
        SecretFile.files(written)
    }
}

/// Reads a file whole.
///
/// # Errors
/// What is wrong with it, with its name.
pub(super) fn read(path: &Path) -> Result<String, String> {
    // A pipe or a device may never end, and whoever reads it waits for ever.
    let is_special = std::fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir());
    let text = match is_special {
        true => Err("is not a regular file".to_owned()),
        false => file::text(path, FILE_BYTES_MAX),
    };
    text.map_err(|what| about(path, &what))
}

fn about(path: &Path, what: &str) -> String {
    format!("`{}` {what}", path.display())
}
