//! The journal in PostgreSQL: what is committed is read, one process at a time acts, and a store
//! that is away stops nothing but submissions.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use mooring::config::{OnJournalError, StoreUrl};
use mooring::journal::disk::Disk;
use mooring::journal::lease::Lease;
use mooring::journal::record::{Batch, BindingRecord, BodyRecord, PromptRecord, Saved, Sent};
use mooring::journal::{JournalError, Store as Journaled};
use mooring::net::{Boxed, Tcp, now};
use mooring::routing::ids::{ClientId, PromptId};
use mooring::sim::{Options, Sim};
use mooring::store::postgres::Postgres;
use mooring::store::{Joined, Joining, LifeId, Store, StoreError};
use mooring::tasks::Tasks;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::database::{Cluster, database};
use crate::process::Daemon;
use crate::support::{World, network, quick, send, soon, until};

const LEASE: Duration = Duration::from_secs(10);

fn store(url: StoreUrl) -> Postgres {
    Postgres::new(url, "mooring".to_owned(), Arc::new(Tcp), Tasks::default()).unwrap()
}

fn joining(life: &str) -> Joining {
    let (name, process, ended, silent) = ("a".to_owned(), None, Vec::new(), None);
    Joining { life: life.into(), name, process, lease: LEASE, ended, silent }
}

fn batch(clients: usize) -> Batch {
    let mut batch = Batch::default();
    for number in 0..clients {
        let client = ClientId::parse(&format!("client {number}")).unwrap();
        let sent = Sent { backend: "a".into(), url: "h:1".into(), made: 5, order: number as u64 };
        // A client chooses these: no character of them may break a batch.
        let nodes = vec!["\0\u{1F600}\u{FFFF}".to_owned()];
        let prompt = PromptId::parse(&format!("prompt {number}")).unwrap();
        batch.prompts.insert(prompt, Some(PromptRecord::new(&client, sent, nodes)));
        let binding = BindingRecord::new("a", "h:1", 3, None);
        batch.clients.insert(client, Some(binding));
    }
    batch
}

fn sorted(mut saved: Saved) -> Saved {
    saved.clients.sort_by(|a, b| a.0.cmp(&b.0));
    saved.prompts.sort_by(|a, b| a.0.cmp(&b.0));
    saved
}

#[tokio::test]
async fn what_was_committed_to_a_store_is_read_and_what_was_deleted_is_not() {
    let Some(database) = database().await else { return };
    let store = store(database.parsed());
    let life: LifeId = "one".into();
    assert_eq!(store.join(&joining("one")).await, Ok(Joined::Joined));
    assert_eq!(store.load().await.unwrap(), Saved::default());
    store.commit(&life, 1, Arc::new(batch(10))).await.unwrap();
    let mut gone = Batch::default();
    gone.clients.insert(ClientId::parse("client 3").unwrap(), None);
    gone.prompts.insert(PromptId::parse("prompt 4").unwrap(), None);
    store.commit(&life, 2, Arc::new(gone.clone())).await.unwrap();
    let expected = sorted(Saved::default().after(&batch(10)).after(&gone));
    assert_eq!(sorted(store.load().await.unwrap()), expected);
    assert_eq!((expected.clients.len(), expected.prompts.len()), (9, 9));
}

#[tokio::test]
async fn a_life_that_was_ended_writes_nothing_more_and_an_older_batch_comes_too_late() {
    let Some(database) = database().await else { return };
    let (first, second) = (store(database.parsed()), store(database.parsed()));
    let [one, two]: [LifeId; 2] = ["one".into(), "two".into()];
    assert_eq!(first.join(&joining("one")).await, Ok(Joined::Joined));
    let held = second.join(&joining("two")).await.unwrap();
    let Joined::Held(holder) = held else { panic!("{held:?}") };
    let seen = (holder.life, holder.lease, holder.renewals);
    assert_eq!(seen, (Arc::clone(&one), LEASE, 0));
    // It was renewed after it had seemed silent.
    first.renew(&one, LEASE).await.unwrap();
    let silent = Joining { silent: Some((Arc::clone(&one), 0)), ..joining("two") };
    assert!(matches!(second.join(&silent).await, Ok(Joined::Held(_))));
    first.commit(&one, 5, Arc::new(batch(1))).await.unwrap();
    let late = first.commit(&one, 4, Arc::new(batch(2))).await.unwrap_err();
    assert!(matches!(late, StoreError::Away(_)), "{late}");
    // Its process is known to have ended.
    let knows = Joining { ended: vec![Arc::clone(&one)], ..joining("two") };
    assert_eq!(second.join(&knows).await, Ok(Joined::Joined));
    for over in [first.commit(&one, 6, Arc::new(batch(3))).await, first.renew(&one, LEASE).await] {
        let over = over.unwrap_err();
        assert!(matches!(&over, StoreError::Over(why) if why.contains("ended by a")), "{over}");
    }
    assert_eq!(second.load().await.unwrap().clients.len(), 1);
    second.renew(&two, LEASE).await.unwrap();
    second.leave(&two).await.unwrap();
    assert_eq!(first.join(&joining("three")).await, Ok(Joined::Joined));
}

