//! Gives a client that returns to a gateway without a journal the prompts that its backends still
//! have.

use std::sync::Arc;

use tracing::info;

use super::Client;
use super::Sessions;
use super::submissions::Remembered;
use crate::masked::mask;
use crate::net::now;
use crate::routing::unclaimed::Found;

impl Client {
    /// Takes the prompts that were found under its id, if there are any. From then on they are
    /// pending like any other work, except that the link has missed their beginning.
    pub(crate) fn adopt(self: &Arc<Self>, sessions: &Arc<Sessions>) {
        let now = now();
        let found = sessions.adoption.claim(&self.id, now);
        if found.is_empty() {
            return;
        }
        let is_new = |found: &Found| sessions.shared.records.prompt_adopted(&self.id, found);
        let found: Vec<Found> = found.into_iter().filter(is_new).collect();
        let Some(first) = found.first() else { return };
        let mut turn = self.turn(sessions);
        if turn.is_gone {
            drop(turn);
            return self.give_back(sessions, found);
        }
        for found in found.iter().filter(|found| !found.output_nodes.is_empty()) {
            let remembered = Remembered::outputs(found.output_nodes.clone());
            turn.remembered.insert(found.prompt.clone(), remembered);
        }
        let account = |it: &Found| (it.prompt.clone(), sessions.account_of(&self.id));
        turn.keep_accounts(found.iter().map(account).collect());
        turn.act(|core| core.adopt(&found, now));
        drop(turn);
        let backend = &*sessions.shared.fleet.get(first.backend).name();
        let prompts = found.len();
        info!(client = %mask(&self.id), backend, prompts, "A client got its prompts back.");
    }

    /// The client was forgotten at this very moment: its successor with the same id takes them.
    fn give_back(&self, sessions: &Sessions, found: Vec<Found>) {
        found.iter().for_each(|found| sessions.shared.records.prompt_withdrawn(&found.prompt));
        let until = now() + sessions.shared.config().affinity.lease;
        let most = sessions.shared.config().prompts.max_pending_per_client;
        sessions.adoption.keep(self.id.clone(), found, until, most);
    }
}
