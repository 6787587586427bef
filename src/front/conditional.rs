//! Conditions, ranges and HEAD (RFC 9110 sections 13 and 14) for answers that we hold completely.
//!
//! A request for a range may be answered with everything (section 14.2); then no support for ranges
//! is announced. For files that are held unchanged, the requested part is sent.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::accept_encoding::{AcceptEncoding, Choice, Worth};
use crate::body::ResponseBody;

/// A complete answer with status 200.
#[derive(Clone, Debug)]
pub struct Whole {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a GET or HEAD asks for.
#[derive(Clone, Debug)]
pub struct Conditional {
    is_head: bool,
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<HeaderValue>,
    accepted: AcceptEncoding,
    range: Option<String>,
    if_range: Option<String>,
}

/// A range of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// The range is not supported, or there are several.
    Whole,
    /// From the first to the last byte, both included.
    Of(usize, usize),
    /// The range is beyond the end.
    Beyond,
}

/// The result of the conditions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Give,
    /// The caller already has this answer.
    Known,
    /// The caller wants another version, or none.
    Failed,
}

impl Conditional {
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            is_head: *request.method() == Method::HEAD,
            if_match: joined(headers, &IF_MATCH),
            if_none_match: joined(headers, &IF_NONE_MATCH),
            if_modified_since: headers.get(IF_MODIFIED_SINCE).cloned(),
            accepted: AcceptEncoding::of(headers),
            range: joined(headers, &RANGE),
            if_range: joined(headers, &IF_RANGE),
        }
    }

    /// The form in which the caller gets data that is held uncompressed. A range refers to this
    /// form, so a caller that asks for one gets it uncompressed, unless it refuses that.
    #[must_use]
    pub fn form(&self, worth: Worth) -> Choice {
        let worth = if self.range.is_some() { Worth::Nothing } else { worth };
        self.accepted.choose(worth)
    }

    /// True if the caller accepts this coding.
    #[must_use]
    pub fn can_read(&self, headers: &HeaderMap) -> bool {
        let Some(encoding) = headers.get(CONTENT_ENCODING) else { return true };
        encoding == "identity"
            || encoding.to_str().is_ok_and(|coding| self.accepted.accepts(coding))
    }

    /// The answer. It may be a part.
    #[must_use]
    pub fn answer_part(&self, whole: &Whole) -> Response<ResponseBody> {
        let mut response = self.answer(whole);
        let length = whole.body.len();
        let is_given = response.status() == StatusCode::OK;
        if is_given {
            response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        // Ranges apply to GET only (section 14.2).
        let range = self.range.as_deref().filter(|_| is_given && !self.is_head);
        let part = match range.filter(|_| self.has_part_of(&whole.headers)) {
            Some(range) => part(range, length),
            None => Part::Whole,
        };
        let (status, range, body) = match part {
            Part::Whole => return response,
            Part::Of(first, last) => (
                StatusCode::PARTIAL_CONTENT,
                format!("bytes {first}-{last}/{length}"),
                whole.body.slice(first..=last),
            ),
            Part::Beyond => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                (status, format!("bytes */{length}"), Bytes::new())
            }
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Ok(range) = HeaderValue::try_from(range) {
            headers.insert(CONTENT_RANGE, range);
        }
        *response.body_mut() = ResponseBody::whole(body);
        response
    }

    /// False if the other parts that the caller has are of another version (section 13.1.5).
    fn has_part_of(&self, held: &HeaderMap) -> bool {
        let Some(wanted) = self.if_range.as_deref() else { return true };
        let is = |name| held.get(name).is_some_and(|held: &HeaderValue| held == wanted);
        !wanted.starts_with("W/") && (is(ETAG) || is(LAST_MODIFIED))
    }

    /// The answer to the request.
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

    /// Checks the conditions in the order of section 13.2.2.
    fn verdict(&self, held: &HeaderMap) -> Verdict {
        let tag = held.get(ETAG).and_then(|tag| tag.to_str().ok());
        if let Some(wanted) = &self.if_match
            && !tag.is_some_and(|tag| !tag.starts_with("W/") && has_tag(wanted, tag))
        {
            return Verdict::Failed;
        }
        let is_known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(known), _) => tag.is_some_and(|tag| has_tag(known, tag)),
            // Only exactly our own date counts. Dates are not compared by order.
            (None, Some(since)) => held.get(LAST_MODIFIED) == Some(since),
            (None, None) => false,
        };
        if is_known { Verdict::Known } else { Verdict::Give }
    }
}

