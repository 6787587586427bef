//! Backends that are the endpoints of a service of Kubernetes.

use std::time::Duration;

use mooring::net::now;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::growing::{grow_and_shrink, has, is_failing, names, sim};
use crate::kubernetes_api::{Endpoint, KubernetesApi};
use crate::support::{World, network, quick, slow, until};

const PLACES: [(&str, &str); 1] = [("gpus.kubernetes", "comfyui:http")];

fn endpoint(pod: &str, uid: &str, sim: &Sim) -> Endpoint {
    Endpoint { pod: pod.to_owned(), uid: uid.to_owned(), at: sim.addr(), is_ready: true }
}

/// A slice for each simulator, because each has a port of its own.
fn there(api: &KubernetesApi, all: [&Sim; 3], sims: &[&Sim]) {
    for sim in all {
        let endpoint = endpoint(&format!("comfyui-{}", sim.name()), sim.name(), sim);
        let is_there = sims.iter().any(|it| it.name() == sim.name());
        let endpoints = if is_there { vec![endpoint] } else { vec![] };
        api.set(&format!("slice-{}", sim.name()), &endpoints, &Value::Null);
    }
}

async fn watches(api: &KubernetesApi) {
    until("it watches", || api.watches() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_kubernetes_grows_from_none_to_three_and_shrinks_to_none() {
    let (a, b, c) = (sim("a").await, sim("b").await, sim("c").await);
    let api = KubernetesApi::start().await;
    let world = World::finding_in(api.pod(), &PLACES, |_| {}).await;
    let all = [&a, &b, &c];
    grow_and_shrink(&world, all, |sims| there(&api, all, sims)).await;
    assert!(!is_failing(&world, "gpus"));
    let lists = api.asked().iter().filter(|it| !it.contains("watch=true")).count();
    assert_eq!(lists, 1, "all else was watched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_used_within_two_seconds_of_being_ready_with_what_its_slice_says() {
    let (a, api) = (sim("a").await, KubernetesApi::start().await);
    let world = World::finding_in(api.pod(), &PLACES, |_| {}).await;
    watches(&api).await;
    let unready = Endpoint { is_ready: false, ..endpoint("comfyui-0", "u0", &a) };
    api.set("s", &[unready], &Value::Null);
    api.bookmark();
    let annotations = json!({
        "mooring/weight": "4", "mooring/max-pending": "0", "mooring/labels": "video, h100",
    });
    let began = now();
    api.set("s", &[endpoint("comfyui-0", "u0", &a)], &annotations);
    has(&world, &["comfyui-0"]).await;
    world.all_up().await;
    assert_eq!(world.submit("ada", &quick(1)).await.status, 200);
    let took = now().duration_since(began);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let backend = world.gateway.shared.fleet.by_name("comfyui-0").unwrap();
    assert_eq!((backend.weight().get(), backend.max_pending()), (4, None));
    assert_eq!(*backend.labels(), ["video", "h100"]);
    assert_eq!(backend.identity().as_deref(), Some("u0"));
    api.set("s", &[endpoint("comfyui-0", "u0", &a)], &json!({ "mooring/weight": "many" }));
    until("a wrong weight is none", || backend.weight().get() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_good_list_stays_whatever_fails() {
    let (a, b) = (sim("a").await, sim("b").await);
    let api = KubernetesApi::start().await;
    api.set("s", &[endpoint("comfyui-0", "u0", &a)], &Value::Null);
    let world = World::finding_in(api.pod(), &PLACES, |_| {}).await;
    assert_eq!(names(&world), ["comfyui-0"], "found before the front is open");
    watches(&api).await;
    let works = async || assert_eq!(world.submit("ada", &quick(1)).await.status, 200);
    world.all_up().await;
    // A watch that breaks off goes on from where it was, and so does one after a bookmark.
    api.bookmark();
    api.cut();
    until("it watches again", || 3 <= api.asked().len()).await;
    assert!(!api.asked()[2..].iter().any(|it| !it.contains("watch=true")), "{:?}", api.asked());
    works().await;
    // What was forgotten is listed anew.
    watches(&api).await;
    let before = api.asked().len();
    api.expire();
    let lists = || api.asked()[before..].iter().any(|it| !it.contains("watch=true"));
    until("it lists again", lists).await;
    watches(&api).await;
    // The server sees the new watch before the gateway says that all is well.
    until("it is well", || !is_failing(&world, "gpus")).await;
    assert_eq!(names(&world), ["comfyui-0"]);
    // A version that is too old for a new watch.
    api.refuse(Some(403));
    until("it fails", || is_failing(&world, "gpus")).await;
    works().await;
    assert_eq!(names(&world), ["comfyui-0"]);
    api.expire();
    api.set("t", &[endpoint("comfyui-1", "u1", &b)], &Value::Null);
    api.refuse(None);
    until("it is well", || !is_failing(&world, "gpus")).await;
    has(&world, &["comfyui-0", "comfyui-1"]).await;
    // A token that was replaced is read anew.
    api.rotate("second-token");
    api.cut();
    watches(&api).await;
    api.remove("t");
    has(&world, &["comfyui-0"]).await;
    // The server is away.
    drop(api);
    until("it fails", || is_failing(&world, "gpus")).await;
    works().await;
    assert_eq!(names(&world), ["comfyui-0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_pod_at_an_address_is_another_server() {
    let (a, api) = (sim("a").await, KubernetesApi::start().await);
    api.set("s", &[endpoint("comfyui-0", "u0", &a)], &Value::Null);
    let world = World::finding_in(api.pod(), &PLACES, |_| {}).await;
    watches(&api).await;
    world.all_up().await;
    let mut ada = world.socket("ada").await;
    let done = world.submit("ada", &quick(3)).await.prompt_id();
    ada.until_end(&done).await;
    let entry = world.get(&format!("/history/{done}")).await.json()[&done].clone();
    let image = entry["outputs"]["3"]["images"][0]["filename"].as_str().unwrap().to_owned();
    let running = world.submit("ada", &slow(400, 20.0)).await.prompt_id();
    let id = world.gateway.shared.fleet.by_name("comfyui-0").unwrap().id;
    let state = world.admin_post("/api/v1/backends/comfyui-0/state", r#"{"state":"draining"}"#);
    assert_eq!(state.await.status, 200);
    // It has nothing of what the one before had.
    let listen = a.addr();
    a.crash().await;
    drop(a);
    let b = Sim::start(network(), Options { listen, ..Options::named("b") }).await.unwrap();
    api.set("s", &[endpoint("comfyui-0", "u9", &b)], &Value::Null);
    // What was pending there is lost, and that is told.
    let seen = ada.until_end(&running).await;
    assert!(seen.contains(&"execution_error".to_owned()), "{seen:?}");
    let other = || world.gateway.shared.fleet.by_name("comfyui-0").filter(|it| it.id != id);
    until("another one has its place", || other().is_some()).await;
    // What an operator said of the one before is not said of this one.
    assert_eq!(other().unwrap().admin().as_str(), "ready");
    // Its file names rest: what this one makes of the same name is told with its own.
    let view = format!("/view?filename={image}&type=output&clientId=ada");
    assert_ne!(world.get(&view).await.status, 200, "the file of the one before is gone");
    world.all_up().await;
    let again = world.submit("ada", &quick(4)).await.prompt_id();
    ada.until_end(&again).await;
    let entry = world.get(&format!("/history/{again}")).await.json()[&again].clone();
    let made = &entry["outputs"]["3"]["images"][0];
    assert!(made["subfolder"].as_str().unwrap().contains("~comfyui-0"), "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_said_holds_for_a_pod_that_goes_and_comes_back() {
    let (a, api) = (sim("a").await, KubernetesApi::start().await);
    let zero = || endpoint("comfyui-0", "u0", &a);
    api.set("s", &[zero()], &Value::Null);
    let world = World::finding_in(api.pod(), &PLACES, |_| {}).await;
    watches(&api).await;
    let said = r#"{"state":"off","by":"ada","why":"its fan"}"#;
    assert_eq!(world.admin_post("/api/v1/backends/comfyui-0/state", said).await.status, 200);
    api.set("s", &[Endpoint { is_ready: false, ..zero() }], &Value::Null);
    has(&world, &[]).await;
    api.set("s", &[zero()], &Value::Null);
    has(&world, &["comfyui-0"]).await;
    // It is recalled a moment after the backend has joined.
    let said = || world.gateway.shared.fleet.by_name("comfyui-0").map(|it| it.admin().as_str());
    until("it is off again", || said() == Some("off")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_a_cluster_a_discovery_says_why_it_finds_nobody() {
    let world = World::finding(&PLACES, |_| {}).await;
    until("it fails", || is_failing(&world, "gpus")).await;
    assert_eq!(world.admin_get("/readyz").await.status, 503);
}
