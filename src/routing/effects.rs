//! The effects of a client's transitions, as values.
//!
//! [`super::client`] decides and performs nothing. Each of its transitions returns a [`Step`]: its
//! outcome, and its [`Effects`] on everything else: sockets, ledger, journal, counters, links, the
//! reconciler. The code that applies them destructures the value field by field. So a new effect
//! does not compile until it is applied.
//!
//! # Invariants
//!
//! - Only the core makes a [`Step`], so no transition can be ignored.
//! - Effects are complete: applied to a copy of the binding and of the pending prompts, they give
//!   the state of the core (`effects_are_all_that_changed`).
//! - For a prompt that was pending they contain exactly one end or one withdrawal.

use std::time::{Duration, Instant};

use super::decision::Reason;
use super::ids::{BackendId, PromptId};
use super::pending::{Course, End, Errand, Pending};

/// The outcome of a transition, and its effects.
#[derive(Debug)]
#[must_use = "a transition is over when its effects were acted on"]
pub struct Step<T = ()> {
    outcome: T,
    effects: Effects,
}

impl<T> Step<T> {
    pub(super) fn of(transition: impl FnOnce(&mut Effects) -> T) -> Self {
        let mut effects = Effects::NONE;
        let outcome = transition(&mut effects);
        Self { outcome, effects }
    }

    /// Splits it into the outcome and the effects, for the code that applies them.
    pub fn split(self) -> (T, Effects) {
        (self.outcome, self.effects)
    }
}

/// What has to be done after a transition.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "what is not acted on is told to nobody"]
pub struct Effects {
    /// Prompts that ended, in the order of their submission. Each end is told to the sockets,
    /// removed from the log of running prompts, and entered in the ledger, the journal and the
    /// counters.
    pub ended: Vec<Ended>,
    /// What happened to a submission: the ledger and the journal are updated.
    pub submission: Option<Submission>,
    /// What happened to the binding: the journal and the counts of the backends are updated.
    pub binding: Rebound,
    /// A request was routed by this rule: it is counted.
    pub routed: Option<Reason>,
    /// What the queue of prompts that wait is told.
    pub queue: Option<QueueNews>,
    /// A backend has one prompt less, and may not report it yet: its load is adjusted.
    pub freed: Option<BackendId>,
    /// The sockets are told how many prompts are pending.
    pub tells_count: bool,
    /// New prompts are pending: the reconciler has to know this client.
    pub has_begun: bool,
    /// A backend is to be asked now, without waiting for the next round.
    pub asks: bool,
}

impl Effects {
    pub(super) const NONE: Self = Self {
        ended: Vec::new(),
        submission: None,
        binding: Rebound::No,
        routed: None,
        queue: None,
        freed: None,
        tells_count: false,
        has_begun: false,
        asks: false,
    };

    /// True if nothing has to be done, as after nearly every event.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.routed.is_none() && self.is_at_most_routed()
    }

    /// The rule, if the only effect is that a request was routed, as for nearly every read.
    #[must_use]
    pub fn only_routed(&self) -> Option<Reason> {
        self.routed.filter(|_| self.is_at_most_routed())
    }

    // Destructured, so that a new effect must be considered here too. Comparing whole values would
    // take ten times as long.
    fn is_at_most_routed(&self) -> bool {
        let Self { ended, submission, binding, routed: _, queue, freed, .. } = self;
        let Self { tells_count, has_begun, asks, .. } = self;
        matches!(binding, Rebound::No)
            && !(*tells_count || *has_begun || *asks)
            && ended.is_empty()
            && submission.is_none()
            && queue.is_none()
            && freed.is_none()
    }
}

/// A prompt that ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    pub prompt: PromptId,
    /// The backend that it was on; `None` if it waited.
    pub backend: Option<BackendId>,
    pub end: End,
    /// When it was first seen to run, if it was.
    pub started: Option<Instant>,
    /// When it was decided to send it; `None` if an earlier process decided it.
    pub decided: Option<Instant>,
    /// For how long it was seen to run, if it was.
    pub ran: Option<Duration>,
    /// How long after its start its first step came, if that was seen.
    pub first_step: Option<Duration>,
    pub at: Instant,
    pub known: KnownBy,
}

