//! Tells all open dashboards what the gateway looks like, as server-sent events (the HTML standard,
//! section 9.2).
//!
//! Each event is whole: who connects again has missed nothing. One task looks for all that watch,
//! and there is none while nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::snapshot::{self, is_same};
use crate::body::ResponseBody;
use crate::net::{now, sleep};
use crate::session::Sessions;
use crate::tasks::Tasks;

/// How often to look. A change is told within this time.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// What has not changed is told again after this, so that a page sees that it is still connected.
/// The page says that it is stale after twice as long.
const AGAIN_EVERY: Duration = Duration::from_secs(4);

/// What all that watch are told.
#[derive(Debug)]
pub(in crate::admin) struct Live {
    sessions: Arc<Sessions>,
    /// The last event, whole. Empty before the first.
    told: watch::Sender<Bytes>,
    /// The task that looks is there.
    is_looking: AtomicBool,
}

impl Live {
    pub(in crate::admin) fn new(sessions: &Arc<Sessions>) -> Arc<Self> {
        let (told, _) = watch::channel(Bytes::new());
        Arc::new(Self { sessions: Arc::clone(sessions), told, is_looking: AtomicBool::new(false) })
    }

    fn tasks(&self) -> &Tasks {
        &self.sessions.shared.tasks
    }

    /// An answer that does not end before the client leaves, or the gateway stops.
    pub(super) fn answer(self: &Arc<Self>) -> Response<ResponseBody> {
        // One that reads slowly misses what is old by then.
        let (events, body) = mpsc::channel(1);
        let watched = self.told.subscribe();
        self.look();
        let live = Arc::clone(self);
        self.tasks().spawn(async move {
            tokio::select! {
                () = live.tasks().stopping() => {}
                () = pass_on(watched, events) => {}
            }
        });
        let mut response = Response::new(ResponseBody::Pushed(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx would keep events until a buffer is full.
        let unbuffered = HeaderName::from_static("x-accel-buffering");
        headers.insert(unbuffered, HeaderValue::from_static("no"));
        response
    }

    /// Starts to look, if nobody does.
    fn look(self: &Arc<Self>) {
        if self.is_looking.swap(true, Ordering::SeqCst) {
            return;
        }
        let live = Arc::clone(self);
        self.tasks().spawn(async move {
            // Also if it panics: the next that watches starts it again.
            let _ended = Ended(&live.is_looking);
            tokio::select! {
                () = live.tasks().stopping() => {}
                () = live.look_while_watched() => {}
            }
        });
    }

    async fn look_while_watched(&self) {
        let mut last: Option<(Value, Instant)> = None;
        while self.is_watched() {
            let seen = snapshot::of(&self.sessions, now());
            let is_old = |(before, at): &(Value, Instant)| {
                AGAIN_EVERY <= now().duration_since(*at) || !is_same(before, &seen)
            };
            if last.as_ref().is_none_or(is_old) {
                self.told.send_replace(event(&seen));
                last = Some((seen, now()));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// False once nobody watches, and no task looks any more.
    fn is_watched(&self) -> bool {
        if 0 < self.told.receiver_count() {
            return true;
        }
        // Who comes next is told nothing that is old by then.
        self.told.send_replace(Bytes::new());
        self.is_looking.store(false, Ordering::SeqCst);
        // One that came in between has seen the task, and started none.
        0 < self.told.receiver_count() && !self.is_looking.swap(true, Ordering::SeqCst)
    }
}

/// Clears a flag when it is dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(false, Ordering::SeqCst);
        }
    }
}

async fn pass_on(mut watched: watch::Receiver<Bytes>, events: mpsc::Sender<Bytes>) {
    loop {
        let event = watched.borrow_and_update().clone();
        if !event.is_empty() && events.send(event).await.is_err() {
            return;
        }
        tokio::select! {
            changed = watched.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = events.closed() => return,
        }
    }
}

fn event(seen: &Value) -> Bytes {
    // JSON in one line has no end of line in it.
    Bytes::from(format!("event: snapshot\ndata: {seen}\n\n"))
}
