//! What does a journal say of the home and of added backends, for who only looks? Nothing is
//! written, and a journal that a process uses is left alone.

use std::path::Path;
use std::sync::Arc;

use redb::{DatabaseError, ReadOnlyDatabase, ReadableDatabase as _};

use super::disk::{ADDED, FILE, HOME, ReadError, plain, records, the_home};
use super::record::{AddedRecord, HomeRecord};

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Peeked {
    /// There is no journal yet, or it says nothing.
    Nothing,
    /// Another process has it now: a gateway that runs.
    InUse,
    /// It cannot be read, as after a crash, and why.
    Unreadable(String),
    Found {
        home: Option<HomeRecord>,
        added: Vec<(Arc<str>, AddedRecord)>,
    },
}

/// Looks into the journal of a state directory.
#[must_use]
pub fn peek(directory: &Path) -> Peeked {
    let path = directory.join(FILE);
    if !path.exists() {
        return Peeked::Nothing;
    }
    match ReadOnlyDatabase::open(&path) {
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
}
