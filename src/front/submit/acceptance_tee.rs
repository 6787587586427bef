//! Events of a prompt follow its answer.

use std::sync::Arc;

use crate::body::tee::Tee;
use crate::front::Front;
use crate::routing::ids::PromptId;
use crate::session::Client;

/// A submission whose answer is not written yet. When that is over, in whatever way, its events may
/// follow.
pub(super) struct AcceptanceTee {
    pub(super) front: Arc<Front>,
    pub(super) client: Arc<Client>,
    pub(super) prompt: PromptId,
}

impl Tee for AcceptanceTee {
    fn passed(&mut self, _data: &[u8]) -> bool {
        true
    }

    fn finished(self: Box<Self>) {}
}

impl Drop for AcceptanceTee {
    fn drop(&mut self) {
        self.client.answered(&self.front.sessions, &self.prompt);
    }
}
