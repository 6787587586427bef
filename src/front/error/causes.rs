//! Finds the error for a cause.

use http::StatusCode;

use super::{Fault, GatewayError};
use crate::fleet::Fleet;
use crate::fleet::backend::Backend;
use crate::fleet::pool::ExchangeError;
use crate::routing::decision::Refusal;
use crate::routing::ids::PromptId;
use crate::routing::placement::{AdminState, NoPlace};
use crate::session::waiting::Full;

/// Why it is not known whether a prompt runs.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    #[error(
        "it is not known yet whether {backend} has the job {prompt}; it stays pending: ask \
         /history/{prompt} or /-/explain?prompt={prompt}"
    )]
    There { backend: String, prompt: String },
    #[error(
        "the journal cannot be written: the job {prompt} does not wait any more, but may run all \
         the same if this gateway ends before it can: ask /history/{prompt}"
    )]
    Withdrawn { prompt: String },
}

impl Unknown {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::There { .. } => Fault::Backend,
            Self::Withdrawn { .. } => Fault::Gateway,
        }
    }
}

impl GatewayError {
    /// The error for a prompt that may be at a backend.
    #[must_use]
    pub fn state_unknown(backend: &str, prompt: &PromptId) -> Self {
        let (backend, prompt) = (backend.to_owned(), prompt.to_string());
        Self::StateUnknown(Unknown::There { backend, prompt })
    }

    /// The error for a backend that is not asked, because it is down or off.
    #[must_use]
    pub fn not_asked(backend: &Backend) -> Self {
        if backend.is_nobody() {
            return Self::Refused(NoPlace::FleetEmpty.into());
        }
        let name = backend.name().to_string();
        match backend.admin() {
            AdminState::Off => Self::BackendOff { backend: name },
            AdminState::Ready | AdminState::Draining => Self::BackendDown { backend: name },
        }
    }

    /// The same if there is no backend at all, because none is up.
    #[must_use]
    pub fn in_fleet(self, fleet: &Fleet) -> Self {
        let found_none = matches!(self, Self::Refused(Refusal::NoPlace(NoPlace::NoneReady)));
        match found_none && fleet.is_empty() {
            true => Self::Refused(NoPlace::FleetEmpty.into()),
            false => self,
        }
    }

    /// The error of an exchange with a backend. It depends on what the backend may have received.
    #[must_use]
    pub fn exchange(backend: &str, source: ExchangeError) -> Self {
        let backend = backend.to_owned();
        match source {
            ExchangeError::Connect(_)
            | ExchangeError::ConnectTimeout(_)
            | ExchangeError::NotSent(_) => Self::Unreachable { backend, source },
            ExchangeError::Lost(_) | ExchangeError::WentDown => Self::Lost { backend, source },
            ExchangeError::NoAnswer(_) => Self::NoAnswer { backend, source },
        }
    }
}

/// Who has to act on a refusal.
pub(super) fn fault_of(refusal: &Refusal) -> Fault {
    match refusal {
        Refusal::TooManyPending { .. } | Refusal::AlreadyPending => Fault::Client,
        Refusal::BackendDown { .. }
        | Refusal::BackendWedged { .. }
        | Refusal::NoPlace(NoPlace::FleetEmpty) => Fault::Backend,
        Refusal::NoPlace(NoPlace::NoneReady | NoPlace::FleetFull) => Fault::Gateway,
    }
}

/// Who has to act if no more prompts may wait.
pub(super) fn fault_of_full(full: &Full) -> Fault {
    match full {
        Full::Queue { .. } | Full::TooLong { .. } => Fault::Gateway,
        Full::Sharer { .. } | Full::BytesOfSharer { .. } | Full::TooLarge { .. } | Full::Known => {
            Fault::Client
        }
    }
}

pub(super) fn status_of_full(full: &Full) -> StatusCode {
    match full {
        Full::Queue { .. } | Full::TooLong { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Full::Sharer { .. } | Full::BytesOfSharer { .. } => StatusCode::TOO_MANY_REQUESTS,
        Full::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Full::Known => StatusCode::BAD_REQUEST,
    }
}
