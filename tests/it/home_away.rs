//! The page has no single point of failure: which backend is the home is remembered, and while it
//! is away, also at a cold start, the page, settings and workflows are there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use http::Method;
use mooring::config::{OnOff, StateDir};
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::discovery::{SERVICE, serve};
use crate::dns_server::DnsServer;
use crate::restart::Mortal;
use crate::support::{Answer, World, found_by, network, quick, send, until};

const HASHED: &str = "/assets/index-azSeANjR.js";
const LIST: &str = "/api/userdata?dir=workflows&recurse=true&split=false&full_info=true";
const FLOW: &str = "/api/userdata/workflows%2Fmine.json";

/// A folder with a page of one version of the frontend.
fn frontend(version: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("assets")).unwrap();
    let page = format!("<!doctype html><html><head><title>{version}</title></head></html>");
    for (path, text) in files.iter().chain(&[("/index.html", page.as_str())]) {
        fs::write(folder.path().join(path.trim_start_matches('/')), text).unwrap();
    }
    folder
}

fn named(name: &str, folder: &TempDir) -> Options {
    Options { frontend: Some(folder.path().to_owned()), ..Options::named(name) }
}

/// `a` and `c` have the same page, `b` another.
async fn fleet() -> (Mortal, [TempDir; 3]) {
    let one = [(HASHED, "1"), ("/assets/plain.js", "one")];
    let two = [("/assets/plain.js", "two")];
    let folders = [frontend("one", &one), frontend("two", &two), frontend("one", &one)];
    let options = ["a", "b", "c"].into_iter().zip(&folders).map(|(name, it)| named(name, it));
    (Mortal::over(options).await, folders)
}

pub(crate) async fn get(mortal: &Mortal, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(mortal.front(), Method::GET, path, headers, "").await
}

pub(crate) async fn post(mortal: &Mortal, path: &str, body: &str) -> Answer {
    send(mortal.front(), Method::POST, path, &[], body).await
}

pub(crate) fn stands_in(answer: &Answer) -> bool {
    answer.header("mooring-home") == "a (stands in)"
}

/// The files of copies in a state directory, by name.
fn copies(state: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let Ok(folder) = fs::read_dir(state.join("copies")) else { return BTreeMap::new() };
    let paths = folder.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| !path.ends_with("doubts") && path.extension().is_none());
    paths.filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
}

fn is_in_a_copy(state: &Path, text: &str) -> bool {
    let has = |file: &Vec<u8>| file.windows(text.len()).any(|it| it == text.as_bytes());
    copies(state).values().any(has)
}

/// Waits until a copy on the disk has that in its body.
pub(crate) async fn is_copied(state: &Path, text: &str) {
    until("a copy is on the disk", || is_in_a_copy(state, text)).await;
}

/// Where it stands of what copies are in doubt.
fn doubts(mortal: &Mortal) -> Vec<u8> {
    fs::read(mortal.state().join("copies/doubts")).unwrap()
}

async fn remembers_a_page(mortal: &Mortal) {
    let records = &mortal.gateway().shared.records;
    until("the page is known", || records.home_page().is_some()).await;
    until("it is in the journal", || records.journal.waiting() == 0).await;
}

