//! Reads a whole body into memory, within a size, a time and the budget of all bodies.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::budget::BodyShare;
use super::{BodyError, Look, Streamed};

/// Why a body could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("the body is larger than {max} bytes")]
    TooLarge { max: u64 },
    #[error("the limit for bodies in memory is reached")]
    Busy,
    #[error("the body broke off")]
    Broken(#[source] BodyError),
}

/// The lowest average rate of a collected body, in bytes per second. It is checked once the body
/// has taken longer than its idle deadline: a client that sends one byte a minute must not hold
/// memory forever.
const LEAST_RATE: u64 = 1 << 10;

/// How a body may be collected.
#[derive(Clone, Copy, Debug)]
pub struct CollectLimits {
    /// The largest size, in bytes.
    pub max: u64,
    /// The longest time in which no byte may arrive.
    pub idle: Duration,
}

/// Reads a whole body; `share` holds its bytes against the budget of all bodies.
///
/// # Errors
/// The body is too large (known from its length before the first byte, or at the first byte over
/// the limit), the budget is used up, or the body broke off.
pub(crate) async fn collect(
    body: Incoming,
    limits: CollectLimits,
    share: Option<&mut BodyShare>,
) -> Result<Bytes, CollectError> {
    collect_counted(body, None, limits, share).await
}

/// The same; `counts` counts the bytes as they arrive, and ends the body when it says no.
///
/// # Errors
/// Those of [`collect`].
pub(crate) async fn collect_counted(
    body: Incoming,
    counts: Option<Look>,
    limits: CollectLimits,
    share: Option<&mut BodyShare>,
) -> Result<Bytes, CollectError> {
    let announced = body.size_hint().lower();
    if limits.max < announced {
        return Err(CollectError::TooLarge { max: limits.max });
    }
    let announced = usize::try_from(announced).unwrap_or_default();
    let mut collector = Collector { limits, share, announced, first: None, rest: Vec::new() };
    let mut streamed = Streamed::new(body, limits.idle);
    streamed.counts = counts;
    let began = Instant::now();
    while let Some(frame) = std::future::poll_fn(|cx| streamed.poll_inner(cx)).await {
        let Ok(data) = frame.map_err(CollectError::Broken)?.into_data() else { continue };
        collector.add(data)?;
        let late = began.elapsed().saturating_sub(limits.idle);
        if collector.len() < late.as_secs().saturating_mul(LEAST_RATE) {
            return Err(CollectError::Broken(BodyError::Idle(limits.idle)));
        }
    }
    Ok(collector.whole())
}

struct Collector<'a> {
    limits: CollectLimits,
    share: Option<&'a mut BodyShare>,
    /// How many bytes come at least, as the head says.
    announced: usize,
    first: Option<Bytes>,
    rest: Vec<u8>,
}

impl Collector<'_> {
    fn admit(&mut self, bytes: u64) -> Result<(), CollectError> {
        if self.limits.max < bytes {
            return Err(CollectError::TooLarge { max: self.limits.max });
        }
        let is_free = self.share.as_mut().is_none_or(|share| share.grow_to(bytes));
        if is_free { Ok(()) } else { Err(CollectError::Busy) }
    }

    fn len(&self) -> u64 {
        (self.first.as_ref().map_or(0, Bytes::len) + self.rest.len()) as u64
    }

    fn add(&mut self, data: Bytes) -> Result<(), CollectError> {
        self.admit(self.len() + data.len() as u64)?;
        match self.first.take() {
            None if self.rest.is_empty() => self.first = Some(data),
            first => {
                let first = first.unwrap_or_default();
                self.make_room(first.len() + data.len());
                self.rest.extend_from_slice(&first);
                self.rest.extend_from_slice(&data);
            }
        }
        Ok(())
    }

    /// Reserves what is announced, so that a large body is seldom copied while it grows: for a
    /// moment that takes twice the memory. It is at most four times what has arrived, because
    /// anybody can announce much.
    fn make_room(&mut self, more: usize) {
        let arrived = self.rest.len() + more;
        if self.rest.capacity() < arrived {
            let wanted = self.announced.min(arrived.saturating_mul(4));
            self.rest.reserve_exact(wanted.saturating_sub(self.rest.len()));
        }
    }

    /// Small bodies arrive in one piece and are not copied. Large ones are copied once, as they
    /// arrive: joining the parts at the end would need twice the memory.
    fn whole(self) -> Bytes {
        self.first.unwrap_or_else(|| self.rest.into())
    }
}
