//! Holds back events that come too early: before the answer to their submission, or before the end
//! of the previous prompt. Pure.
//!
//! A backend starts a prompt at the moment when it answers the submission, and the events may
//! arrive before the answer. A client that starts to listen only after it has read the answer would
//! miss a short prompt completely and wait forever; a widely used SDK does that. So the first
//! events of a prompt, and everything after them, wait until its answer has been sent.
//!
//! A server runs one prompt at a time: when one starts, the previous one is over. But its end may
//! not have been received, because the link was broken or the gateway was not running. A page shows
//! one active job and would take a late end for that of the next job. So the start of a prompt
//! waits while the gateway asks for ends.
//!
//! # Invariants
//!
//! - Events leave in the order in which they came, before anything newer.
//! - It never holds more than 256 frames or 2 MiB.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::MissedPrompts;
use super::link::Link;
use crate::comfy::event::{self, Event};
use crate::routing::ids::PromptId;
use crate::ws::{Frame, Opcode};

/// A short prompt has ten events; one with many nodes and previews has hundreds a second.
const FRAMES_MAX: usize = 256;

/// A frame of a preview has up to 100 KB.
const BYTES_MAX: usize = 2 << 20;

/// The longest wait for the answer of a backend that already runs the prompt. The sweep checks this
/// once a second.
const WAITS_AT_MOST: Duration = Duration::from_millis(500);

/// The longest wait for the ends of other prompts: long enough to see twice that a prompt is gone.
const ENDS_AT_MOST: Duration = Duration::from_secs(3);

/// A client's submissions without an answer, and the frames that wait.
#[derive(Debug, Default)]
pub struct Holdback {
    unanswered: SmallVec<[PromptId; 1]>,
    waiting: VecDeque<(Arc<Link>, Frame)>,
    bytes: usize,
    /// When the first waiting frame came.
    since: Option<Instant>,
    /// The prompt that waits for the ends of others, and since when.
    behind: Option<(PromptId, Instant)>,
    /// Prompts whose ends are no longer waited for.
    given_up: Vec<PromptId>,
}

/// What happens to a frame that arrives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// Nothing waits: it is relayed at once.
    Now,
    /// It was appended to the waiting frames.
    Waits,
    /// It is the first to wait, for ends that must be asked for.
    Behind,
    /// It was appended, and the limit is reached: all waiting frames must be relayed now.
    Full,
}

impl Holdback {
    /// A prompt is about to be submitted.
    pub fn expect(&mut self, prompt: &PromptId) {
        self.unanswered.push(prompt.clone());
    }

    /// The prompt's answer is being sent, or there will be none. True if frames wait.
    pub fn answered(&mut self, prompt: &PromptId) -> bool {
        self.unanswered.retain(|expected| expected != prompt);
        !self.waiting.is_empty()
    }

    /// Stops waiting for answers if frames have waited too long. True if frames can be relayed now.
    pub fn give_up(&mut self, missed: &MissedPrompts, now: Instant) -> bool {
        let is_late = |since, limit| limit <= now.saturating_duration_since(since);
        if self.behind.as_ref().is_some_and(|(_, since)| is_late(*since, ENDS_AT_MOST)) {
            self.give_up_on(missed);
            return !self.waiting.is_empty();
        }
        // Frames that wait only for ends do not wait for an answer, and have more time.
        let is_given_up = !self.unanswered.is_empty()
            && !self.waiting.is_empty()
            && self.since.is_some_and(|it| is_late(it, WAITS_AT_MOST));
        if is_given_up {
            self.unanswered.clear();
        }
        is_given_up
    }

    /// True if `prompt` has started and the ends of earlier prompts are still unknown. It must wait
    /// for them, but only for a limited time.
    pub fn waits_for_ends(
        &mut self,
        prompt: &PromptId,
        missed: &MissedPrompts,
        now: Instant,
    ) -> bool {
        if !self.is_behind(prompt.as_str(), missed) {
            self.behind = None;
            return false;
        }
        let since = self.begins_to_wait(prompt, now);
        let is_late = ENDS_AT_MOST <= now.saturating_duration_since(since);
        if is_late {
            self.give_up_on(missed);
        }
        !is_late
    }

    /// True if no frame waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True if this prompt waits for the ends of others.
    #[must_use]
    pub fn is_waiting(&self, prompt: &PromptId) -> bool {
        self.behind.as_ref().is_some_and(|(waiting, _)| waiting == prompt)
    }

