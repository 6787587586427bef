//! Where tokens stand in a head, and who comes in by them. One decision, for both ways of
//! answering.
//!
//! A token stands in `Authorization: Bearer`, or in the cookie that the operator has named. The
//! cookie ends here whatever is in it. It goes along with whatever any page makes a browser send,
//! so it has the rules of a session.
//!
//! A token that let nobody in may do so a moment later, or elsewhere. So whatever has the form of
//! a token ends here too, wherever a key would let somebody in under another mode.

use std::sync::Arc;

use http::Method;

use super::{Fault, Token, parts};
use crate::auth::head::{Refusal, bearer, check_role};
use crate::auth::users::{Pass, Shown, ShownBy};

/// For how many cookies of the name a wrong signature is found. A neighbour of the same domain can
/// plant many, and a browser sends those of longer paths first: they must not hide the right one.
/// What is refused for less costs little and does not count; the size of the head bounds it.
const FORGED_MAX: usize = 4;

/// Whether a cookie lets somebody in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cookies {
    Count,
    /// The page that asks may be anybody's.
    Ignored,
}

/// Somebody who may come in.
#[derive(Clone, Debug)]
pub struct Carrier {
    pub pass: Pass,
    /// The token in `Authorization` let him in.
    by_header: bool,
    /// A token's key is not known, and may be a new one.
    pub lacks_key: bool,
}

impl Carrier {
    /// True for a line that ends here.
    #[must_use]
    pub fn spends(&self, name: &str, value: &[u8]) -> bool {
        match name.len() {
            9 if name.eq_ignore_ascii_case("x-api-key") => has_token(value),
            13 if name.eq_ignore_ascii_case("authorization") => self.by_header || has_token(value),
            _ => false,
        }
    }
}

/// Says who sends a head with these headers, each line by itself. `cookie` is the name of the one
/// that may hold a token, and `verify` says what a token says.
///
/// # Errors
/// It is nobody who may do this.
pub fn judge<'a>(
    (cookie, cookies): (Option<&str>, Cookies),
    method: &Method,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    verify: impl Fn(&[u8]) -> Result<Arc<Token>, Fault>,
) -> Result<Carrier, Refusal> {
    let (mut by_header, mut by_cookie) = (None, None);
    let (mut refusal, mut has_header, mut forged) = (Refusal::Missing, false, 0);
    let mut lacks_key = false;
    let mut refuse = |fault: Fault| {
        lacks_key |= fault == Fault::UnknownKey;
        refusal = fault.into();
    };
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("authorization") {
            // Which of two counts is for nobody to guess.
            if std::mem::replace(&mut has_header, true) {
                return Err(Refusal::Ambiguous);
            }
            let Some(text) = token(value) else { continue };
            match verify(text) {
                Ok(token) => by_header = Some(token),
                Err(fault) => refuse(fault),
            }
        } else if let (Some(cookie), Cookies::Count) = (cookie, cookies)
            && name.eq_ignore_ascii_case("cookie")
        {
            for text in values(value, cookie) {
                if FORGED_MAX <= forged {
                    break;
                }
                match verify(text) {
                    Ok(token) => note(&mut by_cookie, token)?,
                    Err(fault) => {
                        forged += usize::from(fault == Fault::Signature);
                        refuse(fault);
                    }
                }
            }
        }
    }
    let is_by_header = by_header.is_some();
    if let (Some(one), Some(other)) = (&by_header, &by_cookie)
        && !is_same(one, other)
    {
        return Err(Refusal::Ambiguous);
    }
    // That in the header is no page's of anybody.
    let by_header = by_header.map(|token| Shown { token, by: ShownBy::Header });
    let shown = by_header.or_else(|| by_cookie.map(|token| Shown { token, by: ShownBy::Cookie }));
    let shown = shown.ok_or(refusal)?;
    let user = Arc::clone(&shown.token.user);
    check_role(user.role, method)?;
    let pass = Pass { user, session: None, proxy: None, token: Some(shown) };
    Ok(Carrier { pass, by_header: is_by_header, lacks_key })
}

fn is_same(one: &Token, other: &Token) -> bool {
    one.user.name == other.user.name
}

/// Of two of one user that counts which comes first; of two users neither does.
fn note(found: &mut Option<Arc<Token>>, token: Arc<Token>) -> Result<(), Refusal> {
    match found {
        Some(first) if !is_same(first, &token) => Err(Refusal::Ambiguous),
        Some(_) => Ok(()),
        None => {
            *found = Some(token);
            Ok(())
        }
    }
}

/// The token that a value of `Authorization` holds.
#[must_use]
pub fn token(value: &[u8]) -> Option<&[u8]> {
    bearer(value).filter(|text| !text.is_empty())
}

/// True if a word of a value has the form of a token (RFC 7515 section 7.1), or of an encrypted
/// one (RFC 7516 section 7.1), whoever has made it.
#[must_use]
pub fn has_token(value: &[u8]) -> bool {
    let divides = |byte: &u8| byte.is_ascii_whitespace() || b",;\"'=:".contains(byte);
    value.split(divides).any(is_shaped)
}

fn is_shaped(word: &[u8]) -> bool {
    let mut parts = word.split(|byte| *byte == b'.');
    let header = parts.next().unwrap_or_default();
    let has_parts = matches!(parts.count(), 2 | 4);
    has_parts && parts::Object::of_any(header).is_some_and(|header| header.has("alg"))
}

/// The values of a cookie in a line of `Cookie`.
pub fn values<'a>(line: &'a [u8], cookie: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    pairs.filter_map(move |pair| pair.strip_prefix(cookie.as_bytes())?.strip_prefix(b"="))
}

/// True for a pair of a `Cookie` line that is this cookie, however it is written: what it holds is
/// a secret. One without a name comes back as if it had one: `=a=b` as `a=b`.
#[must_use]
pub fn is_it(pair: &[u8], cookie: &str) -> bool {
    let pair = pair.trim_ascii();
    let pair = pair.strip_prefix(b"=").unwrap_or(pair).trim_ascii_start();
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair).trim_ascii_end();
    name.eq_ignore_ascii_case(cookie.as_bytes())
}
