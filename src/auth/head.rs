//! Decides whether the sender of a head may come in. Pure: it is the same decision for both ways of
//! answering.
//!
//! A key is in one of three places: `Authorization: Bearer`, `X-Api-Key`, or the parameter `token`
//! of the query, where a browser cannot send a header (for a socket or a picture). Nobody behind
//! the gateway may see a key of ours: [`Spent`] says what to remove before the request is passed
//! on. If no key lets the sender in, the session of a browser may.

use std::sync::Arc;

use http::Method;

use super::session::Session;
use super::users::{Pass, Role, User, UserTable};
use crate::comfy::{endpoint, query};

/// The query parameter that contains a key.
pub const TOKEN: &str = "token";

/// The request line, with the path below the base path.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a Method,
    /// The raw path.
    pub path: &'a str,
    /// The raw query.
    pub query: &'a str,
    /// The session in the cookies, if its signature is ours and it is not over.
    pub session: Option<&'a Arc<Session>>,
}

/// A sender who may come in.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub pass: Pass,
    pub spent: Spent,
}

/// Where the request had keys of users.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Spent {
    authorization: bool,
    api_key: bool,
    /// The query has a [`TOKEN`] that is a key.
    pub token: bool,
}

impl Spent {
    /// True for a header that must not be passed on.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        match Place::of(name) {
            Some(Place::Authorization) => self.authorization,
            Some(Place::ApiKey) => self.api_key,
            None => false,
        }
    }
}

/// Why a sender may not come in, or may not do what the request asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The request does not say who sends it.
    Missing,
    /// The key belongs to no user, or the session has ended.
    Unknown,
    /// A header appears twice, or the request names two users.
    Ambiguous,
    /// The user's role allows only reading.
    OnlyReads,
    /// A proxy gives a name that no user can have.
    BadName,
    /// The user is in no group that may come in.
    NoRole,
    /// No key is known yet that could have signed the token.
    NoKeys,
}

impl Refusal {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Ambiguous => "ambiguous",
            Self::OnlyReads => "only_reads",
            Self::BadName => "bad_name",
            Self::NoRole => "no_role",
            Self::NoKeys => "no_keys",
        }
    }
}

/// A header that may hold a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Authorization,
    ApiKey,
}

impl Place {
    fn of(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            9 if is("x-api-key") => Some(Self::ApiKey),
            13 if is("authorization") => Some(Self::Authorization),
            _ => None,
        }
    }
}

/// Finds the user who sends a head with these headers. Each line of a header is one item.
///
/// # Errors
/// The sender may not do this.
pub fn judge<'a>(
    users: &UserTable,
    asked: Asked<'_>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Admitted, Refusal> {
    let mut found = Found::of(users);
    let (mut spent, mut seen) = (Spent::default(), Spent::default());
    for (name, value) in headers {
        let Some(place) = Place::of(name) else { continue };
        let (is_spent, was_seen, key) = match place {
            Place::Authorization => {
                (&mut spent.authorization, &mut seen.authorization, bearer(value))
            }
            Place::ApiKey => (&mut spent.api_key, &mut seen.api_key, Some(value.trim_ascii())),
        };
        // It must not be left to a guess which of two headers counts.
        if std::mem::replace(was_seen, true) {
            return Err(Refusal::Ambiguous);
        }
        if let Some(key) = key.filter(|key| !key.is_empty()) {
            *is_spent = found.key(key, Counts::Yes)?;
        }
        // A key in a wrong form lets nobody in, but it must still not be passed on.
        *is_spent = *is_spent || has_key(users, value);
    }
    if may_hold_token(asked.query) {
        let counts = counts(asked);
        let tokens = query::parameters(asked.query, TOKEN);
        for token in tokens.iter().filter(|token| !token.is_empty()) {
            spent.token |= found.key(token.as_bytes(), counts)?;
        }
    }
    if let Some(session) = asked.session {
        found.session(session)?;
    }
    let pass = found.pass()?;
    check_role(pass.user.role, asked.method)?;
    Ok(Admitted { pass, spent })
}

/// # Errors
/// This role does not allow the method.
pub(super) fn check_role(role: Role, method: &Method) -> Result<(), Refusal> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match role {
        Role::Viewer if !reads => Err(Refusal::OnlyReads),
        Role::Viewer | Role::Artist | Role::Operator => Ok(()),
    }
}

/// False for most queries: they cannot contain a [`TOKEN`].
#[must_use]
pub fn may_hold_token(query: &str) -> bool {
    // An escape may stand for any letter of the name.
    query.contains(TOKEN) || query.contains('%')
}

/// Whether a key in this place lets a user in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Counts {
    Yes,
    /// The key is only removed. Addresses are kept by histories, bookmarks and the logs of proxies.
    No,
}

