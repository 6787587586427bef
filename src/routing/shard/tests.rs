//! A ledger in shards knows what one in a single piece does.

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
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

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

    /// Something that is learned.
    #[derive(Clone, Debug)]
    struct Learned {
        at: Located,
        maker: Option<Maker>,
        seen: Seen,
        /// It is a copy of the file of this path there.
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

    /// What of a ledger can be asked of one name.
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

    /// What the journal has of a ledger: each holder, in the order in which it was learned of.
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
        // Of those that are as many as the ledger holds, nearly all of the latest are there.
        assert!((count - CAPACITY * 9 / 10..count).all(is_known));
        assert!(!(0..CAPACITY * 9 / 10).any(is_known), "the oldest went");
    }
}
