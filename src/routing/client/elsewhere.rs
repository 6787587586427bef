//! A submission that was certainly not taken by its backend goes to another one.

use std::time::Instant;

use super::Client;
use crate::routing::decision::{Decision, NotThere};
use crate::routing::effects::Step;
use crate::routing::ids::PromptId;
use crate::routing::pending::Course;
use crate::routing::placement::FleetNow;

impl Client {
    /// The prompt is provably not at the backend that it was sent to. Places it anew, if nothing
    /// else holds the client there. `None` leaves everything unchanged.
    pub fn submit_elsewhere(
        &mut self,
        prompt: &PromptId,
        why: NotThere,
        fleet: FleetNow<'_>,
        now: Instant,
    ) -> Step<Option<Decision>> {
        Step::of(|effects| {
            let pending = self.pending().get(prompt)?;
            if pending.course() != Course::Direct {
                // The queue decides where it goes.
                return None;
            }
            // An uploaded picture for this prompt is on that backend, and cannot be fetched from
            // there.
            let has_picture = pending.reservation.is_some_and(|until| now < until);
            if self.work() != 1 || (has_picture && why == NotThere::NeverSent) {
                return None;
            }
            let lifted = self.prompts.lift(prompt)?;
            let placed = self.bind(fleet, now, effects);
            let backend = self.bound.backend().or(lifted.1.backend())?;
            self.prompts.put_back(lifted, (backend, now), effects);
            self.remember(&placed, now);
            let decision = placed.ok().filter(|decision| decision.newly_bound)?;
            effects.routed = Some(decision.reason);
            Some(decision)
        })
    }
}