/// How an end became known. It decides what the sockets still have to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KnownBy {
    /// Its own events told it, and the sockets have them.
    Heard,
    /// Its backend was asked: the sockets are told what they have not received.
    Found,
    /// The prompt was given up, and the sockets are told. Later events of it are dropped.
    GivenUp,
    /// Like `GivenUp`, and its backend is told to stop it.
    CutOff,
}

/// What happened to a submission.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Submission {
    /// It is pending from now on, and about to be sent.
    Placed { prompt: PromptId, on: BackendId },
    /// It waits in the gateway from now on, or again.
    Waits { prompt: PromptId, how: Waits },
    /// No backend got it, and it is about to be sent to another one.
    Moved { prompt: PromptId, to: BackendId },
    /// It has waited, and is about to be sent to this backend.
    HandedOver { prompt: PromptId, to: BackendId, errand: Errand },
    /// It is at this backend, and is taken back from there.
    ComesBack { prompt: PromptId, from: BackendId },
    /// No backend has it: its record is removed.
    Withdrawn { prompt: PromptId },
}

/// Whether a prompt waits for the first time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Waits {
    /// It was just submitted.
    New,
    /// It was at a backend, or was being sent to one, and no backend has it.
    Again,
}

/// What the queue has to know of a client and its prompts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum QueueNews {
    /// A backend has a prompt that has waited.
    Accepted(PromptId),
    /// The prompt has begun: its body is not needed any more.
    Began(PromptId),
    /// An upload holds the client, or does not any more.
    Uploads,
}

impl QueueNews {
    /// The news of a prompt, if a backend has it and did not before.
    pub(super) fn of(prompt: &PromptId, before: Course, now: &Pending) -> Option<Self> {
        let is_news = before == Course::Kept && now.course() == Course::Taken;
        is_news.then(|| Self::Accepted(prompt.clone()))
    }

    /// The same, if it may have begun since.
    pub(super) fn since(
        prompt: &PromptId,
        (before, had_started): (Course, bool),
        now: &Pending,
    ) -> Option<Self> {
        let has_begun = before != Course::HandedOver && now.course() == Course::HandedOver;
        match has_begun || (!had_started && now.started().is_some()) {
            true => Some(Self::Began(prompt.clone())),
            false => Self::of(prompt, before, now),
        }
    }
}

