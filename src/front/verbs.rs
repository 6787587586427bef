//! Verbs touch one's own prompts only (promise R6).
//!
//! ComfyUI's bare verbs hit everybody on a backend. Here they become the asker's own prompt ids,
//! each on the backend that has it. A known asker's verb on another's id does nothing and is
//! answered 200, as ComfyUI answers for unknown ids; a nameless asker may act on an id that he
//! names, and gets 403 for a bare verb.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use tracing::debug;

use super::forward::{send, to_backend};
use super::history::{ask_all, asking_failed};
use super::identify::Who;
use super::route::of_client;
use super::{Answer, done, interrupts, jobs, json};
use crate::body::{CollectLimits, RequestBody, collect};
use crate::client::Wanted;
use crate::comfy::answers::queued_ids;
use crate::comfy::jobs::cancel;
use crate::comfy::verbs;
use crate::error::GatewayError;
use crate::fleet::backend::Backend;
use crate::gateway::Gateway;
use crate::net::now;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::ledger::{Listed, State};
use crate::routing::pending::End;

/// Of how many ids that nobody knows one request makes us ask all backends.
const UNKNOWN_MAX: usize = 16;

/// The largest body of a verb.
const BODY_MAX: u64 = 1 << 20;

/// `POST /interrupt`.
///
/// # Errors
/// The body is unreadable, the asker nameless, or a backend did not answer.
pub async fn interrupt(gateway: &Arc<Gateway>, who: &Who, request: Request<Incoming>) -> Answer {
    let body = small_body(gateway, request).await?;
    let prompts = match verbs::InterruptBody::read(&body)?.prompt_id {
        Some(prompt) => named(gateway, who, [prompt]).await,
        None => own_pending(gateway, who)?,
    };
    on_each(gateway, prompts, |backend, prompts| interrupts::interrupt(gateway, backend, prompts))
        .await?;
    Ok(done())
}

/// `POST /queue`: deletes and clears.
///
/// # Errors
/// The body is unreadable, the asker nameless, or a backend did not answer.
pub async fn edit_queue(gateway: &Arc<Gateway>, who: &Who, request: Request<Incoming>) -> Answer {
    let body = small_body(gateway, request).await?;
    let edit = verbs::QueueEdit::read(&body)?;
    let mut prompts = named(gateway, who, edit.delete).await;
    if edit.clear {
        prompts.extend(own_pending(gateway, who)?);
    }
    delete(gateway, prompts).await?;
    Ok(done())
}

/// `POST /history`: deletes and clears.
///
/// # Errors
/// The body is unreadable, the asker nameless, or a backend that is up did not answer.
pub async fn edit_history(gateway: &Arc<Gateway>, who: &Who, request: Request<Incoming>) -> Answer {
    let body = small_body(gateway, request).await?;
    let edit = verbs::QueueEdit::read(&body)?;
    let mut prompts = named(gateway, who, edit.delete).await;
    if edit.clear {
        let askers = known_askers(gateway, who)?;
        prompts.extend(forget_all(gateway, &askers));
    }
    for (prompt, _) in &prompts {
        gateway.ledger().unlist(prompt);
        gateway.entries.forget(prompt);
    }
    on_each(gateway, prompts, |backend, prompts| async move {
        if !backend.is_up() {
            // Nobody lists them any more, and ComfyUI keeps no history over a restart.
            return Ok(());
        }
        let ids: Vec<&str> = prompts.iter().map(PromptId::as_str).collect();
        let limit = gateway.config.fleet.probe_timeout;
        let answer = backend.post("/history", verbs::delete(&ids), limit).await;
        answer.map(drop).map_err(|error| asking_failed(backend, &error))
    })
    .await?;
    Ok(done())
}

/// Empties the histories of these clients. What is lost is on no backend, and those are not told.
fn forget_all(gateway: &Gateway, askers: &[ClientId]) -> Located {
    let mut on_backends = Located::new();
    let mut ledger = gateway.ledger();
    for Listed { prompt, backend, end, .. } in ledger.history_of(askers, usize::MAX, now()) {
        ledger.unlist(&prompt);
        match (end, backend) {
            (End::Lost(_), _) | (_, None) => {}
            (_, Some(backend)) => on_backends.push((prompt, backend)),
        }
    }
    on_backends
}

