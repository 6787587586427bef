//! T69: a journal that is damaged, in use, of a newer Mooring, or on a disk that is full.
//!
//! It is refused with a word that helps, or it is whole; it is never silently empty.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use http::Method;
use mooring::journal::disk::{Disk, FILE};
use mooring::journal::record::{Batch, BindingRecord, PromptRecord, Saved, Sent, Told};
use mooring::journal::{JournalError, Store as _};
use mooring::routing::ids::{ClientId, PromptId};
use mooring::routing::pending::End;
use mooring::sim::{Options, Sim};
use redb::{Database, TableDefinition};
use serde_json::json;

use crate::process::Daemon;
use crate::support::{fraction, network, quick, send};

fn batch(clients: usize) -> Batch {
    let mut batch = Batch::default();
    for number in 0..clients {
        let client = ClientId::parse(&format!("client {number}")).unwrap();
        let until = (number % 3 == 0).then_some(1_700_000_600_000);
        let binding = BindingRecord::new("gpu-a", "10.0.0.1:8188", 1_700_000_000_000, until);
        let order = number as u64;
        let made = 1_700_000_000_000 + order;
        let sent = Sent { backend: "gpu-a".into(), url: "10.0.0.1:8188".into(), made, order };
        let pending = PromptRecord::new(&client, sent, vec!["9".to_owned()]);
        let prompt = PromptId::parse(&format!("prompt {number}")).unwrap();
        let record = match number % 2 {
            0 => pending,
            _ => pending.ended(End::Failed, 1_700_000_100_000, Told::No),
        };
        batch.clients.insert(client, Some(binding));
        batch.prompts.insert(prompt, Some(record));
    }
    batch
}

async fn write(folder: &Path, batch: Batch) {
    let mut disk = Disk::open(folder).unwrap();
    disk.load().unwrap();
    disk.commit(Arc::new(batch)).await.unwrap();
}

fn read(folder: &Path) -> Result<Saved, JournalError> {
    let mut saved = Disk::open(folder)?.load()?;
    saved.clients.sort_by(|a, b| a.0.cmp(&b.0));
    saved.prompts.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(saved)
}

#[tokio::test]
async fn what_was_committed_is_read_and_what_was_deleted_is_not() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), batch(10)).await;
    let mut gone = Batch::default();
    gone.clients.insert(ClientId::parse("client 3").unwrap(), None);
    gone.prompts.insert(PromptId::parse("prompt 4").unwrap(), None);
    write(folder.path(), gone.clone()).await;
    let mut expected = Saved::default().after(&batch(10)).after(&gone);
    expected.clients.sort_by(|a, b| a.0.cmp(&b.0));
    expected.prompts.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(read(folder.path()).unwrap(), expected);
    assert_eq!((expected.clients.len(), expected.prompts.len()), (9, 9));
}

/// A bit that flipped, or an end that is missing.
#[tokio::test]
async fn a_damaged_journal_is_refused_or_whole_and_never_silently_empty() {
    let original = tempfile::tempdir().unwrap();
    write(original.path(), batch(200)).await;
    let whole = read(original.path()).unwrap();
    let bytes = fs::read(original.path().join(FILE)).unwrap();
    let flips = fraction("T69: flipped bits", 500, 50);
    let damaged = tempfile::tempdir().unwrap();
    let file = damaged.path().join(FILE);
    let mut refused = 0;
    for number in 0..flips {
        let mut flipped = bytes.clone();
        // Spread over the file, and over the bits of a byte.
        let at = (number * 7919 * 61) % flipped.len();
        flipped[at] ^= 1 << (number % 8);
        fs::write(&file, flipped).unwrap();
        match read(damaged.path()) {
            Ok(saved) => assert_eq!(saved, whole, "bit {number} at byte {at}"),
            Err(_) => refused += 1,
        }
    }
    for part in 0..10 {
        fs::write(&file, &bytes[..bytes.len() * part / 10]).unwrap();
        match read(damaged.path()) {
            // An empty file is a new one: nothing says that it was ever more.
            Ok(saved) => assert!(part == 0 || saved == whole, "{part} tenths"),
            Err(_) => refused += 1,
        }
    }
    fs::write(&file, "not a journal at all, but a text of some length").unwrap();
    let error = read(damaged.path()).unwrap_err().to_string();
    assert!(error.contains("is damaged") && error.contains("move it away"), "{error}");
    assert!(0 < refused, "some damage must matter");
}

#[tokio::test]
async fn a_journal_of_a_newer_mooring_or_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), batch(1)).await;
    let held = Disk::open(folder.path()).unwrap();
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is used by another process"), "{error}");
    drop(held);
    {
        let database = Database::open(folder.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
        transaction.open_table(meta).unwrap().insert("format", 2).unwrap();
        transaction.commit().unwrap();
    }
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has format 2") && error.contains("newer"), "{error}");
}

