//! The jobs API (`GET /api/jobs`, `GET /api/jobs/{id}`) for all servers, also for those without it
//! or without `cancelled`, so that a page that is newer than its server works.
//!
//! The list is made here from queues and history entries ([`crate::comfy::jobs`]), because one page
//! may contain jobs of several backends. A single job comes from its backend if that has the route.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use http::{Response, StatusCode};
use tracing::debug;

use super::Front;
use super::caller::Caller;
use super::error::GatewayError;
use super::headers;
use super::history::{self, Whereabouts};
use super::history_cache::{self, Missing};
use super::lists::{
    Listing, Queues, ROUNDS, everybodys, listed, place_of, shown_at, taken_ms, taken_ms_of,
};
use super::visible_owners::VisibleOwners;
use super::{Answer, json, names};
use crate::body::ResponseBody;
use crate::comfy::jobs::job::{Job, detail_of_entry, detail_of_item, detail_of_own};
use crate::comfy::jobs::page::{Row, Rows, answer};
use crate::comfy::jobs::query::{JobQuery, Reads};
use crate::comfy::jobs::{Interrupted, NOT_FOUND, Status, Telling};
use crate::comfy::lists::queue::{Item, Known, OwnQueue, Shown};
use crate::fleet::api::encode_segment;
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::ids::PromptId;
use crate::routing::ledger::Listed;
use crate::routing::realm::Realm;
use crate::session::Sessions;
use crate::shared::Shared;

/// After how many entries other tasks get a turn.
const YIELD_EVERY: usize = 64;

/// `GET /api/jobs`.
///
/// # Errors
/// For a caller without a name: no backend is up.
pub async fn list(front: &Front, caller: &Caller, raw_query: &str) -> Answer {
    let query = match JobQuery::read(raw_query, told(&front.shared)) {
        Ok(query) => query,
        Err(bad) => return Ok(with_status(StatusCode::BAD_REQUEST, bad.body())),
    };
    let mut listing = Listing::begin(front, caller).await;
    let (whose, missing) = (&listing.whose, &mut listing.missing);
    let answer = if whose.is_nobody() {
        positions(&front.sessions, listing.address, &query, missing).await
    } else {
        Ok(own(front, whose, &query, missing).await)
    };
    listing.end(&front.shared, answer)
}

/// The status of an interrupted prompt for callers that do not say which word they know: the one of
/// the server that the page comes from.
fn told(shared: &Shared) -> Interrupted {
    let version = shared.home().and_then(|home| home.version());
    if version.is_some_and(|version| version.cancels_jobs()) {
        Interrupted::Cancelled
    } else {
        Interrupted::Failed
    }
}

/// The caller's jobs that match a query.
async fn own(
    front: &Front,
    whose: &VisibleOwners,
    query: &JobQuery,
    missing: &mut Missing,
) -> Response<ResponseBody> {
    let deadline = now() + front.shared.config().fleet.list_timeout;
    let mut queued = Vec::new();
    if query.wants_queued() {
        let queues = Queues::of_own(&front.sessions, whose, missing).await;
        queued =
            jobs_of(&front.shared, &queues.merged(&front.sessions, whose, missing), Job::of_item);
    }
    let mut round = 1;
    loop {
        let ended = if query.wants_ended() { listed(&front.shared, whose) } else { Vec::new() };
        let mut made = HashMap::new();
        let mut forgotten = 0;
        let mut rows = Rows::default();
        queued.iter().for_each(|job: &Job| rows.push(job.row.clone()));
        match query.reads() {
            Reads::Page => {
                ended
                    .iter()
                    .filter_map(|it| row_of(&front.shared, it))
                    .for_each(|row| rows.push(row));
            }
            Reads::All => {
                let found = history_cache::find(front, &ended, whose, deadline, missing).await;
                forgotten += found.forgotten;
                made =
                    jobs_of_entries(&front.shared, &ended, &found.entries, query.interrupted).await;
                let found = ended.iter().filter_map(|it| made.get(&it.prompt));
                found.for_each(|job| rows.push(job.row.clone()));
            }
        }
        let page = rows.page(query);
        if query.reads() == Reads::Page {
            let by_id: HashMap<&PromptId, &Listed> =
                ended.iter().map(|it| (&it.prompt, it)).collect();
            let on_page = page.rows.iter().filter(|row| row.status.is_ended());
            let on_page: Vec<Listed> =
                on_page.filter_map(|row| by_id.get(&row.id).copied().cloned()).collect();
            let found = history_cache::find(front, &on_page, whose, deadline, missing).await;
            forgotten += found.forgotten;
            made =
                jobs_of_entries(&front.shared, &on_page, &found.entries, query.interrupted).await;
        }
        if 0 < forgotten && round < ROUNDS {
            round += 1;
            continue;
        }
        let waiting: HashMap<&PromptId, &Job> = queued.iter().map(|it| (&it.row.id, it)).collect();
        let jobs = page.rows.iter().filter_map(|row| {
            let job = if row.status.is_ended() { made.get(&row.id) } else { None };
            job.or_else(|| waiting.get(&row.id).copied()).map(|job| job.json.as_str())
        });
        return json(answer(query, &page, jobs));
    }
}

