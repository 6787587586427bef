//! Kinds of keys about a proxy that says who sends a request (`auth.mode = "header"`).

use http::HeaderName;
use serde_json::{Value, json};

use super::choices::Choices;
use super::cidr::Cidr;
use super::kinds::{Faults, Kind, Shape};
use super::problems::Notes;
use super::raw::Written;
use super::schema;
use super::values::{LIST_MAX, comma_separated, read_list};
use super::{AuthConfig, AuthMode, Config};
use crate::auth::{ProxyRules, Role};

/// Headers that mean something else already, so that a name in one of them would be lost or wrong.
const TAKEN: [&str; 27] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "cf-connecting-ip",
    "comfy-client-id",
    "comfy-user",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "pragma",
    "range",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "user-agent",
    "via",
];

const TAKEN_PREFIXES: [&str; 4] = ["if-", "mooring-", "proxy-", "sec-"];

const TAKEN_FORWARDING: [&str; 6] = [
    "x-api-key",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

/// The name of a header in which a proxy says something, such as `Remote-User`.
#[derive(Debug)]
pub(super) struct HeaderText;

impl Kind for HeaderText {
    type Value = Option<HeaderName>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let name: HeaderName = text
            .parse()
            .map_err(|_| format!("`{text}` is not the name of a header, such as `Remote-User`"))?;
        let taken = TAKEN.contains(&name.as_str()) || TAKEN_FORWARDING.contains(&name.as_str());
        if taken || TAKEN_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)) {
            return Err(format!("`{text}` means something else, take a header of its own"));
        }
        Ok(Some(name))
    }

    fn takes(&self) -> String {
        "the name of a header such as \"Remote-User\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// Groups and what their members may do, such as `admins=operator`.
#[derive(Debug)]
pub(super) struct GroupRoles;

impl Kind for GroupRoles {
    type Value = Vec<(String, Role)>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        comma_separated(text).map(Self::entry).collect()
    }

    fn takes(&self) -> String {
        "a list of groups with their roles such as \"admins=operator\"".to_owned()
    }

    fn schema(&self) -> Value {
        schema::list(LIST_MAX)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        read_list(self, written, Self::entry)
    }
}

impl GroupRoles {
    fn entry(text: &str) -> Result<(String, Role), String> {
        // The name of a group may have one in it, and a role has none.
        let (group, role) = text.rsplit_once('=').unwrap_or((text, ""));
        let (group, role) = (group.trim(), role.trim());
        if group.is_empty() || group.contains(',') {
            return Err(format!("`{text}`: an entry is written `GROUP=ROLE`, without commas"));
        }
        let role = role.parse::<Role>().map_err(|bad| format!("`{text}`: {bad}"))?;
        Ok((group.to_owned(), role))
    }
}

#[derive(Debug)]
pub(super) struct DefaultRole;

impl Choices for DefaultRole {
    type Value = Option<Role>;
    const WORDS: &'static [(&'static str, Option<Role>)] = &[
        ("viewer", Some(Role::Viewer)),
        ("artist", Some(Role::Artist)),
        ("operator", Some(Role::Operator)),
        ("none", None),
    ];
}

impl AuthConfig {
    /// What a proxy is believed by; `None` if none is.
    #[must_use]
    pub fn proxy_rules(&self) -> Option<ProxyRules> {
        let header = match self.mode {
            AuthMode::Header => self.header.clone()?,
            AuthMode::Off | AuthMode::Keys | AuthMode::Jwt => return None,
        };
        Some(ProxyRules {
            header,
            groups_header: self.groups_header.clone(),
            group_roles: self.group_roles.clone(),
            default_role: self.default_role,
        })
    }
}

/// A header counts only if it comes from somebody who is meant.
pub(super) fn check(config: &Config, notes: &mut Notes) {
    match config.auth.mode {
        AuthMode::Header => {}
        AuthMode::Off | AuthMode::Keys | AuthMode::Jwt => return,
    }
    let auth = &config.auth;
    if notes.are_good(&["auth.header"]) && auth.header.is_none() {
        let what = "`auth.mode` is \"header\": name the header in which the proxy says who it is";
        notes.report("auth.header", what);
    }
    if notes.are_good(&["auth.header", "auth.groups_header"])
        && auth.header.is_some()
        && auth.header == auth.groups_header
    {
        notes.report("auth.groups_header", "is the same header as `auth.header`");
    }
    if notes.are_good(&["auth.groups_header", "auth.group_roles"])
        && auth.groups_header.is_none()
        && !auth.group_roles.is_empty()
    {
        notes.report("auth.group_roles", "nobody says the groups: set `auth.groups_header`");
    }
    let least = auth.group_roles.iter().map(|(_, role)| *role).min();
    let is_less = least.is_some_and(|least| Some(least) < auth.default_role);
    if notes.are_good(&["auth.group_roles", "auth.default_role"]) && is_less {
        let what = "is more than a group of `auth.group_roles` may do: whoever gets rid of the \
                    header with his groups may do more";
        notes.remark("auth.default_role", what);
    }
    let proxies = &config.server.trusted_proxies;
    if notes.are_good(&["server.trusted_proxies"]) {
        if proxies.is_empty() {
            let what = "`auth.mode` is \"header\": list the proxy that says who it is, and nobody \
                        else";
            notes.report("server.trusted_proxies", what);
        }
        for proxies in proxies.iter().filter(|proxies| is_anybody(**proxies)) {
            let what = format!(
                "`{proxies}`: `auth.mode` is \"header\", and whoever is in there is whoever he says"
            );
            notes.report("server.trusted_proxies", what);
        }
    }
}

