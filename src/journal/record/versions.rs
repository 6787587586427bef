//! The versions of records, and how records are written and read.

use serde::{Deserialize, Serialize};

use super::{
    AddedRecord, AssetRecord, BindingRecord, BodyRecord, FileRecord, FoundRecord, HomeRecord,
    MemberRecord, NameRecord, PartRecord, PromptRecord, StateRecord,
};

/// The version of records that this Mooring writes, except those of prompts that wait.
pub const VERSION: u32 = 1;

/// The version of records of prompts that wait. An older Mooring does not know them, and must not
/// start: it would lose prompts.
pub(super) const WAITS: u32 = 2;

/// The version of records of prompts whose backend has accepted them, and whose bodies are kept
/// until they begin. A Mooring that does not know that would take them for prompts that may never
/// have arrived, and send them again.
pub(super) const TAKEN: u32 = 3;

/// The version of records of bodies that are in parts. A Mooring that knows only whole ones would
/// take such a body for an empty one.
pub(super) const IN_PARTS: u32 = 3;

/// The version of records of bodies that are sealed. A Mooring that does not know that would send
/// what is not a graph.
pub(super) const SEALED: u32 = 4;

/// A kind of record.
pub trait Versioned {
    /// The newest version of this kind that is read.
    const NEWEST: u32 = VERSION;
}

impl Versioned for PromptRecord {
    const NEWEST: u32 = TAKEN;
}

impl Versioned for BodyRecord {
    const NEWEST: u32 = SEALED;
}

impl Versioned for BindingRecord {}
impl Versioned for FileRecord {}
impl Versioned for AssetRecord {}
impl Versioned for PartRecord {}
impl Versioned for StateRecord {}
impl Versioned for AddedRecord {}
impl Versioned for FoundRecord {}
impl Versioned for MemberRecord {}
impl Versioned for NameRecord {}
impl Versioned for HomeRecord {}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    #[error("is not readable: {0}")]
    Malformed(#[source] serde_json::Error),
    #[error("has format {found}")]
    Newer { found: u32, known: u32 },
}

/// Encodes a record.
#[must_use]
pub fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records are plain data")
}

/// Decodes a record.
///
/// # Errors
/// It is not valid, or is of a newer Mooring.
pub fn decode<'a, T: Deserialize<'a> + Versioned>(bytes: &'a [u8]) -> Result<T, BadRecord> {
    #[derive(Deserialize)]
    struct Marked {
        v: u32,
    }
    let Marked { v } = serde_json::from_slice(bytes).map_err(BadRecord::Malformed)?;
    if T::NEWEST < v {
        return Err(BadRecord::Newer { found: v, known: T::NEWEST });
    }
    serde_json::from_slice(bytes).map_err(BadRecord::Malformed)
}
