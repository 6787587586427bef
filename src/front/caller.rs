//! Who sends a request (promise R1): the clientId in the request, or the page cookie, or the
//! address. Which backend the request goes to is decided elsewhere.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use super::Front;
use super::access::Seen;
use super::browsers::{BrowserId, Spot, browser_of};
use super::header_text::{address_in, text};
pub use super::identity_hints::IdentityHints;
use crate::auth::Role;
use crate::comfy::{pack_routes, query};
use crate::config::{Config, Place, ServerConfig};
use crate::masked::mask;
use crate::net::now;
use crate::routing::files::Maker;
use crate::routing::ids::{BadClientId, ClientId};
use crate::routing::owners::Person;
use crate::routing::realm::{ClientName, Realm};
use crate::routing::user_folder::UserFolder;
use crate::server::wire::Wire;

/// The query parameter with the client of a socket.
pub const SOCKET_CLIENT: &str = "mooring_client";

/// The user name that a page of a server with a single user may send.
const EVERYBODY: &str = "default";

/// The longest name of a user.
const USER_MAX: usize = 128;

/// What a request says about its sender.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The clientId in a header or in the query.
    pub named: Option<ClientId>,
    pub browser: Option<BrowserId>,
    /// The user that the request names. Nothing proves it. It decides who owns ended prompts, as it
    /// decides on a server whose settings are read.
    pub user: Option<Arc<str>>,
    /// The realm: the clients and prompts that exist for the caller. If users are required, it is
    /// that of the user who was let in. Nothing of another realm exists for the caller.
    pub realm: Realm,
    /// The address behind trusted proxies.
    pub address: IpAddr,
    /// The caller may use what belongs to operators, if that is open at all: his role says so, or
    /// nobody has a role.
    pub is_operator: bool,
    /// It came through a proxy that is not trusted. The address is that of the proxy.
    is_proxied: bool,
    pub door: Door,
    /// Set if access records are logged.
    pub seen: Option<Seen>,
}

/// Whether the other end of a connection is trusted to say for whom it speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    Stranger,
    Proxy,
}

impl Peer {
    #[must_use]
    pub fn of(server: &ServerConfig, address: IpAddr) -> Self {
        if server.trusts(address) { Self::Proxy } else { Self::Stranger }
    }
}

/// How a browser has reached us, as far as that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// No trusted source says it.
    Unknown,
    Plain,
    /// With TLS, which ends here or at a proxy in front.
    Tls,
    /// The same, below a base path.
    TlsBelow,
}

impl Caller {
    /// Reads the caller from a request.
    ///
    /// # Errors
    /// The request names a client that is not valid.
    pub fn of(front: &Front, peer: IpAddr, hints: &IdentityHints<'_>) -> Result<Self, BadClientId> {
        Self::named_so(named(hints)?.as_deref(), front, peer, hints)
    }

    /// The same, with the result of [`named`].
    ///
    /// # Errors
    /// Those of [`Self::of`].
    pub fn named_so(
        name: Option<&str>,
        front: &Front,
        peer: IpAddr,
        hints: &IdentityHints<'_>,
    ) -> Result<Self, BadClientId> {
        let config = front.shared.config();
        let address = address(&config.server, peer, hints);
        let realm = hints.realm();
        let named = name.map(ClientName::parse).transpose()?;
        let named = named.map(|name| realm.client(of_its_own(&config, name, address)));
        let is_proxied = address == peer && hints.is_passed_on;
        let door = door(&config.server, peer, hints);
        let browser = browser(front, door, hints);
        let user = user(hints);
        let pass = hints.pass.as_ref();
        let is_operator = pass.is_none_or(|pass| pass.user.role == Role::Operator);
        let caller = Self {
            named,
            browser,
            user,
            realm,
            address,
            is_operator,
            is_proxied,
            door,
            seen: None,
        };
        if let Some(client) = &caller.named {
            caller.is(front, client);
        }
        Ok(caller)
    }

    /// Notes that the request belongs to this client, for later requests that do not say so. It has
    /// an effect only if the client exists or can be created.
    pub fn is(&self, front: &Front, client: &ClientId) {
        self.record(client);
        if front.sessions.clients.takes_in(client) {
            front.browsers.saw(self.browser, &self.spot(), client, now());
        }
    }

    /// Notes that a submission named no client and got this one.
    pub fn is_given(&self, front: &Front, client: &ClientId) {
        match self.browser {
            Some(_) => self.is(front, client),
            None => {
                self.record(client);
                front.browsers.saw_nameless(&self.spot(), client, now());
            }
        }
    }

