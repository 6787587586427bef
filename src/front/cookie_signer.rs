//! Signs the page cookie, so that nobody else can make one; the same key proves copies on the disk.
//!
//! The key is in `state.dir`, so that cookies outlive the process; without that folder they do not.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tracing::warn;

/// Its name in the folder.
const FILE: &str = "cookie.key";

const KEY_BYTES: usize = 32;

/// The key that cookies are signed with.
#[derive(Clone)]
pub struct CookieSigner([u8; KEY_BYTES]);

impl fmt::Debug for CookieSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl CookieSigner {
    /// A new one, for as long as the process lives.
    #[must_use]
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// The one that is kept in a folder, made if there is none.
    #[must_use]
    pub fn kept_in(dir: &Path) -> Self {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match <[u8; KEY_BYTES]>::try_from(bytes) {
                Ok(key) => return Self(key),
                Err(bytes) => {
                    let (path, bytes) = (path.display(), bytes.len());
                    warn!(%path, bytes, "The cookie key is damaged; a new one is made.");
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                warn!(%path, %error, "The cookie key cannot be read: a restart forgets browsers.");
                return Self::new();
            }
        }
        let signer = Self::new();
        if let Err(error) = signer.keep(&path) {
            let path = path.display();
            warn!(%path, %error, "The cookie key cannot be saved: a restart will forget browsers.");
        }
        signer
    }

    /// Whole or not at all, and for nobody else to read.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&self.0)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }

    /// The signature under a name: HMAC-SHA-256, of which half is as much as the name itself.
    #[must_use]
    pub fn sign(&self, name: u128) -> u128 {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return 0 };
        mac.update(&name.to_be_bytes());
        let tag = mac.finalize().into_bytes();
        tag.iter().take(16).fold(0, |tag, byte| tag << 8 | u128::from(*byte))
    }

    /// A digest of several texts, which nobody makes or guesses at without the key. The first says
    /// what it is for.
    #[must_use]
    pub fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl Default for CookieSigner {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_and_one_that_is_damaged_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let first = CookieSigner::kept_in(folder.path());
        assert_eq!(first.sign(7), CookieSigner::kept_in(folder.path()).sign(7));
        assert_ne!(first.sign(7), first.sign(8));
        assert_ne!(first.sign(7), CookieSigner::new().sign(7));
        let path = folder.path().join(FILE);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        let second = CookieSigner::kept_in(folder.path());
        assert_ne!(first.sign(7), second.sign(7));
        assert_eq!(second.sign(7), CookieSigner::kept_in(folder.path()).sign(7));
        let nowhere = CookieSigner::kept_in(&folder.path().join("nowhere"));
        assert_ne!(nowhere.sign(7), 0, "it works for as long as the process lives");
    }
}
