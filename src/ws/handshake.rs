//! The opening handshake (RFC 6455 section 4), as server and as client.

use std::fmt;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::tail::Noted;
use super::{Channel, Limits, Role};
use crate::net::{Buffered, Stream};

/// A request to `/ws` that is not an opening handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    #[error("a WebSocket is opened with GET over HTTP/1.1")]
    NotGet,
    #[error("`Upgrade: websocket` and `Connection: upgrade` are missing")]
    NotUpgrade,
    #[error("only version 13 of the WebSocket protocol is supported")]
    BadVersion,
    #[error("`Sec-WebSocket-Key` is missing or not 16 bytes in base64")]
    BadKey,
    #[error("an opening handshake must not have a body")]
    HasBody,
}

impl HandshakeError {
    /// RFC 6455 section 4.4 for the version, section 4.2.2 for the rest.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotGet | Self::NotUpgrade | Self::BadKey | Self::HasBody => {
                StatusCode::BAD_REQUEST
            }
            Self::BadVersion => StatusCode::UPGRADE_REQUIRED,
        }
    }
}

/// A future WebSocket: it exists once the 101 has been written.
pub struct Upgrade {
    on_upgrade: OnUpgrade,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

impl Upgrade {
    /// The upgrade of a request's connection, for an answer with 101.
    pub fn of<B>(request: &mut Request<B>) -> Self {
        Self { on_upgrade: hyper::upgrade::on(request) }
    }

    /// Waits until the 101 is sent; `None` if the peer left before.
    pub async fn wire(self) -> Option<Buffered> {
        let upgraded = self.on_upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<Buffered>>().ok()?;
        let Buffered { stream, mut read } = parts.io.into_inner();
        // What hyper has already read comes before what is still unread.
        read.splice(..0, parts.read_buf);
        Some(Buffered { stream, read })
    }

    /// The same, as a [`Channel`].
    pub async fn channel(self, limits: Limits) -> Option<Channel> {
        let Buffered { stream, read } = self.wire().await?;
        Some(Channel::new(stream, Role::Server, &read, limits))
    }
}

/// True if a request asks for a WebSocket in a form that may be accepted: with GET, over HTTP/1.1
/// (RFC 9110 section 7.8: over 1.0 it is ignored), by name, and for this connection.
#[must_use]
pub fn is_asked<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_token(request.headers(), &UPGRADE, "websocket")
        && has_token(request.headers(), &CONNECTION, "upgrade")
}

/// Checks an opening handshake, and returns its key.
///
/// # Errors
/// What is wrong with it.
pub fn check<B>(request: &Request<B>) -> Result<HeaderValue, HandshakeError> {
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(HandshakeError::NotGet);
    }
    if !is_asked(request) {
        return Err(HandshakeError::NotUpgrade);
    }
    let headers = request.headers();
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeError::BadVersion);
    }
    let has_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_length || headers.contains_key(TRANSFER_ENCODING) {
        return Err(HandshakeError::HasBody);
    }
    sole_value(headers).cloned().ok_or(HandshakeError::BadKey)
}

/// True if a server's 101 answers the handshake with this key (RFC 6455 section 4.1).
#[must_use]
pub fn is_accepted<B>(response: &Response<B>, key: &HeaderValue) -> bool {
    let headers = response.headers();
    let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    let accept = accepts.next().filter(|_| accepts.next().is_none());
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        && has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade")
        && accept.is_some_and(|accept| *accept == derive_accept_key(key.as_bytes()).as_str())
}

/// Checks an opening handshake and answers it: returns the 101 and the future socket.
///
/// # Errors
/// What is wrong with it; nothing has been sent.
pub fn accept<B>(request: &mut Request<B>) -> Result<(Response<()>, Upgrade), HandshakeError> {
    let accept = derive_accept_key(check(request)?.as_bytes());

    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok((response, Upgrade::of(request)))
}

/// True if a comma-separated header contains `token`, in any case.
fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The only key, if it has the form of 16 bytes in base64: 22 characters and two `=`.
fn sole_value(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none())?;
    let bytes = key.as_bytes();
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let well_formed = bytes.len() == 24 && bytes[..22].iter().all(base64) && bytes[22..] == *b"==";
    well_formed.then_some(key)
}

/// Why no WebSocket to a server could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It answered with another status than 101.
    #[error("answered {0} instead of 101")]
    Refused(StatusCode),
    #[error("the opening handshake failed: {0}")]
    Failed(String),
}

/// Opens a WebSocket over `stream`, as a client. `authority` becomes `Host`. No `Origin` is sent,
/// because a ComfyUI on loopback would answer it with 403.
///
/// # Errors
/// The server's refusal, or a broken handshake. The caller sets the deadline.
pub async fn connect(
    stream: Stream,
    authority: &str,
    path_and_query: &str,
    limits: Limits,
) -> Result<Channel, ConnectError> {
    connect_with(stream, authority, path_and_query, &HeaderMap::new(), limits).await
}

/// The same with additional headers, which must not include those of the handshake.
///
/// # Errors
/// As for [`connect`].
pub async fn connect_with(
    stream: Stream,
    authority: &str,
    path_and_query: &str,
    headers: &HeaderMap,
    limits: Limits,
) -> Result<Channel, ConnectError> {
    let mut request = Request::get(format!("ws://{authority}{path_and_query}"))
        .header(HOST, authority)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .body(())
        .map_err(|error| ConnectError::Failed(error.to_string()))?;
    request.headers_mut().extend(headers.clone());
    let config = WebSocketConfig::default().read_buffer_size(0).write_buffer_size(0);
    match client_async_with_config(request, Noted::new(stream), Some(config)).await {
        Ok((library, _response)) => {
            let headless = || ConnectError::Failed("the answer has no end".to_owned());
            let (stream, early) = library.into_inner().into_parts().ok_or_else(headless)?;
            Ok(Channel::new(stream, Role::Client, &early, limits))
        }
        Err(Error::Http(response)) => Err(ConnectError::Refused(response.status())),
        Err(error) => Err(ConnectError::Failed(error.to_string())),
    }
}
