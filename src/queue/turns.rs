//! Turns of those who share one share: the browsers of one address.
//!
//! Each prompt gets a round when it is submitted, and the least round is first. The rounds of one
//! member's prompts follow each other, and a member that comes from idleness begins with the round
//! that is at present: so they take turns, prompt by prompt. Members cost nothing, so they decide
//! only in what order the prompts of one share are handed over, and never how many.

use std::collections::HashMap;

use super::ids::{MemberKey, SharerKey};

/// The turns of all sharers that have prompts.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<SharerKey, Circle>);

#[derive(Debug, Default)]
struct Circle {
    /// The round of the prompt that was handed over last, of those in order.
    round: u64,
    members: HashMap<MemberKey, Member>,
}

#[derive(Debug, Default)]
struct Member {
    next: u64,
    prompts: usize,
}

impl Turns {
    /// One more prompt of the member. Returns its round.
    pub(super) fn arrives(&mut self, sharer: SharerKey, member: MemberKey) -> u64 {
        let circle = self.0.entry(sharer).or_default();
        let member = circle.members.entry(member).or_default();
        let round = member.next.max(circle.round);
        (member.next, member.prompts) = (round + 1, member.prompts + 1);
        round
    }

    /// A prompt of this round is handed over.
    pub(super) fn goes(&mut self, sharer: SharerKey, round: u64) {
        if let Some(circle) = self.0.get_mut(&sharer) {
            circle.round = circle.round.max(round);
        }
    }

    /// A prompt of this round is not wanted any more: what its member submits next may have it.
    pub(super) fn gives_back(&mut self, sharer: SharerKey, member: MemberKey, round: u64) {
        let Some(circle) = self.0.get_mut(&sharer) else { return };
        if let Some(member) = circle.members.get_mut(&member) {
            member.next = member.next.min(round);
        }
    }

    /// One prompt less of the member. Who has none is forgotten.
    pub(super) fn leaves(&mut self, sharer: SharerKey, member: MemberKey) {
        let Some(circle) = self.0.get_mut(&sharer) else { return };
        if let Some(it) = circle.members.get_mut(&member) {
            it.prompts = it.prompts.saturating_sub(1);
            if it.prompts == 0 {
                circle.members.remove(&member);
            }
        }
        if circle.members.is_empty() {
            self.0.remove(&sharer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: SharerKey = SharerKey(1);
    const ADA: MemberKey = MemberKey(1);
    const BOB: MemberKey = MemberKey(2);

    #[test]
    fn members_take_turns_and_who_comes_late_begins_with_the_present_round() {
        let mut turns = Turns::default();
        let ada: Vec<u64> = (0..4).map(|_| turns.arrives(HOME, ADA)).collect();
        assert_eq!(ada, [0, 1, 2, 3]);
        turns.goes(HOME, 0);
        turns.goes(HOME, 1);
        assert_eq!([turns.arrives(HOME, BOB), turns.arrives(HOME, BOB)], [1, 2]);
        assert_eq!(turns.arrives(SharerKey(2), ADA), 0, "another share has rounds of its own");
    }

    #[test]
    fn who_clears_many_prompts_does_not_wait_for_their_rounds() {
        let mut turns = Turns::default();
        let rounds: Vec<u64> = (0..500).map(|_| turns.arrives(HOME, ADA)).collect();
        turns.goes(HOME, 0);
        for round in rounds.into_iter().skip(1).rev() {
            turns.gives_back(HOME, ADA, round);
            turns.leaves(HOME, ADA);
        }
        assert_eq!([turns.arrives(HOME, ADA), turns.arrives(HOME, BOB)], [1, 0]);
    }

    #[test]
    fn nothing_is_left_of_those_who_have_nothing() {
        let mut turns = Turns::default();
        turns.arrives(HOME, ADA);
        turns.arrives(HOME, BOB);
        turns.leaves(HOME, ADA);
        turns.leaves(HOME, BOB);
        assert!(turns.0.is_empty());
    }
}
