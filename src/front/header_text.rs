//! Reads values of headers as text and as addresses.

use std::net::{IpAddr, SocketAddr};

/// Reads an entry of `X-Forwarded-For`: an address. Some proxies add the port, brackets or quotes.
#[must_use]
pub fn address_in(entry: &[u8]) -> Option<IpAddr> {
    let entry = text(entry)?.trim().trim_matches('"');
    let of_socket = |socket: SocketAddr| socket.ip();
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = entry.parse().ok().or_else(|| entry.parse().ok().map(of_socket));
    address.or_else(bracketed).map(|address| address.to_canonical())
}

/// A header's value as text: visible ASCII, spaces and tabs (RFC 9110 section 5.5).
#[must_use]
pub fn text(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    is_text.then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_address_with_whatever_stands_around_it() {
        for (entry, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            (" 192.0.2.7:4711 ", Some("192.0.2.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("\"[2001:db8::1]:4711\"", Some("2001:db8::1")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("unknown", None),
            ("", None),
            ("192.0.2.7:x", None),
            ("[192.0.2.7", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(address_in(entry.as_bytes()), expected, "{entry}");
        }
    }
}
