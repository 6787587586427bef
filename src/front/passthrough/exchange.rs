//! One request and its answer, on the connections of a client and of a backend.
//!
//! Each piece of the answer is written as soon as it is read, and the next one is read when it has
//! been written. So at most one read is held in memory, and a slow client slows its backend down.
//! While it waits for the answer, it also watches the client's connection: if the client leaves,
//! its request ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::answer::{BadAnswer, OwnHeaders, Passed, pass_on};
use crate::auth::Pass;
use crate::fleet::breaker::Breaker;
use crate::net::{Buffered, Stream, now, with_scratch};
use crate::server::deadline::Deadline;
use crate::server::framing::{BadChunk, Framing};

/// A longer head of an answer that is not complete is refused, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// When this many bytes of this and later requests were read, reading stops, in bytes.
const AHEAD_MAX: usize = 32 << 10;

/// Parameters that stay the same for the whole exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeParams<'a> {
    /// The request in the form for the backend.
    pub request: &'a [u8],
    pub is_head: bool,
    pub backend: &'a [u8],
    pub placement: &'a str,
    /// The base path without a slash at its end.
    pub base: &'a str,
    /// The caller, if he has said who he is.
    pub pass: Option<&'a Pass>,
    pub closes: bool,
    /// When the request arrived, and when its backend was known.
    pub came: Instant,
    pub placed: Instant,
    /// How long the backend may take to begin its answer, and between two bytes of it.
    pub answer_timeout: Duration,
    pub body_timeout: Duration,
    /// Is told that a new connection works before the client gets its answer. A client that has an
    /// answer may rely on the state of the backend's breaker.
    pub dialled: Option<&'a Breaker>,
}

/// What is known about an answer once its head is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    pub status: u16,
    /// The length of its body, if the head gave it.
    pub length: Option<u64>,
    /// The time from the head of the request to the head of the answer.
    pub took: Duration,
    /// The backend's connection can be used again.
    pub is_kept: bool,
    /// The client's connection can be used again.
    pub client_stays: bool,
    /// Only the end of the connection ends the body.
    pub is_open_ended: bool,
}

/// Why an exchange was not completed.
#[derive(Debug)]
pub enum Broken {
    /// The backend's connection broke before the head of the answer was complete.
    Unanswered(io::Error),
    /// The data is not an answer, or its head does not end.
    Malformed(BadAnswer),
    /// No answer came in time.
    NoAnswer,
    /// The backend went down before it answered.
    WentDown,
    /// The sender may not come in any more, and no answer had begun.
    Barred,
    /// The answer broke off after its head, or the client left then.
    Cut(Answered),
    /// The client left before the head of the answer.
    Left,
}

/// The state of an exchange.
#[derive(Debug)]
pub struct Exchange {
    upstream: Stream,
    sent: usize,
    /// The part of the answer's head that has arrived, if it came in pieces.
    partial: Vec<u8>,
    /// The part of the answer that must still be written, from `written` on.
    unwritten: Vec<u8>,
    written: usize,
    head: Option<(Passed, Duration)>,
    /// The backend's connection has ended, or has sent data that was not requested.
    is_spent: bool,
    /// When the backend must have sent something.
    due: Instant,
    patience: Patience,
}

/// How the head of an answer is awaited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Patience {
    /// At first only with a deadline.
    Until(Instant),
    /// Later, the state of the backend is watched too.
    Over,
}

/// Most answers arrive earlier, so waiting for them need not watch the state of the backend.
const SOON: Duration = Duration::from_secs(1);

impl Exchange {
    /// An exchange on `upstream`. `scratch` is its buffer for writing.
    #[must_use]
    pub fn new(upstream: Stream, mut scratch: Vec<u8>, params: &ExchangeParams<'_>) -> Self {
        scratch.clear();
        Self {
            upstream,
            sent: 0,
            partial: Vec::new(),
            unwritten: scratch,
            written: 0,
            head: None,
            is_spent: false,
            due: params.placed + params.answer_timeout,
            patience: Patience::Until(params.placed + SOON),
        }
    }

