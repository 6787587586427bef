//! Which clients belong to one browser (by cookie), or were seen at one address (R1).
//!
//! The cookie identifies a browser, not a client: two tabs share it. The address is the last
//! resort, for scripts that send no name at all. It counts only while a single client was seen
//! there.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::one::{Ref, RefMut};

use super::Front;
use super::caller::Door;
use super::cookie_signer::CookieSigner;
use super::own_cookies::{Kept, OwnCookie};
use crate::auth::Session;
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, ClientId};
use crate::routing::realm::Realm;

/// How many clients are remembered per browser or address. The least recent one goes first.
const CLIENTS_MAX: usize = 32;

/// How many browsers and how many addresses are remembered. If it is full, new ones are not added.
const ENTRIES_MAX: usize = 100_000;

/// 128 random bits that name a browser.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct BrowserId(u128);

impl BrowserId {
    /// A new id that cannot be guessed.
    #[must_use]
    pub fn mint() -> Self {
        Self(rand::random())
    }

    /// The id in a session.
    #[must_use]
    pub fn of_session(session: &Session) -> Self {
        Self(session.browser)
    }

    /// Reads an id that we gave to this user, or to no particular user: `NAME.SIGNATURE`, in
    /// hexadecimal digits.
    fn parse(value: &[u8], signer: &CookieSigner, owner: Option<&str>) -> Option<Self> {
        let (name, signature) = std::str::from_utf8(value).ok()?.split_once('.')?;
        let name = Self(number(name)?);
        (number(signature)? == name.signature(signer, owner)).then_some(name)
    }

    /// The signature depends on the user. So a user who takes over a browser is not taken for the
    /// previous one.
    fn signature(self, signer: &CookieSigner, owner: Option<&str>) -> u128 {
        let Some(owner) = owner else { return signer.sign(self.0) };
        let parts: [&[u8]; 3] = [b"browser", owner.as_bytes(), &self.0.to_be_bytes()];
        let digest = signer.digest(&parts);
        digest.iter().take(16).fold(0, |tag, byte| tag << 8 | u128::from(*byte))
    }

    /// The number by which the ledger identifies a person.
    #[must_use]
    pub fn number(self) -> u128 {
        self.0
    }

    /// The header that gives the id to the browser of this user, or of no particular user.
    #[must_use]
    pub fn set_cookie(self, signer: &CookieSigner, door: Door, owner: Option<&str>) -> String {
        let value = format!("{:032x}.{:032x}", self.0, self.signature(signer, owner));
        OwnCookie::Page.set(door, &value, Kept::WithBrowser)
    }
}

fn number(text: &str) -> Option<u128> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The browser in a `Cookie` header, if the signature is ours.
#[must_use]
pub fn browser_of(
    cookies: &[u8],
    signer: &CookieSigner,
    door: Door,
    owner: Option<&str>,
) -> Option<BrowserId> {
    let mut values = OwnCookie::Page.values(cookies, door);
    values.find_map(|value| BrowserId::parse(value, signer, owner))
}

/// An address, per user: two users at one address are separate.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Spot {
    pub realm: Realm,
    pub address: IpAddr,
}

/// Clients by browser, and by address.
#[derive(Debug, Default)]
pub struct Browsers {
    by_cookie: Slices<BrowserId>,
    by_address: Slices<Spot>,
}

/// A table in slices, so that one step of the sweep checks only a few of many entries.
#[derive(Debug)]
struct Slices<K: Hash + Eq> {
    slices: [DashMap<K, Seen>; SLICES],
    hashing: RandomState,
}

impl<K: Hash + Eq> Default for Slices<K> {
    fn default() -> Self {
        Self { slices: Default::default(), hashing: RandomState::new() }
    }
}

impl<K: Hash + Eq> Slices<K> {
    fn of(&self, key: &K) -> &DashMap<K, Seen> {
        let slice = self.hashing.hash_one(key) % SLICES as u64;
        &self.slices[usize::try_from(slice).unwrap_or_default()]
    }

    fn get(&self, key: &K) -> Option<Ref<'_, K, Seen>> {
        self.of(key).get(key)
    }

    fn get_mut(&self, key: &K) -> Option<RefMut<'_, K, Seen>> {
        self.of(key).get_mut(key)
    }

    /// The entry of a key. It is created if there is room.
    fn entry(&self, key: K) -> Option<RefMut<'_, K, Seen>> {
        let slice = self.of(&key);
        let may = slice.contains_key(&key) || slice.len() < ENTRIES_MAX / SLICES;
        may.then(|| slice.entry(key).or_default())
    }

    fn retain(&self, turn: usize, mut is_kept: impl FnMut(&mut Seen) -> bool) {
        self.slices[turn % SLICES].retain(|_, seen| is_kept(seen));
    }
}

