//! Reads the home and the added backends from a journal without changing it. Nothing is written,
//! and a journal that a process uses is left alone.

use std::path::Path;
use std::sync::Arc;

use redb::{DatabaseError, ReadOnlyDatabase, ReadableDatabase as _};

use super::disk::{ADDED, FILE, HOME, ReadError, caught, plain, records, the_home};
use super::record::{AddedRecord, HomeRecord};

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Peeked {
    /// There is no journal yet, or it says nothing.
    Nothing,
    /// Another process uses it: a running gateway.
    InUse,
    /// It cannot be read (for example after a crash), and why.
    Unreadable(String),
    Found {
        home: Option<HomeRecord>,
        added: Vec<(Arc<str>, AddedRecord)>,
    },
}

/// Reads the journal in a state directory.
#[must_use]
pub fn peek(directory: &Path) -> Peeked {
    let path = directory.join(FILE);
    if !path.exists() {
        return Peeked::Nothing;
    }
    caught(|| look(&path)).unwrap_or_else(|what| Peeked::Unreadable(what.to_owned()))
}

fn look(path: &Path) -> Peeked {
    match ReadOnlyDatabase::open(path) {
        Err(DatabaseError::DatabaseAlreadyOpen) => Peeked::InUse,
        Err(error) => Peeked::Unreadable(error.to_string()),
        Ok(database) => read(&database).unwrap_or_else(|it| Peeked::Unreadable(it.to_string())),
    }
}

fn read(database: &ReadOnlyDatabase) -> Result<Peeked, ReadError> {
    let all = database.begin_read().map_err(redb::Error::from)?;
    let homes = records(&all, (HOME, "home"), |key| Some(key.to_owned()), plain)?;
    let added = records(&all, (ADDED, "added backend"), |key| Some(key.into()), plain)?;
    Ok(Peeked::Found { home: the_home(homes), added })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Store as _;
    use crate::journal::disk::Disk;
    use crate::journal::record::Batch;

    #[tokio::test]
    async fn a_journal_that_nobody_uses_is_read_and_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(peek(folder.path()), Peeked::Nothing);
        let home = HomeRecord::new("b".into(), "h:2".into(), 5);
        let mut disk = Disk::open(folder.path()).unwrap();
        disk.commit(Arc::new(Batch { home: Some(home.clone()), ..Batch::default() }))
            .await
            .unwrap();
        assert_eq!(peek(folder.path()), Peeked::InUse);
        drop(disk);
        let found = Peeked::Found { home: Some(home), added: Vec::new() };
        let before = std::fs::read(folder.path().join(FILE)).unwrap();
        assert_eq!(peek(folder.path()), found);
        assert!(std::fs::read(folder.path().join(FILE)).unwrap() == before);
        std::fs::write(folder.path().join(FILE), "no journal").unwrap();
        assert!(matches!(peek(folder.path()), Peeked::Unreadable(_)));
    }

    /// Some of the damage breaks assumptions inside redb, which then panics.
    #[tokio::test]
    async fn whatever_is_damaged_is_told_and_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let home = HomeRecord::new("b".into(), "h:2".into(), 5);
        let mut disk = Disk::open(folder.path()).unwrap();
        disk.commit(Arc::new(Batch { home: Some(home), ..Batch::default() })).await.unwrap();
        drop(disk);
        let file = folder.path().join(FILE);
        let whole = std::fs::read(&file).unwrap();
        let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        let mut unreadable = 0;
        for at in used.iter().copied().step_by(used.len() / 64 + 1) {
            for bit in [0, 7] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                std::fs::write(&file, damaged).unwrap();
                unreadable += u32::from(matches!(peek(folder.path()), Peeked::Unreadable(_)));
            }
        }
        assert!(0 < unreadable, "some damage matters");
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(peek(folder.path()), Peeked::Unreadable(_)));
    }
}
