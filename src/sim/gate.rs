//! Requests that are held until they are let go, so that a test decides what happens meanwhile.

use tokio::sync::watch;

use super::{Faults, Shared};

/// The requests that are held now.
#[derive(Debug, Default)]
pub(super) struct Gate {
    held: watch::Sender<usize>,
}

/// One that is held, until it goes on or its connection breaks.
struct HeldRequest<'a>(&'a Gate);

impl Gate {
    fn hold(&self) -> HeldRequest<'_> {
        self.held.send_modify(|held| *held += 1);
        HeldRequest(self)
    }

    /// Waits until so many requests are held.
    pub(super) async fn holds(&self, count: usize) {
        // The sender is in `self`, so this cannot fail.
        let _ = self.held.subscribe().wait_for(|held| *held == count).await;
    }
}

impl Drop for HeldRequest<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held = held.saturating_sub(1));
    }
}

/// Holds a request while these faults name it, as `POST /prompt`.
pub(super) async fn pass(shared: &Shared, request: &str, held: fn(&Faults) -> &str) {
    let is_held = || {
        let faults = shared.faults();
        held(&faults) == request
    };
    if !is_held() {
        return;
    }
    let _held = shared.gate.hold();
    loop {
        // Before the look: no change is missed.
        let changed = shared.faults_changed.notified();
        if !is_held() {
            return;
        }
        changed.await;
    }
}
