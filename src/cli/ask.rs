//! Sends one HTTP request on a connection of its own, with a deadline.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::config::Secret;
use crate::config::url::{Address, Scheme};
use crate::net::tls::ClientTls;
use crate::net::{Network, Stream};

/// `object_info` of a server with many node packs has tens of MiB.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// From the first try to connect to the last byte of the answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// The address of a server, and its TLS settings.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) address: Address,
    /// `None` is plain HTTP.
    pub(super) tls: Option<ClientTls>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { Scheme::Https } else { Scheme::Http };
        write!(f, "{}://{}", scheme.as_str(), self.address)
    }
}

/// A request to a server.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) to: &'a Server,
    pub(super) method: Method,
    /// Path and query, with escapes.
    pub(super) path: String,
    pub(super) token: Option<&'a Secret>,
    /// Additional headers that the backend needs.
    pub(super) headers: HeaderMap,
    /// A JSON text, or empty.
    pub(super) body: String,
    /// How long the answer may take.
    pub(super) deadline: Duration,
}

impl<'a> Question<'a> {
    pub(super) fn get(to: &'a Server, path: &str) -> Self {
        let body = String::new();
        Self {
            to,
            method: Method::GET,
            path: path.to_owned(),
            token: None,
            headers: HeaderMap::new(),
            body,
            deadline: DEADLINE,
        }
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// True if the answer came from a backend, through the front of a gateway.
    pub(super) is_of_backend: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("the answer is not HTTP, or was cut off: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("the answer was cut off or has more than {max} bytes", max = ANSWER_BYTES_MAX)]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
}

/// Sends one request.
///
/// # Errors
/// There was no complete answer in time. An answer with an error status is not an error here.
pub(super) async fn ask(network: &dyn Network, question: Question<'_>) -> Result<Answer, AskError> {
    let deadline = question.deadline;
    let exchange = Box::pin(exchange(network, question));
    timeout(deadline, exchange).await.unwrap_or(Err(AskError::Deadline(deadline)))
}

/// Sends a request whose answer goes on, and hands over each part of its body. Returns once it has
/// ended. An answer with an error status is collected, and handed over to nobody.
///
/// # Errors
/// No head, or no further part, came within the deadline of the question, or the connection broke.
pub(super) async fn follow(
    network: &dyn Network,
    question: Question<'_>,
    mut part: impl FnMut(Bytes),
) -> Result<Answer, AskError> {
    let deadline = question.deadline;
    let within = |_elapsed| AskError::Deadline(deadline);
    let opening = Box::pin(opened(network, question));
    let (request, mut sender, connection) = timeout(deadline, opening).await.map_err(within)??;
    let answer = Box::pin(async move {
        let response = timeout(deadline, sender.send_request(request)).await.map_err(within)??;
        let status = response.status();
        let is_of_backend = response.headers().contains_key("mooring-backend");
        if !status.is_success() || is_of_backend {
            return collected(response).await;
        }
        let mut body = Limited::new(response.into_body(), usize::MAX);
        while let Some(frame) = timeout(deadline, body.frame()).await.map_err(within)? {
            frame.map_err(AskError::Body)?.into_data().into_iter().for_each(&mut part);
        }
        Ok(Answer { status, body: Bytes::new(), is_of_backend })
    });
    while_connected(answer, connection).await
}

async fn exchange(network: &dyn Network, question: Question<'_>) -> Result<Answer, AskError> {
    let (request, mut sender, connection) = opened(network, question).await?;
    let answer = Box::pin(async move { collected(sender.send_request(request).await?).await });
    while_connected(answer, connection).await
}

type Sender = http1::SendRequest<Full<Bytes>>;
type Connection = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// A connection for this question.
async fn opened(
    network: &dyn Network,
    question: Question<'_>,
) -> Result<(Request<Full<Bytes>>, Sender, Connection), AskError> {
    let Question { to, method, path, token, headers, body, deadline: _ } = question;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, to.address.to_string())
        .header(ACCEPT, "application/json");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let mut request = request.body(Full::new(Bytes::from(body)))?;
    request.headers_mut().extend(headers);

    let Server { address, tls } = to;
    let stream = network.connect(&address.host, address.port).await.map_err(AskError::Connect)?;
    let stream = match tls {
        Some(tls) => Box::pin(tls.connect(stream, &address.host)).await,
        None => Ok(stream),
    };
    let stream = stream.map_err(AskError::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    Ok((request, sender, connection))
}

async fn collected(response: Response<Incoming>) -> Result<Answer, AskError> {
    let status = response.status();
    let is_of_backend = response.headers().contains_key("mooring-backend");
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(AskError::Body)?.to_bytes();
    Ok(Answer { status, body, is_of_backend })
}

/// The connection must be polled until the answer is there. If the connection ends first, the
/// answer has the reason.
async fn while_connected(
    answer: impl Future<Output = Result<Answer, AskError>> + Unpin,
    connection: Connection,
) -> Result<Answer, AskError> {
    match select(answer, Box::pin(connection)).await {
        Either::Left((answer, _connection)) => answer,
        Either::Right((_ended, answer)) => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::{Network, Tcp};
    use crate::tasks::Tasks;

    /// A server that reads one request's head, answers with these bytes, and closes.
    async fn server(answer: &'static str, tasks: &Tasks) -> Server {
        let listener = Tcp.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let port = listener.local_addr().port();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        at(port)
    }

    fn at(port: u16) -> Server {
        Server { address: Address { host: "127.0.0.1".into(), port }, tls: None }
    }

    async fn ask_for(answer: &'static str) -> Result<Answer, AskError> {
        let tasks = Tasks::default();
        let address = server(answer, &tasks).await;
        let answer = ask(&Tcp, Question::get(&address, "/x")).await;
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
        answer
    }

    #[tokio::test]
    async fn an_answer_of_any_status_is_an_answer() {
        let answer = ask_for("HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.body), (503, b"no".as_slice()));
    }

    #[tokio::test]
    async fn rubbish_and_a_cut_answer_are_said_to_be_so() {
        let error = ask_for("SSH-2.0-OpenSSH_9.2\r\n").await.unwrap_err();
        assert!(matches!(error, AskError::Exchange(_)), "{error}");
        let error = ask_for("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nno").await.unwrap_err();
        assert!(matches!(error, AskError::Body(_)), "{error}");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_named_so() {
        let listener = Tcp.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let port = listener.local_addr().port();
        drop(listener);
        let error = ask(&Tcp, Question::get(&at(port), "/")).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot connect: Connection refused"), "{error}");
    }
}
