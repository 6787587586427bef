//! Locks with a rank, so that no two tasks can wait for each other.
//!
//! Whoever holds a lock may take only locks of higher rank. A debug build checks this at every
//! lock, so each test is a test of it, and records which locks were taken ([`trace`]), so that a
//! test can say which locks a request costs. A release build has only std's mutex.
//!
//! A panic while a lock is held leaves a change half done. State of one client or one backend goes
//! on with what is there; its next step asks again for whatever is in doubt. State that is shared
//! by all, such as the ledger or a shard of it, must not: [`broken`] resolves, the process ends,
//! and its successor starts from the journal.

#[cfg(debug_assertions)]
pub mod trace;

use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

/// What a lock guards, in the order in which they may be taken.
pub mod rank {
    use super::Scope;
    use super::Scope::{Of, Part, Shared};

    macro_rules! ranks {
        ($($(#[$doc:meta])* $name:ident = $place:literal, $scope:expr;)*) => {
            $($(#[$doc])* pub const $name: u8 = $place;)*
            /// The name and the scope of each rank.
            pub(super) const ALL: &[(&str, u8, Scope)] =
                &[$((stringify!($name), $place, $scope)),*];
        };
    }

    ranks! {
        /// Who wants which backends.
        WANTED = 0, Shared;
        /// Whoever changes the fleet.
        ROSTER = 1, Shared;
        /// What one backend is to be asked.
        DESK = 2, Of;
        /// When a full table was last looked through.
        ROOM = 3, Shared;
        /// One client.
        CLIENT = 4, Of;
        /// Frames that wait for a link.
        OUTBOX = 5, Of;
        /// What a link has heard.
        SEEN = 6, Of;
        /// Sockets of node packs.
        TUNNELS = 7, Shared;
        /// What runs at the backends and is nobody's yet.
        UNCLAIMED = 8, Shared;
        /// Backends whose queues were not read at the start.
        UNREAD = 9, Shared;
        /// Who made which prompt: one shard.
        LEDGER = 10, Part;
        /// Which backend has a file: one shard.
        FILES = 11, Part;
        /// Which backend has an asset: one shard.
        ASSETS = 12, Part;
        /// The users that each backend knows.
        USERS = 13, Shared;
        /// Which backends keep assets for each user.
        ASSET_USERS = 14, Shared;
        /// Last good copies of what the home gave.
        STALE_CACHE = 15, Shared;
        /// History entries on their way.
        FETCHING = 16, Shared;
        /// History entries that were fetched.
        HISTORY_CACHE = 17, Shared;
        /// Interrupts that are followed up.
        INTERRUPTS = 18, Shared;
        /// Who had unknown ids looked for.
        LOOKUPS = 19, Shared;
        /// What the backends said of their nodes.
        NODES = 20, Shared;
        /// What was told of the fleet's features.
        FEATURES = 21, Shared;
        /// One backend's state.
        BACKEND = 22, Of;
        /// New connections to one backend.
        BREAKER = 23, Of;
        /// When one backend may be dialled again.
        DIAL_LIMITER = 24, Of;
        /// Whether one backend's worker lives.
        WORKER = 25, Of;
        /// One backend's queue, as it is being read.
        QUEUE_SNAPSHOT = 26, Of;
        /// Kept connections to one backend.
        IDLE = 27, Of;
        /// Which backend is the home.
        HOME = 28, Shared;
        /// Names of backends that were given to clients.
        GIVEN_NAMES = 29, Shared;
        /// What was noted for the journal and is not in its writer's hands.
        JOURNAL = 30, Shared;
        /// The backends that the last scrape told of.
        SCRAPED = 31, Shared;
        /// Listeners that a process was given.
        INHERITED = 32, Shared;
        /// The tasks that the process needs.
        HEARTS = 33, Shared;
        /// What operators said of backends, by their addresses.
        SAID = 34, Shared;
        /// Hashed files of the page.
        ASSET_CACHE = 35, Shared;
        /// What a discovery has warned of.
        DISCOVERY = 36, Of;
        /// The discoveries of which something is told.
        DISCOVERED = 37, Shared;
        /// Copies on the disk.
        COPIES = 38, Shared;
        /// Writes to user data that are on their way.
        WRITES = 39, Shared;
        /// Who has guessed passwords lately.
        GUESSES = 40, Shared;
        /// Sessions that were ended.
        LOGOUTS = 41, Shared;
        /// Whose passwords wait to be checked.
        LOGIN_PLACES = 42, Shared;
        /// Whose writes to user data are on their way.
        SAVES = 43, Shared;
        /// Tokens that were found good.
        TOKENS = 44, Shared;
        /// When the keys that sign tokens are fetched.
        TOKEN_KEYS = 45, Shared;
        /// Prompts of the last minute, by whoever submitted them.
        PROMPT_LIMITS = 46, Shared;
        /// Open sockets, by whoever has them.
        SOCKET_LIMITS = 47, Shared;
        /// Pending prompts, by whoever submitted them.
        PENDING_LIMITS = 48, Shared;
        /// Requests of the last minute, by address.
        REQUEST_LIMITS = 49, Shared;
        /// New clients of the last minute, by address.
        NEWCOMER_LIMITS = 50, Shared;
        /// For how long prompts have run in a day, by whoever submitted them.
        GPU_LIMITS = 51, Shared;
        /// Bytes uploaded in a day, by whoever uploaded them.
        UPLOAD_LIMITS = 52, Shared;
        /// Open connections, by address.
        CONNECTION_LIMITS = 53, Shared;
        /// What the service manager has still to be told.
        SERVICE_MANAGER = 54, Shared;
        /// Prompts that wait in the gateway.
        QUEUE = 55, Shared;
        /// Who is still to be told what became of a submission that waits.
        ASKERS = 56, Shared;
        /// Graphs that a backend has found valid.
        KNOWN_GOOD = 57, Shared;
        /// In which order one backend has its prompts.
        QUEUE_ORDER = 58, Of;
    }
}

/// Whose a lock is, and with it what a panic while it is held means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    /// One client's, one link's or one backend's.
    Of,
    /// A shard of what is everybody's: whoever holds it keeps those waiting whose names lie there.
    Part,
    /// Everybody's.
    Shared,
}

/// A mutex of one [`rank`].
#[derive(Debug, Default)]
pub struct Lock<T, const RANK: u8> {
    value: Mutex<T>,
}

/// The value of a lock, until it is dropped.
#[derive(Debug)]
pub struct Guard<'a, T, const RANK: u8> {
    // Dropped before the mark, which lives a moment longer than what it marks.
    value: MutexGuard<'a, T>,
    _held: order::Held,
}

impl<T, const RANK: u8> Lock<T, RANK> {
    pub const fn new(value: T) -> Self {
        Self { value: Mutex::new(value) }
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// The value is everybody's, or a part of that, and a panic left it half changed; in a debug
    /// build also if this thread holds a lock of the same or a higher rank.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock(&self) -> Guard<'_, T, RANK> {
        let held = order::take(RANK);
        let value = self.value.lock().unwrap_or_else(|poisoned| self.heal(poisoned));
        Guard { value, _held: held }
    }

    #[cold]
    #[expect(clippy::panic, reason = "nobody may go on with half a change; the process ends")]
    fn heal<'a>(&self, poisoned: PoisonError<MutexGuard<'a, T>>) -> MutexGuard<'a, T> {
        let (name, _, scope) = rank::ALL[usize::from(RANK)];
        if scope != Scope::Of {
            let _ = BROKEN.name.set(name);
            BROKEN.is_broken.cancel();
            panic!("{name} was left half changed by a panic");
        }
        self.value.clear_poison();
        poisoned.into_inner()
    }
}