/// True for networks that are nobody's own: a few of them are all addresses. `10.0.0.0/8` and
/// `fc00::/7` are for private networks (RFC 1918, RFC 4193).
fn is_anybody(network: Cidr) -> bool {
    let is_private = network.to_string() == "fc00::/7";
    let least = if network.is_ipv4() { 8 } else { 16 };
    network.prefix() < least && !is_private
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, check as check_all, load};

    fn with(flags: &[(&str, &str)]) -> Result<Config, String> {
        let all = [("backends.a.url", "http://a:1"), ("auth.mode", "header")];
        let flags = all.iter().chain(flags);
        let flags = flags.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load(&Sources { flags, ..Sources::default() }).map_err(|problems| problems.to_string())
    }

    const HEADER: (&str, &str) = ("auth.header", "Remote-User");
    const PROXY: (&str, &str) = ("server.trusted_proxies", "10.0.0.7");

    #[test]
    fn a_header_counts_with_a_name_and_from_somebody_who_is_meant() {
        for (flags, said) in [
            (&[PROXY][..], "auth.header: `auth.mode` is \"header\": name the header"),
            (&[HEADER], "server.trusted_proxies: `auth.mode` is \"header\": list the proxy"),
            (&[HEADER, ("server.trusted_proxies", "0.0.0.0/0")], "`0.0.0.0/0`: `auth.mode`"),
            (&[HEADER, ("server.trusted_proxies", "10.0.0.7, ::/0")], "`::/0`: `auth.mode`"),
            (&[HEADER, ("server.trusted_proxies", "0.0.0.0/1,128.0.0.0/1")], "`128.0.0.0/1`"),
            (&[HEADER, ("server.trusted_proxies", "10.0.0.7, 2000::/3")], "`2000::/3`"),
            (&[HEADER, ("server.trusted_proxies", "96.0.0.0/7")], "`96.0.0.0/7`"),
            (&[PROXY, ("auth.header", "User-Agent")], "means something else"),
            (&[HEADER, PROXY, ("auth.groups_header", "remote-user")], "the same header"),
            (&[HEADER, PROXY, ("auth.group_roles", "a=viewer")], "set `auth.groups_header`"),
            (&[PROXY, ("auth.header", "Remote User")], "not the name of a header"),
            (&[PROXY, ("auth.header", "Cookie")], "means something else"),
            (&[PROXY, ("auth.header", "X-Forwarded-For")], "means something else"),
            (&[PROXY, ("auth.header", "Sec-Fetch-Site")], "means something else"),
            (&[HEADER, PROXY, ("auth.group_roles", "a=boss")], "a role is viewer, artist"),
            (&[HEADER, PROXY, ("auth.group_roles", "a")], "a role is viewer, artist"),
            (&[HEADER, PROXY, ("auth.group_roles", "=viewer")], "`GROUP=ROLE`"),
        ] {
            let problem = with(flags).unwrap_err();
            assert!(problem.contains(said), "{flags:?}: {problem}");
        }
    }

    #[test]
    fn a_group_that_may_do_less_than_nobody_is_remarked() {
        let remarks = |role: &str, default: &str| {
            let flags = [
                ("backends.a.url", "http://a:1"),
                ("auth.mode", "header"),
                HEADER,
                PROXY,
                ("auth.groups_header", "X-Groups"),
                ("auth.group_roles", role),
                ("auth.default_role", default),
            ];
            let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            let checked = check_all(&Sources { flags, ..Sources::default() });
            checked.warnings.iter().any(|it| it.to_string().contains("auth.default_role"))
        };
        assert!(remarks("guests=viewer", "artist"));
        assert!(!remarks("guests=viewer", "viewer") && !remarks("guests=viewer", "none"));
        assert!(!remarks("staff=artist", "artist"));
    }

    #[test]
    fn groups_and_their_roles_are_read() {
        let groups = ("auth.groups_header", "X-Forwarded-Groups");
        let roles = ("auth.group_roles", "cn=gpu=operator, staff = artist");
        let none = ("auth.default_role", "none");
        let config = with(&[HEADER, PROXY, groups, roles, none]).unwrap();
        let rules = config.auth.proxy_rules().unwrap();
        assert_eq!(rules.header, "remote-user");
        assert_eq!(rules.groups_header.unwrap(), "x-forwarded-groups");
        let roles = [("cn=gpu".to_owned(), Role::Operator), ("staff".to_owned(), Role::Artist)];
        assert_eq!((rules.group_roles, rules.default_role), (roles.to_vec(), None));
        let rules = with(&[HEADER, PROXY]).unwrap().auth.proxy_rules().unwrap();
        assert_eq!(rules.default_role, Some(Role::Artist));
    }
}
