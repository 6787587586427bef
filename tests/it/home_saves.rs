//! What is saved at the home, and what copies of it are good: however it is spelled, whether its
//! writer waits for the answer, and while the home is busy with it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use mooring::config::{Config, StateDir};
use mooring::front::home::{self, Asked};
use mooring::front::stale_cache::{CacheKey, Found};
use mooring::net::now;
use mooring::sim::{Hang, Options, Seen, Sim};
use tokio::task::JoinSet;

use crate::home_away::{get, has_lost_its_home, is_copied, post, stands_in};
use crate::restart::Mortal;
use crate::support::{Answer, World, network, send, until};

fn key(path: &str) -> CacheKey {
    CacheKey::own(path, "", &HeaderMap::new())
}

/// Waits until no write is on its way, and what those have changed is read.
async fn all_is_read_anew(mortal: &Mortal) {
    let saving = &mortal.gateway().saving;
    until("all is read anew", || saving.taken() == 0).await;
}

async fn home_is_up(mortal: &Mortal) {
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
}

async fn home_crashes(mortal: &Mortal) {
    let home = mortal.gateway().shared.home().unwrap();
    mortal.sim("a").crash().await;
    until("the home is seen to be down", || !home.is_up()).await;
}

/// A write that the home has, and is not done with.
async fn hangs_at(sim: &Sim, front: std::net::SocketAddr, path: &'static str) -> JoinSet<Answer> {
    sim.set_faults(|faults| faults.hang = Hang::Saving);
    let before = sim.requests().len();
    let mut write = JoinSet::new();
    write.spawn(async move { send(front, Method::POST, path, &[], "\"new\"").await });
    let is_it = |it: &Seen| it.method == "POST" && it.target.contains(path);
    until("the home has it", || sim.requests().iter().skip(before).any(is_it)).await;
    write
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_under_another_spelling_ends_copies_too() {
    let mortal = Mortal::new(1).await;
    let read = "/userdata/flows%2Fa.json";
    for (number, (write, body)) in [
        ("/userdata/flows%252Fa.json", "\"twice encoded\""),
        ("/api/userdata/.%2Fflows%2F%2Fa.json", "\"doubled\""),
    ]
    .into_iter()
    .enumerate()
    {
        let old = format!("\"old {number}\"");
        assert_eq!(post(&mortal, read, &old).await.status, 200);
        is_copied(mortal.state(), &old).await;
        assert_eq!(post(&mortal, write, body).await.status, 200);
        all_is_read_anew(&mortal).await;
        home_crashes(&mortal).await;
        let copy = get(&mortal, read, &[]).await;
        assert_eq!((copy.status, copy.text().as_str()), (200, body), "{write}: read anew");
        mortal.sim("a").restart().await.unwrap();
        home_is_up(&mortal).await;
    }
    assert_eq!(post(&mortal, "/userdata/flows/move/old", "").await.status, 200);
    all_is_read_anew(&mortal).await;
    home_crashes(&mortal).await;
    let copy = get(&mortal, read, &[]).await;
    assert!(copy.status == 404 && stands_in(&copy), "its folder was moved: {copy:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_are_saved_as_a_file_end_copies_of_settings() {
    let mortal = Mortal::new(1).await;
    assert_eq!(post(&mortal, "/settings/Comfy.X", "\"old\"").await.status, 200);
    is_copied(mortal.state(), "old").await;
    let saved = post(&mortal, "/userdata/comfy.settings.json", "{\"Comfy.X\":\"new\"}").await;
    assert_eq!(saved.status, 200);
    all_is_read_anew(&mortal).await;
    home_crashes(&mortal).await;
    let copy = get(&mortal, "/settings", &[]).await;
    assert!(copy.text().contains("new") && stands_in(&copy), "{copy:?}");
}

/// A page that is closed while it saves leaves a write that nobody waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_closed_while_it_saves_has_its_settings_when_the_home_is_away() {
    let mut mortal = Mortal::new(2).await;
    home_is_up(&mortal).await;
    assert_eq!(post(&mortal, "/settings/Comfy.Color", "\"old\"").await.status, 200);
    is_copied(mortal.state(), "old").await;
    let mut write = hangs_at(mortal.sim("a"), mortal.front(), "/settings/Comfy.Color").await;
    write.shutdown().await;
    mortal.sim("a").set_faults(|faults| faults.hang = Hang::None);
    all_is_read_anew(&mortal).await;
    is_copied(mortal.state(), "new").await;
    has_lost_its_home(&mut mortal).await;
    let copy = get(&mortal, "/settings", &[]).await;
    assert!(copy.text().contains("new") && stands_in(&copy), "{copy:?}");
}

async fn loses_a_write(mortal: &Mortal, path: &'static str) {
    let mut write = hangs_at(mortal.sim("a"), mortal.front(), path).await;
    home_crashes(mortal).await;
    assert_eq!(write.join_next().await.unwrap().unwrap().status, 502);
    mortal.sim("a").set_faults(|faults| faults.hang = Hang::None);
    mortal.sim("a").restart().await.unwrap();
    home_is_up(mortal).await;
}

/// The connection breaks, and the home may do it later: what it gives meanwhile may be what was
/// there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_write_without_an_answer_copies_rest_and_come_back_by_themselves() {
    let mut mortal = Mortal::new(1).await;
    let path = "/userdata/a.json";
    assert_eq!(post(&mortal, path, "\"old\"").await.status, 200);
    is_copied(mortal.state(), "\"old\"").await;
    loses_a_write(&mortal, path).await;
    assert_eq!(get(&mortal, path, &[]).await.text(), "\"old\"");
    assert!(mortal.gateway().writes.is_on_its_way(&key(path)));
    home_crashes(&mortal).await;
    assert_eq!(get(&mortal, path, &[]).await.status, 503, "it may be done since");

    mortal.sim("a").restart().await.unwrap();
    mortal.crash().await;
    let short = |config: &mut Config| config.server.answer_timeout = Duration::from_secs(1);
    mortal.start_with(short).await;
    home_is_up(&mortal).await;
    loses_a_write(&mortal, path).await;
    all_is_read_anew(&mortal).await;
    home_crashes(&mortal).await;
    let copy = get(&mortal, path, &[]).await;
    assert!(copy.text() == "\"old\"" && stands_in(&copy), "nobody has read it since: {copy:?}");
}

