//! The one socket to a client's backend: dial, negotiate, notice silence, redial (promise S1).
//!
//! ComfyUI keeps one socket per id and forgets the *newer* one when the older one closes. So a
//! link is dialled only after the TCP end of the one before it on that backend, and a link that
//! misses what the watch link got is dialled anew: see
//! [`Link::probe_if_suspect`].

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Client;
use super::link_end::LinkEnd;
use super::negotiation::negotiate;
use super::orphan::Seen;
use super::outgoing::Outgoing;
use super::reading::Reading;
use crate::fleet::ask::encode_segment;
use crate::fleet::backend::Backend;
use crate::gateway::Gateway;
use crate::masked::mask;
use crate::net::{now, sleep};
use crate::routing::ids::BackendId;
use crate::seldom::Seldom;
use crate::watched::Watched;
use crate::ws::{self, Channel, Frame, Limits, Opcode, ReceiveError};

/// The payload of the ping that proves an orphan: it answers, and still lacks the `status`.
const ORPHAN_PING: &[u8] = b"orphan?";

/// A link that lasted so long is dialled again at once.
const STEADY: Duration = Duration::from_secs(1);

const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// How far a link is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    Dialling,
    /// Negotiated: events will arrive.
    Open,
    /// Its TCP connection has ended, and it will not come back.
    Closed,
}

impl Phase {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialling => "dialling",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// A link, as its client holds it; the task that runs it holds the other end.
#[derive(Debug)]
pub struct Link {
    pub backend: BackendId,
    phase: Watched<Phase>,
    stop: CancellationToken,
    outgoing: Outgoing,
    seen: Mutex<Seen>,
}

impl Link {
    /// A link that is not yet run.
    #[must_use]
    pub fn new(backend: BackendId, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            backend,
            phase: Watched::new(Phase::Dialling),
            stop,
            outgoing: Outgoing::default(),
            seen: Mutex::default(),
        })
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Since when it hears what its backend says; `None` while it does not.
    #[must_use]
    pub fn listens_since(&self) -> Option<Instant> {
        let opened = self.seen().opened_at();
        opened.filter(|_| self.phase() == Phase::Open)
    }

    /// Waits until it is open; false if `limit` passes or it closes before.
    pub async fn is_open_within(&self, limit: Duration) -> bool {
        let settled = self.phase.wait_for(|phase| phase != Phase::Dialling);
        matches!(timeout(limit, settled).await, Ok(Phase::Open))
    }

    /// Asks it to close; it ends with the TCP connection.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// Sends a client's message to the backend, if there is room.
    pub fn send(&self, frame: Frame) {
        // ComfyUI ignores all but the first, which is ours; nothing is lost.
        self.outgoing.push(frame);
    }

    /// A `status` arrived on it.
    pub fn status_came(&self, now: Instant) {
        self.seen().status_came(now);
    }

    /// Looks whether the backend has forgotten this link: it was open when the watch link got a
    /// `status` two seconds ago and has got none since. If so, it is pinged; an answer then
    /// proves it, because a backend that loads a model answers nothing.
    pub fn probe_if_suspect(&self, watch_status: Option<Instant>, now: Instant) {
        if self.is_suspect(watch_status, now) {
            self.send(Frame::ping(ORPHAN_PING));
        }
    }

    fn is_suspect(&self, watch_status: Option<Instant>, now: Instant) -> bool {
        self.seen().is_suspect(watch_status, now)
    }

    /// Waits for anything but what it receives.
    async fn rest(&self, due: Instant) -> Rest {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Rest::Stopped,
            frame = self.outgoing.next() => Rest::Said(frame),
            () = tokio::time::sleep_until(due.into()) => Rest::Due,
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("never poisoned: no panic while held")
    }
}

/// Runs a link until its client closes it. Starts when all of `before` have ended: those that the
/// client had to the same backend.
pub async fn run(
    gateway: Arc<Gateway>,
    client: Arc<Client>,
    link: Arc<Link>,
    before: Vec<Arc<Link>>,
) {
    for old in before {
        old.phase.wait_for(|phase| phase == Phase::Closed).await;
    }
    let mut runner = Runner { gateway, client, link };
    runner.run().await;
    runner.link.phase.set(Phase::Closed);
    runner.client.link_ended(&runner.link);
}

