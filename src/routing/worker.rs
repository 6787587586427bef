//! Judges whether a backend's worker is alive (promise P9).
//!
//! ComfyUI runs prompts on one thread. When that thread has died, or hangs in a driver, the server
//! still answers every request and every ping, but runs nothing. Only two things show this: the
//! events of the prompts that it runs, and its queue.
//!
//! Silence is often harmless: a node may wait minutes for an API, a video or a download; Mooring
//! gets no events of prompts that others send to the server directly; and a queue may be long
//! because many prompts wait. So silence alone makes a worker only *suspect*. It is *wedged* if
//!
//! - its queue is not empty but nothing runs, in two readings [`READS_APART`] apart and with no
//!   event between them, because a living worker takes the next prompt within a moment;
//! - or a prompt started and no event told which nodes are cached: ComfyUI sends that right after
//!   it has read the graph, and a graph that kills the worker does so there (0.3.64 and 0.33,
//!   `execution.py`);
//! - or it was silent for longer than the operator says is ever possible.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::ids::PromptId;

/// The least time between two readings of a queue in which nothing runs.
pub const READS_APART: Duration = Duration::from_secs(5);

/// Time limits for a worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Silence after which it is suspect.
    pub suspect_after: Duration,
    /// The time from the start of a prompt to the event with its cached nodes.
    pub start: Duration,
    /// Silence after which it is wedged; `None` for never.
    pub silent: Option<Duration>,
}

/// The state of a worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    Works,
    /// It has been silent since this moment.
    Suspect {
        since: Instant,
    },
    Wedged {
        why: Why,
        since: Instant,
    },
}

/// Why it counts as wedged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    RunsNothing,
    NeverBegan,
    Silent,
}

impl Why {
    /// The reason as text for operators.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunsNothing => "it has prompts waiting and runs none of them",
            Self::NeverBegan => "it started a prompt and never reported which nodes are cached",
            Self::Silent => "it runs a prompt and has been silent for fleet.silent_limit",
        }
    }
}

/// A running prompt that was sent through Mooring, and whose link is open.
#[derive(Clone, Debug)]
pub struct OwnPrompt {
    pub prompt: PromptId,
    /// When it started, if no event came since: the event with the cached nodes comes next.
    pub started: Option<Instant>,
    /// When its last event came, or when its link opened if that is later.
    pub heard: Instant,
}

/// One reading of a queue.
#[derive(Clone, Debug, Default)]
pub struct QueueReading {
    pub running: BTreeSet<String>,
    pub waiting: usize,
}

/// What is known of one backend's worker.
#[derive(Debug)]
pub struct Worker {
    judgement: Judgement,
    /// What ran in the last reading, and when that was.
    running: BTreeSet<String>,
    read: Option<Instant>,
    /// What ran when it was found to be wedged.
    stuck: BTreeSet<String>,
    /// The first of consecutive readings in which prompts waited and none ran.
    idle: Option<Instant>,
    /// When the last sign of life came.
    alive: Option<Instant>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            judgement: Judgement::Works,
            running: BTreeSet::new(),
            read: None,
            stuck: BTreeSet::new(),
            idle: None,
            alive: None,
        }
    }
}

