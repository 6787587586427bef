//! Why a submission may not wait.

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
        }
    }
}
