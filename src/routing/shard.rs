//! How a ledger is divided into shards. What is compared with each other has one [`Key`] and lies
//! in one shard; each shard has a part of the ledger's bound, so that the whole keeps it.
//!
//! A shard forgets the oldest that it has. Keys fall evenly, so that is among the oldest of all.

/// How many shards a ledger has. They are few: a submission takes the lock of each to look all its
/// strings up, and once more if its files lie elsewhere.
const SHARDS: usize = 3;

/// A smaller ledger is one shard: of a few, too many would fall together.
const DIVIDED_FROM: usize = 4_096;

/// How many bytes of a name are looked at: its end, because names are counted there.
const LOOKED_AT: usize = 32;

/// What chooses a shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Key(u32);

impl Key {
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let end = &name[name.len().saturating_sub(LOOKED_AT)..];
        // FNV-1a, and its halves folded: the lower bits alone are those of the last letter.
        let hash = end.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let [.., a, b, c, d] = (hash ^ (hash >> 32)).to_be_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    /// Which of so many shards.
    #[must_use]
    pub fn shard(self, shards: usize) -> usize {
        self.0 as usize % shards.max(1)
    }
}

/// The bounds of the shards of a ledger; together they are its own.
#[must_use]
pub fn bounds(capacity: usize) -> Vec<usize> {
    let shards = if capacity < DIVIDED_FROM { 1 } else { SHARDS };
    let more = capacity % shards;
    (0..shards).map(|shard| capacity / shards + usize::from(shard < more)).collect()
}

#[cfg(test)]
mod tests;
