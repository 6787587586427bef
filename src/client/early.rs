//! Events that came before the answer to their submission. Pure.
//!
//! A backend begins a prompt in the moment in which it answers for it, and its events take a
//! shorter way than the answer. A client that begins to listen when it has read the answer would
//! miss a short prompt whole and wait for ever, as a widely used SDK does. So the first events of
//! a prompt wait until its answer is on its way, and everything after them with them.
//!
//! # Invariants
//!
//! - What waits leaves in the order in which it came, before anything newer.
//! - It never holds more than 256 frames or 2 MiB.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::link::Link;
use crate::comfy::event::{self, Event};
use crate::routing::ids::PromptId;
use crate::ws::{Frame, Opcode};

/// A short prompt has ten events, one with many nodes and previews hundreds a second.
const FRAMES_MAX: usize = 256;

/// A frame of a preview has up to 100 KB.
const BYTES_MAX: usize = 2 << 20;

/// A backend that takes longer to answer for what it runs already is not waited for. The sweep
/// looks once a second.
const WAITS_AT_MOST: Duration = Duration::from_millis(500);

/// Submissions of a client without an answer, and what came of them already.
#[derive(Debug, Default)]
pub struct Early {
    unanswered: SmallVec<[PromptId; 1]>,
    waiting: VecDeque<(Arc<Link>, Frame)>,
    bytes: usize,
    /// When the first of what waits came.
    since: Option<Instant>,
}

/// What becomes of a frame that arrives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// Nothing waits: it goes on at once.
    Now,
    /// It was put behind what waits.
    Waits,
    /// The same, and as much waits as may: all of it has to go now.
    Full,
}

impl Early {
    /// A prompt is about to be submitted.
    pub fn expect(&mut self, prompt: &PromptId) {
        self.unanswered.push(prompt.clone());
    }

    /// The prompt's answer is on its way, or there will be none. True if something waits.
    pub fn answered(&mut self, prompt: &PromptId) -> bool {
        self.unanswered.retain(|expected| expected != prompt);
        !self.waiting.is_empty()
    }

    /// What has waited for too long waits for no answer any more. True if there is such.
    pub fn give_up(&mut self, now: Instant) -> bool {
        let is_late = |since| WAITS_AT_MOST <= now.saturating_duration_since(since);
        let is_given_up = !self.waiting.is_empty() && self.since.is_some_and(is_late);
        if is_given_up {
            self.unanswered.clear();
        }
        is_given_up
    }

    /// A frame has come from the link.
    pub fn arrived(&mut self, link: &Arc<Link>, frame: &Frame, now: Instant) -> Arrival {
        if self.waiting.is_empty() {
            if !self.is_too_early(frame) {
                return Arrival::Now;
            }
            self.since = Some(now);
        }
        self.bytes += frame.payload.len();
        self.waiting.push_back((Arc::clone(link), frame.clone()));
        let is_full = FRAMES_MAX <= self.waiting.len() || BYTES_MAX <= self.bytes;
        if is_full { Arrival::Full } else { Arrival::Waits }
    }

    /// The frame that came first, unless it is too early still.
    pub fn due(&mut self) -> Option<(Arc<Link>, Frame)> {
        let is_full = FRAMES_MAX <= self.waiting.len() || BYTES_MAX <= self.bytes;
        let (_, frame) = self.waiting.front()?;
        if !is_full && self.is_too_early(frame) {
            return None;
        }
        let due = self.waiting.pop_front();
        self.bytes -= due.as_ref().map_or(0, |(_, frame)| frame.payload.len());
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        due
    }

    fn is_too_early(&self, frame: &Frame) -> bool {
        if self.unanswered.is_empty() || frame.opcode != Opcode::Text {
            return false;
        }
        let Event::Start { prompt } = event::read(&frame.payload) else { return false };
        self.unanswered.iter().any(|expected| expected.as_str() == prompt)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::comfy::say;
    use crate::routing::ids::BackendId;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn start(prompt: &str) -> Frame {
        Frame::text(say::execution_start(&id(prompt), 1))
    }

    fn link() -> Arc<Link> {
        Link::new(BackendId(0), CancellationToken::new())
    }

    fn texts(early: &mut Early) -> Vec<String> {
        std::iter::from_fn(|| early.due()).map(|(_, frame)| frame.as_text().to_owned()).collect()
    }

    #[test]
    fn the_start_of_an_unanswered_prompt_waits_and_all_behind_it() {
        let (mut early, link, t) = (Early::default(), link(), crate::net::now());
        early.expect(&id("p"));
        let (before, after) = (Frame::text("before"), Frame::text("after"));
        assert_eq!(early.arrived(&link, &before, t), Arrival::Now);
        assert_eq!(early.arrived(&link, &start("q"), t), Arrival::Now, "another's");
        assert_eq!(early.arrived(&link, &start("p"), t), Arrival::Waits);
        assert_eq!(early.arrived(&link, &after, t), Arrival::Waits);
        assert!(early.due().is_none());
        assert!(early.answered(&id("p")));
        assert_eq!(texts(&mut early), [start("p").as_text(), "after"]);
        assert_eq!(early.arrived(&link, &after, t), Arrival::Now);
    }

    #[test]
    fn what_waits_for_another_answer_waits_on() {
        let (mut early, link, t) = (Early::default(), link(), crate::net::now());
        early.expect(&id("p"));
        early.expect(&id("q"));
        for frame in [start("p"), start("q"), Frame::text("x")] {
            assert_eq!(early.arrived(&link, &frame, t), Arrival::Waits);
        }
        assert!(early.answered(&id("p")));
        assert_eq!(texts(&mut early), [start("p").as_text()]);
        assert!(!early.give_up(t + WAITS_AT_MOST / 2));
        assert!(early.give_up(t + WAITS_AT_MOST));
        assert_eq!(texts(&mut early).len(), 2);
        assert!(!early.give_up(t + WAITS_AT_MOST));
    }

    #[test]
    fn no_more_waits_than_may() {
        let (mut early, link, t) = (Early::default(), link(), crate::net::now());
        early.expect(&id("p"));
        assert_eq!(early.arrived(&link, &start("p"), t), Arrival::Waits);
        let big = Frame::binary(vec![0; BYTES_MAX]);
        assert_eq!(early.arrived(&link, &big, t), Arrival::Full);
        assert_eq!(std::iter::from_fn(|| early.due()).count(), 2);
    }
}
