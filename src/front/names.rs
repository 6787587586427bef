//! Names of files in answers to clients (promise R3).

use bytes::Bytes;

use crate::fleet::backend::Backend;
use crate::routing::ids::BackendId;
use crate::shared::Shared;

/// What a backend told of prompts, as its clients are told: the files are learned of, and those
/// whose plain name is another backend's carry theirs.
#[must_use]
pub fn outgoing(shared: &Shared, backend: &Backend, text: Bytes) -> Bytes {
    shared.records.name_outputs(backend.id, &[], text)
}

/// The same of what several have told, looked up at once.
#[must_use]
pub fn all_outgoing(shared: &Shared, texts: Vec<(BackendId, Bytes)>) -> Vec<Bytes> {
    shared.records.name_all_outputs(texts)
}
