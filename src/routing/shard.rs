//! Divides a ledger into shards. Entries that are compared with each other have one [`Key`] and are
//! in one shard. Each shard has a part of the ledger's capacity, so the whole stays within it.
//!
//! A shard evicts its own oldest entries. Keys are spread evenly, so these are among the oldest of
//! all.

/// The number of shards of a ledger. It is small, because a submission locks every shard to look
/// all its strings up, and once more if its files are elsewhere.
const SHARDS: usize = 3;

/// A ledger with a smaller capacity has one shard: with few entries, the spread is too uneven.
const DIVIDED_FROM: usize = 4_096;

/// How many bytes of a name are hashed: its end, because numbers are there.
const LOOKED_AT: usize = 32;

/// Selects a shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Key(u32);

impl Key {
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let end = &name[name.len().saturating_sub(LOOKED_AT)..];
        // FNV-1a with its halves folded: the lower bits alone depend only on the last letter.
        let hash = end.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let [.., a, b, c, d] = (hash ^ (hash >> 32)).to_be_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    /// The index of the shard, out of `shards`.
    #[must_use]
    pub fn shard(self, shards: usize) -> usize {
        self.0 as usize % shards.max(1)
    }
}

/// The capacities of a ledger's shards; their sum is the ledger's.
#[must_use]
pub fn bounds(capacity: usize) -> Vec<usize> {
    let shards = if capacity < DIVIDED_FROM { 1 } else { SHARDS };
    let more = capacity % shards;
    (0..shards).map(|shard| capacity / shards + usize::from(shard < more)).collect()
}

#[cfg(test)]
mod tests;
