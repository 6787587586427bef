//! A journal in a store: the store is joined before anything else is begun, and left last.

use std::io;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::info;

use super::listening::bind;
use super::{Parts, Signals};
use crate::body::ResponseBody;
use crate::config::{Config, StoreUrl};
use crate::net::{Listener, Network, own_process};
use crate::server::door::Door;
use crate::server::{
    ConnectionEvent, ConnectionLimits, NoPassthrough, Refusal, Service, Terms, accept,
};
use crate::store::joining::join;
use crate::store::keeping::{Kept, Life, keep};
use crate::store::postgres::Postgres;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// What became of the wish to use a store.
pub(super) enum Opened {
    /// The configuration names none.
    None,
    InStore(Life),
    /// A signal came before the store did.
    Stopped,
}

/// Joins the store of the configuration, and puts the journal in it into `parts`. While it is
/// waited for, the admin listener says that the process is alive and not ready.
///
/// # Errors
/// The store is used by another process, or an operator must change something.
pub(super) async fn open(
    config: &Config,
    network: &Arc<dyn Network>,
    tasks: &Tasks,
    (parts, signals): (&mut Parts, &mut Signals),
) -> io::Result<Opened> {
    let Some(url) = &config.replicas.store else { return Ok(Opened::None) };
    let waiting = Tasks::default();
    if let Some(address) = config.admin.listen {
        let listener = bind(network, address).await?;
        parts.admin = Some(Arc::clone(&listener));
        answer_meanwhile(config, listener, &waiting);
    }
    parts.manager.tell_line("Waiting for the store.");
    let opened = tokio::select! {
        signal = signals.next(super::too_early) => {
            info!(signal, "Stopped before the store was there.");
            return Ok(Opened::Stopped);
        }
        opened = in_store(config, url, network, (parts, tasks.apart())) => opened,
    };
    waiting.stop();
    let (life, kept) = opened.map_err(io::Error::other)?;
    parts.home = Some(Box::new(kept));
    Ok(Opened::InStore(life))
}

async fn in_store(
    config: &Config,
    url: &StoreUrl,
    network: &Arc<dyn Network>,
    (parts, tasks): (&Parts, Tasks),
) -> Result<(Life, Kept), String> {
    let replicas = &config.replicas;
    let name = match &*replicas.name {
        "" => own_process::host_name(),
        name => name.to_owned(),
    };
    let told = |error: StoreError| error.to_string();
    let store =
        Postgres::new(url.clone(), replicas.fleet.clone(), Arc::clone(network), Tasks::default());
    let store: Arc<dyn Store> = Arc::new(store.map_err(told)?);
    let begun = join(&*store, &name, replicas.lease).await.map_err(|error| error.to_string())?;
    info!(store = url.place(), name, "The journal is kept in a store.");
    keep(store, begun, parts.metrics.store.clone(), tasks).await.map_err(told)
}

/// Answers at the admin listener until `tasks` are stopped.
fn answer_meanwhile(config: &Config, listener: Arc<dyn Listener>, tasks: &Tasks) {
    let (door, _mover) = Door::new(Some(listener));
    let terms = Terms {
        limits: ConnectionLimits::of(&config.server),
        tls: config.admin_tls.server().cloned(),
    };
    let accepting = accept("early admin", door, Waiting, move || terms.clone(), tasks.clone());
    tasks.spawn(accepting);
}

/// Answers while the store is waited for: alive, and not ready.
#[derive(Clone, Debug)]
struct Waiting;

impl Service for Waiting {
    type Passthrough = NoPassthrough;

    async fn answer(
        &self,
        _: std::net::IpAddr,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/livez") => answer(StatusCode::OK, "text/plain", "ok\n"),
            (&Method::GET, "/readyz") => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "application/json",
                r#"{"ready":false,"waiting_for":"store"}"#,
            ),
            _other => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "application/json",
                r#"{"error":"the gateway is waiting for its store"}"#,
            ),
        }
    }

    fn refused(&self, _: std::net::IpAddr, refused: Refusal, _: &[u8]) -> Response<ResponseBody> {
        answer(refused.status(), "text/plain", "refused\n")
    }

    fn passthrough(&self, _: std::net::IpAddr, _: ConnectionLimits) -> Option<NoPassthrough> {
        None
    }

    /// Each answer ends its connection: the next request is for the gateway itself.
    fn is_leaving(&self) -> bool {
        true
    }

    fn note(&self, _: ConnectionEvent) {}
}

fn answer(status: StatusCode, kind: &'static str, body: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
