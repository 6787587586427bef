//! What is between us and the other end of a connection.

use http::Request;

use crate::net::Buffered;

/// What a request came over. It stands in the extensions of requests that came over TLS.
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

    /// Notes it with a request.
    pub fn mark<B>(self, request: &mut Request<B>) {
        match self {
            Self::Plain => {}
            Self::Tls => {
                request.extensions_mut().insert(self);
            }
        }
    }

    /// What was noted with a request.
    #[must_use]
    pub fn of_request<B>(request: &Request<B>) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }
}
