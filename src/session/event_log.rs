//! Keeps the events of a client's prompts, to send them again (promise S3). Pure.
//!
//! For each prompt it keeps what a returning browser needs: the start, which nodes were cached,
//! every output, the end; and for a running one the newest progress, preview, `executing`, and text
//! of each node. Frames are shared with the sockets' queues, so keeping one costs a reference.
//!
//! # Invariants
//!
//! - A prompt is in the log once, in the order of its first event.
//! - Besides the newest state of each running prompt it keeps at most its budget of bytes. The
//!   oldest ended prompts are dropped first, then socket-only pictures of running ones, then their
//!   oldest outputs. So a replay always fits into the queue of a new socket.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::budget::{LogBudget, Weight};
use crate::comfy::preview;
use crate::routing::ids::PromptId;
use crate::ws::{Frame, Opcode};

/// What a kept frame means for its prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    Start,
    Cached,
    /// An `executed` event, or a picture that exists only on the socket.
    Output,
    Progress,
    ProgressState,
    Preview,
    Executing,
    /// A node's text (type 3); only the newest of each node counts.
    Text,
    Terminal,
    LastWord,
}

/// How many nodes of a running prompt have their text kept; the oldest text is dropped first.
const TEXTS_MAX: usize = 64;

/// The event log of one client.
#[derive(Debug)]
pub struct EventLog {
    prompts: VecDeque<PromptLog>,
    bytes: usize,
    budget: usize,
    weight: Weight,
}

#[derive(Debug)]
struct PromptLog {
    prompt: PromptId,
    start: Option<Frame>,
    cached: Option<Frame>,
    outputs: Vec<Frame>,
    terminal: Option<Frame>,
    last_word: Option<Frame>,
    now: Now,
    ended: Option<Instant>,
    bytes: usize,
}

/// The progress of a running prompt. Not needed once it has ended.
#[derive(Debug, Default)]
struct Now {
    progress_state: Option<Frame>,
    progress: Option<Frame>,
    preview: Option<Frame>,
    executing: Option<Frame>,
    texts: Vec<Frame>,
}

/// Which ended prompts a new socket is told about.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// When the client's last socket closed; `None` if it never had one.
    pub last_socket_lost: Option<Instant>,
    /// True if the client has a socket now.
    pub has_socket: bool,
    pub window: Duration,
    pub now: Instant,
}

impl Since {
    fn includes(&self, ended: Instant) -> bool {
        let from = match (self.has_socket, self.last_socket_lost) {
            (true, _) => self.now,
            (false, Some(lost)) => lost,
            // Its first socket: no end was ever told.
            (false, None) => return true,
        };
        from <= ended + self.window
    }
}

impl EventLog {
    #[must_use]
    pub fn new(budget: &LogBudget) -> Self {
        let (budget, weight) = (budget.one(), budget.share());
        Self { prompts: VecDeque::new(), bytes: 0, budget, weight }
    }

    /// True if the log has events of the prompt.
    #[must_use]
    pub fn knows(&self, prompt: &str) -> bool {
        self.position(prompt).is_some()
    }

    /// The prompt that started last and has not ended.
    #[must_use]
    pub fn running(&self) -> Option<&PromptId> {
        self.prompts
            .iter()
            .rev()
            .find(|log| log.start.is_some() && log.ended.is_none())
            .map(|log| &log.prompt)
    }

    /// The prompts that have not ended.
    #[must_use]
    pub fn running_prompts(&self) -> Vec<PromptId> {
        let running = self.prompts.iter().filter(|log| log.ended.is_none());
        running.map(|log| log.prompt.clone()).collect()
    }

    /// True if the end event of a prompt was relayed.
    #[must_use]
    pub fn has_terminal(&self, prompt: &str) -> bool {
        self.position(prompt).is_some_and(|index| self.prompts[index].terminal.is_some())
    }

    /// True if the prompt has ended: later events of it are too late.
    #[must_use]
    pub fn has_ended(&self, prompt: &str) -> bool {
        self.position(prompt).is_some_and(|index| self.prompts[index].ended.is_some())
    }

    /// True if the end of a prompt was relayed less than `recently` ago, or is being relayed.
    #[must_use]
    pub fn ended_within(&self, prompt: &str, recently: Duration, now: Instant) -> bool {
        let Some(index) = self.position(prompt) else { return false };
        let log = &self.prompts[index];
        match log.ended {
            Some(ended) => now.duration_since(ended) < recently,
            None => log.terminal.is_some(),
        }
    }

    /// True if the start event of a prompt was relayed.
    #[must_use]
    pub fn has_start(&self, prompt: &str) -> bool {
        self.position(prompt).is_some_and(|index| self.prompts[index].start.is_some())
    }

