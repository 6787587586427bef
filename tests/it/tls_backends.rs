//! Backends under TLS: all that is said to them goes over it, and one that is not who it should be
//! is down, with a reason that says why.

use std::sync::Arc;

use mooring::config::{BackendConfig, OnOff, Sources, load};
use mooring::net::tls::server::ServerTls;
use mooring::sim::{Options, Sim};
use mooring::ws::Opcode;

use crate::certificates::{Authority, Secured, long_over};
use crate::pictures::{RED, color, inverse, invert, png, run, upload, value, view};
use crate::support::{World, network, slow, soon, until};

/// A simulated server behind TLS.
async fn sim(tls: ServerTls) -> Sim {
    Sim::start(Arc::new(Secured(tls)), Options::named("a")).await.unwrap()
}

/// What is configured by these keys for a server.
fn backend(sim: &Sim, keys: &[(&str, &str)]) -> BackendConfig {
    let url = sim.url().replace("http://", "https://");
    let keys = keys.iter().map(|(key, value)| (format!("backends.a.{key}"), (*value).to_owned()));
    let flags = [("backends.a.url".to_owned(), url)].into_iter().chain(keys).collect();
    load(&Sources { flags, ..Sources::default() }).unwrap().backends.remove(0)
}

async fn world_over(sim: Sim, keys: &[(&str, &str)], passthrough: OnOff) -> World {
    let backend = backend(&sim, keys);
    World::over(vec![sim], |config| {
        config.backends = vec![backend];
        config.server.passthrough = passthrough;
    })
    .await
}

/// Why the backend is down.
async fn trouble(world: &World) -> String {
    world.is_down("a").await;
    let mut told = String::new();
    soon("a reason", async {
        while told.is_empty() {
            let ready = world.admin_get("/readyz").await.json();
            told = ready["backends"][0]["trouble"].as_str().unwrap_or_default().to_owned();
        }
    })
    .await;
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_said_to_a_backend_goes_over_tls_on_both_ways() {
    let authority = Authority::new();
    let pair = authority.issue("gpu");
    for passthrough in [OnOff::On, OnOff::Off] {
        let sim = sim(pair.server()).await;
        let world = world_over(sim, &[("ca", &authority.ca())], passthrough).await;
        world.all_up().await;
        let read = world.get("/system_stats").await;
        assert_eq!((read.status, read.backend()), (200, "a"), "{passthrough:?}");
        let sent = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
        let (_, images) = run(&world, "ada", &invert(&value(&sent))).await;
        assert_eq!(color(&view(&world, &images[0], None).await.body), inverse(RED));
        let mut socket = world.socket("ada").await;
        let prompt = world.submit("ada", &slow(3, 0.1)).await.prompt_id();
        soon("a preview", async {
            while socket.frame().await.unwrap().opcode != Opcode::Binary {}
        })
        .await;
        socket.until_end(&prompt).await;
        let told = world.admin_get("/api/v1/backends").await.json();
        assert!(told["backends"][0]["url"].as_str().unwrap().starts_with("https://"), "{told}");
    }
}

#[tokio::test]
async fn a_backend_that_is_not_who_it_should_be_is_down_and_the_reason_says_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let named = authority.issue_for("named", &["gpu.lan", "10.0.0.9"], |_| {});
    let late = authority.issue_for("late", &["127.0.0.1"], long_over);
    let good = authority.issue("good");
    let ca = authority.ca();
    let (known, unknown) = ([("ca", ca.as_str())], other.ca());
    let unknown = [("ca", unknown.as_str())];
    for (tls, keys, why) in [
        (named.server(), &known[..], "is not for `127.0.0.1` but for "),
        (late.server(), &known, "its certificate has expired on Wed, 01 Jan 2020 00:00:00 GMT"),
        (good.server(), &unknown, "no trusted authority has issued its certificate"),
        (good.server(), &[], "no trusted authority has issued its certificate"),
        (good.server_for(Some(&other)), &known, "it asks for a client certificate"),
    ] {
        let world = world_over(sim(tls).await, keys, OnOff::On).await;
        let told = trouble(&world).await;
        assert!(told.contains(why), "{told}");
    }
    // One that speaks no TLS.
    let plain = Sim::start(network(), Options::named("a")).await.unwrap();
    let told = trouble(&world_over(plain, &known, OnOff::On).await).await;
    assert!(told.contains("the server does not speak TLS: is the URL `http://`?"), "{told}");
}

#[tokio::test]
async fn a_backend_is_believed_by_its_name_by_its_own_certificate_or_by_everybodys() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let named = authority.issue_for("named", &["gpu.lan"], |_| {});
    let own = authority.own_authority("own");
    let shown = clients.issue_for("mooring", &["mooring"], |_| {});
    let ca = authority.ca();
    for (tls, keys) in [
        (named.server(), vec![("ca", ca.as_str()), ("server_name", "gpu.lan")]),
        (own.server(), vec![("ca", own.cert.as_str())]),
        (named.server(), vec![("insecure", "true")]),
        (
            named.server_for(Some(&clients)),
            vec![
                ("ca", ca.as_str()),
                ("server_name", "gpu.lan"),
                ("client_cert", shown.cert.as_str()),
                ("client_key", shown.key.as_str()),
            ],
        ),
    ] {
        let world = world_over(sim(tls).await, &keys, OnOff::On).await;
        world.all_up().await;
        assert_eq!(world.get("/system_stats").await.status, 200, "{keys:?}");
    }
}

#[tokio::test]
async fn a_reload_dials_with_what_the_files_hold_then() {
    let (authority, other) = (Authority::new(), Authority::new());
    let sim = sim(authority.issue("gpu").server()).await;
    let trusted = other.folder().join("trusted.pem");
    std::fs::copy(other.ca(), &trusted).unwrap();
    let keys = [("ca", trusted.to_str().unwrap())];
    let world = world_over(sim, &keys, OnOff::On).await;
    assert!(trouble(&world).await.contains("no trusted authority"));
    std::fs::copy(authority.ca(), &trusted).unwrap();
    let again = backend(world.sim("a"), &keys);
    let told = world.reload(|config| config.backends = vec![again]).await.unwrap();
    assert_eq!(told.applied, ["backends"]);
    until("it is up", || world.gateway.shared.fleet.iter().all(|it| it.is_up())).await;
}

/// By an operator, while all runs: the files lie where secrets do.
#[tokio::test]
async fn a_backend_that_is_added_has_its_authority_in_the_folder_of_secrets() {
    let authority = Authority::new();
    let added = sim(authority.issue("gpu").server()).await;
    let secrets = authority.folder().to_owned();
    let world = World::with(1, |config| config.admin.secrets_dir = Some(secrets)).await;
    world.all_up().await;
    let put = |ca: String| {
        let url = added.url().replace("http://", "https://");
        let body = serde_json::json!({ "url": url, "ca": ca }).to_string();
        let json = [("content-type", "application/json")];
        async move {
            let to = "/api/v1/backends/b";
            crate::support::send(world.admin, http::Method::PUT, to, &json, &body).await
        }
    };
    let elsewhere = put("/etc/hostname".to_owned()).await;
    assert_eq!(elsewhere.status, 422, "{}", elsewhere.text());
    assert!(elsewhere.text().contains("admin.secrets_dir"), "{}", elsewhere.text());
    let answer = put(authority.ca()).await;
    assert!(answer.status < 300, "{}", answer.text());
    let fleet = &world.gateway.shared.fleet;
    until("it is up", || fleet.by_name("b").is_some_and(|it| it.is_up())).await;
}
