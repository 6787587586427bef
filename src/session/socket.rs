//! The task of one browser socket, which reads and writes it.
//!
//! One task polls reading and writing, and neither waits for the other: a browser that does not
//! read can still send, and the other way round.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFuture;
use tracing::debug;

use super::Client;
use super::Sessions;
use super::subscriber::{NextWrite, SocketKey};
use crate::comfy::event;
use crate::comfy::messages;
use crate::config::SocketsConfig;
use crate::lazy_poll::{LazyPoll, WakeFlag};
use crate::masked::mask;
use crate::net::{Boxed, now};
use crate::ws::{Channel, Frame, Limits, Opcode, ReceiveError, may_be_sent};

/// Larger text is passed on unread: no feature flags are this large, and parsing it would delay all
/// tasks of the thread.
const FLAGS_MAX: usize = 64 << 10;

/// How long a closing handshake may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// The limits of a browser socket.
#[must_use]
pub fn limits(config: &SocketsConfig) -> Limits {
    let message = usize::try_from(config.max_from_client).unwrap_or(usize::MAX);
    Limits { message }
}

/// Serves a browser socket until it ends, or until `barred` says that its user may not stay.
pub async fn serve(
    sessions: Arc<Sessions>,
    client: Arc<Client>,
    key: SocketKey,
    channel: Channel,
    barred: Boxed<'static, ()>,
) {
    let mut socket = Socket::new(&sessions, &client, key, channel, barred);
    let end = socket.run().await;
    debug!(client = %mask(&client.id), end = end.as_str(), "Socket ended.");
    // First of all: a browser that returns at once must find its place free.
    client.close_socket(&sessions, key);
    socket.say_goodbye(end).await;
}

/// Why a browser socket ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SocketEnd {
    /// The browser closed it, with this code.
    Closed(Option<u16>),
    /// Nothing was received for two ping intervals.
    Silent,
    /// The connection broke.
    Lost,
    /// The gateway closes it.
    Closing(u16, &'static str),
}

impl SocketEnd {
    fn as_str(self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Silent => "silent",
            Self::Lost => "lost",
            Self::Closing(_, why) => why,
        }
    }
}

struct Socket<'a> {
    sessions: &'a Sessions,
    client: &'a Client,
    key: SocketKey,
    channel: Channel,
    /// Raised when something has arrived.
    came: WakeFlag,
    /// Only the first message may negotiate; ComfyUI ignores the flags in later ones.
    is_first: bool,
    negotiated: bool,
    needs_flush: bool,
    heard: Instant,
    /// When text was last sent: a widely used SDK gives up after 10 s without.
    said: Instant,
    pinged: Instant,
    stopping: LazyPoll<WaitForCancellationFuture<'a>>,
    barred: LazyPoll<Boxed<'static, ()>>,
    timer: LazyPoll<Sleep>,
}

impl<'a> Socket<'a> {
    fn new(
        sessions: &'a Sessions,
        client: &'a Client,
        key: SocketKey,
        channel: Channel,
        barred: Boxed<'static, ()>,
    ) -> Self {
        let now = now();
        let mut socket = Self {
            sessions,
            client,
            key,
            channel,
            came: WakeFlag::default(),
            is_first: true,
            negotiated: false,
            needs_flush: false,
            heard: now,
            said: now,
            pinged: now,
            stopping: LazyPoll::new(sessions.shared.tasks.stopping()),
            barred: LazyPoll::new(barred),
            timer: LazyPoll::new(tokio::time::sleep(Duration::ZERO)),
        };
        socket.set_timer();
        socket
    }

