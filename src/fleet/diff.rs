//! The difference between the fleet and a wanted list of backends.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::backend::Backend;
use crate::config::{BackendConfig, BackendHeaders, Config, ListedBy};
use crate::routing::ids::BackendId;

/// All changes. Made by [`between`], or by a caller that wants specific changes.
#[derive(Debug, Default, PartialEq)]
pub struct Diff {
    /// These join.
    pub join: Vec<BackendConfig>,
    /// These stay, with other settings or another name. The server is the same.
    pub adjust: Vec<(BackendId, BackendConfig)>,
    /// These leave at once, whatever work they have.
    pub leave: BTreeSet<BackendId>,
}

/// A backend of the fleet, with what the comparison needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub id: BackendId,
    pub settings: BackendConfig,
}

/// Compares the fleet with the wanted list. A server is identified by its address. The same server
/// under another name keeps its bindings and its records. Another server under the same name is a
/// new one, and the old one is renamed to `NAME~old`. If the identities show that another server
/// has the address now, the old one is gone and leaves at once. Returns the difference, and the
/// members that are no longer wanted: they leave when they have drained.
#[must_use]
pub fn between(members: &[Member], wanted: &[BackendConfig]) -> (Diff, BTreeSet<BackendId>) {
    let mut diff = Diff::default();
    for settings in wanted {
        match members.iter().find(|it| it.settings.authority == settings.authority) {
            Some(member) if is_another(&member.settings, settings) => {
                diff.leave.insert(member.id);
                diff.join.push(settings.clone());
            }
            Some(member) if member.settings == *settings => {}
            Some(member) => diff.adjust.push((member.id, settings.clone())),
            None => diff.join.push(settings.clone()),
        }
    }
    let is_wanted = |it: &Member| wanted.iter().any(|one| one.authority == it.settings.authority);
    let unwanted: Vec<&Member> = members.iter().filter(|member| !is_wanted(member)).collect();
    let mut taken: BTreeSet<String> = wanted.iter().map(|it| it.name.clone()).collect();
    // Who is called old already keeps that name: its operator may be about to say it.
    let is_old = |member: &&Member| member.settings.name.contains('~');
    let (old, others): (Vec<&Member>, Vec<&Member>) = unwanted.iter().copied().partition(is_old);
    for member in old.into_iter().chain(others) {
        let name = free_name(&member.settings.name, &taken);
        if name != member.settings.name {
            let settings = BackendConfig { name: name.clone(), ..member.settings.clone() };
            diff.adjust.push((member.id, settings));
        }
        taken.insert(name);
    }
    (diff, unwanted.into_iter().map(|member| member.id).collect())
}

/// Those of `left_over` that join beside the members, to drain, though they are not wanted. Those
/// whose address is in use, or for which there is no room, are left out.
#[must_use]
pub fn beside(members: &[Member], left_over: Vec<BackendConfig>) -> Vec<BackendConfig> {
    let settings = || members.iter().map(|it| &it.settings);
    let mut addresses: BTreeSet<String> = settings().map(|it| it.authority.clone()).collect();
    let mut names: BTreeSet<String> = settings().map(|it| it.name.clone()).collect();
    let room = Config::MEMBERS_MAX.saturating_sub(members.len());
    let joining = left_over.into_iter().filter(|it| addresses.insert(it.authority.clone()));
    let named = joining.take(room).map(|it| {
        let name = free_name(&it.name, &names);
        names.insert(name.clone());
        BackendConfig { name, ..it }
    });
    named.collect()
}

/// True if two servers with one address have different identities.
fn is_another(one: &BackendConfig, other: &BackendConfig) -> bool {
    one.identity.as_ref().zip(other.identity.as_ref()).is_some_and(|(one, other)| one != other)
}

/// The name itself, else `NAME~old`, `NAME~old2` and so on: no configured name has a `~`.
fn free_name(name: &str, taken: &BTreeSet<String>) -> String {
    let base = name.split('~').next().unwrap_or(name);
    let others = (1..).map(|number| match number {
        1 => format!("{base}~old"),
        _ => format!("{base}~old{number}"),
    });
    let mut names = std::iter::once(name.to_owned()).chain(others);
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}

