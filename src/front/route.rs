//! Where a request goes, by what it asks and by who asks (promises B6, R1, R2, R8, R9).
//!
//! *Where* is the backend of the prompt or of the file that is named, else of the client's binding,
//! else the home backend. A prompt id or a file never says who asks.

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;

use super::forward::{Target, forward};
use super::identify::{Marks, Who};
use super::upload::{self, upload};
use super::{
    Answer, assets, bundle, cancel, done, headers, history, home, jobs, lists, nodes, own, page,
    session, standin, submit, tunnel, upgrade, verbs, view,
};
use crate::client::Client;
use crate::client::registry::with_client;
use crate::comfy::endpoint::{Endpoint, classify};
use crate::comfy::guard;
use crate::comfy::say;
use crate::config::StatusCounts;
use crate::error::GatewayError;
use crate::fleet::backend::Backend;
use crate::gateway::Gateway;
use crate::net::now;
use crate::routing::decision::{Decision, Reason};
use crate::routing::ids::ClientId;
use crate::routing::place::NoPlace;
use crate::ws;

/// Answers a request that was let in.
///
/// # Errors
/// Whatever keeps it from being answered; see [`GatewayError`].
pub async fn route(gateway: &Arc<Gateway>, peer: IpAddr, mut request: Request<Incoming>) -> Answer {
    let endpoint = classify(request.method(), request.uri().path());
    // What needs a socket or a link comes too late; the rest is among what is finished.
    if matches!(endpoint, Endpoint::Socket | Endpoint::Submit) && gateway.tasks.is_stopping() {
        return Err(GatewayError::Stopping);
    }
    let asks_for_socket = ws::is_asked(&request);
    let mut who = Who::of(gateway, peer, &Marks::of(&request))?;
    who.seen = request.extensions_mut().remove();
    if !gateway.config.server.trusts(peer) {
        headers::forget_claims(request.headers_mut());
    }
    match endpoint {
        Endpoint::Own(path) => own::answer(gateway, &who, &path, &request).await,
        Endpoint::Socket => upgrade::upgrade(gateway, &who, request),
        Endpoint::Submit => submit::submit(gateway, &who, request).await,
        Endpoint::Upload => upload(gateway, &who, upload::What::Image, request).await,
        Endpoint::UploadMask => upload(gateway, &who, upload::What::Mask, request).await,
        Endpoint::HistoryOf(prompt) => history::history_of(gateway, &who, &prompt, request).await,
        Endpoint::Queue => lists::queue(gateway, &who).await,
        Endpoint::HistoryList => lists::history(gateway, &who, query_of(&request)).await,
        Endpoint::JobList => jobs::list(gateway, &who, query_of(&request)).await,
        Endpoint::Job(prompt) => jobs::job(gateway, &who, &prompt).await,
        Endpoint::Interrupt => verbs::interrupt(gateway, &who, request).await,
        Endpoint::EditQueue => verbs::edit_queue(gateway, &who, request).await,
        Endpoint::EditHistory => verbs::edit_history(gateway, &who, request).await,
        Endpoint::CancelJob(prompt) => cancel::cancel_job(gateway, &who, &prompt).await,
        Endpoint::CancelJobs => cancel::cancel_jobs(gateway, &who, request).await,
        Endpoint::SubscribeLogs | Endpoint::ServerLog if !gateway.config.server.allow_logs => {
            Err(GatewayError::LogsClosed)
        }
        Endpoint::SubscribeLogs => verbs::subscribe_logs(gateway, &who, request).await,
        Endpoint::Features => Ok(super::json(gateway.fleet.features().1.to_string())),
        Endpoint::QueueLength => queue_length(gateway, &who, request).await,
        Endpoint::Page => page::page(gateway, &who, request).await,
        Endpoint::Asset => bundle::asset(gateway, request).await,
        Endpoint::UserData => home::user_data(gateway, request).await,
        Endpoint::Guarded if !gateway.config.server.allow_manager => {
            Err(GatewayError::OperatorsOnly)
        }
        Endpoint::Guarded | Endpoint::ManagerList if guard::breaks_lines(query_of(&request)) => {
            Err(GatewayError::OperatorsOnly)
        }
        Endpoint::NodeInfo => nodes::all(gateway, &who, request).await,
        Endpoint::NodeInfoOf => nodes::one(gateway, &who, request).await,
        Endpoint::FileList(folder) => nodes::files(gateway, &who, folder, request).await,
        Endpoint::ModelList => nodes::models(gateway, &who, request).await,
        Endpoint::Subgraph => nodes::subgraph(gateway, &who, request).await,
        Endpoint::View => view::view(gateway, &who, request).await,
        Endpoint::Assets(asked) => assets::answer(gateway, &who, asked, request).await,
        // An operator's verb: it takes the models from under everybody's work.
        Endpoint::Free if !gateway.config.server.allow_free => Ok(done()),
        // Any other route: what ComfyUI itself answers is no socket, and its `Upgrade` is dropped.
        Endpoint::Guarded | Endpoint::Other if asks_for_socket => {
            socket_of_a_pack(gateway, &who, request).await
        }
        Endpoint::Free | Endpoint::Guarded | Endpoint::ManagerList | Endpoint::ServerLog => {
            forward(gateway, &reading(gateway, &who)?, request).await
        }
        Endpoint::Other => match view::named_by(gateway, &who, &request) {
            Some(at) => view::pass(gateway, at, request).await,
            None if session::brings_a_body(&request) => {
                session::bring(gateway, &who, request).await
            }
            None => standin::read(gateway, &who, None, request).await,
        },
        Endpoint::Start(read) => standin::read(gateway, &who, Some(read), request).await,
    }
}

