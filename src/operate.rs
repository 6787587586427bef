//! What an operator, or a client for itself, may do: release, reset, drain, take a backend off.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tracing::info;

use crate::client::Client;
use crate::comfy::answers::Sighting;
use crate::fleet::backend::Backend;
use crate::fleet::word::Word;
use crate::front::interrupts;
use crate::gateway::Gateway;
use crate::masked::mask;
use crate::net::{now, sleep};
use crate::routing::decision::{StillPending, in_number};
use crate::routing::ids::PromptId;
use crate::routing::place::AdminState;
use crate::tunnels::Farewell;

/// How many prompts of a reset are stopped at one time.
const STOPPED_AT_ONCE: usize = 8;

/// How a reset treats pending work.
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

/// Releases a client's binding (B7). Returns how many prompts were cut off.
///
/// # Errors
/// The reset is safe and so much is pending.
pub fn reset(
    gateway: &Arc<Gateway>,
    client: &Arc<Client>,
    force: Force,
) -> Result<usize, StillPending> {
    let released = match force {
        Force::Safe => client.release(gateway)?,
        Force::Forced => client.reset(gateway),
    };
    let cut_off = released.cut_off.len();
    let (client, reason) = (mask(&client.id), force.as_str());
    let backend = released.backend.map(|id| gateway.fleet.get(id).name.as_str());
    info!(%client, backend, reason, cut_off, "Client was released.");
    let gateway = Arc::clone(gateway);
    gateway.clone().tasks.spawn(async move {
        let gateway = &gateway;
        let stops = stream::iter(released.cut_off).map(|(prompt, pending)| async move {
            // Where the backend answers: one that does not will be asked by nobody.
            stop(gateway, gateway.fleet.get(pending.backend), &prompt).await
        });
        stops.buffer_unordered(STOPPED_AT_ONCE).for_each(|_answered| ready(())).await;
    });
    Ok(cut_off)
}

/// Stops a prompt wherever it is: one that waits is deleted, one that runs is interrupted until it
/// does not. True if the backend answered both.
pub async fn stop(gateway: &Arc<Gateway>, backend: &Arc<Backend>, prompt: &PromptId) -> bool {
    let limit = gateway.config.fleet.probe_timeout;
    let deleted = backend.delete(std::slice::from_ref(prompt), limit).await;
    let interrupted = interrupts::interrupt(gateway, backend, vec![prompt.clone()]).await;
    deleted.is_ok() && interrupted.is_ok()
}

/// A prompt is there although its client was told that it is not: nobody wants it (P2, P6).
pub fn call_back(gateway: &Arc<Gateway>, backend: &Arc<Backend>, prompt: &PromptId) {
    gateway.metrics.prompts_turned_up.inc();
    let (gateway, backend, prompt) = (Arc::clone(gateway), Arc::clone(backend), prompt.clone());
    gateway.clone().tasks.spawn(async move {
        let stopped = stop(&gateway, &backend, &prompt).await;
        info!(%prompt, backend = %backend.name, stopped, "A prompt turned up that was given up.");
    });
}

/// When a prompt that was answered as not queued is looked for again: a connection that was given
/// up can deliver late.
const LATE_LOOKS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60)];

/// Looks now and then whether a prompt that was answered as not queued turns up, and stops it.
/// Should it begin to run meanwhile, the client's link says so, and it is stopped there and then.
pub fn watch_for(gateway: &Arc<Gateway>, backend: &Arc<Backend>, prompt: &PromptId) {
    // Past the limit only the links watch.
    let Ok(seat) = Arc::clone(&gateway.late_looks).try_acquire_owned() else { return };
    let (gateway, backend, prompt) = (Arc::clone(gateway), Arc::clone(backend), prompt.clone());
    let tasks = gateway.tasks.clone();
    tasks.spawn(async move {
        let _seat = seat;
        let limit = gateway.config.fleet.probe_timeout;
        for pause in LATE_LOOKS {
            tokio::select! {
                biased;
                () = sleep(pause) => {}
                () = gateway.tasks.stopping() => return,
            }
            let found = backend.look_for(&prompt, limit).await;
            // It was withdrawn: if the id is known now, it is another submission's.
            if gateway.ledger().get(&prompt, now()).is_some() {
                return;
            }
            match found {
                Ok(Sighting::Queued { .. } | Sighting::Running { .. }) => {
                    return call_back(&gateway, &backend, &prompt);
                }
                Ok(Sighting::Ended(_) | Sighting::Absent) | Err(_) => {}
            }
        }
    });
}

/// So many held clients keep a backend from being taken off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} pending prompts there", in_number(*held, ["client has", "clients have"]))]
pub struct StillHeld {
    pub held: usize,
}

/// Sets what the operator says of a backend (B7).
///
/// # Errors
/// It is to be off, clients are held there, and it is not forced.
pub fn set_state(
    gateway: &Arc<Gateway>,
    backend: &Backend,
    word: Word,
    force: Force,
) -> Result<(), StillHeld> {
    let state = word.state;
    let (by, why) = (Arc::clone(&word.by), word.why.clone().unwrap_or_default());
    if state == AdminState::Off {
        let held = held_clients(gateway, backend);
        if force == Force::Safe && !held.is_empty() {
            return Err(StillHeld { held: held.len() });
        }
        gateway.state_said(backend, word);
        for client in held {
            // A forced reset is never refused.
            let _ = reset(gateway, &client, Force::Forced);
        }
    } else {
        gateway.state_said(backend, word);
    }
    let state = state.as_str();
    let (by, why) = (&*by, &*why);
    info!(backend = %backend.name, state, by, why, "An operator set a backend's state.");
    Ok(())
}

/// Closes the sockets of node packs to a backend that takes nothing any more: at once if it is off,
/// and once no client is held there if it drains.
pub fn let_go_of_tunnels(gateway: &Gateway, backend: &Backend) {
    let is_over = match backend.admin() {
        AdminState::Ready => false,
        AdminState::Draining => {
            gateway.tunnels.lead_to(backend.id) && held_clients(gateway, backend).is_empty()
        }
        AdminState::Off => true,
    };
    if is_over {
        gateway.tunnels.close_to(backend.id, Farewell::Draining);
    }
}

fn held_clients(gateway: &Gateway, backend: &Backend) -> Vec<Arc<Client>> {
    let is_held_there = |client: &Arc<Client>| {
        client.inspect(|core, _| {
            core.is_held() && core.bound().is_some_and(|(id, _)| id == backend.id)
        })
    };
    gateway.clients.all().into_iter().filter(is_held_there).collect()
}
