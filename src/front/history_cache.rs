//! The history entries of ended prompts: fetched once by id, kept in memory, used for lists.
//!
//! An entry does not change any more, so it is kept as its backend sent it, within
//! `prompts.history_cache`. The file names in it are those of its backend. They are replaced by
//! those of clients each time it is sent ([`names::outgoing`]), because their meaning may change.
//! The client's id is removed at the same time, except for callers that named that client.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http::HeaderValue;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::debug;

use super::Front;
use super::visible_owners::VisibleOwners;
use super::{Answer, headers, names};
use crate::cache::Cache;
use crate::comfy::answers::Junk;
use crate::comfy::lists::history::entry_of;
use crate::comfy::redact::Told;
use crate::comfy::reply::LostTimes;
use crate::comfy::{redact, reply, scan};
use crate::fleet::api::{ApiError, encode_segment};
use crate::fleet::backend::Backend;
use crate::lock::{Guard, Lock, rank};
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::ledger::{Listed, Record};
use crate::routing::owners::Submitter;
use crate::routing::pending::{End, Loss, Process, process_since};
use crate::session::Sessions;
use crate::session::synthesize::lost_message;
use crate::shared::Shared;

/// How many entries one list fetches from one backend at the same time.
const AT_ONCE: usize = 8;

/// The pause between two attempts to get an entry that should exist.
pub const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The entries in memory, and those that are being fetched.
#[derive(Debug)]
pub struct HistoryCache {
    cache: Lock<Cache<PromptId, Bytes>, { rank::HISTORY_CACHE }>,
    fetching: Lock<HashMap<PromptId, Arc<Fetching>>, { rank::FETCHING }>,
}

/// An entry that is being fetched. `None` if its backend has none.
type Fetching = OnceCell<Option<Bytes>>;

/// A task that waits for an entry. The first to leave removes it from the table.
struct Waiting<'a> {
    entries: &'a HistoryCache,
    prompt: &'a PromptId,
    fetching: Arc<Fetching>,
}

/// Backends that did not answer in time. Their entries are missing in the answer.
#[derive(Debug, Default)]
pub struct Missing(BTreeSet<BackendId>);

/// The result of a search for entries.
#[derive(Debug, Default)]
pub struct Found {
    /// In the form for clients.
    pub entries: HashMap<PromptId, Bytes>,
    /// How many are in no history any more. The ledger does not list them any longer.
    pub forgotten: usize,
}

impl HistoryCache {
    /// A cache of at most `capacity` bytes. With 0 it keeps nothing.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { cache: Lock::new(Cache::new(capacity)), fetching: Lock::default() }
    }

    /// Sets another capacity in bytes.
    pub fn limit(&self, capacity: usize) {
        self.cache().limit(capacity);
    }

    /// The entry of a prompt as its backend sent it, if it is in memory.
    #[must_use]
    pub fn get(&self, prompt: &PromptId) -> Option<Bytes> {
        self.cache().get(prompt)
    }

    /// The same for several prompts at once. `None` for those that are not in memory.
    #[must_use]
    pub fn get_all(&self, prompts: &[&PromptId]) -> Vec<Option<Bytes>> {
        let mut cache = self.cache();
        prompts.iter().map(|prompt| cache.get(prompt)).collect()
    }

    /// Stores a copy of the entry of a prompt that has ended, so that the answer can be freed.
    pub fn keep(&self, prompt: &PromptId, entry: &[u8]) -> Bytes {
        let entry = Bytes::copy_from_slice(entry);
        self.cache().insert(prompt, entry.clone(), entry.len());
        entry
    }

    /// Forgets an entry: its client deleted it, or it turned out to be wrong.
    pub fn forget(&self, prompt: &PromptId) {
        self.cache().remove(prompt);
    }

    /// The size of all entries in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.cache().weight()
    }

    fn wait<'a>(&'a self, prompt: &'a PromptId) -> Waiting<'a> {
        let fetching = Arc::clone(self.fetching().entry(prompt.clone()).or_default());
        Waiting { entries: self, prompt, fetching }
    }

    fn cache(&self) -> Guard<'_, Cache<PromptId, Bytes>, { rank::HISTORY_CACHE }> {
        self.cache.lock()
    }

    fn fetching(&self) -> Guard<'_, HashMap<PromptId, Arc<Fetching>>, { rank::FETCHING }> {
        self.fetching.lock()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut fetching = self.entries.fetching();
        if fetching.get(self.prompt).is_some_and(|it| Arc::ptr_eq(it, &self.fetching)) {
            fetching.remove(self.prompt);
        }
    }
}

impl Missing {
    pub fn add(&mut self, backend: BackendId) {
        self.0.insert(backend);
    }

