//! Relays an event from the link, through the event log, to the queues of the browser sockets.
//!
//! A frame is parsed only as far as needed: its type, and the prompt that it is about. Unknown
//! frames are passed on unchanged and in order.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::Sessions;
use super::apply::{After, Brought, Turn};
use super::event_log::Kept;
use super::holdback::Arrival;
use super::link::{Link, Phase as LinkPhase};
use super::send_queue::Class;
use super::tombstones::TombstoneReason;
use super::{Client, Missed, State};
use crate::comfy::answers::Ended;
use crate::comfy::event::{self, Event};
use crate::config::StatusCounts;
use crate::net::now;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Observation, Pending, Signal};
use crate::routing::placement::Condition;
use crate::ws::{Frame, Opcode};

impl Client {
    /// Takes a text or binary frame from the link.
    pub(super) fn relay(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        link: &Arc<Link>,
        frame: Frame,
        now: Instant,
    ) {
        // Before any socket gets it: clients request the file at once.
        let frame = self.named(&sessions.shared, link.backend, frame);
        let mut turn = self.turn(sessions);
        let State { holdback, missed, .. } = &mut *turn;
        // Nothing waits, and nothing has to wait.
        let is_idle = missed.is_empty() && holdback.made().is_none();
        let arrival = match is_idle {
            true => Arrival::Now,
            false => holdback.get().arrived(link, &frame, missed, now),
        };
        match arrival {
            Arrival::Now => take(turn, link, frame, now),
            Arrival::Waits => {}
            Arrival::Behind => turn.ask_for_ends(link.backend),
            Arrival::Full => {
                drop(turn);
                self.catch_up(sessions);
            }
        }
    }

    /// The answer to a submission is being sent: its events may follow.
    pub fn answered(self: &Arc<Self>, sessions: &Arc<Sessions>, prompt: &PromptId) {
        if self.state().holdback.made().is_some_and(|it| it.answered(prompt)) {
            self.catch_up(sessions);
        }
    }

    /// Stops holding events back for an answer that is overdue.
    pub(super) fn wait_no_longer(self: &Arc<Self>, sessions: &Arc<Sessions>, now: Instant) {
        let is_given_up = {
            let state = &mut *self.state();
            state.holdback.made().is_some_and(|it| it.give_up(&state.missed, now))
        };
        if is_given_up {
            self.catch_up(sessions);
        }
    }

    /// Relays the waiting events. Events that come meanwhile are appended to them.
    fn catch_up(self: &Arc<Self>, sessions: &Arc<Sessions>) {
        loop {
            let mut turn = self.turn(sessions);
            let State { holdback, missed, .. } = &mut *turn;
            let due = holdback.made().and_then(|it| it.due(missed));
            let Some((link, frame)) = due else { return };
            take(turn, &link, frame, now());
        }
    }

    /// An answer of the backend told something about a prompt. If that settles its end, events that
    /// the sockets have not received are synthesized.
    pub(super) fn on_probe(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (prompt, asked, at): (&PromptId, Asked, Instant),
        sighted: Observation,
        history: Option<&Ended>,
        now: Instant,
    ) {
        let history = history
            .map(|history| self.named_history(&sessions.shared, (asked.backend, prompt), history));
        let mut turn = self.turn(sessions);
        if turn.core.pending().get(prompt).and_then(Asked::of) != Some(asked) {
            // The answer is about an attempt that is over: the prompt waits, or is elsewhere.
            drop(turn);
            return self.catch_up(sessions);
        }
        let backend = Some(asked.backend);
        let runs = sighted == Observation::Running;
        let State { holdback, missed, .. } = &mut *turn;
        let waits = runs && holdback.get().waits_for_ends(prompt, missed, now);
        if runs && !waits {
            turn.tell_running(prompt);
        }
        let is_linked = turn.link.as_ref().is_some_and(|link| link.phase() == LinkPhase::Open);
        if is_linked && sighted == Observation::Queued {
            // It has not started, so all its events will be received.
            turn.missed.remove(prompt);
        }
        let is_over = turn.missed.get(prompt) == Some(&Missed::IsOver);
        turn.act(|core| core.was_asked(prompt, (sighted, at)));
        turn.act_with(Brought::History(history), |core| match sighted {
            // There is nothing to wait for.
            Observation::InHistory(end) if is_over => core.settle(prompt, end, now),
            Observation::InHistory(_)
            | Observation::Queued
            | Observation::Running
            | Observation::Absent(_) => core.on_probe(prompt, sighted, now),
        });
        if let Some(backend) = backend.filter(|_| waits) {
            // Also for the prompt itself: others that turn out to be queued had no end to wait for.
            turn.ask_for_ends(backend);
        }
        drop(turn);
        // Later events may have waited for this end.
        self.catch_up(sessions);
    }
}

