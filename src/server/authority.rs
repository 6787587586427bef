//! Checks that a text is the name of a host, with or without a port (RFC 3986 section 3.2).
//!
//! The grammar allows more than any client sends: escapes, and characters that are not part of a
//! name. A proxy in front or a backend may read those differently, so they are refused.

use std::net::Ipv6Addr;

/// The characters of host names. The underscore is included because names of containers have it.
const IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        // A cast, because `From` is not a constant function. The value is below 256.
        #[expect(clippy::cast_possible_truncation, reason = "it is below 256")]
        let it = byte as u8;
        table[byte] = it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'~' | b'.');
        byte += 1;
    }
    table
};

/// The longest name that DNS allows, plus a port.
const LENGTH_MAX: usize = 255 + 6;

/// True for `name`, `name:port` and IP addresses. A user, a path or a list is not allowed.
#[must_use]
pub fn is_valid(authority: &[u8]) -> bool {
    if LENGTH_MAX < authority.len() {
        return false;
    }
    if authority.first() == Some(&b'[') {
        return is_bracketed(authority);
    }
    // No part of a name is empty, except the one after the last dot. Every request is checked here.
    let mut is_behind_dot = true;
    for (at, byte) in authority.iter().enumerate() {
        if !IN_NAMES[usize::from(*byte)] {
            return at != 0 && is_port(&authority[at..]);
        }
        let is_dot = *byte == b'.';
        if is_dot && is_behind_dot {
            return false;
        }
        is_behind_dot = is_dot;
    }
    !authority.is_empty()
}

/// An IPv6 address in brackets, with or without a zone (RFC 6874).
fn is_bracketed(authority: &[u8]) -> bool {
    let Some(end) = authority.iter().position(|byte| *byte == b']') else { return false };
    let inner = std::str::from_utf8(&authority[1..end]).unwrap_or_default();
    let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
    let is_zone = !zone.is_empty() && zone.bytes().all(|byte| IN_NAMES[usize::from(byte)]);
    let port = &authority[end + 1..];
    address.parse::<Ipv6Addr>().is_ok() && is_zone && (port.is_empty() || is_port(port))
}

/// A colon, then a port or nothing (RFC 3986 section 3.2.3).
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return false };
    let is_number = digits.iter().all(u8::is_ascii_digit) && digits.len() <= 5;
    let number = std::str::from_utf8(digits).unwrap_or_default();
    is_number && (digits.is_empty() || number.parse::<u16>().is_ok())
}

/// The authority of a target in absolute form (RFC 9112 section 3.2.2), and the default port of its
/// scheme. `None` if the scheme is not one that is served here.
#[must_use]
pub fn of_absolute(target: &str) -> Option<(&str, &'static str)> {
    let (scheme, rest) = target.split_once("://")?;
    let port = match scheme.len() {
        4 if scheme.eq_ignore_ascii_case("http") => "80",
        5 if scheme.eq_ignore_ascii_case("https") => "443",
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some((&rest[..end], port))
}

/// True if both name the same host and port. `port` is the default if one of them has no port.
#[must_use]
pub fn is_same(one: &str, other: &str, port: &str) -> bool {
    let bare = |text: &str| {
        let end = text.rfind(':').filter(|at| text.rfind(']').is_none_or(|end| end < *at));
        let (name, number) = end.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
        let number = if number.is_empty() { port } else { number };
        (name.trim_end_matches('.').to_ascii_lowercase(), number.to_owned())
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_hosts_are_valid() {
        for authority in [
            "gw",
            "gw:8180",
            "gw:",
            "GPU_1.example.com.",
            "10.0.0.7:65535",
            "xn--mnchen-3ya.de",
            "[::1]",
            "[fe80::1%25eth0]:80",
            "a~b",
        ] {
            assert!(is_valid(authority.as_bytes()), "{authority}");
        }
    }

    #[test]
    fn all_else_is_not() {
        for authority in [
            "",
            ":80",
            "a b",
            "a,b",
            "a, b",
            "user@gw",
            "user:pw@gw",
            "gw/x",
            "gw?x",
            "gw#x",
            "gw:80:81",
            "gw:80a",
            "gw:+80",
            "gw:65536",
            "gw:000080",
            "a..b",
            ".a",
            ".",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[gw]",
            "[]",
            "[v1.a]",
            "[::1%]",
            "::1",
            "gw\\x",
            "a%41",
            "a;b",
            "a\u{e9}",
            "a\tb",
            "\"gw\"",
            "*",
        ] {
            assert!(!is_valid(authority.as_bytes()), "{authority}");
        }
        assert!(!is_valid("a".repeat(262).as_bytes()));
    }

    #[test]
    fn an_absolute_target_tells_its_authority() {
        assert_eq!(of_absolute("http://gw:1/x"), Some(("gw:1", "80")));
        assert_eq!(of_absolute("HTTPS://gw?x"), Some(("gw", "443")));
        assert_eq!(of_absolute("http:///x"), Some(("", "80")));
        assert_eq!(of_absolute("ftp://gw/x"), None);
        assert_eq!(of_absolute("gw:80"), None);
    }

    #[test]
    fn a_host_is_the_same_in_other_letters_and_with_the_usual_port() {
        assert!(is_same("GW", "gw:80", "80"));
        assert!(is_same("gw.", "gw", "80"));
        assert!(is_same("[::1]", "[::1]:443", "443"));
        assert!(!is_same("[::1]:1", "[::1]", "80"));
        assert!(!is_same("gw", "gw:8180", "80"));
        assert!(!is_same("gw", "evil", "80"));
    }
}
