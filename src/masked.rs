//! How a client appears in the log (promise V6), and a prompt to who may only look.
//!
//! Whoever knows a clientId can act as that client, so it is a secret, and a log is read by many
//! and kept for long. So the log contains a short keyed hash of it. The key belongs to the process
//! and is stored nowhere, so the same client has another hash after a restart. `mooring clients`
//! shows both, and every command that takes a client's id also takes its hash.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::OnceLock;

use crate::net::Hashing;
use crate::routing::ids::ClientId;

static KEY: OnceLock<Hashing> = OnceLock::new();

/// Forty bits of a client's hash: enough to find one, and too few to name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Masked(u64);

/// The client as it stands in the log.
#[must_use]
pub fn mask(client: &ClientId) -> Masked {
    let key = KEY.get_or_init(Hashing::default);
    Masked(key.hash_one(client.as_str()) & 0xff_ffff_ffff)
}

/// A prompt as those see it who may only look: who knows its id can have its graph and its results.
#[must_use]
pub fn mask_prompt(prompt: &str) -> String {
    let key = KEY.get_or_init(Hashing::default);
    format!("p-{:010x}", key.hash_one(("prompt", prompt)) & 0xff_ffff_ffff)
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c-{:010x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_from_others_and_not_by_its_name() {
        let masked = |name: &str| mask(&ClientId::parse(name).unwrap()).to_string();
        assert_eq!(masked("a secret"), masked("a secret"));
        assert_ne!(masked("a secret"), masked("another"));
        assert!(!masked("a secret").contains("secret"));
        assert_eq!(masked("x").len(), 12);
        assert_eq!(mask_prompt("a prompt"), mask_prompt("a prompt"));
        assert_ne!(mask_prompt("a prompt"), mask_prompt("another"));
        assert_eq!(mask_prompt("x").len(), 12);
    }
}
