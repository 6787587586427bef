//! Our own routes on the front, under `/-/`: a client asks about itself (promise V3).

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::Front;
use super::caller::Caller;
use super::commands::settled;
use super::error::GatewayError;
use super::{Answer, json, own_queue, page_fleet, page_scripts};
use crate::auth::{Pass, Role};
use crate::body::ResponseBody;
use crate::comfy::query::parameter;
use crate::net::now;
use crate::report::{self, ClientReport, PromptReport};
use crate::routing::ids::PromptId;
use crate::session::Client;
use crate::session::control::{self, Force};
use crate::shared::Shared;

const CONSOLE: &str = include_str!("console.js");

/// The line that is replaced by the path of the front.
const NO_BASE: &str = "const BASE = \"\";";

/// Answers a path below `/-/`.
///
/// # Errors
/// The path does not exist, the caller has no name, or a safe reset was refused.
pub async fn answer(
    front: &Arc<Front>,
    caller: &Caller,
    path: &str,
    request: &Request<Incoming>,
) -> Answer {
    let query = request.uri().query().unwrap_or("");
    match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/-/ready") => Ok(ready(&front.shared)),
        (&Method::GET | &Method::HEAD, "/-/whoami") => {
            Ok(whoami(front, caller, request.extensions().get::<Pass>()))
        }
        (&Method::GET | &Method::HEAD, "/-/validate") => Ok(as_json(&validate(front, caller))),
        (&Method::GET | &Method::HEAD, "/-/explain") => Ok(explain(front, caller, query).await),
        (&Method::GET | &Method::HEAD, "/-/console.js") => Ok(console(&front.shared)),
        (&Method::GET | &Method::HEAD, "/-/fleet") => page_fleet::fleet(front, caller).await,
        (&Method::GET | &Method::HEAD, "/-/queue") => Ok(own_queue::queue(front, caller).await),
        (&Method::GET | &Method::HEAD, "/-/page.js") => {
            page_scripts::script(&front.shared, &page_scripts::TAB, request)
        }
        (&Method::GET | &Method::HEAD, "/-/page_extension.js") => {
            page_scripts::script(&front.shared, &page_scripts::EXTENSION, request)
        }
        (&Method::POST, "/-/reset") => reset(front, caller, query).await,
        (
            _,
            "/-/ready"
            | "/-/whoami"
            | "/-/validate"
            | "/-/explain"
            | "/-/console.js"
            | "/-/fleet"
            | "/-/queue"
            | "/-/page.js"
            | "/-/page_extension.js",
        ) => Err(GatewayError::BadMethod { allowed: "GET, HEAD" }),
        (_, "/-/reset") => Err(GatewayError::BadMethod { allowed: "POST" }),
        (method, path) => match &front.annex {
            Some(annex) => annex.answer(&front.sessions, method, path).await,
            None => Err(GatewayError::NotFound),
        },
    }
}

