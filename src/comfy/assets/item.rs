//! One asset in a server's answer (ComfyUI 0.33 `app/assets/api/schemas_out.py`): its file, and the
//! file names in it that clients see.

use std::ops::Range;

use serde::Deserialize;

use super::query::Sort;
use crate::comfy::files;
use crate::comfy::names::tagged;
use crate::comfy::query::with_parameter;
use crate::comfy::walk::{Level, Visit, quote, replaced, text_at, walk};
use crate::routing::ids::{AssetId, ContentHash, FileRef, Folder};

/// The tag of model files.
const MODELS: &str = "models";

/// The fields of an asset that are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    pub id: AssetId,
    pub hash: Option<ContentHash>,
    /// The prompt that made it.
    pub job: Option<String>,
    /// The asset's file; `None` if it is a model or has no file.
    pub file: Option<FileRef>,
    pub tags: Vec<String>,
    told: Told,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
struct Told {
    id: String,
    name: String,
    hash: Option<String>,
    display_name: Option<String>,
    size: Option<u64>,
    tags: Vec<String>,
    preview_url: Option<String>,
    preview_id: Option<String>,
    job_id: Option<String>,
    created_at: String,
    updated_at: String,
    last_access_time: Option<String>,
}

/// The sort key of an asset in a list. An asset without a value sorts below all others (SQLite).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Key {
    None,
    Number(u64),
    Text(String),
}

impl Item {
    /// `None` if it is not an asset.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        let mut told: Told = serde_json::from_slice(json).ok()?;
        Some(Self {
            id: AssetId::parse(&told.id)?,
            hash: told.hash.as_deref().and_then(ContentHash::parse),
            job: told.job_id.take(),
            file: file_of(&told),
            tags: std::mem::take(&mut told.tags),
            told,
        })
    }

    #[must_use]
    pub fn is_model(&self) -> bool {
        self.tags.iter().any(|tag| tag == MODELS)
    }

    /// The id as the server wrote it. It decides between equal sort keys.
    #[must_use]
    pub fn id_text(&self) -> &str {
        &self.told.id
    }

    #[must_use]
    pub fn key(&self, sort: Sort) -> Key {
        let moment = |text: &str| micros(text).map_or(Key::None, Key::Number);
        match sort {
            Sort::Name => Key::Text(self.told.name.clone()),
            Sort::CreatedAt => moment(&self.told.created_at),
            Sort::UpdatedAt => moment(&self.told.updated_at),
            Sort::LastAccessTime => moment(self.told.last_access_time.as_deref().unwrap_or("")),
            Sort::Size => self.told.size.map_or(Key::None, Key::Number),
        }
    }
}

/// Finds the file of an asset. Its own preview URL names it; otherwise its tags name the folder,
/// and its display name gives the path in it.
fn file_of(told: &Told) -> Option<FileRef> {
    let own = told.preview_url.as_ref().filter(|_| told.preview_id.is_none());
    if let Some((_, query)) = own.and_then(|url| url.split_once('?')) {
        return files::of_query(query).map(|view| view.file);
    }
    let path = told.display_name.as_deref()?;
    if told.tags.iter().any(|tag| tag == MODELS) {
        return None;
    }
    let folder = told.tags.iter().find_map(|tag| Folder::parse(tag))?;
    FileRef::of_path(folder, path)
}

/// Parses a time in UTC as `isoformat` writes it, to microseconds since 1970.
fn micros(text: &str) -> Option<u64> {
    let number = |at: Range<usize>| text.get(at)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let fraction: String = match text.get(19..)?.strip_prefix('.') {
        Some(rest) => rest.chars().take_while(char::is_ascii_digit).take(6).collect(),
        None => String::new(),
    };
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    // Hinnant's algorithm `days_from_civil`.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    u64::try_from(seconds * 1_000_000 + fraction).ok()
}

/// The ids of assets in the outputs of nodes and in answers to uploads, with their files. In
/// outputs the `id` stands beside a file's name (`comfy_execution/asset_enrichment.py`); in answers
/// to uploads it stands in `asset` (`server.py`, `image_upload`), which also has a hash.
#[must_use]
pub fn told_in(json: &[u8]) -> Vec<(AssetId, FileRef, Option<ContentHash>)> {
    // Most servers keep no assets.
    if memchr::memmem::find(json, b"\"id\"").is_none() {
        return Vec::new();
    }
    let mut ids = Ids { json, open: Vec::new(), found: Vec::new() };
    walk(json, &mut ids);
    ids.found
}

