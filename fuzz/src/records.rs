//! Records of the journal, and what a start makes of them.
//!
//! An input is lines: the table (`client`, `prompt`, `file`, `asset`, `state`, `member`, `name`), a
//! tab, the key, a tab, the record.
//!
//! - A record that is read and written again is the same.
//! - No records break the recovery, however odd: each comes back, or is known to be of no use.
//! - What breaks it all the same is set aside alone.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mooring::journal::leftovers::leftovers;
use mooring::journal::quarantine::sift;
use mooring::journal::record::{
    AssetRecord, Batch, BindingRecord, FileKey, FileRecord, MemberRecord, NameRecord, PromptRecord,
    Saved, StateRecord, Versioned, decode, encode,
};
use mooring::journal::restore::{RestoreParams, Restored, restore};
use mooring::net::now;
use mooring::routing::files::Place;
use mooring::routing::ids::{AssetId, BackendId, ClientId, PromptId};
use mooring::routing::servers::{ServerKey, Servers};
use serde::Serialize;
use serde::de::DeserializeOwned;

const LEN_MAX: usize = 64 << 10;
const MAX_CLIENTS: usize = 8;
const UNIX_MILLIS: u64 = 1_790_000_000_000;
const URLS: [&str; 2] = ["http://127.0.0.1:8188", "h:1"];

pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(LEN_MAX)];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let saved = text.lines().fold(Saved::default(), noted);
    check_words(&saved);
    let now = now();
    let backends: Servers = (0..)
        .zip(URLS)
        .map(|(index, url)| (ServerKey::of_text(url), BackendId::nth(index)))
        .collect();
    let params = params(&backends, now);
    let left_over = leftovers(&saved, &backends, UNIX_MILLIS);
    let servers: HashSet<&Arc<str>> = left_over.iter().map(|it| &it.server.url).collect();
    assert_eq!(servers.len(), left_over.len(), "each server is waited for once");
    assert!(!URLS.iter().any(|url| servers.contains(&Arc::from(*url))), "and none that is there");
    let (restored, set_aside) = sift(saved.clone(), |saved| restore(saved, params));
    assert_eq!(set_aside, 0, "no record breaks the recovery");
    check_restored(&saved, &restored, now);
    check_sift(&saved);
}

fn params(backends: &Servers, now: Instant) -> RestoreParams<'_> {
    RestoreParams {
        backends,
        max_clients: MAX_CLIENTS,
        lease: Duration::from_secs(600),
        reservation: Duration::from_secs(60),
        replay_window: Duration::from_secs(30),
        now,
        unix_millis: UNIX_MILLIS,
    }
}

/// A record goes over an earlier one of its key, as in the file.
fn noted(saved: Saved, line: &str) -> Saved {
    let mut parts = line.splitn(3, '\t');
    let (Some(table), Some(key), Some(record)) = (parts.next(), parts.next(), parts.next()) else {
        return saved;
    };
    let mut batch = Batch::default();
    match table {
        "client" => {
            let record = read::<BindingRecord>(record);
            batch.clients.extend(ClientId::parse(key).ok().zip(record).map(some));
        }
        "prompt" => {
            let record = read::<PromptRecord>(record);
            batch.prompts.extend(PromptId::parse(key).ok().zip(record).map(some));
        }
        "file" => {
            let record = read::<FileRecord>(record);
            let key = FileKey::of_text(&key.replace("\\0", "\0"));
            if let Some(key) = &key {
                assert_eq!(FileKey::of_text(&key.to_text()).as_ref(), Some(key));
            }
            batch.files.extend(key.zip(record).map(some));
        }
        "asset" => {
            let record = read::<AssetRecord>(record);
            batch.assets.extend(AssetId::parse(key).zip(record).map(some));
        }
        "state" => {
            let record = read::<StateRecord>(record);
            batch.states.extend(record.map(|record| some((Arc::from(key), record))));
        }
        "member" => {
            let record = read::<MemberRecord>(record);
            batch.members.extend(record.map(|record| some((Arc::from(key), record))));
        }
        "name" => {
            let record = read::<NameRecord>(record);
            batch.names.extend(record.map(|record| some((Arc::from(key), record))));
        }
        _ => {}
    }
    let is_new = batch.len();
    let after = saved.after(&batch);
    assert!(is_new <= 1 && batch.is_empty() == (is_new == 0));
    after
}

