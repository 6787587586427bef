//! A batch of journal changes, and the state that all batches together give.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::record::{
    AddedRecord, AssetRecord, BindingRecord, BodyRecord, FileKey, FileRecord, FoundRecord,
    HomeRecord, MemberRecord, NameRecord, PartKey, PartRecord, PromptRecord, StateRecord,
};
use crate::routing::ids::{AssetId, ClientId, PromptId};

/// Changes that are committed together; `None` deletes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub clients: Changes<ClientId, BindingRecord>,
    pub prompts: Changes<PromptId, PromptRecord>,
    /// The bodies of prompts that wait, or that no backend has accepted yet.
    pub bodies: Changes<PromptId, BodyRecord>,
    /// The parts of large bodies.
    pub parts: Changes<PartKey, PartRecord>,
    pub files: Changes<FileKey, FileRecord>,
    pub assets: Changes<AssetId, AssetRecord>,
    /// By the URL of the backend.
    pub states: Changes<Arc<str>, StateRecord>,
    /// By the name of the backend.
    pub added: Changes<Arc<str>, AddedRecord>,
    /// By the name of the discovery.
    pub found: Changes<Arc<str>, FoundRecord>,
    /// By the URL of the backend.
    pub members: Changes<Arc<str>, MemberRecord>,
    /// By the name that was given out.
    pub names: Changes<Arc<str>, NameRecord>,
    /// There is one record at most. `None` leaves it unchanged.
    pub home: Option<HomeRecord>,
}

/// Changes of records of one kind, by key.
pub(super) type Changes<K, R> = HashMap<K, Option<R>>;

impl Batch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn len(&self) -> usize {
        let Self { clients, prompts, bodies, parts, files, assets, .. } = self;
        let Self { states, added, found, members, names, home, .. } = self;
        let of_prompts = prompts.len() + bodies.len() + parts.len();
        let many = clients.len() + of_prompts + files.len() + assets.len() + names.len();
        let of_fleet = states.len() + added.len() + found.len() + members.len();
        many + of_fleet + usize::from(home.is_some())
    }

    /// The body of this prompt is deleted, with those parts of it.
    pub(super) fn forgets<'a>(
        &mut self,
        prompt: &PromptId,
        parts: impl IntoIterator<Item = &'a u32>,
    ) {
        self.bodies.insert(prompt.clone(), None);
        let key = |part: &u32| (PartKey { prompt: prompt.clone(), part: *part }, None);
        self.parts.extend(parts.into_iter().map(key));
    }

    /// The bytes of the bodies of prompts, which can be large; other records are small.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        let bodies = self.bodies.values().flatten().map(BodyRecord::len);
        bodies.chain(self.parts.values().flatten().map(PartRecord::len)).sum()
    }

    /// Merges an earlier batch that was not committed. Later notes win.
    pub(super) fn put_under(&mut self, earlier: &Self) {
        let Self { clients, prompts, bodies, parts, files, assets, .. } = earlier;
        let Self { states, added, found, members, names, home, .. } = earlier;
        under(&mut self.bodies, bodies);
        under(&mut self.parts, parts);
        under(&mut self.clients, clients);
        under(&mut self.prompts, prompts);
        under(&mut self.files, files);
        under(&mut self.assets, assets);
        under(&mut self.states, states);
        under(&mut self.added, added);
        under(&mut self.found, found);
        under(&mut self.members, members);
        under(&mut self.names, names);
        if self.home.is_none() {
            self.home.clone_from(home);
        }
    }
}

/// The parts of bodies, by prompt and number.
pub(super) fn by_prompt(
    parts: Vec<(PartKey, PartRecord)>,
) -> HashMap<PromptId, BTreeMap<u32, PartRecord>> {
    let mut all: HashMap<PromptId, BTreeMap<u32, PartRecord>> = HashMap::new();
    for (PartKey { prompt, part }, record) in parts {
        all.entry(prompt).or_default().insert(part, record);
    }
    all
}

fn under<K: Clone + Eq + Hash, R: Clone>(later: &mut Changes<K, R>, earlier: &Changes<K, R>) {
    for (key, record) in earlier {
        later.entry(key.clone()).or_insert_with(|| record.clone());
    }
}