fn counts(asked: Asked<'_>) -> Counts {
    let is_for_tokens = *asked.method == Method::GET && endpoint::has_no_headers(asked.path);
    if is_for_tokens { Counts::Yes } else { Counts::No }
}

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1). `None` for another scheme, which is
/// not meant for the gateway.
pub(super) fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let is_it =
        scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_some_and(u8::is_ascii_whitespace);
    is_it.then(|| rest.trim_ascii())
}

/// True if a word of this value is a key.
fn has_key(users: &UserTable, value: &[u8]) -> bool {
    let divides = |byte: &u8| byte.is_ascii_whitespace() || b",;\"".contains(byte);
    value.split(divides).any(|word| users.by_key(word).is_some())
}

/// What the keys and the session have given so far.
struct Found<'u> {
    users: &'u UserTable,
    user: Option<&'u Arc<User>>,
    /// The refusal if nothing else is found.
    refusal: Refusal,
    lets_in: bool,
    session: Option<&'u Arc<Session>>,
}

impl<'u> Found<'u> {
    fn of(users: &'u UserTable) -> Self {
        Self { users, user: None, refusal: Refusal::Missing, lets_in: false, session: None }
    }

    /// The session counts if no key does. If both name different users, neither lets anybody in.
    fn session(&mut self, session: &'u Arc<Session>) -> Result<(), Refusal> {
        let Some(user) = self.users.by_session(session) else {
            self.refusal = Refusal::Unknown;
            return Ok(());
        };
        if self.user.is_some_and(|other| other.name != user.name) {
            return Err(Refusal::Ambiguous);
        }
        if !self.lets_in {
            (self.user, self.session, self.lets_in) = (Some(user), Some(session), true);
        }
        Ok(())
    }

    /// True if it is the key of a user.
    fn key(&mut self, key: &[u8], counts: Counts) -> Result<bool, Refusal> {
        let Some(user) = self.users.by_key(key) else {
            if counts == Counts::Yes {
                self.refusal = Refusal::Unknown;
            }
            return Ok(false);
        };
        if self.user.is_some_and(|other| other.name != user.name) {
            return Err(Refusal::Ambiguous);
        }
        self.user = Some(user);
        self.lets_in |= counts == Counts::Yes;
        Ok(true)
    }

