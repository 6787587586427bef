//! Keys of users. They have 256 random bits, so nobody can guess one, however fast. Therefore a
//! fast hash is enough to store them. A password needs a slow one.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// All keys begin with this, so that people and scanners for secrets recognise them.
const PREFIX: &str = "mooring_";

const BYTES: usize = 32;

/// A longer text is not a key and is not hashed.
const KEY_MAX: usize = 256;

/// Creates a new key. Its characters need no escape in a header, a URL or a shell.
#[must_use]
pub fn mint() -> String {
    let random: [u8; BYTES] = rand::random();
    format!("{PREFIX}{}", Hex(&random))
}

/// The stored form of a key: its SHA-256. It is looked up in a table and not compared with each
/// one. The lookup time depends on the hash of the guess. An attacker could learn something from it
/// only if he could choose that hash.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct KeyHash([u8; BYTES]);

/// The text in the file is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a key is kept as 64 hexadecimal digits, its SHA-256")]
pub struct BadHash;

impl KeyHash {
    /// The hash of a key that a client sends. `None` for a text that cannot be a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Option<Self> {
        let is_sound = (1..=KEY_MAX).contains(&key.len());
        is_sound.then(|| Self(Sha256::digest(key).into()))
    }

    /// # Errors
    /// The text is not such a hash.
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        let mut bytes = [0; BYTES];
        if text.len() != 2 * BYTES {
            return Err(BadHash);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).ok_or(BadHash);
            let [high, low] = digits else { return Err(BadHash) };
            *byte = u8::try_from(value(*high)? * 16 + value(*low)?).map_err(|_| BadHash)?;
        }
        Ok(Self(bytes))
    }
}

/// The form in the file.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_like_another_and_each_can_stand_anywhere() {
        let keys: std::collections::BTreeSet<String> = (0..100).map(|_| mint()).collect();
        assert_eq!(keys.len(), 100);
        for key in keys {
            let digits = key.strip_prefix(PREFIX).unwrap();
            assert!(digits.len() == 64 && digits.bytes().all(|it| it.is_ascii_hexdigit()), "{key}");
        }
    }

    /// The result is that of FIPS 180-4 and `sha256sum`.
    #[test]
    fn a_key_is_kept_as_its_sha_256() {
        let hash = KeyHash::of(b"abc").unwrap();
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(KeyHash::parse(text), Ok(hash));
        assert_eq!(KeyHash::parse(&text.to_uppercase()), Ok(hash));
        assert!(!format!("{hash:?}").contains("ba78"));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let long = ["g".repeat(64), "é".repeat(32), "0".repeat(65), "+1".repeat(32)];
        for bad in long.iter().map(String::as_str).chain(["", "ba78"]) {
            assert_eq!(KeyHash::parse(bad), Err(BadHash), "{bad}");
        }
        assert_eq!(KeyHash::of(b""), None);
        assert_eq!(KeyHash::of(&[b'x'; KEY_MAX + 1]), None);
        assert!(KeyHash::of(&[0xff; KEY_MAX]).is_some());
    }
}
