//! What becomes of a connection once a request on it was answered.

/// What happens to a connection after an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum After {
    Stays,
    /// It is closed in an orderly way.
    Ends,
    /// It is reset, because the answer is not complete.
    BreaksOff,
    /// Nothing was answered: the backend is away, and hyper's way finds another one.
    Elsewhere,
}

impl After {
    #[must_use]
    pub fn of(stays: bool) -> Self {
        if stays { Self::Stays } else { Self::Ends }
    }
}
