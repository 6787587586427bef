//! Runs the tasks of one backend, from the moment it joins until it leaves.

use std::sync::Arc;

use super::backend::{Backend, Common};
use super::{breaker, devices, watch};

/// Watches `backend`, tries new connections to it and reads its devices until it leaves the fleet,
/// or the process stops. A task that panics is started again.
pub(super) fn supervise(backend: &Arc<Backend>, common: &Common) {
    let (live, tasks) = (&common.live, &common.tasks);
    backend.warn_if_insecure();
    let watched = (Arc::clone(backend), common.clone());
    tasks.spawn_again(move || {
        let (backend, common) = watched.clone();
        watch::watch(backend, common)
    });
    let knocked = (Arc::clone(backend), live.clone());
    tasks.spawn_again(move || {
        let (backend, live) = knocked.clone();
        breaker::probe(backend, live)
    });
    let looked_at = (Arc::clone(backend), common.clone());
    tasks.spawn_again(move || {
        let (backend, common) = looked_at.clone();
        devices::read(backend, common)
    });
    let closing = Arc::clone(backend);
    tasks.spawn(async move {
        closing.leaves().await;
        closing.pool.close_idle();
    });
}
