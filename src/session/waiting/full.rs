//! Why a submission may not wait.

use std::time::Duration;

use crate::config::ShowDuration;

/// Nothing more waits: the queue is full, or there are too many of one sharer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Full {
    #[error("the queue is full: {max} prompts or {bytes} bytes wait")]
    Queue { max: usize, bytes: u64, seconds: u32 },
    #[error("{max} of your prompts wait, which is the limit")]
    Sharer { max: usize, seconds: u32 },
    #[error("your prompts that wait have {max} bytes, which is the limit")]
    BytesOfSharer { max: u64, seconds: u32 },
    #[error("Maximum request body size {max} exceeded")]
    TooLarge { max: u64 },
    #[error("a prompt of this id waits already")]
    Known,
    #[error(
        "it would start in about {start} s, and a prompt waits for {} at most",
        ShowDuration(*max)
    )]
    TooLong { start: u64, max: Duration, seconds: u32 },
}

impl Full {
    /// The code of the error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Queue { .. } => "queue_full",
            Self::Sharer { .. } | Self::BytesOfSharer { .. } => "too_many_waiting",
            Self::TooLarge { .. } => "body_too_large",
            Self::Known => "prompt_id_known",
            Self::TooLong { .. } => "waits_too_long",
        }
    }

    /// After how many seconds it makes sense to ask again.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Queue { seconds, .. }
            | Self::Sharer { seconds, .. }
            | Self::BytesOfSharer { seconds, .. }
            | Self::TooLong { seconds, .. } => Some(*seconds),
            Self::TooLarge { .. } | Self::Known => None,
        }
    }

    /// The same, to be asked again after so many seconds.
    pub(super) fn within(self, seconds: u32) -> Self {
        match self {
            Self::Queue { max, bytes, .. } => Self::Queue { max, bytes, seconds },
            Self::Sharer { max, .. } => Self::Sharer { max, seconds },
            Self::BytesOfSharer { max, .. } => Self::BytesOfSharer { max, seconds },
            Self::TooLong { start, max, .. } => Self::TooLong { start, max, seconds },
            Self::TooLarge { .. } | Self::Known => self,
        }
    }
}
