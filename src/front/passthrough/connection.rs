//! A client's connection: its reads that are only passed on, one after the other.

use std::future::{Future as _, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tracing::trace;

use super::asker::Asker;
use super::exchange::{Answered, Broken, Exchange, Terms};
use super::request::{HEAD_MAX, Parsed, Plain, parse};
use crate::fleet::pool::ExchangeError;
use crate::front;
use crate::front::Front;
use crate::front::access::{self, Said};
use crate::front::error::GatewayError;
use crate::front::forward::Target;
use crate::net::{Wire, now};
use crate::routing::decision::Reason;
use crate::server::deadline::Deadline;
use crate::server::heads::Heads;
use crate::server::limits::ConnectionLimits;
use crate::server::write::write_own;
use crate::server::{Left, Passthrough, Stopping};
use http::Method;

/// Buffers of a connection that are larger than this are given back when it is idle, in bytes.
const KEPT_MAX: usize = 4 << 10;

/// The lane of one connection.
#[derive(Debug)]
pub struct Lane {
    front: Arc<Front>,
    limits: ConnectionLimits,
    asker: Asker,
    /// The head that is sent to a backend.
    request: Vec<u8>,
    room: Vec<u8>,
}

/// What is next on a connection.
#[expect(clippy::large_enum_variant, reason = "taken where it is made, once for each request")]
enum Next {
    /// Not even a whole head.
    Nothing,
    Other,
    Asked(Asked),
}

/// What becomes of a connection after an answer.
enum After {
    Stays,
    /// It ends in order.
    Ends,
    /// It is dropped as it is: not all of the answer was sent.
    BreaksOff,
    /// Nothing was answered: its backend is away, and hyper's way knows who answers then.
    Elsewhere,
}

impl After {
    fn of(stays: bool) -> Self {
        if stays { Self::Stays } else { Self::Ends }
    }
}

/// A request on its way.
struct Asked {
    bytes: usize,
    is_head: bool,
    closes: bool,
    may_be_repeated: bool,
    target: Result<Target, GatewayError>,
    came: Instant,
    /// Made only if somebody reads it.
    recorded: Option<access::Record>,
}

impl Passthrough for Lane {
    async fn run(
        &mut self,
        mut wire: Wire,
        heads: &mut Heads,
        stopping: &mut Stopping<'_>,
    ) -> Left {
        let head_max = self.limits.header_bytes_max.min(HEAD_MAX);
        loop {
            match self.next(&wire.read, head_max) {
                Next::Nothing => {
                    if !heads.more(&mut wire, stopping).await {
                        return Left::Ended;
                    }
                }
                Next::Other => return Left::Other(wire),
                Next::Asked(asked) => {
                    heads.asked();
                    let bytes = asked.bytes;
                    match self.pass(&mut wire, &mut heads.deadline, asked).await {
                        After::Stays => take(&mut wire.read, bytes),
                        After::Elsewhere => return Left::Other(wire),
                        After::Ends => return Left::Over(wire),
                        After::BreaksOff => return Left::Ended,
                    }
                    heads.answered();
                }
            }
        }
    }
}

impl Lane {
    #[must_use]
    pub fn new(front: Arc<Front>, peer: IpAddr, limits: ConnectionLimits) -> Self {
        Self { front, limits, asker: Asker::new(peer), request: Vec::new(), room: Vec::new() }
    }

    /// What was read says what is next.
    fn next(&mut self, read: &[u8], head_max: usize) -> Next {
        // Not worth a parser.
        if read.is_empty() {
            return Next::Nothing;
        }
        match parse(read, head_max, self.limits.headers_max) {
            Parsed::Partial => Next::Nothing,
            Parsed::Other => Next::Other,
            Parsed::Plain(plain) => {
                let came = now();
                // A copy is made on hyper's way.
                let is_due = |read| self.front.starts.are_due(read, &self.front, came);
                if plain.start.is_some_and(is_due) {
                    return Next::Other;
                }
                Next::Asked(self.ask(&plain, came))
            }
        }
    }

    /// Decides where a request goes, and writes its head.
    fn ask(&mut self, plain: &Plain<'_>, came: Instant) -> Asked {
        let target = self.asker.target(&self.front, (plain.path, &plain.marks), came);
        self.request.clear();
        if let Ok(target) = &target {
            let (backend, peer) = (&target.backend, self.asker.peer(&self.front.shared));
            let host = backend.host_header.as_bytes();
            plain.write(host, peer, &backend.headers(), &mut self.request);
        }
        Asked {
            bytes: plain.bytes,
            is_head: plain.is_head,
            closes: plain.closes,
            // Of what else a read may do nobody knows: it is not sent twice.
            may_be_repeated: plain.start.is_some(),
            target,
            came,
            recorded: access::is_recorded().then(|| {
                let method = if plain.is_head { Method::HEAD } else { Method::GET };
                let said = Said { method, path: plain.path, request_id: plain.request_id() };
                access::Record::of(&self.front, self.asker.address(), &said, &plain.marks)
            }),
        }
    }

    /// Passes one request and its answer on.
    async fn pass(&mut self, wire: &mut Wire, deadline: &mut Deadline, asked: Asked) -> After {
        let closes = asked.closes || self.front.shared.is_leaving();
        let Ok(target) = &asked.target else { return After::Elsewhere };
        if matches!(target.reason, Reason::Placed | Reason::Moved) {
            // The answer tells of a binding that a restart must not forget.
            let _ = self.front.shared.records.journal.durable().await;
        }
        match self.exchange((wire, deadline), &asked, target, closes).await {
            Ok(answered) => {
                self.note(&asked, target, answered);
                After::of(answered.client_stays)
            }
            Err(Failed::Left) => After::BreaksOff,
            Err(Failed::Cut(answered)) => {
                trace!(backend = %target.backend.name(), "An answer broke off.");
                self.note(&asked, target, answered);
                if answered.is_open_ended {
                    // An orderly end would be the end of the body.
                    wire.stream.break_off();
                }
                After::BreaksOff
            }
            Err(Failed::NotSent) => After::Elsewhere,
            Err(Failed::Unanswered(_)) if asked.may_be_repeated => After::Elsewhere,
            Err(Failed::Exchange(error) | Failed::Unanswered(error)) => {
                let error = GatewayError::exchange(&target.backend.name(), error);
                self.refuse(wire, &asked, &error, closes).await
            }
        }
    }

    /// How long an answer may take to begin, and how long none of its body may move.
    fn waits(&self) -> (Duration, Duration) {
        let server = &self.front.shared.config().server;
        (server.answer_timeout, server.body_timeout)
    }

    async fn exchange(
        &mut self,
        (wire, deadline): (&mut Wire, &mut Deadline),
        asked: &Asked,
        target: &Target,
        closes: bool,
    ) -> Result<Answered, Failed> {
        let (answer_timeout, body_timeout) = self.waits();
        let called = target.backend.names.get();
        let terms = Terms {
            request: &self.request,
            is_head: asked.is_head,
            backend: called.header.as_bytes(),
            placement: target.reason.as_str(),
            closes,
            came: asked.came,
            placed: now(),
            answer_timeout,
            body_timeout,
        };
        let pool = &target.backend.pool;
        let mut kept = pool.take_stream().await;
        loop {
            let was_kept = kept.is_some();
            let line = match kept.take() {
                Some(line) => line,
                None => pool.dial().await.map_err(|_| Failed::NotSent)?,
            };
            let mut exchange = Exchange::new(line, std::mem::take(&mut self.room), &terms);
            let mut down = std::pin::pin!(target.backend.is_down());
            let outcome = poll_fn(|cx| {
                let polled = exchange.poll(cx, &terms, wire, deadline);
                if polled.is_pending() && exchange.takes_long() {
                    return down.as_mut().poll(cx).map(|()| Err(Broken::WentDown));
                }
                polled
            })
            .await;
            let (line, room) = exchange.into_parts();
            self.room = room;
            if !was_kept && matches!(outcome, Ok(_) | Err(Broken::Cut(_))) {
                target.backend.doors.passed();
            }
            match outcome {
                Ok(answered) => {
                    if answered.is_kept {
                        pool.keep_stream(line);
                    }
                    return Ok(answered);
                }
                // It may have been closed at the very moment of its use, and a read is safe to
                // repeat (RFC 9110 section 9.2.2).
                Err(Broken::Unanswered(error)) if was_kept => {
                    trace!(%error, "A kept connection was stale.");
                }
                Err(broken) => return Err(Failed::of(broken, terms.answer_timeout)),
            }
        }
    }

    /// Answers with what went wrong.
    async fn refuse(
        &mut self,
        wire: &mut Wire,
        asked: &Asked,
        error: &GatewayError,
        closes: bool,
    ) -> After {
        let response = front::failed(&self.front.shared, error);
        let took = now().duration_since(asked.came);
        self.front.shared.metrics.answered(response.status(), took);
        if let Some(record) = &asked.recorded {
            let status = response.status();
            let bytes = http_body::Body::size_hint(response.body()).exact();
            record.write(&access::Answer { status, backend: "", placement: "", bytes, took });
        }
        self.room.clear();
        write_own(&response, asked.is_head, closes, &mut self.room);
        let written = wire.stream.write_all(&self.room).await;
        After::of(written.is_ok() && !closes)
    }

    /// Counts an answer, and keeps no large buffers for the next.
    fn note(&mut self, asked: &Asked, target: &Target, answered: Answered) {
        let status = http::StatusCode::from_u16(answered.status).unwrap_or_default();
        self.front.shared.metrics.answered(status, answered.took);
        if let Some(record) = &asked.recorded {
            let called = target.backend.names.get();
            let (backend, placement) = (&*called.name, target.reason.as_str());
            let (bytes, took) = (answered.length, answered.took);
            record.write(&access::Answer { status, backend, placement, bytes, took });
        }
        for buffer in [&mut self.request, &mut self.room] {
            if KEPT_MAX < buffer.capacity() {
                *buffer = Vec::new();
            }
        }
    }
}

/// Why there is no answer to pass on, or not all of it.
enum Failed {
    /// There is no connection to the backend.
    NotSent,
    /// It broke before it brought anything.
    Unanswered(ExchangeError),
    Exchange(ExchangeError),
    Cut(Answered),
    /// The client has left.
    Left,
}

impl Failed {
    fn of(broken: Broken, answer_timeout: Duration) -> Self {
        match broken {
            Broken::Unanswered(error) => Self::Unanswered(ExchangeError::Lost(error.into())),
            Broken::Malformed(error) => Self::Exchange(ExchangeError::Lost(error.into())),
            Broken::WentDown => Self::Unanswered(ExchangeError::WentDown),
            Broken::NoAnswer => Self::Exchange(ExchangeError::NoAnswer(answer_timeout)),
            Broken::Cut(answered) => Self::Cut(answered),
            Broken::Left => Self::Left,
        }
    }
}

/// Takes off what was used.
fn take(read: &mut Vec<u8>, bytes: usize) {
    read.drain(..bytes);
    if read.is_empty() && KEPT_MAX < read.capacity() {
        *read = Vec::new();
    }
}
