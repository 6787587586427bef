//! Tokens that were found good, by their hashes: to check a signature costs far more than to look
//! here. A table that is full forgets those that were not used lately.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Token;

/// How many are kept.
const KEPT_MAX: usize = 16_384;

/// How many forged ones are kept: those of a second of an attack.
const FORGED_MAX: usize = 1_024;

/// Stands for a token, so that the table does not hold what lets somebody in.
pub type TokenHash = [u8; 32];

#[must_use]
pub fn hash(text: &[u8]) -> TokenHash {
    Sha256::digest(text).into()
}

/// Tokens that are not kept any more.
#[derive(Debug, Default)]
pub struct Forgotten(HashMap<TokenHash, Arc<Token>>);

/// Tokens whose signature was wrong, by their hashes. Each is asked for on both ways of answering,
/// and pages send theirs again and again. It is for one set of rules and keys.
#[derive(Debug, Default)]
pub struct Forged {
    young: HashSet<TokenHash>,
    old: HashSet<TokenHash>,
}

impl Forged {
    #[must_use]
    pub fn has(&self, hash: &TokenHash) -> bool {
        self.young.contains(hash) || self.old.contains(hash)
    }

    pub fn note(&mut self, hash: TokenHash) {
        if FORGED_MAX / 2 <= self.young.len() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash);
    }
}

/// Those that were used lately, and those before.
#[derive(Debug, Default)]
pub struct Verified {
    young: HashMap<TokenHash, Arc<Token>>,
    old: HashMap<TokenHash, Arc<Token>>,
}

impl Verified {
    #[must_use]
    pub fn get(&mut self, hash: &TokenHash) -> (Option<Arc<Token>>, Forgotten) {
        if let Some(token) = self.young.get(hash) {
            return (Some(Arc::clone(token)), Forgotten::default());
        }
        let Some(token) = self.old.remove(hash) else { return (None, Forgotten::default()) };
        let forgotten = self.keep(*hash, Arc::clone(&token));
        (Some(token), forgotten)
    }

    /// What it returns was forgotten: to free that takes long, and nobody must wait for it.
    #[must_use]
    pub fn keep(&mut self, hash: TokenHash, token: Arc<Token>) -> Forgotten {
        let mut forgotten = Forgotten::default();
        if KEPT_MAX / 2 <= self.young.len() {
            forgotten.0 = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        }
        self.young.insert(hash, token);
        forgotten
    }

    pub fn forget(&mut self, hash: &TokenHash) {
        self.young.remove(hash);
        self.old.remove(hash);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}
