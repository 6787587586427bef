//! Closes a connection whose client may still be sending.
//!
//! Closing a connection with unread bytes resets it. A reset destroys what the client has not read
//! yet: the answer that says why its upload was refused. So our side is closed first, and what
//! still arrives is read and dropped (RFC 9112 section 9.6).

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::net::{Buffered, sleep};
use crate::tasks::Tasks;

/// If a client is silent for this long, it counts as having read its answer.
const QUIET: Duration = Duration::from_secs(2);

/// How long a client may go on sending. A browser reads the answer when its whole upload is sent,
/// or when it cannot send any more.
const LINGER: Duration = Duration::from_secs(30);

/// The same when the process stops.
const LINGER_AT_STOP: Duration = Duration::from_secs(1);

/// How many connections drop what still arrives.
static DROPPING: AtomicU32 = AtomicU32::new(0);

/// After so many bytes a connection pauses, for [`PAUSE`] times the connections that do the same.
/// So all of them together drop about 64 MB a second, and whoever sends bodies that are refused at
/// once does not keep a worker busy with reading them.
const PACE: usize = 64 << 10;

const PAUSE: Duration = Duration::from_millis(1);

/// Closes our side of a connection whose answer is written, then waits until the client closes its
/// side. What the client still sends is dropped.
pub async fn close(mut conn: Buffered, tasks: &Tasks) {
    conn.read = Vec::new();
    if conn.stream.shutdown().await.is_err() {
        return;
    }
    let dropped = async {
        let _counted = Dropping::count();
        let mut since = 0;
        while let Ok(Ok(true)) = timeout(QUIET, poll_fn(|cx| conn.poll_more(cx))).await {
            since += conn.read.len();
            conn.read.clear();
            if PACE <= since {
                since = 0;
                sleep(PAUSE * DROPPING.load(Ordering::Relaxed)).await;
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

/// Counts a connection that drops what still arrives, until it ends.
struct Dropping;

impl Dropping {
    fn count() -> Self {
        DROPPING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Dropping {
    fn drop(&mut self) {
        DROPPING.fetch_sub(1, Ordering::Relaxed);
    }
}
