//! Cancels jobs on the backend where they are, also on servers that do not have this route yet.
//!
//! Since about 0.26 a server cancels by id in one step: it removes a waiting job from the queue,
//! and it interrupts a running job only if that job is still the one that runs (`execution.py`,
//! `interrupt_if_running`).

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tracing::debug;

use super::Front;
use super::broadcast_lookup::Where;
use super::caller::Caller;
use super::command_scope::{Actor, Located, Meant, named};
use super::commands::{
    delete_on, intend_deletion, on_each, small_body, to_its_end, withdraw_deletion,
};
use super::error::GatewayError;
use super::history::asking_failed;
use super::on_the_way::end_wherever_they_are;
use super::{Answer, jobs, json};
use crate::comfy::answers::queued_ids;
use crate::comfy::commands;
use crate::comfy::jobs::cancel;
use crate::fleet::api::encode_segment;
use crate::fleet::backend::Backend;
use crate::routing::ids::PromptId;
use crate::session::Sessions;
use crate::session::interrupts;

/// `POST /api/jobs/{prompt}/cancel`.
///
/// # Errors
/// The caller may not do this, or a backend did not answer.
pub async fn cancel_job(front: &Arc<Front>, caller: &Caller, prompt: &str) -> Answer {
    let actor = Actor::of(front, caller);
    let ids = [prompt.to_owned()];
    let prompts = named(front, &actor, caller, ("cancel", ids), Where::Queue).await?;
    let cancelled = cancel(&front.sessions, prompts).await?;
    Ok(json(commands::cancelled(cancelled)))
}

/// `POST /api/jobs/cancel`.
///
/// # Errors
/// The body cannot be read, the caller may not do this, or a backend did not answer.
pub async fn cancel_jobs(
    front: &Arc<Front>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Answer {
    let body = small_body(&front.shared, request).await?;
    let is_known = |id: &str| {
        let record = PromptId::parse(id).ok().and_then(|id| front.shared.records.prompt(&id));
        record.is_some_and(|record| caller.realm.owns(&record.by))
    };
    let ids = match cancel::read(&body, is_known) {
        Ok(ids) => ids,
        Err(bad) => return Ok(jobs::with_status(StatusCode::BAD_REQUEST, bad.body())),
    };
    let actor = Actor::of(front, caller);
    let prompts = named(front, &actor, caller, ("cancel", ids), Where::Queue).await?;
    let cancelled = cancel(&front.sessions, prompts).await?;
    Ok(json(commands::cancelled(cancelled)))
}

/// Cancels waiting and running prompts. True if there was one to cancel.
async fn cancel(sessions: &Arc<Sessions>, meant: Meant) -> Result<bool, GatewayError> {
    let own = Arc::clone(sessions);
    let cancelled = async move { end_wherever_they_are(&own, meant, cancel_at).await };
    to_its_end(&sessions.shared, cancelled).await
}

/// True if one of them was cancelled.
async fn cancel_at(sessions: Arc<Sessions>, prompts: Located) -> Result<bool, GatewayError> {
    let cancelled = on_each(&sessions.shared, prompts, |backend, prompts| {
        cancel_on(&sessions, backend, prompts)
    });
    let cancelled = cancelled.await;
    sessions.reconcile_soon();
    Ok(cancelled?.contains(&true))
}

async fn cancel_on(
    sessions: &Arc<Sessions>,
    backend: Arc<Backend>,
    prompts: Vec<PromptId>,
) -> Result<bool, GatewayError> {
    if backend.version().is_some_and(|version| version.cancels_jobs())
        && let Some(cancelled) = cancel_in_one_step(sessions, &backend, &prompts).await?
    {
        return Ok(cancelled);
    }
    cancel_in_steps(sessions, &backend, prompts).await
}

/// `None` if the server cannot do it: a fork without the route, or ids that it does not accept.
async fn cancel_in_one_step(
    sessions: &Arc<Sessions>,
    backend: &Arc<Backend>,
    prompts: &[PromptId],
) -> Result<Option<bool>, GatewayError> {
    let limit = sessions.shared.config().fleet.probe_timeout;
    // This marks only prompts that have not started; the transition checks that itself.
    intend_deletion(sessions, prompts);
    let answer = match prompts {
        [] => return Ok(Some(false)),
        [prompt] => {
            let path = format!("/api/jobs/{}/cancel", encode_segment(prompt.as_str()));
            backend.post(&path, "{}", limit).await
        }
        several => {
            let ids: Vec<&str> = several.iter().map(PromptId::as_str).collect();
            backend.post("/api/jobs/cancel", commands::cancel_several(&ids), limit).await
        }
    };
    let (status, body) = answer.map_err(|error| {
        if error.never_sent() {
            withdraw_deletion(sessions, prompts);
        }
        asking_failed(backend, &error)
    })?;
    let Some(is_any) = commands::was_cancelled(status, &body) else {
        withdraw_deletion(sessions, prompts);
        debug!(backend = %backend.name(), status, "This backend cannot cancel a job in one step.");
        return Ok(None);
    };
    if is_any {
        for prompt in prompts {
            interrupts::follow_up(sessions, backend, prompt);
        }
    } else {
        withdraw_deletion(sessions, prompts);
    }
    Ok(Some(is_any))
}

async fn cancel_in_steps(
    sessions: &Arc<Sessions>,
    backend: &Arc<Backend>,
    mut prompts: Vec<PromptId>,
) -> Result<bool, GatewayError> {
    let limit = sessions.shared.config().fleet.probe_timeout;
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
        delete_on(sessions, backend, &waiting).await?;
    }
    // A waiting prompt may have started between the check and the deletion.
    interrupts::interrupt(sessions, backend, prompts)
        .await
        .map_err(|error| asking_failed(backend, &error))?;
    Ok(true)
}
