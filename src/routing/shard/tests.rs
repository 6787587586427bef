//! Checks that a ledger in shards gives the same answers as one in a single piece.

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

#[test]
fn names_that_are_counted_up_fall_evenly() {
    let shards = bounds(1_000_000).len();
    for name in [
        |number: usize| format!("ComfyUI_{number:05}_.png"),
        |number: usize| format!("{number:08x}-0001-4f7c-9b1a-3d2e1f0a4b5c"),
        |number: usize| format!("harbour-{number}.png"),
    ] {
        let mut counts = vec![0; shards];
        (0..10_000).for_each(|number| counts[Key::of(name(number).as_bytes()).shard(shards)] += 1);
        let most = 10_000 / shards * 11 / 10;
        assert!(counts.iter().all(|count| *count < most), "{counts:?}");
    }
}

proptest! {
    #[test]
    fn shards_keep_the_bound_of_their_ledger(capacity in 0_usize..100_000_000) {
        let bounds = bounds(capacity);
        prop_assert_eq!(bounds.iter().sum::<usize>(), capacity);
        prop_assert!(bounds.iter().all(|it| bounds[0] - it <= 1));
    }

    #[test]
    fn a_key_has_one_shard(name: Vec<u8>, shards in any::<u8>()) {
        let shard = Key::of(&name).shard(shards.into());
        prop_assert!(shard < usize::from(shards).max(1));
        prop_assert_eq!(shard, Key::of(&name).shard(shards.into()));
    }
}

/// The ledger of files.
mod files {
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use crate::routing::files::{Files, Holder, Maker, Place, Seen, Strangers, key_of, meant_of};
    use crate::routing::ids::{BackendId, ClientId, FileRef, Folder, Located};
    use crate::routing::shard::bounds;

    const WEEK: Duration = Duration::from_secs(604_800);
    const CAPACITY: usize = 5_000;
    const PATHS: [&str; 8] = [
        "a.png",
        "b.png",
        "c.png",
        "a (1).png",
        "sub/a.png",
        "sub/c.png",
        "sub/d.png",
        "other/a (2).png",
    ];

    struct Sharded(Vec<Files>);

    impl Sharded {
        fn new(capacity: usize) -> Self {
            Self(bounds(capacity).into_iter().map(|bound| Files::new(bound, WEEK)).collect())
        }

        fn of(&self, path: &str) -> &Files {
            &self.0[key_of(path).shard(self.0.len())]
        }

        fn of_mut(&mut self, path: &str) -> &mut Files {
            let shard = key_of(path).shard(self.0.len());
            &mut self.0[shard]
        }
    }

    /// One fact to learn.
    #[derive(Clone, Debug)]
    struct Learned {
        at: Located,
        maker: Option<Maker>,
        seen: Seen,
        /// It is a copy of the file at this place.
        copy_of: Option<Located>,
    }

    fn located() -> impl Strategy<Value = Located> {
        (0..3_u16, any::<bool>(), 0..PATHS.len()).prop_map(|(backend, is_input, path)| {
            let folder = if is_input { Folder::Input } else { Folder::Output };
            let file = FileRef::of_path(folder, PATHS[path]).unwrap();
            Located { backend: BackendId::nth(backend), file }
        })
    }

    fn learned() -> impl Strategy<Value = Learned> {
        let copy_of = proptest::option::weighted(0.3, located());
        (located(), 0..3_usize, any::<bool>(), copy_of).prop_map(|(at, maker, wrote, copy_of)| {
            let seen = if wrote { Seen::Written } else { Seen::There };
            Learned { at, maker: makers().get(maker).cloned(), seen, copy_of }
        })
    }

    fn makers() -> [Maker; 2] {
        ["ada", "bob"].map(|id| Maker::Client(ClientId::parse(id).unwrap()))
    }

    fn learn(files: &mut Files, it: &Learned, now: Instant) {
        let makers: Vec<Maker> = it.maker.iter().cloned().collect();
        files.learn(&it.at, &makers, it.seen, now);
    }

    fn every_place() -> impl Iterator<Item = Located> {
        let folders = [Folder::Input, Folder::Output];
        let files = folders.into_iter().flat_map(|folder| {
            PATHS.into_iter().filter_map(move |path| FileRef::of_path(folder, path))
        });
        files.flat_map(|file| {
            (0..3).map(move |id| Located { backend: BackendId::nth(id), file: file.clone() })
        })
    }