    /// Tells the access log, because the head alone does not always identify the caller.
    fn record(&self, client: &ClientId) {
        if let Some(seen) = &self.seen {
            seen.set(mask(client));
        }
    }

    /// The client that a body names.
    ///
    /// # Errors
    /// The name is not valid.
    pub fn client_called(&self, config: &Config, name: &str) -> Result<ClientId, BadClientId> {
        ClientName::parse(name).map(|name| self.client(config, name))
    }

    /// The same, for a name that was checked.
    #[must_use]
    pub fn client(&self, config: &Config, name: ClientName) -> ClientId {
        self.realm.client(of_its_own(config, name, self.address))
    }

    /// The origin of the caller, for those who share it.
    #[must_use]
    pub fn spot(&self) -> Spot {
        Spot { realm: self.realm.clone(), address: self.address }
    }

    /// The person behind the request, if it says so (promise R5): the user who was let in, with any
    /// browser.
    #[must_use]
    pub fn person(&self) -> Option<Person> {
        if let Some(user) = self.realm.person() {
            return Some(user);
        }
        let browser = self.browser.map(|browser| Person::Browser(browser.number()));
        browser.or_else(|| self.user.clone().map(Person::User))
    }

    /// The client that owns these uploads and reads: the named one, or the most recent one of the
    /// browser, or the only one at the address.
    #[must_use]
    pub fn reader(&self, front: &Front) -> Option<ClientId> {
        self.asker(front).or_else(|| {
            front.browsers.sole_at(&self.spot(), front.shared.config().affinity.lease, now())
        })
    }

    /// True if nothing says that this is another client at the address.
    #[must_use]
    pub fn is_its_address(&self) -> bool {
        self.browser.is_none() && !self.is_proxied
    }

    /// Where the request comes from.
    #[must_use]
    pub fn place(&self) -> Place {
        if self.address.to_canonical().is_loopback() && !self.is_proxied {
            Place::ThisMachine
        } else {
            Place::Elsewhere
        }
    }

    /// The only client that was seen at the address, if nothing says that this is another one:
    /// another browser, or somebody behind a proxy.
    #[must_use]
    pub fn sole(&self, front: &Front) -> Option<ClientId> {
        if !self.is_its_address() {
            return None;
        }
        front.browsers.sole_at(&self.spot(), front.shared.config().affinity.lease, now())
    }

    /// The owners of the caller's files: the named client, the clients of the browser, and the
    /// uploads without a name from the address.
    #[must_use]
    pub fn makers(&self, front: &Front) -> Vec<Maker> {
        let clients = self.named.iter().cloned().chain(self.of_its_browser(front));
        let browser = self.browser.map(|browser| Maker::Browser(browser.number()));
        clients.map(Maker::Client).chain(browser).chain([self.nameless_maker()]).collect()
    }

    /// Who made what is uploaded without a name: the user, else whoever is at the address.
    #[must_use]
    pub fn nameless_maker(&self) -> Maker {
        match &self.realm {
            Realm::Everybody => Maker::Address(self.address),
            Realm::User(user) => Maker::User(Arc::clone(user)),
        }
    }

    /// The folder of the user's uploads at backends, where users are asked for.
    #[must_use]
    pub fn folder(&self) -> Option<UserFolder> {
        self.realm.user().map(UserFolder::of)
    }

    /// The client itself, without the address, which never says who acts.
    #[must_use]
    pub fn asker(&self, front: &Front) -> Option<ClientId> {
        self.named.clone().or_else(|| self.of_its_browser(front).into_iter().next())
    }

    /// All clients that the caller acts for: the named one, or all of the user who was let in, or
    /// all of the browser.
    #[must_use]
    pub fn askers(&self, front: &Front) -> Vec<ClientId> {
        match (&self.named, &self.realm) {
            (Some(client), _) => vec![client.clone()],
            (None, Realm::User(_)) => {
                let mut clients = self.of_its_browser(front);
                let others = front.sessions.clients.of(&self.realm);
                clients.extend(
                    others.into_iter().filter(|id| !clients.contains(id)).collect::<Vec<_>>(),
                );
                clients
            }
            (None, Realm::Everybody) => self.of_its_browser(front),
        }
    }

    /// The clients of the browser, the most recent one first.
    fn of_its_browser(&self, front: &Front) -> Vec<ClientId> {
        let mut clients =
            self.browser.map_or_else(Vec::new, |browser| front.browsers.of_browser(browser));
        clients.retain(|client| self.realm.has(client));
        clients
    }
}