/// Everything that the store contains.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    pub clients: Vec<(ClientId, BindingRecord)>,
    pub prompts: Vec<(PromptId, PromptRecord)>,
    pub bodies: Vec<(PromptId, BodyRecord)>,
    pub parts: Vec<(PartKey, PartRecord)>,
    pub files: Vec<(FileKey, FileRecord)>,
    pub assets: Vec<(AssetId, AssetRecord)>,
    pub states: Vec<(Arc<str>, StateRecord)>,
    pub added: Vec<(Arc<str>, AddedRecord)>,
    pub found: Vec<(Arc<str>, FoundRecord)>,
    pub members: Vec<(Arc<str>, MemberRecord)>,
    pub names: Vec<(Arc<str>, NameRecord)>,
    pub home: Option<HomeRecord>,
}

impl Saved {
    /// True if the journal has no records of anybody's work: nothing was ever written, or all of it
    /// is gone. The list of backends and the home do not count, because they are noted at each
    /// start.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { clients, prompts, files, assets, states, added, found, names, .. } = self;
        let things = [clients.len(), prompts.len(), files.len(), assets.len(), names.len()];
        things.iter().chain(&[states.len(), added.len(), found.len()]).all(|count| *count == 0)
    }

    /// Puts bodies together that were written in parts. A kill may have left parts of one that is
    /// not whole: that one is dropped. Returns how many parts there are of each.
    pub fn join_parts(&mut self) -> HashMap<PromptId, u32> {
        let parts = by_prompt(std::mem::take(&mut self.parts));
        let none = BTreeMap::new();
        let bodies = std::mem::take(&mut self.bodies).into_iter();
        let whole = bodies.filter_map(|(prompt, record)| {
            let record = record.whole(parts.get(&prompt).unwrap_or(&none))?;
            Some((prompt, record))
        });
        self.bodies = whole.collect();
        let count = |parts: BTreeMap<u32, _>| parts.last_key_value().map_or(0, |(it, _)| it + 1);
        parts.into_iter().map(|(prompt, parts)| (prompt, count(parts))).collect()
    }

    /// The state after a batch, for stores that keep a list of batches.
    #[must_use]
    pub fn after(mut self, batch: &Batch) -> Self {
        let Batch { clients, prompts, bodies, parts, files, assets, .. } = batch;
        let Batch { states, added, found, members, names, home, .. } = batch;
        over(&mut self.bodies, bodies);
        over(&mut self.parts, parts);
        over(&mut self.clients, clients);
        over(&mut self.prompts, prompts);
        over(&mut self.files, files);
        over(&mut self.assets, assets);
        over(&mut self.states, states);
        over(&mut self.added, added);
        over(&mut self.found, found);
        over(&mut self.members, members);
        over(&mut self.names, names);
        self.home = home.clone().or(self.home);
        self
    }
}

fn over<K: Clone + Eq + Hash, R: Clone>(saved: &mut Vec<(K, R)>, changes: &Changes<K, R>) {
    saved.retain(|(key, _)| !changes.contains_key(key));
    let now = changes.iter().filter_map(|(key, record)| Some((key.clone(), record.clone()?)));
    saved.extend(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(name: &str, record: Option<u64>) -> Batch {
        let mut batch = Batch::default();
        let record = record.map(|since| BindingRecord::new("a", "h:1", since, None));
        batch.clients.insert(ClientId::parse(name).unwrap(), record);
        batch
    }

    #[test]
    fn what_was_noted_later_counts_and_what_is_deleted_is_gone() {
        let mut later = batch("ada", None);
        let mut earlier = batch("ada", Some(1));
        earlier.clients.extend(batch("bob", Some(2)).clients);
        later.put_under(&earlier);
        assert_eq!(later.len(), 2);
        let saved = Saved::default().after(&batch("ada", Some(5))).after(&later);
        let names: Vec<&str> = saved.clients.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(names, ["bob"]);
    }

    #[test]
    fn a_journal_that_knows_only_the_fleet_knows_of_no_work() {
        let mut batch = Batch::default();
        let member = MemberRecord::new("a".into(), serde_json::json!({}), "configuration".into());
        batch.members.insert("h:1".into(), Some(member));
        assert!(!batch.is_empty() && Saved::default().after(&batch).is_empty());
    }
}
