//! Closes a connection whose client may still be sending.
//!
//! Closing a connection with unread bytes resets it. A reset destroys what the client has not read
//! yet: the answer that says why its upload was refused. So our side is closed first, and what
//! still arrives is read and dropped (RFC 9112 section 9.6).

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::net::{Buffered, now, sleep};
use crate::tasks::Tasks;

/// If a client is silent for this long, it counts as having read its answer.
const QUIET: Duration = Duration::from_secs(2);

/// How long a client may go on sending. A browser reads the answer when its whole upload is sent,
/// or when it cannot send any more.
const LINGER: Duration = Duration::from_secs(30);

/// The same when the process stops.
const LINGER_AT_STOP: Duration = Duration::from_secs(1);

/// How many bytes all connections of a listener drop in a second. Whoever sends bodies that are
/// refused at once must not keep a worker busy with reading them.
const BYTES_PER_SECOND: u64 = 64 << 20;

/// A wait that is shorter than this is left for the next time: timers are no finer.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// How fast all connections of a listener together drop what still arrives. They take turns: each
/// waits until what was dropped before it would have passed at 64 MiB a second.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// When the next byte may be dropped, in nanoseconds since `began`.
    free_at: AtomicU64,
}

impl Pace {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { began: now, free_at: AtomicU64::new(0) }
    }

    /// So many bytes were dropped: how long to wait before the next.
    fn passed(&self, bytes: usize, now: Instant) -> Duration {
        let now = nanos(now.saturating_duration_since(self.began));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let takes = bytes.saturating_mul(1_000_000_000) / BYTES_PER_SECOND;
        let next = |free_at: u64| Some(free_at.max(now).saturating_add(takes));
        let before = self.free_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let free_at = before.unwrap_or_else(|same| same).max(now).saturating_add(takes);
        Duration::from_nanos(free_at - now)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Closes our side of a connection whose answer is written, then waits until the client closes its
/// side. What the client still sends is dropped.
pub async fn close(mut conn: Buffered, tasks: &Tasks, pace: &Pace) {
    conn.read = Vec::new();
    if conn.stream.shutdown().await.is_err() {
        return;
    }
    let dropped = async {
        while let Ok(Ok(true)) = timeout(QUIET, poll_fn(|cx| conn.poll_more(cx))).await {
            let wait = pace.passed(conn.read.len(), now());
            conn.read.clear();
            if SHORTEST_WAIT <= wait {
                sleep(wait).await;
            }
        }
    };
    let is_late = async {
        tokio::select! {
            () = sleep(LINGER) => {}
            () = tasks.stopping() => sleep(LINGER_AT_STOP).await,
        }
    };
    tokio::select! {
        () = dropped => {}
        () = is_late => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::now;

    #[test]
    fn all_connections_together_drop_no_more_than_the_pace() {
        let began = now();
        let pace = Pace::new(began);
        // Eight connections that always have more, each of which waits as it is told.
        let mut due = [began; 8];
        let (mut dropped, mut at) = (0_u64, began);
        while at < began + Duration::from_secs(2) {
            let next = due.iter_mut().min().unwrap();
            at = at.max(*next);
            *next = at + pace.passed(64 << 10, at);
            dropped += 64 << 10;
        }
        let expected = 2 * BYTES_PER_SECOND;
        assert!((expected..expected + (1 << 20)).contains(&dropped), "{dropped}");
        // Whoever comes after a pause does not wait for those who are gone.
        let later = at + Duration::from_secs(60);
        assert!(pace.passed(64 << 10, later) < Duration::from_millis(2));
    }

    #[test]
    fn who_sends_little_takes_nobodys_time() {
        let pace = Pace::new(now());
        for second in 0..30 {
            let at = pace.began + Duration::from_secs(second);
            for _ in 0..1_000 {
                pace.passed(1, at);
            }
            assert!(pace.passed(64 << 10, at) < Duration::from_millis(2));
        }
    }
}
