//! Sends events to sockets, by ComfyUI's rule of addressing and in its format.
//!
//! Without a sid an event goes to every registered socket. With one it goes to that socket, and is
//! dropped silently if there is none (`server.py:1132`).

use serde_json::{Value, json};

use super::python_json::dumps;
use super::{Shared, pictures};
use crate::net::unix_millis;
use crate::ws::Frame;

impl Shared {
    /// Sends an event of a type.
    pub(super) fn say(&self, kind: &str, data: &Value, sid: Option<&str>) {
        let faults = self.faults();
        if faults.drop_events.iter().any(|dropped| dropped == kind) {
            return;
        }
        let frame = Frame::text(dumps(&json!({ "type": kind, "data": data })));
        if faults.double_events.iter().any(|doubled| doubled == kind) {
            self.send(&frame, sid);
        }
        self.send(&frame, sid);
    }

    /// Tells every socket how many prompts wait and run.
    pub(super) fn say_status(&self) {
        let count = self.server().memory.queue_remaining();
        let data = json!({ "status": { "exec_info": { "queue_remaining": count } } });
        self.say("status", &data, None);
    }

    pub(super) fn send(&self, frame: &Frame, sid: Option<&str>) {
        let server = self.server();
        match sid {
            None => {
                for socket in server.memory.sockets.values() {
                    // Fails only for a socket whose task has ended, which is about to be removed.
                    let _ = socket.frames.send(frame.clone());
                }
            }
            Some(sid) => {
                if let Some(socket) = server.memory.sockets.get(sid) {
                    let _ = socket.frames.send(frame.clone());
                }
            }
        }
    }

    /// Sends a picture of a running node: type 4 if the socket negotiated it, else type 1.
    pub(super) fn show(&self, prompt: &str, node: &str, sid: Option<&str>, picture: &Picture) {
        let frame = if self.previews_with_metadata(sid) {
            with_metadata(prompt, node, picture)
        } else {
            plain(picture)
        };
        self.send(&Frame::binary(frame), sid);
    }

    /// Sends a picture as type 1, whatever was negotiated.
    pub(super) fn show_plain(&self, sid: Option<&str>, picture: &Picture) {
        self.send(&Frame::binary(plain(picture)), sid);
    }

    /// Sends a node's text (type 3) to every socket: it has no prompt and no sid (`server.py`,
    /// `send_progress_text`).
    pub(super) fn send_text(&self, node: &str, text: &str) {
        let length = u32::try_from(node.len()).unwrap_or(u32::MAX);
        let mut frame = 3_u32.to_be_bytes().to_vec();
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(node.as_bytes());
        frame.extend_from_slice(text.as_bytes());
        self.send(&Frame::binary(frame), None);
    }

    /// True if the client's socket negotiated previews with metadata.
    pub(super) fn previews_with_metadata(&self, sid: Option<&str>) -> bool {
        let server = self.server();
        sid.is_some_and(|sid| server.memory.metadata.get(sid).copied().unwrap_or(false))
    }

    /// Sends a frame of an unknown type.
    pub(super) fn send_unknown(&self) {
        self.send(&Frame::binary(b"\0\0\0\x63unknown".to_vec()), None);
    }
}

/// An encoded picture.
pub(super) enum Picture {
    Jpeg(Vec<u8>),
    Png(Vec<u8>),
}

impl Picture {
    pub(super) fn preview(picture: &image::RgbImage) -> Self {
        Self::Jpeg(pictures::jpeg(picture))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Jpeg(bytes) | Self::Png(bytes) => bytes,
        }
    }
}

fn with_metadata(prompt: &str, node: &str, picture: &Picture) -> Vec<u8> {
    let kind = match picture {
        Picture::Jpeg(_) => "image/jpeg",
        Picture::Png(_) => "image/png",
    };
    let metadata = dumps(&json!({
        "node_id": node, "prompt_id": prompt, "display_node_id": node, "parent_node_id": null,
        "real_node_id": node, "image_type": kind,
    }));
    let length = u32::try_from(metadata.len()).unwrap_or(u32::MAX);
    let mut frame = 4_u32.to_be_bytes().to_vec();
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(metadata.as_bytes());
    frame.extend_from_slice(picture.bytes());
    frame
}

fn plain(picture: &Picture) -> Vec<u8> {
    let format: u32 = match picture {
        Picture::Jpeg(_) => 1,
        Picture::Png(_) => 2,
    };
    let mut frame = 1_u32.to_be_bytes().to_vec();
    frame.extend_from_slice(&format.to_be_bytes());
    frame.extend_from_slice(picture.bytes());
    frame
}

/// The data of an event at the start or end of a prompt.
pub(super) fn timed(prompt: &str) -> Value {
    json!({ "prompt_id": prompt, "timestamp": unix_millis() })
}