/// A burial waits for a batch that is being written, and then sees it.
#[tokio::test]
async fn of_many_batches_and_a_burial_at_one_time_all_are_before_it_or_refused() {
    let Some(database) = database().await else { return };
    let (first, second) = (Arc::new(store(database.parsed())), store(database.parsed()));
    let one: LifeId = "one".into();
    first.join(&joining("one")).await.unwrap();
    let (writer, life) = (Arc::clone(&first), Arc::clone(&one));
    let mut writing = JoinSet::new();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    writing.spawn(async move {
        let mut written = 0;
        loop {
            let done = writer.commit(&life, written + 1, Arc::new(batch(written as usize + 1)));
            match done.await {
                Ok(()) => written += 1,
                Err(error) => return (written, error),
            }
            counted.store(written, Ordering::Relaxed);
        }
    });
    until("ten are written", || 10 <= count.load(Ordering::Relaxed)).await;
    let knows = Joining { ended: vec![one], ..joining("two") };
    assert_eq!(second.join(&knows).await, Ok(Joined::Joined));
    let there = second.load().await.unwrap().clients.len() as u64;
    let (written, error) = writing.join_next().await.unwrap().unwrap();
    assert!(matches!(error, StoreError::Over(_)), "{error}");
    assert_eq!(second.load().await.unwrap().clients.len() as u64, written);
    assert_eq!(there, written, "nothing was written after it had joined");
}

/// More rows than one statement may have, and then as many that are deleted.
#[tokio::test]
async fn a_large_batch_is_written_whole() {
    let Some(database) = database().await else { return };
    let store = store(database.parsed());
    let life: LifeId = "one".into();
    store.join(&joining("one")).await.unwrap();
    let mut large = batch(20_000);
    store.commit(&life, 1, Arc::new(large.clone())).await.unwrap();
    assert_eq!(store.load().await.unwrap().prompts.len(), 20_000);
    large.clients.values_mut().for_each(|record| *record = None);
    store.commit(&life, 2, Arc::new(large)).await.unwrap();
    let saved = store.load().await.unwrap();
    assert_eq!((saved.clients.len(), saved.prompts.len()), (0, 20_000));
}

/// A journal that takes everything, with a lease that the test has.
#[derive(Debug)]
struct Leased(Arc<Lease>);

impl Journaled for Leased {
    fn load(&mut self) -> Result<Saved, JournalError> {
        Ok(Saved::default())
    }