    async fn run(&mut self) -> SocketEnd {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        loop {
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(received) = self.poll_read(cx) {
                self.heard = now();
                match self.received(received) {
                    Some(end) => return Poll::Ready(end),
                    None => continue,
                }
            }
            if self.stopping.poll(cx).is_ready() {
                return Poll::Ready(SocketEnd::Closing(1012, "restarting"));
            }
            if self.barred.poll(cx).is_ready() {
                // RFC 6455 section 7.4.1: against our policy.
                return Poll::Ready(SocketEnd::Closing(1008, "your key is not valid any more"));
            }
            match self.timer.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    if let Some(end) = self.timed_out() {
                        return Poll::Ready(end);
                    }
                }
            }
        }
    }

    /// A browser sends little and receives much, so it is read only when something has arrived.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ReceiveError>>> {
        if !self.came.was_raised(cx) {
            return Poll::Pending;
        }
        let received = self.channel.poll_next(&mut self.came.context());
        if received.is_ready() {
            // There may be more.
            self.came.raise();
        }
        received
    }

    /// Writes the waiting frames, and flushes once when there are no more. Pending when the browser
    /// has to read first, or when there is nothing to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        loop {
            match self.channel.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(SocketEnd::Lost),
                Poll::Ready(Ok(())) => {}
            }
            match self.client.poll_next_write(self.key, cx) {
                Poll::Ready(NextWrite::Close(code, reason)) => {
                    return Poll::Ready(SocketEnd::Closing(code, reason));
                }
                Poll::Ready(NextWrite::Frame(frame)) => {
                    if let Some(end) = self.queue(frame) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Pending => return self.poll_flush(cx),
            }
        }
    }

    fn queue(&mut self, frame: Frame) -> Option<SocketEnd> {
        if frame.opcode == Opcode::Text {
            self.said = now();
        }
        self.needs_flush = true;
        self.channel.start_send(frame).err().map(|_| SocketEnd::Lost)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        if self.needs_flush {
            match self.channel.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.needs_flush = false,
                Poll::Ready(Err(_)) => return Poll::Ready(SocketEnd::Lost),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn received(&mut self, received: Option<Result<Frame, ReceiveError>>) -> Option<SocketEnd> {
        match received {
            None => Some(SocketEnd::Closed(None)),
            Some(Err(error)) => Some(match error.close_code() {
                Some(code) => SocketEnd::Closing(code, "bad frame"),
                None => SocketEnd::Lost,
            }),
            Some(Ok(frame)) => match frame.opcode {
                Opcode::Text => {
                    self.text(frame);
                    None
                }
                Opcode::Binary => {
                    self.client.pass_on(frame);
                    None
                }
                Opcode::Close => {
                    Some(SocketEnd::Closed(frame.close_reason().map(|(code, _)| code)))
                }
                Opcode::Ping => {
                    // The channel has queued the pong; it leaves with the next flush.
                    self.needs_flush = true;
                    None
                }
                Opcode::Pong => None,
            },
        }
    }

    /// Only a possible first message is parsed. Later flags are passed on like all other text: the
    /// link has negotiated its own, and its backend ignores all but the first.
    fn text(&mut self, frame: Frame) {
        if !self.is_first || FLAGS_MAX < frame.payload.len() {
            return self.client.pass_on(frame);
        }
        // Text that is not JSON does not count as the first message (ComfyUI 0.8.0).
        self.is_first = !event::is_json_object(&frame.payload);
        if event::is_feature_flags(&frame.payload) {
            self.negotiated = true;
            self.client.negotiate(&self.sessions.shared, self.key, &frame.payload);
        } else {
            self.client.pass_on(frame);
        }
    }

    /// A deadline has passed: the browser is gone, or a ping or a sign of life is due.
    fn timed_out(&mut self) -> Option<SocketEnd> {
        let now = now();
        let config = self.sessions.shared.config();
        let config = &config.sockets;
        if 2 * config.ping_interval <= now.duration_since(self.heard) {
            return Some(SocketEnd::Silent);
        }
        let mut end = None;
        if config.ping_interval <= now.duration_since(self.heard.max(self.pinged)) {
            self.pinged = now;
            end = self.queue(Frame::ping(b""));
        }
        if self.wants_sign_of_life() && config.alive_after <= now.duration_since(self.said) {
            end = end.or(self.queue(Frame::text(messages::alive())));
        }
        self.set_timer();
        end
    }

    /// The stock page logs unknown events once. It negotiates features, so it gets no sign of life.
    fn wants_sign_of_life(&self) -> bool {
        !self.negotiated
    }

    fn set_timer(&mut self) {
        let config = self.sessions.shared.config();
        let config = &config.sockets;
        let mut next = self.heard.max(self.pinged) + config.ping_interval;
        next = next.min(self.heard + 2 * config.ping_interval);
        if self.wants_sign_of_life() {
            next = next.min(self.said + config.alive_after);
        }
        self.timer.change().reset(next.into());
    }

    async fn say_goodbye(&mut self, end: SocketEnd) {
        let frame = match end {
            SocketEnd::Closing(code, reason) => Frame::close(code, reason),
            // The channel has echoed the close frame, which must still be sent.
            SocketEnd::Closed(code) => {
                Frame::close(code.filter(|code| may_be_sent(*code)).unwrap_or(1000), "")
            }
            SocketEnd::Silent => Frame::close(1001, "no answer to pings"),
            SocketEnd::Lost => return,
        };
        let farewell = async {
            let _ = self.channel.send(frame).await;
            while let Some(Ok(_late)) = self.channel.next().await {}
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}
