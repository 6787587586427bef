//! Why an open link ended.

/// The reason is logged once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LinkEnd {
    Asked,
    /// The backend has closed it: all that it had sent was read.
    Closed,
    /// It broke.
    Lost,
    Orphan,
    Silent,
    TooLarge,
}

impl LinkEnd {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Orphan => "orphan",
            Self::Silent => "silent",
            Self::TooLarge => "too_large",
        }
    }
}
