//! Decides which backend a request goes to, by its content and its sender (promises B6, R1, R2, R8,
//! R9).
//!
//! It is the backend of the prompt or of the file that the request names, or the backend to which
//! the client is bound, or the home backend. A prompt id or a file never identifies the sender.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use super::Front;
use super::caller::{Caller, IdentityHints};
use super::error::{Closed, GatewayError};
use super::forward::{Target, forward};
use super::stand_in::marked;
use super::upload::{self, upload};
use super::{
    Answer, assets, cancel, commands, done, failover, headers, history, home, jobs, limits, lists,
    nodes, packs, page, self_service, static_files, submit, tunnel, upgrade, user_data, view,
};
use crate::body::ResponseBody;
use crate::comfy::endpoint::Endpoint;
use crate::comfy::guard;
use crate::comfy::messages;
use crate::config::StatusCounts;
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::routing::decision::{Decision, Reason};
use crate::routing::ids::ClientId;
use crate::routing::placement::NoPlace;
use crate::routing::realm::Realm;
use crate::session::Client;
use crate::session::Sessions;
use crate::session::registry::with_client;
use crate::shared::Shared;
use crate::ws;

/// Answers a request that was let in.
///
/// # Errors
/// Any error that prevents an answer; see [`GatewayError`].
pub async fn route(
    front: &Arc<Front>,
    peer: IpAddr,
    endpoint: Endpoint,
    mut request: Request<Incoming>,
) -> Answer {
    // Requests that need a socket or a link are too late. The others are still completed.
    if matches!(endpoint, Endpoint::Socket | Endpoint::Submit) && front.shared.tasks.is_stopping() {
        return Err(GatewayError::Stopping);
    }
    let asks_for_socket = ws::is_asked(&request);
    let caller = caller_of(front, peer, &mut request)?;
    match endpoint {
        Endpoint::Unserved if caller.realm != Realm::Everybody => Err(GatewayError::NotFound),
        Endpoint::Own(path) => self_service::answer(front, &caller, &path, &request).await,
        Endpoint::Socket => upgrade::upgrade(front, &caller, request),
        Endpoint::Submit => submit::submit(front, &caller, request).await,
        Endpoint::Upload => upload(front, &caller, upload::What::Image, request).await,
        Endpoint::UploadMask => upload(front, &caller, upload::What::Mask, request).await,
        Endpoint::HistoryOf(prompt) => history::history_of(front, &caller, &prompt, request).await,
        Endpoint::Queue => lists::queue(front, &caller).await,
        Endpoint::HistoryList => lists::history(front, &caller, query_of(&request)).await,
        Endpoint::JobList => jobs::list(front, &caller, query_of(&request)).await,
        Endpoint::Job(prompt) => jobs::job(front, &caller, &prompt).await,
        Endpoint::Interrupt => commands::interrupt(front, &caller, request).await,
        Endpoint::EditQueue => commands::edit_queue(front, &caller, request).await,
        Endpoint::EditHistory => commands::edit_history(front, &caller, request).await,
        Endpoint::CancelJob(prompt) => cancel::cancel_job(front, &caller, &prompt).await,
        Endpoint::CancelJobs => cancel::cancel_jobs(front, &caller, request).await,
        Endpoint::SubscribeLogs | Endpoint::ServerLog
            if !(front.shared.config().server.allow_logs && caller.is_operator) =>
        {
            Err(Closed::Logs.into())
        }
        Endpoint::SubscribeLogs => commands::subscribe_logs(front, &caller, request).await,
        Endpoint::Features => Ok(features(front, &caller)),
        Endpoint::QueueLength => queue_length(front, &caller, request).await,
        Endpoint::Page => marked(front, page::page(front, &caller, request).await),
        Endpoint::Asset => marked(front, static_files::asset(front, caller.address, request).await),
        Endpoint::UserData => marked(front, user_data::user_data(front, &caller, request).await),
        Endpoint::Guarded if is_shut(front, &caller, &request) => Err(Closed::Operators.into()),
        Endpoint::Guarded | Endpoint::ManagerList if guard::breaks_lines(query_of(&request)) => {
            Err(Closed::Operators.into())
        }
        Endpoint::NodeInfo => nodes::all(front, &caller, request).await,
        Endpoint::NodeInfoOf => nodes::one(front, &caller, request).await,
        Endpoint::FileList(folder) => nodes::files(front, &caller, folder, request).await,
        Endpoint::ModelList => nodes::models(front, &caller, request).await,
        Endpoint::Subgraph => nodes::subgraph(front, &caller, request).await,
        Endpoint::View => view::view(front, &caller, request).await,
        Endpoint::Assets(asked) => assets::answer(front, &caller, asked, request).await,
        // This command is for operators: it unloads the models that others are using.
        Endpoint::Free if !may_free(front, &caller) => Ok(done()),
        // On any other route that ComfyUI answers itself there is no socket, so `Upgrade` is
        // ignored.
        Endpoint::Guarded | Endpoint::Other | Endpoint::Unserved if asks_for_socket => {
            socket_of_a_pack(front, &caller, request).await
        }
        Endpoint::Free => free(front, &caller, request).await,
        Endpoint::Guarded | Endpoint::ManagerList | Endpoint::ServerLog => {
            forward(&front.shared, &reading(front, &caller)?, request).await
        }
        Endpoint::Other | Endpoint::Unserved => match view::named_by(front, &caller, &request) {
            Some(at) => view::pass(&front.shared, at?, request).await,
            None if packs::brings_a_body(&request) => packs::bring(front, &caller, request).await,
            None => failover::read(front, &caller, None, request).await,
        },
        Endpoint::Start(read) => failover::read(front, &caller, Some(read), request).await,
    }
}

