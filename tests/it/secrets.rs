//! Backends that want a key before they answer anything.

use http::Method;
use mooring::config::{self, BackendHeaders, Sources};
use mooring::sim::{Options, Sim};

use crate::pictures::{RED, png, upload};
use crate::support::{World, network, quick, send, until};

pub(crate) fn headers(text: &str) -> BackendHeaders {
    let flag = |key: &str, value: &str| (format!("backends.x.{key}"), value.to_owned());
    let flags = vec![flag("url", "http://127.0.0.1:9"), flag("headers", text)];
    let mut config = config::load(&Sources { flags, ..Sources::default() }).unwrap();
    config.backends.remove(0).headers
}

async fn locked(name: &str, secret: &str) -> Sim {
    let options = Options { assets: true, ..Options::named(name) };
    let sim = Sim::start(network(), options).await.unwrap();
    sim.set_faults(|faults| secret.clone_into(&mut faults.wants));
    sim
}

async fn set(world: &World, backend: &str, state: &str) {
    let path = format!("/api/v1/backends/{backend}/state");
    let body = format!("{{\"state\":\"{state}\"}}");
    assert_eq!(world.admin_post(&path, &body).await.status, 200);
}

/// Requests on both ways, sockets, probes, our own questions and copies: each backend hears its own
/// key, once, whatever the client says of itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_said_to_a_backend_carries_its_headers() {
    let sims = vec![locked("a", "Bearer s3cret-a").await, locked("b", "Bearer s3cret-b").await];
    let world = World::over(sims, |config| {
        config.backends[0].headers = headers("Authorization: Bearer s3cret-a\nX-Pod: one");
        config.backends[1].headers = headers("authorization: Bearer s3cret-b");
    })
    .await;
    world.all_up().await;
    set(&world, "b", "draining").await;
    let own = [("authorization", "Basic the-clients"), ("comfy-client-id", "ada")];
    let assets = ["/api/assets", "/api/tags", "/api/assets/tags/refine"];
    for path in ["/object_info", "/api/system_stats", "/", "/settings", "/queue", "/history"]
        .into_iter()
        .chain(assets)
    {
        let answer = send(world.front, Method::GET, path, &own, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let mut socket = world.socket("ada").await;
    let stored = upload(&world, Some("ada"), "in.png", &png(RED)).await;
    assert_eq!((stored.status, stored.backend()), (200, "a"), "{}", stored.text());
    set(&world, "a", "draining").await;
    set(&world, "b", "ready").await;
    // Its picture has to be copied from the one to the other.
    let graph = serde_json::json!({
        "1": { "class_type": "LoadImage", "inputs": { "image": "in.png" } },
        "2": { "class_type": "SaveImage",
               "inputs": { "images": ["1", 0], "filename_prefix": "x" } },
    });
    let _ = world.post("/-/reset?clientId=ada&force=true", "").await;
    let made = world.submit("ada", &graph).await;
    assert_eq!((made.status, made.backend()), (200, "b"), "{}", made.text());
    let seen = socket.until_end(&made.prompt_id()).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    for (name, secret) in [("a", "Bearer s3cret-a"), ("b", "Bearer s3cret-b")] {
        for seen in world.sim(name).requests() {
            let said: Vec<_> = seen.headers.get_all("authorization").iter().collect();
            assert_eq!(said, [secret], "{name}: {} {}", seen.method, seen.target);
            assert_eq!(seen.headers.contains_key("x-pod"), name == "a", "{}", seen.target);
        }
    }
}

/// A key that is wrong is said to be wrong, and not said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_told_without_the_key() {
    let world = World::over(vec![locked("a", "Bearer right").await], |config| {
        config.backends[0].headers = headers("Authorization: Bearer s3cret");
    })
    .await;
    let backend = world.gateway.shared.fleet.by_name("a").unwrap();
    let trouble = || backend.report(mooring::net::now()).trouble.unwrap_or_default();
    until("it is refused", || trouble().contains("401")).await;
    let shown = [
        world.admin_get("/api/v1/backends").await.text(),
        world.admin_get("/readyz").await.text(),
        world.admin_get("/metrics").await.text(),
        world.submit("ada", &quick(1)).await.text(),
        world.get("/object_info").await.text(),
        format!("{:?} {:?}", world.gateway.shared.config(), backend),
    ];
    for text in shown {
        assert!(!text.contains("s3cret"), "{text}");
    }
}
