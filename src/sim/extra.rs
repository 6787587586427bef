//! Routes that a test adds to a backend: those of node packs, and lists of models and nodes that
//! the simulator does not have.

use bytes::Bytes;
use http::Response;

use super::body::SimBody;
use super::http::{bytes, without_api};
use super::{Shared, Sim};

impl Sim {
    /// Answers this path with this JSON from now on, for every method.
    pub fn serve(&self, path: &str, json: &serde_json::Value) {
        let body = json.to_string().into();
        self.shared.server().extra.insert(path.to_owned(), body);
    }
}

/// The answer that a test gave for a path, bare or under `/api`.
pub(super) fn answer(shared: &Shared, path: &str) -> Option<Response<SimBody>> {
    let server = shared.server();
    let known = server.extra.get(path).or_else(|| server.extra.get(without_api(path)));
    let body: Bytes = known?.clone();
    Some(bytes(200, body, "application/json; charset=utf-8"))
}
