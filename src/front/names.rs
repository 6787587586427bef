//! Names of files in answers to clients (promise R3).

use bytes::Bytes;

use crate::fleet::backend::Backend;
use crate::shared::Shared;

/// What a backend told of prompts, as its clients are told: the files are learned of, and those
/// whose plain name is another backend's carry theirs.
#[must_use]
pub fn outgoing(shared: &Shared, backend: &Backend, text: Bytes) -> Bytes {
    shared.records.name_outputs(backend.id, &[], text)
}