pub(crate) async fn has_lost_its_home(mortal: &mut Mortal) {
    mortal.crash().await;
    mortal.sim("a").crash().await;
    mortal.start_with(|_| {}).await;
    let front = std::sync::Arc::clone(mortal.gateway());
    until("the others are up", || {
        let fleet = &front.shared.fleet;
        ["b", "c"].iter().all(|name| fleet.by_name(name).is_none_or(|it| it.is_up()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_home_gives_its_page_its_settings_and_its_workflows() {
    let (mut mortal, _folders) = fleet().await;
    let page = get(&mortal, "/", &[]).await;
    assert_eq!((page.status, page.backend(), page.header("mooring-home")), (200, "a", ""));
    assert_eq!(post(&mortal, "/api/settings/Comfy.Color", "\"teal\"").await.status, 200);
    assert_eq!(post(&mortal, FLOW, "{\"nodes\":[]}").await.status, 200);
    for path in ["/api/settings", LIST] {
        assert_eq!(get(&mortal, path, &[]).await.status, 200, "{path}");
    }
    remembers_a_page(&mortal).await;
    is_copied(mortal.state(), "teal").await;
    is_copied(mortal.state(), "mine.json").await;
    is_copied(mortal.state(), "{\"nodes\":[]}").await;
    has_lost_its_home(&mut mortal).await;

    let page = get(&mortal, "/", &[]).await;
    let told = (page.status, page.backend(), page.header("mooring-placement"), stands_in(&page));
    assert_eq!(told, (200, "c", "stand_in", true), "of its version: {}", page.text());
    for (path, text) in [(HASHED, "1"), ("/assets/plain.js", "one")] {
        let asset = get(&mortal, path, &[]).await;
        let told = (asset.status, asset.backend(), stands_in(&asset));
        assert_eq!((told, asset.text().as_str()), ((200, "c", true), text), "{path}");
    }
    for (path, text) in
        [("/settings", "teal"), ("/api/settings", "teal"), (LIST, "mine.json"), (FLOW, "nodes")]
    {
        let copy = get(&mortal, path, &[]).await;
        assert!(copy.status == 200 && copy.text().contains(text), "{path}: {copy:?}");
        assert!(stands_in(&copy) && !copy.header("mooring-stale").is_empty(), "{path}: {copy:?}");
        assert!(copy.header("content-type").starts_with("application/json"), "{path}: {copy:?}");
    }
    let refused = post(&mortal, "/api/settings/Comfy.Color", "\"red\"").await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "backend_down"));
    assert!(refused.text().contains("a is down: not saved"), "{}", refused.text());
    let done = mortal.submit("ada", &quick(7)).await;
    assert_eq!((done.status, done.backend() == "a"), (200, false), "{}", done.text());

    mortal.sim("a").restart().await.unwrap();
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
    let saved = post(&mortal, "/api/settings/Comfy.Color", "\"red\"").await;
    assert_eq!((saved.status, saved.backend()), (200, "a"));
    let now = get(&mortal, "/api/settings", &[]).await;
    assert!(now.text().contains("red") && now.header("mooring-home").is_empty(), "{now:?}");
    assert_eq!(get(&mortal, "/", &[]).await.backend(), "a");
}

/// The script is off: the page is what its backend has, and chosen in the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_our_script_is_of_the_homes_version_too() {
    let (mut mortal, _folders) = fleet().await;
    let off = |config: &mut mooring::config::Config| config.server.page_script = OnOff::Off;
    mortal.crash().await;
    mortal.start_with(off).await;
    let page = get(&mortal, "/", &[]).await;
    remembers_a_page(&mortal).await;
    mortal.crash().await;
    mortal.sim("a").crash().await;
    mortal.start_with(off).await;
    let fleet = &mortal.gateway().shared.fleet;
    until("the others are up", || {
        ["b", "c"].iter().all(|name| fleet.by_name(name).is_some_and(|it| it.is_up()))
    })
    .await;
    let stand_in = get(&mortal, "/", &[]).await;
    assert_eq!((stand_in.backend(), stand_in.text()), ("c", page.text()));
    assert!(stands_in(&stand_in), "{stand_in:?}");
}

/// Nobody knows what the home's page was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_whoever_gave_it_first_stays_that_page() {
    let (mut mortal, _folders) = fleet().await;
    has_lost_its_home(&mut mortal).await;
    let first = get(&mortal, "/", &[]).await;
    assert_eq!((first.status, first.backend()), (200, "b"), "the first by name");
    let plain = get(&mortal, "/assets/plain.js", &[]).await;
    assert_eq!((plain.backend(), plain.text().as_str()), ("b", "two"));
    // Of another version it is given when there is no other.
    mortal.sim("b").crash().await;
    let fleet = &mortal.gateway().shared.fleet;
    let b = fleet.by_name("b").unwrap();
    until("b is seen to be down", || !b.is_up()).await;
    let second = get(&mortal, "/", &[]).await;
    assert_eq!((second.status, second.backend()), (200, "c"));
    mortal.sim("b").restart().await.unwrap();
    until("b is up", || b.is_up()).await;
    for path in ["/", "/assets/plain.js"] {
        assert_eq!(get(&mortal, path, &[]).await.backend(), "c", "{path}: what tabs have now");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_on_the_disk_are_nobody_elses_and_hold_no_credential() {
    let mut mortal = Mortal::new(1).await;
    let ada = [
        ("authorization", "Bearer s3cret-token"),
        ("cookie", "session=s3cret-cookie"),
        ("comfy-user", "s3cret-ada"),
    ];
    let saved = json!({ "Comfy.Color": "teal" }).to_string();
    let answer = send(mortal.front(), Method::POST, "/settings", &ada, &saved).await;
    assert_eq!(answer.status, 200);
    assert_eq!(get(&mortal, "/settings", &ada).await.status, 200);
    let secret = "/userdata/a.json?token=s3cret-query";
    send(mortal.front(), Method::POST, "/userdata/a.json", &ada, "{}").await;
    assert_eq!(get(&mortal, secret, &ada).await.status, 200);
    is_copied(mortal.state(), "teal").await;

    let folder = mortal.state().join("copies");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for (path, file) in copies(mortal.state()) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let all = format!("{}{}", path.display(), String::from_utf8_lossy(&file));
        assert!(!all.contains("s3cret"), "{all}");
    }
    has_lost_its_home(&mut mortal).await;
    let copy = get(&mortal, "/api/settings", &ada).await;
    assert!(copy.status == 200 && copy.text().contains("teal") && stands_in(&copy), "{copy:?}");
    for (number, (name, _)) in ada.iter().enumerate() {
        let mut other = ada;
        other[number] = (name, "another");
        let answer = get(&mortal, "/settings", &other).await;
        assert_eq!(answer.status, 503, "{name}: {}", answer.text());
    }
    assert_eq!(get(&mortal, "/settings", &[]).await.status, 503);
    assert_eq!(get(&mortal, secret, &ada).await.status, 503, "what may be a credential");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_copy_is_deleted_and_the_rest_is_given() {
    let mut mortal = Mortal::new(1).await;
    for (path, body) in [("/userdata/a.json", "\"first\""), ("/userdata/b.json", "\"second\"")] {
        assert_eq!(post(&mortal, path, body).await.status, 200);
        is_copied(mortal.state(), body).await;
    }
    mortal.crash().await;
    mortal.sim("a").crash().await;
    let is_first = |(_, file): &(PathBuf, Vec<u8>)| file.ends_with(b"\"first\"");
    let (path, mut file) = copies(mortal.state()).into_iter().find(is_first).unwrap();
    let last = file.len() - 2;
    file[last] ^= 1;
    fs::write(&path, file).unwrap();
    mortal.start_with(|_| {}).await;
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.status, 503);
    until("it is deleted", || !path.exists()).await;
    assert_eq!(get(&mortal, "/userdata/b.json", &[]).await.text(), "\"second\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_on_the_disk_are_bounded_and_can_be_switched_off() {
    let mut mortal = Mortal::new(1).await;
    let bytes = |mortal: &Mortal| copies(mortal.state()).values().map(Vec::len).sum::<usize>();
    let text = format!("\"{}\"", "x".repeat(2 << 10));
    for number in 0..8 {
        assert_eq!(post(&mortal, &format!("/userdata/{number}.json"), &text).await.status, 200);
    }
    until("all are copied", || 8 * text.len() < bytes(&mortal)).await;
    mortal.crash().await;
    mortal.start_with(|config| config.state.copies = 8 << 10).await;
    until("what is too much goes", || bytes(&mortal) <= 8 << 10).await;
    assert!(0 < bytes(&mortal));
    assert_eq!(post(&mortal, "/userdata/new.json", "\"newest\"").await.status, 200);
    is_copied(mortal.state(), "newest").await;
    assert!(bytes(&mortal) <= 8 << 10, "the oldest go first");
    mortal.crash().await;
    mortal.start_with(|config| config.state.copies = 0).await;
    until("all go", || copies(mortal.state()).is_empty()).await;
    assert_eq!(
        post(&mortal, "/userdata/0.json", "1").await.status,
        200,
        "and nothing else changes"
    );
}

/// The home may have taken it: nobody has heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_is_not_given_after_a_write_that_a_crash_cut_off() {
    let mut mortal = Mortal::new(1).await;
    for (path, body) in [("/userdata/a.json", "\"old\""), ("/userdata/b.json", "\"kept\"")] {
        assert_eq!(post(&mortal, path, body).await.status, 200);
        is_copied(mortal.state(), body).await;
    }
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.text(), "\"old\"");
    until("nothing is in doubt", || !is_doubted(&mortal)).await;
    mortal.sim("a").set_faults(|faults| faults.latency_ms = 60_000);
    let front = mortal.front();
    let mut write = JoinSet::new();
    write.spawn(async move { send(front, Method::POST, "/userdata/%61.json", &[], "2").await });
    let is_write = |it: &mooring::sim::Seen| it.method == "POST" && it.target.contains("%61");
    let has_it = || mortal.sim("a").requests().iter().any(is_write);
    until("the home has it", || has_it() && is_doubted(&mortal)).await;
    let home = mortal.gateway().shared.home().unwrap();
    mortal.sim("a").crash().await;
    until("the home is seen to be down", || !home.is_up()).await;
    let now = get(&mortal, "/userdata/a.json", &[]).await;
    assert_eq!(now.status, 503, "while it is on its way, and after: {now:?}");
    assert!(is_in_a_copy(mortal.state(), "\"kept\""));
    mortal.crash().await;
    write.abort_all();
    mortal.start_with(|_| {}).await;
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.status, 503);
    assert_eq!(get(&mortal, "/userdata/b.json", &[]).await.text(), "\"kept\"");
}