    /// All that a ledger answers about one name.
    fn known(files: &Files, at: &Located) -> String {
        let askers = makers();
        let found = |askers: &[Maker], strangers| {
            files.find_for(at.file.folder, at.file.path(), askers, strangers).cloned()
        };
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            files.shown(at),
            found(&askers[..1], Strangers::Owners),
            found(&askers[1..], Strangers::Latest),
            found(&[], Strangers::Latest),
            files.find_nearest(&at.file, Some(at.backend)),
            files.sources(at),
            files.original(at),
            files.told_at(at.clone()),
            files.is_shown_to(at, &askers[..1])
        )
    }

    fn in_folders<'a>(shards: impl Iterator<Item = &'a Files>, askers: &[Maker]) -> Vec<Located> {
        meant_of(shards.flat_map(|files| files.in_subfolder("sub", askers)).collect())
    }

    /// What the journal has of a ledger: each holder, in the order in which it was learned.
    fn recorded(shards: &[Files]) -> Vec<(FileRef, Holder)> {
        let mut records: Vec<(FileRef, Holder)> = every_place()
            .filter_map(|at| {
                let holder = shards.iter().find_map(|files| files.holder(&at))?;
                Some((at.file, holder.clone()))
            })
            .collect();
        records.sort_by_key(|(_, holder)| holder.order);
        records
    }

    proptest! {
        #[test]
        fn shards_know_what_one_ledger_knows(story in vec(learned(), 0..80)) {
            let (mut whole, mut sharded) = (Files::new(CAPACITY, WEEK), Sharded::new(CAPACITY));
            assert!(1 < sharded.0.len(), "else this compares nothing");
            let now = crate::net::now();
            for it in &story {
                for files in [&mut whole, sharded.of_mut(it.at.file.path())] {
                    learn(files, it, now);
                }
                let Some(original) = &it.copy_of else { continue };
                let (one, other) = (key_of(original.file.path()), key_of(it.at.file.path()));
                if one == other && original != &it.at {
                    for files in [&mut whole, sharded.of_mut(original.file.path())] {
                        let began = files.moment();
                        files.copied(original, it.at.clone(), began);
                    }
                }
            }
            for at in every_place() {
                let of_shard = known(sharded.of(at.file.path()), &at);
                prop_assert_eq!(of_shard, known(&whole, &at), "{:?}", at);
            }
            for askers in [&makers()[..1], &makers()[1..], &[]] {
                let of_whole = in_folders(std::iter::once(&whole), askers);
                prop_assert_eq!(in_folders(sharded.0.iter(), askers), of_whole);
            }
            prop_assert_eq!(sharded.0.iter().map(Files::len).sum::<usize>(), whole.len());
        }

        #[test]
        fn what_a_journal_has_gives_the_same_shards_again(story in vec(learned(), 0..60)) {
            let mut before = Sharded::new(CAPACITY);
            let now = crate::net::now();
            story.iter().for_each(|it| learn(before.of_mut(it.at.file.path()), it, now));
            let mut after = Sharded::new(CAPACITY);
            for (file, holder) in recorded(&before.0) {
                after.of_mut(file.path()).restore(&file, holder, now, now);
            }
            for at in every_place() {
                let path = at.file.path();
                let of_before = known(before.of(path), &at);
                prop_assert_eq!(known(after.of(path), &at), of_before, "{:?}", at);
            }
        }
    }

    #[test]
    fn shards_keep_the_bound_in_sum_and_forget_their_oldest() {
        let mut sharded = Sharded::new(CAPACITY);
        let now = crate::net::now();
        let at = |number: usize| {
            let file = FileRef::of_path(Folder::Output, &format!("ComfyUI_{number:05}_.png"));
            Located { backend: BackendId::nth(0), file: file.unwrap() }
        };
        let count = 2 * CAPACITY;
        for number in 0..count {
            let at = at(number);
            sharded.of_mut(at.file.path()).learn(&at, &[], Seen::There, now);
        }
        assert!(sharded.0.iter().map(Files::len).sum::<usize>() <= CAPACITY);
        let is_known = |number: usize| {
            let at = at(number);
            let holder = sharded.of(at.file.path()).holder(&at);
            holder.is_some_and(|it| it.place == Place::Backend(at.backend))
        };
        // Of the latest entries, up to the capacity, nearly all are there.
        assert!((count - CAPACITY * 9 / 10..count).all(is_known));
        assert!(!(0..CAPACITY * 9 / 10).any(is_known), "the oldest went");
    }
}

