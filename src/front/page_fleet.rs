//! `GET /-/fleet`: where the caller's jobs are and how the servers are, for the extension of the
//! page (`page_extension.js`).
//!
//! It tells people only what they may know: their own jobs, how many come before them, and names of
//! servers. The jobs of others are only counted, and no address is in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response};
use serde::Serialize;

use super::caller::Caller;
use super::error::GatewayError;
use super::{Answer, Front, json};
use crate::body::ResponseBody;
use crate::comfy::lists::order::QueueOrder;
use crate::config::{OnOff, ServerConfig};
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{Pending, Phase};
use crate::session::Client;
use crate::session::servers::{Mark, ServerState, is_planned};
use crate::session::synthesize::is_address;
use crate::session::waiting::Ahead;

/// How many jobs are told, the first ones. All are counted.
const JOBS_MAX: usize = 20;

#[derive(Debug, Serialize)]
struct FleetForPeople {
    servers: Vec<Server>,
    /// The caller's pending jobs, the one that ends first at the beginning.
    jobs: Vec<Job>,
    /// How many jobs the caller has, told or not.
    pending: usize,
    /// How many jobs of all callers have no server yet, if one of this caller is among them.
    waiting: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Server {
    name: String,
    state: ServerState,
    /// An operator takes it out of service.
    planned: bool,
    /// The caller's next job goes there, as things are.
    yours: bool,
}

#[derive(Debug, Serialize)]
struct Job {
    id: String,
    /// None while it waits for one.
    server: Option<String>,
    /// waiting, sending, restored, queued, running or ending.
    state: &'static str,
    /// How many jobs that server runs before it; none if that is not known.
    before: Option<u32>,
    /// While it waits for a server: its place among all that do, and in about how many seconds it
    /// starts. Left out if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<u64>,
}

/// True if the page gets the extension.
#[must_use]
pub(super) fn is_on(server: &ServerConfig) -> bool {
    server.page_script == OnOff::On && server.page_extension == OnOff::On
}

/// # Errors
/// The extension is turned off.
pub(super) async fn fleet(front: &Front, caller: &Caller) -> Answer {
    if !is_on(&front.shared.config().server) {
        return Err(GatewayError::NotFound);
    }
    let client = caller.asker(front).and_then(|id| front.sessions.clients.get(&id));
    let fleet = &front.shared.fleet;
    if let Some(client) = &client {
        // Before the servers are looked at: what changes after this is told again.
        client.shows_servers(Mark::of(fleet, now()));
    }
    let bound = client.as_ref().and_then(|it| it.inspect(|core, _| core.bound()));
    let bound = bound.map(|(backend, _)| backend);
    let pending = client.map_or_else(Vec::new, |client: Arc<Client>| client.pending());
    let count = pending.len();
    let waits = pending.iter().any(|(_, it)| it.is_waiting());
    let names = names(front);
    let server = |(id, name): (&BackendId, &String)| {
        let view = fleet.view(*id, now());
        let (state, planned) = (ServerState::of(&view), is_planned(&view));
        Server { name: name.clone(), state, planned, yours: bound == Some(*id) }
    };
    let told = FleetForPeople {
        jobs: jobs(front, pending, &names).await,
        pending: count,
        waiting: waits.then(|| front.sessions.waiting.count()),
        servers: names.iter().map(server).collect(),
    };
    Ok(answer(&told))
}

/// The servers' names for people. One without a name of its own has its address for one, which
/// tells nobody anything.
pub(super) fn names(front: &Front) -> BTreeMap<BackendId, String> {
    let name = |(place, backend): (usize, Arc<Backend>)| {
        let name = backend.name();
        let shown = match is_address(&name) {
            true => format!("server {place}"),
            false => name.to_string(),
        };
        (backend.id, shown)
    };
    (1..).zip(front.shared.fleet.iter()).map(name).collect()
}

async fn jobs(
    front: &Front,
    mut pending: Vec<(PromptId, Pending)>,
    names: &BTreeMap<BackendId, String>,
) -> Vec<Job> {
    // In the order of submission, but for those that have begun.
    pending.sort_by_key(|(_, it)| !matches!(it.phase, Phase::Running | Phase::Ending(_)));
    pending.truncate(JOBS_MAX);
    let limit = front.shared.config().fleet.list_timeout;
    let mut orders: BTreeMap<BackendId, Option<Arc<QueueOrder>>> = BTreeMap::new();
    for (prompt, it) in &pending {
        let Some(id) = it.backend().filter(|_| it.phase == Phase::Queued) else { continue };
        let backend = front.shared.fleet.get(id);
        if !orders.contains_key(&id) && backend.is_up() {
            orders.insert(id, backend.queue_order(prompt.as_str(), limit).await);
        }
    }
    let ahead = ahead(front, &pending).await;
    let before = |prompt: &PromptId, it: &Pending| {
        orders.get(&it.backend()?)?.as_ref()?.before(prompt.as_str())
    };
    let job = |((prompt, it), ahead): (&(PromptId, Pending), Option<Ahead>)| Job {
        id: prompt.to_string(),
        server: it.backend().and_then(|id| names.get(&id).cloned()),
        state: it.phase.as_str(),
        before: before(prompt, it).filter(|_| it.phase == Phase::Queued),
        place: ahead.map(|it| it.place),
        start: ahead.and_then(|it| it.start_seconds()),
    };
    pending.iter().zip(ahead).map(job).collect()
}

/// What is expected of those that wait for a server.
async fn ahead(front: &Front, jobs: &[(PromptId, Pending)]) -> Vec<Option<Ahead>> {
    if !jobs.iter().any(|(_, it)| it.is_waiting()) {
        return vec![None; jobs.len()];
    }
    let waiting = &front.sessions.waiting;
    let forecast = waiting.forecast().await;
    waiting.ahead_of(&forecast, jobs.iter().map(|(prompt, _)| prompt))
}

/// Our own types can always be serialised.
fn answer(told: &FleetForPeople) -> Response<ResponseBody> {
    let mut response = json(serde_json::to_vec(told).unwrap_or_default());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