/// The part that `Range` asks for, of `length` bytes (section 14.1.2).
fn part(range: &str, length: usize) -> Part {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|it| it.split_once('-')) else {
        return Part::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) {
        return Part::Whole;
    }
    // A number that is too large is beyond the end of any file.
    let number = |text: &str| text.parse().unwrap_or(usize::MAX);
    match (first, last) {
        ("", "") => Part::Whole,
        ("", count) => match number(count).min(length) {
            0 => Part::Beyond,
            count => Part::Of(length - count, length - 1),
        },
        (first, "") if number(first) < length => Part::Of(number(first), length - 1),
        (first, last) if !last.is_empty() && number(last) < number(first) => Part::Whole,
        (first, last) if number(first) < length => {
            Part::Of(number(first), number(last).min(length - 1))
        }
        (_, _) => Part::Beyond,
    }
}

fn bare(response: &mut Response<ResponseBody>, status: StatusCode) {
    *response.status_mut() = status;
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
        response.headers_mut().remove(name);
    }
}

/// The values of a header, which may come in several lines. Values that are not text are ignored.
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
    // A tag may contain commas between its quotes, but no quotes.
    let is_quoted = 2 <= opaque.len() && opaque.starts_with('"') && opaque.ends_with('"');
    is_quoted && list.split('"').skip(1).step_by(2).any(|it| it == &opaque[1..opaque.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::ACCEPT_ENCODING;

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
        let response = Conditional::of(&request).answer(&whole());
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
    fn a_part_is_what_the_range_says() {
        for (range, expected) in [
            ("bytes=0-1", Part::Of(0, 1)),
            ("bytes=1-", Part::Of(1, 3)),
            ("bytes=-3", Part::Of(1, 3)),
            ("bytes=-9", Part::Of(0, 3)),
            ("bytes=2-99999999999999999999999", Part::Of(2, 3)),
            ("bytes=4-", Part::Beyond),
            ("bytes=9-12", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=3-1", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=0-1,3-3", Part::Whole),
            ("bytes=+0-1", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(part(range, 4), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Beyond);
    }

    #[test]
    fn parts_are_given_of_what_the_asker_has_the_others_of() {
        let given = |headers: &[(&str, &str)]| {
            let mut request = Request::get("/").header("range", "bytes=1-2");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let response = Conditional::of(&request.body(()).unwrap()).answer_part(&whole());
            let range = response.headers().get(CONTENT_RANGE).cloned();
            (response.status().as_u16(), range.map(|range| range.to_str().unwrap().to_owned()))
        };
        let part = (206, Some("bytes 1-2/4".to_owned()));
        assert_eq!(given(&[]), part);
        assert_eq!(given(&[("if-range", "\"a,b\"")]), part);
        assert_eq!(given(&[("if-range", "then")]), part);
        assert_eq!(given(&[("if-range", "\"other\"")]), (200, None));
        assert_eq!(given(&[("if-range", "W/\"a,b\"")]), (200, None));
        assert_eq!(given(&[("if-none-match", "\"a,b\"")]), (304, None));
    }

    #[test]
    fn a_tag_goes_over_a_date() {
        let request = Request::get("/")
            .header(IF_NONE_MATCH, "\"old\"")
            .header(IF_MODIFIED_SINCE, "then")
            .body(())
            .unwrap();
        assert_eq!(Conditional::of(&request).answer(&whole()).status(), 200);
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        use http_body::Body as _;
        let request = Request::head("/").body(()).unwrap();
        let response = Conditional::of(&request).answer(&whole());
        assert_eq!(response.headers()[CONTENT_LENGTH], "4");
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn an_encoding_is_given_to_those_who_read_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let can = |accepted: &str| {
            let request = Request::get("/").header(ACCEPT_ENCODING, accepted).body(()).unwrap();
            Conditional::of(&request).can_read(&headers)
        };
        assert!(can("deflate, GZIP;q=0.5"));
        assert!(!can("deflate"));
        assert!(!can("gzip;q=0, br"));
        assert!(!can("gzip;q=0.000"));
        assert!(can("*") && !can("gzip;q=0, *") && !can(""));
    }
}
