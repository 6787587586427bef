//! Who asks (promise R1): the clientId that the request carries, else the page cookie, else the
//! address. Where it goes is another question.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderName, HeaderValue, Request};
use smallvec::SmallVec;

use super::browsers::{BrowserId, browser_of};
use super::headers::CLIENT_ID;
use crate::comfy::query;
use crate::gateway::Gateway;
use crate::net::now;
use crate::routing::ids::{BadClientId, ClientId};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a request says of who sent it.
#[derive(Clone, Debug)]
pub struct Who {
    /// The clientId that it names in a header or the query.
    pub named: Option<ClientId>,
    pub browser: Option<BrowserId>,
    /// After trusted proxies.
    pub address: IpAddr,
    /// It came through a proxy that is not trusted: whoever is behind it, it is not its address.
    is_proxied: bool,
}

/// What in a request says who sent it, as it came.
#[derive(Debug, Default)]
pub struct Marks<'a> {
    /// The first `comfy-client-id`.
    pub client_id: Option<&'a [u8]>,
    pub query: &'a str,
    /// `Cookie` and `X-Forwarded-For`, which may come in several lines.
    pub cookies: SmallVec<[&'a [u8]; 1]>,
    pub forwarded: SmallVec<[&'a [u8]; 1]>,
}

impl<'a> Marks<'a> {
    #[must_use]
    pub fn of_query(query: &'a str) -> Self {
        Self { query, ..Self::default() }
    }

    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let headers = request.headers();
        let all = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        Self {
            client_id: headers.get(CLIENT_ID).map(HeaderValue::as_bytes),
            query: request.uri().query().unwrap_or(""),
            cookies: all(COOKIE),
            forwarded: all(X_FORWARDED_FOR),
        }
    }
}

impl Who {
    /// Reads it off a request.
    ///
    /// # Errors
    /// It names a client in a way that nobody could.
    pub fn of(gateway: &Gateway, peer: IpAddr, marks: &Marks<'_>) -> Result<Self, BadClientId> {
        Self::named_so(named(marks)?.as_deref(), gateway, peer, marks)
    }

    /// The same, by what [`named`] found.
    ///
    /// # Errors
    /// As for [`Self::of`].
    pub fn named_so(
        name: Option<&str>,
        gateway: &Gateway,
        peer: IpAddr,
        marks: &Marks<'_>,
    ) -> Result<Self, BadClientId> {
        let named = name.map(ClientId::parse).transpose()?;
        let address = address(gateway, peer, marks);
        let is_proxied = address == peer && !marks.forwarded.is_empty();
        let who = Self { named, browser: browser(marks), address, is_proxied };
        if let Some(client) = &who.named {
            who.is(gateway, client);
        }
        Ok(who)
    }

    /// The request turned out to be this client's: remembered for those that do not say.
    pub fn is(&self, gateway: &Gateway, client: &ClientId) {
        gateway.browsers.saw(self.browser, self.address, client, now());
    }

    /// The client whose uploads and reads these are: the named one, else the browser's most
    /// recent, else the only one at the address.
    #[must_use]
    pub fn reader(&self, gateway: &Gateway) -> Option<ClientId> {
        self.asker(gateway).or_else(|| {
            gateway.browsers.sole_at(self.address, gateway.config.affinity.lease, now())
        })
    }

    /// The only client that was seen at the address, if nothing says that this is somebody else:
    /// another browser, or whoever is behind a proxy.
    #[must_use]
    pub fn sole(&self, gateway: &Gateway) -> Option<ClientId> {
        if self.browser.is_some() || self.is_proxied {
            return None;
        }
        gateway.browsers.sole_at(self.address, gateway.config.affinity.lease, now())
    }

    /// The client itself, without the address: it never says who acts.
    #[must_use]
    pub fn asker(&self, gateway: &Gateway) -> Option<ClientId> {
        self.named.clone().or_else(|| self.askers(gateway).into_iter().next())
    }

    /// All clients that it speaks for: the named one, or all of the browser.
    #[must_use]
    pub fn askers(&self, gateway: &Gateway) -> Vec<ClientId> {
        match (&self.named, self.browser) {
            (Some(client), _) => vec![client.clone()],
            (None, Some(browser)) => gateway.browsers.of_browser(browser),
            (None, None) => Vec::new(),
        }
    }
}

/// The client that a request names in a header or the query, not yet looked at.
///
/// # Errors
/// It is no text.
pub fn named<'a>(marks: &Marks<'a>) -> Result<Option<Cow<'a, str>>, BadClientId> {
    let in_header = match marks.client_id.map(text) {
        Some(None) => return Err(BadClientId::Control { index: 0 }),
        Some(Some(text)) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Some(Some(_)) | None => None,
    };
    Ok(in_header.or_else(|| query::client_id(marks.query).filter(|text| !text.is_empty())))
}

/// The browser that its cookie names.
#[must_use]
pub fn browser(marks: &Marks<'_>) -> Option<BrowserId> {
    marks.cookies.iter().find_map(|value| browser_of(text(value)?))
}

/// The peer, or what a trusted proxy says of whom it speaks for: the right-most address in
/// `X-Forwarded-For` that is not itself a trusted proxy.
#[must_use]
pub fn address(gateway: &Gateway, peer: IpAddr, marks: &Marks<'_>) -> IpAddr {
    let is_trusted = |address: &IpAddr| {
        gateway.config.server.trusted_proxies.iter().any(|cidr| cidr.contains(*address))
    };
    if !is_trusted(&peer) {
        return peer;
    }
    marks
        .forwarded
        .iter()
        .filter_map(|value| text(value))
        .flat_map(|value| value.split(','))
        .filter_map(|part| part.trim().parse::<IpAddr>().ok())
        .rfind(|address| !is_trusted(address))
        .unwrap_or(peer)
}

/// A header's value as text: visible ASCII, spaces and tabs (RFC 9110 section 5.5).
fn text(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    is_text.then(|| std::str::from_utf8(value).ok()).flatten()
}
