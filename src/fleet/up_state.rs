//! Whether a backend is up, packed into one machine word for tasks that wait for it.

use super::backend::Backend;
use super::pool::ExchangeError;
use crate::ordered_watch::Packed;

impl Backend {
    /// The result of an exchange, unless the backend goes down first. A backend that is down sends
    /// nothing, and a stopped process keeps its connections open. So the caller does not wait for
    /// it. A backend that leaves after it has drained is not down, and answers.
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
            () = self.went_down() => Err(ExchangeError::WentDown),
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
    /// It has left the fleet after it had drained: it is not watched any more, and may be healthy.
    pub has_drained: bool,
    pub times: u64,
}

impl UpState {
    /// The same, with one more change counted.
    #[must_use]
    pub fn again(self) -> Self {
        Self { times: self.times + 1, ..self }
    }

    /// True if no answer is to be expected from it.
    #[must_use]
    pub fn is_silent(self) -> bool {
        !self.up && !self.has_drained
    }
}

impl Packed for UpState {
    fn pack(self) -> u64 {
        let bits = [(self.up, 1), (self.was_probed, 2), (self.has_drained, 4)];
        let set = bits.into_iter().filter(|(is_set, _)| *is_set);
        set.fold(self.times << 3, |word, (_, bit)| word | bit)
    }

    fn unpack(word: u64) -> Self {
        let is_set = |bit| word & bit == bit;
        Self { up: is_set(1), was_probed: is_set(2), has_drained: is_set(4), times: word >> 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_all_of_it() {
        for bits in 0..8_u64 {
            let state = UpState::unpack(5 << 3 | bits);
            assert_eq!((state.times, state.pack()), (5, 5 << 3 | bits));
            assert_eq!(UpState::unpack(state.again().pack()), UpState { times: 6, ..state });
        }
    }

    #[test]
    fn one_that_has_drained_is_not_silent_and_one_that_is_down_is() {
        let down = UpState { was_probed: true, ..UpState::default() };
        assert!(down.is_silent());
        assert!(!UpState { up: true, ..down }.is_silent());
        assert!(!UpState { has_drained: true, ..down }.is_silent());
    }
}
