//! How a prompt enters the index, leaves the queue and the index, and comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::bytes::{NoRoom, share};
use super::{Aside, Class, Entry, Full, Index, Kept, PromptKey, Spent, Submission, Waiting, Wants};
use crate::comfy::lists::waiting::Parts;
use crate::net::now;
use crate::queue::ids::{ClientKey, MemberKey, SharerKey};
use crate::queue::{BoundAt, Refused};
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::pending::{Course, Pending};

impl Waiting {
    /// A submission is about to wait. It may be handed over when [`Waiting::entered`] was called.
    ///
    /// # Errors
    /// Too much waits; nothing has changed then.
    pub(in crate::session) fn enter(
        &self,
        prompt: &PromptId,
        client: &ClientId,
        (kept, shown, wants): (Kept, Arc<Parts>, Wants),
        last: Option<BackendId>,
    ) -> Result<(), Full> {
        let payer = kept.payer.clone();
        self.is_used.store(true, Ordering::Relaxed);
        let now = now();
        let at = self.at(now);
        let mut index = self.index();
        let bytes = kept.body.len() as u64;
        let room = index.bytes.has_room(&payer, bytes, self.limits.bytes);
        let is_too_much = room.err().map(|why| self.no_bytes(why));
        if let Some(full) = is_too_much
            && (full == Full::TooLarge { max: self.limits.bytes } || !index.queue.has_room(at))
        {
            return Err(full);
        }
        if index.prompts.contains_key(prompt) {
            return Err(Full::Known);
        }
        let max = self.limits.max_per_sharer;
        if max <= index.bytes.bodies(&payer) {
            let sharer = index.sharers.get(&payer).unwrap_or_default();
            let retry_after = index.queue.retry_after(SharerKey(sharer), at);
            return Err(Full::Sharer { max, seconds: seconds(retry_after) });
        }
        let wants = index.anew(wants, &self.catalogue.load());
        let key = index.insert(prompt, client, (kept, shown, &wants), now);
        if let Some(entry) = index.prompts.get_mut(prompt) {
            (entry.is_too_much, entry.is_new) = (is_too_much, true);
        }
        let submission = index.submission(prompt, (key, wants), last, at);
        let submitted = submission.map_or(Ok(()), |it| index.queue.submitted(it, at));
        index.queue.sets_aside(key, Aside::Yes, at);
        index.pauses_if_on_the_way(client, at);
        submitted.map_err(|refused| {
            index.remove(prompt);
            match refused {
                Refused::QueueFull { retry_after } => self.full(retry_after),
                Refused::SharerFull { retry_after } => {
                    let max = self.limits.max_per_sharer;
                    Full::Sharer { max, seconds: seconds(retry_after) }
                }
                Refused::Known => Full::Known,
            }
        })
    }

    /// A prompt from before a restart, whose body is kept: it waits, or its backend is asked for
    /// it. Limits do not apply.
    pub(in crate::session) fn restore(
        &self,
        prompt: &PromptId,
        client: &ClientId,
        kept: Kept,
        pending: &Pending,
    ) {
        self.is_used.store(true, Ordering::Relaxed);
        let now = now();
        let at = self.at(now);
        let shown = Arc::new(Parts::of(&kept.body));
        let wants = self.wants(&kept.body);
        let mut index = self.index();
        let wants = index.anew(wants, &self.catalogue.load());
        index.counts_also(kept.number);
        // It has waited since it was submitted, also in another process.
        let key = index.insert(prompt, client, (kept, shown, &wants), pending.since.min(now));
        if pending.is_waiting() {
            index.queue_up(prompt, (key, wants), at);
        } else if pending.course() == Course::Taken {
            index.counts_body_no_more(prompt);
        } else {
            // Whether its backend has it is not known: the next one must not overtake it.
            index.is_on_the_way(prompt, at);
        }
    }

    /// A submission is noted for the journal: it may be handed over.
    pub(in crate::session) fn entered(&self, prompt: &PromptId) {
        let at = self.at(now());
        let mut index = self.index();
        let Some(entry) = index.prompts.get_mut(prompt) else { return };
        entry.is_new = false;
        let (key, aside) = (entry.key, entry.aside());
        index.queue.sets_aside(key, aside, at);
        drop(index);
        self.wake();
    }

