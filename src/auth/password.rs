//! Passwords of users: their stored form, and the comparison with a password that was typed.
//!
//! People choose passwords that can be guessed, so the stored form is expensive to compute:
//! argon2id (RFC 9106), with the first parameters that OWASP recommends, which cost about 19 MiB
//! and tens of milliseconds of one core. Passwords are checked outside of the threads that serve
//! others, and only a few at a time.

use std::fmt;

use argon2::password_hash::phc;
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};

/// The smallest length of a new password in characters (NIST SP 800-63B section 5.1.1.2).
const CHARACTERS_MIN: usize = 8;

/// The largest length of a password in bytes. A longer text is not hashed.
const BYTES_MAX: usize = 1_024;

/// The largest memory (in KiB) and number of passes that a hash in the file may need. The writer of
/// the file is trusted, but a mistake there must not use up all memory at each login.
const MEMORY_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 16;

/// A hash for names without a password, so that refusing such a name takes as long as any other.
const OF_NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlz\
                         $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The stored form of a password: a text in PHC string format, with its salt and its cost.
#[derive(Clone, Eq, PartialEq)]
pub struct PasswordHash(Box<str>);

/// Why a password or its stored form is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPassword {
    #[error("a password has at least {CHARACTERS_MIN} characters")]
    Short,
    #[error("a password has at most {BYTES_MAX} bytes")]
    Long,
    #[error("a password has no line breaks and no other control characters")]
    Control,
    #[error(
        "a password is kept as an argon2id text (`$argon2id$v=19$…`) with at most {MEMORY_MAX} KiB \
         and {PASSES_MAX} passes; `mooring users password` writes it"
    )]
    Unkept,
    #[error("there is not enough memory to hash a password")]
    Failed,
}

impl PasswordHash {
    /// The stored form of a new password. Slow.
    ///
    /// # Errors
    /// The password is not allowed.
    pub fn of(password: &str) -> Result<Self, BadPassword> {
        check(password)?;
        let salt: [u8; 16] = rand::random();
        let hash: Result<phc::PasswordHash, _> =
            Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
        hash.map(|hash| Self(hash.to_string().into())).map_err(|_| BadPassword::Failed)
    }

    /// Reads the text from the file.
    ///
    /// # Errors
    /// The text has another form, or its hash costs too much.
    pub fn parse(text: &str) -> Result<Self, BadPassword> {
        let hash = phc::PasswordHash::new(text).map_err(|_| BadPassword::Unkept)?;
        let params = Params::try_from(&hash).map_err(|_| BadPassword::Unkept)?;
        let is_sound = hash.algorithm.as_str() == "argon2id"
            && hash.version == Some(19)
            && hash.salt.is_some()
            && hash.hash.is_some()
            && params.m_cost() <= MEMORY_MAX
            && params.t_cost() <= PASSES_MAX;
        if is_sound { Ok(Self(text.into())) } else { Err(BadPassword::Unkept) }
    }

    /// A hash that matches no password. It is checked when the user does not exist. That takes the
    /// same time, so the time of an answer does not tell which users exist.
    #[must_use]
    pub fn of_nobody() -> Self {
        Self(OF_NOBODY.into())
    }

    /// True if the password matches. Slow; compared in constant time.
    #[must_use]
    pub fn is_of(&self, password: &[u8]) -> bool {
        let Ok(hash) = phc::PasswordHash::new(&self.0) else { return false };
        let is_none = BYTES_MAX < password.len();
        // A password that is too long takes as long as a wrong one.
        let asked = if is_none { b"" } else { password };
        Argon2::default().verify_password(asked, &hash).is_ok() && !is_none
    }
}

/// Checks whether a user may have this password.
///
/// # Errors
/// The reason why not.
pub fn check(password: &str) -> Result<(), BadPassword> {
    if password.chars().any(char::is_control) {
        return Err(BadPassword::Control);
    }
    if BYTES_MAX < password.len() {
        return Err(BadPassword::Long);
    }
    let is_short = password.chars().count() < CHARACTERS_MIN;
    if is_short { Err(BadPassword::Short) } else { Ok(()) }
}

/// The form in the file.
impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_of_its_password_alone() {
        let kept = PasswordHash::of("correct horse").unwrap();
        assert!(kept.is_of(b"correct horse"));
        for other in ["", "Correct horse", "correct horse ", "correct hors", "staple"] {
            assert!(!kept.is_of(other.as_bytes()), "{other}");
        }
        assert!(!kept.is_of(&[b'x'; BYTES_MAX + 1]));
        let text = kept.to_string();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert!(!text.contains("horse") && !format!("{kept:?}").contains("argon2"));
        assert_eq!(PasswordHash::parse(&text), Ok(kept));
        assert_ne!(PasswordHash::of("correct horse").unwrap().to_string(), text, "salted");
    }

    #[test]
    fn nobody_has_the_password_of_nobody_and_it_costs_what_others_do() {
        let nobody = PasswordHash::of_nobody();
        assert_eq!(PasswordHash::parse(OF_NOBODY).as_ref(), Ok(&nobody));
        let cost = |hash: &PasswordHash| hash.to_string().split('$').nth(3).map(str::to_owned);
        assert_eq!(cost(&nobody), cost(&PasswordHash::of("some password").unwrap()));
        assert!(!nobody.is_of(b"") && !nobody.is_of(b"nobody has this"));
    }

    #[test]
    fn a_password_that_is_none_says_why() {
        for (password, why) in [
            ("", BadPassword::Short),
            ("1234567", BadPassword::Short),
            ("äöüäöüä", BadPassword::Short),
            ("with\na line break", BadPassword::Control),
            ("with\0nothing in it", BadPassword::Control),
            (&"x".repeat(BYTES_MAX + 1), BadPassword::Long),
        ] {
            assert_eq!(PasswordHash::of(password), Err(why), "{password:?}");
        }
        assert_eq!(check("12345678"), Ok(()));
        assert_eq!(check("äöüäöüäö"), Ok(()));
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_refused() {
        let salt_and_hash = OF_NOBODY.split_once("p=1").unwrap().1;
        let of = |head: &str| format!("{head}{salt_and_hash}");
        for text in [
            String::new(),
            "hunter2".to_owned(),
            "$2b$12$abcdefghijklmnopqrstuv".to_owned(),
            "$argon2id$v=19$m=19456,t=2,p=1".to_owned(),
            "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlz".to_owned(),
            of("$argon2i$v=19$m=19456,t=2,p=1"),
            of("$argon2id$v=16$m=19456,t=2,p=1"),
            of("$argon2id$v=19$m=4194304,t=2,p=1"),
            of("$argon2id$v=19$m=19456,t=99,p=1"),
            of("$argon2id$v=19$m=1,t=2,p=1"),
        ] {
            assert_eq!(PasswordHash::parse(&text), Err(BadPassword::Unkept), "{text}");
        }
        assert!(PasswordHash::parse(&of("$argon2id$v=19$m=64,t=1,p=1")).is_ok());
    }
}
