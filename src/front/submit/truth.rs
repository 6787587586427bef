//! What became of a submission whose answer is missing, or proves nothing: its backend is asked
//! until it is known (promise P2).

use std::time::{Duration, Instant};

use tracing::debug;

use super::super::Answer;
use super::Sending;
use crate::comfy::answers::Sighting;
use crate::front::error::GatewayError;
use crate::net::{now, sleep};
use crate::routing::ledger::State;
use crate::routing::pending::{ABSENT_LOOKS_APART, End};
use crate::session::control;

/// For how long a submission's own task looks for it. Beyond any `prompts.answer_limit` that a
/// client waits for.
const LOOKS_FOR: Duration = Duration::from_secs(3_600);

/// How often, and after what pause, the ledger is read again for an end that was just relayed.
const LEDGER_FOLLOWS: usize = 50;
const LEDGER_LAG: Duration = Duration::from_millis(2);

/// The pause between two questions while a backend does not answer them.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Sending {
    /// Asks the backend until it is known whether it has the prompt (P2).
    pub(super) async fn look(self) -> Answer {
        let limit = self.front.shared.config.fleet.probe_timeout;
        let mut missed: Option<Instant> = None;
        let patience = now() + LOOKS_FOR;
        while self.is_pending() {
            if patience <= now() {
                return self.left_to_asking();
            }
            match self.backend().look_for(&self.prompt, limit).await {
                Ok(Sighting::Absent) => {
                    let first = *missed.get_or_insert_with(now);
                    let is_restarted =
                        self.backend().restarted().is_some_and(|gone| self.sent < gone);
                    let is_sure = ABSENT_LOOKS_APART <= now().duration_since(first);
                    if is_restarted || is_sure {
                        return self.not_there();
                    }
                }
                Ok(Sighting::Queued { number, .. } | Sighting::Running { number }) => {
                    return Ok(self.found(number));
                }
                Ok(Sighting::Ended(_)) => return Ok(self.found(None)),
                Err(error) => debug!(prompt = %self.prompt, %error, "Looking for a prompt."),
            }
            sleep(LOOK_AGAIN).await;
        }
        if matches!(self.state(), Some(State::Ended(End::Lost(_)))) {
            // What was sent may still arrive, and nobody wants it.
            control::call_back(&self.front.sessions, self.backend(), &self.prompt);
        }
        self.ended_meanwhile().await
    }

    /// Its client was told long ago that nobody knows; the reconciler goes on asking.
    fn left_to_asking(self) -> Answer {
        self.taken();
        self.client.must_ask(&self.front.sessions, self.backend().id);
        let backend = self.backend().name().to_string();
        Err(GatewayError::StateUnknown { backend, prompt: self.prompt.to_string() })
    }

    /// It is said not to be queued; should that turn out wrong, it is stopped.
    fn not_there(self) -> Answer {
        let backend = self.backend().name().to_string();
        // Before the id is free: one who uses it again must not find it disowned after that.
        self.client.disown(&self.prompt);
        let answer = self.withdraw(GatewayError::NotQueued { backend });
        control::watch_for(&self.front.sessions, self.backend(), &self.prompt);
        answer
    }

    /// It ended while it was looked for. Its events said so, and only what was taken has events;
    /// or it was ended as lost, or by force.
    pub(super) async fn ended_meanwhile(self) -> Answer {
        // Whoever took it out of the pending map tells the ledger in the next moment.
        for _ in 0..LEDGER_FOLLOWS {
            if self.state() != Some(State::Pending) {
                break;
            }
            sleep(LEDGER_LAG).await;
        }
        match self.state() {
            Some(State::Ended(End::Succeeded | End::Failed | End::Interrupted | End::Deleted)) => {
                Ok(self.found(None))
            }
            Some(State::Ended(End::Lost(_)) | State::Pending | State::Learned) | None => {
                self.backend().load.not_taken();
                Err(GatewayError::BackendDown { backend: self.backend().name().to_string() })
            }
        }
    }
}
