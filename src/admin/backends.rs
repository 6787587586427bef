//! Lets an operator add, change, drain and remove backends while the gateway runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::{get, put};
use axum::{Extension, Json, Router};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::api::{Reply, not_found};
use super::audited::{Asked, backend_of};
use super::sender::Sender;
use crate::config::{self, BackendConfig, Problems};
use crate::fleet::backend::Backend;
use crate::fleet::wanted::{Put, Unwanted};
use crate::journal::record::AddedRecord;
use crate::net::{now, sleep, unix_millis};
use crate::report;
use crate::routing::placement::AdminState;
use crate::routing::state_change::{self, Holds, StateChange};
use crate::session::Sessions;
use crate::session::control::{self, Force, Held};
use crate::session::membership::NotChanged;

type Shared = State<Arc<Sessions>>;

/// How long a request may wait for a drain to end.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How many requests may wait for drains at the same time.
static WAITS: Semaphore = Semaphore::const_new(256);

/// How long the process of a backend may live after its `preStop` hook has ended. It is told to end
/// then, and is killed some time later. If it lives longer, it takes work again.
const ENDS_WITHIN: Duration = Duration::from_secs(3_600);

/// The shortest time that a drain takes.
const SETTLES: Duration = Duration::from_millis(250);

/// How often to check whether a drain has ended. Not often, because all clients are checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) fn router(sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/api/v1/backends/{name}", put(add).delete(remove))
        .route("/api/v1/backends/{name}/drain", get(drain).post(drain))
        .with_state(sessions)
}

async fn add(
    State(sessions): Shared,
    Path(name): Path<String>,
    Extension(sender): Extension<Sender>,
    body: Bytes,
) -> Reply {
    let before = backend_of(&sessions, &name);
    let reply = put_backend(&sessions, name.clone(), &sender, &body).await;
    let asked = Asked { sender, what: "backend.put", on: json!(name), before };
    asked.note(&sessions, reply.0, backend_of(&sessions, &name));
    reply
}

async fn put_backend(
    sessions: &Arc<Sessions>,
    name: String,
    sender: &Sender,
    body: &[u8],
) -> Reply {
    let Ok(given) = serde_json::from_slice::<Value>(body) else {
        return bad_request("the body is not JSON");
    };
    let settings = match checked(sessions, &name, &given).await {
        Ok(settings) => settings,
        Err(problems) => return unprocessable(&problems),
    };
    let record = AddedRecord::new(given, sender.name(None::<&str>).into(), unix_millis());
    let put = match sessions.add_backend(settings, record) {
        Ok(put) => put,
        Err(why) => return not_changed(&why),
    };
    let status = if put == Put::Added { StatusCode::CREATED } else { StatusCode::OK };
    kept(sessions, status, shown(sessions, &name)).await
}

/// Reads files, so it runs on a thread that may block.
async fn checked(
    sessions: &Sessions,
    name: &str,
    given: &Value,
) -> Result<BackendConfig, Problems> {
    let secrets = sessions.shared.config().admin.secrets_dir.clone();
    let (name, given) = (name.to_owned(), given.clone());
    let read = move || config::one_backend(&name, &given, secrets.as_deref());
    // It fails only if the runtime is ending.
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(Problems(Vec::new())))
}

/// The backend in its current state, and whether it will exist after a restart.
fn shown(sessions: &Sessions, name: &str) -> Value {
    let backend = sessions.shared.fleet.by_name(name);
    let report = backend.map(|it| report::backend(sessions, &it, &Held::of(sessions), now()));
    let mut shown = json!(report);
    let is_kept = sessions.shared.records.journal.is_kept();
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("survives_restart".to_owned(), json!(is_kept));
    }
    shown
}