    /// The progress of a running prompt: its start, the state of its nodes, and the running node.
    #[must_use]
    pub fn whereabouts(&self, prompt: &str) -> Vec<Frame> {
        let Some(index) = self.position(prompt) else { return Vec::new() };
        let log = &self.prompts[index];
        let frames = log.start.iter().chain(&log.now.progress_state).chain(&log.now.executing);
        frames.cloned().collect()
    }

    /// The newest `executing` of a prompt that has not ended.
    #[must_use]
    pub fn executing(&self, prompt: &str) -> Option<&Frame> {
        self.position(prompt).and_then(|index| self.prompts[index].now.executing.as_ref())
    }

    /// The newest `progress` of a prompt that has not ended.
    #[must_use]
    pub fn progress(&self, prompt: &str) -> Option<&Frame> {
        self.position(prompt).and_then(|index| self.prompts[index].now.progress.as_ref())
    }

    /// True if an output of the same node was relayed. A synthesized one would then be a duplicate.
    #[must_use]
    pub fn has_output_of(&self, prompt: &str, is_it: impl Fn(&Frame) -> bool) -> bool {
        self.position(prompt).is_some_and(|index| self.prompts[index].outputs.iter().any(is_it))
    }

    /// Keeps a frame of a prompt.
    pub fn keep(&mut self, prompt: &PromptId, kept: Kept, frame: Frame) {
        let index = self.position(prompt.as_str()).unwrap_or_else(|| {
            self.prompts.push_back(PromptLog::new(prompt.clone()));
            self.prompts.len() - 1
        });
        let log = &mut self.prompts[index];
        self.bytes -= log.bytes;
        log.keep(kept, frame);
        self.bytes += log.bytes;
        self.fit();
        self.weight.set(self.bytes);
    }

    /// The prompt has ended: its progress is dropped.
    pub fn ended(&mut self, prompt: &PromptId, now: Instant) {
        let Some(index) = self.position(prompt.as_str()) else { return };
        let log = &mut self.prompts[index];
        self.bytes -= log.bytes;
        log.now = Now::default();
        log.ended = Some(now);
        log.bytes = log.measure();
        self.bytes += log.bytes;
        self.weight.set(self.bytes);
    }

    /// The prompt was refused: its events are dropped.
    pub fn withdraw(&mut self, prompt: &PromptId) {
        if let Some(index) = self.position(prompt.as_str()) {
            self.bytes -= self.prompts[index].bytes;
            self.prompts.remove(index);
            self.weight.set(self.bytes);
        }
    }

    /// For each ended prompt, when it ended and how many bytes it holds.
    #[must_use]
    pub fn ended_sizes(&self) -> Vec<(Instant, usize)> {
        self.prompts.iter().filter_map(|log| Some((log.ended?, log.bytes))).collect()
    }

    /// Drops the prompts that ended at `latest` or before, to free memory. Returns how many.
    pub fn drop_ended(&mut self, latest: Instant) -> usize {
        let before = self.prompts.len();
        self.prompts.retain(|log| log.ended.is_none_or(|ended| latest < ended));
        self.bytes = self.prompts.iter().map(|log| log.bytes).sum();
        self.weight.set(self.bytes);
        before - self.prompts.len()
    }

    /// Drops previews, texts of nodes, and pictures that exist only on the socket, to free memory:
    /// events are more important.
    pub fn drop_pictures(&mut self) {
        while self.drop_an_output(|frame| frame.opcode == Opcode::Binary) {}
        for log in &mut self.prompts {
            log.now.preview = None;
            log.now.texts.clear();
            log.bytes = log.measure();
        }
        self.bytes = self.prompts.iter().map(|log| log.bytes).sum();
        self.weight.set(self.bytes);
    }

    /// The frames that a new socket has missed: those of ended prompts, oldest first, then those of
    /// running and waiting ones, up to this moment.
    #[must_use]
    pub fn replay(&self, since: Since) -> Vec<Frame> {
        let ended =
            self.prompts.iter().filter(|log| log.ended.is_some_and(|at| since.includes(at)));
        let running = self.prompts.iter().filter(|log| log.ended.is_none());
        ended.chain(running).flat_map(PromptLog::frames).cloned().collect()
    }

    /// Drops prompts that ended before `oldest`, except those that somebody still waits for.
    pub fn forget_before(&mut self, oldest: Instant) {
        while let Some(log) = self.prompts.front()
            && log.ended.is_some_and(|ended| ended < oldest)
        {
            self.bytes -= log.bytes;
            self.prompts.pop_front();
        }
        self.weight.set(self.bytes);
    }

