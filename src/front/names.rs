//! Names of files in answers to clients (promise R3).

use bytes::Bytes;

use crate::fleet::backend::Backend;
use crate::routing::files::Maker;
use crate::routing::ids::BackendId;
use crate::routing::realm::Realm;
use crate::shared::Shared;

/// A backend's text about prompts of the asker's, in the form for clients. Its files are stored in
/// the ledger; those of a user are his from then on, also if no event has told of them. If a plain
/// name belongs to another backend, the name gets that of this backend.
#[must_use]
pub fn outgoing(shared: &Shared, asker: &Realm, backend: &Backend, text: Bytes) -> Bytes {
    shared.records.name_outputs(backend.id, makers(asker).as_slice(), text)
}

/// The same for the texts of several backends, looked up at once.
#[must_use]
pub fn all_outgoing(shared: &Shared, asker: &Realm, texts: Vec<(BackendId, Bytes)>) -> Vec<Bytes> {
    shared.records.name_all_outputs(makers(asker).as_slice(), texts)
}

/// A user is only told of prompts of his own.
fn makers(asker: &Realm) -> Option<Maker> {
    asker.user().map(|user| Maker::User(user.into()))
}
