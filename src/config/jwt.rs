//! Tokens that let in their users (`auth.mode = "jwt"`): `[auth.jwt]` and the keys that it names.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::keys::RawAuthJwt;
use super::kinds::{Kind, Shape};
use super::problems::Notes;
use super::raw::Setting;
use super::tls::{self, PemPath};
use super::url::{self, BadUrl, Scheme, ServerUrl};
use super::{AuthConfig, AuthMode, Config, secret};
use crate::auth::Role;
use crate::auth::jwt::JwtRules;
use crate::auth::jwt::keys::KeySet;
use crate::net::tls::{ClientTls, Trust};

/// `[auth.jwt]`: which tokens let in their users.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtConfig {
    /// Invariant: not empty with [`AuthMode::Jwt`]; the same holds for the audience.
    pub issuer: String,
    pub audience: String,
    /// Invariant: with [`AuthMode::Jwt`] either this or `jwks_url` is set.
    pub keys_file: Option<PathBuf>,
    /// The keys of that file; empty without it, or without [`AuthMode::Jwt`].
    pub keys: Arc<KeySet>,
    pub jwks_url: Option<KeysUrl>,
    pub ca: Option<KeysCa>,
    pub cookie: Option<String>,
    pub user_claim: String,
    pub role_claim: String,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            keys_file: None,
            keys: Arc::default(),
            jwks_url: None,
            ca: None,
            cookie: None,
            user_claim: "sub".to_owned(),
            role_claim: String::new(),
        }
    }
}

/// The authorities that certify the server of the keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeysCa {
    pub path: PathBuf,
    /// Their certificates (PEM).
    pub text: String,
}

/// Where a server publishes its keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeysUrl {
    pub server: ServerUrl,
    /// The path and the query. It begins with `/`.
    pub path: String,
}

impl fmt::Display for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server, self.path)
    }
}

impl FromStr for KeysUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let after = text.find("://").map_or(text.len(), |at| at + 3);
        let end = text[after..].find(['/', '?', '#']).map_or(text.len(), |at| after + at);
        let (server, path) = text.split_at(end);
        // A user and a password may stand before the host, and are shown by no report.
        let server = url::backend(if server.contains('@') { text } else { server })?;
        let is_clear = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_clear || path.starts_with('?') {
            return Err(BadUrl::Query);
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { server, path: path.to_owned() })
    }
}

#[derive(Debug)]
pub(super) struct JwksUrl;

