//! The scripts of ours that the page gets, and their place in it.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, LAST_MODIFIED};
use http::{HeaderName, HeaderValue, Request};
use hyper::body::Incoming;

use super::conditional::{Conditional, Whole};
use super::error::GatewayError;
use super::page::{hash, insert_tag};
use super::{Answer, page_fleet};
use crate::comfy::query::parameter;
use crate::config::{OnOff, ServerConfig};
use crate::shared::Shared;

/// A script that the page gets.
#[derive(Debug)]
pub(super) struct Script {
    /// Below `/-/`.
    name: &'static str,
    text: &'static str,
    /// Changes only when the text changes.
    version: LazyLock<String>,
}

/// Makes each tab a client.
pub(super) static TAB: Script = Script {
    name: "page.js",
    text: include_str!("page.js"),
    version: LazyLock::new(|| hash(TAB.text.as_bytes())),
};

/// Shows where one's jobs are, and how the servers are.
pub(super) static EXTENSION: Script = Script {
    name: "page_extension.js",
    text: include_str!("page_extension.js"),
    version: LazyLock::new(|| hash(EXTENSION.text.as_bytes())),
};

/// Headers with digests of the body, which does not match them any more.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// The scripts that the page gets now, in their order.
fn scripts(server: &ServerConfig) -> impl Iterator<Item = &'static Script> {
    let tab = (server.page_script == OnOff::On).then_some(&TAB);
    tab.into_iter().chain(page_fleet::is_on(server).then_some(&EXTENSION))
}

/// A script. A request for exactly its version may cache it for ever; others may not.
///
/// # Errors
/// The script is turned off.
pub(super) fn script(shared: &Shared, script: &Script, request: &Request<Incoming>) -> Answer {
    if !scripts(&shared.config().server).any(|it| it.name == script.name) {
        return Err(GatewayError::NotFound);
    }
    let asked_for = parameter(request.uri().query().unwrap_or(""), "v");
    let keep = if asked_for.as_deref() == Some(script.version.as_str()) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    insert_tag(&mut headers, &script.version);
    let body = Bytes::from_static(script.text.as_bytes());
    Ok(Conditional::of(request).answer(&Whole { headers, body }))
}

pub(super) fn with_scripts(mut headers: HeaderMap, body: Bytes, server: &ServerConfig) -> Whole {
    let Some(at) = place(&body) else { return Whole { headers, body } };
    let tag = |Script { name, version, .. }: &Script| {
        format!("<script src=\"./-/{name}?v={}\"></script>", **version)
    };
    let scripts: String = scripts(server).map(tag).collect();
    let mut page = BytesMut::with_capacity(body.len() + scripts.len());
    page.extend_from_slice(&body[..at]);
    page.extend_from_slice(scripts.as_bytes());
    page.extend_from_slice(&body[at..]);
    let body = page.freeze();
    for name in DIGESTS.into_iter().chain([LAST_MODIFIED, ACCEPT_RANGES]) {
        headers.remove(name);
    }
    insert_tag(&mut headers, &hash(&body));
    Whole { headers, body }
}

/// Where the script goes: right after `<head>`. If the page has none, it goes after the tags that
/// come before it. `None` if the text does not begin like HTML.
fn place(html: &[u8]) -> Option<usize> {
    const COMMENT_END: &[u8] = b"-->";
    let mut at = if html.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut begun = None;
    loop {
        at += html[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let rest = &html[at..];
        if rest.starts_with(b"<!--") {
            at += memchr::memmem::find(rest, COMMENT_END)? + COMMENT_END.len();
            continue;
        }
        let Some(end) = tag_end(rest) else { return begun };
        at += end;
        match name(rest).as_str() {
            "head" => return Some(at),
            "html" | "!doctype" => begun = Some(at),
            _ => return begun,
        }
    }
}

/// The length of the tag at the beginning of `rest`. A `>` inside quotes does not end it.
fn tag_end(rest: &[u8]) -> Option<usize> {
    if rest.first() != Some(&b'<') {
        return None;
    }
    let mut quote = None;
    for (at, byte) in rest.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            (_, _) => {}
        }
    }
    None
}

/// The name of the tag at the beginning of `rest`, in lower case.
fn name(rest: &[u8]) -> String {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'!';
    let name: Vec<u8> = rest.iter().skip(1).take_while(is_name).copied().collect();
    String::from_utf8_lossy(&name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use http::header::ETAG;

    use super::*;
    use crate::config::Config;

    /// `expected` has a `^` where the script goes, or no `^`.
    #[track_caller]
    fn check(expected: &str) {
        let html = expected.replace('^', "");
        assert_eq!(place(html.as_bytes()), expected.find('^'), "{expected}");
    }

    #[test]
    fn the_script_is_the_first_child_of_the_head() {
        check("<!doctype html><html lang=\"en\"><head>^<link><meta>");
        check("<!DOCTYPE html>\n<HTML>\n<HEAD data-a='>' class=x>^\n<title>");
        check("\u{feff}<!-- <head> --><html><head>^</head>");
        check("<html>^<title>no head</title><head>");
        check("<!doctype html>^<header>");
        check("<!doctype html>^text <head>");
        check("It works!");
        check("<div><head>");
        check("<head");
        check("<!-- <head>");
        check("");
    }

    #[test]
    fn a_changed_page_has_a_tag_of_its_own() {
        let mut given = HeaderMap::new();
        given.insert(ETAG, HeaderValue::from_static("\"file\""));
        given.insert(LAST_MODIFIED, HeaderValue::from_static("then"));
        given.insert("x-kept", HeaderValue::from_static("1"));
        let server = Config::for_backends(&[("a", "http://a:1")]).unwrap().server;
        let changed_of = |html: &'static str| {
            with_scripts(given.clone(), Bytes::from_static(html.as_bytes()), &server)
        };
        let changed = changed_of("<head></head>");
        assert_ne!(changed.headers[ETAG], "\"file\"");
        assert!(!changed.headers.contains_key(LAST_MODIFIED));
        assert!(changed.headers.contains_key("x-kept"));
        let other = changed_of("<head> </head>");
        assert_ne!(changed.headers[ETAG], other.headers[ETAG]);
        let same = changed_of("plain");
        assert_eq!((same.headers, &same.body[..]), (given, &b"plain"[..]));
    }

    #[test]
    fn the_scripts_are_plain_text_that_ends_no_element() {
        for Script { text, .. } in [&TAB, &EXTENSION] {
            assert!(text.is_ascii());
            assert!(!text.contains("</"));
        }
    }
}
