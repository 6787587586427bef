//! The gateway's own requests to ComfyUI: small, and bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};

use super::backend::Backend;
use super::pool::ExchangeError;
use crate::body::{CollectError, CollectLimits, OnEnd as _, RequestBody, collect};
use crate::comfy::answers::{self, Ended, JobState, Junk, Sighting};
use crate::comfy::{commands, files, query};
use crate::routing::ids::{FileRef, PromptId};

/// The largest answer that is read into memory: a queue of a thousand graphs of 64 KiB.
pub const ANSWER_MAX: u64 = 64 << 20;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the answer broke off: {0}")]
    Body(#[from] CollectError),
    #[error("answered {0}")]
    Status(u16),
    #[error("the answer is not ComfyUI's: {0}")]
    Junk(#[from] Junk),
}

impl ApiError {
    /// True only if the backend cannot have received any part of the request.
    #[must_use]
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Exchange(error) => error.never_sent(),
            Self::Body(_) | Self::Status(_) | Self::Junk(_) => false,
        }
    }

    /// True if the backend answered, but not in the expected form: another request may succeed.
    #[must_use]
    pub fn is_about_this_question(&self) -> bool {
        match self {
            Self::Body(_) | Self::Status(_) | Self::Junk(_) => true,
            Self::Exchange(_) => false,
        }
    }
}

/// The first successful result. The others are then dropped: a silent backend must not delay the
/// answer of another.
pub async fn first_found<T>(
    asked: impl IntoIterator<Item = impl Future<Output = Option<T>>>,
) -> Option<T> {
    let mut asked: FuturesUnordered<_> = asked.into_iter().collect();
    while let Some(answered) = asked.next().await {
        if answered.is_some() {
            return answered;
        }
    }
    None
}

