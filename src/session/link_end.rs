//! Why an open link ended.

/// The reason is logged once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LinkEnd {
    Asked,
    Lost,
    Orphan,
    Silent,
    TooLarge,
}

impl LinkEnd {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Lost => "lost",
            Self::Orphan => "orphan",
            Self::Silent => "silent",
            Self::TooLarge => "too_large",
        }
    }
}
