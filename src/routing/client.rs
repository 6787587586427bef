//! One client's binding and its pending prompts: the heart of the gateway.
//!
//! A *binding* is the promise that a client's work goes to one backend. It is made on first
//! contact. It is
//!
//! - *held* while the client has a pending prompt, or an upload in flight: nothing moves it but a
//!   forced reset and the proven loss of the work;
//! - *reserved* after an upload, until the next submission, the end of the reservation, or until
//!   the backend is down, so that a picture and the prompt that uses it go together;
//! - *idle* otherwise, and idle is released: reads stay where they are, and the next upload or
//!   submission is placed anew.
//!
//! # Invariants
//!
//! - A client has at most one binding; looking it up and making it are one call.
//! - All pending prompts are on the bound backend.
//! - A held binding moves only by [`Client::reset`].
//! - A prompt is pending before its first byte is sent and leaves the map exactly once, with one
//!   named end (or without a trace, if it was never taken).
//!
//! # Why not a time to live
//!
//! A binding that expires, or that goes with its socket, is dropped in the middle of a long job:
//! the quietest client is the one that waits. What decides is pending work.

use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::decision::{Decided, Decision, Decisions, Reason, Refusal, What};
use super::ids::{BackendId, PromptId};
use super::pending::{End, Heard, Pending, Process, Sighted};
use super::place::{FleetNow, TieBreak, place};

/// One client.
#[derive(Debug)]
pub struct Client {
    binding: Option<Binding>,
    /// In the order of submission. Invariant: all on `binding`'s backend.
    pending: IndexMap<PromptId, Pending>,
    uploads_in_flight: u32,
    sockets: u32,
    last_contact: Instant,
    last_socket_lost: Option<Instant>,
    decisions: Decisions,
}

#[derive(Clone, Copy, Debug)]
struct Binding {
    backend: BackendId,
    since: Instant,
    reserved_until: Option<Instant>,
}

/// A safe reset was refused: so many prompts and uploads are pending.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{pending} prompts are pending")]
pub struct StillPending {
    pub pending: usize,
}

/// What a release or reset leaves to be done.
#[derive(Debug, Default)]
pub struct Released {
    /// The backend that the client was bound to.
    pub backend: Option<BackendId>,
    /// Prompts that a forced reset ended as lost; their backend should stop working on them.
    pub cut_off: Vec<(PromptId, Pending)>,
}

