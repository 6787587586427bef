//! Replaces the names of files in events by the names for clients (promise R3).

use super::Client;
use crate::comfy::answers::Ended;
use crate::comfy::event;
use crate::routing::files::Maker;
use crate::routing::ids::{BackendId, PromptId};
use crate::shared::Shared;
use crate::ws::{Frame, Opcode};

impl Client {
    /// The frame, with the names of its files replaced by those for clients (R3).
    pub(super) fn named(&self, shared: &Shared, backend: BackendId, frame: Frame) -> Frame {
        if frame.opcode != Opcode::Text || !event::is_executed(&frame.payload) {
            return frame;
        }
        let maker = [Maker::Client(self.id.clone())];
        let payload = shared.records.name_outputs(backend, &maker, frame.payload);
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
