//! Journal records of clients, prompts, files and assets, and how they are read back.
//!
//! Records are JSON with a version each. Records of an older Mooring can be read, and fields that a
//! newer one added within the same version are ignored. Times are milliseconds since 1970, because
//! another process reads them. Ages that are impossible, because the clock was changed, are clamped
//! when records are restored.

mod adopted;
mod body;
mod versions;
mod waiting;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::batch::{Batch, Saved};
pub use super::found::{FoundBackend, FoundRecord};
pub use super::members::{GoingRecord, MemberRecord};
pub use super::names::NameRecord;
pub use super::operators::{AddedRecord, HomeRecord, StateRecord};
use super::people::{MakerRecord, PersonRecord, made_by, makers_of};
use crate::routing::assets::{Asset, Kind};
use crate::routing::files::{Holder, Place};
use crate::routing::ids::{ClientId, ContentHash, FileRef, Folder};
use crate::routing::owners::Person;
use crate::routing::pending::End;
use crate::routing::servers::ServerKey;
pub use body::{BodyRecord, Kept, PartKey, PartRecord};

pub use versions::{BadRecord, VERSION, Versioned, decode, encode};

/// One client's binding.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BindingRecord {
    v: u32,
    /// The backend's name, for people who read the record.
    pub backend: Arc<str>,
    /// The backend's URL: another server under the same name is another backend.
    pub url: Arc<str>,
    /// Which server it is, if its discovery said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Arc<str>>,
    pub since: u64,
    /// Until when an upload there waits for its prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_until: Option<u64>,
}

/// One prompt of the ledger.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PromptRecord {
    v: u32,
    pub client: String,
    pub backend: Arc<str>,
    pub url: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Arc<str>>,
    pub made: u64,
    /// Its place among all submissions: ComfyUI works in this order.
    pub order: u64,
    /// Who is behind the client, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<PersonRecord>,
    /// Nodes whose pictures on the socket are results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_nodes: Vec<String>,
    /// It went to its server for a verdict only, and is taken back from there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trial: bool,
    /// It has waited, and its server has accepted it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    taken: bool,
    /// `None` while the prompt is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndRecord>,
}

/// Identifies one file of one backend in the journal.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct FileKey {
    pub file: FileRef,
    /// The server that has the file, as [`ServerKey::to_text`] writes it. An older Mooring reads
    /// this as a URL: for a server with an identity, it finds a file of a server that is gone.
    pub server: Arc<str>,
}

impl FileKey {
    /// The key as it is written: folder and path, then the server.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}/{}\0{}", self.file.folder.as_str(), self.file.path(), self.server)
    }

    /// Parses a key; `None` if it is not valid.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let (file, server) = text.split_once('\0')?;
        let (folder, path) = file.split_once('/')?;
        let file = FileRef::of_path(Folder::parse(folder)?, path)?;
        Some(Self { file, server: server.into() })
    }
}

/// One backend's file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileRecord {
    v: u32,
    pub backend: Arc<str>,
    /// When Mooring learned of it, as a place in the order of all files. The first of several files
    /// with one name owns the plain name.
    pub at: u64,
    pub order: u64,
    /// When it was last written, in the order of all files; `None` if it was never seen written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
    /// It was stored without leave to overwrite another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    yields: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    makers: Vec<MakerRecord>,
}

/// One backend's asset.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AssetRecord {
    v: u32,
    pub backend: Arc<str>,
    pub url: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Arc<str>>,
    /// When Mooring learned of it, as a place in the order of all assets.
    pub at: u64,
    pub order: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    makers: Vec<MakerRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    /// Folder and path of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// Mooring copied it there for a prompt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    copy: bool,
}

impl AssetRecord {
    /// `backend` is the backend's name and server.
    #[must_use]
    pub fn new((backend, server): (Arc<str>, ServerKey), asset: &Asset, at: u64) -> Self {
        let file = |file: &FileRef| format!("{}/{}", file.folder.as_str(), file.path());
        let ServerKey { url, identity } = server;
        Self {
            v: VERSION,
            backend,
            url,
            identity,
            at,
            order: asset.order,
            makers: makers_of(&asset.makers),
            user: asset.user.clone(),
            file: asset.file.as_ref().map(file),
            hash: asset.hash.map(|hash| hash.to_string()),
            copy: asset.kind == Kind::Copy,
        }
    }

    /// The server that has it.
    #[must_use]
    pub fn server(&self) -> ServerKey {
        ServerKey::new(Arc::clone(&self.url), self.identity.clone())
    }

    /// The asset of this record, at `place`.
    #[must_use]
    pub fn asset(&self, place: Place) -> Asset {
        let file = self.file.as_deref().and_then(|text| text.split_once('/'));
        Asset {
            place,
            makers: made_by(&self.makers).collect(),
            user: self.user.clone(),
            file: file.and_then(|(folder, path)| FileRef::of_path(Folder::parse(folder)?, path)),
            hash: self.hash.as_deref().and_then(ContentHash::parse),
            kind: if self.copy { Kind::Copy } else { Kind::Original },
            order: self.order,
        }
    }
}

