//! Decides whether a request is a plain read, and writes its head for the backend. Pure.
//!
//! Only requests that are beyond doubt qualify; all others are checked by
//! [`crate::server::message`]. So this is a list of what is known to be safe, and never a list of
//! what is forbidden.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::sync::Arc;

use http::{HeaderValue, Method, Version};
use httparse::{Header, Status};
use smallvec::SmallVec;

use crate::auth::head::may_hold_token;
use crate::auth::jwt::place::Cookies;
use crate::auth::{Admitted, Asked, Pass, ProxyRules, Session, UserTable, judge, proxy};
use crate::comfy::deny::is_denied;
use crate::comfy::endpoint::{Endpoint, RequestClass, StartRead, classify};
use crate::config::{BackendHeaders, BasePath, PlaceBelow, ServerConfig};
use crate::front::access::RequestLine;
use crate::front::caller::{IdentityHints, Peer};
use crate::front::cors::Site;
use crate::front::headers::table::{RequestHeader, names_a_user};
use crate::front::headers::{COMFY_USER, other_cookies};
use crate::front::hosts;
use crate::front::page_cookie::asks_for_a_page;
use crate::front::token_gate::{TokenGate, without_cookie};
use crate::routing::user_folder::UserFolder;
use crate::server::authority;
use crate::server::message::LINE_MAX;
use crate::server::write::{copy_header, write_header};

/// More headers than a browser sends.
const HEADERS_MAX: usize = 64;

/// The largest head that is read here, in bytes.
pub const HEAD_MAX: usize = 16 << 10;

/// What the bytes at the beginning of a request are.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it stays where it is made; a box would be an allocation"
)]
pub enum Parsed<'a> {
    /// The beginning of a head.
    Partial,
    /// A plain read.
    Plain(Plain<'a>),
    /// Another request, or one that cannot be decided yet.
    Other,
}

/// What a plain read is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PlainKind {
    pub class: RequestClass,
    /// One of the reads that a page needs to start, in the form that ComfyUI's page uses.
    pub start: Option<StartRead>,
}

/// The head of a plain read.
#[derive(Debug)]
pub struct Plain<'a> {
    /// The head as it was received.
    read: &'a [u8],
    /// Its size in bytes. There is no body.
    pub bytes: usize,
    pub is_head: bool,
    /// The value of `Host`. It is a valid name.
    host: &'a [u8],
    pub path: &'a str,
    target: &'a str,
    pub hints: IdentityHints<'a>,
    pub kind: PlainKind,
    /// The client sends no further request on this connection.
    pub closes: bool,
    headers: SmallVec<[Header<'a>; 24]>,
    /// The headers in which the peer says for whom it speaks.
    claims: SmallVec<[Header<'a>; 2]>,
    /// The cookie that may hold a token, and ends here.
    token_cookie: Option<Arc<str>>,
}

/// Reads a head of at most `bytes_max` bytes and `headers_max` headers. Its target is the part
/// below `base`.
#[must_use]
pub fn parse<'a>(
    read: &'a [u8],
    bytes_max: usize,
    headers_max: usize,
    base: &BasePath,
) -> Parsed<'a> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(read, &mut headers) {
        Ok(Status::Complete(bytes))
            // In a longer head a single line may be too long.
            if bytes <= bytes_max.min(LINE_MAX) && request.headers.len() <= headers_max =>
        {
            sort(&read[..bytes], &request, bytes, base)
        }
        Ok(Status::Partial) if read.len() < bytes_max => Parsed::Partial,
        Ok(Status::Complete(_) | Status::Partial) | Err(_) => Parsed::Other,
    }
}

/// What the headers say about the request.
#[derive(Debug, Default)]
struct RequestFacts<'a> {
    is_special: bool,
    closes: bool,
    host: Option<&'a [u8]>,
    has_site: bool,
}

impl<'a> RequestFacts<'a> {
    fn note_connection(&mut self, value: &[u8]) {
        if value.eq_ignore_ascii_case(b"keep-alive") {
            return;
        }
        self.closes = true;
        // It may name other headers of this hop.
        self.is_special |= !value.eq_ignore_ascii_case(b"close");
    }

    /// Requests of other pages are not decided here, and neither are those with two such headers.
    fn note_site(&mut self, value: &[u8]) {
        self.is_special |= self.has_site || !is_own_site(value);
        self.has_site = true;
    }

    /// A valid host is required (RFC 9112 section 3.2), although the header is not passed on.
    fn note_host(&mut self, value: &'a [u8]) {
        self.is_special |= self.host.is_some() || !authority::is_valid(value);
        self.host = Some(value);
    }
}