/// The result of applying a difference.
#[derive(Debug, Default)]
#[must_use = "those that joined have to be looked at, and those that left to be forgotten"]
pub struct Applied {
    pub joined: Vec<Arc<Backend>>,
    pub left: Vec<Arc<Backend>>,
    /// These have other settings now, are now to leave, or stay after all.
    pub changed: Vec<Arc<Backend>>,
}

/// Why a difference was not applied; nothing of it was.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadDiff {
    #[error("two backends would be named {0}")]
    NameTwice(String),
    #[error("two backends would listen at {0}")]
    AddressTwice(String),
    #[error("there would be {count} backends, at most {max} are allowed")]
    TooMany { count: usize, max: usize },
    #[error(
        "there would be {count} backends together with those that drain, at most {max} are allowed"
    )]
    TooManyDrain { count: usize, max: usize },
    #[error("a backend that should change or leave no longer exists")]
    NotThere,
}

/// Checks that `diff` gives a valid fleet.
pub(super) fn check(members: &[Member], diff: &Diff) -> Result<(), BadDiff> {
    let is_member = |id: &BackendId| members.iter().any(|member| member.id == *id);
    if !diff.leave.iter().chain(diff.adjust.iter().map(|(id, _)| id)).all(is_member) {
        return Err(BadDiff::NotThere);
    }
    let stays = members.iter().filter(|member| !diff.leave.contains(&member.id));
    let adjusted = |member: &'_ Member| {
        let changed = diff.adjust.iter().find(|(id, _)| *id == member.id);
        let settings = changed.map_or(&member.settings, |(_, settings)| settings);
        (settings.name.clone(), member.settings.authority.clone())
    };
    let (mut names, mut addresses, mut count) = (BTreeSet::new(), BTreeSet::new(), 0);
    let joining = diff.join.iter().map(|it| (it.name.clone(), it.authority.clone()));
    for (name, address) in stays.map(adjusted).chain(joining) {
        count += 1;
        if !names.insert(name.clone()) {
            return Err(BadDiff::NameTwice(name));
        }
        if !addresses.insert(address.clone()) {
            return Err(BadDiff::AddressTwice(address));
        }
    }
    let max = Config::MEMBERS_MAX;
    (count <= max).then_some(()).ok_or(BadDiff::TooManyDrain { count, max })
}

/// Checks that no more backends are wanted than allowed.
pub(super) fn check_wanted(wanted: &[BackendConfig]) -> Result<(), BadDiff> {
    let (count, max) = (wanted.len(), Config::BACKENDS_MAX);
    (count <= max).then_some(()).ok_or(BadDiff::TooMany { count, max })
}