impl Worker {
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        self.judgement
    }

    /// True if its queue should be read: it reports work, but no events come.
    #[must_use]
    pub fn wants_reading(
        &self,
        queue_remaining: u32,
        heard: Option<Instant>,
        now: Instant,
    ) -> bool {
        let is_long_ago =
            |at: Option<Instant>| at.is_none_or(|at| READS_APART <= now.duration_since(at));
        let is_wedged = matches!(self.judgement, Judgement::Wedged { .. });
        (is_wedged || (0 < queue_remaining && is_long_ago(heard.max(self.alive))))
            && is_long_ago(self.read)
    }

    /// A sign of life: an event that only a worker causes.
    pub fn lives(&mut self, now: Instant) {
        self.alive = Some(now);
        self.idle = None;
        self.judgement = Judgement::Works;
    }

    /// Its queue has become shorter: a prompt ended, or somebody deleted one. That does not prove
    /// that a wedged worker is alive, but it restarts the time in which nothing ran.
    pub fn has_less(&mut self) {
        self.idle = None;
    }

    /// A new process has started, with a new worker.
    pub fn is_new(&mut self) {
        *self = Self::default();
    }

    /// Its queue was read.
    pub fn read(&mut self, reading: QueueReading, now: Instant) {
        let QueueReading { running, waiting } = reading;
        let goes_on = match self.judgement {
            Judgement::Wedged { why: Why::RunsNothing, .. } => !running.is_empty(),
            // The prompt that it hung in is over.
            Judgement::Wedged { why: Why::NeverBegan | Why::Silent, .. } => {
                self.stuck.is_disjoint(&running)
            }
            Judgement::Works | Judgement::Suspect { .. } => false,
        };
        if goes_on {
            self.lives(now);
        }
        let is_idle = running.is_empty() && 0 < waiting;
        self.idle = is_idle.then(|| self.idle.unwrap_or(now));
        self.running = running;
        self.read = Some(now);
    }

    /// Judges the worker. `ours` are the prompts of Mooring that run there and whose links are
    /// open.
    pub fn judge(&mut self, ours: &[OwnPrompt], limits: Limits, now: Instant) -> Judgement {
        let heard = ours.iter().map(|it| it.heard).max();
        if let Judgement::Wedged { since, .. } = self.judgement {
            if heard.is_some_and(|heard| since < heard) {
                self.lives(now);
            }
            return self.judgement;
        }
        if self.idle.is_some_and(|idle| heard.is_some_and(|heard| idle < heard)) {
            self.idle = None;
        }
        self.judgement = match self.wedged(ours, limits, now) {
            Some(why) => {
                self.stuck.clone_from(&self.running);
                Judgement::Wedged { why, since: now }
            }
            None => match self.silent_since(ours, limits.suspect_after, now) {
                Some(since) => Judgement::Suspect { since },
                None => Judgement::Works,
            },
        };
        self.judgement
    }

    fn wedged(&self, ours: &[OwnPrompt], limits: Limits, now: Instant) -> Option<Why> {
        let lasted = |since: Instant, limit: Duration| limit <= now.duration_since(since);
        // The time between two readings.
        let reads = self.idle.zip(self.read);
        if reads.is_some_and(|(first, last)| READS_APART <= last.duration_since(first)) {
            return Some(Why::RunsNothing);
        }
        let never_began = |it: &&OwnPrompt| it.started.is_some_and(|at| lasted(at, limits.start));
        if self.running(ours).any(|it| never_began(&it)) {
            return Some(Why::NeverBegan);
        }
        let silent = limits.silent?;
        self.silent_since(ours, silent, now).map(|_since| Why::Silent)
    }

    /// Since when it has been silent, if that is longer than `limit`. It must run a prompt of ours,
    /// and all that it runs must be silent.
    fn silent_since(&self, ours: &[OwnPrompt], limit: Duration, now: Instant) -> Option<Instant> {
        let heard = self.running(ours).map(|it| it.heard).max()?;
        let heard = self.alive.map_or(heard, |alive| alive.max(heard));
        (limit <= now.duration_since(heard)).then_some(heard)
    }

    /// Prompts that its queue lists as running. A prompt whose end event was lost is not silent.
    fn running<'a>(&'a self, ours: &'a [OwnPrompt]) -> impl Iterator<Item = &'a OwnPrompt> {
        ours.iter().filter(|it| self.running.contains(it.prompt.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    const LIMITS: Limits = Limits {
        suspect_after: Duration::from_secs(120),
        start: Duration::from_secs(300),
        silent: None,
    };

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn reading(running: &[&str], waiting: usize) -> QueueReading {
        QueueReading { running: running.iter().map(|it| (*it).to_owned()).collect(), waiting }
    }

    fn ours(prompt: &str, started: Option<Instant>, heard: Instant) -> Vec<OwnPrompt> {
        vec![OwnPrompt { prompt: PromptId::parse(prompt).unwrap(), started, heard }]
    }

    #[track_caller]
    fn check_wedged(judged: Judgement, expected: Option<Why>) {
        let found = match judged {
            Judgement::Wedged { why, .. } => Some(why),
            Judgement::Works | Judgement::Suspect { .. } => None,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_queue_of_which_nothing_runs_in_two_readings_is_wedged() {
        let (t, mut worker) = (start(), Worker::default());
        worker.read(reading(&[], 3), t);
        check_wedged(worker.judge(&[], LIMITS, at(t, 60)), None);
        worker.read(reading(&[], 1), at(t, 4));
        check_wedged(worker.judge(&[], LIMITS, at(t, 4)), None);
        worker.read(reading(&[], 1), at(t, 5));
        check_wedged(worker.judge(&[], LIMITS, at(t, 5)), Some(Why::RunsNothing));
        worker.read(reading(&[], 0), at(t, 10));
        let judged = worker.judge(&[], LIMITS, at(t, 10));
        check_wedged(judged, Some(Why::RunsNothing));
        worker.read(reading(&["p"], 0), at(t, 15));
        assert_eq!(worker.judge(&[], LIMITS, at(t, 15)), Judgement::Works, "something runs");
    }

    #[test]
    fn any_sign_of_life_between_two_readings_is_enough() {
        let t = start();
        let between: [fn(&mut Worker, Instant); 4] = [
            |worker, now| worker.lives(now),
            |worker, _| worker.has_less(),
            |worker, now| worker.read(reading(&["p"], 1), now),
            |worker, now| worker.read(reading(&[], 0), now),
        ];
        for sign in between {
            let mut worker = Worker::default();
            worker.read(reading(&[], 1), t);
            sign(&mut worker, at(t, 2));
            worker.read(reading(&[], 1), at(t, 5));
            check_wedged(worker.judge(&[], LIMITS, at(t, 5)), None);
        }
        let mut worker = Worker::default();
        worker.read(reading(&[], 1), t);
        worker.read(reading(&[], 1), at(t, 5));
        let spoke = ours("p", None, at(t, 3));
        check_wedged(worker.judge(&spoke, LIMITS, at(t, 5)), None);
    }

    #[test]
    fn a_prompt_that_began_and_got_no_further_is_wedged_until_it_is_over() {
        let (t, mut worker) = (start(), Worker::default());
        let stuck = ours("p", Some(t), t);
        worker.read(reading(&["p"], 2), at(t, 5));
        check_wedged(worker.judge(&stuck, LIMITS, at(t, 299)), None);
        check_wedged(worker.judge(&stuck, LIMITS, at(t, 300)), Some(Why::NeverBegan));
        worker.read(reading(&["p"], 0), at(t, 400));
        check_wedged(worker.judge(&[], LIMITS, at(t, 400)), Some(Why::NeverBegan));
        worker.read(reading(&["q"], 0), at(t, 405));
        assert_eq!(worker.judge(&[], LIMITS, at(t, 405)), Judgement::Works);
    }

    #[test]
    fn one_that_was_told_what_is_cached_is_only_suspect_however_long_it_is_silent() {
        let (t, mut worker) = (start(), Worker::default());
        worker.read(reading(&["p"], 0), at(t, 5));
        let silent = ours("p", None, t);
        assert_eq!(worker.judge(&silent, LIMITS, at(t, 119)), Judgement::Works);
        let suspect = Judgement::Suspect { since: t };
        assert_eq!(worker.judge(&silent, LIMITS, at(t, 120)), suspect);
        assert_eq!(worker.judge(&silent, LIMITS, at(t, 100_000)), suspect, "never lost");
        let spoke = ours("p", None, at(t, 100_001));
        assert_eq!(worker.judge(&spoke, LIMITS, at(t, 100_001)), Judgement::Works);
    }

    #[test]
    fn silence_is_wedged_where_the_operator_says_so_and_a_later_event_takes_it_back() {
        let limits = Limits { silent: Some(Duration::from_secs(600)), ..LIMITS };
        let (t, mut worker) = (start(), Worker::default());
        worker.read(reading(&["p"], 0), at(t, 5));
        let silent = ours("p", None, t);
        check_wedged(worker.judge(&silent, limits, at(t, 599)), None);
        check_wedged(worker.judge(&silent, limits, at(t, 600)), Some(Why::Silent));
        let spoke = ours("p", None, at(t, 601));
        assert_eq!(worker.judge(&spoke, limits, at(t, 602)), Judgement::Works);
    }

    #[test]
    fn what_others_run_there_is_never_silent() {
        let limits = Limits { silent: Some(Duration::from_secs(1)), ..LIMITS };
        let (t, mut worker) = (start(), Worker::default());
        worker.read(reading(&["theirs"], 5), t);
        worker.read(reading(&["theirs"], 5), at(t, 7_200));
        // A prompt of ours whose end event was lost does not run.
        let ended = ours("p", Some(t), t);
        assert_eq!(worker.judge(&ended, limits, at(t, 7_200)), Judgement::Works);
    }

    #[test]
    fn another_process_has_another_worker() {
        let (t, mut worker) = (start(), Worker::default());
        worker.read(reading(&[], 1), t);
        worker.read(reading(&[], 1), at(t, 5));
        check_wedged(worker.judge(&[], LIMITS, at(t, 5)), Some(Why::RunsNothing));
        worker.is_new();
        assert_eq!(worker.judge(&[], LIMITS, at(t, 6)), Judgement::Works);
    }

    /// What can happen to a server between two readings; times in seconds.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A prompt arrives, ours or somebody else's.
        Comes {
            is_ours: bool,
        },
        /// The worker is silent for this long in a node.
        Silent(u64),
        Speaks,
        Ends,
        /// A queued prompt is deleted.
        Deleted,
        LinkBreaks,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(|is_ours| Step::Comes { is_ours }),
            (0..2_000_u64).prop_map(Step::Silent),
            proptest::strategy::Just(Step::Speaks),
            proptest::strategy::Just(Step::Ends),
            proptest::strategy::Just(Step::Deleted),
            proptest::strategy::Just(Step::LinkBreaks),
        ]
    }

    /// A server, and what its gateway can see of it.
    struct Server {
        now: Instant,
        made: u32,
        /// The id, and whether it is ours.
        running: Option<(String, bool)>,
        waiting: Vec<(String, bool)>,
        is_dead: bool,
        started: Option<Instant>,
        heard: Instant,
        worker: Worker,
    }

    impl Server {
        fn new() -> Self {
            let now = start();
            Self {
                now,
                made: 0,
                running: None,
                waiting: Vec::new(),
                is_dead: false,
                started: None,
                heard: now,
                worker: Worker::default(),
            }
        }

        /// The next prompt starts. If it is ours, its start and its cached nodes are heard.
        fn takes(&mut self) {
            if self.running.is_none() && !self.is_dead && !self.waiting.is_empty() {
                self.running = Some(self.waiting.remove(0));
                (self.heard, self.started) = (self.now, None);
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Comes { is_ours } => {
                    self.made += 1;
                    self.waiting.push((format!("p{}", self.made), is_ours));
                }
                Step::Silent(seconds) => self.passes(seconds),
                Step::Speaks if !self.is_dead => self.heard = self.now,
                Step::Ends if !self.is_dead => {
                    if self.running.take().is_some() {
                        self.worker.has_less();
                    }
                }
                Step::Deleted => {
                    if self.waiting.pop().is_some() {
                        self.worker.has_less();
                    }
                }
                Step::LinkBreaks => (self.heard, self.started) = (self.now, None),
                Step::Speaks | Step::Ends => {}
            }
            self.takes();
            self.look();
        }

        fn passes(&mut self, seconds: u64) {
            for _ in 0..seconds.div_ceil(5) {
                self.now += READS_APART;
                self.look();
            }
        }

        fn look(&mut self) {
            let count = self.waiting.len() + usize::from(self.running.is_some());
            let count = u32::try_from(count).unwrap();
            let ours = self.ours();
            let heard = ours.iter().map(|it| it.heard).max();
            if self.worker.wants_reading(count, heard, self.now) {
                let running = self.running.iter().map(|(id, _)| id.clone()).collect();
                let reading = QueueReading { running, waiting: self.waiting.len() };
                self.worker.read(reading, self.now);
            }
            self.worker.judge(&ours, LIMITS, self.now);
        }

        fn ours(&self) -> Vec<OwnPrompt> {
            match &self.running {
                Some((id, true)) => ours(id, self.started, self.heard),
                Some((_, false)) | None => Vec::new(),
            }
        }

        fn is_wedged(&self) -> bool {
            matches!(self.worker.judgement(), Judgement::Wedged { .. })
        }
    }

    proptest! {
        #[test]
        fn a_worker_that_lives_is_never_wedged(steps in vec(step(), 0..60)) {
            let mut server = Server::new();
            for step in steps {
                server.step(step);
                prop_assert!(!server.is_wedged(), "{step:?}");
            }
        }

        #[test]
        fn one_that_dies_is_found_and_given_back_by_a_restart(
            before in vec(step(), 0..30),
            after in vec(step(), 0..30),
            is_at_a_start in any::<bool>(),
        ) {
            let mut server = Server::new();
            before.into_iter().for_each(|step| server.step(step));
            server.running = None;
            server.waiting = vec![("last".to_owned(), true)];
            if is_at_a_start {
                server.takes();
                server.started = Some(server.now);
            }
            server.is_dead = true;
            server.waiting.push(("next".to_owned(), true));
            server.passes(320);
            prop_assert!(server.is_wedged());
            for step in after.into_iter().filter(|it| !matches!(it, Step::LinkBreaks)) {
                server.step(step);
                prop_assert!(server.is_wedged(), "{step:?} proves nothing");
            }
            server.worker.is_new();
            prop_assert_eq!(server.worker.judgement(), Judgement::Works);
        }
    }
}
