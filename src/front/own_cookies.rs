//! Our cookies: their names, and how they are read, set and recognised.
//!
//! The name depends on how a browser has reached us. Over TLS it has a prefix. Browsers accept such
//! a cookie only over TLS and only from this host, so neither a neighbouring host nor an attacker
//! on the network can set one ("Cookie Prefixes", RFC 6265bis section 4.1.3). The plain name is
//! then ignored. A cookie with `__Host-` applies to the whole host, so several gateways below
//! several paths would overwrite each other's. Therefore below a base path the prefix is
//! `__Secure-`, which an attacker on the network cannot set either.

use std::fmt::Write as _;
use std::time::Duration;

use super::caller::Door;

/// One of our cookies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OwnCookie {
    /// Identifies a browser ([`super::browsers`]).
    Page,
    /// Identifies the user who has logged in ([`super::session_cookie`]).
    Session,
    /// Binds the login form to the browser that it was shown to ([`super::login`]).
    Form,
    /// Tells the page's script whether another user has logged in. It does not reveal who, and lets
    /// nobody in.
    Mark,
}

/// How long a cookie is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// Until the browser is closed.
    WithBrowser,
    For(Duration),
    /// It is deleted.
    Never,
}

impl OwnCookie {
    const ALL: [Self; 4] = [Self::Page, Self::Session, Self::Form, Self::Mark];

    /// The name without TLS, the name with TLS, and the one with TLS below a base path.
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Page => ["mooring", "__Host-mooring", "__Secure-mooring"],
            Self::Session => {
                ["mooring_session", "__Host-mooring_session", "__Secure-mooring_session"]
            }
            Self::Form => ["mooring_form", "__Host-mooring_form", "__Secure-mooring_form"],
            Self::Mark => ["mooring_mark", "__Host-mooring_mark", "__Secure-mooring_mark"],
        }
    }

    #[must_use]
    pub fn name(self, door: Door) -> &'static str {
        let [plain, tls, below] = self.names();
        match door {
            Door::Tls => tls,
            Door::TlsBelow => below,
            Door::Plain | Door::Unknown => plain,
        }
    }

    /// Its values in a line of `Cookie`. There may be several, for several paths, or set by an
    /// attacker.
    pub fn values(self, cookies: &[u8], door: Door) -> impl Iterator<Item = &[u8]> {
        let name = self.name(door).as_bytes();
        cookies
            .split(|byte| *byte == b';')
            .filter_map(move |cookie| cookie.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
    }

    /// The header that sets it. The base path is added to its path, as for all cookies.
    #[must_use]
    pub fn set(self, door: Door, value: &str, kept: Kept) -> String {
        let mut set = format!("{}={value}; Path=/", self.name(door));
        match door {
            Door::Tls | Door::TlsBelow => set.push_str("; Secure"),
            Door::Plain | Door::Unknown => {}
        }
        match self {
            Self::Page | Self::Session | Self::Form => set.push_str("; HttpOnly"),
            Self::Mark => {}
        }
        set.push_str("; SameSite=Lax");
        // Writing to a string does not fail.
        let _ = match kept {
            Kept::WithBrowser => Ok(()),
            Kept::For(time) => write!(set, "; Max-Age={}", time.as_secs()),
            Kept::Never => write!(set, "; Max-Age=0"),
        };
        set
    }
}

/// True for one of our cookies in `Cookie` or `Set-Cookie`, under any of its names. A cookie with
/// an empty name is sent back without it: `=mooring=x` becomes `mooring=x`.
///
/// A session is a secret. So a pair that contains one counts as ours in any spelling, and a backend
/// never sees a session that was put where we do not look for it.
#[must_use]
pub fn is_own(pair: &[u8]) -> bool {
    let pair = pair.trim_ascii();
    let pair = pair.strip_prefix(b"=").unwrap_or(pair).trim_ascii_start();
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair).trim_ascii_end();
    let is_ours = |cookie: OwnCookie| cookie.names().iter().any(|own| name == own.as_bytes());
    OwnCookie::ALL.into_iter().any(is_ours) || has_session(pair)
}

fn has_session(pair: &[u8]) -> bool {
    const NAME: &[u8] = b"mooring_session";
    // For most pairs the length alone decides.
    pair.len() > NAME.len() && pair.windows(NAME.len()).any(|it| it.eq_ignore_ascii_case(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cookies_are_told_from_others() {
        for own in [
            "mooring=1",
            " mooring =1",
            "mooring",
            "__Host-mooring=",
            "__Secure-mooring=1",
            "mooring_session=1",
            "__Host-mooring_session=1",
            "=mooring_session=1",
            " mooring_session =1",
            "Mooring_Session=1",
            "a=b, mooring_session=1.2",
            "$Version=1,mooring_session=\"1\"",
            "__Secure-mooring_form=1",
            "mooring_mark=1",
        ] {
            assert!(is_own(own.as_bytes()), "{own}");
        }
        for other in [
            "xmooring=1",
            "mooring2=1",
            "a=mooring",
            "Mooring=1",
            "a=mooring=1",
            "",
            "session=1",
            "mooring-session=1",
        ] {
            assert!(!is_own(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn over_tls_a_cookie_is_for_this_very_host() {
        for cookie in OwnCookie::ALL {
            let set = cookie.set(Door::Tls, "1", Kept::WithBrowser);
            assert!(set.starts_with("__Host-mooring") && set.contains("; Secure"), "{set}");
            assert!(set.contains("; Path=/;") && !set.contains("Domain"), "{set}");
            let below = cookie.set(Door::TlsBelow, "1", Kept::WithBrowser);
            assert!(below.starts_with("__Secure-mooring") && below.contains("; Secure"), "{below}");
            let plain = cookie.set(Door::Unknown, "1", Kept::WithBrowser);
            assert!(plain.starts_with("mooring") && !plain.contains("Secure"), "{plain}");
            assert!(plain.ends_with("; SameSite=Lax"), "{plain}");
            assert_eq!(plain.contains("HttpOnly"), cookie != OwnCookie::Mark);
        }
        let hour = Kept::For(Duration::from_hours(1));
        assert!(OwnCookie::Session.set(Door::Plain, "1", hour).ends_with("; Max-Age=3600"));
        assert!(OwnCookie::Session.set(Door::Plain, "", Kept::Never).ends_with("; Max-Age=0"));
    }

    #[test]
    fn values_are_read_by_the_name_of_their_door_alone() {
        let line = b"a=b; mooring_session=1; __Host-mooring_session=2;mooring_session=3; mooring=4";
        let read = |cookie: OwnCookie, door| {
            let values = cookie.values(line, door).map(String::from_utf8_lossy);
            values.collect::<Vec<_>>().join(",")
        };
        assert_eq!(read(OwnCookie::Session, Door::Plain), "1,3");
        assert_eq!(read(OwnCookie::Session, Door::Tls), "2");
        assert_eq!(read(OwnCookie::Session, Door::TlsBelow), "");
        assert_eq!(read(OwnCookie::Page, Door::Unknown), "4");
    }
}
