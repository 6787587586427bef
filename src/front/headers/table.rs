//! What happens to each header on its way to a backend and back. Both ways of answering use this
//! table: requests that are passed on as bytes, and those that go through the HTTP library.

/// True for headers of one hop: those in RFC 9110 section 7.6.1, and others that old clients still
/// send.
#[inline]
fn is_of_one_hop(name: &str) -> bool {
    let is = |other: &str| is_same(name, other);
    match shape(name) {
        (2, b't') => is("te"),
        (7, b't') => is("trailer"),
        (7, b'u') => is("upgrade"),
        (10, b'c') => is("connection"),
        (10, b'k') => is("keep-alive"),
        (16, b'p') => is("proxy-connection"),
        (17, b't') => is("transfer-encoding"),
        (18, b'p') => is("proxy-authenticate"),
        (19, b'p') => is("proxy-authorization"),
        _ => false,
    }
}

/// True if a name is `known` in any case. `known` is in lower case. A parser has checked that the
/// name is a token (RFC 9110 section 5.6.2), so only letters can match the letters of `known` here.
#[inline]
fn is_same(name: &str, known: &str) -> bool {
    let pairs = name.bytes().zip(known.bytes());
    // Without branches: names are short, so all characters are compared at once.
    name.len() == known.len() && pairs.fold(0, |other, (a, b)| other | ((a | 0x20) ^ b)) == 0
}

/// The length of a name and its first letter in lower case. Every header of every request is
/// checked here; these two values exclude nearly all headers that do not matter.
#[inline]
fn shape(name: &str) -> (usize, u8) {
    (name.len(), name.as_bytes().first().map_or(0, u8::to_ascii_lowercase))
}

/// True for headers in which a proxy says for whom it speaks. From an untrusted sender they are
/// only a claim, but a backend or one of its nodes may believe it.
#[must_use]
#[inline]
pub fn is_forwarding(name: &str) -> bool {
    const PREFIX: &str = "x-forwarded-";
    let is = |other: &str| is_same(name, other);
    match shape(name) {
        (9, b'f') => is("forwarded"),
        (14, b't') => is("true-client-ip"),
        (16, b'c') => is("cf-connecting-ip"),
        (16, b'f') => is("fastly-client-ip"),
        (9, b'x') if is("x-real-ip") => true,
        (11, b'x') if is("x-client-ip") => true,
        (19, b'x') if is("x-cluster-client-ip") => true,
        (24, b'x') if is("x-original-forwarded-for") => true,
        (_, b'x') => {
            let start = name.as_bytes().get(..PREFIX.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
        }
        _ => false,
    }
}

/// True for `Comfy-User`, in any case.
#[must_use]
#[inline]
pub fn names_a_user(name: &str) -> bool {
    is_same(name, "comfy-user")
}

/// What happens to a header of a request that is passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestHeader {
    PassedOn,
    /// It is for this hop or for us.
    EndsHere,
    Host,
    ClientId,
    Cookie,
    ForwardedFor,
    ForwardedProto,
    /// Another header in which a proxy says for whom it speaks.
    Forwarding,
    /// Which page the request comes from.
    Site,
    /// How the browser uses the answer.
    Mode,
    Accept,
    Connection,
    /// The length of the body.
    Length,
    /// The request cannot just be passed on: this header changes the connection, or how the body is
    /// sent.
    Special,
}

impl RequestHeader {
    /// `front::headers` explains why `Host` and `Sec-Fetch-Site` are removed, and `front::cors` how
    /// they are used before that.
    #[must_use]
    #[inline]
    pub fn of(name: &str) -> Self {
        let is = |other: &str| is_same(name, other);
        match shape(name) {
            (4, b'h') if is("host") => Self::Host,
            (6, b'a') if is("accept") => Self::Accept,
            (6, b'c') if is("cookie") => Self::Cookie,
            (6, b'e') if is("expect") => Self::Special,
            (6, b'o') if is("origin") => Self::Special,
            (7, b'u') if is("upgrade") => Self::Special,
            (10, b'c') if is("connection") => Self::Connection,
            (14, b'c') if is("content-length") => Self::Length,
            (14, b's') if is("sec-fetch-site") => Self::Site,
            (14, b's') if is("sec-fetch-mode") => Self::Mode,
            (15, b'x') if is("x-forwarded-for") => Self::ForwardedFor,
            (15, b'c') if is("comfy-client-id") => Self::ClientId,
            (17, b't') if is("transfer-encoding") => Self::Special,
            (17, b'x') if is("x-forwarded-proto") => Self::ForwardedProto,
            _ if is_of_one_hop(name) => Self::EndsHere,
            _ if is_forwarding(name) => Self::Forwarding,
            _ => Self::PassedOn,
        }
    }

