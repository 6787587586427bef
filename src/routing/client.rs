//! One client's binding and its pending prompts: the core of the gateway.
//!
//! A *binding* promises that a client's work goes to one backend. Made on first contact, it is
//!
//! - *held* while the client has a pending prompt, or an upload in flight: only a forced reset or
//!   the proven loss of the work moves it;
//! - *reserved* after an upload, so that a picture and the prompt that uses it go to one backend.
//!   The reservation ends with the next submission, when its time is over, or when the backend is
//!   down;
//! - *idle* otherwise. Reads stay where they are, and the next upload or submission is placed anew.
//!
//! # Invariants
//!
//! - A client has at most one binding; looking it up and making it are one call.
//! - All pending prompts are on the bound backend, except those that were found elsewhere after a
//!   start without a journal (the `adopted` part). These do not hold the binding.
//! - A held binding moves only by [`Client::reset`].
//! - A prompt is pending before its first byte is sent and leaves the map exactly once: with one
//!   named end, or without a trace if no backend accepted it.
//!
//! # Why not a time to live
//!
//! A binding that expires, or that ends with its socket, can end in the middle of a long job: a
//! client that waits for one is silent. So pending work decides.

mod adoption;
mod binding;
mod elsewhere;
mod losses;
mod prompts;
mod transitions;
mod uploads;
mod waiting;

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use smallvec::SmallVec;

use super::decision::{Decision, Decisions, Reason, Refusal, What};
use super::effects::{Effects, Step};
use super::ids::{BackendId, PromptId};
use super::pending::Pending;
use super::placement::{BackendView, FleetNow};
use binding::{Binding, Bound};
use prompts::Prompts;
pub use transitions::Outcome;
use uploads::Dialogue;
pub use waiting::NotNow;

/// One client.
#[derive(Debug)]
pub struct Client {
    bound: Bound,
    /// Invariant: all on the backend that the client is bound to, except adopted ones and those
    /// that wait in the gateway.
    prompts: Prompts,
    /// Uploads that began under the current binding.
    uploads_in_flight: u32,
    /// A dialogue with a node pack, as far as the gateway can tell.
    dialogue: Option<Dialogue>,
    sockets: u32,
    last_contact: Instant,
    last_end: Option<Instant>,
    last_socket_lost: Option<Instant>,
    decisions: Decisions,
}

/// A binding from before a restart of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    pub backend: BackendId,
    pub since: Instant,
    pub reserved_until: Option<Instant>,
}

type Decided = Result<Decision, Refusal>;

