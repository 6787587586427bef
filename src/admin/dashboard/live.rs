//! Tells all open dashboards what the gateway looks like, as server-sent events (the HTML standard,
//! section 9.2).
//!
//! Each event is whole: who connects again has missed nothing. One task looks for all that watch,
//! and there is none while nobody does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::snapshot::{self, is_same};
use crate::admin::gate::May;
use crate::body::ResponseBody;
use crate::net::{now, sleep};
use crate::session::Sessions;
use crate::tasks::Tasks;

/// How often to look. A change is told within this time.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// What has not changed is told again after this, so that a page sees that it is still connected.
/// The page says that it is stale after twice as long.
const AGAIN_EVERY: Duration = Duration::from_secs(4);

/// A look may take one part in so many of a core's time.
const SHARE: u32 = 50;

/// Whether one that watches may still see it. Asked before each event: tokens and users change.
pub(super) type MaySee = Box<dyn Fn() -> bool + Send + Sync>;

/// What all that watch are told.
pub(super) struct Live {
    tasks: Tasks,
    /// Makes what is told, as of that moment.
    seen: Box<dyn Fn(Instant) -> Value + Send + Sync>,
    /// The last event, whole. Empty before the first.
    told: watch::Sender<Bytes>,
    /// The task that looks is there.
    is_looking: AtomicBool,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("is_looking", &self.is_looking).finish_non_exhaustive()
    }
}

impl Live {
    pub(super) fn of(sessions: &Arc<Sessions>, may: May) -> Arc<Self> {
        let (tasks, sessions) = (sessions.shared.tasks.clone(), Arc::clone(sessions));
        Self::new(tasks, move |now| snapshot::of(&sessions, may, now))
    }

    fn new(tasks: Tasks, seen: impl Fn(Instant) -> Value + Send + Sync + 'static) -> Arc<Self> {
        let (told, _) = watch::channel(Bytes::new());
        Arc::new(Self { tasks, seen: Box::new(seen), told, is_looking: AtomicBool::new(false) })
    }

    /// An answer that does not end before the client leaves, the gateway stops, or whoever asked
    /// may not see it any more.
    pub(super) fn answer(self: &Arc<Self>, may_see: MaySee) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::Pushed(self.events(may_see)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx would keep events until a buffer is full.
        let unbuffered = HeaderName::from_static("x-accel-buffering");
        headers.insert(unbuffered, HeaderValue::from_static("no"));
        response
    }

    /// Events from now on. Who reads slowly misses what is old by then.
    fn events(self: &Arc<Self>, may_see: MaySee) -> mpsc::Receiver<Bytes> {
        let (events, read) = mpsc::channel(1);
        let watched = self.told.subscribe();
        self.look();
        let live = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = live.tasks.stopping() => {}
                () = pass_on(watched, events, may_see) => {}
            }
        });
        read
    }

    /// Starts to look, if nobody does.
    fn look(self: &Arc<Self>) {
        if self.is_looking.swap(true, Ordering::SeqCst) {
            return;
        }
        let live = Arc::clone(self);
        self.tasks.spawn(async move {
            // Should it panic, the next that watches starts it again.
            let _ended = Ended(&live);
            tokio::select! {
                () = live.tasks.stopping() => {}
                () = live.look_while_watched() => {}
            }
        });
    }

    async fn look_while_watched(&self) {
        let mut last: Option<(Value, Instant)> = None;
        while self.is_watched() {
            let began = now();
            let seen = (self.seen)(began);
            let is_old = |(before, at): &(Value, Instant)| {
                AGAIN_EVERY <= began.duration_since(*at) || !is_same(before, &seen)
            };
            // What was told is empty if all had left since.
            if self.told.borrow().is_empty() || last.as_ref().is_none_or(is_old) {
                self.told.send_replace(event(&seen));
                last = Some((seen, began));
            }
            // A large fleet is looked at less often: watching it must not slow it down.
            // But never so seldom that a page takes it for gone.
            let pause = (now().duration_since(began) * SHARE).clamp(LOOK_EVERY, AGAIN_EVERY);
            sleep(pause).await;
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

/// Clears what was told by a task that panicked.
struct Ended<'a>(&'a Live);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.told.send_replace(Bytes::new());
            self.0.is_looking.store(false, Ordering::SeqCst);
        }
    }
}

