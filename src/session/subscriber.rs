//! A browser socket in its client's state: the frames that it gets when it opens, the frames that
//! wait for it, and what it negotiated.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use tracing::debug;

use super::Sessions;
use super::budget::QueueBudget;
use super::event_log::Since;
use super::send_queue::{Bounds, Class, SendQueue};
use super::servers::Mark;
use super::{Client, Gone, State};
use crate::comfy::event;
use crate::comfy::messages;
use crate::comfy::preview;
use crate::config::SocketsConfig;
use crate::fleet::dial_limiter::Haste;
use crate::fleet::features::Edition;
use crate::masked::mask;
use crate::net::now;
use crate::shared::Shared;
use crate::ws::{Frame, Opcode};

/// A socket in its client's state.
#[derive(Debug)]
pub(super) struct Subscriber {
    key: SocketKey,
    queue: SendQueue,
    /// The task that waits for frames.
    waker: Option<Waker>,
    previews: Previews,
    /// The features that it was told; `None` until it asks for them by sending its own.
    told: Option<Edition>,
    /// How the servers were when its page last asked; `None` if it never did.
    servers: Option<Mark>,
    /// It exceeded its reduced limit at the last check, while the total limit was exceeded.
    is_behind: bool,
    /// Set when the socket must be closed: the code and the reason.
    verdict: Option<(u16, &'static str)>,
}

/// The client has the most sockets that it may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this client has reached its limit of {max} open sockets")]
pub struct TooManySockets {
    pub max: usize,
}

/// Identifies one socket of one client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketKey(u64);

/// What a socket negotiated for its previews (S7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Previews {
    /// Type 1: without names.
    Plain,
    /// Type 4: with the prompt and the node.
    WithMetadata,
}

impl Client {
    /// Whether one more socket may open.
    ///
    /// # Errors
    /// The limit is reached.
    pub fn may_open_socket(&self, shared: &Shared) -> Result<(), TooManySockets> {
        let max = shared.config().sockets.max_per_client;
        if self.state().sockets.len() < max { Ok(()) } else { Err(TooManySockets { max }) }
    }

    /// A socket opens: it is sent its id and what it missed, and live events follow from exactly
    /// that position.
    ///
    /// # Errors
    /// [`Gone`] if the client was forgotten meanwhile.
    pub fn open_socket(self: &Arc<Self>, sessions: &Arc<Sessions>) -> Result<SocketKey, Gone> {
        let now = now();
        let config = sessions.shared.config();
        let mut state = self.turn(sessions);
        if state.is_gone {
            return Err(Gone);
        }
        let since = Since {
            last_socket_lost: state.core.last_socket_lost(),
            has_socket: 0 < state.core.sockets(),
            window: config.sockets.replay_window,
            now,
        };
        let replay = state.log.replay(since);
        let key = SocketKey(state.next_socket);
        state.next_socket += 1;
        state.act(|core| core.socket_opened(now));
        self.is_active.store(true, Ordering::Relaxed);
        let status = messages::status(state.queue_remaining(), Some(&self.id));
        let mut subscriber = Subscriber::new(key, &config.sockets, &sessions.queues);
        if config.sockets.max_per_client <= state.sockets.len() {
            // Other sockets have opened since `may_open_socket` was checked.
            subscriber.give_up(1013, "too many sockets");
        }
        subscriber.push(Class::Lasting, &Frame::text(status));
        for frame in &replay {
            subscriber.tell_again(frame);
        }
        // Nearly every client has exactly one.
        state.sockets.reserve_exact(1);
        state.sockets.push(subscriber);
        drop(state);
        sessions.shared.metrics.sockets.inc();
        self.bind_socket(sessions, Haste::First);
        Ok(key)
    }

