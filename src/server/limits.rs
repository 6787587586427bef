//! What a connection may take.

use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioTimer;

use crate::config::ServerConfig;

/// How long a connection that was accepted when the drain began may take to ask.
pub const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How connections are limited.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub connections_max: usize,
    /// From the opening of the connection to the last byte of its first head; begun anew for one
    /// that is handed on before it is whole, because it is too long for the lane.
    pub header_timeout: Duration,
    /// From an answer to the last byte of the next head; a connection without one is closed.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub stall_timeout: Duration,
    pub header_bytes_max: usize,
    pub headers_max: usize,
}

impl ConnectionLimits {
    #[must_use]
    pub fn of(config: &ServerConfig) -> Self {
        Self {
            connections_max: config.max_connections,
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            stall_timeout: config.body_timeout,
            header_bytes_max: usize::try_from(config.max_header_bytes).unwrap_or(usize::MAX),
            headers_max: config.max_headers,
        }
    }

    /// hyper's settings for a connection that it serves to its end.
    pub(super) fn builder(&self) -> Builder {
        let mut builder = self.builder_once();
        builder
            .timer(KeepAlive { longer: self.idle_timeout.saturating_sub(self.header_timeout) })
            .header_read_timeout(self.header_timeout);
        builder
    }

    /// The same for one request whose head is there.
    pub(super) fn builder_once(&self) -> Builder {
        let mut builder = Builder::new();
        builder
            .max_buf_size(self.header_bytes_max.max(READ_MAX))
            .max_headers(self.headers_max)
            .header_read_timeout(None)
            .half_close(false);
        builder
    }
}

/// hyper has one timeout for all heads of a connection, and counts the wait for the next request
/// into it. It makes a timer for the first head and resets it for each further one, so the reset
/// is where a connection that has proved itself gets longer.
#[derive(Clone, Copy, Debug)]
struct KeepAlive {
    longer: Duration,
}

impl Timer for KeepAlive {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        crate::net::now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        TokioTimer::new().reset(sleep, deadline + self.longer);
    }
}

/// hyper has one limit for heads and for how much of a body it reads at once. Heads have their own
/// ([`crate::front::answer`] counts them); a body in small pieces costs two system calls for each.
/// It is what a connection can make us hold before its head is refused.
const READ_MAX: usize = 128 << 10;
