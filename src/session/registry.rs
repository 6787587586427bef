//! The registry of all clients, by name.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Sessions;
use super::apply::Turn;
use super::budget::LogBudget;
use super::{Client, Gone};
use crate::config::LiveConfig;
use crate::lock::{Lock, rank};
use crate::masked::mask;
use crate::net::{Hashing, now};
use crate::routing::ids::{BackendId, ClientId};
use crate::routing::realm::Realm;

/// The number of sweeps in which each idle client is checked once.
const SLICES: usize = 8;

/// When the table is full, one in this many clients is removed at once.
const ROOM_PART: usize = 64;

/// How long a table that was searched without success counts as full.
const NO_ROOM_FOR: Duration = Duration::from_secs(1);

/// The table is full of clients with sockets or work, and this client is new. It is refused,
/// because evicting another would lose that user's work, and a refusal loses nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the limit of {max} clients is reached")]
pub struct TooManyClients {
    pub max: usize,
}

/// Whether a client is new.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    Already,
    SinceNow,
}

/// The clients. Entries are independent of each other, so a concurrent map is enough.
#[derive(Debug)]
pub struct Clients {
    by_id: DashMap<ClientId, Arc<Client>, Hashing>,
    /// Clients that have prompts to ask about, or had some a moment ago. The reconciler checks no
    /// others.
    working: DashMap<ClientId, Arc<Client>, Hashing>,
    live: LiveConfig,
    logs: LogBudget,
    /// When the table was last searched for room without success.
    no_room: Lock<Option<Instant>, { rank::ROOM }>,
}

impl Clients {
    #[must_use]
    pub fn new(live: LiveConfig, logs: LogBudget) -> Self {
        Self {
            by_id: DashMap::default(),
            working: DashMap::default(),
            live,
            logs,
            no_room: Lock::new(None),
        }
    }

    fn max(&self) -> usize {
        self.live.get().affinity.max_clients
    }

    /// The client of that name, and whether it had to be created.
    ///
    /// # Errors
    /// It is new and the table is full.
    fn find_or_make(&self, id: &ClientId) -> Result<(Arc<Client>, Known), TooManyClients> {
        if let Some(client) = self.get(id) {
            return Ok((client, Known::Already));
        }
        let max = self.max();
        if max <= self.by_id.len() {
            return Err(TooManyClients { max });
        }
        match self.by_id.entry(id.clone()) {
            Entry::Occupied(found) => Ok((Arc::clone(found.get()), Known::Already)),
            Entry::Vacant(free) => {
                let client = Arc::new(Client::new(id.clone(), &self.logs, now()));
                Ok((Arc::clone(free.insert(client).value()), Known::SinceNow))
            }
        }
    }

    /// True for the name of an existing client, or of one that could be created.
    #[must_use]
    pub fn takes_in(&self, id: &ClientId) -> bool {
        self.by_id.contains_key(id) || self.by_id.len() < self.max()
    }

    /// Restores a client from before a restart. Called before any other client exists.
    pub(crate) fn restore(&self, client: &Arc<Client>) {
        self.by_id.insert(client.id.clone(), Arc::clone(client));
    }

    /// The client of that name, if it exists.
    #[must_use]
    pub fn get(&self, id: &ClientId) -> Option<Arc<Client>> {
        self.by_id.get(id).map(|found| Arc::clone(found.value()))
    }

    /// Those of a realm that exist.
    #[must_use]
    pub fn of(&self, realm: &Realm) -> Vec<ClientId> {
        let own = self.by_id.iter().filter(|it| realm.has(it.key()));
        own.map(|it| it.key().clone()).collect()
    }

    /// The client that an operator names: in the masked form of the log, or by its name. The masked
    /// form comes first: it means one client, and anybody may call a client so.
    #[must_use]
    pub fn named_by_operator(&self, text: &str) -> Option<Arc<Client>> {
        let is_meant = |client: &Arc<Client>| mask(&client.id).to_string() == text;
        let by_mask = text.starts_with("c-").then(|| self.all().into_iter().find(is_meant));
        by_mask
            .flatten()
            .or_else(|| ClientId::parse(text).ok().and_then(|id| self.get(&id)))
            .or_else(|| {
                // Of several users' that are called so nobody knows which is meant.
                let mut called = self.all().into_iter().filter(|client| client.id.name() == text);
                called.next().filter(|_| called.next().is_none())
            })
    }

    /// A client has prompts to ask about. Called after they were added, so that a client which
    /// [`Clients::working`] removes at the same moment is added again.
    pub fn has_work(&self, client: &Arc<Client>) {
        if !self.working.contains_key(&client.id) {
            self.working.insert(client.id.clone(), Arc::clone(client));
        }
    }

