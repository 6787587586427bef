//! What a failure comes from, and which error it is.

use super::GatewayError;
use crate::fleet::Fleet;
use crate::fleet::backend::Backend;
use crate::fleet::pool::ExchangeError;
use crate::routing::decision::Refusal;
use crate::routing::placement::{AdminState, NoPlace};

impl GatewayError {
    /// A backend is not asked: it is down, or off.
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

    /// The same where there is no backend at all: whoever found none that is up found that.
    #[must_use]
    pub fn in_fleet(self, fleet: &Fleet) -> Self {
        let found_none = matches!(self, Self::Refused(Refusal::NoPlace(NoPlace::NoneReady)));
        match found_none && fleet.is_empty() {
            true => Self::Refused(NoPlace::FleetEmpty.into()),
            false => self,
        }
    }

    /// The failure of an exchange with a backend, told apart by what the backend can have seen.
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
