//! Signs our cookies, so that nobody else can make one. There are two keys: one for the page cookie
//! and the copies on the disk, and one for sessions.
//!
//! The keys are kept in `state.dir`, so that cookies survive a restart. Without that folder they do
//! not.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::auth::session::Signs;

/// What a key is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signed {
    /// For browsers, and for copies on the disk.
    Browsers,
    Sessions,
}

impl Signed {
    /// The key's name in the folder.
    fn file(self) -> &'static str {
        match self {
            Self::Browsers => "cookie.key",
            Self::Sessions => "session.key",
        }
    }

    /// What is lost if the process does not have the previous key.
    fn loss(self) -> &'static str {
        match self {
            Self::Browsers => "a restart forgets browsers",
            Self::Sessions => "a restart ends all sessions",
        }
    }
}

const KEY_BYTES: usize = 32;

/// A key that signs cookies.
#[derive(Clone)]
pub struct CookieSigner([u8; KEY_BYTES]);

impl fmt::Debug for CookieSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl CookieSigner {
    /// A new key, for the lifetime of the process.
    #[must_use]
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// A key that is derived from a secret of the operator.
    #[must_use]
    pub fn of_secret(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// The key in a folder. It is created if there is none.
    #[must_use]
    pub fn kept_in(dir: &Path, signed: Signed) -> Self {
        let (path, loss) = (dir.join(signed.file()), signed.loss());
        match fs::read(&path) {
            Ok(bytes) => match <[u8; KEY_BYTES]>::try_from(bytes) {
                Ok(key) => return Self(key),
                Err(bytes) => {
                    let (path, bytes) = (path.display(), bytes.len());
                    warn!(%path, bytes, loss, "A key is damaged; a new one is made.");
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                warn!(%path, %error, loss, "A key cannot be read.");
                return Self::new();
            }
        }
        let signer = Self::new();
        if let Err(error) = signer.keep(&path) {
            let path = path.display();
            warn!(%path, %error, loss, "A key cannot be saved.");
        }
        signer
    }

    /// Writes the complete file or nothing. Only the owner may read it.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&self.0)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }

    /// The signature of a name: HMAC-SHA-256, cut to half, which is as long as the name.
    #[must_use]
    pub fn sign(&self, name: u128) -> u128 {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return 0 };
        mac.update(&name.to_be_bytes());
        let tag = mac.finalize().into_bytes();
        tag.iter().take(16).fold(0, |tag, byte| tag << 8 | u128::from(*byte))
    }

    /// A digest of several texts. Nobody can compute or guess it without the key. The first text
    /// says what the digest is for.
    #[must_use]
    pub fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).map_or([0; KEY_BYTES], |mac| mac.finalize().into_bytes().into())
    }

    /// It is never `None`, because HMAC accepts a key of any length.
    fn mac(&self, parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }
}

/// The purpose of a session's signature.
const SESSION: &[u8] = b"session";

impl Signs for CookieSigner {
    fn mark(&self) -> u64 {
        let digest = self.digest(&[b"mark"]);
        digest.iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
    }

    fn sign_text(&self, text: &[u8]) -> [u8; 32] {
        self.digest(&[SESSION, text])
    }

    fn proves(&self, text: &[u8], signature: &[u8; 32]) -> bool {
        self.mac(&[SESSION, text]).is_some_and(|mac| mac.verify_slice(signature).is_ok())
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
        let kept = || CookieSigner::kept_in(folder.path(), Signed::Browsers);
        let first = kept();
        assert_eq!(first.sign(7), kept().sign(7));
        assert_ne!(first.sign(7), first.sign(8));
        assert_ne!(first.sign(7), CookieSigner::new().sign(7));
        let sessions = CookieSigner::kept_in(folder.path(), Signed::Sessions);
        assert_ne!(sessions.sign(7), first.sign(7), "it is another key");
        let path = folder.path().join("cookie.key");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        let second = kept();
        assert_ne!(first.sign(7), second.sign(7));
        assert_eq!(second.sign(7), kept().sign(7));
        let nowhere = CookieSigner::kept_in(&folder.path().join("nowhere"), Signed::Browsers);
        assert_ne!(nowhere.sign(7), 0, "it works for as long as the process lives");
    }

    #[test]
    fn a_session_is_proved_by_its_key_alone() {
        let (signer, other) = (CookieSigner::of_secret("a"), CookieSigner::of_secret("b"));
        let signature = signer.sign_text(b"text");
        assert!(signer.proves(b"text", &signature));
        assert!(!signer.proves(b"texts", &signature) && !other.proves(b"text", &signature));
        assert!(CookieSigner::of_secret("a").proves(b"text", &signature));
        assert_ne!(signer.mark(), other.mark());
    }
}