fn sort<'a>(
    read: &'a [u8],
    request: &httparse::Request<'_, 'a>,
    bytes: usize,
    base: &BasePath,
) -> Parsed<'a> {
    let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version)
    else {
        return Parsed::Other;
    };
    let PlaceBelow::Below(target) = base.take_off(target) else { return Parsed::Other };
    let mut said = RequestFacts::default();
    let (mut headers, mut claims) = (SmallVec::new(), SmallVec::new());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut hints = IdentityHints::of_target(path, query);
    for header in request.headers.iter() {
        match RequestHeader::of(header.name) {
            RequestHeader::PassedOn => headers.push(*header),
            RequestHeader::EndsHere => {}
            RequestHeader::Host => said.note_host(header.value),
            RequestHeader::ClientId => {
                hints.client_id.get_or_insert(header.value);
            }
            RequestHeader::Cookie => {
                hints.cookies.push(header.value);
                headers.push(*header);
            }
            RequestHeader::ForwardedFor => {
                hints.forwarded.push(header.value);
                claims.push(*header);
            }
            RequestHeader::ForwardedProto => {
                hints.scheme.get_or_insert(header.value);
                claims.push(*header);
            }
            RequestHeader::Forwarding => claims.push(*header),
            RequestHeader::Site => said.note_site(header.value),
            // A person who opens an address gets a page that explains errors, and a cookie.
            RequestHeader::Mode | RequestHeader::Accept if opens_a_page(header) => {
                said.is_special = true;
            }
            RequestHeader::Mode | RequestHeader::Accept => headers.push(*header),
            RequestHeader::Connection => said.note_connection(header.value),
            RequestHeader::Length | RequestHeader::Special => said.is_special = true,
        }
    }
    let is_head = method == "HEAD";
    let Some(host) = said.host else { return Parsed::Other };
    if !(is_head || method == "GET") || said.is_special {
        return Parsed::Other;
    }
    let method = if is_head { Method::HEAD } else { Method::GET };
    let Some(kind) = kind_of(&method, target, (path, query)) else { return Parsed::Other };
    Parsed::Plain(Plain {
        read,
        bytes,
        is_head,
        host,
        path,
        target,
        hints,
        kind,
        closes: said.closes,
        headers,
        claims,
        token_cookie: None,
    })
}

/// Characters of targets that every reader treats alike.
const CLEAR: [bool; 256] = {
    let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/%?&=+:,;@!$'()*";
    let (mut clear, mut at) = ([false; 256], 0);
    while at < all.len() {
        clear[all[at] as usize] = true;
        at += 1;
    }
    clear
};

/// Decides whether a route needs no more than the owner's backend, or is a read that a page needs
/// to start; and which one.
fn kind_of(method: &Method, target: &str, (path, query): (&str, &str)) -> Option<PlainKind> {
    let is_clear = target.bytes().all(|byte| CLEAR[usize::from(byte)]);
    // In origin form. A query that names a file would also say which backend has it.
    if !path.starts_with('/') || !is_clear || query.contains("filename") {
        return None;
    }
    let endpoint = classify(method, path);
    let class = endpoint.class();
    if let Endpoint::Start(read) = endpoint {
        return Some(PlainKind { class, start: Some(read).filter(|_| query.is_empty()) });
    }
    (endpoint == Endpoint::Other).then_some(PlainKind { class, start: None })
}

