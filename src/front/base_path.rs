//! The front below a path (`server.base_path`). The base path is removed from requests before
//! anything else, and added again to paths in answers.
//!
//! Backends do not know about it. ComfyUI's own page loads everything relative to its own address,
//! so it needs no change.

use std::borrow::Cow;

use http::header::{LOCATION, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};

use super::error::GatewayError;
use crate::body::ResponseBody;
use crate::config::{BasePath, PlaceBelow};

/// What a request is for.
#[derive(Debug)]
pub enum Entry {
    /// It is inside the base path, which was removed.
    Inside,
    /// It is the base path without the slash at its end: [`to_the_slash`] answers it.
    Itself,
    Outside(GatewayError),
}

/// Removes the base path from a request.
#[must_use]
pub fn enter<B>(base: &BasePath, request: &mut Request<B>) -> Entry {
    if base.is_root() {
        return Entry::Inside;
    }
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    match base.take_off(target) {
        PlaceBelow::Below(rest) => match with_target(request.uri(), rest) {
            Some(uri) => {
                *request.uri_mut() = uri;
                Entry::Inside
            }
            None => outside(base),
        },
        PlaceBelow::Itself(_) => Entry::Itself,
        PlaceBelow::Outside => outside(base),
    }
}

fn outside(base: &BasePath) -> Entry {
    Entry::Outside(GatewayError::OutsideBasePath { base: base.to_string() })
}

