//! Writes to user data: those that are being sent, and recent ones. What is known about settings
//! and files from before a write must not be used any more (promise R9).
//!
//! A write that is being sent may have been done already. So nothing that it may change counts as
//! known until its answer has arrived or is given up.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::cache_key::{CacheKey, Group};
use crate::lock::{Guard, Lock, rank};
use crate::net;

/// How many writes are remembered. Answers to requests before them are not kept.
const RECENT_MAX: usize = 256;

/// The outcome of a write, as far as copies are concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was refused or never sent: nothing has changed.
    NotDone,
    /// It was done, or the outcome is unknown.
    MayBeDone,
}

/// All writes of this process.
#[derive(Debug, Default)]
pub struct Writes {
    /// The number of writes that are over.
    number: AtomicU64,
    /// The number of writes that have begun, with any outcome.
    begun: AtomicU64,
    /// A home has stopped working on a write.
    stopped: Notify,
    table: Lock<Table, { rank::WRITES }>,
}

#[derive(Debug, Default)]
struct Table {
    /// The groups that are being written, and the number of these writes.
    on_their_way: HashMap<Group, usize>,
    /// The groups that a home is working on, with the number of writes and the start of the last
    /// one.
    at_work: HashMap<Group, (usize, Instant)>,
    /// The groups that the last writes changed, with their numbers.
    recent: VecDeque<(u64, Vec<Group>)>,
    /// The number of the last write whose groups are forgotten.
    forgotten: u64,
}

impl Writes {
    /// The number of writes. An answer must be compared with the number at the time of its request.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// The number of writes before `look`, and its result, which says who the home is. If the home
    /// changes in between, the answers of the old one are not used.
    pub fn number_before<T>(&self, look: impl FnOnce() -> T) -> (u64, T) {
        (self.number(), look())
    }

    /// The number of writes that have begun. During a write no copy is found. If this number
    /// changes meanwhile, the lookup must be repeated.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// A write to these groups is about to be sent.
    pub fn begin(&self, groups: &[Group], now: Instant) {
        let mut table = self.table();
        self.begun.fetch_add(1, Ordering::SeqCst);
        for group in groups {
            *table.on_their_way.entry(group.clone()).or_default() += 1;
            let work = table.at_work.entry(group.clone()).or_insert((0, now));
            *work = (work.0 + 1, now);
        }
    }

    /// The home does not work on it any more: its changes were read, or it will not answer. This is
    /// called once for each write that began.
    pub fn stops(&self, groups: &[Group]) {
        let mut table = self.table();
        for group in groups {
            let Some(work) = table.at_work.get_mut(group) else { continue };
            work.0 -= 1;
            if work.0 == 0 {
                table.at_work.remove(group);
            }
        }
        drop(table);
        self.stopped.notify_waiters();
    }

    /// The write is over. This is called once for each write that began.
    pub fn end(&self, groups: &[Group], outcome: Outcome) {
        let mut table = self.table();
        groups.iter().for_each(|group| count_down(&mut table.on_their_way, group));
        match outcome {
            Outcome::NotDone => {}
            Outcome::MayBeDone => {
                let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
                table.remember(number, groups.to_vec());
            }
        }
    }

    /// No answer to an earlier request may be used any more.
    pub fn forget_all(&self) {
        let mut table = self.table();
        table.forgotten = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        table.recent.clear();
    }

    /// True if the answer to a request from when `number` writes were over may be older than one of
    /// the later writes.
    #[must_use]
    pub fn may_be_old(&self, key: &CacheKey, number: u64) -> bool {
        if !key.is_user_data() {
            return false;
        }
        let Some(written_with) = key.written_with() else { return true };
        let table = self.table();
        let mut later = table.recent.iter().filter(|(it, _)| number < *it);
        written_with.iter().any(|group| table.on_their_way.contains_key(group))
            || number < table.forgotten
            || later.any(|(_, groups)| written_with.iter().any(|it| groups.contains(it)))
    }

    /// True if it is being written.
    #[must_use]
    pub fn is_on_its_way(&self, key: &CacheKey) -> bool {
        if !key.is_user_data() {
            return false;
        }
        let Some(written_with) = key.written_with() else { return true };
        let table = self.table();
        written_with.iter().any(|group| table.on_their_way.contains_key(group))
    }