impl Backend {
    /// A request of the gateway to this backend, with the headers that every request to it has.
    ///
    /// # Errors
    /// `path` is not a path with an optional query.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Junk> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| Junk::Malformed)?;
        request.headers_mut().insert(HOST, self.host_header.clone());
        self.headers().put_into(request.headers_mut());
        Ok(request)
    }

    /// `GET path`: status and body, within `limit`.
    ///
    /// # Errors
    /// No complete answer came in time.
    pub async fn get(&self, path: &str, limit: Duration) -> Result<(u16, Bytes), ApiError> {
        self.ask(Method::GET, path, RequestBody::Empty, limit).await
    }

    /// `POST path` with a JSON body: status and body, within `limit`.
    ///
    /// # Errors
    /// No complete answer came in time; the backend may still have acted.
    pub async fn post(
        &self,
        path: &str,
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<(u16, Bytes), ApiError> {
        self.ask(Method::POST, path, RequestBody::whole(body), limit).await
    }

    /// `PATCH path` with a JSON body: status and body, within `limit`.
    ///
    /// # Errors
    /// No complete answer came in time; the backend may still have acted.
    pub async fn patch(
        &self,
        path: &str,
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<(u16, Bytes), ApiError> {
        self.ask(Method::PATCH, path, RequestBody::whole(body), limit).await
    }

    /// Makes a small request on a new connection, which is then closed.
    ///
    /// # Errors
    /// The backend does not accept a connection, or does not answer on it.
    pub async fn answers_anew(&self, limit: Duration) -> Result<(), ApiError> {
        let request = self.request(Method::GET, "/prompt", RequestBody::Empty)?;
        let (response, _lease) = self.pool.send_anew(request, limit).await?;
        let limits = CollectLimits { max: ANSWER_MAX, idle: limit };
        collect(response.into_body(), limits, None).await?;
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
        limit: Duration,
    ) -> Result<(u16, Bytes), ApiError> {
        let mut request = self.request(method, path, body)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (response, lease) = self.pool.send(request, limit).await?;
        let status = response.status().as_u16();
        let body =
            collect(response.into_body(), CollectLimits { max: ANSWER_MAX, idle: limit }, None)
                .await?;
        Box::new(lease).finished();
        Ok((status, body))
    }

    /// Looks for a prompt: in the queue before the history, because a prompt moves from the one to
    /// the other.
    ///
    /// # Errors
    /// The backend did not answer; nothing is known then.
    pub async fn look_for(&self, prompt: &PromptId, limit: Duration) -> Result<Sighting, ApiError> {
        let queue = self.get_ok("/queue", limit).await?;
        self.look_in(&queue, prompt, limit).await
    }

    /// The same, with a queue that was just read, so that many prompts share one reading.
    ///
    /// # Errors
    /// The backend did not answer; nothing is known then.
    pub async fn look_in(
        &self,
        queue: &[u8],
        prompt: &PromptId,
        limit: Duration,
    ) -> Result<Sighting, ApiError> {
        if let Some(sighting) = answers::in_queue(queue, prompt.as_str())? {
            return Ok(sighting);
        }
        let ended = self.history_of(prompt, limit).await?;
        Ok(ended.map_or(Sighting::Absent, Sighting::Ended))
    }

    /// The same for one prompt, as cheaply as the server allows. Since 0.6.0 that is one small
    /// request, in which the server itself reads the queue before the history. The history is read
    /// only for a prompt that has ended.
    ///
    /// # Errors
    /// The backend did not answer; nothing is known then.
    pub async fn look_for_one(
        &self,
        prompt: &PromptId,
        limit: Duration,
    ) -> Result<Sighting, ApiError> {
        if !self.version().is_some_and(|version| version.has_jobs()) {
            return self.look_for(prompt, limit).await;
        }
        let path = format!("/api/jobs/{}", encode_segment(prompt.as_str()));
        let (status, body) = self.get(&path, limit).await?;
        match answers::job_state(status, &body) {
            Some(JobState::Pending) => Ok(Sighting::Queued { number: None }),
            Some(JobState::Running) => Ok(Sighting::Running { number: None }),
            Some(JobState::Absent) => Ok(Sighting::Absent),
            Some(JobState::Ended) => {
                let ended = self.history_of(prompt, limit).await?;
                Ok(ended.map_or(Sighting::Absent, Sighting::Ended))
            }
            // A fork without the route, or an entry that makes it fail: uses queue and history.
            None => self.look_for(prompt, limit).await,
        }
    }

    /// The history entry of a prompt, if there is one.
    ///
    /// # Errors
    /// The backend did not answer; nothing is known then.
    pub async fn history_of(
        &self,
        prompt: &PromptId,
        limit: Duration,
    ) -> Result<Option<Ended>, ApiError> {
        let path = format!("/history/{}", encode_segment(prompt.as_str()));
        let history = self.get_ok(&path, limit).await?;
        Ok(answers::in_history(&history, prompt.as_str())?)
    }

    /// True if the backend has a file. The content is not transferred.
    ///
    /// # Errors
    /// The backend did not answer; nothing is known then.
    pub async fn has_file(&self, file: &FileRef, limit: Duration) -> Result<bool, ApiError> {
        let path = format!("/view?{}", files::view_query(file));
        let (status, _) = self.ask(Method::HEAD, &path, RequestBody::Empty, limit).await?;
        Ok(status == 200)
    }

    /// The size of a file in bytes, if the file exists and the backend gives it. The content is not
    /// transferred.
    ///
    /// # Errors
    /// The backend did not answer; nothing is known then.
    pub async fn size_of(&self, file: &FileRef, limit: Duration) -> Result<Option<u64>, ApiError> {
        let path = format!("/view?{}", files::view_query(file));
        let request = self.request(Method::HEAD, &path, RequestBody::Empty)?;
        let (response, lease) = self.pool.send(request, limit).await?;
        let is_there = response.status().as_u16() == 200;
        let length = response.headers().get(CONTENT_LENGTH);
        let size = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let limits = CollectLimits { max: ANSWER_MAX, idle: limit };
        collect(response.into_body(), limits, None).await?;
        Box::new(lease).finished();
        Ok(size.filter(|_| is_there))
    }

    /// Deletes those of the prompts that wait in the queue. The backend answers 200 in any case.
    ///
    /// # Errors
    /// The backend did not answer; it may still have acted.
    pub async fn delete(&self, prompts: &[PromptId], limit: Duration) -> Result<(), ApiError> {
        let ids: Vec<&str> = prompts.iter().map(PromptId::as_str).collect();
        self.post("/queue", commands::delete(&ids), limit).await.map(|_| ())
    }

    /// `GET path`, which must be answered with 200.
    ///
    /// # Errors
    /// No complete answer with status 200 came in time.
    pub async fn get_ok(&self, path: &str, limit: Duration) -> Result<Bytes, ApiError> {
        match self.get(path, limit).await? {
            (200, body) => Ok(body),
            (status, _) => Err(ApiError::Status(status)),
        }
    }
}

/// Percent-encodes one path segment, or the value of a query parameter. Unreserved characters stay
/// unchanged (RFC 3986 section 2.3), so that a server which compares without decoding finds an
/// equal text. Segments that consist only of dots have a special meaning and are encoded too
/// (section 5.2.4).
#[must_use]
pub fn encode_segment(text: &str) -> String {
    match text {
        "." | ".." => text.replace('.', "%2E"),
        _ => query::encode(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreserved_characters_are_never_escaped() {
        assert_eq!(encode_segment("my_tab-1.2~x"), "my_tab-1.2~x");
        assert_eq!(encode_segment("a b/c?d&\u{e9}"), "a%20b%2Fc%3Fd%26%C3%A9");
        assert_eq!((&*encode_segment("."), &*encode_segment("..")), ("%2E", "%2E%2E"));
        assert_eq!(encode_segment("..."), "...");
    }
}