    /// The clients that have prompts to ask about.
    #[must_use]
    pub fn working(&self) -> Vec<Arc<Client>> {
        let mut working: Vec<_> = self.working.iter().map(|it| Arc::clone(it.value())).collect();
        working.sort_by(|one, other| one.id.cmp(&other.id));
        working.retain(|client| {
            let has_work = client.has_prompts_to_ask_about();
            if !has_work {
                self.working.remove(&client.id);
                // It may have got some in the meantime, and was added before it was removed.
                if client.has_prompts_to_ask_about() {
                    self.has_work(client);
                }
            }
            has_work
        });
        working
    }

    /// The clients for one turn of the sweep: all that have a socket, a link or work, and a part of
    /// the others, whose lease can wait for its turn.
    pub(super) fn to_look_after(&self, turn: usize) -> Vec<Arc<Client>> {
        let all = self.by_id.iter().enumerate();
        let due = all.filter(|(index, found)| {
            found.is_active.load(Ordering::Relaxed) || (index + turn).is_multiple_of(SLICES)
        });
        due.map(|(_, found)| Arc::clone(found.value())).collect()
    }

    /// All of them, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.by_id.iter().map(|found| Arc::clone(found.value())).collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// False for a while after a search found no room: searching the table is expensive.
    fn may_look_for_room(&self, now: Instant) -> bool {
        self.no_room.lock().is_none_or(|at| NO_ROOM_FOR <= now.duration_since(at))
    }

    fn looked_for_room(&self, made: usize, now: Instant) {
        *self.no_room.lock() = (made == 0).then_some(now);
    }

    pub(super) fn forget(&self, client: &Arc<Client>) {
        self.by_id.remove_if(&client.id, |_, found| Arc::ptr_eq(found, client));
    }
}

/// Finds or creates the client of that name. On first contact it also gets back its prompts that
/// the backends still have, before anything of it is placed. In a full table, the clients that were
/// idle longest make room.
///
/// # Errors
/// Every client in the table has a socket or work.
pub fn admit(sessions: &Arc<Sessions>, id: &ClientId) -> Result<Arc<Client>, TooManyClients> {
    meet(sessions, id).map(|(client, _)| client)
}

/// The same, and whether it had to be created.
///
/// # Errors
/// Those of [`admit`].
pub fn meet(
    sessions: &Arc<Sessions>,
    id: &ClientId,
) -> Result<(Arc<Client>, Known), TooManyClients> {
    let found = sessions.clients.find_or_make(id).or_else(|_full| {
        make_room(sessions, now());
        sessions.clients.find_or_make(id)
    });
    let (client, known) = found?;
    match known {
        Known::Already => {}
        Known::SinceNow => client.adopt(sessions),
    }
    Ok((client, known))
}

/// Calls `act` on the client of that name, which is created if necessary. Repeats it with a new
/// client if this one was just forgotten.
///
/// # Errors
/// Every client in the table has a socket or work.
pub fn with_client<T>(
    sessions: &Arc<Sessions>,
    id: &ClientId,
    mut act: impl FnMut(&Arc<Client>) -> Result<T, Gone>,
) -> Result<(Arc<Client>, T), TooManyClients> {
    loop {
        let client = admit(sessions, id)?;
        match act(&client) {
            Ok(outcome) => return Ok((client, outcome)),
            // The sweep has marked it as gone and is about to remove it from the table.
            Err(Gone) => sessions.clients.forget(&client),
        }
    }
}

/// Forgets the clients that were idle longest, a part of the table at once. The search visits the
/// whole table, and a flood of new names must not repeat it for each name.
fn make_room(sessions: &Arc<Sessions>, now: Instant) {
    if !sessions.clients.may_look_for_room(now) {
        return;
    }
    let since = |client: Arc<Client>| {
        let idle = client.inspect(|core, _| core.idle_since(now));
        idle.map(|since| (since, client))
    };
    let mut idle: Vec<_> = sessions.clients.all().into_iter().filter_map(since).collect();
    let many = (sessions.clients.max() / ROOM_PART).max(1);
    if many < idle.len() {
        idle.select_nth_unstable_by_key(many - 1, |(since, _)| *since);
        idle.truncate(many);
    }
    let made = idle.iter().filter(|(_, client)| client.make_room(sessions, now)).count();
    sessions.clients.looked_for_room(made, now);
}

impl Client {
    /// Removes this client from the table, if it is still idle. False if it is not.
    fn make_room(self: &Arc<Self>, sessions: &Arc<Sessions>, now: Instant) -> bool {
        let mut turn = self.turn(sessions);
        let has_tunnels = || !sessions.tunnels.backends_of(&self.id).is_empty();
        if turn.is_gone || turn.core.idle_since(now).is_none() || has_tunnels() {
            return false;
        }
        turn.leave(now);
        drop(turn);
        sessions.clients.forget(self);
        true
    }
}

impl Turn<'_> {
    /// The client ends. Returns where it was bound.
    pub(super) fn leave(&mut self, now: Instant) -> Option<BackendId> {
        self.is_gone = true;
        self.act(|core| core.leave(now))
    }
}
