//! A batch as rows of bytes, for stores that know nothing of records, and back.
//!
//! Keys and records are the bytes that the file has too. They are bytes and not texts or JSON of a
//! database, because clients choose parts of them: a character that a database does not take must
//! not keep a batch from being written.

use super::batch::Changes;
use super::record::{
    BadRecord, Batch, FileKey, HomeRecord, PartKey, Saved, Versioned, decode, encode,
};
use crate::masked::mask;
use crate::routing::ids::{AssetId, ClientId, PromptId};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The kinds of records: each is a table of its own.
pub const TABLES: [&str; 12] = [
    "clients", "prompts", "bodies", "parts", "files", "assets", "states", "added", "found",
    "members", "names", "home",
];

/// The only key in the table of the home.
const THE_HOME: &str = "home";

/// Changes of one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rows {
    pub table: &'static str,
    /// Keys and records, by key.
    pub put: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of rows that are deleted, in order.
    pub gone: Vec<Vec<u8>>,
}

/// A row that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRow {
    #[error("the record of {table} {name:?} {source}")]
    Record { table: &'static str, name: String, source: BadRecord },
    #[error("a key of {table} is not valid")]
    Key { table: &'static str },
}

/// The rows of a batch, one entry for each table that changes. Rows are in the order of their keys,
/// so that two batches never wait for each other's rows.
#[must_use]
pub fn rows(batch: &Batch) -> Vec<Rows> {
    let Batch { clients, prompts, bodies, parts, files, assets, .. } = batch;
    let Batch { states, added, found, members, names, home, .. } = batch;
    let mut all = vec![
        of("clients", clients, |id| id.as_str().to_owned()),
        of("prompts", prompts, |id| id.as_str().to_owned()),
        of("bodies", bodies, |id| id.as_str().to_owned()),
        of("parts", parts, PartKey::to_text),
        of("files", files, FileKey::to_text),
        of("assets", assets, ToString::to_string),
        of("states", states, ToString::to_string),
        of("added", added, ToString::to_string),
        of("found", found, ToString::to_string),
        of("members", members, ToString::to_string),
        of("names", names, ToString::to_string),
    ];
    if let Some(home) = home {
        let put = vec![(THE_HOME.as_bytes().to_vec(), encode(home))];
        all.push(Rows { table: "home", put, gone: Vec::new() });
    }
    all.retain(|rows| !rows.put.is_empty() || !rows.gone.is_empty());
    all
}

fn of<K, R: Serialize>(
    table: &'static str,
    changes: &Changes<K, R>,
    key_of: impl Fn(&K) -> String,
) -> Rows {
    let mut rows = Rows { table, ..Rows::default() };
    for (key, record) in changes {
        let key = key_of(key).into_bytes();
        match record {
            Some(record) => rows.put.push((key, encode(record))),
            None => rows.gone.push(key),
        }
    }
    rows.put.sort_unstable();
    rows.gone.sort_unstable();
    rows
}

/// Puts one row into what was saved.
///
/// # Errors
/// It is not valid, or was written by a newer Mooring.
pub fn read(saved: &mut Saved, table: &'static str, row: (&[u8], &[u8])) -> Result<(), BadRow> {
    let shared = |key: &str| Some(key.into());
    match table {
        "clients" => {
            // A client id must not appear in logs.
            let shown = |id: &ClientId| mask(id).to_string();
            put(&mut saved.clients, table, row, |key| ClientId::parse(key).ok(), shown)
        }
        "prompts" => put(&mut saved.prompts, table, row, |key| PromptId::parse(key).ok(), plain),
        "bodies" => put(&mut saved.bodies, table, row, |key| PromptId::parse(key).ok(), plain),
        "parts" => put(&mut saved.parts, table, row, PartKey::of_text, PartKey::to_text),
        "files" => put(&mut saved.files, table, row, FileKey::of_text, FileKey::to_text),
        "assets" => put(&mut saved.assets, table, row, AssetId::parse, plain),
        "states" => put(&mut saved.states, table, row, shared, plain),
        "added" => put(&mut saved.added, table, row, shared, plain),
        "found" => put(&mut saved.found, table, row, shared, plain),
        "members" => put(&mut saved.members, table, row, shared, plain),
        "names" => put(&mut saved.names, table, row, shared, plain),
        _home => {
            let mut homes: Vec<(String, HomeRecord)> = Vec::new();
            put(&mut homes, table, row, |key| Some(key.to_owned()), plain)?;
            saved.home = homes.pop().map(|(_, home)| home);
            Ok(())
        }
    }
}

fn plain(name: &impl ToString) -> String {
    name.to_string()
}

fn put<K, R: DeserializeOwned + Versioned>(
    records: &mut Vec<(K, R)>,
    table: &'static str,
    (key, record): (&[u8], &[u8]),
    parse: impl Fn(&str) -> Option<K>,
    shown: impl Fn(&K) -> String,
) -> Result<(), BadRow> {
    let key = std::str::from_utf8(key).ok().and_then(parse).ok_or(BadRow::Key { table })?;
    let bad = |source| BadRow::Record { table, name: shown(&key), source };
    let record = decode(record).map_err(bad)?;
    records.push((key, record));
    Ok(())
}

/// All that was saved as one batch, to be written elsewhere.
#[must_use]
pub fn batch_of(saved: Saved) -> Batch {
    let Saved { clients, prompts, bodies, parts, files, assets, .. } = saved;
    let Saved { states, added, found, members, names, home, .. } = saved;
    fn all<K: Eq + std::hash::Hash, R>(records: Vec<(K, R)>) -> Changes<K, R> {
        records.into_iter().map(|(key, record)| (key, Some(record))).collect()
    }
    Batch {
        clients: all(clients),
        prompts: all(prompts),
        bodies: all(bodies),
        parts: all(parts),
        files: all(files),
        assets: all(assets),
        states: all(states),
        added: all(added),
        found: all(found),
        members: all(members),
        names: all(names),
        home,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{BindingRecord, BodyRecord, PartRecord, PromptRecord, Sent};
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::default();
        let client = ClientId::parse("ada").unwrap();
        let sent = Sent { backend: "a".into(), url: "h:1".into(), made: 5, order: 7 };
        let prompt = PromptId::parse("p").unwrap();
        let record = PromptRecord::new(&client, sent, vec!["\0\u{1F600}".to_owned()]);
        batch.clients.insert(client, Some(BindingRecord::new("a", "h:1", 3, None)));
        batch.prompts.insert(prompt.clone(), Some(record));
        batch
            .bodies
            .insert(prompt.clone(), Some(BodyRecord::of_text("{\"a\":\"\\u0000\"}".into())));
        batch.parts.insert(PartKey { prompt, part: 3 }, Some(PartRecord::new("x")));
        batch.home = Some(HomeRecord::new("a".into(), "h:1".into(), 5));
        batch
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let mut saved = Saved::default();
        let all = rows(&batch());
        assert_eq!(all.len(), 5);
        for Rows { table, put, gone } in &all {
            assert!(TABLES.contains(table) && gone.is_empty());
            for (key, record) in put {
                read(&mut saved, table, (key, record)).unwrap();
            }
        }
        assert_eq!(batch_of(saved), batch());
    }

    #[test]
    fn what_is_deleted_is_named_and_a_row_of_a_newer_mooring_is_refused() {
        let mut batch = Batch::default();
        for name in ["b", "a"] {
            batch.clients.insert(ClientId::parse(name).unwrap(), None);
        }
        let gone = vec![b"a".to_vec(), b"b".to_vec()];
        assert_eq!(rows(&batch), [Rows { table: "clients", put: Vec::new(), gone }]);
        let newer = br#"{"v":9}"#;
        let error = read(&mut Saved::default(), "prompts", (b"p", newer)).unwrap_err();
        assert!(matches!(error, BadRow::Record { source: BadRecord::Newer { found: 9, .. }, .. }));
        let error = read(&mut Saved::default(), "files", (b"\xff", b"{}")).unwrap_err();
        assert_eq!(error.to_string(), "a key of files is not valid");
    }
}
