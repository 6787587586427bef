//! A fleet of nobody: what is asked of it is refused in good form, and who waits gets the first
//! backend that comes.

use http::Method;
use mooring::net::now;
use serde_json::json;

use crate::dns_server::DnsServer;
use crate::growing::{has, is_refused, sim, submitted};
use crate::support::{World, found_by, send, until};

const SERVICE: &str = "_comfyui._tcp.fleet.test";

/// A gateway whose discovery tells of nobody.
async fn nobody(dns: &DnsServer, ready_when_empty: bool) -> World {
    dns.set(|zone| zone.serves(SERVICE, &[]));
    let resolver = dns.at.to_string();
    let places = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str())];
    World::finding(&places, |config| config.fleet.ready_when_empty = ready_when_empty).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_needs_a_backend_says_that_there_is_none() {
    let dns = DnsServer::start().await;
    let world = nobody(&dns, false).await;
    is_refused(&world).await;
    let client = [("comfy-client-id", "ada")];
    for path in [
        "/object_info",
        "/object_info/KSampler",
        "/api/system_stats",
        "/settings",
        "/users",
        "/extensions",
        "/api/userdata?dir=workflows",
        "/models",
        "/embeddings",
        "/workflow_templates",
        "/queue",
        "/internal/files/output",
        "/some/pack",
        "/api/assets",
        "/assets/index-azSeANjR.js",
        "/view?filename=a.png&type=input",
        "/api/jobs",
    ] {
        for headers in [&[][..], &client[..]] {
            let answer = send(world.front, Method::GET, path, headers, "").await;
            // What is the gateway's own to say it says.
            let own = answer.status == 200 && ["/queue", "/api/jobs"].contains(&path);
            let code = answer.header("mooring-error");
            let told = answer.status == 503 && code == "fleet_empty";
            let nothing = answer.status == 404 && path.starts_with("/view");
            assert!(own || told || nothing, "{path}: {} {code} {}", answer.status, answer.text());
            if told {
                assert!(!answer.header("retry-after").is_empty(), "{path}");
                assert_eq!(answer.json()["error"]["type"], "fleet_empty", "{path}");
            }
        }
    }
    for (path, body) in [
        ("/settings", "{}"),
        ("/userdata/x.json", "{}"),
        ("/some/pack", "{}"),
        ("/interrupt?clientId=ada", ""),
        ("/queue?clientId=ada", r#"{"clear":true}"#),
        ("/upload/image?clientId=ada", "x"),
        ("/free?clientId=ada", "{}"),
    ] {
        let answer = send(world.front, Method::POST, path, &client, body).await;
        let code = answer.header("mooring-error");
        assert!(answer.status < 500 || code == "fleet_empty", "{path}: {}", answer.text());
    }
    let page = send(world.front, Method::GET, "/", &[("sec-fetch-mode", "navigate")], "").await;
    assert_eq!((page.status, page.header("mooring-error")), (503, "fleet_empty"));
    assert!(page.text().contains("<html") && !page.header("retry-after").is_empty());
    for path in ["/api/v1/backends", "/api/v1/clients", "/metrics", "/api/v1/scaling"] {
        assert_eq!(world.admin_get(path).await.status, 200, "{path}");
    }
    let scaling = world.admin_get("/api/v1/scaling").await.json();
    assert_eq!((&scaling["ready"], &scaling["wanted"]), (&json!(0), &json!(1)), "{scaling}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_nobody_is_ready_only_where_that_is_meant() {
    let dns = DnsServer::start().await;
    let world = nobody(&dns, false).await;
    assert_eq!(world.admin_get("/readyz").await.status, 503);
    world.reload(|config| config.fleet.ready_when_empty = true).await.unwrap();
    let ready = world.admin_get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    // One that was found and has yet to start changes nothing.
    dns.set(|zone| {
        zone.has("a.fleet.test", &[[127, 0, 0, 1].into()]);
        zone.serves(SERVICE, &[("a.fleet.test", 9)]);
    });
    // A discovery that is begun anew asks at once.
    let resolver = dns.at.to_string();
    let again = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str()), ("gpus.weight", "2")];
    world.reload(|config| config.discovery = found_by(&again)).await.unwrap();
    let fleet = &world.gateway.shared.fleet;
    until("it was found and asked", || fleet.iter().any(|it| it.report(now()).trouble.is_some()))
        .await;
    assert_eq!(world.admin_get("/readyz").await.status, 200);
    // A backend that is listed and down is another matter.
    let gone = mooring::config::Config::for_backends(&[("a", "http://127.0.0.1:9")]).unwrap();
    world.reload(|config| config.backends = gone.backends).await.unwrap();
    assert_eq!(world.admin_get("/readyz").await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_waits_gets_the_first_backend_that_comes() {
    let (a, dns) = (sim("a").await, DnsServer::start().await);
    let world = nobody(&dns, false).await;
    let mut ada = world.socket("ada").await;
    assert_eq!(ada.until("status").await["data"]["sid"], "ada");
    dns.set(|zone| {
        zone.has("a.fleet.test", &[a.addr().ip()]);
        zone.serves(SERVICE, &[("a.fleet.test", a.addr().port())]);
    });
    // A discovery that is begun anew asks at once.
    let resolver = dns.at.to_string();
    let again = [("gpus.srv", SERVICE), ("gpus.resolver", resolver.as_str()), ("gpus.weight", "2")];
    world.reload(|config| config.discovery = found_by(&again)).await.unwrap();
    let name = format!("a.fleet.test:{}", a.addr().port());
    has(&world, &[&name]).await;
    until("its socket is linked", || a.sids().contains(&"ada".to_owned())).await;
    let taken = submitted(&world, "ada", 7).await;
    let seen = ada.until_end(&taken.prompt_id()).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
}