    /// Binds on first contact and opens the link. If no backend can serve, the socket still opens:
    /// it was already answered, and the sweep tries again.
    pub(super) fn bind_socket(self: &Arc<Self>, sessions: &Arc<Sessions>, haste: Haste) {
        if let Ok(Ok(_)) = self.contact(sessions, now()) {
            self.linked(sessions, haste);
        }
    }

    pub(super) fn close_socket(self: &Arc<Self>, sessions: &Arc<Sessions>, key: SocketKey) {
        let mut state = self.turn(sessions);
        let Some(index) = state.sockets.iter().position(|subscriber| subscriber.key == key) else {
            return;
        };
        let subscriber = state.sockets.swap_remove(index);
        state.act(|core| core.socket_closed(now()));
        drop(state);
        sessions.shared.metrics.sockets.dec();
        sessions.shared.metrics.dropped(subscriber.queue.dropped());
    }

    /// The next frame to write, or what the socket must be closed with.
    pub(super) fn poll_next_write(&self, key: SocketKey, cx: &Context<'_>) -> Poll<NextWrite> {
        let mut state = self.state();
        let Some(subscriber) = state.sockets.iter_mut().find(|subscriber| subscriber.key == key)
        else {
            return Poll::Ready(NextWrite::Close(1000, ""));
        };
        match (subscriber.queue.pop(), subscriber.verdict) {
            (_, Some((code, reason))) => Poll::Ready(NextWrite::Close(code, reason)),
            (Some(frame), None) => Poll::Ready(NextWrite::Frame(frame)),
            (None, None) => {
                // A socket stays with its task, so its waker usually stays the same.
                if !subscriber.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    subscriber.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The socket sent its features; it is answered with those of the fleet.
    pub(super) fn negotiate(&self, shared: &Shared, key: SocketKey, flags: &[u8]) {
        let metadata = event::wants_preview_metadata(flags);
        let features = shared.fleet.features();
        let mut state = self.state();
        let notice = state.notice(shared);
        let Some(subscriber) = state.sockets.iter_mut().find(|subscriber| subscriber.key == key)
        else {
            return;
        };
        subscriber.previews = if metadata { Previews::WithMetadata } else { Previews::Plain };
        subscriber.tell_features(features.edition, features.told(self.id.user()));
        if let Some(notice) = notice {
            subscriber.push(Class::Lasting, &notice);
        }
    }

    /// Passes a browser's message to the backend, unless the gateway answers it.
    pub(super) fn pass_on(&self, frame: Frame) {
        let link = self.state().link.clone();
        if let Some(link) = link {
            link.send(frame);
        }
    }
}

/// The sockets that get a synthesized event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Audience {
    All,
    /// Sockets that negotiated features, as pages do. A page shows one active job.
    Pages,
    /// Sockets that did not: scripts, which wait for the end of each prompt.
    Scripts,
}

impl Audience {
    fn includes(self, subscriber: &Subscriber) -> bool {
        match self {
            Self::All => true,
            Self::Pages => subscriber.told.is_some(),
            Self::Scripts => subscriber.told.is_none(),
        }
    }
}

impl State {
    /// Queues a synthesized text on the sockets of an audience.
    pub(super) fn say(&mut self, audience: Audience, frame: &Frame) {
        for subscriber in self.sockets.iter_mut().filter(|subscriber| audience.includes(subscriber))
        {
            subscriber.push(Class::Lasting, frame);
        }
    }

    /// Sends the features again to sockets that were told others: the first backend has come up,
    /// one has changed its version, or one was switched off.
    pub(super) fn tell_features_again(&mut self, edition: Edition, features: &str) {
        for subscriber in &mut self.sockets {
            if subscriber.told.is_some_and(|told| told != edition) {
                subscriber.tell_features(edition, features);
            }
        }
    }

    /// Its pages know how the servers are.
    pub(super) fn shows_servers(&mut self, mark: Mark) {
        self.sockets.iter_mut().for_each(|subscriber| subscriber.servers = Some(mark));
    }

    /// Tells the pages that have asked for the servers and saw them otherwise.
    pub(super) fn tell_servers_again(&mut self, mark: Mark) {
        let has_changed = |it: &Subscriber| it.servers.is_some_and(|seen| seen != mark);
        for subscriber in self.sockets.iter_mut().filter(|it| has_changed(it)) {
            subscriber.servers = Some(mark);
            subscriber.push(Class::Lasting, &Frame::text(messages::servers_changed()));
        }
    }

    /// Closes sockets that exceed their reduced limit while the total limit is exceeded, if they
    /// also did at the last check. A new frame, which would show this, may never come.
    pub(super) fn shed(&mut self, budget: &QueueBudget) {
        let is_exceeded = budget.is_exceeded();
        for subscriber in &mut self.sockets {
            let is_behind = is_exceeded && subscriber.queue.has_more_than_its_part();
            if is_behind && subscriber.is_behind {
                subscriber.give_up(1013, "too slow");
                subscriber.wake();
            }
            subscriber.is_behind = is_behind;
        }
    }

    /// Queues a frame on every socket, in the form that it negotiated.
    pub(super) fn push(&mut self, client: &Client, class: Class, frame: &Frame) {
        // Converted once, for all sockets that need this form.
        let mut plain_one = None;
        for subscriber in &mut self.sockets {
            let is_plain = subscriber.previews == Previews::Plain && frame.opcode == Opcode::Binary;
            let shown =
                if is_plain { plain_one.get_or_insert_with(|| plain(frame)) } else { frame };
            subscriber.put(class, shown.clone());
            if subscriber.verdict.is_some() {
                debug!(client = %mask(&client.id), "A socket is too slow and is closed.");
            }
        }
    }
}

impl Subscriber {
    fn new(key: SocketKey, config: &SocketsConfig, budget: &QueueBudget) -> Self {
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        // A whole replay must fit, or a socket that fell behind could never catch up.
        let lasting = bytes(config.queue_critical).saturating_add(bytes(config.log_bytes));
        let bounds = Bounds { droppable: bytes(config.queue_bytes), lasting };
        Self {
            key,
            queue: SendQueue::new(bounds, budget),
            waker: None,
            previews: Previews::Plain,
            told: None,
            servers: None,
            is_behind: false,
            verdict: None,
        }
    }

    fn push(&mut self, class: Class, frame: &Frame) {
        self.put(class, self.as_negotiated(frame));
    }

    fn tell_again(&mut self, frame: &Frame) {
        let frame = self.as_negotiated(frame);
        if self.verdict.is_none() && self.queue.push_again(frame).is_err() {
            self.give_up(1013, "too slow");
        }
    }

    fn as_negotiated(&self, frame: &Frame) -> Frame {
        match self.previews {
            Previews::Plain if frame.opcode == Opcode::Binary => plain(frame),
            Previews::Plain | Previews::WithMetadata => frame.clone(),
        }
    }

    /// Queues a frame that is already in the negotiated form.
    fn put(&mut self, class: Class, frame: Frame) {
        if self.verdict.is_some() {
            return;
        }
        if self.queue.push(class, frame).is_err() {
            // 1013, try again later: the replay then sends what is missing.
            self.give_up(1013, "too slow");
        }
        self.wake();
    }

    /// Marks it for closing, and drops its waiting frames.
    fn give_up(&mut self, code: u16, reason: &'static str) {
        self.verdict = Some((code, reason));
        self.queue.clear();
    }

    fn tell_features(&mut self, edition: Edition, features: &str) {
        self.told = Some(edition);
        self.push(Class::Lasting, &Frame::text(messages::feature_flags(features)));
    }

    fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

fn plain(frame: &Frame) -> Frame {
    preview::downgrade(&frame.payload).map_or_else(|| frame.clone(), Frame::binary)
}

/// What a socket's task does next.
#[derive(Debug)]
pub(super) enum NextWrite {
    Frame(Frame),
    Close(u16, &'static str),
}