    /// A prompt that was handed over, or was set aside, waits again in its old place.
    pub fn again(&self, prompt: &PromptId) {
        let at = self.at(now());
        let mut index = self.index();
        index.arrived(prompt, at);
        index.is_not_shown(prompt);
        let Some(entry) = index.prompts.get_mut(prompt) else { return };
        let (key, tried, aside) = (entry.key, entry.tried.clone(), entry.aside());
        let needs = Arc::clone(&entry.needs);
        index.counts_body(prompt);
        if index.queue.has_waiting(key) {
            index.queue.excludes(key, &tried, at);
        } else if !index.queue.returned(key, &tried, at) {
            let wants = Wants::of(needs, &self.catalogue.load());
            index.queue_up(prompt, (key, wants), at);
            index.queue.excludes(key, &tried, at);
        }
        index.queue.sets_aside(key, aside, at);
        drop(index);
        self.wake();
    }

    /// There is nothing to hand over: the prompt is not in its client's map, or has no body.
    pub fn forget(&self, prompt: &PromptId) {
        self.over(prompt, Spent::Broke);
    }

    /// A backend has accepted the prompt: it does not wait any more. True if it did until now.
    pub(in crate::session) fn accepted(&self, prompt: &PromptId) -> bool {
        let at = self.at(now());
        let mut index = self.index();
        index.arrived(prompt, at);
        let shown_at = index.is_not_shown(prompt);
        let Some(key) = index.prompts.get(prompt).map(|it| it.key) else { return false };
        let waited = index.counts_body_no_more(prompt);
        // One that was shown and stays was never handed over by the queue.
        let stays = shown_at.is_some_and(|backend| index.queue.stays(key, backend, at));
        if !stays && index.queue.has_waiting(key) {
            index.queue.gone(key, at);
        }
        index.queue.arrived(key);
        if let Some(backend) = index.queue.place(key) {
            index.turned_away.remove(&backend);
        }
        drop(index);
        self.wake();
        waited
    }

    /// The prompt has begun: its body is not needed any more. True if it was kept.
    pub(in crate::session) fn began(&self, prompt: &PromptId) -> bool {
        let at = self.at(now());
        let mut index = self.index();
        index.counts_body_no_more(prompt);
        let Some(entry) = index.prompts.get_mut(prompt) else { return false };
        let (key, kept) = (entry.key, entry.kept.take());
        entry.needs = Arc::default();
        index.queue.began(key, at);
        drop(index);
        self.wake();
        kept.is_some()
    }

    /// The prompt has ended or was withdrawn. True if its body was kept.
    pub(in crate::session) fn over(&self, prompt: &PromptId, spent: Spent) -> bool {
        let at = self.at(now());
        let mut index = self.index();
        let Some(key) = index.prompts.get(prompt).map(|it| it.key) else { return false };
        index.arrived(prompt, at);
        if !index.queue.ended(key, spent, at) {
            index.queue.gone(key, at);
        }
        let kept = index.remove(prompt);
        drop(index);
        self.wake();
        kept
    }

    /// Where this client is bound, and whether something holds it there.
    pub(in crate::session) fn holds(&self, client: &ClientId, bound: BoundAt) {
        let at = self.at(now());
        let mut index = self.index();
        if let Some(key) = index.clients.get(client) {
            index.queue.holds(ClientKey(key), bound, at);
        }
    }

    fn no_bytes(&self, why: NoRoom) -> Full {
        let max = self.limits.bytes;
        match why {
            NoRoom::Ever => Full::TooLarge { max },
            NoRoom::InAll => self.full(Duration::from_secs(1)),
            NoRoom::OfSharer => Full::BytesOfSharer { max: share(max), seconds: 1 },
        }
    }

    fn full(&self, retry_after: Duration) -> Full {
        let (max, bytes) = (self.limits.max, self.limits.bytes);
        Full::Queue { max, bytes, seconds: seconds(retry_after) }
    }
}

