//! The task of a link: dials, negotiates, reads at full speed, notices silence, dials again.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::debug;

use super::super::Client;
use super::super::keepalive::Keepalive;
use super::super::link_end::LinkEnd;
use super::super::negotiation::negotiate;
use super::super::orphan::Seen;
use super::{Link, ORPHAN_PING, Phase, Rest};
use crate::fleet::api::encode_segment;
use crate::fleet::backend::Backend;
use crate::fleet::dial_limiter::Haste;
use crate::lazy_poll::LazyPoll;
use crate::masked::mask;
use crate::net::{now, sleep};
use crate::session::Sessions;
use crate::ws::{self, Channel, Frame, Limits, Opcode, ReceiveError};

/// A link that lasted this long is dialled again at once.
const STEADY: Duration = Duration::from_secs(1);

const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Runs a link until its client closes it. Starts after all of `before` have ended: the client's
/// earlier links to the same backend.
pub async fn run(
    sessions: Arc<Sessions>,
    client: Arc<Client>,
    link: Arc<Link>,
    before: Vec<Arc<Link>>,
) {
    let _ending = Ending {
        sessions: Arc::clone(&sessions),
        client: Arc::clone(&client),
        link: Arc::clone(&link),
    };
    for old in before {
        old.phase.wait_for(|phase| phase == Phase::Closed).await;
    }
    Runner { sessions, client, link }.run().await;
}

/// Marks the link as ended when dropped, even after a panic, because the next link waits for this.
struct Ending {
    sessions: Arc<Sessions>,
    client: Arc<Client>,
    link: Arc<Link>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It was open when it ended: the prompts that were pending there have to be asked
            // about.
            self.client.link_broke(&self.sessions, &self.link, LinkEnd::Lost);
        }
        self.link.phase.set(Phase::Closed);
        self.client.link_ended(&self.link);
    }
}

struct Runner {
    sessions: Arc<Sessions>,
    client: Arc<Client>,
    link: Arc<Link>,
}

/// A link that was just negotiated.
struct Opened {
    channel: Channel,
    /// Frames that came during negotiation and were not yet relayed.
    holdback: Vec<Frame>,
}

/// The events of an open link.
enum Next {
    Received(Option<Result<Frame, ReceiveError>>),
    Rest(Rest),
}

impl Runner {
    async fn run(&mut self) {
        let (mut failures, mut haste) = (0, self.link.haste);
        while !self.link.stop.is_cancelled() {
            let stop = self.link.stop.clone();
            let opened = tokio::select! {
                biased;
                // Boxed: dialling needs much memory for a short time, but a link is open for hours.
                opened = Box::pin(self.open(haste)) => opened,
                () = stop.cancelled() => return,
            };
            haste = Haste::Again;
            match opened {
                Some(opened) => {
                    self.backend().breaker.passed();
                    let since = now();
                    let end = self.serve(opened).await;
                    // If it did not last, many others may have failed at the same time.
                    failures = if STEADY <= now().duration_since(since) { 0 } else { failures + 1 };
                    debug!(client = %mask(&self.client.id), end = end.as_str(), "Link ended.");
                    self.sessions.shared.metrics.links.ended(end.as_str());
                    self.link.phase.set(Phase::Dialling);
                    self.client.link_broke(&self.sessions, &self.link, end);
                }
                None => failures += 1,
            }
            self.pause(failures).await;
        }
    }

    /// Waits before the next attempt: for a short time, and until the backend is up.
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

    async fn open(&self, haste: Haste) -> Option<Opened> {
        self.turn(haste).await;
        let limit = self.sessions.shared.config().fleet.probe_timeout;
        match timeout(limit, self.open_untimed()).await {
            Ok(Ok(opened)) => Some(opened),
            Ok(Err(error)) => {
                debug!(client = %mask(&self.client.id), error, "Link could not be opened.");
                self.backend().breaker.failed(error);
                None
            }
            Err(_elapsed) => {
                self.backend()
                    .breaker
                    .failed(format!("no socket within {} s", limit.as_secs_f32()));
                None
            }
        }
    }

    /// Waits for its turn to dial, or until a prompt waits for the link.
    async fn turn(&self, haste: Haste) {
        let (dial_limiter, whose) = (&self.backend().breaker.dial_limiter, &self.client.id);
        tokio::select! {
            biased;
            () = dial_limiter.turn(haste, whose) => {}
            () = self.link.wanted.notified() => dial_limiter.turn(Haste::First, whose).await,
        }
    }

    async fn open_untimed(&self) -> Result<Opened, String> {
        let backend = self.backend();
        let limit = self.sessions.shared.config().fleet.connect_timeout;
        let dialled = backend.dialler.dial(limit).await;
        let stream = dialled.map_err(|error| error.to_string())?;
        let path = format!("/ws?clientId={}", encode_segment(self.client.id.as_str()));
        let message = usize::try_from(self.sessions.shared.config().sockets.max_from_backend);
        let limits = Limits { message: message.unwrap_or(usize::MAX) };
        let headers = backend.headers();
        let mut channel =
            ws::connect_with(stream, &backend.authority, &path, headers.as_map(), limits)
                .await
                .map_err(|error| error.to_string())?;
        let holdback = negotiate(&mut channel).await?;
        Ok(Opened { channel, holdback })
    }

