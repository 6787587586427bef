//! Records of prompts that wait, or have waited.

use super::versions::{TAKEN, WAITS};
use super::{PromptRecord, Sent};
use crate::routing::ids::ClientId;
use crate::routing::pending::Errand;

impl PromptRecord {
    /// A prompt that waits in the gateway.
    #[must_use]
    pub fn waiting(client: &ClientId, (made, order): (u64, u64), nodes: Vec<String>) -> Self {
        let sent = Sent { backend: "".into(), url: "".into(), made, order };
        Self { v: WAITS, ..Self::new(client, sent, nodes) }
    }

    /// True if it waits in the gateway: it has no server.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.ended.is_none() && self.url.is_empty()
    }

    /// True if it was at no server when this was written.
    #[must_use]
    pub fn has_waited_only(&self) -> bool {
        self.url.is_empty()
    }

    /// The same prompt, which goes to its server for a verdict only.
    #[must_use]
    pub fn on_trial(self) -> Self {
        Self { trial: true, ..self }
    }

    /// The same prompt, which its server has accepted.
    #[must_use]
    pub fn taken(self) -> Self {
        Self { v: TAKEN, taken: true, ..self }
    }

    /// True if it has waited, and its server has accepted it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// What it went to its server for.
    #[must_use]
    pub fn errand(&self) -> Errand {
        if self.trial { Errand::Trial } else { Errand::Run }
    }
}