/// What happened to a binding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rebound {
    /// It is unchanged.
    No,
    /// It is reserved until another time, or no longer reserved.
    Reserved,
    /// It was made, moved or released.
    Moved { from: Option<BackendId>, to: Option<BackendId> },
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::sample::select;

    use super::super::client::{Client, Outcome};
    use super::super::decision::{Decision, NotThere};
    use super::super::pending::{Hearing, Loss, Observation, Process, Shut, Signal};
    use super::super::placement::FleetNow;
    use super::super::placement::tests::fleet;
    use super::super::unclaimed::{Found, Stage};
    use super::*;

    /// The state that follows from the effects of a client's transitions alone.
    #[derive(Debug, Default)]
    pub(in crate::routing) struct Mirror {
        bound: Option<BackendId>,
        /// The binding as it was noted in the journal.
        noted: Option<(BackendId, Instant, Option<Instant>)>,
        pending: BTreeMap<PromptId, Option<BackendId>>,
        /// Prompts that were reported as ended or withdrawn.
        over: BTreeSet<PromptId>,
    }

    impl Mirror {
        /// Applies the effects of a transition that `client` has just made.
        #[track_caller]
        pub(in crate::routing) fn take(&mut self, effects: &Effects, client: &Client) {
            let before = self.pending.len();
            self.ends(&effects.ended);
            self.submission(effects, client);
            if effects.has_begun && effects.submission.is_none() {
                // Adopted prompts are known to the code that found them.
                let found = client.pending().iter().map(|(id, it)| (id.clone(), it.backend()));
                self.pending.extend(found);
            }
            self.binding(effects.binding, client);
            let pending: BTreeMap<PromptId, Option<BackendId>> =
                client.pending().iter().map(|(id, it)| (id.clone(), it.backend())).collect();
            assert_eq!(self.pending, pending, "{effects:?}");
            assert_eq!(self.bound, client.bound().map(|(backend, _)| backend), "{effects:?}");
            assert_eq!(self.noted, binding_of(client), "{effects:?}");
            assert!(before == pending.len() || effects.tells_count, "{effects:?}");
            let let_go = matches!(effects.binding, Rebound::Moved { to: None, .. });
            assert!(!let_go || !client.is_held(), "it was let go before its last end: {effects:?}");
        }

        #[track_caller]
        fn ends(&mut self, ended: &[Ended]) {
            for Ended { prompt, backend, .. } in ended {
                assert_eq!(self.pending.remove(prompt), Some(*backend), "{prompt} was not pending");
                assert!(self.over.insert(prompt.clone()), "{prompt} ended twice");
            }
        }

        #[track_caller]
        fn submission(&mut self, effects: &Effects, client: &Client) {
            match &effects.submission {
                None => {}
                Some(Submission::Placed { prompt, on }) => {
                    assert!(effects.has_begun);
                    assert_eq!(self.pending.insert(prompt.clone(), Some(*on)), None, "{prompt}");
                    assert!(client.pending().contains_key(prompt));
                    self.over.remove(prompt);
                }
                Some(Submission::Waits { prompt, how }) => {
                    let from = self.pending.insert(prompt.clone(), None);
                    assert_eq!(effects.has_begun, *how == Waits::New);
                    assert_eq!(from.is_none(), *how == Waits::New, "{prompt}");
                    assert_ne!(from, Some(None), "{prompt}");
                    self.over.remove(prompt);
                }
                Some(
                    Submission::Moved { prompt, to } | Submission::HandedOver { prompt, to, .. },
                ) => {
                    let from = self.pending.insert(prompt.clone(), Some(*to));
                    assert!(from.is_some_and(|from| from != Some(*to)), "{prompt}");
                }
                Some(Submission::ComesBack { prompt, from }) => {
                    assert_eq!(self.pending.get(prompt), Some(&Some(*from)), "{prompt}");
                }
                Some(Submission::Withdrawn { prompt }) => {
                    let was_pending = self.pending.remove(prompt).is_some();
                    let is_first = !was_pending || self.over.insert(prompt.clone());
                    assert!(is_first, "{prompt} ended twice");
                }
            }
        }

        #[track_caller]
        fn binding(&mut self, binding: Rebound, client: &Client) {
            match binding {
                Rebound::No => return,
                Rebound::Reserved => {}
                Rebound::Moved { from, to } => {
                    assert_eq!(self.bound, from, "it was not there");
                    self.bound = to;
                }
            }
            self.noted = binding_of(client);
        }
    }

    fn binding_of(client: &Client) -> Option<(BackendId, Instant, Option<Instant>)> {
        client.bound().map(|(backend, since)| (backend, since, client.reserved_until()))
    }

    #[derive(Clone, Copy, Debug)]
    enum Does {
        Contact,
        Submit(u8),
        Waits(Wait),
        Elsewhere(u8, NotThere),
        Accepted(u8),
        Hear(u8, Signal),
        Sight(u8, Observation),
        Settle(u8),
        GiveUp(u8, Outcome),
        Withdraw(u8),
        Upload,
        UploadEnds(Option<Duration>),
        Reserve(u16),
        Adopt(u8, u16),
        MustAsk(u16),
        Release,
        Reset,
        After(u64),
    }

    /// What happens to a prompt that waits.
    #[derive(Clone, Copy, Debug)]
    enum Wait {
        Begins(u8),
        HandedOver(u8, u16),
        GoesOut(u8),
        Again(u8),
        Dropped(u8),
        AskedToDelete(u8),
        LostOnTheWay(u8),
        ResetPlaced(u16),
        LinkCloses(u16),
        ProcessGone(u8),
        ComesBack(u8, u16),
    }

    const PROMPTS: u8 = 6;
    const FLEETS: [&str; 4] = ["Ru0 Ru1 Ru2", "Ru2 Ru1 Ru0", "Rd0 Ru1 Ou2", "Du0 Ru9 Rd0"];

    fn says() -> impl Strategy<Value = Does> {
        let heard = select(vec![
            Signal::Started,
            Signal::Progressed,
            Signal::Terminal(End::Succeeded),
            Signal::LastWord,
        ]);
        let sighted = select(vec![
            Observation::Queued,
            Observation::Running,
            Observation::InHistory(End::Failed),
            Observation::Absent(Process::MaybeSame),
            Observation::Absent(Process::Restarted),
        ]);
        prop_oneof![
            (0..PROMPTS, heard).prop_map(|(prompt, heard)| Does::Hear(prompt, heard)),
            (0..PROMPTS, sighted).prop_map(|(prompt, sighted)| Does::Sight(prompt, sighted)),
        ]
    }

    fn waits() -> impl Strategy<Value = Wait> {
        prop_oneof![
            3 => (0..PROMPTS).prop_map(Wait::Begins),
            4 => (0..PROMPTS, 0..3_u16).prop_map(|(prompt, to)| Wait::HandedOver(prompt, to)),
            2 => (0..PROMPTS).prop_map(Wait::GoesOut),
            1 => (0..PROMPTS).prop_map(Wait::Again),
            1 => (0..PROMPTS).prop_map(Wait::Dropped),
            1 => (0..PROMPTS).prop_map(Wait::AskedToDelete),
            1 => (0..PROMPTS).prop_map(Wait::LostOnTheWay),
            1 => (0..3_u16).prop_map(Wait::ResetPlaced),
            2 => (0..3_u16).prop_map(Wait::LinkCloses),
            2 => (0..PROMPTS).prop_map(Wait::ProcessGone),
            1 => (0..PROMPTS, 0..3_u16).prop_map(|(prompt, from)| Wait::ComesBack(prompt, from)),
        ]
    }

    fn does() -> impl Strategy<Value = Does> {
        let why = select(vec![NotThere::NeverSent, NotThere::Refused]);
        let outcome = select(vec![Outcome::Told, Outcome::Untold]);
        let reserved = select(vec![None, Some(Duration::from_secs(600))]);
        prop_oneof![
            1 => Just(Does::Contact),
            4 => (0..PROMPTS).prop_map(Does::Submit),
            12 => waits().prop_map(Does::Waits),
            1 => (0..PROMPTS, why).prop_map(|(prompt, why)| Does::Elsewhere(prompt, why)),
            1 => (0..PROMPTS).prop_map(Does::Accepted),
            8 => says(),
            1 => (0..PROMPTS).prop_map(Does::Settle),
            1 => (0..PROMPTS, outcome).prop_map(|(prompt, outcome)| Does::GiveUp(prompt, outcome)),
            1 => (0..PROMPTS).prop_map(Does::Withdraw),
            1 => Just(Does::Upload),
            1 => reserved.prop_map(Does::UploadEnds),
            1 => (0..3_u16).prop_map(Does::Reserve),
            1 => (0..PROMPTS, 0..3_u16).prop_map(|(prompt, backend)| Does::Adopt(prompt, backend)),
            1 => (0..3_u16).prop_map(Does::MustAsk),
            1 => Just(Does::Release),
            1 => Just(Does::Reset),
            2 => (0..2_000_u64).prop_map(Does::After),
        ]
    }

    fn id(number: u8) -> PromptId {
        PromptId::parse(&number.to_string()).unwrap()
    }

    fn found(prompt: u8, backend: u16, seen: Instant) -> Found {
        let (prompt, backend) = (id(prompt), BackendId::nth(backend));
        Found { prompt, backend, seen, stage: Stage::Waits, output_nodes: Vec::new() }
    }

    /// A client and everything that happens to it.
    struct Story {
        client: Client,
        mirror: Mirror,
        uploads: Vec<Decision>,
        now: Instant,
    }

    impl Story {
        /// Makes one transition. Returns the prompts that it ended.
        fn goes_on(&mut self, next: Does, fleet: FleetNow<'_>) -> Vec<Ended> {
            let (client, now) = (&mut self.client, self.now);
            let unit = match next {
                Does::After(millis) => {
                    self.now += Duration::from_millis(millis);
                    return Vec::new();
                }
                Does::Contact => outcome(client.contact(fleet, now)).1,
                Does::Submit(prompt) => outcome(client.submit(id(prompt), 4, fleet, now)).1,
                Does::Waits(wait) => waited(client, wait, fleet, now),
                Does::Elsewhere(prompt, why) => {
                    outcome(client.submit_elsewhere(&id(prompt), why, fleet, now)).1
                }
                Does::Accepted(prompt) => outcome(client.accepted(&id(prompt), now)).1,
                Does::Hear(prompt, heard) => outcome(client.on_event(&id(prompt), heard, now)).1,
                Does::Sight(prompt, sighted) => {
                    outcome(client.on_probe(&id(prompt), sighted, now)).1
                }
                Does::Settle(prompt) => outcome(client.settle(&id(prompt), End::Failed, now)).1,
                Does::GiveUp(prompt, told) => {
                    outcome(client.give_up(&id(prompt), Loss::BackendGone, told, now)).1
                }
                Does::Withdraw(prompt) => outcome(client.withdraw(&id(prompt))).1,
                Does::Upload => {
                    let (began, effects) = outcome(client.upload_began(fleet, now));
                    self.uploads.extend(began.ok());
                    effects
                }
                Does::UploadEnds(reservation) => {
                    let Some(began) = self.uploads.pop() else { return Vec::new() };
                    outcome(client.upload_ended(began, reservation, now)).1
                }
                Does::Reserve(backend) => {
                    let until = now + Duration::from_secs(600);
                    outcome(client.reserve(BackendId::nth(backend), until, now)).1
                }
                Does::Adopt(prompt, backend) => {
                    self.mirror.over.remove(&id(prompt));
                    outcome(client.adopt(&[found(prompt, backend, now)], now)).1
                }
                Does::MustAsk(backend) => outcome(client.must_ask(BackendId::nth(backend))).1,
                Does::Release => outcome(client.release(now)).1,
                Does::Reset => outcome(client.reset(now)).1,
            };
            self.mirror.take(&unit, &self.client);
            unit.ended
        }
    }

    fn waited(client: &mut Client, wait: Wait, fleet: FleetNow<'_>, now: Instant) -> Effects {
        let attempt = |client: &Client, prompt: u8| {
            client.pending().get(&id(prompt)).map_or(0, Pending::attempt)
        };
        match wait {
            Wait::Begins(prompt) => outcome(client.enqueue(id(prompt), 4, now)).1,
            Wait::HandedOver(prompt, to) => {
                let to = (BackendId::nth(to), Errand::Run);
                let (handed, effects) = outcome(client.hand_over(&id(prompt), to, fleet, now));
                let at = client.pending().get(&id(prompt)).and_then(Pending::backend);
                assert!(handed.is_err() || at == Some(to.0));
                effects
            }
            Wait::GoesOut(prompt) => {
                let attempt = attempt(client, prompt);
                outcome(client.goes_out(&id(prompt), attempt, now)).1
            }
            Wait::Again(prompt) => {
                let attempt = attempt(client, prompt);
                outcome(client.wait_again(&id(prompt), attempt, now)).1
            }
            Wait::Dropped(prompt) => outcome(client.drop_waiting(&id(prompt), End::Deleted, now)).1,
            Wait::AskedToDelete(prompt) => outcome(client.delete_asked(&id(prompt), now)).1,
            Wait::LostOnTheWay(prompt) => {
                let attempt = attempt(client, prompt);
                outcome(client.lost_on_the_way(&id(prompt), attempt, now)).1
            }
            Wait::ResetPlaced(from) => outcome(client.reset_placed(BackendId::nth(from), now)).1,
            Wait::LinkCloses(at) => {
                let since = client.pending().values().map(Pending::sent).min().unwrap_or(now);
                outcome(client.link_closed(BackendId::nth(at), Hearing::Since(since), now)).1
            }
            Wait::ProcessGone(prompt) => {
                let since = now + Duration::from_secs(1);
                let gone = (Shut { since, last: since }, Some(now));
                outcome(client.process_gone(&id(prompt), gone, (Outcome::Untold, 2), now)).1
            }
            Wait::ComesBack(prompt, from) => {
                outcome(client.comes_back(&id(prompt), (BackendId::nth(from), now))).1
            }
        }
    }

    fn outcome<T>(step: Step<T>) -> (T, Effects) {
        step.split()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    proptest! {
        /// After any sequence of transitions, the applied effects give the binding and the pending
        /// prompts of the core, and each pending prompt ends once.
        #[test]
        fn effects_are_all_that_changed(
            story in vec((does(), 0..FLEETS.len()), 0..80),
        ) {
            let now = start();
            let (client, mirror) = (Client::new(now), Mirror::default());
            let mut told = Story { client, mirror, uploads: Vec::new(), now };
            let mut ends: BTreeMap<PromptId, usize> = BTreeMap::new();
            let mut begun: BTreeMap<PromptId, usize> = BTreeMap::new();
            for (next, backends) in story {
                let before: BTreeSet<PromptId> = told.client.pending().keys().cloned().collect();
                let views = fleet(FLEETS[backends]);
                let ended = told.goes_on(next, FleetNow { backends: &views, turn: 0 });
                let after: BTreeSet<PromptId> = told.client.pending().keys().cloned().collect();
                for prompt in after.difference(&before) {
                    *begun.entry(prompt.clone()).or_default() += 1;
                }
                for pending in told.client.pending().values() {
                    prop_assert_eq!(pending.is_waiting(), pending.backend().is_none());
                }
                let gone: BTreeSet<PromptId> = before.difference(&after).cloned().collect();
                let is_withdrawn = matches!(next, Does::Withdraw(_));
                prop_assert_eq!(ended.len(), if is_withdrawn { 0 } else { gone.len() });
                for ended in ended {
                    prop_assert!(gone.contains(&ended.prompt), "{:?} of {:?}", ended, next);
                    prop_assert!(is_known_by(&ended, next), "{:?} of {:?}", ended, next);
                    *ends.entry(ended.prompt).or_default() += 1;
                }
            }
            // At the end of the client, all pending prompts are reported.
            let views = fleet(FLEETS[0]);
            for ended in told.goes_on(Does::Reset, FleetNow { backends: &views, turn: 0 }) {
                *ends.entry(ended.prompt).or_default() += 1;
            }
            prop_assert!(told.mirror.pending.is_empty());
            for (prompt, ends) in ends {
                prop_assert!(ends <= begun[&prompt], "{} ended oftener than it began", prompt);
            }
        }
    }

    /// Sockets are told exactly what they have not received.
    fn is_known_by(ended: &Ended, by: Does) -> bool {
        match by {
            Does::Hear(..) => ended.known == KnownBy::Heard,
            Does::Sight(..)
            | Does::Settle(_)
            | Does::Waits(Wait::Dropped(_) | Wait::Again(_) | Wait::AskedToDelete(_)) => {
                ended.known == KnownBy::Found
            }
            // Its deletion was asked for while it was being sent.
            Does::Waits(Wait::GoesOut(_)) => {
                ended.known == KnownBy::Found && ended.end == End::Deleted
            }
            Does::GiveUp(..) | Does::Waits(Wait::LostOnTheWay(_) | Wait::ProcessGone(_)) => {
                ended.known == KnownBy::GivenUp
            }
            Does::Reset | Does::Waits(Wait::ResetPlaced(_)) => {
                ended.known == KnownBy::CutOff && ended.end == End::Lost(Loss::Reset)
            }
            Does::Contact
            | Does::Submit(_)
            | Does::Waits(
                Wait::Begins(_) | Wait::HandedOver(..) | Wait::LinkCloses(_) | Wait::ComesBack(..),
            )
            | Does::Elsewhere(..)
            | Does::Accepted(_)
            | Does::Withdraw(_)
            | Does::Upload
            | Does::UploadEnds(_)
            | Does::Reserve(_)
            | Does::Adopt(..)
            | Does::MustAsk(_)
            | Does::Release
            | Does::After(_) => false,
        }
    }

    #[test]
    fn a_read_that_stays_is_counted_and_changes_nothing_else() {
        let (now, views) = (start(), fleet("Ru0"));
        let mut client = Client::new(now);
        let fleet = FleetNow { backends: &views, turn: 0 };
        let (_, made) = client.contact(fleet, now).split();
        let to = Some(BackendId::nth(0));
        assert_eq!(made.binding, Rebound::Moved { from: None, to });
        let (_, stays) = client.contact(fleet, now).split();
        assert_eq!(stays, Effects { routed: Some(Reason::Idle), ..Effects::NONE });
        assert!(!stays.is_nothing());
        let (_, heard) = client.on_event(&id(0), Signal::Progressed, now).split();
        assert!(heard.is_nothing());
    }
}