/// A socket that is not ComfyUI's own.
async fn socket_of_a_pack(gateway: &Arc<Gateway>, who: &Who, request: Request<Incoming>) -> Answer {
    if gateway.tasks.is_stopping() {
        return Err(GatewayError::Stopping);
    }
    tunnel::tunnel(gateway, who, &reading(gateway, who)?, request).await
}

fn query_of(request: &Request<Incoming>) -> &str {
    request.uri().query().unwrap_or("")
}

/// Where a read goes that names nothing: to the reader's backend, and to the home backend if
/// nobody in particular reads.
///
/// # Errors
/// The reader's backend is down and held, or there is none.
pub fn reading(gateway: &Gateway, who: &Who) -> Result<Target, GatewayError> {
    match who.reader(gateway) {
        Some(id) => of_client(gateway, &id),
        None => of_nobody(gateway, who),
    }
}

/// The backend that a client is bound to, bound now if it is new.
///
/// # Errors
/// No backend serves it.
pub fn of_client(gateway: &Gateway, id: &ClientId) -> Result<Target, GatewayError> {
    let (_, made) = with_client(gateway, id, |client| client.contact(gateway))?;
    Ok(decided(gateway, made?))
}

/// The target of a decision.
#[must_use]
pub fn decided(gateway: &Gateway, decision: Decision) -> Target {
    let backend = Arc::clone(gateway.fleet.get(decision.backend));
    Target { backend, reason: decision.reason }
}

/// A nameless read: where an upload of the same address waits for its prompt, else the home
/// backend, else any that is up.
fn of_nobody(gateway: &Gateway, who: &Who) -> Result<Target, GatewayError> {
    if let Some(backend) = gateway.browsers.upload_at(who.address, now()) {
        let backend = Arc::clone(gateway.fleet.get(backend));
        return Ok(Target { backend, reason: Reason::Reserved });
    }
    let target = home::target(gateway);
    if target.backend.is_up() {
        return Ok(target);
    }
    let any = gateway.fleet.iter().find(|backend| backend.is_up());
    any.map(|backend| Target { backend: Arc::clone(backend), reason: Reason::Placed })
        .ok_or(GatewayError::Refused(NoPlace::NoneReady.into()))
}

/// `GET /prompt`: how much is pending, as the asker sees it (S10).
async fn queue_length(gateway: &Gateway, who: &Who, request: Request<Incoming>) -> Answer {
    if gateway.config.isolation.status == StatusCounts::Backend {
        return forward(gateway, &reading(gateway, who)?, request).await;
    }
    let askers = who.askers(gateway);
    let own = |id: &ClientId| gateway.clients.get(id).map_or(0, |client| count_pending(&client));
    let count = if askers.is_empty() {
        gateway.fleet.iter().map(|backend| u64::from(backend.load.queue_remaining())).sum()
    } else {
        askers.iter().map(own).sum()
    };
    Ok(super::json(say::queue_length(count)))
}

fn count_pending(client: &Client) -> u64 {
    client.inspect(|core, _| core.pending().len() as u64)
}

/// The backend that a decision named, refused if it is down: never another (B6).
///
/// # Errors
/// It is down.
pub fn of_ledger(backend: &Arc<Backend>) -> Result<Target, GatewayError> {
    if !backend.is_up() {
        return Err(GatewayError::not_asked(backend));
    }
    Ok(Target { backend: Arc::clone(backend), reason: Reason::Ledger })
}
