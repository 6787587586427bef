//! Writes one line for each request: to the access log (`log.access`), and to the log of the
//! process under `mooring::access`.
//!
//! Nothing is prepared unless one of them is on. The query is left out because it may contain
//! secrets, also that of a page which refers to us.

mod line;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tracing::{Level, debug};

use super::Front;
use super::caller::{self, Caller, IdentityHints, Peer};
use super::error::ERROR_HEADER;
use super::headers;
use crate::auth::Pass;
use crate::body::ResponseBody;
use crate::config::ServerConfig;
use crate::lines::timestamp;
use crate::masked::{Masked, mask};
use crate::net::now;
use crate::routing::ids::ClientId;
use crate::routing::realm::ClientName;
use crate::server::wire::Spoken;
use crate::shared::Shared;

/// The log target of these records.
const TARGET: &str = "mooring::access";

/// The header in which proxies give a request an id, for their logs and ours.
pub const REQUEST_ID: &str = "x-request-id";

/// A longer text is not accepted as an id.
const REQUEST_ID_MAX: usize = 128;

/// The request line, without the caller.
#[derive(Clone, Debug)]
pub struct RequestLine<'a> {
    pub method: Method,
    /// The part of the path that was removed.
    base: &'a str,
    pub path: &'a str,
    pub version: Version,
    pub request_id: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

impl<'a> RequestLine<'a> {
    /// `header` gives the value of one header.
    pub fn of(
        method: Method,
        path: &'a str,
        version: Version,
        header: impl Fn(&HeaderName) -> Option<&'a [u8]>,
    ) -> Self {
        let request_id = header(&HeaderName::from_static(REQUEST_ID));
        let (referer, user_agent) = (header(&REFERER), header(&USER_AGENT));
        Self { method, base: "", path, version, request_id, referer, user_agent }
    }

    /// The base path was removed from its path.
    #[must_use]
    pub fn below(self, base: &'a str) -> Self {
        Self { base, ..self }
    }
}

/// The client of a request that is recorded. The handler sets it when it knows.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<OnceLock<Masked>>);

impl Seen {
    pub fn set(&self, client: Masked) {
        // Only the first one counts, because a request belongs to one client.
        let _ = self.0.set(client);
    }
}

/// The longest path and the longest other text that a line takes, in bytes; more is cut off.
const PATH_MAX: usize = 2_048;
const TEXT_MAX: usize = 512;

/// What nginx writes where a client went away before its answer.
const CLIENT_LEFT: u16 = 499;

/// A request that is written down when its answer is there, or when nobody waits for one any more.
#[derive(Debug)]
pub struct Record {
    shared: Arc<Shared>,
    /// When it came.
    came: Instant,
    is_over: AtomicBool,
    asked: Asked,
}

/// What is written of a request itself.
#[derive(Debug, Default)]
struct Asked {
    method: Method,
    path: String,
    version: Version,
    referer: Option<Box<[u8]>>,
    user_agent: Option<Box<[u8]>>,
    /// The client according to the head.
    client: Option<Masked>,
    seen: Seen,
    /// The client's address behind trusted proxies.
    address: Option<IpAddr>,
    request_id: Option<String>,
    /// The user who was let in.
    user: Option<Pass>,
}

/// The result of a request.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub status: StatusCode,
    pub backend: &'a str,
    pub placement: &'a str,
    /// The size of the body in bytes, if it is known before the body is sent.
    pub bytes: Option<u64>,
    pub took: Duration,
    /// Our own id of a failed request, if no proxy has given it one.
    pub request_id: Option<&'a str>,
}

/// True if requests are recorded.
#[must_use]
pub fn is_recorded(shared: &Shared) -> bool {
    shared.access.is_on() || is_traced()
}

fn is_traced() -> bool {
    tracing::enabled!(target: TARGET, Level::DEBUG)
}

