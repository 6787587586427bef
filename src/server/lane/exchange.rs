//! One request and its answer, on the connections of a client and of a backend.
//!
//! What is read of the answer is written at once; the next is read when it is on its way. So what
//! is held is at most one read, and a client that does not read slows its backend. While the
//! answer is awaited the client is listened to: one that leaves takes its request with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::answer::{BadAnswer, Ours, Passed, pass_on};
use super::deadline::Deadline;
use super::framing::{BadChunk, Framing};
use crate::net::{Stream, Wire, now, with_scratch};

/// The largest head of an answer, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// How much of the requests after this one is taken in.
const AHEAD_MAX: usize = 16 << 10;

/// What is the same for the whole exchange.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The request as the backend gets it.
    pub request: &'a [u8],
    pub is_head: bool,
    pub backend: &'a [u8],
    pub placement: &'a str,
    pub closes: bool,
    /// When the request had come, and when it was known where it goes.
    pub came: Instant,
    pub placed: Instant,
    /// How long the backend may take to begin its answer, and between two bytes of it.
    pub answer_timeout: Duration,
    pub body_timeout: Duration,
}

/// An answer that was passed on whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    pub status: u16,
    /// From the request's head to the answer's.
    pub took: Duration,
    /// The backend's connection may be used again.
    pub is_kept: bool,
    /// The client's may.
    pub client_stays: bool,
    /// The body has no end but that of the connection.
    pub is_open_ended: bool,
}

/// Why an exchange did not come to its end.
#[derive(Debug)]
pub enum Broken {
    /// The backend's connection broke, and nothing of an answer had come.
    Unanswered(io::Error),
    /// What came is no answer, or its head has no end.
    Malformed(BadAnswer),
    /// Nothing came in time.
    NoAnswer,
    /// The answer broke off after its head, or the client has left then.
    Cut(Answered),
    /// The client has left before.
    Left,
}

/// The state of an exchange.
#[derive(Debug)]
pub struct Exchange {
    line: Stream,
    sent: usize,
    /// The answer's head as far as it has come, if it came in pieces.
    partial: Vec<u8>,
    /// What of the answer is to be written, from `written` on.
    unwritten: Vec<u8>,
    written: usize,
    head: Option<(Passed, Duration)>,
    /// The backend's connection has ended, or has brought what nobody asked for.
    is_spent: bool,
    /// Until when the backend has to send something.
    due: Instant,
}

impl Exchange {
    /// On `line`, with `room` to write in.
    #[must_use]
    pub fn new(line: Stream, mut room: Vec<u8>, terms: &Terms<'_>) -> Self {
        room.clear();
        Self {
            line,
            sent: 0,
            partial: Vec::new(),
            unwritten: room,
            written: 0,
            head: None,
            is_spent: false,
            due: terms.placed + terms.answer_timeout,
        }
    }

