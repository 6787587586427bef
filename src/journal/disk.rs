//! The journal's store on disk: one redb file.
//!
//! redb, because it is pure Rust, its commits are atomic and durable (copy on write, one or two
//! `fdatasync`), and it checks what it reads back. A commit runs on a thread that may block.
//!
//! After a failed write redb refuses everything until the file is reopened. So a failed commit
//! drops the handle, and the next commit opens the file again.

use std::borrow::Cow;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase as _,
    ReadableTable as _, TableDefinition, TableError, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::batch::Changes;
use super::record::{
    BadRecord, Batch, FileKey, HomeRecord, PartKey, Saved, Versioned, decode, encode,
};
use super::{JournalError, Store};
use crate::masked::mask;
use crate::net::Boxed;
use crate::routing::ids::{AssetId, ClientId, PromptId};

/// The name of the file in the state directory.
pub const FILE: &str = "journal.redb";

/// The layout of the tables. Records have versions of their own.
const FORMAT: u64 = 1;

/// redb's cache. It is small, because the journal is read once and then only written.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const CLIENTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("clients");
const PROMPTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("prompts");
const BODIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("bodies");
const PARTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("parts");
const STATES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("states");
pub(super) const ADDED: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("added");
const FOUND: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("found");
const MEMBERS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("members");
const NAMES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("names");
pub(super) const HOME: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("home");
const FILES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("files");
const ASSETS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("assets");

/// The only key in the table of the home.
const THE_HOME: &str = "home";

/// The journal's file. Only one process can open it at a time.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// `None` after a failed write.
    database: Option<Arc<Database>>,
}

impl Disk {
    /// Opens the journal in `directory`, creates it if necessary, and checks it.
    ///
    /// # Errors
    /// It cannot be written, is used by another process, is damaged, or is of a newer Mooring.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        let path = directory.join(FILE);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| JournalError::Io { path: directory.to_owned(), source })?;
        let database = open(&path, Checked::Whole)?;
        let mut disk = Self { path, database: Some(Arc::new(database)) };
        disk.check_format()?;
        Ok(disk)
    }

    fn check_format(&mut self) -> Result<(), JournalError> {
        let path = self.path.clone();
        let database = self.handle()?;
        let transaction = database.begin_write().map_err(|error| failed(&path, error.into()))?;
        let found = {
            let mut meta = transaction.open_table(META).map_err(|it| failed(&path, it.into()))?;
            let found = meta.get("format").map_err(|error| failed(&path, error.into()))?;
            let found = found.map(|format| format.value());
            if found.is_none() {
                meta.insert("format", FORMAT).map_err(|error| failed(&path, error.into()))?;
            }
            found.unwrap_or(FORMAT)
        };
        if FORMAT < found {
            let what = "it".to_owned();
            return Err(JournalError::Newer { path, what, found, known: FORMAT });
        }
        // This also proves at the start that the disk is writable.
        transaction.commit().map_err(|error| failed(&path, error.into()))
    }

    fn handle(&mut self) -> Result<Arc<Database>, JournalError> {
        if let Some(database) = &self.database {
            return Ok(Arc::clone(database));
        }
        let database = Arc::new(open(&self.path, Checked::AsNeeded)?);
        self.database = Some(Arc::clone(&database));
        Ok(database)
    }
}

impl Store for Disk {
    fn load(&mut self) -> Result<Saved, JournalError> {
        let path = self.path.clone();
        let database = self.handle()?;
        unless_it_panics(&path, || read_all(&database, &path))
    }

    fn commit(&mut self, batch: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let (path, database) = (self.path.clone(), self.database.take());
            // All of it runs on that thread: after a failure the file is closed and reopened, which
            // can take as long as the write.
            let written = tokio::task::spawn_blocking(move || {
                unless_it_panics(&path, || {
                    let database = match database {
                        Some(database) => database,
                        None => Arc::new(open(&path, Checked::AsNeeded)?),
                    };
                    write(&database, &batch, &path)?;
                    Ok(database)
                })
            });
            let written = written.await.unwrap_or_else(|stopped| {
                let what = stopped.to_string();
                Err(JournalError::Write { path: self.path.clone(), what })
            });
            self.database = Some(written?);
            Ok(())
        })
    }
}