/// It looks down: it is not gone, and another's settings are not what was saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_is_busy_with_a_write_is_waited_for() {
    let mut sims = Vec::new();
    for name in ["a", "b"] {
        sims.push(Sim::start(network(), Options::named(name)).await.unwrap());
    }
    let world = World::over(sims, |config| {
        config.fleet.probe_interval = Duration::from_millis(100);
        config.fleet.patience = Duration::from_millis(200);
        config.fleet.probe_timeout = Duration::from_millis(400);
        config.fleet.grace = Duration::from_millis(500);
    })
    .await;
    world.all_up().await;
    let mut write = hangs_at(world.sim("a"), world.front, "/settings/Comfy.Color").await;
    world.sim("a").set_faults(|faults| {
        faults.latency_ms = 60_000;
        faults.mute_sockets = true;
    });
    world.is_down("a").await;
    let mut read = JoinSet::new();
    let front = world.front;
    read.spawn(async move { send(front, Method::GET, "/settings", &[], "").await });
    let other = world.get("/users").await;
    assert_eq!((other.status, other.backend(), stands_in(&other)), (200, "b", true));
    assert!(read.try_join_next().is_none(), "it waits");
    world.sim("a").set_faults(|faults| {
        faults.latency_ms = 0;
        faults.mute_sockets = false;
        faults.hang = Hang::None;
    });
    assert_eq!(write.join_next().await.unwrap().unwrap().status, 200);
    let read = read.join_next().await.unwrap().unwrap();
    assert!(read.text().contains("new") && read.backend() == "a", "{read:?}");
}

/// A page without its home tries to save a lot. That takes nobody's copies away meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_while_the_home_is_away_was_never_on_its_way() {
    let mortal = Mortal::new(1).await;
    home_is_up(&mortal).await;
    home_crashes(&mortal).await;
    let writes = Arc::clone(&mortal.gateway().writes);
    let begun = writes.begun();
    let refused = post(&mortal, "/settings/Comfy.Color", "\"red\"").await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "backend_down"));
    assert_eq!(writes.begun(), begun);
}

/// A process that cannot open its journal does not keep up the copies that the one before made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_not_given_after_a_run_without_a_journal() {
    let mut mortal = Mortal::new(1).await;
    assert_eq!(post(&mortal, "/userdata/a.json", "\"old\"").await.status, 200);
    is_copied(mortal.state(), "\"old\"").await;
    mortal.crash().await;
    let (journal, kept) = (mortal.state().join("journal.redb"), mortal.state().join("kept"));
    fs::rename(&journal, &kept).unwrap();
    fs::create_dir(&journal).unwrap();
    let state = StateDir::Default(mortal.state().to_owned());
    mortal.start_with(|config| config.state.dir = state).await;
    let home = mortal.gateway().shared.home().unwrap();
    until("the home is up", || home.is_up()).await;
    assert_eq!(post(&mortal, "/userdata/a.json", "\"new\"").await.status, 200);
    mortal.crash().await;
    mortal.sim("a").crash().await;
    fs::remove_dir(&journal).unwrap();
    fs::rename(&kept, &journal).unwrap();
    mortal.start_with(|_| {}).await;
    assert_eq!(get(&mortal, "/userdata/a.json", &[]).await.status, 503);
}

/// What the home said before a write says nothing of what is there since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_answer_ends_no_newer_copy() {
    let world = World::new(1).await;
    world.all_up().await;
    let (front, path) = (&world.gateway, "/userdata/a.json");
    let home = front.shared.home().unwrap();
    for status in [304, 401, 403, 404] {
        world.post(path, "1").await;
        until("all is read anew", || front.saving.taken() == 0).await;
        let asked = || Asked::of(&home, world.front.ip(), front.writes.number());
        let answer = || {
            let mut answer = mooring::front::json("");
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            answer.headers_mut().insert("etag", HeaderValue::from_static("\"of before\""));
            answer
        };
        let before = asked();
        world.post(path, "22").await;
        until("all is read anew", || front.saving.taken() == 0).await;
        drop(home::passed(front, key(path), &before, answer()));
        let found = front.stale_cache.get(&key(path), now());
        let Some((Found::Whole(whole), _)) = found else { panic!("{status}: {found:?}") };
        assert_eq!(&whole.body[..], b"22", "{status}");
        // One of now does.
        drop(home::passed(front, key(path), &asked(), answer()));
        let found = front.stale_cache.get(&key(path), now());
        assert!(!matches!(found, Some((Found::Whole(_), _))), "{status}: {found:?}");
    }
}
