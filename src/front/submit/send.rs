//! Sends a submission to its backend, once, and reads the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use tracing::debug;

use super::{Sending, Sent};
use crate::body::guarded::Guarded;
use crate::body::{CollectLimits, OnEnd as _, RequestBody, collect};
use crate::config::OnJournalError;
use crate::front::comfy_user;
use crate::front::error::GatewayError;
use crate::front::forward::to_backend;
use crate::journal::lease::Unrenewed;

/// The largest answer to a submission: `node_errors` of a large graph.
const ANSWER_MAX: u64 = 64 << 20;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Sending {
    /// Sends it, for its user if the backend tells users apart.
    pub(super) async fn send(&self, mut parts: Parts, body: Bytes) -> Sent {
        let body = match self.guarded(body) {
            Ok(body) => body,
            Err(error) => return Sent::Never(error),
        };
        self.front.shared.metrics.submissions.inc();
        // ComfyUI decodes the body with this charset. The checked body is UTF-8.
        parts.headers.insert(CONTENT_TYPE, JSON);
        // The answer must be readable, so the server must not compress it.
        parts.headers.remove(ACCEPT_ENCODING);
        let mut request = to_backend(&self.target, parts, body);
        if let Err(error) = comfy_user::tell(&self.front.shared, self.backend(), &mut request).await
        {
            return Sent::Never(error);
        }
        let limit = self.front.shared.config().server.answer_timeout;
        let (response, lease) = match self.backend().pool.send(request, limit).await {
            Ok(answered) => answered,
            Err(error) if error.never_sent() => {
                return Sent::Never(GatewayError::exchange(&self.backend().name(), error));
            }
            Err(error) => {
                debug!(prompt = %self.prompt, %error, "A submission got no answer.");
                return Sent::Unclear;
            }
        };
        let (parts, body) = response.into_parts();
        let limits =
            CollectLimits { max: ANSWER_MAX, idle: self.front.shared.config().server.body_timeout };
        match collect(body, limits, None).await {
            Ok(body) => {
                Box::new(lease).finished();
                Sent::Answered(parts, body)
            }
            Err(_cut) => Sent::Unclear,
        }
    }

    /// The body of a gateway whose journal other processes can take over: it is not sent when the
    /// right to act is lost, which may happen while this process is stopped.
    fn guarded(&self, body: Bytes) -> Result<RequestBody, GatewayError> {
        let Some(lease) = self.front.shared.records.journal.lease() else {
            return Ok(RequestBody::whole(body));
        };
        let unrenewed = match self.front.shared.config().on_journal_error() {
            OnJournalError::Serve => Unrenewed::MayAct,
            OnJournalError::Refuse => Unrenewed::MustNotAct,
        };
        if !lease.may_act(unrenewed) {
            return Err(GatewayError::JournalFailed);
        }
        let lease = Arc::clone(lease);
        let guarded = Guarded::new(body, move || lease.may_act(unrenewed));
        Ok(RequestBody::Guarded(Box::new(guarded)))
    }
}
