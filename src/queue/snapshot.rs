//! A copy of the queue, to look ahead on.
//!
//! Others wait while it is made, so it is made as rows in a few vectors, and it is put together
//! later. What nobody asks a forecast is left out.

use smallvec::SmallVec;

use super::Queue;
use super::clients::{Client, Clients, Head, OwnOrder, Prompt, Round};
use super::fleet::Fleet;
use super::ids::{ClientKey, Number, PromptKey};
use super::learned::{Means, RunTimes};
use super::order::Order;
use super::settings::Settings;
use super::shapes::Shapes;
use super::shares::Shares;
use super::turns::Turns;
use super::warm::Models;

/// All that decides about what is here.
#[derive(Debug)]
pub struct Snapshot {
    settings: Settings,
    shares: Shares,
    shapes: Shapes,
    models: Models,
    runs: RunTimes,
    fleet: Fleet,
    turn: u64,
    /// How many prompts wait.
    waiting: usize,
    prompts: Vec<(PromptKey, Prompt)>,
    clients: Vec<(ClientKey, Row)>,
    /// The turns of the clients, those of the first at the beginning.
    rounds: Vec<Round>,
}

/// A client, but for what its prompts say.
#[derive(Debug)]
struct Row {
    at: SmallVec<[(u16, u32); 2]>,
    bound: Option<u16>,
    last: Option<u16>,
    held: Option<u16>,
    /// Its first prompt, and since when it is.
    head: Option<(OwnOrder, f64)>,
    rounds: usize,
}

impl Queue {
    /// A copy of what is here: so many copies of rows as there are prompts and clients.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let all = &self.clients;
        let mut rounds = Vec::with_capacity(all.waiting);
        let mut clients = Vec::with_capacity(all.clients.len());
        for (key, client) in &all.clients {
            rounds.extend(client.rounds.iter().copied());
            let row = Row {
                at: client.at.clone(),
                bound: client.bound,
                last: client.last,
                held: client.held,
                head: client.head.as_ref().map(|head| (head.own, head.since)),
                rounds: client.rounds.len(),
            };
            clients.push((*key, row));
        }
        let mut prompts = Vec::with_capacity(all.prompts.len());
        prompts.extend(all.prompts.iter().map(|(key, prompt)| (*key, prompt.clone())));
        Snapshot {
            settings: self.settings,
            shares: self.shares.clone(),
            shapes: self.shapes.nameless(),
            models: self.models.clone(),
            runs: self.runs.clone(),
            fleet: self.fleet.clone(),
            turn: self.turn,
            waiting: all.waiting,
            prompts,
            clients,
            rounds,
        }
    }
}

impl Snapshot {
    /// How many prompts wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// About how many rows were copied.
    pub(super) fn rows(&self) -> usize {
        let known = self.shapes.len() + self.models.len() + self.runs.len();
        self.prompts.len() + self.clients.len() + known
    }

    /// A queue that decides as the copied one would if nothing new came. What it was set aside or
    /// paused for is over in a moment, so nothing is; and what can run nowhere does not wait in it.
    pub(super) fn into_queue(self) -> Queue {
        let mut queue = Queue {
            settings: self.settings,
            clients: Clients::default(),
            shares: self.shares,
            turns: Turns::default(),
            order: Order::default(),
            shapes: self.shapes,
            models: self.models,
            runs: self.runs,
            beginnings: Means::new(0),
            fleet: self.fleet,
            ageing: std::collections::BinaryHeap::new(),
            submissions: 0,
            turn: self.turn,
        };
        let mut rounds = self.rounds.into_iter();
        for (key, row) in self.clients {
            let mut client = Client::new(row.last);
            (client.at, client.bound, client.held) = (row.at, row.bound, row.held);
            client.rounds = rounds.by_ref().take(row.rounds).collect();
            client.head = row.head.map(|(own, since)| Head { own, since, listed: None });
            queue.clients.clients.insert(key, client);
        }
        let waiting = self.prompts.iter().filter(|(_, it)| it.at.is_none());
        let mut own: Vec<(ClientKey, OwnOrder)> =
            waiting.map(|(key, it)| (it.client, it.own(*key))).collect();
        own.sort_unstable();
        for (key, mut prompt) in self.prompts {
            prompt.is_aside = false;
            if prompt.at.is_none() {
                let models = &queue.shapes.get(prompt.shape).facts.models;
                queue.clients.count_waiting(models, 1);
            }
            queue.clients.prompts.insert(key, prompt);
        }
        for (key, own) in own {
            if queue.runs_somewhere(own.prompt)
                && let Some(client) = queue.clients.clients.get_mut(&key)
            {
                client.waiting.insert(own);
            }
        }
        queue.list_all();
        queue
    }
}

impl Queue {
    /// Lists the first prompt of each client. Who has waited as the first goes on to.
    fn list_all(&mut self) {
        let now = self.shares.now();
        let clients = self.clients.clients.iter().filter(|(_, it)| !it.waiting.is_empty());
        let mut keys: Vec<ClientKey> = clients.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            self.relist(key, now);
            let head = self.clients.clients.get(&key).and_then(|it| it.head.as_ref());
            let Some(head) = head else { continue };
            let (prompt, since) = (head.own.prompt, head.since);
            if 1 < head.own.class.rank() {
                self.ages_at(since, now, key, prompt);
            }
        }
    }

    /// The next moment at which the first prompt of a client counts a class higher.
    fn ages_at(&mut self, since: f64, now: f64, client: ClientKey, prompt: PromptKey) {
        let ageing = self.ageing_seconds();
        let passed = ((now - since + 1e-6) / ageing).floor().max(0.0);
        let at = Number(since + (passed + 1.0) * ageing);
        self.ageing.push(std::cmp::Reverse((at, client, prompt)));
    }
}
