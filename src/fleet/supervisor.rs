//! The care of one backend, from the moment it joins until it leaves.

use std::sync::Arc;

use super::backend::{Backend, Common};
use super::{doors, watch};

/// Watches `backend` and knocks at its doors until it leaves the fleet, or the process stops.
/// What panics begins anew.
pub(super) fn supervise(backend: &Arc<Backend>, common: &Common) {
    let (network, config, tasks) = (&common.network, &common.fleet, &common.tasks);
    let watched = (Arc::clone(backend), Arc::clone(network), config.clone());
    tasks.spawn_again(move || {
        let (backend, network, config) = watched.clone();
        watch::watch(backend, network, config)
    });
    let knocked = (Arc::clone(backend), config.clone());
    tasks.spawn_again(move || {
        let (backend, config) = knocked.clone();
        doors::knock(backend, config)
    });
    let closing = Arc::clone(backend);
    tasks.spawn(async move {
        closing.leaves().await;
        closing.pool.close_idle();
    });
}