impl Client {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            binding: None,
            pending: IndexMap::new(),
            uploads_in_flight: 0,
            sockets: 0,
            last_contact: now,
            last_socket_lost: None,
            decisions: Decisions::default(),
        }
    }

    /// A socket or a read: binds on first contact, and else stays where it is. A released
    /// binding moves off a backend that is down or takes nothing new; a held one never does.
    ///
    /// # Errors
    /// No backend can serve it.
    pub fn contact(&mut self, fleet: FleetNow<'_>, now: Instant) -> Result<Decision, Refusal> {
        self.last_contact = now;
        if let Some(kept) = self.kept(fleet, now) {
            return self.record(kept, now);
        }
        let decision = match self.binding {
            Some(bound) if fleet.serves_new(bound.backend) => Ok(stay(bound.backend, Reason::Idle)),
            // A draining backend is better than none, for what is only read.
            Some(bound) if fleet.serves_held(bound.backend) => {
                self.bind(fleet, now).or(Ok(stay(bound.backend, Reason::Idle)))
            }
            Some(_) | None => self.bind(fleet, now),
        };
        self.record(decision, now)
    }

    /// An upload begins: placed anew if the binding is released, and held until
    /// [`Client::upload_ended`].
    ///
    /// # Errors
    /// No backend can serve it; nothing is held then.
    pub fn upload_began(&mut self, fleet: FleetNow<'_>, now: Instant) -> Result<Decision, Refusal> {
        self.last_contact = now;
        let decision = self.for_work(fleet, now);
        if decision.is_ok() {
            self.uploads_in_flight += 1;
        }
        self.record(decision, now)
    }

    /// The upload's answer has come, or it has failed. A picture that arrived reserves its
    /// backend for `reservation`.
    pub fn upload_ended(&mut self, reservation: Option<Duration>, now: Instant) {
        debug_assert!(0 < self.uploads_in_flight, "an upload ends once");
        self.uploads_in_flight = self.uploads_in_flight.saturating_sub(1);
        self.last_contact = now;
        if let (Some(binding), Some(reservation)) = (&mut self.binding, reservation) {
            binding.reserved_until = Some(now + reservation);
        }
    }

    /// A prompt is about to be sent: it is pending from here on.
    ///
    /// # Errors
    /// No backend can serve it, or the client has too many pending; nothing is pending then.
    pub fn submit(
        &mut self,
        prompt: PromptId,
        pending_max: usize,
        fleet: FleetNow<'_>,
        now: Instant,
    ) -> Result<Decision, Refusal> {
        self.last_contact = now;
        let decision = if self.pending.contains_key(&prompt) {
            Err(Refusal::AlreadyPending)
        } else if pending_max <= self.pending.len() {
            Err(Refusal::TooManyPending { max: pending_max })
        } else {
            self.for_work(fleet, now)
        };
        if let Ok(decision) = &decision {
            self.pending.insert(prompt, Pending::new(decision.backend, now));
            if let Some(binding) = &mut self.binding {
                binding.reserved_until = None;
            }
        }
        self.record(decision, now)
    }

    /// The prompt was refused by its backend, or provably never sent: it leaves no trace.
    pub fn withdraw(&mut self, prompt: &PromptId) -> Option<Pending> {
        self.pending.shift_remove(prompt)
    }

    /// The prompt was taken by its backend.
    pub fn accepted(&mut self, prompt: &PromptId, now: Instant) {
        if let Some(pending) = self.pending.get_mut(prompt) {
            pending.accepted(now);
        }
    }

    /// A link said something about a prompt. Returns the end, if that was it.
    pub fn hear(&mut self, prompt: &PromptId, heard: Heard, now: Instant) -> Option<End> {
        let end = self.pending.get_mut(prompt)?.hear(heard, now)?;
        self.end(prompt, end, now)
    }

    /// Asking found something about a prompt. Returns the end, if that settles it.
    pub fn sight(&mut self, prompt: &PromptId, sighted: Sighted, now: Instant) -> Option<End> {
        let end = self.pending.get_mut(prompt)?.sight(sighted, now)?;
        self.end(prompt, end, now)
    }

    /// Ends a prompt. `None` if it had ended already: a prompt ends once.
    pub fn end(&mut self, prompt: &PromptId, end: End, now: Instant) -> Option<End> {
        let pending = self.pending.shift_remove(prompt)?;
        self.decisions.remember(pending.backend, What::Ended(end), now);
        if self.pending.is_empty() {
            self.decisions.remember(pending.backend, What::Released, now);
        }
        Some(end)
    }

    /// The client asked for a prompt to be deleted, and the backend said 200, as it always does.
    pub fn delete_asked(&mut self, prompt: &PromptId) {
        if let Some(pending) = self.pending.get_mut(prompt) {
            pending.delete_asked = true;
        }
    }

    /// All that is pending on `backend` must be asked about: its link broke, or it came back.
    pub fn must_ask(&mut self, backend: BackendId) {
        for pending in self.pending.values_mut().filter(|pending| pending.backend == backend) {
            pending.must_ask = true;
        }
    }

    /// A safe release, if nothing is pending.
    ///
    /// # Errors
    /// How many prompts and uploads are pending.
    pub fn release(&mut self, now: Instant) -> Result<Released, StillPending> {
        match self.work() {
            0 => Ok(self.unbind(What::Released, now)),
            pending => Err(StillPending { pending }),
        }
    }

    /// A forced reset: whatever is pending is lost, and the binding is gone.
    pub fn reset(&mut self, now: Instant) -> Released {
        let cut_off = self.pending.drain(..).collect();
        Released { cut_off, ..self.unbind(What::Reset, now) }
    }

    pub fn socket_opened(&mut self, now: Instant) {
        self.sockets += 1;
        self.last_contact = now;
    }

    pub fn socket_closed(&mut self, now: Instant) {
        debug_assert!(0 < self.sockets, "a socket closes once");
        self.sockets = self.sockets.saturating_sub(1);
        self.last_contact = now;
        self.last_socket_lost = Some(now);
    }

    /// True if nothing is left of it but a name: no socket, no work, and no contact for `lease`.
    #[must_use]
    pub fn is_forgotten(&self, lease: Duration, now: Instant) -> bool {
        self.sockets == 0 && self.work() == 0 && lease <= now.duration_since(self.last_contact)
    }

    /// True while nothing may move the binding.
    #[must_use]
    pub fn is_held(&self) -> bool {
        0 < self.work()
    }

    /// The state of the binding in one word.
    #[must_use]
    pub fn binding_state(&self, now: Instant) -> &'static str {
        match self.binding {
            None => "none",
            Some(_) if self.is_held() => "held",
            Some(bound) if is_reserved(&bound, now) => "reserved",
            Some(_) => "idle",
        }
    }

    /// The backend it is bound to, and since when.
    #[must_use]
    pub fn bound(&self) -> Option<(BackendId, Instant)> {
        self.binding.map(|bound| (bound.backend, bound.since))
    }

    #[must_use]
    pub fn sockets(&self) -> u32 {
        self.sockets
    }

    #[must_use]
    pub fn last_contact(&self) -> Instant {
        self.last_contact
    }

    #[must_use]
    pub fn last_socket_lost(&self) -> Option<Instant> {
        self.last_socket_lost
    }

    #[must_use]
    pub fn pending(&self) -> &IndexMap<PromptId, Pending> {
        &self.pending
    }

    /// The last decisions, oldest first.
    pub fn decisions(&self) -> impl Iterator<Item = &Decided> {
        self.decisions.iter()
    }

    /// Prompts that must be asked about, or that asking has settled, with their backends.
    #[must_use]
    pub fn to_ask(&self, silent_after: Duration, now: Instant) -> Vec<(PromptId, BackendId)> {
        self.pending
            .iter()
            .filter(|(_, pending)| pending.wants_asking(silent_after, now))
            .map(|(prompt, pending)| (prompt.clone(), pending.backend))
            .collect()
    }

    /// Where an upload or a submission goes: it stays with work and reservations, and is placed
    /// anew otherwise.
    fn for_work(&mut self, fleet: FleetNow<'_>, now: Instant) -> Result<Decision, Refusal> {
        match self.kept(fleet, now) {
            Some(kept) => kept,
            None => self.bind(fleet, now),
        }
    }

    /// The decision of a binding that may not move; `None` if it may.
    fn kept(&self, fleet: FleetNow<'_>, now: Instant) -> Option<Result<Decision, Refusal>> {
        let bound = self.binding?;
        let serves = fleet.serves_held(bound.backend);
        if self.is_held() {
            let down = Refusal::BackendDown { backend: bound.backend };
            return Some(if serves { Ok(stay(bound.backend, Reason::Held)) } else { Err(down) });
        }
        (is_reserved(&bound, now) && serves).then(|| Ok(stay(bound.backend, Reason::Reserved)))
    }

    /// Places the client anew. The only place where a binding is made.
    fn bind(&mut self, fleet: FleetNow<'_>, now: Instant) -> Result<Decision, Refusal> {
        debug_assert!(!self.is_held(), "a held binding does not move");
        let last = self.binding.map(|bound| bound.backend);
        let backend = place(fleet.backends, TieBreak { last, turn: fleet.turn })?;
        if last == Some(backend) {
            return Ok(stay(backend, Reason::Placed));
        }
        self.binding = Some(Binding { backend, since: now, reserved_until: None });
        let reason = if last.is_some() { Reason::Moved } else { Reason::Placed };
        Ok(Decision { backend, reason, left: last, newly_bound: true })
    }

    fn unbind(&mut self, what: What, now: Instant) -> Released {
        let bound = self.binding.take();
        if let Some(bound) = bound {
            self.decisions.remember(bound.backend, what, now);
        }
        Released { backend: bound.map(|bound| bound.backend), cut_off: Vec::new() }
    }

    fn work(&self) -> usize {
        self.pending.len() + self.uploads_in_flight as usize
    }

    fn record(
        &mut self,
        decision: Result<Decision, Refusal>,
        now: Instant,
    ) -> Result<Decision, Refusal> {
        let bound = self.binding.map_or(BackendId(0), |bound| bound.backend);
        self.decisions.record(&decision, bound, now);
        decision
    }
}

fn stay(backend: BackendId, reason: Reason) -> Decision {
    Decision { backend, reason, left: None, newly_bound: false }
}

fn is_reserved(bound: &Binding, now: Instant) -> bool {
    bound.reserved_until.is_some_and(|until| now < until)
}

/// What is known of a backend's process, from when a prompt was sent and when the process is
/// known to have been new.
#[must_use]
pub fn process_since(sent: Instant, restarted: Option<Instant>) -> Process {
    match restarted {
        Some(restarted) if sent < restarted => Process::Restarted,
        Some(_) | None => Process::MaybeSame,
    }
}