impl Record {
    /// The record of a request that came from `peer`.
    #[must_use]
    pub fn of(
        front: &Front,
        peer: IpAddr,
        said: &RequestLine<'_>,
        hints: &IdentityHints<'_>,
    ) -> Self {
        let config = front.shared.config();
        let request_id = named_by(&config.server, peer, said.request_id);
        let asked = Asked {
            method: said.method.clone(),
            path: cut(format!("{}{}", said.base, said.path).as_bytes(), PATH_MAX),
            version: said.version,
            referer: said.referer.map(|referer| short(without_query(referer)).into()),
            user_agent: said.user_agent.map(|agent| short(agent).into()),
            client: client(front, peer, hints).as_ref().map(mask),
            seen: Seen::default(),
            address: Some(caller::address(&config.server, peer, hints)),
            request_id,
            user: None,
        };
        Self::new(&front.shared, asked)
    }

    fn new(shared: &Arc<Shared>, asked: Asked) -> Self {
        let (shared, is_over) = (Arc::clone(shared), AtomicBool::new(false));
        Self { shared, came: now(), is_over, asked }
    }

    #[must_use]
    pub fn of_request<B>(front: &Front, peer: IpAddr, base: &str, request: &Request<B>) -> Self {
        let (method, path) = (request.method().clone(), request.uri().path());
        let said = RequestLine::of(method, path, Spoken::of_request(request), |name| {
            request.headers().get(name).map(HeaderValue::as_bytes)
        });
        Self::of(front, peer, &said.below(base), &IdentityHints::of(request))
    }

    /// The record of a request that was refused because of its head: what can be read of that.
    #[must_use]
    pub fn of_bytes(shared: &Arc<Shared>, peer: IpAddr, read: &[u8]) -> Self {
        let line = read.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let method = words.next().and_then(|word| Method::from_bytes(short(word)).ok());
        let version = match words.clone().nth(1) {
            Some(b"HTTP/1.0") => Version::HTTP_10,
            Some(b"HTTP/2.0" | b"HTTP/2") => Version::HTTP_2,
            Some(_) | None => Version::HTTP_11,
        };
        let path = cut(without_query(words.next().unwrap_or_default()), PATH_MAX);
        let unreadable = || Method::from_bytes(b"-").unwrap_or_default();
        let (method, address) = (method.unwrap_or_else(unreadable), Some(peer));
        Self::new(shared, Asked { method, path, version, address, ..Asked::default() })
    }

    /// Writes nothing: the request is answered in another way, which writes its line.
    pub fn leave(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Sets the user who was let in.
    pub fn is_of(&mut self, user: Option<&Pass>) {
        self.asked.user = user.cloned();
    }

    /// The place where the handler stores the client.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.asked.seen.clone()
    }

    /// Writes its line, once.
    pub fn write(&self, answer: &Answer<'_>) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = &self.shared;
        let format = || shared.config().log.access_format;
        shared.access.put(|| line::of(&self.asked, answer, &timestamp(), format()));
        if is_traced() {
            self.asked.trace(answer);
        }
    }
}

impl Asked {
    fn trace(&self, answer: &Answer<'_>) {
        let Self { method, path, .. } = self;
        let address = self.address.map(tracing::field::display);
        let Answer { backend, placement, .. } = *answer;
        let bytes = self.bytes(answer);
        let (status, ms) = (answer.status.as_u16(), answer.milliseconds());
        let client = self.client().map(tracing::field::display);
        let (request_id, user) = (self.id(answer), self.user());
        debug!(
            target: TARGET,
            %method, path, status, bytes, ms, backend, placement, client, address, request_id, user
        );
    }

    fn client(&self) -> Option<Masked> {
        self.seen.0.get().copied().or(self.client)
    }

    fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|pass| pass.user.name.as_str())
    }

    /// The size of the body, if it is known. There is none after a head that was asked for alone.
    fn bytes(&self, answer: &Answer<'_>) -> Option<u64> {
        if self.method == Method::HEAD { Some(0) } else { answer.bytes }
    }

    fn id<'a>(&'a self, answer: &Answer<'a>) -> Option<&'a str> {
        self.request_id.as_deref().or(answer.request_id)
    }
}

