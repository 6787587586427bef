//! What events say of a prompt, and when it has made its first step: until then it loads models.
//!
//! A sampler reports each of its steps. What reports none has made its first one when its second
//! node begins.

use std::time::{Duration, Instant};

use super::{End, Pending};

/// What an event said about a prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// It started.
    Started,
    /// It continues: an output, or anything else of it.
    Progressed,
    /// One of its nodes begins.
    Node,
    /// A node has made a step, so its models are loaded.
    Step,
    /// A terminal event.
    Terminal(End),
    /// The closing `executing` null was relayed.
    LastWord,
}

impl Pending {
    /// How long after its start its first step came. `None` if that was not seen.
    #[must_use]
    pub fn first_step(&self) -> Option<Duration> {
        Some(self.steps.first()?.saturating_duration_since(self.started?))
    }
}

/// What events have shown of its steps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Steps {
    nodes: u8,
    second_node: Option<Instant>,
    step: Option<Instant>,
    /// Events may have been missed, so the first that came may not be the first.
    is_unsure: bool,
}

impl Steps {
    pub(super) fn heard(&mut self, heard: Signal, now: Instant) {
        match heard {
            Signal::Node => {
                self.nodes = self.nodes.saturating_add(1);
                if self.nodes == 2 {
                    self.second_node = Some(now);
                }
            }
            Signal::Step => {
                self.step.get_or_insert(now);
            }
            Signal::Started | Signal::Progressed | Signal::Terminal(_) | Signal::LastWord => {}
        }
    }

    /// What comes next may not be the first.
    pub(super) fn may_be_missed(&mut self) {
        self.is_unsure = self.is_unsure || self.step.is_none();
    }

    pub(super) fn first(&self) -> Option<Instant> {
        if self.is_unsure { None } else { self.step.or(self.second_node) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(heard: &[Signal], is_deaf_after: Option<usize>) -> Option<u64> {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let began = Instant::now();
        let mut steps = Steps::default();
        for (second, heard) in (0..).zip(heard) {
            steps.heard(*heard, began + Duration::from_secs(second));
            if is_deaf_after == usize::try_from(second).ok() {
                steps.may_be_missed();
            }
        }
        steps.first().map(|at| at.duration_since(began).as_secs())
    }

    #[test]
    fn a_sampler_says_when_it_steps_and_others_are_known_by_their_second_node() {
        use Signal::{LastWord, Node, Progressed, Started, Step};
        assert_eq!(first(&[Started, Node, Progressed, Node, Step, Step], None), Some(4));
        assert_eq!(first(&[Started, Node, Node, Node, LastWord], None), Some(2));
        assert_eq!(first(&[Started, Node, Signal::Terminal(End::Succeeded)], None), None);
        assert_eq!(first(&[Started, Node, Step, Node], Some(1)), None, "one may be missed");
        assert_eq!(first(&[Started, Node, Step, Node], Some(2)), Some(2));
    }
}
