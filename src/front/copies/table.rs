//! Decides which copies exist, which wait to be written, and which are in doubt. Pure: it returns
//! the next step, and is told its result.
//!
//! A copy is used only while its entry is good and no write is changing its content. A write that
//! may have been done ends all entries of its group at once. Their files are deleted later; until
//! then the group is among the doubts on the disk. So it does not matter when a file is deleted, or
//! whether that is possible.

use std::collections::{BTreeSet, HashMap};

use super::doubts::Doubts;
use super::entry::{Entry, Fate};
use super::files::Files;
use super::name::{Name, Owner};
use super::room::surplus;
use super::step::{Before, Found, Marked, Step, Written};
use super::waiting::{Queue, Waiting};
use crate::front::conditional::Whole;
use crate::front::writes::Outcome;

/// The maximum number of copies, however small they are.
pub(super) const FILES_MAX: usize = 4096;

/// The largest body that is copied, in bytes. The limit is lower if all copies together have little
/// room.
const BODY_MAX: u64 = 16 << 20;

/// The approximate size of a file without the body.
const HEAD_BYTES: u64 = 512;

/// How old a copy must be before a confirmation by the home is stored, in milliseconds.
const CONFIRMED_EVERY: u64 = 60_000;

/// The state of the copies on the disk.
#[derive(Debug)]
pub(super) struct Table {
    /// The maximum size of all copies in bytes. With 0 nothing is kept.
    limit: u64,
    folder: State,
    files: Files,
    waiting: Queue,
    /// The groups that are being written at the home, and the number of these writes.
    on_their_way: HashMap<u64, usize>,
    /// The doubts that are certainly in the file.
    marked: Doubts,
    /// The doubts that may be in the file. A new copy of these would be useless after a crash.
    may_say: Doubts,
    /// The work on the disk fails or hangs.
    is_failing: bool,
}

/// The state of the folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// It was not read yet.
    Unknown,
    /// It was not read yet, and something was written at the home: no copy in it may be used.
    Missed,
    Open,
    /// It does not exist and is not needed.
    None,
}

