//! The limits of a connection.

use std::time::Duration;

use hyper::server::conn::http1::Builder;

use crate::config::ServerConfig;

/// How long a connection that was accepted when the drain began may take to send its first request.
pub const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// The limits of each connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub connections_max: usize,
    /// From the opening of the connection to the last byte of its first head.
    pub header_timeout: Duration,
    /// From an answer to the last byte of the next head. An idle connection is closed after this
    /// time.
    pub idle_timeout: Duration,
    /// How long a client may go without taking anything of an answer.
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

    /// hyper's settings for a request whose head was already read.
    pub(super) fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder
            .max_buf_size(self.header_bytes_max.max(READ_MAX))
            .max_headers(self.headers_max)
            .header_read_timeout(None)
            .half_close(false);
        builder
    }
}

/// hyper has one limit for the size of a head and for how much of a body it reads at once. Heads
/// are read before hyper, within [`ConnectionLimits::header_bytes_max`]. A smaller limit would cost
/// two system calls for each small piece of a body.
const READ_MAX: usize = 128 << 10;
