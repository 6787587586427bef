//! A session: a browser that has logged in, as its cookie describes it. Pure: the caller passes the
//! signer.
//!
//! The cookie is the whole session: `2.ID.BROWSER.MARK.ISSUED.NAME.SIGNATURE`, with numbers as
//! hexadecimal digits. It is valid while all of this holds: the signature is ours, the user exists
//! and is unchanged ([`User::mark`]), it is not too old, and it was not ended ([`super::logouts`]).

use std::time::Duration;

use super::users::{User, UserName};

/// The first part of the text. A later version may have other parts.
const VERSION: &str = "2";

/// How far the clock may have been set back since the session was issued.
pub(super) const CLOCK_BACK: Duration = Duration::from_mins(1);

/// A browser that has logged in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// Different for each login.
    pub id: u128,
    /// The browser's name. It is also different for each login.
    pub browser: u128,
    pub user: UserName,
    /// The user's mark at the login: [`User::mark`].
    pub user_mark: u64,
    /// The time of the login, in milliseconds since 1970.
    pub issued: u64,
    /// The mark of the key that signed it.
    pub signed_by: u64,
}

/// Signs sessions.
pub trait Signs {
    /// Identifies the key.
    fn mark(&self) -> u64;

    fn sign_text(&self, text: &[u8]) -> [u8; 32];

    /// True if this is its signature of the text. In constant time.
    fn proves(&self, text: &[u8], signature: &[u8; 32]) -> bool;
}

impl Session {
    /// A new session. Both numbers are random.
    #[must_use]
    pub fn of(user: &User, (id, browser): (u128, u128), now: u64, signer: &impl Signs) -> Self {
        Self {
            id,
            browser,
            user: user.name.clone(),
            user_mark: user.mark(),
            issued: now,
            signed_by: signer.mark(),
        }
    }

    /// The value of the cookie.
    #[must_use]
    pub fn to_text(&self, signer: &impl Signs) -> String {
        let Self { id, browser, user, user_mark, issued, signed_by: _ } = self;
        let said = format!("{VERSION}.{id:032x}.{browser:032x}.{user_mark:x}.{issued:x}.{user}");
        let mut text = said.clone();
        text.push('.');
        for byte in signer.sign_text(said.as_bytes()) {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// Reads a cookie, if we have written it.
    #[must_use]
    pub fn read(value: &[u8], signer: &impl Signs) -> Option<Self> {
        let (said, signature) = std::str::from_utf8(value).ok()?.rsplit_once('.')?;
        if !signer.proves(said.as_bytes(), &digits(signature)?) {
            return None;
        }
        // The name comes last, because it may contain dots.
        let mut parts = said.splitn(6, '.');
        let mut part = || parts.next();
        part().filter(|version| *version == VERSION)?;
        Some(Self {
            id: u128::from_str_radix(part()?, 16).ok()?,
            browser: u128::from_str_radix(part()?, 16).ok()?,
            user_mark: u64::from_str_radix(part()?, 16).ok()?,
            issued: u64::from_str_radix(part()?, 16).ok()?,
            user: part()?.parse().ok()?,
            signed_by: signer.mark(),
        })
    }

    /// How much longer the session is valid, if it may last for `lifetime`. `None` once it is over.
    #[must_use]
    pub fn left(&self, lifetime: Duration, now: u64) -> Option<Duration> {
        let is_early = self.issued.saturating_sub(now) <= millis(CLOCK_BACK);
        let left = millis(lifetime).saturating_sub(now.saturating_sub(self.issued));
        (is_early && 0 < left).then(|| Duration::from_millis(left))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads 64 hexadecimal digits in lower case, so that a signature has only one spelling.
fn digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let value = |digit: &u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let [high, low] = pair else { return None };
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::auth::users::Role;

    /// A signer for tests: it hashes a key and the text.
    struct Key(u64);

    impl Signs for Key {
        fn mark(&self) -> u64 {
            self.0
        }

        fn sign_text(&self, text: &[u8]) -> [u8; 32] {
            Sha256::new().chain_update(self.0.to_be_bytes()).chain_update(text).finalize().into()
        }

        fn proves(&self, text: &[u8], signature: &[u8; 32]) -> bool {
            self.sign_text(text) == *signature
        }
    }

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_800_000_000_000;

    fn session(name: &str, generation: u64) -> Session {
        let name = name.parse().unwrap();
        let user = User { name, role: Role::Artist, generation, key: None, password: None };
        Session::of(&user, (7, 8), NOW, &Key(1))
    }

    #[test]
    fn what_is_written_is_read_as_the_same_and_by_the_same_key_alone() {
        for name in ["ada", "a.b.c@example.org", "0", "x.1"] {
            let session = session(name, 1_790_000_000);
            let text = session.to_text(&Key(1));
            assert_eq!(Session::read(text.as_bytes(), &Key(1)).as_ref(), Some(&session));
            assert_eq!(Session::read(text.as_bytes(), &Key(2)), None);
            let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
            assert!(text.bytes().all(is_octet), "it needs no escape in a cookie: {text}");
        }
    }

    #[test]
    fn it_holds_for_its_time_and_a_clock_that_went_back_a_little() {
        let session = session("ada", 1);
        let left = |now: u64| session.left(Duration::from_hours(12), now).map(|it| it.as_millis());
        assert_eq!(left(NOW), Some(u128::from(12 * HOUR)));
        assert_eq!(left(NOW + 12 * HOUR - 1), Some(1));
        assert_eq!(left(NOW + 12 * HOUR), None);
        assert_eq!(left(u64::MAX), None);
        assert_eq!(left(NOW - 60_000), Some(u128::from(12 * HOUR)));
        assert_eq!(left(NOW - 60_001), None);
        assert_eq!(session.left(Duration::ZERO, NOW), None);
    }

    #[test]
    fn another_users_or_generation_is_no_change_that_anybody_can_make() {
        let session = Session { user_mark: 5, ..session("ada", 5) };
        let text = session.to_text(&Key(1));
        let eve = text.replace(".ada.", ".eve.");
        let later = text.replace(".5.", ".6.");
        let (said, signature) = text.rsplit_once('.').unwrap();
        for forged in [
            eve,
            later,
            said.to_owned(),
            format!("{said}."),
            format!("{said}.{}", signature.to_uppercase()),
            format!("{said}.{}", "0".repeat(64)),
            format!("{said}..{signature}"),
            format!("\"{text}\""),
            format!("{text} "),
            text.replacen('1', "2", 1),
        ] {
            assert_eq!(Session::read(forged.as_bytes(), &Key(1)), None, "{forged}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_text_but_ours_is_a_session(text in "[0-9a-f.]{0,80}\\.[0-9a-f]{60,66}") {
            prop_assert_eq!(Session::read(text.as_bytes(), &Key(1)), None);
        }

        #[test]
        fn one_that_is_cut_or_changed_in_any_byte_is_none(
            at in 0_usize..200, byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let text = session("ada@example.org", 1_790_000_000).to_text(&Key(1));
            let at = at % text.len();
            let mut bytes = text.clone().into_bytes();
            if cut {
                bytes.truncate(at);
            } else {
                prop_assume!(bytes[at] != byte);
                bytes[at] = byte;
            }
            prop_assert_eq!(Session::read(&bytes, &Key(1)), None);
        }
    }
}
