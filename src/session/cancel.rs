//! Cancels one prompt for an operator: by its id alone, so that no other is hit.

use std::sync::Arc;

use super::interrupts::{self, NotInterrupted};
use super::{Client, Sessions};
use crate::comfy::answers::{Junk, queued_ids};
use crate::fleet::api::ApiError;
use crate::fleet::backend::Backend;
use crate::fleet::queue_snapshot::SnapshotError;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::ledger::{Record, State};
use crate::routing::pending::{End, Phase};

/// What a prompt did when it was cancelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Was {
    /// It was deleted from the queue. A start at the same moment was interrupted.
    Waiting,
    /// It was interrupted, and is again until it stops.
    Running,
}

impl Was {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
        }
    }
}

/// A prompt that was cancelled.
#[derive(Clone, Debug)]
pub struct Cancelled {
    pub was: Was,
    pub backend: Arc<str>,
}

/// Why a prompt was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum NotCancelled {
    #[error("no prompt with this id is known")]
    Unknown,
    #[error("it has ended: {0}")]
    Ended(&'static str),
    #[error("it is being sent to a backend: try again in a moment")]
    Sending,
    #[error("{0} is away: it cannot be asked to stop a prompt. Releasing its client gives it up")]
    Away(Arc<str>),
    #[error("{0} has it neither in its queue nor running: it has just ended, or is lost")]
    NotThere(Arc<str>),
    #[error("{0} did not answer, so the prompt may go on: {1}")]
    NoAnswer(Arc<str>, String),
}

/// Cancels a prompt: deletes it if it waits, interrupts it if it runs. Its client is told by
/// ComfyUI's own events.
///
/// # Errors
/// Nothing was cancelled; after [`NotCancelled::NoAnswer`] it may have been.
pub async fn cancel(
    sessions: &Arc<Sessions>,
    prompt: &PromptId,
) -> Result<Cancelled, NotCancelled> {
    let record = sessions.shared.records.prompt(prompt).ok_or(NotCancelled::Unknown)?;
    let client = record.by.client.as_ref().and_then(|id| sessions.clients.get(id));
    if let Some(client) = &client
        && client.drop_waiting(sessions, prompt, End::Deleted)
    {
        // It must not wait again after a kill. If the journal fails, it says so itself.
        let _noted = sessions.settled().await;
        return Ok(Cancelled { was: Was::Waiting, backend: sessions.shared.fleet.name_of(None) });
    }
    let place = place_of(&record, client.as_deref(), prompt)?;
    let backend = sessions.shared.fleet.get(place);
    if !backend.is_up() {
        return Err(NotCancelled::Away(backend.name()));
    }
    let stop = Stop { sessions, backend: &backend, client, prompt };
    let was = stop.run().await.map_err(|failed| match failed {
        Failed::NotThere => NotCancelled::NotThere(backend.name()),
        failed
        @ (Failed::Queue(_) | Failed::Junk(_) | Failed::Delete(_) | Failed::Interrupt(_)) => {
            NotCancelled::NoAnswer(backend.name(), failed.to_string())
        }
    });
    sessions.reconcile_soon();
    Ok(Cancelled { was: was?, backend: backend.name() })
}

/// Where the prompt is.
fn place_of(
    record: &Record,
    client: Option<&Client>,
    prompt: &PromptId,
) -> Result<BackendId, NotCancelled> {
    match record.state {
        State::Ended(end) => return Err(NotCancelled::Ended(end.reason())),
        State::Pending | State::Learned => {}
    }
    let pending = client.and_then(|client| {
        client.inspect(|core, _| core.pending().get(prompt).map(|it| (it.backend(), it.phase)))
    });
    match pending {
        // One that waits was just ended, or came back from a backend a moment ago.
        Some((_, Phase::Waiting | Phase::Sending)) => Err(NotCancelled::Sending),
        Some((backend, Phase::Restored | Phase::Queued | Phase::Running | Phase::Ending(_))) => {
            backend.ok_or(NotCancelled::Sending)
        }
        // Its client is not back after a restart, or it is nobody's.
        None => record.backend.ok_or(NotCancelled::Sending),
    }
}

struct Stop<'a> {
    sessions: &'a Arc<Sessions>,
    backend: &'a Arc<Backend>,
    client: Option<Arc<Client>>,
    prompt: &'a PromptId,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("it has neither")]
    NotThere,
    #[error(transparent)]
    Queue(#[from] SnapshotError),
    #[error(transparent)]
    Junk(#[from] Junk),
    #[error(transparent)]
    Delete(#[from] ApiError),
    #[error(transparent)]
    Interrupt(#[from] NotInterrupted),
}

impl Stop<'_> {
    async fn run(&self) -> Result<Was, Failed> {
        let limit = self.sessions.shared.config().fleet.probe_timeout;
        let queue = self.backend.read_queue(limit).await?;
        let (running, waiting) = queued_ids(&queue)?;
        let has = |ids: &[String]| ids.iter().any(|id| id == self.prompt.as_str());
        let was = match (has(&running), has(&waiting)) {
            (true, _) => Was::Running,
            (false, true) => Was::Waiting,
            (false, false) => return Err(Failed::NotThere),
        };
        if was == Was::Waiting {
            self.delete().await?;
        }
        // A waiting prompt may have started since.
        let prompts = vec![self.prompt.clone()];
        interrupts::interrupt(self.sessions, self.backend, prompts).await?;
        Ok(was)
    }

    async fn delete(&self) -> Result<(), ApiError> {
        let limit = self.sessions.shared.config().fleet.probe_timeout;
        // Noted first: the answer may not come although it was deleted.
        if let Some(client) = &self.client {
            let _place = client.delete_asked(self.sessions, self.prompt);
        }
        let deleted = self.backend.delete(std::slice::from_ref(self.prompt), limit).await;
        if let (Err(error), Some(client)) = (&deleted, &self.client)
            && error.never_sent()
        {
            client.delete_withdrawn(self.sessions, self.prompt);
        }
        deleted
    }
}
