//! Commands that end prompts, wherever those are, also on the way to a backend.
//!
//! What waits in the gateway ends here, and so does a prompt on its way of which no byte was sent.
//! What becomes of one that is out is waited for, and then the command acts where the prompt is: so
//! a caller is told what has happened, and not what may happen.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::command_scope::{Located, Meant};
use super::commands::{end_waiting, owner_of_pending, settled};
use super::error::GatewayError;
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::End;
use crate::session::completion::Completion;
use crate::session::{Client, Sessions};

/// How soon the end of a prompt is known that is not pending any more. That takes two locks.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// The pause before a late command is tried again. It doubles each time, up to the maximum.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

/// Ends those that wait in the gateway, and has `act` end the others at the backends that have
/// them. Those that are there already do not wait for those that are on their way. True if one was
/// ended; of those at backends `act` says whether.
///
/// # Errors
/// A backend did not answer, it is not known in time where a prompt is, or the journal failed. What
/// is not known in time is ended when it is known.
pub(super) async fn end_wherever_they_are<A, F>(
    sessions: &Arc<Sessions>,
    meant: Meant,
    act: A,
) -> Result<bool, GatewayError>
where
    A: Fn(Arc<Sessions>, Located) -> F + Send + Sync + 'static,
    F: Future<Output = Result<bool, GatewayError>> + Send + 'static,
{
    let (ended, began) = end_waiting(sessions, meant.waiting);
    let mut prompts = meant.located;
    prompts.extend(began);
    let stopped = stop(sessions, prompts);
    let patience = sessions.shared.config().fleet.probe_timeout;
    let later = async {
        let mut arrived = stopped.on_the_way.arrived(sessions, Some(patience)).await;
        let acted = act(Arc::clone(sessions), std::mem::take(&mut arrived.located)).await;
        (arrived, acted)
    };
    let (acted, (arrived, acted_later)) =
        tokio::join!(act(Arc::clone(sessions), stopped.located), later);
    let is_known = arrived.is_known(sessions);
    if !arrived.late.is_empty() {
        let late = end_late(Arc::clone(sessions), arrived.late, act);
        sessions.shared.tasks.spawn(late);
    }
    let (acted, acted_later) = (acted?, acted_later?);
    is_known?;
    settled(sessions).await?;
    Ok(acted || acted_later || 0 < ended + stopped.deleted + arrived.deleted)
}

/// Ends those that arrive after their caller was told that nobody knows where they are. Nobody will
/// ask again, so this goes on until they have ended.
async fn end_late<A, F>(sessions: Arc<Sessions>, mut on_the_way: OnTheWay, act: A)
where
    A: Fn(Arc<Sessions>, Located) -> F,
    F: Future<Output = Result<bool, GatewayError>>,
{
    let (mut there, mut pause) = (Located::new(), AGAIN_AFTER);
    loop {
        there.extend(on_the_way.arrived(&sessions, None).await.located);
        if act(Arc::clone(&sessions), there.clone()).await.is_ok() {
            return;
        }
        tokio::select! {
            biased;
            () = sessions.shared.tasks.stopping() => return,
            () = sleep(pause) => pause = AGAIN_AFTER_MAX.min(2 * pause),
        }
        there.retain(|(prompt, _)| owner_of_pending(&sessions, prompt).is_some());
        // One may have come back, and be on its way again.
        let again = stop(&sessions, there);
        (there, on_the_way) = (again.located, again.on_the_way);
    }
}

/// The prompts of a command. Of those that were on their way nothing more is sent.
#[derive(Debug, Default)]
struct Stopped {
    /// Those that a backend has, or that nobody here knows.
    located: Located,
    /// How many have ended because nothing of them was sent.
    deleted: usize,
    on_the_way: OnTheWay,
}

/// Prompts of which it is not known yet where they are.
#[derive(Debug, Default)]
struct OnTheWay(Vec<(PromptId, BackendId, Arc<Client>, Arc<Completion>)>);

/// Those that were on their way, when it is known where they are.
#[derive(Debug, Default)]
struct Arrived {
    /// Those that a backend has.
    located: Located,
    /// How many have ended because they were deleted on the way.
    deleted: usize,
    /// Those that are still on their way after the wait.
    late: OnTheWay,
}

impl Arrived {
    /// What the caller is told if the wait was too short.
    fn is_known(&self, sessions: &Sessions) -> Result<(), GatewayError> {
        let Some((prompt, backend, ..)) = self.late.0.first() else { return Ok(()) };
        let backend = sessions.shared.fleet.get(*backend).name();
        Err(GatewayError::state_unknown(&backend, prompt))
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
fn stop(sessions: &Arc<Sessions>, prompts: Located) -> Stopped {
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
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until it is known where they are; no longer than `patience`, if there is one.
    async fn arrived(self, sessions: &Arc<Sessions>, patience: Option<Duration>) -> Arrived {
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
        .inspect(|core, _| core.pending().get(prompt).map(|it| (it.backend(), it.is_on_the_way())));
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

/// Where the prompt has arrived; `None` if it is not pending any more.
async fn landed(sessions: &Sessions, client: &Client, prompt: &PromptId) -> Option<BackendId> {
    loop {
        // Before the look: no change is missed.
        let moved = sessions.waiting.moved();
        let place = client.inspect(|core, _| {
            core.pending().get(prompt).map(|it| it.backend().filter(|_| !it.is_on_the_way()))
        });
        match place {
            None => return None,
            Some(Some(at)) => return Some(at),
            Some(None) => moved.await,
        }
    }
}
