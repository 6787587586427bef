//! What an operator, or a client for itself, may do: release, reset, drain, take a backend off.

use std::sync::Arc;

use tracing::info;

use crate::client::Client;
use crate::fleet::backend::Backend;
use crate::gateway::Gateway;
use crate::routing::decision::StillPending;
use crate::routing::place::AdminState;

/// How a reset treats pending work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Force {
    /// Refuses while anything is pending.
    Safe,
    /// Ends it as lost.
    Forced,
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
    info!(client = %client.id, cut_off, ?force, "Client was reset.");
    let gateway_of_task = Arc::clone(gateway);
    gateway.tasks.spawn(async move {
        for (prompt, pending) in released.cut_off {
            let backend = Arc::clone(gateway_of_task.fleet.get(pending.backend));
            let limit = gateway_of_task.config.fleet.probe_timeout;
            // Where the backend answers: one that does not will be asked by nobody.
            let _ = backend.delete(std::slice::from_ref(&prompt), limit).await;
            let _ = backend.interrupt(&prompt, limit).await;
        }
    });
    Ok(cut_off)
}

/// So many held clients keep a backend from being taken off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{held} clients have pending prompts there")]
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
    state: AdminState,
    force: Force,
) -> Result<(), StillHeld> {
    if state == AdminState::Off {
        let held = held_clients(gateway, backend);
        if force == Force::Safe && !held.is_empty() {
            return Err(StillHeld { held: held.len() });
        }
        backend.set_admin(state);
        for client in held {
            // A forced reset is never refused.
            let _ = reset(gateway, &client, Force::Forced);
        }
    } else {
        backend.set_admin(state);
    }
    Ok(())
}

fn held_clients(gateway: &Gateway, backend: &Backend) -> Vec<Arc<Client>> {
    let is_held_there = |client: &Arc<Client>| {
        client.inspect(|core, _| {
            core.is_held() && core.bound().is_some_and(|(id, _)| id == backend.id)
        })
    };
    gateway.clients.all().into_iter().filter(is_held_there).collect()
}