    /// Reads at full speed until the link ends.
    async fn serve(&mut self, opened: Opened) -> LinkEnd {
        let Opened { mut channel, holdback } = opened;
        *self.link.seen() = Seen::opened(now());
        // Clears an old notification, which must not hasten the next dial.
        let _ = self.link.wanted.notified().now_or_never();
        self.link.phase.set(Phase::Open);
        self.client.link_opened(&self.sessions, &self.link);
        let early_end = holdback.into_iter().find_map(|it| self.received(Some(Ok(it)), now()));
        let end = match early_end {
            Some(end) => end,
            None => self.read(&mut channel).await,
        };
        match end {
            LinkEnd::Asked | LinkEnd::Orphan | LinkEnd::TooLarge => self.say_goodbye(channel).await,
            // Nothing to wait for. If the backend still has the old socket, the new link will show
            // as an orphan.
            LinkEnd::Closed | LinkEnd::Lost | LinkEnd::Silent => {}
        }
        end
    }

    async fn read(&mut self, channel: &mut Channel) -> LinkEnd {
        let link = Arc::clone(&self.link);
        let mut keepalive =
            Keepalive::new(channel, self.sessions.shared.config().sockets.ping_interval);
        let mut rest = LazyPoll::new(link.rest(keepalive.due()));
        loop {
            let next = poll_fn(|cx| match rest.poll(cx) {
                // Polled first: it must be noticed in any flood of frames, and costs only the check
                // of a flag.
                Poll::Ready(happened) => Poll::Ready(Next::Rest(happened)),
                Poll::Pending => keepalive.channel.poll_next(cx).map(Next::Received),
            });
            let happened = match next.await {
                Next::Rest(happened) => happened,
                Next::Received(received) => {
                    keepalive.came();
                    match self.received(received, keepalive.heard()) {
                        Some(end) => return end,
                        None => continue,
                    }
                }
            };
            if let Some(end) = self.see_to(&mut keepalive, happened).await {
                return end;
            }
            rest = LazyPoll::new(link.rest(keepalive.due()));
        }
    }

    /// Handles an event other than a received frame.
    async fn see_to(&self, keepalive: &mut Keepalive<'_>, happened: Rest) -> Option<LinkEnd> {
        let frame = match happened {
            Rest::Stopped => return Some(LinkEnd::Asked),
            Rest::Said(frame) => frame,
            Rest::Due if keepalive.is_silent() => {
                // Frames that have arrived are read before the link counts as silent.
                let late = poll_fn(|cx| Poll::Ready(keepalive.channel.poll_next(cx))).await;
                let Poll::Ready(received) = late else { return Some(LinkEnd::Silent) };
                keepalive.came();
                return self.received(received, keepalive.heard());
            }
            Rest::Due if !keepalive.is_ping_due() => return None,
            Rest::Due => {
                keepalive.pinged();
                Frame::ping(b"")
            }
        };
        let is_sent = send_within(keepalive.channel, frame, keepalive.ping_interval).await;
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
                    self.client.relay(&self.sessions, &self.link, frame, now);
                    None
                }
                Opcode::Pong if frame.payload == ORPHAN_PING => {
                    let watched = self.backend().last_status();
                    self.link.is_suspect(watched, now).then_some(LinkEnd::Orphan)
                }
                Opcode::Ping | Opcode::Pong | Opcode::Close => None,
            },
            Some(Err(ReceiveError::TooLarge)) => {
                let max = self.sessions.shared.config().sockets.max_from_backend;
                let backend = &self.backend().name();
                tracing::warn!(%backend, max, "A backend sent a message larger than the limit.");
                Some(LinkEnd::TooLarge)
            }
            // With a closing handshake or without it.
            Some(Err(ReceiveError::Lost(None))) | None => Some(LinkEnd::Closed),
            Some(Err(_)) => Some(LinkEnd::Lost),
        }
    }

    /// Closes the socket and waits for the end of the TCP connection: only then has ComfyUI
    /// released the id.
    async fn say_goodbye(&self, mut channel: Channel) {
        let farewell = async {
            if channel.send(Frame::close(1000, "")).await.is_ok() {
                while let Some(Ok(_late)) = channel.next().await {}
            }
        };
        let limit = self.sessions.shared.config().sockets.close_wait;
        let _ = timeout(limit, farewell).await;
    }

    fn backend(&self) -> Arc<Backend> {
        self.sessions.shared.fleet.get(self.link.backend)
    }
}

async fn send_within(channel: &mut Channel, frame: Frame, limit: Duration) -> bool {
    matches!(timeout(limit, channel.send(frame)).await, Ok(Ok(())))
}