/// True if copies of anything are in doubt, by the number in the file.
fn is_doubted(mortal: &Mortal) -> bool {
    doubts(mortal)[48..52] != [0; 4]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_refused_costs_nobody_his_copies() {
    let mut mortal = Mortal::new(1).await;
    assert_eq!(post(&mortal, "/userdata/a.json", "\"mine\"").await.status, 200);
    is_copied(mortal.state(), "\"mine\"").await;
    for _ in 0..3 {
        let kept = post(&mortal, "/userdata/a.json?overwrite=false", "\"theirs\"").await;
        assert_eq!(kept.status, 409);
    }
    until("nothing is in doubt", || !is_doubted(&mortal)).await;
    has_lost_its_home(&mut mortal).await;
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.text(), "\"mine\"");
}

/// It is always full: what is written at the home cannot be noted there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_doubts_gives_no_copies_and_saving_goes_on_or_not_as_configured() {
    let mut mortal = Mortal::new(1).await;
    assert_eq!(post(&mortal, "/userdata/a.json", "\"old\"").await.status, 200);
    is_copied(mortal.state(), "\"old\"").await;
    mortal.crash().await;
    let marks = mortal.state().join("copies/doubts");
    fs::remove_file(&marks).unwrap();
    std::os::unix::fs::symlink("/dev/full", &marks).unwrap();
    mortal
        .start_with(|config| config.state.on_error = Some(mooring::config::OnJournalError::Refuse))
        .await;
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
    let refused = post(&mortal, "/userdata/a.json", "\"new\"").await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "journal_failed"));
    assert!(refused.text().contains("not saved"), "{}", refused.text());
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.text(), "\"old\"");
    mortal.crash().await;
    mortal.start_with(|_| {}).await;
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
    assert_eq!(post(&mortal, "/userdata/a.json", "\"new\"").await.status, 200);
    // The disk is well again, and what it has is older than what was saved.
    fs::remove_file(&marks).unwrap();
    until("it is looked into", || marks.exists()).await;
    mortal.sim("a").crash().await;
    until("the home is seen to be down", || !home.is_up()).await;
    mortal.crash().await;
    mortal.start_with(|_| {}).await;
    let copy = get(&mortal, "/userdata/a.json", &[]).await;
    assert!(copy.status == 503 || copy.text() == "\"new\"", "{copy:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_the_disk_has_lost_is_made_again_when_the_home_confirms_it() {
    let mut mortal = Mortal::new(1).await;
    mortal.crash().await;
    let folder = mortal.state().join("copies");
    let _ = fs::remove_dir_all(&folder);
    fs::write(&folder, "in the way").unwrap();
    mortal.start_with(|_| {}).await;
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
    assert_eq!(post(&mortal, "/userdata/a.json", "\"mine\"").await.status, 200);
    fs::remove_file(&folder).unwrap();
    until("it is looked into again", || folder.join("doubts").exists()).await;
    // What waited is written now. That is lost, too.
    is_copied(mortal.state(), "\"mine\"").await;
    copies(mortal.state()).keys().for_each(|path| fs::remove_file(path).unwrap());
    mortal.sim("a").crash().await;
    until("the home is seen to be down", || !home.is_up()).await;
    mortal.gateway().stale_cache.limit(0);
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.status, 503);
    mortal.gateway().stale_cache.limit(1 << 20);
    mortal.sim("a").restart().await.unwrap();
    until("the home is up", || home.is_up()).await;
    let first = get(&mortal, "/userdata/a.json", &[]).await;
    let tag = first.header("etag").to_owned();
    assert_eq!((first.status, tag.is_empty()), (200, false));
    is_copied(mortal.state(), "\"mine\"").await;
    // In memory there is one, so that a 304 makes none by itself.
    copies(mortal.state()).keys().for_each(|path| fs::remove_file(path).unwrap());
    forgets_on_disk(&mortal).await;
    let known = get(&mortal, "/userdata/a.json", &[("if-none-match", &tag)]).await;
    assert_eq!(known.status, 304);
    is_copied(mortal.state(), "\"mine\"").await;
}

