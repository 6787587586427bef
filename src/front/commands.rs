//! Commands affect only the caller's own prompts (promise R6).
//!
//! ComfyUI's commands without ids affect everybody on a backend. Here they are replaced by commands
//! with the ids of the caller's own prompts, each on the backend that has it. A command of a known
//! caller on another client's prompt does nothing and is answered with 200, as ComfyUI answers for
//! unknown ids. The configuration says what callers without a name may do (`isolation.nameless`).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::Front;
use super::broadcast_lookup::Where;
use super::caller::Caller;
use super::command_scope::{self, Actor, Located, Meant, named, own_pending};
use super::error::GatewayError;
use super::forward::{send, to_backend};
use super::history::asking_failed;
use super::on_the_way::end_wherever_they_are;
use super::route::of_caller;
use super::{Answer, bodies, done};
use crate::body::{CollectLimits, RequestBody};
use crate::comfy::commands;
use crate::config::OnJournalError;
use crate::fleet::backend::Backend;
use crate::fleet::dial_limiter::Haste;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::ledger::{Listed, State};
use crate::routing::pending::{End, Pending};
use crate::session::Sessions;
use crate::session::interrupts;
use crate::session::{Client, Wanted};
use crate::shared::Shared;

/// The largest body of a command.
const BODY_MAX: u64 = 1 << 20;

/// `POST /interrupt`.
///
/// # Errors
/// The body cannot be read, the caller has no name, or a backend did not answer.
pub async fn interrupt(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let body = small_body(&front.shared, request).await?;
    let prompt = commands::InterruptBody::read(&body)?.prompt_id;
    let actor = Actor::of_interrupt(front, caller, prompt.as_deref());
    let prompts = match prompt {
        Some(prompt) => named(front, &actor, caller, ("interrupt", [prompt]), Where::Queue).await?,
        None => own_pending(&front.sessions, caller, &actor)?,
    };
    // Those that wait do not run.
    let prompts = prompts.located;
    let own = Arc::clone(&front.sessions);
    let interrupted = async move {
        let sessions = &own;
        on_each(&sessions.shared, prompts, |backend, prompts| async move {
            let stopped = interrupts::interrupt(sessions, &backend, prompts).await;
            stopped.map_err(|error| asking_failed(&backend, &error))
        })
        .await
    };
    to_its_end(&front.shared, interrupted).await?;
    Ok(done())
}

/// `POST /queue`: deletes and clears.
///
/// # Errors
/// The body cannot be read, the caller has no name, or a backend did not answer.
pub async fn edit_queue(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let body = small_body(&front.shared, request).await?;
    let edit = commands::QueueEdit::read(&body)?;
    let actor = Actor::of(front, caller);
    let mut prompts =
        named(front, &actor, caller, ("queue.delete", edit.delete), Where::Queue).await?;
    if edit.clear {
        prompts.extend(own_pending(&front.sessions, caller, &actor)?);
    }
    let own = Arc::clone(&front.sessions);
    to_its_end(&front.shared, async move { delete(&own, prompts).await }).await?;
    Ok(done())
}