async fn pass_on(
    mut watched: watch::Receiver<Bytes>,
    events: mpsc::Sender<Bytes>,
    may_see: MaySee,
) {
    loop {
        let event = watched.borrow_and_update().clone();
        if !may_see() {
            return;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use serde_json::json;

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    /// What is to be seen, and how often it was looked at.
    #[derive(Clone, Debug, Default)]
    struct Scene(Arc<(Mutex<Value>, AtomicUsize)>);

    impl Scene {
        fn live(&self) -> Arc<Live> {
            let scene = self.clone();
            Live::new(Tasks::default(), move |_| {
                scene.0.1.fetch_add(1, Ordering::SeqCst);
                let value = scene.0.0.lock().unwrap().clone();
                assert!(value != "panic");
                json!({ "value": value, "age_ms": scene.looks() })
            })
        }

        fn set(&self, value: &str) {
            *self.0.0.lock().unwrap() = json!(value);
        }

        fn looks(&self) -> usize {
            self.0.1.load(Ordering::SeqCst)
        }
    }

    fn always() -> MaySee {
        Box::new(|| true)
    }

    async fn next(events: &mut mpsc::Receiver<Bytes>) -> String {
        let event = tokio::time::timeout(WAIT, events.recv()).await.unwrap().unwrap();
        String::from_utf8(event.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_while_nobody_watches() {
        let scene = Scene::default();
        let live = scene.live();
        tokio::time::sleep(WAIT).await;
        assert_eq!(scene.looks(), 0);
        for _ in 0..2 {
            let (mut one, mut other) = (live.events(always()), live.events(always()));
            next(&mut one).await;
            next(&mut other).await;
            drop(one);
            next(&mut other).await;
            drop(other);
            tokio::time::sleep(LOOK_EVERY * 2).await;
            let looks = scene.looks();
            tokio::time::sleep(WAIT).await;
            assert_eq!(scene.looks(), looks);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_at_once_and_the_same_again_after_a_while() {
        let scene = Scene::default();
        scene.set("one");
        let mut events = scene.live().events(always());
        assert!(next(&mut events).await.contains("one"));
        let began = now();
        scene.set("two");
        assert!(next(&mut events).await.contains("two"));
        assert!(now().duration_since(began) <= LOOK_EVERY);
        let began = now();
        assert!(next(&mut events).await.contains("two"));
        assert!(AGAIN_EVERY <= now().duration_since(began) + LOOK_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_is_told_what_is_now() {
        let scene = Scene::default();
        scene.set("one");
        let live = scene.live();
        next(&mut live.events(always())).await;
        scene.set("two");
        // At once, and once the task has seen that all had left.
        for _ in 0..2 {
            let began = now();
            let mut events = live.events(always());
            while !next(&mut events).await.contains("two") {}
            assert!(now().duration_since(began) <= LOOK_EVERY);
            drop(events);
            tokio::time::sleep(LOOK_EVERY * 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_panic_the_next_that_comes_is_told_again() {
        let scene = Scene::default();
        let live = scene.live();
        let mut early = live.events(always());
        next(&mut early).await;
        scene.set("panic");
        tokio::time::sleep(LOOK_EVERY * 2).await;
        scene.set("after");
        assert!(next(&mut live.events(always())).await.contains("after"));
        assert!(next(&mut early).await.contains("after"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_see_it_any_more_is_told_nothing_more() {
        let scene = Scene::default();
        let live = scene.live();
        let may = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&may);
        let mut events = live.events(Box::new(move || asked.load(Ordering::SeqCst)));
        next(&mut events).await;
        may.store(false, Ordering::SeqCst);
        scene.set("secret");
        let end = tokio::time::timeout(WAIT, events.recv()).await.unwrap();
        assert!(end.is_none(), "{end:?}");
    }
}