/// The sender. What a peer that is not trusted says of others is forgotten.
fn caller_of(
    front: &Front,
    peer: IpAddr,
    request: &mut Request<Incoming>,
) -> Result<Caller, GatewayError> {
    let mut caller = Caller::of(front, peer, &IdentityHints::of(request))?;
    caller.seen = request.extensions_mut().remove();
    if !front.shared.config().server.trusts(peer) {
        headers::forget_claims(request.headers_mut());
    }
    Ok(caller)
}

/// The features of the fleet, as this caller has them.
fn features(front: &Front, caller: &Caller) -> Response<ResponseBody> {
    super::json(front.shared.fleet.features().told(caller.realm.user()).to_owned())
}

/// A socket that is not ComfyUI's own.
async fn socket_of_a_pack(
    front: &Arc<Front>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Answer {
    if front.shared.tasks.is_stopping() {
        return Err(GatewayError::Stopping);
    }
    if view::may_be_others(caller, request.uri()) {
        return Err(GatewayError::NotFound);
    }
    tunnel::tunnel(front, caller, &reading(front, caller)?, request).await
}

/// Unloads the models of a backend.
async fn free(front: &Front, caller: &Caller, request: Request<Incoming>) -> Answer {
    let target = reading(front, caller)?;
    let answer = forward(&front.shared, &target, request).await;
    if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
        front.sessions.waiting.emptied(target.backend.id);
    }
    answer
}

/// True if this caller may unload models that others use.
fn may_free(front: &Front, caller: &Caller) -> bool {
    front.shared.config().server.allow_free && caller.is_operator
}

/// True for a route of operators that this caller may not use.
fn is_shut(front: &Front, caller: &Caller, request: &Request<Incoming>) -> bool {
    let may = front.shared.config().server.allow_manager && caller.is_operator;
    !may || guard::is_doubtful(request.uri().path())
}

fn query_of(request: &Request<Incoming>) -> &str {
    request.uri().query().unwrap_or("")
}

/// The target of a read that names nothing: the caller's backend, or the home backend for a caller
/// without a name.
///
/// # Errors
/// The caller's backend is down and held, or there is none.
pub fn reading(front: &Front, caller: &Caller) -> Result<Target, GatewayError> {
    match caller.reader(front) {
        Some(id) => of_caller(front, caller, &id),
        None => of_nobody(front, caller),
    }
}

/// The backend of a caller's client. A new client is bound now.
///
/// # Errors
/// No backend can serve it, or too many new ones come from its address.
pub fn of_caller(front: &Front, caller: &Caller, id: &ClientId) -> Result<Target, GatewayError> {
    limits::meet(front, caller, id)?;
    of_client(&front.sessions, id)
}

/// The backend of a client. A new client is bound now.
///
/// # Errors
/// No backend can serve it.
pub fn of_client(sessions: &Arc<Sessions>, id: &ClientId) -> Result<Target, GatewayError> {
    let (_, made) = with_client(sessions, id, |client| client.contact(sessions, now()))?;
    Ok(decided(&sessions.shared, made?))
}

/// The target of a decision.
#[must_use]
pub fn decided(shared: &Shared, decision: Decision) -> Target {
    let backend = Arc::clone(&shared.fleet.get(decision.backend));
    Target { backend, reason: decision.reason }
}

/// The target of a read without a name: the backend where an upload of the same address waits for
/// its prompt, or the home backend, or any that is up.
fn of_nobody(front: &Front, caller: &Caller) -> Result<Target, GatewayError> {
    if let Some(backend) = front.browsers.upload_at(&caller.spot(), now()) {
        let backend = Arc::clone(&front.shared.fleet.get(backend));
        return Ok(Target { backend, reason: Reason::Reserved });
    }
    if let Ok(target) = home::target(&front.shared)
        && target.backend.is_up()
    {
        return Ok(target);
    }
    let any = front.shared.fleet.iter().find(|backend| backend.is_up());
    any.map(|backend| Target { backend, reason: Reason::Placed })
        .ok_or(GatewayError::Refused(NoPlace::NoneReady.into()))
}

/// `GET /prompt`: how many prompts are pending, for this caller (S10).
async fn queue_length(front: &Front, caller: &Caller, request: Request<Incoming>) -> Answer {
    if front.shared.config().isolation.status == StatusCounts::Backend {
        return forward(&front.shared, &reading(front, caller)?, request).await;
    }
    let askers = caller.askers(front);
    let own =
        |id: &ClientId| front.sessions.clients.get(id).map_or(0, |client| count_pending(&client));
    let count = if askers.is_empty() && caller.realm == Realm::Everybody {
        front.shared.fleet.iter().map(|backend| u64::from(backend.load.queue_remaining())).sum()
    } else {
        askers.iter().map(own).sum()
    };
    Ok(super::json(messages::queue_length(count)))
}

fn count_pending(client: &Client) -> u64 {
    client.inspect(|core, _| core.pending().len() as u64)
}

/// The backend that the ledger names, refused if it is down. The request never goes to another one
/// (B6).
///
/// # Errors
/// The backend is down.
pub fn of_ledger(backend: &Arc<Backend>) -> Result<Target, GatewayError> {
    if !backend.is_up() {
        return Err(GatewayError::not_asked(backend));
    }
    Ok(Target { backend: Arc::clone(backend), reason: Reason::Ledger })
}
