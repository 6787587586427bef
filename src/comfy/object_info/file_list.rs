//! A list of files in what servers say about their nodes.

use std::collections::HashSet;

use super::super::strings::media_of;
use super::super::walk::quote;
use super::Entry;
use crate::routing::ids::Folder;
use crate::routing::user_folder::UserFolder;

/// A list of files, with the entries of all servers.
#[derive(Debug)]
pub(super) struct FileList {
    pub(super) folder: Folder,
    /// The name of the input.
    pub(super) input: String,
    /// By server; those of the first server come first.
    pub(super) entries: Vec<(usize, Vec<String>)>,
}

impl FileList {
    pub(super) fn files(&self) -> impl Iterator<Item = Entry<'_>> {
        let entry = |server: usize, text| Entry { server, folder: self.folder, text };
        let texts = self.entries.iter().flat_map(|(server, texts)| {
            let files = texts.iter().map(String::as_str).filter(|text| names_file(text));
            files.map(move |text| (*server, text))
        });
        texts.map(move |(server, text)| entry(server, text))
    }

    /// True for a list of inputs in which a file of this name belongs: there are others of its
    /// kind, or the input is called so.
    fn takes(&self, name: &str) -> bool {
        let Some(kind) = media_of(name) else { return false };
        let mut texts = self.entries.iter().flat_map(|(_, texts)| texts).peekable();
        self.folder == Folder::Input
            && match texts.peek() {
                Some(_) => texts.any(|text| media_of(text) == Some(kind)),
                None => kind.is_of_input(&self.input),
            }
    }

    pub(super) fn told<'n>(
        &self,
        names: &mut impl Iterator<Item = &'n Option<String>>,
        uploads: &[String],
    ) -> String {
        let mut known = HashSet::new();
        let mut told = Vec::new();
        for text in self.entries.iter().flat_map(|(_, texts)| texts) {
            // Entries such as `none` stay.
            let shown = match names_file(text) {
                true => names.next().and_then(Option::as_deref),
                false => Some(text.as_str()),
            };
            if let Some(shown) = shown.filter(|shown| known.insert(shown.to_string())) {
                told.push(quote(shown));
            }
        }
        let uploads = uploads.iter().filter(|name| self.takes(name));
        told.extend(uploads.filter(|name| known.insert((*name).clone())).map(|name| quote(name)));
        format!("[{}]", told.join(", "))
    }
}

fn names_file(text: &str) -> bool {
    text.contains('.') || UserFolder::is_in(text)
}
