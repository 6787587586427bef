//! Notes for the journal: one function for each kind of record.

use std::sync::Arc;

use super::Journal;
use super::note::Note;
use super::record::{
    AddedRecord, AssetRecord, BindingRecord, BodyRecord, FileKey, FileRecord, FoundRecord,
    HomeRecord, MemberRecord, NameRecord, PromptRecord, StateRecord,
};
use crate::routing::ids::{AssetId, ClientId, PromptId};

impl Journal {
    /// Notes the current binding of a client; `None` if it has none any more.
    pub fn note_binding(&self, client: &ClientId, record: Option<BindingRecord>) {
        self.note(|| Note::Binding(client.clone(), record));
    }

    /// Notes the current state of a prompt; `None` deletes its record.
    pub fn note_prompt(&self, prompt: &PromptId, record: Option<PromptRecord>) {
        self.note(|| Note::Prompt(prompt.clone(), record));
    }

    /// Notes the body of a prompt that waits.
    pub fn note_body(&self, prompt: &PromptId, record: impl FnOnce() -> BodyRecord) {
        self.note(|| {
            let record = match &self.seal {
                Some(seal) => record().sealed(prompt, seal),
                None => record(),
            };
            Note::Body(prompt.clone(), Some(Box::new(record)))
        });
    }

    /// An earlier process has written so many parts of the body of a prompt.
    pub fn has_parts(&self, prompt: &PromptId, count: u32) {
        if let Some(kept) = &self.kept {
            kept.gathered().large.has_parts(prompt, count);
        }
    }

    /// The body of a prompt is not needed any more.
    pub fn forget_body(&self, prompt: &PromptId) {
        self.note(|| Note::Body(prompt.clone(), None));
    }

    /// Notes what is known of a file; `None` if it is forgotten.
    pub fn note_file(&self, key: FileKey, record: Option<FileRecord>) {
        self.note(|| Note::File(key, record));
    }

    /// Notes the operator's state for the backend of this URL; `None` if it no longer applies.
    pub fn note_state(&self, url: Arc<str>, record: Option<StateRecord>) {
        self.note(|| Note::State(url, record));
    }

    /// Notes a backend of that name that an operator added; `None` if it was removed.
    pub fn note_added(&self, name: Arc<str>, record: Option<AddedRecord>) {
        self.note(|| Note::Added(name, record));
    }

    /// Notes the backends that a discovery has found; `None` if that discovery no longer exists.
    pub fn note_found(&self, place: Arc<str>, record: Option<FoundRecord>) {
        self.note(|| Note::Found(place, record));
    }

    /// Notes the current record of the backend at this URL; `None` if it has left the fleet.
    pub fn note_member(&self, url: Arc<str>, record: Option<MemberRecord>) {
        self.note(|| Note::Member(url, record));
    }

    /// Notes for which server a name was given out; `None` if it is forgotten.
    pub fn note_name(&self, name: Arc<str>, record: Option<NameRecord>) {
        self.note(|| Note::Name(name, record));
    }

    /// Notes the current home.
    pub fn note_home(&self, record: HomeRecord) {
        self.note(|| Note::Home(record));
    }

    /// Notes what is known of an asset; `None` if it is forgotten.
    pub fn note_asset(&self, id: AssetId, record: Option<AssetRecord>) {
        self.note(|| Note::Asset(id, record));
    }
}
