//! What carries a connection: plain TCP or TLS. What is told of a request besides its own text.

use std::time::Instant;

use http::{Request, Version};

use crate::net::Buffered;

/// What a request came over. It is in the extensions of requests that came over TLS.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Wire {
    #[default]
    Plain,
    Tls,
}

impl Wire {
    #[must_use]
    pub fn of(conn: &Buffered) -> Self {
        if conn.stream.is_secured() { Self::Tls } else { Self::Plain }
    }

    /// Stores it in a request.
    pub fn mark<B>(self, request: &mut Request<B>) {
        match self {
            Self::Plain => {}
            Self::Tls => {
                request.extensions_mut().insert(self);
            }
        }
    }

    /// Reads what was stored in a request.
    #[must_use]
    pub fn of_request<B>(request: &Request<B>) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }
}

/// The version of HTTP in which a request came. It is in the extensions of requests that were
/// translated from another one.
#[derive(Clone, Copy, Debug)]
pub struct Spoken(pub Version);

impl Spoken {
    #[must_use]
    pub fn of_request<B>(request: &Request<B>) -> Version {
        let spoken: Option<&Self> = request.extensions().get();
        spoken.map_or(request.version(), |spoken| spoken.0)
    }
}

/// When a request came. It is in the extensions of requests that somebody has tried to answer
/// before.
#[derive(Clone, Copy, Debug)]
pub struct Came(pub Instant);

impl Came {
    #[must_use]
    pub fn of_request<B>(request: &Request<B>) -> Option<Instant> {
        request.extensions().get().map(|Self(came)| *came)
    }
}
