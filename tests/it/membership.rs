//! Backends that come, change and go while everything runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use mooring::config::{BackendConfig, OnOff};
use mooring::fleet::diff::{BadDiff, Diff};
use mooring::net::unix_millis;
use mooring::routing::placement::AdminState;
use mooring::routing::state_change::{Holds, StateChange};
use mooring::session::control::{self, Force};
use serde_json::json;
use tokio::sync::Notify;

use crate::passthrough::{Act, ok, world as puppet_world};
use crate::support::{World, quick, send, slow, until};

/// What the gateway was configured with, and has to do with at this moment.
fn settings(world: &World, name: &str) -> BackendConfig {
    world.gateway.shared.fleet.by_name(name).expect("it is in the fleet").settings()
}

fn all(world: &World) -> Vec<BackendConfig> {
    world.gateway.shared.fleet.iter().map(|backend| backend.settings()).collect()
}

fn but(all: &[BackendConfig], name: &str) -> Vec<BackendConfig> {
    all.iter().filter(|it| it.name != name).cloned().collect()
}

fn change(world: &World, wanted: &[BackendConfig]) {
    world.gateway.sessions.change_fleet(wanted).expect("it is a fleet");
}

/// What operators are shown of it.
async fn state(world: &World, name: &str) -> String {
    let shown = world.admin_get("/api/v1/backends").await.json();
    let row = shown["backends"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned();
    row.unwrap()["state"].as_str().unwrap().to_owned()
}

async fn has_left(world: &World, name: &str) {
    until("it has left", || world.gateway.shared.fleet.by_name(name).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_leaves_when_its_work_is_done_and_may_come_again() {
    let world = World::new(2).await;
    let everyone = all(&world);
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(40, 1.5)).await;
    let home = running.backend().to_owned();
    let id = world.gateway.shared.fleet.by_name(&home).unwrap().id;
    change(&world, &but(&everyone, &home));
    // What is there goes on, with all that belongs to it; nobody new comes.
    let more = world.submit("ada", &quick(7)).await;
    assert_eq!(more.backend(), home, "who has work there stays");
    for stranger in ["bob", "cyd", "dan"] {
        assert_ne!(world.submit(stranger, &quick(1)).await.backend(), home);
    }
    ada.until_end(&more.prompt_id()).await;
    let history = world.get(&format!("/history/{}", more.prompt_id())).await.json();
    let image = history[more.prompt_id()]["outputs"]["3"]["images"][0].clone();
    has_left(&world, &home).await;
    until("its sockets are closed", || world.sim(&home).sids().is_empty()).await;
    // Its records name it still, and everything else goes on elsewhere.
    assert_eq!(*world.gateway.shared.fleet.get(id).name(), *home);
    let view = format!(
        "/view?filename={}&subfolder={}&type=output&clientId=ada",
        image["filename"].as_str().unwrap(),
        image["subfolder"].as_str().unwrap()
    );
    let gone = world.get(&view).await;
    assert_eq!(gone.status, 503, "{}", gone.text());
    assert!(gone.text().contains(&home), "{}", gone.text());
    let elsewhere = world.submit("ada", &quick(2)).await;
    assert_ne!(elsewhere.backend(), home);
    ada.until_end(&elsewhere.prompt_id()).await;
    // It comes again, and is another one.
    change(&world, &everyone);
    world.all_up().await;
    assert_ne!(world.gateway.shared.fleet.by_name(&home).unwrap().id, id);
    change(&world, &everyone.iter().filter(|it| it.name == home).cloned().collect::<Vec<_>>());
    let again = world.submit("eve", &quick(3)).await;
    assert_eq!((again.status, again.backend()), (200, home.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_that_leaves_at_once_had_is_told_to_be_lost() {
    let world = World::new(2).await;
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(200, 20.0)).await;
    let waiting = world.submit("ada", &quick(1)).await;
    let home = running.backend().to_owned();
    let leave = BTreeSet::from([world.gateway.shared.fleet.by_name(&home).unwrap().id]);
    let diff = Diff { leave, ..Diff::default() };
    world.gateway.sessions.apply(&diff).expect("there is another");
    for lost in [&running, &waiting] {
        let seen = ada.until_end(&lost.prompt_id()).await;
        assert!(seen.contains(&"execution_error".to_owned()), "{seen:?}");
        let entry = world.get(&format!("/history/{}", lost.prompt_id())).await.json();
        let status = &entry[lost.prompt_id()]["status"]["status_str"];
        assert_eq!(status, "error", "{entry}");
    }
    let elsewhere = world.submit("ada", &quick(2)).await;
    assert_ne!(elsewhere.backend(), home);
    ada.until_end(&elsewhere.prompt_id()).await;
    assert_eq!(world.gateway.sessions.apply(&diff), Err(BadDiff::NotThere), "only once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_names_change_under_running_work() {
    let world = World::new(2).await;
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(20, 1.0)).await;
    let home = running.backend().to_owned();
    let id = world.gateway.shared.fleet.by_name(&home).unwrap().id;
    let limit = |it: &BackendConfig| match it.name == home {
        true => BackendConfig {
            name: "zeta".to_owned(),
            max_pending: std::num::NonZeroU32::new(1),
            ..it.clone()
        },
        false => {
            BackendConfig { weight: std::num::NonZeroU32::MIN.saturating_add(4), ..it.clone() }
        }
    };
    let changed: Vec<_> = all(&world).iter().map(limit).collect();
    change(&world, &changed);
    assert_eq!(settings(&world, "zeta").max_pending.map(|it| it.get()), Some(1));
    assert_eq!(world.gateway.shared.fleet.by_name("zeta").unwrap().id, id, "the same server");
    let order: Vec<_> = all(&world).into_iter().map(|it| it.name).collect();
    assert_eq!(order.last().map(String::as_str), Some("zeta"), "{order:?}");
    // It is full now for whoever is new, and the prompt goes on under the new name.
    assert_ne!(world.submit("bob", &quick(1)).await.backend(), "zeta");
    let read = world.get("/queue?clientId=ada").await;
    assert_eq!(read.status, 200, "{}", read.text());
    ada.until_end(&running.prompt_id()).await;
    let shown = world.admin_get("/api/v1/backends").await.json();
    let row = shown["backends"].as_array().unwrap().iter().find(|it| it["name"] == "zeta");
    assert_eq!(row.unwrap()["max_pending"], json!(1));
    let metrics = world.admin_get("/metrics").await.text();
    assert!(metrics.contains("backend=\"zeta\""), "{metrics}");
    let stale = format!("mooring_backend_up{{backend=\"{home}\"}}");
    assert!(!metrics.contains(&stale), "a name that nobody has any more is in no scrape");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_under_a_name_is_another_server() {
    let world = World::new(2).await;
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(20, 1.5)).await;
    let (home, other) = match running.backend() {
        "a" => ("a", "b"),
        _ => ("b", "a"),
    };
    let moved = BackendConfig { name: home.to_owned(), ..settings(&world, other) };
    change(&world, std::slice::from_ref(&moved));
    let old = format!("{home}~old");
    let names: Vec<_> = all(&world).into_iter().map(|it| it.name).collect();
    assert_eq!(names, [home.to_owned(), old.clone()]);
    let more = world.submit("ada", &quick(2)).await;
    assert_eq!(more.backend(), old, "work stays where it is");
    let new = world.submit("bob", &quick(1)).await;
    assert_eq!((new.status, new.backend()), (200, home));
    let taken = world.sim(other).requests();
    let taken = taken.iter().filter(|it| it.method == "POST" && it.target == "/prompt");
    assert_eq!(taken.count(), 1, "the name leads to the other server now");
    ada.until_end(&more.prompt_id()).await;
    has_left(&world, &old).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_wanted_again_stays() {
    let world = World::new(2).await;
    let everyone = all(&world);
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(20, 1.5)).await;
    let home = running.backend().to_owned();
    let id = world.gateway.shared.fleet.by_name(&home).unwrap().id;
    change(&world, &but(&everyone, &home));
    assert_eq!(state(&world, &home).await, "draining");
    change(&world, &everyone);
    ada.until_end(&running.prompt_id()).await;
    assert_eq!(world.gateway.shared.fleet.by_name(&home).unwrap().id, id);
    assert_eq!(state(&world, &home).await, "ready");
}

/// Nothing is pending there, and somebody waits for an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_leaves_in_good_order_answers_what_it_was_asked_before() {
    for (method, passthrough, leaves_at_once) in [
        (Method::GET, OnOff::On, false),
        (Method::GET, OnOff::Off, false),
        (Method::POST, OnOff::On, false),
        (Method::POST, OnOff::Off, false),
        (Method::GET, OnOff::On, true),
        (Method::GET, OnOff::Off, true),
    ] {
        let told = Arc::new(Notify::new());
        let act = Act::AnswerWhenTold(Arc::clone(&told), ok("slow"));
        let (world, puppet) =
            puppet_world(&[("/pack/a", act)], |config| config.server.passthrough = passthrough)
                .await;
        let id = world.gateway.shared.fleet.by_name("a").unwrap().id;
        let leaving = async {
            until("it is asked", || !puppet.asked().is_empty()).await;
            if leaves_at_once {
                let diff = Diff { leave: BTreeSet::from([id]), ..Diff::default() };
                world.gateway.sessions.apply(&diff).unwrap();
            } else {
                change(&world, &[]);
                has_left(&world, "a").await;
                told.notify_one();
            }
        };
        let asked = send(world.front, method.clone(), "/pack/a", &[], "");
        let (answer, ()) = tokio::join!(asked, leaving);
        let expected = if leaves_at_once { 502 } else { 200 };
        let what = format!("{method} {passthrough:?} {leaves_at_once}");
        assert_eq!(answer.status, expected, "{what}: {}", answer.text());
    }
}

/// A hook whose request was on its way while its backend left: the next process takes work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_a_process_that_is_noted_after_it_left_is_not_kept() {
    let world = World::new(2).await;
    world.all_up().await;
    let everyone = all(&world);
    let sessions = &world.gateway.sessions;
    let backend = world.gateway.shared.fleet.by_name("b").unwrap();
    let diff = Diff { leave: BTreeSet::from([backend.id]), ..Diff::default() };
    sessions.apply(&diff).unwrap();
    let at = unix_millis();
    let word = |holds| StateChange {
        state: AdminState::Draining,
        by: "a hook".into(),
        why: None,
        at,
        holds,
    };
    let hook = word(Holds::OneProcess { at_latest: at + 3_600_000 });
    control::set_state(sessions, &backend, hook, Force::Safe).unwrap();
    change(&world, &everyone);
    assert_eq!(state(&world, "b").await, "ready");
    // A person means the server, whenever it comes again.
    let backend = world.gateway.shared.fleet.by_name("b").unwrap();
    let diff = Diff { leave: BTreeSet::from([backend.id]), ..Diff::default() };
    sessions.apply(&diff).unwrap();
    control::set_state(sessions, &backend, word(Holds::On), Force::Safe).unwrap();
    change(&world, &everyone);
    assert_eq!(state(&world, "b").await, "draining");
}