struct Runner {
    gateway: Arc<Gateway>,
    client: Arc<Client>,
    link: Arc<Link>,
}

/// A link that was just negotiated.
struct Opened {
    channel: Channel,
    /// What came before it was: not yet relayed.
    early: Vec<Frame>,
}

/// What an open link is woken for.
enum Next {
    Received(Option<Result<Frame, ReceiveError>>),
    Rest(Rest),
}

/// All that happens on a link besides what it receives: seldom, in comparison.
enum Rest {
    Stopped,
    /// Its client says something.
    Said(Frame),
    /// It is time to ping, or to judge silence.
    Due,
}

impl Runner {
    async fn run(&mut self) {
        let mut failures = 0;
        while !self.link.stop.is_cancelled() {
            let stop = self.link.stop.clone();
            let opened = tokio::select! {
                biased;
                // Dialling takes much room for a short time; a link is open for hours.
                opened = Box::pin(self.open()) => opened,
                () = stop.cancelled() => return,
            };
            match opened {
                Some(opened) => {
                    self.backend().doors.passed();
                    let since = now();
                    let end = self.serve(opened).await;
                    // One that did not last may be one of many.
                    failures = if STEADY <= now().duration_since(since) { 0 } else { failures + 1 };
                    debug!(client = %mask(&self.client.id), end = end.as_str(), "Link ended.");
                    self.link.phase.set(Phase::Dialling);
                    self.client.link_broke(&self.gateway, &self.link);
                }
                None => failures += 1,
            }
            self.pause(failures).await;
        }
    }

    /// Waits before the next attempt: a little, and until the backend is up.
    async fn pause(&self, failures: usize) {
        let backend = self.backend();
        let pause = PAUSES[failures.min(PAUSES.len() - 1)];
        tokio::select! {
            biased;
            () = self.link.stop.cancelled() => {}
            () = async {
                sleep(pause).await;
                backend.is_up_again().await;
            } => {}
        }
    }

    async fn open(&self) -> Option<Opened> {
        let limit = self.gateway.config.fleet.probe_timeout;
        match timeout(limit, self.open_untimed()).await {
            Ok(Ok(opened)) => Some(opened),
            Ok(Err(error)) => {
                debug!(client = %mask(&self.client.id), error, "Link could not be opened.");
                self.backend().doors.failed(error);
                None
            }
            Err(_elapsed) => {
                self.backend().doors.failed(format!("no socket within {} s", limit.as_secs_f32()));
                None
            }
        }
    }

    async fn open_untimed(&self) -> Result<Opened, String> {
        let backend = self.backend();
        let dial = self.gateway.network.connect(&backend.host, backend.port);
        let stream = timeout(self.gateway.config.fleet.connect_timeout, dial)
            .await
            .map_err(|_elapsed| "connecting took too long".to_owned())?
            .map_err(|error| error.to_string())?;
        let path = format!("/ws?clientId={}", encode_segment(self.client.id.as_str()));
        let message = usize::try_from(self.gateway.config.sockets.max_from_backend);
        let limits = Limits { message: message.unwrap_or(usize::MAX) };
        let headers = backend.headers.as_map();
        let mut channel = ws::connect_with(stream, &backend.authority, &path, headers, limits)
            .await
            .map_err(|error| error.to_string())?;
        let early = negotiate(&mut channel).await?;
        Ok(Opened { channel, early })
    }

    /// Reads at full speed until the link ends.
    async fn serve(&mut self, opened: Opened) -> LinkEnd {
        let Opened { mut channel, early } = opened;
        *self.link.seen() = Seen::opened(now());
        self.link.phase.set(Phase::Open);
        self.client.link_opened(&self.gateway, &self.link);
        let early_end = early.into_iter().find_map(|it| self.received(Some(Ok(it)), now()));
        let end = match early_end {
            Some(end) => end,
            None => self.read(&mut channel).await,
        };
        match end {
            LinkEnd::Asked | LinkEnd::Orphan | LinkEnd::TooLarge => self.say_goodbye(channel).await,
            // Nobody is there to wait for; should the backend not know it yet, it shows as an
            // orphan.
            LinkEnd::Lost | LinkEnd::Silent => {}
        }
        end
    }