/// The settings of the placeholder for a backend of which nothing is known any more.
pub(super) fn forgotten() -> BackendConfig {
    BackendConfig {
        name: "(left)".to_owned(),
        host: String::new(),
        port: 0,
        authority: String::new(),
        weight: NonZeroU32::MIN,
        max_pending: None,
        labels: Vec::new(),
        headers: BackendHeaders::default(),
        tls: None,
        listed_by: ListedBy::default(),
        identity: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// `name=port*weight#identity`.
    fn settings(text: &str) -> BackendConfig {
        let (name, rest) = text.split_once('=').unwrap();
        let (rest, identity) = rest.split_once('#').map_or((rest, None), |(a, b)| (a, Some(b)));
        let (port, weight) = rest.split_once('*').unwrap_or((rest, "1"));
        BackendConfig {
            name: name.to_owned(),
            host: "h".to_owned(),
            port: port.parse().unwrap(),
            authority: format!("h:{port}"),
            weight: weight.parse().unwrap(),
            max_pending: None,
            labels: Vec::new(),
            headers: BackendHeaders::default(),
            tls: None,
            listed_by: ListedBy::default(),
            identity: identity.map(Arc::from),
        }
    }

    fn all(text: &str) -> Vec<BackendConfig> {
        text.split_whitespace().map(settings).collect()
    }

    fn members(text: &str) -> Vec<Member> {
        let made = (0..).zip(all(text));
        made.map(|(slot, settings)| Member { id: BackendId::nth(slot), settings }).collect()
    }

    /// The backends that join, are adjusted, and are not wanted any more.
    fn told(before: &str, wanted: &str) -> (Vec<String>, Vec<String>, Vec<u16>) {
        let (diff, unwanted) = between(&members(before), &all(wanted));
        let called = |it: &BackendConfig| format!("{}={}*{}", it.name, it.port, it.weight);
        let adjusted =
            |(id, it): &(BackendId, BackendConfig)| format!("{}:{}", id.slot(), called(it));
        assert!(diff.leave.is_empty(), "nobody leaves before he has drained");
        (
            diff.join.iter().map(called).collect(),
            diff.adjust.iter().map(adjusted).collect(),
            unwanted.iter().map(|id| id.slot()).collect(),
        )
    }

    fn expected(
        join: &[&str],
        adjust: &[&str],
        unwanted: &[u16],
    ) -> (Vec<String>, Vec<String>, Vec<u16>) {
        let owned = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
        (owned(join), owned(adjust), unwanted.to_vec())
    }

    #[test]
    fn a_server_is_known_by_where_it_listens() {
        assert_eq!(told("a=1 b=2", "a=1 b=2"), expected(&[], &[], &[]));
        assert_eq!(told("a=1", "a=1*4"), expected(&[], &["0:a=1*4"], &[]));
        assert_eq!(told("a=1", "z=1"), expected(&[], &["0:z=1*1"], &[]), "another name");
        assert_eq!(told("a=1 b=2", "b=2 c=3"), expected(&["c=3*1"], &[], &[0]));
        let swapped = told("a=1 b=2", "a=2 b=1");
        assert_eq!(swapped, expected(&[], &["1:a=2*1", "0:b=1*1"], &[]));
    }

    #[test]
    fn another_server_under_a_name_makes_the_old_one_old() {
        assert_eq!(told("a=1", "a=2"), expected(&["a=2*1"], &["0:a~old=1*1"], &[0]));
        // The fleet is in the order of its names; what is old keeps its name in any order.
        let again = told("a=2 a~old=1", "a=3");
        assert_eq!(again, expected(&["a=3*1"], &["0:a~old2=2*1"], &[0, 1]));
        let again = told("a~old=1 a=2", "a=3");
        assert_eq!(again, expected(&["a=3*1"], &["1:a~old2=2*1"], &[0, 1]));
        // The next number is free again when its server has left.
        let third = told("a=3 a~old2=2", "a=4");
        assert_eq!(third, expected(&["a=4*1"], &["0:a~old=3*1"], &[0, 1]));
        assert_eq!(told("a~old=1 a=2", "a=1"), expected(&[], &["0:a=1*1", "1:a~old=2*1"], &[1]));
    }

    #[test]
    fn what_would_be_no_fleet_is_refused() {
        let two = members("a=1 b=2");
        let join = |text| Diff { join: all(text), ..Diff::default() };
        assert_eq!(check(&two, &join("c=3")), Ok(()));
        assert_eq!(check(&two, &join("a=3")), Err(BadDiff::NameTwice("a".to_owned())));
        assert_eq!(check(&two, &join("c=2")), Err(BadDiff::AddressTwice("h:2".to_owned())));
        let leave = BTreeSet::from([BackendId::nth(0)]);
        let moved = Diff { leave: leave.clone(), ..join("a=1") };
        assert_eq!(check(&two, &moved), Ok(()), "who leaves makes room");
        let gone = Diff { leave: BTreeSet::from([BackendId::new(0, 1)]), ..Diff::default() };
        assert_eq!(check(&two, &gone), Err(BadDiff::NotThere), "of another generation");
        let adjusted =
            Diff { adjust: vec![(BackendId::nth(1), settings("a=2"))], ..Diff::default() };
        assert_eq!(check(&two, &adjusted), Err(BadDiff::NameTwice("a".to_owned())));
    }

    /// A rollout puts as many new ones beside those that drain.
    #[test]
    fn those_that_drain_do_not_count_among_those_that_may_be_wanted() {
        let many = |ports: std::ops::Range<u16>| -> String {
            ports.map(|port| format!("n{port}={port} ")).collect()
        };
        let (old, new) = (members(&many(0..600)), all(&many(600..1_200)));
        let (diff, unwanted) = between(&old, &new);
        assert_eq!((check_wanted(&new), check(&old, &diff)), (Ok(()), Ok(())));
        assert_eq!((diff.join.len(), unwanted.len()), (600, 600));
        let (count, max) = (1_001, Config::BACKENDS_MAX);
        let wanted = all(&many(0..1_001));
        assert_eq!(check_wanted(&wanted), Err(BadDiff::TooMany { count, max }));
        // All together have a limit of their own.
        let (old, new) = (members(&many(0..1_001)), all(&many(1_001..2_001)));
        let (count, max) = (2_001, Config::MEMBERS_MAX);
        let refused = check(&old, &between(&old, &new).0);
        assert_eq!(refused, Err(BadDiff::TooManyDrain { count, max }));
        assert_eq!(check(&old[1..], &between(&old[1..], &new).0), Ok(()));
    }

    #[test]
    fn what_is_left_over_joins_where_there_is_room_under_a_name_of_its_own() {
        let joined = beside(&members("a=1 b=2"), all("a=3 x=2 b~old=4 b=5"));
        let named: Vec<_> = joined.iter().map(|it| format!("{}={}", it.name, it.port)).collect();
        assert_eq!(named, ["a~old=3", "b~old=4", "b~old2=5"]);
        let many: String = (10..2_020).map(|port| format!("n{port}={port} ")).collect();
        assert_eq!(beside(&members("a=1 b=2"), all(&many)).len(), Config::MEMBERS_MAX - 2);
    }

    #[test]
    fn another_server_at_an_address_takes_the_place_of_the_one_before_at_once() {
        let wanted = all("a=1#y");
        let (diff, unwanted) = between(&members("a=1#x b=2"), &wanted);
        assert_eq!(diff.leave, BTreeSet::from([BackendId::nth(0)]));
        assert_eq!((diff.join, diff.adjust), (wanted, vec![]));
        assert_eq!(unwanted, BTreeSet::from([BackendId::nth(1)]));
        // A backend without an identity may be any server, so it counts as the one that is there.
        assert_eq!(told("a=1#x", "a=1"), expected(&[], &["0:a=1*1"], &[]));
        assert_eq!(told("a=1", "a=1#x"), expected(&[], &["0:a=1*1"], &[]));
        assert_eq!(told("a=1#x", "b=1#x"), expected(&[], &["0:b=1*1"], &[]));
    }

    /// Names to ports, weights and identities.
    fn any_fleet() -> impl Strategy<Value = Vec<BackendConfig>> {
        btree_map("[a-d]", (1..6_u16, 1..3_u32, 0..3_u8), 0..5).prop_map(|fleet| {
            let mut ports = BTreeSet::new();
            let made = fleet.into_iter().filter(|(_, (port, ..))| ports.insert(*port));
            let one = |(name, (port, weight, identity))| match identity {
                0 => settings(&format!("{name}={port}*{weight}")),
                identity => settings(&format!("{name}={port}*{weight}#{identity}")),
            };
            made.map(one).collect()
        })
    }

    proptest! {
        /// After any changes of the fleet, wanted backends are in it, others are to leave, every
        /// change can be applied, and a server keeps its id while it is a member.
        #[test]
        fn the_fleet_becomes_what_is_wanted(wishes in vec(any_fleet(), 1..6)) {
            let (mut fleet, mut next): (Vec<Member>, u16) = (Vec::new(), 0);
            for wanted in wishes {
                let (diff, unwanted) = between(&fleet, &wanted);
                prop_assert_eq!(check(&fleet, &diff), Ok(()));
                let before = fleet.clone();
                fleet.retain(|it| !diff.leave.contains(&it.id));
                for (id, settings) in diff.adjust {
                    fleet.iter_mut().find(|it| it.id == id).unwrap().settings = settings;
                }
                for settings in diff.join {
                    fleet.push(Member { id: BackendId::nth(next), settings });
                    next += 1;
                }
                for settings in &wanted {
                    let there = fleet.iter().find(|it| it.settings == *settings);
                    prop_assert!(there.is_some_and(|it| !unwanted.contains(&it.id)));
                }
                prop_assert_eq!(fleet.len(), wanted.len() + unwanted.len());
                for old in before {
                    let (id, at) = (old.id, &old.settings.authority);
                    let replaced = wanted.iter().any(|it| is_another(&old.settings, it)
                        && it.authority == *at);
                    match fleet.iter().find(|it| it.id == id) {
                        Some(now) => prop_assert_eq!(&now.settings.authority, at),
                        None => prop_assert!(replaced, "who leaves at once was another server"),
                    }
                }
            }
        }
    }
}