/// Has it find out that its copies are gone: nobody reads them while the home is up.
async fn forgets_on_disk(mortal: &Mortal) {
    let front = mortal.gateway();
    let home = front.shared.records.home_server().unwrap();
    let key =
        mooring::front::stale_cache::CacheKey::own("/userdata/a.json", "", &http::HeaderMap::new());
    assert!(front.copies.get(&home, &key).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_not_takes_no_room_on_the_disk() {
    let mortal = Mortal::new(1).await;
    for number in 0..20 {
        let path = format!("/userdata/none-{number}.json");
        assert_eq!(get(&mortal, &path, &[]).await.status, 404);
    }
    assert_eq!(post(&mortal, "/userdata/a.json", "\"mine\"").await.status, 200);
    is_copied(mortal.state(), "\"mine\"").await;
    assert_eq!(copies(mortal.state()).len(), 1);
}

/// Reads of one address, with other credentials each, leave the copies of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_pushes_out_the_copies_of_others() {
    let mut mortal = Mortal::new(1).await;
    mortal.crash().await;
    let small = |config: &mut mooring::config::Config| {
        config.state.copies = 64 << 10;
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    };
    mortal.start_with(small).await;
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
    let from = |address: &'static str| ("x-forwarded-for", address);
    let text = format!("\"{}\"", "x".repeat(4 << 10));
    let ada = [from("10.0.0.1")];
    let saved = send(mortal.front(), Method::POST, "/userdata/a.json", &ada, &text).await;
    assert_eq!(saved.status, 200);
    is_copied(mortal.state(), &text).await;
    let first = copies(mortal.state()).into_keys().next().unwrap();
    for number in 0..40 {
        let cookie = format!("session={number}");
        let bob = [from("10.0.0.2"), ("cookie", cookie.as_str())];
        assert_eq!(get(&mortal, "/userdata/a.json", &bob).await.status, 200);
    }
    let bytes = || copies(mortal.state()).values().map(Vec::len).sum::<usize>();
    until("the folder is full", || 50 << 10 < bytes()).await;
    assert!(first.exists(), "the oldest, and the only one of its address");
}

/// A folder that cannot be is no reason not to start, nor not to answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_copies_hurts_nobody() {
    let mut mortal = Mortal::new(1).await;
    mortal.crash().await;
    let _ = fs::remove_dir_all(mortal.state().join("copies"));
    fs::write(mortal.state().join("copies"), "in the way").unwrap();
    mortal.start_with(|_| {}).await;
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
    assert_eq!(post(&mortal, "/userdata/a.json", "1").await.status, 200);
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.text(), "1");
    mortal.sim("a").crash().await;
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.text(), "1", "from memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_saved_last_is_what_is_given_though_nobody_has_read_it_since() {
    let world = World::new(2).await;
    world.all_up().await;
    world.post("/userdata/a.json", "1").await;
    assert_eq!(world.get("/userdata/a.json").await.text(), "1");
    world.post("/userdata/a.json", "22").await;
    world.post("/userdata/c.json", "3").await;
    world.post("/settings/Comfy.X", "\"new\"").await;
    assert_eq!(world.get(LIST).await.status, 404);
    world.post(FLOW, "{}").await;
    let saving = &world.gateway.saving;
    until("all is read anew", || saving.taken() == 0).await;
    let deleted = send(world.front, Method::DELETE, "/userdata/c.json", &[], "").await;
    assert_eq!(deleted.status, 204);
    until("all is read anew", || saving.taken() == 0).await;
    world.sim("a").crash().await;
    world.is_down("a").await;
    for (path, status, text) in
        [("/userdata/a.json", 200, "22"), ("/userdata/c.json", 404, ""), (FLOW, 200, "{}")]
    {
        let copy = world.get(path).await;
        assert_eq!((copy.status, copy.text().as_str()), (status, text), "{path}");
        assert!(stands_in(&copy), "{path}: {copy:?}");
    }
    assert!(world.get("/settings").await.text().contains("\"new\""));
    assert!(world.get(LIST).await.text().contains("mine.json"), "the list has the new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_home_is_off_it_is_read_from_copies_and_not_written() {
    let world = World::new(2).await;
    world.all_up().await;
    world.post("/userdata/a.json", "1").await;
    assert_eq!(world.get("/userdata/a.json").await.text(), "1");
    let off = json!({ "state": "off" }).to_string();
    assert_eq!(world.admin_post("/api/v1/backends/a/state", &off).await.status, 200);
    let copy = world.get("/userdata/a.json").await;
    assert!(copy.text() == "1" && stands_in(&copy), "{copy:?}");
    let refused = world.post("/userdata/a.json", "2").await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "backend_off"));
    assert!(refused.text().contains("a is off: not saved"), "{}", refused.text());
}

