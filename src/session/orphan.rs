//! Detects orphaned links: open, but forgotten by their backend (promise S1). Pure.
//!
//! ComfyUI keeps one socket per id and forgets the *newer* one when the older one closes. It does
//! not report that. But it sends `status` to every socket that it knows, and our watch link gets
//! that too.

use std::time::{Duration, Instant};

/// How much later than on the watch link a `status` may arrive on a link.
pub const STATUS_LAG: Duration = Duration::from_secs(2);

/// What a link has received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    opened: Option<Instant>,
    status: Option<Instant>,
    /// Since when it lacks a `status` that the watch link got. Stored, because a busy backend sends
    /// the next one before this one counts as late.
    lacking: Option<Instant>,
}

impl Seen {
    /// It has just opened.
    #[must_use]
    pub fn opened(now: Instant) -> Self {
        Self { opened: Some(now), ..Self::default() }
    }

    /// When it opened.
    #[must_use]
    pub fn opened_at(&self) -> Option<Instant> {
        self.opened
    }

    /// A `status` arrived on it.
    pub fn status_came(&mut self, now: Instant) {
        self.status = Some(now);
        self.lacking = None;
    }

    /// True if it has lacked a `status` for [`STATUS_LAG`] that the watch link got, last at
    /// `watched`.
    pub fn is_suspect(&mut self, watched: Option<Instant>, now: Instant) -> bool {
        let Some(watched) = watched.filter(|_| self.lacks(watched)) else { return false };
        let since = *self.lacking.get_or_insert(watched);
        STATUS_LAG <= now.duration_since(since)
    }

    /// True if it lacks a `status` that the watch link got last at `watched`.
    #[must_use]
    pub fn lacks(&self, watched: Option<Instant>) -> bool {
        let Some(watched) = watched else { return false };
        let was_open = self.opened.is_some_and(|opened| opened < watched);
        // The backend writes to one socket after the other, so ours may have come slightly earlier.
        was_open && self.status.is_none_or(|ours| ours + STATUS_LAG < watched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_link_that_lacks_what_the_watch_link_got_two_seconds_ago_is_suspect() {
        let t = crate::net::now();
        let mut seen = Seen::opened(t);
        assert!(!seen.is_suspect(None, at(t, 9_000)), "the backend was silent");
        assert!(!seen.is_suspect(Some(at(t, 100)), at(t, 2_099)));
        assert!(seen.is_suspect(Some(at(t, 100)), at(t, 2_100)));
        seen.status_came(at(t, 2_200));
        assert!(!seen.is_suspect(Some(at(t, 2_300)), at(t, 9_000)), "the two are written in turn");
        assert!(!Seen::opened(at(t, 200)).is_suspect(Some(at(t, 100)), at(t, 9_000)), "too young");
    }

    #[test]
    fn an_orphan_of_a_backend_that_says_something_all_the_time_is_found_too() {
        let t = crate::net::now();
        let mut seen = Seen::opened(t);
        let suspected = (1..10).find(|step| {
            let now = at(t, step * 1_000);
            seen.is_suspect(Some(at(t, step * 1_000 - 100)), now)
        });
        assert_eq!(suspected, Some(3));
    }
}
