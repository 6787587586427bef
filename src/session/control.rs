//! Operations of operators, and of clients on themselves: release, reset, drain, turn a backend
//! off.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tracing::info;

use super::Client;
use super::Sessions;
use super::interrupts;
use crate::comfy::answers::Sighting;
use crate::fleet::backend::Backend;
use crate::masked::mask;
use crate::net::sleep;
use crate::routing::decision::{Released, StillPending, in_number};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::placement::AdminState;
use crate::routing::state_change::StateChange;
use crate::tunnels::Farewell;

/// How many prompts of one reset are stopped at a time.
const STOPPED_AT_ONCE: usize = 8;

/// What a reset does with pending work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Force {
    /// Refuses while anything is pending.
    Safe,
    /// Ends it as lost.
    Forced,
}

impl Force {
    fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "asked",
            Self::Forced => "forced",
        }
    }
}

/// Releases a client's binding (B7). Returns how many prompts were ended.
///
/// # Errors
/// The reset is safe, and this much is pending.
pub fn reset(
    sessions: &Arc<Sessions>,
    client: &Arc<Client>,
    force: Force,
) -> Result<usize, StillPending> {
    let released = match force {
        Force::Safe => client.release(sessions)?,
        Force::Forced => client.reset(sessions),
    };
    Ok(told_released(sessions, client, (force, released)))
}

fn told_released(
    sessions: &Arc<Sessions>,
    client: &Arc<Client>,
    (force, released): (Force, Released),
) -> usize {
    let cut_off = released.cut_off;
    let (client, reason) = (mask(&client.id), force.as_str());
    let backend = released.backend.map(|id| sessions.shared.fleet.get(id).name());
    let backend = backend.as_deref();
    info!(%client, backend, reason, cut_off, "Client was released.");
    cut_off
}

/// Stops the prompts that a reset has ended, a few at a time.
pub(super) fn stop_all(sessions: &Arc<Sessions>, prompts: Vec<(PromptId, BackendId)>) {
    let sessions = Arc::clone(sessions);
    sessions.clone().shared.tasks.spawn(async move {
        let sessions = &sessions;
        let stops = stream::iter(prompts).map(|(prompt, backend)| async move {
            // Only a backend that answers can stop it; nobody asks the others again.
            stop(sessions, &sessions.shared.fleet.get(backend), &prompt).await
        });
        stops.buffer_unordered(STOPPED_AT_ONCE).for_each(|_answered| ready(())).await;
    });
}

/// Stops a prompt in any state: a waiting one is deleted, and a running one is interrupted until it
/// stops. True if the backend answered both.
pub async fn stop(sessions: &Arc<Sessions>, backend: &Arc<Backend>, prompt: &PromptId) -> bool {
    let limit = sessions.shared.config().fleet.probe_timeout;
    let deleted = backend.delete(std::slice::from_ref(prompt), limit).await;
    let interrupted = interrupts::interrupt(sessions, backend, vec![prompt.clone()]).await;
    deleted.is_ok() && interrupted.is_ok()
}

/// Stops a prompt that appeared after its client was told that it was not queued: nobody wants it
/// (P2, P6).
pub fn revoke(sessions: &Arc<Sessions>, backend: &Arc<Backend>, prompt: &PromptId) {
    sessions.shared.metrics.prompts_turned_up.inc();
    let (sessions, backend, prompt) = (Arc::clone(sessions), Arc::clone(backend), prompt.clone());
    sessions.clone().shared.tasks.spawn(async move {
        let stopped = stop(&sessions, &backend, &prompt).await;
        info!(%prompt, backend = %backend.name(), stopped, "A lost prompt has appeared.");
    });
}

/// When to look again for a prompt that was answered as not queued: an abandoned connection can
/// deliver it late.
const LATE_LOOKS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60)];

/// After this it is not looked for any more: the sum of these.
pub const LATE_FOR: Duration = Duration::from_secs(80);

/// Looks several times for a prompt that was answered as not queued, and stops it if it appears. If
/// it starts meanwhile, its client's link reports that, and the prompt is stopped at once.
pub fn watch_late_arrival(sessions: &Arc<Sessions>, backend: &Arc<Backend>, prompt: &PromptId) {
    // Beyond the limit only the links watch.
    let Ok(seat) = Arc::clone(&sessions.late_looks).try_acquire_owned() else { return };
    let (sessions, backend, prompt) = (Arc::clone(sessions), Arc::clone(backend), prompt.clone());
    let tasks = sessions.shared.tasks.clone();
    tasks.spawn(async move {
        let _seat = seat;
        let limit = sessions.shared.config().fleet.probe_timeout;
        for pause in LATE_LOOKS {
            tokio::select! {
                biased;
                () = sleep(pause) => {}
                () = sessions.shared.tasks.stopping() => return,
            }
            let found = backend.look_for(&prompt, limit).await;
            // The prompt was withdrawn, or waits, or is elsewhere. If it is known to be there now,
            // it is wanted there.
            let known = sessions.shared.records.prompt(&prompt);
            if known.is_some_and(|known| known.backend == Some(backend.id)) {
                return;
            }
            match found {
                Ok(Sighting::Queued { .. } | Sighting::Running { .. }) => {
                    return revoke(&sessions, &backend, &prompt);
                }
                Ok(Sighting::Ended(_) | Sighting::Absent) | Err(_) => {}
            }
        }
    });
}

