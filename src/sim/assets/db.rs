//! The database of assets: contents by their hash, and references to them (`app/assets/database`,
//! `app/assets/services/ingest.py`). It survives a crash.

use std::collections::BTreeSet;

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::super::state::{FileKind, Files};
use super::blake3;
use super::time::micros;
use crate::net::new_id;

/// Where a reference has its file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    File(FileKind, String),
    /// In a folder of models.
    Model(String, String),
}

impl Place {
    /// The path below its folder.
    pub(super) fn path(&self) -> &str {
        match self {
            Self::File(_, path) | Self::Model(_, path) => path,
        }
    }

    /// Tags that follow from the place of the file (`path_utils.py`).
    pub(super) fn tags(&self) -> Vec<String> {
        match self {
            Self::Model(folder, _) => vec!["models".to_owned(), format!("model_type:{folder}")],
            Self::File(kind, path) => {
                let mut tags = vec![kind.as_str().to_owned()];
                let known = ["3d", "pasted", "painter", "threed", "webcam"];
                if let Some((folder, _)) = path.rsplit_once('/')
                    && *kind == FileKind::Input
                    && known.contains(&folder)
                {
                    tags.push(folder.to_owned());
                }
                tags
            }
        }
    }
}

/// A known content.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) hash: Option<String>,
    pub(super) size: usize,
    pub(super) mime: Option<String>,
}

/// One asset, as clients see it.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) id: String,
    pub(super) content: usize,
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) place: Option<Place>,
    pub(super) preview: Option<String>,
    pub(super) user_metadata: Map<String, Value>,
    pub(super) system_metadata: Option<Map<String, Value>>,
    pub(super) job: Option<String>,
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) accessed: u64,
    pub(super) is_deleted: bool,
    pub(super) is_missing: bool,
    pub(super) tags: BTreeSet<String>,
}

impl Reference {
    pub(super) fn is_visible_to(&self, owner: &str) -> bool {
        self.owner.is_empty() || self.owner == owner
    }
}

/// The fields of a new asset.
#[derive(Debug, Default)]
pub(super) struct New {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) tags: Vec<String>,
    pub(super) user_metadata: Map<String, Value>,
    pub(super) mime: Option<String>,
    pub(super) preview: Option<String>,
}

#[derive(Debug, Default)]
pub(in crate::sim) struct Database {
    pub(super) contents: Vec<Content>,
    pub(super) references: IndexMap<String, Reference>,
    pub(super) tags: BTreeSet<String>,
    pub(super) models: Vec<(Place, Bytes)>,
    /// How many files the last scan saw, and how many were new.
    pub(super) scanned: Option<(usize, usize)>,
}

impl Database {
    pub(super) fn content(&self, hash: &str) -> Option<usize> {
        self.contents.iter().position(|content| content.hash.as_deref() == Some(hash))
    }

    /// The content of a file.
    pub(super) fn bytes(&self, files: &Files, place: &Place) -> Option<Bytes> {
        match place {
            Place::File(kind, path) => files.get(*kind, path).map(|file| file.bytes.clone()),
            Place::Model(..) => {
                self.models.iter().find(|(at, _)| at == place).map(|(_, bytes)| bytes.clone())
            }
        }
    }

    /// `_ingest_file_from_path`: hashes the file and records its hash. Returns the id.
    pub(super) fn ingest(&mut self, place: &Place, bytes: &Bytes, new: New) -> String {
        let now = micros();
        let hash = format!("blake3:{}", blake3::hex(bytes));
        let content = self.content(&hash).unwrap_or_else(|| {
            let (size, mime) = (bytes.len(), new.mime.clone());
            self.contents.push(Content { hash: Some(hash), size, mime });
            self.contents.len() - 1
        });
        let known = self.at(place).map(|it| it.id.clone());
        let id = known.unwrap_or_else(|| {
            let reference = self.blank(content, Some(place.clone()), &new.name, &new.owner);
            self.insert(reference)
        });
        let tags: Vec<String> = place.tags().into_iter().chain(new.tags).collect();
        self.tags.extend(tags.iter().cloned());
        let preview = new.preview.filter(|preview| self.references.contains_key(preview));
        let mime = new.mime.unwrap_or_default();
        let Some(reference) = self.references.get_mut(&id) else { return id };
        if reference.content != content || reference.is_missing || reference.is_deleted {
            (reference.content, reference.updated) = (content, now);
            (reference.is_missing, reference.is_deleted) = (false, false);
        }
        reference.tags.remove("missing");
        reference.tags.extend(tags);
        reference.preview = preview.or(reference.preview.take());
        reference.user_metadata.extend(new.user_metadata);
        reference.user_metadata.insert("filename".to_owned(), json!(place.path()));
        if let Some((width, height)) = size_of(bytes).filter(|_| mime.starts_with("image/")) {
            let metadata = reference.system_metadata.get_or_insert_with(Map::new);
            metadata.insert("kind".to_owned(), json!("image"));
            metadata.insert("width".to_owned(), json!(width));
            metadata.insert("height".to_owned(), json!(height));
        }
        id
    }

