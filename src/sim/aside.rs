//! Lets a test send frames on a backend's sockets that no node sends: node packs send anything, at
//! any time, to one socket or to all.

use super::Sim;
use crate::ws::Frame;

impl Sim {
    /// Sends a frame to the socket with that sid; without one, to every socket (`server.py:1132`).
    pub fn say(&self, frame: &Frame, sid: Option<&str>) {
        self.shared.send(frame, sid);
    }

    /// Sends a node's text (type 3) to every socket, as `send_progress_text` does without a sid.
    pub fn say_text(&self, node: &str, text: &str) {
        let length = u32::try_from(node.len()).unwrap_or(u32::MAX).to_be_bytes();
        let parts = [&3_u32.to_be_bytes()[..], &length, node.as_bytes(), text.as_bytes()];
        self.say(&Frame::binary(parts.concat()), None);
    }
}