    fn position(&self, prompt: &str) -> Option<usize> {
        self.prompts.iter().rposition(|log| log.prompt.as_str() == prompt)
    }

    /// Makes room: drops the oldest ended prompts first, then binary outputs of running ones, then
    /// their oldest other outputs. The history has all of them when the prompt has ended.
    fn fit(&mut self) {
        while self.budget < self.bytes {
            let oldest_ended = self.prompts.iter().position(|log| log.ended.is_some());
            match oldest_ended {
                Some(index) => {
                    self.bytes -= self.prompts[index].bytes;
                    self.prompts.remove(index);
                }
                None if self.drop_an_output(|frame| frame.opcode == Opcode::Binary) => {}
                None if self.drop_an_output(|_any| true) => {}
                None => return,
            }
        }
    }

    /// Drops the oldest matching output; false if there is none.
    fn drop_an_output(&mut self, is_meant: impl Fn(&Frame) -> bool) -> bool {
        for log in &mut self.prompts {
            if let Some(index) = log.outputs.iter().position(&is_meant) {
                log.outputs.remove(index);
                self.bytes -= log.bytes;
                log.bytes = log.measure();
                self.bytes += log.bytes;
                return true;
            }
        }
        false
    }
}

impl PromptLog {
    fn new(prompt: PromptId) -> Self {
        Self {
            prompt,
            start: None,
            cached: None,
            outputs: Vec::new(),
            terminal: None,
            last_word: None,
            now: Now::default(),
            ended: None,
            bytes: 0,
        }
    }

    fn keep(&mut self, kept: Kept, frame: Frame) {
        let place = match kept {
            Kept::Start => &mut self.start,
            Kept::Cached => &mut self.cached,
            Kept::Progress => &mut self.now.progress,
            Kept::ProgressState => &mut self.now.progress_state,
            Kept::Preview => &mut self.now.preview,
            Kept::Executing => &mut self.now.executing,
            Kept::Terminal => &mut self.terminal,
            Kept::LastWord => &mut self.last_word,
            Kept::Output => {
                self.bytes += frame.payload.len();
                self.outputs.push(frame);
                return;
            }
            Kept::Text => return self.keep_text(frame),
        };
        self.bytes += frame.payload.len();
        if let Some(old) = place.replace(frame) {
            self.bytes -= old.payload.len();
        }
    }

    fn keep_text(&mut self, frame: Frame) {
        let texts = &mut self.now.texts;
        let head = preview::text_head(&frame.payload);
        let older = texts.iter().position(|text| preview::text_head(&text.payload) == head);
        let goes = older.or((texts.len() == TEXTS_MAX).then_some(0));
        if let Some(index) = goes {
            self.bytes -= texts.remove(index).payload.len();
        }
        self.bytes += frame.payload.len();
        texts.push(frame);
    }

    /// In the order in which ComfyUI sends them.
    fn frames(&self) -> impl Iterator<Item = &Frame> {
        let now = &self.now;
        self.start
            .iter()
            .chain(&self.cached)
            .chain(&self.outputs)
            .chain(&now.progress_state)
            .chain(&now.preview)
            .chain(&now.progress)
            .chain(&now.executing)
            .chain(&now.texts)
            .chain(&self.terminal)
            .chain(&self.last_word)
    }

