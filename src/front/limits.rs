//! Which limits of `[limits]` apply to which requests.
//!
//! A user is who was let in. Where nobody is asked who he is, it is an address, as trusted proxies
//! say it; of IPv6 its network of 64 bits, which one household or machine has. A trusted proxy
//! itself is never counted, also if it does not say for whom it speaks.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::Request;
use http_body::Body as _;
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::error::GatewayError;
use super::shares::holder;
use crate::body::Look;
use crate::config::{Config, LimitsConfig, ServerConfig};
use crate::limits::days::{self, Days};
use crate::limits::held::{Allowed, Held, Holdings};
use crate::limits::rates::{self, CountedIn, Rates};
use crate::limits::{Bound, Counted, LimitReached};
use crate::lock::rank;
use crate::net::now;
use crate::routing::ids::ClientId;
use crate::session::registry::{self, Known};
use crate::session::submissions::Account;

type Uploads = Days<{ rank::UPLOAD_LIMITS }>;

/// What was done lately, and what lasts.
#[derive(Debug, Default)]
pub(super) struct Limits {
    prompts: Rates<{ rank::PROMPT_LIMITS }>,
    sockets: Holdings<{ rank::SOCKET_LIMITS }>,
    connections: Holdings<{ rank::CONNECTION_LIMITS }>,
    requests: Rates<{ rank::REQUEST_LIMITS }>,
    newcomers: Rates<{ rank::NEWCOMER_LIMITS }>,
    uploads: Arc<Uploads>,
}

impl Limits {
    /// Counts a submission, whatever becomes of it.
    ///
    /// # Errors
    /// It is one too many.
    pub(super) fn submission(
        &self,
        front: &Front,
        caller: &Caller,
        now: Instant,
    ) -> Result<(), LimitReached> {
        let limits = &front.shared.config().limits;
        let each = Bound::of("user_prompts_per_minute", limits.user_prompts_per_minute);
        let all = Bound::of("all_prompts_per_minute", limits.all_prompts_per_minute);
        let allowed = rates::Allowed { each, all };
        self.prompts.count(|| user(front, caller), allowed, now).map(|_counted| ())
    }

    /// Counts a socket until it is dropped. `None` if sockets are not limited.
    ///
    /// # Errors
    /// It is one too many.
    pub(super) fn socket(
        &self,
        front: &Front,
        caller: &Caller,
    ) -> Result<Option<Held>, LimitReached> {
        let limits = front.shared.config().limits;
        let server = &front.shared.config().server;
        let his = Bound::of("user_sockets", limits.user_sockets);
        let here = Bound::of("address_sockets", limits.address_sockets);
        let each =
            [(user(front, caller), his), (at(server, caller.address), here)].into_iter().collect();
        let all = Bound::of("all_sockets", limits.all_sockets);
        hold(&self.sockets, Allowed { each, all })
    }

    /// Counts a connection until it is dropped. `None` if connections are not limited. What a proxy
    /// says of its clients is not known yet: a trusted one has as many as it likes.
    ///
    /// # Errors
    /// It is one too many.
    pub(super) fn connection(
        &self,
        config: &Config,
        peer: IpAddr,
    ) -> Result<Option<Held>, LimitReached> {
        let here = Bound::of("address_connections", config.limits.address_connections);
        let each = [(at(&config.server, peer), here)].into_iter().collect();
        hold(&self.connections, Allowed { each, all: None })
    }

    /// Counts a request from an address, before anybody knows whose it is. Both ways of answering
    /// count the requests that they answer themselves.
    ///
    /// # Errors
    /// It is one too many.
    pub(super) fn request(
        &self,
        config: &Config,
        address: impl FnOnce() -> IpAddr,
        now: Instant,
    ) -> Result<CountedIn, LimitReached> {
        let each = requests(&config.limits);
        let address = || at(&config.server, address());
        self.requests.count(address, rates::Allowed { each, all: None }, now)
    }

    /// Counts the bytes of an upload as they arrive: its request gets an [`UploadMeter`]. How many
    /// it announces only refuses it early.
    ///
    /// # Errors
    /// It announces too many, or nothing is left of the day.
    pub(super) fn upload(
        &self,
        front: &Front,
        caller: &Caller,
        request: &mut Request<Incoming>,
    ) -> Result<(), LimitReached> {
        let limits = front.shared.config().limits;
        let allowed = days::Allowed {
            each: Bound::of("user_upload_bytes_per_day", limits.user_upload_bytes_per_day),
            all: Bound::of("all_upload_bytes_per_day", limits.all_upload_bytes_per_day),
            unit: 1,
        };
        let announced = request.body().size_hint().lower();
        self.uploads.check(|| user(front, caller), announced, allowed, now())?;
        if !allowed.is_anything() {
            let (uploads, who) = (Arc::clone(&self.uploads), user(front, caller));
            let meter = UploadMeter { uploads, who, allowed, reached: Arc::default() };
            request.extensions_mut().insert(meter);
        }
        Ok(())
    }