async fn jobs_of_entries(
    shared: &Shared,
    ended: &[Listed],
    entries: &HashMap<PromptId, Bytes>,
    interrupted: Interrupted,
) -> HashMap<PromptId, Job> {
    let mut jobs = HashMap::new();
    for (index, listed) in ended.iter().enumerate() {
        if index % YIELD_EVERY == YIELD_EVERY - 1 {
            tokio::task::yield_now().await;
        }
        let Some(entry) = entries.get(&listed.prompt) else { continue };
        let told = Telling { interrupted, taken_ms: shared.records.unix_at(listed.made) };
        match Job::of_entry(&listed.prompt, entry, told) {
            Ok(job) => drop(jobs.insert(listed.prompt.clone(), job)),
            Err(error) => debug!(prompt = %listed.prompt, %error, "A job is left out of the list."),
        }
    }
    jobs
}

fn jobs_of<E>(
    shared: &Shared,
    queue: &OwnQueue<'_>,
    made: impl Fn(&Item<'_>, Status, u64) -> Result<Job, E>,
) -> Vec<Job> {
    let taken = taken_ms_of(shared, queue.items().map(|(_, item)| &*item.id));
    let made = |(status, item): (_, &Item<'_>)| {
        made(item, status, taken.get(&*item.id).copied().unwrap_or(0)).ok()
    };
    queue.items().filter_map(made).collect()
}

fn row_of(shared: &Shared, listed: &Listed) -> Option<Row> {
    Row::of_end(listed.prompt.clone(), listed.end, shared.records.unix_at(listed.made))
}

/// The ids, backends, times and statuses of all prompts that have an owner with a name (promise
/// R5).
async fn positions(
    sessions: &Sessions,
    address: IpAddr,
    query: &JobQuery,
    missing: &mut Missing,
) -> Answer {
    let shared = &sessions.shared;
    let mut jobs = Vec::new();
    if query.wants_queued() {
        let queues = Queues::of_all(sessions, missing).await?;
        jobs = jobs_of(shared, &queues.whole(shared, missing), Job::of_position);
        let shown = shown_at(shared, address, jobs.iter().map(|job| job.row.id.as_str()));
        jobs.retain(|job| shown.contains(&job.row.id));
    }
    let ended = everybodys(shared);
    jobs.extend(ended.iter().filter_map(|listed| {
        let taken_ms = shared.records.unix_at(listed.made);
        let told = Telling { interrupted: query.interrupted, taken_ms };
        Some(Job::of_ended_position(row_of(shared, listed)?, listed.order, told))
    }));
    let mut rows = Rows::default();
    jobs.iter().for_each(|job| rows.push(job.row.clone()));
    // If an id appears twice, the last entry counts, as for rows.
    let by_id: HashMap<&PromptId, &Job> = jobs.iter().map(|job| (&job.row.id, job)).collect();
    let page = rows.page(query);
    let shown = page.rows.iter().filter_map(|row| by_id.get(&row.id));
    Ok(json(answer(query, &page, shown.map(|job| job.json.as_str()))))
}

/// `GET /api/jobs/{prompt}`, for any caller.
///
/// # Errors
/// The backend of the prompt is down or did not answer.
pub async fn job(front: &Front, caller: &Caller, prompt: &str) -> Answer {
    let Ok(prompt) = PromptId::parse(prompt) else { return Ok(not_found()) };
    let taken_ms = taken_ms(&front.shared, prompt.as_str());
    let told = Telling { interrupted: told(&front.shared), taken_ms };
    let backend = match history::find(front, caller, &prompt).await {
        Ok(Whereabouts::Nowhere) => return Ok(not_found()),
        Ok(Whereabouts::Waits) => {
            let detail = detail_of_known(&front.sessions, &prompt);
            return Ok(detail.map_or_else(not_found, json));
        }
        Ok(Whereabouts::Lost(entry)) => {
            let detail = detail_of_entry(&prompt, &entry, told).ok();
            return Ok(detail.map_or_else(not_found, json));
        }
        Ok(Whereabouts::On(backend)) => backend,
        // A prompt that is pending there stays pending until more is known, as in the list.
        Err(error) => return detail_of_known(&front.sessions, &prompt).map(json).ok_or(error),
    };
    let detail = match front.history_cache.get(&prompt) {
        Some(entry) => {
            let entry = names::outgoing(&front.shared, &caller.realm, &backend, entry);
            Ok(detail_of_entry(&prompt, &entry, told).ok())
        }
        None if backend.version().is_some_and(|version| version.has_jobs()) => {
            told_by((front, &caller.realm), &backend, &prompt, told).await
        }
        None => made_of((front, &caller.realm), &backend, &prompt, told).await,
    };
    let known = || detail_of_known(&front.sessions, &prompt);
    let detail = match detail {
        Ok(detail) => detail.or_else(known).or_else(|| {
            let entry = history::lost(&front.shared, &prompt)?;
            detail_of_entry(&prompt, &entry, told).ok()
        }),
        Err(error) => Some(known().ok_or(error)?),
    };
    let mut answer = detail.map_or_else(not_found, json);
    headers::mark(answer.headers_mut(), &backend, Reason::Ledger);
    Ok(answer)
}

/// The answer of its backend. `None` if the backend does not know the prompt.
async fn told_by(
    (front, asker): (&Front, &Realm),
    backend: &Backend,
    prompt: &PromptId,
    told: Telling,
) -> Result<Option<String>, GatewayError> {
    let path = format!("/api/jobs/{}", encode_segment(prompt.as_str()));
    let limit = front.shared.config().fleet.probe_timeout;
    let (status, body) = match backend.get(&path, limit).await {
        Ok(answer) => answer,
        Err(error) => return Err(history::asking_failed(backend, &error)),
    };
    if status == StatusCode::NOT_FOUND.as_u16() {
        return Ok(None);
    }
    let own = names::outgoing(&front.shared, asker, backend, body);
    match detail_of_own(&own, told) {
        Ok(detail) if status == StatusCode::OK.as_u16() => Ok(Some(detail)),
        // A fork without the route, or an entry that makes it fail.
        Ok(_) | Err(_) => made_of((front, asker), backend, prompt, told).await,
    }
}

/// The same from the queue and then from the history, because a prompt moves from one to the other.
async fn made_of(
    (front, asker): (&Front, &Realm),
    backend: &Backend,
    prompt: &PromptId,
    told: Telling,
) -> Result<Option<String>, GatewayError> {
    let limit = front.shared.config().fleet.probe_timeout;
    let queue = backend.read_queue(limit).await;
    let queue = queue.map_err(|error| history::asking_failed(backend, &error))?;
    let mut found = OwnQueue::default();
    if let Err(error) = found.add(Some(backend.id), &queue, |id| shown_only(prompt, id)) {
        return Err(history::asking_failed(backend, &error));
    }
    if let Some((status, item)) = found.items().next() {
        return Ok(detail_of_item(item, status, told.taken_ms).ok());
    }
    let entry = history_cache::fetch(front, backend, prompt, now() + limit).await;
    let entry = entry.map_err(|error| history::asking_failed(backend, &error))?;
    let entry = entry.map(|raw| names::outgoing(&front.shared, asker, backend, raw));
    Ok(entry.and_then(|entry| detail_of_entry(prompt, &entry, told).ok()))
}

/// A pending prompt that its backend has not received yet.
fn detail_of_known(sessions: &Sessions, prompt: &PromptId) -> Option<String> {
    let id = sessions.shared.records.ledger_of(prompt).get(prompt, now())?.by.client.clone()?;
    let client = sessions.clients.get(&id)?;
    let pending = client.inspect(|core, _| core.pending().get(prompt).cloned())?;
    if pending.delete_asked {
        return None;
    }
    let (backend, place) = (pending.backend(), place_of(pending.phase));
    let shown = sessions.waiting.shown(std::iter::once(prompt)).remove(prompt);
    let number = shown.as_ref().map(|it| it.kept.number);
    let submitted = shown.as_ref().map(|it| (&*it.kept.body, &*it.parts));
    let mut known = OwnQueue::default();
    let taken_ms = taken_ms(&sessions.shared, prompt.as_str());
    let client = None;
    known.add_known(Known { backend, id: prompt, client, taken_ms, number, place, submitted });
    let (status, item) = known.items().next()?;
    detail_of_item(item, status, taken_ms).ok()
}

fn shown_only(prompt: &PromptId, id: &str) -> Shown<'static> {
    if id == prompt.as_str() { Shown::Cleaned } else { Shown::No }
}

fn not_found() -> Response<ResponseBody> {
    with_status(StatusCode::NOT_FOUND, NOT_FOUND)
}

/// A JSON answer of ours with a status.
#[must_use]
pub fn with_status(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = json(body);
    *response.status_mut() = status;
    response
}
