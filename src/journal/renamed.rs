//! Moves file records to another key when a server's identity becomes known, or is no longer known.
//! Pure.
//!
//! Later notes use the new key and must replace the existing record, so the record moves there.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::{FileKey, FileRecord};
use crate::routing::files::Place;
use crate::routing::servers::Servers;

/// A file record that is to move to another key.
#[derive(Clone, Debug, PartialEq)]
pub struct RenamedFile {
    pub from: FileKey,
    pub to: FileKey,
    /// Merged with the record that is already under that key.
    pub record: FileRecord,
}

/// The records that move. Records of two servers never merge under one key. If it is no longer
/// known which of the two is there, each keeps its own key until that is known again.
pub(super) fn renamed(saved: &[(FileKey, FileRecord)], backends: &Servers) -> Vec<RenamedFile> {
    let moved = saved.iter().filter_map(|(key, record)| {
        let (there, _) = backends.written(&key.server)?;
        let to = || FileKey { file: key.file.clone(), server: there.to_text() };
        let is_other = !there.is_written(&key.server);
        is_other.then(|| RenamedFile { from: key.clone(), to: to(), record: record.clone() })
    });
    let mut moved: Vec<RenamedFile> = moved.collect();
    if moved.is_empty() {
        return moved;
    }
    keep_apart(&mut moved);
    let mut place_of: HashMap<FileKey, usize> =
        moved.iter().enumerate().map(|(place, it)| (it.to.clone(), place)).collect();
    for (key, record) in saved {
        if let Some(it) = place_of.remove(key).and_then(|place| moved.get_mut(place)) {
            it.record = merged(&it.record, record);
        }
    }
    moved
}

/// Leaves out records where those of two servers would merge.
fn keep_apart(moved: &mut Vec<RenamedFile>) {
    let mut from: HashMap<Arc<str>, Option<Arc<str>>> = HashMap::new();
    for it in moved.iter() {
        let known = from.entry(Arc::clone(&it.to.server));
        let known = known.or_insert_with(|| Some(Arc::clone(&it.from.server)));
        if known.as_ref().is_some_and(|known| *known != it.from.server) {
            *known = None;
        }
    }
    moved.retain(|it| from.get(&it.to.server).is_some_and(Option::is_some));
}

/// Merges two records of one file. The earlier of them says when it was learned.
fn merged(one: &FileRecord, other: &FileRecord) -> FileRecord {
    let (first, later) = if other.order < one.order { (other, one) } else { (one, other) };
    // `place` is not written to the record.
    let holder = |it: &FileRecord| it.holder(Place::Gone(Arc::clone(&it.backend)));
    let (mut all, more) = (holder(first), holder(later));
    all.made_by(&more.makers);
    all.written = all.written.max(more.written);
    FileRecord::new(Arc::clone(&later.backend), &all, first.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::files::{Holder, Maker};
    use crate::routing::ids::{BackendId, ClientId, FileRef, Folder};
    use crate::routing::servers::ServerKey;

    fn key(path: &str, server: &str) -> FileKey {
        let file = FileRef::of_path(Folder::Output, path).unwrap();
        FileKey { file, server: server.into() }
    }

    fn maker(name: &str) -> Maker {
        Maker::Client(ClientId::parse(name).unwrap())
    }

    fn record(order: u64, makers: &[&str], written: Option<u64>) -> FileRecord {
        let mut holder = Holder::new(Place::Backend(BackendId::nth(0)), order);
        holder.made_by(&makers.iter().map(|it| maker(it)).collect::<Vec<_>>());
        holder.written = written;
        FileRecord::new("a".into(), &holder, 1_000 + order)
    }

    fn servers(all: &[&str]) -> Servers {
        let ids = (0..).map(BackendId::nth);
        all.iter().map(|it| ServerKey::of_text(it)).zip(ids).collect()
    }

    /// Old key and new key of each.
    fn keys(renamed: &[RenamedFile]) -> Vec<(&str, &str)> {
        renamed.iter().map(|it| (&*it.from.server, &*it.to.server)).collect()
    }

    #[test]
    fn a_server_of_which_more_is_told_now_has_its_files_under_what_is_told() {
        let files = ["h:1", "h:2#u2", "h:3", "h:4#u4", "h:5#u5"];
        let files: Vec<_> =
            files.iter().map(|at| (key("x.png", at), record(1, &["ada"], None))).collect();
        // At the last two addresses: another server, and no server.
        let renamed = renamed(&files, &servers(&["h:1#u0", "h:2", "h:3", "h:4#u9"]));
        assert_eq!(keys(&renamed), [("h:1", "h:1#u0"), ("h:2#u2", "h:2")]);
        assert!(renamed.iter().all(|it| it.record == files[0].1));
    }

    #[test]
    fn two_records_of_one_file_become_one_with_what_both_say() {
        let (older, newer) = (record(1, &["ada"], Some(2)), record(5, &["bob"], Some(9)));
        for (at, there) in [(["h:1", "h:1#u0"], "h:1#u0"), (["h:1", "h:1#u0"], "h:1")] {
            for records in [[&older, &newer], [&newer, &older]] {
                let saved = at.iter().zip(records).map(|(at, it)| (key("x.png", at), it.clone()));
                let other = (key("y.png", there), record(3, &["eve"], None));
                let saved: Vec<_> = saved.chain([other]).collect();
                let renamed = renamed(&saved, &servers(&[there]));
                let from = if there == "h:1" { "h:1#u0" } else { "h:1" };
                assert_eq!(keys(&renamed), [(from, there)]);
                assert_eq!(renamed[0].record, record(1, &["ada", "bob"], Some(9)));
            }
        }
    }

    #[test]
    fn files_of_two_servers_never_come_under_one_key() {
        let of = |path, at| (key(path, at), record(1, &["ada"], None));
        let saved = vec![of("x.png", "h:1#a"), of("y.png", "h:1#b"), of("x.png", "h:2#a")];
        let renamed = renamed(&saved, &servers(&["h:1", "h:2"]));
        assert_eq!(keys(&renamed), [("h:2#a", "h:2")], "who is at h:1 is not told");
    }
}