/// Nobody waits for the answer any more: the client went away, or what answered it has failed.
impl Drop for Record {
    fn drop(&mut self) {
        let status = if std::thread::panicking() { 500 } else { CLIENT_LEFT };
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let (backend, placement, bytes, request_id) = ("", "", None, None);
        let took = now().saturating_duration_since(self.came);
        self.write(&Answer { status, backend, placement, bytes, took, request_id });
    }
}

impl<'a> Answer<'a> {
    fn milliseconds(&self) -> f64 {
        self.took.as_secs_f64() * 1000.0
    }

    #[must_use]
    pub fn of(response: &'a Response<ResponseBody>, took: Duration) -> Self {
        Self {
            status: response.status(),
            backend: headers::text(response, &headers::BACKEND),
            placement: headers::text(response, &headers::PLACEMENT),
            bytes: response.body().size_hint().exact(),
            took,
            // The id that we set, not one of a backend.
            request_id: Some(headers::text(response, &HeaderName::from_static(REQUEST_ID)))
                .filter(|name| !name.is_empty() && response.headers().contains_key(ERROR_HEADER)),
        }
    }
}

/// The id that a trusted proxy has given a request.
#[must_use]
pub fn named(front: &Front, peer: IpAddr, headers: &HeaderMap) -> Option<String> {
    let said = headers.get(REQUEST_ID).map(HeaderValue::as_bytes);
    named_by(&front.shared.config().server, peer, said)
}

fn named_by(server: &ServerConfig, peer: IpAddr, said: Option<&[u8]>) -> Option<String> {
    match Peer::of(server, peer) {
        Peer::Proxy => said.and_then(name_of_request),
        Peer::Stranger => None,
    }
}

/// The client that asks, by its name or by the cookie of its browser.
fn client(front: &Front, peer: IpAddr, hints: &IdentityHints<'_>) -> Option<ClientId> {
    match caller::named(hints).ok()? {
        Some(name) => {
            let config = front.shared.config();
            let address = caller::address(&config.server, peer, hints);
            let name = ClientName::parse(&name).ok()?;
            Some(hints.realm().client(caller::of_its_own(&config, name, address)))
        }
        None => Caller::named_so(None, front, peer, hints).ok()?.asker(front),
    }
}

/// The beginning of a path as text.
fn cut(text: &[u8], most: usize) -> String {
    String::from_utf8_lossy(text.get(..most).unwrap_or(text)).into_owned()
}

fn short(text: &[u8]) -> &[u8] {
    text.get(..TEXT_MAX).unwrap_or(text)
}

/// An address without what may be secret in it.
fn without_query(address: &[u8]) -> &[u8] {
    let end = address.iter().position(|byte| matches!(byte, b'?' | b'#'));
    &address[..end.unwrap_or(address.len())]
}

fn name_of_request(value: &[u8]) -> Option<String> {
    let is_sound = (1..=REQUEST_ID_MAX).contains(&value.len());
    let text = std::str::from_utf8(value).ok()?;
    (is_sound && value.iter().all(u8::is_ascii_graphic)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_without_its_query_and_long_texts_are_cut() {
        assert_eq!(without_query(b"http://g/page?token=secret#x"), b"http://g/page");
        assert_eq!(without_query(b"/page#token"), b"/page");
        assert_eq!(cut(&[0xff; 4], 2), "\u{fffd}\u{fffd}");
        assert_eq!(short(&[b'x'; TEXT_MAX + 1]).len(), TEXT_MAX);
    }

    #[test]
    fn a_request_has_the_name_that_a_log_can_take() {
        assert_eq!(name_of_request(b"4f-a:1").as_deref(), Some("4f-a:1"));
        for bad in [&b""[..], b"a b", b"a\nb", b"\xff", &[b'a'; REQUEST_ID_MAX + 1]] {
            assert_eq!(name_of_request(bad), None, "{bad:?}");
        }
    }
}
