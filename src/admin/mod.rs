//! The admin listener: health, metrics, the API and the dashboard.

pub(crate) mod api;
mod audited;
mod backends;
mod dashboard;
mod explain_graph;
mod gate;
mod prompts;
mod queue;
mod reload;
mod scaling;
mod sender;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tower::Service as _;

use crate::audit::Entry;
use crate::body::ResponseBody;
use crate::front::Front;
use crate::front::operators::Operators;
use crate::reload::Reloads;
use crate::server::{ConnectionEvent, ConnectionLimits, NoPassthrough, Refusal, Service};
use crate::session::Sessions;
use dashboard::Lives;
use gate::{By, Told};
use sender::Sender;

/// Answers operators.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    sessions: Arc<Sessions>,
    router: Router,
    lives: Lives,
    operators: Operators,
}

impl Admin {
    #[must_use]
    pub(crate) fn new(front: &Arc<Front>, reloads: Reloads) -> Self {
        let (sessions, operators) = (Arc::clone(&front.sessions), Operators::of(front));
        let router = api::router(Arc::clone(&sessions))
            .merge(backends::router(Arc::clone(&sessions)))
            .merge(explain_graph::router(Arc::clone(front)))
            .merge(prompts::router(Arc::clone(&sessions)))
            .merge(queue::router(Arc::clone(&sessions)))
            .merge(scaling::router(Arc::clone(&sessions)))
            .merge(reload::router(reloads));
        let lives = Lives::of(&sessions, &operators);
        Self { sessions, router, lives, operators }
    }
}

impl Service for Admin {
    type Passthrough = NoPassthrough;

    async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<ResponseBody> {
        let mut response = self.answer_to(peer, request).await;
        gate::mark(&mut response);
        response
    }

    fn refused(&self, _: IpAddr, refused: Refusal, _: &[u8]) -> Response<ResponseBody> {
        refusal(refused.status(), &refused.to_string())
    }

    fn passthrough(&self, _: IpAddr, _: ConnectionLimits) -> Option<NoPassthrough> {
        None
    }

    fn is_leaving(&self) -> bool {
        // A client that watches the drain keeps its connection.
        false
    }

    fn note(&self, event: ConnectionEvent) {
        match event {
            // There are few operators. Only the connections of the front are counted.
            ConnectionEvent::Open(_) | ConnectionEvent::Refused => {}
            ConnectionEvent::Panicked => {
                self.sessions.shared.metrics.panics.inc();
            }
        }
    }
}

impl Admin {
    async fn answer_to(
        &self,
        peer: IpAddr,
        mut request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let admitted = match gate::admit(&self.sessions, &self.operators, &request).await {
            Ok(admitted) => admitted,
            Err(refused) => {
                let (user, answer) = (refused.user, refused.answer);
                let status = answer.status();
                self.sessions.shared.audit.note_refusal(|| {
                    let who = Sender { address: peer, user }.who();
                    Entry::refused(who, "listener.refused", Value::Null, &status.to_string())
                });
                return answer;
            }
        };
        if let Some(answer) = dashboard::answer(&self.lives, &admitted, &request) {
            return answer;
        }
        let user = match &admitted.by {
            By::Operator(pass) => Some(Arc::clone(&pass.user)),
            By::Token | By::Nothing => None,
        };
        let told = Told::of(&self.sessions, &admitted.by, &request);
        request.extensions_mut().insert(admitted.may);
        request.extensions_mut().insert(Sender { address: peer, user });
        request.extensions_mut().insert(told);
        let mut router = self.router.clone();
        let Ok(response) = router.call(request.map(Body::new)).await;
        collected(response).await
    }
}

/// Answers are small here, so each is collected before it is sent.
async fn collected(response: Response<Body>) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let is_json = parts.headers.get(CONTENT_TYPE).is_some_and(|it| it == "application/json");
    if !parts.status.is_client_error() || is_json {
        return Response::from_parts(parts, ResponseBody::whole(bytes));
    }
    // Gives the errors of the router and its extractors the form of every other error.
    let message = match String::from_utf8_lossy(&bytes) {
        none if none.is_empty() => parts.status.canonical_reason().unwrap_or_default().into(),
        message => message,
    };
    let mut answer = refusal(parts.status, &message);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    answer.headers_mut().extend(parts.headers);
    answer
}

fn refusal(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let body = serde_json::json!({ "error": message }).to_string();
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