    /// The backend's connection and the room, after the exchange.
    #[must_use]
    pub fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.line, self.unwritten)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// See [`Broken`].
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        terms: &Terms<'_>,
        client: &mut Wire,
        deadline: &mut Deadline,
    ) -> Poll<Result<Answered, Broken>> {
        // An answer may come before the request is taken whole, or in place of that.
        let sent = self.poll_send(cx, terms.request);
        if let Poll::Ready(passed) = self.poll_pass(cx, terms, client) {
            return Poll::Ready(match passed {
                Ok(()) => Ok(self.answered(terms)),
                Err(Broken::Left) => Err(self.broke(terms, Broken::Left)),
                Err(broken) => Err(broken),
            });
        }
        if let (Poll::Ready(Err(error)), None) = (sent, &self.head) {
            return Poll::Ready(Err(Broken::Unanswered(error)));
        }
        if poll_left(cx, client).is_ready() {
            return Poll::Ready(Err(self.broke(terms, Broken::Left)));
        }
        // A client that takes its time is not the backend's fault.
        let is_awaited = self.unwritten.is_empty();
        deadline.set(self.due);
        if is_awaited && deadline.poll_passed(cx) {
            return Poll::Ready(Err(self.broke(terms, Broken::NoAnswer)));
        }
        Poll::Pending
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, request: &[u8]) -> Poll<io::Result<()>> {
        while self.sent < request.len() {
            let line = Pin::new(&mut self.line);
            match ready!(line.poll_write(cx, &request[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and writes until the answer is over.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        terms: &Terms<'_>,
        client: &mut Wire,
    ) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_write(cx, terms, client)).map_err(|_| Broken::Left)?;
            if self.head.as_ref().is_some_and(|(head, _)| head.body.is_over()) {
                return Poll::Ready(Ok(()));
            }
            ready!(with_scratch(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(&mut self.line).poll_read(cx, &mut buffer));
                Poll::Ready(match (read, buffer.filled()) {
                    (Err(error), _) => Err(self.broke(terms, Broken::Unanswered(error))),
                    (Ok(()), []) => self.line_ended(terms),
                    (Ok(()), bytes) => self.came(cx, bytes, terms, client),
                })
            }))?;
        }
    }

    /// Writes what could not be written at once.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        terms: &Terms<'_>,
        client: &mut Wire,
    ) -> Poll<io::Result<()>> {
        if self.unwritten.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.unwritten.len() {
            let stream = Pin::new(&mut client.stream);
            match ready!(stream.poll_write(cx, &self.unwritten[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.unwritten.clear();
        self.written = 0;
        // The backend was not read meanwhile.
        self.due = now() + terms.body_timeout;
        Poll::Ready(Ok(()))
    }

    /// The backend's connection has ended in order: so do bodies without a length.
    fn line_ended(&mut self, terms: &Terms<'_>) -> Result<(), Broken> {
        self.is_spent = true;
        match &mut self.head {
            Some((head, _)) if head.body == Framing::UntilClose => {
                head.body = Framing::Over;
                Ok(())
            }
            Some(_) | None => {
                let error = io::ErrorKind::UnexpectedEof.into();
                Err(self.broke(terms, Broken::Unanswered(error)))
            }
        }
    }

    fn came(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        terms: &Terms<'_>,
        client: &mut Wire,
    ) -> Result<(), Broken> {
        if self.head.is_some() {
            self.due = now() + terms.body_timeout;
            return self.body_came(cx, bytes, terms, client);
        }
        if self.partial.is_empty() {
            let Some(length) = self.head_came(bytes, terms)? else {
                self.partial = bytes.to_vec();
                return Ok(());
            };
            return self.body_came(cx, &bytes[length..], terms, client);
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        match self.head_came(&partial, terms)? {
            Some(length) => self.body_came(cx, &partial[length..], terms, client),
            None if HEAD_MAX < partial.len() => Err(Broken::Malformed(BadAnswer)),
            None => {
                self.partial = partial;
                Ok(())
            }
        }
    }

    /// Passes the head on, if it is whole: how long it was.
    fn head_came(&mut self, read: &[u8], terms: &Terms<'_>) -> Result<Option<usize>, Broken> {
        let at = now();
        let ours = Ours {
            backend: terms.backend,
            placement: terms.placement,
            own: terms.placed.duration_since(terms.came),
            at_backend: at.duration_since(terms.placed),
            closes: terms.closes,
        };
        let passed = pass_on(read, terms.is_head, &ours, &mut self.unwritten);
        let Some(passed) = passed.map_err(Broken::Malformed)? else { return Ok(None) };
        self.due = at + terms.body_timeout;
        self.head = Some((passed, at.duration_since(terms.came)));
        Ok(Some(passed.bytes))
    }

    /// Writes what of `bytes` belongs to the body, after what is to be written before it.
    fn body_came(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        terms: &Terms<'_>,
        client: &mut Wire,
    ) -> Result<(), Broken> {
        let Some((head, _)) = &mut self.head else { return Ok(()) };
        let count = match head.body.take(bytes) {
            Ok(count) => count,
            Err(BadChunk) => return Err(self.broke(terms, Broken::Malformed(BadAnswer))),
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
            Poll::Ready(Err(_)) => return Err(Broken::Left),
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

    /// What it is called when it breaks, which depends on whether an answer had begun.
    fn broke(&self, terms: &Terms<'_>, unanswered: Broken) -> Broken {
        if self.head.is_some() { Broken::Cut(self.answered(terms)) } else { unanswered }
    }

    fn answered(&self, terms: &Terms<'_>) -> Answered {
        let Some((head, took)) = &self.head else {
            return Answered {
                status: 0,
                took: Duration::ZERO,
                is_kept: false,
                client_stays: false,
                is_open_ended: false,
            };
        };
        Answered {
            status: head.status,
            took: *took,
            is_kept: head.is_kept && !self.is_spent && terms.request.len() <= self.sent,
            client_stays: !terms.closes && !head.closes_client,
            is_open_ended: head.closes_client,
        }
    }
}

/// Small bodies leave with their head in one piece: that is less than a list of pieces costs.
const COPIED_MAX: usize = 4 << 10;

/// Ready once the client has left. What it asks meanwhile is kept for later.
fn poll_left(cx: &mut Context<'_>, client: &mut Wire) -> Poll<()> {
    while client.read.len() < AHEAD_MAX {
        match ready!(client.poll_more(cx)) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Poll::Ready(()),
        }
    }
    Poll::Pending
}
