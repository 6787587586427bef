//! Access to the Kubernetes API server from a pod: its address, its certificate and the pod's
//! token.
//!
//! Token and certificates are read for every connection, because Kubernetes replaces them while the
//! pod runs.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::net::{Network, tls};
use crate::tasks::Tasks;

/// The folder where Kubernetes puts what a pod needs to access the API server.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long connecting may take, and how long a complete answer may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The largest answer that is read completely: a page of slices.
const BODY_MAX: usize = 64 << 20;

/// What a pod knows about its cluster.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`. `None` outside of a cluster.
    pub server: Option<(String, u16)>,
    /// The folder with `token`, `ca.crt` and `namespace`.
    pub account: PathBuf,
}

impl Pod {
    /// Reads the environment.
    #[must_use]
    pub fn of(env: &[(String, String)]) -> Self {
        let variable = |name: &str| {
            let found = env.iter().find(|(it, _)| it == name);
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let host = variable("KUBERNETES_SERVICE_HOST");
        // The usual port of the API server, if the environment does not give it.
        let port = variable("KUBERNETES_SERVICE_PORT").map_or(Some(443), |it| it.parse().ok());
        Self { server: host.zip(port), account: PathBuf::from(ACCOUNT) }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("this is not a Kubernetes pod: KUBERNETES_SERVICE_HOST is not set")]
    NoCluster,
    #[error("{path}: {error}", path = path.display())]
    Account { path: PathBuf, error: io::Error },
    #[error("the API server cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the API server does not answer: {0}")]
    NoAnswer(String),
    #[error("the API server answers {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error(transparent)]
    Junk(#[from] super::slices::Junk),
}

/// How to access the API server.
#[derive(Clone, Debug)]
pub(super) struct ApiServer {
    pub(super) network: Arc<dyn Network>,
    pub(super) tasks: Tasks,
    pub(super) pod: Arc<Pod>,
}

impl ApiServer {
    /// The namespace of this pod.
    pub(super) async fn namespace(&self) -> Result<String, Trouble> {
        let text = self.account("namespace").await?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// Reads the complete answer to a request.
    pub(super) async fn whole(&self, path: &str) -> Result<Bytes, Trouble> {
        let answer = async {
            let body = Limited::new(self.open(path).await?, BODY_MAX);
            let whole = body.collect().await;
            whole.map(|it| it.to_bytes()).map_err(|it| Trouble::NoAnswer(it.to_string()))
        };
        timeout(ANSWER_WITHIN, answer).await.unwrap_or_else(|_| Err(too_late()))
    }

    /// Returns a successful answer as a stream.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, Trouble> {
        timeout(ANSWER_WITHIN, self.open(path)).await.unwrap_or_else(|_| Err(too_late()))
    }

    /// Each request has its own connection: there is about one per minute.
    async fn open(&self, path: &str) -> Result<Incoming, Trouble> {
        let Some((host, port)) = &self.pod.server else { return Err(Trouble::NoCluster) };
        let (roots, token) = (self.account("ca.crt").await?, self.account("token").await?);
        let stream = self.network.connect_within(host, *port, CONNECT_WITHIN).await;
        let stream = stream.map_err(Trouble::Unreachable)?;
        let stream = tls::secured(stream, host, &roots).await.map_err(Trouble::Unreachable)?;
        let no_answer = |error: hyper::Error| Trouble::NoAnswer(error.to_string());
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(no_answer)?;
        self.tasks.spawn(async move {
            // The reader of the answer learns how it ends.
            let _ = connection.await;
        });
        let request = request(host, *port, path, &token)?;
        let response = sender.send_request(request).await.map_err(no_answer)?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        const MESSAGE_MAX: usize = 64 << 10;
        let said = Limited::new(body, MESSAGE_MAX).collect().await;
        let said = said.map(|it| it.to_bytes()).unwrap_or_default();
        Err(Trouble::Refused { status: head.status, message: message(&said) })
    }

    /// Reads a file of the service account, on a thread that may block.
    async fn account(&self, name: &'static str) -> Result<Vec<u8>, Trouble> {
        let path = self.pod.account.join(name);
        let read = tokio::task::spawn_blocking({
            let path = path.clone();
            move || std::fs::read(path)
        });
        let read = read.await.unwrap_or_else(|ended| Err(io::Error::other(ended)));
        read.map_err(|error| Trouble::Account { path, error })
    }
}

fn too_late() -> Trouble {
    Trouble::NoAnswer(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))
}

fn request(
    host: &str,
    port: u16,
    path: &str,
    token: &[u8],
) -> Result<Request<Empty<Bytes>>, Trouble> {
    let bad = |what: &str| Trouble::NoAnswer(format!("{what} cannot be used in a request"));
    let mut bearer = b"Bearer ".to_vec();
    bearer.extend_from_slice(token.trim_ascii());
    let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_| bad("the pod's token"))?;
    bearer.set_sensitive(true);
    let is_v6 = host.contains(':');
    let authority = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let agent = concat!("mooring/", env!("CARGO_PKG_VERSION"));
    Request::get(path)
        .header(HOST, authority)
        .header(AUTHORIZATION, bearer)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, agent)
        .body(Empty::new())
        .map_err(|_| bad("the path"))
}

/// The message of the API server when it refuses a request: the `message` of a `Status`.
fn message(body: &[u8]) -> String {
    let status: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = status["message"].as_str().unwrap_or_default();
    // Foreign text must not send control characters to terminals and logs.
    let mut shown = String::new();
    for it in message.chars().filter(|it| !it.is_control()).take(300) {
        let _ = shown.write_char(it);
    }
    shown
}