/// Whether new clients should be sent here. The backends are shown to operators only.
fn ready(shared: &Shared) -> Response<ResponseBody> {
    let is_ready = shared.is_ready();
    let mut response = as_json(&serde_json::json!({ "ready": is_ready }));
    if !is_ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Who the caller is, and the state of that client.
#[derive(Debug, Serialize)]
struct WhoAmI {
    client_id: Option<String>,
    /// Whether the gateway knows the client: it has been in contact within its lease.
    known: bool,
    client: Option<ClientReport>,
    /// The user who was let in.
    user: Option<UserReport>,
}

#[derive(Debug, Serialize)]
struct UserReport {
    name: String,
    role: Role,
}

fn whoami(front: &Front, caller: &Caller, user: Option<&Pass>) -> Response<ResponseBody> {
    // The address is not used: it must not reveal data of a client.
    let id = caller.asker(front);
    let client = id.as_ref().and_then(|id| front.sessions.clients.get(id));
    as_json(&WhoAmI {
        client_id: caller.named.as_ref().map(|client| client.name().to_owned()),
        known: client.is_some(),
        client: client.map(|client| of_asker(&front.sessions.shared, caller, &client)),
        user: user
            .map(|Pass { user, .. }| UserReport { name: user.name.to_string(), role: user.role }),
    })
}

/// The state of a client. Its id is a secret. Only a caller that has sent the id itself gets it,
/// not one that is known by its cookie.
fn of_asker(shared: &Arc<Shared>, caller: &Caller, client: &Client) -> ClientReport {
    let mut report = report::client(shared, client, now());
    if caller.named.is_none() {
        report.summary.client_id.clear();
    }
    report
}

/// Whether everything about a client is on one backend.
#[derive(Debug, Serialize)]
struct Validation {
    consistent: bool,
    /// The backend of the binding.
    bound: Option<String>,
    /// The backend of the link.
    link: Option<String>,
    /// The backend where requests of this client go.
    api: Option<String>,
    reason: String,
}

fn validate(front: &Front, caller: &Caller) -> Validation {
    let client = caller.asker(front).and_then(|id| front.sessions.clients.get(&id));
    let Some(client) = client else {
        let reason = "nothing is bound: this client has not been in contact".to_owned();
        return Validation { consistent: true, bound: None, link: None, api: None, reason };
    };
    let (bound, link) = client
        .inspect(|core, link| (core.bound().map(|(id, _)| id), link.map(|link| link.backend)));
    let api = match client.contact(&front.sessions, now()) {
        Ok(Ok(decision)) => Some(decision.backend),
        Ok(Err(_)) | Err(_) => None,
    };
    let is_astray = |pending: &crate::routing::pending::Pending| {
        !pending.is_waiting() && pending.backend() != bound
    };
    let astray = client.pending().iter().filter(|(_, pending)| is_astray(pending)).count();
    let consistent = astray == 0 && (api.is_none() || api == bound || bound.is_none());
    let name = |id| front.shared.fleet.get(id).name().to_string();
    let (bound, link, api) = (bound.map(name), link.map(name), api.map(name));
    let show = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
    let reason = format!(
        "bound = {}, link = {}, api = {}, prompts elsewhere = {astray}",
        show(&bound),
        show(&link),
        show(&api)
    );
    Validation { consistent, bound, link, api, reason }
}

/// Explains the state of the caller's client or of a prompt.
#[derive(Debug, Serialize)]
struct Explanation {
    client: Option<ClientReport>,
    prompt: Option<PromptReport>,
}

async fn explain(front: &Front, caller: &Caller, query: &str) -> Response<ResponseBody> {
    let client = caller.asker(front).and_then(|id| front.sessions.clients.get(&id));
    let asked = parameter(query, "prompt").and_then(|text| PromptId::parse(&text).ok());
    let found = asked.and_then(|prompt| {
        let record = front.shared.records.prompt(&prompt)?;
        // For a user, another user's prompt does not exist.
        caller.realm.owns(&record.by).then_some((prompt, record))
    });
    let mut prompt = None;
    if let Some((id, record)) = found {
        let report = report::prompt(&front.sessions, &id, &record, now()).await;
        // The id is a secret of the client, so for prompts of others only the backend and the state
        // are shown.
        prompt = Some(match client.is_some() && caller.named.is_some() {
            true if caller.named == record.by.client => report,
            true | false => PromptReport { client_id: None, waits: None, ..report },
        });
    }
    as_json(&Explanation {
        client: client.map(|client| of_asker(&front.sessions.shared, caller, &client)),
        prompt,
    })
}

/// The result of a reset.
#[derive(Debug, Serialize)]
struct ResetDone {
    released: bool,
    cut_off: usize,
}

async fn reset(front: &Arc<Front>, caller: &Caller, query: &str) -> Answer {
    let id = caller.asker(front).ok_or(GatewayError::Nameless)?;
    let force = match parameter(query, "force").as_deref() {
        Some("true" | "1") => Force::Forced,
        Some(_) | None => Force::Safe,
    };
    let Some(client) = front.sessions.clients.get(&id) else {
        return Ok(as_json(&ResetDone { released: false, cut_off: 0 }));
    };
    let cut_off = control::reset(&front.sessions, &client, force)?;
    settled(&front.sessions).await?;
    Ok(as_json(&ResetDone { released: true, cut_off }))
}

/// Any page of this host may load the script, so it contains the path of this front.
fn console(shared: &Shared) -> Response<ResponseBody> {
    let base = format!("const BASE = \"{}\";", shared.config().server.base_path.prefix());
    let mut response = Response::new(ResponseBody::whole(CONSOLE.replacen(NO_BASE, &base, 1)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Our own types can always be serialised.
fn as_json(value: &impl Serialize) -> Response<ResponseBody> {
    json(serde_json::to_vec(value).unwrap_or_default())
}
