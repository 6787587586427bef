//! Uploads go to the backend of their client's next prompt, and are remembered (promises B3, R2 to
//! R4).
//!
//! A mask is painted over an original that must be on the same backend. If it is not, ComfyUI
//! answers 200 and writes nothing (`server.py`, `upload_mask`). So the original is copied there
//! first.

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
use super::{Answer, bodies, copy_file, view};
use crate::body::budget::BodyShare;
use crate::body::{ClientFault, CollectLimits, Look, RequestBody};
use crate::comfy::multipart::FieldSearch;
use crate::comfy::{files, multipart};
use crate::net::now;
use crate::records::files::Meaning;
use crate::routing::decision::{Decision, Reason};
use crate::routing::files::{Maker, Seen, Strangers};
use crate::routing::ids::Located;
use crate::routing::placement::{TieBreak, place};
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
    request: Request<Incoming>,
) -> Answer {
    let Some(id) = caller.reader(front) else {
        return nameless(front, caller, what, request).await;
    };
    let (client, decided) =
        with_client(&front.sessions, &id, |client| client.upload_began(&front.sessions))?;
    let began = decided?;
    let backend = Arc::clone(&front.shared.fleet.get(began.backend));
    let target = Target { backend, reason: began.reason };
    let mut held = HeldByUpload::new(front, &client, began);
    let browser = caller.browser.map(|browser| Maker::Browser(browser.number()));
    let mut makers: Vec<Maker> = std::iter::once(Maker::Client(id)).chain(browser).collect();
    let known = makers.len();
    makers.push(Maker::Address(caller.address));
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
    let maker = [Maker::Address(caller.address)];
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
    let seen = if overwrites.load(Ordering::Relaxed) { Seen::Written } else { Seen::Added };
    Ok((answer, seen))
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
    let body = bodies::whole(&mut parts, body, limits, Some(share)).await?;
    let overwrites = Arc::new(AtomicBool::new(overwrite().finds(&body)));
    let Some(at) = original_at(&parts, &body) else {
        // ComfyUI reports what is wrong with it.
        return Ok((to_backend(target, parts, RequestBody::whole(body)), overwrites));
    };
    let brought = match original(&front.shared, askers, &body[at.clone()]).await {
        Some(original) => copy_file::bring(front, &original, &target.backend).await?,
        None => return Ok((to_backend(target, parts, RequestBody::whole(body)), overwrites)),
    };
    let text = files::original_ref(&brought);
    let body = [&body[..at.start], text.as_bytes(), &body[at.end..]].concat();
    Ok((to_backend(target, parts, RequestBody::whole(body)), overwrites))
}

/// The position of the original's name in the body.
fn original_at(parts: &Parts, body: &[u8]) -> Option<std::ops::Range<usize>> {
    let kind = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let found = multipart::parts(body, multipart::boundary(kind)?)?;
    found.into_iter().find(|part| part.name == "original_ref").map(|part| part.content)
}

/// The original of a mask, if it is known or found.
async fn original(shared: &Shared, askers: &[Maker], text: &[u8]) -> Option<Located> {
    let name = files::of_original_ref(text)?;
    let (file, backend) = (name.file, name.backend);
    let strangers = Strangers::Latest;
    match shared.records.meaning(file.folder, file.path(), backend.as_deref(), askers, strangers) {
        Meaning::At(at) => Some(at),
        Meaning::Gone(_) => None,
        Meaning::Unknown => {
            let backend = view::search(shared, &file, None).await?;
            Some(Located { backend, file })
        }
    }
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
