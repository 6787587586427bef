//! The first prompt of each client, in the order in which they may be handed over.
//!
//! A decision reads the first entry of each shape, and never all that wait. When what a sharer has
//! used changes, one entry moves for each shape and scope that it has heads of, however many
//! clients it has: who makes a client for each prompt gains nothing by it and costs nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ids::{ClientKey, Number, ShapeId, SharerKey};

/// Where a head may go.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Scope {
    Any,
    /// To the backend in this slot.
    At(u16),
}

/// The place of a head among those of its sharer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rank {
    /// The rank of its class; ageing lowers it.
    pub(super) class: u8,
    /// The turn of whoever shares the share.
    pub(super) round: u64,
    /// The order of submission.
    pub(super) order: u64,
    pub(super) client: ClientKey,
}

/// The key of a head among those of all sharers, least first.
///
/// The prompt's `number` is not in it: it orders a client's own prompts and moves nobody else.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Entry {
    pub(super) class: u8,
    pub(super) fair: Number,
    pub(super) round: u64,
    pub(super) order: u64,
    pub(super) client: ClientKey,
    pub(super) sharer: SharerKey,
}

/// One head, as it is listed.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) sharer: SharerKey,
    pub(super) rank: Rank,
    pub(super) shape: ShapeId,
    pub(super) scopes: Vec<Scope>,
}

#[derive(Debug, Default)]
pub(super) struct Order {
    sharers: HashMap<SharerKey, Heads>,
    scopes: BTreeMap<Scope, BTreeMap<ShapeId, BTreeSet<Entry>>>,
    /// The first of each sharer.
    firsts: BTreeSet<Entry>,
}

#[derive(Debug)]
struct Heads {
    fair: Number,
    all: BTreeSet<Rank>,
    by: BTreeMap<(Scope, ShapeId), BTreeSet<Rank>>,
}

impl Heads {
    fn entry(&self, sharer: SharerKey, ranks: &BTreeSet<Rank>) -> Option<Entry> {
        let Rank { class, round, order, client } = *ranks.first()?;
        Some(Entry { class, fair: self.fair, round, order, client, sharer })
    }
}

impl Order {
    /// The least key of all, whether there is room for it or not.
    pub(super) fn first(&self) -> Option<Entry> {
        self.firsts.first().copied()
    }

    /// The first of each shape that may go there.
    pub(super) fn heads(&self, scope: Scope) -> impl Iterator<Item = (ShapeId, Entry)> + '_ {
        let shapes = self.scopes.get(&scope).into_iter().flatten();
        shapes.filter_map(|(shape, entries)| Some((*shape, *entries.first()?)))
    }

    /// How many heads a decision may read.
    pub(super) fn listed(&self) -> usize {
        self.scopes.values().map(BTreeMap::len).sum()
    }

    pub(super) fn insert(&mut self, head: &Listed, fair: f64) {
        let new = || Heads { fair: Number(fair), all: BTreeSet::new(), by: BTreeMap::new() };
        let mut heads = self.sharers.remove(&head.sharer).unwrap_or_else(new);
        self.change(&mut heads, head, |ranks, rank| {
            ranks.insert(rank);
        });
        self.sharers.insert(head.sharer, heads);
    }

    pub(super) fn remove(&mut self, head: &Listed) {
        let Some(mut heads) = self.sharers.remove(&head.sharer) else { return };
        self.change(&mut heads, head, |ranks, rank| {
            ranks.remove(&rank);
        });
        heads.by.retain(|_, ranks| !ranks.is_empty());
        if !heads.all.is_empty() {
            self.sharers.insert(head.sharer, heads);
        }
    }

    /// The fair part of the keys of a sharer is another one.
    pub(super) fn rekey(&mut self, sharer: SharerKey, fair: f64) {
        let Some(mut heads) = self.sharers.remove(&sharer) else { return };
        let before = heads.fair;
        heads.fair = Number(fair);
        if before != heads.fair {
            for (place, ranks) in &heads.by {
                let entry = heads.entry(sharer, ranks);
                self.replace(*place, entry.map(|it| Entry { fair: before, ..it }), entry);
            }
            let entry = heads.entry(sharer, &heads.all);
            self.replace_first(entry.map(|it| Entry { fair: before, ..it }), entry);
        }
        self.sharers.insert(sharer, heads);
    }

    fn change(
        &mut self,
        heads: &mut Heads,
        head: &Listed,
        change: impl Fn(&mut BTreeSet<Rank>, Rank),
    ) {
        for scope in &head.scopes {
            let place = (*scope, head.shape);
            let mut ranks = heads.by.remove(&place).unwrap_or_default();
            let before = heads.entry(head.sharer, &ranks);
            change(&mut ranks, head.rank);
            self.replace(place, before, heads.entry(head.sharer, &ranks));
            heads.by.insert(place, ranks);
        }
        let before = heads.entry(head.sharer, &heads.all);
        change(&mut heads.all, head.rank);
        self.replace_first(before, heads.entry(head.sharer, &heads.all));
    }

    fn replace(
        &mut self,
        (scope, shape): (Scope, ShapeId),
        old: Option<Entry>,
        new: Option<Entry>,
    ) {
        if old == new {
            return;
        }
        let shapes = self.scopes.entry(scope).or_default();
        let entries = shapes.entry(shape).or_default();
        if let Some(old) = old {
            entries.remove(&old);
        }
        entries.extend(new);
        if entries.is_empty() {
            shapes.remove(&shape);
        }
        if shapes.is_empty() {
            self.scopes.remove(&scope);
        }
    }

    fn replace_first(&mut self, old: Option<Entry>, new: Option<Entry>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.firsts.remove(&old);
        }
        self.firsts.extend(new);
    }
}
