//! Names of files in answers to clients (promise R3).

use bytes::Bytes;

use crate::fleet::backend::Backend;
use crate::routing::ids::BackendId;
use crate::shared::Shared;

/// A backend's text about prompts, in the form for clients. Its files are stored in the ledger. If
/// a plain name belongs to another backend, the name gets that of this backend.
#[must_use]
pub fn outgoing(shared: &Shared, backend: &Backend, text: Bytes) -> Bytes {
    shared.records.name_outputs(backend.id, &[], text)
}

/// The same for the texts of several backends, looked up at once.
#[must_use]
pub fn all_outgoing(shared: &Shared, texts: Vec<(BackendId, Bytes)>) -> Vec<Bytes> {
    shared.records.name_all_outputs(texts)
}