    fn commit(&mut self, _: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>> {
        Box::pin(async { Ok(()) })
    }

    fn lease(&self) -> Option<Arc<Lease>> {
        Some(Arc::clone(&self.0))
    }
}

/// Although its journal is written. The last status is that of a lease that is lost for ever.
#[tokio::test]
async fn who_does_not_have_the_lease_sends_no_prompt() {
    for (on_error, unrenewed) in [(OnJournalError::Refuse, 503), (OnJournalError::Serve, 200)] {
        let lease = Arc::new(Lease::default());
        let store = Box::new(Leased(Arc::clone(&lease)));
        let world = World::kept_in(store, 1, |config| config.state.on_error = Some(on_error)).await;
        assert_eq!(submit(world.front, &id(1)).await, unrenewed);
        lease.holds_until(now() + LEASE);
        assert_eq!(submit(world.front, &id(2)).await, 200);
        lease.ends("as asked");
        assert_eq!(submit(world.front, &id(3)).await, 503);
        let sent = world.sims[0].ledger().enqueued.clone();
        assert_eq!(sent.contains(&id(1)), unrenewed == 200);
        assert!(sent.contains(&id(2)) && !sent.contains(&id(3)), "{sent:?}");
    }
}

/// The log of a gateway that does not start, and its exit code.
fn refused(mut child: Child) -> (Option<i32>, String) {
    let code = child.wait().unwrap().code();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    (code, log)
}

async fn submit(front: SocketAddr, prompt: &str) -> u16 {
    let body = json!({ "client_id": "ada", "prompt_id": prompt, "prompt": quick(1) }).to_string();
    let answer = send(front, Method::POST, "/prompt", &[], &body).await;
    if answer.status == 503 {
        assert_eq!(answer.header("mooring-error"), "journal_failed");
    }
    answer.status
}

async fn world() -> (Sim, TempDir) {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    (sim, tempfile::tempdir().unwrap())
}

fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_is_refused_and_a_stop_lets_the_next_one_in_at_once() {
    let Some(database) = database().await else { return };
    let (sim, folder) = world().await;
    let more = ["--set", &database.setting(), "--set", "replicas.lease=3s"];
    let mut first = Daemon::start_with(&sim, &folder, &more);
    assert_eq!(submit(first.front, &id(1)).await, 200);
    let (code, log) = refused(Daemon::attempt(&sim, &folder, &more));
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the store is used by another Mooring"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
    assert_eq!(submit(first.front, &id(2)).await, 200);
    first.signal("-TERM");
    assert_eq!(first.ended(), Some(0));
    assert_eq!(database.ask("SELECT count(*) FROM mooring.replicas").await, "0");
    let second = Daemon::start_with(&sim, &folder, &more);
    let entry = send(second.front, Method::GET, &format!("/history/{}", id(2)), &[], "").await;
    assert!(entry.text().contains(&id(2)), "{}", entry.text());
}

/// What docs/replicas.md shows to type into a database. A database has that role already, so it has
/// another name here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_says_to_a_database_is_understood_by_one() {
    let Some(database) = database().await else { return };
    let (sim, folder) = world().await;
    let _runs = Daemon::start_with(&sim, &folder, &["--set", &database.setting()]);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/replicas.md")).unwrap();
    let mut blocks = page.split("```sql\n").skip(1).map(|it| it.split_once("```").unwrap().0);
    let made = blocks.next().unwrap().replace("mooring", "shown");
    for statement in made.split_inclusive(";\n") {
        // One by one: a database is not made in a transaction.
        database.run(statement).await;
    }
    let shown = blocks.next().unwrap();
    let [lives, departed] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
    assert_ne!(database.ask(lives).await, "", "the life of this process");
    database.run(departed).await;
    assert_eq!(blocks.next(), None, "all were typed");
}

