//! Uploads go to the backend of their client's next prompt, and are remembered (promises B3, R2 to
//! R4).
//!
//! A mask is painted over an original that must be on the same backend. If it is not, ComfyUI
//! answers 200 and writes nothing (`server.py`, `upload_mask`). So the original is copied there
//! first.

mod own_form;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::collected::{Collected, collected};
use super::error::GatewayError;
use super::forward::{Target, outgoing, to_backend};
use super::limits;
use super::{Answer, bodies, copy_file, view};
use crate::body::budget::BodyShare;
use crate::body::{ClientFault, CollectLimits, Look, RequestBody};
use crate::comfy::multipart::{BadUpload, FieldSearch};
use crate::comfy::{files, multipart};
use crate::net::now;
use crate::records::files::Meaning;
use crate::routing::decision::{Decision, Reason};
use crate::routing::files::{Maker, Seen, Strangers, user_of};
use crate::routing::ids::{FileRef, Located};
use crate::routing::placement::{TieBreak, place};
use crate::routing::user_folder::UserFolder;
use crate::session::Client;
use crate::session::registry::with_client;
use crate::shared::Shared;

/// The largest answer to an upload.
const ANSWER_MAX: u64 = 1 << 20;

/// What is uploaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    Image,
    /// A mask, with the name of the picture that it is painted over.
    Mask,
}

/// Handles an upload.
///
/// # Errors
/// It cannot be placed, its original cannot be copied, or the error of [`super::forward::forward`].
pub async fn upload(
    front: &Arc<Front>,
    caller: &Caller,
    what: What,
    mut request: Request<Incoming>,
) -> Answer {
    front.limits.upload(front, caller, &mut request)?;
    let Some(id) = caller.reader(front) else {
        return nameless(front, caller, what, request).await;
    };
    limits::meet(front, caller, &id)?;
    let (client, decided) =
        with_client(&front.sessions, &id, |client| client.upload_began(&front.sessions))?;
    let began = decided?;
    let backend = Arc::clone(&front.shared.fleet.get(began.backend));
    let target = Target { backend, reason: began.reason };
    let mut held = HeldByUpload::new(front, &client, began);
    let browser = caller.browser.map(|browser| Maker::Browser(browser.number()));
    let mut makers: Vec<Maker> = std::iter::once(Maker::Client(id)).chain(browser).collect();
    let known = makers.len();
    makers.push(caller.nameless_maker());
    let (answer, seen) = send(front, &target, what, &makers, request).await?;
    held.arrived(answer.parts.status.is_success());
    drop(held);
    // If the request does not name its sender, the owner is a guess, so the address is an owner as
    // well.
    let known = if caller.asker(front).is_some() { &makers[..known] } else { &makers[..] };
    named(&front.shared, &target, known, (answer, seen)).await
}

/// An upload without a name waits, under its address, for the prompt that will use it.
async fn nameless(
    front: &Arc<Front>,
    caller: &Caller,
    what: What,
    request: Request<Incoming>,
) -> Answer {
    let now = now();
    let last = front.browsers.upload_at(&caller.spot(), now);
    let waits = last.filter(|backend| front.shared.fleet.get(*backend).is_up());
    let (backend, reason) = match waits {
        Some(backend) => (backend, Reason::Reserved),
        None => {
            let tie = TieBreak { last, turn: front.shared.fleet.turn() };
            let placed = place(&front.shared.fleet.views(now), tie);
            (placed.map_err(|none| GatewayError::Refused(none.into()))?, Reason::Placed)
        }
    };
    let target = Target { backend: Arc::clone(&front.shared.fleet.get(backend)), reason };
    let maker = [caller.nameless_maker()];
    let (answer, seen) = send(front, &target, what, &maker, request).await?;
    if answer.parts.status.is_success() {
        let until = now + front.shared.config().affinity.reservation;
        front.browsers.uploaded(&caller.spot(), backend, until);
    }
    named(&front.shared, &target, &maker, (answer, seen)).await
}

/// The answer, with the name for clients.
async fn named(
    shared: &Shared,
    target: &Target,
    makers: &[Maker],
    (answer, seen): (Collected, Seen),
) -> Answer {
    let mut body = answer.body.clone();
    if answer.parts.status == StatusCode::OK {
        body = shared.records.name_upload(target.backend.id, makers, body, seen);
    }
    // The answer confirms the reservation and the name. A failing disk is reported elsewhere.
    let _ = shared.records.journal.durable().await;
    Ok(answer.answer(body))
}

/// The answer, and whether an older file may have been overwritten.
async fn send(
    front: &Arc<Front>,
    target: &Target,
    what: What,
    askers: &[Maker],
    request: Request<Incoming>,
) -> Result<(Collected, Seen), GatewayError> {
    let (request, overwrites, fault) = match what {
        What::Image => {
            let (request, fault) = outgoing(&front.shared, target, request);
            if let Some(user) = user_of(askers) {
                let (request, overwrites, refused) =
                    own_form::passing(request, &UserFolder::of(user))?;
                let answer = collected(&front.shared, target, request, &fault, ANSWER_MAX).await;
                let answer = answer.map_err(|error| refused.or(error))?;
                return Ok((answer, seen_of(&overwrites)));
            }
            let (request, overwrites) = looked_at(request);
            (request, overwrites, fault)
        }
        What::Mask => {
            let mut share = front.bodies.share();
            let (request, overwrites) = mask(front, target, askers, request, &mut share).await?;
            (request, overwrites, ClientFault::default())
        }
    };
    let answer = collected(&front.shared, target, request, &fault, ANSWER_MAX).await?;
    Ok((answer, seen_of(&overwrites)))
}