    /// True if the home has been working on it for less than `busy_for`, as far as is known: it may
    /// only be busy.
    #[must_use]
    pub fn is_at_work(&self, key: &CacheKey, now: Instant, busy_for: Duration) -> bool {
        if !key.is_user_data() {
            return false;
        }
        let written_with = key.written_with();
        let table = self.table();
        let is_meant = |group: &Group| written_with.as_ref().is_none_or(|it| it.contains(group));
        let mut work = table.at_work.iter().filter(|(group, _)| is_meant(group));
        work.any(|(_, (_, since))| now < *since + busy_for)
    }

    /// Waits until the home does not work on it any more. Cancel safe.
    pub async fn until_it_stops(&self, key: &CacheKey, busy_for: Duration) {
        loop {
            // Registered before the check, so that no end is missed.
            let stopped = self.stopped.notified();
            if !self.is_at_work(key, net::now(), busy_for) {
                return;
            }
            stopped.await;
        }
    }

    fn table(&self) -> Guard<'_, Table, { rank::WRITES }> {
        self.table.lock()
    }
}

fn count_down(counts: &mut HashMap<Group, usize>, group: &Group) {
    let Some(count) = counts.get_mut(group) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(group);
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
        writes.begin(&a.changes(), net::now());
        writes.end(&a.changes(), Outcome::MayBeDone);
        assert!(writes.may_be_old(&a, before) && !writes.may_be_old(&b, before));
        assert!(!writes.may_be_old(&a, writes.number()));
        assert!(!writes.may_be_old(&CacheKey::asset("/a"), before), "it is no user data");
        for _ in 0..RECENT_MAX {
            writes.begin(&b.changes(), net::now());
            writes.end(&b.changes(), Outcome::MayBeDone);
        }
        assert!(writes.may_be_old(&named("/settings"), before), "nobody knows any more");
        let before = writes.number();
        writes.forget_all();
        assert!(writes.may_be_old(&a, before));
    }

    #[test]
    fn what_a_home_gave_that_is_the_home_no_more_is_not_kept() {
        let writes = Writes::default();
        let (asked, ()) = writes.number_before(|| writes.forget_all());
        assert!(writes.may_be_old(&named("/settings"), asked));
    }

    #[test]
    fn what_is_spelled_as_nobody_does_is_not_kept() {
        let writes = Writes::default();
        let odd = named("/userdata/..%2Fdefault%2Fa.json");
        assert!(writes.may_be_old(&odd, writes.number()));
        let plain = named("/userdata/a.json");
        let asked = writes.number();
        writes.begin(&odd.changes(), net::now());
        assert!(writes.is_on_its_way(&plain) && writes.is_on_its_way(&named("/settings")));
        writes.end(&odd.changes(), Outcome::MayBeDone);
        assert!(writes.may_be_old(&plain, asked) && !writes.is_on_its_way(&plain));
    }

    #[tokio::test]
    async fn a_home_is_at_work_until_it_stops_and_not_for_ever() {
        let writes = Writes::default();
        let (settings, t, busy_for) = (named("/settings"), net::now(), Duration::from_secs(30));
        let is_at_work = |key: &CacheKey, now| writes.is_at_work(key, now, busy_for);
        let odd = named("/userdata/..%2Fdefault%2Fcomfy.settings.json");
        assert!(!is_at_work(&odd, t), "nothing is written");
        writes.begin(&settings.changes(), t);
        writes.begin(&settings.changes(), t);
        assert!(is_at_work(&settings, t) && is_at_work(&odd, t));
        assert!(!is_at_work(&named("/users"), t));
        assert!(!is_at_work(&settings, t + busy_for), "it is taken for gone");
        writes.stops(&settings.changes());
        assert!(is_at_work(&settings, t), "there are two");
        let stops = async { writes.stops(&settings.changes()) };
        tokio::join!(writes.until_it_stops(&settings, busy_for), stops);
        assert!(writes.is_on_its_way(&settings), "what came of it is another matter");
    }

    #[test]
    fn what_is_being_written_is_not_known_until_the_last_write_to_it_is_over() {
        let writes = Writes::default();
        let (ada, settings) = (named("/settings/Comfy.A"), named("/settings"));
        writes.begin(&ada.changes(), net::now());
        writes.begin(&settings.changes(), net::now());
        let asked = writes.number();
        writes.end(&ada.changes(), Outcome::NotDone);
        assert!(writes.is_on_its_way(&settings) && writes.may_be_old(&settings, asked));
        assert!(!writes.is_on_its_way(&named("/users")));
        writes.end(&settings.changes(), Outcome::NotDone);
        assert!(!writes.is_on_its_way(&settings) && !writes.may_be_old(&settings, asked));
        assert_eq!(writes.number(), asked, "none was done");
    }
}