/// The first one is stopped until its lease is over. What it was asked meanwhile is not sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_taken_over_while_it_was_stopped_sends_nothing_and_ends() {
    let Some(database) = database().await else { return };
    let (sim, folder) = world().await;
    let more = ["--set", &database.setting(), "--set", "replicas.lease=3s"];
    let mut first = Daemon::start_with(&sim, &folder, &more);
    assert_eq!(submit(first.front, &id(1)).await, 200);
    first.signal("-STOP");
    let mut asking = JoinSet::new();
    let front = first.front;
    asking.spawn(async move { submit(front, &id(2)).await });
    let second = Daemon::start_with(&sim, &folder, &more);
    first.signal("-CONT");
    let line = first.says("Stopped by an error.");
    assert!(line.contains("the life of this process is over: ended by "), "{line}");
    assert_eq!(first.ended(), Some(1));
    asking.abort_all();
    assert_eq!(submit(second.front, &id(3)).await, 200);
    let enqueued = sim.ledger().enqueued.clone();
    assert!(!enqueued.contains(&id(2)) && enqueued.contains(&id(3)), "{enqueued:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_only_submissions_are_refused_and_then_all_is_as_before() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = Arc::new(cluster).database().await;
    let (sim, folder) = world().await;
    let more = ["--set", &database.setting()];
    let daemon = Daemon::start_with(&sim, &folder, &more);
    assert_eq!(submit(daemon.front, &id(1)).await, 200);
    database.cluster.crash();
    assert_eq!(submit(daemon.front, &id(2)).await, 503);
    let read = send(daemon.front, Method::GET, "/history?client_id=ada", &[], "").await;
    assert_eq!(read.status, 200);
    let ready = send(daemon.admin, Method::GET, "/readyz", &[], "").await;
    assert_eq!(ready.status, 200, "a second gateway could do no better");
    let told = send(daemon.admin, Method::GET, "/metrics", &[], "").await;
    assert!(told.text().contains("mooring_store_up{op=\"commit\"} 0"), "{}", told.text());
    database.cluster.run();
    let again = async {
        let mut number = 3;
        while submit(daemon.front, &id(number)).await != 200 {
            number += 1;
        }
    };
    soon("submissions are taken again", again).await;
    assert!(!sim.ledger().enqueued.contains(&id(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_its_store_is_alive_and_not_ready_and_waits() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let database = Arc::new(cluster).database().await;
    let (sim, folder) = world().await;
    database.cluster.crash();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap();
    drop(free);
    let at = admin.to_string();
    let more = ["--set", &database.setting(), "--admin-listen", &at];
    let child = Daemon::attempt(&sim, &folder, &more);
    let listens = || std::net::TcpStream::connect(admin).is_ok();
    until("the admin listener is open", listens).await;
    let ask = |path: &'static str| async move { send(admin, Method::GET, path, &[], "").await };
    assert_eq!(ask("/livez").await.status, 200);
    let ready = ask("/readyz").await;
    assert_eq!((ready.status, ready.json()["waiting_for"].as_str()), (503, Some("store")));
    assert_eq!(ask("/metrics").await.status, 503);
    database.cluster.run();
    let mut daemon = Daemon::of(child);
    assert_eq!(submit(daemon.front, &id(1)).await, 200);
    assert_eq!(send(daemon.admin, Method::GET, "/readyz", &[], "").await.status, 200);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
}

async fn is_refused(setting: &str, what: &str) {
    let (sim, folder) = world().await;
    let (code, log) = refused(Daemon::attempt(&sim, &folder, &["--set", setting]));
    assert_eq!(code, Some(1), "{setting}: {log}");
    assert!(log.contains(what) && !log.contains("s3cret"), "{what}: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_used_is_told_with_what_to_do() {
    let Some(database) = database().await else { return };
    let url = database.setting();
    let wrong = url.replace("s3cret", "other");
    is_refused(&wrong, "password authentication failed").await;
    let wrong = url.replace(":s3cret", "");
    is_refused(&wrong, "asks for a password, and its URL has none").await;
    let wrong = url.replace(&format!("/{}?", database.name), "/nowhere?");
    is_refused(&wrong, "database \\\"nowhere\\\" does not exist").await;
    let wrong = url.replace("sslmode=disable", "sslmode=require");
    is_refused(&wrong, "has no TLS").await;
    store(database.parsed()).init().await.unwrap();
    database.run("UPDATE mooring.meta SET value = 'other' WHERE key = 'fleet'").await;
    is_refused(&url, "keeps the state of the fleet").await;
    database.run("UPDATE mooring.meta SET value = 'mooring' WHERE key = 'fleet'").await;
    database.run("UPDATE mooring.meta SET value = '9' WHERE key = 'format'").await;
    is_refused(&url, "was written by a newer Mooring").await;
    database.run("UPDATE mooring.meta SET value = '1' WHERE key = 'format'").await;
    database.run(r#"INSERT INTO mooring.prompts VALUES ('p', '{"v":9}')"#).await;
    is_refused(&url, "has format 9").await;
    database.run("DELETE FROM mooring.prompts").await;
    database.run("INSERT INTO mooring.prompts VALUES ('p', '{')").await;
    is_refused(&url, "is damaged").await;
}

/// Who may not create tables is told how somebody else does, and then needs no such right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_write_is_enough_once_the_tables_are_there() {
    let Some(database) = database().await else { return };
    let role = format!("writer_{}", database.name);
    database.run(&format!("CREATE ROLE {role} LOGIN PASSWORD 's3cret'")).await;
    let url = database.setting().replace("//mooring:", &format!("//{role}:"));
    is_refused(&url, "mooring replicas init --print").await;
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_mooring"))
        .args(["replicas", "init", "--print"])
        .output()
        .unwrap();
    database.run(&String::from_utf8(printed.stdout).unwrap()).await;
    database
        .run(&format!(
            "GRANT USAGE ON SCHEMA mooring TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mooring TO {role}"
        ))
        .await;
    let (sim, folder) = world().await;
    let daemon = Daemon::start_with(&sim, &folder, &["--set", &url]);
    assert_eq!(submit(daemon.front, &id(1)).await, 200);
}

#[tokio::test]
async fn a_journal_file_is_imported_whole_into_an_empty_store() {
    let Some(database) = database().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut written = batch(30);
    let prompt = PromptId::parse("prompt 1").unwrap();
    written.bodies.insert(prompt, Some(BodyRecord::new(&kept())));
    let mut disk = Disk::open(folder.path()).unwrap();
    disk.commit(Arc::new(written)).await.unwrap();
    let expected = sorted(disk.load().unwrap());
    let import = || {
        let config = ["--set", &database.setting(), "--set", "backends.a.url=http://h:1"];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mooring"));
        command.args(["replicas", "import"]).arg(folder.path()).args(config);
        let done = command.current_dir("/").env_clear().output().unwrap();
        let said = [done.stdout, done.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
        (done.status.code(), said)
    };
    let (code, said) = import();
    assert!(code == Some(1) && said.contains("is used by another process"), "{said}");
    drop(disk);
    let (code, said) = import();
    assert!(code == Some(0) && said.contains("61 records"), "{said}");
    let store = store(database.parsed());
    assert_eq!(sorted(store.load().await.unwrap()), expected);
    let (code, said) = import();
    assert!(code == Some(1) && said.contains("has records already"), "{said}");
    database.run("DELETE FROM mooring.clients; DELETE FROM mooring.prompts").await;
    database.run("DELETE FROM mooring.bodies").await;
    store.join(&joining("one")).await.unwrap();
    let (code, said) = import();
    assert!(code == Some(1) && said.contains("is used by a Mooring"), "{said}");
}

fn kept() -> mooring::journal::record::Kept {
    mooring::journal::record::Kept {
        body: "{}".into(),
        usage_source: None,
        askers: Vec::new(),
        sharer: None,
        payer: None,
        number: 1.0,
    }
}

#[tokio::test]
async fn a_secured_store_is_checked_as_its_url_says() {
    let ca = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    let certificate = params.self_signed(&ca).unwrap().pem();
    let Some(cluster) = Cluster::start(&["password_encryption = 'md5'"]) else { return };
    let cluster = Arc::new(cluster);
    for (name, text) in [("server.crt", certificate.clone()), ("server.key", ca.serialize_pem())] {
        let path = cluster.data().join(name);
        std::fs::write(&path, text).unwrap();
        std::os::unix::fs::chown(
            &path,
            cluster.other_user().map(|it| it.0),
            cluster.other_user().map(|it| it.1),
        )
        .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let all = cluster.connect("postgres").await;
    all.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    cluster.crash();
    cluster.run();
    let database = cluster.database().await;
    let roots = cluster.folder().join("roots.pem");
    std::fs::write(&roots, certificate).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let wrong = cluster.folder().join("wrong.pem");
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    for (query, is_fine) in [
        (format!("sslmode=verify-full&sslrootcert={}", roots.display()), true),
        ("sslmode=require".to_owned(), true),
        ("application_name=x".to_owned(), true),
        (format!("sslmode=verify-full&sslrootcert={}", wrong.display()), false),
        ("sslmode=verify-full".to_owned(), false),
    ] {
        let url = database.url().replace("sslmode=disable", &query);
        let opened = store(StoreUrl::parse(&url).unwrap()).init().await;
        match opened {
            Ok(()) => assert!(is_fine, "{query}"),
            Err(StoreError::Refused(why)) => assert!(!is_fine && why.contains("TLS"), "{why}"),
            Err(error) => panic!("{query}: {error}"),
        }
    }
    let ask = "SELECT count(*) FROM pg_stat_ssl WHERE ssl";
    let held = store(StoreUrl::parse(&database.url().replace("disable", "require")).unwrap());
    held.init().await.unwrap();
    assert_ne!(database.ask(ask).await, "0");
}
