//! Uploads of users go to folders of their own: their forms are written anew on the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};

use super::super::error::GatewayError;
use super::overwrite;
use crate::body::RequestBody;
use crate::comfy::multipart::{BadUpload, OwnForm, boundary};
use crate::net::new_id;
use crate::routing::user_folder::UserFolder;

/// Says why a form was refused, once it was sent.
#[derive(Clone, Debug)]
pub(super) struct Refused(Arc<OnceLock<BadUpload>>);

impl Refused {
    /// The error of an upload: what its form was refused for, if it was.
    pub(super) fn or(&self, error: GatewayError) -> GatewayError {
        self.0.get().map_or(error, |bad| GatewayError::BadUpload(*bad))
    }
}

/// The form of a user's upload.
fn form_of(headers: &HeaderMap, folder: &UserFolder) -> Result<OwnForm, GatewayError> {
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err(GatewayError::UnknownCoding);
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let coming = kind.and_then(boundary).ok_or(GatewayError::BadUpload(BadUpload::NoForm))?;
    let going = format!("mooring-{}", new_id().simple());
    Ok(OwnForm::new(folder.clone(), coming, going))
}

/// The headers of the form as it goes on.
fn to_form(headers: &mut HeaderMap, form: &OwnForm) -> Result<(), GatewayError> {
    let kind = form.content_type().ok_or(GatewayError::BadUpload(BadUpload::NoForm))?;
    headers.insert(CONTENT_TYPE, kind);
    headers.remove(CONTENT_LENGTH);
    Ok(())
}

/// The request with its form written anew as it passes, and what may be asked once it was sent:
/// whether it may overwrite a file, and why it was refused.
///
/// # Errors
/// It is no form.
pub(super) fn passing(
    request: Request<RequestBody>,
    folder: &UserFolder,
) -> Result<(Request<RequestBody>, Arc<AtomicBool>, Refused), GatewayError> {
    let (mut parts, body) = request.into_parts();
    let mut form = form_of(&parts.headers, folder)?;
    to_form(&mut parts.headers, &form)?;
    let overwrites = Arc::new(AtomicBool::new(false));
    let refused = Refused(Arc::default());
    let (found, why, mut search) = (Arc::clone(&overwrites), refused.clone(), overwrite());
    let body = body.changed_by(move |data| {
        let passed = match data {
            // What the backend reads counts, not what came.
            Some(data) => form.pass(data).inspect(|going| {
                found.fetch_or(search.finds(going), Ordering::Relaxed);
            }),
            None => form.end().map(|()| Vec::new()),
        };
        passed.map(Bytes::from).map_err(|bad| why.0.get_or_init(|| bad)).ok()
    });
    let body = body.ok_or(GatewayError::BadUpload(BadUpload::NoForm))?;
    Ok((Request::from_parts(parts, body), overwrites, refused))
}

/// A whole body of such a form, written anew.
///
/// # Errors
/// The form is refused.
pub(super) fn whole(
    parts: &mut Parts,
    body: &[u8],
    folder: &UserFolder,
) -> Result<Bytes, GatewayError> {
    let mut form = form_of(&parts.headers, folder)?;
    let written = form.pass(body).and_then(|written| form.end().map(|()| written));
    to_form(&mut parts.headers, &form)?;
    written.map(Bytes::from).map_err(GatewayError::BadUpload)
}