/// `POST /api/jobs/{prompt}/cancel`, also for servers that do not have it yet.
///
/// # Errors
/// A backend did not answer.
pub async fn cancel_job(gateway: &Arc<Gateway>, who: &Who, prompt: &str) -> Answer {
    let prompts = named(gateway, who, [prompt.to_owned()]).await;
    let cancelled = cancel(gateway, prompts).await?;
    Ok(json(verbs::cancelled(cancelled)))
}

/// `POST /api/jobs/cancel`, also for servers that do not have it yet.
///
/// # Errors
/// The body cannot be read, or a backend did not answer.
pub async fn cancel_jobs(gateway: &Arc<Gateway>, who: &Who, request: Request<Incoming>) -> Answer {
    let body = small_body(gateway, request).await?;
    let is_known =
        |id: &str| PromptId::parse(id).is_ok_and(|id| gateway.ledger().get(&id, now()).is_some());
    let ids = match cancel::read(&body, is_known) {
        Ok(ids) => ids,
        Err(bad) => return Ok(jobs::with_status(StatusCode::BAD_REQUEST, bad.body())),
    };
    let prompts = named(gateway, who, ids).await;
    let cancelled = cancel(gateway, prompts).await?;
    Ok(json(verbs::cancelled(cancelled)))
}

/// `PATCH /internal/logs/subscribe`: remembered, because it ends with each link.
///
/// # Errors
/// The body is unreadable, the client has no backend, or the backend did not answer.
pub async fn subscribe_logs(
    gateway: &Arc<Gateway>,
    who: &Who,
    request: Request<Incoming>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let body = collect_small(gateway, body).await?;
    let wanted = verbs::LogSubscription::read(&body)?;
    let id = ClientId::parse(&wanted.client_id)?;
    who.is(gateway, &id);
    let target = of_client(gateway, &id)?;
    if let Some(client) = gateway.clients.get(&id) {
        client.wants_logs(if wanted.enabled { Wanted::Yes } else { Wanted::No });
        // The backend drops a subscription of a socket that it does not know yet.
        if let Some(link) = client.linked(gateway) {
            link.is_open_within(gateway.config.prompts.link_timeout).await;
        }
    }
    let mut request = to_backend(&target, parts, RequestBody::whole(body));
    // By whatever charset its client says, what was read is UTF-8.
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    send(gateway, &target, request).await
}

async fn small_body(gateway: &Gateway, request: Request<Incoming>) -> Result<Bytes, GatewayError> {
    collect_small(gateway, request.into_body()).await
}

async fn collect_small(gateway: &Gateway, body: Incoming) -> Result<Bytes, GatewayError> {
    let limits = CollectLimits { max: BODY_MAX, idle: gateway.config.server.body_timeout };
    Ok(collect(body, limits, None).await?)
}

type Located = Vec<(PromptId, BackendId)>;

/// Of the ids that a request names, those that the asker may act on, with their backends.
async fn named(gateway: &Gateway, who: &Who, ids: impl IntoIterator<Item = String>) -> Located {
    let askers = who.askers(gateway);
    let mut located = Located::new();
    let mut unknown = 0;
    for prompt in ids.into_iter().filter_map(|id| PromptId::parse(&id).ok()) {
        let record = gateway.ledger().get(&prompt, now()).cloned();
        let (owner, backend) = match record {
            Some(record) => (record.client, record.backend),
            None if unknown < UNKNOWN_MAX => {
                unknown += 1;
                (None, ask_all(gateway, &prompt).await)
            }
            None => (None, None),
        };
        let is_others = !askers.is_empty() && owner.is_some_and(|owner| !askers.contains(&owner));
        match backend {
            Some(_) if is_others => {
                gateway.metrics.foreign_verbs.inc();
                debug!(%prompt, "A verb on another's prompt does nothing.");
            }
            Some(backend) => located.push((prompt, backend)),
            None => {}
        }
    }
    located
}

/// The clients that a bare verb speaks for. The address never says who acts.
fn known_askers(gateway: &Gateway, who: &Who) -> Result<Vec<ClientId>, GatewayError> {
    let askers = who.askers(gateway);
    if askers.is_empty() { Err(GatewayError::Nameless) } else { Ok(askers) }
}