    async fn read(&mut self, channel: &mut Channel) -> LinkEnd {
        let link = Arc::clone(&self.link);
        let mut reading = Reading::new(channel, self.gateway.config.sockets.ping_interval);
        let mut rest = Seldom::new(link.rest(reading.due()));
        loop {
            let next = poll_fn(|cx| match rest.poll(cx) {
                // First: it must be heard in any flood, and costs a look at a flag.
                Poll::Ready(happened) => Poll::Ready(Next::Rest(happened)),
                Poll::Pending => reading.channel.poll_next(cx).map(Next::Received),
            });
            let happened = match next.await {
                Next::Rest(happened) => happened,
                Next::Received(received) => {
                    reading.came();
                    match self.received(received, reading.heard()) {
                        Some(end) => return end,
                        None => continue,
                    }
                }
            };
            if let Some(end) = self.see_to(&mut reading, happened).await {
                return end;
            }
            rest = Seldom::new(link.rest(reading.due()));
        }
    }

    /// Does what is to be done besides reading.
    async fn see_to(&self, reading: &mut Reading<'_>, happened: Rest) -> Option<LinkEnd> {
        let frame = match happened {
            Rest::Stopped => return Some(LinkEnd::Asked),
            Rest::Said(frame) => frame,
            Rest::Due if reading.is_silent() => {
                // What has come is read before silence is judged.
                let late = poll_fn(|cx| Poll::Ready(reading.channel.poll_next(cx))).await;
                let Poll::Ready(received) = late else { return Some(LinkEnd::Silent) };
                reading.came();
                return self.received(received, reading.heard());
            }
            Rest::Due if !reading.is_ping_due() => return None,
            Rest::Due => {
                reading.pinged();
                Frame::ping(b"")
            }
        };
        let is_sent = send_within(reading.channel, frame, reading.ping_interval).await;
        (!is_sent).then_some(LinkEnd::Lost)
    }

    fn received(
        &self,
        received: Option<Result<Frame, ReceiveError>>,
        now: Instant,
    ) -> Option<LinkEnd> {
        match received {
            Some(Ok(frame)) => match frame.opcode {
                Opcode::Text | Opcode::Binary => {
                    self.client.relay(&self.gateway, &self.link, frame, now);
                    None
                }
                Opcode::Pong if frame.payload == ORPHAN_PING => {
                    let watched = self.backend().last_status();
                    self.link.is_suspect(watched, now).then_some(LinkEnd::Orphan)
                }
                Opcode::Ping | Opcode::Pong | Opcode::Close => None,
            },
            Some(Err(ReceiveError::TooLarge)) => {
                let max = self.gateway.config.sockets.max_from_backend;
                let backend = &self.backend().name;
                tracing::warn!(%backend, max, "A backend sent a message above the limit.");
                Some(LinkEnd::TooLarge)
            }
            Some(Err(_)) | None => Some(LinkEnd::Lost),
        }
    }

    /// Closes, and waits for the TCP end: only then has ComfyUI let go of the id.
    async fn say_goodbye(&self, mut channel: Channel) {
        let farewell = async {
            if channel.send(Frame::close(1000, "")).await.is_ok() {
                while let Some(Ok(_late)) = channel.next().await {}
            }
        };
        let _ = timeout(self.gateway.config.sockets.close_wait, farewell).await;
    }

    fn backend(&self) -> &Arc<Backend> {
        self.gateway.fleet.get(self.link.backend)
    }
}

async fn send_within(channel: &mut Channel, frame: Frame, limit: Duration) -> bool {
    matches!(timeout(limit, channel.send(frame)).await, Ok(Ok(())))
}