/// How much of a file is checked when it is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Checked {
    /// Every page against its checksum.
    Whole,
    /// Only what redb checks by itself: everything after a crash.
    AsNeeded,
}

fn open(path: &Path, checked: Checked) -> Result<Database, JournalError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    let refused = |error: DatabaseError| {
        if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
            return JournalError::InUse { path: path.to_owned() };
        }
        failed(path, error.into())
    };
    unless_it_panics(path, || {
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(checked == Checked::Whole)
            .create_with_backend(FileBackend::new(file).map_err(refused)?)
            .map_err(refused)
    })
}

fn read_all(database: &Database, path: &Path) -> Result<Saved, JournalError> {
    let read = || -> Result<Saved, ReadError> {
        let all = database.begin_read().map_err(redb::Error::from)?;
        // A client id must not appear in logs.
        let masked = |id: &ClientId| mask(id).to_string();
        Ok(Saved {
            clients: records(&all, (CLIENTS, "client"), |key| ClientId::parse(key).ok(), masked)?,
            prompts: records(&all, (PROMPTS, "prompt"), |key| PromptId::parse(key).ok(), plain)?,
            bodies: records(&all, (BODIES, "body"), |key| PromptId::parse(key).ok(), plain)?,
            parts: records(&all, (PARTS, "part"), PartKey::of_text, PartKey::to_text)?,
            files: records(&all, (FILES, "file"), FileKey::of_text, FileKey::to_text)?,
            assets: records(&all, (ASSETS, "asset"), AssetId::parse, plain)?,
            states: records(&all, (STATES, "backend"), |key| Some(key.into()), plain)?,
            added: records(&all, (ADDED, "added backend"), |key| Some(key.into()), plain)?,
            found: records(&all, (FOUND, "discovery"), |key| Some(key.into()), plain)?,
            members: records(&all, (MEMBERS, "member"), |key| Some(key.into()), plain)?,
            names: records(&all, (NAMES, "name"), |key| Some(key.into()), plain)?,
            home: the_home(records(&all, (HOME, "home"), |key| Some(key.to_owned()), plain)?),
        })
    };
    read().map_err(|error| match error {
        ReadError::Storage(error) => failed(path, *error),
        ReadError::Record { kind, name, source: BadRecord::Newer { found, known } } => {
            let (found, known) = (u64::from(found), u64::from(known));
            let what = format!("the record of {kind} {name:?}");
            JournalError::Newer { path: path.to_owned(), what, found, known }
        }
        bad @ (ReadError::Record { source: BadRecord::Malformed(_), .. }
        | ReadError::Key { .. }) => {
            JournalError::Damaged { path: path.to_owned(), what: bad.to_string() }
        }
    })
}

pub(super) fn plain(name: &impl ToString) -> String {
    name.to_string()
}

/// The record of the home: the only one in its table.
pub(super) fn the_home(records: Vec<(String, HomeRecord)>) -> Option<HomeRecord> {
    records.into_iter().find_map(|(key, record)| (key == THE_HOME).then_some(record))
}

/// The records of one table, each with its parsed key.
pub(super) fn records<K, R: DeserializeOwned + Versioned>(
    all: &ReadTransaction,
    (definition, kind): (TableDefinition<'static, &str, &[u8]>, &'static str),
    parse: impl Fn(&str) -> Option<K>,
    shown: impl Fn(&K) -> String,
) -> Result<Vec<(K, R)>, ReadError> {
    let Some(table) = table(all.open_table(definition))? else { return Ok(Vec::new()) };
    let mut records = Vec::new();
    for entry in table.iter().map_err(redb::Error::from)? {
        let (key, value) = entry.map_err(redb::Error::from)?;
        let named = parse(key.value());
        let named = named.ok_or_else(|| ReadError::Key { kind, key: key.value().to_owned() })?;
        let bad = |source| ReadError::Record { kind, name: shown(&named), source };
        let record = decode(value.value()).map_err(bad)?;
        records.push((named, record));
    }
    Ok(records)
}

