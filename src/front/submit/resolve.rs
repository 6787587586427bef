//! Finds out what happened to a submission whose answer is missing or proves nothing: its backend
//! is asked until the result is known (promise P2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;

use super::super::Answer;
use super::Sending;
use crate::comfy::answers::Sighting;
use crate::front::error::GatewayError;
use crate::net::{now, sleep};
use crate::routing::pending::{ABSENT_LOOKS_APART, End, Fate};
use crate::session::control;

/// How long the submission's own task asks. This is longer than any `prompts.answer_limit`, which
/// is how long a client waits.
const LOOKS_FOR: Duration = Duration::from_secs(3_600);

/// How soon after a prompt is not pending any more its end must be known. That takes two locks.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// The pause between two requests while a backend does not answer them.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Why a submission is certainly nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Nowhere {
    /// The backend knows nothing of it.
    NeverArrived,
    /// The process that it was sent to is gone, and may have begun it.
    ProcessGone,
    /// It is not where this attempt went, and is looked after by another.
    AttemptOver,
}

/// The result of the search.
enum Looked {
    /// The backend has it. It waits at this position if the backend says so, or is further along.
    There(Option<f64>),
    /// It is certainly nowhere.
    Nowhere(Nowhere),
    /// It ended in the meantime: its events said so, or it was given up.
    Ended(End),
    /// Nobody waits for the result any more.
    Unknown,
    /// This attempt is over.
    Over,
}

impl Sending {
    /// Asks the backend until it is known whether it has the prompt (P2).
    pub(super) async fn look(mut self) -> Answer {
        match self.find_out().await {
            Ok(answer) => answer,
            Err(Nowhere::NeverArrived | Nowhere::ProcessGone | Nowhere::AttemptOver) => {
                self.not_there()
            }
        }
    }

    /// The same. It is certainly nowhere if there is no answer.
    pub(super) async fn find_out(&mut self) -> Result<Answer, Nowhere> {
        let looked = tokio::select! {
            biased;
            end = self.completion.end() => Looked::Ended(end),
            looked = self.looked() => looked,
        };
        Ok(match looked {
            Looked::There(number) => Ok(self.found(number).await),
            Looked::Nowhere(why) => return Err(why),
            Looked::Unknown => self.left_to_asking().await,
            Looked::Over => return Err(Nowhere::AttemptOver),
            Looked::Ended(end) => {
                self.revoke_if_lost(Some(end));
                self.ended(end).await
            }
        })
    }

    /// What becomes of it, whose process is gone.
    pub(super) fn fate(&self) -> Fate {
        match self.attempt {
            Some(_) => self.client.process_gone(&self.front.sessions, self.backend(), &self.prompt),
            // Nothing of it is kept.
            None => Fate::Stays,
        }
    }

    async fn looked(&self) -> Looked {
        let limit = self.front.shared.config().fleet.probe_timeout;
        let mut missed: Option<Instant> = None;
        let patience = now() + LOOKS_FOR;
        while now() < patience {
            if self.attempt.is_some() && !self.is_pending() {
                // Its process has died before it began it, and it waits again. Or it has ended,
                // which is known in a moment.
                return Looked::Over;
            }
            match self.backend().look_for(&self.prompt, limit).await {
                Ok(Sighting::Absent) => {
                    let first = *missed.get_or_insert_with(now);
                    let is_restarted =
                        self.backend().restarted().is_some_and(|gone| self.sent < gone);
                    let is_sure = ABSENT_LOOKS_APART <= now().duration_since(first);
                    if is_restarted {
                        match self.fate() {
                            Fate::Stays => return Looked::Nowhere(Nowhere::ProcessGone),
                            Fate::Unclear => {}
                            Fate::Unbegun | Fate::Lost => return Looked::Over,
                        }
                    } else if is_sure {
                        return Looked::Nowhere(Nowhere::NeverArrived);
                    }
                }
                Ok(Sighting::Queued { number, .. } | Sighting::Running { number }) => {
                    return Looked::There(number);
                }
                Ok(Sighting::Ended(_)) => return Looked::There(None),
                Err(error) => debug!(prompt = %self.prompt, %error, "Looking for a prompt."),
            }
            sleep(LOOK_AGAIN).await;
        }
        Looked::Unknown
    }

    /// The client was told long ago that the result is unknown. The reconciler continues to ask.
    async fn left_to_asking(&mut self) -> Answer {
        self.taken().await;
        self.client.must_ask(&self.front.sessions, self.backend().id);
        Err(GatewayError::state_unknown(&self.backend().name(), &self.prompt))
    }

    /// The client is told that it is not queued. If it appears later all the same, it is stopped.
    fn not_there(mut self) -> Answer {
        let backend = self.backend().name().to_string();
        // This comes before the id is free: a new prompt with this id must not be disowned.
        self.client.disown(&self.prompt);
        let answer = self.withdraw(GatewayError::NotQueued { backend });
        control::watch_late_arrival(&self.front.sessions, self.backend(), &self.prompt);
        answer
    }

    /// It is not pending any more, and was not sent.
    pub(super) async fn ended_meanwhile(&mut self) -> Answer {
        match self.settled_end().await {
            Some(end) => self.ended(end).await,
            None => Err(self.is_down()),
        }
    }

    /// How it ended, once it is not pending any more.
    pub(super) async fn settled_end(&self) -> Option<End> {
        let completion = Arc::clone(&self.completion);
        timeout(SETTLES_WITHIN, completion.end()).await.ok()
    }

    /// It ended without an answer. Either its events said so, which only exist for accepted
    /// prompts, or it was given up, or it was ended by force.
    async fn ended(&mut self, end: End) -> Answer {
        match end {
            End::Succeeded | End::Failed | End::Interrupted | End::Deleted => {
                Ok(self.found(None).await)
            }
            End::Lost(_) => Err(self.is_down()),
        }
    }

    fn is_down(&self) -> GatewayError {
        GatewayError::BackendDown { backend: self.backend().name().to_string() }
    }
}