/// Answers as soon as the change is in the journal.
async fn kept(sessions: &Sessions, status: StatusCode, body: Value) -> Reply {
    match sessions.shared.records.journal.durable().await {
        Ok(()) => (status, Json(body)),
        Err(_) => {
            let message = "it is done, but the journal cannot be written: a restart forgets it";
            error(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// How long to wait for the drain to end, or `force` for no drain.
    drain: Option<String>,
}

async fn remove(
    State(sessions): Shared,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
    Extension(sender): Extension<Sender>,
) -> Reply {
    let before = backend_of(&sessions, &name);
    let reply = remove_backend(&sessions, &name, &query, &sender).await;
    let asked = Asked { sender, what: "backend.remove", on: json!(name), before };
    asked.note(&sessions, reply.0, backend_of(&sessions, &name));
    reply
}

async fn remove_backend(
    sessions: &Arc<Sessions>,
    name: &str,
    query: &RemoveQuery,
    sender: &Sender,
) -> Reply {
    let is_forced = query.drain.as_deref() == Some("force");
    let wait = match wait_of(query.drain.as_deref().filter(|_| !is_forced)) {
        Ok(wait) => wait,
        Err(BadWait) => return bad_request(&format!("`drain` is `force`, or {A_WAIT}")),
    };
    let backend = match sessions.remove_backend(name, &sender.name(None::<&str>)) {
        Ok(Some(backend)) => backend,
        Ok(None) => return kept(sessions, StatusCode::NO_CONTENT, Value::Null).await,
        Err(why) => return not_changed(&why),
    };
    if is_forced {
        sessions.force_out(&backend);
    } else if let Some(wait) = wait {
        let _ = timeout(wait, no_longer_leaves(sessions, &backend)).await;
    }
    match Removal::of(&backend) {
        Removal::Left => kept(sessions, StatusCode::NO_CONTENT, Value::Null).await,
        Removal::Leaves => {
            let held = control::kept_there(sessions, &backend, now());
            let ran_out = wait.is_some() && !sessions.shared.is_leaving();
            let body = json!({ "draining": true, "held_clients": held, "ran_out": ran_out });
            kept(sessions, StatusCode::ACCEPTED, body).await
        }
        Removal::Stays => {
            let by = backend.settings().listed_by;
            let message = format!("`{}` stays: it is wanted again (by {by})", backend.name());
            error(StatusCode::CONFLICT, &message)
        }
    }
}

/// What happened to a backend that was to be removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Removal {
    Left,
    /// It leaves when it is drained.
    Leaves,
    /// It stays, because it is still wanted or is wanted again.
    Stays,
}

impl Removal {
    fn of(backend: &Backend) -> Self {
        match (backend.has_left(), backend.is_going()) {
            (true, _) => Self::Left,
            (false, true) => Self::Leaves,
            (false, false) => Self::Stays,
        }
    }
}

/// Waits until the backend has left the fleet or is wanted again, or the gateway stops.
async fn no_longer_leaves(sessions: &Sessions, backend: &Backend) {
    while Removal::of(backend) == Removal::Leaves && !sessions.shared.is_leaving() {
        tokio::select! {
            () = backend.leaves() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainQuery {
    wait: Option<String>,
    by: Option<String>,
    why: Option<String>,
    /// `restart`: it takes work again when its process was restarted.
    until: Option<String>,
}

/// Drains a backend and waits until it is drained. A GET does this too, because Kubernetes' preStop
/// hook can send nothing else. The state is also set for a backend that is about to leave, because
/// it may be wanted again.
async fn drain(
    State(sessions): Shared,
    Path(name): Path<String>,
    Query(query): Query<DrainQuery>,
    Extension(sender): Extension<Sender>,
    method: Method,
) -> Reply {
    if method == Method::HEAD {
        return error(StatusCode::METHOD_NOT_ALLOWED, "a drain is requested with GET or POST");
    }
    let Ok(_seat) = WAITS.try_acquire() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait for drains");
    };
    let Some(backend) = sessions.shared.fleet.called(&name) else {
        return not_found(&format!("no backend is named {name}"));
    };
    let wait = match wait_of(query.wait.as_deref()) {
        Ok(wait) => wait.unwrap_or_default(),
        Err(BadWait) => return bad_request(&format!("`wait` is {A_WAIT}")),
    };
    let word = match drained_by(&query, wait, &sender) {
        Ok(word) => word,
        Err(bad) => return bad_request(&bad),
    };
    let asked = Asked {
        sender,
        what: "backend.drain",
        on: json!(name),
        before: backend_of(&sessions, &name),
    };
    let (state, said) = backend.said();
    if word.drains_further(state, said.as_ref(), backend.seen_since()) {
        // Only `off` can be refused.
        let _ = control::set_state(&sessions, &backend, word, Force::Safe);
    }
    asked.note(&sessions, StatusCode::OK, backend_of(&sessions, &name));
    let end = until_drained(&sessions, &backend, now() + wait).await;
    let held = control::kept_there(&sessions, &backend, now());
    let (drained, state) = (end == Drain::Drained, backend.admin().as_str());
    let body = json!({ "drained": drained, "held_clients": held, "state": state });
    match end {
        Drain::Drained => kept(&sessions, StatusCode::OK, body).await,
        Drain::RanOut => kept(&sessions, StatusCode::ACCEPTED, body).await,
        Drain::TakenBack => error(StatusCode::CONFLICT, "it was set to ready in the meantime"),
        Drain::Restarted => error(StatusCode::CONFLICT, "it has restarted and is ready again"),
        Drain::Stopping => error(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping"),
    }
}

fn drained_by(query: &DrainQuery, wait: Duration, sender: &Sender) -> Result<StateChange, String> {
    let text = |what, text, max| state_change::text(what, text, max).map_err(|it| it.to_string());
    let by = text("by", query.by.as_deref(), state_change::BY_MAX)?;
    let by = sender.name(by).into();
    let why = text("why", query.why.as_deref(), state_change::WHY_MAX)?.map(Into::into);
    let (state, at) = (AdminState::Draining, unix_millis());
    let holds = match query.until.as_deref() {
        None => Holds::On,
        Some("restart") => {
            let longest = (wait + ENDS_WITHIN).as_millis();
            Holds::OneProcess { at_latest: at + u64::try_from(longest).unwrap_or_default() }
        }
        Some(_) => return Err("`until` must be `restart` if it is given".to_owned()),
    };
    Ok(StateChange { state, by, why, at, holds })
}

/// How a wait for a drain ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Drain {
    Drained,
    RanOut,
    /// An operator has set it to ready again.
    TakenBack,
    /// It was to drain until its restart, which has happened.
    Restarted,
    Stopping,
}

async fn until_drained(sessions: &Sessions, backend: &Backend, until: Instant) -> Drain {
    // Requests that were sent there just before have arrived by then.
    let settles = now() + SETTLES;
    loop {
        let now = now();
        let is_empty = || control::kept_there(sessions, backend, now) == 0;
        if backend.has_left() || (settles <= now && is_empty()) {
            return Drain::Drained;
        }
        if backend.admin() == AdminState::Ready {
            return if backend.said().1.is_some() { Drain::TakenBack } else { Drain::Restarted };
        }
        if sessions.shared.is_leaving() {
            return Drain::Stopping;
        }
        if until <= now {
            // There was no wait, so the current state is the answer.
            return if is_empty() { Drain::Drained } else { Drain::RanOut };
        }
        sleep(LOOK_EVERY.min(until - now)).await;
    }
}

/// The text is not a valid time to wait.
struct BadWait;

/// Describes a valid time to wait.
const A_WAIT: &str = "a duration such as 10m, and 24h at most";

/// The time to wait, if there is one.
fn wait_of(text: Option<&str>) -> Result<Option<Duration>, BadWait> {
    let Some(text) = text else { return Ok(None) };
    match config::duration(text) {
        Ok(wait) if wait <= WAIT_MAX => Ok(Some(wait)),
        Ok(_) | Err(_) => Err(BadWait),
    }
}

fn bad_request(message: &str) -> Reply {
    error(StatusCode::BAD_REQUEST, message)
}

fn not_changed(why: &NotChanged) -> Reply {
    let status = match why {
        NotChanged::Unwanted(Unwanted::Configured(_) | Unwanted::Found { .. }) => {
            StatusCode::CONFLICT
        }
        NotChanged::Unwanted(Unwanted::NotAdded(_)) => StatusCode::NOT_FOUND,
        NotChanged::Unwanted(Unwanted::AddressTaken { .. })
        | NotChanged::BadDiff(_)
        | NotChanged::Itself(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    error(status, &why.to_string())
}

fn unprocessable(problems: &Problems) -> Reply {
    let lines: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
    let body = json!({ "error": "the backend is not valid", "problems": lines });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body))
}

fn error(status: StatusCode, message: &str) -> Reply {
    (status, Json(json!({ "error": message })))
}