    fn pass(self) -> Result<Pass, Refusal> {
        let user = self.user.filter(|_| self.lets_in).ok_or(self.refusal)?;
        Ok(Pass {
            user: Arc::clone(user),
            session: self.session.map(Arc::clone),
            proxy: None,
            token: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::key::{self, KeyHash};
    use crate::auth::users::{User, UserName};

    const ADA: &str = "key-of-ada";
    const VIEWER: &str = "key-of-vic";

    fn users() -> UserTable {
        let user = |name: &str, role, key: &str| User {
            name: name.parse().unwrap(),
            role,
            generation: 1,
            key: KeyHash::of(key.as_bytes()),
            password: None,
        };
        let all = [user("ada", Role::Artist, ADA), user("vic", Role::Viewer, VIEWER)];
        UserTable::of(all).unwrap()
    }

    fn judged(line: &str, headers: &[(&str, &str)]) -> Result<(String, Spent), Refusal> {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = method.parse().unwrap();
        let asked = Asked { method: &method, path, query, session: None };
        let lines = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let admitted = judge(&users(), asked, lines)?;
        Ok((admitted.pass.user.name.to_string(), admitted.spent))
    }

    /// A session of a user who had this generation at the login.
    fn session(name: &str, generation: u64) -> Arc<Session> {
        let user: UserName = name.parse().unwrap();
        let was = users().get(&user).map(|it| User { generation, ..User::clone(it) });
        let user_mark = was.map_or(0, |it| it.mark());
        Arc::new(Session { id: 1, browser: 2, user, user_mark, issued: 3, signed_by: 4 })
    }

    /// Who comes in, and whether by a session.
    fn with_session(
        method: &Method,
        session: &Arc<Session>,
        headers: &[(&str, &str)],
    ) -> Result<(String, bool), Refusal> {
        let asked = Asked { method, path: "/queue", query: "", session: Some(session) };
        let lines = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let pass = judge(&users(), asked, lines)?.pass;
        Ok((pass.user.name.to_string(), pass.session.is_some()))
    }

    #[test]
    fn a_session_lets_in_its_user_as_he_is_and_a_key_counts_before_it() {
        let (get, post) = (Method::GET, Method::POST);
        let ada = session("ada", 1);
        let by = |is_session| Ok(("ada".to_owned(), is_session));
        assert_eq!(with_session(&post, &ada, &[]), by(true));
        assert_eq!(with_session(&get, &ada, &[("x-api-key", ADA)]), by(false));
        // A key that belongs to no user may be meant for a node pack.
        assert_eq!(with_session(&get, &ada, &[("authorization", "Bearer theirs")]), by(true));
        let two = with_session(&get, &ada, &[("x-api-key", VIEWER)]);
        assert_eq!(two, Err(Refusal::Ambiguous));
        for over in [session("ada", 2), session("ada", 0), session("eve", 1), session("Ada", 1)] {
            assert_eq!(with_session(&get, &over, &[]), Err(Refusal::Unknown), "{over:?}");
        }
        let viewer = session("vic", 1);
        assert_eq!(with_session(&post, &viewer, &[]), Err(Refusal::OnlyReads));
        assert!(with_session(&get, &viewer, &[]).is_ok());
    }

    fn who(line: &str, headers: &[(&str, &str)]) -> Result<String, Refusal> {
        judged(line, headers).map(|(name, _)| name)
    }

    #[test]
    fn a_key_lets_in_where_it_is_looked_for() {
        for (name, value) in [
            ("authorization", "Bearer key-of-ada"),
            ("Authorization", "bearer  key-of-ada "),
            ("AUTHORIZATION", "BEARER\tkey-of-ada"),
            ("x-api-key", "key-of-ada"),
            ("X-Api-Key", " key-of-ada\t"),
        ] {
            let (user, spent) = judged("POST /prompt", &[(name, value)]).unwrap();
            assert_eq!(user, "ada", "{name}: {value}");
            assert!(spent.has(name) && !spent.token, "{name}");
            assert_ne!(spent.has("authorization"), spent.has("x-api-key"));
        }
        for line in [
            "GET /ws?token=key-of-ada",
            "GET /api/ws?clientId=x&token=key-of-ada",
            "GET /view?filename=a.png&%74oken=key-of-ada",
            "GET /%77s?token=key%2Dof%2Dada",
        ] {
            let (user, spent) = judged(line, &[]).unwrap();
            assert!(user == "ada" && spent.token, "{line}");
        }
    }

    #[test]
    fn nothing_else_lets_in() {
        for (name, value, refusal) in [
            ("authorization", "key-of-ada", Refusal::Missing),
            ("authorization", "Basic a2V5LW9mLWFkYQ==", Refusal::Missing),
            ("authorization", "Basic key-of-ada", Refusal::Missing),
            ("authorization", "Bearerkey-of-ada", Refusal::Missing),
            ("authorization", "Bearer", Refusal::Missing),
            ("authorization", "Bearer  ", Refusal::Missing),
            ("authorization", "Bearer key-of-ada, Bearer key-of-ada", Refusal::Unknown),
            ("authorization", "Bearer KEY-OF-ADA", Refusal::Unknown),
            ("authorization", "Bearer key-of-ad", Refusal::Unknown),
            ("authorization", "Bearer \"key-of-ada\"", Refusal::Unknown),
            ("x-api-key", "Bearer key-of-ada", Refusal::Unknown),
            ("x-api-key", "", Refusal::Missing),
            ("x-api_key", "key-of-ada", Refusal::Missing),
            ("proxy-authorization", "Bearer key-of-ada", Refusal::Missing),
            ("cookie", "token=key-of-ada", Refusal::Missing),
        ] {
            assert_eq!(who("GET /queue", &[(name, value)]), Err(refusal), "{name}: {value}");
        }
        for line in [
            "POST /ws?token=key-of-ada",
            "HEAD /view?token=key-of-ada",
            "GET /queue?token=key-of-ada",
            "GET /?token=key-of-ada",
            "GET /-/ready?token=key-of-ada",
            "GET /ws/?token=key-of-ada",
            "GET //ws?token=key-of-ada",
            "GET /viewvideo?token=key-of-ada",
            "GET /ws?Token=key-of-ada",
            "GET /ws?a;token=key-of-ada",
            "GET /ws?token",
            "GET /ws#token=key-of-ada",
            "GET /ws%3Ftoken=key-of-ada",
        ] {
            assert_eq!(who(line, &[]), Err(Refusal::Missing), "{line}");
        }
        assert_eq!(who("GET /ws?token=other", &[]), Err(Refusal::Unknown));
    }

    #[test]
    fn two_of_one_header_and_two_users_let_nobody_in() {
        let ada = ("authorization", "Bearer key-of-ada");
        for headers in [
            [ada, ada],
            [ada, ("Authorization", "Basic x")],
            [("authorization", "Basic x"), ada],
            [ada, ("x-api-key", VIEWER)],
        ] {
            assert_eq!(who("GET /queue", &headers), Err(Refusal::Ambiguous), "{headers:?}");
        }
        let other = "GET /queue?token=key-of-vic";
        assert_eq!(who(other, &[ada]), Err(Refusal::Ambiguous));
        // The same key twice names one user. The header of another scheme is not ours.
        let (user, spent) = judged("GET /queue?token=key-of-ada", &[ada]).unwrap();
        assert!(user == "ada" && spent.token && spent.has("authorization"));
        let foreign = ("authorization", "Bearer of-a-node-pack");
        let (user, spent) = judged("GET /x", &[foreign, ("x-api-key", ADA)]).unwrap();
        assert_eq!((user.as_str(), spent.has("authorization")), ("ada", false));
        let (user, spent) = judged("GET /x?token=theirs", &[("x-api-key", ADA)]).unwrap();
        assert_eq!((user.as_str(), spent.token), ("ada", false));
    }

    #[test]
    fn a_key_in_a_wrong_form_is_taken_off_beside_one_that_lets_in() {
        for value in [
            "key-of-ada",
            "Token key-of-ada",
            "Basic\tkey-of-ada",
            "Bearer key-of-ada, Bearer key-of-ada",
            "Bearer key-of-ada,x",
            "Bearer \"key-of-ada\"",
            "Token x;key-of-vic",
        ] {
            let headers = [("X-Api-Key", ADA), ("Authorization", value)];
            let (user, spent) = judged("GET /pack", &headers).unwrap();
            assert!(user == "ada" && spent.has("authorization"), "{value}");
        }
        let headers = [("authorization", "Bearer key-of-ada"), ("x-api-key", "Bearer key-of-ada")];
        assert!(judged("GET /pack", &headers).unwrap().1.has("x-api-key"));
        // A value without one of our keys is meant for somebody else.
        let headers = [("x-api-key", ADA), ("authorization", "Token theirs, key-of-eve")];
        assert!(!judged("GET /pack", &headers).unwrap().1.has("authorization"));
    }

    #[test]
    fn a_viewer_reads_and_does_nothing_else() {
        let key = ("x-api-key", VIEWER);
        for line in ["GET /queue", "HEAD /", "GET /ws"] {
            assert_eq!(who(line, &[key]).as_deref(), Ok("vic"), "{line}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "PROPFIND"] {
            let line = format!("{method} /queue");
            assert_eq!(who(&line, &[key]), Err(Refusal::OnlyReads), "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        /// However a head is combined from such parts, it lets nobody in without a key. Every key
        /// that lets somebody in is also removed.
        #[test]
        fn without_a_key_of_ours_nobody_comes_in(
            line in "(GET|HEAD|POST|OPTIONS) (/api){0,2}/(ws|view|queue|-/ready|%77s|prompt)\
                     (\\?(token|%74oken|key|clientId)=(key-of-ada|key-of-vic|x|%6Bey-of-ada)){0,1}",
            headers in proptest::collection::vec(
                (
                    "([aA]uthorization|[xX]-[aA]pi-[kK]ey|x_api_key|cookie|proxy-authorization)",
                    "(Bearer|bearer|Basic|Token|)[ \t]{0,2}(key-of-(ada|vic|eve)|)[ ,]?",
                ),
                0..4,
            ),
        ) {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let text = format!("{line} {headers:?}");
            let has_key = ["key-of-ada", "key-of-vic", "%6Bey-of-ada"];
            if !has_key.iter().any(|key| text.contains(key)) {
                prop_assert!(who(&line, &headers).is_err());
            }
            if let Ok((user, spent)) = judged(&line, &headers) {
                // What is left lets nobody in.
                let left: Vec<(&str, &str)> =
                    headers.iter().copied().filter(|(name, _)| !spent.has(name)).collect();
                let left_line = if spent.token { line.split('?').next().unwrap() } else { &line };
                prop_assert!(who(left_line, &left).is_err(), "{user}: {left_line} {left:?}");
                let of_user = if user == "ada" { "key-of-ada" } else { "key-of-vic" };
                prop_assert!(text.replace("%6B", "k").contains(of_user));
            }
        }

        #[test]
        fn a_key_that_nobody_has_lets_nobody_in(place in 0..3_usize) {
            let key = key::mint();
            let query = if place == 2 { format!("?token={key}") } else { String::new() };
            let line = format!("GET /ws{query}");
            let bearer = format!("Bearer {key}");
            let headers = [("authorization", bearer.as_str()), ("x-api-key", key.as_str())];
            let headers = headers.get(place).map(std::slice::from_ref).unwrap_or_default();
            prop_assert_eq!(who(&line, headers), Err(Refusal::Unknown));
        }
    }
}
