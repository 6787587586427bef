//! Takes the folder of a user's uploads off what he is told ([`UserFolder`]).

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};

use crate::body::ResponseBody;
use crate::routing::ids::ClientId;
use crate::routing::realm::Realm;
use crate::routing::user_folder::UserFolder;

/// An answer to one of a client's submissions, without the folder of its user.
pub(super) fn told_to(client: &ClientId, body: Bytes) -> Bytes {
    let user = client.user().map(UserFolder::of);
    user.and_then(|user| user.taken_off(&body)).map_or(body, Bytes::from)
}

/// Takes it off an answer that was read here: names of files, graphs, errors of nodes. What is only
/// passed on has no names that were learned of here.
pub(super) fn take_off(realm: &Realm, response: &mut Response<ResponseBody>) {
    let Some(user) = realm.user() else { return };
    let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(b"application/json") && !kind.starts_with(b"text/") {
        return;
    }
    let ResponseBody::Whole(Some(body)) = response.body() else { return };
    let Some(told) = UserFolder::of(user).taken_off(body) else { return };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(told.len()));
    *response.body_mut() = ResponseBody::whole(told);
}