fn own_pending(gateway: &Gateway, who: &Who) -> Result<Located, GatewayError> {
    let askers = known_askers(gateway, who)?;
    let clients = askers.iter().filter_map(|id| gateway.clients.get(id));
    let with_work: Vec<Located> = clients
        .map(|client| client.pending())
        .filter(|pending| !pending.is_empty())
        .map(|pending| pending.into_iter().map(|(id, it)| (id, it.backend)).collect())
        .collect();
    // With the cookie alone, a bare verb is clear only if a single tab has something pending.
    match (&who.named, with_work.len()) {
        (Some(_), _) | (None, 0 | 1) => Ok(with_work.into_iter().flatten().collect()),
        (None, _) => Err(GatewayError::Nameless),
    }
}

fn by_backend(prompts: Located) -> BTreeMap<BackendId, Vec<PromptId>> {
    let mut sorted: BTreeMap<BackendId, Vec<PromptId>> = BTreeMap::new();
    for (prompt, backend) in prompts {
        let known = sorted.entry(backend).or_default();
        if !known.contains(&prompt) {
            known.push(prompt);
        }
    }
    sorted
}

/// Acts on each backend that has some of these prompts, on all at the same time.
///
/// # Errors
/// The first of those that failed, after all others have acted.
async fn on_each<'g, T, F>(
    gateway: &'g Gateway,
    prompts: Located,
    act: impl Fn(&'g Arc<Backend>, Vec<PromptId>) -> F,
) -> Result<Vec<T>, GatewayError>
where
    F: Future<Output = Result<T, GatewayError>>,
{
    let acts = by_backend(prompts).into_iter();
    let acts = acts.map(|(backend, prompts)| act(gateway.fleet.get(backend), prompts));
    join_all(acts).await.into_iter().collect()
}

/// Deletes waiting prompts. ComfyUI answers 200 whatever it did, so what came of it is asked.
async fn delete(gateway: &Gateway, prompts: Located) -> Result<(), GatewayError> {
    let deleted = on_each(gateway, prompts, |backend, prompts| async move {
        delete_on(gateway, backend, &prompts).await
    });
    let deleted = deleted.await;
    gateway.reconcile_soon();
    deleted.map(drop)
}

async fn delete_on(
    gateway: &Gateway,
    backend: &Backend,
    prompts: &[PromptId],
) -> Result<(), GatewayError> {
    let limit = gateway.config.fleet.probe_timeout;
    let answer = backend.delete(prompts, limit).await;
    answer.map_err(|error| asking_failed(backend, &error))?;
    prompts.iter().for_each(|prompt| delete_was_asked(gateway, prompt));
    Ok(())
}

fn delete_was_asked(gateway: &Gateway, prompt: &PromptId) {
    let record = gateway.ledger().get(prompt, now()).cloned();
    let pending = record.filter(|record| record.state == State::Pending);
    let client = pending.and_then(|record| record.client).and_then(|id| gateway.clients.get(&id));
    if let Some(client) = client {
        client.delete_asked(prompt);
    }
}

/// Cancels waiting and running prompts; true if there was one to cancel.
async fn cancel(gateway: &Arc<Gateway>, prompts: Located) -> Result<bool, GatewayError> {
    let cancelled =
        on_each(gateway, prompts, |backend, prompts| cancel_on(gateway, backend, prompts));
    let cancelled = cancelled.await;
    gateway.reconcile_soon();
    Ok(cancelled?.contains(&true))
}

async fn cancel_on(
    gateway: &Arc<Gateway>,
    backend: &Arc<Backend>,
    mut prompts: Vec<PromptId>,
) -> Result<bool, GatewayError> {
    let limit = gateway.config.fleet.probe_timeout;
    let queue = backend.read_queue(limit).await;
    let queue = queue.map_err(|error| asking_failed(backend, &error))?;
    let ids = queued_ids(&queue).map_err(|error| asking_failed(backend, &error))?;
    let has = |ids: &[String], prompt: &PromptId| ids.iter().any(|id| id == prompt.as_str());
    prompts.retain(|prompt| has(&ids.0, prompt) || has(&ids.1, prompt));
    if prompts.is_empty() {
        return Ok(false);
    }
    let waiting: Vec<PromptId> =
        prompts.iter().filter(|prompt| has(&ids.1, prompt)).cloned().collect();
    if !waiting.is_empty() {
        delete_on(gateway, backend, &waiting).await?;
    }
    // One that waited may have begun between the look and the deletion.
    interrupts::interrupt(gateway, backend, prompts).await?;
    Ok(true)
}