/// The ledger of prompts.
mod ledger {
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_assert_eq, proptest};

    use crate::routing::ids::{BackendId, ClientId, PromptId};
    use crate::routing::ledger::{Entry, Ledger, Listed, Record, State, histories, newest};
    use crate::routing::owners::{Owner, Person, Submitter};
    use crate::routing::pending::{End, Loss};
    use crate::routing::shard::{Key, bounds};

    const AGE: Duration = Duration::from_secs(100);
    const CAPACITY: usize = 5_000;
    const IDS: usize = 24;

    struct Sharded(Vec<Ledger>);

    impl Sharded {
        fn new(capacity: usize) -> Self {
            Self(bounds(capacity).into_iter().map(|bound| Ledger::new(bound, AGE)).collect())
        }

        fn of(&mut self, prompt: &PromptId) -> &mut Ledger {
            let shard = Key::of(prompt.as_str().as_bytes()).shard(self.0.len());
            &mut self.0[shard]
        }

        fn history_of(&mut self, owners: &[Owner], max: usize, now: Instant) -> Vec<Listed> {
            let all = self.0.iter_mut().flat_map(|ledger| ledger.history_of(owners, max, now));
            histories(all.collect(), owners, max)
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Reserve(usize),
        Place(usize, u16),
        End(usize, End),
        Withdraw(usize),
        Learn(usize, u16),
        Unlist(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let step = (0..8_u8, 0..IDS, 0..3_u16).prop_map(|(what, id, backend)| match what {
            0..=2 => Step::Reserve(id),
            3 => Step::Place(id, backend),
            4 => Step::End(id, End::Succeeded),
            5 => Step::End(
                id,
                [End::Deleted, End::Lost(Loss::BackendGone)][usize::from(backend % 2)],
            ),
            6 => Step::Withdraw(id),
            _ if backend == 0 => Step::Learn(id, backend),
            _ => Step::Unlist(id),
        });
        vec((0..3_usize, step), 0..120)
    }

    fn id(number: usize) -> PromptId {
        PromptId::parse(&format!("{number:08x}-9fc2-4a5d-b0a5-{number:012}")).unwrap()
    }

    /// Two tabs of one browser, and one unnamed submitter.
    fn submitters() -> [Submitter; 3] {
        let of = |client: &str, person| Submitter {
            person,
            ..Submitter::client(ClientId::parse(client).unwrap())
        };
        let me = Some(Person::Browser(1));
        [of("one", me.clone()), of("two", me), of("alone", None)]
    }

    /// Makes one step; `order` is the number of a submission.
    fn go(ledger: &mut Ledger, (by, step): (usize, Step), order: u64, now: Instant) -> bool {
        ledger.count_from(order);
        match step {
            Step::Reserve(it) => {
                return ledger.reserve(&id(it), submitters()[by].clone(), now).is_ok();
            }
            Step::Place(it, backend) => ledger.placed(&id(it), BackendId::nth(backend)),
            Step::End(it, end) => ledger.ended(&id(it), end, now),
            Step::Withdraw(it) => ledger.withdraw(&id(it)),
            Step::Learn(it, backend) => ledger.learn(&id(it), BackendId::nth(backend), now),
            Step::Unlist(it) => ledger.unlist(&id(it)),
        }
        true
    }

    fn prompt_of(step: Step) -> PromptId {
        let (Step::Reserve(it)
        | Step::Place(it, _)
        | Step::End(it, _)
        | Step::Withdraw(it)
        | Step::Learn(it, _)
        | Step::Unlist(it)) = step;
        id(it)
    }

    fn owners() -> Vec<Vec<Owner>> {
        let [one, two, alone] = submitters().map(|it| Owner::Client(it.client.unwrap()));
        let me = Owner::Person(Person::Browser(1));
        vec![vec![one.clone()], vec![me.clone()], vec![one, two, me], vec![alone], Vec::new()]
    }

    proptest! {
        #[test]
        fn shards_tell_what_one_ledger_tells(story in steps(), max in 0..6_usize) {
            let (mut whole, mut sharded) = (Ledger::new(CAPACITY, AGE), Sharded::new(CAPACITY));
            assert!(1 < sharded.0.len(), "else this compares nothing");
            let mut now = crate::net::now();
            for (order, (by, step)) in (0..).zip(story) {
                now += Duration::from_millis(1);
                let of_whole = go(&mut whole, (by, step), order, now);
                let of_shard = go(sharded.of(&prompt_of(step)), (by, step), order, now);
                prop_assert_eq!(of_shard, of_whole, "{:?}", step);
            }
            for prompt in (0..IDS).map(id) {
                let known = |ledger: &Ledger| {
                    let record = ledger.get(&prompt, now).cloned();
                    let record = record.map(|it| (it.by, it.backend, it.made, it.order, it.state));
                    (record, ledger.is_unlisted(&prompt, now))
                };
                prop_assert_eq!(known(sharded.of(&prompt)), known(&whole));
            }
            for owners in owners() {
                let of_whole = whole.history_of(&owners, max, now);
                prop_assert_eq!(sharded.history_of(&owners, max, now), of_whole);
            }
            let all = sharded.0.iter_mut().flat_map(|ledger| ledger.history_of_all(max, now));
            prop_assert_eq!(newest(all.collect(), max), whole.history_of_all(max, now));
            for backend in (0..3).map(BackendId::nth) {
                let mut lost: Vec<PromptId> =
                    sharded.0.iter().flat_map(|ledger| ledger.presumed_lost(backend)).collect();
                lost.sort();
                prop_assert_eq!(lost, whole.presumed_lost(backend));
            }
        }

        #[test]
        fn what_a_journal_has_gives_the_same_histories_again(story in steps()) {
            let mut before = Sharded::new(CAPACITY);
            let mut now = crate::net::now();
            for (order, (by, step)) in (0..).zip(story) {
                now += Duration::from_millis(1);
                let ledger = before.of(&prompt_of(step));
                let state = ledger.get(&prompt_of(step), now).map(|record| record.state);
                // A corrected entry is restored with the time of the correction.
                let is_corrected =
                    matches!((step, state), (Step::End(..), Some(State::Ended(_))));
                if !is_corrected && !matches!(step, Step::Unlist(_) | Step::Learn(..)) {
                    go(ledger, (by, step), order, now);
                }
            }
            let mut entries: Vec<Entry> = Vec::new();
            for prompt in (0..IDS).map(id) {
                let Some(record) = before.of(&prompt).get(&prompt, now).cloned() else { continue };
                let end = match record.state {
                    State::Ended(end) => record.ended.map(|at| (end, at)),
                    State::Pending | State::Learned => None,
                };
                let Record { by, backend, made, order, .. } = record;
                entries.push(Entry { prompt, by, backend, made, order, end });
            }
            entries.sort_by_key(|entry| (entry.end.map(|(_, at)| at), entry.order));
            let mut after = Sharded::new(CAPACITY);
            for entry in entries {
                after.of(&entry.prompt.clone()).restore(entry, now);
            }
            let told = |sharded: &mut Sharded, owners: &[Owner]| -> Vec<(PromptId, End, u64)> {
                let listed = sharded.history_of(owners, usize::MAX, now).into_iter();
                listed.map(|it| (it.prompt, it.end, it.order)).collect()
            };
            for owners in owners() {
                prop_assert_eq!(told(&mut after, &owners), told(&mut before, &owners));
            }
        }
    }

    #[test]
    fn shards_keep_the_bound_in_sum() {
        let mut sharded = Sharded::new(CAPACITY);
        let now = crate::net::now();
        for number in 0..2 * CAPACITY {
            let prompt = id(number);
            let ledger = sharded.of(&prompt);
            ledger.reserve(&prompt, submitters()[0].clone(), now).unwrap();
            ledger.ended(&prompt, End::Succeeded, now);
        }
        assert!(sharded.0.iter().map(Ledger::len).sum::<usize>() <= CAPACITY);
        let mut is_known = |number: usize| sharded.of(&id(number)).get(&id(number), now).is_some();
        assert!((CAPACITY * 11 / 10..2 * CAPACITY).all(&mut is_known), "the latest are there");
        assert!(!(0..CAPACITY * 9 / 10).any(is_known), "the oldest went");
    }
}