/// Where a prompt was when its backend was asked about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) backend: BackendId,
    pub(super) attempt: u32,
}

impl Asked {
    /// `None` if the prompt is at no backend.
    pub(super) fn of(pending: &Pending) -> Option<Self> {
        Some(Self { backend: pending.backend()?, attempt: pending.attempt() })
    }
}

/// Takes a frame whose turn it is.
fn take(turn: Turn<'_>, link: &Arc<Link>, frame: Frame, now: Instant) {
    // After a reset or a move, events of an old link are dropped.
    if !turn.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
        return;
    }
    let sessions = turn.sessions();
    let mut relay = Relay { turn, now };
    match frame.opcode {
        Opcode::Binary => relay.binary(frame),
        Opcode::Text => relay.text(link, frame),
        Opcode::Ping | Opcode::Pong | Opcode::Close => {}
    }
    drop(relay);
    if 0 < sessions.logs.excess() {
        sessions.trim_soon();
    }
}

/// One frame under the client's lock.
pub(super) struct Relay<'a> {
    pub(super) turn: Turn<'a>,
    now: Instant,
}

impl Relay<'_> {
    fn text(&mut self, link: &Arc<Link>, frame: Frame) {
        let payload = frame.payload.clone();
        let event = event::read(&payload);
        if event.prompt().is_some_and(|prompt| self.is_past(prompt)) {
            self.lives(link);
            return self.too_late(link, &event);
        }
        if event.prompt().is_some() {
            self.lives(link);
        }
        match event {
            Event::Status { .. } => self.status(link, frame),
            // The answer to the link's own flags; the gateway answers those of sockets.
            Event::FeatureFlags => {}
            // It was synthesized when the prompt was seen to run; the real one came later.
            Event::Start { prompt } if self.turn.log.has_start(&prompt) => {
                if let Some(id) = self.own(&prompt) {
                    self.on_event(&id, Signal::Started);
                    self.turn.runs = Some(id);
                }
            }
            Event::Start { prompt } => {
                // The prompt moved from waiting to running: pages that show a queue read it again.
                let client = self.turn.client();
                let shared = &self.turn.sessions().shared;
                self.turn.say_status(client, shared);
                self.turn.runs = self.keep(&prompt, Kept::Start, frame, Signal::Started);
            }
            Event::Cached { prompt } => {
                self.keep(&prompt, Kept::Cached, frame, Signal::Progressed);
            }
            Event::Executed { prompt } => {
                self.keep(&prompt, Kept::Output, frame, Signal::Progressed);
            }
            Event::Blocked { prompt } => {
                self.keep(&prompt, Kept::Output, frame, Signal::Progressed);
            }
            Event::Executing { prompt, node } => {
                self.executing(link, prompt, node.is_some(), frame);
            }
            Event::Success { prompt } => self.terminal(&prompt, End::Succeeded, frame),
            Event::Failed { prompt, .. } => {
                let waiting = &self.turn.sessions().waiting;
                if waiting.is_used() && event::is_out_of_memory(&payload) {
                    // It unloads all models then.
                    waiting.emptied(link.backend);
                }
                self.terminal(&prompt, End::Failed, frame);
            }
            Event::Interrupted { prompt } => self.terminal(&prompt, End::Interrupted, frame),
            Event::Progress { prompt } => self.progress(prompt, Kept::Progress, frame),
            Event::ProgressState { prompt } => self.progress(prompt, Kept::ProgressState, frame),
            Event::Seeding => {}
            // Users have no assets, and its numbers are of everybody's files.
            Event::Seeded if self.turn.client().id.user().is_some() => {}
            Event::Seeded | Event::Logs | Event::Other => self.push(Class::Lasting, &frame),
        }
    }

    /// A sign of life of the worker. It matters only if the worker counts as wedged.
    fn lives(&self, link: &Link) {
        let backend = self.turn.sessions().shared.fleet.get(link.backend);
        if backend.worker.condition() == Condition::Wedged {
            backend.worker_lives();
        }
    }

    fn status(&mut self, link: &Arc<Link>, frame: Frame) {
        link.status_came(self.now);
        let status = self.turn.sessions().shared.config().isolation.status;
        match status {
            StatusCounts::Own => {}
            StatusCounts::Backend => {
                let frame = match event::without_sid(&frame.payload) {
                    Some(text) => Frame::text(text),
                    None => frame,
                };
                self.push(Class::Lasting, &frame);
            }
        }
    }

    fn executing(
        &mut self,
        link: &Link,
        prompt: Option<Cow<'_, str>>,
        has_node: bool,
        frame: Frame,
    ) {
        match (prompt, has_node) {
            (Some(prompt), true) => {
                self.turn.runs = self.keep(&prompt, Kept::Executing, frame, Signal::Node);
            }
            // Missed events come first, from the history, and then the end.
            (Some(prompt), false) if self.is_incomplete(&prompt) => {
                if let Some(id) = self.own(&prompt) {
                    self.turn.missed.insert(id, Missed::IsOver);
                }
                self.turn.act(|core| core.must_ask(link.backend));
            }
            (Some(prompt), false) => {
                let id = self.keep(&prompt, Kept::LastWord, frame, Signal::LastWord);
                if let Some(id) = id {
                    self.turn.log.ended(&id, self.now);
                }
            }
            // What ComfyUI sends to a socket that returns while its prompt runs. Scripts that read
            // the prompt_id of every `executing` fail without one.
            (None, _) => match self.turn.log.running().cloned() {
                Some(running) => {
                    let text = event::with_prompt(&frame.payload, running.as_str());
                    let frame = text.map_or(frame, Frame::text);
                    self.keep(running.as_str(), Kept::Executing, frame, Signal::Progressed);
                }
                // After a restart or a broken link the start was not received. Asking will show
                // which of the pending prompts it is.
                None if self.turn.core.has_prompts_here() => {
                    self.turn.unclaimed = Some(frame);
                }
                None => self.push(Class::Lasting, &frame),
            },
        }
    }

    /// True if the prompt is pending and events of it were missed, or its outcome was not relayed.
    fn is_incomplete(&self, prompt: &str) -> bool {
        let is_pending = self.turn.core.pending().contains_key(prompt);
        is_pending && (self.has_missed(prompt) || !self.turn.log.has_terminal(prompt))
    }

    fn has_missed(&self, prompt: &str) -> bool {
        self.turn.missed.keys().any(|missed| missed.as_str() == prompt)
    }

    /// True if the prompt's client was told its end, or that it is not there.
    pub(super) fn is_past(&self, prompt: &str) -> bool {
        self.turn.log.has_ended(prompt)
            || self.turn.tombstones.why(prompt).is_some()
            || self.is_waiting(prompt)
    }

    /// True if it waits in the gateway: a backend that tells of it got it late.
    fn is_waiting(&self, prompt: &str) -> bool {
        let core = &self.turn.core;
        core.has_waiting() && core.pending().get(prompt).is_some_and(Pending::is_waiting)
    }

    /// Drops an event of such a prompt; a prompt that starts to run is stopped.
    fn too_late(&mut self, link: &Link, event: &Event<'_>) {
        if let Event::Start { prompt } = event
            && (self.turn.tombstones.why(prompt) == Some(TombstoneReason::NotQueued)
                || self.is_waiting(prompt))
            && let Ok(prompt) = PromptId::parse(prompt)
            && !self.turn.sessions().waiting.is_doubted_at(link.backend, &prompt)
        {
            self.turn.later(After::TurnedUp { prompt, on: link.backend });
        }
    }

    fn terminal(&mut self, prompt: &str, end: End, frame: Frame) {
        // None of its nodes runs any more, and a client that gets this may submit the next at once.
        self.turn.runs = None;
        if self.has_missed(prompt)
            && let Some(id) = self.own(prompt)
        {
            return self.on_event(&id, Signal::Terminal(end));
        }
        self.keep(prompt, Kept::Terminal, frame, Signal::Terminal(end));
    }

    /// Progress of another client's prompt is a broadcast, and is dropped. Progress without a
    /// prompt belongs to the running one, if that is this client's.
    fn progress(&mut self, prompt: Option<Cow<'_, str>>, kept: Kept, frame: Frame) {
        let Some(prompt) = prompt else {
            if self.turn.runs.is_some() {
                self.push(Class::Progress, &frame);
            }
            return;
        };
        let Some(id) = self.own(&prompt) else { return };
        self.push(Class::Progress, &frame);
        let heard = if kept == Kept::Progress { Signal::Step } else { Signal::Progressed };
        self.turn.log.keep(&id, kept, frame);
        self.on_event(&id, heard);
    }

    /// Logs a lasting event, relays it, and applies it to the prompt. Returns the prompt's id.
    fn keep(&mut self, prompt: &str, kept: Kept, frame: Frame, heard: Signal) -> Option<PromptId> {
        let Some(id) = self.own(prompt).or_else(|| PromptId::parse(prompt).ok()) else {
            self.push(Class::Lasting, &frame);
            return None;
        };
        self.push(Class::Lasting, &frame);
        self.turn.log.keep(&id, kept, frame);
        self.on_event(&id, heard);
        Some(id)
    }

    fn on_event(&mut self, prompt: &PromptId, heard: Signal) {
        let now = self.now;
        self.turn.act(|core| core.on_event(prompt, heard, now));
    }

    /// The id, if the prompt is pending or in the log.
    pub(super) fn own(&self, prompt: &str) -> Option<PromptId> {
        let pending = self.turn.core.pending();
        let id = pending.get_key_value(prompt).map(|(id, _)| id.clone());
        id.or_else(|| self.turn.log.knows(prompt).then(|| PromptId::parse(prompt).ok()).flatten())
    }

    pub(super) fn push(&mut self, class: Class, frame: &Frame) {
        let client = self.turn.client();
        self.turn.push(client, class, frame);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::registry::admit;
    use super::super::submissions::{Nearness, Remembered};
    use super::*;
    use crate::config::Config;
    use crate::journal::Journal;
    use crate::net::Tcp;
    use crate::routing::ids::{BackendId, ClientId};
    use crate::routing::ledger::State as Ledgered;
    use crate::routing::owners::Submitter;
    use crate::routing::pending::Loss;
    use crate::shared::Shared;
    use crate::tasks::Tasks;

    #[test]
    fn the_sweep_makes_nothing_for_a_client_without_work() {
        let sessions = sessions();
        let client = admit(&sessions, &ClientId::parse("ada").unwrap()).unwrap();
        client.wait_no_longer(&sessions, now());
        assert!(client.state().holdback.made().is_none());
    }

    fn sessions() -> Arc<Sessions> {
        // Nothing listens there; the fleet is never started.
        let config = Config::for_backends(&[("a", "http://127.0.0.1:9")]).unwrap();
        Sessions::new(Shared::new(config, Arc::new(Tcp), Tasks::default(), Journal::in_memory()))
    }

    /// A client whose prompt was sent to backend 0, up or not, and its link there.
    fn at_work(sessions: &Arc<Sessions>, prompt: &str) -> (Arc<Client>, Arc<Link>) {
        sessions.shared.fleet.get(BackendId::nth(0)).passed();
        let id = ClientId::parse("ada").unwrap();
        let client = admit(sessions, &id).unwrap();
        let prompt = PromptId::parse(prompt).unwrap();
        let near = Nearness::default();
        let submitted =
            client.submit(sessions, &prompt, Remembered::default(), &near).unwrap().unwrap();
        client.accepted(sessions, &prompt, None);
        client.answered(sessions, &prompt);
        (client, submitted.link)
    }

    fn start(prompt: &str) -> Frame {
        let prompt = PromptId::parse(prompt).unwrap();
        Frame::text(crate::comfy::messages::execution_start(&prompt, 1))
    }

    #[tokio::test]
    async fn what_an_old_link_still_says_is_nobodys() {
        let sessions = sessions();
        let (client, old) = at_work(&sessions, "p");
        client.relay(&sessions, &old, start("p"), now());
        assert!(client.state().log.has_start("p"));
        client.reset(&sessions);
        let (client, new) = at_work(&sessions, "q");
        client.relay(&sessions, &old, start("q"), now());
        assert!(!client.state().log.has_start("q"), "the old link is not the client's any more");
        client.relay(&sessions, &new, start("q"), now());
        assert!(client.state().log.has_start("q"));
        sessions.shared.tasks.stop();
    }

    #[tokio::test]
    async fn what_comes_before_the_answer_to_its_submission_follows_it() {
        let sessions = sessions();
        sessions.shared.fleet.get(BackendId::nth(0)).passed();
        let client = admit(&sessions, &ClientId::parse("ada").unwrap()).unwrap();
        let near = Nearness::default();
        for (prompt, answered) in [("p", true), ("q", false)] {
            let id = PromptId::parse(prompt).unwrap();
            let placed =
                client.submit(&sessions, &id, Remembered::default(), &near).unwrap().unwrap();
            let link = placed.link;
            let came = now();
            client.relay(&sessions, &link, start(prompt), came);
            assert!(!client.state().log.has_start(prompt), "it waits");
            if answered {
                client.answered(&sessions, &id);
            } else {
                client.wait_no_longer(&sessions, came);
                assert!(!client.state().log.has_start(prompt), "not yet");
                client.wait_no_longer(&sessions, came + std::time::Duration::from_secs(1));
            }
            assert!(client.state().log.has_start(prompt));
        }
        sessions.shared.tasks.stop();
    }

    #[tokio::test]
    async fn a_forced_reset_ends_its_prompts_in_the_log_as_well() {
        let sessions = sessions();
        let (client, link) = at_work(&sessions, "p");
        client.relay(&sessions, &link, start("p"), now());
        client.reset(&sessions);
        let state = client.state();
        assert!(state.log.running().is_none() && state.log.has_ended("p"));
        assert!(state.log.running_prompts().is_empty(), "or it would be replayed for ever");
        drop(state);
        sessions.shared.tasks.stop();
    }

    #[tokio::test]
    async fn who_waits_for_an_end_finds_it_in_the_ledger_as_well() {
        let sessions = sessions();
        sessions.shared.fleet.get(BackendId::nth(0)).passed();
        let client = admit(&sessions, &ClientId::parse("ada").unwrap()).unwrap();
        let (told, id) = (Remembered::default(), PromptId::parse("p").unwrap());
        let completion = told.completion();
        let by = Submitter::client(client.id.clone());
        sessions.shared.records.reserve(&id, by).unwrap();
        let placed = client.submit(&sessions, &id, told, &Nearness::default()).unwrap().unwrap();
        let state = || sessions.shared.records.ledger_of(&id).get(&id, now()).unwrap().state;
        let mut turn = client.turn(&sessions);
        turn.act(|core| core.reset(now()));
        assert!(turn.core.pending().is_empty());
        assert_eq!((state(), completion.end().now_or_never()), (Ledgered::Pending, None));
        drop(turn);
        let lost = End::Lost(Loss::Reset);
        assert_eq!((state(), completion.end().now_or_never()), (Ledgered::Ended(lost), Some(lost)));
        let backend = sessions.shared.fleet.get(BackendId::nth(0));
        let load = &backend.load;
        assert_eq!(load.total(now()), 1, "nobody knows whether it is there");
        drop(placed);
        assert_eq!(load.total(now()), 0);
        sessions.shared.tasks.stop();
    }

    #[tokio::test]
    async fn what_is_said_of_a_prompt_after_its_end_was_told_is_not_passed_on() {
        let sessions = sessions();
        let (client, _link) = at_work(&sessions, "p");
        client.presume_lost(&sessions, BackendId::nth(0), Loss::BackendGone, now());
        let (client, link) = at_work(&sessions, "q");
        client.relay(&sessions, &link, start("p"), now());
        assert!(!client.state().log.has_start("p"), "it was told to be lost");
        assert!(client.state().log.has_terminal("p"));
        sessions.shared.tasks.stop();
    }
}
