//! The file of `state.seal_key_file`: the keys that seal the bodies of waiting prompts.
//!
//! It has one key a line. The first one seals, and all of them open, so that a key can be changed
//! while prompts wait.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::secret;

/// How many bytes a key has.
const KEY_BYTES: usize = 32;

/// The most keys in a file.
const KEYS_MAX: usize = 16;

/// How to make a key, for errors.
const MAKES_ONE: &str = "`openssl rand -base64 32` makes one";

/// A key that seals. It is never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct SealKey([u8; KEY_BYTES]);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Reads the keys, of which there is one at least.
///
/// # Errors
/// What is wrong with the file, without showing what is in it.
pub(super) fn read(path: &Path) -> Result<Vec<SealKey>, String> {
    let text = secret::read(path)?;
    let mode = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.mode();
    if mode & 0o007 != 0 {
        let (mode, path) = (mode & 0o777, path.display());
        return Err(format!(
            "is open to all users (mode {mode:04o}): `chmod o= {path}`, or the mode of the secret"
        ));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<SealKey>, String> {
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
    let keys =
        lines.map(|(number, line)| key(line).map_err(|what| format!("line {number} {what}")));
    let keys: Vec<SealKey> = keys.collect::<Result<_, String>>()?;
    match keys.len() {
        0 => Err(format!("has no key: {MAKES_ONE}")),
        1..=KEYS_MAX => Ok(keys),
        many => Err(format!("has {many} keys, and at most {KEYS_MAX} are read")),
    }
}

fn key(line: &str) -> Result<SealKey, String> {
    let bytes = STANDARD.decode(line);
    let bytes = bytes.map_err(|_| format!("is not a key in base64: {MAKES_ONE}"))?;
    let has = bytes.len();
    let exact = <[u8; KEY_BYTES]>::try_from(bytes);
    exact
        .map(SealKey)
        .map_err(|_| format!("is a key of {has} bytes, and has to have {KEY_BYTES}: {MAKES_ONE}"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn text_of(byte: u8, len: usize) -> String {
        STANDARD.encode(vec![byte; len])
    }

    fn said(content: &str, mode: u32) -> Result<Vec<SealKey>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read(file.path()).map_err(|what| what.replace(&file.path().display().to_string(), "FILE"))
    }

    #[test]
    fn a_key_a_line_is_read_in_their_order() {
        let (new, old) = (text_of(1, 32), text_of(2, 32));
        let keys = said(&format!("{new}\n\n {old} \r\n"), 0o640).unwrap();
        assert_eq!(keys, [SealKey([1; 32]), SealKey([2; 32])]);
        assert_eq!(format!("{:?}", keys[0]), "SealKey(…)");
    }

    #[test]
    fn whatever_is_wrong_with_the_file_is_told_and_its_content_is_not() {
        let good = text_of(1, 32);
        let many = format!("{good}\n").repeat(17);
        let makes = "`openssl rand -base64 32` makes one";
        let wrong = [
            (String::new(), 0o600, "is empty".to_owned()),
            (
                good.clone(),
                0o604,
                "is open to all users (mode 0604): `chmod o= FILE`, or the mode of the secret"
                    .to_owned(),
            ),
            (many, 0o600, "has 17 keys, and at most 16 are read".to_owned()),
            (
                text_of(7, 16),
                0o600,
                format!("line 1 is a key of 16 bytes, and has to have 32: {makes}"),
            ),
            (format!("{good}\ns3cret!"), 0o600, format!("line 2 is not a key in base64: {makes}")),
        ];
        for (content, mode, what) in wrong {
            assert_eq!(said(&content, mode).unwrap_err(), what);
        }
        let gone = read(Path::new("/nowhere/key")).unwrap_err();
        assert_eq!(gone, "cannot be read: No such file or directory (os error 2)");
    }
}
