//! Relays binary frames from a backend: decides to which client they belong, and whether they are
//! results or previews.

use super::event_log::Kept;
use super::relay::Relay;
use super::send_queue::Class;
use crate::comfy::event::{self, Event};
use crate::comfy::preview::{self, Binary, Format};
use crate::routing::ids::PromptId;
use crate::ws::Frame;

/// A binary frame that names no prompt.
#[derive(Clone, Copy, Debug)]
enum Unnamed {
    Picture(Format),
    Text,
    Unknown,
}

impl Relay<'_> {
    pub(super) fn binary(&mut self, frame: Frame) {
        let payload = frame.payload.clone();
        match preview::read(&payload) {
            Binary::PreviewWithMetadata { prompt, node, .. } => {
                if self.is_past(&prompt) {
                    return;
                }
                let Some(id) = self.own(&prompt) else { return };
                if self.is_output(&id, &node) {
                    self.push(Class::Lasting, &frame);
                    self.turn.log.keep(&id, Kept::Output, frame);
                } else {
                    self.push(Class::Preview, &frame);
                    self.turn.log.keep(&id, Kept::Preview, frame);
                }
            }
            Binary::Preview { format } => self.of_whatever_runs(frame, Unnamed::Picture(format)),
            Binary::Text => self.of_whatever_runs(frame, Unnamed::Text),
            Binary::Unknown => self.of_whatever_runs(frame, Unnamed::Unknown),
        }
    }

    /// A frame without a prompt. A backend runs one prompt at a time, and sends such frames to
    /// every socket. So it belongs to this client only if this client's prompt runs there (S12).
    fn of_whatever_runs(&mut self, frame: Frame, what: Unnamed) {
        let Some(running) = self.turn.runs.clone() else { return };
        let (class, kept) = match what {
            Unnamed::Text => (Class::Text, Kept::Text),
            Unnamed::Unknown => return self.push(Class::Lasting, &frame),
            Unnamed::Picture(Format::Png) => (Class::Lasting, Kept::Output),
            Unnamed::Picture(Format::Jpeg | Format::Other) if self.shows_output(&running) => {
                (Class::Lasting, Kept::Output)
            }
            Unnamed::Picture(Format::Jpeg | Format::Other) => (Class::Preview, Kept::Preview),
        };
        self.push(class, &frame);
        self.turn.log.keep(&running, kept, frame);
    }

    /// True if the running node sends its results on the socket.
    fn shows_output(&self, prompt: &PromptId) -> bool {
        let executing = self.turn.log.executing(prompt.as_str());
        let event = executing.map(|frame| event::read(&frame.payload));
        let Some(Event::Executing { node: Some(node), .. }) = event else { return false };
        self.is_output(prompt, &node)
    }

    fn is_output(&self, prompt: &PromptId, node: &str) -> bool {
        let remembered = self.turn.remembered.get(prompt);
        remembered.is_some_and(|it| it.output_nodes.iter().any(|output| output == node))
    }
}
