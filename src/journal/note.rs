//! A single change for the journal, and how it enters a batch.

use std::sync::Arc;

use super::Gathered;
use super::large::PART;
use super::record::{
    AddedRecord, AssetRecord, Batch, BindingRecord, BodyRecord, FileKey, FileRecord, FoundRecord,
    HomeRecord, MemberRecord, NameRecord, PromptRecord, StateRecord,
};
use crate::routing::ids::{AssetId, ClientId, PromptId};

/// A change of one record.
#[derive(Debug)]
pub(super) enum Note {
    Binding(ClientId, Option<BindingRecord>),
    Prompt(PromptId, Option<PromptRecord>),
    Body(PromptId, Option<Box<BodyRecord>>),
    File(FileKey, Option<FileRecord>),
    State(Arc<str>, Option<StateRecord>),
    Asset(AssetId, Option<AssetRecord>),
    Added(Arc<str>, Option<AddedRecord>),
    Found(Arc<str>, Option<FoundRecord>),
    Member(Arc<str>, Option<MemberRecord>),
    Name(Arc<str>, Option<NameRecord>),
    Home(HomeRecord),
}

impl Gathered {
    /// A large body goes in by parts.
    pub(super) fn put(&mut self, note: Note) {
        if let Note::Body(prompt, None) = &note {
            self.large.forget(prompt, &mut self.batch);
        }
        let is_large = matches!(&note, Note::Body(_, Some(it)) if PART < it.text().len());
        if is_large && let Note::Body(prompt, Some(record)) = note {
            return self.large.put(prompt, *record);
        }
        self.batch.put(note);
    }
}

impl Batch {
    pub(super) fn put(&mut self, note: Note) {
        match note {
            Note::Binding(client, record) => drop(self.clients.insert(client, record)),
            Note::Prompt(prompt, record) => drop(self.prompts.insert(prompt, record)),
            Note::Body(prompt, record) => {
                drop(self.bodies.insert(prompt, record.map(|record| *record)));
            }
            Note::File(key, record) => drop(self.files.insert(key, record)),
            Note::State(url, record) => drop(self.states.insert(url, record)),
            Note::Asset(id, record) => drop(self.assets.insert(id, record)),
            Note::Added(name, record) => drop(self.added.insert(name, record)),
            Note::Found(name, record) => drop(self.found.insert(name, record)),
            Note::Member(url, record) => drop(self.members.insert(url, record)),
            Note::Name(name, record) => drop(self.names.insert(name, record)),
            Note::Home(record) => self.home = Some(record),
        }
    }
}
