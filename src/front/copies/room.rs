//! Decides which copies to delete when there are too many: the oldest copy of the address that has
//! the most. So nobody can displace the copies of others by asking for more. Pure.

use std::collections::HashMap;

use super::entry::{Entry, Fate};
use super::files::Files;
use super::name::{Name, Owner};

/// The copies to delete, so that the rest has at most this many bytes and files.
pub(super) fn surplus(files: &Files, bytes: u64, count: usize) -> Vec<Name> {
    let mut all = files.share();
    let mut surplus = Vec::new();
    if all.0 <= bytes && all.1 <= count {
        return surplus;
    }
    let mut owners: HashMap<Owner, Share> = HashMap::new();
    for (name, it) in files.iter().filter(|(_, it)| it.fate.counts()) {
        owners.entry(it.owner).or_default().add(name, it);
    }
    owners.values_mut().for_each(|it| it.files.sort_unstable_by(|a, b| b.cmp(a)));
    while bytes < all.0 || count < all.1 {
        let is_too_large = bytes < all.0;
        let size = |it: &Share| if is_too_large { it.bytes } else { it.files.len() as u64 };
        let most = owners.iter_mut().filter(|(_, it)| !it.files.is_empty());
        let most = most.max_by_key(|(owner, it)| (size(it), **owner));
        let Some((_, name, freed)) = most.and_then(|(_, most)| most.give()) else { break };
        all = (all.0 - freed, all.1 - 1);
        surplus.push(name);
    }
    surplus
}

/// The copies of one address that may be deleted. The oldest one is last.
#[derive(Default)]
struct Share {
    bytes: u64,
    files: Vec<(u64, Name, u64)>,
}

impl Share {
    fn add(&mut self, name: Name, it: &Entry) {
        self.bytes += it.bytes;
        if it.fate == Fate::Good {
            self.files.push((it.at, name, it.bytes));
        }
    }

    fn give(&mut self) -> Option<(u64, Name, u64)> {
        let oldest = self.files.pop()?;
        self.bytes -= oldest.2;
        Some(oldest)
    }
}
