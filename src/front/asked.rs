//! What does a read want of an answer that we hold whole? Conditions, and no body for HEAD
//! (RFC 9110 section 13).
//!
//! A range is answered with the whole, as a server may (section 14.2); so what is held whole says
//! nothing of ranges.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::body::ResponseBody;

/// An answer with status 200, whole.
#[derive(Clone, Debug)]
pub struct Whole {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a GET or HEAD wants.
#[derive(Clone, Debug)]
pub struct Asked {
    is_head: bool,
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<HeaderValue>,
    accept_encoding: String,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Give,
    /// The asker has it already.
    Known,
    /// The asker wants another one, or none.
    Failed,
}

impl Asked {
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            is_head: *request.method() == Method::HEAD,
            if_match: joined(headers, &IF_MATCH),
            if_none_match: joined(headers, &IF_NONE_MATCH),
            if_modified_since: headers.get(IF_MODIFIED_SINCE).cloned(),
            accept_encoding: joined(headers, &ACCEPT_ENCODING).unwrap_or_default(),
        }
    }

    /// True if the asker can read what is encoded so.
    #[must_use]
    pub fn can_read(&self, headers: &HeaderMap) -> bool {
        let Some(encoding) = headers.get(CONTENT_ENCODING) else { return true };
        let accepted = self.accept_encoding.split(',').any(|accepted| {
            let (name, weight) = accepted.split_once(';').unwrap_or((accepted, ""));
            let is_refused = matches!(weight.replace(' ', "").as_str(), "q=0" | "q=0.0");
            !is_refused && encoding.as_bytes().eq_ignore_ascii_case(name.trim().as_bytes())
        });
        accepted || encoding == "identity"
    }

    /// The answer to it.
    #[must_use]
    pub fn answer(&self, whole: &Whole) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.headers_mut() = whole.headers.clone();
        let headers = response.headers_mut();
        headers.remove(ACCEPT_RANGES);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.body.len()));
        match self.verdict(&whole.headers) {
            Verdict::Give if self.is_head => {}
            Verdict::Give => *response.body_mut() = ResponseBody::whole(whole.body.clone()),
            Verdict::Known => bare(&mut response, StatusCode::NOT_MODIFIED),
            Verdict::Failed => bare(&mut response, StatusCode::PRECONDITION_FAILED),
        }
        response
    }

    /// In the order of section 13.2.2.
    fn verdict(&self, held: &HeaderMap) -> Verdict {
        let tag = held.get(ETAG).and_then(|tag| tag.to_str().ok());
        if let Some(wanted) = &self.if_match
            && !tag.is_some_and(|tag| !tag.starts_with("W/") && has_tag(wanted, tag))
        {
            return Verdict::Failed;
        }
        let is_known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(known), _) => tag.is_some_and(|tag| has_tag(known, tag)),
            // The very date that we gave; clocks are not compared.
            (None, Some(since)) => held.get(LAST_MODIFIED) == Some(since),
            (None, None) => false,
        };
        if is_known { Verdict::Known } else { Verdict::Give }
    }
}

fn bare(response: &mut Response<ResponseBody>, status: StatusCode) {
    *response.status_mut() = status;
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
        response.headers_mut().remove(name);
    }
}

/// The values of a header that may come in several lines; what is no text is not compared.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    Some(values.join(", "))
}

/// True if a list of entity tags has `tag`, weak or strong (section 8.8.3.2), or is `*`.
fn has_tag(list: &str, tag: &str) -> bool {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    if list.trim() == "*" {
        return true;
    }
    // A tag may have commas inside its quotes, and no quotes.
    let is_quoted = 2 <= opaque.len() && opaque.starts_with('"') && opaque.ends_with('"');
    is_quoted && list.split('"').skip(1).step_by(2).any(|it| it == &opaque[1..opaque.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Whole {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static("\"a,b\""));
        headers.insert(LAST_MODIFIED, HeaderValue::from_static("then"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        Whole { headers, body: Bytes::from_static(b"1234") }
    }

    #[track_caller]
    fn check(header: &str, value: &str, expected: u16) {
        let request = Request::get("/").header(header, value).body(()).unwrap();
        let response = Asked::of(&request).answer(&whole());
        assert_eq!(response.status(), expected, "{header}: {value}");
        let length = (expected == 200).then(|| HeaderValue::from_static("4"));
        assert_eq!(response.headers().get(CONTENT_LENGTH), length.as_ref());
        assert!(!response.headers().contains_key(ACCEPT_RANGES));
    }

    #[test]
    fn conditions_are_those_of_rfc_9110() {
        check("x-none", "1", 200);
        check("if-none-match", "\"a,b\"", 304);
        check("if-none-match", "W/\"x\", W/\"a,b\"", 304);
        check("if-none-match", "*", 304);
        check("if-none-match", "\"a\"", 200);
        check("if-none-match", "a,b", 200);
        check("if-match", "\"a,b\"", 200);
        check("if-match", "\"z\"", 412);
        check("if-modified-since", "then", 304);
        check("if-modified-since", "later", 200);
        check("range", "bytes=1-2", 200);
    }

    #[test]
    fn a_tag_goes_over_a_date() {
        let request = Request::get("/")
            .header(IF_NONE_MATCH, "\"old\"")
            .header(IF_MODIFIED_SINCE, "then")
            .body(())
            .unwrap();
        assert_eq!(Asked::of(&request).answer(&whole()).status(), 200);
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        use http_body::Body as _;
        let request = Request::head("/").body(()).unwrap();
        let response = Asked::of(&request).answer(&whole());
        assert_eq!(response.headers()[CONTENT_LENGTH], "4");
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn an_encoding_is_given_to_those_who_read_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let can = |accepted: &str| {
            let request = Request::get("/").header(ACCEPT_ENCODING, accepted).body(()).unwrap();
            Asked::of(&request).can_read(&headers)
        };
        assert!(can("deflate, GZIP;q=0.5"));
        assert!(!can("deflate"));
        assert!(!can("gzip;q=0, br"));
    }
}
