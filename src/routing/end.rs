//! How a prompt ended, and why it was lost, with the words for logs, metrics and the journal.

/// How a prompt ended. The label `end` of the metrics, and the word in the logs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum End {
    Succeeded,
    Failed,
    Interrupted,
    Deleted,
    Lost(Loss),
}

/// Why a prompt is lost.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Loss {
    /// The backend came back without the prompt.
    BackendRestarted,
    /// The process of the backend is gone: its links broke and its port is closed.
    BackendDied,
    /// The backend stayed away longer than its grace; it may still have the prompt.
    BackendGone,
    /// The backend answers and does not know the prompt, though nobody deleted it.
    Vanished,
    /// An operator or the client forced a reset.
    Reset,
    /// The backend answers, but its worker runs nothing any more (P9).
    BackendWedged,
    /// The gateway was restarted while the prompt was being sent, and the backend does not have it.
    GatewayRestarted,
    /// The gateway was restarted with a configuration that does not contain its backend.
    BackendRemoved,
    /// It was accepted before a backend was asked, and each backend that could run it refused it.
    Refused,
    /// It waited in the gateway for longer than `queue.max_wait`.
    WaitedTooLong,
}

impl End {
    /// Every end, for the metrics that count them.
    pub const ALL: [Self; 14] = [
        Self::Succeeded,
        Self::Failed,
        Self::Interrupted,
        Self::Deleted,
        Self::Lost(Loss::BackendRestarted),
        Self::Lost(Loss::BackendDied),
        Self::Lost(Loss::BackendGone),
        Self::Lost(Loss::BackendWedged),
        Self::Lost(Loss::Vanished),
        Self::Lost(Loss::Reset),
        Self::Lost(Loss::GatewayRestarted),
        Self::Lost(Loss::BackendRemoved),
        Self::Lost(Loss::Refused),
        Self::Lost(Loss::WaitedTooLong),
    ];

    /// The end that [`End::reason`] names. An unknown word comes from a newer Mooring, which has
    /// more kinds of loss than this one.
    #[must_use]
    pub fn of_reason(reason: &str) -> Self {
        let named = Self::ALL.into_iter().find(|end| end.reason() == reason);
        named.unwrap_or(Self::Lost(Loss::Vanished))
    }

    /// The outcome for metrics, in which all kinds of loss are one.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "completed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Deleted => "deleted",
            Self::Lost(_) => "lost",
        }
    }

    /// The outcome with the kind of loss.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Succeeded => "completed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Deleted => "deleted",
            Self::Lost(Loss::BackendRestarted) => "backend_restarted",
            Self::Lost(Loss::BackendDied) => "backend_died",
            Self::Lost(Loss::BackendGone) => "backend_gone",
            Self::Lost(Loss::BackendWedged) => "backend_wedged",
            Self::Lost(Loss::Vanished) => "vanished",
            Self::Lost(Loss::Reset) => "reset",
            Self::Lost(Loss::GatewayRestarted) => "gateway_restarted",
            Self::Lost(Loss::BackendRemoved) => "backend_removed",
            Self::Lost(Loss::Refused) => "refused",
            Self::Lost(Loss::WaitedTooLong) => "waited_too_long",
        }
    }
}
