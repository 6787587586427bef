//! Probe results → up or down, with hysteresis.

use std::num::NonZeroU32;

/// Health of one backend.
///
/// ```text
///               fall consecutive failures
///          ┌──────────────────────────────────►┐
///   Up { failures }                     Down { successes }
///          └◄──────────────────────────────────┘
///               rise consecutive successes
/// ```
///
/// Each state carries only the streak that can end it, so "up with a success streak" cannot be
/// written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    Down { successes: u32 },
    Up { failures: u32 },
}

/// What was seen of a backend: its watch link opened or answered, or it did not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    Fail,
    Pass,
}

/// How many results in a row turn the health.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Thresholds {
    pub rise: NonZeroU32,
    pub fall: NonZeroU32,
}

/// What a transition means to the rest; most probes change nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    WentDown,
    WentUp,
}

impl Health {
    /// A backend takes nothing before it has answered once: the listeners open only after each
    /// was asked, so a restart causes no outage, and nobody is placed on a backend never seen.
    pub const INITIAL: Self = Self::Down { successes: 0 };

    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// Takes one result; returns the new health and what changed.
    #[must_use]
    pub fn observe(self, probe: Probe, thresholds: Thresholds) -> (Self, Option<Change>) {
        match (self, probe) {
            (Self::Up { .. }, Probe::Pass) => (Self::Up { failures: 0 }, None),
            (Self::Down { .. }, Probe::Fail) => (Self::Down { successes: 0 }, None),
            (Self::Up { failures }, Probe::Fail) => {
                let failures = failures + 1;
                if failures < thresholds.fall.get() {
                    (Self::Up { failures }, None)
                } else {
                    (Self::Down { successes: 0 }, Some(Change::WentDown))
                }
            }
            (Self::Down { successes }, Probe::Pass) => {
                let successes = successes + 1;
                if successes < thresholds.rise.get() {
                    (Self::Down { successes }, None)
                } else {
                    (Self::Up { failures: 0 }, Some(Change::WentUp))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a script of `+` (pass) and `-` (fail), from up, and renders the state after each step.
    #[track_caller]
    fn check(script: &str, expected: &str) {
        let three = NonZeroU32::new(3).unwrap();
        let two = NonZeroU32::new(2).unwrap();
        let thresholds = Thresholds { rise: two, fall: three };
        let mut health = Health::Up { failures: 0 };
        let seen: String = script
            .chars()
            .map(|step| {
                let probe = if step == '+' { Probe::Pass } else { Probe::Fail };
                health = health.observe(probe, thresholds).0;
                if health.is_up() { 'U' } else { 'D' }
            })
            .collect();
        assert_eq!(seen, expected, "script {script}");
    }

    #[test]
    fn falls_after_three_failures_in_a_row() {
        check("---", "UUD");
        check("--+--", "UUUUU");
    }

    #[test]
    fn rises_after_two_successes_in_a_row() {
        check("---+-++", "UUDDDDU");
    }
}
