//! The heads of a connection's requests, as they arrive.
//!
//! Each byte is searched once for the end of a head. A head is parsed when it is complete, however
//! small its pieces are. No more is read from the system than a head may have, so a client that
//! sends without end costs only that much memory.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio_util::sync::WaitForCancellationFuture;

use super::deadline::Deadline;
use super::limits::{ConnectionLimits, FIRST_REQUEST};
use super::message::{self, Head, Message};
use super::refusal::Refusal;
use super::wire::Came;
use crate::lazy_poll::LazyPoll;
use crate::net::{Buffered, now};

/// Waits for the next head of a connection.
#[derive(Debug)]
pub struct Heads {
    limits: ConnectionLimits,
    /// The timer for all waits of the connection.
    pub deadline: Deadline,
    /// Whether a request has come. A drain does not close a connection before its first request.
    has_asked: bool,
    has_stopped: bool,
    /// When the next request came, if somebody has tried to answer it.
    came: Option<Instant>,
}

/// What comes next on a connection.
#[derive(Debug)]
pub enum Next {
    /// No head came, or not in time.
    Ended,
    Refused(Refusal),
    Asked(Message),
}

impl Heads {
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        let deadline = Deadline::after(limits.header_timeout);
        Self { limits, deadline, has_asked: false, has_stopped: false, came: None }
    }

    /// Notes that a head has come. The time for the next head begins with the answer.
    pub fn asked(&mut self) {
        self.has_asked = true;
    }

    /// Notes when the request came that is still to be answered, by somebody else.
    pub fn came(&mut self, at: Instant) {
        self.came = Some(at);
    }

    /// When the request came that was just read, if that was long ago.
    pub fn take_came(&mut self) -> Option<Came> {
        self.came.take().map(Came)
    }

    /// Notes that a request was answered.
    pub fn answered(&mut self) {
        self.deadline.set(now() + self.limits.idle_timeout);
    }

    /// Waits for the next head and checks it.
    pub async fn next(
        &mut self,
        conn: &mut Buffered,
        stopping: &mut LazyPoll<WaitForCancellationFuture<'_>>,
    ) -> Next {
        let ConnectionLimits { header_bytes_max, headers_max, .. } = self.limits;
        loop {
            // Nothing to parse yet.
            if !conn.read.is_empty() {
                match message::read(&conn.read, header_bytes_max, headers_max) {
                    Head::Partial => {}
                    Head::Whole(message) => {
                        self.asked();
                        return Next::Asked(message);
                    }
                    Head::Refused(refusal) => return Next::Refused(refusal),
                }
            }
            if !self.more(conn, stopping).await {
                return Next::Ended;
            }
        }
    }

    /// Waits until the received bytes are worth parsing: they are the first ones of a head, they
    /// end one, or they are as many as a head may have. False if no head comes, or none is accepted
    /// any more.
    pub async fn more(
        &mut self,
        conn: &mut Buffered,
        stopping: &mut LazyPoll<WaitForCancellationFuture<'_>>,
    ) -> bool {
        let most = self.limits.header_bytes_max;
        let (mut searched, mut has_come) = (conn.read.len(), false);
        poll_fn(|cx| {
            while let Poll::Ready(read) = conn.poll_until_full(cx, most) {
                if !matches!(read, Ok(true)) {
                    // The last bytes are parsed all the same: if they are malformed, the client is
                    // told so.
                    return Poll::Ready(read.is_ok() && has_come);
                }
                has_come = true;
                // Some of the bytes that are dropped may have been searched before.
                searched = searched.saturating_sub(forget_blank_lines(&mut conn.read));
                if is_worth_reading(&conn.read, searched, most) {
                    return Poll::Ready(true);
                }
                searched = conn.read.len();
            }
            if self.is_late(cx, stopping) { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    /// Waits for work that precedes the first head. Both share the time limit of the first head.
    /// `None` if the work takes too long.
    pub async fn before_the_first<T>(
        &mut self,
        stopping: &mut LazyPoll<WaitForCancellationFuture<'_>>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.is_late(cx, stopping) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// True once the wait is over.
    fn is_late(
        &mut self,
        cx: &mut Context<'_>,
        stopping: &mut LazyPoll<WaitForCancellationFuture<'_>>,
    ) -> bool {
        if !self.has_stopped && stopping.poll(cx).is_ready() {
            self.has_stopped = true;
            // The connection was accepted just before the drain. Its first request may be on its
            // way.
            self.deadline.set(now() + FIRST_REQUEST);
        }
        (self.has_stopped && self.has_asked) || self.deadline.poll_passed(cx)
    }
}

/// Drops empty lines before a request, which RFC 9112 section 2.2 allows. Returns their bytes.
fn forget_blank_lines(read: &mut Vec<u8>) -> usize {
    let mut blank = 0;
    while let Some(line) =
        [&b"\r\n"[..], b"\n"].into_iter().find(|it| read[blank..].starts_with(it))
    {
        blank += line.len();
    }
    read.drain(..blank);
    blank
}

/// True if `read` is worth parsing. `searched` bytes of it were searched before.
fn is_worth_reading(read: &[u8], searched: usize, most: usize) -> bool {
    let is_begun = searched == 0 && !read.is_empty();
    is_begun || most <= read.len() || has_end(read, searched)
}

/// True if a head ends in the bytes that were not searched yet. The end is two line feeds, with or
/// without a carriage return before the second one.
fn has_end(read: &[u8], searched: usize) -> bool {
    let from = searched.saturating_sub(2);
    let unsearched = read.get(from..).unwrap_or_default();
    let mut feeds = memchr::memchr_iter(b'\n', unsearched);
    feeds.any(|at| matches!(&unsearched[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;
    use crate::net::Stream;
    use crate::tasks::Tasks;

    /// Whether a head is found that comes in these pieces, after `read_before` was read already.
    async fn is_found(read_before: &[u8], pieces: &[&[u8]]) -> bool {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut conn = Buffered::new(Stream::simulated(ours));
        conn.read = read_before.into();
        let limits = ConnectionLimits {
            connections_max: 1,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            header_bytes_max: 1 << 14,
            headers_max: 100,
        };
        let (tasks, mut heads) = (Tasks::default(), Heads::new(limits));
        let mut stopping = LazyPoll::new(tasks.stopping());
        let sent = async {
            for piece in pieces {
                theirs.write_all(piece).await.unwrap();
                // Until the bytes are read.
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            next = heads.next(&mut conn, &mut stopping) => matches!(next, Next::Asked(_)),
            () = sent => false,
        }
    }

    /// Time is simulated: if the end of a head is missed, the wait for its deadline ends at once.
    #[tokio::test(start_paused = true)]
    async fn a_head_is_seen_behind_any_number_of_blank_lines_wherever_it_is_cut() {
        let head = "GET / HTTP/1.1\r\nHost: gw\r\n\r\n";
        for line in ["\r\n", "\n"] {
            for lines in 0..40 {
                let all = line.repeat(lines) + head;
                let all = all.as_bytes();
                for cut in 0..all.len() {
                    let (before, after) = all.split_at(cut);
                    assert!(is_found(before, &[after]).await, "{lines} lines, cut at {cut}");
                    let (one, other) = after.split_at(after.len() / 2);
                    assert!(is_found(before, &[one, other]).await, "{lines} lines, {cut}, twice");
                    assert!(is_found(b"", &[before, one, other]).await, "{lines} lines, {cut}");
                }
            }
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        for head in ["GET / HTTP/1.1\r\nHost: gw\r\n\r\n", "GET / HTTP/1.1\nHost: gw\n\n"] {
            for cut in 1..head.len() {
                assert!(!has_end(&head.as_bytes()[..cut], 0), "{cut}");
                assert!(has_end(head.as_bytes(), cut), "{cut}");
            }
        }
    }

    #[test]
    fn a_head_in_pieces_is_read_at_its_first_and_at_its_last() {
        let head = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n";
        let worth: Vec<usize> =
            (1..=head.len()).filter(|end| is_worth_reading(&head[..*end], end - 1, 99)).collect();
        assert_eq!(worth, [1, head.len()]);
        assert!(is_worth_reading(b"GET / HTTP", 9, 10), "no more is taken");
    }

    #[test]
    fn blank_lines_before_a_request_are_not_kept() {
        for (came, kept) in [
            ("\r\n\r\n\nGET", "GET"),
            ("\r\n\r", "\r"),
            ("GET /\r\n\r\n", "GET /\r\n\r\n"),
            ("\r\n", ""),
        ] {
            let mut read = came.into();
            let forgotten = forget_blank_lines(&mut read);
            assert_eq!((&*read, forgotten), (kept.as_bytes(), came.len() - kept.len()));
        }
        assert!(!is_worth_reading(b"", 0, 10));
    }
}
