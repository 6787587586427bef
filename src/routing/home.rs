//! Chooses the home: the backend that keeps settings, workflows and the page for everyone (promise
//! R9). Pure.
//!
//! It is chosen once and remembered, because it has what people saved. A backend that joins later
//! does not become the home, even if its name comes first.

use std::sync::Arc;

use super::ids::BackendId;

/// One backend of the fleet, with what the choice needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    pub id: BackendId,
    pub name: Arc<str>,
    pub address: Arc<str>,
    /// Which server it is, if its discovery said so.
    pub identity: Option<Arc<str>>,
    pub is_up: bool,
    /// It leaves the fleet once it has drained: what is saved there will be lost.
    pub goes: bool,
}

/// The previous home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Remembered<'a> {
    pub name: &'a str,
    pub address: &'a str,
    pub identity: Option<&'a str>,
}

impl Remembered<'_> {
    /// True if it is that server. If both identities are known and differ, the address now belongs
    /// to another server.
    #[must_use]
    pub fn is(&self, it: &Candidate) -> bool {
        let is_another = self.identity.zip(it.identity.as_deref()).is_some_and(|(a, b)| a != b);
        *it.address == *self.address && !is_another
    }
}

/// Whether all members of the fleet are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fleet {
    /// Every source of backends has answered.
    Whole,
    /// A source has not answered yet; it may list the home.
    Partial,
}

/// Why this backend is the home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HomeReason {
    /// The configuration names it.
    Named,
    /// It was the home before.
    Remembered,
    /// There is no other backend.
    Only,
    /// Nothing is configured or remembered: its name comes first.
    FirstByName,
    /// The previous home has left the fleet.
    Next,
}

impl HomeReason {
    /// The reason as a word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Remembered => "remembered",
            Self::Only => "only",
            Self::FirstByName => "first_by_name",
            Self::Next => "next",
        }
    }

    /// The reason as text for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Named => "`server.home` names it",
            Self::Remembered => "it was the home before, according to the journal",
            Self::Only => "it is the only backend",
            Self::FirstByName => "its name comes first, and `server.home` is not set",
            Self::Next => "the previous home has left the fleet",
        }
    }
}

