//! Prompts that wait in the gateway: `[queue]`.

use std::time::Duration;

use super::keys::RawQueue;
use super::problems::Notes;

/// `[queue]`: prompts that wait until a backend has room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueConfig {
    /// Prompts at one backend, the running one included; 0 hands over at once.
    pub depth: usize,
    pub lead: Duration,
    pub max: usize,
    pub max_per_sharer: usize,
    /// 0 is for ever.
    pub max_wait: Duration,
    pub verdict: QueueVerdict,
    pub verdict_wait: Duration,
    pub bytes: u64,
    /// How long, for each backend, a prompt may be passed over for others whose models are loaded.
    /// There is no key for it yet.
    pub warm_window: Duration,
}

/// The window that `docs/placement.md` speaks for.
const WARM_WINDOW: Duration = Duration::from_secs(75);

/// Whom a prompt that must wait is shown to before its submission is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueVerdict {
    Backend,
    Late,
}

impl QueueConfig {
    /// Whether submissions wait at all.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.depth != 0
    }
}

pub(super) fn check(raw: RawQueue, notes: &mut Notes) -> QueueConfig {
    let RawQueue { depth, lead, max, max_per_sharer, max_wait, verdict, verdict_wait, bytes } = raw;
    QueueConfig {
        depth: depth.check(notes),
        lead: lead.check(notes),
        max: max.check(notes),
        max_per_sharer: max_per_sharer.check(notes),
        max_wait: max_wait.check(notes),
        verdict: verdict.check(notes),
        verdict_wait: verdict_wait.check(notes),
        bytes: bytes.check(notes),
        warm_window: WARM_WINDOW,
    }
}