impl Plain<'_> {
    /// True if the request is meant for this gateway, by the rules of [`hosts`], and its path is
    /// not refused.
    #[must_use]
    pub fn may_pass(&self, server: &ServerConfig, peer: Peer) -> bool {
        self.is_for_us(server, peer) && !is_denied(&server.deny, self.path)
    }

    fn is_for_us(&self, server: &ServerConfig, peer: Peer) -> bool {
        let is_host =
            |claim: &&Header<'_>| claim.name.eq_ignore_ascii_case(hosts::X_FORWARDED_HOST.as_str());
        let forwarded = self.claims.iter().filter(is_host).map(|claim| claim.value);
        hosts::foreign(server, peer, Some(self.host), forwarded).is_none()
    }

    /// True if it may name files of a user. Hyper's way looks whose they are.
    #[must_use]
    pub fn may_name_a_folder(&self) -> bool {
        UserFolder::may_be_in(self.target)
    }

    /// The sender, if he may come in; the key is removed. `None` leaves the decision to hyper's
    /// way, which sends refusals and removes keys from addresses.
    #[must_use]
    pub fn admit(&mut self, users: &UserTable, session: Option<&Arc<Session>>) -> Option<Pass> {
        let IdentityHints { path, query, .. } = self.hints;
        if may_hold_token(query) {
            return None;
        }
        let method = if self.is_head { Method::HEAD } else { Method::GET };
        let asked = Asked { method: &method, path, query, session };
        let lines = self.headers.iter().map(|header| (header.name, header.value));
        let Admitted { pass, spent } = judge(users, asked, lines).ok()?;
        self.take_off(|header| spent.has(header.name));
        self.hints.pass = Some(pass.clone());
        Some(pass)
    }

    /// The sender that a trusted proxy names, if he may come in; the header is removed.
    #[must_use]
    pub fn admit_named(&mut self, rules: &Arc<ProxyRules>) -> Option<Pass> {
        let method = if self.is_head { Method::HEAD } else { Method::GET };
        let lines = self.headers.iter().chain(&self.claims);
        let lines = lines.map(|header| (header.name, header.value));
        let pass = proxy::judge(rules, &method, lines).ok()?;
        self.take_off(|header| rules.has(header.name));
        self.claims.retain(|header| !rules.has(header.name));
        self.hints.pass = Some(pass.clone());
        Some(pass)
    }

    /// Keeps back the cookie that may hold a token.
    pub(in crate::front) fn keep_back(&mut self, gate: &TokenGate) {
        self.token_cookie = gate.cookie().cloned();
    }

    /// Who sends it, as a token says, if he may come in; the token is taken off. `None` leaves the
    /// decision to hyper's way, which has unknown keys fetched and takes tokens off addresses.
    #[must_use]
    pub(in crate::front) fn admit_with_token(&mut self, gate: &TokenGate) -> Option<Pass> {
        if may_hold_token(self.hints.query) {
            return None;
        }
        let method = if self.is_head { Method::HEAD } else { Method::GET };
        let lines = self.headers.iter().map(|header| (header.name, header.value));
        let carrier = gate.judge(Cookies::Count, &method, lines).ok()?;
        if carrier.lacks_key {
            return None;
        }
        self.take_off(|header| carrier.spends(header.name, header.value));
        self.hints.pass = Some(carrier.pass.clone());
        Some(carrier.pass)
    }

    /// Removes what has let the sender in, and what the sender says himself about who he is at a
    /// backend.
    fn take_off(&mut self, is_spent: impl Fn(&Header<'_>) -> bool) {
        self.headers.retain(|header| !(is_spent(header) || names_a_user(header.name)));
    }

    /// What is recorded of this request.
    #[must_use]
    pub fn said(&self, method: Method) -> RequestLine<'_> {
        RequestLine::of(method, self.path, Version::HTTP_11, |name| {
            let is_it = |header: &&Header<'_>| header.name.eq_ignore_ascii_case(name.as_str());
            self.headers.iter().find(is_it).map(|header| header.value)
        })
    }

    /// Writes the head for the backend at `host`, from this peer, for a `user` of the backend. The
    /// backend's `own` headers replace others of their names.
    pub fn write(
        &self,
        host: &[u8],
        peer: Peer,
        (user, own): (Option<&HeaderValue>, &BackendHeaders),
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(if self.is_head { b"HEAD " } else { b"GET " });
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
        for header in &self.headers {
            if !own.is_empty() && own.has(header.name) {
                continue;
            }
            if header.name.eq_ignore_ascii_case("cookie") {
                write_cookie(self.read, header, self.token_cookie.as_deref(), out);
            } else {
                copy_header(self.read, header.name, header.value, out);
            }
        }
        match peer {
            Peer::Proxy => {
                let claims = self.claims.iter().filter(|claim| !own.has(claim.name));
                claims.for_each(|claim| write_header(claim.name, claim.value, out));
            }
            Peer::Stranger => {}
        }
        if let Some(user) = user.filter(|_| !own.has(COMFY_USER.as_str())) {
            write_header(COMFY_USER.as_str(), user.as_bytes(), out);
        }
        for (name, value) in own.as_map() {
            write_header(name.as_str(), value.as_bytes(), out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Removes our cookies, which identify a browser and its user to us only, and `token`, the cookie
/// that may hold a token.
fn write_cookie(read: &[u8], header: &Header<'_>, token: Option<&str>, out: &mut Vec<u8>) {
    let left = token.and_then(|name| without_cookie(header.value, name));
    if let Some(left) = left {
        let others = other_cookies(&left);
        if !others.is_empty() {
            write_header(header.name, &others, out);
        }
        return;
    }
    match other_cookies(header.value) {
        Cow::Borrowed(cookies) => copy_header(read, header.name, cookies, out),
        Cow::Owned(others) if others.is_empty() => {}
        Cow::Owned(others) => write_header(header.name, &others, out),
    }
}

/// True for the `Sec-Fetch-Mode` and `Accept` of a browser that opens an address.
fn opens_a_page(header: &Header<'_>) -> bool {
    header.value == b"navigate" || asks_for_a_page(header.value)
}

/// True if the request comes from one of our pages, or from no page.
fn is_own_site(value: &[u8]) -> bool {
    match Site::of(value) {
        Site::Unsaid | Site::Same | Site::Nobody => true,
        Site::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};

    #[track_caller]
    fn written(request: &str, peer: Peer) -> String {
        let Parsed::Plain(plain) =
            parse(request.as_bytes(), HEAD_MAX, HEADERS_MAX, &BasePath::default())
        else {
            panic!("not passed on: {request}");
        };
        assert_eq!(plain.bytes, request.len());
        let mut out = Vec::new();
        plain.write(b"gpu:8188", peer, (None, &BackendHeaders::default()), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn other(request: &str) {
        match parse(request.as_bytes(), HEAD_MAX, HEADERS_MAX, &BasePath::default()) {
            Parsed::Other => {}
            parsed @ (Parsed::Partial | Parsed::Plain(_)) => panic!("{request}: {parsed:?}"),
        }
    }

    #[test]
    fn what_is_not_of_this_hop_is_copied_as_it_came() {
        let request = "GET /system_stats?a=%20b HTTP/1.1\r\nHost: gw\r\nX-Mixed: A b\r\n\
            TE: gzip\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nSec-Fetch-Site: same-origin\r\n\
            Comfy-Client-Id: ada\r\nCookie: a=1; mooring=00; b=2\r\n\
            X-Forwarded-For: 1.2.3.4\r\n\r\n";
        let expected = "GET /system_stats?a=%20b HTTP/1.1\r\nhost: gpu:8188\r\nX-Mixed: A b\r\n\
            Cookie: a=1; b=2\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
        assert_eq!(written(request, Peer::Proxy), expected);
        let head = "HEAD /x HTTP/1.1\r\nhost: gw\r\ncookie: mooring=00\r\n\
            Cookie: __Host-mooring=1\r\n\
            x-real-ip: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-Host: x\r\n\
            X-Forwarded-For: 1.2.3.4\r\n\r\n";
        let bare = "HEAD /x HTTP/1.1\r\nhost: gpu:8188\r\n\r\n";
        assert_eq!(written(head, Peer::Stranger), bare);
    }

    #[test]
    fn what_a_backend_wants_to_hear_stands_in_place_of_the_clients_own() {
        let flags = [("url", "http://gpu:8188"), ("headers", "authorization: Bearer s3cret")];
        let flags = flags.map(|(key, value)| (format!("backends.x.{key}"), value.to_owned()));
        let sources = Sources { flags: flags.to_vec(), ..Sources::default() };
        let own = config::load(&sources).unwrap().backends.remove(0).headers;
        let request =
            b"GET /x HTTP/1.1\r\nHost: gw\r\nAuthorization: Basic mine\r\nX-Mixed: A\r\n\r\n";
        let Parsed::Plain(plain) = parse(request, HEAD_MAX, HEADERS_MAX, &BasePath::default())
        else {
            panic!("plain")
        };
        let mut out = Vec::new();
        plain.write(b"gpu:8188", Peer::Stranger, (None, &own), &mut out);
        let expected = "GET /x HTTP/1.1\r\nhost: gpu:8188\r\nX-Mixed: A\r\n\
            authorization: Bearer s3cret\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_is_below_the_base_path_is_passed_on_without_it_and_nothing_else_is() {
        let base = BasePath::parse("/comfy").unwrap();
        let below = |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: gw\r\n\r\n");
            let parsed = parse(request.as_bytes(), HEAD_MAX, HEADERS_MAX, &base);
            let Parsed::Plain(plain) = parsed else { return None };
            let mut out = Vec::new();
            plain.write(b"gpu:8188", Peer::Stranger, (None, &BackendHeaders::default()), &mut out);
            String::from_utf8(out).unwrap().lines().next().map(str::to_owned)
        };
        assert_eq!(below("/comfy/x?y").as_deref(), Some("GET /x?y HTTP/1.1"));
        for other in ["/x", "/comfy", "/comfyx", "/comfy/prompt", "/comfy/-/health", "/comfy/"] {
            assert_eq!(below(other), None, "{other}");
        }
    }

    #[test]
    fn who_asks_is_found_on_the_way() {
        let request = "GET /x?clientId=ada HTTP/1.1\r\nHost: gw\r\n\
            Comfy-Client-Id: bob\r\nCookie: c\r\n\
            X-Forwarded-For: f\r\n\r\n";
        let Parsed::Plain(plain) =
            parse(request.as_bytes(), HEAD_MAX, HEADERS_MAX, &BasePath::default())
        else {
            panic!("plain")
        };
        assert_eq!(plain.hints.query, "clientId=ada");
        assert_eq!(plain.hints.client_id, Some(&b"bob"[..]));
        assert_eq!((plain.hints.cookies[0], plain.hints.forwarded[0]), (&b"c"[..], &b"f"[..]));
    }

    #[test]
    fn what_is_understood_elsewhere_goes_elsewhere() {
        for line in [
            "GET /prompt HTTP/1.1\r\n",
            "GET /%70rompt HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n",
            "GET /view?filename=a HTTP/1.1\r\n",
            "GET /x?filename=a&type=output HTTP/1.1\r\n",
            "GET /api/manager/reboot HTTP/1.1\r\n",
            "GET /-/health HTTP/1.1\r\n",
            "OPTIONS /x HTTP/1.1\r\n",
            "GET /x HTTP/1.1\r\nOrigin: http://gw\r\n",
            "GET /x HTTP/1.1\r\nSec-Fetch-Site: cross-site\r\n",
            "GET /x HTTP/1.1\r\nSec-Fetch-Site: same-origin\r\nsec-fetch-site: same-site\r\n",
            "GET /customnode/getlist HTTP/1.1\r\n",
            "GET /pack/page HTTP/1.1\r\nAccept: text/html,*/*\r\n",
            "GET /pack/page HTTP/1.1\r\nSec-Fetch-Mode: navigate\r\n",
            "GET /internal/logs/raw HTTP/1.1\r\n",
            "GET http://gw/x HTTP/1.1\r\n",
            "GET /{x} HTTP/1.1\r\n",
            "GET /x HTTP/1.1\r\nContent-Length: 0\r\n",
        ] {
            other(&format!("{line}Host: gw\r\n\r\n"));
        }
        other("POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 12\r\n\r\n");
    }

    #[test]
    fn what_is_in_doubt_is_not_passed_on() {
        for lines in [
            "",
            "Host:\r\n",
            "Host: gw\r\nHost: gw\r\n",
            "Host: user@gw\r\n",
            "Host: gw/x\r\n",
            "Host: gw, gw\r\n",
            "Host: gw\r\nTransfer-Encoding: chunked\r\n",
            "Host: gw\r\nTransfer-Encoding : chunked\r\n",
            "Host: gw\r\nContent-Length: 1\r\n",
            "Host: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            "Host: gw\r\nConnection: x-secret\r\n",
            "Host: gw\r\nx: a\r\n b\r\n",
        ] {
            other(&format!("GET /x HTTP/1.1\r\n{lines}\r\n"));
        }
        for line in ["GET /x HTTP/1.0", "CONNECT gw:80 HTTP/1.1", "GET * HTTP/1.1", "\x16\x03"] {
            other(&format!("{line}\r\nHost: gw\r\n\r\n"));
        }
        let close = "GET /x HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
        assert!(matches!(
            parse(close.as_bytes(), HEAD_MAX, HEADERS_MAX, &BasePath::default()),
            Parsed::Plain(Plain { closes: true, .. })
        ));
    }

    #[test]
    fn a_head_that_is_not_whole_is_waited_for_until_it_is_too_long() {
        let root = BasePath::default();
        assert!(matches!(parse(b"GET /x HTT", HEAD_MAX, HEADERS_MAX, &root), Parsed::Partial));
        let long = format!("GET /x HTTP/1.1\r\nx: {}", "y".repeat(HEAD_MAX));
        other(&long);
        other(&format!("{long}\r\n\r\n"));
        let line = "y".repeat(LINE_MAX);
        let line = format!("GET /x HTTP/1.1\r\nHost: gw\r\nx: {line}\r\n\r\n");
        other(&line);
        let many = "GET /x HTTP/1.1\r\nHost: gw\r\n".to_owned()
            + &"a: b\r\n".repeat(HEADERS_MAX + 1)
            + "\r\n";
        other(&many);
        let two = b"GET /x HTTP/1.1\r\nHost: gw\r\nc: d\r\n\r\n";
        assert!(matches!(parse(two, HEAD_MAX, 2, &root), Parsed::Plain(_)));
        assert!(matches!(parse(two, HEAD_MAX, 1, &root), Parsed::Other));
    }
}