    /// A request that was counted is answered in the other way, which counts it again.
    pub(super) fn uncount_request(&self, config: &Config, address: IpAddr, counted: CountedIn) {
        if let Some(bound) = requests(&config.limits) {
            self.requests.give_back(&at(&config.server, address), counted, bound);
        }
    }
}

/// Counts the bytes of an upload as they arrive, and ends it when there are too many. It is an
/// extension of the request; all its clones are one.
#[derive(Clone, Debug)]
pub(super) struct UploadMeter {
    uploads: Arc<Uploads>,
    who: Counted,
    allowed: days::Allowed,
    reached: Arc<OnceLock<LimitReached>>,
}

impl UploadMeter {
    /// What counts the bytes. It says no to those that are too many.
    pub(super) fn look(&self) -> Look {
        let meter = self.clone();
        Look::new(move |data| {
            let amount = data.len() as u64;
            let paid = meter.uploads.pay(&meter.who, amount, meter.allowed, now());
            paid.map_err(|reached| meter.reached.get_or_init(|| reached)).is_ok()
        })
    }

    /// The limit that ended the upload, if one did.
    pub(super) fn reached(&self) -> Option<LimitReached> {
        self.reached.get().copied()
    }
}

const REQUESTS: &str = "address_requests_per_minute";

fn requests(limits: &LimitsConfig) -> Option<Bound> {
    Bound::of(REQUESTS, limits.address_requests_per_minute)
}

/// Whether an address has sent too many requests.
pub(super) fn is_of_requests(error: &GatewayError) -> bool {
    matches!(error, GatewayError::LimitReached(LimitReached { name: REQUESTS, .. }))
}

/// Counts a client that is not known, for the address that it comes from. It is known afterwards,
/// unless nobody counts: then `None` is returned.
///
/// # Errors
/// It is one too many, or the table of clients is full.
pub(super) fn meet(
    front: &Front,
    caller: &Caller,
    id: &ClientId,
) -> Result<Option<Known>, GatewayError> {
    let max = front.shared.config().limits.address_new_clients_per_minute;
    let Some(bound) = Bound::of("address_new_clients_per_minute", max) else { return Ok(None) };
    if front.sessions.clients.get(id).is_some() {
        return Ok(Some(Known::Already));
    }
    let newcomers = &front.limits.newcomers;
    let address = at(&front.shared.config().server, caller.address);
    let allowed = rates::Allowed { each: Some(bound), all: None };
    let counted = newcomers.count(|| address.clone(), allowed, now())?;
    // A page asks for many things at once, and its client is new only once.
    let met = registry::meet(&front.sessions, id).map(|(_, known)| known);
    match met {
        Ok(Known::SinceNow) => {}
        Ok(Known::Already) | Err(_) => newcomers.give_back(&address, counted, bound),
    }
    met.map(Some).map_err(GatewayError::from)
}

/// What counts a prompt that is about to be submitted, where it is limited.
///
/// # Errors
/// It is one too many, or nothing is left of the day.
pub(super) fn account(front: &Front, caller: &Caller) -> Result<Account, LimitReached> {
    let limits = front.shared.config().limits;
    let allowed = days::Allowed {
        each: Bound::of("user_gpu_seconds_per_day", limits.user_gpu_seconds_per_day),
        all: Bound::of("all_gpu_seconds_per_day", limits.all_gpu_seconds_per_day),
        unit: 1_000,
    };
    // How long it runs is known afterwards.
    front.sessions.gpu_millis.check(|| user(front, caller), 0, allowed, now())?;
    let his = Bound::of("user_pending_prompts", limits.user_pending_prompts);
    let each = [(user(front, caller), his)].into_iter().collect();
    let all = Bound::of("all_pending_prompts", limits.all_pending_prompts);
    let place = hold(&front.sessions.pending_prompts, Allowed { each, all })?;
    let payer = (!allowed.is_anything()).then(|| user(front, caller));
    Ok(Account { place: place.map(Arc::new), payer })
}

fn hold<const RANK: u8>(
    holdings: &Holdings<RANK>,
    allowed: Allowed,
) -> Result<Option<Held>, LimitReached> {
    if allowed.is_anything() {
        return Ok(None);
    }
    holdings.take(allowed).map(Some)
}

/// The user behind a request.
fn user(front: &Front, caller: &Caller) -> Counted {
    match (caller.realm.user(), front.shared.config().server.trusts(caller.address)) {
        (Some(user), _) => Counted::User(user.into()),
        (None, true) => Counted::Unknown,
        (None, false) => Counted::Anybody(holder(caller.address)),
    }
}

/// Whoever is at an address. A trusted proxy stands for all that use it.
fn at(server: &ServerConfig, address: IpAddr) -> Counted {
    match server.trusts(address) {
        true => Counted::Unknown,
        false => Counted::Address(holder(address)),
    }
}