    /// Adds their names to a header of the answer.
    pub fn name(&self, shared: &Shared, mut answer: Answer) -> Answer {
        if let Ok(response) = &mut answer
            && !self.0.is_empty()
        {
            let names: Vec<_> = self.0.iter().map(|id| shared.fleet.get(*id).name()).collect();
            if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
                response.headers_mut().insert(headers::MISSING, value);
            }
        }
        answer
    }
}

/// The entries of these prompts: from memory, and the others from their backends until `deadline`.
/// The entries of backends that are down or late are missing.
pub async fn find(
    front: &Front,
    wanted: &[Listed],
    whose: &VisibleOwners,
    deadline: Instant,
    missing: &mut Missing,
) -> Found {
    let mut found = Found::default();
    let mut to_fetch: BTreeMap<BackendId, Vec<PromptId>> = BTreeMap::new();
    let mut by: HashMap<&PromptId, &Submitter> = HashMap::new();
    let mut raw: Vec<Raw> = Vec::new();
    let kept = front.history_cache.get_all(&wanted.iter().map(|it| &it.prompt).collect::<Vec<_>>());
    for (listed, kept) in wanted.iter().zip(kept) {
        let Listed { prompt, backend, end, .. } = listed;
        if let End::Lost(loss) = end {
            if let Some(entry) = lost_of_listed(&front.shared, listed, *loss) {
                found.entries.insert(prompt.clone(), entry);
            }
            continue;
        }
        let Some(backend) = *backend else { continue };
        match kept {
            Some(entry) => raw.push(Raw::of(prompt, backend, shown(entry, whose, &listed.by))),
            None => {
                by.insert(prompt, &listed.by);
                to_fetch.entry(backend).or_default().push(prompt.clone());
            }
        }
    }
    let fetching = to_fetch.into_iter().map(|(id, prompts)| {
        let backend = front.shared.fleet.get(id);
        async move {
            let fetched = fetch_all(front, &backend, prompts, deadline).await;
            (backend, fetched)
        }
    });
    for (backend, fetched) in join_all(fetching).await {
        if fetched.is_cut {
            missing.add(backend.id);
        }
        for (prompt, entry) in fetched.entries {
            match (entry, by.get(&prompt)) {
                (Some(entry), Some(by)) => {
                    raw.push(Raw::of(&prompt, backend.id, shown(entry, whose, by)));
                }
                (Some(_) | None, _) => {
                    found.forgotten +=
                        usize::from(is_forgotten(&front.sessions, &backend, &prompt));
                }
            }
        }
    }
    let prompts: Vec<PromptId> = raw.iter().map(|raw| raw.prompt.clone()).collect();
    let told = raw.into_iter().map(|it| it.told).collect();
    let told = names::all_outgoing(&front.shared, whose.realm(), told);
    found.entries.extend(prompts.into_iter().zip(told));
    found
}

/// An entry that still contains the file names of its backend.
struct Raw {
    prompt: PromptId,
    told: (BackendId, Bytes),
}

impl Raw {
    fn of(prompt: &PromptId, backend: BackendId, entry: Bytes) -> Self {
        Self { prompt: prompt.clone(), told: (backend, entry) }
    }
}

/// An entry as its backend sent it, in the form for one caller.
#[must_use]
pub fn told(
    shared: &Shared,
    backend: &Backend,
    raw: Bytes,
    whose: &VisibleOwners,
    by: &Submitter,
) -> Bytes {
    names::outgoing(shared, whose.realm(), backend, shown(raw, whose, by))
}

fn shown(raw: Bytes, whose: &VisibleOwners, by: &Submitter) -> Bytes {
    with(raw, whose.told(by))
}

/// The entry with as much of its client's id as the caller may see.
fn with(raw: Bytes, told: Told<'_>) -> Bytes {
    match redact::entry_as(&raw, told) {
        Cow::Borrowed(_) => raw,
        Cow::Owned(entry) => Bytes::from(entry),
    }
}

/// What one backend answered.
#[derive(Default)]
struct Fetched {
    /// `None` for a prompt that its history does not contain.
    entries: Vec<(PromptId, Option<Bytes>)>,
    /// Some answers were late or not valid.
    is_cut: bool,
}

async fn fetch_all(
    front: &Front,
    backend: &Backend,
    prompts: Vec<PromptId>,
    deadline: Instant,
) -> Fetched {
    let mut fetched = Fetched::default();
    if !backend.is_up() {
        fetched.is_cut = true;
        return fetched;
    }
    let asked = prompts.into_iter().map(|prompt| async move {
        let entry = fetch(front, backend, &prompt, deadline).await;
        (prompt, entry)
    });
    let mut answers = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
    loop {
        match timeout(deadline.saturating_duration_since(now()), answers.next()).await {
            Ok(Some((prompt, Ok(entry)))) => fetched.entries.push((prompt, entry)),
            Ok(Some((prompt, Err(error)))) => {
                debug!(backend = %backend.name(), %prompt, %error, "An entry is left out.");
                fetched.is_cut = true;
            }
            Ok(None) => return fetched,
            Err(_elapsed) => {
                fetched.is_cut = true;
                return fetched;
            }
        }
    }
}

