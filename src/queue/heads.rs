//! Which prompt of a client is its first, where that may go, and how urgent it has become.

use std::cmp::Reverse;

use super::Queue;
use super::clients::{Client, Head, NOWHERE, Prompt};
use super::ids::{Class, ClientKey, Number, PromptKey};
use super::order::{Listed, Rank, Scope};

impl Queue {
    /// To be called after every change of a client, its prompts or of what it may use. A client
    /// that has nothing here any more is forgotten, and with it its binding.
    pub(super) fn relist(&mut self, key: ClientKey, now: f64) {
        let Some(mut client) = self.clients.clients.remove(&key) else { return };
        if client.is_drained() {
            self.unlist(&mut client);
            self.bind(&mut client, None);
            return;
        }
        let since = self.unlist(&mut client);
        let first = client.waiting.iter().find(|own| self.runs_somewhere(own.prompt)).copied();
        client.head = first.map(|own| {
            let same = since.filter(|(prompt, _)| *prompt == own.prompt);
            let since = same.map_or(now, |(_, since)| since);
            if same.is_none() && 1 < own.class.rank() {
                let at = Number(now + self.ageing_seconds());
                self.ageing.push(Reverse((at, key, own.prompt)));
            }
            let prompt = &self.clients.prompts[&own.prompt];
            let scopes = self.scopes(&client, prompt);
            let class = self.class_now(own.class, now - since);
            let round = client.rounds.first().map_or(0, |round| round.0);
            let rank = Rank { class, round, order: own.order, client: key };
            let listed = Listed { sharer: prompt.sharer, rank, shape: prompt.shape, scopes };
            Head { own, since, listed: (!listed.scopes.is_empty()).then_some(listed) }
        });
        if let Some(listed) = client.head.as_ref().and_then(|head| head.listed.as_ref()) {
            self.order.insert(listed, self.shares.key(listed.sharer));
        }
        self.clients.clients.insert(key, client);
    }

    /// Takes the head off the list; returns which it was, and since when.
    fn unlist(&mut self, client: &mut Client) -> Option<(PromptKey, f64)> {
        let head = client.head.take()?;
        if let Some(listed) = &head.listed {
            self.order.remove(listed);
        }
        Some((head.own.prompt, head.since))
    }

    /// Binds the client to the backend in the slot, or to none.
    pub(super) fn bind(&mut self, client: &mut Client, slot: Option<u16>) {
        if client.bound == slot {
            return;
        }
        if let Some(backend) = client.bound.and_then(|slot| self.fleet.get_mut(slot)) {
            backend.bound = backend.bound.saturating_sub(1);
        }
        if let Some(backend) = slot.and_then(|slot| self.fleet.get_mut(slot)) {
            backend.bound += 1;
        }
        client.last = client.bound.or(client.last);
        client.bound = slot;
    }

    /// Where the first prompt of a client may go. A client that is at as many backends as it may be
    /// goes to one of them; with a spread of 1 it stays where it is bound until it has drained, but
    /// for a backend that takes nothing and has nothing of it.
    pub(super) fn scopes(&self, client: &Client, prompt: &Prompt) -> Vec<Scope> {
        if prompt.is_aside || client.is_paused {
            return Vec::new();
        }
        if let Some(held) = client.held {
            let is_open = held != NOWHERE && !prompt.not.contains(&held);
            return if is_open { vec![Scope::At(held)] } else { Vec::new() };
        }
        let own: Option<Vec<u16>> = match self.settings.spread {
            0 => None,
            1 => client
                .bound
                .filter(|slot| client.is_at(*slot) || self.may_run(prompt, *slot))
                .map(|slot| vec![slot]),
            spread => (spread <= client.at.len())
                .then(|| client.at.iter().map(|(slot, _)| *slot).collect()),
        };
        if own.is_none() && prompt.not.is_empty() {
            return vec![Scope::Any];
        }
        let slots = own.unwrap_or_else(|| self.fleet.all().map(|it| it.slot).collect());
        let slots = slots.into_iter().filter(|slot| !prompt.not.contains(slot));
        slots.map(Scope::At).collect()
    }

    /// True if the backend takes new work and is not known to lack what the prompt needs.
    pub(super) fn may_run(&self, prompt: &Prompt, slot: u16) -> bool {
        let lacks = self.shapes.get(prompt.shape).lacks(slot);
        self.fleet.is_up(slot) && !lacks && !prompt.not.contains(&slot)
    }

    /// A prompt that no backend that is up can run steps aside for the next of its client.
    pub(super) fn runs_somewhere(&self, key: PromptKey) -> bool {
        let prompt = &self.clients.prompts[&key];
        if self.fleet.up() == 0
            || (prompt.not.is_empty() && !self.shapes.get(prompt.shape).is_picky())
        {
            return true;
        }
        self.fleet.all().any(|it| self.may_run(prompt, it.slot))
    }

    /// Raises those that have waited long enough as the first of their client.
    ///
    /// Not by the time since their submission: the eightieth prompt of a batch would be raised by
    /// having waited behind its own, and would pass those who have had nothing.
    pub(super) fn age(&mut self, now: f64) {
        while let Some(Reverse((at, client, prompt))) = self.ageing.peek().copied() {
            if now < at.0 {
                break;
            }
            self.ageing.pop();
            let head = self.clients.clients.get(&client).and_then(|it| it.head.as_ref());
            let Some(head) = head.filter(|head| head.own.prompt == prompt) else { continue };
            if 1 < self.class_now(head.own.class, now - head.since) {
                self.ageing.push(Reverse((Number(at.0 + self.ageing_seconds()), client, prompt)));
            }
            self.relist(client, now);
        }
    }

    pub(super) fn ageing_seconds(&self) -> f64 {
        self.settings.ageing.as_secs_f64().max(1.0)
    }

    fn class_now(&self, class: Class, waited: f64) -> u8 {
        // A hair more, because the sum of the heap and this difference are rounded differently.
        class.raised(((waited + 1e-6) / self.ageing_seconds()) as u8)
    }

    /// The clients whose first prompt, or where that may go, depends on this backend. To be asked
    /// before the backend changes, and to be listed anew after it.
    pub(super) fn depending_on(&self, slot: u16) -> Vec<ClientKey> {
        let depends = |client: &Client| {
            let picky = client.waiting.iter().any(|own| {
                let prompt = &self.clients.prompts[&own.prompt];
                !prompt.not.is_empty() || self.shapes.get(prompt.shape).is_picky()
            });
            picky || client.held == Some(slot) || client.bound == Some(slot) || client.is_at(slot)
        };
        let clients = self.clients.clients.iter();
        let mut keys: Vec<ClientKey> =
            clients.filter(|(_, client)| depends(client)).map(|(key, _)| *key).collect();
        // In an order of their own, so that what follows is the same each time.
        keys.sort_unstable();
        keys
    }
}