fn seen_of(overwrites: &AtomicBool) -> Seen {
    if overwrites.load(Ordering::Relaxed) { Seen::Written } else { Seen::Added }
}

/// Finds the field of an upload that allows to overwrite, with the values that ComfyUI accepts as
/// yes (`server.py`, `image_upload`). The form is not compressed.
fn overwrite() -> FieldSearch {
    FieldSearch::new("overwrite", &["true", "1"])
}

/// The same request. The returned flag says, once it was sent, whether it may overwrite a file.
fn looked_at(request: Request<RequestBody>) -> (Request<RequestBody>, Arc<AtomicBool>) {
    let overwrites = Arc::new(AtomicBool::new(false));
    let (found, mut search) = (Arc::clone(&overwrites), overwrite());
    let look = Look::new(move |data| {
        let is_found = search.finds(data);
        found.fetch_or(is_found, Ordering::Relaxed);
        !is_found
    });
    (request.map(|body| body.looked_at(look)), overwrites)
}

/// A mask with its original on the same backend.
async fn mask(
    front: &Arc<Front>,
    target: &Target,
    askers: &[Maker],
    request: Request<Incoming>,
    share: &mut BodyShare,
) -> Result<(Request<RequestBody>, Arc<AtomicBool>), GatewayError> {
    let (mut parts, body) = request.into_parts();
    let limits = CollectLimits {
        max: front.shared.config().prompts.max_body,
        idle: front.shared.config().server.body_timeout,
    };
    let mut body = bodies::whole(&mut parts, body, limits, Some(share)).await?;
    if let Some(user) = user_of(askers) {
        body = own_form::whole(&mut parts, &body, &UserFolder::of(user))?;
    }
    let overwrites = Arc::new(AtomicBool::new(overwrite().finds(&body)));
    let Some(at) = original_at(&parts, &body) else {
        // ComfyUI reports what is wrong with it.
        return Ok((to_backend(target, parts, RequestBody::whole(body)), overwrites));
    };
    let text = match original(&front.shared, askers, &body[at.clone()]).await? {
        Original::At(original) => {
            let brought =
                copy_file::bring(front, (&original, user_of(askers)), &target.backend).await?;
            files::original_ref(&brought)
        }
        Original::Named(file) => files::original_ref(&file),
        Original::AsItIs => {
            return Ok((to_backend(target, parts, RequestBody::whole(body)), overwrites));
        }
    };
    let body = [&body[..at.start], text.as_bytes(), &body[at.end..]].concat();
    Ok((to_backend(target, parts, RequestBody::whole(body)), overwrites))
}

/// The position of the original's name in the body.
fn original_at(parts: &Parts, body: &[u8]) -> Option<std::ops::Range<usize>> {
    let kind = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let found = multipart::parts(body, multipart::boundary(kind)?)?;
    found.into_iter().find(|part| part.name == "original_ref").map(|part| part.content)
}

/// What a mask is painted over.
enum Original {
    At(Located),
    /// A name that means nothing here, as a user may say it.
    Named(FileRef),
    /// What it says goes on unchanged.
    AsItIs,
}

/// The original of a mask, if it is known or found.
async fn original(
    shared: &Shared,
    askers: &[Maker],
    text: &[u8],
) -> Result<Original, GatewayError> {
    let user = user_of(askers).map(UserFolder::of);
    let Some(name) = files::of_original_ref(text) else {
        return match user {
            // A server may read in it what we do not.
            Some(_) => Err(GatewayError::BadUpload(BadUpload::BadOriginal)),
            None => Ok(Original::AsItIs),
        };
    };
    let (file, backend) = (name.file, name.backend);
    // Only what is known of it says that it is no other user's.
    let nowhere = || match &user {
        Some(user) => FileRef::of_path(file.folder, &user.nowhere(file.path()))
            .map(Original::Named)
            .ok_or(GatewayError::BadUpload(BadUpload::BadOriginal)),
        None => Ok(Original::AsItIs),
    };
    let strangers = Strangers::Latest;
    let path = file.path();
    match shared.records.meaning(file.folder, path, backend.as_deref(), askers, strangers) {
        Meaning::At(at) => Ok(Original::At(at)),
        Meaning::Perhaps(at) => Ok(Original::At(view::own_or(shared, user.as_ref(), at).await)),
        Meaning::Gone(_) | Meaning::Others => nowhere(),
        Meaning::Unknown => match searched(shared, user.as_ref(), &file).await {
            Some(found) => Ok(Original::At(found)),
            None => nowhere(),
        },
    }
}

/// Looks for an unknown file: for a user first in his own folder.
async fn searched(shared: &Shared, user: Option<&UserFolder>, file: &FileRef) -> Option<Located> {
    let own = user.and_then(|user| user.own_file(file));
    for file in own.into_iter().chain([file.clone()]) {
        if let Some(backend) = view::search(shared, &file, None).await {
            return Some(Located { backend, file });
        }
    }
    None
}

/// Releases the binding when the upload ends in any way, also when its client hangs up.
pub(super) struct HeldByUpload<'a> {
    front: &'a Front,
    client: &'a Arc<Client>,
    began: Decision,
    pub(super) has_arrived: bool,
}

impl<'a> HeldByUpload<'a> {
    pub(super) fn new(front: &'a Front, client: &'a Arc<Client>, began: Decision) -> Self {
        Self { front, client, began, has_arrived: false }
    }

    /// The upload has its answer.
    pub(super) fn arrived(&mut self, has_arrived: bool) {
        self.has_arrived = has_arrived;
    }
}

impl Drop for HeldByUpload<'_> {
    fn drop(&mut self) {
        self.client.upload_ended(&self.front.sessions, self.began, self.has_arrived);
    }
}