impl FileRecord {
    #[must_use]
    pub fn new(backend: Arc<str>, holder: &Holder, at: u64) -> Self {
        let makers = makers_of(&holder.makers);
        let Holder { order, written, yields, .. } = *holder;
        Self { v: VERSION, backend, at, order, written, yields, makers }
    }

    /// The holder of this record, at `place`.
    #[must_use]
    pub fn holder(&self, place: Place) -> Holder {
        let mut holder = Holder::new(place, self.order);
        holder.written = self.written;
        holder.yields = self.yields;
        holder.makers.extend(made_by(&self.makers));
        holder
    }
}

/// How and when a prompt ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EndRecord {
    /// [`End::reason`].
    pub how: String,
    pub at: u64,
    /// A browser socket was open when the prompt ended.
    #[serde(default)]
    pub told: bool,
}

/// Where a prompt was sent, for [`PromptRecord::new`].
#[derive(Clone, Debug)]
pub struct Sent {
    pub backend: Arc<str>,
    pub url: Arc<str>,
    pub made: u64,
    pub order: u64,
}

impl BindingRecord {
    #[must_use]
    pub fn new(
        backend: impl Into<Arc<str>>,
        url: impl Into<Arc<str>>,
        since: u64,
        reserved_until: Option<u64>,
    ) -> Self {
        let (backend, url) = (backend.into(), url.into());
        Self { v: VERSION, backend, url, identity: None, since, reserved_until }
    }

    /// The same, sent to the server of this identity.
    #[must_use]
    pub fn to(mut self, identity: Option<Arc<str>>) -> Self {
        self.identity = identity;
        self
    }

    /// The server that the prompt was sent to.
    #[must_use]
    pub fn server(&self) -> ServerKey {
        ServerKey::new(Arc::clone(&self.url), self.identity.clone())
    }
}

impl PromptRecord {
    /// A prompt that is pending.
    #[must_use]
    pub fn new(client: &ClientId, sent: Sent, output_nodes: Vec<String>) -> Self {
        let Sent { backend, url, made, order } = sent;
        let (v, client) = (VERSION, client.to_string());
        let (identity, person, ended) = (None, None, None);
        let (trial, taken) = (false, false);
        Self {
            v,
            client,
            backend,
            url,
            identity,
            made,
            order,
            person,
            output_nodes,
            trial,
            taken,
            ended,
        }
    }

    /// The same prompt, sent to the server of this identity.
    #[must_use]
    pub fn to(mut self, identity: Option<Arc<str>>) -> Self {
        self.identity = identity;
        self
    }

    /// The server that it was sent to.
    #[must_use]
    pub fn server(&self) -> ServerKey {
        ServerKey::new(Arc::clone(&self.url), self.identity.clone())
    }

    /// The same prompt, owned by this person.
    #[must_use]
    pub fn of(mut self, person: Option<&Person>) -> Self {
        self.person = person.map(PersonRecord::new);
        self
    }

    /// Who is behind the client, if that is known.
    #[must_use]
    pub fn person(&self) -> Option<Person> {
        self.person.as_ref().and_then(PersonRecord::person)
    }

    /// The same prompt, ended. Fields that only a pending prompt needs are cleared.
    #[must_use]
    pub fn ended(mut self, end: End, at: u64, told: Told) -> Self {
        self.v = VERSION;
        let how = end.reason().to_owned();
        self.ended = Some(EndRecord { how, at, told: told == Told::Yes });
        (self.output_nodes, self.trial, self.taken) = (Vec::new(), false, false);
        self
    }
}

impl EndRecord {
    /// How it ended. A reason that this version does not know counts as a loss.
    #[must_use]
    pub fn end(&self) -> End {
        End::of_reason(&self.how)
    }
}

