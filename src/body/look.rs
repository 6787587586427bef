//! What looks at the bytes of a body as they pass.

use std::fmt;

use super::RequestBody;

type Passed = dyn FnMut(&[u8]) -> bool + Send;

/// Looks at the bytes of a body as they pass. Returns false when it needs no more.
pub struct Look(Box<Passed>);

impl Look {
    #[must_use]
    pub fn new(look: impl FnMut(&[u8]) -> bool + Send + 'static) -> Self {
        Self(Box::new(look))
    }

    /// These have passed. False if it needs no more.
    pub(super) fn passed(&mut self, data: &[u8]) -> bool {
        (self.0)(data)
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}

impl RequestBody {
    /// The same body; one that is streamed is looked at as it passes.
    #[must_use]
    pub fn looked_at(self, look: Look) -> Self {
        match self {
            Self::Streamed { body, fault, look: _ } => {
                Self::Streamed { body, fault, look: Some(look) }
            }
            Self::Empty
            | Self::Whole(_)
            | Self::Wrapped(_)
            | Self::Changed(_)
            | Self::Guarded(_) => self,
        }
    }

    /// The same body; one that is streamed is counted as it arrives, whatever is made of it later.
    /// It breaks off when `counts` says no.
    #[must_use]
    pub fn counted_by(mut self, counts: Look) -> Self {
        match &mut self {
            Self::Streamed { body, .. } => body.counts = Some(counts),
            Self::Empty
            | Self::Whole(_)
            | Self::Wrapped(_)
            | Self::Changed(_)
            | Self::Guarded(_) => {}
        }
        self
    }
}
