//! Hands prompts that wait in the gateway over to backends, as soon as one has room.
//!
//! What is due is decided by the queue (`session::waiting`); this looks at it whenever something
//! has changed, and gives each hand-over to a task of its own (`submit::hand_over`).

pub(super) mod askers;
pub(super) mod known_good;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tracing::info;

use super::{Front, submit};
use crate::net::{now, sleep};
use crate::routing::ids::BackendId;
use crate::routing::pending::{End, Loss};
use crate::session::Sessions;

/// Hands over what is due, until the process stops. What waits then stays in the journal.
pub(super) async fn run(front: Arc<Front>) {
    loop {
        let again = turn(&front);
        let look_again = async move {
            match again {
                Some(again) => sleep(again).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = front.shared.tasks.stopping() => return,
            () = front.sessions.waiting.changed() => {}
            () = look_again => {}
        }
    }
}

/// Hands over what is due now. Returns after how long to look again.
pub(super) fn turn(front: &Arc<Front>) -> Option<Duration> {
    if front.shared.tasks.is_stopping() {
        return None;
    }
    end_overdue(&front.sessions);
    let views = front.shared.fleet.views(now());
    let may_run = may_run(front);
    let due = front.sessions.waiting.due(&views, &may_run);
    end_refused(front, &may_run);
    for due in due.hand_over {
        front.shared.tasks.spawn(submit::hand_over::hand_over(Arc::clone(front), due));
    }
    due.look_again
}

/// The backends that may still run a prompt that waits.
pub(super) fn may_run(front: &Front) -> SmallVec<[BackendId; 8]> {
    front.shared.fleet.may_run(front.shared.config().fleet.grace, now())
}

/// Ends what all backends refuse.
fn end_refused(front: &Front, may_run: &[BackendId]) {
    for (prompt, client, why) in front.sessions.waiting.refused_by_all(may_run) {
        // A caller who is not answered yet gets the refusal itself (`submit`).
        if let Some(client) = front.sessions.clients.get(&client)
            && !front.askers.has(&prompt)
            && client.refused_while_it_waits(&front.sessions, &prompt, Arc::clone(&why))
        {
            front.shared.metrics.queue.refused_late.inc();
            info!(%prompt, why = &*why, "A prompt that was accepted is refused.");
        }
    }
}

/// Ends what has waited for longer than `queue.max_wait`.
fn end_overdue(sessions: &Arc<Sessions>) {
    for (prompt, client) in sessions.waiting.overdue() {
        let Some(client) = sessions.clients.get(&client) else { continue };
        if client.drop_waiting(sessions, &prompt, End::Lost(Loss::WaitedTooLong)) {
            info!(%prompt, "Prompt has waited too long.");
        }
    }
}