fn home_in(backends: &Value) -> Vec<(String, String)> {
    let all = backends["backends"].as_array().unwrap();
    let text = |it: &Value| it.as_str().map(str::to_owned);
    all.iter().filter_map(|it| Some((text(&it["name"])?, text(&it["home"])?))).collect()
}

async fn home(world: &World) -> (String, String) {
    let list = world.admin_get("/api/v1/backends").await.json();
    let found = home_in(&list);
    assert_eq!(found.len(), 1, "{list}");
    found[0].clone()
}

fn is(name: &str, why: &str) -> (String, String) {
    (name.to_owned(), why.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_home_leaves_the_next_is_chosen_and_stays_it() {
    let world = World::new(3).await;
    world.all_up().await;
    assert_eq!(home(&world).await, is("a", "first_by_name"));
    world.post("/userdata/a.json", "1").await;
    assert_eq!(world.get("/userdata/a.json").await.backend(), "a");
    let mut all = Vec::new();
    world.reload(|config| all.clone_from(&config.backends)).await.unwrap();
    let without_a = all[1..].to_vec();
    world.reload(|config| config.backends = without_a).await.unwrap();
    assert_eq!(home(&world).await, is("b", "next"));
    let read = world.get("/userdata/a.json").await;
    assert_eq!((read.status, read.backend()), (404, "b"), "what is at a is not b's");
    let with_a = all.clone();
    world.reload(|config| config.backends = with_a).await.unwrap();
    assert_eq!(home(&world).await, is("b", "next"), "one that comes back is not the home");
    let only_c = all[2..].to_vec();
    world
        .reload(|config| {
            config.backends.retain(|it| it.name != "b");
            "c".clone_into(&mut config.server.home);
        })
        .await
        .unwrap();
    assert_eq!(home(&world).await, is("c", "named"), "named in the same reload");
    world
        .reload(|config| {
            config.backends = only_c;
            config.server.home.clear();
        })
        .await
        .unwrap();
    assert_eq!(home(&world).await, is("c", "remembered"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_an_operator_removes_is_followed_by_the_next() {
    let world = World::new(1).await;
    let b = Sim::start(network(), Options::named("b")).await.unwrap();
    let body = json!({ "url": b.url() }).to_string();
    let json = [("content-type", "application/json")];
    let added = send(world.admin, Method::PUT, "/api/v1/backends/b", &json, &body).await;
    assert_eq!(added.status, 201, "{}", added.text());
    world.reload(|config| "b".clone_into(&mut config.server.home)).await.unwrap();
    assert_eq!(home(&world).await, is("b", "named"));
    world.reload(|config| config.server.home.clear()).await.unwrap();
    assert_eq!(home(&world).await, is("b", "remembered"));
    let removed = send(world.admin, Method::DELETE, "/api/v1/backends/b", &[], "").await;
    assert!(matches!(removed.status, 202 | 204), "{}", removed.text());
    assert_eq!(home(&world).await.0, "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_is_remembered_though_another_comes_first_by_name() {
    let mut mortal = Mortal::over(["b", "c"].map(Options::named)).await;
    let name = |mortal: &Mortal| mortal.gateway().shared.records.home_name();
    assert_eq!(name(&mortal).as_deref(), Some("b"));
    until("it is in the journal", || mortal.gateway().shared.records.journal.waiting() == 0).await;
    mortal.crash().await;
    mortal.sims.push(Sim::start(network(), Options::named("a")).await.unwrap());
    mortal.start_with(|_| {}).await;
    assert_eq!(name(&mortal).as_deref(), Some("b"));
    mortal.crash().await;
    // Its box is gone from the file.
    mortal.sims.retain(|sim| sim.name() != "b");
    mortal.start_with(|_| {}).await;
    assert_eq!(name(&mortal).as_deref(), Some("a"));
    mortal.crash().await;
    mortal.start_with(|config| "c".clone_into(&mut config.server.home)).await;
    assert_eq!(name(&mortal).as_deref(), Some("c"));
    mortal.crash().await;
    mortal.start_with(|config| config.state.dir = StateDir::Nowhere).await;
    assert_eq!(name(&mortal).as_deref(), Some("a"), "nothing is remembered in memory alone");
}

/// It is found late, and then not at first: another one would be the home for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_was_found_is_the_home_after_a_restart_though_it_is_found_late() {
    let mut mortal = Mortal::new(1).await;
    mortal.crash().await;
    let found = Sim::start(network(), Options::named("zed")).await.unwrap();
    let dns = DnsServer::start().await;
    serve(&dns, &[&found]);
    let resolver = dns.at.to_string();
    let places = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str())];
    let port = |mortal: &Mortal| mortal.gateway().shared.home().map(|it| it.dialler.port());
    let zed = Some(found.addr().port());
    mortal
        .start_with(|config| {
            config.backends.clear();
            config.discovery = found_by(&places);
        })
        .await;
    until("it is found", || port(&mortal) == zed).await;
    until("it is in the journal", || mortal.gateway().shared.records.journal.waiting() == 0).await;
    mortal.crash().await;
    dns.set(|zone| zone.is_silent = true);
    mortal.start_with(|config| config.discovery = found_by(&places)).await;
    assert_eq!(port(&mortal), zed, "though another comes first by name");
    mortal.crash().await;
    // Of a discovery under another name nobody remembers what it had found.
    let others = [("others.srv", SERVICE), ("others.resolver", resolver.as_str())];
    mortal.start_with(|config| config.discovery = found_by(&others)).await;
    assert_eq!(port(&mortal), None);
    let refused = post(&mortal, "/userdata/a.json", "1").await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "backend_down"));
    assert!(refused.text().contains("not saved"), "{}", refused.text());
    dns.set(|zone| zone.is_silent = false);
    until("it is found", || port(&mortal) == zed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_read_copies_at_once_all_get_them() {
    let mut mortal = Mortal::new(1).await;
    let path = |number: usize| format!("/userdata/{number}.json");
    let text = |number: usize| format!("\"number {number} \"");
    for number in 0..20 {
        assert_eq!(post(&mortal, &path(number), &text(number)).await.status, 200);
        is_copied(mortal.state(), &text(number)).await;
    }
    has_lost_its_home(&mut mortal).await;
    let mut readers = JoinSet::new();
    for number in 0..20 {
        let (front, path) = (mortal.front(), path(number));
        readers.spawn(async move {
            let copy = send(front, Method::GET, &path, &[], "").await;
            copy.text() == text(number)
        });
    }
    assert!(readers.join_all().await.into_iter().all(|has_it| has_it));
}
