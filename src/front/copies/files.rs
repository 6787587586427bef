//! The known files of copies. The files of a group and the files to delete are found without a
//! search through all files. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use super::name::{Name, range_of};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Files {
    all: BTreeMap<Name, Entry>,
    /// Files that must be deleted, or could not be.
    leaving: BTreeSet<Name>,
    /// The files of each owner that count: their bytes and their number.
    share: (u64, usize),
}

impl Files {
    pub(super) fn get(&self, name: Name) -> Option<&Entry> {
        self.all.get(&name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Name, &Entry)> {
        self.all.iter().map(|(name, it)| (*name, it))
    }

    /// The total size and number of the files that count.
    pub(super) fn share(&self) -> (u64, usize) {
        self.share
    }

    /// The files that a write to this group changes.
    pub(super) fn of(&self, group: u64) -> impl Iterator<Item = Name> {
        self.all.range(range_of(group)).map(|(name, _)| *name)
    }

    /// The files that must be deleted.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (Name, &Entry)> {
        self.leaving.iter().filter_map(|name| Some((*name, self.all.get(name)?)))
    }

    pub(super) fn insert(&mut self, name: Name, it: Entry) {
        self.remove(name);
        self.all.insert(name, it);
        self.count(name, it);
    }

    /// Changes one file. False if it does not exist.
    pub(super) fn change(&mut self, name: Name, how: impl FnOnce(&mut Entry)) -> bool {
        let Some(mut it) = self.remove(name) else { return false };
        how(&mut it);
        self.insert(name, it);
        true
    }

    pub(super) fn remove(&mut self, name: Name) -> Option<Entry> {
        let it = self.all.remove(&name)?;
        self.leaving.remove(&name);
        if it.fate.counts() {
            self.share = (self.share.0 - it.bytes, self.share.1 - 1);
        }
        Some(it)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn count(&mut self, name: Name, it: Entry) {
        if it.fate.counts() {
            self.share = (self.share.0 + it.bytes, self.share.1 + 1);
        } else {
            self.leaving.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::front::copies::entry::Fate;
    use crate::front::copies::name::Owner;

    const FATES: [Fate; 5] = [Fate::Coming, Fate::Good, Fate::Surplus, Fate::Ended, Fate::Stuck];

    fn entry(bytes: u64, fate: Fate) -> Entry {
        Entry { owner: Owner(1), bytes, at: 0, code: None, fate }
    }

    proptest! {
        /// After any operations, the indexes give the same result as a search through all files.
        #[test]
        fn what_is_counted_is_what_there_is(
            steps in proptest::collection::vec((0_u8..3, 0_u64..4, 0_u128..3, 0_usize..5), 0..60),
        ) {
            let mut files = Files::default();
            for (step, group, key, fate) in steps {
                let name = Name { group, key };
                let it = entry(1 + group, FATES[fate]);
                match step {
                    0 => files.insert(name, it),
                    1 => drop(files.change(name, |entry| entry.fate = it.fate)),
                    _ => drop(files.remove(name)),
                }
            }
            let counted = files.iter().filter(|(_, it)| it.fate.counts());
            let share = counted.fold((0, 0), |all, (_, it)| (all.0 + it.bytes, all.1 + 1));
            prop_assert_eq!(files.share(), share);
            let leaving: Vec<Name> = files.leaving().map(|(name, _)| name).collect();
            let gone = files.iter().filter(|(_, it)| !it.fate.counts());
            prop_assert_eq!(leaving, gone.map(|(name, _)| name).collect::<Vec<_>>());
        }
    }
}