impl Table {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            folder: State::Unknown,
            files: Files::default(),
            waiting: Queue::default(),
            on_their_way: HashMap::new(),
            marked: Doubts::All,
            may_say: Doubts::All,
            is_failing: false,
        }
    }

    /// Sets another limit in bytes.
    pub(super) fn limit(&mut self, bytes: u64) {
        self.limit = bytes;
        if 0 < bytes && self.folder == State::None {
            self.folder = State::Unknown;
        }
    }

    pub(super) fn is_on(&self) -> bool {
        0 < self.limit
    }

    /// When the home gave the copy, in milliseconds since 1970, and its owner; if it may be used.
    pub(super) fn good(&self, name: Name) -> Option<(u64, Owner)> {
        let entry = self.files.get(name).filter(|it| it.fate == Fate::Good)?;
        let is_known = self.folder == State::Open && self.is_on();
        let is_quiet = !is_written(&self.on_their_way, name);
        (is_known && is_quiet).then_some((entry.at, entry.owner))
    }

    /// True until the folder was read.
    pub(super) fn is_unknown(&self) -> bool {
        match self.folder {
            State::Unknown | State::Missed => !self.is_failing,
            State::Open | State::None => false,
        }
    }

    /// Stores a new answer of the home. False if there is no room.
    pub(super) fn put(&mut self, name: Name, owner: Owner, at: u64, whole: Whole) -> bool {
        whole.body.len() as u64 <= self.body_max() && self.waiting.put(name, owner, at, whole)
    }

    fn body_max(&self) -> u64 {
        BODY_MAX.min(self.limit / 4)
    }

    /// True if there is no copy and none is being written.
    pub(super) fn lacks(&self, name: Name) -> bool {
        self.is_on()
            && !self.is_failing
            && !self.waiting.has(name)
            && self.files.get(name).is_none_or(|it| it.fate != Fate::Good)
    }

    /// The home has confirmed the copy. True if that must be stored.
    pub(super) fn confirm(&mut self, name: Name, at: u64) -> bool {
        let entry = self.files.get(name).filter(|it| it.fate == Fate::Good);
        if entry.is_none_or(|it| at < it.at + CONFIRMED_EVERY) {
            return false;
        }
        self.files.change(name, |it| it.at = at);
        self.waiting.confirm(name, at)
    }

    /// Ends a copy. False if there is none.
    pub(super) fn end(&mut self, name: Name) -> bool {
        self.waiting.forget(|it| it == name);
        self.files.change(name, |it| it.fate = it.fate.ended())
    }

    /// A write to these groups is about to be sent.
    pub(super) fn write_begins(&mut self, groups: &[u64]) {
        for group in groups {
            *self.on_their_way.entry(*group).or_default() += 1;
        }
    }

    /// The write is over.
    pub(super) fn write_ends(&mut self, groups: &[u64], outcome: Outcome) {
        for group in groups {
            if let Some(count) = self.on_their_way.get_mut(group) {
                *count -= 1;
                if *count == 0 {
                    self.on_their_way.remove(group);
                }
            }
        }
        match outcome {
            Outcome::NotDone => return,
            Outcome::MayBeDone => {}
        }
        if self.folder == State::Unknown {
            self.folder = State::Missed;
        }
        self.waiting.forget(|it| is_of(it, groups));
        for group in groups {
            let meant: Vec<Name> = self.files.of(*group).collect();
            for name in meant {
                self.files.change(name, |it| it.fate = it.fate.ended());
            }
        }
    }

    /// Whether it is certain that no copies of these groups are used after a crash.
    pub(super) fn is_marked(&self, groups: &[u64]) -> Marked {
        let is_known = matches!(self.folder, State::Open | State::None);
        let mut meant = groups.iter().flat_map(|group| self.files.of(*group));
        if is_known && meant.all(|name| self.marked.has(name.group)) {
            Marked::Yes
        } else if self.is_failing {
            Marked::No
        } else {
            Marked::NotYet
        }
    }

    /// The disk takes too long: nothing waits for it until it has completed a step.
    pub(super) fn hangs(&mut self) {
        self.is_failing = true;
    }

    /// The doubts to write, if they differ from those in the file.
    pub(super) fn next_doubts(&mut self) -> Option<Doubts> {
        if self.folder != State::Open {
            return None;
        }
        let is_written = self.on_their_way.keys().flat_map(|group| self.files.of(*group));
        let is_over = self.files.leaving().filter(|(_, it)| it.fate.is_in_doubt());
        let in_doubt = is_written.chain(is_over.map(|(name, _)| name));
        let doubts = Doubts::of(in_doubt.map(|name| name.group).collect());
        // While the disk fails, it is tried again each time.
        if doubts == self.marked && !self.is_failing {
            return None;
        }
        self.marked = self.marked.and(&doubts);
        self.may_say = self.may_say.or(&doubts);
        Some(doubts)
    }

    /// The doubts are written. `None` if the content of the file is unknown.
    pub(super) fn doubts_done(&mut self, doubts: Option<Doubts>) {
        self.is_failing = doubts.is_none();
        if let Some(doubts) = &doubts {
            self.may_say = doubts.clone();
        }
        self.marked = doubts.unwrap_or(Doubts::Of(BTreeSet::new()));
    }

    /// The next step. The caller reports its result before it asks for another one.
    pub(super) fn next(&mut self) -> Option<Step> {
        match self.folder {
            State::Unknown | State::Missed => {
                return Some(Step::Open { is_needed: self.is_on() });
            }
            State::None => return None,
            State::Open => {}
        }
        self.make_room(self.limit, FILES_MAX);
        if let Some(step) = self.next_removal() {
            return Some(step);
        }
        loop {
            // It is decided after the write whether the copy has ended. Also, a copy that was
            // stored must still be usable after a crash.
            let (on_their_way, may_say) = (&self.on_their_way, &self.may_say);
            let may_go = |it: Name| !is_written(on_their_way, it) && !may_say.has(it.group);
            let (name, it) = self.waiting.take(may_go)?;
            if let Some(step) = self.begin(name, it) {
                return Some(step);
            }
        }
    }

    fn begin(&mut self, name: Name, waiting: Waiting) -> Option<Step> {
        let before = self.files.get(name).copied();
        let (owner, at, whole) = match (waiting, before) {
            (Waiting::Confirm { at }, before) => {
                let owner = before.filter(|it| it.fate == Fate::Good)?.owner;
                return Some(Step::Confirm { name, owner, at });
            }
            // The owner stays the same: nobody is charged for the copies of others.
            (Waiting::Put { at, whole, .. }, Some(before)) => (before.owner, at, whole),
            (Waiting::Put { owner, at, whole }, None) => (owner, at, whole),
        };
        if before.is_some_and(|it| it.fate == Fate::Stuck) {
            return None;
        }
        let bytes = whole.body.len() as u64 + HEAD_BYTES;
        let own = before.map_or(0, |it| it.bytes);
        let files = FILES_MAX - usize::from(before.is_none());
        self.make_room(self.limit.saturating_sub(bytes.saturating_sub(own)), files);
        if let Some(step) = self.next_removal() {
            self.waiting.give_back(name, Waiting::Put { owner, at, whole });
            return Some(step);
        }
        let before = if let Some(it) = before {
            Before::Some(it.code)
        } else {
            let coming = Entry { owner, bytes, at, code: None, fate: Fate::Coming };
            self.files.insert(name, coming);
            Before::Nothing
        };
        Some(Step::Put { name, owner, at, whole, before })
    }

    fn make_room(&mut self, bytes: u64, count: usize) {
        for name in surplus(&self.files, bytes, count) {
            self.files.change(name, |it| it.fate = Fate::Surplus);
        }
    }

    fn next_removal(&self) -> Option<Step> {
        let gone = self.files.leaving().filter(|(_, it)| it.fate.goes());
        let gone: Vec<(Name, Owner)> = gone.map(|(name, it)| (name, it.owner)).collect();
        (!gone.is_empty()).then_some(Step::Remove(gone))
    }

    /// The folder was read. `None` if it does not exist.
    pub(super) fn opened(&mut self, found: Option<(Vec<Found>, Doubts)>) {
        let is_missed = self.folder == State::Missed;
        self.is_failing = false;
        self.files.clear();
        let Some((files, doubts)) = found else {
            self.folder = State::None;
            return;
        };
        self.folder = State::Open;
        for Found { name, owner, bytes, at } in files {
            let is_bad = is_missed || doubts.has(name.group);
            let fate = if is_bad { Fate::Ended } else { Fate::Good };
            self.files.insert(name, Entry { owner, bytes, at, code: None, fate });
        }
        self.may_say = doubts.clone();
        self.marked = doubts;
    }

    /// The folder could not be read.
    pub(super) fn not_opened(&mut self) {
        self.is_failing = true;
    }

    /// The folder was deleted by somebody.
    pub(super) fn lost_folder(&mut self) {
        self.folder = State::Unknown;
    }

    /// These files are deleted for good.
    pub(super) fn removed(&mut self, names: &[(Name, Owner)]) {
        for (name, _) in names {
            self.files.remove(*name);
        }
    }

    /// These files could not be deleted, or may come back after a loss of power.
    pub(super) fn not_removed(&mut self, names: &[(Name, Owner)]) {
        for (name, _) in names {
            self.files.change(*name, |it| it.fate = Fate::Stuck);
        }
    }

    /// True if a file could not be deleted, which must be tried again.
    pub(super) fn is_stuck(&self) -> bool {
        self.files.leaving().any(|(_, it)| it.fate == Fate::Stuck)
    }

    /// Tries again to delete what could not be deleted.
    pub(super) fn try_again(&mut self) {
        let stuck = self.files.leaving().filter(|(_, it)| it.fate == Fate::Stuck);
        let stuck: Vec<Name> = stuck.map(|(name, _)| name).collect();
        for name in stuck {
            self.files.change(name, |it| it.fate = Fate::Ended);
        }
    }

    /// A copy was written. If its content was changed at the home in the meantime, it has ended
    /// already.
    pub(super) fn put_done(&mut self, name: Name, at: u64, written: Written) {
        self.files.change(name, |entry| {
            (entry.bytes, entry.at, entry.code) = (written.bytes, at, Some(written.code));
            entry.fate = match entry.fate {
                Fate::Coming | Fate::Good | Fate::Surplus => Fate::Good,
                Fate::Ended | Fate::Stuck => entry.fate,
            };
        });
    }

    /// A copy was not written: the older one is not what the home has.
    pub(super) fn put_failed(&mut self, name: Name) {
        if self.files.get(name).is_some_and(|it| it.fate == Fate::Coming) {
            self.files.remove(name);
        } else {
            self.files.change(name, |it| it.fate = it.fate.ended());
        }
    }
}

