//! Tokens that were found good, by their hashes: to check a signature costs far more than to look
//! here. A table that is full forgets those that were not used lately.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Token;

/// How many are kept.
const KEPT_MAX: usize = 16_384;

/// Stands for a token, so that the table does not hold what lets somebody in.
pub type TokenHash = [u8; 32];

#[must_use]
pub fn hash(text: &[u8]) -> TokenHash {
    Sha256::digest(text).into()
}

/// Those that were used lately, and those before.
#[derive(Debug, Default)]
pub struct Verified {
    young: HashMap<TokenHash, Arc<Token>>,
    old: HashMap<TokenHash, Arc<Token>>,
}

impl Verified {
    #[must_use]
    pub fn get(&mut self, hash: &TokenHash) -> Option<Arc<Token>> {
        if let Some(token) = self.young.get(hash) {
            return Some(Arc::clone(token));
        }
        let token = self.old.remove(hash)?;
        self.keep(*hash, Arc::clone(&token));
        Some(token)
    }

    pub fn keep(&mut self, hash: TokenHash, token: Arc<Token>) {
        if KEPT_MAX / 2 <= self.young.len() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, token);
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
