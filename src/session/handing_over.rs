//! A client's prompts that wait in the gateway: they enter the queue, go to a backend, come back,
//! or end while they wait.

use std::sync::Arc;

use super::apply::{Brought, Turn};
use super::completion::Completion;
use super::submissions::{Placed, Remembered};
use super::waiting::Full;
use super::{Client, Gone, Sessions};
use crate::comfy::lists::waiting::Parts;
use crate::journal::NotDurable;
use crate::journal::record::Kept;
use crate::net::now;
use crate::queue::{BoundAt, Spent};
use crate::routing::client::NotNow;
use crate::routing::decision::Refusal;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Errand, Pending};
use crate::routing::placement::FleetNow;

/// Why a submission does not wait.
#[derive(Clone, Copy, Debug)]
pub enum NotQueued {
    Refused(Refusal),
    Full(Full),
}

impl Sessions {
    /// What has ended while it waited must not wait again after a kill: whoever has ended it is
    /// told when that is durable. At once if nothing has ever waited.
    ///
    /// # Errors
    /// The journal fails, or is too slow.
    pub async fn settled(&self) -> Result<(), NotDurable> {
        match self.waiting.is_used() {
            true => self.shared.records.journal.durable().await,
            false => Ok(()),
        }
    }
}

impl Client {
    /// A submission waits: it is pending from here on. It counts against the limits of its payer.
    ///
    /// # Errors
    /// [`Gone`] if the client was forgotten meanwhile. Nothing is pending after an error.
    pub fn enqueue(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        told: Remembered,
        kept: Kept,
    ) -> Result<Result<(), NotQueued>, Gone> {
        let max = sessions.shared.config().prompts.max_pending_per_client;
        // Before the lock: a body may be large.
        let shown = Arc::new(Parts::of(&kept.body));
        let wants = sessions.waiting.wants(&kept.body);
        let mut turn = self.turn(sessions);
        if turn.is_gone {
            return Err(Gone);
        }
        let last = turn.core.bound().map(|(backend, _)| backend);
        if let Err(full) = sessions.waiting.enter(prompt, &self.id, (kept, shown, wants), last) {
            return Ok(Err(NotQueued::Full(full)));
        }
        let brought = Brought::Submission(told);
        let queued = turn.act_with(brought, |core| core.enqueue(prompt.clone(), max, now()));
        if queued.is_err() {
            sessions.waiting.over(prompt, Spent::Broke);
        }
        Ok(queued.map_err(NotQueued::Refused))
    }

    /// A prompt that waits goes to `backend`, if that is possible; its link is being opened.
    /// Returns the number of this attempt as well.
    ///
    /// # Errors
    /// It does not wait any more, or may not go there now. In the latter case the caller puts it
    /// back into the queue, in a moment.
    pub fn hand_over(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        (backend, errand): (BackendId, Errand),
    ) -> Result<(Placed, u32), NotNow> {
        let now = now();
        let views = sessions.shared.fleet.views(now);
        let fleet = FleetNow { backends: &views, turn: sessions.shared.fleet.turn() };
        let mut turn = self.turn(sessions);
        let decided = match turn.is_gone {
            true => Err(NotNow::NotWaiting),
            false => turn.act(|core| core.hand_over(prompt, (backend, errand), fleet, now)),
        };
        match decided {
            Ok(decision) => {
                let attempt = turn.core.pending().get(prompt).map_or(0, Pending::attempt);
                Ok((self.placed(&mut turn, decision), attempt))
            }
            Err(why) => {
                not_now(&turn, prompt, why);
                Err(why)
            }
        }
    }

    /// A prompt that was being sent is certainly at no backend: it waits again. False if this
    /// attempt is over already.
    pub fn wait_again(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (prompt, attempt): (&PromptId, u32),
    ) -> bool {
        self.turn(sessions).act(|core| core.wait_again(prompt, attempt, now()))
    }

    /// The first byte of an attempt is about to be sent. False if it must not be.
    #[must_use]
    pub fn goes_out(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (prompt, attempt): (&PromptId, u32),
    ) -> bool {
        self.turn(sessions).act(|core| core.goes_out(prompt, attempt, now()))
    }