    /// Since when a prompt waits for the ends of others. The time of an earlier waiting prompt does
    /// not count.
    fn begins_to_wait(&mut self, prompt: &PromptId, now: Instant) -> Instant {
        match &self.behind {
            Some((waiting, since)) if waiting == prompt => *since,
            Some(_) | None => {
                self.behind = Some((prompt.clone(), now));
                now
            }
        }
    }

    fn is_behind(&self, prompt: &str, missed: &MissedPrompts) -> bool {
        missed.keys().any(|it| it.as_str() != prompt && !self.given_up.contains(it))
    }

    /// Gives up on all except the waiting prompt, which runs: its own end is still to come.
    fn give_up_on(&mut self, missed: &MissedPrompts) {
        let others = missed.keys().filter(|it| !self.is_waiting(it));
        self.given_up = others.cloned().collect();
        self.behind = None;
    }

    /// A frame has come from the link.
    pub fn arrived(
        &mut self,
        link: &Arc<Link>,
        frame: &Frame,
        missed: &MissedPrompts,
        now: Instant,
    ) -> Arrival {
        let mut first = Arrival::Waits;
        if self.waiting.is_empty() {
            match self.wait_of(frame, missed) {
                None => return Arrival::Now,
                Some(Wait::Answer) => {}
                Some(Wait::Ends(prompt)) => {
                    self.begins_to_wait(&prompt, now);
                    first = Arrival::Behind;
                }
            }
            self.since = Some(now);
        }
        self.bytes += frame.payload.len();
        self.waiting.push_back((Arc::clone(link), frame.clone()));
        let is_full = FRAMES_MAX <= self.waiting.len() || BYTES_MAX <= self.bytes;
        if is_full { Arrival::Full } else { first }
    }