struct Ids<'a> {
    json: &'a [u8],
    open: Vec<Members>,
    found: Vec<(AssetId, FileRef, Option<ContentHash>)>,
}

#[derive(Default)]
struct Members {
    id: Option<AssetId>,
    hash: Option<ContentHash>,
    filename: Option<String>,
    /// The file name in the answer to an upload.
    name: Option<String>,
    folder: Option<Folder>,
    subfolder: String,
    asset: Option<(AssetId, Option<ContentHash>)>,
}

impl Visit for Ids<'_> {
    fn opened(&mut self, _levels: &[Level<'_>]) {
        self.open.push(Members::default());
    }

    fn closed(&mut self, levels: &[Level<'_>]) {
        let Some(members) = self.open.pop() else { return };
        let file = |name: Option<&String>| FileRef::new(members.folder?, &members.subfolder, name?);
        if let (Some(id), Some(file)) = (members.id, file(members.filename.as_ref())) {
            self.found.push((id, file, None));
        } else if let (Some((id, hash)), Some(file)) = (members.asset, file(members.name.as_ref()))
        {
            self.found.push((id, file, hash));
        }
        let is_asset = levels.len().checked_sub(2).and_then(|at| levels[at].key);
        if let (Some(b"asset"), Some(above), Some(id)) =
            (is_asset, self.open.last_mut(), members.id)
        {
            above.asset = Some((id, members.hash));
        }
    }

    fn text(&mut self, levels: &[Level<'_>], at: Range<usize>) {
        let (Some(members), Some(level)) = (self.open.last_mut(), levels.last()) else { return };
        let Some(text) = text_at(self.json, at) else { return };
        match level.key {
            Some(b"id") => members.id = AssetId::parse(&text),
            Some(b"asset_hash") => members.hash = ContentHash::parse(&text),
            Some(b"filename") => members.filename = Some(text.into_owned()),
            Some(b"name") => members.name = Some(text.into_owned()),
            Some(b"type") => members.folder = Folder::parse(&text),
            Some(b"subfolder") => members.subfolder = text.into_owned(),
            Some(_) | None => {}
        }
    }
}

/// The same asset, with a backend's name added to file names for which `backend_of` gives one: in
/// the URL of its preview, and in the values for loaders. `None` if it gives none. The asset's name
/// and display name are labels, and stay unchanged.
#[must_use]
pub fn with_backends<'a>(
    json: &[u8],
    own: Option<&FileRef>,
    backend_of: impl FnMut(&FileRef) -> Option<&'a str>,
) -> Option<Vec<u8>> {
    let mut names = Names { json, own, backend_of, parts: Vec::new() };
    walk(json, &mut names);
    let parts = names.parts;
    (!parts.is_empty()).then(|| replaced(json, &parts))
}

struct Names<'a, F> {
    json: &'a [u8],
    own: Option<&'a FileRef>,
    backend_of: F,
    parts: Vec<(Range<usize>, String)>,
}

impl<'b, F: FnMut(&FileRef) -> Option<&'b str>> Visit for Names<'_, F> {
    fn text(&mut self, levels: &[Level<'_>], at: Range<usize>) {
        let keys = (levels.first().and_then(|it| it.key), levels.get(1).and_then(|it| it.key));
        let Some(text) = text_at(self.json, at.clone()) else { return };
        let renamed = match (levels.len(), keys) {
            (1, (Some(b"preview_url"), _)) => self.url(&text),
            (1, (Some(b"loader_path"), _))
            | (2, (Some(b"user_metadata" | b"metadata"), Some(b"filename"))) => self.path(&text),
            (_, _) => None,
        };
        if let Some(renamed) = renamed {
            self.parts.push((at, quote(&renamed)));
        }
    }
}

