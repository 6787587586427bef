//! The state that an operator set for a backend: who set it, when and why (promise V5).
//!
//! The journal keeps it under the backend's address, so that it survives a restart: a server that
//! was turned off because it is broken must not get work after one.

use std::sync::Arc;

use crate::routing::placement::AdminState;

/// The most characters of an operator's name, and of a reason.
pub const BY_MAX: usize = 100;
pub const WHY_MAX: usize = 500;

/// A state with its author and reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateChange {
    pub state: AdminState,
    /// Who set it, as far as known, and from which address.
    pub by: Arc<str>,
    pub why: Option<Arc<str>>,
    /// Milliseconds since 1970, because another process may read it.
    pub at: u64,
    pub holds: Holds,
}

/// How long a word holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Holds {
    /// Until somebody says something else.
    #[default]
    On,
    /// Until the server is another process, and no longer than up to then, in milliseconds since
    /// 1970: what is to end may stay after all, and its end may be missed.
    OneProcess { at_latest: u64 },
}

/// What was seen of a server since a word was said of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SeenSince {
    pub is_up: bool,
    /// Its process was gone, or another machine was found at its name. That it was down says
    /// nothing: a server that loads a model may look so, and goes on.
    pub was_replaced: bool,
}

impl StateChange {
    /// True if it does not hold any more.
    #[must_use]
    pub fn is_over(&self, seen: SeenSince, now: u64) -> bool {
        seen.is_up && (self.is_past(now) || (self.is_of_one_process() && seen.was_replaced))
    }

    /// True if it held for one process, and that was to end long ago.
    #[must_use]
    pub fn is_past(&self, now: u64) -> bool {
        matches!(self.holds, Holds::OneProcess { at_latest } if at_latest <= now)
    }

    /// How long it holds at most, in milliseconds.
    fn lasts(&self) -> u64 {
        match self.holds {
            Holds::On => u64::MAX,
            Holds::OneProcess { at_latest } => at_latest.saturating_sub(self.at),
        }
    }

    #[must_use]
    pub fn is_of_one_process(&self) -> bool {
        matches!(self.holds, Holds::OneProcess { .. })
    }

    /// True if this wish for a drain says more than what was said before: `state` is how the
    /// operator has the backend now, and `said` the word for that. One that is off drains as well,
    /// and whoever drains it until he says otherwise is not overruled by the end of a process. A
    /// hook that is run again says nothing new: the drain would have no end while it is run.
    #[must_use]
    pub fn drains_further(&self, state: AdminState, said: Option<&Self>, seen: SeenSince) -> bool {
        match (state, said) {
            (AdminState::Ready, _) | (AdminState::Draining, None) => true,
            (AdminState::Off, _) => false,
            (AdminState::Draining, Some(said)) if said.is_of_one_process() => {
                seen.was_replaced || said.is_past(self.at) || said.lasts() < self.lasts()
            }
            (AdminState::Draining, Some(said)) => {
                !self.is_of_one_process() && self.why.is_some() && self.why != said.why
            }
        }
    }
}

/// A name or a reason that cannot be shown in one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{what}` may have at most {max} characters and no control characters")]
pub struct BadText {
    what: &'static str,
    max: usize,
}

/// Parses an optional text of a request: `None` if it is absent or blank.
///
/// # Errors
/// It is too long or has control characters.
pub fn text<'a>(
    what: &'static str,
    text: Option<&'a str>,
    max: usize,
) -> Result<Option<&'a str>, BadText> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let is_plain = !text.chars().any(char::is_control) && text.chars().count() <= max;
    if is_plain { Ok(Some(text)) } else { Err(BadText { what, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drains(why: Option<&str>, holds: Holds) -> StateChange {
        let (state, why) = (AdminState::Draining, why.map(Into::into));
        StateChange { state, by: "ada".into(), why, at: 5, holds }
    }

    const HOOK: Holds = Holds::OneProcess { at_latest: 100 };

    #[test]
    fn a_drain_of_one_process_ends_with_it_and_any_other_when_somebody_says_so() {
        let seen = |is_up, was_replaced| SeenSince { is_up, was_replaced };
        let person = drains(None, Holds::On);
        assert!(!person.is_over(seen(true, true), u64::MAX));
        let hook = drains(None, HOOK);
        assert!(!hook.is_over(seen(true, false), 99), "the process that is to end is there still");
        assert!(!hook.is_over(seen(false, true), 99), "there is none yet");
        assert!(hook.is_over(seen(true, true), 99));
        assert!(hook.is_over(seen(true, false), 100), "its end was missed, or it did not end");
        assert!(!hook.is_over(seen(false, false), 100));
        assert!(hook.is_past(100) && !hook.is_past(99) && !person.is_past(u64::MAX));
    }

    #[test]
    fn a_wish_for_a_drain_is_taken_down_if_it_says_more_than_the_word_before() {
        use AdminState::{Draining, Off, Ready};
        let (person, hook) = (drains(None, Holds::On), drains(None, HOOK));
        let fan = drains(Some("fan"), Holds::On);
        let further = |word: &StateChange, state, said| {
            let seen = SeenSince { is_up: true, was_replaced: false };
            word.drains_further(state, said, seen)
        };
        for word in [&person, &hook, &fan] {
            assert!(further(word, Ready, None) && further(word, Ready, Some(&person)));
            assert!(!further(word, Off, Some(&person)), "it drains as it is");
            let replaced = SeenSince { is_up: false, was_replaced: true };
            let is_new = word.drains_further(Draining, Some(&hook), replaced);
            assert!(is_new, "a new process has its own end");
        }
        assert!(further(&person, Draining, Some(&hook)) && further(&fan, Draining, Some(&hook)));
        assert!(!further(&hook, Draining, Some(&person)), "a person's word stays");
        assert!(!further(&person, Draining, Some(&fan)));
        assert!(further(&fan, Draining, Some(&person)));
        assert!(!further(&fan, Draining, Some(&fan)));
        // The same hook again, ten and a hundred milliseconds later.
        let again = |at: u64, lasts: u64| {
            let holds = Holds::OneProcess { at_latest: at + lasts };
            StateChange { at, ..drains(None, holds) }
        };
        assert!(!further(&again(15, 95), Draining, Some(&hook)), "the same hook again");
        assert!(further(&again(15, 96), Draining, Some(&hook)), "it waits longer");
        assert!(further(&again(105, 95), Draining, Some(&hook)), "the first one is over");
    }

    #[test]
    fn a_text_is_one_line_of_bounded_length_or_none() {
        assert_eq!(text("why", None, 3), Ok(None));
        assert_eq!(text("why", Some("  "), 3), Ok(None));
        assert_eq!(text("why", Some(" fan "), 3), Ok(Some("fan")));
        assert_eq!(text("why", Some("ööö"), 3), Ok(Some("ööö")));
        for bad in ["four", "a\nb", "\u{1b}[1"] {
            assert!(text("why", Some(bad), 3).is_err(), "{bad:?}");
        }
    }
}