/// The entry of an ended prompt, which is then kept in memory. It is fetched once for all callers.
///
/// # Errors
/// The backend did not answer in time.
pub async fn fetch(
    front: &Front,
    backend: &Backend,
    prompt: &PromptId,
    deadline: Instant,
) -> Result<Option<Bytes>, ApiError> {
    let waiting = front.history_cache.wait(prompt);
    let fetched = waiting.fetching.get_or_try_init(|| ask(front, backend, prompt, deadline));
    fetched.await.cloned()
}

/// ComfyUI reports the end before it writes the history. So after a recent end it is asked again
/// for a while (P7).
async fn ask(
    front: &Front,
    backend: &Backend,
    prompt: &PromptId,
    deadline: Instant,
) -> Result<Option<Bytes>, ApiError> {
    let path = format!("/history/{}", encode_segment(prompt.as_str()));
    let wait_until = deadline.min(now() + front.shared.config().prompts.history_wait);
    loop {
        let limit = deadline.saturating_duration_since(now());
        let body = backend.get_ok(&path, limit).await?;
        match entry_in(&body, prompt)? {
            Some(entry) => return Ok(Some(front.history_cache.keep(prompt, &entry))),
            None if now() < wait_until && is_due(&front.sessions, backend, prompt) => {
                sleep(LOOK_AGAIN).await;
            }
            None => return Ok(None),
        }
    }
}

/// The entry of a prompt in the answer of `GET /history/{id}`, without the `NaN` that Python
/// writes.
///
/// # Errors
/// The answer is not a history.
pub fn entry_in(body: &Bytes, prompt: &PromptId) -> Result<Option<Bytes>, Junk> {
    if let Ok(entry) = entry_of(body, prompt.as_str()) {
        return Ok(entry.map(|entry| body.slice_ref(entry.as_bytes())));
    }
    let clean = Bytes::from(scan::without_nan(body));
    let entry = entry_of(&clean, prompt.as_str())?;
    Ok(entry.map(|entry| clean.slice_ref(entry.as_bytes())))
}

/// True if the entry of a prompt will be written soon: it has ended just now, and the process of
/// its backend still runs, as far as is known.
#[must_use]
pub fn is_due(sessions: &Sessions, backend: &Backend, prompt: &PromptId) -> bool {
    let record = sessions.shared.records.prompt(prompt);
    let Some(record) = record else { return false };
    if process_since(record.made, backend.restarted()) == Process::Restarted {
        return false;
    }
    let client = record.by.client.and_then(|client| sessions.clients.get(&client));
    client.is_some_and(|client| client.history_is_due(prompt))
}

/// The backend does not have the entry. If none will be written any more, the prompt is removed
/// from lists: a history ends with its process.
fn is_forgotten(sessions: &Arc<Sessions>, backend: &Backend, prompt: &PromptId) -> bool {
    if is_due(sessions, backend, prompt) {
        return false;
    }
    sessions.shared.records.ledger_of(prompt).unlist(prompt);
    true
}

/// The entry of a lost prompt, from the ledger, so that a client that polls gets a result (P6).
#[must_use]
pub fn lost(shared: &Shared, prompt: &PromptId, record: &Record, loss: Loss) -> Option<Bytes> {
    let Record { made, order, ended, backend, .. } = *record;
    lost_entry(shared, prompt, loss, backend, (order, made, ended.unwrap_or(made)))
}

fn lost_of_listed(shared: &Shared, listed: &Listed, loss: Loss) -> Option<Bytes> {
    let Listed { ref prompt, backend, made, order, ended, .. } = *listed;
    lost_entry(shared, prompt, loss, backend, (order, made, ended))
}

fn lost_entry(
    shared: &Shared,
    prompt: &PromptId,
    loss: Loss,
    backend: Option<BackendId>,
    (order, made, ended): (u64, Instant, Instant),
) -> Option<Bytes> {
    let backend = backend.map(|backend| shared.fleet.get(backend).name());
    let message = lost_message(loss, backend.as_deref().unwrap_or("its server"), None);
    let [taken_ms, lost_ms] = [made, ended].map(|at| shared.records.unix_at(at));
    let times = LostTimes { order, taken_ms, lost_ms };
    entry_in(&Bytes::from(reply::history_lost(prompt, &message, times)), prompt).ok().flatten()
}