impl Client {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            bound: Bound::default(),
            prompts: Prompts::default(),
            uploads_in_flight: 0,
            dialogue: None,
            sockets: 0,
            last_contact: now,
            last_end: None,
            last_socket_lost: None,
            decisions: Decisions::default(),
        }
    }

    /// A client from before a restart of the gateway: its pending prompts are on `binding`'s
    /// backend, in the order of submission.
    #[must_use]
    pub fn restored(
        binding: Option<Restored>,
        pending: IndexMap<PromptId, Pending>,
        now: Instant,
    ) -> Self {
        let binding = binding.map(|Restored { backend, since, reserved_until }| Binding {
            number: 1,
            backend,
            since,
            reserved_until,
        });
        let (bound, prompts) = (Bound::restored(binding), Prompts::restored(pending));
        Self { bound, prompts, ..Self::new(now) }
    }

    /// A socket or a read: binds on first contact, and otherwise keeps the binding. An idle binding
    /// moves off a backend that is down or takes nothing new; a held one never moves.
    ///
    /// Its outcome is a refusal if no backend can serve it.
    pub fn contact(&mut self, fleet: FleetNow<'_>, now: Instant) -> Step<Decided> {
        Step::of(|effects| self.contacted(fleet, now, effects))
    }

    /// The same, if the client stays where it is: only its own backend's state is needed. `None` if
    /// the decision needs all backends.
    pub fn contact_in_place(
        &mut self,
        own: Option<&BackendView>,
        now: Instant,
    ) -> Step<Option<Decided>> {
        Step::of(|effects| self.contacted_in_place(own, now, effects))
    }

    /// A prompt is about to be sent: it is pending from here on.
    ///
    /// Its outcome is a refusal if no backend can serve it, or the client has too many pending
    /// prompts; the new prompt is not pending then.
    pub fn submit(
        &mut self,
        prompt: PromptId,
        pending_max: usize,
        fleet: FleetNow<'_>,
        now: Instant,
    ) -> Step<Decided> {
        Step::of(|effects| {
            self.last_contact = now;
            let decision = if self.pending().contains_key(&prompt) {
                Err(Refusal::AlreadyPending)
            } else if pending_max <= self.pending().len() {
                Err(Refusal::TooManyPending { max: pending_max })
            } else {
                self.for_work(fleet, now, effects)
            };
            if let Ok(decision) = &decision {
                let mut pending = Pending::new(decision.backend, now);
                pending.reservation = self.bound.reserve(None, effects);
                self.prompts.begin(prompt, pending, effects);
            }
            self.record(decision, now, effects)
        })
    }

    /// The prompt was refused by its backend, or provably never sent: it leaves no trace. The
    /// reservation that it used up is restored, so that a corrected prompt finds its picture.
    pub fn withdraw(&mut self, prompt: &PromptId) -> Step<Option<Pending>> {
        Step::of(|effects| {
            let withdrawn = self.prompts.withdraw(prompt, effects)?;
            let until = self.reserved_until().max(withdrawn.reservation);
            self.bound.reserve(until, effects);
            Some(withdrawn)
        })
    }

    pub fn socket_opened(&mut self, now: Instant) -> Step {
        Step::of(|_effects| {
            self.sockets += 1;
            self.last_contact = now;
        })
    }

    pub fn socket_closed(&mut self, now: Instant) -> Step {
        Step::of(|_effects| {
            debug_assert!(0 < self.sockets, "a socket closes once");
            self.sockets = self.sockets.saturating_sub(1);
            self.last_contact = now;
            self.last_socket_lost = Some(now);
        })
    }

    /// True if only its name is left: no socket, no work, and no contact for `lease`.
    ///
    /// The end of a prompt restarts the lease. So a client that submits, goes away for longer than
    /// the lease, and comes back when the work is done, still learns how it ended.
    #[must_use]
    pub fn is_forgotten(&self, lease: Duration, now: Instant) -> bool {
        let last = self.last_end.map_or(self.last_contact, |end| end.max(self.last_contact));
        self.sockets == 0 && self.work() == 0 && lease <= now.duration_since(last)
    }

    /// Since when it could be forgotten; `None` while it has a socket, work or a reservation.
    #[must_use]
    pub fn idle_since(&self, now: Instant) -> Option<Instant> {
        let is_idle = self.sockets == 0 && self.work() == 0 && !self.is_reserved(now);
        is_idle.then(|| self.last_end.map_or(self.last_contact, |end| end.max(self.last_contact)))
    }

    /// True while nothing may move the binding.
    #[must_use]
    pub fn is_held(&self) -> bool {
        0 < self.uploads_in_flight || self.has_prompts_here()
    }

    /// True while an upload waits at the bound backend for its prompt.
    #[must_use]
    pub fn is_reserved(&self, now: Instant) -> bool {
        self.bound.get().is_some_and(|bound| bound.is_reserved(now))
    }

    /// The state of the binding in one word.
    #[must_use]
    pub fn binding_state(&self, now: Instant) -> &'static str {
        match self.bound.get() {
            None => "none",
            Some(_) if self.is_held() || self.has_waiting() => "held",
            Some(bound) if bound.is_reserved(now) => "reserved",
            Some(_) => "idle",
        }
    }

    /// The backend it is bound to, and since when.
    #[must_use]
    pub fn bound(&self) -> Option<(BackendId, Instant)> {
        self.bound.get().map(|bound| (bound.backend, bound.since))
    }

    /// When the reservation of an upload ends; may be in the past.
    #[must_use]
    pub fn reserved_until(&self) -> Option<Instant> {
        self.bound.get().and_then(|bound| bound.reserved_until)
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
        self.prompts.map()
    }

    /// The latest decisions.
    #[must_use]
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn contacted(&mut self, fleet: FleetNow<'_>, now: Instant, effects: &mut Effects) -> Decided {
        let own = self.bound.backend().and_then(|backend| fleet.view(backend));
        if let Some(decided) = self.contacted_in_place(own, now, effects) {
            return decided;
        }
        let decision = match self.bound.get() {
            // For reads, a draining backend is good enough.
            Some(bound) if fleet.serves_held(bound.backend) => {
                self.bind(fleet, now, effects).or(Ok(stay(&bound, Reason::Idle)))
            }
            Some(_) | None => self.bind(fleet, now, effects),
        };
        self.record(decision, now, effects)
    }

    fn contacted_in_place(
        &mut self,
        own: Option<&BackendView>,
        now: Instant,
        effects: &mut Effects,
    ) -> Option<Decided> {
        self.last_contact = now;
        let bound = self.bound.get()?;
        let serves_new = own.is_some_and(BackendView::serves_new);
        let idle = || serves_new.then(|| Ok(stay(&bound, Reason::Idle)));
        let decided = self.kept(own, now).or_else(idle)?;
        Some(self.record(decided, now, effects))
    }

    /// Where an upload or a submission goes: a held or reserved binding stays, an idle one is
    /// placed anew.
    fn for_work(&mut self, fleet: FleetNow<'_>, now: Instant, effects: &mut Effects) -> Decided {
        let own = self.bound.backend().and_then(|backend| fleet.view(backend));
        match self.kept(own, now) {
            // The prompt would wait behind prompts that the backend does not run, and be lost with
            // them.
            Some(Ok(Decision { backend, .. })) if fleet.is_wedged(backend) => {
                if self.is_held() {
                    return Err(Refusal::BackendWedged { backend });
                }
                self.bind(fleet, now, effects)
            }
            Some(kept) => kept,
            None => self.bind(fleet, now, effects),
        }
    }

    /// The decision for a binding that may not move; `None` if it may.
    fn kept(&self, own: Option<&BackendView>, now: Instant) -> Option<Decided> {
        let bound = self.bound.get()?;
        let serves = own.is_some_and(BackendView::serves_held);
        if self.is_held() {
            let down = Refusal::BackendDown { backend: bound.backend };
            return Some(if serves { Ok(stay(&bound, Reason::Held)) } else { Err(down) });
        }
        // What waits goes there too, if it can.
        if self.has_waiting() && own.is_some_and(BackendView::serves_new) {
            return Some(Ok(stay(&bound, Reason::Held)));
        }
        (bound.is_reserved(now) && serves).then(|| Ok(stay(&bound, Reason::Reserved)))
    }

    /// Places the client anew.
    fn bind(&mut self, fleet: FleetNow<'_>, now: Instant, effects: &mut Effects) -> Decided {
        debug_assert!(!self.is_held(), "a held binding does not move");
        let last = self.bound.backend();
        let mut views: SmallVec<[BackendView; 8]> = SmallVec::from_slice(fleet.backends);
        self.prefer_dialogue(&mut views, now);
        let fleet = FleetNow { backends: &views, turn: fleet.turn };
        let backend = self.decisions.place(fleet, last, now)?;
        if let Some(bound) = self.bound.get().filter(|bound| bound.backend == backend) {
            return Ok(stay(&bound, Reason::Placed));
        }
        let Binding { number, .. } = self.bound.bind(backend, None, now, effects);
        let reason = if last.is_some() { Reason::Moved } else { Reason::Placed };
        Ok(Decision { backend, reason, left: last, newly_bound: true, binding: number })
    }

    fn unbind(&mut self, what: What, now: Instant, effects: &mut Effects) -> Option<BackendId> {
        let bound = self.bound.let_go(effects)?;
        self.decisions.remember(Some(bound), what, now);
        Some(bound)
    }

    fn work(&self) -> usize {
        self.pending().len() + self.uploads_in_flight as usize
    }

    /// Records a decision about a request.
    fn record(&mut self, decision: Decided, now: Instant, effects: &mut Effects) -> Decided {
        self.remember(&decision, now);
        effects.routed = decision.as_ref().ok().map(|made| made.reason);
        decision
    }

    fn remember(&mut self, decision: &Decided, now: Instant) {
        self.decisions.record(decision, self.bound.backend(), now);
    }

    /// Something that held the binding is over. Records the release if nothing else holds it.
    fn remember_if_released(&mut self, now: Instant) {
        if let Some(bound) = self.bound.get().filter(|bound| !bound.is_reserved(now))
            && !self.is_held()
            && !self.has_waiting()
        {
            self.decisions.remember(Some(bound.backend), What::Released, now);
        }
    }
}

