//! Whether a backend is up, as one word for those who wait for it.

use crate::watched::Packed;

/// Up or down, and how often it has turned: a waiter must not miss a short outage.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Turned {
    pub up: bool,
    pub times: u64,
}

impl Turned {
    /// The same with one turn more.
    #[must_use]
    pub fn again(self) -> Self {
        Self { times: self.times + 1, ..self }
    }
}

impl Packed for Turned {
    fn pack(self) -> u64 {
        self.times << 1 | u64::from(self.up)
    }

    fn unpack(word: u64) -> Self {
        Self { up: word & 1 == 1, times: word >> 1 }
    }
}