/// `None` for a table that was never written.
fn table<T>(opened: Result<T, TableError>) -> Result<Option<T>, ReadError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(redb::Error::from(error).into()),
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Storage(Box<redb::Error>),
    #[error("the record of {kind} {name:?} {source}")]
    Record { kind: &'static str, name: String, source: BadRecord },
    #[error("{key:?} is not a name of a {kind}")]
    Key { kind: &'static str, key: String },
}

impl From<redb::Error> for ReadError {
    fn from(error: redb::Error) -> Self {
        Self::Storage(Box::new(error))
    }
}

fn write(database: &Database, batch: &Batch, path: &Path) -> Result<(), JournalError> {
    let Batch { clients, prompts, bodies, parts, files, assets, .. } = batch;
    let Batch { states, added, found, members, names, home, .. } = batch;
    let write = || -> Result<(), redb::Error> {
        let mut all = database.begin_write()?;
        all.set_durability(Durability::Immediate)?;
        put(&all, CLIENTS, clients, |id| id.as_str().into())?;
        put(&all, PROMPTS, prompts, |id| id.as_str().into())?;
        put(&all, BODIES, bodies, |id| id.as_str().into())?;
        put(&all, PARTS, parts, |key| key.to_text().into())?;
        put(&all, FILES, files, |key| key.to_text().into())?;
        put(&all, ASSETS, assets, |id| id.to_string().into())?;
        put(&all, STATES, states, |url| (&**url).into())?;
        put(&all, ADDED, added, |name| (&**name).into())?;
        put(&all, FOUND, found, |name| (&**name).into())?;
        put(&all, MEMBERS, members, |url| (&**url).into())?;
        put(&all, NAMES, names, |name| (&**name).into())?;
        if let Some(record) = home {
            all.open_table(HOME)?.insert(THE_HOME, &*encode(record))?;
        }
        Ok(all.commit()?)
    };
    write().map_err(|error| JournalError::Write { path: path.to_owned(), what: error.to_string() })
}

/// Writes the changes of one table.
fn put<K, R: Serialize>(
    all: &WriteTransaction,
    definition: TableDefinition<'static, &str, &[u8]>,
    changes: &Changes<K, R>,
    key_of: impl Fn(&K) -> Cow<'_, str>,
) -> Result<(), redb::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut table = all.open_table(definition)?;
    for (key, record) in changes {
        match record {
            Some(record) => drop(table.insert(&*key_of(key), &*encode(record))?),
            None => drop(table.remove(&*key_of(key))?),
        }
    }
    Ok(())
}

/// Converts redb's error to ours: either an error of the system, or a damaged file.
fn failed(path: &Path, error: redb::Error) -> JournalError {
    let path = path.to_owned();
    let what = error.to_string();
    if let redb::Error::Io(source) = error {
        let is_system = source.kind() != io::ErrorKind::InvalidData;
        return if is_system { JournalError::Io { path, source } } else { damaged(path, what) };
    }
    damaged(path, what)
}

fn damaged(path: PathBuf, what: String) -> JournalError {
    JournalError::Damaged { path, what }
}

/// Runs `act` and turns a panic into an error. A damaged file can break an assumption inside redb;
/// the process must not end without an error that names the file.
fn unless_it_panics<T>(
    path: &Path,
    act: impl FnOnce() -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    caught(act).unwrap_or_else(|what| Err(damaged(path.to_owned(), what.to_owned())))
}

/// The same, for callers with their own error for a damaged file.
pub(super) fn caught<T>(act: impl FnOnce() -> T) -> Result<T, &'static str> {
    std::panic::catch_unwind(AssertUnwindSafe(act)).map_err(|_panic| "it contradicts itself")
}
