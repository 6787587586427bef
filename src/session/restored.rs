//! A client restored after a restart: it is bound where it was, its pending prompts are asked for,
//! and ends that perhaps no socket got are sent again.

use std::sync::Arc;

use indexmap::IndexMap;

use super::Sessions;
use super::apply::After;
use super::submissions::Remembered;
use super::{Client, Told};
use crate::comfy::answers::Ended;
use crate::fleet::dial_limiter::Haste;
use crate::journal::record::Kept;
use crate::journal::restore::{Lost, RestoredClient, Undelivered};
use crate::metrics::EndedPrompt;
use crate::net::now;
use crate::routing::client as core;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::pending::{End, Pending};
use crate::shared::Shared;

impl Client {
    /// Restored, but not yet active: see [`Client::take_up`].
    #[must_use]
    pub fn restored(restored: RestoredClient, sessions: &Arc<Sessions>) -> Arc<Self> {
        let RestoredClient { id, binding, pending, output_nodes, kept, lost, undelivered } =
            restored;
        sessions.waits_again(&id, &pending, kept);
        let account = |prompt: &PromptId| (prompt.clone(), sessions.account_of(&id));
        let accounts = pending.keys().map(account).collect();
        let core = core::Client::restored(binding, pending, now());
        let client = Arc::new(Self::with_core(id, &sessions.logs, core));
        let mut turn = client.turn(sessions);
        let remembered = |(prompt, nodes)| (prompt, Remembered::outputs(nodes));
        turn.remembered = output_nodes.into_iter().map(remembered).collect();
        turn.keep_accounts(accounts);
        let (to_fetch, to_tell): (Vec<_>, Vec<_>) =
            undelivered.into_iter().partition(|it| it.backend.is_some() && has_history(it.end));
        if !to_fetch.is_empty() {
            *turn.undelivered.get() = to_fetch;
        }
        for Undelivered { prompt, backend, end } in to_tell {
            let backend = &sessions.shared.fleet.name_of(backend);
            turn.tell_end(&prompt, end, backend);
            turn.log.ended(&prompt, now());
        }
        for Lost { prompt, backend, loss } in lost {
            let (end, told) = (End::Lost(loss), Told::No);
            turn.tell_end(&prompt, end, &backend);
            turn.log.ended(&prompt, now());
            let counts = EndedPrompt { backend, end, waited: None, ran: None };
            turn.later(After::Ended { prompt, counts, told, waits: None });
        }
        drop(turn);
        client
    }

    /// Resumes: counts the client at its backend, and opens a link if it has work there.
    pub fn take_up(self: &Arc<Self>, sessions: &Arc<Sessions>) {
        if self.has_prompts_to_ask_about() {
            sessions.clients.has_work(self);
        }
        let mut state = self.state();
        let Some((backend, _)) = state.core.bound() else { return };
        sessions.shared.fleet.get(backend).client_came();
        if state.core.is_held() {
            self.ensure_link(&mut state, sessions, (backend, Haste::Again));
        }
    }

    /// Ends that must be fetched.
    #[must_use]
    pub fn undelivered(&self) -> Vec<Undelivered> {
        self.state().undelivered.seen().cloned().unwrap_or_default()
    }

    /// Sends an end from before the restart, with what its backend still knows of the prompt.
    pub(super) fn tell_again(
        &self,
        shared: &Shared,
        (undelivered, backend): (&Undelivered, BackendId),
        history: Option<&Ended>,
    ) {
        let named = (backend, &undelivered.prompt);
        let history = history.map(|history| self.named_history(shared, named, history));
        let mut state = self.state();
        if !state.forget_untold(&undelivered.prompt) {
            return;
        }
        match history {
            Some(history) => state.tell_history(&undelivered.prompt, history),
            None => {
                let backend = &shared.fleet.get(backend).name();
                state.tell_end(&undelivered.prompt, undelivered.end, backend);
            }
        }
        state.log.ended(&undelivered.prompt, now());
    }
}

impl super::State {
    /// True if it still had to be sent.
    fn forget_untold(&mut self, prompt: &PromptId) -> bool {
        let Some(undelivered) = self.undelivered.made() else { return false };
        let before = undelivered.len();
        undelivered.retain(|undelivered| undelivered.prompt != *prompt);
        undelivered.len() < before
    }
}

/// True if a backend writes a history entry for this end.
fn has_history(end: End) -> bool {
    match end {
        End::Succeeded | End::Failed | End::Interrupted => true,
        End::Deleted | End::Lost(_) => false,
    }
}

impl Sessions {
    /// Prompts of a client whose bodies are kept: they wait, or their backends are asked for them.
    fn waits_again(
        &self,
        client: &ClientId,
        pending: &IndexMap<PromptId, Pending>,
        kept: Vec<(PromptId, Kept)>,
    ) {
        for (prompt, kept) in kept {
            let Some(pending) = pending.get(&prompt) else { continue };
            if pending.is_waiting() {
                self.shared.records.ledger_of(&prompt).waits(&prompt);
            }
            self.waiting.restore(&prompt, client, kept, pending);
        }
    }
}
