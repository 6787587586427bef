//! What becomes of a client's prompts when the process of their backend is gone.

use std::time::Instant;

use super::{Client, Outcome};
use crate::routing::effects::{KnownBy, Step, Submission};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Fate, Hearing, Loss, Observation, Pending, Shut};

impl Client {
    /// The link to `backend` has ended. The outcome is the prompt that ran there when it was
    /// closed, if that is certain.
    pub fn link_closed(
        &mut self,
        backend: BackendId,
        hearing: Hearing,
        now: Instant,
    ) -> Step<Option<PromptId>> {
        Step::of(|_effects| {
            self.prompts.on(backend).for_each(|pending| pending.link_closed(hearing, now));
            let mut there = self.pending().iter().filter(|(_, it)| it.is_on(backend));
            let ran = there.find(|(_, it)| it.ran_when_closed());
            ran.map(|(prompt, _)| prompt.clone())
        })
    }

    /// The backend was asked at this time, and the answer comes next.
    pub fn was_asked(
        &mut self,
        prompt: &PromptId,
        (sighted, asked): (Observation, Instant),
    ) -> Step {
        Step::of(|_effects| match sighted {
            Observation::Queued | Observation::Running => {
                let pending = self.prompts.get_mut(prompt);
                pending.into_iter().for_each(|it| it.was_certain(asked));
            }
            Observation::InHistory(_) | Observation::Absent(_) => {}
        })
    }

    /// Its backend is to be left: a prompt that has not begun there is taken back, if a link has
    /// listened since this moment. False if it is not there, or may have begun.
    pub fn comes_back(
        &mut self,
        prompt: &PromptId,
        (from, listens): (BackendId, Instant),
    ) -> Step<bool> {
        Step::of(|effects| {
            let pending = self.prompts.get_mut(prompt);
            let pending = pending.filter(|it| it.is_on(from) && it.may_come_back(listens));
            let Some(pending) = pending else { return false };
            pending.comes_back();
            effects.asks = true;
            true
        })
    }

    /// Its deletion was answered where the prompt was in the queue. If it is not there after that,
    /// it has not begun, also for those who read the journal: before, it might have begun and
    /// ended while no gateway ran.
    pub fn deletion_answered(&mut self, prompt: &PromptId, attempt: u32) -> Step {
        Step::of(|effects| {
            let pending = self.pending().get(prompt);
            let pending = pending.filter(|it| it.attempt() == attempt && it.is_coming_back());
            let Some(from) = pending.and_then(Pending::backend) else { return };
            effects.submission = Some(Submission::ComesBack { prompt: prompt.clone(), from });
        })
    }

    /// A deletion was answered where the prompt was in the queue, and a look misses it there since:
    /// it waits again. False if it does not come back, or this attempt is over.
    pub fn came_back(&mut self, prompt: &PromptId, attempt: u32, now: Instant) -> Step<bool> {
        Step::of(|effects| {
            let pending = self.pending().get(prompt);
            let pending = pending.filter(|it| it.attempt() == attempt && it.is_coming_back());
            let Some(pending) = pending else { return false };
            match pending.delete_asked {
                true => self.end(prompt, (End::Deleted, KnownBy::Found), now, effects),
                false => self.prompts.wait_again(prompt, now, effects),
            }
            true
        })
    }

