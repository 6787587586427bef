//! The steps on the disk and their results: the interface between deciding and doing.

use super::file::Code;
use super::name::{Name, Owner};
use crate::front::conditional::Whole;

/// A file that was found in the folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) name: Name,
    pub(super) owner: Owner,
    pub(super) bytes: u64,
    pub(super) at: u64,
}

/// A step on the disk.
#[derive(Debug)]
pub(super) enum Step {
    /// Open the folder. Create it if it is needed.
    Open {
        is_needed: bool,
    },
    Remove(Vec<(Name, Owner)>),
    Put {
        name: Name,
        owner: Owner,
        at: u64,
        whole: Whole,
        before: Before,
    },
    Confirm {
        name: Name,
        owner: Owner,
        at: u64,
    },
}

/// What exists in the place of a new copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Before {
    Nothing,
    /// The code of the existing copy, if it is known.
    Some(Option<Code>),
}

/// A file that was written, or that already had this content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) code: Code,
}

/// Whether a write may be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Marked {
    Yes,
    NotYet,
    /// No, because the disk fails.
    No,
}
