//! What the queue calls things: small numbers that the caller gives out and never reuses while
//! something of that number is here.

use std::cmp::Ordering;

/// One prompt.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PromptKey(pub u64);

/// One client: a tab or a script. Its prompts begin in its own order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientKey(pub u32);

/// Whose share a prompt is counted against: a user, or without users an address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SharerKey(pub u32);

/// Who has turns within a share: a browser of an address. Anybody can have many of them, so they
/// have no shares of their own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MemberKey(pub u32);

/// The file of a model. The numbers are given out from 0 on; from [`ModelKey::MAX`] on nothing is
/// remembered about a model, and a prompt is placed as if it did not need it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ModelKey(pub u32);

impl ModelKey {
    pub const MAX: u32 = 65_536;

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A shape that the queue has interned (`Queue::shape`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShapeId(pub(super) u16);

impl ShapeId {
    /// The one that those share for whom there is no room.
    pub const SHARED: Self = Self(0);
}

/// How urgent a prompt is said to be. Waiting raises it (`Settings::ageing`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// An operator has moved it before all others.
    Front,
    High,
    Normal,
    Low,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::Front, Self::High, Self::Normal, Self::Low];

    pub(super) fn rank(self) -> u8 {
        match self {
            Self::Front => 0,
            Self::High => 1,
            Self::Normal => 2,
            Self::Low => 3,
        }
    }

    /// The rank after it was raised so often. Waiting makes nobody the first of all.
    pub(super) fn raised(self, times: u8) -> u8 {
        match self {
            Self::Front => self.rank(),
            Self::High | Self::Normal | Self::Low => self.rank().saturating_sub(times).max(1),
        }
    }
}

/// A finite or infinite number with an order: that of `f64::total_cmp`. ComfyUI's `number` is one,
/// and so is fair time.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub f64);

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}
