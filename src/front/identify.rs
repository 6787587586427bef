//! Who asks (promise R1): the clientId that the request carries, else the page cookie, else the
//! address. Where it goes is another question.

use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, Request};

use super::browsers::{BrowserId, browser_of};
use super::headers::CLIENT_ID;
use crate::comfy::query;
use crate::gateway::Gateway;
use crate::net::now;
use crate::routing::ids::{BadClientId, ClientId};

/// What a request says of who sent it.
#[derive(Clone, Debug)]
pub struct Who {
    /// The clientId that it names in a header or the query.
    pub named: Option<ClientId>,
    pub browser: Option<BrowserId>,
    /// After trusted proxies.
    pub address: IpAddr,
}

impl Who {
    /// Reads it off a request.
    ///
    /// # Errors
    /// It names a client in a way that nobody could.
    pub fn of<B>(
        gateway: &Gateway,
        peer: IpAddr,
        request: &Request<B>,
    ) -> Result<Self, BadClientId> {
        let headers = request.headers();
        let named = match header_id(headers)? {
            Some(id) => Some(id),
            None => query_id(request.uri().query().unwrap_or(""))?,
        };
        let who =
            Self { named, browser: browser(headers), address: address(gateway, peer, headers) };
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

fn header_id(headers: &HeaderMap) -> Result<Option<ClientId>, BadClientId> {
    match headers.get(CLIENT_ID).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok("")) => Ok(None),
        Some(Ok(text)) => ClientId::parse(text).map(Some),
        Some(Err(_)) => Err(BadClientId::Control { index: 0 }),
    }
}

fn query_id(query: &str) -> Result<Option<ClientId>, BadClientId> {
    match query::client_id(query) {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => ClientId::parse(&text).map(Some),
    }
}

fn browser(headers: &HeaderMap) -> Option<BrowserId> {
    headers.get_all(COOKIE).iter().find_map(|value| browser_of(value.to_str().ok()?))
}

/// The peer, or what a trusted proxy says of whom it speaks for: the right-most address in
/// `X-Forwarded-For` that is not itself a trusted proxy.
fn address(gateway: &Gateway, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let is_trusted = |address: &IpAddr| {
        gateway.config.server.trusted_proxies.iter().any(|cidr| cidr.contains(*address))
    };
    if !is_trusted(&peer) {
        return peer;
    }
    headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|part| part.trim().parse::<IpAddr>().ok())
        .rfind(|address| !is_trusted(address))
        .unwrap_or(peer)
}