    /// `_register_existing_asset`: adds a reference to a known content. Returns the id.
    pub(super) fn refer(&mut self, hash: &str, new: New) -> Option<String> {
        let content = self.content(hash)?;
        if let (Some(mime), known @ None) = (&new.mime, &mut self.contents[content].mime) {
            *known = Some(mime.clone());
        }
        let mut reference = self.blank(content, None, &new.name, &new.owner);
        reference.preview = new.preview.filter(|it| self.references.contains_key(it));
        reference.user_metadata = new.user_metadata;
        reference.tags = new.tags.iter().cloned().collect();
        let siblings = self.references.values().filter(|it| it.content == content);
        let mut known = siblings.filter_map(|it| it.system_metadata.clone());
        reference.system_metadata = known.find(|it| it.get("kind") == Some(&json!("image")));
        self.tags.extend(new.tags);
        Some(self.insert(reference))
    }

    /// `register_output_files`: the files of a prompt that ended become its assets. It is not known
    /// whether they were overwritten, so their hash is not known either.
    pub(super) fn ended(&mut self, place: &Place, size: usize, job: &str) {
        if self.at(place).is_none() {
            self.stub(place, size);
        }
        let Some(id) = self.at(place).map(|it| it.id.clone()) else { return };
        let content = self.references[&id].content;
        let has_siblings = self
            .references
            .values()
            .any(|it| it.content == content && it.id != id && !it.is_deleted);
        let mime = self.contents[content].mime.clone();
        let bare = Content { hash: None, size, mime };
        let content = if has_siblings {
            self.contents.push(bare);
            self.contents.len() - 1
        } else {
            self.contents[content] = bare;
            content
        };
        if let Some(reference) = self.references.get_mut(&id) {
            reference.content = content;
            (reference.job, reference.updated) = (Some(job.to_owned()), micros());
            (reference.is_deleted, reference.is_missing) = (false, false);
        }
    }

    /// Scans for files that are not registered, and for those that are gone or back.
    pub(in crate::sim) fn scan(&mut self, files: &Files) {
        let mut there: Vec<(Place, usize)> = Vec::new();
        for kind in [FileKind::Input, FileKind::Output] {
            let all = files.all(kind).into_iter();
            there.extend(all.map(|(path, size)| (Place::File(kind, path), size)));
        }
        there.extend(self.models.iter().map(|(place, bytes)| (place.clone(), bytes.len())));
        let mut created = 0;
        for (place, size) in &there {
            if self.at(place).is_none() {
                self.stub(place, *size);
                created += 1;
            }
        }
        let missing = "missing".to_owned();
        for reference in self.references.values_mut() {
            let Some(place) = &reference.place else { continue };
            let is_temp = matches!(place, Place::File(FileKind::Temp, _));
            reference.is_missing = !is_temp && !there.iter().any(|(it, _)| it == place);
            if reference.is_missing {
                self.tags.insert(missing.clone());
                reference.tags.insert(missing.clone());
            } else {
                reference.tags.remove(&missing);
            }
        }
        self.scanned = Some((there.len(), created));
    }

    /// Registers a file by its name only.
    fn stub(&mut self, place: &Place, size: usize) {
        let name = place.path().rsplit('/').next().unwrap_or_default().to_owned();
        let mime = mime_of(&name).map(str::to_owned);
        self.contents.push(Content { hash: None, size, mime });
        let mut reference = self.blank(self.contents.len() - 1, Some(place.clone()), &name, "");
        reference.tags = place.tags().into_iter().collect();
        reference.user_metadata.insert("filename".to_owned(), json!(place.path()));
        self.tags.extend(place.tags());
        self.insert(reference);
    }

    fn blank(&self, content: usize, place: Option<Place>, name: &str, owner: &str) -> Reference {
        let now = micros();
        Reference {
            id: new_id().to_string(),
            content,
            owner: owner.to_owned(),
            name: name.to_owned(),
            place,
            preview: None,
            user_metadata: Map::new(),
            system_metadata: None,
            job: None,
            created: now,
            updated: now,
            accessed: now,
            is_deleted: false,
            is_missing: false,
            tags: BTreeSet::new(),
        }
    }

    fn insert(&mut self, reference: Reference) -> String {
        let id = reference.id.clone();
        self.references.insert(id.clone(), reference);
        id
    }

    fn at(&self, place: &Place) -> Option<&Reference> {
        self.references.values().find(|it| it.place.as_ref() == Some(place))
    }
}

/// Width and height of a PNG.
fn size_of(bytes: &[u8]) -> Option<(u32, u32)> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return None;
    }
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some((number(16)?, number(20)?))
}

/// `mimetypes.guess_type`.
pub(super) fn mime_of(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "txt" => "text/plain",
        "json" => "application/json",
        "html" => "text/html",
        "mp4" => "video/mp4",
        "wav" => "audio/x-wav",
        "safetensors" => "application/safetensors",
        _ => return None,
    })
}