fn is_written(on_their_way: &HashMap<u64, usize>, name: Name) -> bool {
    name.written_with().iter().any(|group| on_their_way.contains_key(group))
}

fn is_of(name: Name, groups: &[u64]) -> bool {
    name.written_with().iter().any(|group| groups.contains(group))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;
    use crate::front::copies::file::Code;

    const ADA: Owner = Owner(1);
    const BOB: Owner = Owner(2);

    fn name(group: u64, key: u128) -> Name {
        Name { group, key }
    }

    fn whole(bytes: usize) -> Whole {
        Whole { headers: HeaderMap::new(), body: Bytes::from(vec![b'x'; bytes]) }
    }

    fn found(group: u64, key: u128) -> Found {
        Found { name: name(group, key), owner: ADA, bytes: 1_000, at: 1 }
    }

    /// A table for a folder with these files and no doubts.
    fn opened(limit: u64, files: &[Found]) -> Table {
        let mut table = Table::new(limit);
        assert!(matches!(table.next(), Some(Step::Open { is_needed: true })));
        table.opened(Some((files.to_vec(), Doubts::of(BTreeSet::new()))));
        table
    }

    /// Does all steps, on a disk that works. Returns them in short form.
    fn run(table: &mut Table) -> Vec<String> {
        let mut done = Vec::new();
        loop {
            if let Some(doubts) = table.next_doubts() {
                done.push(match &doubts {
                    Doubts::Of(groups) => format!("doubts {groups:?}"),
                    Doubts::All => "doubts all".to_owned(),
                });
                table.doubts_done(Some(doubts));
            }
            let Some(step) = table.next() else { return done };
            match step {
                Step::Open { .. } => table.opened(Some((Vec::new(), Doubts::of(BTreeSet::new())))),
                Step::Remove(names) => {
                    let mut keys: Vec<u128> = names.iter().map(|(name, _)| name.key).collect();
                    keys.sort_unstable();
                    done.push(format!("remove {keys:?}"));
                    table.removed(&names);
                }
                Step::Put { name, at, whole, .. } => {
                    done.push(format!("put {}", name.key));
                    let bytes = whole.body.len() as u64;
                    table.put_done(name, at, Written { bytes, code: Code::default() });
                }
                Step::Confirm { name, .. } => done.push(format!("confirm {}", name.key)),
            }
        }
    }

    fn is_good(table: &Table, it: Name) -> bool {
        table.good(it).is_some()
    }

    #[test]
    fn a_write_is_in_doubt_on_the_disk_before_it_is_sent_until_its_copies_are_gone() {
        let (mine, other) = (name(7, 1), name(8, 2));
        let mut table = opened(1 << 20, &[found(7, 1), found(8, 2)]);
        table.write_begins(&[7]);
        assert_eq!(table.is_marked(&[7]), Marked::NotYet);
        assert!(!is_good(&table, mine) && is_good(&table, other));
        let doubts = table.next_doubts().unwrap();
        assert_eq!((&doubts, table.is_marked(&[7])), (&Doubts::of([7].into()), Marked::NotYet));
        table.doubts_done(Some(doubts));
        assert_eq!(table.is_marked(&[7]), Marked::Yes);
        table.write_ends(&[7], Outcome::MayBeDone);
        assert!(!is_good(&table, mine));
        assert!(table.next_doubts().is_none(), "it is in doubt for as long as its file is there");
        assert_eq!(run(&mut table), ["remove [1]", "doubts {}"]);
        assert!(!is_good(&table, mine) && is_good(&table, other));
    }

    #[test]
    fn a_write_that_was_refused_or_of_which_nothing_is_kept_costs_nothing() {
        let mut table = opened(1 << 20, &[found(7, 1)]);
        table.write_begins(&[9]);
        assert_eq!(table.is_marked(&[9]), Marked::Yes);
        table.write_ends(&[9], Outcome::MayBeDone);
        assert_eq!(run(&mut table), [""; 0]);
        table.write_begins(&[7]);
        assert_eq!(run(&mut table), ["doubts {7}"]);
        table.write_ends(&[7], Outcome::NotDone);
        assert_eq!(run(&mut table), ["doubts {}"]);
        assert!(is_good(&table, name(7, 1)));
    }

    #[test]
    fn of_two_writes_the_first_to_end_leaves_it_in_doubt() {
        let mut table = opened(1 << 20, &[found(7, 1)]);
        table.write_begins(&[7, 8]);
        table.write_begins(&[7]);
        assert_eq!(run(&mut table), ["doubts {7}"]);
        table.write_ends(&[7, 8], Outcome::NotDone);
        assert!(!is_good(&table, name(7, 1)) && run(&mut table).is_empty());
        table.write_ends(&[7], Outcome::NotDone);
        assert!(is_good(&table, name(7, 1)));
    }

    #[test]
    fn what_cannot_be_deleted_is_never_given_and_stays_in_doubt() {
        let mut table = opened(1 << 20, &[found(7, 1)]);
        table.write_begins(&[7]);
        table.write_ends(&[7], Outcome::MayBeDone);
        let Some(Step::Remove(names)) = table.next() else { panic!("it is to be deleted") };
        table.not_removed(&names);
        assert_eq!(run(&mut table), ["doubts {7}"], "and nothing waits for it");
        assert!(table.put(name(7, 1), ADA, 5, whole(1)));
        assert_eq!(run(&mut table), [""; 0], "nor does a new one take its place");
        assert!(!is_good(&table, name(7, 1)) && table.is_stuck());
        assert!(table.put(name(7, 2), ADA, 5, whole(1)));
        assert_eq!(run(&mut table), [""; 0], "it would be in doubt for who starts after a crash");
        // A process that starts now reads it.
        let mut next = Table::new(1 << 20);
        next.opened(Some((vec![found(7, 1)], Doubts::of([7].into()))));
        assert!(!is_good(&next, name(7, 1)));
        table.try_again();
        assert_eq!(run(&mut table), ["remove [1]", "doubts {}", "put 1", "put 2"]);
    }

    /// A test that sees the copy may end the process.
    #[test]
    fn a_copy_comes_when_it_is_in_doubt_no_more() {
        let mut table = opened(1 << 20, &[found(7, 1)]);
        table.write_begins(&[7]);
        assert_eq!(run(&mut table), ["doubts {7}"]);
        table.write_ends(&[7], Outcome::MayBeDone);
        assert!(table.put(name(7, 1), ADA, 5, whole(1)));
        let Some(Step::Remove(names)) = table.next() else { panic!("it is to be deleted") };
        table.removed(&names);
        assert!(table.next().is_none(), "the file of doubts says it");
        let doubts = table.next_doubts().unwrap();
        assert!(table.next().is_none(), "and may say it still");
        table.doubts_done(Some(doubts));
        assert_eq!(run(&mut table), ["put 1"]);
    }

    #[test]
    fn what_is_not_known_to_be_good_at_a_start_is_not_given() {
        for (doubts, expected) in [
            (Doubts::of(BTreeSet::new()), [true, true]),
            (Doubts::of([7].into()), [false, true]),
            (Doubts::All, [false, false]),
        ] {
            let mut table = Table::new(1 << 20);
            table.opened(Some((vec![found(7, 1), found(8, 2)], doubts.clone())));
            let good = [name(7, 1), name(8, 2)].map(|it| is_good(&table, it));
            assert_eq!(good, expected, "{doubts:?}");
        }
        // The folder could not be read, and something was written at the home in the meantime.
        let mut table = Table::new(1 << 20);
        table.write_begins(&[7]);
        assert_eq!(table.is_marked(&[7]), Marked::NotYet);
        table.not_opened();
        assert_eq!(table.is_marked(&[7]), Marked::No, "nobody waits for it");
        table.write_ends(&[7], Outcome::MayBeDone);
        table.opened(Some((vec![found(8, 2)], Doubts::of(BTreeSet::new()))));
        assert!(!is_good(&table, name(8, 2)));
        assert_eq!(table.is_marked(&[9]), Marked::Yes);
    }

    #[test]
    fn a_disk_that_takes_no_doubts_is_asked_until_it_does() {
        let mut table = opened(1 << 20, &[found(7, 1), found(8, 2)]);
        table.write_begins(&[7]);
        assert!(table.next_doubts().is_some());
        table.doubts_done(None);
        assert_eq!(table.is_marked(&[7]), Marked::No);
        table.write_ends(&[7], Outcome::MayBeDone);
        assert_eq!(run(&mut table)[0], "doubts {7}");
        table.write_begins(&[8]);
        let doubts = table.next_doubts();
        table.hangs();
        assert_eq!(table.is_marked(&[8]), Marked::No);
        table.doubts_done(doubts);
        assert_eq!(table.is_marked(&[8]), Marked::Yes);
    }

    /// A copy may be on its way to the disk while its content is changed at the home.
    #[test]
    fn a_copy_that_is_just_being_made_when_a_write_begins_ends_with_it() {
        let mut table = opened(1 << 20, &[]);
        table.put(name(7, 1), ADA, 5, whole(1));
        let Some(Step::Put { before: Before::Nothing, at, .. }) = table.next() else {
            panic!("it is to be put")
        };
        table.write_begins(&[7]);
        assert_eq!(table.is_marked(&[7]), Marked::NotYet, "a crash would leave it");
        table.write_ends(&[7], Outcome::MayBeDone);
        table.put_done(name(7, 1), at, Written { bytes: 1, code: Code::default() });
        assert!(!is_good(&table, name(7, 1)));
        assert_eq!(run(&mut table), ["doubts {7}", "remove [1]", "doubts {}"]);
        // A copy that waits is not started in the meantime.
        table.put(name(7, 2), ADA, 5, whole(1));
        table.write_begins(&[7]);
        table.put(name(8, 3), ADA, 5, whole(1));
        assert_eq!(run(&mut table), ["put 3"]);
        table.write_ends(&[7], Outcome::NotDone);
        assert_eq!(run(&mut table), ["put 2"]);
    }

    #[test]
    fn a_copy_that_could_not_be_replaced_is_not_given() {
        for (key, left) in [(1, &["doubts {7}", "remove [1]", "doubts {}"][..]), (2, &[])] {
            let mut table = opened(1 << 20, &[found(7, 1)]);
            table.put(name(7, key), ADA, 5, whole(1));
            assert!(matches!(table.next(), Some(Step::Put { .. })));
            table.put_failed(name(7, key));
            assert!(!is_good(&table, name(7, key)), "{key}");
            assert_eq!(run(&mut table), left, "{key}");
        }
    }

    #[test]
    fn of_many_answers_to_one_question_the_last_is_written() {
        let mut table = opened(1 << 20, &[]);
        (0..9).for_each(|bytes| assert!(table.put(name(7, 1), ADA, 5, whole(bytes))));
        assert!(table.put(name(7, 2), ADA, 5, whole(1)));
        assert_eq!(table.next().map(|step| format!("{step:?}").contains("xxxxxxxx")), Some(true));
        table.put_done(name(7, 1), 5, Written { bytes: 8, code: Code::default() });
        assert_eq!(run(&mut table), ["put 2"]);
    }

    #[test]
    fn a_copy_that_is_lost_is_lacking_and_one_that_is_there_is_confirmed_at_times() {
        let mut table = opened(1 << 20, &[found(7, 1)]);
        assert!(!table.lacks(name(7, 1)) && table.lacks(name(7, 2)));
        table.put(name(7, 2), ADA, 5, whole(1));
        assert!(!table.lacks(name(7, 2)), "it is coming");
        run(&mut table);
        assert!(!table.confirm(name(7, 1), CONFIRMED_EVERY), "it is as good as new");
        assert!(table.confirm(name(7, 1), CONFIRMED_EVERY + 1));
        assert_eq!(run(&mut table), ["confirm 1"]);
        assert_eq!(table.good(name(7, 1)), Some((CONFIRMED_EVERY + 1, ADA)));
        assert!(table.end(name(7, 1)) && table.lacks(name(7, 1)));
        table.not_opened();
        assert!(!table.lacks(name(7, 3)), "a disk that fails is left alone");
    }

    #[test]
    fn nobody_pushes_out_what_others_have() {
        let mut table = opened(100_000, &[]);
        for key in 0..8 {
            assert!(table.put(name(1, key), ADA, 1, whole(5_000)));
            run(&mut table);
        }
        for key in 100..300 {
            assert!(table.put(name(2, key), BOB, 2 + u64::try_from(key).unwrap(), whole(5_000)));
            run(&mut table);
        }
        assert!((0..8).all(|key| is_good(&table, name(1, key))), "the older ones of the quiet");
        let left: Vec<u128> = (100..300).filter(|key| is_good(&table, name(2, *key))).collect();
        assert!((10..=12).contains(&left.len()) && left.contains(&299), "{left:?}");
        // A file keeps its owner.
        table.put(name(1, 0), BOB, 500, whole(5_000));
        run(&mut table);
        assert_eq!(table.good(name(1, 0)), Some((500, ADA)));
        table.limit(0);
        assert!(!is_good(&table, name(1, 0)) && !table.put(name(1, 9), ADA, 1, whole(1)));
        run(&mut table);
        table.limit(100_000);
        assert_eq!((0..300).filter(|key| is_good(&table, name(1, *key))).count(), 0);
    }

    #[test]
    fn there_are_never_more_files_than_may_be() {
        let files: Vec<Found> = (0..FILES_MAX as u128).map(|key| found(1, key)).collect();
        let mut table = opened(1 << 30, &files);
        table.put(name(2, 1), BOB, 5, whole(1));
        assert_eq!(run(&mut table), ["remove [0]", "put 1"]);
        assert_eq!(table.files.iter().count(), FILES_MAX);
    }
}
