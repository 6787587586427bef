//! Writes to user data: which are on their way, and which were there lately? What is known of
//! settings and files from before a write is not good any more (promise R9).
//!
//! A write that is on its way may have been done already, so nothing that it may change is known
//! until its answer is here, or is given up.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use super::cache_key::{CacheKey, Group};
use crate::lock::{Guard, Lock, rank};

/// How many writes are remembered. What was asked before them is not kept.
const RECENT_MAX: usize = 256;

/// What became of a write, as far as copies go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was refused, or never sent: all is as it was.
    NotDone,
    /// It was done, or nobody knows.
    MayBeDone,
}

/// All writes of this process.
#[derive(Debug, Default)]
pub struct Writes {
    /// How many there were.
    number: AtomicU64,
    table: Lock<Table, { rank::WRITES }>,
}

#[derive(Debug, Default)]
struct Table {
    /// What is being written, and by how many.
    on_their_way: HashMap<Group, usize>,
    /// What the last ones changed, and their numbers.
    recent: VecDeque<(u64, Vec<Group>)>,
    /// The last one of which that is not known any more.
    forgotten: u64,
}

impl Writes {
    /// How many there were. An answer to what is asked now is to be judged by it.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// A write to these is about to be sent.
    pub fn begin(&self, groups: &[Group]) {
        let mut table = self.table();
        for group in groups {
            *table.on_their_way.entry(group.clone()).or_default() += 1;
        }
    }

    /// It is over. Called once for each that began.
    pub fn end(&self, groups: &[Group], outcome: Outcome) {
        let mut table = self.table();
        for group in groups {
            let Some(count) = table.on_their_way.get_mut(group) else { continue };
            *count -= 1;
            if *count == 0 {
                table.on_their_way.remove(group);
            }
        }
        match outcome {
            Outcome::NotDone => {}
            Outcome::MayBeDone => {
                let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
                table.remember(number, groups.to_vec());
            }
        }
    }

    /// Nothing that was asked before now is good any more.
    pub fn forget_all(&self) {
        let mut table = self.table();
        table.forgotten = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        table.recent.clear();
    }

    /// True if an answer to what was asked when there were so many writes may be what was there
    /// before one of them.
    #[must_use]
    pub fn may_be_old(&self, key: &CacheKey, number: u64) -> bool {
        if !key.is_user_data() {
            return false;
        }
        let (table, group) = (self.table(), key.group());
        let mut later = table.recent.iter().filter(|(it, _)| number < *it);
        table.on_their_way.contains_key(&group)
            || number < table.forgotten
            || later.any(|(_, groups)| groups.contains(&group))
    }

    /// True if it is being written.
    #[must_use]
    pub fn is_on_its_way(&self, key: &CacheKey) -> bool {
        key.is_user_data() && self.table().on_their_way.contains_key(&key.group())
    }

    fn table(&self) -> Guard<'_, Table, { rank::WRITES }> {
        self.table.lock()
    }
}

impl Table {
    fn remember(&mut self, number: u64, groups: Vec<Group>) {
        if self.recent.len() == RECENT_MAX
            && let Some((oldest, _)) = self.recent.pop_front()
        {
            self.forgotten = oldest;
        }
        self.recent.push_back((number, groups));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn named(path: &str) -> CacheKey {
        CacheKey::own(path, "", &HeaderMap::new())
    }

    #[test]
    fn what_was_asked_before_a_write_to_it_is_not_kept_and_all_else_is() {
        let writes = Writes::default();
        let (a, b) = (named("/userdata/a.json"), named("/userdata/b.json"));
        let before = writes.number();
        writes.begin(&a.changes());
        writes.end(&a.changes(), Outcome::MayBeDone);
        assert!(writes.may_be_old(&a, before) && !writes.may_be_old(&b, before));
        assert!(!writes.may_be_old(&a, writes.number()));
        assert!(!writes.may_be_old(&CacheKey::asset("/a"), before), "it is no user data");
        for _ in 0..RECENT_MAX {
            writes.begin(&b.changes());
            writes.end(&b.changes(), Outcome::MayBeDone);
        }
        assert!(writes.may_be_old(&named("/settings"), before), "nobody knows any more");
        let before = writes.number();
        writes.forget_all();
        assert!(writes.may_be_old(&a, before));
    }

    #[test]
    fn what_is_being_written_is_not_known_until_the_last_write_to_it_is_over() {
        let writes = Writes::default();
        let (ada, settings) = (named("/settings/Comfy.A"), named("/settings"));
        writes.begin(&ada.changes());
        writes.begin(&settings.changes());
        let asked = writes.number();
        writes.end(&ada.changes(), Outcome::NotDone);
        assert!(writes.is_on_its_way(&settings) && writes.may_be_old(&settings, asked));
        assert!(!writes.is_on_its_way(&named("/users")));
        writes.end(&settings.changes(), Outcome::NotDone);
        assert!(!writes.is_on_its_way(&settings) && !writes.may_be_old(&settings, asked));
        assert_eq!(writes.number(), asked, "none was done");
    }
}
