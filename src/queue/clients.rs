//! What waits, by client: its own order, where it is, and where its first prompt may go.

use std::collections::{BTreeSet, HashMap};

use smallvec::SmallVec;

use super::ids::{Class, ClientKey, MemberKey, ModelKey, Number, PromptKey, ShapeId, SharerKey};
use super::order::Listed;

/// A prompt that is here, waiting or at a backend.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub(super) client: ClientKey,
    pub(super) sharer: SharerKey,
    pub(super) member: MemberKey,
    pub(super) shape: ShapeId,
    pub(super) class: Class,
    pub(super) number: Number,
    /// The order of submission; it is kept when it comes back.
    pub(super) order: u64,
    /// Slots of backends that it is not tried at again.
    pub(super) not: SmallVec<[u16; 2]>,
    /// Attempts that were made.
    pub(super) attempts: u8,
    pub(super) at: Option<At>,
    /// It waits and is not to be handed over for the moment, nor what comes after it.
    pub(super) is_aside: bool,
}

/// The slot of no backend.
pub(super) const NOWHERE: u16 = u16::MAX;

/// Where a prompt is that was handed over.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) slot: u16,
    /// What it is expected to take, as its sharer counts it.
    pub(super) share: f64,
    /// The turn that its client has used for it.
    pub(super) round: Option<Round>,
    pub(super) begun: Option<f64>,
    /// What had to be loaded for it.
    pub(super) cold: SmallVec<[ModelKey; 2]>,
}

impl Prompt {
    pub(super) fn own(&self, key: PromptKey) -> OwnOrder {
        OwnOrder { class: self.class, number: self.number, order: self.order, prompt: key }
    }
}

/// The order of one client's prompts: ComfyUI's, within a class.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct OwnOrder {
    pub(super) class: Class,
    pub(super) number: Number,
    pub(super) order: u64,
    pub(super) prompt: PromptKey,
}

/// A turn among those of a sharer (`turns`), with the submission that it was given for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Round(pub(super) u64, pub(super) u64);

#[derive(Debug)]
pub(super) struct Client {
    pub(super) waiting: BTreeSet<OwnOrder>,
    /// As many turns as prompts that wait. The first prompt has the least, whichever that is.
    pub(super) rounds: BTreeSet<Round>,
    /// How many of its prompts are at which backends, by slot.
    pub(super) at: SmallVec<[(u16, u32); 2]>,
    /// The backend that it was given last, while it has prompts.
    pub(super) bound: Option<u16>,
    /// The backend that it had before, for ties.
    pub(super) last: Option<u16>,
    /// The backend where something else holds it; it goes nowhere else.
    pub(super) held: Option<u16>,
    /// Nothing of it is handed over for the moment.
    pub(super) is_paused: bool,
    pub(super) head: Option<Head>,
}

/// The first prompt of a client that some backend can run.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) own: OwnOrder,
    /// When it became the first.
    pub(super) since: f64,
    /// How it is listed; `None` if it may go nowhere at present.
    pub(super) listed: Option<Listed>,
}

impl Client {
    pub(super) fn new(last: Option<u16>) -> Self {
        let (waiting, rounds, at) = (BTreeSet::new(), BTreeSet::new(), SmallVec::new());
        Self { waiting, rounds, at, bound: None, last, held: None, is_paused: false, head: None }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.at.is_empty()
    }

    pub(super) fn is_at(&self, slot: u16) -> bool {
        self.at.iter().any(|(at, _)| *at == slot)
    }

    pub(super) fn goes(&mut self, slot: u16) {
        match self.at.iter_mut().find(|(at, _)| *at == slot) {
            Some((_, count)) => *count += 1,
            None => self.at.push((slot, 1)),
        }
    }

    pub(super) fn leaves(&mut self, slot: u16) {
        if let Some((_, count)) = self.at.iter_mut().find(|(at, _)| *at == slot) {
            *count = count.saturating_sub(1);
        }
        self.at.retain(|(_, count)| *count != 0);
    }
}

/// All clients with prompts, and all prompts.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) clients: HashMap<ClientKey, Client>,
    pub(super) prompts: HashMap<PromptKey, Prompt>,
    /// Prompts that wait.
    pub(super) waiting: usize,
    /// Those whose first model is this one, by its number.
    waiting_for: Vec<u32>,
}

impl Clients {
    pub(super) fn waiting_for(&self, model: ModelKey) -> u32 {
        self.waiting_for.get(model.index()).copied().unwrap_or(0)
    }

    /// One more waits, or one less, that needs these models.
    pub(super) fn count_waiting(&mut self, models: &[ModelKey], change: i32) {
        self.waiting = self.waiting.saturating_add_signed(change as isize);
        let Some(first) = models.first() else { return };
        if self.waiting_for.len() <= first.index() {
            self.waiting_for.resize(first.index() + 1, 0);
        }
        let count = &mut self.waiting_for[first.index()];
        *count = count.saturating_add_signed(change);
    }
}