    fn measure(&self) -> usize {
        self.frames().map(|frame| frame.payload.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn keep(log: &mut EventLog, prompt: &str, kept: Kept, text: &str) {
        log.keep(&id(prompt), kept, Frame::text(text));
    }

    fn told(log: &EventLog, since: Since) -> String {
        let frames = log.replay(since);
        frames.iter().map(|frame| frame.as_text().to_owned()).collect::<Vec<_>>().join(" ")
    }

    fn back_after(now: Instant, lost_for: u64) -> Since {
        Since {
            last_socket_lost: now.checked_sub(Duration::from_secs(lost_for)),
            has_socket: false,
            window: Duration::from_secs(60),
            now,
        }
    }

    #[test]
    fn a_returning_socket_gets_the_ended_then_the_running_prompt_as_it_is_now() {
        let now = crate::net::now();
        let mut log = EventLog::new(&LogBudget::new(1000, 10_000));
        keep(&mut log, "a", Kept::Start, "a.start");
        keep(&mut log, "a", Kept::ProgressState, "a.state");
        keep(&mut log, "a", Kept::Output, "a.out");
        keep(&mut log, "a", Kept::Terminal, "a.success");
        keep(&mut log, "a", Kept::LastWord, "a.null");
        log.ended(&id("a"), now);
        keep(&mut log, "b", Kept::Start, "b.start");
        keep(&mut log, "b", Kept::Executing, "b.node1");
        keep(&mut log, "b", Kept::Executing, "b.node2");
        keep(&mut log, "b", Kept::ProgressState, "b.state");
        assert_eq!(
            told(&log, back_after(now, 5)),
            "a.start a.out a.success a.null b.start b.state b.node2"
        );
    }

    #[test]
    fn of_a_running_prompt_the_newest_text_of_each_node_is_told_again() {
        let now = crate::net::now();
        let text = |node: &str, text: &str| {
            Frame::binary([b"\0\0\0\x03\0\0\0\x01", node.as_bytes(), text.as_bytes()].concat())
        };
        let mut log = EventLog::new(&LogBudget::new(100_000, 100_000));
        keep(&mut log, "a", Kept::Start, "start");
        for said in [text("1", "old"), text("2", "else"), text("1", "newest")] {
            log.keep(&id("a"), Kept::Text, said);
        }
        let told = log.replay(back_after(now, 1));
        assert_eq!(told[1..], [text("2", "else"), text("1", "newest")]);
        assert_eq!(log.bytes, told.iter().map(|frame| frame.payload.len()).sum::<usize>());
        for node in 0..=u8::try_from(TEXTS_MAX).unwrap() {
            log.keep(&id("a"), Kept::Text, text(std::str::from_utf8(&[node]).unwrap(), ""));
        }
        assert_eq!(log.replay(back_after(now, 1)).len(), 1 + TEXTS_MAX, "no more than may be");
        log.ended(&id("a"), now);
        assert_eq!(log.replay(back_after(now, 1)).len(), 1);
    }

    #[test]
    fn an_end_is_told_within_the_window_before_the_loss_and_any_time_after() {
        let ended = crate::net::now();
        let mut log = EventLog::new(&LogBudget::new(1000, 10_000));
        keep(&mut log, "a", Kept::LastWord, "a.null");
        log.ended(&id("a"), ended);
        let at = |lost: u64, now: u64| Since {
            last_socket_lost: Some(ended + Duration::from_secs(lost)),
            has_socket: false,
            window: Duration::from_secs(60),
            now: ended + Duration::from_secs(now),
        };
        assert_eq!(told(&log, at(60, 9999)), "a.null", "it may not have arrived");
        assert_eq!(told(&log, at(61, 9999)), "", "it had a minute to arrive");
        let first = Since { last_socket_lost: None, ..at(0, 9999) };
        assert_eq!(told(&log, first), "a.null", "a script that connects after it submitted");
        assert_eq!(told(&log, Since { has_socket: true, ..at(0, 61) }), "");
    }

    #[test]
    fn the_oldest_ended_prompt_goes_first_and_then_the_oldest_outputs_of_a_running_one() {
        let now = crate::net::now();
        let mut log = EventLog::new(&LogBudget::new(16, 10_000));
        keep(&mut log, "run", Kept::Start, "start");
        keep(&mut log, "old", Kept::Output, "abcdefgh");
        log.ended(&id("old"), now);
        keep(&mut log, "run", Kept::Output, "first.");
        assert_eq!(told(&log, back_after(now, 1)), "start first.");
        assert!(!log.knows("old"));
        for output in ["second", "third.", "fourth"] {
            keep(&mut log, "run", Kept::Output, output);
            assert!(log.bytes <= 17, "{} bytes", log.bytes);
        }
        keep(&mut log, "run", Kept::Executing, "last");
        assert_eq!(told(&log, back_after(now, 1)), "start fourth last");
        keep(&mut log, "run", Kept::Output, "larger than all that may be kept");
        assert_eq!(told(&log, back_after(now, 1)), "start last");
    }

    #[test]
    fn all_logs_together_are_counted_and_what_ended_first_goes_first() {
        let (now, budget) = (crate::net::now(), LogBudget::new(1000, 16));
        let (mut one, mut two) = (EventLog::new(&budget), EventLog::new(&budget));
        keep(&mut one, "old", Kept::Output, "12345678");
        one.ended(&id("old"), now);
        keep(&mut two, "new", Kept::Output, "1234");
        two.ended(&id("new"), now + Duration::from_secs(1));
        assert_eq!((budget.used(), budget.excess()), (12, 0));
        keep(&mut two, "run", Kept::Start, "123456");
        assert_eq!((budget.used(), budget.excess()), (18, 4));
        assert_eq!((one.drop_ended(now), two.drop_ended(now)), (1, 0));
        assert_eq!((budget.used(), budget.excess()), (10, 0));
        drop(two);
        assert_eq!(budget.used(), 0, "a client that is forgotten gives back what it had");
    }
}