#[derive(Debug, Default)]
struct Seen {
    /// The most recent one is last.
    clients: Vec<(ClientId, Instant)>,
    /// Clients with open sockets from there, and how many. A client may send nothing else for hours
    /// and still be there.
    sockets: HashMap<ClientId, usize>,
    /// The client that was created for the last submission without a name. All such submissions of
    /// one address count as one caller without a name.
    nameless: Option<(ClientId, Instant)>,
    /// The backend of an upload without a name, and until when it waits for its prompt.
    upload: Option<(BackendId, Instant)>,
}

impl Browsers {
    /// Notes that a request named both a client and its origin.
    pub fn saw(&self, browser: Option<BrowserId>, spot: &Spot, client: &ClientId, now: Instant) {
        if let Some(browser) = browser {
            note(&self.by_cookie, browser, client, now);
        }
        note(&self.by_address, spot.clone(), client, now);
    }

    /// Notes that a submission without a name came from there and got a client of its own.
    pub fn saw_nameless(&self, spot: &Spot, client: &ClientId, now: Instant) {
        if let Some(mut seen) = self.by_address.entry(spot.clone()) {
            seen.nameless = Some((client.clone(), now));
        }
    }

    /// True if no client with a name was seen at an address within `lease` or has a socket there.
    /// Then a caller without a name owns what came from there without a name.
    #[must_use]
    pub fn is_nameless_alone(&self, spot: &Spot, lease: Duration, now: Instant) -> bool {
        let Some(seen) = self.by_address.get(spot) else { return true };
        let is_over = |at: &Instant| lease <= now.duration_since(*at);
        seen.sockets.is_empty() && seen.clients.iter().all(|(_, at)| is_over(at))
    }

    /// The clients of a browser, the most recent one first.
    #[must_use]
    pub fn of_browser(&self, browser: BrowserId) -> Vec<ClientId> {
        self.by_cookie.get(&browser).map_or_else(Vec::new, |seen| {
            seen.clients.iter().rev().map(|(client, _)| client.clone()).collect()
        })
    }

    /// The client of an address, if only one was seen there within `lease`.
    #[must_use]
    pub fn sole_at(&self, spot: &Spot, lease: Duration, now: Instant) -> Option<ClientId> {
        let seen = self.by_address.get(spot)?;
        let named = seen.clients.iter().chain(&seen.nameless);
        let recent = named.filter(|(_, at)| now.duration_since(*at) < lease);
        let mut here = recent.map(|(client, _)| client).chain(seen.sockets.keys());
        let first = here.next()?;
        here.all(|other| other == first).then(|| first.clone())
    }

    /// Notes that a client has opened a socket from there.
    pub fn socket_opened(&self, spot: &Spot, client: &ClientId) {
        if let Some(mut seen) = self.by_address.entry(spot.clone()) {
            *seen.sockets.entry(client.clone()).or_default() += 1;
        }
    }

    /// Notes that such a socket was closed. The client was there until now.
    pub fn socket_closed(&self, spot: &Spot, client: &ClientId, now: Instant) {
        if let Some(mut seen) = self.by_address.get_mut(spot)
            && let Some(open) = seen.sockets.get_mut(client)
        {
            *open -= 1;
            if *open == 0 {
                seen.sockets.remove(client);
            }
        }
        note(&self.by_address, spot.clone(), client, now);
    }

    /// Notes that an upload without a name went to `backend`, and until when it waits for its
    /// prompt.
    pub fn uploaded(&self, spot: &Spot, backend: BackendId, until: Instant) {
        if let Some(mut seen) = self.by_address.entry(spot.clone()) {
            seen.upload = Some((backend, until));
        }
    }

    /// Takes the backend where an upload of this address waits for its prompt.
    #[must_use]
    pub fn take_upload(&self, spot: &Spot, now: Instant) -> Option<(BackendId, Instant)> {
        let mut seen = self.by_address.get_mut(spot)?;
        seen.upload.take().filter(|(_, until)| now < *until)
    }

    /// Where the uploads of this address went. They stay.
    #[must_use]
    pub fn upload_at(&self, spot: &Spot, now: Instant) -> Option<BackendId> {
        let seen = self.by_address.get(spot)?;
        seen.upload.filter(|(_, until)| now < *until).map(|(backend, _)| backend)
    }

