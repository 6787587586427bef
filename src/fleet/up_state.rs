//! Whether a backend is up, packed into one machine word for tasks that wait for it.

use super::backend::Backend;
use super::pool::ExchangeError;
use crate::ordered_watch::Packed;

impl Backend {
    /// The result of an exchange, unless the backend goes down first. A backend that is down sends
    /// nothing, and a stopped process keeps its connections open. So the caller does not wait for
    /// it.
    ///
    /// # Errors
    /// Those of the exchange, and that the backend went down.
    pub async fn while_up<T>(
        &self,
        exchange: impl Future<Output = Result<T, ExchangeError>>,
    ) -> Result<T, ExchangeError> {
        tokio::select! {
            biased;
            done = exchange => done,
            () = self.is_down() => Err(ExchangeError::WentDown),
        }
    }
}

/// Whether it is up, whether it was ever probed, and how often it has changed: a waiter must not
/// miss a short outage.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UpState {
    pub up: bool,
    /// With any result.
    pub was_probed: bool,
    pub times: u64,
}

impl UpState {
    /// The same, with one more change counted.
    #[must_use]
    pub fn again(self) -> Self {
        Self { times: self.times + 1, ..self }
    }
}

impl Packed for UpState {
    fn pack(self) -> u64 {
        self.times << 2 | u64::from(self.was_probed) << 1 | u64::from(self.up)
    }

    fn unpack(word: u64) -> Self {
        Self { up: word & 1 == 1, was_probed: word & 2 == 2, times: word >> 2 }
    }
}
