//! What each header is, on its way to a backend and back: one table for both ways of answering,
//! what is passed on as bytes and what goes through the HTTP library.

/// True for headers that are for one hop: named by RFC 9110 section 7.6.1, and those that old
/// clients send all the same.
#[inline]
fn is_of_one_hop(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    // By length first: every header of every request comes by here, and few are meant.
    match name.len() {
        2 => is("te"),
        7 => is("trailer") || is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

/// True for headers in which a proxy says for whom it speaks. Of a stranger they are a claim, and
/// a backend, or a node of its, may believe it.
#[must_use]
#[inline]
pub fn is_forwarding(name: &str) -> bool {
    const PREFIX: &str = "x-forwarded-";
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let is_known = match name.len() {
        9 => is("forwarded") || is("x-real-ip"),
        11 => is("x-client-ip"),
        14 => is("true-client-ip"),
        16 => is("cf-connecting-ip") || is("fastly-client-ip"),
        19 => is("x-cluster-client-ip"),
        24 => is("x-original-forwarded-for"),
        _ => false,
    };
    let start = name.as_bytes().get(..PREFIX.len());
    is_known || start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
}

/// What a header is to a request that is passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestHeader {
    PassedOn,
    /// It is for this hop, or ours to know.
    EndsHere,
    Host,
    ClientId,
    Cookie,
    ForwardedFor,
    ForwardedProto,
    /// What a proxy says besides these of whom it speaks for.
    Forwarding,
    /// Of which page the request is.
    Site,
    /// What the browser does with the answer.
    Mode,
    Accept,
    Connection,
    /// How long the body is.
    Length,
    /// Who sends one of these asks for more than to be passed on: it changes what the connection
    /// is, or how the body comes.
    Special,
}

impl RequestHeader {
    /// `front::headers` says why `Host` and `Sec-Fetch-Site` end here, and `front::cors` what
    /// they are asked before.
    #[must_use]
    #[inline]
    pub fn of(name: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("host") => Self::Host,
            6 if is("accept") => Self::Accept,
            6 if is("cookie") => Self::Cookie,
            6 if is("expect") || is("origin") => Self::Special,
            7 if is("upgrade") => Self::Special,
            10 if is("connection") => Self::Connection,
            14 if is("content-length") => Self::Length,
            14 if is("sec-fetch-site") => Self::Site,
            14 if is("sec-fetch-mode") => Self::Mode,
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            15 if is("comfy-client-id") => Self::ClientId,
            17 if is("transfer-encoding") => Self::Special,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            _ if is_of_one_hop(name) => Self::EndsHere,
            _ if is_forwarding(name) => Self::Forwarding,
            _ => Self::PassedOn,
        }
    }

    /// True if no backend is sent it.
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

/// What a header is to an answer that is passed on.
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
    /// The two of ours are ours to say.
    #[must_use]
    #[inline]
    pub fn of(name: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("date") => Self::Date,
            8 if is("location") => Self::Location,
            10 if is("connection") => Self::Connection,
            10 if is("set-cookie") => Self::SetCookie,
            14 if is("content-length") => Self::ContentLength,
            15 if is("mooring-backend") => Self::EndsHere,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("mooring-placement") => Self::EndsHere,
            _ if is_of_one_hop(name) => Self::EndsHere,
            _ => Self::PassedOn,
        }
    }

    /// True if no client is given it.
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
    fn what_nobody_knows_passes() {
        let both = ["range", "x-forward", "tee", "content-length", "content-encoding", "upgrades"];
        for name in both {
            assert!(!RequestHeader::of(name).ends_here(), "{name} to a backend");
            assert!(!AnswerHeader::of(name).ends_here(), "{name} to a client");
        }
    }
}
