//! Commands on prompts that are being handed over to a backend.
//!
//! One of which no byte was sent ends at once. What becomes of one that is out is waited for, and
//! then the command acts where the prompt is: so a caller is told what has happened, and not what
//! may happen.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::command_scope::Located;
use super::commands::owner_of_pending;
use super::error::GatewayError;
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{Course, End, Pending, Phase};
use crate::session::completion::Completion;
use crate::session::{Client, Sessions};

/// How soon the end of a prompt is known that is not pending any more. That takes two locks.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// The prompts of a command. Of those that were on their way nothing more is sent.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// Those that a backend has, or that nobody here knows.
    pub(super) located: Located,
    /// How many have ended because nothing of them was sent.
    pub(super) deleted: usize,
    pub(super) on_the_way: OnTheWay,
}

/// Prompts of which it is not known yet where they are.
#[derive(Debug, Default)]
pub(super) struct OnTheWay(Vec<(PromptId, BackendId, Arc<Client>, Arc<Completion>)>);

/// Those that were on their way, when it is known where they are.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// Those that a backend has.
    pub(super) located: Located,
    /// How many have ended because they were deleted on the way.
    pub(super) deleted: usize,
    /// Those that are still on their way after the wait.
    pub(super) late: OnTheWay,
}

impl Arrived {
    /// What the caller is told if the wait was too short.
    pub(super) fn is_known(&self, sessions: &Sessions) -> Result<(), GatewayError> {
        let Some((prompt, backend, ..)) = self.late.0.first() else { return Ok(()) };
        let backend = sessions.shared.fleet.get(*backend).name().to_string();
        Err(GatewayError::StateUnknown { backend, prompt: prompt.to_string() })
    }
}

/// Where a prompt is that was meant.
enum Place {
    OnTheWay(Arc<Client>, Arc<Completion>),
    At(BackendId),
    /// It has just ended, because it was on its way and nothing of it was sent.
    Deleted,
}

/// Sends none of these any more. Those that are at a backend are to be looked after at once: what
/// waits there may begin while the others are waited for.
pub(super) fn stop(sessions: &Arc<Sessions>, prompts: Located) -> Stopped {
    let mut found = Stopped::default();
    if !sessions.waiting.is_used() {
        return Stopped { located: prompts, ..found };
    }
    for (prompt, backend) in prompts {
        match stopped(sessions, &prompt, backend) {
            Place::At(backend) => found.located.push((prompt, backend)),
            Place::Deleted => found.deleted += 1,
            Place::OnTheWay(client, completion) => {
                found.on_the_way.0.push((prompt, backend, client, completion));
            }
        }
    }
    found
}

impl OnTheWay {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until it is known where they are; no longer than `patience`, if there is one.
    pub(super) async fn arrived(
        self,
        sessions: &Arc<Sessions>,
        patience: Option<Duration>,
    ) -> Arrived {
        let until = patience.map(|patience| now() + patience);
        let mut arrived = Arrived::default();
        for (prompt, backend, client, completion) in self.0 {
            let too_late = async {
                let Some(until) = until else { return pending().await };
                sleep(until.saturating_duration_since(now())).await;
            };
            let place = tokio::select! {
                biased;
                place = landed(sessions, &client, &prompt) => Some(place),
                () = too_late => None,
                () = sessions.shared.tasks.stopping() => None,
            };
            match place {
                None => arrived.late.0.push((prompt, backend, client, completion)),
                Some(Some(at)) => arrived.located.push((prompt, at)),
                Some(None) => {
                    let end = timeout(ENDS_WITHIN, completion.end()).await;
                    arrived.deleted += usize::from(end == Ok(End::Deleted));
                }
            }
        }
        arrived
    }
}

/// Nothing of the prompt is sent from now on.
fn stopped(sessions: &Arc<Sessions>, prompt: &PromptId, backend: BackendId) -> Place {
    let Some(client) = owner_of_pending(sessions, prompt) else { return Place::At(backend) };
    let completion = client.completion_of(prompt);
    let place = client
        .inspect(|core, _| core.pending().get(prompt).map(|it| (it.backend(), is_on_the_way(it))));
    match place {
        // It may have come back a moment ago, and has ended then.
        Some((None, _)) | Some((_, true)) => match client.delete_asked(sessions, prompt) {
            None => Place::Deleted,
            Some(_) => Place::OnTheWay(client, completion),
        },
        Some((Some(at), false)) => Place::At(at),
        None => Place::At(backend),
    }
}

fn is_on_the_way(pending: &Pending) -> bool {
    pending.phase == Phase::Sending && pending.course() == Course::Kept
}

/// Where the prompt has arrived; `None` if it is not pending any more.
async fn landed(sessions: &Sessions, client: &Client, prompt: &PromptId) -> Option<BackendId> {
    loop {
        // Before the look: no change is missed.
        let moved = sessions.waiting.moved();
        let place = client.inspect(|core, _| {
            core.pending().get(prompt).map(|it| it.backend().filter(|_| !is_on_the_way(it)))
        });
        match place {
            None => return None,
            Some(Some(at)) => return Some(at),
            Some(None) => moved.await,
        }
    }
}
