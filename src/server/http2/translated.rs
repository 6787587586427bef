//! Translates a request of HTTP/2 to HTTP/1.1 (RFC 9113 section 8.3).

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use http_body::Body;

use crate::server::message::{self, Becomes, Head};
use crate::server::refusal::Refusal;
use crate::server::wire::Spoken;

/// The same request in the form of HTTP/1.1, if it may be answered.
///
/// # Errors
/// The reason why it may not, and its head in the form of HTTP/1.1.
pub(super) fn translated<B: Body>(
    mut request: Request<B>,
    bytes_max: usize,
    headers_max: usize,
) -> Result<Request<B>, (Refusal, Vec<u8>)> {
    let target = request.uri().path_and_query().map_or("", |it| it.as_str()).to_owned();
    let is_open = !request.body().is_end_stream();
    let host = host(&request);
    let headers = request.headers_mut();
    join_cookies(headers);
    if is_open && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // hyper does not send 100 here. A client that waits for it would wait until its time is over.
    headers.remove(EXPECT);
    headers.remove(HOST);
    if let Ok(Some(host)) = &host {
        headers.insert(HOST, host.clone());
    }
    let head = head(&request, &target);
    let refused = |refusal| (refusal, head.clone());
    host.map_err(refused)?;
    match message::read(&head, bytes_max, headers_max) {
        Head::Whole(message) if message.becomes == Becomes::Http => {}
        Head::Refused(refusal) => return Err((refusal, head)),
        Head::Partial => return Err((Refusal::HeadTooLarge { max: bytes_max }, head)),
        Head::Whole(_) => return Err((Refusal::Malformed("an upgrade"), head)),
    }
    // It was checked above, so it is a valid URI.
    *request.uri_mut() =
        target.parse::<Uri>().map_err(|_| refused(Refusal::Malformed("its target")))?;
    *request.version_mut() = Version::HTTP_11;
    request.extensions_mut().insert(Spoken(Version::HTTP_2));
    Ok(request)
}

/// The host: that of `:authority`, or that of `Host` if there is no authority. If both are given,
/// they must be the same (section 8.3.1).
fn host<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Refusal> {
    let bad = || Refusal::Malformed("its Host");
    let mut hosts = request.headers().get_all(HOST).iter();
    let (written, another) = (hosts.next(), hosts.next());
    let Some(authority) = request.uri().authority() else {
        return if another.is_some() { Err(bad()) } else { Ok(written.cloned()) };
    };
    let is_same =
        |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    if another.is_some() || !written.is_none_or(is_same) {
        return Err(bad());
    }
    HeaderValue::from_str(authority.as_str()).map(Some).map_err(|_| bad())
}

/// HTTP/2 may split the cookies into several lines. HTTP/1.1 needs one (section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() < 2 {
        return;
    }
    // Each part was a valid value, so the joined text is one too.
    if let Ok(all) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, all);
    }
}

/// The head as bytes of HTTP/1.1.
fn head<B>(request: &Request<B>, target: &str) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    const MAX: (usize, usize) = (16 << 10, 128);

    fn of(uri: &str, headers: &[(&str, &str)]) -> Result<Request<Empty<bytes::Bytes>>, Refusal> {
        let mut request = Request::get(uri).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).unwrap();
        translated(request, MAX.0, MAX.1).map_err(|(refusal, _)| refusal)
    }

    #[test]
    fn a_request_says_the_same_in_the_words_of_http_1() {
        let cookies = [("cookie", "a=1"), ("cookie", "b=2"), ("accept", "*/*")];
        let said = of("https://gw.lan:8443/view?filename=a.png", &cookies).unwrap();
        assert_eq!(
            (said.uri().to_string().as_str(), said.version()),
            ("/view?filename=a.png", Version::HTTP_11)
        );
        assert_eq!(said.headers()["host"], "gw.lan:8443");
        assert_eq!(said.headers()["cookie"], "a=1; b=2");
        assert!(!said.headers().contains_key("transfer-encoding"));
        let body = Full::new(bytes::Bytes::from("{}"));
        let request = Request::post("https://gw/prompt").body(body).unwrap();
        let said = translated(request, MAX.0, MAX.1).unwrap();
        assert_eq!(said.headers()["transfer-encoding"], "chunked", "it has no length");
    }

    #[test]
    fn what_http_1_refuses_is_refused() {
        let host = Refusal::Malformed("its Host");
        assert_eq!(of("https://gw/", &[("host", "other")]).unwrap_err(), host);
        assert_eq!(of("https://gw/", &[("host", "GW")]).unwrap().headers()["host"], "gw");
        assert!(of("https://gw..lan/", &[]).is_err() && of("/", &[]).is_err());
        let many: Vec<(String, String)> =
            (0..130).map(|at| (format!("x-{at}"), "1".to_owned())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let refused = of("https://gw/", &many).unwrap_err();
        assert_eq!(refused, Refusal::TooManyHeaders { max: 128 });
        let long = "x".repeat(9_000);
        assert!(of("https://gw/", &[("x-long", &long)]).is_err());
        let trace = Request::builder().method("TRACE").uri("https://gw/");
        let trace = trace.body(Empty::<bytes::Bytes>::new()).unwrap();
        assert_eq!(translated(trace, MAX.0, MAX.1).unwrap_err().0, Refusal::BadMethod);
    }
}