/// Whether a browser socket was there when a prompt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::files::Maker;

    fn prompt() -> PromptRecord {
        let sent = Sent { backend: "a".into(), url: "h:1".into(), made: 5, order: 7 };
        PromptRecord::new(&ClientId::parse("ada").unwrap(), sent, vec!["9".to_owned()])
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let ended = prompt().ended(End::Failed, 9, Told::No);
        for record in [prompt(), ended] {
            assert_eq!(decode::<PromptRecord>(&encode(&record)).unwrap(), record);
        }
        let binding = BindingRecord::new("a", "h:1", 3, Some(4));
        assert_eq!(decode::<BindingRecord>(&encode(&binding)).unwrap(), binding);
    }

    #[test]
    fn which_server_it_was_is_read_and_an_older_record_says_only_where() {
        let identity = Some("u0".into());
        let server = ServerKey::of_text("h:1#u0");
        let binding = BindingRecord::new("a", "h:1", 3, None).to(identity.clone());
        assert_eq!(decode::<BindingRecord>(&encode(&binding)).unwrap().server(), server);
        let sent = prompt().to(identity);
        assert_eq!(decode::<PromptRecord>(&encode(&sent)).unwrap().server(), server);
        // An older Mooring still reads the address from it.
        assert_eq!((&*sent.url, prompt().server()), ("h:1", ServerKey::of_text("h:1")));
    }

    #[test]
    fn who_is_behind_a_client_is_read_as_it_was_written() {
        let people = [
            Person::Browser(u128::MAX - 1),
            Person::User("ada_1".into()),
            Person::Address([10, 0, 0, 1].into()),
        ];
        for person in people {
            let sent = Sent { backend: "a".into(), url: "h:1".into(), made: 5, order: 7 };
            let client = ClientId::parse("ada").unwrap();
            let record = PromptRecord::new(&client, sent, Vec::new()).of(Some(&person));
            let read: PromptRecord = decode(&encode(&record)).unwrap();
            assert_eq!(read.person(), Some(person));
        }
        assert_eq!(prompt().person(), None);
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_its_key_too() {
        let file = FileRef::of_path(Folder::Temp, "x/y z.png").unwrap();
        let key = FileKey { file, server: "h:1#u0".into() };
        assert_eq!(FileKey::of_text(&key.to_text()), Some(key));
        for junk in ["", "temp/x", "models/x\0h", "temp/\0h"] {
            assert_eq!(FileKey::of_text(junk), None, "{junk}");
        }
        let place = Place::Gone("h:1".into());
        let mut holder = Holder::new(place.clone(), 7);
        holder.written = Some(9);
        holder.yields = true;
        holder.makers.push(Maker::Client(ClientId::parse("ada").unwrap()));
        holder.makers.push(Maker::Browser(u128::MAX - 1));
        holder.makers.push(Maker::Address([10, 0, 0, 1].into()));
        let record = FileRecord::new("a".into(), &holder, 5);
        let read: FileRecord = decode(&encode(&record)).unwrap();
        assert_eq!(read, record);
        let (order, again) = (read.order, read.holder(place));
        assert_eq!((again.makers, again.written, order), (holder.makers, Some(9), 7));
        assert!(again.yields);
    }

    #[test]
    fn an_asset_is_read_as_it_was_written() {
        let place = Place::Gone("h:1".into());
        let mut asset = Asset {
            place: place.clone(),
            makers: smallvec::smallvec![Maker::Client(ClientId::parse("ada").unwrap())],
            user: Some("bob_1".into()),
            file: FileRef::of_path(Folder::Output, "x/y z.png"),
            hash: ContentHash::parse(&format!("blake3:{}", "0a".repeat(32))),
            kind: Kind::Copy,
            order: 7,
        };
        for _ in 0..2 {
            let record = AssetRecord::new(("a".into(), ServerKey::of_text("h:1#u0")), &asset, 5);
            let read: AssetRecord = decode(&encode(&record)).unwrap();
            assert_eq!(read, record);
            assert_eq!(read.asset(place.clone()), asset);
            assert_eq!(read.server(), ServerKey::of_text("h:1#u0"));
            asset = Asset { user: None, file: None, hash: None, kind: Kind::Original, ..asset };
        }
    }

    #[test]
    fn a_field_that_is_not_known_is_skipped_and_a_newer_version_is_refused() {
        let added = br#"{"v":1,"backend":"a","url":"h:1","since":3,"mood":"good"}"#;
        let binding = BindingRecord::new("a", "h:1", 3, None);
        assert_eq!(decode::<BindingRecord>(added).unwrap(), binding);
        let newer = br#"{"v":2,"backend":"a","url":"h:1","since":3}"#;
        let error = decode::<BindingRecord>(newer).unwrap_err();
        assert!(matches!(error, BadRecord::Newer { found: 2, known: 1 }), "{error}");
        // Prompts have a second one, those that wait, and a third, those that were accepted then.
        let waits = PromptRecord::waiting(&ClientId::parse("ada").unwrap(), (5, 7), Vec::new());
        assert_eq!(decode::<PromptRecord>(&encode(&waits)).unwrap(), waits);
        let taken = encode(&waits.taken());
        assert!(taken.starts_with(br#"{"v":3,"#), "{}", String::from_utf8_lossy(&taken));
        assert!(decode::<PromptRecord>(&taken).unwrap().is_taken());
        let newer = br#"{"v":4,"place":{}}"#;
        let error = decode::<PromptRecord>(newer).unwrap_err();
        assert!(matches!(error, BadRecord::Newer { found: 4, known: 3 }), "{error}");
        assert!(decode::<BindingRecord>(b"{").is_err());
    }

    #[test]
    fn every_end_is_read_back() {
        for end in End::ALL {
            assert_eq!(prompt().ended(end, 1, Told::Yes).ended.unwrap().end(), end);
        }
    }
}
