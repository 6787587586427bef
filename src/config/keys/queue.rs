//! The keys of the queue.

use super::super::choices::Verdict;
use super::super::key::{Applied, Key};
use super::super::kinds::{Count, Kind, Size, Span};
use super::super::raw::{Section, Setting};
use super::super::units::{DAY, GIB, H, KIB, MS, S};

sections! { QUEUE_SECTIONS, QUEUE_KEYS:
    /// Prompts that wait in Mooring until a server has room.
    ["queue"] RawQueue queue {
        /// How many prompts are at one server, the running one included. 0 sends each prompt to a
        /// server when it is submitted.
        depth: Count { min: 0, max: 64 } = "0", Restart;
        /// How long before the running prompt is expected to end the next one is handed over.
        lead: Span { min: 0, max: H } = "3s", Restart;
        /// How many prompts may wait in all.
        max: Count { min: 1, max: 1_000_000 } = "10000", Restart;
        /// How many prompts of one user may wait; without users of one address.
        max_per_sharer: Count { min: 1, max: 1_000_000 } = "1000", Restart;
        /// How long a prompt may wait. One that should start later is refused, and one that waits
        /// for longer all the same is reported as lost. With 0 there is no limit.
        max_wait: Span { min: 0, max: 30 * DAY } = "0s", Restart;
        /// Whom a prompt that must wait is shown to before its submission is answered: `backend` is
        /// a server, which says whether the prompt is valid; `late` is nobody.
        verdict: Verdict = "backend", Restart;
        /// How long that may take. Then the submission is accepted without an opinion.
        verdict_wait: Span { min: 100 * MS, max: 10 * 60 * S } = "5s", Restart;
        /// How many bytes the bodies of all prompts that wait may have; one user may have a
        /// quarter.
        bytes: Size { min: 64 * KIB, max: 64 * GIB } = "256MiB", Restart;
    }
}