/// A backend cannot be turned off, because this many clients are held there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} pending prompts there", in_number(*held, ["client has", "clients have"]))]
pub struct StillHeld {
    pub held: usize,
}

/// Sets an operator's state for a backend (B7).
///
/// # Errors
/// The state is off, clients are held there, and it is not forced.
pub fn set_state(
    sessions: &Arc<Sessions>,
    backend: &Backend,
    change: StateChange,
    force: Force,
) -> Result<(), StillHeld> {
    let state = change.state;
    let (by, why) = (Arc::clone(&change.by), change.why.clone().unwrap_or_default());
    if state == AdminState::Off {
        let held = held_clients(sessions, backend);
        if force == Force::Safe && !held.is_empty() {
            return Err(StillHeld { held: held.len() });
        }
        sessions.shared.records.state_said(backend, change);
        for client in held {
            let released = client.reset_placed(sessions, backend.id);
            told_released(sessions, &client, (Force::Forced, released));
        }
    } else {
        sessions.shared.records.state_said(backend, change);
    }
    let state = state.as_str();
    let (by, why) = (&*by, &*why);
    info!(backend = %backend.name(), state, by, why, "An operator set a backend's state.");
    Ok(())
}

/// Closes the sockets of node packs to a backend that takes nothing any more: at once if it is off,
/// and when no client is held there if it drains.
pub fn let_go_of_tunnels(sessions: &Sessions, backend: &Backend, held: &Held<'_>) {
    let is_over = match backend.admin() {
        AdminState::Ready => false,
        AdminState::Draining => sessions.tunnels.lead_to(backend.id) && held.at(backend.id) == 0,
        AdminState::Off => true,
    };
    if is_over {
        sessions.tunnels.close_to(backend.id, Farewell::Draining);
    }
}

/// Counts the clients that are held at each backend. All clients are read once for all backends, at
/// the first question.
#[derive(Debug)]
pub struct Held<'a> {
    sessions: &'a Sessions,
    /// If set, clients with a reservation at this moment count as well.
    reserved_at: Option<Instant>,
    /// If set, only these are read: those with prompts are enough for a look.
    among: Option<&'a [Arc<Client>]>,
    counts: OnceCell<BTreeMap<BackendId, usize>>,
}

impl<'a> Held<'a> {
    #[must_use]
    pub fn of(sessions: &'a Sessions) -> Self {
        Self { sessions, reserved_at: None, among: None, counts: OnceCell::new() }
    }

    /// The same, including clients whose upload waits there for its prompt: the prompt would not
    /// find its file elsewhere.
    #[must_use]
    pub fn or_reserved(sessions: &'a Sessions, now: Instant) -> Self {
        Self { reserved_at: Some(now), ..Self::of(sessions) }
    }

    /// The same, but without clients that are held by an upload alone: cheap enough to be asked
    /// again and again. `working` are all clients with prompts.
    #[must_use]
    pub fn among(sessions: &'a Sessions, working: &'a [Arc<Client>]) -> Self {
        Self { among: Some(working), ..Self::of(sessions) }
    }

    /// The number of clients held at this backend.
    #[must_use]
    pub fn at(&self, backend: BackendId) -> usize {
        let counts = self.counts.get_or_init(|| self.count());
        counts.get(&backend).copied().unwrap_or(0)
    }

    fn count(&self) -> BTreeMap<BackendId, usize> {
        let mut counts = BTreeMap::new();
        let all = self.among.map_or_else(|| self.sessions.clients.all().into(), Cow::Borrowed);
        for client in all.iter() {
            let held = client.inspect(|core, _| {
                let is_reserved = || self.reserved_at.is_some_and(|at| core.is_reserved(at));
                core.bound().filter(|_| core.is_held() || is_reserved())
            });
            if let Some((backend, _)) = held {
                *counts.entry(backend).or_default() += 1;
            }
        }
        counts
    }
}

/// The number of clients that are held at a backend, or have an upload there that waits for its
/// prompt. Their work would be lost with the backend.
#[must_use]
pub fn kept_there(sessions: &Sessions, backend: &Backend, now: Instant) -> usize {
    Held::or_reserved(sessions, now).at(backend.id)
}

fn held_clients(sessions: &Sessions, backend: &Backend) -> Vec<Arc<Client>> {
    let is_held_there = |client: &Arc<Client>| {
        client.inspect(|core, _| {
            core.is_held() && core.bound().is_some_and(|(id, _)| id == backend.id)
        })
    };
    sessions.clients.all().into_iter().filter(is_held_there).collect()
}
