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
        // Nodes list one folder each: the inputs, or `3d` in them (0.33 `nodes_load_3d.py`).
        let folder = |name: &str| name.rsplit_once('/').map_or(0, |(folder, _)| folder.len());
        self.folder == Folder::Input
            && match texts.peek() {
                Some(_) => texts.any(|text| {
                    media_of(text) == Some(kind) && (folder(text) == 0) == (folder(name) == 0)
                }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_in_the_lists_of_the_nodes_that_take_it() {
        let takes = |input: &str, entries: &[&str], name: &str| {
            let entries = entries.iter().map(|it| (*it).to_owned()).collect();
            let (folder, input) = (Folder::Input, input.to_owned());
            FileList { folder, input, entries: vec![(0, entries)] }.takes(name)
        };
        for (input, entries, name) in [
            ("image", &["example.png"][..], "a.webp"),
            ("image", &[], "a.png"),
            ("file", &[], "film.mp4"),
            ("file", &["x.webm"], "film.mp4"),
            ("audio", &[], "film.mp4"),
            ("model_file", &["none", "3d/x.glb"], "3d/m.glb"),
            ("model_file", &[], "3d/m.glb"),
        ] {
            assert!(takes(input, entries, name), "{input} {entries:?} {name}");
        }
        for (input, entries, name) in [
            ("image", &["example.png"][..], "film.mp4"),
            ("image", &["example.png"], "3d/a.png"),
            ("image", &[], "film.mp4"),
            ("model_file", &["3d/x.glb"], "m.glb"),
            ("file", &["x.webm"], "a.png"),
        ] {
            assert!(!takes(input, entries, name), "{input} {entries:?} {name}");
        }
    }
}
