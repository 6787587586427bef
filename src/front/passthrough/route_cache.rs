//! The caller and the target of the last request on a connection, remembered for the next one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::Plain;
use crate::auth::{Pass, UserName};
use crate::config::{AuthMode, Config};
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::front::admission::Admission;
use crate::front::browsers::{BrowserId, Spot};
use crate::front::caller::{self, Caller, Door, IdentityHints, Peer};
use crate::front::error::GatewayError;
use crate::front::forward::Target;
use crate::front::session_cookie::SessionCache;
use crate::front::{limits, packs, route};
use crate::limits::rates::CountedIn;
use crate::session::Client;
use crate::session::registry::with_client;

/// How often one connection notes who is at its address. The last caller there is only a guess for
/// callers without a name, so a tenth of a second does not matter.
const NOTED_EVERY: Duration = Duration::from_millis(100);

/// The caller on a connection. It is mostly the same as before, and then nothing is looked up.
#[derive(Debug)]
pub struct RouteCache {
    peer: IpAddr,
    known: Option<CachedCaller>,
    cookie: Cookie,
    sessions: SessionCache,
    /// The address for which this request was counted, if requests are limited.
    counted: Option<(IpAddr, CountedIn)>,
}

/// A request is answered in hyper's way.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere;

/// The last line of cookies and its meaning: comparing it costs less than checking a signature.
#[derive(Debug)]
struct Cookie {
    line: Vec<u8>,
    door: Door,
    /// The user who was let in with it by a key.
    owner: Option<UserName>,
    browser: Option<BrowserId>,
}

impl Cookie {
    fn browser(
        &mut self,
        front: &Front,
        door: Door,
        hints: &IdentityHints<'_>,
    ) -> Option<BrowserId> {
        let by_session = hints.pass.as_ref().is_some_and(|pass| pass.session.is_some());
        let line = match hints.cookies[..] {
            [line] if !by_session => line,
            _ => return caller::browser(front, door, hints),
        };
        let owner = hints.pass.as_ref().map(|pass| &pass.user.name);
        if self.line != line || self.door != door || self.owner.as_ref() != owner {
            self.browser = caller::browser(front, door, hints);
            self.door = door;
            self.owner = owner.cloned();
            self.line.clear();
            self.line.extend_from_slice(line);
        }
        self.browser
    }
}

/// The last caller.
#[derive(Debug)]
struct CachedCaller {
    client: Arc<Client>,
    /// The target of the last request, which is nearly always that of the next one.
    backend: Arc<Backend>,
    browser: Option<BrowserId>,
    address: IpAddr,
    noted: Instant,
}

impl RouteCache {
    #[must_use]
    pub fn new(peer: IpAddr) -> Self {
        let (line, door) = (Vec::new(), Door::Unknown);
        let cookie = Cookie { line, door, owner: None, browser: None };
        Self { peer, known: None, cookie, sessions: SessionCache::default(), counted: None }
    }

    /// Counts a request, and finds its sender. `None` if everybody may come in.
    ///
    /// # Errors
    /// There are too many from its address, or the sender may not come in: hyper's way says so.
    pub fn enter(
        &mut self,
        front: &Front,
        config: &Config,
        plain: &mut Plain<'_>,
        now: Instant,
    ) -> Result<Option<Pass>, Elsewhere> {
        self.counted = None;
        if config.limits.address_requests_per_minute.is_some() {
            let address = caller::address(&config.server, self.peer, &plain.hints);
            let counted = front.limits.request(config, || address, now);
            self.counted = Some((address, counted.map_err(|_reached| Elsewhere)?));
        }
        let pass = match config.auth.mode {
            AuthMode::Off => return Ok(None),
            AuthMode::Keys | AuthMode::Header | AuthMode::Jwt => {
                self.admit(&front.admission, config, plain)
            }
        };
        if pass.is_none() {
            self.leave(front, config);
        }
        pass.map(Some).ok_or(Elsewhere)
    }

    /// The request is answered in hyper's way, which counts it as well.
    pub fn leave(&mut self, front: &Front, config: &Config) {
        if let Some((address, counted)) = self.counted.take() {
            front.limits.uncount_request(config, address, counted);
        }
    }

