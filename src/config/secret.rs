//! Reads secrets, which are in the configuration itself or in files of their own, for example
//! mounted or written by a secret store.
//!
//! A key is a secret by its kind ([`Secretive`]), and then it has a sibling `…_file` of the kind
//! [`SecretFile`]; a test checks this for the table of keys. Files are read again whenever the
//! configuration is loaded, so that a rotated secret needs no other change.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::file;
use super::kinds::{Kind, Shape};
use super::problems::Notes;
use super::raw::{Item, Setting, Written};

/// Shown instead of a secret. A secret may also have this value.
pub(super) const HIDDEN: &str = "(hidden)";

/// The largest secret file. A wrong file, named by mistake, is not read to its end.
const FILE_BYTES_MAX: usize = 64 << 10;

/// A kind whose value is never shown, and that may be in a file.
pub(super) trait Secretive: Kind {
    /// True for a value that does not allow a file beside it.
    fn excludes_file(value: &Self::Value) -> bool;

    /// Adds the content of `file`, which is not blank.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    fn take_in(value: &mut Self::Value, text: &str, file: &Path) -> Result<(), String>;
}

/// A file that holds the value of the key beside it, or empty.
#[derive(Debug)]
pub(super) struct SecretFile;

impl Kind for SecretFile {
    type Value = Option<PathBuf>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        Ok(if text.is_empty() { None } else { Some(PathBuf::from(text)) })
    }

    fn takes(&self) -> String {
        "a path".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }

    fn files(&self, written: &Written) -> Vec<PathBuf> {
        match &written.item {
            Item::Text(path) if !path.is_empty() => vec![PathBuf::from(path)],
            Item::Text(_)
            | Item::Number(_)
            | Item::Other
            | Item::Switch(_)
            | Item::List(_)
            | Item::Table(_) => vec![],
        }
    }
}

/// The value of a secret, from either place.
pub(super) fn check<K: Secretive>(
    written: Setting<K>,
    file: Setting<SecretFile>,
    notes: &mut Notes,
) -> K::Value {
    let (one, other) = (written.key.clone(), file.key.clone());
    let mut value = written.check(notes);
    let Some(path) = file.check(notes) else { return value };
    if K::excludes_file(&value) {
        let what = format!("`{one}` and `{other}` are both set, one is enough");
        let key = notes.written(&[&one, &other]);
        notes.report(key, what);
    }
    if let Err(what) = read(&path).and_then(|text| K::take_in(&mut value, &text, &path)) {
        notes.report(&other, format!("`{}` {what}", path.display()));
    }
    value
}

/// Reads a secret's file. A final line break is removed, because editors and `echo` add one.
///
/// # Errors
/// The operating system's error, or why the content cannot be a secret.
pub(super) fn read(path: &Path) -> Result<String, String> {
    // A pipe or a device may never end, and reading it would block forever.
    if std::fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir()) {
        return Err("is not a regular file".to_owned());
    }
    let text = file::text(path, FILE_BYTES_MAX)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    #[test]
    fn every_secret_can_stand_in_a_file() {
        let secrets: Vec<_> = KEYS.iter().filter(|key| key.is_secret).collect();
        let names: Vec<String> = secrets.iter().map(|key| key.full_name()).collect();
        let of_admin = ["admin.token", "admin.read_token"];
        let of_store = ["replicas.store"];
        let of_tables = ["backends.NAME.headers", "discovery.NAME.headers"];
        assert_eq!(names, [&of_admin[..], &of_store, &of_tables].concat());
        for key in secrets {
            let sibling = format!("{}_file", key.name);
            let has = KEYS.iter().any(|it| it.section == key.section && it.name == sibling);
            assert!(has, "{} has no sibling `{sibling}`", key.full_name());
        }
    }

    fn said(content: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read(file.path())
    }

    #[test]
    fn the_end_of_the_last_line_is_no_part_of_a_secret() {
        for content in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\n\n"] {
            assert_eq!(said(content.as_bytes()).as_deref(), Ok("s3cret"));
        }
        assert_eq!(said(&[b'x'; FILE_BYTES_MAX]).map(|it| it.len()), Ok(FILE_BYTES_MAX));
    }

    #[test]
    fn a_file_that_holds_no_secret_says_why() {
        for content in [&b""[..], b"\n", b" \r\n"] {
            assert_eq!(said(content).unwrap_err(), "is empty");
        }
        assert_eq!(said(&[b'x'; FILE_BYTES_MAX + 1]).unwrap_err(), "is larger than 64KiB");
        assert_eq!(said(b"s3\xff").unwrap_err(), "is not UTF-8 text: byte 3 is invalid");
        assert_eq!(read(Path::new("/dev/null")).unwrap_err(), "is not a regular file");
        let gone = read(Path::new("/nowhere/secret")).unwrap_err();
        assert_eq!(gone, "cannot be read: No such file or directory (os error 2)");
        let folder = read(&std::env::temp_dir()).unwrap_err();
        assert_eq!(folder, "cannot be read: Is a directory (os error 21)");
    }
}