impl<'b, F: FnMut(&FileRef) -> Option<&'b str>> Names<'_, F> {
    fn url(&mut self, url: &str) -> Option<String> {
        let (path, query) = url.split_once('?')?;
        let view = files::of_query(query)?;
        let backend = (self.backend_of)(&view.file)?;
        let subfolder = tagged(view.file.subfolder(), backend);
        Some(format!("{path}?{}", with_parameter(query, "subfolder", &subfolder)))
    }

    fn path(&mut self, path: &str) -> Option<String> {
        let own = self.own.filter(|own| own.path() == path)?;
        let backend = (self.backend_of)(own)?;
        Some(format!("{}/{}", tagged(own.subfolder(), backend), own.filename()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    fn item(json: &str) -> Item {
        Item::read(json.replace("ID", ID).as_bytes()).unwrap()
    }

    fn output(path: &str) -> FileRef {
        FileRef::of_path(Folder::Output, path).unwrap()
    }

    #[test]
    fn an_asset_says_which_file_it_is() {
        let seen = item(
            r#"{"id": "ID", "name": "label", "tags": ["output"], "job_id": "p",
            "preview_url": "/api/view?type=output&filename=a%20b.png&subfolder=x%2Fy"}"#,
        );
        assert_eq!((seen.file, seen.job.as_deref()), (Some(output("x/y/a b.png")), Some("p")));
        let mesh = item(r#"{"id": "ID", "tags": ["mine", "output"], "display_name": "3d/x.glb"}"#);
        assert_eq!(mesh.file, Some(output("3d/x.glb")));
        // A preview that was nominated is a different file.
        let other = r#"{"id": "ID", "tags": ["output"], "display_name": "x.glb", "preview_id": "ID",
            "preview_url": "/api/view?type=output&filename=p.png"}"#;
        assert_eq!(item(other).file, Some(output("x.glb")));
        let model = r#"{"id": "ID", "tags": ["input", "models"], "display_name": "vae/x.pt"}"#;
        assert_eq!((item(model).file, item(model).is_model()), (None, true));
        assert_eq!(item(r#"{"id": "ID"}"#).file, None);
        for junk in ["", "{}", "[]", r#"{"id": "x"}"#, r#"{"id": "ID", "tags": 1}"#] {
            assert_eq!(Item::read(junk.replace("ID", ID).as_bytes()), None, "{junk}");
        }
    }

    #[test]
    fn moments_are_sorted_as_moments() {
        let key = |text: &str| {
            item(&format!(r#"{{"id": "ID", "created_at": "{text}"}}"#)).key(Sort::CreatedAt)
        };
        assert_eq!(key("1970-01-01T00:00:00"), Key::Number(0));
        assert_eq!(key("2026-02-28T23:59:59.000001"), Key::Number(1_772_323_199_000_001));
        assert_eq!(key("2024-02-29T00:00:00.5+00:00"), Key::Number(1_709_164_800_500_000));
        assert_eq!(key("soon"), Key::None);
        assert!(Key::None < Key::Number(0));
    }

    #[test]
    fn ids_stand_beside_the_names_of_files() {
        let id = AssetId::parse(ID).unwrap();
        let text = r#"{"output": {"images": [{"filename": "a.png", "subfolder": "x", "type":
            "output", "id": "ID"}, {"filename": "b.png", "type": "output"}, {"id": "ID"}]}}"#;
        let told = [(id, output("x/a.png"), None)];
        assert_eq!(told_in(text.replace("ID", ID).as_bytes()), told);
        let hash = format!("blake3:{}", "0a".repeat(32));
        let text = r#"{"name": "a.png", "subfolder": "", "type": "output", "asset": {"id": "ID",
            "name": "a.png", "asset_hash": "HASH", "tags": ["output"]}}"#;
        let text = text.replace("ID", ID).replace("HASH", &hash);
        let told = [(id, output("a.png"), ContentHash::parse(&hash))];
        assert_eq!(told_in(text.as_bytes()), told);
        assert_eq!(told_in(b"{\"id\": {"), []);
    }

    #[test]
    fn names_get_their_backend_and_labels_stay() {
        let json = r#"{"name": "a.png", "display_name": "x/a.png", "loader_path": "x/a.png",
            "preview_url": "/api/view?type=output&filename=a.png&subfolder=x",
            "user_metadata": {"filename": "x/a.png", "y": {"filename": "x/a.png"}}}"#;
        let expected = json
            .replace(r#""loader_path": "x/a.png""#, r#""loader_path": "x/~gpu-b/a.png""#)
            .replace("subfolder=x", "subfolder=x%2F~gpu-b")
            .replace(r#"{"filename": "x/a.png", "y""#, r#"{"filename": "x/~gpu-b/a.png", "y""#);
        let own = output("x/a.png");
        let named = with_backends(json.as_bytes(), Some(&own), |_| Some("gpu-b")).unwrap();
        assert_eq!(String::from_utf8(named).unwrap(), expected);
        assert_eq!(with_backends(json.as_bytes(), Some(&own), |_| None), None);
        let top = br#"{"preview_url": "/api/view?type=temp&filename=a.png"}"#;
        let named = with_backends(top, None, |_| Some("b")).unwrap();
        let expected = br#"{"preview_url": "/api/view?type=temp&filename=a.png&subfolder=~b"}"#;
        assert_eq!(named, expected);
    }
}
