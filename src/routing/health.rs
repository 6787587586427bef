//! Turns probe results into up or down, with hysteresis.

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
/// represented.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    Down { successes: u32 },
    Up { failures: u32 },
}

/// The result of one probe: the watch link opened or answered, or it did not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    Fail,
    Pass,
}

/// How many equal results in a row change the health.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Thresholds {
    pub rise: NonZeroU32,
    pub fall: NonZeroU32,
}

/// A change of the health; most probes change nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    WentDown,
    WentUp,
}

impl Health {
    /// A backend takes nothing before it has answered once. The listeners open only after each
    /// backend was asked, so this causes no outage at a restart, and no client is placed on a
    /// backend that was never seen.
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
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    /// Applies a script of `+` (pass) and `-` (fail), from up, and renders the state after each
    /// step.
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

    #[test]
    fn only_the_probe_that_turns_the_health_says_so() {
        let one = NonZeroU32::MIN;
        let thresholds = Thresholds { rise: one, fall: one };
        let (up, change) = Health::INITIAL.observe(Probe::Pass, thresholds);
        assert_eq!((up.is_up(), change), (true, Some(Change::WentUp)));
        assert_eq!(up.observe(Probe::Pass, thresholds), (up, None));
        let (down, change) = up.observe(Probe::Fail, thresholds);
        assert_eq!((down.is_up(), change), (false, Some(Change::WentDown)));
        assert_eq!(down.observe(Probe::Fail, thresholds), (down, None));
    }

    proptest! {
        #[test]
        fn health_turns_exactly_at_the_end_of_a_streak(
            probes in vec(any::<bool>(), 0..60),
            rise in 1..5_u32,
            fall in 1..5_u32,
        ) {
            let thresholds = Thresholds {
                rise: NonZeroU32::new(rise).unwrap(),
                fall: NonZeroU32::new(fall).unwrap(),
            };
            let (mut health, mut is_up) = (Health::INITIAL, false);
            for (index, passed) in probes.iter().enumerate() {
                let streak = probes[..=index].iter().rev().take_while(|it| *it == passed).count();
                let needed = if *passed { rise } else { fall };
                let turns = is_up != *passed && needed as usize <= streak;
                is_up ^= turns;
                let probe = if *passed { Probe::Pass } else { Probe::Fail };
                let (after, change) = health.observe(probe, thresholds);
                let expected = if is_up { Change::WentUp } else { Change::WentDown };
                prop_assert_eq!(change, turns.then_some(expected));
                prop_assert_eq!(after.is_up(), is_up);
                health = after;
            }
        }
    }
}