/// `POST /history`: deletes and clears.
///
/// # Errors
/// The body cannot be read, the caller has no name, or a backend that is up did not answer.
pub async fn edit_history(
    front: &Arc<Front>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Answer {
    let body = small_body(&front.shared, request).await?;
    let edit = commands::QueueEdit::read(&body)?;
    let actor = Actor::of(front, caller);
    let Meant { located: mut prompts, .. } =
        named(front, &actor, caller, ("history.delete", edit.delete), Where::Anywhere).await?;
    if edit.clear {
        prompts.extend(forget_all(front, caller, &actor)?);
    }
    front.shared.records.unlist(prompts.iter().map(|(prompt, _)| prompt));
    prompts.iter().for_each(|(prompt, _)| front.history_cache.forget(prompt));
    let own = Arc::clone(&front.shared);
    to_its_end(&front.shared, async move { forget(&own, prompts).await }).await?;
    Ok(done())
}

/// Asks backends to forget prompts that have ended.
async fn forget(shared: &Shared, prompts: Located) -> Result<(), GatewayError> {
    let forgotten = on_each(shared, prompts, |backend, prompts| async move {
        if !backend.is_up() {
            // They are not listed any more, and ComfyUI's history does not survive a restart.
            return Ok(());
        }
        let ids: Vec<&str> = prompts.iter().map(PromptId::as_str).collect();
        let limit = shared.config().fleet.probe_timeout;
        let answer = backend.post("/history", commands::delete(&ids), limit).await;
        answer.map(drop).map_err(|error| asking_failed(&backend, &error))
    });
    forgotten.await.map(drop)
}

/// Clears the caller's history, and what other clients of the same person have left behind that are
/// gone. Lost prompts are on no backend, so no backend is asked to forget them.
fn forget_all(front: &Front, caller: &Caller, actor: &Actor) -> Result<Located, GatewayError> {
    let listed = command_scope::own_history(front, caller, actor)?;
    let mut on_backends = Located::new();
    front.shared.records.unlist(listed.iter().map(|listed| &listed.prompt));
    for Listed { prompt, backend, end, .. } in listed {
        match (end, backend) {
            (End::Lost(_), _) | (_, None) => {}
            (_, Some(backend)) => on_backends.push((prompt, backend)),
        }
    }
    Ok(on_backends)
}

/// `PATCH /internal/logs/subscribe`. It is remembered, because a subscription ends with its link.
///
/// # Errors
/// The body cannot be read, the client has no backend, or the backend did not answer.
pub async fn subscribe_logs(
    front: &Arc<Front>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Answer {
    let (mut parts, body) = request.into_parts();
    let body = collect_small(&front.shared, &mut parts, body).await?;
    let wanted = commands::LogSubscription::read(&body)?;
    let id = caller.client_called(&front.shared.config(), &wanted.client_id)?;
    let target = of_caller(front, caller, &id)?;
    caller.is(front, &id);
    if let Some(client) = front.sessions.clients.get(&id) {
        client.wants_logs(if wanted.enabled { Wanted::Yes } else { Wanted::No });
        // The backend ignores a subscription for a socket that it does not know yet.
        if let Some(link) = client.linked(&front.sessions, Haste::First) {
            let limit = front.shared.config().prompts.link_timeout;
            link.is_open_within(limit).await;
        }
    }
    // The backend knows the client by the name of its link.
    let body = commands::LogSubscription { client_id: id.to_string(), ..wanted }.to_json();
    let mut request = to_backend(&target, parts, RequestBody::whole(body));
    // The text is UTF-8 now, whatever charset the client named.
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    send(&front.shared, &target, request).await
}

/// Reads the body of a command.
///
/// # Errors
/// It is too large, it broke off, or its coding is not supported.
pub(super) async fn small_body(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Bytes, GatewayError> {
    let (mut parts, body) = request.into_parts();
    collect_small(shared, &mut parts, body).await
}

async fn collect_small(
    shared: &Shared,
    parts: &mut Parts,
    body: Incoming,
) -> Result<Bytes, GatewayError> {
    let limits = CollectLimits { max: BODY_MAX, idle: shared.config().server.body_timeout };
    bodies::json(parts, body, limits, None).await
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
/// The first error, after all others have finished.
pub(super) async fn on_each<T, F>(
    shared: &Shared,
    prompts: Located,
    act: impl Fn(Arc<Backend>, Vec<PromptId>) -> F,
) -> Result<Vec<T>, GatewayError>
where
    F: Future<Output = Result<T, GatewayError>>,
{
    let acts = by_backend(prompts).into_iter();
    let acts = acts.map(|(backend, prompts)| act(shared.fleet.get(backend), prompts));
    join_all(acts).await.into_iter().collect()
}

/// Does the work in a task of its own. The client may hang up, but a command must not be done by
/// half: deleted on one backend and not on the other, or read and not deleted.
///
/// # Errors
/// Those of `work`. If the process stops or `work` panicked, the error says that the process stops.
pub(super) async fn to_its_end<T: Send + 'static>(
    shared: &Shared,
    work: impl Future<Output = Result<T, GatewayError>> + Send + 'static,
) -> Result<T, GatewayError> {
    let (tell, told) = oneshot::channel();
    shared.tasks.spawn(async move {
        // The client may be gone.
        let _ = tell.send(work.await);
    });
    told.await.unwrap_or(Err(GatewayError::Stopping))
}

/// What has ended while it waited must not wait again after a kill: its caller is told when that is
/// durable.
///
/// # Errors
/// The journal cannot be written, and nothing is done without it.
pub(super) async fn settled(sessions: &Sessions) -> Result<(), GatewayError> {
    match (sessions.settled().await, sessions.shared.config().on_journal_error()) {
        (Ok(()), _) | (Err(_), OnJournalError::Serve) => Ok(()),
        (Err(_), OnJournalError::Refuse) => Err(GatewayError::JournalFailed),
    }
}

/// Ends prompts that wait in the gateway, and returns those that a backend has meanwhile.
pub(super) fn end_waiting(sessions: &Arc<Sessions>, waiting: Vec<PromptId>) -> (usize, Located) {
    let (mut ended, mut located) = (0, Located::new());
    for prompt in waiting {
        let Some(client) = owner_of_pending(sessions, &prompt) else { continue };
        if client.drop_waiting(sessions, &prompt, End::Deleted) {
            ended += 1;
        } else if let Some(backend) =
            client.inspect(|core, _| core.pending().get(&prompt).and_then(Pending::backend))
        {
            located.push((prompt, backend));
        }
    }
    (ended, located)
}

/// Deletes waiting prompts. ComfyUI always answers 200, so the result is checked afterwards.
async fn delete(sessions: &Arc<Sessions>, meant: Meant) -> Result<(), GatewayError> {
    end_wherever_they_are(sessions, meant, delete_at).await.map(drop)
}

/// Nobody asks whether one was there, and ComfyUI does not say it.
async fn delete_at(sessions: Arc<Sessions>, prompts: Located) -> Result<bool, GatewayError> {
    let deleted = on_each(&sessions.shared, prompts, |backend, prompts| {
        let sessions = &sessions;
        async move { delete_on(sessions, &backend, &prompts).await }
    });
    let deleted = deleted.await;
    sessions.reconcile_soon();
    deleted.map(|_| false)
}

pub(super) async fn delete_on(
    sessions: &Arc<Sessions>,
    backend: &Backend,
    prompts: &[PromptId],
) -> Result<(), GatewayError> {
    let limit = sessions.shared.config().fleet.probe_timeout;
    intend_deletion(sessions, prompts);
    let answer = backend.delete(prompts, limit).await;
    answer.map_err(|error| {
        if error.never_sent() {
            withdraw_deletion(sessions, prompts);
        }
        asking_failed(backend, &error)
    })
}

/// Notes that the backend will be asked to delete prompts: if they disappear from now on, they were
/// deleted.
///
/// This is noted before the request. The caller may leave, or the answer may not come, although the
/// backend has deleted them.
pub(super) fn intend_deletion(sessions: &Arc<Sessions>, prompts: &[PromptId]) {
    for prompt in prompts {
        if let Some(client) = owner_of_pending(sessions, prompt) {
            let _place = client.delete_asked(sessions, prompt);
        }
    }
}

/// Notes that nothing was deleted: if the prompts disappear later, it was not because of this.
pub(super) fn withdraw_deletion(sessions: &Arc<Sessions>, prompts: &[PromptId]) {
    for prompt in prompts {
        if let Some(client) = owner_of_pending(sessions, prompt) {
            client.delete_withdrawn(sessions, prompt);
        }
    }
}

pub(super) fn owner_of_pending(sessions: &Sessions, prompt: &PromptId) -> Option<Arc<Client>> {
    let record = sessions.shared.records.prompt(prompt);
    let pending = record.filter(|record| record.state == State::Pending);
    pending.and_then(|record| record.by.client).and_then(|id| sessions.clients.get(&id))
}
