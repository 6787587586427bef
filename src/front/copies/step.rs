//! What is to be done on the disk, and what comes of it: between who decides and who does.

use super::file::Code;
use super::name::{Name, Owner};
use crate::front::conditional::Whole;

/// A file that there is, as somebody finds it who looks into the folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) name: Name,
    pub(super) owner: Owner,
    pub(super) bytes: u64,
    pub(super) at: u64,
}

/// What is to be done on the disk.
#[derive(Debug)]
pub(super) enum Step {
    /// Look into the folder; make it if need be.
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

/// What there is in place of what is put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Before {
    Nothing,
    /// Its code, if that is known.
    Some(Option<Code>),
}

/// A file that was written, or was there with the same content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) code: Code,
}

/// May a write be sent?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Marked {
    Yes,
    NotYet,
    /// The disk does not take it.
    No,
}
