//! The API server of Kubernetes, as a pod finds it: where it is, whom it trusts, and its own token.
//!
//! Token and certificates are read for every connection, because Kubernetes replaces both while the
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

/// Where Kubernetes puts what a pod needs to speak to it.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long connecting may take, and how long a whole answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The largest answer that is read whole: a page of slices.
const BODY_MAX: usize = 64 << 20;

/// What a pod knows of its cluster.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`; `None` outside of a cluster.
    pub server: Option<(String, u16)>,
    /// The folder with `token`, `ca.crt` and `namespace`.
    pub account: PathBuf,
}

impl Pod {
    /// What the environment says.
    #[must_use]
    pub fn of(env: &[(String, String)]) -> Self {
        let variable = |name: &str| {
            let found = env.iter().find(|(it, _)| it == name);
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let host = variable("KUBERNETES_SERVICE_HOST");
        // The port that the specification of clusters has, should it not be said.
        let port = variable("KUBERNETES_SERVICE_PORT").map_or(Some(443), |it| it.parse().ok());
        Self { server: host.zip(port), account: PathBuf::from(ACCOUNT) }
    }
}

/// Why something was not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("this is no pod of Kubernetes: KUBERNETES_SERVICE_HOST is not set")]
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

/// How to speak to the API server.
#[derive(Clone, Debug)]
pub(super) struct ApiServer {
    pub(super) network: Arc<dyn Network>,
    pub(super) tasks: Tasks,
    pub(super) pod: Arc<Pod>,
}

impl ApiServer {
    /// The namespace of the pod itself.
    pub(super) async fn namespace(&self) -> Result<String, Trouble> {
        let text = self.account("namespace").await?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The whole answer to a question.
    pub(super) async fn whole(&self, path: &str) -> Result<Bytes, Trouble> {
        let answer = async {
            let body = Limited::new(self.open(path).await?, BODY_MAX);
            let whole = body.collect().await;
            whole.map(|it| it.to_bytes()).map_err(|it| Trouble::NoAnswer(it.to_string()))
        };
        timeout(ANSWER_WITHIN, answer).await.unwrap_or_else(|_| Err(too_late()))
    }

    /// An answer that begins well, to be read as it comes.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, Trouble> {
        timeout(ANSWER_WITHIN, self.open(path)).await.unwrap_or_else(|_| Err(too_late()))
    }

    /// Each question has a connection of its own: there is one in a minute.
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
            // Who reads the answer hears of how it ends.
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

    /// A file of the service account. On a thread that may wait for a disk.
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
    Trouble::NoAnswer(format!("nothing came within {} s", ANSWER_WITHIN.as_secs()))
}

fn request(
    host: &str,
    port: u16,
    path: &str,
    token: &[u8],
) -> Result<Request<Empty<Bytes>>, Trouble> {
    let bad = |what: &str| Trouble::NoAnswer(format!("{what} does not fit a request"));
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

/// What an API server says of a request that it refuses: the `message` of a `Status`.
fn message(body: &[u8]) -> String {
    let status: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = status["message"].as_str().unwrap_or_default();
    // Terminals and logs are not to be written to by others.
    let mut shown = String::new();
    for it in message.chars().filter(|it| !it.is_control()).take(300) {
        let _ = shown.write_char(it);
    }
    shown
}
