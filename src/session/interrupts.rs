//! Repeats an interrupt until it has had an effect (promise R6).
//!
//! ComfyUI has one flag for interrupts and clears it when a prompt starts. An interrupt that
//! arrives between dequeue and start is therefore lost, although ComfyUI answers 200. So a running
//! prompt is interrupted by its id, and again until it no longer runs. Waiting prompts are left
//! alone.
//!
//! `/interrupt` checks whether a prompt runs and then raises the flag for whatever runs at that
//! moment, which may be another client's prompt. A server that can cancel jobs does both in one
//! step (since about 0.26, `execution.py`, `interrupt_if_running`); there a running prompt is
//! cancelled instead.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::Sessions;
use crate::comfy::answers::{Junk, queued_ids};
use crate::comfy::commands;
use crate::fleet::api::{ApiError, encode_segment};
use crate::fleet::backend::Backend;
use crate::fleet::queue_snapshot::SnapshotError;
use crate::lock::{Lock, rank};
use crate::net::{now, sleep};
use crate::routing::ids::PromptId;
use crate::routing::ledger::State;
use crate::routing::pending::End;
use crate::shared::Shared;

/// The pauses between an interrupt and the checks whether the prompt still runs. ComfyUI notices an
/// interrupt only between two nodes or steps; the gap in which one is lost lasts milliseconds.
const LOOKS: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
    Duration::from_millis(3_200),
];

/// How many interrupts are followed up at a time; more are sent without a follow-up.
const FOLLOWED_MAX: usize = 1_000;

/// Why an interrupt was not sent.
#[derive(Debug, thiserror::Error)]
pub enum NotInterrupted {
    #[error(transparent)]
    Queue(#[from] SnapshotError),
    #[error(transparent)]
    Junk(#[from] Junk),
    #[error(transparent)]
    Ask(#[from] ApiError),
}

/// The prompts whose interrupts are being followed up.
#[derive(Debug, Default)]
pub struct Interrupts(Lock<HashSet<PromptId>, { rank::INTERRUPTS }>);

impl Interrupts {
    /// False if it is already followed up, or too many are.
    fn begin(&self, prompt: &PromptId) -> bool {
        let mut followed = self.0.lock();
        followed.len() < FOLLOWED_MAX && followed.insert(prompt.clone())
    }

    fn end(&self, prompt: &PromptId) {
        self.0.lock().remove(prompt);
    }
}

/// Interrupts those of `prompts` that run on `backend`. A later check makes sure that they stop.
///
/// # Errors
/// The backend did not answer.
pub async fn interrupt(
    sessions: &Arc<Sessions>,
    backend: &Arc<Backend>,
    prompts: Vec<PromptId>,
) -> Result<(), NotInterrupted> {
    let limit = sessions.shared.config().fleet.probe_timeout;
    let queue = match backend.read_queue(limit).await {
        Ok(queue) => queue,
        Err(error) if backend.version().is_some_and(|version| version.interrupts_by_id()) => {
            debug!(backend = %backend.name(), %error, "Interrupting by id without the queue.");
            for prompt in prompts {
                send(&sessions.shared, backend, &prompt).await?;
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let (running, _waiting) = queued_ids(&queue)?;
    for prompt in prompts.into_iter().filter(|prompt| is_in(&running, prompt)) {
        // Immediately: servers older than 0.3.57 ignore the id and stop whatever runs.
        stop_running(&sessions.shared, backend, &prompt).await?;
        follow_up(sessions, backend, &prompt);
    }
    Ok(())
}

/// Makes sure that an interrupted prompt stops.
pub fn follow_up(sessions: &Arc<Sessions>, backend: &Arc<Backend>, prompt: &PromptId) {
    if !sessions.interrupts.begin(prompt) {
        return;
    }
    let (sessions, backend) = (Arc::clone(sessions), Arc::clone(backend));
    let prompt = prompt.clone();
    sessions.clone().shared.tasks.spawn(async move {
        tokio::select! {
            () = sessions.shared.tasks.stopping() => {}
            () = follow(&sessions.shared, &backend, &prompt) => {}
        }
        sessions.interrupts.end(&prompt);
    });
}

/// Stops a prompt that was seen to run. It no longer waits, so cancelling it can have no other
/// effect.
async fn stop_running(
    shared: &Shared,
    backend: &Backend,
    prompt: &PromptId,
) -> Result<(), NotInterrupted> {
    if backend.version().is_some_and(|version| version.cancels_jobs()) {
        let limit = shared.config().fleet.probe_timeout;
        let path = format!("/api/jobs/{}/cancel", encode_segment(prompt.as_str()));
        let answer = backend.post(&path, "{}", limit).await;
        let (status, body) = answer?;
        if commands::was_cancelled(status, &body).is_some() {
            return Ok(());
        }
    }
    send(shared, backend, prompt).await
}

/// Interrupts by `/interrupt`, which does not affect waiting prompts.
async fn send(shared: &Shared, backend: &Backend, prompt: &PromptId) -> Result<(), NotInterrupted> {
    let limit = shared.config().fleet.probe_timeout;
    let sent = backend.post("/interrupt", commands::interrupt(prompt.as_str()), limit).await;
    sent.map(drop).map_err(NotInterrupted::from)
}

/// Interrupts again as long as the prompt runs.
async fn follow(shared: &Shared, backend: &Backend, prompt: &PromptId) {
    let limit = shared.config().fleet.probe_timeout;
    for pause in LOOKS {
        sleep(pause).await;
        if has_ended(shared, prompt) {
            return;
        }
        let Ok(queue) = backend.read_queue(limit).await else { continue };
        let Ok((running, _waiting)) = queued_ids(&queue) else { continue };
        if !is_in(&running, prompt) {
            return;
        }
        if stop_running(shared, backend, prompt).await.is_ok() {
            shared.metrics.interrupts_repeated.inc();
        }
    }
    debug!(%prompt, backend = %backend.name(), "An interrupted prompt still runs.");
}

/// True if no further check is needed. A prompt that counts as lost may still run.
fn has_ended(shared: &Shared, prompt: &PromptId) -> bool {
    shared.records.ledger_of(prompt).get(prompt, now()).is_some_and(|record| match record.state {
        State::Ended(End::Succeeded | End::Failed | End::Interrupted | End::Deleted) => true,
        State::Ended(End::Lost(_)) | State::Pending | State::Learned => false,
    })
}

fn is_in(ids: &[String], prompt: &PromptId) -> bool {
    ids.iter().any(|id| id == prompt.as_str())
}