fn stay(bound: &Binding, reason: Reason) -> Decision {
    let Binding { number, backend, .. } = *bound;
    Decision { backend, reason, left: None, newly_bound: false, binding: number }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::super::decision::{DECISIONS_KEPT, NotThere, Released, StillPending};
    use super::super::effects::KnownBy;
    use super::super::effects::tests::Mirror;
    use super::super::pending::{End, Loss, Observation, Process, Signal};
    use super::super::placement::tests::fleet;
    use super::super::placement::{BackendView, NoPlace};
    use super::*;

    const PENDING_MAX: usize = 3;
    const RESERVATION: Duration = Duration::from_secs(600);
    const LEASE: Duration = Duration::from_secs(600);

    /// One client, the fleet in the notation of `placement`'s tests, and a clock that only the test
    /// moves.
    struct Story {
        client: Client,
        mirror: Mirror,
        fleet: Vec<BackendView>,
        now: Instant,
    }

    impl Story {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        fn new(backends: &str) -> Self {
            let now = Instant::now();
            let (client, mirror) = (Client::new(now), Mirror::default());
            Self { client, mirror, fleet: fleet(backends), now }
        }

        /// Replaces the fleet.
        fn fleet(&mut self, backends: &str) -> &mut Self {
            self.fleet = fleet(backends);
            self
        }

        fn after(&mut self, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self
        }

        fn contact(&mut self) -> Result<(u16, Reason), Refusal> {
            let (fleet, now) = (self.fleet.clone(), self.now);
            let fleet = FleetNow { backends: &fleet, turn: 0 };
            self.outcome(|client| client.contact(fleet, now)).map(in_short)
        }

        fn submit(&mut self, prompt: &str) -> Result<(u16, Reason), Refusal> {
            self.decide(prompt).map(in_short)
        }

        fn decide(&mut self, prompt: &str) -> Result<Decision, Refusal> {
            let (fleet, now) = (self.fleet.clone(), self.now);
            let fleet = FleetNow { backends: &fleet, turn: 0 };
            self.outcome(|client| client.submit(id(prompt), PENDING_MAX, fleet, now))
        }

        fn is_forgotten(&self) -> bool {
            self.client.is_forgotten(LEASE, self.now)
        }

        fn upload_began(&mut self) -> Result<Decision, Refusal> {
            let (fleet, now) = (self.fleet.clone(), self.now);
            let fleet = FleetNow { backends: &fleet, turn: 0 };
            self.outcome(|client| client.upload_began(fleet, now))
        }

        /// An upload that arrives completely at once.
        fn upload(&mut self) -> Result<(u16, Reason), Refusal> {
            let began = self.upload_began()?;
            self.upload_ended(began, Some(RESERVATION));
            Ok(in_short(began))
        }

        fn upload_ended(&mut self, began: Decision, reservation: Option<Duration>) {
            let now = self.now;
            self.outcome(|client| client.upload_ended(began, reservation, now));
        }

        fn withdraw(&mut self, prompt: &str) -> bool {
            self.outcome(|client| client.withdraw(&id(prompt))).is_some()
        }

        fn release(&mut self) -> Result<Released, StillPending> {
            let now = self.now;
            self.outcome(|client| client.release(now))
        }

        fn reset(&mut self) -> Released {
            let now = self.now;
            self.outcome(|client| client.reset(now))
        }

        fn end(&mut self, prompt: &str, end: End) -> Option<End> {
            let now = self.now;
            self.ends(|client| client.settle(&id(prompt), end, now))
        }

        /// Makes a transition that ends at most one prompt.
        fn ends(&mut self, transition: impl FnOnce(&mut Client) -> Step) -> Option<End> {
            let (_, effects) = transition(&mut self.client).split();
            self.mirror.take(&effects, &self.client);
            assert!(effects.ended.len() <= 1, "{effects:?}");
            effects.ended.first().map(|ended| ended.end)
        }

        /// Makes a transition.
        fn outcome<T>(&mut self, transition: impl FnOnce(&mut Client) -> Step<T>) -> T {
            let (outcome, effects) = transition(&mut self.client).split();
            self.mirror.take(&effects, &self.client);
            outcome
        }

        fn state(&self) -> &'static str {
            self.client.binding_state(self.now)
        }

        fn backend(&self) -> Option<u16> {
            self.client.bound().map(|(backend, _)| backend.slot())
        }

        /// The last decisions in words, oldest first.
        fn decisions(&self) -> Vec<&'static str> {
            self.client.decisions().iter().map(|decided| decided.what.as_str()).collect()
        }
    }

    fn in_short(decision: Decision) -> (u16, Reason) {
        (decision.backend.slot(), decision.reason)
    }

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    #[test]
    fn the_first_contact_binds_to_the_shortest_queue_and_reads_stay_there() {
        let mut story = Story::new("Ru2 Ru1");
        assert_eq!(story.contact(), Ok((1, Reason::Placed)));
        assert_eq!(story.fleet("Ru0 Ru9").contact(), Ok((1, Reason::Idle)));
        assert_eq!(story.fleet("Ru0 Ru9<9").contact(), Ok((1, Reason::Idle)), "full, but read");
        assert_eq!(story.decisions(), ["placed", "idle"], "and the second read was no news");
    }

    #[test]
    fn a_client_of_an_empty_fleet_is_refused_and_not_bound() {
        let mut story = Story::new("");
        let none = Err(Refusal::NoPlace(NoPlace::FleetEmpty));
        assert_eq!(story.contact(), none);
        assert_eq!(story.submit("p"), none);
        assert_eq!(story.upload(), none);
        assert_eq!((story.state(), story.backend()), ("none", None));
        assert!(story.client.pending().is_empty());
    }

    #[test]
    fn a_held_binding_stays_whatever_becomes_of_its_backend() {
        let mut story = Story::new("Ru0 Ru1");
        assert_eq!(story.submit("p"), Ok((0, Reason::Placed)));
        for backends in ["Ru9 Ru0", "Du9 Ru0", "Ru9<1 Ru0"] {
            story.fleet(backends);
            assert_eq!(story.contact(), Ok((0, Reason::Held)), "{backends}");
            assert_eq!(story.upload(), Ok((0, Reason::Held)), "{backends}");
            assert_eq!(story.submit(backends), Ok((0, Reason::Held)), "{backends}");
            story.end(backends, End::Succeeded);
        }
        let down = Err(Refusal::BackendDown { backend: BackendId::nth(0) });
        for backends in ["Rd0 Ru0", "Ou0 Ru0", "Dd0 Ru0"] {
            story.fleet(backends);
            assert_eq!(story.contact(), down, "{backends}");
            assert_eq!(story.upload(), down, "{backends}");
            assert_eq!(story.submit("q"), down, "{backends}");
            assert_eq!((story.state(), story.backend()), ("held", Some(0)), "{backends}");
        }
        assert_eq!(story.fleet("Ru9 Ru0").submit("q"), Ok((0, Reason::Held)), "it is back");
    }

    #[test]
    fn an_upload_in_flight_holds_as_a_prompt_does() {
        let mut story = Story::new("Ru0 Ru1");
        let began = story.upload_began().unwrap();
        assert_eq!(story.fleet("Du9 Ru0").submit("p"), Ok((0, Reason::Held)));
        story.end("p", End::Succeeded);
        assert_eq!(story.contact(), Ok((0, Reason::Held)));
        assert_eq!(story.release().unwrap_err().pending, 1);
        story.upload_ended(began, None);
        assert_eq!(story.state(), "idle", "an upload that failed reserves nothing");
        assert_eq!(story.submit("q"), Ok((1, Reason::Moved)));
    }

    #[test]
    fn the_binding_is_released_with_the_last_pending_prompt_and_not_before() {
        let mut story = Story::new("Ru0 Ru1");
        story.submit("p").unwrap();
        story.submit("q").unwrap();
        story.end("p", End::Failed);
        assert_eq!(story.fleet("Ru9 Ru0").submit("r"), Ok((0, Reason::Held)));
        story.end("r", End::Succeeded);
        assert_eq!(story.state(), "held");
        story.end("q", End::Succeeded);
        assert_eq!(story.state(), "idle");
        assert_eq!(story.contact(), Ok((0, Reason::Idle)), "reads stay");
        assert_eq!(story.submit("s"), Ok((1, Reason::Moved)), "work is placed anew");
        let decisions = [
            "placed",
            "held",
            "failed",
            "held",
            "completed",
            "completed",
            "released",
            "idle",
            "moved",
        ];
        assert_eq!(story.decisions(), decisions);
    }

    #[test]
    fn a_move_names_the_backend_that_was_left_and_a_stay_names_none() {
        let mut story = Story::new("Ru0 Ru1");
        story.contact().unwrap();
        let bound = story.client.bound();
        let stays = story.after(1).decide("p").unwrap();
        assert_eq!(stays.reason, Reason::Placed);
        assert!(!stays.newly_bound && stays.left.is_none(), "placed where it was");
        assert_eq!(story.client.bound(), bound, "since the same time");
        story.end("p", End::Succeeded);
        let moves = story.fleet("Ru1 Ru0").decide("q").unwrap();
        assert_eq!((moves.left, moves.reason), (Some(BackendId::nth(0)), Reason::Moved));
        assert!(moves.newly_bound);
        assert_eq!(story.client.bound(), Some((BackendId::nth(1), story.now)));
    }

    #[test]
    fn between_equal_queues_a_client_stays_where_it_was() {
        let mut story = Story::new("Ru1 Ru0");
        story.contact().unwrap();
        assert_eq!(story.fleet("Ru1 Ru1+9").submit("p"), Ok((1, Reason::Placed)));
    }

    #[test]
    fn an_old_upload_does_not_end_a_new_one_on_the_same_backend() {
        let mut story = Story::new("Ru0");
        let old = story.upload_began().unwrap();
        story.reset();
        let _new = story.upload_began().unwrap();
        story.upload_ended(old, Some(RESERVATION));
        assert_eq!(story.state(), "held");
    }

    #[test]
    fn a_picture_and_the_prompt_that_uses_it_go_together() {
        let mut story = Story::new("Ru0 Ru1");
        assert_eq!(story.upload(), Ok((0, Reason::Placed)));
        assert_eq!(story.state(), "reserved");
        story.fleet("Ru9 Ru0").after(599);
        assert_eq!(story.contact(), Ok((0, Reason::Reserved)));
        assert_eq!(story.submit("p"), Ok((0, Reason::Reserved)));
        story.end("p", End::Succeeded);
        assert_eq!(story.submit("q"), Ok((1, Reason::Moved)), "only the next submission");
    }

    #[test]
    fn a_reservation_ends_with_its_time() {
        let mut story = Story::new("Ru0 Ru1");
        story.upload().unwrap();
        story.fleet("Ru9 Ru0").after(600);
        assert_eq!(story.state(), "idle");
        assert_eq!(story.submit("p"), Ok((1, Reason::Moved)));
    }

    #[test]
    fn a_second_upload_begins_the_reservation_anew() {
        let mut story = Story::new("Ru0 Ru1");
        story.upload().unwrap();
        assert_eq!(story.fleet("Ru9 Ru0").after(599).upload(), Ok((0, Reason::Reserved)));
        assert_eq!(story.after(599).submit("p"), Ok((0, Reason::Reserved)));
    }

    #[test]
    fn an_upload_during_a_prompt_reserves_for_the_prompt_after_it() {
        let mut story = Story::new("Ru0 Ru1");
        story.submit("p").unwrap();
        story.upload().unwrap();
        story.end("p", End::Succeeded);
        assert_eq!(story.state(), "reserved");
        assert_eq!(story.fleet("Ru9 Ru0").submit("q"), Ok((0, Reason::Reserved)));
    }

    #[test]
    fn a_reservation_survives_draining_and_ends_when_its_backend_is_down_or_off() {
        for (backends, expected) in [
            ("Du9 Ru0", (0, Reason::Reserved)),
            ("Rd0 Ru0", (1, Reason::Moved)),
            ("Ou0 Ru0", (1, Reason::Moved)),
        ] {
            let mut story = Story::new("Ru0 Ru1");
            story.upload().unwrap();
            assert_eq!(story.fleet(backends).contact(), Ok(expected), "{backends}");
            assert_eq!(story.submit("p").unwrap().0, expected.0, "{backends}");
        }
    }

    #[test]
    fn an_idle_client_leaves_a_draining_backend_at_its_next_contact() {
        let mut story = Story::new("Ru0 Ru1");
        story.contact().unwrap();
        assert_eq!(story.fleet("Du0 Ru9").contact(), Ok((1, Reason::Moved)));
    }

    #[test]
    fn a_draining_backend_is_better_than_none_for_reads_and_takes_no_work() {
        for (backends, refusal) in
            [("Du0 Rd0", NoPlace::NoneReady), ("Du0 Ru1<1", NoPlace::FleetFull)]
        {
            let mut story = Story::new("Ru0 Ru1");
            story.contact().unwrap();
            assert_eq!(story.fleet(backends).contact(), Ok((0, Reason::Idle)), "{backends}");
            assert_eq!(story.submit("p"), Err(Refusal::NoPlace(refusal)), "{backends}");
            assert_eq!(story.upload(), Err(Refusal::NoPlace(refusal)), "{backends}");
            assert_eq!(story.state(), "idle", "{backends}");
        }
    }

    #[test]
    fn an_idle_client_of_a_backend_that_is_down_is_placed_elsewhere_at_once() {
        let mut story = Story::new("Ru0 Ru1");
        story.contact().unwrap();
        assert_eq!(story.fleet("Rd0 Ru9").contact(), Ok((1, Reason::Moved)));
        let none = Err(Refusal::NoPlace(NoPlace::NoneReady));
        assert_eq!(story.fleet("Rd0 Rd0").contact(), none);
        assert_eq!(story.backend(), Some(1), "nothing better is known");
    }

    #[test]
    fn a_full_fleet_refuses_new_work_and_lets_the_held_go_on() {
        let mut story = Story::new("Ru0 Ru1");
        let full = Err(Refusal::NoPlace(NoPlace::FleetFull));
        assert_eq!(story.fleet("Ru1<1 Ru1<1").submit("p"), full);
        assert_eq!(story.fleet("Ru0<1 Ru1<1").submit("p"), Ok((0, Reason::Placed)));
        assert_eq!(story.fleet("Ru1<1 Ru1<1").submit("q"), Ok((0, Reason::Held)));
        story.end("p", End::Succeeded);
        story.end("q", End::Succeeded);
        assert_eq!(story.submit("r"), full, "released, so it is new work");
    }

    #[test]
    fn a_client_has_at_most_so_many_pending_prompts() {
        let mut story = Story::new("Ru0");
        for prompt in ["p", "q", "r"] {
            story.submit(prompt).unwrap();
        }
        assert_eq!(story.submit("s"), Err(Refusal::TooManyPending { max: PENDING_MAX }));
        assert_eq!(story.client.pending().len(), PENDING_MAX);
        story.end("q", End::Succeeded);
        assert_eq!(story.submit("s"), Ok((0, Reason::Held)));
        let order: Vec<&str> = story.client.pending().keys().map(PromptId::as_str).collect();
        assert_eq!(order, ["p", "r", "s"], "in the order of submission");
    }

    #[test]
    fn an_id_that_is_pending_is_not_taken_twice() {
        let mut story = Story::new("Ru0");
        story.submit("p").unwrap();
        let now = story.now;
        assert!(story.outcome(|client| client.accepted(&id("p"), now)));
        assert_eq!(story.submit("p"), Err(Refusal::AlreadyPending));
        assert_eq!(story.client.pending()[&id("p")].phase.as_str(), "queued", "and is as it was");
    }

    #[test]
    fn a_prompt_that_was_never_sent_goes_elsewhere_if_nothing_else_holds_its_client() {
        fn elsewhere(story: &mut Story, prompt: &str) -> Option<u16> {
            let (views, now) = (fleet("Rd0 Ru1"), story.now);
            let fleet = FleetNow { backends: &views, turn: 0 };
            let why = NotThere::NeverSent;
            let placed =
                story.outcome(|client| client.submit_elsewhere(&id(prompt), why, fleet, now));
            placed.map(|it| it.backend.slot())
        }
        let mut story = Story::new("Ru0 Ru1");
        story.submit("p").unwrap();
        assert_eq!(elsewhere(&mut story, "p"), Some(1));
        assert_eq!(story.client.pending()[&id("p")].backend(), Some(BackendId::nth(1)));
        assert_eq!((story.state(), story.backend()), ("held", Some(1)));
        assert_eq!(elsewhere(&mut story, "p"), None, "there is no other");

        let mut story = Story::new("Ru0 Ru1");
        story.submit("p").unwrap();
        story.submit("q").unwrap();
        assert_eq!(elsewhere(&mut story, "q"), None, "its client's other prompt is there");

        let mut story = Story::new("Ru0 Ru1");
        story.upload().unwrap();
        story.submit("p").unwrap();
        assert_eq!(elsewhere(&mut story, "p"), None, "its picture is there");
    }

    #[test]
    fn a_refused_prompt_leaves_no_trace() {
        let mut story = Story::new("Ru0 Ru1");
        story.submit("p").unwrap();
        assert!(story.withdraw("p"));
        assert!(!story.withdraw("p"));
        assert_eq!((story.state(), story.client.pending().len()), ("idle", 0));
        assert_eq!(story.end("p", End::Failed), None, "it never was, so it does not end");
        assert_eq!(story.fleet("Ru9 Ru0").submit("p"), Ok((1, Reason::Moved)));
    }

    #[test]
    fn a_refused_prompt_gives_back_the_reservation_that_it_used_up() {
        let mut story = Story::new("Ru0 Ru1");
        story.upload().unwrap();
        story.fleet("Ru9 Ru0").submit("p").unwrap();
        story.withdraw("p");
        assert_eq!(story.state(), "reserved");
        assert_eq!(story.after(599).submit("q"), Ok((0, Reason::Reserved)), "its picture is here");
        story.after(1).withdraw("q");
        assert_eq!(story.state(), "idle", "it was not made longer");
    }

    #[test]
    fn a_newer_reservation_is_not_shortened_by_a_refused_prompt() {
        let mut story = Story::new("Ru0 Ru1");
        story.upload().unwrap();
        story.submit("p").unwrap();
        story.after(500).upload().unwrap();
        story.withdraw("p");
        assert_eq!(story.fleet("Ru9 Ru0").after(599).submit("q"), Ok((0, Reason::Reserved)));
    }

    #[test]
    fn a_prompt_ends_once() {
        let mut story = Story::new("Ru0");
        story.submit("p").unwrap();
        let now = story.now;
        let mut on_event = |heard| story.ends(|client| client.on_event(&id("p"), heard, now));
        assert_eq!(on_event(Signal::Terminal(End::Succeeded)), None);
        assert_eq!(on_event(Signal::LastWord), Some(End::Succeeded));
        assert_eq!(on_event(Signal::LastWord), None);
        let absent = Observation::Absent(Process::Restarted);
        assert_eq!(story.ends(|client| client.on_probe(&id("p"), absent, now)), None);
        assert_eq!(story.end("p", End::Deleted), None);
        assert!(!story.withdraw("p"));
        assert_eq!(story.decisions(), ["placed", "completed", "released"]);
    }

    #[test]
    fn a_release_that_races_with_a_new_prompt_wins_or_is_refused() {
        let mut first = Story::new("Ru0 Ru1");
        first.contact().unwrap();
        assert_eq!(first.release().unwrap().backend, Some(BackendId::nth(0)));
        assert_eq!(first.state(), "none");
        assert_eq!(first.fleet("Ru9 Ru0").submit("p"), Ok((1, Reason::Placed)), "released first");

        let mut second = Story::new("Ru0 Ru1");
        second.contact().unwrap();
        second.submit("p").unwrap();
        assert_eq!(second.release().unwrap_err().pending, 1);
        assert_eq!((second.state(), second.backend()), ("held", Some(0)), "submitted first");

        let mut end = Story::new("Ru0 Ru1");
        end.submit("p").unwrap();
        end.submit("q").unwrap();
        end.end("p", End::Succeeded);
        assert_eq!(end.release().unwrap_err().pending, 1, "the end was not the last");
    }

    #[test]
    fn a_safe_release_says_how_much_is_pending_and_takes_a_reservation_with_it() {
        let mut story = Story::new("Ru0");
        story.submit("p").unwrap();
        story.submit("q").unwrap();
        let _began = story.upload_began().unwrap();
        assert_eq!(story.release().unwrap_err(), StillPending { pending: 3 });

        let mut story = Story::new("Ru0");
        story.upload().unwrap();
        assert_eq!(story.release().unwrap().backend, Some(BackendId::nth(0)));
        assert_eq!(story.state(), "none");
        assert_eq!(story.release().unwrap().backend, None, "nothing is left");
    }

    #[test]
    fn a_forced_reset_cuts_off_what_is_pending_and_releases() {
        let mut story = Story::new("Ru0 Ru1");
        story.submit("p").unwrap();
        story.submit("q").unwrap();
        let (released, effects) = story.client.reset(story.now).split();
        story.mirror.take(&effects, &story.client);
        assert_eq!(released, Released { backend: Some(BackendId::nth(0)), cut_off: 2 });
        let cut_off: Vec<&str> = effects.ended.iter().map(|it| it.prompt.as_str()).collect();
        assert_eq!(cut_off, ["p", "q"]);
        assert!(effects.ended.iter().all(|it| it.known == KnownBy::CutOff));
        assert_eq!((story.state(), story.client.pending().len()), ("none", 0));
        assert_eq!(story.end("p", End::Lost(Loss::Reset)), None, "it has ended");
        assert_eq!(story.decisions().last(), Some(&"reset"));
        assert_eq!(story.fleet("Ru9 Ru0").submit("p"), Ok((1, Reason::Placed)));
    }

    #[test]
    fn a_release_is_remembered_when_nothing_holds_any_more() {
        let mut story = Story::new("Ru0");
        story.submit("p").unwrap();
        let began = story.upload_began().unwrap();
        story.end("p", End::Succeeded);
        assert_eq!(story.decisions().last(), Some(&"completed"), "an upload still holds it");
        story.upload_ended(began, None);
        assert_eq!(story.decisions().last(), Some(&"released"));

        let mut story = Story::new("Ru0");
        story.submit("p").unwrap();
        story.upload().unwrap();
        story.end("p", End::Succeeded);
        assert_eq!(story.decisions().last(), Some(&"completed"), "it is reserved");
    }

    #[test]
    fn a_refusal_is_remembered_once_and_names_no_backend_that_it_does_not_concern() {
        let mut story = Story::new("Rd0 Rd0");
        for _ in 0..20 {
            story.contact().unwrap_err();
        }
        let remembered: Vec<_> =
            story.client.decisions().iter().map(|it| (it.backend, it.what.as_str())).collect();
        assert_eq!(remembered, [(None, "no_backend")]);
        story.fleet("Rd0 Ru0").submit("p").unwrap();
        story.fleet("Rd0 Rd0").contact().unwrap_err();
        let last = story.client.decisions().iter().last().map(|it| (it.backend, it.what.as_str()));
        assert_eq!(last, Some((Some(BackendId::nth(1)), "backend_down")));
    }

    #[test]
    fn only_the_last_decisions_are_remembered() {
        let mut story = Story::new("Ru0");
        for _ in 0..100 {
            story.submit("p").unwrap();
            story.end("p", End::Succeeded);
            assert!(story.client.decisions().iter().count() <= DECISIONS_KEPT);
        }
        story.reset();
        assert_eq!(story.client.decisions().iter().count(), DECISIONS_KEPT);
        assert_eq!(story.decisions().last(), Some(&"reset"), "newest last");
    }

    #[test]
    fn a_client_is_forgotten_without_socket_work_and_contact_for_the_lease() {
        let mut story = Story::new("Ru0");
        story.contact().unwrap();
        assert!(!story.after(599).is_forgotten());
        assert!(story.after(1).is_forgotten());

        let now = story.now;
        story.outcome(|client| client.socket_opened(now));
        assert!(!story.after(6000).is_forgotten(), "a socket is open");
        let now = story.now;
        story.outcome(|client| client.socket_closed(now));
        assert_eq!(story.client.last_socket_lost(), Some(story.now));
        assert!(!story.after(599).is_forgotten(), "the lease begins now");

        story.submit("p").unwrap();
        assert!(!story.after(6000).is_forgotten(), "a prompt is pending");
        story.withdraw("p");
        assert!(story.is_forgotten());
    }

    #[test]
    fn a_client_is_still_known_when_its_long_prompt_ends() {
        let mut story = Story::new("Ru0");
        story.submit("p").unwrap();
        story.after(6000).end("p", End::Succeeded);
        assert!(!story.after(599).is_forgotten(), "nobody has been told of the end");
        assert!(story.after(1).is_forgotten());

        let mut story = Story::new("Ru0");
        story.submit("p").unwrap();
        story.after(6000);
        story.reset();
        assert!(!story.after(599).is_forgotten(), "a reset is an end too");
    }

    #[test]
    fn what_must_be_asked_is_asked_of_the_bound_backend_only() {
        let silent = Duration::from_secs(30);
        let mut story = Story::new("Ru0 Ru1");
        story.submit("p").unwrap();
        story.submit("q").unwrap();
        for prompt in ["p", "q"] {
            let now = story.now;
            story.outcome(|client| client.accepted(&id(prompt), now));
        }
        story.outcome(|client| client.must_ask(BackendId::nth(1)));
        assert!(story.client.to_ask(silent, story.now).is_empty());
        story.outcome(|client| client.must_ask(BackendId::nth(0)));
        let asked = [(id("p"), BackendId::nth(0)), (id("q"), BackendId::nth(0))];
        assert_eq!(story.client.to_ask(silent, story.now), asked);
        let now = story.now;
        assert_eq!(story.ends(|client| client.on_probe(&id("p"), Observation::Running, now)), None);
        assert_eq!(story.client.to_ask(silent, story.now), asked[1..]);
    }

    #[derive(Clone, Debug)]
    enum Move {
        Fleet(usize),
        Contact,
        Submit(u8),
        End(u8),
        Refuse(u8),
        Upload,
        Release,
        Reset,
        After(u64),
    }

    const FLEETS: [&str; 8] = [
        "Ru0 Ru1 Ru2",
        "Ru2 Ru1 Ru0",
        "Du0 Ru1 Ru2",
        "Ou0 Du0 Ru9",
        "Rd0 Rd0 Ru0",
        "Rd0 Rd0 Rd0",
        "Ru1<1 Ru1<1 Ru1<1",
        "Du0 Du0 Du0",
    ];

    fn any_step() -> impl Strategy<Value = Move> {
        prop_oneof![
            2 => (0..FLEETS.len()).prop_map(Move::Fleet),
            1 => Just(Move::Contact),
            3 => (0..6_u8).prop_map(Move::Submit),
            2 => (0..6_u8).prop_map(Move::End),
            1 => (0..6_u8).prop_map(Move::Refuse),
            1 => Just(Move::Upload),
            1 => Just(Move::Release),
            1 => Just(Move::Reset),
            1 => (0..700_u64).prop_map(Move::After),
        ]
    }

    proptest! {
        #[test]
        fn what_is_pending_is_on_the_bound_backend_and_holds_it(
            steps in vec(any_step(), 0..60),
        ) {
            let mut story = Story::new(FLEETS[0]);
            for step in steps {
                let (was_held, before) = (story.client.is_held(), story.backend());
                match step.clone() {
                    Move::Fleet(index) => drop(story.fleet(FLEETS[index])),
                    Move::Contact => drop(story.contact()),
                    Move::Submit(prompt) => drop(story.submit(&prompt.to_string())),
                    Move::End(prompt) => drop(story.end(&prompt.to_string(), End::Failed)),
                    Move::Refuse(prompt) => drop(story.withdraw(&prompt.to_string())),
                    Move::Upload => drop(story.upload()),
                    Move::Release => drop(story.release()),
                    Move::Reset => _ = story.reset(),
                    Move::After(seconds) => drop(story.after(seconds)),
                }
                let is_reset = matches!(step, Move::Reset);
                prop_assert!(!was_held || is_reset || story.backend() == before, "{step:?}");
                prop_assert!(!story.client.is_held() || story.backend().is_some());
                prop_assert!(story.client.pending().len() <= PENDING_MAX);
                for pending in story.client.pending().values() {
                    prop_assert_eq!(pending.backend().map(BackendId::slot), story.backend());
                }
                prop_assert_eq!(story.state() == "held", story.client.is_held());
                prop_assert!(story.client.decisions().iter().count() <= DECISIONS_KEPT);
            }
        }
    }
}