    /// The task of an attempt cannot find out what became of it: its backend is asked from now on.
    pub fn left_to_asking(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (prompt, attempt): (&PromptId, u32),
    ) {
        self.turn(sessions).act(|core| core.left_to_asking(prompt, attempt));
        sessions.waiting.wake();
    }

    /// The process that an attempt went to is gone, and may have begun it: it is lost.
    pub fn lost_on_the_way(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (prompt, attempt): (&PromptId, u32),
    ) {
        self.turn(sessions).act(|core| core.lost_on_the_way(prompt, attempt, now()));
    }

    /// The backend of an attempt was turned off by force, and may run it: it is lost, and stopped
    /// there.
    pub fn cut_off(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (prompt, attempt): (&PromptId, u32),
    ) {
        self.turn(sessions).act(|core| core.cut_off(prompt, attempt, now()));
    }

    /// A prompt that waits leaves no trace: its caller is told that it was not accepted. One that
    /// was handed over meanwhile goes on: false then.
    pub fn withdraw_waiting(self: &Arc<Self>, sessions: &Arc<Sessions>, prompt: &PromptId) -> bool {
        let mut turn = self.turn(sessions);
        let waits = turn.core.pending().get(prompt).is_some_and(Pending::is_waiting);
        if waits {
            turn.act(|core| core.withdraw(prompt));
        }
        waits
    }

    /// What tells the end of a prompt that is pending.
    #[must_use]
    pub fn completion_of(&self, prompt: &PromptId) -> Arc<Completion> {
        let mut state = self.state();
        let is_pending = state.core.pending().contains_key(prompt);
        match state.remembered.get(prompt) {
            Some(remembered) => remembered.completion(),
            None if is_pending => {
                let remembered = Remembered::default();
                let completion = remembered.completion();
                state.remembered.insert(prompt.clone(), remembered);
                completion
            }
            None => Arc::default(),
        }
    }

    /// Ends a prompt that waits. False if it does not wait.
    pub fn drop_waiting(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        end: End,
    ) -> bool {
        self.turn(sessions).act(|core| core.drop_waiting(prompt, end, now()))
    }

    /// The prompt was accepted without a backend, and the one that this attempt went to refuses it,
    /// as all do: it has ended with what that one said. Nothing happens if the attempt is over.
    pub fn refused_late(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (prompt, attempt): (&PromptId, u32),
        why: Arc<str>,
    ) {
        let mut turn = self.turn(sessions);
        if turn.core.pending().get(prompt).is_none_or(|it| it.attempt() != attempt) {
            return;
        }
        if let Some(remembered) = turn.remembered.get_mut(prompt) {
            remembered.refusal = Some(why);
        }
        turn.act(|core| core.refused_late(prompt, now()));
    }

    /// The same for a prompt that waits. False if it does not: it was handed over meanwhile, to a
    /// backend that has just joined.
    pub fn refused_while_it_waits(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        why: Arc<str>,
    ) -> bool {
        let mut turn = self.turn(sessions);
        if !turn.core.pending().get(prompt).is_some_and(Pending::is_waiting) {
            return false;
        }
        if let Some(remembered) = turn.remembered.get_mut(prompt) {
            remembered.refusal = Some(why);
        }
        turn.act(|core| core.refused_late(prompt, now()));
        true
    }
}

/// The queue has chosen a prompt that does not go there now.
fn not_now(turn: &Turn<'_>, prompt: &PromptId, why: NotNow) {
    let (sessions, client) = (turn.sessions(), turn.client());
    match why {
        NotNow::NotWaiting if turn.core.pending().contains_key(prompt) => {}
        NotNow::NotWaiting => drop(sessions.waiting.over(prompt, Spent::Broke)),
        NotNow::HeldAt(backend) => {
            let bound = BoundAt { bound: Some(backend), held: Some(backend) };
            sessions.waiting.holds(&client.id, bound);
        }
        NotNow::NoRoom => {}
    }
}
