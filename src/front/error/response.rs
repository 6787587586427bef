//! The answer that reports an error.

use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::{ERROR_HEADER, GatewayError};
use crate::body::{ResponseBody, inflate};
use crate::comfy::reply;
use crate::limits::LimitReached;
use crate::server::refusal;

impl GatewayError {
    /// The methods that are allowed, for an error about the method.
    fn allowed(&self) -> &'static str {
        if let Self::BadMethod { allowed } = self { allowed } else { refusal::ALLOWED }
    }

    /// After how many seconds it makes sense to ask again.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        if let Self::TooManyGuesses { seconds } = self {
            return Some(u32::from(*seconds));
        }
        if let Self::QueueFull(full) = self
            && let Some(seconds) = full.retry_after()
        {
            return Some(seconds);
        }
        if let Self::LimitReached(LimitReached { seconds, .. }) = self {
            return Some(*seconds);
        }
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => Some(2),
            StatusCode::TOO_MANY_REQUESTS => Some(5),
            StatusCode::GATEWAY_TIMEOUT => Some(10),
            _ => None,
        }
    }

    /// A JSON body in ComfyUI's own form, which its clients parse on every route.
    #[must_use]
    pub fn response(&self) -> Response<ResponseBody> {
        let body = if let Self::Submission(refusal) = self {
            refusal.body()
        } else {
            reply::error(self.code(), &self.to_string())
        };
        let mut response = Response::new(ResponseBody::whole(body));
        *response.status_mut() = self.status();
        if matches!(self, Self::NotSaved { .. } | Self::NotSavedUnmarked | Self::SavingFull)
            && let Ok(reason) = ReasonPhrase::try_from(self.to_string().into_bytes())
        {
            // ComfyUI's page shows only this if a save fails.
            response.extensions_mut().insert(reason);
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.code()));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // RFC 9110 section 15.5.16.
            headers.insert(ACCEPT_ENCODING, inflate::TAKEN);
        }
        if self.status() == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110 section 15.5.6.
            headers.insert(ALLOW, HeaderValue::from_static(self.allowed()));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455 section 4.4.
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}
