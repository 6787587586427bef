//! Parses URLs of backends, and origins of web pages.
//!
//! These are own parsers, because a URL library repairs its input. What an operator wrote in a file
//! should be right, not repaired.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    /// A name in lower case or an IP address, IPv6 without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where a server listens, and how it is spoken to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerUrl {
    pub scheme: Scheme,
    pub address: Address,
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.address)
    }
}

impl fmt::Display for Address {
    /// The form in a URL or in `Host`: IPv6 in brackets, always with the port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadUrl {
    #[error("has no scheme, did you mean `http://{text}`?")]
    NoScheme { text: String },
    #[error("`{scheme}://` is not possible here, only `http://` and `https://`")]
    BadScheme { scheme: String },
    #[error("has no host")]
    NoHost,
    #[error("`{host}` is not a host name or an IP address")]
    BadHost { host: String },
    #[error("`{port}` is not a port from 1 to 65535")]
    BadPort { port: String },
    #[error("a user or password in a URL is not possible")]
    UserInfo,
    #[error("a path is not possible: the server is expected at `/`")]
    Path,
    #[error("a query or fragment is not possible")]
    Query,
}

impl BadUrl {
    /// The problem with the URL before it. The URL is left out if it may contain a password.
    #[must_use]
    pub fn about(&self, text: &str) -> String {
        if text.contains('@') { self.to_string() } else { format!("`{text}`: {self}") }
    }
}

/// Parses `http://host[:port][/]`, or the same with `https`; the default ports are 80 and 443.
///
/// # Errors
/// The first problem, from left to right.
pub fn backend(text: &str) -> Result<ServerUrl, BadUrl> {
    // Checked first, because no other report may show a password.
    if text.contains('@') {
        return Err(BadUrl::UserInfo);
    }
    let Some((written, rest)) = text.split_once("://") else {
        return Err(BadUrl::NoScheme { text: text.to_owned() });
    };
    let is = |scheme: &Scheme| written.eq_ignore_ascii_case(scheme.as_str());
    let Some(scheme) = [Scheme::Http, Scheme::Https].into_iter().find(is) else {
        return Err(BadUrl::BadScheme { scheme: written.to_owned() });
    };
    let authority = authority(rest);
    let after = &rest[authority.len()..];
    let address = address(authority, scheme.default_port())?;
    if after.contains(['?', '#']) {
        return Err(BadUrl::Query);
    }
    let is_whole = after.is_empty() || after == "/";
    if is_whole { Ok(ServerUrl { scheme, address }) } else { Err(BadUrl::Path) }
}

/// Parses `HOST:PORT`.
///
/// # Errors
/// The first problem, from left to right.
pub(super) fn host_and_port(text: &str) -> Result<Address, BadUrl> {
    // The default 0 makes an address without a port invalid.
    let address = address(text, 0)?;
    if address.port == 0 { Err(BadUrl::BadPort { port: String::new() }) } else { Ok(address) }
}

/// Parses a name or an IP address.
///
/// # Errors
/// It is neither.
pub(super) fn host(text: &str) -> Result<String, BadUrl> {
    parse_host(text)
}

/// The part before the path.
fn authority(rest: &str) -> &str {
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

fn address(authority: &str, default_port: u16) -> Result<Address, BadUrl> {
    let (host, port) = match authority.rfind(':') {
        // In `[::1]` the last colon belongs to the address.
        Some(colon) if !authority[colon..].contains(']') => {
            (&authority[..colon], parse_port(&authority[colon + 1..])?)
        }
        Some(_) | None => (authority, default_port),
    };
    if host.is_empty() {
        return Err(BadUrl::NoHost);
    }
    Ok(Address { host: parse_host(host)?, port })
}

fn parse_port(text: &str) -> Result<u16, BadUrl> {
    let bad = || BadUrl::BadPort { port: text.to_owned() };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    text.parse().ok().filter(|port| 0 < *port).ok_or_else(bad)
}

fn parse_host(text: &str) -> Result<String, BadUrl> {
    let bad = || BadUrl::BadHost { host: text.to_owned() };
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        return inner.parse::<Ipv6Addr>().map(|ip| ip.to_string()).map_err(|_not_ip| bad());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if 253 < name.len() || !name.split('.').all(is_label) {
        return Err(bad());
    }
    // `10.0.0.300` is a typing error and not a name: no top level domain is a number.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        return Err(bad());
    }
    Ok(name.to_ascii_lowercase())
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadOrigin {
    #[error(
        "an origin is a scheme and a host, such as `https://app.example`; patterns are not possible"
    )]
    BadScheme,
    #[error(
        "would let every web page act for whoever looks at it; list the origins that may, such as \
         `https://app.example`"
    )]
    Everybody,
    #[error("an origin is that of a page and not of its socket, write `{origin}`")]
    Socket { origin: String },
    #[error("an origin has no path, write `{origin}`")]
    Path { origin: String },
    #[error(transparent)]
    Url(#[from] BadUrl),
}

impl BadOrigin {
    /// The problem with the origin before it. The origin is left out if it may contain a password.
    #[must_use]
    pub fn about(&self, text: &str) -> String {
        if text.contains('@') { self.to_string() } else { format!("`{text}`: {self}") }
    }
}

/// The origins of pages without a real one: sandboxed pages, and files of a disk.
pub const OPAQUE_ORIGINS: [&str; 2] = ["null", "file://"];