    /// Forgets what was not seen for `lease`, one slice per step. Readers check the age themselves.
    pub fn sweep(&self, turn: usize, lease: Duration, now: Instant) {
        let is_recent = |at: &Instant| now.duration_since(*at) < lease;
        let keep = |seen: &mut Seen| {
            seen.clients.retain(|(_, at)| is_recent(at));
            seen.nameless = seen.nameless.take().filter(|(_, at)| is_recent(at));
            !seen.clients.is_empty()
                || seen.nameless.is_some()
                || !seen.sockets.is_empty()
                || seen.upload.is_some_and(|(_, until)| now < until)
        };
        self.by_cookie.retain(turn, keep);
        self.by_address.retain(turn, keep);
    }
}

fn note<K: Hash + Eq>(table: &Slices<K>, key: K, client: &ClientId, now: Instant) {
    let Some(mut seen) = table.entry(key) else { return };
    if let Some((last, at)) = seen.clients.last_mut()
        && last == client
    {
        *at = now;
        return;
    }
    seen.clients.retain(|(known, _)| known != client);
    if seen.clients.len() == CLIENTS_MAX {
        seen.clients.remove(0);
    }
    seen.clients.push((client.clone(), now));
}

/// The time between two steps of the sweep.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// After this many steps every entry was checked once.
const SLICES: usize = 16;