    /// True if it is not sent to a backend.
    #[must_use]
    pub fn ends_here(self) -> bool {
        match self {
            Self::EndsHere | Self::ClientId | Self::Site | Self::Connection | Self::Special => true,
            Self::PassedOn
            | Self::Host
            | Self::Length
            | Self::Cookie
            | Self::ForwardedFor
            | Self::ForwardedProto
            | Self::Forwarding
            | Self::Mode
            | Self::Accept => false,
        }
    }
}

/// What happens to a header of an answer that is passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnswerHeader {
    PassedOn,
    EndsHere,
    Connection,
    ContentLength,
    TransferEncoding,
    SetCookie,
    Location,
    Date,
}

impl AnswerHeader {
    /// Our own two headers are set by us only.
    #[must_use]
    #[inline]
    pub fn of(name: &str) -> Self {
        let is = |other: &str| is_same(name, other);
        match shape(name) {
            (4, b'd') if is("date") => Self::Date,
            (8, b'l') if is("location") => Self::Location,
            (10, b'c') if is("connection") => Self::Connection,
            (10, b's') if is("set-cookie") => Self::SetCookie,
            (14, b'c') if is("content-length") => Self::ContentLength,
            (15, b'm') if is("mooring-backend") => Self::EndsHere,
            (17, b't') if is("transfer-encoding") => Self::TransferEncoding,
            (17, b'm') if is("mooring-placement") => Self::EndsHere,
            _ if is_of_one_hop(name) => Self::EndsHere,
            _ => Self::PassedOn,
        }
    }

    /// True if it is not sent to a client.
    #[must_use]
    pub fn ends_here(self) -> bool {
        match self {
            Self::EndsHere | Self::Connection | Self::TransferEncoding => true,
            Self::PassedOn
            | Self::ContentLength
            | Self::SetCookie
            | Self::Location
            | Self::Date => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 7.6.1, and what is ours.
    #[test]
    fn what_is_for_one_hop_ends_here_both_ways_whatever_its_case() {
        let for_one_hop = [
            "Connection",
            "keep-alive",
            "Proxy-Connection",
            "TE",
            "trailer",
            "Transfer-Encoding",
            "UPGRADE",
            "proxy-authenticate",
            "Proxy-Authorization",
        ];
        for name in for_one_hop {
            assert!(RequestHeader::of(name).ends_here(), "{name} to a backend");
            assert!(AnswerHeader::of(name).ends_here(), "{name} to a client");
        }
        for name in ["Origin", "expect", "Sec-Fetch-Site", "comfy-client-id"] {
            assert!(RequestHeader::of(name).ends_here(), "{name}");
        }
        for name in ["Mooring-Backend", "mooring-placement"] {
            assert!(AnswerHeader::of(name).ends_here(), "{name}");
        }
    }

    #[test]
    fn what_a_proxy_says_of_others_is_forwarding_whatever_its_case() {
        let names = "forwarded x-real-ip x-client-ip true-client-ip cf-connecting-ip \
            fastly-client-ip x-cluster-client-ip x-original-forwarded-for x-forwarded-host \
            x-forwarded-prefix X-Forwarded-Client-Cert x-forwarded-";
        for name in names.split_whitespace() {
            assert!(is_forwarding(name) && is_forwarding(&name.to_uppercase()), "{name}");
        }
        for name in ["", "x", "x-forward", "forwarder", "y-real-ip", "x-real-id", "from"] {
            assert!(!is_forwarding(name), "{name}");
        }
        assert_eq!(RequestHeader::of("X-FORWARDED-FOR"), RequestHeader::ForwardedFor);
        assert_eq!(RequestHeader::of("X-Forwarded-Proto"), RequestHeader::ForwardedProto);
    }

    #[test]
    fn who_a_user_claims_to_be_is_known_whatever_its_case() {
        for name in ["comfy-user", "Comfy-User", "COMFY-USER", "cOmFy-uSeR"] {
            assert!(names_a_user(name), "{name}");
        }
        for name in ["", "comfy", "comfy_user", "comfy-users", "xcomfy-user", "connection"] {
            assert!(!names_a_user(name), "{name}");
        }
    }

    #[test]
    fn what_nobody_knows_passes() {
        let both = ["range", "x-forward", "tee", "content-length", "content-encoding", "upgrades"];
        for name in both {
            assert!(!RequestHeader::of(name).ends_here(), "{name} to a backend");
            assert!(!AnswerHeader::of(name).ends_here(), "{name} to a client");
        }
    }
}