    /// The backend's connection and the buffer, after the exchange.
    #[must_use]
    pub fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.upstream, self.unwritten)
    }

    /// Runs the exchange to its end.
    ///
    /// # Errors
    /// See [`Broken`].
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        params: &ExchangeParams<'_>,
        client: &mut Buffered,
        deadline: &mut Deadline,
    ) -> Poll<Result<Answered, Broken>> {
        // An answer may come before the whole request was sent, or instead of the rest.
        let sent = self.poll_send(cx, params.request);
        if let Poll::Ready(passed) = self.poll_pass(cx, params, client) {
            return Poll::Ready(passed);
        }
        if let (Poll::Ready(Err(error)), None) = (sent, &self.head) {
            return Poll::Ready(Err(Broken::Unanswered(error)));
        }
        if poll_left(cx, client).is_ready() {
            return Poll::Ready(Err(self.broke(params, Broken::Left)));
        }
        // A slow client is not the backend's fault.
        let is_awaited = self.unwritten.is_empty();
        deadline.set(self.next_look());
        while is_awaited && deadline.poll_passed(cx) {
            if self.due <= now() {
                return Poll::Ready(Err(self.broke(params, Broken::NoAnswer)));
            }
            self.patience = Patience::Over;
            deadline.set(self.next_look());
        }
        Poll::Pending
    }

    /// The error if the sender may not come in any more.
    #[must_use]
    pub fn barred(&self, params: &ExchangeParams<'_>) -> Broken {
        self.broke(params, Broken::Barred)
    }

    fn next_look(&self) -> Instant {
        match self.patience {
            Patience::Until(soon) if self.head.is_none() => soon.min(self.due),
            Patience::Until(_) | Patience::Over => self.due,
        }
    }

    /// True if the head of the answer takes longer than most.
    #[must_use]
    pub fn takes_long(&self) -> bool {
        self.head.is_none() && self.patience == Patience::Over
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, request: &[u8]) -> Poll<io::Result<()>> {
        while self.sent < request.len() {
            let upstream = Pin::new(&mut self.upstream);
            match ready!(upstream.poll_write(cx, &request[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and writes until the answer is complete.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        params: &ExchangeParams<'_>,
        client: &mut Buffered,
    ) -> Poll<Result<Answered, Broken>> {
        loop {
            let has_written = !self.unwritten.is_empty();
            ready!(self.poll_write(cx, client)).map_err(|_| self.broke(params, Broken::Left))?;
            if let Some(answered) = self.answered(params).filter(|_| self.is_over()) {
                return Poll::Ready(Ok(answered));
            }
            if has_written {
                // The backend was not read during the write.
                self.due = now() + params.body_timeout;
            }
            ready!(with_scratch(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(&mut self.upstream).poll_read(cx, &mut buffer));
                Poll::Ready(match (read, buffer.filled()) {
                    (Err(error), _) => Err(self.broke(params, Broken::Unanswered(error))),
                    (Ok(()), []) => self.upstream_ended(params),
                    (Ok(()), bytes) => self.came(cx, bytes, params, client),
                })
            }))?;
        }
    }

    /// Writes what could not be written at once.
    fn poll_write(&mut self, cx: &mut Context<'_>, client: &mut Buffered) -> Poll<io::Result<()>> {
        while self.written < self.unwritten.len() {
            let stream = Pin::new(&mut client.stream);
            match ready!(stream.poll_write(cx, &self.unwritten[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.unwritten.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// The backend closed its connection in an orderly way. That ends a body without a length.
    fn upstream_ended(&mut self, params: &ExchangeParams<'_>) -> Result<(), Broken> {
        self.is_spent = true;
        match &mut self.head {
            Some((head, _)) if head.body == Framing::UntilClose => {
                head.body = Framing::Over;
                Ok(())
            }
            Some(_) | None => {
                let error = io::ErrorKind::UnexpectedEof.into();
                Err(self.broke(params, Broken::Unanswered(error)))
            }
        }
    }

    fn came(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        params: &ExchangeParams<'_>,
        client: &mut Buffered,
    ) -> Result<(), Broken> {
        if self.head.is_some() {
            self.due = now() + params.body_timeout;
            return self.body_came(cx, bytes, params, client);
        }
        if self.partial.is_empty() {
            let Some(length) = self.head_came(bytes, params)? else {
                self.partial = bytes.to_vec();
                return Ok(());
            };
            return self.body_came(cx, &bytes[length..], params, client);
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        match self.head_came(&partial, params)? {
            Some(length) => self.body_came(cx, &partial[length..], params, client),
            None if HEAD_MAX < partial.len() => Err(Broken::Malformed(BadAnswer)),
            None => {
                self.partial = partial;
                Ok(())
            }
        }
    }

    /// Passes on the head if it is complete. Returns its length.
    fn head_came(
        &mut self,
        read: &[u8],
        params: &ExchangeParams<'_>,
    ) -> Result<Option<usize>, Broken> {
        let at = now();
        let ours = OwnHeaders {
            backend: params.backend,
            placement: params.placement,
            base: params.base,
            is_for_one: params.pass.is_some(),
            token_cookie: params.pass.and_then(Pass::token_cookie),
            own: params.placed.duration_since(params.came),
            at_backend: at.duration_since(params.placed),
            closes: params.closes,
        };
        let passed = pass_on(read, params.is_head, &ours, &mut self.unwritten);
        let Some(passed) = passed.map_err(Broken::Malformed)? else { return Ok(None) };
        if let Some(breaker) = params.dialled {
            breaker.passed();
        }
        self.due = at + params.body_timeout;
        self.head = Some((passed, at.duration_since(params.came)));
        Ok(Some(passed.bytes))
    }

    /// Writes the part of `bytes` that belongs to the body, after the data that is already waiting.
    fn body_came(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        params: &ExchangeParams<'_>,
        client: &mut Buffered,
    ) -> Result<(), Broken> {
        let Some((head, _)) = &mut self.head else { return Ok(()) };
        let count = match head.body.take(bytes) {
            Ok(count) => count,
            // The head was not sent yet, so the client can get an error.
            Err(BadChunk) if !self.unwritten.is_empty() => {
                return Err(Broken::Malformed(BadAnswer));
            }
            Err(BadChunk) => return Err(self.broke(params, Broken::Malformed(BadAnswer))),
        };
        self.is_spent |= count < bytes.len();
        let body = &bytes[..count];
        if body.len() <= COPIED_MAX {
            self.unwritten.extend_from_slice(body);
            return Ok(());
        }
        let slices = [IoSlice::new(&self.unwritten), IoSlice::new(body)];
        let written = match Pin::new(&mut client.stream).poll_write_vectored(cx, &slices) {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(_)) => return Err(self.broke(params, Broken::Left)),
            Poll::Pending => 0,
        };
        if written < self.unwritten.len() {
            self.unwritten.extend_from_slice(body);
            self.written = written;
        } else {
            let rest = &body[written - self.unwritten.len()..];
            self.unwritten.clear();
            self.unwritten.extend_from_slice(rest);
        }
        Ok(())
    }

    /// The error for a broken connection, which depends on whether an answer had begun.
    fn broke(&self, params: &ExchangeParams<'_>, unanswered: Broken) -> Broken {
        self.answered(params).map_or(unanswered, Broken::Cut)
    }

    fn is_over(&self) -> bool {
        self.head.as_ref().is_some_and(|(head, _)| head.body.is_over())
    }

    /// What is known about the answer, once its head was there.
    fn answered(&self, params: &ExchangeParams<'_>) -> Option<Answered> {
        let (head, took) = self.head.as_ref()?;
        Some(Answered {
            status: head.status,
            length: head.length,
            took: *took,
            is_kept: head.is_kept && !self.is_spent && params.request.len() <= self.sent,
            client_stays: !params.closes && !head.closes_client,
            is_open_ended: head.closes_client,
        })
    }
}

/// Small bodies are written together with their head, which costs less than a vectored write.
const COPIED_MAX: usize = 4 << 10;

/// Ready when the client is gone. Bytes that it sends meanwhile are kept for later.
fn poll_left(cx: &mut Context<'_>, client: &mut Buffered) -> Poll<()> {
    while client.read.len() < AHEAD_MAX {
        match ready!(client.poll_more(cx)) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Poll::Ready(()),
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn params(request: &[u8]) -> ExchangeParams<'_> {
        let now = now();
        ExchangeParams {
            request,
            is_head: false,
            backend: b"a",
            placement: "bound",
            base: "",
            pass: None,
            closes: false,
            came: now,
            placed: now,
            answer_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(5),
            dialled: None,
        }
    }

    /// A connection that buffers `scratch` bytes, and its other end.
    fn wire(scratch: usize) -> (Stream, DuplexStream) {
        let (ours, theirs) = duplex(scratch);
        (Stream::simulated(ours), theirs)
    }

    async fn run(upstream: Stream, client: Stream) -> Result<Answered, Broken> {
        let params = params(b"GET / HTTP/1.1\r\n\r\n");
        let mut exchange = Exchange::new(upstream, Vec::new(), &params);
        let (mut client, mut deadline) =
            (Buffered::new(client), Deadline::after(Duration::from_secs(3600)));
        poll_fn(|cx| exchange.poll(cx, &params, &mut client, &mut deadline)).await
    }

    async fn read_some(from: &mut DuplexStream, mut bytes: usize) {
        let mut piece = [0; 512];
        while 0 < bytes {
            let most = bytes.min(piece.len());
            bytes -= from.read(&mut piece[..most]).await.unwrap();
        }
    }

    /// Time is simulated: it passes when no task can run.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_its_time_is_not_given_up_and_a_backend_is() {
        for stalls in [Stalls::Client, Stalls::Backend] {
            let ((upstream, mut backend), (client, mut reader)) = (wire(1 << 10), wire(1 << 10));
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
            let answers = async {
                backend.write_all(head).await.unwrap();
                backend.write_all(&[b'x'; 50_000]).await.unwrap();
                if stalls == Stalls::Backend {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                let _ = backend.write_all(&[b'x'; 50_000]).await;
                backend
            };
            let reads = async {
                read_some(&mut reader, 20_000).await;
                if stalls == Stalls::Client {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest).await;
            };
            let exchange = run(upstream, client);
            let (outcome, _backend, ()) = tokio::join!(exchange, answers, reads);
            match stalls {
                Stalls::Client => assert!(outcome.is_ok_and(|it| it.is_kept)),
                Stalls::Backend => assert!(matches!(outcome, Err(Broken::Cut(_)))),
            }
        }
    }

    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Stalls {
        Client,
        Backend,
    }
}
