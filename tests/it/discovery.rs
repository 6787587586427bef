//! Backends that are found by DNS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Method;
use mooring::config::Config;
use mooring::sim::{Options, Sim};
use serde_json::json;

use crate::dns_server::{DnsServer, SERVFAIL, Zone};
use crate::growing::{grow_and_shrink, has, is_failing, names, sim};
use crate::restart::Mortal;
use crate::support::{Socket, World, found_by, network, quick, send, slow, until};

pub(crate) const SERVICE: &str = "_comfyui._tcp.fleet.test";
const NAME: &str = "comfyui.fleet.test";

async fn sim_at(ip: [u8; 4], port: u16) -> Sim {
    let listen = SocketAddr::from((ip, port));
    Sim::start(network(), Options { listen, ..Options::named("sim") }).await.unwrap()
}

/// Each target is this machine, at the port of its simulator.
pub(crate) fn serve(dns: &DnsServer, sims: &[&Sim]) {
    let named = |sim: &&Sim| (format!("{}.fleet.test", sim.name()), sim.addr().port());
    let services: Vec<_> = sims.iter().map(named).collect();
    let services: Vec<_> = services.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    dns.set(|zone| {
        for (name, _) in &services {
            zone.has(name, &[[127, 0, 0, 1].into()]);
        }
        zone.serves(SERVICE, &services);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_dns_grows_from_none_to_three_and_shrinks_to_none() {
    let (a, b, c) = (sim("a").await, sim("b").await, sim("c").await);
    let dns = DnsServer::start().await;
    serve(&dns, &[]);
    let resolver = dns.at.to_string();
    let places = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str())];
    let world = World::finding(&places, |_| {}).await;
    grow_and_shrink(&world, [&a, &b, &c], |sims| {
        serve(&dns, sims);
    })
    .await;
    assert!(!is_failing(&world, "gpus"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_a_name_is_a_backend_and_stays_one_while_dns_fails() {
    let a = sim_at([127, 0, 0, 1], 0).await;
    let port = a.addr().port();
    let b = sim_at([127, 0, 0, 2], port).await;
    let dns = DnsServer::start().await;
    let ips: [IpAddr; 2] = [a.addr().ip(), b.addr().ip()];
    dns.set(|zone| zone.has(NAME, &ips));
    let (dns_at, at) = (dns.at.to_string(), format!("{NAME}:{port}"));
    let places = [("gpus.dns", at.as_str()), ("gpus.resolver", &dns_at), ("gpus.weight", "3")];
    let world = World::finding(&places, |_| {}).await;
    let both = ["gpus-127.0.0.1", "gpus-127.0.0.2"];
    assert_eq!(names(&world), both, "found before the front is open");
    world.all_up().await;
    let shown = world.admin_get("/api/v1/backends").await.json();
    let row = &shown["backends"][0];
    assert_eq!((&row["wanted_by"], &row["weight"]), (&"discovery".into(), &3.into()), "{row}");
    let failures: [fn(&mut Zone); 3] =
        [|zone| zone.failure = SERVFAIL, |zone| zone.forget(NAME), |zone| zone.is_silent = true];
    for failure in failures {
        dns.set(failure);
        until("the discovery fails", || is_failing(&world, "gpus")).await;
        assert_eq!(names(&world), both, "the last good list stays");
        assert_eq!(world.submit("ada", &quick(1)).await.status, 200);
        let metrics = world.admin_get("/metrics").await.text();
        assert!(metrics.contains("mooring_discovery_failing{discovery=\"gpus\"} 1"), "{metrics}");
        assert!(metrics.contains("mooring_discovery_backends{discovery=\"gpus\"} 2"), "{metrics}");
        dns.set(|zone| {
            (zone.failure, zone.is_silent) = (0, false);
            zone.has(NAME, &ips);
        });
        until("the discovery is well", || !is_failing(&world, "gpus")).await;
    }
    dns.set(|zone| zone.has(NAME, &ips[1..]));
    has(&world, &both[1..]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_adds_changes_and_removes_a_discovery() {
    let (a, b) = (sim("a").await, sim("b").await);
    let dns = DnsServer::start().await;
    serve(&dns, &[&b]);
    let resolver = dns.at.to_string();
    let world = World::over(vec![a], |_| {}).await;
    let places = |weight: &str| {
        let keys = [("gpus.srv", SERVICE), ("gpus.resolver", &resolver), ("gpus.weight", weight)];
        found_by(&keys)
    };
    let name = format!("b.fleet.test:{}", b.addr().port());
    let added = world.reload(|config| config.discovery = places("2")).await.unwrap();
    assert_eq!(added.applied, ["discovery"]);
    has(&world, &["a", &name]).await;
    world.reload(|config| config.discovery = places("7")).await.unwrap();
    let weight = || world.gateway.shared.fleet.by_name(&name).map(|it| it.weight().get());
    until("it has the other weight", || weight() == Some(7)).await;
    // What it does goes on until it has drained.
    world.all_up().await;
    let state = world.admin_post("/api/v1/backends/a/state", r#"{"state":"draining"}"#).await;
    assert_eq!(state.status, 200);
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(20, 1.0)).await;
    assert_eq!(running.backend(), name);
    world.reload(|config| config.discovery.clear()).await.unwrap();
    let metrics = world.admin_get("/metrics").await.text();
    assert!(!metrics.contains("discovery=\"gpus\""), "{metrics}");
    let seen = ada.until_end(&running.prompt_id()).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    has(&world, &["a"]).await;
}

/// A discovery takes the place of listed backends, and there is a slip in its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_drops_stays_until_a_new_discovery_has_answered() {
    let (a, b) = (sim("a").await, sim("b").await);
    let dns = DnsServer::start().await;
    serve(&dns, &[&a]);
    let (resolver, found) = (dns.at.to_string(), format!("a.fleet.test:{}", a.addr().port()));
    let places = |name: &str, service: &str| {
        let (srv, at) = (format!("{name}.srv"), format!("{name}.resolver"));
        found_by(&[(&srv, service), (&at, &resolver)])
    };
    let world = World::over(vec![a, b], |_| {}).await;
    let replaced = world.reload(|config| {
        config.backends.clear();
        config.discovery = places("gpus", "_slip._tcp.fleet.test");
    });
    let told = replaced.await.unwrap().warnings;
    let expected = "`a`, `b`: dropped, and kept until `discovery.gpus` has answered";
    assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    until("the discovery fails", || is_failing(&world, "gpus")).await;
    let shown = world.admin_get("/api/v1/backends").await.json();
    for row in shown["backends"].as_array().unwrap() {
        assert_eq!((&row["wanted_by"], &row["state"]), (&json!("kept"), &json!("ready")), "{row}");
    }
    // The slip is mended: what it does not find goes.
    world.reload(|config| config.discovery = places("gpus", SERVICE)).await.unwrap();
    has(&world, &[&found]).await;
    // The same with another name for it.
    world
        .reload(|config| config.discovery = places("boxes", "_slip._tcp.fleet.test"))
        .await
        .unwrap();
    until("the discovery fails", || is_failing(&world, "boxes")).await;
    let source = || world.gateway.sessions.source_of(&found).as_str();
    assert_eq!((names(&world), source()), (vec![found.clone()], "kept"));
    // An operator need not wait for it.
    let path = format!("/api/v1/backends/{found}");
    assert_eq!(send(world.admin, Method::DELETE, &path, &[], "").await.status, 202);
    has(&world, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_gives_way_to_the_configuration_and_is_never_the_gateway_itself() {
    let a = sim("a").await;
    let dns = DnsServer::start().await;
    let resolver = dns.at.to_string();
    let at = a.addr();
    let name = format!("a.fleet.test:{}", at.port());
    let places = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str())];
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let front = free.local_addr().unwrap().port();
    drop(free);
    let world = World::finding(&places, |config| config.server.listen.set_port(front)).await;
    dns.set(|zone| {
        zone.has("a.fleet.test", &[at.ip()]);
        zone.has("self.fleet.test", &[at.ip()]);
        zone.serves(SERVICE, &[("a.fleet.test", at.port()), ("self.fleet.test", front)]);
    });
    has(&world, &[&name]).await;
    let removed =
        send(world.admin, Method::DELETE, &format!("/api/v1/backends/{name}"), &[], "").await;
    assert!(removed.status == 409 && removed.text().contains("discovery.gpus"), "{removed:?}");
    let url = a.url();
    let own = Config::for_backends(&[("mine", &url)]).unwrap().backends;
    world.reload(|config| config.backends = own).await.unwrap();
    has(&world, &["mine"]).await;
    world.reload(|config| config.backends.clear()).await.unwrap();
    has(&world, &[&name]).await;
}

/// A gateway that starts while DNS is away finds its clients' backends in the journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_on_a_backend_that_was_found_survives_a_crash_of_the_gateway() {
    let mut mortal = Mortal::new(1).await;
    mortal.crash().await;
    let dns = DnsServer::start().await;
    serve(&dns, &[&mortal.sims[0]]);
    let resolver = dns.at.to_string();
    let places = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str())];
    let discovers = |config: &mut Config| {
        config.backends.clear();
        config.discovery = found_by(&places);
    };
    mortal.start_with(discovers).await;
    let fleet = || Arc::clone(&mortal.gateway().shared.fleet);
    until("it is up", || fleet().iter().any(|it| it.is_up())).await;
    let body = json!({ "client_id": "ada", "prompt": slow(30, 3.0) }).to_string();
    let sent = send(mortal.front(), Method::POST, "/prompt", &[], &body).await;
    let prompt = sent.prompt_id();
    dns.set(|zone| zone.is_silent = true);
    mortal.crash().await;
    mortal.start_with(discovers).await;
    let mut ada = Socket::open(mortal.front(), "/ws?clientId=ada").await;
    let seen = ada.until_end(&prompt).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
}

/// The source says nothing any more: what it found has to be let in all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_headers_of_a_discovery_hold_from_the_reload_on() {
    let (a, dns) = (sim("a").await, DnsServer::start().await);
    a.set_faults(|faults| "Bearer one".clone_into(&mut faults.wants));
    serve(&dns, &[&a]);
    let resolver = dns.at.to_string();
    let keys = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str())];
    let with = |header: &'static str| [keys[0], keys[1], ("gpus.headers", header)];
    let world = World::finding(&with("Authorization: Bearer one"), |_| {}).await;
    world.all_up().await;
    let running = world.submit("ada", &slow(40, 3.0)).await;
    assert_eq!(running.status, 200, "{}", running.text());
    dns.set(|zone| zone.is_silent = true);
    a.set_faults(|faults| "Bearer two".clone_into(&mut faults.wants));
    let told = world
        .reload(|config| config.discovery = found_by(&with("Authorization: Bearer two")))
        .await
        .unwrap();
    assert_eq!(told.applied, ["discovery"]);
    world.get("/object_info?clientId=ada").await;
    let is_let_in = |seen: &mooring::sim::Seen| {
        seen.headers.get("authorization").is_some_and(|it| it == "Bearer two")
    };
    assert!(a.requests().iter().any(is_let_in), "at once");
}