fn with_target(uri: &Uri, target: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Redirects to the path with a slash. Without it the page would look for its files beside the base
/// path. This is called after the sender was let in, because the key was removed from the query
/// then.
#[must_use]
pub fn to_the_slash(base: &BasePath, uri: &Uri) -> Response<ResponseBody> {
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(format!("{base}{query}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Adds the base path to the headers of an answer.
pub fn put_back(base: &BasePath, headers: &mut HeaderMap) {
    if base.is_root() {
        return;
    }
    let prefix = base.prefix();
    if let Some(location) = headers.get(LOCATION)
        && let Cow::Owned(value) = location_below(prefix, location.as_bytes())
        && let Ok(value) = HeaderValue::from_bytes(&value)
    {
        headers.insert(LOCATION, value);
    }
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for line in lines {
        let value = HeaderValue::from_bytes(&cookie_below(prefix, line.as_bytes())).unwrap_or(line);
        headers.append(SET_COOKIE, value);
    }
}

/// A `Location`. An absolute path comes from a backend, which does not know the base path. A target
/// with two slashes at its beginning names another host (RFC 3986 section 4.2), and browsers treat
/// a backslash like the second slash.
#[must_use]
pub fn location_below<'a>(prefix: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
    match value {
        [b'/', b'/' | b'\\', ..] => Cow::Borrowed(value),
        [b'/', ..] if !prefix.is_empty() => Cow::Owned([prefix.as_bytes(), value].concat()),
        _ => Cow::Borrowed(value),
    }
}

/// A `Set-Cookie`: its `Path` becomes one below the base path. With the prefix `__Host-` it must be
/// `/` (RFC 6265bis section 4.1.3.2), and a browser accepts nothing else.
#[must_use]
pub fn cookie_below<'a>(prefix: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
    const HOST: &[u8] = b"__Host-";
    const PATH: &[u8] = b"path";
    let name = value.trim_ascii_start().get(..HOST.len());
    if prefix.is_empty() || name.is_some_and(|name| name.eq_ignore_ascii_case(HOST)) {
        return Cow::Borrowed(value);
    }
    let mut parts = value.split(|byte| *byte == b';');
    let mut written = parts.next().unwrap_or(value).to_vec();
    let mut is_changed = false;
    for part in parts {
        written.push(b';');
        let equals = part.iter().position(|byte| *byte == b'=').map(|at| part.split_at(at + 1));
        match equals {
            Some((name, path))
                if name[..name.len() - 1].trim_ascii().eq_ignore_ascii_case(PATH)
                    && path.trim_ascii().starts_with(b"/") =>
            {
                is_changed = true;
                written.extend_from_slice(name);
                written.extend_from_slice(prefix.as_bytes());
                written.extend_from_slice(path.trim_ascii());
            }
            Some(_) | None => written.extend_from_slice(part),
        }
    }
    if is_changed { Cow::Owned(written) } else { Cow::Borrowed(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> BasePath {
        BasePath::parse("/comfy").unwrap()
    }

    fn entered(target: &str) -> (String, Entry) {
        let mut request = Request::get(target).body(()).unwrap();
        let entry = enter(&base(), &mut request);
        (request.uri().to_string(), entry)
    }

    #[test]
    fn it_is_taken_off_targets_of_both_forms() {
        for (target, left) in [
            ("/comfy/", "/"),
            ("/comfy/api/prompt?x=1", "/api/prompt?x=1"),
            ("http://gw/comfy/x", "http://gw/x"),
        ] {
            let (uri, entry) = entered(target);
            assert!(matches!(entry, Entry::Inside) && uri == left, "{target}: {uri}");
        }
        for target in ["/", "/api/prompt", "/comfyx/", "http://gw/x"] {
            let (uri, entry) = entered(target);
            assert!(matches!(entry, Entry::Outside(_)) && uri.ends_with(target), "{target}");
        }
    }

    #[test]
    fn without_its_slash_it_is_answered_with_where_to_go() {
        for (target, location) in [("/comfy", "/comfy/"), ("/comfy?a=/b", "/comfy/?a=/b")] {
            assert!(matches!(entered(target).1, Entry::Itself), "{target}");
            let response = to_the_slash(&base(), &target.parse().unwrap());
            assert_eq!(response.status(), 308);
            assert_eq!(response.headers()[LOCATION], location);
        }
    }

    #[test]
    fn a_location_that_is_a_path_of_a_backend_is_put_below() {
        for (given, expected) in [
            ("/login?x=/y", "/comfy/login?x=/y"),
            ("/", "/comfy/"),
            ("login", "login"),
            ("?x", "?x"),
            ("", ""),
            ("//host/x", "//host/x"),
            ("/\\host/x", "/\\host/x"),
            ("https://host/x", "https://host/x"),
        ] {
            let told = location_below("/comfy", given.as_bytes());
            assert_eq!(String::from_utf8_lossy(&told), expected, "{given}");
        }
    }

    #[test]
    fn a_cookie_is_for_below_unless_its_name_forbids_it() {
        for (given, expected) in [
            ("a=1; Path=/", "a=1; Path=/comfy/"),
            ("a=1;PATH = /x ;Secure", "a=1;PATH =/comfy/x;Secure"),
            ("a=1; Path=/; Path=/y", "a=1; Path=/comfy/; Path=/comfy/y"),
            ("a=/path=/; HttpOnly", "a=/path=/; HttpOnly"),
            ("Path=/; HttpOnly", "Path=/; HttpOnly"),
            ("a=1; Path=x", "a=1; Path=x"),
            ("a=1; Path=", "a=1; Path="),
            ("a=1; Path", "a=1; Path"),
            ("__Host-a=1; Path=/; Secure", "__Host-a=1; Path=/; Secure"),
            ("__Secure-a=1; Path=/; Secure", "__Secure-a=1; Path=/comfy/; Secure"),
        ] {
            let told = cookie_below("/comfy", given.as_bytes());
            assert_eq!(String::from_utf8_lossy(&told), expected, "{given}");
        }
        assert_eq!(&*cookie_below("", b"a=1; Path=/"), b"a=1; Path=/");
        assert_eq!(&*location_below("", b"/x"), b"/x");
    }

    #[test]
    fn all_lines_of_an_answer_are_put_below() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("/x"));
        for cookie in ["a=1; Path=/", "b=2", "c=3; Path=/z"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        put_back(&base(), &mut headers);
        assert_eq!(headers[LOCATION], "/comfy/x");
        let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; Path=/comfy/", "b=2", "c=3; Path=/comfy/z"]);
    }
}
