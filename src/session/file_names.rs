//! Replaces the names of files in events by the names for clients (promise R3).

use super::Client;
use crate::comfy::answers::Ended;
use crate::comfy::event;
use crate::routing::files::Maker;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::user_folder::UserFolder;
use crate::shared::Shared;
use crate::ws::{Frame, Opcode};

impl Client {
    /// The frame, with the names of its files replaced by those for clients (R3), and without the
    /// folder of their user.
    pub(super) fn named(&self, shared: &Shared, backend: BackendId, frame: Frame) -> Frame {
        if frame.opcode != Opcode::Text {
            return frame;
        }
        let mut payload = frame.payload;
        if event::is_executed(&payload) {
            let maker = [Maker::Client(self.id.clone())];
            payload = shared.records.name_outputs(backend, &maker, payload);
        }
        // Errors of nodes show what stood in their inputs.
        let user = self.id.user().map(UserFolder::of);
        if let Some(told) = user.and_then(|user| user.taken_off(&payload)) {
            payload = told.into();
        }
        Frame { payload, ..frame }
    }

    /// The events in a history entry, with the names of its files replaced by those for clients.
    pub(super) fn named_history(
        &self,
        shared: &Shared,
        (backend, prompt): (BackendId, &PromptId),
        history: &Ended,
    ) -> Vec<Frame> {
        let frames = history.events(prompt.as_str()).into_iter().map(Frame::text);
        frames.map(|frame| self.named(shared, backend, frame)).collect()
    }
}