impl Kind for JwksUrl {
    type Value = Option<KeysUrl>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let about = |bad: BadUrl| match bad {
            BadUrl::NoScheme { text } => format!("has no scheme, did you mean `https://{text}`?"),
            BadUrl::BadScheme { .. }
            | BadUrl::NoHost
            | BadUrl::BadHost { .. }
            | BadUrl::BadPort { .. }
            | BadUrl::UserInfo
            | BadUrl::Path
            | BadUrl::Query => bad.about(text),
        };
        text.parse().map(Some).map_err(about)
    }

    fn takes(&self) -> String {
        "a URL such as \"https://login.example.org/keys\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// A text that is compared letter for letter.
#[derive(Debug)]
pub(super) struct PlainText;

impl Kind for PlainText {
    type Value = String;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<String, String> {
        const BYTES_MAX: usize = 1_024;
        if BYTES_MAX < text.len() || text.chars().any(char::is_control) {
            return Err(format!("has to be {BYTES_MAX} bytes or less, without control characters"));
        }
        Ok(text.to_owned())
    }

    fn takes(&self) -> String {
        "a text".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// The name of a claim.
#[derive(Debug)]
pub(super) struct Claim;

impl Kind for Claim {
    type Value = String;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<String, String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { PlainText.parse(text) }
    }

    fn takes(&self) -> String {
        "the name of a claim such as \"oid\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// The name of a cookie, or nothing.
#[derive(Debug)]
pub(super) struct CookieName;

impl Kind for CookieName {
    type Value = Option<String>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        // RFC 6265 section 4.1.1: a token.
        let is_letter =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !text.bytes().all(is_letter) || 256 < text.len() {
            return Err(format!("`{text}` is not the name of a cookie"));
        }
        // Mooring's own cookies hold something else.
        if text.to_ascii_lowercase().contains("mooring") {
            return Err(format!("`{text}` may be a cookie of Mooring itself, take another name"));
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn takes(&self) -> String {
        "the name of a cookie".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

pub(super) fn check(raw: RawAuthJwt, mode: AuthMode, notes: &mut Notes) -> JwtConfig {
    let RawAuthJwt { issuer, audience, keys_file, jwks_url, ca, cookie, user_claim, role_claim } =
        raw;
    let file_key = keys_file.key.clone();
    let keys_file = keys_file.check(notes);
    let keys = match (mode, &keys_file) {
        (AuthMode::Off | AuthMode::Keys | AuthMode::Header, _) | (AuthMode::Jwt, None) => {
            KeySet::default()
        }
        (AuthMode::Jwt, Some(path)) => {
            let read = secret::read(path).and_then(|text| KeySet::parse(&text));
            read.unwrap_or_else(|what| {
                notes.report(&file_key, format!("`{}` {what}", path.display()));
                KeySet::default()
            })
        }
    };
    JwtConfig {
        issuer: issuer.check(notes),
        audience: audience.check(notes),
        keys_file,
        keys: Arc::new(keys),
        jwks_url: jwks_url.check(notes),
        ca: check_ca(ca, notes),
        cookie: cookie.check(notes),
        user_claim: user_claim.check(notes),
        role_claim: role_claim.check(notes),
    }
}

fn check_ca(ca: Setting<PemPath>, notes: &mut Notes) -> Option<KeysCa> {
    let key = ca.key.clone();
    let path = ca.check(notes)?;
    let good = tls::read(&path).and_then(|text| {
        ClientTls::new(Trust::Authorities(text.as_bytes()), None, None)?;
        Ok(text)
    });
    match good {
        Ok(text) => Some(KeysCa { path, text }),
        Err(what) => {
            notes.report(&key, what);
            None
        }
    }
}

impl AuthConfig {
    /// Which tokens let in their users; `None` if none does.
    #[must_use]
    pub fn jwt_rules(&self) -> Option<JwtRules> {
        match self.mode {
            AuthMode::Jwt => {}
            AuthMode::Off | AuthMode::Keys | AuthMode::Header => return None,
        }
        let JwtConfig { issuer, audience, keys_file, keys: _, .. } = &*self.jwt;
        let JwtConfig { jwks_url, cookie, user_claim, role_claim, .. } = &*self.jwt;
        let keys_url = jwks_url.as_ref().filter(|_| keys_file.is_none());
        Some(JwtRules {
            issuer: issuer.clone(),
            audience: audience.clone(),
            keys_url: keys_url.map(ToString::to_string),
            cookie: cookie.clone(),
            user_claim: user_claim.clone(),
            role_claim: (!role_claim.is_empty()).then(|| role_claim.clone()),
            group_roles: self.group_roles.clone(),
            default_role: self.default_role,
        })
    }
}

/// What tokens need to let somebody in.
pub(super) fn check_rules(config: &Config, notes: &mut Notes) {
    match config.auth.mode {
        AuthMode::Jwt => {}
        AuthMode::Off | AuthMode::Keys | AuthMode::Header => return,
    }
    let jwt = &config.auth.jwt;
    check_roles(&config.auth, notes);
    for (key, value) in [("auth.jwt.issuer", &jwt.issuer), ("auth.jwt.audience", &jwt.audience)] {
        if notes.are_good(&[key]) && value.is_empty() {
            let what = "`auth.mode` is \"jwt\": without it a token of anybody else's would do";
            notes.report(key, what);
        }
    }
    let keys = ["auth.jwt.keys_file", "auth.jwt.jwks_url"];
    if notes.are_good(&keys) {
        match (&jwt.keys_file, &jwt.jwks_url) {
            (None, None) => {
                let what = "`auth.mode` is \"jwt\": name the keys that sign tokens, here or in \
                            `auth.jwt.keys_file`";
                notes.report("auth.jwt.jwks_url", what);
            }
            (Some(_), Some(_)) => {
                let what = "`auth.jwt.keys_file` is set too: keys come from one place";
                notes.report("auth.jwt.jwks_url", what);
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
    }
    let is_open = |url: &KeysUrl| {
        url.server.scheme == Scheme::Http && !is_this_machine(&url.server.address.host)
    };
    if notes.are_good(&["auth.jwt.jwks_url"]) && jwt.jwks_url.as_ref().is_some_and(is_open) {
        let what = "is no `https://`: whoever is on the way to it can put in keys of his own, and \
                    come in as anybody; `auth.jwt.ca` names an authority of your own, and \
                    `auth.jwt.keys_file` needs no URL";
        notes.report("auth.jwt.jwks_url", what);
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |it| it.is_loopback())
}

/// Roles that nobody can have, and such as one gets by saying less.
fn check_roles(auth: &AuthConfig, notes: &mut Notes) {
    const CLAIM: &str = "auth.jwt.role_claim";
    const GROUPS: &str = "auth.group_roles";
    const DEFAULT: &str = "auth.default_role";
    let is_said = !auth.jwt.role_claim.is_empty();
    if notes.are_good(&[CLAIM, GROUPS]) && !is_said && !auth.group_roles.is_empty() {
        notes.report(GROUPS, "nobody says the groups: set `auth.jwt.role_claim`");
    }
    if notes.are_good(&[CLAIM, DEFAULT]) && !is_said && auth.default_role.is_none() {
        notes.report(DEFAULT, "nobody could come in: set `auth.jwt.role_claim`");
    }
    let least = auth.group_roles.iter().map(|(_, role)| *role).min();
    if notes.are_good(&[GROUPS, DEFAULT]) && least.is_some_and(|it| Some(it) < auth.default_role) {
        let what = "is more than a group of `auth.group_roles` may do: a token without \
                    `auth.jwt.role_claim` may do more than one with it";
        notes.remark(DEFAULT, what);
    }
    if notes.are_good(&[DEFAULT]) && auth.default_role == Some(Role::Operator) {
        let what = "makes an operator of everybody with a token that says nothing else: an \
                    operator may do all that `admin.token` allows";
        notes.remark(DEFAULT, what);
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::Role;
    use crate::config::{Sources, check as check_all, load};

    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    const JWT: (&str, &str) = ("auth.mode", "jwt");
    const ISSUER: (&str, &str) = ("auth.jwt.issuer", "https://login.example");
    const AUDIENCE: (&str, &str) = ("auth.jwt.audience", "comfy");
    const URL: (&str, &str) = ("auth.jwt.jwks_url", "https://login.example/keys?v=1");

    const OPEN_URL: (&str, &str) = ("auth.jwt.jwks_url", "http://login.example/keys");
    const GROUPS: (&str, &str) = ("auth.group_roles", "guests=viewer");
    const NOBODY: (&str, &str) = ("auth.default_role", "none");

    fn sources(flags: &[(&str, &str)]) -> Sources {
        let backend = [("backends.a.url", "http://a:1")];
        let flags = backend.iter().chain(flags);
        let flags = flags.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Sources { flags: flags.collect(), ..Sources::default() }
    }

    #[test]
    fn what_is_missing_or_wrong_is_told() {
        for (flags, told) in [
            (&[JWT, AUDIENCE, URL][..], "auth.jwt.issuer"),
            (&[JWT, ISSUER, URL], "auth.jwt.audience"),
            (&[JWT, ISSUER, AUDIENCE], "name the keys that sign tokens"),
            (&[JWT, ISSUER, AUDIENCE, ("auth.jwt.keys_file", "/nowhere/keys")], "cannot be read"),
            (&[("auth.jwt.jwks_url", "login.example/keys")], "https://"),
            (&[("auth.jwt.jwks_url", "ftp://login.example/keys")], "not possible here"),
            (&[("auth.jwt.jwks_url", "https://login.example/keys#a")], "not possible"),
            (&[("auth.jwt.cookie", "a=b")], "not the name of a cookie"),
            (&[("auth.jwt.cookie", "__Host-mooring_session")], "Mooring itself"),
            (&[("auth.jwt.user_claim", "")], "is empty"),
            (&[JWT, ISSUER, AUDIENCE, URL, GROUPS], "set `auth.jwt.role_claim`"),
            (&[JWT, ISSUER, AUDIENCE, URL, NOBODY], "nobody could come in"),
            (&[JWT, ISSUER, AUDIENCE, OPEN_URL], "is no `https://`"),
            (&[("auth.jwt.ca", "/nowhere/ca.crt")], "/nowhere/ca.crt"),
            (&[("auth.jwt.ca", "/proc/self/cmdline")], "auth.jwt.ca"),
        ] {
            let problems = load(&sources(flags)).unwrap_err().to_string();
            assert!(problems.contains(told), "{flags:?}: {problems}");
        }
        let shown = load(&sources(&[("auth.jwt.jwks_url", "https://me:s3cret@login.example/")]));
        assert!(!shown.unwrap_err().to_string().contains("s3cret"));
        let flags = [JWT, ISSUER, AUDIENCE, URL, GROUPS, ("auth.jwt.role_claim", "groups")];
        let warnings = check_all(&sources(&flags)).warnings;
        assert!(warnings.iter().any(|it| it.to_string().contains("may do more")), "{warnings:?}");
        let flags = [JWT, ISSUER, AUDIENCE, URL, ("auth.default_role", "operator")];
        let warnings = check_all(&sources(&flags)).warnings;
        assert!(warnings.iter().any(|it| it.to_string().contains("admin.token")), "{warnings:?}");
        for own in ["http://127.0.0.1/keys", "http://[::1]:9/keys", "http://localhost/@keys/v1"] {
            let checked = load(&sources(&[JWT, ISSUER, AUDIENCE, ("auth.jwt.jwks_url", own)]));
            assert!(checked.is_ok(), "{own}: {checked:?}");
        }
    }

    #[test]
    fn keys_come_from_a_url_or_from_a_file() {
        let config = load(&sources(&[JWT, ISSUER, AUDIENCE, URL])).unwrap();
        let url = config.auth.jwt.jwks_url.as_ref().unwrap();
        assert_eq!((&*url.server.address.host, url.server.address.port), ("login.example", 443));
        assert_eq!(url.path, "/keys?v=1");
        let rules = config.auth.jwt_rules().unwrap();
        assert_eq!((&*rules.user_claim, rules.role_claim), ("sub", None));
        assert_eq!(rules.default_role, Some(Role::Artist));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ED25519).unwrap();
        let path = file.path().display().to_string();
        let named = ("auth.jwt.keys_file", &*path);
        assert_eq!(load(&sources(&[JWT, ISSUER, AUDIENCE, named])).unwrap().auth.jwt.keys.len(), 1);
        let both = load(&sources(&[JWT, ISSUER, AUDIENCE, named, URL])).unwrap_err();
        assert!(both.to_string().contains("keys come from one place"), "{both}");
        std::fs::write(file.path(), ED25519.replace("MCow", "AAAA")).unwrap();
        assert!(load(&sources(&[JWT, ISSUER, AUDIENCE, named])).is_err());
        // Under another mode the file is not read.
        assert!(load(&sources(&[named])).is_ok());
    }
}