impl Index {
    fn insert(
        &mut self,
        prompt: &PromptId,
        client: &ClientId,
        (kept, shown, wants): (Kept, Arc<Parts>, &Wants),
        since: Instant,
    ) -> PromptKey {
        self.next_key += 1;
        let key = PromptKey(self.next_key);
        self.clients.take(client);
        self.sharers.take(&kept.payer);
        self.members.take(&kept.sharer);
        self.bytes.add(&kept.payer, kept.body.len() as u64);
        let client = client.clone();
        let (payer, sharer) = (kept.payer.clone(), kept.sharer.clone());
        let (number, kept) = (kept.number, Some(Arc::new(kept)));
        let tried = SmallVec::new();
        self.ids.insert(key, prompt.clone());
        let entry = Entry {
            key,
            client,
            payer,
            sharer,
            number,
            kept,
            is_taken: false,
            shown,
            tried,
            failed: 0,
            lacked_a_file: 0,
            rests: false,
            shown_at: None,
            is_new: false,
            is_too_much: None,
            since,
            needs: Arc::clone(&wants.needs),
            shape: None,
            is_doubted: false,
        };
        self.prompts.insert(prompt.clone(), entry);
        key
    }

    /// Puts a prompt that is known into the queue, whatever the limits are.
    fn queue_up(&mut self, prompt: &PromptId, it: (PromptKey, Wants), at: Duration) {
        if let Some(submission) = self.submission(prompt, it, None, at) {
            self.queue.restored(submission, at);
        }
        if let Some(client) = self.prompts.get(prompt).map(|it| it.client.clone()) {
            self.pauses_if_on_the_way(&client, at);
        }
    }

    fn submission(
        &mut self,
        prompt: &PromptId,
        (key, wants): (PromptKey, Wants),
        last: Option<BackendId>,
        at: Duration,
    ) -> Option<Submission> {
        let shape = self.shape_of(prompt, wants, at);
        let entry = self.prompts.get(prompt)?;
        let client = self.clients.get(&entry.client).unwrap_or_default();
        let sharer = self.sharers.get(&entry.payer).unwrap_or_default();
        let member = self.members.get(&entry.sharer).unwrap_or_default();
        Some(Submission {
            prompt: key,
            client: ClientKey(client),
            sharer: SharerKey(sharer),
            member: MemberKey(member),
            weight: 1.0,
            shape,
            class: Class::Normal,
            number: entry.number,
            last,
        })
    }

    /// True if its body was kept.
    fn remove(&mut self, prompt: &PromptId) -> bool {
        self.is_not_shown(prompt);
        let Some(entry) = self.prompts.remove(prompt) else { return false };
        self.ids.remove(&entry.key);
        entry.shape.into_iter().for_each(|shape| self.forgets_shape(shape));
        self.refused.remove(prompt);
        self.clients.give_back(&entry.client);
        self.sharers.give_back(&entry.payer);
        self.members.give_back(&entry.sharer);
        if let Some(kept) = entry.kept.as_ref().filter(|_| !entry.is_taken) {
            self.bytes.take_off(&entry.payer, kept.body.len() as u64);
        }
        entry.kept.is_some()
    }

    /// The prompt waits again: its body counts, also beyond the limits.
    fn counts_body(&mut self, prompt: &PromptId) {
        let Some(entry) = self.prompts.get_mut(prompt) else { return };
        if std::mem::take(&mut entry.is_taken)
            && let Some(kept) = &entry.kept
        {
            self.bytes.add(&entry.payer, kept.body.len() as u64);
        }
    }

    /// A backend has accepted the prompt. True if its body counted until now.
    fn counts_body_no_more(&mut self, prompt: &PromptId) -> bool {
        let Some(entry) = self.prompts.get_mut(prompt) else { return false };
        let counted = !std::mem::replace(&mut entry.is_taken, true);
        if let Some(kept) = entry.kept.as_ref().filter(|_| counted) {
            self.bytes.take_off(&entry.payer, kept.body.len() as u64);
        }
        counted && entry.kept.is_some()
    }
}

pub(super) fn seconds(retry_after: Duration) -> u32 {
    let seconds = retry_after.as_millis().div_ceil(1_000).clamp(1, 3_600);
    u32::try_from(seconds).unwrap_or(3_600)
}