/// Writes one record by hand, or takes it out.
fn set(folder: &Path, table: &'static str, key: &str, value: Option<&[u8]>) {
    let database = Database::open(folder.join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
    {
        let mut table = transaction.open_table(table).unwrap();
        match value {
            Some(value) => drop(table.insert(key, value).unwrap()),
            None => drop(table.remove(key).unwrap()),
        }
    }
    transaction.commit().unwrap();
}

/// Each page is as it was written, and what stands in it is no record: all is refused and named,
/// and nothing is taken away from what is there.
#[tokio::test]
async fn a_record_that_is_not_readable_is_named_and_a_newer_one_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), batch(4)).await;
    let whole = read(folder.path()).unwrap();
    let secret = "a client nobody may know";
    let masked = mooring::masked::mask(&ClientId::parse(secret).unwrap()).to_string();
    let asset = "7c4a8d09-ca37-4f6e-9a39-1d0c0a3f0e11";
    let keys = [
        ("clients", secret, format!("client {masked:?}")),
        ("prompts", "prompt x", "prompt \"prompt x\"".to_owned()),
        ("files", "input/x.png\0h:1", "file \"input/x.png\\0h:1\"".to_owned()),
        ("assets", asset, format!("asset {asset:?}")),
        ("states", "h:1", "backend \"h:1\"".to_owned()),
    ];
    for (table, key, named) in keys {
        // Only prompts have others: those that wait, and those that were accepted after that.
        let last = if table == "prompts" { 3 } else { 1 };
        let newer = format!(r#"{{"v":{},"place":[]}}"#, last + 1);
        for (value, is_newer) in [
            (&br#"{"v":1,"ba"#[..], false),
            (br#"{"v":1}"#, false),
            (b"", false),
            (b"\xff\x00", false),
            (newer.as_bytes(), true),
        ] {
            set(folder.path(), table, key, Some(value));
            let error = read(folder.path()).unwrap_err();
            let (is_told, said) = match &error {
                JournalError::Newer { found, known, .. } if *known == last => {
                    (is_newer && *found == last + 1, "start the newer one")
                }
                JournalError::Damaged { .. } => (!is_newer, "is damaged"),
                JournalError::Newer { .. }
                | JournalError::Io { .. }
                | JournalError::InUse { .. }
                | JournalError::Write { .. }
                | JournalError::Store { .. }
                | JournalError::Sealed { .. }
                | JournalError::Changed { .. } => (false, ""),
            };
            let text = error.to_string();
            assert!(is_told && text.contains(said) && text.contains("away"), "{text}");
            let file = folder.path().join(FILE);
            assert!(text.contains(&*file.to_string_lossy()) && text.contains(&named), "{text}");
            assert!(!text.contains(secret), "{text}");
        }
        set(folder.path(), table, key, None);
        assert_eq!(read(folder.path()).unwrap(), whole, "{table}");
    }
    set(folder.path(), "files", "no file", Some(b"{}"));
    let text = read(folder.path()).unwrap_err().to_string();
    assert!(text.contains("is damaged: \"no file\" is not a name of a file"), "{text}");
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Disk::open(&file.join("state")).unwrap_err().to_string();
    assert!(error.contains("file/state"), "{error}");
}

/// A disk that is full is said loudly, and prompts are taken or refused as configured; when there
/// is room again, nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_disk_is_said_and_serving_goes_on_or_stops_as_configured() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    for (on_error, status) in [("serve", 200), ("refuse", 503)] {
        let folder = tempfile::tempdir().unwrap();
        let more = format!("state.on_error={on_error}");
        let daemon = Daemon::start_on_a_full_disk(&sim, &folder, 200, &["--set", &more]);
        let get = async |path: &str| send(daemon.front, Method::GET, path, &[], "").await;
        let mut clients = 0;
        while daemon.metric("mooring_journal_failing").await == 0 {
            assert_eq!(get(&format!("/queue?clientId=c{clients}")).await.status, 200);
            clients += 1;
            assert!(clients < 5_000, "the disk is full by now");
        }
        let body = json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
        let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
        assert_eq!(answer.status, status, "{on_error}: {}", answer.text());
        if status == 503 {
            assert_eq!(answer.header("mooring-error"), "journal_failed");
        }
        assert_eq!(get("/queue?clientId=c0").await.status, 200, "reads are served");
        daemon.kill();
        let known = read(&folder.path().join("state")).unwrap().clients.len();
        assert!(0 < known && known <= clients + 1, "what was written is whole: {known}");
    }
}

/// The file that version 0.1.0 wrote, with `batch(6)` in it. `WRITE_FIXTURE=1` writes it anew, for
/// a release; those of releases before stay as they are.
#[tokio::test]
async fn the_journal_of_the_last_release_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/journal-0.1.0.redb");
    if std::env::var_os("WRITE_FIXTURE").is_some() {
        write(folder.path(), batch(6)).await;
        fs::copy(folder.path().join(FILE), &fixture).unwrap();
    }
    fs::copy(&fixture, folder.path().join(FILE)).unwrap();
    let mut expected = Saved::default().after(&batch(6));
    expected.clients.sort_by(|a, b| a.0.cmp(&b.0));
    expected.prompts.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(read(folder.path()).unwrap(), expected);
}