    /// The port of its backend was closed then, and another prompt ran there when its link was
    /// closed at that time. What had certainly not begun waits again, unless it was at so many
    /// backends that died: it may be what kills them. Nothing else is decided before the port was
    /// closed for long.
    pub fn process_gone(
        &mut self,
        prompt: &PromptId,
        (shut, another): (Shut, Option<Instant>),
        (outcome, attempts): (Outcome, u32),
        now: Instant,
    ) -> Step<Fate> {
        Step::of(|effects| {
            let Some(pending) = self.prompts.get_mut(prompt) else { return Fate::Stays };
            let fate = pending.fate(shut, another, now);
            match fate {
                Fate::Stays | Fate::Unclear => {}
                Fate::Unbegun if pending.delete_asked => {
                    self.end(prompt, (End::Deleted, KnownBy::GivenUp), now, effects);
                }
                Fate::Unbegun if attempts <= pending.died() => {
                    let end = End::Lost(Loss::BackendDied);
                    self.end(prompt, (end, KnownBy::GivenUp), now, effects);
                }
                Fate::Unbegun => self.prompts.wait_again(prompt, now, effects),
                Fate::Lost => {
                    let outcome = if pending.delete_asked { Outcome::Told } else { outcome };
                    self.given_up(prompt, (Loss::BackendDied, outcome), now, effects);
                }
            }
            fate
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::routing::pending::Errand;
    use crate::routing::placement::FleetNow;
    use crate::routing::placement::tests::fleet;

    const HERE: BackendId = BackendId::nth(0);

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn did<T>(step: Step<T>) -> T {
        step.split().0
    }

    /// Hands a prompt over that waits, and has it accepted. Returns its attempt.
    fn is_accepted(client: &mut Client, now: Instant) -> u32 {
        let views = fleet("Ru0 Ru0");
        let fleet = FleetNow { backends: &views, turn: 0 };
        assert!(did(client.hand_over(&id("p"), (HERE, Errand::Run), fleet, now)).is_ok());
        let attempt = client.pending()["p"].attempt();
        assert!(did(client.goes_out(&id("p"), attempt, now)));
        assert!(did(client.accepted(&id("p"), now)));
        attempt
    }

    /// A client with a prompt that a backend has accepted, and its attempt.
    fn accepted() -> (Client, u32, Instant) {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut client = Client::new(now);
        assert_eq!(did(client.enqueue(id("p"), 9, now)), Ok(()));
        let attempt = is_accepted(&mut client, now);
        (client, attempt, now)
    }

    /// The process of its backend dies while another prompt runs there.
    fn dies(client: &mut Client, attempts: u32, now: Instant) -> (Fate, Vec<End>) {
        let at = |millis| now + Duration::from_millis(millis);
        did(client.link_closed(HERE, Hearing::Since(now), at(500)));
        let shut = Shut { since: at(600), last: at(600) };
        let facts = (shut, Some(at(500)));
        let told = (Outcome::Untold, attempts);
        let (fate, effects) = client.process_gone(&id("p"), facts, told, at(600)).split();
        (fate, effects.ended.iter().map(|ended| ended.end).collect())
    }

    #[test]
    fn what_was_where_two_backends_died_is_not_sent_to_a_third() {
        let (mut client, _, now) = accepted();
        assert_eq!(dies(&mut client, 2, now), (Fate::Unbegun, vec![]));
        assert!(client.pending()["p"].is_waiting());
        let now = now + Duration::from_secs(1);
        is_accepted(&mut client, now);
        let lost = End::Lost(Loss::BackendDied);
        assert_eq!(dies(&mut client, 2, now), (Fate::Unbegun, vec![lost]));

        let (mut client, _, now) = accepted();
        assert_eq!(dies(&mut client, 1, now), (Fate::Unbegun, vec![lost]));
    }

    #[test]
    fn what_is_to_be_deleted_has_ended_when_its_backend_dies() {
        let (mut client, _, now) = accepted();
        assert_eq!(did(client.delete_asked(&id("p"), now)), Some(HERE));
        assert_eq!(dies(&mut client, 2, now), (Fate::Unbegun, vec![End::Deleted]));
    }

    #[test]
    fn what_is_taken_back_waits_when_a_look_misses_it() {
        let (mut client, attempt, now) = accepted();
        assert!(!did(client.came_back(&id("p"), attempt, now)), "nobody takes it back");
        assert!(!did(client.comes_back(&id("p"), (HERE, now + Duration::from_millis(1)))));
        assert!(did(client.comes_back(&id("p"), (HERE, now))));
        assert!(!did(client.came_back(&id("p"), attempt, now)), "that attempt is over");
        let attempt = attempt + 1;
        assert!(did(client.came_back(&id("p"), attempt, now)));
        assert!(client.pending()["p"].is_waiting());

        let (mut client, attempt, now) = accepted();
        assert!(did(client.comes_back(&id("p"), (HERE, now))));
        assert_eq!(did(client.delete_asked(&id("p"), now)), Some(HERE));
        let (came_back, effects) = client.came_back(&id("p"), attempt + 1, now).split();
        assert!(came_back && effects.ended.iter().map(|it| it.end).eq([End::Deleted]));

        let (mut client, attempt, now) = accepted();
        assert!(did(client.comes_back(&id("p"), (HERE, now))));
        did(client.on_probe(&id("p"), Observation::Running, now));
        assert!(!did(client.came_back(&id("p"), attempt + 1, now)), "it has begun");
    }

    #[test]
    fn the_journal_learns_of_a_take_back_when_its_deletion_was_answered() {
        let (mut client, attempt, now) = accepted();
        let comes_back = client.comes_back(&id("p"), (HERE, now)).split().1;
        assert_eq!(comes_back.submission, None, "it may begin yet");
        let noted = |client: &mut Client, attempt| {
            client.deletion_answered(&id("p"), attempt).split().1.submission.is_some()
        };
        assert!(!noted(&mut client, attempt), "that attempt is over");
        assert!(noted(&mut client, attempt + 1));
        did(client.on_probe(&id("p"), Observation::Running, now));
        assert!(!noted(&mut client, attempt + 1), "it has begun");
    }

    #[test]
    fn a_command_waits_until_it_is_known_whether_it_comes_back() {
        let (mut client, _, now) = accepted();
        assert!(!client.pending()["p"].is_on_the_way());
        assert!(did(client.comes_back(&id("p"), (HERE, now))));
        assert!(client.pending()["p"].is_on_the_way());
        assert_eq!(did(client.delete_asked(&id("p"), now)), Some(HERE));
        did(client.delete_withdrawn(&id("p")));
        assert!(client.pending()["p"].delete_asked, "it ends when it is back");
    }

    #[test]
    fn what_is_taken_back_is_lost_if_its_backend_is_turned_off_by_force() {
        let (mut client, _, now) = accepted();
        assert!(did(client.comes_back(&id("p"), (HERE, now))));
        let (released, effects) = client.reset_placed(HERE, now).split();
        assert_eq!((released.cut_off, effects.ended.len()), (1, 1), "nobody asks that backend");
        assert!(client.pending().is_empty());
    }
}