/// Forgets old browsers, until the process stops.
pub async fn sweep(front: Arc<Front>) {
    let tasks = &front.shared.tasks;
    let mut turn: usize = 0;
    loop {
        turn = turn.wrapping_add(1);
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            () = sleep(SWEEP_INTERVAL) => {}
        }
        front.browsers.sweep(turn, front.shared.config().affinity.lease, now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Browsers {
        fn len(&self) -> usize {
            self.by_address.slices.iter().map(DashMap::len).sum()
        }
    }

    fn client(name: &str) -> ClientId {
        ClientId::parse(name).unwrap()
    }

    const HERE: &Spot = &at(std::net::Ipv4Addr::LOCALHOST);

    const fn at(address: std::net::Ipv4Addr) -> Spot {
        Spot { realm: Realm::Everybody, address: IpAddr::V4(address) }
    }
    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn an_address_speaks_for_a_client_only_while_it_is_alone_there() {
        let (browsers, t) = (Browsers::default(), now());
        browsers.saw(None, HERE, &client("ada"), t);
        assert_eq!(browsers.sole_at(HERE, LEASE, t), Some(client("ada")));
        browsers.saw(None, HERE, &client("bob"), t + Duration::from_secs(5));
        assert_eq!(browsers.sole_at(HERE, LEASE, t + Duration::from_secs(6)), None);
        let later = t + Duration::from_secs(12);
        assert_eq!(browsers.sole_at(HERE, LEASE, later), Some(client("bob")));
    }

    #[test]
    fn an_address_that_two_users_share_is_another_for_each() {
        let (browsers, t) = (Browsers::default(), now());
        let of = |user: &str| Spot { realm: Realm::User(user.into()), ..HERE.clone() };
        browsers.saw(None, &of("ada"), &client("tab of ada"), t);
        browsers.socket_opened(&of("ada"), &client("tab of ada"));
        browsers.uploaded(&of("ada"), BackendId::nth(1), t + LEASE);
        for other in [&of("bob"), HERE] {
            assert_eq!(browsers.sole_at(other, LEASE, t), None);
            assert_eq!(browsers.upload_at(other, t), None);
            assert_eq!(browsers.take_upload(other, t), None);
            assert!(browsers.is_nameless_alone(other, LEASE, t));
        }
        assert_eq!(browsers.sole_at(&of("ada"), LEASE, t), Some(client("tab of ada")));
        assert_eq!(browsers.upload_at(&of("ada"), t), Some(BackendId::nth(1)));
    }

    #[test]
    fn an_open_socket_is_there_however_long_it_says_nothing() {
        let (browsers, t) = (Browsers::default(), now());
        let later = t + Duration::from_secs(3_600);
        browsers.saw(None, HERE, &client("ada"), t);
        browsers.socket_opened(HERE, &client("ada"));
        browsers.socket_opened(HERE, &client("ada"));
        (0..SLICES).for_each(|turn| browsers.sweep(turn, LEASE, later));
        assert_eq!(browsers.sole_at(HERE, LEASE, later), Some(client("ada")));
        browsers.saw(None, HERE, &client("bob"), later);
        assert_eq!(browsers.sole_at(HERE, LEASE, later), None);
        browsers.socket_closed(HERE, &client("ada"), later);
        assert_eq!(browsers.sole_at(HERE, LEASE, later + 2 * LEASE), Some(client("ada")));
        browsers.socket_closed(HERE, &client("ada"), later);
        browsers.saw(None, HERE, &client("bob"), later + LEASE);
        assert_eq!(browsers.sole_at(HERE, LEASE, later + LEASE), Some(client("bob")));
    }

    #[test]
    fn all_without_a_name_at_an_address_are_one_and_are_alone_until_somebody_has_one() {
        let (browsers, t) = (Browsers::default(), now());
        assert!(browsers.is_nameless_alone(HERE, LEASE, t));
        browsers.saw_nameless(HERE, &client("minted 1"), t);
        browsers.saw_nameless(HERE, &client("minted 2"), t);
        assert_eq!(browsers.sole_at(HERE, LEASE, t), Some(client("minted 2")));
        assert!(browsers.is_nameless_alone(HERE, LEASE, t));
        browsers.saw(None, HERE, &client("ada"), t);
        assert_eq!(browsers.sole_at(HERE, LEASE, t), None);
        assert!(!browsers.is_nameless_alone(HERE, LEASE, t));
        let late = t + LEASE;
        assert!(browsers.is_nameless_alone(HERE, LEASE, late));
        (0..SLICES).for_each(|turn| browsers.sweep(turn, LEASE, late));
        assert_eq!(browsers.len(), 0);
    }

    #[test]
    fn a_turn_of_the_sweep_looks_at_a_part_of_them_and_all_turns_at_all() {
        const MANY: u32 = 4_096;
        let (browsers, t) = (Browsers::default(), now());
        for number in 0..MANY {
            browsers.saw(None, &at(number.into()), &client("ada"), t);
        }
        let late = t + LEASE;
        let mut before = browsers.len();
        for turn in 0..SLICES {
            browsers.sweep(turn, LEASE, late);
            let gone = before - browsers.len();
            assert!(0 < gone && gone < 2 * MANY as usize / SLICES, "{gone} in one turn");
            before = browsers.len();
        }
        assert_eq!(before, 0);
    }

    #[test]
    fn a_cookie_is_read_among_others_and_one_that_we_did_not_give_is_not() {
        let (signer, minted) = (CookieSigner::new(), BrowserId::mint());
        let pair = |door| {
            let set = minted.set_cookie(&signer, door, None);
            set.split(';').next().unwrap().to_owned()
        };
        let plain = pair(Door::Plain);
        let read = |cookies: &str, door| browser_of(cookies.as_bytes(), &signer, door, None);
        let junk = "mooring=00000000000000000000000000000001";
        assert_eq!(read(&format!("a=b; {junk}; {plain}; c=d"), Door::Plain), Some(minted));
        assert_eq!(read(&plain, Door::Tls), None, "anybody on the way could have set it");
        assert_eq!(read(&pair(Door::Tls), Door::Tls), Some(minted));
        let others = CookieSigner::new();
        assert_eq!(browser_of(plain.as_bytes(), &others, Door::Plain, None), None);
        let forged = format!("{junk}.00000000000000000000000000000001");
        let altered = plain.replacen('=', "=0", 1);
        for other in [junk, "mooring=zz", "mooring=", forged.as_str(), altered.as_str()] {
            assert_eq!(read(other, Door::Plain), None, "{other}");
        }
    }

    #[test]
    fn the_cookie_of_one_users_browser_is_nothing_to_another() {
        let (signer, minted) = (CookieSigner::new(), BrowserId::mint());
        let (ada, bob) = ("ada", "bob");
        let of_ada = minted.set_cookie(&signer, Door::Plain, Some(ada));
        let of_nobody = minted.set_cookie(&signer, Door::Plain, None);
        let read = |set: &str, owner| {
            let pair = set.split(';').next().unwrap();
            browser_of(pair.as_bytes(), &signer, Door::Plain, owner)
        };
        assert_eq!(read(&of_ada, Some(ada)), Some(minted));
        assert_eq!(read(&of_nobody, None), Some(minted));
        for (set, owner) in [(&of_ada, Some(bob)), (&of_ada, None), (&of_nobody, Some(ada))] {
            assert_eq!(read(set, owner), None, "{owner:?}");
        }
    }
}