/// Parses an origin and returns it as browsers write it in `Origin`: lower case, no default port.
/// Applications and extensions have their own schemes: `app://obsidian.md`.
///
/// # Errors
/// What is wrong with it.
pub fn origin(text: &str) -> Result<String, BadOrigin> {
    if text == "*" {
        return Err(BadOrigin::Everybody);
    }
    if text.eq_ignore_ascii_case("null") {
        return Ok("null".to_owned());
    }
    // Checked first, because no other report may show a password.
    if text.contains('@') {
        return Err(BadUrl::UserInfo.into());
    }
    let (scheme, rest) = text.split_once("://").ok_or(BadOrigin::BadScheme)?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = authority(rest);
    let origin = match scheme.as_str() {
        "http" => of_web(&scheme, authority, 80)?,
        "https" => of_web(&scheme, authority, 443)?,
        "ws" => return Err(BadOrigin::Socket { origin: of_web("http", authority, 80)? }),
        "wss" => return Err(BadOrigin::Socket { origin: of_web("https", authority, 443)? }),
        "file" if authority.is_empty() => "file://".to_owned(),
        scheme if is_scheme(scheme) => format!("{scheme}://{}", of_application(authority)?),
        _other => return Err(BadOrigin::BadScheme),
    };
    if authority.len() == rest.len() { Ok(origin) } else { Err(BadOrigin::Path { origin }) }
}

fn of_web(scheme: &str, authority: &str, default_port: u16) -> Result<String, BadUrl> {
    let address = address(authority, default_port)?;
    let host = match address.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(_)) | Err(_) => address.host,
    };
    let port = address.port;
    Ok(if port == default_port {
        format!("{scheme}://{host}")
    } else {
        format!("{scheme}://{host}:{port}")
    })
}

/// The host in the origin of an application or an extension, in exactly the spelling that it sends.
fn of_application(authority: &str) -> Result<&str, BadUrl> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if authority.is_empty() {
        return Err(BadUrl::NoHost);
    }
    if !authority.bytes().all(is_name) {
        return Err(BadUrl::BadHost { host: authority.to_owned() });
    }
    Ok(authority)
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        let shown = match backend(url) {
            Ok(url) => url.to_string(),
            Err(problem) => problem.to_string(),
        };
        assert_eq!(shown, expected, "{url}");
    }

    #[test]
    fn a_backend_is_named_by_scheme_host_and_port() {
        check("http://gpu-a:8188", "http://gpu-a:8188");
        check("http://GPU_A.example.:8188/", "http://gpu_a.example:8188");
        check("HTTP://10.0.0.7", "http://10.0.0.7:80");
        check("http://[::1]:8188", "http://[::1]:8188");
        check("http://[0::1]", "http://[::1]:80");
        check("HTTPS://gpu-a/", "https://gpu-a:443");
        check("https://gpu-a:8188", "https://gpu-a:8188");
    }

    #[test]
    fn a_url_that_cannot_work_says_why() {
        check("gpu-a:8188", "has no scheme, did you mean `http://gpu-a:8188`?");
        check("ftp://a:1", "`ftp://` is not possible here, only `http://` and `https://`");
        check("http://", "has no host");
        check("http://:8188", "has no host");
        check("http://a b:1", "`a b` is not a host name or an IP address");
        check("http://10.0.0.300:1", "`10.0.0.300` is not a host name or an IP address");
        check("http://[::1:8188", "`[::1` is not a host name or an IP address");
        check("http://::1:8188", "`::1` is not a host name or an IP address");
        check("http://a..b", "`a..b` is not a host name or an IP address");
        check("http://a:0", "`0` is not a port from 1 to 65535");
        check("http://a:65536", "`65536` is not a port from 1 to 65535");
        check("http://a:", "`` is not a port from 1 to 65535");
        check("http://a:+1", "`+1` is not a port from 1 to 65535");
        check("http://me:secret@a:1", "a user or password in a URL is not possible");
        check("http://a:1/comfy", "a path is not possible: the server is expected at `/`");
        check("http://a:1/?x=1", "a query or fragment is not possible");
        check("http://a:1#x", "a query or fragment is not possible");
    }

    #[track_caller]
    fn check_origin(text: &str, expected: &str) {
        let shown = origin(text).unwrap_or_else(|problem| problem.to_string());
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn an_origin_is_kept_as_browsers_write_it() {
        check_origin("https://App.Example", "https://app.example");
        check_origin("https://app.example:443", "https://app.example");
        check_origin("http://localhost:3000", "http://localhost:3000");
        check_origin("http://[::1]:80", "http://[::1]");
    }

    #[test]
    fn applications_extensions_and_files_have_origins_too() {
        check_origin("app://obsidian.md", "app://obsidian.md");
        check_origin("chrome-extension://gkiokjnl", "chrome-extension://gkiokjnl");
        check_origin("tauri://localhost", "tauri://localhost");
        check_origin("null", "null");
        check_origin("file://", "file://");
        check_origin("file:///x", "an origin has no path, write `file://`");
        check_origin("app://obsidian.md/", "an origin has no path, write `app://obsidian.md`");
        check_origin("app://", "has no host");
        check_origin("app://*", "`*` is not a host name or an IP address");
    }

    #[test]
    fn what_is_no_origin_says_why() {
        let scheme = "an origin is a scheme and a host, such as `https://app.example`; patterns \
            are not possible";
        check_origin(
            "*",
            "would let every web page act for whoever looks at it; list the origins that may, such \
             as `https://app.example`",
        );
        check_origin("app.example", scheme);
        check_origin("1x://y", scheme);
        check_origin(
            "wss://app.example/ws",
            "an origin is that of a page and not of its socket, write `https://app.example`",
        );
        check_origin("https://app.example/", "an origin has no path, write `https://app.example`");
        check_origin("https://me:secret@a", "a user or password in a URL is not possible");
        check_origin("https://*.example", "`*.example` is not a host name or an IP address");
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text: String) {
            let _ = backend(&text);
            let _ = backend(&format!("http://{text}"));
            let _ = origin(&format!("https://{text}"));
        }
    }
}
