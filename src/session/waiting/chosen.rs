//! The prompt of a client that is on its way to a backend: its next one does not overtake it.

use std::time::Duration;

use super::{Aside, Due, Index};
use crate::queue::ids::ClientKey;
use crate::queue::schedule::HandOver;
use crate::routing::ids::{ClientId, PromptId};

impl Index {
    /// A prompt was chosen. `None` if its client's last one is still on the way.
    pub(super) fn chosen(&mut self, it: &HandOver, at: Duration) -> Option<Due> {
        let prompt = self.ids.get(&it.prompt)?.clone();
        let client = self.prompts.get(&prompt)?.client.clone();
        if self.on_the_way.contains_key(&client) {
            self.queue.returned(it.prompt, &[], at);
            return None;
        }
        self.on_the_way.insert(client.clone(), prompt.clone());
        self.queue.pauses(it.client, Aside::Yes, at);
        Some(Due { prompt, client, backend: it.backend, why: it.why })
    }

    /// A prompt from before a restart was being sent, as far as is known.
    pub(super) fn is_on_the_way(&mut self, prompt: &PromptId, at: Duration) {
        let Some(client) = self.prompts.get(prompt).map(|it| it.client.clone()) else { return };
        self.on_the_way.entry(client.clone()).or_insert_with(|| prompt.clone());
        self.pauses_if_on_the_way(&client, at);
    }

    /// The queue may have forgotten that a prompt of the client is on the way, or not know of it.
    pub(super) fn pauses_if_on_the_way(&mut self, client: &ClientId, at: Duration) {
        if self.on_the_way.contains_key(client)
            && let Some(key) = self.clients.get(client)
        {
            self.queue.pauses(ClientKey(key), Aside::Yes, at);
        }
    }

    /// The prompt is not on the way any more.
    pub(super) fn arrived(&mut self, prompt: &PromptId, at: Duration) {
        let Some(client) = self.prompts.get(prompt).map(|it| it.client.clone()) else { return };
        if self.on_the_way.get(&client) == Some(prompt) {
            self.on_the_way.remove(&client);
            if let Some(key) = self.clients.get(&client) {
                self.queue.pauses(ClientKey(key), Aside::No, at);
            }
        }
    }
}
