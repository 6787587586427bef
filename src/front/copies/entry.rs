//! What is known of one file of a copy, and what becomes of it. Pure.

use super::file::Code;
use super::name::Owner;

/// A file, as it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    pub(super) bytes: u64,
    /// When the home gave or confirmed it, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) code: Option<Code>,
    pub(super) fate: Fate,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is being written for the first time.
    Coming,
    Good,
    /// It has to make room.
    Surplus,
    /// It is not good any more.
    Ended,
    /// The same, and it could not be deleted.
    Stuck,
}

impl Fate {
    pub(super) fn ended(self) -> Self {
        match self {
            Self::Coming | Self::Good | Self::Surplus | Self::Ended => Self::Ended,
            Self::Stuck => Self::Stuck,
        }
    }

    /// It stands on the disk and must not be given, also after a crash.
    pub(super) fn is_in_doubt(self) -> bool {
        match self {
            Self::Coming | Self::Good | Self::Surplus => false,
            Self::Ended | Self::Stuck => true,
        }
    }

    /// It is to be deleted.
    pub(super) fn goes(self) -> bool {
        match self {
            Self::Surplus | Self::Ended => true,
            Self::Coming | Self::Good | Self::Stuck => false,
        }
    }

    /// It has a share of the room.
    pub(super) fn counts(self) -> bool {
        match self {
            Self::Coming | Self::Good => true,
            Self::Surplus | Self::Ended | Self::Stuck => false,
        }
    }
}
