//! The user whom a proxy in front names in a header (`auth.mode = "header"`). Pure: it is the same
//! decision for both ways of answering.
//!
//! The caller has checked that the other end is that proxy. From anybody else these headers do not
//! count. They are never passed on, whoever has sent them.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::head::{Refusal, check_role};
use super::users::{Pass, Role, User, UserName};

/// The headers of the proxy, and what they mean.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyRules {
    /// Contains the name of a user.
    pub header: HeaderName,
    /// Contains the names of the user's groups, separated by commas.
    pub groups_header: Option<HeaderName>,
    /// Groups, with the role of their members.
    pub group_roles: Vec<(String, Role)>,
    /// The role of users who are in none of these groups. `None` does not let them in.
    pub default_role: Option<Role>,
}

impl ProxyRules {
    /// True for a header that must not be passed on.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let is = |header: &HeaderName| name.eq_ignore_ascii_case(header.as_str());
        is(&self.header) || self.groups_header.as_ref().is_some_and(is)
    }

    /// The role of a user in these groups: the highest of their roles.
    fn role(&self, groups: &str) -> Option<Role> {
        let is_his = |name: &str| groups.split(',').any(|group| group.trim() == name);
        let his = self.group_roles.iter().filter(|(name, _)| is_his(name));
        his.map(|(_, role)| *role).max().or(self.default_role)
    }
}

/// Finds the user who sends a head with these headers, to use `method`. Each line of a header is
/// one item. The head comes from a trusted proxy.
///
/// # Errors
/// The sender may not do this.
pub fn judge<'a>(
    rules: &Arc<ProxyRules>,
    method: &Method,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Pass, Refusal> {
    let (mut user, mut groups) = (None, None);
    for (name, value) in headers.filter(|(name, _)| rules.has(name)) {
        let is_user = name.eq_ignore_ascii_case(rules.header.as_str());
        let said: &mut Option<&[u8]> = if is_user { &mut user } else { &mut groups };
        // One of them may come from the client.
        if said.replace(value.trim_ascii()).is_some() {
            return Err(Refusal::Ambiguous);
        }
    }
    let name = user.filter(|name| !name.is_empty()).ok_or(Refusal::Missing)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Refusal::BadName);
    let name = text(name)?.parse::<UserName>().map_err(|_| Refusal::BadName)?;
    let role = rules.role(text(groups.unwrap_or_default())?).ok_or(Refusal::NoRole)?;
    check_role(role, method)?;
    let user = User { name, role, generation: 0, key: None, password: None };
    Ok(Pass { user: Arc::new(user), session: None, proxy: Some(Arc::clone(rules)), token: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(default_role: Option<Role>) -> Arc<ProxyRules> {
        Arc::new(ProxyRules {
            header: HeaderName::from_static("remote-user"),
            groups_header: Some(HeaderName::from_static("remote-groups")),
            group_roles: vec![
                ("staff".to_owned(), Role::Artist),
                ("guests".to_owned(), Role::Viewer),
                ("gpu admins".to_owned(), Role::Operator),
            ],
            default_role,
        })
    }

    fn judged(
        rules: &Arc<ProxyRules>,
        method: &Method,
        lines: &[(&str, &str)],
    ) -> Result<(String, Role), Refusal> {
        let lines = lines.iter().map(|(name, value)| (*name, value.as_bytes()));
        let pass = judge(rules, method, lines)?;
        assert!(pass.session.is_none() && pass.proxy.is_some());
        Ok((pass.user.name.to_string(), pass.user.role))
    }

    #[test]
    fn a_user_is_who_the_proxy_says() {
        let rules = rules(Some(Role::Artist));
        for (name, value, user) in [
            ("remote-user", "ada", "ada"),
            ("Remote-User", " ada.l@example.org ", "ada.l@example.org"),
            ("REMOTE-USER", "7", "7"),
        ] {
            let told = judged(&rules, &Method::POST, &[("x", "y"), (name, value)]);
            assert_eq!(told, Ok((user.to_owned(), Role::Artist)), "{name}: {value}");
        }
    }

    #[test]
    fn absent_double_empty_and_what_is_no_name_lets_nobody_in() {
        let rules = rules(Some(Role::Artist));
        let ada = ("remote-user", "ada");
        for (lines, refusal) in [
            (&[][..], Refusal::Missing),
            (&[("remote-user", "")], Refusal::Missing),
            (&[("remote-user", " \t")], Refusal::Missing),
            (&[("remote_user", "ada")], Refusal::Missing),
            (&[("x-remote-user", "ada")], Refusal::Missing),
            (&[("remote-groups", "staff")], Refusal::Missing),
            (&[ada, ada], Refusal::Ambiguous),
            (&[ada, ("Remote-User", "eve")], Refusal::Ambiguous),
            (&[("remote-user", ""), ada], Refusal::Ambiguous),
            (&[ada, ("remote-groups", "a"), ("Remote-Groups", "staff")], Refusal::Ambiguous),
            (&[("remote-user", "ada, eve")], Refusal::BadName),
            (&[("remote-user", "ada lovelace")], Refusal::BadName),
            (&[("remote-user", "\u{e4}da")], Refusal::BadName),
            (&[("remote-user", "-ada")], Refusal::BadName),
        ] {
            assert_eq!(judged(&rules, &Method::GET, lines), Err(refusal), "{lines:?}");
        }
        let long = "a".repeat(65);
        let told = judged(&rules, &Method::GET, &[("remote-user", &long)]);
        assert_eq!(told, Err(Refusal::BadName));
        let bytes = [("remote-user", &b"ada\xff"[..])].into_iter();
        assert_eq!(judge(&rules, &Method::GET, bytes).unwrap_err(), Refusal::BadName);
    }

    #[test]
    fn the_best_of_the_groups_counts_and_else_what_everybody_may() {
        let role = |rules: &Arc<ProxyRules>, groups: &str| {
            let lines = [("remote-user", "ada"), ("remote-groups", groups)];
            judged(rules, &Method::GET, &lines).map(|(_, role)| role)
        };
        let (open, closed) = (rules(Some(Role::Viewer)), rules(None));
        for (groups, expected) in [
            ("staff", Some(Role::Artist)),
            ("guests, staff", Some(Role::Artist)),
            ("staff,gpu admins,guests", Some(Role::Operator)),
            ("guests", Some(Role::Viewer)),
            ("", None),
            ("Staff", None),
            ("staff admins", None),
            ("gpu,admins", None),
        ] {
            assert_eq!(role(&open, groups), Ok(expected.unwrap_or(Role::Viewer)), "{groups}");
            assert_eq!(role(&closed, groups), expected.ok_or(Refusal::NoRole), "{groups}");
        }
        let lines = [("remote-user", "ada"), ("remote-groups", "guests")];
        assert_eq!(judged(&open, &Method::POST, &lines), Err(Refusal::OnlyReads));
    }
}