/// The client for this name at an address. Many callers use a shared name (`affinity.shared_ids`),
/// and each of their addresses becomes a client of its own.
#[must_use]
pub fn of_its_own(config: &Config, name: ClientName, address: IpAddr) -> ClientName {
    shared_by(&config.affinity.shared_ids, name.as_str())
        .and_then(|shared| ClientName::parse(&format!("{shared}@{address}")).ok())
        .unwrap_or(name)
}

/// The shared name that this name is or contains. So nobody can act as another client by writing
/// out its full name.
#[must_use]
pub fn shared_by<'a>(shared: &'a [String], name: &str) -> Option<&'a str> {
    let is_its = |shared: &&String| {
        name.strip_prefix(shared.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    };
    shared.iter().find(is_its).map(String::as_str)
}

/// The name of the client in a header or in the query. It is not checked yet.
///
/// # Errors
/// It is not text.
pub fn named<'a>(hints: &IdentityHints<'a>) -> Result<Option<Cow<'a, str>>, BadClientId> {
    let in_header = match hints.client_id.map(text) {
        Some(None) => return Err(BadClientId::Control { index: 0 }),
        Some(Some(text)) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Some(Some(_)) | None => None,
    };
    Ok(in_header.or_else(|| in_query(hints)))
}

/// `clientId` on ComfyUI's own routes, and `mooring_client` in the query of any socket. Our page
/// script adds the second, because a browser cannot send headers with a socket.
fn in_query<'a>(hints: &IdentityHints<'a>) -> Option<Cow<'a, str>> {
    let of_comfyui = query::client_id(hints.query)
        .filter(|text| !text.is_empty() && pack_routes::is_comfyuis(hints.path));
    of_comfyui.or_else(|| {
        let ours = hints.is_socket.then(|| query::parameter(hints.query, SOCKET_CLIENT));
        ours.flatten().filter(|text| !text.is_empty()).map(Cow::Owned)
    })
}

/// The browser of the session, or of the cookie. If users are required, it must be a browser of the
/// user who was let in.
#[must_use]
pub fn browser(front: &Front, door: Door, hints: &IdentityHints<'_>) -> Option<BrowserId> {
    let pass = hints.pass.as_ref();
    if let Some(session) = pass.and_then(|pass| pass.session.as_ref()) {
        return Some(BrowserId::of_session(session));
    }
    let owner = pass.map(|pass| pass.user.name.as_str());
    hints.cookies.iter().find_map(|line| browser_of(line, &front.cookie_signer, door, owner))
}

/// How the browser has reached us: a trusted proxy says it in `X-Forwarded-Proto`; otherwise the
/// connection itself counts. A plain connection may come from a proxy that does not say it.
#[must_use]
pub fn door(server: &ServerConfig, peer: IpAddr, hints: &IdentityHints<'_>) -> Door {
    let by_tls = || if server.base_path.is_root() { Door::Tls } else { Door::TlsBelow };
    let Some(said) = hints.scheme.filter(|_| server.trusts(peer)) else {
        return match hints.wire {
            Wire::Tls => by_tls(),
            Wire::Plain => Door::Unknown,
        };
    };
    // The first one is the browser's. Proxies behind it append theirs.
    let first = said.split(|byte| *byte == b',').next().unwrap_or(said).trim_ascii();
    let is = |other: &str| first.eq_ignore_ascii_case(other.as_bytes());
    match () {
        () if is("https") || is("wss") => by_tls(),
        () if is("http") || is("ws") => Door::Plain,
        () => Door::Unknown,
    }
}

/// The user that the request names, unless it is the default user.
fn user(hints: &IdentityHints<'_>) -> Option<Arc<str>> {
    let name = text(hints.user?)?.trim();
    let is_somebody = !name.is_empty() && name != EVERYBODY && name.len() <= USER_MAX;
    is_somebody.then(|| name.into())
}

/// The peer, or the address that a trusted proxy gives: the right-most one in `X-Forwarded-For`
/// that is not itself a trusted proxy.
#[must_use]
pub fn address(server: &ServerConfig, peer: IpAddr, hints: &IdentityHints<'_>) -> IpAddr {
    if !server.trusts(peer) {
        return peer;
    }
    let lines = hints.forwarded.iter().rev();
    let entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
    let mut last = peer;
    for entry in entries {
        // Entries to the left of one that is not an address cannot be trusted.
        let Some(address) = address_in(entry) else { break };
        last = address;
        if !server.trusts(address) {
            break;
        }
    }
    last
}
