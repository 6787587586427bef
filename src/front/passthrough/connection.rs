//! A client's connection: serves its plain reads, one after the other.

use std::future::{Future as _, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tracing::trace;

use super::after::After;
use super::exchange::{Answered, Broken, Exchange, ExchangeParams};
use super::passed::PassedRequest;
use super::request::{HEAD_MAX, Parsed, Plain, parse};
use super::route_cache::RouteCache;
use crate::auth::{Pass, Refusal};
use crate::config::{AuthMode, BasePath, Config};
use crate::fleet::pool::ExchangeError;
use crate::front;
use crate::front::Front;
use crate::front::access;
use crate::front::comfy_user;
use crate::front::error::GatewayError;
use crate::front::forward::Target;
use crate::front::headers::keep_for_one;
use crate::net::{Buffered, now};
use crate::routing::decision::Reason;
use crate::server::deadline::Deadline;
use crate::server::heads::Heads;
use crate::server::limits::ConnectionLimits;
use crate::server::wire::Wire;
use crate::server::write::write_own;
use crate::server::{Left, Passthrough, Stopping};
use http::Method;

/// Buffers larger than this are freed when the connection is idle, in bytes.
const KEPT_MAX: usize = 4 << 10;

/// The passthrough of one connection.
#[derive(Debug)]
pub struct PassthroughConnection {
    front: Arc<Front>,
    limits: ConnectionLimits,
    route_cache: RouteCache,
    /// The head that is sent to the backend.
    request: Vec<u8>,
    scratch: Vec<u8>,
}

/// What comes next on a connection.
#[expect(clippy::large_enum_variant, reason = "taken where it is made, once for each request")]
enum Next {
    /// Not even a complete head.
    Nothing,
    Other,
    PassedRequest(PassedRequest),
}

impl Passthrough for PassthroughConnection {
    async fn run(
        &mut self,
        mut conn: Buffered,
        heads: &mut Heads,
        stopping: &mut Stopping<'_>,
    ) -> Left {
        let head_max = self.limits.header_bytes_max.min(HEAD_MAX);
        loop {
            match self.next(&conn, head_max) {
                Next::Nothing => {
                    if !heads.more(&mut conn, stopping).await {
                        return Left::Ended;
                    }
                }
                Next::Other => return Left::Other(conn),
                Next::PassedRequest(asked) => {
                    heads.asked();
                    let (bytes, came) = (asked.bytes, asked.came);
                    match self.pass(&mut conn, &mut heads.deadline, asked).await {
                        After::Stays => take(&mut conn.read, bytes),
                        After::Elsewhere => {
                            let config = self.front.shared.config();
                            self.route_cache.leave(&self.front, &config);
                            heads.came(came);
                            return Left::Other(conn);
                        }
                        After::Ends => return Left::Over(conn),
                        After::BreaksOff => return Left::Ended,
                    }
                    heads.answered();
                }
            }
        }
    }
}

impl PassthroughConnection {
    #[must_use]
    pub fn new(front: Arc<Front>, peer: IpAddr, limits: ConnectionLimits) -> Self {
        Self {
            front,
            limits,
            route_cache: RouteCache::new(peer),
            request: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Decides what comes next from the bytes that were read.
    fn next(&mut self, conn: &Buffered, head_max: usize) -> Next {
        // Nothing to parse yet.
        if conn.read.is_empty() {
            return Next::Nothing;
        }
        let config = self.front.shared.config();
        let (base, peer) = (&config.server.base_path, self.route_cache.peer(&config));
        match parse(&conn.read, head_max, self.limits.headers_max, base) {
            Parsed::Partial => Next::Nothing,
            Parsed::Plain(mut plain) if plain.may_pass(&config.server, peer) => {
                plain.hints.wire = Wire::of(conn);
                if config.auth.jwt.cookie.is_some() {
                    plain.keep_back(&self.front.admission.tokens());
                }
                let came = now();
                let entered = self.route_cache.enter(&self.front, &config, &mut plain, came);
                let Ok(pass) = entered else { return Next::Other };
                // Copies are made on hyper's way.
                let is_due = |read| self.front.starts.are_due(read, &self.front, came);
                if plain.kind.start.is_some_and(is_due) {
                    self.route_cache.leave(&self.front, &config);
                    return Next::Other;
                }
                Next::PassedRequest(self.ask(&plain, &config, came, pass))
            }
            Parsed::Plain(_) | Parsed::Other => Next::Other,
        }
    }

    /// Decides where a request goes, and writes its head.
    fn ask(
        &mut self,
        plain: &Plain<'_>,
        config: &Config,
        came: Instant,
        pass: Option<Pass>,
    ) -> PassedRequest {
        let asked = (plain.path, &plain.hints);
        let target = self.route_cache.target(&self.front, config, asked, came);
        let target = comfy_user::known(&config.auth, target, pass.as_ref());
        let base = &config.server.base_path;
        self.request.clear();
        if let Ok((target, user)) = &target {
            let (backend, peer) = (&target.backend, self.route_cache.peer(config));
            let said = (user.as_ref(), &*backend.headers());
            plain.write(backend.host_header.as_bytes(), peer, said, &mut self.request);
        }
        PassedRequest {
            bytes: plain.bytes,
            is_head: plain.is_head,
            closes: plain.closes,
            // The effect of any other read is unknown, so it is not sent twice.
            may_be_repeated: plain.kind.start.is_some(),
            class: plain.kind.class,
            target: target.map(|(target, _user)| target),
            base: (!base.is_root()).then(|| base.clone()),
            came,
            answer_timeout: config.server.answer_timeout,
            body_timeout: config.server.body_timeout,
            recorded: access::is_recorded(&self.front.shared).then(|| {
                let method = if plain.is_head { Method::HEAD } else { Method::GET };
                let said = plain.said(method).below(base.prefix());
                let peer = self.route_cache.address();
                let mut record = access::Record::of(&self.front, peer, &said, &plain.hints);
                record.is_of(pass.as_ref());
                record
            }),
            pass,
        }
    }

    /// Passes on one request and its answer.
    async fn pass(
        &mut self,
        conn: &mut Buffered,
        deadline: &mut Deadline,
        asked: PassedRequest,
    ) -> After {
        let closes = asked.closes || self.front.shared.is_leaving();
        let Ok(target) = &asked.target else { return asked.is_answered_elsewhere() };
        if matches!(target.reason, Reason::Placed | Reason::Moved) {
            // The answer reveals a binding, which must survive a restart.
            let _ = self.front.shared.records.journal.durable().await;
        }
        match self.exchange((conn, deadline), &asked, target, closes).await {
            Ok(answered) => {
                self.note(&asked, target, answered);
                After::of(answered.client_stays)
            }
            Err(Failed::Left) => After::BreaksOff,
            Err(Failed::Cut(answered)) => {
                trace!(backend = %target.backend.name(), "An answer broke off.");
                self.note(&asked, target, answered);
                if answered.is_open_ended {
                    // An orderly close would look like the end of the body.
                    conn.stream.break_off();
                }
                After::BreaksOff
            }
            Err(Failed::NotSent) => asked.is_answered_elsewhere(),
            // The backend may have received the request, so it is not sent again.
            Err(Failed::Barred) => {
                self.front.shared.metrics.guests.refused(Refusal::Unknown.as_str());
                let error = match self.front.shared.config().auth.mode {
                    AuthMode::Jwt => GatewayError::NoToken,
                    AuthMode::Header => GatewayError::Unnamed,
                    AuthMode::Keys | AuthMode::Off => GatewayError::Unauthorized,
                };
                self.refuse(conn, &asked, &error, closes).await
            }
            Err(Failed::Unanswered(_)) if asked.may_be_repeated => asked.is_answered_elsewhere(),
            Err(Failed::Exchange(error) | Failed::Unanswered(error)) => {
                let error = GatewayError::exchange(&target.backend.name(), error);
                self.refuse(conn, &asked, &error, closes).await
            }
        }
    }

    async fn exchange(
        &mut self,
        (conn, deadline): (&mut Buffered, &mut Deadline),
        asked: &PassedRequest,
        target: &Target,
        closes: bool,
    ) -> Result<Answered, Failed> {
        let called = target.backend.names.get();
        let mut params = ExchangeParams {
            request: &self.request,
            is_head: asked.is_head,
            backend: called.header.as_bytes(),
            placement: target.reason.as_str(),
            base: asked.base.as_ref().map_or("", BasePath::prefix),
            pass: asked.pass.as_ref(),
            closes,
            came: asked.came,
            placed: now(),
            answer_timeout: asked.answer_timeout,
            body_timeout: asked.body_timeout,
            dialled: None,
        };
        let mut barred = asked.pass.clone().map(|pass| self.front.admission.until_over(Some(pass)));
        let pool = &target.backend.pool;
        let epoch = pool.epoch();
        let mut kept = pool.take_stream().await;
        loop {
            let was_kept = kept.is_some();
            let upstream = match kept.take() {
                Some(upstream) => upstream,
                None => pool.dial().await.map_err(|_| Failed::NotSent)?,
            };
            params.dialled = (!was_kept).then_some(&target.backend.breaker);
            let mut exchange = Exchange::new(upstream, std::mem::take(&mut self.scratch), &params);
            let mut down = std::pin::pin!(target.backend.went_down());
            let outcome = poll_fn(|cx| {
                let polled = exchange.poll(cx, &params, conn, deadline);
                if let (true, Some(barred)) = (polled.is_pending(), &mut barred)
                    && barred.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Err(exchange.barred(&params)));
                }
                if polled.is_pending() && exchange.takes_long() {
                    return down.as_mut().poll(cx).map(|()| Err(Broken::WentDown));
                }
                polled
            })
            .await;
            let (upstream, scratch) = exchange.into_parts();
            self.scratch = scratch;
            match outcome {
                Ok(answered) => {
                    if answered.is_kept {
                        pool.keep_stream(upstream, epoch);
                    }
                    return Ok(answered);
                }
                // The backend may have closed the connection just when it was used. A read may be
                // repeated (RFC 9110 section 9.2.2).
                Err(Broken::Unanswered(error)) if was_kept => {
                    trace!(%error, "An idle connection was stale.");
                }
                Err(broken) => return Err(Failed::of(broken, params.answer_timeout)),
            }
        }
    }

    /// Answers with an error.
    async fn refuse(
        &mut self,
        conn: &mut Buffered,
        asked: &PassedRequest,
        error: &GatewayError,
        closes: bool,
    ) -> After {
        let mut response = front::failed(&self.front.shared, error);
        if asked.pass.is_some() {
            keep_for_one(response.headers_mut());
        }
        let took = now().duration_since(asked.came);
        self.front.shared.metrics.answered(asked.class, response.status(), took);
        if let Some(record) = &asked.recorded {
            let status = response.status();
            let bytes = http_body::Body::size_hint(response.body()).exact();
            let target = asked.target.as_ref().ok();
            let called = target.map(|target| target.backend.name());
            let backend = called.as_deref().unwrap_or_default();
            let (placement, request_id) = ("", None);
            let answer = access::Answer { status, backend, placement, bytes, took, request_id };
            record.write(&answer);
        }
        self.scratch.clear();
        write_own(&response, asked.is_head, closes, &mut self.scratch);
        let written = conn.stream.write_all(&self.scratch).await;
        After::of(written.is_ok() && !closes)
    }

    /// Counts an answer, and frees large buffers.
    fn note(&mut self, asked: &PassedRequest, target: &Target, answered: Answered) {
        let status = http::StatusCode::from_u16(answered.status).unwrap_or_default();
        self.front.shared.metrics.answered(asked.class, status, answered.took);
        if let Some(record) = &asked.recorded {
            let called = target.backend.names.get();
            let (backend, placement) = (&*called.name, target.reason.as_str());
            let (bytes, took) = (answered.length, answered.took);
            let request_id = None;
            let answer = access::Answer { status, backend, placement, bytes, took, request_id };
            record.write(&answer);
        }
        for buffer in [&mut self.request, &mut self.scratch] {
            if KEPT_MAX < buffer.capacity() {
                *buffer = Vec::new();
            }
        }
    }
}

/// Why there is no answer, or only a part of it.
enum Failed {
    /// There is no connection to the backend.
    NotSent,
    /// The connection broke before any answer.
    Unanswered(ExchangeError),
    Exchange(ExchangeError),
    /// The sender may not come in any more.
    Barred,
    Cut(Answered),
    /// The client is gone.
    Left,
}

impl Failed {
    fn of(broken: Broken, answer_timeout: Duration) -> Self {
        match broken {
            Broken::Unanswered(error) => Self::Unanswered(ExchangeError::Lost(error.into())),
            Broken::Malformed(error) => Self::Exchange(ExchangeError::Lost(error.into())),
            Broken::WentDown => Self::Unanswered(ExchangeError::WentDown),
            Broken::Barred => Self::Barred,
            Broken::NoAnswer => Self::Exchange(ExchangeError::NoAnswer(answer_timeout)),
            Broken::Cut(answered) => Self::Cut(answered),
            Broken::Left => Self::Left,
        }
    }
}

/// Removes the bytes that were used.
fn take(read: &mut Vec<u8>, bytes: usize) {
    read.drain(..bytes);
    if read.is_empty() && KEPT_MAX < read.capacity() {
        *read = Vec::new();
    }
}