impl<T, const RANK: u8> std::ops::Deref for Guard<'_, T, RANK> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T, const RANK: u8> std::ops::DerefMut for Guard<'_, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// The first lock of everybody's that was found half changed.
#[derive(Debug, Default)]
struct Broken {
    name: OnceLock<&'static str>,
    is_broken: CancellationToken,
}

/// One for the process: a lock does not know whose gateway it belongs to.
static BROKEN: LazyLock<Broken> = LazyLock::new(Broken::default);

/// Resolves with the rank of a lock of everybody's that a panic left half changed. Cancel safe.
pub async fn broken() -> &'static str {
    BROKEN.is_broken.cancelled().await;
    BROKEN.name.get().copied().unwrap_or_default()
}

/// The order, checked.
#[cfg(debug_assertions)]
mod order {
    use std::cell::Cell;
    use std::panic::Location;

    use super::{rank, trace};

    thread_local! {
        /// A bit for each rank that this thread holds.
        static HELD: Cell<u64> = const { Cell::new(0) };
    }

    /// A lock that this thread holds.
    #[derive(Debug)]
    pub(super) struct Held(u8);

    #[track_caller]
    pub(super) fn take(rank: u8) -> Held {
        let held = HELD.get();
        assert!(
            held >> rank == 0,
            "{} is taken while {} is held",
            rank::ALL[usize::from(rank)].0,
            names(held >> rank << rank)
        );
        HELD.set(held | 1 << rank);
        trace::note(rank, Location::caller());
        Held(rank)
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.set(HELD.get() & !(1 << self.0));
        }
    }

    fn names(held: u64) -> String {
        let names = rank::ALL.iter().filter(|(_, place, _)| held >> place & 1 == 1);
        names.map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// The order, taken on trust.
#[cfg(not(debug_assertions))]
mod order {
    #[derive(Debug)]
    pub(super) struct Held;

    #[inline]
    pub(super) fn take(_rank: u8) -> Held {
        Held
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures_util::FutureExt as _;

    use super::*;

    fn panic_while_held<const RANK: u8>(lock: &Lock<u32, RANK>) {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut value = lock.lock();
            *value = 1;
            panic!("as asked");
        }));
        assert!(panicked.is_err());
    }

    #[test]
    fn ranks_stand_at_their_places() {
        for (index, (name, place, _)) in rank::ALL.iter().enumerate() {
            assert_eq!(index, usize::from(*place), "{name}");
        }
        assert!(rank::ALL.len() <= 64, "a bit for each");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_lock_of_lower_rank_is_not_taken_under_one_of_higher() {
        let client: Lock<u32, { rank::CLIENT }> = Lock::new(0);
        let backend: Lock<u32, { rank::BACKEND }> = Lock::new(0);
        {
            let _first = client.lock();
            let _second = backend.lock();
        }
        let wrong = catch_unwind(AssertUnwindSafe(|| {
            let _first = backend.lock();
            let _second = client.lock();
        }));
        let said = wrong.unwrap_err();
        assert_eq!(crate::tasks::said(&*said), "CLIENT is taken while BACKEND is held");
        // What was held was given back.
        let _first = client.lock();
        let _second = backend.lock();
    }

    #[test]
    fn what_is_one_clients_goes_on_after_a_panic() {
        let lock: Lock<u32, { rank::CLIENT }> = Lock::new(0);
        panic_while_held(&lock);
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn what_is_everybodys_and_half_changed_ends_the_process() {
        let lock: Lock<u32, { rank::LEDGER }> = Lock::new(0);
        panic_while_held(&lock);
        assert!(catch_unwind(AssertUnwindSafe(|| *lock.lock())).is_err());
        assert_eq!(broken().now_or_never(), Some("LEDGER"));
    }
}