    /// Finds the sender of a request, by a key, by a session, or by what a proxy says, if the
    /// sender may come in.
    fn admit(
        &mut self,
        admission: &Admission,
        config: &Config,
        plain: &mut Plain<'_>,
    ) -> Option<Pass> {
        if config.auth.mode != AuthMode::Off && plain.may_name_a_folder() {
            return None;
        }
        match config.auth.mode {
            AuthMode::Header => return plain.admit_named(&admission.believed(self.peer)?),
            AuthMode::Jwt => return plain.admit_with_token(&admission.tokens()),
            AuthMode::Keys | AuthMode::Off => {}
        }
        let door = caller::door(&config.server, self.peer, &plain.hints);
        let session = self.sessions.session(admission, door, &plain.hints);
        plain.admit(&admission.users(), session)
    }

    /// The address of the other end.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.peer
    }

    /// Whether the other end is trusted.
    #[must_use]
    pub fn peer(&self, config: &Config) -> Peer {
        Peer::of(&config.server, self.peer)
    }

    /// The target of a request that has just arrived. The whole request uses one configuration.
    ///
    /// # Errors
    /// It names a client in a form that is not valid, its backend is down, or there is none.
    pub fn target(
        &mut self,
        front: &Front,
        config: &Config,
        (path, hints): (&str, &IdentityHints<'_>),
        now: Instant,
    ) -> Result<Target, GatewayError> {
        let named = caller::named(hints)?;
        let name = named.as_deref();
        let asked = (path, hints);
        let known = name.and_then(|name| self.target_of_known((front, config), name, asked, now));
        let target = match known {
            Some(target) => target?,
            None => self.target_of_another(front, name, asked, now)?,
        };
        if !target.backend.is_up() {
            return Err(GatewayError::not_asked(&target.backend));
        }
        Ok(target)
    }

    /// The target of the last client on this connection. `None` if this is another client, or if
    /// the target was forgotten in the meantime.
    fn target_of_known(
        &mut self,
        (front, config): (&Front, &Config),
        name: &str,
        (path, hints): (&str, &IdentityHints<'_>),
        now: Instant,
    ) -> Option<Result<Target, GatewayError>> {
        // The owner of a shared name depends on the address, and a proxy speaks for many.
        if caller::shared_by(&config.affinity.shared_ids, name).is_some() {
            return None;
        }
        let known = self.known.as_mut().filter(|known| hints.calls(&known.client.id, name))?;
        let door = caller::door(&config.server, self.peer, hints);
        let browser = self.cookie.browser(front, door, hints);
        let address = caller::address(&config.server, self.peer, hints);
        let is_noted = known.browser == browser
            && known.address == address
            && now.duration_since(known.noted) < NOTED_EVERY;
        if !is_noted {
            let spot = Spot { realm: hints.realm(), address };
            front.browsers.saw(browser, &spot, &known.client.id, now);
            (known.browser, known.address, known.noted) = (browser, address, now);
        }
        let decided = packs::contact(&front.sessions, &known.client, path, now).ok()?;
        let target = decided.map_err(GatewayError::from).map(|made| {
            if known.backend.id != made.backend {
                known.backend = front.shared.fleet.get(made.backend);
            }
            Target { backend: Arc::clone(&known.backend), reason: made.reason }
        });
        Some(target)
    }

    fn target_of_another(
        &mut self,
        front: &Front,
        name: Option<&str>,
        (path, hints): (&str, &IdentityHints<'_>),
        now: Instant,
    ) -> Result<Target, GatewayError> {
        let caller = Caller::named_so(name, front, self.peer, hints)?;
        let Some(id) = &caller.named else { return packs::target(front, &caller, path) };
        limits::meet(front, &caller, id)?;
        let (client, decided) = with_client(&front.sessions, id, |client| {
            packs::contact(&front.sessions, client, path, now)
        })?;
        let target = route::decided(&front.shared, decided?);
        let (browser, address) = (caller.browser, caller.address);
        let backend = Arc::clone(&target.backend);
        self.known = Some(CachedCaller { client, backend, browser, address, noted: now });
        Ok(target)
    }
}
