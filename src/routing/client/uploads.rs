//! Uploads and requests to node packs, which a client sends before its prompts.

use std::time::{Duration, Instant};

use super::super::decision::Decision;
use super::super::effects::{QueueNews, Step};
use super::super::ids::BackendId;
use super::super::placement::{BackendView, FleetNow};
use super::{Client, Decided};

/// A dialogue with a node pack, as far as the gateway can tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialogue {
    backend: BackendId,
    until: Instant,
    /// How many prompts longer its queue may be to keep the dialogue there.
    margin: u32,
}

impl Client {
    /// An upload was made before the client told its id, and waits on `backend`. The first contact
    /// binds the client there, unless it is bound already.
    pub fn reserve(&mut self, backend: BackendId, until: Instant, now: Instant) -> Step {
        Step::of(|effects| {
            if self.bound.get().is_none() {
                self.bound.bind(backend, Some(until), now, effects);
            }
        })
    }

    /// An upload begins. An idle binding is placed anew, and the client is held until
    /// [`Client::upload_ended`].
    ///
    /// Its outcome is a refusal if no backend can serve it; the client is not held then.
    pub fn upload_began(&mut self, fleet: FleetNow<'_>, now: Instant) -> Step<Decided> {
        Step::of(|effects| {
            self.last_contact = now;
            let decision = self.for_work(fleet, now, effects);
            if decision.is_ok() {
                effects.queue = Some(QueueNews::Uploads);
                self.uploads_in_flight += 1;
            }
            self.record(decision, now, effects)
        })
    }

    /// A body for a node pack begins. It goes where reads go, because the pack knows the client
    /// there. The client is held there until [`Client::upload_ended`].
    ///
    /// Its outcome is that of [`Client::contact`]; after a refusal the client is not held.
    pub fn body_began(&mut self, fleet: FleetNow<'_>, now: Instant) -> Step<Decided> {
        Step::of(|effects| {
            let decision = self.contacted(fleet, now, effects)?;
            effects.queue = Some(QueueNews::Uploads);
            self.uploads_in_flight += 1;
            Ok(decision)
        })
    }

    /// A read that may belong to a dialogue with a node pack. Until `until` this client prefers the
    /// backend that the read goes to, by `margin` prompts.
    ///
    /// Its outcome is that of [`Client::contact`].
    pub fn dialogue(
        &mut self,
        (until, margin): (Instant, u32),
        fleet: FleetNow<'_>,
        now: Instant,
    ) -> Step<Decided> {
        Step::of(|effects| {
            let decision = self.contacted(fleet, now, effects)?;
            self.dialogue = Some(Dialogue { backend: decision.backend, until, margin });
            Ok(decision)
        })
    }

    /// The upload that was decided by `began` has its answer, or has failed. A picture that arrived
    /// reserves its backend for `reservation`.
    pub fn upload_ended(
        &mut self,
        began: Decision,
        reservation: Option<Duration>,
        now: Instant,
    ) -> Step {
        Step::of(|effects| {
            self.last_contact = now;
            // After a reset the picture is on a backend that the client is no longer bound to, so
            // it reserves nothing.
            if self.bound.get().is_none_or(|bound| bound.number != began.binding) {
                return;
            }
            debug_assert!(0 < self.uploads_in_flight, "an upload ends once");
            self.uploads_in_flight = self.uploads_in_flight.saturating_sub(1);
            effects.queue = Some(QueueNews::Uploads);
            if let Some(reservation) = reservation {
                self.bound.reserve(Some(now + reservation), effects);
            }
            self.remember_if_released(now);
        })
    }

    /// During a dialogue a placement prefers the backend of the dialogue.
    pub(super) fn prefer_dialogue(&self, views: &mut [BackendView], now: Instant) {
        let Some(dialogue) = self.dialogue.filter(|dialogue| now < dialogue.until) else { return };
        if let Some(view) = views.iter_mut().find(|view| view.id == dialogue.backend) {
            view.head_start = view.head_start.max(Some(dialogue.margin));
        }
    }
}