    /// The first waiting frame, unless it is still too early.
    pub fn due(&mut self, missed: &MissedPrompts) -> Option<(Arc<Link>, Frame)> {
        let is_full = FRAMES_MAX <= self.waiting.len() || BYTES_MAX <= self.bytes;
        let (_, frame) = self.waiting.front()?;
        if !is_full && self.wait_of(frame, missed).is_some() {
            return None;
        }
        let due = self.waiting.pop_front();
        self.bytes -= due.as_ref().map_or(0, |(_, frame)| frame.payload.len());
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.behind = None;
        }
        due
    }

    /// What a frame has to wait for.
    fn wait_of(&self, frame: &Frame, missed: &MissedPrompts) -> Option<Wait> {
        let nobody_waits = self.unanswered.is_empty() && missed.is_empty();
        if nobody_waits || frame.opcode != Opcode::Text {
            return None;
        }
        let Event::Start { prompt } = event::read(&frame.payload) else { return None };
        if self.unanswered.iter().any(|expected| expected.as_str() == prompt) {
            return Some(Wait::Answer);
        }
        if !self.is_behind(&prompt, missed) {
            return None;
        }
        PromptId::parse(&prompt).ok().map(Wait::Ends)
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Wait {
    Answer,
    /// The ends of other prompts.
    Ends(PromptId),
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::super::Missed;
    use super::*;
    use crate::comfy::messages;
    use crate::fleet::dial_limiter::Haste;
    use crate::routing::ids::BackendId;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn start(prompt: &str) -> Frame {
        Frame::text(messages::execution_start(&id(prompt), 1))
    }

    fn none() -> MissedPrompts {
        MissedPrompts::new()
    }

    fn link() -> Arc<Link> {
        Link::new(BackendId::nth(0), Haste::First, CancellationToken::new())
    }

    fn texts(holdback: &mut Holdback) -> Vec<String> {
        std::iter::from_fn(|| holdback.due(&none()))
            .map(|(_, frame)| frame.as_text().to_owned())
            .collect()
    }

    #[test]
    fn the_start_of_an_unanswered_prompt_waits_and_all_behind_it() {
        let (mut holdback, link, t) = (Holdback::default(), link(), crate::net::now());
        holdback.expect(&id("p"));
        let (before, after) = (Frame::text("before"), Frame::text("after"));
        assert_eq!(holdback.arrived(&link, &before, &none(), t), Arrival::Now);
        assert_eq!(holdback.arrived(&link, &start("q"), &none(), t), Arrival::Now, "another's");
        assert_eq!(holdback.arrived(&link, &start("p"), &none(), t), Arrival::Waits);
        assert_eq!(holdback.arrived(&link, &after, &none(), t), Arrival::Waits);
        assert!(holdback.due(&none()).is_none());
        assert!(holdback.answered(&id("p")));
        assert_eq!(texts(&mut holdback), [start("p").as_text(), "after"]);
        assert_eq!(holdback.arrived(&link, &after, &none(), t), Arrival::Now);
    }

    #[test]
    fn what_waits_for_another_answer_waits_on() {
        let (mut holdback, link, t) = (Holdback::default(), link(), crate::net::now());
        holdback.expect(&id("p"));
        holdback.expect(&id("q"));
        for frame in [start("p"), start("q"), Frame::text("x")] {
            assert_eq!(holdback.arrived(&link, &frame, &none(), t), Arrival::Waits);
        }
        assert!(holdback.answered(&id("p")));
        assert_eq!(texts(&mut holdback), [start("p").as_text()]);
        assert!(!holdback.give_up(&none(), t + WAITS_AT_MOST / 2));
        assert!(holdback.give_up(&none(), t + WAITS_AT_MOST));
        assert_eq!(texts(&mut holdback).len(), 2);
        assert!(!holdback.give_up(&none(), t + WAITS_AT_MOST));
    }

    #[test]
    fn no_more_waits_than_may() {
        let (mut holdback, link, t) = (Holdback::default(), link(), crate::net::now());
        holdback.expect(&id("p"));
        assert_eq!(holdback.arrived(&link, &start("p"), &none(), t), Arrival::Waits);
        let big = Frame::binary(vec![0; BYTES_MAX]);
        assert_eq!(holdback.arrived(&link, &big, &none(), t), Arrival::Full);
        assert_eq!(std::iter::from_fn(|| holdback.due(&none())).count(), 2);
    }

    #[test]
    fn a_start_waits_for_the_ends_of_those_before_it_but_not_for_ever() {
        let (mut holdback, link, t) = (Holdback::default(), link(), crate::net::now());
        let missed = MissedPrompts::from([(id("p"), Missed::GoesOn)]);
        assert_eq!(holdback.arrived(&link, &start("p"), &missed, t), Arrival::Now, "its own");
        assert_eq!(holdback.arrived(&link, &start("q"), &missed, t), Arrival::Behind);
        assert_eq!(holdback.arrived(&link, &Frame::text("x"), &missed, t), Arrival::Waits);
        assert!(holdback.due(&missed).is_none());
        assert!(!holdback.give_up(&missed, t + ENDS_AT_MOST / 2), "half a second is for answers");
        assert!(holdback.due(&missed).is_none());
        assert!(holdback.give_up(&missed, t + ENDS_AT_MOST));
        assert_eq!(std::iter::from_fn(|| holdback.due(&missed)).count(), 2);
        assert_eq!(holdback.arrived(&link, &start("q"), &missed, t), Arrival::Now, "given up");
        let other = MissedPrompts::from([(id("r"), Missed::IsOver)]);
        assert_eq!(holdback.arrived(&link, &start("q"), &other, t), Arrival::Behind);
        assert_eq!(std::iter::from_fn(|| holdback.due(&none())).count(), 1, "its end was told");
        assert!(holdback.waits_for_ends(&id("q"), &other, t));
        assert!(!holdback.waits_for_ends(&id("q"), &other, t + ENDS_AT_MOST));
        assert!(!holdback.waits_for_ends(&id("r"), &other, t));
    }

    #[test]
    fn who_waits_for_ends_has_a_time_of_its_own_and_gives_up_on_others_only() {
        let (mut holdback, link, t) = (Holdback::default(), link(), crate::net::now());
        let both = MissedPrompts::from([(id("p"), Missed::GoesOn), (id("q"), Missed::GoesOn)]);
        // p runs, and q may have run before it.
        assert!(holdback.waits_for_ends(&id("p"), &both, t));
        assert!(holdback.is_waiting(&id("p")) && !holdback.is_waiting(&id("q")));
        // Much later q starts: the wait for p's end gets its full time.
        let later = t + 2 * ENDS_AT_MOST;
        assert_eq!(holdback.arrived(&link, &start("q"), &both, later), Arrival::Behind);
        assert!(!holdback.give_up(&both, later + ENDS_AT_MOST / 2));
        assert!(holdback.due(&both).is_none());
        assert!(holdback.give_up(&both, later + ENDS_AT_MOST));
        assert!(holdback.due(&both).is_some());
        // q was waiting, not waited for.
        assert_eq!(holdback.arrived(&link, &start("r"), &both, later), Arrival::Behind);
    }
}
