//! Keeps the judgement about a backend's worker, and acts on it (promise P9). The rules are in
//! [`crate::routing::worker`].

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::backend::Backend;
use crate::config::{FleetConfig, ShowDuration};
use crate::lock::{Guard, Lock, rank};
use crate::net::now;
use crate::routing::health::Thresholds;
use crate::routing::placement::Condition;
use crate::routing::worker::{Judgement, Limits, OwnPrompt, QueueReading, Worker};

/// The worker of one backend.
#[derive(Debug, Default)]
pub struct WorkerWatch {
    worker: Lock<Worker, { rank::WORKER }>,
    /// A copy of its judgement, for views without a lock: works, suspect, wedged.
    condition: AtomicU8,
}

impl FleetConfig {
    /// How many equal probes in a row change the health.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds { rise: self.rise, fall: self.fall }
    }

    /// The time limits for a worker.
    #[must_use]
    pub fn worker_limits(&self) -> Limits {
        Limits {
            suspect_after: self.suspect_after,
            start: self.start_limit,
            silent: Some(self.silent_limit).filter(|limit| !limit.is_zero()),
        }
    }
}

impl WorkerWatch {
    #[must_use]
    pub fn condition(&self) -> Condition {
        match self.condition.load(Ordering::Relaxed) {
            0 => Condition::Well,
            1 => Condition::Suspect,
            _ => Condition::Wedged,
        }
    }

    /// The message for operators if something is wrong.
    #[must_use]
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let judgement = self.worker().judgement();
        // Milliseconds do not matter in a time of minutes.
        let whole = |since| Duration::from_secs(now.saturating_duration_since(since).as_secs());
        match judgement {
            Judgement::Works => None,
            Judgement::Suspect { since } => {
                let silent = ShowDuration(whole(since));
                Some(format!("suspect: it runs a prompt and has been silent for {silent}"))
            }
            Judgement::Wedged { why, since } => {
                Some(format!("wedged for {}: {}", ShowDuration(whole(since)), why.as_str()))
            }
        }
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn worker(&self) -> Guard<'_, Worker, { rank::WORKER }> {
        self.worker.lock()
    }
}

impl Backend {
    /// True if its queue should be read to judge its worker.
    #[must_use]
    pub fn worker_wants_reading(&self, heard: Option<Instant>) -> bool {
        let count = self.load.queue_remaining();
        self.worker.worker().wants_reading(count, heard, now())
    }

    /// Its queue was read.
    pub fn queue_was_read(&self, reading: QueueReading) {
        self.change_worker(|worker| worker.read(reading, now()));
    }

    /// A sign of life of its worker.
    pub fn worker_lives(&self) {
        self.change_worker(|worker| worker.lives(now()));
    }

    /// Its queue has become shorter.
    pub fn queue_is_shorter(&self) {
        self.change_worker(Worker::has_less);
    }

    /// It has a new worker, or an operator says that it is well.
    pub fn worker_is_new(&self) {
        self.change_worker(Worker::is_new);
    }

    /// Judges its worker by the events of our prompts there.
    pub fn judge_worker(&self, ours: &[OwnPrompt], limits: Limits) {
        self.change_worker(|worker| {
            worker.judge(ours, limits, now());
        });
    }

    /// For how long it has been wedged; `None` if it is not.
    #[must_use]
    pub fn wedged_for(&self, now: Instant) -> Option<Duration> {
        match self.worker.worker().judgement() {
            Judgement::Wedged { since, .. } => Some(now.saturating_duration_since(since)),
            Judgement::Works | Judgement::Suspect { .. } => None,
        }
    }

    fn change_worker(&self, change: impl FnOnce(&mut Worker)) {
        let (before, after) = {
            let mut worker = self.worker.worker();
            let before = worker.judgement();
            change(&mut worker);
            let after = worker.judgement();
            self.worker.condition.store(code(after), Ordering::Relaxed);
            (before, after)
        };
        if code(before) != code(after) {
            self.tell_turn(before, after);
        }
    }

    fn tell_turn(&self, before: Judgement, after: Judgement) {
        let backend = &self.name();
        match after {
            Judgement::Works => info!(%backend, "The backend's worker works."),
            Judgement::Suspect { .. } => {
                warn!(%backend, "The backend's worker is suspect: it runs a prompt and is silent.");
            }
            Judgement::Wedged { why, .. } => {
                let why = why.as_str();
                warn!(%backend, why, "The backend's worker is wedged: it gets no work.");
            }
        }
        if matches!(before, Judgement::Wedged { .. }) {
            // Prompts that were given up there are asked about.
            self.came_back();
        }
    }
}

fn code(judgement: Judgement) -> u8 {
    match judgement {
        Judgement::Works => 0,
        Judgement::Suspect { .. } => 1,
        Judgement::Wedged { .. } => 2,
    }
}