fn some<K, R>((key, record): (K, R)) -> (K, Option<R>) {
    (key, Some(record))
}

/// Reads a record; what is written of it is read as the same.
fn read<T>(record: &str) -> Option<T>
where
    T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug + Versioned,
{
    let read: T = decode(record.as_bytes()).ok()?;
    let written = encode(&read);
    assert_eq!(decode::<T>(&written).expect("what is written can be read"), read);
    Some(read)
}

/// What records mean is written as it was read.
fn check_words(saved: &Saved) {
    for (_, record) in &saved.states {
        let change = record.clone().change();
        let again = StateRecord::new(Arc::clone(&record.backend), &change);
        assert_eq!(again.change(), change);
    }
    let place = Place::Backend(BackendId::nth(0));
    for (key, record) in &saved.files {
        let holder = record.holder(place.clone());
        let again = FileRecord::new(Arc::clone(&record.backend), &holder, record.at);
        let again = again.holder(place.clone());
        assert_eq!(format!("{again:?}"), format!("{holder:?}"), "{key:?}");
    }
    for (id, record) in &saved.assets {
        let asset = record.asset(place.clone());
        let name = (Arc::clone(&record.backend), record.server());
        let again = AssetRecord::new(name, &asset, record.at);
        assert_eq!(again.asset(place.clone()), asset, "{id:?}");
    }
}

fn check_restored(saved: &Saved, restored: &Restored, now: Instant) {
    assert_eq!(restored.ledger.len(), saved.prompts.len(), "every prompt comes back once");
    let ids: HashSet<&PromptId> = restored.ledger.iter().map(|entry| &entry.prompt).collect();
    assert_eq!(ids.len(), saved.prompts.len());
    assert!(
        restored.ledger.is_sorted_by_key(|entry| entry.end.is_none()),
        "what ended comes first"
    );
    assert_eq!(restored.files.len(), saved.files.len());
    assert_eq!(restored.assets.len(), saved.assets.len());
    assert!(restored.clients.len() <= MAX_CLIENTS);
    let moments = restored.ledger.iter().map(|entry| entry.made);
    let moments = moments.chain(restored.files.iter().map(|file| file.2));
    assert!(moments.chain(restored.assets.iter().map(|it| it.2)).all(|moment| moment <= now));
    let pending: HashSet<&PromptId> =
        saved.prompts.iter().filter(|(_, it)| it.ended.is_none()).map(|(id, _)| id).collect();
    for client in &restored.clients {
        assert!(!restored.forgotten.contains(&client.id));
        assert!(client.pending.keys().all(|id| pending.contains(id)));
        assert!(client.lost.iter().all(|lost| pending.contains(&lost.prompt)));
        assert!(client.undelivered.len() <= 64);
        assert!(client.output_nodes.keys().all(|id| client.pending.contains_key(id)));
        assert_eq!(
            client.binding.is_some(),
            client.binding.is_some() || !client.pending.is_empty()
        );
        if let Some(until) = client.binding.as_ref().and_then(|binding| binding.reserved_until) {
            assert!(until <= now + Duration::from_secs(60), "no clock makes a reservation longer");
        }
    }
    let known: usize = restored.clients.iter().map(|it| it.pending.len() + it.lost.len()).sum();
    assert!(known <= pending.len());
}

/// One record that breaks the recovery takes no other with it. Under libFuzzer every panic is a
/// crash, also one that is caught.
fn check_sift(saved: &Saved) {
    if cfg!(fuzzing) || saved.prompts.is_empty() {
        return;
    }
    quieten();
    let bad = &saved.prompts[saved.prompts.len() / 2].0;
    let ids = |saved: &Saved| {
        assert!(!saved.prompts.iter().any(|(id, _)| id == bad), "{QUIET}");
        saved.prompts.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()
    };
    let (kept, set_aside) = sift(saved.clone(), ids);
    let others = saved.prompts.iter().map(|(id, _)| id).filter(|id| *id != bad);
    assert!(kept.iter().eq(others) && set_aside == 1);
}

const QUIET: &str = "as asked for";

/// No trace is printed of the panics that are asked for here.
fn quieten() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_asked = info.payload().downcast_ref::<String>().is_some_and(|it| it == QUIET);
            if !is_asked {
                before(info);
            }
        }));
    });
}
