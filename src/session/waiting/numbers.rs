//! The numbers that order prompts, as ComfyUI's `number` does.

use super::{Index, Waiting};
use crate::net::unix_millis;

/// The gateway's own numbers are below this.
const NUMBERS_MAX: f64 = (1_u64 << 40) as f64;

/// From here down, a `float` tells all whole numbers apart.
const LAST: u64 = 1 << 53;

/// Whether a submission goes before the others of its client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Front {
    Yes,
    No,
}

impl Waiting {
    /// ComfyUI's `number` of a new submission that names none: they are counted, and one that goes
    /// to the front is numbered before all others.
    #[must_use]
    pub fn number(&self, front: Front) -> f64 {
        let mut index = self.index();
        index.numbered += 1;
        let number = index.numbered as f64;
        match front {
            Front::Yes => -number,
            Front::No => number,
        }
    }

    /// A number that comes after all others at a backend, and after all that were given before,
    /// also after a restart: ComfyUI's worker dies of two equal numbers with one id.
    #[must_use]
    pub fn last_number(&self) -> f64 {
        let mut index = self.index();
        index.shown += 1;
        let next = unix_millis().wrapping_add(index.shown);
        (LAST - (1 << 40) + next % (1 << 40)) as f64
    }

    /// So many were submitted before, also to earlier processes: what comes now has a larger number
    /// than what its client still has at a backend.
    pub(in crate::session) fn counts_from(&self, submitted: u64) {
        let mut index = self.index();
        index.numbered = index.numbered.max(submitted);
    }
}

impl Index {
    /// A prompt from before a restart has this number. One that its client has chosen does not
    /// count.
    pub(super) fn counts_also(&mut self, number: f64) {
        let number = number.abs();
        if number < NUMBERS_MAX {
            self.numbered = self.numbered.max(number as u64);
        }
    }
}
