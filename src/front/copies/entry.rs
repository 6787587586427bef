//! The state of one file with a copy. Pure.

use super::file::Code;
use super::name::Owner;

/// A file of a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    pub(super) bytes: u64,
    /// When the home gave or confirmed it, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) code: Option<Code>,
    pub(super) fate: Fate,
}

/// What happens to the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is being written for the first time.
    Coming,
    Good,
    /// It must be deleted to make room.
    Surplus,
    /// It has ended and must not be used.
    Ended,
    /// It has ended, and it could not be deleted.
    Stuck,
}

impl Fate {
    pub(super) fn ended(self) -> Self {
        match self {
            Self::Coming | Self::Good | Self::Surplus | Self::Ended => Self::Ended,
            Self::Stuck => Self::Stuck,
        }
    }

    /// True if it is on the disk and must not be used, not even after a crash.
    pub(super) fn is_in_doubt(self) -> bool {
        match self {
            Self::Coming | Self::Good | Self::Surplus => false,
            Self::Ended | Self::Stuck => true,
        }
    }

    /// True if it must be deleted.
    pub(super) fn goes(self) -> bool {
        match self {
            Self::Surplus | Self::Ended => true,
            Self::Coming | Self::Good | Self::Stuck => false,
        }
    }

    /// True if it counts as used space.
    pub(super) fn counts(self) -> bool {
        match self {
            Self::Coming | Self::Good => true,
            Self::Surplus | Self::Ended | Self::Stuck => false,
        }
    }
}