/// Chooses among the members of a fleet, given in the order of their names. `named` is the name in
/// the configuration, or empty. `None` if there is no backend, or if the named or previous home is
/// absent and may still be found: with another home meanwhile, what is saved there would be lost.
#[must_use]
pub fn choose(
    named: &str,
    before: Option<Remembered<'_>>,
    fleet: &[Candidate],
    known: Fleet,
) -> Option<(BackendId, HomeReason)> {
    if let Some(it) = fleet.iter().find(|it| !named.is_empty() && *it.name == *named) {
        return Some((it.id, HomeReason::Named));
    }
    if !named.is_empty() && known == Fleet::Partial {
        return None;
    }
    let staying: Vec<&Candidate> = fleet.iter().filter(|it| !it.goes).collect();
    // If all are to leave, the current one is as good as any.
    let staying = if staying.is_empty() { fleet.iter().collect() } else { staying };
    let Some(before) = before else {
        let reason = if staying.len() == 1 { HomeReason::Only } else { HomeReason::FirstByName };
        return staying.first().map(|it| (it.id, reason));
    };
    if let Some(it) = staying.iter().find(|it| before.is(it)) {
        return Some((it.id, HomeReason::Remembered));
    }
    match known {
        Fleet::Whole => {}
        // The one before stays it until it is known who follows, though it is to leave.
        Fleet::Partial => {
            let before = fleet.iter().find(|it| before.is(it));
            return before.map(|it| (it.id, HomeReason::Remembered));
        }
    }
    // Probably the server was moved to another address, with what it keeps.
    let same_name = staying.iter().find(|it| *it.name == *before.name);
    let next = same_name.or_else(|| staying.iter().find(|it| it.is_up)).or(staying.first());
    next.map(|it| (it.id, HomeReason::Next))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter for each backend: upper case means up, and `-` after it means leaving.
    fn fleet(text: &str) -> Vec<Candidate> {
        let member = |(slot, word): (usize, &str)| {
            let name = word.trim_end_matches('-').to_lowercase();
            Candidate {
                id: BackendId::nth(u16::try_from(slot).unwrap()),
                address: format!("{name}:1").into(),
                identity: None,
                is_up: word.starts_with(char::is_uppercase),
                goes: word.ends_with('-'),
                name: name.into(),
            }
        };
        text.split_whitespace().enumerate().map(member).collect()
    }

    #[track_caller]
    fn check(named: &str, before: &str, of: &str, expected: Option<(&str, HomeReason)>) {
        let all = fleet(of);
        let address = format!("{before}:1");
        let known = Remembered { name: before, address: &address, identity: None };
        let known = (!before.is_empty()).then_some(known);
        let chosen = choose(named, known, &all, Fleet::Whole);
        let chosen = chosen.map(|(id, reason)| {
            let it = all.iter().find(|it| it.id == id).unwrap();
            (&*it.name, reason)
        });
        assert_eq!(chosen, expected, "{named:?} {before:?} {of:?}");
    }

    #[test]
    fn a_named_home_wins_then_the_one_before_then_the_first() {
        use HomeReason::{FirstByName, Named, Only, Remembered};
        check("b", "a", "a b", Some(("b", Named)));
        check("b", "", "a b-", Some(("b", Named)));
        check("", "b", "a b", Some(("b", Remembered)));
        check("none", "b", "a b", Some(("b", Remembered)));
        check("", "", "a b", Some(("a", FirstByName)));
        check("", "", "a- b", Some(("b", Only)));
        check("", "", "a", Some(("a", Only)));
        check("a", "a", "", None);
    }

    #[test]
    fn when_it_leaves_the_next_is_one_of_its_name_or_one_that_is_up() {
        use HomeReason::{Next, Remembered};
        check("", "a", "b C d", Some(("c", Next)));
        check("", "a", "b c", Some(("b", Next)));
        check("", "a", "A- b C", Some(("c", Next)));
        check("", "a", "a- b-", Some(("a", Remembered)));
        let moved = fleet("A B");
        let before = super::Remembered { name: "b", address: "elsewhere:1", identity: None };
        assert_eq!(choose("", Some(before), &moved, Fleet::Whole), Some((moved[1].id, Next)));
    }

    #[test]
    fn while_somebody_is_looked_for_nobody_follows_the_one_before() {
        let before = Remembered { name: "c", address: "c:1", identity: None };
        let found = |of: &str, known| choose("", Some(before), &fleet(of), known).map(|it| it.1);
        assert_eq!(found("A B", Fleet::Partial), None);
        assert_eq!(found("A B C", Fleet::Partial), Some(HomeReason::Remembered));
        assert_eq!(found("A B", Fleet::Whole), Some(HomeReason::Next));
        let named = |it| choose(it, Some(before), &fleet("A B C"), Fleet::Partial).map(|it| it.1);
        assert_eq!(named("a"), Some(HomeReason::Named));
        assert_eq!(named("d"), None, "not even the one before");
    }

    #[test]
    fn a_home_that_drains_stays_it_while_somebody_is_looked_for() {
        let before = Remembered { name: "c", address: "c:1", identity: None };
        let all = fleet("A B C-");
        let found = |known| choose("", Some(before), &all, known);
        assert_eq!(found(Fleet::Partial), Some((all[2].id, HomeReason::Remembered)));
        assert_eq!(found(Fleet::Whole), Some((all[0].id, HomeReason::Next)));
    }

    #[test]
    fn another_server_at_its_address_is_not_the_one_before() {
        let mut all = fleet("A B");
        for (was, is, reason) in [
            (Some("uid-1"), Some("uid-1"), HomeReason::Remembered),
            (Some("uid-1"), None, HomeReason::Remembered),
            (None, Some("uid-1"), HomeReason::Remembered),
            (Some("uid-1"), Some("uid-2"), HomeReason::Next),
        ] {
            all[1].identity = is.map(Arc::from);
            let before = Remembered { name: "b", address: "b:1", identity: was };
            let chosen = choose("", Some(before), &all, Fleet::Whole);
            assert_eq!(chosen, Some((all[1].id, reason)), "{was:?} {is:?}");
        }
    }
}
